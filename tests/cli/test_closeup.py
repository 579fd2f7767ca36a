"""A close look at one VM from the command line: definition, screen, snapshots, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from manager.core.vault import KeptDefinition
from manager.store.vault import SqliteVault
from tests.cli.support import Cli


def test_xml_is_the_definition(muster: Cli) -> None:
    ran = muster("vm", "xml", "web-1")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("<domain ")
    assert "<name>web-1</name>" in ran.out
    (row,) = muster("vm", "xml", "web-1", "--json").rows
    assert row == {"uuid": muster.vm("web-1").id, "vm": "web-1", "xml": ran.out}


def test_a_screenshot_is_written_to_a_file(muster: Cli, tmp_path: Path) -> None:
    vm = muster.vm("web-1")
    muster.world.redefine(vm, _with_screen(vm.config))
    file = tmp_path / "screen.png"
    (row,) = muster("vm", "screenshot", "web-1", "-o", str(file), "--json").rows
    assert file.read_bytes().startswith(b"\x89PNG")
    assert row == {"uuid": vm.id, "vm": "web-1", "file": str(file), "bytes": file.stat().st_size}
    ran = muster("vm", "screenshot", "web-1", "-o", str(tmp_path / "no" / "where.png"))
    assert ran.code == 1
    assert "cannot be written" in ran.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("xml", "web-11"), 2, "Did you mean web-1"),
        (("screenshot", "web-1", "-o", "x.png"), 1, "web-1: it has no graphics device."),
        (("screenshot", "off-1", "-o", "x.png"), 1, "off-1: "),
        (("console", "web-1"), 2, "needs a terminal"),
        (("snapshot", "create", "web-1", "--name", "a/b"), 2, "no “/”"),
        (("snapshot", "create", "web-1", "--name", "a", "--description", "x\ny"), 2, "printable"),
    ],
)
def test_what_is_refused_says_why(
    muster: Cli, words: tuple[str, ...], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = muster.state()
    ran = muster("vm", *words)
    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert muster.state() == before
    assert not (tmp_path / "x.png").exists()


def test_snapshots_from_the_first_to_none(muster: Cli) -> None:
    assert muster("vm", "snapshot", "list", "web-1").err == "muster: web-1 has no snapshot.\n"
    ran = muster("vm", "snapshot", "create", "web-1", "off-1", "--name", "now", "--description", "why not")
    assert ran.code == 0, ran.err
    (row,) = muster("vm", "snapshot", "list", "web-1", "--json").rows
    assert (row["name"], row["description"], row["memory"], row["status"]) == (
        "now",
        "why not",
        True,
        "Running",
    )
    assert row["created"]
    shown = muster("vm", "snapshot", "list", "off-1").out
    assert "now (current)" in shown
    assert "memory" not in shown
    again = muster("vm", "snapshot", "create", "web-1", "--name", "now")
    assert again.code == 1
    assert "already" in again.out
    wrong = muster("vm", "snapshot", "revert", "web-1", "--name", "then")
    assert (wrong.code, "it has no snapshot “then”" in wrong.out) == (1, True)
    plan = muster("vm", "snapshot", "delete", "web-1", "--name", "now", "--what-if", "--json").rows
    assert plan[0]["reason"] == "snapshot “now”"
    assert len(muster.vm("web-1").snapshots) == 1
    assert muster("vm", "snapshot", "delete", "web-1", "off-1", "--name", "now").code == 0
    assert muster("vm", "snapshot", "list", "web-1", "--json").rows == []
    assert muster.vm("off-1").config.snapshots == 0


def test_a_vm_with_a_snapshot_stays_on_its_node(muster: Cli) -> None:
    assert muster("vm", "snapshot", "create", "web-1", "--name", "now").code == 0
    ran = muster("vm", "migrate", "web-1", "--to", "n2")
    assert (ran.code, "has 1 snapshot" in ran.out) == (1, True)


def _with_screen(config):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(config, graphics=("vnc",))


def kept(muster: Cli, file: Path, *texts: tuple[str, str]) -> None:
    """A vault with these texts of VMs, one version after the other; commands read it from now on."""

    async def keep() -> None:
        vault = SqliteVault(file)
        for number, (name, text) in enumerate(texts):
            vm = muster.vm(name)
            told = KeptDefinition(
                vm=vm.id, name=name, node=vm.node.id, number=1, digest=str(number), kept_s=1e9 + number
            )
            await vault.keep([(told, text)])
        await vault.close()

    asyncio.run(keep())
    muster.vault = lambda: SqliteVault(file)


def test_kept_definitions_are_listed_and_printed_without_any_node(muster: Cli, tmp_path: Path) -> None:
    kept(muster, tmp_path / "v", ("web-10", "<a/>"), ("web-2", "<old/>"), ("web-2", "<evil>\x1b[31m</evil>"))
    muster.faults.freeze("n1")
    muster.faults.freeze("n2")
    rows = muster("vm", "definitions", "--json").rows
    assert [(row["vm"], row["version"], row["node"]) for row in rows] == [
        ("web-2", 2, "n1"),
        ("web-10", 1, "n1"),
    ]
    assert [row["version"] for row in muster("vm", "definitions", "web-2", "--json").rows] == [2, 1]
    ran = muster("vm", "definitions", muster.vm("web-2").id)
    assert ran.code == 0
    assert "web-2" in ran.out
    assert muster("vm", "xml", "web-2", "--kept", "1").out == "<old/>\n"
    ran = muster("vm", "xml", "web-2", "--kept", "newest")
    assert ran.out.startswith("<evil>")
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("definitions", "web-3"), "No definition of a VM web-3 is kept. Did you mean web-2?"),
        (("xml", "web-2", "--kept", "7"), "web-2: version 7 is not kept; there are: 1."),
        (("xml", "web-2", "--kept", "0"), "needs a version's number from 1, or newest"),
    ],
)
def test_what_is_not_kept_is_said(muster: Cli, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    kept(muster, tmp_path / "v", ("web-2", "<a/>"))
    ran = muster("vm", *words)
    assert (ran.code, said in ran.err) == (2, True), ran.err


def test_an_empty_vault_says_who_fills_it(muster: Cli, tmp_path: Path) -> None:
    muster.vault = lambda: SqliteVault(tmp_path / "v")
    ran = muster("vm", "definitions")
    assert ran.code == 0
    assert "no definition is kept yet" in ran.err
    muster.vault = lambda: SqliteVault(tmp_path / "no" / "v")
    ran = muster("vm", "definitions")
    assert ran.code == 1
    assert "Kept definitions cannot be read" in ran.err

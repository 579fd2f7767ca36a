"""The definition vault on its file: versions, where nothing changed, many processes, damage."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from manager.core.ids import NodeId, VmId
from manager.core.vault import KeptDefinition
from manager.store.vault import SqliteVault


def found(
    vm: str, text: str, *, at_s: float = 1.0, node: str = "n1", name: str = ""
) -> tuple[KeptDefinition, str]:
    kept = KeptDefinition(
        vm=VmId(vm), name=name or vm, node=NodeId(node), number=1, digest=f"{node}:{text[:8]}", kept_s=at_s
    )
    return kept, text


async def test_a_new_text_is_a_new_version_and_the_same_is_none(tmp_path: Path) -> None:
    vault = SqliteVault(tmp_path / "v")
    await vault.keep([found("a", "<one/>"), found("b", "<b/>")])
    await vault.keep([found("a", "<two/>", at_s=2.0)])
    again = await vault.keep([found("a", "<two/>", at_s=3.0, node="n2", name="renamed")])
    assert [(k.number, k.kept_s, k.node, k.name) for k in again] == [(2, 2.0, "n2", "renamed")]
    await vault.close()

    after = SqliteVault(tmp_path / "v")
    assert {k.vm: k.number for k in await after.newest()} == {"a": 2, "b": 1}
    assert [(k.number, k.node, k.digest) for k in await after.versions(VmId("a"))] == [
        (2, "n2", "n2:<two/>"),
        (1, "n1", "n1:<one/>"),
    ]
    assert [await after.text(VmId("a"), number) for number in (1, 2, 3)] == ["<one/>", "<two/>", None]
    await after.close()
    assert (tmp_path / "v").stat().st_mode & 0o777 == 0o600


async def test_only_the_newest_versions_stay(tmp_path: Path) -> None:
    vault = SqliteVault(tmp_path / "v", kept_versions=3)
    for number in range(6):
        await vault.keep([found("a", f"<n{number}/>"), found("b", "<b/>")])
    assert [k.number for k in await vault.versions(VmId("a"))] == [6, 5, 4]
    assert [k.number for k in await vault.versions(VmId("b"))] == [1]
    assert await vault.text(VmId("a"), 3) is None
    assert await vault.text(VmId("a"), 4) == "<n3/>"
    await vault.close()


async def test_two_programs_use_one_file(tmp_path: Path) -> None:
    one, two = SqliteVault(tmp_path / "v"), SqliteVault(tmp_path / "v")
    assert await two.newest() == ()
    (kept,) = await one.keep([found("a", "<a/>")])
    assert await two.newest() == (kept,)
    (kept,) = await two.keep([found("a", "<b/>")])
    assert await one.versions(VmId("a")) != ()
    assert (await one.newest())[0] == kept
    await one.close()
    await two.close()


async def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"no database" * 200)
    vault = SqliteVault(tmp_path / "v")
    assert await vault.newest() == ()
    await vault.keep([found("a", "<a/>")])
    assert len(await vault.newest()) == 1
    await vault.close()
    assert len(list(tmp_path.glob("v.broken-*"))) == 1


async def test_what_a_newer_program_wrote_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "v") as db:
        db.execute("PRAGMA user_version = 99")
    vault = SqliteVault(tmp_path / "v")
    with pytest.raises(OSError, match="newer Muster"):
        await vault.keep([found("a", "<a/>")])
    await vault.close()
    assert list(tmp_path.glob("v.broken-*")) == []


async def test_where_it_cannot_be_written_nothing_is_kept(tmp_path: Path) -> None:
    vault = SqliteVault(tmp_path / "missing" / "v")
    with pytest.raises(OSError, match="No such file"):
        await vault.newest()
    (tmp_path / "missing").mkdir()
    assert await vault.newest() == ()
    await vault.close()
    with pytest.raises(OSError, match="closed"):
        await vault.newest()


async def test_what_is_asked_for_at_every_start_does_not_read_the_texts(tmp_path: Path) -> None:
    vault = SqliteVault(tmp_path / "v")
    text = "<domain>" + "".join(f"<disk n='{n}'/>" for n in range(400)) + "</domain>"
    await vault.keep([found(f"vm-{n}", text) for n in range(2000)])
    begun_s = time.perf_counter()
    assert len(await vault.newest()) == 2000
    assert time.perf_counter() - begun_s < 2.0
    await vault.close()
    assert (tmp_path / "v").stat().st_size < 2000 * 2000

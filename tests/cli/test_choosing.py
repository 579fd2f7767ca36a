"""Which cluster is meant, and what is said where that cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from manager.cli.app import WindowOptions
from manager.cli.options import spread_uris
from tests.cli.support import Cli, write_cluster


def test_none_is_the_demo_and_standard_error_says_so(muster: Cli) -> None:
    ran = muster.bare("vm", "list", "--json")
    assert len(ran.rows) == 40
    assert ran.code == 0
    assert "no cluster is configured: this is the demo" in ran.err
    assert muster.bare("--demo", "2x3", "vm", "list").err == ""


def test_the_only_one(muster: Cli, home: Path) -> None:
    write_cluster("alpha", home)
    (shown,) = muster.bare("cluster", "show", "--json").rows
    assert shown["name"] == "alpha"
    assert shown["file"] == str(home / "config" / "clusters" / "alpha.toml")


def test_several_are_named_and_nothing_is_opened(muster: Cli, home: Path) -> None:
    write_cluster("alpha", home)
    write_cluster("beta", home)
    ran = muster.bare("vm", "list", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "Several clusters are configured: choose one with --cluster. Configured: alpha, beta" in ran.err


def test_muster_cluster(muster: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cluster("alpha", home)
    beta = write_cluster("beta", home)
    for value in ("beta", str(beta)):
        monkeypatch.setenv("MUSTER_CLUSTER", value)
        assert muster.bare("cluster", "show", "--json").rows[0]["name"] == "beta"
    assert muster.bare("--cluster", "alpha", "cluster", "show", "--json").rows[0]["name"] == "alpha"
    assert muster.bare("--demo", "1x1", "cluster", "show", "--json").rows[0]["name"] == "demo"
    monkeypatch.setenv("MUSTER_CLUSTER", "gamma")
    ran = muster.bare("vm", "list")
    assert ran.code == 2
    assert 'MUSTER_CLUSTER: There is no cluster or cluster file "gamma". Configured: alpha, beta' in ran.err


def test_a_bad_cluster_file(muster: Cli, home: Path) -> None:
    text = '[[nodes]]\nuri = "qemu+ssh://n1/system"\n[migration]\noutgoing_per_node = "two"\n'
    path = write_cluster("prod", home, text)
    ran = muster.bare("--cluster", str(path), "vm", "list", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        'muster: prod.toml, line 4: migration.outgoing_per_node = "two": needs a whole number from 1 to 64. '
        "Nothing was loaded.\n"
    )
    missing = muster.bare("--cluster", str(home / "none.toml"), "vm", "list")
    assert missing.code == 2
    assert "There is no cluster or cluster file" in missing.err


@pytest.mark.parametrize(
    "argv",
    [
        ("--demo", "1x1", "--connect", "test:///default", "vm", "list"),
        ("--cluster", "x", "vm", "list", "--demo", "1x1"),
        ("--demo", "4by40", "vm", "list"),
        ("--connect", "nonsense", "vm", "list"),
        ("vm", "list", "extra"),
        ("vm", "strat", "a"),
        ("vm", "start"),
        ("vm", "list", "--colums", "name"),
        ("--page", "roles", "vm", "list"),
    ],
)
def test_bad_usage(muster: Cli, argv: tuple[str, ...]) -> None:
    ran = muster.bare(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def test_a_wrong_uri(muster: Cli) -> None:
    ran = muster.bare("--connect", "qemu+tcp://127.0.0.1:1/system", "vm", "list", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "No node of cluster 127.0.0.1 can be reached." in ran.err
    assert "Connection refused" in ran.err


def test_several_uris_after_one_option(muster: Cli) -> None:
    ran = muster.bare("--connect", "test:///default", "test:///default", "node", "list", "--json")
    assert len(ran.rows) == 2
    assert spread_uris(["vm", "--connect=a://1", "b://2", "list", "c://3"]) == [
        *("vm", "--connect=a://1", "--connect", "b://2", "list", "c://3")
    ]
    assert spread_uris(["--connect", "a://1", "--", "b://2"]) == ["--connect", "a://1", "--", "b://2"]


def test_a_folder_that_cannot_be_used(muster: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_text("in the way")
    ran = muster.bare("vm", "list", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "cannot be used" in ran.err
    assert len(ran.err.splitlines()) == 1


# --- the window ------------------------------------------------------------------------------------


def test_without_a_command_the_window_opens(muster: Cli, home: Path) -> None:
    assert muster.bare().code == 0
    write_cluster("alpha", home)
    write_cluster("beta", home)
    broken = write_cluster("gamma", home, "nodes = 1\n")
    ran = muster.bare("--screenshot", "x.png", "--size", "1366x768")
    assert "gamma.toml" in ran.err
    broken.unlink()
    muster.bare("gui", "--theme", "dark", "--page", "nodes", "--cluster", "beta")
    assert muster.windows == [
        (["demo"], WindowOptions()),
        (["alpha", "beta"], WindowOptions(screenshot=Path("x.png"), size=(1366, 768))),
        (["beta"], WindowOptions(theme="dark", page="nodes")),
    ]


def test_the_window_opens_the_clusters_used_last(muster: Cli, home: Path) -> None:
    write_cluster("alpha", home)
    beta = write_cluster("beta", home)
    muster.bare("--version")
    muster.bare("gui")
    muster.built[-1].files.remember((beta,))
    muster.bare()
    assert [names for names, _ in muster.windows] == [["alpha", "beta"], ["beta"]]


@pytest.mark.parametrize("size", ["1366", "x", "1x1", "1366x", "-1x300", "99999x99999"])
def test_size(muster: Cli, size: str) -> None:
    ran = muster.bare("gui", "--size", size)
    assert ran.code == 2
    assert "needs WIDTHxHEIGHT" in ran.err
    assert muster.windows == []


# --- the lab -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("lab", "up"), "json=False"),
        (("lab", "up", "--json"), "json=True"),
        (("lab", "--json", "up"), "json=True"),
        (("--json", "lab", "up", "--timeout", "3"), "json=True"),
    ],
)
def test_lab(muster: Cli, argv: tuple[str, ...], said: str) -> None:
    assert muster.bare(*argv).out.strip() == said


def test_version_and_help(muster: Cli) -> None:
    assert muster.bare("--version").out == "muster 1.2.3\n"
    said = muster.bare("vm", "turn-off", "--help").out
    assert "Cut the VMs' power. Unsaved data in the guests is lost." in " ".join(said.split())
    assert "--what-if" in said
    assert muster.readings == []


def test_an_internal_error_is_one_message(muster: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr("manager.cli.listing.show_cluster", broken)
    ran = muster("cluster", "show")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("muster: internal error: RuntimeError: it broke\n")
    assert "Traceback" not in ran.err
    assert "Traceback" in muster("--debug", "cluster", "show").err

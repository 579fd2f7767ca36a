"""Lists over all configured clusters, whose hosts have VMs of the same name and UUID."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import Cli, write_cluster

SILENT = 'name = "silent"\n[[nodes]]\nname = "s1"\nuri = "qemu+tcp://127.0.0.1:1/system"\n'


@pytest.fixture
def both(home: Path) -> None:
    write_cluster("alpha", home)
    write_cluster("beta", home)


@pytest.mark.usefixtures("both")
def test_one_list_has_the_rows_of_all_and_says_whose_they_are(muster: Cli) -> None:
    rows = muster.bare("--all-clusters", "vm", "list", "--json").rows
    assert [(row["name"], row["cluster"]) for row in rows] == [("test", "alpha"), ("test", "beta")]
    assert len({row["uuid"] for row in rows}) == 1
    ran = muster.bare("vm", "list", "--all-clusters")
    assert ran.code == 0
    assert ran.err == ""
    assert [line.split()[:2] for line in ran.out.splitlines()] == [
        *(["Name", "Cluster"], ["test", "alpha"], ["test", "beta"])
    ]


@pytest.mark.usefixtures("both")
def test_it_is_queried_sorted_and_grouped_by_cluster(muster: Cli) -> None:
    def clusters(*argv: str) -> list[str]:
        ran = muster.bare("--all-clusters", "node", "list", "--columns", "cluster,name", "--json", *argv)
        return [row["cluster"] for row in ran.rows]

    assert clusters("--sort", "-cluster") == ["beta", "alpha"]
    assert clusters("--where", "cluster:b*") == ["beta"]
    ran = muster.bare("--all-clusters", "vm", "list", "--group-by", "cluster", "--json")
    assert [(group["group"], group["count"]) for group in ran.rows] == [("alpha", 1), ("beta", 1)]
    assert [row["cluster"] for group in ran.rows for row in group["rows"]] == ["alpha", "beta"]


def test_of_one_cluster_it_is_a_column_that_nobody_needs(muster: Cli) -> None:
    assert {row["cluster"] for row in muster("vm", "list", "--json").rows} == {"small"}
    assert "Cluster" not in muster("vm", "list").out.splitlines()[0]


@pytest.mark.usefixtures("both")
def test_one_that_cannot_be_reached_does_not_hide_the_others(muster: Cli, home: Path) -> None:
    write_cluster("silent", home, SILENT)
    ran = muster.bare("--all-clusters", "vm", "list", "--json")
    assert ran.code == 3
    assert [row["cluster"] for row in ran.rows] == ["alpha", "beta"]
    assert "No node of cluster silent can be reached." in ran.err
    ran = muster.bare("--all-clusters", "node", "list", "--json")
    assert ran.code == 3
    assert {row["cluster"]: row["status"] for row in ran.rows} == {
        "alpha": "Up",
        "beta": "Up",
        "silent": "Unknown",
    }


def test_if_none_can_be_reached_there_is_nothing_to_print(muster: Cli, home: Path) -> None:
    write_cluster("silent", home, SILENT)
    write_cluster("mute", home, SILENT.replace("silent", "mute"))
    ran = muster.bare("--all-clusters", "vm", "list", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "of cluster silent" in ran.err
    assert "of cluster mute" in ran.err


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("vm", "start", "test"), "--all-clusters is for vm list and node list"),
        (("storage", "list"), "--all-clusters is for vm list and node list"),
        (("cluster", "show"), "--all-clusters is for vm list and node list"),
        (("--cluster", "alpha", "vm", "list"), "Only one of --cluster"),
    ],
)
def test_what_is_of_one_cluster_is_refused(muster: Cli, argv: tuple[str, ...], said: str) -> None:
    ran = muster.bare("--all-clusters", *argv)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_bad_file_or_none_at_all(muster: Cli, home: Path) -> None:
    ran = muster.bare("--all-clusters", "vm", "list")
    assert (ran.code, ran.out) == (2, "")
    assert "No cluster is configured" in ran.err
    write_cluster("alpha", home)
    write_cluster("gamma", home, "nodes = 1\n")
    ran = muster.bare("--all-clusters", "vm", "list", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "gamma.toml" in ran.err


@pytest.mark.usefixtures("both")
def test_without_it_the_message_tells_of_it_and_the_window_takes_it(
    muster: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = muster.bare("vm", "list")
    assert ran.code == 2
    assert "--all-clusters" in ran.err
    monkeypatch.setenv("MUSTER_CLUSTER", "beta")
    assert len(muster.bare("vm", "list", "--json").rows) == 1
    assert len(muster.bare("--all-clusters", "vm", "list", "--json").rows) == 2
    assert muster.bare("--all-clusters").code == 0
    assert muster.windows[-1][0] == ["alpha", "beta"]

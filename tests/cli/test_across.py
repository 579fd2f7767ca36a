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


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("noun", ["storage", "network"])
def test_pools_and_networks_of_all(muster: Cli, home: Path, noun: str) -> None:
    ran = muster.bare("--all-clusters", noun, "list")
    assert ran.code == 0
    title, *rows = [line.split() for line in ran.out.splitlines()]
    assert title[:2] == ["Name", "Cluster"]
    assert [row[1] for row in rows] == ["alpha", "beta"]
    assert len({row[0] for row in rows}) == 1  # by the same name
    where = muster.bare("--all-clusters", noun, "list", "--where", "cluster:beta", "--json").rows
    assert [row["cluster"] for row in where] == ["beta"]
    write_cluster("silent", home, SILENT)
    ran = muster.bare("--all-clusters", noun, "list", "--json")
    assert (ran.code, [row["cluster"] for row in ran.rows]) == (3, ["alpha", "beta"])


@pytest.mark.usefixtures("both")
def test_events_of_all_stand_in_the_order_of_time(muster: Cli, home: Path) -> None:
    for cluster, verb in (("alpha", "pause"), ("beta", "pause"), ("alpha", "turn-off")):
        muster.bare("--cluster", cluster, "vm", verb, "test", "--yes")
    rows = muster.bare("--all-clusters", "events", "--json").rows
    asked = [(row["cluster"], row["text"]) for row in rows if row["text"].startswith("Asked")]
    assert asked == [
        ("alpha", "Asked: pause test"),
        ("beta", "Asked: pause test"),
        ("alpha", "Asked: turn off test"),
    ]
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    ran = muster.bare("--all-clusters", "events", "--where", "cluster:beta asked")
    assert ran.out.splitlines()[0].split()[:2] == ["Time", "Cluster"]
    assert len(ran.out.splitlines()) == 2
    (journal,) = (home / "state").glob("beta-*.journal")
    journal.unlink()
    journal.mkdir()
    ran = muster.bare("--all-clusters", "events", "--json")
    assert ran.code == 1
    assert {row["cluster"] for row in ran.rows} == {"alpha"}
    assert "beta: What happened cannot be read" in ran.err


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
        (("vm", "start", "test"), "--all-clusters is for vm list, node list, storage list, network list"),
        (("storage", "show", "default-pool"), "--all-clusters is for vm list"),
        (("cluster", "show"), "--all-clusters is for vm list"),
        (("what-happened",), "--all-clusters is for vm list"),
        (("events", "--node", "n7"), "There is no node n7 in alpha and beta."),
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

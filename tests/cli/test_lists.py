"""What lists and shows print: whole and plain when nobody looks, JSON by the contract."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import pytest

from manager.cli import session
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS
from tests.cli.support import EVIL, TWINS, Cli, Ran, small

VM_KEYS = {"uuid", "name", "status", "activity", "owner", "priority", "information", "vcpus", "memory_mib"}
NODE_KEYS = {"name", "status", "uri", "vms", "cpus", "memory_mib", "memory_free_mib"}


def golden(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def test_vm_list(muster: Cli) -> None:
    ran = muster("vm", "list", "--columns", "name,status,owner,priority,memory_mib,tags")
    assert ran.out == golden(r"""
        Name                     Status   Owner node  Priority  Memory (GiB)  Tags
        db-1                     Running  n2          Medium               1
        deaf                     Running  n2          High              0.50  prod
        evil\x1b[31m\u202e|\x85  Off      n2          High              0.50  prod
        off-1                    Off      n1          High              0.50  prod
        paused-1                 Paused   n2          High              0.50  prod
        saved-1                  Saved    n2          High              0.50  prod
        twin                     Running  n1          High              0.50  prod
        twin                     Off      n2          High              0.50  prod
        web-1                    Running  n1          Medium               1
        web-2                    Running  n1          Medium               1
        web-10                   Running  n1          Medium               1
        """)
    assert (ran.code, ran.err) == (0, "")


def test_vm_list_unasked_shows_the_usual_columns_and_measures_nothing(muster: Cli) -> None:
    titles = muster("vm", "list").out.splitlines()[0]
    shown = [f for f in FIELDS[Kind.VM].values() if f.shown and not f.sample]
    assert titles.split() == " ".join(f.title + (f" ({f.unit})" if f.unit else "") for f in shown).split()


def test_vm_list_json_has_every_field_as_key(muster: Cli) -> None:
    ran = muster("vm", "list", "--json")
    rows = ran.rows
    assert all(set(row) == set(FIELDS[Kind.VM]) for row in rows)
    assert set(FIELDS[Kind.VM]) >= VM_KEYS
    web = next(row for row in rows if row["name"] == "web-10")
    assert {key: web[key] for key in sorted(VM_KEYS)} == {
        "activity": "",
        "information": None,
        "memory_mib": 1024,
        "name": "web-10",
        "owner": "n1",
        "priority": "Medium",
        "status": "Running",
        "uuid": muster.vm("web-10").id,
        "vcpus": 2,
    }
    assert EVIL in {row["name"] for row in rows}
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out
    assert "\x85" not in ran.out


def test_columns_choose_the_keys_of_json_too(muster: Cli) -> None:
    rows = muster("vm", "list", "--json", "--columns", "owner,name").rows
    assert list(rows[0]) == ["owner", "name"]


@pytest.mark.parametrize(
    "argv", [("--json", "vm", "list"), ("vm", "--json", "list"), ("vm", "list", "--json")]
)
def test_json_may_stand_anywhere(muster: Cli, argv: tuple[str, ...]) -> None:
    assert len(muster(*argv).rows) == 11


def test_node_list(muster: Cli) -> None:
    ran = muster("node", "list")
    assert ran.out == golden("""
        Name  Status  VMs  Running  Moves  CPUs  Memory (GiB)  Free (GiB)  Information
        n1    Up        5        4           32            64        59.4
        n2    Up        6        3           32            64        61.2
        n3    Up        0        0           32            64          64
        """)
    assert (ran.code, ran.err) == (0, "")


def test_node_list_json(muster: Cli) -> None:
    rows = muster("node", "list", "--json").rows
    assert all(set(row) == set(FIELDS[Kind.NODE]) for row in rows)
    assert set(FIELDS[Kind.NODE]) >= NODE_KEYS
    assert rows[2]["name"] == "n3"
    assert rows[2]["uri"] == "sim://n3/"
    assert rows[2]["cpu"] is None


def test_loads_are_measured_when_they_are_asked_for(muster: Cli) -> None:
    for argv in (("node", "list", "--columns", "name,cpu"), ("node", "list", "--sort", "-cpu")):
        rows = muster(*argv, "--json").rows
        assert all(isinstance(row["cpu"], int | float) for row in rows)
    running = muster("vm", "list", "--json", "--columns", "status,cpu").rows
    assert all((row["cpu"] is not None) == (row["status"] == "Running") for row in running)


def test_sorting_downwards_leaves_the_unknown_last(muster: Cli) -> None:
    names = [row["name"] for row in muster("vm", "list", "--sort", "-memory_mib", "--json").rows]
    assert names[:4] == ["db-1", "web-1", "web-2", "web-10"]
    muster.faults.hang_call("n1", "sample", times=2)
    rows = muster("node", "list", "--sort", "-cpu", "--json", "--timeout", "1").rows
    assert rows[-1]["name"] == "n1"
    assert rows[-1]["cpu"] is None


def test_definitions_are_read_only_if_a_column_needs_them(muster: Cli) -> None:
    muster.faults.hang_call("n1", "read_vm")
    ran = muster("vm", "list", "--columns", "name,status", "--json", "--timeout", "5")
    assert len(ran.rows) == 11
    assert ran.err == ""


def test_unknown_column(muster: Cli) -> None:
    ran = muster("vm", "list", "--columns", "name,memry_mib")
    assert ran.code == 2
    assert "There is no field memry_mib. Did you mean memory_mib?" in ran.err
    assert ran.out == ""
    assert muster("node", "list", "--sort", "uptime_s").code == 2
    assert muster("node", "list", "--columns", ",").code == 2


def test_vm_show(muster: Cli) -> None:
    ran = muster("vm", "show", "off-1")
    assert ran.out == golden("""
        Name                   off-1
        Status                 Off
        Owner node             n1
        Priority               High
        Memory                 0.50 GiB
        vCPUs                  2
        Tags                   prod
        UUID                   00000000-0000-4000-8000-0000000000b1
        Type                   Virtual machine
        Guest agent            Not answering
        Movable                yes
        Needs attention        no
        Autostart              no
        Snapshots              0
        Recoverable elsewhere  no: its definition was not kept yet

        Disks
        Target  Device  Source                Kind  Format  Cache  Size
        vda     disk    /srv/vms/off-1.qcow2  file  qcow2   none

        Networks
        MAC                Kind    Source  Model
        52:54:00:00:00:01  bridge  br0
        """)
    assert ran.code == 0


def test_vm_show_json_is_an_array_of_one_object(muster: Cli) -> None:
    (shown,) = muster("vm", "show", TWINS[1].upper(), "--json").rows
    assert shown["name"] == "twin"
    assert shown["owner"] == "n2"
    assert set(shown) >= VM_KEYS
    assert shown["sightings"] == [{"node": "n2", "name": "twin", "status": "Off", "cause": ""}]
    assert shown["definition"]["disks"][0]["source"] == "/srv/vms/twin.qcow2"
    assert shown["cannot_be_moved_because"] == []


def test_cluster_show(muster: Cli) -> None:
    muster.faults.make_incompatible("n3", "the hypervisor is too old")
    ran = muster("cluster", "show")
    assert ran.out.startswith(
        golden("""
        Name    small
        Tier    managed: no automatic failover
        Nodes   3: 2 Up, 1 Incompatible
        VMs     11: 6 Running, 3 Off, 1 Saved, 1 Paused
        Memory  128 GiB on the nodes that are up

        1 problem
        """)
    )
    assert "Node n3  the hypervisor is too old" in ran.out
    assert ran.code == 0
    (shown,) = muster("cluster", "show", "--json").rows
    assert (shown["nodes"], shown["nodes_up"], shown["vms"]) == (3, 2, 11)
    assert shown["vms_by_status"] == {"Running": 6, "Off": 3, "Saved": 1, "Paused": 1}
    assert [problem["subject"] for problem in shown["problems"]] == ["Node n3"]


def test_a_list_only_looks(muster: Cli) -> None:
    for argv in (("vm", "list"), ("node", "list"), ("cluster", "show"), ("vm", "show", "web-1")):
        muster(*argv)
    muster("vm", "pause", "web-1", "--what-if")
    assert all(muster.readings)
    muster("vm", "pause", "web-1")
    assert not muster.readings[-1]


def test_some_nodes_missing(muster: Cli) -> None:
    muster.faults.kill_daemon("n2")
    ran = muster("vm", "list", "--json")
    assert ran.code == 0
    assert {row["owner"] for row in ran.rows} == {"n1"}
    assert "n2" in ran.err
    assert "Connection refused" in ran.err
    nodes = muster("node", "list", "--json")
    assert nodes.code == 0
    assert [row["status"] for row in nodes.rows] == ["Up", "Unknown", "Up"]


def test_no_node_at_all(muster: Cli) -> None:
    for node in ("n1", "n2", "n3"):
        muster.faults.kill_daemon(node)
    ran = muster("vm", "list", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "No node of cluster small can be reached." in ran.err
    nodes = muster("node", "list", "--json")
    assert nodes.code == 3
    assert [row["status"] for row in nodes.rows] == ["Unknown"] * 3
    assert muster("cluster", "show").code == 3
    assert muster("vm", "show", "web-1").code == 3
    assert muster("vm", "start", "web-1").code == 3


def test_a_node_that_hangs_costs_the_timeout_only(capsys: pytest.CaptureFixture[str]) -> None:
    muster = small(capsys, speed=1.0)
    muster.faults.freeze("n2")
    ran = muster("vm", "list", "--json", "--timeout", "0.5")
    assert ran.code == 0
    assert {row["owner"] for row in ran.rows} == {"n1"}
    assert "node n2 did not answer within 0.5 s" in ran.err


@pytest.fixture
def silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A cluster whose n2 accepts and never answers: given up after 12 s of its hosts' time, 3 s of ours."""
    monkeypatch.setattr(session, "GRACE_S", 0.5)
    muster = small(capsys, speed=4.0)
    muster.faults.freeze("n2")
    return muster


def took_s(muster: Cli, *words: str) -> tuple[float, Ran]:
    begun = time.monotonic()
    ran = muster(*words)
    return time.monotonic() - begun, ran


@pytest.mark.parametrize(
    "words",
    [
        ("vm", "list"),
        ("node", "list"),
        ("vm", "show", "web-1"),
        ("vm", "pause", "web-1"),
        ("vm", "migrate", "web-1", "--to", "n3", "--what-if"),
    ],
)
def test_a_silent_node_that_is_not_needed_is_not_waited_for(silent: Cli, words: tuple[str, ...]) -> None:
    span_s, ran = took_s(silent, *words)
    assert ran.code == 0, ran.err
    assert span_s < 2.0
    if words[1] in ("list", "show"):
        assert "node n2 did not answer within" in ran.err
        assert "--timeout SECONDS waits longer" in ran.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("vm", "pause", "db-1"), 3),  # only n2 knows it
        (("vm", "start", "off-1"), 0),  # off on n1: it may run on n2
        (("vm", "migrate", "web-1", "--to", "n2", "--what-if"), 3),
    ],
)
def test_a_silent_node_that_is_needed_has_its_whole_time(
    silent: Cli, words: tuple[str, ...], code: int
) -> None:
    span_s, ran = took_s(silent, *words)
    assert ran.code == code, ran.err
    assert span_s >= 2.9


def test_a_time_that_was_asked_for_is_waited_for_all_nodes(silent: Cli) -> None:
    span_s, ran = took_s(silent, "vm", "list", "--timeout", "1.5")
    assert span_s >= 1.4
    assert "node n2 did not answer within 1.5 s.\n" in ran.err


def test_names_of_a_silent_node_are_still_completed(silent: Cli) -> None:
    silent.faults.repair("n2")
    silent("vm", "list")
    silent.faults.freeze("n2")
    silent("vm", "list")
    (data,) = (p.read_text() for p in Path(os.environ["MUSTER_HOME"]).rglob("completion*"))
    assert "db-1" in data


@pytest.mark.parametrize("seconds", ["abc", "0", "-1", "nan", "inf"])
def test_timeout_is_a_number_of_seconds(muster: Cli, seconds: str) -> None:
    ran = muster("vm", "list", "--timeout", seconds)
    assert ran.code == 2
    assert "needs a number of seconds above 0" in ran.err


def test_a_list_in_groups_has_a_heading_with_totals_over_each(muster: Cli) -> None:
    ran = muster(
        "vm", "list", "--columns", "name,memory_mib", "--group-by", "owner", "--sort", "-memory_mib,-name"
    )
    assert ran.out.lstrip("\n") == golden(r"""
        n1 (5 VMs, 4 GiB, 10 vCPUs)
        Name    Memory (GiB)
        web-10             1
        web-2              1
        web-1              1
        twin            0.50
        off-1           0.50

        n2 (6 VMs, 3.5 GiB, 12 vCPUs)
        Name                     Memory (GiB)
        db-1                                1
        twin                             0.50
        saved-1                          0.50
        paused-1                         0.50
        evil\x1b[31m\u202e|\x85          0.50
        deaf                             0.50
        """)
    assert (ran.code, ran.err) == (0, "")


def test_a_list_in_groups_as_json_and_downwards(muster: Cli) -> None:
    groups = muster(
        "vm", "list", "--json", "--columns", "name", "--group-by", "status", "--sort", "-status"
    ).rows
    assert [(g["field"], g["group"], g["count"]) for g in groups] == [
        ("status", "Saved", 1),
        ("status", "Running", 6),
        ("status", "Paused", 1),
        ("status", "Off", 3),
    ]
    assert groups[0]["rows"] == [{"name": "saved-1"}]
    assert groups[0]["totals"] == {"memory_mib": 512, "vcpus": 2}
    refused = muster("vm", "list", "--group-by", "stats")
    assert refused.code == 2
    assert "status" in refused.err

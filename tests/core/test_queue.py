"""Who may start now: limits, High first, a reason with its counts for every wait; nobody blocks the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.ids import NodeId
from manager.core.migration.queue import order
from manager.core.model import Disk, Hold, MigrationLimits, Pacemaker, Priority, StatusCause, WorkLimits
from manager.core.operations import OperationState
from manager.core.units import LONG_LINE
from tests.core.support import (
    OFF,
    PAUSED,
    REFUSED,
    SAVED,
    UNREACHABLE,
    Cluster,
    Guest,
    R,
    cluster_config,
    definition,
    host_facts,
    uuid,
)

S = OperationState
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")


def make(nodes: int = 3, outgoing: int = 2, incoming: int = 2, whole: int = 0, **work: int) -> Cluster:
    limits = MigrationLimits(outgoing_per_node=outgoing, incoming_per_node=incoming, cluster_limit=whole)
    return Cluster(cluster_config(nodes, migration=limits, work=WorkLimits(**work)))


def states(cluster: Cluster) -> dict[str, str]:
    """VM -> what it waits for, or its state."""
    return {
        o.vm_name: o.reason.text if o.state is S.WAITING and o.reason else o.state.value
        for o in cluster.state.operations.values()
        if o.vm
    }


def finish(cluster: Cluster, name: str) -> None:
    """Let a VM's move happen."""
    for check in cluster.wanted(fx.CheckPeerLogin, name):
        cluster.answer(check)
    cluster.answer(cluster.take(fx.StartMigration, name))
    cluster.reads()


def test_limits_of_the_source() -> None:
    cluster = make(incoming=0)
    for name in "abcd":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", *"abcd", target=N2)
    assert states(cluster) == {
        "a": "Checking",
        "b": "Checking",
        "c": "n1 gives 2 of 2 outgoing moves; next in line",
        "d": "n1 gives 2 of 2 outgoing moves; 2nd in line",
    }
    finish(cluster, "a")
    assert states(cluster) == {
        "a": "Done",
        "b": "Checking",
        "c": "Checking",
        "d": "n1 gives 2 of 2 outgoing moves; next in line",
    }


def test_limits_of_the_target_and_a_full_node_blocks_nobody_else() -> None:
    cluster = make(4, incoming=1)
    cluster.add("n1", "a")
    cluster.add("n2", "b")
    cluster.add("n2", "c")
    cluster.ask("vm.live_migrate", "a", target=N3)
    cluster.ask("vm.live_migrate", "b", target=N3)
    cluster.ask("vm.live_migrate", "c", target=NodeId("n4"))
    assert states(cluster) == {
        "a": "Checking",
        "b": "n3 takes 1 of 1 incoming moves; next in line",
        "c": "Checking",
    }


def test_limit_of_the_cluster() -> None:
    cluster = make(4, whole=1)
    cluster.add("n1", "a")
    cluster.add("n2", "b")
    cluster.ask("vm.live_migrate", "a", target=N3)
    cluster.ask("vm.live_migrate", "b", target=NodeId("n4"))
    assert states(cluster)["b"] == "the cluster makes 1 of 1 moves; next in line"
    finish(cluster, "a")
    assert states(cluster)["b"] == "Checking"


def test_no_limit_is_no_limit() -> None:
    cluster = make(outgoing=0, incoming=0)
    names = [f"v{i}" for i in range(20)]
    for name in names:
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", *names, target=N2)
    assert set(states(cluster).values()) == {"Checking"}


def test_starts_per_node_and_per_cluster_and_saves() -> None:
    cluster = make(starts_per_node=2, starts_per_cluster=3, saves_per_node=1)
    for name in "abc":
        cluster.add("n1", name, OFF)
    for name in "de":
        cluster.add("n2", name, OFF)
    cluster.ask("vm.start", *"abcde")
    assert states(cluster) == {
        "a": "Running",
        "b": "Running",
        "c": "n1 makes 2 of 2 starts; next in line",
        "d": "Running",
        "e": "the cluster makes 3 of 3 starts; next in line",
    }
    cluster.settle()
    assert set(states(cluster).values()) == {"Done"}
    cluster.ask("vm.save", "a", "b", "d")
    assert states(cluster)["a"] == "Running"
    assert states(cluster)["b"] == "n1 makes 1 of 1 saves, restores and storage moves; next in line"
    assert states(cluster)["d"] == "Running"
    cluster.ask("vm.turn_off", "c", "e")  # has no limit
    assert states(cluster)["c"] == "Running"


def test_a_restore_takes_a_place_of_the_disks_and_none_of_the_starts() -> None:
    cluster = make(starts_per_node=1, saves_per_node=1)
    for name in "ab":
        cluster.add("n1", name, SAVED)
    for name in "cd":
        cluster.add("n1", name, OFF)
    cluster.ask("vm.start", *"abcd")
    assert states(cluster) == {
        "a": "Running",
        "b": "n1 makes 1 of 1 saves, restores and storage moves; next in line",
        "c": "Running",
        "d": "n1 makes 1 of 1 starts; next in line",
    }


def test_a_move_of_storage_takes_a_place_of_the_disks() -> None:
    cluster = make(saves_per_node=1)
    cluster.add("n1", "a")
    cluster.add("n1", "b", config=definition(disks=(Disk(target="vda", source="/srv/b.img"),)))
    cluster.ask("vm.save", "a")
    cluster.ask("vm.move_storage", "b", pool="fast")
    assert states(cluster)["b"] == "n1 makes 1 of 1 saves, restores and storage moves; next in line"


@pytest.mark.parametrize(
    ("limits", "cap"),
    [
        ({}, 100),
        ({"networks": ("10.20.0.0/24",)}, 0),
        ({"bandwidth_mib_s": 300}, 300),
        ({"node_bandwidth_mib_s": 500}, 250),  # of two moves
        ({"bandwidth_mib_s": 300, "node_bandwidth_mib_s": 500}, 300),
        ({"bandwidth_mib_s": 1000, "node_bandwidth_mib_s": 500}, 500),
    ],
)
def test_what_a_move_may_send(limits: dict[str, Any], cap: int) -> None:
    cluster = Cluster(cluster_config(2, migration=MigrationLimits(**limits)))
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    assert cluster.take(fx.StartMigration).bandwidth_mib_s == cap


@pytest.mark.parametrize(("limits", "cap"), [({}, 0), ({"bandwidth_mib_s": 300}, 300)])
def test_what_a_copy_of_disks_may_write(limits: dict[str, Any], cap: int) -> None:
    cluster = Cluster(cluster_config(2, migration=MigrationLimits(node_bandwidth_mib_s=100, **limits)))
    cluster.add("n1", "a", config=definition(disks=(Disk(target="vda", source="/srv/a.img"),)))
    cluster.ask("vm.move_storage", "a", pool="fast")
    assert cluster.take(fx.CopyDisks).bandwidth_mib_s == cap
    assert cluster.operation("a").cap_mib_s == cap


def test_a_move_without_a_cap_may_take_all_of_its_nodes_share() -> None:
    cluster = Cluster(
        cluster_config(migration=MigrationLimits(node_bandwidth_mib_s=400, outgoing_per_node=4))
    )
    for name in "ab":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.begin_move(cluster.take(fx.StartMigration))
    assert cluster.operation("a").cap_mib_s == 100
    cluster.steer(ev.QueueVerb.TUNE, operations=(cluster.operation("a").id,), bandwidth_mib_s=0)
    cluster.ask("vm.live_migrate", "b", target=NodeId("n3"))
    assert states(cluster)["b"] == "n1 has 400 of 400 MiB/s given to moves; next in line"


def test_high_goes_first_then_age_then_place() -> None:
    cluster = make(outgoing=1)
    priorities = {
        "first": Priority.NO_AUTO_START,
        "low": Priority.LOW,
        "high": Priority.HIGH,
        "medium": Priority.MEDIUM,
        "later": Priority.HIGH,
    }
    for name, priority in priorities.items():
        cluster.add("n1", name, config=definition(priority=priority))
    for name in priorities:
        cluster.ask("vm.live_migrate", name, target=N2)
    went = []
    while begun := cluster.wanted(fx.CheckPeerLogin):
        (check,) = begun
        went.append(cluster.operation_of(check).vm_name)
        finish(cluster, went[-1])
    assert went == ["first", "high", "later", "medium", "low"]


def test_a_batch_keeps_its_order() -> None:
    cluster = make(outgoing=1)
    for name in "cab":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "c", "a", "b", target=N2)
    live = sorted(cluster.live(), key=order)
    assert [o.vm_name for o in live] == ["c", "a", "b"]
    assert states(cluster)["c"] == "Checking"


def test_a_move_that_failed_or_was_cancelled_frees_its_place() -> None:
    cluster = make(outgoing=1)
    for name in "abc":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", *"abc", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin), REFUSED)
    assert states(cluster)["b"] == "Checking"
    cluster.ask("vm.cancel", "b")
    assert states(cluster)["c"] == "Checking"


def test_places_far_back_are_not_counted_so_that_each_end_changes_few_rows() -> None:
    cluster = make(outgoing=1, incoming=0)
    cluster.facts[N2] = host_facts("n2", memory_mib=1 << 20)
    cluster.connect("n2")
    names = [f"v{i:03}" for i in range(LONG_LINE + 20)]
    for name in names:
        cluster.add("n1", name, known=False)
    cluster.read("n1")
    cluster.sweep("n1")
    cluster.ask("vm.live_migrate", *names, target=N2)
    text = f"n1 gives 1 of 1 outgoing moves; over {LONG_LINE} before it in line"
    assert states(cluster)[names[-1]] == text
    before = cluster.operation(names[-1])
    cluster.ask("vm.cancel", names[0])
    assert states(cluster)[names[1]] == "Checking"
    assert states(cluster)[names[2]].endswith("next in line")
    assert cluster.operation(names[-1]) is before
    cluster.ask("vm.cancel", *names[:50])
    assert states(cluster)[names[-1]].endswith("69th in line")


# --- placement while it waits ----------------------------------------------------------------


def test_a_planned_target_is_kept_while_it_fits_and_replaced_when_it_fell_out() -> None:
    cluster = make(outgoing=1)
    for name in "ab":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", "b")
    planned = cluster.operation("b").target
    assert planned is not None
    cluster.lose(planned)
    cluster.ask("vm.cancel", "a")
    other = cluster.operation("b").target
    assert cluster.operation("b").state is S.CHECKING
    assert other not in (planned, "n1")
    assert any(line.startswith(f"chose {other}: most free memory") for line in cluster.story("b"))


def test_a_given_target_is_never_replaced() -> None:
    cluster = make(outgoing=1)
    for name in "ab":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", "b", target=N2)
    hold = Hold(who="adm", why="repair", since_s=cluster.now)
    cluster.feed(ev.NodeHeld(at_s=cluster.now, node=N2, hold=hold))
    cluster.ask("vm.cancel", "a")
    operation = cluster.operation("b")
    assert (operation.state, operation.target) == (S.FAILED, "n2")
    assert cluster.information("b") == "node n2 is held by adm: repair"


def test_reservations_of_moves_under_way_count() -> None:
    cluster = make(2, outgoing=4)
    cluster.facts[N2] = host_facts("n2", memory_mib=16384)
    cluster.connect("n2")
    for name in "abc":
        cluster.add("n1", name, config=definition(5000))
    cluster.ask("vm.live_migrate", "a")
    cluster.ask("vm.live_migrate", "b")
    assert cluster.state.committed_mib(N2) == 2 * (5000 + 256 + 100)
    plan = cluster.plan("vm.live_migrate", "c")
    assert "n2: not enough memory" in plan.skipped[0].reason.text
    cluster.ask("vm.cancel", "a")
    assert cluster.state.committed_mib(N2) == 5000 + 256 + 100
    assert cluster.plan("vm.live_migrate", "c").steps


def test_what_has_no_room_waits_while_a_move_may_make_some_and_fails_when_none_can() -> None:
    cluster = make(2, outgoing=4)
    cluster.facts[N2] = host_facts("n2", memory_mib=16384)
    cluster.connect("n2")
    for name, memory in (("a", 6000), ("b", 6000), ("c", 7000), ("d", 500)):
        cluster.add("n1", name, config=definition(memory))
    plans = [cluster.plan("vm.live_migrate", name) for name in "abcd"]  # all seen while there was room
    for number, plan in enumerate(plans):
        request = plan.spec.request(
            plan,
            author="adm",
            at_s=cluster.later(),
            trace="t",
            operation=str(number),
            view=cluster.state,
        )
        cluster.feed(request)
    found = states(cluster)
    assert found["a"] == "Checking"
    assert found["b"].startswith("no node can take it: n2: not enough memory (needs 6.2 GiB")
    assert found["c"].startswith("no node can take it: n2: not enough memory (needs 7.2 GiB")
    assert found["d"] == "Checking"  # a small one fits beside
    cluster.ask("vm.cancel", "a")
    assert states(cluster)["c"] == "Checking"  # the larger one is tried first
    cluster.ask("vm.cancel", "c")
    cluster.ask("vm.cancel", "d")
    assert states(cluster)["b"] == "Checking"


def test_a_vm_that_moved_while_it_waited_goes_from_where_it_is_now() -> None:
    cluster = make(3, outgoing=1)
    for name in "ab":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", "b", target=N3)
    guest = cluster.hosts[N1].pop(uuid("b"))
    guest.cause = StatusCause.MIGRATED
    cluster.hosts[N2][uuid("b")] = guest
    cluster.tell("n2", "b")
    assert states(cluster)["b"] == "waits until n1 was read again"  # two copies, or old news
    cluster.read("n1")
    assert cluster.take(fx.CheckPeerLogin, "b").node == "n2"


@pytest.mark.parametrize("what", ["off", "gone", "there"])
def test_a_wait_that_has_become_pointless_ends_at_once(what: str) -> None:
    cluster = make(3, outgoing=1)
    for name in "ab":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.ask("vm.live_migrate", "b", target=N3)
    if what == "off":
        cluster.become("n1", "b", OFF, StatusCause.SHUT_DOWN)
        assert states(cluster)["b"] == "Failed"
        assert cluster.information("b") == "not running (Off)"
    elif what == "gone":
        cluster.hosts[N1].pop(uuid("b"))
        cluster.read("n1")
        assert states(cluster)["b"] == "Failed"
    else:
        cluster.hosts[N3][uuid("b")] = cluster.hosts[N1].pop(uuid("b"))
        cluster.tell("n3", "b")
        cluster.reads()
        assert states(cluster)["b"] == "Done"


def test_a_lost_source_is_waited_for() -> None:
    cluster = make(3, outgoing=1)
    for name in "ab":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", "b", target=N2)
    cluster.lose("n1")
    assert states(cluster)["b"] == "waits until n1 was read again"
    cluster.connect("n1")
    assert states(cluster)["b"] == "n1 gives 1 of 1 outgoing moves; next in line"


def test_room_that_others_make_is_seen_when_the_node_is_read() -> None:
    cluster = make(2, outgoing=4)
    cluster.facts[N2] = host_facts("n2", memory_mib=16384)
    cluster.connect("n2")
    for name in "ab":
        cluster.add("n1", name, config=definition(3000))
    plans = [cluster.plan("vm.live_migrate", name) for name in "ab"]
    cluster.add("n2", "x", config=definition(8000))
    for number, plan in enumerate(plans):
        cluster.feed(
            plan.spec.request(
                plan,
                author="adm",
                at_s=cluster.later(),
                trace="t",
                operation=str(number),
                view=cluster.state,
            )
        )
    assert states(cluster)["b"].startswith("no node can take it")
    cluster.hosts[N2][uuid("x")].status = OFF  # and its event was lost
    cluster.read("n2")
    assert states(cluster)["b"] == "Checking"


@pytest.mark.parametrize("arrives", [True, False])
def test_the_end_of_a_move_of_others_that_nobody_told_lets_ours_go(arrives: bool) -> None:
    cluster = make(3, incoming=1)
    cluster.add("n3", "x")
    cluster.hosts[N2][uuid("x")] = Guest("x", PAUSED, StatusCause.MIGRATION)
    cluster.tell("n2", "x")
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    assert states(cluster)["a"] == "n2 takes 1 of 1 incoming moves; next in line"
    if arrives:
        cluster.become("n2", "x", R, StatusCause.MIGRATED)
    else:
        del cluster.hosts[N2][uuid("x")]
        cluster.read("n2")
    assert states(cluster)["a"] == "Checking"


def test_what_became_pacemakers_while_it_waited_is_not_touched() -> None:
    cluster = make(outgoing=1)
    for name in "ab":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", *"ab", target=N2)
    cluster.feed(
        ev.VmAuthoritySeen(at_s=cluster.later(), node=N1, pacemaker=Pacemaker.RUNS, names=frozenset({"b"}))
    )
    finish(cluster, "a")
    assert states(cluster) == {"a": "Done", "b": "Failed"}
    assert str(cluster.operation("b").reason) == "managed by Pacemaker: read-only here"


@pytest.mark.parametrize("lost_first", [True, False])
def test_what_a_lost_target_had_taken_in_holds_no_place_of_its_source(*, lost_first: bool) -> None:
    cluster = make(3, outgoing=1)
    cluster.add("n1", "a")
    cluster.add("n1", "b")
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.ask("vm.live_migrate", "b", target=N3)
    cluster.answer(cluster.take(fx.CheckPeerLogin, "a"))
    move = cluster.take(fx.StartMigration, "a")
    assert cluster.begin_move(move)
    cut = replace(UNREACHABLE, node=N2)
    if lost_first:
        cluster.lose("n2")
        cluster.end(move, cut)
    else:
        cluster.end(move, cut)
        cluster.reads()
        cluster.lose("n2")
    cluster.reads()
    assert states(cluster)["a"].startswith("retry 1 of 3")
    assert states(cluster)["b"] == "Checking"

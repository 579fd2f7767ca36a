"""Sightings in, one row per VM out: owner, status, notes, alarm, nodes and their problems."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core import units
from manager.core.errors import Failure, FailureCode
from manager.core.ids import Kind, NodeId
from manager.core.model import (
    Activity,
    Authority,
    Hold,
    NodeLoad,
    NodeStatus,
    Pacemaker,
    StatusCause,
    VmLoad,
)
from manager.core.query.vm_fields import status_text
from manager.core.reasons import ReasonCode
from tests.core.support import (
    CRASHED,
    OFF,
    PAUSED,
    SAVED,
    UNKNOWN,
    Cluster,
    Guest,
    R,
    definition,
    host_facts,
    uuid,
)

C = StatusCause
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def problem(cluster: Cluster, key: str) -> str | None:
    found = cluster.state.problems.get(key)
    return found.reason.text if found else None


# --- one row per UUID -----------------------------------------------------------------------


def test_one_row_however_many_nodes_have_it(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF, C.MIGRATED)
    cluster.add("n2", "a", R)
    cluster.add("n3", "a", OFF, C.MIGRATED)
    assert list(cluster.state.vms) == [uuid("a")]
    assert cluster.vm("a").owner == "n2"
    assert cluster.vm("a").other_nodes == ("n1", "n3")
    assert cluster.information("a") == "also defined on n1, n3, older"


def test_a_definition_that_is_not_left_over_from_a_move_is_not_called_older(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF, C.SHUT_DOWN)
    cluster.add("n2", "a", R)
    assert cluster.information("a") == "also defined on n1"


@pytest.mark.parametrize(
    ("here", "there", "owner"),
    [
        ((OFF, C.NONE), (R, C.NONE), "n2"),
        ((R, C.NONE), (OFF, C.NONE), "n1"),
        ((OFF, C.NONE), (SAVED, C.SAVED), "n2"),
        ((SAVED, C.SAVED), (PAUSED, C.USER), "n2"),
        ((R, C.NONE), (PAUSED, C.MIGRATION), "n1"),  # the target's half
        ((OFF, C.SHUT_DOWN), (PAUSED, C.MIGRATION), "n2"),  # from a host that is not ours
        ((OFF, C.MIGRATED), (OFF, C.SHUT_DOWN), "n2"),
        ((OFF, C.SHUT_DOWN), (OFF, C.MIGRATED), "n1"),
        ((R, C.NONE), (R, C.MIGRATED), "n1"),  # until the source says otherwise
        ((PAUSED, C.POSTCOPY), (R, C.POSTCOPY), "n2"),
    ],
)
def test_the_owner_is_where_the_most_life_is(cluster: Cluster, here: tuple, there: tuple, owner: str) -> None:
    cluster.add("n1", "a", *here)
    cluster.add("n2", "a", *there)
    assert cluster.vm("a").owner == owner
    assert cluster.vm("a").other_nodes == (("n2",) if owner == "n1" else ("n1",))


def test_both_halves_paused_in_the_last_moment_of_a_move_stay_with_the_source(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n2", "a", PAUSED, C.MIGRATION)
    cluster.become("n1", "a", PAUSED, C.MIGRATION)
    assert cluster.vm("a").owner == "n1"
    cluster.become("n2", "a", R, C.MIGRATED)
    assert cluster.vm("a").owner == "n2"


def test_a_healthy_move_told_target_first_is_no_alarm_and_never_two_rows(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    seen: list[tuple[object, ...]] = []

    def look() -> None:
        row = cluster.vm("a")
        seen.append((row.status, row.owner, row.alarm))

    cluster.hosts[N2][uuid("a")] = Guest("a", PAUSED, C.MIGRATION)
    cluster.tell("n2", "a")
    look()
    cluster.become("n2", "a", R, C.MIGRATED)
    look()
    cluster.become("n1", "a", OFF, C.MIGRATED)
    look()
    cluster.drop("n1", "a")
    look()
    cluster.reads()
    look()
    assert seen == [(R, "n1", False)] * 2 + [(R, "n2", False)] * 3
    assert cluster.vm("a").other_nodes == ()


def test_what_is_known_of_a_vm_moves_with_it(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF, config=definition(4096))
    cluster.become("n1", "a", R, C.BOOTED)
    started_s = cluster.vm("a").started_at_s
    assert started_s is not None
    cluster.hosts[N2][uuid("a")] = Guest("a", PAUSED, C.MIGRATION)
    cluster.tell("n2", "a")
    cluster.become("n2", "a", R, C.MIGRATED)
    cluster.drop("n1", "a")
    cluster.read("n1")
    row = cluster.vm("a")
    assert (row.owner, row.started_at_s) == ("n2", started_s)
    assert row.config is not None
    assert row.config.memory_mib == 4096
    assert cluster.state.unread(N2) == (uuid("a"),)  # and is read all the same


# --- the alarm ------------------------------------------------------------------------------


def two_copies(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.hosts[N2][uuid("a")] = Guest("a", R, C.BOOTED)
    cluster.tell("n2", "a")


def test_two_running_copies_are_an_alarm_once_both_nodes_were_read_again(cluster: Cluster) -> None:
    two_copies(cluster)
    assert not cluster.vm("a").alarm
    assert {e.node for e in cluster.wanted(fx.ReadNode)} == {"n1", "n2"}
    cluster.read("n2")
    assert not cluster.vm("a").alarm
    cluster.read("n1")
    assert cluster.vm("a").alarm
    assert cluster.information("a") == "RUNS ON TWO NODES: n1, n2"
    assert problem(cluster, f"vm:{uuid('a')}") == "RUNS ON TWO NODES: n1, n2"


def test_a_read_begun_before_the_last_event_of_either_node_is_none(cluster: Cluster) -> None:
    two_copies(cluster)
    cluster.read("n1")
    began_s = cluster.now
    cluster.add("n2", "b", OFF, known=False)
    cluster.become("n2", "b", OFF, C.SHUT_DOWN)  # any event of that node
    cluster.read("n2", started_s=began_s)
    assert not cluster.vm("a").alarm
    cluster.reads()
    assert cluster.vm("a").alarm


def test_an_alarm_lasts_while_other_events_come_in_and_ends_with_the_copy(cluster: Cluster) -> None:
    two_copies(cluster)
    cluster.reads()
    since_s = cluster.state.problems[f"vm:{uuid('a')}"].since_s
    cluster.add("n1", "b", OFF)
    cluster.become("n1", "b", R, C.BOOTED)
    cluster.become("n1", "a", R, C.USER)
    assert cluster.vm("a").alarm
    assert cluster.state.problems[f"vm:{uuid('a')}"].since_s == since_s
    cluster.become("n2", "a", OFF, C.TURNED_OFF)
    assert not cluster.vm("a").alarm
    assert problem(cluster, f"vm:{uuid('a')}") is None


def test_no_alarm_while_a_move_is_claimed_ours_or_not(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("a"), active=True))
    cluster.hosts[N2][uuid("a")] = Guest("a", R, C.MIGRATED)
    cluster.tell("n2", "a")
    cluster.reads()
    assert not cluster.vm("a").alarm
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("a"), active=False))
    cluster.reads()
    assert cluster.vm("a").alarm


def test_a_backup_of_someone_else_hides_no_alarm(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.feed(
        ev.ForeignJobSeen(
            at_s=cluster.later(), node=N1, vm=uuid("a"), active=True, migration=False, what="backup"
        )
    )
    assert cluster.vm("a").activity is Activity.FOREIGN_JOB
    cluster.hosts[N2][uuid("a")] = Guest("a", R, C.BOOTED)
    cluster.tell("n2", "a")
    cluster.reads()
    assert cluster.vm("a").alarm


def test_a_move_that_only_waits_hides_no_alarm_and_is_not_started(cluster: Cluster) -> None:
    for name in "abc":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", "b", "c", target=N2)
    waiting = next(o for o in cluster.live() if o.state.value == "Waiting")
    cluster.hosts[N3][waiting.vm] = Guest(waiting.vm_name, R, C.BOOTED)  # type: ignore[index]
    cluster.tell("n3", waiting.vm_name)
    cluster.reads()
    assert cluster.vm(waiting.vm_name).alarm
    cluster.settle()
    assert cluster.operation(waiting.vm_name).state.value == "Failed"
    assert "runs on two nodes" in cluster.information(waiting.vm_name).lower()


def test_a_copy_on_a_lost_node_is_no_alarm(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.lose("n1")
    cluster.hosts[N2][uuid("a")] = Guest("a", R, C.BOOTED)
    cluster.tell("n2", "a")
    cluster.reads()
    assert (cluster.vm("a").owner, cluster.vm("a").alarm) == ("n2", False)
    cluster.connect("n1")
    cluster.reads()
    assert cluster.vm("a").alarm


# --- lost nodes -----------------------------------------------------------------------------


def test_rows_of_a_lost_node_are_unknown_and_come_back(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n1", "b", OFF, C.SHUT_DOWN)
    cluster.lose("n1")
    row = cluster.vm("a")
    assert (row.status, row.was, row.owner) == (UNKNOWN, R, "n1")
    assert status_text(row) == "Unknown (was Running)"
    assert status_text(cluster.vm("b")) == "Unknown (was Off)"
    assert cluster.information("a").startswith("n1 not heard since ")
    assert cluster.node("n1").vms_running == 0
    cluster.connect("n1")
    assert (cluster.vm("a").status, cluster.vm("a").was) == (R, None)
    assert cluster.vm("b").status is OFF
    assert cluster.information("a") == ""


def test_what_stopped_while_its_node_was_lost_is_seen_when_it_is_back(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n1", "b")
    cluster.lose("n1")
    cluster.become("n1", "a", OFF, C.SHUT_DOWN)
    cluster.drop("n1", "b")
    cluster.connect("n1")
    assert cluster.vm("a").status is OFF
    assert uuid("b") not in cluster.state.vms


def test_a_node_long_quiet_but_alive_was_not_silent_all_that_time(cluster: Cluster) -> None:
    cluster.wait(5 * 3600)
    cluster.lose("n1")
    last_seen_s = cluster.node("n1").last_seen_s
    assert last_seen_s is not None
    assert cluster.now - last_seen_s < 16
    assert problem(cluster, "node:n1") is None
    cluster.wait(61)
    assert "n1 not heard since" in (problem(cluster, "node:n1") or "")


def test_one_problem_for_all_vms_of_a_silent_node(cluster: Cluster) -> None:
    for name in "abc":
        cluster.add("n1", name)
    cluster.lose("n1")
    cluster.wait(61)
    found = cluster.state.problems["node:n1"]
    assert sorted(found.vms) == sorted(uuid(n) for n in "abc")
    cluster.feed(
        ev.NodeConnectFailed(
            at_s=cluster.later(),
            node=N1,
            failure=Failure(code=FailureCode.UNREACHABLE, text="no route"),
            retry_at_s=cluster.now + 30,
        )
    )
    assert cluster.state.problems["node:n1"].vms == found.vms  # further tries change nothing
    cluster.connect("n1")
    assert not cluster.state.problems
    assert "silent:n1" not in cluster.timers


def test_a_node_never_reached_is_a_problem_after_a_minute_though_it_is_tried_all_the_time() -> None:
    cluster = Cluster(up=False)
    for _ in range(12):
        cluster.feed(ev.NodeConnecting(at_s=cluster.now, node=N1))
        cluster.feed(
            ev.NodeConnectFailed(
                at_s=cluster.now,
                node=N1,
                failure=Failure(code=FailureCode.TIMEOUT, text="no answer"),
                hint="Look at it there.",
                retry_at_s=cluster.now + 10,
            )
        )
        assert cluster.node("n1").status is NodeStatus.UNKNOWN  # and never flickers
        cluster.wait(10)
    assert problem(cluster, "node:n1") == "n1 was never reached: no answer"
    assert cluster.state.problems["node:n1"].reason.remedy == "Look at it there."


@pytest.mark.parametrize(
    ("code", "status"),
    [(FailureCode.LOGIN, NodeStatus.LOGIN_FAILED), (FailureCode.INCOMPATIBLE, NodeStatus.INCOMPATIBLE)],
)
def test_a_refused_node_is_a_problem_at_once_and_solved_by_a_new_try(
    cluster: Cluster, code: FailureCode, status: NodeStatus
) -> None:
    cluster.add("n1", "a")
    cluster.lose("n1")
    cluster.feed(
        ev.NodeConnectFailed(
            at_s=cluster.later(), node=N1, failure=Failure(code=code, text="no"), hint="Try this."
        )
    )
    assert cluster.node("n1").status is status
    assert "no" in (problem(cluster, "node:n1") or "")
    assert cluster.state.problems["node:n1"].vms == (uuid("a"),)
    cluster.connect("n1")
    assert cluster.node("n1").status is NodeStatus.UP
    assert cluster.vm("a").status is R
    assert not cluster.state.problems


def test_the_same_host_twice_is_said_and_its_vms_counted_once(cluster: Cluster) -> None:
    cluster = Cluster(up=False)
    cluster.facts[N2] = replace(cluster.facts[N2], host_uuid=cluster.facts[N1].host_uuid)
    cluster.hosts[N1][uuid("a")] = cluster.hosts[N2][uuid("a")] = Guest("a", R)
    cluster.connect("n1")
    cluster.connect("n2")
    assert cluster.node("n2").status is NodeStatus.INCOMPATIBLE
    assert problem(cluster, "node:n2") == "this is the same host as node n1"
    assert (cluster.vm("a").owner, cluster.vm("a").other_nodes) == ("n1", ())
    cluster.tell("n2", "a")
    cluster.lose("n2")
    assert cluster.node("n2").status is NodeStatus.INCOMPATIBLE
    cluster.facts[N2] = host_facts("n2")  # the file was corrected
    cluster.hosts[N2].clear()
    cluster.connect("n2")
    assert cluster.node("n2").status is NodeStatus.UP
    assert not cluster.state.problems


# --- late and lost news ---------------------------------------------------------------------


def test_an_event_is_newer_than_a_read_that_was_under_way(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    began_s = cluster.later()
    cluster.become("n1", "a", OFF, C.SHUT_DOWN)
    late = ev.NodeInventoryRead(
        at_s=cluster.later(), node=N1, started_s=began_s, vms=(Guest("a", R).seen(uuid("a")),)
    )
    outcome = cluster.feed(late)
    assert cluster.vm("a").status is OFF
    assert fx.ReadNode(trace=late.trace, node=N1, soon=False) in outcome.effects  # to be sure
    cluster.read("n1")
    assert cluster.vm("a").status is OFF


def test_a_vm_that_appeared_during_a_read_is_not_taken_away_by_it(cluster: Cluster) -> None:
    began_s = cluster.later()
    cluster.add("n1", "a", known=False)
    cluster.tell("n1", "a")
    cluster.feed(ev.NodeInventoryRead(at_s=cluster.later(), node=N1, started_s=began_s, vms=()))
    assert cluster.vm("a").status is R
    cluster.drop("n1", "a")
    cluster.reads()
    assert uuid("a") not in cluster.state.vms


def test_a_lost_event_is_made_good_by_the_next_read(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.hosts[N1][uuid("a")].status = OFF
    cluster.read("n1")
    assert cluster.vm("a").status is OFF


def test_a_renamed_vm_keeps_its_row_and_is_read_again(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.hosts[N1][uuid("a")].name = "z"
    cluster.read("n1")
    assert list(cluster.state.vms) == [uuid("a")]
    assert cluster.vm("a").name == "z"
    assert cluster.take(fx.ReadVm).vm == uuid("a")
    assert "renamed from a to z" in cluster.story("a")


def test_an_undefined_vm_goes_at_once_if_it_is_off_and_stays_while_it_runs(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    cluster.add("n1", "b", R)
    cluster.drop("n1", "a")
    assert uuid("a") not in cluster.state.vms
    cluster.feed(ev.VmUndefined(at_s=cluster.later(), node=N1, vm=uuid("b")))
    cluster.reads()  # transient now
    assert cluster.vm("b").status is R
    cluster.become("n1", "b", OFF, C.SHUT_DOWN)
    cluster.drop("n1", "b")
    cluster.reads()
    assert uuid("b") not in cluster.state.vms
    assert cluster.node("n1").vms_total == 0


def test_a_definition_that_changed_is_read_and_that_of_an_unknown_vm_by_reading_the_node(
    cluster: Cluster,
) -> None:
    cluster.add("n1", "a")
    cluster.feed(ev.VmDefinitionChanged(at_s=cluster.later(), node=N1, vm=uuid("a")))
    assert cluster.take(fx.ReadVm).vm == uuid("a")
    cluster.feed(ev.VmDefinitionChanged(at_s=cluster.later(), node=N2, vm=uuid("new")))
    assert cluster.take(fx.ReadNode).node == "n2"


def test_definitions_are_read_anew_on_a_new_connection_and_shown_meanwhile(cluster: Cluster) -> None:
    cluster.add("n1", "b", config=definition(2048))
    cluster.add("n1", "a", config=definition(4096))
    assert cluster.state.unread(N1) == ()
    cluster.lose("n1")
    cluster.feed(ev.NodeConnected(at_s=cluster.later(), node=N1, facts=cluster.facts[N1]))
    assert cluster.state.unread(N1) == (uuid("a"), uuid("b"))  # by name
    config = cluster.vm("a").config
    assert config is not None
    assert config.memory_mib == 4096


def test_a_node_counts_what_runs_there_and_was_never_read() -> None:
    cluster = Cluster(up=False)
    cluster.add("n1", "a", known=False)
    cluster.add("n1", "b", OFF, known=False)
    cluster.feed(ev.NodeConnected(at_s=cluster.later(), node=N1, facts=cluster.facts[N1]))
    cluster.connected.add(N1)
    cluster.read("n1")
    assert cluster.node("n1").vms_unread == 1
    cluster.sweep("n1")
    assert cluster.node("n1").vms_unread == 0


# --- status, notes and times ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "cause", "text", "information"),
    [
        (PAUSED, C.IO_ERROR, "Paused: disk error", "paused: disk error"),
        (PAUSED, C.USER, "Paused", "paused: by an administrator"),
        (OFF, C.SHUT_DOWN, "Off", "shut down"),
        (OFF, C.TURNED_OFF, "Off", "turned off"),
        (CRASHED, C.PANICKED, "Crashed", "crashed"),
        (SAVED, C.SAVED, "Saved", ""),
        (R, C.USER, "Running", ""),
    ],
)
def test_a_state_says_its_cause(
    cluster: Cluster, status: object, cause: StatusCause, text: str, information: str
) -> None:
    cluster.add("n1", "a", OFF if status is R else R)
    cluster.become("n1", "a", status, cause)  # type: ignore[arg-type]
    assert status_text(cluster.vm("a")) == text
    assert cluster.information("a").startswith(information)
    assert bool(cluster.information("a")) is bool(information)


def test_times_of_before_we_looked_are_not_made_up(cluster: Cluster) -> None:
    cluster.add("n1", "a", R, C.BOOTED)
    cluster.add("n1", "b", CRASHED, C.CRASHED)
    assert cluster.vm("a").started_at_s is None
    assert cluster.vm("a").changed_at_s is None
    assert problem(cluster, f"vm:{uuid('b')}") == "crashed before Muster looked"
    cluster.become("n1", "a", OFF, C.SHUT_DOWN)
    cluster.become("n1", "a", R, C.BOOTED)
    assert cluster.vm("a").started_at_s == cluster.now


def test_a_guest_that_restarts_counts_its_uptime_anew(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    cluster.become("n1", "a", R, C.BOOTED)
    cluster.wait(500)
    cluster.feed(ev.VmRebooted(at_s=cluster.now, node=N1, vm=uuid("a")))
    assert cluster.vm("a").started_at_s == cluster.now


def test_a_guest_that_shuts_down_by_itself_says_so(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.tell("n1", "a", shutting_down=True)
    assert cluster.vm("a").activity is Activity.SHUTTING_DOWN
    assert cluster.information("a") == "the guest is shutting down"
    cluster.lose("n1")
    assert cluster.vm("a").activity is Activity.NONE


@pytest.mark.parametrize(
    "cause", [C.IO_ERROR, C.WATCHDOG, C.POSTCOPY_FAILED, C.PANICKED], ids=lambda c: c.name
)
def test_a_pause_nobody_asked_for_is_a_problem_until_it_is_over(cluster: Cluster, cause: StatusCause) -> None:
    cluster.add("n1", "a")
    cluster.become("n1", "a", PAUSED, cause)
    assert problem(cluster, f"vm:{uuid('a')}") == f"paused: {cause.value}"
    cluster.become("n1", "a", R, C.USER)
    assert not cluster.state.problems


def test_a_definition_not_understood_is_said(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=definition(trouble="memory: unit 'x'"))
    assert cluster.information("a") == "its definition is not understood: memory: unit 'x'"


# --- others: Pacemaker, foreign jobs, holds --------------------------------------------------


def pacemaker_says(cluster: Cluster, pacemaker: Pacemaker, *names: str) -> None:
    cluster.feed(
        ev.VmAuthoritySeen(at_s=cluster.later(), node=N1, pacemaker=pacemaker, names=frozenset(names))
    )


def test_pacemaker_owns_its_resources_only(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n1", "b")
    cluster.add("n2", "c")
    pacemaker_says(cluster, Pacemaker.RUNS, "a", "c")
    assert cluster.vm("a").authority is Authority.PACEMAKER
    assert cluster.information("a") == "managed by Pacemaker: read-only here"
    assert {cluster.vm(name).authority for name in "bc"} == {Authority.MUSTER}
    pacemaker_says(cluster, Pacemaker.RUNS)
    assert cluster.vm("a").authority is Authority.MUSTER
    assert cluster.information("a") == ""


def test_a_node_says_that_pacemaker_runs_there_until_it_does_not(cluster: Cluster) -> None:
    said = "runs Pacemaker: the VMs it manages are read-only here"
    cluster.add("n1", "a")
    for _ in range(2):  # a second time it is no news
        pacemaker_says(cluster, Pacemaker.RUNS, "a")
        assert str(cluster.node("n1").information) == said
    cluster.lose("n1")
    assert str(cluster.node("n1").information) != said
    pacemaker_says(cluster, Pacemaker.RUNS, "a", "b")  # does not hide why the node is not there
    assert str(cluster.node("n1").information) != said
    cluster.connect("n1")
    assert str(cluster.node("n1").information) == said
    assert cluster.vm("a").authority is Authority.PACEMAKER  # still: nobody said otherwise
    pacemaker_says(cluster, Pacemaker.NONE)
    assert cluster.node("n1").information is None
    assert cluster.vm("a").authority is Authority.MUSTER
    assert cluster.node("n2").pacemaker is Pacemaker.NONE


def test_where_pacemaker_does_not_tell_every_vm_may_be_its_own(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n2", "b")
    pacemaker_says(cluster, Pacemaker.UNTOLD)
    information = cluster.node("n1").information
    assert information is not None
    assert information.code is ReasonCode.PACEMAKER_UNTOLD
    assert "haclient" in information.remedy
    assert cluster.information("a") == "managed by Pacemaker, perhaps: read-only here"
    assert cluster.vm("b").authority is Authority.MUSTER
    pacemaker_says(cluster, Pacemaker.RUNS)
    pacemaker_says(cluster, Pacemaker.UNTOLD)  # what it told holds
    assert cluster.vm("a").authority is Authority.MUSTER


def test_until_the_first_answer_nobody_touches_a_vm(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    pacemaker_says(cluster, Pacemaker.ASKED)
    assert cluster.vm("a").authority is Authority.UNTOLD
    assert "asking" in str(cluster.node("n1").information)
    pacemaker_says(cluster, Pacemaker.NONE)
    assert cluster.vm("a").authority is Authority.MUSTER
    assert cluster.node("n1").information is None


def test_a_foreign_job_shows_and_ends(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("a"), active=True))
    assert cluster.vm("a").activity is Activity.FOREIGN_MIGRATION
    began = units.time_text(cluster.now)
    assert cluster.information("a") == f"migration by someone else since {began}"
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(5), node=N1, vm=uuid("a"), active=True))
    assert cluster.information("a") == f"migration by someone else since {began}"  # told twice, begun once
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("a"), active=False))
    assert cluster.vm("a").activity is Activity.NONE


def test_a_move_begun_by_others_before_we_looked_shows_by_its_targets_half(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n2", "a", PAUSED, C.MIGRATION)
    assert cluster.vm("a").activity is Activity.FOREIGN_MIGRATION
    assert cluster.vm("a").owner == "n1"
    assert list(cluster.state._inventory.foreign_moves()) == [("n1", "n2")]
    cluster.lose("n2")  # nothing is known of it any more
    assert cluster.vm("a").activity is Activity.NONE


def test_a_vm_that_just_starts_is_not_taken_for_a_move(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    cluster.become("n1", "a", PAUSED, C.STARTING_UP)
    assert cluster.vm("a").activity is Activity.NONE
    cluster.add("n1", "b")
    cluster.add("n2", "b", PAUSED, C.STARTING_UP)  # as older libvirt says of a move's target
    assert cluster.vm("b").activity is Activity.FOREIGN_MIGRATION


def test_holds_are_a_set_of_who_and_why(cluster: Cluster) -> None:
    for who in ("x", "y", "x"):
        hold = Hold(who=who, why=f"{who}'s work", since_s=cluster.later())
        cluster.feed(ev.NodeHeld(at_s=cluster.now, node=N1, hold=hold))
    assert sorted(h.who for h in cluster.node("n1").holds) == ["x", "y"]
    cluster.feed(ev.NodeReleased(at_s=cluster.later(), node=N1, who="x"))
    assert [h.who for h in cluster.node("n1").holds] == ["y"]
    cluster.lose("n1")
    cluster.connect("n1")
    assert [h.who for h in cluster.node("n1").holds] == ["y"]


# --- loads ----------------------------------------------------------------------------------


def test_loads_lie_beside_the_rows_and_only_of_what_the_node_owns(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n2", "b")
    row = cluster.vm("a")
    load = VmLoad(cpu_percent=50.0, at_s=1.0)
    sampled = ev.NodeSampled(
        at_s=cluster.later(),
        node=N1,
        load=NodeLoad(cpu_percent=10.0),
        vms={uuid("a"): load, uuid("b"): load, uuid("gone"): load},
    )
    outcome = cluster.feed(sampled)
    assert dict(cluster.state.vm_loads) == {uuid("a"): load}
    assert cluster.vm("a") is row
    assert outcome.changes[Kind.VM].updated == {uuid("a"): frozenset({"load"})}
    assert not cluster.feed(sampled).changes[Kind.VM]
    cluster.become("n1", "a", OFF, C.SHUT_DOWN)
    assert not cluster.state.vm_loads


# --- change sets ----------------------------------------------------------------------------


def test_changes_name_the_attributes_that_changed(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    outcome = cluster.become("n1", "a", PAUSED, C.USER)
    assert outcome is not None
    names = outcome.changes[Kind.VM].updated[uuid("a")]
    assert {"status", "cause", "information", "changed_at_s"} <= names
    assert not {"name", "owner", "config"} & names


def test_what_changes_nothing_tells_nothing(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    revision = cluster.state.revision
    cluster.feed(ev.VmConfigRead(at_s=cluster.later(), node=N1, vm=uuid("a"), config=definition()))
    assert cluster.state.revision == revision
    assert not cluster.read("n1").changes[Kind.VM]


def test_events_of_unknown_kinds_are_a_bug(cluster: Cluster) -> None:
    with pytest.raises(TypeError, match="nobody handles Event"):
        cluster.feed(ev.Event(at_s=1.0))

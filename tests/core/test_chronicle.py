"""What happened: which events there are, in which order, by whom; and what is told of a VM or a node."""

from __future__ import annotations

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.changes import Story, Turn
from manager.core.chronicle import KEPT_EVENTS, ClusterEvent, Level, Source, about_node, about_vm, id_at
from manager.core.ids import Kind, NodeId, TraceId
from manager.core.model import StatusCause, VmStatus
from manager.core.query.fields import FIELDS
from manager.core.query.filter import matcher
from manager.core.reasons import ReasonCode, because
from tests.core.support import CRASHED, OFF, PAUSED, REFUSED, Cluster, R, uuid

N1, N2, N3 = (NodeId(f"n{i}") for i in (1, 2, 3))


def owner(cluster: Cluster) -> Cluster:
    """A cluster whose process records what happens."""
    cluster.feed(ev.OwnershipTaken(at_s=cluster.later()))
    return cluster


@pytest.fixture
def cluster() -> Cluster:
    return owner(Cluster())


def told(cluster: Cluster, since: int = 0) -> list[str]:
    return [event.text for event in cluster.state.events.values()][since:]


def test_a_move_is_told_from_the_request_to_its_end_in_order(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    before = len(cluster.state.events)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.settle()
    assert told(cluster, before) == [
        "Asked: live migrate a",
        "Begun: live migrate a",
        "Moved from n1 to n2",
        "Done: live migrate a: runs on n2",
    ]
    moved = list(cluster.state.events.values())[before:]
    assert {event.vm for event in moved} == {uuid("a")}
    assert {event.who for event in moved} == {"adm"}
    assert [event.source for event in moved] == [
        Source.REQUEST,
        Source.MUSTER,
        Source.HOST,
        Source.MUSTER,
    ]
    assert len({event.operation for event in moved[1:]}) == 1
    assert [event.id for event in moved] == sorted(event.id for event in moved)


def test_a_move_that_fails_is_an_error_with_its_reason(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin, "a"))
    cluster.answer(cluster.take(fx.StartMigration, "a"), REFUSED)
    cluster.settle()
    last = list(cluster.state.events.values())[-1]
    assert last.level is Level.ERROR
    assert last.what.code is ReasonCode.OPERATION_ENDED
    assert last.why is not None
    assert last.text.startswith("Failed: live migrate a: internal error: no")
    assert not any("Moved" in line for line in told(cluster))


def test_a_batch_is_asked_for_once_and_each_vm_ends_by_itself(cluster: Cluster) -> None:
    for name in ("a", "b"):
        cluster.add("n1", name, OFF)
    before = len(cluster.state.events)
    cluster.ask("vm.start", "a", "b")
    cluster.settle()
    lines = told(cluster, before)
    assert lines[0] == "Asked: start 2 VMs"
    assert sorted(lines[1:]) == [
        "Begun: start a",
        "Begun: start b",
        "Done: start a",
        "Done: start b",
        "Running on n1 (booted)",
        "Running on n1 (booted)",
    ]


@pytest.mark.parametrize(
    ("status", "cause", "code", "level"),
    [
        (OFF, StatusCause.SHUT_DOWN, ReasonCode.VM_STOPPED, Level.INFORMATION),
        (OFF, StatusCause.FAILED, ReasonCode.VM_STOPPED, Level.WARNING),
        (PAUSED, StatusCause.USER, ReasonCode.VM_PAUSED, Level.INFORMATION),
        (PAUSED, StatusCause.IO_ERROR, ReasonCode.VM_PAUSED, Level.ERROR),
        (CRASHED, StatusCause.CRASHED, ReasonCode.VM_CRASHED, Level.ERROR),
    ],
)
def test_what_a_host_tells_of_a_vm(
    cluster: Cluster, status: VmStatus, cause: StatusCause, code: ReasonCode, level: Level
) -> None:
    cluster.add("n1", "a")
    before = len(cluster.state.events)
    cluster.become("n1", "a", status, cause)
    cluster.settle()
    event = list(cluster.state.events.values())[before]
    assert (event.what.code, event.level, event.node, event.vm_name) == (code, level, N1, "a")
    assert event.who == ""
    assert event.text in cluster.story("a")
    again = [e for e in cluster.state.events.values() if e.what.code is code]
    assert len(again) == 1  # the read that follows says the same


def test_a_start_is_told_whichever_moment_of_it_was_read(cluster: Cluster) -> None:
    cluster.add("n1", "new", OFF)
    since = len(told(cluster))
    cluster.become("n1", "new", PAUSED, StatusCause.STARTING_UP)
    assert told(cluster, since) == []
    cluster.become(
        "n1", "new", R, StatusCause.USER
    )  # libvirt says that it was unpaused, then that it was booted
    cluster.become("n1", "new", R, StatusCause.BOOTED)
    assert [line.split(":")[-1].strip().split(" (")[0] for line in told(cluster, since)] == ["Running on n1"]


def test_a_paused_one_that_is_turned_off_was_not_resumed(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.become("n1", "a", PAUSED, StatusCause.USER)
    since = len(cluster.state.events)
    cluster.become("n1", "a", R, StatusCause.SHUTTING_DOWN)  # what libvirt says of the signal
    cluster.become("n1", "a", OFF, StatusCause.TURNED_OFF)
    assert [e.what.code for e in list(cluster.state.events.values())[since:]] == [ReasonCode.VM_STOPPED]


def test_moments_of_a_move_are_lines_of_the_story_and_no_events(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    before = len(cluster.state.events)
    cluster.become("n1", "a", PAUSED, StatusCause.MIGRATION)
    cluster.become("n1", "a", R, StatusCause.MIGRATION_CANCELLED)
    assert told(cluster, before) == []
    assert "Paused on n1 (being moved)" in cluster.story("a")


def test_a_lost_node_is_one_event_and_comes_back(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        cluster.add("n1", name)
    before = len(cluster.state.events)
    cluster.lose("n1")
    cluster.wait(61)
    cluster.hosts[N1][uuid("b")].status = OFF
    cluster.connect("n1")
    lines = told(cluster, before)
    assert lines[0] == "lost: connection reset"
    assert lines[1].startswith("Problem: n1 not heard since")
    assert [e.vm_name for e in list(cluster.state.events.values())[before:] if e.vm] == ["b"]
    assert "Off on n1" in lines  # seen when it came back
    assert any(line.startswith("Problem ended after ") for line in lines)
    events = list(cluster.state.events.values())[before:]
    assert [e.level for e in events[:2]] == [Level.ERROR, Level.ERROR]


def test_agent_disk_and_queue(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    before = len(cluster.state.events)
    base = {"node": N1, "vm": uuid("a")}
    cluster.feed(ev.VmDefinitionChanged(at_s=cluster.later(), name="a", agent=False, **base))  # type: ignore[arg-type]
    cluster.feed(ev.VmDiskFailed(at_s=cluster.later(), disk="/srv/a", text="enospc", stopped=True, **base))  # type: ignore[arg-type]
    cluster.feed(ev.QueueRequested(at_s=cluster.later(), verb=ev.QueueVerb.PAUSE, author="bea@pc"))
    cluster.feed(ev.QueueRequested(at_s=cluster.later(), verb=ev.QueueVerb.PAUSE, author="bea@pc"))
    assert told(cluster, before) == [
        "the guest agent answers no more",
        "error on disk /srv/a (enospc); the VM was paused",
        "The queue: paused",
    ]
    view, fields = cluster.state, FIELDS[Kind.EVENT]
    rows = [
        [fields[n].cell(view, e) for n in ("level", "subject", "node", "vm", "who", "source")]
        for e in list(view.events.values())[before:]
    ]
    assert rows == [
        ["information", "VM a", "n1", "a", "", "libvirt on n1"],
        ["error", "VM a", "n1", "a", "", "libvirt on n1"],
        ["information", "Cluster", "", "", "bea@pc", "pc"],
    ]


def test_a_process_that_does_not_own_the_operations_records_nothing_and_is_told() -> None:
    other, mine = owner(Cluster()), Cluster()
    for cluster in (other, mine):
        cluster.add("n1", "a")
        cluster.become("n1", "a", CRASHED, StatusCause.CRASHED)
    assert not mine.state.events
    events = tuple(other.state.events.values())
    mine.feed(ev.EventsTold(at_s=mine.later(), events=events[3:]))
    outcome = mine.feed(ev.EventsTold(at_s=mine.later(), events=events))  # the past, asked for
    assert outcome.changes[Kind.EVENT].added == {event.id for event in events[:3]}
    assert not outcome.happened  # told by others: not written down here
    assert list(mine.state.events.values()) == list(events)


def test_events_in_memory_are_bounded_and_views_are_told_of_what_goes() -> None:
    story, turn = Story(), Turn(at_s=1.0, trace=TraceId(""))
    story.keep_from(0)
    for number in range(KEPT_EVENTS + 5):
        story.record(turn, because(ReasonCode.QUEUE_STEERED, what=str(number)), source=Source.MUSTER)
    assert len(story.events) == KEPT_EVENTS
    assert next(iter(story.events.values())).text == "The queue: 5"
    seen = Turn(at_s=2.0, trace=TraceId(""))
    story.record(seen, because(ReasonCode.NODE_UP), source=Source.MUSTER)
    assert len(seen.changes[Kind.EVENT].removed) == 1


def test_what_happened_to_a_vm_has_its_requests_and_its_nodes(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        cluster.add("n1", name)
    cluster.add("n3", "far")
    since = len(cluster.state.events)
    cluster.ask("vm.live_migrate", "a", "b", target=N2)
    cluster.settle()
    cluster.become("n1", "c", CRASHED, StatusCause.CRASHED)
    cluster.lose("n3")
    cluster.lose("n2")
    events = list(cluster.state.events.values())[since:]
    assert [e.text for e in about_vm(events, uuid("a"), N2)] == [
        "Asked: live migrate 2 VMs",
        "Begun: live migrate a",
        "Moved from n1 to n2",
        "Done: live migrate a: runs on n2",
        "lost: connection reset",
    ]
    on_n1 = [e.text for e in about_node(events, N1)]
    assert on_n1.count("Moved from n1 to n2") == 2  # they left it
    assert "Crashed on n1 (crashed)" in on_n1
    assert "lost: connection reset" not in on_n1


def test_ids_sort_by_time_and_then_by_number() -> None:
    ids = [id_at(0.0), id_at(1.5, 1), id_at(1.5, 2), id_at(1.501), id_at(2e9)]
    assert ids == sorted(ids)
    assert id_at(-5.0) == id_at(0.0)


def test_an_event_is_a_value() -> None:
    event = ClusterEvent(
        id="1", at_s=1.0, level=Level.ERROR, source=Source.HOST, what=because(ReasonCode.NODE_UP)
    )
    assert event.text == "up: inventory read"
    assert event.level.word == "error"


def test_events_are_found_by_query(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.become("n1", "a", CRASHED, StatusCause.CRASHED)
    cluster.feed(ev.QueueRequested(at_s=cluster.later(), verb=ev.QueueVerb.PAUSE, author="bea@pc"))

    def found(query: str) -> set[str]:
        events = cluster.state.events.values()
        return {e.what.code.value for e in matcher(query, Kind.EVENT).select(cluster.state, events)}

    assert found("level>=warning vm:a") == {"vm-crashed", "problem-began"}
    assert found("is:error source:libvirt") == {"vm-crashed"}
    assert found("who:bea*") == {"queue-steered"}
    assert found("text:crashed code:vm-*") == {"vm-crashed"}

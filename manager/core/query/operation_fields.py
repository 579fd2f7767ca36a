"""The fields of operations: the queue, its history, everything asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manager.core import units
from manager.core.actions import ACTIONS
from manager.core.cluster import ClusterView
from manager.core.migration import summary
from manager.core.migration.moves import MoveStep
from manager.core.migration.summary import OTHERS, others_text
from manager.core.model import DrainState, MoveType, Priority
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.spec import FieldKind, FieldSpec, attribute, on, percent, plain, yes_no
from manager.core.query.vm_fields import PRIORITIES


def _move_figure(name: str) -> Callable[[ClusterView, Operation], Any]:
    def get(view: ClusterView, operation: Operation) -> Any:
        figures = view.progress.get(operation.id)
        if figures is None or (not figures.total_bytes and name != "elapsed_s"):
            return None
        return getattr(figures, name)

    return get


def _percent_done(view: ClusterView, operation: Operation) -> Any:
    if operation.state is OperationState.DONE:
        return 100
    figures = view.progress.get(operation.id)
    return figures.percent if figures else None


_STEPS = {
    MoveStep.COPY_DISKS: "Copying disks",
    MoveStep.SAVE: "Saving",
    MoveStep.SHUT_DOWN: "Shutting down",
    MoveStep.TURN_OFF: "Turning off",
    MoveStep.DEFINE: "Defining there",
    MoveStep.RESTORE: "Restoring there",
    MoveStep.START: "Starting there",
    MoveStep.FORGET: "Clearing up",
    MoveStep.RESTORE_BACK: "Restoring here",
    MoveStep.START_BACK: "Starting here",
    MoveStep.FORGET_TARGET: "Clearing up",
}


def _phase(view: ClusterView, operation: Operation) -> str:
    if operation.action == OTHERS:
        return others_text(operation).capitalize()
    if operation.state is OperationState.WAITING and operation.retry_at_s is not None:
        return f"Retry {operation.retries} of {view.config.migration.retry.times}"
    underway = operation.state in (OperationState.RUNNING, OperationState.SETTLING)
    if underway and operation.step in _STEPS:
        return _STEPS[operation.step]
    figures = view.progress.get(operation.id)
    if operation.state is OperationState.RUNNING and operation.kind is OperationKind.MIGRATE:
        return figures.phase.value if figures else "Target prepares"
    if operation.state is OperationState.SETTLING:
        return "Waiting for the guest" if operation.change else "Looking where it is"
    if operation.state is OperationState.RUNNING and operation.change is not None:
        return operation.change.value.capitalize()
    return operation.state.value


def _way(view: ClusterView, operation: Operation) -> str:
    if operation.kind is not OperationKind.MIGRATE:
        return str(operation.source or "")
    if operation.move is MoveType.STORAGE:
        return f"{operation.source}: {operation.pool}"
    to = operation.target or ("?" if operation.action == OTHERS else "best")
    return f"{operation.source or '?'} → {to}"


def _move_type(view: ClusterView, operation: Operation) -> str | None:
    if operation.kind is not OperationKind.MIGRATE or operation.action == OTHERS:
        return None
    return operation.move.value


def _told(view: ClusterView, operation: Operation) -> str | None:
    """What it waits for or how it ended; of a move that does not converge, what will be done about it."""
    if operation.reason is not None:
        return operation.reason.text
    figures = view.progress.get(operation.id)
    advice = figures.watch.next if figures is not None else None
    return advice.text if advice is not None else None


def _tries(view: ClusterView, operation: Operation) -> int | None:
    return operation.retries + 1 if operation.attempt else None


def _routed(name: str) -> Callable[[ClusterView, Operation], Any]:
    """What is known of a move's way; told before its first figures."""

    def get(view: ClusterView, operation: Operation) -> Any:
        figures = view.progress.get(operation.id)
        value = getattr(figures, name) if figures else None
        return None if value == "" else value

    return get


def _permitted_ms(view: ClusterView, operation: Operation) -> int | None:
    figures = view.progress.get(operation.id)
    return figures.watch.pause_ms if figures else None


def _advice(view: ClusterView, operation: Operation) -> str | None:
    figures = view.progress.get(operation.id)
    return figures.watch.next.text if figures and figures.watch.next else None


def operation_title(operation: Operation) -> str:
    """What an operation does, in words: ``Live migrate web-01``, ``Shut down 12 VMs``."""
    spec = ACTIONS.get(operation.action)
    verb = spec.verb if spec else operation.action
    if operation.kind is OperationKind.BATCH:
        return f"{verb} {units.count_text(operation.children, 'VM')}"
    if operation.hold is not None and operation.hold.drain is not DrainState.NONE:
        verb = f"{verb} and drain"
    return f"{verb} {operation.vm_name or operation.source}"


def _elapsed(view: ClusterView, operation: Operation) -> Any:
    if operation.started_s is None:
        return None
    return (operation.ended_s or max(view.now_s, operation.started_s)) - operation.started_s


OPERATION_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="vm",
        title="VM",
        kind=FieldKind.TEXT,
        doc="The VM.",
        get=attribute("vm_name"),
        text=plain,
        depends=frozenset(),
        width=130,
        searchable=True,
    ),
    FieldSpec(
        name="title",
        title="Operation",
        kind=FieldKind.TEXT,
        doc="What was asked for.",
        get=lambda view, operation: operation_title(operation),
        text=plain,
        prose=True,
        depends=on("*"),
        width=200,
        searchable=True,
    ),
    FieldSpec(
        name="place",
        title="#",
        kind=FieldKind.COUNT,
        doc="Its place in the queue: what is under way, then what waits, in the order of its turn.",
        get=summary.place,
        text=plain,
        depends=on("*"),
        width=40,
        shown=False,
        volatile=True,
    ),
    FieldSpec(
        name="from",
        title="From",
        kind=FieldKind.TEXT,
        doc="The node the VM was on when it was asked for.",
        get=attribute("source"),
        text=plain,
        depends=on("*"),
        width=90,
        searchable=True,
    ),
    FieldSpec(
        name="to",
        title="To",
        kind=FieldKind.TEXT,
        doc="The node it moves to; “best” until one is chosen.",
        get=lambda view, o: (o.target or "best") if o.kind is OperationKind.MIGRATE else None,
        text=plain,
        depends=on("*"),
        width=90,
        searchable=True,
    ),
    FieldSpec(
        name="way",
        title="From → to",
        kind=FieldKind.TEXT,
        doc="From which node to which it moves; “best” until one is chosen.",
        get=_way,
        text=plain,
        prose=True,
        depends=on("*"),
        width=120,
        shown=False,
    ),
    FieldSpec(
        name="type",
        title="Type",
        kind=FieldKind.ENUM,
        doc="How it moves: live, quick, shutdown, turn-off, storage.",
        get=_move_type,
        text=plain,
        words=tuple(move.value for move in MoveType),
        depends=frozenset(),
        width=76,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="priority",
        title="Priority",
        kind=FieldKind.COUNT,
        doc="The VM's priority: the higher goes first.",
        get=attribute("priority"),
        text=lambda value: Priority(value).title,
        words=tuple(p.title for p in Priority),
        ranks=PRIORITIES,
        depends=on("*"),
        width=76,
    ),
    FieldSpec(
        name="phase",
        title="Phase",
        kind=FieldKind.ENUM,
        doc="What is going on.",
        get=_phase,
        text=plain,
        depends=on("*", "state", "progress"),
        width=140,
        searchable=True,
    ),
    FieldSpec(
        name="percent",
        title="Progress",
        unit="%",
        kind=FieldKind.PERCENT,
        doc="From what remains; never falls; 99 until it is over.",
        get=_percent_done,
        text=lambda value: f"{value:.0f} %",
        depends=on("*", "progress"),
        width=180,
    ),
    FieldSpec(
        name="rate",
        title="MiB/s",
        kind=FieldKind.RATE,
        doc="Transfer rate.",
        get=_move_figure("rate_bytes_per_s"),
        text=lambda value: f"{value / units.MIB:.0f}",
        depends=on("progress"),
        width=62,
    ),
    FieldSpec(
        name="dirty",
        title="Dirty",
        kind=FieldKind.RATE,
        doc="How fast the guest changes its memory, MiB/s.",
        get=_move_figure("dirty_bytes_per_s"),
        text=lambda value: f"{value / units.MIB:.0f}",
        depends=on("progress"),
        width=62,
    ),
    FieldSpec(
        name="remaining",
        title="Left",
        kind=FieldKind.BYTES,
        doc="What is still to be copied.",
        get=_move_figure("remaining_bytes"),
        text=units.size_text,
        depends=on("progress"),
        width=80,
    ),
    FieldSpec(
        name="iteration",
        title="Iter",
        kind=FieldKind.COUNT,
        doc="The pass over the memory that is under way.",
        get=_move_figure("iteration"),
        text=plain,
        depends=on("progress"),
        width=50,
    ),
    FieldSpec(
        name="downtime",
        title="Down",
        unit="ms",
        kind=FieldKind.COUNT,
        doc="How long the guest would stand still if it were switched over now.",
        get=_move_figure("downtime_ms"),
        text=plain,
        depends=on("progress"),
        width=70,
    ),
    FieldSpec(
        name="elapsed",
        title="Elapsed",
        kind=FieldKind.SECONDS,
        doc="Time since it was started.",
        get=_elapsed,
        text=units.clock_text,
        depends=on("*", "progress"),
        width=70,
    ),
    FieldSpec(
        name="eta",
        title="ETA",
        kind=FieldKind.SECONDS,
        doc="Time that is left at the present rates.",
        get=_move_figure("eta_s"),
        text=units.clock_text,
        depends=on("progress"),
        width=60,
    ),
    FieldSpec(
        name="attempt",
        title="Try",
        kind=FieldKind.COUNT,
        doc="Which try it is, after errors that may pass.",
        get=_tries,
        text=plain,
        depends=on("*"),
        width=44,
    ),
    FieldSpec(
        name="state",
        title="State",
        kind=FieldKind.ENUM,
        doc="Waiting, Checking, Running, Settling, Cancelling, Done, Failed, Cancelled.",
        get=lambda view, operation: operation.state.value,
        text=plain,
        words=tuple(state.value for state in OperationState),
        depends=on("*", "state"),
        width=90,
        searchable=True,
    ),
    FieldSpec(
        name="reason",
        title="Reason",
        kind=FieldKind.TEXT,
        doc="What it waits for, what will be done about it and when, or how it ended.",
        get=_told,
        text=plain,
        prose=True,
        aliases=("information",),
        depends=on("*", "reason", "progress"),
        width=420,
        searchable=True,
    ),
    FieldSpec(
        name="author",
        title="Asked by",
        kind=FieldKind.TEXT,
        doc="Who asked for it.",
        get=attribute("author"),
        text=plain,
        depends=frozenset(),
        width=110,
        searchable=True,
    ),
    FieldSpec(
        name="created",
        title="Asked at",
        kind=FieldKind.TIME,
        doc="When it was asked for.",
        get=attribute("created_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=frozenset(),
        width=80,
    ),
    FieldSpec(
        name="ended",
        title="Ended",
        kind=FieldKind.TIME,
        doc="When it ended.",
        get=attribute("ended_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=on("*"),
        width=80,
    ),
    FieldSpec(
        name="id",
        title="ID",
        kind=FieldKind.TEXT,
        doc="By which `muster queue` knows it.",
        get=attribute("id"),
        text=plain,
        depends=frozenset(),
        width=190,
        shown=False,
    ),
    FieldSpec(
        name="batch",
        title="Batch",
        kind=FieldKind.TEXT,
        doc="The id of the request that it is part of.",
        get=attribute("parent"),
        text=plain,
        depends=frozenset(),
        width=150,
        shown=False,
    ),
    FieldSpec(
        name="uuid",
        title="UUID",
        kind=FieldKind.TEXT,
        doc="The VM's UUID.",
        get=attribute("vm"),
        text=plain,
        depends=frozenset(),
        width=260,
        shown=False,
    ),
    FieldSpec(
        name="permitted_ms",
        title="Permitted pause",
        unit="ms",
        kind=FieldKind.COUNT,
        doc="The longest pause of the guest that is permitted now; nothing: as the hypervisor does unasked.",
        get=_permitted_ms,
        text=plain,
        depends=on("progress"),
        width=110,
        shown=False,
    ),
    FieldSpec(
        name="throttle",
        title="Slowed",
        unit="%",
        kind=FieldKind.PERCENT,
        doc="How far the hypervisor slows the guest so that the move converges.",
        get=_routed("throttle_percent"),
        text=percent,
        depends=on("progress"),
        width=70,
        shown=False,
    ),
    FieldSpec(
        name="cap_mib_s",
        title="Cap",
        unit="MiB/s",
        kind=FieldKind.COUNT,
        doc="What the move may send at most; nothing: as much as it can.",
        get=lambda view, operation: operation.cap_mib_s or None,
        text=plain,
        depends=on("*"),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="address",
        title="Address",
        kind=FieldKind.TEXT,
        doc="The target's address that its memory goes to; nothing: as the target says itself.",
        get=_routed("address"),
        text=plain,
        depends=on("progress"),
        width=110,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="encrypted",
        title="Encrypted",
        kind=FieldKind.BOOL,
        doc="Whether its memory is encrypted on its way.",
        get=_routed("encrypted"),
        text=yes_no,
        depends=on("progress"),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="policy",
        title="Policy",
        kind=FieldKind.TEXT,
        doc="The policy of convergence that was asked for; nothing: the cluster's own.",
        get=lambda view, operation: operation.policy or None,
        text=plain,
        depends=frozenset(),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="pool",
        title="Pool",
        kind=FieldKind.TEXT,
        doc="Where disks go that are copied.",
        get=lambda view, operation: operation.pool or None,
        text=plain,
        depends=frozenset(),
        width=90,
        shown=False,
    ),
    FieldSpec(
        name="next",
        title="Next",
        kind=FieldKind.TEXT,
        doc="While it does not converge: what will be done about it, and when.",
        get=_advice,
        text=plain,
        prose=True,
        depends=on("progress"),
        width=420,
        shown=False,
    ),
    FieldSpec(
        name="started",
        title="Started",
        kind=FieldKind.TIME,
        doc="When it was begun.",
        get=attribute("started_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=on("*"),
        width=80,
        shown=False,
    ),
)

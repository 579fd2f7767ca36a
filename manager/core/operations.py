"""Everything asked for, as one tree of operations; and their one transition table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from manager.core.edits import VmEdit
from manager.core.effects import VmChange
from manager.core.errors import ImpossibleTransition
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.migration import moves
from manager.core.migration.moves import MoveStep
from manager.core.model import (
    Hold,
    MoveType,
    NodeStage,
    PeerRoute,
    Priority,
    SnapshotParameters,
    VmSettings,
)
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.units import count_text


class OperationKind(StrEnum):
    """What an operation is about."""

    BATCH = "batch"  # a parent: one request for many VMs; ends when its children have
    CHANGE = "change"  # one change of state of one VM
    MIGRATE = "migrate"  # one move of a VM, of any type
    SETTINGS = "settings"  # one write of a VM's metadata or definition
    NODE = "node"  # a pause, drain or resume of one node: a parent, of the moves that belong to it
    CONTROL = "control"  # the queue's standing orders; one per cluster, never over


class OperationState(StrEnum):
    """Where an operation stands. Every wait is a state with a reason."""

    WAITING = "Waiting"  # for a slot or another resource; the reason says for what
    CHECKING = "Checking"  # the source's login at the target is being tried
    RUNNING = "Running"  # the hypervisor works on it
    SETTLING = "Settling"  # the call came back; the world has yet to show the result
    CANCELLING = "Cancelling"  # asked to stop; not over until the VM's place was seen
    DONE = "Done"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self in ENDED


ENDED = frozenset({OperationState.DONE, OperationState.FAILED, OperationState.CANCELLED})

_S = OperationState
TRANSITIONS: dict[OperationState, frozenset[OperationState]] = {
    _S.WAITING: frozenset({_S.CHECKING, _S.RUNNING, _S.DONE, _S.FAILED, _S.CANCELLED}),
    _S.CHECKING: frozenset({_S.WAITING, _S.RUNNING, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.SETTLING, _S.CANCELLING, _S.DONE, _S.FAILED, _S.CANCELLED}),
    _S.SETTLING: frozenset({_S.WAITING, _S.RUNNING, _S.DONE, _S.FAILED, _S.CANCELLING, _S.CANCELLED}),
    _S.CANCELLING: frozenset({_S.RUNNING, _S.DONE, _S.FAILED, _S.CANCELLED}),
    _S.DONE: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""All moves there are; `docs/states/operation.md` is drawn from this.

From Settling a move of several steps runs its next one, and what failed for a while waits to be tried again.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingOrders:
    """What holds for the whole queue until someone says otherwise. Journaled as the CONTROL operation."""

    paused_by: str = ""  # nothing new starts; what runs goes on
    paused_since_s: float | None = None
    batches: tuple[tuple[OperationId, Reason], ...] = ()  # paused ones, and why the rest of each waits
    forgiven: tuple[tuple[OperationId, int], ...] = ()  # failures of a batch after which it was continued
    failing: tuple[tuple[NodeId, tuple[OperationId, ...]], ...] = ()  # moves to a target, none done since
    resting: tuple[tuple[NodeId, int], ...] = ()  # targets that are fed no more, and failures in a row
    limits: tuple[tuple[str, int], ...] = ()  # changed while running, by their names in the cluster file

    @property
    def paused_batches(self) -> dict[OperationId, Reason]:
        """The batches that start nothing more until someone says so, and why."""
        return dict(self.batches)

    def pausing(self, batches: Iterable[OperationId], reason: Reason) -> StandingOrders:
        """The orders with these batches paused, for this reason."""
        return replace(self, batches=tuple((self.paused_batches | dict.fromkeys(batches, reason)).items()))


ORDERS_ID = OperationId("queue")
"""The id of the one CONTROL operation of a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing asked for. Journaled before its effects start."""

    id: OperationId
    kind: OperationKind
    action: str  # the ActionSpec's id, "vm.live_migrate"
    author: str
    trace: TraceId
    created_s: float
    parent: OperationId | None = None
    state: OperationState = OperationState.WAITING
    reason: Reason | None = None  # of the wait, or of the end
    vm: VmId | None = None
    vm_name: str = ""
    source: NodeId | None = None  # the owner node when it was asked for
    target: NodeId | None = None  # of a move; None until one is chosen
    target_given: bool = False  # the administrator named it: never replaced by another
    route: PeerRoute = PeerRoute.NODE_TO_NODE
    move: MoveType = MoveType.LIVE
    step: MoveStep | None = None  # of a move: the one under way, or the last one
    pool: str = ""  # where disks go that are copied
    policy: str = ""  # of convergence, by name; empty: the cluster's
    retries: int = 0
    retry_at_s: float | None = None  # not before then
    avoid: tuple[NodeId, ...] = ()  # targets on which it failed: others are preferred
    rank: float | None = None  # a hand-made place before all others of its priority
    was_off: bool = False  # a move of a VM that was off when it was asked for: it stays off
    failed: str = ""  # it will end as failed because of this, when all is cleared up
    cap_mib_s: int = 0  # of a move: what it may send, or write of disks; 0: no cap
    tuned: int = 0  # how often a live move was changed by hand
    refusals: tuple[str, ...] = ()  # what its host said to the last change by hand, if it refused it
    change: VmChange | None = None
    restores: bool = False  # a start of a VM that was saved: its memory is read from a disk
    snapshot: SnapshotParameters | None = None  # of a change that is about one
    settings: VmSettings | None = None
    before: VmSettings | None = None  # what `settings` replaced, for undo
    edit: VmEdit | None = None  # of a VM's definition
    back: VmEdit | None = None  # what takes `edit` back
    priority: int = int(Priority.MEDIUM)
    memory_mib: int = 0  # reserved on the target while it moves, and `vcpus`
    vcpus: int = 0
    attempt: int = 0
    started_s: float | None = None
    ended_s: float | None = None
    cancelled_by: str = ""
    children: int = 0
    order: int = 0  # position in its batch
    orders: StandingOrders | None = None  # of the CONTROL operation
    stage: NodeStage | None = None  # of a NODE operation: what is under way
    hold: Hold | None = None  # of one that pauses its node: as it is to stand there
    drained_from: NodeId | None = None  # of a move: noted in the VM before it begins
    returns: bool = False  # a move back to where the VM was drained from: that is forgotten then

    @property
    def is_over(self) -> bool:
        """Whether it ended."""
        return self.state.is_over

    @property
    def is_parent(self) -> bool:
        """Whether it is there for others that hang below it."""
        return self.kind in (OperationKind.BATCH, OperationKind.NODE)


def moved_to(
    operation: Operation, state: OperationState, *, at_s: float, reason: Reason | None = None
) -> Operation:
    """The operation in its next state.

    Raises:
        ImpossibleTransition: if the table has no such move.
    """
    if state not in TRANSITIONS[operation.state]:
        raise ImpossibleTransition(f"{operation.id}: {operation.state} -> {state} ({reason})")
    started = operation.started_s
    if started is None and state in (OperationState.CHECKING, OperationState.RUNNING):
        started = at_s
    return replace(
        operation,
        state=state,
        reason=reason,
        started_s=started,
        ended_s=at_s if state.is_over else None,
    )


_ASKS_GUEST = frozenset({VmChange.SHUT_DOWN, VmChange.SHUT_DOWN_AGENT, VmChange.RESTART})


def asks_guest(operation: Operation) -> bool:
    """Whether what is under way is up to the guest: it is given its time."""
    return operation.change in _ASKS_GUEST or (operation.step is MoveStep.SHUT_DOWN and not operation.is_over)


def can_abort(operation: Operation) -> bool:
    """Whether a running call of this kind can be called off (libvirt virDomainAbortJob)."""
    return operation.step in moves.WITH_JOB or operation.change is VmChange.SAVE


def can_turn_back(operation: Operation) -> bool:
    """Whether a move that left its source can still go back to it."""
    return operation.step in (*moves.LEAVING, MoveStep.DEFINE, MoveStep.NOTE) and not operation.failed


def path_of(operation: Operation) -> tuple[MoveStep, ...]:
    """The steps of a move in their order, if nothing goes wrong."""
    return moves.path(
        operation.move,
        was_off=operation.was_off,
        drains=operation.drained_from is not None,
        returns=operation.returns,
    )


def step_after(operation: Operation, step: MoveStep) -> MoveStep | None:
    """What follows a step of a move, on its way or on its way back; None if it was the last."""
    return moves.after(path_of(operation), step) or moves.after(moves.BACK.get(operation.move, ()), step)


def nodes_of(operation: Operation) -> Iterable[NodeId]:
    """The nodes that what is under way is about: where the VM is, and where it goes."""
    if operation.step in (*moves.LEAVING, MoveStep.COPY_DISKS, MoveStep.NOTE):
        return [operation.source] if operation.source is not None else []
    return [n for n in (operation.source, operation.target) if n is not None]


def readies(operation: Operation | None) -> Reason | None:
    """Why a child of this operation may not begin yet: its node is still being paused, or resumed."""
    if operation is None or operation.kind is not OperationKind.NODE or operation.stage is NodeStage.MOVE:
        return None
    what = operation.stage.value if operation.stage else ""
    return because(ReasonCode.WAITS_NODE, node=str(operation.source), what=what)


def words_of(operation: Operation) -> str:
    """What an operation does, for the record: ``live migrate web-01``, ``shut down 12 VMs``."""
    verb = operation.action.rpartition(".")[2].replace("_", " ")
    if operation.kind is OperationKind.BATCH:
        return f"{verb} {count_text(operation.children, 'VM')}"
    return f"{verb} {operation.vm_name or operation.source}"

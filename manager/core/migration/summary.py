"""The queue as people read it: in which order, whose place is which, how far a batch is, what others do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from manager.core.ids import NodeId, OperationId, TraceId
from manager.core.inventory import is_incoming
from manager.core.migration.progress import MovePhase
from manager.core.migration.queue import is_heavy, order
from manager.core.model import Activity, Vm
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.reasons import ReasonCode

if TYPE_CHECKING:
    from manager.core.cluster import ClusterView

OTHERS = "other"
"""The action and author of a job that is not Muster's, where it is shown as a row of the queue."""

_S = OperationState
_STAGES = {
    _S.CANCELLING: 0,
    _S.RUNNING: 0,
    _S.SETTLING: 0,
    _S.CHECKING: 0,
    _S.WAITING: 2,
    _S.FAILED: 3,
    _S.CANCELLED: 4,
    _S.DONE: 4,
}
_FOREIGN = frozenset({Activity.FOREIGN_JOB, Activity.FOREIGN_MIGRATION})

_TOO_EARLY_S = 5.0
"""Before that nobody can tell how long a batch takes."""


def queue_order(operation: Operation) -> tuple[Any, ...]:
    """What is under way first, then what others do, then what waits in its turn; last what ended."""
    if operation.action == OTHERS:
        return (1, operation.created_s, operation.id)
    stage = _STAGES[operation.state]
    if operation.is_over:
        return (stage, -(operation.ended_s or 0.0), operation.id)
    return (stage, *order(operation))


_places: WeakKeyDictionary[Any, tuple[int, dict[OperationId, int]]] = WeakKeyDictionary()


def place(view: ClusterView, operation: Operation) -> int | None:
    """Its place in the whole queue, from 1; None for what takes none. Counted once per turn of the core."""
    kept = _places.get(view)
    if kept is None or kept[0] != view.revision:
        queued = [o for o in view.operations.values() if not o.is_over and is_heavy(o)]
        queued.sort(key=queue_order)
        kept = _places[view] = (view.revision, {o.id: at for at, o in enumerate(queued, 1)})
    return kept[1].get(operation.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """How far one request for many VMs is."""

    total: int
    moves: bool  # all of them are moves
    done: int
    failed: int
    cancelled: int
    running: int
    waiting: int
    stuck: int  # of those that run: they do not converge, and how long they take nobody knows
    share: float  # 0 to 1, by the memory of its VMs
    left_s: float | None  # None: not to be told; nothing of it runs, or the rest is held back

    @property
    def text(self) -> str:
        """``23 of 40 moved · 4 running · 12 waiting · 1 failed · about 6 min left``."""
        parts = [f"{self.done:,} of {self.total:,} {'moved' if self.moves else 'done'}"]
        parts += [
            f"{count:,} {word}"
            for count, word in (
                (self.running, "running"),
                (self.stuck, "not converging"),
                (self.waiting, "waiting"),
                (self.failed, "failed"),
                (self.cancelled, "cancelled"),
            )
            if count
        ]
        if self.left_s is not None:
            parts.append(f"about {about_text(self.left_s)} left")
        return " · ".join(parts)


def about_text(seconds: float) -> str:
    """A span that is only guessed, in one unit: ``6 min``, ``40 s``, ``3 h``."""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def summary(view: ClusterView, children: Iterable[Operation]) -> BatchSummary:
    """How far the children of one batch are."""
    states: Counter[OperationState] = Counter()
    orders = view.orders
    held = bool(orders.paused_by)
    whole = gone = earned = 0.0
    stuck = 0
    begun_s: float | None = None
    moves = True
    for child in children:
        states[child.state] += 1
        moves = moves and child.kind is OperationKind.MIGRATE
        held = held or child.parent in orders.paused_batches
        weight = float(max(1, child.memory_mib))
        whole += weight
        if child.started_s is not None:
            begun_s = child.started_s if begun_s is None else min(begun_s, child.started_s)
        if child.is_over:
            gone += weight
            earned += weight if child.state is _S.DONE else 0.0
        elif (figures := view.progress.get(child.id)) is not None:
            gone += weight * figures.percent / 100
            earned += weight * figures.percent / 100
            stuck += figures.phase is MovePhase.NOT_CONVERGING
    total = sum(states.values())
    waiting = states[_S.WAITING]
    over = states[_S.DONE] + states[_S.FAILED] + states[_S.CANCELLED]
    running = total - waiting - over
    left_s = None
    spent_s = view.now_s - begun_s if begun_s is not None else 0.0
    if running and earned > 0 and spent_s >= _TOO_EARLY_S and not stuck and not (held and waiting):
        left_s = (whole - gone) * spent_s / earned
    return BatchSummary(
        total=total,
        moves=moves,
        done=states[_S.DONE],
        failed=states[_S.FAILED],
        cancelled=states[_S.CANCELLED],
        running=running,
        waiting=waiting,
        stuck=stuck,
        share=gone / whole if whole else 0.0,
        left_s=left_s,
    )


def is_others(vm: Vm) -> bool:
    """Whether a job that is not Muster's holds a VM."""
    return vm.activity in _FOREIGN


def others_id(vm: str) -> OperationId:
    """The id of the row of a job that is not Muster's."""
    return OperationId(f"{OTHERS}:{vm}")


def others_job(view: ClusterView, vm: Vm) -> Operation:
    """What others do to a VM, as a row of the queue. It is no operation of ours: nobody can steer it here."""
    note = next((n for n in vm.notes if n.code is ReasonCode.FOREIGN_JOB), None)
    since = note.field("since") if note is not None else None
    since_s = float(since) if isinstance(since, int | float) else view.now_s
    moves = vm.activity is Activity.FOREIGN_MIGRATION
    target: NodeId | None = None
    if moves:
        seen = view.sightings(vm.id).values()
        target = next((s.node for s in seen if s.node != vm.owner and is_incoming(s)), None)
    config = vm.config
    return Operation(
        id=others_id(vm.id),
        kind=OperationKind.MIGRATE if moves else OperationKind.CHANGE,
        action=OTHERS,
        author=OTHERS,
        trace=TraceId(""),
        created_s=since_s,
        started_s=since_s if since is not None else None,
        state=_S.RUNNING,
        reason=note,
        vm=vm.id,
        vm_name=vm.name,
        source=vm.owner,
        target=target,
        priority=int(config.settings.priority) if config else 0,
        memory_mib=config.memory_mib if config else 0,
    )


def others_jobs(view: ClusterView) -> Mapping[OperationId, Operation]:
    """All jobs in the cluster that are not Muster's."""
    return {others_id(vm.id): others_job(view, vm) for vm in view.vms.values() if is_others(vm)}


def others_text(operation: Operation) -> str:
    """``backup``: what others do to the VM of such a row."""
    what = operation.reason.field("what") if operation.reason is not None else None
    return str(what or ("migration" if operation.kind is OperationKind.MIGRATE else "job"))

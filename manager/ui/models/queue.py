"""What the queue pane keeps of one cluster, from change sets: batches, failures, jobs of others, courses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, OperationId, VmId
from manager.core.migration.progress import MoveHistory
from manager.core.migration.queue import goes_elsewhere, is_heavy, order
from manager.core.migration.summary import is_others, others_id, others_job
from manager.core.operations import Operation, OperationKind, OperationState

_OTHERS_SHOW = frozenset({"activity", "notes", "owner", "name", "*"})
"""Attributes of a VM that its row as a job of others shows."""

_COURSES = 400
"""Of so many moves the course is kept: all that run, and those that ended last."""


_Sort = tuple[VmId, OperationKind, bool]


class QueueWatch:
    """Follows the operations that take a place in the queue."""

    def __init__(self, view: ClusterView) -> None:
        self.view = view
        self.open: dict[OperationId, None] = {}  # batches that are not over, in the order they were asked
        self.failed: set[OperationId] = set()  # nothing of the sort was done with their VM since
        self.live: set[OperationId] = set()  # takes a place now
        self.seen: dict[OperationId, Operation] = {}  # all that the core knows, batches too
        self._children: dict[OperationId, list[OperationId]] = {}
        self._came_to: dict[_Sort, Operation] = {}  # done or failed, the last
        for operation in sorted(view.operations.values(), key=lambda o: o.created_s):
            self._see(operation)

    def take(self, changes: ChangeSet) -> list[OperationId]:
        """Take in what changed; returns the batches that ended just now."""
        mine, ended = changes[Kind.OPERATION], []
        for key in mine.removed:
            self._forget(OperationId(key))
        for key in mine.added:
            operation = self.view.operations.get(OperationId(key))
            if operation is not None:
                self._see(operation)
        for key, names in mine.updated.items():
            if names <= _FIGURES:
                continue
            operation = self.view.operations.get(OperationId(key))
            if operation is None:
                continue
            if operation.is_over and operation.id in self.open:
                ended.append(operation.id)
            self._see(operation)
        return ended

    def children(self, batch: OperationId) -> list[Operation]:
        """The operations of a batch that take places in the queue."""
        found = (self.view.operations.get(key) for key in self._children.get(batch, ()))
        return [o for o in found if o is not None]

    @property
    def batches(self) -> list[Operation]:
        """Open requests for more than one VM, and those that wait for a word; the newest first."""
        paused = self.view.orders.paused_batches
        found = (self.view.operations.get(key) for key in reversed(self.open))
        return [b for b in found if b and (b.children > 1 or b.id in paused) and b.id in self._children]

    def _forget(self, key: OperationId) -> None:
        self.open.pop(key, None)
        self._children.pop(key, None)
        for kept in (self.failed, self.live):
            kept.discard(key)
        operation = self.seen.pop(key, None)
        sort = _sort(operation) if operation is not None else None
        if sort is not None and (last := self._came_to.get(sort)) is not None and last.id == key:
            del self._came_to[sort]

    def _see(self, operation: Operation) -> None:
        is_new = operation.id not in self.seen
        self.seen[operation.id] = operation
        if operation.is_parent:
            if operation.is_over:
                self.open.pop(operation.id, None)
            else:
                self.open[operation.id] = None
            return
        sort = _sort(operation)
        if sort is None:
            return
        (self.live.discard if operation.is_over else self.live.add)(operation.id)
        if operation.state in (OperationState.DONE, OperationState.FAILED):
            before = self._came_to.get(sort)
            if before is None or _ended_s(before) <= _ended_s(operation):
                if before is not None:
                    self.failed.discard(before.id)
                self._came_to[sort] = operation
                if operation.state is OperationState.FAILED:
                    self.failed.add(operation.id)
        if operation.parent is not None and is_new:
            self._children.setdefault(operation.parent, []).append(operation.id)


def _sort(operation: Operation) -> _Sort | None:
    """What makes good an earlier failure of the same; None for what takes no place in the queue."""
    if operation.vm is None or not is_heavy(operation):
        return None
    return (operation.vm, operation.kind, goes_elsewhere(operation))


def _ended_s(operation: Operation) -> float:
    return operation.ended_s or operation.created_s


_FIGURES = frozenset({"progress", "reason"})


class OthersRows(dict[str, Operation]):
    """Jobs that are not Muster's, as rows: the `extra` of a model of operations."""

    def __init__(self, view: ClusterView) -> None:
        super().__init__()
        self._view = view
        for vm in view.vms.values():
            if is_others(vm):
                self[others_id(vm.id)] = others_job(view, vm)

    def take(self, changes: ChangeSet) -> ChangeSet:
        """Take in what changed; returns what changed in these rows, as changes of operations."""
        mine, told = changes[Kind.VM], ChangeSet()
        rows = told[Kind.OPERATION]
        for key in mine.removed:
            if self.pop(others_id(key), None) is not None:
                rows.remove(others_id(key))
        touched = (key for key, names in mine.updated.items() if names & _OTHERS_SHOW)
        for key in (*mine.added, *touched):
            vm = self._view.vms.get(VmId(key))
            if vm is None or not is_others(vm):
                if self and self.pop(others_id(key), None) is not None:
                    rows.remove(others_id(key))
                continue
            row = others_id(key)
            job = others_job(self._view, vm)
            before = self.get(row)
            self[row] = job
            if before is None:
                rows.add(row)
            elif before != job:
                rows.update(row, ("*",))
        return told


class Courses:
    """The course of every move since the window looks."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._kept: dict[OperationId, MoveHistory] = {}
        for key in view.progress:
            self._add(key)

    def take(self, changes: ChangeSet) -> None:
        """Add the newest figures of all that moves."""
        mine = changes[Kind.OPERATION]
        moved = [key for key, names in mine.updated.items() if "progress" in names]
        for key in (*mine.added, *moved):
            self._add(OperationId(key))

    def of(self, key: OperationId) -> MoveHistory | None:
        """The course of one move."""
        return self._kept.get(key)

    def _add(self, key: OperationId) -> None:
        figures = self._view.progress.get(key)
        if figures is None:
            return
        history = self._kept.get(key)
        if history is None:
            while len(self._kept) >= _COURSES:
                del self._kept[next(iter(self._kept))]
            history = self._kept[key] = MoveHistory()
        history.add(figures)


Request = tuple[tuple[OperationId, ...], OperationId | None]
"""What is put, and before what; see `events.QueueRequested`."""


def placed(line: Iterable[Operation], moved: Sequence[str], before: str | None) -> list[Request]:
    """The requests that put operations before another one of the queue, or (None) behind all.

    Each goes no further than the ends of its own priority. Behind all is said the other way round: those
    that are behind now go before them, for the core knows no place behind what has none made by hand.
    """
    queue = sorted(line, key=order)
    at = {o.id: place for place, o in enumerate(queue)}
    limit = at.get(OperationId(before), len(queue)) if before is not None else len(queue)
    requests: list[Request] = []
    for priority in dict.fromkeys(o.priority for o in queue if o.id in moved):
        group = [o.id for o in queue if o.priority == priority]
        chosen = tuple(key for key in group if key in moved)
        rest = [key for key in group if key not in moved]
        behind = next((key for key in rest if at[key] >= limit), None)
        if behind is not None:
            wanted = [*rest[: rest.index(behind)], *chosen, *rest[rest.index(behind) :]]
            if wanted != group:
                requests.append((chosen, behind))
            continue
        later = tuple(key for key in rest if at[key] > at[chosen[0]])
        if later:
            requests.append((later, chosen[0]))
    return requests


def stepped(line: Iterable[Operation], moved: Sequence[str], way: int) -> list[Request]:
    """The requests that put operations one place further up (-1) or down (1) inside their priority."""
    queue = sorted(line, key=order)
    requests: list[Request] = []
    for priority in dict.fromkeys(o.priority for o in queue if o.id in moved):
        group = [o.id for o in queue if o.priority == priority]
        chosen = [key for key in group if key in moved]
        if way < 0:
            above = [key for key in group[: group.index(chosen[0])] if key not in moved]
            if above:
                requests.append((tuple(chosen), above[-1]))
            elif group[: len(chosen)] != chosen:  # together, at the front
                requests.append((tuple(chosen[1:]), next(k for k in group if k not in moved)))
        else:
            below = [key for key in group[group.index(chosen[-1]) :] if key not in moved]
            if below:
                requests.append(((below[0],), chosen[0]))
    return requests

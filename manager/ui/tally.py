"""Counts that the navigation tree and the overview show, kept current from change sets, never recounted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from math import inf
from time import perf_counter

from manager.core.changes import ChangeSet, KindChanges
from manager.core.cluster import ClusterView
from manager.core.ids import Kind
from manager.core.model import VmStatus
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.filter import Matcher, matcher, search_text
from manager.core.query.query import QueryError
from manager.core.query.views import View, Views
from manager.ui.models.sources import objects

COUNTED = (Kind.VM, Kind.NODE, Kind.POOL, Kind.NETWORK)
"""Kinds whose views have a number in the tree; of events there are too many, and never all."""

RETESTED = 100
"""How many objects are looked at again each time where the clock alone may change the answer, at least."""

ROUND = 60
"""After so many times all were looked at: a minute at one a second."""

TURN_S = 0.006
"""How long one turn counts; the rest is left to the next, so that no answer to a key waits for a number."""

GLANCE = 16
"""How many objects are looked at between two looks at the clock."""


class Members:
    """Which objects a view shows, kept from change sets: a change tests the object that it is about."""

    def __init__(self, view: ClusterView, shown: View) -> None:
        self.of = shown
        self.keys: set[str] = set()
        self.trouble = ""
        self._view = view
        self._found: Matcher | None = None
        self._left: Iterator[str] = iter(())
        self._due: dict[str, None] = {}
        self._known = False
        try:
            self._found = matcher(shown.query, shown.kind) if shown.query.strip() else None
        except QueryError as error:
            self.trouble = error.message  # of a version that knew other fields
        self._counts = self._found is not None and not self._found.samples
        self.ask(objects(view, shown.kind))

    @property
    def count(self) -> int | None:
        """How many; None: all, not yet counted, or nobody knows: load is measured only where it is shown."""
        return len(self.keys) if self._counts and self._known else None

    @property
    def is_behind(self) -> bool:
        """Whether objects wait to be looked at."""
        return bool(self._due)

    def hears(self, names: frozenset[str]) -> bool:
        """Whether a change of these attributes may change the answer."""
        if self._found is None:
            return False
        depends = self._found.depends
        return "*" in names or "*" in depends or not depends.isdisjoint(names)

    def ask(self, keys: Iterable[str]) -> None:
        """Have objects looked at; `work` does it."""
        if self._counts:
            self._due.update(dict.fromkeys(keys))

    def ask_some(self) -> None:
        """Have some objects looked at again if the clock alone may have changed what they are."""
        if self._found is None or not self._found.ages:
            return
        every = objects(self._view, self.of.kind)
        share = max(RETESTED, len(every) // ROUND)
        some = list(islice(self._left, share))
        self.ask(some)
        if len(some) < share:
            self._left = iter(list(every))

    def work(self, until_s: float) -> None:
        """Look at what is due, until this time of `time.perf_counter`."""
        due = self._due
        while due and perf_counter() < until_s:
            for _ in range(min(GLANCE, len(due))):
                self._see(due.popitem()[0])
        if not due:
            self._known = True

    def _see(self, key: str) -> None:
        assert self._found is not None
        item = objects(self._view, self.of.kind).get(key)
        if item is None:
            self.keys.discard(key)
            return
        hay = search_text(self._view, self.of.kind, item) if self._found.reads else ""
        _mark(self.keys, key, self._found.test(self._view, item, hay))


class Tally:
    """Counts of one cluster's VMs and moves."""

    def __init__(self, view: ClusterView) -> None:
        self.view = view
        self.statuses: Counter[VmStatus] = Counter()
        self._members: dict[tuple[Kind, str], Members] = {}
        self._listening: dict[tuple[Kind, frozenset[str]], list[Members]] = {}
        self.queue: dict[str, bool] = {}  # migrate operations not over -> whether waiting
        self.failed = 0  # failed operations on one VM each
        self._status: dict[str, VmStatus] = {}
        self._failed: set[str] = set()
        self.follow(Views())
        for key in view.vms:
            self._see_vm(key)
        for operation in view.operations.values():
            self._see_operation(operation)

    @property
    def moves(self) -> tuple[int, int]:
        """Live migrations that run, and that wait."""
        waiting = sum(self.queue.values())
        return len(self.queue) - waiting, waiting

    @property
    def attention(self) -> set[str]:
        """VMs that someone should look at."""
        return self._members[Kind.VM, "attention"].keys

    @property
    def unmovable(self) -> set[str]:
        """VMs that cannot be moved live."""
        return self._members[Kind.VM, "unmovable"].keys

    def follow(self, views: Views) -> None:
        """Count for these views; what was counted for a view that is as it was is kept."""
        before, self._members = self._members, {}
        self._listening.clear()
        for kind in COUNTED:
            for view in views.of(kind):
                known = before.get((kind, view.id))
                if known is None or known.of != view:
                    known = Members(self.view, view)
                self._members[kind, view.id] = known

    @property
    def followed(self) -> list[Members]:
        """What is counted for each view."""
        return list(self._members.values())

    @property
    def is_behind(self) -> bool:
        """Whether `work` has something to do."""
        return any(members.is_behind for members in self._members.values())

    def ask_some(self) -> None:
        """Now and then: what changes by the clock alone."""
        for members in self._members.values():
            members.ask_some()

    def work(self, limit_s: float = inf) -> None:
        """Count on for a while; without a limit, to the end."""
        until_s = perf_counter() + limit_s
        for members in self._members.values():
            members.work(until_s)

    def take(self, changes: ChangeSet) -> None:
        """Take in what changed; the members of views follow with `work`."""
        for kind in COUNTED:
            self._tell_members(kind, changes[kind])
        vms = changes[Kind.VM]
        for key in vms.removed:
            self._forget_vm(key)
        for key in vms.added:
            self._see_vm(key)
        for key, names in vms.updated.items():
            if "status" in names or "*" in names:
                self._see_vm(key)
        operations = changes[Kind.OPERATION]
        source = {str(key): key for key in (*operations.added, *operations.updated)}
        for key in source:
            operation = self.view.operations.get(key)  # type: ignore[call-overload]
            if operation is not None:
                self._see_operation(operation)

    def _tell_members(self, kind: Kind, changes: KindChanges) -> None:
        every = [members for (of, _), members in self._members.items() if of is kind]
        for members in every:
            members.ask(changes.removed)
            members.ask(changes.added)
        for key, names in changes.updated.items():
            listening = self._listening.get((kind, names))
            if listening is None:
                listening = [members for members in every if members.hears(names)]
                self._listening[kind, names] = listening
            for members in listening:
                members.ask((key,))

    def _see_vm(self, key: str) -> None:
        vm = self.view.vms.get(key)  # type: ignore[call-overload]
        if vm is None:
            self._forget_vm(key)
            return
        before = self._status.get(key)
        if before is not vm.status:
            if before is not None:
                self.statuses[before] -= 1
            self.statuses[vm.status] += 1
            self._status[key] = vm.status

    def _forget_vm(self, key: str) -> None:
        before = self._status.pop(key, None)
        if before is not None:
            self.statuses[before] -= 1

    def _see_operation(self, operation: Operation) -> None:
        if operation.is_parent:
            return
        _mark(self._failed, operation.id, operation.state is OperationState.FAILED)
        self.failed = len(self._failed)
        if operation.kind is OperationKind.MIGRATE:
            if operation.is_over:
                self.queue.pop(operation.id, None)
            else:
                self.queue[operation.id] = operation.state is OperationState.WAITING


def _mark(group: set[str], key: str, belongs: bool) -> None:
    if belongs:
        group.add(key)
    else:
        group.discard(key)

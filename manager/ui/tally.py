"""Counts that the navigation tree and the overview show, kept current from change sets, never recounted."""

from __future__ import annotations

from collections import Counter

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind
from manager.core.model import Activity, Vm, VmStatus
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.placement import planner
from manager.ui.models.tones import TROUBLE_CAUSES, reason_token


def needs_attention(vm: Vm) -> bool:
    """Whether to look at a VM: it crashed, stopped by itself, is lost, or an action on it failed."""
    return (
        vm.alarm
        or vm.status in (VmStatus.CRASHED, VmStatus.UNKNOWN)
        or (vm.status is VmStatus.PAUSED and vm.cause in TROUBLE_CAUSES)
        or (vm.information is not None and reason_token(vm.information) == "crashed")
    )


def is_moving(vm: Vm) -> bool:
    """Whether a VM moves or waits to move."""
    return vm.moving_to is not None or vm.activity in (Activity.MIGRATING, Activity.FOREIGN_MIGRATION)


class Tally:
    """Counts of one cluster's VMs and moves."""

    def __init__(self, view: ClusterView) -> None:
        self.view = view
        self.statuses: Counter[VmStatus] = Counter()
        self.attention: set[str] = set()
        self.unmovable: set[str] = set()
        self.moving: set[str] = set()
        self.queue: dict[str, bool] = {}  # migrate operations not over -> whether waiting
        self.failed = 0  # failed operations on one VM each
        self._status: dict[str, VmStatus] = {}
        self._failed: set[str] = set()
        for key in view.vms:
            self._see_vm(key)
        for operation in view.operations.values():
            self._see_operation(operation)

    @property
    def moves(self) -> tuple[int, int]:
        """Live migrations that run, and that wait."""
        waiting = sum(self.queue.values())
        return len(self.queue) - waiting, waiting

    def take(self, changes: ChangeSet) -> None:
        """Take in what changed."""
        vms = changes[Kind.VM]
        for key in vms.removed:
            self._forget_vm(key)
        for key in vms.added:
            self._see_vm(key)
        for key, names in vms.updated.items():
            if names != _LOAD:
                self._see_vm(key)
        operations = changes[Kind.OPERATION]
        source = {str(key): key for key in (*operations.added, *operations.updated)}
        for key in source:
            operation = self.view.operations.get(key)  # type: ignore[call-overload]
            if operation is not None:
                self._see_operation(operation)

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
        _mark(self.attention, key, needs_attention(vm))
        _mark(self.moving, key, is_moving(vm))
        _mark(self.unmovable, key, bool(planner.obstacles(self.view.config, vm)))

    def _forget_vm(self, key: str) -> None:
        before = self._status.pop(key, None)
        if before is not None:
            self.statuses[before] -= 1
        for group in (self.attention, self.moving, self.unmovable):
            group.discard(key)

    def _see_operation(self, operation: Operation) -> None:
        if operation.kind is OperationKind.BATCH:
            return
        _mark(self._failed, operation.id, operation.state is OperationState.FAILED)
        self.failed = len(self._failed)
        if operation.kind is OperationKind.MIGRATE:
            if operation.is_over:
                self.queue.pop(operation.id, None)
            else:
                self.queue[operation.id] = operation.state is OperationState.WAITING


_LOAD = frozenset({"load"})


def _mark(group: set[str], key: str, belongs: bool) -> None:
    if belongs:
        group.add(key)
    else:
        group.discard(key)

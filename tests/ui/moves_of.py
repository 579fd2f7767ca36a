"""Moves for the window's tests: asked for, checked, copying, stuck, ended, on a `FakeRuntime`."""

from __future__ import annotations

from typing import Any

from manager.core import events as ev
from manager.core.actions import ACTIONS, MigrateParameters
from manager.core.effects import CheckPeerLogin, Effect
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, OperationId
from manager.core.model import StatusCause, VmStatus
from manager.core.operations import Operation, OperationState
from tests.ui.cluster_of import FakeRuntime, vm_id

MIB = 1 << 20


def ask(
    runtime: FakeRuntime, *numbers: int, action: str = "vm.live_migrate", **parameters: Any
) -> OperationId:
    """Ask for moves of these VMs; returns the batch."""
    runtime.clock.at_s += 1
    plan = ACTIONS[action].plan(runtime.view, [vm_id(n) for n in numbers], MigrateParameters(**parameters))
    assert len(plan.steps) == len(numbers), plan.skipped
    return runtime.request(plan)[0]


def move(runtime: FakeRuntime, number: int) -> Operation:
    """The move of a VM that is under way, or its last one."""
    found = [o for o in runtime.view.operations.values() if o.vm == vm_id(number)]
    return next((o for o in found if not o.is_over), found[-1])


def check(runtime: FakeRuntime) -> None:
    """The logins that are tried are good: those moves begin."""
    for effect in [e for e in runtime.effects if isinstance(e, CheckPeerLogin)]:
        _answer(runtime, effect, None)


def _answer(runtime: FakeRuntime, effect: Effect, failure: Failure | None) -> None:
    runtime.effects.remove(effect)
    runtime.clock.at_s += 0.01
    runtime.dispatch(
        ev.EffectEnded(
            at_s=runtime.clock.at_s,
            operation=effect.operation,  # type: ignore[attr-defined]
            attempt=effect.attempt,  # type: ignore[attr-defined]
            failure=failure,
        )
    )


def figures(
    runtime: FakeRuntime,
    number: int,
    done: float,
    *,
    rate: int = 100,
    dirty: int = 10,
    iteration: int = 1,
    post_copy: bool = False,
    seconds: float = 1.0,
) -> None:
    """A sample of a running move: how much of 1,000 MiB is copied, rates in MiB/s."""
    operation = move(runtime, number)
    runtime.clock.at_s += seconds
    begun_s = operation.started_s or runtime.clock.at_s
    runtime.dispatch(
        ev.MigrationProgress(
            at_s=runtime.clock.at_s,
            operation=operation.id,
            attempt=operation.attempt,
            elapsed_ms=round((runtime.clock.at_s - begun_s) * 1000),
            total_bytes=1000 * MIB,
            remaining_bytes=round(1000 * (1 - done)) * MIB,
            rate_bytes_per_s=rate * MIB,
            dirty_bytes_per_s=dirty * MIB,
            iteration=iteration,
            downtime_ms=420,
            post_copy=post_copy,
        )
    )


def stick(runtime: FakeRuntime, number: int) -> None:
    """The guest changes its memory as fast as it is sent, for long enough to be sure."""
    for _ in range(8):
        figures(runtime, number, 0.7, rate=300, dirty=300, iteration=9)
    assert move(runtime, number).state is OperationState.RUNNING


def arrive(runtime: FakeRuntime, number: int) -> None:
    """The move ends well."""
    operation = move(runtime, number)
    assert operation.target
    assert operation.source
    runtime.change(number, VmStatus.RUNNING, StatusCause.MIGRATED, node=operation.target)
    runtime.change(number, VmStatus.OFF, StatusCause.MIGRATED, node=operation.source)
    runtime.clock.at_s += 0.01
    runtime.dispatch(ev.VmUndefined(at_s=runtime.clock.at_s, node=operation.source, vm=vm_id(number)))
    _end(runtime, operation, None)
    assert runtime.view.operations[operation.id].state is OperationState.DONE


def fail(
    runtime: FakeRuntime, number: int, text: str = "Cannot get interface MTU on 'br40'", node: str = ""
) -> None:
    """The move ends badly, for good; the VM runs where it was."""
    operation = move(runtime, number)
    failed = Failure(code=FailureCode.OTHER, text=text, node=NodeId(node) if node else operation.target)
    _end(runtime, operation, failed)
    for name in dict.fromkeys((operation.source, operation.target)):
        assert name
        read(runtime, name)
    assert move(runtime, number).state is OperationState.FAILED


def _end(runtime: FakeRuntime, operation: Operation, failure: Failure | None) -> None:
    mine = [e for e in runtime.effects if getattr(e, "operation", None) == operation.id]
    _answer(runtime, mine[-1], failure)


def read(runtime: FakeRuntime, node: NodeId) -> None:
    """A node's inventory is read again."""
    runtime.clock.at_s += 0.01
    view = runtime.view
    seen = tuple(
        ev.SeenVm(
            vm=s.vm,
            name=s.name,
            status=s.status,
            cause=s.cause,
            incarnation=s.incarnation,
        )
        for vm in view.vms
        for s in view.sightings(vm).values()
        if s.node == node
    )
    at_s = runtime.clock.at_s
    runtime.dispatch(ev.NodeInventoryRead(at_s=at_s, node=node, started_s=at_s, vms=seen))


def others(runtime: FakeRuntime, number: int, what: str = "backup", *, active: bool = True) -> None:
    """Someone else works on a VM, or has ended."""
    runtime.clock.at_s += 0.01
    vm = runtime.view.vms[vm_id(number)]
    assert vm.owner
    runtime.dispatch(
        ev.ForeignJobSeen(
            at_s=runtime.clock.at_s,
            node=vm.owner,
            vm=vm.id,
            active=active,
            migration=what == "migration",
            what=what,
        )
    )

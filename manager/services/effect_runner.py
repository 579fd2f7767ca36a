"""Effects become port calls, their ends become events. Nothing is decided here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from manager.core import effects as fx
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import AbortFailed, EffectEnded, Event, TimerFired, TuneFailed
from manager.core.ids import NodeId
from manager.services.node_session import NodeSession
from manager.services.ports import Clock, Hypervisor
from manager.services.resource_reader import ResourceReader
from manager.services.tasks import Tasks

log = logging.getLogger(__name__)

E = TypeVar("E", fx.AbortMigration, fx.TuneMigration)
Call = Callable[[], Coroutine[Any, Any, None]]
"""A port call not yet made, so that a task that ends before its first step leaves nothing unawaited."""


class EffectRunner:
    """Carries out the effects of one cluster. Loop thread only."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        clock: Clock,
        dispatch: Callable[[Event], None],
        sessions: dict[NodeId, NodeSession],
        resources: ResourceReader,
        tasks: Tasks,
    ) -> None:
        self._hypervisor = hypervisor
        self._clock = clock
        self._dispatch = dispatch
        self._sessions = sessions
        self._resources = resources
        self._tasks = tasks
        self._timers: dict[str, asyncio.Task[Any]] = {}

    def start(self, effect: fx.Effect) -> None:
        """Begin one effect; returns at once."""
        match effect:
            case fx.ReadNode(node=node, soon=soon):
                self._sessions[node].read_again(soon=soon)
            case fx.ReadVm(node=node, vm=vm):
                self._sessions[node].read_vm_again(vm)
            case fx.ReadNotes(node=node):
                self._sessions[node].read_notes_again()
            case fx.ReadResources(node=node):
                self._resources.read_soon(node)
            case fx.SetTimer(key=key):
                self._drop_timer(key)
                self._timers[key] = self._tasks.spawn(self._timer(effect), f"timer {key}")
            case fx.CancelTimer(key=key):
                self._drop_timer(key)
            case fx.AbortMigration():
                self._tasks.spawn(
                    self._aside(effect, self._hypervisor.abort, AbortFailed), f"abort {effect.vm}"
                )
            case fx.TuneMigration():
                failed = partial(TuneFailed, tune=effect)
                self._tasks.spawn(self._aside(effect, self._hypervisor.tune, failed), f"tune {effect.vm}")
            case fx.ChangeVm():
                self._spawn(effect, partial(self._hypervisor.change_vm, effect))
            case fx.StartMigration():
                self._spawn(effect, partial(self._hypervisor.migrate, effect))
            case fx.SaveToFile():
                self._spawn(effect, partial(self._hypervisor.save_to_file, effect))
            case fx.RestoreFromFile():
                self._spawn(effect, partial(self._hypervisor.restore_from_file, effect))
            case fx.CopyDefinition():
                self._spawn(effect, partial(self._hypervisor.copy_definition, effect))
            case fx.ForgetDefinition():
                self._spawn(effect, partial(self._hypervisor.forget_definition, effect))
            case fx.CopyDisks():
                self._spawn(effect, partial(self._hypervisor.copy_disks, effect))
            case fx.CheckPeerLogin():
                self._spawn(effect, partial(self._hypervisor.check_peer, effect))
            case fx.WriteVmSettings():
                self._spawn(effect, partial(self._hypervisor.write_settings, effect))
            case fx.NoteDrained():
                self._spawn(effect, partial(self._hypervisor.note_drained, effect))
            case fx.HoldNode():
                self._spawn(effect, partial(self._hypervisor.hold_node, effect))
            case fx.ReleaseNode():
                self._spawn(effect, partial(self._hypervisor.release_node, effect))
            case fx.EditVm():
                self._spawn(effect, partial(self._hypervisor.edit_vm, effect))
            case _:
                raise TypeError(f"nobody carries out {type(effect).__name__}")

    def _spawn(self, effect: fx.OperationEffect, call: Call) -> None:
        what = effect.vm if isinstance(effect, fx.VmEffect) else effect.node
        self._tasks.spawn(self._watch(effect, call), f"{type(effect).__name__} {what}")

    async def _watch(self, effect: fx.OperationEffect, call: Call) -> None:
        failure = await self._failure_of(effect, call)
        self._dispatch(
            EffectEnded(
                at_s=self._clock.now_s(),
                trace=effect.trace,
                operation=effect.operation,
                attempt=effect.attempt,
                failure=failure,
            )
        )

    async def _aside(
        self,
        effect: E,
        call: Callable[[E], Coroutine[Any, Any, None]],
        failed: Callable[..., AbortFailed | TuneFailed],
    ) -> None:
        """A call beside a running move, whose own end tells what came of it; only its failure is told."""
        failure = await self._failure_of(effect, partial(call, effect))
        if failure is not None:
            self._dispatch(
                failed(
                    at_s=self._clock.now_s(),
                    trace=effect.trace,
                    operation=effect.operation,
                    attempt=effect.attempt,
                    failure=failure,
                )
            )

    async def _failure_of(self, effect: fx.OperationEffect, call: Call) -> Failure | None:
        try:
            await call()
        except OperationError as error:
            return error.failure
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A bug of an adapter must not leave an operation without an end.
            log.exception("%s failed in an unforeseen way", type(effect).__name__)
            return Failure(
                code=FailureCode.OTHER,
                text=f"{type(error).__name__}: {error}",
                node=effect.node,
                vm=effect.vm if isinstance(effect, fx.VmEffect) else None,
            )
        return None

    def _drop_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()

    async def _timer(self, effect: fx.SetTimer) -> None:
        await self._clock.sleep(effect.at_s - self._clock.now_s())
        self._timers.pop(effect.key, None)
        self._dispatch(TimerFired(at_s=self._clock.now_s(), trace=effect.trace, key=effect.key))

"""One node: connect, register, read, stay current, come back. A node that hangs costs itself only."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    NodeConnected,
    NodeConnectFailed,
    NodeConnecting,
    NodeLost,
)
from manager.core.ids import NodeId, VmId
from manager.core.model import NodeConfig
from manager.services.ports import Clock, Hypervisor

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
JITTER = 0.3
QUIET_S = 0.1
"""How long requests to read again are gathered before one read answers them all."""

_FINAL = frozenset({FailureCode.LOGIN, FailureCode.INCOMPATIBLE})
"""Failures that the same try would meet again: the user is asked to act, then to try again."""

_GONE = frozenset({FailureCode.UNREACHABLE, FailureCode.TIMEOUT})

HINTS = {
    FailureCode.LOGIN: "Check the user, the key, the certificate or the password; "
    "the libvirt group or polkit may have to allow it.",
    FailureCode.UNREACHABLE: "Check that the host is on, that its name resolves, "
    "and that its libvirt daemon runs.",
    FailureCode.TIMEOUT: "Nothing answers in time: the host may be off or behind a firewall, "
    "or its libvirt daemon hangs.",
    FailureCode.INCOMPATIBLE: "Check the connection's URI.",
}
"""What to try, by kind of failure; shown beside libvirt's own words."""


class NodeSession:
    """Keeps one node's part of the state current. Loop thread only."""

    def __init__(
        self,
        *,
        config: NodeConfig,
        hypervisor: Hypervisor,
        clock: Clock,
        dispatch: Callable[[Event], None],
        dispatch_in_turn: Callable[[Event], Awaitable[None]],
        unread: Callable[[NodeId], Iterable[VmId]],
    ) -> None:
        self._config = config
        self._hypervisor = hypervisor
        self._clock = clock
        self._dispatch = dispatch
        self._dispatch_in_turn = dispatch_in_turn
        self._unread = unread
        self._wake = asyncio.Event()
        self._again = asyncio.Event()  # the user wants a new try now
        self._read_due = False
        self._lost: Failure | None = None
        self._connected = False
        self._due: dict[VmId, None] = {}
        self._listed = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def node(self) -> NodeId:
        """The node's name."""
        return self._config.name

    async def listed(self) -> None:
        """Return once the inventory was read, or the first attempt failed; definitions may follow."""
        await self._listed.wait()

    async def settled(self) -> None:
        """Return once the first attempt has ended: all was read, or it failed."""
        await self._settled.wait()

    def _over(self) -> None:
        self._listed.set()
        self._settled.set()

    def read_again(self) -> None:
        """Read the inventory soon."""
        self._read_due = True
        self._wake.set()

    def read_vm_again(self, vm: VmId) -> None:
        """Read one definition soon."""
        self._due[vm] = None
        self._wake.set()

    def lost(self, failure: Failure) -> None:
        """The adapter saw the connection close."""
        if self._connected and self._lost is None:
            self._lost = failure
            self._wake.set()

    def try_now(self) -> None:
        """Do not wait for the next attempt; on a connected node, read it again."""
        self._again.set()
        if self._connected:
            self.read_again()

    async def run(self) -> None:
        """Connect and stay connected, until cancelled."""
        pause_s = FIRST_RETRY_S
        while True:
            self._dispatch(NodeConnecting(at_s=self._clock.now_s(), node=self.node))
            self._lost = None
            try:
                facts = await self._hypervisor.connect(self._config)
            except OperationError as error:
                pause_s = await self._failed(error.failure, pause_s)
                continue
            pause_s = FIRST_RETRY_S
            self._connected = True
            self._dispatch(NodeConnected(at_s=self._clock.now_s(), node=self.node, facts=facts))
            failure = await self._stay()
            self._connected = False
            await self._hypervisor.disconnect(self.node)
            now_s = self._clock.now_s()
            self._dispatch(NodeLost(at_s=now_s, node=self.node, failure=failure, retry_at_s=now_s + pause_s))
            self._over()
            await self._pause(pause_s)

    async def _failed(self, failure: Failure, pause_s: float) -> float:
        """Tell of a failed attempt and wait for the next; returns the pause after that one."""
        wait_s = pause_s * random.uniform(1 - JITTER, 1 + JITTER)
        final = failure.code in _FINAL
        now_s = self._clock.now_s()
        self._dispatch(
            NodeConnectFailed(
                at_s=now_s,
                node=self.node,
                failure=failure,
                hint=HINTS.get(failure.code, ""),
                retry_at_s=None if final else now_s + wait_s,
            )
        )
        self._over()
        if final:
            self._again.clear()
            await self._again.wait()
            return FIRST_RETRY_S
        await self._pause(wait_s)
        return min(pause_s * 2, LAST_RETRY_S)

    async def _pause(self, seconds: float) -> None:
        """Wait for the next try, or until the user wants it now."""
        self._again.clear()
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        again = asyncio.ensure_future(self._again.wait())
        try:
            await asyncio.wait({sleep, again}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            again.cancel()

    async def _stay(self) -> Failure:
        """Read, sweep, read again when asked; returns why the connection ended."""
        unreadable: set[VmId] = set()
        self._due.clear()
        self._read_due = True
        while True:
            if self._lost is not None:
                return self._lost
            try:
                if self._read_due:
                    self._read_due = False
                    read = await self._hypervisor.read_inventory(self.node)
                    await self._dispatch_in_turn(read)
                    self._listed.set()
                    for vm in self._unread(self.node):
                        if vm not in unreadable:
                            self._due.setdefault(vm)
                elif self._due:
                    vm = next(iter(self._due))
                    del self._due[vm]
                    await self._read_vm(vm, unreadable)
                else:
                    self._settled.set()
                    await self._wake.wait()
                    self._wake.clear()
                    await self._clock.sleep(QUIET_S)
            except OperationError as error:
                if error.failure.code in _GONE:
                    return error.failure
                log.warning("%s: inventory not read: %s", self.node, error)
                self._over()
                await self._clock.sleep(FIRST_RETRY_S)

    async def _read_vm(self, vm: VmId, unreadable: set[VmId]) -> None:
        try:
            self._dispatch(await self._hypervisor.read_vm(self.node, vm))
            unreadable.discard(vm)
        except OperationError as error:
            if error.failure.code in _GONE:
                raise
            unreadable.add(vm)
            log.info("%s: definition of %s not read: %s", self.node, vm, error)

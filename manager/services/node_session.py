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
    VmAuthoritySeen,
)
from manager.core.ids import NodeId, VmId
from manager.core.model import NodeConfig, Pacemaker
from manager.services.ports import Clock, Hypervisor
from manager.services.tasks import Tasks

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
JITTER = 0.3
QUIET_S = 0.1
"""How long requests to read again are gathered before one read answers them all."""

CONFIRM_S = 2.0
"""How long after a read the next one is made that nobody waits for: events tell what happens meanwhile."""

ASK_OFTEN_S = 60.0
"""How often a node with Pacemaker is asked which VMs are its own, besides when the user reads again."""

ASK_SELDOM_S = 600.0
"""How often the others are: one that had no Pacemaker may have it now."""

ANSWER_PATIENCE_S = 2.0
"""How long a node's VMs are held back for the first answer; without it they are shown, and left alone."""

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
        tasks: Tasks,
    ) -> None:
        self._config = config
        self._hypervisor = hypervisor
        self._clock = clock
        self._dispatch = dispatch
        self._dispatch_in_turn = dispatch_in_turn
        self._unread = unread
        self._tasks = tasks
        self._wake = asyncio.Event()
        self._again = asyncio.Event()  # the user wants a new try now
        self._read_due = False
        self._confirm_due = False  # the same, but nobody waits for it
        self._read_s = float("-inf")  # when the inventory was read last
        self._lost: Failure | None = None
        self._connected = False
        self._ask = asyncio.Event()  # whose the VMs are, now
        self._answered = asyncio.Event()  # for the first time on this connection
        self._told = Pacemaker.NONE  # what the node said last
        self._holds_back = False  # its VMs are said to be perhaps Pacemaker's
        self._due: dict[VmId, None] = {}
        self._notes_due = False
        self._listed = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def node(self) -> NodeId:
        """The node's name."""
        return self._config.name

    async def listed(self) -> None:
        """Return once the inventory was read, or the first attempt failed; definitions may follow."""
        await self._listed.wait()
        await self._owned()

    async def settled(self) -> None:
        """Return once the first attempt has ended: all was read, or it failed."""
        await self._settled.wait()
        await self._owned()

    async def _owned(self) -> None:
        """Return once it is known whose the VMs are, or the first question was given up."""
        if self._connected:
            await self._answered.wait()

    def is_read(self, *, definitions: bool) -> bool:
        """Whether `settled` (else `listed`) would return at once."""
        is_owned = not self._connected or self._answered.is_set()
        return is_owned and (self._settled if definitions else self._listed).is_set()

    def _over(self) -> None:
        self._listed.set()
        self._settled.set()

    def read_again(self, *, soon: bool = True) -> None:
        """Read the inventory: soon, or if nobody waits for it, when the last read was a while ago."""
        if soon:
            self._read_due = True
        elif self._confirm_due:
            return  # it is on its way: of a burst of events only the first wakes anything
        else:
            self._confirm_due = True
        self._wake.set()

    def read_vm_again(self, vm: VmId) -> None:
        """Read one definition soon."""
        self._due[vm] = None
        self._wake.set()

    def read_notes_again(self) -> None:
        """Read soon who holds the node."""
        self._notes_due = True
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
            self._ask.set()
            self._notes_due = True
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
            self._answered.clear()
            asking = self._tasks.spawn(self._keep_asking(), f"authority on {self.node}")
            try:
                failure = await self._stay()
            finally:
                asking.cancel()
                self._answered.set()
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
        await self._wait(self._again, seconds)

    async def _wait(self, wanted: asyncio.Event, seconds: float) -> None:
        """Wait for it, but no longer than that."""
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        heard = asyncio.ensure_future(wanted.wait())
        try:
            await asyncio.wait({sleep, heard}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            heard.cancel()

    async def _keep_asking(self) -> None:
        """Ask whose the VMs are, now and then: no event tells when that changes."""
        while True:
            self._ask.clear()
            seen, is_last = None, False
            try:
                seen = await self._hypervisor.read_authority(self.node)
                is_last = seen is None
            except OperationError as error:
                log.info("%s: not known whether Pacemaker has VMs there: %s", self.node, error)
            if seen is not None:
                self._told = seen.pacemaker
                self._dispatch(seen)
            elif self._holds_back:
                self._say(self._told)
            self._holds_back = False
            self._answered.set()
            if is_last:
                return
            await self._wait(self._ask, ASK_SELDOM_S if self._told is Pacemaker.NONE else ASK_OFTEN_S)

    async def _await_answer(self) -> None:
        """Wait a little for the first answer; without one no VM is to look like ours until there is."""
        await self._wait(self._answered, ANSWER_PATIENCE_S)
        if not self._answered.is_set() and self._told is not Pacemaker.RUNS:
            self._holds_back = True
            self._say(Pacemaker.ASKED)

    def _say(self, pacemaker: Pacemaker) -> None:
        self._dispatch(VmAuthoritySeen(at_s=self._clock.now_s(), node=self.node, pacemaker=pacemaker))

    async def _stay(self) -> Failure:
        """Read, sweep, read again when asked; returns why the connection ended."""
        unreadable: set[VmId] = set()
        self._due.clear()
        self._read_due = self._notes_due = True
        while True:
            if self._lost is not None:
                return self._lost
            try:
                if self._notes_due:  # before the node is up: nobody may think that it takes VMs
                    self._notes_due = False
                    await self._read_notes()
                elif self._read_due or (self._confirm_due and self._until_confirmed_s() <= 0.0):
                    self._read_due = self._confirm_due = False
                    self._read_s = self._clock.monotonic_s()
                    read = await self._hypervisor.read_inventory(self.node)
                    if not self._answered.is_set():
                        await self._await_answer()
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
                    if self._confirm_due:
                        await self._wait(self._wake, self._until_confirmed_s())
                    else:
                        await self._wake.wait()
                    self._wake.clear()
                    await self._clock.sleep(QUIET_S)
            except OperationError as error:
                if error.failure.code in _GONE:
                    return error.failure
                log.warning("%s: inventory not read: %s", self.node, error)
                self._over()
                await self._clock.sleep(FIRST_RETRY_S)

    async def _read_notes(self) -> None:
        try:
            self._dispatch(await self._hypervisor.read_notes(self.node))
        except OperationError as error:
            if error.failure.code in _GONE:
                raise
            if error.failure.code is not FailureCode.NOT_SUPPORTED:
                log.warning("%s: not known whether somebody holds it: %s", self.node, error)

    def _until_confirmed_s(self) -> float:
        return self._read_s + CONFIRM_S - self._clock.monotonic_s()

    async def _read_vm(self, vm: VmId, unreadable: set[VmId]) -> None:
        try:
            self._dispatch(await self._hypervisor.read_vm(self.node, vm))
            unreadable.discard(vm)
        except OperationError as error:
            if error.failure.code in _GONE:
                raise
            unreadable.add(vm)
            log.info("%s: definition of %s not read: %s", self.node, vm, error)

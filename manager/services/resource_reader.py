"""Pools and networks of the nodes, read beside everything else: slowly, on news, if someone follows."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterState
from manager.core.errors import OperationError, UserError
from manager.core.events import Event
from manager.core.ids import Kind, NodeId, PoolId
from manager.core.resource_facts import Volume
from manager.core.resources import with_users
from manager.services.ports import Clock, Hypervisor
from manager.services.tasks import Tasks

log = logging.getLogger(__name__)

SHOWN_S = 60.0
"""How often a node is asked while somebody looks at storage or networks."""

FOLLOWED_S = 600.0
"""How often otherwise, as long as a window is open."""

QUIET_S = 1.0
"""How long news are gathered before one read answers them all; a node that has come has so long, too."""


class ResourceReader:
    """Asks each node that is up, one call at a time, once somebody follows. Loop thread only."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        clock: Clock,
        state: ClusterState,
        dispatch_in_turn: Callable[[Event], Awaitable[None]],
        tasks: Tasks,
    ) -> None:
        self._hypervisor = hypervisor
        self._clock = clock
        self._state = state
        self._dispatch_in_turn = dispatch_in_turn
        self._tasks = tasks
        self._followed = False
        self._shown: set[str] = set()
        self._read_s: dict[NodeId, float] = {}  # when each was last asked on this connection
        self._busy: set[NodeId] = set()
        self._wake = asyncio.Event()

    def follow(self) -> None:
        """Keep what is known current from now on, slowly."""
        if not self._followed:
            self._followed = True
            self._tasks.spawn(self._run(), "resources")

    def want(self, who: str, wanted: bool) -> None:
        """A page that shows them asks for fresh figures, or stops asking."""
        (self._shown.add if wanted else self._shown.discard)(who)
        self._wake.set()

    def read_soon(self, node: NodeId | None = None) -> None:
        """A node said that something changed, or the user wants it read again; None: every node."""
        for name in self._state.nodes if node is None else (node,):
            self._read_s.pop(name, None)
        self._wake.set()

    def look(self, changes: ChangeSet) -> None:
        """Nodes may have come or gone: called after every change."""
        if any("status" in names for names in changes[Kind.NODE].updated.values()):
            for node in self._state.nodes.values():
                if not node.is_up:
                    self._read_s.pop(node.id, None)
            self._wake.set()

    async def read_all(self) -> None:
        """Read every node that is up, now; those that fail stay as they are. The calls have deadlines."""
        await asyncio.gather(*(self._read(n.id) for n in self._state.nodes.values() if n.is_up))

    async def volumes(self, pool: PoolId, node: NodeId | None = None) -> tuple[NodeId, tuple[Volume, ...]]:
        """What is in a pool, with the VMs that use it, and the node that was asked.

        Args:
            pool: Of the cluster.
            node: Ask this one; None: the first that can use the pool.

        Raises:
            UserError: No node that is up can use it.
            OperationError: The host refused, or did not answer in time.
        """
        seen = self._state.resources.pool_at(pool)
        nodes = self._state.nodes
        able = [n for n, at in seen.items() if nodes[n].is_up and at.state.is_usable and node in (None, n)]
        if not able:
            raise UserError("No node that is up has this pool active.")
        asked = min(able)
        read = await self._hypervisor.read_volumes(asked, seen[asked].name)
        await self._dispatch_in_turn(read)
        return asked, with_users(self._state, pool, read.volumes)

    def ask_volumes(
        self, pool: PoolId, told: Callable[[NodeId | None, tuple[Volume, ...], str], None]
    ) -> None:
        """As `volumes`, for who cannot wait: `told` is given node and volumes, or why there are none."""

        async def ask() -> None:
            try:
                node, found = await self.volumes(pool)
            except (OperationError, UserError) as error:
                told(None, (), str(error))
            else:
                told(node, found, "")

        self._tasks.spawn(ask(), f"volumes of {pool}")

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            now_s = self._clock.monotonic_s()
            every_s = SHOWN_S if self._shown else FOLLOWED_S
            next_s = math.inf
            for node in self._state.nodes.values():
                due_s = self._read_s.get(node.id, -math.inf) + every_s
                if not node.is_up or (due_s <= now_s and node.id in self._busy):
                    continue  # its coming, or the end of its call, wakes us
                if due_s <= now_s:
                    self._read_s[node.id] = now_s
                    self._busy.add(node.id)
                    self._tasks.spawn(self._read_one(node.id), f"resources of {node.id}")
                    due_s = now_s + every_s
                next_s = min(next_s, due_s)
            await self._wait(next_s - now_s)

    async def _wait(self, seconds: float) -> None:
        """Until the next node is due, or something happens; then a little, for what comes with it."""
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._wake.wait())}
        if seconds < math.inf:
            waits.add(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._wake.is_set():
            await self._clock.sleep(QUIET_S)

    async def _read_one(self, node: NodeId) -> None:
        try:
            await self._read(node)
        finally:
            self._busy.discard(node)
            self._wake.set()  # it may be due again: news came meanwhile

    async def _read(self, node: NodeId) -> None:
        try:
            await self._dispatch_in_turn(await self._hypervisor.read_resources(node))
        except OperationError as error:
            log.info("%s: pools and networks not read: %s", node, error)

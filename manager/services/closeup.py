"""What is asked of one VM's node only while somebody looks: its screen, console, definition, snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from manager.core.cluster import ClusterView
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import NodeId, VmId
from manager.core.model import Snapshot
from manager.services.ports import Console, Hypervisor
from manager.services.tasks import Tasks


class Closeup:
    """Asks the node that has a VM. Nothing of it is kept. Loop thread only.

    Every method raises `OperationError`.
    """

    def __init__(self, hypervisor: Hypervisor, view: ClusterView, tasks: Tasks) -> None:
        self._hypervisor = hypervisor
        self._view = view
        self._tasks = tasks

    def spawn(self, wait: Coroutine[Any, Any, None], who: str) -> asyncio.Task[None]:
        """Wait for an answer beside everything else, until the cluster is closed at the latest."""
        return self._tasks.spawn(wait, f"closeup of {who}")

    async def screenshot(self, vm: VmId) -> bytes:
        """The screen of a VM that runs, as a PNG."""
        return await self._hypervisor.screenshot(self._node(vm), vm)

    async def open_console(self, vm: VmId, *, take_over: bool = False) -> Console:
        """The serial console of a VM that runs; `take_over` takes it from whoever has it open."""
        return await self._hypervisor.open_console(self._node(vm), vm, take_over=take_over)

    async def definition(self, vm: VmId) -> str:
        """The VM's definition as it is now, as XML, without secrets."""
        return await self._hypervisor.read_definition(self._node(vm), vm)

    async def snapshots(self, vm: VmId) -> tuple[Snapshot, ...]:
        """The VM's snapshots, the oldest first."""
        return await self._hypervisor.read_snapshots(self._node(vm), vm)

    def _node(self, vm: VmId) -> NodeId:
        row = self._view.vms.get(vm)
        if row is None or row.owner is None:
            raise OperationError(Failure(code=FailureCode.NOT_FOUND, text="no node has it any more", vm=vm))
        node = self._view.nodes.get(row.owner)
        if node is None or not node.is_up:
            text = f"node {row.owner} cannot be reached"
            raise OperationError(Failure(code=FailureCode.UNREACHABLE, text=text, node=row.owner, vm=vm))
        return row.owner

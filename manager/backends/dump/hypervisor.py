"""`Hypervisor` on a dump: answers what was asked before, and does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from manager.core.dump import ClusterDump, DumpedNode
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    NodeInventoryRead,
    NodeLost,
    NodeNotesRead,
    NodeResourcesRead,
    NodeSampled,
    PoolVolumesRead,
    SeenVm,
    VmAuthoritySeen,
    VmConfigRead,
)
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import NodeConfig, NodeFacts, NodeLoad, Snapshot
from manager.services.ports import Clock


class DumpHypervisor:
    """A dump's nodes. Loop thread only."""

    def __init__(self, dump: ClusterDump, clock: Clock) -> None:
        self._nodes = {node.name: node for node in dump.nodes}
        self._vms = {(node.name, seen.vm): seen for node in dump.nodes for seen in node.vms}
        self._clock = clock
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._unread = {  # of nodes that were lost: they are lost again once all of it was told
            node.name: {seen.vm for seen in node.vms if seen.config is not None}
            for node in dump.nodes
            if node.why and node.facts is not None
        }

    async def connect(self, node: NodeConfig) -> NodeFacts:
        """What it said of itself. One that was lost when the dump was made is so again in a moment."""
        found = self._nodes.get(node.name)
        was_lost = found is not None and found.why and node.name not in self._unread
        if found is None or found.facts is None or was_lost:
            why = found.why if found is not None else "it is not in the dump"
            raise OperationError(Failure(code=FailureCode.UNREACHABLE, text=why, node=node.name))
        return replace(found.facts, read_only=False)  # planning is what a dump is for

    async def disconnect(self, node: NodeId) -> None:
        """Nothing to drop."""

    async def read_inventory(self, node: NodeId) -> NodeInventoryRead:
        """The node's VMs as they were."""
        now_s = self._clock.now_s()
        vms = tuple(
            SeenVm(
                vm=seen.vm,
                name=seen.name,
                status=seen.status,
                cause=seen.cause,
                incarnation=seen.incarnation,
                shutting_down=seen.shutting_down,
                started_s=seen.started_at_s,
            )
            for seen in self._node(node).vms
        )
        self._lose(node)
        return NodeInventoryRead(at_s=now_s, node=node, started_s=now_s, vms=vms)

    async def read_vm(self, node: NodeId, vm: VmId) -> VmConfigRead:
        """A definition, where it had been read."""
        seen = self._vms.get((node, vm))
        if seen is None or seen.config is None:
            raise _no_host(node, vm)
        self._lose(node, vm)
        return VmConfigRead(at_s=self._clock.now_s(), node=node, vm=vm, config=seen.config)

    async def read_authority(self, node: NodeId) -> VmAuthoritySeen | None:
        """Not in a dump."""
        return None

    async def read_notes(self, node: NodeId) -> NodeNotesRead:
        """Who held the node."""
        now_s = self._clock.now_s()
        return NodeNotesRead(at_s=now_s, node=node, started_s=now_s, holds=self._node(node).holds)

    async def read_resources(self, node: NodeId) -> NodeResourcesRead:
        """Pools and networks as they were."""
        found = self._node(node)
        return NodeResourcesRead(
            at_s=self._clock.now_s(),
            node=node,
            pools=found.pools,
            networks=found.networks,
            interfaces=found.interfaces,
        )

    async def sample(self, node: NodeId, *, disks: bool = False) -> NodeSampled:
        """The loads of that moment."""
        found = self._node(node)
        load = found.load or NodeLoad()
        return NodeSampled(at_s=self._clock.now_s(), node=node, load=load, vms=found.vm_loads)

    async def read_snapshots(self, node: NodeId, vm: VmId) -> tuple[Snapshot, ...]:
        """Not in a dump."""
        raise _no_host(node, vm)

    async def read_volumes(self, node: NodeId, pool: str) -> PoolVolumesRead:
        """Not in a dump."""
        raise _no_host(node)

    async def job_progress(self, node: NodeId, vm: VmId, operation: OperationId, attempt: int) -> None:
        """Nothing runs."""

    async def have_jobs(self, node: NodeId, vms: Sequence[VmId]) -> frozenset[VmId]:
        """Nothing runs."""
        return frozenset()

    async def _refuse(self, *what: Any, **how: Any) -> NoReturn:
        """There is no host."""
        node = getattr(what[0], "node", what[0])
        raise _no_host(node, getattr(what[0], "vm", None))

    read_definition = screenshot = open_console = _refuse
    change_vm = migrate = abort = tune = save_to_file = restore_from_file = _refuse
    hold_node = release_node = note_drained = _refuse
    copy_definition = forget_definition = copy_disks = check_peer = write_settings = edit_vm = _refuse

    async def events(self) -> AsyncIterator[Event]:
        """Only that nodes are lost which were."""
        while (event := await self._events.get()) is not None:
            yield event

    async def close(self) -> None:
        """End `events`."""
        self._events.put_nowait(None)

    def _lose(self, node: NodeId, read: VmId | None = None) -> None:
        """A node that was lost is so again, once the last of its VMs was read."""
        left = self._unread.get(node)
        if left is None:
            return
        left.discard(read or VmId(""))
        if not left:
            del self._unread[node]
            failure = Failure(code=FailureCode.UNREACHABLE, text=self._nodes[node].why, node=node)
            now_s = self._clock.now_s()
            self._events.put_nowait(NodeLost(at_s=now_s, node=node, failure=failure, retry_at_s=None))

    def _node(self, node: NodeId) -> DumpedNode:
        found = self._nodes.get(node)
        if found is None:
            raise _no_host(node)
        return found


def _no_host(node: NodeId, vm: VmId | None = None) -> OperationError:
    text = "this is a dump: there is no host that could be asked"
    return OperationError(Failure(code=FailureCode.NOT_SUPPORTED, text=text, node=node, vm=vm))

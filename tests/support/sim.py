"""A small simulated cluster on a virtual clock, and ways to let its time pass.

async with small_cluster(vms={"n1": ("a", "b"), "n2": ("c",)}) as sim:
    await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
    assert sim.node_of("a") == "n2"
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from manager.backends.sim.faults import Faults
from manager.backends.sim.hosts import Guest, SimNode, SimVm
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.virtual_clock import VirtualClock
from manager.backends.sim.world import SimWorld
from manager.core.effects import (
    AbortMigration,
    ChangeVm,
    CheckPeerLogin,
    CopyDefinition,
    CopyDisks,
    ForgetDefinition,
    RestoreFromFile,
    SaveToFile,
    StartMigration,
    TuneMigration,
    VmChange,
    WriteVmSettings,
)
from manager.core.errors import Failure, OperationError
from manager.core.events import Event, VmStateChanged
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.model import (
    ClusterConfig,
    Convergence,
    Disk,
    Interface,
    NodeConfig,
    PeerRoute,
    Tier,
    VmConfig,
    VmSettings,
    VmStatus,
)

T = TypeVar("T")

WHO: dict[str, Any] = {"trace": TraceId("t"), "operation": OperationId("o"), "attempt": 1}
"""The fields of an effect that say whose it is."""


async def until(clock: VirtualClock, condition: Callable[[], bool], limit_s: float = 600.0) -> None:
    """Let time pass, from one thing that happens to the next, until the condition holds.

    Raises:
        AssertionError: if it does not hold within `limit_s` of virtual time, or nothing more will happen.
    """
    end_s = clock.monotonic_s() + limit_s
    await clock.settle()
    while not condition():
        assert clock.next_s < math.inf, "nothing more will happen, and the condition does not hold"
        assert clock.next_s <= end_s, f"the condition does not hold after {limit_s} s"
        await clock.advance(clock.next_s - clock.monotonic_s())


async def run(clock: VirtualClock, call: Coroutine[Any, Any, T], limit_s: float = 600.0) -> T:
    """The result of a call that takes virtual time."""
    task = asyncio.get_running_loop().create_task(call)
    try:
        await until(clock, task.done, limit_s)
    finally:
        task.cancel()
    return await task


def make_config(name: str, *, memory_mib: int = 2048, **fields: Any) -> VmConfig:
    """An ordinary definition: one shared disk, one bridge, an agent channel."""
    values: dict[str, Any] = {
        "memory_mib": memory_mib,
        "vcpus": 2,
        "disks": (Disk(target="vda", source=f"/srv/vms/{name}.qcow2", format="qcow2", cache="none"),),
        "interfaces": (Interface(mac="52:54:00:00:00:01", kind="bridge", source="br0"),),
        "agent_channel": True,
    }
    return VmConfig(**(values | fields))


def make_id(name: str) -> VmId:
    """A UUID that tells whose it is."""
    return VmId(f"00000000-0000-4000-8000-{name.encode().hex()[-12:]:0>12}")


@dataclass(slots=True, kw_only=True)
class SmallCluster:
    """A world, a program connected to all its hosts, and what the program was told."""

    clock: VirtualClock
    world: SimWorld
    hypervisor: SimHypervisor
    faults: Faults
    config: ClusterConfig
    seen: list[Event] = field(default_factory=list)

    async def run(self, call: Coroutine[Any, Any, T], limit_s: float = 600.0) -> T:
        """The result of a call that takes virtual time."""
        return await run(self.clock, call, limit_s)

    async def failure(self, call: Coroutine[Any, Any, Any], limit_s: float = 600.0) -> Failure:
        """The failure of a call that must fail."""
        try:
            result = await self.run(call, limit_s)
        except OperationError as error:
            return error.failure
        raise AssertionError(f"it did not fail: {result!r}")

    def begin(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A call that goes on while the test does something else."""
        return asyncio.get_running_loop().create_task(call)

    async def until(self, condition: Callable[[], bool], limit_s: float = 600.0) -> None:
        """Let time pass until the condition holds."""
        await until(self.clock, condition, limit_s)

    def id(self, name: str) -> VmId:
        """A VM's UUID."""
        return make_id(name)

    def at(self, name: str, node: str) -> SimVm | None:
        """A VM as one node has it."""
        return self.world.nodes[NodeId(node)].vms.get(make_id(name))

    def vm(self, name: str) -> SimVm:
        """A VM where it runs, or else wherever it is defined."""
        copies = list(self.world.copies(make_id(name)))
        return max(copies, key=lambda copy: (copy.status is VmStatus.RUNNING, copy.runs))

    def node_of(self, name: str) -> str:
        """Where a VM runs, or is defined."""
        return self.vm(name).node.id

    def change(self, name: str, change: VmChange) -> ChangeVm:
        """The effect that changes a VM where it is."""
        return ChangeVm(**WHO, vm=make_id(name), node=NodeId(self.node_of(name)), change=change)

    def move(self, name: str, *, to: str, **fields: Any) -> StartMigration:
        """The effect that moves a VM from where it is."""
        values: dict[str, Any] = {
            "route": PeerRoute.NODE_TO_NODE,
            "bandwidth_mib_s": 0,
            "unsafe": True,
            "convergence": Convergence(),
            "autostart": False,
        }
        return StartMigration(
            **WHO,
            vm=make_id(name),
            node=NodeId(self.node_of(name)),
            target=NodeId(to),
            **(values | fields),
        )

    def abort(self, name: str, *, node: str = "n1") -> AbortMigration:
        """The effect that cancels a VM's move from a node."""
        return AbortMigration(**WHO, vm=make_id(name), node=NodeId(node))

    def tune(self, name: str, *, node: str = "n1", **fields: Any) -> TuneMigration:
        """The effect that changes a VM's running move."""
        return TuneMigration(**WHO, vm=make_id(name), node=NodeId(node), **fields)

    def save(self, name: str, path: str = "/srv/vms/moving.save") -> SaveToFile:
        """The effect that saves a VM to a file."""
        return SaveToFile(**WHO, vm=make_id(name), node=NodeId(self.node_of(name)), path=path)

    def restore(self, name: str, node: str, path: str = "/srv/vms/moving.save") -> RestoreFromFile:
        """The effect that lets a VM run on from a file."""
        return RestoreFromFile(**WHO, vm=make_id(name), node=NodeId(node), path=path)

    def define(self, name: str, target: str, *, node: str = "n1", **fields: Any) -> CopyDefinition:
        """The effect that defines a VM on another node too."""
        values: dict[str, Any] = {"route": PeerRoute.NODE_TO_NODE, "autostart": False}
        return CopyDefinition(
            **WHO, vm=make_id(name), node=NodeId(node), target=NodeId(target), **(values | fields)
        )

    def forget(self, name: str, node: str = "n1") -> ForgetDefinition:
        """The effect that undefines a VM on a node."""
        return ForgetDefinition(**WHO, vm=make_id(name), node=NodeId(node))

    def copy_disks(self, name: str, pool: str, *disks: str, bandwidth_mib_s: int = 0) -> CopyDisks:
        """The effect that moves a VM's disks to another pool."""
        return CopyDisks(
            **WHO,
            vm=make_id(name),
            node=NodeId(self.node_of(name)),
            pool=pool,
            disks=disks or ("vda",),
            bandwidth_mib_s=bandwidth_mib_s,
        )

    def check(self, source: str, target: str) -> CheckPeerLogin:
        """The effect that tries a login between hosts."""
        return CheckPeerLogin(**WHO, vm=make_id("a"), node=NodeId(source), target=NodeId(target))

    def settings(self, name: str, settings: VmSettings) -> WriteVmSettings:
        """The effect that writes a VM's settings where it is."""
        return WriteVmSettings(**WHO, vm=make_id(name), node=NodeId(self.node_of(name)), settings=settings)

    def told(self, name: str) -> list[tuple[str, str, str]]:
        """(node, status, cause) of every lifecycle event of a VM, in the order in which they came."""
        return [
            (event.node, event.status.value, event.cause.value)
            for event in self.seen
            if isinstance(event, VmStateChanged) and event.vm == make_id(name)
        ]


def make_world(
    clock: VirtualClock,
    nodes: Sequence[str] = ("n1", "n2", "n3"),
    vms: Mapping[str, Sequence[str]] | None = None,
    *,
    memory_mib: int = 64 * 1024,
    vm_memory_mib: int = 2048,
    guest: Guest | None = None,
) -> SimWorld:
    """Hosts with running VMs, all alike."""
    world = SimWorld(clock)
    for index, name in enumerate(nodes):
        world.add_node(
            SimNode(
                id=NodeId(name),
                host_uuid=f"11111111-2222-4333-8444-{index:012}",
                memory_mib=memory_mib,
                connect_s=0.0,
            )
        )
    for node, names in (vms or {"n1": ("a", "b")}).items():
        for name in names:
            world.add_vm(
                world.nodes[NodeId(node)],
                make_id(name),
                name,
                make_config(name, memory_mib=vm_memory_mib),
                guest or Guest(),
                status=VmStatus.RUNNING,
            )
    return world


def config_of(world: SimWorld) -> ClusterConfig:
    """The cluster file of a world."""
    return ClusterConfig(
        name="small",
        tier=Tier.DEMO,
        nodes=tuple(NodeConfig(name=name, uri=f"sim://{name}/") for name in world.nodes),
        shared_paths=("/srv/vms",),
    )


@asynccontextmanager
async def small_cluster(
    nodes: Sequence[str] = ("n1", "n2", "n3"),
    vms: Mapping[str, Sequence[str]] | None = None,
    **fields: Any,
) -> AsyncIterator[SmallCluster]:
    """A small cluster with a program connected to all of its hosts; nothing of it may be left at the end.

    Args:
        nodes: the hosts' names.
        vms: names of running VMs by host; ``{"n1": ("a", "b")}`` if not given.
        **fields: further arguments of `make_world`.
    """
    before = asyncio.all_tasks()
    clock = VirtualClock()
    world = make_world(clock, nodes, vms, **fields)
    hypervisor = SimHypervisor(world)
    sim = SmallCluster(
        clock=clock, world=world, hypervisor=hypervisor, faults=Faults(world), config=config_of(world)
    )

    async def listen() -> None:
        async for event in hypervisor.events():
            sim.seen.append(event)

    listener = asyncio.get_running_loop().create_task(listen())
    for node in sim.config.nodes:
        await run(clock, hypervisor.connect(node))
    try:
        yield sim
    finally:
        await hypervisor.close()
        await clock.settle()
    assert listener.done(), "events() did not end after close"
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"
    assert not clock.sleepers, "somebody still sleeps"

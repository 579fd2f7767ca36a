"""What simulated hosts say of their pools, volumes, networks and interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from manager.backends.sim.hosts import DISK_BYTES, Pool, SimNode, refused
from manager.core.errors import FailureCode
from manager.core.resource_facts import PoolState, SeenInterface, SeenNetwork, SeenPool, Volume

if TYPE_CHECKING:
    from manager.backends.sim.world import SimWorld


@dataclass(frozen=True, slots=True)
class Found:
    """All of one host."""

    pools: tuple[SeenPool, ...]
    networks: tuple[SeenNetwork, ...]
    interfaces: tuple[SeenInterface, ...]


def of(node: SimNode) -> Found:
    """What a host has."""
    networks = tuple(
        SeenNetwork(
            name=name,
            is_active=name not in node.inactive,
            mode=network.mode,
            bridge=network.bridge,
            subnets=network.subnets,
            autostart=True,
        )
        for name, network in node.networks.items()
    )
    bridges = tuple(
        SeenInterface(name=name, kind="bridge", ports=tuple(nic.name for nic in node.nics[place : place + 1]))
        for place, name in enumerate(sorted(node.bridges))
    )
    return Found(tuple(_pool(node, name) for name in node.pools), networks, (*node.nics, *bridges))


def volumes(world: SimWorld, node: SimNode, name: str) -> tuple[SeenPool, tuple[Volume, ...]]:
    """What is in a pool. Raises `OperationError(STORAGE)`."""
    pool = node.pools.get(name)
    if pool is None:
        text = f"Storage pool not found: no storage pool with matching name '{name}'"
        raise refused(FailureCode.STORAGE, text, node=node.id)
    if name in node.inactive:
        text = f"Requested operation is not valid: storage pool '{name}' is not active"
        raise refused(FailureCode.STORAGE, text, node=node.id)
    nodes = world.nodes.values() if node.shares(f"{pool.path}/") else (node,)
    found: dict[str, Volume] = {}
    for vm in (vm for each in nodes for vm in each.vms.values()):
        for disk in vm.config.disks:
            if disk.source.rpartition("/")[0] == pool.path:
                capacity = disk.capacity_bytes or DISK_BYTES
                found[disk.source] = _volume(
                    pool, disk.source, disk.format, capacity, vm.disk_bytes((disk.target,))
                )
    for file, size in pool.files.items():
        path = f"{pool.path}/{file}"
        found.setdefault(path, _volume(pool, path, "iso" if file.endswith(".iso") else "raw", size, size))
    for owner, path in world.storage.left_behind:
        if owner in (None, node.id) and path.rpartition("/")[0] == pool.path:
            found.setdefault(path, _volume(pool, path, "qcow2", DISK_BYTES, DISK_BYTES))
    return _pool(node, name), tuple(sorted(found.values(), key=lambda volume: volume.name))


def _volume(pool: Pool, path: str, format: str, capacity: int, allocated: float) -> Volume:
    name = path.removeprefix(f"{pool.path}/")
    return Volume(
        id=path, name=name, path=path, format=format, capacity_bytes=capacity, allocated_bytes=int(allocated)
    )


def _pool(node: SimNode, name: str) -> SeenPool:
    pool, is_active = node.pools[name], name not in node.inactive
    return SeenPool(
        name=name,
        kind=pool.kind,
        state=PoolState.ACTIVE if is_active else PoolState.INACTIVE,
        format=pool.format,
        hosts=pool.hosts,
        source=pool.source,
        target=pool.path,
        capacity_bytes=pool.capacity_bytes if is_active else None,
        free_bytes=int(min(pool.free_bytes, pool.capacity_bytes)) if is_active else None,
        autostart=True,
    )

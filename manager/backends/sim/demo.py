"""The demo cluster: believable names, sizes, loads and troubles; the same for the same seed."""

from __future__ import annotations

import math
import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from manager.backends.sim.hosts import HOST_MEMORY_MIB, Guest, Pool, SimNetwork, SimNode, SimVm
from manager.backends.sim.moves import MoveFault
from manager.backends.sim.world import SimWorld
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError, UserError
from manager.core.ids import NodeId, VmId
from manager.core.model import (
    ClusterConfig,
    Disk,
    Interface,
    MigrationLimits,
    NodeConfig,
    Priority,
    Snapshot,
    StatusCause,
    Tier,
    VmConfig,
    VmSettings,
    VmStatus,
)
from manager.core.resource_facts import SeenInterface
from manager.core.units import GIB
from manager.services.ports import Clock

MAX_NODES = 64
MAX_VMS = 64_000

_SIZE = re.compile(r"(\d{1,6})[x×](\d{1,6})", re.IGNORECASE)
_CAP_MIB_S = 400  # of a move
_VMS_PER_TROUBLE = 400  # in a big cluster each kind of trouble comes once in so many VMs
_LIFE_S = (20.0, 60.0)  # between two events of a lively cluster's own life
_BACKUP_S = (30.0, 75.0)  # how long someone's backup takes, and how long until the next one
_SHARED = "/srv/vms"
_ARCHIVE = "/srv/archive"
_IMAGES = "/srv/iso"
_LOCAL = "/var/lib/libvirt/images"


def parse_size(text: str) -> tuple[int, int]:
    """Nodes and VMs from ``4x40``.

    Raises:
        UserError: if the text is not of that form or out of range.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UserError(f"--demo {text!r}: needs NODESxVMS, for example 4x40 or 64x8000.")
    nodes, vms = int(found[1]), int(found[2])
    if not 1 <= nodes <= MAX_NODES:
        raise UserError(f"--demo {text}: the number of nodes must be from 1 to {MAX_NODES}.")
    if vms > MAX_VMS:
        raise UserError(f"--demo {text}: the number of VMs must be from 0 to {MAX_VMS}.")
    return nodes, vms


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """VMs of one kind."""

    stem: str
    weight: int
    title: str
    memory_gib: tuple[int, ...]
    vcpus: tuple[int, ...]
    disk_gib: int
    cpu_percent: float
    touched: float = 0.6
    dirty_mib_s: float = 15.0
    working_set: float = 0.05
    priority: Priority = Priority.MEDIUM
    tags: tuple[str, ...] = ()


_FAMILIES = (
    _Family(
        stem="web", weight=9, title="Web front end", memory_gib=(2, 4), vcpus=(2, 4), disk_gib=20,
        cpu_percent=18, tags=("web", "prod"),
    ),
    _Family(
        stem="app", weight=7, title="Application server", memory_gib=(4, 8), vcpus=(4,), disk_gib=40,
        cpu_percent=24, dirty_mib_s=40, tags=("app", "prod"),
    ),
    _Family(
        stem="db", weight=4, title="PostgreSQL", memory_gib=(8, 16, 32), vcpus=(4, 8), disk_gib=200,
        cpu_percent=32, touched=0.9, dirty_mib_s=90, working_set=0.1, priority=Priority.HIGH,
        tags=("db", "prod"),
    ),
    _Family(
        stem="erp", weight=3, title="ERP", memory_gib=(8, 16), vcpus=(4, 8), disk_gib=120,
        cpu_percent=22, touched=0.8, dirty_mib_s=50, priority=Priority.HIGH, tags=("erp", "prod"),
    ),
    _Family(
        stem="mail", weight=2, title="Mail", memory_gib=(4, 8), vcpus=(2, 4), disk_gib=300,
        cpu_percent=12, dirty_mib_s=25, priority=Priority.HIGH, tags=("mail", "prod"),
    ),
    _Family(
        stem="ci", weight=5, title="CI runner", memory_gib=(4, 8), vcpus=(4, 8), disk_gib=60,
        cpu_percent=55, dirty_mib_s=120, working_set=0.15, priority=Priority.LOW, tags=("ci",),
    ),
    _Family(
        stem="cache", weight=2, title="Cache", memory_gib=(4, 8), vcpus=(2,), disk_gib=10,
        cpu_percent=9, touched=0.95, dirty_mib_s=60, tags=("cache", "prod"),
    ),
    _Family(
        stem="dc", weight=2, title="Domain controller", memory_gib=(4,), vcpus=(2,), disk_gib=60,
        cpu_percent=5, priority=Priority.HIGH, tags=("windows", "infra"),
    ),
    _Family(
        stem="files", weight=2, title="File server", memory_gib=(4, 8), vcpus=(2, 4), disk_gib=800,
        cpu_percent=8, dirty_mib_s=30, tags=("windows", "files"),
    ),
    _Family(
        stem="mon", weight=1, title="Monitoring", memory_gib=(4, 8), vcpus=(2, 4), disk_gib=150,
        cpu_percent=27, dirty_mib_s=45, tags=("infra",),
    ),
    _Family(
        stem="test", weight=3, title="Test machine", memory_gib=(1, 2, 4), vcpus=(1, 2), disk_gib=20,
        cpu_percent=3, dirty_mib_s=5, priority=Priority.NO_AUTO_START, tags=("test",),
    ),
)  # fmt: skip


def demo_cluster(
    nodes: int, vms: int, *, clock: Clock, seed: int = 1, lively: bool = False
) -> tuple[ClusterConfig, SimWorld]:
    """A cluster file and the world it speaks of.

    Args:
        nodes: how many hosts, 1 to 64.
        vms: how many VMs, 0 to 64,000.
        clock: the world's only notion of time.
        seed: the same seed gives the same cluster.
        lively: now and then a CI runner restarts by itself, and someone's backup holds a VM. Otherwise
            nothing happens that nobody asked for.
    """
    rng = random.Random(seed)
    world = SimWorld(clock)
    plans = [_plan(rng, family, number) for family, number in _roster(vms)]
    memory_gib, cpus = _host_size(plans, nodes)
    width = max(2, len(str(nodes)))
    shared = _shared_pools(plans)
    for index in range(1, nodes + 1):
        world.add_node(
            SimNode(
                id=NodeId(f"oslo-{index:0{width}}"),
                host_uuid=_uuid(rng),
                cpus=cpus,
                memory_mib=memory_gib * 1024,
                bridges={"br0", "br20"},
                connect_s=rng.uniform(0.05, 0.4),
                # The last one was set up in a hurry: nobody has defined the pool of images there.
                pools={
                    "default": Pool(_LOCAL, 0.62 * 4096 * GIB, capacity_bytes=4096 * GIB),
                    **{name: pool for name, pool in shared.items() if name != "iso" or index < nodes},
                },
                networks=dict(_NETWORKS),
                nics=_nics(index),
                shared_paths=(_SHARED, _ARCHIVE),
            )
        )
    _place(rng, world, plans)
    _trouble(rng, world)
    config = ClusterConfig(
        name="demo",
        tier=Tier.DEMO,
        nodes=tuple(NodeConfig(name=name, uri=f"sim://{name}/") for name in world.nodes),
        shared_paths=(_SHARED, _ARCHIVE),
        migration=MigrationLimits(bandwidth_mib_s=_CAP_MIB_S),
    )
    if lively:
        _live(world, rng)
    return config, world


_NETWORKS = {
    "default": SimNetwork(subnets=("192.168.122.0/24",)),
    "databases": SimNetwork(mode="bridge", bridge="br20"),
}
_ISOS = {"debian-12.iso": 661 << 20, "rescue.iso": 840 << 20, "virtio-win.iso": 709 << 20}


def _shared_pools(plans: list[_Plan]) -> dict[str, Pool]:
    """The storage that all nodes share: of the VMs, of what is put away, and of images of CDs."""
    needed = sum(disk.capacity_bytes or 0 for plan in plans for disk in plan.config.disks)
    vms = max(8192 * GIB, needed)
    archive = max(64 * 1024 * GIB, 4 * needed)
    return {
        "vms": Pool(
            _SHARED, 0.29 * vms, "netfs", "nfs", ("nas-1.example",), "/export/vms", capacity_bytes=vms
        ),
        "archive": Pool(_ARCHIVE, 0.12 * archive, capacity_bytes=archive),
        "iso": Pool(
            _IMAGES,
            0.55 * 512 * GIB,
            "netfs",
            "nfs",
            ("nas-1.example",),
            "/export/iso",
            capacity_bytes=512 * GIB,
            files=dict(_ISOS),
        ),
    }


def _nics(index: int) -> tuple[SeenInterface, ...]:
    """Two cables of each host: one with its address, one for the databases' VLAN."""
    return tuple(
        SeenInterface(
            name=f"eno{port}",
            mac=f"52:54:01:00:{port:02x}:{index:02x}",
            addresses=(f"10.1.0.{index}/24",) if port == 1 else (),
            mtu=1500,
            speed_mbit=10_000,
        )
        for port in (1, 2)
    )


# --- building ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Plan:
    """A VM that has no host yet."""

    id: VmId
    name: str
    config: VmConfig
    guest: Guest


def _roster(vms: int) -> list[tuple[_Family, int]]:
    """Which VMs there are: the families by their weights, numbered from 1."""
    whole = sum(family.weight for family in _FAMILIES)
    shares = [math.ceil(vms * family.weight / whole) for family in _FAMILIES]
    rounds = [
        (number, family) for family, share in zip(_FAMILIES, shares, strict=True) for number in range(share)
    ]
    rounds.sort(key=lambda entry: (entry[0] / entry[1].weight, -entry[1].weight))
    return [(family, number + 1) for number, family in rounds[:vms]]


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _plan(rng: random.Random, family: _Family, number: int) -> _Plan:
    name = f"{family.stem}-{number:02}"
    size = rng.randrange(len(family.memory_gib))
    mac = rng.getrandbits(24)
    stage = family.tags if "prod" not in family.tags or rng.random() < 0.8 else (*family.tags[:-1], "staging")
    config = VmConfig(
        memory_mib=family.memory_gib[size] * 1024,
        vcpus=family.vcpus[min(size, len(family.vcpus) - 1)],
        title=f"{family.title} {number}",
        machine="pc-q35-9.2",
        arch="x86_64",
        cpu_mode="custom",
        disks=(
            Disk(
                target="vda",
                source=f"{_SHARED}/{name}.qcow2",
                format="qcow2",
                cache="none",
                capacity_bytes=family.disk_gib * GIB,
            ),
        ),
        interfaces=(
            Interface(
                mac=f"52:54:00:{mac >> 16:02x}:{mac >> 8 & 255:02x}:{mac & 255:02x}",
                kind="bridge",
                source="br20" if family.stem == "db" else "br0",
                model="virtio",
            ),
        ),
        agent_channel=family.stem != "cache",
        graphics=("vnc",),
        settings=VmSettings(priority=family.priority, tags=stage),
    )
    guest = Guest(
        boot_s=rng.uniform(2, 6),
        shutdown_s=rng.uniform(3, 20),
        cpu_percent=family.cpu_percent * rng.uniform(0.4, 1.6),
        phase=rng.uniform(0, 2 * math.pi),
        touched=family.touched * rng.uniform(0.8, 1.05),
        dirty_mib_s=family.dirty_mib_s * rng.uniform(0.5, 1.5),
        working_set=family.working_set,
    )
    return _Plan(VmId(_uuid(rng)), name, config, guest)


def _host_size(plans: list[_Plan], nodes: int) -> tuple[int, int]:
    """Memory in GiB and CPUs of each host, in steps that are sold, with room for about a third more."""
    needed_gib = sum(plan.config.memory_mib for plan in plans) / 1024 / nodes / 0.66 + HOST_MEMORY_MIB / 1024
    needed_cpus = sum(plan.config.vcpus for plan in plans) / nodes / 2
    return _step(needed_gib, 64), _step(needed_cpus, 16)


def _step(needed: float, least: int) -> int:
    """The smallest of least, 1.5 x least, 2 x least, 3 x least, 4 x least ... that is enough."""
    size = least
    while size < needed:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def _place(rng: random.Random, world: SimWorld, plans: list[_Plan]) -> None:
    """Spread the VMs over the hosts: evenly, but as people do it, not as a planner would."""
    hosts = list(world.nodes.values())
    now_s = world.clock.now_s()
    for index, plan in enumerate(plans):
        node = hosts[index % len(hosts)] if rng.random() < 0.8 else rng.choice(hosts)
        age_s = rng.expovariate(1 / (20 * 86400)) + 600
        dice = rng.random()
        if dice < 0.08 and plan.guest.dirty_mib_s < 60:
            state: dict[str, object] = {"cause": StatusCause.SHUT_DOWN}
        elif dice < 0.11 and plan.guest.dirty_mib_s < 60:
            state = {"status": VmStatus.SAVED, "cause": StatusCause.SAVED}
        else:
            state = {
                "status": VmStatus.RUNNING,
                "cause": StatusCause.BOOTED if rng.random() < 0.6 else StatusCause.MIGRATED,
                "started_s": now_s - age_s,
            }
        world.add_vm(node, plan.id, plan.name, plan.config, plan.guest, **state)


# --- troubles ---------------------------------------------------------------------------------


def _trouble(rng: random.Random, world: SimWorld) -> None:
    """What an administrator meets sooner or later, each on a VM of its own."""
    running = [
        vm for node in world.nodes.values() for vm in node.vms.values() if vm.status is VmStatus.RUNNING
    ]
    rng.shuffle(running)
    rounds = max(1, len(running) // _VMS_PER_TROUBLE)
    for _ in range(rounds):
        for stems, make in _TROUBLES:
            victim = next((vm for vm in running if vm.name.split("-")[0] in stems), None)
            if victim is not None:
                running.remove(victim)
                make(world, victim)


def _saved(_world: SimWorld, vm: SimVm) -> None:
    vm.status, vm.cause, vm.incarnation, vm.started_s = VmStatus.SAVED, StatusCause.SAVED, None, None


def _disk_error(_world: SimWorld, vm: SimVm) -> None:
    vm.guest = replace(vm.guest, disk_full=True)
    vm.status, vm.cause = VmStatus.PAUSED, StatusCause.IO_ERROR


def _crashed(_world: SimWorld, vm: SimVm) -> None:
    vm.status, vm.cause, vm.incarnation, vm.started_s = VmStatus.CRASHED, StatusCause.CRASHED, None, None


def _snapshot(world: SimWorld, vm: SimVm) -> None:
    vm.snapshots.append(
        Snapshot(
            name="pre-patch",
            description="before the updates",
            created_s=world.clock.now_s() - 3 * 86_400,
            status=VmStatus.OFF,
            is_current=True,
        )
    )
    vm.config = replace(vm.config, snapshots=1)


def _local_cd(_world: SimWorld, vm: SimVm) -> None:
    cd = Disk(target="sda", device="cdrom", source=f"{_LOCAL}/drivers.iso", format="raw", read_only=True)
    vm.config = replace(vm.config, disks=(*vm.config.disks, cd))


def _pci_device(_world: SimWorld, vm: SimVm) -> None:
    vm.config = replace(vm.config, host_devices=("PCI 0000:3b:00.0",))


def _ignores_shutdown(_world: SimWorld, vm: SimVm) -> None:
    vm.guest = replace(vm.guest, obeys=False)


def _never_converges(_world: SimWorld, vm: SimVm) -> None:
    vm.guest = replace(vm.guest, dirty_mib_s=6000.0, working_set=0.7, touched=0.95, cpu_percent=88.0)
    vm.config = replace(vm.config, memory_mib=max(vm.config.memory_mib, 16 * 1024))


def _converges_late(_world: SimWorld, vm: SimVm) -> None:
    """At this cluster's cap its move needs a pause of 800 ms, or a guest slowed by three quarters."""
    vm.guest = replace(
        vm.guest, dirty_mib_s=1500.0, working_set=0.8 * _CAP_MIB_S / vm.config.memory_mib, touched=0.9
    )


def _fails_at_first(world: SimWorld, vm: SimVm, times: int = 1) -> None:
    """The connection between the hosts is lost in its first moves; after that they work."""
    lost = Failure(code=FailureCode.UNREACHABLE, text="internal error: client socket is closed")
    world.moves.faults += [MoveFault(vm=vm.id, after_s=2.0, told=lost)] * times


def _fails_twice(world: SimWorld, vm: SimVm) -> None:
    _fails_at_first(world, vm, times=2)


def _local_disk(_world: SimWorld, vm: SimVm) -> None:
    """It moves with its disk only."""
    (disk,) = vm.config.disks
    vm.config = replace(vm.config, disks=(replace(disk, source=f"{_LOCAL}/{vm.name}.qcow2"),))


def _own_bridge(_world: SimWorld, vm: SimVm) -> None:
    """Its move is refused by every other host: the bridge is only here."""
    vm.node.bridges.add("br40")
    vm.config = replace(vm.config, interfaces=(replace(vm.config.interfaces[0], source="br40"),))


def _silent_agent(_world: SimWorld, vm: SimVm) -> None:
    vm.guest = replace(vm.guest, agent=False)


_TROUBLES: tuple[tuple[tuple[str, ...], Callable[[SimWorld, SimVm], None]], ...] = (
    (("test", "app"), _saved),
    (("files", "mail", "app"), _disk_error),
    (("app", "web"), _crashed),
    (("web", "app"), _snapshot),
    (("dc", "files", "web"), _local_cd),
    (("ci", "app"), _pci_device),
    (("erp", "app"), _ignores_shutdown),
    (("db",), _never_converges),
    (("web", "app"), _own_bridge),
    (("mon", "web"), _silent_agent),
    (("cache", "app"), _converges_late),
    (("mail", "files", "web"), _fails_at_first),
    (("app", "web"), _fails_twice),
    (("test", "ci"), _local_disk),
)
"""Whom a trouble may befall, by family, and what it does."""


def _live(world: SimWorld, rng: random.Random) -> None:
    """The cluster's own small life: CI runners restart between jobs, and someone backs up VM after VM."""
    everyone = [vm for node in world.nodes.values() for vm in node.vms.values()]
    runners = [vm.id for vm in everyone if vm.name.startswith("ci-")]
    backed_up = [vm.id for vm in everyone if "prod" in vm.config.settings.tags]

    def happen() -> None:
        world.after(rng.uniform(*_LIFE_S), happen)
        copies = list(world.copies(rng.choice(runners)))
        if len(copies) == 1 and copies[0].status is VmStatus.RUNNING and copies[0].job is None:
            try:
                world.change(copies[0].node, copies[0].id, VmChange.RESTART, lambda _failure: None)
            except OperationError:
                return

    def back_up() -> None:
        seconds = rng.uniform(*_BACKUP_S)
        world.after(seconds + rng.uniform(*_BACKUP_S), back_up)
        copies = list(world.copies(rng.choice(backed_up)))
        if len(copies) == 1 and copies[0].status is VmStatus.RUNNING and not copies[0].jobs:
            world.occupy(copies[0], "backup", seconds)

    if runners:
        world.after(rng.uniform(*_LIFE_S), happen)
    if backed_up:
        world.after(rng.uniform(*_BACKUP_S), back_up)

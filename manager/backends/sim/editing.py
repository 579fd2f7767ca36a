"""Changes of a VM's definition as a simulated host makes them: as it is stored, and as it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from manager.backends.sim.hosts import DISK_BYTES, SimNode, SimVm, refused
from manager.core.edits import (
    AddDisk,
    Describe,
    Edit,
    GrowDisk,
    SetAutostart,
    SetBootOrder,
    SetInterface,
    SetMedium,
    SetMemory,
    SetVcpus,
    at_next_start,
    is_later,
    settled,
)
from manager.core.errors import FailureCode, OperationError
from manager.core.model import Disk, Interface, VmConfig, VmStatus
from manager.core.units import MIB, size_text

if TYPE_CHECKING:
    from manager.backends.sim.world import SimWorld


def edit(world: SimWorld, vm: SimVm, wanted: Edit) -> None:
    """Make one change. Raises `OperationError`; nothing was changed then."""
    if not vm.config.persistent and (is_later(wanted) or isinstance(wanted, SetAutostart)):
        raise _refused(vm, FailureCode.WRONG_STATE, "it is transient and has no next start")
    wanted = _placed(world, vm, wanted)
    now, stored = vm.config, at_next_start(vm.config)
    if vm.runs and not is_later(wanted):
        now = _edited(vm, replace(now, stored=None), wanted, live=True)
    stored = _edited(vm, replace(stored, stored=None), wanted, live=False)
    if vm.runs or vm.status is VmStatus.SAVED:  # what was saved goes on as it was
        config = settled(replace(now, stored=stored if now.persistent else None))
    else:
        config = stored
    if isinstance(wanted, Describe | SetAutostart):  # not of the hardware: there is one for both
        config = replace(config, title=stored.title, description=stored.description)
        config = replace(config, autostart=stored.autostart)
    world.redefine(vm, config)


def _placed(world: SimWorld, vm: SimVm, wanted: Edit) -> Edit:
    """With the paths of what it names on the node."""
    if isinstance(wanted, SetMedium) and wanted.source:
        path = wanted.source
        if not path.startswith("/"):
            pool, _, name = path.partition("/")
            path = f"{_pool_path(vm, pool)}/{name}"
        if not path.startswith("/dev/") and path not in vm.node.media:
            raise _refused(vm, FailureCode.STORAGE, f"{vm.node.id} has no file {path}")
        return replace(wanted, source=path)
    if isinstance(wanted, AddDisk):
        return _new_image(world, vm, wanted)
    if isinstance(wanted, SetInterface) and wanted.kind == "bridge" and wanted.source not in vm.node.bridges:
        text = f"Cannot get interface MTU on '{wanted.source}': No such device"
        raise _refused(vm, FailureCode.NETWORK, text)
    return wanted


def _new_image(world: SimWorld, vm: SimVm, wanted: AddDisk) -> AddDisk:
    folder = _pool_path(vm, wanted.pool)
    target = _free_target(vm)
    path = f"{folder}/{wanted.volume or f'{vm.name}-{target}.qcow2'}"
    users = [
        other.name
        for node in world.nodes.values()
        for other in node.vms.values()
        if _same_file(vm.node, node, path) and any(disk.source == path for disk in other.config.disks)
    ]
    place = world.storage.place(vm.node, path)
    if wanted.size_mib:
        if users or place in world.storage.left_behind:
            text = f"pool {wanted.pool} has a {path.rpartition('/')[2]} already"
            raise _refused(vm, FailureCode.CONFLICT, text)
        return replace(wanted, volume=path)
    if users:
        raise _refused(vm, FailureCode.UNSAFE, f"{path} is a disk of {users[0]} already")
    if place not in world.storage.left_behind:
        text = f"Storage volume not found: no storage vol with matching name '{wanted.volume}'"
        raise _refused(vm, FailureCode.STORAGE, text)
    return replace(wanted, volume=path)


def _same_file(one: SimNode, other: SimNode, path: str) -> bool:
    return one is other or (one.shares(path) and other.shares(path))


def _pool_path(vm: SimVm, name: str) -> str:
    pool = vm.node.pools.get(name)
    if pool is None:
        text = f"Storage pool not found: no storage pool with matching name '{name}'"
        raise _refused(vm, FailureCode.STORAGE, text)
    return pool.path


def _free_target(vm: SimVm) -> str:
    used = {disk.target for config in (vm.config, at_next_start(vm.config)) for disk in config.disks}
    return next(f"vd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" if f"vd{letter}" not in used)


def _edited(vm: SimVm, config: VmConfig, wanted: Edit, *, live: bool) -> VmConfig:
    """A definition with the change."""
    match wanted:
        case SetMedium(disk=target, source=source):
            return _with_disk(vm, config, target, lambda disk: replace(disk, source=source))
        case SetMemory(memory_mib=memory_mib, maximum_mib=maximum_mib):
            most = config.memory_mib if live else maximum_mib or memory_mib
            if memory_mib > most:
                text = "Requested operation is not valid: cannot set memory higher than max memory"
                raise _refused(vm, FailureCode.WRONG_STATE, text)
            current = 0 if memory_mib == most else memory_mib
            return replace(config, memory_mib=most, current_memory_mib=current)
        case SetVcpus(vcpus=vcpus, maximum=maximum):
            most = config.most_vcpus if live else maximum or vcpus
            if vcpus > most:
                text = f"requested vcpus is greater than max allowable vcpus: {vcpus} > {most}"
                raise _refused(vm, FailureCode.WRONG_STATE, text)
            return replace(config, vcpus=vcpus, vcpus_most=most)
        case Describe(title=title, description=description):
            return replace(
                config,
                title=config.title if title is None else title,
                description=config.description if description is None else description,
            )
        case SetAutostart(autostart=autostart):
            return replace(config, autostart=autostart)
        case SetInterface():
            return _with_interface(vm, config, wanted)
        case SetBootOrder(devices=devices):
            return replace(config, boot=devices)
        case AddDisk(volume=path, size_mib=size_mib):
            disk = Disk(
                target=_free_target(vm),
                source=path,
                format="qcow2",
                cache="none",
                capacity_bytes=size_mib * MIB or None,
            )
            return replace(config, disks=(*config.disks, disk))
        case GrowDisk(disk=target, size_mib=size_mib):
            return _with_disk(vm, config, target, lambda disk: _grown(vm, disk, size_mib * MIB))


def _with_disk(vm: SimVm, config: VmConfig, target: str, change: Callable[[Disk], Disk]) -> VmConfig:
    if all(disk.target != target for disk in config.disks):
        raise _refused(vm, FailureCode.CONFLICT, f"it has no {target} any more")
    disks = tuple(change(disk) if disk.target == target else disk for disk in config.disks)
    return replace(config, disks=disks)


def _grown(vm: SimVm, disk: Disk, size_bytes: int) -> Disk:
    has = disk.capacity_bytes or DISK_BYTES
    if has >= size_bytes:
        text = f"disk {disk.target} has {size_text(has)} already, and is never made smaller"
        raise _refused(vm, FailureCode.CONFLICT, text)
    return replace(disk, capacity_bytes=size_bytes)


def _with_interface(vm: SimVm, config: VmConfig, wanted: SetInterface) -> VmConfig:
    def change(nic: Interface) -> Interface:
        if nic.mac != wanted.mac:
            return nic
        if wanted.kind:
            nic = replace(nic, kind=wanted.kind, source=wanted.source)
        return nic if wanted.link_up is None else replace(nic, link_up=wanted.link_up)

    if all(nic.mac != wanted.mac for nic in config.interfaces):
        raise _refused(vm, FailureCode.CONFLICT, f"it has no interface {wanted.mac} any more")
    return replace(config, interfaces=tuple(change(nic) for nic in config.interfaces))


def _refused(vm: SimVm, code: FailureCode, text: str) -> OperationError:
    return refused(code, text, node=vm.node.id, vm=vm.id)

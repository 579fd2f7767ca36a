"""Changes of a VM's definition as values: what was asked for, journaled, and carried out by the adapters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from manager.core import units
from manager.core.model import Disk, Interface, VmConfig

MAX_TITLE = 200
MAX_DESCRIPTION = 8000
"""Characters; libvirt itself refuses a title of several lines."""

MAX_VCPUS = 4096
MAX_MEMORY_MIB = 64 * 1024 * 1024
LEAST_MEMORY_MIB = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMedium:
    """Insert a medium into a CD drive, or eject it. Source: libvirt virDomainUpdateDeviceFlags."""

    disk: str = ""  # sda; empty: the VM's only drive
    source: str = ""  # a path on the node, or pool/volume; empty: eject
    force: bool = False  # even if the guest has locked the drive


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMemory:
    """Memory that the VM has, in MiB. Source: libvirt virDomainSetMemoryFlags."""

    memory_mib: int = 0
    maximum_mib: int = 0  # up to which it can be changed while the VM runs; 0: as it is, or as much as needed
    live: bool = True  # also of the VM as it runs


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVcpus:
    """Virtual CPUs that the VM has. Source: libvirt virDomainSetVcpusFlags."""

    vcpus: int = 0
    maximum: int = 0  # as of `SetMemory`
    live: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """Title and description; None: as it is. Source: libvirt virDomainSetMetadata."""

    title: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAutostart:
    """Whether the host starts the VM when it boots. Source: libvirt virDomainSetAutostart."""

    autostart: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInterface:
    """To what a network interface is connected, and its link. Source: virDomainUpdateDeviceFlags."""

    mac: str = ""  # empty: the VM's only one
    kind: str = ""  # bridge or network; empty: as it is
    source: str = ""
    link_up: bool | None = None  # None: as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class SetBootOrder:
    """From which devices the VM boots: targets of disks and MAC addresses. Source: virDomainDefineXML."""

    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddDisk:
    """Attach a volume, or a new one. Source: virDomainAttachDeviceFlags, virStorageVolCreateXML."""

    pool: str = ""
    volume: str = ""  # empty: a new one, named after the VM
    size_mib: int = 0  # of a new one; 0: the volume is there


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowDisk:
    """Make a disk larger. Source: libvirt virDomainBlockResize, virStorageVolResize."""

    disk: str = ""
    size_mib: int = 0


Edit = (
    SetMedium
    | SetMemory
    | SetVcpus
    | Describe
    | SetAutostart
    | SetInterface
    | SetBootOrder
    | AddDisk
    | GrowDisk
)
"""Any of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmEdit:
    """One change as the journal has it: exactly one of these is given."""

    medium: SetMedium | None = None
    memory: SetMemory | None = None
    vcpus: SetVcpus | None = None
    description: Describe | None = None
    autostart: SetAutostart | None = None
    interface: SetInterface | None = None
    boot: SetBootOrder | None = None
    new_disk: AddDisk | None = None
    larger_disk: GrowDisk | None = None

    @property
    def one(self) -> Edit:
        """The one that is given."""
        found: Edit = next(value for f in fields(self) if (value := getattr(self, f.name)) is not None)
        return found


_PLACES: dict[type[Any], str] = {
    SetMedium: "medium",
    SetMemory: "memory",
    SetVcpus: "vcpus",
    Describe: "description",
    SetAutostart: "autostart",
    SetInterface: "interface",
    SetBootOrder: "boot",
    AddDisk: "new_disk",
    GrowDisk: "larger_disk",
}


def journaled(edit: Edit) -> VmEdit:
    """A change as the journal has it."""
    given: dict[str, Any] = {_PLACES[type(edit)]: edit}
    return VmEdit(**given)


def told(edit: Edit) -> str:
    """What it makes of the VM, in words: ``memory 4 GiB``."""
    match edit:
        case SetMedium(disk=disk, source=source):
            return f"CD {source} in {disk}" if source else f"no CD in {disk}"
        case SetMemory(memory_mib=memory_mib, maximum_mib=maximum_mib):
            most = f" of at most {units.mib_text(maximum_mib)}" if maximum_mib > memory_mib else ""
            return f"memory {units.mib_text(memory_mib)}{most}"
        case SetVcpus(vcpus=vcpus, maximum=maximum):
            most = f" of at most {maximum}" if maximum > vcpus else ""
            return f"{units.count_text(vcpus, 'vCPU')}{most}"
        case Describe(title=title, description=description):
            said = [] if title is None else [f"title “{title}”" if title else "no title"]
            if description is not None:
                said.append("a new description" if description else "no description")
            return ", ".join(said)
        case SetAutostart(autostart=autostart):
            return "starts with its host" if autostart else "does not start with its host"
        case SetInterface(mac=mac, kind=kind, source=source, link_up=link_up):
            said = [f"{mac} on {kind} {source}"] if source else []
            if link_up is not None:
                said.append(f"link of {mac} {'up' if link_up else 'down'}")
            return ", ".join(said)
        case SetBootOrder(devices=devices):
            return f"boots from {', then '.join(devices)}"
        case AddDisk(pool=pool, volume=volume, size_mib=size_mib):
            new = f"a new disk of {units.mib_text(size_mib)}" if size_mib else f"disk {volume}"
            return f"{new} in pool {pool}"
        case GrowDisk(disk=disk, size_mib=size_mib):
            return f"disk {disk} of {units.mib_text(size_mib)}"


def is_later(edit: Edit) -> bool:
    """Whether a VM that runs has it only at its next start."""
    return isinstance(edit, SetBootOrder) or not getattr(edit, "live", True)


# --- definitions ---------------------------------------------------------------------------------


def pending(config: VmConfig) -> tuple[str, ...]:
    """What a VM that runs will have only at its next start: where its stored definition differs."""
    return tuple(_differences(config, config.stored)) if config.stored is not None else ()


def settled(config: VmConfig) -> VmConfig:
    """Without a stored definition that says the same as the running one."""
    return config if pending(config) else replace(config, stored=None)


def at_next_start(config: VmConfig) -> VmConfig:
    """The definition by which it starts the next time."""
    return config.stored or config


def _differences(live: VmConfig, stored: VmConfig) -> Iterator[str]:
    if live.memory_mib != stored.memory_mib:
        yield "memory"
    if (live.vcpus, live.most_vcpus) != (stored.vcpus, stored.most_vcpus):
        yield "vCPUs"
    if live.boot != stored.boot:
        yield "boot order"
    disks = {disk.target: _of_disk(disk) for disk in stored.disks}
    for disk in live.disks:
        if disks.pop(disk.target, None) != _of_disk(disk):
            yield f"{'CD' if disk.device == 'cdrom' else 'disk'} {disk.target}"
    yield from (f"disk {target}" for target in disks)
    interfaces = {nic.mac: _of_interface(nic) for nic in stored.interfaces}
    for nic in live.interfaces:
        if interfaces.pop(nic.mac, None) != _of_interface(nic):
            yield f"network {nic.mac}"
    yield from (f"network {mac}" for mac in interfaces)


def _of_disk(disk: Disk) -> tuple[str, str, str]:
    return disk.device, disk.kind, disk.source


def _of_interface(nic: Interface) -> tuple[str, str, str, bool]:
    return nic.kind, nic.source, nic.model, nic.link_up

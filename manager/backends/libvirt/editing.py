"""Changes of one VM's definition on its host, as it is stored and as it runs. Lane threads only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import libvirt
from lxml import etree

from manager.backends.libvirt import domain_xml, storage
from manager.backends.libvirt.errors import failure_of
from manager.backends.libvirt.jobs import disks_of
from manager.backends.libvirt.reading import lookup
from manager.backends.libvirt.xml_text import root_of
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
)
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import NodeId, VmId
from manager.core.units import MIB, size_text

_LIVE, _CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
_NO_STORAGE = frozenset({libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_CONNECT})
_NEW_FORMAT = "qcow2"
TRIES = 20
PAUSE_S = 0.2


def edit(connection: libvirt.virConnect, vm: VmId, wanted: Edit, node: NodeId) -> None:
    """Make one change; what is not named in it stays as it is.

    Raises:
        OperationError: STORAGE or NETWORK if what it names is not on the node, WRONG_STATE if there is
            nothing that could be changed, UNSAFE for an image that another VM uses, and what libvirt says.
    """
    domain = lookup(connection, vm)
    match wanted:
        case SetMedium():
            _set_medium(connection, domain, wanted, node)
        case SetMemory():
            _set_memory(domain, wanted)
        case SetVcpus():
            _set_vcpus(domain, wanted)
        case Describe():
            _describe(domain, wanted)
        case SetAutostart():
            domain.setAutostart(int(wanted.autostart))
        case SetInterface():
            _set_interface(connection, domain, wanted)
        case SetBootOrder():
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
            connection.defineXML(boot_xml(xml, wanted.devices))
        case AddDisk():
            _add_disk(connection, domain, wanted, node)
        case GrowDisk():
            _grow_disk(connection, domain, wanted)


def _failure(code: FailureCode, text: str) -> OperationError:
    return OperationError(Failure(code=code, text=text))


def _scopes(domain: libvirt.virDomain) -> Iterator[tuple[int, str]]:
    """The definitions of a VM, each with the flag of calls that change it: first as it runs.

    What the running VM refuses is then not in the stored one either.
    """
    if domain.isActive():
        yield _LIVE, domain.XMLDesc(0)
    if domain.isPersistent():
        yield _CONFIG, domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)


def _affected(domain: libvirt.virDomain, *, live: bool = True) -> int:
    """The flags of a call that changes all that is to be changed."""
    flags = (_LIVE if live and domain.isActive() else 0) | (_CONFIG if domain.isPersistent() else 0)
    if not flags:
        raise _failure(FailureCode.WRONG_STATE, "it is transient and has no next start")
    return flags


# --- memory and vCPUs ----------------------------------------------------------------------------


def _stored(domain: libvirt.virDomain) -> str:
    return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def _set_memory(domain: libvirt.virDomain, wanted: SetMemory) -> None:
    flags, kib = _affected(domain, live=wanted.live), wanted.memory_mib * 1024
    if flags & _LIVE:
        domain.setMemoryFlags(kib, _LIVE)
        _await_balloon(domain, kib)
    if flags & _CONFIG:
        maximum = wanted.maximum_mib or wanted.memory_mib
        if domain_xml.parse(_stored(domain)).memory_mib != maximum:
            domain.setMemoryFlags(maximum * 1024, _CONFIG | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
        domain.setMemoryFlags(kib, _CONFIG)


def _await_balloon(domain: libvirt.virDomain, kib: int) -> None:
    """Give the guest a moment: what is read next is then what it has. It may take longer, or never do it."""
    for _ in range(TRIES):
        if domain.info()[2] == kib:
            return
        time.sleep(PAUSE_S)


def _set_vcpus(domain: libvirt.virDomain, wanted: SetVcpus) -> None:
    flags = _affected(domain, live=wanted.live)
    if flags & _LIVE and domain_xml.parse(domain.XMLDesc(0)).vcpus != wanted.vcpus:
        domain.setVcpusFlags(wanted.vcpus, _LIVE)
    if flags & _CONFIG:
        maximum = wanted.maximum or wanted.vcpus
        if domain_xml.parse(_stored(domain)).most_vcpus != maximum:
            domain.setVcpusFlags(maximum, _CONFIG | libvirt.VIR_DOMAIN_VCPU_MAXIMUM)
        domain.setVcpusFlags(wanted.vcpus, _CONFIG)


def _describe(domain: libvirt.virDomain, wanted: Describe) -> None:
    flags = _affected(domain)
    for kind, text in (
        (libvirt.VIR_DOMAIN_METADATA_TITLE, wanted.title),
        (libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, wanted.description),
    ):
        if text is not None:
            domain.setMetadata(kind, text or None, None, None, flags)


# --- devices -------------------------------------------------------------------------------------


def _device(xml: str, path: str, name: Callable[[etree._Element], bool], what: str) -> etree._Element:
    try:
        found = next((e for e in root_of(xml).findall(path) if name(e)), None)
    except ValueError as error:
        raise _failure(FailureCode.OTHER, f"its definition cannot be read: {error}") from None
    if found is None:
        raise _failure(FailureCode.CONFLICT, f"it has no {what} any more")
    return found


def _attribute(element: etree._Element, child: str, name: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(name, "")


def _set_medium(
    connection: libvirt.virConnect, domain: libvirt.virDomain, wanted: SetMedium, node: NodeId
) -> None:
    place = _place(connection, wanted.source, node) if wanted.source else None
    _affected(domain)
    force = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE if wanted.force else 0
    for flag, xml in _scopes(domain):
        disk = _device(xml, "devices/disk", _named(wanted.disk), f"drive {wanted.disk}")
        domain.updateDeviceFlags(medium_xml(disk, place), flag | (force if flag == _LIVE else 0))


def _named(target: str) -> Callable[[etree._Element], bool]:
    return lambda element: _attribute(element, "target", "dev") == target


def medium_xml(disk: etree._Element, place: tuple[str, str] | None) -> str:
    """A CD drive with another medium, or none. Source: libvirt formatdomain.html <disk>."""
    for name in ("source", "backingStore", "mirror"):
        for element in disk.findall(name):
            disk.remove(element)
    if place is not None:
        kind, path = place
        disk.set("type", kind)
        etree.SubElement(disk, "source", {"dev" if kind == "block" else "file": path})
    return etree.tostring(disk, encoding="unicode")


def _place(connection: libvirt.virConnect, source: str, node: NodeId) -> tuple[str, str]:
    """Type and path of an image that is seen on the node; a device, or where nobody can look, as given."""
    if not source.startswith("/"):
        pool, _, name = source.partition("/")
        volume = _volume(connection, pool, name, node)
        return _kind_of(volume), volume.path()
    if source.startswith("/dev/"):
        return "block", source
    path = PurePosixPath(source)
    try:
        found = storage.in_folder(
            connection, str(path.parent), lambda pool: storage.find_file(pool, source), make=False
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_STORAGE:
            return "file", source
        raise OperationError(failure_of(error, FailureCode.STORAGE, node=node)) from None
    if found is None:
        raise _failure(FailureCode.STORAGE, f"{node} has no file {source}")
    return "file", source


def _volume(connection: libvirt.virConnect, pool: str, name: str, node: NodeId) -> libvirt.virStorageVol:
    try:
        found = connection.storagePoolLookupByName(pool)
        found.refresh(0)
        return found.storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        raise OperationError(failure_of(error, FailureCode.STORAGE, node=node)) from None


def _kind_of(volume: libvirt.virStorageVol) -> str:
    return "block" if volume.info()[0] == libvirt.VIR_STORAGE_VOL_BLOCK else "file"


def _set_interface(connection: libvirt.virConnect, domain: libvirt.virDomain, wanted: SetInterface) -> None:
    if wanted.kind == "network":
        connection.networkLookupByName(wanted.source)  # NETWORK if there is none
    _affected(domain)
    for flag, xml in _scopes(domain):
        nic = _device(
            xml,
            "devices/interface",
            lambda element: _attribute(element, "mac", "address") == wanted.mac,
            f"interface {wanted.mac}",
        )
        domain.updateDeviceFlags(interface_xml(nic, wanted), flag)


def interface_xml(nic: etree._Element, wanted: SetInterface) -> str:
    """An interface that is connected elsewhere, or has another link. Source: formatdomain.html."""
    if wanted.kind:
        for name in ("source", "virtualport"):
            for element in nic.findall(name):
                nic.remove(element)
        nic.set("type", wanted.kind)
        etree.SubElement(nic, "source", {wanted.kind: wanted.source})
    if wanted.link_up is not None:
        for element in nic.findall("link"):
            nic.remove(element)
        etree.SubElement(nic, "link", state="up" if wanted.link_up else "down")
    return etree.tostring(nic, encoding="unicode")


def boot_xml(xml: str, devices: tuple[str, ...]) -> str:
    """A definition that boots from these devices, and then from those of others' that it booted from.

    Source: formatdomain.html: an order per device, which excludes <boot> in <os>.
    """
    try:
        root = root_of(xml, keep_all=True)
    except ValueError as error:
        raise _failure(FailureCode.OTHER, f"its definition cannot be read: {error}") from None
    for parent in root.findall("os"):
        for element in parent.findall("boot"):
            parent.remove(element)
    others: list[tuple[int, etree._Element]] = []
    ours: dict[str, etree._Element] = {}
    for device in root.findall("devices/*"):
        old = device.find("boot")
        if old is not None:
            device.remove(old)
        if device.tag == "disk":
            ours[_attribute(device, "target", "dev")] = device
        elif device.tag == "interface":
            ours[_attribute(device, "mac", "address")] = device
        elif old is not None:
            others.append((int(old.get("order") or 0), device))
    missing = next((name for name in devices if name not in ours), None)
    if missing is not None:
        raise _failure(FailureCode.CONFLICT, f"it has no {missing} any more")
    in_order = [ours[name] for name in devices] + [device for _, device in sorted(others, key=lambda o: o[0])]
    for order, device in enumerate(in_order, 1):
        etree.SubElement(device, "boot", order=str(order))
    return etree.tostring(root, encoding="unicode")


# --- disks ---------------------------------------------------------------------------------------


def _add_disk(
    connection: libvirt.virConnect, domain: libvirt.virDomain, wanted: AddDisk, node: NodeId
) -> None:
    flags = _affected(domain)
    target = free_target([xml for _, xml in _scopes(domain)])
    made = None
    if wanted.size_mib:
        name = wanted.volume or f"{domain.name()}-{target}.{_NEW_FORMAT}".replace("/", "_")
        image = storage.Image(
            disk=target, source=name, format=_NEW_FORMAT, capacity_bytes=wanted.size_mib * MIB
        )
        (made,) = storage.make_images(connection, wanted.pool, [image], node)
        kind, path, image_format = "file", made.path, _NEW_FORMAT
    else:
        volume = _volume(connection, wanted.pool, wanted.volume, node)
        kind, path = _kind_of(volume), volume.path()
        image_format = _format_of(volume)
        _refuse_used(connection, path)
    try:
        domain.attachDeviceFlags(disk_xml(target, kind, path, image_format), flags)
    except libvirt.libvirtError:
        if made is not None:
            storage.remove_unused(connection, VmId(domain.UUIDString()), [made])
        raise


def disk_xml(target: str, kind: str, path: str, image_format: str) -> str:
    """A new disk; without a cache on its host, so that the VM can be moved. Source: formatdomain.html."""
    disk = etree.Element("disk", type=kind, device="disk")
    etree.SubElement(disk, "driver", name="qemu", type=image_format, cache="none")
    etree.SubElement(disk, "source", {"dev" if kind == "block" else "file": path})
    etree.SubElement(disk, "target", dev=target, bus="virtio")
    return etree.tostring(disk, encoding="unicode")


def free_target(definitions: list[str]) -> str:
    """The first name of a virtio disk that none of a VM's definitions has."""
    used = {_attribute(disk, "target", "dev") for xml in definitions for disk in disks_of(xml)}
    names = (f"vd{a}{b}" for a in ("", *"abcdefghijklmnopqrstuvwxyz") for b in "abcdefghijklmnopqrstuvwxyz")
    return next(name for name in names if name not in used)


def _format_of(volume: libvirt.virStorageVol) -> str:
    try:
        found = root_of(volume.XMLDesc(0)).find("target/format")
    except ValueError:
        found = None
    kind = "raw" if found is None else found.get("type", "raw")
    return kind if kind in ("qcow2", "qed", "vmdk", "vdi", "vpc", "vhdx") else "raw"


def _refuse_used(connection: libvirt.virConnect, path: str) -> None:
    """Two VMs that write to one image destroy what is in it."""
    for other in connection.listAllDomains(0):
        try:
            xml = other.XMLDesc(0)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                continue
            raise
        for disk in disks_of(xml):
            if path in (_attribute(disk, "source", "file"), _attribute(disk, "source", "dev")):
                raise _failure(FailureCode.UNSAFE, f"{path} is a disk of {other.name()} already")


def _grow_disk(connection: libvirt.virConnect, domain: libvirt.virDomain, wanted: GrowDisk) -> None:
    size = wanted.size_mib * MIB
    has = domain.blockInfo(wanted.disk)[0]
    if has >= size:
        text = f"disk {wanted.disk} has {size_text(has)} already, and is never made smaller"
        raise _failure(FailureCode.CONFLICT, text)
    if domain.isActive():
        domain.blockResize(wanted.disk, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        return
    disk = _device(domain.XMLDesc(0), "devices/disk", _named(wanted.disk), f"disk {wanted.disk}")
    path = _attribute(disk, "source", "file") or _attribute(disk, "source", "dev")
    volume = storage.in_folder(
        connection, str(PurePosixPath(path).parent), lambda pool: storage.find_file(pool, path), make=False
    )
    if volume is None:
        raise _failure(FailureCode.STORAGE, f"no pool has {path}")
    volume.resize(size)

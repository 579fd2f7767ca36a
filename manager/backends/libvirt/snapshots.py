"""Snapshots of one VM. Lane threads only."""

from __future__ import annotations

from collections.abc import Callable

import libvirt
from lxml import etree

from manager.backends.libvirt.domain_xml import MAX_XML_BYTES
from manager.backends.libvirt.errors import cleaned
from manager.backends.libvirt.reading import lookup
from manager.backends.libvirt.xml_text import root_of
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import VmId
from manager.core.model import Snapshot, SnapshotParameters, VmStatus

MAX_SNAPSHOTS = 1000

_STATUS = {
    "running": VmStatus.RUNNING,
    "paused": VmStatus.PAUSED,
    "shutoff": VmStatus.OFF,
    "shutdown": VmStatus.OFF,
    "disk-snapshot": VmStatus.OFF,
    "crashed": VmStatus.CRASHED,
}
"""States in a snapshot's XML. Source: libvirt virDomainSnapshotState."""


def read(connection: libvirt.virConnect, vm: VmId) -> tuple[Snapshot, ...]:
    """A VM's snapshots, the oldest first; what is not understood of one is left out.

    Source: libvirt virDomainListAllSnapshots, virDomainSnapshotGetXMLDesc.
    """
    found = []
    for snapshot in lookup(connection, vm).listAllSnapshots(0)[:MAX_SNAPSHOTS]:
        try:
            found.append(parsed(snapshot.getXMLDesc(0), is_current=bool(snapshot.isCurrent(0))))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT:  # deleted meanwhile
                raise
    return tuple(sorted(found, key=lambda snapshot: snapshot.created_s or 0.0))


def parsed(xml: str, *, is_current: bool = False) -> Snapshot:
    """One snapshot's XML, a stranger's text. Never raises. Source: libvirt's formatsnapshot.html."""
    if len(xml) > MAX_XML_BYTES:
        return Snapshot(name="?", description="its description is too large to be read")
    try:
        root = root_of(xml)
    except ValueError as error:
        return Snapshot(name="?", description=cleaned(str(error)))

    def line(path: str) -> str:
        return cleaned(root.findtext(path) or "")

    memory = root.find("memory")
    kind = memory.get("snapshot", "no") if memory is not None else "no"
    disks = {disk.get("snapshot", "") for disk in root.iterfind("disks/disk")}
    created = line("creationTime")
    state = line("state")
    return Snapshot(
        name=line("name"),
        description=line("description"),
        created_s=float(created) if created.isascii() and created.isdecimal() and len(created) < 12 else None,
        status=_STATUS.get(state, VmStatus.UNKNOWN),
        memory=kind not in ("no", ""),
        external="external" in disks or kind == "external",
        parent=line("parent/name"),
        is_current=is_current,
    )


def change(connection: libvirt.virConnect, vm: VmId, wanted: VmChange, wish: SnapshotParameters) -> str:
    """Take, delete or revert to a snapshot; returns the VM's name when libvirt's call does.

    Raises:
        OperationError: CONFLICT if one of that name is there already, NOT_FOUND if there is none.
    """
    domain = lookup(connection, vm)
    _CALLS[wanted](domain, wish)
    return cleaned(domain.name())


def _create(domain: libvirt.virDomain, wish: SnapshotParameters) -> None:
    if _find(domain, wish.name) is not None:
        text = f"it has a snapshot “{wish.name}” already"
        raise OperationError(Failure(code=FailureCode.CONFLICT, text=text))
    root = etree.Element("domainsnapshot")
    etree.SubElement(root, "name").text = wish.name
    if wish.description:
        etree.SubElement(root, "description").text = wish.description
    flags = 0
    if wish.disk_only:
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    domain.snapshotCreateXML(etree.tostring(root, encoding="unicode"), flags)


def _delete(domain: libvirt.virDomain, wish: SnapshotParameters) -> None:
    _need(domain, wish.name).delete(0)


def _revert(domain: libvirt.virDomain, wish: SnapshotParameters) -> None:
    domain.revertToSnapshot(_need(domain, wish.name), 0)


def _find(domain: libvirt.virDomain, name: str) -> libvirt.virDomainSnapshot | None:
    try:
        return domain.snapshotLookupByName(name, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT:
            raise
        return None


def _need(domain: libvirt.virDomain, name: str) -> libvirt.virDomainSnapshot:
    found = _find(domain, name)
    if found is None:
        raise OperationError(Failure(code=FailureCode.NOT_FOUND, text=f"it has no snapshot “{name}”"))
    return found


_CALLS: dict[VmChange, Callable[[libvirt.virDomain, SnapshotParameters], None]] = {
    VmChange.SNAPSHOT_CREATE: _create,
    VmChange.SNAPSHOT_DELETE: _delete,
    VmChange.SNAPSHOT_REVERT: _revert,
}

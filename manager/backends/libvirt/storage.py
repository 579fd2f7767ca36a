"""Images and files on a host's storage: libvirt reaches them through its pools only. Lane threads only."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypeVar

import libvirt
from lxml import etree

from manager.backends.libvirt.domain_xml import is_encrypted
from manager.backends.libvirt.errors import failure_of
from manager.backends.libvirt.jobs import disks_of
from manager.backends.libvirt.reading import lookup
from manager.backends.libvirt.xml_text import root_of
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import NodeId, VmId
from manager.core.units import size_text

T = TypeVar("T")

FILE_POOLS = frozenset({"dir", "fs", "netfs"})
"""Pools whose volumes are files of any format. Source: libvirt storage.html."""
OWN_POOL = "muster-"
"""How the names of pools begin that are there only while we need them."""
TRIES = 25
PAUSE_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A disk's image as it is now."""

    disk: str  # vda
    source: str  # its path
    format: str
    capacity_bytes: int
    allocated_bytes: int = 0

    @property
    def name(self) -> str:
        """What a copy of it is called in another pool."""
        return PurePosixPath(self.source).name


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The place of a copy of an image: a new file in a pool."""

    image: Image
    pool: str
    path: str

    @property
    def disk(self) -> str:
        """The disk's target."""
        return self.image.disk


# --- XML, pure ---


def volume_xml(image: Image) -> str:
    """The volume that takes a copy of an image. Source: libvirt formatstorage.html."""
    volume = etree.Element("volume")
    etree.SubElement(volume, "name").text = image.name
    etree.SubElement(volume, "capacity", unit="bytes").text = str(image.capacity_bytes)
    etree.SubElement(volume, "allocation", unit="bytes").text = "0"  # else a raw one is written in full
    etree.SubElement(etree.SubElement(volume, "target"), "format", type=image.format)
    return etree.tostring(volume, encoding="unicode")


def mirror_xml(copy: Copy) -> str:
    """Where a running VM's disk is copied to. Source: libvirt virDomainBlockCopy."""
    disk = etree.Element("disk", type="file")
    etree.SubElement(disk, "source", file=copy.path)
    etree.SubElement(disk, "driver", type=copy.image.format)
    return etree.tostring(disk, encoding="unicode")


def folder_pool_xml(name: str, folder: str) -> str:
    """A pool of the files in a folder."""
    pool = etree.Element("pool", type="dir")
    etree.SubElement(pool, "name").text = name
    etree.SubElement(etree.SubElement(pool, "target"), "path").text = folder
    return etree.tostring(pool, encoding="unicode")


def relocated_xml(xml: str, copies: Sequence[Copy]) -> str:
    """A definition whose disks are the copies; one that had another image there keeps it.

    Raises:
        ValueError: the definition cannot be read.
    """
    root = root_of(xml, keep_all=True)
    by_disk = {copy.disk: copy for copy in copies}
    for disk in root.findall("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        copy = by_disk.get("" if target is None else target.get("dev", ""))
        if copy is None or source is None or source.get("file") != copy.image.source:
            continue
        source.set("file", copy.path)
        for what in ("backingStore", "mirror"):  # the copy is whole, and nobody else's
            for element in disk.findall(what):
                disk.remove(element)
    return etree.tostring(root, encoding="unicode")


# --- images ---


def images_of(connection: libvirt.virConnect, vm: VmId, disks: Sequence[str]) -> tuple[Image, ...]:
    """The images of a running VM's disks. Source: libvirt virDomainGetBlockInfo.

    Raises:
        OperationError: NOT_FOUND for a disk that the VM does not have, NOT_SUPPORTED for one that is no file
            or is encrypted: the hypervisor would write its copy in plain text.
    """
    domain = lookup(connection, vm)
    known = {_target(disk): disk for disk in disks_of(domain.XMLDesc(0))}
    return tuple(_image(domain, name, known.get(name)) for name in disks)


def _image(domain: libvirt.virDomain, name: str, disk: etree._Element | None) -> Image:
    if disk is None:
        raise OperationError(Failure(code=FailureCode.NOT_FOUND, text=f"it has no disk {name}"))
    source, driver = disk.find("source"), disk.find("driver")
    path = "" if source is None else source.get("file", "")
    if PurePosixPath(path).name in ("", ".", ".."):
        text = f"its disk {name} is no file, and only files are copied"
        raise OperationError(Failure(code=FailureCode.NOT_SUPPORTED, text=text))
    if is_encrypted(disk):
        text = f"its disk {name} is encrypted, and its copy would not be"
        raise OperationError(Failure(code=FailureCode.NOT_SUPPORTED, text=text))
    capacity, allocated, _ = domain.blockInfo(name)
    return Image(
        disk=name,
        source=path,
        format="raw" if driver is None else driver.get("type", "raw"),
        capacity_bytes=capacity,
        allocated_bytes=allocated,
    )


def _target(disk: etree._Element) -> str:
    target = disk.find("target")
    return "" if target is None else target.get("dev", "")


def make_images(
    connection: libvirt.virConnect, pool: str, images: Sequence[Image], node: NodeId
) -> tuple[Copy, ...]:
    """New, empty images of the same names, formats and sizes in a pool, all or none.

    Without a pool's name: in the pool that has the folder of each image.
    Source: libvirt virStorageVolCreateXML.

    Raises:
        OperationError: CONFLICT if there is a volume of that name: nothing is ever written over.
            NO_RESOURCES if the pool has no room for what is in the images now.
    """
    places = [copy_place(connection, pool, image, node) for image in images]
    for name in {place.pool for place in places}:
        needed = sum(place.image.allocated_bytes for place in places if place.pool == name)
        _require_room(connection.storagePoolLookupByName(name), needed, node)
    made: list[Copy] = []
    try:
        for place in places:
            made.append(_make_image(connection, place, node))
    except (libvirt.libvirtError, OperationError):
        remove_images(connection, made)
        raise
    return tuple(made)


def _require_room(pool: libvirt.virStoragePool, needed: int, node: NodeId) -> None:
    """The pool's own word for what is free is fresh after this."""
    _refresh(pool, node)
    free = pool.info()[3]
    if needed > free:
        text = f"pool {pool.name()} has {size_text(free)} free, the disks hold {size_text(needed)}"
        raise OperationError(Failure(code=FailureCode.NO_RESOURCES, text=text, node=node))


def _make_image(connection: libvirt.virConnect, place: Copy, node: NodeId) -> Copy:
    try:
        pool = connection.storagePoolLookupByName(place.pool)
        if find_file(pool, place.path) is not None:
            text = f"pool {place.pool} has a {place.image.name} already"
            raise OperationError(Failure(code=FailureCode.CONFLICT, text=text, node=node))
        volume = pool.createXML(volume_xml(place.image), 0)
    except libvirt.libvirtError as error:
        raise OperationError(failure_of(error, _storage_code(error), node=node)) from None
    return replace(place, path=volume.path())


def copy_place(connection: libvirt.virConnect, pool: str, image: Image, node: NodeId) -> Copy:
    """Where the copy of an image goes, whether or not it is there.

    Raises:
        OperationError: STORAGE without such a pool, NOT_SUPPORTED if it does not hold files.
    """
    try:
        if pool:
            found = connection.storagePoolLookupByName(pool)
        else:
            found = connection.storagePoolLookupByTargetPath(str(PurePosixPath(image.source).parent))
        root = root_of(found.XMLDesc(0))
    except libvirt.libvirtError as error:
        raise OperationError(failure_of(error, _storage_code(error), node=node)) from None
    except ValueError as error:
        text = f"the pool's definition cannot be read: {error}"
        raise OperationError(Failure(code=FailureCode.STORAGE, text=text, node=node)) from None
    kind = root.get("type", "")
    if kind not in FILE_POOLS:
        text = f"pool {found.name()} is of type {kind}; images are only made in pools of files"
        raise OperationError(Failure(code=FailureCode.NOT_SUPPORTED, text=text, node=node))
    folder = PurePosixPath(root.findtext("target/path") or "/")
    return Copy(image=image, pool=found.name(), path=str(folder / image.name))


def _storage_code(error: libvirt.libvirtError) -> FailureCode | None:
    """A pool that is not active is no wrong state of the VM."""
    invalid = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
    return FailureCode.STORAGE if invalid else None


def _refresh(pool: libvirt.virStoragePool, node: NodeId) -> None:
    """See what is really there: libvirt knows only the volumes that it has made or looked for.

    Refused while another volume is being made, with an error that has no number of its own: tried again.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            pool.refresh(0)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_INTERNAL_ERROR:
                raise OperationError(failure_of(error, _storage_code(error), node=node)) from None
            if not tries_left:
                raise OperationError(failure_of(error, FailureCode.BUSY, node=node)) from None
            time.sleep(PAUSE_S)
        else:
            return


def remove_images(connection: libvirt.virConnect, copies: Sequence[Copy]) -> tuple[str, ...]:
    """Delete copies that came to nothing; returns the paths of those that could not be deleted.

    The caller has seen that no VM uses them. Source: libvirt virStorageVolDelete.
    """
    left: list[str] = []
    for copy in copies:
        try:
            connection.storageVolLookupByPath(copy.path).delete(0)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                left.append(copy.path)
    return tuple(left)


def uses_any(connection: libvirt.virConnect, vm: VmId, copies: Sequence[Copy]) -> bool:
    """Whether a VM, as it runs or as it is stored, has one of these copies as a disk. None there: no."""
    try:
        domain = lookup(connection, vm)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise
    paths = {copy.path for copy in copies}
    texts = [domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)] if domain.isPersistent() else []
    texts += [domain.XMLDesc(0)] if domain.isActive() else []
    for text in texts:
        for disk in disks_of(text):
            source = disk.find("source")
            if source is not None and source.get("file") in paths:
                return True
    return False


def remove_unused(connection: libvirt.virConnect, vm: VmId, copies: Sequence[Copy]) -> tuple[str, ...]:
    """As `remove_images`, of those that the VM does not use here, as it runs or as it is stored."""
    unused = [copy for copy in copies if not uses_any(connection, vm, [copy])]
    used = tuple(copy.path for copy in copies if copy not in unused)
    return used + remove_images(connection, unused)


# --- files in a folder ---


def in_folder(
    connection: libvirt.virConnect,
    folder: str,
    work: Callable[[libvirt.virStoragePool], T],
    *,
    make: bool = True,
) -> T:
    """Do something with the files of a folder, which may be made if need be; all its volumes are known.

    libvirt has no call for files but through a pool, and takes one pool per folder: one that is there is used
    as it is, else one of ours is there meanwhile. Another call of ours may take it away at any moment.
    """
    for tries_left in reversed(range(TRIES)):
        pool = None
        try:
            pool = _folder_pool(connection, folder, make=make)
            return work(pool)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _POOL_WENT or not tries_left:
                raise
            time.sleep(PAUSE_S)
        finally:
            if pool is not None:
                _let_go(pool)
    raise AssertionError("unreachable")


_POOL_WENT = frozenset(
    {
        libvirt.VIR_ERR_NO_STORAGE_POOL,
        libvirt.VIR_ERR_OPERATION_INVALID,  # it is not active any more
        libvirt.VIR_ERR_OPERATION_FAILED,  # somebody else's pool of the same folder came first
    }
)


def _folder_pool(connection: libvirt.virConnect, folder: str, *, make: bool) -> libvirt.virStoragePool:
    try:
        pool = connection.storagePoolLookupByTargetPath(folder)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise
        name = f"{OWN_POOL}{uuid.uuid4()}"
        build = libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD if make else 0
        return connection.storagePoolCreateXML(folder_pool_xml(name, folder), build)
    pool.refresh(0)
    return pool


def is_own(pool: str) -> bool:
    """Whether a pool of that name is one of ours; somebody's may begin like them."""
    try:
        return pool.startswith(OWN_POOL) and bool(uuid.UUID(pool.removeprefix(OWN_POOL)))
    except ValueError:
        return False


def _let_go(pool: libvirt.virStoragePool) -> None:
    if not is_own(pool.name()):
        return
    try:
        pool.destroy()  # only libvirt's knowledge of the folder; the files stay
    except libvirt.libvirtError:
        return  # another call has done it


def find_file(pool: libvirt.virStoragePool, path: str) -> libvirt.virStorageVol | None:
    """A file of a folder."""
    try:
        return pool.storageVolLookupByName(PurePosixPath(path).name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise


def delete_file(connection: libvirt.virConnect, path: str) -> None:
    """Delete a file; one that is not there is no error. Source: libvirt virStorageVolDelete."""

    def delete(pool: libvirt.virStoragePool) -> None:
        if (volume := find_file(pool, path)) is not None:
            volume.delete(0)

    in_folder(connection, str(PurePosixPath(path).parent), delete)

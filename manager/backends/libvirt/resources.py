"""A host's pools, volumes, networks and interfaces: what libvirt tells, as values. Lane threads only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any, TypeVar

import libvirt
from lxml import etree

from manager.backends.libvirt.domain_xml import MAX_VALUE
from manager.backends.libvirt.errors import cleaned, failure_of
from manager.backends.libvirt.storage import is_own
from manager.backends.libvirt.xml_text import root_of
from manager.core.errors import FailureCode, OperationError
from manager.core.ids import NodeId
from manager.core.resource_facts import PoolState, SeenInterface, SeenNetwork, SeenPool, Volume

T = TypeVar("T")

MAX_POOLS = 256
MAX_NETWORKS = 512
MAX_INTERFACES = 256
MAX_VOLUMES = 2000
"""So many volumes are asked one by one for their sizes; further ones are listed without."""
MAX_XML_BYTES = 256 * 1024

GUESTS_INTERFACES = ("vnet", "tap", "macvtap", "veth", "vif")
"""How the names of interfaces begin that belong to a VM or a container. Source: libvirt's own names."""

_NO_DRIVER = frozenset(
    {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED, libvirt.VIR_ERR_INVALID_ARG}
)
_GONE = frozenset(
    {libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_ERR_NO_NETWORK}
    | {libvirt.VIR_ERR_NO_INTERFACE}
)
_STATES = {
    libvirt.VIR_STORAGE_POOL_INACTIVE: PoolState.INACTIVE,
    libvirt.VIR_STORAGE_POOL_BUILDING: PoolState.BUILDING,
    libvirt.VIR_STORAGE_POOL_RUNNING: PoolState.ACTIVE,
    libvirt.VIR_STORAGE_POOL_DEGRADED: PoolState.DEGRADED,
    libvirt.VIR_STORAGE_POOL_INACCESSIBLE: PoolState.INACCESSIBLE,
}
_WITHOUT_SIZES = frozenset({PoolState.INACTIVE, PoolState.BUILDING})


@dataclass(frozen=True, slots=True)
class Found:
    """What a host has. None: it has no driver that could tell."""

    pools: tuple[SeenPool, ...] | None
    networks: tuple[SeenNetwork, ...] | None
    interfaces: tuple[SeenInterface, ...] | None


def resources(connection: libvirt.virConnect) -> Found:
    """Three lists, and a few calls for each entry; volumes are not looked at, pools not refreshed.

    Source: libvirt virConnectListAllStoragePools, virConnectListAllNetworks, virConnectListAllInterfaces.
    """
    pools = _listed(lambda: connection.listAllStoragePools(0), MAX_POOLS, _pool)
    return Found(
        pools and tuple(pool for pool in pools if not is_own(pool.name)),
        _listed(lambda: connection.listAllNetworks(0), MAX_NETWORKS, _network),
        _listed(lambda: _own_interfaces(connection), MAX_INTERFACES, _interface),
    )


def volumes(
    connection: libvirt.virConnect, name: str, node: NodeId, *, refresh: bool
) -> tuple[SeenPool, tuple[Volume, ...]]:
    """A pool's fresh figures, and what is in it.

    Args:
        connection: The host.
        name: The pool's.
        node: For the failure.
        refresh: Let libvirt look what is really there. Without it, and where that is refused, the list
            is as it was when libvirt last looked.

    Raises:
        OperationError: STORAGE if there is no such pool, or it is not active.

    Source: libvirt virStoragePoolRefresh, virStoragePoolListAllVolumes, virStorageVolGetXMLDesc.
    """
    try:
        pool = connection.storagePoolLookupByName(name)
        if refresh:
            with contextlib.suppress(libvirt.libvirtError):  # a volume is being made: as it was known then
                pool.refresh(0)
        handles = sorted(pool.listAllVolumes(0), key=lambda volume: str(volume.name()))
    except libvirt.libvirtError as error:
        ours = error.get_error_code() in (libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_OPERATION_INVALID)
        raise OperationError(failure_of(error, FailureCode.STORAGE if ours else None, node=node)) from None
    found: list[Volume] = []
    for place, handle in enumerate(handles):
        try:
            found.append(_volume(handle) if place < MAX_VOLUMES else _volume_name(handle))
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _GONE:
                raise
    return _pool(pool), tuple(found)


def _listed(ask: Callable[[], Sequence[Any]], most: int, read: Callable[[Any], T]) -> tuple[T, ...] | None:
    try:
        handles = ask()
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_DRIVER:
            return None
        raise
    found: list[T] = []
    for handle in handles[:most]:
        try:
            found.append(read(handle))
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _GONE:
                raise
    return tuple(found)


def _own_interfaces(connection: libvirt.virConnect) -> list[Any]:
    handles = connection.listAllInterfaces(0)
    return [each for each in handles if not each.name().startswith(GUESTS_INTERFACES) and each.name() != "lo"]


# --- one of each -----------------------------------------------------------------------------------


def _pool(handle: libvirt.virStoragePool) -> SeenPool:
    number, capacity, _, free = handle.info()
    state = _STATES.get(number, PoolState.INACCESSIBLE)
    has_sizes = state not in _WITHOUT_SIZES and capacity > 0
    return pool_of(
        handle.XMLDesc(0),
        name=_line(handle.name()),
        state=state,
        capacity_bytes=capacity if has_sizes else None,
        free_bytes=free if has_sizes else None,
        autostart=_flag(handle.autostart),
    )


def pool_of(xml: str, *, name: str, state: PoolState, **figures: Any) -> SeenPool:
    """A pool from its definition. Source: libvirt formatstorage.html."""
    root, trouble = _root(xml, "pool")
    if root is None:
        return SeenPool(name=name, kind="", state=state, trouble=trouble, **figures)
    source = root.find("source")
    hosts = () if source is None else tuple(filter(None, map(_host, source.findall("host")[:64])))
    return SeenPool(
        name=name,
        kind=_line(root.get("type")),
        state=state,
        format=_attribute(root, "source/format", "type"),
        hosts=hosts,
        source=_source(source),
        target=_line(root.findtext("target/path")),
        **figures,
    )


def _host(host: etree._Element) -> str:
    name, port = _line(host.get("name")), _line(host.get("port"))
    return f"{name}:{port}" if name and port else name


def _source(source: etree._Element | None) -> str:
    """What of its host a pool is: at most one of these stands there, but for gluster's folder."""
    if source is None:
        return ""
    named = _line(source.findtext("name"))
    folder = _attribute(source, "dir", "path")
    device = _attribute(source, "device", "path") or _attribute(source, "adapter", "name")
    if named and folder.strip("/"):
        return f"{named}/{folder.strip('/')}"
    return named or folder or device


def _volume(handle: libvirt.virStorageVol) -> Volume:
    return volume_of(handle.XMLDesc(0), _volume_name(handle))


def _volume_name(handle: libvirt.virStorageVol) -> Volume:
    key = _line(handle.key())
    return Volume(
        id=key or _line(handle.name()), name=_line(handle.name()), path=key if key[:1] == "/" else ""
    )


def volume_of(xml: str, known: Volume) -> Volume:
    """A volume from its definition, which has everything in one call. Source: libvirt formatstorage.html."""
    root, _ = _root(xml, "volume")
    if root is None:
        return known
    return Volume(
        id=known.id,
        name=known.name,
        path=_line(root.findtext("target/path")) or known.path,
        format=_attribute(root, "target/format", "type"),
        capacity_bytes=_bytes(root.find("capacity")),
        allocated_bytes=_bytes(root.find("allocation")),
        backing=_line(root.findtext("backingStore/path")),
    )


def _network(handle: libvirt.virNetwork) -> SeenNetwork:
    return network_of(
        handle.XMLDesc(0),
        name=_line(handle.name()),
        is_active=bool(handle.isActive()),
        autostart=_flag(handle.autostart),
    )


def network_of(xml: str, *, name: str, **state: Any) -> SeenNetwork:
    """A network from its definition. Source: libvirt formatnetwork.html."""
    root, trouble = _root(xml, "network")
    if root is None:
        return SeenNetwork(name=name, trouble=trouble, **state)
    forward = root.find("forward")
    return SeenNetwork(
        name=name,
        mode="isolated" if forward is None else _line(forward.get("mode")) or "nat",
        bridge=_attribute(root, "bridge", "name"),
        subnets=tuple(filter(None, (_network_of(ip) for ip in root.findall("ip")[:64]))),
        **state,
    )


def _network_of(ip: etree._Element) -> str:
    address = _address(ip, "address")
    return str(ip_interface(address).network) if address else ""


def _address(ip: etree._Element, of: str) -> str:
    """An address with its prefix; empty if it is none."""
    prefix = ip.get("prefix") or ip.get("netmask")
    try:
        return str(ip_interface(f"{ip.get(of)}/{prefix}" if prefix else str(ip.get(of))))
    except ValueError:
        return ""


def _interface(handle: libvirt.virInterface) -> SeenInterface:
    return interface_of(
        handle.XMLDesc(0),
        SeenInterface(
            name=_line(handle.name()), is_active=bool(handle.isActive()), mac=_line(handle.MACString())
        ),
    )


def interface_of(xml: str, known: SeenInterface) -> SeenInterface:
    """An interface from its definition. Source: libvirt formatinterface (not written up), and seen."""
    root, _ = _root(xml, "interface")
    if root is None:
        return known
    ports = [_line(e.get("name")) for way in ("bridge", "bond") for e in root.findall(f"{way}/interface")]
    return SeenInterface(
        name=known.name,
        kind=_line(root.get("type")) or known.kind,
        is_active=known.is_active,
        mac=known.mac,
        addresses=tuple(filter(None, (_address(ip, "address") for ip in root.findall("protocol/ip")[:64]))),
        ports=tuple(port for port in ports if port and not port.startswith(GUESTS_INTERFACES)),
        mtu=_number(_attribute(root, "mtu", "size")),
        speed_mbit=_number(_attribute(root, "link", "speed")),
    )


# --- text ------------------------------------------------------------------------------------------


def _root(xml: str, tag: str) -> tuple[etree._Element | None, str]:
    """The root of a definition, or why there is none."""
    if len(xml) > MAX_XML_BYTES:
        return None, f"its definition is larger than {MAX_XML_BYTES // 1024} KiB"
    try:
        root = root_of(xml)
    except ValueError as error:
        return None, cleaned(f"its definition cannot be read: {error}")
    return (root, "") if root.tag == tag else (None, cleaned(f"its definition is a <{root.tag}>"))


def _flag(ask: Callable[[], int]) -> bool:
    try:
        return bool(ask())
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_DRIVER | {libvirt.VIR_ERR_INTERNAL_ERROR}:
            return False  # a transient one has none
        raise


def _attribute(element: etree._Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else _line(found.get(name))


def _line(text: str | None) -> str:
    return cleaned(text.strip()[:MAX_VALUE]) if text else ""


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _bytes(element: etree._Element | None) -> int | None:
    """libvirt writes sizes in bytes, whatever was defined."""
    return None if element is None else _number((element.text or "").strip())

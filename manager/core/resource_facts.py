"""Storage pools, volumes, networks, interfaces as frozen values: what nodes say, and the cluster's rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from manager.core.ids import NetworkId, NodeId, PoolId
from manager.core.reasons import Reason

NEARLY_FULL_PERCENT = 85.0
"""From here on a pool's Information says how full it is."""

FULL_PERCENT = 95.0
"""From here on that is a problem."""


class PoolState(StrEnum):
    """A pool's state on one node. Source: libvirt virStoragePoolState."""

    ACTIVE = "Active"
    INACTIVE = "Inactive"
    BUILDING = "Being built"
    DEGRADED = "Degraded"  # usable
    INACCESSIBLE = "Inaccessible"

    @property
    def is_usable(self) -> bool:
        """Whether VMs can use what is in it."""
        return self in (PoolState.ACTIVE, PoolState.DEGRADED)


class PoolStatus(StrEnum):
    """What the administrator reads in a pool's Status cell."""

    ONLINE = "Online"  # on every node that should have it
    PARTLY = "Partly online"  # missing or not active on some
    OFFLINE = "Offline"  # active nowhere
    UNKNOWN = "Unknown"  # no node that has it is up


class NetworkStatus(StrEnum):
    """What the administrator reads in a network's Status cell."""

    UP = "Up"
    PARTLY = "Partly up"
    DOWN = "Down"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPool:
    """What one node says of one pool. Sizes are as libvirt found them when it last refreshed the pool.

    Source: libvirt virStoragePoolGetXMLDesc, virStoragePoolGetInfo, virStoragePoolGetAutostart.
    """

    name: str
    kind: str  # dir, fs, netfs, logical, iscsi, rbd, ...
    state: PoolState
    format: str = ""  # of the source: nfs, cifs, ext4
    hosts: tuple[str, ...] = ()  # that serve it, with their ports where they are given
    source: str = ""  # there: a folder, an IQN, a volume group, a pool of RBD
    target: str = ""  # the folder on this node, where there is one
    capacity_bytes: int | None = None
    free_bytes: int | None = None
    autostart: bool = False
    trouble: str = ""  # why part of the definition could not be understood

    @property
    def source_text(self) -> str:
        """Where it comes from, as people write it: ``nas-1:/export/vms``."""
        return ":".join(part for part in (", ".join(self.hosts), self.source) if part)

    @property
    def kind_text(self) -> str:
        """Its type; of a network file system, which one."""
        return self.format if self.kind == "netfs" and self.format not in ("", "auto") else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume of a pool. Source: libvirt virStorageVolGetXMLDesc."""

    id: str  # unique in its pool on its node
    name: str
    path: str = ""
    format: str = ""
    capacity_bytes: int | None = None  # None: not asked, there are too many
    allocated_bytes: int | None = None
    backing: str = ""  # the image that it builds on
    users: tuple[str, ...] | None = None  # names of the VMs that use it; None: not looked for yet
    overlays: int = 0  # volumes here that build on it


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNetwork:
    """What one node says of one of libvirt's networks. Source: libvirt virNetworkGetXMLDesc."""

    name: str
    is_active: bool
    mode: str = "isolated"  # nat, route, open, bridge, private, vepa, passthrough, hostdev, isolated
    bridge: str = ""
    subnets: tuple[str, ...] = ()  # CIDRs
    autostart: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenInterface:
    """What one node says of one of its own network interfaces. Source: libvirt virInterfaceGetXMLDesc."""

    name: str
    kind: str = "ethernet"  # ethernet, bridge, bond, vlan
    is_active: bool = True
    mac: str = ""
    addresses: tuple[str, ...] = ()  # with their prefixes, as far as the host tells
    ports: tuple[str, ...] = ()  # of a bridge or bond: the host's interfaces in it
    mtu: int | None = None
    speed_mbit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A storage pool as the window shows it: one row for all nodes that share it, else one per node."""

    id: PoolId
    name: str
    status: PoolStatus
    kind: str
    is_shared: bool
    source: str = ""
    target: str = ""
    nodes: tuple[NodeId, ...] = ()  # that have it
    missing: tuple[NodeId, ...] = ()  # nodes that are up, were read and do not have it
    inactive: tuple[NodeId, ...] = ()  # nodes that are up and have it, but cannot use it now
    capacity_bytes: int | None = None
    free_bytes: int | None = None
    autostart: bool = False  # on every node that has it
    information: Reason | None = None
    notes: tuple[Reason, ...] = ()

    @property
    def used_bytes(self) -> int | None:
        """What is not free."""
        if self.capacity_bytes is None or self.free_bytes is None:
            return None
        return max(0, self.capacity_bytes - self.free_bytes)

    @property
    def used_percent(self) -> float | None:
        """How full it is."""
        used = self.used_bytes
        return 100.0 * used / self.capacity_bytes if used is not None and self.capacity_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network as the window shows it: a network of libvirt's or a bridge, by its name on all nodes."""

    id: NetworkId
    name: str
    status: NetworkStatus
    kind: str  # bridge (of the hosts); of libvirt's: nat, route, open, ...
    is_bridge: bool
    use: str = ""  # what the cluster itself uses it for
    bridge: str = ""
    subnets: tuple[str, ...] = ()
    nodes: tuple[NodeId, ...] = ()
    missing: tuple[NodeId, ...] = ()
    inactive: tuple[NodeId, ...] = ()
    autostart: bool | None = None  # None: it has none
    information: Reason | None = None
    notes: tuple[Reason, ...] = ()

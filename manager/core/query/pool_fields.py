"""The fields of storage pools and of the volumes in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manager.core import units
from manager.core.cluster import ClusterView
from manager.core.query.spec import (
    CLUSTER,
    NOT_KNOWN,
    FieldKind,
    FieldSpec,
    attribute,
    join,
    on,
    percent,
    plain,
    yes_no,
)
from manager.core.resource_facts import Pool, PoolStatus, Volume


class Nodes(tuple[str, ...]):
    """Names of nodes; as text ``all 4``, ``3 of 4``, or the name of the one."""

    total: int  # nodes of the cluster

    @property
    def text(self) -> str:
        """Few enough for a cell."""
        if len(self) == 1:
            return self[0]
        return f"all {self.total}" if len(self) == self.total else f"{len(self)} of {self.total}"


def nodes_of(view: ClusterView, row: Any) -> Nodes:
    """The nodes that have a pool or a network."""
    nodes = Nodes(row.nodes)
    nodes.total = len(view.nodes)
    return nodes


def known(name: str) -> Callable[[ClusterView, Any], Any]:
    """A getter of an attribute that may not be known."""

    def get(view: ClusterView, row: Any) -> Any:
        value = getattr(row, name)
        return NOT_KNOWN if value is None else value

    return get


def _reach(view: ClusterView, pool: Pool) -> str:
    return "Shared" if pool.is_shared else "Local"


POOL_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="name",
        title="Name",
        kind=FieldKind.TEXT,
        doc="The pool's name, on most of its nodes.",
        get=attribute("name"),
        text=plain,
        depends=on("name"),
        width=140,
        searchable=True,
    ),
    FieldSpec(
        name="status",
        title="Status",
        kind=FieldKind.ENUM,
        doc="Online, Partly online (missing or not active on a node), Offline, Unknown.",
        get=lambda view, pool: pool.status.value,
        text=plain,
        words=tuple(status.value for status in PoolStatus),
        depends=on("status"),
        width=120,
        searchable=True,
    ),
    FieldSpec(
        name="reach",
        title="Assigned to",
        kind=FieldKind.ENUM,
        doc="Shared: the same storage on all nodes that have it. Local: one node's own.",
        get=_reach,
        text=plain,
        words=("Shared", "Local"),
        aliases=("assigned",),
        depends=on("is_shared"),
        width=90,
        searchable=True,
    ),
    FieldSpec(
        name="nodes",
        title="Nodes",
        kind=FieldKind.LIST,
        doc="Which nodes have the pool.",
        get=nodes_of,
        text=lambda nodes: nodes.text,
        json=list,
        aliases=("node",),
        depends=on("nodes"),
        width=90,
        searchable=True,
    ),
    FieldSpec(
        name="type",
        title="Type",
        kind=FieldKind.ENUM,
        doc="The type of the pool: dir, nfs, iscsi, rbd, logical and others of libvirt's.",
        get=attribute("kind"),
        text=plain,
        depends=on("kind"),
        width=70,
        searchable=True,
    ),
    FieldSpec(
        name="used",
        title="Used",
        unit="%",
        kind=FieldKind.PERCENT,
        doc="How full the pool is, as libvirt found it when the pool was last refreshed on its host.",
        get=known("used_percent"),
        text=percent,
        json=lambda value: round(value, 1),
        depends=on("capacity_bytes", "free_bytes"),
        width=150,
    ),
    FieldSpec(
        name="free_bytes",
        title="Free",
        kind=FieldKind.BYTES,
        doc="Free space.",
        get=known("free_bytes"),
        text=units.size_text,
        depends=on("free_bytes"),
        width=80,
    ),
    FieldSpec(
        name="capacity_bytes",
        title="Capacity",
        kind=FieldKind.BYTES,
        doc="Size of the storage behind the pool.",
        get=known("capacity_bytes"),
        text=units.size_text,
        depends=on("capacity_bytes"),
        width=80,
    ),
    FieldSpec(
        name="vms",
        title="VMs",
        kind=FieldKind.COUNT,
        doc="VMs that have a disk in the pool.",
        get=lambda view, pool: view.resources.count_users(pool.id),
        text=plain,
        depends=on("users"),
        width=60,
    ),
    FieldSpec(
        name="information",
        title="Information",
        kind=FieldKind.TEXT,
        doc="Where the pool is missing or not active, and how full it is once that matters.",
        get=lambda view, pool: "; ".join(note.text for note in pool.notes) or None,
        text=plain,
        prose=True,
        depends=on("notes"),
        width=340,
        searchable=True,
    ),
    FieldSpec(
        name="source",
        title="Source",
        kind=FieldKind.TEXT,
        doc="Where the storage comes from; by it pools are matched over the nodes.",
        get=lambda view, pool: pool.source or None,
        text=plain,
        prose=True,
        depends=on("source"),
        width=220,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="path",
        title="Path",
        kind=FieldKind.TEXT,
        doc="The folder in which the nodes have it.",
        get=lambda view, pool: pool.target or None,
        text=plain,
        prose=True,
        depends=on("target"),
        width=200,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="missing",
        title="Missing on",
        kind=FieldKind.LIST,
        doc="Nodes that are up and do not have it, if it is shared.",
        get=attribute("missing"),
        text=join,
        json=list,
        depends=on("missing"),
        width=120,
        shown=False,
    ),
    FieldSpec(
        name="inactive",
        title="Not active on",
        kind=FieldKind.LIST,
        doc="Nodes that are up and have it, but cannot use it now.",
        get=attribute("inactive"),
        text=join,
        json=list,
        depends=on("inactive"),
        width=120,
        shown=False,
    ),
    FieldSpec(
        name="autostart",
        title="Autostart",
        kind=FieldKind.BOOL,
        doc="Whether it starts with the host, on every node that has it.",
        get=attribute("autostart"),
        text=yes_no,
        depends=on("autostart"),
        width=80,
        shown=False,
    ),
    CLUSTER,
)


def _users(view: ClusterView, volume: Volume) -> Any:
    if volume.users is None:
        return NOT_KNOWN
    if volume.overlays:
        return (*volume.users, f"base of {units.count_text(volume.overlays, 'volume')}")
    return volume.users


VOLUME_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="name",
        title="Name",
        kind=FieldKind.TEXT,
        doc="The volume's name in its pool.",
        get=attribute("name"),
        text=plain,
        depends=on("name"),
        width=200,
        searchable=True,
    ),
    FieldSpec(
        name="users",
        title="Used by",
        kind=FieldKind.LIST,
        doc="VMs that have it as a disk, and how many volumes of the pool build on it.",
        get=_users,
        text=join,
        json=list,
        depends=on("users", "overlays"),
        width=180,
        searchable=True,
    ),
    FieldSpec(
        name="format",
        title="Format",
        kind=FieldKind.ENUM,
        doc="The image's format.",
        get=lambda view, volume: volume.format or None,
        text=plain,
        depends=on("format"),
        width=70,
        searchable=True,
    ),
    FieldSpec(
        name="capacity_bytes",
        title="Capacity",
        kind=FieldKind.BYTES,
        doc="The size that a VM sees.",
        get=known("capacity_bytes"),
        text=units.size_text,
        depends=on("capacity_bytes"),
        width=80,
    ),
    FieldSpec(
        name="allocated_bytes",
        title="Allocated",
        kind=FieldKind.BYTES,
        doc="What it takes of the pool.",
        get=known("allocated_bytes"),
        text=units.size_text,
        depends=on("allocated_bytes"),
        width=80,
    ),
    FieldSpec(
        name="path",
        title="Path",
        kind=FieldKind.TEXT,
        doc="Where it is on the node that was asked.",
        get=lambda view, volume: volume.path or None,
        text=plain,
        prose=True,
        depends=on("path"),
        width=280,
        searchable=True,
    ),
    FieldSpec(
        name="backing",
        title="Builds on",
        kind=FieldKind.TEXT,
        doc="The image of which it holds only what differs.",
        get=lambda view, volume: volume.backing or None,
        text=plain,
        prose=True,
        depends=on("backing"),
        width=200,
        shown=False,
        searchable=True,
    ),
)

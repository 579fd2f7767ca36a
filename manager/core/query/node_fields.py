"""The fields of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manager.core import units
from manager.core.cluster import ClusterView
from manager.core.model import Node, NodeLoad, NodeStatus
from manager.core.query.spec import (
    CLUSTER,
    NOT_KNOWN,
    NOT_SAMPLED,
    FieldKind,
    FieldSpec,
    attribute,
    gib,
    on,
    percent,
    plain,
)
from manager.core.reasons import ReasonCode, because


def _node_load(name: str) -> Callable[[ClusterView, Node], Any]:
    def get(view: ClusterView, node: Node) -> Any:
        load: NodeLoad | None = view.node_loads.get(node.id)
        value = getattr(load, name) if load and node.is_up else None
        return NOT_SAMPLED if value is None else value

    return get


def _facts(pick: Callable[[Any], Any]) -> Callable[[ClusterView, Node], Any]:
    return lambda view, node: pick(node.facts) if node.facts else NOT_KNOWN


def _node_information(view: ClusterView, node: Node) -> str | None:
    told = [reason for reason in (node.work, node.information) if reason is not None]
    told += [because(ReasonCode.HELD_BY, who=h.who, why=h.why, since=h.since_s) for h in node.holds]
    return "; ".join(reason.text for reason in told) or None


def _node_moves(view: ClusterView, node: Node) -> Any:
    out, into = view.moving(node.id)
    return (out, into) if out or into else None


def _moves_text(value: tuple[int, int]) -> str:
    parts = [f"{count} {word}" for count, word in zip(value, ("out", "in"), strict=True) if count]
    return f"⇄ {', '.join(parts)}"


def _free_mib(view: ClusterView, node: Node) -> Any:
    load = view.node_loads.get(node.id)
    if load is not None and load.memory_free_mib is not None and node.is_up:
        return load.memory_free_mib
    if node.facts is None or not node.is_up:
        return NOT_KNOWN
    return max(0, node.facts.memory_mib - view.committed_mib(node.id))


NODE_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="name",
        title="Name",
        kind=FieldKind.TEXT,
        doc="The node's name in the cluster file.",
        get=attribute("id"),
        text=plain,
        depends=frozenset(),
        width=140,
        searchable=True,
    ),
    FieldSpec(
        name="status",
        title="Status",
        kind=FieldKind.ENUM,
        doc="Whether the node is connected: Up, Connecting, Unknown, Login failed, Incompatible.",
        get=lambda view, node: "Paused" if node.is_up and node.holds else node.status.value,
        text=plain,
        words=("Paused", *(status.value for status in NodeStatus)),
        depends=on("status", "holds"),
        width=120,
        searchable=True,
    ),
    FieldSpec(
        name="vms",
        title="VMs",
        kind=FieldKind.COUNT,
        doc="VMs whose owner is this node.",
        get=attribute("vms_total"),
        text=plain,
        depends=on("vms_total"),
        width=60,
    ),
    FieldSpec(
        name="running",
        title="Running",
        kind=FieldKind.COUNT,
        doc="VMs that run on this node.",
        get=attribute("vms_running"),
        text=plain,
        depends=on("vms_running"),
        width=70,
    ),
    FieldSpec(
        name="moves",
        title="Moves",
        kind=FieldKind.TEXT,
        doc="Moves under way out of the node and into it, whoever started them.",
        get=_node_moves,
        text=_moves_text,
        json=lambda value: {"out": value[0], "in": value[1]},
        depends=on("moving", "moves"),
        width=110,
    ),
    FieldSpec(
        name="cpus",
        title="CPUs",
        kind=FieldKind.COUNT,
        doc="Logical CPUs of the host.",
        get=_facts(lambda f: f.cpus),
        text=plain,
        depends=on("facts"),
        width=60,
    ),
    FieldSpec(
        name="cpu",
        title="CPU",
        unit="%",
        kind=FieldKind.PERCENT,
        doc="Use of the host's CPUs.",
        get=_node_load("cpu_percent"),
        text=percent,
        depends=on("load", "status"),
        width=62,
        sample=True,
    ),
    FieldSpec(
        name="memory_mib",
        title="Memory",
        unit="GiB",
        kind=FieldKind.SIZE_MIB,
        doc="Memory of the host.",
        get=_facts(lambda f: f.memory_mib),
        text=gib,
        depends=on("facts"),
        width=90,
    ),
    FieldSpec(
        name="memory_free_mib",
        title="Free",
        unit="GiB",
        kind=FieldKind.SIZE_MIB,
        doc="Memory that is free: as the host says, or what its running VMs leave.",
        get=_free_mib,
        text=gib,
        aliases=("free",),
        depends=on("load", "facts", "status", "committed"),
        width=80,
    ),
    FieldSpec(
        name="information",
        title="Information",
        kind=FieldKind.TEXT,
        doc="Why the node is in its state and what happens next.",
        get=_node_information,
        text=plain,
        json=plain,
        prose=True,
        depends=on("information", "holds", "work"),
        width=340,
        searchable=True,
    ),
    FieldSpec(
        name="uri",
        title="Connection",
        kind=FieldKind.TEXT,
        doc="The libvirt URI by which this computer reaches the node.",
        get=attribute("uri"),
        text=plain,
        prose=True,
        depends=frozenset(),
        width=260,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="drain",
        title="Drain",
        kind=FieldKind.ENUM,
        doc="How far a drain of the node has come.",
        get=lambda view, node: node.drain.value,
        text=plain,
        depends=on("holds"),
        width=90,
        shown=False,
    ),
    FieldSpec(
        name="hostname",
        title="Host name",
        kind=FieldKind.TEXT,
        doc="What the host calls itself.",
        get=_facts(lambda f: f.hostname),
        text=plain,
        depends=on("facts"),
        width=140,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="cpu_model",
        title="CPU model",
        kind=FieldKind.TEXT,
        doc="The host's CPU model as libvirt names it.",
        get=_facts(lambda f: f.cpu_model),
        text=plain,
        prose=True,
        depends=on("facts"),
        width=140,
        shown=False,
    ),
    FieldSpec(
        name="hypervisor",
        title="Hypervisor",
        kind=FieldKind.TEXT,
        doc="Hypervisor and libvirt versions.",
        get=_facts(lambda f: f"{f.hypervisor} {f.hypervisor_version}, libvirt {f.libvirt_version}"),
        text=plain,
        prose=True,
        depends=on("facts"),
        width=200,
        shown=False,
    ),
    FieldSpec(
        name="last_seen",
        title="Last seen",
        kind=FieldKind.TIME,
        doc="When the node was last known to answer.",
        get=lambda view, node: NOT_KNOWN if node.last_seen_s is None else node.last_seen_s,
        text=units.time_text,
        json=units.iso_text,
        depends=on("last_seen_s"),
        width=90,
        shown=False,
    ),
    CLUSTER,
)

"""The fields of VMs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manager.core import edits, units, vault
from manager.core.cluster import ClusterView
from manager.core.model import Activity, AgentState, Priority, StatusCause, Vm, VmLoad, VmStatus
from manager.core.placement import planner
from manager.core.query.spec import (
    BEING_READ,
    CLUSTER,
    NOT_KNOWN,
    NOT_SAMPLED,
    FieldKind,
    FieldSpec,
    Unavailable,
    attribute,
    gib,
    join,
    on,
    percent,
    plain,
    yes_no,
)
from manager.core.reasons import TROUBLES


def _config(pick: Callable[[Any], Any]) -> Callable[[ClusterView, Vm], Any]:
    return lambda view, vm: pick(vm.config) if vm.config else BEING_READ


PRIORITIES = {word: p.value for p in Priority for word in (p.title.lower(), p.name.lower().replace("_", "-"))}
"""Every way to write a priority, with its number."""


def _figure(pick: Callable[[Any], Any]) -> Callable[[ClusterView, Vm], Any]:
    """A figure of the definition: while the VM's node is silent it is what it was, and nobody knows."""

    def get(view: ClusterView, vm: Vm) -> Any:
        if vm.config is None:
            return BEING_READ
        value = pick(vm.config)
        return Unavailable(NOT_KNOWN.reason, last=value) if vm.status is VmStatus.UNKNOWN else value

    return get


def _attention(view: ClusterView, vm: Vm) -> bool:
    paused = vm.status is VmStatus.PAUSED and vm.cause not in (StatusCause.NONE, StatusCause.USER)
    failed = vm.information is not None and vm.information.code in TROUBLES
    lost = vm.status in (VmStatus.CRASHED, VmStatus.UNKNOWN)
    return vm.alarm or lost or failed or (paused and not vm.activity)


def _vm_load(name: str) -> Callable[[ClusterView, Vm], Any]:
    def get(view: ClusterView, vm: Vm) -> Any:
        if vm.status is not VmStatus.RUNNING:
            return None
        load: VmLoad | None = view.vm_loads.get(vm.id)
        value = getattr(load, name) if load else None
        return NOT_SAMPLED if value is None else value

    return get


def status_text(vm: Vm) -> str:
    """A VM's status as people read it: ``Paused: disk error``, ``Unknown (was Running)``."""
    if vm.status is VmStatus.UNKNOWN:
        return f"Unknown (was {vm.was.value})" if vm.was else "Unknown"
    if vm.status is VmStatus.PAUSED and vm.cause not in (StatusCause.NONE, StatusCause.USER):
        return f"Paused: {vm.cause.value}"
    return str(vm.status)


def _vm_uptime(view: ClusterView, vm: Vm) -> Any:
    if vm.status is not VmStatus.RUNNING:
        return None
    return NOT_KNOWN if vm.started_at_s is None else max(0.0, view.now_s - vm.started_at_s)


def _vm_owner_text(view: ClusterView, vm: Vm) -> Any:
    return f"{vm.owner} → {vm.moving_to}" if vm.moving_to else vm.owner


def _movable(view: ClusterView, vm: Vm) -> Any:
    if vm.config is None:
        return BEING_READ
    return not planner.obstacles(view.config, vm)


VM_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="name",
        title="Name",
        kind=FieldKind.TEXT,
        doc="The VM's name on its owner node.",
        get=attribute("name"),
        text=plain,
        depends=on("name"),
        width=150,
        searchable=True,
    ),
    FieldSpec(
        name="status",
        title="Status",
        kind=FieldKind.ENUM,
        doc="The VM's stable state, with its cause where there is one.",
        get=lambda view, vm: status_text(vm),
        text=plain,
        json=lambda text: text.partition(":")[0].partition(" (")[0],
        words=tuple(status.value for status in VmStatus),
        depends=on("status", "cause", "was"),
        width=172,
        searchable=True,
    ),
    FieldSpec(
        name="activity",
        title="Activity",
        kind=FieldKind.ENUM,
        doc="What is being done to the VM right now.",
        get=lambda view, vm: vm.activity.value,
        text=plain,
        words=tuple(activity.value for activity in Activity if activity.value),
        depends=on("activity"),
        width=110,
        searchable=True,
    ),
    FieldSpec(
        name="owner",
        title="Owner node",
        kind=FieldKind.TEXT,
        doc="The node that has the VM; while it moves also the target.",
        get=_vm_owner_text,
        text=plain,
        json=lambda value: value.partition(" → ")[0],
        aliases=("node",),
        depends=on("owner", "moving_to"),
        width=110,
        searchable=True,
    ),
    FieldSpec(
        name="priority",
        title="Priority",
        kind=FieldKind.ENUM,
        doc="Start order and right of way: High, Medium, Low, No Auto Start.",
        get=_config(lambda config: config.settings.priority),
        text=lambda value: value.title,
        json=lambda value: value.title,
        words=tuple(p.title for p in Priority),
        ranks=PRIORITIES,
        depends=on("config"),
        width=100,
        searchable=True,
    ),
    FieldSpec(
        name="cpu",
        title="CPU",
        unit="%",
        kind=FieldKind.PERCENT,
        doc="Use of the VM's vCPUs.",
        get=_vm_load("cpu_percent"),
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
        doc="Memory assigned to the VM.",
        get=_figure(lambda config: config.memory_mib),
        text=gib,
        depends=on("config", "status"),
        width=90,
    ),
    FieldSpec(
        name="vcpus",
        title="vCPUs",
        kind=FieldKind.COUNT,
        doc="Virtual CPUs assigned to the VM.",
        get=_figure(lambda config: config.vcpus),
        text=plain,
        depends=on("config", "status"),
        width=62,
        shown=False,
    ),
    FieldSpec(
        name="uptime_s",
        title="Uptime",
        kind=FieldKind.SECONDS,
        doc="Time since the VM started, where a host or an event told it.",
        get=_vm_uptime,
        text=units.duration_text,
        depends=on("started_at_s", "status"),
        width=90,
    ),
    FieldSpec(
        name="tags",
        title="Tags",
        kind=FieldKind.LIST,
        doc="Words given to the VM.",
        get=_config(lambda config: config.settings.tags),
        text=join,
        json=list,
        aliases=("tag",),
        depends=on("config"),
        width=110,
        searchable=True,
    ),
    FieldSpec(
        name="preferred_owners",
        title="Preferred owners",
        kind=FieldKind.LIST,
        doc="The nodes that are tried first when the VM is placed, in order.",
        get=_config(lambda config: config.settings.preferred_owners),
        text=join,
        json=list,
        aliases=("preferred",),
        depends=on("config"),
        width=120,
        shown=False,
    ),
    FieldSpec(
        name="possible_owners",
        title="Possible owners",
        kind=FieldKind.LIST,
        doc="The nodes that the VM may move to; none: all.",
        get=_config(lambda config: config.settings.possible_owners),
        text=join,
        json=list,
        aliases=("possible",),
        depends=on("config"),
        width=120,
        shown=False,
    ),
    FieldSpec(
        name="rules",
        title="Rules",
        kind=FieldKind.LIST,
        doc="Of which groups the VM is kept apart from the others, or together with them.",
        get=_config(lambda config: tuple(rule.text for rule in config.settings.rules)),
        text=join,
        json=list,
        prose=True,
        aliases=("rule",),
        depends=on("config"),
        width=140,
        shown=False,
    ),
    FieldSpec(
        name="information",
        title="Information",
        kind=FieldKind.TEXT,
        doc="What there is to know: progress, what it waits for, why it is as it is.",
        get=lambda view, vm: vm.information.text if vm.information else None,
        text=plain,
        json=plain,
        prose=True,
        depends=on("information"),
        width=340,
        searchable=True,
    ),
    FieldSpec(
        name="uuid",
        title="UUID",
        kind=FieldKind.TEXT,
        doc="The VM's UUID, the same on every node.",
        get=attribute("id"),
        text=plain,
        depends=frozenset(),
        width=260,
        shown=False,
    ),
    FieldSpec(
        name="type",
        title="Type",
        kind=FieldKind.ENUM,
        doc="The type of the role.",
        get=lambda view, vm: "Virtual machine",
        text=plain,
        depends=frozenset(),
        width=110,
        shown=False,
    ),
    FieldSpec(
        name="agent",
        title="Guest agent",
        kind=FieldKind.ENUM,
        doc="Whether the guest agent answers.",
        get=_config(lambda config: config.agent.value),
        text=plain,
        words=tuple(state.value for state in AgentState),
        depends=on("config"),
        width=100,
        shown=False,
    ),
    FieldSpec(
        name="movable",
        title="Movable",
        kind=FieldKind.BOOL,
        doc="Whether nothing of the VM's own, and no other authority, keeps it from being moved live.",
        get=_movable,
        text=yes_no,
        depends=on("config", "authority"),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="attention",
        title="Needs attention",
        kind=FieldKind.BOOL,
        doc="Crashed, paused by itself, running twice, its node is silent, or an action on it failed.",
        get=_attention,
        text=yes_no,
        depends=on("status", "cause", "alarm", "activity", "information"),
        width=110,
        shown=False,
    ),
    FieldSpec(
        name="changed",
        title="Changed",
        kind=FieldKind.TIME,
        doc="When its state was last seen to change.",
        get=attribute("changed_at_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=on("changed_at_s"),
        width=90,
        shown=False,
    ),
    FieldSpec(
        name="autostart",
        title="Autostart",
        kind=FieldKind.BOOL,
        doc="Whether its node starts it when the node starts.",
        get=_config(lambda config: config.autostart),
        text=yes_no,
        depends=on("config"),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="snapshots",
        title="Snapshots",
        kind=FieldKind.COUNT,
        doc="How many snapshots it has.",
        get=_figure(lambda config: config.snapshots),
        text=plain,
        depends=on("config", "status"),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="machine",
        title="Machine",
        kind=FieldKind.TEXT,
        doc="The machine type of its definition.",
        get=_config(lambda config: config.machine or None),
        text=plain,
        depends=on("config"),
        width=120,
        shown=False,
    ),
    FieldSpec(
        name="disks",
        title="Disks",
        kind=FieldKind.LIST,
        doc="The VM's disks and CDs with their sources.",
        get=_config(lambda c: tuple(f"{d.target}: {d.source or 'empty'}" for d in c.disks)),
        text=join,
        json=list,
        prose=True,
        aliases=("disk",),
        depends=on("config"),
        width=220,
        shown=False,
    ),
    FieldSpec(
        name="networks",
        title="Networks",
        kind=FieldKind.LIST,
        doc="The bridges and networks that the VM is connected to.",
        get=_config(lambda c: tuple(dict.fromkeys(i.source or i.kind for i in c.interfaces))),
        text=join,
        json=list,
        aliases=("network",),
        depends=on("config"),
        width=120,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="needs_restart",
        title="Needs restart",
        kind=FieldKind.LIST,
        doc="What the VM will have only from its next start: where its stored definition differs.",
        get=_config(edits.pending),
        text=join,
        json=list,
        depends=on("config"),
        width=130,
        shown=False,
    ),
    FieldSpec(
        name="recoverable",
        title="Recoverable elsewhere",
        kind=FieldKind.ENUM,
        doc="Whether the VM can be started on another node when its own is dead, and why not.",
        get=lambda view, vm: vault.recovery(view, vm) or BEING_READ,
        text=lambda found: found.text,
        json=lambda found: found.text.partition(":")[0],
        words=("yes", "no"),
        depends=on("config", "owner", "authority", "status", "kept"),
        width=160,
        shown=False,
        volatile=True,
    ),
    FieldSpec(
        name="title",
        title="Title",
        kind=FieldKind.TEXT,
        doc="The title in the VM's definition.",
        get=_config(lambda config: config.title or None),
        text=plain,
        depends=on("config"),
        width=160,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="other_nodes",
        title="Also defined on",
        kind=FieldKind.LIST,
        doc="Other nodes that have a definition of the same UUID.",
        get=attribute("other_nodes"),
        text=join,
        json=list,
        depends=on("other_nodes"),
        width=110,
        shown=False,
    ),
    CLUSTER,
)

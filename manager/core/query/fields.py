"""One declaration per field: column, sort key, command-line column, JSON key, export, query term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from natsort import natsort_keygen

from manager.core import units
from manager.core.actions import ACTIONS
from manager.core.cluster import ClusterView
from manager.core.ids import Kind
from manager.core.migration import summary
from manager.core.migration.moves import MoveStep
from manager.core.migration.summary import OTHERS, others_text
from manager.core.model import MoveType, Node, NodeLoad, Priority, Problem, Vm, VmLoad, VmStatus
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode, because


@dataclass(frozen=True, slots=True)
class Unavailable:
    """In place of a value: it is not known, and why. Neither more nor less than any value."""

    reason: Reason


class FieldKind(StrEnum):
    """What a field's values are; decides alignment, sorting and JSON."""

    TEXT = "text"
    ENUM = "enum"
    COUNT = "count"
    SIZE_MIB = "MiB"
    PERCENT = "percent"
    SECONDS = "seconds"  # a span
    TIME = "time"  # a moment, epoch seconds
    RATE = "bytes/s"
    BYTES = "bytes"
    LIST = "list"
    BOOL = "yes/no"

    @property
    def is_number(self) -> bool:
        """Right-aligned, tabular figures."""
        return self not in (FieldKind.TEXT, FieldKind.ENUM, FieldKind.LIST, FieldKind.BOOL)


BEING_READ = Unavailable(because(ReasonCode.BEING_READ))
NOT_SAMPLED = Unavailable(because(ReasonCode.NOT_SAMPLED))
NOT_KNOWN = Unavailable(because(ReasonCode.NOT_KNOWN))

natural = natsort_keygen()
"""Key that sorts ``web-2`` before ``web-10``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """A field of one kind of object. `get` returns a plain value, None (nothing to say) or `Unavailable`."""

    name: str  # JSON key, query term, --columns word
    title: str  # column header
    kind: FieldKind
    doc: str
    get: Callable[[ClusterView, Any], Any]
    text: Callable[[Any], str]
    depends: frozenset[str]  # attributes of the row whose change changes this field
    width: int = 100  # default column width in pixels
    shown: bool = True  # a column unless chosen otherwise
    unit: str = ""  # in the header where all rows share one
    json: Callable[[Any], Any] = lambda value: value
    searchable: bool = False  # part of what the search box looks at
    sample: bool = False  # needs load samples: shown columns ask for them
    volatile: bool = False  # follows from other rows too: its text is never kept

    def value(self, view: ClusterView, row: Any) -> Any:
        """The value for one row (a `Vm`, `Node`, `Operation` or `Problem`)."""
        return self.get(view, row)

    def cell(self, view: ClusterView, row: Any) -> str:
        """The text people read; nothing else formats it."""
        value = self.get(view, row)
        if value is None:
            return ""
        if isinstance(value, Unavailable):
            return "…" if value is BEING_READ else "–"
        return self.text(value)

    def as_json(self, view: ClusterView, row: Any) -> Any:
        """The value for JSON; unknown and nothing are null."""
        value = self.get(view, row)
        return None if value is None or isinstance(value, Unavailable) else self.json(value)

    def sort_key(self, view: ClusterView, row: Any) -> Any:
        """A key that orders rows; what is not known comes last."""
        value = self.get(view, row)
        if value is None or isinstance(value, Unavailable):
            return (1, 0) if self.kind.is_number else (1, ())
        if self.kind.is_number or isinstance(value, int):  # a yes or no, or steps with an order of their own
            return (0, value)
        if self.kind is FieldKind.LIST:
            return (0, natural(", ".join(value).lower()))
        return (0, natural(self.text(value).lower()))


def _attribute(name: str) -> Callable[[ClusterView, Any], Any]:
    return lambda view, row: getattr(row, name)


def _config(pick: Callable[[Any], Any]) -> Callable[[ClusterView, Vm], Any]:
    return lambda view, vm: pick(vm.config) if vm.config else BEING_READ


def _vm_load(name: str) -> Callable[[ClusterView, Vm], Any]:
    def get(view: ClusterView, vm: Vm) -> Any:
        if vm.status is not VmStatus.RUNNING:
            return None
        load: VmLoad | None = view.vm_loads.get(vm.id)
        value = getattr(load, name) if load else None
        return NOT_SAMPLED if value is None else value

    return get


def _node_load(name: str) -> Callable[[ClusterView, Node], Any]:
    def get(view: ClusterView, node: Node) -> Any:
        load: NodeLoad | None = view.node_loads.get(node.id)
        value = getattr(load, name) if load and node.is_up else None
        return NOT_SAMPLED if value is None else value

    return get


def _facts(pick: Callable[[Any], Any]) -> Callable[[ClusterView, Node], Any]:
    return lambda view, node: pick(node.facts) if node.facts else NOT_KNOWN


def status_text(vm: Vm) -> str:
    """A VM's status as people read it: ``Paused: disk error``, ``Unknown (was Running)``."""
    if vm.status is VmStatus.UNKNOWN:
        return f"Unknown (was {vm.was.value})" if vm.was else "Unknown"
    if vm.status is VmStatus.PAUSED and vm.cause.value and vm.cause.name != "USER":
        return f"Paused: {vm.cause.value}"
    return vm.status.value


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


def _node_information(view: ClusterView, node: Node) -> str | None:
    told = [node.information] if node.information else []
    told += [because(ReasonCode.HELD_BY, who=hold.who, why=hold.why) for hold in node.holds]
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


_plain = str


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _percent(value: float) -> str:
    return f"{value:.0f}"


def _gib(value_mib: float) -> str:
    gib = value_mib / 1024
    return f"{gib:.0f}" if gib == int(gib) else f"{gib:.1f}" if gib >= 0.95 else f"{gib:.2f}"


def _join(values: tuple[str, ...]) -> str:
    return ", ".join(values)


def _on(*names: str) -> frozenset[str]:
    return frozenset(names)


VM_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="name",
        title="Name",
        kind=FieldKind.TEXT,
        doc="The VM's name on its owner node.",
        get=_attribute("name"),
        text=_plain,
        depends=_on("name"),
        width=150,
        searchable=True,
    ),
    FieldSpec(
        name="status",
        title="Status",
        kind=FieldKind.ENUM,
        doc="The VM's stable state, with its cause where there is one.",
        get=lambda view, vm: vm,
        text=status_text,
        json=lambda vm: vm.status.value,
        depends=_on("status", "cause", "was"),
        width=150,
        searchable=True,
    ),
    FieldSpec(
        name="activity",
        title="Activity",
        kind=FieldKind.ENUM,
        doc="What is being done to the VM right now.",
        get=lambda view, vm: vm.activity.value,
        text=_plain,
        depends=_on("activity"),
        width=110,
        searchable=True,
    ),
    FieldSpec(
        name="owner",
        title="Owner node",
        kind=FieldKind.TEXT,
        doc="The node that has the VM; while it moves also the target.",
        get=_vm_owner_text,
        text=_plain,
        json=lambda value: value.partition(" → ")[0],
        depends=_on("owner", "moving_to"),
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
        depends=_on("config"),
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
        text=_percent,
        depends=_on("load", "status"),
        width=62,
        sample=True,
    ),
    FieldSpec(
        name="memory_mib",
        title="Memory",
        unit="GiB",
        kind=FieldKind.SIZE_MIB,
        doc="Memory assigned to the VM.",
        get=_config(lambda config: config.memory_mib),
        text=_gib,
        depends=_on("config"),
        width=90,
    ),
    FieldSpec(
        name="vcpus",
        title="vCPUs",
        kind=FieldKind.COUNT,
        doc="Virtual CPUs assigned to the VM.",
        get=_config(lambda config: config.vcpus),
        text=_plain,
        depends=_on("config"),
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
        depends=_on("started_at_s", "status"),
        width=90,
    ),
    FieldSpec(
        name="tags",
        title="Tags",
        kind=FieldKind.LIST,
        doc="Words given to the VM.",
        get=_config(lambda config: config.settings.tags),
        text=_join,
        json=list,
        depends=_on("config"),
        width=110,
        searchable=True,
    ),
    FieldSpec(
        name="information",
        title="Information",
        kind=FieldKind.TEXT,
        doc="What there is to know: progress, what it waits for, why it is as it is.",
        get=lambda view, vm: vm.information.text if vm.information else None,
        text=_plain,
        json=_plain,
        depends=_on("information"),
        width=340,
        searchable=True,
    ),
    FieldSpec(
        name="uuid",
        title="UUID",
        kind=FieldKind.TEXT,
        doc="The VM's UUID, the same on every node.",
        get=_attribute("id"),
        text=_plain,
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
        text=_plain,
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
        text=_plain,
        depends=_on("config"),
        width=100,
        shown=False,
    ),
    FieldSpec(
        name="movable",
        title="Movable",
        kind=FieldKind.BOOL,
        doc="Whether nothing of the VM's own, and no other authority, keeps it from being moved live.",
        get=_movable,
        text=_yes_no,
        depends=_on("config", "authority"),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="disks",
        title="Disks",
        kind=FieldKind.LIST,
        doc="The VM's disks and CDs with their sources.",
        get=_config(lambda c: tuple(f"{d.target}: {d.source or 'empty'}" for d in c.disks)),
        text=_join,
        json=list,
        depends=_on("config"),
        width=220,
        shown=False,
    ),
    FieldSpec(
        name="networks",
        title="Networks",
        kind=FieldKind.LIST,
        doc="The bridges and networks that the VM is connected to.",
        get=_config(lambda c: tuple(dict.fromkeys(i.source or i.kind for i in c.interfaces))),
        text=_join,
        json=list,
        depends=_on("config"),
        width=120,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="other_nodes",
        title="Also defined on",
        kind=FieldKind.LIST,
        doc="Other nodes that have a definition of the same UUID.",
        get=_attribute("other_nodes"),
        text=_join,
        json=list,
        depends=_on("other_nodes"),
        width=110,
        shown=False,
    ),
)

NODE_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="name",
        title="Name",
        kind=FieldKind.TEXT,
        doc="The node's name in the cluster file.",
        get=_attribute("id"),
        text=_plain,
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
        text=_plain,
        depends=_on("status", "holds"),
        width=120,
        searchable=True,
    ),
    FieldSpec(
        name="vms",
        title="VMs",
        kind=FieldKind.COUNT,
        doc="VMs whose owner is this node.",
        get=_attribute("vms_total"),
        text=_plain,
        depends=_on("vms_total"),
        width=60,
    ),
    FieldSpec(
        name="running",
        title="Running",
        kind=FieldKind.COUNT,
        doc="VMs that run on this node.",
        get=_attribute("vms_running"),
        text=_plain,
        depends=_on("vms_running"),
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
        depends=_on("moving", "moves"),
        width=110,
    ),
    FieldSpec(
        name="cpus",
        title="CPUs",
        kind=FieldKind.COUNT,
        doc="Logical CPUs of the host.",
        get=_facts(lambda f: f.cpus),
        text=_plain,
        depends=_on("facts"),
        width=60,
    ),
    FieldSpec(
        name="cpu",
        title="CPU",
        unit="%",
        kind=FieldKind.PERCENT,
        doc="Use of the host's CPUs.",
        get=_node_load("cpu_percent"),
        text=_percent,
        depends=_on("load", "status"),
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
        text=_gib,
        depends=_on("facts"),
        width=90,
    ),
    FieldSpec(
        name="memory_free_mib",
        title="Free",
        unit="GiB",
        kind=FieldKind.SIZE_MIB,
        doc="Memory that is free: as the host says, or what its running VMs leave.",
        get=_free_mib,
        text=_gib,
        depends=_on("load", "facts", "status", "committed"),
        width=80,
    ),
    FieldSpec(
        name="information",
        title="Information",
        kind=FieldKind.TEXT,
        doc="Why the node is in its state and what happens next.",
        get=_node_information,
        text=_plain,
        json=_plain,
        depends=_on("information", "holds"),
        width=340,
        searchable=True,
    ),
    FieldSpec(
        name="uri",
        title="Connection",
        kind=FieldKind.TEXT,
        doc="The libvirt URI by which this computer reaches the node.",
        get=_attribute("uri"),
        text=_plain,
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
        text=_plain,
        depends=_on("drain"),
        width=90,
        shown=False,
    ),
    FieldSpec(
        name="hostname",
        title="Host name",
        kind=FieldKind.TEXT,
        doc="What the host calls itself.",
        get=_facts(lambda f: f.hostname),
        text=_plain,
        depends=_on("facts"),
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
        text=_plain,
        depends=_on("facts"),
        width=140,
        shown=False,
    ),
    FieldSpec(
        name="hypervisor",
        title="Hypervisor",
        kind=FieldKind.TEXT,
        doc="Hypervisor and libvirt versions.",
        get=_facts(lambda f: f"{f.hypervisor} {f.hypervisor_version}, libvirt {f.libvirt_version}"),
        text=_plain,
        depends=_on("facts"),
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
        depends=_on("last_seen_s"),
        width=90,
        shown=False,
    ),
)


def _move_figure(name: str) -> Callable[[ClusterView, Operation], Any]:
    def get(view: ClusterView, operation: Operation) -> Any:
        figures = view.progress.get(operation.id)
        if figures is None or (not figures.total_bytes and name != "elapsed_s"):
            return None
        return getattr(figures, name)

    return get


def _percent_done(view: ClusterView, operation: Operation) -> Any:
    if operation.state is OperationState.DONE:
        return 100
    figures = view.progress.get(operation.id)
    return figures.percent if figures else None


_STEPS = {
    MoveStep.COPY_DISKS: "Copying disks",
    MoveStep.SAVE: "Saving",
    MoveStep.SHUT_DOWN: "Shutting down",
    MoveStep.TURN_OFF: "Turning off",
    MoveStep.DEFINE: "Defining there",
    MoveStep.RESTORE: "Restoring there",
    MoveStep.START: "Starting there",
    MoveStep.FORGET: "Clearing up",
    MoveStep.RESTORE_BACK: "Restoring here",
    MoveStep.START_BACK: "Starting here",
    MoveStep.FORGET_TARGET: "Clearing up",
}


def _phase(view: ClusterView, operation: Operation) -> str:
    if operation.action == OTHERS:
        return others_text(operation).capitalize()
    if operation.state is OperationState.WAITING and operation.retry_at_s is not None:
        return f"Retry {operation.retries} of {view.config.migration.retry.times}"
    underway = operation.state in (OperationState.RUNNING, OperationState.SETTLING)
    if underway and operation.step in _STEPS:
        return _STEPS[operation.step]
    figures = view.progress.get(operation.id)
    if operation.state is OperationState.RUNNING and operation.kind is OperationKind.MIGRATE:
        return figures.phase.value if figures else "Target prepares"
    if operation.state is OperationState.SETTLING:
        return "Waiting for the guest" if operation.change else "Looking where it is"
    if operation.state is OperationState.RUNNING and operation.change is not None:
        return operation.change.value.capitalize()
    return operation.state.value


def _way(view: ClusterView, operation: Operation) -> str:
    if operation.kind is not OperationKind.MIGRATE:
        return str(operation.source or "")
    if operation.move is MoveType.STORAGE:
        return f"{operation.source}: {operation.pool}"
    to = operation.target or ("?" if operation.action == OTHERS else "best")
    return f"{operation.source or '?'} → {to}"


def _move_type(view: ClusterView, operation: Operation) -> str | None:
    if operation.kind is not OperationKind.MIGRATE or operation.action == OTHERS:
        return None
    return operation.move.value


def _told(view: ClusterView, operation: Operation) -> str | None:
    """What it waits for or how it ended; of a move that does not converge, what will be done about it."""
    if operation.reason is not None:
        return operation.reason.text
    figures = view.progress.get(operation.id)
    advice = figures.watch.next if figures is not None else None
    return advice.text if advice is not None else None


def _tries(view: ClusterView, operation: Operation) -> int | None:
    return operation.retries + 1 if operation.attempt else None


def _routed(name: str) -> Callable[[ClusterView, Operation], Any]:
    """What is known of a move's way; told before its first figures."""

    def get(view: ClusterView, operation: Operation) -> Any:
        figures = view.progress.get(operation.id)
        value = getattr(figures, name) if figures else None
        return None if value == "" else value

    return get


def _permitted_ms(view: ClusterView, operation: Operation) -> int | None:
    figures = view.progress.get(operation.id)
    return figures.watch.pause_ms if figures else None


def _advice(view: ClusterView, operation: Operation) -> str | None:
    figures = view.progress.get(operation.id)
    return figures.watch.next.text if figures and figures.watch.next else None


def operation_title(operation: Operation) -> str:
    """What an operation does, in words: ``Live migrate web-01``, ``Shut down 12 VMs``."""
    spec = ACTIONS.get(operation.action)
    verb = spec.verb if spec else operation.action
    if operation.kind is OperationKind.BATCH:
        return f"{verb} {units.count_text(operation.children, 'VM')}"
    return f"{verb} {operation.vm_name}"


def _elapsed(view: ClusterView, operation: Operation) -> Any:
    if operation.started_s is None:
        return None
    return (operation.ended_s or max(view.now_s, operation.started_s)) - operation.started_s


OPERATION_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="vm",
        title="VM",
        kind=FieldKind.TEXT,
        doc="The VM.",
        get=_attribute("vm_name"),
        text=_plain,
        depends=frozenset(),
        width=130,
        searchable=True,
    ),
    FieldSpec(
        name="title",
        title="Operation",
        kind=FieldKind.TEXT,
        doc="What was asked for.",
        get=lambda view, operation: operation_title(operation),
        text=_plain,
        depends=_on("*"),
        width=200,
        searchable=True,
    ),
    FieldSpec(
        name="place",
        title="#",
        kind=FieldKind.COUNT,
        doc="Its place in the queue: what is under way, then what waits, in the order of its turn.",
        get=summary.place,
        text=_plain,
        depends=_on("*"),
        width=40,
        shown=False,
        volatile=True,
    ),
    FieldSpec(
        name="from",
        title="From",
        kind=FieldKind.TEXT,
        doc="The node the VM was on when it was asked for.",
        get=_attribute("source"),
        text=_plain,
        depends=_on("*"),
        width=90,
        searchable=True,
    ),
    FieldSpec(
        name="to",
        title="To",
        kind=FieldKind.TEXT,
        doc="The node it moves to; “best” until one is chosen.",
        get=lambda view, o: (o.target or "best") if o.kind is OperationKind.MIGRATE else None,
        text=_plain,
        depends=_on("*"),
        width=90,
        searchable=True,
    ),
    FieldSpec(
        name="way",
        title="From → to",
        kind=FieldKind.TEXT,
        doc="From which node to which it moves; “best” until one is chosen.",
        get=_way,
        text=_plain,
        depends=_on("*"),
        width=120,
        shown=False,
    ),
    FieldSpec(
        name="type",
        title="Type",
        kind=FieldKind.ENUM,
        doc="How it moves: live, quick, shutdown, turn-off, storage.",
        get=_move_type,
        text=_plain,
        depends=frozenset(),
        width=76,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="priority",
        title="Priority",
        kind=FieldKind.COUNT,
        doc="The VM's priority: the higher goes first.",
        get=_attribute("priority"),
        text=lambda value: Priority(value).title,
        depends=_on("*"),
        width=76,
    ),
    FieldSpec(
        name="phase",
        title="Phase",
        kind=FieldKind.ENUM,
        doc="What is going on.",
        get=_phase,
        text=_plain,
        depends=_on("*", "state", "progress"),
        width=140,
        searchable=True,
    ),
    FieldSpec(
        name="percent",
        title="Progress",
        unit="%",
        kind=FieldKind.PERCENT,
        doc="From what remains; never falls; 99 until it is over.",
        get=_percent_done,
        text=lambda value: f"{value:.0f} %",
        depends=_on("*", "progress"),
        width=180,
    ),
    FieldSpec(
        name="rate",
        title="MiB/s",
        kind=FieldKind.RATE,
        doc="Transfer rate.",
        get=_move_figure("rate_bytes_per_s"),
        text=lambda value: f"{value / units.MIB:.0f}",
        depends=_on("progress"),
        width=62,
    ),
    FieldSpec(
        name="dirty",
        title="Dirty",
        kind=FieldKind.RATE,
        doc="How fast the guest changes its memory, MiB/s.",
        get=_move_figure("dirty_bytes_per_s"),
        text=lambda value: f"{value / units.MIB:.0f}",
        depends=_on("progress"),
        width=62,
    ),
    FieldSpec(
        name="remaining",
        title="Left",
        kind=FieldKind.BYTES,
        doc="What is still to be copied.",
        get=_move_figure("remaining_bytes"),
        text=units.size_text,
        depends=_on("progress"),
        width=80,
    ),
    FieldSpec(
        name="iteration",
        title="Iter",
        kind=FieldKind.COUNT,
        doc="The pass over the memory that is under way.",
        get=_move_figure("iteration"),
        text=_plain,
        depends=_on("progress"),
        width=50,
    ),
    FieldSpec(
        name="downtime",
        title="Down",
        unit="ms",
        kind=FieldKind.COUNT,
        doc="How long the guest would stand still if it were switched over now.",
        get=_move_figure("downtime_ms"),
        text=_plain,
        depends=_on("progress"),
        width=70,
    ),
    FieldSpec(
        name="elapsed",
        title="Elapsed",
        kind=FieldKind.SECONDS,
        doc="Time since it was started.",
        get=_elapsed,
        text=units.clock_text,
        depends=_on("*", "progress"),
        width=70,
    ),
    FieldSpec(
        name="eta",
        title="ETA",
        kind=FieldKind.SECONDS,
        doc="Time that is left at the present rates.",
        get=_move_figure("eta_s"),
        text=units.clock_text,
        depends=_on("progress"),
        width=60,
    ),
    FieldSpec(
        name="attempt",
        title="Try",
        kind=FieldKind.COUNT,
        doc="Which try it is, after errors that may pass.",
        get=_tries,
        text=_plain,
        depends=_on("*"),
        width=44,
    ),
    FieldSpec(
        name="state",
        title="State",
        kind=FieldKind.ENUM,
        doc="Waiting, Checking, Running, Settling, Cancelling, Done, Failed, Cancelled.",
        get=lambda view, operation: operation.state.value,
        text=_plain,
        depends=_on("*", "state"),
        width=90,
        searchable=True,
    ),
    FieldSpec(
        name="reason",
        title="Reason",
        kind=FieldKind.TEXT,
        doc="What it waits for, what will be done about it and when, or how it ended.",
        get=_told,
        text=_plain,
        depends=_on("*", "reason", "progress"),
        width=420,
        searchable=True,
    ),
    FieldSpec(
        name="author",
        title="Asked by",
        kind=FieldKind.TEXT,
        doc="Who asked for it.",
        get=_attribute("author"),
        text=_plain,
        depends=frozenset(),
        width=110,
        searchable=True,
    ),
    FieldSpec(
        name="created",
        title="Asked at",
        kind=FieldKind.TIME,
        doc="When it was asked for.",
        get=_attribute("created_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=frozenset(),
        width=80,
    ),
    FieldSpec(
        name="ended",
        title="Ended",
        kind=FieldKind.TIME,
        doc="When it ended.",
        get=_attribute("ended_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=_on("*"),
        width=80,
    ),
    FieldSpec(
        name="id",
        title="ID",
        kind=FieldKind.TEXT,
        doc="By which `muster queue` knows it.",
        get=_attribute("id"),
        text=_plain,
        depends=frozenset(),
        width=190,
        shown=False,
    ),
    FieldSpec(
        name="batch",
        title="Batch",
        kind=FieldKind.TEXT,
        doc="The id of the request that it is part of.",
        get=_attribute("parent"),
        text=_plain,
        depends=frozenset(),
        width=150,
        shown=False,
    ),
    FieldSpec(
        name="uuid",
        title="UUID",
        kind=FieldKind.TEXT,
        doc="The VM's UUID.",
        get=_attribute("vm"),
        text=_plain,
        depends=frozenset(),
        width=260,
        shown=False,
    ),
    FieldSpec(
        name="permitted_ms",
        title="Permitted pause",
        unit="ms",
        kind=FieldKind.COUNT,
        doc="The longest pause of the guest that is permitted now; nothing: as the hypervisor does unasked.",
        get=_permitted_ms,
        text=_plain,
        depends=_on("progress"),
        width=110,
        shown=False,
    ),
    FieldSpec(
        name="throttle",
        title="Slowed",
        unit="%",
        kind=FieldKind.PERCENT,
        doc="How far the hypervisor slows the guest so that the move converges.",
        get=_routed("throttle_percent"),
        text=_percent,
        depends=_on("progress"),
        width=70,
        shown=False,
    ),
    FieldSpec(
        name="cap_mib_s",
        title="Cap",
        unit="MiB/s",
        kind=FieldKind.COUNT,
        doc="What the move may send at most; nothing: as much as it can.",
        get=lambda view, operation: operation.cap_mib_s or None,
        text=_plain,
        depends=_on("*"),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="address",
        title="Address",
        kind=FieldKind.TEXT,
        doc="The target's address that its memory goes to; nothing: as the target says itself.",
        get=_routed("address"),
        text=_plain,
        depends=_on("progress"),
        width=110,
        shown=False,
        searchable=True,
    ),
    FieldSpec(
        name="encrypted",
        title="Encrypted",
        kind=FieldKind.BOOL,
        doc="Whether its memory is encrypted on its way.",
        get=_routed("encrypted"),
        text=_yes_no,
        depends=_on("progress"),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="policy",
        title="Policy",
        kind=FieldKind.TEXT,
        doc="The policy of convergence that was asked for; nothing: the cluster's own.",
        get=lambda view, operation: operation.policy or None,
        text=_plain,
        depends=frozenset(),
        width=80,
        shown=False,
    ),
    FieldSpec(
        name="pool",
        title="Pool",
        kind=FieldKind.TEXT,
        doc="Where disks go that are copied.",
        get=lambda view, operation: operation.pool or None,
        text=_plain,
        depends=frozenset(),
        width=90,
        shown=False,
    ),
    FieldSpec(
        name="next",
        title="Next",
        kind=FieldKind.TEXT,
        doc="While it does not converge: what will be done about it, and when.",
        get=_advice,
        text=_plain,
        depends=_on("progress"),
        width=420,
        shown=False,
    ),
    FieldSpec(
        name="started",
        title="Started",
        kind=FieldKind.TIME,
        doc="When it was begun.",
        get=_attribute("started_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=_on("*"),
        width=80,
        shown=False,
    ),
)

PROBLEM_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="since",
        title="Since",
        kind=FieldKind.TIME,
        doc="When it began.",
        get=_attribute("since_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=frozenset(),
        width=80,
    ),
    FieldSpec(
        name="subject",
        title="What",
        kind=FieldKind.TEXT,
        doc="The node or VM.",
        get=lambda view, p: _problem_subject(view, p),
        text=_plain,
        depends=_on("vms"),
        width=160,
        searchable=True,
    ),
    FieldSpec(
        name="reason",
        title="Problem",
        kind=FieldKind.TEXT,
        doc="What is wrong.",
        get=lambda view, p: p.reason.text,
        text=_plain,
        depends=_on("reason"),
        width=460,
        searchable=True,
    ),
    FieldSpec(
        name="affected",
        title="Affected",
        kind=FieldKind.TEXT,
        doc="How many VMs it concerns.",
        get=lambda view, p: units.count_text(len(p.vms), "VM") if p.vms else None,
        text=_plain,
        depends=_on("vms"),
        width=90,
    ),
    FieldSpec(
        name="remedy",
        title="What to do",
        kind=FieldKind.TEXT,
        doc="What to try.",
        get=lambda view, p: p.reason.remedy or None,
        text=_plain,
        depends=_on("reason"),
        width=420,
    ),
)


def _problem_subject(view: ClusterView, problem: Problem) -> str:
    if problem.key.startswith("vm:") and problem.vms:
        vm = view.vms.get(problem.vms[0])
        return f"VM {vm.name}" if vm else problem.vms[0]
    return f"Node {problem.node}" if problem.node else "Cluster"


FIELDS: dict[Kind, dict[str, FieldSpec]] = {
    Kind.VM: {f.name: f for f in VM_FIELDS},
    Kind.NODE: {f.name: f for f in NODE_FIELDS},
    Kind.OPERATION: {f.name: f for f in OPERATION_FIELDS},
    Kind.PROBLEM: {f.name: f for f in PROBLEM_FIELDS},
}
"""All fields by kind and name."""

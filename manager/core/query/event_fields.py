"""The fields of events: what happened in the cluster."""

from __future__ import annotations

from manager.core import units
from manager.core.chronicle import ClusterEvent, Level, Source
from manager.core.cluster import ClusterView
from manager.core.model import Vm
from manager.core.query.spec import CLUSTER, FieldKind, FieldSpec, attribute, plain


def _vm_name(view: ClusterView, event: ClusterEvent) -> str | None:
    if event.vm is None:
        return None
    vm: Vm | None = None if event.vm_name else view.vms.get(event.vm)
    return event.vm_name or (vm.name if vm else event.vm)


def _subject(view: ClusterView, event: ClusterEvent) -> str:
    if event.vm is not None:
        return f"VM {_vm_name(view, event)}"
    return f"Node {event.node}" if event.node else "Cluster"


def _source(view: ClusterView, event: ClusterEvent) -> str:
    if event.source is Source.HOST:
        return f"libvirt on {event.node}" if event.node else "libvirt"
    computer = event.who.rpartition("@")[2]
    return computer if event.source is Source.REQUEST and computer else "Muster"


def level_text(level: Level) -> str:
    """As people read it."""
    return level.word


EVENT_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="time",
        title="Time",
        kind=FieldKind.TIME,
        doc="When it happened.",
        get=attribute("at_s"),
        text=units.moment_text,
        json=units.iso_text,
        depends=frozenset(),
        width=140,
        searchable=True,
    ),
    FieldSpec(
        name="level",
        title="Level",
        kind=FieldKind.ENUM,
        doc="How much it matters: error, warning or information.",
        get=attribute("level"),
        text=level_text,
        json=level_text,
        words=tuple(level.word for level in Level),
        ranks={level.word: level.value for level in Level},
        depends=frozenset(),
        width=100,
        searchable=True,
    ),
    FieldSpec(
        name="subject",
        title="What",
        kind=FieldKind.TEXT,
        doc="The VM, the node or the cluster.",
        get=_subject,
        text=plain,
        prose=True,
        depends=frozenset(),
        width=150,
        searchable=True,
    ),
    FieldSpec(
        name="node",
        title="Node",
        kind=FieldKind.TEXT,
        doc="The node where it happened.",
        get=attribute("node"),
        text=plain,
        depends=frozenset(),
        width=80,
        searchable=True,
    ),
    FieldSpec(
        name="vm",
        title="VM",
        kind=FieldKind.TEXT,
        doc="The VM's name when it happened.",
        get=_vm_name,
        text=plain,
        depends=frozenset(),
        width=120,
        shown=False,
    ),
    FieldSpec(
        name="who",
        title="By",
        kind=FieldKind.TEXT,
        doc="Who asked for what led to it: user and computer. Empty for what nobody asked Muster for.",
        get=lambda view, event: event.who or None,
        text=plain,
        depends=frozenset(),
        width=130,
        searchable=True,
    ),
    FieldSpec(
        name="source",
        title="From",
        kind=FieldKind.TEXT,
        doc="From where it is known: a node's libvirt, Muster, or the computer on which it was asked for.",
        get=_source,
        text=plain,
        prose=True,
        depends=frozenset(),
        width=110,
        searchable=True,
    ),
    FieldSpec(
        name="text",
        title="Event",
        kind=FieldKind.TEXT,
        doc="What happened, and why.",
        get=attribute("text"),
        text=plain,
        prose=True,
        depends=frozenset(),
        width=420,
        searchable=True,
    ),
    FieldSpec(
        name="code",
        title="Code",
        kind=FieldKind.TEXT,
        doc="What kind of event it is; the same in every language and version.",
        get=lambda view, event: event.what.code.value,
        text=plain,
        depends=frozenset(),
        width=130,
        shown=False,
    ),
    FieldSpec(
        name="operation",
        title="Operation",
        kind=FieldKind.TEXT,
        doc="The ID of the operation that it is of, or because of.",
        get=attribute("operation"),
        text=plain,
        depends=frozenset(),
        width=150,
        shown=False,
    ),
    FieldSpec(
        name="uuid",
        title="VM UUID",
        kind=FieldKind.TEXT,
        doc="The VM's UUID.",
        get=attribute("vm"),
        text=plain,
        depends=frozenset(),
        width=240,
        shown=False,
    ),
    CLUSTER,
)

"""What happened in a cluster, as values that outlive the program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from manager.core.ids import NodeId, OperationId, VmId
from manager.core.reasons import Reason

KEPT_EVENTS = 10_000
"""Events at hand in memory; the journal has more."""


class Level(IntEnum):
    """How much an event matters."""

    INFORMATION = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        """As people read it."""
        return self.name.lower()


class Source(StrEnum):
    """Who told of it."""

    HOST = "host"  # the node's libvirt
    REQUEST = "request"  # someone asked for it
    MUSTER = "muster"  # Muster found it, or did it


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """One thing that happened. `id` sorts by time."""

    id: str
    at_s: float
    level: Level
    source: Source
    what: Reason
    why: Reason | None = None
    node: NodeId | None = None
    vm: VmId | None = None
    vm_name: str = ""
    who: str = ""  # the author of what led to it, user@computer
    operation: OperationId | None = None
    problem: str = ""  # its key

    @property
    def text(self) -> str:
        """What happened, and why."""
        return f"{self.what.text}: {self.why.text}" if self.why is not None else self.what.text


def id_at(at_s: float, number: int = 0) -> str:
    """The id of the event of that number at that moment: earlier ones sort before it."""
    return f"{max(0, int(at_s * 1000)):012x}{number & 0xFFFFFF:06x}"


def about_vm(events: Iterable[ClusterEvent], vm: VmId, owner: NodeId | None) -> list[ClusterEvent]:
    """What happened to a VM: also the requests it was part of, and what became of the nodes it was on."""
    events = list(events)
    own = [event for event in events if event.vm == vm]
    batches = {OperationId(event.operation.partition(".")[0]) for event in own if event.operation}
    nodes = {event.node for event in own} | {owner}

    def belongs(event: ClusterEvent) -> bool:
        if event.vm is not None:
            return event.vm == vm
        if event.operation is not None:
            return event.operation in batches
        return event.node is not None and event.node in nodes

    return [event for event in events if belongs(event)]


def about_node(events: Iterable[ClusterEvent], node: NodeId) -> list[ClusterEvent]:
    """What happened to a node and on it; also what left it."""
    return [e for e in events if e.node == node or e.what.field("source") == node]

"""Who may start now: limits per node and cluster, High first, a reason for every wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from manager.core import units
from manager.core.effects import VmChange
from manager.core.ids import NodeId
from manager.core.migration.limits import cap_mib_s
from manager.core.model import ClusterConfig, MoveType
from manager.core.operations import Operation, OperationKind
from manager.core.reasons import FieldValue, Reason, ReasonCode

LINES = frozenset(
    {
        ReasonCode.WAITS_OUTGOING,
        ReasonCode.WAITS_INCOMING,
        ReasonCode.WAITS_CLUSTER,
        ReasonCode.WAITS_STARTS_NODE,
        ReasonCode.WAITS_STARTS_CLUSTER,
        ReasonCode.WAITS_SAVES,
        ReasonCode.WAITS_BANDWIDTH,
    }
)
"""Reasons of waits for a place that others have."""


def order(operation: Operation) -> tuple[int, bool, float, int, float, int, str]:
    """Sort key for showing what waits: as it will be tried, but for those that were overtaken often enough.

    Priority, then a hand-made place, then the largest move, then age. Source: `order.QueueOrder`.
    """
    size = operation.memory_mib if goes_elsewhere(operation) else 0
    return (
        -operation.priority,
        operation.rank is None,
        operation.rank or 0.0,
        -size,
        operation.created_s,
        operation.order,
        operation.id,
    )


class Place(Enum):
    """What heavy work takes a place of."""

    MOVE = "move"  # from one node to another: a place of both, and a share of their network
    START = "start"
    DISK = "disk"  # writes or reads much on the disks of its node: a save, a restore, a move of storage


def place_of(operation: Operation) -> Place | None:
    """What it takes a place of; None: it is not heavy, and never waits in line."""
    if operation.kind is OperationKind.MIGRATE:
        return Place.DISK if operation.move is MoveType.STORAGE else Place.MOVE
    if operation.change is VmChange.START:
        return Place.DISK if operation.restores else Place.START
    return Place.DISK if operation.change is VmChange.SAVE else None


def is_heavy(operation: Operation) -> bool:
    """Whether it takes a place in the queue: a move, a start or restore, a save."""
    return place_of(operation) is not None


def goes_elsewhere(operation: Operation) -> bool:
    """Whether it moves a VM from one node to another, and takes places of both."""
    return place_of(operation) is Place.MOVE


@dataclass(slots=True)
class Line:
    """What stands before one full resource: each refusal is a place further back."""

    code: ReasonCode
    fields: tuple[tuple[str, FieldValue], ...]  # all but the place
    ahead: int = 0

    def join(self, before: Reason | None) -> Reason:
        """The reason with the next place in line; the same object as `before` if that says the same.

        Of those far back only that is said: else each end of a move would change all of them.
        """
        place = ("ahead", min(self.ahead, units.LONG_LINE))
        self.ahead += 1
        if (
            before is not None
            and before.code is self.code
            and before.fields[-1] == place
            and before.fields[:-1] == self.fields
        ):
            return before
        return Reason(self.code, (*self.fields, place))


@dataclass(slots=True)
class Slots:
    """What is in use, counted from the work that is under way; and who asked in vain before."""

    config: ClusterConfig
    outgoing: Counter[NodeId] = field(default_factory=Counter)
    incoming: Counter[NodeId] = field(default_factory=Counter)
    moves: int = 0
    starts: Counter[NodeId] = field(default_factory=Counter)
    all_starts: int = 0
    saves: Counter[NodeId] = field(default_factory=Counter)
    sending: Counter[NodeId] = field(default_factory=Counter)  # MiB/s that moves out of a node may send
    receiving: Counter[NodeId] = field(default_factory=Counter)
    cap_mib_s: int = 0  # what one more move is given
    _lines: dict[tuple[ReasonCode, str], Line] = field(default_factory=dict)
    _full: dict[tuple[Place | None, NodeId | None, NodeId | None], Line] = field(default_factory=dict)

    @classmethod
    def in_use(
        cls,
        config: ClusterConfig,
        active: Iterable[Operation],
        foreign_moves: Iterable[tuple[NodeId | None, NodeId | None]] = (),
    ) -> Slots:
        """Count what runs: ours, and moves that others started (source and target, where known)."""
        slots = cls(config, cap_mib_s=cap_mib_s(config.migration))
        for operation in active:
            slots.take(operation)
        for source, target in foreign_moves:
            slots.moves += 1
            if source is not None:
                slots.outgoing[source] += 1
            if target is not None:
                slots.incoming[target] += 1
        return slots

    def cap_of(self, operation: Operation) -> int:
        """What a move that starts now may send, or write of disks, in MiB/s; 0: no cap."""
        return self.cap_mib_s if goes_elsewhere(operation) else self.config.migration.bandwidth_mib_s

    def take(self, operation: Operation) -> None:
        """Count one more piece of work."""
        if operation.source is None:
            return
        place = place_of(operation)
        if place is Place.MOVE:
            self.moves += 1
            self.outgoing[operation.source] += 1
            cap = operation.cap_mib_s or self.config.migration.node_bandwidth_mib_s  # without: all there is
            self.sending[operation.source] += cap
            if operation.target is not None:
                self.incoming[operation.target] += 1
                self.receiving[operation.target] += cap
        elif place is Place.START:
            self.starts[operation.source] += 1
            self.all_starts += 1
        elif place is Place.DISK:
            self.saves[operation.source] += 1

    def still_full(self, operation: Operation) -> Reason | None:
        """The quick answer for what waits behind others that were refused the same in this turn."""
        place, source = place_of(operation), operation.source
        line = self._full.get((place, source, None)) or self._full.get((place, source, operation.target))
        return line.join(operation.reason) if line is not None else None

    def obstacle(self, operation: Operation, target: NodeId | None) -> Reason | None:
        """Why this one must wait, or None. A refusal counts as standing ahead of the next one."""
        if operation.source is None:
            return None
        for code, node, count, limit in self._needs(operation, operation.source, target):
            if limit and count >= limit:
                line = self._lines.get((code, node))
                if line is None:
                    fields = (("node", node),) if node else ()
                    if code is ReasonCode.WAITS_BANDWIDTH:
                        limit = self.config.migration.node_bandwidth_mib_s
                    line = Line(code, (*fields, ("count", count), ("limit", limit)))
                    self._lines[code, node] = line
                of_target = target if node == target else None
                self._full[place_of(operation), operation.source, of_target] = line
                return line.join(operation.reason)
        return None

    def _needs(
        self, operation: Operation, node: NodeId, target: NodeId | None
    ) -> Iterator[tuple[ReasonCode, str, int, int]]:
        """Each resource it takes: the reason to wait for it, of which node, in use, limit."""
        limits, work, place = self.config.migration, self.config.work, place_of(operation)
        if place is Place.MOVE:
            yield ReasonCode.WAITS_OUTGOING, node, self.outgoing[node], limits.outgoing_per_node
            if target is not None:
                yield ReasonCode.WAITS_INCOMING, target, self.incoming[target], limits.incoming_per_node
            yield ReasonCode.WAITS_CLUSTER, "", self.moves, limits.cluster_limit
            if limits.node_bandwidth_mib_s:
                room = limits.node_bandwidth_mib_s - min(self.cap_mib_s, limits.node_bandwidth_mib_s) + 1
                yield ReasonCode.WAITS_BANDWIDTH, node, self.sending[node], room
                if target is not None:
                    yield ReasonCode.WAITS_BANDWIDTH, target, self.receiving[target], room
        elif place is Place.START:
            yield ReasonCode.WAITS_STARTS_NODE, node, self.starts[node], work.starts_per_node
            yield ReasonCode.WAITS_STARTS_CLUSTER, "", self.all_starts, work.starts_per_cluster
        elif place is Place.DISK:
            yield ReasonCode.WAITS_SAVES, node, self.saves[node], work.saves_per_node

    @property
    def is_full(self) -> bool:
        """Whether the cluster's own limit of moves is reached."""
        limit = self.config.migration.cluster_limit
        return bool(limit) and self.moves >= limit

    def makes_room(self, node: NodeId | None) -> bool:
        """Whether a move under way may free memory: on this node, or anywhere."""
        return bool(self.moves if node is None else self.incoming[node] or self.outgoing[node])

    def incoming_is_full(self, node: NodeId) -> bool:
        """Whether a node takes no further move now."""
        limit = self.config.migration.incoming_per_node
        return bool(limit) and self.incoming[node] >= limit

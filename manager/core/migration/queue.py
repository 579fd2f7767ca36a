"""Who may start now: limits per node and cluster, High first, a reason for every wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from manager.core import units
from manager.core.effects import VmChange
from manager.core.ids import NodeId
from manager.core.model import ClusterConfig
from manager.core.operations import Operation, OperationKind
from manager.core.reasons import FieldValue, Reason, ReasonCode

_STORED = frozenset({VmChange.SAVE})


LINES = frozenset(
    {
        ReasonCode.WAITS_OUTGOING,
        ReasonCode.WAITS_INCOMING,
        ReasonCode.WAITS_CLUSTER,
        ReasonCode.WAITS_STARTS_NODE,
        ReasonCode.WAITS_STARTS_CLUSTER,
        ReasonCode.WAITS_SAVES,
    }
)
"""Reasons of waits for a place that others have."""

Place = tuple[int, float, int, str]
"""Where an operation stands in the queue; the last part is its id."""


def order(operation: Operation) -> Place:
    """Sort key of the queue: priority, then age, then place in the batch."""
    return (-operation.priority, operation.created_s, operation.order, operation.id)


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
    _lines: dict[tuple[ReasonCode, str], Line] = field(default_factory=dict)
    _full: dict[tuple[str, NodeId | None, NodeId | None], Line] = field(default_factory=dict)

    @classmethod
    def in_use(
        cls,
        config: ClusterConfig,
        active: Iterable[Operation],
        foreign_moves: Iterable[tuple[NodeId | None, NodeId | None]] = (),
    ) -> Slots:
        """Count what runs: ours, and moves that others started (source and target, where known)."""
        slots = cls(config)
        for operation in active:
            slots.take(operation)
        for source, target in foreign_moves:
            slots.moves += 1
            if source is not None:
                slots.outgoing[source] += 1
            if target is not None:
                slots.incoming[target] += 1
        return slots

    def take(self, operation: Operation) -> None:
        """Count one more piece of work."""
        if operation.source is None:
            return
        if operation.kind is OperationKind.MIGRATE:
            self.moves += 1
            self.outgoing[operation.source] += 1
            if operation.target is not None:
                self.incoming[operation.target] += 1
        elif operation.change is VmChange.START:
            self.starts[operation.source] += 1
            self.all_starts += 1
        elif operation.change in _STORED:
            self.saves[operation.source] += 1

    def still_full(self, operation: Operation) -> Reason | None:
        """The quick answer for what waits behind others that were refused the same in this turn."""
        line = self._full.get((operation.action, operation.source, None)) or self._full.get(
            (operation.action, operation.source, operation.target)
        )
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
                    line = Line(code, (*fields, ("count", count), ("limit", limit)))
                    self._lines[code, node] = line
                of_target = target if code is ReasonCode.WAITS_INCOMING else None
                self._full[operation.action, operation.source, of_target] = line
                return line.join(operation.reason)
        return None

    def _needs(
        self, operation: Operation, node: NodeId, target: NodeId | None
    ) -> Iterator[tuple[ReasonCode, str, int, int]]:
        """Each resource it takes: the reason to wait for it, of which node, in use, limit."""
        limits, work = self.config.migration, self.config.work
        if operation.kind is OperationKind.MIGRATE:
            yield ReasonCode.WAITS_OUTGOING, node, self.outgoing[node], limits.outgoing_per_node
            if target is not None:
                yield ReasonCode.WAITS_INCOMING, target, self.incoming[target], limits.incoming_per_node
            yield ReasonCode.WAITS_CLUSTER, "", self.moves, limits.cluster_limit
        elif operation.change is VmChange.START:
            yield ReasonCode.WAITS_STARTS_NODE, node, self.starts[node], work.starts_per_node
            yield ReasonCode.WAITS_STARTS_CLUSTER, "", self.all_starts, work.starts_per_cluster
        elif operation.change in _STORED:
            yield ReasonCode.WAITS_SAVES, node, self.saves[node], work.saves_per_node

    def makes_room(self, node: NodeId | None) -> bool:
        """Whether a move under way may free memory: on this node, or anywhere."""
        return bool(self.moves if node is None else self.incoming[node] or self.outgoing[node])

    def incoming_is_full(self, node: NodeId) -> bool:
        """Whether a node takes no further move now."""
        limit = self.config.migration.incoming_per_node
        return bool(limit) and self.incoming[node] >= limit

"""Who may start now: limits per node and cluster, High first, a reason for every wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from manager.core import units
from manager.core.effects import VmChange
from manager.core.ids import NodeId
from manager.core.model import ClusterConfig
from manager.core.operations import Operation, OperationKind
from manager.core.reasons import Reason, ReasonCode, because

_STORED = frozenset({VmChange.SAVE})


def order(operation: Operation) -> tuple[int, float, int, str]:
    """Sort key of the queue: priority, then age, then place in the batch."""
    return (-operation.priority, operation.created_s, operation.order, operation.id)


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
    _ahead: Counter[tuple[ReasonCode, str]] = field(default_factory=Counter)

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

    def obstacle(self, operation: Operation, target: NodeId | None) -> Reason | None:
        """Why this one must wait, or None. A refusal counts as standing ahead of the next one."""
        node = operation.source
        if node is None:
            return None
        limits, work = self.config.migration, self.config.work
        if operation.kind is OperationKind.MIGRATE:
            return (
                self._full(ReasonCode.WAITS_OUTGOING, node, self.outgoing[node], limits.outgoing_per_node)
                or (
                    self._full(
                        ReasonCode.WAITS_INCOMING, target, self.incoming[target], limits.incoming_per_node
                    )
                    if target is not None
                    else None
                )
                or self._full(ReasonCode.WAITS_CLUSTER, "", self.moves, limits.cluster_limit)
            )
        if operation.change is VmChange.START:
            return self._full(
                ReasonCode.WAITS_STARTS_NODE, node, self.starts[node], work.starts_per_node
            ) or self._full(
                ReasonCode.WAITS_STARTS_CLUSTER, "", self.all_starts, work.starts_per_cluster
            )
        if operation.change in _STORED:
            return self._full(ReasonCode.WAITS_SAVES, node, self.saves[node], work.saves_per_node)
        return None

    def _full(self, code: ReasonCode, node: str, count: int, limit: int) -> Reason | None:
        if not limit or count < limit:
            return None
        ahead = self._ahead[code, node]
        self._ahead[code, node] = ahead + 1
        # Of those far back only the fact is said: else each end of a move would change all of them.
        ahead = min(ahead, units.LONG_LINE)
        fields = {"node": node} if node else {}
        return because(code, **fields, count=count, limit=limit, ahead=ahead)

    def makes_room(self, node: NodeId | None) -> bool:
        """Whether a move under way may free memory: on this node, or anywhere."""
        return bool(self.moves if node is None else self.incoming[node] or self.outgoing[node])

    def incoming_is_full(self, node: NodeId) -> bool:
        """Whether a node takes no further move now."""
        limit = self.config.migration.incoming_per_node
        return bool(limit) and self.incoming[node] >= limit

"""When to try again and when to stop: retries, targets that rest, batches that ask, limits set by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, OperationId
from manager.core.model import ClusterConfig, MigrationLimits, RetryPolicy, WorkLimits
from manager.core.operations import Operation, StandingOrders

DEFAULT_CAP_MIB_S = 100
"""What one move may send where no migration network is named: it shares the network with all else."""

LIMITS: Mapping[str, tuple[int, int]] = {
    "outgoing_per_node": (1, 64),
    "incoming_per_node": (1, 64),
    "cluster_limit": (0, 4096),
    "bandwidth_mib_s": (0, 1_000_000),
    "node_bandwidth_mib_s": (0, 1_000_000),
    "starts_per_node": (1, 64),
    "starts_per_cluster": (1, 1024),
    "saves_per_node": (1, 64),
}
"""Limits that can be changed while the queue runs, with the least and the largest value of each."""

_OF_WORK = frozenset(WorkLimits.__dataclass_fields__)
_NOT_THE_TARGETS = frozenset(
    {
        FailureCode.CANCELLED,
        FailureCode.WRONG_STATE,
        FailureCode.NOT_FOUND,
        FailureCode.UNSAFE,
        FailureCode.BUSY,
        FailureCode.INTERRUPTED,
        FailureCode.NOT_SUPPORTED,
    }
)
"""Failures that are the VM's or the source's own."""


def pause_s(policy: RetryPolicy, retries: int) -> float:
    """How long to wait before the next try, after so many."""
    return policy.first_s * float(3**retries)


def may_retry(policy: RetryPolicy, operation: Operation, failure: Failure | None) -> bool:
    """Whether a failed call is worth another try. What is permanent never is."""
    return (
        failure is not None
        and failure.is_retryable
        and not operation.cancelled_by
        and not operation.failed
        and operation.retries < policy.times
    )


def blames_target(operation: Operation, failure: Failure | None) -> bool:
    """Whether a move's failure may be its target's."""
    if failure is None or failure.code in _NOT_THE_TARGETS or operation.target in (None, operation.source):
        return False
    return failure.node in (None, operation.target) or failure.code not in (
        FailureCode.UNREACHABLE,
        FailureCode.TIMEOUT,
    )


def rested(orders: StandingOrders, target: NodeId, failures: int) -> StandingOrders:
    """The orders with a target that is fed no more."""
    others = tuple(r for r in orders.resting if r[0] != target)
    return replace(orders, resting=(*others, (target, failures)))


def released(orders: StandingOrders, target: NodeId) -> StandingOrders:
    """The orders with a target that is fed again."""
    return replace(orders, resting=tuple(r for r in orders.resting if r[0] != target))


def batch_asks(policy: RetryPolicy, failed: int, children: int, forgiven: int) -> bool:
    """Whether so much of a batch failed since it was last continued that it pauses and asks."""
    since = failed - forgiven
    return since >= policy.batch_failures and since * 100 >= policy.batch_percent * children


def continued(orders: StandingOrders, batch: OperationId, failed: int) -> StandingOrders:
    """The orders with a batch that goes on in spite of its failures."""
    kept = without(orders, batch)
    return replace(kept, forgiven=(*kept.forgiven, (batch, failed)))


def without(orders: StandingOrders, batch: OperationId) -> StandingOrders:
    """The orders without a batch that is over."""
    return replace(
        orders,
        batches=tuple(b for b in orders.batches if b[0] != batch),
        forgiven=tuple(f for f in orders.forgiven if f[0] != batch),
    )


def checked(limits: Mapping[str, int]) -> str:
    """What is wrong with limits that someone wants to set, or an empty string."""
    for name, value in limits.items():
        if name not in LIMITS:
            return f"{name}: there is no such limit; known: {', '.join(LIMITS)}"
        least, most = LIMITS[name]
        if not least <= value <= most:
            return f"{name} = {value}: needs a whole number from {least} to {most}"
    return ""


def limited(config: ClusterConfig, orders: StandingOrders) -> ClusterConfig:
    """The cluster's settings with the limits that were changed while running."""
    values = {name: value for name, value in orders.limits if not checked({name: value})}
    work = {n: v for n, v in values.items() if n in _OF_WORK}
    moves = {n: v for n, v in values.items() if n not in _OF_WORK}
    migration: MigrationLimits = replace(config.migration, **moves)  # type: ignore[arg-type]
    return replace(config, migration=migration, work=replace(config.work, **work))


def cap_mib_s(limits: MigrationLimits) -> int:
    """What one more move between nodes may send, in MiB/s; 0: as much as it can."""
    budget = limits.node_bandwidth_mib_s
    if limits.bandwidth_mib_s:
        return min(limits.bandwidth_mib_s, budget or limits.bandwidth_mib_s)
    if budget:
        return max(1, budget // max(limits.outgoing_per_node, 1))
    return 0 if limits.networks else DEFAULT_CAP_MIB_S

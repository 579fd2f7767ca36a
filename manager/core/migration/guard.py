"""When to try again and when to stop: retries, targets that rest, batches that ask."""

from __future__ import annotations

from dataclasses import replace

from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, OperationId
from manager.core.model import RetryPolicy
from manager.core.operations import Operation, StandingOrders

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


def blamed(
    policy: RetryPolicy, orders: StandingOrders, target: NodeId, operation: OperationId
) -> StandingOrders:
    """The orders after a move failed because of its target, which may be fed no more then.

    One that is tried again counts once.
    """
    if target in dict(orders.resting):
        return orders
    failing = dict(orders.failing)
    row = failing[target] = tuple(dict.fromkeys((*failing.get(target, ()), operation)))
    resting = ((target, len(row)),) if len(row) >= policy.target_failures else ()
    return replace(orders, failing=tuple(failing.items()), resting=(*orders.resting, *resting))


def acquitted(orders: StandingOrders, target: NodeId) -> StandingOrders:
    """The orders with a target whose failures count from the beginning again."""
    return replace(orders, failing=tuple(row for row in orders.failing if row[0] != target))


def released(orders: StandingOrders, target: NodeId) -> StandingOrders:
    """The orders with a target that is fed again."""
    return replace(acquitted(orders, target), resting=tuple(r for r in orders.resting if r[0] != target))


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

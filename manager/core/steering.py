"""The queue's standing orders: given by administrators, or by what keeps failing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from manager.core import events as ev
from manager.core.changes import Story, Turn
from manager.core.chronicle import Source
from manager.core.errors import Failure
from manager.core.ids import OperationId
from manager.core.instructions import Instructions
from manager.core.inventory import Inventory
from manager.core.migration import guard, limits
from manager.core.migration.moves import MoveStep
from manager.core.migration.progress import MoveProgress
from manager.core.migration.queue import is_heavy
from manager.core.operations import Operation, OperationState
from manager.core.reasons import ReasonCode, because
from manager.core.tree import Tree

_S = OperationState


class Steering:
    """Pauses, limits, hand-made order and tuning; targets and batches that wait for a word."""

    def __init__(self, inventory: Inventory, tree: Tree, instructions: Instructions, story: Story) -> None:
        self._inventory = inventory
        self._tree = tree
        self._instructions = instructions
        self._story = story

    # --- by administrators -----------------------------------------------------------------

    def control(self, event: ev.QueueRequested, turn: Turn) -> None:
        """An administrator steers the queue."""
        orders, give = self._tree.orders, self._tree.order
        match event.verb:
            case ev.QueueVerb.PAUSE if event.operations:
                batches = (b for b in map(self._batch_of, event.operations) if self._goes_on(b))
                by = because(ReasonCode.BATCH_PAUSED_BY, who=event.author, since=turn.at_s)
                give(orders.pausing(batches, by), turn)
            case ev.QueueVerb.PAUSE if not orders.paused_by:
                give(replace(orders, paused_by=event.author, paused_since_s=turn.at_s), turn)
            case ev.QueueVerb.RESUME if event.node is not None:
                give(guard.released(orders, event.node), turn)
            case ev.QueueVerb.RESUME if event.operations:
                for batch in map(self._batch_of, event.operations):
                    if self._goes_on(batch):
                        orders = guard.continued(orders, batch, self._tree.count(batch, _S.FAILED))
                    else:
                        orders = guard.without(orders, batch)
                give(orders, turn)
            case ev.QueueVerb.RESUME:
                give(replace(orders, paused_by="", paused_since_s=None), turn)
            case ev.QueueVerb.LIMITS if not limits.checked(dict(event.limits)):
                kept = self._inventory.changed_limits((*orders.limits, *event.limits))
                give(replace(orders, limits=kept), turn)
            case ev.QueueVerb.REORDER:
                self._reorder(event, turn)
            case ev.QueueVerb.TUNE:
                for key in event.operations:
                    self._tune(key, event, turn)
        if self._tree.orders != orders:
            what = because(ReasonCode.QUEUE_STEERED, what=_words(event))
            self._story.record(turn, what, source=Source.REQUEST, node=event.node, who=event.author)
        self._tree.backlog.look()

    def _batch_of(self, key: OperationId) -> OperationId:
        operation = self._tree.operations.get(key)
        return operation.parent or key if operation is not None else key

    def _goes_on(self, batch: OperationId) -> bool:
        """Whether it is a batch, known, and not over: an order about another one would stand for ever."""
        found = self._tree.operations.get(batch)
        return found is not None and found.is_parent and not found.is_over

    def _reorder(self, event: ev.QueueRequested, turn: Turn) -> None:
        """Give waiting work a hand-made place before another one of the same priority."""
        live = self._tree.live
        heavy = [o for o in event.operations if o in live and is_heavy(live[o])]
        for key, rank in self._tree.backlog.ranks(heavy, event.before).items():
            self._tree.change(replace(live[key], rank=rank), turn)

    def _tune(self, key: OperationId, event: ev.QueueRequested, turn: Turn) -> None:
        """Change how a live move goes on; its own policy goes on from there."""
        operation = self._tree.live.get(key)
        if operation is None or operation.state is not _S.RUNNING or operation.step is not MoveStep.MOVE:
            return
        what = [f"permits a pause of {event.pause_ms} ms"] if event.pause_ms else []
        if event.bandwidth_mib_s is not None:
            cap = f"caps it at {event.bandwidth_mib_s} MiB/s" if event.bandwidth_mib_s else "removes its cap"
            what.append(cap)
        what += ["starts its second half"] if event.post_copy else []
        self._story.tell(key, turn.at_s, f"{event.author} {' and '.join(what)}")
        figures = self._tree.progress.get(key, MoveProgress())
        tune = partial(self._instructions.tune, operation, by_hand=True)
        watch = figures.watch
        if event.pause_ms:
            turn.effects.append(tune(pause_ms=event.pause_ms, instead_of=watch.pause_ms))
            watch = replace(watch, pause_ms=event.pause_ms)
        self._tree.progress[key] = replace(figures, watch=watch)
        cap_mib_s = operation.cap_mib_s
        if event.bandwidth_mib_s is not None:
            cap_mib_s = event.bandwidth_mib_s
            turn.effects.append(tune(bandwidth_mib_s=cap_mib_s, instead_of=operation.cap_mib_s))
        if event.post_copy:
            turn.effects.append(tune(post_copy=True))
        self._tree.change(
            replace(operation, cap_mib_s=cap_mib_s, tuned=operation.tuned + 1, refusals=()), turn
        )

    # --- by what keeps failing -------------------------------------------------------------

    def blame(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """Count a failure against its target; after some in a row that is fed no more."""
        target = operation.target
        if target is None or not guard.blames_target(operation, failure):
            return
        policy = self._inventory.config.migration.retry
        self._tree.order(guard.blamed(policy, self._tree.orders, target, operation.id), turn)

    def acquit(self, operation: Operation, turn: Turn) -> None:
        """A move came to its end: its target's failures count from the beginning again."""
        if operation.target is not None:
            self._tree.order(guard.acquitted(self._tree.orders, operation.target), turn)

    def ask_about(self, parent: OperationId, turn: Turn) -> None:
        """One more of a batch failed: after too many the rest of it waits for a word."""
        batch, orders = self._tree.operations.get(parent), self._tree.orders
        paused = orders.paused_batches.get(parent)
        if batch is None or batch.is_over or (paused and paused.code is not ReasonCode.BATCH_PAUSED):
            return
        failed = self._tree.count(parent, _S.FAILED)
        policy = self._inventory.config.migration.retry
        waits = self._tree.count(parent, _S.WAITING)
        if waits and guard.batch_asks(policy, failed, batch.children, dict(orders.forgiven).get(parent, 0)):
            reason = because(ReasonCode.BATCH_PAUSED, count=failed, of=batch.children)
            self._tree.order(orders.pausing((parent,), reason), turn)
            self._story.tell(parent, turn.at_s, f"paused: {failed} of {batch.children} failed")

    def forget(self, batch: OperationId, turn: Turn) -> None:
        """A batch is about to end: its orders are of no more use."""
        orders = self._tree.orders
        if batch in orders.paused_batches or batch in dict(orders.forgiven):
            self._tree.order(guard.without(orders, batch), turn)


def _words(event: ev.QueueRequested) -> str:
    """What was asked of the queue, for the record."""
    what = f"batch {', '.join(event.operations)} " if event.operations else ""
    if event.verb is ev.QueueVerb.LIMITS:
        return ", ".join(f"{name} = {value}" for name, value in event.limits)
    if event.verb is ev.QueueVerb.PAUSE:
        return f"{what}paused"
    return f"{event.node} is fed again" if event.node else f"{what}goes on"

"""Operations begin, go from step to step and end: a new state, and what that asks of the hosts."""

from __future__ import annotations

from dataclasses import fields, replace

from manager.core import rules, tags
from manager.core.changes import Story, Turn
from manager.core.ids import Kind, OperationId
from manager.core.instructions import Instructions
from manager.core.inventory import Inventory
from manager.core.migration.moves import MoveStep
from manager.core.model import MoveType, PeerRoute, VmSettings
from manager.core.operations import Operation, OperationKind, OperationState, path_of
from manager.core.reasons import Reason
from manager.core.steering import Steering
from manager.core.tree import Tree

_S = OperationState


class Execution:
    """Carries out what was decided; it decides nothing itself."""

    def __init__(
        self,
        inventory: Inventory,
        tree: Tree,
        steering: Steering,
        instructions: Instructions,
        story: Story,
    ) -> None:
        self._inventory = inventory
        self._tree = tree
        self._steering = steering
        self._instructions = instructions
        self._story = story

    def begin(self, operation: Operation, turn: Turn) -> None:
        """The first call of something that waited."""
        operation = replace(operation, attempt=operation.attempt + 1, retry_at_s=None)
        if operation.kind is OperationKind.MIGRATE:
            # Only a running VM can try the door: a definition that is refused says so itself.
            asks = not operation.was_off and operation.move is not MoveType.STORAGE
            if asks and operation.route is PeerRoute.NODE_TO_NODE:
                operation = self._tree.move(operation, _S.CHECKING, turn)
                turn.effects.append(self._instructions.check(operation))
            else:
                self.set_out(operation, turn)
            return
        if operation.kind is OperationKind.SETTINGS and operation.settings and operation.before:
            row = self._inventory.vms[operation.vm] if operation.vm else None
            if row and row.config:
                settings = merged(operation.before, operation.settings, row.config.settings)
                operation = replace(operation, settings=settings)
        operation = self._tree.move(operation, _S.RUNNING, turn)
        turn.effects.append(self._instructions.change(operation))

    def set_out(self, operation: Operation, turn: Turn) -> None:
        """The first step of a move."""
        self.run(operation, path_of(operation)[0], turn)

    def run(self, operation: Operation, step: MoveStep, turn: Turn) -> None:
        """One step of a move. A later one is a new attempt: late answers to the one before change nothing."""
        if operation.step is not None and operation.state not in (_S.WAITING, _S.CHECKING):
            operation = replace(operation, attempt=operation.attempt + 1)
            self._tree.forget_try(operation, turn)
        operation = self._tree.move(replace(operation, step=step), _S.RUNNING, turn)
        if len(path_of(operation)) > 1:
            self._story.tell(operation.id, turn.at_s, step.value)
        turn.effects.append(self._instructions.step(operation, step))

    def abort(self, operation: Operation, turn: Turn) -> None:
        """Ask the host to call it off; it is over when that is seen."""
        turn.effects.append(self._instructions.abort(operation))

    def cancel(self, operation: Operation, turn: Turn) -> None:
        """As `abort`, and from now on it is being cancelled."""
        self.abort(self._tree.move(operation, _S.CANCELLING, turn), turn)

    def end(self, operation: Operation, state: OperationState, reason: Reason | None, turn: Turn) -> None:
        """It is over; so may be its batch, and one that keeps failing asks."""
        self._tree.end(operation, state, reason, turn)
        batch = operation.parent
        if batch is None:
            return
        if not self._tree.unended(batch):
            self.close(batch, turn)
            return
        turn.changes[Kind.OPERATION].update(batch, ("progress",))
        if state is _S.FAILED:
            self._steering.ask_about(batch, turn)

    def close(self, batch: OperationId, turn: Turn) -> None:
        """End a batch of which nothing is left to do, if it is not over yet."""
        found = self._tree.operations.get(batch)
        if found is None or found.is_over or found.kind is OperationKind.NODE:
            return  # of a node there may be more to do: see `Maintenance`
        self._steering.forget(batch, turn)
        self._tree.close(batch, turn)

    def forget_batch(self, batch: OperationId, turn: Turn) -> None:
        """What was ordered of the children of one that ends is of no more use."""
        self._steering.forget(batch, turn)


def merged(before: VmSettings, wanted: VmSettings, now: VmSettings) -> VmSettings:
    """What was to be changed when it was asked for, on top of what others changed since."""
    names = [f.name for f in fields(VmSettings)]
    changed = {n: getattr(wanted, n) for n in names if getattr(wanted, n) != getattr(before, n)}
    if "tags" in changed:
        came, went = tags.difference(before.tags, wanted.tags)
        changed["tags"] = tags.changed(now.tags, add=came, remove=went) if came or went else wanted.tags
    if "rules" in changed:
        added, without = rules.difference(before.rules, wanted.rules)
        changed["rules"] = rules.changed(now.rules, add=added, remove=without)
    return replace(now, **changed)

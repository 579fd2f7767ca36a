"""The machine behind every operation: takes requests and events, and has them decided and carried out."""

from __future__ import annotations

from dataclasses import replace

from manager.core import events as ev
from manager.core.admission import Admission, Start
from manager.core.changes import Story, Turn
from manager.core.effects import ReadVm, VmChange
from manager.core.errors import Failure, FailureCode
from manager.core.execution import Execution
from manager.core.explanations import Explanations, busy
from manager.core.goals import Goals
from manager.core.ids import Kind, NodeId, OperationId, VmId
from manager.core.instructions import Instructions
from manager.core.inventory import Inventory
from manager.core.maintenance import Maintenance
from manager.core.migration import convergence
from manager.core.migration.moves import MoveStep
from manager.core.migration.progress import MoveProgress, advanced
from manager.core.migration.queue import is_heavy
from manager.core.model import Activity, VmStatus
from manager.core.operations import (
    Operation,
    OperationKind,
    OperationState,
    asks_guest,
    can_abort,
    can_turn_back,
    nodes_of,
    path_of,
)
from manager.core.reasons import ReasonCode, because
from manager.core.resources import ResourcesView
from manager.core.settling import LOOK_AGAIN_S, Settling
from manager.core.steering import Steering
from manager.core.tree import Tree

CONTINUE_AFTER_S = 600.0
"""Waiting work of a program that ended is continued unasked for this long."""

_S = OperationState
_NOT_BEGUN = frozenset({_S.WAITING, _S.CHECKING})
_INTERRUPTED = Failure(code=FailureCode.INTERRUPTED, text="the program ended in the middle")


class Work:
    """What happens to the operations of one cluster. Only `ClusterState` calls it."""

    def __init__(self, inventory: Inventory, tree: Tree, resources: ResourcesView, story: Story) -> None:
        self._inventory = inventory
        self._tree = tree
        self._story = story
        self._goals = goals = Goals(inventory, tree)
        self._explanations = explanations = Explanations(inventory)
        self._instructions = instructions = Instructions(inventory)
        self._steering = steering = Steering(inventory, tree, instructions, story)
        self._execution = execution = Execution(inventory, tree, steering, instructions, story)
        self._settling = Settling(inventory, tree, goals, steering, execution, instructions, explanations)
        self._admission = Admission(inventory, tree, goals, resources, story)
        self._maintenance = Maintenance(inventory, tree, self._execution, story)

    # --- requests --------------------------------------------------------------------------

    def add(self, batch: Operation, children: list[Operation], turn: Turn) -> None:
        """Take a request into the tree. Children whose VM is claimed meanwhile fail at once."""
        self._tree.add(batch, children, turn)
        for child in children:
            assert child.vm is not None
            self._inventory.last_failures.pop(child.vm, None)
            holder = self._tree.claims.get(child.vm)
            if holder is None or child.kind is OperationKind.SETTINGS:  # that can wait until the VM is free
                self._tree.enlist(child, turn)
            else:
                row = self._inventory.vms.get(child.vm)
                activity = row.activity if row else Activity.NONE
                reason = busy(self._tree.operations[holder], activity)
                self._execution.end(child, _S.FAILED, reason, turn)
        if not children:
            self._execution.close(batch.id, turn)
        self._tree.backlog.look()

    def cancel(self, ids: tuple[OperationId, ...], author: str, turn: Turn) -> None:
        """Cancel operations and what hangs below them. Doing it twice changes nothing."""
        wanted = set(ids)
        for operation in list(self._tree.live.values()):
            if operation.id in wanted or operation.parent in wanted:
                self._cancel_one(replace(operation, cancelled_by=author), turn)

    def control(self, event: ev.QueueRequested, turn: Turn) -> None:
        """An administrator steers the queue."""
        self._steering.control(event, turn)

    def _cancel_one(self, operation: Operation, turn: Turn) -> None:
        settles = operation.state is _S.SETTLING
        if operation.state is _S.CANCELLING:
            return
        if operation.state in (_S.WAITING, _S.CHECKING):
            self._execution.end(operation, _S.CANCELLED, self._explanations.cancelled(operation), turn)
        elif (
            can_abort(operation)
            # The hosts carry on what was lost with a connection or a program.
            and (operation.state is _S.RUNNING or self._goals.goes_on(operation))
            and not self._goals.is_past_return(operation)
        ):
            self._execution.cancel(operation, turn)
        elif can_turn_back(operation):
            self._tree.move(operation, _S.CANCELLING, turn)  # what is under way ends, then it goes back
        elif settles and asks_guest(operation):
            self._execution.end(operation, _S.CANCELLED, self._explanations.cancelled(operation), turn)
        else:
            text = f"{operation.cancelled_by} asked to cancel: it cannot be called off any more"
            self._story.tell(operation.id, turn.at_s, text)
            turn.changes[Kind.OPERATION].update(operation.id, ("story",))

    # --- operations of other processes -----------------------------------------------------

    def restore(self, operations: tuple[Operation, ...], left_s: float | None, turn: Turn) -> None:
        """Take over what an earlier run of the program, which lived until `left_s`, left in the journal."""
        tree, rank = self._tree, {OperationKind.BATCH: 0, OperationKind.NODE: 0, OperationKind.SETTINGS: 2}
        # The program lived at least until the last thing that its journal tells of.
        work = [o for o in operations if o.kind is not OperationKind.CONTROL]
        told_s = (max(o.created_s, o.started_s or 0, o.ended_s or 0) for o in work)
        alive_s = max((left_s or 0, *told_s), default=0)
        operations = tuple(
            sorted(operations, key=lambda o: (rank.get(o.kind, 1), o.created_s, o.order, o.id))
        )
        for operation in operations:
            if operation.is_over and tree.operations.get(operation.id) == operation:
                continue  # the owner that was followed until now has told it
            tree.hear_of(operation, turn)
            if operation.kind is OperationKind.NODE:
                tree.keep_node(operation, turn)
            if operation.vm is not None and not operation.is_over:
                tree.enlist(operation, turn)
                self._inventory.refresh(operation.vm, turn)
        is_long = turn.at_s - alive_s > CONTINUE_AFTER_S
        if is_long and not tree.orders.paused_by:  # what someone paused waits for a word already
            waits = (o.parent for o in tree.live.values() if o.state in _NOT_BEGUN and is_heavy(o))
            reason = because(ReasonCode.BATCH_LEFT, since=alive_s)
            asked = tree.orders.paused_batches
            tree.order(tree.orders.pausing((b for b in waits if b and b not in asked), reason), turn)
        for operation in list(tree.live.values()):
            self._go_on(operation, turn, is_long=is_long)
        for operation in operations:
            if operation.kind is OperationKind.BATCH and not tree.unended(operation.id):
                self._execution.close(operation.id, turn)
        tree.backlog.look()

    def _go_on(self, operation: Operation, turn: Turn, *, is_long: bool) -> None:
        """What becomes of an operation whose program ended, perhaps long ago."""
        stranger = next((n for n in nodes_of(operation) if n not in self._inventory.nodes), None)
        if stranger is not None:
            reason = because(ReasonCode.NO_SUCH_NODE, node=stranger)
            self._execution.end(operation, _S.FAILED, reason, turn)
        elif operation.state in _NOT_BEGUN:
            if is_long and not is_heavy(operation):
                reason = because(ReasonCode.INTERRUPTED_WAITING)
                self._execution.end(operation, _S.CANCELLED, reason, turn)
            elif operation.state is _S.CHECKING:
                self._tree.move(operation, _S.WAITING, turn)
            elif operation.retry_at_s is not None:
                self._tree.set_timer("retry", operation, max(0.0, operation.retry_at_s - turn.at_s), turn)
        else:
            target = operation.target
            if target is not None and target not in self._inventory.nodes:  # it can only turn back
                text = because(ReasonCode.NO_SUCH_NODE, node=target).text
                operation = replace(operation, failed=text)
                self._tree.change(operation, turn)
            asked = operation.state is _S.SETTLING and asks_guest(operation)
            self._settling.settle(operation, None if asked else _INTERRUPTED, turn)
            if operation.state is _S.CANCELLING:
                self._execution.abort(operation, turn)

    def mirror(self, event: ev.OperationsReported, turn: Turn) -> None:
        """Show what another process, the owner of the operations, says; nothing is started here."""
        self._tree.progress.update(event.progress)
        for operation in event.operations:
            self._tree.hear_of(operation, turn)
            if operation.vm is not None and not operation.is_over:
                if operation.vm not in self._tree.claims:
                    self._tree.hold_vm(operation)
                self._inventory.refresh(operation.vm, turn)

    def journal_failed(self, event: ev.JournalFailed, turn: Turn) -> None:
        """What could not be journaled must not start."""
        for key in event.operations:
            self._maintenance.journal_failed(key, event.text, turn)
            operation = self._tree.live.get(key)
            if operation is None:
                continue
            if operation.state is _S.RUNNING and operation.step not in (None, path_of(operation)[0]):
                failure = Failure(code=FailureCode.INTERRUPTED, text=event.text)
                self._settling.not_stored(operation, failure, turn)
            elif operation.state in (_S.WAITING, _S.CHECKING, _S.RUNNING):
                reason = because(ReasonCode.JOURNAL_FAILED, text=event.text)
                self._execution.end(operation, _S.FAILED, reason, turn)
            else:  # perhaps cancelled before its start was stored: the hosts know
                self._settling.settle(operation, _INTERRUPTED, turn)
                self._execution.abort(operation, turn)
        self._tree.backlog.look()

    # --- answers ---------------------------------------------------------------------------

    def effect_ended(self, event: ev.EffectEnded, turn: Turn) -> None:
        """A call came back. An answer to an old attempt changes nothing."""
        self._maintenance.effect_ended(event, turn)
        operation = self._of_attempt(event.operation, event.attempt)
        if operation is None:
            return
        if operation.state is _S.CHECKING:
            if event.failure is None:
                self._execution.set_out(operation, turn)
            else:
                self._settling.not_let_in(operation, event.failure, turn)
        elif operation.state in (_S.RUNNING, _S.CANCELLING):
            if operation.kind is OperationKind.SETTINGS:
                self._settings_written(operation, event.failure, turn)
            else:
                self._note_drained(operation, event.failure, turn)
                self._settling.settle(operation, event.failure, turn)

    def _settings_written(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """What was written is known; there is nothing to be seen."""
        if failure is not None:
            reason = self._explanations.failed(operation, failure)
            self._execution.end(operation, _S.FAILED, reason, turn)
            return
        assert operation.source and operation.vm
        if operation.settings is not None:
            self._inventory.settings_written(operation.vm, operation.source, operation.settings, turn)
        turn.effects.append(ReadVm(trace=turn.trace, node=operation.source, vm=operation.vm))
        self._execution.end(operation, _S.DONE, self._explanations.edited(operation), turn)

    def _note_drained(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """A step of a move noted, or removed, from where its VM is drained: known before it is read again."""
        if failure is None and operation.vm is not None:
            if operation.step is MoveStep.NOTE and operation.source is not None:
                noted = operation.drained_from
                self._inventory.drain_noted(operation.vm, operation.source, noted, turn)
            elif operation.step is MoveStep.UNNOTE and operation.target is not None:
                self._inventory.drain_noted(operation.vm, operation.target, None, turn)

    def abort_failed(self, event: ev.AbortFailed, turn: Turn) -> None:
        """The cancel could not be delivered: tried again while the move still runs."""
        operation = self._of_attempt(event.operation, event.attempt)
        if operation is not None and operation.state is _S.CANCELLING:
            self._tree.set_timer("abort", operation, LOOK_AGAIN_S, turn)

    def _of_attempt(self, key: OperationId, attempt: int) -> Operation | None:
        operation = self._tree.live.get(key)
        return operation if operation is not None and operation.attempt == attempt else None

    # --- a live move's course --------------------------------------------------------------

    def progressed(self, event: ev.MigrationProgress, turn: Turn) -> None:
        """New figures of a move."""
        operation = self._of_attempt(event.operation, event.attempt)
        if operation is None:
            return
        sends = event.total_bytes > 0 and self._goals.lacks_its_call(operation)
        if operation.state is _S.SETTLING and (sends or self._goals.still_moves(operation)):
            # Its call was lost, it was not: it is watched and steered like any other.
            operation = self._tree.move(operation, _S.RUNNING, turn)
        assert operation.vm is not None
        watch = self._converges(operation, event, turn)
        figures = advanced(self._tree.progress.get(operation.id), event, watch)
        if figures != self._tree.progress.get(operation.id):
            self._tree.progress[operation.id] = figures
            turn.changes[Kind.OPERATION].update(operation.id, ("progress",))
            self._inventory.refresh(operation.vm, turn)

    def _converges(self, operation: Operation, seen: ev.MigrationProgress, turn: Turn) -> convergence.Watch:
        """Judge a move's figures by its policy, and do now what that says."""
        before = self._tree.progress.get(operation.id, MoveProgress()).watch
        if operation.step is not MoveStep.MOVE or operation.state is not _S.RUNNING:
            return before
        watch, step = convergence.judge(
            before,
            self._instructions.convergence(operation),
            seen,
            memory_mib=operation.memory_mib,
            started_s=seen.at_s - seen.elapsed_ms / 1000,
            place=f"on {operation.source}",
        )
        if step is None:
            return watch
        self._story.tell(operation.id, turn.at_s, step.reason.text)
        if step.give_up:
            self._execution.cancel(replace(operation, failed=step.reason.text), turn)
        else:
            turn.effects.append(
                self._instructions.tune(
                    operation,
                    pause_ms=step.pause_ms,
                    post_copy=step.post_copy,
                    instead_of=before.pause_ms,
                )
            )
        return watch

    def routed(self, event: ev.MigrationRouted, turn: Turn) -> None:
        """Which way a move's memory goes."""
        operation = self._of_attempt(event.operation, event.attempt)
        if operation is None:
            return
        before = self._tree.progress.get(operation.id, MoveProgress())
        self._tree.progress[operation.id] = replace(before, address=event.address, encrypted=event.encrypted)
        how = "encrypted" if event.encrypted else "not encrypted"
        over = event.address or "the address of the target"
        self._story.tell(operation.id, turn.at_s, f"over {over}, {how}")
        turn.changes[Kind.OPERATION].update(operation.id, ("progress",))

    def tune_failed(self, event: ev.TuneFailed, turn: Turn) -> None:
        """The move goes on as it was."""
        operation = self._of_attempt(event.operation, event.attempt)
        if operation is None:
            return
        self._story.tell(operation.id, turn.at_s, f"the host refused: {event.failure.text}")
        figures, tune = self._tree.progress.get(operation.id, MoveProgress()), event.tune
        self._tree.progress[operation.id] = replace(
            figures,
            watch=convergence.refused(
                figures.watch,
                pause_ms=tune.pause_ms,
                instead_of=tune.instead_of,
                post_copy=tune.post_copy and not tune.by_hand,
            ),
        )
        turn.changes[Kind.OPERATION].update(operation.id, ("progress",))
        if tune.by_hand:
            cap_mib_s = operation.cap_mib_s
            if tune.bandwidth_mib_s == cap_mib_s:
                cap_mib_s = tune.instead_of or 0
            refusals = (*operation.refusals, event.failure.text)
            self._tree.change(replace(operation, cap_mib_s=cap_mib_s, refusals=refusals), turn)

    # --- what is seen ----------------------------------------------------------------------

    def rebooted(self, vm: VmId, turn: Turn) -> None:
        """A guest restarted: what a restart or reset waited for."""
        key = self._tree.claims.get(vm)
        if key is not None and self._tree.operations[key].change is VmChange.RESTART:
            self._tree.restarted.add(key)
            self._settling.judge(vm, turn)

    def undefined(self, vm: VmId, node: NodeId, turn: Turn) -> None:
        """A definition was removed: what runs on without one is not what was to be worked on."""
        operation, row = self._tree.holder(vm), self._inventory.vms.get(vm)
        if operation is None or row is None or operation.state is not _S.WAITING:
            return
        if row.owner == node and row.status in (VmStatus.RUNNING, VmStatus.PAUSED):
            self._execution.end(operation, _S.FAILED, because(ReasonCode.UNDEFINED), turn)

    def vm_changed(self, vm: VmId, turn: Turn) -> None:
        """A VM's row changed: an operation may have reached its goal."""
        operation = self._tree.holder(vm)
        if operation is None:
            return
        if operation.state is _S.WAITING:
            self._tree.backlog.look_at(operation.id)
        else:
            self._settling.judge(vm, turn)

    def node_read(self, node: NodeId, turn: Turn) -> None:
        """A node was read whole: everything that waits for a look at it is judged."""
        for operation in list(self._tree.active.values()):
            if operation.vm is not None and node in (operation.source, operation.target):
                self._settling.judge(operation.vm, turn)
        self._admission.room_changed()

    def timer(self, kind: str, key: str, turn: Turn) -> None:
        """A patience ran out, or it is time for another look."""
        operation = self._tree.live.get(OperationId(key))
        if operation is None or operation.vm is None:
            return
        judged = operation.id in self._tree.ended_calls
        if kind == "abort" and operation.state is _S.CANCELLING:
            self._execution.abort(operation, turn)
        elif kind == "patience" and judged:
            self._settling.ignored(operation, turn)
        elif kind == "settle" and judged:
            self._settling.judge_late(operation, turn)
        elif kind == "look" and judged:
            self._settling.read_again(operation, turn)
        elif kind == "retry" and operation.state is _S.WAITING:
            self._tree.backlog.look_at(operation.id)
            self._tree.backlog.look()

    # --- the end of a turn -----------------------------------------------------------------

    def look(self) -> None:
        """Something outside the tree ended: what waits may start."""
        self._tree.backlog.look()

    def admit(self, turn: Turn) -> None:
        """Start what may start, in order; tell the rest why it waits. Runs inside the same turn."""
        for decided in self._admission.decisions(turn):
            if isinstance(decided, Start):
                self._execution.begin(decided.operation, turn)
            else:
                self._execution.end(decided.operation, decided.state, decided.reason, turn)
        self._maintenance.advance(turn)

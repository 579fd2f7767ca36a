"""After a call came back: what is seen decides about the next step, another try, the way back or the end."""

from __future__ import annotations

from dataclasses import replace

from manager.core.changes import Turn
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode
from manager.core.execution import Execution
from manager.core.explanations import Explanations
from manager.core.goals import UNCERTAIN, Goals
from manager.core.ids import VmId
from manager.core.instructions import Instructions
from manager.core.inventory import Inventory
from manager.core.migration import guard, moves
from manager.core.migration.moves import MoveStep
from manager.core.migration.queue import is_heavy
from manager.core.model import VmStatus
from manager.core.operations import Operation, OperationKind, OperationState, asks_guest, nodes_of, step_after
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.steering import Steering
from manager.core.tree import EndedCall, Tree

SHUTDOWN_PATIENCE_S = 180.0
"""How long a guest that was asked to shut down or restart is waited for."""

LAST_LOOK_S = 10.0
"""How long before that patience ends the node is read once more: an event may have been lost."""

SETTLE_PATIENCE_S = 120.0
"""How long an ended call's result may take to be seen on nodes that answer."""

LOST_PATIENCE_S = 1800.0
"""How long an operation waits for a node that was lost while it ran."""

LATE_S = 35.0
"""How long a call whose answer was lost may still begin to act: one may wait 30 s for its turn on a VM.

Source: libvirt, QEMU_JOB_WAIT_TIME.
"""

LOOK_AGAIN_S = 2.0
"""Pause between looks at a move whose call ended while the hosts still carry it on."""

UNSTORED_S = 10.0
"""Pause between tries to journal the next step of a move whose VM left its source."""

_S = OperationState


class Settling:
    """Brings every operation whose call is over to what comes next; each wait has its end."""

    def __init__(
        self,
        inventory: Inventory,
        tree: Tree,
        goals: Goals,
        steering: Steering,
        execution: Execution,
        instructions: Instructions,
        explanations: Explanations,
    ) -> None:
        self._inventory = inventory
        self._tree = tree
        self._goals = goals
        self._steering = steering
        self._execution = execution
        self._instructions = instructions
        self._explanations = explanations

    # --- waiting for what is seen ----------------------------------------------------------

    def settle(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """The call is over: from here only what is seen counts."""
        self._tree.ended_calls[operation.id] = EndedCall(turn.at_s, failure)
        if operation.state is _S.RUNNING:
            operation = self._tree.move(operation, _S.SETTLING, turn)
        self._watch(operation, turn)
        assert operation.vm is not None
        self.judge(operation.vm, turn)

    def not_stored(self, operation: Operation, failure: Failure, turn: Turn) -> None:
        """A later step of a move could not be journaled: its VM may be up nowhere, so it is tried again."""
        self._tree.ended_calls[operation.id] = EndedCall(turn.at_s + UNSTORED_S, failure)
        reason = because(ReasonCode.JOURNAL_FAILED, text=failure.text)
        operation = self._tree.move(operation, _S.SETTLING, turn, reason)
        self._tree.set_timer("look", operation, UNSTORED_S, turn)

    def _watch(self, operation: Operation, turn: Turn) -> None:
        """Wait for what the end of the call brings; not for ever."""
        failure = self._tree.ended_calls[operation.id].failure
        if asks_guest(operation) and failure is None:
            self._tree.set_timer("patience", operation, SHUTDOWN_PATIENCE_S, turn)
            self._tree.set_timer("look", operation, SHUTDOWN_PATIENCE_S - LAST_LOOK_S, turn)
        else:
            self._wait_on(operation, turn)

    def read_again(self, operation: Operation, turn: Turn) -> None:
        """Look at the nodes it is about."""
        turn.effects += self._instructions.reads(operation, turn.trace)

    def judge(self, vm_id: VmId, turn: Turn) -> None:
        """Has the operation on this VM reached its goal, or is it clear that it will not?"""
        operation = self._tree.holder(vm_id)
        if operation is None or operation.id not in self._tree.ended_calls:
            return
        ended_s, failure = self._tree.ended_calls[operation.id]
        vm = self._inventory.vms.get(vm_id)
        goal = self._goals.reached(operation, vm) if vm else None
        if goal is not None:
            if operation.kind is OperationKind.MIGRATE:
                self._step_done(operation, goal, turn)
            else:
                self._execution.end(operation, _S.DONE, None, turn)
            return
        if vm is not None and asks_guest(operation) and failure is None:
            return  # the guest has its time
        unseen = self._goals.unseen(operation, ended_s)
        stays = self._goals.stays(operation, failure, unseen)
        if unseen and not stays and self._goals.seen_to_send(operation, turn.at_s):
            self._look_on(operation, turn)
            return
        if unseen and not stays:
            waits = because(ReasonCode.WAITS_INVENTORY, node=unseen[0].id)
            if operation.state is _S.RUNNING:
                self._tree.move(operation, _S.SETTLING, turn, waits)
            else:
                self._say(operation, waits, turn)
            if not self._goals.is_sent(operation):
                self._tree.backlog.look()
            return
        final = stays and failure is not None and failure.node == operation.target
        late_s = self._late_s(operation, turn)
        if not final and self._goals.goes_on(operation):
            self._look_on(operation, turn)
            return
        if late_s > 0:
            self._say(operation, because(ReasonCode.MAY_ACT_LATE, at=turn.at_s + late_s), turn)
            self._tree.set_timer("look", operation, late_s, turn)
            return
        if operation.state is _S.RUNNING:  # taken over, and over now
            operation = self._tree.move(operation, _S.SETTLING, turn)
        if vm is None:
            self._vanished(operation, turn)
        else:
            self._missed(operation, failure, turn)

    def _look_on(self, operation: Operation, turn: Turn) -> None:
        """A host carries it on."""
        self._say(operation, because(ReasonCode.GOES_ON), turn)
        self._tree.set_timer("look", operation, LOOK_AGAIN_S, turn)

    def _say(self, operation: Operation, reason: Reason, turn: Turn) -> None:
        """Why it still settles; one that runs needs no reason."""
        if operation.state is not _S.RUNNING and operation.reason != reason:
            self._tree.say(operation, reason, turn)

    def judge_late(self, operation: Operation, turn: Turn) -> None:
        """The time to see a result is over: wait on for lost nodes, give up on answering ones."""
        ended_s, failure = self._tree.ended_calls[operation.id]
        nodes = self._inventory.nodes
        lost = any(not nodes[n].is_up for n in nodes_of(operation) if n in nodes)
        goes_on = self._goals.goes_on(operation) or self._late_s(operation, turn) > 0
        figures = self._tree.progress.get(operation.id)
        heard_s = max(ended_s, (figures.watch.seen_at_s if figures else None) or 0.0)
        if turn.at_s - heard_s < LOST_PATIENCE_S if lost else goes_on:
            self._wait_on(operation, turn)
        else:
            self._missed(operation, failure, turn)

    def _late_s(self, operation: Operation, turn: Turn) -> float:
        """For how many seconds a call whose end nobody heard may yet stop the VM, or start it elsewhere."""
        ended_s, failure = self._tree.ended_calls[operation.id]
        if failure is None or failure.code not in UNCERTAIN:
            return 0.0
        if asks_guest(operation):
            return ended_s + SHUTDOWN_PATIENCE_S - turn.at_s
        again = failure.code is FailureCode.INTERRUPTED and not operation.cancelled_by
        if operation.step in moves.LEAVING or (operation.step in moves.ARRIVING and not again):
            return ended_s + LATE_S - turn.at_s
        return 0.0

    def ignored(self, operation: Operation, turn: Turn) -> None:
        """The guest had its time."""
        if operation.cancelled_by:
            self._execution.end(operation, _S.CANCELLED, self._explanations.cancelled(operation), turn)
            return
        reason = because(
            ReasonCode.SHUTDOWN_IGNORED,
            asked="restart" if operation.change is VmChange.RESTART else "shut down",
            span=SHUTDOWN_PATIENCE_S,
            place=self._explanations.place(operation.vm),
        )
        self._execution.end(operation, _S.FAILED, reason, turn)

    def _wait_on(self, operation: Operation, turn: Turn) -> None:
        self._tree.set_timer("settle", operation, SETTLE_PATIENCE_S, turn)
        self.read_again(operation, turn)

    # --- what comes next -------------------------------------------------------------------

    def not_let_in(self, operation: Operation, failure: Failure, turn: Turn) -> None:
        """The source could not log in to the target: nothing was moved."""
        source = operation.source
        if failure.code is FailureCode.UNREACHABLE and failure.node == source is not None:
            # Nothing was tried: its node is about to be seen as lost, or answers again.
            reason = because(ReasonCode.WAITS_INVENTORY, node=source)
            self._put_back(operation, reason, LOOK_AGAIN_S, turn)
        elif self._retry(operation, failure, turn) is None:
            self._steering.blame(operation, failure, turn)
            reason = self._explanations.peer_refused(operation, failure)
            self._execution.end(operation, _S.FAILED, reason, turn)

    def _step_done(self, operation: Operation, goal: Reason, turn: Turn) -> None:
        """A step of a move reached what it is for: the next one, the way back, or the end."""
        step = operation.step
        assert step is not None
        if step is MoveStep.NOTE and operation.cancelled_by:
            self._execution.end(operation, _S.CANCELLED, self._explanations.cancelled(operation), turn)
            return
        turns = (*moves.LEAVING, MoveStep.DEFINE) if operation.cancelled_by else moves.LEAVING
        if (operation.cancelled_by or operation.failed) and step in turns:
            self._turn_back(operation, turn)
            return
        following = step_after(operation, step)
        if step is MoveStep.FORGET_TARGET or (
            following is MoveStep.FORGET_TARGET
            and not self._inventory.sighting(operation.vm or VmId(""), operation.target)
        ):
            self._end_turned_back(operation, turn)
        elif following is None:
            self._steering.acquit(operation, turn)
            self._execution.end(operation, _S.DONE, goal, turn)
        else:
            self._execution.run(operation, following, turn)

    def _turn_back(self, operation: Operation, turn: Turn) -> None:
        """It left its source and will not arrive: back, if the target surely does not run it."""
        assert operation.vm is not None
        target = operation.target
        starts = operation.step in moves.ARRIVING
        if target is not None and starts and self._goals.may_run_on(operation, target):
            text = operation.failed or self._explanations.cancelled(operation).text
            reason = because(ReasonCode.CANNOT_TELL, text=text, node=target)
            self._execution.end(operation, _S.FAILED, reason, turn)
        elif not operation.was_off:
            self._execution.run(operation, moves.BACK[operation.move][0], turn)
        elif self._inventory.sighting(operation.vm, target):
            self._execution.run(operation, MoveStep.FORGET_TARGET, turn)
        else:
            self._end_turned_back(operation, turn)

    def _end_turned_back(self, operation: Operation, turn: Turn) -> None:
        if operation.failed:
            place = self._explanations.place(operation.vm)
            reason = because(ReasonCode.FAILED, text=operation.failed, place=place)
            self._execution.end(operation, _S.FAILED, reason, turn)
        else:
            self._execution.end(operation, _S.CANCELLED, self._explanations.cancelled(operation), turn)

    def _retry(self, operation: Operation, failure: Failure | None, turn: Turn) -> Reason | None:
        """Let a piece of work wait for another try; None if it gets none."""
        policy = self._inventory.config.migration.retry
        vm = self._inventory.vms.get(operation.vm) if operation.vm else None
        if failure is None or vm is None or not guard.may_retry(policy, operation, failure):
            return None
        if not is_heavy(operation) or vm.owner != operation.source or vm.status is VmStatus.UNKNOWN:
            return None
        pause_s = guard.pause_s(policy, operation.retries)
        retries = operation.retries + 1
        reason = because(
            ReasonCode.RETRY,
            count=retries,
            limit=policy.times,
            at=turn.at_s + pause_s,
            text=failure.text or failure.code.value,
        )
        avoid = operation.avoid
        if operation.target is not None and guard.blames_target(operation, failure):
            avoid = (*avoid, operation.target)
        self._put_back(replace(operation, retries=retries, avoid=avoid), reason, pause_s, turn)
        return reason

    def _put_back(self, operation: Operation, reason: Reason, pause_s: float, turn: Turn) -> None:
        """Let it wait for its turn again, and for so long at least."""
        operation = replace(operation, retry_at_s=turn.at_s + pause_s, step=None)
        self._tree.forget_try(operation, turn)
        operation = self._tree.move(operation, _S.WAITING, turn, reason)
        self._tree.set_timer("retry", operation, pause_s, turn)
        self._tree.backlog.look()

    def _vanished(self, operation: Operation, turn: Turn) -> None:
        """Its nodes were read, and none has the VM."""
        if self._goals.is_gone_as_wanted(operation):
            self._execution.end(operation, _S.DONE, None, turn)
        else:
            self._execution.end(operation, _S.FAILED, because(ReasonCode.VM_VANISHED), turn)

    def _missed(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """The call is over, the world was seen, and it is not as wanted."""
        if operation.kind is OperationKind.MIGRATE:
            self._steering.blame(operation, failure, turn)
            if self._goes_on(operation, failure, turn):
                return
        if self._retry(operation, failure, turn) is not None:
            return
        code = failure.code if failure else None
        if operation.failed:  # of a give-up, or of the way back
            also = failure.text if failure and code is not FailureCode.CANCELLED else ""
            text = f"{operation.failed}; {also}" if also else operation.failed
            place = self._explanations.place(operation.vm)
            reason = because(ReasonCode.FAILED, text=text, place=place)
            self._execution.end(operation, _S.FAILED, reason, turn)
        elif operation.cancelled_by and (code in (None, FailureCode.CANCELLED) or code in UNCERTAIN):
            self._execution.end(operation, _S.CANCELLED, self._explanations.cancelled(operation), turn)
        else:
            reason = self._explanations.missed(operation, failure)
            self._execution.end(operation, _S.FAILED, reason, turn)

    def _goes_on(self, operation: Operation, failure: Failure | None, turn: Turn) -> bool:
        """Whether a move has its own way on from a step that missed: asked again, or turned back."""
        step = operation.step
        interrupted = failure is not None and failure.code is FailureCode.INTERRUPTED
        again = interrupted and not operation.cancelled_by
        if step in moves.CLEARING_UP:
            self._left_behind(operation, failure, turn)
        elif step in (MoveStep.COPY_DISKS, MoveStep.NOTE) and again and step is not None:
            # Copies go on, and asking again takes them over; a note may be written twice.
            self._execution.run(operation, step, turn)
        elif step not in (*moves.ARRIVING, MoveStep.DEFINE):
            return False
        elif step is not None and again:
            self._execution.run(operation, step, turn)  # both nodes were read: not done, and nowhere up
        else:
            text = operation.failed or _said(failure)
            self._turn_back(replace(operation, failed=text), turn)
        return True

    def _left_behind(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """The VM has its place; only its old definition could not be removed."""
        assert operation.source and operation.step
        if failure is not None and failure.code is FailureCode.INTERRUPTED:
            self._execution.run(operation, operation.step, turn)  # doing it twice does no harm
        elif operation.step is MoveStep.FORGET_TARGET:
            self._end_turned_back(operation, turn)
        elif operation.step is MoveStep.UNNOTE:
            reason = because(
                ReasonCode.STILL_NOTED, place=self._explanations.place(operation.vm), text=_said(failure)
            )
            self._execution.end(operation, _S.DONE, reason, turn)
        else:
            place = self._explanations.place(operation.vm)
            reason = because(
                ReasonCode.STILL_DEFINED, place=place, node=operation.source, text=_said(failure)
            )
            self._execution.end(operation, _S.DONE, reason, turn)


def _said(failure: Failure | None) -> str:
    return failure.text or failure.code.value if failure else "the host reported no error"

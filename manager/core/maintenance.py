"""Pausing, draining and resuming nodes: each a parent operation, step by step, whose children are moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from manager.core import events as ev
from manager.core.changes import Story, Turn
from manager.core.effects import HoldNode, ReleaseNode
from manager.core.errors import Failure, FailureCode
from manager.core.execution import Execution
from manager.core.ids import OperationId
from manager.core.inventory import Inventory
from manager.core.model import DrainState, Node, NodeStage, NodeStatus, VmStatus
from manager.core.operations import Operation, OperationState
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.tree import Tree

_S = OperationState
_N = NodeStage

STAGES: Mapping[NodeStage, frozenset[NodeStage]] = {
    _N.PAUSE: frozenset({_N.MOVE, _N.OVER}),
    _N.RESUME: frozenset({_N.MOVE, _N.OVER}),
    _N.MOVE: frozenset({_N.REPORT, _N.OVER}),
    _N.REPORT: frozenset({_N.OVER}),
    _N.OVER: frozenset(),
}
"""All ways from stage to stage; `docs/states/maintenance.md` is drawn from this.

A node is paused before the first of its VMs leaves, and takes VMs again before the first comes back.
"""

_WRITES = frozenset({_N.PAUSE, _N.RESUME, _N.REPORT})
_NAMED = 5
"""So many VMs that stayed are named."""


class Maintenance:
    """Brings every pause, drain and resume of a node to its end. Only `Work` calls it."""

    def __init__(self, inventory: Inventory, tree: Tree, execution: Execution, story: Story) -> None:
        self._inventory = inventory
        self._tree = tree
        self._execution = execution
        self._story = story
        self._sent: set[OperationId] = set()  # whose call is under way: that of a program that ended is not

    def effect_ended(self, event: ev.EffectEnded, turn: Turn) -> None:
        """What was to be written on a node was, or was not."""
        operation = self._tree.on_nodes.get(event.operation)
        if operation is None or operation.attempt != event.attempt or operation.stage not in _WRITES:
            return
        self._sent.discard(operation.id)
        if event.failure is None:
            self._written(operation, turn)
        elif operation.stage is _N.REPORT:
            self._end(operation, turn)  # how it ended is known here, if not there
        else:
            self._give_up(operation, event.failure, turn)

    def journal_failed(self, key: OperationId, text: str, turn: Turn) -> None:
        """It could not be journaled, so nothing of it was begun."""
        operation = self._tree.on_nodes.get(key)
        if operation is not None:
            failure = Failure(code=FailureCode.OTHER, text=because(ReasonCode.JOURNAL_FAILED, text=text).text)
            self._give_up(operation, failure, turn)

    def advance(self, turn: Turn) -> None:
        """At the end of every turn: write what is to be written, see what is left to be moved."""
        for operation in list(self._tree.on_nodes.values()):
            if operation.stage in _WRITES:
                self._write(operation, turn)
            elif operation.stage is _N.MOVE:
                self._look_at_moves(operation, turn)

    # --- the stages ------------------------------------------------------------------------

    def _write(self, operation: Operation, turn: Turn) -> None:
        """Ask the node, once it can be asked."""
        if operation.id in self._sent:
            return
        node = self._node(operation)
        if node is None or node.status not in (NodeStatus.UP, NodeStatus.CONNECTING):
            if operation.stage is _N.REPORT:
                self._end(operation, turn)
            else:
                text = because(ReasonCode.NODE_UNREACHABLE, node=str(operation.source)).text
                self._give_up(operation, Failure(code=FailureCode.UNREACHABLE, text=text), turn)
            return
        if not node.is_up:  # after a restart: not connected yet is not lost
            self._say(operation, because(ReasonCode.WAITS_INVENTORY, node=node.id), turn)
            return
        operation = replace(operation, attempt=operation.attempt + 1)
        if operation.state is _S.WAITING:
            operation = self._tree.move(operation, _S.RUNNING, turn, _said(operation.stage))
        else:
            self._tree.change_node(replace(operation, reason=_said(operation.stage)), turn)
        self._sent.add(operation.id)
        about = {
            "trace": operation.trace,
            "operation": operation.id,
            "attempt": operation.attempt,
            "node": node.id,
        }
        if operation.hold is not None:
            turn.effects.append(HoldNode(**about, hold=operation.hold))  # type: ignore[arg-type]
        else:
            turn.effects.append(ReleaseNode(**about))  # type: ignore[arg-type]

    def _written(self, operation: Operation, turn: Turn) -> None:
        assert operation.source
        if operation.hold is not None:
            held = ev.NodeHeld(at_s=turn.at_s, node=operation.source, hold=operation.hold)
            self._inventory.node_held(held, turn)
        else:
            self._inventory.node_released(
                ev.NodeReleased(at_s=turn.at_s, node=operation.source, who=""), turn
            )
        if operation.stage is _N.REPORT:
            self._end(operation, turn)
        elif operation.children or _drains(operation):
            self._go(operation, _N.MOVE, turn)
            self._tree.backlog.look()  # what waited for it may begin
        else:
            self._end(operation, turn)

    def _look_at_moves(self, operation: Operation, turn: Turn) -> None:
        left = self._tree.unended(operation.id)
        if left:
            code = ReasonCode.DRAINING if _drains(operation) else ReasonCode.FAILING_BACK
            self._say(operation, because(code, left=left, of=operation.children), turn)
        elif operation.hold is not None:
            ended = DrainState.FAILED if self._still_there(operation) else DrainState.DRAINED
            hold = replace(operation.hold, drain=ended)
            self._go(replace(operation, hold=hold), _N.REPORT, turn)
            self._write(self._tree.on_nodes[operation.id], turn)
        else:
            self._end(operation, turn)

    def _give_up(self, operation: Operation, failure: Failure, turn: Turn) -> None:
        """The node could not be paused, or resumed: none of the moves begins."""
        reason = because(ReasonCode.NODE_WORK_FAILED, text=failure.text or failure.code.value)
        for child in [o for o in self._tree.live.values() if o.parent == operation.id]:
            self._execution.end(child, _S.CANCELLED, reason, turn)
        self._over(operation, _S.FAILED, reason, turn)

    def _end(self, operation: Operation, turn: Turn) -> None:
        """All is done that could be: how it ended."""
        count = self._tree.count
        end = _S.DONE
        if operation.hold is None:
            reason = because(ReasonCode.NODE_RESUMED)
        elif not _drains(operation):
            reason = because(ReasonCode.NODE_PAUSED)
        elif names := self._still_there(operation):
            end = _S.CANCELLED if count(operation.id, _S.CANCELLED) else _S.FAILED
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            told = ", ".join(names[:_NAMED]) + more
            reason = because(ReasonCode.NODE_NOT_DRAINED, count=len(names), names=told)
        else:
            reason = because(ReasonCode.NODE_DRAINED)
        if count(operation.id, _S.FAILED):
            end = _S.FAILED
        elif operation.hold is None and count(operation.id, _S.CANCELLED):
            end = _S.CANCELLED
        self._over(operation, end, reason, turn)

    # --- inside ----------------------------------------------------------------------------

    def _go(self, operation: Operation, stage: NodeStage, turn: Turn) -> None:
        assert operation.stage is not None
        if stage not in STAGES[operation.stage]:
            raise AssertionError(f"{operation.id}: {operation.stage} -> {stage}")
        self._story.tell(operation.id, turn.at_s, stage.value)
        self._tree.change_node(replace(operation, stage=stage), turn)

    def _over(self, operation: Operation, end: OperationState, reason: Reason, turn: Turn) -> None:
        self._sent.discard(operation.id)
        if operation.state is _S.WAITING:
            operation = self._tree.move(operation, _S.RUNNING, turn)
        self._execution.forget_batch(operation.id, turn)
        self._tree.move(replace(operation, stage=_N.OVER), end, turn, reason)
        self._tree.backlog.look()

    def _say(self, operation: Operation, reason: Reason, turn: Turn) -> None:
        """How far it is; derived, so not journaled."""
        if operation.reason != reason:
            self._tree.say_of_node(operation, reason, turn)

    def _node(self, operation: Operation) -> Node | None:
        return self._inventory.nodes.get(operation.source) if operation.source else None

    def _still_there(self, operation: Operation) -> list[str]:
        """The names of the VMs that run, or may run, on the node, and of those that did not leave."""
        up = (VmStatus.RUNNING, VmStatus.PAUSED, VmStatus.UNKNOWN)
        assert operation.source
        missed = {
            o.vm
            for o in self._tree.operations.values()
            if o.parent == operation.id and o.state in (_S.FAILED, _S.CANCELLED)
        }
        owned = (self._inventory.vms[vm] for vm in self._inventory.owned(operation.source))
        return sorted(vm.name for vm in owned if vm.status in up or vm.id in missed)


def _drains(operation: Operation) -> bool:
    return operation.hold is not None and operation.hold.drain is not DrainState.NONE


def _said(stage: NodeStage | None) -> Reason:
    return because(ReasonCode.NODE_WORK, what=stage.value if stage else "")

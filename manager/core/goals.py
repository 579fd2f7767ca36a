"""Whether what is seen of a VM is what its operation is for. Reads only."""

from __future__ import annotations

from collections.abc import Mapping

from manager.core.effects import SNAPSHOT_CHANGES, VmChange
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId
from manager.core.inventory import Inventory, is_incoming
from manager.core.migration import moves
from manager.core.migration.moves import MoveStep
from manager.core.migration.progress import MovePhase
from manager.core.model import MoveType, Node, Sighting, StatusCause, Vm, VmStatus
from manager.core.operations import Operation, OperationKind, nodes_of
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.tree import EndedCall, Tree

UNCERTAIN = frozenset({FailureCode.INTERRUPTED, FailureCode.TIMEOUT, FailureCode.UNREACHABLE})
"""Ends of calls that say nothing about what the host does meanwhile."""

FRESH_S = 5.0
"""So old a live move's figures may be to say that it goes on: they come twice a second."""

_LEAVING = frozenset({StatusCause.MIGRATION, StatusCause.MIGRATED, StatusCause.POSTCOPY})
"""Why a source's half of a move is paused at its end."""

_STOPPED = frozenset({VmStatus.OFF, VmStatus.CRASHED})
_UP = frozenset({VmStatus.RUNNING, VmStatus.PAUSED})

_OF_CHANGE: Mapping[VmChange, frozenset[VmStatus]] = {
    VmChange.START: _UP,
    VmChange.SHUT_DOWN: _STOPPED,
    VmChange.SHUT_DOWN_AGENT: _STOPPED,
    VmChange.TURN_OFF: _STOPPED,
    VmChange.RESTART: frozenset({VmStatus.RUNNING}),
    VmChange.SAVE: frozenset({VmStatus.SAVED}),
    VmChange.DELETE_SAVED_STATE: _STOPPED,
    VmChange.PAUSE: frozenset({VmStatus.PAUSED}),
    VmChange.RESUME: frozenset({VmStatus.RUNNING}),
    VmChange.RESET: _UP,
    VmChange.CTRL_ALT_DEL: frozenset(VmStatus),
    **dict.fromkeys(SNAPSHOT_CHANGES, frozenset(VmStatus)),
}

_BY_ITS_CALL = frozenset({VmChange.RESET, VmChange.CTRL_ALT_DEL}) | SNAPSHOT_CHANGES
"""Changes that leave nothing to be seen of the VM: the end of their call says whether they were made."""


class Goals:
    """Judges operations by what the nodes say, not by what their calls said."""

    def __init__(self, inventory: Inventory, tree: Tree) -> None:
        self._inventory = inventory
        self._tree = tree

    def reached(self, operation: Operation, vm: Vm) -> Reason | None:
        """What to say if the operation, or the step of it that is under way, is seen to have its result."""
        if vm.status is VmStatus.UNKNOWN:
            return None
        if operation.kind is OperationKind.MIGRATE:
            if operation.step not in (None, MoveStep.MOVE):
                return self._step_reached(operation)
            if operation.move is not MoveType.STORAGE:
                return self._arrived(operation, vm)
        return self._changed(operation, vm)

    def is_gone_as_wanted(self, operation: Operation) -> bool:
        """Whether a VM that no node has any more is what it is for: a transient one is gone when it stops."""
        change = operation.change
        return change is not None and change not in _BY_ITS_CALL and VmStatus.OFF in _OF_CHANGE[change]

    def unseen(self, operation: Operation, since_s: float) -> list[Node]:
        """The nodes it is about that were not read since then, or do not answer."""
        known = self._inventory.nodes
        nodes = (known[n] for n in nodes_of(operation) if n in known)
        return [n for n in nodes if not n.is_up or (n.last_read_s or 0.0) < since_s]

    def stays(self, operation: Operation, failure: Failure | None, unseen: list[Node]) -> bool:
        """Whether a live move is surely over without having moved.

        The source's own word is final, though the target cannot be asked.
        """
        vm = self._inventory.vms.get(operation.vm) if operation.vm else None
        return bool(
            operation.step is MoveStep.MOVE
            and failure is not None
            and _is_told(operation, failure)
            and vm is not None
            and vm.owner == operation.source
            and vm.status is VmStatus.RUNNING
            and all(n.id != operation.source for n in unseen)
        )

    def still_moves(self, operation: Operation) -> bool:
        """The call is gone but the hosts carry the move on: one of its halves is still there.

        At the end the target runs and the source, paused, clears up, or sends what post-copy asks for.
        """
        if operation.step is not MoveStep.MOVE or operation.vm is None:
            return False
        incoming = self._inventory.sighting(operation.vm, operation.target)
        source = self._inventory.sighting(operation.vm, operation.source)
        outgoing = (
            source is not None
            and source.node != operation.target
            and source.status is VmStatus.PAUSED
            and source.cause in _LEAVING
            and self._inventory.nodes[source.node].is_up
            and incoming is not None
            and incoming.status is VmStatus.RUNNING
        )
        return outgoing or (incoming is not None and is_incoming(incoming))

    def is_sent(self, operation: Operation) -> bool:
        """Whether a live move takes its places: it may still send, or is about to be judged.

        One that cannot be judged, since its target is silent, takes none once its source said how its call
        ended, or has the VM no more.
        """
        ended = self._tree.ended_calls.get(operation.id)
        if ended is None or operation.step is not MoveStep.MOVE or not (operation.vm and operation.source):
            return True
        nodes = self._inventory.nodes
        if all(nodes[node].is_up for node in nodes_of(operation) if node in nodes):
            return True
        if ended.failure is None or _is_told(operation, ended.failure):
            return False
        source = nodes[operation.source]
        here = self._inventory.sighting(operation.vm, operation.source)
        read = source.is_up and (source.last_read_s or 0.0) >= ended.at_s
        return not read or (here is not None and here.status not in _STOPPED)

    def lacks_its_call(self, operation: Operation) -> bool:
        """Whether a live move's call was lost: nobody heard its end, and its figures are what tells of it."""
        ended = self._tree.ended_calls.get(operation.id)
        failure = ended.failure if ended else None
        return operation.step is MoveStep.MOVE and failure is not None and not _is_told(operation, failure)

    def seen_to_send(self, operation: Operation, now_s: float) -> bool:
        """Whether its call was lost and its source just gave figures of it, after that: it goes on."""
        figures = self._tree.progress.get(operation.id)
        return (
            self.lacks_its_call(operation)
            and figures is not None
            and (figures.watch.seen_at_s or 0.0)
            > max(self._tree.ended_calls[operation.id].at_s, now_s - FRESH_S)
            and operation.source is not None
            and self._inventory.nodes[operation.source].is_up
        )

    def goes_on(self, operation: Operation) -> bool:
        """Its call is gone but a host carries it on: it moves, saves, restores or starts the VM."""
        assert operation.vm is not None
        if operation.step is MoveStep.SAVE or operation.change is VmChange.SAVE:
            return self._is_paused(operation, operation.source, StatusCause.SAVING)
        if operation.step in moves.ON_TARGET:
            return self._is_paused(operation, operation.target, StatusCause.STARTING_UP)
        if operation.step in moves.BEGINS_ON_SOURCE or operation.change is VmChange.START:
            return self._is_paused(operation, operation.source, StatusCause.STARTING_UP)
        return self.still_moves(operation)

    def _is_paused(self, operation: Operation, node: NodeId | None, cause: StatusCause) -> bool:
        seen = self._inventory.sighting(operation.vm, node) if operation.vm else None
        return (
            seen is not None
            and seen.node == node
            and self._inventory.nodes[seen.node].is_up
            and (seen.status, seen.cause) == (VmStatus.PAUSED, cause)
        )

    def is_past_return(self, operation: Operation) -> bool:
        """Whether a move is in its second half (post-copy): the VM runs on the target already."""
        figures = self._tree.progress.get(operation.id)
        return figures is not None and figures.phase is MovePhase.POST_COPY

    def may_run_on(self, operation: Operation, node: NodeId) -> bool:
        """Whether its VM is up on a node, as far as anybody can tell."""
        assert operation.vm is not None
        copy = self._inventory.sighting(operation.vm, node)
        return not self._inventory.nodes[node].is_up or (copy is not None and copy.status not in _STOPPED)

    # --- inside ----------------------------------------------------------------------------

    def _arrived(self, operation: Operation, vm: Vm) -> Reason | None:
        arrived = (
            vm.owner == operation.target
            and vm.status in _UP
            and not self.still_moves(operation)
            and operation.target is not None
        )
        if not arrived:
            return None
        source = self._inventory.sighting(vm.id, operation.source)
        leaves = (
            source is not None
            and source.node != operation.target
            and source.status is VmStatus.RUNNING
            and self._inventory.nodes[source.node].is_up
        )
        return None if leaves else because(ReasonCode.MOVED, node=str(operation.target))

    def _changed(self, operation: Operation, vm: Vm) -> Reason | None:
        status: VmStatus = vm.status
        if operation.change is VmChange.TURN_OFF and operation.source != vm.owner:
            # Of two running copies of a VM one was turned off: the other one is the row now.
            copy = self._inventory.sighting(vm.id, operation.source)
            status = copy.status if copy else VmStatus.OFF
        if operation.change is None or status not in _OF_CHANGE[operation.change]:
            return None
        if operation.change is VmChange.RESTART:
            return because(ReasonCode.DONE) if operation.id in self._tree.restarted else None
        if operation.change in _BY_ITS_CALL:
            ended = self._tree.ended_calls.get(operation.id)
            return because(ReasonCode.DONE) if ended and ended.failure is None else None
        if operation.change is VmChange.START and vm.cause is StatusCause.STARTING_UP:
            return None
        return because(ReasonCode.DONE)

    def _step_reached(self, operation: Operation) -> Reason | None:
        """What is seen of a step of a move that does not go live."""
        assert operation.vm and operation.source
        step = operation.step
        here = self._inventory.sighting(operation.vm, operation.source)
        there = self._inventory.sighting(operation.vm, operation.target)
        ended: EndedCall | None = self._tree.ended_calls.get(operation.id)
        failure = ended.failure if ended else None
        done = because(ReasonCode.DONE)
        if step is MoveStep.COPY_DISKS:
            storage = because(ReasonCode.DISKS_MOVED, pool=operation.pool, node=operation.source)
            there_already = failure is not None and failure.code is FailureCode.ALREADY
            return storage if ended is not None and (failure is None or there_already) else None
        if step in moves.NOTES:
            place = ReasonCode.MOVED_OFF if operation.was_off else ReasonCode.MOVED
            return (
                because(place, node=str(operation.target)) if ended is not None and failure is None else None
            )
        if step in moves.LEAVING:
            stopped = {*_STOPPED, *([VmStatus.SAVED] if step is MoveStep.SAVE else ())}
            return done if here is not None and here.status in stopped else None
        if step is MoveStep.DEFINE:
            return done if there is not None and failure is None else None
        if step in (MoveStep.RESTORE, MoveStep.START):
            return done if there is not None and _is_up(there) else None
        if step in (MoveStep.RESTORE_BACK, MoveStep.START_BACK):
            return done if here is not None and _is_up(here) else None
        left = there if step is MoveStep.FORGET_TARGET else here
        code = ReasonCode.MOVED_OFF if operation.was_off else ReasonCode.MOVED
        return because(code, node=str(operation.target)) if left is None else None


def _is_up(seen: Sighting) -> bool:
    return seen.status in _UP and seen.cause is not StatusCause.STARTING_UP


def _is_told(operation: Operation, failure: Failure) -> bool:
    """Whether the source itself said how a move ended, also that it lost its target."""
    return failure.code not in UNCERTAIN or (
        operation.target is not None and failure.node == operation.target
    )

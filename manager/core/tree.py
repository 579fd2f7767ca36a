"""The tree of operations: their states, what they hold of VMs and nodes, and how each batch stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from manager.core.changes import Story, Turn
from manager.core.chronicle import Level, Source
from manager.core.effects import CancelTimer, SetTimer
from manager.core.errors import Failure
from manager.core.ids import Kind, NodeId, OperationId, VmId
from manager.core.inventory import Inventory
from manager.core.migration import moves
from manager.core.migration.backlog import Backlog
from manager.core.migration.progress import MoveProgress
from manager.core.operations import (
    ORDERS_ID,
    Operation,
    OperationKind,
    OperationState,
    StandingOrders,
    moved_to,
    words_of,
)
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode, because

_S = OperationState
KEPT_ENDED = 2_000
"""Of what ended the newest so many operations are kept, by whole batches; the journal has more."""

HEARD_AFTER_S = 60.0
"""So long an end is kept in any case: by then everybody who waits for it, clients too, has heard of it."""

_TIMERS = ("patience", "settle", "look", "abort", "retry")


class EndedCall(NamedTuple):
    """How the call of an attempt ended."""

    at_s: float
    failure: Failure | None


class Tree:
    """All operations of one cluster, and the only place where one changes its state.

    The parts of `Work` call what changes it; everybody may read.
    """

    def __init__(self, inventory: Inventory, story: Story) -> None:
        self.operations: dict[OperationId, Operation] = {}
        self.claims: dict[VmId, OperationId] = {}
        self.live: dict[OperationId, Operation] = {}  # children that are not over
        self.active: dict[OperationId, Operation] = {}  # those of them that do not wait
        self.on_nodes: dict[OperationId, Operation] = {}  # of nodes, that are not over
        self.backlog = Backlog()  # those that do
        # Of the current try of each:
        self.progress: dict[OperationId, MoveProgress] = {}
        self.ended_calls: dict[OperationId, EndedCall] = {}
        self.restarted: set[OperationId] = set()  # whose guest was seen to restart
        self._inventory = inventory
        self._story = story
        self._children: dict[OperationId, list[OperationId]] = {}
        self._tallies: dict[OperationId, Counter[OperationState]] = {}  # of the children, by their state
        self._of_vm: dict[VmId, list[OperationId]] = {}
        self._ended: dict[OperationId, int] = {}  # batches in the order of their ends, and their sizes
        self._ended_count = 0
        self._reserved_mib: dict[NodeId, int] = {}
        self._reserved_vcpus: dict[NodeId, int] = {}

    # --- reading ---------------------------------------------------------------------------

    @property
    def orders(self) -> StandingOrders:
        """What holds for the whole queue."""
        control = self.operations.get(ORDERS_ID)
        return (control.orders if control else None) or StandingOrders()

    def claim(self, vm: VmId) -> tuple[Operation, int | None] | None:
        """The operation that holds a VM, with its percentage."""
        key = self.claims.get(vm)
        if key is None:
            return None
        figures = self.progress.get(key)
        return self.operations[key], figures.percent if figures and figures.total_bytes else None

    def holder(self, vm: VmId) -> Operation | None:
        """The operation that holds a VM, if it is carried out here."""
        key = self.claims.get(vm)
        return self.live.get(key) if key is not None else None

    def active_moves(self) -> tuple[Operation, ...]:
        """Moves whose job may run on a host now: what the sampler polls."""
        return tuple(
            o
            for o in self.active.values()
            if o.step in moves.WITH_JOB and o.state in (_S.RUNNING, _S.SETTLING, _S.CANCELLING)
        )

    def moving(self, node: NodeId) -> tuple[int, int]:
        """How many moves, of anyone, are under way out of a node and into it."""
        mine = [(o.source, o.target) for o in self.active.values() if o.target is not None]
        ways = [*mine, *self._inventory.foreign_moves()]
        return sum(source == node for source, _ in ways), sum(target == node for _, target in ways)

    def committed_mib(self, node: NodeId) -> int:
        """Memory in use on a node and reserved by moves to it, in MiB."""
        return self._inventory.committed_mib(node) + self._reserved_mib.get(node, 0)

    def committed_vcpus(self, node: NodeId) -> int:
        """vCPUs in use on a node and reserved by moves to it."""
        return self._inventory.committed_vcpus(node) + self._reserved_vcpus.get(node, 0)

    def about(self, key: str) -> Iterable[OperationId]:
        """The operations on a VM, or the children of an operation."""
        return self._of_vm.get(VmId(key), []) or self._children.get(OperationId(key), [])

    def count(self, batch: OperationId, state: OperationState) -> int:
        """How many children of a batch are in a state, those of earlier runs of the program included."""
        tally = self._tallies.get(batch)
        return tally[state] if tally is not None else 0

    def unended(self, batch: OperationId) -> int:
        """How many children of a batch are not over."""
        return sum(count for state, count in self._tallies.get(batch, {}).items() if not state.is_over)

    # --- what comes in ---------------------------------------------------------------------

    def add(self, batch: Operation, children: list[Operation], turn: Turn) -> None:
        """Store a request; all of it, before one of its children is enlisted or ends."""
        for each in (replace(batch, children=len(children)), *children):
            self._put(each, turn)
        if batch.kind is OperationKind.NODE:
            self.keep_node(self.operations[batch.id], turn)

    def enlist(self, operation: Operation, turn: Turn) -> None:
        """Let a child live. It holds its VM, unless another one does: then it waits for that."""
        self._keep(operation, turn)
        if operation.vm not in self.claims:
            self.hold_vm(operation)

    def hear_of(self, operation: Operation, turn: Turn) -> None:
        """Take over what a journal or another process says of an operation."""
        self._know(operation, turn)
        if operation.kind is OperationKind.NODE:
            self._inventory.worked_on(operation, turn)
        if operation.kind is OperationKind.CONTROL:
            self._inventory.limit(operation.orders or StandingOrders())
        if operation.vm is not None and operation.is_over:
            if self.claims.get(operation.vm) == operation.id:
                del self.claims[operation.vm]
                self.progress.pop(operation.id, None)
            self._inventory.refresh(operation.vm, turn)

    # --- what changes ----------------------------------------------------------------------

    def hold_vm(self, operation: Operation) -> None:
        """From now on nothing else is done to its VM."""
        assert operation.vm is not None
        self.claims[operation.vm] = operation.id

    def move(
        self, operation: Operation, state: OperationState, turn: Turn, reason: Reason | None = None
    ) -> Operation:
        """The operation in its next state; its batch runs from the first one that does not wait.

        Raises:
            ImpossibleTransition: if the table has no such move.
        """
        before, operation = operation, moved_to(operation, state, at_s=turn.at_s, reason=reason)
        if operation.kind is OperationKind.NODE:
            self.keep_node(operation, turn)
        else:
            self._keep(operation, turn)
        self._put(operation, turn)
        text = state.value + (f": {reason.text}" if reason else "")
        self._story.tell(operation.id, turn.at_s, text)
        self._record(before, operation, turn)
        if operation.parent is not None:
            parent = self.operations.get(operation.parent)
            batch = parent is not None and parent.kind is OperationKind.BATCH
            if batch and parent is not None and parent.state is _S.WAITING and state is not _S.WAITING:
                self._put(moved_to(parent, _S.RUNNING, at_s=turn.at_s), turn)
        if operation.vm is not None and not state.is_over:
            self._inventory.refresh(operation.vm, turn)
        return operation

    def _record(self, before: Operation, now: Operation, turn: Turn) -> None:
        """The events of an operation: it begins, is being cancelled, is over."""
        why, level = None, Level.INFORMATION
        if now.is_over:
            what = because(ReasonCode.OPERATION_ENDED, state=now.state.value, what=words_of(now))
            why = now.reason
            level = {_S.FAILED: Level.ERROR, _S.CANCELLED: Level.WARNING}.get(now.state, level)
        elif now.state is _S.CANCELLING:
            what = because(ReasonCode.OPERATION_CANCELLING, what=words_of(now))
        elif before.started_s is None and now.started_s is not None:
            what = because(ReasonCode.OPERATION_BEGUN, what=words_of(now))
        else:
            return
        self._story.record(
            turn,
            what,
            level=level,
            source=Source.MUSTER,
            why=why,
            node=now.source,
            vm=now.vm,
            vm_name=now.vm_name,
            by=now,
            who=now.cancelled_by,
        )

    def say(self, operation: Operation, reason: Reason, turn: Turn) -> None:
        """Give the reason of the same state; it is derived, so not journaled."""
        self._replace(replace(operation, reason=reason))
        turn.changes[Kind.OPERATION].update(operation.id, ("reason",))

    def keep_node(self, operation: Operation, turn: Turn) -> None:
        """A pause, drain or resume lives on, or is over: its node shows that."""
        if operation.is_over:
            self.on_nodes.pop(operation.id, None)
        else:
            self.on_nodes[operation.id] = operation
        self._inventory.worked_on(operation, turn)

    def change_node(self, operation: Operation, turn: Turn) -> None:
        """As `change`, of one that is about a node: its next stage."""
        self.keep_node(operation, turn)
        self._put(operation, turn)

    def say_of_node(self, operation: Operation, reason: Reason, turn: Turn) -> None:
        """As `say`, of one that is about a node."""
        operation = self.operations[operation.id] = replace(operation, reason=reason)
        self.keep_node(operation, turn)
        turn.changes[Kind.OPERATION].update(operation.id, ("reason",))

    def change(self, operation: Operation, turn: Turn) -> None:
        """Store what someone set by hand of an operation that goes on in the same state."""
        self._replace(operation)
        if operation.state is _S.WAITING:
            self.backlog.place(operation)
        self._put(operation, turn)

    def end(self, operation: Operation, state: OperationState, reason: Reason | None, turn: Turn) -> None:
        """It is over: its VM and its places are free."""
        operation = self.move(operation, state, turn, reason)
        self.forget_try(operation, turn)
        vm = operation.vm
        if vm is not None:
            if self.claims.get(vm) == operation.id:
                del self.claims[vm]
            if state is _S.FAILED and reason is not None:
                self._inventory.last_failures[vm] = reason
            self._inventory.refresh(vm, turn)
        self.backlog.look()

    def close(self, batch: OperationId, turn: Turn) -> None:
        """End a batch as its children ended."""
        found = self.operations[batch]
        if self.count(batch, _S.FAILED):
            end = _S.FAILED
        elif self.count(batch, _S.CANCELLED):
            end = _S.CANCELLED
        else:
            end = _S.DONE
        if found.state is _S.WAITING:
            found = moved_to(found, _S.RUNNING, at_s=turn.at_s)
        self._put(moved_to(found, end, at_s=turn.at_s), turn)

    def order(self, orders: StandingOrders, turn: Turn) -> None:
        """New standing orders, journaled like every operation."""
        if orders == self.orders:
            return
        control = self.operations.get(ORDERS_ID) or Operation(
            id=ORDERS_ID,
            kind=OperationKind.CONTROL,
            action="queue",
            author="",
            trace=turn.trace,
            created_s=turn.at_s,
            state=_S.RUNNING,
        )
        self._put(replace(control, orders=orders), turn)
        self._inventory.limit(orders)
        self.backlog.look()

    def set_timer(self, kind: str, operation: Operation, seconds: float, turn: Turn) -> None:
        """Wake an operation so much later, unless its try ends before."""
        assert kind in _TIMERS
        key = f"{kind}:{operation.id}"
        turn.effects.append(SetTimer(trace=turn.trace, key=key, at_s=turn.at_s + seconds))

    def forget_try(self, operation: Operation, turn: Turn) -> None:
        """Forget what was only of the last try."""
        self.progress.pop(operation.id, None)
        self.ended_calls.pop(operation.id, None)
        self.restarted.discard(operation.id)
        turn.effects += [
            CancelTimer(trace=turn.trace, key=f"{kind}:{operation.id}")
            for kind in _TIMERS
            if operation.attempt
        ]

    # --- inside ----------------------------------------------------------------------------

    def _replace(self, operation: Operation) -> None:
        """Other values, same state: no count changes."""
        self.operations[operation.id] = self.live[operation.id] = operation
        if operation.id in self.active:
            self.active[operation.id] = operation

    def _keep(self, operation: Operation, turn: Turn) -> None:
        """Store a child's new state with what follows from it: its place in the queue, its reservation."""
        before = self.live.get(operation.id)
        waited = before is not None and before.state is _S.WAITING
        for kept, belongs in (
            (self.live, not operation.is_over),
            (self.active, not operation.is_over and operation.state is not _S.WAITING),
        ):
            if belongs:
                kept[operation.id] = operation
            else:
                kept.pop(operation.id, None)
        if operation.state is _S.WAITING and not waited:
            self.backlog.join(operation)
        elif operation.state is not _S.WAITING:
            self.backlog.leave(operation.id)
        for each, sign in ((before, -1), (operation, 1)):
            target = each.target if each is not None and _reserves(each) else None
            if each is not None and target is not None:
                need = sign * planner.need_mib(each.memory_mib)
                self._reserved_mib[target] = self._reserved_mib.get(target, 0) + need
                self._reserved_vcpus[target] = self._reserved_vcpus.get(target, 0) + sign * each.vcpus
                turn.changes[Kind.NODE].update(target, ("committed", "moving"))
                if each.source is not None:
                    turn.changes[Kind.NODE].update(each.source, ("moving",))

    def _know(self, operation: Operation, turn: Turn) -> None:
        """Store an operation in its newest state, and count it among its batch's."""
        before = self.operations.get(operation.id)
        self.operations[operation.id] = operation
        if before is None:
            turn.changes[Kind.OPERATION].add(operation.id)
            if operation.vm is not None:
                self._of_vm.setdefault(operation.vm, []).append(operation.id)
        else:
            turn.changes[Kind.OPERATION].update(operation.id, ("*",))
        if operation.parent is not None:
            tally = self._tallies.setdefault(operation.parent, Counter())
            tally[operation.state] += 1
            if before is None:
                self._children.setdefault(operation.parent, []).append(operation.id)
            else:
                tally[before.state] -= 1
        elif operation.is_parent and operation.is_over and operation.id not in self._ended:
            self._ended[operation.id] = 1 + operation.children
            self._ended_count += self._ended[operation.id]
            self._forget_old(turn)

    def _forget_old(self, turn: Turn) -> None:
        """Forget the batches that ended long ago; the newest one stays, however large it is."""
        while self._ended_count > KEPT_ENDED and len(self._ended) > 1:
            batch = next(iter(self._ended))
            ended_s = self.operations[batch].ended_s or 0.0
            if self.unended(batch) or turn.at_s - ended_s < HEARD_AFTER_S:
                return
            self._ended_count -= self._ended.pop(batch)
            self._tallies.pop(batch, None)
            for key in (batch, *self._children.pop(batch, ())):
                operation = self.operations.pop(key)
                if operation.vm is not None:
                    self._of_vm[operation.vm].remove(key)
                self._story.forget(key)
                turn.changes[Kind.OPERATION].remove(key)

    def _put(self, operation: Operation, turn: Turn) -> None:
        """As `_know`, and the journal is told."""
        self._know(operation, turn)
        turn.transitions[operation.id] = operation


def _reserves(operation: Operation) -> bool:
    """Whether it holds memory on its target: a move from the moment it is let go to its end."""
    return operation.kind is OperationKind.MIGRATE and not (
        operation.is_over or operation.state is _S.WAITING
    )

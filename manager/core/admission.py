"""What of all that waits may start, in order; and why the rest waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from manager.core.changes import Story, Turn
from manager.core.effects import VmChange
from manager.core.explanations import work_text
from manager.core.goals import Goals
from manager.core.ids import NodeId
from manager.core.inventory import Inventory
from manager.core.migration import moves
from manager.core.migration.backlog import Look
from manager.core.migration.queue import LINES, Slots, is_heavy
from manager.core.model import (
    Authority,
    ClusterConfig,
    MoveType,
    Node,
    NodeStatus,
    StatusCause,
    Vm,
    VmStatus,
)
from manager.core.operations import Operation, OperationKind, OperationState, readies
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.resources import ResourcesView
from manager.core.tree import Tree

_S = OperationState
_NO_ROOM = frozenset({ReasonCode.NO_MEMORY_ON_NODE, ReasonCode.NO_CPUS_ON_NODE, ReasonCode.NO_NODE_FITS})


class Start(NamedTuple):
    """It may start, with the source and target that it has here."""

    operation: Operation


class End(NamedTuple):
    """It need not or cannot start any more."""

    operation: Operation
    state: OperationState
    reason: Reason


Verdict = Start | End | Reason
"""What becomes of something that waits; a reason: it waits on."""

_Unfit = dict[NodeId, tuple[int, int]]
"""Memory and vCPUs of a VM of each node for which no node had room in this look."""


class Admission:
    """Decides who may start. Changes nothing but the reasons of what waits on, and who holds a free VM."""

    def __init__(
        self, inventory: Inventory, tree: Tree, goals: Goals, resources: ResourcesView, story: Story
    ) -> None:
        self._inventory = inventory
        self._tree = tree
        self._goals = goals
        self._story = story
        self._room = _Room(inventory, tree, resources)
        self._may_fit_later = False  # something waits for more than its place in a line

    def decisions(self, turn: Turn) -> Iterator[Start | End]:
        """Who starts or ends now, until nothing is left to be looked at; the rest is told why it waits.

        Each must be carried out before the next is asked for: it takes places and room.

        All of the queue is looked at when something ended; when only VMs changed that wait, only those.
        """
        while look := self._tree.backlog.take_look():  # an end asks for another: what waited for it may start
            yield from self._decide(look, turn)

    def room_changed(self) -> None:
        """What runs on a node is known anew: there may be room for what waits for some."""
        if self._may_fit_later:
            self._tree.backlog.look()

    # --- one look --------------------------------------------------------------------------

    def _decide(self, look: Look, turn: Turn) -> Iterator[Start | End]:
        backlog = self._tree.backlog
        if not backlog:
            return
        inventory = self._inventory
        active = (o for o in self._tree.active.values() if self._goals.is_sent(o))
        slots = Slots.in_use(inventory.config, active, inventory.foreign_moves())
        unfit: _Unfit = {}
        if look.whole:
            self._may_fit_later = False
        for key in look.keys:
            operation = self._tree.live.get(key)
            if operation is None or operation.state is not _S.WAITING:
                continue
            found: Verdict | None = None
            if key not in look.fresh:
                found = slots.still_full(operation) or self._no_room_yet(operation, unfit)
            if found is None:
                found = self._verdict(operation, slots, unfit, turn)
            if isinstance(found, Reason):
                self._may_fit_later |= found.code not in LINES
                if found is not operation.reason:
                    self._tell(operation, found, turn, whole=look.whole)
                continue
            if isinstance(found, Start):
                slots.take(found.operation)
                backlog.started(found.operation, last_place=slots.is_full)
            yield found

    def _tell(self, operation: Operation, reason: Reason, turn: Turn, *, whole: bool) -> None:
        """Say why it waits on, if that is another reason than before."""
        if reason.code in LINES and not whole:
            # Its place in line is known only when all are looked at; the old one holds if it has one.
            if operation.reason is None or operation.reason.code is not reason.code:
                self._tree.backlog.look()
        elif reason != operation.reason:
            self._tree.say(operation, reason, turn)
            assert operation.vm is not None
            self._inventory.refresh(operation.vm, turn)

    def _no_room_yet(self, operation: Operation, unfit: Mapping[NodeId, tuple[int, int]]) -> Reason | None:
        """The old reason, if in this look no node had room for a smaller VM of that node."""
        refused = unfit.get(operation.source) if operation.source else None
        too_large = (
            refused is not None and operation.memory_mib >= refused[0] and operation.vcpus >= refused[1]
        )
        waits_for_room = operation.reason is not None and operation.reason.code in _NO_ROOM
        return operation.reason if too_large and waits_for_room else None

    # --- one operation ---------------------------------------------------------------------

    def _verdict(self, operation: Operation, slots: Slots, unfit: _Unfit, turn: Turn) -> Verdict:
        assert operation.vm is not None
        unready = readies(self._tree.operations.get(operation.parent)) if operation.parent else None
        if unready is not None:
            return unready
        vm = self._inventory.vms.get(operation.vm)
        if vm is None:
            unread = self._unread(operation) or self._being_read()
            if unread is not None:  # after a restart: not seen is not gone
                return because(ReasonCode.WAITS_INVENTORY, node=unread)
            return End(operation, _S.FAILED, because(ReasonCode.VM_VANISHED))
        if vm.owner is None or not self._inventory.nodes[vm.owner].is_up:
            return because(ReasonCode.WAITS_INVENTORY, node=str(vm.owner or "?"))
        others = self._work_of_others(operation, vm)
        changed = self._not_as_asked(operation, vm) if others is None else None
        if changed is not None:
            return End(operation, _S.FAILED, changed)
        holds = self._held_back(operation, turn) or others
        if holds is not None:
            return holds
        goal = self._goals.reached(operation, vm)
        if goal is not None:
            return End(operation, _S.DONE, goal)
        if vm.authority is not Authority.MUSTER:  # since it was asked for
            reason = because(ReasonCode.OTHER_AUTHORITY, authority=vm.authority.value)
            return End(operation, _S.FAILED, reason)
        copies = self._inventory.copies(vm.id)
        if len(copies) > 1 and not vm.alarm:  # one of them is old news, or it is an alarm
            return because(ReasonCode.WAITS_INVENTORY, node=min(copies))
        writes = operation.kind is OperationKind.SETTINGS and operation.edit is None
        harmless = writes or operation.change is VmChange.TURN_OFF
        if vm.alarm and not harmless:
            nodes = ", ".join(sorted({vm.owner, *vm.other_nodes}))
            return End(operation, _S.FAILED, because(ReasonCode.RUNS_TWICE, nodes=nodes))
        if vm.owner != operation.source:
            operation = replace(operation, source=vm.owner)  # it moved while this waited
        blocked = slots.obstacle(operation, self._firm_target(operation))
        if blocked is not None:
            return blocked
        if operation.kind is OperationKind.MIGRATE:
            return self._verdict_on_move(operation, vm, slots, unfit, turn)
        return Start(operation)

    def _not_as_asked(self, operation: Operation, vm: Vm) -> Reason | None:
        """What became of the VM while it waited, if that is no longer what was to be worked on."""
        if is_heavy(operation) and operation.vm_name and vm.name != operation.vm_name:
            return because(ReasonCode.RENAMED, name=vm.name)
        if operation.kind is not OperationKind.MIGRATE or vm.status is VmStatus.UNKNOWN:
            return None
        if vm.status in (VmStatus.RUNNING, VmStatus.PAUSED):
            return because(ReasonCode.STARTED_SINCE) if operation.was_off else None
        stopped = not operation.was_off or operation.move not in moves.BACK
        if stopped and vm.cause is not StatusCause.MIGRATED:  # else it is on its way, by someone else
            return because(ReasonCode.NOT_RUNNING, status=vm.status.value)
        return None

    def _held_back(self, operation: Operation, turn: Turn) -> Reason | None:
        """Why it may not start even if it has room: someone stopped the queue, or it is to be tried again."""
        if not is_heavy(operation):
            return None
        orders = self._tree.orders
        if orders.paused_by:
            return because(
                ReasonCode.QUEUE_PAUSED, who=orders.paused_by, since=orders.paused_since_s or turn.at_s
            )
        batch = operation.parent
        if batch is not None and (paused := orders.paused_batches.get(batch)) is not None:
            return paused
        if operation.retry_at_s is not None and operation.retry_at_s > turn.at_s:
            return operation.reason or because(ReasonCode.STATE_FORBIDS, status="waiting for its retry")
        return None

    def _work_of_others(self, operation: Operation, vm: Vm) -> Reason | None:
        """Why it waits for other work on its VM; takes the claim when there is none."""
        holder = self._tree.claims.get(vm.id)
        if holder is None:
            self._tree.hold_vm(operation)
        elif holder != operation.id:
            held = self._tree.operations[holder]
            if held.kind is OperationKind.MIGRATE:
                return because(ReasonCode.WAITS_MOVE_ENDS, node=held.target or "another node")
            return because(ReasonCode.WAITS_WORK_ENDS, work=work_text(held))
        if self._inventory.has_foreign_work(vm.id):
            return because(ReasonCode.WAITS_WORK_ENDS, work="a job that is not Muster's")
        return None

    # --- moves -----------------------------------------------------------------------------

    def _verdict_on_move(
        self, operation: Operation, vm: Vm, slots: Slots, unfit: _Unfit, turn: Turn
    ) -> Verdict:
        if vm.config is None:
            return because(ReasonCode.DEFINITION_UNREAD)
        operation = replace(operation, cap_mib_s=slots.cap_of(operation))
        if operation.move is MoveType.STORAGE:
            return Start(operation)
        nodes = self._inventory.nodes
        planned = operation.target
        if planned is not None and operation.target_given:
            failures = dict(self._tree.orders.resting).get(planned)
            if failures is not None:
                return because(ReasonCode.TARGET_RESTS, node=planned, count=failures)
        if planned is not None and _is_being_read(nodes[planned]):
            return because(ReasonCode.WAITS_INVENTORY, node=planned)
        if planned is not None and operation.target_given:
            found = planner.verdict(self._room, vm, nodes[planned], chosen=True)
        else:
            found = self._choose_target(operation, vm, slots)
        if not found.fits:
            return self._does_not_fit(operation, found, slots, unfit)
        if found.node != planned:
            operation = replace(operation, target=found.node)
            blocked = slots.obstacle(operation, found.node)
            if blocked is not None:
                return blocked
            self._story.tell(operation.id, turn.at_s, f"chose {found.node}: {found.reason.text}")
        return Start(operation)

    def _does_not_fit(
        self, operation: Operation, found: planner.NodeVerdict, slots: Slots, unfit: _Unfit
    ) -> Verdict:
        """It waits if there may be room later, and ends otherwise."""
        reason = found.reason
        unread = None if operation.target_given else self._being_read()
        if unread is not None:  # after a restart: it may be the one with room
            return because(ReasonCode.WAITS_INVENTORY, node=unread)
        rests = not operation.target_given and bool(self._tree.orders.resting)
        if reason.code in _NO_ROOM and (
            rests or slots.makes_room(operation.target if operation.target_given else None)
        ):
            only_room = not any(r.code in planner.PARTICULAR for r in found.refusals)
            if only_room and not operation.target_given and operation.source is not None:
                unfit[operation.source] = (operation.memory_mib, operation.vcpus)
            return reason
        return End(operation, _S.FAILED, reason)

    def _choose_target(self, operation: Operation, vm: Vm, slots: Slots) -> planner.NodeVerdict:
        """The node of the plan that was shown while it fits, else the best one that takes moves now.

        One on which it failed before comes last, one that rests is not taken.
        """
        planned, resting = operation.target, dict(self._tree.orders.resting)
        if planned is not None and planned not in resting and planned not in operation.avoid:
            found = planner.verdict(self._room, vm, self._inventory.nodes[planned])
            if found.fits:
                return found
        ranked = planner.rank(self._room, vm)
        fitting = [v for v in ranked if v.fits and v.node not in resting]
        fitting.sort(key=lambda v: v.node in operation.avoid)  # stable: the best first
        if not fitting:
            tired = [
                because(ReasonCode.TARGET_RESTS, node=v.node, count=resting[v.node]) if v.fits else v.reason
                for v in ranked
            ]
            return planner.NodeVerdict(
                node=planned or NodeId(""),
                fits=False,
                reason=planner.none_fits(tired),
                refusals=tuple(tired),
            )
        return next((v for v in fitting if not slots.incoming_is_full(v.node)), fitting[0])

    def _firm_target(self, operation: Operation) -> NodeId | None:
        """The node a move goes to, unless it may still be replaced by another and must be."""
        target = operation.target
        if target is None or operation.target_given:
            return target
        node = self._inventory.nodes[target]
        return target if _is_being_read(node) or planner.node_takes_work(node) is None else None

    def _unread(self, operation: Operation) -> NodeId | None:
        """A node of the operation that is not up, so that nobody knows what it has."""
        nodes = (n for n in (operation.source, operation.target) if n is not None)
        return next((n for n in nodes if not self._inventory.nodes[n].is_up), None)

    def _being_read(self) -> NodeId | None:
        """A node of which it is not known yet what runs there."""
        return next((n.id for n in self._inventory.nodes.values() if _is_being_read(n)), None)


class _Room:
    """What placement reads of the cluster: the inventory, plus what moves reserve."""

    def __init__(self, inventory: Inventory, tree: Tree, resources: ResourcesView) -> None:
        self.nodes: Mapping[NodeId, Node] = inventory.nodes
        self.vms = inventory.vms
        self.group = inventory.group
        self.resources = resources
        self.committed_mib = tree.committed_mib
        self.committed_vcpus = tree.committed_vcpus
        self._inventory = inventory

    @property
    def config(self) -> ClusterConfig:
        """With the limits that were changed while running."""
        return self._inventory.config


def _is_being_read(node: Node) -> bool:
    return node.status is NodeStatus.CONNECTING or (node.is_up and node.vms_unread > 0)

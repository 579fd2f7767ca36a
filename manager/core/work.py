"""The machine behind every operation: waits, starts, watches, judges by what is seen, and ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from manager.core import events as ev
from manager.core.changes import Story, Turn
from manager.core.effects import (
    AbortMigration,
    CancelTimer,
    ChangeVm,
    CheckPeerLogin,
    ReadNode,
    ReadVm,
    SetTimer,
    StartMigration,
    VmChange,
    WriteVmSettings,
)
from manager.core.errors import Failure, FailureCode
from manager.core.ids import Kind, NodeId, OperationId, VmId
from manager.core.inventory import Inventory, is_incoming
from manager.core.migration.progress import MoveProgress, advanced
from manager.core.migration.queue import Slots, order
from manager.core.model import Node, NodeStatus, PeerRoute, StatusCause, Vm, VmSettings, VmStatus
from manager.core.operations import Operation, OperationKind, OperationState, moved_to
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode, because

SHUTDOWN_PATIENCE_S = 180.0
"""How long a guest that was asked to shut down or restart is waited for."""

SETTLE_PATIENCE_S = 120.0
"""How long an ended call's result may take to be seen on nodes that answer."""

LOST_PATIENCE_S = 1800.0
"""How long an operation waits for a node that was lost while it ran."""

LOOK_AGAIN_S = 2.0
"""Pause between looks at a move whose call ended while the hosts still carry it on."""

CONTINUE_AFTER_S = 600.0
"""Waiting work of a program that ended is continued unasked for this long."""

_S = OperationState
_ASKS_GUEST = frozenset({VmChange.SHUT_DOWN, VmChange.SHUT_DOWN_AGENT, VmChange.RESTART})

_GOALS: Mapping[VmChange, frozenset[VmStatus]] = {
    VmChange.START: frozenset({VmStatus.RUNNING, VmStatus.PAUSED}),
    VmChange.SHUT_DOWN: frozenset({VmStatus.OFF, VmStatus.CRASHED}),
    VmChange.SHUT_DOWN_AGENT: frozenset({VmStatus.OFF, VmStatus.CRASHED}),
    VmChange.TURN_OFF: frozenset({VmStatus.OFF, VmStatus.CRASHED}),
    VmChange.RESTART: frozenset({VmStatus.RUNNING}),
    VmChange.SAVE: frozenset({VmStatus.SAVED}),
    VmChange.DELETE_SAVED_STATE: frozenset({VmStatus.OFF, VmStatus.CRASHED}),
    VmChange.PAUSE: frozenset({VmStatus.PAUSED}),
    VmChange.RESUME: frozenset({VmStatus.RUNNING}),
    VmChange.RESET: frozenset({VmStatus.RUNNING, VmStatus.PAUSED}),
}


class Work:
    """Operations, claims and progress of one cluster. Only `ClusterState` calls what changes it."""

    def __init__(self, inventory: Inventory, story: Story) -> None:
        self.operations: dict[OperationId, Operation] = {}
        self.progress: dict[OperationId, MoveProgress] = {}
        self.claims: dict[VmId, OperationId] = {}
        self.config = inventory.config
        self.nodes: Mapping[NodeId, Node] = inventory.nodes
        self.vms: Mapping[VmId, Vm] = inventory.vms
        self._inventory = inventory
        self._story = story
        self._live: dict[OperationId, Operation] = {}  # children that are not over
        self._open_children: dict[OperationId, int] = {}
        self._ended_calls: dict[OperationId, tuple[float, Failure | None]] = {}
        self._restarted: set[OperationId] = set()  # whose guest was seen to restart
        self._look = False  # admission is due in this turn

    # --- reading ---------------------------------------------------------------------------

    def claim(self, vm: VmId) -> tuple[Operation, int | None] | None:
        """The operation that holds a VM, with its percentage."""
        key = self.claims.get(vm)
        if key is None:
            return None
        figures = self.progress.get(key)
        return self.operations[key], figures.percent if figures and figures.total_bytes else None

    def active_moves(self) -> tuple[Operation, ...]:
        """Moves whose job may run on a host now: what the sampler polls."""
        return tuple(
            o
            for o in self._live.values()
            if o.kind is OperationKind.MIGRATE and o.state in (_S.RUNNING, _S.SETTLING, _S.CANCELLING)
        )

    def moving_in_mib(self, node: NodeId) -> int:
        """Memory reserved on a node for moves under way, in MiB."""
        return sum(
            o.memory_mib + planner.overhead_mib(o.memory_mib)
            for o in self._live.values()
            if o.kind is OperationKind.MIGRATE and o.target == node and o.state is not _S.WAITING
        )

    # --- requests --------------------------------------------------------------------------

    def add(self, batch: Operation, children: list[Operation], turn: Turn) -> None:
        """Take a request into the tree. Children whose VM is claimed meanwhile fail at once."""
        self._put(replace(batch, children=len(children)), turn)
        self._open_children[batch.id] = len(children)
        for child in children:
            self._put(child, turn)
            assert child.vm is not None
            self._inventory.last_failures.pop(child.vm, None)
            holder = self.claims.get(child.vm)
            if holder is not None and child.kind is OperationKind.SETTINGS:
                self._live[child.id] = child  # it can wait: it is admitted when the VM is free
                continue
            if holder is not None:
                busy = because(
                    ReasonCode.VM_BUSY, activity=self.operations[holder].action.partition(".")[2]
                )
                self._live[child.id] = child
                self._end(child, _S.FAILED, busy, turn)
                continue
            self._hold(child, turn)
        if not children:
            self._put(moved_to(moved_to(batch, _S.RUNNING, at_s=turn.at_s), _S.DONE, at_s=turn.at_s), turn)
        self._look = True

    def cancel(self, ids: tuple[OperationId, ...], author: str, turn: Turn) -> None:
        """Cancel operations and what hangs below them. Doing it twice changes nothing."""
        wanted = set(ids)
        for operation in list(self._live.values()):
            if operation.id in wanted or operation.parent in wanted:
                self._cancel_one(operation, author, turn)

    def restore(self, operations: tuple[Operation, ...], turn: Turn) -> None:
        """Take over what an earlier run of the program left in the journal."""
        rank = {OperationKind.BATCH: 0, OperationKind.SETTINGS: 2}
        for operation in sorted(operations, key=lambda o: rank.get(o.kind, 1)):
            self.operations[operation.id] = operation
            turn.changes[Kind.OPERATION].add(operation.id)
            if operation.kind is OperationKind.BATCH or operation.is_over:
                continue
            if operation.parent:
                self._open_children[operation.parent] = self._open_children.get(operation.parent, 0) + 1
            if operation.vm in self.claims:
                self._live[operation.id] = operation
            else:
                self._hold(operation, turn)
        for operation in list(self._live.values()):
            if operation.state in (_S.WAITING, _S.CHECKING):
                if turn.at_s - operation.created_s > CONTINUE_AFTER_S:
                    self._end(
                        operation, _S.CANCELLED, because(ReasonCode.INTERRUPTED_WAITING), turn
                    )
                elif operation.state is _S.CHECKING:
                    self._move(operation, _S.WAITING, turn)
            elif operation.state is not _S.SETTLING:
                self._settle(
                    operation,
                    Failure(code=FailureCode.INTERRUPTED, text="the program ended in the middle"),
                    turn,
                )
            else:
                self._ended_calls[operation.id] = (
                    turn.at_s,
                    Failure(code=FailureCode.INTERRUPTED, text="the program ended in the middle"),
                )
        for parent, open_children in list(self._open_children.items()):
            if not open_children:
                self._close_parent(parent, turn)
        self._look = True

    def mirror(self, event: ev.OperationsReported, turn: Turn) -> None:
        """Show what another process, the owner of the operations, says; nothing is started here."""
        operations = event.operations
        self.progress.update(event.progress)
        for operation in operations:
            known = operation.id in self.operations
            self.operations[operation.id] = operation
            if known:
                turn.changes[Kind.OPERATION].update(operation.id, ("*",))
            else:
                turn.changes[Kind.OPERATION].add(operation.id)
            if operation.vm is None:
                continue
            if not operation.is_over:
                self.claims.setdefault(operation.vm, operation.id)
            elif self.claims.get(operation.vm) == operation.id:
                del self.claims[operation.vm]
                self.progress.pop(operation.id, None)
            self._inventory.refresh(operation.vm, turn)

    # --- what happens ----------------------------------------------------------------------

    def effect_ended(self, event: ev.EffectEnded, turn: Turn) -> None:
        """A call came back. An answer to an old attempt changes nothing."""
        operation = self._live.get(event.operation)
        if operation is None or operation.attempt != event.attempt:
            return
        failure = event.failure
        if operation.state is _S.CHECKING:
            if failure is None:
                self._start_move(operation, turn)
            else:
                self._end(operation, _S.FAILED, self._peer_refused(operation, failure), turn)
                self._look = True
            return
        if operation.state not in (_S.RUNNING, _S.CANCELLING):
            return
        if operation.kind is OperationKind.SETTINGS:
            if failure is None:
                assert operation.source and operation.vm and operation.settings
                self._inventory.settings_written(
                    operation.vm, operation.source, operation.settings, turn
                )
                turn.effects.append(
                    ReadVm(trace=turn.trace, node=operation.source, vm=operation.vm)
                )
                self._end(operation, _S.DONE, None, turn)
            else:
                self._end(operation, _S.FAILED, self._failed(operation, failure), turn)
            self._look = True
            return
        self._settle(operation, failure, turn)

    def progressed(self, event: ev.MigrationProgress, turn: Turn) -> None:
        """New figures of a move."""
        operation = self._live.get(event.operation)
        if operation is None or operation.attempt != event.attempt or operation.vm is None:
            return
        figures = advanced(self.progress.get(operation.id), event)
        if figures != self.progress.get(operation.id):
            self.progress[operation.id] = figures
            turn.changes[Kind.OPERATION].update(operation.id, ("progress",))
            self._inventory.refresh(operation.vm, turn)

    def abort_failed(self, event: ev.AbortFailed, turn: Turn) -> None:
        """The cancel could not be delivered: tried again while the move still runs."""
        operation = self._live.get(event.operation)
        if operation is not None and operation.state is _S.CANCELLING:
            turn.effects.append(
                SetTimer(trace=turn.trace, key=f"abort:{operation.id}", at_s=turn.at_s + LOOK_AGAIN_S)
            )

    def rebooted(self, vm: VmId, turn: Turn) -> None:
        """A guest restarted: what a restart or reset waited for."""
        key = self.claims.get(vm)
        if key is not None and self.operations[key].change is VmChange.RESTART:
            self._restarted.add(key)
            self.judge(vm, turn)

    def timer(self, kind: str, key: str, turn: Turn) -> None:
        """A patience ran out, or it is time for another look."""
        operation = self._live.get(OperationId(key))
        if operation is None or operation.vm is None:
            return
        if kind == "abort" and operation.state is _S.CANCELLING:
            self._send_abort(operation, turn)
        elif kind == "patience" and operation.state is _S.SETTLING:
            node = str(self._owner(operation) or "?")
            self._end(
                operation,
                _S.FAILED,
                because(ReasonCode.SHUTDOWN_IGNORED, span=SHUTDOWN_PATIENCE_S, node=node),
                turn,
            )
        elif kind == "settle" and operation.state in (_S.SETTLING, _S.CANCELLING):
            self._judge_late(operation, turn)
        elif kind == "look" and operation.state in (_S.SETTLING, _S.CANCELLING):
            self._read_again(operation, turn)

    def journal_failed(self, event: ev.JournalFailed, turn: Turn) -> None:
        """What could not be journaled must not start; what already runs is watched to its end."""
        for key in event.operations:
            operation = self._live.get(key)
            if operation is None:
                continue
            reason = because(ReasonCode.JOURNAL_FAILED, text=event.text)
            if operation.state in (_S.WAITING, _S.CHECKING) or (
                operation.state is _S.RUNNING and operation.id not in self._ended_calls
            ):
                self._end(operation, _S.FAILED, reason, turn)
        self._look = True

    def look(self) -> None:
        """Something outside the tree ended: what waits may start."""
        self._look = True

    def vm_changed(self, vm: VmId, turn: Turn) -> None:
        """A VM's row changed: an operation may have reached its goal."""
        if vm in self.claims:
            self.judge(vm, turn)

    def node_read(self, node: NodeId, turn: Turn) -> None:
        """A node was read whole: everything that waits for a look at it is judged."""
        for operation in list(self._live.values()):
            if operation.vm is not None and node in (operation.source, operation.target):
                self.judge(operation.vm, turn)
        self._look = True

    # --- admission -------------------------------------------------------------------------

    def admit(self, turn: Turn) -> None:
        """Start what may start, in order; tell the rest why it waits. Runs inside the same turn."""
        if not self._look:
            return
        self._look = False
        waiting = sorted((o for o in self._live.values() if o.state is _S.WAITING), key=order)
        if not waiting:
            return
        foreign = [
            node for node, _, migration in self._inventory.foreign_jobs.values() if migration
        ]
        slots = Slots.in_use(
            self._inventory.config,
            (o for o in self._live.values() if o.state is not _S.WAITING),
            foreign,
        )
        for operation in waiting:
            reason = self._try_start(operation, slots, turn)
            if reason is not None and reason != operation.reason:
                # A new reason of the same wait is not journaled: it is derived.
                self.operations[operation.id] = self._live[operation.id] = replace(
                    operation, reason=reason
                )
                turn.changes[Kind.OPERATION].update(operation.id, ("reason",))
                assert operation.vm is not None
                self._inventory.refresh(operation.vm, turn)

    def _try_start(self, operation: Operation, slots: Slots, turn: Turn) -> Reason | None:
        assert operation.vm is not None
        vm = self._inventory.vms.get(operation.vm)
        if vm is None:
            unread = self._unread(operation)
            if unread is not None:  # after a restart: not seen is not gone
                return because(ReasonCode.WAITS_INVENTORY, node=unread)
            self._end(operation, _S.FAILED, because(ReasonCode.VM_VANISHED), turn)
            return None
        if vm.owner is None or not self._inventory.nodes[vm.owner].is_up:
            return because(ReasonCode.WAITS_INVENTORY, node=str(vm.owner or "?"))
        others = self._work_of_others(operation, vm)
        if others is not None:
            return others
        goal = self._goal_reached(operation, vm)
        if goal is not None and not (operation.change in (VmChange.RESTART, VmChange.RESET)):
            self._end(operation, _S.DONE, goal, turn)
            return None
        if vm.owner != operation.source:
            operation = replace(operation, source=vm.owner)  # it moved while this waited
        if operation.kind is OperationKind.MIGRATE:
            return self._try_move(operation, vm, slots, turn)
        blocked = slots.obstacle(operation)
        if blocked is not None:
            return blocked
        slots.take(operation)
        self._begin(operation, turn)
        return None

    def _work_of_others(self, operation: Operation, vm: Vm) -> Reason | None:
        """Why a write of settings waits for other work on its VM; takes the claim when there is none."""
        holder = self.claims.get(vm.id)
        if holder is None:
            self.claims[vm.id] = operation.id
        elif holder != operation.id:
            held = self.operations[holder]
            if held.kind is OperationKind.MIGRATE:
                return because(ReasonCode.WAITS_MOVE_ENDS, node=held.target or "another node")
            return because(ReasonCode.WAITS_WORK_ENDS, work=held.action.partition(".")[2].replace("_", " "))
        if operation.kind is OperationKind.SETTINGS and self._inventory.has_foreign_work(vm.id):
            return because(ReasonCode.WAITS_WORK_ENDS, work="a job that is not Muster's")
        return None

    def _try_move(
        self, operation: Operation, vm: Vm, slots: Slots, turn: Turn
    ) -> Reason | None:
        if vm.status not in (VmStatus.RUNNING, VmStatus.PAUSED):
            reason = because(ReasonCode.NOT_RUNNING, status=vm.status.value)
            self._end(operation, _S.FAILED, reason, turn)
            return None
        if operation.target_given and operation.target is not None:
            verdict = planner.verdict(
                self, vm, self._inventory.nodes[operation.target], chosen=True
            )
            if not verdict.fits:
                if self.nodes[operation.target].status is NodeStatus.CONNECTING:
                    return because(ReasonCode.WAITS_INVENTORY, node=operation.target)
                if verdict.reason.code is ReasonCode.NO_MEMORY_ON_NODE and slots.incoming[operation.target]:
                    return verdict.reason
                self._end(operation, _S.FAILED, verdict.reason, turn)
                return None
        else:
            found = self._choose_target(operation, vm, slots, turn)
            if found is None or isinstance(found, Reason):
                return found
            operation = found
        blocked = slots.obstacle(operation)
        if blocked is not None:
            return blocked
        slots.take(operation)
        self._begin(operation, turn)
        return None

    def _choose_target(
        self, operation: Operation, vm: Vm, slots: Slots, turn: Turn
    ) -> Operation | Reason | None:
        """The operation with its node; a reason to wait; or None when it ended for want of a node.

        The node of the plan that was shown is kept while it fits.
        """
        unplaced = replace(operation, target=None)
        blocked = slots.obstacle(unplaced)
        if blocked is not None:
            return blocked
        ranked = [v for v in planner.rank(self, vm) if v.fits]
        if not ranked:
            found = planner.best(self, vm)
            assert isinstance(found, Reason)
            connecting = next(
                (n.id for n in self.nodes.values() if n.status is NodeStatus.CONNECTING), None
            )
            if connecting is not None:  # after a restart: it may be the one with room
                return because(ReasonCode.WAITS_INVENTORY, node=connecting)
            if slots.moves:
                return found  # a move under way may make room
            self._end(operation, _S.FAILED, found, turn)
            return None
        if operation.target in {v.node for v in ranked}:
            return operation
        free = [v for v in ranked if not slots.incoming_is_full(v.node)]
        chosen = (free or ranked)[0]
        text = f"chose {chosen.node}: {chosen.reason.text}"
        self._story.tell(operation.id, turn.at_s, text)
        return replace(operation, target=chosen.node)

    # Placement reads the cluster through this object: the inventory plus what moves reserve.

    def committed_mib(self, node: NodeId) -> int:
        """Memory in use on a node and reserved by moves to it, in MiB."""
        return self._inventory.committed_mib(node) + self.moving_in_mib(node)

    def committed_vcpus(self, node: NodeId) -> int:
        """vCPUs in use on a node."""
        return self._inventory.committed_vcpus(node)

    # --- starting --------------------------------------------------------------------------

    def _begin(self, operation: Operation, turn: Turn) -> None:
        operation = replace(operation, attempt=operation.attempt + 1)
        if operation.kind is OperationKind.MIGRATE:
            if operation.route is PeerRoute.NODE_TO_NODE:
                operation = self._move(operation, _S.CHECKING, turn)
                assert operation.vm and operation.source and operation.target
                turn.effects.append(
                    CheckPeerLogin(
                        trace=operation.trace,
                        operation=operation.id,
                        attempt=operation.attempt,
                        vm=operation.vm,
                        node=operation.source,
                        target=operation.target,
                    )
                )
            else:
                self._start_move(operation, turn)
            return
        if operation.kind is OperationKind.SETTINGS and operation.settings and operation.before:
            row = self.vms[operation.vm] if operation.vm else None
            if row and row.config:
                settings = merged(operation.before, operation.settings, row.config.settings)
                operation = replace(operation, settings=settings)
        operation = self._move(operation, _S.RUNNING, turn)
        assert operation.vm and operation.source
        if operation.kind is OperationKind.SETTINGS:
            assert operation.settings is not None
            turn.effects.append(
                WriteVmSettings(
                    trace=operation.trace,
                    operation=operation.id,
                    attempt=operation.attempt,
                    vm=operation.vm,
                    node=operation.source,
                    settings=operation.settings,
                )
            )
        else:
            assert operation.change is not None
            turn.effects.append(
                ChangeVm(
                    trace=operation.trace,
                    operation=operation.id,
                    attempt=operation.attempt,
                    vm=operation.vm,
                    node=operation.source,
                    change=operation.change,
                )
            )

    def _start_move(self, operation: Operation, turn: Turn) -> None:
        operation = self._move(operation, _S.RUNNING, turn)
        assert operation.vm and operation.source and operation.target
        row = self._inventory.vms.get(operation.vm)
        config = row.config if row else None
        limits = self._inventory.config.migration
        turn.effects.append(
            StartMigration(
                trace=operation.trace,
                operation=operation.id,
                attempt=operation.attempt,
                vm=operation.vm,
                node=operation.source,
                target=operation.target,
                route=operation.route,
                bandwidth_mib_s=limits.bandwidth_mib_s,
                unsafe=config is not None and planner.may_pass_unsafe(self._inventory.config, config),
                convergence=limits.convergence,
                autostart=config is not None and config.autostart,
            )
        )

    def _cancel_one(self, operation: Operation, author: str, turn: Turn) -> None:
        operation = replace(operation, cancelled_by=author)
        if operation.state in (_S.WAITING, _S.CHECKING):
            self._end(operation, _S.CANCELLED, self._cancelled(operation), turn)
            self._look = True
        elif operation.state is _S.RUNNING and can_abort(operation):
            operation = self._move(operation, _S.CANCELLING, turn)
            self._send_abort(operation, turn)
        elif operation.state is _S.SETTLING and operation.change in _ASKS_GUEST:
            self._end(operation, _S.CANCELLED, self._cancelled(operation), turn)

    def _send_abort(self, operation: Operation, turn: Turn) -> None:
        assert operation.vm and operation.source
        turn.effects.append(
            AbortMigration(
                trace=operation.trace,
                operation=operation.id,
                attempt=operation.attempt,
                vm=operation.vm,
                node=operation.source,
            )
        )

    # --- judging ---------------------------------------------------------------------------

    def _settle(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """The call is over: from here only what is seen counts."""
        self._ended_calls[operation.id] = (turn.at_s, failure)
        if operation.state is _S.RUNNING:
            operation = self._move(operation, _S.SETTLING, turn)
        asks = operation.change in _ASKS_GUEST and failure is None
        if asks:
            turn.effects.append(
                SetTimer(
                    trace=turn.trace,
                    key=f"patience:{operation.id}",
                    at_s=turn.at_s + SHUTDOWN_PATIENCE_S,
                )
            )
        else:
            turn.effects.append(
                SetTimer(
                    trace=turn.trace,
                    key=f"settle:{operation.id}",
                    at_s=turn.at_s + SETTLE_PATIENCE_S,
                )
            )
            self._read_again(operation, turn)
        assert operation.vm is not None
        self.judge(operation.vm, turn)

    def _read_again(self, operation: Operation, turn: Turn) -> None:
        for node in (operation.source, operation.target):
            if node is not None:
                turn.effects.append(ReadNode(trace=turn.trace, node=node))

    def judge(self, vm_id: VmId, turn: Turn) -> None:
        """Has the operation on this VM reached its goal, or is it clear that it will not?"""
        key = self.claims.get(vm_id)
        operation = self._live.get(key) if key else None
        if operation is None or operation.id not in self._ended_calls:
            return
        if operation.state not in (_S.SETTLING, _S.CANCELLING):
            return
        ended_s, failure = self._ended_calls[operation.id]
        vm = self._inventory.vms.get(vm_id)
        if vm is None:
            if self._unread(operation) is None:
                self._end(operation, _S.FAILED, because(ReasonCode.VM_VANISHED), turn)
            return
        goal = self._goal_reached(operation, vm)
        if goal is not None and operation.kind is OperationKind.MIGRATE and failure is not None:
            # Against a reported failure an event is not enough: a target that gives up shows life first.
            target = self.nodes[operation.target] if operation.target else None
            if target is None or (target.last_read_s or 0.0) < ended_s:
                goal = None
        if goal is not None:
            self._end(operation, _S.DONE, goal if operation.kind is OperationKind.MIGRATE else None, turn)
            self._look = True
            return
        if operation.change in _ASKS_GUEST and failure is None:
            return  # the guest has its time
        nodes = [self._inventory.nodes[n] for n in (operation.source, operation.target) if n is not None]
        if operation.kind is not OperationKind.MIGRATE:
            nodes = nodes[:1]
        unseen = [n for n in nodes if not n.is_up or (n.last_read_s or 0.0) < ended_s]
        source_seen = nodes[0].is_up and (nodes[0].last_read_s or 0.0) >= ended_s
        stays = (
            operation.kind is OperationKind.MIGRATE
            and source_seen
            and vm.owner == operation.source
            and vm.status is VmStatus.RUNNING
            and failure is not None
            and failure.code is not FailureCode.INTERRUPTED
            and failure.code is not FailureCode.TIMEOUT
        )
        if unseen and not stays:
            waits = because(ReasonCode.WAITS_INVENTORY, node=unseen[0].id)
            if operation.reason != waits:
                self.operations[operation.id] = self._live[operation.id] = replace(
                    operation, reason=waits
                )
                turn.changes[Kind.OPERATION].update(operation.id, ("reason",))
            return
        # The source's own word that it lost the target is final; the target's half cannot be asked about.
        final = stays and failure is not None and failure.node == operation.target
        if operation.kind is OperationKind.MIGRATE and not final and self._still_moves(operation):
            turn.effects.append(
                SetTimer(trace=turn.trace, key=f"look:{operation.id}", at_s=turn.at_s + LOOK_AGAIN_S)
            )
            return
        if operation.cancelled_by and (failure is None or failure.code is FailureCode.CANCELLED):
            self._end(operation, _S.CANCELLED, self._cancelled(operation), turn)
        elif failure is None:
            self._end(
                operation,
                _S.FAILED,
                because(ReasonCode.NOT_AS_WANTED, place=self.place(vm_id)),
                turn,
            )
        elif failure.code is FailureCode.CANCELLED:
            reason = because(ReasonCode.ENDED_ELSEWHERE, place=self.place(vm_id))
            self._end(operation, _S.FAILED, reason, turn)
        elif failure.code is FailureCode.INTERRUPTED:
            reason = because(ReasonCode.INTERRUPTED, place=self.place(vm_id))
            self._end(operation, _S.FAILED, reason, turn)
        else:
            self._end(operation, _S.FAILED, self._failed(operation, failure), turn)
        self._look = True

    def _unread(self, operation: Operation) -> NodeId | None:
        """A node of the operation that is not up, so that nobody knows what it has."""
        nodes = (n for n in (operation.source, operation.target) if n is not None)
        return next((n for n in nodes if not self.nodes[n].is_up), None)

    def _still_moves(self, operation: Operation) -> bool:
        """The call is gone but the hosts carry the move on: the target's half is still there."""
        assert operation.vm is not None
        incoming = self._inventory.sighting(operation.vm, operation.target)
        return incoming is not None and is_incoming(incoming)

    def _judge_late(self, operation: Operation, turn: Turn) -> None:
        """The time to see a result is over: wait on for lost nodes, give up on answering ones."""
        nodes = [n for n in (operation.source, operation.target) if n is not None]
        ended_s, failure = self._ended_calls.get(operation.id, (turn.at_s, None))
        lost = any(not self._inventory.nodes[n].is_up for n in nodes)
        moves = operation.kind is OperationKind.MIGRATE and self._still_moves(operation)
        if (lost or moves) and turn.at_s - ended_s < LOST_PATIENCE_S:
            turn.effects.append(
                SetTimer(
                    trace=turn.trace,
                    key=f"settle:{operation.id}",
                    at_s=turn.at_s + SETTLE_PATIENCE_S,
                )
            )
            self._read_again(operation, turn)
            return
        assert operation.vm is not None
        reason = (
            self._failed(operation, failure)
            if failure
            else because(ReasonCode.NOT_AS_WANTED, place=self.place(operation.vm))
        )
        self._end(operation, _S.FAILED, reason, turn)
        self._look = True

    def _goal_reached(self, operation: Operation, vm: Vm) -> Reason | None:
        if vm.status is VmStatus.UNKNOWN:
            return None
        if operation.kind is OperationKind.MIGRATE:
            arrived = (
                vm.owner == operation.target
                and vm.status in (VmStatus.RUNNING, VmStatus.PAUSED)
                and not self._still_moves(operation)
                and operation.target is not None
            )
            if not arrived:
                return None
            source = self._inventory.sighting(vm.id, operation.source)
            if operation.source != operation.target and source is not None:
                if source.status is VmStatus.RUNNING and self._inventory.nodes[source.node].is_up:
                    return None
            return because(ReasonCode.MOVED, node=str(operation.target))
        status: VmStatus = vm.status
        if operation.change is VmChange.TURN_OFF and operation.source != vm.owner:
            # Of two running copies of a VM one was turned off: the other one is the row now.
            copy = self._inventory.sighting(vm.id, operation.source)
            status = copy.status if copy else VmStatus.OFF
        if operation.change is None or status not in _GOALS[operation.change]:
            return None
        if operation.change is VmChange.RESTART:
            return because(ReasonCode.DONE) if operation.id in self._restarted else None
        if operation.change is VmChange.RESET:
            ended = self._ended_calls.get(operation.id)
            return because(ReasonCode.DONE) if ended and ended[1] is None else None
        if operation.change is VmChange.START and vm.cause is StatusCause.STARTING_UP:
            return None
        return because(ReasonCode.DONE)

    # --- ending ----------------------------------------------------------------------------

    def _end(
        self, operation: Operation, state: OperationState, reason: Reason | None, turn: Turn
    ) -> None:
        operation = self._move(operation, state, turn, reason)
        del self._live[operation.id]
        self.progress.pop(operation.id, None)
        self._ended_calls.pop(operation.id, None)
        self._restarted.discard(operation.id)
        turn.effects += [
            CancelTimer(trace=turn.trace, key=f"{kind}:{operation.id}")
            for kind in ("patience", "settle", "look", "abort")
            if operation.attempt
        ]
        vm = operation.vm
        if vm is not None:
            if self.claims.get(vm) == operation.id:
                del self.claims[vm]
            if state is _S.FAILED and reason is not None:
                self._inventory.last_failures[vm] = reason
            self._inventory.refresh(vm, turn)
        if operation.parent is not None:
            left = self._open_children[operation.parent] = self._open_children[operation.parent] - 1
            if not left:
                self._close_parent(operation.parent, turn)
            else:
                turn.changes[Kind.OPERATION].update(operation.parent, ("progress",))
        self._look = True

    def _close_parent(self, parent: OperationId, turn: Turn) -> None:
        batch = self.operations.get(parent)
        self._open_children.pop(parent, None)
        if batch is None or batch.is_over:
            return
        states = {o.state for o in self.operations.values() if o.parent == parent}
        if _S.FAILED in states:
            end = _S.FAILED
        elif _S.CANCELLED in states:
            end = _S.CANCELLED
        else:
            end = _S.DONE
        if batch.state is _S.WAITING:
            batch = moved_to(batch, _S.RUNNING, at_s=turn.at_s)
        self._put(moved_to(batch, end, at_s=turn.at_s), turn)

    def place(self, vm_id: VmId) -> str:
        """Where a VM is and in what state, for the end of a sentence."""
        vm = self._inventory.vms.get(vm_id)
        if vm is None:
            return "no node has it any more"
        if vm.status is VmStatus.UNKNOWN:
            was = f" (was {vm.was.value})" if vm.was else ""
            return f"its state on {vm.owner} is unknown{was}"
        return f"it is {vm.status.value.lower()} on {vm.owner}"

    def _failed(self, operation: Operation, failure: Failure) -> Reason:
        assert operation.vm is not None
        text = failure.text or failure.code.value
        return because(
            ReasonCode.FAILED,
            text=text,
            place=self.place(operation.vm),
            kind=failure.code.value,
            detail=failure.detail,
        )

    def _peer_refused(self, operation: Operation, failure: Failure) -> Reason:
        if failure.code is not FailureCode.PEER_LOGIN:
            return self._failed(operation, failure)
        assert operation.vm and operation.source and operation.target
        return because(
            ReasonCode.PEER_LOGIN_REFUSED,
            source=operation.source,
            target=operation.target,
            text=failure.text,
            place=self.place(operation.vm),
            commands=repair_commands(self._inventory, operation.source, operation.target),
            detail=failure.detail,
        )

    def _cancelled(self, operation: Operation) -> Reason:
        assert operation.vm is not None
        return because(
            ReasonCode.CANCELLED_BY, who=operation.cancelled_by, place=self.place(operation.vm)
        )

    # --- bookkeeping -----------------------------------------------------------------------

    def _hold(self, operation: Operation, turn: Turn) -> None:
        assert operation.vm is not None
        self._live[operation.id] = operation
        self.claims[operation.vm] = operation.id
        self._inventory.refresh(operation.vm, turn)

    def _move(
        self,
        operation: Operation,
        state: OperationState,
        turn: Turn,
        reason: Reason | None = None,
    ) -> Operation:
        operation = moved_to(operation, state, at_s=turn.at_s, reason=reason)
        self._live[operation.id] = operation
        self._put(operation, turn)
        text = state.value + (f": {reason.text}" if reason else "")
        self._story.tell(operation.id, turn.at_s, text)
        if operation.parent is not None:
            parent = self.operations.get(operation.parent)
            if parent is not None and parent.state is _S.WAITING and state is not _S.WAITING:
                self._put(moved_to(parent, _S.RUNNING, at_s=turn.at_s), turn)
        if operation.vm is not None and not state.is_over:
            self._inventory.refresh(operation.vm, turn)
        return operation

    def _put(self, operation: Operation, turn: Turn) -> None:
        if operation.id in self.operations:
            turn.changes[Kind.OPERATION].update(operation.id, ("*",))
        else:
            turn.changes[Kind.OPERATION].add(operation.id)
        self.operations[operation.id] = operation
        turn.transitions[operation.id] = operation

    def _owner(self, operation: Operation) -> NodeId | None:
        vm = self._inventory.vms.get(operation.vm) if operation.vm else None
        return vm.owner if vm else operation.source


def merged(before: VmSettings, wanted: VmSettings, now: VmSettings) -> VmSettings:
    """What was to be changed when it was asked for, on top of what others changed since."""
    names = [f.name for f in fields(VmSettings)]
    changed = {n: getattr(wanted, n) for n in names if getattr(wanted, n) != getattr(before, n)}
    return replace(now, **changed)


def can_abort(operation: Operation) -> bool:
    """Whether a running call of this kind can be called off (libvirt virDomainAbortJob)."""
    return operation.kind is OperationKind.MIGRATE or operation.change is VmChange.SAVE


def repair_commands(inventory: Inventory, source: NodeId, target: NodeId) -> str:
    """What to run so that the source can log in to the target; shown, never run by us."""
    config = inventory.config.node(target)
    uri = config.peer_uri or config.uri
    if "+ssh://" in uri:
        host = uri.split("://", 1)[1].split("/", 1)[0]
        return (
            f"on {source}, as root: ssh-keygen -t ed25519 (if it has no key); "
            f"ssh-copy-id {host}; virsh -c {uri} uri"
        )
    if "+tls://" in uri:
        return (
            f"on {source}, as root: check /etc/pki/CA/cacert.pem, /etc/pki/libvirt/clientcert.pem and "
            f"/etc/pki/libvirt/private/clientkey.pem; virsh -c {uri} uri"
        )
    return f"on {source}, as root: virsh -c {uri} uri (set peer_uri of {target} in the cluster file)"

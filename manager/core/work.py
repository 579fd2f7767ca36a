"""The machine behind every operation: waits, starts, watches, judges by what is seen, and ends."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
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
from manager.core.migration.queue import LINES, Place, Slots, order
from manager.core.model import Node, NodeStatus, PeerRoute, StatusCause, Vm, VmSettings, VmStatus
from manager.core.operations import Operation, OperationKind, OperationState, moved_to
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode, because

SHUTDOWN_PATIENCE_S = 180.0
"""How long a guest that was asked to shut down or restart is waited for."""

LAST_LOOK_S = 10.0
"""How long before that patience ends the node is read once more: an event may have been lost."""

SETTLE_PATIENCE_S = 120.0
"""How long an ended call's result may take to be seen on nodes that answer."""

LOST_PATIENCE_S = 1800.0
"""How long an operation waits for a node that was lost while it ran."""

LOOK_AGAIN_S = 2.0
"""Pause between looks at a move whose call ended while the hosts still carry it on."""

CONTINUE_AFTER_S = 600.0
"""Waiting work of a program that ended is continued unasked for this long."""

_S = OperationState
_INTERRUPTED = Failure(code=FailureCode.INTERRUPTED, text="the program ended in the middle")
_NO_ROOM = frozenset({ReasonCode.NO_MEMORY_ON_NODE, ReasonCode.NO_CPUS_ON_NODE, ReasonCode.NO_NODE_FITS})
_UNCERTAIN = frozenset({FailureCode.INTERRUPTED, FailureCode.TIMEOUT, FailureCode.UNREACHABLE})
"""Ends of calls that say nothing about what the host does meanwhile."""

_LEAVING = frozenset({StatusCause.MIGRATION, StatusCause.MIGRATED, StatusCause.POSTCOPY})
"""Why a source's half of a move is paused at its end."""

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
        self._children: dict[OperationId, list[OperationId]] = {}
        self._of_vm: dict[VmId, list[OperationId]] = {}
        self._active: dict[OperationId, Operation] = {}  # those of them that do not wait
        self._queue: list[Place] = []  # what waits, sorted
        self._unlooked: set[OperationId] = set()  # waits, and its VM is new to it or changed
        self._may_fit_later = False  # something waits for more than its place in a line
        self._reserved_mib: dict[NodeId, int] = {}
        self._reserved_vcpus: dict[NodeId, int] = {}
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
            for o in self._active.values()
            if o.kind is OperationKind.MIGRATE and o.state in (_S.RUNNING, _S.SETTLING, _S.CANCELLING)
        )

    def moving_in_mib(self, node: NodeId) -> int:
        """Memory reserved on a node for moves under way, in MiB."""
        return self._reserved_mib.get(node, 0)

    def moving_in_vcpus(self, node: NodeId) -> int:
        """vCPUs reserved on a node for moves under way."""
        return self._reserved_vcpus.get(node, 0)

    def about(self, key: str) -> Iterable[OperationId]:
        """The operations on a VM, or the children of an operation."""
        return self._of_vm.get(VmId(key), []) or self._children.get(OperationId(key), [])

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
            if holder is None:
                self._hold(child, turn)
            elif child.kind is OperationKind.SETTINGS:
                self._keep(child, turn)  # it can wait: it is admitted when the VM is free
            else:
                busy = because(ReasonCode.VM_BUSY, activity=_words(self.operations[holder]))
                self._end(child, _S.FAILED, busy, turn)
        if not children:
            self._close_parent(batch.id, turn)
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
        # The program lived at least until the last thing that its journal tells of.
        alive_s = max((max(o.created_s, o.started_s or 0, o.ended_s or 0) for o in operations), default=0)
        for operation in sorted(operations, key=lambda o: (rank.get(o.kind, 1), order(o))):
            self._know(operation)
            turn.changes[Kind.OPERATION].add(operation.id)
            if operation.is_over:
                continue
            if operation.kind is OperationKind.BATCH:
                self._open_children.setdefault(operation.id, 0)
                continue
            if operation.parent:
                self._open_children[operation.parent] = self._open_children.get(operation.parent, 0) + 1
            if operation.vm in self.claims:
                self._keep(operation, turn)
            else:
                self._hold(operation, turn)
            if operation.vm is not None:
                self._inventory.refresh(operation.vm, turn)
        for operation in list(self._live.values()):
            stranger = next((n for n in _nodes(operation) if n not in self.nodes), None)
            if stranger is not None:
                self._end(operation, _S.FAILED, because(ReasonCode.NO_SUCH_NODE, node=stranger), turn)
            elif operation.state in (_S.WAITING, _S.CHECKING):
                if turn.at_s - alive_s > CONTINUE_AFTER_S:
                    self._end(operation, _S.CANCELLED, because(ReasonCode.INTERRUPTED_WAITING), turn)
                elif operation.state is _S.CHECKING:
                    self._move(operation, _S.WAITING, turn)
            else:
                asked = operation.state is _S.SETTLING and operation.change in _ASKS_GUEST
                self._settle(operation, None if asked else _INTERRUPTED, turn)
                if operation.state is _S.CANCELLING:
                    self._send_abort(operation, turn)
        for parent, open_children in list(self._open_children.items()):
            if not open_children:
                self._close_parent(parent, turn)
        self._look = True

    def mirror(self, event: ev.OperationsReported, turn: Turn) -> None:
        """Show what another process, the owner of the operations, says; nothing is started here."""
        operations = event.operations
        self.progress.update(event.progress)
        for operation in operations:
            if operation.id in self.operations:
                turn.changes[Kind.OPERATION].update(operation.id, ("*",))
            else:
                turn.changes[Kind.OPERATION].add(operation.id)
            self._know(operation)
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
                self._inventory.settings_written(operation.vm, operation.source, operation.settings, turn)
                turn.effects.append(ReadVm(trace=turn.trace, node=operation.source, vm=operation.vm))
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
        if operation is None or operation.attempt != event.attempt:
            return
        if operation.state is _S.CANCELLING:
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
            ignored = because(
                ReasonCode.SHUTDOWN_IGNORED,
                asked="restart" if operation.change is VmChange.RESTART else "shut down",
                span=SHUTDOWN_PATIENCE_S,
                place=self.place(operation.vm),
            )
            self._end(operation, _S.FAILED, ignored, turn)
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
            if operation.state in (_S.WAITING, _S.CHECKING, _S.RUNNING):
                self._end(operation, _S.FAILED, reason, turn)
            elif operation.id in self._ended_calls:
                self._watch(operation, turn)  # what was to watch it did not start either
            else:  # perhaps cancelled before its start was stored: the hosts know
                self._settle(operation, _INTERRUPTED, turn)
                self._send_abort(operation, turn)
        self._look = True

    def look(self) -> None:
        """Something outside the tree ended: what waits may start."""
        self._look = True

    def vm_changed(self, vm: VmId, turn: Turn) -> None:
        """A VM's row changed: an operation may have reached its goal."""
        key = self.claims.get(vm)
        operation = self._live.get(key) if key is not None else None
        if operation is None:
            return
        if operation.state is _S.WAITING:
            self._unlooked.add(operation.id)
        else:
            self.judge(vm, turn)

    def node_read(self, node: NodeId, turn: Turn) -> None:
        """A node was read whole: everything that waits for a look at it is judged."""
        for operation in list(self._active.values()):
            if operation.vm is not None and node in (operation.source, operation.target):
                self.judge(operation.vm, turn)
        self._look |= self._may_fit_later

    # --- admission -------------------------------------------------------------------------

    def admit(self, turn: Turn) -> None:
        """Start what may start, in order; tell the rest why it waits. Runs inside the same turn.

        All of the queue is looked at when something ended; when only VMs changed that wait, only those.
        """
        while self._look or self._unlooked:
            whole, self._look = self._look, False  # an end sets it: what waited for that one may start
            fresh, self._unlooked = self._unlooked, set()
            if whole:
                self._queue = self._admit(self._queue, fresh, turn, whole=True)
            else:
                places = sorted(order(self._live[o]) for o in fresh if o in self._live)
                self._admit(places, fresh, turn, whole=False)

    def _admit(self, places: list[Place], fresh: set[OperationId], turn: Turn, *, whole: bool) -> list[Place]:
        """One look at these; returns those that still wait. `fresh` are looked at closely."""
        left: list[Place] = []
        if not places:
            return left
        slots = Slots.in_use(self._inventory.config, self._active.values(), self._inventory.foreign_moves())
        unfit: dict[NodeId, tuple[int, int]] = {}
        if whole:
            self._may_fit_later = False
        for place in places:
            operation = self._live.get(OperationId(place[-1]))
            if operation is None or operation.state is not _S.WAITING:
                continue
            reason = None
            if operation.id not in fresh:
                reason = slots.still_full(operation) or self._no_room_yet(operation, unfit)
            if reason is None:
                reason = self._try_start(operation, slots, unfit, turn)
            if reason is None:
                continue
            left.append(place)
            in_line = reason.code in LINES
            self._may_fit_later |= not in_line
            if in_line and not whole:
                # Its place in line is known only when all are looked at; the old one holds if it has one.
                self._look |= operation.reason is None or operation.reason.code is not reason.code
            elif reason is not operation.reason and reason != operation.reason:
                # A new reason of the same wait is not journaled: it is derived.
                self._say(operation, reason, turn)
                assert operation.vm is not None
                self._inventory.refresh(operation.vm, turn)
        return left

    def _no_room_yet(self, operation: Operation, unfit: Mapping[NodeId, tuple[int, int]]) -> Reason | None:
        """The old reason, if in this turn no node had room for a smaller VM of that node."""
        refused = unfit.get(operation.source) if operation.source else None
        too_large = (
            refused is not None and operation.memory_mib >= refused[0] and operation.vcpus >= refused[1]
        )
        waits_for_room = operation.reason is not None and operation.reason.code in _NO_ROOM
        return operation.reason if too_large and waits_for_room else None

    def _firm_target(self, operation: Operation) -> NodeId | None:
        """The node a move goes to, unless it may still be replaced by another and must be."""
        target = operation.target
        if target is None or operation.target_given:
            return target
        node = self.nodes[target]
        return target if _is_being_read(node) or planner.node_takes_work(node) is None else None

    def _try_start(
        self, operation: Operation, slots: Slots, unfit: dict[NodeId, tuple[int, int]], turn: Turn
    ) -> Reason | None:
        """Start it, end it, or say why it waits."""
        assert operation.vm is not None
        vm = self._inventory.vms.get(operation.vm)
        if vm is None:
            unread = self._unread(operation) or self._being_read()
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
        if goal is not None:
            self._end(operation, _S.DONE, goal, turn)
            return None
        copies = self._inventory.copies(vm.id)
        if len(copies) > 1 and not vm.alarm:  # one of them is old news, or it is an alarm
            return because(ReasonCode.WAITS_INVENTORY, node=min(copies))
        harmless = operation.kind is OperationKind.SETTINGS or operation.change is VmChange.TURN_OFF
        if vm.alarm and not harmless:
            nodes = ", ".join(sorted({vm.owner, *vm.other_nodes}))
            self._end(operation, _S.FAILED, because(ReasonCode.RUNS_TWICE, nodes=nodes), turn)
            return None
        if vm.owner != operation.source:
            operation = replace(operation, source=vm.owner)  # it moved while this waited
        blocked = slots.obstacle(operation, self._firm_target(operation))
        if blocked is not None:
            return blocked
        if operation.kind is OperationKind.MIGRATE:
            return self._try_move(operation, vm, slots, unfit, turn)
        slots.take(operation)
        self._begin(operation, turn)
        return None

    def _work_of_others(self, operation: Operation, vm: Vm) -> Reason | None:
        """Why it waits for other work on its VM; takes the claim when there is none."""
        holder = self.claims.get(vm.id)
        if holder is None:
            self.claims[vm.id] = operation.id
        elif holder != operation.id:
            held = self.operations[holder]
            if held.kind is OperationKind.MIGRATE:
                return because(ReasonCode.WAITS_MOVE_ENDS, node=held.target or "another node")
            return because(ReasonCode.WAITS_WORK_ENDS, work=_words(held))
        if self._inventory.has_foreign_work(vm.id):
            return because(ReasonCode.WAITS_WORK_ENDS, work="a job that is not Muster's")
        return None

    def _try_move(
        self, operation: Operation, vm: Vm, slots: Slots, unfit: dict[NodeId, tuple[int, int]], turn: Turn
    ) -> Reason | None:
        if vm.status not in (VmStatus.RUNNING, VmStatus.PAUSED):
            reason = because(ReasonCode.NOT_RUNNING, status=vm.status.value)
            self._end(operation, _S.FAILED, reason, turn)
            return None
        if vm.config is None:
            return because(ReasonCode.DEFINITION_UNREAD)
        planned = operation.target
        if planned is not None and _is_being_read(self.nodes[planned]):
            return because(ReasonCode.WAITS_INVENTORY, node=planned)
        if planned is not None and operation.target_given:
            found = planner.verdict(self, vm, self.nodes[planned], chosen=True)
        else:
            found = self._choose_target(vm, planned, slots)
        if not found.fits:
            unread = None if operation.target_given else self._being_read()
            if unread is not None:  # after a restart: it may be the one with room
                return because(ReasonCode.WAITS_INVENTORY, node=unread)
            if found.reason.code in _NO_ROOM and slots.makes_room(
                planned if operation.target_given else None
            ):
                if not operation.target_given and operation.source is not None:
                    unfit[operation.source] = (operation.memory_mib, operation.vcpus)
                return found.reason
            self._end(operation, _S.FAILED, found.reason, turn)
            return None
        if found.node != planned:
            operation = replace(operation, target=found.node)
            blocked = slots.obstacle(operation, found.node)
            if blocked is not None:
                return blocked
            text = f"chose {found.node}: {found.reason.text}"
            self._story.tell(operation.id, turn.at_s, text)
        slots.take(operation)
        self._begin(operation, turn)
        return None

    def _choose_target(self, vm: Vm, planned: NodeId | None, slots: Slots) -> planner.NodeVerdict:
        """The node of the plan that was shown while it fits, else the best one that takes moves now."""
        ranked = planner.rank(self, vm)
        fitting = [v for v in ranked if v.fits]
        if not fitting:
            return planner.NodeVerdict(
                node=planned or NodeId(""), fits=False, reason=planner.none_fits([v.reason for v in ranked])
            )
        for verdict in fitting:
            if verdict.node == planned:
                return verdict
        return next((v for v in fitting if not slots.incoming_is_full(v.node)), fitting[0])

    # Placement reads the cluster through this object: the inventory plus what moves reserve.

    def committed_mib(self, node: NodeId) -> int:
        """Memory in use on a node and reserved by moves to it, in MiB."""
        return self._inventory.committed_mib(node) + self.moving_in_mib(node)

    def committed_vcpus(self, node: NodeId) -> int:
        """vCPUs in use on a node and reserved by moves to it."""
        return self._inventory.committed_vcpus(node) + self.moving_in_vcpus(node)

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
        elif can_abort(operation) and (operation.state is _S.RUNNING or self._goes_on_alone(operation)):
            operation = self._move(operation, _S.CANCELLING, turn)
            self._send_abort(operation, turn)
        elif operation.state is _S.SETTLING and operation.change in _ASKS_GUEST:
            self._end(operation, _S.CANCELLED, self._cancelled(operation), turn)

    def _goes_on_alone(self, operation: Operation) -> bool:
        """A move whose call was lost with a connection or a program, and that the hosts carry on."""
        return operation.state is _S.SETTLING and self._still_moves(operation)

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
        self._watch(operation, turn)
        assert operation.vm is not None
        self.judge(operation.vm, turn)

    def _watch(self, operation: Operation, turn: Turn) -> None:
        """Wait for what the end of the call brings; not for ever."""
        _, failure = self._ended_calls[operation.id]
        if operation.change in _ASKS_GUEST and failure is None:
            self._set_timer("patience", operation, SHUTDOWN_PATIENCE_S, turn)
            self._set_timer("look", operation, SHUTDOWN_PATIENCE_S - LAST_LOOK_S, turn)
        else:
            self._set_timer("settle", operation, SETTLE_PATIENCE_S, turn)
            self._read_again(operation, turn)

    def _read_again(self, operation: Operation, turn: Turn) -> None:
        turn.effects += [ReadNode(trace=turn.trace, node=node) for node in _nodes(operation)]

    def judge(self, vm_id: VmId, turn: Turn) -> None:
        """Has the operation on this VM reached its goal, or is it clear that it will not?"""
        key = self.claims.get(vm_id)
        operation = self._live.get(key) if key else None
        if operation is None or operation.id not in self._ended_calls:
            return
        ended_s, failure = self._ended_calls[operation.id]
        vm = self._inventory.vms.get(vm_id)
        goal = self._goal_reached(operation, vm) if vm else None
        if goal is not None:
            self._end(operation, _S.DONE, goal if operation.kind is OperationKind.MIGRATE else None, turn)
            return
        if vm is not None and operation.change in _ASKS_GUEST and failure is None:
            return  # the guest has its time
        nodes = [self.nodes[n] for n in _nodes(operation)]
        unseen = [n for n in nodes if not n.is_up or (n.last_read_s or 0.0) < ended_s]
        # The source's own word is final, though the target cannot be asked.
        told = failure is not None and (
            failure.code not in _UNCERTAIN or (operation.target and failure.node == operation.target)
        )
        stays = (
            operation.kind is OperationKind.MIGRATE
            and told
            and vm is not None
            and vm.owner == operation.source
            and vm.status is VmStatus.RUNNING
            and nodes[0] not in unseen
        )
        if unseen and not stays:
            waits = because(ReasonCode.WAITS_INVENTORY, node=unseen[0].id)
            if operation.reason != waits:
                self._say(operation, waits, turn)
            return
        final = stays and failure is not None and failure.node == operation.target
        if not final and self._still_moves(operation):
            self._set_timer("look", operation, LOOK_AGAIN_S, turn)
        elif vm is None:
            self._vanished(operation, turn)
        else:
            self._missed(operation, failure, turn)

    def _vanished(self, operation: Operation, turn: Turn) -> None:
        """Its nodes were read, and none has the VM: a transient VM is gone when it stops."""
        if operation.change is not None and VmStatus.OFF in _GOALS[operation.change]:
            self._end(operation, _S.DONE, None, turn)
        else:
            self._end(operation, _S.FAILED, because(ReasonCode.VM_VANISHED), turn)

    def _missed(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """The call is over, the world was seen, and it is not as wanted."""
        assert operation.vm is not None
        place = self.place(operation.vm)
        code = failure.code if failure else None
        if operation.cancelled_by and (code in (None, FailureCode.CANCELLED) or code in _UNCERTAIN):
            self._end(operation, _S.CANCELLED, self._cancelled(operation), turn)
        elif failure is None:
            self._end(operation, _S.FAILED, because(ReasonCode.NOT_AS_WANTED, place=place), turn)
        elif code is FailureCode.CANCELLED:
            self._end(operation, _S.FAILED, because(ReasonCode.ENDED_ELSEWHERE, place=place), turn)
        elif code is FailureCode.INTERRUPTED:
            self._end(operation, _S.FAILED, because(ReasonCode.INTERRUPTED, place=place), turn)
        else:
            self._end(operation, _S.FAILED, self._failed(operation, failure), turn)

    def _unread(self, operation: Operation) -> NodeId | None:
        """A node of the operation that is not up, so that nobody knows what it has."""
        nodes = (n for n in (operation.source, operation.target) if n is not None)
        return next((n for n in nodes if not self.nodes[n].is_up), None)

    def _being_read(self) -> NodeId | None:
        """A node of which it is not known yet what runs there."""
        return next((n.id for n in self.nodes.values() if _is_being_read(n)), None)

    def _still_moves(self, operation: Operation) -> bool:
        """The call is gone but the hosts carry the move on: one of its halves is still there.

        At the end the target runs and the source, paused, clears up, or sends what post-copy asks for.
        """
        if operation.kind is not OperationKind.MIGRATE or operation.vm is None:
            return False
        incoming = self._inventory.sighting(operation.vm, operation.target)
        source = self._inventory.sighting(operation.vm, operation.source)
        outgoing = (
            source is not None
            and source.node != operation.target
            and source.status is VmStatus.PAUSED
            and source.cause in _LEAVING
            and self.nodes[source.node].is_up
            and incoming is not None
            and incoming.status is VmStatus.RUNNING
        )
        return outgoing or (incoming is not None and is_incoming(incoming))

    def _judge_late(self, operation: Operation, turn: Turn) -> None:
        """The time to see a result is over: wait on for lost nodes, give up on answering ones."""
        ended_s, failure = self._ended_calls[operation.id]
        lost = any(not self.nodes[n].is_up for n in _nodes(operation))
        if turn.at_s - ended_s < LOST_PATIENCE_S if lost else self._still_moves(operation):
            self._set_timer("settle", operation, SETTLE_PATIENCE_S, turn)
            self._read_again(operation, turn)
        else:
            self._missed(operation, failure, turn)

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
            leaves = (
                source is not None
                and source.node != operation.target
                and source.status is VmStatus.RUNNING
                and self.nodes[source.node].is_up
            )
            return None if leaves else because(ReasonCode.MOVED, node=str(operation.target))
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

    def _end(self, operation: Operation, state: OperationState, reason: Reason | None, turn: Turn) -> None:
        operation = self._move(operation, state, turn, reason)
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
        states = {self.operations[o].state for o in self._children.get(parent, ())}
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
        return because(ReasonCode.CANCELLED_BY, who=operation.cancelled_by, place=self.place(operation.vm))

    # --- bookkeeping -----------------------------------------------------------------------

    def _hold(self, operation: Operation, turn: Turn) -> None:
        assert operation.vm is not None
        self._keep(operation, turn)
        self.claims[operation.vm] = operation.id

    def _move(
        self,
        operation: Operation,
        state: OperationState,
        turn: Turn,
        reason: Reason | None = None,
    ) -> Operation:
        operation = moved_to(operation, state, at_s=turn.at_s, reason=reason)
        self._keep(operation, turn)
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

    def _keep(self, operation: Operation, turn: Turn) -> None:
        """Store a child's new state with what follows from it: its place in the queue, its reservation."""
        before = self._live.get(operation.id)
        waited = before is not None and before.state is _S.WAITING
        for kept, belongs in (
            (self._live, not operation.is_over),
            (self._active, not operation.is_over and operation.state is not _S.WAITING),
        ):
            if belongs:
                kept[operation.id] = operation
            else:
                kept.pop(operation.id, None)
        if operation.state is _S.WAITING and not waited:
            insort(self._queue, order(operation))
            self._unlooked.add(operation.id)
        for each, sign in ((before, -1), (operation, 1)):
            target = each.target if each is not None and _reserves(each) else None
            if each is not None and target is not None:
                need = sign * planner.need_mib(each.memory_mib)
                self._reserved_mib[target] = self._reserved_mib.get(target, 0) + need
                self._reserved_vcpus[target] = self._reserved_vcpus.get(target, 0) + sign * each.vcpus
                turn.changes[Kind.NODE].update(target, ("committed",))

    def _say(self, operation: Operation, reason: Reason, turn: Turn) -> None:
        """Give the reason of the same state; it is derived, so not journaled."""
        operation = replace(operation, reason=reason)
        self.operations[operation.id] = self._live[operation.id] = operation
        if operation.id in self._active:
            self._active[operation.id] = operation
        turn.changes[Kind.OPERATION].update(operation.id, ("reason",))

    def _set_timer(self, kind: str, operation: Operation, seconds: float, turn: Turn) -> None:
        key = f"{kind}:{operation.id}"
        turn.effects.append(SetTimer(trace=turn.trace, key=key, at_s=turn.at_s + seconds))

    def _know(self, operation: Operation) -> None:
        """Store an operation in its newest state."""
        if operation.id not in self.operations:
            if operation.parent is not None:
                self._children.setdefault(operation.parent, []).append(operation.id)
            if operation.vm is not None:
                self._of_vm.setdefault(operation.vm, []).append(operation.id)
        self.operations[operation.id] = operation

    def _put(self, operation: Operation, turn: Turn) -> None:
        if operation.id in self.operations:
            turn.changes[Kind.OPERATION].update(operation.id, ("*",))
        else:
            turn.changes[Kind.OPERATION].add(operation.id)
        self._know(operation)
        turn.transitions[operation.id] = operation


def _nodes(operation: Operation) -> Iterable[NodeId]:
    """The nodes that an operation is about: where the VM is, and where it goes."""
    return [n for n in (operation.source, operation.target) if n is not None]


def _is_being_read(node: Node) -> bool:
    return node.status is NodeStatus.CONNECTING or (node.is_up and node.vms_unread > 0)


def _reserves(operation: Operation) -> bool:
    """Whether it holds memory on its target: a move from the moment it is let go to its end."""
    return operation.kind is OperationKind.MIGRATE and not (
        operation.is_over or operation.state is _S.WAITING
    )


def _words(operation: Operation) -> str:
    """An operation's kind of work as people say it: ``live migrate``."""
    return operation.action.partition(".")[2].replace("_", " ")


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
    if config.peer_uri is None and "?" in config.uri:
        # What stands in its URI is of this computer: a key, a socket, a folder of certificates.
        return f"in the cluster file, set peer_uri of {target} to how the other nodes reach it"
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

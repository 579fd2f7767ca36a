"""The machine behind every operation: waits, starts, watches, judges by what is seen, and ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from manager.core import events as ev
from manager.core.changes import Story, Turn
from manager.core.effects import (
    AbortMigration,
    CancelTimer,
    ChangeVm,
    CheckPeerLogin,
    CopyDefinition,
    CopyDisks,
    Effect,
    ForgetDefinition,
    ReadNode,
    ReadVm,
    RestoreFromFile,
    SaveToFile,
    SetTimer,
    StartMigration,
    TuneMigration,
    VmChange,
    WriteVmSettings,
)
from manager.core.errors import Failure, FailureCode
from manager.core.ids import Kind, NodeId, OperationId, VmId
from manager.core.inventory import Inventory, is_incoming
from manager.core.migration import convergence, guard, moves, networks
from manager.core.migration.moves import MoveStep
from manager.core.migration.order import QueueOrder
from manager.core.migration.progress import MovePhase, MoveProgress, advanced
from manager.core.migration.queue import LINES, Slots, goes_elsewhere, is_heavy
from manager.core.model import (
    Activity,
    Authority,
    ClusterConfig,
    Convergence,
    MoveType,
    Node,
    NodeStatus,
    PeerRoute,
    Sighting,
    StatusCause,
    Vm,
    VmSettings,
    VmStatus,
)
from manager.core.operations import (
    ORDERS_ID,
    Operation,
    OperationKind,
    OperationState,
    StandingOrders,
    moved_to,
)
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

_CHANGES: Mapping[MoveStep, VmChange] = {
    MoveStep.SHUT_DOWN: VmChange.SHUT_DOWN,
    MoveStep.TURN_OFF: VmChange.TURN_OFF,
    MoveStep.START: VmChange.START,
    MoveStep.START_BACK: VmChange.START,
}
"""Steps of a move that are a change of state like any other."""

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
        self.nodes: Mapping[NodeId, Node] = inventory.nodes
        self.vms: Mapping[VmId, Vm] = inventory.vms
        self._inventory = inventory
        self._story = story
        self._live: dict[OperationId, Operation] = {}  # children that are not over
        self._tallies: dict[OperationId, Counter[OperationState]] = {}  # of the children, by their state
        self._children: dict[OperationId, list[OperationId]] = {}
        self._of_vm: dict[VmId, list[OperationId]] = {}
        self._active: dict[OperationId, Operation] = {}  # those of them that do not wait
        self._line = QueueOrder()  # what waits
        self._unlooked: set[OperationId] = set()  # waits, and its VM is new to it or changed
        self._may_fit_later = False  # something waits for more than its place in a line
        self._reserved_mib: dict[NodeId, int] = {}
        self._reserved_vcpus: dict[NodeId, int] = {}
        self._ended_calls: dict[OperationId, tuple[float, Failure | None]] = {}
        self._restarted: set[OperationId] = set()  # whose guest was seen to restart
        self._streaks: dict[NodeId, set[OperationId]] = {}  # moves to a target that failed, none done since
        self._look = False  # admission is due in this turn

    # --- reading ---------------------------------------------------------------------------

    @property
    def config(self) -> ClusterConfig:
        """The cluster's settings, with the limits that were changed while running."""
        return self._inventory.config

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

    def active_moves(self) -> tuple[Operation, ...]:
        """Moves whose job may run on a host now: what the sampler polls."""
        return tuple(
            o
            for o in self._active.values()
            if o.step in moves.WITH_JOB and o.state in (_S.RUNNING, _S.SETTLING, _S.CANCELLING)
        )

    def moving(self, node: NodeId) -> tuple[int, int]:
        """How many moves, of anyone, are under way out of a node and into it."""
        mine = [(o.source, o.target) for o in self._active.values() if o.target is not None]
        ways = [*mine, *self._inventory.foreign_moves()]
        return sum(source == node for source, _ in ways), sum(target == node for _, target in ways)

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
        for each in (replace(batch, children=len(children)), *children):
            self._put(each, turn)  # all of it, before one of them ends
        for child in children:
            assert child.vm is not None
            self._inventory.last_failures.pop(child.vm, None)
            holder = self.claims.get(child.vm)
            if holder is None:
                self._hold(child, turn)
            elif child.kind is OperationKind.SETTINGS:
                self._keep(child, turn)  # it can wait: it is admitted when the VM is free
            else:
                row = self.vms.get(child.vm)
                activity = row.activity if row else Activity.NONE
                self._end(child, _S.FAILED, busy(self.operations[holder], activity), turn)
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
        work = [o for o in operations if o.kind is not OperationKind.CONTROL]
        alive_s = max((max(o.created_s, o.started_s or 0, o.ended_s or 0) for o in work), default=0)
        operations = tuple(
            sorted(operations, key=lambda o: (rank.get(o.kind, 1), o.created_s, o.order, o.id))
        )
        for operation in operations:
            if operation.is_over and self.operations.get(operation.id) == operation:
                continue  # the owner that was followed until now has told it
            self._hear_of(operation, turn)
            if operation.vm is None or operation.is_over:
                continue
            if operation.vm in self.claims:
                self._keep(operation, turn)
            else:
                self._hold(operation, turn)
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
                elif operation.retry_at_s is not None:
                    self._set_timer("retry", operation, max(0.0, operation.retry_at_s - turn.at_s), turn)
            else:
                asked = operation.state is _S.SETTLING and asks_guest(operation)
                self._settle(operation, None if asked else _INTERRUPTED, turn)
                if operation.state is _S.CANCELLING:
                    self._send_abort(operation, turn)
        for operation in operations:
            if operation.kind is OperationKind.BATCH and not self._unended(operation.id):
                self._close_parent(operation.id, turn)
        self._look = True

    def mirror(self, event: ev.OperationsReported, turn: Turn) -> None:
        """Show what another process, the owner of the operations, says; nothing is started here."""
        self.progress.update(event.progress)
        for operation in event.operations:
            self._hear_of(operation, turn)
            if operation.vm is not None and not operation.is_over:
                self.claims.setdefault(operation.vm, operation.id)
                self._inventory.refresh(operation.vm, turn)

    def _hear_of(self, operation: Operation, turn: Turn) -> None:
        """Take over what a journal or another process says of an operation."""
        self._know(operation, turn)
        if operation.kind is OperationKind.CONTROL:
            self._inventory.limit(operation.orders or StandingOrders())
        if operation.vm is not None and operation.is_over:
            if self.claims.get(operation.vm) == operation.id:
                del self.claims[operation.vm]
                self.progress.pop(operation.id, None)
            self._inventory.refresh(operation.vm, turn)

    def control(self, event: ev.QueueRequested, turn: Turn) -> None:
        """An administrator steers the queue."""
        orders = self.orders
        match event.verb:
            case ev.QueueVerb.PAUSE if event.operations:
                batches = {self._batch_of(o) for o in event.operations} - {None}
                wanted = tuple(sorted({*orders.paused_batches, *(b for b in batches if b)}))
                self._order(replace(orders, paused_batches=wanted), turn)
            case ev.QueueVerb.PAUSE if not orders.paused_by:
                self._order(replace(orders, paused_by=event.author, paused_since_s=turn.at_s), turn)
            case ev.QueueVerb.RESUME if event.node is not None:
                self._streaks.pop(event.node, None)
                self._order(guard.released(orders, event.node), turn)
            case ev.QueueVerb.RESUME if event.operations:
                for each in event.operations:
                    batch = self._batch_of(each)
                    if batch is not None:
                        orders = guard.continued(orders, batch, self._failed_of(batch))
                self._order(orders, turn)
            case ev.QueueVerb.RESUME:
                self._order(replace(orders, paused_by="", paused_since_s=None), turn)
            case ev.QueueVerb.LIMITS if not guard.checked(dict(event.limits)):
                self._order(
                    replace(orders, limits=tuple((dict(orders.limits) | dict(event.limits)).items())), turn
                )
            case ev.QueueVerb.REORDER:
                self._reorder(event, turn)
            case ev.QueueVerb.TUNE:
                self._tune_by_hand(event, turn)
        self._look = True

    def _batch_of(self, key: OperationId) -> OperationId | None:
        operation = self.operations.get(key)
        if operation is None or operation.kind is OperationKind.CONTROL:
            return None
        return operation.parent or operation.id

    def _order(self, orders: StandingOrders, turn: Turn) -> None:
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
        self._look = True

    def _reorder(self, event: ev.QueueRequested, turn: Turn) -> None:
        """Give waiting work a hand-made place before another one of the same priority."""
        heavy = [o for o in event.operations if o in self._live and is_heavy(self._live[o])]
        for key, rank in self._line.ranks(heavy, event.before).items():
            operation = self._live[key] = replace(self._live[key], rank=rank)
            self._line.add(operation, is_move=goes_elsewhere(operation))
            self._put(operation, turn)

    def _tune_by_hand(self, event: ev.QueueRequested, turn: Turn) -> None:
        for key in event.operations:
            operation = self._live.get(key)
            if operation is None or operation.state is not _S.RUNNING or operation.step is not MoveStep.MOVE:
                continue
            what = [f"permits a pause of {event.pause_ms} ms"] if event.pause_ms else []
            if event.bandwidth_mib_s is not None:
                cap = (
                    f"caps it at {event.bandwidth_mib_s} MiB/s"
                    if event.bandwidth_mib_s
                    else "removes its cap"
                )
                what.append(cap)
            what += ["starts its second half"] if event.post_copy else []
            self._story.tell(key, turn.at_s, f"{event.author} {' and '.join(what)}")
            figures = self.progress.get(key)
            if event.pause_ms and figures is not None:
                watch = replace(figures.watch, pause_ms=event.pause_ms)
                self.progress[key] = replace(figures, watch=watch)
            if event.bandwidth_mib_s is not None:
                operation = replace(operation, cap_mib_s=event.bandwidth_mib_s)
                self._live[key] = self._active[key] = operation
                self._put(operation, turn)
            self._tune(
                operation,
                turn,
                pause_ms=event.pause_ms,
                bandwidth_mib_s=event.bandwidth_mib_s,
                post_copy=event.post_copy,
            )

    # --- what happens ----------------------------------------------------------------------

    def effect_ended(self, event: ev.EffectEnded, turn: Turn) -> None:
        """A call came back. An answer to an old attempt changes nothing."""
        operation = self._live.get(event.operation)
        if operation is None or operation.attempt != event.attempt:
            return
        failure = event.failure
        if operation.state is _S.CHECKING:
            if failure is None:
                self._set_out(operation, turn)
            elif self._retry(operation, failure, turn) is None:
                self._blame(operation, failure, turn)
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
        watch = self._converges(operation, event, turn)
        figures = advanced(self.progress.get(operation.id), event, watch)
        if figures != self.progress.get(operation.id):
            self.progress[operation.id] = figures
            turn.changes[Kind.OPERATION].update(operation.id, ("progress",))
            self._inventory.refresh(operation.vm, turn)

    def _converges(self, operation: Operation, seen: ev.MigrationProgress, turn: Turn) -> convergence.Watch:
        """Judge a move's figures by its policy, and do now what that says."""
        before = self.progress.get(operation.id, MoveProgress()).watch
        if operation.step is not MoveStep.MOVE or operation.state is not _S.RUNNING:
            return before
        watch, step = convergence.judge(
            before,
            self._policy(operation),
            seen,
            memory_mib=operation.memory_mib,
            started_s=operation.started_s or turn.at_s,
            place=f"on {operation.source}",
        )
        if step is None:
            return watch
        self._story.tell(operation.id, turn.at_s, step.reason.text)
        if step.give_up:
            operation = replace(operation, failed=step.reason.text)
            self._send_abort(self._move(operation, _S.CANCELLING, turn), turn)
        else:
            self._tune(operation, turn, pause_ms=step.pause_ms, post_copy=step.post_copy)
        return watch

    def _policy(self, operation: Operation) -> Convergence:
        name = operation.policy if operation.policy in convergence.POLICIES else convergence.STANDARD
        standard = self.config.migration.convergence
        return convergence.policy(name, standard, memory_mib=operation.memory_mib)

    def _tune(
        self,
        operation: Operation,
        turn: Turn,
        *,
        pause_ms: int | None = None,
        bandwidth_mib_s: int | None = None,
        post_copy: bool = False,
    ) -> None:
        assert operation.vm and operation.source
        turn.effects.append(
            TuneMigration(
                trace=operation.trace,
                operation=operation.id,
                attempt=operation.attempt,
                vm=operation.vm,
                node=operation.source,
                pause_ms=pause_ms,
                bandwidth_mib_s=bandwidth_mib_s,
                post_copy=post_copy,
            )
        )

    def routed(self, event: ev.MigrationRouted, turn: Turn) -> None:
        """Which way a move's memory goes."""
        operation = self._live.get(event.operation)
        if operation is None or operation.attempt != event.attempt:
            return
        before = self.progress.get(operation.id, MoveProgress())
        self.progress[operation.id] = replace(before, address=event.address, encrypted=event.encrypted)
        how = "encrypted" if event.encrypted else "not encrypted"
        self._story.tell(
            operation.id, turn.at_s, f"over {event.address or 'the address of the target'}, {how}"
        )
        turn.changes[Kind.OPERATION].update(operation.id, ("progress",))

    def tune_failed(self, event: ev.TuneFailed, turn: Turn) -> None:
        """The move goes on as it was."""
        operation = self._live.get(event.operation)
        if operation is not None and operation.attempt == event.attempt:
            self._story.tell(operation.id, turn.at_s, f"the host refused: {event.failure.text}")
            figures = self.progress.get(operation.id)
            if figures is not None:
                watch = convergence.refused(figures.watch, self._policy(operation))
                self.progress[operation.id] = replace(figures, watch=watch)
            turn.changes[Kind.OPERATION].update(operation.id, ("progress",))

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
        elif kind == "retry" and operation.state is _S.WAITING:
            self._unlooked.add(operation.id)
            self._look = True

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
            self._admit(self._line.candidates(None if whole else fresh), fresh, turn, whole)

    def _admit(self, keys: Iterable[OperationId], fresh: set[OperationId], turn: Turn, whole: bool) -> None:
        """One look at these, in order. `fresh` are looked at closely."""
        if not self._line:
            return
        slots = Slots.in_use(self._inventory.config, self._active.values(), self._inventory.foreign_moves())
        unfit: dict[NodeId, tuple[int, int]] = {}
        if whole:
            self._may_fit_later = False
        for key in keys:
            operation = self._live.get(key)
            if operation is None or operation.state is not _S.WAITING:
                continue
            reason = None
            if operation.id not in fresh:
                reason = slots.still_full(operation) or self._no_room_yet(operation, unfit)
            if reason is None:
                reason = self._try_start(operation, slots, unfit, turn)
            if reason is None:
                continue
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
        holds = self._held_back(operation, turn) or self._work_of_others(operation, vm)
        if holds is not None:
            return holds
        goal = self._goal_reached(operation, vm)
        if goal is not None:
            self._end(operation, _S.DONE, goal, turn)
            return None
        if vm.authority is not Authority.MUSTER:  # since it was asked for
            reason = because(ReasonCode.OTHER_AUTHORITY, authority=vm.authority.value)
            self._end(operation, _S.FAILED, reason, turn)
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

    def _held_back(self, operation: Operation, turn: Turn) -> Reason | None:
        """Why it may not start even if it has room: someone stopped the queue, or it is to be tried again."""
        if not is_heavy(operation):
            return None
        orders = self.orders
        if orders.paused_by:
            return because(
                ReasonCode.QUEUE_PAUSED, who=orders.paused_by, since=orders.paused_since_s or turn.at_s
            )
        batch = operation.parent
        if batch in orders.paused_batches and batch is not None:
            return because(
                ReasonCode.BATCH_PAUSED,
                count=self._failed_of(batch),
                of=self.operations[batch].children,
            )
        if operation.retry_at_s is not None and operation.retry_at_s > turn.at_s:
            return operation.reason or because(ReasonCode.STATE_FORBIDS, status="waiting for its retry")
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
        runs = vm.status in (VmStatus.RUNNING, VmStatus.PAUSED)
        may_be_off = operation.move in moves.BACK and vm.status in (VmStatus.OFF, VmStatus.CRASHED)
        if not runs and not may_be_off:
            reason = because(ReasonCode.NOT_RUNNING, status=vm.status.value)
            self._end(operation, _S.FAILED, reason, turn)
            return None
        if vm.config is None:
            return because(ReasonCode.DEFINITION_UNREAD)
        operation = replace(operation, was_off=not runs, cap_mib_s=slots.cap_mib_s)
        if operation.move is MoveType.STORAGE:
            slots.take(operation)
            self._begin(operation, turn)
            return None
        planned = operation.target
        if planned is not None and operation.target_given:
            failures = dict(self.orders.resting).get(planned)
            if failures is not None:
                return because(ReasonCode.TARGET_RESTS, node=planned, count=failures)
        if planned is not None and _is_being_read(self.nodes[planned]):
            return because(ReasonCode.WAITS_INVENTORY, node=planned)
        if planned is not None and operation.target_given:
            found = planner.verdict(self, vm, self.nodes[planned], chosen=True)
        else:
            found = self._choose_target(operation, vm, slots)
        if not found.fits:
            unread = None if operation.target_given else self._being_read()
            if unread is not None:  # after a restart: it may be the one with room
                return because(ReasonCode.WAITS_INVENTORY, node=unread)
            rests = not operation.target_given and bool(self.orders.resting)
            if found.reason.code in _NO_ROOM and (
                rests or slots.makes_room(planned if operation.target_given else None)
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
        self._line.started(operation, last_place=slots.is_full)
        self._begin(operation, turn)
        return None

    def _choose_target(self, operation: Operation, vm: Vm, slots: Slots) -> planner.NodeVerdict:
        """The node of the plan that was shown while it fits, else the best one that takes moves now.

        One on which it failed before comes last, one that rests is not taken.
        """
        planned, resting = operation.target, dict(self.orders.resting)
        ranked = planner.rank(self, vm)
        fitting = [v for v in ranked if v.fits and v.node not in resting]
        fitting.sort(key=lambda v: v.node in operation.avoid)  # stable: the best first
        if not fitting:
            tired = [
                because(ReasonCode.TARGET_RESTS, node=v.node, count=resting[v.node]) if v.fits else v.reason
                for v in ranked
            ]
            return planner.NodeVerdict(
                node=planned or NodeId(""), fits=False, reason=planner.none_fits(tired)
            )
        if planned in operation.avoid:
            planned = None
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
        operation = replace(operation, attempt=operation.attempt + 1, retry_at_s=None)
        if operation.kind is OperationKind.MIGRATE:
            # Only a running VM can try the door: a definition that is refused says so itself.
            asks = not operation.was_off and operation.move is not MoveType.STORAGE
            if asks and operation.route is PeerRoute.NODE_TO_NODE:
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
                self._set_out(operation, turn)
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

    def _set_out(self, operation: Operation, turn: Turn) -> None:
        """The first step of a move."""
        path = moves.PATH_OF_OFF if operation.was_off else moves.PATHS[operation.move]
        self._run(operation, path[0], turn)

    def _run(self, operation: Operation, step: MoveStep, turn: Turn) -> None:
        """One step of a move. A later one is a new attempt: late answers to the one before change nothing."""
        if operation.step is not None and operation.state not in (_S.WAITING, _S.CHECKING):
            operation = replace(operation, attempt=operation.attempt + 1)
            self._clear(operation, turn)
        operation = self._move(replace(operation, step=step), _S.RUNNING, turn)
        if len(moves.PATHS[operation.move]) > 1:
            self._story.tell(operation.id, turn.at_s, step.value)
        turn.effects.append(self._effect(operation, step))

    def _effect(self, operation: Operation, step: MoveStep) -> Effect:
        """What a step asks the world to do."""
        vm, source, target = operation.vm, operation.source, operation.target
        assert vm and source
        row = self._inventory.vms.get(vm)
        config = row.config if row else None
        node = target if target and step in moves.ON_TARGET else source
        about: Mapping[str, Any] = {
            "trace": operation.trace,
            "operation": operation.id,
            "attempt": operation.attempt,
            "vm": vm,
            "node": node,
        }
        autostart = config is not None and config.autostart
        match step:
            case MoveStep.MOVE:
                assert target
                limits = self.config.migration
                local = planner.local_disks(self.config, config) if config and operation.pool else ()
                return StartMigration(
                    **about,
                    target=target,
                    route=operation.route,
                    bandwidth_mib_s=operation.cap_mib_s,
                    unsafe=config is not None and planner.may_pass_unsafe(self.config, config),
                    convergence=self._policy(operation),
                    autostart=autostart,
                    addresses=networks.addresses(
                        limits.networks, self.config.node(source), self.config.node(target)
                    ),
                    parallel_connections=limits.parallel_connections,
                    encrypt=limits.encrypt,
                    copy_disks=local,
                    pool=operation.pool if local else "",
                )
            case MoveStep.COPY_DISKS:
                disks = tuple(d.target for d in config.disks if planner.is_movable(d)) if config else ()
                return CopyDisks(**about, pool=operation.pool, disks=disks)
            case MoveStep.SAVE:
                return SaveToFile(**about, path=planner.saved_path(self.config, vm))
            case MoveStep.RESTORE | MoveStep.RESTORE_BACK:
                return RestoreFromFile(**about, path=planner.saved_path(self.config, vm))
            case MoveStep.DEFINE:
                assert target
                return CopyDefinition(**about, target=target, route=operation.route, autostart=autostart)
            case MoveStep.FORGET | MoveStep.FORGET_TARGET:
                return ForgetDefinition(**about)
            case _:
                return ChangeVm(**about, change=_CHANGES[step])

    def _cancel_one(self, operation: Operation, author: str, turn: Turn) -> None:
        operation = replace(operation, cancelled_by=author)
        if operation.state in (_S.WAITING, _S.CHECKING):
            self._end(operation, _S.CANCELLED, self._cancelled(operation), turn)
            self._look = True
        elif can_abort(operation) and self.is_past_return(operation):
            return  # it runs on the target already
        elif can_abort(operation) and (operation.state is _S.RUNNING or self._goes_on_alone(operation)):
            operation = self._move(operation, _S.CANCELLING, turn)
            self._send_abort(operation, turn)
        elif operation.state is _S.SETTLING and asks_guest(operation):
            self._end(operation, _S.CANCELLED, self._cancelled(operation), turn)
        elif can_turn_back(operation) and operation.state in (_S.RUNNING, _S.SETTLING):
            self._move(operation, _S.CANCELLING, turn)  # what is under way ends, then it goes back

    def is_past_return(self, operation: Operation) -> bool:
        """Whether a move is in its second half (post-copy): the VM runs on the target already."""
        figures = self.progress.get(operation.id)
        return figures is not None and figures.phase is MovePhase.POST_COPY

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
        if asks_guest(operation) and failure is None:
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
            if operation.kind is OperationKind.MIGRATE:
                self._step_done(operation, goal, turn)
            else:
                self._end(operation, _S.DONE, None, turn)
            return
        if vm is not None and asks_guest(operation) and failure is None:
            return  # the guest has its time
        nodes = [self.nodes[n] for n in _nodes(operation)]
        unseen = [n for n in nodes if not n.is_up or (n.last_read_s or 0.0) < ended_s]
        # The source's own word is final, though the target cannot be asked.
        told = failure is not None and (
            failure.code not in _UNCERTAIN or (operation.target and failure.node == operation.target)
        )
        stays = (
            operation.step is MoveStep.MOVE
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

    def _step_done(self, operation: Operation, goal: Reason, turn: Turn) -> None:
        """A step of a move reached what it is for: the next one, the way back, or the end."""
        step = operation.step
        assert step is not None
        if operation.cancelled_by and step in (*moves.LEAVING, MoveStep.DEFINE):
            self._turn_back(operation, turn)
            return
        following = moves.follows(operation.move, step, was_off=operation.was_off)
        if step is MoveStep.FORGET_TARGET or (
            following is MoveStep.FORGET_TARGET
            and not self._inventory.sighting(operation.vm or VmId(""), operation.target)
        ):
            self._end_turned_back(operation, turn)
        elif following is None:
            self._streaks.pop(operation.target or NodeId(""), None)
            self._end(operation, _S.DONE, goal, turn)
        else:
            self._run(operation, following, turn)

    def _turn_back(self, operation: Operation, turn: Turn) -> None:
        """It left its source and will not arrive: back, if the target surely does not run it."""
        assert operation.vm is not None
        copy = self._inventory.sighting(operation.vm, operation.target)
        runs_there = copy is not None and copy.status not in (VmStatus.OFF, VmStatus.CRASHED)
        if (
            operation.target is not None
            and operation.step in (MoveStep.RESTORE, MoveStep.START)
            and (runs_there or not self.nodes[operation.target].is_up)
        ):
            text = operation.failed or self._cancelled(operation).text
            self._end(
                operation,
                _S.FAILED,
                because(ReasonCode.CANNOT_TELL, text=text, node=operation.target),
                turn,
            )
        elif operation.was_off:
            self._run(operation, MoveStep.FORGET_TARGET, turn) if copy else self._end_turned_back(
                operation, turn
            )
        else:
            self._run(operation, moves.BACK[operation.move][0], turn)

    def _end_turned_back(self, operation: Operation, turn: Turn) -> None:
        assert operation.vm is not None
        if operation.failed:
            reason = because(ReasonCode.FAILED, text=operation.failed, place=self.place(operation.vm))
            self._end(operation, _S.FAILED, reason, turn)
        else:
            self._end(operation, _S.CANCELLED, self._cancelled(operation), turn)

    def _retry(self, operation: Operation, failure: Failure | None, turn: Turn) -> Reason | None:
        """Let a piece of work wait for another try; None if it gets none."""
        policy = self.config.migration.retry
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
        operation = replace(
            operation, retries=retries, retry_at_s=turn.at_s + pause_s, avoid=avoid, step=None
        )
        self._clear(operation, turn)
        operation = self._move(operation, _S.WAITING, turn, reason)
        self._set_timer("retry", operation, pause_s, turn)
        self._look = True
        return reason

    def _blame(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """Count a failure against its target; after some in a row that is fed no more."""
        target = operation.target
        if target is None or not guard.blames_target(operation, failure):
            return
        streak = self._streaks.setdefault(target, set())
        streak.add(operation.id)  # one that is tried again counts once
        most = self.config.migration.retry.target_failures
        if len(streak) >= most and target not in dict(self.orders.resting):
            self._order(guard.rested(self.orders, target, len(streak)), turn)

    def _vanished(self, operation: Operation, turn: Turn) -> None:
        """Its nodes were read, and none has the VM: a transient VM is gone when it stops."""
        if operation.change is not None and VmStatus.OFF in _GOALS[operation.change]:
            self._end(operation, _S.DONE, None, turn)
        else:
            self._end(operation, _S.FAILED, because(ReasonCode.VM_VANISHED), turn)

    def _missed(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """The call is over, the world was seen, and it is not as wanted."""
        assert operation.vm is not None
        if operation.kind is OperationKind.MIGRATE:
            self._blame(operation, failure, turn)
            step = operation.step
            if step in moves.CLEARING_UP:
                self._left_behind(operation, failure, turn)
                return
            interrupted = failure is not None and failure.code is FailureCode.INTERRUPTED
            if step is MoveStep.COPY_DISKS and interrupted and not operation.cancelled_by:
                self._run(operation, step, turn)  # the copies go on; asking again takes them over
                return
            if step in (MoveStep.RESTORE, MoveStep.START, MoveStep.DEFINE):
                if (
                    failure is not None
                    and failure.code is FailureCode.INTERRUPTED
                    and not operation.cancelled_by
                ):
                    self._run(operation, step, turn)  # both nodes were read: it is not done, and nowhere up
                    return
                text = failure.text or failure.code.value if failure else "the host reported no error"
                self._turn_back(replace(operation, failed=operation.failed or text), turn)
                return
        if self._retry(operation, failure, turn) is not None:
            return
        place = self.place(operation.vm)
        code = failure.code if failure else None
        if operation.failed:  # of a give-up, or of the way back
            also = failure.text if failure and code is not FailureCode.CANCELLED else ""
            text = f"{operation.failed}; {also}" if also else operation.failed
            self._end(operation, _S.FAILED, because(ReasonCode.FAILED, text=text, place=place), turn)
            return
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

    def _left_behind(self, operation: Operation, failure: Failure | None, turn: Turn) -> None:
        """The VM has its place; only its old definition could not be removed."""
        assert operation.vm and operation.source and operation.target and operation.step
        if failure is not None and failure.code is FailureCode.INTERRUPTED:
            self._run(operation, operation.step, turn)  # doing it twice does no harm
        elif operation.step is MoveStep.FORGET_TARGET:
            self._end_turned_back(operation, turn)
        else:
            text = failure.text or failure.code.value if failure else "the host reported no error"
            place = self.place(operation.vm)
            reason = because(ReasonCode.STILL_DEFINED, place=place, node=operation.source, text=text)
            self._end(operation, _S.DONE, reason, turn)

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
        if operation.step is not MoveStep.MOVE or operation.vm is None:
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
        if operation.kind is OperationKind.MIGRATE and operation.step not in (None, MoveStep.MOVE):
            return self._step_reached(operation)
        if operation.kind is OperationKind.MIGRATE and operation.move is not MoveType.STORAGE:
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

    def _step_reached(self, operation: Operation) -> Reason | None:
        """What is seen of a step of a move that does not go live."""
        assert operation.vm and operation.source
        step = operation.step
        here = self._inventory.sighting(operation.vm, operation.source)
        there = self._inventory.sighting(operation.vm, operation.target)
        _, failure = self._ended_calls.get(operation.id, (0.0, None))
        done = because(ReasonCode.DONE)
        if step is MoveStep.COPY_DISKS:
            storage = because(ReasonCode.DISKS_MOVED, pool=operation.pool, node=operation.source)
            there_already = failure is not None and failure.code is FailureCode.ALREADY
            over = operation.id in self._ended_calls and (failure is None or there_already)
            return storage if over else None
        if step in moves.LEAVING:
            stopped = {VmStatus.OFF, VmStatus.CRASHED, *([VmStatus.SAVED] if step is MoveStep.SAVE else ())}
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

    # --- ending ----------------------------------------------------------------------------

    def _end(self, operation: Operation, state: OperationState, reason: Reason | None, turn: Turn) -> None:
        operation = self._move(operation, state, turn, reason)
        self._clear(operation, turn)
        vm = operation.vm
        if vm is not None:
            if self.claims.get(vm) == operation.id:
                del self.claims[vm]
            if state is _S.FAILED and reason is not None:
                self._inventory.last_failures[vm] = reason
            self._inventory.refresh(vm, turn)
        if operation.parent is not None:
            if not self._unended(operation.parent):
                self._close_parent(operation.parent, turn)
            else:
                turn.changes[Kind.OPERATION].update(operation.parent, ("progress",))
        self._look = True

        if state is _S.FAILED and operation.parent is not None:
            self._ask_about(operation.parent, turn)

    def _ask_about(self, parent: OperationId, turn: Turn) -> None:
        """One more of a batch failed: after too many the rest of it waits for a word."""
        failed = self._failed_of(parent)
        batch, orders = self.operations.get(parent), self.orders
        if batch is None or batch.is_over or parent in orders.paused_batches:
            return
        policy = self.config.migration.retry
        waits = self._tallies[parent][_S.WAITING]
        if waits and guard.batch_asks(policy, failed, batch.children, dict(orders.forgiven).get(parent, 0)):
            self._order(replace(orders, paused_batches=(*orders.paused_batches, parent)), turn)
            self._story.tell(parent, turn.at_s, f"paused: {failed} of {batch.children} failed")

    def _clear(self, operation: Operation, turn: Turn) -> None:
        """Forget what was only of the last try."""
        self.progress.pop(operation.id, None)
        self._ended_calls.pop(operation.id, None)
        self._restarted.discard(operation.id)
        turn.effects += [
            CancelTimer(trace=turn.trace, key=f"{kind}:{operation.id}")
            for kind in ("patience", "settle", "look", "abort", "retry")
            if operation.attempt
        ]

    def _close_parent(self, parent: OperationId, turn: Turn) -> None:
        batch = self.operations.get(parent)
        if batch is None or batch.is_over:
            return
        orders = self.orders
        if parent in orders.paused_batches or parent in dict(orders.forgiven):
            kept = guard.continued(orders, parent, 0)
            self._order(replace(kept, forgiven=tuple(f for f in kept.forgiven if f[0] != parent)), turn)
        tally = self._tallies.get(parent, Counter())
        if tally[_S.FAILED]:
            end = _S.FAILED
        elif tally[_S.CANCELLED]:
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
            self._line.add(operation, is_move=goes_elsewhere(operation))
            self._unlooked.add(operation.id)
        elif operation.state is not _S.WAITING:
            self._line.remove(operation.id)
        for each, sign in ((before, -1), (operation, 1)):
            target = each.target if each is not None and _reserves(each) else None
            if each is not None and target is not None:
                need = sign * planner.need_mib(each.memory_mib)
                self._reserved_mib[target] = self._reserved_mib.get(target, 0) + need
                self._reserved_vcpus[target] = self._reserved_vcpus.get(target, 0) + sign * each.vcpus
                turn.changes[Kind.NODE].update(target, ("committed", "moving"))
                if each.source is not None:
                    turn.changes[Kind.NODE].update(each.source, ("moving",))

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

    def _unended(self, batch: OperationId) -> int:
        """How many children of a batch are not over."""
        return sum(count for state, count in self._tallies.get(batch, {}).items() if not state.is_over)

    def _failed_of(self, batch: OperationId) -> int:
        """How many children of a batch failed, in this run of the program or before."""
        return self._tallies.get(batch, Counter())[_S.FAILED]

    def _put(self, operation: Operation, turn: Turn) -> None:
        """As `_know`, and the journal is told."""
        self._know(operation, turn)
        turn.transitions[operation.id] = operation


def _is_up(seen: Sighting) -> bool:
    return seen.status in (VmStatus.RUNNING, VmStatus.PAUSED) and seen.cause is not StatusCause.STARTING_UP


def asks_guest(operation: Operation) -> bool:
    """Whether what is under way is up to the guest: it is given its time."""
    return operation.change in _ASKS_GUEST or (operation.step is MoveStep.SHUT_DOWN and not operation.is_over)


def can_turn_back(operation: Operation) -> bool:
    """Whether a move that left its source can still go back to it."""
    return operation.step in (*moves.LEAVING, MoveStep.DEFINE) and not operation.failed


def _nodes(operation: Operation) -> Iterable[NodeId]:
    """The nodes that what is under way is about: where the VM is, and where it goes."""
    if operation.step in (*moves.LEAVING, MoveStep.COPY_DISKS):
        return [operation.source] if operation.source is not None else []
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
    words = operation.action.partition(".")[2].replace("_", " ")
    return f"set the {words}" if operation.kind is OperationKind.SETTINGS else words


def busy(operation: Operation, activity: Activity) -> Reason:
    """Why a VM takes no other work while this operation holds it: ``busy: about to live migrate``."""
    said = {
        Activity.QUEUED: f"waits for its turn to {_words(operation)}",
        Activity.CHECKING: f"about to {_words(operation)}",
        Activity.NONE: _words(operation),
    }
    return because(ReasonCode.VM_BUSY, activity=said.get(activity, activity.value.lower()))


def merged(before: VmSettings, wanted: VmSettings, now: VmSettings) -> VmSettings:
    """What was to be changed when it was asked for, on top of what others changed since."""
    names = [f.name for f in fields(VmSettings)]
    changed = {n: getattr(wanted, n) for n in names if getattr(wanted, n) != getattr(before, n)}
    return replace(now, **changed)


def can_abort(operation: Operation) -> bool:
    """Whether a running call of this kind can be called off (libvirt virDomainAbortJob)."""
    return operation.step in moves.WITH_JOB or operation.change is VmChange.SAVE


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

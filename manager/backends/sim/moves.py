"""Live migrations as QEMU makes them: disks, passes over memory, dirtying, throttle, switch-over, post-copy.

What is done about a guest that dirties its memory too fast is decided elsewhere and comes through `tune` and
`abort`; only auto-converge is the hypervisor's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from manager.backends.sim.hosts import (
    NOT_RUNNING,
    Done,
    Job,
    Pool,
    Reach,
    SimNode,
    SimVm,
    Timer,
    refused,
)
from manager.backends.sim.streams import Link, Stream, Transfer, Way
from manager.core.errors import Failure, FailureCode
from manager.core.ids import VmId
from manager.core.model import Convergence, Disk, StatusCause, VmConfig, VmStatus
from manager.core.units import MIB

if TYPE_CHECKING:
    from manager.backends.sim.world import SimWorld

PREPARE_S = 0.5
"""The target makes ready; the job's figures are all 0 until then."""

PEER_KEEP_ALIVE_S = 7.0
"""How long one host waits for another that fell silent. Source: measured, qemu.conf keepalive 2 x 3."""

NO_ROUTE_S = 3.1
"""How long the network takes to say that nobody is there. Source: measured, ARP failure."""

TCP_PATIENCE_S = 924.6
"""How long a connection without keep-alive waits for its other end. Source: Linux, tcp_retries2 15."""

PAUSE_MS = 300
"""The pause of a guest that is permitted at first. Source: QEMU, downtime-limit."""

_SWITCH_S = 0.05  # what a switch-over costs besides the last bytes
_BOTH_S = 0.03  # the target runs, the source has not yet said that it stopped
_BURST_S = 0.1  # what is sent between two looks at how much is left. Source: QEMU, BUFFER_DELAY
_PERIOD_S = 1.0  # the dirty rate is measured over at least that long. Source: QEMU, migration_bitmap_sync
_TOO_DIRTY = 0.5  # of what was sent meanwhile. Source: QEMU, throttle-trigger-threshold
_TOO_OFTEN = 2  # periods that were too dirty make a step. Source: QEMU, migration_trigger_throttle
_THROTTLE_STEP_PERCENT = 10  # Source: QEMU, cpu-throttle-increment


class Phase(Enum):
    """Where a move stands."""

    PREPARING = "preparing"
    DISKS = "disks"  # that the nodes do not share; the memory comes after them
    COPYING = "copying"
    SWITCHING = "switching"  # the guest stands still on the source
    POST_COPY = "post-copy"  # the guest runs on the target and fetches the rest
    ARRIVED = "arrived"  # runs on the target; the source has yet to say that it stopped
    OVER = "over"


_STREAMS = frozenset({Phase.COPYING, Phase.SWITCHING, Phase.POST_COPY})
_REVOCABLE = frozenset({Phase.PREPARING, Phase.DISKS, Phase.COPYING, Phase.SWITCHING})
_INVALID = "Requested operation is not valid: "


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveFault:
    """A move that goes wrong, or whose end is told wrong. Strikes once."""

    nth: int = 1  # which of the moves it could strike: 1 is the next
    vm: VmId | None = None  # only moves of this VM
    after_s: float = 1.0  # of copying; at the switch-over at the latest
    arrives: bool = False  # what really happens: the VM arrives, or it stays
    told: Failure | None = None  # what the call says of it
    silent: bool = False  # the job ends and the call never returns


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How a move is to be made."""

    bandwidth_mib_s: int = 0  # 0: no cap
    unsafe: bool = True
    convergence: Convergence = field(default_factory=Convergence)
    address: str = ""  # of the target; empty: as it says itself
    connections: int = 1
    encrypt: bool = False
    copy_disks: tuple[str, ...] = ()
    pool: str = ""  # where those go; empty: the one with the same path


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Move:
    """One live migration. Bytes, seconds of the world's time."""

    source: SimVm
    copy: SimVm  # the target's half
    replaced: SimVm | None  # what the target had of this VM before
    job: Job
    wishes: Wishes
    cap_bytes_per_s: float
    total: float  # of memory
    started_s: float
    stream: Stream
    fault: MoveFault | None = None
    phase: Phase = Phase.PREPARING
    reached: bool = False  # the target's address answered
    disks: Transfer | None = None
    iteration: int = 0
    left: float = 0.0  # known to be dirty and not yet sent
    sent: float = 0.0  # in all passes
    dirtied: float = 0.0  # in this pass
    synced_s: float = 0.0
    permitted_ms: int = PAUSE_MS
    pause_ms: int | None = None  # what a switch-over would have needed after the last pass
    throttle_percent: int = 0
    dirty_rate: float = 0.0  # bytes per second, as it was in the last period
    period_since_s: float = 0.0
    period_sent: float = 0.0  # what was sent when it began
    period_dirtied: float = 0.0
    too_dirty: int = 0  # periods since the last step
    was_paused: bool = False  # by a person, before the switch-over
    step: Timer | None = None
    stalled: Timer | None = None  # since its address is dead
    others: list[Timer] = field(default_factory=list)  # fault, keep-alive

    @property
    def target(self) -> SimNode:
        """The node it goes to."""
        return self.copy.node

    @property
    def rate(self) -> float:
        """Bytes per second that it sends."""
        return self.disks.stream.rate if self.phase is Phase.DISKS and self.disks else self.stream.rate

    @property
    def working_set(self) -> float:
        """What the guest can dirty."""
        return min(self.total, self.source.config.memory_mib * MIB * self.source.guest.working_set)

    @property
    def figures(self) -> tuple[int, int]:
        """Bytes in all and left, of disks and memory."""
        disks = self.disks.total if self.disks else 0.0
        if self.phase is Phase.PREPARING:
            return 0, 0
        if self.phase is Phase.DISKS and self.disks:
            return math.ceil(disks + self.total), math.ceil(self.disks.left + self.total)
        return math.ceil(disks + self.total), math.ceil(self.left)

    def sync(self, now_s: float) -> None:
        """Account for what was sent and dirtied since the last look."""
        passed_s, self.synced_s = now_s - self.synced_s, now_s
        sent = min(self.left, self.stream.rate * passed_s)
        self.left -= sent
        self.sent += sent
        if self.phase is Phase.COPYING and self.source.status is VmStatus.RUNNING:
            writes = self.source.guest.dirty_mib_s * MIB * (1 - self.throttle_percent / 100)
            self.dirtied = min(self.working_set, self.dirtied + writes * passed_s)


class Moves:
    """All live migrations of a world."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self.running: list[Move] = []
        self.faults: list[MoveFault] = []

    # --- asking ---------------------------------------------------------------------------

    def begin(self, source: SimVm, target: SimNode, done: Done, wishes: Wishes | None = None) -> Move:
        """Start to move a VM; `done` comes at its end. Raises `OperationError` if a host refuses at once."""
        wishes = wishes or Wishes()
        self._check(source, target, wishes)
        fault = self._next_fault(source.id)
        job = self._world.job(
            "remoteDispatchDomainMigratePerform3Params", done, kind="migration", may_be_aborted=True
        )
        if fault is not None:
            told, silent = fault.told, fault.silent
            job.done = (lambda _: None) if silent else (lambda _: done(told))
        copy = replace(
            source,
            node=target,
            status=VmStatus.PAUSED,
            cause=StatusCause.MIGRATION,
            incarnation=self._world.next_incarnation(target),
            job=job,
            disk_job=None,
            intent=None,
            here_since_s=math.inf,
        )
        links: tuple[Link, ...] = ((Way.OUT, source.node), (Way.IN, target))
        move = Move(
            source=source,
            copy=copy,
            replaced=target.vms.get(source.id),
            job=job,
            wishes=wishes,
            cap_bytes_per_s=wishes.bandwidth_mib_s * MIB or math.inf,
            total=source.memory_bytes,
            started_s=self._world.time_s,
            stream=Stream(links, 0.0, lambda rate: self._flows(move, rate)),
            fault=fault,
        )
        job.move = move
        source.job = job
        target.vms[source.id] = copy
        if wishes.copy_disks:
            _pool(target, source, wishes).free_bytes -= source.disk_bytes(wishes.copy_disks)
        self.running.append(move)
        self._world.tell_state(copy)
        move.step = self._world.after(PREPARE_S, lambda: self._connect(move))
        for node in (source.node, target):
            self._watch_peer(move, node)
        return move

    def abort(self, move: Move) -> None:
        """Cancel a move, unless it has arrived. Raises `OperationError(WRONG_STATE)` in post-copy."""
        source = move.source
        if move.phase in _REVOCABLE:
            self._fail(
                move, FailureCode.CANCELLED, "operation aborted: migration out job: canceled by client"
            )
            return
        if move.phase is Phase.POST_COPY:
            raise self._refusal(
                source, FailureCode.WRONG_STATE, f"{_INVALID}cannot abort migration in post-copy mode"
            )

    def tune(self, move: Move, *, pause_ms: int | None, bandwidth_mib_s: int | None, post_copy: bool) -> None:
        """Change a running move. Raises `OperationError(WRONG_STATE)` if post-copy is not possible (yet)."""
        if post_copy:
            text = ""
            permitted = move.wishes.convergence.post_copy
            if not (permitted and move.source.node.post_copy and move.target.post_copy):
                text = (
                    "switching to post-copy requires migration to be started with VIR_MIGRATE_POSTCOPY flag"
                )
            elif move.phase in (Phase.PREPARING, Phase.DISKS):
                text = "post-copy can only be started while outgoing migration is in progress"
            if text:
                raise self._refusal(move.source, FailureCode.WRONG_STATE, _INVALID + text)
        self.synced(move)
        if pause_ms is not None:
            move.permitted_ms = pause_ms
        if bandwidth_mib_s is not None:
            move.cap_bytes_per_s = bandwidth_mib_s * MIB or math.inf
            self._cap(move)
        if post_copy and move.phase is Phase.COPYING:
            self._post_copy(move)
        elif move.phase is Phase.COPYING:
            self._plan(move)

    def break_off(self, move: Move, failure: Failure) -> None:
        """The hypervisor gives a move up, if it still can."""
        if move.phase in _REVOCABLE:
            self._fail(move, failure.code, failure.text)

    def synced(self, move: Move) -> Move:
        """The move with its figures as of now."""
        if move.phase in _STREAMS:
            move.sync(self._world.time_s)
        return move

    # --- what the world tells -------------------------------------------------------------

    def guest_changed(self, move: Move) -> None:
        """Its guest was paused or goes on: from now on it dirties memory or not."""
        self.synced(move)

    def guest_lost(self, move: Move, vm: SimVm) -> None:
        """One of its two processes ended."""
        if move.phase is Phase.ARRIVED:
            self._clean_up(move)
        elif vm is move.source:
            self._fail(move, FailureCode.WRONG_STATE, NOT_RUNNING)
        else:
            self._fail(move, FailureCode.OTHER, "internal error: qemu unexpectedly closed the monitor")

    def reach_changed(self, node: SimNode) -> None:
        """One of its hosts ceased to answer: noticed at once if the host says so, else by keep-alive."""
        for move in self._of(node):
            self._watch_peer(move, node)
        self._world.streams.changed()

    def addresses_changed(self, node: SimNode) -> None:
        """An address of a host is dead or alive again: what goes over it stands still or goes on.

        The daemons' own connection goes another way, and nobody ends the move before TCP does.
        """
        for move in self._of(node):
            if move.target is not node or not move.reached:
                continue
            self._cap(move)
            if move.wishes.address not in node.dead_addresses:
                if move.stalled is not None:
                    move.stalled.cancel()
                move.stalled = None
            elif move.stalled is None:
                move.stalled = self._world.after(TCP_PATIENCE_S, partial(self.peer_lost, move))

    def node_died(self, node: SimNode) -> None:
        """One of its hosts lost power."""
        for move in self._of(node):
            self.peer_lost(move)

    # --- the course of a move -------------------------------------------------------------

    def _of(self, node: SimNode) -> list[Move]:
        return [move for move in self.running if node in (move.source.node, move.target)]

    def _check(self, source: SimVm, target: SimNode, wishes: Wishes) -> None:
        """What libvirt refuses before anything is copied, in its order."""
        if not source.runs:
            raise self._refusal(source, FailureCode.WRONG_STATE, NOT_RUNNING)
        if source.config.snapshots:
            text = f"{_INVALID}cannot migrate domain with {source.config.snapshots} snapshots"
            raise self._refusal(source, FailureCode.WRONG_STATE, text)
        self._world.need_no_checkpoints(source)
        if source.config.host_devices:
            text = f"{_INVALID}cannot migrate domain: VFIO migration is not supported in kernel"
            raise self._refusal(source, FailureCode.WRONG_STATE, text)
        disks = [d for d in source.config.disks if d.kind == "file" and d.source]
        shared = [d for d in disks if d.target not in wishes.copy_disks]
        careless = any(not d.read_only and d.cache not in ("none", "directsync") for d in shared)
        if careless and not wishes.unsafe:
            text = (
                "Unsafe migration: Migration may lead to data corruption if disks use cache other than none"
            )
            raise self._refusal(source, FailureCode.UNSAFE, f"{text} or directsync")
        if target is source.node:
            text = f"internal error: Attempt to migrate guest to the same host {target.host_uuid}"
            raise self._refusal(source, FailureCode.OTHER, text)
        self._world.check_place(source, target)
        for node in (source.node, target):
            self._check_abilities(source, node, wishes)
        for disk in shared:
            if not target.shares(disk.source):
                text = f"internal error: qemu: Could not open '{disk.source}': No such file or directory"
                raise self._refusal(source, FailureCode.OTHER, text)
        self._check_disks(source, target, wishes)
        self._world.need_room(source, target)

    def _check_abilities(self, source: SimVm, node: SimNode, wishes: Wishes) -> None:
        if wishes.encrypt and not node.certificates:
            text = "internal error: Unable to access credentials /etc/pki/qemu/ca-cert.pem"
            raise self._refusal(source, FailureCode.OTHER, f"{text}: No such file or directory")

    def _check_disks(self, source: SimVm, target: SimNode, wishes: Wishes) -> None:
        if not wishes.copy_disks:
            return
        known = {disk.target: disk for disk in source.config.disks}
        pool = _pool(target, source, wishes)
        storage = self._world.storage
        for name in wishes.copy_disks:
            if name not in known:
                raise self._refusal(source, FailureCode.NOT_FOUND, f"it has no disk {name}")
            storage.need_plain(known[name], source.node, source)
            here = storage.place(source.node, known[name].source)
            storage.need_name(storage.place(target, located(known[name], pool).source), here, target, source)
        storage.need_space(pool, source, target, wishes.copy_disks)

    def _refusal(self, source: SimVm, code: FailureCode, text: str) -> Exception:
        return refused(code, text, node=source.node.id, vm=source.id)

    def _next_fault(self, vm: VmId) -> MoveFault | None:
        found: MoveFault | None = None
        kept: list[MoveFault] = []
        for fault in self.faults:
            if fault.vm not in (None, vm):
                kept.append(fault)
            elif fault.nth > 1:
                kept.append(replace(fault, nth=fault.nth - 1))
            elif found is None:
                found = fault
            else:
                kept.append(fault)
        self.faults[:] = kept
        return found

    def _connect(self, move: Move) -> None:
        if move.wishes.address not in move.target.dead_addresses:
            self._copy(move)
            return
        where = move.wishes.address or move.target.id
        text = f"unable to connect to server at '{where}:49152': No route to host"
        move.step = self._world.after(
            NO_ROUTE_S, lambda: self._fail(move, FailureCode.UNREACHABLE, text, move.target)
        )

    def _copy(self, move: Move) -> None:
        move.reached = True
        self._cap(move)
        if move.fault is not None:
            move.others.append(self._world.after(move.fault.after_s, lambda: self._strike(move)))
        if not move.wishes.copy_disks:
            self._copy_memory(move)
            return
        move.phase = Phase.DISKS
        source, target = move.source, move.target
        move.disks = self._world.transfer(
            source.disk_bytes(move.wishes.copy_disks),
            ((Way.DISK, source.node), (Way.OUT, source.node), (Way.IN, target), (Way.DISK, target)),
            lambda: self._copy_memory(move),
            cap_bytes_per_s=move.stream.cap_bytes_per_s,
        )

    def _copy_memory(self, move: Move) -> None:
        move.phase, move.iteration, move.left = Phase.COPYING, 1, move.total
        move.synced_s = move.period_since_s = self._world.time_s
        self._world.tell_job(move.source, move.job, active=True)
        self._world.streams.begin(move.stream)

    def _cap(self, move: Move) -> None:
        """What a move may send at most, by its cap, its connections and the state of its address."""
        nodes, wishes = (move.source.node, move.target), move.wishes
        one = min(n.encrypted_bytes_per_s if wishes.encrypt else n.connection_bytes_per_s for n in nodes)
        cap = min(move.cap_bytes_per_s, one * max(1, wishes.connections))
        if wishes.address in move.target.dead_addresses:
            cap = 0.0
        move.stream.cap_bytes_per_s = cap
        if move.disks is not None:
            move.disks.stream.cap_bytes_per_s = cap
        self._world.streams.changed()

    def _flows(self, move: Move, rate: float) -> None:
        """It has another share of its links now."""
        move.sync(self._world.time_s)
        move.stream.rate = rate
        self._plan(move)

    def _plan(self, move: Move) -> None:
        """The next step comes when what is left of this pass was sent."""
        if move.step is not None:
            move.step.cancel()
        rate = move.stream.rate
        if rate <= 0:
            return
        if move.phase is Phase.COPYING:
            last = rate * max(0.0, move.permitted_ms / 1000 - _BURST_S)  # is left for the switch-over
            move.step = self._world.after((move.left - last) / rate, lambda: self._pass_over(move))
        elif move.phase is Phase.SWITCHING:
            move.step = self._world.after(move.left / rate + _SWITCH_S, lambda: self._arrive(move))
        elif move.phase is Phase.POST_COPY:
            move.step = self._world.after(move.left / rate, lambda: self._clean_up(move))

    def _pass_over(self, move: Move) -> None:
        """So little is left that it may be the end: what was dirtied meanwhile is counted, and that decides.

        What is dirty twice is sent once; after the first pass all that is dirty is of the working set.
        """
        now_s = self._world.time_s
        move.sync(now_s)
        before = move.left
        most = move.total if move.iteration == 1 else max(move.working_set, before)
        move.left, move.dirtied = min(most, before + move.dirtied), 0.0
        move.period_dirtied += move.left - before
        move.iteration += 1
        if now_s - move.period_since_s > _PERIOD_S:
            self._measure(move, now_s)
        move.pause_ms = math.ceil(1000 * move.left / move.stream.rate)
        if move.pause_ms <= move.permitted_ms:
            if move.fault is not None:
                self._strike(move)
                return
            self._stand_still(move)
        else:
            self._world.tell_job(move.source, move.job, active=True)
        self._plan(move)

    def _measure(self, move: Move, now_s: float) -> None:
        """A period is over: the dirty rate is known, and a guest that was too busy twice is slowed a step."""
        sent = move.sent - move.period_sent
        policy = move.wishes.convergence
        if move.period_dirtied > _TOO_DIRTY * sent:
            move.too_dirty += 1
            if move.too_dirty >= _TOO_OFTEN:
                move.too_dirty = 0
                if policy.auto_converge:
                    slower = move.throttle_percent + _THROTTLE_STEP_PERCENT
                    slower = slower if move.throttle_percent else policy.auto_converge_initial_percent
                    move.throttle_percent = min(slower, policy.auto_converge_max_percent)
        move.dirty_rate = move.period_dirtied / (now_s - move.period_since_s)
        move.period_since_s, move.period_sent, move.period_dirtied = now_s, move.sent, 0.0

    def _stand_still(self, move: Move) -> None:
        move.phase = Phase.SWITCHING
        move.was_paused = move.source.status is VmStatus.PAUSED
        if not move.was_paused:
            self._world.set_state(move.source, VmStatus.PAUSED, StatusCause.MIGRATION)

    def _post_copy(self, move: Move) -> None:
        move.left, move.dirtied = min(move.total, move.left + move.dirtied), 0.0
        self._stand_still(move)
        move.phase = Phase.POST_COPY
        move.source.cause = StatusCause.POSTCOPY
        self._run_on_target(move, StatusCause.POSTCOPY)
        self._plan(move)

    def _arrive(self, move: Move) -> None:
        """The guest goes on on the target, which tells it before the source tells its own half's end."""
        move.sync(self._world.time_s)
        move.left = 0.0
        move.phase = Phase.ARRIVED
        self._world.streams.end(move.stream)
        self._run_on_target(move, StatusCause.MIGRATED)
        move.step = self._world.after(_BOTH_S, lambda: self._clean_up(move))

    def _run_on_target(self, move: Move, cause: StatusCause) -> None:
        source, copy = move.source, move.copy
        # What changed on the source while it was copied comes along.
        copy.name, copy.revision, copy.started_s = source.name, source.revision, source.started_s
        copy.config, copy.shutting_down = _carried(source.config), source.shutting_down
        if move.disks is not None:
            copy.config = self._with_disks(move, copy.config)
            copy.revision += 1
        copy.here_since_s = self._world.time_s
        copy.intent, source.intent = source.intent, None
        if copy.intent is not None:
            copy.intent.vm = copy
        self._world.tell_definition(copy)
        if move.was_paused:
            self._world.set_state(copy, VmStatus.PAUSED, StatusCause.USER)
        else:
            self._world.set_state(copy, VmStatus.RUNNING, cause)

    def _with_disks(self, move: Move, config: VmConfig) -> VmConfig:
        """The definition with the disks where they are now; the old images stay behind."""
        pool = _pool(move.target, move.source, move.wishes)
        for disk in config.disks:
            if disk.target in move.wishes.copy_disks:
                self._world.storage.leave(move.source.node, disk.source)
        return relocated(config, move.wishes.copy_disks, pool)

    def _clean_up(self, move: Move) -> None:
        """The source drops its half: the move is over, and good."""
        source, copy = move.source, move.copy
        move.sync(self._world.time_s)
        if copy.cause is StatusCause.POSTCOPY:
            copy.cause = StatusCause.MIGRATED
        source.status, source.cause, source.incarnation = VmStatus.OFF, StatusCause.MIGRATED, None
        source.end_console()
        source.shutting_down = False
        if source.node.vms.get(source.id) is source:
            del source.node.vms[source.id]
        self._world.tell_state(source)
        self._world.tell_job(source, move.job, active=False)
        self._world.tell_undefined(source)
        self._over(move, None)

    def _strike(self, move: Move) -> None:
        """Its injected fault acts; `Job.done` says of it what the fault wants to be said."""
        fault, move.fault = move.fault, None
        if fault is None or move.phase not in _REVOCABLE:
            return
        if fault.arrives:
            if move.step is not None:
                move.step.cancel()
            self._stand_still(move)
            self._arrive(move)
        else:
            self._fail(move, FailureCode.OTHER, "injected")

    def _watch_peer(self, move: Move, node: SimNode) -> None:
        if node.reach is Reach.REFUSES:
            self.peer_lost(move)
        elif node.reach is not Reach.ANSWERS:
            timer = self._world.after(PEER_KEEP_ALIVE_S, lambda: self._check_peer(move, node))
            move.others.append(timer)

    def _check_peer(self, move: Move, node: SimNode) -> None:
        if node.reach is not Reach.ANSWERS:
            self.peer_lost(move)

    def peer_lost(self, move: Move) -> None:
        """One of its hosts, or the program that carries its control connection, is gone."""
        text = "internal error: client socket is closed"
        node = move.source.node if move.target.reach is Reach.ANSWERS else move.target
        if move.phase is Phase.ARRIVED:
            self._clean_up(move)
        elif move.phase is Phase.POST_COPY:
            # Neither half is whole any more: both stay, and a person has to decide.
            self._over(move, refused(FailureCode.UNREACHABLE, text, node=node.id, vm=move.source.id).failure)
            self._world.set_state(move.source, VmStatus.PAUSED, StatusCause.POSTCOPY_FAILED)
        else:
            self._fail(move, FailureCode.UNREACHABLE, text, node)

    def _fail(self, move: Move, code: FailureCode, text: str, whose: SimNode | None = None) -> None:
        """The move ends, the VM goes on where it was. `whose` trouble it is: the source's if not given."""
        source, copy, node = move.source, move.copy, move.target
        resumes = move.phase is Phase.SWITCHING and not move.was_paused
        if node.vms.get(source.id) is copy:
            del node.vms[source.id]
            if move.replaced is not None:
                node.vms[source.id] = move.replaced
        if move.wishes.copy_disks:
            _pool(node, source, move.wishes).free_bytes += source.disk_bytes(move.wishes.copy_disks)
        copy.status, copy.cause, copy.incarnation = VmStatus.OFF, StatusCause.FAILED, None
        self._world.tell_state(copy)
        self._over(move, refused(code, text, node=(whose or source.node).id, vm=source.id).failure)
        if resumes:
            self._world.set_state(source, VmStatus.RUNNING, StatusCause.MIGRATION_CANCELLED)

    def _over(self, move: Move, failure: Failure | None) -> None:
        move.phase = Phase.OVER
        for timer in (move.step, move.stalled, *move.others):
            if timer is not None:
                timer.cancel()
        self._world.streams.end(move.stream)
        if move.disks is not None:
            move.disks.stop()
        self.running.remove(move)
        move.copy.job = None
        self._world.end_job(move.source, move.job, failure)


def _carried(config: VmConfig) -> VmConfig:
    """A definition as a move carries it: without autostart. Source: measured, libvirt 9.0."""
    return replace(config, autostart=False) if config.autostart else config


def _pool(target: SimNode, source: SimVm, wishes: Wishes) -> Pool:
    """Where the copied disks go. Raises `OperationError(STORAGE)` if the target has no such pool."""
    if wishes.pool:
        found = target.pools.get(wishes.pool)
        text = f"Storage pool not found: no storage pool with matching name '{wishes.pool}'"
    else:
        first = next((d.source for d in source.config.disks if d.target in wishes.copy_disks), "")
        folder = first.rpartition("/")[0]
        found = next((pool for pool in target.pools.values() if pool.path == folder), None)
        text = f"Storage pool not found: no storage pool with matching target path '{folder}'"
    if found is None:
        raise refused(FailureCode.STORAGE, text, node=target.id, vm=source.id)
    return found


def located(disk: Disk, pool: Pool) -> Disk:
    """A disk as it is in a pool."""
    return replace(disk, source=f"{pool.path}/{disk.source.rpartition('/')[2]}")


def relocated(config: VmConfig, targets: tuple[str, ...], pool: Pool) -> VmConfig:
    """A definition whose disks of these targets are in a pool."""
    return replace(
        config, disks=tuple(located(disk, pool) if disk.target in targets else disk for disk in config.disks)
    )

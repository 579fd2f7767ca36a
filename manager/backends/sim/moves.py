"""Live migrations as QEMU makes them: passes over the memory, dirtying, switch-over; streams share links."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from manager.backends.sim.hosts import NOT_RUNNING, Done, Job, Reach, SimNode, SimVm, Timer, refused
from manager.core.errors import Failure, FailureCode
from manager.core.ids import VmId
from manager.core.model import Convergence, StatusCause, VmConfig, VmStatus
from manager.core.units import MIB

if TYPE_CHECKING:
    from manager.backends.sim.world import SimWorld

PREPARE_S = 0.5
"""The target makes ready; the job's figures are all 0 until then."""

PEER_KEEP_ALIVE_S = 7.0
"""How long one host waits for another that fell silent. Source: measured, qemu.conf keepalive 2 x 3."""

_SWITCH_S = 0.05  # what a switch-over costs besides the last bytes
_BOTH_S = 0.03  # the target runs, the source has not yet said that it stopped
_THROTTLE_STEP_PERCENT = 10  # QEMU's own step of auto-converge
_PATIENCE_PASSES = 2  # passes that may miss before something is done about it


class Phase(Enum):
    """Where a move stands."""

    PREPARING = "preparing"
    COPYING = "copying"
    SWITCHING = "switching"  # the guest stands still on the source
    POST_COPY = "post-copy"  # the guest runs on the target and fetches the rest
    ARRIVED = "arrived"  # runs on the target; the source has yet to say that it stopped
    OVER = "over"


_STREAMS = frozenset({Phase.COPYING, Phase.SWITCHING, Phase.POST_COPY})
_REVOCABLE = frozenset({Phase.PREPARING, Phase.COPYING, Phase.SWITCHING})


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveFault:
    """A move that goes wrong, or whose end is told wrong. Strikes once."""

    nth: int = 1  # which of the moves it could strike: 1 is the next
    vm: VmId | None = None  # only moves of this VM
    after_s: float = 1.0  # of copying; at the switch-over at the latest
    arrives: bool = False  # what really happens: the VM arrives, or it stays
    told: Failure | None = None  # what the call says of it
    silent: bool = False  # the job ends and the call never returns


@dataclass(slots=True, eq=False, kw_only=True)
class Move:
    """One live migration. Bytes, seconds of the world's time."""

    source: SimVm
    copy: SimVm  # the target's half
    replaced: SimVm | None  # what the target had of this VM before
    job: Job
    convergence: Convergence
    cap_bytes_per_s: float
    total: float
    started_s: float
    fault: MoveFault | None = None
    phase: Phase = Phase.PREPARING
    iteration: int = 0
    left: float = 0.0  # of this pass
    sent: float = 0.0  # in all passes
    dirtied: float = 0.0  # in this pass
    rate: float = 0.0  # bytes per second
    synced_s: float = 0.0
    throttle_percent: int = 0
    pause_step: int = 0
    pause_ms: int | None = None  # what a switch-over would have needed after the last pass
    was_paused: bool = False  # by a person, before the switch-over
    step: Timer | None = None
    others: list[Timer] = field(default_factory=list)  # time-out, fault, keep-alive

    @property
    def target(self) -> SimNode:
        """The node it goes to."""
        return self.copy.node

    @property
    def dirty_rate(self) -> float:
        """Bytes per second that the guest writes anew."""
        if self.phase is not Phase.COPYING or self.source.status is not VmStatus.RUNNING:
            return 0.0
        return self.source.guest.dirty_mib_s * MIB * (1 - self.throttle_percent / 100)

    def sync(self, now_s: float) -> None:
        """Account for what was sent and dirtied since the last look."""
        passed_s, self.synced_s = now_s - self.synced_s, now_s
        sent = min(self.left, self.rate * passed_s)
        self.left -= sent
        self.sent += sent
        working_set = self.source.config.memory_mib * MIB * self.source.guest.working_set
        self.dirtied = min(working_set, self.total, self.dirtied + self.dirty_rate * passed_s)


class Moves:
    """All live migrations of a world."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self.running: list[Move] = []
        self.faults: list[MoveFault] = []

    # --- asking ---------------------------------------------------------------------------

    def begin(
        self,
        source: SimVm,
        target: SimNode,
        done: Done,
        *,
        bandwidth_mib_s: int = 0,
        unsafe: bool = True,
        convergence: Convergence | None = None,
    ) -> Move:
        """Start to move a VM; `done` comes at its end. Raises `OperationError` if a host refuses at once."""
        self._check(source, target, unsafe)
        fault = self._next_fault(source.id)
        job = Job("remoteDispatchDomainMigratePerform3Params", done)
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
            intent=None,
            here_since_s=math.inf,
        )
        move = Move(
            source=source,
            copy=copy,
            replaced=target.vms.get(source.id),
            job=job,
            convergence=convergence or Convergence(),
            cap_bytes_per_s=bandwidth_mib_s * MIB or math.inf,
            total=source.config.memory_mib * MIB * source.guest.touched,
            started_s=self._world.time_s,
            fault=fault,
        )
        job.move = move
        source.job = job
        target.vms[source.id] = copy
        self.running.append(move)
        self._world.tell_state(copy)
        move.step = self._world.after(PREPARE_S, lambda: self._copy(move))
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
        text = "Requested operation is not valid: cannot abort migration in post-copy mode"
        if move.phase is Phase.POST_COPY:
            raise self._refusal(source, FailureCode.WRONG_STATE, text)

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
        self._share()

    def node_died(self, node: SimNode) -> None:
        """One of its hosts lost power."""
        for move in self._of(node):
            self.peer_lost(move)

    # --- the course of a move -------------------------------------------------------------

    def _of(self, node: SimNode) -> list[Move]:
        return [move for move in self.running if node in (move.source.node, move.target)]

    def _check(self, source: SimVm, target: SimNode, unsafe: bool) -> None:
        """What libvirt refuses before anything is copied, in its order."""
        if not source.runs:
            raise self._refusal(source, FailureCode.WRONG_STATE, NOT_RUNNING)
        invalid = "Requested operation is not valid: "
        if source.config.snapshots:
            text = f"{invalid}cannot migrate domain with {source.config.snapshots} snapshots"
            raise self._refusal(source, FailureCode.WRONG_STATE, text)
        if source.config.host_devices:
            text = f"{invalid}cannot migrate domain: VFIO migration is not supported in kernel"
            raise self._refusal(source, FailureCode.WRONG_STATE, text)
        disks = [d for d in source.config.disks if d.kind == "file" and d.source]
        if not unsafe and any(not d.read_only and d.cache not in ("none", "directsync") for d in disks):
            text = (
                "Unsafe migration: Migration may lead to data corruption if disks use cache other than none"
            )
            raise self._refusal(source, FailureCode.UNSAFE, f"{text} or directsync")
        if target is source.node:
            text = f"internal error: Attempt to migrate guest to the same host {target.host_uuid}"
            raise self._refusal(source, FailureCode.OTHER, text)
        there = target.vms.get(source.id)
        namesake = any(vm.name == source.name and vm.id != source.id for vm in target.vms.values())
        if namesake or (there is not None and (there.runs or there.job or there.name != source.name)):
            text = f"operation failed: domain '{source.name}' already exists or is already active"
            raise refused(FailureCode.CONFLICT, text, node=target.id, vm=source.id)
        for disk in disks:
            if not any(disk.source.startswith(path.rstrip("/") + "/") for path in target.shared_paths):
                text = f"internal error: qemu: Could not open '{disk.source}': No such file or directory"
                raise self._refusal(source, FailureCode.OTHER, text)
        self._world.need_room(source, target)

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

    def _copy(self, move: Move) -> None:
        move.phase, move.iteration, move.left = Phase.COPYING, 1, move.total
        move.synced_s = self._world.time_s
        memory_gib = move.source.config.memory_mib / 1024
        limit_s = move.convergence.time_out_s or max(600.0, 60.0 * memory_gib)
        move.others.append(self._world.after(limit_s, lambda: self._give_up(move, limit_s)))
        if move.fault is not None:
            move.others.append(self._world.after(move.fault.after_s, lambda: self._strike(move)))
        self._world.tell_job(move.source, active=True)
        self._share()

    def _share(self) -> None:
        """Give every stream its share of its links, and plan the next step of those whose share changed."""
        streams = [move for move in self.running if move.phase in _STREAMS]
        outgoing = Counter(move.source.node.id for move in streams)
        incoming = Counter(move.target.id for move in streams)
        for move in streams:
            source, target = move.source.node, move.target
            rate = min(
                move.cap_bytes_per_s,
                source.link_bytes_per_s / outgoing[source.id],
                target.link_bytes_per_s / incoming[target.id],
            )
            if Reach.SILENT in (source.reach, target.reach):
                rate = 0.0
            if rate != move.rate:
                move.sync(self._world.time_s)
                move.rate = rate
                self._plan(move)

    def _plan(self, move: Move) -> None:
        """The next step comes when what is left of this pass was sent."""
        if move.step is not None:
            move.step.cancel()
        if move.rate <= 0:
            return
        seconds = move.left / move.rate
        if move.phase is Phase.COPYING:
            move.step = self._world.after(seconds, lambda: self._pass_over(move))
        elif move.phase is Phase.SWITCHING:
            move.step = self._world.after(seconds + _SWITCH_S, lambda: self._arrive(move))
        elif move.phase is Phase.POST_COPY:
            move.step = self._world.after(seconds, lambda: self._clean_up(move))

    def _pass_over(self, move: Move) -> None:
        """All pages were sent once; what was dirtied meanwhile is the next pass, or the last."""
        move.sync(self._world.time_s)
        move.left, move.dirtied = move.dirtied, 0.0
        move.iteration += 1
        move.pause_ms = math.ceil(1000 * move.left / move.rate)
        policy = move.convergence
        steps = policy.pause_steps_ms or (300,)
        if move.pause_ms <= steps[min(move.pause_step, len(steps) - 1)]:
            if move.fault is not None:
                self._strike(move)
                return
            self._stand_still(move)
            self._plan(move)
            return
        if move.iteration > 1 + _PATIENCE_PASSES:
            if policy.post_copy:
                self._post_copy(move)
                return
            move.pause_step += 1
            if policy.auto_converge:
                slower = move.throttle_percent + _THROTTLE_STEP_PERCENT
                slower = max(policy.auto_converge_initial_percent, slower)
                move.throttle_percent = min(slower, policy.auto_converge_max_percent)
        self._world.tell_job(move.source, active=True)
        self._plan(move)

    def _stand_still(self, move: Move) -> None:
        move.phase = Phase.SWITCHING
        move.was_paused = move.source.status is VmStatus.PAUSED
        if not move.was_paused:
            self._world.set_state(move.source, VmStatus.PAUSED, StatusCause.MIGRATION)

    def _post_copy(self, move: Move) -> None:
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
        self._run_on_target(move, StatusCause.MIGRATED)
        move.step = self._world.after(_BOTH_S, lambda: self._clean_up(move))
        self._share()

    def _run_on_target(self, move: Move, cause: StatusCause) -> None:
        source, copy = move.source, move.copy
        # What changed on the source while it was copied comes along.
        copy.name, copy.revision, copy.started_s = source.name, source.revision, source.started_s
        copy.config, copy.shutting_down = _carried(source.config), source.shutting_down
        copy.here_since_s = self._world.time_s
        copy.intent, source.intent = source.intent, None
        if copy.intent is not None:
            copy.intent.vm = copy
        self._world.tell_definition(copy)
        if move.was_paused:
            self._world.set_state(copy, VmStatus.PAUSED, StatusCause.USER)
        else:
            self._world.set_state(copy, VmStatus.RUNNING, cause)

    def _clean_up(self, move: Move) -> None:
        """The source drops its half: the move is over, and good."""
        source, copy = move.source, move.copy
        if copy.cause is StatusCause.POSTCOPY:
            copy.cause = StatusCause.MIGRATED
        source.status, source.cause, source.incarnation = VmStatus.OFF, StatusCause.MIGRATED, None
        source.shutting_down = False
        if source.node.vms.get(source.id) is source:
            del source.node.vms[source.id]
        self._world.tell_state(source)
        self._world.tell_job(source, active=False)
        self._world.tell_undefined(source)
        self._over(move, None)

    def _give_up(self, move: Move, limit_s: float) -> None:
        if move.phase in _REVOCABLE:
            self._fail(
                move, FailureCode.OTHER, f"it did not converge within {limit_s:.0f} s and was cancelled"
            )

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
        copy.status, copy.cause, copy.incarnation = VmStatus.OFF, StatusCause.FAILED, None
        self._world.tell_state(copy)
        self._over(move, refused(code, text, node=(whose or source.node).id, vm=source.id).failure)
        if resumes:
            self._world.set_state(source, VmStatus.RUNNING, StatusCause.MIGRATION_CANCELLED)

    def _over(self, move: Move, failure: Failure | None) -> None:
        move.phase = Phase.OVER
        for timer in (move.step, *move.others):
            if timer is not None:
                timer.cancel()
        self.running.remove(move)
        move.copy.job = None
        self._world.end_job(move.source, failure)
        self._share()


def _carried(config: VmConfig) -> VmConfig:
    """A definition as a move carries it: without autostart. Source: measured, libvirt 9.0."""
    return replace(config, autostart=False) if config.autostart else config

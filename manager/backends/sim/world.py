"""The simulated cluster itself: nodes, VMs, and what time does to them.

A discrete-event simulation without tasks or threads: what will happen stands in an agenda, and whoever looks
at the world first lets everything happen that is due. `SimHypervisor` is a client of it, as a program is of
real hosts: several may share a world (two administrators), and one that ends leaves the world as it is (a
program that is killed).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol

from manager.backends.sim.hosts import (
    NOT_RUNNING,
    RUNS,
    Done,
    Guest,
    Intent,
    Job,
    Reach,
    SimNode,
    SimVm,
    Timer,
    afresh,
    refused,
)
from manager.backends.sim.moves import Moves
from manager.backends.sim.storage import Storage
from manager.backends.sim.streams import Link, Streams, Transfer, Way
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    ForeignJobSeen,
    NodeNotesChanged,
    NodeResourcesChanged,
    SeenVm,
    VmDefinitionChanged,
    VmDiskFailed,
    VmRebooted,
    VmStateChanged,
    VmUndefined,
)
from manager.core.ids import NodeId, VmId
from manager.core.model import (
    AgentState,
    NodeLoad,
    StatusCause,
    VmConfig,
    VmLoad,
    VmSettings,
    VmStatus,
)
from manager.services.ports import Clock

_POWERING_OFF_S = 0.3  # between a guest's "I am off" and the end of its process
_LOAD_S = 0.5  # of a start from saved memory, besides reading it
_SWAP_PATIENCE_S = 1.0  # an event held back for reordering comes after this at the latest
_OFF = frozenset({VmStatus.OFF, VmStatus.SAVED, VmStatus.CRASHED})
_ALREADY = {
    VmChange.START: RUNS,
    VmChange.SHUT_DOWN: frozenset({VmStatus.OFF, VmStatus.SAVED}),
    VmChange.SHUT_DOWN_AGENT: frozenset({VmStatus.OFF, VmStatus.SAVED}),
    VmChange.TURN_OFF: _OFF,
    VmChange.SAVE: frozenset({VmStatus.SAVED}),
    VmChange.DELETE_SAVED_STATE: frozenset({VmStatus.OFF}) | RUNS,
    VmChange.PAUSE: frozenset({VmStatus.PAUSED}),
    VmChange.RESUME: frozenset({VmStatus.RUNNING}),
}
"""States in which a change has nothing to do, as `LibvirtHypervisor` says it too."""


_HALVES = frozenset({StatusCause.MIGRATION, StatusCause.POSTCOPY, StatusCause.POSTCOPY_FAILED})
"""Causes of a paused VM that is one half of a move and does not execute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Twice:
    """A moment at which a VM ran on several nodes, or was started on a second one."""

    at_s: float  # monotonic
    vm: VmId
    nodes: tuple[NodeId, ...]
    prevented: bool = False  # by the locks on its images


@dataclass(slots=True, eq=False, kw_only=True)
class CallFault:
    """Calls that go wrong, for as often or as long as it says."""

    failure: Failure
    call: str | None  # port method; None: all that change something
    node: NodeId | None = None
    vm: VmId | None = None
    nth: int = 1  # which of the calls that it could strike is the first: 1 is the next
    times: float = 1
    until_s: float = math.inf  # monotonic
    after_s: float | None = None  # into the job that the call begins; None: the call is refused


def _nobody_asked(_failure: Failure | None) -> None:
    """The `Done` of what a host does by itself."""


class Observer(Protocol):
    """A client of the world: told what happens, at once, in the middle of it. Must not call back."""

    def saw(self, node: NodeId, event: Event) -> None:
        """An event left a host."""
        ...

    def reach_changed(self, node: SimNode) -> None:
        """A host began or ceased to answer."""
        ...

    def connection_cut(self, node: SimNode) -> None:
        """The host ended its connections and takes new ones."""
        ...

    def agenda_changed(self) -> None:
        """The next thing that will happen may now come earlier."""
        ...


class SimWorld:
    """Nodes and VMs. Loop thread only; nothing here waits."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.nodes: dict[NodeId, SimNode] = {}
        self.broken_logins: set[tuple[NodeId, NodeId]] = set()
        self.streams = Streams(self.after, _capacity)
        self.moves = Moves(self)
        self.storage = Storage(self)
        self.call_faults: list[CallFault] = []
        self.twice: list[Twice] = []
        self.locks_images = True  # a second QEMU is refused the images of a running one
        self._observers: list[Observer] = []
        self._agenda: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._time_s = clock.monotonic_s()
        self._is_happening = False

    # --- time -----------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Now, or the moment of what is just happening, in the clock's monotonic seconds."""
        return self._time_s if self._is_happening else self.clock.monotonic_s()

    @property
    def next_due_s(self) -> float:
        """The moment of the next thing to happen; infinite if nothing will."""
        while self._agenda and not self._agenda[0][2].is_set:
            heapq.heappop(self._agenda)
        return self._agenda[0][0] if self._agenda else math.inf

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Put something on the agenda."""
        timer = Timer(self.time_s + max(0.0, seconds), action)
        heapq.heappush(self._agenda, (timer.due_s, next(self._order), timer))
        for observer in self._observers:
            observer.agenda_changed()
        return timer

    def catch_up(self) -> None:
        """Let everything happen that is due by now, each at its own moment."""
        now_s, self._is_happening = self.clock.monotonic_s(), True
        try:
            while (due_s := self.next_due_s) <= now_s:
                self._time_s = max(self._time_s, due_s)
                heapq.heappop(self._agenda)[2].fire()
        finally:
            self._is_happening = False

    def transfer(
        self,
        total: float,
        links: tuple[Link, ...],
        done: Callable[[], None],
        cap_bytes_per_s: float = math.inf,
    ) -> Transfer:
        """Begin to send so many bytes."""
        return Transfer(
            streams=self.streams,
            later=self.after,
            now_s=lambda: self.time_s,
            total=total,
            links=links,
            done=done,
            cap_bytes_per_s=cap_bytes_per_s,
        )

    # --- observers ------------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Tell this client from now on."""
        self._observers.append(observer)

    def forget(self, observer: Observer) -> None:
        """Tell this client no more."""
        if observer in self._observers:
            self._observers.remove(observer)

    def _tell(self, node: SimNode, event: Event) -> None:
        if node.events_to_lose > 0:
            node.events_to_lose -= 1
        elif node.held_event is not None:
            self._send(node, event)
            self._release(node)
        elif node.events_to_swap > 0:
            node.events_to_swap -= 1
            node.held_event = event
            self.after(_SWAP_PATIENCE_S, lambda: self._release(node))
        else:
            self._send(node, event)

    def _release(self, node: SimNode) -> None:
        event, node.held_event = node.held_event, None
        if event is not None:
            self._send(node, event)

    def _send(self, node: SimNode, event: Event) -> None:
        if node.event_lag_s > 0:
            self.after(node.event_lag_s, lambda: self._deliver(node, event))
        else:
            self._deliver(node, event)

    def _deliver(self, node: SimNode, event: Event) -> None:
        for observer in tuple(self._observers):
            observer.saw(node.id, event)

    def tell_state(self, vm: SimVm) -> None:
        """Send the lifecycle event that says a VM's state."""
        self._note_twice(vm)
        self._tell(
            vm.node,
            VmStateChanged(
                at_s=self.clock.now_s(),
                node=vm.node.id,
                vm=vm.id,
                name=vm.name,
                status=vm.status,
                cause=vm.cause,
                shutting_down=vm.shutting_down,
            ),
        )

    def tell_definition(self, vm: SimVm) -> None:
        """Send the event that says a VM's definition, settings or agent changed."""
        self._tell(
            vm.node, VmDefinitionChanged(at_s=self.clock.now_s(), node=vm.node.id, vm=vm.id, name=vm.name)
        )

    def tell_job(self, vm: SimVm, job: Job, *, active: bool) -> None:
        """Send the event that says that a job runs on a VM, whoever asked for it, or is over.

        Source: libvirt's migration-iteration and job-completed events; a move that fails has none.
        """
        self._tell(vm.node, self.job_event(vm, job, active=active))

    def job_event(self, vm: SimVm, job: Job, *, active: bool) -> ForeignJobSeen:
        """What says that a job runs on a VM, or is over."""
        return ForeignJobSeen(
            at_s=self.clock.now_s(),
            node=vm.node.id,
            vm=vm.id,
            active=active,
            migration=job.kind == "migration",
            what=job.kind,
        )

    def tell_resources(self, node: SimNode) -> None:
        """Send the event that says that a pool or a network of a node began, ended or changed."""
        self._tell(node, NodeResourcesChanged(at_s=self.clock.now_s(), node=node.id))

    def tell_notes(self, node: SimNode) -> None:
        """Send the event that says that what a node keeps for all administrators changed."""
        self._tell(node, NodeNotesChanged(at_s=self.clock.now_s(), node=node.id))

    def switch(self, node: SimNode, name: str, *, on: bool) -> None:
        """Start or stop a pool or a network."""
        (node.inactive.discard if on else node.inactive.add)(name)
        self.tell_resources(node)

    def tell_undefined(self, vm: SimVm) -> None:
        """Send the event that says that a node has no definition of a VM any more."""
        self._tell(vm.node, VmUndefined(at_s=self.clock.now_s(), node=vm.node.id, vm=vm.id))

    # --- building and finding -------------------------------------------------------------

    def add_node(self, node: SimNode) -> SimNode:
        """Set up a host."""
        self.nodes[node.id] = node
        return node

    def add_vm(
        self, node: SimNode, id: VmId, name: str, config: VmConfig, guest: Guest, **state: Any
    ) -> SimVm:
        """Define a VM on a host, in any state; nobody is told."""
        vm = SimVm(id=id, name=name, node=node, config=config, guest=guest, **state)
        if vm.runs:
            vm.incarnation = self.next_incarnation(node)
        node.vms[id] = vm
        return vm

    def next_incarnation(self, node: SimNode) -> int:
        """A running id that this host never gave before."""
        node.last_incarnation += 1
        return node.last_incarnation

    def find(self, node: SimNode, vm: VmId) -> SimVm:
        """A VM as a node has it. Raises `OperationError(NOT_FOUND)`."""
        found = node.vms.get(vm)
        if found is None:
            raise refused(
                FailureCode.NOT_FOUND,
                f"Domain not found: no domain with matching uuid '{vm}'",
                node=node.id,
                vm=vm,
            )
        return found

    def copies(self, vm: VmId) -> Iterator[SimVm]:
        """All nodes' definitions of a VM."""
        return (node.vms[vm] for node in self.nodes.values() if vm in node.vms)

    def inventory(self, node: SimNode) -> tuple[SeenVm, ...]:
        """What a host lists."""
        return tuple(
            SeenVm(
                vm=vm.id,
                name=vm.name,
                status=vm.status,
                cause=vm.cause,
                incarnation=vm.incarnation,
                shutting_down=vm.shutting_down,
                started_s=vm.started_s,
            )
            for vm in node.vms.values()
        )

    def loads(
        self, node: SimNode, measured_since_s: float | None, *, disks: bool = False
    ) -> tuple[NodeLoad, dict[VmId, VmLoad]]:
        """A host's and its VMs' loads. CPU figures need an earlier sample, at `measured_since_s`."""
        at_s, now_s = self.clock.now_s(), self.time_s
        vms: dict[VmId, VmLoad] = {}
        busy_cpus = 0.0
        for vm in node.vms.values():
            if not vm.runs:
                continue
            percent = vm.cpu_percent(now_s)
            busy_cpus += percent / 100 * vm.config.vcpus
            measured = measured_since_s is not None and vm.here_since_s <= measured_since_s
            vms[vm.id] = VmLoad(
                cpu_percent=round(percent, 1) if measured else None,
                memory_used_mib=int(vm.config.memory_mib * vm.guest.touched),
                disk_bytes_per_s=round(percent * 40_000 * vm.config.vcpus) if measured and disks else None,
                net_bytes_per_s=round(percent * 25_000 * (1 + vm.guest.phase % 1)) if measured else None,
                at_s=at_s,
            )
        whole = min(100.0, 1.0 + 100 * busy_cpus / node.cpus)
        load = NodeLoad(
            cpu_percent=round(whole, 1) if measured_since_s is not None else None,
            memory_free_mib=max(0, node.free_mib()),
            at_s=at_s,
        )
        return load, vms

    # --- jobs -----------------------------------------------------------------------------

    def job(
        self,
        what: str,
        done: Done,
        *,
        kind: str = "",
        undo: Callable[[], None] | None = None,
        may_be_aborted: bool = False,
    ) -> Job:
        """A job that begins now."""
        return Job(
            what=what, done=done, since_s=self.time_s, kind=kind, undo=undo, may_be_aborted=may_be_aborted
        )

    def end_job(self, vm: SimVm, job: Job, failure: Failure | None = None) -> None:
        """Free a VM and say how its job ended."""
        if vm.job is job:
            vm.job = None
        elif vm.disk_job is job:
            vm.disk_job = None
        else:
            return
        if job.timer is not None:
            job.timer.cancel()
        if job.transfer is not None:
            job.transfer.stop()
        job.done(failure)
        for go_on in job.waiting:
            go_on()

    def _break_jobs(self, vm: SimVm) -> None:
        """The VM's process ends under its jobs."""
        for job in vm.jobs:
            if job.move is not None:
                self.moves.guest_lost(job.move, vm)
                continue
            if job.undo is not None:
                job.undo()
            self.end_job(vm, job, self._refusal(vm, FailureCode.WRONG_STATE, NOT_RUNNING).failure)

    def break_off(self, vm: SimVm, job: Job, failure: Failure) -> None:
        """A job fails, and the VM's process lives on. Nothing happens if the job is over."""
        if job not in vm.jobs:
            return
        if job.move is not None:
            self.moves.break_off(job.move, failure)
            return
        was = vm.status
        if job.undo is not None:
            job.undo()
        self.end_job(vm, job, replace(failure, node=vm.node.id, vm=vm.id))
        if job.kind:
            self.tell_job(vm, job, active=False)
        if vm.status is not was:
            self.set_state(vm, vm.status, vm.cause)

    def abort_job(self, vm: SimVm, *, copies_too: bool = True) -> None:
        """Cancel what a VM is busy with, if there is anything; a copy of its disks only if that is said.

        Raises `OperationError(WRONG_STATE)` if it cannot be cancelled any more.
        """
        jobs = vm.jobs if copies_too or vm.job is None else (vm.job,)
        job = next((job for job in jobs if job.may_be_aborted), None)
        if job is None or (job is vm.disk_job and not copies_too):
            return
        if job.move is not None:
            self.moves.abort(job.move)
            return
        text = f"operation aborted: domain {job.kind} job: canceled by client"
        self.break_off(vm, job, Failure(code=FailureCode.CANCELLED, text=text))

    def occupy(self, vm: SimVm, kind: str, seconds: float | None) -> Job:
        """Somebody works on a VM for that long, or until it is ended; others wait for it meanwhile."""
        self.need_running(vm)
        if vm.job is not None:
            raise self._refusal(vm, FailureCode.BUSY, f"another job holds it: {vm.job.what}")
        job = vm.job = self.job(
            f"remoteDispatchDomain{kind.title()}Begin", _nobody_asked, kind=kind, may_be_aborted=True
        )

        def finish() -> None:
            self.tell_job(vm, job, active=False)
            self.end_job(vm, job)

        if seconds is not None:
            job.timer = self.after(seconds, finish)
        self.tell_job(vm, job, active=True)
        return job

    # --- calls ----------------------------------------------------------------------------

    def next_call_fault(self, call: str, node: NodeId, vm: VmId | None, *, changes: bool) -> CallFault | None:
        """What is to go wrong with this call."""
        found: CallFault | None = None
        for fault in tuple(self.call_faults):
            if self.time_s >= fault.until_s:
                self.call_faults.remove(fault)
            elif (
                (fault.call == call or (fault.call is None and changes))
                and fault.node in (None, node)
                and fault.vm in (None, vm)
            ):
                if fault.nth > 1:
                    fault.nth -= 1
                elif found is None:
                    found = fault
                    fault.times -= 1
                    if fault.times <= 0:
                        self.call_faults.remove(fault)
        return found

    # --- changes of state -----------------------------------------------------------------

    def change(self, node: SimNode, vm_id: VmId, change: VmChange, done: Done) -> None:
        """Begin a change of state. `done` may be called at once; raises `OperationError` if it is refused."""
        vm = self.find(node, vm_id)
        if vm.status in _ALREADY.get(change, ()):
            raise self._refusal(vm, FailureCode.ALREADY, f"it is {vm.status.value.lower()}")
        match change:
            case VmChange.START:
                self.start(vm, done, restored=vm.status is VmStatus.SAVED)
                return
            case VmChange.SAVE:
                self.storage.save(vm, done)
                return
            case VmChange.SHUT_DOWN | VmChange.RESTART:
                self.need_running(vm)
                if vm.status is VmStatus.RUNNING and vm.guest.obeys:
                    self._intend(vm, restart=change is VmChange.RESTART)
            case VmChange.SHUT_DOWN_AGENT:
                self.need_running(vm)
                if vm.read().agent is not AgentState.CONNECTED:
                    raise self._refusal(
                        vm,
                        FailureCode.NO_AGENT,
                        "Guest agent is not responding: QEMU guest agent is not connected",
                    )
                self._intend(vm, restart=False)
            case VmChange.TURN_OFF:
                self.need_running(vm)
                self.kill(vm, VmStatus.OFF, StatusCause.TURNED_OFF)
            case VmChange.DELETE_SAVED_STATE:
                if vm.status is not VmStatus.SAVED:
                    raise self._refusal(
                        vm,
                        FailureCode.WRONG_STATE,
                        "Requested operation is not valid: domain has no managed save image",
                    )
                self.set_state(vm, VmStatus.OFF, StatusCause.NONE)
            case VmChange.PAUSE:
                self.need_running(vm)
                self.set_state(vm, VmStatus.PAUSED, StatusCause.USER)
            case VmChange.RESUME:
                self.need_running(vm)
                self.set_state(vm, VmStatus.RUNNING, StatusCause.USER)
            case VmChange.RESET:
                self.need_running(vm)
                self._rebooted(vm)
            case VmChange.CTRL_ALT_DEL:  # what most guests do with it: restart
                self.need_running(vm)
                if vm.status is VmStatus.RUNNING and vm.guest.obeys:
                    self._intend(vm, restart=True)
        done(None)

    def _refusal(self, vm: SimVm, code: FailureCode, text: str) -> OperationError:
        return refused(code, text, node=vm.node.id, vm=vm.id)

    def need_running(self, vm: SimVm) -> None:
        """Raises `OperationError(WRONG_STATE)` if a VM does not run."""
        if not vm.runs:
            raise self._refusal(vm, FailureCode.WRONG_STATE, NOT_RUNNING)

    def set_state(self, vm: SimVm, status: VmStatus, cause: StatusCause) -> None:
        """Give a VM another state, without ending its process, and tell it."""
        vm.status, vm.cause = status, cause
        self.tell_state(vm)
        if vm.job is not None and vm.job.move is not None:
            self.moves.guest_changed(vm.job.move)
        if status is VmStatus.RUNNING:
            if vm.guest.disk_full:
                self.after(1.0, lambda: self._disk_error(vm))
            if vm.intent is not None and not vm.intent.timer.is_set:
                vm.intent.timer = self.after(1.0, vm.intent.act)

    def start(
        self,
        vm: SimVm,
        done: Done,
        *,
        restored: bool = False,
        arrived: Callable[[], None] | None = None,
        paused: bool = False,
        call: str = "remoteDispatchDomainCreateWithFlags",
    ) -> None:
        """Begin to start a VM that is off here. Raises `OperationError` if it is refused at once.

        Args:
            vm: the VM.
            done: told the end.
            restored: its memory is read from somewhere, and it goes on as it was.
            arrived: called when it runs.
            paused: it stands still then.
            call: as the message about the lock names it.
        """
        if not restored:
            vm.config = afresh(vm.config)
        self._need_images(vm)
        self.need_room(vm, vm.node)
        before = (vm.status, vm.cause)

        def undo() -> None:
            vm.status, vm.cause = before
            vm.incarnation = None

        def finish() -> None:
            vm.started_s = self.clock.now_s()
            vm.here_since_s = self.time_s
            if arrived is not None:
                arrived()
            cause = StatusCause.RESTORED if restored else StatusCause.BOOTED
            self.set_state(vm, VmStatus.PAUSED if paused else VmStatus.RUNNING, cause)
            self.end_job(vm, job)

        def read() -> None:
            job.timer = self.after(_LOAD_S, finish)

        job = vm.job = self.job(call, done, undo=undo)
        vm.status, vm.cause = VmStatus.PAUSED, StatusCause.STARTING_UP  # no event tells it
        vm.incarnation = self.next_incarnation(vm.node)
        self._note_twice(vm)
        if restored:
            job.transfer = self.transfer(vm.memory_bytes, ((Way.DISK, vm.node),), read)
        else:
            job.timer = self.after(vm.guest.boot_s, finish)

    def running_on(self, vm: VmId) -> tuple[NodeId, ...]:
        """The nodes on which a VM executes, or is paused with its memory; both halves of a move are one."""
        nodes: list[NodeId] = []
        moves: list[object] = []
        for copy in self.copies(vm):
            if not copy.runs or (copy.status is VmStatus.PAUSED and copy.cause in _HALVES):
                continue
            move = copy.job.move if copy.job is not None else None
            if move is None or move not in moves:
                moves.append(move)
                nodes.append(copy.node.id)
        return tuple(nodes)

    def _note_twice(self, vm: SimVm) -> None:
        if vm.runs and len(nodes := self.running_on(vm.id)) > 1:
            self.twice.append(Twice(at_s=self.time_s, vm=vm.id, nodes=nodes))

    def _need_images(self, vm: SimVm) -> None:
        """Raises `OperationError` if a VM's images are in use by a copy of it elsewhere."""
        elsewhere = self.running_on(vm.id)
        if not elsewhere:
            return
        image = next(
            (d.source for d in vm.config.disks if d.device == "disk" and d.source and not d.shareable), ""
        )
        if image and self.locks_images:
            nodes = (*elsewhere, vm.node.id)
            self.twice.append(Twice(at_s=self.time_s, vm=vm.id, nodes=nodes, prevented=True))
            text = 'internal error: qemu: Failed to get "write" lock: Is another process using the image '
            text += f"[{image}]?"
            raise self._refusal(vm, FailureCode.OTHER, text)

    def need_room(self, vm: SimVm, node: SimNode) -> None:
        """Raises `OperationError` if a VM cannot get its memory or its networks on a node."""
        missing = next(
            (i.source for i in vm.config.interfaces if i.kind == "bridge" and i.source not in node.bridges),
            "",
        )
        if missing:
            raise refused(
                FailureCode.NETWORK,
                f"Cannot get interface MTU on '{missing}': No such device",
                node=node.id,
                vm=vm.id,
            )
        if vm.config.memory_mib > node.free_mib():
            raise refused(
                FailureCode.NO_RESOURCES,
                f"cannot set up guest memory 'pc.ram': Cannot allocate memory "
                f"({vm.config.memory_mib} MiB wanted, {max(0, node.free_mib())} MiB free)",
                node=node.id,
                vm=vm.id,
            )

    def kill(self, vm: SimVm, status: VmStatus, cause: StatusCause) -> None:
        """End a VM's process, whatever goes on with it."""
        self._break_jobs(vm)
        if vm.status is VmStatus.SAVED:  # it was being restored, and its memory is still there
            status, cause = VmStatus.SAVED, StatusCause.SAVED
        self.stop(vm, status, cause)

    def stop(self, vm: SimVm, status: VmStatus, cause: StatusCause) -> None:
        """A VM's process is gone; nothing goes on with it any more."""
        self._forget_intent(vm)
        vm.end_console()
        vm.status, vm.cause, vm.incarnation, vm.started_s = status, cause, None, None
        vm.shutting_down = False
        if not vm.config.persistent and vm.node.vms.get(vm.id) is vm:
            del vm.node.vms[vm.id]
        self.tell_state(vm)

    def _disk_error(self, vm: SimVm) -> None:
        if vm.status is VmStatus.RUNNING and vm.guest.disk_full:
            self.find_no_room(vm)

    def find_no_room(self, vm: SimVm) -> None:
        """A VM stops, as there is no room for what it writes. As libvirt does, the reason is told first."""
        disk = next((disk.source for disk in vm.config.disks if disk.device == "disk"), "")
        at_s, node = self.clock.now_s(), vm.node.id
        failed = VmDiskFailed(at_s=at_s, node=node, vm=vm.id, disk=disk, text="enospc", stopped=True)
        self._tell(vm.node, failed)
        self.set_state(vm, VmStatus.PAUSED, StatusCause.IO_ERROR)

    def _intend(self, vm: SimVm, *, restart: bool) -> None:
        """The guest was asked, and will act in its own time."""
        if vm.intent is not None:
            return  # asked again: it is at it already

        def act() -> None:
            guest = intent.vm
            if guest.status is not VmStatus.RUNNING:
                return  # paused: `set_state` comes back to it
            if restart:
                self._rebooted(guest)
            elif not guest.shutting_down:
                guest.shutting_down, guest.cause = True, StatusCause.SHUTTING_DOWN
                self.tell_state(guest)
                intent.timer = self.after(_POWERING_OFF_S, act)
            else:
                self.kill(guest, VmStatus.OFF, StatusCause.SHUT_DOWN)

        intent = Intent(vm, act, self.after(vm.guest.shutdown_s, act))
        vm.intent = intent

    def _forget_intent(self, vm: SimVm) -> None:
        if vm.intent is not None:
            vm.intent.timer.cancel()
            vm.intent = None

    def _rebooted(self, vm: SimVm) -> None:
        self._forget_intent(vm)
        vm.started_s = self.clock.now_s()
        vm.shutting_down = False
        self._tell(vm.node, VmRebooted(at_s=self.clock.now_s(), node=vm.node.id, vm=vm.id))

    # --- definitions ----------------------------------------------------------------------

    def redefine(self, vm: SimVm, config: VmConfig | None = None, name: str | None = None) -> None:
        """Change a VM's definition or name."""
        vm.config = config or vm.config
        vm.name = name or vm.name
        vm.revision += 1
        self.tell_definition(vm)

    def write_settings(self, vm: SimVm, settings: VmSettings) -> None:
        """Store our settings in a VM's metadata; what others keep there stays."""
        self.redefine(vm, replace(vm.config, settings=settings))

    def set_autostart(self, vm: SimVm) -> None:
        """Start a VM whenever its host starts. libvirt sends no event for it."""
        vm.config = replace(vm.config, autostart=True)

    def undefine(self, vm: SimVm) -> None:
        """Drop a VM's definition; one that runs goes on as a transient one and is gone when it stops."""
        if vm.runs:
            vm.config = replace(vm.config, persistent=False)
        else:
            del vm.node.vms[vm.id]
        self.tell_undefined(vm)

    def copy_definition(self, vm: SimVm, target: SimNode, *, autostart: bool) -> None:
        """Define a VM that is off on another node too. Raises `OperationError` if it is refused."""
        invalid = "Requested operation is not valid: "
        if vm.runs:
            text = f"{invalid}domain is already running"
            raise self._refusal(vm, FailureCode.WRONG_STATE, text)
        if vm.status is VmStatus.SAVED:
            text = "it is saved here, and its memory would stay behind"
            raise self._refusal(vm, FailureCode.WRONG_STATE, text)
        if vm.config.snapshots:
            text = f"{invalid}cannot migrate domain with {vm.config.snapshots} snapshots"
            raise self._refusal(vm, FailureCode.WRONG_STATE, text)
        self.need_no_checkpoints(vm)
        if target is vm.node:
            text = f"internal error: Attempt to migrate guest to the same host {target.host_uuid}"
            raise self._refusal(vm, FailureCode.OTHER, text)
        self.check_place(vm, target)
        target.vms[vm.id] = copy = replace(
            vm,
            node=target,
            config=replace(vm.config, autostart=autostart),
            status=VmStatus.OFF,
            cause=StatusCause.NONE,
            incarnation=None,
            started_s=None,
            job=None,
            disk_job=None,
            intent=None,
        )
        self.tell_definition(copy)

    def forget_definition(self, vm: SimVm) -> None:
        """Undefine a VM that is off. Raises `OperationError(WRONG_STATE)` if it is not, or is saved."""
        invalid = "Requested operation is not valid: "
        if vm.runs:
            raise self._refusal(vm, FailureCode.WRONG_STATE, f"{invalid}it is {vm.status.value.lower()}")
        if vm.status is VmStatus.SAVED:
            text = f"{invalid}Refusing to undefine while domain managed save image exists"
            raise self._refusal(vm, FailureCode.WRONG_STATE, text)
        if vm.config.snapshots:
            text = f"{invalid}cannot delete inactive domain with {vm.config.snapshots} snapshots"
            raise self._refusal(vm, FailureCode.WRONG_STATE, text)
        self.need_no_checkpoints(vm)
        self.undefine(vm)

    def need_no_checkpoints(self, vm: SimVm) -> None:
        """Raises `OperationError(UNSAFE)` if a VM has checkpoints: no kind of move carries them."""
        if vm.config.checkpoints:
            text = f"it has {vm.config.checkpoints} checkpoint(s), which would be lost"
            raise self._refusal(vm, FailureCode.UNSAFE, text)

    def check_place(self, vm: SimVm, target: SimNode) -> None:
        """Raises `OperationError(CONFLICT)` if a node has something else under a VM's name or UUID."""
        there = target.vms.get(vm.id)
        namesake = any(other.name == vm.name and other.id != vm.id for other in target.vms.values())
        if namesake or (there is not None and (there.runs or there.job or there.name != vm.name)):
            text = f"operation failed: domain '{vm.name}' already exists or is already active"
            raise refused(FailureCode.CONFLICT, text, node=target.id, vm=vm.id)

    def remove(self, vm: SimVm) -> None:
        """Take a VM away without a word."""
        self._break_jobs(vm)
        self._forget_intent(vm)
        del vm.node.vms[vm.id]

    # --- hosts ----------------------------------------------------------------------------

    def set_reach(self, node: SimNode, reach: Reach) -> None:
        """A host ceases to answer, or answers again; its VMs go on."""
        node.reach = reach
        self.moves.reach_changed(node)
        for observer in tuple(self._observers):
            observer.reach_changed(node)

    def cut_connections(self, node: SimNode) -> None:
        """A host ends all connections to it, and answers new ones; moves between hosts go on."""
        for observer in tuple(self._observers):
            observer.connection_cut(node)

    def power_off(self, node: SimNode, *, told: bool = False) -> None:
        """A host dies with all its VMs. `told`: connections end at once, else only keep-alive notices."""
        node.reach = Reach.REFUSES if told else Reach.SILENT
        node.held_event = None
        self.moves.node_died(node)
        for vm in tuple(node.vms.values()):
            self._forget_intent(vm)
            for job in vm.jobs:
                if vm.cause is StatusCause.STARTING_UP and job.undo is not None:
                    job.undo()
                job.undo = None  # nobody clears up: half-written files stay
            self._break_jobs(vm)
            if vm.runs or vm.status is VmStatus.CRASHED:
                vm.status, vm.cause = VmStatus.OFF, StatusCause.NONE
                vm.incarnation, vm.started_s, vm.shutting_down = None, None, False
                if not vm.config.persistent:
                    del node.vms[vm.id]
        self.set_reach(node, node.reach)

    def power_on(self, node: SimNode) -> None:
        """A host comes back: its VMs are off, those with autostart start, and old connections are void."""
        self.cut_connections(node)
        self.set_reach(node, Reach.ANSWERS)
        for vm in tuple(node.vms.values()):
            if vm.config.autostart and not vm.runs and vm.job is None:
                try:
                    self.start(vm, _nobody_asked, restored=vm.status is VmStatus.SAVED)
                except OperationError:
                    continue  # no room, or it runs elsewhere: as on a real host, it stays off

    def check_login(self, source: SimNode, target: SimNode) -> None:
        """Raises `OperationError(PEER_LOGIN)` if one host cannot reach or log in to the other."""
        if target.reach is Reach.REFUSES:
            text = f"unable to connect to server at '{target.id}:22': Connection refused"
        elif target.reach is not Reach.ANSWERS:
            text = f"unable to connect to server at '{target.id}:22': No route to host"
        elif (source.id, target.id) in self.broken_logins or target.refuses_login:
            text = f"Cannot recv data: root@{target.id}: Permission denied (publickey)."
        else:
            return
        raise refused(FailureCode.PEER_LOGIN, text, node=source.id)


def _capacity(link: Link) -> float:
    way, node = link
    if way is Way.DISK:
        return node.disk_bytes_per_s
    return 0.0 if node.reach is Reach.SILENT else node.link_bytes_per_s

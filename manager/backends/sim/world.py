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
from dataclasses import replace
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
    refused,
)
from manager.backends.sim.moves import Moves
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    ForeignJobSeen,
    SeenVm,
    VmDefinitionChanged,
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
from manager.core.units import MIB
from manager.services.ports import Clock

_POWERING_OFF_S = 0.3  # between a guest's "I am off" and the end of its process
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
        self.moves = Moves(self)
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

    def tell_job(self, vm: SimVm, *, active: bool) -> None:
        """Send the event that says that a job runs on a VM, whoever asked for it, or is over.

        Source: libvirt's migration-iteration and job-completed events; a job that fails has none.
        """
        self._tell(vm.node, ForeignJobSeen(at_s=self.clock.now_s(), node=vm.node.id, vm=vm.id, active=active))

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

    def loads(self, node: SimNode, measured_since_s: float | None) -> tuple[NodeLoad, dict[VmId, VmLoad]]:
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

    def begin_job(self, vm: SimVm, job: Job, seconds: float, finish: Callable[[], None]) -> None:
        """Occupy a VM; `finish` comes after that long unless the job ends before."""
        vm.job = job
        job.timer = self.after(seconds, finish)

    def end_job(self, vm: SimVm, failure: Failure | None = None) -> None:
        """Free a VM and say how its job ended."""
        job, vm.job = vm.job, None
        if job is None:
            return
        if job.timer is not None:
            job.timer.cancel()
        job.done(failure)
        for go_on in job.waiting:
            go_on()

    def _break_job(self, vm: SimVm) -> None:
        """The VM's process ends under its job."""
        if vm.job is None:
            return
        if vm.job.move is not None:
            self.moves.guest_lost(vm.job.move, vm)
        else:
            self.end_job(vm, self._refusal(vm, FailureCode.WRONG_STATE, NOT_RUNNING).failure)

    def abort_job(self, vm: SimVm) -> None:
        """Cancel a VM's move or save, if there is one.

        Raises `OperationError(WRONG_STATE)` if it cannot be cancelled any more.
        """
        if vm.job is not None and vm.job.move is not None:
            self.moves.abort(vm.job.move)
        elif vm.job is not None and vm.runs:
            self.end_job(
                vm,
                self._refusal(
                    vm, FailureCode.CANCELLED, "operation aborted: domain save job: canceled by client"
                ).failure,
            )
            self.set_state(vm, VmStatus.RUNNING, StatusCause.NONE)

    # --- changes of state -----------------------------------------------------------------

    def change(self, node: SimNode, vm_id: VmId, change: VmChange, done: Done) -> None:
        """Begin a change of state. `done` may be called at once; raises `OperationError` if it is refused."""
        vm = self.find(node, vm_id)
        if vm.status in _ALREADY.get(change, ()):
            raise self._refusal(vm, FailureCode.ALREADY, f"it is {vm.status.value.lower()}")
        match change:
            case VmChange.START:
                self._start(vm, done)
                return
            case VmChange.SAVE:
                self._save(vm, done)
                return
            case VmChange.SHUT_DOWN | VmChange.RESTART:
                self._need_running(vm)
                if vm.status is VmStatus.RUNNING and vm.guest.obeys:
                    self._intend(vm, restart=change is VmChange.RESTART)
            case VmChange.SHUT_DOWN_AGENT:
                self._need_running(vm)
                if vm.read().agent is not AgentState.CONNECTED:
                    raise self._refusal(
                        vm,
                        FailureCode.NO_AGENT,
                        "Guest agent is not responding: QEMU guest agent is not connected",
                    )
                self._intend(vm, restart=False)
            case VmChange.TURN_OFF:
                self._need_running(vm)
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
                self._need_running(vm)
                self.set_state(vm, VmStatus.PAUSED, StatusCause.USER)
            case VmChange.RESUME:
                self._need_running(vm)
                self.set_state(vm, VmStatus.RUNNING, StatusCause.USER)
            case VmChange.RESET:
                self._need_running(vm)
                self._rebooted(vm)
        done(None)

    def _refusal(self, vm: SimVm, code: FailureCode, text: str) -> OperationError:
        return refused(code, text, node=vm.node.id, vm=vm.id)

    def _need_running(self, vm: SimVm) -> None:
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

    def _start(self, vm: SimVm, done: Done) -> None:
        if any(
            disk.device == "disk" and disk.source and not disk.shareable for disk in vm.config.disks
        ) and any(copy.runs for copy in self.copies(vm.id)):
            raise self._refusal(
                vm,
                FailureCode.OTHER,
                'internal error: qemu: Failed to get "write" lock: Is another process using the image '
                f"[{vm.config.disks[0].source}]?",
            )
        self.need_room(vm, vm.node)
        restored = vm.status is VmStatus.SAVED
        seconds = self._memory_on_disk_s(vm) + 0.5 if restored else vm.guest.boot_s

        def finish() -> None:
            vm.incarnation = self.next_incarnation(vm.node)
            vm.started_s = self.clock.now_s()
            vm.here_since_s = self.time_s
            cause = StatusCause.RESTORED if restored else StatusCause.BOOTED
            self.set_state(vm, VmStatus.RUNNING, cause)
            self.end_job(vm)

        self.begin_job(vm, Job("remoteDispatchDomainCreateWithFlags", done), seconds, finish)

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

    def _memory_on_disk_s(self, vm: SimVm) -> float:
        return vm.config.memory_mib * MIB * vm.guest.touched / vm.node.disk_bytes_per_s

    def _save(self, vm: SimVm, done: Done) -> None:
        self._need_running(vm)
        if vm.config.host_devices:
            raise self._refusal(
                vm,
                FailureCode.WRONG_STATE,
                "Requested operation is not valid: domain has assigned non-USB host devices",
            )
        seconds = self._memory_on_disk_s(vm)
        self.set_state(vm, VmStatus.PAUSED, StatusCause.SAVING)

        def finish() -> None:
            self._stop(vm, VmStatus.SAVED, StatusCause.SAVED)
            self.tell_job(vm, active=False)
            self.end_job(vm)

        self.begin_job(vm, Job("remoteDispatchDomainManagedSave", done), seconds, finish)

    def kill(self, vm: SimVm, status: VmStatus, cause: StatusCause) -> None:
        """End a VM's process, whatever goes on with it."""
        self._break_job(vm)
        self._stop(vm, status, cause)

    def _stop(self, vm: SimVm, status: VmStatus, cause: StatusCause) -> None:
        self._forget_intent(vm)
        vm.status, vm.cause, vm.incarnation, vm.started_s = status, cause, None, None
        vm.shutting_down = False
        if not vm.config.persistent and vm.node.vms.get(vm.id) is vm:
            del vm.node.vms[vm.id]
        self.tell_state(vm)

    def _disk_error(self, vm: SimVm) -> None:
        if vm.status is VmStatus.RUNNING and vm.guest.disk_full:
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
            self._break_job(vm)
            del vm.node.vms[vm.id]
        self.tell_undefined(vm)

    def remove(self, vm: SimVm) -> None:
        """Take a VM away without a word."""
        self._break_job(vm)
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
            self._break_job(vm)
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
                    self._start(vm, _nobody_asked)
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

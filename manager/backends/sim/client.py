"""A program's connections to simulated hosts: calls go there, answers and events come back, or not."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from manager.backends.sim.closeups import SimConsole
from manager.backends.sim.hosts import Done, Job, Reach, SimNode, SimVm, Timer, refused
from manager.backends.sim.moves import NO_ROUTE_S, Move, Phase
from manager.backends.sim.world import CallFault, SimWorld
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import Event, ForeignJobSeen, NodeLost
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import NodeConfig, NodeFacts, NumaCell
from manager.services.ports import Feature

T = TypeVar("T")

CONNECT_S = 12.0
"""How long a host may take to let us in."""

READ_S = 10.0
"""How long a read may take."""

KEEP_ALIVE_S = 8.0
"""How long a host may be silent before its connections are given up. Source: measured, setKeepAlive(2, 3)."""

LOCK_S = 30.0
"""How long a change waits for another job on the VM. Source: measured, libvirt 9.0's state change lock."""


@dataclass(slots=True, eq=False, repr=False)
class Connection:
    """A connection to one host, and everything that waits for an answer over it."""

    node: SimNode
    is_open: bool = False
    sampled_s: float | None = None
    waiting: set[asyncio.Future[Any]] = field(default_factory=set)
    held: deque[Callable[[], None]] = field(default_factory=deque)  # on its way while the host is silent
    foreign: set[VmId] = field(default_factory=set)  # VMs of which a job was told that is not ours
    keep_alive: Timer | None = None
    consoles: list[SimConsole] = field(default_factory=list)


class SimConnections:
    """A program's view of a simulated world; several may share one. Loop thread only.

    All waiting is for entries of the world's agenda, which one task lets happen in time; when nothing is to
    happen there is no task and no timer.
    """

    def __init__(self, world: SimWorld, *, read_only: bool = False) -> None:
        self._world = world
        self._clock = world.clock
        self._read_only = read_only
        self._connections: dict[NodeId, Connection] = {}
        self._working: dict[VmId, OperationId] = {}  # jobs that we began
        self._cancelled: set[OperationId] = set()
        self._changing: Counter[VmId] = Counter()  # calls of ours that have not come back
        self._through_here: set[Move] = set()  # moves that end with this program
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._closed = False
        self._pump: asyncio.Task[None] | None = None
        self._pump_due_s = math.inf
        world.observe(self)

    # --- connections ----------------------------------------------------------------------

    async def connect(self, node: NodeConfig) -> NodeFacts:
        """Open the connection and read the facts; see the port."""
        sim = self._world.nodes.get(node.name)
        if self._closed or sim is None:
            raise refused(FailureCode.UNREACHABLE, f"unable to resolve host '{node.name}'", node=node.name)
        self._drop(sim.id, "replaced by a new connection")
        self.agenda_changed()
        connection = self._connections[sim.id] = Connection(sim)
        try:
            await self._pause(connection, sim.connect_s + sim.delay_s)
            if self._hangs(sim, "connect") is not None:
                await self._wait(connection, self._future(), CONNECT_S)
            if sim.reach is Reach.SILENT:
                await self._pause(connection, NO_ROUTE_S)
                raise refused(
                    FailureCode.UNREACHABLE, f"unable to connect to '{sim.id}': No route to host", node=sim.id
                )
            await self._answering(connection, CONNECT_S)
            if sim.reach is not Reach.ANSWERS:
                raise refused(
                    FailureCode.UNREACHABLE,
                    f"unable to connect to '{sim.id}': Connection refused",
                    node=sim.id,
                )
            if sim.refuses_login:
                raise refused(FailureCode.LOGIN, "authentication failed: permission denied", node=sim.id)
            if sim.incompatible:
                raise refused(FailureCode.INCOMPATIBLE, sim.incompatible, node=sim.id)
            if self._connections.get(sim.id) is not connection:
                raise refused(FailureCode.UNREACHABLE, "disconnected", node=sim.id)
        except BaseException:
            if self._connections.get(sim.id) is connection:
                del self._connections[sim.id]
            raise
        connection.is_open = True
        return NodeFacts(
            hostname=sim.id,
            host_uuid=sim.host_uuid,
            cpus=sim.cpus,
            memory_mib=sim.memory_mib,
            cpu_model=sim.cpu_model,
            cpu_mhz=sim.cpu_mhz,
            libvirt_version=sim.libvirt_version,
            hypervisor="QEMU",
            hypervisor_version=sim.hypervisor_version,
            cells=tuple(
                NumaCell(id=at, cpus=sim.cpus // sim.numa_cells, memory_mib=sim.memory_mib // sim.numa_cells)
                for at in range(sim.numa_cells)
            ),
            read_only=self._read_only,
            encrypted=True,
            features=frozenset(Feature) - (set() if sim.post_copy else {Feature.POST_COPY}),
        )

    async def disconnect(self, node: NodeId) -> None:
        """Drop a node's connection; what waits on it fails."""
        self._drop(node, "disconnected")

    async def close(self) -> None:
        """Drop everything at once. The world goes on; moves through this computer end."""
        if self._closed:
            return
        self._closed = True
        for node in tuple(self._connections):
            self._drop(node, "closed")
        self._world.forget(self)
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[Event]:
        """Events of all connected nodes; ends after `close`. One consumer."""
        while (event := await self._events.get()) is not None:
            yield event

    def _drop(self, node: NodeId, why: str) -> None:
        connection = self._connections.pop(node, None)
        if connection is None:
            return
        if connection.keep_alive is not None:
            connection.keep_alive.cancel()
        connection.is_open = False
        connection.held.clear()
        for console in connection.consoles:
            console.end(why)
        failure = Failure(code=FailureCode.UNREACHABLE, text=f"connection closed: {why}", node=node)
        for future in tuple(connection.waiting):
            if not future.done():
                future.set_exception(OperationError(failure))
        for move in tuple(self._through_here):
            if connection.node in (move.source.node, move.target):
                self._end_with_us(move)

    def _end_with_us(self, move: Move) -> None:
        """A move through this computer loses it."""
        self._through_here.discard(move)
        if move.phase is not Phase.OVER:
            self._world.moves.peer_lost(move)

    def _lose(self, connection: Connection, why: str) -> None:
        """The connection ended by itself: everybody who waits on it hears of it, and so does the program."""
        node = connection.node.id
        if self._connections.get(node) is not connection:
            return
        was_open = connection.is_open
        self._drop(node, why)
        if was_open:
            failure = Failure(code=FailureCode.UNREACHABLE, text=f"connection closed: {why}", node=node)
            self._events.put_nowait(NodeLost(at_s=self._clock.now_s(), node=node, failure=failure))

    # --- the world's observer -------------------------------------------------------------

    def saw(self, node: NodeId, event: Event) -> None:
        """An event left a host."""
        connection = self._connections.get(node)
        if connection is None or not connection.is_open:
            return
        if isinstance(event, ForeignJobSeen):
            if not event.active or (event.vm not in self._working and event.vm not in self._changing):
                self._tell_job(connection, event)
            return
        self._deliver(connection, lambda: self._events.put_nowait(event))

    def _tell_job(self, connection: Connection, event: ForeignJobSeen) -> None:
        """Tell the first sign of a job that is not ours, and its end."""
        if event.active != (event.vm in connection.foreign):
            (connection.foreign.add if event.active else connection.foreign.discard)(event.vm)
            self._deliver(connection, lambda: self._events.put_nowait(event))

    def reach_changed(self, node: SimNode) -> None:
        """A host began or ceased to answer."""
        connection = self._connections.get(node.id)
        if connection is None:
            return
        if node.reach is Reach.REFUSES:
            self._lose(connection, "end of file while reading data")
        elif node.reach is Reach.ANSWERS:
            if connection.keep_alive is not None:
                connection.keep_alive.cancel()
            while connection.held:
                connection.held.popleft()()
        elif connection.is_open:
            connection.keep_alive = self._world.after(KEEP_ALIVE_S, lambda: self._given_up(connection))

    def connection_cut(self, node: SimNode) -> None:
        """The host ended its connections."""
        connection = self._connections.get(node.id)
        if connection is not None:
            self._lose(connection, "end of file while reading data")

    def agenda_changed(self) -> None:
        """The next thing that will happen may now come earlier."""
        due_s = self._world.next_due_s
        if self._closed or due_s >= self._pump_due_s:
            return
        if self._pump is not None:
            self._pump.cancel()
        self._pump_due_s = due_s
        self._pump = asyncio.get_running_loop().create_task(self._run_agenda(), name="sim agenda")

    async def _run_agenda(self) -> None:
        """Let things happen in time, until nothing more will."""
        try:
            while (due_s := self._world.next_due_s) < math.inf:
                self._pump_due_s = due_s
                await self._clock.sleep(due_s - self._clock.monotonic_s())
                self._pump_due_s = -math.inf  # what is planned from here on, the loop itself sees
                self._world.catch_up()
        finally:
            if self._pump is asyncio.current_task():
                self._pump, self._pump_due_s = None, math.inf

    def _given_up(self, connection: Connection) -> None:
        if connection.node.reach is not Reach.ANSWERS:
            self._lose(connection, "keepalive timeout")

    # --- calls ----------------------------------------------------------------------------

    @staticmethod
    def _future() -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def _deliver(self, connection: Connection, arrival: Callable[[], None]) -> None:
        """Something comes over the connection, now or when the host is heard again."""
        if connection.node.reach is Reach.ANSWERS:
            arrival()
        else:
            connection.held.append(arrival)

    async def _wait(
        self,
        connection: Connection,
        answer: asyncio.Future[T],
        deadline_s: float | None,
        late: Failure | None = None,
    ) -> T:
        """Wait for an answer over a connection. After the deadline the call is given up."""
        node = connection.node.id

        def give_up() -> None:
            if not answer.done():
                text = f"no answer within {deadline_s:.0f} s"
                failure = late or Failure(code=FailureCode.TIMEOUT, text=text, node=node)
                answer.set_exception(OperationError(failure))

        connection.waiting.add(answer)
        timer = self._world.after(deadline_s, give_up) if deadline_s is not None else None
        try:
            return await answer
        finally:
            connection.waiting.discard(answer)
            if timer is not None:
                timer.cancel()

    async def _pause(self, connection: Connection, seconds: float) -> None:
        """Time passes on the way; at least one turn of the loop, so that a sweep of calls lets others run."""
        if seconds <= 0:
            await self._clock.sleep(0)
            return
        over = self._future()
        timer = self._world.after(seconds, lambda: resolve(over, None))
        try:
            await self._wait(connection, over, None)
        finally:
            timer.cancel()

    async def _answering(self, connection: Connection, deadline_s: float | None) -> None:
        """Wait until the host answers or refuses."""
        if connection.node.reach in (Reach.SILENT, Reach.FROZEN):
            heard = self._future()
            self._deliver(connection, lambda: resolve(heard, None))
            await self._wait(connection, heard, deadline_s)

    def _hangs(self, node: SimNode, call: str) -> bool | None:
        """Whether this call hangs: None if not, else whether the host acts on it all the same."""
        planned = node.hangs.get(call)
        return planned.pop(0) if planned else None

    async def _ask(
        self,
        node: NodeId,
        call: str,
        work: Callable[[SimNode, Connection], T],
        deadline_s: float | None = READ_S,
        *,
        vm: VmId | None = None,
        needs_lock: bool = False,
        begins_job: bool = False,
    ) -> T:
        """Carry a call to a host and its answer back, through everything that may be wrong on the way.

        Another job on the VM is waited for (`needs_lock`), or refused at once if one is to begin.
        """
        connection = self._connected(node, vm)
        sim = connection.node
        self._world.catch_up()
        await self._pause(connection, sim.delay_s)
        hang = self._hangs(sim, call)
        await self._answering(connection, deadline_s)
        if not connection.is_open:
            raise refused(FailureCode.UNREACHABLE, "connection closed", node=node, vm=vm)
        if hang is False:
            await self._wait(connection, self._future(), deadline_s)
        self._world.catch_up()
        fault = self._world.next_call_fault(call, node, vm, changes=needs_lock)
        if fault is not None and fault.after_s is None:
            raise OperationError(replace(fault.failure, node=node, vm=vm))
        if begins_job and vm is not None:
            self._refuse_busy(connection, vm, call)
        if needs_lock and vm is not None:
            await self._lock(connection, vm)
        before = self._jobs(sim, vm)
        result = work(sim, connection)
        if fault is not None:
            for job in self._jobs(sim, vm):
                if job not in before:
                    self._break_later(self._world.find(sim, vm or VmId("")), job, fault)
        if hang:
            await self._wait(connection, self._future(), deadline_s)
        return result

    def _refuse_busy(self, connection: Connection, vm: VmId, call: str) -> None:
        """Say at once whose work is in the way, as `LibvirtHypervisor` does."""
        node = connection.node
        for job in self._jobs(node, vm):
            if job.may_be_aborted and not (job.unattended and call == "copy_disks"):
                found = self._world.find(node, vm)
                self._tell_job(connection, self._world.job_event(found, job, active=True))
                text = f"a job runs on it already: {job.kind}"
                raise refused(FailureCode.BUSY, text, node=node.id, vm=vm)

    def _look_for_jobs(self, connection: Connection) -> None:
        """Tell the jobs of others that run, and the ends of those that were told and run no more."""
        for vm in connection.node.vms.values():
            told = vm.id in connection.foreign
            job = next((job for job in vm.jobs if job.may_be_aborted and _is_here(job, vm)), None)
            if job is not None and not told:
                self.saw(connection.node.id, self._world.job_event(vm, job, active=True))
            elif job is None and told:
                over = ForeignJobSeen(
                    at_s=self._clock.now_s(), node=connection.node.id, vm=vm.id, active=False
                )
                self.saw(connection.node.id, over)

    @staticmethod
    def _jobs(node: SimNode, vm: VmId | None) -> tuple[Job, ...]:
        found = node.vms.get(vm) if vm is not None else None
        return found.jobs if found is not None else ()

    def _break_later(self, vm: SimVm, job: Job, fault: CallFault) -> None:
        self._world.after(fault.after_s or 0.0, lambda: self._world.break_off(vm, job, fault.failure))

    def _connected(self, node: NodeId, vm: VmId | None = None) -> Connection:
        connection = self._connections.get(node)
        if connection is None or not connection.is_open:
            raise refused(FailureCode.UNREACHABLE, "not connected", node=node, vm=vm)
        return connection

    async def _lock(self, connection: Connection, vm: VmId) -> None:
        """Wait for the end of another job on the VM, as libvirt does."""
        sim = self._world.find(connection.node, vm)
        while sim.job is not None:
            free = self._future()
            sim.job.waiting.append(partial(resolve, free, None))
            late = Failure(
                code=FailureCode.BUSY,
                text="Timed out during operation: cannot acquire state change lock (held by "
                f"monitor={sim.job.what})",
                node=connection.node.id,
                vm=vm,
            )
            await self._wait(connection, free, LOCK_S, late)
            sim = self._world.find(connection.node, vm)

    def _reply(self, connection: Connection, answer: asyncio.Future[None]) -> Done:
        """The `Done` that brings the end of something long back over the connection."""
        return lambda failure: self._deliver(connection, lambda: resolve(answer, failure))

    def _writable(self, node: NodeId, vm: VmId | None) -> None:
        if self._read_only:
            text = "operation forbidden: read only access prevents this"
            raise refused(FailureCode.DENIED, text, node=node, vm=vm)


def _is_here(job: Job, vm: SimVm) -> bool:
    """Whether this node has a job, and not only the target's half of a move."""
    return job.move is None or job.move.source is vm


def resolve(answer: asyncio.Future[None], failure: Failure | None) -> None:
    """Bring an answer, if somebody still waits for it."""
    if answer.done():
        return
    if failure is None:
        answer.set_result(None)
    else:
        answer.set_exception(OperationError(failure))

"""The `Hypervisor` port on a simulated world: connections, deadlines, answers, events, as from real hosts."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from manager.backends.sim.hosts import Done, Reach, SimNode, Timer, refused
from manager.backends.sim.moves import Move, Phase
from manager.backends.sim.world import SimWorld
from manager.core.effects import (
    LONG_CHANGES,
    AbortMigration,
    ChangeVm,
    CheckPeerLogin,
    StartMigration,
    VmChange,
    WriteVmSettings,
)
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    ForeignJobSeen,
    MigrationProgress,
    NodeInventoryRead,
    NodeLost,
    NodeSampled,
    VmConfigRead,
)
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import NodeConfig, NodeFacts, PeerRoute
from manager.services.ports import Feature

T = TypeVar("T")

CONNECT_S = 12.0
"""How long a host may take to let us in."""

READ_S = 10.0
"""How long a read may take."""

CHANGE_S = 60.0
"""How long a quick change may take: a VM that is busy is waited for up to 30 s."""

LONG_S = 3600.0
"""How long a start or a save may take."""

KEEP_ALIVE_S = 8.0
"""How long a host may be silent before its connections are given up. Source: measured, setKeepAlive(2, 3)."""

LOCK_S = 30.0
"""How long a change waits for another job on the VM. Source: measured, libvirt 9.0's state change lock."""

NO_ROUTE_S = 3.1
"""How long the network takes to say that nobody is there. Source: measured, ARP failure."""

_DURING_A_MOVE = frozenset({VmChange.TURN_OFF, VmChange.PAUSE})  # the rest waits for the lock


@dataclass(slots=True, eq=False)
class _Connection:
    """A connection to one host, and everything that waits for an answer over it."""

    node: SimNode
    is_open: bool = False
    sampled_s: float | None = None
    waiting: set[asyncio.Future[Any]] = field(default_factory=set)
    held: deque[Callable[[], None]] = field(default_factory=deque)  # on its way while the host is silent
    foreign: set[VmId] = field(default_factory=set)  # VMs of which a job was told that is not ours
    keep_alive: Timer | None = None


class SimHypervisor:
    """A program's view of a simulated world; several may share one. Loop thread only.

    All waiting is for entries of the world's agenda, which one task lets happen in time; when nothing is to
    happen there is no task and no timer.
    """

    def __init__(self, world: SimWorld, *, read_only: bool = False) -> None:
        self._world = world
        self._clock = world.clock
        self._read_only = read_only
        self._connections: dict[NodeId, _Connection] = {}
        self._moving: dict[VmId, OperationId] = {}
        self._cancelled: set[OperationId] = set()
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
        connection = self._connections[sim.id] = _Connection(sim)
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
            numa_cells=sim.numa_cells,
            read_only=self._read_only,
            encrypted=True,
            features=frozenset(Feature),
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

    def _lose(self, connection: _Connection, why: str) -> None:
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
            # One event for the first iteration of a job that we did not start, one for its end.
            if event.vm in self._moving or event.active == (event.vm in connection.foreign):
                return
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

    def _given_up(self, connection: _Connection) -> None:
        if connection.node.reach is not Reach.ANSWERS:
            self._lose(connection, "keepalive timeout")

    # --- calls ----------------------------------------------------------------------------

    @staticmethod
    def _future() -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def _deliver(self, connection: _Connection, arrival: Callable[[], None]) -> None:
        """Something comes over the connection, now or when the host is heard again."""
        if connection.node.reach is Reach.ANSWERS:
            arrival()
        else:
            connection.held.append(arrival)

    async def _wait(
        self,
        connection: _Connection,
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

    async def _pause(self, connection: _Connection, seconds: float) -> None:
        """Time passes on the way; at least one turn of the loop, so that a sweep of calls lets others run."""
        if seconds <= 0:
            await self._clock.sleep(0)
            return
        over = self._future()
        timer = self._world.after(seconds, lambda: _resolve(over, None))
        try:
            await self._wait(connection, over, None)
        finally:
            timer.cancel()

    async def _answering(self, connection: _Connection, deadline_s: float | None) -> None:
        """Wait until the host answers or refuses."""
        if connection.node.reach in (Reach.SILENT, Reach.FROZEN):
            heard = self._future()
            self._deliver(connection, lambda: _resolve(heard, None))
            await self._wait(connection, heard, deadline_s)

    def _hangs(self, node: SimNode, call: str) -> bool | None:
        """Whether this call hangs: None if not, else whether the host acts on it all the same."""
        planned = node.hangs.get(call)
        return planned.pop(0) if planned else None

    async def _ask(
        self,
        node: NodeId,
        call: str,
        work: Callable[[SimNode, _Connection], T],
        deadline_s: float | None = READ_S,
        *,
        vm: VmId | None = None,
        needs_lock: bool = False,
    ) -> T:
        """Carry a call to a host and its answer back, through everything that may be wrong on the way."""
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
        if needs_lock and vm is not None:
            await self._lock(connection, vm)
        result = work(sim, connection)
        if hang:
            await self._wait(connection, self._future(), deadline_s)
        return result

    def _connected(self, node: NodeId, vm: VmId | None = None) -> _Connection:
        connection = self._connections.get(node)
        if connection is None or not connection.is_open:
            raise refused(FailureCode.UNREACHABLE, "not connected", node=node, vm=vm)
        return connection

    async def _lock(self, connection: _Connection, vm: VmId) -> None:
        """Wait for the end of another job on the VM, as libvirt does."""
        sim = self._world.find(connection.node, vm)
        while sim.job is not None:
            free = self._future()
            sim.job.waiting.append(partial(_resolve, free, None))
            late = Failure(
                code=FailureCode.BUSY,
                text="Timed out during operation: cannot acquire state change lock (held by "
                f"monitor={sim.job.what})",
                node=connection.node.id,
                vm=vm,
            )
            await self._wait(connection, free, LOCK_S, late)
            sim = self._world.find(connection.node, vm)

    def _reply(self, connection: _Connection, answer: asyncio.Future[None]) -> Done:
        """The `Done` that brings the end of something long back over the connection."""
        return lambda failure: self._deliver(connection, lambda: _resolve(answer, failure))

    def _writable(self, node: NodeId, vm: VmId) -> None:
        if self._read_only:
            text = "operation forbidden: read only access prevents this"
            raise refused(FailureCode.DENIED, text, node=node, vm=vm)

    # --- reading --------------------------------------------------------------------------

    async def read_inventory(self, node: NodeId) -> NodeInventoryRead:
        """All VMs of a node."""
        started_s = self._clock.now_s()
        vms = await self._watch(node, "read_inventory", self._world.inventory)
        return NodeInventoryRead(at_s=self._clock.now_s(), node=node, started_s=started_s, vms=vms)

    async def read_vm(self, node: NodeId, vm: VmId) -> VmConfigRead:
        """One VM's definition."""
        config = await self._watch(node, "read_vm", lambda sim: self._world.find(sim, vm).read(), vm)
        return VmConfigRead(at_s=self._clock.now_s(), node=node, vm=vm, config=config)

    async def _watch(
        self, node: NodeId, call: str, work: Callable[[SimNode], T], vm: VmId | None = None
    ) -> T:
        """A call that every host must answer: one that does not is lost."""
        connection = self._connected(node, vm)
        try:
            return await self._ask(node, call, lambda sim, _: work(sim), vm=vm)
        except OperationError as error:
            if error.failure.code is FailureCode.TIMEOUT:
                self._lose(connection, error.failure.text)
            raise

    async def sample(self, node: NodeId) -> NodeSampled:
        """Loads of a node and its VMs; CPU figures from the second sample of a connection on."""

        def measure(sim: SimNode, connection: _Connection) -> NodeSampled:
            load, vms = self._world.loads(sim, connection.sampled_s)
            connection.sampled_s = self._world.time_s
            return NodeSampled(at_s=self._clock.now_s(), node=node, load=load, vms=vms)

        return await self._ask(node, "sample", measure)

    async def job_progress(
        self, node: NodeId, vm: VmId, operation: OperationId, attempt: int
    ) -> MigrationProgress | None:
        """A running move's figures; None when no move runs on the VM there."""

        def look(sim: SimNode, _: _Connection) -> MigrationProgress | None:
            found = sim.vms.get(vm)
            if found is None or found.job is None or found.job.move is None:
                return None
            move = self._world.moves.synced(found.job.move)
            prepared = move.phase is not Phase.PREPARING
            return MigrationProgress(
                at_s=self._clock.now_s(),
                operation=operation,
                attempt=attempt,
                elapsed_ms=int(1000 * (self._world.time_s - move.started_s)),
                total_bytes=math.ceil(move.total) if prepared else 0,
                processed_bytes=int(move.sent),
                remaining_bytes=math.ceil(move.left),
                rate_bytes_per_s=int(move.rate),
                dirty_bytes_per_s=int(move.dirty_rate),
                iteration=move.iteration,
                downtime_ms=move.pause_ms,
                post_copy=move.phase is Phase.POST_COPY,
            )

        return await self._ask(node, "job_progress", look, vm=vm)

    async def has_job(self, node: NodeId, vm: VmId) -> bool:
        """Whether a move or a save runs on the VM there."""

        def look(sim: SimNode, _: _Connection) -> bool:
            found = sim.vms.get(vm)
            return found is not None and found.runs and found.job is not None

        return await self._ask(node, "has_job", look, vm=vm)

    # --- changing -------------------------------------------------------------------------

    async def change_vm(self, effect: ChangeVm) -> None:
        """Change a VM's state; returns when the call does: a guest may still be shutting down."""
        self._writable(effect.node, effect.vm)
        deadline_s = LONG_S if effect.change in LONG_CHANGES else CHANGE_S
        answer = self._future()

        def begin(sim: SimNode, connection: _Connection) -> _Connection:
            self._world.change(sim, effect.vm, effect.change, self._reply(connection, answer))
            return connection

        connection = await self._ask(
            effect.node,
            "change_vm",
            begin,
            deadline_s,
            vm=effect.vm,
            needs_lock=effect.change not in _DURING_A_MOVE,
        )
        await self._wait(connection, answer, deadline_s)

    async def write_settings(self, effect: WriteVmSettings) -> None:
        """Write our settings; what others keep in the metadata stays."""
        self._writable(effect.node, effect.vm)

        def write(sim: SimNode, _: _Connection) -> None:
            self._world.write_settings(self._world.find(sim, effect.vm), effect.settings)

        await self._ask(effect.node, "write_settings", write, CHANGE_S, vm=effect.vm, needs_lock=True)

    async def migrate(self, effect: StartMigration) -> None:
        """Move a VM; returns at its end. Cancelling the caller leaves a node-to-node move running."""
        self._writable(effect.node, effect.vm)
        answer = self._future()
        through_here = effect.route is PeerRoute.THROUGH_THIS_COMPUTER

        def begin(sim: SimNode, connection: _Connection) -> tuple[_Connection, Move]:
            if effect.operation in self._cancelled:
                raise refused(FailureCode.CANCELLED, "cancelled before it began", node=sim.id, vm=effect.vm)
            vm, target = self._world.find(sim, effect.vm), self._connected(effect.target, effect.vm).node
            if not through_here:
                self._world.check_login(sim, target)
            move = self._world.moves.begin(
                vm,
                target,
                self._reply(connection, answer),
                bandwidth_mib_s=effect.bandwidth_mib_s,
                unsafe=effect.unsafe,
                convergence=effect.convergence,
            )
            if through_here:
                self._through_here.add(move)
            return connection, move

        self._moving[effect.vm] = effect.operation
        try:
            connection, move = await self._ask(
                effect.node, "migrate", begin, None, vm=effect.vm, needs_lock=True
            )
            try:
                await self._wait(connection, answer, None)
            finally:
                if through_here:
                    self._end_with_us(move)
        finally:
            self._cancelled.discard(effect.operation)
            if self._moving.get(effect.vm) == effect.operation:
                del self._moving[effect.vm]
        moved = self._world.nodes[effect.target].vms.get(effect.vm)
        if effect.autostart and moved is not None:
            self._world.set_autostart(moved)

    async def abort(self, effect: AbortMigration) -> None:
        """Cancel the VM's job, or the move that is about to begin; no job is success."""
        self._writable(effect.node, effect.vm)
        if self._moving.get(effect.vm) == effect.operation:
            self._cancelled.add(effect.operation)

        def cancel(sim: SimNode, _: _Connection) -> None:
            if effect.vm in sim.vms:
                self._world.abort_job(sim.vms[effect.vm])

        await self._ask(effect.node, "abort", cancel, vm=effect.vm)

    async def check_peer(self, effect: CheckPeerLogin) -> None:
        """Raises `OperationError(PEER_LOGIN)` if the source cannot log in to the target."""
        await self._ask(
            effect.node,
            "check_peer",
            lambda sim, _: self._world.check_login(sim, self._connected(effect.target).node),
            vm=effect.vm,
        )


def _resolve(answer: asyncio.Future[None], failure: Failure | None) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(None)
    else:
        answer.set_exception(OperationError(failure))

"""The `Hypervisor` port on a simulated world: reads, changes, and what takes long."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from manager.backends.sim import editing, resources
from manager.backends.sim.client import Connection, SimConnections
from manager.backends.sim.closeups import SimConsole, change_snapshot, definition, picture
from manager.backends.sim.hosts import Done, Job, SimNode, refused
from manager.backends.sim.moves import Move, Phase, Wishes
from manager.core.effects import (
    LONG_CHANGES,
    SNAPSHOT_CHANGES,
    AbortMigration,
    ChangeVm,
    CheckPeerLogin,
    CopyDefinition,
    CopyDisks,
    EditVm,
    ForgetDefinition,
    HoldNode,
    NoteDrained,
    ReleaseNode,
    RestoreFromFile,
    SaveToFile,
    StartMigration,
    TuneMigration,
    VmChange,
    VmEffect,
    WriteVmSettings,
)
from manager.core.errors import FailureCode, OperationError
from manager.core.events import (
    MigrationProgress,
    MigrationRouted,
    NodeInventoryRead,
    NodeNotesRead,
    NodeResourcesRead,
    NodeSampled,
    PoolVolumesRead,
    VmAuthoritySeen,
    VmConfigRead,
)
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import PeerRoute, Snapshot, SnapshotParameters, StatusCause, VmStatus
from manager.core.units import MIB

T = TypeVar("T")

CHANGE_S = 60.0
"""How long a quick change may take: a VM that is busy is waited for up to 30 s."""

LONG_S = 3600.0
"""How long a start, a save or a restore may take."""

JOB_PATIENCE_S = 10.0
JOB_RETRY_S = 0.2
"""How long a job of ours that is about to begin is waited for, and how often it is looked for."""

_DURING_A_JOB = frozenset({VmChange.TURN_OFF, VmChange.PAUSE})  # the rest waits for the lock


class SimHypervisor(SimConnections):
    """A program's view of a simulated world; several may share one. Loop thread only."""

    # --- reading --------------------------------------------------------------------------

    async def read_inventory(self, node: NodeId) -> NodeInventoryRead:
        """All VMs of a node."""
        started_s = self._clock.now_s()
        vms = await self._watch(node, "read_inventory", self._world.inventory)
        if (connection := self._connections.get(node)) is not None:
            self._look_for_jobs(connection)
        return NodeInventoryRead(at_s=self._clock.now_s(), node=node, started_s=started_s, vms=vms)

    async def read_vm(self, node: NodeId, vm: VmId) -> VmConfigRead:
        """One VM's definition."""
        config = await self._watch(node, "read_vm", lambda sim: self._world.find(sim, vm).read(), vm)
        return VmConfigRead(at_s=self._clock.now_s(), node=node, vm=vm, config=config)

    async def read_definition(self, node: NodeId, vm: VmId, *, stored: bool = False) -> str:
        """One VM's definition, made up from what is simulated."""
        return await self._ask(
            node,
            "read_definition",
            lambda sim, _: definition(self._world.find(sim, vm), stored=stored),
            vm=vm,
        )

    async def read_snapshots(self, node: NodeId, vm: VmId) -> tuple[Snapshot, ...]:
        """One VM's snapshots."""
        return await self._ask(
            node, "read_snapshots", lambda sim, _: tuple(self._world.find(sim, vm).snapshots), vm=vm
        )

    async def screenshot(self, node: NodeId, vm: VmId) -> bytes:
        """A picture of a text screen."""
        return await self._ask(node, "screenshot", lambda sim, _: picture(self._world.find(sim, vm)), vm=vm)

    async def open_console(self, node: NodeId, vm: VmId, *, take_over: bool = False) -> SimConsole:
        """A guest that repeats what it is told."""
        self._writable(node, vm)

        def open_it(sim: SimNode, connection: Connection) -> SimConsole:
            found = self._world.find(sim, vm)
            if found.console is not None and not found.console.why_ended:
                if not take_over:
                    text = "Active console session exists for this domain"
                    raise refused(FailureCode.OTHER, text, node=node, vm=vm)
                found.console.end("another took it over")

            def power_off() -> None:
                self._world.kill(found, VmStatus.OFF, StatusCause.SHUT_DOWN)

            console = found.console = SimConsole(found, power_off)
            connection.consoles.append(console)
            return console

        return await self._ask(node, "open_console", open_it, vm=vm)

    async def read_authority(self, node: NodeId) -> VmAuthoritySeen | None:
        """No simulated host has Pacemaker."""
        return None

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

    async def read_resources(self, node: NodeId) -> NodeResourcesRead:
        """A node's pools, networks and interfaces."""
        found = await self._ask(node, "read_resources", lambda sim, _: resources.of(sim))
        return NodeResourcesRead(
            at_s=self._clock.now_s(),
            node=node,
            pools=found.pools,
            networks=found.networks,
            interfaces=found.interfaces,
        )

    async def read_volumes(self, node: NodeId, pool: str) -> PoolVolumesRead:
        """What is in a pool."""

        def read(sim: SimNode, _: Connection) -> PoolVolumesRead:
            seen, found = resources.volumes(self._world, sim, pool)
            return PoolVolumesRead(at_s=self._clock.now_s(), node=node, pool=seen, volumes=found)

        return await self._ask(node, "read_volumes", read, CHANGE_S)

    async def sample(self, node: NodeId, *, disks: bool = False) -> NodeSampled:
        """Loads of a node and its VMs; CPU figures from the second sample of a connection on."""

        def measure(sim: SimNode, connection: Connection) -> NodeSampled:
            load, vms = self._world.loads(sim, connection.sampled_s, disks=disks)
            connection.sampled_s = self._world.time_s
            return NodeSampled(at_s=self._clock.now_s(), node=node, load=load, vms=vms)

        return await self._ask(node, "sample", measure)

    async def job_progress(
        self, node: NodeId, vm: VmId, operation: OperationId, attempt: int
    ) -> MigrationProgress | None:
        """The figures of a VM's job; None when it has none there that has figures."""

        def look(sim: SimNode, _: Connection) -> MigrationProgress | None:
            found = sim.vms.get(vm)
            job = next((job for job in found.jobs if job.may_be_aborted), None) if found else None
            return self._figures(job, operation, attempt) if job is not None else None

        return await self._ask(node, "job_progress", look, vm=vm)

    def _figures(self, job: Job, operation: OperationId, attempt: int) -> MigrationProgress:
        if job.move is None:
            sent = job.transfer
            total, left = (sent.total, sent.left) if sent is not None else (0.0, 0.0)
            return MigrationProgress(
                at_s=self._clock.now_s(),
                operation=operation,
                attempt=attempt,
                elapsed_ms=int(1000 * (self._world.time_s - job.since_s)),
                total_bytes=int(total),
                remaining_bytes=int(left),
                rate_bytes_per_s=int(sent.stream.rate) if sent is not None else 0,
                dirty_bytes_per_s=0,
                iteration=0,
            )
        move = self._world.moves.synced(job.move)
        total_bytes, remaining = move.figures
        return MigrationProgress(
            at_s=self._clock.now_s(),
            operation=operation,
            attempt=attempt,
            elapsed_ms=int(1000 * (self._world.time_s - move.started_s)),
            total_bytes=total_bytes,
            remaining_bytes=remaining,
            rate_bytes_per_s=int(move.rate),
            dirty_bytes_per_s=int(move.dirty_rate),
            iteration=move.iteration,
            downtime_ms=move.pause_ms,
            post_copy=move.phase is Phase.POST_COPY,
            throttle_percent=move.throttle_percent or None,
        )

    async def have_jobs(self, node: NodeId, vms: Sequence[VmId]) -> frozenset[VmId]:
        """On which of these VMs a move, a save, a backup or a copy of disks runs there."""

        def look(sim: SimNode, connection: Connection) -> frozenset[VmId]:
            busy = (vm for vm in vms if vm in sim.vms)
            found = frozenset(vm for vm in busy if any(job.may_be_aborted for job in sim.vms[vm].jobs))
            connection.foreign.difference_update(set(vms) - found)  # who asked knows now: the next is news
            return found

        return await self._ask(node, "have_jobs", look)

    # --- changing -------------------------------------------------------------------------

    async def change_vm(self, effect: ChangeVm) -> None:
        """Change a VM's state; returns when the call does: a guest may still be shutting down."""
        self._writable(effect.node, effect.vm)
        self._changing[effect.vm] += 1
        try:
            await self._long(
                effect,
                "change_vm",
                lambda sim, done: self._begin_change(sim, effect, done),
                LONG_S if effect.change in LONG_CHANGES else CHANGE_S,
                needs_lock=effect.change not in _DURING_A_JOB,
            )
        finally:
            self._changing[effect.vm] -= 1
            if not self._changing[effect.vm]:
                del self._changing[effect.vm]

    def _begin_change(self, sim: SimNode, effect: ChangeVm, done: Done) -> None:
        if effect.change in SNAPSHOT_CHANGES:
            wish = effect.snapshot or SnapshotParameters()
            change_snapshot(self._world, self._world.find(sim, effect.vm), effect.change, wish, done)
        else:
            self._world.change(sim, effect.vm, effect.change, done)

    async def write_settings(self, effect: WriteVmSettings) -> None:
        """Write our settings; what others keep in the metadata stays."""
        self._writable(effect.node, effect.vm)

        def write(sim: SimNode, _: Connection) -> None:
            self._world.write_settings(self._world.find(sim, effect.vm), effect.settings)

        await self._ask(effect.node, "write_settings", write, CHANGE_S, vm=effect.vm, needs_lock=True)

    async def note_drained(self, effect: NoteDrained) -> None:
        """Note from where a VM is drained."""
        self._writable(effect.node, effect.vm)

        def write(sim: SimNode, _: Connection) -> None:
            found = self._world.find(sim, effect.vm)
            self._world.write_settings(
                found, replace(found.config.settings, drained_from=effect.drained_from)
            )

        await self._ask(effect.node, "note_drained", write, CHANGE_S, vm=effect.vm, needs_lock=True)

    async def read_notes(self, node: NodeId) -> NodeNotesRead:
        """Who holds a node."""
        started_s = self._clock.now_s()
        holds = await self._watch(node, "read_notes", lambda sim: tuple(sim.holds.values()))
        return NodeNotesRead(at_s=self._clock.now_s(), node=node, started_s=started_s, holds=holds)

    async def hold_node(self, effect: HoldNode) -> None:
        """Keep a hold."""
        self._writable(effect.node, None)

        def write(sim: SimNode, _: Connection) -> None:
            sim.holds[effect.hold.who] = effect.hold
            self._world.tell_notes(sim)

        await self._ask(effect.node, "hold_node", write)

    async def release_node(self, effect: ReleaseNode) -> None:
        """Remove all holds."""
        self._writable(effect.node, None)

        def write(sim: SimNode, _: Connection) -> None:
            sim.holds.clear()
            self._world.tell_notes(sim)

        await self._ask(effect.node, "release_node", write)

    async def edit_vm(self, effect: EditVm) -> None:
        """Change a VM's definition."""
        self._writable(effect.node, effect.vm)

        def change(sim: SimNode, _: Connection) -> None:
            editing.edit(self._world, self._world.find(sim, effect.vm), effect.edit)

        await self._ask(effect.node, "edit_vm", change, CHANGE_S, vm=effect.vm, needs_lock=True)

    async def _long(
        self,
        effect: VmEffect,
        call: str,
        begin: Callable[[SimNode, Done], T],
        deadline_s: float | None = None,
        *,
        needs_lock: bool = True,
        begins_job: bool = False,
    ) -> T:
        """Begin something and return at its end; a caller that gives up does not end it."""
        answer = self._future()

        def work(sim: SimNode, connection: Connection) -> tuple[Connection, T]:
            return connection, begin(sim, self._reply(connection, answer))

        connection, begun = await self._ask(
            effect.node,
            call,
            work,
            deadline_s,
            vm=effect.vm,
            needs_lock=needs_lock,
            begins_job=begins_job,
        )
        await self._wait(connection, answer, deadline_s)
        return begun

    # --- moving ---------------------------------------------------------------------------

    async def migrate(self, effect: StartMigration) -> None:
        """Move a VM; returns at its end. Cancelling the caller leaves a node-to-node move running.

        Addresses are tried in turn while none has answered.
        """
        self._writable(effect.node, effect.vm)
        if effect.convergence.post_copy and effect.parallel_connections > 1:
            text = "post-copy and several connections do not go together: the guest would be lost"
            raise refused(FailureCode.NOT_SUPPORTED, text, node=effect.node, vm=effect.vm)
        addresses = effect.addresses or ("",)
        with self._job_of(effect):
            for place, address in enumerate(addresses, 1):
                if await self._try_address(effect, address, is_last=place == len(addresses)):
                    break
        moved = self._world.nodes[effect.target].vms.get(effect.vm)
        if effect.autostart and moved is not None:
            self._world.set_autostart(moved)

    async def _try_address(self, effect: StartMigration, address: str, *, is_last: bool) -> bool:
        """Whether the move is over; false if the address is dead and another one is to be tried."""
        through_here = effect.route is PeerRoute.THROUGH_THIS_COMPUTER
        moves: list[Move] = []
        wishes = Wishes(
            bandwidth_mib_s=effect.bandwidth_mib_s,
            unsafe=effect.unsafe,
            convergence=effect.convergence,
            address=address,
            connections=effect.parallel_connections,
            encrypt=effect.encrypt,
            copy_disks=effect.copy_disks,
            pool=effect.pool,
        )

        def begin(sim: SimNode, done: Done) -> None:
            self._refuse_cancelled(effect)
            vm, target = self._world.find(sim, effect.vm), self._connected(effect.target, effect.vm).node
            if not through_here:
                self._world.check_login(sim, target)
            self._events.put_nowait(
                MigrationRouted(
                    at_s=self._clock.now_s(),
                    trace=effect.trace,
                    operation=effect.operation,
                    attempt=effect.attempt,
                    address=address,
                    encrypted=effect.encrypt,
                )
            )
            moves.append(self._world.moves.begin(vm, target, done, wishes))
            if through_here:
                self._through_here.update(moves)

        try:
            await self._long(effect, "migrate", begin, begins_job=True)
        except OperationError as error:
            is_dead = error.failure.code is FailureCode.UNREACHABLE and error.failure.node == effect.target
            if is_last or not is_dead or not moves or moves[0].reached:
                raise
            return False
        finally:
            for move in moves:
                if through_here:
                    self._end_with_us(move)
        return True

    async def tune(self, effect: TuneMigration) -> None:
        """Change a running move; one of ours that is about to begin is waited for."""
        self._writable(effect.node, effect.vm)

        def change(sim: SimNode, _: Connection) -> bool:
            job = self._world.find(sim, effect.vm).job
            if job is None or job.move is None or job.move.target is sim:
                return False
            self._world.moves.tune(
                job.move,
                pause_ms=effect.pause_ms,
                bandwidth_mib_s=effect.bandwidth_mib_s,
                post_copy=effect.post_copy,
            )
            return True

        until_s = self._clock.monotonic_s() + JOB_PATIENCE_S
        while not await self._ask(effect.node, "tune", change, vm=effect.vm):
            is_to_come = self._working.get(effect.vm) == effect.operation
            if not is_to_come or self._clock.monotonic_s() > until_s:
                text = "it is not being moved"
                raise refused(FailureCode.WRONG_STATE, text, node=effect.node, vm=effect.vm)
            await self._pause(self._connected(effect.node, effect.vm), JOB_RETRY_S)

    async def abort(self, effect: AbortMigration) -> None:
        """Cancel the VM's job, or the one that is about to begin; no job is success.

        A copy of disks is one for libvirt only to whoever attends to it: one that was left alone stays.
        """
        self._writable(effect.node, effect.vm)
        is_ours = self._working.get(effect.vm) == effect.operation
        if is_ours:
            self._cancelled.add(effect.operation)

        def cancel(sim: SimNode, _: Connection) -> None:
            if effect.vm in sim.vms:
                self._world.abort_job(sim.vms[effect.vm], copies_too=is_ours)

        await self._ask(effect.node, "abort", cancel, vm=effect.vm)

    async def check_peer(self, effect: CheckPeerLogin) -> None:
        """Raises `OperationError(PEER_LOGIN)` if the source cannot log in to the target."""
        await self._ask(
            effect.node,
            "check_peer",
            lambda sim, _: self._world.check_login(sim, self._connected(effect.target).node),
            vm=effect.vm,
        )

    # --- the steps of other moves ---------------------------------------------------------

    async def save_to_file(self, effect: SaveToFile) -> None:
        """Save a VM to a file; returns when it is off. The save goes on if the caller does not wait."""
        self._writable(effect.node, effect.vm)

        def begin(sim: SimNode, done: Done) -> None:
            self._refuse_cancelled(effect)
            self._require_shared(sim, effect.path, effect)
            self._world.storage.save(self._world.find(sim, effect.vm), done, effect.path)

        with self._job_of(effect):
            await self._long(effect, "save_to_file", begin, begins_job=True)

    async def restore_from_file(self, effect: RestoreFromFile) -> None:
        """Let it run on from the file, which is deleted then; a failed restore keeps it."""
        self._writable(effect.node, effect.vm)

        def begin(sim: SimNode, done: Done) -> None:
            self._require_shared(sim, effect.path, effect)
            self._world.storage.restore(self._world.find(sim, effect.vm), effect.path, done)

        await self._long(effect, "restore_from_file", begin, LONG_S)

    @staticmethod
    def _require_shared(node: SimNode, path: str, effect: VmEffect) -> None:
        """A VM's memory goes where all nodes can read it, and nowhere else."""
        if not node.shares(path):
            text = f"{path} is not below a shared path of the cluster file"
            raise refused(FailureCode.UNSAFE, text, node=effect.node, vm=effect.vm)

    async def copy_definition(self, effect: CopyDefinition) -> None:
        """Define a VM that is off on another node too."""
        self._writable(effect.node, effect.vm)

        def copy(sim: SimNode, _: Connection) -> None:
            vm, target = self._world.find(sim, effect.vm), self._connected(effect.target, effect.vm).node
            if effect.route is PeerRoute.NODE_TO_NODE:
                self._world.check_login(sim, target)
            self._world.copy_definition(vm, target, autostart=effect.autostart)

        await self._ask(effect.node, "copy_definition", copy, CHANGE_S, vm=effect.vm, needs_lock=True)

    async def forget_definition(self, effect: ForgetDefinition) -> None:
        """Undefine a VM that is off here."""
        self._writable(effect.node, effect.vm)
        await self._ask(
            effect.node,
            "forget_definition",
            lambda sim, _: self._world.forget_definition(self._world.find(sim, effect.vm)),
            CHANGE_S,
            vm=effect.vm,
            needs_lock=True,
        )

    async def copy_disks(self, effect: CopyDisks) -> None:
        """Move a running VM's disks to another pool of its node.

        We do the switching over: if we are gone when all is copied, both images stay, and the job.
        """
        self._writable(effect.node, effect.vm)
        begun: list[Job] = []

        def begin(sim: SimNode, done: Done) -> None:
            self._refuse_cancelled(effect)
            vm = self._world.find(sim, effect.vm)
            storage, cap_bytes_per_s = self._world.storage, effect.bandwidth_mib_s * MIB or math.inf
            begun.append(storage.copy_disks(vm, effect.pool, effect.disks, done, cap_bytes_per_s))

        with self._job_of(effect):
            try:
                await self._long(effect, "copy_disks", begin, begins_job=True)
            finally:
                for job in begun:
                    job.unattended = True

    @contextmanager
    def _job_of(self, effect: VmEffect) -> Iterator[None]:
        """While this lasts, what runs on the VM is ours, and a cancel that comes early holds."""
        self._working[effect.vm] = effect.operation
        try:
            yield
        finally:
            self._cancelled.discard(effect.operation)
            if self._working.get(effect.vm) == effect.operation:
                del self._working[effect.vm]

    def _refuse_cancelled(self, effect: VmEffect) -> None:
        if effect.operation in self._cancelled:
            text = "cancelled before it began"
            raise refused(FailureCode.CANCELLED, text, node=effect.node, vm=effect.vm)

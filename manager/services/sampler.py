"""Figures on demand: loads while somebody looks, job figures while something moves; else nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from manager.core.cluster import ClusterState
from manager.core.errors import OperationError
from manager.core.events import Event, ForeignJobSeen
from manager.core.ids import NodeId, VmId
from manager.core.operations import Operation, OperationState
from manager.services.ports import Clock, Feature, Hypervisor
from manager.services.tasks import Tasks

log = logging.getLogger(__name__)

JOB_INTERVAL_S = 0.5
OTHERS_INTERVAL_S = 5.0
"""How often a node is asked for jobs of others that it has told: their ends are told too, mostly."""

LOAD_INTERVAL_S = 3.0
FIRST_INTERVAL_S = 0.9

_NOT_ASKED = NodeId("")

Poll = Callable[[], Awaitable[None]]


class Sampler:
    """Polls what is wanted, at most one call per node and kind at a time. Loop thread only."""

    def __init__(
        self,
        *,
        hypervisor: Hypervisor,
        clock: Clock,
        state: ClusterState,
        dispatch: Callable[[Event], None],
        dispatch_in_turn: Callable[[Event], Awaitable[None]],
        tasks: Tasks,
    ) -> None:
        self._hypervisor = hypervisor
        self._clock = clock
        self._state = state
        self._dispatch = dispatch
        self._dispatch_in_turn = dispatch_in_turn
        self._tasks = tasks
        self._wanted: dict[str, NodeId | None] = {}  # by whom, and of which node with the disks
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._next_load_s = 0.0
        self._next_others_s = 0.0
        self._rounds = 0  # of loads, since somebody looks

    def want_loads(self, who: str, wanted: bool, disks_of: NodeId | None = None) -> None:
        """A shown column or plot asks for loads, or stops asking.

        What the disks carry costs a host half as much again: it is asked of the node of what is plotted.
        """
        if wanted:
            self._rounds = self._rounds if self._wanted else 0
            if self._wanted.get(who, _NOT_ASKED) == disks_of:
                return
            self._wanted[who] = disks_of
            self._next_load_s = 0.0
            self._wake.set()
        else:
            self._wanted.pop(who, None)

    def look(self) -> None:
        """Something may move now: called after every change of operations."""
        if self._state.active_moves() or self._jobs_of_others():
            self._wake.set()

    def _jobs_of_others(self) -> dict[VmId, NodeId]:
        """VMs with jobs that are not ours, and their nodes; but for what an operation tells of, anywhere.

        What an operation works on is its owner's to watch. A job that outlives its operation is asked
        for again.
        """
        claims, operations = self._state.claims, self._state.operations
        return {
            vm: node
            for vm, (node, _, _) in self._state.foreign_jobs().items()
            if vm not in claims or operations[claims[vm]].state is OperationState.WAITING
        }

    async def run(self) -> None:
        """Poll while there is something to poll for, until cancelled."""
        while True:
            moves = self._state.active_moves()
            foreign = self._jobs_of_others()
            if not moves and not foreign and not self._wanted:
                self._wake.clear()
                await self._wake.wait()
                continue
            for move in moves:
                self._once(f"job {move.id}", partial(self._job, move))
            if foreign and self._clock.monotonic_s() >= self._next_others_s:
                self._next_others_s = self._clock.monotonic_s() + OTHERS_INTERVAL_S
                of_node: dict[NodeId, list[VmId]] = {}
                for vm, node in foreign.items():
                    of_node.setdefault(node, []).append(vm)
                for node, vms in of_node.items():
                    self._once(f"others {node}", partial(self._others, node, vms))
            if self._wanted and self._clock.monotonic_s() >= self._next_load_s:
                # CPU figures are differences: the second round comes soon.
                interval_s = LOAD_INTERVAL_S if self._rounds else FIRST_INTERVAL_S
                self._rounds += 1
                self._next_load_s = self._clock.monotonic_s() + interval_s
                for row in self._state.nodes.values():
                    can = row.facts is not None and Feature.LOAD_FIGURES in row.facts.features
                    if row.is_up and can:
                        self._once(f"load {row.id}", partial(self._load, row.id))
            await self._clock.sleep(JOB_INTERVAL_S if moves else LOAD_INTERVAL_S / 3)

    def _once(self, name: str, poll: Poll) -> None:
        """Start a poll unless the last one of that name has not come back."""
        if name not in self._busy:
            self._busy.add(name)
            self._tasks.spawn(self._guard(name, poll), name)

    async def _guard(self, name: str, poll: Poll) -> None:
        try:
            await poll()
        except OperationError as error:
            log.debug("%s: %s", name, error)  # the session notices lost nodes; figures may miss
        finally:
            self._busy.discard(name)

    async def _job(self, move: Operation) -> None:
        if move.source is None or move.vm is None or not self._state.nodes[move.source].is_up:
            return
        seen = await self._hypervisor.job_progress(move.source, move.vm, move.id, move.attempt)
        if seen is not None:
            self._dispatch(seen)

    async def _others(self, node: NodeId, vms: Sequence[VmId]) -> None:
        up = self._state.nodes[node].is_up
        busy = await self._hypervisor.have_jobs(node, vms) if up else frozenset()
        known = self._state.foreign_jobs()
        for vm in vms:
            if vm not in busy and vm in known and known[vm][0] == node:
                self._dispatch(ForeignJobSeen(at_s=self._clock.now_s(), node=node, vm=vm, active=False))

    async def _load(self, node: NodeId) -> None:
        await self._dispatch_in_turn(await self._hypervisor.sample(node, disks=node in self._wanted.values()))

"""What the calls of one cluster share: each host's connections, and which jobs of VMs are ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from manager.backends.libvirt import reading
from manager.backends.libvirt.connection import Login
from manager.backends.libvirt.jobs import JobFigures
from manager.backends.libvirt.lane import Lane, LanePool, Opener, Work
from manager.backends.libvirt.streams import SerialConsole
from manager.core.effects import VmEffect
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import Event
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import NodeConfig, NodeFacts
from manager.services.ports import Clock, Feature

T = TypeVar("T")

CHANGE_S = 60.0  # libvirt itself waits up to 30 s for a VM that is busy
LONG_CHANGE_S = 3600.0  # a restore of much memory from a slow disk
CHANGES_AT_ONCE = 6  # per node: each has a connection of its own, and an ssh server admits only some at once


@dataclass(slots=True, eq=False)
class Link:
    """All that belongs to one connection of one node. A lost link is never used again."""

    node: NodeConfig
    login: Login
    open: Opener
    watch: Lane
    figures: Lane
    jobs: Lane
    streams: Lane
    work: Lane | LanePool
    facts: NodeFacts | None = None  # None until connected
    changes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CHANGES_AT_ONCE))
    configs: reading.ConfigCache = field(default_factory=reading.ConfigCache)
    loads: reading.Loads = field(default_factory=reading.Loads)
    stopped: dict[VmId, bool] = field(default_factory=dict)  # VMs to look at; whether again if need be
    is_looking: bool = False
    foreign: dict[VmId, str] = field(default_factory=dict)  # jobs that are not ours and were told
    asked: dict[VmId, bool] = field(default_factory=dict)  # VMs being asked for a job; if the answer counts
    ask_again: set[VmId] = field(default_factory=set)  # of those: something happened meanwhile
    consoles: list[SerialConsole] = field(default_factory=list)  # open, or their threads not ended yet
    running: dict[VmId, None] = field(default_factory=dict)  # VMs, the longest not asked for a job first

    @property
    def lanes(self) -> tuple[Lane | LanePool, ...]:
        """All lanes; of the test driver they are one and the same."""
        consoles = (console.lane for console in self.consoles)
        return (self.watch, self.figures, self.jobs, self.streams, self.work, *consoles)

    @property
    def is_in_process(self) -> bool:
        """Whether this is the test driver: one lane for everything."""
        return self.work is self.watch

    def can(self, feature: Feature) -> bool:
        """Whether this connection has a feature."""
        return self.facts is not None and feature in self.facts.features

    async def call(
        self,
        lane: Lane | LanePool,
        work: Work[T],
        deadline_s: float | None,
        what: str,
        vm: VmId | None = None,
    ) -> T:
        """A call in one of the lanes; its failure says of which node and VM it is."""
        try:
            return await lane.call(work, deadline_s, what)
        except OperationError as error:
            failure = error.failure
            node = failure.node or self.node.name
            raise OperationError(replace(failure, node=node, vm=failure.vm or vm)) from None

    async def change(self, work: Work[T], deadline_s: float, what: str, vm: VmId) -> T:
        """A call that changes something, on a connection of its own; only some run at once."""
        async with self.changes:
            return await self.call(self.work, work, deadline_s, what, vm)

    def close(self, failure: Failure, *, let_finish: bool) -> None:
        """Drop everything without waiting. Running changes and moves may be let finish: each has its own."""
        for lane in (self.watch, self.figures, self.jobs, self.streams):
            lane.close(failure)
        for console in self.consoles:
            console.close()
        self.work.close(failure, let_finish=let_finish)


@dataclass(slots=True, eq=False)
class OwnJob:
    """A job of ours on a VM, from before it begins until its call is over."""

    operation: OperationId
    is_aborted: bool = False
    looks_itself: bool = False  # whether it was aborted
    has_sent: bool = False  # the host said that something was sent, or copied
    figures: JobFigures | None = None  # of a copy of disks, of which the host gives none


class Links:
    """The connections of a cluster's hosts, the jobs of ours that run through them, and the way to the core.

    Loop thread only.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.current: dict[NodeId, Link] = {}
        self.own_jobs: dict[VmId, OwnJob] = {}
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    def tell(self, event: Event) -> None:
        """Pass an event on to the core."""
        self.events.put_nowait(event)

    def is_current(self, link: Link) -> bool:
        """Whether a connection is still the node's."""
        return self.current.get(link.node.name) is link

    def of(self, node: NodeId) -> Link:
        """A node's connection; `OperationError(UNREACHABLE)` if there is none."""
        link = self.current.get(node)
        if link is None or link.facts is None:
            raise OperationError(not_connected(node, "not connected"))
        return link

    @contextlib.contextmanager
    def own_job(self, effect: VmEffect) -> Iterator[OwnJob]:
        """While a job of ours runs on a VM, its events are no news, nor is an answer that may be about it."""
        job = self.own_jobs[effect.vm] = OwnJob(effect.operation)
        for link in self.current.values():
            if effect.vm in link.asked:
                link.asked[effect.vm] = False
        try:
            yield job
        finally:
            if self.own_jobs.get(effect.vm) is job:
                del self.own_jobs[effect.vm]

    def own(self, effect: VmEffect) -> OwnJob | None:
        """The job of an effect's own operation."""
        job = self.own_jobs.get(effect.vm)
        return job if job is not None and job.operation == effect.operation else None


def not_connected(node: NodeId, why: str) -> Failure:
    """Why a node cannot be asked."""
    return Failure(code=FailureCode.UNREACHABLE, text=why, node=node)

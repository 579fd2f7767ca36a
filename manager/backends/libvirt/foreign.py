"""Jobs on VMs, and those that somebody else began: how they are found, and told."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import libvirt

from manager.backends.libvirt import jobs
from manager.backends.libvirt.link import Link, Links
from manager.backends.libvirt.translate import RawEvent
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import ForeignJobSeen
from manager.core.ids import NodeId, VmId
from manager.services.ports import Feature

T = TypeVar("T")

JOB_S = 5.0
JOBS_PER_CALL = 25  # VMs that are asked for a job together
JOBS_PER_SAMPLE = 8
LOOK_AGAIN_S = 1.0


class Jobs:
    """Questions for jobs, in each host's lane for them. Loop thread only.

    Only some jobs begin with an event, and a backup begins with none. So VMs are also asked after an
    inventory was read, some more with each sample of loads, and before work of ours: nothing polls in idle.
    """

    def __init__(self, links: Links) -> None:
        self._links = links

    async def ask(
        self, node: NodeId, vm: VmId, question: Callable[[libvirt.virConnect, VmId], T], otherwise: T
    ) -> T:
        """One of the questions of `jobs`; `otherwise` from a host that does not know them."""
        link = self._links.of(node)
        if not link.can(Feature.JOB_FIGURES):
            return otherwise
        return await link.call(
            link.jobs, lambda connection: question(connection, vm), JOB_S, "reading job figures", vm
        )

    async def have_jobs(self, node: NodeId, vms: Sequence[VmId]) -> frozenset[VmId]:
        """On which of some VMs a job runs, some of them in one call each.

        Whoever hears that there is none knows the end of one that was told.
        """
        link = self._links.of(node)
        if not link.can(Feature.JOB_FIGURES):
            return frozenset()
        found: set[VmId] = set()
        for start in range(0, len(vms), JOBS_PER_CALL):
            some = tuple(vms[start : start + JOBS_PER_CALL])
            question = functools.partial(jobs.job_names, vms=some, thorough=True)
            found |= (await link.call(link.jobs, question, JOB_S, "looking for jobs")).keys()
        for vm in vms:
            if vm not in found:
                link.foreign.pop(vm, None)
        return frozenset(found)

    async def refuse_busy(self, link: Link, vm: VmId) -> None:
        """Say at once whose work is in the way: libvirt would wait half a minute, and then say less."""
        what = await self.ask(link.node.name, vm, jobs.job_name, None)
        if what is not None:
            self._tell(link, vm, what)
            text = f"a job runs on it already: {what}"
            raise OperationError(Failure(code=FailureCode.BUSY, text=text, node=link.node.name, vm=vm))

    def inventory_read(self, link: Link, running: Sequence[VmId]) -> None:
        """Look at all VMs that run."""
        link.running = dict.fromkeys(running)
        self._look(link, running)

    def sampled(self, link: Link) -> None:
        """Look at some more VMs, each in its turn."""
        some = tuple(itertools.islice(link.running, JOBS_PER_SAMPLE))
        self._look(link, some)
        for vm in some:
            link.running[vm] = link.running.pop(vm)

    def heard(self, link: Link, raw: RawEvent) -> None:
        """What an event says of jobs."""
        vm = VmId(raw.uuid)
        if raw.is_end_of_job and (vm in link.foreign or vm in link.asked):
            self._tell(link, vm, None)
            # An answer that is on its way may still know the job, and there will be no further event.
            look = functools.partial(self._look, link, (vm,))
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, look)
        own = self._links.own_jobs.get(vm)
        if own is not None:
            own.has_sent = own.has_sent or raw.is_transfer
        elif raw.is_sign_of_job:
            self._look(link, (vm,), thorough=True)

    def _look(self, link: Link, vms: Sequence[VmId], *, thorough: bool = False) -> None:
        """Ask some VMs in the background, each only once at a time; other calls of the lane come between."""
        if not link.can(Feature.JOB_FIGURES) or not self._links.is_current(link):
            return
        if thorough:
            link.ask_again.update(vm for vm in vms if vm in link.asked)
        free = [vm for vm in vms if vm not in link.asked and vm not in self._links.own_jobs]
        for start in range(0, len(free), JOBS_PER_CALL):
            some = free[start : start + JOBS_PER_CALL]
            link.asked.update(dict.fromkeys(some, True))
            question = functools.partial(jobs.job_names, vms=some, thorough=thorough)
            answered = functools.partial(self._answered, link, some)
            link.jobs.start(question, JOB_S, "looking for jobs").add_done_callback(answered)

    def _answered(self, link: Link, vms: Sequence[VmId], future: asyncio.Future[dict[VmId, str]]) -> None:
        counts = [vm for vm in vms if link.asked.pop(vm) and vm not in self._links.own_jobs]
        if future.cancelled() or future.exception() is not None or not self._links.is_current(link):
            return
        for vm in counts:
            self._tell(link, vm, future.result().get(vm))
        again = [vm for vm in vms if vm in link.ask_again]
        link.ask_again.difference_update(again)
        self._look(link, again, thorough=True)

    def _tell(self, link: Link, vm: VmId, what: str | None) -> None:
        """Tell that a job that is not ours runs on a VM, or runs no more, if that is news."""
        told = link.foreign.get(vm)
        if what == told:
            return
        if what is None:
            del link.foreign[vm]
        else:
            link.foreign[vm] = what
        name = what or told or ""
        self._links.tell(
            ForeignJobSeen(
                at_s=self._links.clock.now_s(),
                node=link.node.name,
                vm=vm,
                active=what is not None,
                migration=name == jobs.MIGRATION,
                what=name,
            )
        )

"""How jobs of others are found and told: what is asked when, and which answers count."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import libvirt
import pytest

from manager.backends.libvirt import foreign
from manager.backends.libvirt.foreign import Jobs
from manager.backends.libvirt.link import Link, Links
from manager.backends.libvirt.translate import RawEvent
from manager.core.effects import ChangeVm, VmChange
from manager.core.events import ForeignJobSeen
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.model import NodeConfig, NodeFacts
from manager.services.clock import RealClock
from manager.services.ports import Feature

N1 = NodeId("n1")
A, B = VmId("a"), VmId("b")


@dataclass
class Lane:
    """A lane that answers when the test says so."""

    asked: list[tuple[tuple[VmId, ...], bool, asyncio.Future[dict[VmId, str]]]] = field(default_factory=list)

    def start(self, work: Any, _deadline_s: float, _what: str) -> asyncio.Future[dict[VmId, str]]:
        future: asyncio.Future[dict[VmId, str]] = asyncio.get_running_loop().create_future()
        self.asked.append((tuple(work.keywords["vms"]), work.keywords["thorough"], future))
        return future

    async def answer(self, **jobs: str) -> None:
        """Answer the oldest question."""
        _, _, future = self.asked.pop(0)
        future.set_result({VmId(vm): job for vm, job in jobs.items()})
        await asyncio.sleep(0)


@dataclass
class World:
    """One host, and what was told of it."""

    lane: Lane
    links: Links
    link: Link
    jobs: Jobs

    def told(self) -> list[tuple[str, bool, str]]:
        found = []
        while not self.links.events.empty():
            event = self.links.events.get_nowait()
            assert isinstance(event, ForeignJobSeen)
            assert event.migration == (event.what == "migration")
            found.append((event.vm, event.active, event.what))
        return found

    def hear(self, kind: int, vm: VmId = A, event: int = 0, detail: int = 0) -> None:
        self.jobs.heard(self.link, RawEvent(kind, vm, "name", event, detail))


@pytest.fixture
async def world() -> World:
    lane: Any = Lane()
    links = Links(RealClock())
    config = NodeConfig(name=N1, uri="qemu+ssh://n1/system")
    link = Link(config, None, None, lane, lane, lane, lane, None)  # type: ignore[arg-type]
    link.facts = NodeFacts(
        hostname="n1", host_uuid="", cpus=1, memory_mib=1, features=frozenset({Feature.JOB_FIGURES})
    )
    links.current[N1] = link
    return World(lane, links, link, Jobs(links))


ITERATION = libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION
COMPLETED = libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED


def effect(vm: VmId) -> ChangeVm:
    return ChangeVm(
        trace=TraceId(""), operation=OperationId("o"), attempt=1, vm=vm, node=N1, change=VmChange.SAVE
    )


async def test_many_are_asked_for_together_and_those_without_are_news_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = [VmId(str(number)) for number in range(foreign.JOBS_PER_CALL + 1)]
    asked: list[tuple[VmId, ...]] = []

    async def call(_lane: Any, work: Any, _deadline_s: float, _what: str) -> dict[VmId, str]:
        assert work.keywords["thorough"]
        asked.append(work.keywords["vms"])
        return {VmId("3"): "backup"} if len(asked) == 1 else {}

    monkeypatch.setattr(Link, "call", lambda _, *args: call(*args))
    world.link.foreign.update({VmId("3"): "backup", VmId("4"): "backup"})
    assert await world.jobs.have_jobs(N1, vms) == {VmId("3")}
    assert asked == [tuple(vms[:-1]), tuple(vms[-1:])]
    assert world.link.foreign == {VmId("3"): "backup"}
    assert world.link.facts is not None
    world.link.facts = replace(world.link.facts, features=frozenset())
    assert await world.jobs.have_jobs(N1, vms) == frozenset()
    assert len(asked) == 2  # not asked at all


async def test_an_inventory_asks_all_that_run_some_at_a_time(world: World) -> None:
    vms = [VmId(str(number)) for number in range(foreign.JOBS_PER_CALL + 1)]
    world.jobs.inventory_read(world.link, vms)
    assert [(len(some), thorough) for some, thorough, _ in world.lane.asked] == [
        (foreign.JOBS_PER_CALL, False),
        (1, False),
    ]
    world.jobs.inventory_read(world.link, vms)  # while these are asked
    assert len(world.lane.asked) == 2
    await world.lane.answer(**{"3": "backup"})
    await world.lane.answer()
    assert world.told() == [("3", True, "backup")]
    world.jobs.inventory_read(world.link, vms)
    await world.lane.answer(**{"3": "backup"})
    assert not world.told()  # no news


async def test_samples_ask_each_in_its_turn(world: World) -> None:
    vms = [VmId(str(number)) for number in range(foreign.JOBS_PER_SAMPLE * 2 - 1)]
    world.link.running = dict.fromkeys(vms)
    asked: list[VmId] = []
    for _ in range(2):
        world.jobs.sampled(world.link)
        asked += world.lane.asked[0][0]
        await world.lane.answer()
    assert asked == [*vms, vms[0]]


async def test_a_sign_leads_to_a_thorough_question(world: World) -> None:
    world.hear(ITERATION)
    assert [(some, thorough) for some, thorough, _ in world.lane.asked] == [((A,), True)]
    await world.lane.answer(a="migration")
    world.hear(COMPLETED)
    assert world.told() == [("a", True, "migration"), ("a", False, "migration")]


async def test_a_sign_during_a_question_asks_again(world: World) -> None:
    world.jobs.inventory_read(world.link, [A, B])
    world.hear(ITERATION)
    await world.lane.answer(b="backup")  # as it was before
    assert [(some, thorough) for some, thorough, _ in world.lane.asked] == [((A,), True)]
    await world.lane.answer(a="migration")
    assert world.told() == [("b", True, "backup"), ("a", True, "migration")]


async def test_an_answer_that_comes_after_the_end_is_corrected(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "LOOK_AGAIN_S", 0.0)
    world.hear(ITERATION)
    world.hear(COMPLETED)
    await world.lane.answer(a="migration")
    await asyncio.sleep(0)
    await world.lane.answer()
    assert world.told() == [("a", True, "migration"), ("a", False, "migration")]


async def test_what_is_ours_is_no_news(world: World) -> None:
    world.jobs.inventory_read(world.link, [A])
    with world.links.own_job(effect(A)) as job:
        world.hear(ITERATION)
        assert job.has_sent
        assert len(world.lane.asked) == 1
    await world.lane.answer(a="migration")  # asked before, answered after: it may have been ours
    assert not world.told()


async def test_a_host_that_does_not_answer_ends_nothing(world: World) -> None:
    world.hear(ITERATION)
    await world.lane.answer(a="migration")
    world.told()
    world.jobs.inventory_read(world.link, [A])
    _, _, future = world.lane.asked.pop(0)
    future.set_exception(TimeoutError())
    await asyncio.sleep(0)
    assert not world.told()
    world.jobs.inventory_read(world.link, [A])
    await world.lane.answer()
    assert world.told() == [("a", False, "migration")]


async def test_a_lost_connection_and_a_host_without_figures_are_not_asked(world: World) -> None:
    world.links.current.clear()
    world.jobs.inventory_read(world.link, [A])
    assert not world.lane.asked
    world.links.current[N1] = world.link
    assert world.link.facts is not None
    world.link.facts = NodeFacts(hostname="n1", host_uuid="", cpus=1, memory_mib=1)
    world.jobs.inventory_read(world.link, [A])
    assert not world.lane.asked

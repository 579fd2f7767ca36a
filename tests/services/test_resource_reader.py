"""When pools and networks are read: after a node has come, on news, now and then, if somebody follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from manager.backends.sim.faults import Faults
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.virtual_clock import VirtualClock
from manager.backends.sim.world import SimWorld
from manager.core.errors import Failure, FailureCode, OperationError, UserError
from manager.core.events import NodeResourcesRead
from manager.core.ids import NodeId, PoolId
from manager.core.resource_facts import PoolStatus
from manager.services.memory_journal import MemoryJournal
from manager.services.resource_reader import FOLLOWED_S, QUIET_S, SHOWN_S
from manager.services.runtime import Runtime
from tests.support.sim import config_of, make_world, run, until

N1, N2 = NodeId("n1"), NodeId("n2")
VMS = PoolId("path:/srv/vms")


class Counted(SimHypervisor):
    """Counts what each node was asked; may refuse."""

    def __init__(self, world: SimWorld) -> None:
        super().__init__(world)
        self.asked: Counter[NodeId] = Counter()
        self.refuses = False

    async def read_resources(self, node: NodeId) -> NodeResourcesRead:
        self.asked[node] += 1
        if self.refuses:
            raise OperationError(Failure(code=FailureCode.TIMEOUT, node=node))
        return await super().read_resources(node)


@asynccontextmanager
async def muster() -> AsyncIterator[tuple[Runtime, Counted, SimWorld, VirtualClock]]:
    clock = VirtualClock()
    world = make_world(clock, vms={"n1": ("a",), "n2": ("b",)})
    hosts = Counted(world)
    runtime = Runtime(
        config=config_of(world), hypervisor=hosts, journal=MemoryJournal(), clock=clock, author="tester"
    )
    await runtime.start()
    try:
        await until(clock, lambda: all(node.is_up for node in runtime.view.nodes.values()))
        yield runtime, hosts, world, clock
    finally:
        await runtime.close()


def status(runtime: Runtime) -> PoolStatus:
    return runtime.view.resources.pools[VMS].status


async def test_nobody_who_follows_nothing_is_asked() -> None:
    async with muster() as (runtime, hosts, _, clock):
        await clock.advance(FOLLOWED_S * 2)
        assert not hosts.asked
        await run(clock, runtime.resources.read_all())
        assert hosts.asked == {N1: 1, N2: 1, NodeId("n3"): 1}
        assert status(runtime) is PoolStatus.ONLINE
        await clock.advance(FOLLOWED_S * 2)
        assert hosts.asked[N1] == 1


async def test_slowly_while_a_window_is_open_and_often_while_it_shows_them() -> None:
    async with muster() as (runtime, hosts, _, clock):
        runtime.resources.follow()
        await clock.advance(QUIET_S)
        assert hosts.asked[N1] == 1
        await clock.advance(FOLLOWED_S - QUIET_S - 1)
        assert hosts.asked[N1] == 1
        await clock.advance(2 + QUIET_S)
        assert hosts.asked[N1] == 2
        runtime.resources.want("page", True)
        await clock.advance(SHOWN_S * 3 + 5 * QUIET_S)
        assert 4 <= hosts.asked[N1] <= 6
        before = hosts.asked[N1]
        runtime.resources.want("page", False)
        await clock.advance(SHOWN_S * 3)
        assert hosts.asked[N1] == before


async def test_news_are_gathered_and_read_once() -> None:
    async with muster() as (runtime, hosts, world, clock):
        runtime.resources.follow()
        await clock.advance(5)
        before = hosts.asked.copy()
        for on in (False, True, False):
            world.switch(world.nodes[N1], "vms", on=on)
        await clock.advance(5)
        assert status(runtime) is PoolStatus.PARTLY
        assert hosts.asked - before == {N1: 1}
        world.switch(world.nodes[N1], "vms", on=True)
        await clock.advance(5)
        assert status(runtime) is PoolStatus.ONLINE


async def test_a_node_that_comes_back_is_read_again() -> None:
    async with muster() as (runtime, hosts, world, clock):
        runtime.resources.follow()
        await clock.advance(5)
        before = hosts.asked[N2]
        faults = Faults(world)
        faults.kill_daemon("n2")
        await until(clock, lambda: not runtime.view.nodes[N2].is_up)
        del world.nodes[N2].pools["vms"]
        faults.repair("n2")
        await until(clock, lambda: runtime.view.nodes[N2].is_up)
        await clock.advance(5)
        assert hosts.asked[N2] > before
        assert runtime.view.resources.pools[VMS].missing == (N2,)


async def test_read_again_reads_this_too() -> None:
    async with muster() as (runtime, hosts, _, clock):
        runtime.resources.follow()
        await clock.advance(5)
        before = hosts.asked.copy()
        runtime.read_again(N1)
        await clock.advance(5)
        assert hosts.asked - before == {N1: 1}


async def test_a_host_that_does_not_tell_is_asked_at_the_next_turn() -> None:
    async with muster() as (runtime, hosts, _, clock):
        hosts.refuses = True
        runtime.resources.follow()
        runtime.resources.want("page", True)
        await clock.advance(5)
        assert not runtime.view.resources.pools
        assert runtime.view.nodes[N1].is_up
        hosts.refuses = False
        await clock.advance(SHOWN_S + 5)
        assert status(runtime) is PoolStatus.ONLINE


async def test_volumes_are_asked_of_a_node_that_can_use_the_pool() -> None:
    async with muster() as (runtime, _, world, clock):
        await run(clock, runtime.resources.read_all())
        node, found = await run(clock, runtime.resources.volumes(VMS))
        assert (node, [(v.name, v.users) for v in found]) == (
            N1,
            [("a.qcow2", ("a",)), ("b.qcow2", ("b",))],
        )
        world.nodes[N1].inactive.add("vms")
        await run(clock, runtime.resources.read_all())
        assert (await run(clock, runtime.resources.volumes(VMS)))[0] == N2
        with pytest.raises(UserError, match="No node"):
            await run(clock, runtime.resources.volumes(VMS, N1))


async def test_who_cannot_wait_is_told_volumes_or_trouble() -> None:
    async with muster() as (runtime, _, world, clock):
        await run(clock, runtime.resources.read_all())
        told: list[tuple[NodeId | None, int, str]] = []

        def tell(node: NodeId | None, found: tuple[object, ...], trouble: str) -> None:
            told.append((node, len(found), trouble))

        runtime.resources.ask_volumes(VMS, tell)
        world.nodes[N1].inactive.add("vms")  # it was active when it was last read
        runtime.resources.ask_volumes(PoolId("nowhere"), tell)
        await until(clock, lambda: len(told) == 2)
        troubles = sorted(trouble for _, _, trouble in told)
        assert troubles[0] == "No node that is up has this pool active."
        assert "storage pool 'vms' is not active" in troubles[1]

"""The demo cluster: what it promises, its size, and that one seed is one history."""

from __future__ import annotations

import asyncio
import re
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from manager.backends.sim.demo import demo_cluster, parse_size
from manager.backends.sim.hosts import SimVm
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.moves import Wishes
from manager.backends.sim.virtual_clock import VirtualClock
from manager.backends.sim.world import SimWorld
from manager.core.effects import AbortMigration, ChangeVm, StartMigration, TuneMigration, VmChange
from manager.core.errors import FailureCode, OperationError, UserError
from manager.core.events import ForeignJobSeen, VmRebooted
from manager.core.ids import NodeId, OperationId, TraceId
from manager.core.model import Convergence, PeerRoute, Priority, StatusCause, Tier, VmStatus
from tests.support.sim import run


def _movable(vms: Iterable[SimVm]) -> list[SimVm]:
    return [
        vm
        for vm in vms
        if vm.status is VmStatus.RUNNING
        and len(vm.config.disks) == 1
        and vm.config.disks[0].source.startswith("/srv/")
        and not vm.config.snapshots
        and not vm.config.host_devices
    ]


def _vms(world: SimWorld) -> list[SimVm]:
    return [vm for node in world.nodes.values() for vm in node.vms.values()]


@pytest.mark.parametrize(
    ("text", "size"),
    [("4x40", (4, 40)), ("64X8000", (64, 8000)), (" 1x0 ", (1, 0)), ("64x64000", (64, 64000))],
)
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "4", "4x", "x40", "4x40x1", "4 x 40", "-4x40", "0x1", "65x1", "4x64001", "4x4e3"]
)
def test_sizes_that_are_refused_say_what_is_wanted(text: str) -> None:
    with pytest.raises(UserError, match=r"4x40|from 1 to 64|from 0 to 64000") as caught:
        parse_size(text)
    assert caught.value.exit_code == 2


def test_it_is_believable() -> None:
    config, world = demo_cluster(4, 40, clock=VirtualClock())
    assert (config.tier, config.name) == (Tier.DEMO, "demo")
    assert [node.name for node in config.nodes] == ["oslo-01", "oslo-02", "oslo-03", "oslo-04"]
    vms = _vms(world)
    assert len(vms) == len({vm.id for vm in vms}) == len({vm.name for vm in vms}) == 40
    assert all(re.fullmatch(r"[a-z]+-\d\d", vm.name) for vm in vms)
    assert {vm.config.settings.priority for vm in vms} == set(Priority)
    assert len({vm.name.split("-")[0] for vm in vms}) >= 10
    now_s = world.clock.now_s()
    uptimes = [now_s - vm.started_s for vm in vms if vm.started_s is not None]
    assert min(uptimes) >= 600
    assert max(uptimes) > 30 * 86400
    for node in world.nodes.values():
        load, _ = world.loads(node, 0.0)
        assert load.memory_free_mib is not None
        assert 0.2 < load.memory_free_mib / node.memory_mib < 0.9
        assert load.cpu_percent is not None
        assert 5 < load.cpu_percent < 90


def test_it_has_one_of_each_trouble() -> None:
    _, world = demo_cluster(4, 40, clock=VirtualClock())
    vms = _vms(world)
    count = {
        "running": sum(vm.status is VmStatus.RUNNING for vm in vms),
        "off": sum(vm.status is VmStatus.OFF for vm in vms),
        "saved": sum(vm.status is VmStatus.SAVED for vm in vms),
        "disk error": sum(vm.cause is StatusCause.IO_ERROR for vm in vms),
        "crashed": sum(vm.status is VmStatus.CRASHED for vm in vms),
        "snapshot": sum(vm.config.snapshots > 0 for vm in vms),
        "local CD": sum(disk.device == "cdrom" for vm in vms for disk in vm.config.disks),
        "PCI": sum(bool(vm.config.host_devices) for vm in vms),
        "ignores shutdown": sum(not vm.guest.obeys for vm in vms),
        "silent agent": sum(not vm.guest.agent for vm in vms),
        "bridge": sum(vm.config.interfaces[0].source == "br40" for vm in vms),
    }
    assert count.pop("running") > 28
    assert count.pop("off") >= 1
    assert count.pop("saved") >= 1
    assert set(count.values()) == {1}


def test_big_clusters_have_more_trouble_but_not_much() -> None:
    _, world = demo_cluster(64, 8000, clock=VirtualClock())
    crashed = sum(vm.status is VmStatus.CRASHED for vm in _vms(world))
    assert 10 <= crashed <= 40


@pytest.mark.parametrize(("nodes", "vms"), [(1, 0), (1, 1), (2, 5), (64, 10), (1, 300)])
def test_odd_sizes(nodes: int, vms: int) -> None:
    config, world = demo_cluster(nodes, vms, clock=VirtualClock())
    assert len(config.nodes) == nodes
    assert len(_vms(world)) == vms
    assert all(node.free_mib() >= 0 for node in world.nodes.values())


def _picture(world: SimWorld) -> list[object]:
    return [
        (vm.id, vm.name, vm.node.id, vm.status, vm.cause, vm.config, vm.guest, vm.started_s)
        for vm in _vms(world)
    ]


def test_the_same_seed_is_the_same_cluster_and_another_is_another() -> None:
    first, again, other = (demo_cluster(4, 40, clock=VirtualClock(), seed=seed)[1] for seed in (7, 7, 8))
    assert _picture(first) == _picture(again)
    assert _picture(first) != _picture(other)


async def _history(seed: int) -> list[str]:
    """What is told in ten minutes of a lively cluster in which things are asked for and go wrong."""
    clock = VirtualClock()
    config, world = demo_cluster(4, 40, clock=clock, seed=seed, lively=True)
    hypervisor = SimHypervisor(world)
    told: list[str] = []

    async def listen() -> None:
        async for event in hypervisor.events():
            told.append(repr(event))

    async def ask(call: object) -> None:
        try:
            told.append(repr(await call))  # type: ignore[misc]
        except OperationError as error:
            told.append(repr(error.failure))

    tasks = [asyncio.create_task(listen())]
    for node in config.nodes:
        await run(clock, hypervisor.connect(node))
    for index, vm in enumerate(_vms(world)):
        who = {"trace": TraceId("t"), "operation": OperationId(f"o{index}"), "attempt": 1, "vm": vm.id}
        call: object
        if index % 3:
            target = config.nodes[index % 4].name
            call = hypervisor.migrate(
                StartMigration(
                    **who,  # type: ignore[arg-type]
                    node=vm.node.id,
                    target=target,
                    route=PeerRoute.NODE_TO_NODE,
                    bandwidth_mib_s=200,
                    unsafe=True,
                    convergence=Convergence(),
                    autostart=False,
                )
            )
        else:
            call = hypervisor.change_vm(
                ChangeVm(**who, node=vm.node.id, change=list(VmChange)[index % len(VmChange)])  # type: ignore[arg-type]
            )
        tasks.append(asyncio.create_task(ask(call)))
    for _ in range(60):
        await clock.advance(10)
        for node in config.nodes:
            told.append(repr(await run(clock, hypervisor.sample(node.name))))
    await hypervisor.close()
    await asyncio.gather(*tasks)
    return told


async def test_the_same_seed_is_the_same_history() -> None:
    first, again = await _history(3), await _history(3)
    assert len(first) > 300
    assert first == again
    assert await _history(4) != first


async def test_a_lively_cluster_lives_and_another_sleeps() -> None:
    for lively in (True, False):
        clock = VirtualClock()
        config, world = demo_cluster(4, 40, clock=clock, lively=lively)
        hypervisor = SimHypervisor(world)
        told: list[object] = []

        async def listen(hypervisor: SimHypervisor = hypervisor, told: list[object] = told) -> None:
            async for event in hypervisor.events():
                told.append(event)

        listener = asyncio.create_task(listen())
        for node in config.nodes:
            await run(clock, hypervisor.connect(node))
        await clock.advance(1800)
        assert {type(event) for event in told} == ({VmRebooted, ForeignJobSeen} if lively else set())
        assert clock.sleepers == (1 if lively else 0)
        jobs = [event for event in told if isinstance(event, ForeignJobSeen)]
        assert {job.what for job in jobs} == ({"backup"} if lively else set())
        held = 0
        for job in jobs:  # one at a time, and each ends
            held += 1 if job.active else -1
            assert 0 <= held <= 1
        assert len(jobs) > 20 or not lively
        await hypervisor.close()
        await listener


WHO: dict[str, Any] = {"trace": TraceId("t"), "operation": OperationId("o"), "attempt": 1}


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple[VirtualClock, SimWorld, SimHypervisor]]:
    clock = VirtualClock()
    config, world = demo_cluster(4, 40, clock=clock)
    hypervisor = SimHypervisor(world)
    for node in config.nodes:
        await run(clock, hypervisor.connect(node))
    yield clock, world, hypervisor
    await hypervisor.close()


def _move(world: SimWorld, vm: SimVm, **fields: Any) -> StartMigration:
    target = next(node for node in world.nodes.values() if node is not vm.node and node.free_mib() > 40_000)
    values: dict[str, Any] = {
        "route": PeerRoute.NODE_TO_NODE,
        "bandwidth_mib_s": 400,
        "unsafe": True,
        "convergence": Convergence(),
        "autostart": False,
    }
    return StartMigration(**WHO, vm=vm.id, node=vm.node.id, target=target.id, **(values | fields))


async def test_what_is_said_to_fail_fails() -> None:
    async with _connected() as (clock, world, hypervisor):
        bound = next(vm for vm in _vms(world) if vm.config.interfaces[0].source == "br40")
        with pytest.raises(OperationError) as caught:
            await run(clock, hypervisor.migrate(_move(world, bound)))
        assert caught.value.failure.code is FailureCode.NETWORK
        troubled = {fault.vm for fault in world.moves.faults}
        plain = next(
            vm
            for vm in _movable(_vms(world))
            if vm.name.startswith("web") and vm is not bound and vm.id not in troubled
        )
        began_s = clock.monotonic_s()
        await run(clock, hypervisor.migrate(_move(world, plain)))
        assert 2 < clock.monotonic_s() - began_s < 60  # long enough to be watched


async def test_some_moves_fail_at_first_and_work_when_they_are_tried_again() -> None:
    async with _connected() as (clock, world, hypervisor):
        times = Counter(fault.vm for fault in world.moves.faults)
        assert sorted(times.values()) == [1, 2]
        for vm in _vms(world):
            for _ in range(times[vm.id]):
                with pytest.raises(OperationError) as caught:
                    await run(clock, hypervisor.migrate(_move(world, vm)))
                assert caught.value.failure.is_retryable
            if times[vm.id]:
                await run(clock, hypervisor.migrate(_move(world, vm)))


async def test_one_move_never_converges_and_one_does_with_a_longer_pause() -> None:
    async with _connected() as (clock, world, hypervisor):
        never, late = sorted(_vms(world), key=lambda vm: -vm.guest.dirty_mib_s)[:2]
        for vm, pauses, arrives in ((never, (500, 1000, 2000), False), (late, (500, 1000), True)):
            effect = _move(world, vm, convergence=Convergence(auto_converge=False))
            call = asyncio.create_task(hypervisor.migrate(effect))
            for pause_ms in pauses:
                await clock.advance(120)
                assert not call.done()
                tune = TuneMigration(**WHO, vm=vm.id, node=effect.node, pause_ms=pause_ms)
                await run(clock, hypervisor.tune(tune))
            await clock.advance(120)
            assert call.done() is arrives
            if arrives:
                await call
            else:
                await run(clock, hypervisor.abort(AbortMigration(**WHO, vm=vm.id, node=effect.node)))
                with pytest.raises(OperationError):
                    await run(clock, call_of(call))
        # The same one, left to auto-converge: slowed far enough after a while.
        effect = _move(world, next(iter(world.copies(late.id))))
        began_s = clock.monotonic_s()
        await run(clock, hypervisor.migrate(effect), 600)
        assert 20 < clock.monotonic_s() - began_s < 120


async def call_of(task: asyncio.Task[None]) -> None:
    await task


async def test_one_disk_is_its_hosts_own_and_moves_along() -> None:
    async with _connected() as (clock, world, hypervisor):
        vm = next(vm for vm in _vms(world) if "images" in vm.config.disks[0].source)
        with pytest.raises(OperationError, match="Could not open"):
            await run(clock, hypervisor.migrate(_move(world, vm)))
        await run(clock, hypervisor.migrate(_move(world, vm, copy_disks=("vda",), pool="vms")))
        (moved,) = world.copies(vm.id)
        assert moved.config.disks[0].source == f"/srv/vms/{vm.name}.qcow2"


def test_a_huge_cluster_costs_little() -> None:
    """Generous: it takes a quarter of this on a slow machine."""
    began_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    _, world = demo_cluster(64, 8000, clock=VirtualClock())
    built_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for node in world.nodes.values():
        assert len(world.inventory(node)) == len(node.vms)
        world.loads(node, 0.0)
    read_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert built_s - began_s < 4.0
    assert read_s - built_s < 1.0


async def test_what_costs_grows_with_what_is_asked_and_not_with_the_cluster() -> None:
    """Three moves in a cluster of 8,000 VMs take as many steps as in one of 40: nobody else is looked at."""

    async def steps(nodes: int, vms: int) -> int:
        clock = VirtualClock()
        config, world = demo_cluster(nodes, vms, clock=clock)
        hypervisor = SimHypervisor(world)
        for node in config.nodes[:2]:
            await run(clock, hypervisor.connect(node))
        source, target = (world.nodes[NodeId(node.name)] for node in config.nodes[:2])
        count = 0
        catch_up = world.catch_up

        def counted() -> None:
            nonlocal count
            count += 1
            catch_up()

        world.catch_up = counted  # type: ignore[method-assign]
        for vm in _movable(source.vms.values())[:3]:
            vm.guest = replace(vm.guest, dirty_mib_s=1.0)
            vm.config = replace(vm.config, interfaces=())
            done: list[object] = []
            world.moves.begin(vm, target, done.append, Wishes(bandwidth_mib_s=400))
            while not done:
                await clock.advance(1)
        await hypervisor.close()
        return count

    assert await steps(64, 8000) <= 2 * await steps(4, 40)

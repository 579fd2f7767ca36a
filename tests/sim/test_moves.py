"""The simulator's live migrations: course, figures, limits of the links, and everything that ends one."""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from manager.backends.sim.hosts import Guest, Pool, Reach
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.moves import NO_ROUTE_S, PEER_KEEP_ALIVE_S, TCP_PATIENCE_S
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import ForeignJobSeen, MigrationProgress, MigrationRouted
from manager.core.ids import NodeId, OperationId
from manager.core.migration.progress import MoveProgress, advanced
from manager.core.model import Convergence, Disk, Interface, PeerRoute, StatusCause, VmStatus
from manager.core.units import MIB
from manager.services.ports import Feature
from tests.support.sim import SmallCluster, config_of, small_cluster

N1, N2 = NodeId("n1"), NodeId("n2")


async def _figures(sim: SmallCluster, name: str, node: str = "n1") -> MigrationProgress | None:
    return await sim.run(sim.hypervisor.job_progress(NodeId(node), sim.id(name), OperationId("o"), 1))


async def _outcome(sim: SmallCluster, call: Any, limit_s: float = 600) -> Failure | None:
    await sim.until(call.done, limit_s)
    try:
        call.result()
    except OperationError as error:
        return error.failure
    return None


async def test_a_good_move_and_its_events_in_libvirts_order() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        assert sim.at("a", "n1") is None
        moved = sim.at("a", "n2")
        assert moved is not None
        assert (moved.status, moved.cause) == (VmStatus.RUNNING, StatusCause.MIGRATED)
        assert sim.told("a") == [
            ("n2", "Paused", "being moved"),
            ("n1", "Paused", "being moved"),
            ("n2", "Running", "migrated"),
            ("n1", "Off", "migrated"),
        ]
        assert not [event for event in sim.seen if isinstance(event, ForeignJobSeen)]  # it is ours


async def test_both_halves_are_seen_while_it_moves() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(3)
        source = await sim.run(sim.hypervisor.read_inventory(N1))
        target = await sim.run(sim.hypervisor.read_inventory(N2))
        assert {seen.name: seen.status for seen in source.vms}["a"] is VmStatus.RUNNING
        assert [(seen.name, seen.status, seen.cause) for seen in target.vms] == [
            ("a", VmStatus.PAUSED, StatusCause.MIGRATION)
        ]
        assert sim.world.nodes[N2].used_mib() == 2048  # reserved on the target
        for node in (N1, N2):
            assert await sim.run(sim.hypervisor.have_jobs(node, (sim.id("a"),)))
        assert not await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("b"),)))
        assert await _outcome(sim, call) is None


async def test_figures_grow_as_they_must() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=60, working_set=0.5)) as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.settle()
        seen: list[MigrationProgress] = []
        while not call.done():
            if (now := await _figures(sim, "a")) is not None:
                seen.append(now)
            await sim.clock.advance(0.2)
        assert await _outcome(sim, call) is None
        assert seen[0].total_bytes == seen[0].remaining_bytes == seen[0].rate_bytes_per_s == 0  # prepares
        copying = [now for now in seen if now.total_bytes]
        assert {now.total_bytes for now in copying} == {math.ceil(2048 * MIB * 0.6)}
        assert {now.rate_bytes_per_s for now in copying} == {100 * MIB}
        for before, after in itertools.pairwise(copying):
            assert after.elapsed_ms > before.elapsed_ms
            assert after.iteration >= before.iteration
            if after.iteration == before.iteration:
                assert after.remaining_bytes < before.remaining_bytes
        assert copying[-1].iteration > 2
        bar: MoveProgress | None = None
        percents = [(bar := advanced(bar, now)).percent for now in seen]
        assert percents == sorted(percents)
        assert percents[-1] <= 99
        assert await _figures(sim, "a") is None


async def test_streams_share_the_links_at_both_ends() -> None:
    vms = {"n1": ("a", "b"), "n2": ("c",)}
    async with small_cluster(vms=vms, vm_memory_mib=8192) as sim:
        calls = [sim.begin(sim.hypervisor.migrate(sim.move(name, to="n3"))) for name in "abc"]
        await sim.clock.advance(1)
        rates = [figures.rate_bytes_per_s for name, node in (("a", "n1"), ("b", "n1"), ("c", "n2"))
                 if (figures := await _figures(sim, name, node))]  # fmt: skip
        link = sim.world.nodes[N1].link_bytes_per_s
        assert rates == [int(link / 3)] * 3  # three come into n3, though n2 gives one only
        for call in calls:
            assert await _outcome(sim, call) is None
        alone = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2")))
        await sim.clock.advance(1)
        figures = await _figures(sim, "a", "n3")
        assert figures is not None
        assert figures.rate_bytes_per_s == int(link)
        assert await _outcome(sim, alone) is None


async def test_moves_out_of_one_host_share_its_link_wherever_they_go() -> None:
    async with small_cluster(vm_memory_mib=8192) as sim:
        calls = [
            sim.begin(sim.hypervisor.migrate(sim.move(name, to=to)))
            for name, to in (("a", "n2"), ("b", "n3"))
        ]
        await sim.clock.advance(1)
        link = sim.world.nodes[N1].link_bytes_per_s
        for name in "ab":
            figures = await _figures(sim, name)
            assert figures is not None
            assert figures.rate_bytes_per_s == int(link / 2)
        for call in calls:
            assert await _outcome(sim, call) is None


async def test_a_cap_holds_and_the_time_is_what_the_bytes_need() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=0, touched=0.5)) as sim:
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=64)))
        assert sim.clock.monotonic_s() == pytest.approx(0.5 + 1024 / 64 + 0.08, abs=0.01)


async def test_a_guest_that_dirties_faster_than_the_link_goes_on_for_ever() -> None:
    """Nobody gives it up, pauses it longer or switches it over unasked, whatever the policy says."""
    async with small_cluster() as sim:
        sim.faults.dirty_memory("a", 10_000)
        policy = Convergence(post_copy=True, time_out_s=60)
        call = sim.begin(
            sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, convergence=policy))
        )
        await sim.clock.advance(24 * 3600)
        assert not call.done()
        assert sim.vm("a").status is VmStatus.RUNNING
        figures = await _figures(sim, "a")
        assert figures is not None
        assert not figures.post_copy
        # The whole working set is dirty again after each pass: what was sent is what was dirtied.
        assert figures.dirty_bytes_per_s == pytest.approx(figures.rate_bytes_per_s, rel=0.01)
        assert figures.downtime_ms == pytest.approx(1000 * 2048 * 0.6 / 100, rel=0.01)
        assert figures.remaining_bytes <= figures.total_bytes
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.CANCELLED


async def _throttles(sim: SmallCluster, **fields: Any) -> list[tuple[int, int]]:
    """(iteration, percent) at each step of auto-converge in an hour of a move that does not converge."""
    sim.faults.dirty_memory("a", 10_000)
    call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, **fields)))
    steps: list[tuple[int, int]] = []
    for _ in range(3600):
        await sim.clock.advance(1)
        figures = await _figures(sim, "a")
        assert figures is not None
        now = figures.throttle_percent or 0
        if now != (steps[-1][1] if steps else 0):
            steps.append((figures.iteration, now))
    await sim.run(sim.hypervisor.abort(sim.abort("a")))
    assert await _outcome(sim, call) is not None
    return steps


async def test_auto_converge_slows_the_guest_step_by_step() -> None:
    """After each two passes in which more than half of what was sent was dirtied again. Source: QEMU."""
    async with small_cluster() as sim:
        assert await _throttles(sim) == [(3 + 2 * n, 20 + 10 * n) for n in range(7)]
        policy = Convergence(auto_converge_initial_percent=5, auto_converge_max_percent=99)
        assert [percent for _, percent in await _throttles(sim, convergence=policy)] == [
            5, 15, 25, 35, 45, 55, 65, 75, 85, 95, 99,
        ]  # fmt: skip
        assert await _throttles(sim, convergence=Convergence(auto_converge=False)) == []


async def test_a_guest_that_is_quieter_than_half_the_link_is_not_slowed() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=45, working_set=0.5), vm_memory_mib=8192) as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        seen: list[MigrationProgress] = []
        while not call.done():
            await sim.clock.advance(0.5)
            if (figures := await _figures(sim, "a")) is not None:
                seen.append(figures)
        assert await _outcome(sim, call) is None
        assert {figures.throttle_percent for figures in seen} == {None}
        second = [figures for figures in seen if figures.iteration == 2]
        assert {figures.dirty_bytes_per_s for figures in second} == {45 * MIB}
        assert {figures.dirty_bytes_per_s for figures in seen if figures.iteration < 2} == {0}


async def test_auto_converge_lets_a_busy_guest_arrive() -> None:
    guest = Guest(dirty_mib_s=150, working_set=0.5)
    for policy, arrives in ((Convergence(), True), (Convergence(auto_converge=False), False)):
        async with small_cluster(guest=guest) as sim:
            call = sim.begin(
                sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, convergence=policy))
            )
            await sim.clock.advance(600)
            assert call.done() is arrives
            assert sim.node_of("a") == ("n2" if arrives else "n1")
            await asyncio.gather(_stopped(call), return_exceptions=True)


def _stopped(call: asyncio.Task[None]) -> asyncio.Task[None]:
    call.cancel()
    return call


# --- what is changed in the middle ------------------------------------------------------------


async def test_a_longer_pause_lets_a_small_working_set_arrive() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=500, working_set=0.07)) as sim:
        calm = Convergence(auto_converge=False)
        call = sim.begin(
            sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, convergence=calm))
        )
        for pause_ms in (500, 1000):
            await sim.clock.advance(60)
            await sim.run(sim.hypervisor.tune(sim.tune("a", pause_ms=pause_ms)))
        await sim.clock.advance(60)
        assert not call.done()
        figures = await _figures(sim, "a")
        assert figures is not None
        assert figures.downtime_ms == pytest.approx(1434, abs=1)  # 143 MiB at 100 MiB/s
        await sim.run(sim.hypervisor.tune(sim.tune("a", pause_ms=2000)))
        began_s = sim.clock.monotonic_s()
        assert await _outcome(sim, call) is None
        assert sim.clock.monotonic_s() - began_s < 5
        assert sim.node_of("a") == "n2"


async def test_a_pause_that_is_long_enough_is_used_at_once_and_not_at_the_end_of_the_pass() -> None:
    async with small_cluster() as sim:
        sim.faults.dirty_memory("a", 10_000)
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=10)))
        await sim.clock.advance(200)
        await sim.run(sim.hypervisor.tune(sim.tune("a", pause_ms=200_000)))
        await sim.clock.settle()
        assert sim.told("a")[-1] == ("n1", "Paused", "being moved")
        assert await _outcome(sim, call) is None


async def test_another_cap_holds_at_once() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=0, touched=0.5)) as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=64)))
        await sim.clock.advance(8.5)
        await sim.run(sim.hypervisor.tune(sim.tune("a", bandwidth_mib_s=32)))
        await sim.clock.advance(8)
        figures = await _figures(sim, "a")
        assert figures is not None
        assert figures.rate_bytes_per_s == 32 * MIB
        assert figures.remaining_bytes == (1024 - 8 * 64 - 8 * 32) * MIB
        await sim.run(sim.hypervisor.tune(sim.tune("a", bandwidth_mib_s=0)))
        figures = await _figures(sim, "a")
        assert figures is not None
        assert figures.rate_bytes_per_s == int(sim.world.nodes[N1].link_bytes_per_s)
        assert await _outcome(sim, call) is None


async def test_a_cap_may_be_changed_before_the_copying_begins() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=0, touched=0.5)) as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=8)))
        await sim.clock.advance(0.2)
        await sim.run(sim.hypervisor.tune(sim.tune("a", bandwidth_mib_s=64, pause_ms=500)))
        assert await _outcome(sim, call) is None
        assert sim.clock.monotonic_s() == pytest.approx(0.5 + 1024 / 64 + 0.08, abs=0.01)


async def test_post_copy_arrives_whatever_the_guest_does() -> None:
    async with small_cluster() as sim:
        sim.faults.dirty_memory("a", 10_000)
        policy = Convergence(post_copy=True)
        call = sim.begin(
            sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, convergence=policy))
        )
        await sim.clock.advance(40)
        before = await _figures(sim, "a")
        await sim.run(sim.hypervisor.tune(sim.tune("a", post_copy=True)))
        assert sim.told("a")[1:] == [
            ("n1", "Paused", "being moved"),
            ("n2", "Running", "being moved (post-copy)"),
        ]
        source = sim.at("a", "n1")
        assert source is not None
        assert (source.status, source.cause) == (VmStatus.PAUSED, StatusCause.POSTCOPY)
        figures = await _figures(sim, "a")
        assert before is not None
        assert figures is not None
        assert figures.post_copy
        assert figures.remaining_bytes > before.remaining_bytes  # what was dirtied in this pass comes too
        await sim.run(sim.hypervisor.tune(sim.tune("a", post_copy=True)))  # once more does no harm
        failure = await sim.failure(sim.hypervisor.abort(sim.abort("a")))
        assert failure.code is FailureCode.WRONG_STATE
        assert await _outcome(sim, call) is None
        assert (sim.node_of("a"), sim.at("a", "n1")) == ("n2", None)
        assert sim.vm("a").cause is StatusCause.MIGRATED
        assert not sim.world.twice


async def test_post_copy_must_have_been_asked_for_at_the_start() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(3)
        failure = await sim.failure(sim.hypervisor.tune(sim.tune("a", pause_ms=5000, post_copy=True)))
        assert failure.code is FailureCode.WRONG_STATE
        assert sim.world.moves.running[0].permitted_ms == 300  # refused as a whole
        assert await _outcome(sim, call) is None


async def test_post_copy_cannot_begin_before_the_copying() -> None:
    async with small_cluster() as sim:
        policy = Convergence(post_copy=True)
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", convergence=policy)))
        await sim.clock.advance(0.2)
        failure = await sim.failure(sim.hypervisor.tune(sim.tune("a", post_copy=True)))
        assert failure.code is FailureCode.WRONG_STATE
        assert await _outcome(sim, call) is None
        assert sim.told("a")[-2:] == [("n2", "Running", "migrated"), ("n1", "Off", "migrated")]


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_post_copy_is_not_possible_with_a_host_that_cannot(node: str) -> None:
    async with small_cluster() as sim:
        sim.faults.forbid_post_copy(node)
        facts = [await sim.run(sim.hypervisor.connect(config)) for config in sim.config.nodes]
        able = [Feature.POST_COPY in fact.features for fact in facts]
        assert able == [node != "n1", node != "n2", True]
        move = sim.move("a", to="n2", bandwidth_mib_s=100, convergence=Convergence(post_copy=True))
        call = sim.begin(sim.hypervisor.migrate(move))
        await sim.clock.advance(3)
        failure = await sim.failure(sim.hypervisor.tune(sim.tune("a", post_copy=True)))
        assert failure.code is FailureCode.WRONG_STATE
        assert await _outcome(sim, call) is None


async def test_a_change_waits_for_a_move_that_is_about_to_begin() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=0, touched=0.5)) as sim:
        sim.faults.delay("n1", 1.0)
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=8)))
        await sim.clock.settle()
        sim.faults.delay("n1", 0.0)
        await sim.run(sim.hypervisor.tune(sim.tune("a", bandwidth_mib_s=64)))
        assert await _outcome(sim, call) is None
        assert sim.clock.monotonic_s() < 20
        sim.faults.hang_call("n1", "migrate")
        hanging = sim.begin(sim.hypervisor.migrate(sim.move("b", to="n2")))
        await sim.clock.settle()
        failure = await sim.failure(sim.hypervisor.tune(sim.tune("b", pause_ms=500)))
        assert failure.code is FailureCode.WRONG_STATE
        await asyncio.gather(_stopped(hanging), return_exceptions=True)


async def test_nothing_to_tune() -> None:
    async with small_cluster() as sim:
        failure = await sim.failure(sim.hypervisor.tune(sim.tune("a", pause_ms=500)))
        assert failure.code is FailureCode.WRONG_STATE
        nobody = replace(sim.tune("a", pause_ms=500), vm=sim.id("nobody"))
        assert (await sim.failure(sim.hypervisor.tune(nobody))).code is FailureCode.NOT_FOUND
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2")))
        await sim.clock.advance(0.2)
        failure = await sim.failure(sim.hypervisor.tune(sim.tune("a", pause_ms=500, node="n2")))
        assert failure.code is FailureCode.WRONG_STATE  # the target's half
        assert await _outcome(sim, call) is None


async def test_a_cut_in_post_copy_leaves_both_halves() -> None:
    async with small_cluster() as sim:
        sim.faults.dirty_memory("a", 10_000)
        policy = Convergence(post_copy=True)
        call = sim.begin(
            sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=50, convergence=policy))
        )
        await sim.clock.advance(10)
        await sim.run(sim.hypervisor.tune(sim.tune("a", post_copy=True)))
        sim.faults.cut_network("n2")
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.UNREACHABLE
        source, target = sim.at("a", "n1"), sim.at("a", "n2")
        assert source is not None
        assert target is not None
        assert (source.status, source.cause) == (VmStatus.PAUSED, StatusCause.POSTCOPY_FAILED)
        assert target.status is VmStatus.RUNNING
        assert not sim.world.twice


async def test_abort_leaves_the_vm_running_and_the_target_clean() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(3)
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.CANCELLED
        assert (sim.node_of("a"), sim.vm("a").status) == ("n1", VmStatus.RUNNING)
        assert sim.at("a", "n2") is None
        assert sim.told("a") == [("n2", "Paused", "being moved"), ("n2", "Off", "failed")]
        await sim.run(sim.hypervisor.abort(sim.abort("a")))  # no job is success
        assert sim.vm("a").status is VmStatus.RUNNING
        assert sim.world.nodes[N2].used_mib() == 0


async def test_an_abort_in_the_switch_over_lets_the_guest_go_on() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=50)) as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.until(lambda: sim.at("a", "n1").status is VmStatus.PAUSED)  # type: ignore[union-attr]
        await sim.run(sim.hypervisor.abort(sim.abort("a")), 0.0)
        assert (await _outcome(sim, call)) is not None
        assert sim.told("a")[-1] == ("n1", "Running", "move cancelled")


# --- ways -----------------------------------------------------------------------------------------


def _routes(sim: SmallCluster) -> list[tuple[str, bool]]:
    return [(e.address, e.encrypted) for e in sim.seen if isinstance(e, MigrationRouted)]


async def test_a_move_says_which_way_it_goes() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        await sim.run(
            sim.hypervisor.migrate(sim.move("b", to="n2", addresses=("10.20.0.2", "10.0.0.2"), encrypt=True))
        )
        assert _routes(sim) == [("", False), ("10.20.0.2", True)]
        (routed,) = [e for e in sim.seen if isinstance(e, MigrationRouted)][:1]
        assert (routed.operation, routed.attempt) == ("o", 1)


async def test_addresses_are_tried_in_turn() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=0, touched=0.5)) as sim:
        sim.faults.kill_address("n2", "10.20.0.2")
        addresses = ("10.20.0.2", "10.0.0.2")
        move = sim.move("a", to="n2", addresses=addresses, bandwidth_mib_s=64)
        await sim.run(sim.hypervisor.migrate(move))
        assert _routes(sim) == [("10.20.0.2", False), ("10.0.0.2", False)]
        assert sim.told("a")[:2] == [("n2", "Paused", "being moved"), ("n2", "Off", "failed")]
        assert sim.node_of("a") == "n2"
        assert sim.clock.monotonic_s() == pytest.approx(0.5 + NO_ROUTE_S + 0.5 + 1024 / 64 + 0.08, abs=0.01)


async def test_when_no_address_is_reached_the_target_is_to_blame() -> None:
    async with small_cluster() as sim:
        for address in ("10.20.0.2", "10.0.0.2"):
            sim.faults.kill_address("n2", address)
        move = sim.move("a", to="n2", addresses=("10.20.0.2", "10.0.0.2"))
        failure = await sim.failure(sim.hypervisor.migrate(move))
        assert (failure.code, failure.node) == (FailureCode.UNREACHABLE, N2)
        assert "10.0.0.2" in failure.text
        assert len(_routes(sim)) == 2
        assert (sim.node_of("a"), sim.vm("a").status, sim.at("a", "n2")) == ("n1", VmStatus.RUNNING, None)
        sim.faults.repair_address("n2", "10.0.0.2")
        await sim.run(sim.hypervisor.migrate(move))


async def test_no_other_address_is_tried_after_a_cancel_or_another_failure() -> None:
    async with small_cluster() as sim:
        sim.faults.kill_address("n2", "10.20.0.2")
        move = sim.move("a", to="n2", addresses=("10.20.0.2", "10.0.0.2"))
        call = sim.begin(sim.hypervisor.migrate(move))
        await sim.clock.advance(2)
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.CANCELLED
        sim.faults.fail_move(FailureCode.UNREACHABLE, vm="b")
        addresses = ("10.0.0.2", "10.0.1.2")
        assert await sim.failure(sim.hypervisor.migrate(sim.move("b", to="n2", addresses=addresses)))
        assert _routes(sim) == [("10.20.0.2", False), ("10.0.0.2", False)]


async def test_no_other_address_is_tried_once_something_was_sent() -> None:
    async with small_cluster() as sim:
        move = sim.move("a", to="n2", bandwidth_mib_s=40, addresses=("10.20.0.2", "10.0.0.2"))
        call = sim.begin(sim.hypervisor.migrate(move))
        await sim.clock.advance(3)
        sim.faults.cut_network("n2")
        failure = await _outcome(sim, call)
        assert failure is not None
        assert (failure.code, failure.node) == (FailureCode.UNREACHABLE, N2)
        assert _routes(sim) == [("10.20.0.2", False)]


async def test_an_address_that_dies_in_the_middle() -> None:
    async with small_cluster() as sim:
        move = sim.move("a", to="n2", bandwidth_mib_s=40, addresses=("10.20.0.2",))
        call = sim.begin(sim.hypervisor.migrate(move))
        await sim.clock.advance(3)
        sim.faults.kill_address("n2", "10.20.0.2")
        before = await _figures(sim, "a")
        await sim.clock.advance(600)
        during = await _figures(sim, "a")
        assert before is not None
        assert during is not None
        assert (during.remaining_bytes, during.rate_bytes_per_s) == (before.remaining_bytes, 0)
        sim.faults.repair_address("n2", "10.20.0.2")
        await sim.clock.advance(3)
        sim.faults.kill_address("n2", "10.20.0.2")
        failure = await _outcome(sim, call, 1000)
        assert failure is not None
        assert failure.code is FailureCode.UNREACHABLE
        assert sim.clock.monotonic_s() == pytest.approx(606 + TCP_PATIENCE_S, abs=1)
        assert (sim.node_of("a"), sim.vm("a").status) == ("n1", VmStatus.RUNNING)


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_encryption_needs_certificates_on_both_hosts(node: str) -> None:
    async with small_cluster() as sim:
        sim.faults.lose_certificates(node)
        failure = await _refused(sim, encrypt=True)
        assert "credentials" in failure.text
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))


async def test_more_connections_carry_more_up_to_the_link() -> None:
    async with small_cluster(vm_memory_mib=32 * 1024, vms={"n1": ("a",)}) as sim:
        for node in sim.world.nodes.values():
            node.link_bytes_per_s, node.connection_bytes_per_s, node.encrypted_bytes_per_s = 5e9, 2e9, 5e8
        for fields, rate in (
            ({}, 2e9),
            ({"parallel_connections": 2}, 4e9),
            ({"parallel_connections": 4}, 5e9),
            ({"encrypt": True}, 5e8),
            ({"encrypt": True, "parallel_connections": 4}, 2e9),
            ({"parallel_connections": 4, "bandwidth_mib_s": 100}, 100 * MIB),
        ):
            call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", **fields)))
            await sim.clock.advance(1)
            figures = await _figures(sim, "a")
            assert figures is not None
            assert figures.rate_bytes_per_s == rate
            await sim.run(sim.hypervisor.abort(sim.abort("a")))
            assert await _outcome(sim, call) is not None


# --- disks that the hosts do not share ------------------------------------------------------------


def _local(sim: SmallCluster, name: str = "a", *, gib: float = 8) -> Disk:
    """Give a VM a disk of its host's own; 40 % of it are filled."""
    vm = sim.vm(name)
    disk = Disk(
        target="vda", source=f"/var/lib/libvirt/images/{name}.qcow2", capacity_bytes=int(gib * 1024 * MIB)
    )
    vm.config = replace(vm.config, disks=(disk,))
    return disk


async def test_disks_go_first_and_then_the_memory() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=0, touched=0.5)) as sim:
        _local(sim)
        sim.world.nodes[N2].pools["fast"] = Pool("/srv/fast")
        disks = math.ceil(8 * 1024 * MIB * 0.4)
        move = sim.move("a", to="n2", bandwidth_mib_s=128, copy_disks=("vda",), pool="fast")
        call = sim.begin(sim.hypervisor.migrate(move))
        seen: list[MigrationProgress] = []
        while not call.done():
            await sim.clock.advance(0.5)
            if (figures := await _figures(sim, "a")) is not None:
                seen.append(figures)
        assert await _outcome(sim, call) is None
        assert sim.clock.monotonic_s() == pytest.approx(0.5 + (3276.8 + 1024) / 128 + 0.08, abs=0.5)
        phases = list(dict.fromkeys((now.total_bytes, now.iteration) for now in seen if now.total_bytes))
        assert phases == [(disks + 1024 * MIB, iteration) for iteration in (0, 1, 2)]
        for before, after in itertools.pairwise(seen):
            if after.iteration == before.iteration and before.total_bytes:
                assert after.remaining_bytes < before.remaining_bytes
        assert {now.rate_bytes_per_s for now in seen if now.total_bytes} == {128 * MIB}
        bar: MoveProgress | None = None
        percents = [(bar := advanced(bar, now)).percent for now in seen]
        assert percents == sorted(percents)
        moved = await sim.run(sim.hypervisor.read_vm(N2, sim.id("a")))
        assert [disk.source for disk in moved.config.disks] == ["/srv/fast/a.qcow2"]
        assert sim.world.storage.left_behind == [("n1", "/var/lib/libvirt/images/a.qcow2")]
        sim.world.nodes[N1].shared_paths = ("/srv/vms", "/srv/fast")
        failure = await sim.failure(
            sim.hypervisor.migrate(sim.move("a", to="n1", copy_disks=("vda",), pool="default"))
        )
        assert (failure.code, failure.node) == (FailureCode.CONFLICT, N1)  # nothing is ever written over


async def test_several_connections_and_post_copy_exclude_each_other() -> None:
    async with small_cluster() as sim:
        failure = await _refused(sim, parallel_connections=2, convergence=Convergence(post_copy=True))
        assert failure.code is FailureCode.NOT_SUPPORTED


async def test_the_slowest_of_disks_and_links_sets_the_pace() -> None:
    async with small_cluster() as sim:
        _local(sim)
        sim.world.nodes[N2].disk_bytes_per_s = 50e6
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", copy_disks=("vda",))))
        await sim.clock.advance(2)
        figures = await _figures(sim, "a")
        assert figures is not None
        assert figures.rate_bytes_per_s == 50e6
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.CANCELLED
        assert sim.vm("a").config.disks[0].source == "/var/lib/libvirt/images/a.qcow2"
        assert not sim.world.storage.left_behind


async def test_where_disks_cannot_go() -> None:
    async with small_cluster() as sim:
        failure = await _refused(sim, copy_disks=("vda",), pool="vms")
        assert (failure.code, failure.node) == (FailureCode.CONFLICT, N2)  # the same file
        _local(sim)
        assert "Could not open" in (await _refused(sim)).text
        failure = await _refused(sim, copy_disks=("vda",), pool="nowhere")
        assert failure.code is FailureCode.STORAGE
        assert "nowhere" in failure.text
        failure = await _refused(sim, copy_disks=("vda", "vdx"), pool="default")
        assert failure.code is FailureCode.NOT_FOUND
        sim.faults.fill_pool("n2", "default", 1e9)
        failure = await _refused(sim, copy_disks=("vda",), pool="default")
        assert (failure.code, failure.node) == (FailureCode.NO_RESOURCES, N2)
        del sim.world.nodes[N2].pools["default"]
        assert (await _refused(sim, copy_disks=("vda",))).code is FailureCode.STORAGE


async def test_room_in_a_pool_is_taken_at_once_and_given_back() -> None:
    async with small_cluster() as sim:
        for name in "ab":
            _local(sim, name)
        sim.faults.fill_pool("n2", "default", 5e9)
        fields: dict[str, Any] = {"copy_disks": ("vda",), "pool": "default"}
        first = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", **fields)))
        await sim.clock.advance(1)
        failure = await sim.failure(sim.hypervisor.migrate(sim.move("b", to="n2", **fields)))
        assert failure.code is FailureCode.NO_RESOURCES
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        assert await _outcome(sim, first) is not None
        await sim.run(sim.hypervisor.migrate(sim.move("b", to="n2", **fields)))


# --- what is refused ------------------------------------------------------------------------------


async def _refused(sim: SmallCluster, name: str = "a", **fields: Any) -> Failure:
    failure = await sim.failure(sim.hypervisor.migrate(sim.move(name, to=fields.pop("to", "n2"), **fields)))
    told = [event for event in sim.seen if not isinstance(event, MigrationRouted)]
    assert told == [], "a move that is refused must leave no trace"
    assert sim.vm(name).node.id == "n1"
    assert not await sim.run(sim.hypervisor.have_jobs(N1, (sim.id(name),)))
    return failure


async def test_a_vm_that_is_off_is_not_moved() -> None:
    async with small_cluster() as sim:
        sim.vm("a").status = VmStatus.OFF
        assert (await _refused(sim)).code is FailureCode.WRONG_STATE


async def test_a_target_without_memory() -> None:
    async with small_cluster(vms={"n1": ("a",), "n2": ("c",)}, memory_mib=2048 + 3000) as sim:
        failure = await _refused(sim)
        assert failure.code is FailureCode.NO_RESOURCES
        assert failure.node == "n2"


async def test_two_moves_do_not_share_one_place() -> None:
    async with small_cluster(memory_mib=2048 + 4500) as sim:
        sim.world.nodes[NodeId("n2")].memory_mib = 2048 + 3000
        first = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2")))
        await sim.clock.settle()
        failure = await sim.failure(sim.hypervisor.migrate(sim.move("b", to="n2")))
        assert failure.code is FailureCode.NO_RESOURCES
        assert await _outcome(sim, first) is None


async def test_a_target_without_the_bridge() -> None:
    async with small_cluster() as sim:
        vm = sim.vm("a")
        vm.config = replace(vm.config, interfaces=(Interface(mac="x", kind="bridge", source="br40"),))
        failure = await _refused(sim)
        assert failure.code is FailureCode.NETWORK
        assert "br40" in failure.text


async def test_a_vm_with_a_snapshot_or_a_device() -> None:
    async with small_cluster() as sim:
        plain = sim.vm("a").config
        for config in (replace(plain, snapshots=1), replace(plain, host_devices=("PCI",))):
            sim.vm("a").config = config
            assert (await _refused(sim)).code is FailureCode.WRONG_STATE


async def test_unsafe_disks_need_the_callers_word() -> None:
    async with small_cluster() as sim:
        vm = sim.vm("a")
        vm.config = replace(vm.config, disks=(replace(vm.config.disks[0], cache="writeback"),))
        assert (await _refused(sim, unsafe=False)).code is FailureCode.UNSAFE
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2", unsafe=True)))


async def test_a_disk_that_the_target_does_not_have() -> None:
    async with small_cluster() as sim:
        vm = sim.vm("a")
        vm.config = replace(vm.config, disks=(Disk(target="vda", source="/var/lib/x.qcow2", cache="none"),))
        assert "/var/lib/x.qcow2" in (await _refused(sim)).text


async def test_the_same_host_and_a_name_that_is_taken() -> None:
    async with small_cluster(vms={"n1": ("a",), "n2": ("c",)}) as sim:
        assert "same host" in (await _refused(sim, to="n1")).text
        sim.vm("c").name = "a"
        assert "already" in (await _refused(sim)).text


async def test_no_login_from_host_to_host() -> None:
    async with small_cluster() as sim:
        sim.faults.break_peer_login("n1", "n2")
        assert (
            await sim.failure(sim.hypervisor.check_peer(sim.check("n1", "n2")))
        ).code is FailureCode.PEER_LOGIN
        await sim.run(sim.hypervisor.check_peer(sim.check("n2", "n1")))
        assert (await _refused(sim)).code is FailureCode.PEER_LOGIN
        # Through this computer it works.
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2", route=PeerRoute.THROUGH_THIS_COMPUTER)))
        sim.faults.repair_peer_login("n1", "n2")
        await sim.run(sim.hypervisor.check_peer(sim.check("n1", "n2")))


async def test_through_this_computer_needs_this_computer() -> None:
    async with small_cluster() as sim:
        other = SimHypervisor(sim.world)
        for node in config_of(sim.world).nodes:
            await sim.run(other.connect(node))
        route = PeerRoute.THROUGH_THIS_COMPUTER
        call = sim.begin(other.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, route=route)))
        peer = sim.begin(other.migrate(sim.move("b", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(2)
        await other.close()  # this program is killed
        assert (await _outcome(sim, call)) is not None
        assert (await _outcome(sim, peer)) is not None  # nobody hears of its end ...
        assert sim.at("a", "n2") is None
        await sim.until(lambda: sim.node_of("b") == "n2")  # ... but it goes on
        assert sim.node_of("a") == "n1"


async def test_a_caller_that_gives_up_ends_its_move_through_this_computer() -> None:
    async with small_cluster() as sim:
        route = PeerRoute.THROUGH_THIS_COMPUTER
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, route=route)))
        await sim.clock.advance(2)
        call.cancel()
        await sim.clock.settle()
        assert sim.at("a", "n2") is None
        assert not sim.world.moves.running


# --- hosts and guests that die ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reach", "after_s"),
    [(Reach.REFUSES, 0.0), (Reach.SILENT, PEER_KEEP_ALIVE_S), (Reach.FROZEN, PEER_KEEP_ALIVE_S)],
)
async def test_a_target_that_is_lost(reach: Reach, after_s: float) -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=40)))
        await sim.clock.advance(3)
        sim.world.set_reach(sim.world.nodes[N2], reach)
        failure = await _outcome(sim, call)
        assert failure is not None
        assert (failure.code, failure.node) == (FailureCode.UNREACHABLE, N2)
        assert sim.clock.monotonic_s() == pytest.approx(3 + after_s)
        assert (sim.node_of("a"), sim.vm("a").status) == ("n1", VmStatus.RUNNING)
        assert sim.at("a", "n2") is None


async def test_a_short_silence_does_not_end_a_move() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(3)
        before = await _figures(sim, "a")
        sim.faults.cut_network("n2")
        await sim.clock.advance(5)
        during = await _figures(sim, "a")
        assert before is not None
        assert during is not None
        assert during.remaining_bytes == before.remaining_bytes
        sim.faults.repair("n2")
        assert await _outcome(sim, call) is None
        assert sim.clock.monotonic_s() == pytest.approx(0.5 + 2048 * 0.6 / 100 + 5 + 0.3, abs=3)


@pytest.mark.parametrize("node", ["n1", "n2"])
@pytest.mark.parametrize("told", [True, False])
async def test_a_host_that_loses_power_in_the_middle(node: str, told: bool) -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=40)))
        await sim.clock.advance(3)
        sim.faults.power_off(node, told=told)
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.UNREACHABLE
        assert sim.at("a", "n2") is None
        source = sim.at("a", "n1")
        assert source is not None
        assert source.status is (VmStatus.OFF if node == "n1" else VmStatus.RUNNING)
        assert not sim.world.moves.running


async def test_a_target_that_dies_when_the_guest_has_arrived_takes_it_along() -> None:
    async with small_cluster() as sim:
        sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2")))
        await sim.until(lambda: sim.told("a")[-1:] == [("n2", "Running", "migrated")])
        sim.faults.power_off("n2", told=True)
        assert sim.at("a", "n1") is None
        gone = sim.at("a", "n2")
        assert gone is not None
        assert gone.status is VmStatus.OFF


async def test_turn_off_in_the_middle() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(3)
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
        failure = await _outcome(sim, call)
        assert failure is not None
        assert "not running" in failure.text
        assert sim.told("a")[-2:] == [("n2", "Off", "failed"), ("n1", "Off", "turned off")]
        assert sim.at("a", "n2") is None


async def test_a_guest_that_was_told_to_shut_down_does_so_on_the_target() -> None:
    async with small_cluster(guest=Guest(shutdown_s=10)) as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SHUT_DOWN)))
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        assert sim.clock.monotonic_s() < 10
        await sim.clock.advance(10)
        assert sim.told("a")[-1] == ("n2", "Off", "shut down")


async def test_an_older_definition_on_the_target_is_overwritten_or_kept() -> None:
    async with small_cluster() as sim:
        old = sim.faults.define_twice("a", "n2")
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(2)
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        assert await _outcome(sim, call) is not None
        assert sim.at("a", "n2") is old
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        assert sim.vm("a").status is VmStatus.RUNNING
        assert sim.at("a", "n1") is None


async def test_autostart_is_carried_by_us_only() -> None:
    async with small_cluster() as sim:
        for name in "ab":
            sim.vm(name).config = replace(sim.vm(name).config, autostart=True)
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2", autostart=True)))
        await sim.run(sim.hypervisor.migrate(sim.move("b", to="n2", autostart=False)))
        assert [sim.vm(name).config.autostart for name in "ab"] == [True, False]


async def test_a_cold_guest_needs_one_pass() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=0)) as sim:
        sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        iterations = set()
        await sim.clock.settle()
        while sim.world.moves.running:
            if (figures := await _figures(sim, "a")) is not None:
                iterations.add(figures.iteration)
            assert sim.clock.next_s < math.inf
            await sim.clock.advance(0.1)
        assert iterations == {0, 1, 2}  # the last one is of what was left for the pause

"""The simulator's live migrations: course, figures, limits of the links, and everything that ends one."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from manager.backends.sim.hosts import Guest, Reach
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.moves import PEER_KEEP_ALIVE_S
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import ForeignJobSeen, MigrationProgress
from manager.core.ids import NodeId, OperationId
from manager.core.migration.progress import MoveProgress, advanced
from manager.core.model import Convergence, Disk, Interface, PeerRoute, StatusCause, VmStatus
from manager.core.units import MIB
from tests.support.sim import SmallCluster, config_of, small_cluster

N1, N2 = NodeId("n1"), NodeId("n2")


async def _figures(sim: SmallCluster, name: str, node: str = "n1") -> MigrationProgress | None:
    return await sim.run(sim.hypervisor.job_progress(NodeId(node), sim.id(name), OperationId("o"), 1))


async def _outcome(sim: SmallCluster, call: Any) -> Failure | None:
    await sim.until(call.done)
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
            assert await sim.run(sim.hypervisor.has_job(node, sim.id("a")))
        assert not await sim.run(sim.hypervisor.has_job(N1, sim.id("b")))
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
            assert after.processed_bytes >= before.processed_bytes
            assert after.iteration >= before.iteration
            if after.iteration == before.iteration and after.processed_bytes > before.processed_bytes:
                assert after.remaining_bytes < before.remaining_bytes
        assert copying[-1].iteration > 2
        assert copying[-1].processed_bytes > copying[-1].total_bytes  # the passes after the first
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


async def test_a_guest_that_dirties_faster_than_the_link_is_slowed_and_then_given_up() -> None:
    async with small_cluster() as sim:
        sim.faults.dirty_memory("a", 10_000)
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        rates: list[int] = []
        for _ in range(20):
            await sim.clock.advance(25)
            figures = await _figures(sim, "a")
            assert figures is not None
            rates.append(figures.dirty_bytes_per_s)
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(10_000 * MIB * 0.2, rel=0.01)  # 80 % slower, not more
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.OTHER  # not TIMEOUT: it is known that it was cancelled
        assert "converge" in failure.text
        assert sim.clock.monotonic_s() == pytest.approx(600.5, abs=1)
        assert (sim.node_of("a"), sim.vm("a").status) == ("n1", VmStatus.RUNNING)


async def test_auto_converge_and_longer_pauses_let_a_busy_guest_arrive() -> None:
    guest = Guest(dirty_mib_s=150, working_set=0.5)
    async with small_cluster(guest=guest) as sim:
        never = Convergence(auto_converge=False, pause_steps_ms=(300,), time_out_s=120)
        failure = await sim.failure(
            sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, convergence=never))
        )
        assert "converge" in failure.text
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        assert sim.node_of("a") == "n2"


async def test_longer_pauses_alone_let_a_small_working_set_arrive() -> None:
    async with small_cluster(guest=Guest(dirty_mib_s=500, working_set=0.07)) as sim:
        short = Convergence(auto_converge=False, pause_steps_ms=(300,), time_out_s=120)
        failure = await sim.failure(
            sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, convergence=short))
        )
        assert "converge" in failure.text
        longer = Convergence(auto_converge=False, time_out_s=120)
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, convergence=longer)))


async def test_post_copy_arrives_whatever_the_guest_does() -> None:
    async with small_cluster() as sim:
        sim.faults.dirty_memory("a", 10_000)
        policy = Convergence(post_copy=True)
        call = sim.begin(
            sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100, convergence=policy))
        )
        await sim.until(lambda: sim.vm("a").cause is StatusCause.POSTCOPY)
        figures = await _figures(sim, "a")
        assert figures is not None
        assert figures.post_copy
        failure = await sim.failure(sim.hypervisor.abort(sim.abort("a")))
        assert failure.code is FailureCode.WRONG_STATE
        assert await _outcome(sim, call) is None
        assert (sim.node_of("a"), sim.at("a", "n1")) == ("n2", None)


async def test_a_cut_in_post_copy_leaves_both_halves() -> None:
    async with small_cluster() as sim:
        sim.faults.dirty_memory("a", 10_000)
        policy = Convergence(post_copy=True)
        call = sim.begin(
            sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=50, convergence=policy))
        )
        await sim.until(lambda: sim.vm("a").cause is StatusCause.POSTCOPY)
        sim.faults.cut_network("n2")
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.UNREACHABLE
        source, target = sim.at("a", "n1"), sim.at("a", "n2")
        assert source is not None
        assert target is not None
        assert (source.status, source.cause) == (VmStatus.PAUSED, StatusCause.POSTCOPY_FAILED)
        assert target.status is VmStatus.RUNNING


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


# --- what is refused ------------------------------------------------------------------------------


async def _refused(sim: SmallCluster, name: str = "a", **fields: Any) -> Failure:
    failure = await sim.failure(sim.hypervisor.migrate(sim.move(name, to=fields.pop("to", "n2"), **fields)))
    assert sim.seen == [], "a move that is refused must leave no trace"
    assert sim.vm(name).node.id == "n1"
    assert not await sim.run(sim.hypervisor.has_job(N1, sim.id(name)))
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
        assert during.processed_bytes == before.processed_bytes
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
            await sim.clock.advance(1)
        assert iterations == {0, 1}

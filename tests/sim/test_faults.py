"""Every fault that can be injected, seen acting."""

from __future__ import annotations

import asyncio

import pytest

from manager.backends.sim.hypervisor import CONNECT_S, KEEP_ALIVE_S, NO_ROUTE_S, READ_S, SimHypervisor
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    ForeignJobSeen,
    NodeLost,
    VmDefinitionChanged,
    VmStateChanged,
    VmUndefined,
)
from manager.core.ids import NodeId, OperationId
from manager.core.model import StatusCause, VmStatus
from tests.support.sim import SmallCluster, small_cluster

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")


def _lost(sim: SmallCluster) -> list[str]:
    return [event.node for event in sim.seen if isinstance(event, NodeLost)]


# --- hosts --------------------------------------------------------------------------------------


async def test_delay() -> None:
    async with small_cluster() as sim:
        sim.faults.delay("n1", 2.5)
        await sim.run(sim.hypervisor.read_inventory(N1))
        assert sim.clock.monotonic_s() == 2.5
        await sim.run(sim.hypervisor.read_inventory(N2))
        assert sim.clock.monotonic_s() == 2.5


async def test_a_call_that_hangs_costs_itself_only() -> None:
    async with small_cluster() as sim:
        sim.faults.hang_call("n1", "sample")
        hanging = sim.begin(sim.hypervisor.sample(N1))
        await sim.clock.settle()
        assert len((await sim.run(sim.hypervisor.read_inventory(N1))).vms) == 2
        assert sim.clock.monotonic_s() == 0.0
        await sim.until(hanging.done)
        with pytest.raises(OperationError) as caught:
            hanging.result()
        assert caught.value.failure.code is FailureCode.TIMEOUT
        assert sim.clock.monotonic_s() == READ_S
        assert _lost(sim) == []
        await sim.run(sim.hypervisor.sample(N1))  # only one call was to hang


async def test_a_host_that_does_not_answer_a_plain_read_is_lost() -> None:
    async with small_cluster() as sim:
        sim.faults.hang_call("n1", "read_inventory")
        failure = await sim.failure(sim.hypervisor.read_inventory(N1))
        assert failure.code is FailureCode.TIMEOUT
        await sim.clock.settle()
        assert _lost(sim) == ["n1"]


@pytest.mark.parametrize("acts", [False, True])
async def test_a_change_that_is_never_answered_may_have_been_made(acts: bool) -> None:
    async with small_cluster() as sim:
        sim.faults.hang_call("n1", "change_vm", acts=acts)
        failure = await sim.failure(sim.hypervisor.change_vm(sim.change("a", VmChange.PAUSE)))
        assert failure.code is FailureCode.TIMEOUT
        assert sim.vm("a").status is (VmStatus.PAUSED if acts else VmStatus.RUNNING)


async def test_a_move_has_no_deadline_of_its_own() -> None:
    async with small_cluster() as sim:
        sim.faults.hang_call("n1", "migrate")
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2")))
        await sim.clock.advance(24 * 3600)
        assert not call.done()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_a_host_that_freezes_is_given_up_by_keep_alive() -> None:
    async with small_cluster() as sim:
        sim.faults.freeze("n1")
        failure = await sim.failure(sim.hypervisor.read_inventory(N1))
        assert failure.code is FailureCode.UNREACHABLE
        assert sim.clock.monotonic_s() == KEEP_ALIVE_S
        await sim.clock.settle()
        assert _lost(sim) == ["n1"]
        failure = await sim.failure(sim.hypervisor.connect(sim.config.nodes[0]))
        assert failure.code is FailureCode.TIMEOUT
        assert sim.clock.monotonic_s() == KEEP_ALIVE_S + CONNECT_S
        await sim.run(sim.hypervisor.read_inventory(N2))  # the others answer as before
        sim.faults.repair("n1")
        await sim.run(sim.hypervisor.connect(sim.config.nodes[0]))
        assert len((await sim.run(sim.hypervisor.read_inventory(N1))).vms) == 2


async def test_a_host_that_wakes_in_time_is_not_lost_and_loses_nothing() -> None:
    async with small_cluster() as sim:
        sim.faults.freeze("n1")
        call = sim.begin(sim.hypervisor.read_inventory(N1))
        sim.faults.crash("b")
        await sim.clock.advance(5)
        assert sim.seen == []
        assert not call.done()
        sim.faults.repair("n1")
        await sim.clock.advance(60)
        assert len((await call).vms) == 2
        assert sim.told("b") == [("n1", "Crashed", "crashed")]
        assert _lost(sim) == []


async def test_a_connection_attempt_that_is_under_way_when_the_host_wakes() -> None:
    async with small_cluster() as sim:
        await sim.hypervisor.disconnect(N1)
        sim.faults.freeze("n1")
        call = sim.begin(sim.hypervisor.connect(sim.config.nodes[0]))
        await sim.clock.advance(3)
        sim.faults.repair("n1")
        await sim.clock.settle()
        assert (await call).hostname == "n1"


async def test_a_network_that_is_cut() -> None:
    async with small_cluster() as sim:
        sim.faults.cut_network("n1")
        await sim.clock.advance(KEEP_ALIVE_S)
        assert _lost(sim) == ["n1"]
        began_s = sim.clock.monotonic_s()
        failure = await sim.failure(sim.hypervisor.connect(sim.config.nodes[0]))
        assert failure.code is FailureCode.UNREACHABLE
        assert sim.clock.monotonic_s() == began_s + NO_ROUTE_S
        assert sim.vm("a").status is VmStatus.RUNNING
        sim.faults.repair("n1")
        await sim.run(sim.hypervisor.connect(sim.config.nodes[0]))


async def test_a_daemon_that_is_killed_says_so_at_once() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        await sim.clock.advance(0.1)
        sim.faults.kill_daemon("n1")
        await sim.clock.settle()
        assert _lost(sim) == ["n1"]
        with pytest.raises(OperationError) as caught:
            call.result()
        assert caught.value.failure.code is FailureCode.UNREACHABLE
        failure = await sim.failure(sim.hypervisor.connect(sim.config.nodes[0]))
        assert failure.code is FailureCode.UNREACHABLE
        assert sim.vm("b").status is VmStatus.RUNNING


@pytest.mark.parametrize("told", [True, False])
async def test_a_host_that_loses_power_takes_its_vms_along(told: bool) -> None:
    async with small_cluster() as sim:
        sim.vm("b").config = sim.vm("b").config.__class__(memory_mib=1024, vcpus=1, autostart=True)
        sim.faults.power_off("n1", told=told)
        await sim.clock.settle()
        assert _lost(sim) == (["n1"] if told else [])
        await sim.clock.advance(60)
        assert _lost(sim) == ["n1"]
        sim.faults.power_on("n1")
        await sim.run(sim.hypervisor.connect(sim.config.nodes[0]))
        await sim.clock.advance(60)
        states = {seen.name: seen.status for seen in (await sim.run(sim.hypervisor.read_inventory(N1))).vms}
        assert states == {"a": VmStatus.OFF, "b": VmStatus.RUNNING}  # b starts with its host
        assert sim.told("a") == []  # a dead host tells nothing


async def test_a_host_that_was_back_before_anybody_noticed_still_lost_its_connections() -> None:
    async with small_cluster() as sim:
        sim.faults.power_off("n1")
        await sim.clock.advance(2)
        sim.faults.power_on("n1")
        await sim.clock.settle()
        assert _lost(sim) == ["n1"]


async def test_dropped_connections_leave_moves_alone() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(2)
        sim.faults.drop_connections("n1")
        await sim.clock.settle()
        assert _lost(sim) == ["n1"]
        with pytest.raises(OperationError):
            call.result()
        await sim.until(lambda: sim.node_of("a") == "n2")


async def test_refused_login_and_incompatible_host() -> None:
    async with small_cluster() as sim:
        sim.faults.refuse_login("n1")
        assert (await sim.failure(sim.hypervisor.connect(sim.config.nodes[0]))).code is FailureCode.LOGIN
        sim.faults.refuse_login("n1", refuse=False)
        sim.faults.make_incompatible("n1", "no QEMU driver")
        failure = await sim.failure(sim.hypervisor.connect(sim.config.nodes[0]))
        assert (failure.code, failure.text) == (FailureCode.INCOMPATIBLE, "no QEMU driver")
        sim.faults.make_incompatible("n1", "")
        await sim.run(sim.hypervisor.connect(sim.config.nodes[0]))


# --- events -------------------------------------------------------------------------------------


def _order(events: list[Event]) -> list[str]:
    return [event.name for event in events if isinstance(event, VmStateChanged)]


async def test_events_in_the_wrong_order() -> None:
    async with small_cluster(vms={"n1": ("a", "b", "c")}) as sim:
        sim.faults.swap_events("n1")
        for name in "abc":
            sim.faults.crash(name)
        await sim.clock.settle()
        assert _order(sim.seen) == ["b", "a", "c"]


async def test_a_lonely_event_to_be_swapped_is_not_lost() -> None:
    async with small_cluster() as sim:
        sim.faults.swap_events("n1")
        sim.faults.crash("a")
        await sim.clock.settle()
        assert sim.seen == []
        await sim.clock.advance(1)
        assert _order(sim.seen) == ["a"]


async def test_events_that_come_late_come_after_other_hosts_events() -> None:
    async with small_cluster() as sim:
        sim.faults.lag_events("n2", 3.0)
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        await sim.clock.advance(3.0)
        assert [node for node, _, _ in sim.told("a")] == ["n1", "n1", "n2", "n2"]


async def test_events_that_never_come() -> None:
    async with small_cluster() as sim:
        sim.faults.lose_events("n1", 1)
        sim.faults.crash("a")
        sim.faults.crash("b")
        await sim.clock.advance(10)
        assert _order(sim.seen) == ["b"]


# --- moves --------------------------------------------------------------------------------------


async def test_the_nth_move_fails_as_told() -> None:
    async with small_cluster(vms={"n1": ("a", "b", "c")}) as sim:
        sim.faults.fail_move(FailureCode.NO_RESOURCES, "no space", nth=2)
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        failure = await sim.failure(sim.hypervisor.migrate(sim.move("b", to="n2")))
        assert (failure.code, failure.text) == (FailureCode.NO_RESOURCES, "no space")
        assert (sim.node_of("b"), sim.vm("b").status) == ("n1", VmStatus.RUNNING)
        await sim.run(sim.hypervisor.migrate(sim.move("c", to="n2")))
        await sim.run(sim.hypervisor.migrate(sim.move("b", to="n2")))


async def test_the_move_of_one_vm_fails() -> None:
    async with small_cluster() as sim:
        sim.faults.fail_move(vm="b", after_s=1e9)  # at the switch-over, then
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        assert (await sim.failure(sim.hypervisor.migrate(sim.move("b", to="n2")))).code is FailureCode.OTHER
        assert sim.told("b")[-1] == ("n2", "Off", "failed")


async def test_success_is_told_and_the_vm_has_not_moved() -> None:
    async with small_cluster() as sim:
        sim.faults.end_move_wrongly(arrives=False, says=None)
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        assert (sim.node_of("a"), sim.vm("a").status) == ("n1", VmStatus.RUNNING)


async def test_failure_is_told_and_the_vm_has_moved() -> None:
    async with small_cluster() as sim:
        says = Failure(code=FailureCode.UNREACHABLE, text="lost")
        sim.faults.end_move_wrongly(arrives=True, says=says)
        assert await sim.failure(sim.hypervisor.migrate(sim.move("a", to="n2"))) == says
        assert (sim.node_of("a"), sim.vm("a").status) == ("n2", VmStatus.RUNNING)
        assert sim.at("a", "n1") is None


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_job_that_ends_without_a_word(arrives: bool) -> None:
    async with small_cluster() as sim:
        sim.faults.end_move_wrongly(arrives=arrives, silent=True)
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2")))
        await sim.clock.advance(3600)
        assert not call.done()
        for node in (N1, N2):
            assert not await sim.run(sim.hypervisor.has_job(node, sim.id("a")))
        progress = sim.hypervisor.job_progress(N1, sim.id("a"), OperationId("o"), 1)
        assert await sim.run(progress) is None
        assert sim.node_of("a") == ("n2" if arrives else "n1")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_a_move_by_someone_else_is_seen_as_such() -> None:
    async with small_cluster() as sim:
        sim.faults.move_by_someone_else("a", "n2", bandwidth_mib_s=100)
        await sim.clock.advance(2)
        foreign = [(event.node, event.active) for event in sim.seen if isinstance(event, ForeignJobSeen)]
        assert foreign == [("n1", True)]
        assert await sim.run(sim.hypervisor.has_job(N1, sim.id("a")))
        progress = await sim.run(sim.hypervisor.job_progress(N1, sim.id("a"), OperationId("o"), 1))
        assert progress is not None
        sim.faults.cancel_by_someone_else("a")
        await sim.clock.settle()
        assert sim.told("a")[-1] == ("n2", "Off", "failed")
        sim.faults.move_by_someone_else("a", "n2")
        await sim.until(lambda: sim.at("a", "n1") is None)
        foreign = [(event.node, event.active) for event in sim.seen if isinstance(event, ForeignJobSeen)]
        assert foreign == [("n1", True), ("n1", False)]


async def test_our_move_is_cancelled_by_someone_else() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(2)
        sim.faults.cancel_by_someone_else("a")
        await sim.clock.settle()
        with pytest.raises(OperationError) as caught:
            call.result()
        assert caught.value.failure.code is FailureCode.CANCELLED


# --- VMs ----------------------------------------------------------------------------------------


async def test_one_vm_on_two_nodes() -> None:
    async with small_cluster() as sim:
        sim.faults.run_twice("a", "n2")
        await sim.clock.settle()
        for node in (N1, N2):
            read = await sim.run(sim.hypervisor.read_inventory(node))
            assert (sim.id("a"), VmStatus.RUNNING) in {(seen.vm, seen.status) for seen in read.vms}
        assert sim.told("a") == [("n2", "Running", "booted")]


async def test_an_old_definition_elsewhere() -> None:
    async with small_cluster() as sim:
        sim.faults.define_twice("a", "n2")
        read = await sim.run(sim.hypervisor.read_inventory(N2))
        assert [(seen.status, seen.cause) for seen in read.vms] == [(VmStatus.OFF, StatusCause.MIGRATED)]
        failure = await sim.failure(
            sim.hypervisor.change_vm(
                sim.change("a", VmChange.START).__class__(
                    trace=sim.change("a", VmChange.START).trace,
                    operation=OperationId("o"),
                    attempt=1,
                    vm=sim.id("a"),
                    node=N2,
                    change=VmChange.START,
                )
            )
        )
        assert "lock" in failure.text  # its disk is in use: it runs on n1


async def test_a_vm_that_vanishes_without_a_word() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(2)
        sim.faults.vanish("a")
        await sim.clock.settle()
        with pytest.raises(OperationError):
            call.result()
        assert not list(sim.world.copies(sim.id("a")))
        assert (await sim.failure(sim.hypervisor.read_vm(N1, sim.id("a")))).code is FailureCode.NOT_FOUND


async def test_undefined_and_renamed() -> None:
    async with small_cluster() as sim:
        sim.faults.rename("b", "new")
        sim.faults.undefine("a")
        await sim.clock.settle()
        assert [type(event) for event in sim.seen] == [VmDefinitionChanged, VmUndefined]
        read = await sim.run(sim.hypervisor.read_inventory(N1))
        assert [seen.name for seen in read.vms] == ["a", "new"]  # it still runs
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
        read = await sim.run(sim.hypervisor.read_inventory(N1))
        assert [seen.name for seen in read.vms] == ["new"]


async def test_an_undefined_vm_that_is_off_is_gone() -> None:
    async with small_cluster() as sim:
        sim.vm("a").status = VmStatus.SAVED
        sim.faults.undefine("a")
        read = await sim.run(sim.hypervisor.read_inventory(N1))
        assert [seen.name for seen in read.vms] == ["b"]


async def test_a_name_that_nobody_has() -> None:
    async with small_cluster() as sim:
        with pytest.raises(LookupError, match="nobody"):
            sim.faults.crash("nobody")


# --- programs and clocks --------------------------------------------------------------------------


async def test_a_killed_program_finds_its_move_again() -> None:
    async with small_cluster() as sim:
        first = SimHypervisor(sim.world)
        for node in sim.config.nodes:
            await sim.run(first.connect(node))
        call = sim.begin(first.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(2)
        await first.close()
        await asyncio.gather(call, return_exceptions=True)
        second = SimHypervisor(sim.world)
        await sim.run(second.connect(sim.config.nodes[0]))
        assert await sim.run(second.has_job(N1, sim.id("a")))
        await second.close()


async def test_nobody_looks_for_a_while_and_the_world_has_gone_on() -> None:
    async with small_cluster() as sim:
        sim.faults.move_by_someone_else("a", "n2", bandwidth_mib_s=100)
        await sim.hypervisor.close()
        await sim.clock.advance(3600)
        later = SimHypervisor(sim.world)
        await sim.run(later.connect(sim.config.nodes[1]))
        assert [seen.name for seen in (await sim.run(later.read_inventory(N2))).vms] == ["a"]
        await later.close()


async def test_a_clock_jump_does_not_move_the_world() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(2)
        sim.clock.jump(86_400)
        await sim.clock.settle()
        assert not call.done()
        read = await sim.run(sim.hypervisor.read_inventory(N3))
        assert read.at_s == sim.clock.now_s()
        await sim.until(call.done, 60)
        await call

"""Every fault that can be injected, seen acting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manager.backends.sim.client import CONNECT_S, KEEP_ALIVE_S, LOCK_S, READ_S
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.moves import NO_ROUTE_S
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
            assert not await sim.run(sim.hypervisor.have_jobs(node, (sim.id("a"),)))
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
        assert await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
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


async def test_moves_that_fail_a_few_times_and_then_work() -> None:
    async with small_cluster() as sim:
        sim.faults.fail_move(FailureCode.UNREACHABLE, "client socket is closed", times=3)
        for _ in range(3):
            failure = await sim.failure(sim.hypervisor.migrate(sim.move("a", to="n2")))
            assert failure.is_retryable
            assert (sim.node_of("a"), sim.vm("a").status) == ("n1", VmStatus.RUNNING)
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))


# --- jobs of others -----------------------------------------------------------------------------


def _jobs(sim: SmallCluster) -> list[tuple[str, bool, str, bool]]:
    return [(e.node, e.active, e.what, e.migration) for e in sim.seen if isinstance(e, ForeignJobSeen)]


async def test_a_backup_by_someone_else_holds_the_vm_for_its_time() -> None:
    async with small_cluster() as sim:
        sim.faults.backup_by_someone_else("a", 20)
        await sim.clock.settle()
        assert _jobs(sim) == [("n1", True, "backup", False)]
        assert await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        await sim.run(sim.hypervisor.write_settings(sim.settings("a", sim.vm("a").config.settings)))
        assert sim.clock.monotonic_s() == 20  # waited for it, as libvirt does
        assert _jobs(sim)[1:] == [("n1", False, "backup", False)]
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))


async def test_a_pull_backup_runs_until_someone_ends_it() -> None:
    async with small_cluster() as sim:
        sim.faults.backup_by_someone_else("a")
        for call in (
            sim.hypervisor.migrate(sim.move("a", to="n2")),
            sim.hypervisor.save_to_file(sim.save("a")),
            sim.hypervisor.copy_disks(sim.copy_disks("a", "default")),
        ):
            failure = await sim.failure(call)
            assert failure.code is FailureCode.BUSY
            assert "backup" in failure.text
        assert sim.clock.monotonic_s() == 0  # said at once
        failure = await sim.failure(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        assert failure.code is FailureCode.BUSY
        assert sim.clock.monotonic_s() == LOCK_S
        await sim.clock.advance(24 * 3600)
        assert await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        with pytest.raises(OperationError, match="another job"):
            sim.faults.backup_by_someone_else("a")
        sim.faults.cancel_by_someone_else("a")
        assert not await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        assert _jobs(sim) == [("n1", True, "backup", False), ("n1", False, "backup", False)]
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))


async def test_a_save_by_someone_else() -> None:
    async with small_cluster() as sim:
        sim.faults.save_by_someone_else("a")
        sim.faults.save_by_someone_else("b", "/srv/vms/theirs.save")
        await sim.clock.advance(1)
        assert _jobs(sim) == [("n1", True, "save", False)] * 2
        await sim.clock.advance(10)
        assert _jobs(sim)[2:] == [("n1", False, "save", False)] * 2
        assert (sim.vm("a").status, sim.vm("b").status) == (VmStatus.SAVED, VmStatus.OFF)
        assert sim.world.storage.saved[None, "/srv/vms/theirs.save"].whole


async def test_a_copy_of_disks_by_someone_else() -> None:
    async with small_cluster() as sim:
        sim.faults.copy_disks_by_someone_else("a", "default")
        await sim.clock.advance(1)
        assert _jobs(sim) == [("n1", True, "block copy", False)]
        assert await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        await sim.clock.advance(60)
        assert _jobs(sim)[1:] == [("n1", False, "block copy", False)]
        assert sim.vm("a").config.disks[0].source == "/var/lib/libvirt/images/a.qcow2"


async def test_who_connects_later_hears_of_jobs_that_run() -> None:
    async with small_cluster() as sim:
        await sim.hypervisor.disconnect(N1)
        sim.faults.backup_by_someone_else("a")
        sim.faults.move_by_someone_else("b", "n2", bandwidth_mib_s=100)
        await sim.run(sim.hypervisor.connect(sim.config.nodes[0]))
        for _ in range(2):  # told once
            for node in (N1, N2):
                await sim.run(sim.hypervisor.read_inventory(node))
            assert _jobs(sim) == [("n1", True, "backup", False), ("n1", True, "migration", True)]


async def test_a_job_whose_end_was_lost_is_over_with_the_next_read() -> None:
    async with small_cluster() as sim:
        sim.faults.backup_by_someone_else("a", 10)
        sim.faults.backup_by_someone_else("b", 10)
        await sim.clock.settle()
        sim.faults.lose_events("n1", 2)
        await sim.clock.advance(20)
        assert not await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("b"),)))  # who asks, knows
        await sim.run(sim.hypervisor.read_inventory(N1))
        assert [(e.vm, e.active) for e in sim.seen if isinstance(e, ForeignJobSeen)] == [
            (sim.id("a"), True),
            (sim.id("b"), True),
            (sim.id("a"), False),
        ]


async def test_a_job_that_was_not_told_is_told_to_who_finds_it_in_the_way() -> None:
    async with small_cluster() as sim:
        sim.faults.lose_events("n1", 1)
        sim.faults.backup_by_someone_else("a")
        assert (await sim.failure(sim.hypervisor.migrate(sim.move("a", to="n2")))).code is FailureCode.BUSY
        assert _jobs(sim) == [("n1", True, "backup", False)]


async def test_nobody_is_told_of_his_own_jobs() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.START)))
        await sim.run(sim.hypervisor.migrate(sim.move("b", to="n2")))
        assert _jobs(sim) == []


# --- calls --------------------------------------------------------------------------------------


async def test_the_nth_call_fails_and_only_that() -> None:
    async with small_cluster() as sim:
        sim.faults.fail_call("copy_definition", FailureCode.CONFLICT, "no", nth=2)
        for name in "ab":
            await sim.run(sim.hypervisor.change_vm(sim.change(name, VmChange.TURN_OFF)))
        await sim.run(sim.hypervisor.copy_definition(sim.define("a", "n2")))
        failure = await sim.failure(sim.hypervisor.copy_definition(sim.define("b", "n2")))
        assert (failure.code, failure.text, failure.node, failure.vm) == (
            FailureCode.CONFLICT,
            "no",
            N1,
            sim.id("b"),
        )
        assert sim.at("b", "n2") is None
        await sim.run(sim.hypervisor.copy_definition(sim.define("b", "n2")))


async def test_calls_fail_at_one_host_or_for_one_vm() -> None:
    async with small_cluster(vms={"n1": ("a", "b"), "n2": ("c",)}) as sim:
        sim.faults.fail_call("read_vm", node="n2")
        sim.faults.fail_call("change_vm", vm="b")
        await sim.run(sim.hypervisor.read_vm(N1, sim.id("a")))
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.PAUSE)))
        assert (await sim.failure(sim.hypervisor.read_vm(N2, sim.id("c")))).code is FailureCode.OTHER
        failure = await sim.failure(sim.hypervisor.change_vm(sim.change("b", VmChange.PAUSE)))
        assert failure.code is FailureCode.OTHER
        await sim.run(sim.hypervisor.change_vm(sim.change("b", VmChange.PAUSE)))


@pytest.mark.parametrize("times", [1, 3])
async def test_a_connection_that_is_lost_a_few_times(times: int) -> None:
    async with small_cluster() as sim:
        sim.faults.lose_connection("save_to_file", times=times)
        for _ in range(times):
            failure = await sim.failure(sim.hypervisor.save_to_file(sim.save("a")))
            assert failure.code is FailureCode.UNREACHABLE
            assert sim.vm("a").status is VmStatus.RUNNING
        await sim.run(sim.hypervisor.save_to_file(sim.save("a")))
        assert _lost(sim) == []


async def test_a_host_that_is_busy_for_a_while() -> None:
    async with small_cluster(vms={"n1": ("a",), "n2": ("c",)}) as sim:
        sim.faults.make_busy(30, node="n1")
        for _ in range(3):
            for call in (
                sim.hypervisor.migrate(sim.move("a", to="n2")),
                sim.hypervisor.save_to_file(sim.save("a")),
                sim.hypervisor.write_settings(sim.settings("a", sim.vm("a").config.settings)),
            ):
                failure = await sim.failure(call)
                assert failure.code is FailureCode.BUSY
                assert failure.is_retryable
            await sim.clock.advance(9)
        await sim.run(sim.hypervisor.read_vm(N1, sim.id("a")))  # it answers all the same
        await sim.run(sim.hypervisor.migrate(sim.move("c", to="n3")))
        await sim.clock.advance(3)
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))


@pytest.mark.parametrize(
    ("call", "begin"),
    [
        ("migrate", lambda sim: sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=50))),
        ("save_to_file", lambda sim: sim.hypervisor.save_to_file(sim.save("a"))),
        ("copy_disks", lambda sim: sim.hypervisor.copy_disks(sim.copy_disks("a", "default"))),
        ("change_vm", lambda sim: sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE))),
    ],
)
async def test_a_job_that_breaks_off_leaves_the_vm_running(call: str, begin: Any) -> None:
    async with small_cluster() as sim:
        sim.faults.fail_call(call, FailureCode.STORAGE, "it broke", after_s=0.7)
        failure = await sim.failure(begin(sim))
        assert (failure.code, failure.text, failure.node) == (FailureCode.STORAGE, "it broke", N1)
        assert sim.clock.monotonic_s() == pytest.approx(0.7)
        assert (sim.node_of("a"), sim.vm("a").status) == ("n1", VmStatus.RUNNING)
        assert not await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        assert not sim.world.storage.saved
        await sim.run(begin(sim))


@pytest.mark.parametrize("acts", [False, True])
@pytest.mark.parametrize("call", ["save_to_file", "copy_disks"])
async def test_a_long_call_that_is_never_answered(call: str, acts: bool) -> None:
    async with small_cluster() as sim:
        sim.faults.hang_call("n1", call, acts=acts)
        begin = {
            "save_to_file": lambda: sim.hypervisor.save_to_file(sim.save("a")),
            "copy_disks": lambda: sim.hypervisor.copy_disks(sim.copy_disks("a", "default")),
        }[call]
        task = sim.begin(begin())
        await sim.clock.advance(24 * 3600)  # it has no deadline of its own
        assert not task.done()
        done = sim.vm("a").status is VmStatus.OFF or "images" in sim.vm("a").config.disks[0].source
        assert done is acts
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("acts", [False, True])
async def test_a_restore_that_is_never_answered_may_have_been_made(acts: bool) -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.save_to_file(sim.save("a")))
        sim.faults.hang_call("n1", "restore_from_file", acts=acts)
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("a", "n1")), 4000)
        assert failure.code is FailureCode.TIMEOUT
        assert sim.vm("a").status is (VmStatus.RUNNING if acts else VmStatus.OFF)
        assert bool(sim.world.storage.saved) is not acts


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
        assert await sim.run(second.have_jobs(N1, (sim.id("a"),)))
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

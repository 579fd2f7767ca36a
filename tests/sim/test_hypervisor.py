"""The simulator's connections, reads and changes of state."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from manager.backends.sim.client import KEEP_ALIVE_S, LOCK_S
from manager.backends.sim.hosts import Guest
from manager.backends.sim.hypervisor import SimHypervisor
from manager.core.effects import VmChange
from manager.core.errors import FailureCode, OperationError
from manager.core.events import NodeLost, VmDefinitionChanged, VmRebooted, VmStateChanged
from manager.core.ids import NodeId, OperationId
from manager.core.model import AgentState, NodeConfig, Priority, VmSettings, VmStatus
from manager.services.ports import Feature, Hypervisor
from tests.support.sim import small_cluster

N1, N2 = NodeId("n1"), NodeId("n2")


def test_it_is_the_port() -> None:
    port: type[Hypervisor] = SimHypervisor
    assert port is SimHypervisor


async def test_facts_and_inventory() -> None:
    async with small_cluster(vms={"n1": ("a", "b"), "n2": ("c",)}) as sim:
        facts = await sim.run(sim.hypervisor.connect(sim.config.nodes[0]))
        assert (facts.hostname, facts.memory_mib) == ("n1", 64 * 1024)
        assert facts.features == frozenset(Feature)
        read = await sim.run(sim.hypervisor.read_inventory(N1))
        assert [(seen.name, seen.status) for seen in read.vms] == [
            ("a", VmStatus.RUNNING),
            ("b", VmStatus.RUNNING),
        ]
        assert len({seen.incarnation for seen in read.vms}) == 2


async def test_a_definition_says_what_it_is_and_how_the_agent_is() -> None:
    async with small_cluster() as sim:
        first = await sim.run(sim.hypervisor.read_vm(N1, sim.id("a")))
        assert (first.config.memory_mib, first.config.agent) == (2048, AgentState.CONNECTED)
        sim.faults.silence_agent("a")
        second = await sim.run(sim.hypervisor.read_vm(N1, sim.id("a")))
        assert second.config.agent is AgentState.DISCONNECTED
        assert second.config.digest == first.config.digest  # the definition is the same
        sim.faults.spoil_definition("a", "<domain> has no <name>")
        third = await sim.run(sim.hypervisor.read_vm(N1, sim.id("a")))
        assert third.config.trouble == "<domain> has no <name>"
        assert third.config.digest != first.config.digest
        assert [type(event) for event in sim.seen] == [VmDefinitionChanged, VmDefinitionChanged]


async def test_cpu_figures_need_two_samples() -> None:
    async with small_cluster() as sim:
        first = await sim.run(sim.hypervisor.sample(N1))
        assert first.load.cpu_percent is None
        assert {load.cpu_percent for load in first.vms.values()} == {None}
        assert first.load.memory_free_mib == 64 * 1024 - 2048 - 2 * 2048
        await sim.clock.advance(5)
        second = await sim.run(sim.hypervisor.sample(N1))
        assert second.load.cpu_percent is not None
        assert all(0 < (load.cpu_percent or 0) <= 100 for load in second.vms.values())
        await sim.clock.advance(60)
        third = await sim.run(sim.hypervisor.sample(N1))
        assert third.vms != second.vms


async def test_only_vms_that_run_have_loads() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
        sample = await sim.run(sim.hypervisor.sample(N1))
        assert set(sample.vms) == {sim.id("b")}


async def test_a_node_that_is_not_connected_is_unreachable() -> None:
    async with small_cluster() as sim:
        await sim.hypervisor.disconnect(N1)
        failure = await sim.failure(sim.hypervisor.read_inventory(N1))
        assert failure.code is FailureCode.UNREACHABLE
        assert not [event for event in sim.seen if isinstance(event, NodeLost)]
        failure = await sim.failure(sim.hypervisor.connect(NodeConfig(name=NodeId("n9"), uri="sim://n9/")))
        assert failure.code is FailureCode.UNREACHABLE


# --- changes of state ---------------------------------------------------------------------------


async def test_start_takes_its_time_and_says_so() -> None:
    async with small_cluster(guest=Guest(boot_s=4.0)) as sim:
        sim.vm("a").status = VmStatus.OFF
        began_s = sim.clock.monotonic_s()
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.START)))
        assert sim.clock.monotonic_s() - began_s == pytest.approx(4.0)
        assert sim.told("a") == [("n1", "Running", "booted")]


async def test_a_start_holds_its_memory_from_the_beginning() -> None:
    async with small_cluster(memory_mib=2048 + 3072, vms={"n1": ("a", "b")}) as sim:
        sim.vm("a").status = sim.vm("b").status = VmStatus.OFF
        first = sim.begin(sim.hypervisor.change_vm(sim.change("a", VmChange.START)))
        await sim.clock.settle()
        failure = await sim.failure(sim.hypervisor.change_vm(sim.change("b", VmChange.START)))
        assert failure.code is FailureCode.NO_RESOURCES
        await sim.until(first.done)
        await first


async def test_shutdown_returns_at_once_and_the_guest_is_off_later() -> None:
    async with small_cluster(guest=Guest(shutdown_s=7.0)) as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SHUT_DOWN)))
        assert sim.clock.monotonic_s() < 1.0
        assert sim.vm("a").status is VmStatus.RUNNING
        await sim.until(lambda: sim.vm("a").status is VmStatus.OFF, 10.0)
        events = [event for event in sim.seen if isinstance(event, VmStateChanged)]
        assert [(event.status, event.shutting_down) for event in events] == [
            (VmStatus.RUNNING, True),
            (VmStatus.OFF, False),
        ]


async def test_a_shutdown_that_is_ignored_changes_nothing() -> None:
    async with small_cluster() as sim:
        sim.faults.ignore_shutdown("a")
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SHUT_DOWN)))
        await sim.clock.advance(3600)
        assert sim.vm("a").status is VmStatus.RUNNING
        assert sim.seen == []
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SHUT_DOWN_AGENT)))
        await sim.until(lambda: sim.vm("a").status is VmStatus.OFF)


async def test_a_silent_agent_cannot_shut_down() -> None:
    async with small_cluster() as sim:
        sim.faults.silence_agent("a")
        failure = await sim.failure(sim.hypervisor.change_vm(sim.change("a", VmChange.SHUT_DOWN_AGENT)))
        assert failure.code is FailureCode.NO_AGENT


async def test_save_start_and_delete_saved_state() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        assert sim.told("a") == [("n1", "Paused", "being saved"), ("n1", "Saved", "saved")]
        assert sim.clock.monotonic_s() > 1.0
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.START)))
        assert sim.told("a")[-1] == ("n1", "Running", "restored")
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.DELETE_SAVED_STATE)))
        assert sim.told("a")[-1] == ("n1", "Off", "")


async def test_a_save_can_be_cancelled() -> None:
    async with small_cluster(vm_memory_mib=16 * 1024) as sim:
        call = sim.begin(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        await sim.clock.advance(1)
        assert await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        await sim.until(call.done)
        with pytest.raises(OperationError) as caught:
            call.result()
        assert caught.value.failure.code is FailureCode.CANCELLED
        assert sim.vm("a").status is VmStatus.RUNNING


async def test_pause_resume_reset_restart() -> None:
    async with small_cluster(guest=Guest(shutdown_s=5.0)) as sim:
        for change in (VmChange.PAUSE, VmChange.RESUME, VmChange.RESET, VmChange.RESTART):
            await sim.run(sim.hypervisor.change_vm(sim.change("a", change)))
        assert sim.told("a") == [
            ("n1", "Paused", "by an administrator"),
            ("n1", "Running", "by an administrator"),
        ]
        assert len([event for event in sim.seen if isinstance(event, VmRebooted)]) == 1
        await sim.clock.advance(6)
        assert len([event for event in sim.seen if isinstance(event, VmRebooted)]) == 2


async def test_a_paused_guest_shuts_down_when_it_goes_on() -> None:
    async with small_cluster(guest=Guest(shutdown_s=2.0)) as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SHUT_DOWN)))
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.PAUSE)))
        await sim.clock.advance(60)
        assert sim.vm("a").status is VmStatus.PAUSED
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.RESUME)))
        await sim.clock.advance(5)
        assert sim.vm("a").status is VmStatus.OFF


@pytest.mark.parametrize(
    ("status", "change", "code"),
    [
        (VmStatus.RUNNING, VmChange.START, FailureCode.ALREADY),
        (VmStatus.RUNNING, VmChange.RESUME, FailureCode.ALREADY),
        (VmStatus.RUNNING, VmChange.DELETE_SAVED_STATE, FailureCode.ALREADY),
        (VmStatus.PAUSED, VmChange.PAUSE, FailureCode.ALREADY),
        (VmStatus.OFF, VmChange.SHUT_DOWN, FailureCode.ALREADY),
        (VmStatus.OFF, VmChange.TURN_OFF, FailureCode.ALREADY),
        (VmStatus.CRASHED, VmChange.TURN_OFF, FailureCode.ALREADY),
        (VmStatus.SAVED, VmChange.SAVE, FailureCode.ALREADY),
        (VmStatus.OFF, VmChange.SAVE, FailureCode.WRONG_STATE),
        (VmStatus.SAVED, VmChange.PAUSE, FailureCode.WRONG_STATE),
        (VmStatus.CRASHED, VmChange.RESET, FailureCode.WRONG_STATE),
        (VmStatus.CRASHED, VmChange.SHUT_DOWN, FailureCode.WRONG_STATE),
    ],
)
async def test_a_change_that_the_state_does_not_permit(
    status: VmStatus, change: VmChange, code: FailureCode
) -> None:
    async with small_cluster() as sim:
        sim.vm("a").status = status
        failure = await sim.failure(sim.hypervisor.change_vm(sim.change("a", change)))
        assert failure.code is code
        assert sim.vm("a").status is status
        assert sim.seen == []


async def test_a_vm_that_is_not_there() -> None:
    async with small_cluster() as sim:
        effect = replace(sim.change("a", VmChange.PAUSE), vm=sim.id("nobody"))
        assert (await sim.failure(sim.hypervisor.change_vm(effect))).code is FailureCode.NOT_FOUND
        assert (await sim.failure(sim.hypervisor.read_vm(N1, sim.id("nobody")))).code is FailureCode.NOT_FOUND
        progress = sim.hypervisor.job_progress(N1, sim.id("nobody"), OperationId("o"), 1)
        assert await sim.run(progress) is None


async def test_a_disk_error_comes_back_until_there_is_room() -> None:
    async with small_cluster() as sim:
        sim.faults.fill_disk("a")
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.RESUME)))
        await sim.clock.advance(5)
        assert sim.told("a") == [
            ("n1", "Paused", "disk error"),
            ("n1", "Running", "by an administrator"),
            ("n1", "Paused", "disk error"),
        ]
        sim.faults.free_disk("a")
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.RESUME)))
        await sim.clock.advance(5)
        assert sim.vm("a").status is VmStatus.RUNNING


async def test_settings_are_written_and_what_others_keep_stays() -> None:
    async with small_cluster() as sim:
        sim.vm("a").foreign_metadata = "<other:note>theirs</other:note>"
        wanted = VmSettings(priority=Priority.HIGH, tags=("web",))
        await sim.run(sim.hypervisor.write_settings(sim.settings("a", wanted)))
        read = await sim.run(sim.hypervisor.read_vm(N1, sim.id("a")))
        assert read.config.settings == wanted
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        assert sim.vm("a").foreign_metadata == "<other:note>theirs</other:note>"
        assert sim.vm("a").config.settings == wanted


async def test_another_job_on_the_vm_is_waited_for_and_not_for_ever() -> None:
    async with small_cluster(vm_memory_mib=8192) as sim:
        move = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=50)))
        await sim.clock.advance(2)
        began_s = sim.clock.monotonic_s()
        failure = await sim.failure(sim.hypervisor.write_settings(sim.settings("a", VmSettings(tags=("x",)))))
        assert failure.code is FailureCode.BUSY
        assert "state change lock" in failure.text
        assert sim.clock.monotonic_s() - began_s == pytest.approx(LOCK_S)
        # A pause does not wait, and the VM arrives paused.
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.PAUSE)), 1.0)
        await sim.until(move.done)
        await move
        assert (sim.node_of("a"), sim.vm("a").status) == ("n2", VmStatus.PAUSED)


async def test_a_short_job_only_delays_a_change() -> None:
    async with small_cluster() as sim:
        move = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=200)))
        await sim.clock.advance(1)
        failure = await sim.failure(sim.hypervisor.change_vm(sim.change("a", VmChange.SHUT_DOWN)))
        assert failure.code is FailureCode.NOT_FOUND  # it has left this node meanwhile
        await move


async def test_read_only_changes_nothing() -> None:
    async with small_cluster() as sim:
        other = SimHypervisor(sim.world, read_only=True)
        facts = await sim.run(other.connect(sim.config.nodes[0]))
        assert facts.read_only
        for call in (
            other.change_vm(sim.change("a", VmChange.TURN_OFF)),
            other.write_settings(sim.settings("a", VmSettings())),
            other.migrate(sim.move("a", to="n2")),
            other.abort(sim.abort("a")),
        ):
            assert (await sim.failure(call)).code is FailureCode.DENIED
        assert len((await sim.run(other.read_inventory(N1))).vms) == 2
        await other.close()


# --- several programs, ends -----------------------------------------------------------------------


async def test_two_programs_see_the_same_world() -> None:
    async with small_cluster() as sim:
        other = SimHypervisor(sim.world)
        heard: list[str] = []

        async def listen() -> None:
            async for event in other.events():
                heard.append(type(event).__name__)

        listener = sim.begin(listen())
        await sim.run(other.connect(sim.config.nodes[0]))
        await sim.run(other.change_vm(sim.change("a", VmChange.PAUSE)))
        assert heard == [type(event).__name__ for event in sim.seen] == ["VmStateChanged"]
        await other.close()
        await listener


async def test_close_releases_whoever_waits_and_leaves_nothing() -> None:
    async with small_cluster() as sim:
        sim.faults.freeze("n1")
        calls = [
            sim.begin(sim.hypervisor.read_inventory(N1)),
            sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2"))),
            sim.begin(sim.hypervisor.connect(sim.config.nodes[1])),
        ]
        await sim.clock.settle()
        await sim.hypervisor.close()
        await sim.clock.settle()
        assert sim.clock.monotonic_s() == 0.0
        results = await asyncio.gather(*calls[:2], return_exceptions=True)
        assert [type(result) for result in results] == [OperationError, OperationError]
        await sim.hypervisor.close()  # twice is harmless
        failure = await sim.failure(sim.hypervisor.connect(sim.config.nodes[0]))
        assert failure.code is FailureCode.UNREACHABLE
        await asyncio.gather(calls[2], return_exceptions=True)


async def test_connecting_again_gives_up_what_waits_on_the_old_connection() -> None:
    async with small_cluster() as sim:
        sim.faults.hang_call("n1", "sample")
        call = sim.begin(sim.hypervisor.sample(N1))
        await sim.clock.settle()
        await sim.run(sim.hypervisor.connect(sim.config.nodes[0]))
        with pytest.raises(OperationError) as caught:
            await call
        assert caught.value.failure.code is FailureCode.UNREACHABLE
        assert not [event for event in sim.seen if isinstance(event, NodeLost)]


async def test_nothing_runs_while_nothing_is_to_happen() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.read_inventory(N1))
        await sim.run(sim.hypervisor.migrate(sim.move("a", to="n2")))
        # Deadlines of calls that were answered may still be slept for once, and no longer.
        await sim.clock.advance(KEEP_ALIVE_S + 3600)
        assert sim.clock.sleepers == 0


async def test_a_cancelled_caller_harms_nobody() -> None:
    async with small_cluster() as sim:
        call = sim.begin(sim.hypervisor.migrate(sim.move("a", to="n2", bandwidth_mib_s=100)))
        await sim.clock.advance(2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await sim.until(lambda: sim.node_of("a") == "n2")  # node to node: it goes on
        assert len((await sim.run(sim.hypervisor.read_inventory(N2))).vms) == 1

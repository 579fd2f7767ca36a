"""The simulator's saved memory, definitions that go from host to host, disks that go from pool to pool."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from manager.backends.sim.hosts import Pool
from manager.backends.sim.hypervisor import SimHypervisor
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import ForeignJobSeen, MigrationProgress, VmDefinitionChanged, VmUndefined
from manager.core.ids import NodeId, OperationId
from manager.core.model import Disk, PeerRoute, StatusCause, VmStatus
from manager.core.units import GIB, MIB
from tests.support.sim import SmallCluster, config_of, small_cluster

N1, N2 = NodeId("n1"), NodeId("n2")
PATH = "/srv/vms/moving.save"
FILE = (None, PATH)


async def _outcome(sim: SmallCluster, call: asyncio.Task[Any]) -> Failure | None:
    await sim.until(call.done)
    try:
        call.result()
    except OperationError as error:
        return error.failure
    return None


async def _figures(sim: SmallCluster, name: str, node: str = "n1") -> MigrationProgress | None:
    return await sim.run(sim.hypervisor.job_progress(NodeId(node), sim.id(name), OperationId("o"), 1))


async def _states(sim: SmallCluster, name: str) -> dict[str, VmStatus]:
    """What every host says of a VM."""
    found = {}
    for node in sim.world.nodes:
        for seen in (await sim.run(sim.hypervisor.read_inventory(node))).vms:
            if seen.vm == sim.id(name):
                found[str(node)] = seen.status
    return found


# --- a quick move, step by step -------------------------------------------------------------------


async def test_a_quick_move() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        assert sim.told("a") == [("n1", "Paused", "being saved"), ("n1", "Off", "saved")]
        assert await _states(sim, "a") == {"n1": VmStatus.OFF}
        await sim.run(sim.hypervisor.copy_definition(sim.define("a", "n2", autostart=True)))
        assert await _states(sim, "a") == {"n1": VmStatus.OFF, "n2": VmStatus.OFF}
        began_s = sim.clock.monotonic_s()
        await sim.run(sim.hypervisor.restore_from_file(sim.restore("a", "n2", PATH)))
        assert sim.clock.monotonic_s() - began_s == pytest.approx(2048 * MIB * 0.6 / 800e6 + 0.5)
        assert sim.told("a")[-1] == ("n2", "Running", "restored")
        assert FILE not in sim.world.storage.saved
        await sim.run(sim.hypervisor.forget_definition(sim.forget("a")))
        assert await _states(sim, "a") == {"n2": VmStatus.RUNNING}
        assert sim.vm("a").config.autostart
        assert [type(e) for e in sim.seen if not hasattr(e, "status")] == [VmDefinitionChanged, VmUndefined]
        assert not sim.world.twice


async def test_a_save_takes_what_its_bytes_need_and_says_how_far_it_is() -> None:
    async with small_cluster(vm_memory_mib=16 * 1024, vms={"n1": ("a", "b"), "n2": ("c",)}) as sim:
        total = 16 * 1024 * MIB * 0.6
        call = sim.begin(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        await sim.clock.advance(4)
        assert await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        figures = await _figures(sim, "a")
        assert figures is not None
        assert (figures.total_bytes, figures.rate_bytes_per_s) == (int(total), int(800e6))
        assert figures.total_bytes - figures.remaining_bytes == pytest.approx(3.2e9)
        assert (figures.iteration, figures.elapsed_ms) == (0, 4000)
        # A second one shares the disk, one on another host does not.
        others = [sim.begin(sim.hypervisor.save_to_file(sim.save(name, f"/srv/vms/{name}"))) for name in "bc"]
        await sim.clock.advance(1)
        rates = [(await _figures(sim, name, node)) for name, node in (("a", "n1"), ("b", "n1"), ("c", "n2"))]
        assert [now.rate_bytes_per_s for now in rates if now] == [400e6, 400e6, 800e6]
        for one in (call, *others):
            assert await _outcome(sim, one) is None
        assert sim.clock.monotonic_s() == pytest.approx(2 * total / 800e6)
        assert await _figures(sim, "a") is None


async def test_a_cancelled_save_leaves_the_vm_running_and_no_file() -> None:
    async with small_cluster(vm_memory_mib=16 * 1024) as sim:
        call = sim.begin(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        await sim.clock.advance(1)
        assert FILE in sim.world.storage.saved
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.CANCELLED
        assert sim.told("a")[-1] == ("n1", "Running", "")
        assert FILE not in sim.world.storage.saved
        assert not [event for event in sim.seen if isinstance(event, ForeignJobSeen)]  # it is ours


async def test_a_cancel_that_overtakes_the_save_holds() -> None:
    async with small_cluster() as sim:
        sim.faults.delay("n1", 1.0)
        call = sim.begin(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        await sim.clock.advance(0.5)
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.CANCELLED
        assert sim.vm("a").status is VmStatus.RUNNING


async def test_a_paused_vm_is_paused_after_all() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.PAUSE)))
        await sim.run(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        await sim.run(sim.hypervisor.restore_from_file(sim.restore("a", "n1", PATH)))
        assert sim.told("a")[-1] == ("n1", "Paused", "restored")
        call = sim.begin(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        await sim.clock.advance(0.2)
        await sim.run(sim.hypervisor.abort(sim.abort("a")))
        assert await _outcome(sim, call) is not None
        assert sim.vm("a").status is VmStatus.PAUSED


async def test_a_program_that_ends_does_not_end_the_save() -> None:
    async with small_cluster() as sim:
        other = SimHypervisor(sim.world)
        for node in config_of(sim.world).nodes:
            await sim.run(other.connect(node))
        call = sim.begin(other.save_to_file(sim.save("a", PATH)))
        await sim.clock.advance(0.5)
        await other.close()
        assert await _outcome(sim, call) is not None
        await sim.clock.advance(60)
        assert sim.vm("a").status is VmStatus.OFF
        assert sim.world.storage.saved[FILE].whole


async def test_where_a_save_cannot_go() -> None:
    async with small_cluster() as sim:
        for path in ("/nowhere/a.save", "/var/lib/libvirt/images/a.save"):
            failure = await sim.failure(sim.hypervisor.save_to_file(sim.save("a", path)))
            assert failure.code is FailureCode.UNSAFE  # no other host could read it
        sim.faults.fill_pool("n1", "vms", 1e6)
        failure = await sim.failure(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        assert failure.code is FailureCode.NO_RESOURCES
        assert sim.seen == []
        assert not sim.world.storage.saved
        sim.vm("b").config = replace(sim.vm("b").config, host_devices=("PCI",))
        sim.faults.fill_pool("n1", "vms", 1e12)
        failure = await sim.failure(sim.hypervisor.save_to_file(sim.save("b")))
        assert failure.code is FailureCode.WRONG_STATE
        sim.vm("b").config = replace(sim.vm("b").config, host_devices=(), persistent=False)
        failure = await sim.failure(sim.hypervisor.save_to_file(sim.save("b")))
        assert failure.code is FailureCode.WRONG_STATE
        sim.vm("b").status = VmStatus.OFF
        failure = await sim.failure(sim.hypervisor.save_to_file(sim.save("b")))
        assert failure.code is FailureCode.WRONG_STATE


async def test_a_file_of_another_vm_is_not_written_over_and_an_old_one_is() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        failure = await sim.failure(sim.hypervisor.save_to_file(sim.save("b", PATH)))
        assert failure.code is FailureCode.CONFLICT
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.START)))
        await sim.run(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        await sim.run(sim.hypervisor.restore_from_file(sim.restore("a", "n1", PATH)))


# --- restoring ------------------------------------------------------------------------------------


async def _saved(sim: SmallCluster, path: str = PATH) -> None:
    await sim.run(sim.hypervisor.save_to_file(sim.save("a", path)))
    await sim.run(sim.hypervisor.copy_definition(sim.define("a", "n2")))


async def test_a_restore_needs_the_file() -> None:
    async with small_cluster() as sim:
        await _saved(sim)
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("a", "n2", PATH + "x")))
        assert failure.code is FailureCode.STORAGE
        sim.faults.lose_file("n2", PATH)
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("a", "n2", PATH)))
        assert failure.code is FailureCode.STORAGE
        assert sim.vm("a").status is VmStatus.OFF


async def test_a_path_that_only_some_hosts_share() -> None:
    async with small_cluster() as sim:
        sim.world.nodes[N1].shared_paths = sim.world.nodes[N2].shared_paths = ("/srv/vms", "/srv/both")
        path = "/srv/both/a.save"
        await sim.run(sim.hypervisor.save_to_file(sim.save("a", path)))
        for node in ("n2", "n3"):
            await sim.run(sim.hypervisor.copy_definition(sim.define("a", node)))
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("a", "n3", path)))
        assert failure.code is FailureCode.UNSAFE
        await sim.run(sim.hypervisor.restore_from_file(sim.restore("a", "n2", path)))
        assert sim.node_of("a") == "n2"


async def test_a_restore_that_is_refused_or_fails_keeps_the_file() -> None:
    async with small_cluster() as sim:
        await _saved(sim)
        sim.world.nodes[N2].memory_mib = 2048 + 1024
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("a", "n2", PATH)))
        assert failure.code is FailureCode.NO_RESOURCES
        sim.world.nodes[N2].memory_mib = 64 * 1024
        sim.faults.fail_call("restore_from_file", text="no more", after_s=1.0)
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("a", "n2", PATH)))
        assert (failure.text, failure.node) == ("no more", N2)
        assert await _states(sim, "a") == {"n1": VmStatus.OFF, "n2": VmStatus.OFF}
        await sim.run(sim.hypervisor.restore_from_file(sim.restore("a", "n1", PATH)))
        assert sim.node_of("a") == "n1"
        assert not sim.world.twice


async def test_a_file_of_another_vm_and_a_vm_that_runs() -> None:
    async with small_cluster() as sim:
        await _saved(sim)
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("b", "n1", PATH)))
        assert failure.code is FailureCode.WRONG_STATE
        await sim.run(sim.hypervisor.change_vm(sim.change("b", VmChange.TURN_OFF)))
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("b", "n1", PATH)))
        assert failure.code is FailureCode.CONFLICT
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("b", "n3", PATH)))
        assert failure.code is FailureCode.NOT_FOUND


async def test_a_host_that_dies_while_it_saves_leaves_half_a_file() -> None:
    async with small_cluster(vm_memory_mib=16 * 1024) as sim:
        call = sim.begin(sim.hypervisor.save_to_file(sim.save("a", PATH)))
        await sim.clock.advance(2)
        sim.faults.power_off("n1", told=True)
        assert await _outcome(sim, call) is not None
        sim.faults.power_on("n1")
        await sim.run(sim.hypervisor.connect(sim.config.nodes[0]))
        assert sim.vm("a").status is VmStatus.OFF
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("a", "n1", PATH)))
        assert "incomplete" in failure.text


async def test_a_host_that_dies_while_it_restores_keeps_the_file() -> None:
    async with small_cluster(vm_memory_mib=16 * 1024) as sim:
        await _saved(sim)
        call = sim.begin(sim.hypervisor.restore_from_file(sim.restore("a", "n2", PATH)))
        await sim.clock.advance(2)
        assert (await _states(sim, "a"))["n2"] is VmStatus.PAUSED  # it has a process already
        sim.faults.power_off("n2", told=True)
        assert await _outcome(sim, call) is not None
        await sim.run(sim.hypervisor.restore_from_file(sim.restore("a", "n1", PATH)))
        assert sim.node_of("a") == "n1"
        assert not sim.world.twice


async def test_a_start_from_saved_memory_that_is_cut_short_keeps_it() -> None:
    async with small_cluster(vm_memory_mib=16 * 1024) as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        for end in ("turn off", "power"):
            call = sim.begin(sim.hypervisor.change_vm(sim.change("a", VmChange.START)))
            await sim.clock.advance(2)
            assert (sim.vm("a").status, sim.vm("a").cause) == (VmStatus.PAUSED, StatusCause.STARTING_UP)
            if end == "power":
                sim.faults.power_off("n1", told=True)
            else:
                await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
            assert await _outcome(sim, call) is not None
            assert sim.vm("a").status is VmStatus.SAVED


# --- definitions ----------------------------------------------------------------------------------


async def test_a_definition_is_copied_with_all_that_belongs_to_it() -> None:
    async with small_cluster() as sim:
        sim.vm("a").foreign_metadata = "<other:note/>"
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
        await sim.run(sim.hypervisor.copy_definition(sim.define("a", "n2")))
        source, copy = sim.at("a", "n1"), sim.at("a", "n2")
        assert source is not None
        assert copy is not None
        assert (copy.name, copy.config, copy.foreign_metadata) == ("a", source.config, "<other:note/>")
        assert (copy.status, copy.cause, copy.incarnation) == (VmStatus.OFF, StatusCause.NONE, None)
        await sim.run(sim.hypervisor.copy_definition(sim.define("a", "n2")))  # once more overwrites it
        assert sim.at("a", "n1") is source


async def test_what_of_a_definition_is_not_copied() -> None:
    async with small_cluster(vms={"n1": ("a", "b"), "n2": ("c",)}) as sim:
        failure = await sim.failure(sim.hypervisor.copy_definition(sim.define("a", "n2")))
        assert failure.code is FailureCode.WRONG_STATE  # it runs
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
        sim.faults.break_peer_login("n1", "n2")
        failure = await sim.failure(sim.hypervisor.copy_definition(sim.define("a", "n2")))
        assert failure.code is FailureCode.PEER_LOGIN
        through_us = sim.define("a", "n2", route=PeerRoute.THROUGH_THIS_COMPUTER)
        sim.vm("c").name = "a"
        assert (await sim.failure(sim.hypervisor.copy_definition(through_us))).code is FailureCode.CONFLICT
        sim.vm("c").name = "c"
        await sim.run(sim.hypervisor.copy_definition(through_us))
        vm = sim.world.nodes[N1].vms[sim.id("a")]
        vm.config = replace(vm.config, snapshots=1)
        failure = await sim.failure(sim.hypervisor.copy_definition(through_us))
        assert failure.code is FailureCode.WRONG_STATE
        failure = await sim.failure(sim.hypervisor.copy_definition(sim.define("a", "n1")))
        assert failure.code is FailureCode.WRONG_STATE


async def test_a_definition_that_may_not_be_forgotten() -> None:
    async with small_cluster() as sim:
        failure = await sim.failure(sim.hypervisor.forget_definition(sim.forget("a")))
        assert failure.code is FailureCode.WRONG_STATE
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        failure = await sim.failure(sim.hypervisor.copy_definition(sim.define("a", "n2")))
        assert failure.code is FailureCode.WRONG_STATE
        failure = await sim.failure(sim.hypervisor.forget_definition(sim.forget("a")))
        assert failure.code is FailureCode.WRONG_STATE  # its memory would be lost
        assert await _states(sim, "a") == {"n1": VmStatus.SAVED}
        failure = await sim.failure(sim.hypervisor.forget_definition(sim.forget("a", "n2")))
        assert failure.code is FailureCode.NOT_FOUND


# --- running twice --------------------------------------------------------------------------------


async def test_locks_on_the_images_prevent_a_second_copy_and_the_try_is_recorded() -> None:
    async with small_cluster() as sim:
        await _saved(sim)
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.START)))
        node = sim.node_of("a")
        other = "n2" if node == "n1" else "n1"
        failure = await sim.failure(sim.hypervisor.restore_from_file(sim.restore("a", other, PATH)))
        assert "lock" in failure.text
        assert [(t.vm, t.nodes, t.prevented) for t in sim.world.twice] == [(sim.id("a"), (node, other), True)]
        assert FILE in sim.world.storage.saved


async def test_without_locks_a_vm_runs_twice_and_every_moment_is_recorded() -> None:
    async with small_cluster() as sim:
        sim.faults.unlock_images()
        await _saved(sim)
        first = sim.begin(sim.hypervisor.restore_from_file(sim.restore("a", "n1", PATH)))
        await sim.clock.advance(1)
        second = sim.begin(sim.hypervisor.restore_from_file(sim.restore("a", "n2", PATH)))
        await sim.clock.settle()
        begun_s = sim.clock.monotonic_s()
        assert await _outcome(sim, first) is None
        assert await _outcome(sim, second) is None
        assert sim.world.running_on(sim.id("a")) == ("n1", "n2")
        assert {(t.nodes, t.prevented) for t in sim.world.twice} == {(("n1", "n2"), False)}
        assert sim.world.twice[0].at_s == begun_s  # from the first moment on, not only when it runs


async def test_a_copy_that_nothing_prevented_is_recorded() -> None:
    async with small_cluster() as sim:
        sim.faults.run_twice("a", "n2")
        assert [t.nodes for t in sim.world.twice] == [("n1", "n2")]


async def test_moves_of_every_kind_run_a_vm_once() -> None:
    async with small_cluster() as sim:
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.PAUSE)))
        for name in "ab":
            await sim.run(sim.hypervisor.migrate(sim.move(name, to="n2")))
            await sim.run(sim.hypervisor.migrate(sim.move(name, to="n3")))
        sim.faults.end_move_wrongly(arrives=True, says=Failure(code=FailureCode.UNREACHABLE))
        await sim.failure(sim.hypervisor.migrate(sim.move("b", to="n1")))
        assert sim.node_of("b") == "n1"
        assert not sim.world.twice


# --- disks from pool to pool ----------------------------------------------------------------------


def _give_disks(sim: SmallCluster, name: str = "a") -> None:
    """Two disks of 4 and 2 GiB, 40 % filled, and a second pool."""
    vm = sim.vm(name)
    disks = tuple(
        Disk(target=target, source=f"/srv/vms/{name}-{target}.qcow2", cache="none", capacity_bytes=size * GIB)
        for target, size in (("vda", 4), ("vdb", 2))
    )
    vm.config = replace(vm.config, disks=disks)
    vm.node.pools["fast"] = Pool("/srv/fast")


async def test_disks_go_to_another_pool_while_the_guest_runs() -> None:
    async with small_cluster() as sim:
        _give_disks(sim)
        total = 6 * GIB * 0.4
        call = sim.begin(sim.hypervisor.copy_disks(sim.copy_disks("a", "fast", "vda", "vdb")))
        await sim.clock.advance(2)
        assert await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        figures = await _figures(sim, "a")
        assert figures is not None
        assert (figures.total_bytes, figures.rate_bytes_per_s) == (int(total), int(400e6))  # reads and writes
        assert figures.total_bytes - figures.remaining_bytes == pytest.approx(2 * 400e6)
        assert sim.vm("a").config.disks[0].source == "/srv/vms/a-vda.qcow2"
        assert await _outcome(sim, call) is None
        assert sim.clock.monotonic_s() == pytest.approx(total / 400e6)
        read = await sim.run(sim.hypervisor.read_vm(N1, sim.id("a")))
        assert [d.source for d in read.config.disks] == ["/srv/fast/a-vda.qcow2", "/srv/fast/a-vdb.qcow2"]
        assert sim.world.storage.left_behind == [
            (None, "/srv/vms/a-vda.qcow2"),
            (None, "/srv/vms/a-vdb.qcow2"),
        ]
        assert sim.vm("a").status is VmStatus.RUNNING
        assert not await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))
        assert not [event for event in sim.seen if isinstance(event, ForeignJobSeen)]


async def test_a_copy_of_disks_keeps_to_its_cap_and_one_that_is_taken_over_to_the_new_one() -> None:
    async with small_cluster() as sim:
        _give_disks(sim)
        total = 6 * GIB * 0.4
        call = sim.begin(
            sim.hypervisor.copy_disks(sim.copy_disks("a", "fast", "vda", "vdb", bandwidth_mib_s=100))
        )
        await sim.clock.advance(2)
        call.cancel()
        await sim.clock.advance(0)
        again = sim.hypervisor.copy_disks(sim.copy_disks("a", "fast", "vda", "vdb", bandwidth_mib_s=200))
        assert await _outcome(sim, sim.begin(again)) is None
        assert sim.clock.monotonic_s() == pytest.approx(2 + (total - 2 * 100 * MIB) / (200 * MIB))


async def test_an_encrypted_disk_is_not_copied() -> None:
    async with small_cluster() as sim:
        _give_disks(sim)
        vm = sim.vm("a")
        vm.config = replace(vm.config, disks=tuple(replace(d, encrypted=True) for d in vm.config.disks))
        for call in (
            sim.hypervisor.copy_disks(sim.copy_disks("a", "fast")),
            sim.hypervisor.migrate(sim.move("a", to="n2", copy_disks=("vda",), pool="vms")),
        ):
            failure = await sim.failure(call)
            assert failure.code is FailureCode.NOT_SUPPORTED
            assert failure.text == "its disk vda is encrypted, and its copy would not be"


async def test_checkpoints_are_lost_by_no_move() -> None:
    async with small_cluster() as sim:
        sim.vm("a").config = replace(sim.vm("a").config, checkpoints=2)
        for call in (
            sim.hypervisor.migrate(sim.move("a", to="n2")),
            sim.hypervisor.save_to_file(sim.save("a", PATH)),
        ):
            failure = await sim.failure(call)
            assert (failure.code, failure.text) == (
                FailureCode.UNSAFE,
                "it has 2 checkpoint(s), which would be lost",
            )
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
        failure = await sim.failure(sim.hypervisor.copy_definition(sim.define("a", "n2")))
        assert failure.code is FailureCode.UNSAFE
        failure = await sim.failure(sim.hypervisor.forget_definition(sim.forget("a")))
        assert failure.code is FailureCode.UNSAFE


async def test_a_cancelled_copy_of_disks_changes_nothing() -> None:
    async with small_cluster() as sim:
        _give_disks(sim)
        sim.faults.fill_pool("n1", "fast", 2 * GIB)
        for _ in range(2):  # the room is given back
            call = sim.begin(sim.hypervisor.copy_disks(sim.copy_disks("a", "fast")))
            await sim.clock.advance(2)
            await sim.run(sim.hypervisor.abort(sim.abort("a")))
            failure = await _outcome(sim, call)
            assert failure is not None
            assert failure.code is FailureCode.CANCELLED
        assert sim.vm("a").config.disks[0].source == "/srv/vms/a-vda.qcow2"
        assert not sim.world.storage.left_behind


async def test_a_copy_of_disks_holds_up_moves_and_saves_and_nothing_else() -> None:
    async with small_cluster() as sim:
        _give_disks(sim)
        call = sim.begin(sim.hypervisor.copy_disks(sim.copy_disks("a", "fast", "vdb")))
        await sim.clock.advance(0.1)
        for refused in (
            sim.hypervisor.migrate(sim.move("a", to="n2")),
            sim.hypervisor.save_to_file(sim.save("a", PATH)),
            sim.hypervisor.copy_disks(sim.copy_disks("a", "fast")),
        ):
            failure = await sim.failure(refused)
            assert failure.code is FailureCode.BUSY
            assert "block copy" in failure.text
        failure = await sim.failure(sim.hypervisor.change_vm(sim.change("a", VmChange.SAVE)))
        assert failure.code is FailureCode.WRONG_STATE
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.PAUSE)))
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.RESUME)))
        await sim.run(sim.hypervisor.write_settings(sim.settings("a", sim.vm("a").config.settings)))
        assert not call.done()
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
        failure = await _outcome(sim, call)
        assert failure is not None
        assert failure.code is FailureCode.WRONG_STATE
        assert sim.vm("a").config.disks[1].source == "/srv/vms/a-vdb.qcow2"


async def test_where_disks_cannot_go() -> None:
    async with small_cluster() as sim:
        _give_disks(sim)
        for pool, disks, code in (
            ("nowhere", ("vda",), FailureCode.STORAGE),
            ("vms", ("vda",), FailureCode.ALREADY),
            ("fast", ("vdx",), FailureCode.NOT_FOUND),
        ):
            failure = await sim.failure(sim.hypervisor.copy_disks(sim.copy_disks("a", pool, *disks)))
            assert failure.code is code
        sim.faults.fill_pool("n1", "fast", 1 * GIB)
        failure = await sim.failure(sim.hypervisor.copy_disks(sim.copy_disks("a", "fast")))
        assert failure.code is FailureCode.NO_RESOURCES
        await sim.run(sim.hypervisor.change_vm(sim.change("a", VmChange.TURN_OFF)))
        failure = await sim.failure(sim.hypervisor.copy_disks(sim.copy_disks("a", "fast")))
        assert failure.code is FailureCode.WRONG_STATE


async def test_without_the_program_that_asked_nobody_switches_over() -> None:
    async with small_cluster() as sim:
        _give_disks(sim)
        other = SimHypervisor(sim.world)
        for node in config_of(sim.world).nodes:
            await sim.run(other.connect(node))
        call = sim.begin(other.copy_disks(sim.copy_disks("a", "fast")))
        await sim.clock.advance(1)
        await other.close()
        assert await _outcome(sim, call) is not None
        await sim.clock.advance(3600)
        figures = await _figures(sim, "a")
        assert figures is not None
        assert figures.remaining_bytes == 0
        assert sim.vm("a").config.disks[0].source == "/srv/vms/a-vda.qcow2"
        failure = await sim.failure(sim.hypervisor.migrate(sim.move("a", to="n2")))
        assert failure.code is FailureCode.BUSY
        failure = await sim.failure(sim.hypervisor.copy_disks(sim.copy_disks("a", "default")))
        assert failure.code is FailureCode.BUSY
        began_s = sim.clock.monotonic_s()
        await sim.run(
            sim.hypervisor.copy_disks(sim.copy_disks("a", "fast"))
        )  # the same request takes it over
        assert sim.clock.monotonic_s() == began_s
        assert sim.vm("a").config.disks[0].source == "/srv/fast/a-vda.qcow2"
        assert not await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("a"),)))


async def test_a_copy_that_was_left_alone_is_taken_over_on_its_way_and_then_it_can_be_cancelled() -> None:
    async with small_cluster() as sim:
        for name in "ab":
            _give_disks(sim, name)
        other = SimHypervisor(sim.world)
        for node in config_of(sim.world).nodes:
            await sim.run(other.connect(node))
        calls = [sim.begin(other.copy_disks(sim.copy_disks(name, "fast"))) for name in "ab"]
        await sim.clock.advance(1)
        await other.close()
        for call in calls:
            assert await _outcome(sim, call) is not None
        again = sim.begin(sim.hypervisor.copy_disks(sim.copy_disks("a", "fast")))
        await sim.run(sim.hypervisor.abort(sim.abort("b")))
        assert await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("b"),)))  # nobody attends to it
        taken = sim.begin(sim.hypervisor.copy_disks(sim.copy_disks("b", "fast")))
        await sim.clock.advance(0.1)
        await sim.run(sim.hypervisor.abort(sim.abort("b")))
        failure = await _outcome(sim, taken)
        assert failure is not None
        assert failure.code is FailureCode.CANCELLED
        assert not await sim.run(sim.hypervisor.have_jobs(N1, (sim.id("b"),)))
        assert await _outcome(sim, again) is None
        assert sim.vm("a").config.disks[0].source == "/srv/fast/a-vda.qcow2"
        assert sim.vm("b").config.disks[0].source == "/srv/vms/b-vda.qcow2"


async def test_read_only_changes_nothing() -> None:
    async with small_cluster() as sim:
        other = SimHypervisor(sim.world, read_only=True)
        for node in config_of(sim.world).nodes:
            await sim.run(other.connect(node))
        for call in (
            other.tune(sim.tune("a", pause_ms=500)),
            other.save_to_file(sim.save("a", PATH)),
            other.restore_from_file(sim.restore("a", "n1", PATH)),
            other.copy_definition(sim.define("a", "n2")),
            other.forget_definition(sim.forget("a")),
            other.copy_disks(sim.copy_disks("a", "default")),
        ):
            assert (await sim.failure(call)).code is FailureCode.DENIED
        assert sim.seen == []
        await other.close()

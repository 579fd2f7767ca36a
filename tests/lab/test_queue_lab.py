"""The queue on real hosts: its limits as libvirt itself saw them, kills at any moment, every type of move."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from manager.core.events import QueueVerb
from manager.core.ids import NodeId, VmId
from manager.core.migration.progress import MovePhase
from manager.core.operations import Operation, OperationState
from manager.core.reasons import ReasonCode
from manager.lab.lab import Lab
from tests.lab.hosts import add_guests, put
from tests.lab.test_faults_lab import command, moves, runs_only_on
from tests.lab.test_product import GUEST_S, ask, do, ended, guest, known, muster, to, until
from tests.lab.witness import witnessed

pytestmark = pytest.mark.lab

MANY = tuple(f"queue-{i:02}" for i in range(1, 13))


@pytest.fixture(scope="module")
def guests(lab: Lab) -> tuple[str, ...]:
    """Twelve guests of this module's own."""
    add_guests(lab, *MANY)
    return MANY


def with_settings(lab: Lab, folder: Path, text: str) -> Path:
    """The lab's cluster file and more."""
    path = folder / "cluster.toml"
    path.write_text(f"{lab.cluster_file.read_text()}\n{text}\n")
    return path


async def put_all(lab: Lab, names: Sequence[str], home: str) -> None:
    """Have all of them run on a node, three at a time."""
    turns = asyncio.Semaphore(3)

    async def one(name: str) -> None:
        async with turns:
            await put(lab, name, home)

    await asyncio.gather(*(one(name) for name in names))


@pytest.mark.timeout(300)
async def test_twelve_guests_two_at_a_time_and_one_cancelled(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    await put_all(lab, guests, "n1")
    file = with_settings(lab, tmp_path, "[migration]\nbandwidth_mib_s = 16")
    with witnessed(lab, tmp_path) as witness:
        async with muster(file) as runtime:
            for name in guests:
                await known(runtime, name)
            batch = ask(runtime, "vm.live_migrate", *guests, parameters=to("n2"))
            await until(lambda: any(p.percent > 5 for p in runtime.view.progress.values()), GUEST_S)
            runs = [o for o in moves(runtime).values() if o.state is OperationState.RUNNING]
            cancelled = runs[-1]
            runtime.cancel((cancelled.id,))
            ends = await ended(runtime, batch, 300)
            states = {o.vm_name: o.state for o in ends}
            assert states.pop(cancelled.vm_name) is OperationState.CANCELLED
            assert set(states.values()) == {OperationState.DONE}, [str(o.reason) for o in ends]
        for name in guests:
            await runs_only_on(lab, name, "n1" if name == cancelled.vm_name else "n2")
        assert witness.largest_overlap(guests) == 2


@asynccontextmanager
async def without_daemon(lab: Lab, node: str) -> AsyncIterator[None]:
    """A host whose daemon was killed; afterwards it has one again, whatever came of it."""
    await lab.kill_daemon(node)
    try:
        yield
    finally:
        await lab.start_daemon(node)


@pytest.mark.timeout(300)
async def test_twelve_guests_while_a_targets_daemon_and_then_the_sources_is_killed(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    await put_all(lab, guests, "n1")
    file = with_settings(lab, tmp_path, "[migration]\nbandwidth_mib_s = 12")
    with witnessed(lab, tmp_path) as witness:
        async with muster(file) as runtime:
            nodes = runtime.view.nodes
            for name in guests:
                await known(runtime, name)
            batch = ask(runtime, "vm.live_migrate", *guests)

            def copying(node: str) -> bool:
                progress, known = runtime.view.progress, runtime.view.operations
                half_way = {known[key].vm_name for key, figures in progress.items() if figures.percent > 5}
                return any(node in (m.source, m.target) and m.vm in half_way for m in witness.under_way())

            def waiting() -> list[Operation]:
                found = [o for o in runtime.view.operations.values() if o.parent == batch]
                return [o for o in found if o.state is OperationState.WAITING]

            await until(lambda: copying("n2"), 60)
            async with without_daemon(lab, "n2"):
                killed_s = time.time()
                await until(lambda: not nodes[NodeId("n2")].is_up)
                # What went there is tried again, and the rest goes elsewhere: with all the places there are.
                await until(lambda: sum(m.target == "n3" for m in witness.under_way()) == 2, 60)
                assert {m.target for m in witness.moves() if m.begun_s > killed_s} == {"n3"}
                assert all(o.reason for o in waiting())
                # The source's while the target's is still away: here the most is left to wait.
                await until(lambda: copying("n3"), 60)
                async with without_daemon(lab, "n1"):
                    await until(lambda: not nodes[NodeId("n1")].is_up)
                    assert waiting()
                    assert all(o.reason for o in waiting())
            ends = await ended(runtime, batch, 200)
            assert {o.vm_name for o in ends} == set(guests)
            assert {o.state for o in ends} == {OperationState.DONE}, [str(o.reason) for o in ends]
            assert not runtime.view.claims
            assert not any(vm.alarm for vm in runtime.view.vms.values())
        for end in ends:
            assert str(end.reason) == f"runs on {end.target}"
            await runs_only_on(lab, end.vm_name, str(end.target))
    seen = witness.moves()
    assert sorted(m.vm for m in seen if m.arrived) == sorted(guests)
    assert {m.target for m in seen if not m.arrived} == {"n2", "n3"}, "both kills hit something"
    assert witness.largest_overlap(guests) == 2


async def test_a_paused_queue_lets_go_nothing(lab: Lab, guests: tuple[str, ...], tmp_path: Path) -> None:
    names = guests[:3]
    for name in names:
        await put(lab, name, "n1")
    async with muster(lab.cluster_file) as runtime:
        runtime.steer(QueueVerb.PAUSE)
        batch = ask(runtime, "vm.live_migrate", *names, parameters=to("n3"))
        await until(lambda: len([o for o in moves(runtime).values() if o.vm_name in names and o.reason]) == 3)
        assert {o.reason.code for o in moves(runtime).values() if o.reason and o.parent == batch} == {
            ReasonCode.QUEUE_PAUSED
        }
        runtime.steer(QueueVerb.RESUME)
        assert {o.state for o in await ended(runtime, batch)} == {OperationState.DONE}


@pytest.mark.timeout(300)
async def test_killed_ten_times_and_nothing_is_lost(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    names = guests[:6]
    await put_all(lab, names, "n1")
    file = with_settings(lab, tmp_path, "[migration]\nbandwidth_mib_s = 8")
    chance = random.Random(7)
    with witnessed(lab, tmp_path) as witness:
        with command(file, "vm", "migrate", *names, "--to", "n2", "--no-wait", "--json") as process:
            _, err = await asyncio.to_thread(process.communicate, timeout=60)
            assert process.returncode == 0, err
        for _ in range(10):
            with command(file, "engine") as engine:
                await asyncio.sleep(chance.uniform(0.3, 3.0))
                engine.send_signal(signal.SIGKILL)
                engine.wait()
        async with muster(file) as runtime:
            ours = {VmId(lab.vm_uuid(name)) for name in names}
            await until(lambda: all(o.is_over for v, o in moves(runtime).items() if v in ours), 120)
            ends = {o.vm_name: o for v, o in moves(runtime).items() if v in ours}
            assert not runtime.view.claims
            assert not any(vm.alarm for vm in runtime.view.vms.values())
        # What ended while nobody owned the queue is told in the history; the hosts have the truth.
        assert all(o.state is OperationState.DONE for o in ends.values()), [
            str(o.reason) for o in ends.values()
        ]
        for name in names:
            await runs_only_on(lab, name, "n2")
        assert witness.largest_overlap(names) <= 2


@pytest.mark.parametrize("action", ["vm.quick_migrate", "vm.shut_down_and_move", "vm.turn_off_and_move"])
async def test_moves_that_stop_the_guest(lab: Lab, guests: tuple[str, ...], action: str) -> None:
    name = guests[0]
    await put(lab, name, "n1")
    async with muster(lab.cluster_file) as runtime:
        vm = await known(runtime, name)
        (end,) = await do(runtime, action, name, parameters=to("n3"))
        assert end.state is OperationState.DONE, end.reason
        assert runtime.view.vms[vm.id].owner == "n3"
        await runs_only_on(lab, name, "n3")
        for node in ("n1", "n2"):
            assert name not in await lab.virsh(node, "list", "--all", "--name")
        assert not list(Path(lab.shared).glob(".muster/*.save"))


async def test_what_cannot_start_there_runs_here_again(lab: Lab, guests: tuple[str, ...]) -> None:
    name = guests[1]
    await put(lab, name, "n1")
    await lab.run_on("n3", "ip", "link", "set", "br0", "name", "gone0")
    try:
        async with muster(lab.cluster_file) as runtime:
            vm = await known(runtime, name)
            (end,) = await do(runtime, "vm.turn_off_and_move", name, parameters=to("n3"))
            assert end.state is OperationState.FAILED
            assert "it is running on n1" in str(end.reason)
            assert runtime.view.vms[vm.id].owner == "n1"
        await runs_only_on(lab, name, "n1")
        assert name not in await lab.virsh("n3", "list", "--all", "--name")
    finally:
        await lab.run_on("n3", "ip", "link", "set", "gone0", "name", "br0")


@pytest.mark.timeout(400)
async def test_what_does_not_converge_is_given_up_and_by_the_policy_it_converges(
    lab: Lab, tmp_path: Path
) -> None:
    name = await guest(lab, "busy-01", "n1", dirty_mib=24, memory_mib=160)
    policy = "[migration]\nbandwidth_mib_s = 8\n[migration.convergence]\nauto_converge = false\n"
    took_s: dict[bool, float] = {}
    for helped, steps in ((False, "[300]"), (True, "[300, 4000]")):
        file = with_settings(lab, tmp_path, f"{policy}pause_steps_ms = {steps}\ntime_out_s = 80\n")
        async with muster(file) as runtime:
            vm = await known(runtime, name)
            begun = time.monotonic()
            batch = ask(runtime, "vm.live_migrate", name, parameters=to("n2"))
            await until(
                lambda: any(p.phase is MovePhase.NOT_CONVERGING for p in runtime.view.progress.values()),
                GUEST_S,
            )
            advice = next(iter(runtime.view.progress.values())).watch.next
            assert advice is not None
            assert "on n1" in advice.text
            (end,) = await ended(runtime, batch, 200)
            took_s[helped] = time.monotonic() - begun
            assert end.state is (OperationState.DONE if helped else OperationState.FAILED), end.reason
            assert runtime.view.vms[vm.id].owner == ("n2" if helped else "n1")
        await runs_only_on(lab, name, "n2" if helped else "n1")
    assert took_s[False] > 2 * took_s[True]

"""The queue on real hosts: its limits as libvirt itself saw them, kills at any moment, every type of move."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from manager.core.events import QueueVerb
from manager.core.ids import VmId
from manager.core.migration.progress import MovePhase
from manager.core.operations import OperationState
from manager.core.reasons import ReasonCode
from manager.lab.lab import Lab
from tests.lab.hosts import add_guests, put
from tests.lab.test_faults_lab import command, moves, runs_only_on
from tests.lab.test_product import GUEST_S, ask, do, ended, guest, known, muster, to, until

pytestmark = pytest.mark.lab

MANY = tuple(f"queue-{i:02}" for i in range(1, 13))
_EVENT = re.compile(r"^(\S+ \S+): event 'lifecycle' for domain '([^']+)': (.*)$")


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


class Witness:
    """What libvirt's own events say of moves out of n1 and into n2, however Muster sees it."""

    def __init__(self, *logs: Path) -> None:
        self._logs = logs

    def largest_overlap(self, names: Sequence[str]) -> int:
        """How many moves were under way at once: from the target's first event to the end on either node."""
        marks: list[tuple[str, int, str]] = []
        for log in self._logs:
            for line in log.read_text().splitlines():
                found = _EVENT.match(line)
                if not found or found[2] not in names:
                    continue
                if found[3] == "Started Migrated":
                    marks.append((found[1], 1, found[2]))
                elif found[3] in ("Stopped Migrated", "Stopped Failed", "Stopped Destroyed"):
                    marks.append((found[1], -1, found[2]))
        under_way: set[str] = set()
        most = 0
        for _, step, name in sorted(marks):
            under_way = under_way | {name} if step > 0 else under_way - {name}
            most = max(most, len(under_way))
        return most


@contextmanager
def witnessed(lab: Lab, folder: Path) -> Iterator[Witness]:
    """Libvirt's events of n1 and n2 while this lasts."""
    logs = [folder / f"{name}.events" for name in ("n1", "n2")]
    running = []
    for name, log in zip(("n1", "n2"), logs, strict=True):
        argv = ["virsh", "-c", lab.node(name).uri, "event", "--loop", "--timestamp", "--event", "lifecycle"]
        with log.open("w") as out:
            running.append(subprocess.Popen(["stdbuf", "-oL", *argv], stdout=out, stderr=subprocess.DEVNULL))
    try:
        yield Witness(*logs)
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)
            process.wait(10)


@pytest.mark.timeout(300)
async def test_twelve_guests_two_at_a_time_and_one_cancelled(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    for name in guests:
        await put(lab, name, "n1")
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
    for name in names:
        await put(lab, name, "n1")
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

"""The program killed, its disk full, and VMs that go away, while real hosts do what was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manager.core.ids import VmId
from manager.core.operations import Operation, OperationState
from manager.core.reasons import ReasonCode
from manager.lab.lab import Lab
from manager.services.runtime import Runtime
from tests.lab.hosts import add_guests, put
from tests.lab.test_product import ask, ended, known, muster, to, until

pytestmark = pytest.mark.lab

NAMES = ("fault-01", "fault-02", "fault-03")


@pytest.fixture(scope="module")
def guests(lab: Lab) -> tuple[str, ...]:
    """Three guests of this module's own; out of one node two may move at a time."""
    add_guests(lab, *NAMES)
    return NAMES


@contextmanager
def command(file: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """``muster`` as a process of its own, with this test's folders."""
    argv = [sys.executable, "-m", "manager", "--cluster", str(file), *words]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def slowed(lab: Lab, folder: Path) -> Path:
    """The lab's cluster file with moves that take some seconds."""
    path = folder / "slowed.toml"
    path.write_text(lab.cluster_file.read_text() + "\n[migration]\nbandwidth_mib_s = 16\n")
    return path


async def moving(log: Path, count: int) -> None:
    """Wait until a command's log says that so many VMs are under way."""

    def seen() -> bool:
        lines = log.read_text().splitlines() if log.exists() else []
        records = [json.loads(line) for line in lines if '"event":"MigrationProgress"' in line]
        return len({r["data"]["operation"] for r in records if r["data"]["total_bytes"]}) >= count

    await until(seen)


def moves(runtime: Runtime) -> dict[VmId, Operation]:
    """The newest move of each VM."""
    return {o.vm: o for o in runtime.view.operations.values() if o.action == "vm.live_migrate" and o.vm}


def fill_up(folder: Path) -> None:
    """Write a file there until the disk is full."""
    with (folder / "fill").open("wb", buffering=0) as full, contextlib.suppress(OSError):
        while True:
            full.write(bytes(4096))


async def runs_only_on(lab: Lab, name: str, node: str) -> None:
    """See with virsh that it does: a move that is done has left its source."""
    there = [n.name for n in lab.nodes if name in (await lab.virsh(n, "list", "--name")).split()]
    assert there == [node]


async def test_killed_while_it_moves_and_started_again(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    for name in guests:
        await put(lab, name, "n1")
    file = slowed(lab, tmp_path)
    log = tmp_path / "log.json"
    with command(file, "vm", "migrate", *guests, "--to", "n2", "--log-json", str(log)) as process:
        await moving(log, 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with muster(file) as runtime:
        found = moves(runtime)
        assert set(found) == {VmId(lab.vm_uuid(name)) for name in guests}
        await until(lambda: all(o.is_over for o in moves(runtime).values()), 60)
        for name in guests:
            end = moves(runtime)[VmId(lab.vm_uuid(name))]
            assert end.state is OperationState.DONE, end.reason
            await runs_only_on(lab, name, "n2")
            assert runtime.view.vms[VmId(lab.vm_uuid(name))].owner == "n2"


async def test_a_client_takes_over_from_an_owner_that_was_killed(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    name = guests[0]
    await put(lab, name, "n1")
    file = slowed(lab, tmp_path)
    log = tmp_path / "log.json"
    with command(file, "vm", "migrate", name, "--to", "n2", "--log-json", str(log)) as process:
        await moving(log, 1)
        async with muster(file) as runtime:
            assert not runtime.engine.is_owner
            (shown,) = moves(runtime).values()
            assert not shown.is_over
            process.send_signal(signal.SIGKILL)
            await until(lambda: runtime.engine.is_owner, 5)
            await until(lambda: moves(runtime)[VmId(lab.vm_uuid(name))].is_over, 60)
            end = moves(runtime)[VmId(lab.vm_uuid(name))]
            assert (end.id, end.state) == (shown.id, OperationState.DONE), end.reason
            await runs_only_on(lab, name, "n2")


async def test_a_full_disk_ends_nothing_that_runs_and_refuses_what_is_new(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, other = guests[:2]
    for each in (name, other):
        await put(lab, each, "n1")
    file = slowed(lab, tmp_path)
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "muster-test", str(home)], check=True)
    try:
        monkeypatch.setenv("MUSTER_HOME", str(home))
        log = tmp_path / "log.json"
        with command(file, "vm", "migrate", name, "--to", "n2", "--json", "--log-json", str(log)) as owner:
            await moving(log, 1)
            fill_up(home)
            with command(file, "vm", "pause", other, "--json") as client:
                out, err = await asyncio.to_thread(client.communicate, timeout=30)
            assert client.returncode == 1, err
            (refused,) = json.loads(out)
            assert refused["result"] == "failed"
            assert refused["reason"].startswith("not started: the journal cannot be written")
            assert (await lab.virsh("n1", "domstate", other)).strip() == "running"
            out, err = await asyncio.to_thread(owner.communicate, timeout=60)
            assert owner.returncode == 0, err
            assert json.loads(out)[0]["result"] == "done"
            assert "the journal cannot be written" in err
            await runs_only_on(lab, name, "n2")
        with command(file, "vm", "pause", other, "--json") as again:
            out, err = await asyncio.to_thread(again.communicate, timeout=30)
        assert (again.returncode, out) == (1, "")
        assert "The journal of cluster lab cannot be used: [Errno 28]" in err
        assert (await lab.virsh("n1", "domstate", other)).strip() == "running"
        os.unlink(home / "fill")
        with command(file, "vm", "migrate", name, "--to", "n1", "--what-if", "--json") as free:
            out, err = await asyncio.to_thread(free.communicate, timeout=30)
        assert (free.returncode, err) == (0, "")
    finally:
        subprocess.run(["umount", str(home)], check=True)


@pytest.mark.parametrize(
    ("what", "code"), [("destroy", ReasonCode.NOT_RUNNING), ("undefine", ReasonCode.UNDEFINED)]
)
async def test_a_vm_stopped_or_undefined_while_its_move_waits(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path, what: str, code: ReasonCode
) -> None:
    for name in guests:
        await put(lab, name, "n1")
    async with muster(slowed(lab, tmp_path)) as runtime:
        for name in guests:
            await known(runtime, name)
        batch = ask(runtime, "vm.live_migrate", *guests, parameters=to("n2"))
        await until(
            lambda: (
                [o.state for o in moves(runtime).values()].count(OperationState.RUNNING) == 2
                and any(o.state is OperationState.WAITING for o in moves(runtime).values())
            )
        )
        waiting = next(o for o in moves(runtime).values() if o.state is OperationState.WAITING)
        name = next(each for each in guests if lab.vm_uuid(each) == waiting.vm)
        await lab.virsh("n1", what, name)
        states = {o.vm: o for o in await ended(runtime, batch)}
        gone = states.pop(waiting.vm)
        assert gone.state is OperationState.FAILED
        assert gone.reason is not None
        assert gone.reason.code is code, gone.reason
        assert {o.state for o in states.values()} == {OperationState.DONE}
        await lab.virsh("n1", "undefine" if what == "destroy" else "destroy", name)
        await until(lambda: waiting.vm not in runtime.view.vms)

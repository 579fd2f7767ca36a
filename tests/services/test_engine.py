"""One owner of operations: a second process is its client, mirrors it, and takes over when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from manager.backends.sim.demo import demo_cluster
from manager.backends.sim.hypervisor import SimHypervisor
from manager.core.actions import ACTIONS
from manager.core.ids import VmId
from manager.core.model import VmStatus
from manager.core.operations import OperationState
from manager.services.clock import RealClock
from manager.services.engine import Ownership
from manager.services.runtime import Runtime
from manager.store.journal import SqliteJournal
from manager.store.lock import OwnershipLock


@pytest.fixture
async def open_runtime(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Opens one more process's worth of Muster on the same cluster and the same state folder."""
    clock = RealClock()
    config, world = demo_cluster(2, 6, clock=clock)
    opened: list[Runtime] = []

    async def open_one() -> Runtime:
        runtime = Runtime(
            config=config,
            hypervisor=SimHypervisor(world),
            journal=SqliteJournal(tmp_path / "journal"),
            clock=clock,
            author=f"user{len(opened)}",
            ownership=Ownership(lock=OwnershipLock(tmp_path / "lock"), socket=tmp_path / "socket"),
        )
        opened.append(runtime)
        await runtime.start()
        assert await runtime.settled(10)
        return runtime

    yield open_one
    for runtime in opened:
        await runtime.close()


def running(runtime: Runtime) -> list[VmId]:
    """The running VMs that can be paused, by name."""
    view = runtime.view
    found = [v for v in view.vms.values() if v.status is VmStatus.RUNNING]
    return [v.id for v in sorted(found, key=lambda v: v.name)]


async def test_the_second_process_asks_the_first_and_shows_its_operations(
    open_runtime: Callable[[], Any],
) -> None:
    owner = await open_runtime()
    client = await open_runtime()
    assert owner.engine.is_owner
    assert not client.engine.is_owner
    vm = running(client)[0]

    batch = client.request(ACTIONS["vm.pause"].plan(client.view, [vm]))
    async with asyncio.timeout(10):
        (ended,) = await client.ended(batch)

    assert ended.state is OperationState.DONE
    assert owner.view.operations[batch[0]].author == "user1"
    async with asyncio.timeout(5):
        while client.view.vms[vm].status is not VmStatus.PAUSED:
            await asyncio.sleep(0.01)
    assert vm not in client.view.claims


async def test_a_client_takes_over_when_the_owner_ends(open_runtime: Callable[[], Any]) -> None:
    owner = await open_runtime()
    client = await open_runtime()
    vm = running(client)[0]
    await owner.close()
    async with asyncio.timeout(10):
        while not client.engine.is_owner:
            await asyncio.sleep(0.01)

    batch = client.request(ACTIONS["vm.pause"].plan(client.view, [vm]))
    async with asyncio.timeout(10):
        (ended,) = await client.ended(batch)

    assert ended.state is OperationState.DONE
    third = await open_runtime()
    assert not third.engine.is_owner
    assert third.view.operations[batch[0]].state is OperationState.DONE


async def test_what_ends_as_the_owner_leaves_is_told_to_its_clients(
    open_runtime: Callable[[], Any],
) -> None:
    owner = await open_runtime()
    client = await open_runtime()
    batch = client.request(ACTIONS["vm.pause"].plan(client.view, running(client)[:1]))
    async with asyncio.timeout(10):
        while batch[0] not in owner.view.operations:
            await asyncio.sleep(0.01)
        await owner.ended(batch)

    await owner.close()  # before its next report is due; the journal lists only what has not ended

    async with asyncio.timeout(10):
        (ended,) = await client.ended(batch)
    assert ended.state is OperationState.DONE


async def test_the_owner_refuses_what_is_no_request(
    open_runtime: Callable[[], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await open_runtime()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
    writer.write(b"\xff\xff\xff\xff" + b"x" * 100)
    async with asyncio.timeout(5):
        while await reader.read(4096):
            pass  # the snapshot, then the end
    writer.close()
    assert owner.engine.is_owner
    assert "hung up on" in caplog.text
    assert owner.view.operations == {}


async def test_the_socket_is_for_this_user_only(open_runtime: Callable[[], Any], tmp_path: Path) -> None:
    await open_runtime()
    assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600


async def test_what_a_killed_owner_did_not_tell_is_found_in_its_journal(
    open_runtime: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await open_runtime()
    client = await open_runtime()
    first, second = running(client)[:2]
    monkeypatch.setattr(owner.engine, "_tell_clients", lambda: None)  # killed before its next report
    batch = client.request(ACTIONS["vm.pause"].plan(client.view, [first]))
    async with asyncio.timeout(10):
        await owner.ended(batch)
    monkeypatch.setattr(owner.engine, "_take", lambda message: None)  # and before it read this one
    lost = client.request(ACTIONS["vm.pause"].plan(client.view, [second]))
    await owner.close()

    async with asyncio.timeout(10):
        (again,) = await client.ended(lost)
    assert again.state is OperationState.DONE
    assert client.view.vms[second].status is VmStatus.PAUSED
    assert not client.view.claims

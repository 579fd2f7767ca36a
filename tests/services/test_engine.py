"""One owner of operations: a second process is its client, mirrors it, and takes over when it ends."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manager.backends.sim.demo import demo_cluster
from manager.backends.sim.hypervisor import SimHypervisor
from manager.core.actions import ACTIONS
from manager.core.changes import ChangeSet
from manager.core.errors import UserError
from manager.core.events import OperationsReported, QueueVerb
from manager.core.ids import Kind, NodeId, VmId
from manager.core.model import ClusterConfig, NodeConfig, VmStatus
from manager.core.operations import OperationState
from manager.services import engine
from manager.services.clock import RealClock
from manager.services.engine import PROTOCOL, Owner, Ownership, _frame, _Hello
from manager.services.runtime import Runtime
from manager.services.stories import AGAIN_S
from manager.store.journal import SqliteJournal
from manager.store.lock import OwnershipLock


@pytest.fixture
async def open_runtime(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Opens one more process's worth of Muster on the same cluster and the same state folder."""
    clock = RealClock()
    config, world = demo_cluster(2, 6, clock=clock)
    opened: list[Runtime] = []

    async def open_one(
        *,
        stays: bool = False,
        only_looks: bool = False,
        known: ClusterConfig = config,
        nodes: bool = True,
        socket: Path = tmp_path / "socket",
    ) -> Runtime:
        runtime = Runtime(
            config=known,
            hypervisor=SimHypervisor(world),
            journal=SqliteJournal(tmp_path / "journal"),
            clock=clock,
            author=f"user{len(opened)}",
            ownership=Ownership(lock=OwnershipLock(tmp_path / "lock"), socket=socket, only_looks=only_looks),
        )
        opened.append(runtime)
        runtime.engine.stays = stays
        await (runtime.start() if nodes else runtime.start(nodes=False))
        assert not nodes or await runtime.settled(10)
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


async def test_a_socket_deep_down_is_reached_too(open_runtime: Callable[[], Any], tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    owner = await open_runtime(socket=deep / "socket")
    client = await open_runtime(socket=deep / "socket")
    assert client.engine.owner == owner.engine.owner
    assert (deep / "socket").stat().st_mode & 0o777 == 0o600
    await owner.close()
    assert not (deep / "socket").exists()


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


@pytest.mark.parametrize("inherits", [True, False])
async def test_what_is_asked_for_between_two_owners_is_done_by_the_next(
    open_runtime: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, *, inherits: bool
) -> None:
    owner, client = await open_runtime(), await open_runtime()
    if not inherits:
        monkeypatch.setattr(client.engine._ownership.lock, "try_take", lambda: False)
    await owner.close()
    async with asyncio.timeout(5):
        while client.engine.owner is not None:
            await asyncio.sleep(0)
    asked = client.request(ACTIONS["vm.pause"].plan(client.view, running(client)[:1]))
    assert not client.engine.is_owner
    if not inherits:
        await open_runtime()
    async with asyncio.timeout(10):
        (done,) = await client.ended(asked)
    assert done.state is OperationState.DONE
    assert client.engine.is_owner is inherits


@pytest.mark.parametrize("was_done", [False, True])
async def test_what_a_killed_owner_did_not_tell_is_found_out_from_the_next_one(
    open_runtime: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, *, was_done: bool
) -> None:
    owner, client = await open_runtime(), await open_runtime()
    first, _ = running(client)[:2]
    monkeypatch.setattr(client.engine._ownership.lock, "try_take", lambda: False)  # another one is faster
    monkeypatch.setattr(owner.engine, "_tell_clients", lambda: None)
    if not was_done:
        monkeypatch.setattr(owner.engine, "_take", lambda message: None)
    asked = client.request(ACTIONS["vm.pause"].plan(client.view, [first]))
    if was_done:
        async with asyncio.timeout(10):
            await owner.ended(asked)
    await owner.close()
    heir = await open_runtime()

    async with asyncio.timeout(10):
        (end,) = await client.ended(asked)
    assert end.state is OperationState.DONE
    assert heir.engine.is_owner
    assert (asked[0] in heir.view.operations) is not was_done  # it is done once
    assert first not in client.view.claims


async def test_who_cannot_take_over_leaves_it_to_the_next_one(
    open_runtime: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner, broken = await open_runtime(), await open_runtime()
    last = await open_runtime()
    take = last.engine._ownership.lock.try_take
    tried = asyncio.Event()
    monkeypatch.setattr(last.engine._ownership.lock, "try_take", lambda: tried.is_set() and take())

    loop = asyncio.get_running_loop()

    def broken_disk(*_: Any) -> Any:
        loop.call_soon_threadsafe(tried.set)
        raise sqlite3.OperationalError("disk I/O error")

    # It has opened the journal, and looks for what the owner asked of it had not told.
    monkeypatch.setattr(broken.journal, "_history", broken_disk)
    monkeypatch.setattr(owner.engine, "_tell_clients", lambda: None)
    batch = owner.request(ACTIONS["vm.pause"].plan(owner.view, running(owner)[:1]))
    async with asyncio.timeout(10):
        await owner.ended(batch)
    told = replace(owner.view.operations[batch[0]], state=OperationState.WAITING)
    broken.dispatch(OperationsReported(at_s=broken.clock.now_s(), operations=(told,)))
    problems: set[str] = set()
    broken.subscribe(lambda changes: problems.update(changes[Kind.PROBLEM].added))
    await owner.close()

    async with asyncio.timeout(15):
        while not last.engine.is_owner:
            await asyncio.sleep(0.01)
        assert not broken.engine.is_owner
        while broken.engine.owner != last.engine.owner:
            await asyncio.sleep(0.01)
    assert "cannot be taken over" in caplog.text
    assert "disk I/O error" in caplog.text
    assert "notice:owner" in problems
    assert "notice:owner" not in broken.view.problems  # somebody else took over
    batch = broken.request(ACTIONS["vm.pause"].plan(broken.view, running(broken)[1:2]))
    async with asyncio.timeout(10):
        (end,) = await broken.ended(batch)
    assert end.state is OperationState.DONE


# --- whose cluster it is -------------------------------------------------------------------------


def other(config: ClusterConfig, file: str = "/etc/theirs.toml") -> ClusterConfig:
    """A cluster of the same name with one node more."""
    more = NodeConfig(name=NodeId("stranger"), uri="qemu+ssh://stranger/system")
    return replace(config, nodes=(*config.nodes, more), file=file)


async def test_both_sides_know_who_owns_the_operations(open_runtime: Callable[[], Any]) -> None:
    owner = await open_runtime(stays=True)
    client = await open_runtime()
    assert client.engine.owner == owner.engine.owner
    assert isinstance(client.engine.owner, Owner)
    assert client.engine.owner.pid == os.getpid()
    assert str(client.engine.owner) == f"process {os.getpid()} (muster engine)"
    await owner.close()
    async with asyncio.timeout(10):
        while not client.engine.is_owner:
            await asyncio.sleep(0.01)
    assert not client.engine.owner.stays


async def test_another_cluster_of_the_same_name_is_refused(open_runtime: Callable[[], Any]) -> None:
    owner = await open_runtime()
    stranger = other(owner.view.config)
    with pytest.raises(UserError) as refused:
        await open_runtime(known=stranger)
    text = str(refused.value)
    assert text.startswith(f"process {os.getpid()} owns the operations of another cluster named ")
    assert "only here: stranger (qemu+ssh://stranger/system)" in text
    assert "not by /etc/theirs.toml: two clusters need two names" in text
    assert text.endswith("Nothing was done.")
    assert refused.value.exit_code == 2


async def test_a_file_that_was_changed_since_is_said(open_runtime: Callable[[], Any]) -> None:
    now = other((await open_runtime(only_looks=True, nodes=False)).view.config, "/etc/lab.toml")
    before = replace(now, nodes=now.nodes[:-1])
    await open_runtime(known=before, stays=True)
    with pytest.raises(UserError) as refused:
        await open_runtime(known=now)
    assert f"process {os.getpid()} (muster engine) owns" in str(refused.value)
    assert "/etc/lab.toml was changed since it was started: end it, and start it again." in str(refused.value)


async def test_an_owner_of_another_version_is_refused(
    open_runtime: Callable[[], Any], tmp_path: Path
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_frame(_Hello(protocol=PROTOCOL + 1, pid=7, nodes=(), file="", stays=True, since_s=0.0)))
        await reader.read()
        writer.close()

    lock = OwnershipLock(tmp_path / "lock")
    assert lock.try_take()
    server = await asyncio.start_unix_server(serve, tmp_path / "socket")
    try:
        with pytest.raises(UserError, match=r"process 7 \(muster engine\) .* another version of Muster"):
            await open_runtime()
    finally:
        server.close()
        lock.release()


async def test_who_only_looks_shows_nothing_of_a_stranger_and_says_so(
    open_runtime: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    owner = await open_runtime()
    batch = owner.request(ACTIONS["vm.pause"].plan(owner.view, running(owner)[:1]))
    async with asyncio.timeout(10):
        await owner.ended(batch)
    looks = await open_runtime(known=other(owner.view.config), only_looks=True, nodes=False)
    assert looks.view.operations == {}
    assert looks.engine.owner is None
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        problem.reason.text for problem in looks.view.problems.values()
    ]
    assert "another cluster named" in caplog.text
    with pytest.raises(OSError, match="another cluster named"):
        looks.steer(QueueVerb.PAUSE)


async def test_the_owner_tells_a_stranger_nothing(open_runtime: Callable[[], Any], tmp_path: Path) -> None:
    owner = await open_runtime()
    batch = owner.request(ACTIONS["vm.pause"].plan(owner.view, running(owner)[:1]))
    async with asyncio.timeout(10):
        await owner.ended(batch)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
    writer.write(
        _frame(_Hello(protocol=PROTOCOL, pid=1, nodes=(("n", "u"),), file="", stays=False, since_s=0.0))
    )
    heard = b""
    async with asyncio.timeout(5):
        while data := await reader.read(4096):
            heard += data
    writer.close()
    assert b"hello" in heard
    assert batch[0].encode() not in heard


async def test_who_only_looks_never_owns_and_follows_who_comes_later(
    open_runtime: Callable[[], Any], tmp_path: Path
) -> None:
    looks = await open_runtime(only_looks=True)
    assert (looks.engine.is_owner, looks.engine.owner) == (False, None)
    with pytest.raises(OSError, match="owner"):
        looks.cancel(())
    owner = await open_runtime()
    assert owner.engine.is_owner
    batch = owner.request(ACTIONS["vm.pause"].plan(owner.view, running(owner)[:1]))
    async with asyncio.timeout(10):
        (ended,) = await looks.ended(batch)
    assert ended.state is OperationState.DONE
    await owner.close()
    lock = OwnershipLock(tmp_path / "lock")
    assert lock.try_take()
    lock.release()


# --- questions -----------------------------------------------------------------------------------


async def test_a_client_asks_the_owner_for_history_and_story(open_runtime: Callable[[], Any]) -> None:
    owner = await open_runtime()
    client = await open_runtime()
    batch = client.request(ACTIONS["vm.pause"].plan(client.view, running(client)[:2]))
    async with asyncio.timeout(10):
        await client.ended(batch)

    async with asyncio.timeout(10):
        ended = await client.engine.history(2)
        story = await client.engine.story(batch[0])
    assert ended == await owner.engine.history(2)
    assert [o.state for o in ended] == [OperationState.DONE] * 2
    assert story == owner.view.story(batch[0])
    assert story[0].text == "asked by user1"

    async def broken(limit: int) -> Any:
        raise OSError("disk on fire")

    owner.engine._history = broken
    with pytest.raises(OSError, match="disk on fire"):
        await client.engine.history(1)


async def test_a_client_shows_the_stories_that_the_owner_tells(open_runtime: Callable[[], Any]) -> None:
    owner, client = await open_runtime(), await open_runtime()
    vm = running(client)[0]
    told: list[ChangeSet] = []
    client.subscribe(told.append)
    batch = client.request(ACTIONS["vm.pause"].plan(client.view, [vm]))
    assert client.stories.of(batch[0]) == ()  # asked for, and there in a moment
    async with asyncio.timeout(10):
        await client.ended(batch)
        while client.stories.of(batch[0]) != owner.view.story(batch[0]):
            await asyncio.sleep(0.01)
        while client.stories.of(vm) != owner.view.story(vm):
            await asyncio.sleep(0.01)
    assert "Done" in {line.text for line in client.stories.of(vm)}
    assert client.view.story(batch[0]) == ()
    assert any(changes[Kind.OPERATION].updated.get(batch[0]) == {"story"} for changes in told)
    assert any(changes[Kind.VM].updated.get(vm) == {"story"} for changes in told)
    acted = asyncio.Event()
    client.stories.then(["gone"], acted.set)
    async with asyncio.timeout(10):
        await acted.wait()
    assert client.stories.of("gone") == ()
    owner.stories.then(["gone"], acted.clear)
    assert not acted.is_set()  # the owner has them all


async def test_who_takes_over_goes_on_with_the_stories_that_it_was_told(
    open_runtime: Callable[[], Any],
) -> None:
    owner, client = await open_runtime(), await open_runtime()
    vm, other = running(client)[:2]
    batch = client.request(ACTIONS["vm.pause"].plan(client.view, [vm]))
    async with asyncio.timeout(10):
        await client.ended(batch)
        while "Done" not in {line.text for line in client.stories.of(vm)}:
            await asyncio.sleep(0.01)
        told = client.stories.of(vm)
        client.stories.of(vm)  # asked for once more as the owner goes
        await owner.close()
        client.stories.of(other)  # and this one of nobody
        while not client.engine.is_owner:
            await asyncio.sleep(0.01)
        assert client.stories.of(vm)[: len(told)] == told
        await client.ended(client.request(ACTIONS["vm.resume"].plan(client.view, [vm])))
        await asyncio.sleep(AGAIN_S * 1.2)
    lines = client.stories.of(vm)
    assert lines[: len(told)] == told
    assert [line.text for line in lines[len(told) :]].count("Done") == 1
    assert [line.at_s for line in lines] == sorted(line.at_s for line in lines)
    assert client.stories.of(other) == client.view.story(other)


async def test_a_story_that_cannot_be_read_says_so(
    open_runtime: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_runtime()
    client = await open_runtime()

    async def broken(key: str) -> Any:
        raise OSError("the line is dead")

    monkeypatch.setattr(client.engine, "story", broken)
    read = asyncio.Event()
    client.stories.then(["any"], read.set)
    async with asyncio.timeout(10):
        await read.wait()
    assert [line.text for line in client.stories.of("any")] == ["the story cannot be read: the line is dead"]


async def test_a_question_ends_with_the_owner(
    open_runtime: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await open_runtime()
    client = await open_runtime()

    heard = asyncio.Event()

    async def silent(*_: Any) -> None:
        heard.set()

    monkeypatch.setattr(owner.engine, "_reply", silent)
    asked = asyncio.ensure_future(client.engine.history(1))
    async with asyncio.timeout(5):
        await heard.wait()
    await owner.close()
    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="lost"):
            await asked


async def test_a_late_answer_is_none_to_the_next_question(
    open_runtime: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, client = await open_runtime(), await open_runtime()
    batch = client.request(ACTIONS["vm.pause"].plan(client.view, running(client)[:1]))
    async with asyncio.timeout(10):
        await client.ended(batch)
    held: list[tuple[Any, Any]] = []
    reply = owner.engine._reply

    async def late(question: Any, writer: Any) -> None:
        held.append((question, writer))
        if len(held) == 2:
            for each in held:  # the first one is long given up
                await reply(*each)

    monkeypatch.setattr(owner.engine, "_reply", late)
    monkeypatch.setattr(engine, "ANSWER_S", 0.2)
    with pytest.raises(OSError, match="does not answer"):
        await client.engine.history(5)
    monkeypatch.setattr(engine, "ANSWER_S", 10.0)
    assert await client.engine.story(batch[0]) == owner.view.story(batch[0])


async def test_steering_without_a_connection_to_any_node(open_runtime: Callable[[], Any]) -> None:
    steers = await open_runtime(nodes=False)
    steers.steer(QueueVerb.PAUSE)
    assert await steers.stored()
    assert all(node.facts is None for node in steers.view.nodes.values())
    await steers.close()
    owner = await open_runtime()
    assert owner.view.orders.paused_by == "user0"

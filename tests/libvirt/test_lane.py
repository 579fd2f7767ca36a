"""Lanes: deadlines, stuck threads, idleness, closing, and an exit that nothing holds up."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
import pytest

from manager.backends.libvirt import lane as lanes
from manager.backends.libvirt.lane import MAX_STUCK, Lane, LanePool
from manager.core.errors import Failure, FailureCode, OperationError

CLOSED = Failure(code=FailureCode.UNREACHABLE, text="closed")


class FakeConnection:
    """As much of a virConnect as a lane itself touches."""

    def __init__(self) -> None:
        self.alive = True
        self.thread = threading.current_thread()

    def isAlive(self) -> bool:
        return self.alive

    def unregisterCloseCallback(self) -> None:
        pass


@dataclass
class Opener:
    """Opens fake connections and remembers them weakly enough to see them die."""

    opened: int = 0
    died_in: list[str] = field(default_factory=list)

    def __call__(self) -> Any:
        self.opened += 1
        died_in = self.died_in

        class Mortal(FakeConnection):
            def __del__(self) -> None:
                died_in.append(threading.current_thread().name)

        return Mortal()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Something to hang on; opened at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen within 5 s")


def failing(error: BaseException) -> Callable[[Any], Any]:
    def work(_connection: Any) -> Any:
        raise error

    return work


async def test_calls_run_in_one_thread_on_one_connection() -> None:
    opener = Opener()
    lane = Lane("lane x", opener)
    names = [await lane.call(lambda _: threading.current_thread().name, 5, "call") for _ in range(3)]
    assert names == ["lane x"] * 3
    assert opener.opened == 1
    lane.close(CLOSED)
    await until(lambda: not lane.has_threads)
    assert opener.died_in == ["lane x"]


async def test_errors_cross_as_values_and_drop_nothing_of_libvirts() -> None:
    lane = Lane("lane", Opener())
    error = libvirt.libvirtError("x")
    error.err = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, "no\x1b[31m such\ndomain", 2)
    with pytest.raises(OperationError) as caught:
        await lane.call(failing(error), 5, "call")
    failure = caught.value.failure
    assert failure.code is FailureCode.NOT_FOUND
    assert failure.text == "no [31m such domain"
    assert failure.detail == "libvirt error 42, domain 10"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    given = Failure(code=FailureCode.ALREADY, text="it is off")
    with pytest.raises(OperationError) as caught:
        await lane.call(failing(OperationError(given)), 5, "call")
    assert caught.value.failure == given
    lane.close(CLOSED)
    await until(lambda: not lane.has_threads)


async def test_a_bug_of_ours_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    lane = Lane("lane", Opener())
    with pytest.raises(OperationError) as caught:
        await lane.call(failing(KeyError("oops")), 5, "call")
    assert caught.value.failure.code is FailureCode.OTHER
    assert "test_lane.py" in caplog.text
    assert await lane.call(lambda _: 1, 5, "call") == 1
    lane.close(CLOSED)


async def test_a_call_past_its_deadline_loses_its_thread_not_the_lane(gate: threading.Event) -> None:
    opener = Opener()
    lane = Lane("lane", opener)
    stuck = lane.start(lambda _: gate.wait(), 0.05, "hanging")
    queued = lane.start(lambda _: "next", 5, "call")
    with pytest.raises(OperationError) as caught:
        await stuck
    assert caught.value.failure.code is FailureCode.TIMEOUT
    assert caught.value.failure.text == "hanging: no answer within 0.05 s"
    assert await queued == "next"
    assert (opener.opened, lane.stuck) == (2, 1)
    gate.set()
    await until(lambda: lane.stuck == 0)
    await until(lambda: len(opener.died_in) == 1)  # the late thread took its own connection with it
    assert await lane.call(lambda _: "still", 5, "call") == "still"
    assert opener.opened == 2
    lane.close(CLOSED)


async def test_the_time_in_the_queue_is_not_counted(gate: threading.Event) -> None:
    lane = Lane("lane", Opener())
    first = lane.start(lambda _: time.sleep(0.2), 5, "slow")
    second = lane.start(lambda _: "in time", 0.15, "call")
    assert await second == "in time"
    await first
    lane.close(CLOSED)


async def test_a_hung_host_does_not_eat_threads(gate: threading.Event) -> None:
    lane = Lane("lane", Opener())
    for _ in range(MAX_STUCK):
        with pytest.raises(OperationError):
            await lane.call(lambda _: gate.wait(), 0.01, "hanging")
    with pytest.raises(OperationError) as caught:
        await lane.call(lambda _: 1, 5, "one more")
    assert caught.value.failure.code is FailureCode.TIMEOUT
    assert "one more: not tried" in caught.value.failure.text
    gate.set()
    await until(lambda: lane.stuck == 0)
    assert await lane.call(lambda _: 1, 5, "one more") == 1
    lane.close(CLOSED)


async def test_a_cancelled_call_harms_no_other(gate: threading.Event) -> None:
    opener = Opener()
    lane = Lane("lane", opener)
    ran: list[str] = []
    running = asyncio.ensure_future(lane.call(lambda _: gate.wait(), 5, "running"))
    waiting = asyncio.ensure_future(lane.call(lambda _: ran.append("waiting"), 5, "waiting"))
    last = asyncio.ensure_future(lane.call(lambda _: "last", 5, "last"))
    await asyncio.sleep(0)
    running.cancel()
    waiting.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await last == "last"
    assert not ran
    assert opener.opened == 1
    lane.close(CLOSED)


async def test_a_dead_connection_is_opened_again() -> None:
    opener = Opener()
    lane = Lane("lane", opener)
    await lane.call(lambda connection: setattr(connection, "alive", False), 5, "dying")
    assert await lane.call(lambda connection: connection.alive, 5, "call") is True
    assert opener.opened == 2
    lane.close(CLOSED)


async def test_an_idle_lane_gives_its_connection_back() -> None:
    opener = Opener()
    lane = Lane("lane", opener, idle_s=0.02)
    await lane.call(lambda _: None, 5, "call")
    await until(lambda: len(opener.died_in) == 1)
    assert await lane.call(lambda _: 2, 5, "call") == 2
    assert opener.opened == 2
    lane.close(CLOSED)


async def test_closing_fails_what_waits_and_waits_for_nothing(gate: threading.Event) -> None:
    lane = Lane("lane", Opener())
    futures = [lane.start(lambda _: gate.wait(), None, "running"), lane.start(lambda _: 1, 5, "waiting")]
    before = time.monotonic()
    lane.close(CLOSED)
    assert time.monotonic() - before < 0.1
    for future in [*futures, lane.start(lambda _: 1, 5, "too late")]:
        with pytest.raises(OperationError) as caught:
            await future
        assert caught.value.failure == CLOSED


async def test_closing_may_let_a_long_call_finish(gate: threading.Event) -> None:
    opener = Opener()
    lane = Lane("lane", opener)
    running, waiting = lane.start(lambda _: gate.wait(), None, "move"), lane.start(lambda _: 1, 5, "waiting")
    lane.close(CLOSED, let_finish=True)
    with pytest.raises(OperationError):
        await waiting
    gate.set()
    assert await running is True
    await until(lambda: len(opener.died_in) == 1)


async def test_a_pool_has_a_lane_for_each_call_and_uses_idle_ones_again(gate: threading.Event) -> None:
    opener = Opener()
    pool = LanePool("pool", opener)
    calls = [asyncio.ensure_future(pool.call(lambda _: gate.wait(), 5, "call")) for _ in range(3)]
    await until(lambda: opener.opened == 3)
    gate.set()
    await asyncio.gather(*calls)
    await pool.call(lambda _: None, 5, "call")
    assert opener.opened == 3
    pool.close(CLOSED)
    with pytest.raises(OperationError):
        await pool.call(lambda _: None, 5, "call")
    await until(lambda: not pool.has_threads)


async def test_a_pool_refuses_when_too_many_hang(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MAX_STUCK_IN_POOL", 2)
    pool = LanePool("pool", Opener())
    for _ in range(2):
        with pytest.raises(OperationError):
            await pool.call(lambda _: gate.wait(), 0.01, "hanging")
    with pytest.raises(OperationError, match="not tried"):
        await pool.call(lambda _: 1, 5, "call")
    gate.set()
    pool.close(CLOSED)


EXIT = """
import asyncio, sys, time
from manager.backends.libvirt.backend import LibvirtHypervisor
from manager.core.model import ClusterConfig, NodeConfig
from manager.services.clock import RealClock

async def main():
    node = NodeConfig(name="n1", uri=sys.argv[1])
    config = ClusterConfig(name="c", nodes=(node,))
    hypervisor = LibvirtHypervisor(config, clock=RealClock(), secrets=None)
    task = asyncio.create_task(hypervisor.connect(node))
    await asyncio.sleep(0.3)
    assert not task.done()
    before = time.monotonic()
    await hypervisor.close()
    assert time.monotonic() - before < 1
    try:
        await task
    except Exception as error:
        print(error.failure.code.name)
    print("ended", time.time(), flush=True)

asyncio.run(main())
"""


def test_a_host_that_never_answers_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        uri = f"qemu+unix:///system?socket={path}"
        done = subprocess.run(
            [sys.executable, "-c", EXIT, uri], capture_output=True, text=True, timeout=20, check=False
        )
        ended = time.time()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    code, (_, at) = done.stdout.split()[0], done.stdout.split()[1:]
    assert code == "UNREACHABLE"
    assert ended - float(at) < 1

"""The clock that tests move."""

from __future__ import annotations

import asyncio
import math

import pytest

from manager.backends.sim.virtual_clock import EPOCH_S, VirtualClock


async def test_sleepers_wake_in_the_order_of_their_moments_and_at_them() -> None:
    clock = VirtualClock()
    woke: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woke.append((name, clock.monotonic_s()))

    tasks = [
        asyncio.create_task(sleeper(name, *naps))
        for name, naps in (("a", (3.0,)), ("b", (1.0, 1.0, 1.0)), ("c", (1.0,)), ("d", (9.0,)))
    ]
    await clock.advance(5)
    assert woke == [("b", 1.0), ("c", 1.0), ("b", 2.0), ("a", 3.0), ("b", 3.0)]
    assert clock.monotonic_s() == 5.0
    assert (clock.sleepers, clock.next_s) == (1, 9.0)
    await clock.advance(4)
    assert woke[-1] == ("d", 9.0)
    await asyncio.gather(*tasks)


async def test_what_follows_from_a_moment_happens_before_time_goes_on() -> None:
    clock = VirtualClock()
    seen: list[float] = []

    async def first() -> None:
        await clock.sleep(1)
        for _ in range(200):  # a long chain of turns, all at the same moment
            await asyncio.sleep(0)
        seen.append(clock.monotonic_s())

    async def second() -> None:
        await clock.sleep(1.001)
        seen.append(clock.monotonic_s())

    tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
    await clock.advance(10)
    assert seen == [1.0, 1.001]
    await asyncio.gather(*tasks)


async def test_nobody_wakes_while_the_clock_stands() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(0.001))
    await clock.settle()
    assert not task.done()
    await clock.advance(0.001)
    assert task.done()


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (clock.sleepers, clock.next_s) == (0, math.inf)


async def test_a_sleep_of_nothing_gives_others_a_turn() -> None:
    clock = VirtualClock()
    seen: list[str] = []

    async def other() -> None:
        seen.append("other")

    task = asyncio.create_task(other())
    await clock.sleep(0)
    assert seen == ["other"]
    await task


async def test_a_jump_moves_the_wall_clock_and_wakes_nobody() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.settle()
    clock.jump(-3600)
    await clock.settle()
    assert not task.done()
    assert (clock.now_s(), clock.monotonic_s()) == (EPOCH_S - 3600, 0.0)
    await clock.advance(10)
    assert task.done()
    assert clock.now_s() == EPOCH_S - 3590


async def test_a_busy_loop_does_not_hang_a_test() -> None:
    clock = VirtualClock()
    stop = False

    async def busy() -> None:
        while not stop:
            await asyncio.sleep(0)

    task = asyncio.create_task(busy())
    await clock.advance(1)
    assert clock.monotonic_s() == 1.0
    stop = True
    await task

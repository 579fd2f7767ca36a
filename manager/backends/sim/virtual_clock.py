"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import math
from itertools import count

EPOCH_S = 1_767_261_600.0
"""Where virtual time begins: 2026-01-01 10:00:00 UTC."""

_SETTLE_TURNS = 2_000
"""More turns of the loop than any chain of follow-ups needs: a busy loop must not hang a test."""

_BLIND_TURNS = 64
"""Turns given to a loop that does not show whether anything is ready to run."""


class VirtualClock:
    """The `Clock` port for tests: `sleep` waits for `advance`. Loop thread only.

    Sleepers wake in the order of their moments, those of one moment in the order in which they went to sleep,
    and all that follows from one waking is over before the next: the same program, the same history.
    """

    def __init__(self, start_s: float = EPOCH_S) -> None:
        self._wall_offset_s = start_s
        self._now_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def now_s(self) -> float:
        """Wall-clock seconds since the epoch; `jump` changes them."""
        return self._wall_offset_s + self._now_s

    def monotonic_s(self) -> float:
        """Seconds since this clock was made; only `advance` moves them."""
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        """Return after that much virtual time; after one turn of the loop if it is not positive."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._order), waiter))
        await waiter

    @property
    def next_s(self) -> float:
        """The moment (monotonic) at which the next sleeper wakes; infinite if nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)  # cancelled
        return self._sleepers[0][0] if self._sleepers else math.inf

    @property
    def sleepers(self) -> int:
        """How many sleep now: none, when a program is idle."""
        return sum(not waiter.done() for _, _, waiter in self._sleepers)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or, negative, back, as an administrator or NTP does. Nobody wakes."""
        self._wall_offset_s += seconds

    async def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        until_s = self._now_s + seconds
        await self.settle()
        while (due_s := self.next_s) <= until_s:
            self._now_s = max(self._now_s, due_s)
            heapq.heappop(self._sleepers)[2].set_result(None)
            await self.settle()
        self._now_s = until_s

    async def settle(self) -> None:
        """Let everything run that can run without time going on. Does not wait for other threads."""
        ready = getattr(asyncio.get_running_loop(), "_ready", None)
        for _ in range(_BLIND_TURNS if ready is None else _SETTLE_TURNS):
            await asyncio.sleep(0)
            if ready is not None and not ready:
                return

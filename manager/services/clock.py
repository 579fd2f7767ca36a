"""The machine's own time."""

from __future__ import annotations

import asyncio
import time


class RealClock:
    """`Clock` on the machine's clocks.

    Wall time is read once and carried on by the boot clock, which counts while the machine sleeps and never
    jumps: a corrected wall clock must not make an old read look newer than an event.
    """

    def __init__(self, now_s: float | None = None) -> None:
        """`now_s`: the wall-clock time that it is taken to be; None: that of the machine."""
        self._start_s = (time.time() if now_s is None else now_s) - self.monotonic_s()

    def now_s(self) -> float:
        """Wall-clock seconds since the epoch."""
        return self._start_s + self.monotonic_s()

    def monotonic_s(self) -> float:
        """Seconds that never jump, sleep of the machine included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        await asyncio.sleep(max(0.0, seconds))

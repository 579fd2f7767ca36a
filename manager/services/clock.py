"""The machine's own time."""

from __future__ import annotations

import asyncio
import time


class RealClock:
    """`Clock` on the machine's clocks."""

    def now_s(self) -> float:
        """Wall-clock seconds since the epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        await asyncio.sleep(max(0.0, seconds))

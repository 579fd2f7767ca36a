"""The real window with 8,000 VMs and 1,000 moves asked for: how fluid it stays, and what it costs when idle.

Prints one JSON object: shares of a core, gaps of the window's thread in milliseconds. The simulated hosts
run in the same process; `rest` is what they and the window cost before anything was asked for.
"""

from __future__ import annotations

import asyncio

from PySide6.QtWidgets import QApplication

from manager.core.actions import LIVE_MIGRATE
from manager.core.events import QueueVerb
from manager.core.model import VmStatus
from manager.core.operations import OperationState
from tests.perf.real_window import Figures, opened, play, share

MOVES = 1000
WATCHED_S = 10.0


async def measure(app: QApplication) -> Figures:
    """Play it."""
    async with opened(app, "64x8000") as shown:
        window, runtime, heartbeat = shown.window, shown.runtime, shown.heartbeat
        window.show_pane("migrations")
        window.panes.toggle_large()
        await asyncio.sleep(2.0)
        figures: Figures = {"rest": await share(WATCHED_S)}
        running = [vm.id for vm in runtime.view.vms.values() if vm.status is VmStatus.RUNNING]
        runtime.steer(QueueVerb.PAUSE)
        heartbeat.start()
        plan = LIVE_MIGRATE.plan(runtime.view, running[:: len(running) // MOVES][:MOVES])
        figures["plan_gap_ms"] = heartbeat.longest_gap_ms
        await asyncio.sleep(0.5)
        heartbeat.start()
        runtime.request(plan)
        await asyncio.sleep(3.0)
        figures["asked_gap_ms"] = heartbeat.longest_gap_ms
        figures["waiting"] = sum(o.state is OperationState.WAITING for o in runtime.view.operations.values())
        heartbeat.start()
        figures["waits"] = await share(WATCHED_S)
        figures["waits_gap_ms"] = heartbeat.longest_gap_ms
        heartbeat.start()
        runtime.steer(QueueVerb.RESUME)
        await asyncio.sleep(3.0)
        figures["resumed_gap_ms"] = heartbeat.longest_gap_ms
        heartbeat.start()
        figures["moves"] = await share(WATCHED_S)
        figures["moves_gap_ms"] = heartbeat.longest_gap_ms
        figures["at_once"] = len(runtime.view.progress)
    return figures


if __name__ == "__main__":
    play(measure)

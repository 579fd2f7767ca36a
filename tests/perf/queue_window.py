"""The real window with 8,000 VMs and 1,000 moves asked for: how fluid it stays, and what it costs when idle.

Prints one JSON object: shares of a core, gaps of the window's thread in milliseconds. The simulated hosts
run in the same process; `rest` is what they and the window cost before anything was asked for.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import tempfile
import time
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import qasync
from PySide6.QtCore import QSize
from PySide6.QtWidgets import QApplication

from manager import bootstrap
from manager.core.actions import LIVE_MIGRATE
from manager.core.events import QueueVerb
from manager.core.model import VmStatus
from manager.core.operations import OperationState
from manager.services.tasks import Tasks
from manager.services.workspace import Workspace
from manager.ui.heartbeat import Heartbeat
from manager.ui.main_window import MainWindow
from manager.ui.theme import Look

MOVES = 1000
WATCHED_S = 10.0


async def share(seconds: float = WATCHED_S) -> float:
    """CPU of this process while it is left alone, as a share of a core."""
    before = time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - before) / seconds


async def measure(app: QApplication) -> dict[str, float]:
    """Play it."""
    built = bootstrap.adapters()
    workspace, tasks, heartbeat = Workspace(built), Tasks("bench"), Heartbeat(None)
    window = MainWindow(workspace, Look(app, "light"), heartbeat, tasks)
    window.resize(QSize(1400, 860))
    window.show()
    window.start()
    runtime = await workspace.open(built.demo("64x8000"))
    await runtime.settled(120.0)
    gc.freeze()  # as the program does
    window.show_pane("migrations")
    window.toggle_large_pane()
    await asyncio.sleep(2.0)
    figures: dict[str, float] = {"rest": await share()}
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
    figures["waits"] = await share()
    figures["waits_gap_ms"] = heartbeat.longest_gap_ms
    heartbeat.start()
    runtime.steer(QueueVerb.RESUME)
    await asyncio.sleep(3.0)
    figures["resumed_gap_ms"] = heartbeat.longest_gap_ms
    heartbeat.start()
    figures["moves"] = await share()
    figures["moves_gap_ms"] = heartbeat.longest_gap_ms
    figures["at_once"] = len(runtime.view.progress)
    heartbeat.stop()
    window.hide()
    await tasks.close(0.2)
    await workspace.shutdown()
    return figures


def main() -> None:
    """Measure in a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["MUSTER_HOME"] = home
        app = QApplication(["muster"])
        app.setQuitOnLastWindowClosed(False)
        loop: Any = qasync.QEventLoop(app)
        asyncio.set_event_loop(loop)
        with loop:
            print(json.dumps(loop.run_until_complete(measure(app))))


if __name__ == "__main__":
    main()

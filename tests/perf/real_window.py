"""The real window on simulated hosts, in one process of its own that prints what was measured as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import qasync
from PySide6.QtCore import QSize
from PySide6.QtWidgets import QApplication

from manager import bootstrap
from manager.backends.sim.world import SimWorld
from manager.core.model import StatusCause, VmStatus
from manager.services.runtime import Runtime
from manager.services.tasks import Tasks
from manager.services.workspace import Workspace
from manager.ui.heartbeat import Heartbeat
from manager.ui.main_window import MainWindow
from manager.ui.theme import Look

Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A window that shows all VMs of a demo cluster."""

    window: MainWindow
    runtime: Runtime
    workspace: Workspace
    heartbeat: Heartbeat
    listed_s: float  # wall, from opening
    listed_gap_ms: float

    @property
    def world(self) -> SimWorld:
        """The simulated hosts."""
        return bootstrap._demo_worlds[self.runtime.id]


@asynccontextmanager
async def opened(app: QApplication, size: str) -> AsyncIterator[Opened]:
    """As the program does; `size` as after ``--demo``."""
    workspace, tasks, heartbeat = Workspace(bootstrap.adapters()), Tasks("bench"), Heartbeat(None, beat_ms=20)
    window = MainWindow(workspace, Look(app, "light"), heartbeat, tasks)
    window.resize(QSize(1400, 860))
    window.show()
    window.start()
    gc.disable()
    heartbeat.start()
    begun = time.perf_counter()
    runtime = await workspace.open(workspace.adapters.demo(size))
    window.go_page("roles")
    await runtime.listed(120.0)
    listed_s = time.perf_counter() - begun
    await runtime.settled(300.0)
    gc.freeze()
    gc.enable()
    await asyncio.sleep(2.0)
    yield Opened(
        window=window,
        runtime=runtime,
        workspace=workspace,
        heartbeat=heartbeat,
        listed_s=listed_s,
        listed_gap_ms=heartbeat.longest_gap_ms,
    )
    heartbeat.stop()
    window.shut()
    window.hide()
    await tasks.close(0.2)
    await workspace.shutdown()


async def kept(runtime: Runtime, limit_s: float) -> None:
    """Wait until no more definitions come into the vault: on the first day all are read, slowly."""
    until_s, count = time.perf_counter() + limit_s, -1
    while time.perf_counter() < until_s and len(runtime.view.kept) != count:
        count = len(runtime.view.kept)
        await asyncio.sleep(7.0)


async def share(seconds: float) -> float:
    """CPU of this process while it is left alone, as a share of a core."""
    before = time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - before) / seconds


@asynccontextmanager
async def changing(world: SimWorld, a_second: int) -> AsyncIterator[None]:
    """So many VMs a second are suspended or resumed on their hosts, which tell it as hosts do."""
    chance = random.Random(4)
    everyone = [vm for node in world.nodes.values() for vm in node.vms.values() if vm.runs]

    async def go_on() -> None:
        begun, done = time.perf_counter(), 0
        while True:
            await asyncio.sleep(0.02)
            due = int((time.perf_counter() - begun) * a_second)
            for _ in range(due - done):
                vm = chance.choice(everyone)
                if vm.status is VmStatus.RUNNING:
                    world.set_state(vm, VmStatus.PAUSED, StatusCause.USER)
                elif vm.status is VmStatus.PAUSED:
                    world.set_state(vm, VmStatus.RUNNING, StatusCause.USER)
            done = due

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def play(measure: Callable[[QApplication], Awaitable[Figures]]) -> None:
    """Measure in a home of its own and print the figures."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["MUSTER_HOME"] = home
        app = QApplication(["muster"])
        app.setQuitOnLastWindowClosed(False)
        loop: Any = qasync.QEventLoop(app)
        asyncio.set_event_loop(loop)
        with loop:
            print(json.dumps(loop.run_until_complete(measure(app))))


def figures_of(module: str, *words: str, timeout_s: float = 300) -> Figures:
    """Run a module that plays; what it printed."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *words],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        check=True,
    )
    figures: Figures = json.loads(ran.stdout)
    return figures

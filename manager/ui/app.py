"""Starts and ends the window: application, loop, clusters, one explicit shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import qasync
from PySide6.QtCore import QSize, QTimer
from PySide6.QtWidgets import QApplication

from manager.core.changes import ChangeSet
from manager.core.errors import UserError
from manager.core.model import ClusterConfig
from manager.services.event_log import EventLog
from manager.services.ports import Feature
from manager.services.runtime import Runtime
from manager.services.support_bundle import KeptLog
from manager.services.tasks import Tasks
from manager.services.workspace import Workspace
from manager.ui import display
from manager.ui.heartbeat import Heartbeat
from manager.ui.main_window import MainWindow
from manager.ui.options import GuiOptions
from manager.ui.theme import Look
from manager.ui.views.navigation import page_place

log = logging.getLogger(__name__)

SETTLE_S = 10.0
"""How long a screenshot waits for the nodes."""

LOADS_S = 5.0
"""How long a screenshot waits for loads: CPU use is the difference of two samples, a second apart."""

PAINT_S = 0.6
"""How long a screenshot lets the window take in and paint what came."""


def run(
    workspace: Workspace,
    open_clusters: Sequence[tuple[ClusterConfig, str | Path | None]],
    options: GuiOptions,
    event_log: EventLog | None,
) -> int:
    """Open the window on these clusters; returns the exit code when it was closed.

    Raises:
        UserError: There is no display to open it on.
    """
    trouble = display.why_none()
    if trouble:
        if options.screenshot is None:
            raise UserError(trouble)
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        app = QApplication(sys.argv[:1])
    app.setApplicationName("muster")
    app.setApplicationDisplayName("Muster")
    app.setDesktopFileName("muster")
    app.setQuitOnLastWindowClosed(False)
    loop = qasync.QEventLoop(app)
    asyncio.set_event_loop(loop)
    with loop:
        code: int = loop.run_until_complete(_main(app, workspace, open_clusters, options, event_log))
    return code


async def _main(
    app: QApplication,
    workspace: Workspace,
    open_clusters: Sequence[tuple[ClusterConfig, str | Path | None]],
    options: GuiOptions,
    event_log: EventLog | None,
) -> int:
    tasks = Tasks("window")
    heartbeat = Heartbeat(event_log)
    look = Look(app, options.theme or "system")
    kept, ours = KeptLog(), logging.getLogger("manager")
    ours.addHandler(kept)
    window = MainWindow(workspace, look, heartbeat, tasks, event_log, kept.lines)
    if options.theme is None:
        window.choose_theme(window.saved.theme)
    workspace.ask_secret = window.opening.ask_secret
    if options.size is not None:
        window.resize(QSize(*options.size))
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    window.closed.connect(partial(_resolve, closed))
    for number in (signal.SIGTERM, signal.SIGINT):
        # Python's own handlers run between two beats of the heartbeat; the window ends as if it were closed.
        signal.signal(number, lambda *_: _resolve(closed))
    gc.disable()  # a round over all that is being read would stand still for longer than any of it
    try:
        for config, source in open_clusters:
            try:
                await workspace.open(config, Path(source) if source else None)
            except UserError as error:
                window.note(str(error), (), "error")
        _go_to_page(window, options.page)
        window.show()
        await asyncio.sleep(0)  # the first picture
        window.start()
        if options.page == "queue":
            window.show_pane("migrations")
            window.panes.toggle_large()
        heartbeat.start()
        QTimer.singleShot(0, lambda: _record(event_log, "WindowShown"))
        tasks.spawn(_settled(workspace, event_log), "settle")
        if options.screenshot is not None:
            return await _screenshot(window, workspace, options.screenshot)
        await closed
        return 0
    finally:
        gc.enable()
        ours.removeHandler(kept)
        heartbeat.stop()
        window.shut()
        window.hide()
        await tasks.close(0.2)
        await workspace.shutdown()
        window.deleteLater()


def _resolve(closed: asyncio.Future[None]) -> None:
    if not closed.done():
        closed.set_result(None)


def _go_to_page(window: MainWindow, page: str | None) -> None:
    if page is not None and page != "queue" and window.here is not None:
        window.navigation.go(page_place(window.here.cluster, page))


async def _settled(workspace: Workspace, event_log: EventLog | None) -> None:
    """Once all is read: take what lives for the whole run out of the garbage collector's rounds."""
    runtimes = tuple(workspace.runtimes.values())
    await asyncio.gather(*(runtime.listed(60.0) for runtime in runtimes))
    _record(event_log, "RowsShown", vms=sum(len(r.view.vms) for r in runtimes))
    await asyncio.gather(*(runtime.settled(600.0) for runtime in runtimes))
    _record(event_log, "Settled", vms=sum(len(r.view.vms) for r in runtimes))
    gc.freeze()
    gc.enable()


def _record(event_log: EventLog | None, event: str, **fields: int) -> None:
    """For the benchmarks and end-to-end tests: when it was, and the CPU used so far."""
    if event_log is not None:
        event_log.record(event, at_s=time.time(), cpu_s=time.process_time(), **fields)


async def _measured(runtime: Runtime) -> None:
    """Wait until the CPU use of every node that can tell it is known; not for ever."""
    view = runtime.view
    done = asyncio.Event()

    def look(_: ChangeSet | None = None) -> None:
        tell = (
            n.id
            for n in view.nodes.values()
            if n.is_up and n.facts and Feature.LOAD_FIGURES in n.facts.features
        )
        if all((load := view.node_loads.get(n)) and load.cpu_percent is not None for n in tell):
            done.set()

    unsubscribe = runtime.subscribe(look)
    try:
        look()
        async with asyncio.timeout(LOADS_S):
            await done.wait()
    except TimeoutError:
        log.info("%s: a picture without all loads", runtime.id)
    finally:
        unsubscribe()


async def _screenshot(window: MainWindow, workspace: Workspace, path: Path) -> int:
    """A picture of the window as it is once the nodes were read."""
    await asyncio.gather(*(runtime.settled(SETTLE_S) for runtime in workspace.runtimes.values()))
    if window.current is not None and window.shows_loads:
        await _measured(window.current.runtime)
    if window.current is not None and window.shows_resources:
        await window.current.runtime.resources.read_all()
    await asyncio.sleep(PAINT_S)
    if not window.grab().save(str(path)):
        print(f"{path}: the picture cannot be written.", file=sys.stderr)
        return 1
    return 0

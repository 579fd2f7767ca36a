"""The window's tests: offscreen, on clusters fed by hand, with a loop that turns Qt's events too."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
import pytest_asyncio
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication

from manager.core.ids import VmId
from manager.services.tasks import Tasks
from manager.ui.actions import ENTRIES
from manager.ui.heartbeat import Heartbeat
from manager.ui.main_window import MainWindow
from manager.ui.theme import Look
from manager.ui.views.list_page import ListPage
from tests.ui.cluster_of import FakeRuntime, MemoryViews, runtime_of, workspace_of

PATIENCE_S = 10.0
CONFIGURED = Path()
"""A cluster opened from the file that its name leads to."""


@pytest.fixture
def look(qapp: QApplication) -> Look:
    """The light theme."""
    return Look(qapp, "light")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the offscreen platform cannot do is no fault of the window's."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.qt_log_ignore("This plugin does not support"))


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Turn both loops until something holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what or condition}"
        QApplication.processEvents()
        await asyncio.sleep(0.002)
    QApplication.processEvents()


@dataclass
class Desk:
    """A window with its clusters."""

    window: MainWindow
    runtime: FakeRuntime
    views: MemoryViews
    tasks: Tasks
    look: Look

    @property
    def page(self) -> ListPage:
        """The list that is shown."""
        page = self.window.list_page
        assert page is not None
        return page

    async def settle(self) -> None:
        """Let every bridge hand on what it has."""
        for pages in self.window.clusters.values():
            pages.bridge.flush()
        for _ in range(3):
            QApplication.processEvents()
            await asyncio.sleep(0)

    def select(self, *numbers: int) -> None:
        """Select VMs by number."""
        from tests.ui.cluster_of import vm_id

        self.page.select([vm_id(n) for n in numbers])

    def press(self, entry: str) -> None:
        """Trigger an action on the selection."""
        chosen = next(e for e in ENTRIES if e.id == entry)
        assert self.window.center.actions[entry].isEnabled(), entry
        self.window.center.wanted.emit(chosen)

    @property
    def selected(self) -> tuple[VmId, ...]:
        """What the actions are about."""
        return self.window.center.ids


OpenDesk = Callable[..., Awaitable[Desk]]


@pytest_asyncio.fixture
async def open_desk(qapp: QApplication) -> AsyncIterator[OpenDesk]:
    """Makes windows and ends them."""
    opened: list[Desk] = []

    async def open_it(
        *runtimes: FakeRuntime,
        views: MemoryViews | None = None,
        theme: str = "light",
        source: Path | None = CONFIGURED,
    ) -> Desk:
        mine = list(runtimes) or [runtime_of()]
        kept = views or MemoryViews()
        workspace = workspace_of(mine, kept)
        look = Look(qapp, theme)
        tasks = Tasks("test")
        window = MainWindow(workspace, look, Heartbeat(None), tasks)
        window.show()
        window.start()
        for runtime in mine:
            config = runtime.view.config
            await workspace.open(config, Path(f"{config.name}.toml") if source is CONFIGURED else source)
        desk = Desk(window, mine[0], kept, tasks, look)
        opened.append(desk)
        await desk.settle()
        return desk

    yield open_it
    for desk in opened:
        desk.window._closing = True
        desk.window.close()
        await desk.tasks.close(0.2)
        await desk.window.workspace.shutdown()
        desk.window.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    for _ in range(3):
        QApplication.processEvents()
        await asyncio.sleep(0)

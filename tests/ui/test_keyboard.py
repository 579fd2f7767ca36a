"""By keyboard and by ear: what takes the focus has a name, and Tab goes through in visual order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QRect, Qt
from PySide6.QtGui import QAccessible
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QComboBox, QDialog, QRadioButton, QWidget

from manager.ui.all_clusters import WITH_LISTS
from manager.ui.dialogs.base import Asking
from manager.ui.dialogs.plan import PlanDialog
from manager.ui.lower_panes import PANES
from manager.ui.main_window import MainWindow
from manager.ui.theme import Look
from manager.ui.views.navigation import EVERY, Place
from tests.ui import fits
from tests.ui.cluster_of import runtime_of, vm_id
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.fits import cluster, dialogs, scenes

MOST_STOPS = 200

pytestmark = pytest.mark.qt_log_ignore("QWidgetWindow|This plugin does not support")


def stops(top: QWidget) -> list[QWidget]:
    """What Tab should reach: of buttons of which one is chosen, that one."""
    return [
        each
        for each in [top, *top.findChildren(QWidget)]
        if each.isVisibleTo(top)
        and each.window() is top
        and each.isEnabled()
        and each.focusPolicy() & Qt.FocusPolicy.TabFocus
        and each.focusProxy() is None
        and not each.visibleRegion().isEmpty()
        and not (isinstance(each, QRadioButton) and not each.isChecked())
    ]


def name_of(widget: QWidget) -> str:
    """What a screen reader says of it. A choice has its value for a name: of what is in its description."""
    found = QAccessible.queryAccessibleInterface(widget)
    if found is None:
        return ""
    if isinstance(widget, QComboBox):
        return found.text(QAccessible.Text.Description)
    return found.text(QAccessible.Text.Name)


def called(widget: QWidget) -> str:
    """The widget, for a message."""
    return f"{type(widget).__name__} “{name_of(widget)}” in {type(widget.parentWidget()).__name__}"


def nameless(top: QWidget) -> list[str]:
    """Those that say nothing of themselves."""
    return [f"{called(each)} has no name" for each in stops(top) if not name_of(each).strip()]


def walk(top: QWidget) -> list[QWidget]:
    """Where Tab goes, from the first stop until it comes back."""
    first = next(iter(stops(top)), None)
    if first is None:
        return []
    first.setFocus(Qt.FocusReason.TabFocusReason)
    been: list[QWidget] = []
    for _ in range(MOST_STOPS):
        here = QApplication.focusWidget()
        assert here is not None, f"the focus is lost after {[called(w) for w in been[-2:]]}"
        if here in been:
            return been
        been.append(here)
        QTest.keyClick(here, Qt.Key.Key_Tab)
    raise AssertionError("Tab does not come back")


def branches(a: QWidget, b: QWidget) -> tuple[QRect, QRect]:
    """The largest parts of the window that hold one and not the other, where they stand."""
    above = [a, *parents(a)]
    mine, theirs = a, b
    for each in [b, *parents(b)]:
        if each in above:
            mine = above[above.index(each) - 1] if above.index(each) else a
            return placed(mine), placed(theirs)
        theirs = each
    return placed(a), placed(b)


def parents(widget: QWidget) -> Iterator[QWidget]:
    """Upwards to the window."""
    at = widget
    while not at.isWindow() and (up := at.parentWidget()) is not None:
        at = up
        yield at


def placed(widget: QWidget) -> QRect:
    """Where it is in the window."""
    return QRect(widget.mapTo(widget.window(), widget.rect().topLeft()), widget.size())


def out_of_order(been: list[QWidget]) -> list[str]:
    """Steps that go back: up, or left in one line. From the last stop to the first there is one."""
    found = []
    for a, b in zip(been, been[1:] + been[:1], strict=True):
        mine, theirs = branches(a, b)
        up = theirs.bottom() <= mine.top() and theirs.left() < mine.right()
        same = theirs.top() < mine.bottom() and mine.top() < theirs.bottom()
        if up or (same and theirs.right() <= mine.left()):
            found.append(f"{called(a)} at {placed(a).getRect()} → {called(b)} at {placed(b).getRect()}")
    return found if len(found) > 1 else []


def faults(top: QWidget) -> list[str]:
    """What is wrong with one window as it is."""
    found = nameless(top)
    been = walk(top)
    missed = [each for each in stops(top) if each not in been]
    return [
        *found,
        *(f"{called(each)} is not reached" for each in missed),
        *out_of_order(been),
    ]


def pages() -> dict[str, Callable[[Desk], None]]:
    """What `fits` does not show: each tab of the details, and the other pages and panes."""
    made: dict[str, Callable[[Desk], None]] = {}

    def of_one(page: str, key: str, at: int) -> Callable[[Desk], None]:
        def show(desk: Desk) -> None:
            desk.window.go_page(page)
            desk.page.select([key])
            QApplication.processEvents()
            desk.page.details.tabs.setCurrentIndex(at)

        return show

    for at in range(11):
        made[f"vm tab {at}"] = of_one("roles", vm_id(1), at)
    for at in range(7):
        made[f"node tab {at}"] = of_one("nodes", "n1", at)
    for page in ("storage", "networks", "events"):
        made[page] = lambda desk, page=page: desk.window.go_page(page)  # type: ignore[misc]
    for pane in ("migrations", "operations", "problems"):
        made[pane] = lambda desk, pane=pane: desk.window.show_pane(pane)  # type: ignore[misc]
    return made


async def test_every_page_and_pane_is_walked_by_tab(open_desk: OpenDesk) -> None:
    desk = await open_desk(cluster())
    window = desk.window
    window.resize(1400, 860)
    window.activateWindow()
    await until(window.isActiveWindow, "the window is active")
    found: dict[str, list[str]] = {}
    shows: dict[str, Callable[[], object]] = {
        **{name: (lambda s=show: s(window)) for name, show in scenes().items()},  # type: ignore[misc]
        **{name: (lambda s=show: s(desk)) for name, show in pages().items()},  # type: ignore[misc]
    }
    for name, show in shows.items():
        show()
        await desk.settle()
        await settled(window)
        if faulty := faults(window):
            found[name] = faulty
        if window.list_page is not None:
            window.list_page.search.clear()
            window.list_page.criteria_button.setChecked(False)
    assert not found, told(found)


async def test_all_clusters_are_walked_by_tab(open_desk: OpenDesk) -> None:
    desk = await open_desk(cluster(), runtime_of(2, 4, name="lab-b"))
    window = desk.window
    window.activateWindow()
    await until(window.isActiveWindow, "the window is active")
    found: dict[str, list[str]] = {}
    for page in WITH_LISTS:
        assert window.navigation.go(Place(EVERY, page))
        for pane in PANES:
            window.show_pane(pane)
            for chosen in (1, 2):
                await desk.settle()
                keys = [row.key for row in desk.page.model.rows][:chosen]
                desk.page.select(keys)
                await desk.settle()
                await settled(window)
                if faulty := faults(window):
                    found[f"{page}, {pane}, {chosen} selected"] = faulty
    assert not found, told(found)


async def test_every_dialog_is_walked_by_tab(open_desk: OpenDesk, look: Look) -> None:
    desk = await open_desk(cluster())
    found: dict[str, list[str]] = {}
    for name, dialog in dialogs(desk.window, look, desk.runtime).items():
        dialog.show()
        dialog.activateWindow()
        await until(lambda d=dialog: d.isActiveWindow() or QApplication.activePopupWidget() is d, name)
        await settled(dialog)
        if faulty := faults(dialog):
            found[name] = faulty
        dialog.hide()
        dialog.deleteLater()
    assert not found, told(found)


async def test_another_page_by_its_keys_is_ready_for_those_of_its_list(open_desk: OpenDesk) -> None:
    desk = await open_desk(cluster())
    desk.window.activateWindow()
    await until(desk.window.isActiveWindow, "the window is active")
    desk.page.table.setFocus()
    for page in ("nodes", "storage", "roles"):
        desk.window.go_page(page)
        assert desk.page.table.hasFocus()
    desk.window.navigation.setFocus()
    desk.window.navigation.go(Place(desk.runtime.id, "nodes"))
    assert desk.window.navigation.hasFocus()  # who goes about in the tree stays there
    desk.window.go_page("roles")
    assert desk.page.table.hasFocus()


async def test_tab_and_back_is_where_it_was(open_desk: OpenDesk) -> None:
    desk = await open_desk(cluster())
    desk.window.activateWindow()
    await until(desk.window.isActiveWindow, "the window is active")
    await settled(desk.window)
    there = walk(desk.window)
    back = [there[0]]
    for _ in there[1:]:
        QTest.keyClick(QApplication.focusWidget() or desk.window, Qt.Key.Key_Backtab)
        back.append(QApplication.focusWidget())  # type: ignore[arg-type]
    assert [called(w) for w in back] == [called(w) for w in [there[0], *reversed(there[1:])]]


async def test_no_cluster_is_open(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    window: MainWindow = desk.window
    window.opening.close_cluster()
    await until(lambda: not window.clusters, "closed")
    window.activateWindow()
    await until(window.isActiveWindow, "the window is active")
    await settled(window)
    assert faults(window) == []


async def settled(top: QWidget) -> None:
    """Wait until nothing is laid out any more."""
    before: list[tuple[int, ...]] = []
    for _ in range(50):
        now = [placed(each).getRect() for each in stops(top)]
        if now == before:
            return
        before = now  # type: ignore[assignment]
        await until(lambda: True)


def told(found: dict[str, list[str]]) -> str:
    """Each fault once, with where it was seen first."""
    seen: dict[str, str] = {}
    for name, faulty in found.items():
        for each in faulty:
            seen.setdefault(each, name)
    return "\n" + "\n".join(f"{name}: {each}" for each, name in seen.items())


def test_no_dialog_is_forgotten() -> None:
    def kinds(of: type) -> set[type]:
        return {of}.union(*(kinds(each) for each in of.__subclasses__()))

    ours = {k for k in kinds(QDialog) if k.__module__.startswith("manager.")} - {Asking, PlanDialog}
    text = Path(fits.__file__).read_text(encoding="utf-8")
    assert not {kind.__name__ for kind in ours if f"{kind.__name__}(" not in text}

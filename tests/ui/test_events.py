"""Cluster events, what happened to a VM or node, and problems with a life, in the window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QTableWidgetItem

from manager.core.chronicle import Level, id_at
from manager.core.events import OwnershipTaken, ProblemVerb
from manager.core.ids import Kind
from manager.core.model import StatusCause, VmStatus
from manager.ui.views.events_page import EventsTab
from manager.ui.views.problems_pane import NoteDialog, ProblemsPane
from tests.ui.cluster_of import FakeRuntime, runtime_of, vm_id
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.test_window import wait_for


def recording(vms: int = 6) -> FakeRuntime:
    """A cluster whose process owns the operations."""
    runtime = runtime_of(2, vms)
    runtime.dispatch(OwnershipTaken(at_s=runtime.clock.now_s()))
    return runtime


def texts(desk: Desk) -> list[str]:
    model = desk.page.model
    return [model.text(row, model.columns["text"]) for row in model.rows]


async def test_events_come_in_newest_first_and_are_searched(open_desk: OpenDesk) -> None:
    runtime = recording()
    desk = await open_desk(runtime)
    desk.window.go_page("events")
    assert desk.page.kind is Kind.EVENT
    assert desk.page.empty.title.text() == "No event is recorded yet"
    runtime.change(0, VmStatus.OFF, StatusCause.SHUT_DOWN)
    runtime.change(1, VmStatus.CRASHED, StatusCause.CRASHED)
    await desk.settle()
    assert texts(desk)[-1] == "Off on n1 (shut down)"
    assert texts(desk)[1].startswith("Crashed on")
    assert texts(desk)[0].startswith("Problem: crashed")
    desk.page.search.setText("error crashed")
    desk.page.search.flush()
    assert len(texts(desk)) == 2
    desk.page.table.selectAll()
    desk.window.lists.copy_command()
    assert QGuiApplication.clipboard().text().endswith(" events")


async def test_what_happened_before_is_asked_for_when_it_is_looked_at(
    open_desk: OpenDesk, tmp_path: Path
) -> None:
    runtime = recording()
    runtime.change(0, VmStatus.OFF, StatusCause.SHUT_DOWN)
    (event,) = runtime.view.events.values()
    old = replace(event, id=id_at(1_000.0), at_s=1_000.0, level=Level.WARNING, who="bea@pc", vm_name="x\n<b>")
    runtime.past_events = (old,)
    desk = await open_desk(runtime)
    assert old.id not in runtime.view.events
    desk.window.go_page("events")
    await desk.settle()
    page = desk.page
    assert [row.key for row in page.model.rows] == [event.id, old.id]
    page.select([old.id])
    await until(lambda: "VM x" in page.details._title.text())
    assert "\n" not in page.details._title.text()
    assert page.details.tabs.text() == old.text
    desk.window.lists.export_to(tmp_path / "events.json")
    assert '"who": "bea@pc"' in (tmp_path / "events.json").read_text()


async def test_a_vms_and_a_nodes_details_tell_what_happened_to_them(open_desk: OpenDesk) -> None:
    runtime = recording()
    runtime.change(0, VmStatus.OFF, StatusCause.SHUT_DOWN)
    desk = await open_desk(runtime)
    details = desk.page.details
    desk.select(0)
    await until(lambda: details.tabs.isVisible())
    shown = [details.tabs.tabText(i) for i in range(details.tabs.count())]
    details.tabs.setCurrentIndex(shown.index("Events"))
    events = details.findChild(EventsTab)
    assert isinstance(events, EventsTab)
    await until(lambda: events.rowCount() == 1)
    runtime.change(0, VmStatus.RUNNING, StatusCause.BOOTED)
    await until(lambda: events.rowCount() == 2)
    newest = events.item(0, 3)
    assert isinstance(newest, QTableWidgetItem)
    assert newest.text() == "Running on n1 (booted)"
    desk.window.go_page("nodes")
    desk.page.select(["n1"])
    node = desk.page.details
    await until(lambda: node.tabs.isVisible())
    node.tabs.setCurrentIndex([node.tabs.tabText(i) for i in range(node.tabs.count())].index("Events"))
    tab = node.findChild(EventsTab)
    assert isinstance(tab, EventsTab)
    await until(lambda: tab.rowCount() == 2)


async def test_a_problem_is_acknowledged_with_a_note_and_counted_no_more(open_desk: OpenDesk) -> None:
    runtime = recording()
    for number in (0, 1):
        runtime.change(number, VmStatus.CRASHED, StatusCause.CRASHED)
    desk = await open_desk(runtime)
    window = desk.window
    pane = window.clusters[runtime.id].problems
    assert isinstance(pane, ProblemsPane)
    window.show_pane("problems")
    await desk.settle()
    window._show_counts()
    assert window.top.problems_link.text() == "2 problems"
    assert not pane.acknowledge_button.isEnabled()
    key = f"vm:{vm_id(1)}"
    pane.table.select_ids([key], current=key)
    await until(pane.acknowledge_button.isEnabled)
    pane.acknowledge_button.click()
    dialog = await wait_for(desk, NoteDialog)
    assert isinstance(dialog, NoteDialog)
    QTest.keyClicks(dialog.field, "new disk")
    QTest.keyClick(dialog.field, Qt.Key.Key_Return)
    await until(lambda: not runtime.view.problems[key].is_new(runtime.view.now_s))
    await desk.settle()
    window._show_counts()
    assert window.top.problems_link.text() == "1 problem"
    assert window.panes.tabText(2) == "Problems  1 + 1 known"
    model = pane.model
    await until(lambda: model.rows[-1].key == key, "it stands below those that are new")
    assert model.text(model.rows[-1], model.columns["note"]) == "adm@here: new disk"
    assert not pane.acknowledge_button.isEnabled()
    pane.reopen()
    await desk.settle()
    assert runtime.view.problems[key].is_new(runtime.view.now_s)
    pane.mute_button.menu().actions()[0].trigger()
    await desk.settle()
    assert model.text(model.rows[-1], model.columns["state"]) == "muted"


async def test_what_cannot_be_said_of_a_problem_is_said(open_desk: OpenDesk) -> None:
    runtime = recording()
    runtime.change(0, VmStatus.CRASHED, StatusCause.CRASHED)
    desk = await open_desk(runtime)
    pane = desk.window.clusters[runtime.id].problems

    def lost(verb: ProblemVerb, keys: tuple[str, ...], **_: object) -> None:
        raise OSError("the owner was lost")

    runtime.mark = lost  # type: ignore[method-assign]
    desk.window.show_pane("problems")
    await desk.settle()
    key = f"vm:{vm_id(0)}"
    pane.table.select_ids([key], current=key)
    pane.mute_button.menu().actions()[0].trigger()
    assert "the owner was lost" in desk.window.notes[-1].accessibleName()

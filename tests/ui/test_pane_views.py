"""Views of what ended in the queue, and of problems: the same button, menu, keys and names as of pages."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QMenu

from manager.core.events import ProblemVerb
from manager.core.ids import Kind, NodeId
from manager.core.model import MigrationLimits, RetryPolicy, StatusCause, VmStatus
from manager.core.query.views import View
from manager.ui.dialogs.palette import CommandPalette
from manager.ui.views.problems_pane import ProblemsPane
from manager.ui.views.queue_pane import QueuePane
from manager.ui.views.saved_views import NameDialog, ShownView
from tests.ui.cluster_of import runtime_of
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.moves_of import arrive, ask, check, fail
from tests.ui.test_events import recording
from tests.ui.test_views import kept
from tests.ui.test_window import wait_for

WEB_3 = View(
    id="",
    name="Of web-3",
    kind=Kind.OPERATION,
    query="vm:web-3",
    columns=(("vm", 120), ("state", 90), ("reason", 0)),
    sort=(("vm", True),),
)


def menu(shown: ShownView) -> dict[str, QAction]:
    made = QMenu(shown.button)
    shown.fill(made)
    return {action.text(): action for action in made.actions()}


def queue_of(desk: Desk) -> QueuePane:
    return desk.window.clusters[desk.runtime.id].queue


def problems_of(desk: Desk) -> ProblemsPane:
    return desk.window.clusters[desk.runtime.id].problems


def rows(pane: QueuePane) -> list[str]:
    return sorted(row.item.vm_name for row in pane.past_model.rows)


async def with_past(open_desk: OpenDesk, *views: View) -> Desk:
    """web-0 was moved, web-3 was not."""
    limits = MigrationLimits(retry=RetryPolicy(times=0))
    desk = await open_desk(runtime_of(3, 12, migration=limits), views=kept(*views))
    ask(desk.runtime, 0, 3, target=NodeId("n2"))
    check(desk.runtime)
    arrive(desk.runtime, 0)
    fail(desk.runtime, 3)
    await desk.settle()
    queue_of(desk).show_tab("history")
    await until(lambda: rows(queue_of(desk)) == ["web-0", "web-3"], "both ends")
    return desk


async def test_the_history_has_views_and_its_own_search(open_desk: OpenDesk) -> None:
    desk = await with_past(open_desk, WEB_3)
    pane = queue_of(desk)
    assert pane.shown.button.isVisible()
    offered = menu(pane.shown)
    assert list(offered)[:4] == ["All", "Failed", "By state", ""]
    assert "Of web-3" in offered
    offered["Failed"].trigger()
    await desk.settle()
    assert (rows(pane), pane.search.text(), pane.used.text()) == (["web-3"], "is:failed", "Failed")
    menu(pane.shown)["By state"].trigger()
    assert sorted(group.title for group in pane.past_model.groups) == ["Done", "Failed"]
    menu(pane.shown)["Of web-3"].trigger()
    assert rows(pane) == ["web-3"]
    fields = pane.past_model.fields
    assert [fields[c].name for c in pane.past_table.shown_columns()] == ["vm", "state", "reason"]
    assert not pane.shown.is_changed
    pane.show_tab("queue")  # what waits and runs is not searched by it
    assert not pane.shown.button.isVisible()
    assert pane.search.text() == ""
    assert pane.used.text() != "Of web-3"
    pane.show_tab("failed")
    assert (pane.shown.button.isVisible(), pane.search.text()) == (True, "vm:web-3")
    pane.show_tab("history")
    pane.past_model.sort_by("state", False)
    pane.past_table.save_layout()
    assert pane.used.text() == "Of web-3 (changed)"
    assert pane.shown.revert_button.isVisible()
    pane.shown.revert_button.click()
    assert pane.past_model.order == (("vm", True),)
    assert pane.used.text() == "Of web-3"
    menu(pane.shown)["All"].trigger()
    assert rows(pane) == ["web-0", "web-3"]
    assert len(pane.past_table.shown_columns()) > 3


async def test_ctrl_s_saves_what_the_list_in_which_one_works_shows(open_desk: OpenDesk) -> None:
    desk = await with_past(open_desk)
    pane = queue_of(desk)
    pane.search.setText("state:failed reason:x")
    pane.search.flush()
    pane.past_table.setFocus()
    QTest.keyClick(desk.window, Qt.Key.Key_S, Qt.KeyboardModifier.ControlModifier)
    dialog = await wait_for(desk, NameDialog)
    assert isinstance(dialog, NameDialog)
    dialog.field.setText("Failed for x")
    QTest.keyClick(dialog.field, Qt.Key.Key_Return)
    await until(lambda: pane.shown.view.name == "Failed for x", "the new view")
    (view,) = desk.window.saved_views.views.own
    assert (view.kind, view.query) == (Kind.OPERATION, "state:failed reason:x")
    assert pane.tab == "history"
    menu(pane.shown)["Delete"].trigger()
    assert pane.shown.view.name == "All"
    assert rows(pane) == ["web-0", "web-3"]
    desk.page.table.setFocus()
    desk.window.lists.fill_views(desk.window.commands.views_menu)
    assert "By node" in [action.text() for action in desk.window.commands.views_menu.actions()]


async def test_a_view_is_gone_to_by_name_from_anywhere(open_desk: OpenDesk) -> None:
    desk = await with_past(open_desk, WEB_3)
    pane = queue_of(desk)
    pane.show_tab("queue")
    desk.window.show_pane("problems")
    desk.window.open_palette()
    palette = desk.window.findChild(CommandPalette)
    assert palette is not None
    palette.field.setText("Of web-3")
    found = palette.shown[0]
    assert found.kind == "view of the history of moves of prod-a"
    QTest.keyClick(palette.field, Qt.Key.Key_Return)
    await desk.settle()
    assert (pane.isVisible(), pane.tab, rows(pane)) == (True, "history", ["web-3"])


async def test_an_operation_is_shown_though_the_view_leaves_it_out(open_desk: OpenDesk) -> None:
    desk = await with_past(open_desk, WEB_3)
    pane = queue_of(desk)
    menu(pane.shown)["Of web-3"].trigger()
    keys = {row.item.vm_name: row.key for row in pane.past_model._all}
    pane.show_operation(keys["web-3"])
    assert pane.search.text() == "vm:web-3"
    pane.show_operation(keys["web-0"])
    assert pane.past_table.selected_ids == [keys["web-0"]]
    assert pane.search.text() == ""


async def test_problems_are_searched_and_have_views(open_desk: OpenDesk) -> None:
    mine = View(id="", name="By state", kind=Kind.PROBLEM, group="state", sort=(("state", True),))
    desk = await open_desk(recording(), views=kept(mine))
    for number in (1, 2, 3):
        desk.runtime.change(number, VmStatus.CRASHED, StatusCause.CRASHED)
    await desk.settle()
    pane = problems_of(desk)
    desk.window.show_pane("problems")
    await until(lambda: len(pane.model.rows) == 3, "three problems")
    assert list(menu(pane.shown))[:3] == ["All", "New", ""]
    first = pane.model.rows[0].key
    desk.runtime.mark(ProblemVerb.ACKNOWLEDGE, (first,), note="seen")
    await desk.settle()
    menu(pane.shown)["New"].trigger()
    await until(lambda: len(pane.model.rows) == 2, "the new ones")
    assert first not in [row.key for row in pane.model.rows]
    assert pane._view_title.text() == "New"
    menu(pane.shown)["By state"].trigger()
    assert [group.title for group in pane.model.groups] == ["new", "acknowledged"]
    menu(pane.shown)["All"].trigger()
    pane.table.setFocus()
    desk.window.commands.search.trigger()
    assert pane.search.hasFocus()
    QTest.keyClicks(pane.search, "web-2")
    QTest.keyClick(pane.search, Qt.Key.Key_Down)
    assert [row.item.reason is not None for row in pane.model.rows] == [True]
    assert pane.table.hasFocus()
    pane.search.setText("nothing is called so")
    pane.search.flush()
    assert "None of 3 matches" in pane.empty.title.text()

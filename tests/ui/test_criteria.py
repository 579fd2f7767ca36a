"""The criteria builder: it and the text are one query, whatever is shown, typed, added, removed or moved."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from PySide6.QtCore import QEvent, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from manager.core.ids import Kind
from manager.core.query.flags import FLAGS
from manager.core.query.parser import parse, parts_of
from manager.core.query.query import EVERYTHING, AllOf, AnyOf, Not, Query, Term, Words, text_of
from manager.core.query.spec import FieldSpec
from manager.ui.theme import Look
from manager.ui.views.criteria import MOST, CriteriaPanel, _Group, _Row
from manager.ui.views.criteria_editors import Choice, Combo, Figure, TextEditor
from tests.support.queries import QUERIES
from tests.ui.cluster_of import runtime_of
from tests.ui.conftest import OpenDesk, until

ALT = Qt.KeyboardModifier.AltModifier
CTRL_SHIFT = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier


def known(spec: FieldSpec) -> list[str]:
    return {"owner": ["n1", "n2"], "name": ["web-1", "web-2", "a,b"]}.get(spec.name, [])


class Desk:
    """A panel on a page, and what it said."""

    def __init__(self, qtbot: QtBot, look: Look, kind: Kind = Kind.VM) -> None:
        self.bot = qtbot
        self.page = QWidget()
        qtbot.addWidget(self.page)
        self.panel = CriteriaPanel(kind, known, look)
        layout = QVBoxLayout(self.page)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.panel)
        layout.addWidget(QWidget(), 1)
        self.page.resize(800, 900)
        self.page.show()
        self.page.activateWindow()
        qtbot.waitUntil(self.page.isActiveWindow)
        self.said: list[str] = []
        self.panel.changed.connect(self._hear)

    def _hear(self, query: Query) -> None:
        assert query == self.panel.query
        assert parse(text_of(query)) == query, "what is said can be typed"
        self.said.append(text_of(query))

    def show(self, text: str) -> None:
        self.panel.set_query(parse(text))
        QApplication.processEvents()

    @property
    def rows(self) -> list[_Row]:
        return list(self.panel.root.rows())

    @property
    def groups(self) -> list[_Group]:
        return [part for part in self.panel.root.parts if isinstance(part, _Group)]

    def type(self, row: _Row, text: str, editor: int = 0) -> None:
        """Type over a value, key by key."""
        line = row.editors[editor]
        assert isinstance(line, TextEditor | Figure)
        line.line.setFocus()
        line.line.selectAll()
        self.bot.keyClicks(line.line, text)
        line.line.clearFocus()

    def choose(self, combo: Combo, text: str) -> None:
        """Choose as with the keyboard."""
        combo.setCurrentIndex(combo.findText(text))
        assert combo.currentText() == text
        combo.activated.emit(combo.currentIndex())
        QApplication.processEvents()

    def click(self, button: QWidget) -> None:
        self.bot.mouseClick(button, Qt.MouseButton.LeftButton)
        QApplication.processEvents()

    @property
    def last(self) -> str:
        return self.said[-1]


@pytest.fixture
def desk(qtbot: QtBot, look: Look) -> Iterator[Desk]:
    made = Desk(qtbot, look)
    yield made
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.mark.parametrize("kind", [Kind.VM, Kind.PROBLEM])
def test_every_query_is_shown_and_read_back(qtbot: QtBot, look: Look, kind: Kind) -> None:
    desk = Desk(qtbot, look, kind)

    @settings(max_examples=40)
    @given(QUERIES)
    def check(query: Query) -> None:
        desk.panel.set_query(query)
        assert desk.panel.query == query
        assert desk.panel.root.read() == query
        assert [row.read() is not None for row in desk.rows] == [True] * len(list(parts_of(query)))
        assert desk.said == []
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)

    check()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(query=QUERIES)
def test_one_edit_leaves_all_else_as_it_was(desk: Desk, query: Query) -> None:
    """A criterion is added, written and removed: the query is the one it was, though every group was read."""
    desk.panel.set_query(query)
    before = desk.panel.query
    root = desk.panel.root
    root.add_row_button.click()
    assert desk.panel.query == before
    row = root.parts[-1]
    assert isinstance(row, _Row)
    line = row.editors[0]
    assert isinstance(line, TextEditor)
    line.set_text("zz")
    line.edited.emit()
    assert desk.panel.query != before
    assert "name:*zz*" in text_of(desk.panel.query)
    row.remove()
    assert desk.panel.query == before
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.mark.parametrize(
    "query",
    [
        EVERYTHING,
        Not(EVERYTHING),
        AnyOf((EVERYTHING, Words("a"))),
        AllOf((Words("a"),)),
        AllOf((AllOf((Words("a"), Words("b"))), AllOf())),
        parse("not not web"),
        parse("a or (b c) or not (d e)"),
        parse("is:running,off"),
    ],
    ids=str,
)
def test_odd_queries_are_kept(desk: Desk, query: Query) -> None:
    desk.panel.set_query(query)
    assert desk.panel.query == query
    assert desk.said == []


def test_rows_say_what_the_text_says(desk: Desk) -> None:
    desk.show("status:running memory>4GiB cpu:50..80 not is:migrating web movable:yes changed:2h tag!=none")
    assert [
        (
            row.not_button.isChecked(),
            row.subject.currentText(),
            "" if row.comparison.isHidden() else row.comparison.currentText(),
            [editor.text() for editor in row.editors],
        )
        for row in desk.rows
    ] == [
        (False, "Status", "is", ["running"]),
        (False, "Memory", "more than", ["4GiB"]),
        (False, "CPU", "between", ["50%", "80%"]),
        (True, "Shorthand", "", ["migrating"]),
        (False, "Any text", "contains", ["web"]),
        (False, "Movable", "is", ["yes"]),
        (False, "Changed", "within the last", ["2h"]),
        (False, "Tags", "is not none", []),
    ]


def test_each_edit_is_a_query_at_once(desk: Desk) -> None:
    desk.show("status:running")
    row = desk.rows[0]
    desk.type(row, "off")
    assert desk.last == "status:off"
    assert "status:o" not in desk.said, "Status is never o"
    desk.choose(row.comparison, "is not")
    assert desk.last == "status!=off"
    desk.click(row.not_button)
    assert desk.last == "not status!=off"
    desk.choose(row.subject, "Memory")
    assert desk.last == ""
    assert row.note.text() == "unfinished"
    desk.choose(row.comparison, "at least")
    desk.type(row, "8")
    assert desk.last == "not memory>=8GiB"
    figure = row.editors[0]
    assert isinstance(figure, Figure)
    desk.choose(figure.unit, "MiB")
    assert desk.last == "not memory>=8MiB"
    desk.choose(row.comparison, "between")
    desk.type(row, "1TiB", editor=1)
    assert desk.last == "not memory:8MiB..1TiB"
    desk.choose(row.comparison, "is unknown")
    assert desk.last == "not memory:unknown"
    assert row.editors == []
    desk.choose(row.subject, "Any text")
    desk.type(row, "or")
    assert desk.last == 'not "or"'
    desk.choose(row.subject, "Shorthand")
    choice = row.editors[0]
    assert isinstance(choice, Choice)
    assert [choice.combo.itemText(at) for at in range(choice.combo.count())] == list(FLAGS[Kind.VM])
    desk.choose(choice.combo, "stale")
    assert desk.last == "not is:stale"


def test_what_is_wrong_is_said_beside_it_and_left_out(desk: Desk) -> None:
    desk.show("memory>4GiB cpu>80%")
    first, second = desk.rows
    desk.type(first, "lots")
    assert first.error.text() == "Memory needs a figure such as 4GiB, not lots."
    assert first.error.isVisible()
    assert first.editors[0].line.accessibleDescription() == first.error.text()  # type: ignore[attr-defined]
    assert desk.last == "cpu>80%"
    desk.show(desk.last)  # as the search box answers
    assert desk.rows == [first, second], "what is unfinished stays"
    desk.type(first, "2")
    assert not first.error.isVisible()
    assert desk.last == "memory>2GiB cpu>80%"


def test_what_the_text_has_wrong_is_said_and_not_thrown_away(desk: Desk) -> None:
    desk.show("ownr:n1 status:running")
    assert desk.rows[0].error.text() == "VMs have no field ownr. Did you mean owner?"
    desk.type(desk.rows[1], "off")
    assert desk.last == "ownr:n1 status:off"
    desk.choose(desk.rows[0].subject, "Owner node")
    desk.choose(desk.rows[0].comparison, "is")
    desk.type(desk.rows[0], "n1")
    assert desk.last == "owner:n1 status:off"


def test_groups_are_made_joined_and_removed(desk: Desk) -> None:
    desk.show("web")
    root = desk.panel.root
    desk.click(root.add_group_button)
    assert desk.said == [], "nothing is asked yet"
    group = desk.groups[0]
    assert group.choice.currentText() == "Any of these"
    desk.type(desk.rows[1], "a")
    desk.click(group.add_row_button)
    desk.type(desk.rows[2], "b")
    assert desk.last == "web (name:*a* or name:*b*)"
    desk.click(group.not_button)
    assert desk.last == "web not (name:*a* or name:*b*)"
    desk.choose(root.choice, "Any of these")
    assert desk.last == "web or not (name:*a* or name:*b*)"
    desk.click(group.remove_button)
    assert desk.last == "web"
    desk.click(desk.rows[0].remove_button)
    assert desk.last == ""
    assert desk.panel.query == EVERYTHING


def test_alt_and_arrows_move_through_groups_and_the_focus_stays(desk: Desk) -> None:
    desk.show("a (b or c) d")
    row = desk.rows[0]
    field = row.subject
    field.setFocus()
    seen = []
    for _ in range(6):
        desk.bot.keyClick(field, Qt.Key.Key_Down, ALT)
        seen.append(text_of(desk.panel.query))
        assert field.hasFocus()
        assert row.subject is field
    assert seen == [
        "(a or b or c) d",
        "(b or a or c) d",
        "(b or c or a) d",
        "(b or c) a d",
        "(b or c) d a",
        "(b or c) d a",
    ]
    for _ in range(7):
        desk.bot.keyClick(field, Qt.Key.Key_Up, ALT)
    assert text_of(desk.panel.query) == "a (b or c) d"
    line = row.editors[0]
    assert isinstance(line, TextEditor)
    line.line.setFocus()
    desk.bot.keyClick(line.line, Qt.Key.Key_Down, ALT)
    assert text_of(desk.panel.query) == "(a or b or c) d"
    assert line.line.hasFocus()


def test_the_keyboard_goes_on_where_rows_come_and_go(desk: Desk) -> None:
    desk.show("a b c")
    root = desk.panel.root
    desk.click(root.add_row_button)
    assert desk.rows[3].subject.hasFocus()
    desk.click(desk.rows[3].remove_button)
    assert desk.rows[2].subject.hasFocus()
    desk.click(desk.rows[1].remove_button)
    assert desk.rows[1].subject.hasFocus()
    assert text_of(desk.panel.query) == "a c"
    for _ in range(2):
        desk.click(desk.rows[0].remove_button)
    assert root.add_row_button.hasFocus()


def test_tab_reaches_everything_in_the_order_seen(desk: Desk) -> None:
    desk.show("memory:1GiB..2GiB (is:running or web)")
    desk.bot.keyClick(desk.rows[2].subject, Qt.Key.Key_Up, ALT)
    desk.click(desk.panel.root.add_row_button)
    stops = list(desk.panel.root.stops())
    assert len(stops) == len(set(stops)) > 20
    assert all(stop.accessibleName() or stop.text() for stop in stops)  # type: ignore[attr-defined]
    first = stops[0]
    first.setFocus()
    reached: list[QWidget] = []
    for _ in stops:
        focused = QApplication.focusWidget()
        assert focused is not None, reached[-1].accessibleName()
        reached.append(focused)
        desk.bot.keyClick(focused, Qt.Key.Key_Tab)
    assert reached == stops


def test_values_that_exist_are_offered(desk: Desk) -> None:
    desk.show("owner:n1")
    editor = desk.rows[0].editors[0]
    assert isinstance(editor, TextEditor)
    editor.line.setFocus()
    desk.bot.keyClick(editor.line, Qt.Key.Key_End)
    desk.bot.keyClicks(editor.line, ", 2")
    offers = editor.completer
    assert [offers.completionModel().index(at, 0).data() for at in range(offers.completionCount())] == ["n2"]
    desk.bot.keyClick(offers.popup(), Qt.Key.Key_Down)
    desk.bot.keyClick(offers.popup(), Qt.Key.Key_Return)
    assert editor.text() == "n1, n2"
    assert desk.last == "owner:n1,n2"
    desk.show("name:x")
    desk.choose(desk.rows[0].comparison, "is")
    editor = desk.rows[0].editors[0]
    assert isinstance(editor, TextEditor)
    editor.line.setFocus()
    editor.line.clear()
    desk.bot.keyClick(editor.line, Qt.Key.Key_Down)
    popup = editor.completer.popup()
    assert popup is not None
    assert popup.isVisible()
    popup.hide()


def test_it_is_at_most_a_third_of_the_page_and_scrolls(desk: Desk) -> None:
    desk.show("a")
    desk.bot.waitUntil(lambda: desk.panel.height() == desk.panel._inside.sizeHint().height() + 2)
    few = desk.panel.height()
    desk.show(" ".join(f"a{n}" for n in range(20)))
    desk.bot.waitUntil(lambda: desk.panel.height() == 300)
    assert few < 100
    desk.panel.root.add_row_button.click()
    QApplication.processEvents()
    last = desk.rows[-1]
    desk.bot.waitUntil(lambda: not last.subject.visibleRegion().isEmpty())
    desk.show("a")
    desk.bot.waitUntil(lambda: desk.panel.height() == few)


def test_very_long_queries_are_edited_as_text(desk: Desk) -> None:
    text = " ".join(f"a{n}" for n in range(MOST + 1))
    desk.show(text)
    assert desk.panel.query == parse(text)
    assert not desk.panel.area.isVisible()
    desk.show("a0 a1")
    assert desk.panel.area.isVisible()
    assert len(desk.rows) == 2
    assert desk.said == []


def test_typing_in_the_text_keeps_the_rows_that_are_the_same(desk: Desk) -> None:
    desk.show("status:running memory>4GiB")
    first = desk.rows[0]
    desk.show("status:running memory>4GiB tag:web")
    assert desk.rows[0] is first
    assert len(desk.rows) == 3
    desk.show("status:off")
    assert desk.rows == [first]
    assert first.editors[0].text() == "off"


def test_icons_follow_the_theme(desk: Desk) -> None:
    desk.show("a (b or c)")
    button = desk.rows[2].remove_button
    before = button.icon().cacheKey()
    desk.panel.look.choose("dark")
    assert button.icon().cacheKey() != before


def test_hosts_texts_are_shown_plain(desk: Desk) -> None:
    term = parse('name:"a\x07b"')
    assert isinstance(term, Term)
    desk.panel.set_query(term)
    assert desk.panel.query == term
    assert "\x07" not in desk.rows[0].accessibleName()


async def test_the_text_and_the_criteria_are_one(open_desk: OpenDesk) -> None:
    page = (await open_desk(runtime_of(2, 12))).page
    page.window().activateWindow()
    await until(page.window().isActiveWindow)
    panel, search = page.criteria, page.search
    assert not panel.isVisible()
    search.setText("status:running owner:n1")
    search.flush()
    QTest.keyClick(page.table, Qt.Key.Key_F, CTRL_SHIFT)
    await until(panel.isVisible)
    rows = list(panel.root.rows())
    assert [row.subject.currentText() for row in rows] == ["Status", "Owner node"]
    await until(rows[0].subject.hasFocus)
    assert len(page.model.rows) == 6

    rows[1].not_button.click()
    assert search.text() == "status:running not owner:n1"
    assert len(page.model.rows) == 6
    rows[0].remove_button.click()
    panel.root.choice.setCurrentIndex(1)
    panel.root.choice.activated.emit(1)
    panel.root.add_row_button.click()
    added = list(panel.root.rows())[-1]
    editor = added.editors[0]
    assert isinstance(editor, TextEditor)
    QTest.keyClicks(editor.line, "app")
    assert search.text() == "not owner:n1 or name:*app*"
    assert list(panel.root.rows()) == [rows[1], added], "what it said itself comes back as it is"

    search.setText("ownr:n1")
    search.flush()
    assert next(panel.root.rows()).error.text() == "VMs have no field ownr. Did you mean owner?"
    search.setText("(owner:n1")
    search.flush()
    assert panel.query == parse("ownr:n1"), "no query: the criteria stay"
    search.clear()
    search.flush()
    assert list(panel.root.rows()) == []
    assert len(page.model.rows) == 12

    panel.take_focus()
    QTest.keyClick(panel.root.add_row_button, Qt.Key.Key_Escape)
    assert not panel.isVisible()
    assert search.hasFocus()
    search.setText("web")
    search.flush()
    assert list(panel.root.rows()) == [], "what is hidden does no work"
    page.criteria_button.click()
    assert panel.query == parse("web")

"""The search box: a query as one types, what may follow, what is wrong, what was searched for before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from manager.core.ids import Kind
from manager.core.query.filter import Matcher
from manager.core.query.query import text_of
from manager.core.query.spec import FieldSpec
from manager.ui.theme import Look
from manager.ui.views.search import SearchBox


class Kept:
    """A view store in memory."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.data.get(name)

    def write(self, name: str, data: bytes) -> None:
        self.data[name] = data


def owners(spec: FieldSpec) -> list[str]:
    return ["n1", "n2", "node 3"] if spec.name == "owner" else []


class Box:
    """A search box in a window, and what it said."""

    def __init__(self, qtbot: QtBot, look: Look, views: Kept) -> None:
        self.qtbot = qtbot
        self.window = QWidget()
        self.box = SearchBox("Search roles", "Search", Kind.VM, look, views=views, known=owners)
        layout = QVBoxLayout(self.window)
        layout.addWidget(self.box)
        layout.addStretch(1)
        self.window.resize(700, 400)
        self.said: list[tuple[Matcher | None, str]] = []
        self.entered = 0
        self.box.wanted.connect(lambda found, text: self.said.append((found, text)))
        self.box.entered.connect(self._entered)
        qtbot.addWidget(self.window)
        self.window.show()
        qtbot.waitExposed(self.window)
        self.box.setFocus()

    def _entered(self) -> None:
        self.entered += 1

    def type(self, text: str) -> None:
        self.qtbot.keyClicks(self.box, text)
        until(self.qtbot, lambda: not self.box._offering.isActive())

    def press(self, key: Qt.Key, **more: Any) -> None:
        self.qtbot.keyClick(self.popup if self.popup.isVisible() else self.box, key, **more)

    @property
    def popup(self) -> Any:
        return self.box._popup

    @property
    def offered(self) -> list[str]:
        return [each.text for each in self.box._offers] if self.popup.isVisible() else []


@pytest.fixture
def views() -> Kept:
    return Kept()


@pytest.fixture
def box(qtbot: QtBot, look: Look, views: Kept) -> Iterator[Box]:
    made = Box(qtbot, look, views)
    yield made
    made.popup.hide()


def until(qtbot: QtBot, condition: Callable[[], object]) -> None:
    qtbot.waitUntil(lambda: bool(condition()), timeout=5000)


def test_it_filters_while_one_types(box: Box, qtbot: QtBot) -> None:
    box.type("status:off web")
    until(qtbot, lambda: box.said and box.said[-1][1] == "status:off web")
    found = box.said[-1][0]
    assert found is not None
    assert text_of(found.query) == "status:off web"
    box.box.clear()
    until(qtbot, lambda: box.said[-1] == (None, ""))


def test_fields_and_values_are_offered_and_taken(box: Box) -> None:
    box.type("own")
    assert box.offered == ["owner:"]
    box.press(Qt.Key.Key_Tab)
    assert box.box.text() == "owner:"
    assert box.offered[:3] == ["n1", "n2", '"node 3"']
    box.press(Qt.Key.Key_Down)
    box.press(Qt.Key.Key_Down)
    box.press(Qt.Key.Key_Return)
    assert box.box.text() == "owner:n2"
    assert box.entered == 0, "Enter took the candidate"
    box.type(" and status:r")
    assert box.offered == ["running"]
    box.press(Qt.Key.Key_Tab)
    box.press(Qt.Key.Key_Return)
    assert box.said[-1][1] == "owner:n2 and status:running"
    assert box.entered == 1


def test_candidates_wait_for_a_pause_and_tab_does_not_wait_for_them(box: Box) -> None:
    asked = []
    box.box._known = lambda spec: asked.append(spec.name) or owners(spec)
    box.qtbot.keyClicks(box.box, "owner:n")
    assert not asked, "nobody looks for values between two keys"
    box.press(Qt.Key.Key_Tab)
    assert box.box.text() == "owner:n1"
    assert asked == ["owner"]


def test_what_is_wrong_is_said_after_a_moment_and_the_list_stays(box: Box, qtbot: QtBot) -> None:
    box.type("web ")
    until(qtbot, lambda: box.said)
    before = list(box.said)
    box.type("status:runing")
    until(qtbot, lambda: box.box.error)
    note = box.box._note
    until(qtbot, note.isVisible)
    assert note.text() == "Status is never runing. Did you mean Running?"
    assert box.box.accessibleDescription() == note.text()
    assert box.said == before or box.said[-1][1].startswith("web")
    box.press(Qt.Key.Key_Return)
    assert box.entered == 0, "no list of something else"
    box.box.setText("web")
    box.box.flush()
    assert not note.isVisible()
    assert box.box.error is None


def test_what_was_searched_for_comes_back(box: Box, views: Kept, qtbot: QtBot, look: Look) -> None:
    for text in ("web", "is:off"):
        box.box.setText(text)
        box.press(Qt.Key.Key_Return)
    box.box.clear()
    box.press(Qt.Key.Key_Up)
    assert box.offered == ["is:off", "web"]
    box.press(Qt.Key.Key_Down)
    box.press(Qt.Key.Key_Return)
    assert box.box.text() == "is:off"
    again = Box(qtbot, look, views)
    again.press(Qt.Key.Key_Up)
    assert again.offered == ["is:off", "web"]
    again.popup.hide()


def test_escape_closes_then_clears_then_leaves(box: Box, qtbot: QtBot) -> None:
    box.type("own")
    assert box.offered
    box.press(Qt.Key.Key_Escape)
    assert not box.offered
    assert box.box.text() == "own"
    box.press(Qt.Key.Key_Escape)
    assert box.box.text() == ""
    with qtbot.waitSignal(box.box.left):
        box.press(Qt.Key.Key_Escape)

"""The terminal: what a guest writes is seen, what is typed is sent, and nothing it writes does harm."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QImage, QKeyEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from manager.ui.terminal import LINES, MAX_WAITING, Terminal
from manager.ui.theme import Look

KEY, MODS = Qt.Key, Qt.KeyboardModifier


@pytest.fixture
def terminal(qtbot: QtBot, look: Look) -> Terminal:
    made = Terminal(look)
    qtbot.addWidget(made)
    made.resize(700, 300)
    made.show()
    return made


def shown(terminal: Terminal, qtbot: QtBot, data: bytes) -> str:
    """What is shown once all of it was taken in."""
    terminal.feed(data)
    qtbot.waitUntil(lambda: not terminal._waiting and not terminal._timer.isActive())
    return terminal.text


def test_what_a_guest_writes_is_seen(terminal: Terminal, qtbot: QtBot) -> None:
    assert shown(terminal, qtbot, b"login:\r\n\x1b[31mred\x1b[0m gr\xc3\xbcn") == "login:\nred grün"
    assert shown(terminal, qtbot, b"\x1b[2J\x1b[H\x1b[3;2Hx") == "\n\n x"
    picture = terminal.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    assert not picture.isNull()


def test_a_sign_that_comes_in_two_parts(terminal: Terminal, qtbot: QtBot) -> None:
    shown(terminal, qtbot, b"\xe2\x82")
    assert shown(terminal, qtbot, b"\xac") == "€"


def test_what_leaves_at_the_top_is_kept(terminal: Terminal, qtbot: QtBot) -> None:
    shown(terminal, qtbot, b"".join(b"line %d\r\n" % n for n in range(200)))
    bar = terminal.verticalScrollBar()
    assert bar.value() == bar.maximum()
    assert bar.maximum() > 150
    terminal.select_all()
    lines = terminal.selected_text.rstrip("\n").split("\n")
    assert (lines[0], lines[-1], len(lines)) == ("line 0", "line 199", 200)
    QTest.keyClick(terminal, KEY.Key_PageUp, MODS.ShiftModifier)
    was = bar.value()
    assert was < bar.maximum()
    shown(terminal, qtbot, b"more\r\n")
    assert bar.value() == was  # whoever looks at the past goes on looking at it


@pytest.mark.parametrize(
    ("key", "modifiers", "sent"),
    [
        (KEY.Key_Return, MODS.NoModifier, b"\r"),
        (KEY.Key_Backspace, MODS.NoModifier, b"\x7f"),
        (KEY.Key_Tab, MODS.NoModifier, b"\t"),
        (KEY.Key_Escape, MODS.NoModifier, b"\x1b"),
        (KEY.Key_Up, MODS.NoModifier, b"\x1b[A"),
        (KEY.Key_F5, MODS.NoModifier, b"\x1b[15~"),
        (KEY.Key_C, MODS.ControlModifier, b"\x03"),
        (KEY.Key_D, MODS.ControlModifier, b"\x04"),
        (KEY.Key_Z, MODS.ControlModifier, b"\x1a"),
        (KEY.Key_Backslash, MODS.ControlModifier, b"\x1c"),
        (KEY.Key_X, MODS.AltModifier, b"\x1bx"),
        (KEY.Key_A, MODS.NoModifier, b"a"),
        (KEY.Key_PageUp, MODS.ShiftModifier, b""),
        (KEY.Key_Shift, MODS.ShiftModifier, b""),
    ],
)
def test_keys(terminal: Terminal, key: Qt.Key, modifiers: Qt.KeyboardModifier, sent: bytes) -> None:
    typed: list[bytes] = []
    terminal.typed.connect(typed.append)
    QTest.keyClick(terminal, key, modifiers)
    assert b"".join(typed) == sent


def test_the_guest_may_ask_for_other_arrows(terminal: Terminal, qtbot: QtBot) -> None:
    typed: list[bytes] = []
    terminal.typed.connect(typed.append)
    shown(terminal, qtbot, b"\x1b[?1h")
    QTest.keyClick(terminal, KEY.Key_Up)
    assert typed == [b"\x1bOA"]


def test_keys_are_the_guests_before_they_are_the_windows(terminal: Terminal) -> None:
    event = QKeyEvent(QKeyEvent.Type.ShortcutOverride, KEY.Key_K, MODS.ControlModifier)
    event.ignore()
    QApplication.sendEvent(terminal, event)
    assert event.isAccepted()


def test_ctrl_bracket_leaves(terminal: Terminal, qtbot: QtBot) -> None:
    with qtbot.waitSignal(terminal.left):
        QTest.keyClick(terminal, KEY.Key_BracketRight, MODS.ControlModifier)


def test_copy_and_paste(terminal: Terminal, qtbot: QtBot) -> None:
    shown(terminal, qtbot, b"first line\r\nsecond line")
    start, end = QPointF(0, 2), QPointF(terminal._cell_w * 6, terminal._cell_h + 2)
    view = terminal.viewport()
    QTest.mousePress(view, Qt.MouseButton.LeftButton, pos=start.toPoint())
    QTest.mouseMove(view, QPoint(5, 5))
    terminal._head = terminal._place(end.toPoint())
    QTest.keyClick(terminal, KEY.Key_C, MODS.ControlModifier | MODS.ShiftModifier)
    assert QApplication.clipboard().text() == "first line\nsecond"
    typed: list[bytes] = []
    terminal.typed.connect(typed.append)
    QApplication.clipboard().setText("ls\nwho\x1b\x07")
    QTest.keyClick(terminal, KEY.Key_V, MODS.ControlModifier | MODS.ShiftModifier)
    assert typed == [b"ls\rwho"]
    shown(terminal, qtbot, b"\x1b[?2004h")
    terminal.paste()
    assert typed[1] == b"\x1b[200~ls\rwho\x1b[201~"


@pytest.mark.parametrize(
    "evil",
    [
        b"\x1b[?5m",
        b"\x1b[?1;2c",
        b"\x1b]0;" + b"x" * 30_000,
        b"\x1b[99999999999999C\x1b[9999999;9999999H",
        b"\x1b[1;1r\x1b[5;2r\x1b[0;0r",
        b"\x9b\x1bP\x1b\\\xff\xfe\x00\x07",
        b"\x1b[38;2;999;-1;x\x1b[38;5;300mz",
        bytes(range(256)) * 8,
    ],
)
def test_nothing_that_a_guest_writes_does_harm(terminal: Terminal, qtbot: QtBot, evil: bytes) -> None:
    shown(terminal, qtbot, evil)
    assert "still here" in shown(terminal, qtbot, b"\x1b\\\x1bc\r\nstill here")
    terminal.grab()


def test_questions_are_answered(terminal: Terminal, qtbot: QtBot) -> None:
    typed: list[bytes] = []
    terminal.typed.connect(typed.append)
    shown(terminal, qtbot, b"\x1b[6n")
    assert typed == [b"\x1b[1;1R"]


def test_a_flood_is_cut(terminal: Terminal) -> None:
    terminal.feed(b"y\r\n" * MAX_WAITING)
    assert len(terminal._waiting) == MAX_WAITING
    terminal.clear()


def test_the_guest_gets_the_room_there_is(terminal: Terminal, qtbot: QtBot) -> None:
    terminal.resize(1400, 900)
    typed: list[bytes] = []
    terminal.typed.connect(typed.append)
    shown(terminal, qtbot, b"\x1b[999;999H\x1b[6n")
    line, column = typed[0].decode()[2:-1].split(";")
    assert int(line) > LINES
    assert int(column) > 80

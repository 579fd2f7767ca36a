"""A terminal: pyte understands the escape sequences, and this paints what it keeps and sends the keys."""

from __future__ import annotations

import codecs
import logging
from collections import deque
from functools import cache
from typing import Any

import pyte
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import (
    QAction,
    QColor,
    QContextMenuEvent,
    QFontMetricsF,
    QInputMethodEvent,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QApplication, QMenu, QWidget

from manager.ui.theme import Look, fixed_font, terminal_colours

log = logging.getLogger(__name__)

COLUMNS, LINES = 80, 24
"""What a guest takes a serial console for; a larger widget gives it more."""

PAST_LINES = 5000
PAUSE_MS = 33
AT_ONCE = 2048
"""Bytes between two turns of the loop: a guest that writes without end does not stop the window."""

MAX_WAITING = 256 << 10
MAX_SEQUENCE = 8192
"""A sequence that does not end after so many bytes is none."""

LEAVE = "Ctrl+]"

_BRACKETED_PASTE, _APPLICATION_KEYS = 2004 << 5, 1 << 5  # private modes, as pyte keeps them

_NAMED = {
    Qt.Key.Key_Up: "A",
    Qt.Key.Key_Down: "B",
    Qt.Key.Key_Right: "C",
    Qt.Key.Key_Left: "D",
    Qt.Key.Key_Home: "H",
    Qt.Key.Key_End: "F",
}
_KEYS = {
    Qt.Key.Key_Return: "\r",
    Qt.Key.Key_Enter: "\r",
    Qt.Key.Key_Backspace: "\x7f",
    Qt.Key.Key_Tab: "\t",
    Qt.Key.Key_Backtab: "\x1b[Z",
    Qt.Key.Key_Escape: "\x1b",
    Qt.Key.Key_Insert: "\x1b[2~",
    Qt.Key.Key_Delete: "\x1b[3~",
    Qt.Key.Key_PageUp: "\x1b[5~",
    Qt.Key.Key_PageDown: "\x1b[6~",
    Qt.Key.Key_F1: "\x1bOP",
    Qt.Key.Key_F2: "\x1bOQ",
    Qt.Key.Key_F3: "\x1bOR",
    Qt.Key.Key_F4: "\x1bOS",
    Qt.Key.Key_F5: "\x1b[15~",
    Qt.Key.Key_F6: "\x1b[17~",
    Qt.Key.Key_F7: "\x1b[18~",
    Qt.Key.Key_F8: "\x1b[19~",
    Qt.Key.Key_F9: "\x1b[20~",
    Qt.Key.Key_F10: "\x1b[21~",
    Qt.Key.Key_F11: "\x1b[23~",
    Qt.Key.Key_F12: "\x1b[24~",
}
_CONTROLS = {
    Qt.Key.Key_Space: "\0",
    Qt.Key.Key_At: "\0",
    Qt.Key.Key_BracketLeft: "\x1b",
    Qt.Key.Key_Backslash: "\x1c",
    Qt.Key.Key_AsciiCircum: "\x1e",
    Qt.Key.Key_Underscore: "\x1f",
}

Line = Any  # pyte's: column -> Char, the default where there is none


@cache
def _colour(name: str, other: str) -> QColor:
    """A colour as pyte names it: a word, or six digits."""
    known = terminal_colours()
    return QColor(known.get(other if name == "default" else name.replace("bfight", "bright")) or f"#{name}")


class _Page(pyte.Screen):
    """pyte's screen that keeps what leaves it at the top."""

    def __init__(self, columns: int, lines: int) -> None:
        self.past: deque[Line] = deque(maxlen=PAST_LINES)
        self.answers: list[str] = []
        super().__init__(columns, lines)

    def index(self) -> None:
        """Down by one line; at the bottom the top line leaves."""
        top, bottom = self.margins or (0, self.lines - 1)
        if self.cursor.y == bottom and top == 0:
            self.past.append(self.buffer[0])
        super().index()

    def write_process_input(self, data: str) -> None:
        """What a terminal answers to a question of the guest's."""
        self.answers.append(data)


class Terminal(QAbstractScrollArea):
    """Shows what is fed, tells what is typed. All keys are the guest's; Ctrl+] leaves."""

    typed = Signal(bytes)
    left = Signal()

    def __init__(self, look: Look, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._look = look
        self.setFrameShape(QAbstractScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(f"Console; {LEAVE} leaves it")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFont(fixed_font())
        metrics = QFontMetricsF(self.font())
        self._cell_w, self._cell_h = metrics.horizontalAdvance("M"), max(12.0, round(metrics.height()))
        self._ascent = metrics.ascent()
        self._waiting = bytearray()
        self._sequence = 0
        self._new_page()
        self._anchor: tuple[int, int] | None = None  # line counted from the oldest kept, column
        self._head: tuple[int, int] | None = None
        self.viewport().setCursor(Qt.CursorShape.IBeamCursor)
        self.setAttribute(Qt.WidgetAttribute.WA_InputMethodEnabled)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.timeout.connect(self._digest)
        self.verticalScrollBar().valueChanged.connect(lambda *_: self.viewport().update())
        self.copy_action = self._action("Copy", "Ctrl+Shift+C", self.copy)
        self.paste_action = self._action("Paste", "Ctrl+Shift+V", self.paste)

    def _action(self, title: str, keys: str, act: Any) -> QAction:
        made = QAction(title, self)
        made.setShortcut(QKeySequence(keys))
        made.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        made.triggered.connect(lambda *_: act())
        return made

    def _new_page(self) -> None:
        self._page = _Page(COLUMNS, LINES)
        self._parser = pyte.Stream(self._page)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    # --- what the guest writes -----------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take what the guest wrote; it is shown soon. Of far too much the oldest is lost."""
        self._waiting += data
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[: len(self._waiting) - MAX_WAITING]
        if not self._timer.isActive():
            self._timer.start(0 if len(data) < AT_ONCE else PAUSE_MS)

    def clear(self) -> None:
        """Forget everything that was shown."""
        self._waiting.clear()
        self._new_page()
        self._anchor = self._head = None
        self._grow()

    @property
    def text(self) -> str:
        """What the screen shows, without blanks at the ends."""
        return "\n".join(line.rstrip() for line in self._page.display).rstrip()

    def _digest(self) -> None:
        part = bytes(self._waiting[:AT_ONCE])
        del self._waiting[:AT_ONCE]
        past = len(self._page.past)
        try:
            self._parser.feed(self._decoder.decode(part))
        except Exception:  # what a guest sends is anything; pyte's handlers were not written for that
            log.debug("a sequence of the console's was not understood", exc_info=True)
            self._parser = pyte.Stream(self._page)
        self._sequence = (
            0 if getattr(self._parser, "_taking_plain_text", True) else self._sequence + len(part)
        )
        if self._sequence > MAX_SEQUENCE:
            self._parser, self._sequence = pyte.Stream(self._page), 0
        for answer in self._page.answers:
            self.typed.emit(answer.encode())
        self._page.answers.clear()
        if len(self._page.past) != past or self._page.dirty:
            self._page.dirty.clear()
            self._fit_bar()
        self.viewport().update()
        if self._waiting:
            self._timer.start(PAUSE_MS)

    # --- geometry ------------------------------------------------------------------------------

    @property
    def _shown_lines(self) -> int:
        return max(1, int(self.viewport().height() // self._cell_h))

    def _grow(self) -> None:
        columns = max(COLUMNS, int(self.viewport().width() // self._cell_w))
        lines = max(LINES, self._shown_lines)
        if (columns, lines) != (self._page.columns, self._page.lines):
            self._page.resize(lines, columns)
        self._fit_bar()
        self.viewport().update()

    def _fit_bar(self) -> None:
        """Follow the cursor, unless somebody looks at the past."""
        bar = self.verticalScrollBar()
        was_at_end = bar.value() >= bar.maximum()
        whole = len(self._page.past) + self._page.lines
        bar.setPageStep(self._shown_lines)
        bar.setRange(0, max(0, whole - self._shown_lines))
        if was_at_end:
            # The lines below the cursor are mostly empty: where not all fit, the cursor's is the last.
            last = len(self._page.past) + max(self._page.cursor.y, self._last_written) + 1
            bar.setMaximum(max(0, last - self._shown_lines))
            bar.setValue(bar.maximum())

    @property
    def _last_written(self) -> int:
        return max((y for y, line in self._page.buffer.items() if line and y < self._page.lines), default=0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """More room for the guest."""
        super().resizeEvent(event)
        self._grow()

    def _line(self, number: int) -> Line | None:
        past = len(self._page.past)
        if number < past:
            return self._page.past[number]
        return self._page.buffer[number - past] if number - past < self._page.lines else None

    # --- painting --------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """The lines that are in sight, run by run of equal looks."""
        painter = QPainter(self.viewport())
        painter.fillRect(self.viewport().rect(), _colour("ground", ""))
        first = self.verticalScrollBar().value()
        for row in range(self._shown_lines + 1):
            line = self._line(first + row)
            if line is not None:
                self._paint_line(painter, line, first + row, row * self._cell_h)
        cursor = self._page.cursor
        row = len(self._page.past) + cursor.y - first
        if not cursor.hidden and 0 <= row <= self._shown_lines:
            x = min(cursor.x, self._page.columns - 1) * self._cell_w
            box = QRectF(x, row * self._cell_h, self._cell_w, self._cell_h)
            if self.hasFocus():
                painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_Difference)
                painter.fillRect(box, _colour("ink", ""))
            else:
                painter.setPen(_colour("ink", ""))
                painter.drawRect(box.adjusted(0, 0, -1, -1))
        painter.end()

    def _paint_line(self, painter: QPainter, line: Line, number: int, y: float) -> None:
        chosen = self._chosen_columns(number)
        column, columns = 0, self._page.columns
        end = min(columns, max([*line.keys(), chosen.stop - 1], default=-1) + 1)
        while column < end:
            char = line[column]
            start, text = column, ""
            is_chosen = column in chosen
            while column < end and line[column][1:] == char[1:] and (column in chosen) == is_chosen:
                text += line[column].data
                column += 1
            ink, ground = _colour(char.fg, "ink"), _colour(char.bg, "ground")
            if char.reverse:
                ink, ground = ground, ink
            if is_chosen:
                ground = _colour("chosen", "")
            box = QRectF(start * self._cell_w, y, (column - start) * self._cell_w, self._cell_h)
            if ground != _colour("ground", ""):
                painter.fillRect(box, ground)
            if text.strip():
                font = self.font()
                font.setBold(char.bold)
                font.setItalic(char.italics)
                font.setUnderline(char.underscore)
                font.setStrikeOut(char.strikethrough)
                painter.setFont(font)
                painter.setPen(ink)
                if text.isascii():
                    painter.drawText(QPointF(box.x(), y + self._ascent), text)
                else:  # each sign in its own cell, however wide its font makes it
                    for at in range(start, column):
                        place = QPointF(at * self._cell_w, y + self._ascent)
                        painter.drawText(place, line[at].data)

    # --- selecting -------------------------------------------------------------------------------

    def _place(self, at: QPoint) -> tuple[int, int]:
        line = self.verticalScrollBar().value() + int(at.y() // self._cell_h)
        last = len(self._page.past) + self._page.lines - 1
        return max(0, min(line, last)), max(0, min(round(at.x() / self._cell_w), self._page.columns))

    def _chosen_columns(self, number: int) -> range:
        if self._anchor is None or self._head is None:
            return range(0)
        first, last = sorted((self._anchor, self._head))
        if not first[0] <= number <= last[0]:
            return range(0)
        start = first[1] if number == first[0] else 0
        return range(start, last[1] if number == last[0] else self._page.columns)

    @property
    def selected_text(self) -> str:
        """What is selected, line by line."""
        if self._anchor is None or self._head is None:
            return ""
        first, last = sorted((self._anchor, self._head))
        lines = []
        for number in range(first[0], last[0] + 1):
            line = self._line(number)
            if line is not None:
                lines.append("".join(line[x].data for x in self._chosen_columns(number)).rstrip())
        return "\n".join(lines)

    def select_all(self) -> None:
        """Select everything that is kept."""
        self._anchor = (0, 0)
        self._head = (len(self._page.past) + self._page.lines - 1, self._page.columns)
        self.viewport().update()

    def copy(self) -> None:
        """Copy what is selected."""
        if text := self.selected_text:
            QApplication.clipboard().setText(text)

    def paste(self) -> None:
        """Type what the clipboard holds."""
        self._type_text(QApplication.clipboard().text())

    def _type_text(self, text: str) -> None:
        text = text.replace("\r\n", "\r").replace("\n", "\r")
        kept = "".join(c for c in text if c.isprintable() or c in "\r\t")
        if _BRACKETED_PASTE in self._page.mode:
            kept = f"\x1b[200~{kept}\x1b[201~"
        if kept:
            self.typed.emit(kept.encode())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin to select; the middle button pastes."""
        if event.button() is Qt.MouseButton.LeftButton:
            self._anchor = self._head = self._place(event.position().toPoint())
            self.viewport().update()
        elif event.button() is Qt.MouseButton.MiddleButton:
            clipboard = QApplication.clipboard()
            if clipboard.supportsSelection():
                self._type_text(clipboard.text(clipboard.Mode.Selection))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Select up to here."""
        if event.buttons() & Qt.MouseButton.LeftButton and self._anchor is not None:
            self._head = self._place(event.position().toPoint())
            self.viewport().update()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Copy and paste."""
        menu = QMenu(self)
        self.copy_action.setEnabled(bool(self.selected_text))
        menu.addActions([self.copy_action, self.paste_action])
        menu.addAction("Select all", self.select_all)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(event.globalPos())

    # --- keys ------------------------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        """Keys are the guest's before they are the window's; Tab goes to it too."""
        if event.type() is QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            event.accept()
            return True
        if event.type() is QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            self.keyPressEvent(event)
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Send a key, or do what it is for here."""
        mods = event.modifiers()
        ctrl = bool(mods & Qt.KeyboardModifier.ControlModifier)
        shift = bool(mods & Qt.KeyboardModifier.ShiftModifier)
        key = Qt.Key(event.key()) if event.key() in Qt.Key._value2member_map_ else None
        bar = self.verticalScrollBar()
        if ctrl and key is Qt.Key.Key_BracketRight:
            self.left.emit()
        elif ctrl and shift and key is Qt.Key.Key_C:
            self.copy()
        elif ctrl and shift and key is Qt.Key.Key_V:
            self.paste()
        elif shift and key is Qt.Key.Key_PageUp:
            bar.setValue(bar.value() - bar.pageStep())
        elif shift and key is Qt.Key.Key_PageDown:
            bar.setValue(bar.value() + bar.pageStep())
        elif text := self._sequence_of(event, key, ctrl):
            if mods & Qt.KeyboardModifier.AltModifier:
                text = f"\x1b{text}"
            bar.setValue(bar.maximum())
            self.typed.emit(text.encode())
        event.accept()

    def _sequence_of(self, event: QKeyEvent, key: Qt.Key | None, ctrl: bool) -> str:
        if key in _NAMED:
            return ("\x1bO" if _APPLICATION_KEYS in self._page.mode else "\x1b[") + _NAMED[key]
        if key in _KEYS:
            return _KEYS[key]
        if ctrl and key is not None:
            if Qt.Key.Key_A <= key <= Qt.Key.Key_Z:
                return chr(key - Qt.Key.Key_A + 1)
            return _CONTROLS.get(key, "")
        text = event.text()
        return text if text.isprintable() else ""

    def inputMethodEvent(self, event: QInputMethodEvent) -> None:
        """Signs that are composed of several keys."""
        if event.commitString():
            self.typed.emit(event.commitString().encode())
        event.accept()

    def focusInEvent(self, event: Any) -> None:
        """The cursor fills."""
        super().focusInEvent(event)
        self.viewport().update()

    def focusOutEvent(self, event: Any) -> None:
        """The cursor empties."""
        super().focusOutEvent(event)
        self.viewport().update()

"""Who did what when: a row per node, bars over time. It knows bars only, not what they are of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QHelpEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QToolTip

from manager.ui.theme import Look, font
from manager.ui.views.parts import tip

LANE_PX, GAP_PX, AXIS_PX = 15, 2, 24
_MOST_LANES = 12
_LEAST_S, _LONGEST_S = 5.0, 90 * 86400.0
_STEPS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800)
_AHEAD = 0.03
"""Share of the width that is kept free after now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Something that lasts. `end_s` None: it goes on, and its bar grows."""

    key: str  # what it is of; several bars may be of the same
    row: str
    start_s: float
    end_s: float | None
    token: str  # of its colour
    text: str  # in the bar, as far as there is room
    tip: str
    light: bool = False  # drawn as an outline
    group: str = ""


class _Row:
    """A node with its bars in lanes, so that none covers another."""

    __slots__ = ("bars", "height", "lanes", "longest_s", "name", "starts", "top")

    def __init__(self, name: str) -> None:
        self.name = name
        self.bars: list[Bar] = []
        self.lanes: list[int] = []
        self.starts: list[float] = []
        self.longest_s = 0.0  # of the bars that ended
        self.top = 0
        self.height = LANE_PX + 2 * GAP_PX + 4

    def pack(self, bars: Iterable[Bar]) -> None:
        self.bars = sorted(bars, key=lambda b: (b.start_s, b.key))
        self.starts = [b.start_s for b in self.bars]
        self.longest_s = max((b.end_s - b.start_s for b in self.bars if b.end_s is not None), default=0.0)
        self.lanes = [0] * len(self.bars)
        used = 0
        for light in (False, True):  # outlines below
            mine = [at for at, bar in enumerate(self.bars) if bar.light is light]
            used += self._stack(mine, used)
        self.height = max(1, used) * (LANE_PX + GAP_PX) + GAP_PX + 4

    def _stack(self, mine: list[int], below: int) -> int:
        """Give these bars lanes, each the first that is free; returns how many were needed."""
        ends: list[float] = []
        for at in mine:
            bar = self.bars[at]
            end = float("inf") if bar.end_s is None else bar.end_s
            free = next((i for i, until in enumerate(ends) if until <= bar.start_s), None)
            if free is None and len(ends) < _MOST_LANES:
                ends.append(end)
                free = len(ends) - 1
            elif free is None:
                free = min(range(len(ends)), key=ends.__getitem__)
                ends[free] = max(ends[free], end)
            else:
                ends[free] = end
            self.lanes[at] = below + free
        return len(ends)


class Timeline(QAbstractScrollArea):
    """Wheel: up and down; with Ctrl zoom, with Shift to and fro.

    Keys: arrows go from bar to bar, + and − zoom, Shift with arrows goes to and fro, F fits all, Enter opens.
    """

    opened = Signal(str)  # key of a bar
    chosen = Signal(str)  # key of the bar that was clicked or gone to; empty: none

    def __init__(self, look: Look, *, name: str) -> None:
        super().__init__()
        self._look = look
        self._name = name
        self._rows: list[_Row] = []
        self._now_s = 0.0
        self._from_s, self._to_s = 0.0, 120.0
        self._fits = True  # shows all, and follows what comes
        self._group = ""  # all others are faint
        self._current: tuple[int, int] | None = None  # row, bar
        self._drag: tuple[QPoint, float] | None = None
        self._names_px = 90
        self.setObjectName("panel")
        self.setFrameShape(QAbstractScrollArea.Shape.NoFrame)
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.viewport().setMouseTracking(True)
        self.verticalScrollBar().valueChanged.connect(lambda *_: self.viewport().update())
        look.changed.connect(self.viewport().update)

    # --- what it shows ---------------------------------------------------------------------------

    @property
    def span(self) -> tuple[float, float]:
        """From when to when it shows."""
        return self._from_s, self._to_s

    @property
    def current(self) -> Bar | None:
        """The bar that was gone to."""
        if self._current is None:
            return None
        row, at = self._current
        return self._rows[row].bars[at] if row < len(self._rows) and at < len(self._rows[row].bars) else None

    @property
    def bars(self) -> list[Bar]:
        """All bars, row by row."""
        return [bar for row in self._rows for bar in row.bars]

    def show_bars(self, rows: Sequence[str], bars: Iterable[Bar], now_s: float) -> None:
        """Show these bars in these rows, from the top; a bar of an unknown row gets one at the end."""
        kept = self.current
        self._now_s = now_s
        found: dict[str, list[Bar]] = {name: [] for name in rows}
        for bar in bars:
            found.setdefault(bar.row, []).append(bar)
        self._rows = []
        top = 0
        for name, mine in found.items():
            row = _Row(name)
            row.pack(mine)
            row.top = top
            top += row.height
            self._rows.append(row)
        self._current = None
        if kept is not None:
            self._go_to(kept)
        metrics = self.fontMetrics()
        self._names_px = min(170, max((metrics.horizontalAdvance(r) for r in found), default=60) + 22)
        if self._fits:
            self._fit()
        self._scrolls()
        self.viewport().update()

    def show_now(self, now_s: float) -> None:
        """Let what goes on grow."""
        before, self._now_s = self._now_s, now_s
        if self._fits:
            self._fit()
        elif self._from_s <= before <= self._to_s:
            self._from_s, self._to_s = self._from_s + now_s - before, self._to_s + now_s - before
        self.viewport().update()

    def show_group(self, group: str) -> None:
        """Zoom to the bars of a group and make the others faint; empty: all."""
        self._group = group
        mine = [b for row in self._rows for b in row.bars if b.group == group]
        if not group or not mine:
            self._fits = True
            self._fit()
        else:
            ends = [self._now_s if b.end_s is None else b.end_s for b in mine]
            self.zoom_to(min(b.start_s for b in mine), max(ends))
        self.viewport().update()

    def zoom_to(self, from_s: float, to_s: float) -> None:
        """Show this time, with a little room around it."""
        margin = max(1.0, (to_s - from_s) * 0.04)
        self._fits = False
        self._show_span(from_s - margin, to_s + margin)

    def fit(self) -> None:
        """Show all, and what comes."""
        self._fits = True
        self._fit()
        self.viewport().update()

    def _fit(self) -> None:
        starts = [row.starts[0] for row in self._rows if row.starts]
        ends = [self._now_s if b.end_s is None else b.end_s for row in self._rows for b in row.bars]
        if not starts:
            self._from_s, self._to_s = self._now_s - 120.0, self._now_s
            return
        end = max(ends)
        length = max(30.0, end - min(starts))
        self._from_s, self._to_s = min(starts) - length * 0.01, end + length * _AHEAD

    def _show_span(self, from_s: float, to_s: float) -> None:
        length = min(max(to_s - from_s, _LEAST_S), _LONGEST_S)
        middle = (from_s + to_s) / 2
        self._from_s, self._to_s = middle - length / 2, middle + length / 2
        self.viewport().update()

    # --- geometry --------------------------------------------------------------------------------

    def _width(self) -> int:
        return max(1, self.viewport().width() - self._names_px)

    def _x(self, at_s: float) -> float:
        return self._names_px + (at_s - self._from_s) / (self._to_s - self._from_s) * self._width()

    def _time(self, x: float) -> float:
        return self._from_s + (x - self._names_px) / self._width() * (self._to_s - self._from_s)

    def _area(self, row: _Row, at: int) -> QRectF:
        bar = row.bars[at]
        left = self._x(bar.start_s)
        right = self._x(self._now_s if bar.end_s is None else bar.end_s)
        top = AXIS_PX + row.top - self.verticalScrollBar().value() + 2 + GAP_PX
        return QRectF(left, top + row.lanes[at] * (LANE_PX + GAP_PX), max(2.0, right - left - 1.0), LANE_PX)

    def _scrolls(self) -> None:
        whole = self._rows[-1].top + self._rows[-1].height if self._rows else 0
        page = max(1, self.viewport().height() - AXIS_PX)
        bar = self.verticalScrollBar()
        bar.setRange(0, max(0, whole - page))
        bar.setPageStep(page)
        bar.setSingleStep(LANE_PX + GAP_PX)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """More or less fits."""
        super().resizeEvent(event)
        self._scrolls()

    def bar_at(self, at: QPoint) -> tuple[int, int] | None:
        """Row and bar at a point of the viewport."""
        if at.y() < AXIS_PX:
            return None
        y = at.y() - AXIS_PX + self.verticalScrollBar().value()
        for place, row in enumerate(self._rows):
            if row.top <= y < row.top + row.height:
                hits = [
                    i for i in self._visible(row) if self._area(row, i).adjusted(-1, -1, 1, 1).contains(at)
                ]
                return (place, hits[-1]) if hits else None
        return None

    def _visible(self, row: _Row) -> range | list[int]:
        """The bars of a row that may be on screen; the longest says how far to look back."""
        first = bisect_left(row.starts, self._from_s - row.longest_s)
        last = bisect_left(row.starts, self._to_s)
        if first == 0:
            return range(last)
        going = [i for i in range(first) if row.bars[i].end_s is None]
        return [*going, *range(first, last)] if going else range(first, last)

    # --- painting --------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Rows, bars, axis."""
        painter = QPainter(self.viewport())
        try:
            self._paint(painter)
        finally:
            painter.end()

    def _paint(self, painter: QPainter) -> None:
        t = self._look.tokens
        width, height = self.viewport().width(), self.viewport().height()
        painter.fillRect(0, 0, width, height, t.panel)
        ticks, step = self._ticks()
        painter.setPen(t.line)
        for tick in ticks:
            x = round(self._x(tick))
            painter.drawLine(x, AXIS_PX, x, height)
        scrolled = self.verticalScrollBar().value()
        painter.setClipRect(0, AXIS_PX, width, height - AXIS_PX)
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        for place, row in enumerate(self._rows):
            top = AXIS_PX + row.top - scrolled
            if top > height or top + row.height < AXIS_PX:
                continue
            painter.setPen(t.line)
            painter.drawLine(0, top + row.height - 1, width, top + row.height - 1)
            self._paint_bars(painter, place, row)
            painter.fillRect(0, top, self._names_px - 1, row.height - 1, t.panel)
            painter.setPen(t.text if row.bars else t.dim)
            painter.setFont(self.font())
            cut = self.fontMetrics().elidedText(row.name, Qt.TextElideMode.ElideMiddle, self._names_px - 20)
            painter.drawText(QRect(12, top, self._names_px - 20, row.height - 1), int(left), cut)
        now = round(self._x(self._now_s))
        if self._names_px <= now <= width:
            painter.setPen(QPen(t.accent, 1, Qt.PenStyle.DashLine))
            painter.drawLine(now, AXIS_PX, now, height)
        painter.setClipping(False)
        self._paint_axis(painter, ticks, step)

    def _paint_bars(self, painter: QPainter, place: int, row: _Row) -> None:
        t = self._look.tokens
        small = font(11)
        painter.setFont(small)
        metrics = painter.fontMetrics()
        edge = self._names_px
        for at in self._visible(row):
            area = self._area(row, at)
            if area.right() < edge or area.left() > self.viewport().width():
                continue
            area.setLeft(max(area.left(), edge - 2.0))
            bar = row.bars[at]
            colour = QColor(t.colour(bar.token))
            faint = bool(self._group) and bar.group != self._group
            if bar.light or faint:
                fill = QColor(colour)
                fill.setAlpha(26 if faint else 60)
                painter.fillRect(area, fill)
                if not faint and area.width() > 3:
                    painter.setPen(colour)
                    painter.drawRect(area.adjusted(0, 0, -1, -1))
            else:
                painter.fillRect(area, colour)
            if (place, at) == self._current:
                painter.setPen(QPen(t.text, 2))
                painter.drawRect(area.adjusted(-1, -1, 0, 0))
            room = int(area.width()) - 8
            if room > 24:
                painter.setPen(t.faint if faint else t.text if bar.light else t.on_accent)
                text = metrics.elidedText(bar.text, Qt.TextElideMode.ElideRight, room)
                painter.drawText(area.adjusted(4, 0, -4, 0), int(Qt.AlignmentFlag.AlignVCenter), text)

    def _paint_axis(self, painter: QPainter, ticks: Sequence[float], step: int) -> None:
        t = self._look.tokens
        width = self.viewport().width()
        painter.fillRect(0, 0, width, AXIS_PX, t.window)
        painter.setPen(t.line)
        painter.drawLine(0, AXIS_PX - 1, width, AXIS_PX - 1)
        painter.setFont(font(11))
        painter.setPen(t.dim)
        for tick in ticks:
            x, text = round(self._x(tick)), _tick_text(tick, step)
            room = QRect(x + 4, 0, painter.fontMetrics().horizontalAdvance(text) + 4, AXIS_PX - 1)
            if self._names_px <= x and room.right() < width:
                painter.drawText(room, int(Qt.AlignmentFlag.AlignVCenter), text)

    def _ticks(self) -> tuple[list[float], int]:
        """Moments at round local times, at least 70 px from each other."""
        per_px = (self._to_s - self._from_s) / self._width()
        step = next((s for s in _STEPS_S if s / per_px >= 78), _STEPS_S[-1])
        offset = datetime.fromtimestamp(self._from_s).astimezone().utcoffset()
        shift = offset.total_seconds() if offset is not None else 0.0
        first = ((self._from_s + shift) // step + 1) * step - shift
        count = int((self._to_s - first) // step) + 1
        return [first + i * step for i in range(max(0, count))], step

    # --- pointer ---------------------------------------------------------------------------------

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Ctrl zooms where the pointer is, Shift goes to and fro."""
        turned = event.angleDelta().y() or event.angleDelta().x()
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._zoom(0.8 if turned > 0 else 1.25, self._time(event.position().x()))
        elif event.modifiers() & Qt.KeyboardModifier.ShiftModifier or event.angleDelta().x():
            self._pan(-0.1 if turned > 0 else 0.1)
        else:
            super().wheelEvent(event)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Choose a bar, or take hold of the time."""
        if event.button() == Qt.MouseButton.LeftButton:
            at = event.position().toPoint()
            self._set_current(self.bar_at(at))
            self._drag = (at, self._from_s)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Pull the time along."""
        if self._drag is None or not event.buttons() & Qt.MouseButton.LeftButton:
            return
        begun, from_s = self._drag
        length = self._to_s - self._from_s
        moved = event.position().x() - begun.x()
        if abs(moved) > 3:
            self._fits = False
            self._from_s = from_s - moved / self._width() * length
            self._to_s = self._from_s + length
            self.viewport().update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let go."""
        self._drag = None

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Open what the bar is of."""
        found = self.bar_at(event.position().toPoint())
        if found is not None:
            self.opened.emit(self._rows[found[0]].bars[found[1]].key)

    def viewportEvent(self, event: QEvent) -> bool:
        """What a bar is of."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            found = self.bar_at(event.pos())
            if found is None:
                QToolTip.hideText()
            else:
                QToolTip.showText(event.globalPos(), tip(self._rows[found[0]].bars[found[1]].tip), self)
            return True
        return super().viewportEvent(event)

    # --- keys ------------------------------------------------------------------------------------

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """See the class."""
        key = event.key()
        shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        if key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            self._zoom(0.7, self._anchor())
        elif key == Qt.Key.Key_Minus:
            self._zoom(1 / 0.7, self._anchor())
        elif key == Qt.Key.Key_F and not event.modifiers():
            self.fit()
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Right) and shift:
            self._pan(-0.2 if key == Qt.Key.Key_Left else 0.2)
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Right) and not event.modifiers():
            self._along(-1 if key == Qt.Key.Key_Left else 1)
        elif key in (Qt.Key.Key_Up, Qt.Key.Key_Down) and not event.modifiers():
            self._across(-1 if key == Qt.Key.Key_Up else 1)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.current is not None:
            self.opened.emit(self.current.key)
        else:
            event.ignore()

    def _anchor(self) -> float:
        bar = self.current
        return (self._from_s + self._to_s) / 2 if bar is None else bar.start_s

    def _zoom(self, factor: float, at_s: float) -> None:
        self._fits = False
        length = min(max((self._to_s - self._from_s) * factor, _LEAST_S), _LONGEST_S)
        share = (at_s - self._from_s) / (self._to_s - self._from_s)
        self._from_s = at_s - share * length
        self._to_s = self._from_s + length
        self.viewport().update()

    def _pan(self, share: float) -> None:
        self._fits = False
        by = (self._to_s - self._from_s) * share
        self._from_s, self._to_s = self._from_s + by, self._to_s + by
        self.viewport().update()

    def _along(self, way: int) -> None:
        """The next or previous bar of the row."""
        if self._current is None:
            self._first()
            return
        row, at = self._current
        if 0 <= at + way < len(self._rows[row].bars):
            self._set_current((row, at + way), reveal=True)

    def _across(self, way: int) -> None:
        """The nearest bar in time of the next row that has any."""
        if self._current is None:
            self._first()
            return
        row, at = self._current
        when = self._rows[row].bars[at].start_s
        place = row + way
        while 0 <= place < len(self._rows):
            bars = self._rows[place].bars
            if bars:
                nearest = min(range(len(bars)), key=lambda i: abs(bars[i].start_s - when))
                self._set_current((place, nearest), reveal=True)
                return
            place += way

    def _first(self) -> None:
        place = next((i for i, row in enumerate(self._rows) if row.bars), None)
        if place is not None:
            self._set_current((place, 0), reveal=True)

    def _go_to(self, bar: Bar) -> None:
        for place, row in enumerate(self._rows):
            if row.name == bar.row:
                at = next(
                    (i for i, b in enumerate(row.bars) if (b.key, b.light) == (bar.key, bar.light)), None
                )
                self._current = (place, at) if at is not None else None

    def _set_current(self, found: tuple[int, int] | None, *, reveal: bool = False) -> None:
        self._current = found
        bar = self.current
        self.setAccessibleName(f"{self._name}: {bar.tip}" if bar is not None else self._name)
        if bar is not None and found is not None and reveal:
            if not self._from_s <= bar.start_s <= self._to_s:
                length = self._to_s - self._from_s
                self._fits = False
                self._from_s = bar.start_s - length * 0.2
                self._to_s = self._from_s + length
            row, bars = self._rows[found[0]], self.verticalScrollBar()
            page = self.viewport().height() - AXIS_PX
            if row.top < bars.value():
                bars.setValue(row.top)
            elif row.top + row.height > bars.value() + page:
                bars.setValue(row.top + row.height - page)
        self.viewport().update()
        self.chosen.emit(bar.key if bar is not None else "")

    def point_of(self, key: str, *, light: bool = False) -> QPointF | None:
        """The middle of a bar, in the viewport; for tests and for what points at it."""
        for row in self._rows:
            for at, bar in enumerate(row.bars):
                if bar.key == key and bar.light is light:
                    return self._area(row, at).center()
        return None


def _tick_text(at_s: float, step: int) -> str:
    moment = datetime.fromtimestamp(at_s)
    if step >= 86400:
        return moment.strftime("%d %b")
    if step >= 60:
        return moment.strftime("%H:%M") if moment.hour or moment.minute else moment.strftime("%d %b")
    return moment.strftime("%H:%M:%S")

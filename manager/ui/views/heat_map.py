"""Many nodes at a glance: a cell each, its shape the state, its number and shade how full it is."""

from __future__ import annotations

import math
from collections.abc import Iterable

from PySide6.QtCore import QEvent, QPoint, QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor, QHelpEvent, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPixmap
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from manager.ui.icons import state_pixmap
from manager.ui.models.tones import Shape
from manager.ui.theme import Look
from manager.ui.views.parts import tip

Cell = tuple[str, Shape, float | None, str]
"""Name, shape, how full it is (0 to 1, None: not known), and all of it in words."""

_LEAST = QSize(22, 24)
_STEPS = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}


class HeatMap(QWidget):
    """Cells in rows; a click or Enter opens one, the arrows go from one to the next."""

    chosen = Signal(str)

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look
        self._cells: list[Cell] = []
        self._at = 0
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName("Nodes")
        look.changed.connect(self.update)

    @property
    def columns(self) -> int:
        """Cells in a row: they are about as wide as high, and the last row is as full as can be."""
        count = max(1, len(self._cells))
        wide = max(1, self.width()) / max(1, self.height())
        about = max(1, min(count, round(math.sqrt(count * wide * 0.9))))
        return min((about, about - 1 or 1, about + 1), key=lambda columns: -count % columns)

    def show_cells(self, cells: Iterable[Cell]) -> None:
        """Show these."""
        found = list(cells)
        if found != self._cells:
            self._cells = found
            self._at = min(self._at, max(0, len(found) - 1))
            self._tell()
            self.update()

    def minimumSizeHint(self) -> QSize:
        """Room for eight in a row."""
        rows = math.ceil(len(self._cells) / 8)
        return QSize(8 * _LEAST.width(), rows * _LEAST.height())

    def sizeHint(self) -> QSize:
        """As much as there is."""
        return self.minimumSizeHint()

    def area_of(self, at: int) -> QRect:
        """Where a cell is."""
        columns = self.columns
        rows = math.ceil(max(1, len(self._cells)) / columns)
        row, column = divmod(at, columns)
        left, right = self.width() * column // columns, self.width() * (column + 1) // columns
        top, bottom = self.height() * row // rows, self.height() * (row + 1) // rows
        return QRect(left, top, right - left - 2, bottom - top - 2)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Shade, shape, number."""
        painter = QPainter(self)
        t, ratio = self._look.tokens, self.devicePixelRatioF()
        for at, (_, shape, share, _) in enumerate(self._cells):
            area = self.area_of(at)
            shade = QColor(t.paused if (share or 0.0) > 0.9 else t.accent)
            shade.setAlphaF(0.06 + 0.34 * min(1.0, share or 0.0))
            painter.fillRect(area, shade)
            number = "–" if share is None else f"{100 * share:.0f}"
            metrics = painter.fontMetrics()
            width = 10 + 4 + metrics.horizontalAdvance(number)
            if area.width() >= width:  # side by side
                left = area.left() + (area.width() - width) // 2
                painter.drawPixmap(left, area.center().y() - 4, _pixmap(shape, self._look, ratio))
                text = QRect(left + 14, area.top(), width, area.height())
                aligned = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
            else:
                middle = area.center().y() - (10 + metrics.height()) // 2
                painter.drawPixmap(area.center().x() - 4, middle, _pixmap(shape, self._look, ratio))
                text = QRect(area.left(), middle + 10, area.width(), metrics.height())
                aligned = Qt.AlignmentFlag.AlignCenter
            painter.setPen(t.text)
            painter.drawText(text, int(aligned), number)
            if at == self._at and self.hasFocus():
                painter.setPen(t.accent)
                painter.drawRect(area.adjusted(0, 0, -1, -1))
        painter.end()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrows and Enter."""
        steps = _STEPS | {Qt.Key.Key_Up: -self.columns, Qt.Key.Key_Down: self.columns}
        step = steps.get(Qt.Key(event.key()))
        if step is not None:
            if 0 <= self._at + step < len(self._cells):
                self._at += step
                self._tell()
                self.update()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space) and self._cells:
            self.chosen.emit(self._cells[self._at][0])
        else:
            super().keyPressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Open the cell below the pointer."""
        at = self._cell_at(event.position().toPoint())
        if at is not None and event.button() is Qt.MouseButton.LeftButton:
            self._at = at
            self._tell()
            self.chosen.emit(self._cells[at][0])

    def event(self, event: QEvent) -> bool:
        """Tell of the cell below the pointer."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            at = self._cell_at(event.pos())
            QToolTip.showText(event.globalPos(), tip(self._cells[at][3]) if at is not None else "", self)
            return True
        return super().event(event)

    def _cell_at(self, point: QPoint) -> int | None:
        return next((at for at in range(len(self._cells)) if self.area_of(at).contains(point)), None)

    def _tell(self) -> None:
        self.setAccessibleDescription(self._cells[self._at][3] if self._cells else "")


def _pixmap(shape: Shape, look: Look, ratio: float) -> QPixmap:
    return state_pixmap(shape[0], look.tokens.colour(shape[1]), ratio)

"""What the colours of a plot or timeline mean."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from manager.ui.theme import Look

_SWATCH_PX, _GAP_PX = 10, 14

Entry = tuple[str, str, str]
"""The colour's token, how it is drawn (fill, outline, dots), what it means."""


class Legend(QWidget):
    """Colours with their words, in as many lines as they need."""

    def __init__(self, look: Look, entries: Sequence[Entry]) -> None:
        super().__init__()
        self._look, self._entries = look, tuple(entries)
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setAccessibleName("Colours: " + ", ".join(text for _, _, text in self._entries))
        look.changed.connect(self.update)

    def _places(self, width: int) -> list[QRect]:
        metrics = self.fontMetrics()
        height = metrics.height() + 2
        places: list[QRect] = []
        x = y = 0
        for _, _, text in self._entries:
            needs = _SWATCH_PX + 5 + metrics.horizontalAdvance(text)
            if x and x + needs > width:
                x, y = 0, y + height
            places.append(QRect(x, y, needs, height))
            x += needs + _GAP_PX
        return places

    def sizeHint(self) -> QSize:
        """All in one line."""
        last = self._places(1 << 20)[-1]
        return QSize(last.right() + 2, last.height())

    def minimumSizeHint(self) -> QSize:
        """One below the other."""
        places = self._places(1)
        return QSize(max(place.width() for place in places), places[0].height())

    def heightForWidth(self, width: int) -> int:
        """As many lines as they take."""
        return self._places(width)[-1].bottom() + 1

    def paintEvent(self, event: QPaintEvent) -> None:
        """A swatch before each word."""
        painter = QPainter(self)
        t = self._look.tokens
        for (token, kind, text), place in zip(self._entries, self._places(self.width()), strict=True):
            swatch = QRect(place.left(), place.center().y() - 3, _SWATCH_PX, 7)
            colour = t.colour(token)
            if kind == "fill":
                painter.fillRect(swatch, colour)
            elif kind == "outline":
                painter.setPen(colour)
                painter.drawRect(swatch.adjusted(0, 0, -1, -1))
            else:
                painter.setPen(QPen(colour, 1, Qt.PenStyle.DotLine))
                middle = swatch.center().x()
                painter.drawLine(middle, place.top() + 1, middle, place.bottom() - 1)
            painter.setPen(t.dim)
            words = place.adjusted(_SWATCH_PX + 5, 0, 0, 0)
            painter.drawText(words, int(Qt.AlignmentFlag.AlignVCenter), text)
        painter.end()

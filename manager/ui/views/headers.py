"""The header over a list: arrows on every column by which it is sorted, numbered where there are several."""

from __future__ import annotations

from PySide6.QtCore import QRect, Qt
from PySide6.QtGui import QColor, QMouseEvent, QPainter
from PySide6.QtWidgets import QHeaderView, QStyleOptionHeader, QWidget

from manager.ui.theme import Look, font

_DIGIT_PX = 10
"""Height of the numbers that tell which column counts most."""


class SortHeader(QHeaderView):
    """Shows the sort that the table tells it, and remembers whether a click was to add to it."""

    def __init__(self, look: Look, parent: QWidget) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self._look = look
        self._order: dict[int, tuple[int, bool]] = {}  # by column: which counts most (1), downwards
        self.adds = False  # Shift was held when a title was clicked

    def show_order(self, order: list[tuple[int, bool]]) -> None:
        """Columns and whether they are sorted downwards, the one that counts most first."""
        self._order = {column: (place + 1, down) for place, (column, down) in enumerate(order)}
        column, down = order[0] if order else (-1, False)
        self.setSortIndicator(column, Qt.SortOrder.DescendingOrder if down else Qt.SortOrder.AscendingOrder)
        self.viewport().update()

    def number(self, column: int) -> str:
        """The small number in a column's title; none where one column alone counts."""
        found = self._order.get(column)
        return str(found[0]) if found is not None and len(self._order) > 1 else ""

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Note whether Shift is held: the signal that follows does not say."""
        self.adds = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        super().mousePressEvent(event)

    def initStyleOptionForIndex(self, option: QStyleOptionHeader, column: int) -> None:
        """An arrow in every column that counts, not in the first alone."""
        super().initStyleOptionForIndex(option, column)
        found = self._order.get(column)
        if found is not None and found[0] > 1:
            up, down = QStyleOptionHeader.SortIndicator.SortDown, QStyleOptionHeader.SortIndicator.SortUp
            option.sortIndicator = down if found[1] else up

    def paintSection(self, painter: QPainter, rect: QRect, column: int) -> None:
        """The title as usual; the number at its right edge."""
        super().paintSection(painter, rect, column)
        number = self.number(column)
        if not number:
            return
        painter.save()
        painter.setFont(font(_DIGIT_PX))
        colour: QColor = self._look.tokens.accent
        painter.setPen(colour)
        place = rect.adjusted(0, 3, -3, 0)
        painter.drawText(place, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignTop), number)
        painter.restore()

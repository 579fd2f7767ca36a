"""The table of the queue: a wait's reason over all figures it has not, and rows that are moved by hand."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QPoint, QRect, Qt, Signal
from PySide6.QtGui import (
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
)
from PySide6.QtWidgets import QApplication

from manager.core.migration.queue import is_heavy
from manager.core.operations import Operation, OperationState
from manager.core.query.spec import FieldSpec
from manager.ui.models.rows_model import Row
from manager.ui.views.table import PAD, Ink, RowsTable

FIGURES = frozenset(
    {"percent", "rate", "dirty", "remaining", "iteration", "downtime", "elapsed", "eta", "attempt", "reason"}
)
"""Columns that are empty while nothing is copied: there the reason has its place."""


def waits(operation: Operation) -> bool:
    """Whether it stands in the queue and can be given another place."""
    return operation.state is OperationState.WAITING and is_heavy(operation)


class QueueTable(RowsTable):
    """Drag and drop, or Alt with the arrows, give what waits another place."""

    can_group = False  # its rows have places of their own

    dropped = Signal(object, object)  # ids in order, and the id before which they go; None: the end
    refused = Signal(str)  # why a drag does nothing
    step_wanted = Signal(int)  # the selected ones by one place: -1 up, 1 down
    cancel_wanted = Signal()

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.can_reorder = False
        self._pressed: QPoint | None = None
        self._vain: QPoint | None = None  # pressed where a drag would do nothing
        self._alone = ""  # pressed among several selected: it is selected alone unless it is dragged
        self._gap = -1  # before which row the dragged ones would go

    # --- painting --------------------------------------------------------------------------------

    def _spanned(self, row: Row) -> tuple[frozenset[int], QRect] | None:
        """Of a row without figures: the columns over which its reason goes, and where."""
        item = row.item
        model = self.rows_model
        if not isinstance(item, Operation):
            return None
        if not item.is_over and model.text(row, model.columns["percent"]):
            return None  # asked of the cell, not of the core: both are to tell of the same moment
        header = self.horizontalHeader()
        names: tuple[FieldSpec, ...] = model.fields
        found: list[int] = []
        for column in self.shown_columns():
            if names[column].name in FIGURES and (found or names[column].name == "percent"):
                found.append(column)
            elif found:
                break
        if not found:
            return None
        left = header.sectionViewportPosition(found[0])
        end = header.sectionViewportPosition(found[-1]) + header.sectionSize(found[-1])
        right = min(end, max(left, self.viewport().width()))  # what is cut is to be seen to be cut
        return frozenset(found), QRect(left, 0, right - left, self.row_height)

    def _paint_row(
        self, ink: Ink, row: Row, columns: list[tuple[int, int, int]], y: int, selected: bool
    ) -> None:
        spanned = self._spanned(row)
        if spanned is None:
            super()._paint_row(ink, row, columns, y, selected)
            return
        under, place = spanned
        others = [each for each in columns if each[0] not in under]
        super()._paint_row(ink, row, others, y, selected)
        reason = self.rows_model.columns["reason"]
        text = self.rows_model.text(row, reason)
        room = place.width() - 2 * PAD
        if text and room > 4:
            self._pen_for(ink.painter, row, reason, text, selected)
            self._paint_text(ink, text, reason, QRect(place.left() + PAD, y, room, self.row_height))

    def paintEvent(self, event: QPaintEvent) -> None:
        """The rows, and the line where dragged ones would go."""
        super().paintEvent(event)
        if self._gap >= 0:
            painter = QPainter(self.viewport())
            y = self._gap * self.row_height - self.verticalOffset()
            painter.fillRect(0, max(0, y - 1), self.viewport().width(), 2, self._look.tokens.accent)
            painter.end()

    def tool_tip(self, at: int, column: int) -> str:
        """As of any table; over a reason that is spread out, that."""
        spanned = self._spanned(self.rows_model.rows[at])
        if spanned is not None and column in spanned[0]:
            column = self.rows_model.columns["reason"]
        return super().tool_tip(at, column)

    # --- another place ---------------------------------------------------------------------------

    def _waits_at(self, at: int) -> bool:
        rows = self.rows_model.rows
        return self.can_reorder and 0 <= at < len(rows) and waits(rows[at].item)

    @property
    def _in_turn(self) -> bool:
        """Whether all rows stand as they stand in the queue: else a place among them is none in it."""
        model = self.rows_model
        return not model.is_filtered and model.order[:1] in ((), (("place", False),))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select as usual; on what waits a drag may begin."""
        at = self.rowAt(event.position().toPoint().y())
        plain = event.modifiers() == Qt.KeyboardModifier.NoModifier
        self._pressed, self._vain, self._alone = None, None, ""
        may_drag = event.button() == Qt.MouseButton.LeftButton and plain and self._waits_at(at)
        if may_drag and not self._in_turn:
            self._vain = event.position().toPoint()
        elif may_drag:
            self._pressed = event.position().toPoint()
            key = self.rows_model.rows[at].key
            if key in self.selected_ids:
                self._alone = key
                self.setFocus(Qt.FocusReason.MouseFocusReason)
                return  # all of them may be dragged
        super().mousePressEvent(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Show where they would go."""
        far = QApplication.startDragDistance()
        if self._vain is not None and (event.position().toPoint() - self._vain).manhattanLength() >= far:
            self._vain = None
            self.refused.emit(
                "To give rows another place by dragging, sort the list by # and clear the search."
            )
        if self._pressed is None or not event.buttons() & Qt.MouseButton.LeftButton:
            super().mouseMoveEvent(event)
            return
        at = event.position().toPoint()
        if self._gap < 0 and (at - self._pressed).manhattanLength() < far:
            return
        self._alone = ""
        height = self.row_height
        row = (at.y() + self.verticalOffset() + height // 2) // height
        self._show_gap(max(0, min(row, len(self.rows_model.rows))))
        bar = self.verticalScrollBar()
        if at.y() < height // 2:
            bar.setValue(bar.value() - height // 2)
        elif at.y() > self.viewport().height() - height // 2:
            bar.setValue(bar.value() + height // 2)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let them go there."""
        gap, alone = self._gap, self._alone
        self._pressed, self._vain, self._alone = None, None, ""
        self._show_gap(-1)
        if alone:
            self.select_ids([alone], current=alone)
        if gap >= 0:
            self._drop(gap)
            return
        super().mouseReleaseEvent(event)

    def _drop(self, gap: int) -> None:
        rows = self.rows_model.rows
        moved = [key for key in self.selected_ids if waits(rows[self.rows_model.position(key)].item)]
        after = (row.key for row in rows[gap:] if waits(row.item) and row.key not in moved)
        if moved:
            self.dropped.emit(moved, next(after, None))

    def _show_gap(self, gap: int) -> None:
        if gap != self._gap:
            self._gap = gap
            self.setCursor(Qt.CursorShape.ClosedHandCursor if gap >= 0 else Qt.CursorShape.ArrowCursor)
            self.viewport().update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Alt with the arrows: another place; Delete: cancel, which asks; Esc: not this drag."""
        alt = event.modifiers() & Qt.KeyboardModifier.AltModifier
        if alt and event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self.step_wanted.emit(-1 if event.key() == Qt.Key.Key_Up else 1)
        elif event.key() == Qt.Key.Key_Delete:
            self.cancel_wanted.emit()
        elif event.key() == Qt.Key.Key_Escape and self._gap >= 0:
            self._pressed = None
            self._show_gap(-1)
        else:
            super().keyPressEvent(event)

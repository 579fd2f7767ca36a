"""The one table view: paints its rows itself, carries selection and place by id, remembers its columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from PySide6.QtCore import (
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPoint,
    QRect,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import (
    QAction,
    QColor,
    QContextMenuEvent,
    QFontMetrics,
    QGuiApplication,
    QHelpEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QMenu,
    QTableView,
    QToolTip,
    QWidget,
)

from manager.core import units
from manager.core.query.spec import FieldKind
from manager.services.ports import ViewStore
from manager.ui.icons import state_pixmap
from manager.ui.models import tones
from manager.ui.models.rows_model import Row, RowsModel
from manager.ui.theme import Look
from manager.ui.views.parts import tip

PAD = 8
"""Space beside a cell's text, the same as the header's."""

_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine)
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine)
_SELECT = QItemSelectionModel.SelectionFlag.ClearAndSelect
_NO_UPDATE = QItemSelectionModel.SelectionFlag.NoUpdate

_MOST_ELIDED = 20_000
"""How many cut texts are kept before the cache starts anew."""


_MEASURED = 200
"""About how many rows are looked at for the width of a column, spread over the list."""

_LONGEST = 12
"""How many of the texts with most letters are measured."""

_SHAPE_PX = 17
_ARROW_PX = 16
_BAR_PX = 96

_NAME_PX, _WORD_PX, _FIGURE_PX = 130, 67, 72
"""What a name, a word and a figure keep when there is too little room for all."""

_WIDEST_PX = 230
"""What a long name may take unasked; the rest is in its tooltip."""

_LAST_PX = 240
"""What the last column, which says why, is given before the others are as wide as usual."""


class Need(NamedTuple):
    """How wide a column should be, in device-independent pixels."""

    least: int  # its title, and enough of its texts to tell them apart
    now: int  # all that it shows now
    whole: int  # also what it usually comes to show


def _grow(widths: list[float], goals: Sequence[int], left: float) -> float:
    """Bring widths nearer to their goals, each by the same share of what it lacks; returns what is left."""
    lacks = [max(0.0, goal - width) for width, goal in zip(widths, goals, strict=True)]
    lacking = sum(lacks)
    if left <= 0 or not lacking:
        return left
    share = min(1.0, left / lacking)
    for place, lack in enumerate(lacks):
        widths[place] += share * lack
    return left - share * lacking


class Ink(NamedTuple):
    """What rows are painted with."""

    painter: QPainter
    metrics: QFontMetrics
    ratio: float  # device pixels in one


class SavedColumn(msgspec.Struct, frozen=True):
    """A column as it is remembered."""

    name: str
    width: int
    shown: bool = True


class SavedTable(msgspec.Struct, frozen=True):
    """A table's layout as it is remembered."""

    columns: list[SavedColumn] = []
    sort: list[tuple[str, bool]] = []
    fitted: bool = False  # nobody chose the widths: they are made anew from what is shown


class RowsTable(QTableView):
    """Shows a `RowsModel`. Selection is by whole rows; hidden rows that were selected come back selected."""

    selection_settled = Signal()  # the set of selected objects changed
    opened = Signal(str)  # double click or Enter on an object
    menu_wanted = Signal(QPoint)  # context menu, in global coordinates
    samples_wanted = Signal(bool)  # a shown column needs load samples, or none does any more
    layout_changed = Signal()

    def __init__(
        self,
        model: RowsModel,
        look: Look,
        *,
        name: str,
        views: ViewStore,
        title: str,
        shown: Iterable[str] | None = None,
        widths: Mapping[str, int] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._default_widths = dict(widths or {})
        self.rows_model = model
        model.setParent(self)  # so that it outlives what the view still does while it ends
        self._look = look
        self._name = name
        self._views = views
        self._default_shown = tuple(shown) if shown is not None else None
        self._hover = -1
        self._selected: set[str] = set()  # ids, shown ones
        self._hidden: set[str] = set()  # ids selected before a filter hid them
        self._ranges: list[tuple[int, int]] = []
        self._carry: tuple[set[str], str | None, str | None, int] | None = None
        self._elided: dict[tuple[str, int, bool], str] = {}
        self._typed = ""
        self._fitted = True  # columns follow their contents until a width is chosen
        self._fitting = False
        self._needs: dict[int, Need] = {}  # by column
        self._measured = 0  # rows there were then
        self._restoring = True
        self._type_timer = QTimer(self)
        self._type_timer.setSingleShot(True)
        self._type_timer.setInterval(800)
        self._type_timer.timeout.connect(self._forget_typed)
        self._refit_timer = QTimer(self)
        self._refit_timer.setSingleShot(True)
        self._refit_timer.setInterval(1000)
        self._refit_timer.timeout.connect(self.fit_columns)
        self._save_timer = QTimer(self)
        self._save_timer.setSingleShot(True)
        self._save_timer.setInterval(400)
        self._save_timer.timeout.connect(self.save_layout)

        self.setAccessibleName(title)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setCornerButtonEnabled(False)
        self.setMouseTracking(True)
        self.viewport().setMouseTracking(True)
        self.viewport().setAttribute(Qt.WidgetAttribute.WA_Hover)

        model.before_swap.connect(self._before_swap)
        model.after_swap.connect(self._after_swap)
        self.setModel(model)
        model.viewport = self.rows_on_screen

        rows = self.verticalHeader()
        rows.hide()
        rows.setMinimumSectionSize(16)
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(look.sizes.row_px)
        columns = self.horizontalHeader()
        columns.setSectionsMovable(True)
        columns.setHighlightSections(False)
        columns.setStretchLastSection(True)
        columns.setMinimumSectionSize(36)
        columns.setSectionsClickable(True)
        columns.setSortIndicatorShown(True)
        columns.setTextElideMode(Qt.TextElideMode.ElideRight)
        columns.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        columns.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        columns.customContextMenuRequested.connect(
            lambda at: self.column_menu().popup(columns.mapToGlobal(at))
        )
        # Headers ask per column whether every row is selected: with a selection model of their own, always
        # empty, selecting 8,000 rows stays cheap.
        for header in (rows, columns):
            header.setSelectionModel(QItemSelectionModel(model, header))
        self.restore_layout()
        columns.sectionClicked.connect(self._sort_clicked)
        columns.sectionResized.connect(self._section_resized)
        columns.sectionMoved.connect(self._layout_touched)
        look.changed.connect(self.viewport().update)
        self.selectionModel().currentChanged.connect(self._current_changed)

    # --- what is selected ----------------------------------------------------------------------

    @property
    def selected_ids(self) -> list[str]:
        """The selected objects that are shown, in the order of the list."""
        rows = self.rows_model.rows
        return [rows[i].key for first, last in self._ranges for i in range(first, min(last + 1, len(rows)))]

    @property
    def selected_count(self) -> int:
        """How many are selected."""
        return sum(last - first + 1 for first, last in self._ranges)

    @property
    def hidden_selected(self) -> int:
        """How many were selected and are hidden by the filter now; no action touches them."""
        return len(self._hidden)

    @property
    def current_id(self) -> str | None:
        """The object of the current row."""
        at = self.currentIndex().row()
        return self.rows_model.rows[at].key if 0 <= at < len(self.rows_model.rows) else None

    def select_ids(self, ids: Iterable[str], *, current: str | None = None, reveal: bool = True) -> None:
        """Select these objects, as far as they are shown."""
        self._hidden = set()
        self._select(set(ids))
        place = self.rows_model.position(current) if current else -1
        if place >= 0:
            index = self.rows_model.index(place, self._first_column())
            self.selectionModel().setCurrentIndex(index, _NO_UPDATE)
            if reveal:
                self.scrollTo(index)

    def enter(self) -> None:
        """Give it the keyboard, on its first row if it was on none."""
        self.setFocus(Qt.FocusReason.OtherFocusReason)
        rows = self.rows_model.rows
        if rows and not self.currentIndex().isValid():
            self.select_ids([rows[0].key], current=rows[0].key)

    def invert_selection(self) -> None:
        """Select what is shown and not selected."""
        chosen = set(self.selected_ids)
        self.select_ids(row.key for row in self.rows_model.rows if row.key not in chosen)

    def selectionChanged(self, selected: QItemSelection, deselected: QItemSelection) -> None:
        """Keep the selected rows as ranges; tell once per change."""
        super().selectionChanged(selected, deselected)
        if self._carry is not None:
            return
        self._note_ranges()
        if not self._restoring:
            self._hidden = set()
        self.viewport().update()
        self.selection_settled.emit()

    def _note_ranges(self) -> None:
        selection = self.selectionModel().selection()
        found = sorted((r.top(), r.bottom()) for r in selection.toList())
        merged: list[tuple[int, int]] = []
        for first, last in found:
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        self._ranges = merged

    def _is_selected(self, row: int) -> bool:
        return any(first <= row <= last for first, last in self._ranges)

    def _select(self, ids: set[str]) -> None:
        model = self.rows_model
        places = sorted(place for key in ids if (place := model.position(key)) >= 0)
        selection = QItemSelection()
        last_column = len(model.fields) - 1
        start = 0
        for i in range(1, len(places) + 1):
            if i == len(places) or places[i] != places[i - 1] + 1:
                selection.select(model.index(places[start], 0), model.index(places[i - 1], last_column))
                start = i
        self.selectionModel().select(selection, _SELECT)

    def _before_swap(self) -> None:
        rows = self.rows_model.rows
        ids = set(self.selected_ids)
        top = self.rowAt(0)
        anchor = rows[top].key if 0 <= top < len(rows) else None
        offset = self.rowViewportPosition(top) if anchor else 0
        self._carry = (ids, self.current_id, anchor, offset)

    def _after_swap(self) -> None:
        assert self._carry is not None
        ids, current, anchor, offset = self._carry
        model = self.rows_model
        before = ids | self._hidden
        if before:
            self._select(before)
        if current is not None and (place := model.position(current)) >= 0:
            self.selectionModel().setCurrentIndex(model.index(place, self._first_column()), _NO_UPDATE)
        if anchor is not None and (place := model.position(anchor)) >= 0:
            bar = self.verticalScrollBar()
            at_top = bar.value() == 0 and offset == 0 and (place == 0 or not before)
            if not at_top:
                self.doItemsLayout()
                bar.setValue(place * self.row_height - offset)
        self._carry = None
        if self._fitted and self._outgrown():
            self.fit_columns()
        self._note_ranges()
        self._hidden = {key for key in before if model.knows(key) and model.position(key) < 0}
        if ids != {key for key in before if model.position(key) >= 0}:
            self.selection_settled.emit()
        self.viewport().update()

    def _current_changed(self, _: QModelIndex, __: QModelIndex) -> None:
        self.viewport().update()

    # --- geometry ------------------------------------------------------------------------------

    @property
    def row_height(self) -> int:
        """Height of a row in device-independent pixels."""
        return self.verticalHeader().defaultSectionSize()

    def rows_on_screen(self) -> tuple[int, int]:
        """First and last row that are at least partly visible; an empty range if none is."""
        if not self.isVisible():
            return 0, -1
        first = max(0, self.rowAt(0))
        return first, first + self.viewport().height() // max(1, self.row_height) + 1

    def _first_column(self) -> int:
        header = self.horizontalHeader()
        for visual in range(header.count()):
            logical = header.logicalIndex(visual)
            if not header.isSectionHidden(logical):
                return logical
        return 0

    def shown_columns(self) -> list[int]:
        """The shown columns from left to right."""
        header = self.horizontalHeader()
        order = (header.logicalIndex(visual) for visual in range(header.count()))
        return [column for column in order if not header.isSectionHidden(column)]

    def set_row_height(self, pixels: int) -> None:
        """Compact, usual or roomy rows."""
        self.verticalHeader().setDefaultSectionSize(pixels)

    # --- painting ------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the exposed rows from cached texts; no delegate, no index, no data()."""
        painter = QPainter(self.viewport())
        try:
            self._paint_rows(painter, event.rect())
        finally:
            painter.end()  # a painter left open by an error would take the program with it

    def _paint_rows(self, painter: QPainter, area: QRect) -> None:
        t = self._look.tokens
        painter.fillRect(area, t.panel)
        rows = self.rows_model.rows
        if not rows:
            return
        height = self.row_height
        scrolled = self.verticalOffset()
        first = max(0, (area.top() + scrolled) // height)
        last = min(len(rows) - 1, (area.bottom() + scrolled) // height)
        header = self.horizontalHeader()
        columns: list[tuple[int, int, int]] = []
        for column in self.shown_columns():
            x, width = header.sectionViewportPosition(column), header.sectionSize(column)
            if x + width >= area.left() and x <= area.right():
                columns.append((column, x, width))
        current = self.currentIndex().row() if self.hasFocus() else -1
        ink = Ink(painter, self.fontMetrics(), self.devicePixelRatioF())
        full = self.viewport().width()
        for at in range(first, last + 1):
            y = at * height - scrolled
            selected = self._is_selected(at)
            if selected:
                painter.fillRect(0, y, full, height, t.selection)
            elif at == self._hover:
                painter.fillRect(0, y, full, height, t.hover)
            if at == current:
                painter.fillRect(0, y, 2, height, t.accent)
            self._paint_row(ink, rows[at], columns, y, selected)

    def _paint_row(
        self, ink: Ink, row: Row, columns: list[tuple[int, int, int]], y: int, selected: bool
    ) -> None:
        """The cells of one row; `columns`: which, from where, how wide."""
        for column, x, width in columns:
            cell = QRect(x, y, width, self.row_height)
            self._paint_cell(ink, row, column, cell, selected)

    def _paint_cell(self, ink: Ink, row: Row, column: int, cell: QRect, selected: bool) -> None:
        painter, metrics, ratio = ink
        model = self.rows_model
        spec = model.fields[column]
        text = model.text(row, column)
        t = self._look.tokens
        if (model.kind, spec.name) in tones.BARS:
            value = spec.value(model.view, row.item)
            if isinstance(value, int | float):
                self._paint_bar(painter, row, cell, text, value / 100)
                return
        left = cell.left() + PAD
        room = cell.width() - 2 * PAD
        shape = tones.shape(model.kind, spec.name, row.item)
        if shape is not None:
            pixmap = state_pixmap(shape[0], t.colour(shape[1]), ratio)
            painter.drawPixmap(left, cell.top() + (cell.height() - 10) // 2, pixmap)
            left += _SHAPE_PX
            room -= _SHAPE_PX
        if not text or room <= 4:
            return
        self._pen_for(painter, row, column, text, selected)
        painter.drawText(
            left,
            cell.top(),
            room,
            cell.height(),
            _RIGHT if model.right_aligned[column] else _LEFT,
            self._fit(metrics, text, room, spec.name in ("name", "vm", "uri", "subject")),
        )

    def _pen_for(self, painter: QPainter, row: Row, column: int, text: str, selected: bool) -> None:
        model, t = self.rows_model, self._look.tokens
        token = tones.token(model.kind, model.fields[column].name, row.item, text)
        colour: QColor = t.colour(token) if token else t.text
        painter.setPen(t.text if selected and token == "dim" else colour)

    def _fit(self, metrics: QFontMetrics, text: str, room: int, middle: bool) -> str:
        """The text, cut to the room: names in the middle, others at the end."""
        if len(text) * 12 < room:  # not even of the widest letters
            return text
        key = (text, room, middle)
        found = self._elided.get(key)
        if found is None:
            if len(self._elided) > _MOST_ELIDED:
                self._elided.clear()
            mode = Qt.TextElideMode.ElideMiddle if middle else Qt.TextElideMode.ElideRight
            found = self._elided[key] = metrics.elidedText(text, mode, room)
        return found

    def _paint_bar(self, painter: QPainter, row: Row, cell: QRect, text: str, share: float) -> None:
        model, t = self.rows_model, self._look.tokens
        share = max(0.0, min(1.0, share))
        label = 44 if text.endswith("%") else 30
        width = cell.width() - 2 * PAD - label
        phase_column = model.columns.get("phase")
        phase = model.text(row, phase_column) if phase_column is not None else ""
        if width > 12:
            bar = QRect(
                cell.left() + PAD,
                cell.top() + (cell.height() - self._look.sizes.bar_px) // 2,
                width,
                self._look.sizes.bar_px,
            )
            painter.fillRect(bar, t.track)
            colour = t.colour(tones.bar_token(model.kind, row.item, phase))
            painter.fillRect(bar.adjusted(0, 0, round(width * share) - width, 0), colour)
        painter.setPen(t.text)
        painter.drawText(cell.right() - PAD - label, cell.top(), label + 1, cell.height(), _RIGHT, text)

    # --- pointer and keys ------------------------------------------------------------------------

    def viewportEvent(self, event: QEvent) -> bool:
        """Hover marks a row and keeps the order; a tooltip shows what was cut."""
        kind = event.type()
        if kind == QEvent.Type.Leave:
            self._set_hover(-1)
            self.rows_model.hold(False)
        elif kind == QEvent.Type.MouseMove and isinstance(event, QMouseEvent):
            # Not on entering: a list that opens under a resting pointer is still to find its order.
            self.rows_model.hold(True)
            self._set_hover(self.rowAt(event.position().toPoint().y()))
        elif kind == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            self._show_tool_tip(event)
            return True
        return super().viewportEvent(event)

    def _set_hover(self, row: int) -> None:
        if row != self._hover:
            self._hover = row
            self.viewport().update()

    def _show_tool_tip(self, event: QHelpEvent) -> None:
        index = self.indexAt(event.pos())
        text = self.tool_tip(index.row(), index.column()) if index.isValid() else ""
        if text:
            QToolTip.showText(event.globalPos(), tip(text), self)
        else:
            QToolTip.hideText()

    def tool_tip(self, at: int, column: int) -> str:
        """The whole text of a cell; of a moment, date and time."""
        row = self.rows_model.rows[at]
        spec = self.rows_model.fields[column]
        if spec.kind is FieldKind.TIME:
            value = spec.value(self.rows_model.view, row.item)
            if isinstance(value, float | int):
                age = units.duration_text(self.rows_model.view.now_s - value)
                return f"{units.iso_text(value)}\n{age} ago"
        notes = getattr(row.item, "notes", ())
        if spec.name == "information" and len(notes) > 1:
            return "\n".join(note.text for note in notes)
        text = self.rows_model.text(row, column)
        if spec.name in ("information", "reason"):
            reason = getattr(row.item, spec.name, None)
            if reason is not None and reason.remedy:
                return f"{text}\n{reason.remedy}"
        return text

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Details; never a start."""
        index = self.indexAt(event.position().toPoint())
        if index.isValid() and event.button() == Qt.MouseButton.LeftButton:
            self.opened.emit(self.rows_model.rows[index.row()].key)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """The actions, at the pointer or at the current row."""
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            at = self.visualRect(self.currentIndex()).bottomLeft()
            self.menu_wanted.emit(self.viewport().mapToGlobal(at))
        else:
            self.menu_wanted.emit(event.globalPos())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter opens details; Delete does nothing here; Space marks as usual."""
        key = event.key()
        plain = event.modifiers() in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier)
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and plain:
            if self.current_id is not None:
                self.opened.emit(self.current_id)
        elif key == Qt.Key.Key_Delete or (key == Qt.Key.Key_Slash and plain):
            event.ignore()  # the window's search box takes the slash; nothing takes Delete in a list
        else:
            super().keyPressEvent(event)

    def keyboardSearch(self, search: str) -> None:
        """Typing goes to the next row whose name begins so; found in the list itself, not through data()."""
        if not search.strip() and not self._typed:
            return
        self._typed += search.lower()
        self._type_timer.start()
        model = self.rows_model
        rows = model.rows
        column = next((c for c, s in enumerate(model.fields) if s.name in ("name", "vm", "subject")), 0)
        start = max(0, self.currentIndex().row()) + (len(self._typed) == 1)
        for step in range(len(rows)):
            at = (start + step) % len(rows)
            if model.text(rows[at], column).lower().startswith(self._typed):
                self.select_ids([rows[at].key], current=rows[at].key)
                return

    def _forget_typed(self) -> None:
        self._typed = ""

    # --- sort ------------------------------------------------------------------------------------

    def _sort_clicked(self, column: int) -> None:
        name = self.rows_model.fields[column].name
        order = self.rows_model.order
        again = bool(order) and order[0][0] == name
        self.rows_model.sort_by(name, again and not order[0][1])
        self._show_order()
        if self._fitted:
            self.fit_columns()
        self._layout_touched()

    def _show_order(self) -> None:
        order = self.rows_model.order
        header = self.horizontalHeader()
        if order:
            column = self.rows_model.columns[order[0][0]]
            way = Qt.SortOrder.DescendingOrder if order[0][1] else Qt.SortOrder.AscendingOrder
            header.setSortIndicator(column, way)
        else:
            header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)

    # --- columns ---------------------------------------------------------------------------------

    def column_menu(self) -> QMenu:
        """The column chooser."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setToolTipsVisible(True)
        for column, spec in enumerate(self.rows_model.fields):
            action = QAction(spec.title, menu)
            action.setCheckable(True)
            action.setChecked(not self.isColumnHidden(column))
            action.setToolTip(spec.doc)
            action.setEnabled(column != 0)  # the name stays: a row without one says nothing
            action.toggled.connect(_bound(self.show_column, column))
            menu.addAction(action)
        menu.addSeparator()
        menu.addAction("Columns as at first", self.reset_layout)
        return menu

    def choose_columns(self, below: QWidget) -> None:
        """Open the column chooser below a button."""
        self.column_menu().popup(below.mapToGlobal(QPoint(0, below.height())))

    def show_column(self, column: int, shown: bool) -> None:
        """Show or hide a column."""
        self._fitting = True  # nobody chose a width
        self.setColumnHidden(column, not shown)
        if shown and self.columnWidth(column) < 40:
            self.setColumnWidth(column, self.rows_model.fields[column].width)
        self._fitting = False
        if self._fitted:
            self.fit_columns()
        self._layout_touched()
        self.tell_samples()

    def tell_samples(self) -> None:
        """Say whether a shown column needs load samples."""
        self.samples_wanted.emit(self.needs_samples)

    @property
    def needs_samples(self) -> bool:
        """Whether a shown column needs load samples."""
        return any(self.rows_model.fields[column].sample for column in self.shown_columns())

    def reset_layout(self) -> None:
        """Columns, widths and sort as they are for a new user."""
        self._apply(SavedTable())
        self._layout_touched()
        self.tell_samples()

    def restore_layout(self) -> None:
        """As it was when it was last used."""
        data = self._views.read(self._name)
        saved = SavedTable()
        if data is not None:
            try:
                saved = msgspec.json.decode(data, type=SavedTable)
            except msgspec.MsgspecError:
                saved = SavedTable()  # of another version: losing a column width must not hurt
        self._apply(saved)

    def save_layout(self) -> None:
        """Keep it for the next time."""
        header = self.horizontalHeader()
        fields = self.rows_model.fields
        columns = []
        for visual in range(header.count()):
            column = header.logicalIndex(visual)
            hidden = header.isSectionHidden(column)
            width = fields[column].width if hidden else header.sectionSize(column)
            if not hidden and visual == header.count() - 1:
                width = fields[column].width  # it stretches: its size is the window's
            columns.append(SavedColumn(fields[column].name, width, not hidden))
        saved = SavedTable(columns, list(self.rows_model.order), self._fitted)
        self._views.write(self._name, msgspec.json.encode(saved))
        self.layout_changed.emit()

    def _apply(self, saved: SavedTable) -> None:
        self._restoring = True
        self._fitted = False  # until all is as it was
        header = self.horizontalHeader()
        model = self.rows_model
        known = {c.name: c for c in saved.columns if c.name in model.columns}
        wanted = self._default_shown
        for column, spec in enumerate(model.fields):
            kept = known.get(spec.name)
            usual = spec.name in wanted if wanted is not None else spec.shown
            self.setColumnHidden(column, not (kept.shown if kept else usual))
            usual_width = self._default_widths.get(spec.name, spec.width)
            self.setColumnWidth(column, max(36, kept.width if kept else usual_width))
        order = [model.columns[c.name] for c in saved.columns if c.name in known]
        if not order and wanted is not None:
            order = [model.columns[name] for name in wanted if name in model.columns]
        for place, column in enumerate(order):
            header.moveSection(header.visualIndex(column), place)
        self.setColumnWidth(self.shown_columns()[-1], 120)  # it stretches over what is left
        model.set_order(saved.sort)
        self._show_order()
        self._restoring = False
        self._fitted = saved.fitted or not saved.columns
        if self._fitted:
            self.fit_columns()

    # --- widths ------------------------------------------------------------------------------------

    def refit_soon(self) -> None:
        """Fit the columns anew, unless widths were chosen: cells that were empty have something to say."""
        if self._fitted and not self._refit_timer.isActive():
            self._refit_timer.start()

    def fit_columns(self) -> None:
        """Make the columns as wide as what they show, so that the last one has room too."""
        *others, last = self.shown_columns()
        title = self._title_px(last)  # it takes what is left, whatever it shows
        self._needs = {column: self._need(column) for column in others}
        self._needs[last] = Need(title, title, title)
        self._measured = max(self._measured, len(self.rows_model.rows))
        self._share_room()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the new room."""
        super().resizeEvent(event)
        if self._fitted and event.size().width() != event.oldSize().width():
            self._share_room()

    def _need(self, column: int) -> Need:
        model = self.rows_model
        spec = model.fields[column]
        title = self._title_px(column)
        usual = self._default_widths.get(spec.name, spec.width)
        if (model.kind, spec.name) in tones.BARS:
            return Need(max(title, _BAR_PX), max(title, _BAR_PX), max(title, usual))
        rows = model.rows[:: max(1, len(model.rows) // _MEASURED)]
        if not rows:
            return Need(title, title, max(title, usual))
        texts = sorted({model.text(row, column) for row in rows}, key=len)[-_LONGEST:]
        shape = any(tones.shape(model.kind, spec.name, row.item) is not None for row in rows)
        widest = max(self.fontMetrics().horizontalAdvance(text) for text in texts)
        now = min(widest + 2 * PAD + 1 + (_SHAPE_PX if shape else 0), _WIDEST_PX)
        if column == self._first_column():
            return Need(max(title, min(now, _NAME_PX)), max(title, now), max(title, now))
        # Figures come and go, and a status changes: what is shown now is not all that there will be.
        if model.right_aligned[column] and now <= title:
            least = min(usual, _FIGURE_PX)
        elif model.right_aligned[column] and spec.kind is not FieldKind.SECONDS:
            least = now
        else:
            least = min(now, _WORD_PX + (_SHAPE_PX if shape else 0))
        least, now = max(title, least), max(title, least, now)
        return Need(least, now, max(now, usual))

    def _title_px(self, column: int) -> int:
        model = self.rows_model
        name = str(model.headerData(column, Qt.Orientation.Horizontal))
        arrow = _ARROW_PX if model.order and model.order[0][0] == model.fields[column].name else 0
        return self.horizontalHeader().fontMetrics().horizontalAdvance(name) + 2 * PAD + 1 + arrow

    def _outgrown(self) -> bool:
        """Whether there are more rows than when the columns were fitted, or longer names."""
        if len(self.rows_model.rows) > self._measured:
            return True
        first = self._first_column()
        return first in self._needs and self._need(first).whole > self._needs[first].whole

    def _share_room(self) -> None:
        columns = self.shown_columns()
        if not columns or any(column not in self._needs for column in columns):
            return
        *others, last = columns
        needs = [self._needs[column] for column in others]
        widths = [float(need.least) for need in needs]
        narrow = self._title_px(last) - PAD
        left = self.viewport().width() - sum(widths) - narrow
        if left < 0:  # there is something to scroll to in any case: then nothing need be cut
            widths = [float(need.now) for need in needs]
        # In turns: some for the last column, what the others show now, more for the last, then the usual.
        left -= max(0.0, min(left, _LAST_PX / 2 - narrow))
        left = _grow(widths, [need.now for need in needs], left)
        left -= max(0.0, min(left, _LAST_PX / 2))
        _grow(widths, [need.whole for need in needs], left)
        self._fitting = True
        for column, width in zip(others, widths, strict=True):
            self.setColumnWidth(column, int(width))
        self.setColumnWidth(last, narrow)  # at least; it stretches over what is left
        self._fitting = False

    def _section_resized(self, column: int, _: int, __: int) -> None:
        if self._fitting or self._restoring:
            return
        if column != self.shown_columns()[-1]:  # that one stretches by itself
            self._fitted = False
        self._layout_touched()

    def _layout_touched(self, *_: object) -> None:
        if not self._restoring:
            self._save_timer.start()

    # --- copy and export ---------------------------------------------------------------------------

    def copy_cells(self) -> None:
        """The selected rows as shown, tab-separated, to the clipboard."""
        QGuiApplication.clipboard().setText(self.cells_text())

    def cells_text(self) -> str:
        """The selected rows as shown, tab-separated."""
        columns = self.shown_columns()
        model = self.rows_model
        return "\n".join(
            "\t".join(model.text(model.rows[model.position(key)], column) for column in columns)
            for key in self.selected_ids
        )

    def as_csv(self) -> str:
        """Exactly what is shown, with the titles, as CSV."""
        model, columns = self.rows_model, self.shown_columns()
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow([model.headerData(c, Qt.Orientation.Horizontal) for c in columns])
        writer.writerows([model.text(row, c) for c in columns] for row in model.rows)
        return out.getvalue()

    def as_json(self) -> str:
        """Exactly what is shown as JSON, with the field names and values of the command line."""
        model = self.rows_model
        specs = [model.fields[c] for c in self.shown_columns()]
        rows: list[dict[str, Any]] = [
            {spec.name: spec.as_json(model.view, row.item) for spec in specs} for row in model.rows
        ]
        return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n"


def _bound(call: Callable[[int, bool], None], column: int) -> Callable[[bool], None]:
    return lambda shown: call(column, shown)

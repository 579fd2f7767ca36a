"""The one table view: paints its rows itself, carries selection and place by id, remembers its columns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
from PySide6.QtCore import (
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QPointF,
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
    QPolygonF,
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
from manager.core.query.grouping import KNOWN, UNKNOWN, GroupKey
from manager.core.query.spec import CLUSTER, FieldKind
from manager.services.ports import ViewStore
from manager.ui.icons import state_pixmap
from manager.ui.models import export, tones
from manager.ui.models.groups import Group, Row
from manager.ui.models.rows_model import SORT_KEYS, RowsModel
from manager.ui.theme import Look, font
from manager.ui.views.columns import ColumnsDialog
from manager.ui.views.headers import SortHeader
from manager.ui.views.parts import tip

PAD = 8
"""Space beside a cell's text, the same as the header's."""

_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine)
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine)
_SELECT = QItemSelectionModel.SelectionFlag.ClearAndSelect
_NO_UPDATE = QItemSelectionModel.SelectionFlag.NoUpdate

_TWO_ENDS = frozenset({"way", "owner"})
"""Fields that may tell of a way from one node to another: half of it says nothing."""

_CUT_IN_THE_MIDDLE = frozenset({"name", "vm", "uri", "subject"}) | _TWO_ENDS
"""Fields whose texts are told apart by their ends too."""

_MOST_ELIDED = 20_000
"""How many cut texts are kept before the cache starts anew."""


_MEASURED = 200
"""About how many rows are looked at for the width of a column, spread over the list."""

_LONGEST = 12
"""How many of the texts with most letters are measured."""

_SHAPE_PX = 17
_BAND_PX = 9
_ARROW_PX = 16
_BAR_PX = 96

_CHEVRON_PX = 18
"""From a group's chevron to its title."""

_MOST_CLOSED = 500
"""How many closed groups are remembered."""

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
    group: str = ""  # by which field rows are grouped
    closed: list[tuple[int, str]] = []  # standing and value of groups that are closed


class RowsTable(QTableView):
    """Shows a `RowsModel`. Selection is by whole rows; hidden rows that were selected come back selected.

    Groups are lines among the rows, painted here. Qt may have them in its selection; what this tells has not.
    """

    can_group = True

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
        firm: Iterable[str] = (),
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._default_widths = dict(widths or {})
        self._firm = frozenset(firm)  # columns that are never narrower unasked: what they say must be read
        self.rows_model = model
        model.setParent(self)  # so that it outlives what the view still does while it ends
        self._look = look
        self._name = name
        self._views = views
        self.to_keep: Callable[[SavedTable], SavedTable] = lambda layout: layout
        """What of a layout is kept for the next time; a saved view has its own."""
        self._default_shown = tuple(shown) if shown is not None else None
        self._hover = -1
        self._selected: set[str] = set()  # ids, shown ones
        self._hidden: set[str] = set()  # ids selected before a filter hid them
        self._ranges: list[tuple[int, int]] = []
        self._keeps_hidden = False  # what is being selected is added to the rest
        self._on_group = False  # the button was pressed on a group
        self._bold = font(bold=True)
        self._carry: tuple[set[str], str | GroupKey | None, str | GroupKey | None, int] | None = None
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
        columns = self._header = SortHeader(look, self)
        self.setHorizontalHeader(columns)
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
            lambda at: self.column_menu(columns.logicalIndexAt(at)).popup(columns.mapToGlobal(at))
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
        model.needs_changed.connect(self.tell_samples)
        self.selectionModel().currentChanged.connect(self._current_changed)

    # --- what is selected ----------------------------------------------------------------------

    @property
    def selected_ids(self) -> list[str]:
        """The selected objects that are shown, in the order of the list."""
        return [row.key for row in self.selected_rows]

    @property
    def selected_rows(self) -> list[Row]:
        """The selected rows that are shown, in the order of the list."""
        lines = self.rows_model.lines
        chosen = [line for first, last in self._ranges for line in lines[first : last + 1]]
        return [line for line in chosen if isinstance(line, Row)]

    @property
    def selected_count(self) -> int:
        """How many are selected."""
        groups = self.rows_model.group_places
        return sum(
            last - first + 1 - (bisect_right(groups, last) - bisect_left(groups, first))
            for first, last in self._ranges
        )

    @property
    def selected_text(self) -> str:
        """How many are selected, and their totals: ``37 VMs selected, 118 GiB, 96 vCPUs, 34 % CPU``."""
        rows, model = self.selected_rows, self.rows_model
        if not rows:
            return ""
        shown = frozenset(self._shown_fields())
        return model.told(len(rows), model.figures(rows, model.summed(shown)), shown, " selected")

    @property
    def hidden_ids(self) -> list[str]:
        """What was selected and is hidden now, by the filter or in a closed group."""
        return sorted(key for key in self._hidden if self.rows_model.knows(key))

    @property
    def hidden_text(self) -> str:
        """Where what is selected and hidden is: ``5 more hidden by the filter, 3 in closed groups``."""
        hidden = self.hidden_ids
        closed = sum(1 for key in hidden if self.rows_model.group_of(key) is not None)
        filtered = len(hidden) - closed
        why = "hidden by the filter" if self.rows_model.is_filtered else "not in this list"
        if not closed:
            return f"{filtered:,} more {why}" if filtered else ""
        if not filtered:
            return f"{closed:,} more in closed groups"
        return f"{filtered:,} more {why}, {closed:,} in closed groups"

    @property
    def hidden_selected(self) -> int:
        """How many were selected and are hidden now, by the filter or in a closed group: left alone."""
        return len(self.hidden_ids)

    @property
    def current_id(self) -> str | None:
        """The object of the current row."""
        line = self.rows_model.line(self.currentIndex().row())
        return line.key if isinstance(line, Row) else None

    @property
    def current_group(self) -> Group | None:
        """The group whose line is the current one."""
        line = self.rows_model.line(self.currentIndex().row())
        return line if isinstance(line, Group) else None

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
        if self.currentIndex().isValid():
            return
        if rows:
            self.select_ids([rows[0].key], current=rows[0].key)
        elif self.rows_model.lines:  # groups, all of them closed
            self._go_to(0)

    def invert_selection(self) -> None:
        """Select what is shown and not selected."""
        chosen = set(self.selected_ids)
        self.select_ids(row.key for row in self.rows_model.rows if row.key not in chosen)

    def select_group(self, group: Group, *, add: bool = False) -> None:
        """Select a group's rows; `add`: and keep the others, or give these back if they all are selected.

        A closed group is opened: what is selected is to be seen.
        """
        if not group.is_open:
            self.set_open([group], True)
        chosen = set(self.selected_ids) if add else set()
        mine = {row.key for row in group.rows}
        self._keeps_hidden = add
        self._select(chosen - mine if mine <= chosen else chosen | mine)
        self._keeps_hidden = False

    def selectAll(self) -> None:
        """Exactly what is shown."""
        self._keeps_hidden = False
        super().selectAll()

    def selectionCommand(
        self, index: QModelIndex | QPersistentModelIndex, event: QEvent | None = None
    ) -> QItemSelectionModel.SelectionFlag:
        """As Qt has it; what is hidden stays selected while others are added."""
        command = super().selectionCommand(index, event)
        self._keeps_hidden = not command & QItemSelectionModel.SelectionFlag.Clear
        return command

    def selectionChanged(self, selected: QItemSelection, deselected: QItemSelection) -> None:
        """Keep the selected rows as ranges; tell once per change."""
        super().selectionChanged(selected, deselected)
        if self._carry is not None:
            return
        self._note_ranges()
        if not self._restoring and not self._keeps_hidden:
            self._hidden = set()
        self._keeps_hidden = False
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
        model = self.rows_model
        ids = set(self.selected_ids)
        top = self.rowAt(0)
        anchor, current = model.line(top), model.line(self.currentIndex().row())
        offset = self.rowViewportPosition(top) if anchor else 0
        self._carry = (ids, current.key if current else None, anchor.key if anchor else None, offset)

    def _place_now(self, key: str | GroupKey | None) -> int:
        """Where a line is now; of a row in a closed group, that group's; -1: nowhere."""
        if key is None:
            return -1
        place = self.rows_model.line_place(key)
        if place < 0 and isinstance(key, str) and (group := self.rows_model.group_of(key)) is not None:
            return group.pos
        return place

    def _after_swap(self) -> None:
        assert self._carry is not None
        ids, current, anchor, offset = self._carry
        model = self.rows_model
        before = ids | self._hidden
        if before:
            self._select(before)
        if (place := self._place_now(current)) >= 0:
            self.selectionModel().setCurrentIndex(model.index(place, self._first_column()), _NO_UPDATE)
        if (place := self._place_now(anchor)) >= 0:
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
        rows = self.rows_model.lines
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
            line = rows[at]
            if isinstance(line, Group):
                self._paint_group(ink, line, QRect(0, y, full, height), at == current, at == self._hover)
                continue
            selected = self._is_selected(at)
            if selected:
                painter.fillRect(0, y, full, height, t.selection)
            elif at == self._hover:
                painter.fillRect(0, y, full, height, t.hover)
            if at == current:
                painter.fillRect(0, y, 2, height, t.accent)
            self._paint_row(ink, line, columns, y, selected)

    def _paint_group(self, ink: Ink, group: Group, area: QRect, current: bool, hover: bool) -> None:
        """A chevron, what the group is called, and its totals; over all columns, wherever one scrolled to."""
        painter, t = ink.painter, self._look.tokens
        painter.fillRect(area, t.hover if hover else t.window)
        painter.fillRect(area.left(), area.bottom(), area.width(), 1, t.line)
        if current:
            painter.fillRect(area.left(), area.top(), 2, area.height(), t.accent)
        x, y = area.left() + PAD + 1.0, area.center().y() + 0.5
        shape = ((0, -2), (8, -2), (4, 2.5)) if group.is_open else ((2, -4), (6.5, 0), (2, 4))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(t.dim)
        painter.drawPolygon(QPolygonF([QPointF(x + dx, y + dy) for dx, dy in shape]))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        usual = painter.font()
        metrics = QFontMetrics(self._bold)
        place = area.adjusted(PAD + _CHEVRON_PX, 0, -PAD, 0)
        title = metrics.elidedText(group.title, Qt.TextElideMode.ElideMiddle, max(0, place.width() * 2 // 3))
        painter.setFont(self._bold)
        painter.setPen(t.text)
        painter.drawText(place, _LEFT, title)
        painter.setFont(usual)
        painter.setPen(t.dim)
        place = place.adjusted(metrics.horizontalAdvance(title) + PAD, 0, 0, 0)
        told = ink.metrics.elidedText(
            f"({self.group_told(group)})", Qt.TextElideMode.ElideRight, place.width()
        )
        painter.drawText(place, _LEFT, told)

    def group_told(self, group: Group) -> str:
        """A group's count and totals, of what is sampled only where its column is shown."""
        model = self.rows_model
        return model.told(len(group.rows), model.group_figures(group), self._shown_fields())

    def _shown_fields(self) -> list[str]:
        return [self.rows_model.fields[column].name for column in self.shown_columns()]

    def _paint_row(
        self, ink: Ink, row: Row, columns: list[tuple[int, int, int]], y: int, selected: bool
    ) -> None:
        """The cells of one row; `columns`: which, from where, how wide."""
        for column, x, width in columns:
            cell = QRect(x, y, width, self.row_height)
            self._paint_cell(ink, row, column, cell, selected)

    def _paint_cell(self, ink: Ink, row: Row, column: int, cell: QRect, selected: bool) -> None:
        painter, _, ratio = ink
        model = self.rows_model
        spec = model.fields[column]
        text = model.text(row, column)
        t = self._look.tokens
        if (model.kind, spec.name) in tones.BARS:
            value = spec.value(row.view, row.item)
            if isinstance(value, int | float):
                self._paint_bar(painter, row, cell, text, value / 100, spec.name)
                return
        left = cell.left() + PAD
        room = cell.width() - 2 * PAD
        shape = tones.shape(model.kind, spec.name, row.item)
        if shape is not None:
            pixmap = state_pixmap(shape[0], t.colour(shape[1]), ratio)
            painter.drawPixmap(left, cell.top() + (cell.height() - 10) // 2, pixmap)
            left += _SHAPE_PX
            room -= _SHAPE_PX
        if spec is CLUSTER:
            band = QRect(left, cell.top() + 5, 3, cell.height() - 10)
            painter.fillRect(band, QColor(row.view.config.colour))
            left += _BAND_PX
            room -= _BAND_PX
        if not text or room <= 4:
            return
        self._pen_for(painter, row, column, text, selected)
        self._paint_text(ink, text, column, QRect(left, cell.top(), room, cell.height()))

    def _paint_text(self, ink: Ink, text: str, column: int, area: QRect) -> None:
        """A cell's text, cut to its room, with what was searched for marked in it."""
        model = self.rows_model
        right = model.right_aligned[column]
        shown = self._fit(ink.metrics, text, area.width(), model.fields[column].name in _CUT_IN_THE_MIDDLE)
        marks = model.marks(shown, column)
        if shown != text and len(marks) < len(model.marks(text, column)):
            cut = shown.rfind("…")  # what was found is, at least in part, in what is cut off
            marks.append((cut, cut + 1))
        if marks:
            wide = ink.metrics.horizontalAdvance
            left = area.right() + 1 - wide(shown) if right else area.left()
            for first, end in marks:
                x, past = left + wide(shown[:first]), left + wide(shown[:end])
                ink.painter.fillRect(x, area.top() + 3, past - x, area.height() - 6, self._look.tokens.mark)
        ink.painter.drawText(area, _RIGHT if right else _LEFT, shown)

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

    def _paint_bar(
        self, painter: QPainter, row: Row, cell: QRect, text: str, share: float, field: str
    ) -> None:
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
            for mark in tones.MARKS.get((model.kind, field), ()):
                painter.fillRect(bar.left() + round(width * mark), bar.top() - 2, 1, bar.height() + 4, t.dim)
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
        row = self.rows_model.lines[at]
        if isinstance(row, Group):
            return f"{row.title}\n{self.group_told(row)}"
        spec = self.rows_model.fields[column]
        if spec.kind is FieldKind.TIME:
            value = spec.value(row.view, row.item)
            if isinstance(value, float | int):
                age = units.duration_text(row.view.now_s - value)
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

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select as usual; on a group open or close it, with Ctrl select its rows."""
        at = self.rowAt(event.position().toPoint().y())
        group = self.rows_model.line(at)
        held = event.modifiers()
        self._on_group = isinstance(group, Group) and not held & Qt.KeyboardModifier.ShiftModifier
        if not isinstance(group, Group) or not self._on_group:
            super().mousePressEvent(event)
            return
        self.setFocus(Qt.FocusReason.MouseFocusReason)
        self._go_to(at)
        if event.button() != Qt.MouseButton.LeftButton:
            return
        if held & Qt.KeyboardModifier.ControlModifier:
            self.select_group(group, add=True)
        else:
            self.set_open([group], not group.is_open)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Select as usual; a press on a group begins no drag."""
        if not (self._on_group and event.buttons()):
            super().mouseMoveEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """As usual, unless it was pressed on a group."""
        if self._on_group:
            self._on_group = False
        else:
            super().mouseReleaseEvent(event)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Details; never a start. On a group nothing more than the first click did."""
        line = self.rows_model.line(self.indexAt(event.position().toPoint()).row())
        if isinstance(line, Row) and event.button() == Qt.MouseButton.LeftButton:
            self.opened.emit(line.key)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """The actions, at the pointer or at the current row; of a group, what can be done with it."""
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            at = self.viewport().mapToGlobal(self.visualRect(self.currentIndex()).bottomLeft())
            group = self.current_group
        else:
            at = event.globalPos()
            line = self.rows_model.line(self.rowAt(event.pos().y()))
            group = line if isinstance(line, Group) else None
        if group is not None:
            self.group_menu(group).popup(at)
        else:
            self.menu_wanted.emit(at)

    def group_menu(self, group: Group) -> QMenu:
        """What can be done with a group and all of them."""
        model = self.rows_model
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        key = group.key

        def now() -> list[Group]:
            return [each for each in model.groups if each.key == key]  # it may be gone by then

        def choose(add: bool) -> None:
            for each in now():
                self.select_group(each, add=add)

        count = model.told(len(group.rows), ())
        menu.addAction(f"Select these {count}", partial(choose, False))
        menu.addAction(f"Add these {count} to the selection", partial(choose, True))
        menu.addSeparator()
        word = "Close" if group.is_open else "Open"
        menu.addAction(word, lambda: self.set_open(now(), word == "Open"))
        menu.addAction("Close all groups", lambda: self.set_all_open(False)).setShortcut("Ctrl+Left")
        menu.addAction("Open all groups", lambda: self.set_all_open(True)).setShortcut("Ctrl+Right")
        menu.addSeparator()
        menu.addAction("No groups", lambda: self.group_by(""))
        return menu

    def _go_to(self, place: int) -> None:
        """Make a line the current one; what is selected stays."""
        index = self.rows_model.index(place, self._first_column())
        self.selectionModel().setCurrentIndex(index, _NO_UPDATE)
        self.scrollTo(index)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter opens details; Delete does nothing here; Left and Right close and open groups."""
        key = event.key()
        plain = event.modifiers() in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier)
        if self.rows_model.group_field and self._group_key(key, event.modifiers(), plain):
            return
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and plain:
            if self.current_id is not None:
                self.opened.emit(self.current_id)
        elif key == Qt.Key.Key_Delete or (key == Qt.Key.Key_Slash and plain):
            event.ignore()  # the window's search box takes the slash; nothing takes Delete in a list
        else:
            super().keyPressEvent(event)

    def _group_key(self, key: int, held: Qt.KeyboardModifier, plain: bool) -> bool:
        """What a key does in a list with groups; False: nothing of its own."""
        model, group = self.rows_model, self.current_group
        control = held & ~Qt.KeyboardModifier.KeypadModifier == Qt.KeyboardModifier.ControlModifier
        if key in (Qt.Key.Key_Left, Qt.Key.Key_Right) and control:
            self.set_all_open(key == Qt.Key.Key_Right)
        elif group is None:
            home = model.group_of(self.current_id) if self.current_id is not None else None
            if key == Qt.Key.Key_Left and plain and home is not None:
                self._go_to(home.pos)
            else:
                return key in (Qt.Key.Key_Left, Qt.Key.Key_Right) and plain
        elif key == Qt.Key.Key_Space and control:
            self.select_group(group, add=True)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space) and plain:
            self.set_open([group], not group.is_open)
        elif key == Qt.Key.Key_Left and plain:
            self.set_open([group], False)
        elif key == Qt.Key.Key_Right and plain:
            if group.is_open:
                self.select_ids([group.rows[0].key], current=group.rows[0].key)
            else:
                self.set_open([group], True)
        else:
            return False
        return True

    def keyboardSearch(self, search: str) -> None:
        """Typing goes to the next row whose name begins so; found in the list itself, not through data()."""
        if not search.strip() and not self._typed:
            return
        self._typed += search.lower()
        self._type_timer.start()
        model = self.rows_model
        lines = model.lines
        column = next((c for c, s in enumerate(model.fields) if s.name in ("name", "vm", "subject")), 0)
        start = max(0, self.currentIndex().row()) + (len(self._typed) == 1)
        for step in range(len(lines)):
            line = lines[(start + step) % len(lines)]
            if isinstance(line, Row) and model.text(line, column).lower().startswith(self._typed):
                self.select_ids([line.key], current=line.key)
                return

    def _forget_typed(self) -> None:
        self._typed = ""

    # --- sort ------------------------------------------------------------------------------------

    def _sort_clicked(self, column: int) -> None:
        """Sort by it, again to turn it round; with Shift after the others, a third time to leave it out."""
        name = self.rows_model.fields[column].name
        order = list(self.rows_model.order)
        down = dict(order).get(name)
        if not self._header.adds:
            again = bool(order) and order[0][0] == name
            self.rows_model.sort_by(name, again and not order[0][1])
        elif down:
            self.rows_model.set_order(pair for pair in order if pair[0] != name)
        elif down is not None or len(order) < SORT_KEYS:
            self.rows_model.sort_by(name, down is not None, add=True)
        self._header.adds = False
        self._show_order()
        if self._fitted:
            self.fit_columns()
        self._layout_touched()

    def _show_order(self) -> None:
        columns = self.rows_model.columns
        self._header.show_order([(columns[name], down) for name, down in self.rows_model.order])

    # --- groups ----------------------------------------------------------------------------------

    def group_by(self, field: str) -> None:
        """Put a line over the rows of each value of a field; an empty name: no groups."""
        self.rows_model.group_by(field if self.can_group else "")
        self._layout_touched()

    def set_open(self, groups: Iterable[Group], is_open: bool) -> None:
        """Open or close groups."""
        self.rows_model.set_open(groups, is_open)
        self._layout_touched()

    def set_all_open(self, is_open: bool) -> None:
        """Open or close all groups."""
        self.set_open(self.rows_model.groups, is_open)

    # --- columns ---------------------------------------------------------------------------------

    def column_menu(self, column: int = -1) -> QMenu:
        """The column chooser, and the groups; `column`: the one that was pointed at."""
        model = self.rows_model
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setToolTipsVisible(True)
        if self.can_group and column >= 0:
            spec = model.fields[column]
            menu.addAction(f"Group by {spec.title}", lambda: self.group_by(spec.name))
        if self.can_group:
            self.fill_groups(menu.addMenu("Group by"))
        menu.addAction("Arrange columns…", self.arrange_columns)
        menu.addSeparator()
        for place, spec in enumerate(model.fields):
            action = QAction(spec.title, menu)
            action.setCheckable(True)
            action.setChecked(not self.isColumnHidden(place))
            action.setToolTip(spec.doc)
            action.setEnabled(place != 0)  # the name stays: a row without one says nothing
            action.toggled.connect(_bound(self.show_column, place))
            menu.addAction(action)
        menu.addSeparator()
        menu.addAction("Columns as at first", self.reset_layout)
        return menu

    def fill_groups(self, menu: QMenu) -> None:
        """Put every field in a menu by which rows can be grouped."""
        chosen = self.rows_model.group_field
        for name, title in (("", "No groups"), *((s.name, s.title) for s in self.rows_model.fields)):
            action = menu.addAction(title, partial(self.group_by, name))
            action.setCheckable(True)
            action.setChecked(name == chosen)
            if not name:
                menu.addSeparator()

    def arrange_columns(self) -> None:
        """Which columns are shown and in what order, by keyboard too."""
        dialog = ColumnsDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def move_column(self, column: int, place: int) -> None:
        """Give a column another place, counted from the left over hidden ones too."""
        header = self.horizontalHeader()
        header.moveSection(header.visualIndex(column), place)
        if self._fitted:
            self.fit_columns()

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
        """Say whether what is shown needs load samples."""
        self.samples_wanted.emit(self.needs_samples)

    @property
    def needs_samples(self) -> bool:
        """Whether a shown column, the filter, the sort or the groups need load samples."""
        return self.rows_model.needs_samples or any(
            self.rows_model.fields[column].sample for column in self.shown_columns()
        )

    def reset_layout(self) -> None:
        """Columns, widths, sort and groups as they are for a new user."""
        self.apply_layout(SavedTable())

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
        self._views.write(self._name, msgspec.json.encode(self.to_keep(self.layout_now())))
        self.layout_changed.emit()

    def layout_now(self) -> SavedTable:
        """Columns with order and width, sort and groups as they are now."""
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
        closed = sorted(self.rows_model.closed_groups)[:_MOST_CLOSED]
        return SavedTable(
            columns,
            list(self.rows_model.order),
            self._fitted,
            self.rows_model.group_field,
            [(key.standing, key.value) for key in closed],
        )

    def apply_layout(self, saved: SavedTable) -> None:
        """Take over columns, sort and groups, and keep them."""
        self._apply(saved)
        self._layout_touched()
        self.tell_samples()

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
        if not order:
            order = [model.columns[name] for name in wanted or () if name in model.columns]
            order += [column for column in range(len(model.fields)) if column not in order]
        for place, column in enumerate(order):
            header.moveSection(header.visualIndex(column), place)
        self.setColumnWidth(self.shown_columns()[-1], 120)  # it stretches over what is left
        model.set_order(saved.sort)
        closed = [
            GroupKey(standing, value) for standing, value in saved.closed if KNOWN <= standing <= UNKNOWN
        ]
        model.group_by(saved.group if self.can_group else "", closed)
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
        if spec.name in self._firm:
            return Need(max(title, usual), max(title, usual), max(title, usual))
        texts = sorted({model.text(row, column) for row in rows}, key=len)[-_LONGEST:]
        shape = any(tones.shape(model.kind, spec.name, row.item) is not None for row in rows)
        widest = max(self.fontMetrics().horizontalAdvance(text) for text in texts)
        before = _SHAPE_PX if shape else _BAND_PX if spec is CLUSTER else 0
        now = min(widest + 2 * PAD + 1 + before, _WIDEST_PX)
        if column == self._first_column():
            return Need(max(title, min(now, _NAME_PX)), max(title, now), max(title, now))
        # Figures come and go, and a status changes: what is shown now is not all that there will be.
        if spec is CLUSTER:
            least = min(now, _NAME_PX)
        elif model.right_aligned[column] and now <= title:
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
        arrow = _ARROW_PX if any(field == model.fields[column].name for field, _ in model.order) else 0
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

    def copy_cells(self, form: str = "text") -> None:
        """The selected rows to the clipboard: as ``text``, with ``titles``, as ``csv`` or ``json``."""
        QGuiApplication.clipboard().setText(self.cells_text(form))

    def cells_text(self, form: str = "text") -> str:
        """The selected rows as shown; without their groups, which one who copies rows did not choose."""
        model, rows, columns = self.rows_model, self.selected_rows, self.shown_columns()
        if form == "csv":
            return export.as_csv(model, rows, columns, grouped=False)
        if form == "json":
            return export.as_json(model, rows, columns)
        return export.as_text(model, rows, columns, titles=form == "titles")

    def as_csv(self) -> str:
        """Exactly what is shown, with the titles, as CSV."""
        model = self.rows_model
        return export.as_csv(model, model.lines, self.shown_columns(), grouped=bool(model.group_field))

    def as_json(self) -> str:
        """Exactly what is shown as JSON, with the field names and values of the command line."""
        return export.as_json(self.rows_model, self.rows_model.lines, self.shown_columns())


def _bound(call: Callable[[int, bool], None], column: int) -> Callable[[bool], None]:
    return lambda shown: call(column, shown)

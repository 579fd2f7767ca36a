"""The one table model: any kind of object over its `FieldSpec`s, sorted and filtered by itself.

Design "e" of the performance study: plain lists of slotted rows, cached texts and sort keys, one model reset
per re-order. A proxy model over Python rows is 25 to 100 times slower at 8,000 rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
    QTimer,
    Signal,
)

from manager.core.changes import ChangeSet, KindChanges
from manager.core.cluster import ClusterView
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS
from manager.core.query.spec import FieldKind, FieldSpec
from manager.ui.models.tones import WORDS

# Kept as plain ints: looking a role up in its enum costs more than the rest of data().
DISPLAY = int(Qt.ItemDataRole.DisplayRole)
TOOL_TIP = int(Qt.ItemDataRole.ToolTipRole)
ALIGNMENT = int(Qt.ItemDataRole.TextAlignmentRole)
ACCESSIBLE = int(Qt.ItemDataRole.AccessibleTextRole)
KEY = int(Qt.ItemDataRole.UserRole)
HORIZONTAL = Qt.Orientation.Horizontal

_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

REORDER_S = 1.0
"""At most one re-order for changed values in this time; new and lost rows show at once."""

EXPECTED_S = 3.0
"""How long an order made by hand may take to be told."""

SORT_KEYS = 3
"""How many columns a sort remembers."""

_SLICE_S = 0.004
"""How long one turn of preparing search texts in the background may take."""

Index = QModelIndex | QPersistentModelIndex
Scope = Callable[[Any], bool]
OwnOrder = Callable[[ClusterView, Any], Any]


class Row:
    """One object: its id, its place in the list, and what was computed of it."""

    __slots__ = ("cells", "hay", "item", "key", "keys", "pos")

    def __init__(self, key: str, item: Any) -> None:
        self.key = key
        self.item = item
        self.pos = -1  # -1: not shown
        self.cells: dict[int, str] = {}  # texts by column
        self.keys: dict[str, Any] = {}  # sort keys by field name
        self.hay: str | None = None  # lower-case texts of the searchable fields


def objects(view: ClusterView, kind: Kind) -> Mapping[Any, Any]:
    """All objects of a kind by id."""
    if kind is Kind.VM:
        return view.vms
    if kind is Kind.NODE:
        return view.nodes
    return view.operations if kind is Kind.OPERATION else view.problems


def plain(text: str) -> str:
    """A host's text made fit for one line: no control characters, no line breaks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


class RowsModel(QAbstractTableModel):
    """Rows of one kind of one cluster. Give it change sets with `take`; it tells views by ranges.

    Views carry the selection, the current row and the scroll position over a re-order by id: they listen to
    `before_swap` and `after_swap`, which enclose every reset.
    """

    before_swap = Signal()
    after_swap = Signal()
    counts_changed = Signal()
    held_changed = Signal(bool)

    def __init__(
        self,
        kind: Kind,
        view: ClusterView,
        *,
        own_order: OwnOrder | None = None,
        scope: Scope | None = None,
        extra: Mapping[str, Any] | None = None,
        parent: QObject | None = None,
    ) -> None:
        """`extra`: rows that are no objects of the core's, live; changes of theirs come in through `take`."""
        super().__init__(parent)
        self.kind = kind
        self.view = view
        self._extra: Mapping[str, Any] = {} if extra is None else extra
        self.fields: tuple[FieldSpec, ...] = tuple(FIELDS[kind].values())
        self.columns = {spec.name: column for column, spec in enumerate(self.fields)}
        self.right_aligned = tuple(
            spec.kind.is_number and (kind, spec.name) not in WORDS for spec in self.fields
        )
        self._volatile = frozenset(c for c, spec in enumerate(self.fields) if spec.volatile)
        self._own_order = own_order
        self._scope = scope
        self._rows: dict[str, Row] = {}
        self._all: list[Row] = []  # sorted
        self._vis: list[Row] = []  # of those, the shown ones
        self._order: list[tuple[str, bool]] = []  # (field, descending), the first counts most
        self._text = ""
        self._words: tuple[str, ...] = ()
        self._active = True
        self._pending: ChangeSet | None = None
        self._held = False
        self._order_stale = False
        self._membership_stale = False
        self._last_reorder = 0.0
        self._expected_until = 0.0
        self._reorder_timer = QTimer(self)
        self._reorder_timer.setSingleShot(True)
        self._reorder_timer.timeout.connect(self._reorder_due)
        self._warm_timer = QTimer(self)
        self._warm_timer.setSingleShot(True)
        self._warm_timer.timeout.connect(self._warm)
        self._touched: dict[frozenset[str], tuple[tuple[int, ...], tuple[str, ...], bool]] = {}
        self.viewport: Callable[[], tuple[int, int]] | None = None  # first and last row on screen
        self.load()

    # --- reading ---------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """How many objects there are in this list's scope, searched for or not."""
        if self._scope is None:
            return len(self._all)
        scope = self._scope
        return sum(1 for row in self._all if scope(row.item))

    @property
    def rows(self) -> Sequence[Row]:
        """What is shown, in order."""
        return self._vis

    @property
    def order(self) -> tuple[tuple[str, bool], ...]:
        """The sort: (field, descending), the one that counts most first."""
        return tuple(self._order)

    @property
    def search_text(self) -> str:
        """What the search box said."""
        return self._text

    @property
    def is_held(self) -> bool:
        """Whether re-ordering waits, and something waits for it."""
        return self._held and (self._order_stale or self._membership_stale)

    def position(self, key: str) -> int:
        """A row's place, -1 if it is not shown."""
        row = self._rows.get(key)
        return row.pos if row is not None else -1

    def knows(self, key: str) -> bool:
        """Whether there is such an object, shown or not."""
        return key in self._rows

    def text(self, row: Row, column: int) -> str:
        """A cell's text."""
        if column in self._volatile:
            return plain(self.fields[column].cell(self.view, row.item))
        found = row.cells.get(column)
        if found is None:
            found = row.cells[column] = plain(self.fields[column].cell(self.view, row.item))
        return found

    # --- Qt's reading ------------------------------------------------------------------------

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Number of shown rows."""
        return 0 if parent.isValid() else len(self._vis)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Number of fields; the view hides those that are not chosen."""
        return 0 if parent.isValid() else len(self.fields)

    def index(self, row: int, column: int, parent: Index = QModelIndex()) -> QModelIndex:  # noqa: B008
        """The index of a cell; overridden to save two calls per cell."""
        if 0 <= row < len(self._vis) and 0 <= column < len(self.fields) and not parent.isValid():
            return self.createIndex(row, column)
        return QModelIndex()

    def data(self, index: Index, role: int = DISPLAY) -> Any:
        """Text, tooltip, alignment, accessible text and the object's id."""
        at = index.row()
        if not 0 <= at < len(self._vis):
            return None
        column = index.column()
        if role in (DISPLAY, TOOL_TIP):
            return self.text(self._vis[at], column)
        if role == ALIGNMENT:
            return _RIGHT if self.right_aligned[column] else _LEFT
        if role == ACCESSIBLE:
            return f"{self.fields[column].title}: {self.text(self._vis[at], column)}"
        if role == KEY:
            return self._vis[at].key
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = DISPLAY) -> Any:
        """Titles with their unit, and what each field means."""
        if orientation != HORIZONTAL or not 0 <= section < len(self.fields):
            return None
        spec = self.fields[section]
        if role == DISPLAY:
            return f"{spec.title} {spec.unit}" if spec.unit else spec.title
        if role == TOOL_TIP:
            return spec.doc
        if role == ALIGNMENT:
            return _RIGHT if self.right_aligned[section] else _LEFT
        return None

    # --- what is asked of it -----------------------------------------------------------------

    def load(self) -> None:
        """Take over everything anew."""
        found = {**objects(self.view, self.kind), **self._extra}
        self._rows = {str(key): Row(str(key), item) for key, item in found.items()}
        self._all = list(self._rows.values())
        self._pending = None
        self._arrange(sort=True)

    def set_scope(self, scope: Scope | None) -> None:
        """Which objects belong to this list at all; None: every one."""
        self._scope = scope
        self._arrange()

    def set_search(self, text: str) -> None:
        """Show the rows in which every word of the text occurs."""
        words = tuple(text.lower().split())
        narrower = bool(self._words) and text.startswith(self._text) and not self._membership_stale
        self._text = text
        if words == self._words:
            return
        self._words = words
        self._swap(self._matching(self._vis if narrower else self._all))

    def sort_by(self, field: str, descending: bool) -> None:
        """Sort by a field; what was sorted by before decides between equals."""
        kept = [pair for pair in self._order if pair[0] != field]
        self.set_order([(field, descending), *kept][:SORT_KEYS])

    def set_order(self, order: Iterable[tuple[str, bool]]) -> None:
        """Sort by these fields; nothing: the list's own order."""
        self._order = [pair for pair in order if pair[0] in self.columns]
        self._arrange(sort=True)

    def hold(self, held: bool) -> None:
        """Keep the order as it is while someone points at the list; catch up when they stop."""
        if held == self._held:
            return
        self._held = held
        if not held and (self._order_stale or self._membership_stale):
            self._arrange(sort=self._order_stale)
        self.held_changed.emit(self.is_held)

    def expect_order(self) -> None:
        """Rows were moved by hand: their new places show as soon as they are told, though someone points."""
        self._expected_until = time.monotonic() + EXPECTED_S

    def set_active(self, active: bool) -> None:
        """A list nobody sees does no work: it catches up when it is shown."""
        if active == self._active:
            return
        self._active = active
        if active and self._pending is not None:
            pending, self._pending = self._pending, None
            self.take(pending)

    def refresh_ages(self) -> None:
        """Spans grow by themselves: compute those on screen again."""
        ages = [c for c, spec in enumerate(self.fields) if spec.kind is FieldKind.SECONDS]
        first, last = self._on_screen()
        if ages and self._active and first <= last:
            for row in self._vis[first : last + 1]:
                for column in ages:
                    row.cells.pop(column, None)
            self._tell(first, last)

    def take(self, changes: ChangeSet) -> None:
        """Take in what changed."""
        mine = changes[self.kind]
        if not mine:
            return
        if not self._active:
            if self._pending is None:
                self._pending = ChangeSet()
            self._pending |= changes
            return
        gone, new = self._add_and_remove(mine)
        hit = self._update(mine)
        if gone:
            self._all = [row for row in self._all if row.item is not None]
        if gone or new:
            if self._held:
                # Nothing moves under the pointer: lost rows go, new ones wait at the end.
                self._order_stale = self._order_stale or bool(new)
                kept = [row for row in self._vis if row.item is not None]
                self._swap(kept + self._matching(new))
                self.held_changed.emit(self.is_held)
            else:
                self._arrange(sort=bool(new) or self._order_stale)
            return
        if self._order_stale and time.monotonic() < self._expected_until:
            self._expected_until = 0.0
            self._arrange(sort=True)
            return
        if self._order_stale or self._membership_stale:
            self._reorder_soon()
        self._tell_rows(hit)

    # --- changes -----------------------------------------------------------------------------

    def _add_and_remove(self, mine: KindChanges) -> tuple[int, list[Row]]:
        gone = 0
        for key in mine.removed:
            row = self._rows.pop(key, None)
            if row is not None:
                row.item = None
                gone += 1
        new: list[Row] = []
        source = objects(self.view, self.kind)
        for key in mine.added:
            item = source.get(key) or self._extra.get(key)
            if item is not None and key not in self._rows:
                row = self._rows[key] = Row(key, item)
                self._all.append(row)
                new.append(row)
        return gone, new

    def _update(self, mine: KindChanges) -> list[Row]:
        source = objects(self.view, self.kind)
        filtering = self._scope is not None or bool(self._words)
        ordering = {name for name, _ in self._order} or {self.fields[0].name}
        hit: list[Row] = []
        for key, names in mine.updated.items():
            row = self._rows.get(key)
            item = source.get(key) or self._extra.get(key)
            if row is None or item is None:
                continue
            row.item = item
            columns, fields, searchable = self._affected(names)
            for column in columns:
                row.cells.pop(column, None)
            for field in fields:
                row.keys.pop(field, None)
                if field in ordering:
                    self._order_stale = True
            if self._own_order is not None and not self._order:
                self._order_stale = True
            if searchable:
                row.hay = None
            if filtering and not self._membership_stale:
                self._membership_stale = self._matches(row) != (row.pos >= 0)
            if row.pos >= 0:
                hit.append(row)
        return hit

    def _affected(self, names: frozenset[str]) -> tuple[tuple[int, ...], tuple[str, ...], bool]:
        """Columns, fields, and whether the search text, that a change of these attributes touches."""
        found = self._touched.get(names)
        if found is None:
            everything = "*" in names
            hit = [
                (column, spec)
                for column, spec in enumerate(self.fields)
                if everything or spec.depends & names
            ]
            found = self._touched[names] = (
                tuple(column for column, _ in hit),
                tuple(spec.name for _, spec in hit),
                any(spec.searchable for _, spec in hit),
            )
        return found

    def _tell_rows(self, hit: list[Row]) -> None:
        """One `dataChanged` per run of neighbours, only for what is on screen."""
        first, last = self._on_screen()
        places = sorted(row.pos for row in hit if first <= row.pos <= last)
        start = 0
        for i in range(1, len(places) + 1):
            if i == len(places) or places[i] != places[i - 1] + 1:
                self._tell(places[start], places[i - 1])
                start = i

    def _tell(self, first: int, last: int) -> None:
        self.dataChanged.emit(self.createIndex(first, 0), self.createIndex(last, len(self.fields) - 1))

    def _on_screen(self) -> tuple[int, int]:
        end = len(self._vis) - 1
        if self.viewport is None:
            return 0, end
        first, last = self.viewport()
        return max(0, first), min(end, last)

    # --- order -------------------------------------------------------------------------------

    def _reorder_soon(self) -> None:
        if self._held:
            self.held_changed.emit(True)
        elif not self._reorder_timer.isActive():
            wait_s = self._last_reorder + REORDER_S - time.monotonic()
            self._reorder_timer.start(max(0, int(wait_s * 1000)))

    def _reorder_due(self) -> None:
        if not self._held and (self._order_stale or self._membership_stale):
            self._arrange(sort=self._order_stale)

    def _arrange(self, *, sort: bool = False) -> None:
        if sort:
            self._sort(self._all)
        self._order_stale = self._order_stale and not sort
        self._membership_stale = False
        self._last_reorder = time.monotonic()
        self._swap(self._matching(self._all))

    def _sort(self, rows: list[Row]) -> None:
        view = self.view
        if not self._order and self._own_order is not None:
            own = self._own_order
            rows.sort(key=lambda row: own(view, row.item))
            return
        order = self._order or [(self.fields[0].name, False)]
        if order[-1][0] != self.fields[0].name:
            order = [*order, (self.fields[0].name, False)]
        for name, descending in reversed(order):
            spec = self.fields[self.columns[name]]
            # Spans grow by themselves, places follow from others: a kept key would lie.
            ages = spec.kind is FieldKind.SECONDS or spec.volatile

            def key(row: Row, spec: FieldSpec = spec, ages: bool = ages) -> Any:
                found = None if ages else row.keys.get(spec.name)
                if found is None:
                    found = row.keys[spec.name] = spec.sort_key(view, row.item)
                return found

            rows.sort(key=key, reverse=descending)
            if descending:  # what is not known comes last in either direction
                unknown = 0
                while unknown < len(rows) and rows[unknown].keys[name][0] == 1:
                    unknown += 1
                rows[:] = rows[unknown:] + rows[:unknown]

    def _matching(self, rows: list[Row]) -> list[Row]:
        """Those of the rows that belong here and have all the words."""
        scope = self._scope
        if scope is not None:
            rows = [row for row in rows if scope(row.item)]
        words = self._words
        if not words:
            return list(rows)
        hay = self._hay
        # A nested `and` is several times faster than all() over the words; two cover what people type.
        if len(words) == 1:
            (a,) = words
            return [row for row in rows if a in (row.hay or hay(row))]
        a, b, *more = words
        found = [row for row in rows if a in (row.hay or hay(row)) and b in (row.hay or hay(row))]
        for word in more:
            found = [row for row in found if word in (row.hay or hay(row))]
        return found

    def _matches(self, row: Row) -> bool:
        if self._scope is not None and not self._scope(row.item):
            return False
        return all(word in (row.hay or self._hay(row)) for word in self._words)

    def _hay(self, row: Row) -> str:
        texts = [self.text(row, column) for column, spec in enumerate(self.fields) if spec.searchable]
        row.hay = "\n".join(texts).lower() or "\n"
        return row.hay

    def _warm(self) -> None:
        """Prepare search texts while nobody waits, so that the first key typed finds them ready."""
        end = time.monotonic() + _SLICE_S
        for count, row in enumerate(self._all):
            if row.hay is None:
                self._hay(row)
                if count % 16 == 0 and time.monotonic() > end:
                    self._warm_timer.start(20)
                    return

    def _swap(self, shown: list[Row]) -> None:
        """Show these rows instead: one reset; views carry selection and scroll over it by id."""
        if not self._warm_timer.isActive():
            self._warm_timer.start(300)
        if shown == self._vis:
            first, last = self._on_screen()
            if first <= last:
                self._tell(first, last)
            self.counts_changed.emit()
            return
        self.before_swap.emit()
        self.beginResetModel()
        for row in self._vis:
            row.pos = -1
        for place, row in enumerate(shown):
            row.pos = place
        self._vis = shown
        self.endResetModel()
        self.after_swap.emit()
        self.counts_changed.emit()

"""The one table model: any kind of object over its `FieldSpec`s, sorted and filtered by itself.

Design "e" of the performance study: plain lists of slotted rows, cached texts and sort keys, one model reset
per re-order. A proxy model over Python rows is 25 to 100 times slower at 8,000 rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from manager.core.query.filter import Matcher
from manager.core.query.grouping import TOTALS, Figures, GroupKey, figures_of, told
from manager.core.query.spec import FieldKind, FieldSpec
from manager.ui.models.groups import Group, Grouping, Line
from manager.ui.models.groups import Row as Row
from manager.ui.models.groups import plain as plain
from manager.ui.models.sources import AllClusters, OneCluster, Source
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
"""How long an order made by hand may take to be told by the owner of the queue; other news may come first."""

SORT_KEYS = 4
"""By how many columns a list is sorted at once."""

RETEST_S = 5.0
"""How often rows are tested again where the filter's answer changes with the clock."""

TOTALS_S = 1.0
"""At most so often the totals of changed rows are made anew."""

_QUIET_MS = 1000
"""How long no search text changes before those that did are prepared again."""

_SLICE_S = 0.004
"""How long one turn of preparing search texts in the background may take."""

Index = QModelIndex | QPersistentModelIndex
Scope = Callable[[Any], bool]
OwnOrder = Callable[[ClusterView, Any], Any]


class RowsModel(QAbstractTableModel):
    """Rows of one kind, of one cluster or of all. Give it change sets with `take`; it tells views by ranges.

    Views carry the selection, the current row and the scroll position over a re-order by id: they listen to
    `before_swap` and `after_swap`, which enclose every reset.
    """

    before_swap = Signal()
    after_swap = Signal()
    counts_changed = Signal()
    held_changed = Signal(bool)
    needs_changed = Signal()  # the filter, the sort or the groups need load samples, or no longer do
    totals_changed = Signal()  # figures of shown rows changed; at most once in `TOTALS_S`

    def __init__(
        self,
        kind: Kind,
        of: ClusterView | AllClusters,
        *,
        own_order: OwnOrder | None = None,
        scope: Scope | None = None,
        extra: Mapping[str, Any] | None = None,
        parent: QObject | None = None,
    ) -> None:
        """`extra`: rows that are no objects of the core's, live; changes of theirs come in through `take`."""
        super().__init__(parent)
        self.kind = kind
        self._source: Source = of if isinstance(of, AllClusters) else OneCluster(kind, of, extra)
        self._by_name = FIELDS[kind]
        self.fields: tuple[FieldSpec, ...] = tuple(self._by_name.values())
        self.columns = {spec.name: column for column, spec in enumerate(self.fields)}
        self.right_aligned = tuple(
            spec.kind.is_number and (kind, spec.name) not in WORDS for spec in self.fields
        )
        self._volatile = frozenset(c for c, spec in enumerate(self.fields) if spec.volatile)
        self._own_order = own_order
        self._scope = scope
        self._rows: dict[str, Row] = {}
        self._all: list[Row] = []  # sorted
        self._base: list[Row] = []  # as the list stands unsorted: what decides between equals
        self._together = False  # several wishes are told, and one arrangement follows
        self._found: list[Row] = []  # of those, the ones that belong here and pass the filter
        self._lines: Sequence[Line] = []  # what is shown: the same, or groups and the rows of open ones
        self._rows_shown: list[Row] = []  # the rows among the lines
        self._group_places: list[int] = []
        self._order: list[tuple[str, bool]] = []  # (field, descending), the first counts most
        self._grouping: Grouping | None = None
        self._text = ""
        self._filter: Matcher | None = None
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
        self._retest_timer = QTimer(self)
        self._retest_timer.setInterval(int(RETEST_S * 1000))
        self._retest_timer.timeout.connect(self._retest)
        self._totals_timer = QTimer(self)
        self._totals_timer.setSingleShot(True)
        self._totals_timer.setInterval(int(TOTALS_S * 1000))
        self._totals_timer.timeout.connect(self._tell_totals)
        self._dirty: set[Group] = set()  # groups whose totals are not true any more
        self._totalled = frozenset(total.field for total in TOTALS.get(kind, ()))
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
    def lines(self) -> Sequence[Line]:
        """What is shown, in order, by place: rows, and the groups over them."""
        return self._lines

    @property
    def rows(self) -> Sequence[Row]:
        """The shown rows, in order; by place only where there are no groups."""
        return self._rows_shown

    @property
    def found(self) -> int:
        """How many rows belong here and pass the filter, shown or in a closed group."""
        return len(self._found)

    @property
    def group_places(self) -> Sequence[int]:
        """The places of groups, ascending."""
        return self._group_places

    @property
    def groups(self) -> Sequence[Group]:
        """The groups in order; none where the list is not grouped."""
        return self._grouping.groups if self._grouping is not None else ()

    @property
    def group_field(self) -> str:
        """By which field rows are grouped; empty: by none."""
        return self._grouping.spec.name if self._grouping is not None else ""

    @property
    def closed_groups(self) -> frozenset[GroupKey]:
        """The groups that were closed, there or not."""
        return frozenset(self._grouping.closed) if self._grouping is not None else frozenset()

    @property
    def order(self) -> tuple[tuple[str, bool], ...]:
        """The sort: (field, descending), the one that counts most first."""
        return tuple(self._order)

    @property
    def search_text(self) -> str:
        """What the search box said."""
        return self._text

    @property
    def is_filtered(self) -> bool:
        """Whether there is a filter."""
        return self._filter is not None

    @property
    def needs_samples(self) -> bool:
        """Whether filter, sort or groups need load samples."""
        named = [name for name, _ in self._order]
        if self._grouping is not None:
            named.append(self._grouping.spec.name)
        return (self._filter is not None and self._filter.samples) or any(
            self.fields[self.columns[name]].sample for name in named
        )

    @property
    def is_held(self) -> bool:
        """Whether re-ordering waits, and something waits for it."""
        return self._held and (self._order_stale or self._membership_stale)

    def position(self, key: str) -> int:
        """A row's place, -1 if it is not shown."""
        row = self._rows.get(key)
        return row.pos if row is not None else -1

    def row(self, key: str) -> Row | None:
        """A row by its object's id, shown or not."""
        return self._rows.get(key)

    def line(self, at: int) -> Line | None:
        """What is at a place."""
        return self._lines[at] if 0 <= at < len(self._lines) else None

    def line_place(self, key: str | GroupKey) -> int:
        """The place of a row by its id, or of a group by its key; -1 if it is not shown."""
        if isinstance(key, str):
            return self.position(key)
        return next((group.pos for group in self.groups if group.key == key), -1)

    def group_of(self, key: str) -> Group | None:
        """The group in which a row is shown, or would be if it were open."""
        row = self._rows.get(key)
        return row.home if row is not None else None

    def figures(self, rows: Iterable[Row], wanted: Callable[[str], bool] = lambda name: True) -> Figures:
        """Totals of these rows, of the fields that are wanted."""
        chosen = list(rows)

        def known(name: str) -> Iterable[float]:
            spec = self._by_name[name]
            for row in chosen:
                key = row.keys.get(name)
                if key is None:
                    key = row.keys[name] = spec.sort_key(row.view, row.item)
                if key[0] == 0:
                    yield key[1]

        return figures_of(self.kind, known, wanted)

    def group_figures(self, group: Group) -> Figures:
        """Totals of a group by field name."""
        if group.figures is None:
            group.figures = self.figures(group.rows)
        return group.figures

    def told(self, count: int, figures: Figures, shown: Iterable[str] = (), chosen: str = "") -> str:
        """``22 VMs, 71 GiB, 34 % CPU``; see `summed`."""
        wanted = self.summed(frozenset(shown))
        return told(self.kind, count, tuple(figure for figure in figures if wanted(figure[0])), chosen)

    def summed(self, shown: Container[str]) -> Callable[[str], bool]:
        """Whether a field's total is told where these are shown: what must be sampled only if it is."""
        return lambda name: name in shown or not self._by_name[name].sample or self.needs_samples

    def knows(self, key: str) -> bool:
        """Whether there is such an object, shown or not."""
        return key in self._rows

    def text(self, row: Row, column: int) -> str:
        """A cell's text."""
        if column in self._volatile:
            return plain(self.fields[column].cell(row.view, row.item))
        found = row.cells.get(column)
        if found is None:
            found = row.cells[column] = plain(self.fields[column].cell(row.view, row.item))
        return found

    def marks(self, text: str, column: int) -> list[tuple[int, int]]:
        """Where what was searched for stands in a cell's text, or in as much of it as is shown."""
        wanted = self._filter
        if wanted is None or not wanted.has_marks or not self.fields[column].searchable:
            return []
        return wanted.marks(text)

    # --- Qt's reading ------------------------------------------------------------------------

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Number of shown rows."""
        return 0 if parent.isValid() else len(self._lines)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Number of fields; the view hides those that are not chosen."""
        return 0 if parent.isValid() else len(self.fields)

    def index(self, row: int, column: int, parent: Index = QModelIndex()) -> QModelIndex:  # noqa: B008
        """The index of a cell; overridden to save two calls per cell."""
        if 0 <= row < len(self._lines) and 0 <= column < len(self.fields) and not parent.isValid():
            return self.createIndex(row, column)
        return QModelIndex()

    def data(self, index: Index, role: int = DISPLAY) -> Any:
        """Text, tooltip, alignment, accessible text and the object's id."""
        at = index.row()
        if not 0 <= at < len(self._lines):
            return None
        column = index.column()
        line = self._lines[at]
        if isinstance(line, Group):
            return self._group_data(line, column, role)
        if role in (DISPLAY, TOOL_TIP):
            return self.text(line, column)
        if role == ALIGNMENT:
            return _RIGHT if self.right_aligned[column] else _LEFT
        if role == ACCESSIBLE:
            return f"{self.fields[column].title}: {self.text(line, column)}"
        if role == KEY:
            return line.key
        return None

    def _group_data(self, group: Group, column: int, role: int) -> Any:
        if role == DISPLAY:
            return group.title if column == 0 else ""
        if role == ALIGNMENT:
            return _LEFT
        if role == ACCESSIBLE:
            state = "open" if group.is_open else "closed"
            return f"{group.title}: {self.told(len(group.rows), self.group_figures(group))}, {state}"
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

    def read_from(self, source: AllClusters) -> None:
        """A cluster was opened or closed: its rows come or go, the others stay."""
        self._source = source
        kept = self._rows if self._pending is None else {}  # what was not taken in yet may be of any row
        self._rows = {row.key: kept.get(row.key, row) for row in source.rows()}
        self._base = list(self._rows.values())
        self._pending = None
        self._arrange(sort=True)

    def load(self) -> None:
        """Take over everything anew."""
        self._rows = {row.key: row for row in self._source.rows()}
        self._base = list(self._rows.values())
        self._pending = None
        self._arrange(sort=True)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Order, filter and groups that are asked for in here are shown by one arrangement, at the end."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self._arrange(sort=self._order_stale)

    def set_scope(self, scope: Scope | None) -> None:
        """Which objects belong to this list at all; None: every one."""
        if scope is None and self._scope is None:
            return
        self._scope = scope
        self._arrange()

    def set_filter(self, wanted: Matcher | None, text: str = "") -> None:
        """Show the rows that match; None: all. `text`: how a person wrote it."""
        before, self._filter, self._text = self._filter, wanted, text
        if before is None and wanted is None:
            return
        narrower = False
        if before is not None and wanted is not None and before.is_plain and wanted.is_plain:
            if before.words == wanted.words:
                return
            narrower = not self._membership_stale and all(
                any(old in new for new in wanted.words) for old in before.words
            )
        self._time_retest()
        self.needs_changed.emit()
        if self._together:
            return
        self._swap(self._matching(self._found if narrower else self._all))

    def group_by(self, field: str, closed: Iterable[GroupKey] = ()) -> None:
        """Put rows under a line per value of a field, some of them closed; an empty name: no groups."""
        spec = self._by_name.get(field)
        if spec is None and self._grouping is None:
            return
        if self._grouping is not None:
            for row in self._all:
                row.band = row.home = None
        self._dirty.clear()
        self._grouping = Grouping(spec, closed) if spec is not None else None
        self.needs_changed.emit()
        self._arrange()

    def set_open(self, groups: Iterable[Group], is_open: bool) -> None:
        """Open or close groups. No row changes its place among the others: someone may be pointing."""
        if self._grouping is None:
            return
        for group in tuple(groups):
            self._grouping.set_open(group, is_open)
        self._show(self._grouping.lines())

    def reveal(self, keys: Iterable[str]) -> None:
        """Open the groups of these rows."""
        closed = {group for key in keys if (group := self.group_of(key)) and not group.is_open}
        if closed:
            self.set_open(closed, True)

    def sort_by(self, field: str, descending: bool, *, add: bool = False) -> None:
        """Sort by a field; `add`: what the list was sorted by counts more, this decides between equals."""
        if not add:
            self.set_order([(field, descending)])
            return
        order = list(self._order)
        place = next((i for i, (name, _) in enumerate(order) if name == field), len(order))
        order[place : place + 1] = [(field, descending)]
        self.set_order(order[:SORT_KEYS])

    def set_order(self, order: Iterable[tuple[str, bool]]) -> None:
        """Sort by these fields; nothing: the list's own order."""
        self._order = [(name, down) for name, down in order if name in self.columns]
        self._arrange(sort=True)
        self.needs_changed.emit()

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
        self._time_retest()
        if active and self._pending is not None:
            pending, self._pending = self._pending, None
            self.take(pending)

    def refresh_ages(self) -> None:
        """Spans grow by themselves: compute those on screen again."""
        ages = [c for c, spec in enumerate(self.fields) if spec.kind is FieldKind.SECONDS]
        first, last = self._on_screen()
        if ages and self._active and first <= last:
            for line in self._lines[first : last + 1]:
                if isinstance(line, Row):
                    for column in ages:
                        line.cells.pop(column, None)
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
            self._base = [row for row in self._base if row.item is not None]
        if gone or new:
            if self._held:
                self._order_stale = self._order_stale or bool(new)
                self._swap_held(new)
                self.held_changed.emit(self.is_held)
            else:
                self._arrange(sort=bool(new) or self._order_stale)
            return
        if self._order_stale and time.monotonic() < self._expected_until:
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
        for key in mine.added:
            row = self._source.row(key) if key not in self._rows else None
            if row is not None:
                self._rows[key] = row
                self._all.append(row)
                self._base.append(row)
                new.append(row)
        return gone, new

    def _update(self, mine: KindChanges) -> list[Row]:
        filtering = self._scope is not None or self._filter is not None
        depends = self._filter.depends if self._filter is not None else frozenset()
        grouping = self._grouping
        ordering = {name for name, _ in self._order} or {self.fields[0].name}
        hit: list[Row] = []
        totals = texts = False
        for key, names in mine.updated.items():
            row = self._rows.get(key)
            item = self._source.item(row) if row is not None else None
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
                texts = True
            if filtering and not self._membership_stale:
                touched = searchable or self._scope is not None or not depends.isdisjoint(names)
                if touched or "*" in names or "*" in depends:
                    self._membership_stale = self._matches(row) != self._is_found(row)
            if grouping is not None:
                if grouping.spec.name in fields:
                    row.band = None
                    self._membership_stale = self._membership_stale or grouping.has_moved(row)
                if row.home is not None and not self._totalled.isdisjoint(fields):
                    self._dirty.add(row.home)
            if row.pos >= 0:
                hit.append(row)
                totals = totals or not self._totalled.isdisjoint(fields)
        if texts:
            self._warm_timer.start(_QUIET_MS)
        if (totals or self._dirty) and not self._totals_timer.isActive():
            self._totals_timer.start()
        return hit

    def _is_found(self, row: Row) -> bool:
        return row.pos >= 0 or row.home is not None

    def _tell_totals(self) -> None:
        """Make the totals of changed rows anew, of groups where they are looked at."""
        first, last = self._on_screen()
        places = sorted(group.pos for group in self._dirty if first <= group.pos <= last)
        for group in self._dirty:
            group.figures = None
        self._dirty.clear()
        for place in places:
            self._tell(place, place)
        self.totals_changed.emit()

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
        end = len(self._lines) - 1
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
        if self._together:
            self._order_stale = self._order_stale or sort
            return
        if sort:
            self._sort()
        self._order_stale = self._order_stale and not sort
        self._membership_stale = False
        self._last_reorder = time.monotonic()
        self._swap(self._matching(self._all))

    def _time_retest(self) -> None:
        if self._active and self._filter is not None and self._filter.ages:
            self._retest_timer.start()
        else:
            self._retest_timer.stop()

    def _retest(self) -> None:
        """The clock alone may have changed what the filter says."""
        if any(self._matches(row) != self._is_found(row) for row in self._all):
            self._membership_stale = True
            self._reorder_soon()

    def _sort(self) -> None:
        """From the list's own order, which hardly changes: sorting what was sorted otherwise is dearer."""
        own = self._own_order
        if not self._order and own is not None:
            self._base.sort(key=lambda row: own(row.view, row.item))
        else:
            self._sort_by(self._base, self.fields[0], False)
        self._all = list(self._base)
        order = self._order
        if order and order[-1] == (self.fields[0].name, False):
            order = order[:-1]  # so they stand already
        for name, descending in reversed(order):
            self._sort_by(self._all, self._by_name[name], descending)

    def _sort_by(self, rows: list[Row], spec: FieldSpec, descending: bool) -> None:
        name = spec.name
        if spec.kind is FieldKind.SECONDS or spec.volatile:
            for row in rows:  # spans grow by themselves, places follow from others: a kept key would lie
                row.keys.pop(name, None)

        def key(row: Row) -> Any:
            try:
                return row.keys[name]
            except KeyError:
                made = row.keys[name] = spec.sort_key(row.view, row.item)
                return made

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
        wanted = self._filter
        if wanted is None:
            return list(rows)
        hay = self._hay
        found = list(rows)
        # A nested `and` is several times faster than all() over the words; two cover what people type.
        match wanted.words:
            case ():
                pass
            case (a,):
                found = [row for row in rows if a in (row.hay or hay(row))]
            case (a, b, *more):
                found = [row for row in rows if a in (row.hay or hay(row)) and b in (row.hay or hay(row))]
                for word in more:
                    found = [row for row in found if word in (row.hay or hay(row))]
        for test in wanted.tests:  # one after the other: fewer calls than all of them for each row
            if wanted.reads:
                found = [row for row in found if test(row.view, row.item, row.hay or hay(row)) is True]
            else:
                found = [row for row in found if test(row.view, row.item, "") is True]
        return found

    def _matches(self, row: Row) -> bool:
        if self._scope is not None and not self._scope(row.item):
            return False
        return self._filter is None or self._filter.test(row.view, row.item, row.hay or self._hay(row))

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

    def _swap(self, found: list[Row]) -> None:
        """These rows belong here and pass, in this order: show them, in groups if there are any."""
        if not self._warm_timer.isActive():
            self._warm_timer.start(300)
        self._found = found
        if self._grouping is None:
            self._show(found)
            return
        down = dict(self._order).get(self._grouping.spec.name, False)
        self._grouping.place(found, self._all, down)
        self._dirty.clear()
        self._show(self._grouping.lines())

    def _swap_held(self, new: list[Row]) -> None:
        """Nothing moves under the pointer: lost rows go, new ones wait at the end, or for their groups."""
        kept = [row for row in self._found if row.item is not None]
        if self._grouping is None:
            self._swap(kept + self._matching(new))
            return
        self._found = kept
        self._membership_stale = self._grouping.drop_lost() or self._membership_stale
        self._show(self._grouping.lines())

    def _show(self, lines: Sequence[Line]) -> None:
        """Show these lines instead: one reset; views carry selection and scroll over it by id."""
        if lines == self._lines:
            first, last = self._on_screen()
            if first <= last:
                self._tell(first, last)
            self.counts_changed.emit()
            return
        self.before_swap.emit()
        self.beginResetModel()
        for line in self._lines:
            line.pos = -1
        for place, line in enumerate(lines):
            line.pos = place
        self._lines = lines
        if self._grouping is None:
            self._rows_shown, self._group_places = self._found, []
        else:
            self._rows_shown = [line for line in lines if isinstance(line, Row)]
            self._group_places = [group.pos for group in self._grouping.groups]
        self.endResetModel()
        self.after_swap.emit()
        self.counts_changed.emit()

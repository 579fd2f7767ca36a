"""A page with a list: title and counts, search box, table, details below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import cast

from PySide6.QtCore import QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QSplitter, QVBoxLayout, QWidget

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import ClusterId, Kind, VmId
from manager.core.query.complete import values_in
from manager.core.query.fields import FIELDS
from manager.core.query.parser import parse
from manager.core.query.query import Query, QueryError, text_of
from manager.core.query.spec import CLUSTER, FieldSpec, natural
from manager.core.query.views import ALL
from manager.services.ports import ViewStore
from manager.services.runtime import Runtime
from manager.ui.actions import ActionCenter
from manager.ui.models.groups import Row, plain
from manager.ui.models.rows_model import OwnOrder, RowsModel, Scope
from manager.ui.models.sources import AllClusters, objects
from manager.ui.theme import Look
from manager.ui.views.criteria import CriteriaPanel
from manager.ui.views.details import Details
from manager.ui.views.details.across import DetailsAcross
from manager.ui.views.events_page import EventDetails, newest_first
from manager.ui.views.parts import ElidedLabel, EmptyState, flat_button, text_label
from manager.ui.views.resource_details import RESOURCES, ResourceDetails, by_name_and_node
from manager.ui.views.saved_views import ShownView, ViewKeeper
from manager.ui.views.search import SearchBox
from manager.ui.views.table import RowsTable

AGE_MS = 30_000
"""How often spans such as the uptime are drawn anew."""

ROLES_COLUMNS = (
    "name",
    "status",
    "owner",
    "priority",
    "cpu",
    "memory_mib",
    "uptime_s",
    "information",
)
"""The columns of Roles for a new user; what is done to a VM stands in Information too."""

WIDTHS = {
    Kind.VM: {"name": 140, "status": 150, "owner": 146, "memory_mib": 98, "priority": 92},
    Kind.NODE: {"cpu": 150, "memory_mib": 98},
    Kind.POOL: {"used": 170},
}


OWN_ORDERS: dict[Kind, OwnOrder] = {Kind.POOL: by_name_and_node, Kind.EVENT: newest_first}
"""How lists stand that nobody sorted, where not by their first column."""

SEARCH_TIP = (
    "Texts that all occur, and conditions: status:running  owner:n1,n2  memory>4GiB  is:stale\n"
    "and, or, not and brackets join them; Ctrl+Space offers what may follow, Up what was searched for before"
)


def _shown(kind: Kind) -> list[str]:
    return [spec.name for spec in FIELDS[kind].values() if spec.shown]


class ListPage(QWidget):
    """Roles, Nodes, Storage or Networks of one cluster, or of all. A hidden page does no work."""

    selection_settled = Signal()
    opened = Signal(str)
    menu_wanted = Signal(QPoint)
    export_wanted = Signal()

    def __init__(
        self,
        runtimes: Sequence[Runtime],
        kind: Kind,
        look: Look,
        views: ViewStore,
        center: ActionCenter,
        keeper: ViewKeeper,
        *,
        title: str,
        across: bool = False,
    ) -> None:
        """`across`: over these clusters and others to come, told apart by a column."""
        super().__init__()
        self.runtimes = {runtime.id: runtime for runtime in runtimes}
        self._all = AllClusters(kind, (r.view for r in runtimes)) if across else None
        self.kind = kind
        self._title = title
        self._look, self._views = look, views
        self._center = center
        self._scope_title = ""
        self.model = RowsModel(kind, self._all or runtimes[0].view, own_order=OWN_ORDERS.get(kind))
        self.model.set_active(False)
        self.table = RowsTable(
            self.model,
            look,
            name=f"table-{kind.value}{'-across' if across else ''}",
            views=views,
            title=title,
            shown=self._usual_columns(),
            widths=WIDTHS.get(kind),
        )
        self._who = f"page {kind.value}{' across' if across else ''}"
        self.details: Details | ResourceDetails | EventDetails | DetailsAcross = (
            DetailsAcross(kind, look, self._make_details) if across else self._make_details(runtimes[0])
        )
        strip = QWidget()
        strip.setObjectName("strip")
        row = QHBoxLayout(strip)
        row.setContentsMargins(12, 6, 8, 6)
        row.setSpacing(10)
        self._heading = text_label(title, "title")
        self._scope_label = ElidedLabel(style="dim")
        self._count = text_label(style="dim")
        self._held = text_label("order waits for the pointer", "dim")
        self._held.hide()
        self.search = SearchBox(
            f"Search {title}", f"Search {title.lower()}", kind, look, views=views, known=self._values
        )
        self.search.setToolTip(SEARCH_TIP)
        self.search.setMinimumWidth(160)
        self.search.setMaximumWidth(460)
        row.addWidget(self._heading)
        row.addWidget(self._count)
        row.addWidget(self._scope_label, 1)
        self.shown = ShownView(kind, self.table, self.search, keeper)
        row.addWidget(self.shown.revert_button)
        row.addWidget(self._held)
        row.addWidget(self.search, 3)
        self.criteria = CriteriaPanel(kind, self._values, look)
        self.criteria.hide()
        self.criteria_button = flat_button("Criteria")
        self.criteria_button.setCheckable(True)
        self.criteria_button.setToolTip("What is searched for, as rows of field and value (Ctrl+Shift+F)")
        row.addWidget(self.criteria_button)
        row.addWidget(self.shown.button)
        self.columns_button = flat_button("Columns")
        self.columns_button.clicked.connect(lambda *_: self.table.choose_columns(self.columns_button))
        row.addWidget(self.columns_button)
        self.export_button = flat_button("Export", on_click=self.export_wanted.emit)
        row.addWidget(self.export_button)
        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.setChildrenCollapsible(False)
        self.splitter.addWidget(self.table)
        self.splitter.addWidget(self.details)
        self.splitter.setStretchFactor(0, 1)
        self.splitter.setSizes([432, 156])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(strip)
        layout.addWidget(self.criteria)
        layout.addWidget(self.splitter, 1)
        self.empty = EmptyState(self.table.viewport())
        self.empty_text: Callable[[], tuple[str, str, str, Callable[[], object] | None]] = self._plain_empty
        self._ages = QTimer(self)
        self._ages.setInterval(AGE_MS)
        self._ages.timeout.connect(self.model.refresh_ages)
        self.search.wanted.connect(self.model.set_filter)
        self.search.wanted.connect(self._follow_text)
        self.search.refused.connect(self._follow_text)
        self.criteria.changed.connect(self._follow_criteria)
        self.criteria.left.connect(self.criteria_button.click)
        self.criteria_button.toggled.connect(self._show_criteria)
        self.search.left.connect(self._focus_list)
        self.search.entered.connect(self.table.enter)
        self.model.counts_changed.connect(self._counts)
        self.shown.changed.connect(self._say_scope)
        self.model.held_changed.connect(self._held.setVisible)
        self.table.selection_settled.connect(self._selected)
        self.table.opened.connect(self._open)
        self.table.menu_wanted.connect(self.menu_wanted)
        self.table.samples_wanted.connect(self._want_samples)
        self._counts()

    def _make_details(self, runtime: Runtime) -> Details | ResourceDetails | EventDetails:
        if self.kind in RESOURCES:
            return ResourceDetails(runtime, self.kind, self._look, self._views)
        if self.kind is Kind.EVENT:
            return EventDetails(runtime)
        made = Details(runtime, self.kind, self._look, self._center)
        made.wants_samples.connect(partial(runtime.sampler.want_loads, f"{self._who} chart"))
        return made

    def _usual_columns(self) -> list[str] | None:
        """Those of a new user; None: what the fields say."""
        if self.kind is not Kind.VM and self._all is None:
            return None
        usual = list(ROLES_COLUMNS if self.kind is Kind.VM else _shown(self.kind))
        return [usual[0], CLUSTER.name, *usual[1:]] if self._all is not None else usual

    # --- what the window asks --------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """The cluster that is listed; of all, the first."""
        return next(iter(self.runtimes.values()))

    @property
    def parts(self) -> list[tuple[Runtime, list[VmId]]]:
        """What is selected and shown, by cluster, in the order of the list."""
        return self._by_cluster(self.table.selected_rows)

    @property
    def hidden_parts(self) -> list[tuple[Runtime, list[VmId]]]:
        """What is selected and not shown, by cluster."""
        rows = (self.model.row(key) for key in self.table.hidden_ids)
        return self._by_cluster(row for row in rows if row is not None)

    def _by_cluster(self, rows: Iterable[Row]) -> list[tuple[Runtime, list[VmId]]]:
        found: dict[ClusterView, list[str]] = {}
        for row in rows:  # thousands, with every change of the selection
            found.setdefault(row.view, []).append(row.id)
        return [(self.runtimes[view.id], cast("list[VmId]", ids)) for view, ids in found.items()]

    def read_from(self, runtimes: Sequence[Runtime]) -> None:
        """Clusters were opened or closed, and this is the list of all of them."""
        before, self.runtimes = self.runtimes, {runtime.id: runtime for runtime in runtimes}
        self._all = AllClusters(self.kind, (runtime.view for runtime in runtimes))
        if isinstance(self.details, DetailsAcross):
            for cluster in before.keys() - self.runtimes.keys():
                self.details.forget(cluster)
        self.model.read_from(self._all)
        self._want_what_is_shown()
        self._selected()

    def take(self, changes: ChangeSet, cluster: ClusterId | None = None) -> None:
        """Follow what changed; of all clusters, in which one."""
        if self._all is not None and cluster is not None:
            self.model.take(self._all.changes(cluster, changes))
        else:
            self.model.take(changes)
        if not self.model.found and changes[Kind.NODE]:
            self._counts()  # what an empty list says depends on whether the nodes are there
        if self.isVisible():
            if isinstance(self.details, DetailsAcross):
                self.details.take_of(cluster, changes)
            else:
                self.details.take(changes)
            if self.kind is Kind.NODE and any("moving" in n for n in changes[Kind.NODE].updated.values()):
                self.table.refit_soon()

    def set_scope(self, title: str, scope: Scope | None) -> None:
        """Show a part of the list under its own title."""
        self._scope_title = title
        self._say_scope()
        self.model.set_scope(scope)
        self._counts()

    @property
    def scope_title(self) -> str:
        """Which part of the list is shown; nothing: all of it."""
        view = self.shown.view
        return self._scope_title or ("" if view.id == ALL else plain(view.name))

    def _say_scope(self) -> None:
        changed = " (changed)" if self.shown.is_changed else ""
        self._scope_label.set_text(f"{self.scope_title}{changed}")
        self._counts()

    def select(self, ids: Iterable[str]) -> None:
        """Select objects and show them."""
        chosen = list(ids)
        if any(self.model.position(key) < 0 for key in chosen):
            self.search.clear()
            self.search.flush()
        self.model.reveal(chosen)
        self.table.select_ids(chosen, current=chosen[0] if chosen else None)

    def focus_search(self) -> None:
        """Go to the search box."""
        self.search.take_focus()

    @property
    def selected_ids(self) -> list[str]:
        """The selected objects that are shown."""
        return self.table.selected_ids

    # --- inside ------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up, and ask for what the shown columns need."""
        super().showEvent(event)
        self.model.set_active(True)
        self.model.refresh_ages()
        self._ages.start()
        self._want_what_is_shown()
        self._counts()
        self._selected()

    def hideEvent(self, event: QHideEvent) -> None:
        """Work no more."""
        super().hideEvent(event)
        self.model.set_active(False)
        self._ages.stop()
        self._want_samples(False)
        for runtime in self.runtimes.values():
            runtime.resources.want(self._who, False)
            runtime.sampler.want_loads(f"{self._who} chart", False)

    def _values(self, spec: FieldSpec) -> list[str]:
        views = [runtime.view for runtime in self.runtimes.values()]
        found = [values_in(view, objects(view, self.kind).values(), spec) for view in views]
        return found[0] if len(found) == 1 else sorted({*chain(*found)}, key=lambda t: natural(t.lower()))

    def _show_criteria(self, on: bool) -> None:
        self.criteria.setVisible(on)
        self._follow_text()
        (self.criteria if on else self.search).take_focus()

    def _follow_text(self, *_: object) -> None:
        """The criteria show what stands in the search box, also what names what there is not."""
        if self.criteria_button.isChecked():
            with suppress(QueryError):  # no query: they stay as they are
                self.criteria.set_query(parse(self.search.text()))

    def _follow_criteria(self, query: Query) -> None:
        self.search.show_query(text_of(query))

    def _focus_list(self) -> None:
        self.table.setFocus(Qt.FocusReason.OtherFocusReason)

    def _selected(self) -> None:
        if isinstance(self.details, DetailsAcross):
            self.details.show_parts(self.parts, self._spread, self.table.hidden_selected)
        else:
            self.details.show_ids(self.table.selected_ids, self.table.hidden_selected)
        if self.isVisible():
            self.selection_settled.emit()

    def _open(self, key: str) -> None:
        self.details.tabs.setFocus(Qt.FocusReason.OtherFocusReason)
        if self.splitter.sizes()[1] < 120:
            height = self.splitter.height()
            self.splitter.setSizes([height - 200, 200])
        self.opened.emit(key)

    def _want_what_is_shown(self) -> None:
        self._want_samples(self.table.needs_samples)
        if not self.isVisible():
            return
        for runtime in self.runtimes.values():
            if self.kind is Kind.EVENT:
                runtime.recall()
            elif self.kind in RESOURCES:
                runtime.resources.want(self._who, True)

    def _want_samples(self, wanted: bool) -> None:
        for runtime in self.runtimes.values():
            runtime.sampler.want_loads(self._who, wanted and self.isVisible())

    def _spread(self) -> list[tuple[str, str]]:
        """What is selected of each cluster: its name, number and totals."""
        rows: dict[str, list[Row]] = {}
        for row in self.table.selected_rows:
            rows.setdefault(row.view.id, []).append(row)
        return [(name, self.model.told(len(of), self.model.figures(of))) for name, of in rows.items()]

    def _counts(self) -> None:
        shown, total = self.model.found, self.model.total
        self._count.setText(f"{shown:,} of {total:,}" if shown != total else f"{total:,}")
        if self.model.found:
            self.empty.hide()
            return
        view = self.shown.view
        if self.model.search_text.strip() and total and (view.id == ALL or self.shown.is_changed):
            self.empty.say_none_matches(self.model.search_text, total, self.search.clear)
        else:
            self.empty.say(*self.empty_text())

    def _plain_empty(self) -> tuple[str, str, str, Callable[[], object] | None]:
        return f"No {self._title.lower()}", "", "", None

"""A page with a list: title and counts, search box, table, details below."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from PySide6.QtCore import QEvent, QObject, QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QKeyEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QSplitter, QVBoxLayout, QWidget

from manager.core.changes import ChangeSet
from manager.core.ids import Kind
from manager.services.ports import ViewStore
from manager.services.runtime import Runtime
from manager.ui.actions import ActionCenter
from manager.ui.models.rows_model import RowsModel, Scope
from manager.ui.theme import Look
from manager.ui.views.details import Details
from manager.ui.views.parts import ElidedLabel, EmptyState, flat_button, text_label
from manager.ui.views.table import RowsTable

AGE_MS = 30_000
"""How often spans such as the uptime are drawn anew."""

_SEARCH_MS = 30

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
}


class ListPage(QWidget):
    """Roles or Nodes of one cluster. A hidden page does no work."""

    selection_settled = Signal()
    opened = Signal(str)
    menu_wanted = Signal(QPoint)
    export_wanted = Signal()

    def __init__(
        self,
        runtime: Runtime,
        kind: Kind,
        look: Look,
        views: ViewStore,
        center: ActionCenter,
        *,
        title: str,
    ) -> None:
        super().__init__()
        self.runtime = runtime
        self.kind = kind
        self._title = title
        self._look = look
        self.scope_title = ""
        self.model = RowsModel(kind, runtime.view)
        self.model.set_active(False)
        self.table = RowsTable(
            self.model,
            look,
            name=f"table-{kind.value}",
            views=views,
            title=title,
            shown=ROLES_COLUMNS if kind is Kind.VM else None,
            widths=WIDTHS.get(kind),
        )
        self.details = Details(runtime, kind, look, center)
        self._who = f"page {kind.value}"
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
        self.search = QLineEdit()
        self.search.setClearButtonEnabled(True)
        self.search.setMaxLength(300)
        self.search.setAccessibleName(f"Search {title}")
        self.search.setPlaceholderText(f"Search {title.lower()}")
        self.search.setToolTip("Words that all occur, each in any column that holds text")
        self.search.setMinimumWidth(160)
        self.search.setMaximumWidth(460)
        row.addWidget(self._heading)
        row.addWidget(self._count)
        row.addWidget(self._scope_label, 1)
        row.addWidget(self._held)
        row.addWidget(self.search, 3)
        self.columns_button = flat_button("Columns", on_click=self._choose_columns)
        row.addWidget(self.columns_button)
        self.export_button = flat_button("Export", on_click=self.export_wanted.emit)
        row.addWidget(self.export_button)
        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.setChildrenCollapsible(False)
        self.splitter.addWidget(self.table)
        self.splitter.addWidget(self.details)
        self.splitter.setStretchFactor(0, 1)
        self.splitter.setSizes([440, 148])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(strip)
        layout.addWidget(self.splitter, 1)
        self.empty = EmptyState(self.table.viewport())
        self.empty_text: Callable[[], tuple[str, str, str, Callable[[], object] | None]] = self._plain_empty
        self._search_timer = QTimer(self)
        self._search_timer.setSingleShot(True)
        self._search_timer.setInterval(_SEARCH_MS)
        self._search_timer.timeout.connect(self._search_now)
        self._ages = QTimer(self)
        self._ages.setInterval(AGE_MS)
        self._ages.timeout.connect(self.model.refresh_ages)
        self.search.textChanged.connect(lambda *_: self._search_timer.start())
        self.search.installEventFilter(self)
        self.model.counts_changed.connect(self._counts)
        self.model.held_changed.connect(self._held.setVisible)
        self.table.selection_settled.connect(self._selected)
        self.table.opened.connect(self._open)
        self.table.menu_wanted.connect(self.menu_wanted)
        self.table.samples_wanted.connect(self._want_samples)
        self.details.wants_samples.connect(
            lambda wanted: runtime.sampler.want_loads(f"{self._who} chart", wanted)
        )
        self._counts()

    # --- what the window asks --------------------------------------------------------------------

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed."""
        self.model.take(changes)
        if not self.model.rows and changes[Kind.NODE]:
            self._counts()  # what an empty list says depends on whether the nodes are there
        if self.isVisible():
            self.details.take(changes)
            if self.kind is Kind.NODE and any("moving" in n for n in changes[Kind.NODE].updated.values()):
                self.table.refit_soon()

    def set_scope(self, title: str, scope: Scope | None) -> None:
        """Show a part of the list under its own title."""
        self.scope_title = title
        self._scope_label.set_text(title)
        self.model.set_scope(scope)
        self._counts()

    def select(self, ids: Iterable[str]) -> None:
        """Select objects and show them."""
        chosen = list(ids)
        if any(self.model.position(key) < 0 for key in chosen):
            self.search.clear()
            self._search_now()
        self.table.select_ids(chosen, current=chosen[0] if chosen else None)

    def focus_search(self) -> None:
        """Go to the search box."""
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

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
        self._want_samples(self.table.needs_samples)
        self._counts()
        self._selected()

    def hideEvent(self, event: QHideEvent) -> None:
        """Work no more."""
        super().hideEvent(event)
        self.model.set_active(False)
        self._ages.stop()
        self._want_samples(False)
        self.runtime.sampler.want_loads(f"{self._who} chart", False)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """In the search box: Esc clears, then leaves; Down and Enter go to the list."""
        if watched is self.search and event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            if event.key() == Qt.Key.Key_Escape:
                if self.search.text():
                    self.search.clear()
                else:
                    self.table.setFocus(Qt.FocusReason.OtherFocusReason)
                return True
            if event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._search_now()
                self.table.setFocus(Qt.FocusReason.OtherFocusReason)
                if not self.table.currentIndex().isValid() and self.model.rows:
                    self.table.select_ids([self.model.rows[0].key], current=self.model.rows[0].key)
                return True
        return False

    def _search_now(self) -> None:
        self._search_timer.stop()
        self.model.set_search(self.search.text())

    def _selected(self) -> None:
        self.details.show_ids(self.table.selected_ids, self.table.hidden_selected)
        if self.isVisible():
            self.selection_settled.emit()

    def _open(self, key: str) -> None:
        self.details.tabs.setFocus(Qt.FocusReason.OtherFocusReason)
        if self.splitter.sizes()[1] < 120:
            height = self.splitter.height()
            self.splitter.setSizes([height - 200, 200])
        self.opened.emit(key)

    def _want_samples(self, wanted: bool) -> None:
        self.runtime.sampler.want_loads(self._who, wanted and self.isVisible())

    def _choose_columns(self) -> None:
        at = self.columns_button.mapToGlobal(QPoint(0, self.columns_button.height()))
        self.table.column_menu().popup(at)

    def _counts(self) -> None:
        shown, total = len(self.model.rows), self.model.total
        self._count.setText(f"{shown:,} of {total:,}" if shown != total else f"{total:,}")
        if self.model.rows:
            self.empty.hide()
            return
        if self.model.search_text.strip() and total:
            self.empty.say(
                f"None of {total:,} matches “{self.model.search_text.strip()}”",
                "Every word must occur in one of the columns that hold text.",
                "Clear the search",
                self.search.clear,
            )
        else:
            self.empty.say(*self.empty_text())

    def _plain_empty(self) -> tuple[str, str, str, Callable[[], object] | None]:
        return f"No {self._title.lower()}", "", "", None

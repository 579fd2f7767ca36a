"""What can be done with the list that one works in, whatever it lists."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QFileDialog, QMenu, QWidget

from manager.core import units
from manager.core.ids import Kind, NodeId
from manager.services.runtime import Runtime
from manager.ui.runner import Note
from manager.ui.travel import Travel
from manager.ui.views.details import Details
from manager.ui.views.queue_pane import PAST_TABS
from manager.ui.views.saved_views import ShownView
from manager.ui.views.table import RowsTable
from manager.ui.wording import show_commands


class ListCommands:
    """The list is that of a pane if the keys are there, else that of the page."""

    def __init__(
        self, parent: QWidget, travel: Travel, note: Note, cluster_option: Callable[[Runtime], str]
    ) -> None:
        self._parent, self._travel, self._note = parent, travel, note
        self._cluster_option = cluster_option

    def _shown_view(self) -> ShownView | None:
        """Of the list that is worked in: a pane's, or that of the page."""
        pages, focus = self._travel.current, QApplication.focusWidget()
        if pages is not None and focus is not None:
            if pages.problems.isAncestorOf(focus):
                return pages.problems.shown
            if pages.queue.isAncestorOf(focus) and pages.queue.tab in PAST_TABS:
                return pages.queue.shown
        return self._travel.list_page.shown if self._travel.list_page is not None else None

    def save_view(self) -> None:
        """Keep what the list shows as a view."""
        shown = self._shown_view()
        if shown is not None:
            shown.save()

    def fill_views(self, menu: QMenu) -> None:
        """Those of that list."""
        menu.clear()
        shown = self._shown_view()
        if shown is not None:
            shown.fill(menu)

    def refresh(self) -> None:
        """Read the hosts again; of selected nodes only those."""
        page = self._travel.list_page
        if page is not None and page.kind is Kind.NODE and page.parts:
            for runtime, ids in page.parts:
                for node in ids:
                    runtime.read_again(NodeId(node))
        else:
            for pages in self._travel.shown:
                pages.runtime.read_again()

    def toggle_criteria(self) -> None:
        """Open or close the criteria of the list that is shown."""
        if self._travel.list_page is not None:
            self._travel.list_page.criteria_button.toggle()

    def focus_search(self) -> None:
        """Go to the search box of the pane if one is in it, else to that of this page."""
        pages, focus = self._travel.current, QApplication.focusWidget()
        if pages is not None and focus is not None and pages.queue.isAncestorOf(focus):
            pages.queue.focus_search()
        elif pages is not None and focus is not None and pages.problems.isAncestorOf(focus):
            pages.problems.search.take_focus()
        elif self._travel.list_page is not None:
            self._travel.list_page.focus_search()

    def _table(self) -> RowsTable | None:
        focus = QApplication.focusWidget()
        if isinstance(focus, RowsTable):
            return focus
        return self._travel.list_page.table if self._travel.list_page is not None else None

    def copy_cells(self, form: str = "text") -> None:
        """The selected rows as shown: ``text``, with ``titles``, as ``csv`` or ``json``."""
        table = self._table()
        if table is not None and table.selected_count:
            table.copy_cells(form)

    def copy_command(self) -> None:
        """The selected VMs as commands."""
        page = self._travel.list_page
        if page is not None and page.parts:
            lines = [self._commands(page.kind, runtime, ids) for runtime, ids in page.parts]
            QGuiApplication.clipboard().setText("\n".join(lines))

    def _commands(self, kind: Kind, runtime: Runtime, ids: Sequence[str]) -> str:
        option = self._cluster_option(runtime)
        if kind is Kind.VM:
            return show_commands(runtime.view, ids, option)
        nouns = {Kind.POOL: "storage", Kind.NETWORK: "network"}
        if kind in nouns:
            return "\n".join(f"muster {option} {nouns[kind]} show {shlex.quote(key)}" for key in ids)
        return f"muster {option} {'events' if kind is Kind.EVENT else 'node list'}"

    def select_all(self) -> None:
        """Select all that is shown."""
        table = self._table()
        if table is not None:
            table.selectAll()

    def invert_selection(self) -> None:
        """Select what is not selected."""
        table = self._table()
        if table is not None:
            table.invert_selection()

    def arrange_columns(self) -> None:
        """Which columns the list shows, and in what order."""
        table = self._table()
        if table is not None:
            table.arrange_columns()

    def fill_groups(self, menu: QMenu) -> None:
        """What that list can be grouped by."""
        menu.clear()
        table = self._table()
        if table is not None and table.can_group:
            table.fill_groups(menu)

    def show_details(self) -> None:
        """Go to the details of the current row."""
        page = self._travel.list_page
        if page is not None and page.table.current_id is not None:
            page.table.opened.emit(page.table.current_id)

    def show_what_happened(self) -> None:
        """Go to the events of the current row's VM or node; where there is none, to those of the cluster."""
        page = self._travel.list_page
        if page is None or not isinstance(page.details, Details) or page.table.current_id is None:
            self._travel.go_page("events")
            return
        page.table.opened.emit(page.table.current_id)
        page.details.show_events()

    def export(self) -> None:
        """Store exactly what is shown as CSV or JSON: the list in which one is, else this page's."""
        self.export_of(self._table())

    def export_of(self, table: RowsTable | None) -> None:
        """Ask where to, and write that table."""
        if table is None or self._travel.here is None:
            return
        dialog = QFileDialog(self._parent, "Export what is shown")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilters(["CSV (*.csv)", "JSON (*.json)"])
        dialog.setDefaultSuffix("csv")
        dialog.selectFile(
            f"{self._travel.here.cluster or 'all-clusters'}-{table.accessibleName().lower()}.csv"
        )
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self.export_to(Path(path), table))
        dialog.open()

    def export_to(self, path: Path, table: RowsTable | None = None) -> None:
        """Write what is shown to a file; JSON if it is called so."""
        table = table or (self._travel.list_page.table if self._travel.list_page is not None else None)
        if table is None:
            return
        text = table.as_json() if path.suffix.lower() == ".json" else table.as_csv()
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            self._note(f"{path} was not written: {error.strerror or error}.", (), "error")
            return
        rows = units.count_text(len(table.rows_model.rows), "row")
        closed = sum(1 for group in table.rows_model.groups if not group.is_open)
        also = f" and {units.count_text(closed, 'closed group')}" if closed else ""
        self._note(f"{rows}{also} written to {path}", (), "")

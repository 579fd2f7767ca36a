"""All that the window shows of one cluster: its bridge, its counts, its pages and panes."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtWidgets import QWidget

from manager.core.changes import ChangeSet
from manager.core.ids import Kind
from manager.core.query.views import BUILT_IN, Views
from manager.services.ports import ViewStore
from manager.services.runtime import Runtime
from manager.ui.actions import ActionCenter
from manager.ui.bridge import Bridge
from manager.ui.models.rows_model import Scope
from manager.ui.tally import TURN_S, Members, Tally
from manager.ui.theme import Look
from manager.ui.views.list_page import ListPage
from manager.ui.views.navigation import PAGE_OF, TITLES, Place, node_of
from manager.ui.views.overview import Overview
from manager.ui.views.problems_pane import ProblemsPane
from manager.ui.views.queue_pane import QueuePane
from manager.ui.views.saved_views import ViewKeeper
from manager.ui.views.table import RowsTable
from manager.ui.views.work_panes import OperationsPane

KINDS = {page: kind for kind, page in PAGE_OF.items()}
"""What the pages with a list list."""


def show_view(page: ListPage, views: Views, scope: str) -> None:
    """Show the view of that id; where it is none, all."""
    page.shown.show(views.get(page.kind, scope) or BUILT_IN[page.kind][0])


_COUNTING_MS = 12
"""Between two turns of counting: the window's own work comes first."""


class ClusterPages(QObject):
    """Pages are made when they are first shown; hidden ones do no work."""

    changed = Signal(object)  # ChangeSet, after all views took it in
    batch_ended = Signal(str)  # a request whose work went through the queue

    def __init__(
        self, runtime: Runtime, look: Look, views: ViewStore, center: ActionCenter, keeper: ViewKeeper
    ) -> None:
        super().__init__()
        self.runtime = runtime
        self._look, self._views, self._center, self._keeper = look, views, center, keeper
        self.tally = Tally(runtime.view)
        self.tally.follow(keeper.views)
        self.bridge = Bridge(runtime, self)
        self._pages: dict[str, QWidget] = {}
        self.queue = QueuePane(runtime, look, views, keeper)
        self.operations = OperationsPane(runtime, look, views)
        self.problems = ProblemsPane(runtime, look, views, keeper)
        self.made: Callable[[QWidget], None] = lambda page: None
        self._counting = QTimer(self, interval=_COUNTING_MS)
        self._counting.timeout.connect(self._count)
        self._told: list[tuple[Members, int | None]] = []  # the counts that were told last
        self.bridge.changed.connect(self._take)
        self.count()
        runtime.resources.follow()

    @property
    def pages(self) -> list[QWidget]:
        """The pages made so far."""
        return list(self._pages.values())

    @property
    def panes(self) -> tuple[QWidget, QWidget, QWidget]:
        """The panes at the bottom, from left to right."""
        return self.queue, self.operations, self.problems

    @property
    def strips(self) -> tuple[QWidget, QWidget, QWidget]:
        """What stands beside the tabs of each pane."""
        return self.queue.strip, self.operations.strip, self.problems.strip

    @property
    def tables(self) -> tuple[RowsTable, ...]:
        """The tables of the panes."""
        operations = self.operations
        return *self.queue.tables, operations.table, operations.children_table, self.problems.table

    def page(self, place: Place) -> QWidget:
        """The page of a place, showing its scope."""
        page = self._pages.get(place.page)
        if page is None:
            page = self._pages[place.page] = self._make(place.page)
            self.made(page)
        if isinstance(page, ListPage):
            show_view(page, self._keeper.views, place.scope)
            if page.kind is Kind.VM:
                page.set_scope(*self._scope(place.scope))
        return page

    def _make(self, name: str) -> QWidget:
        if name == "overview":
            return Overview(self.runtime, self._look, self.tally, self.queue, self.problems)
        kind, title = KINDS[name], TITLES[name]
        return ListPage(
            (self.runtime,), kind, self._look, self._views, self._center, self._keeper, title=title
        )

    def _scope(self, scope: str) -> tuple[str, Scope | None]:
        node = node_of(scope)
        if node is not None:
            return f"on {node}", lambda vm: vm.owner == node or vm.moving_to == node
        return "", None

    def count(self) -> None:
        """Have the tally work off what it has to count."""
        if self.tally.is_behind and not self._counting.isActive():
            self._counting.start()

    def _count(self) -> None:
        self.tally.work(TURN_S)
        if not self.tally.is_behind:
            self._counting.stop()
            counts = [(members, members.count) for members in self.tally.followed]
            if counts == self._told:
                return
            self._told = counts
            overview = self._pages.get("overview")
            if isinstance(overview, Overview):
                overview.take(ChangeSet())
            self.changed.emit(ChangeSet())

    def _take(self, changes: ChangeSet) -> None:
        self.tally.take(changes)
        self.count()
        for page in self._pages.values():
            if isinstance(page, ListPage | Overview):
                page.take(changes)
        ended = self.queue.take(changes)
        self.operations.take(changes)
        self.problems.take(changes)
        self._center.take(self.runtime.view, changes)
        self.changed.emit(changes)
        for batch in ended:
            if self.queue.watch.children(batch):
                self.batch_ended.emit(str(batch))

    def close(self) -> None:
        """Let go of everything of this cluster."""
        self.bridge.close()
        self._counting.stop()
        self.setParent(None)
        for widget in (*self._pages.values(), self.queue, self.operations, self.problems):
            widget.hide()
            widget.setParent(None)
            widget.deleteLater()
        self._pages.clear()

"""Where the window is, where it was, and how it goes to anything: a page, a view, a VM, a piece of work."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QApplication, QStackedWidget

from manager.core.ids import ClusterId, Kind, OperationId
from manager.core.query.views import View
from manager.services.runtime import Runtime
from manager.ui.all_clusters import AllPages
from manager.ui.cluster_pages import ClusterPages
from manager.ui.lower_panes import LowerPanes
from manager.ui.runner import Note
from manager.ui.views.list_page import ListPage
from manager.ui.views.navigation import EVERY, PAGE_OF, Navigation, Place, node_of, page_place, place_of


class Travel(QObject):
    """Every way leads over the tree: what is chosen there is what is shown."""

    arrived = Signal()

    def __init__(
        self,
        navigation: Navigation,
        pages: QStackedWidget,
        panes: LowerPanes,
        clusters: Mapping[ClusterId, ClusterPages],
        every: AllPages,
        note: Note,
    ) -> None:
        super().__init__()
        self._navigation, self._pages, self._panes = navigation, pages, panes
        self._clusters, self._every, self._note = clusters, every, note
        self._here: Place | None = None
        self._past: list[Place] = []
        self._future: list[Place] = []
        self._travelling = False
        navigation.went.connect(self._show)

    @property
    def here(self) -> Place | None:
        """Where the window is."""
        return self._here

    @property
    def current(self) -> ClusterPages | None:
        """The cluster that is shown; none: no cluster is, or all are."""
        return self._clusters.get(self._here.cluster) if self._here is not None else None

    @property
    def shown(self) -> list[ClusterPages]:
        """The clusters that are shown: one, or all."""
        if self._here is not None and self._here.cluster == EVERY:
            return list(self._clusters.values())
        return [self.current] if self.current is not None else []

    @property
    def list_page(self) -> ListPage | None:
        """The list that is shown, if the page is one."""
        page = self._pages.currentWidget()
        return page if isinstance(page, ListPage) else None

    def _show(self, place: Place) -> None:
        pages = self._every if place.cluster == EVERY else self._clusters.get(place.cluster)
        if pages is None:
            return
        if self._here is not None and self._here != place and not self._travelling:
            self._past.append(self._here)
            del self._past[:-50]
            self._future.clear()
        self._here = place
        focus = QApplication.focusWidget()
        follows = focus is None or self._pages.isAncestorOf(focus)
        self._pages.setCurrentWidget(pages.page(place))
        self._panes.show_those(pages.panes, pages.strips)
        self.arrived.emit()
        if follows:  # else Qt hands it to the search box, and keys for the list are typed there
            self.focus_list()

    @property
    def can_go_back(self) -> bool:
        """Whether something was shown before."""
        return bool(self._past)

    @property
    def can_go_forward(self) -> bool:
        """Whether something was gone back from."""
        return bool(self._future)

    def to(self, place: Place) -> bool:
        """Choose a place in the tree; False if there is none such."""
        return self._navigation.go(place)

    def has(self, place: Place) -> bool:
        """Whether there is such a place."""
        return self._navigation.has(place)

    def go_back(self) -> None:
        """Where the window was before."""
        self._travel(self._past, self._future)

    def go_forward(self) -> None:
        """Where Back came from."""
        self._travel(self._future, self._past)

    def _travel(self, source: list[Place], other: list[Place]) -> None:
        if not source:
            return
        place = source.pop()
        if self._here is not None:
            other.append(self._here)
        self._travelling = True
        self._navigation.go(place)
        self._travelling = False
        self.arrived.emit()

    def go_page(self, page: str) -> None:
        """A page of this cluster; keys act on its list."""
        if self._here is not None:
            self._go_here(page_place(self._here.cluster, page))
            self.focus_list()

    def go_all_roles(self) -> None:
        """All VMs of what is shown."""
        if self._here is not None:
            self._navigation.go(Place(self._here.cluster, "roles"))

    def show_view(self, view: View) -> None:
        """A view of the cluster that is shown, or of all."""
        if self._here is not None:
            self.show_view_of(self._here.cluster, view)

    def show_view_of(self, cluster: ClusterId, view: View) -> None:
        """A view of a cluster's pages or panes."""
        if view.kind in PAGE_OF:
            self._go_here(place_of(cluster, view))
            return
        if cluster == EVERY:
            self._say_one_at_a_time()
            return
        if self._here is None or self._here.cluster != cluster:
            self._navigation.go(Place(cluster, "roles"))
        pages = self._clusters[cluster]
        if view.kind is Kind.OPERATION:
            pages.queue.show_view(view)
            self._panes.show_pane("migrations")
        elif view.kind is Kind.PROBLEM:
            pages.problems.shown.show(view)
            self._panes.show_pane("problems")

    def _go_here(self, place: Place) -> None:
        if not self._navigation.go(place) and place.cluster == EVERY:
            self._say_one_at_a_time()

    def _say_one_at_a_time(self) -> None:
        self._note("That is shown of one cluster at a time: choose one in the tree.", (), "")

    def next_cluster(self) -> None:
        """The same page of the next cluster."""
        names = list(self._clusters)
        if self._here is not None and len(names) > 1:
            at = names.index(self._here.cluster) if self._here.cluster in self._clusters else -1
            following = names[(at + 1) % len(names)]
            self._navigation.go(
                Place(following, self._here.page, self._here.scope if not node_of(self._here.scope) else "")
            )

    def show_list(self, name: str, scope: str = "", search: str = "") -> None:
        """A page with a list: at a view, or searched for something."""
        if self._here is None:
            return
        self._navigation.go(Place(self._here.cluster, name, scope))
        page = self.list_page
        if page is not None and not scope:  # a view has its own query
            page.search.setText(search)
        self.focus_list()

    def show_vm(self, cluster: ClusterId, vm: str) -> None:
        """Show a VM in Roles, selected."""
        self.go_cluster(cluster)
        self.show_row("roles", vm)

    def show_row(self, name: str, key: str) -> None:
        """An object in its list, selected."""
        if self._here is None:
            return
        self._navigation.go(Place(self._here.cluster, name))
        if self.list_page is not None:
            self.list_page.select([key])
        self.focus_list()

    def show_operation(self, runtime: Runtime, operation: OperationId | str) -> None:
        """Show a batch and its results."""
        pages = self._clusters.get(runtime.id)
        if pages is not None:
            self.go_cluster(runtime.id)
            self._panes.show_pane("operations")
            pages.operations.choose(operation)

    def open_operation(self, runtime: Runtime, key: str) -> None:
        """Show what an operation did: the results of a batch, or its VM."""
        operation = runtime.view.operations.get(OperationId(key))
        if operation is None:
            return
        if operation.is_parent or operation.parent is None:
            self.show_operation(runtime, operation.id)
        elif operation.vm is not None and operation.vm in runtime.view.vms:
            self.show_vm(runtime.id, operation.vm)

    def open_problem(self, runtime: Runtime, key: str) -> None:
        """Show what has a problem."""
        problem = runtime.view.problems.get(key)
        if problem is None:
            return
        self.go_cluster(runtime.id)
        if problem.key.startswith("vm:") and problem.vms:
            self.show_vm(runtime.id, problem.vms[0])
        elif problem.key.startswith("pool:"):
            self.show_row("storage", problem.key.removeprefix("pool:"))
        elif problem.node is not None:
            self.show_row("nodes", problem.node)

    def show_pane_of(self, name: str, cluster: str) -> None:
        """A pane of one cluster, from where all are shown."""
        self.go_cluster(ClusterId(cluster))
        self._panes.show_pane(name)

    def go_cluster(self, cluster: ClusterId) -> None:
        """Be at that cluster."""
        if self._here is None or self._here.cluster != cluster:
            self._navigation.go(Place(cluster, "roles"))

    def go_and_focus(self, place: Place) -> None:
        """A place; keys act on its list."""
        self._navigation.go(place)
        self.focus_list()

    def focus_list(self) -> None:
        """Keys act on the list at once."""
        if self.list_page is not None:
            self.list_page.table.setFocus(Qt.FocusReason.OtherFocusReason)

    def forget(self, cluster: ClusterId) -> None:
        """Its places are in the tree no more, nor to come back to."""
        self._navigation.remove_cluster(cluster)
        self._past = [p for p in self._past if p.cluster != cluster]
        self._future = [p for p in self._future if p.cluster != cluster]

    def leave(self, cluster: ClusterId) -> None:
        """Be where the tree is, if the window was at a place that is no more."""
        if self._here is not None and self._here.cluster == cluster:
            self._here = None
            place = self._navigation.place
            if place is not None and place.cluster in self._clusters:
                self._show(place)
            elif self._clusters:
                self._navigation.go(Place(next(iter(self._clusters)), "roles"))

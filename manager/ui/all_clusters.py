"""What the window shows of all open clusters together: their lists, and where the work of each is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from manager.core.changes import ChangeSet
from manager.core.ids import ClusterId
from manager.services.ports import ViewStore
from manager.services.runtime import Runtime
from manager.ui.actions import ActionCenter
from manager.ui.cluster_pages import KINDS, show_view
from manager.ui.dialogs.base import Band
from manager.ui.theme import Look
from manager.ui.views.list_page import ListPage
from manager.ui.views.navigation import TITLES, Place
from manager.ui.views.parts import link_button, text_label
from manager.ui.views.saved_views import ViewKeeper

WITH_LISTS = tuple(KINDS)
"""The pages that there are over all clusters: all but the overview, for which the first of them stands."""


class AllPages:
    """Pages over all open clusters, made when they are first shown; hidden ones do no work."""

    def __init__(self, look: Look, views: ViewStore, center: ActionCenter, keeper: ViewKeeper) -> None:
        self._look, self._views, self._center, self._keeper = look, views, center, keeper
        self._runtimes: tuple[Runtime, ...] = ()
        self._pages: dict[str, ListPage] = {}
        self.panes = (EachCluster(), EachCluster(), EachCluster())
        self.strips: tuple[QWidget, ...] = ()  # beside the tabs: what there is only of one cluster
        self.made: Callable[[QWidget], None] = lambda page: None

    @property
    def pages(self) -> list[ListPage]:
        """The pages made so far."""
        return list(self._pages.values())

    def read_from(self, runtimes: Sequence[Runtime]) -> None:
        """These are open now."""
        if tuple(runtimes) == self._runtimes:
            return
        self._runtimes = tuple(runtimes)
        if len(self._runtimes) > 1:
            for page in self._pages.values():
                page.read_from(self._runtimes)
            return
        for page in self._pages.values():
            page.hide()
            page.setParent(None)
            page.deleteLater()
        self._pages.clear()

    def page(self, place: Place) -> QWidget:
        """The page of a place, showing its view."""
        name = place.page if place.page in WITH_LISTS else WITH_LISTS[0]
        page = self._pages.get(name)
        if page is None:
            kind, title = KINDS[name], TITLES[name]
            page = self._pages[name] = ListPage(
                self._runtimes,
                kind,
                self._look,
                self._views,
                self._center,
                self._keeper,
                title=title,
                across=True,
            )
            self.made(page)
        show_view(page, self._keeper.views, place.scope)
        return page

    def take(self, cluster: ClusterId, changes: ChangeSet) -> None:
        """Follow what changed in one of the clusters."""
        if len(self._runtimes) > 1:
            for page in self._pages.values():
                page.take(changes, cluster)


class EachCluster(QWidget):
    """In place of a pane of work or problems, which are each cluster's own: a line for each leads there."""

    wanted = Signal(str)  # the cluster

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("panel")
        self._lines: dict[ClusterId, tuple[QPushButton, QLabel]] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 12, 8)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(10)
        self._grid.setColumnStretch(2, 1)
        layout.addLayout(self._grid)
        layout.addStretch(1)

    def show_lines(self, lines: Sequence[tuple[Runtime, str]]) -> None:
        """What there is in each cluster."""
        if list(self._lines) != [runtime.id for runtime, _ in lines]:
            self._build([runtime for runtime, _ in lines])
        for runtime, text in lines:
            link, label = self._lines[runtime.id]
            if label.text() != text:
                label.setText(text)
                link.setAccessibleName(f"{runtime.id}: {text}")

    def _build(self, runtimes: Sequence[Runtime]) -> None:
        while (item := self._grid.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self._lines.clear()
        for row, runtime in enumerate(runtimes):
            band = Band(14)
            band.setFixedWidth(3)
            band.show_colour(runtime.view.config.colour)
            self._grid.addWidget(band, row, 0)
            link, label = link_button(runtime.id, _wanted(self, runtime.id)), text_label("", "dim")
            self._grid.addWidget(link, row, 1)
            self._grid.addWidget(label, row, 2)
            self._lines[runtime.id] = link, label


def _wanted(of: EachCluster, cluster: ClusterId) -> Callable[[], None]:
    return lambda: of.wanted.emit(cluster)

"""The tree on the left: open clusters, their pages, and the lists in them, with live counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QStyle, QStyleOptionViewItem, QTreeWidget, QTreeWidgetItem

from manager.core.cluster import ClusterView
from manager.core.ids import ClusterId, Kind, NodeId
from manager.core.model import Tier
from manager.core.query.views import ALL, BUILT_IN, View, Views
from manager.core.resource_facts import NetworkStatus, PoolStatus
from manager.services.runtime import Runtime
from manager.ui.icons import state_pixmap
from manager.ui.models.groups import plain
from manager.ui.models.tones import node_shape
from manager.ui.tally import Tally
from manager.ui.theme import Look
from manager.ui.views.parts import LineDelegate, tip

PLACE = int(Qt.ItemDataRole.UserRole)
COUNT = PLACE + 1
SHAPE = PLACE + 2
COLOUR = PLACE + 3
ALERT = PLACE + 4


EVERY = ClusterId("")
"""In place of a cluster: all that are open."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one can be in the window."""

    cluster: ClusterId  # or EVERY
    page: str  # overview, roles, nodes, storage, networks, events
    scope: str = ""  # of a list: the id of a view; of roles also node:NAME


PAGE_OF = {
    Kind.VM: "roles",
    Kind.NODE: "nodes",
    Kind.POOL: "storage",
    Kind.NETWORK: "networks",
    Kind.EVENT: "events",
}
"""The page that shows the views of a kind."""

TITLES = {
    "overview": "Overview",
    "roles": "Roles",
    "nodes": "Nodes",
    "storage": "Storage",
    "networks": "Networks",
    "events": "Cluster events",
}
"""The pages of a cluster and what they are called, in their order."""

SCOPES = {view.id: view.name for view in BUILT_IN[Kind.VM] if view.id != ALL}
"""Views of Roles that come with the program, for how wide they are."""

ALERTS = {"attention": "crashed", "moving": "accent"}
"""Colours of counts that are no zero."""


def page_place(cluster: ClusterId, page: str) -> Place:
    """Where a page is; the overview is in the tree twice, as the cluster and as its first page."""
    return Place(cluster, page, "page" if page == "overview" else "")


def place_of(cluster: ClusterId, view: View) -> Place:
    """Where a view is shown; that of everything is the page itself."""
    return Place(cluster, PAGE_OF[view.kind], "" if view.id == ALL else view.id)


class NavigationDelegate(LineDelegate):
    """A name with its count beside it, quieter."""

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        """Band, shape, name, count."""
        t = self._look.tokens
        area = QRect(option.rect)
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        hover = bool(option.state & QStyle.StateFlag.State_MouseOver)
        if selected or hover:
            painter.fillRect(area, t.selection if selected else t.hover)
        painter.save()
        x = area.left() + 4
        if not index.parent().isValid():
            painter.setFont(self._bold)
        colour = index.data(COLOUR)
        if colour:
            painter.fillRect(QRect(x - 2, area.top() + 5, 3, area.height() - 10), QColor(colour))
            x += 7
        shape = index.data(SHAPE)
        if shape:
            ratio = painter.device().devicePixelRatio()
            pixmap = state_pixmap(shape[0], t.colour(shape[1]), ratio)
            painter.drawPixmap(x, area.top() + (area.height() - 10) // 2, pixmap)
            x += 16
        metrics = painter.fontMetrics()
        count = str(index.data(COUNT) or "")
        count_width = metrics.horizontalAdvance(count) + 16 if count else 4
        room = max(20, area.right() - x - count_width)
        name = metrics.elidedText(
            str(index.data(Qt.ItemDataRole.DisplayRole)), Qt.TextElideMode.ElideMiddle, room
        )
        middle = int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        painter.setPen(t.text)
        painter.drawText(QRect(x, area.top(), room, area.height()), middle, name)
        if count:
            x += metrics.horizontalAdvance(name) + 10
            painter.setPen(t.colour(index.data(ALERT) or "dim"))
            painter.drawText(QRect(x, area.top(), count_width, area.height()), middle, count)
        painter.restore()


class Navigation(QTreeWidget):
    """Clusters, pages, lists. Selecting an item goes there."""

    went = Signal(object)  # Place

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look
        self._items: dict[Place, QTreeWidgetItem] = {}
        self._quiet = False
        self.setAccessibleName("Navigation")
        self.setHeaderHidden(True)
        self.setIndentation(13)
        self.setRootIsDecorated(True)
        self.setUniformRowHeights(True)
        self.setMinimumWidth(130)
        self.setItemDelegate(NavigationDelegate(look, self))
        self.setMouseTracking(True)
        self.setExpandsOnDoubleClick(False)
        self.currentItemChanged.connect(self._current_changed)
        look.changed.connect(self.viewport().update)

    def sizeHint(self) -> QSize:
        """Wide enough for its own titles with their counts, within reason; a name of a host may be cut."""
        titles = max(self.fontMetrics().horizontalAdvance(title) for title in SCOPES.values())
        counts = self.fontMetrics().horizontalAdvance("00")
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        width = 3 * self.indentation() + titles + counts + bar + 8
        return QSize(max(150, min(width, 260)), super().sizeHint().height())

    @property
    def place(self) -> Place | None:
        """Where the window is."""
        item = self.currentItem()
        return item.data(0, PLACE) if item is not None else None

    def add_cluster(self, runtime: Runtime) -> None:
        """Add a cluster with its pages."""
        cluster = runtime.id
        config = runtime.view.config
        root = self._item(None, str(cluster), Place(cluster, "overview"), colour=config.colour)
        root.setToolTip(0, tip(f"{cluster}: {_tier_text(config.tier, config.read_only)}"))
        items = {page: self._item(root, title, page_place(cluster, page)) for page, title in TITLES.items()}
        roles, nodes = items["roles"], items["nodes"]
        for name in runtime.view.nodes:
            self._item(nodes, name, Place(cluster, "roles", f"node:{name}"))
        root.setExpanded(True)
        roles.setExpanded(True)
        nodes.setExpanded(len(runtime.view.nodes) <= 8)

    def add_every(self) -> None:
        """Add the place of all open clusters, at the top."""
        root = self._item(None, "All clusters", Place(EVERY, "overview"))
        root.setToolTip(0, tip("What is in all open clusters, in one list"))
        for page in PAGE_OF.values():
            self._item(root, TITLES[page], Place(EVERY, page)).setExpanded(page == "roles")
        root.setExpanded(True)

    def show_views(self, cluster: ClusterId, views: Views) -> None:
        """Bring the views under a cluster's pages up to date, in their order."""
        here = self.place
        self._quiet = True
        for kind, page in PAGE_OF.items():
            root = self._items.get(Place(cluster, page))
            if root is None:
                continue
            wanted = [view for view in views.of(kind) if view.id != ALL]
            places = {place_of(cluster, view) for view in wanted}
            shown = [place for place in self._items if place.cluster == cluster and place.page == page]
            for place in shown:
                if place.scope and place not in places and node_of(place.scope) is None:
                    root.removeChild(self._items.pop(place))
            for at, view in enumerate(wanted):
                place = place_of(cluster, view)
                item = self._items.get(place)
                if item is None:
                    item = self._item(root, plain(view.name), place)
                elif item.text(0) != plain(view.name) and not view.is_built_in:
                    item.setText(0, plain(view.name))
                item.setToolTip(0, tip(f"{plain(view.name)}\n{plain(view.query)}".strip()))
                if root.indexOfChild(item) != at:
                    root.removeChild(item)
                    root.insertChild(at, item)
        # A move takes the mark from an item; one whose view was deleted leaves it to its page.
        if here is not None and here.cluster == cluster:
            self.setCurrentItem(self._items.get(here) or self._items[Place(cluster, here.page)])
        self._quiet = False
        if here is not None and here != self.place and self.place is not None:
            self.went.emit(self.place)

    def remove_cluster(self, cluster: ClusterId) -> None:
        """Take a cluster away."""
        root = self._items.get(Place(cluster, "overview"))
        self._items = {place: item for place, item in self._items.items() if place.cluster != cluster}
        if root is not None:
            self.takeTopLevelItem(self.indexOfTopLevelItem(root))

    def has(self, place: Place) -> bool:
        """Whether it is in the tree."""
        return place in self._items

    def go(self, place: Place) -> bool:
        """Select a place's item; False if there is none."""
        item = self._items.get(place)
        if item is None:
            return False
        self.setCurrentItem(item)
        return True

    def show_sums(self, of: Sequence[tuple[Runtime, Tally]]) -> None:
        """Bring the sums over all clusters up to date; what is not known of one is not known of all."""
        self._count_pages(EVERY, [runtime.view for runtime, _ in of])
        sums: dict[Place, int | None] = {}
        for _, tally in of:
            for members in tally.followed:
                place, count = place_of(EVERY, members.of), members.count
                before = sums.get(place, 0)
                sums[place] = None if count is None or before is None else before + count
        for place, total in sums.items():
            if place.scope:
                self._count(place, total, ALERTS.get(place.scope, ""))

    def show_counts(self, runtime: Runtime, tally: Tally) -> None:
        """Bring the counts of a cluster up to date."""
        cluster, view = runtime.id, runtime.view
        self._count_pages(cluster, [view])
        for members in tally.followed:
            place = place_of(cluster, members.of)
            if place.scope:
                self._count(place, members.count, ALERTS.get(place.scope, ""))
        for name, node in view.nodes.items():
            item = self._items.get(Place(cluster, "roles", f"node:{name}"))
            if item is not None:
                _set(item, SHAPE, node_shape(node))
                _set(item, COUNT, str(node.vms_total))
                text = f"{name}: {node.status.value}"
                if node.information is not None:
                    text += f"\n{node.information.text}"
                if item.toolTip(0) != tip(text):
                    item.setToolTip(0, tip(text))

    def _count_pages(self, cluster: ClusterId, views: Sequence[ClusterView]) -> None:
        """How much there is of all that these clusters have together."""
        self._count(Place(cluster, "roles"), sum(len(view.vms) for view in views))
        self._count(Place(cluster, "nodes"), sum(len(view.nodes) for view in views))
        pools = [pool.status for view in views for pool in view.resources.pools.values()]
        networks = [network.status for view in views for network in view.resources.networks.values()]
        for page, statuses, well in (
            ("storage", pools, PoolStatus.ONLINE),
            ("networks", networks, NetworkStatus.UP),
        ):
            is_well = all(status in (well, "Unknown") for status in statuses)
            if statuses:  # before anything was read, none is not known to be none
                self._count(Place(cluster, page), len(statuses), "" if is_well else "paused")

    def _count(self, place: Place, count: int | None, alert: str = "") -> None:
        item = self._items.get(place)
        if item is not None:
            _set(item, COUNT, "" if count is None else f"{count:,}")
            _set(item, ALERT, alert if count else "")

    def _item(
        self, parent: QTreeWidgetItem | None, title: str, place: Place, colour: str = ""
    ) -> QTreeWidgetItem:
        item = QTreeWidgetItem([title])
        item.setData(0, PLACE, place)
        if colour:
            item.setData(0, COLOUR, colour)
        if parent is None:
            self.insertTopLevelItem(0 if place.cluster == EVERY else self.topLevelItemCount(), item)
        else:
            parent.addChild(item)
        self._items[place] = item
        return item

    def _current_changed(self, item: QTreeWidgetItem | None, _: QTreeWidgetItem | None) -> None:
        if item is not None and not self._quiet:
            self.went.emit(item.data(0, PLACE))


def _set(item: QTreeWidgetItem, role: int, value: Any) -> None:
    if item.data(0, role) != value:
        item.setData(0, role, value)


def _tier_text(tier: Tier, read_only: bool) -> str:
    text = {
        Tier.DEMO: "a demo: simulated inside this program",
        Tier.MANAGED: "managed: no automatic failover",
        Tier.HIGH_AVAILABILITY: "high availability: failover by Pacemaker",
        Tier.DUMP: "a dump: what the hosts said when it was made",
    }[tier]
    return f"{text}, read-only" if read_only else text


def tier_text(runtime: Runtime) -> str:
    """The cluster's tier as the status bar says it."""
    config = runtime.view.config
    return _tier_text(config.tier, config.read_only)


def node_of(scope: str) -> NodeId | None:
    """The node of a scope ``node:NAME``."""
    return NodeId(scope.removeprefix("node:")) if scope.startswith("node:") else None

"""Below Storage and Networks: on which nodes and how, what is in a pool, and which VMs use it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import shiboken6
from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QStackedWidget,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from manager.core import units
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, NetworkId, NodeId, PoolId
from manager.core.query.fields import FIELDS
from manager.core.query.spec import natural
from manager.core.query.vm_fields import status_text
from manager.core.resource_facts import Network, Pool, SeenInterface, SeenNetwork, SeenPool, Volume
from manager.core.resources import with_users
from manager.services.ports import ViewStore
from manager.services.runtime import Runtime
from manager.ui.icons import state_pixmap
from manager.ui.models import tones
from manager.ui.models.rows_model import RowsModel, plain
from manager.ui.theme import Look, repolish
from manager.ui.views.parts import (
    ElidedLabel,
    EmptyState,
    FactsGrid,
    FlatBar,
    PlainTable,
    flat_button,
    text_label,
)
from manager.ui.views.table import RowsTable

RESOURCES = frozenset({Kind.POOL, Kind.NETWORK})
"""The kinds whose details these are."""

NO_STORY = "Nothing has happened to it while Muster looked."

INTERFACE_TITLES = ("Name", "Kind", "Status", "MAC address", "Addresses", "Ports", "MTU", "Speed")
POOL_TITLES = ("Name", "Status", "Type", "Source", "Path", "Used", "Free", "Capacity", "Autostart")


def by_name_and_node(view: ClusterView, pool: Pool) -> tuple[object, object]:
    """The order of pools before anybody sorts them: those of the same name by their nodes."""
    return natural(pool.name.lower()), natural(pool.nodes[0])


def interface_row(each: SeenInterface) -> tuple[str, ...]:
    """An interface as a line of a table with `INTERFACE_TITLES`."""
    return (
        each.name,
        each.kind,
        "Up" if each.is_active else "Down",
        each.mac,
        ", ".join(each.addresses),
        ", ".join(each.ports),
        str(each.mtu or ""),
        f"{each.speed_mbit:,} Mbit/s" if each.speed_mbit else "",
    )


def network_row(seen: SeenNetwork) -> tuple[str, ...]:
    """A network of libvirt's as a line of a table with `INTERFACE_TITLES`."""
    status = "Up" if seen.is_active else "Down"
    return (seen.name, f"libvirt, {seen.mode}", status, "", ", ".join(seen.subnets), seen.bridge, "", "")


def pool_row(seen: SeenPool) -> tuple[str, ...]:
    """What one node says of a pool, as a line of a table with `POOL_TITLES`."""
    size, free = seen.capacity_bytes, seen.free_bytes
    return (
        seen.name,
        seen.state.value,
        seen.kind_text,
        seen.source_text,
        seen.target,
        "–" if not size or free is None else f"{100 * (size - free) / size:.0f} %",
        "–" if free is None else units.size_text(free),
        "–" if size is None else units.size_text(size),
        "yes" if seen.autostart else "no",
    )


class Volumes(QWidget):
    """What is in a pool: read when this is opened, and again when asked to."""

    def __init__(self, runtime: Runtime, look: Look, views: ViewStore) -> None:
        super().__init__()
        self.setObjectName("panel")
        self._runtime = runtime
        self._pool: PoolId | None = None  # whose volumes these are, or are being read
        self._rows: dict[str, Volume] = {}
        self._said = text_label(style="dim")
        self._again = flat_button("Read again", on_click=self.read)
        self._again.setToolTip("Let the host look what is in the pool")
        self.model = RowsModel(Kind.VOLUME, runtime.view, extra=self._rows)
        self.table = RowsTable(self.model, look, name="table-volume", views=views, title="Volumes")
        self.empty = EmptyState(self.table.viewport())
        strip = QHBoxLayout()
        strip.setContentsMargins(12, 2, 8, 2)
        strip.addWidget(self._said, 1)
        strip.addWidget(self._again)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(strip)
        layout.addWidget(self.table, 1)

    @property
    def said(self) -> str:
        """The line above the list."""
        return self._said.text()

    def show_pool(self, pool: PoolId) -> None:
        """Show this pool's volumes: read them, unless they are those that are shown."""
        if pool != self._pool:
            self._pool = pool
            self.read()

    def forget(self) -> None:
        """Another pool is looked at: what was read of this one is old when one comes back."""
        self._pool = None
        self._show({})

    def read(self) -> None:
        """Ask a host."""
        if self._pool is not None:
            self._show({})
            self._said.setText("Being read…")
            self._again.setEnabled(False)
            self.empty.hide()
            self._runtime.resources.ask_volumes(self._pool, partial(self._told, self._pool))

    def _told(self, pool: PoolId, node: NodeId | None, found: tuple[Volume, ...], trouble: str) -> None:
        if pool != self._pool or not shiboken6.isValid(self):
            return  # another one is looked at by now
        taken = units.size_text(sum(volume.allocated_bytes or 0 for volume in found))
        at = units.time_text(self._runtime.clock.now_s())
        count = units.count_text(len(found), "volume")
        self._said.setText(plain(trouble or f"{count}, {taken} allocated, as {node} said {at}"))
        self._again.setEnabled(True)
        self._show({volume.id: volume for volume in found})
        if found:
            self.empty.hide()
        else:
            self.empty.say("Not read" if trouble else "No volumes", plain(trouble))

    def look_again(self) -> None:
        """VMs came, went or changed: who uses what may be different."""
        if self._pool is None or not self._rows:
            return
        changes = ChangeSet()
        for volume in with_users(self._runtime.view, self._pool, self._rows.values()):
            if volume != self._rows[volume.id]:
                self._rows[volume.id] = volume
                changes[Kind.VOLUME].update(volume.id, ("users", "overlays"))
        if changes:
            self.model.take(changes)

    def _show(self, rows: dict[str, Volume]) -> None:
        self._rows.clear()
        self._rows.update(rows)
        self.model.load()


class ResourceDetails(QWidget):
    """Tabs about the selected pool or network. Works only while it is visible."""

    def __init__(self, runtime: Runtime, kind: Kind, look: Look, views: ViewStore) -> None:
        super().__init__()
        self._runtime, self._kind, self._look = runtime, kind, look
        self._ids: tuple[str, ...] = ()
        self._stale = False
        self.setMinimumHeight(84)
        self._shape = QLabel()
        self.title = ElidedLabel(style="title")
        self.title.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)
        self.tabs = QTabBar()
        self.tabs.setDrawBase(False)
        self.tabs.setExpanding(False)
        self.tabs.setAccessibleName("Details")
        head = QWidget()
        head.setObjectName("strip")
        head.setFixedHeight(look.sizes.row_px + 6)
        row = QHBoxLayout(head)
        row.setContentsMargins(12, 0, 8, 0)
        row.setSpacing(7)
        for widget in (self._shape, self.title, self.tabs):
            row.addWidget(widget)
        row.addStretch(1)
        self._stack = QStackedWidget()
        self._stack.setObjectName("panel")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(head)
        layout.addWidget(self._stack, 1)
        self._notes = text_label(wrap=True, copyable=True)
        self._notes.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self._facts = FactsGrid(3)
        self._bar, self._bar_text = FlatBar(look), text_label(style="dim")
        self._add("Summary", self._summary())
        titles = (
            ("Node", *POOL_TITLES)
            if kind is Kind.POOL
            else ("Node", "Status", "Bridge", "Ports", "Addresses", "Autostart")
        )
        name = "Nodes" if kind is Kind.POOL else "Network connections"
        self._nodes = PlainTable(titles, look, name=name)
        self._add(name, self._nodes)
        self.volumes = Volumes(runtime, look, views) if kind is Kind.POOL else None
        if self.volumes is not None:
            self._add("Volumes", self.volumes)
        self._vms = PlainTable(("VM", "Status", "Node", "Uses"), look, name="VMs", empty="No VM uses it.")
        self._add("VMs", self._vms)
        self._story = PlainTable(("Time", "What happened"), look, name="Story", empty=NO_STORY)
        self._add("Story", self._story)
        self.tabs.currentChanged.connect(self._turned)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(30)
        self._later.timeout.connect(self._fill)
        look.changed.connect(self._fill)
        self._say_nothing()

    def _add(self, title: str, page: QWidget) -> None:
        self.tabs.addTab(title)
        self._stack.addWidget(page)

    def _turned(self, tab: int) -> None:
        self._stack.setCurrentIndex(tab)
        self._fill()

    def _summary(self) -> QWidget:
        body = QWidget()
        body.setObjectName("panel")
        layout = QVBoxLayout(body)
        layout.setContentsMargins(12, 6, 12, 8)
        layout.setSpacing(8)
        layout.addWidget(self._notes)
        line = QHBoxLayout()
        line.setSpacing(10)
        self._bar.setMaximumWidth(360)
        line.addWidget(self._bar, 2)
        line.addWidget(self._bar_text)
        line.addStretch(1)
        layout.addLayout(line)
        layout.addWidget(self._facts)
        layout.addStretch(1)
        return body

    # --- what is shown -------------------------------------------------------------------------

    def show_ids(self, ids: Sequence[str], hidden: int = 0) -> None:
        """Show these objects."""
        if tuple(ids) != self._ids and self.volumes is not None:
            self.volumes.forget()
        self._ids = tuple(ids)
        self._later.start()

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed, if it concerns what is shown."""
        mine = changes[self._kind]
        if any(key in mine.updated or key in mine.removed or key in mine.added for key in self._ids):
            if self.volumes is not None:
                self.volumes.look_again()
            if not self._later.isActive():
                self._later.start()

    def showEvent(self, event: Any) -> None:
        """Catch up."""
        super().showEvent(event)
        if self._stale:
            self._later.start()

    def _say_nothing(self) -> None:
        what = "a pool" if self._kind is Kind.POOL else "a network"
        self._shape.hide()
        self._show_title(f"Select {what} to see the details here", style="dim")
        for widget in (self._notes, self._facts, self._bar, self._bar_text, self.tabs):
            widget.hide()
        self.tabs.setCurrentIndex(0)

    def _fill(self) -> None:
        self._stale = not self.isVisible()
        if self._stale:
            return
        view = self._runtime.view
        resources = view.resources
        source: Any = resources.pools if self._kind is Kind.POOL else resources.networks
        found = [source[key] for key in self._ids if key in source]
        if len(found) != 1:
            self._say_nothing()
            if found:
                self._show_title(self._many(found))
            return
        self.tabs.show()
        row = found[0]
        shape = tones.pool_shape(row) if self._kind is Kind.POOL else tones.network_shape(row)
        self._shape.setPixmap(
            state_pixmap(shape[0], self._look.tokens.colour(shape[1]), self.devicePixelRatioF())
        )
        self._shape.show()
        self._show_title(plain(f"{row.name}   {row.status.value}"))
        current = self._stack.currentWidget()
        if current is self._story:
            lines = view.story(row.id)
            self._story.show_rows([(units.time_text(x.at_s), x.text) for x in reversed(lines)])
        elif current is self._vms:
            self._vms.show_rows(self._vm_rows(view, row))
        elif current is self._nodes:
            self._nodes.show_rows(self._node_rows(view, row))
        elif self.volumes is not None and current is self.volumes:
            self.volumes.show_pool(row.id)
        else:
            self._fill_summary(view, row)

    def _many(self, found: Sequence[Any]) -> str:
        if self._kind is Kind.NETWORK:
            return f"{units.count_text(len(found), 'network')} selected"
        free = sum(pool.free_bytes or 0 for pool in found)
        size = sum(pool.capacity_bytes or 0 for pool in found)
        count = units.count_text(len(found), "pool")
        return f"{count} selected: {units.size_text(free)} of {units.size_text(size)} free"

    def _fill_summary(self, view: ClusterView, row: Any) -> None:
        notes = [f"{n.text}. {n.remedy}" if n.remedy else n.text for n in row.notes]
        text = "\n".join(plain(note) for note in notes)
        if self._notes.text() != text:
            self._notes.setText(text)
        self._notes.setVisible(bool(notes))
        fields = FIELDS[self._kind]
        wanted = (
            ("reach", "nodes", "type", "vms", "source", "path", "autostart")
            if self._kind is Kind.POOL
            else ("use", "nodes", "type", "vms", "bridge", "subnets", "autostart")
        )
        self._facts.show_facts([(fields[name].title, fields[name].cell(view, row) or "–") for name in wanted])
        self._facts.show()
        percent = row.used_percent if isinstance(row, Pool) else None
        self._bar.setVisible(percent is not None)
        self._bar_text.setVisible(percent is not None)
        if isinstance(row, Pool) and percent is not None:
            marks = tones.MARKS[Kind.POOL, "used"]
            self._bar.show_share(percent / 100, tones.fill_token(percent), marks)
            used, size = units.size_text(row.used_bytes or 0), units.size_text(row.capacity_bytes or 0)
            left = units.size_text(row.free_bytes or 0)
            self._bar_text.setText(f"{percent:.0f} %: {used} of {size} used, {left} free")
            self._bar.setAccessibleName(f"Used: {percent:.0f} %")

    def _node_rows(self, view: ClusterView, row: Any) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        silent = "not heard; it said: "
        if isinstance(row, Pool):
            for node, seen in self._sorted(view.resources.pool_at(PoolId(row.id))):
                name, state, *rest = pool_row(seen)
                state = state if view.nodes[node].is_up else f"{silent}{state}"
                found.append((node, name, state, *rest))
            width = len(POOL_TITLES) - 2
        else:
            for node, at in self._sorted(view.resources.network_at(NetworkId(row.id))):
                state = "Up" if at.is_active else "Down"
                state = state if view.nodes[node].is_up else f"{silent}{state}"
                if isinstance(at, SeenInterface):
                    found.append((node, state, at.name, ", ".join(at.ports), ", ".join(at.addresses), ""))
                else:
                    subnets = ", ".join(at.subnets)
                    found.append((node, state, at.bridge, "", subnets, "yes" if at.autostart else "no"))
            width = 4
        before = ("",) if isinstance(row, Pool) else ()
        found += [(node, *before, "Missing", *("",) * width) for node in row.missing]
        return sorted(found, key=lambda line: natural(line[0]))

    @staticmethod
    def _sorted(at: Any) -> list[tuple[NodeId, Any]]:
        return sorted(at.items(), key=lambda pair: natural(pair[0]))

    def _vm_rows(self, view: ClusterView, row: Pool | Network) -> list[tuple[str, ...]]:
        found = []
        for key in view.resources.users(row.id):
            vm = view.vms.get(key)
            if vm is None or vm.config is None:
                continue
            if isinstance(row, Pool):
                uses = ", ".join(f"{disk.target}: {disk.source}" for disk in vm.config.disks if disk.source)
            else:
                uses = ", ".join(i.mac for i in vm.config.interfaces if i.source == row.name)
            found.append((vm.name, status_text(vm), vm.owner or "", uses))
        return sorted(found, key=lambda line: natural(line[0]))

    def _show_title(self, text: str, style: str = "title") -> None:
        if self.title.objectName() != style:
            self.title.setObjectName(style)
            repolish(self.title)
        self.title.set_text(text)
        wanted = self.title.fontMetrics().horizontalAdvance(text) + 14
        taken = self.tabs.sizeHint().width() + 60 if not self.tabs.isHidden() else 60
        self.title.setFixedWidth(max(80, min(wanted, self.width() - taken)))

"""Below a list: what is known of the selected object, or the counts of many."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QPointF, QRect, Qt, QTimer, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from manager.core import units
from manager.core.actions import LIVE_MIGRATE, Denied
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, NodeId, VmId
from manager.core.model import Node, Vm
from manager.core.query.fields import FIELDS
from manager.core.query.vm_fields import status_text
from manager.services.runtime import Runtime
from manager.ui.actions import ActionCenter
from manager.ui.icons import state_pixmap
from manager.ui.models import tones
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look, repolish
from manager.ui.views.events_page import EventsTab
from manager.ui.views.parts import ElidedLabel, FactsGrid, PlainTable, text_label
from manager.ui.views.resource_details import (
    INTERFACE_TITLES,
    POOL_TITLES,
    interface_row,
    network_row,
    pool_row,
)

HISTORY_S = 600.0
"""How far back the Performance tab reaches."""

_LISTED = 200
"""Selections up to this size are listed VM by VM where an action does not apply; larger ones by reason."""


class History:
    """Load samples of the objects that were looked at, for the last ten minutes."""

    _OBJECTS = 16

    def __init__(self) -> None:
        self._samples: dict[tuple[Kind, str], deque[tuple[float, float, float]]] = {}

    def follow(self, kind: Kind, key: str) -> None:
        """Begin to keep samples of an object."""
        if (kind, key) not in self._samples:
            while len(self._samples) >= self._OBJECTS:
                del self._samples[next(iter(self._samples))]
            self._samples[kind, key] = deque()

    def take(self, view: ClusterView, changes: ChangeSet) -> None:
        """Keep what was measured anew."""
        for (kind, key), samples in self._samples.items():
            if "load" not in changes[kind].updated.get(key, ()):
                continue
            found = _figures(view, kind, key)
            if found is not None and (not samples or samples[-1][0] < found[0]):
                samples.append(found)
                while samples[0][0] < found[0] - HISTORY_S:
                    samples.popleft()

    def of(self, kind: Kind, key: str) -> Sequence[tuple[float, float, float]]:
        """(time, CPU %, memory GiB), oldest first."""
        return self._samples.get((kind, key), ())


def _figures(view: ClusterView, kind: Kind, key: str) -> tuple[float, float, float] | None:
    if kind is Kind.VM:
        load = view.vm_loads.get(VmId(key))
        if load is None or load.cpu_percent is None:
            return None
        return load.at_s, load.cpu_percent, (load.memory_used_mib or 0) / 1024
    node_load = view.node_loads.get(NodeId(key))
    node = view.nodes.get(NodeId(key))
    if node_load is None or node_load.cpu_percent is None or node is None or node.facts is None:
        return None
    used = node.facts.memory_mib - (node_load.memory_free_mib or 0)
    return node_load.at_s, node_load.cpu_percent, used / 1024


class Chart(QWidget):
    """One figure over ten minutes, painted here: a plot library takes a third of a second to load."""

    def __init__(self, look: Look, title: str, *, top: float | None = None) -> None:
        super().__init__()
        self._look = look
        self._title = title
        self._top = top  # None: as the values need it
        self._points: list[tuple[float, float]] = []
        self.setMinimumHeight(60)
        look.changed.connect(self.update)

    def show_points(self, points: Sequence[tuple[float, float]]) -> None:
        """(time, value), oldest first."""
        self._points = list(points)
        now = f"{self._points[-1][1]:.1f}" if self._points else "not measured yet"
        self.setAccessibleName(f"{self._title}: {now}")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Title, three lines with their values, the curve; now is at the right."""
        painter = QPainter(self)
        try:
            self._paint(painter)
        finally:
            painter.end()

    def _paint(self, painter: QPainter) -> None:
        t = self._look.tokens
        left, middle = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignVCenter
        right = Qt.AlignmentFlag.AlignRight
        painter.setPen(t.dim)
        head = QRect(0, 0, self.width(), 18)
        value = f"   {self._points[-1][1]:.1f} now" if self._points else "   not measured yet"
        painter.drawText(head, int(left | middle), self._title + value)
        area = QRect(44, 24, self.width() - 56, max(20, self.height() - 46))
        highest = max((v for _, v in self._points), default=1.0)
        top = self._top or max(1.0, math.ceil(highest * 1.2))
        for share in (0.0, 0.5, 1.0):
            y = area.bottom() - round(area.height() * share)
            painter.setPen(t.line)
            painter.drawLine(area.left(), y, area.right(), y)
            painter.setPen(t.dim)
            painter.drawText(QRect(0, y - 8, 38, 16), int(right | middle), f"{top * share:g}")
        foot = QRect(area.left(), area.bottom() + 4, area.width(), 16)
        painter.drawText(foot, int(left | middle), "10 min ago")
        painter.drawText(foot, int(right | middle), "now")
        if len(self._points) < 2:
            return
        newest = self._points[-1][0]
        line = QPolygonF(
            [
                QPointF(
                    area.right() + (at - newest) / HISTORY_S * area.width(),
                    area.bottom() - min(1.0, v / top) * area.height(),
                )
                for at, v in self._points
            ]
        )
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(t.accent, 1.5))
        painter.drawPolyline(line)


class Performance(QWidget):
    """CPU and memory of one object over the last ten minutes."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.setObjectName("panel")
        self.cpu, self.memory = Chart(look, "CPU %", top=100.0), Chart(look, "Memory GiB")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(12, 6, 12, 4)
        layout.setSpacing(24)
        layout.addWidget(self.cpu, 1)
        layout.addWidget(self.memory, 1)

    def show_samples(self, samples: Sequence[tuple[float, float, float]]) -> None:
        """Draw (time, CPU %, memory GiB), oldest first."""
        self.cpu.show_points([(at, cpu) for at, cpu, _ in samples])
        self.memory.show_points([(at, memory) for at, _, memory in samples])


class Details(QWidget):
    """Tabs about what is selected. Works only while it is visible."""

    wants_samples = Signal(bool)

    def __init__(self, runtime: Runtime, kind: Kind, look: Look, center: ActionCenter) -> None:
        super().__init__()
        self._runtime = runtime
        self._kind = kind
        self._look = look
        self._center = center
        self._ids: tuple[str, ...] = ()
        self._hidden = 0
        self._stale = False
        self.history = History()
        self.setMinimumHeight(84)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self._head = QWidget()
        self._head.setObjectName("strip")
        head_layout = QHBoxLayout(self._head)
        head_layout.setContentsMargins(12, 0, 8, 0)
        head_layout.setSpacing(7)
        self._shape = QLabel()
        self.title = ElidedLabel(style="title")
        self.title.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)
        head_layout.addWidget(self._shape)
        head_layout.addWidget(self.title)
        self.tabs = QTabBar()
        self.tabs.setDrawBase(False)
        self.tabs.setExpanding(False)
        self.tabs.setAccessibleName("Details")
        head_layout.addWidget(self.tabs)
        head_layout.addStretch(1)
        self._head.setFixedHeight(look.sizes.row_px + 6)
        self._stack = QStackedWidget()
        self._stack.setObjectName("panel")
        layout.addWidget(self._head)
        layout.addWidget(self._stack, 1)
        self._facts = FactsGrid(3)
        self._notes = text_label(wrap=True, copyable=True)
        self._notes.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self._blocked = PlainTable(("VM", "Why not", "What to do"), look, name="Cannot be live migrated")
        self._add("Summary", self._summary())
        if kind is Kind.VM:
            self._disks = PlainTable(
                ("Target", "Device", "Source", "Kind", "Format", "Cache", "Size"), look, name="Disks"
            )
            self._networks = PlainTable(("MAC address", "Kind", "Source", "Model"), look, name="Networks")
            self._sightings = PlainTable(
                ("Node", "Status", "Cause", "Told at", "Since", "Definition"), look, name="Sightings"
            )
            self._add("Disks", self._disks)
            self._add("Networks", self._networks)
        self._story = PlainTable(("Time", "What happened"), look, name="Story")
        self._performance = Performance(look)
        self._add("Performance", self._performance)
        if kind is Kind.NODE:
            self._pools = PlainTable(POOL_TITLES, look, name="Storage")
            self._connections = PlainTable(INTERFACE_TITLES, look, name="Network connections")
            self._add("Storage", self._pools)
            self._add("Network connections", self._connections)
        self._add("Story", self._story)
        self.events = EventsTab(runtime, kind, look)
        self._add("Events", self.events)
        if kind is Kind.VM:
            self._add("Sightings", self._sightings)
        self.tabs.currentChanged.connect(self._turned)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(30)
        self._later.timeout.connect(self._fill)
        look.changed.connect(self._fill)
        self.say_nothing()

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
        layout.addWidget(self._facts)
        layout.addWidget(self._blocked, 1)
        self._spacer = QWidget()
        layout.addWidget(self._spacer, 1)
        scroll = QScrollArea()
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidgetResizable(True)
        scroll.setWidget(body)
        return scroll

    # --- what is shown -------------------------------------------------------------------------

    def show_ids(self, ids: Sequence[str], hidden: int = 0) -> None:
        """Show these objects."""
        self._ids = tuple(ids)
        self._hidden = hidden
        if len(ids) == 1:
            self.history.follow(self._kind, ids[0])
        self._later.start()

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed, if it concerns what is shown."""
        self.history.take(self._runtime.view, changes)
        self.events.take(changes)
        mine = changes[self._kind]
        if len(self._ids) <= _LISTED:
            hit = any(key in mine.updated or key in mine.removed for key in self._ids)
        else:
            hit = bool(mine.updated or mine.removed)
        if hit and not self._later.isActive():
            # A thousand selected are counted once a second, one is followed at once.
            self._later.start(30 if len(self._ids) <= _LISTED else 1000)

    def showEvent(self, event: Any) -> None:
        """Catch up."""
        super().showEvent(event)
        if self._stale:
            self._later.start()

    @property
    def shows_performance(self) -> bool:
        """Whether the chart is open and needs figures."""
        return self.isVisible() and self._stack.currentWidget() is self._performance and len(self._ids) == 1

    def say_nothing(self) -> None:
        """Nothing is selected."""
        what = "VMs" if self._kind is Kind.VM else "a node"
        self._shape.clear()
        self._shape.hide()
        self._show_title(f"Select {what} to see the details here", style="dim")
        self._notes.hide()
        self._facts.hide()
        self._blocked.hide()
        self.tabs.setCurrentIndex(0)
        self.tabs.hide()

    def _fill(self) -> None:
        self._stale = not self.isVisible()
        if self._stale:
            return
        self.wants_samples.emit(self.shows_performance)
        view = self._runtime.view
        source: Any = view.vms if self._kind is Kind.VM else view.nodes
        found = [source[key] for key in self._ids if key in source]
        if not found:
            self.say_nothing()
            return
        self.tabs.setVisible(len(found) == 1)
        if len(found) > 1:
            self._fill_many(view, found)
        elif self._kind is Kind.VM:
            self._fill_vm(view, found[0])
        else:
            self._fill_node(view, found[0])

    # --- one VM ----------------------------------------------------------------------------------

    def _fill_vm(self, view: ClusterView, vm: Vm) -> None:
        self._show_shape(tones.vm_shape(vm))
        activity = f", {vm.activity.value.lower()}" if vm.activity.value else ""
        where = f" on {vm.owner}" if vm.owner else ""
        self._show_title(plain(f"{vm.name}   {status_text(vm)}{where}{activity}"))
        current = self._stack.currentWidget()
        if current is self.events:
            self.events.show_of(vm.id)
        elif current is self._disks:
            self._disks.show_rows(self._disk_rows(vm))
        elif current is self._networks:
            interfaces = vm.config.interfaces if vm.config else ()
            self._networks.show_rows((i.mac, i.kind, i.source, i.model) for i in interfaces)
        elif current is self._story:
            self._fill_story(vm.id)
        elif current is self._sightings:
            self._sightings.show_rows(self._sighting_rows(view, vm))
        elif current is self._performance:
            self._performance.show_samples(self.history.of(Kind.VM, vm.id))
        else:
            self._blocked.hide()
            self._spacer.show()
            self._show_notes([_with_remedy(note) for note in vm.notes])
            self._facts.show()
            self._facts.show_facts(self._vm_facts(view, vm))

    def _vm_facts(self, view: ClusterView, vm: Vm) -> list[tuple[str, str]]:
        fields = FIELDS[Kind.VM]

        def cell(name: str) -> str:
            return fields[name].cell(view, vm) or "–"

        load = view.vm_loads.get(vm.id)
        used = load.memory_used_mib if load else None
        memory = f"{cell('memory_mib')} GiB"
        config = vm.config
        facts = [
            ("Owner node", cell("owner")),
            ("Priority", cell("priority")),
            ("Uptime", cell("uptime_s")),
            ("CPU", f"{cell('cpu')} %" if load and load.cpu_percent is not None else "–"),
            ("vCPUs", cell("vcpus")),
            ("Memory", memory + (f", {units.mib_text(used)} used" if used else "")),
            ("Guest agent", cell("agent")),
            ("Networks", cell("networks")),
            ("Movable", cell("movable")),
            ("Tags", cell("tags")),
            ("Authority", vm.authority.value),
            ("Also on", cell("other_nodes")),
            ("Machine", f"{config.arch} {config.machine}".strip() or "–" if config else "…"),
            ("Autostart", ("on" if config.autostart else "off") if config else "…"),
            ("UUID", vm.id),
        ]
        return facts

    def _disk_rows(self, vm: Vm) -> list[tuple[str, ...]]:
        return [
            (
                d.target,
                d.device + (", read-only" if d.read_only else ""),
                d.source or "no medium",
                d.kind,
                d.format,
                d.cache or "default",
                units.size_text(d.capacity_bytes) if d.capacity_bytes else "",
            )
            for d in (vm.config.disks if vm.config else ())
        ]

    def _sighting_rows(self, view: ClusterView, vm: Vm) -> list[tuple[str, ...]]:
        return [
            (
                s.node,
                s.status.value,
                s.cause.value,
                units.time_text(s.state_at_s) if s.state_at_s else "",
                units.time_text(s.changed_at_s) if s.changed_at_s else "before we looked",
                "read" if s.config else "being read",
            )
            for s in view.sightings(vm.id).values()
        ]

    # --- one node --------------------------------------------------------------------------------

    def _fill_node(self, view: ClusterView, node: Node) -> None:
        self._show_shape(tones.node_shape(node))
        self._show_title(f"{node.id}   {FIELDS[Kind.NODE]['status'].cell(view, node)}")
        current = self._stack.currentWidget()
        if current is self.events:
            self.events.show_of(node.id)
            return
        if current is self._story:
            self._fill_story(node.id)
            return
        if current is self._performance:
            self._performance.show_samples(self.history.of(Kind.NODE, node.id))
            return
        if current is self._pools:
            pools = view.resources.pools_of(node.id) or {}
            self._pools.show_rows(sorted(pool_row(seen) for seen in pools.values()))
            return
        if current is self._connections:
            networks = view.resources.networks_of(node.id) or {}
            interfaces = view.resources.interfaces_of(node.id) or {}
            rows = [interface_row(each) for each in interfaces.values()]
            self._connections.show_rows(sorted(rows) + sorted(network_row(n) for n in networks.values()))
            return
        self._blocked.hide()
        self._spacer.show()
        notes = [_with_remedy(node.information)] if node.information else []
        notes += [f"Held by {h.who} since {units.time_text(h.since_s)}: {h.why}" for h in node.holds]
        self._show_notes(notes)
        fields = FIELDS[Kind.NODE]

        def cell(name: str) -> str:
            return fields[name].cell(view, node) or "–"

        self._facts.show()
        self._facts.show_facts(
            [
                ("Host name", cell("hostname")),
                ("Connection", node.uri),
                ("Last seen", cell("last_seen")),
                ("CPUs", cell("cpus")),
                ("CPU model", cell("cpu_model")),
                ("CPU use", f"{cell('cpu')} %" if node.id in view.node_loads else "–"),
                ("Memory", f"{cell('memory_mib')} GiB"),
                ("Free", f"{cell('memory_free_mib')} GiB"),
                ("Promised", f"{units.mib_text(view.committed_mib(node.id))} to VMs and moves"),
                ("VMs", f"{node.vms_total}, {node.vms_running} running"),
                ("Hypervisor", cell("hypervisor")),
                ("Drain", cell("drain")),
            ]
        )

    # --- many --------------------------------------------------------------------------------------

    def _fill_many(self, view: ClusterView, found: list[Any]) -> None:
        self._shape.hide()
        self.tabs.setCurrentIndex(0)
        if self._kind is Kind.NODE:
            self._show_title(units.count_text(len(found), "node") + " selected")
            self._facts.hide()
            self._blocked.hide()
            self._show_notes(
                [f"{n.id}: {n.status.value}, {n.vms_running} of {n.vms_total} VMs running" for n in found]
            )
            return
        self._show_title(many_title(found, self._hidden))
        memory = sum(vm.config.memory_mib for vm in found if vm.config)
        vcpus = sum(vm.config.vcpus for vm in found if vm.config)
        nodes = Counter(vm.owner for vm in found)
        shown = ", ".join(f"{node} {count}" for node, count in nodes.most_common(6))
        self._facts.show()
        self._facts.show_facts(
            [
                ("Memory", units.mib_text(memory)),
                ("vCPUs", str(vcpus)),
                ("On", shown + (f" and {len(nodes) - 6} more nodes" if len(nodes) > 6 else "")),
            ]
        )
        blocked = self._blocked_rows(view, found)
        count = self._center.counts["vm.live_migrate.best"]
        number = sum(count.denied.values()) if len(found) > _LISTED else len(blocked)
        self._show_notes([f"Cannot live migrate: {number}"] if number else [])
        self._blocked.setVisible(bool(blocked))
        self._spacer.setVisible(not blocked)
        self._blocked.show_rows(blocked)

    def _blocked_rows(self, view: ClusterView, found: list[Vm]) -> list[tuple[str, str, str]]:
        if len(found) > _LISTED:
            denied = self._center.counts["vm.live_migrate.best"].denied
            return [(units.count_text(n, "VM"), r.text, r.remedy) for r, n in denied.most_common(50)]
        rows = []
        for vm in found:
            verdict = LIVE_MIGRATE.verdict(view, vm.id)
            if isinstance(verdict, Denied):
                rows.append((vm.name, verdict.reason.text, verdict.reason.remedy))
        return rows

    # --- pieces --------------------------------------------------------------------------------------

    def _fill_story(self, key: str) -> None:
        lines = self._runtime.stories.of(key) if self._kind is Kind.VM else self._runtime.view.story(key)
        self._story.show_rows([(units.time_text(x.at_s), x.text) for x in reversed(lines)])

    def _show_title(self, text: str, style: str = "title") -> None:
        if self.title.objectName() != style:
            self.title.setObjectName(style)
            repolish(self.title)
        self.title.set_text(text)
        wanted = self.title.fontMetrics().horizontalAdvance(text) + 14
        taken = self.tabs.sizeHint().width() + 60 if not self.tabs.isHidden() else 60
        self.title.setFixedWidth(max(80, min(wanted, self.width() - taken)))

    def _show_shape(self, shape: tones.Shape) -> None:
        colour = self._look.tokens.colour(shape[1])
        self._shape.setPixmap(state_pixmap(shape[0], colour, self.devicePixelRatioF()))
        self._shape.show()

    def _show_notes(self, lines: list[str]) -> None:
        text = "\n".join(plain(line) for line in lines)
        if self._notes.text() != text:
            self._notes.setText(text)
        self._notes.setVisible(bool(lines))


def many_title(found: Sequence[Vm], hidden: int) -> str:
    """``37 selected: 35 running, 1 moving, 1 unknown │ 5 more hidden``."""
    moving = sum(1 for vm in found if vm.moving_to is not None)
    states = Counter(vm.status.value.lower() for vm in found if vm.moving_to is None)
    parts = [f"{n:,} {name}" for name, n in states.most_common()]
    if moving:
        parts.insert(1 if parts else 0, f"{moving} moving")
    text = f"{len(found):,} selected: {', '.join(parts)}"
    return f"{text}  │  {hidden:,} more hidden" if hidden else text


def _with_remedy(note: Any) -> str:
    return f"{note.text}. {note.remedy}" if note.remedy else str(note.text)

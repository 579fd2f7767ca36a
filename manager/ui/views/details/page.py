"""Below a list: what is known of the selected object, or the counts of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
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
from manager.core.actions import LIVE_MIGRATE, ActionSpec, Denied
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, VmId
from manager.core.model import Authority, Node, Vm
from manager.core.query.fields import FIELDS
from manager.core.query.spec import natural
from manager.core.query.vm_fields import status_text
from manager.services.runtime import Runtime
from manager.ui.actions import ActionCenter
from manager.ui.icons import state_pixmap
from manager.ui.models import tones
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look, repolish
from manager.ui.views.details.charts import Charts, History
from manager.ui.views.details.console import ConsoleTab
from manager.ui.views.details.definition import DefinitionTab
from manager.ui.views.details.screen import ScreenPicture
from manager.ui.views.details.snapshots import SnapshotsTab
from manager.ui.views.events_page import EventsTab
from manager.ui.views.parts import ElidedLabel, FactsGrid, PlainTable, text_label, tip
from manager.ui.views.resource_details import (
    INTERFACE_TITLES,
    NO_STORY,
    POOL_TITLES,
    interface_row,
    network_row,
    pool_row,
)

_LISTED = 200
"""Selections up to this size are listed VM by VM where an action does not apply; larger ones by reason."""


_ROLE_FIELDS = ("name", "status", "priority", "vcpus", "memory_mib", "uptime_s", "information")
_COMPARED = (
    *("status", "owner", "priority", "memory_mib", "vcpus", "agent", "movable", "networks", "tags"),
    *("uptime_s", "activity", "other_nodes"),
)
"""Fields by which several VMs are compared, in this order."""


class Details(QWidget):
    """Tabs about what is selected. Works only while it is visible."""

    wants_samples = Signal(bool, object)  # of whose disks: a node, or None

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
        self._facts = FactsGrid(2 if kind is Kind.VM else 3)
        self._notes = text_label(wrap=True, copyable=True)
        self._notes.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self._blocked = PlainTable(("VM", "Why not", "What to do"), look, name="Cannot be live migrated")
        self._summary_page = self._summary()
        self._add("Summary", self._summary_page)
        if kind is Kind.VM:
            self._disks = PlainTable(
                ("Target", "Device", "Source", "Kind", "Format", "Cache", "Size"),
                look,
                name="Disks",
                empty="It has no disk.",
            )
            self._networks = PlainTable(
                ("MAC address", "Kind", "Source", "Model"),
                look,
                name="Networks",
                empty="It has no network interface.",
            )
            self._sightings = PlainTable(
                ("Node", "Status", "Cause", "Told at", "Since", "Definition"), look, name="Sightings"
            )
            self._add("Disks", self._disks)
            self._add("Networks", self._networks)
            self._definition = DefinitionTab(runtime)
            self._snapshots = SnapshotsTab(runtime, look, self._act)
            self._console = ConsoleTab(runtime, look, self._act)
            self._compared = PlainTable(("Field", "Values"), look, name="Comparison")
            self._add("Compare", self._compared)
            self._add("Console", self._console)
            self._add("Snapshots", self._snapshots)
            self._add("XML", self._definition)
        else:
            titles = ("Name", "Status", "Priority", "vCPUs", "Memory GiB", "Uptime", "Information")
            self._roles = PlainTable(titles, look, name="Roles on the node", empty="No VM is on this node.")
            self._add("Roles", self._roles)
        self._story = PlainTable(("Time", "What happened"), look, name="Story", empty=NO_STORY)
        self._performance = Charts(look, kind, columns=2)
        self._performance.setContentsMargins(12, 6, 12, 4)
        self._add("Performance", self._performance)
        if kind is Kind.NODE:
            self._pools = PlainTable(POOL_TITLES, look, name="Storage", empty="No pool was read here yet.")
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

    def _act(self, spec: ActionSpec[Any], vm: VmId, parameters: Any) -> None:
        """What a button of a tab asks for."""
        self._center.asked.emit(self._runtime, spec, (vm,), parameters)

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
        row = QHBoxLayout()
        row.setSpacing(16)
        if self._kind is Kind.VM:
            self._screen = ScreenPicture(self._runtime, self._look)
            row.addWidget(self._screen, alignment=Qt.AlignmentFlag.AlignTop)
        row.addWidget(self._facts, 1)
        self._sparks = Charts(self._look, self._kind, columns=2, spacing=12)
        self._sparks.setFixedSize(244, 100)
        row.addWidget(self._sparks, alignment=Qt.AlignmentFlag.AlignTop)
        layout.addLayout(row)
        layout.addWidget(self._blocked, 1)
        self._spacer = QWidget()
        layout.addWidget(self._spacer, 1)
        scroll = QScrollArea()
        scroll.setAccessibleName("Summary")
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
        if self._kind is Kind.VM and len(self._ids) == 1 and "config" in mine.updated.get(self._ids[0], ()):
            self._look_again()
        if len(self._ids) <= _LISTED:
            hit = any(key in mine.updated or key in mine.removed for key in self._ids)
        else:
            hit = bool(mine.updated or mine.removed)
        if self._kind is Kind.NODE and changes[Kind.VM] and self._roles.isVisible():
            hit = True
        if hit and not self._later.isActive():
            # A thousand selected are counted once a second, one is followed at once.
            self._later.start(30 if len(self._ids) <= _LISTED else 1000)

    def _look_again(self) -> None:
        """The VM's definition is another one, or the number of its snapshots."""
        for tab in (self._definition, self._snapshots):
            if tab.isVisible():
                tab.look_again()

    def showEvent(self, event: Any) -> None:
        """Catch up."""
        super().showEvent(event)
        if self._stale:
            self._later.start()

    @property
    def shows_performance(self) -> bool:
        """Whether charts are in sight and need figures."""
        charts = (self._performance, self._summary_page)
        return self.isVisible() and self._stack.currentWidget() in charts and len(self._ids) == 1

    def say_nothing(self) -> None:
        """Nothing is selected."""
        what = "VMs" if self._kind is Kind.VM else "a node"
        self._shape.clear()
        self._shape.hide()
        self._show_title(f"Select {what} to see the details here", style="dim")
        self._notes.hide()
        self._facts.hide()
        self._hide_closeup()
        self._blocked.hide()
        self.tabs.setCurrentIndex(0)
        self.tabs.hide()

    def _fill(self) -> None:
        self._stale = not self.isVisible()
        if self._stale:
            return
        view = self._runtime.view
        alone = view.vms.get(VmId(self._ids[0])) if self._ids and self._kind is Kind.VM else None
        self.wants_samples.emit(self.shows_performance, alone.owner if alone is not None else None)
        source: Any = view.vms if self._kind is Kind.VM else view.nodes
        found = [source[key] for key in self._ids if key in source]
        if not found:
            self.say_nothing()
            return
        self._show_tabs(len(found))
        if len(found) > 1:
            self._fill_many(view, found)
        elif self._kind is Kind.VM:
            self._fill_vm(view, found[0])
        else:
            self._fill_node(view, found[0])

    def show_events(self) -> None:
        """Turn to what happened, with the keyboard in it."""
        at = self._stack.indexOf(self.events)
        if self.tabs.isTabVisible(at):
            self.tabs.setCurrentIndex(at)
            self.events.setFocus(Qt.FocusReason.OtherFocusReason)

    def _show_tabs(self, number: int) -> None:
        """Those that say something of so many; the one that is open stays open if it does."""
        for at in range(self.tabs.count()):
            page = self._stack.widget(at)
            if self._kind is Kind.VM and page is self._compared:
                self.tabs.setTabVisible(at, number > 1)
            else:
                self.tabs.setTabVisible(at, number == 1 or page is self._summary_page)
        self.tabs.setVisible(number == 1 or self._kind is Kind.VM)

    def _compared_rows(self, view: ClusterView, found: Sequence[Vm]) -> list[tuple[str, str]]:
        """What differs first; of each field its values, the most frequent first."""
        if len(found) > _LISTED:
            return [("", f"{len(found):,} VMs are selected; up to {_LISTED} are compared.")]
        fields = [FIELDS[Kind.VM][name] for name in _COMPARED]
        rows = []
        for field in fields:
            counts = Counter(field.cell(view, vm) or "–" for vm in found)
            unit = f" {field.unit}" if field.unit else ""
            texts = [f"{value}{unit} × {n}" for value, n in counts.most_common(12)]
            if len(counts) == 1:
                texts = [f"{next(iter(counts))}{unit}, all the same"]
            elif len(counts) > len(texts):
                texts.append(f"{len(counts) - len(texts)} other values")
            rows.append((len(counts) == 1, field.title, "   ".join(texts)))
        return [(title, text) for same, title, text in sorted(rows, key=lambda row: row[0])]

    def _hide_closeup(self) -> None:
        """Nothing of one object is shown."""
        self._sparks.hide()
        if self._kind is Kind.VM:
            self._screen.hide()

    # --- one VM ----------------------------------------------------------------------------------

    def _fill_vm(self, view: ClusterView, vm: Vm) -> None:
        self._show_shape(tones.vm_shape(vm))
        activity = f", {vm.activity.value.lower()}" if vm.activity.value else ""
        where = f" on {vm.owner}" if vm.owner else ""
        self._show_title(plain(f"{vm.name}   {status_text(vm)}{where}{activity}"), short=plain(vm.name))
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
        elif current is self._console:
            self._console.follow(vm)
        elif current is self._definition:
            self._definition.show_vm(vm.id)
        elif current is self._snapshots:
            self._snapshots.show_vm(vm.id)
        else:
            self._screen.show()
            self._screen.follow(vm)
            self._sparks.show()
            self._sparks.show_samples(self.history.of(Kind.VM, vm.id))
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
            ("Memory", memory + (f", {units.mib_text(used)} used" if used else "")),
            ("vCPUs", cell("vcpus") + (f", {cell('cpu')} % used" if load and load.cpu_percent else "")),
            ("Priority", cell("priority")),
            ("Uptime", cell("uptime_s")),
            ("Guest agent", cell("agent")),
            ("Networks", cell("networks")),
            ("Movable", cell("movable")),
            ("Tags", cell("tags")),
            ("Machine", f"{config.arch} {config.machine}".strip() or "–" if config else "…"),
            ("Autostart", ("on" if config.autostart else "off") if config else "…"),
            ("UUID", vm.id),
        ]
        if vm.authority is not Authority.MUSTER:
            facts.insert(0, ("Authority", vm.authority.value))
        if vm.other_nodes:
            facts.insert(0, ("Also on", cell("other_nodes")))
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
                units.time_text(seen_s) if seen_s else "",
                units.time_text(s.changed_at_s) if s.changed_at_s else "before we looked",
                "read" if s.config else "being read",
            )
            for s in view.sightings(vm.id).values()
            for seen_s in (max(s.state_at_s, view.nodes[s.node].last_read_s or 0.0),)
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
        if current is self._roles:
            self._roles.show_rows(self._role_rows(view, node))
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
        self._sparks.show()
        self._sparks.show_samples(self.history.of(Kind.NODE, node.id))
        self._blocked.hide()
        self._spacer.show()
        notes = [_with_remedy(node.information)] if node.information else []
        notes += [f"Held by {h.who} since {units.time_text(h.since_s)}: {h.why}" for h in node.holds]
        self._show_notes(notes)
        fields = FIELDS[Kind.NODE]

        def cell(name: str) -> str:
            return fields[name].cell(view, node) or "–"

        facts = node.facts
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
                ("Promised", units.mib_text(view.committed_mib(node.id))),
                ("VMs", f"{node.vms_total}, {node.vms_running} running"),
                ("Hypervisor", f"{facts.hypervisor} {facts.hypervisor_version}" if facts else "–"),
                ("libvirt", facts.libvirt_version if facts else "–"),
                ("Drain", cell("drain")),
                ("NUMA cells", _cells_text(node)),
            ]
        )

    def _role_rows(self, view: ClusterView, node: Node) -> list[tuple[str, ...]]:
        fields = [FIELDS[Kind.VM][name] for name in _ROLE_FIELDS]
        mine = [vm for vm in view.vms.values() if vm.owner == node.id]
        mine.sort(key=lambda vm: natural(vm.name))
        rows = [tuple(field.cell(view, vm) for field in fields) for vm in mine[:_LISTED]]
        if len(mine) > _LISTED:
            rows.append((f"and {len(mine) - _LISTED:,} more: see Roles", *[""] * (len(fields) - 1)))
        return rows

    # --- many --------------------------------------------------------------------------------------

    def _fill_many(self, view: ClusterView, found: list[Any]) -> None:
        self._shape.hide()
        self._hide_closeup()
        is_compared = self._kind is Kind.VM and self._stack.currentWidget() is self._compared
        if not is_compared:
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
        if is_compared:
            self._compared.show_rows(self._compared_rows(view, found))
            return
        memory = sum(vm.config.memory_mib for vm in found if vm.config)
        vcpus = sum(vm.config.vcpus for vm in found if vm.config)
        nodes = Counter(vm.owner for vm in found)
        shown = ", ".join(f"{node} {count}" for node, count in nodes.most_common(6))
        self._facts.show()
        self._facts.show_facts(
            [
                ("Memory", units.mib_text(memory)),
                ("vCPUs", f"{vcpus:,}"),
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

    def _show_title(self, text: str, style: str = "title", *, short: str = "") -> None:
        """`short`: what stands there if there is no room for all of it."""
        if self.title.objectName() != style:
            self.title.setObjectName(style)
            repolish(self.title)
        taken = self.tabs.sizeHint().width() + 60 if not self.tabs.isHidden() else 60
        room = self.width() - taken
        metrics = self.title.fontMetrics()
        shown = short if short and metrics.horizontalAdvance(text) + 14 > room else text
        self.title.set_text(shown)
        self.title.setToolTip(tip(text))
        self.title.setFixedWidth(max(80, min(metrics.horizontalAdvance(shown) + 14, room)))

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


def _cells_text(node: Node) -> str:
    """``2 × 16 CPUs, 64 GiB``: equal ones together."""
    cells = node.facts.cells if node.facts else ()
    kinds = Counter((cell.cpus, cell.memory_mib) for cell in cells)
    parts = [f"{n} × {cpus} CPUs, {units.mib_text(memory)}" for (cpus, memory), n in kinds.items()]
    return "; ".join(parts) or "–"


def _with_remedy(note: Any) -> str:
    return f"{note.text}. {note.remedy}" if note.remedy else str(note.text)

"""The cluster at a glance, all of it on one page. Every number opens the view behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import nlargest
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from manager.core import units
from manager.core.changes import ChangeSet
from manager.core.chronicle import KEPT_EVENTS, ClusterEvent, Level
from manager.core.ids import Kind
from manager.core.migration.summary import others_text
from manager.core.model import Node, Problem, VmStatus
from manager.core.operations import Operation
from manager.core.query.operation_fields import operation_title
from manager.core.query.problem_fields import subject_of
from manager.core.reasons import ReasonCode
from manager.core.resource_facts import FULL_PERCENT, NEARLY_FULL_PERCENT, Pool
from manager.services.runtime import Runtime
from manager.ui.icons import VM_TOKENS, icon, state_pixmap
from manager.ui.models import tones
from manager.ui.tally import Tally
from manager.ui.theme import Look
from manager.ui.views.heat_map import HeatMap
from manager.ui.views.parts import ElidedLink, FlatBar, flat_button, hairline, link_button, text_label
from manager.ui.views.problems_pane import ProblemsPane
from manager.ui.views.queue_pane import QueuePane

MOST_BARS = 16
"""Nodes with bars; more are a heat map."""

_LINE_PX = 21
_MOST_LINES = 24
_LEAST_LINES = 3
_HEAD_PX = 40  # of a section: what is not its lines

_WIDE_PX = 800
"""From this width on there are three columns."""

DAY_S = 86_400.0

_FILL_MS = 300
_RANK_S = 2.0
"""How often the busiest are looked for: all VMs are asked."""

_PAST = (
    ("moved", "code:vm-moved", (ReasonCode.VM_MOVED,)),
    ("started", "code:vm-started,vm-restarted", (ReasonCode.VM_STARTED, ReasonCode.VM_RESTARTED)),
    ("stopped or saved", "code:vm-stopped,vm-saved", (ReasonCode.VM_STOPPED, ReasonCode.VM_SAVED)),
    ("asked for", "code:operation-asked", (ReasonCode.OPERATION_ASKED,)),
    ("crashed", "code:vm-crashed", (ReasonCode.VM_CRASHED,)),
    ("new problem", "code:problem-began", (ReasonCode.PROBLEM_BEGAN,)),
)
"""What is counted of the last day: the word, the query behind it, and the codes of its events."""

_SEVERAL = {"new problem": "new problems"}

ERRORS = "is:error"
WITHIN_A_DAY = "time>-24h"


class Line(QWidget):
    """A line of a section: shape, link, and what belongs to it on the right."""

    def __init__(self, on_click: Callable[[str], object]) -> None:
        super().__init__()
        self.key = ""
        self.bar: FlatBar | None = None
        self.number: QPushButton | None = None
        self.shape = QLabel()
        self.shape.setFixedWidth(12)
        self.link = ElidedLink(lambda: on_click(self.key))
        self.setFixedHeight(_LINE_PX)
        self.row = QHBoxLayout(self)
        self.row.setContentsMargins(0, 0, 0, 0)
        self.row.setSpacing(6)
        self.row.addWidget(self.shape)
        self.row.addWidget(self.link, 1)


class Section(QWidget):
    """A titled part of the page; of its lines as many are shown as there is room for."""

    def __init__(self, title: str, on_click: Callable[[], object]) -> None:
        super().__init__()
        self.setObjectName("panel")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self._title = title
        self._make: Callable[[], Line] | None = None
        self._show: Callable[[Line, int], None] = lambda line, at: None
        self._count = 0
        self.lines: list[Line] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 7, 12, 5)
        layout.setSpacing(4)
        self.heading = link_button(title, on_click)
        self.heading.setObjectName("link_title")
        self.head = QHBoxLayout()
        self.head.setContentsMargins(0, 0, 0, 0)
        self.head.addWidget(self.heading)
        self.head.addStretch(1)
        layout.addLayout(self.head)
        layout.addWidget(hairline())
        self.body = QVBoxLayout()
        self.body.setSpacing(0)
        layout.addLayout(self.body)
        self._lines = QVBoxLayout()
        self._lines.setSpacing(0)
        layout.addLayout(self._lines)
        self.nothing = text_label(style="dim", wrap=True)
        self.nothing.hide()
        layout.addWidget(self.nothing)
        layout.addStretch(1)

    def fill_with(self, widget: QWidget) -> None:
        """Have one thing that takes all the room."""
        layout = self.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.takeAt(layout.count() - 1)
        layout.addWidget(widget, 1)

    def of_lines(self, make: Callable[[], Line], show: Callable[[Line, int], None], nothing: str) -> None:
        """Have lines: how one is made, how one shows the entry of that number, what stands there without."""
        self._make, self._show = make, show
        self.nothing.setText(nothing)
        self.setMinimumHeight(_HEAD_PX + _LEAST_LINES * _LINE_PX)

    def show_count(self, count: int, *, number: bool = True) -> None:
        """There are so many entries; `number`: the title says how many."""
        self._count = count
        self.heading.setText(f"{self._title}  {count:,}" if number and count else self._title)
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """More room, more lines."""
        super().resizeEvent(event)
        if event.size().height() != event.oldSize().height():
            self._fit()

    def _fit(self) -> None:
        if self._make is None:
            return
        taken = self.body.sizeHint().height() if self.body.count() else 0
        room = max(1, (self.height() - _HEAD_PX - taken) // _LINE_PX)
        shown = min(self._count, room, _MOST_LINES)
        while len(self.lines) < shown:
            line = self._make()
            self.lines.append(line)
            self._lines.addWidget(line)
        for at, line in enumerate(self.lines):
            if at < shown:
                self._show(line, at)
            line.setVisible(at < shown)
        self.nothing.setVisible(not self._count and bool(self.nothing.text()))


class Numbers(QGridLayout):
    """Numbers with their words, each a link."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = columns
        self._made = 0
        self.setHorizontalSpacing(5)
        self.setVerticalSpacing(0)
        self.setContentsMargins(0, 0, 0, 0)

    def add(self, on_click: Callable[[], object], shape: QLabel | None = None) -> QPushButton:
        """One more number, with a shape before it or not."""
        link = link_button("", on_click)
        link.setFixedHeight(_LINE_PX)
        row, column = divmod(self._made, self._columns)
        if shape is not None:
            self.addWidget(shape, row, column * 2)
        self.addWidget(link, row, column * 2 + (shape is not None), 1, 1 if shape is not None else 2)
        self.setColumnStretch(column * 2 + 1, 1)
        self._made += 1
        return link


class NodeLine:
    """A node's row in a grid: name, its CPU and memory as bars."""

    def __init__(self, grid: QGridLayout, look: Look, on_click: Callable[[], object]) -> None:
        self._look = look
        self._shape = QLabel()
        self._shape.setFixedWidth(12)
        self.name = ElidedLink(on_click)
        self._cpu, self._memory = FlatBar(look), FlatBar(look)
        self._cpu_text, self.memory_text = number_link(on_click), number_link(on_click)
        row = grid.rowCount()
        widgets = (self._shape, self.name, self._cpu, self._cpu_text, self._memory, self.memory_text)
        for column, widget in enumerate(widgets):
            grid.addWidget(widget, row, column)

    def show_node(self, runtime: Runtime, node: Node) -> None:
        """Bring it up to date."""
        view = runtime.view
        shape = tones.node_shape(node)
        ratio = self._shape.devicePixelRatioF()
        self._shape.setPixmap(state_pixmap(shape[0], self._look.tokens.colour(shape[1]), ratio))
        self.name.set_text(node.id, node_text(runtime, node))
        load = view.node_loads.get(node.id) if node.is_up else None
        cpu = load.cpu_percent if load else None
        self._cpu.show_share((cpu or 0) / 100, "paused" if (cpu or 0) > 90 else "accent")
        self._cpu_text.setText("–" if cpu is None else f"{cpu:.0f} %")
        share = memory_share(runtime, node)
        self._memory.show_share(share or 0.0, "paused" if (share or 0.0) > 0.9 else "accent")
        self.memory_text.setText("–" if share is None else f"{100 * share:.0f} %")


def number_link(on_click: Callable[[], object]) -> QPushButton:
    """A number beside its bar, that opens what its line opens; by keys the line's name does."""
    link = link_button("", on_click)
    link.setObjectName("link_number")
    link.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    link.setFixedWidth(40)
    return link


def memory_share(runtime: Runtime, node: Node) -> float | None:
    """How much of a node's memory its running VMs have; None if nobody knows."""
    if node.facts is None or not node.is_up:
        return None
    return runtime.view.committed_mib(node.id) / max(1, node.facts.memory_mib)


def node_text(runtime: Runtime, node: Node) -> str:
    """A node's state and memory in words."""
    said = f": {node.information.text}" if node.information else ""
    lines = [f"{node.status.value}{said}", units.count_text(node.vms_total, "VM")]
    if node.facts is not None and node.is_up:
        used = runtime.view.committed_mib(node.id)
        lines.append(f"{used / 1024:.0f} of {node.facts.memory_mib / 1024:.0f} GiB of memory in use by VMs")
    return "\n".join(lines)


class Overview(QScrollArea):
    """State, work, problems, nodes, load, storage and the last day of one cluster."""

    list_wanted = Signal(str, str, str)  # page, view, text of the search box
    row_wanted = Signal(str, str)  # page, what is selected there
    pane_wanted = Signal(str)  # migrations, operations, problems
    batch_wanted = Signal(object)
    problem_wanted = Signal(str)
    pause_wanted = Signal()

    def __init__(
        self, runtime: Runtime, look: Look, tally: Tally, queue: QueuePane, problems: ProblemsPane
    ) -> None:
        super().__init__()
        self.runtime = runtime
        self._look, self._tally = look, tally
        self._queue, self._problems_pane = queue, problems
        self._past_known = False
        self._ranked_s = 0.0
        self._problems: list[Problem] = []
        self._work: list[Operation] = []
        self._busy: list[tuple[float, str]] = []
        self._pools: list[Pool] = []
        self.setWidgetResizable(True)
        self.setAccessibleName("Overview")
        body = QWidget()
        body.setObjectName("strip")
        self._grid = QGridLayout(body)
        self._grid.setContentsMargins(8, 8, 8, 8)
        self._grid.setSpacing(8)
        self.state = Section("State", lambda: self.list_wanted.emit("roles", "", ""))
        self.attention = Section("Needs attention", lambda: self.pane_wanted.emit("problems"))
        self.nodes = Section("Nodes", lambda: self.list_wanted.emit("nodes", "", ""))
        self.now = Section("Now", lambda: self.pane_wanted.emit("operations"))
        self.busiest = Section("Busiest", lambda: self.list_wanted.emit("roles", "", "cpu>=50%"))
        self.storage = Section("Storage", lambda: self.list_wanted.emit("storage", "", ""))
        self.past = Section("Last 24 h", lambda: self.list_wanted.emit("events", "", WITHIN_A_DAY))
        self._is_wide: bool | None = None
        self._arrange(wide=True)
        self._build_state()
        self._build_nodes()
        self._build_lines()
        self._build_past()
        self.setWidget(body)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_FILL_MS)
        self._timer.timeout.connect(self._fill)
        look.changed.connect(self._fill)

    # --- building ---------------------------------------------------------------------------------

    def _arrange(self, *, wide: bool) -> None:
        """All on one page where there is room for three columns, else two."""
        if wide is self._is_wide:
            return
        self._is_wide = wide
        if wide:
            places = (
                (self.nodes, 0, 0, 3), (self.state, 0, 1, 1), (self.now, 1, 1, 1), (self.past, 2, 1, 1),
                (self.attention, 0, 2, 1), (self.busiest, 1, 2, 1), (self.storage, 2, 2, 1),
            )  # fmt: skip
        else:
            places = (
                (self.nodes, 0, 0, 3), (self.state, 0, 1, 1), (self.attention, 1, 1, 1), (self.now, 2, 1, 1),
                (self.busiest, 3, 0, 1), (self.past, 3, 1, 1), (self.storage, 4, 0, 1),
            )  # fmt: skip
        for section, row, column, rows in places:
            self._grid.addWidget(section, row, column, rows, 1)
        for row in range(5):
            self._grid.setRowStretch(row, 1 if row < 3 or not wide else 0)
        for column in range(3):
            self._grid.setColumnStretch(column, 1 if column < 2 or wide else 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """As many columns as there is room for."""
        super().resizeEvent(event)
        self._arrange(wide=self.viewport().width() >= _WIDE_PX)

    def _build_state(self) -> None:
        numbers = Numbers(3)
        self.statuses: dict[VmStatus, tuple[QLabel, QPushButton]] = {}
        for status in VmStatus:
            query = f"status:{status.value.lower()}"
            shape = QLabel()
            shape.setFixedWidth(12)
            self.statuses[status] = shape, numbers.add(_emit(self.list_wanted, "roles", "", query), shape)
        self.state.body.addLayout(numbers)
        self.need_attention = link_button("", _emit(self.list_wanted, "roles", "attention", ""))
        self.unmovable = link_button("", _emit(self.list_wanted, "roles", "unmovable", ""))
        more = QHBoxLayout()
        more.setSpacing(12)
        for link in (self.need_attention, self.unmovable):
            link.setFixedHeight(_LINE_PX)
            more.addWidget(link)
        more.addStretch(1)
        self.state.body.addLayout(more)

    def _build_nodes(self) -> None:
        names = list(self.runtime.view.nodes)
        self.node_lines: dict[str, NodeLine] = {}
        self.heat: HeatMap | None = None
        if not names:
            self.nodes.nothing.setText("This cluster has no nodes.")
            self.nodes.nothing.show()
        elif len(names) > MOST_BARS:
            self.heat = HeatMap(self._look)
            self.heat.chosen.connect(lambda name: self.row_wanted.emit("nodes", name))
            self.nodes.body.addWidget(text_label("Shape: state. Number: memory in use, %", "dim"))
            self.nodes.fill_with(self.heat)
        else:
            grid = QGridLayout()
            grid.setHorizontalSpacing(6)
            grid.setVerticalSpacing(0)
            for column, title in ((2, "CPU"), (4, "Memory")):
                grid.addWidget(text_label(title, "dim"), 0, column, 1, 2)
                grid.setColumnStretch(column, 1)
            grid.setColumnMinimumWidth(1, 56)
            for name in names:
                self.node_lines[name] = NodeLine(grid, self._look, _emit(self.row_wanted, "nodes", name))
            self.nodes.body.addLayout(grid)

    def _build_lines(self) -> None:
        self.moves = link_button("", _emit(self.pane_wanted, "migrations"))
        self.pause = link_button("", self.pause_wanted.emit)
        top = QHBoxLayout()
        for link in (self.moves, self.pause):
            link.setFixedHeight(_LINE_PX)
        top.addWidget(self.moves)
        top.addStretch(1)
        top.addWidget(self.pause)
        self.now.body.addLayout(top)
        self.now.of_lines(lambda: Line(self._open_work), self._show_work, "No other work is under way.")
        self.attention.of_lines(
            self._problem_line,
            self._show_problem,
            "Nothing. Problems are listed here and in the pane below.",
        )
        self.busiest.of_lines(
            lambda: self._barred(lambda key: self.row_wanted.emit("roles", key)),
            self._show_busy,
            "No load is known yet.",
        )
        self.storage.of_lines(
            lambda: self._barred(lambda key: self.row_wanted.emit("storage", key)),
            self._show_pool,
            "No storage pool is known yet.",
        )

    def _build_past(self) -> None:
        numbers = Numbers(2)
        self.happened: dict[str, QPushButton] = {}
        for word, query, _ in _PAST:
            self.happened[word] = numbers.add(
                _emit(self.list_wanted, "events", "", f"{query} {WITHIN_A_DAY}")
            )
        self.past.body.addLayout(numbers)
        self.past_since = text_label(style="dim")
        self.errors = link_button("", _emit(self.list_wanted, "events", "", f"{ERRORS} {WITHIN_A_DAY}"))
        self.errors.setFixedHeight(_LINE_PX)
        row = QHBoxLayout()
        row.addWidget(self.errors)
        row.addStretch(1)
        row.addWidget(self.past_since)
        self.past.body.addLayout(row)

    def _problem_line(self) -> Line:
        line = Line(self.problem_wanted.emit)
        acknowledge = flat_button("", on_click=lambda: self._problems_pane.acknowledge((line.key,)))
        mute = flat_button("", menu=self._problems_pane.mute_menu(self, lambda: (line.key,)))
        t = self._look.tokens
        for button, glyph, words in (
            (acknowledge, "acknowledge", "Acknowledge, with a note"),
            (mute, "mute", "Mute for a time"),
        ):
            button.setIcon(icon(glyph, t.dim, t.faint))
            button.setFixedWidth(26)
            button.setToolTip(words)
            button.setAccessibleName(words)
            line.row.addWidget(button)
            self._look.changed.connect(
                lambda b=button, g=glyph: b.setIcon(icon(g, self._look.tokens.dim, self._look.tokens.faint))
            )
        return line

    def _barred(self, on_click: Callable[[str], object]) -> Line:
        line = Line(on_click)
        line.bar, line.number = FlatBar(self._look), number_link(lambda: on_click(line.key))
        line.bar.setFixedWidth(64)
        line.row.addWidget(line.bar)
        line.row.addWidget(line.number)
        return line

    # --- following --------------------------------------------------------------------------------

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed, a few times a second, while it is visible."""
        self._past_known = self._past_known and not changes[Kind.EVENT]
        if self.isVisible() and not self._timer.isActive():
            self._timer.start()

    def show_pause(self, text: str, tip: str, *, possible: bool) -> None:
        """What the button that stops all work would do."""
        self.pause.setText(text)
        self.pause.setToolTip(tip)
        self.pause.setVisible(possible)

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up; figures are wanted while it is open."""
        super().showEvent(event)
        self.runtime.sampler.want_loads("overview", True)
        self.runtime.resources.want("overview", True)
        self.runtime.recall()
        self._ranked_s = 0.0
        self._fill()

    def hideEvent(self, event: QHideEvent) -> None:
        """Work no more."""
        super().hideEvent(event)
        self.runtime.sampler.want_loads("overview", False)
        self.runtime.resources.want("overview", False)
        self._timer.stop()

    def _fill(self) -> None:
        if not self.isVisible():
            return
        self._fill_state()
        self._fill_nodes()
        self._fill_now()
        self._fill_problems()
        self._fill_busiest()
        self._fill_storage()
        if not self._past_known:
            self._fill_past()

    def _fill_state(self) -> None:
        view, tally = self.runtime.view, self._tally
        roles, nodes = units.count_text(len(view.vms), "role"), units.count_text(len(view.nodes), "node")
        self.state.heading.setText(f"State  {roles} on {nodes}")
        for status, (shape, link) in self.statuses.items():
            count = tally.statuses[status]
            self._mark(shape, VM_TOKENS[status], VM_TOKENS[status] if count else "faint")
            link.setText(f"{count:,} {status.value}")
            link.setEnabled(count > 0)
        self.need_attention.setText(f"{len(tally.attention):,} need attention")
        self.unmovable.setText(f"{len(tally.unmovable):,} cannot be moved")
        self.need_attention.setEnabled(bool(tally.attention))
        self.unmovable.setEnabled(bool(tally.unmovable))

    def _fill_nodes(self) -> None:
        runtime, nodes = self.runtime, self.runtime.view.nodes
        self.nodes.heading.setText(f"Nodes  {sum(n.is_up for n in nodes.values())} of {len(nodes)} up")
        if self.heat is not None:
            self.heat.show_cells(
                (n.id, tones.node_shape(n), memory_share(runtime, n), f"{n.id}\n{node_text(runtime, n)}")
                for n in nodes.values()
            )
        for name, line in self.node_lines.items():
            node = nodes.get(name)  # type: ignore[call-overload]
            if node is not None:
                line.show_node(runtime, node)

    def _fill_now(self) -> None:
        moving, waiting = self._tally.moves
        self.moves.setText(f"{moving:,} moving, {waiting:,} waiting")
        view = self.runtime.view
        batches = (view.operations.get(key) for key in reversed(self._queue.watch.open))
        self._work = [each for each in batches if each is not None]
        self._work += sorted(self._queue.others.values(), key=lambda job: job.created_s)
        self.now.show_count(len(self._work))

    def _show_work(self, line: Line, at: int) -> None:
        job = self._work[at]
        line.key = str(at)
        when = units.time_text(job.created_s)
        if job.vm is not None and job.id in self._queue.others:
            line.link.set_text(f"{job.vm_name}: {others_text(job)} by someone else since {when}")
            self._mark(line.shape, "connecting", "dim")
        else:
            line.link.set_text(f"{operation_title(job)}, {job.author} at {when}")
            self._mark(line.shape, "connecting", "accent")

    def _open_work(self, at: str) -> None:
        job = self._work[int(at)]
        if job.vm is not None and job.id in self._queue.others:
            self.row_wanted.emit("roles", job.vm)
        else:
            self.batch_wanted.emit(job.id)

    def _fill_problems(self) -> None:
        view = self.runtime.view
        self._problems = [each for each in view.problems.values() if each.is_new(view.now_s)]
        self._problems.sort(key=lambda each: (each.severity, -len(each.vms), -each.since_s, each.key))
        self.attention.show_count(len(self._problems))

    def _show_problem(self, line: Line, at: int) -> None:
        problem = self._problems[at]
        line.key = problem.key
        reason, subject = problem.reason.text, subject_of(self.runtime.view, problem)
        name = subject.partition(" ")[2] or subject
        text = reason if name in reason else f"{name}: {reason}"
        if len(problem.vms) > 1:
            text += f" ({units.count_text(len(problem.vms), 'VM')} affected)"
        line.link.set_text(text, problem.reason.remedy)
        self._mark(line.shape, *(tones.shape(Kind.PROBLEM, "subject", problem) or ("alarm", "crashed")))

    def _fill_busiest(self) -> None:
        now_s = self.runtime.clock.monotonic_s()
        if not self._busy or now_s - self._ranked_s >= _RANK_S:
            self._ranked_s = now_s
            loads = self.runtime.view.vm_loads.items()
            known = ((load.cpu_percent, key) for key, load in loads if load.cpu_percent is not None)
            self._busy = nlargest(_MOST_LINES, known)
        self._busy = [each for each in self._busy if each[1] in self.runtime.view.vms]
        self.busiest.show_count(len(self._busy), number=False)

    def _show_busy(self, line: Line, at: int) -> None:
        cpu, key = self._busy[at]
        vm = self.runtime.view.vms[key]  # type: ignore[index]
        line.key = key
        line.link.set_text(f"{vm.name} on {vm.owner}", f"{cpu:.0f} % of its vCPUs")
        self._mark(line.shape, *tones.vm_shape(vm))
        self._show_bar(line, cpu, "paused" if cpu > 90 else "accent")

    def _fill_storage(self) -> None:
        pools = self.runtime.view.resources.pools.values()
        self._pools = sorted(pools, key=lambda p: (not p.is_shared, -(p.used_percent or 0.0), p.name, p.id))
        self.storage.show_count(len(self._pools))

    def _show_pool(self, line: Line, at: int) -> None:
        pool = self._pools[at]
        line.key = pool.id
        where = "" if pool.is_shared else f" on {pool.nodes[0]}" if pool.nodes else ""
        is_told = pool.is_shared and pool.free_bytes is not None
        free = f", {units.size_text(pool.free_bytes or 0)} free" if is_told else ""
        line.link.set_text(f"{pool.name}{where}{free}", "\n".join(note.text for note in pool.notes))
        self._mark(line.shape, *tones.pool_shape(pool))
        self._show_bar(line, pool.used_percent, tones.fill_token(pool.used_percent or 0.0), marked=True)

    @staticmethod
    def _show_bar(line: Line, percent: float | None, token: str, *, marked: bool = False) -> None:
        marks = (NEARLY_FULL_PERCENT / 100, FULL_PERCENT / 100) if marked else ()
        assert line.bar is not None
        assert line.number is not None
        line.bar.show_share((percent or 0.0) / 100, token, marks)
        line.number.setText("–" if percent is None else f"{percent:.0f} %")

    def _fill_past(self) -> None:
        self._past_known = True
        events = self.runtime.view.events
        begin_s = self.runtime.clock.now_s() - DAY_S
        day: list[ClusterEvent] = []
        for event in reversed(list(events.values())):
            if event.at_s < begin_s:
                break
            day.append(event)
        codes = Counter(event.what.code for event in day)
        for word, _, wanted in _PAST:
            count = sum(codes[code] for code in wanted)
            self.happened[word].setText(units.count_text(count, word, _SEVERAL.get(word, word)))
            self.happened[word].setEnabled(count > 0)
        errors = sum(event.level is Level.ERROR for event in day)
        self.errors.setText(units.count_text(errors, "error"))
        self.errors.setEnabled(errors > 0)
        # Nobody records what happens while no window or engine is open, and memory holds only so many.
        whole = len(day) < len(events) and len(day) < KEPT_EVENTS
        since = f"recorded since {units.time_text(day[-1].at_s)}" if day and not whole else ""
        self.past_since.setText(since or ("" if day else "nothing is recorded yet"))

    def _mark(self, label: QLabel, shape: str, token: str) -> None:
        colour = self._look.tokens.colour(token)
        label.setPixmap(state_pixmap(shape, colour, self.devicePixelRatioF()))


def _emit(signal: Any, *values: str) -> Callable[[], object]:
    return lambda: signal.emit(*values)

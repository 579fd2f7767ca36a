"""The cluster at a glance. Every number opens the view behind it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QGridLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from manager.core import units
from manager.core.changes import ChangeSet
from manager.core.model import Node, VmStatus
from manager.core.operations import OperationKind
from manager.core.query.operation_fields import operation_title
from manager.services.runtime import Runtime
from manager.ui.icons import VM_TOKENS, state_pixmap
from manager.ui.models import tones
from manager.ui.tally import Tally
from manager.ui.theme import Look
from manager.ui.views.navigation import tier_text
from manager.ui.views.parts import ElidedLabel, ElidedLink, FlatBar, hairline, link_button, text_label

_MOST_NODES = 64
_MOST_LINES = 6


class Section(QWidget):
    """A titled part of the page."""

    def __init__(self, title: str, on_click: Callable[[], object]) -> None:
        super().__init__()
        self.setObjectName("panel")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(16, 12, 16, 14)
        self.body.setSpacing(6)
        self.heading = link_button(title, on_click)
        self.heading.setObjectName("link_title")
        self.body.addWidget(self.heading)
        self.body.addWidget(hairline())


class NodeLine:
    """A node's row in a grid: name, its CPU and memory as bars."""

    def __init__(self, grid: QGridLayout, look: Look, on_click: Callable[[], object]) -> None:
        self._look = look
        self._shape = QLabel()
        self._shape.setFixedWidth(12)
        self.name = ElidedLink(on_click)
        self.name.setMaximumWidth(240)
        self._cpu, self._memory = FlatBar(look), FlatBar(look)
        self._cpu_text, self._memory_text = text_label(style="dim"), text_label(style="dim")
        self._vms = text_label(style="dim")
        row = grid.rowCount()
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for label in (self._cpu_text, self._memory_text, self._vms):
            label.setAlignment(right)
        widgets = (
            self._shape,
            self.name,
            self._vms,
            self._cpu,
            self._cpu_text,
            self._memory,
            self._memory_text,
        )
        for column, widget in enumerate(widgets):
            grid.addWidget(widget, row, column)

    def show_node(self, runtime: Runtime, node: Node) -> None:
        """Bring it up to date."""
        view = runtime.view
        shape = tones.node_shape(node)
        ratio = self._shape.devicePixelRatioF()
        self._shape.setPixmap(state_pixmap(shape[0], self._look.tokens.colour(shape[1]), ratio))
        said = f": {node.information.text}" if node.information else ""
        self.name.set_text(node.id, f"{node.status.value}{said}")
        self._vms.setText(units.count_text(node.vms_total, "VM"))
        load = view.node_loads.get(node.id) if node.is_up else None
        cpu = load.cpu_percent if load else None
        self._cpu.show_share((cpu or 0) / 100, "paused" if (cpu or 0) > 90 else "accent")
        self._cpu_text.setText("CPU –" if cpu is None else f"CPU {cpu:.0f} %")
        if node.facts is None or not node.is_up:
            self._memory.show_share(0)
            self._memory_text.setText(node.status.value)
            return
        used = view.committed_mib(node.id)
        share = used / max(1, node.facts.memory_mib)
        self._memory.show_share(share, "paused" if share > 0.9 else "accent")
        self._memory_text.setText(f"{used / 1024:.0f} of {node.facts.memory_mib / 1024:.0f} GiB")


class Overview(QScrollArea):
    """State, nodes, problems and running work of one cluster."""

    roles_wanted = Signal(str, str)  # scope, search text
    nodes_wanted = Signal()
    pane_wanted = Signal(str)  # migrations, operations, problems
    node_wanted = Signal(str)

    def __init__(self, runtime: Runtime, look: Look, tally: Tally) -> None:
        super().__init__()
        self._runtime, self._look, self._tally = runtime, look, tally
        self._stale = True
        self.setWidgetResizable(True)
        self.setAccessibleName("Overview")
        body = QWidget()
        body.setObjectName("strip")
        outer = QVBoxLayout(body)
        outer.setContentsMargins(16, 12, 16, 16)
        outer.setSpacing(12)
        self._heading = text_label(runtime.id, "heading")
        self._tier = text_label(tier_text(runtime), "dim")
        outer.addWidget(self._heading)
        outer.addWidget(self._tier)
        grid = QGridLayout()
        grid.setSpacing(12)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        outer.addLayout(grid)
        outer.addStretch(1)
        self._state = Section("State", lambda: self.roles_wanted.emit("", ""))
        self._now = Section("Now", lambda: self.pane_wanted.emit("operations"))
        self._problems = Section("Needs attention", lambda: self.pane_wanted.emit("problems"))
        self._nodes = Section("Nodes", self.nodes_wanted.emit)
        grid.addWidget(self._state, 0, 0)
        grid.addWidget(self._now, 0, 1)
        grid.addWidget(self._problems, 1, 0, 1, 2)
        grid.addWidget(self._nodes, 2, 0, 1, 2)
        self._numbers: dict[VmStatus, tuple[QLabel, QPushButton]] = {}
        states = QGridLayout()
        states.setHorizontalSpacing(6)
        states.setVerticalSpacing(2)
        for place, status in enumerate(VmStatus):
            shape, button = QLabel(), link_button("")
            button.clicked.connect(lambda *_, s=status: self.roles_wanted.emit("", s.value))
            column, row = divmod(place, 3)
            states.addWidget(shape, row, column * 2)
            states.addWidget(button, row, column * 2 + 1)
            self._numbers[status] = (shape, button)
        states.setColumnStretch(1, 1)
        states.setColumnStretch(3, 1)
        self._state.body.addLayout(states)
        self._attention = link_button("", lambda: self.roles_wanted.emit("attention", ""))
        self._unmovable = link_button("", lambda: self.roles_wanted.emit("unmovable", ""))
        for button in (self._attention, self._unmovable):
            self._state.body.addWidget(button)
        self._state.body.addStretch(1)
        self._moves = link_button("", lambda: self.pane_wanted.emit("migrations"))
        self._work = [ElidedLabel(style="dim") for _ in range(4)]
        self._now.body.addWidget(self._moves)
        for label in self._work:
            self._now.body.addWidget(label)
        self._now.body.addStretch(1)
        self._lines: list[ElidedLink] = []
        for _ in range(_MOST_LINES):
            line = ElidedLink(lambda: self.pane_wanted.emit("problems"))
            self._lines.append(line)
            self._problems.body.addWidget(line)
        self._no_problem = text_label("Nothing. Problems are listed here and in the pane below.", "dim")
        self._problems.body.addWidget(self._no_problem)
        self._node_lines: dict[str, NodeLine] = {}
        lines = QGridLayout()
        lines.setHorizontalSpacing(8)
        lines.setVerticalSpacing(6)
        for column in (3, 5):  # the bars
            lines.setColumnStretch(column, 1)
        for name in list(runtime.view.nodes)[:_MOST_NODES]:
            self._node_lines[name] = NodeLine(lines, look, _bound(self.node_wanted.emit, name))
        self._nodes.body.addLayout(lines)
        if not self._node_lines:
            self._nodes.body.addWidget(text_label("This cluster has no nodes.", "dim"))
        self.setWidget(body)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(300)
        self._timer.timeout.connect(self._fill)
        look.changed.connect(self._fill)

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed, a few times a second, while it is visible."""
        self._stale = True
        if self.isVisible() and not self._timer.isActive():
            self._timer.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up; node figures are wanted while it is open."""
        super().showEvent(event)
        self._runtime.sampler.want_loads("overview", True)
        self._fill()

    def hideEvent(self, event: QHideEvent) -> None:
        """Work no more."""
        super().hideEvent(event)
        self._runtime.sampler.want_loads("overview", False)
        self._timer.stop()

    def _fill(self) -> None:
        if not self.isVisible():
            return
        self._stale = False
        view, tally, t = self._runtime.view, self._tally, self._look.tokens
        ratio = self.devicePixelRatioF()
        self._state.heading.setText(
            f"{units.count_text(len(view.vms), 'role')} on {units.count_text(len(view.nodes), 'node')}"
        )
        for status, (shape, button) in self._numbers.items():
            count = tally.statuses[status]
            token = VM_TOKENS[status]
            shape.setPixmap(state_pixmap(token, t.colour(token if count else "faint"), ratio))
            button.setText(f"{count:,} {status.value}")
            button.setEnabled(count > 0)
        self._attention.setText(f"{len(tally.attention):,} need attention")
        self._unmovable.setText(f"{len(tally.unmovable):,} cannot be moved live")
        self._attention.setEnabled(bool(tally.attention))
        self._unmovable.setEnabled(bool(tally.unmovable))
        moving, waiting = tally.moves
        self._moves.setText(f"{moving:,} moving, {waiting:,} waiting")
        running = [o for o in view.operations.values() if o.kind is OperationKind.BATCH and not o.is_over]
        for place, label in enumerate(self._work):
            if place < len(running):
                operation = running[-1 - place]
                label.set_text(
                    f"{operation_title(operation)}, asked by {operation.author}"
                    f" at {units.time_text(operation.created_s)}"
                )
            else:
                label.set_text("No work is under way." if place == 0 else "")
            label.setVisible(bool(label.text()))
        problems = [problem for problem in view.problems.values() if problem.is_new(view.now_s)]
        for place, line in enumerate(self._lines):
            line.setVisible(place < len(problems))
            if place < len(problems):
                problem = problems[place]
                where = (
                    f"{problem.node}: " if problem.node and problem.node not in problem.reason.text else ""
                )
                affected = (
                    f"  ({units.count_text(len(problem.vms), 'VM')} affected)" if len(problem.vms) > 1 else ""
                )
                vm = view.vms.get(problem.vms[0]) if problem.key.startswith("vm:") and problem.vms else None
                where = f"{vm.name} on {problem.node}: " if vm else where
                line.set_text(f"{where}{problem.reason.text}{affected}", problem.reason.remedy)
        self._problems.heading.setText(
            f"Needs attention   {len(problems)}" if problems else "Needs attention"
        )
        self._no_problem.setVisible(not problems)
        for name, line_of in self._node_lines.items():
            node = view.nodes.get(name)  # type: ignore[call-overload]
            if node is not None:
                line_of.show_node(self._runtime, node)


def _bound(call: Callable[[str], object], name: str) -> Callable[[], object]:
    return lambda: call(name)

"""Loads of one object over the last ten minutes: what is kept of them, and how they are drawn."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRect, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QGridLayout, QWidget

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, NodeId, VmId
from manager.ui.theme import Look
from manager.ui.views.parts import tip

HISTORY_S = 600.0
"""How far back the charts reach."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Figures:
    """One sample. What was not measured is None."""

    at_s: float
    cpu_percent: float | None
    memory_gib: float | None
    disk_mib_s: float | None = None
    net_mib_s: float | None = None


class History:
    """Load samples of the objects that were looked at, for the last ten minutes."""

    _OBJECTS = 16

    def __init__(self) -> None:
        self._samples: dict[tuple[Kind, str], deque[Figures]] = {}

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
            if found is not None and (not samples or samples[-1].at_s < found.at_s):
                samples.append(found)
                while samples[0].at_s < found.at_s - HISTORY_S:
                    samples.popleft()

    def of(self, kind: Kind, key: str) -> Sequence[Figures]:
        """The samples, oldest first."""
        return self._samples.get((kind, key), ())


def _figures(view: ClusterView, kind: Kind, key: str) -> Figures | None:
    if kind is Kind.VM:
        load = view.vm_loads.get(VmId(key))
        if load is None or load.cpu_percent is None:
            return None
        return Figures(
            load.at_s,
            load.cpu_percent,
            load.memory_used_mib / 1024 if load.memory_used_mib is not None else None,
            load.disk_bytes_per_s / _MIB if load.disk_bytes_per_s is not None else None,
            load.net_bytes_per_s / _MIB if load.net_bytes_per_s is not None else None,
        )
    node_load = view.node_loads.get(NodeId(key))
    node = view.nodes.get(NodeId(key))
    if node_load is None or node_load.cpu_percent is None or node is None or node.facts is None:
        return None
    used = node.facts.memory_mib - (node_load.memory_free_mib or 0)
    return Figures(node_load.at_s, node_load.cpu_percent, used / 1024)


class Chart(QWidget):
    """One figure over ten minutes, painted here: a plot library takes a third of a second to load.

    Where it is low or narrow there is only the curve with its newest value.
    """

    _LOW_PX = 72
    _NARROW_PX = 170

    def __init__(self, look: Look, title: str, *, top: float | None = None, short: str = "") -> None:
        super().__init__()
        self._look = look
        self._title = title
        self._short = short or title
        self._top = top  # None: as the values need it
        self._points: list[tuple[float, float]] = []
        self.setMinimumSize(90, 40)
        look.changed.connect(self.update)

    def show_points(self, points: Sequence[tuple[float, float | None]]) -> None:
        """(time, value), oldest first; what was not measured is left out."""
        self._points = [(at, value) for at, value in points if value is not None]
        now = self._now or "not measured yet"
        self.setAccessibleName(f"{self._title}: {now}")
        self.setToolTip(tip(f"{self._title}: {now}\nThe last ten minutes."))
        self.update()

    @property
    def _now(self) -> str:
        return f"{self._points[-1][1]:.1f}" if self._points else ""

    @property
    def _highest(self) -> float:
        if self._top is not None:
            return self._top
        highest = max((v for _, v in self._points), default=1.0)
        return max(1.0, math.ceil(highest * 1.2))

    def sizeHint(self) -> QSize:
        """As wide as there is room."""
        return QSize(150, 60)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The curve; now is at the right."""
        painter = QPainter(self)
        try:
            if self.height() < self._LOW_PX or self.width() < self._NARROW_PX:
                self._paint_low(painter)
            else:
                self._paint(painter)
        finally:
            painter.end()

    def _paint_low(self, painter: QPainter) -> None:
        t = self._look.tokens
        middle = Qt.AlignmentFlag.AlignVCenter
        head = QRect(0, 0, self.width(), 16)
        painter.setPen(t.dim)
        cut = self.fontMetrics().elidedText(self._short, Qt.TextElideMode.ElideRight, self.width() - 40)
        painter.drawText(head, int(Qt.AlignmentFlag.AlignLeft | middle), cut)
        painter.setPen(t.text if self._points else t.faint)
        painter.drawText(head, int(Qt.AlignmentFlag.AlignRight | middle), self._now or "–")
        area = QRect(0, 19, self.width() - 1, max(8, self.height() - 22))
        painter.setPen(t.line)
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        self._paint_curve(painter, area)

    def _paint(self, painter: QPainter) -> None:
        t = self._look.tokens
        left, middle = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignVCenter
        right = Qt.AlignmentFlag.AlignRight
        painter.setPen(t.dim)
        head = QRect(0, 0, self.width(), 18)
        value = f"   {self._now} now" if self._points else "   not measured yet"
        painter.drawText(head, int(left | middle), self._title + value)
        area = QRect(44, 24, self.width() - 56, max(20, self.height() - 46))
        for share in (0.0, 0.5, 1.0):
            y = area.bottom() - round(area.height() * share)
            painter.setPen(t.line)
            painter.drawLine(area.left(), y, area.right(), y)
            painter.setPen(t.dim)
            painter.drawText(QRect(0, y - 8, 38, 16), int(right | middle), f"{self._highest * share:g}")
        foot = QRect(area.left(), area.bottom() + 4, area.width(), 16)
        painter.drawText(foot, int(left | middle), "10 min ago")
        painter.drawText(foot, int(right | middle), "now")
        self._paint_curve(painter, area)

    def _paint_curve(self, painter: QPainter, area: QRect) -> None:
        if len(self._points) < 2:
            return
        newest, top = self._points[-1][0], self._highest
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
        painter.setPen(QPen(self._look.tokens.accent, 1.5))
        painter.drawPolyline(line)


class Charts(QWidget):
    """CPU and memory of one object over the last ten minutes; of a VM its disks and network too."""

    def __init__(self, look: Look, kind: Kind, *, columns: int, spacing: int = 24) -> None:
        super().__init__()
        self.setObjectName("panel")
        self.cpu, self.memory = Chart(look, "CPU %", top=100.0), Chart(look, "Memory GiB", short="GiB")
        self.disk, self.net = Chart(look, "Disk MiB/s"), Chart(look, "Network MiB/s", short="Net MiB/s")
        shown = [self.cpu, self.memory, *([self.disk, self.net] if kind is Kind.VM else [])]
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setHorizontalSpacing(spacing)
        layout.setVerticalSpacing(4)
        for place, chart in enumerate(shown):
            layout.addWidget(chart, *divmod(place, columns))

    def show_samples(self, samples: Sequence[Figures]) -> None:
        """Draw these, oldest first."""
        self.cpu.show_points([(s.at_s, s.cpu_percent) for s in samples])
        self.memory.show_points([(s.at_s, s.memory_gib) for s in samples])
        self.disk.show_points([(s.at_s, s.disk_mib_s) for s in samples])
        self.net.show_points([(s.at_s, s.net_mib_s) for s in samples])

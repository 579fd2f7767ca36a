"""The course of one move as a plot: what is left, what is sent, what the guest changes, passes, pauses."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from manager.core import units
from manager.core.migration.progress import MovePoint
from manager.ui.theme import Look, font
from manager.ui.views.legend import Legend
from manager.ui.views.parts import text_label

MOST_MARKS = 60
"""Passes that are marked: more would be a wall."""

_POLL_MS = 30

LEGEND = (
    ("accent", "fill", "left, GiB"),
    ("running", "fill", "sent, MiB/s"),
    ("paused", "fill", "changed, MiB/s"),
    ("dim", "dots", "iteration"),
)


class PlotLibrary(QObject):
    """Loads pyqtgraph when it is first needed, in a thread: it takes nearly half a second, NumPy with it."""

    ready = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.module: Any = None
        self._thread: threading.Thread | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._look)

    def want(self) -> None:
        """Load it, if that was not begun yet."""
        if self.module is None and self._thread is None:
            self._thread = threading.Thread(target=self._load, name="plot library", daemon=True)
            self._thread.start()
            self._timer.start()

    @staticmethod
    def _load() -> None:
        importlib.import_module("pyqtgraph")

    def _look(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._timer.stop()
        self._thread = None
        self.module = importlib.import_module("pyqtgraph")  # there already, or it says here why not
        self.ready.emit()


_library: PlotLibrary | None = None


def library() -> PlotLibrary:
    """The one loader of this process."""
    global _library
    if _library is None:
        _library = PlotLibrary()
    return _library


class MovePlot(QWidget):
    """One plot: at the left what is left in GiB, at the right rates in MiB/s, below the time."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look
        self._points: Sequence[MovePoint] = ()
        self._marks: Sequence[MovePoint] = ()
        self._curves: _Curves | None = None
        self.setObjectName("panel")
        self.setMinimumSize(220, 90)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(0)
        self.legend = Legend(look, LEGEND)
        head = QHBoxLayout()
        head.setContentsMargins(10, 2, 4, 0)
        head.addWidget(self.legend)
        self._layout.addLayout(head)
        self._waiting = text_label("", "dim", wrap=True)
        self._waiting.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._layout.addWidget(self._waiting, 1)
        look.changed.connect(self._dress)
        library().ready.connect(self._draw)
        self._dress()

    def show_course(self, points: Sequence[MovePoint], marks: Sequence[MovePoint]) -> None:
        """Draw these points, and mark where a pass began."""
        self._points, self._marks = points, marks
        if self._points:
            last = self._points[-1]
            self.setAccessibleName(
                f"Course of the move: {units.size_text(last.remaining_bytes)} left after "
                f"{units.clock_text(last.elapsed_s)}, {units.rate_text(last.rate_bytes_per_s)} sent, "
                f"{units.rate_text(last.dirty_bytes_per_s)} changed, iteration {last.iteration}"
            )
        else:
            self.setAccessibleName("Course of the move: no figures yet")
        self._draw()

    def showEvent(self, event: QShowEvent) -> None:
        """Now the library is needed."""
        super().showEvent(event)
        if library().module is None:
            self._waiting.setText("The plot is being prepared …")
            library().want()
        self._draw()

    @property
    def is_drawn(self) -> bool:
        """Whether the plot is there."""
        return self._curves is not None

    def _draw(self) -> None:
        module = library().module
        if module is None or not self.isVisible():
            return
        if self._curves is None:
            self._curves = _Curves(module, self._look)
            self._layout.addWidget(self._curves.widget, 1)
        self._waiting.setText("" if self._points else "No figures yet: the target prepares.")
        self._waiting.setVisible(not self._points)
        self._curves.widget.setVisible(bool(self._points))
        if self._points:
            self._curves.draw(self._points, self._marks)

    def _dress(self) -> None:
        if self._curves is not None:
            self._curves.dress()
            self._draw()


class _Curves:
    """The plot itself, made of pyqtgraph's parts; nothing else knows them."""

    def __init__(self, pg: Any, look: Look) -> None:
        self._pg, self._look = pg, look
        self.widget = pg.PlotWidget(axisItems={"bottom": _clock_axis(pg)})
        self.widget.setFrameShape(self.widget.Shape.NoFrame)
        self.widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.widget.setMinimumSize(200, 60)
        plot = self._plot = self.widget.getPlotItem()
        for widget in (plot, plot.getViewBox()):
            widget.setAcceptedMouseButtons(Qt.MouseButton.NoButton)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setMouseEnabled(x=False, y=False)
        plot.setContentsMargins(0, 4, 4, 0)
        plot.showAxis("right")
        self._rates = pg.ViewBox(enableMenu=False)
        self._rates.setMouseEnabled(x=False, y=False)
        plot.scene().addItem(self._rates)
        plot.getAxis("right").linkToView(self._rates)
        self._rates.setXLink(plot)
        plot.getViewBox().sigResized.connect(self._follow)
        self._left = plot.plot(antialias=True)
        self._passes = pg.PlotCurveItem(connect="pairs")
        plot.addItem(self._passes)
        self._sent = pg.PlotCurveItem(antialias=True)
        self._changed = pg.PlotCurveItem(antialias=True)
        for curve in (self._sent, self._changed):
            self._rates.addItem(curve)
        self._pauses: list[Any] = []
        for name, width in (("left", 44), ("right", 44)):
            plot.getAxis(name).setWidth(width)
        plot.getAxis("bottom").setHeight(20)
        self.dress()

    def dress(self) -> None:
        pg, t = self._pg, self._look.tokens
        self.widget.setBackground(t.panel)
        small = font(11)
        for name in ("left", "right", "bottom"):
            axis = self._plot.getAxis(name)
            axis.setPen(pg.mkPen(t.line))
            axis.setTextPen(pg.mkPen(t.dim))
            axis.setTickFont(small)
            axis.setStyle(tickLength=-4, tickTextOffset=4)
        shade = t.colour("accent").toRgb()
        shade.setAlpha(36)
        self._left.setPen(pg.mkPen(t.accent, width=1.6))
        self._left.setFillLevel(0)
        self._left.setBrush(pg.mkBrush(shade))
        self._sent.setPen(pg.mkPen(t.running, width=1.4))
        self._changed.setPen(pg.mkPen(t.paused, width=1.4))
        self._passes.setPen(pg.mkPen(t.dim, width=1, style=Qt.PenStyle.DotLine))

    def draw(self, points: Sequence[MovePoint], marks: Sequence[MovePoint]) -> None:
        at = [p.elapsed_s for p in points]
        left = [p.remaining_bytes / units.GIB for p in points]
        sent = [p.rate_bytes_per_s / units.MIB for p in points]
        changed = [p.dirty_bytes_per_s / units.MIB for p in points]
        top = max(max(left) * 1.15, 0.05)
        end = max(at[-1], at[0] + 5.0)
        self._plot.setXRange(at[0], end, padding=0.01)
        self._plot.setYRange(0, top, padding=0)
        self._rates.setYRange(0, max(max(sent), max(changed), 1.0) * 1.15, padding=0)
        self._left.setData(at, left)
        self._sent.setData(at, sent)
        self._changed.setData(at, changed)
        shown = marks[-MOST_MARKS:]
        self._passes.setData(
            [x for p in shown for x in (p.elapsed_s, p.elapsed_s)], [y for _ in shown for y in (0.0, top)]
        )
        self._mark_pauses(points, top)

    def _mark_pauses(self, points: Sequence[MovePoint], top: float) -> None:
        """Where another pause of the guest was permitted, and how long it may be from there on."""
        for item in self._pauses:
            self._plot.removeItem(item)
        self._pauses = []
        before: int | None = None
        late_s = points[0].elapsed_s + 0.75 * (points[-1].elapsed_s - points[0].elapsed_s)
        for point in points:
            if point.pause_ms is not None and point.pause_ms != before:
                # To its right there is no room at the end.
                anchor = (1, 0) if point.elapsed_s > late_s else (0, 0)
                text = self._pg.TextItem(f"pause ≤ {units.pause_text(point.pause_ms)}", anchor=anchor)
                text.setColor(self._look.tokens.dim)
                text.setFont(font(11))
                text.setPos(point.elapsed_s, top)
                self._plot.addItem(text, ignoreBounds=True)
                self._pauses.append(text)
            before = point.pause_ms

    def _follow(self) -> None:
        self._rates.setGeometry(self._plot.getViewBox().sceneBoundingRect())


def _clock_axis(pg: Any) -> Any:
    """An axis whose values are read as a stop watch shows them."""

    def texts(values: Sequence[float], _scale: float, _spacing: float) -> list[str]:
        return [units.clock_text(value) for value in values]

    axis = pg.AxisItem("bottom")
    axis.tickStrings = texts
    return axis

"""Who moved when from where to where: the moves of a cluster on a `Timeline`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QVBoxLayout, QWidget

from manager.core import units
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, OperationId
from manager.core.migration.progress import MovePhase
from manager.core.migration.summary import OTHERS, others_text
from manager.core.model import MoveType
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.operation_fields import operation_title
from manager.services.runtime import Runtime
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look
from manager.ui.views.legend import Legend
from manager.ui.views.parts import ElidedLabel, flat_button, name_for_ears
from manager.ui.views.timeline import Bar, Timeline

_REBUILD_MS, _GROW_MS = 400, 1000
_MOST_BATCHES = 40

_TOKENS = {
    OperationState.DONE: "running",
    OperationState.FAILED: "crashed",
    OperationState.CANCELLED: "off",
}

LEGEND = (
    ("accent", "fill", "moving"),
    ("running", "fill", "moved"),
    ("crashed", "fill", "failed"),
    ("off", "fill", "cancelled"),
    ("dim", "outline", "into the node"),
)


def bars_of(view: ClusterView, operation: Operation) -> list[Bar]:
    """The bars of one move: out of its source, and (light) into its target; none before it started."""
    if operation.kind is not OperationKind.MIGRATE or operation.started_s is None or operation.source is None:
        return []
    token = _TOKENS.get(operation.state, "accent")
    figures = view.progress.get(operation.id)
    if operation.action == OTHERS:
        token = "dim"
    elif figures is not None and figures.phase is MovePhase.NOT_CONVERGING:
        token = "paused"
    name = plain(operation.vm_name)
    to = operation.target or "?"
    span_s = (operation.ended_s or view.now_s) - operation.started_s
    ended = f" to {units.time_text(operation.ended_s)}" if operation.ended_s is not None else ", goes on"
    what = others_text(operation) if operation.action == OTHERS else operation.state.value.lower()
    way = f"{operation.source} → {to}"
    if operation.move is MoveType.STORAGE:
        way = f"{operation.source}: to pool {operation.pool}"
    lines = [
        f"{name}: {way}",
        f"{what}, {units.time_text(operation.started_s)}{ended} ({units.duration_text(span_s)})",
        f"asked by {operation.author}",
    ]
    if operation.reason is not None and operation.state is not OperationState.DONE:
        lines.append(plain(operation.reason.text))

    def bar(row: str, text: str, *, light: bool) -> Bar:
        assert operation.started_s is not None
        return Bar(
            key=operation.id,
            row=row,
            start_s=operation.started_s,
            end_s=operation.ended_s,
            token=token,
            text=text,
            tip="\n".join(lines),
            light=light,
            group=operation.parent or "",
        )

    if operation.move is MoveType.STORAGE:
        return [bar(operation.source, f"{name} → {operation.pool}", light=False)]
    found = [bar(operation.source, f"{name} → {to}", light=False)]
    if operation.target is not None:
        found.append(bar(operation.target, f"{name} ← {operation.source}", light=True))
    return found


class QueueTimeline(QWidget):
    """The timeline with its choice of a batch. Works only while it is visible."""

    opened = Signal(str)

    def __init__(self, runtime: Runtime, look: Look, extra: Mapping[str, Operation]) -> None:
        super().__init__()
        self._runtime, self._extra = runtime, extra
        self._ended: dict[OperationId, list[Bar]] = {}
        self._past: tuple[Operation, ...] = ()
        self.timeline = Timeline(look, name="Timeline of moves")
        self.batch = QComboBox()
        name_for_ears(self.batch, "Show a batch")
        self.batch.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.batch.setMinimumContentsLength(24)
        self.batch.activated.connect(self._chose)
        self.told = ElidedLabel(style="dim")
        self._legend = Legend(look, LEGEND)
        head = QHBoxLayout()
        head.setContentsMargins(12, 2, 8, 3)
        head.setSpacing(8)
        head.addWidget(self.batch)
        head.addWidget(flat_button("Fit all", on_click=self._fit))
        head.addWidget(self.told, 1)
        head.addWidget(self._legend)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(head)
        layout.addWidget(self.timeline, 1)
        self.setFocusProxy(self.timeline)
        self.timeline.opened.connect(self.opened)
        self.timeline.chosen.connect(self._tell)
        self._later = _timer(self, _REBUILD_MS, self.rebuild, once=True)
        self._grow = _timer(self, _GROW_MS, self._tick, once=False)

    # --- what it shows ---------------------------------------------------------------------------

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed."""
        if self.isVisible() and changes[Kind.OPERATION] and not self._later.isActive():
            self._later.start()

    def show_past(self, operations: Iterable[Operation]) -> None:
        """Moves of earlier runs of the program, from the journal."""
        self._past = tuple(operations)
        if self.isVisible():
            self.rebuild()

    def show_batch(self, batch: OperationId) -> None:
        """Zoom to one batch."""
        self.rebuild()
        place = self.batch.findData(str(batch))
        if place >= 0:
            self.batch.setCurrentIndex(place)
            self.timeline.show_group(str(batch))

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up."""
        super().showEvent(event)
        self.rebuild()
        self._grow.start()

    def hideEvent(self, event: QHideEvent) -> None:
        """Work no more."""
        super().hideEvent(event)
        self._grow.stop()
        self._later.stop()

    def rebuild(self) -> None:
        """Make the bars anew; those of ended moves are kept."""
        view = self._runtime.view
        bars: list[Bar] = []
        kept, self._ended = self._ended, {}
        for operation in (*self._past, *view.operations.values(), *self._extra.values()):
            found = kept.get(operation.id)
            if found is None:
                found = bars_of(view, operation)
            if operation.is_over:
                self._ended[operation.id] = found
            bars += found
        self.timeline.show_bars(tuple(view.nodes), bars, self._runtime.clock.now_s())
        self._list_batches(view, {bar.group for bar in bars if bar.group})

    def _list_batches(self, view: ClusterView, groups: set[str]) -> None:
        known = {**{o.id: o for o in self._past}, **view.operations}
        found = [known[OperationId(g)] for g in groups if OperationId(g) in known]
        found.sort(key=lambda b: b.created_s, reverse=True)
        wanted = [("All moves", "")] + [
            (f"{units.time_text(b.created_s)[:5]}  {operation_title(b)}, {b.author}", str(b.id))
            for b in found[:_MOST_BATCHES]
        ]
        shown = [(self.batch.itemText(i), self.batch.itemData(i)) for i in range(self.batch.count())]
        if wanted == shown:
            return
        chosen = self.batch.currentData()
        self.batch.clear()
        for text, key in wanted:
            self.batch.addItem(text, key)
        self.batch.setCurrentIndex(max(0, self.batch.findData(chosen)))

    def _tick(self) -> None:
        if any(bar.end_s is None for bar in self.timeline.bars):
            self.timeline.show_now(self._runtime.clock.now_s())

    def _chose(self) -> None:
        self.timeline.show_group(str(self.batch.currentData() or ""))

    def _fit(self) -> None:
        self.batch.setCurrentIndex(0)
        self.timeline.show_group("")
        self.timeline.fit()

    def _tell(self, key: str) -> None:
        bar = self.timeline.current
        self.told.set_text(bar.tip.replace("\n", "  ·  ") if key and bar is not None else "")


def _timer(parent: QWidget, interval_ms: int, act: Callable[[], object], *, once: bool) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(once)
    timer.setInterval(interval_ms)
    timer.timeout.connect(act)
    return timer

"""What stands above the queue: standing orders that keep work from starting, and how far each batch is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout, QWidget

from manager.core import units
from manager.core.cluster import ClusterView
from manager.core.events import QueueVerb
from manager.core.ids import OperationId
from manager.core.migration.summary import summary
from manager.core.operations import Operation
from manager.core.query.operation_fields import operation_title
from manager.ui.models.queue import QueueWatch
from manager.ui.theme import Look
from manager.ui.views.parts import ElidedLabel, FlatBar, flat_button, link_button, text_label

_SHOWN_BATCHES = 3


class BatchLine(QWidget):
    """How far one batch is: counts, a bar that never falls; buttons when it waits for a word."""

    timeline_wanted = Signal(str)
    continue_wanted = Signal(str)
    cancel_wanted = Signal(str)

    def __init__(self, look: Look, batch: Operation) -> None:
        super().__init__()
        self.setObjectName("strip")
        self.key = str(batch.id)
        self._share = 0.0
        self._style = ""
        self.title = link_button(
            f"{operation_title(batch)} ({batch.author}, {units.time_text(batch.created_s)[:5]})",
            lambda: self.timeline_wanted.emit(self.key),
        )
        self.title.setToolTip("Show this batch in the timeline")
        self.title.setObjectName("link_title")
        self.told = ElidedLabel()
        self.bar = FlatBar(look)
        self.bar.setFixedWidth(150)
        self.percent = text_label(style="dim")
        self.percent.setMinimumWidth(36)
        self.percent.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.go_on = flat_button("Continue", on_click=lambda: self.continue_wanted.emit(self.key))
        self.give_up = flat_button("Cancel the rest…", on_click=lambda: self.cancel_wanted.emit(self.key))
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 6, 10, 4)
        row.setSpacing(10)
        row.addWidget(self.title)
        row.addWidget(self.told, 1)
        row.addWidget(self.go_on)
        row.addWidget(self.give_up)
        row.addWidget(self.bar)
        row.addWidget(self.percent)

    def show_state(self, view: ClusterView, children: Iterable[Operation]) -> None:
        """How it stands now."""
        found = summary(view, children)
        paused = view.orders.paused_batches.get(OperationId(self.key))
        self._share = max(self._share, found.share)
        text = found.text
        if paused is not None:
            text += f" · {paused.text.removeprefix('its batch ')}"
        self.told.set_text(text)
        self.setAccessibleName(f"{self.title.text()}: {text}")
        style = "warning" if paused else ""
        if style != self._style:
            self._style = style
            self.told.setObjectName(style)
            self.told.style().unpolish(self.told)
            self.told.style().polish(self.told)
        self.bar.show_share(self._share, "paused" if paused else "accent")
        self.percent.setText(f"{int(self._share * 100)} %")
        self.go_on.setVisible(paused is not None)
        self.give_up.setVisible(paused is not None)
        for button in (self.go_on, self.give_up):
            button.setEnabled(not view.config.read_only)


class NoticeLine(QFrame):
    """A standing order that keeps work from starting, with the button that ends it."""

    def __init__(self, button: str, act: Callable[[], object]) -> None:
        super().__init__()
        self.setObjectName("note_warning")
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 2, 8, 2)
        row.setSpacing(10)
        self.label = ElidedLabel()
        row.addWidget(self.label, 1)
        self.button = flat_button(button, on_click=act)
        row.addWidget(self.button)

    def say(self, text: str) -> None:
        """How it stands now."""
        self.label.set_text(text)
        self.setAccessibleName(text)


class AboveQueue(QWidget):
    """A line for each standing order and for some batches: those that wait for a word, then the newest."""

    timeline_wanted = Signal(str)
    cancel_wanted = Signal(str)
    steer_wanted = Signal(object, object)  # QueueVerb, fields of the request

    def __init__(self, view: ClusterView, look: Look, watch: QueueWatch) -> None:
        super().__init__()
        self._view, self._look, self._watch = view, look, watch
        self._lines: dict[str, BatchLine] = {}
        self._notices: dict[str, NoticeLine] = {}  # by the node that rests; "": all work
        self.more = ElidedLabel(style="dim")
        self.more.setContentsMargins(12, 2, 12, 2)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(0)
        self._layout.addWidget(self.more)

    def tell(self, moving: int) -> None:
        """Show how it stands now; `moving`: how much is under way."""
        self._tell_orders(moving)
        self._tell_batches()

    def _tell_orders(self, moving: int) -> None:
        orders = self._view.orders
        running = f"; {units.count_text(moving, 'runs', 'run')} on" if moving else ""
        wanted: dict[str, tuple[str, str, Callable[[], object]]] = {}
        if orders.paused_by:
            since = units.time_text(orders.paused_since_s) if orders.paused_since_s else "before"
            text = f"Paused by {orders.paused_by} since {since}: nothing new starts{running}."
            wanted[""] = (text, "Continue", self._resume)
        for node, count in orders.resting:
            text = f"{node} is fed no more: the last {count} moves to it failed. See why under Failed."
            wanted[node] = (text, f"Feed {node} again", partial(self._resume, node=node))
        for key in self._notices.keys() - wanted.keys():
            line = self._notices.pop(key)
            self._layout.removeWidget(line)
            line.hide()
            line.deleteLater()
        for place, (key, (text, button, act)) in enumerate(wanted.items()):
            if key not in self._notices:
                line = self._notices[key] = NoticeLine(button, act)
                line.button.setEnabled(not self._view.config.read_only)
                self._layout.insertWidget(place, line)
            self._notices[key].say(text)

    @property
    def notices(self) -> list[NoticeLine]:
        """The standing orders that are told."""
        return list(self._notices.values())

    @property
    def batches(self) -> list[BatchLine]:
        """The lines of batches under way."""
        return list(self._lines.values())

    def _tell_batches(self) -> None:
        view = self._view
        paused = view.orders.paused_batches
        shown = sorted(self._watch.batches, key=lambda b: b.id not in paused)[:_SHOWN_BATCHES]
        wanted = [str(b.id) for b in shown]
        if list(self._lines) != wanted:
            kept, self._lines = self._lines, {}
            for batch in shown:
                line = kept.pop(str(batch.id), None) or self._new_line(batch)
                self._layout.removeWidget(line)
                self._layout.insertWidget(self._layout.count() - 1, line)
                self._lines[line.key] = line
            for line in kept.values():
                self._layout.removeWidget(line)
                line.hide()
                line.deleteLater()
        more = len(self._watch.batches) - len(shown)
        self.more.set_text(
            f"{units.count_text(more, 'more batch', 'more batches')} under way: see Operations"
        )
        self.more.setVisible(more > 0)
        for line in self._lines.values():
            line.show_state(view, self._watch.children(OperationId(line.key)))

    def _new_line(self, batch: Operation) -> BatchLine:
        line = BatchLine(self._look, batch)
        line.timeline_wanted.connect(self.timeline_wanted)
        line.continue_wanted.connect(lambda key: self._resume(operations=(OperationId(key),)))
        line.cancel_wanted.connect(self.cancel_wanted)
        return line

    def _resume(self, **what: Any) -> None:
        self.steer_wanted.emit(QueueVerb.RESUME, what)

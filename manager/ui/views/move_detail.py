"""All about one row of the queue: its course, what is done about it, what can be done, its story."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from manager.core import units
from manager.core.changes import ChangeSet, LogEntry
from manager.core.cluster import ClusterView
from manager.core.explanations import past_return
from manager.core.ids import Kind, OperationId, VmId
from manager.core.migration import convergence
from manager.core.migration.convergence import HYPERVISOR_PAUSE_MS, policy
from manager.core.migration.moves import MoveStep
from manager.core.migration.progress import MovePhase, MoveProgress
from manager.core.migration.summary import OTHERS, is_others, others_job, others_text
from manager.core.model import Convergence
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.fields import FIELDS
from manager.core.query.operation_fields import operation_title
from manager.core.reasons import ReasonCode
from manager.services.ports import Feature
from manager.services.runtime import Runtime
from manager.ui.models.queue import Courses
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look, repolish
from manager.ui.views.move_plot import MovePlot
from manager.ui.views.parts import ElidedLabel, FactsGrid, PlainTable, flat_button, text_label
from manager.ui.wording import failure_text, repair_commands, sentence

PAUSES_MS = (500, 1000, 2000, 5000, 10000)
"""What can be permitted by hand, one after the other."""

_WIDE_PX = 900
"""From this width on the story stands beside the facts."""

_STORY_PX = 250
"""Up to this height there is no room for the story below the facts; it is copied all the same."""

_S = OperationState


def next_pause_ms(figures: MoveProgress, steps: Convergence) -> int | None:
    """The next longer pause than what is permitted now; if the move does not converge, one that is enough."""
    now_ms = figures.watch.pause_ms or HYPERVISOR_PAUSE_MS
    longer = [p for p in sorted({*steps.pause_steps_ms, *PAUSES_MS}) if p > now_ms]
    needed_ms = (figures.downtime_ms or 0) if figures.phase is MovePhase.NOT_CONVERGING else 0
    return next((p for p in longer if p >= needed_ms), next(iter(longer), None))


def policy_of(view: ClusterView, operation: Operation) -> Convergence:
    """What is done about this move if it does not converge."""
    standard = view.config.migration.convergence
    return policy(operation.policy or convergence.STANDARD, standard, memory_mib=operation.memory_mib)


def policy_text(steps: Convergence, name: str) -> str:
    """``standard: pause up to 2 s, slows the guest from 20 % on, no post-copy``."""
    parts = [f"pause up to {units.pause_text(max(steps.pause_steps_ms, default=HYPERVISOR_PAUSE_MS))}"]
    slows = f"slows the guest from {steps.auto_converge_initial_percent} % on"
    parts.append(slows if steps.auto_converge else "does not slow the guest")
    parts.append("post-copy if nothing else helps" if steps.post_copy else "no post-copy")
    return f"{name or convergence.STANDARD}: {', '.join(parts)}"


def advice_text(view: ClusterView, operation: Operation, figures: MoveProgress | None) -> str:
    """What will be done, and when; in the second half, what nobody can do any more."""
    past = past_return(operation, figures)
    if past is not None:
        return f"Cannot be cancelled: {past.text}."
    if operation.state is _S.CANCELLING:
        return f"Cancelling, until it is seen running on {operation.source}."
    if operation.step is not MoveStep.MOVE or operation.state is not _S.RUNNING:
        return ""
    if figures is None or not figures.total_bytes:
        return "The target prepares."
    if figures.phase is not MovePhase.NOT_CONVERGING:
        left = f", about {units.clock_text(figures.eta_s)} left" if figures.eta_s is not None else ""
        return f"Converges{left}."
    rates = (
        f"Does not converge: the guest changes {units.rate_text(figures.dirty_bytes_per_s)}, "
        f"{units.rate_text(figures.rate_bytes_per_s)} are sent."
    )
    following = figures.watch.next
    if following is None:
        return rates
    return f"{rates} Policy: {following.text}. {following.remedy}".rstrip()


class MoveDetail(QFrame):
    """What is chosen in the queue. Works only while it is visible."""

    tune_wanted = Signal(object, object)  # operation id, the fields of the request
    post_copy_wanted = Signal(object)  # operation; it asks
    cancel_wanted = Signal(object)  # tuple of operation ids; it asks
    retry_wanted = Signal(object)  # list of operations
    closed = Signal()
    left = Signal()  # the keyboard goes back to the list

    def __init__(self, runtime: Runtime, look: Look, courses: Courses) -> None:
        super().__init__()
        self.setObjectName("panel")
        self.setAccessibleName("Details of the move")
        self._runtime, self._courses = runtime, courses
        self._shown: Operation | None = None
        self._key = ""
        self._room: tuple[bool, bool] | None = None
        self.title = ElidedLabel(style="title")
        self.advice = text_label(wrap=True, copyable=True)
        self.advice.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.facts = FactsGrid(1)
        self.plot = MovePlot(look)
        self.story = PlainTable(("Time", "What happened"), look, name="Story")
        self.story.horizontalHeader().hide()
        self.story.setMinimumHeight(40)
        self.pause_button = self._button("", self._raise_pause)
        self.cap_button = self._button("Remove cap", self._remove_cap)
        self.post_copy_button = self._button("Post-copy…", lambda: self.post_copy_wanted.emit(self._shown))
        self.retry_button = self._button("Retry elsewhere…", lambda: self.retry_wanted.emit([self._shown]))
        self.cancel_button = self._button("Cancel…", lambda: self.cancel_wanted.emit((self._key,)))
        self._acts = (
            self.pause_button,
            self.cap_button,
            self.post_copy_button,
            self.retry_button,
            self.cancel_button,
        )
        self.copy_button = flat_button("Copy", on_click=self._copy)
        self.copy_button.setToolTip("Copy all that is shown here, with the story")
        self._build()
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(60)
        self._later.timeout.connect(self.fill)

    def _build(self) -> None:
        head = QHBoxLayout()
        head.setContentsMargins(12, 4, 4, 0)
        head.setSpacing(4)
        head.addWidget(self.title, 1)
        head.addWidget(self.copy_button)
        close = flat_button("×", on_click=self.closed.emit)
        close.setToolTip("Hide the details")
        close.setAccessibleName("Hide the details")
        head.addWidget(close)
        acts = QHBoxLayout()
        acts.setContentsMargins(12, 0, 10, 2)
        acts.setSpacing(6)
        for button in self._acts:
            acts.addWidget(button)
        acts.addStretch(1)
        facts = QWidget()
        facts.setObjectName("panel")
        column = QVBoxLayout(facts)
        column.setContentsMargins(12, 2, 8, 4)
        column.setSpacing(5)
        column.addWidget(self.advice)
        column.addWidget(self.facts)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setAccessibleName("Details of the move")
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(facts)
        self._texts = QSplitter(Qt.Orientation.Vertical)
        self._split = QSplitter(Qt.Orientation.Horizontal)
        for split, first, second in (
            (self._texts, scroll, self.story),
            (self._split, self._texts, self.plot),
        ):
            split.setChildrenCollapsible(False)
            split.addWidget(first)
            split.addWidget(second)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(2)
        outer.addLayout(head)
        outer.addLayout(acts)
        outer.addWidget(self._split, 1)
        self._arrange()

    def _arrange(self) -> None:
        """Wide: facts, story and plot side by side; else the story below the facts, if there is room."""
        wide = self.width() >= _WIDE_PX
        self._texts.setOrientation(Qt.Orientation.Horizontal if wide else Qt.Orientation.Vertical)
        self.story.setVisible(wide or self.height() >= _STORY_PX)
        width, height = max(400, self.width()), max(120, self.height() - 60)
        share = 62 if wide else 50
        self._split.setSizes([width * share // 100, width * (100 - share) // 100])
        self._texts.setSizes([width * 34 // 100, width * 28 // 100] if wide else [height // 2, height // 2])

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Arrange anew where the room became another."""
        super().resizeEvent(event)
        kind = (self.width() >= _WIDE_PX, self.height() >= _STORY_PX)
        if kind != self._room:
            self._room = kind
            self._arrange()

    def enter(self) -> None:
        """Give the keyboard to the first thing that can be done here."""
        usable = (button for button in self._acts if button.isVisible() and button.isEnabled())
        next(usable, self.copy_button).setFocus(Qt.FocusReason.TabFocusReason)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Esc goes back to the list."""
        if event.key() == Qt.Key.Key_Escape:
            self.left.emit()
        else:
            super().keyPressEvent(event)

    def _button(self, text: str, act: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.setObjectName("small")
        button.setAutoDefault(False)
        button.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        button.clicked.connect(partial(_press, act))
        return button

    # --- what is shown -----------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """The operation that is shown."""
        return self._key

    def show_row(self, key: str, operation: Operation | None) -> None:
        """Show this row: an operation, or what others do."""
        if key != self._key:
            self._key = key
            self._later.stop()
            self._shown = operation
            self.fill()
        elif operation is not self._shown:
            self._shown = operation
            self._later.start()

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed, if it concerns what is shown."""
        view, key = self._runtime.view, self._key.removeprefix(f"{OTHERS}:")
        mine = changes[Kind.OPERATION if key == self._key else Kind.VM]
        if key and (key in mine.updated or key in mine.removed):
            vm = view.vms.get(VmId(key))
            others = others_job(view, vm) if vm is not None and is_others(vm) else None
            self._shown = view.operations.get(OperationId(key)) or others or self._shown
            if self.isVisible() and not self._later.isActive():
                self._later.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up."""
        super().showEvent(event)
        self.fill()

    def fill(self) -> None:
        """Show how it stands now."""
        operation, view = self._shown, self._runtime.view
        if operation is None or not self.isVisible():
            return
        figures = view.progress.get(operation.id)
        others = operation.action == OTHERS
        history = self._courses.of(operation.id)
        self.plot.setVisible(
            (history is not None and bool(history.points))
            or (operation.step is MoveStep.MOVE and operation.state is _S.RUNNING)
        )
        if history is not None:
            self.plot.show_course(history.points, history.marks)
        else:
            self.plot.show_course((), ())
        self.title.set_text(plain(_title(view, operation)))
        self._say(*self._advice(operation, figures))
        facts = [] if others else self._facts(operation, figures)
        self.facts.setVisible(bool(facts))
        self.facts.show_facts(facts)
        self.story.show_rows([(units.time_text(x.at_s), x.text) for x in self._told()], follow=True)
        self._show_buttons(operation, figures)

    def _advice(self, operation: Operation, figures: MoveProgress | None) -> tuple[str, str]:
        """What is to be said first, and the style of it."""
        view = self._runtime.view
        if operation.action == OTHERS:
            since = f" since {units.time_text(operation.started_s)}" if operation.started_s else ""
            what = others_text(operation)
            return (
                f"A {what} that is not Muster's holds {operation.vm_name} on {operation.source}{since}. "
                + ("It counts for the limits. " if operation.kind is OperationKind.MIGRATE else "")
                + "What is asked of this VM waits until it has ended.",
                "",
            )
        if operation.state in (_S.FAILED, _S.CANCELLED):
            told = failure_text(view, operation)
            lines = [told.what, told.where, told.why, told.remedy]
            text = " ".join(line for line in lines if line)
            if operation.reason is not None and operation.reason.code is ReasonCode.PEER_LOGIN_REFUSED:
                text += "\n" + "\n".join(repair_commands(operation.reason))
            return text, "error" if operation.state is _S.FAILED else ""
        text = advice_text(view, operation, figures)
        stuck = figures is not None and figures.phase in (MovePhase.NOT_CONVERGING, MovePhase.POST_COPY)
        if not text and operation.reason is not None:
            text = f"{sentence(operation.reason.text)} {operation.reason.remedy}".rstrip()
        if not text:
            text = sentence(FIELDS[Kind.OPERATION]["phase"].cell(view, operation))
        return text, "warning" if stuck else ""

    def _facts(self, operation: Operation, figures: MoveProgress | None) -> list[tuple[str, str]]:
        view = self._runtime.view
        found: list[tuple[str, str]] = []
        live = operation.step is MoveStep.MOVE
        if figures is not None and figures.total_bytes:
            left = f"{units.size_text(figures.remaining_bytes)} of {units.size_text(figures.total_bytes)}"
            since = figures.watch.stuck_since_s
            if since is not None and figures.phase is MovePhase.NOT_CONVERGING:
                left += f", not falling for {units.clock_text(view.now_s - since)}"
            found.append(("Left", f"{left}, iteration {figures.iteration}"))
            sent, dirty = figures.rate_bytes_per_s, figures.dirty_bytes_per_s
            found.append(("Rates", f"{units.rate_text(sent)} sent, {units.rate_text(dirty)} changed"))
            if live:
                found.append(("Pause", _pause_text(figures)))
        if live and operation.state is _S.RUNNING and figures is not None:
            found.append(("Network", _network_text(view, operation, figures)))
        if (
            operation.kind is OperationKind.MIGRATE
            and not operation.is_over
            and operation.move.value == "live"
        ):
            found.append(("Policy", policy_text(policy_of(view, operation), operation.policy)))
        if operation.pool:
            found.append(("Pool", operation.pool))
        asked = f"{operation.author}, {units.time_text(operation.created_s)}"
        batch = view.operations.get(operation.parent) if operation.parent else None
        if batch is not None and batch.children > 1:
            asked += f", with {units.count_text(batch.children - 1, 'other VM')}"
        found.append(("Asked by", asked))
        return found

    def _show_buttons(self, operation: Operation, figures: MoveProgress | None) -> None:
        view = self._runtime.view
        held = next((button for button in self._acts if button.hasFocus()), None)
        allowed = not view.config.read_only
        copying = (
            allowed
            and operation.step is MoveStep.MOVE
            and operation.state is _S.RUNNING
            and figures is not None
            and figures.phase is not MovePhase.POST_COPY
        )
        steps = policy_of(view, operation)
        pause_ms = next_pause_ms(figures, steps) if figures is not None else None
        self.pause_button.setVisible(copying and pause_ms is not None)
        if pause_ms is not None:
            self.pause_button.setText(f"Raise pause to {units.pause_text(pause_ms)}")
        self.cap_button.setVisible(copying and operation.cap_mib_s > 0)
        self.post_copy_button.setVisible(copying)
        if copying:
            why_not = self._no_post_copy(operation, steps)
            self.post_copy_button.setEnabled(not why_not)
            self.post_copy_button.setToolTip(
                why_not or "Let it run on the target now; the rest of its memory follows"
            )
        self.retry_button.setVisible(allowed and operation.state is _S.FAILED)
        past = figures is not None and figures.phase is MovePhase.POST_COPY
        can = not operation.is_over and operation.state is not _S.CANCELLING and operation.action != OTHERS
        self.cancel_button.setVisible(allowed and can and not past)
        if held is not None and (held.isHidden() or not held.isEnabled()):
            self.left.emit()  # it cannot be done any more; Qt gave the keyboard to what stands beside it

    def _no_post_copy(self, operation: Operation, steps: Convergence) -> str:
        """Why the second half cannot be begun by hand; empty if it can."""
        view = self._runtime.view
        for name in (operation.source, operation.target):
            node = view.nodes.get(name) if name is not None else None
            facts = node.facts if node is not None else None
            if facts is not None and Feature.POST_COPY not in facts.features:
                return f"{name} cannot do it"
        if not steps.post_copy:
            return "Not permitted when this move was started: its policy has no post-copy"
        return ""

    def _say(self, text: str, style: str) -> None:
        if self.advice.objectName() != style:
            self.advice.setObjectName(style)
            repolish(self.advice)
        text = "\n".join(plain(line) for line in text.splitlines())
        if self.advice.text() != text:
            self.advice.setText(text)

    # --- what is asked -----------------------------------------------------------------------------

    def _raise_pause(self) -> None:
        operation = self._shown
        figures = self._runtime.view.progress.get(operation.id) if operation is not None else None
        if operation is None or figures is None:
            return
        pause_ms = next_pause_ms(figures, policy_of(self._runtime.view, operation))
        if pause_ms is not None:
            self.tune_wanted.emit(operation.id, {"pause_ms": pause_ms})

    def _remove_cap(self) -> None:
        if self._shown is not None:
            self.tune_wanted.emit(self._shown.id, {"bandwidth_mib_s": 0})

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.text)

    @property
    def text(self) -> str:
        """All that is shown, to be copied."""
        lines = [self.title.text(), self.advice.text()]
        if self._shown is not None and self._shown.action != OTHERS:
            figures = self._runtime.view.progress.get(self._shown.id)
            lines += [f"{name}: {value}" for name, value in self._facts(self._shown, figures)]
            if self._shown.state in (_S.FAILED, _S.CANCELLED):
                detail = failure_text(self._runtime.view, self._shown).detail
                lines += [f"Detail: {detail}"] if detail else []
        lines += ["", "Story", *(f"{units.time_text(line.at_s)}  {line.text}" for line in self._told())]
        return "\n".join(lines)

    def _told(self) -> tuple[LogEntry, ...]:
        return self._runtime.stories.of(self._key.removeprefix(f"{OTHERS}:")) if self._key else ()


def _press(act: Callable[[], object], *_: Any) -> None:
    act()


def _title(view: ClusterView, operation: Operation) -> str:
    way = FIELDS[Kind.OPERATION]["way"].cell(view, operation)
    phase = FIELDS[Kind.OPERATION]["phase"].cell(view, operation)
    name = operation.vm_name if operation.action == OTHERS else operation_title(operation)
    return f"{name}   {way}   {phase}"


def _pause_text(figures: MoveProgress) -> str:
    permitted = units.pause_text(figures.watch.pause_ms or HYPERVISOR_PAUSE_MS)
    if figures.downtime_ms is None:
        return f"permitted {permitted}"
    return f"expected {units.pause_text(figures.downtime_ms)}, permitted {permitted}"


def _network_text(view: ClusterView, operation: Operation, figures: MoveProgress) -> str:
    parts = [figures.address or f"the address of {operation.target}"]
    if figures.encrypted is not None:
        parts.append("encrypted (TLS)" if figures.encrypted else "not encrypted")
    connections = view.config.migration.parallel_connections
    if connections > 1:
        parts.append(f"{connections} connections")
    parts.append(f"cap {operation.cap_mib_s} MiB/s" if operation.cap_mib_s else "no cap")
    return ", ".join(parts)

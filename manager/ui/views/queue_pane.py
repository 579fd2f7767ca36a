"""The queue: what moves, what waits and why, how far each batch is, what failed, what was, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMenu,
    QSplitter,
    QStackedWidget,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from manager.core import units
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.events import QueueVerb
from manager.core.ids import Kind, OperationId
from manager.core.migration.queue import is_heavy
from manager.core.migration.summary import OTHERS, queue_order
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.complete import values_in
from manager.core.query.spec import FieldSpec
from manager.core.query.views import View
from manager.services.ports import ViewStore
from manager.services.runtime import Runtime
from manager.ui.models.queue import Courses, OthersRows, QueueWatch, placed, stepped
from manager.ui.models.rows_model import RowsModel
from manager.ui.runner import asks_back, undoable
from manager.ui.theme import Look
from manager.ui.views.limits_popup import LimitsPopup, limits_text
from manager.ui.views.move_detail import MoveDetail, policy_text
from manager.ui.views.parts import (
    ElidedLabel,
    EmptyState,
    flat_button,
    hairline,
    text_label,
)
from manager.ui.views.queue_above import AboveQueue
from manager.ui.views.queue_table import QueueTable, waits
from manager.ui.views.queue_timeline import QueueTimeline
from manager.ui.views.saved_views import ShownView, ViewKeeper
from manager.ui.views.search import SearchBox
from manager.ui.views.table import RowsTable
from manager.ui.views.work_panes import message_of, strip_of

RECENT_S = 30.0
"""How long an ended move stays in sight before it is history only."""

MOST_PAST = 5000
"""So many ended operations that the core knows no more are kept, the newest."""

QUEUE_COLUMNS = (
    "place",
    "vm",
    "way",
    "priority",
    "phase",
    "percent",
    "rate",
    "dirty",
    "remaining",
    "iteration",
    "downtime",
    "elapsed",
    "eta",
    "attempt",
    "reason",
)
QUEUE_WIDTHS = {
    "place": 38,
    "vm": 116,
    "way": 136,
    "priority": 74,
    "phase": 116,
    "percent": 138,
    "rate": 60,
    "dirty": 56,
    "remaining": 74,
    "iteration": 46,
    "downtime": 78,
    "elapsed": 66,
    "eta": 54,
    "attempt": 42,
}
PAST_COLUMNS = ("ended", "vm", "way", "type", "state", "elapsed", "attempt", "author", "reason")
PAST_WIDTHS = {"ended": 84, "vm": 130, "way": 150, "type": 80, "state": 100, "author": 130, "elapsed": 70}

_WIDE_PX = 1200
"""From this width on there is room for everything beside the tabs, and for details beside the list."""

_BESIDE_UP_TO_PX, _NARROW_BESIDE_UP_TO_PX = 430, 340
"""Up to this height of the pane the details stand beside the list, else below it."""

_ROOM_PX = 520
"""The height that Enter gives to the pane, where the window has it."""

_S = OperationState
TABS = ("queue", "failed", "history", "timeline")
PAST_TABS = ("failed", "history")


def ended_order(_: ClusterView, operation: Operation) -> tuple[Any, ...]:
    """The newest end first."""
    return (-(operation.ended_s or operation.created_s), operation.id)


def _queue_order(_: ClusterView, operation: Operation) -> tuple[Any, ...]:
    return queue_order(operation)


class QueuePane(QWidget):
    """All heavy work of one cluster, and what others do. A hidden pane does no work."""

    cancel_wanted = Signal(object)  # tuple of operation ids
    cancel_all_wanted = Signal()
    back_wanted = Signal(object)  # list of operations
    retry_wanted = Signal(object)  # list of operations
    steer_wanted = Signal(object, object)  # QueueVerb, fields of the request
    post_copy_wanted = Signal(object)  # operation
    vm_wanted = Signal(str)
    roles_wanted = Signal()  # where VMs are chosen
    batch_wanted = Signal(str)
    past_wanted = Signal()  # the journal is to be read
    export_wanted = Signal()
    room_wanted = Signal(int)  # the height that the details need
    said = Signal(str)  # something to be told

    def __init__(self, runtime: Runtime, look: Look, views: ViewStore, keeper: ViewKeeper) -> None:
        super().__init__()
        self.runtime, self._look = runtime, look
        view = runtime.view
        self.watch = QueueWatch(view)
        self.others = OthersRows(view)
        self.courses = Courses(view)
        self._past: dict[str, Operation] = {}
        self._past_asked = False
        self._wants_detail = True
        clock = runtime.clock

        def belongs(operation: Operation) -> bool:
            if operation.action == OTHERS:
                return True
            if not is_heavy(operation):
                return False
            ended = operation.ended_s
            return not operation.is_over or (ended is not None and clock.now_s() - ended < RECENT_S)

        self._belongs = belongs
        self.model = RowsModel(Kind.OPERATION, view, own_order=_queue_order, scope=belongs, extra=self.others)
        self.past_model = RowsModel(
            Kind.OPERATION, view, own_order=ended_order, scope=self._has_ended, extra=self._past
        )
        self._queue_table = QueueTable(
            self.model,
            look,
            name="table-queue",
            views=views,
            title="Queue",
            shown=QUEUE_COLUMNS,
            widths=QUEUE_WIDTHS,
            firm=("phase",),
        )
        self._queue_table.can_reorder = not view.config.read_only
        self.past_table = RowsTable(
            self.past_model,
            look,
            name="table-past",
            views=views,
            title="History",
            shown=PAST_COLUMNS,
            widths=PAST_WIDTHS,
        )
        for model in (self.model, self.past_model):
            model.set_active(False)
        self._timeline: QueueTimeline | None = None
        self._detail: MoveDetail | None = None
        self._queue_search, self._past_search = (
            SearchBox(name, "Search", Kind.OPERATION, look, views=views, known=partial(self._values, model))
            for name, model in (("Search the queue", self.model), ("Search what ended", self.past_model))
        )
        self.shown = ShownView(Kind.OPERATION, self.past_table, self._past_search, keeper)
        self._build()
        self._connect()
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(250)
        self._later.timeout.connect(self._tell)
        self._age = QTimer(self)
        self._age.setInterval(5000)
        self._age.timeout.connect(self._aged)
        self._tell()
        self._turned(0)

    # --- building ----------------------------------------------------------------------------------

    def _build(self) -> None:
        self.pause_button = flat_button("Pause queue", on_click=self._pause)
        self.cancel_all_button = flat_button("Cancel all…", on_click=self.cancel_all_wanted.emit)
        self.limits_button = flat_button("Limits", on_click=self._open_limits)
        self.policy = text_label(style="dim")
        self.strip = QWidget()
        self.strip.setObjectName("strip")
        row = QHBoxLayout(self.strip)
        row.setContentsMargins(0, 0, 8, 0)
        row.setSpacing(2)
        for widget in (self.pause_button, self.cancel_all_button, self.limits_button):
            row.addWidget(widget)
        row.addWidget(self.policy)
        self.above = AboveQueue(self.runtime.view, self._look, self.watch)
        self.tabs = QTabBar()
        self.tabs.setObjectName("inner")
        self.tabs.setDrawBase(False)
        self.tabs.setExpanding(False)
        self.tabs.setUsesScrollButtons(False)
        self.tabs.setAccessibleName("Parts of the queue")
        for title in ("Queue", "Failed", "History", "Timeline"):
            self.tabs.addTab(title)
        for search in self.searches:
            search.setMinimumWidth(110)
            search.setMaximumWidth(300)
        self.views_strip = strip_of(self.shown.revert_button, self.shown.button)
        self.used = ElidedLabel(style="dim")
        self.used.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.cancel_button = flat_button("Cancel…", on_click=self._cancel)
        self.retry_button = flat_button("Retry elsewhere…", on_click=self._retry)
        self.back_button = flat_button("Move back", on_click=self._move_back)
        self.back_button.setToolTip("Move the selected VMs back to where they came from")
        self.copy_button = flat_button("Copy details", on_click=self.copy_details)
        self.columns_button = flat_button("Columns")
        self.columns_button.clicked.connect(lambda *_: self.table.choose_columns(self.columns_button))
        self.export_button = flat_button("Export", on_click=self.export_wanted.emit)
        bar = QWidget()
        bar.setObjectName("strip")
        line = QHBoxLayout(bar)
        line.setContentsMargins(0, 0, 8, 0)
        line.setSpacing(4)
        line.addWidget(self.tabs)
        for search in self.searches:
            line.addWidget(search, 2)
        line.addWidget(self.used, 3)
        for button in (
            self.back_button,
            self.retry_button,
            self.copy_button,
            self.cancel_button,
            self.views_strip,
            self.columns_button,
            self.export_button,
        ):
            line.addWidget(button)
        self.stack = QStackedWidget()
        for page in (self._queue_table, self.past_table):
            self.stack.addWidget(page)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(self.stack)
        self.split.setStretchFactor(0, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.above)
        layout.addWidget(bar)
        layout.addWidget(hairline())
        layout.addWidget(self.split, 1)
        self.empty = EmptyState(self._queue_table.viewport())
        self._past_empty = EmptyState(self.past_table.viewport())
        self.setFocusProxy(self._queue_table)

    def _connect(self) -> None:
        self.tabs.currentChanged.connect(self._turned)
        self.shown.changed.connect(self._tell)
        for table, search in zip(self.tables, self.searches, strict=True):
            search.wanted.connect(table.rows_model.set_filter)
            search.left.connect(self._focus_list)
            search.entered.connect(table.enter)
            table.selection_settled.connect(self._selected)
            table.opened.connect(self._open)
            table.menu_wanted.connect(self._menu)
            table.rows_model.counts_changed.connect(self._counts)
        table = self._queue_table
        self.above.steer_wanted.connect(self.steer_wanted)
        self.above.timeline_wanted.connect(self.show_batch)
        self.above.cancel_wanted.connect(self._cancel_batch)
        table.dropped.connect(self._place)
        table.refused.connect(self.said)
        table.step_wanted.connect(self._step)
        table.cancel_wanted.connect(self._cancel)

    @property
    def timeline(self) -> QueueTimeline:
        """The timeline, made when it is first looked at."""
        if self._timeline is None:
            made = self._timeline = QueueTimeline(self.runtime, self._look, self.others)
            made.opened.connect(self.show_operation)
            made.show_past(self._past.values())
            self.stack.addWidget(made)
        return self._timeline

    @property
    def detail(self) -> MoveDetail:
        """The details, made when they are first looked at."""
        if self._detail is None:
            made = self._detail = MoveDetail(self.runtime, self._look, self.courses)
            made.hide()
            self.split.addWidget(made)
            made.closed.connect(self._hide_detail)
            made.left.connect(self._focus_list)
            made.cancel_wanted.connect(self.cancel_wanted)
            made.retry_wanted.connect(self.retry_wanted)
            made.post_copy_wanted.connect(self.post_copy_wanted)
            made.tune_wanted.connect(
                lambda key, what: self.steer_wanted.emit(QueueVerb.TUNE, {"operations": (key,), **what})
            )
        return self._detail

    # --- what the window asks ----------------------------------------------------------------------

    @property
    def tables(self) -> tuple[RowsTable, ...]:
        """All tables of the pane."""
        return self._queue_table, self.past_table

    @property
    def table(self) -> RowsTable:
        """The table that is shown, or was last."""
        return self.past_table if self.stack.currentWidget() is self.past_table else self._queue_table

    @property
    def searches(self) -> tuple[SearchBox, SearchBox]:
        """The search boxes, in the order of the tables: what ended is searched, and has views, by itself."""
        return self._queue_search, self._past_search

    @property
    def search(self) -> SearchBox:
        """That of the table that is shown, or was last."""
        return self.searches[self.tables.index(self.table)]

    @property
    def tab(self) -> str:
        """Which part is shown: one of `TABS`."""
        return TABS[max(0, self.tabs.currentIndex())]

    def show_tab(self, name: str) -> None:
        """Show a part."""
        self.tabs.setCurrentIndex(TABS.index(name))

    def focus_search(self) -> None:
        """Go to the search box; the timeline has none."""
        if self.tab == "timeline":
            self.show_tab("queue")
        self.search.take_focus()

    def show_view(self, view: View) -> None:
        """Show a view of what ended."""
        if self.tab not in PAST_TABS:
            self.show_tab("history")
        self.shown.show(view)

    def past_failed(self) -> None:
        """The journal was not read: it is asked again when somebody looks again."""
        self._past_asked = False

    def show_past(self, operations: Sequence[Operation]) -> None:
        """What the journal has of earlier runs of the program, or the core has forgotten."""
        known, view = self.runtime.view.operations, self.runtime.view
        told = ChangeSet()
        for operation in operations:
            if operation.id not in known and operation.id not in self._past:
                self._past[operation.id] = operation
                told[Kind.OPERATION].add(operation.id)
        for operation in sorted(self._past.values(), key=partial(ended_order, view))[MOST_PAST:]:
            del self._past[operation.id]
            told[Kind.OPERATION].remove(operation.id)
        self.past_model.take(told)
        if self._timeline is not None:
            self._timeline.show_past(self._past.values())

    def show_operation(self, key: str) -> None:
        """Show one operation with its details, wherever it stands."""
        operation = self.runtime.view.operations.get(OperationId(key)) or self._past.get(key)
        if operation is None:
            return
        self.show_tab("history" if operation.is_over else "queue")
        self.table.rows_model.reveal([key])
        if self.table.rows_model.position(key) < 0:
            self.search.clear()
            self.search.flush()
            self.table.rows_model.reveal([key])
        self._wants_detail = True
        self.table.select_ids([key], current=key)
        self._focus_list()

    def take(self, changes: ChangeSet) -> list[OperationId]:
        """Follow what changed; returns the batches that ended just now."""
        seen = (self.watch.seen.get(OperationId(key)) for key in changes[Kind.OPERATION].removed)
        forgotten = [operation for operation in seen if operation is not None and operation.is_over]
        ended = self.watch.take(changes)
        self.courses.take(changes)
        others = self.others.take(changes)
        if others:
            self.model.take(others)
        self.model.take(changes)
        self.past_model.take(changes)
        if forgotten:
            self.show_past(forgotten)
        if self._timeline is not None:
            self._timeline.take(changes)
        if self._detail is not None:
            self._detail.take(changes)
        if (changes[Kind.OPERATION] or others) and not self._later.isActive():
            self._later.start()
        return ended

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up."""
        super().showEvent(event)
        self._turned(self.tabs.currentIndex())
        self._aged()
        self._age.start()
        self._tell()

    def hideEvent(self, event: QHideEvent) -> None:
        """Work no more."""
        super().hideEvent(event)
        self._age.stop()
        for model in (self.model, self.past_model):
            model.set_active(False)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """In a low pane the details stand beside the list, in a high one below it."""
        super().resizeEvent(event)
        wide = self.width() >= _WIDE_PX
        low = self.height() <= (_BESIDE_UP_TO_PX if wide else _NARROW_BESIDE_UP_TO_PX)
        self.policy.setVisible(wide)
        self._tell_limits()
        wanted = Qt.Orientation.Horizontal if low else Qt.Orientation.Vertical
        if self.split.orientation() != wanted:
            self.split.setOrientation(wanted)
            self._give_room()

    # --- parts -------------------------------------------------------------------------------------

    def _turned(self, place: int) -> None:
        tab = TABS[max(0, place)]
        page: QWidget = self.past_table
        if tab == "queue":
            page = self._queue_table
        elif tab == "timeline":
            page = self.timeline
        self.stack.setCurrentWidget(page)
        shown = self.isVisible()
        self.model.set_active(shown and tab == "queue")
        self.past_model.set_active(shown and tab in PAST_TABS)
        if tab in PAST_TABS:
            self.past_model.set_scope(self._is_failed if tab == "failed" else self._has_ended)
        self.search.flush()
        self.setFocusProxy(page)
        lists = tab != "timeline"
        for search in self.searches:
            search.setVisible(lists and search is self.search)
        for widget in (self.columns_button, self.export_button):
            widget.setVisible(lists)
        self.views_strip.setVisible(tab in PAST_TABS)
        self.cancel_button.setVisible(tab == "queue")
        self.retry_button.setVisible(tab == "failed")
        self.back_button.setVisible(tab == "history")
        self.copy_button.setVisible(tab in PAST_TABS)
        if tab in ("history", "timeline") and shown and not self._past_asked:
            self._past_asked = True
            self.past_wanted.emit()
        self._selected()
        self._counts()
        self._tell()

    def _is_failed(self, operation: Operation) -> bool:
        return operation.id in self.watch.failed

    @staticmethod
    def _has_ended(operation: Operation) -> bool:
        return operation.is_over and is_heavy(operation)

    def _values(self, model: RowsModel, spec: FieldSpec) -> list[str]:
        return values_in(self.runtime.view, [row.item for row in model.rows], spec)

    def _aged(self) -> None:
        """Ended moves leave the queue after a while."""
        now_s = self.runtime.clock.now_s()
        if any(
            row.item.ended_s is not None and now_s - row.item.ended_s >= RECENT_S for row in self.model.rows
        ):
            self.model.set_scope(self._belongs)

    def _counts(self) -> None:
        parts = ((self._queue_search, self.empty), (self._past_search, self._past_empty))
        for table, (search, empty) in zip(self.tables, parts, strict=True):
            model = table.rows_model
            if model.found:
                empty.hide()
            elif model.search_text.strip() and model.total:
                empty.say_none_matches(model.search_text, model.total, search.clear)
            else:
                empty.say(*self.empty_text(model))

    def empty_text(self, model: RowsModel) -> tuple[str, str, str, Callable[[], object] | None]:
        """What belongs here, and the button that leads to it."""
        if model is self.model:
            return (
                "Nothing moves, nothing waits",
                "Moves, and starts and saves of many VMs, appear here: select VMs in Roles and press Ctrl+M.",
                "Show the roles",
                self.roles_wanted.emit,
            )
        if self.tab == "failed":
            return (
                "No move has failed",
                "What failed stays here, with the reason, until its VM was moved after all.",
                "",
                None,
            )
        return (
            "Nothing has ended yet",
            "Every move ends up here, with who asked for it and how it went.",
            "",
            None,
        )

    # --- what stands above the list ------------------------------------------------------------------

    def _tell(self) -> None:
        view, watch = self.runtime.view, self.watch
        live = [view.operations[key] for key in watch.live if key in view.operations]
        moving = sum(1 for o in live if o.state is not _S.WAITING)
        orders = view.orders
        self.pause_button.setText("Continue" if orders.paused_by else "Pause queue")
        self.pause_button.setToolTip(
            "Let what waits start again (Ctrl+.)"
            if orders.paused_by
            else "Nothing new starts; what runs goes on (Ctrl+.)"
        )
        writable = not view.config.read_only
        self.pause_button.setEnabled(writable)
        self.limits_button.setEnabled(writable)
        self.cancel_all_button.setEnabled(bool(live) and writable)
        self._tell_limits()
        steps = view.config.migration.convergence
        self.policy.setText("Policy: standard")
        self.policy.setToolTip(
            f"If a move does not converge: {policy_text(steps, '')}. "
            "It is the cluster file's; another one can be chosen for each move."
        )
        texts = ("Queue", len(live) + len(self.others)), ("Failed", len(watch.failed))
        for place, (title, count) in enumerate(texts):
            text = f"{title}  {count:,}" if count else title
            if self.tabs.tabText(place) != text:
                self.tabs.setTabText(place, text)
        self._tell_used(live)
        self.above.tell(moving)
        if self.tab == "failed":
            self.past_model.set_scope(self._is_failed)
        self._buttons()

    def _tell_limits(self) -> None:
        """Beside the tabs there is not always room for all of it."""
        text = limits_text(self.runtime.view.config)
        self.limits_button.setText(f"Limits: {text} ▾" if self.width() >= _WIDE_PX else "Limits ▾")
        self.limits_button.setToolTip(f"Limits: {text}. Change them while the queue runs")

    def _tell_used(self, live: Sequence[Operation]) -> None:
        progress = self.runtime.view.progress
        moves = [o for o in live if o.id in progress]
        sent = sum(progress[o.id].rate_bytes_per_s for o in moves)
        caps = [o.cap_mib_s for o in moves if o.kind is OperationKind.MIGRATE]
        text = f"{units.rate_text(sent)} sent" if moves else ""
        if moves and caps and all(caps):
            text = f"{units.rate_text(sent)} of {units.rate_text(sum(caps) * units.MIB)} used"
        view = self.shown.title if self.tab in PAST_TABS else ""
        self.used.set_text(view or text)

    def show_batch(self, key: str) -> None:
        """Show one batch in the timeline."""
        self.show_tab("timeline")
        self.timeline.show_batch(OperationId(key))

    # --- details -----------------------------------------------------------------------------------

    def _selected(self) -> None:
        keys = self.table.selected_ids if self.tab != "timeline" else []
        row = self.table.rows_model.row(keys[0]) if len(keys) == 1 else None
        if row is not None and self._wants_detail:
            fresh = self.detail.isHidden()
            self.detail.show_row(keys[0], row.item)
            self.detail.show()
            if fresh:
                self._give_room()
        elif self._detail is not None:
            focus = QApplication.focusWidget()
            if focus is not None and self._detail.isAncestorOf(focus):
                self._focus_list()
            self._detail.hide()
        self._buttons()

    def _focus_list(self) -> None:
        self.table.setFocus(Qt.FocusReason.OtherFocusReason)

    def _give_room(self) -> None:
        if self.split.orientation() == Qt.Orientation.Horizontal:
            width = self.split.width()
            detail = max(360, width * 46 // 100)
            self.split.setSizes([width - detail, detail])
        else:
            height = self.split.height()
            self.split.setSizes([height * 55 // 100, height * 45 // 100])

    def _open(self, key: str) -> None:
        """Enter or a double click: the details, with enough room, and what can be done there."""
        self._wants_detail = True
        self._selected()
        self.room_wanted.emit(_ROOM_PX)
        if self._detail is not None and self._detail.isVisible():
            self._detail.enter()

    def _hide_detail(self) -> None:
        self._wants_detail = False
        self.detail.hide()
        self._focus_list()

    def copy_details(self) -> None:
        """What is to be said of the selected ones, with their stories, to the clipboard."""
        chosen = self._mine()

        def copy() -> None:
            QApplication.clipboard().setText("\n\n".join(message_of(self.runtime, o) for o in chosen))

        self.runtime.stories.then([o.id for o in chosen], copy)

    # --- what is chosen ------------------------------------------------------------------------------

    @property
    def chosen(self) -> list[Operation]:
        """The selected rows, in their order."""
        if self.tab == "timeline":
            return []
        return [row.item for row in self.table.selected_rows]

    def _mine(self) -> list[Operation]:
        return [o for o in self.chosen if o.action != OTHERS]

    def _buttons(self) -> None:
        chosen = self._mine()
        writable = not self.runtime.view.config.read_only
        self.cancel_button.setEnabled(writable and any(not o.is_over for o in chosen))
        self.copy_button.setEnabled(bool(chosen))
        self.retry_button.setEnabled(writable and any(self._can_retry(o) for o in chosen))
        if self.tab == "history":
            back = undoable(self.runtime, chosen[:200])
            self.back_button.setText("Move back…" if asks_back(back) else "Move back")
            self.back_button.setEnabled(writable and bool(back))

    @staticmethod
    def _can_retry(operation: Operation) -> bool:
        return operation.state is _S.FAILED and operation.kind is OperationKind.MIGRATE

    def _cancel(self) -> None:
        ids = tuple(o.id for o in self._mine() if not o.is_over)
        if ids:
            self.cancel_wanted.emit(ids)

    def _retry(self) -> None:
        failed = [o for o in self._mine() if self._can_retry(o)]
        if failed:
            self.retry_wanted.emit(failed)

    def _move_back(self) -> None:
        self.back_wanted.emit(undoable(self.runtime, self._mine()))

    def _pause(self) -> None:
        paused = bool(self.runtime.view.orders.paused_by)
        self.steer_wanted.emit(QueueVerb.RESUME if paused else QueueVerb.PAUSE, {})

    def _cancel_batch(self, key: str) -> None:
        ids = tuple(o.id for o in self.watch.children(OperationId(key)) if not o.is_over)
        if ids:
            self.cancel_wanted.emit(ids)

    def _open_limits(self) -> None:
        popup = LimitsPopup(self, self._look, self.runtime.view)
        popup.chosen.connect(lambda limits: self.steer_wanted.emit(QueueVerb.LIMITS, {"limits": limits}))
        button = self.limits_button
        popup.open_at(button.mapToGlobal(QPoint(button.width(), button.height() + 2)))

    # --- another place -------------------------------------------------------------------------------

    def _line(self) -> list[Operation]:
        view = self.runtime.view
        found = (view.operations.get(key) for key in self.watch.live)
        return [o for o in found if o is not None and waits(o)]

    def _place(self, moved: Sequence[str], before: str | None) -> None:
        self._reorder(placed(self._line(), moved, before))

    def _step(self, way: int) -> None:
        moved = [o.id for o in self._mine() if waits(o)]
        if not moved or self.runtime.view.config.read_only:
            return
        requests = stepped(self._line(), moved, way)
        self._reorder(requests)
        if not requests:
            what = "before" if way < 0 else "behind"
            self.said.emit(
                f"Nothing of the same priority waits {what} it. High goes before Medium, Medium before Low: "
                "set the priority in Roles to change that."
            )

    def _reorder(self, requests: Sequence[tuple[tuple[OperationId, ...], OperationId | None]]) -> None:
        if requests:
            self.model.expect_order()
        for operations, before in requests:
            self.steer_wanted.emit(QueueVerb.REORDER, {"operations": operations, "before": before})

    def _first(self) -> None:
        line = self._line()
        moved = [o.id for o in self._mine() if waits(o)]
        first = min((o for o in line if o.id not in moved), key=queue_order, default=None)
        self._reorder(placed(line, moved, first.id if first is not None else None))

    # --- menu ----------------------------------------------------------------------------------------

    def _menu(self, at: QPoint) -> None:
        menu = self.context_menu()
        menu.popup(at)

    def context_menu(self) -> QMenu:
        """What can be done with the selected rows."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        chosen = self._mine()
        writable = not self.runtime.view.config.read_only
        waiting = [o for o in chosen if waits(o)]

        def add(title: str, act: Callable[[], object], enabled: bool, keys: str = "") -> None:
            action = menu.addAction(f"{title}\t{keys}" if keys else title)
            action.triggered.connect(lambda *_: act())
            action.setEnabled(enabled)

        add("Details", lambda: self._open(""), len(self.chosen) == 1, "Enter")
        menu.addSeparator()
        if self.tab == "queue":
            add("Cancel…", self._cancel, writable and any(not o.is_over for o in chosen), "Del")
            add("First in its priority", self._first, writable and bool(waiting))
            add("Up", partial(self._step, -1), writable and bool(waiting), "Alt+↑")
            add("Down", partial(self._step, 1), writable and bool(waiting), "Alt+↓")
        add("Retry elsewhere…", self._retry, writable and any(self._can_retry(o) for o in chosen))
        back = undoable(self.runtime, chosen[:200])
        title = "Move these back…" if asks_back(back) else "Move these back"
        add(title, self._move_back, writable and bool(back))
        menu.addSeparator()
        one = self.chosen[0] if len(self.chosen) == 1 else None
        add("Show the VM in Roles", lambda: self._show_vm(one), one is not None and one.vm is not None)
        batch = one.parent if one is not None else None
        add("Show its batch", lambda: self.batch_wanted.emit(str(batch)), batch is not None)
        add("Show its batch in the timeline", lambda: self.show_batch(str(batch)), batch is not None)
        menu.addSeparator()
        add("Copy", self.table.copy_cells, bool(self.chosen), "Ctrl+C")
        add("Copy details", self.copy_details, bool(chosen))
        return menu

    def _show_vm(self, operation: Operation | None) -> None:
        if operation is not None and operation.vm is not None:
            self.vm_wanted.emit(str(operation.vm))

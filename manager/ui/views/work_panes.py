"""What the panes at the bottom share, and that of all operations with their errors."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QPlainTextEdit,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from manager.core import units
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, OperationId
from manager.core.migration.summary import queue_order
from manager.core.operations import Operation, OperationState
from manager.core.query.operation_fields import operation_title
from manager.core.reasons import ReasonCode
from manager.services.ports import ViewStore
from manager.services.runtime import Runtime
from manager.ui.models.rows_model import RowsModel
from manager.ui.runner import asks_back, undoable
from manager.ui.theme import Look
from manager.ui.views.parts import EmptyState, flat_button, text_label
from manager.ui.views.table import RowsTable
from manager.ui.wording import failure_text, repair_commands, result_text


def in_turn(_: ClusterView, operation: Operation) -> tuple[Any, ...]:
    """The children of a batch: as they stand in the queue, then what ended."""
    return queue_order(operation)


def newest_first(_: ClusterView, operation: Operation) -> tuple[float, str]:
    """Batches: the newest at the top."""
    return (-operation.created_s, operation.id)


class WorkPane(QWidget):
    """A table over operations or problems that works only while it is visible."""

    strip: QWidget  # its counts and buttons, shown beside the tabs

    def __init__(
        self,
        runtime: Runtime,
        look: Look,
        views: ViewStore,
        model: RowsModel,
        *,
        name: str,
        title: str,
        shown: tuple[str, ...] | None = None,
        widths: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.runtime = runtime
        self.model = model
        model.set_active(False)
        self.table = RowsTable(model, look, name=name, views=views, title=title, shown=shown, widths=widths)
        self.empty = EmptyState(self.table.viewport())
        model.counts_changed.connect(self._counts)

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed."""
        self.model.take(changes)

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up."""
        super().showEvent(event)
        self.model.set_active(True)
        self._counts()

    def hideEvent(self, event: QHideEvent) -> None:
        """Work no more."""
        super().hideEvent(event)
        self.model.set_active(False)

    def _counts(self) -> None:
        if self.model.found:
            self.empty.hide()
        else:
            self.empty.say(*self.empty_text())

    def empty_text(self) -> tuple[str, str]:
        """What belongs here."""
        raise NotImplementedError


class OperationsPane(WorkPane):
    """Everything asked for; of the chosen one the result per VM, and of a failure its whole story."""

    undo_wanted = Signal(object)  # list of operations
    cancel_wanted = Signal(object)  # tuple of operation ids
    through_wanted = Signal(object)  # list of operations refused for want of a login between nodes

    def __init__(self, runtime: Runtime, look: Look, views: ViewStore) -> None:
        model = RowsModel(
            Kind.OPERATION,
            runtime.view,
            own_order=newest_first,
            scope=lambda o: o.is_parent,
        )
        super().__init__(
            runtime,
            look,
            views,
            model,
            name="table-operations",
            title="Operations",
            shown=("title", "state", "created", "author"),
            widths={"title": 176, "state": 90, "created": 84},
        )
        self._chosen = ""
        self.children_model = RowsModel(
            Kind.OPERATION,
            runtime.view,
            own_order=in_turn,
            scope=lambda o: o.parent == self._chosen,
        )
        self.children_model.set_active(False)
        self.children_table = RowsTable(
            self.children_model,
            look,
            name="table-results",
            views=views,
            title="Result per VM",
            shown=("vm", "state", "reason"),
        )
        self.message = QPlainTextEdit()
        self.message.setReadOnly(True)
        self.message.setAccessibleName("What happened")
        self.message.document().setDocumentMargin(8)
        split = QSplitter(Qt.Orientation.Horizontal)
        split.setChildrenCollapsible(False)
        for widget in (self.table, self.children_table, self.message):
            split.addWidget(widget)
        split.setSizes([430, 430, 420])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(split)
        self.summary = text_label(style="dim")
        self.copy_button = flat_button("Copy details", on_click=self._copy)
        self.through_button = flat_button("Move through this computer", on_click=self._through)
        self.undo_button = flat_button("Undo", on_click=self._undo)
        self.cancel_button = flat_button("Cancel…", on_click=self._cancel)
        self.strip = strip_of(
            self.summary, self.copy_button, self.through_button, self.undo_button, self.cancel_button
        )
        self.table.selection_settled.connect(self._chose)
        self.children_table.selection_settled.connect(self._tell)
        self._tell()

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed."""
        was_empty = not self.model.rows
        super().take(changes)
        self.children_model.take(changes)
        if was_empty and self.isVisible():
            self._choose_newest()
        if changes[Kind.OPERATION] and self.isVisible():
            self._tell()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up; the newest is shown unless one is chosen."""
        super().showEvent(event)
        self.children_model.set_active(True)
        self._choose_newest()

    def _choose_newest(self) -> None:
        if not self._chosen and self.model.rows:
            self.choose(self.model.rows[0].key)

    def hideEvent(self, event: QHideEvent) -> None:
        """Work no more."""
        super().hideEvent(event)
        self.children_model.set_active(False)

    def choose(self, operation: str) -> None:
        """Show a batch, and of its children the first that failed."""
        self.table.select_ids([operation], current=operation)
        failed = [r.key for r in self.children_model.rows if r.item.state is OperationState.FAILED]
        if failed:
            self.children_table.select_ids(failed[:1], current=failed[0])

    def _chose(self) -> None:
        ids = self.table.selected_ids
        self._chosen = ids[0] if ids else ""
        chosen = self._chosen
        self.children_model.set_scope(lambda o: bool(chosen) and o.parent == chosen)
        self._tell()

    def _children(self) -> list[Operation]:
        return [row.item for row in self.children_model.rows]

    def _picked(self) -> list[Operation]:
        """The chosen children; all of them if none is chosen."""
        view = self.runtime.view
        ids = self.children_table.selected_ids
        found = [view.operations.get(OperationId(k)) for k in ids]
        return [o for o in found if o is not None] or self._children()

    def _tell(self) -> None:
        view = self.runtime.view
        batch = view.operations.get(OperationId(self._chosen)) if self._chosen else None
        children = self._children()
        chosen = self.children_table.selected_ids
        text = ""
        if batch is not None:
            text = (
                f"{operation_title(batch)}\nAsked by {batch.author} at {units.time_text(batch.created_s)}. "
            )
            text += f"{result_text(children)}." if children else ""
        if chosen:
            operation = view.operations.get(OperationId(chosen[0]))
            if operation is not None:
                text = message_of(self.runtime, operation)
        if text != self.message.toPlainText():
            bar = self.message.verticalScrollBar()
            at = bar.value()
            self.message.setPlainText(text)
            bar.setValue(at)
        self.summary.setText(result_text(children) if children else "")
        picked = self._picked()[:200]
        self.copy_button.setEnabled(bool(text))
        back = undoable(self.runtime, picked)
        self.undo_button.setText("Undo…" if asks_back(back) else "Undo")
        self.undo_button.setEnabled(bool(back))
        self.cancel_button.setEnabled(not view.config.read_only and any(not o.is_over for o in picked))
        self.through_button.setVisible(bool(self._refused()))

    def _refused(self) -> list[Operation]:
        return [o for o in self._picked() if o.reason and o.reason.code is ReasonCode.PEER_LOGIN_REFUSED]

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.message.toPlainText())

    def _undo(self) -> None:
        self.undo_wanted.emit(undoable(self.runtime, self._picked()))

    def _through(self) -> None:
        self.through_wanted.emit(self._refused())

    def _cancel(self) -> None:
        ids = tuple(o.id for o in self._picked() if not o.is_over)
        if ids:
            self.cancel_wanted.emit(ids)

    def empty_text(self) -> tuple[str, str]:
        """What belongs here."""
        return "Nothing was asked for yet", "Every action appears here with one result per VM and its story."


def message_of(runtime: Runtime, operation: Operation) -> str:
    """What an operation came to: a failure in full, else its state; and its story."""
    if operation.state in (OperationState.FAILED, OperationState.CANCELLED):
        text = failure_text(runtime.view, operation).text
        if operation.reason is not None and operation.reason.code is ReasonCode.PEER_LOGIN_REFUSED:
            text += "\n" + "\n".join(repair_commands(operation.reason))
    else:
        reason = f": {operation.reason.text}" if operation.reason else ""
        text = f"{operation_title(operation)}\n{operation.state.value}{reason}"
    story = runtime.stories.of(operation.id)
    lines = "\n".join(f"{units.time_text(line.at_s)}  {line.text}" for line in story)
    return f"{text}\n\nStory\n{lines}" if lines else text


def strip_of(*widgets: QWidget) -> QWidget:
    """What stands beside the tabs of a pane."""
    strip = QWidget()
    strip.setObjectName("strip")
    layout = QHBoxLayout(strip)
    layout.setContentsMargins(0, 0, 8, 0)
    layout.setSpacing(2)
    for widget in widgets:
        layout.addWidget(widget)
    return strip

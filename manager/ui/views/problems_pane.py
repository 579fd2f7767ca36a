"""The pane of problems: one line per cause, to be acknowledged or muted."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QMenu, QVBoxLayout, QWidget

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.events import ProblemVerb
from manager.core.ids import Kind
from manager.core.model import ClusterConfig, Problem
from manager.core.query.complete import values_in
from manager.core.query.spec import FieldSpec
from manager.core.units import count_text
from manager.services.ports import ViewStore
from manager.services.runtime import LONGEST_NOTE, Runtime
from manager.ui.dialogs.base import Asking
from manager.ui.models.rows_model import RowsModel
from manager.ui.theme import Look
from manager.ui.views.parts import ElidedLabel, flat_button, text_label
from manager.ui.views.saved_views import ShownView, ViewKeeper
from manager.ui.views.search import SearchBox
from manager.ui.views.work_panes import WorkPane, strip_of

MUTES = (
    ("For 1 hour", 3600.0),
    ("For 8 hours", 28_800.0),
    ("For a day", 86_400.0),
    ("For a week", 604_800.0),
)


def new_first(view: ClusterView, problem: Problem) -> tuple[bool, str, float, str]:
    """Those that somebody should look at stand above those that were seen to."""
    return not problem.is_new(view.now_s), problem.severity, -problem.since_s, problem.key


class NoteDialog(Asking):
    """What is done about problems that are acknowledged."""

    def __init__(self, parent: QWidget | None, cluster: ClusterConfig, count: int) -> None:
        super().__init__(parent, f"Acknowledge {count_text(count, 'problem')}", cluster)
        self.setMinimumWidth(460)
        self.body.addWidget(
            text_label(
                "Acknowledged problems stay in the list and are not counted until they end.", "dim", wrap=True
            )
        )
        self.field = QLineEdit()
        self.field.setMaxLength(LONGEST_NOTE)
        self.field.setAccessibleName("Note")
        self.field.setPlaceholderText("What is done about it, for others to read")
        self.body.addWidget(self.field)
        self.add_buttons()
        self.button("Cancel", self.reject)
        self.button(f"Acknowledge {count}", self.accept, style="primary", default=True)
        self.field.setFocus()


class ProblemsPane(WorkPane):
    """What an administrator should look at; one line per cause."""

    said = Signal(str)  # why nothing was done
    export_wanted = Signal()

    def __init__(self, runtime: Runtime, look: Look, views: ViewStore, keeper: ViewKeeper) -> None:
        super().__init__(
            runtime,
            look,
            views,
            RowsModel(Kind.PROBLEM, runtime.view, own_order=new_first),
            name="table-problems",
            title="Problems",
            shown=("subject", "state", "since", "reason", "affected", "note", "remedy"),
        )
        self.search = SearchBox(
            "Search problems", "Search", Kind.PROBLEM, look, views=views, known=self._values
        )
        self.search.setMinimumWidth(110)
        self.search.setMaximumWidth(300)
        self.shown = ShownView(Kind.PROBLEM, self.table, self.search, keeper)
        self._view_title = ElidedLabel(style="dim")
        self._view_title.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        columns = flat_button("Columns")
        columns.clicked.connect(lambda *_: self.table.choose_columns(columns))
        bar = QWidget()
        bar.setObjectName("strip")
        line = QHBoxLayout(bar)
        line.setContentsMargins(12, 0, 8, 0)
        line.setSpacing(4)
        line.addWidget(self.search, 2)
        line.addWidget(self._view_title, 3)
        for button in (
            self.shown.revert_button,
            self.shown.button,
            columns,
            flat_button("Export", on_click=self.export_wanted.emit),
        ):
            line.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(bar)
        layout.addWidget(self.table, 1)
        self.setFocusProxy(self.table)
        self.summary = text_label(style="dim")
        self.acknowledge_button = flat_button("Acknowledge…", on_click=lambda: self.acknowledge(self._keys()))
        self.mute_button = flat_button("Mute", menu=self.mute_menu(self, self._keys))
        self.reopen_button = flat_button("Count again", on_click=self.reopen)
        self.strip = strip_of(self.summary, self.acknowledge_button, self.mute_button, self.reopen_button)
        self.table.selection_settled.connect(self._tell)
        self.search.wanted.connect(self.model.set_filter)
        self.search.left.connect(self.table.setFocus)
        self.search.entered.connect(self.table.enter)
        self.shown.changed.connect(lambda: self._view_title.set_text(self.shown.title))
        self._tell()

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed."""
        super().take(changes)
        if changes[Kind.PROBLEM]:
            self._tell()

    def acknowledge(self, keys: tuple[str, ...]) -> None:
        """Ask for a note, then acknowledge these."""
        if keys:
            dialog = NoteDialog(self.window(), self.runtime.view.config, len(keys))
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.accepted.connect(
                lambda: self._mark(ProblemVerb.ACKNOWLEDGE, keys, note=dialog.field.text().strip())
            )
            dialog.open()

    def mute_menu(self, parent: QWidget, keys: Callable[[], tuple[str, ...]]) -> QMenu:
        """For how long what is meant then is not to be counted."""
        menu = QMenu(parent)
        for title, span_s in MUTES:
            menu.addAction(title).triggered.connect(lambda *_, s=span_s: self._mute(keys(), s))
        return menu

    def _mute(self, keys: tuple[str, ...], span_s: float) -> None:
        self._mark(ProblemVerb.MUTE, keys, until_s=self.runtime.clock.now_s() + span_s)

    def reopen(self) -> None:
        """Count what is selected as new again."""
        for verb in (ProblemVerb.REOPEN, ProblemVerb.UNMUTE):
            self._mark(verb, self._keys())

    def _mark(
        self, verb: ProblemVerb, keys: tuple[str, ...], *, note: str = "", until_s: float | None = None
    ) -> None:
        if not keys:
            return
        try:
            self.runtime.mark(verb, keys, note=note, until_s=until_s)
        except (OSError, UserError) as error:
            self.said.emit(str(error))

    def _keys(self) -> tuple[str, ...]:
        return tuple(self.table.selected_ids)

    def _tell(self) -> None:
        view, keys = self.runtime.view, self._keys()
        chosen = [view.problems[key] for key in keys if key in view.problems]
        known = sum(not problem.is_new(view.now_s) for problem in view.problems.values())
        self.summary.setText(f"{known} acknowledged or muted" if known else "")
        self.acknowledge_button.setEnabled(any(not (p.life and p.life.acknowledged_by) for p in chosen))
        self.mute_button.setEnabled(bool(chosen))
        self.reopen_button.setEnabled(any(not problem.is_new(view.now_s) for problem in chosen))

    def _values(self, spec: FieldSpec) -> list[str]:
        return values_in(self.runtime.view, self.runtime.view.problems.values(), spec)

    def _counts(self) -> None:
        if self.model.search_text.strip() and self.model.total and not self.model.found:
            self.empty.say_none_matches(self.model.search_text, self.model.total, self.search.clear)
        else:
            super()._counts()

    def empty_text(self) -> tuple[str, str]:
        """What belongs here."""
        return "No problems", "Nodes that cannot be reached and VMs that stopped by themselves appear here."

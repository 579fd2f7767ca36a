"""The pane of problems: one line per cause, to be acknowledged or muted."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLineEdit, QMenu, QVBoxLayout, QWidget

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.events import ProblemVerb
from manager.core.ids import Kind
from manager.core.model import ClusterConfig, Problem
from manager.core.units import count_text
from manager.services.ports import ViewStore
from manager.services.runtime import LONGEST_NOTE, Runtime
from manager.ui.dialogs.base import Asking
from manager.ui.models.rows_model import RowsModel
from manager.ui.theme import Look
from manager.ui.views.parts import flat_button, text_label
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

    def __init__(self, runtime: Runtime, look: Look, views: ViewStore) -> None:
        super().__init__(
            runtime,
            look,
            views,
            RowsModel(Kind.PROBLEM, runtime.view, own_order=new_first),
            name="table-problems",
            title="Problems",
            shown=("subject", "state", "since", "reason", "affected", "note", "remedy"),
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        self.summary = text_label(style="dim")
        self.acknowledge_button = flat_button("Acknowledge…", on_click=self.acknowledge)
        menu = QMenu(self)
        for title, span_s in MUTES:
            menu.addAction(title).triggered.connect(lambda *_, s=span_s: self.mute(s))
        self.mute_button = flat_button("Mute", menu=menu)
        self.reopen_button = flat_button("Count again", on_click=self.reopen)
        self.strip = strip_of(self.summary, self.acknowledge_button, self.mute_button, self.reopen_button)
        self.table.selection_settled.connect(self._tell)
        self._tell()

    def take(self, changes: ChangeSet) -> None:
        """Follow what changed."""
        super().take(changes)
        if changes[Kind.PROBLEM]:
            self._tell()

    def acknowledge(self) -> None:
        """Ask for a note, then acknowledge what is selected."""
        keys = self._keys()
        if keys:
            dialog = NoteDialog(self.window(), self.runtime.view.config, len(keys))
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.accepted.connect(
                lambda: self._mark(ProblemVerb.ACKNOWLEDGE, keys, note=dialog.field.text().strip())
            )
            dialog.open()

    def mute(self, span_s: float) -> None:
        """Do not count what is selected for so long, in seconds."""
        self._mark(ProblemVerb.MUTE, self._keys(), until_s=self.runtime.clock.now_s() + span_s)

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

    def empty_text(self) -> tuple[str, str]:
        """What belongs here."""
        return "No problems", "Nodes that cannot be reached and VMs that stopped by themselves appear here."

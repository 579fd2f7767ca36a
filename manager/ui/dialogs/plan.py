"""What dialogs share that show a plan before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from PySide6.QtWidgets import QApplication, QHBoxLayout, QLineEdit, QPushButton, QWidget

from manager.core import units
from manager.core.actions import Plan
from manager.core.cluster import ClusterView
from manager.core.ids import VmId
from manager.ui.dialogs.base import Asking
from manager.ui.theme import Look, fixed_font
from manager.ui.views.parts import PlainTable, text_label
from manager.ui.wording import plan_command


class PlanDialog(Asking):
    """The plan row by row, what stays with the reasons, and the same as a command."""

    def __init__(
        self,
        parent: QWidget | None,
        look: Look,
        view: ClusterView,
        ids: Sequence[VmId],
        *,
        verb: str,
        consequence: str,
        changed: str,
        cluster_option: str,
        titles: Sequence[str],
    ) -> None:
        """`changed`: what did since an earlier plan was shown; `titles`: those of the plan's columns."""
        what = units.count_text(len(ids), "VM")
        if len(ids) == 1 and ids[0] in view.vms:
            what = view.vms[ids[0]].name
        super().__init__(parent, f"{verb} {what} in {view.config.name}", view.config)
        self._view, self._ids, self._cluster_option = view, tuple(ids), cluster_option
        self.consequence = text_label(consequence, wrap=True)
        for text, label in (
            (consequence, self.consequence),
            (changed, text_label(changed, "warning", wrap=True)),
        ):
            self.body.addWidget(label)
            label.setVisible(bool(text))
        self.steps = PlainTable(titles, look, name="Plan", empty="Nothing would be done.")
        self.stays = PlainTable(("Not moved", "Why not", "What to do"), look, name="Not moved")
        self.command = QLineEdit()

    def add_command(self) -> None:
        """Put the command below what was added so far."""
        line = QHBoxLayout()
        line.addWidget(text_label("The same as a command", "dim"))
        self.command.setReadOnly(True)
        self.command.setFont(fixed_font())
        self.command.setAccessibleName("The same as a command")
        line.addWidget(self.command, 1)
        self.copy_button = QPushButton("Copy")
        self.copy_button.clicked.connect(lambda *_: QApplication.clipboard().setText(self.command.text()))
        line.addWidget(self.copy_button)
        self.body.addLayout(line)

    def show_rows(self, plan: Plan[Any], steps: Iterable[Sequence[str]], *, complete: bool = True) -> None:
        """Show a plan. `complete`: nothing is left to be named, so that there is a command for it."""
        self.steps.show_rows(steps)
        self.stays.show_rows((s.name, s.reason.text, s.reason.remedy) for s in plan.skipped)
        self.stays.setVisible(bool(plan.skipped))
        shown = complete and bool(plan.steps)
        self.command.setText(plan_command(self._view, plan, self._cluster_option) if shown else "")
        self.command.setCursorPosition(0)
        self.copy_button.setEnabled(bool(self.command.text()))

"""Asks before nodes are paused, drained or resumed: which VMs move where, which stay, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PySide6.QtWidgets import QLineEdit, QWidget

from manager.core import units
from manager.core.actions import PauseParameters, Plan
from manager.core.actions.nodes import LONGEST_WHY
from manager.core.ids import NO_VM
from manager.core.model import ClusterConfig
from manager.ui.dialogs.base import Asking
from manager.ui.theme import Look
from manager.ui.views.parts import PlainTable, text_label
from manager.ui.wording import sentence

_MOST_PX = 320


class NodePlanDialog(Asking):
    """The plan of an action on nodes, row by row. The focus is on Cancel."""

    def __init__(
        self, parent: QWidget | None, look: Look, config: ClusterConfig, plan: Plan[Any], changed: str = ""
    ) -> None:
        self._given = plan.parameters
        verb = verb_of(plan)
        super().__init__(parent, f"{verb} {units.and_text(list(plan.targets))} in {config.name}?", config)
        self.setMinimumWidth(720)
        if changed:
            self.body.addWidget(text_label(changed, "warning", wrap=True))
        notes = [f"{step.name} {step.note.text}" for step in plan.steps if step.vm == NO_VM and step.note]
        self.text = "\n".join(sentence(note) for note in notes)
        self.body.addWidget(text_label(self.text, wrap=True))
        self.why: QLineEdit | None = None
        if isinstance(self._given, PauseParameters):
            self.body.addWidget(text_label("Why, for everybody who sees the pause", "dim"))
            self.why = QLineEdit(self._given.why)
            self.why.setMaxLength(LONGEST_WHY)
            self.why.setPlaceholderText("For example: new memory, until noon")
            self.why.setAccessibleName("Why the node is paused")
            self.body.addWidget(self.why)
        rows = rows_of(plan)
        if rows:
            table = PlainTable(("VM", "From", "To", "Why"), look, name="What will be done")
            table.show_rows(rows)
            table.setMinimumHeight(min(_MOST_PX, 34 + 22 * len(rows)))
            self.body.addWidget(table, 1)
        self.add_buttons()
        count = len(plan.targets)
        self.go = self.button(f"{verb} {units.count_text(count, 'node')}", self.accept, style="primary")
        self.cancel = self.button("Cancel", self.reject, default=True)

    @property
    def parameters(self) -> Any:
        """What was asked for, with what was entered."""
        if self.why is None:
            return self._given
        return replace(self._given, why=" ".join(self.why.text().split()))


def verb_of(plan: Plan[Any]) -> str:
    """``Pause and drain``, ``Resume``."""
    drains = isinstance(plan.parameters, PauseParameters) and plan.parameters.drain
    return f"{plan.spec.verb} and drain" if drains else plan.spec.verb


def rows_of(plan: Plan[Any]) -> list[tuple[str, str, str, str]]:
    """What is done to VMs, and what is left alone: name, from, to, why."""
    moved = [
        (step.name, step.node or "", step.target or "", step.note.text if step.note else "")
        for step in plan.steps
        if step.vm != NO_VM
    ]
    left = [(skipped.name, "stays", "", skipped.reason.text) for skipped in plan.skipped]
    return moved + left

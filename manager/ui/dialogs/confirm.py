"""Asks once before something destructive, with counts; the button is the verb."""

from __future__ import annotations

from typing import Any

from PySide6.QtWidgets import QWidget

from manager.core.actions import Plan
from manager.core.model import ClusterConfig
from manager.ui.dialogs.base import Asking
from manager.ui.theme import Look
from manager.ui.views.parts import PlainTable, text_label
from manager.ui.wording import plan_button, plan_title, sentence, skipped_text


class ConfirmDialog(Asking):
    """A plan, its consequence, and what is left out with the reasons. The focus is on Cancel."""

    def __init__(
        self,
        parent: QWidget | None,
        look: Look,
        cluster: ClusterConfig,
        plan: Plan[Any],
        changed: str = "",
    ) -> None:
        super().__init__(parent, plan_title(plan), cluster)
        self.setMinimumWidth(460)
        self.text = consequence_text(plan)
        if changed:
            self.body.addWidget(text_label(changed, "warning", wrap=True))
        self.body.addWidget(text_label(self.text, wrap=True))
        if len(plan.steps) > 1 or plan.skipped:
            table = PlainTable(("VM", "Node", "Now", ""), look, name="What will be done")
            table.show_rows(
                [(s.name, s.node or "", s.status.value, "") for s in plan.steps]
                + [(s.name, "", "skipped", s.reason.text) for s in plan.skipped]
            )
            table.setMinimumHeight(min(220, 34 + 22 * (len(plan.steps) + len(plan.skipped))))
            self.body.addWidget(table, 1)
        self.add_buttons()
        self.go = self.button(plan_button(plan), self.accept, style="danger")
        self.cancel = self.button("Cancel", self.reject, default=True)


def consequence_text(plan: Plan[Any]) -> str:
    """The body: the consequence, then the exceptions with their reasons."""
    parts = [sentence(plan.spec.consequence)]
    notes = {step.note.text for step in plan.steps if step.note}
    if len(notes) == 1:
        parts.insert(0, sentence(notes.pop()))
    skipped = skipped_text(plan)
    if skipped:
        parts.append(f"{len(plan.steps)} of {len(plan.steps) + len(plan.skipped)}; {skipped}.")
    return "\n".join(part for part in parts if part)

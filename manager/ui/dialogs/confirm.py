"""Asks once before something destructive, with counts; the button is the verb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtWidgets import QWidget

from manager.core.actions import Plan
from manager.core.model import ClusterConfig
from manager.ui.dialogs.base import Asking
from manager.ui.theme import Look
from manager.ui.views.parts import PlainTable, text_label
from manager.ui.wording import plan_button, plan_title, sentence, skipped_text


class ConfirmDialog(Asking):
    """What is planned, its consequence, and what is left out with the reasons. The focus is on Cancel.

    There is a plan for each cluster that it is about; one answer is for all of them.
    """

    def __init__(
        self,
        parent: QWidget | None,
        look: Look,
        plans: Sequence[tuple[ClusterConfig, Plan[Any]]],
        changed: str = "",
    ) -> None:
        found = [plan for _, plan in plans]
        super().__init__(parent, plan_title(*found), *(cluster for cluster, _ in plans))
        self.setMinimumWidth(460)
        self.text = consequence_text(*found)
        if changed:
            self.body.addWidget(text_label(changed, "warning", wrap=True))
        self.body.addWidget(text_label(self.text, wrap=True))
        rows = [
            row
            for plan in found
            for row in (
                *((s.name, plan.cluster, s.node or "", s.status.value, "") for s in plan.steps),
                *((s.name, plan.cluster, "", "skipped", s.reason.text) for s in plan.skipped),
            )
        ]
        if len(rows) > 1:
            several = len(found) > 1
            titles = ("VM", "Cluster", "Node", "Now", "")
            table = PlainTable(_but_cluster(titles, several), look, name="What will be done")
            table.show_rows(_but_cluster(row, several) for row in rows)
            table.setMinimumHeight(min(220, 34 + 22 * len(rows)))
            self.body.addWidget(table, 1)
        self.add_buttons()
        self.go = self.button(plan_button(*found), self.accept, style="danger")
        self.cancel = self.button("Cancel", self.reject, default=True)


def _but_cluster(row: tuple[str, ...], several: bool) -> tuple[str, ...]:
    return row if several else (row[0], *row[2:])


def consequence_text(*plans: Plan[Any]) -> str:
    """The body: the consequence, then the exceptions with their reasons."""
    parts = [sentence(plans[0].spec.consequence)]
    notes = {step.note.text for plan in plans for step in plan.steps if step.note}
    if len(notes) == 1:
        parts.insert(0, sentence(notes.pop()))
    for plan in plans:
        skipped = skipped_text(plan)
        if skipped:
            where = f"In {plan.cluster} " if len(plans) > 1 else ""
            parts.append(f"{where}{len(plan.steps)} of {len(plan.steps) + len(plan.skipped)}; {skipped}.")
    return "\n".join(part for part in parts if part)

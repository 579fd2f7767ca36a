"""The settings of one VM: pages, and below them what will be done at once and what at its next start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtWidgets import QApplication, QHBoxLayout, QListWidget, QStackedWidget, QWidget

from manager.core import edits, units
from manager.core.actions import Plan
from manager.core.actions.spec import ON
from manager.core.cluster import ClusterView
from manager.core.ids import VmId
from manager.core.model import VmConfig
from manager.core.reasons import ReasonCode
from manager.ui.dialogs.base import Asking
from manager.ui.dialogs.settings_pages import (
    BootPage,
    DiskPage,
    GeneralPage,
    MediumPage,
    NetworkPage,
    Page,
    SizePage,
)
from manager.ui.theme import Look
from manager.ui.views.parts import PlainTable, text_label
from manager.ui.wording import plan_command, sentence


class SettingsDialog(Asking):
    """Nothing is done before its button is pressed; what cannot be is said as it is typed."""

    def __init__(
        self, parent: QWidget | None, look: Look, view: ClusterView, vm_id: VmId, *, cluster_option: str
    ) -> None:
        vm = view.vms[vm_id]
        super().__init__(parent, f"Settings of {vm.name} on {vm.owner or 'no node'}", view.config)
        self.resize(760, 560)
        self._view, self._vm, self._cluster_option = view, vm_id, cluster_option
        config = vm.config or VmConfig(memory_mib=0, vcpus=0)
        waits = edits.pending(config)
        if waits:
            self.body.addWidget(text_label(f"Needs a restart for: {', '.join(waits)}.", "warning", wrap=True))
        self.pages: tuple[Page, ...] = (
            GeneralPage(config),
            SizePage(config, vm.status in ON),
            MediumPage(config),
            NetworkPage(config, _networks(view)),
            BootPage(config),
            DiskPage(config),
        )
        self.names = QListWidget()
        self.names.setAccessibleName("Pages")
        self.stack = QStackedWidget()
        for page in self.pages:
            self.names.addItem(page.title)
            self.stack.addWidget(page)
            page.changed.connect(self._show_plan)
        self.names.setFixedWidth(self.names.sizeHintForColumn(0) + 28)
        self.names.currentRowChanged.connect(self.stack.setCurrentIndex)
        both = QHBoxLayout()
        both.setSpacing(16)
        both.addWidget(self.names)
        both.addWidget(self.stack, 1)
        self.body.addLayout(both, 3)
        self.trouble = text_label(style="error", wrap=True)
        self.body.addWidget(self.trouble)
        self.steps = PlainTable(("What will be done", "When"), look, name="What will be done")
        self.body.addWidget(self.steps, 1)
        self.add_buttons()
        self.copy = self.button("Copy as commands", self._copy)
        self.button("Cancel", self.reject)
        self.go = self.button("Change", self.accept, style="primary", default=True)
        self.plans: tuple[Plan[Any], ...] = ()
        self.names.setCurrentRow(0)
        self._show_plan()
        self.names.setFocus()

    def _show_plan(self) -> None:
        troubles: list[str] = []
        plans: list[Plan[Any]] = []
        for page in self.pages:
            try:
                plans += [spec.plan(self._view, [self._vm], wish) for spec, wish in page.wishes()]
            except ValueError as error:
                troubles.append(f"{page.title}: {error}")
            else:
                refused = [s.reason.text for p in plans for s in p.skipped if not s.already]
                troubles += [f"{page.title}: {text}" for text in refused]
                plans = [plan for plan in plans if plan.steps]
            if troubles:
                break
        self.plans = () if troubles else tuple(plans)
        rows = [row for plan in self.plans for row in _rows(plan)]
        self.steps.show_rows(rows or [("Nothing yet", "")])
        self.trouble.setText(sentence(troubles[0]) if troubles else "")
        self.trouble.setVisible(bool(troubles))
        count = len(self.plans)
        self.go.setText(f"Change {units.count_text(count, 'setting')}" if count else "Change")
        for button in (self.go, self.copy):
            button.setEnabled(bool(count))

    def _copy(self) -> None:
        lines = [plan_command(self._view, plan, self._cluster_option) for plan in self.plans]
        QApplication.clipboard().setText("\n".join(lines))


def _rows(plan: Plan[Any]) -> list[tuple[str, str]]:
    found = []
    for step in plan.steps:
        note = step.note
        what = str(note.field("what")) if note else ""
        later = note is not None and note.code is ReasonCode.EDIT_LATER
        when = f"at its next start: {note.field('why')}" if note and later else "now"
        if note is not None and not later and step.status not in ON:
            when = "now; it is off"
        found.append((what[:1].upper() + what[1:], when))
    return found


def _networks(view: ClusterView, most: int = 12) -> Sequence[str]:
    known = {
        nic.source for vm in view.vms.values() if vm.config for nic in vm.config.interfaces if nic.source
    }
    return sorted(known)[:most]

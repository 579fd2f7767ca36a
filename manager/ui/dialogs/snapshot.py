"""Which snapshot is meant: one that is to be taken, or one that is there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from PySide6.QtWidgets import QCheckBox, QComboBox, QFormLayout, QLineEdit, QWidget

from manager.core import units
from manager.core.actions import ActionSpec
from manager.core.actions.snapshots import MAX_NAME, SNAPSHOT_CREATE
from manager.core.cluster import ClusterView
from manager.core.ids import VmId
from manager.core.model import SnapshotParameters
from manager.ui.dialogs.base import Asking
from manager.ui.models.rows_model import plain
from manager.ui.views.parts import name_for_ears, text_label
from manager.ui.wording import sentence, skipped_text


class TakeSnapshotDialog(Asking):
    """Name and description of a new snapshot, what it keeps, and the VMs that cannot have one."""

    def __init__(self, parent: QWidget | None, view: ClusterView, ids: Sequence[VmId]) -> None:
        title = f"Take a snapshot of {_what(view, ids)}?"
        super().__init__(parent, title, view.config)
        self.setMinimumWidth(480)
        self._view, self._ids = view, tuple(ids)
        self.name = QLineEdit(time.strftime("%Y-%m-%d %H-%M"))
        self.name.setMaxLength(MAX_NAME)
        self.name.setAccessibleName("Name of the snapshot")
        self.description = QLineEdit()
        self.description.setMaxLength(1000)
        self.description.setAccessibleName("Description of the snapshot")
        self.disk_only = QCheckBox("Disks only, without the memory of running VMs")
        form = QFormLayout()
        form.addRow("Name", self.name)
        form.addRow("Description", self.description)
        form.addRow("", self.disk_only)
        self.body.addLayout(form)
        self.said = text_label(wrap=True)
        self.body.addWidget(self.said)
        self.add_buttons()
        self.button("Cancel", self.reject)
        self.go = self.button("Take the snapshot", self.accept, style="primary", default=True)
        self.name.textChanged.connect(self._tell)
        self.disk_only.toggled.connect(self._tell)
        self.name.setFocus()
        self.name.selectAll()
        self._tell()

    @property
    def wish(self) -> SnapshotParameters:
        """What was entered."""
        return SnapshotParameters(
            name=self.name.text().strip(),
            description=self.description.text().strip(),
            disk_only=self.disk_only.isChecked(),
        )

    def _tell(self, *_: object) -> None:
        plan = SNAPSHOT_CREATE.plan(self._view, self._ids, self.wish)
        if self.wish.disk_only:
            text = (
                "Their disks are kept as they are on the host this moment, as after a power cut. What is"
                " written from then on goes to new files; only newer libvirt can delete such a snapshot,"
                " or revert to it."
            )
        else:
            text = "Disks are kept, and the memory of running VMs: they stand still while it is written."
        text += " While a VM has snapshots it stays on its node."
        skipped = skipped_text(plan)
        if skipped:
            text += f"\n{sentence(skipped)}"
        self.said.setText(plain_lines(text))
        self.go.setEnabled(bool(plan.steps))


class ChooseSnapshotDialog(Asking):
    """Which of the snapshots that are there."""

    def __init__(
        self,
        parent: QWidget | None,
        view: ClusterView,
        spec: ActionSpec[SnapshotParameters],
        ids: Sequence[VmId],
        names: Sequence[str],
    ) -> None:
        verb = "Revert to" if "revert" in spec.id else "Delete"
        super().__init__(parent, f"{verb} which snapshot of {_what(view, ids)}?", view.config)
        self.setMinimumWidth(420)
        self._names = list(names)
        self.choice = QComboBox()
        name_for_ears(self.choice, "Snapshot")
        self.choice.setVisible(bool(names))
        self.choice.addItems([plain(name) for name in names])
        self.body.addWidget(self.choice)
        if not names:
            self.body.addWidget(text_label("No snapshot was found.", wrap=True))
        self.add_buttons()
        self.button("Cancel", self.reject, default=True)
        self.go = self.button("Continue…", self.accept)
        self.go.setEnabled(bool(names))

    @property
    def wish(self) -> SnapshotParameters:
        """What was chosen."""
        at = self.choice.currentIndex()
        return SnapshotParameters(name=self._names[at] if 0 <= at < len(self._names) else "")


def plain_lines(text: str) -> str:
    """Each line made safe to show."""
    return "\n".join(plain(line) for line in text.split("\n"))


def _what(view: ClusterView, ids: Sequence[VmId]) -> str:
    if len(ids) == 1 and ids[0] in view.vms:
        return plain(view.vms[ids[0]].name)
    return units.count_text(len(ids), "VM")

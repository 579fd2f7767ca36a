"""What a support bundle is to hold, and where it is written."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QFormLayout, QLineEdit, QWidget

from manager.core.model import ClusterConfig
from manager.core.query import values
from manager.services.support_bundle import bundle_name
from manager.ui.dialogs.base import Asking
from manager.ui.views.parts import text_label

_ABOUT = (
    "One file for somebody who helps: versions, the cluster file, nodes, VMs, operations, events, problems "
    "and the log. Without passwords, users of URIs and the hosts' definitions; the names of VMs, nodes and "
    "administrators are in it."
)
_WRONG = "{text!r} is no time: give how long ago (2h), a time of day (02:00) or a date (2026-03-01T02:00)."


class SupportBundleDialog(Asking):
    """Since when, and which file."""

    def __init__(self, parent: QWidget | None, cluster: ClusterConfig, now_s: float) -> None:
        super().__init__(parent, f"Support bundle of {cluster.name}", cluster)
        self._now_s = now_s
        self.since_s = now_s
        self.setMinimumWidth(520)
        self.body.addWidget(text_label(_ABOUT, "dim", wrap=True))
        self.since = QLineEdit("2h")
        self.file = QLineEdit(str(Path.home() / f"{bundle_name(cluster.name, now_s)}.tar.gz"))
        form = QFormLayout()
        for title, field in (("Since", self.since), ("File", self.file)):
            field.setAccessibleName(title)
            form.addRow(title, field)
        self.since.setToolTip("How long ago (2h), a time of day (02:00) or a date (2026-03-01T02:00)")
        self.body.addLayout(form)
        self.said = text_label(style="error", wrap=True)
        self.said.hide()
        self.body.addWidget(self.said)
        self.add_buttons()
        self.button("Cancel", self.reject)
        self.button("Write bundle", self.accept, style="primary", default=True)
        self.since.setFocus()
        self.since.selectAll()

    @property
    def path(self) -> Path:
        """Where to."""
        return Path(self.file.text().strip()).expanduser()

    def accept(self) -> None:
        """Only with a time that is one and a file that is none yet."""
        found = values.since(self.since.text().strip(), self._now_s)
        wrong = "" if found is not None else _WRONG.format(text=self.since.text())
        if not wrong and (not self.file.text().strip() or self.path.exists()):
            wrong = f"{self.path} exists already." if self.file.text().strip() else "File: a name is needed."
        self.said.setText(wrong)
        self.said.setVisible(bool(wrong))
        if found is not None and not wrong:
            self.since_s = found
            super().accept()

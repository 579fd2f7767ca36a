"""The limits of the queue, changed while it runs."""

from __future__ import annotations

from PySide6.QtCore import QPoint, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QFormLayout, QFrame, QHBoxLayout, QPushButton, QSpinBox, QVBoxLayout, QWidget

from manager.core.cluster import ClusterView
from manager.core.migration.limits import LIMITS, cap_mib_s, cap_text, limit_of
from manager.core.model import ClusterConfig
from manager.ui.theme import Look
from manager.ui.views.parts import text_label

TITLES = {
    "outgoing_per_node": ("Moves out of a node", ""),
    "incoming_per_node": ("Moves into a node", ""),
    "cluster_limit": ("Moves in the cluster", "no limit"),
    "bandwidth_mib_s": ("One move sends at most", "not set"),
    "node_bandwidth_mib_s": ("Moves of a node send at most", "no limit"),
    "starts_per_node": ("Starts on a node", ""),
    "starts_per_cluster": ("Starts in the cluster", ""),
    "saves_per_node": ("Saves, restores and storage moves on a node", ""),
}
"""What each limit is called, and what 0 means."""

_RATES = frozenset({"bandwidth_mib_s", "node_bandwidth_mib_s"})


def limits_text(config: ClusterConfig) -> str:
    """``2 out · 2 in · 16 in all · 100 MiB/s each``; what is not limited is not said."""
    limits, cap = config.migration, cap_mib_s(config.migration)
    whole = f" · {limits.cluster_limit} in all" if limits.cluster_limit else ""
    rate = f" · {cap} MiB/s each" if cap else ""
    return f"{limits.outgoing_per_node} out · {limits.incoming_per_node} in{whole}{rate}"


class LimitsPopup(QFrame):
    """Opens below its button. Nothing changes before *Set*; Esc leaves it as it was."""

    chosen = Signal(object)  # tuple of (name, value), only what differs

    def __init__(self, parent: QWidget, look: Look, view: ClusterView) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setObjectName("popup")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setAccessibleName("Limits")
        self._config = view.config
        changed = dict(view.orders.limits)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(14, 10, 14, 12)
        outer.setSpacing(8)
        outer.addWidget(text_label(f"Limits of {view.config.name}", "title"))
        form = QFormLayout()
        form.setHorizontalSpacing(14)
        form.setVerticalSpacing(5)
        self.fields: dict[str, QSpinBox] = {}
        for name, (least, most) in LIMITS.items():
            title, none = TITLES[name]
            field = QSpinBox()
            field.setRange(least, most)
            field.setValue(limit_of(view.config, name))
            field.setSpecialValueText(none)
            field.setAccessibleName(title)
            if name in _RATES:
                field.setSuffix(" MiB/s")
                field.setSingleStep(50)
            field.setToolTip(f"{name}: {least} to {most}" + (f"; 0: {none}" if none else ""))
            field.setMinimumWidth(120)
            self.fields[name] = field
            form.addRow(f"{title} *" if name in changed else title, field)
        outer.addLayout(form)
        hint = "What runs goes on; what waits follows the new limits at once."
        if cap := cap_text(view.config.migration):
            hint += f"\nMoves between nodes now send at most {cap}."
        if changed:
            hint += "\n* not as in the cluster file: changed while running, and kept until it is set again."
        outer.addWidget(text_label(hint, "dim"))
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        leave = QPushButton("Cancel")
        leave.setAutoDefault(True)  # Enter there must not set
        leave.clicked.connect(self.close)
        self.set_button = QPushButton("Set")
        self.set_button.setObjectName("primary")
        self.set_button.clicked.connect(self._set)
        buttons.addWidget(leave)
        buttons.addWidget(self.set_button)
        outer.addLayout(buttons)
        next(iter(self.fields.values())).setFocus()

    def open_at(self, at: QPoint) -> None:
        """Show it with its right upper corner there, inside the screen."""
        self.adjustSize()
        screen = self.screen().availableGeometry()
        left = max(screen.left(), min(at.x() - self.width(), screen.right() - self.width()))
        top = (
            at.y() if at.y() + self.height() <= screen.bottom() else max(screen.top(), at.y() - self.height())
        )
        self.move(left, top)
        self.show()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter sets, Esc leaves."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._set()
        elif event.key() == Qt.Key.Key_Escape:
            self.close()
        else:
            super().keyPressEvent(event)

    def _set(self) -> None:
        for field in self.fields.values():
            field.interpretText()
        values = ((name, field.value()) for name, field in self.fields.items())
        wanted = tuple(pair for pair in values if pair[1] != limit_of(self._config, pair[0]))
        self.close()
        if wanted:
            self.chosen.emit(wanted)

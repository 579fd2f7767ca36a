"""The search box of a list."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QLineEdit

_PAUSE_MS = 30
"""How long nothing is typed before it is searched."""


class SearchBox(QLineEdit):
    """Esc clears, then leaves; Down and Enter go to the list."""

    wanted = Signal(str)  # to be searched
    left = Signal()
    entered = Signal()

    def __init__(self, name: str, hint: str) -> None:
        super().__init__()
        self.setClearButtonEnabled(True)
        self.setMaxLength(300)
        self.setAccessibleName(name)
        self.setPlaceholderText(hint)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE_MS)
        self._timer.timeout.connect(self.flush)
        self.textChanged.connect(lambda *_: self._timer.start())

    def flush(self) -> None:
        """Search now."""
        self._timer.stop()
        self.wanted.emit(self.text())

    def take_focus(self) -> None:
        """Go here; typing replaces what is here."""
        self.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.selectAll()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """See above."""
        if event.key() == Qt.Key.Key_Escape:
            if self.text():
                self.clear()
            else:
                self.left.emit()
        elif event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.flush()
            self.entered.emit()
        else:
            super().keyPressEvent(event)

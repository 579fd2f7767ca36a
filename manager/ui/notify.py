"""A notification on the desktop at the end of a batch, where there is a place for one."""

from __future__ import annotations

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QSystemTrayIcon, QWidget

SHOWN_MS = 12_000


class Notifier(QObject):
    """Shows its icon in the tray only while it has something to say."""

    clicked = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._tray: QSystemTrayIcon | None = None
        self._hide = QTimer(self)
        self._hide.setSingleShot(True)
        self._hide.setInterval(SHOWN_MS + 1000)
        self._hide.timeout.connect(self._gone)

    @staticmethod
    def is_possible() -> bool:
        """Whether the desktop shows such messages."""
        return QSystemTrayIcon.isSystemTrayAvailable() and QSystemTrayIcon.supportsMessages()

    def tell(self, title: str, text: str, icon: QIcon, *, failed: bool) -> bool:
        """Show a message; False where that is not possible."""
        if not self.is_possible():
            return False
        if self._tray is None:
            self._tray = QSystemTrayIcon(icon, self)
            self._tray.messageClicked.connect(self.clicked)
        self._tray.show()
        kind = QSystemTrayIcon.MessageIcon.Warning if failed else QSystemTrayIcon.MessageIcon.Information
        self._tray.showMessage(title, text, kind, SHOWN_MS)
        self._hide.start()
        return True

    def _gone(self) -> None:
        if self._tray is not None:
            self._tray.hide()

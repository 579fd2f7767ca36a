"""Between a runtime and what is on screen: change sets merged and handed on at most ten times a second."""

from __future__ import annotations

import time

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from manager.core.changes import ChangeSet
from manager.services.runtime import Runtime

INTERVAL_MS = 100


class Bridge(QObject):
    """One per cluster. Its timer runs only while something is to be handed on."""

    changed = Signal(object)  # ChangeSet

    def __init__(self, runtime: Runtime, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pending = ChangeSet()
        self._flushed_at = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.flush)
        self._unsubscribe = runtime.subscribe(self.take)

    def take(self, changes: ChangeSet) -> None:
        """Merge; the first change after a quiet time goes out at once, later ones together."""
        self._pending |= changes
        if not self._timer.isActive():
            since_ms = (time.monotonic() - self._flushed_at) * 1000
            self._timer.start(max(0, int(INTERVAL_MS - since_ms)))

    def flush(self) -> None:
        """Hand on what came together."""
        self._timer.stop()
        self._flushed_at = time.monotonic()
        pending, self._pending = self._pending, ChangeSet()
        if pending:
            self.changed.emit(pending)

    def close(self) -> None:
        """Stop listening."""
        self._timer.stop()
        self._unsubscribe()

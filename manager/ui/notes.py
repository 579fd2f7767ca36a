"""What is said above the list; it blocks nothing."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QVBoxLayout

from manager.services.event_log import EventLog
from manager.ui.runner import Buttons
from manager.ui.views.parts import NoteBar

_AT_ONCE = 3
"""Older lines make room."""

_STAYS_MS = 12_000
"""How long a line is shown that is neither a warning nor an error."""


class Notes:
    """Lines at the top of a column, the newest first."""

    def __init__(self, column: QVBoxLayout, event_log: EventLog | None) -> None:
        self._column, self._event_log = column, event_log
        self._shown: list[NoteBar] = []

    @property
    def shown(self) -> list[NoteBar]:
        """From the oldest."""
        return list(self._shown)

    def say(self, text: str, buttons: Buttons = (), severity: str = "") -> NoteBar:
        """A line with what can be done about it."""
        bar = NoteBar(text, buttons, severity=severity)
        bar.destroyed.connect(lambda *_: self._forget(bar))
        self._shown.append(bar)
        self._column.insertWidget(0, bar)
        while len(self._shown) > _AT_ONCE:
            self._shown.pop(0).dismiss()
        if not severity:
            QTimer.singleShot(_STAYS_MS, bar, bar.dismiss)
        if self._event_log is not None:
            self._event_log.record("Note", text=text, severity=severity)
        return bar

    def _forget(self, bar: NoteBar) -> None:
        if bar in self._shown:
            self._shown.remove(bar)

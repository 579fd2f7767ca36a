"""Proof that nothing blocks: how long the window's thread was ever away from its loop."""

from __future__ import annotations

import logging
import time

from PySide6.QtCore import QObject, Qt, QTimer

from manager.services.event_log import EventLog

log = logging.getLogger(__name__)

BEAT_MS = 100
"""Every beat wakes an idle machine: 50 a second would cost it more than all else that the window does."""

FINE_MS = 20
"""Where a log was asked for, to be read by who measures."""

REPORT_MS = 5000


class Heartbeat(QObject):
    """A gap is the time between two beats, so that of one interval is rest. What a beat did not fall into is
    not seen: only what lasts longer than an interval is sure to be.

    A new longest gap is told to the log and the event log (record ``Heartbeat``) every five seconds while
    there is one, and the longest of all at the end.
    """

    def __init__(
        self, event_log: EventLog | None, parent: QObject | None = None, *, beat_ms: int | None = None
    ) -> None:
        """`beat_ms`: the interval; None: a fine one where there is a log, else one that costs little."""
        super().__init__(parent)
        self._event_log = event_log
        self._longest_s = 0.0
        self._told_s = 0.0
        self._last = 0.0
        self._beat = QTimer(self)
        self._beat.setTimerType(Qt.TimerType.PreciseTimer)
        self._beat.setInterval(beat_ms or (FINE_MS if event_log is not None else BEAT_MS))
        self._beat.timeout.connect(self._tick)
        self._report = QTimer(self)
        self._report.setInterval(REPORT_MS)
        self._report.timeout.connect(self._tell_news)

    @property
    def longest_gap_ms(self) -> float:
        """The longest gap since `start`, in milliseconds; a gap under way counts."""
        running = time.perf_counter() - self._last if self._beat.isActive() else 0.0
        return max(self._longest_s, running) * 1000

    def start(self) -> None:
        """Begin to measure."""
        self._last = time.perf_counter()
        self._longest_s = self._told_s = 0.0
        self._beat.start()
        self._report.start()

    def stop(self) -> None:
        """Measure no more and tell the result."""
        if self._beat.isActive():
            self._tick()
            self._beat.stop()
            self._report.stop()
            self._tell(final=True)

    def _tick(self) -> None:
        now = time.perf_counter()
        self._longest_s = max(self._longest_s, now - self._last)
        self._last = now

    def _tell_news(self) -> None:
        if self._longest_s > self._told_s:
            self._tell(final=False)

    def _tell(self, *, final: bool) -> None:
        self._told_s = self._longest_s
        gap_ms = round(self._longest_s * 1000, 1)
        log.info("longest gap of the window's thread: %.1f ms", gap_ms)
        if self._event_log is not None:
            self._event_log.record("Heartbeat", longest_gap_ms=gap_ms, final=final)

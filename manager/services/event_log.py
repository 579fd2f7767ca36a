"""One JSON record per event, for tests and for support (``--log-json FILE``)."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any, TextIO

import msgspec

from manager.core.errors import UserError
from manager.core.events import Event

log = logging.getLogger(__name__)


def _plain(value: Any) -> Any:
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    return str(value)


_encoder = msgspec.json.Encoder(enc_hook=_plain)


class EventLog:
    """Writes records to a file, line by line. Secrets never reach it: no event carries one."""

    def __init__(self, path: Path) -> None:
        try:
            self._file: TextIO | None = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error

    def event(self, cluster: str, event: Event) -> None:
        """Record one event of one cluster."""
        self.record(type(event).__name__, cluster=cluster, data=event)

    def record(self, kind: str, **fields: Any) -> None:
        """Record anything else: the window's longest gap, the program's start and end."""
        if self._file is None:
            return
        try:
            self._file.write(_encoder.encode({"event": kind, **fields}).decode() + "\n")
        except OSError as error:
            log.warning("the log cannot be written any more: %s", error)
            self.close()

    def close(self) -> None:
        """Close the file; later records are dropped."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # a full disk refuses what is still buffered, too
                file.close()

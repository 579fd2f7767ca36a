"""The window's per-user state as small JSON files."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from urllib.parse import quote

import msgspec

from manager.store.paths import set_aside, write_atomically

_log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20


class FileViewStore:
    """`ViewStore` on a folder. Any thread; a call is one small file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """The stored JSON, or None. A file that is not JSON is kept aside as ``.broken-<time>``."""
        path = self._path(name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ValueError("it is larger than 1 MiB")
            msgspec.json.decode(data)
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:  # msgspec's DecodeError is a ValueError
            self._keep_aside(path, error)
            return None
        except OSError as error:
            _log.warning("%s cannot be read: %s", path, error)
            return None
        return data

    def write(self, name: str, data: bytes) -> None:
        """Store; trouble is logged."""
        path = self._path(name)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, data)
        except OSError as error:
            _log.warning("%s cannot be written: %s", path, error)

    def _path(self, name: str) -> Path:
        return self._folder / f"{quote(name, safe='')}.json"

    def _keep_aside(self, path: Path, error: Exception) -> None:
        try:
            kept = set_aside(path, "broken", time.strftime("%Y%m%d-%H%M%S"))
            _log.warning("%s is not usable (%s); kept as %s", path, error, kept.name)
        except OSError as again:
            _log.warning("%s is not usable (%s) and cannot be moved: %s", path, error, again)

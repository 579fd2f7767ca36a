"""Writes an initramfs: a gzip-compressed cpio archive in the "newc" format, from values in memory."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path


class Initramfs:
    """Collects files by their path in the guest; parents are made as needed.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def add_folder(self, path: str) -> None:
        """Add a folder and its parents."""
        if path and path not in self._entries:
            self.add_folder(path.rpartition("/")[0])
            self._entries[path] = (stat.S_IFDIR | 0o755, b"")

    def add(self, path: str, content: bytes, *, mode: int = 0o755) -> None:
        """Add a file; `path` has no leading slash."""
        self.add_folder(path.rpartition("/")[0])
        self._entries[path] = (stat.S_IFREG | mode, content)

    def write(self, target: Path) -> None:
        """Write the archive."""
        parts: list[bytes] = []
        for number, (path, (mode, content)) in enumerate(self._entries.items(), start=1):
            parts.append(_entry(number, path, mode, content))
        parts.append(_entry(0, "TRAILER!!!", 0, b""))
        target.write_bytes(gzip.compress(b"".join(parts), compresslevel=6))


def _entry(number: int, path: str, mode: int, content: bytes) -> bytes:
    links = 2 if stat.S_ISDIR(mode) else 1
    name = path.encode() + b"\0"
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)

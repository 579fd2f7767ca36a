"""The lock that makes one process the owner of a cluster's operations."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class OwnershipLock:
    """Held by at most one process per cluster and user. The kernel drops it when that process dies.

    The file stays when the lock is given up: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._handle is not None

    def try_take(self) -> bool:
        """Take the lock if it is free; never waits.

        Raises:
            OSError: if the file cannot be opened at all.
        """
        if self._handle is not None:
            return True
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass  # a full disk: the lock holds all the same, only the pid cannot be told
        return True

    def owner_pid(self) -> int | None:
        """After a refusal: the process that holds it, or None if it cannot be told."""
        try:
            return int(self._path.read_bytes()[:20])
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Give it up; does nothing if it is not held."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        try:
            os.ftruncate(handle, 0)  # before the lock goes: a later owner's pid must not be cut off
        finally:
            os.close(handle)

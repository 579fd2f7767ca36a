"""The lock that makes one process the owner of a cluster's operations."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class OwnershipLock:
    """Held by at most one process per cluster and user. The kernel drops it when that process dies.

    The file stays when the lock is given up: removing it would let two processes lock two files of one name.
    Its time of modification is the last sign of life of a holder that worked; to look is no sign of life.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self._alive_s = 0.0

    @property
    def left_s(self) -> float | None:
        """While held: when the last one that worked showed a sign of life (wall clock); None: never."""
        return self._alive_s or None

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
        is_new = not self._path.exists()
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
        self._alive_s = 0.0 if is_new else os.fstat(handle).st_mtime
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only the pid is not told
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        self._stamp(handle)
        return True

    def live(self, at_s: float) -> None:
        """Show a sign of life, for whoever holds it next; does nothing if it is not held."""
        if self._handle is not None:
            self._alive_s = at_s
            self._stamp(self._handle)

    def _stamp(self, handle: int) -> None:
        with contextlib.suppress(OSError):
            os.utime(handle, (self._alive_s, self._alive_s))

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
            self._stamp(handle)
        finally:
            os.close(handle)

"""A cluster's journal: its operations, written ahead, and what happened. SQLite in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from manager.core.chronicle import ClusterEvent, id_at
from manager.core.errors import UserError
from manager.core.model import ProblemLife
from manager.core.operations import Operation
from manager.store.paths import set_aside

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

FORMAT = 2
"""`user_version` of the database. Raise it when a record of the old shape no longer decodes.

2: events and the lives of problems. A journal of format 1 gets their tables when it is opened.
"""

KEPT_ENDED = 20_000
"""Ended operations kept for the history; older ones are forgotten."""

KEPT_EVENTS = 100_000
KEPT_EVENTS_S = 90 * 86_400.0
"""Events kept at most, and for how long."""

_PRUNE_EVERY = 500
_EVENTS_AT_ONCE = 1_000
_BEHIND_S = 2.0
_BUSY_S = 5.0
_LEAST_FREE = 64 << 10  # bytes

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    id TEXT PRIMARY KEY, parent TEXT, ended_s REAL, record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS operations_ended ON operations (ended_s, id);
CREATE TABLE IF NOT EXISTS set_aside (
    id TEXT PRIMARY KEY, parent TEXT, ended_s REAL, record BLOB NOT NULL, why TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS problems (key TEXT PRIMARY KEY, ended_s REAL, record BLOB NOT NULL) WITHOUT ROWID;
"""

# What has not ended, the parents of that, however far up, and the children of batches that have not ended.
_LIVING = """
WITH RECURSIVE
unended (id, parent) AS (SELECT id, parent FROM operations WHERE ended_s IS NULL),
above (id, parent) AS (
    SELECT id, parent FROM unended
    UNION
    SELECT operations.id, operations.parent FROM operations JOIN above ON operations.id = above.parent
),
living (id) AS (
    SELECT id FROM above
    UNION
    SELECT id FROM operations WHERE parent IN (SELECT id FROM unended)
)
"""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Operation).decode
_decode_event = msgspec.json.Decoder(ClusterEvent).decode
_decode_life = msgspec.json.Decoder(ProblemLife).decode


@dataclass(frozen=True, slots=True)
class _Request:
    """One call on its way to the thread. `commit` is what it stores, else `run` reads.

    A `patient` one waits until nothing else is to be done, a short time at most.
    """

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    commit: tuple[Operation, ...] = ()
    run: Callable[[], Any] | None = None
    patient: bool = False


class SqliteJournal:
    """`Journal` on one SQLite file. Loop thread only; a daemon thread of its own does the work.

    Commits that arrive while one is being made durable share the next transaction. Whoever uses it holds the
    cluster's `OwnershipLock`.
    """

    def __init__(self, path: Path, *, kept_ended: int = KEPT_ENDED, kept_events: int = KEPT_EVENTS) -> None:
        self._path = path
        self._kept_ended = kept_ended
        self._kept_events = kept_events
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._db: sqlite3.Connection | None = None  # the thread's alone
        self._ended_since_prune = _PRUNE_EVERY
        self._events_since_prune = _EVENTS_AT_ONCE
        self.notices: list[str] = []
        """What the user should know: damage found, records set aside. Grows while the journal is read."""

    async def load(self) -> tuple[Operation, ...]:
        """What had not ended, its parents, and all children of batches that had not; parents first.

        Raises:
            UserError: if the file is of a newer Muster; it is left as it is.
            OSError: if it cannot be read.
        """
        return await self._ask(run=self._load)

    async def commit(self, operations: Sequence[Operation]) -> None:
        """Make these states durable, all or none.

        Raises:
            OSError: if that failed; nothing was stored then. ``errno`` is ENOSPC for a full disk.
        """
        if operations:
            await self._ask(commit=tuple(operations))

    async def history(self, limit: int) -> tuple[Operation, ...]:
        """The newest ended operations, newest first.

        Raises:
            OSError: if the file cannot be read.
        """
        return await self._ask(run=lambda: self._history(limit))

    async def record(self, events: Sequence[ClusterEvent], lives: Sequence[ProblemLife]) -> None:
        """Keep what happened, and the newest of problems, once no operation is to be made durable.

        What was kept in the last seconds may be lost with the power: it delays nothing.

        Raises:
            OSError: if that failed; nothing of it was stored then.
        """
        events, lives = tuple(events), tuple(lives)
        for at in range(0, max(len(events), 1), _EVENTS_AT_ONCE):
            part = events[at : at + _EVENTS_AT_ONCE]
            await self._ask(run=partial(self._record, part, () if at else lives), patient=True)

    async def happened(self, since_s: float, limit: int) -> tuple[ClusterEvent, ...]:
        """The newest so many events since a moment, oldest first. One that cannot be understood is left out.

        Raises:
            OSError: if the file cannot be read.
        """
        return await self._ask(run=partial(self._happened, since_s, limit))

    async def lives(self) -> tuple[ProblemLife, ...]:
        """What is kept of all problems. Raises `OSError` as `happened`."""
        return await self._ask(run=self._lives)

    async def close(self) -> None:
        """Finish what was asked before, then close. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            await self._enqueue(run=self._close)
            self._requests.put(None)

    # --- loop side

    async def _ask(
        self,
        *,
        commit: tuple[Operation, ...] = (),
        run: Callable[[], _T] | None = None,
        patient: bool = False,
    ) -> _T:
        if self._closed:
            raise OSError(errno.EBADF, "the journal is closed", str(self._path))
        if self._thread is None:
            # Daemon: a disk that hangs must not hold the exit.
            self._thread = threading.Thread(target=self._work, name=f"journal {self._path.stem}", daemon=True)
            self._thread.start()
        return await self._enqueue(commit=commit, run=run, patient=patient)

    def _enqueue(
        self,
        *,
        commit: tuple[Operation, ...] = (),
        run: Callable[[], _T] | None = None,
        patient: bool = False,
    ) -> asyncio.Future[_T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._requests.put(_Request(loop, future, commit, run, patient))
        return future

    # --- thread side

    def _work(self) -> None:
        waiting: list[_Request | None] = []
        later: deque[tuple[float, _Request]] = deque()  # the patient ones, and until when they are
        while True:
            if later and not waiting and (self._requests.empty() or time.monotonic() > later[0][0]):
                _, request = later.popleft()
                self._run(request)
                continue
            request_or_end = waiting.pop(0) if waiting else self._requests.get()
            if request_or_end is None:
                return
            request = request_or_end
            if request.patient:
                later.append((time.monotonic() + _BEHIND_S, request))
                continue
            if request.run is not None:
                while later:  # order is kept: who reads, or closes, finds all that was written before
                    self._run(later.popleft()[1])
                self._run(request)
                continue
            batch = [request]
            with contextlib.suppress(queue.Empty):
                while not waiting:
                    following = self._requests.get_nowait()
                    if following is None or following.run is not None:
                        waiting.append(following)  # order is kept: a read sees every commit before it
                    else:
                        batch.append(following)
            operations = [operation for each in batch for operation in each.commit]
            self._serve(batch, lambda operations=operations: self._store(operations))  # type: ignore[misc]
            self._prune_now_and_then()

    def _run(self, request: _Request) -> None:
        assert request.run is not None
        if not self._serve([request], request.run) and not request.patient:
            self._let_go()  # whoever cannot read it must not keep it from others

    def _serve(self, requests: list[_Request], run: Callable[[], Any]) -> bool:
        result: Any = None
        failure: Exception | None = None
        try:
            result = run()
        except sqlite3.Error as error:
            failure = self._os_error(error)
        except (UserError, OSError) as error:
            failure = error
        except Exception as error:  # what cannot be encoded, say: told as any failure, so that nobody waits
            failure = OSError(errno.EIO, f"{type(error).__name__}: {error}", str(self._path))
        for request in requests:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                request.loop.call_soon_threadsafe(_settle, request.future, result, failure)
        return failure is None

    def _os_error(self, error: sqlite3.Error) -> OSError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
        if code == sqlite3.SQLITE_IOERR and self._is_disk_full():
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        return OSError(_ERRNO.get(code, errno.EIO), str(error), str(self._path))

    def _is_disk_full(self) -> bool:
        """A disk that fills while a file grows is told as an error of reading or writing only."""
        try:
            free = os.statvfs(self._path.parent)
        except OSError:
            return False
        return free.f_bavail * free.f_frsize < _LEAST_FREE

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._db = self._connect()
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                    raise
                self._move_aside(error)
                self._db = self._connect()
        return self._db

    def _connect(self) -> sqlite3.Connection:
        # Created by us first, so that it is never readable by others, not even for a moment.
        self._path.touch(mode=0o600, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found > FORMAT:
                raise UserError(
                    f"{self._path} was written by a newer Muster (format {found}, this one reads {FORMAT}). "
                    "Nothing was changed. Use that version, or move the file away to begin a new journal."
                )
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                damaged = sqlite3.DatabaseError(verdict)
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged
            # One process owns a journal; without a shared-memory file a full disk breaks one thing less.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            # FULL, not NORMAL: in WAL mode NORMAL may lose the last commits when the power fails, and a
            # write-ahead journal that forgets what was started is worse than none.
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA journal_size_limit = {4 << 20}")
            if found < FORMAT:
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def _move_aside(self, error: sqlite3.Error) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        kept = set_aside(self._path, "damaged", stamp)
        for ending in ("-wal", "-shm"):
            beside = self._path.with_name(self._path.name + ending)
            if beside.exists():
                set_aside(beside, "damaged", stamp)
        self._notice(
            f"The journal {self._path.name} was damaged ({error}) and is kept as {kept.name}; "
            "a new one was begun. What an earlier run had under way is not known: see what runs on the hosts."
        )

    def _notice(self, text: str) -> None:
        self.notices.append(text)
        _log.warning("%s", text)

    def _store(self, operations: Sequence[Operation]) -> None:
        rows = [
            (each.id, each.parent, (each.ended_s or each.created_s) if each.is_over else None, _encode(each))
            for each in operations
        ]
        db = self._open()
        with self._transaction(db):
            db.executemany("INSERT OR REPLACE INTO operations VALUES (?, ?, ?, ?)", rows)
        self._ended_since_prune += sum(ended is not None for _, _, ended, _ in rows)

    def _record(self, events: Sequence[ClusterEvent], lives: Sequence[ProblemLife]) -> None:
        db = self._open()
        db.execute("PRAGMA synchronous = NORMAL")  # made durable with the next commit of operations
        try:
            with self._transaction(db):
                db.executemany(
                    "INSERT OR REPLACE INTO events VALUES (?, ?)", [(e.id, _encode(e)) for e in events]
                )
                db.executemany(
                    "INSERT OR REPLACE INTO problems VALUES (?, ?, ?)",
                    [(each.key, each.last_s if each.ended else None, _encode(each)) for each in lives],
                )
                self._events_since_prune += len(events)
                if self._events_since_prune >= _EVENTS_AT_ONCE and events:
                    self._events_since_prune = 0
                    self._prune_events(db, events[-1].at_s)
        finally:
            db.execute("PRAGMA synchronous = FULL")

    def _prune_events(self, db: sqlite3.Connection, now_s: float) -> None:
        """Forget the oldest events, and problems that ended as long ago."""
        oldest_s = now_s - KEPT_EVENTS_S
        db.execute("DELETE FROM events WHERE id < ?", (id_at(oldest_s),))
        newest = "SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?"
        db.execute(f"DELETE FROM events WHERE id <= ({newest})", (self._kept_events,))
        db.execute("DELETE FROM problems WHERE ended_s < ?", (oldest_s,))

    def _happened(self, since_s: float, limit: int) -> tuple[ClusterEvent, ...]:
        found = self._open().execute(
            "SELECT record FROM events WHERE id >= ? ORDER BY id DESC LIMIT ?",
            (id_at(since_s), max(0, limit)),
        )
        return tuple(reversed(_understood(found, _decode_event)))

    def _lives(self) -> tuple[ProblemLife, ...]:
        return tuple(_understood(self._open().execute("SELECT record FROM problems"), _decode_life))

    @staticmethod
    @contextlib.contextmanager
    def _transaction(db: sqlite3.Connection) -> Iterator[None]:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            raise

    def _load(self) -> tuple[Operation, ...]:
        found = self._decoded(
            f"{_LIVING} SELECT * FROM operations WHERE id IN (SELECT id FROM living) ORDER BY id", ()
        )
        return tuple(_parents_first(found))

    def _history(self, limit: int) -> tuple[Operation, ...]:
        return tuple(
            self._decoded(
                "SELECT * FROM operations WHERE ended_s IS NOT NULL ORDER BY ended_s DESC, id DESC LIMIT ?",
                (max(0, limit),),
            )
        )

    def _decoded(self, query: str, parameters: tuple[object, ...]) -> list[Operation]:
        """The operations of these rows; one that cannot be understood moves to the table `set_aside`."""
        db = self._open()
        good: list[Operation] = []
        bad: list[tuple[str, str]] = []
        for key, _parent, _ended_s, record in db.execute(query, parameters).fetchall():
            try:
                good.append(_decode(record))
            except (ValueError, TypeError, RecursionError) as error:
                bad.append((str(error), key))
        if bad:
            with self._transaction(db):
                db.executemany(
                    "INSERT OR REPLACE INTO set_aside"
                    " SELECT id, parent, ended_s, record, ? FROM operations WHERE id = ?",
                    bad,
                )
                db.executemany("DELETE FROM operations WHERE id = ?", [(key,) for _, key in bad])
            self._notice(
                f"{len(bad)} operation(s) in {self._path.name} cannot be read by this version "
                f"and were set aside (first: {bad[0][1]}: {bad[0][0]}). Look at what runs on the hosts."
            )
        return good

    def _prune_now_and_then(self) -> None:
        if self._db is None or self._ended_since_prune < _PRUNE_EVERY:
            return
        self._ended_since_prune = 0
        try:
            self._db.execute(
                f"{_LIVING} DELETE FROM operations WHERE ended_s IS NOT NULL"
                " AND id NOT IN (SELECT id FROM living)"
                " AND id IN (SELECT id FROM operations WHERE ended_s IS NOT NULL"
                " ORDER BY ended_s DESC, id DESC LIMIT -1 OFFSET ?)",
                (self._kept_ended,),
            )
        except sqlite3.Error as error:  # only growth: the next round tries again
            _log.info("%s was not pruned: %s", self._path.name, error)

    def _close(self) -> None:
        if self._db is not None:
            self._ended_since_prune = _PRUNE_EVERY
            self._prune_now_and_then()
        self._let_go()

    def _let_go(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()


def _settle(future: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if future.done():  # whoever waited was cancelled
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


def _understood(rows: Iterable[tuple[bytes]], decode: Callable[[bytes], _T]) -> list[_T]:
    """What can be decoded; what cannot was written by another version, and is no reason to show nothing."""
    found: list[_T] = []
    for (record,) in rows:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            found.append(decode(record))
    return found


def _parents_first(operations: Sequence[Operation]) -> list[Operation]:
    by_id = {each.id: each for each in operations}
    ordered: dict[str, Operation] = {}
    for each in operations:
        line = []
        above: Operation | None = each
        while above is not None and above.id not in ordered and above not in line:
            line.append(above)
            above = by_id.get(above.parent) if above.parent else None
        for one in reversed(line):
            ordered[one.id] = one
    return list(ordered.values())

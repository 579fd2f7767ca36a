"""The definition vault of one cluster: SQLite in a thread of its own, texts compressed."""

from __future__ import annotations

import asyncio
import errno
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from manager.core.ids import NodeId, VmId
from manager.core.vault import KeptDefinition
from manager.store.paths import set_aside

_T = TypeVar("_T")

FORMAT = 1
KEPT_VERSIONS = 20
"""Of each VM; older ones are forgotten."""

MAX_TEXT = 8 << 20
_BUSY_S = 5.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS versions (
    vm TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, node TEXT NOT NULL,
    digest TEXT NOT NULL, kept_s REAL NOT NULL, PRIMARY KEY (vm, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS texts (
    vm TEXT NOT NULL, number INTEGER NOT NULL, text BLOB NOT NULL, PRIMARY KEY (vm, number)
);
"""
_COLUMNS = "vm, number, name, node, digest, kept_s"
_NEWEST = f"SELECT {_COLUMNS}, max(number) FROM versions GROUP BY vm"
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteVault:
    """`Vault` on one SQLite file; None: in memory, for the demo. Loop thread only.

    A file that is damaged is set aside and begun anew: the hosts still have what was in it.
    """

    def __init__(self, path: Path | None, *, kept_versions: int = KEPT_VERSIONS) -> None:
        self._path = path
        self._kept = kept_versions
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        self._closed = False
        self._db: sqlite3.Connection | None = None  # the thread's alone

    async def newest(self) -> tuple[KeptDefinition, ...]:
        """See `Vault`."""
        return await self._ask(self._newest)

    async def keep(self, found: Sequence[tuple[KeptDefinition, str]]) -> tuple[KeptDefinition, ...]:
        """See `Vault`."""
        return await self._ask(partial(self._keep, tuple(found)))

    async def versions(self, vm: VmId) -> tuple[KeptDefinition, ...]:
        """See `Vault`."""
        return await self._ask(partial(self._versions, vm))

    async def text(self, vm: VmId, number: int) -> str | None:
        """See `Vault`."""
        return await self._ask(partial(self._text, vm, number))

    async def close(self) -> None:
        """See `Vault`. May be called twice."""
        if not self._closed and self._thread is not None:
            await self._ask(self._let_go)
            self._calls.put(None)
        self._closed = True

    async def _ask(self, call: Callable[[], _T]) -> _T:
        if self._closed:
            raise OSError(errno.EBADF, "the vault is closed")
        if self._thread is None:
            # Daemon: a disk that hangs must not hold the exit.
            self._thread = threading.Thread(target=self._work, name="vault", daemon=True)
            self._thread.start()
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._calls.put((future, call))
        return await future

    # --- thread side

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            future, call = asked
            result: Any = None
            failure: Exception | None = None
            try:
                result = call()
            except sqlite3.Error as error:
                self._let_go()
                failure = OSError(errno.EIO, str(error), str(self._path or ""))
            except Exception as error:
                failure = error
            answer = partial(_answer, future, result, failure)
            try:
                future.get_loop().call_soon_threadsafe(answer)
            except RuntimeError:
                return  # the loop is gone

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._db = self._connect()
            except sqlite3.DatabaseError as error:
                if self._path is None or error.sqlite_errorcode not in _DAMAGED:
                    raise
                set_aside(self._path, "broken", time.strftime("%Y%m%d-%H%M%S"))
                self._db = self._connect()
        return self._db

    def _connect(self) -> sqlite3.Connection:
        if self._path is not None:
            self._path.touch(mode=0o600)
        db = sqlite3.connect(
            self._path or ":memory:", timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found > FORMAT:
                raise OSError(errno.EINVAL, "it is of a newer Muster", str(self._path or ""))
            if found < FORMAT:
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _let_go(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _newest(self) -> tuple[KeptDefinition, ...]:
        return tuple(_kept(*row[:6]) for row in self._open().execute(_NEWEST))

    def _versions(self, vm: VmId) -> tuple[KeptDefinition, ...]:
        asked = f"SELECT {_COLUMNS} FROM versions WHERE vm = ? ORDER BY number DESC"
        return tuple(_kept(*row) for row in self._open().execute(asked, (vm,)))

    def _text(self, vm: VmId, number: int) -> str | None:
        asked = "SELECT text FROM texts WHERE vm = ? AND number = ?"
        row = self._open().execute(asked, (vm, number)).fetchone()
        return None if row is None else _unpacked(row[0])

    def _keep(self, found: tuple[tuple[KeptDefinition, str], ...]) -> tuple[KeptDefinition, ...]:
        db = self._open()
        db.execute("BEGIN IMMEDIATE")
        try:
            kept = tuple(self._keep_one(db, each, text) for each, text in found)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return kept

    def _keep_one(self, db: sqlite3.Connection, told: KeptDefinition, text: str) -> KeptDefinition:
        asked = "SELECT number, kept_s, text FROM versions JOIN texts USING (vm, number) WHERE vm = ?"
        asked += " ORDER BY number DESC LIMIT 1"
        last = db.execute(asked, (told.vm,)).fetchone()
        if last is not None and _unpacked(last[2]) == text:
            kept = replace(told, number=last[0], kept_s=last[1])
            change = "UPDATE versions SET name = ?, node = ?, digest = ? WHERE vm = ? AND number = ?"
            db.execute(change, (kept.name, kept.node, kept.digest, kept.vm, kept.number))
            return kept
        kept = replace(told, number=last[0] + 1 if last else 1)
        row = (kept.vm, kept.number, kept.name, kept.node, kept.digest, kept.kept_s)
        db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)", row)
        db.execute("INSERT INTO texts VALUES (?, ?, ?)", (kept.vm, kept.number, _packed(text)))
        last_one = (kept.vm, kept.number - self._kept)
        db.execute("DELETE FROM versions WHERE vm = ? AND number <= ?", last_one)
        db.execute("DELETE FROM texts WHERE vm = ? AND number <= ?", last_one)
        return kept


def _answer(future: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if future.done():
        return  # nobody waits any more
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)


def _packed(text: str) -> bytes:
    return zlib.compress(text.encode(errors="surrogatepass"), 6)


def _unpacked(data: bytes) -> str:
    return zlib.decompressobj().decompress(data, MAX_TEXT).decode(errors="surrogatepass")


def _kept(vm: str, number: int, name: str, node: str, digest: str, kept_s: float) -> KeptDefinition:
    return KeptDefinition(
        vm=VmId(vm), name=name, node=NodeId(node), number=number, digest=digest, kept_s=kept_s
    )

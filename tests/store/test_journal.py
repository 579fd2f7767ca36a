"""The journal: what was committed is there after anything, and nothing else is."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.core.effects import VmChange
from manager.core.errors import UserError
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.model import PeerRoute, Priority, VmSettings
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.reasons import ReasonCode, because
from manager.services.memory_journal import MemoryJournal
from manager.services.ports import Journal
from manager.store.journal import FORMAT, SqliteJournal

OpenJournal = Callable[..., SqliteJournal]


def operation(number: int, *, parent: int | None = None, ended_s: float | None = None) -> Operation:
    return Operation(
        id=OperationId(f"{number:06}"),
        kind=OperationKind.CHANGE,
        action="vm.start",
        author="adm-a",
        trace=TraceId("t"),
        created_s=float(number),
        parent=None if parent is None else OperationId(f"{parent:06}"),
        state=OperationState.RUNNING if ended_s is None else OperationState.DONE,
        ended_s=ended_s,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.journal"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[OpenJournal]:
    journals: list[SqliteJournal] = []

    def open_one(**options: int) -> SqliteJournal:
        journals.append(SqliteJournal(path, **options))
        return journals[-1]

    yield open_one
    for journal in journals:
        await journal.close()
    for thread in threading.enumerate():
        if thread.name.startswith("journal"):
            thread.join(5)
            assert not thread.is_alive()


async def test_what_did_not_end_comes_back_with_its_parents_first(opened: OpenJournal) -> None:
    journal = opened()
    assert await journal.load() == ()
    # The parents' ids sort behind their children's, and the top one has ended.
    top, middle, child = operation(9, ended_s=5.0), operation(8, parent=9), operation(1, parent=8)
    other, over = operation(5), operation(6, ended_s=7.0)
    await journal.commit([child, other, over])
    await journal.commit([middle, top])
    await journal.close()
    assert await opened().load() == (top, middle, child, other)


async def test_a_batch_that_is_not_over_comes_back_whole(opened: OpenJournal) -> None:
    journal = opened()
    batch, over, open_one = operation(9), operation(1, parent=9, ended_s=5.0), operation(2, parent=9)
    await journal.commit([batch, over, open_one])
    closed = [operation(19, ended_s=6.0), operation(11, parent=19, ended_s=5.0)]
    await journal.commit(closed)
    assert await journal.load() == (batch, over, open_one)
    await journal.commit([replace(open_one, state=OperationState.DONE, ended_s=7.0)])
    assert len(await journal.load()) == 3  # its own end is still to come
    await journal.commit([operation(9, ended_s=8.0)])
    assert await journal.load() == ()


async def test_what_cannot_be_encoded_is_refused_as_a_full_disk_is(opened: OpenJournal) -> None:
    journal = opened()
    with pytest.raises(OSError, match="surrogates not allowed"):
        await journal.commit([operation(1), replace(operation(2), pool="\udcff")])
    assert await journal.load() == ()
    await journal.commit([operation(1)])
    assert await journal.load() == (operation(1),)


async def test_the_last_state_of_an_operation_counts(opened: OpenJournal) -> None:
    journal = opened()
    await journal.commit([operation(1), operation(2)])
    await journal.commit([operation(1, ended_s=3.0)])
    assert await journal.load() == (operation(2),)
    assert await journal.history(5) == (operation(1, ended_s=3.0),)


async def test_the_history_is_newest_first_and_bounded(opened: OpenJournal) -> None:
    journal = opened()
    await journal.commit([operation(n, ended_s=100.0 - n) for n in range(10)])
    assert [int(each.id) for each in await journal.history(3)] == [0, 1, 2]
    assert await journal.history(0) == ()


async def test_old_ended_operations_are_forgotten_but_no_parent_of_a_living_one(opened: OpenJournal) -> None:
    journal = opened(kept_ended=10)
    parent = operation(0, ended_s=0.5)
    await journal.commit([parent, operation(1, parent=0)])
    await journal.commit([operation(n, ended_s=float(n)) for n in range(2, 600)])
    await journal.close()
    journal = opened()
    assert await journal.load() == (parent, operation(1, parent=0))
    assert [int(each.id) for each in await journal.history(1000)] == [*range(599, 589, -1), 0]


async def test_children_of_an_open_batch_are_not_forgotten_before_it_ends(opened: OpenJournal) -> None:
    journal = opened(kept_ended=10)
    early = operation(1, parent=0, ended_s=0.5)
    await journal.commit([operation(0), early])
    await journal.commit([operation(n, ended_s=float(n)) for n in range(2, 600)])
    await journal.close()
    journal = opened(kept_ended=10)
    assert await journal.load() == (operation(0), early)
    await journal.commit([operation(0, ended_s=1.0)])
    await journal.close()
    kept = await opened().history(1000)
    assert [int(each.id) for each in kept] == [*range(599, 589, -1)]


async def test_commits_made_together_share_transactions_and_keep_their_order(
    opened: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[int] = []
    first_begun, go_on = threading.Event(), threading.Event()
    store = SqliteJournal._store

    def watched(self: SqliteJournal, operations: list[Operation]) -> None:
        stores.append(len(operations))
        first_begun.set()
        assert go_on.wait(10)
        store(self, operations)

    monkeypatch.setattr(SqliteJournal, "_store", watched)
    journal = opened()
    waiting = [asyncio.ensure_future(journal.commit([operation(0)]))]
    await asyncio.sleep(0)
    assert first_begun.wait(10)
    waiting += [asyncio.ensure_future(journal.commit([operation(n)])) for n in range(1, 30)]
    loading = asyncio.ensure_future(journal.load())
    after = asyncio.ensure_future(journal.commit([operation(99)]))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*waiting, after)
    assert len(await loading) == 30  # all asked for before it, none after
    assert stores == [1, 29, 1]


async def test_a_cancelled_wait_harms_nobody(opened: OpenJournal) -> None:
    journal = opened()
    await journal.load()
    waiting = asyncio.ensure_future(journal.commit([operation(1)]))
    await asyncio.sleep(0)
    waiting.cancel()
    await journal.commit([operation(2)])
    assert operation(2) in await journal.load()


async def test_after_close_nothing_is_taken(opened: OpenJournal) -> None:
    journal = opened()
    await journal.commit([operation(1)])
    await journal.close()
    await journal.close()
    with pytest.raises(OSError, match="closed"):
        await journal.commit([operation(2)])


async def test_the_file_is_for_this_user_only_and_power_safe(opened: OpenJournal, path: Path) -> None:
    journal = opened()
    await journal.commit([operation(1)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name(path.name + "-wal").stat().st_mode) == 0o600
    assert journal._db is not None
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_second_owner_gets_an_error_and_changes_nothing(
    opened: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.store.journal._BUSY_S", 0.05)
    owner = opened()
    await owner.commit([operation(1)])
    with pytest.raises(OSError, match="locked") as caught:
        await opened().load()
    assert caught.value.errno == errno.EBUSY
    assert await owner.load() == (operation(1),)


# --- faults ----------------------------------------------------------------------------------


async def test_a_record_of_another_version_is_set_aside_and_said(
    opened: OpenJournal, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened()
    await journal.commit([operation(1), operation(2), operation(3, ended_s=1.0)])
    await journal.close()
    strange = b'{"id":"000002","kind":"teleport"}'
    with sqlite3.connect(path) as db:
        db.execute("UPDATE operations SET record = ? WHERE id IN ('000002', '000003')", (strange,))
    db.close()
    journal = opened()
    assert await journal.load() == (operation(1),)
    assert await journal.history(5) == ()
    assert "000002: Invalid enum value 'teleport'" in journal.notices[0]
    assert "000003" in journal.notices[1]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    await journal.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT id, record FROM set_aside").fetchall() == [
            ("000002", strange),
            ("000003", strange),
        ]
    db.close()
    again = opened()
    assert await again.load() == (operation(1),)
    assert again.notices == []  # said once


@pytest.mark.parametrize("damage", ["not a database at all\n" * 300, "torn page"])
async def test_a_damaged_journal_is_kept_and_a_new_one_begun(
    opened: OpenJournal, path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened()
    await journal.commit([operation(n) for n in range(200)])
    await journal.close()
    data = damage.encode()
    if damage == "torn page":
        whole = path.read_bytes()
        data = whole[:4096] + random.Random(1).randbytes(len(whole) - 4096)
    path.write_bytes(data)
    journal = opened()
    assert await journal.load() == ()
    (kept,) = path.parent.glob("lab.journal.damaged-*")
    assert kept.read_bytes() == data
    assert kept.name in journal.notices[0]
    assert caplog.records[0].levelno == logging.WARNING
    await journal.commit([operation(1)])
    await journal.close()
    assert await opened().load() == (operation(1),)


async def test_a_journal_of_a_newer_muster_is_left_alone(opened: OpenJournal, path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="newer Muster"):
        await opened().load()
    assert path.read_bytes() == before


async def test_a_folder_that_is_gone_is_an_os_error(opened: OpenJournal, path: Path) -> None:
    path.parent.joinpath("deep").mkdir()
    journal = SqliteJournal(path.parent / "gone" / "x.journal")
    with pytest.raises(FileNotFoundError):
        await journal.commit([operation(1)])
    await journal.close()


_PRELUDE = """
import asyncio, errno, resource, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from manager.store.journal import SqliteJournal
from tests.store.test_journal import operation
path = Path({path!r})
"""


def in_a_process(path: Path, program: str, expected: int = 0) -> str:
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", _PRELUDE.format(root=root, path=str(path)) + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == expected, ran.stderr
    return ran.stdout


async def test_a_full_disk_is_an_error_and_nothing_of_the_commit_is_stored(
    opened: OpenJournal, path: Path
) -> None:
    # A limit on the file's size stands for the disk's: the write ahead log cannot grow any more.
    said = in_a_process(
        path,
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
async def main():
    journal = SqliteJournal(path)
    await journal.commit([operation(n) for n in range(10)])
    room = Path(str(path) + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (room + 20_000, resource.RLIM_INFINITY))
    try:
        await journal.commit([operation(n) for n in range(10, 2000)])
    except OSError as error:
        print("refused")
    print(len(await journal.load()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await journal.commit([operation(5000)])
    print(len(await journal.load()))
    await journal.close()
asyncio.run(main())
""",
    )
    assert said.split() == ["refused", "10", "11"]
    assert len(await opened().load()) == 11


async def test_sqlite_says_full_and_we_say_no_space(
    opened: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened()
    await journal.commit([operation(1)])
    assert journal._db is not None
    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match="full") as caught:
        await journal.commit([operation(n) for n in range(2, 500)])
    assert caught.value.errno == errno.ENOSPC
    assert await journal.load() == (operation(1),)


async def test_a_commit_that_fails_half_way_stores_nothing_and_leaves_no_transaction(
    opened: OpenJournal,
) -> None:
    journal = opened()
    nameless = replace(operation(2), id=None)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="NOT NULL"):
        await journal.commit([operation(1), nameless])
    assert await journal.load() == ()
    await journal.commit([operation(3)])
    assert await journal.load() == (operation(3),)


async def test_a_kill_loses_nothing_that_was_committed(opened: OpenJournal, path: Path) -> None:
    program = """
async def main():
    journal = SqliteJournal(path)
    for n in range(10_000):
        await journal.commit([operation(2 * n), operation(2 * n + 1)])
        print(n, flush=True)
asyncio.run(main())
"""
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", _PRELUDE.format(root=root, path=str(path)) + program],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 20:
                child.send_signal(signal.SIGKILL)
                break
        last = int((line + child.stdout.read()).split()[-1])
    found = {int(each.id) for each in await opened().load()}
    assert found >= set(range(2 * last + 2))
    assert len(found) % 2 == 0  # no half of a commit


# --- round trip ------------------------------------------------------------------------------

_text = st.text(max_size=20)
_seconds = st.floats(0, 2e9)
_operations = st.builds(
    Operation,
    id=_text.map(OperationId),
    kind=st.sampled_from(OperationKind),
    action=_text,
    author=_text,
    trace=_text.map(TraceId),
    created_s=_seconds,
    parent=st.none() | _text.map(OperationId),
    state=st.sampled_from(OperationState),
    reason=st.none()
    | st.builds(
        because,
        st.sampled_from(ReasonCode),
        node=_text | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    ),
    vm=st.none() | _text.map(VmId),
    vm_name=_text,
    source=st.none() | _text.map(NodeId),
    target_given=st.booleans(),
    route=st.sampled_from(PeerRoute),
    change=st.none() | st.sampled_from(VmChange),
    settings=st.none()
    | st.builds(VmSettings, priority=st.sampled_from(Priority), tags=st.lists(_text, max_size=3).map(tuple)),
    attempt=st.integers(0, 99),
    started_s=st.none() | _seconds,
    ended_s=st.none() | _seconds,
)


@settings(max_examples=25)
@given(operations=st.lists(_operations, max_size=20, unique_by=lambda each: each.id))
def test_every_operation_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, operations: list[Operation]
) -> None:
    async def there_and_back() -> set[Operation]:
        journal = SqliteJournal(tmp_path_factory.mktemp("round") / "x.journal")
        await journal.commit(operations)
        found = {*await journal.load(), *await journal.history(100)}
        await journal.close()
        assert journal.notices == []
        return found

    assert asyncio.run(there_and_back()) == set(operations)


_trees = st.lists(
    st.tuples(st.none() | st.integers(0, 7), st.booleans()), min_size=1, max_size=8
)  # of each number its parent, and whether it is over


@settings(max_examples=40)
@given(tree=_trees)
def test_every_journal_gives_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: list[tuple[int | None, bool]]
) -> None:
    operations = [
        operation(n, parent=parent, ended_s=1.0 if over else None) for n, (parent, over) in enumerate(tree)
    ]

    async def loaded(journal: Journal) -> tuple[Operation, ...]:
        await journal.commit(operations)
        found = await journal.load()
        await journal.close()
        return found

    on_disk = asyncio.run(loaded(SqliteJournal(tmp_path_factory.mktemp("same") / "x.journal")))
    assert set(on_disk) == set(asyncio.run(loaded(MemoryJournal())))
    assert len(set(on_disk)) == len(on_disk)


async def test_a_journal_that_is_never_used_leaves_nothing(opened: OpenJournal, path: Path) -> None:
    await opened().close()
    assert not path.exists()

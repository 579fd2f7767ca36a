"""What happened, and the lives of problems, in the journal: bounded, behind operations, from older files."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from manager.core.chronicle import ClusterEvent, Level, Source, id_at
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import ProblemLife
from manager.core.reasons import ReasonCode, because
from manager.services.memory_journal import MemoryJournal
from manager.services.ports import Journal
from manager.store.journal import FORMAT, KEPT_EVENTS_S, SqliteJournal
from tests.store.test_journal import operation

NOW_S = 1_800_000_000.0
FORMAT_1 = """
CREATE TABLE operations (
    id TEXT PRIMARY KEY, parent TEXT, ended_s REAL, record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX operations_ended ON operations (ended_s, id);
CREATE TABLE set_aside (
    id TEXT PRIMARY KEY, parent TEXT, ended_s REAL, record BLOB NOT NULL, why TEXT NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
"""As released Musters wrote it."""

RECORD_1 = (
    b'{"id":"000001","kind":"change","action":"vm.start","author":"adm-a","trace":"t","created_s":1.0,'
    b'"state":"Running","change":"start","vm":"uuid","vm_name":"web"}'
)


def event(number: int, at_s: float = NOW_S) -> ClusterEvent:
    return ClusterEvent(
        id=id_at(at_s, number),
        at_s=at_s,
        level=Level.ERROR,
        source=Source.HOST,
        what=because(ReasonCode.VM_CRASHED, node="n1", cause=" (crashed)"),
        why=because(ReasonCode.FAILED, text="é\x00", place="off"),
        node=NodeId("n1"),
        vm=VmId("uuid"),
        vm_name=f"web-{number}",
        who="adm@pc",
        operation=OperationId("1.00001"),
        problem="vm:uuid",
    )


LIFE = ProblemLife(
    key="vm:uuid",
    cause="crashed-at",
    first_s=1.0,
    since_s=NOW_S,
    last_s=NOW_S,
    times=3,
    acknowledged_by="adm@pc",
    acknowledged_s=NOW_S,
    note="known",
    muted_until_s=NOW_S + 5,
)


@pytest.fixture
async def journals(tmp_path: Path) -> AsyncIterator[Callable[..., SqliteJournal]]:
    made: list[SqliteJournal] = []

    def make(**options: int) -> SqliteJournal:
        made.append(SqliteJournal(tmp_path / "lab.journal", **options))
        return made[-1]

    yield make
    for journal in made:
        await journal.close()


async def test_what_was_recorded_comes_back_oldest_first(journals: Callable[..., SqliteJournal]) -> None:
    journal = journals()
    await journal.record([event(2), event(1)], [LIFE])
    await journal.record([event(3, NOW_S + 60)], [replace(LIFE, times=4)])
    await journal.close()
    again = journals()
    assert await again.happened(0.0, 10) == (event(1), event(2), event(3, NOW_S + 60))
    assert await again.happened(NOW_S + 1, 10) == (event(3, NOW_S + 60),)
    assert await again.happened(0.0, 2) == (event(2), event(3, NOW_S + 60))  # the newest ones
    assert await again.happened(0.0, 0) == ()
    assert await again.lives() == (replace(LIFE, times=4),)


@pytest.mark.parametrize("kind", [MemoryJournal, None])
async def test_both_kinds_of_journal_do_the_same(
    kind: type[MemoryJournal] | None, journals: Callable[..., SqliteJournal]
) -> None:
    journal: Journal = kind() if kind else journals()
    await journal.record([event(1), event(2, NOW_S + 1)], [LIFE])
    await journal.record([], [])
    assert await journal.happened(NOW_S + 0.5, 5) == (event(2, NOW_S + 1),)
    assert await journal.happened(0.0, 1) == (event(2, NOW_S + 1),)
    assert await journal.lives() == (LIFE,)


async def test_a_journal_of_the_older_format_opens_and_keeps_its_operations(
    journals: Callable[..., SqliteJournal], tmp_path: Path
) -> None:
    db = sqlite3.connect(tmp_path / "lab.journal")
    db.executescript(FORMAT_1)
    db.execute("INSERT INTO operations VALUES ('000001', NULL, NULL, ?)", (RECORD_1,))
    db.commit()
    db.close()
    journal = journals()
    (left,) = await journal.load()
    assert (left.id, left.vm_name) == ("000001", "web")
    assert await journal.happened(0.0, 10) == ()
    assert await journal.lives() == ()
    await journal.record([event(1)], [LIFE])
    await journal.commit([operation(7, ended_s=8.0)])
    await journal.close()
    again = journals()
    assert (await again.load(), await again.happened(0.0, 10)) == ((left,), (event(1),))
    assert not again.notices
    await again.close()
    db = sqlite3.connect(tmp_path / "lab.journal")
    assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    db.close()


async def test_what_is_kept_is_bounded_in_number_and_in_age(journals: Callable[..., SqliteJournal]) -> None:
    journal = journals(kept_events=1_500)
    old_s = NOW_S - KEPT_EVENTS_S - 10
    ended = replace(LIFE, key="vm:old", ended=True, last_s=old_s)
    await journal.record([event(1, old_s)], [ended, replace(LIFE, last_s=old_s)])
    for start in range(0, 4_000, 2_000):
        await journal.record([event(start + n, NOW_S + start + n) for n in range(2_000)], [])
    kept = await journal.happened(0.0, 100_000)
    assert 1_500 <= len(kept) <= 2_500
    assert kept[-1] == event(3_999, NOW_S + 3_999)
    assert [life.key for life in await journal.lives()] == ["vm:uuid"]  # it still goes on


async def test_operations_do_not_wait_for_what_happened(
    journals: Callable[..., SqliteJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, order = journals(), list[str]()
    await journal.load()
    store, record = journal._store, journal._record

    def slow_store(operations: object) -> None:
        order.append("operation")
        store(operations)  # type: ignore[arg-type]

    def slow_record(*what: object) -> None:
        order.append("event")
        record(*what)  # type: ignore[arg-type]

    monkeypatch.setattr(journal, "_store", slow_store)
    monkeypatch.setattr(journal, "_record", slow_record)
    recording = asyncio.gather(*(journal.record([event(n)], []) for n in range(50)))
    await asyncio.sleep(0)
    await journal.commit([operation(1)])
    assert order.count("event") < 50 or order.index("operation") < 10
    await recording
    assert len(await journal.happened(0.0, 100)) == 50


async def test_a_record_of_another_version_is_left_out_and_not_lost(
    journals: Callable[..., SqliteJournal], tmp_path: Path
) -> None:
    journal = journals()
    await journal.record([event(1), event(2)], [LIFE])
    await journal.close()
    db = sqlite3.connect(tmp_path / "lab.journal")
    db.execute("UPDATE events SET record = ? WHERE id = ?", (b'{"id":1}', event(1).id))
    db.execute("INSERT INTO problems VALUES ('x', NULL, ?)", (b"junk",))
    db.commit()
    db.close()
    journal = journals()
    assert await journal.happened(0.0, 10) == (event(2),)
    assert await journal.lives() == (LIFE,)


async def test_a_journal_that_cannot_be_written_says_so_and_stores_nothing(
    journals: Callable[..., SqliteJournal], tmp_path: Path
) -> None:
    journal = journals()
    await journal.record([event(1)], [])
    with pytest.raises(OSError, match="surrogates"):
        await journal.record([event(2), replace(event(3), vm_name="\udcff")], [LIFE])
    assert await journal.happened(0.0, 10) == (event(1),)
    assert await journal.lives() == ()

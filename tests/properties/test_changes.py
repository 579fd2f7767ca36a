"""Change sets: however turns are merged, a view that follows them ends up with the same rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manager.core.changes import ALL_FIELDS, ChangeSet, KindChanges
from manager.core.ids import Kind

KEYS = ("a", "b", "c")
steps = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(("appear", "vanish", "x", "y"))), max_size=12
)
Rows = dict[str, dict[str, int]]


def play(rows: Rows, steps: list[tuple[str, str]], stamp: list[int]) -> ChangeSet:
    """Do to the rows what the steps say, and tell it as a turn does."""
    changes = ChangeSet()
    for key, what in steps:
        stamp[0] += 1
        if what == "appear" and key not in rows:
            rows[key] = {"x": stamp[0], "y": stamp[0]}
            changes[Kind.VM].add(key)
        elif what == "vanish" and key in rows:
            del rows[key]
            changes[Kind.VM].remove(key)
        elif what in ("x", "y") and key in rows:
            rows[key][what] = stamp[0]
            changes[Kind.VM].update(key, (what,))
    return changes


def follow(shown: Rows, rows: Rows, changes: KindChanges) -> None:
    """What a view does: only what it was told of."""
    for key in changes.removed:
        del shown[key]
    for key in changes.added:
        assert key not in shown
        shown[key] = dict(rows[key])
    for key, names in changes.updated.items():
        for name in rows[key] if names & ALL_FIELDS else names:
            shown[key][name] = rows[key][name]


@given(st.lists(steps, max_size=5))
def test_a_view_that_follows_merged_changes_shows_the_rows(turns: list[list[tuple[str, str]]]) -> None:
    rows: Rows = {"a": {"x": 0, "y": 0}}
    shown: Rows = {"a": {"x": 0, "y": 0}}
    stamp = [0]
    merged = ChangeSet()
    for turn in turns:
        merged |= play(rows, turn, stamp)
    follow(shown, rows, merged[Kind.VM])
    assert shown == rows
    kinds = merged[Kind.VM]
    assert not kinds.added & kinds.removed
    assert not kinds.updated.keys() & (kinds.added | kinds.removed)


@given(steps, steps, steps)
def test_merging_is_associative(
    first: list[tuple[str, str]], second: list[tuple[str, str]], third: list[tuple[str, str]]
) -> None:
    def turns() -> list[ChangeSet]:
        rows: Rows = {"a": {"x": 0, "y": 0}}
        stamp = [0]
        return [play(rows, steps, stamp) for steps in (first, second, third)]

    a, b, c = turns()
    a |= b
    a |= c
    d, e, f = turns()
    e |= f
    d |= e
    left, right = a[Kind.VM], d[Kind.VM]
    assert (left.added, left.removed) == (right.added, right.removed)
    assert left.updated.keys() == right.updated.keys()


@given(steps)
def test_nothing_told_is_false_and_adds_nothing(done: list[tuple[str, str]]) -> None:
    rows: Rows = {"a": {"x": 0, "y": 0}}
    changes = play(rows, done, [0])
    assert bool(changes) is bool(
        changes[Kind.VM].added or changes[Kind.VM].removed or changes[Kind.VM].updated
    )
    before = (set(changes[Kind.VM].added), dict(changes[Kind.VM].updated))
    changes |= ChangeSet()
    assert (changes[Kind.VM].added, changes[Kind.VM].updated) == before

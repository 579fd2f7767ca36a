"""Who is tried first: High, then by hand, then who waited enough, then large; nobody waits for ever."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest

from manager.core.ids import NodeId, OperationId
from manager.core.migration.order import MOST_OVERTAKEN, QueueOrder
from tests.perf import makespan
from tests.perf.makespan import Move, lower_bound_s, makespan_s

HIGH, MEDIUM, LOW = 3000, 2000, 1000


@dataclass(frozen=True)
class Item:
    """Waiting work; its place in the batch is its age."""

    id: OperationId
    order: int
    memory_mib: int
    source: NodeId | None
    target: NodeId | None
    priority: int = MEDIUM
    rank: float | None = None
    created_s: float = 0.0


def item(name: str, order: int, memory_mib: int = 1024, way: str = "n1 n2", **more: object) -> Item:
    source, target = (NodeId(n) if n != "-" else None for n in way.split())
    return replace(Item(OperationId(name), order, memory_mib, source, target), **more)


def line(*items: Item, is_move: bool = True) -> QueueOrder:
    order = QueueOrder()
    for each in items:
        order.add(each, is_move=is_move)
    return order


def names(order: QueueOrder) -> str:
    return " ".join(order.candidates())


def pass_by(order: QueueOrder, times: int, **more: object) -> None:
    """So many large younger moves start, each in a look of its own."""
    for number in range(100, 100 + times):
        large = item(f"x{number}", number, 9999, **more)
        order.add(large, is_move=True)
        assert next(order.candidates()) == large.id
        order.started(large)


# --- the order ------------------------------------------------------------------------------


def test_an_older_and_larger_low_never_comes_before_a_high() -> None:
    order = line(
        item("low", 1, 64000, priority=LOW),
        item("medium", 2, 32000),
        item("high", 3, 512, priority=HIGH),
    )
    assert names(order) == "high medium low"


def test_inside_a_priority_the_large_come_first_and_equals_by_age() -> None:
    assert names(line(item("c", 3, 2048), item("b", 2, 2048), item("a", 1, 1024))) == "b c a"
    assert names(line(item("late", 0, created_s=2.0), item("early", 9, created_s=1.0))) == "early late"


def test_what_is_no_move_keeps_its_age_and_waits_for_no_move() -> None:
    order = line(item("big move", 1, 64000))
    for each in (item("start 2", 3, 64000), item("start 1", 2, 512)):
        order.add(each, is_move=False)
    assert names(order) == "start 1 start 2 big move"
    order.started(item("start 2", 3, 64000))
    assert [order.overtaken(key) for key in order.candidates()] == [0, 0]


def test_only_some_are_asked_for() -> None:
    order = line(item("a", 1, 1), item("b", 2, 2), item("c", 3, 3))
    assert list(order.candidates({OperationId(k) for k in ("a", "gone", "c")})) == ["c", "a"]


# --- overtaking -----------------------------------------------------------------------------


def test_after_sixteen_times_it_comes_next() -> None:
    order = line(item("small", 1, 1))
    pass_by(order, MOST_OVERTAKEN)
    order.add(item("large", 999, 9999), is_move=True)
    assert order.overtaken(OperationId("small")) == MOST_OVERTAKEN == 16
    assert names(order) == "small large"


@pytest.mark.parametrize("asked", ["all", "all by name", "not smallest"])
def test_in_the_middle_of_a_look_too(asked: str) -> None:
    order = line(
        item("small", 1, 1), item("smallest", 2, 0), *(item(f"x{n}", n, 9999) for n in range(10, 40))
    )
    keys = {*order.candidates()} - ({OperationId("smallest")} if asked == "not smallest" else set())
    tried = []
    for key in order.candidates(None if asked == "all" else keys):
        tried.append(key)
        order.started(item(key, int(key[1:]) if key[0] == "x" else {"small": 1}.get(key, 2)))
    assert tried == [
        *(f"x{n}" for n in range(10, 26)),
        "small",
        *(["smallest"] if asked != "not smallest" else []),
        *(f"x{n}" for n in range(26, 40)),
    ]
    assert len(order) == (asked == "not smallest")


def test_one_that_comes_next_and_leaves_meanwhile_is_not_tried() -> None:
    order = line(item("small", 1, 1), *(item(f"x{n}", n, 9999) for n in range(10, 40)))
    tried = []
    for key in order.candidates():
        tried.append(key)
        order.started(item(key, 0))
        if len(tried) == MOST_OVERTAKEN:
            order.remove(OperationId("small"))
    assert "small" not in tried
    assert len(tried) == 30


@pytest.mark.parametrize(
    ("passer", "times"),
    [
        (item("x", 5, 9999, "n1 n3"), 1),  # leaves the same node
        (item("x", 5, 9999, "n3 n2"), 1),  # goes to the same node
        (item("x", 5, 9999, "n1 n2"), 1),  # both: still once
        (item("x", 5, 9999, "n3 n4"), 0),
        (item("x", 5, 9999, "n2 n1"), 0),  # the other way
        (item("x", 0, 9999, "n1 n2"), 0),  # it is older
        (item("x", 5, 9999, "n1 n2", priority=HIGH), 0),
        (item("x", 5, 9999, "n1 n2", priority=LOW), 0),
        (item("x", 5, 9999, "n1 n2", rank=0.0), 0),  # by hand
        (item("x", 5, 1, "n1 n2"), 0),  # tried after it, which had no place on its other node
    ],
)
def test_what_counts_as_overtaking(passer: Item, times: int) -> None:
    order = line(item("waits", 1, 1024), passer)
    order.started(passer)
    assert order.overtaken(OperationId("waits")) == times


def test_a_target_that_is_not_chosen_could_be_any() -> None:
    anywhere = item("anywhere", 1, 1024, "n1 -")
    order = line(anywhere, item("x", 5, 9999, "n3 n4"))
    order.started(item("x", 5, 9999, "n3 n4"))
    assert order.overtaken(anywhere.id) == 1


def test_the_target_that_counts_is_the_one_it_starts_with() -> None:
    order = line(item("a", 1, way="n5 n2"), item("b", 1, way="n5 n4"), item("x", 5, 9999, "n1 -"))
    order.started(item("x", 5, 9999, "n1 n4"))
    assert (order.overtaken(OperationId("a")), order.overtaken(OperationId("b"))) == (0, 1)


def test_the_last_place_of_the_cluster_is_everybodys() -> None:
    order = line(
        item("elsewhere", 1, way="n3 n4"),
        item("younger", 7, way="n3 n4"),
        item("larger", 2, 99999, way="n3 n4"),
        item("low", 1, way="n3 n4", priority=LOW),
        item("x", 5, 9999, "n1 n2"),
    )
    order.started(item("x", 5, 9999, "n1 n2"), last_place=True)
    counts = {key: order.overtaken(key) for key in order.candidates()}
    assert counts == {"elsewhere": 1, "larger": 0, "younger": 0, "low": 0}


def test_one_that_waited_enough_overtakes_its_elders_too() -> None:
    order = line(item("younger", 2, 1, "n1 n2"))
    pass_by(order, MOST_OVERTAKEN)
    order.add(item("older", 1, 512, "n1 n2"), is_move=True)
    assert names(order) == "younger older"
    order.started(item("younger", 2, 1, "n1 n2"))
    assert order.overtaken(OperationId("older")) == 1


def test_how_often_is_kept_while_it_waits_and_forgotten_when_it_left() -> None:
    order = line(item("a", 1, 1))
    pass_by(order, MOST_OVERTAKEN)
    order.add(item("a", 1, 1, way="n3 n4"), is_move=True)  # its VM moved while it waited
    order.add(item("x", 5, 9999, way="n3 n4"), is_move=True)
    assert names(order) == "a x"
    order.remove(OperationId("a"))
    order.add(item("a", 1, 1), is_move=True)
    assert names(order) == "x a"


def test_a_move_that_changed_is_overtaken_where_it_is_now() -> None:
    order = line(item("a", 1, 1, way="n1 n2"))
    order.add(item("a", 1, 2, way="n3 n4"), is_move=True)
    pass_by(order, 1, way="n1 n2")
    assert order.overtaken(OperationId("a")) == 0
    pass_by(order, 1, way="n3 n5")
    assert order.overtaken(OperationId("a")) == 1
    order.add(item("b", 2, 1), is_move=True)
    assert names(order) == "a b"  # with the memory that it has now


# --- who joins and leaves -------------------------------------------------------------------


def test_who_leaves_during_a_look_is_passed_over_and_who_joins_is_for_the_next() -> None:
    order = line(item("a", 1, 3), item("b", 2, 2), item("c", 3, 1))
    look = order.candidates()
    assert next(look) == "a"
    order.remove(OperationId("b"))
    order.add(item("new", 4, 0), is_move=True)
    assert list(look) == ["c"]
    assert names(order) == "a c new"


def test_leaving_twice_changes_nothing() -> None:
    order = line(item("a", 1), item("b", 2))
    order.started(item("a", 1))
    order.started(item("a", 1))
    order.remove(OperationId("a"))
    assert names(order) == "b"
    assert order.overtaken(OperationId("b")) == 0
    assert OperationId("b") in order
    assert OperationId("a") not in order


# --- by hand --------------------------------------------------------------------------------


def test_a_hand_made_order_wins_over_size_and_patience_but_not_over_priority() -> None:
    order = line(item("patient", 1, 1))
    pass_by(order, MOST_OVERTAKEN)
    for each in (
        item("large", 2, 9999),
        item("second", 4, 1, rank=2.0),
        item("first", 5, 1, rank=1.0),
        item("high", 6, 1, priority=HIGH),
    ):
        order.add(each, is_move=True)
    assert names(order) == "high first second patient large"


def ranked(order: QueueOrder, items: Iterable[Item], keys: str, before: str | None) -> dict[str, float]:
    """The answer, stored as admission does."""
    ranks = order.ranks([OperationId(k) for k in keys.split()], OperationId(before) if before else None)
    for each in items:
        if each.id in ranks:
            order.add(replace(each, rank=ranks[each.id]), is_move=True)
    return dict(ranks)


def test_before_one_without_a_place_all_that_stand_before_it_get_one() -> None:
    items = [item(name, number, 100 - number) for number, name in enumerate("abcdef")]
    order = line(*items)
    assert ranked(order, items, "f e", "c") == {"a": 0, "b": 1, "f": 2, "e": 3}
    assert names(order) == "a b f e c d"
    assert ranked(order, items, "a", "e") == {"b": 0, "f": 1, "a": 2}
    assert names(order) == "b f a e c d"


def test_before_nobody_means_behind_all_that_have_a_place() -> None:
    items = [item(name, number, 100 - number) for number, name in enumerate("abcd")]
    order = line(*items)
    assert ranked(order, items, "d", None) == {"d": 0}
    assert ranked(order, items, "c", None) == {"c": 1}
    assert names(order) == "d c a b"
    assert ranked(order, items, "d", None) == {"c": 0, "d": 1}
    assert names(order) == "c d a b"


def test_one_of_another_priority_or_that_left_is_nobody() -> None:
    items = [item("a", 1), item("b", 2), item("high", 3, priority=HIGH)]
    for before in ("high", "gone"):
        assert line(*items).ranks([OperationId("b")], OperationId(before)) == {"b": 0}


def test_each_priority_has_its_own_hand_made_order() -> None:
    items = [item("a", 1), item("b", 2), item("h", 3, priority=HIGH), item("i", 4, priority=HIGH)]
    order = line(*items)
    assert ranked(order, items, "b gone i", "a") == {"i": 0, "b": 0}
    assert names(order) == "i h b a"


# --- what it is for -------------------------------------------------------------------------


def move(number: int, way: str, memory_mib: float) -> Move:
    source, target = way.split()
    return Move(
        id=OperationId(str(number)),
        order=number,
        source=NodeId(source),
        target=NodeId(target),
        memory_mib=memory_mib,  # type: ignore[arg-type]
    )


SECOND = makespan.LINK_MIB_S
"""What a link sends in a second, in MiB."""


def test_the_network_of_the_simulation() -> None:
    def took(limit: int, *moves: Move) -> float:
        return makespan_s(moves, limit, makespan.ORDERS["skip"](moves))

    one = move(1, "a b", 6 * SECOND)
    assert took(1, one) == pytest.approx(1.5 + 6 / 0.6)
    assert took(2, one, move(2, "b a", 6 * SECOND)) == pytest.approx(11.5)  # both ways at once
    assert took(2, one, move(2, "a c", 6 * SECOND)) == pytest.approx(1.5 + 12)  # half a link each
    assert took(1, one, move(2, "a c", 6 * SECOND)) == pytest.approx(2 * 11.5)
    # Half each until the shorter one ends, then 60 %.
    assert took(2, one, move(2, "a c", 3 * SECOND)) == pytest.approx(1.5 + 6 + 3 / 0.6)
    # Two streams share a link; what they leave of another one's goes to the third.
    shared = [move(n, way, 6 * SECOND) for n, way in enumerate(("a c", "a c", "a d", "b d"))]
    flows = [makespan._Flow(each) for each in shared]
    makespan.share(flows)
    assert [f.rate_mib_s / SECOND for f in flows] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.6])


def test_the_lower_bound_of_the_simulation() -> None:
    moves = [move(1, "a c", 6 * SECOND), move(2, "a d", 6 * SECOND), move(3, "b d", 3 * SECOND)]
    assert lower_bound_s(moves, 1) == pytest.approx(23)  # the slot of a, twice
    assert lower_bound_s(moves, 2) == pytest.approx(12)  # the link of a
    assert lower_bound_s(moves[:1], 2) == pytest.approx(11.5)  # the longest


@pytest.mark.parametrize(("limit", "goal"), [(1, 1.05), (2, 1.10), (4, 1.05)])
def test_a_rebalance_of_64_nodes_takes_little_longer_than_it_must(limit: int, goal: float) -> None:
    moves = makespan.rebalance(seed=11)
    bound_s = lower_bound_s(moves, limit)
    took = {
        name: makespan_s(moves, limit, makespan.ORDERS[name](moves))
        for name in ("Muster", "skip", "head of line")
    }
    assert bound_s * (1 - 1e-9) <= took["Muster"] <= goal * bound_s
    assert took["Muster"] <= 1.02 * took["skip"]
    assert took["head of line"] > 1.5 * took["Muster"]  # what this is about

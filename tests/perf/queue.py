"""The order of the queue: what it costs, and how near to what is possible it brings a batch."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

from manager.core.ids import NodeId
from manager.core.migration.order import QueueOrder
from tests.perf.makespan import ORDERS, Move, drain, lower_bound_s, makespan_s, rebalance, skewed
from tests.perf.measure import Row, cpu_s, median

SEEDS = range(5)
GOALS = {1: 1.05, 2: 1.10, 4: 1.05}
"""Limit of moves out of and into each node -> makespan / lower bound, inside one priority."""

NOT_WORSE = 1.02
"""Than passing over in the order of age, in any run."""

SCENARIOS: dict[str, Callable[[int], list[Move]]] = {
    "drain of 1 node, 125 moves": drain,
    "drain of 8 nodes, 1,000 moves": lambda seed: drain(seed, drained=8),
    "rebalance of 64 nodes, 1,500 moves": rebalance,
    "skewed sources, 800 moves": skewed,
}


def rows() -> Iterator[Row]:
    """Makespans beside the naive orders, then CPU."""
    for name, scenario in SCENARIOS.items():
        for limit, goal in GOALS.items():
            yield _makespan(f"queue: {name}, limit {limit}: time / lower bound", scenario, limit, goal)
    spent = cpu_s(lambda: makespan_s(moves := rebalance(0), 2, ORDERS["Muster"](moves)))
    yield Row(
        name="queue: 1,500 moves simulated, CPU",
        ours=f"{spent * 1000:.0f} ms",
        goal="≤ 500 ms",
        met=spent <= 0.5,
    )
    spread = rebalance(0, moves=8000)
    yield Row(
        name="queue: 8,000 moves taken in, CPU",
        ours=f"{cpu_s(lambda: _filled(spread)) * 1000:.0f} ms",
    )
    crowd = drain(0, vms=8000)
    for where, moves in (("64 nodes", spread), ("one node", crowd)):
        first, *looks = _looks(moves)
        yield Row(
            name=f"queue: 8,000 waiting on {where}, first look, CPU",
            ours=f"{first * 1000:.1f} ms",
        )
        yield Row(
            name=f"queue: 8,000 waiting on {where}, look after a move's end, CPU",
            ours=f"{median(looks) * 1000:.1f} ms",
            goal="≤ 20 ms",
            met=median(looks) <= 0.02,
        )


def _makespan(name: str, scenario: Callable[[int], list[Move]], limit: int, goal: float) -> Row:
    found: dict[str, list[float]] = {order: [] for order in ORDERS}
    for seed in SEEDS:
        moves = scenario(seed)
        bound_s = lower_bound_s(moves, limit)
        for order, make in ORDERS.items():
            found[order].append(makespan_s(moves, limit, make(moves)) / bound_s)
    ours = median(found["Muster"])
    ratios = [a / b for a, b in zip(found["Muster"], found["skip"], strict=True)]
    return Row(
        name=name,
        ours=f"{ours:.2f}",
        other=", ".join(f"{order} {median(found[order]):.2f}" for order in ORDERS if order != "Muster"),
        ratio=f"{median(ratios):.2f}",
        goal=f"≤ {goal:.2f}",
        met=ours <= goal and max(ratios) <= NOT_WORSE,
    )


def _filled(moves: Sequence[Move]) -> QueueOrder:
    order = QueueOrder()
    for move in moves:
        order.add(move, is_move=True)
    return order


def _looks(moves: Sequence[Move], count: int = 50, limit: int = 2) -> list[float]:
    """CPU seconds of looks over all that waits: the first fills the slots, the others follow an end each."""
    order = _filled(moves)
    by_id = {move.id: move for move in moves}
    outgoing: Counter[NodeId] = Counter()
    incoming: Counter[NodeId] = Counter()
    running: deque[Move] = deque()

    def look() -> None:
        for key in order.candidates():
            move = by_id[key]
            if outgoing[move.source] < limit and incoming[move.target] < limit:
                outgoing[move.source] += 1
                incoming[move.target] += 1
                running.append(move)
                order.started(move)

    spent = [cpu_s(look)]
    for _ in range(count):
        ended = running.popleft()
        outgoing[ended.source] -= 1
        incoming[ended.target] -= 1
        spent.append(cpu_s(look))
    return spent

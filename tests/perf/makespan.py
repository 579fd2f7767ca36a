"""How long a queue of moves takes in all, by its order: a network in numbers, and what no order can beat.

Each node has a full-duplex link of 10 Gbit/s that its moves share max-min fairly; one stream gets 60 % of it
at most; each move begins with 1.5 s in which it sends nothing. A move sends its VM's memory once.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from manager.core.ids import NodeId, OperationId
from manager.core.migration.order import QueueOrder

LINK_MIB_S = 10e9 / 8 / 2**20
STREAM = 0.6  # of a link
FIXED_S = 1.5

_MEMORY_GIB = (2, 4, 8, 16, 32, 64)
_SHARES = (20, 30, 30, 14, 5, 1)  # percent; 8 GiB on average


Door = tuple[str, NodeId]
"""A node's way out or way in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One VM that goes from one node to another; `Waiting` for the order."""

    id: OperationId
    order: int
    source: NodeId
    target: NodeId
    memory_mib: int
    priority: int = 2000
    created_s: float = 0.0
    rank: float | None = None

    @property
    def alone_s(self) -> float:
        """How long it takes if nobody else moves."""
        return FIXED_S + self.memory_mib / (LINK_MIB_S * STREAM)


# --- what is asked for ----------------------------------------------------------------------


def drain(seed: int, *, drained: int = 1, nodes: int = 64, vms: int = 125) -> list[Move]:
    """Nodes with so many VMs each are emptied onto the others, one after the other in the queue."""
    rng = random.Random(seed)
    return _moves(rng, [(n, rng.randrange(drained, nodes)) for n in range(drained) for _ in range(vms)])


def rebalance(seed: int, *, nodes: int = 64, moves: int = 1500) -> list[Move]:
    """VMs go from anywhere to anywhere."""
    rng = random.Random(seed)
    return _moves(rng, [tuple(rng.sample(range(nodes), 2)) for _ in range(moves)])


def skewed(seed: int, *, nodes: int = 64, moves: int = 800) -> list[Move]:
    """VMs go to anywhere from nodes of which the n-th gives 1/n of what the first does."""
    rng = random.Random(seed)
    weights = list(accumulate(1 / (n + 1) for n in range(nodes)))
    sources = rng.choices(range(nodes), cum_weights=weights, k=moves)
    return _moves(rng, [(s, rng.choice([n for n in range(nodes) if n != s])) for s in sources])


def _moves(rng: random.Random, ways: Sequence[tuple[int, ...]]) -> list[Move]:
    memory = rng.choices(_MEMORY_GIB, _SHARES, k=len(ways))
    return [
        Move(
            id=OperationId(f"m{number:05d}"),
            order=number,
            source=NodeId(f"n{source:02d}"),
            target=NodeId(f"n{target:02d}"),
            memory_mib=gib * 1024,
        )
        for number, ((source, target), gib) in enumerate(zip(ways, memory, strict=True))
    ]


def lower_bound_s(moves: Sequence[Move], limit: int) -> float:
    """The longest of: what the busiest link sends, the slots of a node in turn, the longest move.

    The fixed start of moves counts only where slots, not a link, are short.
    """
    links: Counter[Door] = Counter()
    slots: defaultdict[Door, float] = defaultdict(float)
    for move in moves:
        for door in (("out", move.source), ("in", move.target)):
            links[door] += move.memory_mib
            slots[door] += move.alone_s
    return max(
        max(links.values()) / LINK_MIB_S,
        max(slots.values()) / limit,
        max(move.alone_s for move in moves),
    )


# --- orders ---------------------------------------------------------------------------------


class Order(Protocol):
    """Who is tried, in which order."""

    stops: bool
    """Whether nobody is tried any more in this look after one that found no place."""

    halves: bool
    """Whether a node gives half of its slots to each way while moves wait in both."""

    def candidates(self) -> Iterator[OperationId]:
        """Everything that waits."""

    def started(self, move: Move) -> None:
        """One of them waits no more."""


class ByAge:
    """As asked for: head of line, or passing over those that find no place."""

    def __init__(self, moves: Sequence[Move], *, stops: bool, halves: bool = False) -> None:
        self.stops, self.halves = stops, halves
        self._waiting = [move.id for move in moves]

    def candidates(self) -> Iterator[OperationId]:
        """The oldest first."""
        yield from tuple(self._waiting)

    def started(self, move: Move) -> None:
        """One is gone."""
        self._waiting.remove(move.id)


class Ours:
    """The product's own order."""

    stops = False

    def __init__(self, moves: Sequence[Move], *, halves: bool = False) -> None:
        self.halves = halves
        self._order = QueueOrder()
        for move in moves:
            self._order.add(move, is_move=True)

    def candidates(self) -> Iterator[OperationId]:
        """As admission asks."""
        return self._order.candidates()

    def started(self, move: Move) -> None:
        """As admission says."""
        self._order.started(move)


ORDERS: dict[str, Callable[[Sequence[Move]], Order]] = {
    "Muster": Ours,
    "skip": lambda moves: ByAge(moves, stops=False),
    "head of line": lambda moves: ByAge(moves, stops=True),
    "halved": lambda moves: Ours(moves, halves=True),
}


# --- the network ----------------------------------------------------------------------------


class _Flow:
    __slots__ = ("doors", "left_mib", "move", "rate_mib_s")

    def __init__(self, move: Move) -> None:
        self.move = move
        self.doors = (("out", move.source), ("in", move.target))
        self.left_mib: float = move.memory_mib
        self.rate_mib_s = 0.0


def share(flows: Sequence[_Flow]) -> None:
    """Max-min fair rates: all grow alike until their link, or the stream itself, is full."""
    at: dict[Door, set[_Flow]] = defaultdict(set)
    for flow in flows:
        for door in flow.doors:
            at[door].add(flow)
    free = dict.fromkeys(at, LINK_MIB_S)
    growing = set(flows)
    while growing:
        fair = {door: free[door] / len(there) for door, there in at.items() if there}
        least = min(fair.values())
        full = [door for door, rate in fair.items() if rate <= least * (1 + 1e-9)]
        settled = {flow for door in full for flow in at[door]}
        if least >= LINK_MIB_S * STREAM:
            settled, least = growing.copy(), LINK_MIB_S * STREAM
        for flow in settled:
            flow.rate_mib_s = least
            for door in flow.doors:
                at[door].discard(flow)
                free[door] -= least
        growing -= settled


def makespan_s(moves: Sequence[Move], limit: int, order: Order) -> float:
    """Seconds until the last move has ended; `limit` moves out of and into each node at once."""
    queued = {move.id: _Flow(move) for move in moves}
    waits = Counter(door for flow in queued.values() for door in flow.doors)
    running: Counter[Door] = Counter()
    full: set[Door] = set()

    def count(flow: _Flow, *, by: int, queue: int) -> None:
        for way, node in flow.doors:
            running[way, node] += by
            waits[way, node] += queue
            for door, other in ((("out", node), ("in", node)), (("in", node), ("out", node))):
                slots = max(1, limit // 2) if order.halves and waits[other] else limit
                (full.add if running[door] >= slots else full.discard)(door)

    now_s = 0.0
    beginning: list[tuple[float, _Flow]] = []  # in the order of their times
    flows: list[_Flow] = []
    while queued or beginning or flows:
        for key in order.candidates():
            flow = queued[key]
            leaves, arrives = flow.doors
            if leaves in full or arrives in full:
                if order.stops:
                    break
                continue
            count(queued.pop(key), by=1, queue=-1)
            order.started(flow.move)
            beginning.append((now_s + FIXED_S, flow))
        ended: list[_Flow] = []
        while not ended:
            share(flows)
            times = [now_s + flow.left_mib / flow.rate_mib_s for flow in flows]
            then_s = min([*times, *(at_s for at_s, _ in beginning[:1])])
            for flow in flows:
                flow.left_mib -= flow.rate_mib_s * (then_s - now_s)
            now_s = then_s
            ended = [flow for flow in flows if flow.left_mib < 1e-6]
            flows = [flow for flow in flows if flow.left_mib >= 1e-6]
            while beginning and beginning[0][0] <= now_s:
                flows.append(beginning.pop(0)[1])
        for flow in ended:
            count(flow, by=-1, queue=0)
    return now_s

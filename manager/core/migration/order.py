"""In which order waiting work is tried: High first, by hand, then who waited enough, then large first.

A look goes through the whole line and starts what has a free place; what has none is passed over, so a full
node holds up nobody else's work. The order decides who is tried first for the same place:

1. Higher priority, always.
2. Work with a hand-made place (`rank`), in that order.
3. Moves that were overtaken `MOST_OVERTAKEN` times, and all that is no move between nodes, by age.
4. Other moves, the largest memory first: a long one that starts last would end alone.

**Overtaken** is a move each time a younger one of its priority, tried before it because it is larger, takes
a place on its source or its target, or the last place of the cluster. Who is passed over because its other
node is full is not overtaken: to hold places for it would block work on other nodes.

**Both ways.** "A node uses all its slots one way only while nothing waits the other way" is kept by the
limits themselves: moves out and moves in are counted apart, and links are full-duplex, so neither takes from
the other. To halve the slots of a node while both ways have work was measured, and makes it slower.

Time of all moves divided by the lower bound, median of five runs of 64 nodes, with 1 / 2 / 4 moves out of and
into each node; Source: `tests/perf/makespan.py`, ``packaging/bench queue``:

=====================  ==================  ==================  ==================  ==================
moves                  this order          by age, passing     by age, head of     this order, slots
                                           over the blocked    line                halved
=====================  ==================  ==================  ==================  ==================
drain of 1 node        1.00 / 1.09 / 1.01  1.00 / 1.10 / 1.00  1.00 / 1.10 / 1.00  1.00 / 1.09 / 1.01
drain of 8 nodes       1.00 / 1.07 / 1.01  1.00 / 1.07 / 1.01  6.60 / 6.96 / 6.33  1.00 / 1.07 / 1.01
rebalance, 1,500       1.00 / 1.07 / 1.01  1.00 / 1.09 / 1.04  6.48 / 3.57 / 1.90  1.00 / 1.53 / 1.03
skewed sources, 800    1.00 / 1.09 / 1.00  1.00 / 1.09 / 1.00  1.53 / 1.29 / 1.05  1.00 / 1.37 / 1.02
=====================  ==================  ==================  ==================  ==================

What is left is the fixed start of each move, which the bound leaves out where links are short.
The decision: ``docs/adr/0015-queue-order.md``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Protocol, TypeVar

from manager.core.ids import NodeId, OperationId

MOST_OVERTAKEN = 16
"""How many younger ones of its priority may take a place before a move because they are larger."""

_BY_HAND, _IN_TURN, _LARGE_FIRST = range(3)
"""The groups inside a priority, in the order in which they are tried."""

Age = tuple[float, int, OperationId]
"""Creation in wall-clock seconds, position in the batch, id: smaller is older."""

Place = tuple[int, int, float, Age]
"""Where it stands: priority, group, figure inside the group, age. Smaller is tried first."""

Door = tuple[int, str, NodeId | None]
"""What moves of one priority meet at: a node's way out or way in."""

_Sorted = TypeVar("_Sorted", Place, Age)


class Waiting(Protocol):
    """What the order reads of waiting work; an `Operation` has it all."""

    @property
    def id(self) -> OperationId:
        """Its name, by which it is answered."""

    @property
    def priority(self) -> int:
        """Larger goes first."""

    @property
    def created_s(self) -> float:
        """When it was asked for."""

    @property
    def order(self) -> int:
        """Its position in its batch."""

    @property
    def source(self) -> NodeId | None:
        """The node that it leaves."""

    @property
    def target(self) -> NodeId | None:
        """The node that it goes to; None while none is chosen: then it could use any."""

    @property
    def memory_mib(self) -> int:
        """What is to be sent."""

    @property
    def rank(self) -> float | None:
        """Its hand-made place, smaller first; None: it has none."""


@dataclass(slots=True)
class _Entry:
    place: Place
    doors: tuple[Door, ...]  # empty: it is no move, so large or small does not matter
    overtaken: int = 0


class QueueOrder:
    """The line of all that waits, kept sorted. Loop thread only.

    A look costs O(n) over n waiting; to add or remove one, O(log n) comparisons. A start costs what it
    overtakes, which is bounded: what was overtaken often enough is not looked at again.
    """

    def __init__(self) -> None:
        self._entries: dict[OperationId, _Entry] = {}
        self._line: list[Place] = []
        self._doors: dict[Door, list[Age]] = {}  # who waits there and can be overtaken, oldest first
        self._due: list[Place] = []  # overtaken for the last time in this look: tried next

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: OperationId) -> bool:
        return key in self._entries

    def add(self, item: Waiting, *, is_move: bool) -> None:
        """Take it into the line, or give it the place that it has now; how often it was overtaken is kept.

        `is_move`: it goes from one node to another. Only such work is reordered; other work is tried by age.
        """
        before = self._entries.get(item.id)
        if before is not None:
            self._leave(before)
        doors: tuple[Door, ...] = ()
        if is_move:
            doors = ((item.priority, "out", item.source), (item.priority, "in", item.target))
        overtaken = before.overtaken if before else 0
        age = (item.created_s, item.order, item.id)
        if item.rank is not None:
            place = (-item.priority, _BY_HAND, item.rank, age)
        elif not is_move or overtaken >= MOST_OVERTAKEN:
            place = (-item.priority, _IN_TURN, 0.0, age)
        else:
            place = (-item.priority, _LARGE_FIRST, -float(item.memory_mib), age)
        self._join(item.id, _Entry(place, doors, overtaken))

    def remove(self, key: OperationId) -> None:
        """It waits no more; nothing happens if it did not wait."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._leave(entry)

    def candidates(self, among: Collection[OperationId] | None = None) -> Iterator[OperationId]:
        """Everything that waits, or those of it, in the order in which to try it. One look at a time.

        The line may change meanwhile: who left is passed over, who joins is for the next look, and who was
        overtaken for the last time comes next.
        """
        entries, due = self._entries, self._due
        due.clear()
        line = self._line
        if among is not None:
            line = sorted(entries[key].place for key in among if key in entries)
        for place in tuple(line):
            while due:
                first = due.pop(0)[-1][-1]
                if first in entries and (among is None or first in among):
                    yield first
            key = place[-1][-1]
            entry = entries.get(key)
            if entry is not None and entry.place is place:
                yield key

    def overtaken(self, key: OperationId) -> int:
        """How often it was overtaken while it waited here."""
        return self._entries[key].overtaken

    def started(self, item: Waiting, *, last_place: bool = False) -> None:
        """It waits no more because it starts; those whose place it took are counted as overtaken.

        `item` has the source and target that it starts with. `last_place`: the cluster's own limit is
        reached with it.
        """
        entry = self._entries.get(item.id)
        if entry is None:
            return
        if entry.doors and entry.place[1] != _BY_HAND:
            for key in self._passed(item, entry.place, last_place):
                self._overtake(key)
        self.remove(item.id)

    def ranks(self, keys: Sequence[OperationId], before: OperationId | None) -> dict[OperationId, float]:
        """The hand-made places to store so that these come, in this order, right before that one.

        None, or one of another priority, means behind all that have a hand-made place. A place by hand goes
        before all that have none, so what stands before it now gets one too. Only changed ones are given.
        """
        found: dict[OperationId, float] = {}
        chosen = [k for k in dict.fromkeys(keys) if k in self._entries]
        chosen.sort(key=self._first)
        for priority, group in groupby(chosen, key=self._first):
            moved = list(group)
            line = [p for p in self._of_priority(priority) if p[-1][-1] not in moved]
            by_hand = sum(p[1] == _BY_HAND for p in line)
            names = [p[-1][-1] for p in line]
            at = names.index(before) if before in names else by_hand
            names[at:at] = moved
            for rank, key in enumerate(names[: max(at, by_hand) + len(moved)]):
                place = self._entries[key].place
                if place[1] != _BY_HAND or place[2] != rank:
                    found[key] = float(rank)
        return found

    # --- inside ----------------------------------------------------------------------------

    def _first(self, key: OperationId) -> int:
        return self._entries[key].place[0]

    def _of_priority(self, first: int) -> list[Place]:
        """All places that begin so."""
        begin = bisect_left(self._line, first, key=itemgetter(0))
        return self._line[begin : bisect_right(self._line, first, key=itemgetter(0))]

    def _join(self, key: OperationId, entry: _Entry) -> None:
        self._entries[key] = entry
        insort(self._line, entry.place)
        if entry.place[1] == _LARGE_FIRST:
            for door in entry.doors:
                insort(self._doors.setdefault(door, []), entry.place[-1])

    def _leave(self, entry: _Entry) -> None:
        _take_out(self._line, entry.place)
        if entry.place[1] == _LARGE_FIRST:
            for door in entry.doors:
                ages = self._doors[door]
                _take_out(ages, entry.place[-1])
                if not ages:
                    del self._doors[door]

    def _passed(self, item: Waiting, place: Place, last_place: bool) -> set[OperationId]:
        """Who is older than this one, would be tried after it, and could use what it takes."""
        age = place[-1]
        if last_place:
            behind = self._line[bisect_right(self._line, place) :]
            older = (p[-1] for p in behind if p[0] == place[0] and p[1] == _LARGE_FIRST and p[-1] < age)
            return {a[-1] for a in older}
        priority = -place[0]
        found: set[OperationId] = set()
        for door in ((priority, "out", item.source), (priority, "in", item.target), (priority, "in", None)):
            for each in self._doors.get(door, ()):
                if each >= age:
                    break
                if self._entries[each[-1]].place > place:
                    found.add(each[-1])
        return found

    def _overtake(self, key: OperationId) -> None:
        entry = self._entries[key]
        entry.overtaken += 1
        if entry.overtaken >= MOST_OVERTAKEN:
            self._leave(entry)
            entry.place = (entry.place[0], _IN_TURN, 0.0, entry.place[-1])
            self._join(key, entry)
            insort(self._due, entry.place)


def _take_out(line: list[_Sorted], what: _Sorted) -> None:
    del line[bisect_left(line, what)]

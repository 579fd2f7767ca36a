"""A journal that ends with the process: for the demo, whose cluster does too."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from manager.core.chronicle import KEPT_EVENTS, ClusterEvent
from manager.core.ids import OperationId
from manager.core.model import ProblemLife
from manager.core.operations import Operation


class MemoryJournal:
    """`Journal` in memory."""

    notices: Sequence[str] = ()

    def __init__(self) -> None:
        self._operations: dict[OperationId, Operation] = {}
        self._events: deque[ClusterEvent] = deque(maxlen=KEPT_EVENTS)
        self._lives: dict[str, ProblemLife] = {}

    async def load(self) -> tuple[Operation, ...]:
        """As `Journal.load`."""
        return left_over(self._operations.values())

    async def commit(self, operations: Sequence[Operation]) -> None:
        """Keep the newest state of each."""
        self._operations.update((operation.id, operation) for operation in operations)

    async def history(self, limit: int) -> tuple[Operation, ...]:
        """The newest ended operations, newest first."""
        ended = [o for o in self._operations.values() if o.ended_s is not None]
        return tuple(sorted(ended, key=lambda o: o.ended_s or 0.0, reverse=True)[:limit])

    async def record(self, events: Sequence[ClusterEvent], lives: Sequence[ProblemLife]) -> None:
        """As `Journal.record`."""
        self._events += events
        self._lives.update((life.key, life) for life in lives)

    async def happened(self, since_s: float, limit: int) -> tuple[ClusterEvent, ...]:
        """As `Journal.happened`."""
        found = [event for event in self._events if event.at_s >= since_s]
        return tuple(found[-limit:])

    async def lives(self) -> tuple[ProblemLife, ...]:
        """As `Journal.lives`."""
        return tuple(self._lives.values())

    async def close(self) -> None:
        """Nothing to close."""


def left_over(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """Of all that a journal has, what `Journal.load` gives, in the order in which it came."""
    known = {each.id: each for each in operations}
    unended = {each.id for each in known.values() if not each.is_over}
    wanted = set(unended)
    for key in unended:
        above = known[key].parent
        while above in known and above not in wanted:
            wanted.add(above)
            above = known[above].parent
    return tuple(each for each in known.values() if each.id in wanted or each.parent in unended)

"""All that waits, in the order in which it is tried, and what of it is to be looked at in this turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from manager.core.ids import OperationId
from manager.core.migration.order import QueueOrder
from manager.core.migration.queue import goes_elsewhere
from manager.core.operations import Operation


class Look(NamedTuple):
    """What is to be looked at, in order."""

    keys: Iterable[OperationId]
    whole: bool  # it is all that waits
    fresh: frozenset[OperationId]  # looked at closely: new here, or what they wait for changed


class Backlog:
    """What waits. An end or a changed limit asks for a look at all of it; a changed VM for one at its own."""

    def __init__(self) -> None:
        self._line = QueueOrder()
        self._fresh: set[OperationId] = set()
        self._whole = False

    def __bool__(self) -> bool:
        return bool(self._line)

    def join(self, operation: Operation) -> None:
        """It waits from now on."""
        self.place(operation)
        self._fresh.add(operation.id)

    def place(self, operation: Operation) -> None:
        """Give it the place that it has now."""
        self._line.add(operation, is_move=goes_elsewhere(operation))

    def leave(self, key: OperationId) -> None:
        """It waits no more, if it did."""
        self._line.remove(key)

    def started(self, operation: Operation, *, last_place: bool) -> None:
        """As `QueueOrder.started`."""
        self._line.started(operation, last_place=last_place)

    def ranks(self, keys: Sequence[OperationId], before: OperationId | None) -> dict[OperationId, float]:
        """As `QueueOrder.ranks`."""
        return self._line.ranks(keys, before)

    def look(self) -> None:
        """All of it is to be looked at: a place or room may be free."""
        self._whole = True

    def look_at(self, key: OperationId) -> None:
        """This one is to be looked at closely."""
        self._fresh.add(key)

    def take_look(self) -> Look | None:
        """What is to be looked at now; None if nothing is."""
        if not self._whole and not self._fresh:
            return None
        whole, self._whole = self._whole, False
        fresh, self._fresh = frozenset(self._fresh), set()
        return Look(self._line.candidates(None if whole else fresh), whole, fresh)

"""Stories as whoever carries out the operations tells them, also in a process beside that one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from manager.core.changes import ChangeSet, LogEntry
from manager.core.cluster import ClusterView
from manager.core.ids import Kind
from manager.services.engine import Engine
from manager.services.ports import Clock
from manager.services.tasks import Tasks

AGAIN_S = 1.0
"""How often the owner is asked for the same story at most."""

KEPT = 200


class Stories:
    """Answers at once with what is known; a client asks the owner meanwhile. Loop thread only."""

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        clock: Clock,
        tell: Callable[[ChangeSet], None],
        tasks: Tasks,
    ) -> None:
        self._engine = engine
        self._view = view
        self._clock = clock
        self._tell = tell
        self._tasks = tasks
        self._known: dict[str, tuple[LogEntry, ...]] = {}
        self._unread: set[str] = set()  # of these it is why they cannot be read
        self._asking: set[str] = set()
        self._again: set[str] = set()

    def of(self, key: str) -> tuple[LogEntry, ...]:
        """A VM's or an operation's story, oldest line first. New lines are told as a change of its object."""
        known = self._known.get(key, ())
        if self._engine.is_owner:  # after what the last owner told, if there was one
            told = () if key in self._unread else known
            since_s = told[-1].at_s if told else 0.0
            return (*told, *(line for line in self._view.story(key) if line.at_s > since_s))
        if key in self._asking:
            self._again.add(key)
        else:
            self._asking.add(key)
            self._tasks.spawn(self._follow(key), "story")
        return known

    def then(self, keys: Sequence[str], act: Callable[[], object]) -> None:
        """Do something when these stories are known: at once in the process that owns the operations."""
        missing = [] if self._engine.is_owner else [key for key in keys if key not in self._known]
        if missing:
            self._tasks.spawn(self._read_then(missing, act), "stories")
        else:
            act()

    async def _read_then(self, keys: Sequence[str], act: Callable[[], object]) -> None:
        for key in keys:
            await self._read(key)
        act()

    async def _follow(self, key: str) -> None:
        try:
            while True:
                self._again.discard(key)
                await self._read(key)
                await self._clock.sleep(AGAIN_S)
                if key not in self._again:
                    return
        finally:
            self._asking.discard(key)

    async def _read(self, key: str) -> None:
        known = self._known.get(key, ())
        if self._engine.is_owner:
            return  # what the last one told stays; the rest is told here
        try:
            lines = await self._engine.story(key)
            self._unread.discard(key)
        except OSError as error:
            lines = known
            if not known:
                lines = (LogEntry(self._clock.now_s(), f"the story cannot be read: {error}"),)
                self._unread.add(key)
        self._known.pop(key, None)  # the newest stand last
        self._known[key] = lines
        while len(self._known) > KEPT:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._unread.discard(oldest)
        if lines != known:
            told = ChangeSet()
            told[Kind.VM if key in self._view.vms else Kind.OPERATION].update(key, ("story",))
            self._tell(told)

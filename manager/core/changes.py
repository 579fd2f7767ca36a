"""What a turn of the core produced: effects for the world, changes for views, transitions for the journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from manager.core.chronicle import KEPT_EVENTS, ClusterEvent, Level, Source, id_at
from manager.core.effects import Effect
from manager.core.ids import Kind, NodeId, OperationId, TraceId, VmId
from manager.core.model import ProblemLife
from manager.core.operations import Operation
from manager.core.reasons import Reason

ALL_FIELDS = frozenset({"*"})
"""In place of attribute names: the object was replaced, look at everything."""


@dataclass(slots=True)
class KindChanges:
    """Changes of the objects of one kind. Keys are ids; values of `updated` are attribute names."""

    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    updated: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, key: str) -> None:
        """The object is new (or came back)."""
        if key in self.removed:
            self.removed.discard(key)
            self.updated[key] = ALL_FIELDS
        else:
            self.added.add(key)

    def remove(self, key: str) -> None:
        """The object is gone."""
        self.updated.pop(key, None)
        if key in self.added:
            self.added.discard(key)
        else:
            self.removed.add(key)

    def update(self, key: str, names: Iterable[str]) -> None:
        """Some attributes of the object have new values."""
        if key not in self.added:
            self.updated[key] = self.updated.get(key, frozenset()) | frozenset(names)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.updated)


class ChangeSet:
    """Changes of every kind; merges with ``|=``."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[Kind, KindChanges] = {}

    def __getitem__(self, kind: Kind) -> KindChanges:
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = KindChanges()
        return found

    def __ior__(self, later: ChangeSet) -> ChangeSet:
        for kind, changes in later._kinds.items():
            mine = self[kind]
            for key in changes.removed:
                mine.remove(key)
            for key in changes.added:
                mine.add(key)
            for key, names in changes.updated.items():
                mine.update(key, names)
        return self

    def __bool__(self) -> bool:
        return any(self._kinds.values())


@dataclass(slots=True, kw_only=True)
class Turn:
    """The accumulator of one `ClusterState.handle`; machines add to it."""

    at_s: float
    trace: TraceId
    effects: list[Effect] = field(default_factory=list)
    changes: ChangeSet = field(default_factory=ChangeSet)
    transitions: dict[OperationId, Operation] = field(default_factory=dict)
    happened: list[ClusterEvent] = field(default_factory=list)
    lives: dict[str, ProblemLife] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the runtime must do: commit `transitions`, then start `effects`; hand `changes` to views.

    What `happened`, and the `lives` of problems, are kept too; nothing waits for that.
    """

    effects: tuple[Effect, ...]
    changes: ChangeSet
    transitions: tuple[Operation, ...]
    happened: tuple[ClusterEvent, ...] = ()
    lives: tuple[ProblemLife, ...] = ()


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of an object's story. `at_s` is wall-clock seconds."""

    at_s: float
    text: str


class Story:
    """Why things are as they are: the last lines of every object's history, and the events of the cluster.

    A line may be about any detail, and is gone with the program; an event matters to more than its object,
    and outlives it.
    """

    LINES = 60

    __slots__ = ("_lines", "_number", "events", "keeps")

    def __init__(self) -> None:
        self._lines: dict[str, list[LogEntry]] = {}
        self._number = 0
        self.events: dict[str, ClusterEvent] = {}
        """What happened, oldest first; of the past what was asked for."""
        self.keeps = False
        """Whether this process records events: only the owner of operations does, others are told."""

    def keep_from(self, number: int) -> None:
        """From now on record events, numbered from here."""
        self.keeps, self._number = True, number

    def record(
        self,
        turn: Turn,
        what: Reason,
        *,
        level: Level = Level.INFORMATION,
        source: Source = Source.HOST,
        why: Reason | None = None,
        node: NodeId | None = None,
        vm: VmId | None = None,
        vm_name: str = "",
        by: Operation | None = None,
        who: str = "",
        problem: str = "",
    ) -> None:
        """Something happened. What a host told is a line of its VM's or node's story too."""
        if source is Source.HOST and (key := vm or node):
            self.tell(key, turn.at_s, f"{what.text}: {why.text}" if why else what.text)
        if not self.keeps:
            return
        self._number += 1
        event = ClusterEvent(
            id=id_at(turn.at_s, self._number),
            at_s=turn.at_s,
            level=level,
            source=source,
            what=what,
            why=why,
            node=node,
            vm=vm,
            vm_name=vm_name,
            who=who or (by.author if by else ""),
            operation=by.id if by else None,
            problem=problem,
        )
        turn.happened.append(event)
        self._keep(event, turn)

    def hear(self, events: Iterable[ClusterEvent], turn: Turn) -> None:
        """Take over what a journal, or the owner of operations, says has happened."""
        new = [event for event in events if event.id not in self.events]
        past = bool(self.events) and any(event.id < next(reversed(self.events)) for event in new)
        if past:
            self.events.update((event.id, event) for event in new)
            kept = sorted(self.events)[-KEPT_EVENTS:]
            self.events = {key: self.events[key] for key in kept}
            for event in new:
                if event.id in self.events:
                    turn.changes[Kind.EVENT].add(event.id)
        else:
            for event in sorted(new, key=lambda event: event.id):
                self._keep(event, turn)

    def _keep(self, event: ClusterEvent, turn: Turn) -> None:
        self.events[event.id] = event
        turn.changes[Kind.EVENT].add(event.id)
        if len(self.events) > KEPT_EVENTS:
            oldest = next(iter(self.events))
            del self.events[oldest]
            turn.changes[Kind.EVENT].remove(oldest)

    def tell(self, key: str, at_s: float, text: str) -> None:
        """Add a line to an object's story."""
        lines = self._lines.setdefault(key, [])
        lines.append(LogEntry(at_s, text))
        if len(lines) > self.LINES:
            del lines[0]

    def forget(self, key: str) -> None:
        """An object is no more, or nobody will ask for it."""
        self._lines.pop(key, None)

    def of(self, *keys: str) -> tuple[LogEntry, ...]:
        """The lines of these objects together, oldest first."""
        found = [line for key in keys for line in self._lines.get(key, ())]
        return tuple(sorted(found, key=lambda line: line.at_s))

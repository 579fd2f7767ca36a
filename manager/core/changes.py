"""What a turn of the core produced: effects for the world, changes for views, transitions for the journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from manager.core.effects import Effect
from manager.core.ids import Kind, OperationId, TraceId
from manager.core.operations import Operation

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the runtime must do: commit `transitions`, then start `effects`; hand `changes` to views."""

    effects: tuple[Effect, ...]
    changes: ChangeSet
    transitions: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of an object's story. `at_s` is wall-clock seconds."""

    at_s: float
    text: str


class Story:
    """Why things are as they are: the last lines of every object's history."""

    LINES = 60

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[str, list[LogEntry]] = {}

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

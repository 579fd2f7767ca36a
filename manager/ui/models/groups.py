"""Rows in groups: which row is in which, in what order they stand, which are open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from manager.core.cluster import ClusterView
from manager.core.query.grouping import (
    KNOWN,
    Figures,
    GroupKey,
    group_key,
    group_order,
    group_title,
)
from manager.core.query.spec import FieldKind, FieldSpec

_QUICK = (str, int, tuple)
"""Values that are looked up faster than the key of their group is made."""

_SPARE = 1000
"""How many groups that have no rows any more are kept before they are forgotten."""


def plain(text: str) -> str:
    """A host's text made fit for one line: no control characters, no line breaks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


class Row:
    """One object: where it is from, its place in the list, and what was computed of it."""

    __slots__ = ("band", "cells", "hay", "home", "id", "item", "key", "keys", "pos", "view")

    def __init__(self, key: str, item: Any, view: ClusterView, own: str) -> None:
        self.key = key  # in the list
        self.id = own  # in its cluster
        self.item = item
        self.view = view  # through which its fields are read
        self.pos = -1  # -1: not shown
        self.cells: dict[int, str] = {}  # texts by column
        self.keys: dict[str, Any] = {}  # sort keys by field name
        self.hay: str | None = None  # lower-case texts of the searchable fields
        self.band: Group | None = None  # the group of its present value, once asked
        self.home: Group | None = None  # the group in which it is shown, or would be if that were open


class Group:
    """A line over the rows of one value. Lives as long as its list is grouped by that field."""

    __slots__ = ("figures", "is_open", "key", "order", "pos", "rows", "title")

    def __init__(self, key: GroupKey, title: str, order: Any, is_open: bool) -> None:
        self.key = key
        self.title = title
        self.order = order
        self.is_open = is_open
        self.pos = -1
        self.rows: list[Row] = []  # in the order of the list
        self.figures: Figures | None = None  # until asked


Line = Row | Group


class Grouping:
    """The groups of one list by one field."""

    def __init__(self, spec: FieldSpec, closed: Iterable[GroupKey] = ()) -> None:
        self.spec = spec
        self.closed = set(closed)
        self.groups: list[Group] = []  # those that have rows, in order
        self._known: dict[GroupKey, Group] = {}
        self._by_value: dict[str | int | tuple[Any, ...], Group] = {}  # of values that are quick to look up
        # Spans grow by themselves, some fields follow from other rows: what was found last would lie.
        self._stays = not spec.volatile and spec.kind is not FieldKind.SECONDS

    def band(self, row: Row) -> Group:
        """The group to which a row belongs now."""
        value = self.spec.get(row.view, row.item)
        simple = isinstance(value, _QUICK)
        found = self._by_value.get(value) if simple else None
        if found is None:
            key = group_key(self.spec, value)
            if not key.value.isprintable():
                key = GroupKey(key.standing, plain(key.value))
            found = self._known.get(key)
            if found is None:
                order = group_order(self.spec, row.view, row.item, key)
                found = Group(key, group_title(self.spec, key), order, key not in self.closed)
                self._known[key] = found
            if simple:
                self._by_value[value] = found
        if self._stays:
            row.band = found
        return found

    def has_moved(self, row: Row) -> bool:
        """Whether a changed row is shown in a group that is not its own any more."""
        return self._stays and row.home is not None and self.band(row) is not row.home

    def place(self, rows: Sequence[Row], everything: Sequence[Row], down: bool) -> None:
        """Put these rows, which are in order, in their groups; `down`: the groups' order is turned round."""
        for group in self.groups:
            for row in group.rows:
                row.home = None
            group.rows = []
            group.figures = None
        if max(len(self._known), len(self._by_value)) > len(everything) + _SPARE:
            self._known, self._by_value = {}, {}
            for row in everything:
                row.band = None
        used: list[Group] = []
        for row in rows:
            group = row.band or self.band(row)
            if not group.rows:
                used.append(group)
            group.rows.append(row)
            row.home = group
        known = [group for group in used if group.key.standing == KNOWN]
        known.sort(key=lambda group: (group.order, group.key.value), reverse=down)
        rest = sorted((g for g in used if g.key.standing != KNOWN), key=lambda g: g.key.standing)
        self.groups = known + rest
        if not self._stays:
            self._known, self._by_value = {group.key: group for group in self.groups}, {}

    def set_open(self, group: Group, is_open: bool) -> None:
        """Open or close a group."""
        group.is_open = is_open
        (self.closed.discard if is_open else self.closed.add)(group.key)

    def lines(self) -> list[Line]:
        """What is shown: each group's line, and its rows if it is open."""
        lines: list[Line] = []
        for group in self.groups:
            lines.append(group)
            if group.is_open:
                lines += group.rows
        return lines

    def drop_lost(self) -> bool:
        """Leave out rows that are gone, nothing else. Returns whether a group has none any more."""
        for group in self.groups:
            if any(row.item is None for row in group.rows):
                group.rows = [row for row in group.rows if row.item is not None]
                group.figures = None
        return any(not group.rows for group in self.groups)

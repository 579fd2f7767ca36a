"""Views: a query under a name, with the columns, order and groups in which its list is shown.

A view belongs to a kind of object, not to a cluster. What it leaves open stays as the list has it; one that
says its columns says all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS
from manager.core.query.filter import matcher
from manager.core.query.parser import parse
from manager.core.query.query import QueryError
from manager.core.query.suggest import did_you_mean

MAX_NAME = 60
MAX_VIEWS = 200
MAX_WIDTH_PX = 4000
MAX_SORT = 8

ALL: Final = "all"
"""Id of the view of everything, of any kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a list shows, and how."""

    id: str
    name: str
    kind: Kind
    query: str = ""
    columns: tuple[tuple[str, int], ...] = ()  # field, width in pixels; 0: as wide as what it shows
    sort: tuple[tuple[str, bool], ...] = ()  # field, whether downwards; what counts most first
    group: str = ""  # field

    @property
    def is_built_in(self) -> bool:
        """It came with the program and cannot be changed."""
        return self in BUILT_IN[self.kind]


_PRESETS: dict[Kind, tuple[View, ...]] = {
    Kind.VM: (
        View(id=ALL, name="All", kind=Kind.VM),
        View(id="running", name="Running", kind=Kind.VM, query="is:running"),
        View(id="attention", name="Needs attention", kind=Kind.VM, query="is:attention"),
        View(id="unmovable", name="Cannot be moved", kind=Kind.VM, query="is:unmovable"),
        View(id="moving", name="Moving", kind=Kind.VM, query="is:migrating"),
        View(id="by-node", name="By node", kind=Kind.VM, group="owner"),
        View(id="high", name="High priority", kind=Kind.VM, query="priority>=high"),
        View(
            id="changed", name="Recently changed", kind=Kind.VM, query="changed:1h", sort=(("changed", True),)
        ),
    ),
    Kind.NODE: (
        View(id=ALL, name="All", kind=Kind.NODE),
        View(id="silent", name="Not up", kind=Kind.NODE, query="not is:up"),
        View(id="paused", name="Paused", kind=Kind.NODE, query="is:paused"),
        View(id="fullest", name="Least memory free", kind=Kind.NODE, sort=(("memory_free_mib", False),)),
    ),
    Kind.OPERATION: (
        View(id=ALL, name="All", kind=Kind.OPERATION),
        View(id="failed", name="Failed", kind=Kind.OPERATION, query="is:failed"),
        View(id="by-state", name="By state", kind=Kind.OPERATION, group="state"),
    ),
    Kind.PROBLEM: (
        View(id=ALL, name="All", kind=Kind.PROBLEM),
        View(id="new", name="New", kind=Kind.PROBLEM, query="is:new"),
    ),
    Kind.POOL: (
        View(id=ALL, name="All", kind=Kind.POOL),
        View(id="missing", name="Missing on a node", kind=Kind.POOL, query="is:missing"),
        View(id="full", name="Nearly full", kind=Kind.POOL, query="is:full"),
    ),
    Kind.NETWORK: (
        View(id=ALL, name="All", kind=Kind.NETWORK),
        View(id="missing", name="Missing on a node", kind=Kind.NETWORK, query="is:missing"),
    ),
    Kind.EVENT: (
        View(id=ALL, name="All", kind=Kind.EVENT),
        View(id="errors", name="Errors", kind=Kind.EVENT, query="is:error"),
        View(id="attention", name="Warnings and errors", kind=Kind.EVENT, query="is:attention"),
    ),
}

BUILT_IN: dict[Kind, tuple[View, ...]] = {
    kind: _PRESETS.get(kind, (View(id=ALL, name="All", kind=kind),)) for kind in Kind
}
"""Views that come with the program, in their order."""

_OWN = re.compile(r"own-([1-9][0-9]{0,5})")


def check(view: View) -> None:
    """Refuse a view that cannot be shown.

    Raises:
        UserError: Says which part of it is wrong, where, and what was perhaps meant. Nothing was changed.
    """
    where = f"View “{view.name}”" if is_name(view.name) else "View"
    if not is_name(view.name):
        raise UserError(f"The name of a view has 1 to {MAX_NAME} printable characters, not {view.name!r}.")
    try:
        matcher(view.query, view.kind)
    except QueryError as error:
        raise UserError(f"{where}, query: {error.pointing(view.query)}") from None
    for part, names in (
        ("columns", [name for name, _ in view.columns]),
        ("sort", [name for name, _ in view.sort]),
        ("group", [view.group] if view.group else []),
    ):
        for name in names:
            if name not in FIELDS[view.kind]:
                near = did_you_mean(name, FIELDS[view.kind])
                raise UserError(f"{where}, {part}: {view.kind.plural} have no field {name}.{near}")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{where}, {part}: {twice} stands there twice.")
    if len(view.sort) > MAX_SORT:
        raise UserError(f"{where}, sort: at most {MAX_SORT} fields, not {len(view.sort)}.")
    wrong = next((width for _, width in view.columns if not 0 <= width <= MAX_WIDTH_PX), None)
    if wrong is not None:
        raise UserError(f"{where}, columns: a width is 0 to {MAX_WIDTH_PX} pixels, not {wrong}.")


def is_name(text: str) -> bool:
    """Whether a view can be called so."""
    return 1 <= len(text) <= MAX_NAME and text.isprintable() and text == text.strip()


def same_query(one: str, other: str) -> bool:
    """Whether two texts ask for the same, however they are written."""
    try:
        return parse(one) == parse(other)
    except QueryError:
        return one.strip() == other.strip()


def differs(view: View, now: View) -> bool:
    """Whether what is shown now is not what the view says; what it leaves open never differs."""
    if not same_query(view.query, now.query):
        return True
    if (view.sort or view.columns) and view.sort != now.sort:
        return True
    if (view.group or view.columns) and view.group != now.group:
        return True
    if not view.columns:
        return False
    if [name for name, _ in view.columns] != [name for name, _ in now.columns]:
        return True
    return any(
        one and other and one != other for (_, one), (_, other) in zip(view.columns, now.columns, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Views:
    """A user's own views, in their order, and the one the window begins with."""

    own: tuple[View, ...] = ()
    start: tuple[Kind, str] | None = None

    @classmethod
    def restored(cls, views: Iterable[View], start: tuple[Kind, str] | None = None) -> Views:
        """As they were stored, whatever is wrong with them: they say so when they are chosen."""
        own: list[View] = []
        for view in views:
            own.append(_with_id(view, {each.id for each in own}))
        return cls(tuple(own), start)

    def of(self, kind: Kind) -> tuple[View, ...]:
        """All views of a kind: those that come with the program, then the user's."""
        return *BUILT_IN[kind], *(view for view in self.own if view.kind is kind)

    def get(self, kind: Kind, key: str) -> View | None:
        """A view by its id."""
        return next((view for view in self.of(kind) if view.id == key), None)

    def named(self, name: str, kind: Kind | None = None) -> View:
        """A view by its name, upper and lower case being one; without a kind, of whichever it is.

        Raises:
            UserError: There is none, or there are some of several kinds.
        """
        kinds = [kind] if kind is not None else list(Kind)
        every = [view for each in kinds for view in self.of(each)]
        found = [view for view in every if view.name.lower() == name.lower()]
        if not found:
            of = f" of {kind.plural}" if kind is not None else ""
            near = did_you_mean(name, dict.fromkeys(view.name for view in every))
            raise UserError(f"There is no view {name!r}{of}.{near}")
        if len(found) > 1:
            kinds_text = " and ".join(view.kind.plural for view in found)
            raise UserError(f"There are views {found[0].name!r} of {kinds_text}; say which with --kind.")
        return found[0]

    def free_name(self, kind: Kind, name: str) -> str:
        """The name, with a number behind it if it is taken."""
        taken = {view.name.lower() for view in self.of(kind)}
        found, number = name, 2
        while found.lower() in taken:
            tail = f" {number}"
            found, number = name[: MAX_NAME - len(tail)].rstrip() + tail, number + 1
        return found

    def add(self, view: View, at: int | None = None) -> tuple[Views, View]:
        """With a further own view, last or at a place among the own ones; it gets an id if its own is taken.

        Raises:
            UserError: It is wrong, its name is taken, or there are too many.
        """
        check(view)
        self._check_free(view.kind, view.name)
        if len(self.own) >= MAX_VIEWS:
            raise UserError(f"There are {MAX_VIEWS} views of your own already; delete one first.")
        view = _with_id(view, {each.id for each in self.own})
        place = len(self.own) if at is None else max(0, min(at, len(self.own)))
        return replace(self, own=(*self.own[:place], view, *self.own[place:])), view

    def put(self, view: View) -> Views:
        """With this in place of the own view of its id.

        Raises:
            UserError: It is wrong, its new name is taken, or there is none of that id.
        """
        self._place(view)
        check(view)
        self._check_free(view.kind, view.name, but=view.id)
        return replace(self, own=tuple(view if each.id == view.id else each for each in self.own))

    def remove(self, view: View) -> Views:
        """Without an own view; the window begins with it no more."""
        place = self._place(view)
        start = None if self.start == (view.kind, view.id) else self.start
        return Views((*self.own[:place], *self.own[place + 1 :]), start)

    def move(self, view: View, step: int) -> Views:
        """With an own view that many places further down (or up) among those of its kind."""
        self._place(view)
        mine = [each for each in self.own if each.kind is view.kind]
        at = next(place for place, each in enumerate(mine) if each.id == view.id)
        mine.insert(max(0, min(at + step, len(mine) - 1)), mine.pop(at))
        order = iter(mine)
        return replace(self, own=tuple(next(order) if each.kind is view.kind else each for each in self.own))

    def duplicate(self, view: View, name: str | None = None) -> tuple[Views, View]:
        """With a copy of any view as an own one, behind it if it is an own one itself."""
        name = name if name is not None else self.free_name(view.kind, f"{view.name[: MAX_NAME - 5]} copy")
        at = None if view.is_built_in else self._place(view) + 1
        return self.add(replace(view, id="", name=name), at)

    def begin_with(self, view: View | None) -> Views:
        """The window begins with it; None: with what it showed last."""
        return replace(self, start=(view.kind, view.id) if view is not None else None)

    def bring_in(self, views: Iterable[View]) -> tuple[Views, tuple[View, ...]]:
        """With views from elsewhere, all or none; a name that is taken gets a number."""
        found, added = self, []
        for view in views:
            check(view)
            found, made = found.add(replace(view, id="", name=found.free_name(view.kind, view.name)))
            added.append(made)
        return found, tuple(added)

    def _check_free(self, kind: Kind, name: str, but: str = "") -> None:
        if any(view.name.lower() == name.lower() and view.id != but for view in self.of(kind)):
            raise UserError(f"There is a view {name!r} of {kind.plural} already.")

    def _place(self, view: View) -> int:
        place = next(
            (i for i, each in enumerate(self.own) if (each.kind, each.id) == (view.kind, view.id)), -1
        )
        if place < 0:
            built = self.get(view.kind, view.id)
            raise UserError(
                f"{built.name!r} comes with Muster and stays as it is; duplicate it to have your own."
                if built is not None
                else f"The view {view.name!r} is not there any more."
            )
        return place


def _with_id(view: View, taken: set[str]) -> View:
    if _OWN.fullmatch(view.id) and view.id not in taken:
        return view
    numbers = (int(found[1]) for key in taken if (found := _OWN.fullmatch(key)))
    return replace(view, id=f"own-{max(numbers, default=0) + 1}")

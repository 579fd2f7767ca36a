"""A user's own views in the `ViewStore`, and as files for others. Per user: a view serves every cluster."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query.views import View, Views
from manager.services.ports import ViewStore

_log = logging.getLogger(__name__)

NAME = "saved-views"
VERSION = 1
"""Raised with every part that is added: what an older program does not know it would drop."""

MAX_FILE_BYTES = 1 << 20


class _StoredView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    kind: Kind
    id: str = ""
    query: str = ""
    columns: list[tuple[str, int]] = []
    sort: list[tuple[str, bool]] = []
    group: str = ""

    @classmethod
    def of(cls, view: View, *, with_id: bool) -> _StoredView:
        return cls(
            name=view.name,
            kind=view.kind,
            id=view.id if with_id else "",
            query=view.query,
            columns=list(view.columns),
            sort=list(view.sort),
            group=view.group,
        )

    def view(self) -> View:
        return View(
            id=self.id,
            name=self.name,
            kind=self.kind,
            query=self.query,
            columns=tuple(self.columns),
            sort=tuple(self.sort),
            group=self.group,
        )


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    muster_views: int
    views: list[_StoredView]
    start: tuple[Kind, str] | None = None


class _Head(msgspec.Struct, frozen=True):
    muster_views: int


class Newer(UserError):
    """Written by a newer Muster; left as it is."""


def encode(views: Views) -> bytes:
    """All of a user's views, as they are stored."""
    return _json(_Stored(VERSION, [_StoredView.of(v, with_id=True) for v in views.own], views.start))


def decode(data: bytes) -> Views:
    """What `encode` wrote. A view that cannot be shown any more is kept: it says so when it is chosen.

    Raises:
        Newer: A newer Muster wrote it.
        UserError: It is something else.
    """
    stored = _read(data, "The saved views")
    return Views.restored((each.view() for each in stored.views), stored.start)


def file_of(views: Iterable[View]) -> bytes:
    """Views as a file for others."""
    return _json(_Stored(VERSION, [_StoredView.of(view, with_id=False) for view in views]))


def from_file(data: bytes, name: str) -> tuple[View, ...]:
    """The views of such a file, unchecked.

    Raises:
        UserError: It is no such file, or of a newer Muster; names the file.
    """
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{name} is larger than 1 MiB: no file of views. Nothing was imported.")
    return tuple(each.view() for each in _read(data, name).views)


def read_file(path: Path) -> tuple[View, ...]:
    """The views of a file. Blocks for one small file.

    Raises:
        UserError: It cannot be read, or is no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    return from_file(data, str(path))


def write_file(path: Path, views: Iterable[View]) -> None:
    """Write views to a file. Blocks for one small file.

    Raises:
        UserError: It cannot be written.
    """
    try:
        path.write_bytes(file_of(views))
    except OSError as error:
        raise UserError(f"{path} was not written: {error.strerror or error}.", exit_code=1) from None


class SavedViews:
    """Reads anew before each change, so that what another window or a command saved is never lost."""

    def __init__(self, store: ViewStore) -> None:
        self._store = store

    def read(self) -> Views:
        """The views as they are stored now; of what cannot be read a copy is kept beside it.

        Raises:
            Newer: A newer Muster wrote them: they stay as they are.
        """
        data = self._store.read(NAME)
        if data is None:
            return Views()
        try:
            return decode(data)
        except Newer:
            raise
        except UserError as error:
            kept = f"{NAME}-broken-{zlib.crc32(data):08x}"
            _log.warning("%s. A copy is kept as %s.", error, kept)
            self._store.write(kept, data)
            return Views()

    def change(self, make: Callable[[Views], Views]) -> Views:
        """Read, change, store.

        Raises:
            UserError: From `make`; or they could not be stored. Nothing was changed.
        """
        made = make(self.read())
        data = encode(made)
        self._store.write(NAME, data)
        if self._store.read(NAME) != data:
            raise UserError("The views were not saved: their file cannot be written.", exit_code=1)
        return made


def _read(data: bytes, what: str) -> _Stored:
    try:
        version = msgspec.json.decode(data, type=_Head).muster_views
        if version > VERSION:
            raise Newer(
                f"{what}: written by a newer Muster (version {version}; this one reads up to {VERSION}). "
                "Nothing was changed."
            )
        return msgspec.json.decode(data, type=_Stored)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UserError(f"{what}: not views that Muster can read: {error}") from None


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"

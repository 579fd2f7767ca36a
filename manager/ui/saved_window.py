"""The window's layout as it is remembered."""

from __future__ import annotations

import msgspec

from manager.services.ports import ViewStore

_NAME = "window"


class SavedWindow(msgspec.Struct, frozen=True):
    """What was chosen; sizes in pixels."""

    geometry: str = ""
    across: list[int] = []
    down: list[int] = []
    details: list[int] = []
    theme: str = "system"
    density: str = "usual"
    tree: bool = True
    actions: bool = True
    panes: bool = True
    page: str = "roles"


def read(views: ViewStore) -> SavedWindow:
    """As it was left; what cannot be read is as new."""
    data = views.read(_NAME)
    if data is None:
        return SavedWindow()
    try:
        return msgspec.json.decode(data, type=SavedWindow)
    except msgspec.MsgspecError:
        return SavedWindow()


def write(views: ViewStore, saved: SavedWindow) -> None:
    """For the next time."""
    views.write(_NAME, msgspec.json.encode(saved))

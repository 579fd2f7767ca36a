"""What the command line tells the window. No Qt here: it is read before Qt is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

THEMES = ("system", "light", "dark")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuiOptions:
    """How the window opens. None: as it was when it was last closed."""

    page: str | None = None  # overview, roles, nodes, queue
    theme: str | None = None  # one of THEMES
    size: tuple[int, int] | None = None  # width and height in device-independent pixels
    screenshot: Path | None = None  # make a picture of the window and end

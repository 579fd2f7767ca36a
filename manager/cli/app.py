"""What the command line is given: the world and the window, built by bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import click

    from manager.core.model import ClusterConfig
    from manager.services.event_log import EventLog
    from manager.services.ports import UserUnits
    from manager.services.workspace import Adapters

PAGES = ("overview", "roles", "nodes", "storage", "networks", "events", "queue")
THEMES = ("system", "light", "dark")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions:
    """How the window opens. None: as it was when it was last closed."""

    page: str | None = None  # one of PAGES
    theme: str | None = None  # one of THEMES
    size: tuple[int, int] | None = None  # width and height in device-independent pixels
    screenshot: Path | None = None  # make a picture of the window and end


class BuildAdapters(Protocol):
    """Builds the world behind the ports.

    `reading`: for a command that only looks. It never becomes the owner of a cluster's operations, so that
    looking starts nothing that an earlier program left in the journal.

    Raises:
        UserError: A folder of the user's cannot be used.
    """

    def __call__(self, event_log: EventLog | None = None, *, reading: bool = False) -> Adapters:
        """The adapters for this user."""
        ...


RunWindow = Callable[["Adapters", "Sequence[tuple[ClusterConfig, Path | None]]", WindowOptions], int]
"""Opens the window on these clusters (each with its file, if it has one) and runs it; gives the exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything outside the command line that it may use."""

    adapters: BuildAdapters
    run_window: RunWindow
    lab_group: Callable[[], click.Group]  # imports what the lab needs
    units: Callable[[], UserUnits]
    version: str

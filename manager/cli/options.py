"""Options that may stand anywhere on the command line, and commands that understand them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from manager.core.query import values

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

DEFAULT_TIMEOUT_S = 20.0

GRACE_S = 3.0
"""How long a node may stay silent if all others were read and the command does not need it."""


@dataclass(slots=True)
class Settings:
    """What the everywhere options say, gathered from all places where they stand."""

    cluster: str | None = None
    demo: str | None = None
    from_dump: str | None = None
    connect: tuple[str, ...] = ()
    all_clusters: bool = False
    as_json: bool = False
    timeout_s: float | None = None  # None: the default, and less for nodes that are not needed
    log_json: Path | None = None
    debug: bool = False

    @property
    def names_cluster(self) -> bool:
        """Whether an option says which cluster is meant."""
        return bool(self.cluster or self.demo or self.connect or self.from_dump)


def settings_of(ctx: click.Context) -> Settings:
    """The settings of this run."""
    return ctx.find_root().ensure_object(Settings)


class Seconds(click.ParamType[float]):
    """A number of seconds from a smallest one upwards."""

    name = "seconds"

    def __init__(self, *, above_zero: bool) -> None:
        self._above_zero = above_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse what is no number, not finite or too small."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = float("nan")
        if not (seconds > 0 or (seconds == 0 and not self._above_zero)) or seconds == float("inf"):
            least = "above 0" if self._above_zero else "from 0"
            self.fail(f"{value!r}: needs a number of seconds {least}, for example 2.5", param, ctx)
        return seconds


class Span(click.ParamType[float]):
    """A time such as ``90s``, ``30min``, ``2h`` or ``1d 12h``, in seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse what is none, or is no time at all."""
        if isinstance(value, int | float):
            return float(value)
        seconds = span_s(str(value))
        if seconds is None:
            self.fail(f"{value!r}: needs a time, for example 90s, 30min, 2h or 1d 12h", param, ctx)
        return seconds


def span_s(text: str) -> float | None:
    """The seconds of a time in words; None if it is none."""
    seconds = values.span_s(text)
    return seconds if seconds is not None and 0 < seconds < 1e9 else None


class Since(click.ParamType[datetime]):
    """A moment: how long ago, a time of day that is past, or a date and time. Local unless it says a zone."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Refuse what is none."""
        if isinstance(value, datetime):
            return value
        found = values.since(str(value), datetime.now().timestamp())
        if found is None:
            self.fail(
                f"{value!r}: needs how long ago (2h), a time of day (02:00) or a date (2026-03-01T02:00)",
                param,
                ctx,
            )
        return datetime.fromtimestamp(found).astimezone()


def _gather(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep a value that was given; an inner place wins over an outer one."""
    if value is None or value == () or value is False:
        return
    settings = settings_of(ctx)
    assert param.name is not None
    if param.name == "connect":
        value = (*settings.connect, *value)
    setattr(settings, param.name, value)


class Everywhere(click.Option):
    """An option that every command has; its value goes to the `Settings`."""

    def __init__(self, *names: str, **attributes: Any) -> None:
        super().__init__(list(names), expose_value=False, callback=_gather, **attributes)


def cluster_options(complete_cluster: Callable[..., Any]) -> list[click.Option]:
    """Fresh options that say which cluster is meant."""
    return [
        Everywhere(
            "--cluster",
            metavar="FILE|NAME",
            shell_complete=complete_cluster,
            help="The cluster: a configured one's name, or a cluster file. Default: $MUSTER_CLUSTER, else "
            "the only configured one, else the demo.",
        ),
        Everywhere("--demo", metavar="NODESxVMS", help="A simulated cluster of this size, for example 4x40."),
        Everywhere(
            "--from-dump",
            metavar="FILE",
            help="A cluster as muster cluster dump wrote it down: to look and to plan, no host is touched.",
        ),
        Everywhere(
            "--connect",
            multiple=True,
            metavar="URI...",
            help="libvirt hosts without a cluster file, for example qemu+ssh://root@n1/system. "
            "Several may follow each other.",
        ),
        Everywhere(
            "--all-clusters",
            is_flag=True,
            default=None,
            help="All configured clusters together: for vm, node, storage and network list, for events, and "
            "for the window.",
        ),
    ]


def output_options() -> list[click.Option]:
    """Fresh options for every command, whether it has to do with a cluster or not."""
    return [
        Everywhere("--json", "as_json", is_flag=True, default=None, help="Print JSON: an array of objects."),
        Everywhere(
            "--timeout",
            "timeout_s",
            type=Seconds(above_zero=True),
            metavar="SECONDS",
            help=f"How long connecting and reading may take; by default {DEFAULT_TIMEOUT_S:g}, and "
            f"{GRACE_S:g} for a silent node that is not needed. Actions are not bounded by it.",
        ),
        Everywhere(
            "--log-json",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Append one JSON record per event to this file.",
        ),
        Everywhere(
            "--debug",
            is_flag=True,
            default=None,
            help="Log more on standard error, and show where an internal error came from.",
        ),
    ]


def spread_uris(args: Sequence[str]) -> list[str]:
    """``--connect A B`` as ``--connect A --connect B``: one option may be followed by several URIs."""
    spread: list[str] = []
    connecting = False
    for place, arg in enumerate(args):
        if arg == "--":
            return spread + list(args[place:])
        if connecting and _URI.match(arg) and spread[-1] != "--connect":
            spread.append("--connect")
        elif arg == "--connect" or arg.startswith("--connect="):
            connecting = True
        elif not (connecting and spread[-1] == "--connect"):
            connecting = False
        spread.append(arg)
    return spread


class Command(click.Command):
    """A command whose help lists what is its own before what every command has."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Understand several URIs after one ``--connect``."""
        return super().parse_args(ctx, spread_uris(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two sections."""
        params = [p for p in self.get_params(ctx) if not isinstance(p, click.Argument)]
        for title, shared in (("Options", False), ("Everywhere", True)):
            records = [p.get_help_record(ctx) for p in params if isinstance(p, Everywhere) is shared]
            lines = [record for record in records if record is not None]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)


class Group(Command, click.Group):
    """A group of commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of their declaration, which is that of the menus."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Its commands first: they are what one looks for."""
        self.format_commands(ctx, formatter)
        Command.format_options(self, ctx, formatter)


def add_everywhere(command: click.Command, complete_cluster: Callable[..., Any]) -> None:
    """Give a command and all below it the everywhere options."""
    command.params += [*cluster_options(complete_cluster), *output_options()]
    if isinstance(command, click.Group):
        for below in command.commands.values():
            add_everywhere(below, complete_cluster)

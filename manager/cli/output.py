"""What is printed: results on standard output, everything else on standard error, nothing untrusted raw."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import click

_SUSPECT = re.compile("[^ -~\n]")
_CONTROL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""A text from a host, safe for a terminal: control and direction characters become ``\x1b``."""
    return _SUSPECT.sub(_escaped, text).replace("\n", " ")


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if unicodedata.category(char) not in _CONTROL:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _json_escaped(found: re.Match[str]) -> str:
    char = found[0]
    if unicodedata.category(char) not in _CONTROL:
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def print_json(rows: Sequence[dict[str, Any]]) -> None:
    """An array of objects, readable, and safe to look at on a terminal too."""
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    click.echo(_SUSPECT.sub(_json_escaped, text))


def json_line(row: dict[str, Any]) -> str:
    """One object on one line, safe to look at on a terminal too."""
    return _SUSPECT.sub(_json_escaped, json.dumps(row, ensure_ascii=False))


def say(text: str) -> None:
    """One diagnostic on standard error; further lines are indented below it."""
    click.echo(as_said(text), err=True)


def as_said(text: str) -> str:
    """A diagnostic as it is shown."""
    return "muster: " + "\n  ".join(printable(line) for line in text.splitlines())


class StderrHandler(logging.Handler):
    """Log records as diagnostics; the same one again is left out."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        text = self.format(record)
        text = text if record.levelno >= logging.WARNING else f"{record.name}: {text}"
        if text != self._last:
            self._last = text
            with contextlib.suppress(OSError):  # nobody reads it any more
                say(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table. `shrinks`: on a narrow terminal it gives way first."""

    title: str
    right: bool = False
    shrinks: bool = False


_STYLES = {
    "Running": "green",
    "Up": "green",
    "done": "green",
    "Online": "green",
    "Partly": "yellow",
    "Offline": "red",
    "Down": "red",
    "Off": "dim",
    "Saved": "blue",
    "Paused": "yellow",
    "running": "yellow",
    "accepted": "yellow",
    "skipped": "yellow",
    "Connecting": "yellow",
    "Crashed": "red",
    "failed": "red",
    "Login failed": "red",
    "Incompatible": "red",
    "Unknown": "magenta",
}
"""Colours of states, by their first words; the word itself always stands there too."""

_STATES = ("Status", "Result")


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """A table: fitted and coloured on a terminal, else whole and plain."""
    lines = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, lines)
    else:
        _print_plain(columns, lines)


def _print_plain(columns: Sequence[Column], lines: list[list[str]]) -> None:
    from rich.cells import cell_len

    table = [[column.title for column in columns], *lines]
    widths = [max(cell_len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        cells = []
        for column, width, cell in zip(columns, widths, line, strict=True):
            space = " " * (width - cell_len(cell))
            cells.append(space + cell if column.right else cell + space)
        click.echo("  ".join(cells).rstrip())


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, width: int) -> str:
    """A table as it is shown on a terminal of that width."""
    from io import StringIO

    into = StringIO()
    _print_rich(columns, [[printable(cell) for cell in row] for row in rows], into=into, width=width)
    return into.getvalue()


def _print_rich(
    columns: Sequence[Column], lines: list[list[str]], *, into: TextIO | None = None, width: int | None = None
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=column.shrinks,
            overflow="ellipsis" if column.shrinks else "fold",
            ratio=1 if column.shrinks else None,
        )
    table.expand = any(column.shrinks for column in columns)
    for line in lines:
        table.add_row(
            *(
                Text(cell, style=_style(cell) if column.title in _STATES else "")
                for column, cell in zip(columns, line, strict=True)
            )
        )
    terminal = None if into is None else True
    Console(
        highlight=False, markup=False, emoji=False, file=into, width=width, force_terminal=terminal
    ).print(table)


def _style(state: str) -> str:
    return next((style for word, style in _STYLES.items() if state.startswith(word)), "")


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Titles and values, one a line."""
    shown = [(title, printable(value)) for title, value in pairs]
    width = max((len(title) for title, _ in shown), default=0)
    for title, value in shown:
        click.echo(f"{title:<{width}}  {value}".rstrip())


def pairs_of_fields(fields: Iterable[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Titles, units and texts as titles and values; what has none is left out."""
    return [
        (title, f"{text} {unit}" if unit and text[-1].isdigit() else text)
        for title, unit, text in fields
        if text
    ]


def print_heading(text: str) -> None:
    """The title of the part that follows."""
    click.echo()
    click.secho(text, bold=True)

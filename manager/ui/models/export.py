"""Rows of a list as text that leaves the window: tab-separated, CSV, JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from manager.core.query.grouping import group_json
from manager.core.query.spec import FieldSpec
from manager.ui.models.groups import Group, Line, Row
from manager.ui.models.rows_model import HORIZONTAL, RowsModel

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula.

    Source: OWASP, "CSV Injection": an apostrophe before a cell that begins with ``=``, ``+``, ``-`` or ``@``.
    Names come from hosts: one could be called ``=HYPERLINK(…)``.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cell(model: RowsModel, row: Row, column: int) -> str:
    text = model.text(row, column)
    return text if model.fields[column].kind.is_number else harmless(text)


def _titles(model: RowsModel, columns: Sequence[int]) -> list[str]:
    return [str(model.headerData(column, HORIZONTAL)) for column in columns]


def as_text(model: RowsModel, rows: Iterable[Row], columns: Sequence[int], *, titles: bool = False) -> str:
    """A line per row, cells separated by tabs; `titles`: a first line with the columns' titles."""
    lines = [_titles(model, columns)] if titles else []
    lines += [[_cell(model, row, column) for column in columns] for row in rows]
    return "\n".join("\t".join(line) for line in lines)


def as_csv(model: RowsModel, lines: Iterable[Line], columns: Sequence[int], *, grouped: bool) -> str:
    """Titles and rows as CSV.

    `grouped`: each row begins with its group's title; a closed group is one line with its totals.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    shown = [model.fields[column].name for column in columns]
    writer.writerow((["Group"] if grouped else []) + _titles(model, columns))
    title = ""
    for line in lines:
        if isinstance(line, Row):
            head = [title] if grouped else []
            writer.writerow(head + [_cell(model, line, column) for column in columns])
            continue
        title = harmless(line.title)
        if not line.is_open:
            told = model.told(len(line.rows), model.group_figures(line), shown)
            writer.writerow([title, told] + [""] * (len(columns) - 1))
    return out.getvalue()


def as_json(model: RowsModel, lines: Iterable[Line], columns: Sequence[int]) -> str:
    """Rows as JSON with the field names and values of the command line; of groups, their rows and totals.

    A closed group has no rows, as it is shown.
    """
    specs = [model.fields[column] for column in columns]
    found: list[dict[str, Any]] = []
    rows = found
    for line in lines:
        if isinstance(line, Group):
            rows = []
            spec = model.fields[model.columns[model.group_field]]
            head = group_json(spec, line.key, len(line.rows), model.group_figures(line))
            found.append({**head, "open": line.is_open, "rows": rows})
        else:
            rows.append(_object(model, line, specs))
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def _object(model: RowsModel, row: Row, specs: Sequence[FieldSpec]) -> dict[str, Any]:
    return {spec.name: spec.as_json(row.view, row.item) for spec in specs}

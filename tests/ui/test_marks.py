"""What was searched for is marked in the cells where it stands."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QRect

from manager.ui.views.table import RowsTable
from tests.ui.cluster_of import runtime_of
from tests.ui.conftest import Desk, OpenDesk
from tests.ui.test_act_on_all import type_filter

LONG = "a-name-that-is-much-too-long-for-the-narrow-column-in-which-it-is-told-{}"


def marked(table: RowsTable, number: int, field: str) -> list[tuple[int, int]]:
    """The marked parts of a cell as it is painted: from which pixel to which, from the cell's left."""
    model = table.rows_model
    row = next(row for row in model.rows if row.item.name.endswith(str(number)))
    place: QRect = table.visualRect(model.index(model.position(row.key), model.columns[field]))
    image = table.viewport().grab(place).toImage()
    wanted = table._look.tokens.mark.rgb()
    y = round(5 * image.devicePixelRatio())  # above the letters
    columns = [x for x in range(image.width()) if image.pixel(x, y) == wanted]
    starts = [x for x in columns if x - 1 not in columns]
    return [(x, next(end for end in range(x, image.width() + 1) if end not in columns)) for x in starts]


def show(desk: Desk, *fields: str) -> RowsTable:
    """These columns too."""
    table = desk.page.table
    for field in fields:
        table.show_column(table.rows_model.columns[field], True)
    return table


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_free_words_are_marked_whatever_their_case(open_desk: OpenDesk, theme: str) -> None:
    desk = await open_desk(runtime_of(3, 4), theme=theme)
    table = desk.page.table
    assert marked(table, 1, "name") == []
    await type_filter(desk, "EB-")
    ((first, end),) = marked(table, 1, "name")
    wide = table.fontMetrics().horizontalAdvance
    assert abs(first - 8 - wide("w")) <= 1
    assert abs(end - 8 - wide("web-")) <= 1
    assert marked(table, 1, "owner") == []
    await type_filter(desk, "eb- or n2")  # web-1 is on n2
    assert len(marked(table, 1, "name")) == len(marked(table, 1, "owner")) == 1
    await type_filter(desk, "")
    assert marked(table, 1, "name") == []


async def test_only_free_words_are_marked_and_only_where_they_are_looked_for(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 4))
    table = show(desk, "memory_mib", "vcpus")
    await type_filter(desk, "name:web-1 not n3")
    assert marked(table, 1, "name") == marked(table, 1, "owner") == []
    await type_filter(desk, "2")  # in n2 and web-2; no figure of memory or vCPUs is looked into
    assert len(marked(table, 2, "name")) == 1
    assert marked(table, 2, "vcpus") == marked(table, 2, "memory_mib") == []


async def test_where_it_is_cut_off_the_dots_are_marked(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 4, names=lambda number: LONG.format(number)))
    table = desk.page.table
    table.setColumnWidth(table.rows_model.columns["name"], 150)
    await type_filter(desk, "narrow")
    ((first, end),) = marked(table, 1, "name")
    assert end - first < table.fontMetrics().horizontalAdvance("narrow") / 2
    await type_filter(desk, "a-name")
    ((first, _),) = marked(table, 1, "name")
    assert first == 8

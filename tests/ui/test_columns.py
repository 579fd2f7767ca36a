"""How wide columns are: as what they show, so that the last one, which says why, has room; or as chosen."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot

from manager.ui.theme import Look
from manager.ui.views.parts import PlainTable, shares, tip
from tests.ui.cluster_of import MemoryViews, runtime_of
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.moves_of import ask
from tests.ui.test_queue_pane import settle

LONG = "customer-{:03}-production-application-server-with-a-very-long-name"


def width(desk: Desk, name: str) -> int:
    table = desk.page.table
    return table.columnWidth(table.rows_model.columns[name])


async def at_size(desk: Desk, across: int, down: int = 700) -> None:
    desk.window.resize(across, down)
    await desk.settle()
    await desk.settle()


async def test_information_is_on_screen_in_the_smallest_window(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 40))
    await at_size(desk, 1024)
    table = desk.page.table
    last = table.shown_columns()[-1]
    assert table.rows_model.fields[last].name == "information"
    header = table.horizontalHeader()
    assert header.sectionViewportPosition(last) + 80 <= table.viewport().width()
    assert header.length() == table.viewport().width()  # nothing to scroll to
    queue = desk.window.clusters[desk.runtime.id].queue.table
    reason = queue.rows_model.columns["reason"]
    assert queue.horizontalHeader().sectionViewportPosition(reason) + 80 <= queue.viewport().width()


async def test_nothing_is_cut_where_one_has_to_scroll_in_any_case(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12))
    queue = desk.window.clusters[desk.runtime.id].queue
    desk.window.show_pane("migrations")
    for number in range(6):
        ask(desk.runtime, number)
    await settle(desk)
    table = queue.table
    table.resize(420, 200)
    await desk.settle()
    assert table.horizontalHeader().length() > table.viewport().width()
    for column in table.shown_columns()[:-1]:
        assert table.columnWidth(column) >= table._needs[column].now


async def test_a_name_has_the_room_it_needs_within_reason(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12, names=lambda n: f"accounting-db-{n:02}"))
    await at_size(desk, 1400)
    needs = desk.page.table.fontMetrics().horizontalAdvance("accounting-db-00")
    assert needs < width(desk, "name") < needs + 30


async def test_long_names_leave_room_for_the_rest(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12, names=LONG.format))
    await at_size(desk, 1400)
    assert 180 <= width(desk, "name") <= 230
    assert width(desk, "information") >= 100


async def test_longer_names_that_come_later_widen_the_column(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(2, 4, names=lambda n: f"a{n}"))
    await at_size(desk, 1400)
    before = width(desk, "name")
    desk.runtime.rename(1, "a-name-of-some-length")
    needs = desk.page.table.fontMetrics().horizontalAdvance("a-name-of-some-length")
    assert before < needs
    await until(lambda: width(desk, "name") > needs)


async def test_a_width_that_was_chosen_stays_also_after_the_window(open_desk: OpenDesk) -> None:
    views = MemoryViews()
    desk = await open_desk(runtime_of(3, 12), views=views)
    await at_size(desk, 1400)
    table = desk.page.table
    table.setColumnWidth(table.rows_model.columns["name"], 333)
    await at_size(desk, 1100)
    assert width(desk, "name") == 333
    table.save_layout()
    again = await open_desk(runtime_of(3, 12), views=views)
    await at_size(again, 1400)
    assert width(again, "name") == 333
    again.page.table.reset_layout()
    await again.settle()
    assert width(again, "name") < 120


async def test_a_layout_in_which_no_width_was_chosen_is_fitted_anew(open_desk: OpenDesk) -> None:
    views = MemoryViews()
    desk = await open_desk(runtime_of(3, 12, names=LONG.format), views=views)
    await at_size(desk, 1400)
    desk.page.table.save_layout()
    again = await open_desk(runtime_of(3, 12), views=views)
    await at_size(again, 1400)
    assert width(again, "name") < 120


async def test_another_column_has_its_room_too(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12))
    await at_size(desk, 1400)
    table = desk.page.table
    before = width(desk, "information")
    table.show_column(table.rows_model.columns["tags"], True)
    await at_size(desk, 1300)  # and the widths still follow
    assert width(desk, "tags") > 40
    assert width(desk, "information") < before
    assert table.horizontalHeader().length() == table.viewport().width()


@pytest.mark.parametrize(
    ("needs", "room", "given"),
    [
        ([50, 60, 70], 400, [50, 60, 70]),
        ([50, 600, 700], 450, [50, 200, 200]),
        ([300, 80, 100], 360, [180, 80, 100]),
    ],
)
def test_columns_divide_the_room_fairly(needs: list[int], room: int, given: list[int]) -> None:
    assert shares(needs, room) == given


def test_a_long_reason_is_wrapped_and_whole(qtbot: QtBot, look: Look) -> None:
    table = PlainTable(("VM", "Why not", "What to do"), look, name="Not moved")
    qtbot.addWidget(table)
    table.resize(500, 200)
    table.show()
    why = "no node can take it: n2: not enough memory (needs 8 GiB, free 6 GiB); n3: not enough CPUs " * 3
    table.show_rows([("web-01", why, "Free memory on a node, or choose a node."), ("web-02", "off", "")])
    QApplication.processEvents()
    assert sum(table.columnWidth(c) for c in range(3)) <= table.viewport().width() + 1
    assert table.columnWidth(0) < 100
    room = table.columnWidth(1) - 10
    lines = table.fontMetrics().horizontalAdvance(why) / room
    assert table.rowHeight(0) >= lines * table.fontMetrics().lineSpacing()
    assert table.rowHeight(1) < 30
    table.resize(2400, 200)
    QApplication.processEvents()
    assert table.rowHeight(0) < 30


def test_what_a_host_says_is_no_markup_in_a_tooltip(qtbot: QtBot, look: Look) -> None:
    evil = "<img src='file:///etc/passwd'> & <b>bold</b>"
    assert "<img" not in tip(evil)
    assert "<b>" not in tip(evil)
    table = PlainTable(("VM",), look, name="VMs")
    qtbot.addWidget(table)
    table.show_rows([(evil,)])
    assert table.item(0, 0).text() == evil
    assert "<img" not in table.item(0, 0).toolTip()


def test_a_small_table_without_rows_says_so(qtbot: QtBot, look: Look) -> None:
    table = PlainTable(("Target",), look, name="Disks", empty="It has no disk.")
    qtbot.addWidget(table)
    table.show()
    (said,) = [label for label in table.findChildren(QLabel) if label.isVisible()]
    assert said.text() == "It has no disk."
    table.show_rows([("vda",)])
    assert not said.isVisible()
    table.show_rows([])
    assert said.isVisible()

"""Groups in a list, what closing them hides, sorts by several keys, filters, what leaves the window."""

from __future__ import annotations

import csv
import io
import json
import random
from dataclasses import replace

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QAbstractItemModelTester
from pytestqt.qtbot import QtBot

from manager.core.actions import LIVE_MIGRATE
from manager.core.changes import ChangeSet
from manager.core.errors import Failure, FailureCode
from manager.core.events import NodeLost, OwnershipTaken, VmStateChanged, VmUndefined
from manager.core.ids import Kind, NodeId
from manager.core.model import StatusCause, VmLoad, VmSettings, VmStatus
from manager.core.query.filter import matcher
from manager.core.resource_facts import Volume
from manager.ui.models.groups import Group, Row
from manager.ui.models.rows_model import RowsModel
from manager.ui.theme import Look
from manager.ui.views.columns import ColumnsDialog
from manager.ui.views.table import RowsTable
from tests.ui.cluster_of import MemoryViews, runtime_of, search, vm_config, vm_id
from tests.ui.conftest import OpenDesk
from tests.ui.test_resources import OWN, POOL, tell, volume
from tests.ui.test_rows_model import Shown


@pytest.fixture
def shown(look: Look, qtbot: QtBot) -> Shown:
    return Shown(runtime_of(3, 30, off=frozenset({4, 7})), look, qtbot)


def titles(shown: Shown) -> list[str]:
    return [group.title for group in shown.model.groups]


def group(shown: Shown, title: str) -> Group:
    return next(group for group in shown.model.groups if group.title == title)


def told(shown: Shown, title: str) -> str:
    return shown.table.group_told(group(shown, title))


def click(shown: Shown, qtbot: QtBot, place: int, *held: Qt.KeyboardModifier) -> None:
    modifiers = Qt.KeyboardModifier.NoModifier
    for each in held:
        modifiers |= each
    at = QPoint(60, place * shown.table.row_height + 5 - shown.table.verticalOffset())
    qtbot.mouseClick(shown.table.viewport(), Qt.MouseButton.LeftButton, modifiers, at)


CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


# --- groups ------------------------------------------------------------------------------------------


def test_rows_stand_under_a_line_per_value_in_the_order_of_the_list(shown: Shown) -> None:
    shown.model.group_by("owner")
    assert titles(shown) == ["n1", "n2", "n3"]
    first = shown.model.lines[0]
    assert isinstance(first, Group)
    lines = shown.model.lines[1:11]
    assert [line.item.name for line in lines if isinstance(line, Row)] == [
        f"web-{n}" for n in range(0, 30, 3)
    ]
    assert shown.model.lines[11] is group(shown, "n2")
    assert shown.model.rowCount() == 33
    assert len(shown.model.rows) == 30


def test_a_group_tells_count_and_totals_of_what_is_known(shown: Shown) -> None:
    shown.model.group_by("owner")
    assert told(shown, "n1") == "10 VMs, 20 GiB, 20 vCPUs"
    shown.load(0, 20.0)
    shown.load(3, 40.0)
    shown.model._tell_totals()
    assert told(shown, "n1") == "10 VMs, 20 GiB, 20 vCPUs, 30 % CPU"
    shown.table.show_column(shown.model.columns["cpu"], False)
    assert told(shown, "n1") == "10 VMs, 20 GiB, 20 vCPUs"  # nobody samples for it any more


def test_groups_follow_the_order_of_their_field_and_unknown_is_the_last(look: Look, qtbot: QtBot) -> None:
    runtime = runtime_of(2, 8, off=frozenset({6}))
    shown = Shown(runtime, look, qtbot)
    for number, cpu in ((0, 5.0), (1, 70.0), (2, 70.2), (3, 11.0)):
        shown.load(number, cpu)
    shown.model.group_by("cpu")
    expected = ["CPU: 5 %", "CPU: 11 %", "CPU: 70 %"]
    assert titles(shown) == [*expected, "CPU: none", "CPU: not known"]
    assert [row.item.name for row in group(shown, "CPU: 70 %").rows] == ["web-1", "web-2"]
    shown.model.sort_by("cpu", True)
    assert titles(shown) == [*reversed(expected), "CPU: none", "CPU: not known"]


def test_a_priority_sorts_its_groups_by_rank_and_names_as_people_count(look: Look, qtbot: QtBot) -> None:
    shown = Shown(runtime_of(11, 11), look, qtbot)
    shown.model.group_by("priority")
    ranks = titles(shown)
    assert set(ranks) == {"High", "Medium", "Low"}
    assert ranks.index("Medium") == 1
    shown.model.group_by("owner")
    assert titles(shown) == [f"n{n}" for n in range(1, 12)]


def test_a_vm_is_in_the_group_of_all_its_tags_and_those_without_come_last(look: Look, qtbot: QtBot) -> None:
    tags = {0: ("web", "db"), 1: ("web",), 2: ("web", "db"), 3: ()}
    configs = {n: vm_config(n, settings=VmSettings(tags=t)) for n, t in tags.items()}
    shown = Shown(runtime_of(1, 4, configs=configs), look, qtbot)
    shown.model.group_by("tags")
    assert titles(shown) == ["web", "web, db", "Tags: none"]
    assert len(group(shown, "web, db").rows) == 2


@pytest.mark.parametrize("kind", list(Kind))
def test_every_field_of_every_kind_is_shown_sorted_grouped_and_exported(
    look: Look, qtbot: QtBot, kind: Kind
) -> None:
    runtime = runtime_of(3, 30, off=frozenset({4, 7}))
    runtime.dispatch(OwnershipTaken(at_s=runtime.clock.now_s()))
    runtime.request(LIVE_MIGRATE.plan(runtime.view, [vm_id(n) for n in range(6)]))
    for node in ("n1", "n2"):
        tell(runtime, node, POOL, OWN)
    for node, code in (("n3", FailureCode.UNREACHABLE), ("n2", FailureCode.TIMEOUT)):
        runtime.dispatch(NodeLost(at_s=runtime.clock.at_s, node=NodeId(node), failure=Failure(code=code)))
    for number in (9, 12):
        runtime.change(number, VmStatus.PAUSED, StatusCause.IO_ERROR)
    volumes = {each.id: each for each in (volume(0), volume(1), Volume(id="x", name="not asked"))}
    model = RowsModel(kind, runtime.view, extra=volumes if kind is Kind.VOLUME else None)
    table = RowsTable(model, look, name="t", views=MemoryViews(), title="T")
    qtbot.addWidget(table)
    table.resize(1200, 400)
    table.show()
    count = len(model.rows)
    assert count >= 2
    for column, spec in enumerate(model.fields):
        table.show_column(column, True)
        table.group_by("")
        for down in (True, False):
            model.sort_by(spec.name, down)
            known = [spec.sort_key(row.view, row.item) for row in model.rows]
            known = [key for key in known if key[0] == 0]
            assert known == sorted(known, reverse=down), spec.name
        table.group_by(spec.name)
        table.grab()
        assert sum(len(each.rows) for each in model.groups) == count, spec.name
        assert len({each.key for each in model.groups}) == len(model.groups), spec.name
        standing = [each.key.standing for each in model.groups]
        assert standing == sorted(standing), spec.name
        assert len(list(csv.reader(io.StringIO(table.as_csv())))) == count + 1, spec.name
        found = json.loads(table.as_json())
        assert sum(len(each["rows"]) for each in found) == count, spec.name
        assert all(spec.name in row for each in found for row in each["rows"])
    table.group_by("")
    assert model.lines == model.rows


def test_a_vm_that_changes_its_group_goes_there_but_not_under_the_pointer(shown: Shown, qtbot: QtBot) -> None:
    shown.model.group_by("status")
    assert titles(shown) == ["Off", "Running"]
    shown.model.hold(True)
    shown.runtime.change(4, VmStatus.RUNNING)
    assert [row.item.name for row in group(shown, "Off").rows] == ["web-4", "web-7"]
    assert shown.model.is_held
    shown.model.hold(False)
    assert [row.item.name for row in group(shown, "Off").rows] == ["web-7"]


def test_under_the_pointer_a_lost_row_goes_and_a_new_one_waits(shown: Shown) -> None:
    shown.model.group_by("status")
    shown.model.hold(True)
    at = shown.runtime.clock.at_s + 1
    for number in (4, 7):
        shown.runtime.dispatch(VmUndefined(at_s=at, node=NodeId(f"n{number % 3 + 1}"), vm=vm_id(number)))
    shown.runtime.dispatch(
        VmStateChanged(at_s=at, node=NodeId("n1"), vm=vm_id(40), name="aaa", status=VmStatus.RUNNING)
    )
    assert titles(shown) == ["Off", "Running"]  # the place of an empty group stays, too
    assert told(shown, "Off") == "0 VMs"
    assert "aaa" not in shown.names
    shown.model.hold(False)
    assert titles(shown) == ["Running"]
    assert shown.names[0] == "aaa"


# --- open and closed ---------------------------------------------------------------------------------


def test_a_click_closes_a_group_and_what_was_selected_in_it_is_hidden_not_lost(
    shown: Shown, qtbot: QtBot
) -> None:
    shown.model.group_by("owner")
    shown.table.select_ids([vm_id(0), vm_id(1)], current=vm_id(0), reveal=False)
    click(shown, qtbot, 0)
    assert not group(shown, "n1").is_open
    assert shown.table.selected_ids == [vm_id(1)]
    assert shown.table.hidden_text == "1 more in closed groups"
    assert shown.table.current_group is group(shown, "n1")
    search(shown.model, "web-2")
    assert shown.table.hidden_text == "2 more hidden by the filter"
    search(shown.model, "")
    click(shown, qtbot, 0)
    assert set(shown.table.selected_ids) == {vm_id(0), vm_id(1)}
    assert shown.table.hidden_text == ""


def test_a_click_with_ctrl_selects_a_group_and_gives_it_back(shown: Shown, qtbot: QtBot) -> None:
    shown.model.group_by("owner")
    shown.table.select_ids([vm_id(1)], reveal=False)
    shown.table.set_open([group(shown, "n1")], False)
    click(shown, qtbot, 0, CTRL)
    assert group(shown, "n1").is_open  # what is selected is to be seen
    assert shown.table.selected_count == 11
    assert set(shown.table.selected_ids) == {vm_id(n) for n in (1, *range(0, 30, 3))}
    click(shown, qtbot, 0, CTRL)
    assert shown.table.selected_ids == [vm_id(1)]


def test_adding_to_a_selection_keeps_what_is_hidden_and_a_new_one_does_not(
    shown: Shown, qtbot: QtBot
) -> None:
    shown.model.group_by("owner")
    shown.table.select_ids([vm_id(0)], reveal=False)
    shown.table.set_open([group(shown, "n1")], False)
    click(shown, qtbot, 2, CTRL)
    assert shown.table.hidden_ids == [vm_id(0)]
    click(shown, qtbot, 3)
    assert shown.table.hidden_ids == []
    shown.table.set_open([group(shown, "n1")], True)
    assert shown.table.selected_ids == [vm_id(4)]


def test_groups_are_never_selected_objects(shown: Shown, qtbot: QtBot) -> None:
    shown.model.group_by("owner")
    shown.table.set_open([group(shown, "n2")], False)
    shown.table.selectAll()
    assert shown.table.selected_count == len(shown.table.selected_ids) == 20
    shown.table.invert_selection()
    assert shown.table.selected_ids == []
    click(shown, qtbot, 1)
    click(shown, qtbot, 11, SHIFT)  # up to the line of n2
    assert set(shown.table.selected_ids) == {vm_id(n) for n in range(0, 30, 3)}
    assert shown.table.selected_count == 10


def test_keys_open_close_and_go_among_groups(shown: Shown, qtbot: QtBot) -> None:
    shown.model.group_by("owner")
    table = shown.table
    table.select_ids([vm_id(4)], current=vm_id(4))
    key = Qt.Key
    qtbot.keyClick(table, key.Key_Left)
    assert table.current_group is group(shown, "n2")
    assert table.selected_ids == [vm_id(4)]
    qtbot.keyClick(table, key.Key_Left)
    assert not group(shown, "n2").is_open
    qtbot.keyClick(table, key.Key_Right)
    assert group(shown, "n2").is_open
    qtbot.keyClick(table, key.Key_Right)
    assert table.selected_ids == [vm_id(1)]
    qtbot.keyClick(table, key.Key_Left, CTRL)
    assert not any(each.is_open for each in shown.model.groups)
    assert table.current_group is group(shown, "n2")
    assert shown.model.rowCount() == 3
    qtbot.keyClick(table, key.Key_Right, CTRL)
    assert len(shown.model.rows) == 30
    assert table.selected_ids == [vm_id(1)]
    qtbot.keyClick(table, key.Key_Space, CTRL)
    assert table.selected_count == 10
    qtbot.keyClick(table, key.Key_Return)
    assert not group(shown, "n2").is_open
    opened: list[str] = []
    table.opened.connect(opened.append)
    qtbot.keyClick(table, key.Key_Return)
    assert group(shown, "n2").is_open
    assert not opened


def test_scroll_stays_on_what_was_at_the_top(shown: Shown) -> None:
    shown.model.group_by("owner")
    table = shown.table
    table.select_ids([vm_id(29)], reveal=False)
    table.verticalScrollBar().setValue(12 * table.row_height)
    top = shown.model.lines[table.rowAt(0)]
    assert isinstance(top, Row)
    shown.table.set_open([group(shown, "n1")], False)
    assert shown.model.lines[table.rowAt(0)] is top


def test_what_the_pointer_is_told_of_a_group(shown: Shown) -> None:
    shown.model.group_by("owner")
    assert shown.table.tool_tip(0, 2) == "n1\n10 VMs, 20 GiB, 20 vCPUs"
    spoken = shown.model.data(shown.model.index(0, 0), Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == "n1: 10 VMs, 20 GiB, 20 vCPUs, open"
    menu = shown.table.group_menu(group(shown, "n1"))
    assert [action.text() for action in menu.actions() if action.text()] == [
        "Select these 10 VMs",
        "Add these 10 VMs to the selection",
        "Close",
        "Close all groups",
        "Open all groups",
        "No groups",
    ]
    menu.actions()[0].trigger()
    assert shown.table.selected_count == 10


def test_totals_of_the_selection(shown: Shown) -> None:
    shown.load(0, 30.0)
    shown.table.select_ids([vm_id(0), vm_id(1)])
    assert shown.table.selected_text == "2 VMs selected, 4 GiB, 4 vCPUs, 30 % CPU"


def test_groups_are_remembered_with_the_layout(shown: Shown, look: Look, qtbot: QtBot) -> None:
    views = MemoryViews()
    first = Shown(shown.runtime, look, qtbot, views)
    first.table.group_by("owner")
    first.table.set_open([group(first, "n2")], False)
    first.model.sort_by("status", False)
    first.model.sort_by("name", True, add=True)
    first.table.save_layout()
    second = Shown(shown.runtime, look, qtbot, views)
    assert second.model.group_field == "owner"
    assert [each.is_open for each in second.model.groups] == [True, False, True]
    assert second.model.order == (("status", False), ("name", True))
    second.table.reset_layout()
    assert second.model.group_field == ""


def test_what_is_grouped_is_painted_and_can_be_walked_through(shown: Shown, qtbot: QtBot) -> None:
    shown.model.group_by("owner")
    before = shown.table.grab().toImage()
    shown.table.set_all_open(False)
    assert shown.table.grab().toImage() != before
    for _ in range(5):
        qtbot.keyClick(shown.table, Qt.Key.Key_Down)
    assert shown.table.current_group is group(shown, "n3")


# --- sort --------------------------------------------------------------------------------------------


def test_shift_and_a_click_on_a_title_adds_turns_round_and_leaves_out(shown: Shown, qtbot: QtBot) -> None:
    header, columns = shown.table.horizontalHeader(), shown.model.columns

    def press(field: str, *held: Qt.KeyboardModifier) -> None:
        at = QPoint(header.sectionViewportPosition(columns[field]) + 12, 8)
        modifier = held[0] if held else Qt.KeyboardModifier.NoModifier
        qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, modifier, at)

    press("status")
    press("owner", SHIFT)
    press("name", SHIFT)
    press("name", SHIFT)
    assert shown.model.order == (("status", False), ("owner", False), ("name", True))
    assert shown.names[:3] == ["web-7", "web-4", "web-27"]
    assert [shown.table._header.number(columns[f]) for f in ("status", "owner", "name", "cpu")] == [
        "1",
        "2",
        "3",
        "",
    ]
    shown.table.grab()  # arrows and numbers
    press("owner", SHIFT)
    press("owner", SHIFT)
    assert shown.model.order == (("status", False), ("name", True))
    press("name")
    assert shown.model.order == (("name", False),)
    assert shown.table._header.number(columns["name"]) == ""


# --- filters that are more than words ----------------------------------------------------------------


def test_a_filter_tests_rows_and_again_when_what_it_depends_on_changes(shown: Shown, qtbot: QtBot) -> None:
    shown.load(3, 90.0)
    shown.load(4, 90.0)
    wanted: list[bool] = []
    for name in ("cpu",):
        shown.table.show_column(shown.model.columns[name], False)
    shown.table.samples_wanted.connect(wanted.append)
    shown.model.set_filter(matcher("cpu>50 n1", Kind.VM))
    assert wanted[-1]
    assert shown.names == ["web-3"]
    shown.load(6, 80.0)
    qtbot.waitUntil(lambda: shown.names == ["web-3", "web-6"], timeout=2500)
    shown.load(3, 10.0)
    qtbot.waitUntil(lambda: shown.names == ["web-6"], timeout=2500)
    shown.model.set_filter(None)
    assert not wanted[-1]
    assert len(shown.names) == 30


def test_a_filter_that_ages_is_asked_again_while_the_list_is_shown(shown: Shown, qtbot: QtBot) -> None:
    shown.model._retest_timer.setInterval(20)
    for number in (1, 2):
        vm = shown.runtime.view.vms[vm_id(number)]
        shown.runtime.state.vms[vm.id] = replace(vm, started_at_s=shown.runtime.view.now_s - 60 * number)
    changes = ChangeSet()
    changes[Kind.VM].update(vm_id(1), ("started_at_s",))
    changes[Kind.VM].update(vm_id(2), ("started_at_s",))
    shown.model.take(changes)
    shown.model.set_filter(matcher("uptime>90s", Kind.VM))
    assert shown.names == ["web-2"]
    shown.runtime.clock.at_s += 60
    shown.runtime.change(5, VmStatus.PAUSED)  # the clock of the state goes with its events
    qtbot.waitUntil(lambda: shown.names == ["web-1", "web-2"], timeout=2500)
    shown.model.set_active(False)
    assert not shown.model._retest_timer.isActive()


# --- what leaves the window --------------------------------------------------------------------------


def test_an_export_in_groups_has_their_titles_and_one_line_for_a_closed_one(shown: Shown) -> None:
    for name in ("activity", "tags", "information", "uptime_s", "cpu", "priority"):
        shown.table.setColumnHidden(shown.model.columns[name], True)
    search(shown.model, "web-1")
    shown.model.group_by("owner")
    shown.table.set_open([group(shown, "n1"), group(shown, "n3")], False)
    assert list(csv.reader(io.StringIO(shown.table.as_csv()))) == [
        ["Group", "Name", "Status", "Owner node", "Memory GiB"],
        ["n1", "3 VMs, 6 GiB, 6 vCPUs", "", "", ""],
        *[["n2", f"web-{n}", "Running", "n2", "2"] for n in (1, 10, 13, 16, 19)],
        ["n3", "3 VMs, 6 GiB, 6 vCPUs", "", "", ""],
    ]
    found = json.loads(shown.table.as_json())
    assert [(g["field"], g["group"], g["count"], g["open"], len(g["rows"])) for g in found] == [
        ("owner", "n1", 3, False, 0),
        ("owner", "n2", 5, True, 5),
        ("owner", "n3", 3, False, 0),
    ]
    assert found[1]["totals"] == {"memory_mib": 10240, "vcpus": 10}
    assert found[1]["rows"][0]["name"] == "web-1"


def test_no_cell_that_leaves_the_window_is_a_formula(look: Look, qtbot: QtBot) -> None:
    evil = ['=HYPERLINK("x")', "+1", "-2", "@SUM(A1)", "fine", "\t=1"]
    shown = Shown(runtime_of(1, 6, names=lambda n: evil[n]), look, qtbot)
    shown.table.selectAll()
    shown.model.group_by("name")
    for text, first in (
        (shown.table.as_csv(), 1),
        (shown.table.cells_text("csv"), 1),
    ):
        cells = [cell for row in list(csv.reader(io.StringIO(text)))[first:] for cell in row]
        assert '\'=HYPERLINK("x")' in cells
        assert "fine" in cells
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    lines = [line.split("\t") for line in shown.table.cells_text("titles").split("\n")]
    assert lines[0][0] == "Name"
    assert not [cell for line in lines[1:] for cell in line if cell.startswith(("=", "+", "-", "@"))]
    names = {row["name"] for row in json.loads(shown.table.cells_text("json"))}
    assert names == set(evil)  # JSON is no spreadsheet: as it is


# --- columns -----------------------------------------------------------------------------------------


def test_columns_are_chosen_and_moved_by_keyboard(shown: Shown, qtbot: QtBot) -> None:
    dialog = ColumnsDialog(shown.table)
    dialog.show()
    dialog.list.setFocus()

    def order() -> list[str]:
        return [shown.model.fields[column].name for column in shown.table.shown_columns()]

    assert order()[:3] == ["name", "status", "activity"]
    qtbot.keyClick(dialog.list, Qt.Key.Key_Down)
    qtbot.keyClick(dialog.list, Qt.Key.Key_Space)
    assert "status" not in order()
    qtbot.keyClick(dialog.list, Qt.Key.Key_Space)
    dialog.move_current(1)
    assert order()[:3] == ["name", "activity", "status"]
    assert dialog.list.currentItem().text() == "Status"
    dialog.move_current(-1)
    dialog.move_current(-1)
    assert order()[0] == "status"
    dialog.move_current(-1)  # no further
    assert order()[0] == "status"
    dialog.reset.click()
    assert order()[:3] == ["name", "status", "activity"]
    dialog.close()


# --- anything in any order ---------------------------------------------------------------------------


class Mixed:
    """Random changes, sorts, groups, filters, closing; after each the list must be what it says."""

    FIELDS = ("owner", "status", "priority", "cpu", "name", "uptime_s", "tags", "moves", "")

    QUERIES = ("", "web-1", "n1", "cpu>50", "n2 cpu>50", "not owner:n1 or web", "memory:unknown")

    def __init__(self, shown: Shown, seed: int) -> None:
        self.shown, self.chance = shown, random.Random(seed)
        self.next = 100
        self.chosen: set[str] = set()

    def step(self) -> None:
        model, table, chance = self.shown.model, self.shown.table, self.chance
        match chance.randrange(12):
            case 0:
                self.change()
            case 1:
                self.add()
            case 2:
                self.lose()
            case 3:
                model.group_by(chance.choice(self.FIELDS))
            case 4:
                model.sort_by(
                    chance.choice(("name", "owner", "cpu")), chance.random() < 0.5, add=chance.random() < 0.5
                )
            case 5:
                text = chance.choice(self.QUERIES)
                model.set_filter(matcher(text, Kind.VM) if text else None, text)
            case 6 | 7:
                if model.groups:
                    table.set_open([chance.choice(model.groups)], chance.random() < 0.4)
            case 8:
                model.hold(not model._held)
            case 9:
                table.set_all_open(chance.random() < 0.5)
            case 10:
                self.select()
            case 11:
                model.set_scope(chance.choice((None, lambda vm: vm.owner != "n3")))
        if chance.random() < 0.2:
            model._reorder_due()

    def change(self) -> None:
        numbers = [int(key[-12:]) for key in self.shown.runtime.view.vms]
        for number in self.chance.sample(numbers, min(3, len(numbers))):
            if self.chance.random() < 0.5:
                status = self.chance.choice((VmStatus.RUNNING, VmStatus.OFF, VmStatus.PAUSED))
                self.shown.runtime.change(number, status)
            else:
                self.shown.load(number, self.chance.random() * 100)

    def add(self) -> None:
        self.next += 1
        clock = self.shown.runtime.clock
        clock.at_s += 0.01
        node = NodeId(f"n{self.next % 3 + 1}")
        self.shown.runtime.dispatch(
            VmStateChanged(
                at_s=clock.at_s, node=node, vm=vm_id(self.next), name=f"new-{self.next}", status=VmStatus.OFF
            )
        )

    def lose(self) -> None:
        view, clock = self.shown.runtime.view, self.shown.runtime.clock
        if len(view.vms) > 5:
            vm = view.vms[self.chance.choice(sorted(view.vms))]
            clock.at_s += 0.01
            self.shown.runtime.dispatch(VmUndefined(at_s=clock.at_s, node=vm.owner, vm=vm.id))

    def select(self) -> None:
        rows = self.shown.model.rows
        self.chosen = {row.key for row in self.chance.sample(list(rows), min(4, len(rows)))}
        self.shown.table.select_ids(self.chosen, reveal=False)

    def check(self) -> None:
        model, table = self.shown.model, self.shown.table
        lines = model.lines
        assert [line.pos for line in lines] == list(range(len(lines)))
        assert model.rowCount() == len(lines)
        rows = [line for line in lines if isinstance(line, Row)]
        assert rows == list(model.rows)
        assert len({row.key for row in rows}) == len(rows)
        assert all(row.item is not None and model.position(row.key) == row.pos for row in rows)
        assert [i for i, line in enumerate(lines) if isinstance(line, Group)] == list(model.group_places)
        if model.groups:
            members = [row for each in model.groups for row in each.rows]
            assert {row.key for row in members} == {row.key for row in model._found}
            assert all(row.home is each for each in model.groups for row in each.rows)
            at = 0
            for each in model.groups:
                assert lines[at] is each
                size = len(each.rows) if each.is_open else 0
                assert list(lines[at + 1 : at + 1 + size]) == each.rows[:size]
                at += 1 + size
            assert at == len(lines)
        known = {key for key in self.chosen if model.knows(key)}
        assert set(table.selected_ids) == {key for key in known if model.position(key) >= 0}
        assert set(table.hidden_ids) == {key for key in known if model.position(key) < 0}
        assert table.selected_count == len(table.selected_ids)


@pytest.mark.parametrize("seed", range(6))
def test_the_list_is_what_it_says_after_anything_in_any_order(look: Look, qtbot: QtBot, seed: int) -> None:
    shown = Shown(runtime_of(3, 24, off=frozenset({4, 7})), look, qtbot)
    tester = QAbstractItemModelTester(
        shown.model, QAbstractItemModelTester.FailureReportingMode.Fatal, shown.table
    )
    assert tester.model() is shown.model
    mixed = Mixed(shown, seed)
    for _ in range(150):
        mixed.step()
        mixed.check()
    shown.model.hold(False)
    shown.model._arrange(sort=True)
    fresh = RowsModel(Kind.VM, shown.runtime.view, scope=shown.model._scope)
    fresh.set_order(shown.model.order)
    fresh.set_filter(shown.model._filter)
    fresh.group_by(shown.model.group_field, shown.model.closed_groups)
    assert [line.key for line in fresh.lines] == [line.key for line in shown.model.lines]


def test_a_list_of_eight_thousand_in_groups_closes_and_selects_by_identity(look: Look, qtbot: QtBot) -> None:
    shown = Shown(runtime_of(8, 800), look, qtbot)
    shown.model.group_by("name")  # as many groups as rows
    assert len(shown.model.groups) == 800
    shown.table.selectAll()
    assert shown.table.selected_count == 800
    shown.table.set_all_open(False)
    assert shown.table.selected_count == 0
    assert shown.table.hidden_selected == 800
    shown.model.group_by("owner")
    assert shown.table.selected_count == 800


def test_a_load_sample_makes_totals_anew_once_a_while(shown: Shown, qtbot: QtBot) -> None:
    shown.model.group_by("owner")
    assert "%" not in told(shown, "n1")
    changes = ChangeSet()
    shown.runtime.state.vm_loads[vm_id(0)] = VmLoad(cpu_percent=50.0)  # type: ignore[index]
    changes[Kind.VM].update(vm_id(0), ("load",))
    with qtbot.waitSignal(shown.model.totals_changed, timeout=3000):
        shown.model.take(changes)
        assert "%" not in told(shown, "n1")
    assert told(shown, "n1").endswith("50 % CPU")


def test_a_list_whose_rows_have_places_has_no_groups(shown: Shown) -> None:
    class Placed(RowsTable):
        can_group = False

    table = Placed(
        RowsModel(Kind.VM, shown.runtime.view), shown.table._look, name="p", views=MemoryViews(), title="P"
    )
    table.group_by("owner")
    assert table.rows_model.group_field == ""
    assert "Group by" not in [action.text() for action in table.column_menu().actions()]
    table.close()


# --- in the window -----------------------------------------------------------------------------------


async def test_the_window_groups_tells_totals_and_shows_what_it_is_led_to(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 30))
    window = desk.window
    window.go_page("roles")
    await desk.settle()
    page = desk.page
    window.lists.fill_groups(window.commands.groups_menu)
    by_owner = next(a for a in window.commands.groups_menu.actions() if a.text() == "Owner node")
    by_owner.trigger()
    assert [group.title for group in page.model.groups] == ["n1", "n2", "n3"]
    page.table.set_all_open(False)
    assert page._count.text() == "30"
    assert page.empty.isHidden()
    desk.select(4)
    assert page.selected_ids == [vm_id(4)]
    window.lists.select_all()
    assert page.table.selected_count == 10  # those of the group that was opened
    page.table.set_open(page.model.groups, False)
    window._tell_selection()
    assert window._selection.text() == "10 more in closed groups"
    assert page.selected_ids == []  # so no action touches them
    page.table.set_all_open(True)
    assert window._selection.text() == "10 VMs selected, 20 GiB, 20 vCPUs"


async def test_rows_are_copied_as_text_csv_json_and_as_a_command(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 30))
    window = desk.window
    window.go_page("roles")
    await desk.settle()
    desk.select(4)
    copied: list[str] = []
    for action in (window.commands.copy, *window.commands.copy_as, window.commands.copy_command):
        action.trigger()
        copied.append(QGuiApplication.clipboard().text())
    text, titled, as_csv, as_json, command = copied
    assert text.startswith("web-4\tRunning")
    assert titled.split("\n")[0].startswith("Name\tStatus")
    assert titled.split("\n")[1] == text
    assert as_csv.startswith("Name,Status")
    assert json.loads(as_json)[0]["name"] == "web-4"
    assert command.startswith("muster")
    assert "web-4" in command

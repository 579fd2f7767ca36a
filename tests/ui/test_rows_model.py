"""The model and its view: order, search, selection by id, ranges, nothing under the pointer moves."""

from __future__ import annotations

import json

import pytest
from PySide6.QtCore import QModelIndex, Qt
from pytestqt.qtbot import QtBot

from manager.core.changes import ChangeSet
from manager.core.events import VmStateChanged
from manager.core.ids import Kind, NodeId
from manager.core.model import StatusCause, VmLoad, VmStatus
from manager.ui.models.rows_model import RowsModel
from manager.ui.theme import Look
from manager.ui.views.table import RowsTable
from tests.ui.cluster_of import FakeRuntime, MemoryViews, runtime_of, search, vm_id


class Shown:
    """A table over a cluster that takes every change at once."""

    def __init__(
        self, runtime: FakeRuntime, look: Look, qtbot: QtBot, views: MemoryViews | None = None
    ) -> None:
        self.runtime = runtime
        self.model = RowsModel(Kind.VM, runtime.view)
        self.table = RowsTable(
            self.model, look, name="table-test", views=views or MemoryViews(), title="Roles"
        )
        qtbot.addWidget(self.table)
        self.table.resize(900, 300)
        self.table.show()
        self.ranges: list[tuple[int, int]] = []
        self.model.dataChanged.connect(self._changed)
        runtime.subscribe(self.model.take)

    def _changed(self, first: QModelIndex, last: QModelIndex) -> None:
        self.ranges.append((first.row(), last.row()))

    @property
    def names(self) -> list[str]:
        """Names in the order of the list."""
        return [row.item.name for row in self.model.rows]

    def load(self, number: int, cpu: float) -> None:
        """A load sample, as the sampler's event gives it."""
        vm = self.runtime.view.vms[vm_id(number)]
        self.runtime.state.vm_loads[vm.id] = VmLoad(cpu_percent=cpu)  # type: ignore[index]
        changes = ChangeSet()
        changes[Kind.VM].update(vm.id, ("load",))
        self.model.take(changes)


@pytest.fixture
def shown(look: Look, qtbot: QtBot) -> Shown:
    return Shown(runtime_of(3, 30, off=frozenset({4, 7})), look, qtbot)


def test_names_are_sorted_as_people_count(shown: Shown) -> None:
    assert shown.names[:4] == ["web-0", "web-1", "web-2", "web-3"]
    assert shown.names.index("web-9") < shown.names.index("web-10")


def test_a_sort_that_is_added_decides_between_equals(shown: Shown) -> None:
    shown.model.sort_by("owner", False)
    shown.model.sort_by("name", True, add=True)
    owners = [row.item.owner for row in shown.model.rows]
    assert owners == sorted(owners)
    first = [row.item.name for row in shown.model.rows if row.item.owner == "n1"]
    assert first == [f"web-{n}" for n in range(27, -1, -3)]


@pytest.mark.parametrize("descending", [False, True])
def test_what_is_not_known_comes_last_in_either_direction(shown: Shown, descending: bool) -> None:
    shown.load(11, 90.0)
    shown.load(12, 10.0)
    shown.model.sort_by("cpu", descending)
    assert shown.names[:2] == (["web-11", "web-12"] if descending else ["web-12", "web-11"])


@pytest.mark.parametrize(
    ("text", "found"),
    [("web-1", 11), ("WEB-1 n2", 5), ("off", 2), ("running web-2 n3", 5), ("nothing", 0), ("  ", 30)],
)
def test_every_word_must_occur_in_any_column(shown: Shown, text: str, found: int) -> None:
    search(shown.model, text)
    assert len(shown.model.rows) == found


def test_narrowing_and_widening_give_the_same_as_searching_anew(shown: Shown) -> None:
    for text in ("w", "web-1", "web-1 n1", "web-1", "web", ""):
        search(shown.model, text)
        fresh = RowsModel(Kind.VM, shown.runtime.view)
        search(fresh, text)
        assert shown.names == [row.item.name for row in fresh.rows]


def test_selection_current_and_scroll_are_carried_by_id(shown: Shown) -> None:
    table, chosen = shown.table, [vm_id(3), vm_id(9), vm_id(20)]
    table.select_ids(chosen, current=vm_id(20))
    table.verticalScrollBar().setValue(5 * table.row_height)
    anchor = shown.model.rows[table.rowAt(0)].key
    shown.model.sort_by("owner", True)
    assert set(table.selected_ids) == set(chosen)
    assert table.current_id == vm_id(20)
    assert shown.model.rows[table.rowAt(0)].key == anchor


def test_a_new_and_a_lost_vm_leave_the_selection_alone(shown: Shown) -> None:
    shown.table.select_ids([vm_id(5), vm_id(6)])
    settled: list[int] = []
    shown.table.selection_settled.connect(lambda: settled.append(1))
    shown.runtime.dispatch(
        VmStateChanged(
            at_s=shown.runtime.clock.at_s + 1,
            node=NodeId("n1"),
            vm=vm_id(30),
            name="aaa-first",
            status=VmStatus.RUNNING,
        )
    )
    assert shown.names[0] == "aaa-first"
    assert set(shown.table.selected_ids) == {vm_id(5), vm_id(6)}
    assert not settled


def test_a_list_in_which_nothing_is_selected_stays_at_its_top(shown: Shown) -> None:
    shown.table.setFocus()
    bar = shown.table.verticalScrollBar()
    assert (bar.value(), bar.maximum() > 0) == (0, True)
    for number, name in ((30, "aaa"), (31, "aa")):
        shown.runtime.dispatch(
            VmStateChanged(
                at_s=shown.runtime.clock.at_s + 1,
                node=NodeId("n1"),
                vm=vm_id(number),
                name=name,
                status=VmStatus.RUNNING,
            )
        )
        assert shown.names[0] == name
        assert bar.value() == 0


def test_rows_hidden_by_a_search_are_counted_and_come_back_selected(shown: Shown) -> None:
    shown.table.select_ids([vm_id(1), vm_id(25)])
    search(shown.model, "web-25")
    assert shown.table.selected_ids == [vm_id(25)]
    assert shown.table.hidden_selected == 1
    search(shown.model, "")
    assert set(shown.table.selected_ids) == {vm_id(1), vm_id(25)}
    assert shown.table.hidden_selected == 0


def test_a_change_is_told_once_per_run_of_rows_on_screen(shown: Shown) -> None:
    shown.ranges.clear()
    changes = ChangeSet()
    for number in (2, 3, 4, 7, 29):
        changes[Kind.VM].update(vm_id(number), ("load",))
    _, last = shown.table.rows_on_screen()
    assert last < 29
    shown.model.take(changes)
    assert shown.ranges == [(2, 4), (7, 7)]


def test_the_order_waits_while_the_pointer_is_on_the_list(shown: Shown, qtbot: QtBot) -> None:
    shown.model.sort_by("status", False)
    before = shown.names
    shown.model.hold(True)
    shown.runtime.change(0, VmStatus.CRASHED, StatusCause.CRASHED)
    assert shown.names == before
    assert shown.model.is_held
    shown.model.hold(False)
    assert shown.names != before
    assert shown.names[0] == "web-0"


def test_a_reorder_comes_by_itself_within_a_second(shown: Shown, qtbot: QtBot) -> None:
    shown.model.sort_by("status", False)
    shown.runtime.change(20, VmStatus.CRASHED, StatusCause.CRASHED)
    qtbot.waitUntil(lambda: shown.names[0] == "web-20", timeout=2000)


def test_a_hidden_list_does_no_work_and_catches_up(shown: Shown) -> None:
    shown.model.set_active(False)
    shown.runtime.change(0, VmStatus.PAUSED, StatusCause.USER)
    status = shown.model.columns["status"]
    assert shown.model.text(shown.model.rows[0], status) == "Running"
    shown.model.set_active(True)
    assert shown.model.text(shown.model.rows[0], status) == "Paused"


def test_data_says_what_is_painted(shown: Shown) -> None:
    model = shown.model
    index = model.index(0, model.columns["memory_mib"])
    assert model.data(index, Qt.ItemDataRole.DisplayRole) == "2"
    assert model.data(index, Qt.ItemDataRole.AccessibleTextRole) == "Memory: 2"
    assert model.data(index, Qt.ItemDataRole.TextAlignmentRole) & Qt.AlignmentFlag.AlignRight.value
    assert not model.index(30, 0).isValid()
    assert model.headerData(model.columns["memory_mib"], Qt.Orientation.Horizontal) == "Memory GiB"


def test_control_characters_of_a_host_never_reach_a_line(look: Look, qtbot: QtBot) -> None:
    shown = Shown(runtime_of(1, 1, names=lambda _: "evil\nname\x07\u202e"), look, qtbot)
    assert shown.model.text(shown.model.rows[0], 0) == "evil name  "


def test_select_all_and_invert(shown: Shown) -> None:
    shown.table.selectAll()
    assert shown.table.selected_count == 30
    shown.table.select_ids([vm_id(0)])
    shown.table.invert_selection()
    assert shown.table.selected_count == 29
    assert vm_id(0) not in shown.table.selected_ids


def test_typing_goes_to_the_name(shown: Shown, qtbot: QtBot) -> None:
    qtbot.keyClicks(shown.table, "web-17")
    assert shown.table.selected_ids == [vm_id(17)]


def test_double_click_opens_details_and_delete_does_nothing(shown: Shown, qtbot: QtBot) -> None:
    opened: list[str] = []
    shown.table.opened.connect(opened.append)
    place = shown.table.visualRect(shown.model.index(2, 0)).center()
    qtbot.mouseDClick(shown.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert opened == [vm_id(2)]
    shown.table.selectAll()
    qtbot.keyClick(shown.table, Qt.Key.Key_Delete)
    assert not shown.runtime.effects
    assert len(shown.model.rows) == 30


def test_copy_and_export_give_exactly_what_is_shown(shown: Shown) -> None:
    table = shown.table
    for name in ("activity", "tags", "information", "uptime_s", "cpu", "priority"):
        table.setColumnHidden(shown.model.columns[name], True)
    search(shown.model, "web-4")
    table.selectAll()
    assert table.cells_text() == "web-4\tOff\tn2\t2"
    assert table.as_csv().splitlines() == ["Name,Status,Owner node,Memory GiB", "web-4,Off,n2,2"]
    assert json.loads(table.as_json()) == [
        {"name": "web-4", "status": "Off", "owner": "n2", "memory_mib": 2048}
    ]


def test_columns_and_sort_are_remembered(shown: Shown, look: Look, qtbot: QtBot) -> None:
    views = MemoryViews()
    first = Shown(shown.runtime, look, qtbot, views)
    first.table.show_column(first.model.columns["uuid"], True)
    first.table.show_column(first.model.columns["cpu"], False)
    first.table.setColumnWidth(first.model.columns["name"], 222)
    header = first.table.horizontalHeader()
    header.moveSection(header.visualIndex(first.model.columns["owner"]), 0)
    first.table._sort_clicked(first.model.columns["owner"])
    first.table.save_layout()
    second = Shown(shown.runtime, look, qtbot, views)
    names = [second.model.fields[c].name for c in second.table.shown_columns()]
    assert names[0] == "owner"
    assert "uuid" in names
    assert "cpu" not in names
    assert second.table.columnWidth(second.model.columns["name"]) == 222
    assert second.model.order == (("owner", False),)


def test_a_broken_memory_of_columns_is_forgotten(shown: Shown, look: Look, qtbot: QtBot) -> None:
    views = MemoryViews()
    views.write("table-test", b'{"columns": 7}')
    again = Shown(shown.runtime, look, qtbot, views)
    assert "name" in [again.model.fields[c].name for c in again.table.shown_columns()]


def test_long_names_are_cut_in_the_middle_and_whole_in_the_tooltip(look: Look, qtbot: QtBot) -> None:
    name = "customer-with-a-rather-long-name-production-application-server-" + "x" * 100
    shown = Shown(runtime_of(1, 1, names=lambda _: name), look, qtbot)
    cut = shown.table._fit(shown.table.fontMetrics(), name, 140, True)
    assert "…" in cut
    assert cut[0] == "c"
    assert cut[-1] == "x"
    assert shown.table.tool_tip(0, 0) == name

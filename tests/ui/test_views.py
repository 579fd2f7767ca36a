"""Saved views in the window: chosen, changed, saved, put back, deleted and brought back, given to others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QMenu

from manager.core.ids import Kind
from manager.core.model import StatusCause, VmStatus
from manager.core.query.views import BUILT_IN, View
from manager.services.saved_views import NAME, SavedViews, file_of
from manager.ui.tally import COUNTED, GLANCE, RETESTED, Tally
from manager.ui.views.navigation import COUNT, Place
from manager.ui.views.overview import Overview
from manager.ui.views.saved_views import NameDialog
from tests.ui.cluster_of import MemoryViews, runtime_of, vm_config, vm_id
from tests.ui.conftest import Desk, OpenDesk, until

MINE = View(
    id="",
    name="Mine",
    kind=Kind.VM,
    query="owner:n1",
    columns=(("name", 170), ("owner", 90), ("status", 0)),
    sort=(("name", True),),
    group="status",
)


def kept(*views: View) -> MemoryViews:
    store = MemoryViews()
    for view in views:
        SavedViews(store).change(lambda found, view=view: found.add(view)[0])  # type: ignore[misc]
    return store


def menu(desk: Desk) -> dict[str, QAction]:
    made = QMenu(desk.window)
    desk.page.shown.fill(made)
    return {action.text(): action for action in made.actions()}


def titles(desk: Desk, page: str = "roles") -> list[str]:
    tree = desk.window.navigation
    return [tree._items[p].text(0) for p in in_tree(desk, page)]


def in_tree(desk: Desk, page: str = "roles") -> list[Place]:
    tree = desk.window.navigation
    root = tree._items[Place(desk.runtime.id, page)]
    places = [root.child(at).data(0, Qt.ItemDataRole.UserRole) for at in range(root.childCount())]
    return [place for place in places if not place.scope.startswith("node:")]


def count(desk: Desk, scope: str, page: str = "roles") -> str:
    desk.window._show_counts()
    return str(desk.window.navigation._items[Place(desk.runtime.id, page, scope)].data(0, COUNT))


def go(desk: Desk, scope: str, page: str = "roles") -> None:
    assert desk.window.navigation.go(Place(desk.runtime.id, page, scope))


def names(desk: Desk) -> list[str]:
    return [row.item.name for row in desk.page.model.rows]


async def name_it(desk: Desk, name: str) -> None:
    """Give the name that is asked for."""

    def find() -> NameDialog | None:
        return next((d for d in desk.window.findChildren(NameDialog) if d.isVisible()), None)

    await until(find, "the question")
    dialog = find()
    assert dialog is not None
    dialog.field.setText(name)
    QTest.keyClick(dialog.field, Qt.Key.Key_Return)
    await until(lambda: find() is None, "its end")


async def test_a_view_sets_query_columns_sort_and_groups_and_all_is_as_it_was(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12), views=kept(MINE))
    table = desk.page.table
    table.rows_model.sort_by("owner", False)
    before = table.layout_now()
    go(desk, "own-1")
    assert desk.page.search.text() == "owner:n1"
    assert [table.rows_model.fields[c].name for c in table.shown_columns()] == ["name", "owner", "status"]
    assert table.rows_model.order == (("name", True),)
    assert table.rows_model.group_field == "status"
    assert names(desk) == sorted(names(desk), reverse=True)
    assert {row.item.owner for row in desk.page.model.rows} == {"n1"}
    assert desk.page.scope_title == "Mine"
    assert not desk.page.shown.is_changed
    assert not desk.page.shown.revert_button.isVisible()
    table.save_layout()
    assert desk.views.kept["table-vm"] != b""
    go(desk, "by-node")
    assert (table.rows_model.group_field, desk.page.search.text()) == ("owner", "")
    assert table.rows_model.order == (("owner", False),)
    table.save_layout()
    again = await open_desk(runtime_of(3, 12), views=desk.views)
    assert again.page.table.rows_model.group_field == ""  # a view is not how the list is from now on
    go(desk, "")
    assert table.layout_now() == before
    assert desk.page.scope_title == ""
    assert len(names(desk)) == 12


async def test_a_view_is_shown_by_one_arrangement_of_the_list(open_desk: OpenDesk) -> None:
    desk = await open_desk(views=kept(MINE))
    resets: list[list[str]] = []
    desk.page.model.modelReset.connect(lambda: resets.append(names(desk)))
    go(desk, "own-1")
    shown = names(desk)
    assert resets == [shown], "query, order and groups at once"
    go(desk, "")
    assert len(resets) == 2


async def test_what_is_changed_is_marked_put_back_and_saved_by_a_key(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12), views=kept(MINE))
    go(desk, "own-1")
    page, shown = desk.page, desk.page.shown
    page.search.show_query("owner:n2")
    assert shown.revert_button.isVisible()
    shown.revert_button.click()
    assert (page.search.text(), shown.revert_button.isVisible()) == ("owner:n1", False)
    page.table.group_by("owner")
    page.table.save_layout()
    assert shown.revert_button.isVisible()
    page.table.show_column(page.model.columns["uptime_s"], True)
    page.search.setText("owner:n1 status:running")
    QTest.keyClick(desk.window, Qt.Key.Key_S, Qt.KeyboardModifier.ControlModifier)
    saved = SavedViews(desk.views).read().own[0]
    assert (saved.name, saved.query, saved.group) == ("Mine", "owner:n1 status:running", "owner")
    assert [name for name, _ in saved.columns] == ["name", "owner", "status", "uptime_s"]
    assert saved.columns[0] == ("name", 170)
    assert not shown.revert_button.isVisible()
    go(desk, "")
    go(desk, "own-1")
    assert (page.search.text(), page.model.group_field) == ("owner:n1 status:running", "owner")
    assert not shown.is_changed


async def test_a_search_becomes_a_view_under_a_name_of_its_own(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12))
    desk.page.search.show_query("owner:n1,n2")
    assert not desk.page.shown.revert_button.isVisible()  # nobody saved anything that could differ
    QTest.keyClick(desk.window, Qt.Key.Key_S, Qt.KeyboardModifier.ControlModifier)
    await until(lambda: desk.window.findChildren(NameDialog), "the question")
    dialog = desk.window.findChildren(NameDialog)[0]
    for wrong, says in (("  ", "1 to 60"), ("running", "There is a view running already.")):
        dialog.field.setText(wrong)
        QTest.keyClick(dialog.field, Qt.Key.Key_Return)
        assert dialog.isVisible()
        assert says in dialog.note.text()
    await name_it(desk, "n1 & n2")
    await until(lambda: desk.page.scope_title == "n1 & n2")
    assert desk.window.navigation.place == Place(desk.runtime.id, "roles", "own-1")
    assert titles(desk)[-1] == "n1 & n2"
    assert len(names(desk)) == 8
    await until(lambda: count(desk, "own-1") == "8", "the number, which is counted a moment later")
    assert "n1 && n2" in menu(desk)


async def test_own_views_are_renamed_copied_moved_deleted_and_brought_back(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12), views=kept(MINE))
    built_in = len(BUILT_IN[Kind.VM]) - 1
    assert not any(menu(desk)[title].isEnabled() for title in ("Rename…", "Delete", "Move up", "Save"))
    go(desk, "own-1")
    menu(desk)["Rename…"].trigger()
    await name_it(desk, "Ours")
    await until(lambda: titles(desk)[built_in:] == ["Ours"], "the new name")
    assert desk.page.scope_title == "Ours"
    menu(desk)["Duplicate"].trigger()
    assert titles(desk)[built_in:] == ["Ours", "Ours copy"]
    assert desk.page.scope_title == "Ours copy"
    assert not menu(desk)["Move down"].isEnabled()
    menu(desk)["Move up"].trigger()
    assert titles(desk)[built_in:] == ["Ours copy", "Ours"]
    assert desk.window.navigation.place == Place(desk.runtime.id, "roles", "own-2")
    menu(desk)["Use at start"].trigger()
    before = SavedViews(desk.views).read()
    menu(desk)["Delete"].trigger()
    assert titles(desk)[built_in:] == ["Ours"]
    assert desk.window.here == Place(desk.runtime.id, "roles", "")
    assert (desk.page.scope_title, desk.page.search.text()) == ("", "")
    assert SavedViews(desk.views).read().start is None
    note = desk.window.notes[-1]
    assert note.label.text() == "The view Ours copy was deleted."
    note.buttons[0].click()
    assert SavedViews(desk.views).read() == before
    assert desk.page.scope_title == "Ours copy"


async def test_a_view_goes_to_somebody_else_as_a_file(open_desk: OpenDesk, tmp_path: Path) -> None:
    desk = await open_desk(runtime_of(3, 12), views=kept(MINE))
    keeper = desk.window.saved_views
    keeper.export_to(tmp_path / "mine.json", keeper.views.own[0])
    assert (tmp_path / "mine.json").read_bytes() == file_of([MINE])
    keeper.import_from(tmp_path / "mine.json")
    assert desk.page.scope_title == "Mine 2"
    assert names(desk)
    (tmp_path / "wrong.json").write_text("{}")
    keeper.import_from(tmp_path / "wrong.json")
    assert "not views that Muster can read" in desk.window.notes[-1].label.text()
    keeper.export_to(tmp_path / "none" / "x.json", keeper.views.own[0])
    assert "was not written" in desk.window.notes[-1].label.text()
    assert len(keeper.views.own) == 2


async def test_the_window_begins_with_the_view_that_was_chosen(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12), views=kept(MINE))
    go(desk, "paused", "nodes")
    menu(desk)["Use at start"].trigger()
    again = await open_desk(runtime_of(3, 12), views=desk.views)
    assert again.window.here == Place(desk.runtime.id, "nodes", "paused")
    assert menu(again)["Use at start"].isChecked()
    menu(again)["Use at start"].trigger()
    assert SavedViews(desk.views).read().start is None


async def test_what_another_program_saved_shows_and_is_not_lost(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12))
    SavedViews(desk.views).change(lambda views: views.add(MINE)[0])
    assert "Mine" in menu(desk)
    assert titles(desk)[-1] == "Mine"
    desk.views.write(NAME, b'{"muster_views": 9, "views": []}')
    assert any("newer Muster" in title for title in menu(desk))
    menu(desk)["Duplicate"].trigger()
    assert "newer Muster" in desk.window.notes[-1].label.text()
    assert b"9" in desk.views.kept[NAME]


async def test_every_cluster_has_the_views(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12), runtime_of(2, 6, name="other"), views=kept(MINE))
    go(desk, "own-1")
    desk.window.travel.next_cluster()
    assert desk.page.scope_title == "Mine"
    assert {row.item.owner for row in desk.page.model.rows} == {"n1"}
    desk.page.search.show_query("owner:n2")
    desk.window.lists.save_view()
    desk.window.travel.next_cluster()
    assert desk.page.search.text() == "owner:n2"
    assert not desk.page.shown.is_changed


async def test_views_are_found_by_name_and_say_when_they_are_empty(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12))
    for view in BUILT_IN[Kind.VM]:
        desk.window.show_view(view)
        assert desk.page.shown.view == view
        assert not desk.page.shown.is_changed
    go(desk, "attention")
    assert "No VM: Needs attention" in desk.page.empty_text()[0]
    go(desk, "paused", "nodes")
    assert desk.page.empty_text()[0] == "No node: Paused"
    desk.window.travel.go_back()
    assert desk.page.scope_title == "Needs attention"


async def test_a_link_of_the_overview_opens_the_view_behind_its_number(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12))
    desk.runtime.change(2, VmStatus.CRASHED, StatusCause.CRASHED)
    await desk.settle()
    desk.page.search.show_query("owner:n1")
    desk.window.go_page("overview")
    page = desk.window.pages.currentWidget()
    assert isinstance(page, Overview)
    await until(page.need_attention.isEnabled, "the count")
    page.need_attention.click()
    desk.page.search.flush()
    assert [row.key for row in desk.page.model.rows] == [vm_id(2)]
    assert not desk.page.shown.is_changed
    page.statuses[VmStatus.RUNNING][1].click()
    desk.page.search.flush()
    assert desk.page.scope_title == ""
    assert len(desk.page.model.rows) == 11


def test_counts_follow_changes_as_if_counted_anew() -> None:
    bad = vm_config(3, host_devices=("PCI 0000:3b:00.0",))
    runtime = runtime_of(3, 12, off=frozenset({5}), configs={3: bad})
    views = SavedViews(kept(MINE, View(id="", name="w", kind=Kind.VM, query="n2 or memory>1GiB"))).read()
    tally = Tally(runtime.view)
    tally.follow(views)
    runtime.subscribe(tally.take)

    def counts(tally: Tally) -> dict[tuple[Kind, str], set[str]]:
        return {(m.of.kind, m.of.id): set(m.keys) for m in tally.followed}

    for number, status, cause in (
        (0, VmStatus.CRASHED, StatusCause.CRASHED),
        (1, VmStatus.PAUSED, StatusCause.IO_ERROR),
        (2, VmStatus.OFF, StatusCause.SHUT_DOWN),
        (0, VmStatus.RUNNING, StatusCause.BOOTED),
    ):
        runtime.change(number, status, cause)
        fresh = Tally(runtime.view)
        fresh.follow(views)
        for one in (tally, fresh):
            one.work()
        assert counts(tally) == counts(fresh)
    assert tally.attention == {vm_id(1)}
    assert {m.of.kind for m in tally.followed} == set(COUNTED)


def test_a_change_tests_what_it_is_about_only(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_of(3, 200)
    tally = Tally(runtime.view)
    runtime.subscribe(tally.take)
    tally.work()
    asked: list[str] = []
    see = type(tally.followed[0])._see
    monkeypatch.setattr(
        type(tally.followed[0]), "_see", lambda self, key: (asked.append(key), see(self, key))[1]
    )
    runtime.change(7, VmStatus.CRASHED, StatusCause.CRASHED)
    tally.work()
    assert vm_id(7) in asked
    assert {key for key in asked if key.startswith(vm_id(0)[:8])} <= {vm_id(7)}
    assert tally.attention == {vm_id(7)}


def test_counting_is_spread_over_turns_and_a_number_is_told_when_it_is_known() -> None:
    runtime = runtime_of(3, 400)
    tally = Tally(runtime.view)
    running = next(m for m in tally.followed if m.of.id == "running")
    assert tally.is_behind
    assert running.count is None
    turns = 0
    while tally.is_behind:
        tally.work(1e-6)
        turns += 1
    assert turns > 400 // GLANCE
    assert running.count == 400


def test_what_the_clock_alone_changes_is_counted_again_bit_by_bit() -> None:
    runtime = runtime_of(2, 20)
    runtime.change(1, VmStatus.OFF, StatusCause.SHUT_DOWN)
    tally = Tally(runtime.view)
    tally.work()
    recent = next(m for m in tally.followed if m.of.id == "changed")
    assert vm_id(1) in recent.keys
    runtime.clock.at_s += 7200
    runtime.change(2, VmStatus.OFF, StatusCause.SHUT_DOWN)
    assert vm_id(1) in recent.keys
    for _ in range(2 + 20 // RETESTED):
        tally.ask_some()
        tally.work()
    assert recent.keys == {vm_id(2)}


async def test_storage_networks_and_events_have_views_too(open_desk: OpenDesk) -> None:
    mine = (
        View(id="", name="Large pools", kind=Kind.POOL, query="capacity>1TiB"),
        View(id="", name="Bridges", kind=Kind.NETWORK, query="type:bridge"),
        View(id="", name="By node", kind=Kind.EVENT, query="is:attention", group="node"),
    )
    desk = await open_desk(runtime_of(3, 12), views=kept(*mine))
    for page, view in zip(("storage", "networks", "events"), desk.window.saved_views.views.own, strict=True):
        assert titles(desk, page) == [each.name for each in (*BUILT_IN[view.kind][1:], view)]
        desk.window.show_view(view)
        assert desk.window.here == Place(desk.runtime.id, page, view.id)
        assert (desk.page.kind, desk.page.search.text()) == (view.kind, view.query)
        assert desk.page.model.group_field == view.group
        assert desk.page.scope_title == view.name
        assert not desk.page.shown.is_changed

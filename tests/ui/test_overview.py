"""The overview: what it says at each moment, where its numbers lead, and that it fits on one page."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from manager.core import events as ev
from manager.core.actions import LIVE_MIGRATE
from manager.core.ids import Kind, NodeId
from manager.core.model import NodeLoad, StatusCause, VmLoad, VmStatus
from manager.ui.dialogs.palette import CommandPalette
from manager.ui.views.overview import Line, Overview
from manager.ui.views.problems_pane import NoteDialog
from tests.ui.cluster_of import FakeRuntime, runtime_of, vm_id
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.test_events import recording
from tests.ui.test_window import wait_for


def overview_of(desk: Desk) -> Overview:
    desk.window.go_page("overview")
    page = desk.window.pages.currentWidget()
    assert isinstance(page, Overview)
    return page


def told(lines: list[Line]) -> list[str]:
    return [line.link.whole for line in lines if line.isVisible()]


async def test_the_state_in_numbers_that_lead_to_their_vms(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12, off=frozenset({0, 4})))
    page = overview_of(desk)
    assert page.state.heading.text() == "State  12 roles on 3 nodes"
    _, off = page.statuses[VmStatus.OFF]
    assert off.text() == "2 Off"
    assert not page.statuses[VmStatus.CRASHED][1].isEnabled()
    off.click()
    desk.page.search.flush()
    assert {row.key for row in desk.page.model.rows} == {vm_id(0), vm_id(4)}
    assert desk.page.table.hasFocus()


async def test_work_of_anyone_and_the_button_that_stops_all(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    page = overview_of(desk)
    assert page.now.nothing.isVisible()
    seen = ev.ForeignJobSeen(
        at_s=desk.runtime.clock.at_s, node=NodeId("n2"), vm=vm_id(1), active=True, what="backup"
    )
    desk.runtime.dispatch(seen)
    desk.runtime.request(LIVE_MIGRATE.plan(desk.runtime.view, [vm_id(0), vm_id(3)]))
    await desk.settle()
    await until(lambda: len(told(page.now.lines)) == 2)
    ours, others = told(page.now.lines)
    assert ours.startswith("Live migrate 2 VMs, adm@here at ")
    assert others.startswith("web-1: backup by someone else since ")
    assert page.moves.text() == "2 moving, 0 waiting"
    assert page.pause.text() == "Pause all work"
    page.pause.click()
    await until(lambda: page.pause.text() == "Continue all work")
    assert desk.runtime.view.orders.paused_by == "adm@here"
    page.now.lines[1].link.click()
    assert desk.page.selected_ids == [vm_id(1)]


async def test_problems_are_acknowledged_and_muted_from_here(open_desk: OpenDesk) -> None:
    desk = await open_desk(recording())
    for number in (1, 2):
        desk.runtime.change(number, VmStatus.CRASHED, StatusCause.CRASHED)
    page = overview_of(desk)
    await desk.settle()
    await until(lambda: page.attention.heading.text() == "Needs attention  2")
    first = page.attention.lines[0]
    mine = first.key
    acknowledge, mute = (first.row.itemAt(at).widget() for at in (2, 3))
    QTest.mouseClick(acknowledge, Qt.MouseButton.LeftButton)
    dialog = await wait_for(desk, NoteDialog)
    assert isinstance(dialog, NoteDialog)
    dialog.field.setText("on it")
    dialog.accept()
    await until(lambda: page.attention.heading.text() == "Needs attention  1")
    assert first.key != mine
    mute.menu().actions()[0].trigger()  # type: ignore[attr-defined]
    await until(lambda: page.attention.nothing.isVisible())
    assert told(page.attention.lines) == []


async def test_a_problem_leads_to_its_vm(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.runtime.change(2, VmStatus.CRASHED, StatusCause.CRASHED)
    page = overview_of(desk)
    await until(lambda: told(page.attention.lines))
    assert told(page.attention.lines)[0].startswith("web-2: crashed")
    page.attention.lines[0].link.click()
    assert desk.page.selected_ids == [vm_id(2)]


def sample(runtime: FakeRuntime, node: str, **percent: float) -> None:
    loads = {vm_id(int(key[2:])): VmLoad(cpu_percent=value) for key, value in percent.items()}
    runtime.dispatch(
        ev.NodeSampled(at_s=runtime.clock.at_s, node=NodeId(node), load=NodeLoad(cpu_percent=42.0), vms=loads)
    )


async def test_the_busiest_stand_first(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    page = overview_of(desk)
    assert "overview" in desk.runtime.sampler.wanted
    sample(desk.runtime, "n1", vm0=12.0, vm3=93.0, vm6=40.0)
    await until(lambda: told(page.busiest.lines)[:3] == ["web-3 on n1", "web-6 on n1", "web-0 on n1"])
    number = page.busiest.lines[0].number
    assert number is not None
    assert number.text() == "93 %"
    number.click()
    assert desk.page.selected_ids == [vm_id(3)]
    assert "overview" not in desk.runtime.sampler.wanted


async def test_the_last_day_is_counted_and_leads_to_its_events(open_desk: OpenDesk) -> None:
    runtime = recording()
    desk = await open_desk(runtime)
    page = overview_of(desk)
    assert page.past_since.text() == "nothing is recorded yet"
    assert not page.happened["stopped or saved"].isEnabled()
    runtime.change(1, VmStatus.OFF, StatusCause.SHUT_DOWN)
    runtime.change(2, VmStatus.CRASHED, StatusCause.CRASHED)
    await until(lambda: page.happened["stopped or saved"].text() == "1 stopped or saved")
    assert page.happened["crashed"].text() == "1 crashed"
    assert page.happened["new problem"].text() == "1 new problem"
    assert page.errors.isEnabled()
    assert page.past_since.text().startswith("recorded since ")
    page.happened["stopped or saved"].click()
    desk.page.search.flush()
    assert desk.page.kind is Kind.EVENT
    assert [row.item.vm for row in desk.page.model.rows] == [vm_id(1)]


@pytest.mark.parametrize(("nodes", "heat"), [(4, False), (16, False), (17, True), (64, True)])
async def test_all_of_it_is_seen_without_scrolling(open_desk: OpenDesk, nodes: int, heat: bool) -> None:
    desk = await open_desk(runtime_of(nodes, nodes * 3))
    desk.window.resize(1366, 768)
    page = overview_of(desk)
    await desk.settle()
    for number in range(20):
        desk.runtime.change(number % (nodes * 3), VmStatus.CRASHED, StatusCause.CRASHED)
    await until(lambda: told(page.attention.lines))
    assert (page.heat is not None) is heat
    assert page.verticalScrollBar().maximum() == 0
    assert page.horizontalScrollBar().maximum() == 0
    for section in (page.state, page.attention, page.nodes, page.now, page.busiest, page.storage, page.past):
        assert section.isVisible()
        assert page.viewport().rect().contains(section.geometry())
    desk.window.resize(1024, 700)
    await desk.settle()
    assert page.horizontalScrollBar().maximum() == 0


async def test_a_cell_of_the_heat_map_opens_its_node_by_keys(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(20, 40))
    page = overview_of(desk)
    heat = page.heat
    assert heat is not None
    heat.setFocus()
    QTest.keyClick(heat, Qt.Key.Key_Right)
    assert heat.accessibleDescription().startswith("n2\nUp")
    QTest.keyClick(heat, Qt.Key.Key_Down)
    QTest.keyClick(heat, Qt.Key.Key_Return)
    assert desk.page.selected_ids == [f"n{2 + heat.columns}"]
    desk.window.go_page("overview")
    QTest.mouseClick(heat, Qt.MouseButton.LeftButton, pos=heat.area_of(4).center())
    assert desk.page.selected_ids == ["n5"]


async def test_it_is_reached_by_name(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.window.open_palette()
    palette = next(p for p in desk.window.findChildren(CommandPalette) if p.isVisible())
    palette.field.setText("overview")
    QTest.keyClick(palette.field, Qt.Key.Key_Return)
    assert isinstance(desk.window.pages.currentWidget(), Overview)

"""The queue pane: rows and their order, batches, pauses, limits, places, failures, details, history."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPushButton

from manager.core import tree, units
from manager.core.actions import ACTIONS, MigrateParameters
from manager.core.changes import ChangeSet, LogEntry
from manager.core.effects import AbortMigration, TuneMigration
from manager.core.events import QueueVerb
from manager.core.ids import Kind, NodeId, OperationId
from manager.core.migration.moves import MoveStep
from manager.core.migration.progress import MovePhase
from manager.core.model import Convergence, MigrationLimits, NodeFacts, RetryPolicy
from manager.core.operations import Operation, OperationState
from manager.core.reasons import ReasonCode
from manager.ui.dialogs.base import Asking
from manager.ui.dialogs.migrate import MigrateDialog
from manager.ui.models import tones
from manager.ui.models.queue import QueueWatch, placed, stepped
from manager.ui.views import move_plot, queue_pane
from manager.ui.views.limits_popup import LimitsPopup
from manager.ui.views.move_detail import next_pause_ms, policy_of, policy_text
from manager.ui.views.queue_pane import RECENT_S, QueuePane
from tests.ui.cluster_of import FakeRuntime, runtime_of, search, vm_config, vm_id
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.moves_of import arrive, ask, check, fail, figures, move, others, stick
from tests.ui.test_window import dialog_of, wait_for

LONGEST_S = 0.05


def queue_of(desk: Desk) -> QueuePane:
    """The pane, shown."""
    desk.window.show_pane("migrations")
    return desk.window.clusters[desk.runtime.id].queue


def names(pane: QueuePane) -> list[str]:
    """The VMs of the rows that are shown, from the top."""
    return [row.item.vm_name for row in pane.table.rows_model.rows]


def cells(pane: QueuePane, number: int) -> dict[str, str]:
    """The texts of a VM's row, by field."""
    model = pane.table.rows_model
    row = next(r for r in model.rows if r.item.vm == vm_id(number))
    return {spec.name: model.text(row, column) for column, spec in enumerate(model.fields)}


def choose(pane: QueuePane, *numbers: int) -> None:
    """Select the rows of these VMs."""
    rows = {row.item.vm: row.key for row in pane.table.rows_model.rows}
    keys = [rows[vm_id(n)] for n in numbers]
    pane.table.select_ids(keys, current=keys[0])


async def settle(desk: Desk) -> None:
    """Everything is told, and rows have their places."""
    await desk.settle()
    pane = desk.window.clusters[desk.runtime.id].queue
    pane.model._arrange(sort=True)
    pane._tell()
    QApplication.processEvents()


def keep_steering(pane: QueuePane) -> list[tuple[QueueVerb, dict[str, Any]]]:
    """What is asked of the queue from now on."""
    asked: list[tuple[QueueVerb, dict[str, Any]]] = []
    pane.steer_wanted.connect(lambda verb, what: asked.append((verb, what)))
    return asked


# --- rows ------------------------------------------------------------------------------------


async def test_rows_stand_in_the_order_of_their_turn_with_all_columns(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 18))
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, 9, target=NodeId("n2"))  # all on n1: two go, two wait; 3 and 9 are Medium
    check(desk.runtime)
    running = [n for n in (0, 3, 6, 9) if move(desk.runtime, n).state is OperationState.RUNNING]
    waiting = [n for n in (0, 3, 6, 9) if n not in running]
    figures(desk.runtime, running[0], 0.41, rate=480, dirty=90, iteration=3)
    await settle(desk)
    assert [row.item.vm for row in pane.model.rows] == [vm_id(n) for n in (*running, *waiting)]
    shown = [pane.model.fields[c].title for c in pane.table.shown_columns()]
    assert shown == [
        "#", "VM", "From → to", "Priority", "Phase", "Progress", "MiB/s", "Dirty", "Left", "Iter", "Down",
        "Elapsed", "ETA", "Try", "Reason",
    ]  # fmt: skip
    found = cells(pane, running[0])
    assert (found["place"], found["way"], found["phase"]) == ("1", "n1 → n2", "Copying")
    assert (found["percent"], found["rate"], found["dirty"]) == ("41 %", "480", "90")
    assert (found["remaining"], found["iteration"], found["downtime"]) == ("590 MiB", "3", "420")
    assert (found["elapsed"], found["eta"], found["attempt"]) == ("0:01", "0:01", "1")
    last = cells(pane, waiting[1])
    assert (last["place"], last["phase"]) == ("4", "Waiting")
    assert last["reason"] == "n1 gives 2 of 2 outgoing moves; 2nd in line"
    assert pane.tabs.tabText(0) == "Queue  4"
    assert pane.used.text() == "480 MiB/s of 100 MiB/s used"


async def test_a_waits_reason_is_spread_over_the_figures_it_has_not(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 9))
    desk.window.resize(1400, 860)
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    check(desk.runtime)
    figures(desk.runtime, 0, 0.5)
    await settle(desk)
    table, model = pane._queue_table, pane.model
    by_vm = {row.item.vm: row for row in model.rows}
    assert table._spanned(by_vm[vm_id(0)]) is None
    spread = next(r for r in model.rows if r.item.state is OperationState.WAITING)
    spanned = table._spanned(spread)
    assert spanned is not None
    covered = {model.fields[c].name for c in spanned[0]}
    assert {"percent", "rate", "dirty", "remaining", "eta", "attempt", "reason"} <= covered
    assert not covered & {"place", "vm", "way", "phase"}
    needed = table.fontMetrics().horizontalAdvance(model.text(spread, model.columns["reason"]))
    assert spanned[1].width() > needed
    # Where it lies it is also told whole.
    tip = table.tool_tip(model.position(spread.key), model.columns["rate"])
    assert tip.startswith("n1 gives 2 of 2 outgoing moves")
    picture = table.grab().toImage()
    place = model.position(spread.key)
    top = table.horizontalHeader().height() + place * table.row_height
    colours = {
        picture.pixelColor(x, top + y).name()
        for x in range(spanned[1].left() + 8, spanned[1].left() + 60)
        for y in range(table.row_height)
    }
    assert len(colours) > 3, "no text is painted there"


async def test_the_bar_never_falls_and_is_full_only_at_the_end(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0)
    check(desk.runtime)
    seen = []
    for done in (0.6, 0.2, 1.0):
        figures(desk.runtime, 0, done)
        await settle(desk)
        seen.append(cells(pane, 0)["percent"])
    arrive(desk.runtime, 0)
    await settle(desk)
    assert [*seen, cells(pane, 0)["percent"]] == ["60 %", "60 %", "99 %", "100 %"]


async def test_what_ended_leaves_the_queue_after_a_while_and_stays_in_the_history(
    open_desk: OpenDesk,
) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0)
    check(desk.runtime)
    arrive(desk.runtime, 0)
    await settle(desk)
    assert names(pane) == ["web-0"]
    desk.runtime.clock.at_s += RECENT_S + 1
    pane._aged()
    assert names(pane) == []
    assert not pane.empty.isHidden()
    pane.show_tab("history")
    await desk.settle()
    assert names(pane) == ["web-0"]
    assert cells(pane, 0)["state"] == "Done"
    assert cells(pane, 0)["author"] == "adm@here"


async def test_jobs_of_others_are_grey_rows_that_nobody_can_steer(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    others(desk.runtime, 4)
    began = units.time_text(desk.runtime.clock.at_s)
    await settle(desk)
    assert names(pane) == ["web-0", "web-3", "web-4", "web-6"]  # behind what runs, before what waits
    found = cells(pane, 4)
    assert (found["phase"], found["author"], found["place"]) == ("Backup", "other", "")
    assert found["reason"] == f"backup by someone else since {began}"
    row = next(r for r in pane.model.rows if r.item.vm == vm_id(4))
    assert tones.token(Kind.OPERATION, "vm", row.item, "web-4") == "dim"
    choose(pane, 4)
    await desk.settle()
    assert not pane.cancel_button.isEnabled()
    assert pane.detail.advice.text() == (
        f"A backup that is not Muster's holds web-4 on n2 since {began}. "
        "What is asked of this VM waits until it has ended."
    )
    assert pane.detail.cancel_button.isHidden()
    assert pane.tabs.tabText(0) == "Queue  4"
    others(desk.runtime, 4, active=False)
    others(desk.runtime, 4, "migration")
    await settle(desk)
    said = "It counts for the limits. What is asked"
    await until(lambda: said in pane.detail.advice.text(), said)
    others(desk.runtime, 4, active=False)
    await settle(desk)
    assert "web-4" not in names(pane)
    assert pane.tabs.tabText(0) == "Queue  3"


async def test_starts_and_saves_wait_in_the_same_queue(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(1, 8, off=frozenset(range(8))))
    pane = queue_of(desk)
    desk.select(*range(8))
    desk.press("vm.start")
    await until(lambda: len(desk.runtime.effects) == 4, "four starts")
    await settle(desk)
    assert len(pane.model.rows) == 8
    phases = [cells(pane, row.item.order)["phase"] for row in pane.model.rows]
    assert sorted(phases) == ["Start"] * 4 + ["Waiting"] * 4


async def test_search_finds_and_clears(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    await settle(desk)
    pane.table.setFocus()
    desk.window.commands.search.trigger()
    assert QApplication.focusWidget() is pane.search
    QTest.keyClicks(pane.search, "web-3")
    QTest.keyClick(pane.search, Qt.Key.Key_Down)
    assert names(pane) == ["web-3"]
    assert QApplication.focusWidget() is pane.table
    pane.search.setText("nothing is called so")
    pane.search.flush()
    assert "None of 3 matches" in pane.empty.title.text()
    QTest.keyClick(pane.search, Qt.Key.Key_Escape)
    pane.search.flush()
    assert len(names(pane)) == 3


async def test_a_search_from_the_timeline_is_one_of_the_queue(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    pane.show_tab("timeline")
    pane.timeline.timeline.setFocus()
    desk.window.commands.search.trigger()
    assert pane.tab == "queue"
    assert QApplication.focusWidget() is pane.search


# --- batches and standing orders ---------------------------------------------------------------


async def test_a_batch_says_how_far_it_is_and_its_bar_never_falls(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 18))
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, 9, target=NodeId("n2"))
    check(desk.runtime)
    running = [n for n in (0, 3, 6, 9) if move(desk.runtime, n).state is OperationState.RUNNING]
    figures(desk.runtime, running[0], 0.5)
    await settle(desk)
    (line,) = pane.above.batches
    assert line.title.text().startswith("Live migrate 4 VMs (adm@here, ")
    assert line.told.text() == "0 of 4 moved · 2 running · 2 waiting"
    assert line.percent.text() == "12 %"
    arrive(desk.runtime, running[0])
    await settle(desk)
    assert line.told.text().startswith("1 of 4 moved · 2 running · 1 waiting")
    assert line.percent.text() == "25 %"
    line._share = 0.9
    await settle(desk)
    assert line.percent.text() == "90 %"  # as the bar of a row
    pane.cancel_all_wanted.emit()
    (await wait_for(desk, Asking)).accept()
    (last,) = (n for n in running if n != running[0])
    await until(lambda: move(desk.runtime, last).state is OperationState.CANCELLING, "the cancel")
    arrive(desk.runtime, last)  # too late
    await until(lambda: not desk.runtime.view.claims, "the end")
    await settle(desk)
    assert pane.above.batches == []


async def test_of_many_batches_the_newest_have_a_line(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 30))
    pane = queue_of(desk)
    for number in range(0, 30, 6):
        ask(desk.runtime, number, number + 3, target=NodeId("n2"))
    await settle(desk)
    assert len(pane.above.batches) == 3
    assert pane.above.more.text() == "2 more batches under way: see Operations"
    assert pane.above.more.isVisible()


async def test_one_vm_alone_has_no_line_of_a_batch(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0)
    await settle(desk)
    assert pane.above.batches == []


async def test_a_batch_with_too_many_failures_asks_and_goes_on(open_desk: OpenDesk) -> None:
    limits = MigrationLimits(retry=RetryPolicy(times=0, batch_failures=1, batch_percent=1, target_failures=9))
    desk = await open_desk(runtime_of(3, 18, migration=limits))
    pane = queue_of(desk)
    batch = ask(desk.runtime, 0, 3, 6, 9, target=NodeId("n2"))
    check(desk.runtime)
    running = [n for n in (0, 3, 6, 9) if move(desk.runtime, n).state is OperationState.RUNNING]
    fail(desk.runtime, running[0])
    await settle(desk)
    (line,) = pane.above.batches
    assert line.told.text().endswith(" · is paused: 1 of 4 failed")
    assert not line.go_on.isHidden()
    asked = keep_steering(pane)
    line.go_on.click()
    assert asked == [(QueueVerb.RESUME, {"operations": (batch,)})]
    await settle(desk)
    assert "paused" not in line.told.text()
    assert line.go_on.isHidden()
    desk.runtime.steer(QueueVerb.PAUSE, operations=(batch,))
    at = units.time_text(desk.runtime.clock.at_s)
    await settle(desk)
    assert line.told.text().endswith(f" · was paused by adm@here {at}")


async def test_one_vm_alone_that_waits_for_a_word_has_a_line_too(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, target=NodeId("n2"))
    one = ask(desk.runtime, 6, target=NodeId("n2"))
    await settle(desk)
    assert len(pane.above.batches) == 1
    desk.runtime.steer(QueueVerb.PAUSE, operations=(one,))
    await settle(desk)
    line = pane.above.batches[0]
    assert line.key == one
    line.go_on.click()
    await settle(desk)
    assert not desk.runtime.view.orders.paused_batches


async def test_a_paused_queue_says_so_and_continues(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    check(desk.runtime)
    await settle(desk)
    assert pane.above.notices == []
    pane.pause_button.click()
    await settle(desk)
    (notice,) = pane.above.notices
    since = units.time_text(desk.runtime.clock.at_s)
    assert notice.label.text() == f"Paused by adm@here since {since}: nothing new starts; 2 run on."
    assert pane.pause_button.text() == "Continue"
    notice.button.click()
    await settle(desk)
    assert not desk.runtime.view.orders.paused_by
    assert pane.above.notices == []
    assert pane.pause_button.text() == "Pause queue"


async def test_the_button_that_continues_is_there_as_long_as_the_pause(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    check(desk.runtime)
    pane.pause_button.click()
    await settle(desk)
    (notice,) = pane.above.notices
    notice.button.setFocus()
    QTest.mousePress(notice.button, Qt.MouseButton.LeftButton)
    (ends, _) = (n for n in (0, 3, 6) if move(desk.runtime, n).state is OperationState.RUNNING)
    arrive(desk.runtime, ends)
    await settle(desk)
    assert notice.button.hasFocus()
    for text in (notice.label.text(), notice.label.toolTip(), notice.accessibleName()):
        assert "nothing new starts; 1 runs on." in text
    QTest.mouseRelease(notice.button, Qt.MouseButton.LeftButton)
    assert not desk.runtime.view.orders.paused_by
    await settle(desk)
    assert pane.above.notices == []


async def test_a_target_that_rests_is_fed_again_by_a_button(open_desk: OpenDesk) -> None:
    limits = MigrationLimits(retry=RetryPolicy(times=0, target_failures=1, batch_failures=99))
    desk = await open_desk(runtime_of(3, 18, migration=limits))
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    check(desk.runtime)
    running = [n for n in (0, 3, 6) if move(desk.runtime, n).state is OperationState.RUNNING]
    fail(desk.runtime, running[0])
    await settle(desk)
    (notice,) = pane.above.notices
    assert notice.label.text().startswith("n2 is fed no more: the last 1 moves to it failed.")
    assert notice.button.text() == "Feed n2 again"
    notice.button.click()
    await settle(desk)
    assert desk.runtime.view.orders.resting == ()
    assert pane.above.notices == []


async def test_all_work_of_all_clusters_is_paused_and_continued_from_every_page(
    open_desk: OpenDesk,
) -> None:
    first, second = runtime_of(2, 4), runtime_of(2, 4, name="prod-b")
    desk = await open_desk(first, second)
    window = desk.window
    for page in ("overview", "nodes"):
        window.go_page(page)
        QTest.keyClick(window, Qt.Key.Key_Period, Qt.KeyboardModifier.ControlModifier)
        assert all(r.view.orders.paused_by == "adm@here" for r in (first, second))
        assert window.top.pause_link.text() == "Continue all work"
        assert window.commands.pause_all.text() == "Continue all work"
        window.top.pause_link.click()
        assert not any(r.view.orders.paused_by for r in (first, second))
        assert window.top.pause_link.text() == "Pause all work"
    first.steer(QueueVerb.PAUSE)
    await desk.settle()
    window._show_counts()
    assert window.top.pause_link.text() == "Pause all work (1 of 2 paused)"
    window.steering.pause_all()
    assert all(r.view.orders.paused_by for r in (first, second))


async def test_a_read_only_cluster_cannot_be_steered(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(2, 4, read_only=True))
    pane = queue_of(desk)
    assert not pane.pause_button.isEnabled()
    assert not pane.limits_button.isEnabled()
    assert not desk.window.commands.pause_all.isEnabled()
    assert desk.window.top.pause_link.isHidden()


async def test_a_read_only_window_beside_an_owner_shows_its_batches_and_steers_none(
    open_desk: OpenDesk,
) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    batch = ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    desk.runtime.steer(QueueVerb.PAUSE, operations=(batch,))
    await settle(desk)
    (line,) = pane.above.batches
    operations_pane = desk.window.clusters[desk.runtime.id].operations
    desk.window.travel.show_operation(desk.runtime, batch)
    await desk.settle()
    controls = (line.go_on, line.give_up, operations_pane.cancel_button)
    assert all(control.isEnabled() for control in controls)
    inventory = desk.runtime.state._inventory
    inventory.config = replace(inventory.config, read_only=True)
    await settle(desk)
    operations_pane._tell()
    assert "was paused by" in line.told.text()
    assert not any(control.isEnabled() for control in controls)
    before = dict(desk.runtime.view.operations)
    pane.above.cancel_wanted.emit(batch)  # as by a press just before
    (await wait_for(desk, Asking)).accept()
    await until(lambda: desk.window.notes, "why not")
    pane.above.steer_wanted.emit(QueueVerb.RESUME, {"operations": (batch,)})
    said = [note.label.text() for note in desk.window.notes]
    assert said == ["This connection is read-only. Nothing was changed."] * len(said)
    assert desk.runtime.view.operations == before


async def test_limits_are_changed_while_it_runs_and_only_those_that_differ(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 18))
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, 9, target=NodeId("n2"))
    await settle(desk)
    assert pane.limits_button.text() == "Limits: 2 out · 2 in · 100 MiB/s each ▾"
    assert len([o for o in desk.runtime.view.operations.values() if o.state is OperationState.WAITING]) == 2
    asked = keep_steering(pane)
    pane.limits_button.click()
    popup = pane.findChild(LimitsPopup)
    assert popup is not None
    popup.fields["outgoing_per_node"].setValue(9)
    QTest.keyClick(popup, Qt.Key.Key_Escape)
    assert asked == []
    await desk.settle()
    pane.limits_button.click()
    popup = next(p for p in pane.findChildren(LimitsPopup) if p.isVisible())
    popup.fields["outgoing_per_node"].setValue(9)
    leave = next(b for b in popup.findChildren(QPushButton) if b.text() == "Cancel")
    QTest.keyClick(leave, Qt.Key.Key_Return)
    assert asked == []
    await desk.settle()
    pane.limits_button.click()
    popup = next(p for p in pane.findChildren(LimitsPopup) if p.isVisible())
    popup.fields["outgoing_per_node"].setValue(3)
    popup.fields["incoming_per_node"].setValue(3)
    QTest.keyClick(popup.fields["incoming_per_node"], Qt.Key.Key_Return)
    wanted = (("outgoing_per_node", 3), ("incoming_per_node", 3))
    assert asked == [(QueueVerb.LIMITS, {"limits": wanted})]
    await settle(desk)
    assert pane.limits_button.text() == "Limits: 3 out · 3 in · 100 MiB/s each ▾"
    assert len([o for o in desk.runtime.view.operations.values() if o.state is OperationState.WAITING]) == 1


# --- another place -----------------------------------------------------------------------------


def waiting_line(runtime: FakeRuntime) -> list[str]:
    """The names of what waits, in its order."""
    from manager.core.migration.queue import order

    waits = [o for o in runtime.view.operations.values() if o.vm and o.state is OperationState.WAITING]
    return [o.vm_name for o in sorted(waits, key=order)]


def equal_priorities(vms: int = 12) -> FakeRuntime:
    """VMs of one priority, all on n1."""
    configs = {n: vm_config(0) for n in range(vms)}
    return runtime_of(2, vms * 2, configs={n * 2: configs[n] for n in range(vms)})


async def test_alt_and_arrows_move_rows_inside_their_priority(open_desk: OpenDesk) -> None:
    desk = await open_desk(equal_priorities())
    pane = queue_of(desk)
    ask(desk.runtime, 0, 2, 4, 6, 8, 10, target=NodeId("n2"))
    await settle(desk)
    assert waiting_line(desk.runtime) == ["web-4", "web-6", "web-8", "web-10"]
    choose(pane, 8)
    QTest.keyClick(pane.table, Qt.Key.Key_Up, Qt.KeyboardModifier.AltModifier)
    assert waiting_line(desk.runtime) == ["web-4", "web-8", "web-6", "web-10"]
    await settle(desk)
    assert names(pane)[2:] == ["web-4", "web-8", "web-6", "web-10"]
    assert pane.table.selected_ids == [move(desk.runtime, 8).id]
    QTest.keyClick(pane.table, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    QTest.keyClick(pane.table, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert waiting_line(desk.runtime) == ["web-4", "web-6", "web-10", "web-8"]
    QTest.keyClick(pane.table, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert waiting_line(desk.runtime) == ["web-4", "web-6", "web-10", "web-8"]
    assert "Nothing of the same priority waits behind it" in desk.window.notes[-1].label.text()


async def test_rows_are_dragged_to_another_place(open_desk: OpenDesk) -> None:
    desk = await open_desk(equal_priorities())
    desk.window.resize(1400, 900)
    pane = queue_of(desk)
    desk.window.panes.toggle_large()
    ask(desk.runtime, 0, 2, 4, 6, 8, 10, target=NodeId("n2"))
    await settle(desk)
    table = pane._queue_table
    height, port = table.row_height, table.viewport()

    def at(row: int, y: int = 0) -> QPoint:
        return QPoint(60, row * height + height // 2 + y)

    def drag(start: int, end: QPoint) -> None:
        QTest.mousePress(port, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at(start))
        QTest.mouseMove(port, at(start) + QPoint(0, 30))
        QTest.mouseMove(port, end)
        QTest.mouseRelease(port, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, end)

    assert names(pane) == ["web-0", "web-2", "web-4", "web-6", "web-8", "web-10"]
    drag(5, at(2, -height // 2 + 2))  # the last one before the first that waits
    await settle(desk)
    assert waiting_line(desk.runtime) == ["web-10", "web-4", "web-6", "web-8"]
    drag(2, at(5, height // 2 - 2))  # and behind all
    assert pane.model._held, "the pointer is still on the list"
    await desk.settle()
    assert names(pane)[2:] == ["web-4", "web-6", "web-8", "web-10"]  # seen at once all the same
    assert waiting_line(desk.runtime) == ["web-4", "web-6", "web-8", "web-10"]
    before = waiting_line(desk.runtime)
    drag(0, at(4))  # what runs has no other place
    await settle(desk)
    assert waiting_line(desk.runtime) == before
    assert not desk.window.notes
    pane.model.sort_by("vm", descending=True)
    drag(1, at(5))
    await settle(desk)
    assert waiting_line(desk.runtime) == before  # what is above is not what comes first
    (note,) = desk.window.notes
    text = "To give rows another place by dragging, sort the list by # and clear the search."
    assert note.label.text() == text
    pane.model.sort_by("place", descending=False)
    search(pane.model, "web-1")
    assert names(pane) == ["web-10"]
    drag(0, at(1))
    assert waiting_line(desk.runtime) == before
    search(pane.model, "")
    drag(5, at(2, -height // 2 + 2))
    await settle(desk)
    assert waiting_line(desk.runtime) == [before[-1], *before[:-1]]


async def test_a_place_made_by_hand_shows_though_other_news_come_first(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await open_desk(equal_priorities())
    pane = queue_of(desk)
    ask(desk.runtime, 0, 2, 4, 6, 8, 10, target=NodeId("n2"))
    check(desk.runtime)
    await settle(desk)
    on_its_way: list[Any] = []
    steer = desk.runtime.steer
    monkeypatch.setattr(desk.runtime, "steer", lambda verb, **what: on_its_way.append((verb, what)))
    choose(pane, 8)
    pane.model.hold(True)  # someone points at the list
    QTest.keyClick(pane.table, Qt.Key.Key_Up, Qt.KeyboardModifier.AltModifier)
    ((verb, what),) = on_its_way  # as to the owner in another process
    figures(desk.runtime, 0, 0.4)
    await desk.settle()
    assert names(pane)[2:] == ["web-4", "web-6", "web-8", "web-10"]
    steer(verb, **what)
    await desk.settle()
    assert pane.model._held
    assert names(pane)[2:] == ["web-4", "web-8", "web-6", "web-10"]


async def test_where_nothing_was_moved_no_row_moves_under_the_pointer(open_desk: OpenDesk) -> None:
    desk = await open_desk(equal_priorities())
    pane = queue_of(desk)
    ask(desk.runtime, 0, 2, 4, 6, 8, 10, target=NodeId("n2"))
    await settle(desk)
    choose(pane, 10)
    pane.model.hold(True)
    QTest.keyClick(pane.table, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    before = names(pane)
    waiting = {n: move(desk.runtime, n).id for n in (4, 8)}
    desk.runtime.steer(QueueVerb.REORDER, operations=(waiting[8],), before=waiting[4])  # by someone else
    await desk.settle()
    assert waiting_line(desk.runtime)[0] == "web-8"
    assert names(pane) == before


def operations(*parts: tuple[str, int, float | None]) -> list[Operation]:
    """Waiting operations: name, priority, hand-made rank."""
    from manager.core.ids import TraceId
    from manager.core.operations import OperationKind

    return [
        Operation(
            id=OperationId(name),
            kind=OperationKind.MIGRATE,
            action="vm.live_migrate",
            author="adm",
            trace=TraceId(""),
            created_s=1.0,
            order=place,
            priority=priority,
            rank=rank,
        )
        for place, (name, priority, rank) in enumerate(parts)
    ]


FIVE = operations(("a", 2, None), ("b", 2, None), ("c", 2, None), ("y", 1, None), ("z", 1, None))


@pytest.mark.parametrize(
    ("moved", "before", "requests"),
    [
        (("c",), "a", [(("c",), "a")]),
        (("a",), "c", [(("a",), "c")]),
        (("a",), "b", []),  # it is there
        (("a",), "y", [(("b", "c"), "a")]),  # behind all of its priority: the others before it
        (("a",), None, [(("b", "c"), "a")]),
        (("c",), None, []),
        (("z",), "a", [(("z",), "y")]),  # no further than to the front of its own
        (("a", "c"), "b", [(("a", "c"), "b")]),
        (("a", "y"), None, [(("b", "c"), "a"), (("z",), "y")]),
    ],
)
def test_a_drop_becomes_requests_that_the_core_can_carry_out(
    moved: tuple[str, ...], before: str | None, requests: list[Any]
) -> None:
    assert placed(FIVE, moved, before) == requests


@pytest.mark.parametrize(
    ("moved", "way", "requests"),
    [
        (("b",), -1, [(("b",), "a")]),
        (("a",), -1, []),
        (("b",), 1, [(("c",), "b")]),
        (("c",), 1, []),
        (("a", "b"), 1, [(("c",), "a")]),
        (("a", "c"), -1, [(("c",), "b")]),  # together at the front
        (("y",), -1, []),
    ],
)
def test_a_step_becomes_a_request(moved: tuple[str, ...], way: int, requests: list[Any]) -> None:
    assert stepped(FIVE, moved, way) == requests


# --- cancelling, failures, back ------------------------------------------------------------------


async def test_delete_asks_and_cancels_what_is_selected(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    check(desk.runtime)
    await settle(desk)
    running = [n for n in (0, 3, 6) if move(desk.runtime, n).state is OperationState.RUNNING]
    choose(pane, running[0])
    QTest.keyClick(pane.table, Qt.Key.Key_Delete)
    dialog = await wait_for(desk, Asking)
    assert dialog.heading.text() == "Cancel 1 operation in prod-a?"
    assert not any(isinstance(e, AbortMigration) for e in desk.runtime.effects)
    dialog.accept()
    await until(lambda: any(isinstance(e, AbortMigration) for e in desk.runtime.effects), "the abort")
    await settle(desk)
    assert cells(pane, running[0])["phase"] == "Cancelling"
    said = "Cancelling, until it is seen running on n1."
    await until(lambda: pane.detail.advice.text() == said, said)


def second_half(runtime: FakeRuntime, number: int) -> None:
    """It runs on its target. More is left than the bar, which never falls, would say."""
    figures(runtime, number, 0.95)
    figures(runtime, number, 0.88, post_copy=True)


async def test_in_post_copy_cancel_gives_way_to_what_is_true(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    second_half(desk.runtime, 0)
    await settle(desk)
    choose(pane, 0)
    await desk.settle()
    found = cells(pane, 0)
    assert (found["phase"], found["percent"]) == ("Second half", "95 %")
    truth = "it runs on n2 already and fetches the last 12 % from n1; if that stops, the VM is lost."
    assert pane.detail.advice.text() == f"Cannot be cancelled: {truth}"
    for button in (pane.detail.cancel_button, pane.detail.post_copy_button, pane.detail.pause_button):
        assert button.isHidden()
    QTest.keyClick(pane.table, Qt.Key.Key_Delete)
    await desk.settle()
    assert dialog_of(desk, Asking) is None
    assert desk.window.notes[-1].label.text() == f"Cannot cancel web-0: {truth}"
    assert not any(isinstance(e, AbortMigration) for e in desk.runtime.effects)
    ask(desk.runtime, 3, target=NodeId("n2"))
    check(desk.runtime)
    await settle(desk)
    choose(pane, 0, 3)
    await desk.settle()
    QTest.keyClick(pane.table, Qt.Key.Key_Delete)
    dialog = await wait_for(desk, Asking)
    assert dialog.heading.text() == "Cancel 1 operation in prod-a?"
    assert f"\nNot web-0: {truth}" in dialog.body.itemAt(1).widget().text()  # type: ignore[attr-defined]
    dialog.accept()
    await until(lambda: any(isinstance(e, AbortMigration) for e in desk.runtime.effects), "the abort")
    assert move(desk.runtime, 0).state is OperationState.RUNNING


async def test_a_cancel_that_is_lost_says_so(open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    await settle(desk)
    choose(pane, 0)

    def lost(operations: object) -> None:
        raise OSError("the owner of this cluster's operations was lost; try again in a moment")

    monkeypatch.setattr(desk.runtime, "cancel", lost)
    QTest.keyClick(pane.table, Qt.Key.Key_Delete)
    (await wait_for(desk, Asking)).accept()
    await until(lambda: desk.window.notes, "what became of it")
    text = desk.window.notes[-1].label.text()
    assert text == "The owner of this cluster's operations was lost; try again in a moment."


async def test_where_nothing_can_be_cancelled_nothing_is_asked(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    second_half(desk.runtime, 0)
    await settle(desk)
    pane.cancel_all_button.click()
    await until(lambda: desk.window.notes, "why not")
    text = desk.window.notes[-1].label.text()
    assert text.startswith("Cannot cancel web-0: it runs on n2 already and fetches the last 12 % from n1;")
    assert dialog_of(desk, Asking) is None


async def test_a_failure_stays_with_its_reason_until_its_vm_was_moved(open_desk: OpenDesk) -> None:
    limits = MigrationLimits(retry=RetryPolicy(times=0))
    desk = await open_desk(runtime_of(3, 9, migration=limits))
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    fail(desk.runtime, 0)
    await settle(desk)
    assert pane.tabs.tabText(1) == "Failed  1"
    pane.show_tab("failed")
    await desk.settle()
    assert names(pane) == ["web-0"]
    choose(pane, 0)
    await desk.settle()
    text = pane.detail.advice.text()
    assert text.startswith("Live migrate web-0 to n2: not done. web-0 is Running on n1. Cannot get interface")
    assert not pane.detail.retry_button.isHidden()
    pane.retry_button.click()
    dialog = await wait_for(desk, MigrateDialog)
    assert isinstance(dialog, MigrateDialog)
    assert dialog.target == NodeId("n3")  # not where it failed
    dialog.go.click()
    await until(lambda: move(desk.runtime, 0).target == NodeId("n3"), "the next try")
    check(desk.runtime)
    await settle(desk)
    assert names(pane) == ["web-0"]  # it is not moved yet
    assert pane.tabs.tabText(1) == "Failed  1"
    fail(desk.runtime, 0, "no route to host")
    await settle(desk)
    assert cells(pane, 0)["way"] == "n1 → n3"  # the last failure of a VM
    assert pane.tabs.tabText(1) == "Failed  1"
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    arrive(desk.runtime, 0)
    await settle(desk)
    assert pane.tabs.tabText(1) == "Failed"
    assert names(pane) == []
    assert "No move has failed" in pane._past_empty.title.text()


async def test_a_failure_stays_though_the_next_try_was_cancelled(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 9, migration=MigrationLimits(retry=RetryPolicy(times=0))))
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    fail(desk.runtime, 0)
    desk.runtime.steer(QueueVerb.PAUSE)
    again = ask(desk.runtime, 0, target=NodeId("n3"))
    await settle(desk)
    desk.runtime.cancel((again,))
    assert move(desk.runtime, 0).state is OperationState.CANCELLED
    await settle(desk)
    pane.show_tab("failed")
    await desk.settle()
    assert names(pane) == ["web-0"]
    assert cells(pane, 0)["way"] == "n1 → n2"
    assert QueueWatch(desk.runtime.view).failed == pane.watch.failed  # as a window that is opened now


async def test_a_second_request_that_was_refused_is_no_failure_once_the_first_arrived(
    open_desk: OpenDesk,
) -> None:
    desk = await open_desk(runtime_of(3, 9, migration=MigrationLimits(retry=RetryPolicy(times=0))))
    pane = queue_of(desk)
    twice = ACTIONS["vm.live_migrate"].plan(
        desk.runtime.view, [vm_id(0)], MigrateParameters(target=NodeId("n2"))
    )
    desk.runtime.request(twice)
    desk.runtime.clock.at_s += 1
    desk.runtime.request(twice)
    moving, refused = (o.id for o in desk.runtime.view.operations.values() if o.vm == vm_id(0))
    assert desk.runtime.view.operations[refused].state is OperationState.FAILED
    await settle(desk)
    assert pane.watch.failed == {refused}
    check(desk.runtime)
    arrive(desk.runtime, 0)
    assert desk.runtime.view.operations[moving].state is OperationState.DONE
    await settle(desk)
    assert pane.tabs.tabText(1) == "Failed"
    assert not QueueWatch(desk.runtime.view).failed


async def test_details_are_copied_with_the_story(open_desk: OpenDesk) -> None:
    limits = MigrationLimits(retry=RetryPolicy(times=0))
    desk = await open_desk(runtime_of(3, 9, migration=limits))
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    fail(desk.runtime, 0)
    await settle(desk)
    pane.show_tab("failed")
    await desk.settle()
    choose(pane, 0)
    await desk.settle()
    pane.copy_button.click()
    text = QGuiApplication.clipboard().text()
    assert text.startswith("Live migrate web-0 to n2: not done.\nweb-0 is Running on n1.")
    assert "Story\n" in text
    pane.detail.copy_button.click()
    text = QGuiApplication.clipboard().text()
    assert text.startswith("Live migrate web-0   n1 → n2   Failed\n")
    assert "Asked by: adm@here" in text
    assert "Story\n" in text


async def test_ended_moves_are_moved_back(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    arrive(desk.runtime, 0)
    await settle(desk)
    pane.show_tab("history")
    await desk.settle()
    choose(pane, 0)
    await desk.settle()
    assert pane.back_button.isEnabled()
    assert pane.back_button.text() == "Move back"  # a live move interrupts nobody
    pane.back_button.click()
    await until(lambda: move(desk.runtime, 0).target == NodeId("n1"), "the way back")


async def test_the_menu_offers_what_can_be_done(open_desk: OpenDesk) -> None:
    desk = await open_desk(equal_priorities())
    pane = queue_of(desk)
    ask(desk.runtime, 0, 2, 4, 6, target=NodeId("n2"))
    await settle(desk)
    choose(pane, 6)
    await desk.settle()
    menu = pane.context_menu()
    actions = {a.text().partition("\t")[0]: a for a in menu.actions() if a.text()}
    enabled = {name for name, action in actions.items() if action.isEnabled()}
    assert {"Cancel…", "First in its priority", "Up", "Down", "Show the VM in Roles", "Copy"} <= enabled
    assert not enabled & {"Retry elsewhere…", "Move these back"}
    actions["First in its priority"].trigger()
    assert waiting_line(desk.runtime) == ["web-6", "web-4"]
    actions["Show the VM in Roles"].trigger()
    await desk.settle()
    assert desk.page.selected_ids == [vm_id(6)]
    menu.deleteLater()


# --- details ---------------------------------------------------------------------------------


async def copying(open_desk: OpenDesk, **migration: Any) -> tuple[Desk, QueuePane]:
    """A window whose queue has one move that copies, selected."""
    desk = await open_desk(runtime_of(3, 9, migration=MigrationLimits(**migration)))
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    figures(desk.runtime, 0, 0.4)
    await settle(desk)
    choose(pane, 0)
    await desk.settle()
    return desk, pane


def facts(pane: QueuePane) -> dict[str, str]:
    """The names and values that are shown."""
    return {n.text(): v.text() for n, v in pane.detail.facts._labels if not n.isHidden()}


async def test_the_details_say_what_will_be_done_and_when(open_desk: OpenDesk) -> None:
    desk, pane = await copying(open_desk)
    detail = pane.detail
    assert detail.isVisible()
    assert detail.title.text() == "Live migrate web-0   n1 → n2   Copying"
    assert detail.advice.text().startswith("Converges, about 0:0")
    assert facts(pane)["Network"] == "the address of n2, cap 100 MiB/s"
    assert facts(pane)["Pause"] == "expected 420 ms, permitted 300 ms"
    assert facts(pane)["Left"] == "600 MiB of 1000 MiB, iteration 1"
    stick(desk.runtime, 0)
    await settle(desk)
    detail.fill()
    watch = desk.runtime.view.progress[move(desk.runtime, 0).id].watch
    assert watch.next is not None
    assert watch.next_at_s is not None
    text = detail.advice.text()
    assert text.startswith("Does not converge: the guest changes 300 MiB/s, 300 MiB/s are sent.")
    assert watch.next.text in text
    assert units.time_text(watch.next_at_s) in text
    assert detail.advice.objectName() == "warning"
    assert "not falling for 0:0" in facts(pane)["Left"]
    assert watch.next.text == cells(pane, 0)["reason"]


def test_a_policy_says_what_real_hosts_do() -> None:
    steps = Convergence()
    said = f"standard: pause up to 2 s, slows the guest from {steps.auto_converge_initial_percent} % on"
    assert policy_text(steps, "").startswith(said)
    assert "does not slow the guest" in policy_text(replace(steps, auto_converge=False), "")


async def test_a_move_is_tuned_by_the_buttons(open_desk: OpenDesk) -> None:
    desk, pane = await copying(open_desk, bandwidth_mib_s=400)
    detail = pane.detail
    assert detail.pause_button.text() == "Raise pause to 500 ms"
    detail.pause_button.click()
    await until(lambda: any(isinstance(e, TuneMigration) for e in desk.runtime.effects), "the call")
    tuned = [e for e in desk.runtime.effects if isinstance(e, TuneMigration)]
    assert [(e.pause_ms, e.bandwidth_mib_s) for e in tuned] == [(500, None)]
    figures(desk.runtime, 0, 0.5)
    await settle(desk)
    detail.fill()
    assert detail.pause_button.text() == "Raise pause to 1 s"
    assert not detail.cap_button.isHidden()
    detail.cap_button.click()
    await settle(desk)
    detail.fill()
    tuned = [e for e in desk.runtime.effects if isinstance(e, TuneMigration)]
    assert (tuned[-1].pause_ms, tuned[-1].bandwidth_mib_s) == (None, 0)
    assert detail.cap_button.isHidden()
    assert facts(pane)["Network"].endswith("no cap")
    assert any("removes its cap" in line for line in detail.text.splitlines())


async def test_the_second_half_is_offered_only_where_it_can_be_begun_and_asks(open_desk: OpenDesk) -> None:
    desk, pane = await copying(open_desk)
    button = pane.detail.post_copy_button
    assert not button.isEnabled()
    assert "n1 cannot do it" in button.toolTip()
    for node in ("n1", "n2"):
        row = desk.runtime.state._inventory.nodes[NodeId(node)]
        facts_of = row.facts
        assert isinstance(facts_of, NodeFacts)
        able = replace(facts_of, features=facts_of.features | {"post-copy"})
        desk.runtime.state._inventory.nodes[NodeId(node)] = replace(row, facts=able)
    pane.detail.fill()
    assert "its policy has no post-copy" in button.toolTip()
    config = desk.runtime.state._inventory.config
    migration = replace(config.migration, convergence=Convergence(post_copy=True))
    desk.runtime.state._inventory.config = replace(config, migration=migration)
    pane.detail.fill()
    assert button.isEnabled()
    button.click()
    dialog = await wait_for(desk, Asking)
    assert dialog.heading.text() == "Let web-0 run on n2 now, in prod-a?"
    assert not any(isinstance(e, TuneMigration) for e in desk.runtime.effects)
    dialog.accept()
    await until(lambda: any(isinstance(e, TuneMigration) for e in desk.runtime.effects), "the call")
    assert next(e for e in desk.runtime.effects if isinstance(e, TuneMigration)).post_copy


async def test_the_plot_is_loaded_when_it_is_needed_and_shows_the_course(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = move_plot.PlotLibrary()
    monkeypatch.setattr(move_plot, "_library", fresh)
    desk = await open_desk(runtime_of(3, 9))
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    for step in range(12):
        figures(desk.runtime, 0, step / 24, iteration=1 + step // 6)
        await desk.settle()
    await settle(desk)
    assert fresh.module is None
    assert fresh._thread is None, "nobody looks at it yet"
    choose(pane, 0)
    await until(lambda: pane.detail.plot.is_drawn, "the plot")
    curves = pane.detail.plot._curves
    assert curves is not None
    times, left = curves._left.getData()
    assert len(times) == 12
    assert left[0] * 1024 == pytest.approx(1000, abs=1)
    assert left[-1] < left[0]
    assert len(curves._sent.getData()[0]) == 12
    assert curves._passes.getData()[0][0] == pytest.approx(times[6])  # where the second pass began
    assert "iteration 2" in pane.detail.plot.accessibleName()
    desk.look.choose("dark")
    QApplication.processEvents()
    assert curves._left.opts["pen"].color() == desk.look.tokens.accent


async def test_the_course_of_a_move_is_kept_though_nobody_looked(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 9))
    pane = desk.window.clusters[desk.runtime.id].queue
    desk.window.show_pane("problems")
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    for step in range(5):
        figures(desk.runtime, 0, step / 10)
        await desk.settle()
    course = pane.courses.of(move(desk.runtime, 0).id)
    assert course is not None
    assert len(course.points) == 5


async def test_a_waiting_move_tells_its_reason_and_remedy(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    desk.runtime.steer(QueueVerb.PAUSE)
    ask(desk.runtime, 0, target=NodeId("n2"))
    await settle(desk)
    choose(pane, 0)
    await desk.settle()
    assert move(desk.runtime, 0).reason is not None
    assert pane.detail.advice.text().startswith("The queue was paused by adm@here")
    assert "Continue with Ctrl+." in pane.detail.advice.text()
    assert pane.detail.plot.isHidden()
    QTest.mouseClick(pane.detail.findChildren(type(pane.cancel_button))[-1], Qt.MouseButton.LeftButton)
    assert pane.detail.isHidden()


async def test_enter_gives_the_details_room(open_desk: OpenDesk) -> None:
    desk, pane = await copying(open_desk)
    desk.window.resize(1400, 900)
    await desk.settle()
    before = pane.height()
    pane.table.setFocus()
    QTest.keyClick(pane.table, Qt.Key.Key_Return)
    await desk.settle()
    assert pane.height() > before
    assert pane.split.orientation() == Qt.Orientation.Vertical
    desk.window.commands.large.trigger()
    await desk.settle()
    assert pane.height() > desk.window.height() * 6 // 10
    desk.window.commands.large.trigger()
    await desk.settle()
    assert pane.height() < desk.window.height() * 7 // 10


async def test_an_empty_queue_leads_to_the_roles(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    desk.window.go_page("overview")
    assert pane.empty.isVisible()
    pane.empty.button.click()
    assert desk.page.kind is Kind.VM


async def test_enter_goes_to_what_can_be_done_and_esc_back(open_desk: OpenDesk) -> None:
    desk, pane = await copying(open_desk)
    pane.table.setFocus()
    QTest.keyClick(pane.table, Qt.Key.Key_Return)
    await until(pane.detail.pause_button.hasFocus, "the first button")
    QTest.keyClick(pane.detail.pause_button, Qt.Key.Key_Escape)
    assert pane.table.hasFocus()
    assert pane.detail.isVisible()
    QTest.keyClick(pane.table, Qt.Key.Key_Return)
    arrive(desk.runtime, 0)
    await settle(desk)
    pane.detail.fill()
    assert pane.detail.pause_button.isHidden()
    assert pane.table.hasFocus()  # there is nothing left to press


async def test_the_keyboard_never_slips_from_one_button_to_the_next(open_desk: OpenDesk) -> None:
    desk, pane = await copying(open_desk, bandwidth_mib_s=400)
    detail = pane.detail
    pane.table.setFocus()
    QTest.keyClick(pane.table, Qt.Key.Key_Return)
    await until(detail.pause_button.hasFocus, "the first button")
    operation = move(desk.runtime, 0)
    desk.runtime.steer(QueueVerb.TUNE, operations=(operation.id,), pause_ms=5000)
    detail.fill()
    assert detail.pause_button.text() == "Raise pause to 10 s"
    assert detail.pause_button.hasFocus()
    QTest.keyClick(detail.pause_button, Qt.Key.Key_Space)
    detail.fill()
    assert detail.pause_button.isHidden()
    assert pane.table.hasFocus()
    QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_Space)
    await desk.settle()
    assert move(desk.runtime, 0).cap_mib_s == 400, "nobody asked to remove it"


async def test_a_move_that_does_not_converge_is_offered_a_pause_that_is_enough(open_desk: OpenDesk) -> None:
    desk, _ = await copying(open_desk)
    stick(desk.runtime, 0)
    await settle(desk)
    operation = move(desk.runtime, 0)
    found = desk.runtime.view.progress[operation.id]
    steps = policy_of(desk.runtime.view, operation)
    for needed_ms, offered_ms in ((None, 500), (420, 500), (3072, 5000), (60_000, 500)):
        assert next_pause_ms(replace(found, downtime_ms=needed_ms), steps) == offered_ms
    converging = replace(found, downtime_ms=3072, phase=MovePhase.COPYING)
    assert next_pause_ms(converging, steps) == 500


# --- history and export ----------------------------------------------------------------------


async def test_the_history_has_what_earlier_runs_left(open_desk: OpenDesk) -> None:
    runtime = runtime_of(3, 9)
    old = operations(("old", 2000, None))[0]
    old = replace(
        old,
        vm=vm_id(1),
        vm_name="from-before",
        state=OperationState.DONE,
        source=NodeId("n1"),
        target=NodeId("n3"),
        started_s=runtime.clock.at_s - 900,
        ended_s=runtime.clock.at_s - 800,
        author="adm@ws02",
        step=MoveStep.MOVE,
    )
    runtime.past = (old,)
    desk = await open_desk(runtime)
    pane = queue_of(desk)
    ask(runtime, 0, target=NodeId("n2"))
    check(runtime)
    arrive(runtime, 0)
    await settle(desk)
    pane.show_tab("history")
    await until(lambda: len(pane.past_model.rows) == 2, "what the journal has")
    assert names(pane) == ["web-0", "from-before"]
    assert cells(pane, 1)["author"] == "adm@ws02"
    pane.search.setText("ws02")
    pane.search.flush()
    assert names(pane) == ["from-before"]


async def test_the_history_keeps_what_the_core_has_forgotten(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "KEPT_ENDED", 4)  # two moves, each with its batch
    monkeypatch.setattr(tree, "HEARD_AFTER_S", -1.0)
    desk = await open_desk(runtime_of(3, 18, migration=MigrationLimits(retry=RetryPolicy(times=0))))
    pane = queue_of(desk)
    pane.show_tab("history")
    for number in (0, 3, 6, 9):
        ask(desk.runtime, number, target=NodeId("n2"))
        check(desk.runtime)
        (fail if number == 0 else arrive)(desk.runtime, number)
        await settle(desk)
    known = desk.runtime.view.operations
    assert {o.vm for o in known.values() if o.vm} == {vm_id(6), vm_id(9)}
    assert names(pane) == ["web-9", "web-6", "web-3", "web-0"]
    assert cells(pane, 0)["state"] == "Failed"
    assert set(pane.watch.seen) == set(known)
    assert {o.id for o in pane.watch._came_to.values()} <= set(known)
    pane.show_tab("timeline")
    timeline = pane.timeline
    timeline.rebuild()
    assert len({bar.key for bar in timeline.timeline.bars}) == 4
    monkeypatch.setattr(queue_pane, "MOST_PAST", 2)  # the newest of them, with its batch
    pane.show_past(())
    pane.show_tab("history")
    await desk.settle()
    assert names(pane) == ["web-9", "web-6", "web-3"]
    timeline.rebuild()
    assert {bar.key for bar in timeline.timeline.bars} == {row.key for row in pane.past_model.rows}
    assert set(timeline._ended) <= set(known) | set(pane._past)


async def test_a_history_that_cannot_be_read_is_asked_for_again(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = runtime_of(3, 9)
    asked: list[int] = []

    async def history(limit: int) -> tuple[Operation, ...]:
        asked.append(limit)
        if len(asked) == 1:
            raise OSError("process 7 does not answer")
        return ()

    monkeypatch.setattr(runtime.engine, "history", history)
    desk = await open_desk(runtime)
    pane = queue_of(desk)
    pane.show_tab("history")
    await until(lambda: desk.window.notes, "why there is none")
    text = desk.window.notes[-1].label.text()
    assert text == "The history of prod-a cannot be read: process 7 does not answer."
    for tab in ("queue", "history", "queue", "history"):
        pane.show_tab(tab)
        await desk.settle()
    assert len(asked) == 2


async def test_beside_an_owner_the_details_show_the_story_that_it_tells(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    batch = ask(desk.runtime, 0, target=NodeId("n2"))
    key = move(desk.runtime, 0).id
    told: dict[str, tuple[LogEntry, ...]] = {}
    desk.runtime.stories.of = lambda key: told.get(key, ())
    await settle(desk)
    choose(pane, 0)
    await desk.settle()
    assert pane.detail.story.rowCount() == 0
    told[key] = (LogEntry(desk.runtime.clock.at_s, "asked by somebody"),)
    changes = ChangeSet()
    changes[Kind.OPERATION].update(key, ("story",))
    desk.window.clusters[desk.runtime.id].bridge.take(changes)
    await until(lambda: pane.detail.story.rowCount() == 1, "the story")
    desk.window.travel.show_operation(desk.runtime, batch)
    await desk.settle()
    operations_pane = desk.window.clusters[desk.runtime.id].operations
    operations_pane.children_table.select_ids([key], current=key)
    await until(lambda: "asked by somebody" in operations_pane.message.toPlainText(), "the story below")


async def test_what_is_shown_is_exported(open_desk: OpenDesk, tmp_path: Path) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    await settle(desk)
    wanted = []
    pane.export_wanted.connect(lambda: wanted.append(True))
    pane.export_button.click()
    assert wanted
    desk.window.lists.export_to(tmp_path / "queue.csv", pane.table)
    rows = list(csv.reader(io.StringIO((tmp_path / "queue.csv").read_text())))
    assert rows[0][:3] == ["#", "VM", "From → to"]
    assert [row[1] for row in rows[1:]] == names(pane)
    desk.window.lists.export_to(tmp_path / "queue.json", pane.table)
    found = json.loads((tmp_path / "queue.json").read_text())
    assert [row["place"] for row in found] == [1, 2, 3]
    assert found[2]["reason"].startswith("n1 gives 2 of 2")


# --- a thousand ------------------------------------------------------------------------------


async def test_a_thousand_queued_rows_never_hold_up_the_window(open_desk: OpenDesk) -> None:
    small = {n: vm_config(n, memory_mib=512) for n in range(1000)}  # each node has room for as many again
    desk = await open_desk(runtime_of(32, 1000, configs=small))
    desk.window.resize(1400, 860)
    pane = queue_of(desk)
    desk.window.panes.toggle_large()
    runtime = desk.runtime
    bridge = desk.window.clusters[runtime.id].bridge
    slow: dict[str, float] = {}

    def timed(name: str, act: Any) -> None:
        begun = time.thread_time()
        act()
        QApplication.processEvents()
        slow[name] = time.thread_time() - begun

    ask(runtime, *range(1000))
    check(runtime)
    timed("asked", bridge.flush)
    timed("told", pane._tell)
    await settle(desk)
    await asyncio.sleep(0.5)  # search texts are prepared, columns fitted
    QApplication.processEvents()
    assert len(pane.model.rows) == 1000
    running = [n for n in range(1000) if move(runtime, n).state is OperationState.RUNNING]
    for turn in range(4):
        for number in running:
            figures(runtime, number, turn / 10, seconds=0.01)
        timed(f"figures {turn}", bridge.flush)
        timed(f"told {turn}", pane._tell)
    for number in running[:4]:
        arrive(runtime, number)
        check(runtime)
        timed(f"arrival of {number}", bridge.flush)
        timed(f"order after {number}", lambda: pane.model._arrange(sort=True))
        timed(f"told after {number}", pane._tell)
    for step in range(6):
        timed(f"scroll {step}", lambda at=step: pane.table.verticalScrollBar().setValue(at * 3000))  # type: ignore[misc]
    timed("select", lambda: pane.table.select_ids([pane.model.rows[900].key]))
    for text in ("w", "web-1", ""):
        timed(f"search {text}", lambda words=text: search(pane.model, words))  # type: ignore[misc]
    first = slow.pop("asked") + slow.pop("told"), slow.pop("select")  # rows and details are made
    assert max(first) < 2 * LONGEST_S, first
    assert max(slow.values()) < LONGEST_S, {k: round(v * 1000) for k, v in slow.items() if v > 0.02}
    assert move(runtime, 999).reason is not None
    assert move(runtime, 999).reason.code is not ReasonCode.QUEUE_PAUSED  # type: ignore[union-attr]

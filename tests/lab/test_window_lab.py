"""The window on real hosts: guests moved by keyboard, and a host that hangs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from manager import bootstrap
from manager.core.actions import ACTIONS, Denied, MigrateParameters
from manager.core.ids import NodeId
from manager.core.migration.progress import MovePhase
from manager.core.operations import OperationState
from manager.lab.lab import Lab
from manager.services.tasks import Tasks
from manager.services.workspace import Workspace
from manager.ui.dialogs.base import Asking
from manager.ui.heartbeat import Heartbeat
from manager.ui.main_window import MainWindow
from manager.ui.theme import Look
from manager.ui.views.queue_pane import QueuePane
from tests.e2e.screen import Record, Window, window
from tests.lab.support import run_apart
from tests.lab.test_faults_lab import runs_only_on
from tests.lab.test_product import guest, vm_named

pytestmark = [pytest.mark.lab, pytest.mark.qt_log_ignore("This plugin does not support")]

NAMES = ("window-01", "window-02", "window-03")


@pytest.fixture
def slow_file(lab: Lab) -> Path:
    """The lab's cluster file, with moves slow enough for bars to be seen."""
    path = lab.cluster_file.with_name("cluster-window.toml")
    path.write_text(lab.cluster_file.read_text() + "\n[migration]\nbandwidth_mib_s = 16\n")
    return path


@pytest.fixture
def guests(lab: Lab) -> tuple[str, ...]:
    """Three booted guests of this test's own on one node."""

    async def add() -> None:
        for name in NAMES:
            await lab.add_vm(name, "n1")
        for name in NAMES:
            await lab.wait_ready(name, 90)

    run_apart(add)
    return NAMES


def percents(muster: Window) -> list[int]:
    """What the bars were painted from: done bytes of every sample that had a total."""
    figures = [r["data"] for r in muster.look() if r["event"] == "MigrationProgress"]
    return [round(100 * (1 - f["remaining_bytes"] / f["total_bytes"])) for f in figures if f["total_bytes"]]


def ended_well(record: Record) -> bool:
    return record["data"]["failure"] is None


def test_selected_guests_move_live_with_bars_that_move(
    lab: Lab, slow_file: Path, guests: tuple[str, ...], tmp_path: Path
) -> None:
    with window(tmp_path, "--cluster", str(slow_file)) as muster:
        muster.wait("Settled")
        muster.focus()
        muster.keys("ctrl+f")
        muster.type("window-")
        muster.keys("Return", "ctrl+a", "ctrl+m")
        time.sleep(1.0)  # the plan opens; nothing is logged until it is confirmed
        muster.keys("Return")
        asked = muster.wait("ActionRequested")
        steps = asked["data"]["plan"]["steps"]
        assert {step["name"] for step in steps} == set(guests)
        muster.wait("MigrationProgress", lambda r: r["data"]["total_bytes"] > 0)
        # Of every move the call ends twice: the login check, then the move itself.
        muster.wait("EffectEnded", ended_well)
        end = time.monotonic() + 90
        while sum(r["event"] == "EffectEnded" for r in muster.look()) < 6 and time.monotonic() < end:
            time.sleep(0.1)
        assert len(set(percents(muster))) > 3
        took = muster.quit()
        assert took < 3
        assert muster.process.returncode == 0
    for step in steps:
        running = run_apart(lambda node=step["target"]: lab.virsh(node, "list", "--name"))
        assert step["name"] in running.split()


def test_a_host_that_hangs_does_not_hold_the_window(lab: Lab, tmp_path: Path) -> None:
    with window(tmp_path, "--cluster", str(lab.cluster_file)) as muster:
        muster.wait("Settled")
        lab.stop_daemon("n3")
        try:
            begun = time.monotonic()
            lost = muster.wait("NodeLost", limit_s=20)
            assert lost["data"]["node"] == "n3"
            assert time.monotonic() - begun < 16
            assert muster.quit() < 2.0
        finally:
            lab.continue_daemon("n3")
        assert muster.process.returncode == 0
        beats = [r for r in muster.records if r["event"] == "Heartbeat" and r["final"]]
        assert beats[-1]["longest_gap_ms"] < 400  # of a shared machine; nothing waited for the host


@asynccontextmanager
async def window_on(app: QApplication, file: Path) -> AsyncIterator[MainWindow]:
    """The window in this process, whose texts can be read, on a cluster that was read."""
    workspace, tasks = Workspace(bootstrap.adapters()), Tasks("test")
    shown = MainWindow(workspace, Look(app, "light"), Heartbeat(None), tasks)
    try:
        shown.resize(1500, 950)
        shown.show()
        shown.start()
        runtime = await workspace.open(workspace.adapters.files.load(str(file)), file)
        assert await runtime.settled(30)
        yield shown
    finally:
        shown.shut()
        shown.hide()
        await tasks.close(0.2)
        await workspace.shutdown()
        shown.deleteLater()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


async def until(condition: Callable[[], Any], limit_s: float, what: str) -> Any:
    """Turn both loops until something holds; what it gave."""
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        QApplication.processEvents()
        await asyncio.sleep(0.01)
    QApplication.processEvents()
    return found


def chosen(pane: QueuePane, name: str) -> bool:
    """Choose a VM's row of the queue, if it is there."""
    keys = [row.key for row in pane.table.rows_model.rows if row.item.vm_name == name]
    if keys:
        pane.table.select_ids(keys, current=keys[0])
    return bool(keys)


@pytest.mark.timeout(240)
async def test_what_does_not_converge_is_switched_to_its_second_half_by_hand(
    lab: Lab, tmp_path: Path, qapp: QApplication
) -> None:
    name = await guest(lab, "window-busy", "n1", dirty_mib=64, memory_mib=140)
    file = tmp_path / "post-copy.toml"
    # Pauses that help nothing, so that it is the administrator who switches and not the policy.
    policy = (
        "auto_converge = false\npost_copy = true\npause_steps_ms = [310, 320, 330, 340]\ntime_out_s = 600"
    )
    migration = f"[migration]\nbandwidth_mib_s = 8\n[migration.convergence]\n{policy}"
    file.write_text(f"{lab.cluster_file.read_text()}\n{migration}\n")
    async with window_on(qapp, file) as shown:
        runtime = next(iter(shown.workspace.runtimes.values()))
        vm, pane = vm_named(runtime, name), shown.clusters[runtime.id].queue
        shown.show_pane("migrations")
        plan = ACTIONS["vm.live_migrate"].plan(runtime.view, [vm.id], MigrateParameters(target=NodeId("n2")))
        (batch,) = runtime.request(plan)
        await until(lambda: chosen(pane, name), 20, "its row")
        detail = pane.detail

        said = "Does not converge: the guest changes "
        await until(lambda: detail.advice.text().startswith(said), 90, said)
        assert "second half" in detail.advice.text()
        assert not detail.cancel_button.isHidden()
        # Slow enough to be looked at: by itself the rest would follow in a moment.
        await lab.virsh("n1", "migrate-setspeed", name, "3", "--postcopy")
        QTest.mouseClick(detail.post_copy_button, Qt.MouseButton.LeftButton)
        dialogs = partial(shown.findChildren, Asking)
        question = await until(lambda: next((d for d in dialogs() if d.isVisible()), None), 10, "question")
        assert question.heading.text() == f"Let {name} run on n2 now, in lab?"
        question.accept()

        said = "Cannot be cancelled: it runs on n2 already and fetches the last "
        await until(lambda: detail.advice.text().startswith(said), 30, said)
        left = int(detail.advice.text().removeprefix(said).partition(" %")[0])
        assert left > 20, "all that the guest changes is still to come, whatever the bar shows"
        ours = next(o for o in runtime.view.operations.values() if o.parent == batch)
        assert runtime.view.progress[ours.id].phase is MovePhase.POST_COPY
        for button in (detail.cancel_button, detail.post_copy_button, detail.pause_button):
            assert button.isHidden()
        verdict = ACTIONS["vm.cancel"].verdict(runtime.view, vm.id)
        assert isinstance(verdict, Denied)
        QTest.keyClick(pane.table, Qt.Key.Key_Delete)
        told = f"Cannot cancel {name}: it runs on n2 already"
        await until(lambda: shown.notes and shown.notes[-1].label.text().startswith(told), 10, told)
        runtime.cancel((batch,))  # as another program might: it is not done

        await until(lambda: runtime.view.operations[batch].is_over, 90, "its end")
        end = runtime.view.operations[ours.id]
        assert (end.state, str(end.reason)) == (OperationState.DONE, "runs on n2")
        assert any("starts its second half" in line.text for line in runtime.view.story(end.id))
        assert runtime.view.vms[vm.id].owner == "n2"
    await runs_only_on(lab, name, "n2")

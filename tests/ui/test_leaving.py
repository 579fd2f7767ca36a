"""Closing with work left, and what the desktop is told."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QIcon
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPushButton, QSystemTrayIcon

from manager.core.effects import AbortMigration
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId
from manager.core.model import MigrationLimits, RetryPolicy, Tier
from manager.core.operations import OperationState
from manager.ui import background, leaving
from manager.ui.dialogs.small import WorkLeftDialog
from manager.ui.notify import Notifier
from tests.ui.cluster_of import runtime_of
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.moves_of import arrive, ask, check, fail, move
from tests.ui.test_window import wait_for


class Engine:
    """In place of a process: alive until it is told otherwise."""

    def __init__(self, code: int | None = None) -> None:
        self.code = code

    def poll(self) -> int | None:
        """As a process's."""
        return self.code


async def asked_to_close(desk: Desk) -> WorkLeftDialog:
    """The question, once it is there."""
    desk.window.close()
    dialog = await wait_for(desk, WorkLeftDialog)
    assert isinstance(dialog, WorkLeftDialog)
    return dialog


def button(dialog: WorkLeftDialog, text: str) -> QPushButton:
    """The button with that text."""
    return next(b for b in dialog.findChildren(QPushButton) if b.text() == text)


def titles(dialog: WorkLeftDialog) -> list[str]:
    """The texts of the buttons."""
    return [b.text() for b in dialog.findChildren(QPushButton)]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words with which engines were started; they stay alive."""
    started: list[list[str]] = []

    def start(options: list[str]) -> Engine:
        started.append(list(options))
        return Engine()

    monkeypatch.setattr(leaving, "start_engine", start)
    monkeypatch.setattr(leaving, "ENGINE_LOOKS", 2)
    return started


async def test_work_goes_on_in_the_background(open_desk: OpenDesk, engines: list[list[str]]) -> None:
    idle = runtime_of(2, 4, name="prod-b")
    desk = await open_desk(runtime_of(3, 9), idle, source=Path("/else where/prod.toml"))
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    dialog = await asked_to_close(desk)
    told = " ".join(label.text() for label in dialog.findChildren(type(dialog.heading)))
    assert "“muster engine” goes on with all of it, until it is ended; it can ask for no password." in told
    assert "after more than 10 min away it asks first" in told
    button(dialog, "Keep running in the background").click()
    await until(lambda: not desk.window.isVisible(), "the end of the window")
    # Only for the cluster that has work left.
    assert engines == [["--cluster", "/else where/prod.toml"]]
    assert not any(isinstance(e, AbortMigration) for e in desk.runtime.effects)
    assert len(desk.runtime.view.claims) == 3


async def test_the_window_stays_if_no_engine_runs(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "start_engine", lambda options: Engine(code=2))
    desk = await open_desk()
    ask(desk.runtime, 0)
    button(await asked_to_close(desk), "Keep running in the background").click()
    await until(lambda: desk.window.notes, "why not")
    assert "ended at once (exit code 2)" in desk.window.notes[-1].label.text()
    assert "muster --cluster prod-a engine" in desk.window.notes[-1].label.text()
    assert desk.window.isVisible()


async def test_what_waits_is_cancelled_and_the_rest_finished(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 9))
    ask(desk.runtime, 0, 3, 6, target=NodeId("n2"))
    check(desk.runtime)
    running = [n for n in (0, 3, 6) if move(desk.runtime, n).state is OperationState.RUNNING]
    (waiting,) = {0, 3, 6} - set(running)
    button(await asked_to_close(desk), "Cancel what waits, finish the rest, then close").click()
    await until(lambda: move(desk.runtime, waiting).is_over, "the cancel")
    assert desk.window.isVisible()
    for number in running:
        arrive(desk.runtime, number)
    await until(lambda: not desk.window.isVisible(), "the end of the window")


async def test_enter_presses_the_button_that_has_the_keyboard(
    open_desk: OpenDesk, engines: list[list[str]]
) -> None:
    desk = await open_desk()
    ask(desk.runtime, 0)
    dialog = await asked_to_close(desk)
    assert button(dialog, "Stay").isDefault()
    seen: list[str] = []
    while not seen or seen[-1] != "Keep running in the background":
        held = dialog.focusWidget()
        assert isinstance(held, QPushButton), seen
        seen.append(held.text())
        assert len(seen) < 6, seen
        if seen[-1] != "Keep running in the background":
            QTest.keyClick(held, Qt.Key.Key_Backtab, Qt.KeyboardModifier.ShiftModifier)
    assert seen[0] == "Stay"  # Enter alone harms nothing
    QTest.keyClick(held, Qt.Key.Key_Return)
    assert dialog.choice == WorkLeftDialog.BACKGROUND
    await until(lambda: engines, "the engine")


async def test_a_demo_has_no_background(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 9, tier=Tier.DEMO))
    ask(desk.runtime, 0)
    check(desk.runtime)
    dialog = await asked_to_close(desk)
    assert titles(dialog) == ["Finish what runs, then close", "Close now", "Stay"]
    assert dialog.focusWidget() is button(dialog, "Stay")
    dialog.reject()


async def test_another_process_goes_on_without_the_window_unasked(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.runtime.engine = SimpleNamespace(is_owner=False)
    ask(desk.runtime, 0)
    desk.window.close()
    await desk.settle()
    assert not desk.window.isVisible()


def test_an_engine_really_starts_and_outlives_its_parent(tmp_path: Path) -> None:
    """With libvirt's own test driver; it is ended here."""
    file = tmp_path / "there.toml"
    file.write_text('name = "there"\n[[nodes]]\nname = "n1"\nuri = "test:///default"\n')
    process = background.start_engine(["--cluster", str(file)])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert os.getsid(process.pid) == process.pid, "it would end with its terminal"
        told = subprocess.run(
            [*shlex.split("ps -ww -o args= -p"), str(process.pid)], capture_output=True, text=True, timeout=10
        )
        assert told.stdout.strip().endswith(f"-m manager --cluster {file} engine")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        background._started.remove(process)


# --- the desktop -------------------------------------------------------------------------------


async def test_the_end_of_a_batch_is_told_on_the_desktop_unless_one_looks(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str, bool]] = []
    monkeypatch.setattr(
        Notifier, "tell", lambda self, title, text, icon, *, failed: told.append((title, text, failed))
    )
    limits = MigrationLimits(retry=RetryPolicy(times=0))
    desk = await open_desk(runtime_of(3, 9, migration=limits))
    in_front = [True]
    monkeypatch.setattr(desk.window, "isActiveWindow", lambda: in_front[0])

    async def run(*numbers: int) -> None:
        ask(desk.runtime, *numbers, target=NodeId("n2"))
        await desk.settle()
        check(desk.runtime)
        for number in numbers:
            if number == 6:
                fail(desk.runtime, number)
            else:
                arrive(desk.runtime, number)
        await desk.settle()

    await run(0)
    assert told == []
    in_front[0] = False
    await run(3, 6)
    assert told == [("prod-a: Live migrate 2 VMs", "1 of 2 done, 1 failed.", True)]
    desk.select(1)
    desk.press("vm.pause")  # what takes no place in the queue is no batch of it
    await until(lambda: desk.runtime.effects, "the pause")
    desk.runtime.answer(Failure(code=FailureCode.OTHER, text="no"))
    await desk.settle()
    assert len(told) == 1


async def test_where_there_is_no_tray_nothing_is_told(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await open_desk()
    notifier = desk.window.notifier
    monkeypatch.setattr(Notifier, "is_possible", staticmethod(lambda: False))
    assert not notifier.tell("title", "text", QIcon(), failed=False)
    assert notifier._tray is None


@pytest.mark.qt_log_ignore("systemTrayWindowChanged", "This plugin does not support")  # offscreen has none
async def test_the_icon_is_in_the_tray_only_while_something_is_told(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[str, str]] = []
    monkeypatch.setattr(Notifier, "is_possible", staticmethod(lambda: True))
    monkeypatch.setattr(
        QSystemTrayIcon, "showMessage", lambda self, title, text, kind, span: shown.append((title, text))
    )
    desk = await open_desk()
    notifier = desk.window.notifier
    glyph = QIcon(desk.window.grab())
    notifier._hide.setInterval(20)
    assert notifier.tell("title", "text", glyph, failed=True)
    assert shown == [("title", "text")]
    assert notifier._tray is not None
    assert notifier._tray.isVisible()
    await asyncio.sleep(0.05)
    await until(lambda: notifier._tray is not None and not notifier._tray.isVisible(), "it goes")

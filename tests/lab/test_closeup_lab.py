"""The window close to a real guest: its screen, its serial console, and a snapshot from the first to none."""

from __future__ import annotations

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from manager.core.actions.snapshots import SNAPSHOT_CREATE, SNAPSHOT_DELETE
from manager.core.model import SnapshotParameters, VmStatus
from manager.lab.lab import Lab
from tests.lab.support import run_apart
from tests.lab.test_product import guest
from tests.lab.test_window_lab import until, window_on

pytestmark = [pytest.mark.lab, pytest.mark.qt_log_ignore("This plugin does not support")]

NAME = "closeup-01"


async def test_a_real_guest_seen_closely(lab: Lab, qapp: QApplication) -> None:
    run_apart(lambda: guest(lab, NAME, "n1", vga=True))
    async with window_on(qapp, lab.cluster_file) as window:
        window.go_page("roles")
        page = window.list_page
        assert page is not None
        runtime, details = page.runtime, page.details
        vm = next(vm.id for vm in runtime.view.vms.values() if vm.name == NAME)
        await until(lambda: page.model.position(vm) >= 0, 20, "its row")
        page.select([vm])
        await until(lambda: details._screen.has_picture, 20, "a picture of its screen")
        assert details._screen.accessibleName() == "Screen, 720 x 400"
        await until(lambda: len(details.history.of(page.kind, vm)) > 1, 20, "figures")
        assert details.history.of(page.kind, vm)[-1].disk_mib_s is not None

        titles = [details.tabs.tabText(at) for at in range(details.tabs.count())]
        details.tabs.setCurrentIndex(titles.index("Console"))
        console = details._console
        console.connect_now()
        await until(lambda: console.is_connected, 20, "its console")
        QTest.keyClicks(console.terminal, "echo on $(hostname)")
        QTest.keyClick(console.terminal, Qt.Key.Key_Return)
        await until(lambda: f"on {NAME}" in console.terminal.text, 20, "the guest's answer")

        details.tabs.setCurrentIndex(titles.index("Snapshots"))
        assert not console.is_connected
        tab = details._snapshots
        wish = SnapshotParameters(name="kept", description="by a test")
        for spec, names in ((SNAPSHOT_CREATE, ["kept"]), (SNAPSHOT_DELETE, [])):
            runtime.request(spec.plan(runtime.view, [vm], wish))
            await until(lambda names=names: [s.name for s in tab.found] == names, 60, f"{names} in the list")
            shown = await lab.virsh("n1", "snapshot-list", NAME, "--name")
            assert shown.split() == names
        assert runtime.view.vms[vm].status is VmStatus.RUNNING

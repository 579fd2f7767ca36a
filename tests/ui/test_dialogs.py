"""Dialogs by themselves: what they ask, what they refuse, what they make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit, QPushButton
from pytestqt.qtbot import QtBot

from manager.core.actions import MigrateParameters
from manager.services.tasks import Tasks
from manager.store.cluster_files import ClusterFiles, read_cluster_file
from manager.ui.dialogs.base import Asking
from manager.ui.dialogs.connect import ConnectDialog
from manager.ui.dialogs.migrate import MigrateDialog
from manager.ui.theme import Look
from tests.ui.cluster_of import runtime_of, vm_id, workspace_of


@pytest.fixture
def connect(qtbot: QtBot, look: Look, tmp_path: Path) -> ConnectDialog:
    workspace = workspace_of([])
    workspace.adapters = replace(
        workspace.adapters, files=ClusterFiles(tmp_path / "clusters", tmp_path / "last-used")
    )
    dialog = ConnectDialog(None, look, workspace, Tasks("test"))
    qtbot.addWidget(dialog)
    dialog.name.setText("prod")
    dialog.uris.setPlainText("qemu+ssh://root@n1/system\nqemu+ssh://root@n2/system")
    return dialog


@pytest.mark.parametrize(
    ("typed", "stored"),
    [("", ()), (" /srv/vms ,/srv/images,, /srv/vms", ("/srv/vms", "/srv/images"))],
)
def test_a_new_cluster_has_the_shared_paths_that_were_given(
    connect: ConnectDialog, tmp_path: Path, typed: str, stored: tuple[str, ...]
) -> None:
    assert "live migration" in connect.shared.toolTip()
    connect.shared.setText(typed)
    connect.go.click()
    assert connect.config is not None, connect.trouble.text()
    assert connect.config.shared_paths == stored
    (file,) = tmp_path.rglob("prod*.toml")
    assert read_cluster_file(file).shared_paths == stored


def test_a_shared_path_that_is_none_is_named_and_nothing_is_stored(
    connect: ConnectDialog, tmp_path: Path
) -> None:
    connect.shared.setText("/srv/vms, vms")
    connect.go.click()
    assert connect.config is None
    assert "shared_paths" in connect.trouble.text()
    assert "vms" in connect.trouble.text()
    assert not list(tmp_path.rglob("*.toml"))


def test_enter_presses_what_has_the_keyboard_and_else_what_is_the_default(qtbot: QtBot) -> None:
    pressed: list[str] = []
    dialog = Asking(None, "Turn off 3 VMs?")
    qtbot.addWidget(dialog)
    field = QLineEdit()
    dialog.body.addWidget(field)
    dialog.add_buttons()
    go = dialog.button("Turn off 3", lambda: pressed.append("go"), style="danger")
    dialog.button("Cancel", lambda: pressed.append("cancel"), default=True)
    dialog.show()
    held = dialog.focusWidget()
    for widget in (held, field, go):
        widget.setFocus()
        QTest.keyClick(widget, Qt.Key.Key_Return)
    assert pressed == ["cancel", "cancel", "go"]


def test_enter_on_the_copy_button_of_a_plan_moves_nothing(qtbot: QtBot, look: Look) -> None:
    view = runtime_of(3, 9).view
    dialog = MigrateDialog(None, look, view, [vm_id(0)], MigrateParameters(), cluster_option="")
    qtbot.addWidget(dialog)
    dialog.show()
    copy = next(b for b in dialog.findChildren(QPushButton) if b.text() == "Copy")
    QTest.keyClick(copy, Qt.Key.Key_Return)
    assert QGuiApplication.clipboard().text() == dialog.command.text() != ""
    assert dialog.isVisible()


@pytest.mark.parametrize("declared", [("/srv/vms",), ()])
def test_a_plan_says_where_sharing_is_unchecked(qtbot: QtBot, look: Look, declared: tuple[str, ...]) -> None:
    view = runtime_of(2, 2, shared_paths=declared).view
    dialog = MigrateDialog(None, look, view, [vm_id(0)], MigrateParameters(), cluster_option="")
    qtbot.addWidget(dialog)
    assert dialog.go.isEnabled()  # a note, no refusal
    assert dialog.unchecked.isHidden() is bool(declared)
    if not declared:
        assert dialog.unchecked.text().startswith("The cluster file declares no shared path")
        assert "[storage] shared_paths" in dialog.unchecked.text()

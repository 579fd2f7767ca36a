"""The settings of one VM: what is shown, checked as it is typed, told beforehand, and asked for."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import click
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPushButton
from pytestqt.qtbot import QtBot

from manager.cli.definition import FORMS
from manager.core.actions import DEFINITION
from manager.core.edits import (
    AddDisk,
    Describe,
    GrowDisk,
    SetAutostart,
    SetBootOrder,
    SetInterface,
    SetMedium,
    SetMemory,
    SetVcpus,
)
from manager.core.effects import EditVm
from manager.core.model import Disk, VmConfig
from manager.ui.actions import SETTINGS
from manager.ui.dialogs.settings import SettingsDialog
from manager.ui.dialogs.settings_pages import (
    BootPage,
    DiskPage,
    GeneralPage,
    MediumPage,
    NetworkPage,
    SizePage,
)
from manager.ui.theme import Look
from manager.ui.wording import plan_command
from tests.ui.cluster_of import runtime_of, vm_config, vm_id
from tests.ui.conftest import OpenDesk, until

MAC = "52:54:00:00:00:00"


def definition(**changes: Any) -> VmConfig:
    base = vm_config(0)
    drive = Disk(target="sda", device="cdrom", source="/srv/vms/debian-13.iso", read_only=True)
    return replace(base, disks=(*base.disks, drive), boot=("vda",), vcpus_most=4, **changes)


def dialog_of(
    qtbot: QtBot, look: Look, config: VmConfig | None = None, *, off: bool = False
) -> SettingsDialog:
    off_vms = frozenset({0} if off else ())
    view = runtime_of(2, 4, configs={0: config or definition()}, off=off_vms).view
    dialog = SettingsDialog(None, look, view, vm_id(0), cluster_option="--cluster prod")
    qtbot.addWidget(dialog)
    return dialog


def page(dialog: SettingsDialog, kind: type) -> Any:
    return next(page for page in dialog.pages if isinstance(page, kind))


def shown(dialog: SettingsDialog) -> list[tuple[str, str]]:
    table = dialog.steps
    return [(table.item(r, 0).text(), table.item(r, 1).text()) for r in range(table.rowCount())]


def test_nothing_is_asked_for_at_first(qtbot: QtBot, look: Look) -> None:
    dialog = dialog_of(qtbot, look)
    assert dialog.plans == ()
    assert not dialog.go.isEnabled()
    assert [page.title for page in dialog.pages] == [
        "General",
        "Memory and CPU",
        "CD",
        "Network",
        "Boot order",
        "Disks",
    ]


def change_all(dialog: SettingsDialog) -> None:
    general, size = page(dialog, GeneralPage), page(dialog, SizePage)
    general.name.setText("Shop")
    general.text.setPlainText("a\nb")
    general.autostart.setChecked(True)
    size.memory.setText("4 GiB")
    size.vcpus.setValue(3)
    medium = page(dialog, MediumPage)
    medium.findChildren(QPushButton)[0].click()
    _, _, source, link = page(dialog, NetworkPage).interfaces[0]
    source.setText("br1")
    link.setChecked(False)
    boot = page(dialog, BootPage)
    boot.devices.item(1).setCheckState(Qt.CheckState.Checked)
    boot.devices.setCurrentRow(1)
    boot.findChildren(QPushButton)[0].click()
    disks = page(dialog, DiskPage)
    disks.disks[0][1].setText("40 GiB")
    disks.pool.setText("vms")
    disks.capacity.setText("1 GiB")


WISHES = (
    Describe(title="Shop", description="a\nb"),
    SetAutostart(autostart=True),
    SetMemory(memory_mib=4096),
    SetVcpus(vcpus=3),
    SetMedium(disk="sda"),
    SetInterface(mac=MAC, kind="bridge", source="br1", link_up=False),
    SetBootOrder(devices=("sda", "vda")),
    GrowDisk(disk="vda", size_mib=40 * 1024),
    AddDisk(pool="vms", size_mib=1024),
)


def test_every_setting_is_on_a_page_and_it_is_said_when_it_counts(qtbot: QtBot, look: Look) -> None:
    dialog = dialog_of(qtbot, look)
    change_all(dialog)
    assert tuple(plan.parameters for plan in dialog.plans) == WISHES
    assert {plan.action for plan in dialog.plans} == {spec.id for spec in DEFINITION}
    assert shown(dialog) == [
        ("Title “Shop”, a new description", "now"),
        ("Starts with its host", "now"),
        ("Memory 4 GiB", "at its next start: as it runs it can have 2 GiB"),
        ("3 vCPUs of at most 4", "now"),
        ("No CD in sda", "now"),
        (f"{MAC} on bridge br1, link of {MAC} down", "now"),
        ("Boots from sda, then vda", "at its next start: the order counts when it boots"),
        ("Disk vda of 40 GiB", "now"),
        ("A new disk of 1 GiB in pool vms", "now"),
    ]
    assert dialog.go.text() == "Change 9 settings"


def test_of_a_vm_that_is_off_all_is_done_now(qtbot: QtBot, look: Look) -> None:
    dialog = dialog_of(qtbot, look, off=True)
    change_all(dialog)
    assert {when for _, when in shown(dialog)} == {"now; it is off"}


def test_the_commands_ask_for_the_same(qtbot: QtBot, look: Look) -> None:
    dialog = dialog_of(qtbot, look)
    change_all(dialog)
    dialog.copy.click()
    copied = QApplication.clipboard().text()
    for plan in dialog.plans:
        command = plan_command(dialog._view, plan, "--cluster prod")
        assert command in copied
        head, name, *options = shlex.split(command)[4:]
        assert (head, name) == (plan.spec.command, "web-0")
        form = FORMS[type(plan.parameters)]
        context = click.Command(head, params=form[0]()).make_context(head, options)
        assert form[1](**context.params) == plan.parameters


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("lots", "Memory and CPU: Memory: needs a size, for example 512MiB or 4GiB."),
        ("4GB", "did you mean GiB?"),
        ("1", "memory is from 16 MiB"),
    ],
)
def test_what_cannot_be_is_said_as_it_is_typed(qtbot: QtBot, look: Look, typed: str, said: str) -> None:
    dialog = dialog_of(qtbot, look)
    page(dialog, GeneralPage).name.setText("Shop")
    page(dialog, SizePage).memory.setText(typed)
    assert said in dialog.trouble.text()
    assert not dialog.go.isEnabled()
    page(dialog, SizePage).memory.setText("1 GiB")
    assert dialog.trouble.isHidden()
    assert dialog.go.text() == "Change 2 settings"


def test_what_waits_for_a_restart_is_shown(qtbot: QtBot, look: Look) -> None:
    config = definition()
    dialog = dialog_of(qtbot, look, replace(config, stored=replace(config, memory_mib=8192)))
    texts = [label.text() for label in dialog.findChildren(type(dialog.trouble))]
    assert "Needs a restart for: memory." in texts
    assert page(dialog, SizePage).memory.text() == "8 GiB"
    page(dialog, SizePage).memory_most.setText("2 GiB")
    page(dialog, SizePage).memory.setText("2 GiB")
    assert shown(dialog) == [("Memory 2 GiB", "now")]


async def test_alt_enter_opens_it_and_its_button_asks_for_all(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0)
    await desk.settle()
    QTest.keyClick(desk.window, Qt.Key.Key_Return, Qt.KeyboardModifier.AltModifier)
    await until(lambda: desk.window.findChildren(SettingsDialog), "the dialog")
    (dialog,) = desk.window.findChildren(SettingsDialog)
    page(dialog, GeneralPage).name.setText("Shop")
    page(dialog, SizePage).memory.setText("1 GiB")
    dialog.go.click()
    await until(lambda: desk.runtime.effects, "the requests")
    for _ in range(3):  # one after the other: each has the VM for itself
        await desk.settle()
        found = [e for e in desk.runtime.effects if isinstance(e, EditVm)]
        if found[-1].edit != Describe(title="Shop"):
            break
        desk.runtime.answer()
    assert found[-1].edit == SetMemory(memory_mib=1024, maximum_mib=2048)


async def test_settings_are_of_one_vm(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0, 1)
    await desk.settle()
    desk.press(SETTINGS)
    await until(lambda: any("select one" in note.label.text() for note in desk.window.notes), "the note")
    assert not desk.window.findChildren(SettingsDialog)

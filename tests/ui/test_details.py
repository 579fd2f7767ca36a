"""Details of one VM that ask its node: screen, console, snapshots, definition; only while they are seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QDialog

from manager.core import events as ev
from manager.core.effects import ChangeVm, VmChange
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId
from manager.core.model import Display, NodeLoad, Snapshot, SnapshotParameters, VmLoad, VmStatus
from manager.core.vault import KeptDefinition
from manager.store.vault import SqliteVault
from manager.ui import viewer
from manager.ui.dialogs.confirm import ConfirmDialog
from manager.ui.dialogs.snapshot import ChooseSnapshotDialog, TakeSnapshotDialog
from manager.ui.views.details.console import ConsoleWindow
from tests.ui.cluster_of import runtime_of, vm_config, vm_id
from tests.ui.conftest import Desk, OpenDesk, until

KEPT = Snapshot(name="kept", description="before <it>", created_s=1e9, status=VmStatus.RUNNING, memory=True)


def with_screens(**changes: object):  # type: ignore[no-untyped-def]
    configs = {n: vm_config(n, graphics=("vnc",), **changes) for n in range(12)}
    return runtime_of(configs=configs)


async def turn_to(desk: Desk, title: str, number: int = 0) -> None:
    """Show a tab of one VM."""
    desk.select(number)
    tabs = desk.page.details.tabs
    await until(tabs.isVisible, "the details")
    tabs.setCurrentIndex([tabs.tabText(i) for i in range(tabs.count())].index(title))
    await desk.settle()


def dialog(kind: type[QDialog]) -> QDialog:
    return next(w for w in QApplication.topLevelWidgets() if isinstance(w, kind) and w.isVisible())


async def opened(kind: type[QDialog]) -> QDialog:
    def there() -> bool:
        return any(isinstance(w, kind) and w.isVisible() for w in QApplication.topLevelWidgets())

    await until(there, kind.__name__)
    return dialog(kind)


# --- the screen ------------------------------------------------------------------------------


async def test_the_screen_is_shown_and_asked_for_again(open_desk: OpenDesk) -> None:
    desk = await open_desk(with_screens())
    desk.select(0)
    screen = desk.page.details._screen
    await until(lambda: screen.has_picture, "a picture")
    assert desk.runtime.host.asked == ["screenshot"]
    screen._timer.timeout.emit()
    await until(lambda: desk.runtime.host.asked == ["screenshot"] * 2)
    assert screen.accessibleName() == "Screen, 32 x 20"


async def test_no_screen_says_why_and_asks_nobody(open_desk: OpenDesk) -> None:
    runtime = runtime_of(configs={1: vm_config(1, graphics=("vnc",))}, off=frozenset({1}))
    desk = await open_desk(runtime)
    screen = desk.page.details._screen
    desk.select(0)
    await until(lambda: screen.said == "no graphics device", "why")
    desk.select(1)
    await until(lambda: screen.said == "no picture: off", "why")
    assert runtime.host.asked == []
    runtime.change(1, VmStatus.RUNNING)
    await desk.settle()
    await until(lambda: screen.has_picture, "a picture once it runs")


async def test_a_screen_that_cannot_be_had_says_the_hosts_words(open_desk: OpenDesk) -> None:
    desk = await open_desk(with_screens())
    desk.runtime.host.failure = Failure(code=FailureCode.DENIED, text="read only\x1b access")
    desk.select(0)
    screen = desk.page.details._screen
    await until(lambda: "read only" in screen.said, "why")
    assert "\x1b" not in screen.said


async def test_hidden_nothing_is_asked(open_desk: OpenDesk) -> None:
    desk = await open_desk(with_screens())
    desk.select(0)
    await until(lambda: desk.page.details._screen.has_picture)
    await turn_to(desk, "Disks")
    assert not desk.page.details._screen._timer.isActive()
    assert "page vm chart" not in desk.runtime.sampler.wanted


# --- loads -----------------------------------------------------------------------------------


async def test_the_summary_draws_what_is_measured(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0)
    details = desk.page.details
    await until(lambda: "page vm chart" in desk.runtime.sampler.wanted)
    vm = desk.runtime.view.vms[vm_id(0)]
    assert vm.owner is not None
    for at in range(3):
        load = VmLoad(
            cpu_percent=10.0 * at,
            memory_used_mib=512,
            disk_bytes_per_s=3 * 1048576.0,
            net_bytes_per_s=None,
            at_s=desk.runtime.clock.at_s + at,
        )
        node = NodeLoad(cpu_percent=5.0, memory_free_mib=100, at_s=desk.runtime.clock.at_s + at)
        desk.runtime.dispatch(
            ev.NodeSampled(at_s=load.at_s, node=NodeId(vm.owner), load=node, vms={vm.id: load})
        )
        await desk.settle()
    await until(lambda: details._sparks.cpu.accessibleName() == "CPU %: 20.0")
    assert details._sparks.disk.accessibleName() == "Disk MiB/s: 3.0"
    assert details._sparks.net.accessibleName() == "Network MiB/s: not measured yet"


# --- definition ------------------------------------------------------------------------------


async def test_the_definition_is_read_searched_and_copied(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.runtime.host.xml = "<domain>\n  <name>a\u202eb</name>\n  <vcpu>2</vcpu>\n</domain>\n"
    await turn_to(desk, "XML")
    tab = desk.page.details._definition
    await until(lambda: "vcpu" in tab.text.toPlainText(), "the definition")
    assert "\u202e" not in tab.text.toPlainText()
    assert tab.text.isReadOnly()
    tab.search.setText("vcpu")
    assert tab.text.textCursor().selectedText() == "vcpu"
    QTest.keyClick(tab.search, Qt.Key.Key_Return)
    QTest.keyClick(tab.search, Qt.Key.Key_Return)
    assert tab.text.textCursor().selectedText() == "vcpu"
    tab.search.setText("nowhere")
    assert tab.said.text() == "“nowhere” does not occur"
    tab._copy()
    assert QApplication.clipboard().text() == tab.text.toPlainText()
    desk.runtime.host.failure = Failure(code=FailureCode.TIMEOUT, text="no answer within 10 s")
    tab.look_again()
    await until(lambda: tab.said.text() == "cannot be read: no answer within 10 s")


async def test_what_was_kept_can_be_read_when_no_node_answers(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    vault = SqliteVault(None)
    shown = desk.page.details
    kept = [
        KeptDefinition(vm=vm_id(0), name="vm-0", node=NodeId("n1"), number=1, digest=d, kept_s=1e9)
        for d in "ab"
    ]
    for each, text in zip(kept, ("<domain>old</domain>", "<domain>newer</domain>"), strict=True):
        await vault.keep([(each, text)])
    desk.runtime.definitions = vault
    desk.runtime.host.failure = Failure(code=FailureCode.TIMEOUT, text="no answer within 10 s")
    await turn_to(desk, "XML")
    tab = shown._definition
    await until(lambda: tab.said.text() == "cannot be read: no answer within 10 s")
    assert tab.vm == vm_id(0)
    assert [tab.version.itemData(n) for n in range(tab.version.count())] == [0, 2, 1]
    assert tab.version.itemText(1).startswith("Version 2, n1, ")
    tab.version.setCurrentIndex(2)
    tab.version.activated.emit(2)
    await until(lambda: tab.text.toPlainText() == "<domain>old</domain>", "the version")
    assert tab.said.text() == "version 1 as it was kept, without passwords"
    assert tab.version.currentData() == 1
    tab.show_vm(vm_id(1))
    assert tab.version.currentData() == 0
    await vault.close()


# --- snapshots -------------------------------------------------------------------------------


async def test_a_snapshot_is_taken_with_its_name(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    await turn_to(desk, "Snapshots")
    tab = desk.page.details._snapshots
    await until(lambda: tab.said.text() == "No snapshot.")
    assert not tab.delete.isEnabled()
    tab.take.click()
    asked = await opened(TakeSnapshotDialog)
    assert isinstance(asked, TakeSnapshotDialog)
    asked.name.setText("a/b")
    assert not asked.go.isEnabled()
    asked.name.setText("now")
    asked.description.setText("for a test")
    asked.go.click()
    await until(lambda: desk.runtime.effects, "the operation")
    (effect,) = (e for e in desk.runtime.effects if isinstance(e, ChangeVm))
    assert (effect.change, effect.vm) == (VmChange.SNAPSHOT_CREATE, vm_id(0))
    assert effect.snapshot == SnapshotParameters(name="now", description="for a test")


@pytest.mark.parametrize(
    ("button", "change"), [("revert", VmChange.SNAPSHOT_REVERT), ("delete", VmChange.SNAPSHOT_DELETE)]
)
async def test_what_is_lost_is_asked_for_with_the_focus_on_cancel(
    open_desk: OpenDesk, button: str, change: VmChange
) -> None:
    desk = await open_desk(runtime_of(configs={0: vm_config(0, snapshots=1)}))
    desk.runtime.host.snapshots = (KEPT,)
    await turn_to(desk, "Snapshots")
    tab = desk.page.details._snapshots
    await until(lambda: tab.table.rowCount() == 1, "the snapshot")
    assert tab.table.item(0, 3).text() == "memory and disks"
    tab.table.selectRow(0)
    getattr(tab, button).click()
    asked = await opened(ConfirmDialog)
    assert isinstance(asked, ConfirmDialog)
    assert "“kept”" in asked.text
    assert "lost" in asked.text
    assert asked.cancel.isDefault()
    asked.go.click()
    await until(lambda: desk.runtime.effects, "the operation")
    (effect,) = (e for e in desk.runtime.effects if isinstance(e, ChangeVm))
    assert (effect.change, effect.snapshot) == (change, SnapshotParameters(name="kept"))


async def test_the_menu_asks_which_snapshot(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(configs={0: vm_config(0, snapshots=1)}))
    desk.runtime.host.snapshots = (KEPT,)
    desk.select(0)
    await desk.settle()
    desk.press("vm.snapshot_delete")
    which = await opened(ChooseSnapshotDialog)
    assert isinstance(which, ChooseSnapshotDialog)
    assert which.choice.currentText() == "kept"
    which.go.click()
    asked = await opened(ConfirmDialog)
    asked.reject()
    await until(lambda: not asked.isVisible())
    assert desk.runtime.effects == []


# --- several, and a node ---------------------------------------------------------------------


async def test_several_vms_are_compared_what_differs_first(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(configs={1: vm_config(1, memory_mib=4096), 0: vm_config(0)}))
    desk.select(0, 1)
    details = desk.page.details
    await until(lambda: details.title.text().startswith("2 selected"))
    shown = [details.tabs.tabText(at) for at in range(details.tabs.count()) if details.tabs.isTabVisible(at)]
    assert shown == ["Summary", "Compare"]
    details.tabs.setCurrentIndex(
        [details.tabs.tabText(i) for i in range(details.tabs.count())].index("Compare")
    )
    await desk.settle()
    rows = dict(details._compared._rows)  # type: ignore[arg-type]
    assert rows["Memory"] == "2 GiB × 1   4 GiB × 1"
    assert rows["vCPUs"] == "2, all the same"
    assert list(rows).index("Memory") < list(rows).index("vCPUs")
    desk.select(0)
    await until(lambda: details.tabs.tabText(details.tabs.currentIndex()) != "Compare")


async def test_a_node_shows_its_roles_and_its_cells(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.window.go_page("nodes")
    await desk.settle()
    desk.page.select(["n1"])
    details = desk.page.details
    await until(details.tabs.isVisible)
    names = [vm.name for vm in desk.runtime.view.vms.values() if vm.owner == "n1"]
    details.tabs.setCurrentIndex(
        [details.tabs.tabText(i) for i in range(details.tabs.count())].index("Roles")
    )
    await until(lambda: details._roles.rowCount() == len(names))
    desk.runtime.rename(0, "other")
    await until(lambda: any(row[0] == "other" for row in details._roles._rows), "the new name")


# --- console ---------------------------------------------------------------------------------


async def test_a_console_types_shows_and_is_let_go(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    await turn_to(desk, "Console")
    tab = desk.page.details._console
    assert not tab.is_connected
    assert desk.runtime.host.consoles == []  # looking alone takes it from nobody
    tab.connect_button.click()
    await until(lambda: tab.is_connected, "the console")
    (console,) = desk.runtime.host.consoles
    console.say(b"login: ")
    await until(lambda: tab.terminal.text == "login:", "what the guest wrote")
    QTest.keyClicks(tab.terminal, "root")
    QTest.keyClick(tab.terminal, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert console.typed == b"root\x03"
    desk.select(1)
    await until(lambda: console.why_ended == "closed", "to be let go")
    assert tab.terminal.text == ""
    assert not tab.is_connected


async def test_another_tab_lets_the_console_go(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    await turn_to(desk, "Console")
    tab = desk.page.details._console
    tab.connect_now()
    await until(lambda: tab.is_connected)
    await turn_to(desk, "Disks")
    assert desk.runtime.host.consoles[0].why_ended == "closed"


async def test_the_end_of_a_console_is_said(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    await turn_to(desk, "Console")
    tab = desk.page.details._console
    tab.connect_now()
    await until(lambda: tab.is_connected)
    desk.runtime.host.consoles[0].say(b"")
    await until(lambda: not tab.is_connected)
    assert tab.said.text() == "The console ended: the VM stopped."
    assert tab.connect_button.isVisible()


async def test_a_console_in_other_hands_can_be_taken_over(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    await turn_to(desk, "Console")
    tab = desk.page.details._console
    text = "Active console session exists for this domain"
    desk.runtime.host.failure = Failure(code=FailureCode.OTHER, text=text)
    tab.connect_now()
    await until(lambda: text in tab.said.text())
    assert tab.take_over_button.isVisible()
    desk.runtime.host.failure = None
    tab.take_over_button.click()
    await until(lambda: tab.is_connected)
    assert desk.runtime.host.asked[-1] == "take over"


async def test_a_window_of_its_own_keeps_the_console(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    await turn_to(desk, "Console")
    desk.page.details._console._open_window()
    own = next(w for w in QApplication.topLevelWidgets() if isinstance(w, ConsoleWindow))
    await until(lambda: own.tab.is_connected)
    assert own.windowTitle() == "web-0: console — prod-a — Muster"
    desk.select(1)
    await desk.settle()
    assert own.tab.is_connected
    own.close()
    await until(lambda: desk.runtime.host.consoles[0].why_ended == "closed")


async def test_ctrl_alt_del_asks_first(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    await turn_to(desk, "Console")
    desk.page.details._console.keys_button.click()
    asked = await opened(ConfirmDialog)
    assert isinstance(asked, ConfirmDialog)
    assert "restart" in asked.text
    asked.go.click()
    await until(lambda: desk.runtime.effects)
    assert any(isinstance(e, ChangeVm) and e.change is VmChange.CTRL_ALT_DEL for e in desk.runtime.effects)


# --- the viewer ------------------------------------------------------------------------------


def install(folder: Path, *names: str) -> None:
    for name in names:
        program = folder / name
        program.write_text("")
        program.chmod(0o755)


def test_the_viewer_gets_arguments_and_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert viewer.viewer_command("qemu:///system", vm_id(1)) is None
    assert viewer.trouble("qemu:///system", ()).startswith("Neither virt-viewer nor remote-viewer")
    install(tmp_path, "virt-viewer", "remote-viewer")
    first = str(tmp_path / "virt-viewer")
    words = [first, "--connect=qemu+ssh://root@n1/system", "--wait", "--", str(vm_id(1))]
    assert viewer.viewer_command("qemu+ssh://root@n1/system", vm_id(1)) == words
    local = viewer.viewer_command("qemu:///system", vm_id(1), [Display(kind="vnc", address="::", port=5900)])
    assert local == [first, "--connect=qemu:///system", "--attach", "--wait", "--", str(vm_id(1))]


@pytest.mark.parametrize(
    ("uri", "address", "ports", "found"),
    [
        ("qemu+ssh://root@n1/system", "0.0.0.0", (5900, 0), "vnc://n1:5900"),
        ("qemu+ssh://root@[fd00::1]:2222/system", "::", (5900, 0), "vnc://[fd00::1]:5900"),
        ("qemu+tls://n1/system", "10.0.0.7", (5901, 5902), "vnc://10.0.0.7:5901?tls-port=5902"),
        ("qemu+tls://n1/system", "fd00::7", (0, 5902), "vnc://[fd00::7]?tls-port=5902"),
        ("qemu+ssh://n1/system", "127.0.0.1", (5900, 0), None),
        ("qemu+ssh://n1/system", "::1", (5900, 0), None),
        ("qemu+ssh://n1/system", "localhost", (5900, 0), None),
        ("qemu:///system", "127.0.0.1", (5900, 0), "vnc://127.0.0.1:5900"),
        ("qemu:///system", "0.0.0.0", (5900, 0), "vnc://localhost:5900"),
    ],
)
def test_the_second_viewer_goes_to_an_address_that_it_can_reach(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    address: str,
    ports: tuple[int, int],
    found: str | None,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    install(tmp_path, "remote-viewer")
    port, tls_port = ports
    displays = [Display(kind="vnc", address=address, port=port, tls_port=tls_port)]
    command = [str(tmp_path / "remote-viewer"), "--", found] if found else None
    assert viewer.viewer_command(uri, vm_id(1), displays) == command
    assert ("for its own node alone" in viewer.trouble(uri, displays)) is not bool(found)


def test_the_second_viewer_takes_the_first_display_of_those_it_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    install(tmp_path, "remote-viewer")
    displays = [
        Display(kind="spice", address="127.0.0.1", port=5900),
        Display(kind="vnc", address="0.0.0.0", port=5901),
    ]
    command = viewer.viewer_command("qemu+ssh://n1/system", vm_id(1), displays)
    assert command is not None
    assert command[-1] == "vnc://n1:5901"

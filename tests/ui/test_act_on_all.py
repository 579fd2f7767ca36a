"""An action on what is shown while more is selected: said each time, and the second button takes all."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from manager.core.effects import ChangeVm, VmChange
from manager.ui.dialogs.confirm import ConfirmDialog
from manager.ui.dialogs.migrate import MigrateDialog
from manager.ui.dialogs.tags import TagsDialog
from tests.ui.cluster_of import runtime_of, vm_id
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.test_window import dialog_of, wait_for


async def type_filter(desk: Desk, text: str) -> None:
    """Search for it."""
    desk.page.search.setText(text)
    desk.page.search.flush()
    await desk.settle()


def changed(desk: Desk, change: VmChange) -> set[str]:
    """The VMs that the hosts were told to change so."""
    return {e.vm for e in desk.runtime.effects if isinstance(e, ChangeVm) and e.change is change}


async def test_a_question_is_about_what_is_shown_and_its_second_button_about_all(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0, 1, 2, 3)
    await type_filter(desk, "web-1 or web-2")
    desk.press("vm.turn_off")
    dialog = await wait_for(desk, ConfirmDialog)
    assert isinstance(dialog, ConfirmDialog)
    assert dialog.heading.text() == "Turn off 2 VMs in prod-a?"
    assert dialog.beside.text() == "Selected too, and left alone: 2 more hidden by the filter."
    assert dialog.focusWidget() is dialog.cancel
    assert dialog.other is not None
    assert dialog.other.text() == "Act on all 4…"
    dialog.other.setFocus()
    QTest.keyClick(dialog.other, Qt.Key.Key_Return)
    await until(lambda: dialog_of(desk, ConfirmDialog) not in (None, dialog), "the question about all")
    every = dialog_of(desk, ConfirmDialog)
    assert isinstance(every, ConfirmDialog)
    assert every.heading.text() == "Turn off 4 VMs in prod-a?"
    assert every.other is None
    assert not changed(desk, VmChange.TURN_OFF)  # that button alone does nothing
    every.go.click()
    await until(lambda: len(changed(desk, VmChange.TURN_OFF)) == 4, "four calls")
    assert not desk.window.notes  # it was said in the question


async def test_the_first_button_leaves_what_is_hidden_alone(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0, 1, 2, 3)
    await type_filter(desk, "web-1 or web-2")
    desk.press("vm.turn_off")
    (await wait_for(desk, ConfirmDialog)).go.click()  # type: ignore[attr-defined]
    await until(lambda: changed(desk, VmChange.TURN_OFF), "the calls")
    await until(lambda: dialog_of(desk, ConfirmDialog) is None)
    assert changed(desk, VmChange.TURN_OFF) == {vm_id(1), vm_id(2)}


async def test_what_asks_nothing_says_it_afterwards_and_takes_the_others_along(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12, off=frozenset(range(4))))
    desk.select(0, 1, 2, 3)
    await type_filter(desk, "web-1")
    desk.press("vm.start")
    await until(lambda: desk.window.notes, "the note")
    note = desk.window.notes[-1]
    assert note.label.text() == (
        "Start 1 VM: asked for. Selected too, and left alone: 3 more hidden by the filter."
    )
    assert changed(desk, VmChange.START) == {vm_id(1)}
    assert [button.text() for button in note.buttons] == ["Act on the 3 too"]
    note.buttons[0].click()
    await until(lambda: len(changed(desk, VmChange.START)) == 4, "the others' start")
    assert len([e for e in desk.runtime.effects if isinstance(e, ChangeVm)]) == 4  # each once


async def test_nothing_is_said_where_nothing_is_hidden(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12, off=frozenset({0})))
    desk.select(0)
    desk.press("vm.start")
    await until(lambda: changed(desk, VmChange.START), "the start")
    assert not desk.window.notes
    desk.select(1, 2)
    desk.press("vm.turn_off")
    dialog = await wait_for(desk, ConfirmDialog)
    assert dialog.other is None
    dialog.reject()


async def test_what_was_entered_goes_along_to_all(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0, 1, 2, 3)
    await type_filter(desk, "web-1 or web-2")
    desk.press("vm.live_migrate.select")
    dialog = await wait_for(desk, MigrateDialog)
    assert isinstance(dialog, MigrateDialog)
    assert dialog.other is not None
    dialog.nodes.selectRow(3)
    wanted = dialog.target
    dialog.other.click()
    await until(lambda: dialog_of(desk, MigrateDialog) not in (None, dialog), "the plan for all")
    every = dialog_of(desk, MigrateDialog)
    assert isinstance(every, MigrateDialog)
    assert every.target == wanted
    assert len(every.plan.steps) + len(every.plan.skipped) == 4
    every.reject()
    desk.press("vm.tags")
    tags = await wait_for(desk, TagsDialog)
    assert isinstance(tags, TagsDialog)
    tags.new.setText("gold, night")
    assert tags.other is not None
    tags.other.click()
    await until(lambda: dialog_of(desk, TagsDialog) not in (None, tags), "the tags of all")
    of_all = dialog_of(desk, TagsDialog)
    assert isinstance(of_all, TagsDialog)
    assert of_all.parameters.add == ("gold", "night")
    assert of_all.go.text() == "Change the tags of 4"
    of_all.reject()


async def test_a_selection_of_which_nothing_is_shown_says_so(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0, 1)
    await type_filter(desk, "web-7")
    pane = desk.window.actions_pane
    assert pane.title.text() == "Nothing selected is shown"
    assert pane.subtitle.text() == "2 more hidden by the filter: left alone"
    assert not desk.window.center.actions["vm.turn_off"].isEnabled()
    await type_filter(desk, "")
    assert desk.selected == (vm_id(0), vm_id(1))


async def test_a_selection_outside_of_the_part_that_is_shown_is_not_said_to_be_filtered(
    open_desk: OpenDesk,
) -> None:
    desk = await open_desk()
    desk.select(0, 1, 2)
    desk.page.set_scope("On n2", lambda vm: vm.owner == "n2")
    assert desk.page.table.hidden_text == "2 more not in this list"

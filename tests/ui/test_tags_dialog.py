"""The tags of many VMs at once: boxes of three states, new words, what changes, and nobody else's lost."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from manager.core.actions import TAGS, TagsParameters
from manager.core.effects import WriteVmSettings
from manager.core.model import VmSettings
from manager.ui.dialogs.tags import TagsDialog
from manager.ui.theme import Look
from tests.ui.cluster_of import runtime_of, vm_config, vm_id
from tests.ui.conftest import OpenDesk, until

TAGGED = (("prod", "web"), ("prod",), ("prod", "db"))


def dialog_of(qtbot: QtBot, look: Look, tagged: Sequence[tuple[str, ...]] = TAGGED) -> TagsDialog:
    configs = {n: vm_config(n, settings=VmSettings(tags=tags)) for n, tags in enumerate(tagged)}
    view = runtime_of(2, 4, configs=configs).view
    ids = [vm_id(n) for n in range(len(tagged))]
    dialog = TagsDialog(None, look, view, ids, cluster_option="--cluster prod")
    qtbot.addWidget(dialog)
    return dialog


def box(dialog: TagsDialog, word: str) -> int:
    found = [r for r in range(dialog.boxes.count()) if dialog.boxes.item(r).text().startswith(word)]
    return found[0]


def test_the_boxes_say_who_has_what_and_nothing_is_asked_at_first(qtbot: QtBot, look: Look) -> None:
    dialog = dialog_of(qtbot, look)
    states = {
        dialog.boxes.item(row).text(): dialog.boxes.item(row).checkState()
        for row in range(dialog.boxes.count())
    }
    assert states == {
        "db   (1 of 3)": Qt.CheckState.PartiallyChecked,
        "prod   (3 of 3)": Qt.CheckState.Checked,
        "web   (1 of 3)": Qt.CheckState.PartiallyChecked,
    }
    assert not dialog.plan.steps
    assert not dialog.go.isEnabled()
    assert dialog.command.text() == ""


def test_a_half_box_leaves_each_as_it_is_and_the_others_change_all(qtbot: QtBot, look: Look) -> None:
    dialog = dialog_of(qtbot, look)
    dialog.boxes.item(box(dialog, "web")).setCheckState(Qt.CheckState.Checked)
    dialog.boxes.item(box(dialog, "prod")).setCheckState(Qt.CheckState.Unchecked)
    dialog.new.setText("blue, web")
    assert dialog.parameters == TagsParameters(add=("web", "blue"), remove=("prod",))
    rows = [[dialog.steps.item(r, c).text() for c in range(1, 3)] for r in range(3)]
    assert rows == [
        ["adds blue; removes prod", "web, blue"],
        ["adds web, blue; removes prod", "web, blue"],
        ["adds web, blue; removes prod", "db, web, blue"],
    ]
    assert dialog.command.text().startswith("muster --cluster prod vm tag ")
    assert dialog.command.text().endswith("--add web,blue --remove prod")
    assert dialog.go.text() == "Change the tags of 3"


def test_a_wrong_word_is_explained_as_it_is_typed(qtbot: QtBot, look: Look) -> None:
    dialog = dialog_of(qtbot, look)
    dialog.new.setText("x" * 65)
    assert not dialog.go.isEnabled()
    assert "65 characters; 64 are the most" in dialog.trouble.text()
    dialog.new.setText("x")
    assert dialog.trouble.isHidden()
    assert dialog.go.isEnabled()


def test_known_tags_are_completed_behind_the_last_comma(qtbot: QtBot, look: Look) -> None:
    dialog = dialog_of(qtbot, look)
    completer = dialog.new.completer()
    dialog.new.setText("blue, w")
    completer.setCompletionPrefix(dialog.new.text())
    assert completer.completionCount() == 1
    assert completer.currentCompletion() == "blue, web"


async def test_from_the_selection_to_the_request(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0, 1)
    desk.press(TAGS.id)
    await until(lambda: desk.window.findChildren(TagsDialog), "the dialog")
    (dialog,) = desk.window.findChildren(TagsDialog)
    assert dialog.isModal()
    QTest.keyClicks(dialog.new, "blue")
    QTest.keyClick(dialog.new, Qt.Key.Key_Return)
    await until(lambda: desk.runtime.effects, "the request")
    written = {e.vm: e.settings.tags for e in desk.runtime.effects if isinstance(e, WriteVmSettings)}
    assert written == {vm_id(0): ("blue",), vm_id(1): ("blue",)}

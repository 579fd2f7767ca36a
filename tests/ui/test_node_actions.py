"""Pausing, draining and resuming nodes in the window: the menus, the plan that is shown, and its end."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication, QMenu

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId
from manager.core.model import Hold
from manager.ui.dialogs.node_plan import NodePlanDialog
from manager.ui.node_actions import LINES, NOTHING
from tests.ui.cluster_of import runtime_of, vm_id
from tests.ui.conftest import Desk, OpenDesk, until

N1, N2 = NodeId("n1"), NodeId("n2")


async def on_nodes(open_desk: OpenDesk, *names: str) -> Desk:
    desk = await open_desk(runtime_of(3, 9))
    desk.window.travel.go_page("nodes")
    await desk.settle()
    desk.page.select(list(names))
    await desk.settle()
    return desk


def lines(desk: Desk) -> dict[str, QAction]:
    """What the menu offers: submenu and line."""
    menu: QMenu = desk.window.commands.node_menu
    menu.aboutToShow.emit()
    found = {}
    for action in menu.actions():
        below = action.menu()
        if isinstance(below, QMenu):
            found |= {f"{action.text()} › {each.text()}": each for each in below.actions()}
        elif action.text():
            found[action.text()] = action
    return found


def dialog_of() -> NodePlanDialog | None:
    shown = [w for w in QApplication.topLevelWidgets() if isinstance(w, NodePlanDialog) and w.isVisible()]
    return shown[0] if shown else None


async def asked(but: NodePlanDialog | None = None) -> NodePlanDialog:
    await until(lambda: dialog_of() not in (None, but), "the question")
    found = dialog_of()
    assert found is not None
    return found


def effects(desk: Desk, kind: type[fx.Effect]) -> list[fx.Effect]:
    return [effect for effect in desk.runtime.effects if isinstance(effect, kind)]


async def test_without_a_selected_node_the_menu_says_what_to_do(open_desk: OpenDesk) -> None:
    desk = await on_nodes(open_desk)
    desk.page.select([])
    assert [(text, line.isEnabled()) for text, line in lines(desk).items()] == [(NOTHING, False)]


async def test_what_applies_to_no_selected_node_is_grey_and_says_why(open_desk: OpenDesk) -> None:
    desk = await on_nodes(open_desk, "n1", "n2")
    found = lines(desk)
    assert list(found) == [f"{menu} › {line}" for menu, line, _, _ in LINES]
    assert found["Pause › Drain roles…"].isEnabled()
    resume = found["Resume › Fail roles back…"]
    assert not resume.isEnabled()
    assert "not paused" in resume.toolTip()


async def test_a_drain_shows_its_plan_asks_why_and_is_begun(open_desk: OpenDesk) -> None:
    desk = await on_nodes(open_desk, "n1")
    lines(desk)["Pause › Drain roles…"].trigger()
    dialog = await asked()
    assert dialog.heading.text().startswith("Pause and drain n1 in ")
    assert "3 of its VMs move" in dialog.text
    assert dialog.cancel.hasFocus() or dialog.why is not None
    assert dialog.why is not None
    dialog.why.setText("  new   memory ")
    dialog.go.click()
    await until(lambda: effects(desk, fx.HoldNode), "the pause to be written")
    (hold,) = effects(desk, fx.HoldNode)
    assert isinstance(hold, fx.HoldNode)
    assert (hold.node, hold.hold.why) == (N1, "new memory")
    assert not effects(desk, fx.StartMigration)  # only once it is written


async def test_given_up_nothing_is_done(open_desk: OpenDesk) -> None:
    desk = await on_nodes(open_desk, "n1")
    lines(desk)["Pause › Do not drain roles…"].trigger()
    (await asked()).cancel.click()
    await desk.settle()
    assert not desk.runtime.view.operations


async def test_a_world_that_changed_is_shown_again(open_desk: OpenDesk) -> None:
    desk = await on_nodes(open_desk, "n1")
    lines(desk)["Pause › Drain roles…"].trigger()
    first = await asked()
    hold = Hold(who="other", why="mine", since_s=desk.runtime.clock.at_s)
    desk.runtime.dispatch(ev.NodeHeld(at_s=desk.runtime.clock.at_s, node=N2, hold=hold))
    first.go.click()
    second = await asked(but=first)
    assert not desk.runtime.view.operations
    second.go.click()
    await until(lambda: bool(desk.runtime.view.operations), "the request")
    targets = {o.target for o in desk.runtime.view.operations.values() if o.target is not None}
    assert targets == {NodeId("n3")}


async def test_what_the_node_refuses_is_told(open_desk: OpenDesk) -> None:
    desk = await on_nodes(open_desk, "n1")
    lines(desk)["Pause › Do not drain roles…"].trigger()
    (await asked()).go.click()
    await until(lambda: effects(desk, fx.HoldNode), "the pause to be written")
    (hold,) = effects(desk, fx.HoldNode)
    assert isinstance(hold, fx.HoldNode)
    failure = Failure(code=FailureCode.OTHER, text="no room for secrets", node=N1)
    desk.runtime.dispatch(
        ev.EffectEnded(
            at_s=desk.runtime.clock.at_s, operation=hold.operation, attempt=hold.attempt, failure=failure
        )
    )
    await until(
        lambda: any("no room for secrets" in note.label.text() for note in desk.window.notes), "the note"
    )


@pytest.mark.parametrize(("menu", "line", "spec", "parameters"), LINES)
async def test_every_line_is_in_the_context_menu_too(
    open_desk: OpenDesk, menu: str, line: str, spec: object, parameters: object
) -> None:
    desk = await on_nodes(open_desk, "n1")
    made = QMenu()
    desk.window.commands._node_actions.fill(made, desk.page.parts)
    submenu = next(a.menu() for a in made.actions() if a.text() == menu)
    assert isinstance(submenu, QMenu)
    assert line in [a.text() for a in submenu.actions()]
    assert vm_id(0) in desk.runtime.view.vms

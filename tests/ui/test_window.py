"""The window: actions and counts, questions before, results after, panes, keys, what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QKeySequence
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QDialog

from manager.core.actions import DEFINITION, LIVE_MIGRATE, OWNERS, RULES, VM_ACTIONS
from manager.core.effects import ChangeVm, StartMigration, VmChange
from manager.core.errors import Failure, FailureCode
from manager.core.events import (
    MigrationProgress,
    NodeConnected,
    NodeConnecting,
    NodeInventoryRead,
    NodeLost,
    TimerFired,
)
from manager.core.ids import ClusterId, NodeId
from manager.core.model import NodeFacts, PeerRoute, StatusCause, Tier, VmStatus
from manager.core.operations import OperationState
from manager.ui.actions import ENTRIES
from manager.ui.dialogs.base import Asking
from manager.ui.dialogs.confirm import ConfirmDialog
from manager.ui.dialogs.migrate import MigrateDialog
from manager.ui.dialogs.small import PeerLoginDialog, WorkLeftDialog
from manager.ui.views.list_page import ListPage
from manager.ui.views.navigation import Place
from manager.ui.views.overview import Overview
from tests.ui.cluster_of import FakeRuntime, MemoryViews, config_of, runtime_of, vm_config, vm_id
from tests.ui.conftest import Desk, OpenDesk, until


def dialog_of(desk: Desk, kind: type[Asking]) -> Asking | None:
    """The open dialog of that kind."""
    return next((d for d in desk.window.findChildren(kind) if d.isVisible()), None)


async def wait_for(desk: Desk, kind: type[Asking]) -> Asking:
    """The dialog of that kind, once it is open."""
    await until(lambda: dialog_of(desk, kind), kind.__name__)
    found = dialog_of(desk, kind)
    assert found is not None
    return found


# --- actions ---------------------------------------------------------------------------------


async def test_every_action_has_a_line_in_menu_and_pane(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    on_pages = {spec.id for spec in DEFINITION}  # of the settings of one VM
    commands_only = {OWNERS.id, RULES.id}  # so far
    assert {entry.spec.id for entry in ENTRIES} | on_pages | commands_only == {spec.id for spec in VM_ACTIONS}
    assert set(desk.window.actions_pane.lines) == {entry.id for entry in ENTRIES}
    for entry in ENTRIES:
        action = desk.window.center.actions[entry.id]
        assert action.shortcut() == QKeySequence(entry.shortcut)
        assert (entry.doc or entry.spec.doc) in action.toolTip()


async def test_keys_act_on_the_list_of_the_first_cluster_that_is_opened(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    assert desk.page.table.hasFocus()


async def test_dangerous_actions_have_no_key(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    for key in ("vm.turn_off", "vm.reset", "vm.delete_saved_state"):
        assert desk.window.center.actions[key].shortcut().isEmpty()


async def test_counts_and_reasons_follow_the_selection_and_the_world(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(3, 12, off=frozenset({0, 1})))
    center = desk.window.center
    assert not center.actions["vm.start"].isEnabled()
    assert "No VM is selected" in center.actions["vm.start"].toolTip()
    desk.select(0, 1, 2)
    assert center.counts["vm.start"].text == "2 of 3"
    assert center.counts["vm.shut_down"].text == "1 of 3"
    assert desk.window.actions_pane.lines["vm.start"].count_text == "2 of 3"
    assert "2 × already off" in center.actions["vm.shut_down"].toolTip()
    desk.select(2)
    assert not center.actions["vm.start"].isEnabled()
    assert "already running on n3" in center.actions["vm.start"].toolTip()
    desk.runtime.change(2, VmStatus.OFF, StatusCause.SHUT_DOWN)
    await desk.settle()
    assert center.actions["vm.start"].isEnabled()
    assert desk.window.actions_pane.title.text() == "web-2"


async def test_greyed_actions_say_why(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(2, 4, read_only=True))
    desk.select(0, 1)
    why = {title: reasons for title, _, reasons in desk.window.center.why_not()}
    assert why["Start"] == ["2 × this connection is read-only"]
    assert "read-only" in desk.window.windowTitle()


async def test_a_harmless_action_starts_unasked_and_ends_with_a_result(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(2, 4, off=frozenset({0})))
    desk.select(0)
    desk.press("vm.start")
    await until(lambda: desk.runtime.effects, "the start")
    effect = desk.runtime.effects[0]
    assert isinstance(effect, ChangeVm)
    assert effect.change is VmChange.START
    assert dialog_of(desk, ConfirmDialog) is None


async def test_a_destructive_action_asks_once_with_counts_and_the_focus_on_cancel(
    open_desk: OpenDesk,
) -> None:
    desk = await open_desk(runtime_of(3, 12, off=frozenset({0, 1})))
    desk.select(0, 1, 2, 3, 4)
    desk.press("vm.turn_off")
    dialog = await wait_for(desk, ConfirmDialog)
    assert isinstance(dialog, ConfirmDialog)
    assert dialog.heading.text() == "Turn off 3 VMs in prod-a?"
    assert "This is a power cut: unsaved data in the guests is lost." in dialog.text
    assert "3 of 5; 2 skipped: already off." in dialog.text
    assert dialog.go.text() == "Turn off 3"
    assert dialog.cancel.isDefault()
    assert dialog.focusWidget() is dialog.cancel
    assert not desk.runtime.effects
    dialog.cancel.click()
    await until(lambda: dialog_of(desk, ConfirmDialog) is None)
    assert not desk.runtime.effects
    desk.press("vm.turn_off")
    (await wait_for(desk, ConfirmDialog)).go.click()  # type: ignore[attr-defined]
    await until(lambda: len(desk.runtime.effects) == 3, "three calls")


async def test_what_changed_while_it_was_asked_is_asked_again(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(1, 2)
    desk.press("vm.turn_off")
    first = await wait_for(desk, ConfirmDialog)
    desk.runtime.change(1, VmStatus.OFF, StatusCause.SHUT_DOWN)
    desk.runtime.effects.clear()
    first.accept()
    await until(lambda: dialog_of(desk, ConfirmDialog) not in (None, first), "the second question")
    second = dialog_of(desk, ConfirmDialog)
    assert isinstance(second, ConfirmDialog)
    assert second.heading.text() == "Turn off web-2 in prod-a?"
    assert not any(isinstance(e, ChangeVm) for e in desk.runtime.effects)
    second.reject()


async def test_many_are_moved_by_a_plan_that_names_what_stays(open_desk: OpenDesk) -> None:
    stuck = vm_config(1, host_devices=("PCI 0000:3b:00.0",))
    desk = await open_desk(runtime_of(3, 9, configs={2: stuck}))
    desk.select(0, 2, 3)
    desk.press("vm.live_migrate.select")
    dialog = await wait_for(desk, MigrateDialog)
    assert isinstance(dialog, MigrateDialog)
    dialog.nodes.selectRow(2)  # n2, after the best node and n1
    assert dialog.target == NodeId("n2")
    assert [s.name for s in dialog.plan.steps] == ["web-0", "web-3"]
    assert dialog.go.text() == "Move 2 VMs"
    assert dialog.stays.item(0, 0).text() == "web-2"
    assert "PCI 0000:3b:00.0" in dialog.stays.item(0, 1).text()
    assert dialog.command.text() == "muster --cluster prod-a vm migrate web-0 web-3 --to n2"
    assert not desk.runtime.effects
    dialog.go.click()
    await until(lambda: len(desk.window.clusters[desk.runtime.id].tally.queue) == 2, "two moves")
    assert {o.target for o in desk.runtime.view.operations.values() if o.vm} == {NodeId("n2")}


async def test_one_to_the_best_node_is_told_not_asked(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0)
    desk.press("vm.live_migrate.best")
    await until(lambda: desk.window.notes, "the note")
    note = desk.window.notes[-1]
    assert note.label.text().startswith("web-0 moves to n")
    assert [b.text() for b in note.buttons] == ["Change…", "Cancel"]
    note.buttons[1].click()
    await desk.settle()
    assert not desk.runtime.view.claims


@pytest.mark.parametrize("button", [0, 1])
async def test_what_a_notes_button_could_not_ask_for_is_said(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch, button: int
) -> None:
    desk = await open_desk()
    desk.select(0)
    desk.press("vm.live_migrate.best")
    await until(lambda: desk.window.notes, "the note")

    def lost(operations: object) -> None:
        raise OSError("the owner of this cluster's operations was lost; try again in a moment")

    monkeypatch.setattr(desk.runtime, "cancel", lost)
    desk.window.notes[-1].buttons[button].click()
    said = "The owner of this cluster's operations was lost; try again in a moment."
    assert [note.label.text() for note in desk.window.notes][-1] == said
    await desk.settle()
    assert dialog_of(desk, MigrateDialog) is None  # it is not to be moved twice
    assert desk.runtime.view.claims


async def test_a_refused_login_says_the_commands_and_offers_the_way_around(open_desk: OpenDesk) -> None:
    desk = await open_desk(
        runtime_of(2, 4)  # n1 and n2: there is one way only
    )
    desk.select(0)
    desk.press("vm.live_migrate.best")
    await until(lambda: desk.runtime.effects, "the check")
    desk.runtime.answer(
        Failure(code=FailureCode.PEER_LOGIN, text="Host key verification failed.", detail="code 38")
    )
    await until(lambda: any("cannot log in" in n.label.text() for n in desk.window.notes), "the note")
    note = next(n for n in desk.window.notes if "cannot log in" in n.label.text())
    assert [b.text() for b in note.buttons] == ["How to repair it…", "Move through this computer"]
    note.buttons[0].click()
    dialog = await wait_for(desk, PeerLoginDialog)
    assert isinstance(dialog, PeerLoginDialog)
    assert dialog.heading.text() == "n1 cannot log in to n2"
    assert "virsh" in dialog.commands.toPlainText()
    dialog.accept()
    await until(lambda: any(isinstance(e, StartMigration) for e in desk.runtime.effects), "the way around")
    move = next(e for e in desk.runtime.effects if isinstance(e, StartMigration))
    assert move.route is PeerRoute.THROUGH_THIS_COMPUTER


async def test_a_shutdown_that_is_ignored_offers_what_to_do_and_does_nothing_by_itself(
    open_desk: OpenDesk,
) -> None:
    desk = await open_desk()
    desk.select(0, 1)
    desk.press("vm.shut_down")
    (await wait_for(desk, ConfirmDialog)).accept()
    await until(lambda: len(desk.runtime.effects) >= 2, "two calls")
    desk.runtime.answer()
    desk.runtime.change(0, VmStatus.OFF, StatusCause.SHUT_DOWN)
    held = desk.runtime.view.claims[vm_id(1)]
    desk.runtime.effects.clear()
    desk.runtime.clock.at_s += 181
    desk.runtime.dispatch(TimerFired(at_s=desk.runtime.clock.at_s, key=f"patience:{held}"))
    await until(lambda: desk.window.notes, "the note")
    note = desk.window.notes[-1]
    assert note.label.text() == "1 off, web-1 still running: the guest did not answer within 3 min."
    assert [b.text() for b in note.buttons] == ["Wait on", "Ask the agent", "Turn off 1…"]
    assert not any(isinstance(e, ChangeVm) for e in desk.runtime.effects)
    note.buttons[1].click()
    await until(lambda: any(isinstance(e, ChangeVm) for e in desk.runtime.effects), "the agent")
    effect = next(e for e in desk.runtime.effects if isinstance(e, ChangeVm))
    assert effect.change is VmChange.SHUT_DOWN_AGENT


# --- panes -----------------------------------------------------------------------------------


async def test_a_failure_is_told_in_order_with_its_story(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(2, 4, off=frozenset({0})))
    desk.select(0)
    desk.press("vm.start")
    await until(lambda: desk.runtime.effects)
    desk.runtime.answer(
        Failure(code=FailureCode.STORAGE, text="cannot open disk", detail="error 38, domain 18")
    )
    batch = next(o for o in desk.runtime.view.operations.values() if o.vm is None)
    child = next(o for o in desk.runtime.view.operations.values() if o.vm)
    if not child.is_over:  # it is judged by a look at the node, not by the answer alone
        from manager.core.events import NodeInventoryRead, SeenVm

        at = desk.runtime.clock.at_s + 1
        node = child.source
        assert node is not None
        seen = tuple(
            SeenVm(vm=v.id, name=v.name, status=v.status, incarnation=None if v.status is VmStatus.OFF else 3)
            for v in desk.runtime.view.vms.values()
            if v.owner == node
        )
        desk.runtime.dispatch(NodeInventoryRead(at_s=at, node=node, started_s=at, vms=seen))
    await desk.settle()
    desk.window.travel.show_operation(desk.runtime, batch.id)  # type: ignore[arg-type]
    await desk.settle()
    text = desk.window.clusters[desk.runtime.id].operations.message.toPlainText()
    lines = text.splitlines()
    assert lines[0] == "Start web-0: not done."
    assert lines[1] == "web-0 is Off on n1."
    assert lines[2] == "Cannot open disk."
    assert "Detail: storage, error 38, domain 18" in text
    assert "Story" in text


async def test_moves_show_bars_that_never_fall_and_a_count(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.runtime.request(LIVE_MIGRATE.plan(desk.runtime.view, [vm_id(0)]))
    desk.runtime.answer()
    move = next(o for o in desk.runtime.view.operations.values() if o.vm)
    assert move.state is OperationState.RUNNING

    def progress(remaining: int) -> None:
        desk.runtime.dispatch(
            MigrationProgress(
                at_s=desk.runtime.clock.at_s,
                operation=move.id,
                attempt=move.attempt,
                elapsed_ms=1000,
                total_bytes=1000,
                remaining_bytes=remaining,
                rate_bytes_per_s=100,
                dirty_bytes_per_s=10,
                iteration=1,
            )
        )

    queue = desk.window.clusters[desk.runtime.id].queue
    column = queue.model.columns["percent"]
    desk.window.show_pane("migrations")
    shown = []
    for remaining in (600, 700, 200):
        progress(remaining)
        await desk.settle()
        shown.append(queue.model.text(queue.model.rows[0], column))
    assert shown == ["40 %", "40 %", "80 %"]
    desk.window._show_counts()
    assert desk.window.panes.tabText(0) == "Live migrations  1 + 0"


async def test_a_lost_node_turns_its_rows_unknown_and_makes_one_problem(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    runtime = desk.runtime
    at = runtime.clock.at_s + 20
    failure = Failure(code=FailureCode.UNREACHABLE, text="Connection reset")
    runtime.dispatch(NodeLost(at_s=at, node=NodeId("n1"), failure=failure, retry_at_s=at + 1))
    runtime.dispatch(TimerFired(at_s=at + 60, key="silent:n1"))
    await desk.settle()
    model = desk.page.model
    row = model.rows[model.position(vm_id(0))]
    assert model.text(row, model.columns["status"]) == "Unknown (was Running)"
    desk.window.show_pane("problems")
    await desk.settle()
    problems = desk.window.clusters[runtime.id].problems.model
    assert [problems.text(r, problems.columns["affected"]) for r in problems.rows] == ["4 VMs"]
    desk.window._tick()
    assert "2 of 3 nodes live" in desk.window._live.text()


# --- going about -----------------------------------------------------------------------------


async def test_pages_scopes_back_and_forward(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    window, cluster = desk.window, desk.runtime.id
    window.go_page("nodes")
    assert isinstance(window.pages.currentWidget(), ListPage)
    assert len(desk.page.model.rows) == 3
    window.go_page("overview")
    assert isinstance(window.pages.currentWidget(), Overview)
    window.navigation.go(Place(cluster, "roles", "node:n2"))
    assert [r.item.owner for r in desk.page.model.rows] == ["n2"] * 4
    window.travel.go_back()
    assert isinstance(window.pages.currentWidget(), Overview)
    window.travel.go_forward()
    assert desk.page.scope_title == "on n2"


async def test_loads_are_asked_for_only_while_a_column_shows_them(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    assert "page vm" in desk.runtime.sampler.wanted
    desk.page.table.show_column(desk.page.model.columns["cpu"], False)
    assert not desk.runtime.sampler.wanted
    desk.window.go_page("nodes")
    assert desk.runtime.sampler.wanted == {"page node"}
    desk.window.go_page("roles")
    assert not desk.runtime.sampler.wanted


async def test_ctrl_a_selects_all_wherever_the_focus_is(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(1, 5))
    desk.window.navigation.setFocus()
    desk.window.commands.select_all.trigger()
    assert desk.page.table.selected_count == 5


async def test_several_clusters_keep_their_colours_and_names_apart(open_desk: OpenDesk) -> None:
    one, two = runtime_of(1, 2), runtime_of(2, 5, name="prod-b", colour="#d55e00", tier=Tier.DEMO)
    desk = await open_desk(one, two)
    window = desk.window
    assert window.windowTitle() == "prod-a — Muster"
    window.travel.next_cluster()
    assert window.windowTitle() == "prod-b — DEMO — Muster"
    assert window._tier.text().startswith("DEMO")
    assert len(desk.page.model.rows) == 5
    await window.workspace.close(ClusterId("prod-b"))
    assert list(window.clusters) == ["prod-a"]
    assert two.closed
    await window.workspace.close(ClusterId("prod-a"))
    assert window.windowTitle() == "Muster"
    assert window.centralWidget().currentWidget() is window._welcome


async def test_empty_pages_say_what_belongs_there(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(1, 0))
    assert desk.page.empty.isVisible()
    assert desk.page.empty.title.text() == "No VM is defined on these nodes"
    assert desk.page.empty.button.text() == "Read again"
    desk.page.empty.button.click()
    assert desk.runtime.read == [None]


async def test_a_search_without_a_hit_offers_to_clear_it(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.window.lists.focus_search()
    assert desk.page.search.hasFocus()
    QTest.keyClicks(desk.page.search, "nothing")
    await until(lambda: desk.page.empty.isVisible())
    assert desk.page.empty.title.text() == "None of 12 matches “nothing”"
    QTest.keyClick(desk.page.search, Qt.Key.Key_Escape)
    await until(lambda: len(desk.page.model.rows) == 12)


async def test_f6_goes_round_the_panes(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0)
    desk.window.activateWindow()
    desk.page.table.setFocus()
    await until(lambda: desk.page.details.tabs.isVisible(), "the details")
    seen = []
    for _ in range(5):
        desk.window._next_pane(1)
        focus = QApplication.focusWidget()
        assert focus is not None
        seen.append(focus)
    assert len(set(seen)) == 5
    assert seen[-1] is desk.page.table


async def test_copy_as_command(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(1, 3, names=lambda n: f"my vm {n}" if n else "-x"))
    desk.page.table.selectAll()
    desk.window.lists.copy_command()
    lines = QGuiApplication.clipboard().text().splitlines()
    assert lines[0] == f"muster --cluster prod-a vm show {vm_id(0)}"
    assert lines[1] == "muster --cluster prod-a vm show 'my vm 1'"


@pytest.mark.parametrize(
    ("source", "option"),
    [
        (Path("/else where/prod.toml"), "--cluster '/else where/prod.toml'"),
        (None, "--connect test://n1/ test://n2/"),
    ],
)
async def test_commands_name_the_cluster_so_that_it_is_found(
    open_desk: OpenDesk, source: Path | None, option: str
) -> None:
    desk = await open_desk(runtime_of(2, 3), source=source)
    desk.select(0)
    desk.window.lists.copy_command()
    assert QGuiApplication.clipboard().text() == f"muster {option} vm show web-0"
    desk.press("vm.live_migrate.select")
    dialog = await wait_for(desk, MigrateDialog)
    assert isinstance(dialog, MigrateDialog)
    assert dialog.command.text() == f"muster {option} vm migrate web-0"
    dialog.reject()
    desk.window.go_page("nodes")
    desk.page.select(["n1"])
    desk.window.lists.copy_command()
    assert QGuiApplication.clipboard().text() == f"muster {option} node list"


async def test_an_empty_list_follows_what_becomes_of_the_nodes(open_desk: OpenDesk) -> None:
    runtime = FakeRuntime(config_of(1))
    desk = await open_desk(runtime)
    assert desk.page.empty.title.text() == "No VM is known yet"
    at_s, n1 = runtime.clock.at_s, NodeId("n1")
    runtime.dispatch(NodeConnecting(at_s=at_s, node=n1))
    facts = NodeFacts(hostname="n1", host_uuid="h", cpus=8, memory_mib=4096, features=frozenset())
    runtime.dispatch(NodeConnected(at_s=at_s, node=n1, facts=facts))
    runtime.dispatch(NodeInventoryRead(at_s=at_s, node=n1, started_s=at_s, vms=()))
    await desk.settle()
    assert desk.page.empty.title.text() == "No VM is defined on these nodes"


async def test_export_writes_what_is_shown_and_says_when_it_cannot(
    open_desk: OpenDesk, tmp_path: Path
) -> None:
    desk = await open_desk()
    desk.window.lists.export_to(tmp_path / "vms.csv")
    assert len((tmp_path / "vms.csv").read_text().splitlines()) == 13
    desk.window.lists.export_to(tmp_path / "missing" / "vms.csv")
    assert "was not written: No such file or directory" in desk.window.notes[-1].label.text()


async def test_the_layout_is_remembered(open_desk: OpenDesk) -> None:
    views = MemoryViews()
    first = await open_desk(runtime_of(), views=views)
    first.window.resize(780, 640)  # the offscreen screen is 800 wide
    first.window.commands.tree.setChecked(False)
    first.window.choose_theme("dark")
    first.window.choose_density("compact")
    first.window.go_page("nodes")
    first.window.save_layout()
    second = await open_desk(runtime_of(), views=views)
    assert second.window.size().width() == 780
    assert not second.window.navigation.isVisible()
    assert second.window.saved.theme == "dark"
    assert second.page.table.row_height == second.look.sizes.row_compact_px
    assert second.window.here is not None
    assert second.window.here.page == "nodes"


async def test_closing_with_work_left_asks(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.runtime.request(LIVE_MIGRATE.plan(desk.runtime.view, [vm_id(0)]))
    desk.window.close()
    dialog = await wait_for(desk, WorkLeftDialog)
    assert dialog.heading.text() == "Close with 1 operation left?"
    assert desk.window.isVisible()
    dialog.reject()
    await until(lambda: dialog_of(desk, WorkLeftDialog) is None)
    assert desk.window.isVisible()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_every_dialog_can_be_left_with_escape(open_desk: OpenDesk, theme: str) -> None:
    desk = await open_desk(theme=theme)
    desk.select(0)
    for open_it in (
        desk.window.help.explain_grey,
        desk.window.commands.keys.trigger,
        desk.window.commands.about.trigger,
        desk.window.opening.connect_cluster,
    ):
        open_it()
        await until(lambda: dialog_of(desk, Asking), "a dialog")
        dialog = dialog_of(desk, Asking)
        assert isinstance(dialog, QDialog)
        QTest.keyClick(dialog, Qt.Key.Key_Escape)
        await until(lambda: dialog_of(desk, Asking) is None, "its end")


async def test_the_newest_of_what_was_asked_for_is_shown_when_it_comes(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.window.show_pane("operations")
    operations = desk.window.clusters[desk.runtime.id].operations
    assert operations.empty.isVisible()
    desk.select(1, 2)
    desk.press("vm.pause")
    await until(lambda: len(operations.children_model.rows) == 2, "the results per VM")
    assert "Pause 2 VMs" in operations.message.toPlainText()

"""The questions before moves of every type: where to, by which policy, to which pool."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtWidgets import QPushButton

from manager.core.actions import ACTIONS
from manager.core.ids import NodeId, OperationId, TraceId
from manager.core.model import Disk, MoveType
from manager.core.operations import Operation, OperationKind, OperationState
from manager.ui.dialogs.migrate import MigrateDialog
from manager.ui.dialogs.storage import StorageDialog
from tests.ui.cluster_of import FakeRuntime, runtime_of, vm_config, vm_id
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.moves_of import move
from tests.ui.test_window import wait_for

ALL = frozenset({"quick and storage migration", "post-copy"})


def able(runtime: FakeRuntime) -> FakeRuntime:
    """Its nodes can do every type of move."""
    nodes = runtime.state._inventory.nodes
    for name, node in nodes.items():
        assert node.facts
        nodes[name] = replace(node, facts=replace(node.facts, features=node.facts.features | ALL))
    return runtime


def local(number: int) -> Disk:
    """A disk on the node's own storage."""
    return Disk(target="vda", source=f"/var/lib/images/{number}.qcow2", format="qcow2", cache="none")


async def migrating(desk: Desk) -> MigrateDialog:
    dialog = await wait_for(desk, MigrateDialog)
    assert isinstance(dialog, MigrateDialog)
    return dialog


async def test_every_move_that_stops_the_guest_asks_where_to_and_says_what_it_means(
    open_desk: OpenDesk,
) -> None:
    desk = await open_desk(able(runtime_of(3, 9)))
    for number, (action, kind) in enumerate(
        [
            ("vm.quick_migrate", MoveType.QUICK),
            ("vm.shut_down_and_move", MoveType.SHUT_DOWN),
            ("vm.turn_off_and_move", MoveType.TURN_OFF),
        ]
    ):
        spec = ACTIONS[action]
        desk.select(number)
        desk.press(action)
        dialog = await migrating(desk)
        assert dialog.heading.text() == f"{spec.verb} web-{number} in prod-a"
        assert spec.consequence.rstrip(".") in dialog.consequence.text()
        assert dialog.policy is None  # of live moves only
        assert dialog.cancel.isDefault()
        assert dialog.focusWidget() is dialog.cancel
        dialog.nodes.selectRow(3)
        assert dialog.target == NodeId("n3")
        if number == 2:  # it is there already
            dialog.nodes.selectRow(1)
        target = dialog.target
        assert dialog.go.text() == f"{spec.verb} 1 VM"
        assert dialog.command.text() == (
            f"muster --cluster prod-a vm migrate web-{number} --type {kind.value} --to {target}"
        )
        dialog.go.click()
        await until(lambda n=number: desk.runtime.view.claims.get(vm_id(n)), "the move")  # type: ignore[misc]
        asked = move(desk.runtime, number)
        assert (asked.move, asked.target, asked.target_given) == (kind, target, True)


async def test_a_live_move_can_be_given_another_policy(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0)
    desk.press("vm.live_migrate.select")
    dialog = await migrating(desk)
    assert dialog.policy is not None
    assert dialog.policy.currentText() == "Standard"
    assert "--policy" not in dialog.command.text()
    dialog.policy.setCurrentIndex(dialog.policy.findData("insist"))
    assert "Pauses the guest for up to 5 s" in dialog._policy_doc.text()
    assert dialog.command.text().endswith("--policy insist")
    assert dialog.go.isDefault()
    dialog.go.click()
    await until(lambda: desk.runtime.view.claims, "the move")
    assert move(desk.runtime, 0).policy == "insist"


async def test_local_disks_go_to_a_pool_that_is_named(open_desk: OpenDesk) -> None:
    configs = {0: vm_config(0, disks=(local(0),))}
    desk = await open_desk(able(runtime_of(3, 9, configs=configs)))
    desk.select(0, 3)
    desk.press("vm.live_migrate.select")
    dialog = await migrating(desk)
    assert dialog.pool is not None
    assert [s.name for s in dialog.plan.steps] == ["web-3"]
    assert "not on storage shared by the nodes" in dialog.stays.item(0, 1).text()
    dialog.pool.setText("fast")
    dialog.accept()  # not before the plan for what was typed was shown
    assert dialog.isVisible()
    assert sorted(s.name for s in dialog.plan.steps) == ["web-0", "web-3"]
    assert dialog.go.text() == "Move 2 VMs"
    assert "--pool fast" in dialog.command.text()
    dialog.accept()
    await until(lambda: desk.runtime.view.claims, "the moves")
    assert move(desk.runtime, 0).pool == "fast"


async def test_without_local_disks_nobody_is_asked_for_a_pool(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    desk.select(0)
    desk.press("vm.live_migrate.select")
    dialog = await migrating(desk)
    assert dialog.pool is None
    dialog.reject()


async def test_storage_is_moved_to_a_pool_that_is_named(open_desk: OpenDesk) -> None:
    configs = {3: vm_config(3, disks=())}
    desk = await open_desk(able(runtime_of(3, 9, configs=configs, off=frozenset({6}))))
    desk.select(0, 3, 6)
    assert desk.window.center.counts["vm.move_storage"].text == "1 of 3"
    desk.press("vm.move_storage")
    dialog = await wait_for(desk, StorageDialog)
    assert isinstance(dialog, StorageDialog)
    assert not dialog.go.isEnabled()
    assert dialog.command.text() == ""
    assert dialog.steps.item(0, 2).text() == "vda: /srv/vms/0.qcow2"
    assert {dialog.stays.item(row, 0).text() for row in range(2)} == {"web-3", "web-6"}
    dialog.pool.setText("vm-ssd 2")
    assert dialog.go.isEnabled()
    assert dialog.go.text() == "Move the storage of 1"
    assert dialog.command.text() == (
        "muster --cluster prod-a vm migrate web-0 --type storage --pool 'vm-ssd 2'"
    )
    dialog.go.click()
    await until(lambda: desk.runtime.view.claims, "the copy")
    asked = move(desk.runtime, 0)
    assert (asked.move, asked.pool, asked.target) == (MoveType.STORAGE, "vm-ssd 2", None)


async def test_new_actions_have_icons(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    for action in ("vm.quick_migrate", "vm.shut_down_and_move", "vm.turn_off_and_move", "vm.move_storage"):
        assert not desk.window.center.actions[action].icon().isNull()
    assert desk.window.findChildren(QPushButton)


def turned_off_and_moved(number: int, source: str, target: str) -> Operation:
    """A move of an earlier run that is over."""
    return Operation(
        id=OperationId(f"old-{number}"),
        kind=OperationKind.MIGRATE,
        action="vm.turn_off_and_move",
        author="adm",
        trace=TraceId("1"),
        created_s=1.0,
        ended_s=2.0,
        state=OperationState.DONE,
        vm=vm_id(number),
        vm_name=f"web-{number}",
        source=NodeId(source),
        target=NodeId(target),
    )


async def test_a_way_back_that_stops_the_guest_asks_as_the_way_there_did(open_desk: OpenDesk) -> None:
    desk = await open_desk(able(runtime_of(3, 9)))
    desk.window.runner.undo(desk.runtime, [turned_off_and_moved(0, "n2", "n1")])
    dialog = await migrating(desk)
    assert dialog.plan.parameters.target == "n2"
    assert "power cut" in dialog.consequence.text()
    assert not desk.runtime.view.operations
    dialog.reject()
    await desk.settle()


async def test_ways_back_to_several_nodes_ask_one_after_the_other(open_desk: OpenDesk) -> None:
    runtime = able(runtime_of(3, 9))
    runtime.past = (turned_off_and_moved(0, "n2", "n1"), turned_off_and_moved(3, "n3", "n1"))
    desk = await open_desk(runtime)
    desk.window.show_pane("migrations")
    pane = desk.window.clusters[runtime.id].queue
    pane.show_tab("history")
    await until(lambda: len(pane.past_model.rows) == 2, "what the journal has")
    pane.table.select_ids(["old-0", "old-3"], current="old-0")
    await until(pane.back_button.isEnabled, "the button")
    assert pane.back_button.text() == "Move back…"
    pane.back_button.click()
    dialog = await migrating(desk)
    asked = [dialog.plan.parameters.target]
    await desk.settle()
    assert [d for d in desk.window.findChildren(MigrateDialog) if d.isVisible()] == [dialog]
    dialog.accept()
    await until(lambda: runtime.view.claims, "the first")  # it goes on while the other is asked about
    await until(
        lambda: any(d.isVisible() and d is not dialog for d in desk.window.findChildren(MigrateDialog))
    )
    last = await migrating(desk)
    asked.append(last.plan.parameters.target)
    assert sorted(asked) == ["n2", "n3"]
    last.reject()
    await desk.settle()
    assert len(runtime.view.claims) == 1

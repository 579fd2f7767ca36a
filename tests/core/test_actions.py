"""Verdicts for every state, plans with their counts, undo, cancel, priority and tags."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.actions import (
    ACTIONS,
    DEFINITION,
    NODE_ACTIONS,
    VM_ACTIONS,
    Allowed,
    Denied,
    NoParameters,
    ShutDownHow,
)
from manager.core.edits import Edit
from manager.core.effects import VmChange
from manager.core.ids import NodeId, OperationId
from manager.core.model import Disk, MigrationLimits, Pacemaker, PeerRoute, Priority, StatusCause, VmStatus
from manager.core.operations import OperationKind, OperationState
from manager.core.reasons import Reason, ReasonCode
from tests.core.support import (
    CRASHED,
    OFF,
    PAUSED,
    SAVED,
    Cluster,
    R,
    cluster_config,
    definition,
    host_facts,
    uuid,
)

C = StatusCause
N1, N2 = NodeId("n1"), NodeId("n2")

# action: what is said of Running, Off, Saved, Paused, Crashed; "=": it is already so
TABLE: dict[str, tuple[str, str, str, str, str]] = {
    "start": ("= already running on n1", "yes", "yes", "not possible while Paused", "yes"),
    "shut_down": (
        "yes",
        "= already off",
        "not possible while Saved",
        "not possible while Paused",
        "= already off",
    ),
    "restart": (
        "yes",
        "not running (Off)",
        "not running (Saved)",
        "not running (Paused)",
        "not running (Crashed)",
    ),
    "save": ("yes", "not running (Off)", "= already saved", "yes", "not running (Crashed)"),
    "pause": ("yes", "not running (Off)", "not running (Saved)", "= already paused", "not running (Crashed)"),
    "resume": (
        "= already running on n1",
        "not paused (Off)",
        "not paused (Saved)",
        "yes",
        "not paused (Crashed)",
    ),
    "turn_off": ("yes", "= already off", "not possible while Saved", "yes", "= already off"),
    "reset": ("yes", "not running (Off)", "not running (Saved)", "yes", "not running (Crashed)"),
    "delete_saved_state": (
        "has no saved state",
        "has no saved state",
        "yes",
        "has no saved state",
        "has no saved state",
    ),
    "live_migrate": (
        "yes",
        "not running (Off)",
        "saved: its memory lies on n1's own disk and would be lost",
        "yes",
        "not running (Crashed)",
    ),
    "quick_migrate": (
        "no shared path is declared, so its memory cannot be handed over",
        "yes",
        "saved: its memory lies on n1's own disk and would be lost",
        "no shared path is declared, so its memory cannot be handed over",
        "yes",
    ),
    "shut_down_and_move": (
        "yes",
        "yes",
        "saved: its memory lies on n1's own disk and would be lost",
        "not possible while Paused: its guest cannot be asked",
        "yes",
    ),
    "turn_off_and_move": (
        "yes",
        "yes",
        "saved: its memory lies on n1's own disk and would be lost",
        "yes",
        "yes",
    ),
    "move_storage": (
        "no pool is named to copy its disks to",
        "not running (Off)",
        "not running (Saved)",
        "no pool is named to copy its disks to",
        "not running (Crashed)",
    ),
    "ctrl_alt_del": (
        "yes",
        "not running (Off)",
        "not running (Saved)",
        "not running (Paused)",
        "not running (Crashed)",
    ),
    **dict.fromkeys(
        ("snapshot_create", "snapshot_delete", "snapshot_revert"),
        (
            "no snapshot is named",
            "no snapshot is named",
            "not possible while Saved",
            "no snapshot is named",
            "no snapshot is named",
        ),
    ),
    "cancel": ("= nothing is under way",) * 5,
    "priority": ("= already so",) * 5,
    "tags": ("= already so",) * 5,
    "owners": ("= already so",) * 5,
    "rules": ("= already so",) * 5,
    "cd": ("has no CD drive",) * 5,
    "memory": ("memory is from 16 MiB to 64 TiB",) * 5,
    "vcpus": ("vCPUs are from 1 to 4096",) * 5,
    "description": ("= already so",) * 5,
    "autostart": ("yes",) * 5,
    "network": ("has no network interface",) * 5,
    "boot_order": ("no device is named to boot from",) * 5,
    "add_disk": ("no pool is named",) * 5,
    "grow_disk": ("has no disk",) * 5,
}
SETTINGS = {"priority", "tags", "owners", "rules", *(spec.id.removeprefix("vm.") for spec in DEFINITION)}
"""These wait for other work on the VM."""
STATES = (R, OFF, SAVED, PAUSED, CRASHED)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def said(cluster: Cluster, action: str, name: str = "a") -> str:
    """A verdict in words."""
    found = ACTIONS[f"vm.{action}"].verdict(cluster.state, uuid(name))
    if isinstance(found, Allowed):
        return "yes"
    return f"{'= ' if found.already else ''}{found.reason.text}"


def test_the_table_has_every_action() -> None:
    assert {f"vm.{name}" for name in TABLE} == {spec.id for spec in VM_ACTIONS}


@pytest.mark.parametrize("action", TABLE)
@pytest.mark.parametrize("status", STATES)
def test_verdicts_by_state(cluster: Cluster, action: str, status: VmStatus) -> None:
    cluster.add("n1", "a", status, C.USER)
    assert said(cluster, action) == TABLE[action][STATES.index(status)]


@pytest.mark.parametrize("action", sorted(set(TABLE) - {"cancel"}))
def test_what_forbids_every_action(action: str) -> None:
    read_only = Cluster(cluster_config(2, read_only=True))
    read_only.add("n1", "a")
    assert said(read_only, action) == "this connection is read-only"

    refusing = Cluster()
    refusing.facts[N1] = host_facts("n1", read_only=True)
    refusing.connect("n1")
    refusing.add("n1", "a")
    assert said(refusing, action) == "this connection is read-only"

    cluster = Cluster()
    cluster.add("n1", "a")
    told = {Pacemaker.UNTOLD: "managed by Pacemaker, perhaps", Pacemaker.RUNS: "managed by Pacemaker"}
    for pacemaker, text in told.items():
        names = frozenset({"a"} if pacemaker is Pacemaker.RUNS else ())
        cluster.feed(ev.VmAuthoritySeen(at_s=cluster.later(), node=N1, pacemaker=pacemaker, names=names))
        assert said(cluster, action) == f"{text}: read-only here"

    cluster.lose("n1")
    denied = ACTIONS[f"vm.{action}"].verdict(cluster.state, uuid("a"))
    assert isinstance(denied, Denied)
    assert denied.unreachable
    assert denied.reason.text == "node n1 cannot be reached"

    gone = ACTIONS[f"vm.{action}"].verdict(cluster.state, uuid("no such"))
    assert isinstance(gone, Denied)
    assert gone.reason.code is ReasonCode.VM_VANISHED


@pytest.mark.parametrize("action", sorted(set(TABLE) - {"cancel"} - SETTINGS))
def test_a_busy_vm_says_with_what(cluster: Cluster, action: str) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.save", "a")
    assert said(cluster, action) == "busy: saving"


@pytest.mark.parametrize("action", sorted(set(TABLE) - {"cancel"} - SETTINGS))
def test_a_vm_busy_with_others_says_so(cluster: Cluster, action: str) -> None:
    cluster.add("n1", "a")
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("a"), active=True))
    assert said(cluster, action) == "busy with a job that is not Muster's on n1"


def test_of_a_vm_that_runs_twice_only_one_copy_can_be_turned_off(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n2", "a")
    cluster.read("n1")
    for action in set(TABLE) - {"cancel", "priority", "tags", "owners", "rules", "turn_off"}:
        assert "runs on two nodes at once (n1, n2)" in said(cluster, action), action
    assert said(cluster, "turn_off") == "yes"


@pytest.mark.parametrize("cause", [C.MIGRATION, C.POSTCOPY, C.POSTCOPY_FAILED])
def test_half_a_move_is_not_resumed(cluster: Cluster, cause: StatusCause) -> None:
    cluster.add("n1", "a")
    cluster.become("n1", "a", PAUSED, cause)
    assert said(cluster, "resume") == f"not possible while {cause.value}"


# --- moves ----------------------------------------------------------------------------------


def test_one_vm_to_the_best_node_says_which_and_why(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    found = ACTIONS["vm.live_migrate"].verdict(cluster.state, uuid("a"))
    assert isinstance(found, Allowed)
    assert found.target == "n2"
    assert found.note is not None
    assert found.note.text == "most free memory (60 GiB)"


def test_a_given_node_must_exist_be_another_and_take_work(cluster: Cluster) -> None:
    cluster.add("n1", "a")

    def refused(target: str) -> tuple[str, bool, bool]:
        (skipped,) = cluster.plan("vm.live_migrate", "a", target=NodeId(target)).skipped
        return skipped.reason.text, skipped.already, skipped.unreachable

    assert refused("n9") == ("there is no node n9 in this cluster", False, False)
    assert refused("n1") == ("already on n1", True, False)
    cluster.lose("n2")
    assert refused("n2") == ("node n2 cannot be reached", False, True)


def test_a_plan_of_a_storage_move_says_what_it_has_not_seen(cluster: Cluster) -> None:
    disk = Disk(target="vda", source="/srv/a.img")
    cluster.add("n1", "a", config=definition(disks=(disk,)))
    (step,) = cluster.plan("vm.move_storage", "a", pool="fast").steps
    assert step.note is not None
    assert step.note.text == "to pool fast; whether n1 has it, with room, is seen when it begins"


def test_post_copy_and_several_connections_do_not_go_together() -> None:
    cluster = Cluster(cluster_config(migration=MigrationLimits(parallel_connections=2)))
    cluster.add("n1", "a")
    plan = cluster.plan("vm.live_migrate", "a", policy="post-copy")
    assert [s.reason.text for s in plan.skipped] == [
        "post-copy and 2 connections do not go together: the guest would be lost"
    ]
    assert plan.skipped[0].reason.remedy
    assert cluster.plan("vm.live_migrate", "a").steps
    one = Cluster(cluster_config(migration=MigrationLimits(parallel_connections=1)))
    one.add("n1", "a")
    assert one.plan("vm.live_migrate", "a", policy="post-copy").steps


def test_a_definition_that_was_not_read_and_a_host_that_cannot(cluster: Cluster) -> None:
    cluster.add("n1", "a", known=False)
    cluster.read("n1")
    assert said(cluster, "live_migrate") == "its definition is still being read"
    assert said(cluster, "priority") == "its definition is still being read"
    cluster.facts[N1] = host_facts("n1", features=frozenset())
    cluster.connect("n1")
    assert said(cluster, "live_migrate") == "the hypervisor on n1 cannot do this (live migration)"


# --- plans ----------------------------------------------------------------------------------


def test_a_plan_counts_what_is_done_and_what_is_left_and_why(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n1", "b", OFF)
    cluster.add("n2", "c")
    cluster.add("n2", "d", PAUSED, C.USER)
    cluster.lose("n2")
    plan = cluster.plan("vm.shut_down", *"aabcdx")
    assert [step.name for step in plan.steps] == ["a"]
    left = {s.name: (s.reason.code, s.already, s.unreachable) for s in plan.skipped}
    assert left == {
        "b": (ReasonCode.ALREADY_OFF, True, False),
        "c": (ReasonCode.NODE_UNREACHABLE, False, True),
        "d": (ReasonCode.NODE_UNREACHABLE, False, True),
        uuid("x"): (ReasonCode.VM_VANISHED, False, False),
    }
    assert plan.revision == cluster.state.revision


def test_planning_changes_nothing(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    revision = cluster.state.revision
    for spec in VM_ACTIONS:
        cluster.plan(spec.id, "a")
    for spec in NODE_ACTIONS:
        spec.plan(cluster.state, ["n1"])
    assert cluster.state.revision == revision
    assert not cluster.state.operations


def test_an_action_is_enabled_if_it_applies_to_any(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    cluster.add("n1", "b")
    pause = ACTIONS["vm.pause"]
    assert pause.is_enabled(cluster.state, [uuid("a"), uuid("b")])
    assert not pause.is_enabled(cluster.state, [uuid("a")])
    assert not pause.is_enabled(cluster.state, [])


@pytest.mark.parametrize("spec", ACTIONS.values(), ids=ACTIONS)
def test_what_takes_something_away_asks_and_says_what(spec: object) -> None:
    assert spec.destructive is bool(spec.consequence)  # type: ignore[attr-defined]
    if spec.id in ("vm.turn_off", "vm.reset", "vm.delete_saved_state"):  # type: ignore[attr-defined]
        assert spec.destructive  # type: ignore[attr-defined]
        assert not spec.shortcut  # type: ignore[attr-defined]
        assert spec.reverse is None  # type: ignore[attr-defined]
    assert spec.title.endswith("…") or not spec.destructive  # type: ignore[attr-defined]


def test_commands_titles_and_shortcuts_are_unique() -> None:
    specs = list(ACTIONS.values())
    for names in (
        [(s.target, s.command) for s in specs],
        [(s.target, s.title) for s in specs],
        [s.shortcut for s in specs if s.shortcut],
    ):
        assert len(set(names)) == len(names)


# --- operations -----------------------------------------------------------------------------


def test_a_batch_and_its_children_carry_what_was_asked_for(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=definition(2048, Priority.HIGH))
    cluster.add("n1", "b")
    key = cluster.ask("vm.live_migrate", "a", "b", target=N2, route=PeerRoute.THROUGH_THIS_COMPUTER)
    batch = cluster.state.operations[key]
    assert (batch.kind, batch.children, batch.author) == (OperationKind.BATCH, 2, "adm")
    first, second = cluster.children(key)
    assert (first.vm_name, second.vm_name) == ("a", "b")
    assert (first.source, first.target, first.target_given) == ("n1", "n2", True)
    assert (first.priority, first.memory_mib) == (3000, 2048)
    assert first.route is PeerRoute.THROUGH_THIS_COMPUTER
    assert (first.order, second.order) == (0, 1)
    assert {first.trace, second.trace} == {batch.trace}


def test_who_asks_the_guest(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n1", "b")
    cluster.ask("vm.shut_down", "a")
    assert cluster.take(fx.ChangeVm, "a").change is VmChange.SHUT_DOWN
    cluster.ask("vm.shut_down", "b", how=ShutDownHow.AGENT)
    assert cluster.take(fx.ChangeVm, "b").change is VmChange.SHUT_DOWN_AGENT


def test_priority_and_tags_leave_the_other_alone(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=definition(priority=Priority.LOW, tags=("web",)))
    cluster.ask("vm.priority", "a", priority=Priority.HIGH)
    effect = cluster.take(fx.WriteVmSettings)
    assert (effect.settings.priority, effect.settings.tags) == (Priority.HIGH, ("web",))
    cluster.settle()
    cluster.ask("vm.tags", "a", tags=("db", "prod"))
    effect = cluster.take(fx.WriteVmSettings)
    assert (effect.settings.priority, effect.settings.tags) == (Priority.HIGH, ("db", "prod"))


# --- undo -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "before", "parameters", "undone"),
    [
        ("vm.live_migrate", R, {"target": N2}, lambda vm: vm.owner == "n1"),
        ("vm.quick_migrate", OFF, {"target": N2}, lambda vm: (vm.owner, vm.status) == ("n1", OFF)),
        ("vm.shut_down_and_move", R, {"target": N2}, lambda vm: (vm.owner, vm.status) == ("n1", R)),
        ("vm.turn_off_and_move", R, {"target": N2}, lambda vm: (vm.owner, vm.status) == ("n1", R)),
        ("vm.pause", R, {}, lambda vm: vm.status is R),
        ("vm.resume", PAUSED, {}, lambda vm: vm.status is PAUSED),
        (
            "vm.priority",
            R,
            {"priority": Priority.HIGH},
            lambda vm: vm.config.settings.priority is Priority.MEDIUM,
        ),
        ("vm.tags", R, {"tags": ("x",)}, lambda vm: vm.config.settings.tags == ()),
    ],
)
def test_undo(cluster: Cluster, action: str, before: VmStatus, parameters: dict, undone: object) -> None:
    cluster.add("n1", "a", before, C.USER)
    cluster.ask(action, "a", **parameters)
    cluster.settle()
    assert not undone(cluster.vm("a"))  # type: ignore[operator]
    plan = ACTIONS[action].undo(cluster.operation("a"), cluster.state)
    assert not isinstance(plan, Reason)
    cluster.feed(
        plan.spec.request(
            plan,
            author="adm",
            at_s=cluster.later(),
            trace=cluster.operation("a").trace,
            operation=OperationId("undo"),
            view=cluster.state,
        )
    )
    cluster.settle()
    assert undone(cluster.vm("a"))  # type: ignore[operator]
    assert cluster.operation("a").state is OperationState.DONE


@pytest.mark.parametrize("action", ["vm.turn_off", "vm.reset", "vm.save", "vm.shut_down", "vm.restart"])
def test_what_cannot_be_undone_says_so(cluster: Cluster, action: str) -> None:
    cluster.add("n1", "a")
    cluster.ask(action, "a")
    cluster.settle()
    found = ACTIONS[action].undo(cluster.operation("a"), cluster.state)
    assert isinstance(found, Reason)
    assert found.text == "it cannot be taken back"


def test_only_what_was_done_is_undone(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a")
    cluster.ask("vm.cancel", "a")
    found = ACTIONS["vm.live_migrate"].undo(cluster.operation("a"), cluster.state)
    assert isinstance(found, Reason)


# --- cancel ---------------------------------------------------------------------------------


def test_cancel_asks_for_the_operations_that_hold_the_vms(cluster: Cluster) -> None:
    for name in "abc":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", "b")
    plan = cluster.plan("vm.cancel", "a", "b", "c")
    assert [step.name for step in plan.steps] == ["a", "b"]
    assert plan.skipped[0].already
    event = plan.spec.request(
        plan, author="adm", at_s=1.0, trace="t", operation=OperationId("x"), view=cluster.state
    )
    assert isinstance(event, ev.CancelRequested)
    assert set(event.operations) == {cluster.operation("a").id, cluster.operation("b").id}


def test_past_the_switch_a_cancel_is_denied_with_what_is_really_left(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin, "a"))
    operation = cluster.operation("a")
    for left, post_copy in ((50, False), (120, True)):
        cluster.feed(
            ev.MigrationProgress(
                at_s=cluster.later(1),
                operation=operation.id,
                attempt=operation.attempt,
                elapsed_ms=1000,
                total_bytes=1000,
                remaining_bytes=left,
                rate_bytes_per_s=100,
                dirty_bytes_per_s=0,
                iteration=1,
                post_copy=post_copy,
            )
        )
    assert cluster.state.progress[operation.id].percent == 95  # a bar never falls
    assert said(cluster, "cancel") == (
        "it runs on n2 already and fetches the last 12 % from n1; if that stops, the VM is lost"
    )


def test_over_a_read_only_connection_nothing_is_cancelled(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a")
    assert said(cluster, "cancel") == "yes"
    cluster.state._inventory.config = replace(cluster.state.config, read_only=True)
    assert said(cluster, "cancel") == "this connection is read-only"


def test_the_default_parameters_are_those_of_the_action() -> None:
    for spec in ACTIONS.values():
        is_edit = type(spec.default) in get_args(Edit)
        assert is_edit or type(spec.default).__name__.endswith("Parameters")
    assert isinstance(ACTIONS["vm.start"].default, NoParameters)

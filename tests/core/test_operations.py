"""The machine behind every operation: what is seen counts, every wait ends, nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core import tree
from manager.core.actions import VM_ACTIONS
from manager.core.cluster import ClusterState
from manager.core.errors import Failure, FailureCode, ImpossibleTransition
from manager.core.execution import merged
from manager.core.ids import Kind, NodeId, OperationId
from manager.core.model import (
    Activity,
    MigrationLimits,
    PeerRoute,
    Priority,
    RetryPolicy,
    StatusCause,
    VmSettings,
)
from manager.core.operations import (
    ENDED,
    TRANSITIONS,
    Operation,
    OperationKind,
    OperationState,
    moved_to,
)
from manager.core.reasons import ReasonCode
from manager.core.settling import LOST_PATIENCE_S
from manager.core.work import CONTINUE_AFTER_S
from manager.services.memory_journal import left_over
from tests.core.support import (
    CANCELLED,
    CRASHED,
    OFF,
    PAUSED,
    REFUSED,
    SAVED,
    UNREACHABLE,
    Cluster,
    Guest,
    R,
    cluster_config,
    definition,
    uuid,
)

C = StatusCause
S = OperationState
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
TIMED_OUT = Failure(code=FailureCode.TIMEOUT, text="no answer")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def ended(cluster: Cluster, name: str) -> tuple[OperationState, str]:
    """How the newest operation on a VM stands, in words."""
    operation = cluster.operation(name)
    return operation.state, operation.reason.text if operation.reason else ""


def moving(cluster: Cluster, name: str = "a", target: str | None = "n2") -> OperationId:
    """A move that has begun on the hosts."""
    if uuid(name) not in cluster.state.vms:
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", name, target=target and NodeId(target))
    cluster.answer(cluster.take(fx.CheckPeerLogin, name))
    cluster.begin_move(cluster.take(fx.StartMigration, name))
    return cluster.operation(name).id


# --- the table ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", OperationState)
@pytest.mark.parametrize("after", OperationState)
def test_only_the_moves_of_the_table_are_possible(state: OperationState, after: OperationState) -> None:
    operation = replace(OPERATION, state=state)
    if after in TRANSITIONS[state]:
        moved = moved_to(operation, after, at_s=5.0)
        assert moved.state is after
        assert (moved.ended_s == 5.0) is after.is_over
        assert (moved.started_s == 5.0) is (after in (S.CHECKING, S.RUNNING))
    else:
        with pytest.raises(ImpossibleTransition, match=f"{state} -> {after}"):
            moved_to(operation, after, at_s=5.0)


def test_what_is_over_stays_over() -> None:
    assert {s for s in OperationState if not TRANSITIONS[s]} == ENDED
    assert {s for s in OperationState if s.is_over} == ENDED


OPERATION = Operation(
    id=OperationId("x"),
    kind=OperationKind.CHANGE,
    action="vm.start",
    author="adm",
    trace="t",  # type: ignore[arg-type]
    created_s=1.0,
)


# --- changes of state -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "before", "after", "activity"),
    [
        ("start", OFF, R, Activity.STARTING),
        ("start", SAVED, R, Activity.STARTING),
        ("start", CRASHED, R, Activity.STARTING),
        ("shut_down", R, OFF, Activity.SHUTTING_DOWN),
        ("turn_off", R, OFF, Activity.TURNING_OFF),
        ("turn_off", PAUSED, OFF, Activity.TURNING_OFF),
        ("save", R, SAVED, Activity.SAVING),
        ("save", PAUSED, SAVED, Activity.SAVING),
        ("delete_saved_state", SAVED, OFF, Activity.DELETING_SAVED),
        ("pause", R, PAUSED, Activity.PAUSING),
        ("resume", PAUSED, R, Activity.RESUMING),
        ("reset", R, R, Activity.RESETTING),
        ("restart", R, R, Activity.RESTARTING),
    ],
)
def test_a_change_is_done_when_its_state_is_seen(
    cluster: Cluster, action: str, before: object, after: object, activity: Activity
) -> None:
    cluster.add("n1", "a", before, C.USER)  # type: ignore[arg-type]
    batch = cluster.ask(f"vm.{action}", "a")
    assert cluster.vm("a").activity is activity
    assert cluster.state.claims == {uuid("a"): cluster.operation("a").id}
    cluster.settle()
    assert cluster.operation("a").state is S.DONE
    assert cluster.vm("a").status is after
    assert cluster.vm("a").activity is Activity.NONE
    assert cluster.state.operations[batch].state is S.DONE
    assert not cluster.state.claims
    assert not cluster.timers


@pytest.mark.parametrize("action", ["start", "turn_off", "save", "pause", "resume"])
def test_a_call_that_succeeds_and_changes_nothing_is_not_done(cluster: Cluster, action: str) -> None:
    before = {"start": OFF, "resume": PAUSED}.get(action, R)
    cluster.add("n1", "a", before, C.USER)
    cluster.ask(f"vm.{action}", "a")
    cluster.end(cluster.take(fx.ChangeVm))
    assert cluster.operation("a").state is S.SETTLING
    cluster.reads()
    place = f"it is {before.value.lower()} on n1"
    assert ended(cluster, "a") == (S.FAILED, f"the host reported no error, but {place}")


@pytest.mark.parametrize("failure", [REFUSED, TIMED_OUT, UNREACHABLE], ids=lambda f: f.code.value)
def test_a_call_that_fails_and_did_it_is_done(cluster: Cluster, failure: Failure) -> None:
    cluster.add("n1", "a", OFF)
    cluster.ask("vm.start", "a")
    effect = cluster.take(fx.ChangeVm)
    cluster.hosts[N1][uuid("a")].status = R  # and the event was lost
    cluster.end(effect, failure)
    assert cluster.operation("a").state is S.SETTLING
    cluster.reads()
    assert cluster.operation("a").state is S.DONE


def test_a_failure_says_why_and_where_the_vm_is(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    batch = cluster.ask("vm.start", "a")
    cluster.answer(cluster.take(fx.ChangeVm), REFUSED)
    cluster.reads()
    assert ended(cluster, "a") == (S.FAILED, "internal error: no; it is off on n1")
    assert cluster.information("a") == "internal error: no; it is off on n1"
    assert cluster.state.operations[batch].state is S.FAILED
    assert cluster.state._inventory.last_failures.get(uuid("a")) is not None
    assert "Failed: internal error: no; it is off on n1" in cluster.story("a")


def test_a_failure_is_forgotten_when_it_is_tried_again_or_the_vm_goes_on(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    for again in (True, False):
        cluster.ask("vm.start", "a")
        cluster.answer(cluster.take(fx.ChangeVm), REFUSED)
        cluster.reads()
        assert cluster.state._inventory.last_failures.get(uuid("a"))
        if again:
            continue
        cluster.lose("n1")
        cluster.connect("n1")
        assert cluster.state._inventory.last_failures.get(uuid("a"))  # nothing happened to it
        cluster.become("n1", "a", R, C.BOOTED)
        assert cluster.state._inventory.last_failures.get(uuid("a")) is None
        assert cluster.information("a") == ""


def test_a_request_for_what_became_so_meanwhile_is_done_without_a_call(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    plan = cluster.plan("vm.start", "a")
    cluster.become("n1", "a", R, C.BOOTED)
    request = plan.spec.request(
        plan, author="adm", at_s=cluster.later(), trace="t", operation="0", view=cluster.state
    )
    cluster.feed(request)
    assert ended(cluster, "a") == (S.DONE, "done")
    assert not cluster.wanted(fx.ChangeVm)


def test_one_operation_per_vm_the_second_says_who_holds_it(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    plan = cluster.plan("vm.pause", "a")
    cluster.ask("vm.live_migrate", "a")
    cluster.feed(
        plan.spec.request(
            plan, author="eve", at_s=cluster.later(), trace="t", operation="x", view=cluster.state
        )
    )
    assert ended(cluster, "a") == (S.FAILED, "busy: about to live migrate")
    assert cluster.vm("a").activity is Activity.CHECKING
    assert cluster.state.operations[OperationId("x")].state is S.FAILED


def test_an_empty_plan_is_over_at_once(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    batch = cluster.ask("vm.start", "a")
    assert cluster.state.operations[batch].state is S.DONE


def test_an_operation_on_a_vm_that_vanishes_ends(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.pause", "a")
    cluster.drop("n1", "a")
    cluster.answer(cluster.take(fx.ChangeVm), REFUSED)
    cluster.settle()
    assert ended(cluster, "a") == (S.FAILED, "no node has a definition of it any more")
    assert not cluster.state.claims


def test_a_transient_vm_is_off_when_it_is_gone(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.shut_down", "a")
    cluster.end(cluster.take(fx.ChangeVm))
    del cluster.hosts[N1][uuid("a")]  # and its event was lost
    cluster.read("n1")
    assert cluster.operation("a").state is S.DONE


def test_of_two_running_copies_one_can_be_turned_off(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n2", "a")
    cluster.read("n1")
    assert cluster.vm("a").alarm
    owner = cluster.vm("a").owner
    cluster.ask("vm.turn_off", "a")
    cluster.settle()
    assert cluster.operation("a").state is S.DONE
    assert cluster.vm("a").owner not in (None, owner)
    assert cluster.vm("a").status is R


# --- a guest that is asked ------------------------------------------------------------------


def asked(cluster: Cluster, action: str = "shut_down") -> None:
    cluster.add("n1", "a")
    cluster.ask(f"vm.{action}", "a")
    cluster.end(cluster.take(fx.ChangeVm))
    assert cluster.operation("a").state is S.SETTLING


def test_a_shutdown_takes_its_time(cluster: Cluster) -> None:
    asked(cluster)
    cluster.wait(100)
    cluster.tell("n1", "a", shutting_down=True)
    cluster.read("n1")
    cluster.wait(50)
    cluster.become("n1", "a", OFF, C.SHUT_DOWN)
    assert cluster.operation("a").state is S.DONE
    assert not cluster.timers


def test_a_shutdown_that_is_ignored_fails_after_180_s_and_never_escalates(cluster: Cluster) -> None:
    asked(cluster)
    cluster.wait(179)
    assert cluster.operation("a").state is S.SETTLING
    cluster.wait(2)
    assert ended(cluster, "a") == (
        S.FAILED,
        "the guest did not shut down within 3 min; it is running on n1",
    )
    reason = cluster.operation("a").reason
    assert reason is not None
    assert reason.remedy == "Wait longer, ask the guest agent, or turn it off."
    assert not cluster.wanted(fx.ChangeVm)
    assert cluster.vm("a").status is R
    cluster.become("n1", "a", OFF, C.SHUT_DOWN)  # late, but it did
    assert cluster.information("a").startswith("shut down ")


def test_a_node_lost_meanwhile_is_not_said_to_run_the_vm(cluster: Cluster) -> None:
    asked(cluster)
    cluster.lose("n1")
    cluster.wait(200)
    assert ended(cluster, "a")[1].endswith("its state on n1 is unknown (was Running)")


def test_a_restart_waits_for_the_guest_to_restart(cluster: Cluster) -> None:
    asked(cluster, "restart")
    cluster.read("n1")
    assert cluster.operation("a").state is S.SETTLING
    cluster.feed(ev.VmRebooted(at_s=cluster.later(), node=N1, vm=uuid("a")))
    assert cluster.operation("a").state is S.DONE


def test_a_restart_told_before_the_call_came_back_counts(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.restart", "a")
    cluster.feed(ev.VmRebooted(at_s=cluster.later(), node=N1, vm=uuid("a")))
    assert cluster.operation("a").state is S.RUNNING
    cluster.end(cluster.take(fx.ChangeVm))
    assert cluster.operation("a").state is S.DONE


def test_a_restart_that_is_ignored_says_so_in_its_own_word(cluster: Cluster) -> None:
    asked(cluster, "restart")
    cluster.wait(181)
    assert ended(cluster, "a")[1] == "the guest did not restart within 3 min; it is running on n1"


def test_a_refused_shutdown_fails_at_once(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.shut_down", "a")
    cluster.answer(cluster.take(fx.ChangeVm), Failure(code=FailureCode.NO_AGENT, text="no agent"))
    cluster.reads()
    assert ended(cluster, "a") == (S.FAILED, "no agent; it is running on n1")


def test_waiting_for_a_guest_can_be_given_up(cluster: Cluster) -> None:
    asked(cluster)
    cluster.ask("vm.cancel", "a")
    assert ended(cluster, "a") == (S.CANCELLED, "cancelled by adm; it is running on n1")


# --- moves ----------------------------------------------------------------------------------


def test_a_move_checks_the_login_first_and_is_done_when_it_is_seen(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    check = cluster.take(fx.CheckPeerLogin)
    assert (check.node, check.target) == ("n1", "n2")
    assert not cluster.wanted(fx.StartMigration)
    assert cluster.vm("a").moving_to == "n2"
    cluster.answer(check)
    cluster.begin_move(cluster.take(fx.StartMigration))
    key = cluster.operation("a").id
    cluster.finish_move(key, says=False)
    assert cluster.operation("a").state is S.RUNNING  # until the call comes back
    cluster.end(fx.VmEffect(trace="t", operation=key, attempt=1, vm=uuid("a"), node=N1))
    cluster.settle()
    assert ended(cluster, "a") == (S.DONE, "runs on n2")
    assert (cluster.vm("a").owner, cluster.vm("a").moving_to) == ("n2", None)


def test_a_refused_login_moves_nothing_and_says_what_repairs_it(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    refused = Failure(code=FailureCode.PEER_LOGIN, text="Permission denied (publickey)")
    cluster.answer(cluster.take(fx.CheckPeerLogin), refused)
    assert ended(cluster, "a") == (
        S.FAILED,
        "n1 cannot log in to n2: Permission denied (publickey); it is running on n1",
    )
    reason = cluster.operation("a").reason
    assert reason is not None
    assert "on n1, as root: ssh-keygen" in reason.remedy
    assert "ssh-copy-id root@n2; virsh -c qemu+ssh://root@n2/system uri" in reason.remedy
    assert "Or move through this computer." in reason.remedy
    assert not cluster.wanted(fx.StartMigration)
    cluster.ask("vm.live_migrate", "a", target=N2, route=PeerRoute.THROUGH_THIS_COMPUTER)
    assert cluster.take(fx.StartMigration).route is PeerRoute.THROUGH_THIS_COMPUTER


def test_a_move_that_failed_left_the_vm_where_it_was(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.finish_move(key, Failure(code=FailureCode.NETWORK, text="n2 has no bridge br40"))
    cluster.settle()
    assert ended(cluster, "a") == (S.FAILED, "n2 has no bridge br40; it is running on n1")


def test_a_move_that_says_it_failed_and_arrived_is_done(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.finish_move(key, REFUSED, arrives=True)
    cluster.settle()
    assert ended(cluster, "a") == (S.DONE, "runs on n2")


def test_a_move_that_says_it_is_done_and_is_not_fails(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.finish_move(key, None, arrives=False)
    cluster.settle()
    assert ended(cluster, "a") == (
        S.FAILED,
        "the host reported no error, but it is running on n1",
    )


def test_a_move_is_not_over_because_its_source_forgot_the_vm_before_the_target_told(
    cluster: Cluster,
) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    start = cluster.take(fx.StartMigration)
    cluster.pending.clear()
    cluster.hosts[N2][uuid("a")] = Guest("a", R, C.MIGRATED)  # all of n2's events come late
    cluster.become("n1", "a", OFF, C.MIGRATED)
    cluster.drop("n1", "a")
    cluster.end(start)
    cluster.read("n1")
    assert cluster.operation("a").state is S.SETTLING
    cluster.read("n2")
    assert ended(cluster, "a") == (S.DONE, "runs on n2")


def test_a_move_ended_by_others_is_not_called_ours(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.finish_move(key, CANCELLED)
    cluster.settle()
    assert ended(cluster, "a") == (
        S.FAILED,
        "ended by another administrator or the host; it is running on n1",
    )


def test_figures_of_a_move_show_and_never_fall(cluster: Cluster) -> None:
    key = moving(cluster)

    def progress(remaining: int, total: int = 1000, attempt: int = 1) -> None:
        cluster.feed(
            ev.MigrationProgress(
                at_s=cluster.later(),
                operation=key,
                attempt=attempt,
                elapsed_ms=1000,
                total_bytes=total,
                remaining_bytes=remaining,
                rate_bytes_per_s=100,
                dirty_bytes_per_s=10,
                iteration=1,
            )
        )

    progress(0, 0)
    assert cluster.vm("a").percent is None
    assert cluster.information("a") == "moving to n2, the target prepares"
    progress(600)
    assert cluster.vm("a").percent == 40
    assert cluster.information("a") == "moving to n2, 40 %"
    progress(900)
    progress(0, 0)  # says nothing now
    assert cluster.vm("a").percent == 40
    progress(0)
    assert cluster.vm("a").percent == 99
    progress(0, attempt=2)  # not of this attempt
    cluster.finish_move(key)
    cluster.settle()
    assert cluster.vm("a").percent is None
    assert not cluster.state.progress


def test_moves_that_run_are_what_the_sampler_asks_about(cluster: Cluster) -> None:
    assert cluster.state.active_moves() == ()
    key = moving(cluster)
    assert [o.id for o in cluster.state.active_moves()] == [key]
    cluster.finish_move(key)
    cluster.settle()
    assert cluster.state.active_moves() == ()


# --- nodes lost in the middle of a move -----------------------------------------------------


@pytest.mark.parametrize("lost", ["n1", "n2"])
@pytest.mark.parametrize("arrives", [True, False])
def test_a_node_lost_in_the_middle_and_back(cluster: Cluster, lost: str, arrives: bool) -> None:
    key = moving(cluster)
    cluster.lose(lost)
    failure = Failure(code=FailureCode.UNREACHABLE, text="lost", node=N1)
    cluster.finish_move(key, failure, arrives=arrives)
    cluster.settle()
    if arrives and lost == "n1":
        assert cluster.operation("a").state is S.DONE  # the target is seen to run it
    else:
        assert ended(cluster, "a") == (S.SETTLING, f"waits until {lost} was read again")
        cluster.wait(600)
        assert cluster.operation("a").state is S.SETTLING
    cluster.connect(lost)
    cluster.settle()
    assert cluster.operation("a").state is (S.DONE if arrives else S.FAILED)
    assert cluster.vm("a").owner == ("n2" if arrives else "n1")


@pytest.mark.parametrize("read_before", [True, False])
def test_the_targets_half_that_shuts_down_has_not_arrived(cluster: Cluster, read_before: bool) -> None:
    """As seen on a real host: its shutdown is told after a read in which it was not there any more."""
    key = moving(cluster)
    cluster.lose("n1")
    cluster.feed(ev.EffectEnded(at_s=cluster.later(), operation=key, attempt=1, failure=UNREACHABLE))
    if read_before:
        del cluster.hosts[N2][uuid("a")]
        cluster.read("n2")
    cluster.feed(
        ev.VmStateChanged(
            at_s=cluster.later(),
            node=N2,
            vm=uuid("a"),
            name="a",
            status=R,
            cause=StatusCause.SHUTTING_DOWN,
            shutting_down=True,
        )
    )
    assert cluster.operation("a").state is S.SETTLING
    if not read_before:
        cluster.finish_move(key, UNREACHABLE, arrives=False, says=False)
    cluster.moves.clear()
    cluster.connect("n1")
    cluster.settle()
    assert ended(cluster, "a")[0] is S.FAILED
    assert cluster.vm("a").owner == "n1"


@pytest.mark.parametrize("known", [True, False])
def test_the_targets_half_that_is_read_while_it_shuts_down_has_not_arrived(
    cluster: Cluster, known: bool
) -> None:
    """As seen on a real host: in its last moment it is told as a guest that runs and shuts down."""
    key = moving(cluster)
    if not known:
        del cluster.hosts[N2][uuid("a")]
        cluster.read("n2")
    cluster.lose("n1")
    cluster.feed(ev.EffectEnded(at_s=cluster.later(), operation=key, attempt=1, failure=UNREACHABLE))
    seen = Guest("a", R, StatusCause.SHUTTING_DOWN).seen(uuid("a"))
    cluster.feed(
        ev.NodeInventoryRead(
            at_s=cluster.later(), node=N2, started_s=cluster.now, vms=(replace(seen, shutting_down=True),)
        )
    )
    assert cluster.operation("a").state is S.SETTLING
    cluster.hosts[N2].pop(uuid("a"), None)
    cluster.moves.clear()
    cluster.connect("n1")
    cluster.settle()
    assert ended(cluster, "a")[0] is S.FAILED
    assert cluster.vm("a").owner == "n1"


def test_a_move_that_goes_on_while_its_source_was_lost_is_followed_to_its_end(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.lose("n1")
    cluster.feed(ev.EffectEnded(at_s=cluster.later(), operation=key, attempt=1, failure=UNREACHABLE))
    cluster.connect("n1")
    cluster.settle()
    for _ in range(5000):  # far longer than a lost node would be waited for
        if cluster.now > LOST_PATIENCE_S * 3 + 1_000_000:
            break
        cluster.wait(2)
        cluster.settle()
    assert cluster.operation("a").state is S.SETTLING
    cluster.finish_move(key, says=False)
    cluster.settle()
    assert ended(cluster, "a") == (S.DONE, "runs on n2")


def test_a_node_that_never_comes_back_is_not_waited_for_for_ever(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.lose("n1")
    cluster.lose("n2")
    cluster.finish_move(key, UNREACHABLE, arrives=False)
    cluster.wait(LOST_PATIENCE_S + 300)
    state, text = ended(cluster, "a")
    assert state is S.FAILED
    assert text == "connection reset; its state on n1 is unknown (was Running)"


def test_the_sources_own_word_that_it_lost_the_target_is_final(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.lose("n2")
    failure = Failure(code=FailureCode.UNREACHABLE, text="client socket is closed", node=N2)
    cluster.finish_move(key, failure)
    cluster.reads()
    assert ended(cluster, "a") == (S.FAILED, "client socket is closed; it is running on n1")


def test_an_answer_never_seen_on_nodes_that_answer_ends_the_wait(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    cluster.ask("vm.start", "a")
    cluster.end(cluster.take(fx.ChangeVm))
    cluster.pending.clear()  # no read ever comes
    cluster.wait(121)
    assert cluster.operation("a").state is S.FAILED


# --- late answers, cancels ------------------------------------------------------------------


def test_answers_to_old_attempts_and_ended_operations_change_nothing(cluster: Cluster) -> None:
    key = moving(cluster)
    revision = cluster.state.revision
    for operation, attempt in ((key, 0), (key, 2), (OperationId("none"), 1)):
        for event in (
            ev.EffectEnded(at_s=cluster.later(), operation=operation, attempt=attempt),
            ev.AbortFailed(at_s=cluster.later(), operation=operation, attempt=attempt, failure=REFUSED),
        ):
            outcome = cluster.feed(event)
            assert (outcome.effects, outcome.transitions) == ((), ())
    assert cluster.state.revision == revision
    cluster.finish_move(key)
    cluster.settle()
    revision = cluster.state.revision
    cluster.feed(ev.EffectEnded(at_s=cluster.later(), operation=key, attempt=1, failure=REFUSED))
    cluster.fire(f"settle:{key}")
    cluster.fire(f"patience:{key}")
    assert cluster.state.revision == revision


def waiting(cluster: Cluster) -> OperationId:
    for name in "bca":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "b", "c", target=N3)
    cluster.ask("vm.live_migrate", "a", target=N2)
    return cluster.operation("a").id


def checking(cluster: Cluster) -> OperationId:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    return cluster.operation("a").id


def saving(cluster: Cluster) -> OperationId:
    cluster.add("n1", "a")
    cluster.ask("vm.save", "a")
    return cluster.operation("a").id


def going_on_alone(cluster: Cluster) -> OperationId:
    key = moving(cluster)
    cluster.lose("n1")
    cluster.feed(ev.EffectEnded(at_s=cluster.later(), operation=key, attempt=1, failure=UNREACHABLE))
    cluster.connect("n1")
    cluster.settle()
    assert cluster.operation("a").state is S.SETTLING
    return key


@pytest.mark.parametrize(
    ("begin", "state"),
    [
        (waiting, S.CANCELLED),
        (checking, S.CANCELLED),
        (moving, S.CANCELLING),
        (saving, S.CANCELLING),
        (going_on_alone, S.CANCELLING),
    ],
)
def test_cancelling_twice_is_cancelling_once(
    cluster: Cluster, begin: Callable[[Cluster], OperationId], state: OperationState
) -> None:
    key = begin(cluster)
    assert cluster.plan("vm.cancel", "a").steps
    cancel = ev.CancelRequested(at_s=cluster.later(), operations=(key,), author="adm")
    cluster.feed(cancel)
    assert cluster.state.operations[key].state is state
    again = cluster.feed(replace(cancel, at_s=cluster.later()))
    assert (again.effects, again.transitions) == ((), ())
    assert not cluster.plan("vm.cancel", "a").steps
    if state is S.CANCELLING:
        abort = cluster.take(fx.AbortMigration)
        assert abort.operation == key
        if cluster.moves:
            cluster.answer(abort)
        else:
            cluster.pending.remove(abort)
            cluster.end(fx.VmEffect(trace="t", operation=key, attempt=1, vm=uuid("a"), node=N1), CANCELLED)
        cluster.reads()
    assert cluster.state.operations[key].state is S.CANCELLED
    reason = cluster.state.operations[key].reason
    assert reason is not None
    assert reason.text == "cancelled by adm; it is running on n1"


def test_a_cancel_that_comes_too_late_tells_the_truth(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.ask("vm.cancel", "a")
    cluster.finish_move(key)
    cluster.settle()
    assert ended(cluster, "a") == (S.DONE, "runs on n2")


def test_a_cancel_that_could_not_be_delivered_is_tried_again(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.ask("vm.cancel", "a")
    abort = cluster.take(fx.AbortMigration)
    cluster.pending.remove(abort)
    cluster.feed(ev.AbortFailed(at_s=cluster.later(), operation=key, attempt=1, failure=UNREACHABLE))
    cluster.wait(3)
    cluster.answer(cluster.take(fx.AbortMigration))
    cluster.reads()
    assert cluster.operation("a").state is S.CANCELLED


def test_cancelling_a_batch_cancels_what_can_be_and_leaves_the_rest(cluster: Cluster) -> None:
    for name in "abcd":
        cluster.add("n1", name)
    batch = cluster.ask("vm.live_migrate", *"abcd")
    cluster.answer(cluster.take(fx.CheckPeerLogin, "a"))
    cluster.answer(cluster.take(fx.StartMigration, "a"))  # one is done
    cluster.reads()
    cluster.feed(ev.CancelRequested(at_s=cluster.later(), operations=(batch,), author="adm"))
    cluster.settle()
    states = {o.vm_name: o.state for o in cluster.children(batch)}
    assert states == {"a": S.DONE, "b": S.CANCELLED, "c": S.CANCELLED, "d": S.CANCELLED}
    assert cluster.state.operations[batch].state is S.CANCELLED


def test_a_power_cut_cannot_be_cancelled(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.turn_off", "a")
    plan = cluster.plan("vm.cancel", "a")
    assert plan.skipped[0].reason.text == "not possible while turning off"
    outcome = cluster.feed(
        ev.CancelRequested(at_s=cluster.later(), operations=(cluster.operation("a").id,), author="adm")
    )
    assert (outcome.effects, outcome.transitions) == ((), ())


# --- settings -------------------------------------------------------------------------------


def test_settings_are_written_and_known_at_once(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.priority", "a", priority=Priority.HIGH)
    effect = cluster.take(fx.WriteVmSettings)
    assert effect.settings == VmSettings(priority=Priority.HIGH)
    cluster.end(effect)
    config = cluster.vm("a").config
    assert config is not None
    assert config.settings.priority is Priority.HIGH
    assert cluster.take(fx.ReadVm).vm == uuid("a")
    assert cluster.operation("a").state is S.DONE


def test_a_write_of_settings_waits_for_a_move_says_so_and_goes_to_the_new_node(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.ask("vm.tags", "a", tags=("web",))
    assert ended(cluster, "a") == (S.WAITING, "waits for its move to n2 to end")
    assert cluster.vm("a").operation == key
    cluster.finish_move(key)
    cluster.reads()
    assert cluster.take(fx.WriteVmSettings).node == "n2"
    cluster.settle()
    assert cluster.operation("a").state is S.DONE


def test_settings_changed_by_two_are_merged(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.ask("vm.tags", "a", tags=("web",))
    cluster.ask("vm.priority", "a", priority=Priority.HIGH)
    cluster.finish_move(key)
    cluster.settle()
    config = cluster.vm("a").config
    assert config is not None
    assert config.settings == VmSettings(priority=Priority.HIGH, tags=("web",))
    assert not cluster.state.claims


def test_only_what_was_asked_for_is_changed() -> None:
    before = VmSettings(priority=Priority.LOW, tags=("a",))
    wanted = VmSettings(priority=Priority.HIGH, tags=("a",))
    now = VmSettings(priority=Priority.LOW, tags=("b",), drained_from=N1)
    assert merged(before, wanted, now) == replace(now, priority=Priority.HIGH)


def test_a_refused_write_says_where_the_vm_is(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.priority", "a", priority=Priority.HIGH)
    cluster.answer(cluster.take(fx.WriteVmSettings), REFUSED)
    assert ended(cluster, "a") == (S.FAILED, "internal error: no; it is running on n1")


# --- the journal ----------------------------------------------------------------------------


def test_without_a_journal_nothing_new_starts(cluster: Cluster) -> None:
    for name in "abcd":
        cluster.add("n1", name)
    batch = cluster.ask("vm.live_migrate", *"abcd", target=N2)
    keys = (batch, *(o.id for o in cluster.children(batch)))
    cluster.pending.clear()  # their effects never begin
    cluster.feed(ev.JournalFailed(at_s=cluster.later(), operations=keys, text="disk full"))
    assert {o.state for o in cluster.children(batch)} == {S.FAILED}
    assert ended(cluster, "a")[1] == "not started: the journal cannot be written (disk full)"
    assert cluster.state.operations[batch].state is S.FAILED
    assert not cluster.state.claims
    assert not [e for e in cluster.pending if isinstance(e, fx.VmEffect)]


def test_a_cancel_that_could_not_be_stored_is_carried_out(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.ask("vm.cancel", "a")
    cluster.pending.clear()
    cluster.feed(ev.JournalFailed(at_s=cluster.later(), operations=(key,), text="disk full"))
    cluster.answer(cluster.take(fx.AbortMigration))
    cluster.reads()
    assert cluster.operation("a").state is S.CANCELLED


def test_a_move_cancelled_before_its_start_was_stored_ends(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2, route=PeerRoute.THROUGH_THIS_COMPUTER)
    key = cluster.operation("a").id
    cluster.ask("vm.cancel", "a")
    cluster.pending.clear()
    cluster.feed(ev.JournalFailed(at_s=cluster.later(), operations=(key,), text="disk full"))
    cluster.settle()
    assert cluster.operation("a").state is S.CANCELLED


# --- the next run of the program ------------------------------------------------------------


def restarted(cluster: Cluster, *, after_s: float = 10.0, up: bool = True) -> None:
    """The program is killed, and another begins with its journal."""
    left = left_over(o for _, o in sorted(cluster.journal.items()))
    cluster.state = ClusterState(cluster.state.config)
    cluster.pending.clear()
    cluster.timers.clear()
    cluster.connected.clear()
    cluster.feed(ev.OperationsRestored(at_s=cluster.later(after_s), operations=left))
    for node in cluster.hosts if up else ():
        cluster.connect(node)


@pytest.mark.parametrize("state", [S.WAITING, S.CHECKING])
def test_what_had_not_begun_begins_again(cluster: Cluster, state: OperationState) -> None:
    (waiting if state is S.WAITING else checking)(cluster)
    assert cluster.operation("a").state is state
    restarted(cluster)
    cluster.settle()
    assert ended(cluster, "a") == (S.DONE, "runs on n2")
    assert all(o.state is S.DONE for o in cluster.state.operations.values())


def test_after_a_long_absence_what_waited_is_not_begun_unasked(cluster: Cluster) -> None:
    waiting(cluster)
    restarted(cluster, after_s=CONTINUE_AFTER_S + 1)
    state, text = ended(cluster, "a")
    assert state is S.WAITING
    assert text.startswith("left behind by a program that ended")
    assert cluster.vm("a").owner == "n1"


def test_a_long_queue_is_not_a_long_absence(cluster: Cluster) -> None:
    waiting(cluster)
    cluster.now += 3600
    cluster.answer(cluster.take(fx.CheckPeerLogin, "b"))  # still at work an hour later
    cluster.answer(cluster.take(fx.StartMigration, "b"))
    cluster.reads()
    restarted(cluster, after_s=5)
    cluster.settle()
    assert ended(cluster, "a") == (S.DONE, "runs on n2")


@pytest.mark.parametrize("arrives", [True, False])
def test_a_move_that_ended_meanwhile_is_found_out(cluster: Cluster, arrives: bool) -> None:
    key = moving(cluster)
    cluster.finish_move(key, arrives=arrives, says=False)
    restarted(cluster, up=False)
    assert cluster.operation("a").state is S.SETTLING  # not seen is not gone
    for node in ("n1", "n2"):
        cluster.connect(node)
    cluster.settle()
    assert ended(cluster, "a") == (
        (S.DONE, "runs on n2")
        if arrives
        else (S.FAILED, "the program ended in the middle; it is running on n1")
    )


def test_a_move_that_still_runs_is_shown_followed_and_can_be_cancelled(cluster: Cluster) -> None:
    key = moving(cluster)
    restarted(cluster)
    cluster.reads()
    assert cluster.operation("a").state is S.SETTLING
    assert cluster.vm("a").moving_to == "n2"
    assert [o.id for o in cluster.state.active_moves()] == [key]
    cluster.wait(500)
    cluster.reads()
    assert cluster.operation("a").state is S.SETTLING
    cluster.ask("vm.cancel", "a")
    cluster.answer(cluster.take(fx.AbortMigration))
    cluster.settle()
    assert cluster.operation("a").state is S.CANCELLED


def test_a_cancel_is_asked_again_by_the_next_run(cluster: Cluster) -> None:
    moving(cluster)
    cluster.ask("vm.cancel", "a")
    restarted(cluster)
    cluster.answer(cluster.take(fx.AbortMigration))
    cluster.settle()
    assert ended(cluster, "a") == (S.CANCELLED, "cancelled by adm; it is running on n1")


def test_a_guest_that_was_asked_to_shut_down_keeps_its_time(cluster: Cluster) -> None:
    asked(cluster)
    restarted(cluster)
    cluster.reads()
    assert cluster.operation("a").state is S.SETTLING
    cluster.become("n1", "a", OFF, C.SHUT_DOWN)
    assert cluster.operation("a").state is S.DONE


@pytest.mark.parametrize("done", [True, False])
def test_a_change_in_the_middle_is_judged_by_what_is_seen(cluster: Cluster, done: bool) -> None:
    cluster.add("n1", "a", OFF)
    batch = cluster.ask("vm.start", "a")
    if done:
        cluster.hosts[N1][uuid("a")].status = R
    restarted(cluster)
    cluster.reads()
    assert cluster.operation("a").state is (S.DONE if done else S.FAILED)
    assert cluster.state.operations[batch].state is (S.DONE if done else S.FAILED)


def test_a_settled_move_whose_nodes_never_answer_ends(cluster: Cluster) -> None:
    key = moving(cluster)
    cluster.finish_move(key, REFUSED)
    assert cluster.operation("a").state is S.SETTLING
    restarted(cluster, up=False)
    cluster.wait(LOST_PATIENCE_S + 300)
    assert cluster.operation("a").state is S.FAILED


def test_an_operation_on_a_node_that_left_the_cluster_file_ends(cluster: Cluster) -> None:
    moving(cluster, target="n3")
    left = tuple(o for _, o in sorted(cluster.journal.items()) if not o.is_over)
    smaller = Cluster(cluster_config(2), up=False)
    smaller.feed(ev.OperationsRestored(at_s=cluster.later(), operations=left))
    assert ended(smaller, "a") == (S.FAILED, "there is no node n3 in this cluster")
    assert all(o.is_over for o in smaller.state.operations.values())


def test_a_batch_whose_children_all_ended_is_closed(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    batch = cluster.ask("vm.pause", "a")
    left = (cluster.journal[batch],)
    again = Cluster(up=False)
    again.feed(ev.OperationsRestored(at_s=cluster.later(), operations=left))
    assert again.state.operations[batch].is_over


def test_the_end_of_one_before_the_restart_counts_for_its_batch(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n1", "b")
    batch = cluster.ask("vm.live_migrate", "a", "b", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin, "a"), REFUSED)
    assert cluster.operation("a").state is S.FAILED
    restarted(cluster)
    cluster.settle()
    assert ended(cluster, "b") == (S.DONE, "runs on n2")
    assert cluster.state.operations[batch].state is S.FAILED


def test_what_ended_before_the_restart_holds_no_vm(cluster: Cluster) -> None:
    for name in "abc":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", *"abc", target=N2)
    over = cluster.operation("a").id
    cluster.answer(cluster.take(fx.CheckPeerLogin, "a"), REFUSED)
    restarted(cluster)
    assert over not in cluster.state.claims.values()
    assert cluster.state.operations[over].state is S.FAILED
    assert cluster.vm("a").activity is Activity.NONE
    assert not [e for e in cluster.pending if isinstance(e, fx.VmEffect) and e.operation == over]
    cluster.ask("vm.pause", "a")
    cluster.settle()
    assert cluster.vm("a").status is PAUSED


def test_what_ended_last_tells_how_long_the_program_lived(cluster: Cluster) -> None:
    for name in "abc":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", *"abc", target=N2)
    cluster.steer(ev.QueueVerb.PAUSE)
    cluster.now += CONTINUE_AFTER_S + 1
    for name in "ab":
        cluster.answer(cluster.take(fx.CheckPeerLogin, name), REFUSED)
    restarted(cluster)  # nothing that is not over was touched for long
    cluster.steer(ev.QueueVerb.RESUME)
    cluster.settle()
    assert ended(cluster, "c") == (S.DONE, "runs on n2")


def test_an_owner_that_took_over_lets_go_of_what_only_the_journal_knows_to_be_over(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n1", "b")
    cluster.ask("vm.live_migrate", "a", "b", target=N2)
    told = tuple(cluster.state.operations.values())
    window = Cluster(up=False)
    window.hosts = cluster.hosts
    window.feed(ev.OperationsReported(at_s=cluster.later(), operations=told))
    cluster.answer(cluster.take(fx.CheckPeerLogin, "a"), REFUSED)  # its last word, which nobody heard
    left = left_over(cluster.journal.values())
    outcome = window.feed(ev.OperationsRestored(at_s=cluster.later(), operations=left))
    assert window.operation("a").state is S.FAILED
    assert window.operation("a").id in outcome.changes[Kind.OPERATION].updated
    assert list(window.state.claims) == [uuid("b")]


def test_an_owner_that_took_over_tells_nothing_of_what_it_had_heard(cluster: Cluster) -> None:
    """Else its log would tell each end of a large batch a second time."""
    cluster.add("n1", "a")
    cluster.add("n1", "b")
    cluster.ask("vm.live_migrate", "a", "b", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin, "a"), REFUSED)
    told = tuple(cluster.state.operations.values())
    window = Cluster(up=False)
    window.feed(ev.OperationsReported(at_s=cluster.later(), operations=told))
    left = left_over(cluster.journal.values())
    changed = window.feed(ev.OperationsRestored(at_s=cluster.later(), operations=left)).changes
    assert window.operation("a").id not in {*changed[Kind.OPERATION].added, *changed[Kind.OPERATION].updated}


def test_journal_and_inventory_give_the_same_operations(cluster: Cluster) -> None:
    for name in "abc":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", *"abc", target=N2)
    for operation in cluster.state.operations.values():
        stored = cluster.journal[operation.id]
        assert replace(stored, reason=None) == replace(operation, reason=None)


# --- operations of another process ----------------------------------------------------------


def test_operations_of_another_process_are_shown_and_nothing_is_started(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    key = moving(cluster)
    window = Cluster(up=False)
    window.hosts = cluster.hosts
    for node in window.hosts:
        window.connect(node)
    window.pending.clear()
    told = tuple(cluster.state.operations.values())
    window.feed(
        ev.OperationsReported(
            at_s=cluster.later(), operations=told, progress=tuple(cluster.state.progress.items())
        )
    )
    assert window.vm("a").activity is Activity.MIGRATING
    assert window.vm("a").moving_to == "n2"
    assert not [e for e in window.pending if isinstance(e, fx.VmEffect)]
    assert window.plan("vm.pause", "a").skipped[0].reason.code is ReasonCode.VM_BUSY
    cluster.finish_move(key)
    cluster.settle()
    window.feed(
        ev.OperationsReported(at_s=cluster.later(), operations=tuple(cluster.state.operations.values()))
    )
    window.read("n1")
    window.read("n2")
    assert (window.vm("a").activity, window.vm("a").owner) == (Activity.NONE, "n2")
    assert not window.state.claims


def test_what_another_process_tells_again_is_told_to_views_again(cluster: Cluster) -> None:
    """A batch of which one more ended is the same operation as before; only its figures are not."""
    moving(cluster)
    told = tuple(cluster.state.operations.values())
    window = Cluster(up=False)
    window.feed(ev.OperationsReported(at_s=cluster.later(), operations=told))
    again = window.feed(ev.OperationsReported(at_s=cluster.later(), operations=told)).changes
    assert set(again[Kind.OPERATION].updated) == {o.id for o in told}


# --- foreign jobs ---------------------------------------------------------------------------


def test_what_waits_waits_also_for_a_job_of_others_on_its_vm(cluster: Cluster) -> None:
    waiting(cluster)
    cluster.feed(
        ev.ForeignJobSeen(
            at_s=cluster.later(), node=N1, vm=uuid("a"), active=True, migration=False, what="backup"
        )
    )
    for name in "bc":
        cluster.answer(cluster.take(fx.CheckPeerLogin, name))
        cluster.answer(cluster.take(fx.StartMigration, name))
    cluster.reads()
    assert ended(cluster, "a") == (
        S.WAITING,
        "waits until the work on this VM has ended: a job that is not Muster's",
    )
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("a"), active=False))
    assert cluster.operation("a").state is S.CHECKING


def test_a_job_of_others_that_is_told_while_ours_is_refused_is_waited_for() -> None:
    cluster = Cluster(cluster_config(3, migration=MigrationLimits(retry=RetryPolicy())))
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2, route=PeerRoute.THROUGH_THIS_COMPUTER)
    busy = Failure(code=FailureCode.BUSY, text="a job runs on it already: backup", node=N1)
    cluster.end(cluster.take(fx.StartMigration), busy)
    cluster.feed(
        ev.ForeignJobSeen(
            at_s=cluster.later(), node=N1, vm=uuid("a"), active=True, migration=False, what="backup"
        )
    )
    assert cluster.state.vms[uuid("a")].activity is not Activity.FOREIGN_JOB  # ours says so itself
    cluster.reads()
    for _ in range(4):  # longer than all retries
        cluster.wait(60)
        assert not cluster.wanted(fx.StartMigration)
    assert ended(cluster, "a") == (
        S.WAITING,
        "waits until the work on this VM has ended: a job that is not Muster's",
    )
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("a"), active=False))
    assert cluster.wanted(fx.StartMigration)


def test_moves_of_others_count_against_the_limits_and_their_end_lets_ours_go() -> None:
    limits = MigrationLimits(outgoing_per_node=1, incoming_per_node=1)
    cluster = Cluster(cluster_config(3, migration=limits))
    cluster.add("n1", "b")
    cluster.add("n1", "a")
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("b"), active=True))
    cluster.ask("vm.live_migrate", "a", target=N2)
    assert ended(cluster, "a") == (S.WAITING, "n1 gives 1 of 1 outgoing moves; next in line")
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N1, vm=uuid("b"), active=False))
    assert cluster.operation("a").state is S.CHECKING


def test_the_target_of_a_move_of_others_takes_one_less() -> None:
    cluster = Cluster(cluster_config(3, migration=MigrationLimits(incoming_per_node=1)))
    cluster.add("n3", "b")
    cluster.hosts[N2][uuid("b")] = Guest("b", PAUSED, C.MIGRATION)
    cluster.tell("n2", "b")
    cluster.add("n1", "a")
    cluster.ask("vm.live_migrate", "a", target=N2)
    assert ended(cluster, "a") == (S.WAITING, "n2 takes 1 of 1 incoming moves; next in line")


# --- stories --------------------------------------------------------------------------------


def test_a_vms_story_has_its_operations_in_it_and_a_batchs_that_of_its_children(
    cluster: Cluster,
) -> None:
    cluster.add("n1", "a")
    batch = cluster.ask("vm.live_migrate", "a")
    cluster.settle()
    story = cluster.story("a")
    assert story.index("Checking") < story.index("Running") < story.index("Done: runs on n2")
    assert "Paused on n2 (being moved)" in story
    told = [line.text for line in cluster.state.story(batch)]
    assert told[0] == "asked by adm"
    assert "Done: runs on n2" in told
    times = [line.at_s for line in cluster.state.story(uuid("a"))]
    assert times == sorted(times)


def test_of_what_ended_long_ago_nothing_is_kept(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "KEPT_ENDED", 6)
    window = Cluster(up=False)
    for name in "bc":
        cluster.add("n1", name)
    live = moving(cluster)
    batches = []
    for _ in range(6):
        for action in ("vm.pause", "vm.resume"):
            cluster.wait(tree.HEARD_AFTER_S)
            batches.append(cluster.ask(action, "b", "c"))
            cluster.settle()
        told = tuple(cluster.state.operations.values())
        changes = window.feed(ev.OperationsReported(at_s=cluster.later(), operations=told)).changes
    for state in (cluster.state, window.state):
        kept = {o.id for o in cluster.journal.values() if o.id in batches[-2:] or o.parent in batches[-2:]}
        assert set(state.operations) == {live, cluster.operation("a").parent} | kept
    for batch in batches[:-2]:
        child = next(o for o in cluster.journal.values() if o.parent == batch)
        assert not cluster.state.story(batch)
        assert not cluster.state._story.of(child.id)
    assert cluster.state.story(batches[-1])
    assert set(changes[Kind.OPERATION].removed) == {
        o.id for o in cluster.journal.values() if o.id in batches[-4:-2] or o.parent in batches[-4:-2]
    }
    assert "Done" in cluster.story("b")
    cluster.finish_move(live)
    cluster.settle()
    assert cluster.operation("a").state is S.DONE


def test_what_ends_in_one_turn_is_kept_until_everybody_heard_of_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "KEPT_ENDED", 2)
    for name in "abcdef":
        cluster.add("n1", name)
    moving(cluster)
    batches = [cluster.ask("vm.live_migrate", *names, target=N2) for names in ("bc", "de")]
    keys = [*batches, *(o.id for b in batches for o in cluster.children(b))]
    cancel = ev.CancelRequested(at_s=cluster.later(), operations=tuple(batches), author="adm")
    changes = cluster.feed(cancel).changes
    assert {cluster.state.operations[key].state for key in keys} == {S.CANCELLED}
    assert set(keys) <= changes[Kind.OPERATION].updated.keys()
    cluster.wait(tree.HEARD_AFTER_S)
    cluster.ask("vm.pause", "f")
    cluster.settle()
    assert not any(key in cluster.state.operations for key in keys)


def test_the_newest_batch_is_kept_however_large_it_is(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "KEPT_ENDED", 2)
    for name in "abcd":
        cluster.add("n1", name)
    batch = cluster.ask("vm.pause", *"abcd")
    cluster.settle()
    assert len([o for o in cluster.state.operations.values() if o.parent == batch]) == 4


def test_every_action_has_a_machine_behind_it(cluster: Cluster) -> None:
    """No action's request ends in an error of ours, whatever state its VM is in."""
    for spec in VM_ACTIONS:
        for status in (R, OFF, SAVED, PAUSED, CRASHED):
            one = Cluster()
            one.add("n1", "a", status, C.USER, config=definition())
            one.ask(spec.id, "a")
            one.settle()
            one.wait(200)
            assert not one.live()

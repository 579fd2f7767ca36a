"""Calls whose end nobody heard of, guests that act late, late cancels: the end that is told is true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, OperationId
from manager.core.migration.moves import MoveStep
from manager.core.migration.progress import MovePhase
from manager.core.model import MigrationLimits, MoveType, RetryPolicy, StatusCause, VmStatus
from manager.core.operations import OperationState, StandingOrders
from manager.core.reasons import ReasonCode
from manager.core.settling import LATE_S, LOST_PATIENCE_S, SHUTDOWN_PATIENCE_S
from manager.core.work import CONTINUE_AFTER_S
from manager.services.memory_journal import left_over
from tests.core.support import CANCELLED, OFF, PAUSED, SAVED, UNREACHABLE, Cluster, R, cluster_config, uuid
from tests.core.test_moves import ACTION, end, places, until

S = OperationState
N1, N2 = NodeId("n1"), NodeId("n2")
SHARED = "/srv/vms"
TIMEOUT = Failure(code=FailureCode.TIMEOUT, text="no answer within 60 s", node=N1)
LEAVES = {
    MoveType.QUICK: (MoveStep.SAVE, StatusCause.SAVED),
    MoveType.SHUT_DOWN: (MoveStep.SHUT_DOWN, StatusCause.SHUT_DOWN),
    MoveType.TURN_OFF: (MoveStep.TURN_OFF, StatusCause.TURNED_OFF),
}


@pytest.fixture
def cluster() -> Cluster:
    limits = MigrationLimits(outgoing_per_node=1, incoming_per_node=1, retry=RetryPolicy())
    return Cluster(cluster_config(shared_paths=(SHARED,), migration=limits))


def leaving(cluster: Cluster, move: MoveType) -> fx.VmEffect:
    """A move whose first call is out."""
    cluster.add("n1", "a", R)
    cluster.ask(ACTION[move], "a", target=N2)
    return until(cluster, LEAVES[move][0])


def goes_off_late(cluster: Cluster, effect: fx.VmEffect, move: MoveType) -> None:
    """The host does after all what it was asked for."""
    if isinstance(effect, fx.SaveToFile):
        cluster.files[effect.path] = effect.vm
    cluster.become("n1", "a", OFF, LEAVES[move][1])
    cluster.settle()


def moving(cluster: Cluster, *names: str) -> fx.StartMigration:
    """Live moves of which the first is under way."""
    for name in names:
        cluster.add("n1", name, R)
    cluster.ask("vm.live_migrate", *names, target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    effect = cluster.take(fx.StartMigration)
    cluster.begin_move(effect)
    return effect


# --- hosts that act after their call was lost --------------------------------------------------


@pytest.mark.parametrize("move", LEAVES)
@pytest.mark.parametrize("how", ["lost", "time-out", "kill"])
def test_a_guest_that_stops_late_goes_on_to_its_target(cluster: Cluster, move: MoveType, how: str) -> None:
    effect = leaving(cluster, move)
    if move is MoveType.QUICK:
        cluster.become("n1", "a", PAUSED, StatusCause.SAVING)
    if how == "kill":
        cluster.pending.clear()
        cluster = cluster.restart()
    elif how == "lost":
        cluster.lose("n1")
        cluster.end(effect, UNREACHABLE)
        cluster.connect("n1")
    else:
        cluster.end(effect, TIMEOUT)
    cluster.reads()
    cluster.wait(10)
    cluster.reads()
    assert end(cluster)[0] is S.SETTLING
    assert "read again" not in end(cluster)[1]
    goes_off_late(cluster, effect, move)
    assert end(cluster) == (S.DONE, "runs on n2")
    assert places(cluster) == {"n2": R}
    assert not cluster.files


@pytest.mark.parametrize("move", [MoveType.QUICK, MoveType.TURN_OFF])
def test_a_call_that_never_arrived_is_tried_again(cluster: Cluster, move: MoveType) -> None:
    cluster.end(leaving(cluster, move), TIMEOUT)
    cluster.reads()
    assert end(cluster)[1].startswith("its call was lost, and may still act until")
    cluster.wait(LATE_S + 1)
    cluster.reads()
    assert end(cluster)[0] is S.WAITING
    assert end(cluster)[1].startswith("retry 1 of 3")
    cluster.wait(10)
    cluster.settle()
    assert end(cluster) == (S.DONE, "runs on n2")


@pytest.mark.parametrize("move", LEAVES)
def test_one_that_was_stopped_by_others_before_its_retry_stays_and_is_told(
    cluster: Cluster, move: MoveType
) -> None:
    cluster.end(leaving(cluster, move), Failure(code=FailureCode.BUSY, text="a job runs on it", node=N1))
    cluster.reads()
    assert end(cluster)[0] is S.WAITING
    cluster.become("n1", "a", OFF, StatusCause.SHUT_DOWN)
    cluster.settle()
    assert end(cluster) == (S.FAILED, "not running (Off)")
    assert places(cluster) == {"n1": OFF}


@pytest.mark.parametrize("move", LEAVES)
@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_a_target_that_was_taken_out_of_the_cluster_file_leaves_the_way_back(
    cluster: Cluster, move: MoveType, when: str
) -> None:
    cluster.add("n1", "a", R)
    cluster.ask(ACTION[move], "a", target=NodeId("n3"))
    effect = until(cluster, LEAVES[move][0])
    cluster.pending.clear()
    if when == "before":
        goes_off_late(cluster, effect, move)
        cluster.pending.clear()
    left = left_over(cluster.journal.values())
    limits = cluster.state.config.migration
    after = Cluster(cluster_config(2, shared_paths=(SHARED,), migration=limits), up=False)
    after.hosts = {node: has for node, has in cluster.hosts.items() if node in after.state.nodes}
    after.files, after.now = cluster.files, cluster.now
    after.feed(ev.OperationsRestored(at_s=after.later(), operations=left, left_s=cluster.now))
    for node in after.hosts:
        after.connect(node)
    after.reads()
    if when == "after":
        goes_off_late(after, effect, move)
    after.settle()
    after.wait(SHUTDOWN_PATIENCE_S + 60)
    after.settle()
    state, text = end(after)
    assert state is S.FAILED
    assert "n3" in text
    assert places(after) == {"n1": R}


@pytest.mark.parametrize("acts", [True, False])
def test_killed_while_the_target_restores(cluster: Cluster, acts: bool) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.quick_migrate", "a", target=N2)
    until(cluster, MoveStep.RESTORE)
    cluster.pending.clear()
    if acts:
        guest = cluster.hosts[N2][uuid("a")]
        guest.status, guest.cause = PAUSED, StatusCause.STARTING_UP
    cluster = cluster.restart()
    cluster.reads()
    if acts:
        assert not cluster.wanted(fx.RestoreFromFile)
        cluster.files.clear()
        cluster.become("n2", "a", R, StatusCause.RESTORED)
    cluster.settle()
    assert end(cluster) == (S.DONE, "runs on n2")
    assert places(cluster) == {"n2": R}


@pytest.mark.parametrize(
    ("action", "before", "during", "after"),
    [
        ("vm.start", OFF, StatusCause.STARTING_UP, R),
        ("vm.save", R, StatusCause.SAVING, SAVED),
    ],
)
def test_killed_while_a_host_starts_or_saves_one(
    cluster: Cluster, action: str, before: VmStatus, during: StatusCause, after: VmStatus
) -> None:
    cluster.add("n1", "a", before)
    cluster.ask(action, "a")
    cluster.take(fx.ChangeVm)
    cluster.pending.clear()
    cluster.become("n1", "a", PAUSED, during)
    cluster = cluster.restart()
    cluster.reads()
    cluster.wait(200)  # of a large guest
    cluster.reads()
    assert end(cluster)[0] is S.SETTLING
    cluster.become("n1", "a", after)
    cluster.settle()
    assert end(cluster)[0] is S.DONE


def test_killed_between_the_question_to_a_guest_and_its_answer(cluster: Cluster) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.shut_down", "a")
    cluster.pending.clear()
    cluster = cluster.restart()
    cluster.reads()
    assert end(cluster)[0] is S.SETTLING
    cluster.become("n1", "a", OFF, StatusCause.SHUT_DOWN)
    cluster.settle()
    assert end(cluster)[0] is S.DONE


# --- a live move that another run of the program takes over ------------------------------------


def figures(cluster: Cluster, name: str = "a") -> None:
    """Half an hour in which the guest is faster than the network."""
    operation = cluster.operation(name)
    begun_s = cluster.now
    while cluster.now < begun_s + 1800 and operation.state is not S.CANCELLING:
        cluster.wait(2)
        cluster.reads()
        operation = cluster.operation(name)
        if operation.is_over:
            return
        cluster.feed(
            ev.MigrationProgress(
                at_s=cluster.now,
                operation=operation.id,
                attempt=operation.attempt,
                elapsed_ms=int((cluster.now - begun_s) * 1000),
                total_bytes=10**9,
                remaining_bytes=5 * 10**8,
                rate_bytes_per_s=10**8,
                dirty_bytes_per_s=2 * 10**8,
                iteration=5,
            )
        )


def taken_over(cluster: Cluster, how: str) -> Cluster:
    effect = moving(cluster, "a")
    if how == "kill":
        after = cluster.restart()
        after.moves = cluster.moves
        after.reads()
        return after
    cluster.lose("n1")
    cluster.end(effect, UNREACHABLE)
    cluster.connect("n1")
    cluster.reads()
    return cluster


@pytest.mark.parametrize("how", ["kill", "lost"])
def test_what_is_taken_over_has_its_policy_and_comes_to_an_end(cluster: Cluster, how: str) -> None:
    cluster = taken_over(cluster, how)
    figures(cluster)
    tuned = [t.pause_ms for t in [*cluster.tuned, *cluster.wanted(fx.TuneMigration)]]
    assert tuned == [500, 1000, 2000] or len(tuned) >= 1
    assert end(cluster)[0] is S.CANCELLING
    cluster.answer(cluster.take(fx.AbortMigration))
    cluster.settle()
    assert end(cluster)[0] is S.FAILED
    assert "did not converge" in end(cluster)[1]
    assert places(cluster) == {"n1": R}


@pytest.mark.parametrize("how", ["kill", "lost"])
def test_what_is_taken_over_can_be_tuned_and_arrives(cluster: Cluster, how: str) -> None:
    cluster = taken_over(cluster, how)
    operation = cluster.operation("a")
    one = ev.MigrationProgress(
        at_s=cluster.later(),
        operation=operation.id,
        attempt=operation.attempt,
        elapsed_ms=5000,
        total_bytes=10**9,
        remaining_bytes=9 * 10**8,
        rate_bytes_per_s=10**8,
        dirty_bytes_per_s=0,
        iteration=1,
    )
    cluster.feed(one)
    assert end(cluster) == (S.RUNNING, "")
    assert cluster.state.progress[operation.id].phase is MovePhase.COPYING
    cluster.steer(ev.QueueVerb.TUNE, operations=(operation.id,), pause_ms=2000)
    assert cluster.take(fx.TuneMigration).pause_ms == 2000
    cluster.wait(400)
    cluster.reads()
    assert not cluster.operation("a").is_over  # however long it takes
    cluster.finish_move(operation.id, says=False)
    cluster.settle()
    assert end(cluster) == (S.DONE, "runs on n2")


def sample(cluster: Cluster, elapsed_s: float) -> ev.MigrationProgress:
    """Figures of a large guest that converges."""
    operation = cluster.operation("a")
    return ev.MigrationProgress(
        at_s=cluster.now,
        operation=operation.id,
        attempt=operation.attempt,
        elapsed_ms=int(elapsed_s * 1000),
        total_bytes=10**12,
        remaining_bytes=10**12 - int(elapsed_s * 10**8),
        rate_bytes_per_s=10**8,
        dirty_bytes_per_s=0,
        iteration=1,
    )


@pytest.mark.parametrize("how", ["kill", "lost"])
@pytest.mark.parametrize("arrives", [True, False])
def test_a_lost_target_ends_no_move_of_which_the_source_tells(
    cluster: Cluster, how: str, arrives: bool
) -> None:
    effect = moving(cluster, "a")
    cluster.lose("n2")
    cluster.lose("n1")
    if how == "kill":
        after = Cluster(cluster_config(shared_paths=(SHARED,)), up=False)
        after.hosts, after.facts, after.now, after.moves = (
            cluster.hosts,
            cluster.facts,
            cluster.now,
            cluster.moves,
        )
        left = left_over(cluster.journal.values())
        after.feed(ev.OperationsRestored(at_s=after.later(5), operations=left, left_s=cluster.now))
        cluster = after
        cluster.feed(ev.NodeConnectFailed(at_s=cluster.later(), node=N2, failure=UNREACHABLE))
    else:
        cluster.end(effect, UNREACHABLE)
    cluster.connect("n1")
    cluster.reads()
    cluster.feed(sample(cluster, 1))
    assert end(cluster) == (S.RUNNING, "")
    stored = len(cluster.transitions)
    for elapsed_s in range(2, int(LOST_PATIENCE_S) + 600, 2):
        cluster.wait(2)
        cluster.reads()
        cluster.feed(sample(cluster, elapsed_s))
    assert end(cluster) == (S.RUNNING, "")
    assert len(cluster.transitions) == stored
    cluster.finish_move(effect.operation, None if arrives else CANCELLED, says=False)
    cluster.wait(60)
    cluster.reads()
    assert end(cluster)[0] is S.SETTLING  # not lost for so long yet
    cluster.connect("n2")
    cluster.settle()
    if arrives:
        assert end(cluster) == (S.DONE, "runs on n2")
    else:
        assert end(cluster)[0] in (S.WAITING, S.FAILED)
        assert places(cluster) == {"n1": R}


def test_each_try_has_its_own_time(cluster: Cluster) -> None:
    effect = moving(cluster, "a")
    cluster.now += 580  # of the 600 s that one has
    cluster.finish_move(effect.operation, Failure(code=FailureCode.UNREACHABLE, text="cable", node=N2))
    cluster.reads()
    cluster.wait(10)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.begin_move(cluster.take(fx.StartMigration))
    begun_s = cluster.now
    figures(cluster)
    assert end(cluster)[0] is S.CANCELLING
    assert cluster.now - begun_s > 300


def test_a_source_that_is_lost_costs_what_waits_no_try(cluster: Cluster) -> None:
    for name in "abc":
        cluster.add("n1", name)
    cluster.ask("vm.live_migrate", "a", "b", "c", target=N2)
    for name in "abc":
        for check in cluster.wanted(fx.CheckPeerLogin, name):
            cluster.answer(check, replace(UNREACHABLE, node=N1))
    cluster.lose("n1")
    assert {name: cluster.operation(name).retries for name in "abc"} == {"a": 0, "b": 0, "c": 0}
    cluster.connect("n1")
    cluster.wait(5)
    cluster.settle()
    assert {end(cluster, name) for name in "abc"} == {(S.DONE, "runs on n2")}


# --- cancels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("obeys", [True, False])
def test_a_cancelled_shut_down_ends_with_the_guest_running(
    cluster: Cluster, called: bool, obeys: bool
) -> None:
    effect = leaving(cluster, MoveType.SHUT_DOWN)
    if called:
        cluster.end(effect)
        cluster.reads()
        cluster.cancel("a")
    else:
        cluster.cancel("a")
        cluster.end(effect)
        cluster.reads()
    assert end(cluster)[0] is S.CANCELLING
    if obeys:
        cluster.wait(5)
        cluster.become("n1", "a", OFF, StatusCause.SHUT_DOWN)
    else:
        cluster.wait(SHUTDOWN_PATIENCE_S + 5)
    cluster.settle()
    assert end(cluster) == (S.CANCELLED, "cancelled by adm; it is running on n1")
    assert places(cluster) == {"n1": R}


def test_a_cancel_that_comes_too_late_says_so(cluster: Cluster) -> None:
    cluster.add("n1", "a", OFF)
    cluster.ask("vm.start", "a")
    cluster.end(cluster.take(fx.ChangeVm))
    cluster.cancel("a")
    assert end(cluster)[0] is S.SETTLING
    assert "adm asked to cancel: it cannot be called off any more" in " / ".join(cluster.story("a"))


# --- what changes while it waits ---------------------------------------------------------------


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("action", ["vm.live_migrate", *ACTION.values()])
def test_one_that_stops_while_it_waits_leaves_the_queue(cluster: Cluster, action: str, paused: bool) -> None:
    moving(cluster, "b")
    cluster.add("n1", "a", R)
    if paused:
        cluster.steer(ev.QueueVerb.PAUSE)
    cluster.ask(action, "a", target=N2)
    assert end(cluster)[0] is S.WAITING
    cluster.become("n1", "a", OFF, StatusCause.SHUT_DOWN)
    assert end(cluster) == (S.FAILED, "not running (Off)")


@pytest.mark.parametrize("action", ACTION.values())
def test_one_that_was_off_and_is_started_while_it_waits_is_not_stopped(cluster: Cluster, action: str) -> None:
    moving(cluster, "b")
    cluster.add("n1", "a", OFF)
    cluster.ask(action, "a", target=N2)
    assert end(cluster)[0] is S.WAITING
    cluster.become("n1", "a", R)
    assert end(cluster) == (S.FAILED, "it was off when this was asked for, and is running now")


def test_one_that_is_renamed_while_it_waits_leaves_the_queue(cluster: Cluster) -> None:
    moving(cluster, "b", "a")
    cluster.hosts[N1][uuid("a")].name = "other"
    cluster.read("n1")
    assert end(cluster) == (S.FAILED, "it is named other since")


def test_one_that_is_undefined_while_it_waits_leaves_the_queue(cluster: Cluster) -> None:
    moving(cluster, "b", "a")
    cluster.feed(ev.VmUndefined(at_s=cluster.later(), node=N1, vm=uuid("a")))
    cluster.reads()
    assert end(cluster) == (S.FAILED, "its definition was removed while it waited")


# --- how long nobody was there -----------------------------------------------------------------


def back_after(cluster: Cluster, seconds: float) -> Cluster:
    """The program was killed; the next one begins so much later."""
    after = cluster.restart(after_s=seconds)
    after.moves = cluster.moves
    return after


def test_a_long_move_is_not_a_long_absence(cluster: Cluster) -> None:
    moving(cluster, "a", "b")
    cluster.now += CONTINUE_AFTER_S + 100
    after = back_after(cluster, 5)
    assert end(after, "b")[0] is S.WAITING
    assert not after.state.orders.paused_batches


def test_after_a_long_absence_what_waits_asks(cluster: Cluster) -> None:
    moving(cluster, "a", "b")
    (batch,) = [o.id for o in cluster.state.operations.values() if o.vm is None]
    after = back_after(cluster, CONTINUE_AFTER_S + 100)
    after.moves.clear()
    del after.hosts[N2][uuid("a")]
    after.read("n2")
    after.settle()
    state, text = end(after, "b")
    assert state is S.WAITING
    assert text.startswith("left behind by a program that ended")
    assert list(after.state.orders.paused_batches) == [batch]
    after.steer(ev.QueueVerb.RESUME, operations=(batch,))
    after.settle()
    assert end(after, "b") == (S.DONE, "runs on n2")


def test_a_batch_paused_by_hand_says_who_did_it(cluster: Cluster) -> None:
    moving(cluster, "a", "b")
    (batch,) = [o.id for o in cluster.state.operations.values() if o.vm is None]
    cluster.steer(ev.QueueVerb.PAUSE, operations=(batch,))
    assert end(cluster, "b")[1].startswith("its batch was paused by adm")


HUNG_UP = Failure(code=FailureCode.UNREACHABLE, text="client socket is closed", node=N2)


@pytest.mark.parametrize(("failure", "source_stands"), [(None, False), (HUNG_UP, False), (HUNG_UP, True)])
def test_one_that_left_for_a_node_nobody_can_ask_leaves_its_place_free(
    cluster: Cluster, failure: Failure | None, source_stands: bool
) -> None:
    effect = moving(cluster, "a")
    cluster.add("n1", "b", R)
    cluster.ask("vm.live_migrate", "b", target=NodeId("n3"))
    assert cluster.operation("b").reason.code is ReasonCode.WAITS_OUTGOING
    cluster.lose("n2")
    if source_stands:  # the target ran already when its daemon died, and the source waits for its word
        cluster.become("n1", "a", PAUSED, StatusCause.MIGRATION)
        cluster.end(effect, failure)
    else:
        cluster.finish_move(effect.operation, failure, arrives=True)
    cluster.reads()
    assert cluster.operation("a").state is S.SETTLING
    assert cluster.operation("a").reason.code is ReasonCode.WAITS_INVENTORY
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    assert cluster.take(fx.StartMigration).vm == uuid("b")
    if source_stands:
        cluster.finish_move(effect.operation, arrives=True, says=False)
    cluster.connect("n2")
    cluster.settle()
    assert {cluster.operation(name).state for name in "ab"} == {S.DONE}
    assert (cluster.vm("a").owner, cluster.vm("b").owner) == (N2, NodeId("n3"))


def test_one_whose_source_cannot_be_asked_keeps_its_place(cluster: Cluster) -> None:
    effect = moving(cluster, "a")
    cluster.add("n3", "b", R)
    cluster.ask("vm.live_migrate", "b", target=N2)
    cluster.lose("n1")
    cluster.finish_move(effect.operation, UNREACHABLE, arrives=False)
    cluster.reads()
    assert cluster.operation("a").state is S.SETTLING
    assert cluster.operation("b").state is S.WAITING, "the host may send on"


def test_an_order_about_a_batch_that_is_over_is_not_kept(cluster: Cluster) -> None:
    effect = moving(cluster, "a")
    batch = cluster.operation_of(effect).parent
    assert batch is not None
    cluster.steer(ev.QueueVerb.PAUSE, operations=(batch, OperationId("nobody")))
    assert list(cluster.state.orders.paused_batches) == [batch]
    cluster.finish_move(effect.operation)
    cluster.settle()
    for key in (batch, effect.operation):
        cluster.steer(ev.QueueVerb.PAUSE, operations=(key,))
        cluster.steer(ev.QueueVerb.RESUME, operations=(key,))
    assert cluster.state.orders == StandingOrders()


def test_an_order_about_a_batch_that_nobody_knows_can_be_taken_back(cluster: Cluster) -> None:
    effect = moving(cluster, "a", "b")
    batch = cluster.operation_of(effect).parent
    assert batch is not None
    cluster.steer(ev.QueueVerb.PAUSE, operations=(batch,))
    for key in [key for key, o in cluster.journal.items() if batch in (key, o.parent)]:
        del cluster.journal[key]
    after = back_after(cluster, 5)
    assert list(after.state.orders.paused_batches) == [batch]
    after.steer(ev.QueueVerb.RESUME, operations=(batch,))
    assert after.state.orders == StandingOrders()

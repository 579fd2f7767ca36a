"""Moves of every type, step by step: there, back, cancelled, tried again; never two copies at once."""

from __future__ import annotations

from typing import Any

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId
from manager.core.migration.moves import BACK, PATHS, MoveStep, after
from manager.core.model import Disk, MigrationLimits, MoveType, RetryPolicy, VmConfig, VmStatus
from manager.core.operations import OperationState
from manager.core.reasons import ReasonCode
from manager.core.settling import LATE_S, LOST_PATIENCE_S
from tests.core.support import OFF, Cluster, R, cluster_config, definition, uuid

S = OperationState
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
REFUSED = Failure(code=FailureCode.NO_RESOURCES, text="no memory there", node=N2)
LOST = Failure(code=FailureCode.UNREACHABLE, text="connection lost", node=N2)
SHARED = "/srv/vms"
ON_SHARED = Disk(target="vda", source=f"{SHARED}/a.qcow2", cache="none")
LOCAL = Disk(target="vdb", source="/var/local/a.qcow2", cache="none")
ACTION = {
    MoveType.QUICK: "vm.quick_migrate",
    MoveType.SHUT_DOWN: "vm.shut_down_and_move",
    MoveType.TURN_OFF: "vm.turn_off_and_move",
}
STEPWISE = tuple(ACTION)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(cluster_config(shared_paths=(SHARED,)))


def keen(**values: Any) -> Cluster:
    """A cluster that tries again."""
    return Cluster(cluster_config(migration=MigrationLimits(retry=RetryPolicy(**values))))


def end(cluster: Cluster, name: str = "a") -> tuple[OperationState, str]:
    operation = cluster.operation(name)
    return operation.state, operation.reason.text if operation.reason else ""


def until(cluster: Cluster, step: MoveStep) -> fx.VmEffect:
    """Answer everything up to this step, whose effect is returned unanswered."""
    for _ in range(200):
        operation = cluster.operation("a")
        if operation.step is step and operation.state is S.RUNNING:
            mine = [
                e for e in cluster.pending if isinstance(e, fx.VmEffect) and e.attempt == operation.attempt
            ]
            if mine:
                return mine[0]
        assert cluster.pending, (operation.state, operation.step)
        cluster.answer(cluster.pending[0])
    raise AssertionError(f"never came to {step}")


def places(cluster: Cluster, name: str = "a") -> dict[str, VmStatus]:
    return {n: has[uuid(name)].status for n, has in cluster.hosts.items() if uuid(name) in has}


# --- there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("move", STEPWISE)
def test_a_move_in_steps_ends_on_the_target_only(cluster: Cluster, move: MoveType) -> None:
    cluster.add("n1", "a", R)
    cluster.ask(ACTION[move], "a", target=N2)
    cluster.settle()
    assert end(cluster) == (S.DONE, "runs on n2")
    assert places(cluster) == {"n2": R}
    assert not cluster.files
    told = " / ".join(cluster.story("a"))
    assert all(step.value in told for step in PATHS[move])


@pytest.mark.parametrize("move", STEPWISE)
def test_one_that_is_off_moves_as_it_is(cluster: Cluster, move: MoveType) -> None:
    cluster.add("n1", "a", OFF)
    cluster.ask(ACTION[move], "a", target=N2)
    cluster.settle()
    assert end(cluster) == (S.DONE, "is on n2 now, off as before")
    assert places(cluster) == {"n2": OFF}


def test_storage_moves_on_its_node(cluster: Cluster) -> None:
    cluster.add("n1", "a", R, config=definition(disks=(ON_SHARED,)))
    cluster.ask("vm.move_storage", "a", pool="fast")
    effect = cluster.take(fx.CopyDisks)
    assert (effect.node, effect.pool, effect.disks) == (N1, "fast", ("vda",))
    cluster.settle()
    assert end(cluster) == (S.DONE, "its disks are in pool fast on n1 now; the old images are kept")
    assert places(cluster) == {"n1": R}


def test_disks_that_are_not_shared_go_with_a_live_move_if_a_pool_is_named(cluster: Cluster) -> None:
    cluster.add("n1", "a", R, config=definition(disks=(LOCAL, ON_SHARED)))
    assert cluster.plan("vm.live_migrate", "a", target=N2).skipped[0].reason.code is ReasonCode.LOCAL_DISK
    cluster.ask("vm.live_migrate", "a", target=N2, pool="fast")
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    effect = cluster.take(fx.StartMigration)
    assert (effect.copy_disks, effect.pool) == (("vdb",), "fast")


def test_an_old_definition_that_cannot_be_removed_is_said_and_changes_nothing(cluster: Cluster) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.quick_migrate", "a", target=N2)
    cluster.answer(until(cluster, MoveStep.FORGET), REFUSED)
    cluster.settle()
    assert end(cluster) == (S.DONE, "it is running on n2; n1 still has its old definition: no memory there")


@pytest.mark.parametrize("move", STEPWISE)
@pytest.mark.parametrize(
    ("config", "what"),
    [
        (definition(nvram="/var/lib/libvirt/qemu/nvram/a.fd"), "the file with its UEFI variables"),
        (definition(emulated_tpm=True), "the state of its TPM"),
    ],
)
def test_state_that_only_a_live_move_carries_is_told_beforehand(
    cluster: Cluster, move: MoveType, config: VmConfig, what: str
) -> None:
    cluster.add("n1", "a", R, config=config)
    (skipped,) = cluster.plan(ACTION[move], "a", target=N2).skipped
    assert skipped.reason.text.startswith(what)
    assert not cluster.plan("vm.live_migrate", "a", target=N2).skipped


def test_copies_that_go_on_without_the_program_are_taken_over(cluster: Cluster) -> None:
    cluster.add("n1", "a", R, config=definition(disks=(ON_SHARED,)))
    cluster.ask("vm.move_storage", "a", pool="fast")
    restarted = cluster.restart()
    while not restarted.wanted(fx.CopyDisks):
        restarted.answer(restarted.pending[0])
    assert restarted.take(fx.CopyDisks).attempt == 2
    restarted.settle()
    assert end(restarted)[0] is S.DONE


# --- back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("move", STEPWISE)
@pytest.mark.parametrize("step", [MoveStep.DEFINE, "arrive"])
@pytest.mark.parametrize("failure", [REFUSED, LOST])
def test_what_cannot_arrive_runs_on_its_source_again(
    cluster: Cluster, move: MoveType, step: MoveStep | str, failure: Failure
) -> None:
    cluster.add("n1", "a", R)
    cluster.ask(ACTION[move], "a", target=N2)
    fails_at = PATHS[move][2] if step == "arrive" else MoveStep.DEFINE
    cluster.answer(until(cluster, fails_at), failure)
    cluster.settle()
    if failure is LOST and step == "arrive":  # it may yet begin there
        assert places(cluster) == {"n1": OFF, "n2": OFF}
        cluster.wait(LATE_S + 1)
        cluster.settle()
    assert end(cluster) == (S.FAILED, f"{failure.text}; it is running on n1")
    assert places(cluster) == {"n1": R}
    assert not cluster.files


@pytest.mark.parametrize("move", STEPWISE)
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_target_that_may_run_it_is_waited_for_and_never_doubted(
    cluster: Cluster, move: MoveType, comes_back: bool
) -> None:
    cluster.add("n1", "a", R)
    cluster.ask(ACTION[move], "a", target=N2)
    effect = until(cluster, PATHS[move][2])
    cluster.lose("n2")
    cluster.become("n2", "a", R)  # it starts, and nobody hears of it
    cluster.end(effect, LOST)
    cluster.reads()
    assert end(cluster) == (S.SETTLING, "waits until n2 was read again")
    if comes_back:
        cluster.connect("n2")
        cluster.settle()
        assert end(cluster) == (S.DONE, "runs on n2")
        assert places(cluster) == {"n2": R}
    else:
        cluster.wait(LOST_PATIENCE_S + 300)
        cluster.settle()
        assert end(cluster)[0] is S.FAILED
        assert "whether n2 runs it cannot be seen, so it was not started again" in end(cluster)[1]
        assert places(cluster) == {"n1": OFF, "n2": R}


def test_a_way_back_that_fails_too_is_told_with_where_the_vm_is(cluster: Cluster) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.turn_off_and_move", "a", target=N2)
    cluster.answer(until(cluster, MoveStep.START), REFUSED)
    cluster.answer(
        until(cluster, MoveStep.START_BACK), Failure(code=FailureCode.STORAGE, text="no disk", node=N1)
    )
    cluster.settle()
    assert end(cluster) == (S.FAILED, "no memory there; no disk; it is off on n1")


def test_a_guest_that_ignores_the_question_stays_where_it_is(cluster: Cluster) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.shut_down_and_move", "a", target=N2)
    cluster.end(until(cluster, MoveStep.SHUT_DOWN))
    cluster.reads()
    cluster.wait(200)
    cluster.settle()
    assert end(cluster)[0] is S.FAILED
    assert end(cluster)[1].startswith("the guest did not shut down within")
    assert places(cluster) == {"n1": R}


# --- cancelled -------------------------------------------------------------------------------


@pytest.mark.parametrize("move", STEPWISE)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_cancel_at_each_step(cluster: Cluster, move: MoveType, place: int) -> None:
    cluster.add("n1", "a", R)
    cluster.ask(ACTION[move], "a", target=N2)
    step = PATHS[move][place]
    until(cluster, step)
    cluster.cancel("a")
    cluster.cancel("a")
    cluster.settle()
    arrived = place >= 2
    assert end(cluster)[0] is (S.DONE if arrived else S.CANCELLED)
    assert places(cluster) == ({"n2": R} if arrived else {"n1": R})


# --- after a kill ----------------------------------------------------------------------------


@pytest.mark.parametrize("move", STEPWISE)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("acted", [True, False])
def test_killed_at_each_step_the_next_run_brings_it_to_an_end(
    cluster: Cluster, move: MoveType, place: int, acted: bool
) -> None:
    cluster.add("n1", "a", R)
    cluster.ask(ACTION[move], "a", target=N2)
    effect = until(cluster, PATHS[move][place])
    if acted:  # the host did it, and nobody was there to hear of it
        cluster.pending.clear()
        cluster.deaf(effect)
    restarted = cluster.restart()
    restarted.settle()
    for _ in range(10):
        restarted.wait(130)
        restarted.settle()
    state, text = end(restarted)
    assert state in (S.DONE, S.FAILED), text
    assert list(places(restarted).values()).count(R) == 1
    assert places(restarted) == ({"n2": R} if state is S.DONE else {"n1": R}), text


# --- tried again -----------------------------------------------------------------------------


def test_a_transient_failure_is_tried_again_and_says_so() -> None:
    cluster = keen(times=2, first_s=5)
    cluster.add("n1", "a", R)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.answer(cluster.take(fx.StartMigration), LOST)
    cluster.reads()
    assert end(cluster)[0] is S.WAITING
    assert end(cluster)[1].startswith("retry 1 of 2 at ")
    assert end(cluster)[1].endswith(": connection lost")
    assert not cluster.wanted(fx.CheckPeerLogin)
    cluster.wait(6)
    cluster.settle()
    assert end(cluster) == (S.DONE, "runs on n2")
    assert cluster.operation("a").attempt == 2


def test_pauses_grow_and_the_last_failure_is_final() -> None:
    cluster = keen(times=2, first_s=5)
    cluster.add("n1", "a", R)
    cluster.ask("vm.live_migrate", "a", target=N2)
    for pause_s in (5, 15):
        cluster.answer(cluster.take(fx.CheckPeerLogin))
        cluster.answer(cluster.take(fx.StartMigration), LOST)
        cluster.reads()
        cluster.wait(pause_s - 1)
        assert end(cluster)[0] is S.WAITING
        cluster.wait(2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.answer(cluster.take(fx.StartMigration), LOST)
    cluster.reads()
    assert end(cluster) == (S.FAILED, "connection lost; it is running on n1")


def test_what_is_permanent_is_never_tried_again() -> None:
    cluster = keen()
    cluster.add("n1", "a", R)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.answer(cluster.take(fx.StartMigration), REFUSED)
    cluster.settle()
    assert end(cluster) == (S.FAILED, "no memory there; it is running on n1")


def test_best_goes_elsewhere_after_a_target_failed() -> None:
    cluster = keen()
    cluster.add("n1", "a", R)
    cluster.add("n3", "b", R)  # n2 has more room
    cluster.ask("vm.live_migrate", "a")
    assert cluster.operation("a").target == N2
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.answer(cluster.take(fx.StartMigration), LOST)
    cluster.reads()
    cluster.wait(6)
    cluster.settle()
    assert end(cluster) == (S.DONE, "runs on n3")


def test_a_vm_that_stopped_while_it_waited_for_its_retry_leaves_the_queue() -> None:
    cluster = keen()
    cluster.add("n1", "a", R)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.answer(cluster.take(fx.StartMigration), LOST)
    cluster.reads()
    cluster.become("n1", "a", OFF)
    cluster.wait(6)
    cluster.settle()
    assert end(cluster) == (S.FAILED, "not running (Off)")


def test_a_start_is_tried_again_too() -> None:
    cluster = keen()
    cluster.add("n1", "a", OFF)
    cluster.ask("vm.start", "a")
    busy = Failure(code=FailureCode.BUSY, text="a lock is held", node=N1)
    cluster.answer(cluster.take(fx.ChangeVm), busy)
    cluster.reads()
    assert end(cluster)[0] is S.WAITING
    cluster.wait(6)
    cluster.settle()
    assert end(cluster)[0] is S.DONE


# --- when it is enough -----------------------------------------------------------------------


def fail(cluster: Cluster, name: str, failure: Failure = REFUSED) -> None:
    cluster.answer(cluster.take(fx.CheckPeerLogin, name))
    cluster.answer(cluster.take(fx.StartMigration, name), failure)
    cluster.reads()


def test_a_target_that_keeps_failing_is_fed_no_more_until_told() -> None:
    cluster = keen(target_failures=2, batch_failures=100)
    for name in "abcd":
        cluster.add("n1", name, R)
    cluster.ask("vm.live_migrate", *"abcd", target=N2)
    fail(cluster, "a")
    fail(cluster, "b")
    assert dict(cluster.state.orders.resting) == {N2: 2}
    fail(cluster, "c")  # it was under way
    assert end(cluster, "d") == (S.WAITING, "n2 is fed no more: the last 2 moves to it failed")
    cluster.steer(ev.QueueVerb.RESUME, node=N2)
    cluster.settle()
    assert end(cluster, "d") == (S.DONE, "runs on n2")
    assert not cluster.state.orders.resting


def test_failures_in_a_row_are_still_so_after_a_restart() -> None:
    retry = RetryPolicy(target_failures=3, batch_failures=100)
    cluster = Cluster(cluster_config(migration=MigrationLimits(outgoing_per_node=1, retry=retry)))
    for name in "abc":
        cluster.add("n1", name, R)
    cluster.ask("vm.live_migrate", *"abc", target=N2)
    fail(cluster, "a")
    fail(cluster, "b")
    cluster = cluster.restart()
    assert not cluster.state.orders.resting
    fail(cluster, "c")
    assert dict(cluster.state.orders.resting) == {N2: 3}


def test_a_batch_that_keeps_failing_pauses_and_asks() -> None:
    cluster = keen(target_failures=100, batch_failures=2, batch_percent=20)
    names = [f"v{i}" for i in range(8)]
    for name in names:
        cluster.add("n1", name, R)
    batch = cluster.ask("vm.live_migrate", *names, target=N2)
    fail(cluster, "v0")
    fail(cluster, "v1")
    assert list(cluster.state.orders.paused_batches) == [batch]
    assert end(cluster, "v7") == (S.WAITING, "its batch is paused: 2 of 8 failed")
    cluster.steer(ev.QueueVerb.RESUME, operations=(batch,))
    cluster.settle()
    assert [end(cluster, n)[0] for n in names[2:]] == [S.DONE] * 6
    assert cluster.state.orders.forgiven == ()  # kept no longer than the batch


@pytest.mark.parametrize("paused", [False, True])
def test_what_of_a_batch_failed_counts_after_a_restart_too(paused: bool) -> None:
    cluster = keen(target_failures=100, batch_failures=3, batch_percent=20)
    names = [f"v{i}" for i in range(8)]
    for name in names:
        cluster.add("n1", name, R)
    batch = cluster.ask("vm.live_migrate", *names, target=N2)
    for name in names[: 3 if paused else 2]:
        fail(cluster, name)
    cluster = cluster.restart()
    if not paused:
        cluster.reads()  # those under way turn out not to have moved, and are tried again
        cluster.wait(6)
        fail(cluster, cluster.operation_of(cluster.wanted(fx.CheckPeerLogin)[0]).vm_name)
    cluster.reads()
    assert list(cluster.state.orders.paused_batches) == [batch]
    assert end(cluster, "v7") == (S.WAITING, "its batch is paused: 3 of 8 failed")
    cluster.steer(ev.QueueVerb.RESUME, operations=(batch,))
    assert dict(cluster.state.orders.forgiven) == {batch: 3}
    cluster.settle()
    assert cluster.state.operations[batch].state is S.FAILED


# --- steering --------------------------------------------------------------------------------


def test_a_paused_queue_starts_nothing_and_lets_run_what_runs(cluster: Cluster) -> None:
    for name in "abc":
        cluster.add("n1", name, R)
    cluster.add("n1", "off", OFF)
    cluster.ask("vm.live_migrate", *"abc", target=N2)
    cluster.steer(ev.QueueVerb.PAUSE)
    cluster.ask("vm.start", "off")
    cluster.ask("vm.pause", "c")  # refused: it is queued; light work itself is not held
    cluster.settle()
    assert [end(cluster, n)[0] for n in "ab"] == [S.DONE, S.DONE]
    assert end(cluster, "c")[0] is S.WAITING
    assert end(cluster, "c")[1].startswith("the queue was paused by adm ")
    assert end(cluster, "off")[0] is S.WAITING
    restarted = cluster.restart()  # a pause outlives the program
    restarted.settle()
    assert end(restarted, "c")[0] is S.WAITING
    restarted.steer(ev.QueueVerb.RESUME)
    restarted.settle()
    assert end(restarted, "c")[0] is S.DONE
    assert end(restarted, "off")[0] is S.DONE


def test_limits_changed_while_running_count_at_once_and_after_a_restart(cluster: Cluster) -> None:
    for name in "abcdef":
        cluster.add("n1", name, R)
    cluster.ask("vm.live_migrate", *"abcdef", target=N2)
    assert len(cluster.wanted(fx.CheckPeerLogin)) == 2
    cluster.steer(ev.QueueVerb.LIMITS, limits=(("outgoing_per_node", 4), ("incoming_per_node", 3)))
    assert len(cluster.wanted(fx.CheckPeerLogin)) == 3
    assert cluster.restart().state.config.migration.outgoing_per_node == 4
    cluster.steer(ev.QueueVerb.LIMITS, limits=(("outgoing_per_node", 0),))
    assert cluster.state.config.migration.outgoing_per_node == 4


def test_a_hand_made_order_wins_inside_a_priority(cluster: Cluster) -> None:
    for name in "abcdef":
        cluster.add("n1", name, R)
    cluster.steer(ev.QueueVerb.PAUSE)
    cluster.ask("vm.live_migrate", *"abcdef", target=N2)
    ids = {n: cluster.operation(n).id for n in "abcdef"}
    cluster.steer(ev.QueueVerb.REORDER, operations=(ids["f"], ids["e"]), before=ids["b"])
    cluster.steer(ev.QueueVerb.RESUME)
    begun = []
    while checks := cluster.wanted(fx.CheckPeerLogin):
        begun += [cluster.state.vms[c.vm].name for c in checks]
        for check in checks:
            cluster.answer(check)
        cluster.settle_moves()
    assert begun == ["a", "f", "e", "b", "c", "d"]


def test_a_share_of_the_network_is_waited_for(cluster: Cluster) -> None:
    cluster = Cluster(
        cluster_config(migration=MigrationLimits(bandwidth_mib_s=300, node_bandwidth_mib_s=500))
    )
    for name in "ab":
        cluster.add("n1", name, R)
    cluster.ask("vm.live_migrate", *"ab", target=N2)
    assert end(cluster, "b") == (S.WAITING, "n1 has 300 of 500 MiB/s given to moves; next in line")
    cluster.settle()
    assert end(cluster, "b")[0] is S.DONE


def test_a_move_is_tuned_by_hand_and_its_story_says_who(cluster: Cluster) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.begin_move(cluster.take(fx.StartMigration))
    cluster.steer(
        ev.QueueVerb.TUNE, operations=(cluster.operation("a").id,), pause_ms=2000, bandwidth_mib_s=0
    )
    for _ in range(2):  # one thing at a time: what is refused is then known
        cluster.answer(cluster.wanted(fx.TuneMigration)[0])
    assert [(t.pause_ms, t.bandwidth_mib_s) for t in cluster.tuned] == [(2000, None), (None, 0)]
    assert any("adm permits a pause of 2000 ms and removes its cap" in line for line in cluster.story("a"))


def test_of_what_is_asked_by_hand_only_the_refused_is_undone(cluster: Cluster) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.begin_move(cluster.take(fx.StartMigration))
    key = cluster.operation("a").id

    def told() -> tuple[int | None, int, int, tuple[str, ...]]:
        move = cluster.operation("a")
        assert cluster.journal[key] == move
        return cluster.state.progress[key].watch.pause_ms, move.cap_mib_s, move.tuned, move.refusals

    def answer(failure: Failure | None = None) -> None:
        cluster.answer(cluster.wanted(fx.TuneMigration)[0], failure)

    cluster.steer(ev.QueueVerb.TUNE, operations=(key,), pause_ms=2000, bandwidth_mib_s=500)
    answer()
    assert told() == (2000, 500, 1, ())
    answer(REFUSED)
    assert told() == (2000, 100, 1, (REFUSED.text,))
    cluster.steer(ev.QueueVerb.TUNE, operations=(key,), pause_ms=700)
    answer(REFUSED)
    assert told() == (2000, 100, 2, (REFUSED.text,))
    cluster.steer(ev.QueueVerb.TUNE, operations=(key,), pause_ms=900)
    cluster.steer(ev.QueueVerb.TUNE, operations=(key,), pause_ms=1000)
    answer(REFUSED)  # the first of them
    assert told() == (1000, 100, 4, (REFUSED.text,))


def test_a_refused_second_half_by_hand_leaves_the_policy_its_own(cluster: Cluster) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.live_migrate", "a", target=N2, policy="post-copy")
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    cluster.begin_move(cluster.take(fx.StartMigration))
    move = cluster.operation("a")
    cluster.steer(ev.QueueVerb.TUNE, operations=(move.id,), post_copy=True)
    cluster.answer(cluster.take(fx.TuneMigration), REFUSED)
    assert cluster.operation("a").refusals == (REFUSED.text,)
    cluster.steer(ev.QueueVerb.TUNE, operations=(move.id,), pause_ms=60_000)  # the longest: then that half
    cluster.answer(cluster.take(fx.TuneMigration))
    stored = len(cluster.transitions)
    for elapsed_s in range(120):
        cluster.feed(
            ev.MigrationProgress(
                at_s=cluster.later(),
                operation=move.id,
                attempt=1,
                elapsed_ms=elapsed_s * 1000,
                total_bytes=10**9,
                remaining_bytes=10**8,
                rate_bytes_per_s=10**8,
                dirty_bytes_per_s=2 * 10**8,
                iteration=5,
            )
        )
        for tune in cluster.wanted(fx.TuneMigration):
            assert tune.post_copy
            cluster.answer(tune, REFUSED)
    assert cluster.state.progress[move.id].watch.post_copy_refused  # by now it has tried
    assert cluster.operation("a").refusals == ()  # nobody asked by hand for what it asked for
    assert len(cluster.transitions) == stored


def test_where_no_network_is_named_a_move_is_capped(cluster: Cluster) -> None:
    cluster.add("n1", "a", R)
    cluster.ask("vm.live_migrate", "a", target=N2)
    cluster.answer(cluster.take(fx.CheckPeerLogin))
    assert cluster.take(fx.StartMigration).bandwidth_mib_s == 100


# --- the tables ------------------------------------------------------------------------------


@pytest.mark.parametrize("move", MoveType)
def test_every_path_has_an_end(move: MoveType) -> None:
    for path in filter(None, (PATHS[move], BACK.get(move))):
        for step, following in zip(path, (*path[1:], None), strict=True):
            assert after(path, step) is following

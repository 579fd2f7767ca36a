"""``vm migrate`` with its types, targets, pools and policies, and ``vm tune``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from manager.cli import acting
from manager.cli.actions import MOVES
from manager.core.errors import FailureCode
from manager.core.events import QueueVerb
from manager.core.ids import NodeId
from manager.core.migration.convergence import POLICIES
from manager.core.model import MoveType, VmStatus
from manager.core.operations import OperationState
from tests.cli.support import Cli, small
from tests.cli.together import Together, of, request

# --- what is asked for ---------------------------------------------------------------------------


def test_every_type_of_move_has_its_word() -> None:
    assert {word: spec.move for word, spec in MOVES.items()} == {move.value: move for move in MoveType}


@pytest.mark.parametrize("kind", ["quick", "shutdown", "turn-off"])
def test_to_a_node(muster: Cli, kind: str) -> None:
    ran = muster("vm", "migrate", "web-1", "off-1", "--type", kind, "--to", "n3", "--yes", "--json")
    assert [row["result"] for row in ran.rows] == ["done", "done"], ran.err
    assert [row["reason"] for row in ran.rows] == ["runs on n3", "is on n3 now, off as before"]
    assert (muster.vm("web-1").node.id, muster.vm("web-1").status) == ("n3", VmStatus.RUNNING)
    assert [each for each in muster.state() if each[0] == "off-1"] == [("off-1", "n3", "Off")]


def test_best_is_the_default_and_can_be_said(muster: Cli) -> None:
    plans = [
        muster("vm", "migrate", "web-1", *words, "--what-if", "--json").rows for words in ((), ("--best",))
    ]
    assert plans[0] == plans[1]
    assert plans[0][0]["to"] == "n3"


def test_storage_to_a_pool(muster: Cli) -> None:
    ran = muster("vm", "migrate", "web-1", "--type", "storage", "--pool", "default", "--what-if", "--json")
    assert ran.results() == {"web-1": "planned"}
    assert (ran.rows[0]["from"], ran.rows[0]["to"]) == ("n1", None)
    assert ran.rows[0]["reason"].startswith("to pool default; whether n1 has it")
    ran = muster("vm", "migrate", "web-1", "--type", "storage", "--pool", "nope", "--json")
    assert ran.results() == {"web-1": "failed"}
    assert "Storage pool not found" in ran.rows[0]["reason"]


@pytest.mark.parametrize("policy", list(POLICIES))
async def test_a_policy_is_handed_on(beside: Together, policy: str) -> None:
    owner = await beside.owner()
    ran = await beside("vm", "migrate", "web-1", "--to", "n2", "--policy", policy, "--json")
    assert ran.code == 0
    assert of(owner, "web-1").policy == policy


def test_policies_are_named_in_help_and_refusal(muster: Cli) -> None:
    said = " ".join(muster("vm", "migrate", "--help").out.split())
    for policy in POLICIES.values():
        assert f"--policy {policy.name}: {policy.doc}" in said
    for word, spec in MOVES.items():
        assert f"--type {word}: {spec.doc}" in said
    ran = muster("vm", "migrate", "web-1", "--policy", "nope")
    assert (ran.code, ran.out) == (2, "")
    assert all(repr(name) in ran.err for name in POLICIES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "n2", "--best"), "Only one of --to and --best"),
        (("--type", "storage"), "--type storage needs --pool POOL"),
        (("--type", "storage", "--pool", "p", "--to", "n2"), "--to is for --type live and quick"),
        (("--type", "storage", "--pool", "p", "--best"), "--best is for"),
        (("--type", "storage", "--pool", "p", "--policy", "insist"), "--policy is for --type live, not"),
        (("--type", "quick", "--pool", "p"), "--pool is for --type live and storage, not for quick"),
        (("--type", "shutdown", "--policy", "insist"), "--policy is for --type live, not for shutdown"),
        (("--type", "storage", "--pool", "\udcff"), "--pool '\\udcff': needs printable text."),
        (("--type", "warp"), "'warp' is not one of 'live', 'quick', 'shutdown', 'turn-off', 'storage'"),
    ],
)
def test_what_does_not_go_together(muster: Cli, words: tuple[str, ...], said: str) -> None:
    before = muster.state()
    ran = muster("vm", "migrate", "web-1", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert muster.state() == before


def test_a_quick_move_whose_restore_fails_runs_on_its_own_node(muster: Cli) -> None:
    muster.faults.fail_call("restore_from_file", node="n2", code=FailureCode.STORAGE, text="cannot read it")
    ran = muster("vm", "migrate", "web-1", "--type", "quick", "--to", "n2", "--json")
    assert ran.results() == {"web-1": "failed"}
    assert "cannot read it" in ran.rows[0]["reason"]
    assert "running on n1" in ran.rows[0]["reason"]
    assert muster.vm("web-1").node.id == "n1"


# --- between two nodes ---------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--wait", "0"), ("--no-wait",)])
def test_a_vm_is_not_left_between_two_nodes(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    muster = small(capsys, speed=4.0)
    ran = muster("vm", "migrate", "web-1", "--type", "quick", "--to", "n2", *words, "--json")
    assert ran.results() == {"web-1": "done"}
    assert (muster.vm("web-1").node.id, muster.vm("web-1").status) == ("n2", VmStatus.RUNNING)
    assert ran.err == (
        "muster: 1 VM of these are between two nodes; this command stays until they run again.\n"
    )


async def test_ctrl_c_waits_until_it_has_arrived(beside: Together) -> None:
    beside.cli.faults.delay("n2", 20.0)
    task, out, err = beside.start("vm", "migrate", "web-1", "--type", "quick", "--to", "n2", "--follow")
    await beside.until(lambda: "Saving" in err.getvalue())
    task.cancel()
    await beside.until(lambda: "1 VM between two nodes: this command stays until they" in err.getvalue())
    beside.cli.faults.delay("n2", 0.0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "web-1: done: runs on n2" in err.getvalue()
    assert (beside.cli.vm("web-1").node.id, beside.cli.vm("web-1").status) == ("n2", VmStatus.RUNNING)
    assert out.getvalue() == ""


async def test_a_second_ctrl_c_leaves_it_and_the_next_one_goes_on(beside: Together) -> None:
    beside.cli.faults.hang_call("n1", "copy_definition")
    task, _, err = beside.start("vm", "migrate", "web-1", "--type", "quick", "--to", "n2", "--follow")
    await beside.until(lambda: "Defining there" in err.getvalue())
    task.cancel()
    await beside.until(lambda: "a second Ctrl-C" in err.getvalue())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "left between two nodes: web-1 (defines it on the target). The next Muster" in err.getvalue()
    ran = await beside("queue", "list")
    assert "Nobody works on it: this was left by a program that ended." in ran.err
    owner = await beside.owner()
    await beside.until(lambda: of(owner, "web-1").is_over)
    assert [vm[1] for vm in beside.cli.state() if vm[0] == "web-1" and vm[2] == "Running"] in (["n1"], ["n2"])


async def test_it_is_left_to_an_engine(beside: Together) -> None:
    owner = await beside.owner()
    beside.cli.faults.delay("n2", 60.0)
    ran = await beside("vm", "migrate", "web-1", "--type", "quick", "--to", "n2", "--no-wait", "--json")
    assert (ran.code, ran.results(), ran.err) == (0, {"web-1": "accepted"}, "")
    assert not of(owner, "web-1").is_over
    beside.cli.faults.delay("n2", 0.0)


async def test_an_engine_makes_no_wait_end_at_once(beside: Together) -> None:
    owner = await beside.owner()
    beside.cli.faults.dirty_memory("web-1", 4000.0)
    beside.cli.faults.dirty_memory("web-2", 4000.0)
    ran = await beside("vm", "migrate", "web-1", "web-2", "web-10", "--to", "n2", "--no-wait", "--json")
    assert (ran.code, set(ran.results().values()), ran.err) == (0, {"accepted"}, "")
    assert of(owner, "web-10").state is OperationState.WAITING
    owner.cancel(tuple(o.id for o in owner.view.operations.values() if o.vm))
    await beside.until(lambda: all(o.is_over for o in owner.view.operations.values()))


# --- pauses --------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A paused batch is not waited for."""
    monkeypatch.setattr(acting, "PAUSE_PATIENCE_S", 0.3)


async def failing(beside: Together, times: int) -> Any:
    """An owner that lets one move go at a time, and moves that fail so often."""
    owner = await beside.owner()
    owner.steer(QueueVerb.LIMITS, limits=(("outgoing_per_node", 1),))
    beside.cli.faults.fail_move(text="no space left on device", times=times)
    return owner


@pytest.mark.usefixtures("impatient")
async def test_a_batch_that_pauses_itself_does_not_hold_the_command_for_ever(beside: Together) -> None:
    owner = await failing(beside, 50)
    names = ("web-1", "web-2", "web-10", "db-1", "twin", "deaf")
    uuids = [vm.id for vm in owner.view.vms.values() if vm.name in names and vm.status is VmStatus.RUNNING]
    ran = await beside("vm", "migrate", *uuids, "--json")
    results = [row["result"] for row in ran.rows]
    failed, left = results.count("failed"), results.count("running")
    assert (ran.code, failed + left) == (1, 6), ran.rows
    assert failed >= 3
    assert left > 0
    reasons = {row["reason"] for row in ran.rows if row["result"] == "running"}
    assert reasons == {f"not started: its batch is paused: {failed} of 6 failed"}
    (batch,) = owner.view.orders.paused_batches
    assert f"muster --connect sim://n1/ queue resume {batch}\n" in ran.err
    assert f"muster --connect sim://n1/ queue cancel --batch {batch}\n" in ran.err
    assert ran.err.count("this batch is paused") == 1


async def test_it_goes_on_when_the_batch_is_continued(beside: Together) -> None:
    owner = await failing(beside, 3)
    task, _, err = beside.start("vm", "migrate", "web-1", "web-2", "web-10", "db-1", "--to", "n3", "--json")
    await beside.until(lambda: "this batch is paused: 3 of 4 failed; 1 VM of it wait." in err.getvalue())
    owner.steer(QueueVerb.RESUME, operations=owner.view.orders.paused_batches)
    owner.steer(QueueVerb.RESUME, node=NodeId("n3"))
    ran = await task
    assert sorted(ran.results().values()) == ["done", "failed", "failed", "failed"]
    assert "queue resume" in ran.err


@pytest.mark.usefixtures("impatient")
async def test_a_paused_queue_is_waited_for(beside: Together) -> None:
    owner = await beside.owner()
    owner.steer(QueueVerb.PAUSE)
    task, _, err = beside.start("vm", "migrate", "web-1", "--to", "n2", "--json")
    await beside.until(lambda: "Continue with: muster --connect sim://n1/ queue resume\n" in err.getvalue())
    assert "the queue was paused by eng@test " in err.getvalue()
    assert "1 VM of these wait." in err.getvalue()
    await asyncio.wait({task}, timeout=3 * acting.PAUSE_PATIENCE_S)
    assert not task.done()
    owner.steer(QueueVerb.RESUME)
    ran = await task
    assert (ran.code, ran.results()) == (0, {"web-1": "done"})


@pytest.mark.usefixtures("impatient")
async def test_no_wait_does_not_wait_for_a_paused_queue(beside: Together) -> None:
    owner = await beside.owner(stays=False)
    owner.steer(QueueVerb.PAUSE)
    ran = await beside("vm", "migrate", "web-1", "--to", "n2", "--no-wait", "--json")
    assert (ran.code, ran.results()) == (1, {"web-1": "running"})
    assert ran.rows[0]["reason"].startswith("not started: the queue was paused by eng@test ")


# --- two clusters of one name --------------------------------------------------------------------


async def test_an_engine_of_another_cluster_of_that_name(beside: Together) -> None:
    known = beside.cli.config
    await beside.owner(config=replace(known, nodes=known.nodes[:2], file="/etc/theirs.toml"))
    ran = await beside("vm", "pause", "web-1", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "(muster engine) owns the operations of another cluster named small (only here: n3" in ran.err
    assert "It works by /etc/theirs.toml, not by these hosts: two clusters need two names." in ran.err
    assert ran.err.endswith("Nothing was done.\n")
    assert ran.err.count("another cluster") == 1
    assert beside.cli.vm("web-1").status is VmStatus.RUNNING


async def test_lists_go_on_without_a_stranger_and_say_so(
    beside: Together, caplog: pytest.LogCaptureFixture
) -> None:
    known = beside.cli.config
    owner = await beside.owner(config=replace(known, nodes=known.nodes[:2]))
    owner.steer(QueueVerb.PAUSE)
    request(owner, "vm.live_migrate", "web-1", target="n2")
    ran = await beside("queue", "list", "--json")
    assert (ran.code, ran.rows) == (0, [])
    assert "owns the operations of another cluster named small" in caplog.text


# --- tune ----------------------------------------------------------------------------------------


async def moving(beside: Together, **parameters: Any) -> Any:
    """An owner that moves web-1 for a long time."""
    owner = await beside.owner()
    beside.cli.faults.dirty_memory("web-1", 4000.0)
    request(owner, "vm.live_migrate", "web-1", target="n2", **parameters)
    await beside.until(lambda: owner.view.progress)
    return owner


async def ended(beside: Together, owner: Any) -> None:
    """Nothing is left of it."""
    owner.cancel((of(owner, "web-1").id,))
    await beside.until(lambda: of(owner, "web-1").is_over)


async def test_tune_what_moves(beside: Together) -> None:
    owner = await moving(beside)
    ran = await beside("vm", "tune", "web-1", "--pause", "2000", "--cap", "300", "--json")
    assert ran.rows[0]["result"] == "accepted"
    assert ran.rows[0]["reason"] == "a pause of 2 s is permitted, capped at 300 MiB/s"
    assert ran.code == 0
    assert of(owner, "web-1").cap_mib_s == 300
    assert "adm@test permits a pause of 2000 ms and caps it at 300 MiB/s" in [
        line.text for line in owner.view.story(of(owner, "web-1").id)
    ]
    await ended(beside, owner)


async def test_a_host_that_refuses_is_heard(beside: Together) -> None:
    owner = await moving(beside)
    beside.cli.faults.fail_call("tune", code=FailureCode.OTHER, text="not now")
    ran = await beside("vm", "tune", "web-1", "--pause", "2000", "--json")
    assert (ran.code, ran.results()) == (1, {"web-1": "failed"})
    assert ran.rows[0]["reason"] == "the host refused: not now"
    await ended(beside, owner)


async def test_tune_is_answered_however_long_the_story_is(beside: Together) -> None:
    owner = await moving(beside)
    for number in range(60):
        owner.view._story.tell(of(owner, "web-1").id, 0.0, f"line {number}")
    ran = await beside("vm", "tune", "web-1", "--pause", "2000", "--json")
    assert ran.results() == {"web-1": "accepted"}
    beside.cli.faults.fail_call("tune", code=FailureCode.OTHER, text="not now")
    ran = await beside("vm", "tune", "web-1", "--pause", "3000", "--json")
    assert ran.results() == {"web-1": "failed"}
    await ended(beside, owner)


async def test_tune_of_what_does_not_move(beside: Together) -> None:
    await beside.owner()
    ran = await beside("vm", "tune", "web-1", "--cap", "0", "--json")
    assert (ran.code, ran.results()) == (1, {"web-1": "skipped"})
    assert ran.rows[0]["reason"] == "it is not being moved live now"
    ran = await beside("vm", "tune", "nope", "--cap", "0")
    assert (ran.code, ran.out) == (2, "")
    for words in ((), ("--pause", "0"), ("--pause", "x"), ("--cap", "-1")):
        assert (await beside("vm", "tune", "web-1", *words)).code == 2


async def test_the_second_half_needs_its_permission(beside: Together) -> None:
    owner = await moving(beside)
    ran = await beside("vm", "tune", "web-1", "--post-copy", "--json")
    assert ran.results() == {"web-1": "skipped"}
    assert "was not permitted when this move began" in ran.rows[0]["reason"]
    await ended(beside, owner)


async def test_the_second_half(beside: Together) -> None:
    owner = await moving(beside, policy="post-copy")
    ran = await beside("vm", "tune", "web-1", "--post-copy", "--json")
    assert ran.results() == {"web-1": "accepted"}
    await beside.until(lambda: of(owner, "web-1").is_over)
    assert beside.cli.vm("web-1").node.id == "n2"

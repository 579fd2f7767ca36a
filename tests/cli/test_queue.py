"""``muster queue``: what waits and runs, why, and steering it, beside the owner of the operations."""

from __future__ import annotations

import asyncio
import json
import textwrap
from dataclasses import replace
from typing import Any

import pytest

from manager.core.events import QueueVerb
from manager.core.ids import Kind
from manager.core.operations import OperationState
from manager.core.query.fields import FIELDS
from tests.cli.together import Together, of, request

WEB = ("web-1", "web-2", "web-10")


def golden(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def lines(text: str) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


async def paused(beside: Together) -> Any:
    """An owner with three moves and a start that wait in a paused queue."""
    owner = await beside.owner()
    owner.steer(QueueVerb.PAUSE)
    request(owner, "vm.live_migrate", *WEB, target="n2")
    request(owner, "vm.start", "off-1")
    return owner


# --- looking -------------------------------------------------------------------------------------


async def test_the_list_says_why_each_waits_and_how_the_queue_stands(beside: Together) -> None:
    owner = await paused(beside)
    ran = await beside("queue", "list", "--columns", "place,title,way,priority,phase")
    assert ran.out == golden("""
        #  Operation            From → to  Priority  Phase
        1  Start off-1          n1             High  Waiting
        2  Live migrate web-1   n1 → n2      Medium  Waiting
        3  Live migrate web-2   n1 → n2      Medium  Waiting
        4  Live migrate web-10  n1 → n2      Medium  Waiting
        """)
    assert ran.code == 0
    heading, told = ran.err.splitlines()
    pid = owner.engine.owner.pid
    assert heading == (
        "muster: queue of small: 0 running, 4 waiting; at once per node 2 out, 2 in, "
        "100 MiB/s each, as no migration network is named; "
        f"process {pid} (muster engine) works on it."
    )
    assert told.startswith("  Paused by eng@test at ")
    assert told.endswith("nothing new starts. muster --connect sim://n1/ queue resume")


async def test_json_has_every_field_and_the_reasons(beside: Together) -> None:
    await paused(beside)
    ran = await beside("queue", "list", "--json")
    assert all(set(row) == set(FIELDS[Kind.OPERATION]) for row in ran.rows)
    assert [row["vm"] for row in ran.rows] == ["off-1", *WEB]
    assert all(row["reason"].startswith("the queue was paused by eng@test ") for row in ran.rows)
    web = ran.rows[1]
    assert (web["from"], web["to"], web["type"], web["state"]) == ("n1", "n2", "live", "Waiting")
    assert web["uuid"] == beside.cli.vm("web-1").id
    assert web["id"].startswith(web["batch"] + ".")


async def test_the_list_takes_what_matches(beside: Together) -> None:
    await paused(beside)
    every = (await beside("queue", "list", "--json")).rows
    some = (await beside("queue", "list", "--where", f"vm:{every[0]['vm']}", "--json")).rows
    assert [row["vm"] for row in some] == [every[0]["vm"]]
    assert (await beside("queue", "list", "--where", "not is:waiting", "--json")).rows == []
    assert (await beside("queue", "list", "--where", "sate:x")).code == 2
    assert (await beside("queue", "list", "--where", "is:waiting", "--follow")).code == 2


async def test_the_list_and_the_history_are_sorted_grouped_and_shown_by_views(beside: Together) -> None:
    owner = await beside.owner()
    await owner.ended((request(owner, "vm.pause", "web-1", "web-2"),))
    await owner.ended((request(owner, "vm.resume", "web-2"),))
    down = (await beside("queue", "list", "--history", "--sort", "-vm,title", "--json")).rows
    assert [row["vm"] for row in down] == ["web-2", "web-2", "web-1"]
    groups = (await beside("queue", "list", "--history", "--group-by", "vm", "--sort", "vm", "--json")).rows
    assert [[row["vm"] for row in group["rows"]] for group in groups] == [["web-1"], ["web-2", "web-2"]]
    save = ("view", "save", "Of web-1", "--kind", "operation", "--where", "vm:web-1", "--columns", "vm,state")
    assert (await beside(*save)).code == 0
    shown = await beside("queue", "list", "--history", "--view", "Of web-1", "--json")
    assert shown.rows == [{"vm": "web-1", "state": "Done"}]
    titles = (await beside("queue", "list", "--history", "--view", "Of web-1")).out.splitlines()[0]
    assert titles.split() == ["VM", "State"]
    assert (await beside("queue", "list", "--history", "--view", "Failed", "--json")).rows == []
    for option in (("--view", "Failed"), ("--sort", "vm"), ("--group-by", "vm")):
        assert (await beside("queue", "list", "--follow", *option)).code == 2


async def test_an_empty_queue(beside: Together) -> None:
    ran = await beside("queue", "list", "--json")
    assert (ran.code, ran.rows, ran.err) == (0, [], "")
    ran = await beside("queue", "list")
    assert ran.err == (
        "muster: queue of small: 0 running, 0 waiting; at once per node 2 out, 2 in, "
        "100 MiB/s each, as no migration network is named.\n"
    )


async def test_what_others_do_is_in_the_list(beside: Together) -> None:
    owner = await beside.owner()
    beside.cli.faults.backup_by_someone_else("db-1")
    await beside.until(lambda: owner.view.foreign_jobs())
    ran = await beside("queue", "list", "--json")
    (row,) = ran.rows
    assert (row["vm"], row["from"], row["author"], row["phase"]) == ("db-1", "n2", "other", "Backup")
    beside.cli.faults.cancel_by_someone_else("db-1")


async def test_what_runs_shows_its_figures(beside: Together) -> None:
    owner = await beside.owner()
    beside.cli.faults.dirty_memory("web-1", 4000.0)
    request(owner, "vm.live_migrate", "web-1", target="n2")
    await beside.until(lambda: any(p.rate_bytes_per_s for p in owner.view.progress.values()))
    (row,) = (await beside("queue", "list", "--json")).rows
    assert row["rate"] > 0
    assert row["encrypted"] is False
    assert row["percent"] < 100
    ran = await beside("queue", "show", "web-1")
    titles = {line.split("  ")[0] for line in ran.out.splitlines()}
    assert {"Operation", "From → to", "Phase", "MiB/s", "Dirty", "Encrypted", "Story"} <= titles
    owner.cancel((of(owner, "web-1").id,))
    await beside.until(lambda: of(owner, "web-1").is_over)


async def test_show_tells_the_story_that_only_the_owner_knows(beside: Together) -> None:
    owner = await paused(beside)
    web = of(owner, "web-1")
    for key in (web.id, "web-1", beside.cli.vm("web-1").id.upper()):
        (row,) = (await beside("queue", "show", key, "--json")).rows
        assert row["id"] == web.id
        assert row["remedy"] == "Continue with Ctrl+. or `muster queue resume`."
    owner.steer(QueueVerb.RESUME)
    await beside.until(lambda: of(owner, "web-1").is_over)
    (row,) = (await beside("queue", "show", web.id, "--json")).rows
    assert row["state"] == "Done"
    assert row["story"][0]["text"] == "Checking"
    assert row["story"] == [
        {"at": line["at"], "text": entry.text}
        for line, entry in zip(row["story"], owner.view.story(web.id), strict=True)
    ]
    text = (await beside("queue", "show", web.id)).out
    assert "\nStory\n" in text
    assert "Done: runs on n2" in text
    (vm,) = (await beside("vm", "show", "web-1", "--json")).rows
    assert "Done: runs on n2" in {line["text"] for line in vm["story"]}
    assert "Done: runs on n2" in (await beside("vm", "show", "web-1")).out


async def test_show_of_a_batch(beside: Together) -> None:
    owner = await paused(beside)
    batch = of(owner, "web-1").parent
    assert batch is not None
    (row,) = (await beside("queue", "show", batch, "--json")).rows
    assert row["title"] == "Live migrate 3 VMs"
    assert [each["vm"] for each in row["operations"]] == list(WEB)
    ran = await beside("queue", "show", batch)
    assert "0 of 3 moved · 3 waiting" in ran.out
    assert "asked by eng@test" in ran.out


async def test_show_of_the_queue_as_a_whole(beside: Together) -> None:
    owner = await paused(beside)
    (row,) = (await beside("queue", "show", "--json")).rows
    assert (row["cluster"], row["running"], row["waiting"], row["paused_by"]) == ("small", 0, 4, "eng@test")
    assert row["owner"] == {"pid": owner.engine.owner.pid, "engine": True, "file": None}
    assert row["limits"]["outgoing_per_node"] == 2
    ran = await beside("queue", "show")
    assert "Works on it  process " in ran.out
    assert "Paused by eng@test" in ran.out


async def test_what_is_not_there(beside: Together) -> None:
    await paused(beside)
    for words in (("show", "nope"), ("cancel", "nope"), ("pause", "nope"), ("move", "nope", "--first")):
        ran = await beside("queue", *words)
        assert (ran.code, ran.out) == (2, "")
        assert (
            "There is nothing nope in the queue of small; see: muster --connect sim://n1/ queue list"
            in ran.err
        )


async def test_the_history_is_asked_of_the_owner(beside: Together) -> None:
    owner = await beside.owner()
    batch = request(owner, "vm.pause", "web-1", "web-2")
    await owner.ended((batch,))
    ran = await beside("queue", "list", "--history", "--json")
    assert {(row["vm"], row["state"]) for row in ran.rows} == {("web-1", "Done"), ("web-2", "Done")}
    ran = await beside("queue", "list", "--history", "1")
    assert len(ran.out.splitlines()) == 2
    titles = ran.out.splitlines()[0].split()
    assert " ".join(titles) == "Operation From → to State Elapsed Ended Asked by Reason"
    assert (ran.code, ran.err) == (0, "")
    assert (await beside("queue", "list", "--history", "0")).code == 2
    assert (await beside("queue", "list", "--history", "--follow")).code == 2


# --- nobody works on it --------------------------------------------------------------------------


async def test_what_a_killed_owner_left_is_listed_and_not_touched(beside: Together) -> None:
    owner = await paused(beside)
    owner.steer(QueueVerb.LIMITS, limits=(("incoming_per_node", 7),))
    assert await owner.stored()
    await owner.close()
    before = beside.cli.state()
    for _ in range(2):
        ran = await beside("queue", "list", "--json")
        assert [(row["vm"], row["state"]) for row in ran.rows] == [
            (name, "Waiting") for name in ("off-1", *WEB)
        ]
    assert "Paused by eng@test" in ran.err
    assert "Nobody works on it: this was left by a program that ended." in ran.err
    assert "muster --connect sim://n1/ engine" in ran.err
    (row,) = (await beside("queue", "show", "--json")).rows
    assert (row["owner"], row["waiting"], row["limits"]["incoming_per_node"]) == (None, 4, 7)
    assert (await beside("queue", "show", "web-2", "--json")).rows[0]["state"] == "Waiting"
    assert beside.cli.state() == before
    again = await beside.owner()
    assert [o.state for o in again.view.operations.values() if o.vm] == [OperationState.WAITING] * 4


async def test_the_history_without_an_owner(beside: Together) -> None:
    owner = await beside.owner()
    batch = request(owner, "vm.pause", "web-1")
    await owner.ended((batch,))
    assert await owner.stored()
    await owner.close()
    ran = await beside("queue", "list", "--history", "--json")
    assert [(row["vm"], row["state"]) for row in ran.rows] == [("web-1", "Done")]
    (row,) = (await beside("queue", "show", ran.rows[0]["id"], "--json")).rows
    assert (row["vm"], row["story"]) == ("web-1", [])


async def test_pausing_without_an_owner_lasts(beside: Together) -> None:
    ran = await beside("queue", "pause", "--json")
    assert (ran.code, ran.rows[0]["paused_by"], ran.rows[0]["owner"]) == (0, "adm@test", None)
    owner = await beside.owner()
    assert owner.view.orders.paused_by == "adm@test"
    request(owner, "vm.start", "off-1")
    assert of(owner, "off-1").state is OperationState.WAITING


@pytest.mark.parametrize("command", ["pause", "resume", "limits outgoing_per_node=4", "cancel web-1"])
async def test_over_a_read_only_connection_nothing_is_steered(beside: Together, command: str) -> None:
    owner = await paused(beside)
    before, orders = dict(owner.view.operations), owner.view.orders
    beside.cli.config = replace(beside.cli.config, read_only=True)
    ran = await beside("queue", *command.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "muster: this connection is read-only. Nothing was changed.\n"
    assert (dict(owner.view.operations), owner.view.orders) == (before, orders)


async def test_resuming_without_an_owner_says_that_nobody_goes_on(beside: Together) -> None:
    owner = await paused(beside)
    assert await owner.stored()
    await owner.close()
    before = beside.cli.state()
    ran = await beside("queue", "resume")
    assert ran.code == 0
    assert "4 VMs wait, and nobody works on them now." in ran.err
    assert "muster --connect sim://n1/ engine" in ran.err
    assert beside.cli.state() == before


async def test_cancelling_what_was_left_starts_nothing_of_it(beside: Together) -> None:
    owner = await paused(beside)
    assert await owner.stored()
    await owner.close()
    journal = beside.cli.journal()  # it was not paused when it was killed
    await journal.commit(
        [
            replace(o, orders=replace(o.orders, paused_by=""))
            for o in await journal.load()
            if o.orders is not None
        ]
    )
    await journal.close()
    ran = await beside("queue", "cancel", "--all", "--yes", "--json")
    assert set(ran.results().values()) == {"done"}, ran.err
    assert beside.cli.vm("off-1").runs is False
    assert (await beside("queue", "list", "--json")).rows == []


# --- steering ------------------------------------------------------------------------------------


async def test_pause_and_resume(beside: Together) -> None:
    owner = await beside.owner()
    ran = await beside("queue", "pause", "--json")
    assert ran.rows[0]["paused_by"] == "adm@test"
    assert owner.view.orders.paused_by == "adm@test"
    assert (await beside("queue", "pause")).code == 0
    request(owner, "vm.start", "off-1")
    ran = await beside("queue", "resume", "--json")
    assert (ran.code, ran.rows[0]["paused_by"], ran.err) == (0, None, "")
    await beside.until(lambda: of(owner, "off-1").state is OperationState.DONE)


async def test_pause_and_resume_of_one_batch(beside: Together) -> None:
    owner = await paused(beside)
    batch = of(owner, "web-1").parent
    ran = await beside("queue", "pause", "web-1", "--json")
    assert ran.rows[0]["paused_batches"] == [batch]
    owner.steer(QueueVerb.RESUME)
    await beside.until(lambda: of(owner, "off-1").is_over)
    assert of(owner, "web-1").state is OperationState.WAITING
    ran = await beside("queue", "list", "--json")
    assert f"Batch {batch} (Live migrate 3 VMs): was paused by adm@test " in ran.err
    assert f"queue resume {batch}" in ran.err
    ran = await beside("queue", "resume", str(batch), "--json")
    assert ran.rows[0]["paused_batches"] == []
    await beside.until(lambda: of(owner, "web-10").is_over)
    ran = await beside("queue", "resume", str(batch))
    assert f"Batch {batch} was not paused; nothing was changed." in ran.err
    ran = await beside("queue", "pause", str(batch))
    assert (ran.code, owner.view.orders.paused_batches) == (0, {})
    assert f"Batch {batch} is over; nothing was changed." in ran.err


async def test_resume_of_a_node(beside: Together) -> None:
    owner = await beside.owner()
    beside.cli.faults.fail_move(text="no space left", times=10)
    for name in WEB:
        batch = request(owner, "vm.live_migrate", name, target="n2")
        await owner.ended((batch,))
    assert dict(owner.view.orders.resting) == {"n2": 3}
    ran = await beside("queue", "list")
    assert "n2 is fed no more: the last 3 moves to it failed. " in ran.err
    assert "queue resume --node n2" in ran.err
    ran = await beside("queue", "resume", "--node", "n2", "--json")
    assert (ran.code, ran.rows[0]["resting"]) == (0, [])
    ran = await beside("queue", "resume", "--node", "n2")
    assert "n2 was not kept from moves; nothing was changed." in ran.err
    ran = await beside("queue", "resume", "--node", "n22")
    assert (ran.code, ran.out) == (2, "")
    assert "There is no node n22 in small. Did you mean n2" in ran.err


async def test_limits(beside: Together) -> None:
    owner = await beside.owner()
    ran = await beside("queue", "limits")
    assert ran.out.splitlines()[:2] == [
        "Limit                 Now  Cluster file  Least     Most",
        "outgoing_per_node       2             2      1       64",
    ]
    ran = await beside("queue", "limits", "outgoing_per_node=5", "saves-per-node=3", "--json")
    assert ran.rows[0] == {"name": "outgoing_per_node", "value": 5, "file": 2, "least": 1, "most": 64}
    assert dict(owner.view.orders.limits) == {"outgoing_per_node": 5, "saves_per_node": 3}
    ran = await beside("queue", "list")
    assert "changed by hand: outgoing_per_node = 5, saves_per_node = 3" in ran.err


@pytest.mark.parametrize(
    "given", ["outgoing_per_node=0", "nope=1", "outgoing_per_node=two", "5", "cluster_limit=-1"]
)
async def test_limits_that_cannot_be(beside: Together, given: str) -> None:
    owner = await beside.owner()
    ran = await beside("queue", "limits", "incoming_per_node=4", given)
    assert (ran.code, ran.out) == (2, "")
    assert given.partition("=")[0] in ran.err
    assert owner.view.orders.limits == ()


async def test_move_within_one_priority(beside: Together) -> None:
    await paused(beside)

    async def names() -> list[str]:
        return [row["vm"] for row in (await beside("queue", "list", "--json")).rows]

    ran = await beside("queue", "move", "web-10", "--first", "--json")
    assert [(row["vm"], row["place"]) for row in ran.rows] == [("web-10", 2)]
    assert await names() == ["off-1", "web-10", "web-1", "web-2"]
    ran = await beside("queue", "move", "web-2", "--before", "web-1")
    assert ran.out.splitlines()[1].split()[:4] == ["3", "Live", "migrate", "web-2"]
    assert await names() == ["off-1", "web-10", "web-2", "web-1"]
    assert (await beside("queue", "move", "off-1", "web-1", "--first")).code == 0
    assert await names() == ["off-1", "web-1", "web-10", "web-2"]


async def test_moves_that_are_refused(beside: Together) -> None:
    owner = await paused(beside)
    ran = await beside("queue", "move", "web-1", "--before", "off-1")
    assert (ran.code, ran.out) == (2, "")
    assert "another priority" in ran.err
    for words in (("web-1",), ("web-1", "--first", "--before", "web-2"), ("--first",)):
        assert (await beside("queue", "move", *words)).code == 2
    batch = str(of(owner, "web-1").parent)
    ran = await beside("queue", "move", batch, "--first")
    assert (ran.code, f"{batch} has no place in the queue" in ran.err) == (2, True)


async def test_cancel_by_name_by_id_and_by_batch(beside: Together) -> None:
    owner = await paused(beside)
    ran = await beside("queue", "cancel", "web-1", of(owner, "off-1").id, "--json")
    assert ran.rows == [
        {
            "uuid": beside.cli.vm(name).id,
            "vm": name,
            "result": "done",
            "reason": f"cancelled by adm@test; it is {status} on n1",
        }
        for name, status in (("web-1", "running"), ("off-1", "off"))
    ]
    assert ran.code == 0
    ended = of(owner, "web-1").id
    ran = await beside("queue", "cancel", ended, "--json")
    assert (ran.code, ran.rows[0]["result"], ran.rows[0]["reason"]) == (0, "done", "nothing is under way")
    ran = await beside("queue", "cancel", "--batch", "web-2", "--json")
    assert ran.results() == {"web-2": "done", "web-10": "done"}
    assert (await beside("queue", "list", "--json")).rows == []


async def test_cancel_of_what_runs(beside: Together) -> None:
    owner = await beside.owner()
    for name in ("web-1", "web-2"):
        beside.cli.faults.dirty_memory(name, 4000.0)
    request(owner, "vm.live_migrate", "web-1", "web-2", target="n2")
    await beside.until(lambda: len(owner.view.progress) == 2)
    ran = await beside("queue", "cancel", "--all", "--json")
    assert ran.results() == {"web-1": "done", "web-2": "done"}
    assert {row["reason"] for row in ran.rows} == {"cancelled by adm@test; it is running on n1"}
    assert beside.cli.vm("web-1").node.id == "n1"


async def test_cancel_of_what_cannot_be_cancelled(beside: Together) -> None:
    owner = await beside.owner()
    beside.cli.faults.hang_call("n1", "change_vm", acts=True)
    request(owner, "vm.start", "off-1")
    await beside.until(lambda: of(owner, "off-1").state is OperationState.RUNNING)
    ran = await beside("queue", "cancel", "off-1", "--json")
    assert (ran.code, ran.results()) == (1, {"off-1": "skipped"})
    assert ran.rows[0]["reason"] == "not possible while starting"


async def test_cancel_needs_to_know_what(beside: Together) -> None:
    for words in ((), ("--all", "web-1"), ("--all", "--batch", "x"), ("--all", "--wait", "1", "--no-wait")):
        ran = await beside("queue", "cancel", *words)
        assert (ran.code, ran.out) == (2, "")
    ran = await beside("queue", "cancel", "--all", "--json")
    assert (ran.code, ran.rows) == (0, [])


# --- following -----------------------------------------------------------------------------------


async def test_follow_tells_each_change_as_a_line(beside: Together) -> None:
    owner = await paused(beside)
    task, out, _ = beside.start("queue", "list", "--follow", "--json")
    await beside.until(lambda: len(out.getvalue().splitlines()) == 4)
    owner.steer(QueueVerb.RESUME)
    await beside.until(lambda: all(o.is_over for o in owner.view.operations.values() if o.vm))
    await beside.until(lambda: [r["state"] for r in lines(out.getvalue())].count("Done") == 4)
    beside.cli.faults.backup_by_someone_else("db-1", 5.0)
    await beside.until(lambda: '"vm": "db-1"' in out.getvalue())
    await beside.until(lambda: [r["state"] for r in lines(out.getvalue()) if r["vm"] == "db-1"][-1] == "Done")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    told = lines(out.getvalue())
    assert all(set(row) == set(FIELDS[Kind.OPERATION]) for row in told)
    states = [row["state"] for row in told if row["vm"] == "web-1"]
    assert states[0] == "Waiting"
    assert states[-1] == "Done"
    percents = [row["percent"] for row in told if row["vm"] == "web-1" and row["percent"] is not None]
    assert percents == sorted(percents)


async def test_follow_in_plain_lines(beside: Together) -> None:
    owner = await paused(beside)
    task, out, err = beside.start("queue", "list", "--follow")
    await beside.until(lambda: "web-10" in out.getvalue())
    owner.steer(QueueVerb.RESUME)
    await beside.until(lambda: "Live migrate web-10, n1 → n2: Done; runs on n2" in out.getvalue())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "Paused by eng@test" in err.getvalue()
    assert "Start off-1, n1: Waiting; the queue was paused by eng@test" in out.getvalue()


async def test_follow_of_an_action(beside: Together) -> None:
    ran = await beside("vm", "migrate", "web-1", "off-1", "--to", "n2", "--follow", "--json")
    *progress, web, off = lines(ran.out)
    assert (web["vm"], web["result"], web["reason"]) == ("web-1", "done", "runs on n2")
    assert set(web) == {"uuid", "vm", "result", "reason"}
    assert (off["vm"], off["result"]) == ("off-1", "skipped")
    assert {row["vm"] for row in progress} == {"web-1"}
    assert progress[-1]["state"] == "Done"
    assert ran.code == 1


async def test_follow_of_an_action_in_words(beside: Together) -> None:
    ran = await beside("vm", "pause", "web-1", "--follow")
    assert ran.out == golden("""
        VM     Result  Reason
        web-1  done    paused on n1
        """)
    assert "Pause web-1, n1: Done" in ran.err
    for words in (("--no-wait",), ("--what-if",)):
        assert (await beside("vm", "pause", "web-1", "--follow", *words)).code == 2

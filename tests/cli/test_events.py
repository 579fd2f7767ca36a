"""``muster events``, ``what-happened`` and ``problems``: alone, and beside an owner of the operations."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import click
import pytest

from manager.cli.options import Since, Span, span_s
from manager.core.actions import ACTIONS
from manager.core.model import StatusCause, VmStatus
from manager.services.runtime import Runtime
from tests.cli.support import Cli
from tests.cli.together import Together

LONG = ("--since", "10000d")
"""The test's clock is not the machine's."""


async def start_off(owner: Runtime, name: str = "web-1") -> None:
    """Something happens: a VM is turned off and started again."""
    vm = next(vm.id for vm in owner.view.vms.values() if vm.name == name)
    for action in ("vm.turn_off", "vm.start"):
        await owner.ended(owner.request(ACTIONS[action].plan(owner.view, [vm])))


def crash(cli: Cli, *names: str) -> None:
    for name in names:
        cli.world.kill(cli.vm(name), VmStatus.CRASHED, StatusCause.CRASHED)


async def test_events_of_the_owner_are_told_with_who_and_whence(beside: Together) -> None:
    owner = await beside.owner()
    await start_off(owner)
    rows = (await beside("events", *LONG, "--vm", "web-1", "--json")).rows
    texts = [row["text"] for row in rows]
    order = ["Asked: turn off web-1", "Begun: turn off web-1", "Done: turn off web-1", "Asked: start web-1"]
    assert [text for text in texts if text in order] == order
    asked = rows[texts.index("Asked: turn off web-1")]
    assert (asked["who"], asked["source"], asked["level"]) == ("eng@test", "test", "information")
    off = next(row for row in rows if row["code"] == "vm-stopped")
    assert off["source"] == f"libvirt on {off['node']}"
    assert off["who"] == "eng@test"
    shown = await beside("events", *LONG, "--level", "error")
    assert "web-1" not in shown.out
    assert shown.out.startswith("Time")


async def test_events_outlive_their_owner_in_the_journal(beside: Together) -> None:
    owner = await beside.owner()
    await start_off(owner)
    before = (await beside("events", *LONG, "--json")).rows
    assert before
    await owner.close()
    assert (await beside("events", *LONG, "--json")).rows == before
    told = await beside("what-happened", "web-1", *LONG)
    assert "VM web-1: Done: start web-1  (by eng@test)" in told.out
    assert "connected" in told.out  # of its node
    node = await beside("what-happened", before[0]["node"], *LONG)
    assert f"Node {before[0]['node']}: connected" in node.out


async def test_names_that_nobody_knows(beside: Together) -> None:
    owner = await beside.owner()
    await start_off(owner)
    ran = await beside("events", *LONG, "--vm", "web-11")
    assert ran.code == 0
    assert "Nothing is recorded of a VM web-11. Did you mean web-1?" in ran.err
    assert (await beside("events", "--node", "nn")).code == 2
    ran = await beside("what-happened", "web-11", *LONG)
    assert ran.code == 2
    assert "Did you mean" in ran.err
    assert (await beside("events", "--vm", "a", "--node", "b")).code == 2
    assert (await beside("events", "--since", "soon")).code == 2


async def test_events_are_chosen_sorted_and_grouped_by_the_language_of_all_lists(beside: Together) -> None:
    owner = await beside.owner()
    await start_off(owner)
    every = (await beside("events", *LONG, "--json")).rows
    chosen = (await beside("events", *LONG, "--where", 'vm:web-1 text:"turn off"', "--json")).rows
    assert chosen
    assert chosen == [r for r in every if r["vm"] == "web-1" and "turn off" in r["text"].lower()]
    newest = (await beside("events", *LONG, "--sort", "-time", "--columns", "time,text", "--json")).rows
    times = [row["time"] for row in newest]
    assert times == sorted(times, reverse=True)
    assert set(newest[0]) == {"time", "text"}
    groups = (await beside("events", *LONG, "--group-by", "node", "--json")).rows
    assert sum(len(group["rows"]) for group in groups) >= len(every)
    assert all(len({row["node"] for row in group["rows"]}) == 1 for group in groups)
    assert len({group["rows"][0]["node"] for group in groups}) == len(groups) > 1
    wrong = await beside("events", "--where", "levl:error")
    assert wrong.code == 2
    assert "Events have no field levl. Did you mean level?" in wrong.err
    assert (await beside("events", "--sort", "tme")).code == 2
    assert (await beside("events", "--follow", "--sort", "time")).code == 2
    assert "web-1" not in (await beside("events", *LONG, "--where", "not web-1")).out


async def test_a_view_of_events_is_shown_and_narrowed(beside: Together) -> None:
    owner = await beside.owner()
    await start_off(owner)
    crash(beside.cli, "db-1")
    await beside.until(lambda: any(e.level.word != "information" for e in owner.view.events.values()))
    every = (await beside("events", *LONG, "--json")).rows
    errors = (await beside("events", *LONG, "--view", "warnings and errors", "--json")).rows
    assert errors
    assert all(row["level"] != "information" for row in errors)
    assert all(row in errors for row in every if row["level"] != "information")
    saved = await beside(
        *("view", "save", "Of web-1", "--kind", "event"),
        *("--where", "vm:web-1", "--columns", "text,time", "--sort", "-time"),
    )
    assert saved.code == 0, saved.err
    rows = (await beside("events", *LONG, "--view", "Of web-1", "--where", "Done", "--json")).rows
    assert [row["text"] for row in rows] == ["Done: start web-1", "Done: turn off web-1"]
    assert list(rows[0]) == ["text", "time"]


async def test_a_query_also_chooses_what_is_followed(beside: Together) -> None:
    owner = await beside.owner()
    task, out, _ = beside.start("events", "--follow", "--json", "--where", "Done", *LONG)
    await beside.until(lambda: owner.engine._clients)
    await start_off(owner)
    await beside.until(lambda: "Done: start web-1" in out.getvalue())
    task.cancel()
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["text"] for row in rows] == ["Done: turn off web-1", "Done: start web-1"]


async def test_problems_are_chosen_and_the_exit_code_is_that_of_those(beside: Together) -> None:
    crash(beside.cli, "db-1", "web-2")
    await beside.owner()
    every = (await beside("problems", "--json")).rows
    assert len(every) >= 2
    of_db = await beside("problems", "--where", "subject:db-1", "--json")
    assert of_db.code == 2
    assert [row["key"] for row in of_db.rows] == [row["key"] for row in every if "db-1" in row["subject"]]
    none = await beside("problems", "--where", "subject:nobody")
    assert (none.code, none.out, none.err) == (0, "", "muster: no such problems.\n")
    assert (await beside("problems", "--where", "subject:nobody", "--plugin")).out.startswith(
        "MUSTER OK - 0 new"
    )
    for key in [row["key"] for row in of_db.rows]:
        await beside("problems", "acknowledge", key)
    new = (await beside("problems", "--view", "new", "--columns", "key", "--json")).rows
    assert {row["key"] for row in new} == {row["key"] for row in every} - {r["key"] for r in of_db.rows}
    by_state = (await beside("problems", "--group-by", "state", "--sort", "-state", "--json")).rows
    assert [len(group["rows"]) for group in by_state] == [len(of_db.rows), len(new)]
    unknown = await beside("problems", "--plugin", "--where", "subjct:x")
    assert unknown.code == 3
    assert unknown.out.startswith("MUSTER UNKNOWN - ")


async def test_events_are_followed_live(beside: Together) -> None:
    owner = await beside.owner()
    task, out, _ = beside.start("events", "--follow", "--json", "--vm", "web-1", *LONG)
    await beside.until(lambda: owner.engine._clients)
    await start_off(owner)
    await beside.until(lambda: "Done: start web-1" in out.getvalue())
    task.cancel()
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    codes = [row["code"] for row in rows]
    assert codes.index("vm-stopped") < codes.index("vm-started")
    assert len({row["time"] + row["text"] for row in rows}) == len(rows)


async def test_a_problem_is_acknowledged_through_the_owner_and_stays_so(beside: Together) -> None:
    crash(beside.cli, "db-1", "web-2")
    owner = await beside.owner()
    ran = await beside("problems", "--json")
    assert ran.code == 2
    row = ran.rows[0]
    assert row["state"] == "new"
    name = row["subject"].removeprefix("VM ")
    said = await beside("problems", "acknowledge", name, "--note", "new disk ordered")
    assert said.code == 0
    assert said.out == f"VM {name}: acknowledged adm@test: new disk ordered\n"
    assert owner.view.problems[row["key"]].life is not None
    assert not owner.view.problems[row["key"]].is_new(owner.view.now_s)
    for other in ran.rows[1:]:
        assert (await beside("problems", "mute", other["key"], "--until", "2100-01-01")).code == 0
    shown = await beside("problems")
    assert shown.code == 0
    assert "new disk ordered" in shown.out
    line, *rest = (await beside("problems", "--plugin")).out.splitlines()
    assert line.startswith("MUSTER OK - 0 new problems, ")
    assert " | new=0 known=" in line
    assert len(rest) == len(ran.rows)
    await owner.close()
    kept = {r["key"]: r for r in (await beside("problems", "--json")).rows}  # from the journal
    assert kept[row["key"]]["state"] == "acknowledged"
    assert kept[row["key"]]["note"] == "adm@test: new disk ordered"
    reopened = await beside("problems", "reopen", row["key"])  # by a command that becomes the owner itself
    assert reopened.code == 0
    again = await beside("problems", "--plugin")
    assert again.code == 2
    assert again.out.startswith("MUSTER CRITICAL - 1 new problem, ")


def test_problems_as_a_plugin_without_any_node(muster: Cli) -> None:
    ran = muster.bare("--cluster", "nope", "problems", "--plugin")
    assert ran.code == 3
    assert ran.out.startswith("MUSTER UNKNOWN - There is no cluster")


def test_what_is_wrongly_said_of_problems(muster: Cli) -> None:
    assert muster("problems", "acknowledge", "web-l").code == 2
    assert "Nothing was changed" in muster("problems", "acknowledge", "web-l").err
    assert muster("problems", "mute", "x").code == 2
    assert muster("problems", "mute", "x", "--for", "2h", "--until", "2100-01-01").code == 2
    assert muster("problems", "mute", "x", "--until", "2000-01-01").code == 2
    crash(muster, "db-1")
    key = muster("problems", "--json").rows[0]["key"]
    assert "one line" in muster("problems", "acknowledge", key, "--note", "a\nb").err
    assert muster("problems").code == 2  # CRITICAL


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30min", 1800), ("5m", 300), ("2h", 7200), ("1d 12h", 129_600), ("1w", 604_800)],
)
def test_times(text: str, seconds: float) -> None:
    assert span_s(text) == seconds
    assert Span().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2x", "-2h", "0s", "2h x", "9" * 20 + "d"])
def test_what_is_no_time(text: str) -> None:
    assert span_s(text) is None
    with pytest.raises(click.BadParameter, match="needs a time"):
        Span().convert(text, None, None)


def test_moments() -> None:
    now = datetime.now().astimezone()
    since = Since()
    assert timedelta(hours=2) <= now - since.convert("2h", None, None) + timedelta(seconds=2)
    later = (now + timedelta(minutes=2)).strftime("%H:%M")
    assert since.convert(later, None, None) <= now  # of yesterday
    assert since.convert("2026-03-01T02:00", None, None).astimezone().hour == 2
    with pytest.raises(click.BadParameter, match="a time of day"):
        since.convert("yesterday-ish", None, None)

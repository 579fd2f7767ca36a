"""Problems and their lives: one per cause, counted, acknowledged, muted, over restarts and processes."""

from __future__ import annotations

import pytest

from manager.core import events as ev
from manager.core.ids import Kind, NodeId
from manager.core.model import Problem, ProblemLife, StatusCause
from manager.core.query.fields import FIELDS
from manager.core.reasons import ReasonCode
from tests.core.support import CRASHED, PAUSED, REFUSED, Cluster, R, uuid

N1 = NodeId("n1")
KEY = f"vm:{uuid('a')}"


def owner(cluster: Cluster, *lives: ProblemLife) -> Cluster:
    cluster.feed(ev.OwnershipTaken(at_s=cluster.later(), lives=lives))
    return cluster


@pytest.fixture
def cluster() -> Cluster:
    cluster = owner(Cluster())
    cluster.add("n1", "a")
    cluster.become("n1", "a", CRASHED, StatusCause.CRASHED)
    return cluster


def say(cluster: Cluster, verb: ev.ProblemVerb, key: str = KEY, **what: object) -> None:
    event = ev.ProblemsMarked(at_s=cluster.later(), verb=verb, keys=(key,), author="bea@pc", **what)  # type: ignore[arg-type]
    cluster.feed(event)


def problem(cluster: Cluster, key: str = KEY) -> Problem:
    return cluster.state.problems[key]


def cell(cluster: Cluster, name: str, key: str = KEY) -> str:
    return FIELDS[Kind.PROBLEM][name].cell(cluster.state, problem(cluster, key))


def is_new(cluster: Cluster, key: str = KEY) -> bool:
    return problem(cluster, key).is_new(cluster.state.now_s)


def test_a_problem_is_new_until_it_is_acknowledged_and_stays_visible(cluster: Cluster) -> None:
    assert is_new(cluster)
    cluster.changes[Kind.PROBLEM].updated.clear()
    cluster.changes[Kind.PROBLEM].added.clear()
    say(cluster, ev.ProblemVerb.ACKNOWLEDGE, note="disk is on its way")
    assert not is_new(cluster)
    assert cell(cluster, "state") == "acknowledged"
    assert cell(cluster, "note") == "bea@pc: disk is on its way"
    assert cluster.changes[Kind.PROBLEM].updated[KEY] == {"life"}
    last = list(cluster.state.events.values())[-1]
    assert last.text.startswith("Problem acknowledged (disk is on its way): crashed ")
    assert (last.who, last.vm_name, last.problem) == ("bea@pc", "a", KEY)
    say(cluster, ev.ProblemVerb.REOPEN)
    assert is_new(cluster)
    assert cell(cluster, "note") == ""


def test_it_ends_as_an_event_and_comes_again_as_new(cluster: Cluster) -> None:
    say(cluster, ev.ProblemVerb.ACKNOWLEDGE)
    first_s = problem(cluster).since_s
    cluster.become("n1", "a", R, StatusCause.BOOTED)
    assert KEY not in cluster.state.problems
    assert cluster.state.lives[KEY].ended
    assert any(e.what.code is ReasonCode.PROBLEM_ENDED for e in cluster.state.events.values())
    cluster.wait(3600)
    cluster.become("n1", "a", CRASHED, StatusCause.CRASHED)
    assert is_new(cluster)
    assert cell(cluster, "times") == "2"
    life = problem(cluster).life
    assert life is not None
    assert life.first_s == first_s
    assert life.since_s - first_s > 3600


def test_another_cause_is_another_problem(cluster: Cluster) -> None:
    say(cluster, ev.ProblemVerb.ACKNOWLEDGE)
    cluster.become("n1", "a", PAUSED, StatusCause.IO_ERROR)
    assert is_new(cluster)
    assert cell(cluster, "times") == "1"
    say(cluster, ev.ProblemVerb.ACKNOWLEDGE)
    cluster.become("n1", "a", PAUSED, StatusCause.WATCHDOG)
    assert is_new(cluster)


def test_muted_for_a_time_also_when_it_comes_again(cluster: Cluster) -> None:
    say(cluster, ev.ProblemVerb.MUTE, until_s=cluster.now + 7200)
    cluster.become("n1", "a", R, StatusCause.BOOTED)
    cluster.become("n1", "a", CRASHED, StatusCause.CRASHED)
    assert not is_new(cluster)
    assert cell(cluster, "state") == "muted"
    assert "by bea@pc" in cell(cluster, "note")
    cluster.changes[Kind.PROBLEM].updated.clear()
    cluster.wait(7300)
    assert is_new(cluster)
    assert KEY in {*cluster.changes[Kind.PROBLEM].updated, *cluster.changes[Kind.PROBLEM].added}
    say(cluster, ev.ProblemVerb.MUTE, until_s=cluster.now + 7200)
    say(cluster, ev.ProblemVerb.UNMUTE)
    assert is_new(cluster)


def test_an_acknowledgement_survives_a_restart_though_the_words_differ(cluster: Cluster) -> None:
    cluster.lose("n2")
    cluster.wait(61)
    say(cluster, ev.ProblemVerb.ACKNOWLEDGE, "node:n2", note="known")
    say(cluster, ev.ProblemVerb.ACKNOWLEDGE)
    lives = tuple(cluster.state.lives.values())

    again = Cluster(up=False)
    again.hosts, again.now = cluster.hosts, cluster.now + 60
    owner(again, *lives)
    again.connect("n1")
    failure = ev.NodeConnectFailed(
        at_s=again.later(), node=NodeId("n2"), failure=REFUSED, retry_at_s=again.now + 5
    )
    again.feed(failure)
    again.wait(61)
    assert problem(again, "node:n2").reason.code is not problem(cluster, "node:n2").reason.code
    assert not is_new(again, "node:n2")
    assert not is_new(again)
    assert problem(again).reason.code is ReasonCode.CRASHED_BEFORE
    assert problem(again).since_s == problem(cluster).since_s
    assert not any(e.what.code is ReasonCode.PROBLEM_BEGAN for e in again.state.events.values())
    again.connect("n2")
    assert again.state.lives["node:n2"].ended


def test_what_ended_while_nobody_looked_ends_when_it_is_seen(cluster: Cluster) -> None:
    lives = tuple(cluster.state.lives.values())
    cluster.become("n1", "a", R, StatusCause.BOOTED)
    again = Cluster(up=False)
    again.hosts, again.now = cluster.hosts, cluster.now
    owner(again, *lives)
    again.connect("n1")
    assert again.state.lives[KEY].ended
    assert any(e.what.code is ReasonCode.PROBLEM_ENDED for e in again.state.events.values())


def test_a_vm_on_a_lost_node_has_not_recovered(cluster: Cluster) -> None:
    say(cluster, ev.ProblemVerb.ACKNOWLEDGE)
    cluster.lose("n1")
    assert KEY not in cluster.state.problems  # the node is the problem
    assert not cluster.state.lives[KEY].ended
    cluster.connect("n1")
    assert not is_new(cluster)
    assert cell(cluster, "times") == "1"


def test_another_process_is_told_and_counts_nothing_itself(cluster: Cluster) -> None:
    say(cluster, ev.ProblemVerb.ACKNOWLEDGE, note="known")
    mine = Cluster()
    mine.add("n1", "a", CRASHED)
    assert is_new(mine)
    assert not mine.state.lives
    mine.feed(ev.EventsTold(at_s=mine.later(), lives=tuple(cluster.state.lives.values())))
    assert not is_new(mine)
    assert cell(mine, "note") == "bea@pc: known"
    mine.become("n1", "a", R)
    assert not mine.state.lives[KEY].ended  # its owner will say so


def test_what_is_no_problem_cannot_be_acknowledged(cluster: Cluster) -> None:
    before = len(cluster.state.events)
    for key in ("vm:none", "node:n1"):
        say(cluster, ev.ProblemVerb.ACKNOWLEDGE, key)
    assert len(cluster.state.events) == before


def test_a_notice_of_an_earlier_run_ended_with_it() -> None:
    life = ProblemLife(key="notice:journal-0", cause="journal-notice", first_s=1, since_s=1, last_s=1)
    cluster = owner(Cluster(), life)
    assert cluster.state.lives["notice:journal-0"].ended


def test_lives_that_change_are_to_be_written_down(cluster: Cluster) -> None:
    event = ev.ProblemsMarked(
        at_s=cluster.later(), verb=ev.ProblemVerb.ACKNOWLEDGE, keys=(KEY,), author="bea@pc"
    )
    outcome = cluster.feed(event)
    assert [life.key for life in outcome.lives] == [KEY]
    assert cluster.feed(ev.TimerFired(at_s=cluster.later(), key="mute:none")).lives == ()

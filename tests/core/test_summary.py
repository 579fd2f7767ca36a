"""The queue as people read it: order, places, how far a batch is, jobs of others, moves per node."""

from __future__ import annotations

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core import units
from manager.core.errors import Failure, FailureCode
from manager.core.ids import Kind, NodeId
from manager.core.migration import summary
from manager.core.migration.summary import others_id, others_jobs, place, queue_order
from manager.core.model import Activity, MigrationLimits, Priority
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.fields import FIELDS
from tests.core.support import Cluster, cluster_config, definition, uuid

BUSY = Failure(code=FailureCode.BUSY, text="cannot acquire state change lock")
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")


@pytest.fixture
def cluster() -> Cluster:
    """Six VMs on n1, each smaller than the last, two of them High, that are to move to n2, two at a time."""
    cluster = Cluster(cluster_config(migration=MigrationLimits()))
    for number in range(6):
        priority = Priority.HIGH if number in (4, 5) else Priority.MEDIUM
        cluster.add("n1", f"a{number}", config=definition(1024 * (6 - number), priority))
    cluster.ask("vm.live_migrate", *[f"a{n}" for n in range(6)], target=N2)
    return cluster


def progress(cluster: Cluster, name: str, done: float, *, dirty: int = 0, iteration: int = 1) -> None:
    """Figures of a move."""
    operation = cluster.operation(name)
    cluster.feed(
        ev.MigrationProgress(
            at_s=cluster.later(1),
            operation=operation.id,
            attempt=operation.attempt,
            elapsed_ms=round((cluster.now - (operation.started_s or 0)) * 1000),
            total_bytes=1000,
            remaining_bytes=round(1000 * (1 - done)),
            rate_bytes_per_s=100,
            dirty_bytes_per_s=dirty,
            iteration=iteration,
        )
    )


def start(cluster: Cluster, name: str) -> fx.StartMigration:
    """Its login was checked: it begins."""
    cluster.answer(cluster.take(fx.CheckPeerLogin, name))
    return cluster.take(fx.StartMigration, name)


def finish(cluster: Cluster, name: str) -> None:
    """It arrives; what waits is let go as far as its login check."""
    cluster.answer(start(cluster, name))
    cluster.settle_moves()


def of(cluster: Cluster, name: str) -> Operation:
    return cluster.operation(name)


def test_places_are_those_of_the_whole_queue_and_follow_it(cluster: Cluster) -> None:
    def places() -> list[int | None]:
        return [place(cluster.state, of(cluster, f"a{n}")) for n in range(6)]

    # The two High ones are let go first; of the others the largest.
    assert places() == [3, 4, 5, 6, 1, 2]
    cluster.steer(ev.QueueVerb.REORDER, operations=(of(cluster, "a3").id,), before=of(cluster, "a0").id)
    assert places() == [4, 5, 6, 3, 1, 2]
    finish(cluster, "a4")
    assert places() == [3, 4, 5, 2, None, 1]


def test_a_place_is_no_text_that_is_kept(cluster: Cluster) -> None:
    spec = FIELDS[Kind.OPERATION]["place"]
    assert spec.volatile
    assert spec.cell(cluster.state, of(cluster, "a0")) == "3"
    cluster.cancel("a4")
    assert spec.cell(cluster.state, of(cluster, "a4")) == ""


def test_the_order_is_what_runs_then_what_waits_then_what_ended_last(cluster: Cluster) -> None:
    finish(cluster, "a4")
    cluster.cancel("a3")
    operations = [o for o in cluster.state.operations.values() if o.vm]
    names = [o.vm_name for o in sorted(operations, key=queue_order)]
    assert names == ["a5", "a0", "a1", "a2", "a3", "a4"]


def test_a_batch_is_as_far_as_the_memory_of_its_vms(cluster: Cluster) -> None:
    batch = of(cluster, "a0").parent
    assert batch is not None
    found = summary.summary(cluster.state, cluster.children(batch))
    assert (found.total, found.running, found.waiting, found.share) == (6, 2, 4, 0.0)
    assert found.text == "0 of 6 moved · 2 running · 4 waiting"
    finish(cluster, "a4")  # 2 GiB, of 21 GiB together
    found = summary.summary(cluster.state, cluster.children(batch))
    assert found.share == pytest.approx(2 / 21)
    assert found.done == 1
    start(cluster, "a5")
    progress(cluster, "a5", 0.5)  # half of 1 GiB
    found = summary.summary(cluster.state, cluster.children(batch))
    assert found.share == pytest.approx(2.5 / 21)


def test_how_long_it_takes_is_told_when_it_can_be_told(cluster: Cluster) -> None:
    batch = of(cluster, "a0").parent
    assert batch is not None
    start(cluster, "a5")
    cluster.later(20)
    progress(cluster, "a5", 0.5)

    def left() -> float | None:
        assert batch is not None
        return summary.summary(cluster.state, cluster.children(batch)).left_s

    spent_s = cluster.state.now_s - min(
        o.started_s for o in cluster.children(batch) if o.started_s is not None
    )
    assert left() == pytest.approx(20.5 * spent_s / 0.5)
    assert " min left" in summary.summary(cluster.state, cluster.children(batch)).text
    cluster.steer(ev.QueueVerb.PAUSE)
    assert left() is None  # the rest waits for a word
    cluster.steer(ev.QueueVerb.RESUME)
    assert left() is not None
    for _ in range(8):
        progress(cluster, "a5", 0.5, dirty=100, iteration=4)
    found = summary.summary(cluster.state, cluster.children(batch))
    assert found.stuck == 1
    assert found.left_s is None  # nobody knows
    assert found.text == "0 of 6 moved · 2 running · 1 not converging · 4 waiting"


@pytest.mark.parametrize(
    ("seconds", "text"), [(2, "5 s"), (42, "40 s"), (61, "1 min"), (360, "6 min"), (7300, "2 h")]
)
def test_a_guess_is_told_in_one_unit(seconds: float, text: str) -> None:
    assert summary.about_text(seconds) == text


def test_jobs_of_others_are_rows(cluster: Cluster) -> None:
    cluster.add("n3", "b")
    cluster.feed(
        ev.ForeignJobSeen(
            at_s=cluster.later(), node=N3, vm=uuid("b"), active=True, migration=False, what="backup"
        )
    )
    began_s = cluster.now
    assert cluster.vm("b").activity is Activity.FOREIGN_JOB
    (row,) = others_jobs(cluster.state).values()
    assert (row.id, row.vm_name, row.source, row.author) == (others_id(uuid("b")), "b", N3, "other")
    assert row.started_s == began_s
    assert row.kind is OperationKind.CHANGE

    def cell(name: str) -> str:
        return FIELDS[Kind.OPERATION][name].cell(cluster.state, row)

    assert cell("phase") == "Backup"
    assert cell("way") == "n3"
    assert cell("reason") == f"backup by someone else since {units.time_text(began_s)}"
    assert cell("place") == ""
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N3, vm=uuid("b"), active=False))
    assert others_jobs(cluster.state) == {}


def test_a_nodes_moves_count_those_of_anyone(cluster: Cluster) -> None:
    def moves(node: NodeId) -> tuple[str, object]:
        spec, row = FIELDS[Kind.NODE]["moves"], cluster.state.nodes[node]
        return spec.cell(cluster.state, row), spec.as_json(cluster.state, row)

    assert moves(N1) == ("⇄ 2 out", {"out": 2, "in": 0})
    assert moves(N2) == ("⇄ 2 in", {"out": 0, "in": 2})
    assert moves(N3) == ("", None)
    cluster.add("n2", "b")
    cluster.feed(ev.ForeignJobSeen(at_s=cluster.later(), node=N2, vm=uuid("b"), active=True))
    assert moves(N2)[0] == "⇄ 1 out, 2 in"
    cluster.changes = type(cluster.changes)()
    finish(cluster, "a4")
    told = cluster.changes[Kind.NODE].updated
    assert all("moving" in told[node] for node in (N1, N2))


def test_the_words_of_a_row(cluster: Cluster) -> None:
    def cell(name: str, field: str) -> str:
        return FIELDS[Kind.OPERATION][field].cell(cluster.state, of(cluster, name))

    assert cell("a0", "way") == "n1 → n2"
    assert cell("a0", "phase") == "Waiting"
    assert cell("a0", "attempt") == ""
    assert cell("a0", "reason") == "n1 gives 2 of 2 outgoing moves; next in line"
    begun = start(cluster, "a5")
    assert cell("a5", "phase") == "Target prepares"
    for _ in range(8):
        progress(cluster, "a5", 0.9, dirty=100, iteration=4)
    assert cell("a5", "phase") == "Not converging"
    assert "raises the permitted pause to 500 ms" in cell("a5", "reason")
    assert cell("a5", "attempt") == "1"
    cluster.answer(begun, BUSY)
    cluster.reads()
    assert of(cluster, "a5").state is OperationState.WAITING, of(cluster, "a5").reason
    assert cell("a5", "phase") == "Retry 1 of 3"
    assert "retry 1 of 3 at" in cell("a5", "reason")


def test_the_steps_of_other_moves_are_phases() -> None:
    cluster = Cluster()
    cluster.add("n1", "a")
    cluster.ask("vm.turn_off_and_move", "a", target=N2)
    seen = []
    for _ in range(20):
        operation = of(cluster, "a")
        text = FIELDS[Kind.OPERATION]["phase"].cell(cluster.state, operation)
        if text not in seen[-1:]:
            seen.append(text)
        if not cluster.pending:
            break
        cluster.answer(cluster.pending[0])
    assert [s for s in seen if s not in ("Checking", "Waiting")] == [
        "Turning off",
        "Defining there",
        "Starting there",
        "Clearing up",
        "Done",
    ]
    assert FIELDS[Kind.OPERATION]["attempt"].cell(cluster.state, of(cluster, "a")) == "1"

"""The order of the queue over random work and random ends, watched by someone who counts for himself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from manager.core.ids import NodeId, OperationId
from manager.core.migration.order import QueueOrder

MOST = 16
NODES = ("a", "b", "c")


@dataclass(frozen=True)
class Job:
    """A move; `chosen` is where it goes if no target is given."""

    id: OperationId
    order: int
    priority: int
    memory_mib: int
    source: NodeId
    target: NodeId | None
    chosen: NodeId
    arrives: int
    rank: float | None = None
    created_s: float = 0.0

    @property
    def age(self) -> tuple[float, int]:
        return (self.created_s, self.order)

    @property
    def to(self) -> NodeId:
        return self.target or self.chosen


@dataclass(frozen=True)
class Limits:
    """0 means none."""

    outgoing: int
    incoming: int
    cluster: int


ways = st.sampled_from([(s, t) for s in NODES for t in NODES if s != t])


@st.composite
def jobs(draw: st.DrawFn, most: int = 30) -> list[Job]:
    """Work of all priorities that comes in over 30 looks; few nodes, so that all of it meets."""
    found = []
    for number in range(draw(st.integers(1, most))):
        source, target = draw(ways)
        found.append(
            Job(
                id=OperationId(f"j{number:02d}"),
                order=number,
                priority=draw(st.sampled_from((2000, 2000, 3000, 1000))),
                memory_mib=draw(st.integers(1, 4)),
                source=NodeId(source),
                target=draw(st.sampled_from((NodeId(target), NodeId(target), None))),
                chosen=NodeId(target),
                arrives=draw(st.integers(0, 30)) if number % 2 else 0,
                rank=draw(st.sampled_from((None,) * 7 + (1.0, 2.0, 2.5))),
            )
        )
    return found


@st.composite
def crowds(draw: st.DrawFn) -> list[Job]:
    """A few small ones among so many of their priority that they are overtaken as often as may be."""
    found = []
    for number in range(draw(st.integers(20, 45))):
        way = draw(st.integers(0, 5))
        found.append(
            Job(
                id=OperationId(f"j{number:02d}"),
                order=number,
                priority=2000,
                memory_mib=draw(st.integers(2, 4)) if number > 3 else 1,
                source=NodeId("b" if way == 0 else "a"),
                target=None if way == 1 else NodeId("c"),
                chosen=NodeId("c" if way < 4 else "d"),
                arrives=0 if number < 30 else number - 20,
            )
        )
    return found


limits = st.builds(
    Limits,
    outgoing=st.sampled_from((1, 1, 2, 0)),
    incoming=st.sampled_from((1, 2, 0)),
    cluster=st.sampled_from((0, 0, 1, 3)),
)


@dataclass
class Hosts:
    """What runs; and a look at it, as admission does it."""

    limits: Limits
    order: QueueOrder = field(default_factory=QueueOrder)
    waiting: dict[OperationId, Job] = field(default_factory=dict)
    running: list[Job] = field(default_factory=list)
    started: list[OperationId] = field(default_factory=list)
    passed: Counter[OperationId] = field(default_factory=Counter)
    outgoing: Counter[NodeId] = field(default_factory=Counter)
    incoming: Counter[NodeId] = field(default_factory=Counter)

    def has_place(self, job: Job) -> bool:
        return (
            self.outgoing[job.source] < (self.limits.outgoing or 99)
            and self.incoming[job.to] < (self.limits.incoming or 99)
            and len(self.running) < (self.limits.cluster or 99)
        )

    def end(self, number: int) -> None:
        job = self.running.pop(number % len(self.running))
        self.outgoing[job.source] -= 1
        self.incoming[job.to] -= 1

    def look(self) -> None:
        tried: set[OperationId] = set()
        expected = set(self.waiting)
        for key in self.order.candidates():
            assert key not in tried
            tried.add(key)
            job = self.waiting[key]
            if self.has_place(job):
                del self.waiting[key]
                self.start(job, tried)
        assert tried == expected
        for job in self.waiting.values():
            # Nobody waits for nothing: a full node, or one who stands first, holds up nobody else.
            assert not self.has_place(job)
            assert self.order.overtaken(job.id) == self.passed[job.id] <= MOST

    def start(self, job: Job, tried: set[OperationId]) -> None:
        could = {other.id for other in self.waiting.values() if self.has_place(other)}
        self.running.append(job)
        self.outgoing[job.source] += 1
        self.incoming[job.to] += 1
        self.started.append(job.id)
        full = bool(self.limits.cluster) and len(self.running) >= self.limits.cluster
        for other in self.waiting.values():
            self.check(job, other, full, could=other.id in could, tried=other.id in tried)
        self.order.started(replace(job, target=job.to), last_place=full)

    def check(self, job: Job, other: Job, full: bool, *, could: bool, tried: bool) -> None:
        """One starts: the other, which waits, did not come first, or it could not have had the place."""
        assert not (could and tried)
        if other.priority != job.priority:
            assert other.priority < job.priority or not could, f"{job} takes the place of {other}"
        elif other.rank is not None:
            comes_later = job.rank is not None and (job.rank, job.age) < (other.rank, other.age)
            assert comes_later or not could, f"{job} comes before {other}"
        elif job.rank is None and other.age < job.age and not tried:
            meet = other.source == job.source or other.target in (job.to, None)
            self.passed[other.id] += meet or full
            assert self.passed[other.id] <= MOST, f"{job} overtakes {other}"


def run(work: list[Job], allowed: Limits, ends: list[int]) -> Hosts:
    """All of it, to the end; `ends` says which move ends next."""
    hosts = Hosts(allowed)
    ahead = list(work)
    number = 0
    while ahead or hosts.waiting or hosts.running:
        assert number < 30 + 2 * len(work), "somebody waits for ever"
        for job in [j for j in ahead if j.arrives <= number]:
            ahead.remove(job)
            hosts.waiting[job.id] = job
            hosts.order.add(job, is_move=True)
        hosts.look()
        if hosts.running:
            hosts.end(ends[number % len(ends)])
        number += 1
    return hosts


ends = st.lists(st.integers(0, 7), min_size=1, max_size=30)


@given(work=st.one_of(jobs(), crowds()), allowed=limits, ends=ends)
def test_what_always_holds(work: list[Job], allowed: Limits, ends: list[int]) -> None:
    hosts = run(work, allowed, ends)
    assert sorted(hosts.started) == [job.id for job in work]
    assert len(hosts.order) == 0


@given(work=jobs(), allowed=limits, ends=ends, data=st.data())
def test_it_is_the_same_in_whatever_order_work_of_one_time_is_taken_in(
    work: list[Job], allowed: Limits, ends: list[int], data: st.DataObject
) -> None:
    other = data.draw(st.permutations(work))
    assert run(other, allowed, ends).started == run(work, allowed, ends).started


@given(work=jobs(), data=st.data())
def test_work_goes_where_it_is_put_by_hand(work: list[Job], data: st.DataObject) -> None:
    order = QueueOrder()
    for job in work:
        order.add(job, is_move=True)
    before = list(order.candidates())
    by_id = {job.id: job for job in work}
    moved = data.draw(st.lists(st.sampled_from(before), min_size=1, max_size=4, unique=True))
    anchor = data.draw(st.sampled_from(before))
    for key, rank in order.ranks(moved, anchor).items():
        assert by_id[key].rank != rank
        order.add(replace(by_id[key], rank=rank), is_move=True)
    expected = []
    for key in before:
        if key == anchor and key not in moved:
            expected += [m for m in moved if by_id[m].priority == by_id[anchor].priority]
        if key not in moved:
            expected.append(key)
    priority = by_id[anchor].priority
    if anchor not in moved:
        found = [k for k in order.candidates() if by_id[k].priority == priority]
        assert found == [k for k in expected if by_id[k].priority == priority]
    assert sorted(order.candidates(), key=before.index) == before  # nobody is lost

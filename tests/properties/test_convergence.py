"""Whatever samples come: steps only go up, each has its chance, one end, and no word without a cause."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from manager.core.events import MigrationProgress
from manager.core.ids import OperationId
from manager.core.migration.convergence import (
    CHANCE_AT_LEAST_S,
    HYPERVISOR_PAUSE_MS,
    KEEPS_UP,
    POLICIES,
    Step,
    Watch,
    judge,
    policy,
    refused,
    time_out_s,
)
from manager.core.migration.progress import MoveHistory, MovePhase, MoveProgress, advanced
from manager.core.model import Convergence
from manager.core.reasons import ReasonCode

START_S = 1_700_000_000.0
RATE = 100 << 20
TOTAL = 8 << 30

Course = list[tuple[MigrationProgress, Watch, Step | None]]


@st.composite
def courses(draw: st.DrawFn, *, always_stuck: bool = False) -> list[MigrationProgress]:
    """Samples of one move: stretches of good and bad ones, gaps, a second half at the end perhaps."""
    at_s, iteration, elapsed_ms = START_S, 1, 0
    found: list[MigrationProgress] = []
    for _ in range(draw(st.integers(1, 10))):
        every_s = draw(st.sampled_from((0.5, 1.0, 1.0, 3.0, 45.0)))
        rate = draw(st.sampled_from((RATE, RATE, RATE // 8, 0)))
        share = draw(st.sampled_from((0.0, 0.3, 0.89, 0.95, 1.0, 3.0)))
        total = draw(st.sampled_from((TOTAL, TOTAL, TOTAL, 0)))
        if always_stuck:
            iteration, share, total = iteration + 1, 2.0, TOTAL
        throttle = draw(st.sampled_from((None, 0, 20, 99)))
        left = draw(st.sampled_from((0, RATE, 40 * RATE, TOTAL)))
        for _ in range(draw(st.integers(1, 40))):
            at_s += every_s
            elapsed_ms += int(every_s * 1000)
            found.append(
                MigrationProgress(
                    at_s=at_s,
                    operation=OperationId("o"),
                    attempt=1,
                    elapsed_ms=elapsed_ms,
                    total_bytes=total,
                    remaining_bytes=left,
                    rate_bytes_per_s=rate,
                    dirty_bytes_per_s=int(rate * share),
                    iteration=iteration,
                    throttle_percent=throttle,
                )
            )
        iteration += draw(st.integers(0, 2))
    if draw(st.booleans()):
        last = found[-1]
        found += [replace(last, at_s=at_s + n, post_copy=True) for n in range(1, draw(st.integers(2, 60)))]
    return found


policies = st.builds(
    Convergence,
    pause_steps_ms=st.lists(
        st.sampled_from((50, 200, 300, 500, 1000, 2000, 5000)), unique=True, max_size=5
    ).map(lambda steps: tuple(sorted(steps))),
    auto_converge=st.booleans(),
    post_copy=st.booleans(),
    time_out_s=st.sampled_from((0, 1, 30, 120, 900)),
)
memories = st.sampled_from((64, 4096, 40 * 1024))


def watched(samples: list[MigrationProgress], policy: Convergence, memory_mib: int) -> Course:
    """Each sample with what followed from it."""
    course: Course = []
    watch = Watch()
    for seen in samples:
        watch, step = judge(watch, policy, seen, memory_mib=memory_mib, started_s=START_S)
        course.append((seen, watch, step))
    return course


def steps_of(course: Course) -> list[tuple[float, Step]]:
    """What was done because it did not converge, and when."""
    return [
        (seen.at_s, step)
        for seen, _, step in course
        if step is not None and step.reason.code is not ReasonCode.PAUSE_BOUND
    ]


@given(samples=courses(), policy=policies, memory_mib=memories)
def test_pauses_only_rise_and_never_beyond_the_last_step(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int
) -> None:
    raised = [
        step.pause_ms
        for _, _, step in watched(samples, policy, memory_mib)
        if step is not None and step.pause_ms is not None
    ]
    assert raised == sorted(set(raised))
    assert set(raised) <= set(policy.pause_steps_ms)
    assert raised[:1] != [HYPERVISOR_PAUSE_MS]  # that is so without a word


@given(samples=courses(), policy=policies, memory_mib=memories)
def test_every_step_has_its_chance_and_does_one_thing_in_order(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int
) -> None:
    course = watched(samples, policy, memory_mib)
    steps = steps_of(course)
    for (before_s, _), (at_s, _) in itertools.pairwise(steps):
        assert at_s - before_s >= CHANCE_AT_LEAST_S
    for _, step in steps:
        assert [step.pause_ms is not None, step.post_copy, step.give_up].count(True) == 1
    kinds = [2 * step.give_up + step.post_copy for _, step in steps]
    assert kinds == sorted(kinds)
    assert kinds.count(1) <= 1
    began_s = None
    for (_, before, _), (seen, now, step) in itertools.pairwise(course):
        if now.not_converging and not before.not_converging:
            began_s = seen.at_s
        if step is not None and step.reason.code is not ReasonCode.PAUSE_BOUND:
            assert began_s is not None
            assert seen.at_s - began_s >= CHANCE_AT_LEAST_S  # and the first waits as well


@given(samples=courses(), policy=policies, memory_mib=memories)
def test_it_gives_up_once_not_before_the_time_out_and_not_in_the_second_half(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int
) -> None:
    course = watched(samples, policy, memory_mib)
    ends = [at_s for at_s, step in steps_of(course) if step.give_up]
    assert len(ends) <= 1
    for at_s in ends:
        assert at_s >= START_S + time_out_s(policy, memory_mib)
        assert not policy.post_copy
    second = [n for n, (seen, _, step) in enumerate(course) if seen.post_copy or (step and step.post_copy)]
    if second:
        assert all(step is None for _, _, step in course[second[0] + 1 :])
    for seen, _, step in course:
        if step is not None and step.post_copy:
            assert policy.post_copy
            assert seen.iteration > 1


@given(samples=courses(), policy=policies, memory_mib=memories)
def test_the_same_samples_give_the_same_steps(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int
) -> None:
    assert watched(samples, policy, memory_mib) == watched(list(samples), policy, memory_mib)


@given(samples=courses(), policy=policies, memory_mib=memories)
def test_a_move_that_converges_is_never_touched(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int
) -> None:
    good = [
        seen
        if seen.iteration <= 1
        else replace(
            seen,
            rate_bytes_per_s=RATE,
            dirty_bytes_per_s=min(seen.dirty_bytes_per_s, int(KEEPS_UP * RATE) - 1),
        )
        for seen in samples
    ]
    course = watched(good, policy, memory_mib)
    assert steps_of(course) == []
    assert not any(watch.not_converging for _, watch, _ in course)
    bound = [step.pause_ms for _, _, step in course if step is not None]
    assert bound in ([], [min(policy.pause_steps_ms, default=0)])
    assert all(pause_ms is not None and pause_ms < HYPERVISOR_PAUSE_MS for pause_ms in bound)


@given(samples=courses(), policy=policies, memory_mib=memories)
def test_what_is_next_is_said_if_and_only_if_it_does_not_converge(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int
) -> None:
    for _, watch, _ in watched(samples, policy, memory_mib):
        assert (watch.next is not None) is watch.not_converging
        assert (watch.next_at_s is not None) is (
            watch.not_converging and not watch.given_up and not watch.post_copy
        )
        if watch.not_converging:
            assert watch.stuck_since_s is not None
        if watch.next is not None:
            assert watch.next.text
            assert "{" not in watch.next.text + watch.next.remedy


@given(samples=courses(), policy=policies, memory_mib=memories)
def test_what_was_announced_is_done_with_the_first_sample_from_then_on_and_nothing_before(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int
) -> None:
    course = watched(samples, policy, memory_mib)
    for (_, before, _), (seen, now, step) in itertools.pairwise(course):
        if before.next is None or not now.not_converging or seen.total_bytes <= 0:
            continue
        due = before.next_at_s is not None and seen.at_s >= before.next_at_s
        assert (step is not None) is due
        if step is not None and step.pause_ms is not None:
            assert before.next.field("pause_ms") == step.pause_ms
        if step is None and before.next_at_s is not None:
            assert now.next_at_s == before.next_at_s


@given(samples=courses(always_stuck=True), policy=policies, memory_mib=memories)
def test_one_that_never_converges_comes_to_an_end(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int
) -> None:
    samples = [seen for seen in samples if not seen.post_copy]
    last = samples[-1]
    long_s = time_out_s(policy, memory_mib) + 1000
    samples += [replace(last, at_s=last.at_s + n) for n in range(5, long_s, 5)]
    steps = [step for _, step in steps_of(watched(samples, policy, memory_mib))]
    assert steps
    assert steps[-1].post_copy is policy.post_copy
    assert steps[-1].give_up is not policy.post_copy


@given(samples=courses(), policy=policies, memory_mib=memories, data=st.data())
@settings(max_examples=60)
def test_refusals_do_not_make_it_restless(
    samples: list[MigrationProgress], policy: Convergence, memory_mib: int, data: st.DataObject
) -> None:
    watch, times, halves, ends = Watch(), [], 0, 0
    for seen in samples:
        before_ms = watch.pause_ms
        watch, step = judge(watch, policy, seen, memory_mib=memory_mib, started_s=START_S)
        if step is None:
            continue
        if step.reason.code is not ReasonCode.PAUSE_BOUND:
            times.append(seen.at_s)
        halves += step.post_copy
        ends += step.give_up
        if not step.give_up and data.draw(st.booleans()):
            watch = refused(watch, pause_ms=step.pause_ms, instead_of=before_ms, post_copy=step.post_copy)
            assert not watch.post_copy
    assert halves <= 1
    assert ends <= 1
    assert all(later - sooner >= CHANCE_AT_LEAST_S for sooner, later in itertools.pairwise(times))


@given(name=st.sampled_from(sorted(POLICIES)), standard=policies, memory_mib=memories)
def test_named_policies_are_policies(name: str, standard: Convergence, memory_mib: int) -> None:
    found = policy(name, standard, memory_mib=memory_mib)
    assert list(found.pause_steps_ms) == sorted(set(found.pause_steps_ms))
    assert found.auto_converge_initial_percent <= found.auto_converge_max_percent <= 99
    assert time_out_s(found, memory_mib) >= time_out_s(standard, memory_mib)
    assert found.post_copy in (standard.post_copy, name == "post-copy")


@given(samples=courses(), policy=policies)
def test_the_bar_never_falls_and_the_rest_is_a_time(
    samples: list[MigrationProgress], policy: Convergence
) -> None:
    figures: MoveProgress | None = None
    history = MoveHistory()
    percent = 0
    for seen, watch, _ in watched(samples, policy, 4096):
        figures = advanced(figures, seen, watch)
        history.add(figures)
        assert percent <= figures.percent <= 99
        percent = figures.percent
        assert figures.eta_s is None or figures.eta_s >= 0
        if seen.total_bytes and not seen.post_copy:
            assert (figures.phase is MovePhase.NOT_CONVERGING) is watch.not_converging
        assert figures.phase is not MovePhase.NOT_CONVERGING or figures.eta_s is None
    times = [point.elapsed_s for point in history.points]
    assert times == sorted(times)
    assert len(times) <= MoveHistory.MOST

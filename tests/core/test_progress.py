"""What is shown of a move: its phase, the time that is left, and its course for plots."""

from __future__ import annotations

import itertools
from dataclasses import replace

import msgspec
import pytest

from manager.core.events import MigrationProgress
from manager.core.ids import OperationId
from manager.core.migration.convergence import Watch
from manager.core.migration.progress import MoveHistory, MovePhase, MovePoint, MoveProgress, advanced
from manager.core.reasons import ReasonCode, because
from manager.core.units import MIB


def sample(at_s: float, **figures: int | float | bool | None) -> MigrationProgress:
    """A good sample in the second pass, with what differs from that."""
    seen = MigrationProgress(
        at_s=1_700_000_000 + at_s,
        operation=OperationId("o"),
        attempt=1,
        elapsed_ms=int(1000 * at_s),
        total_bytes=1000 * MIB,
        remaining_bytes=500 * MIB,
        rate_bytes_per_s=100 * MIB,
        dirty_bytes_per_s=0,
        iteration=2,
    )
    return replace(seen, **figures)


STUCK = Watch(not_converging=True, next=because(ReasonCode.STUCK_SWITCHES), pause_ms=500)


def test_the_phase_is_what_was_judged_and_not_one_sample() -> None:
    dirty = sample(1, dirty_bytes_per_s=900 * MIB)
    figures = advanced(None, dirty, Watch())
    assert figures.phase is MovePhase.COPYING
    figures = advanced(figures, sample(2), STUCK)
    assert figures.phase is MovePhase.NOT_CONVERGING
    assert figures.watch == STUCK
    again = advanced(figures, sample(3))
    assert again.phase is MovePhase.NOT_CONVERGING  # not judged: as before
    assert advanced(again, sample(4), Watch()).phase is MovePhase.COPYING
    assert advanced(again, sample(4, post_copy=True), STUCK).phase is MovePhase.POST_COPY


def test_what_is_left_is_as_it_is_though_the_bar_never_falls() -> None:
    figures = advanced(sample_figures(1, remaining_bytes=40 * MIB), sample(2, remaining_bytes=555 * MIB + 1))
    assert (figures.percent, figures.left_percent) == (96, 56)
    assert MoveProgress().left_percent == 100


def test_before_there_are_figures_only_time_passes() -> None:
    figures = advanced(None, sample(0.5, total_bytes=0, remaining_bytes=0, rate_bytes_per_s=0))
    assert figures == MoveProgress(elapsed_s=0.5)
    later = advanced(sample_figures(1), sample(2, total_bytes=0, remaining_bytes=0), STUCK)
    assert (later.percent, later.elapsed_s, later.watch) == (50, 2, STUCK)


def sample_figures(at_s: float, **figures: int | float | bool | None) -> MoveProgress:
    return advanced(None, sample(at_s, **figures))


def test_what_else_is_known_of_it_is_kept_and_the_slowing_is_shown() -> None:
    before = MoveProgress(address="10.20.0.7", encrypted=True, percent=80)
    figures = advanced(before, sample(1, throttle_percent=30, downtime_ms=480))
    assert (figures.address, figures.encrypted, figures.percent) == ("10.20.0.7", True, 80)
    assert (figures.throttle_percent, figures.downtime_ms) == (30, 480)


def test_the_bar_never_falls_and_stays_below_100() -> None:
    figures = sample_figures(1, remaining_bytes=0)
    assert figures.percent == 99
    assert advanced(figures, sample(2, remaining_bytes=400 * MIB)).percent == 99
    assert sample_figures(1, remaining_bytes=2000 * MIB).percent == 0  # more than there was


@pytest.mark.parametrize(
    ("figures", "eta_s"),
    [
        ({"iteration": 1}, 5),  # nothing is known of later passes
        ({"dirty_bytes_per_s": 50 * MIB}, 10),  # 5 + 2.5 + 1.25 + …
        ({"dirty_bytes_per_s": 95 * MIB}, None),
        ({"dirty_bytes_per_s": 200 * MIB}, None),
        ({"rate_bytes_per_s": 0}, None),
        ({"rate_bytes_per_s": 0, "iteration": 1}, None),
        ({"dirty_bytes_per_s": 200 * MIB, "post_copy": True}, 5),
        ({"remaining_bytes": 0}, 0),
    ],
)
def test_the_time_that_is_left(figures: dict[str, int], eta_s: float | None) -> None:
    assert sample_figures(1, **figures).eta_s == eta_s


def test_no_time_is_told_while_it_does_not_converge() -> None:
    assert advanced(None, sample(1), STUCK).eta_s is None


def test_the_time_that_is_left_does_not_jump_with_the_rate() -> None:
    figures = sample_figures(1, iteration=1)
    slow = advanced(figures, sample(2, iteration=1, remaining_bytes=400 * MIB, rate_bytes_per_s=50 * MIB))
    assert slow.eta_s == 4 + 0.25 * (8 - 4)
    for at_s in range(3, 30):  # it is that slow, as it turns out
        slow = advanced(slow, sample(at_s, iteration=1, rate_bytes_per_s=50 * MIB))
    assert slow.eta_s == pytest.approx(10 - 3, abs=0.1)  # half the rest has to be made good yet
    post_copy = advanced(slow, sample(30, post_copy=True))
    assert post_copy.eta_s == 5  # another phase: nothing to even out


def test_figures_go_to_clients_with_what_was_judged() -> None:
    figures = advanced(None, sample(1, throttle_percent=20), STUCK)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(figures), type=MoveProgress) == figures


# --- the course ------------------------------------------------------------------------------


def moved(seconds: int, *, step_s: float = 1.0) -> MoveHistory:
    history = MoveHistory()
    for n in range(seconds):
        at_s = n * step_s
        history.add(sample_figures(at_s, iteration=1 + n // 100, remaining_bytes=n))
    return history


def test_a_short_course_is_kept_whole() -> None:
    history = moved(500)
    assert [point.elapsed_s for point in history.points] == list(range(500))
    assert [mark.elapsed_s for mark in history.marks] == [100, 200, 300, 400]
    assert [mark.iteration for mark in history.marks] == [2, 3, 4, 5]


@pytest.mark.parametrize("seconds", [601, 700, 5000])
def test_a_long_course_is_thinned_evenly_from_its_beginning_to_now(seconds: int) -> None:
    points = moved(seconds).points
    assert MoveHistory.MOST / 3 < len(points) <= MoveHistory.MOST
    times = [point.elapsed_s for point in points]
    assert (times[0], times[-1]) == (0, seconds - 1)
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert min(gaps[:-1]) >= 1
    assert max(gaps) <= 2 * min(gaps[:-1])
    assert [point.remaining_bytes for point in points] == times


def test_passes_stay_marked_when_it_is_thinned() -> None:
    marks = moved(5000).marks
    assert [mark.iteration for mark in marks] == list(range(2, 51))
    assert all(abs(mark.elapsed_s - 100 * (mark.iteration - 1)) <= 40 for mark in marks)


def test_a_point_has_what_is_drawn() -> None:
    history = MoveHistory()
    history.add(MoveProgress())  # nothing is known yet
    assert history.points == ()
    history.add(advanced(None, sample(3, dirty_bytes_per_s=7, throttle_percent=40), STUCK))
    assert history.points == (
        MovePoint(
            elapsed_s=3.0,
            remaining_bytes=500 * MIB,
            rate_bytes_per_s=100 * MIB,
            dirty_bytes_per_s=7,
            iteration=2,
            pause_ms=500,
            throttle_percent=40,
        ),
    )


def test_a_new_attempt_begins_anew() -> None:
    history = moved(1000)
    history.add(sample_figures(1))
    assert [point.elapsed_s for point in history.points] == [1]
    history.add(sample_figures(2))
    history.add(sample_figures(3))
    assert [point.elapsed_s for point in history.points] == [1, 2, 3]


def test_a_host_whose_time_stands_still_does_not_fill_the_memory() -> None:
    assert len(moved(5000, step_s=0).points) <= MoveHistory.MOST

"""Moves that do not converge: when that is said, what is done about it and when, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from manager.core import units
from manager.core.events import MigrationProgress
from manager.core.ids import OperationId
from manager.core.migration.convergence import (
    CHANCE_AT_LEAST_S,
    CHANCE_AT_MOST_S,
    DOUBT_AT_MOST_S,
    HYPERVISOR_PAUSE_MS,
    POLICIES,
    Step,
    Watch,
    judge,
    policy,
    refused,
    time_out_s,
)
from manager.core.model import Convergence
from manager.core.reasons import ReasonCode
from manager.core.units import MIB

START_S = 1_700_000_000.0
MEMORY_MIB = 4096
PLAIN = Convergence(auto_converge=False)


def sample(
    at_s: float,
    *,
    rate: float = 100,
    dirty: float = 0,
    left: float = 1000,
    total: float = 4096,
    iteration: int = 2,
    post_copy: bool = False,
    throttle: int | None = None,
) -> MigrationProgress:
    """A sample `at_s` seconds after the start. MiB and MiB/s."""
    return MigrationProgress(
        at_s=START_S + at_s,
        operation=OperationId("o"),
        attempt=1,
        elapsed_ms=int(at_s * 1000),
        total_bytes=int(total * MIB),
        remaining_bytes=int(left * MIB),
        rate_bytes_per_s=int(rate * MIB),
        dirty_bytes_per_s=int(dirty * MIB),
        iteration=iteration,
        post_copy=post_copy,
        throttle_percent=throttle,
    )


@dataclass
class Course:
    """A move that is watched, with what was done to it: seconds after its start."""

    policy: Convergence = PLAIN
    memory_mib: int = MEMORY_MIB
    watch: Watch = field(default_factory=Watch)
    steps: list[tuple[float, Step]] = field(default_factory=list)

    def see(self, seen: MigrationProgress) -> Step | None:
        self.watch, step = judge(
            self.watch, self.policy, seen, memory_mib=self.memory_mib, started_s=START_S, place="on n7"
        )
        if step is not None:
            self.steps.append((seen.at_s - START_S, step))
        return step

    def run(
        self, since_s: float, until_s: float, *, rate: float = 100, dirty: float = 120, left: float = 500
    ) -> None:
        """A sample a second. It never converges unless told."""
        at_s = since_s
        while at_s <= until_s:
            self.see(sample(at_s, rate=rate, dirty=dirty, left=left))
            at_s += 1

    @property
    def text(self) -> str:
        assert self.watch.next is not None
        return self.watch.next.text

    @property
    def done(self) -> list[tuple[float, object]]:
        """What was done, and when."""
        return [
            (round(at_s, 1), step.pause_ms or ("second half" if step.post_copy else "given up"))
            for at_s, step in self.steps
        ]


def clock(at_s: float) -> str:
    return units.time_text(START_S + at_s)


# --- when it is said -------------------------------------------------------------------------


def test_it_is_said_after_some_seconds_and_not_from_one_sample() -> None:
    course = Course()
    course.see(sample(0, dirty=10))
    course.see(sample(60, dirty=500))  # however long nothing was heard
    assert not course.watch.not_converging
    course.see(sample(61, dirty=500))
    assert not course.watch.not_converging
    assert course.watch.stuck_since_s == START_S + 60
    course.see(sample(62, dirty=500))
    assert course.watch.next is None
    course.see(sample(63, dirty=500))
    assert course.watch.not_converging
    assert course.watch.next is not None


def test_the_first_pass_says_nothing_and_zero_totals_say_nothing() -> None:
    course = Course()
    for at_s in range(200):
        course.see(sample(at_s, dirty=900, iteration=1))
    assert course.watch.doubt_s == 0
    course.run(200, 210)
    assert course.watch.not_converging
    before = course.watch
    course.see(sample(211, total=0, left=0, rate=0, iteration=0))
    assert course.watch is before
    fresh = Course()
    for at_s in range(20):
        fresh.see(sample(at_s, total=0, left=0, rate=0, dirty=900, iteration=5))
    assert fresh.watch == Watch()


def test_rates_that_jitter_around_each_other_do_not_make_it_flicker() -> None:
    course = Course()
    said = []
    for at_s in range(120):  # nine of ten samples say it does not converge
        course.see(sample(at_s, dirty=120 if at_s % 10 else 60))
        said.append(course.watch.not_converging)
    assert said == sorted(said)  # once said, it stays
    assert said[-1]
    good = Course()
    for at_s in range(120):  # one of ten
        good.see(sample(at_s, dirty=60 if at_s % 10 else 120))
        assert not good.watch.not_converging


def test_it_is_taken_back_when_it_recovers_and_said_again_when_it_returns() -> None:
    course = Course()
    course.run(0, 30)
    assert course.watch.not_converging
    course.run(31, 31 + DOUBT_AT_MOST_S - 2, dirty=50)
    assert course.watch.not_converging
    course.run(31 + DOUBT_AT_MOST_S - 1, 31 + DOUBT_AT_MOST_S, dirty=50)
    watch = course.watch
    assert (watch.not_converging, watch.stuck_since_s, watch.next, watch.next_at_s) == (
        False,
        None,
        None,
        None,
    )
    course.steps.clear()
    course.run(50, 56)
    assert course.watch.not_converging
    assert course.steps == []  # it gets its first chance again


def test_a_guest_that_keeps_up_just_below_the_rate_does_not_converge_either() -> None:
    """As QEMU counts, a small working set that is written over and over never shows more than was sent."""
    course = Course()
    course.run(0, 10, dirty=95)
    assert course.watch.not_converging
    slower = Course()
    slower.run(0, 100, dirty=85)
    assert not slower.watch.not_converging


def test_nothing_sent_at_all_counts_after_the_first_pass() -> None:
    course = Course()
    course.run(0, 10, rate=0, dirty=0)
    assert course.watch.not_converging


# Seen with libvirt 9.0 and QEMU 7.2: a guest that rewrites 24 MiB for ever, 8 MiB/s, auto-converge from 20 %.
# (s, KiB left, KiB/s sent, KiB/s changed, pass, % slowed)
RECORDED = """
12.4 19424 8217 0 1 -
13.4 7008 7976 0 1 -
14.7 22924 7751 1900 2 -
15.7 13072 8216 1900 2 -
16.7 4868 8216 1900 2 -
17.7 20144 7751 7960 3 -
18.7 11932 7900 7960 3 -
19.7 3732 8216 7960 3 -
20.7 19288 8216 8104 4 20
21.7 11076 8216 8104 4 20
22.8 2876 7900 8104 4 20
23.8 18524 7976 8124 5 20
24.8 10304 8216 8124 5 20
25.8 25868 8216 8124 6 20
26.8 17668 8216 8172 6 30
27.8 9448 8216 8172 6 30
28.8 25080 8216 8176 7 30
29.8 16880 8216 8176 7 30
30.8 8660 8216 8176 7 30
31.8 24292 8216 8136 8 40
32.8 16092 8216 8136 8 40
33.8 7872 8216 8136 8 40
34.8 23408 8216 8036 9 40
35.8 15208 8216 8036 9 40
36.8 7000 8216 8036 9 40
37.8 22692 8216 8200 10 50
38.8 14492 8216 8200 10 50
39.9 6284 8216 8200 10 50
40.9 21740 8216 8128 11 50
41.9 13540 8216 8128 11 50
42.9 5340 8216 8128 11 50
43.9 20992 8216 8076 12 60
44.9 12792 8216 8076 12 60
45.9 4592 7824 8076 12 60
46.9 20112 8216 8132 13 60
47.9 12732 7976 8132 13 60
48.9 4532 7401 8132 13 60
49.9 20952 5335 7876 14 70
50.9 12752 7976 7876 14 70
52.3 2912 3353 7876 14 70
53.5 16836 7607 7460 15 70
54.7 7816 7976 7460 15 70
55.7 23384 8134 7880 16 80
56.7 15164 8216 7880 16 80
57.7 6964 8216 7880 16 80
58.8 22632 8216 8224 17 80
59.8 14412 8055 8224 17 80
60.8 6212 8216 8224 17 80
61.8 21732 8216 8100 18 90
62.8 13512 8216 8100 18 90
63.8 5312 8216 8100 18 90
64.8 12612 8216 5344 19 90
65.8 4392 8134 5344 19 90
66.8 8756 8216 6540 20 99
67.8 3332 8216 6540 21 99
68.8 1696 8216 568 22 99
"""


def test_a_real_move_as_it_was_recorded() -> None:
    course = Course(Convergence(), memory_mib=160)
    said: list[tuple[float, bool, str]] = []
    for line in RECORDED.split("\n")[1:-1]:
        at_s, left, rate, dirty, iteration, throttle = line.split()
        kib = [int(figure) / 1024 for figure in (left, rate, dirty)]
        seen = sample(
            float(at_s), left=kib[0], rate=kib[1], dirty=kib[2], total=160, iteration=int(iteration)
        )
        course.see(replace(seen, throttle_percent=None if throttle == "-" else int(throttle)))
        watch = course.watch
        said.append((float(at_s), watch.not_converging, watch.next.text if watch.next else ""))
    first = next(at_s for at_s, stuck, _ in said if stuck)
    assert first == 21.7  # the dirty rate of 17.7 was the first of a pass after the first: 5 s
    assert all(stuck for at_s, stuck, _ in said if at_s >= first)
    assert course.done == [(31.8, 500), (41.9, 1000), (52.3, 2000)]
    texts = {at_s: text for at_s, _, text in said}
    assert texts[21.7].startswith("now: slows the guest by 20 %; raises the permitted pause to 500 ms at ")
    assert texts[33.8].startswith("now: slows the guest by 40 %; raises the permitted pause to 1 s at ")
    assert texts[68.8] == f"now: slows the guest by 99 %; gives up at {clock(600)}: the VM stays on n7"


# --- what is done ----------------------------------------------------------------------------


def test_longer_pauses_one_at_a_time_then_the_end_at_the_time_out() -> None:
    course = Course()
    course.run(0, 700)  # 5 s until it is known, then each time 10 s: a pass takes 5 s
    assert course.done == [(15, 500), (25, 1000), (35, 2000), (600, "given up")]
    reasons = [step.reason for _, step in course.steps]
    assert [reason.code for reason in reasons] == [ReasonCode.PAUSE_RAISED] * 3 + [ReasonCode.NOT_CONVERGED]
    assert reasons[0].text == (
        "permitted pause raised to 500 ms: it does not converge (120 MiB/s changed, 100 MiB/s sent)"
    )
    assert reasons[-1].text == (
        "it did not converge within 10 min (120 MiB/s changed, 100 MiB/s sent); it stays on n7"
    )
    assert "insist" in reasons[-1].remedy
    assert course.text == "gives up now: the VM stays on n7"
    assert course.watch.next_at_s is None


def test_what_comes_next_is_said_with_its_times() -> None:
    course = Course()
    course.run(0, 5)
    assert course.text == (
        f"raises the permitted pause to 500 ms at {clock(15)}; gives up at {clock(600)}: the VM stays on n7"
    )
    assert course.watch.next_at_s == START_S + 15
    assert course.watch.next is not None
    assert "cancel" in course.watch.next.remedy
    course.run(6, 25)
    assert course.text.startswith(f"raises the permitted pause to 2 s at {clock(35)}; gives up")
    course.run(26, 35)
    assert course.text == f"gives up at {clock(600)}: the VM stays on n7"
    assert course.watch.next_at_s == START_S + 600


def test_the_slowing_of_the_guest_is_said_as_it_is_seen() -> None:
    course = Course(Convergence())
    course.run(0, 5)
    assert course.text.startswith("now: begins to slow the guest; raises the permitted pause")
    course.see(sample(6, dirty=120, throttle=30))
    assert course.text.startswith("now: slows the guest by 30 %; raises the permitted pause")
    by_hand = Course(PLAIN)
    by_hand.run(0, 5)
    assert by_hand.text.startswith("raises")
    by_hand.see(sample(6, dirty=120, throttle=40))  # by someone else
    assert by_hand.text.startswith("now: slows the guest by 40 %; raises")


@pytest.mark.parametrize(("left", "waits_s"), [(10, CHANCE_AT_LEAST_S), (3000, 30), (9000, CHANCE_AT_MOST_S)])
def test_a_chance_lasts_to_the_end_of_the_pass_within_limits(left: float, waits_s: float) -> None:
    course = Course()
    course.run(0, 200, left=left)
    times = [at_s for at_s, _ in course.steps]
    assert times == [5 + waits_s * n for n in (1, 2, 3)]


def test_what_was_announced_is_done_then_whatever_the_rates_do_meanwhile() -> None:
    course = Course()
    course.run(0, 5, left=3000)
    announced = course.watch.next_at_s
    assert announced == START_S + 35
    course.run(6, 34, rate=20, left=1)
    assert course.watch.next_at_s == announced
    assert course.steps == []
    course.run(35, 35, rate=50, left=1)
    assert [at_s for at_s, _ in course.steps] == [35]


def test_the_second_half_comes_after_the_last_pause_and_ends_the_doubt() -> None:
    course = Course(replace(PLAIN, post_copy=True))
    course.run(0, 26)
    assert course.text == (
        f"raises the permitted pause to 2 s at {clock(35)};"
        f" if nothing helps, switches to the second half (post-copy) by {clock(600)}"
    )
    course.run(27, 44)
    assert course.text == (
        f"switches to the second half (post-copy) at {clock(45)}: from then on the VM runs on the target"
    )
    course.run(45, 700)  # it is not seen to have begun
    assert course.done == [(15, 500), (25, 1000), (35, 2000), (45, "second half")]
    assert course.text == "switches to the second half (post-copy) now"
    course.see(sample(701, dirty=900, post_copy=True))
    assert (course.watch.not_converging, course.watch.next) == (False, None)
    course.run(702, 2000)  # and were a sample to forget it
    assert len(course.steps) == 4


def test_a_second_half_that_someone_else_began_is_left_alone() -> None:
    course = Course()
    course.run(0, 590)
    course.steps.clear()
    for at_s in range(591, 700):
        course.see(sample(at_s, dirty=900, post_copy=True))
    assert course.steps == []


def test_a_refused_second_half_leaves_the_time_out() -> None:
    course = Course(replace(PLAIN, post_copy=True))
    course.run(0, 45)
    assert course.done[-1] == (45, "second half")
    course.watch = refused(course.watch, post_copy=True)
    course.run(46, 60)
    assert course.text == f"gives up at {clock(600)}: the VM stays on n7"
    course.run(61, 700)
    assert course.done[-1] == (600, "given up")


def test_a_refused_pause_is_tried_again_when_its_time_comes() -> None:
    course = Course()
    course.run(0, 15)
    course.watch = refused(course.watch, pause_ms=500, instead_of=300)
    assert course.watch.pause_ms == 300
    course.run(16, 25)
    course.watch = refused(course.watch, pause_ms=500, instead_of=300)
    course.run(26, 45)
    assert course.done == [(15, 500), (25, 500), (35, 500), (45, 1000)]


def test_a_pause_permitted_by_hand_is_not_taken_back() -> None:
    course = Course()
    course.run(0, 10)
    course.watch = replace(course.watch, pause_ms=1500)
    course.run(11, 100)
    assert course.done == [(15, 2000)]


def test_a_move_that_was_good_until_its_time_out_still_gets_its_chances() -> None:
    course = Course()
    for at_s in range(2000):
        course.see(sample(at_s, iteration=1))
    assert (course.steps, course.watch.next) == ([], None)
    course.run(2000, 3000)
    end_s = 2004 + 4 * CHANCE_AT_MOST_S
    assert course.done == [(2014, 500), (2024, 1000), (2034, 2000), (end_s, "given up")]


def test_a_short_time_out_is_kept_and_each_step_has_its_chance() -> None:
    course = Course(replace(PLAIN, time_out_s=20))
    course.run(0, 100)
    assert course.done == [(15, 500), (25, "given up")]
    shortest = Course(replace(PLAIN, time_out_s=1))
    shortest.run(0, 100)
    assert shortest.done == [(15, "given up")]


def test_a_step_that_comes_late_has_its_chance_all_the_same() -> None:
    course = Course()
    course.run(0, 5)
    course.run(598, 700)  # its node was not heard in between
    assert course.done == [(598, 500), (608, "given up")]


def test_with_the_second_half_permitted_the_time_out_is_when_it_begins_at_the_latest() -> None:
    course = Course(replace(PLAIN, time_out_s=20, post_copy=True))
    course.run(0, 400)
    assert course.done == [(15, 500), (25, "second half")]
    long_passes = Course(replace(PLAIN, time_out_s=20, post_copy=True, pause_steps_ms=(300,)))
    long_passes.run(0, 400, left=9000)
    assert long_passes.done == [(25, "second half")]


def test_a_policy_below_what_the_hypervisor_permits_holds_from_the_first_figures() -> None:
    course = Course(replace(PLAIN, pause_steps_ms=(100, 400)))
    assert course.see(sample(0, total=0, left=0, iteration=0)) is None
    step = course.see(sample(1, iteration=1))
    assert step is not None
    assert (step.pause_ms, step.reason.text) == (100, "permitted pause set to 100 ms, as the policy says")
    assert course.watch.next is None
    course.run(2, 100)
    assert course.done == [(1, 100), (16, 400)]
    deaf = Course(course.policy)
    deaf.see(sample(1, iteration=1))
    deaf.watch = refused(deaf.watch, pause_ms=100)
    deaf.run(2, 60, dirty=0)
    assert deaf.done == [(1, 100)]  # it is not asked for again and again


def test_a_policy_above_it_is_not_used_before_it_is_needed() -> None:
    course = Course(replace(PLAIN, pause_steps_ms=(1000,)))
    course.run(0, 14, dirty=20)
    assert course.steps == []
    course.run(15, 60)
    assert [done for _, done in course.done] == [1000]
    none = Course(replace(PLAIN, pause_steps_ms=()))
    none.run(0, 700)
    assert none.done == [(600, "given up")]


# --- policies --------------------------------------------------------------------------------


def test_policies_have_names_and_say_in_one_sentence_what_they_do() -> None:
    assert list(POLICIES) == ["standard", "patient", "insist", "post-copy"]
    for name, each in POLICIES.items():
        assert each.name == name
        assert each.doc.endswith(".")
        assert each.doc.count(". ") == 0


def test_policies_change_what_the_cluster_says() -> None:
    cluster = Convergence(pause_steps_ms=(200, 400, 800), auto_converge_initial_percent=10)
    assert policy("standard", cluster, memory_mib=1024) == cluster
    assert policy("", cluster, memory_mib=1024) == cluster
    assert policy("unheard-of", cluster, memory_mib=1024) == cluster
    patient = policy("patient", replace(cluster, post_copy=True), memory_mib=1024)
    assert patient == replace(cluster, pause_steps_ms=(200, 400), auto_converge=False, time_out_s=2400)
    insist = policy("insist", replace(cluster, auto_converge=False), memory_mib=1024)
    assert insist == replace(
        cluster, pause_steps_ms=(200, 400, 800, 1000, 2000, 3000, 5000), auto_converge_max_percent=99
    )
    assert policy("post-copy", cluster, memory_mib=1024) == replace(cluster, post_copy=True)


def test_policies_on_what_is_said_by_default() -> None:
    default = Convergence()
    assert policy("patient", default, memory_mib=1024).pause_steps_ms == (300, 500)
    assert policy("insist", default, memory_mib=1024).pause_steps_ms == (300, 500, 1000, 2000, 3000, 5000)
    assert not policy("standard", default, memory_mib=1024).post_copy
    long = replace(default, pause_steps_ms=(1000, 2000))
    assert policy("patient", long, memory_mib=1024).pause_steps_ms == (500,)


@pytest.mark.parametrize(
    ("memory_mib", "of_the_file_s", "expected_s"),
    [(1024, 0, 600), (10 * 1024, 0, 600), (64 * 1024, 0, 3840), (64 * 1024, 90, 90)],
)
def test_a_policy_tells_its_time_out(memory_mib: int, of_the_file_s: int, expected_s: int) -> None:
    cluster = Convergence(time_out_s=of_the_file_s)
    assert time_out_s(cluster, memory_mib) == expected_s
    patient = policy("patient", cluster, memory_mib=memory_mib)
    assert time_out_s(patient, memory_mib) == 4 * expected_s
    assert time_out_s(policy("insist", cluster, memory_mib=memory_mib), memory_mib) == expected_s


# --- the whole of it -------------------------------------------------------------------------


@dataclass
class Model:
    """A move as QEMU makes it, in steps of a tenth of a second. MiB, MiB/s."""

    working_set: float
    writes: float
    rate: float = 100.0
    total: float = 4096.0
    slows: bool = False

    def finish_s(self, course: Course, limit_s: float) -> float | None:
        """When it arrives; None if it does not until then, or is given up."""
        left, changed, iteration, pass_s, dirty, throttle, passes = self.total, 0.0, 1, 0.0, 0.0, 0, 0
        pause_ms = HYPERVISOR_PAUSE_MS
        for tick in range(int(limit_s * 10)):
            at_s = tick / 10
            if tick % 10 == 0:
                step = course.see(
                    sample(
                        at_s,
                        rate=self.rate,
                        dirty=dirty,
                        left=left,
                        total=self.total,
                        iteration=iteration,
                        throttle=throttle or None,
                    )
                )
                if step is not None:
                    if step.give_up:
                        return None
                    pause_ms = step.pause_ms or pause_ms
            left -= self.rate / 10
            changed = min(self.working_set, changed + self.writes * (1 - throttle / 100) / 10)
            pass_s += 0.1
            if left <= 0:
                if changed / self.rate * 1000 <= pause_ms:
                    return at_s
                dirty, left, changed, pass_s = changed / pass_s, changed, 0.0, 0.0
                iteration += 1
                passes += dirty > self.rate / 2
                if self.slows and passes % 2 == 0:
                    throttle = min(99, throttle + 10 if throttle else 20)
        return None


def test_a_busy_working_set_arrives_by_longer_pauses_and_without_them_never() -> None:
    never = Course(replace(PLAIN, pause_steps_ms=(300,)))
    model = Model(working_set=150, writes=1000)
    course = Course(PLAIN)
    arrived_s = model.finish_s(course, 600)
    assert arrived_s is not None
    assert [step.pause_ms for _, step in course.steps] == [500, 1000, 2000]
    assert model.finish_s(never, 3 * arrived_s) is None
    assert never.watch.not_converging


def test_a_small_working_set_needs_no_more_than_it_needs() -> None:
    course = Course(PLAIN)
    assert Model(working_set=45, writes=1000).finish_s(course, 600) is not None
    assert [step.pause_ms for _, step in course.steps] == [500]
    calm = Course(PLAIN)
    assert Model(working_set=1000, writes=50).finish_s(calm, 600) is not None
    assert calm.steps == []


def test_a_guest_that_is_slowed_arrives_with_a_working_set_that_no_pause_would_do_for() -> None:
    fast = Model(working_set=1000, writes=200, slows=True)
    course = Course(Convergence())
    assert fast.finish_s(course, 600) is not None
    assert Model(working_set=1000, writes=200).finish_s(Course(PLAIN), 3000) is None

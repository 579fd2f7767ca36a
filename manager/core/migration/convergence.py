"""What is done about a live migration that does not converge: a policy as data, one judgement per sample.

A move converges if its guest changes memory clearly more slowly than it is sent; several seconds of
samples decide it, in both directions. A move that does not converge gets, in this order: one more chance as
it is; each longer pause that the policy permits, with a chance after each; the second half (post-copy), if it
is permitted; at the time-out the end, and the VM stays where it is. Meanwhile the hypervisor slows the
guest by itself, if the policy says so. What was announced for a time is done at that time, unless the move
recovers first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from manager.core.events import MigrationProgress
from manager.core.model import Convergence
from manager.core.reasons import Reason, ReasonCode, because

HYPERVISOR_PAUSE_MS = 300
"""The pause that is permitted if nobody says anything. Source: QEMU, downtime-limit; seen with 7.2."""

KEEPS_UP = 0.9
"""From this share of the transfer rate on, the guest is taken to change its memory as fast as it is sent.

QEMU counts a page once per pass, however often it is written. So what a small, busy working set shows is what
one pass sent, a little below the transfer rate, for ever: 0.95 to 1.00 of it, seen with QEMU 7.2.
"""

FOUND_AFTER_S = 5.0
"""How long, on balance, it must have kept up before the move is said not to converge."""

DOUBT_AT_MOST_S = 10.0
"""How long, on balance, it must not keep up before the move is said to converge again."""

SAMPLE_COUNTS_S = 2.0
"""How long one sample speaks for at most: never long enough alone."""

CHANCE_AT_LEAST_S = 10.0
CHANCE_AT_MOST_S = 60.0
"""What each measure gets to show what it does: in between, the rest of the pass: pauses count at its end."""

TUNABLE: Mapping[str, tuple[int, int]] = {"pause_ms": (1, 60_000), "bandwidth_mib_s": (0, 1_000_000)}
"""What can be changed of a running move by hand, with the least and the largest value of each."""

STANDARD = "standard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A way to deal with moves that do not converge, as a request can ask for it."""

    name: str
    doc: str  # one sentence
    change: Callable[[Convergence], Convergence]  # of the cluster's own
    time_outs: int = 1  # how many times as long as the cluster's it is tried

    def of(self, standard: Convergence, *, memory_mib: int) -> Convergence:
        """This policy in a cluster with that standard, for a VM of that memory."""
        policy = self.change(standard)
        if self.time_outs == 1:
            return policy
        return replace(policy, time_out_s=self.time_outs * time_out_s(standard, memory_mib))


def _patient(standard: Convergence) -> Convergence:
    short = tuple(step for step in standard.pause_steps_ms if step <= 500)
    return replace(standard, pause_steps_ms=short or (500,), auto_converge=False, post_copy=False)


def _insisting(standard: Convergence) -> Convergence:
    last = max(standard.pause_steps_ms, default=0)
    steps = (*standard.pause_steps_ms, *(step for step in (1000, 2000, 3000, 5000) if step > last))
    return replace(standard, pause_steps_ms=steps, auto_converge=True, auto_converge_max_percent=99)


POLICIES: Mapping[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(
            name=STANDARD,
            doc="As the cluster file says.",
            change=lambda standard: standard,
        ),
        Policy(
            name="patient",
            doc="Does not slow the guest, pauses it for at most 500 ms, and tries four times as long.",
            change=_patient,
            time_outs=4,
        ),
        Policy(
            name="insist",
            doc="Pauses the guest for up to 5 s, and slows it, rather than give up.",
            change=_insisting,
        ),
        Policy(
            name="post-copy",
            doc="If nothing else helps, lets the VM run on the target before all its memory is there;"
            " if a node or the network fails then, the VM is lost.",
            change=lambda standard: replace(standard, post_copy=True),
        ),
    )
}
"""The policies that can be asked for by name."""


def policy(name: str, standard: Convergence, *, memory_mib: int) -> Convergence:
    """The policy of that name in a cluster, for a VM of that memory; the cluster's own if there is none."""
    return POLICIES.get(name, POLICIES[STANDARD]).of(standard, memory_mib=memory_mib)


def time_out_s(policy: Convergence, memory_mib: int) -> int:
    """How long a move that does not converge is tried, from its start."""
    return policy.time_out_s or max(600, 60 * memory_mib // 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do to a running move."""

    pause_ms: int | None = None  # permit the guest a pause of this length
    post_copy: bool = False  # start the second half
    give_up: bool = False  # cancel: the VM stays where it is
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is known of one move's convergence. Times are wall-clock seconds.

    Someone who permits another pause by hand replaces `pause_ms`: the next step is the first one above it.
    """

    not_converging: bool = False
    stuck_since_s: float | None = None  # since when the guest has kept up with the transfer
    pause_ms: int | None = None  # permitted now; None: as the hypervisor does by itself
    next: Reason | None = None  # what will be done about it and when; None while it converges
    next_at_s: float | None = None
    post_copy: bool = False  # asked for or seen: from then on nothing is done to it any more
    post_copy_refused: bool = False
    given_up: bool = False
    seen_at_s: float | None = None
    doubt_s: float = 0.0  # how long it has kept up, less how long it has not
    step_at_s: float = 0.0  # when the next measure is due; counts while it does not converge
    end_at_s: float = 0.0  # when it ends one way or the other; likewise


def gains(seen: MigrationProgress) -> bool:
    """Whether what remains falls at the rates of one sample; in the first pass it always does."""
    return seen.iteration <= 1 or seen.dirty_bytes_per_s < KEEPS_UP * seen.rate_bytes_per_s


def checked(wanted: Mapping[str, int | None]) -> str:
    """What is wrong with what someone wants of a running move, or an empty string."""
    for name, (least, most) in TUNABLE.items():
        value = wanted.get(name)
        if value is not None and not least <= value <= most:
            return f"{name} = {value}: needs a whole number from {least} to {most}"
    return ""


def judge(
    before: Watch,
    policy: Convergence,
    seen: MigrationProgress,
    *,
    memory_mib: int,
    started_s: float,
    place: str = "where it is",
) -> tuple[Watch, Step | None]:
    """The next state of the watch after a sample, and what is to be done now, if anything.

    Args:
        before: What the last judgement gave; a new one for each attempt.
        policy: As asked for; see `Policy.of`.
        seen: The sample.
        memory_mib: The VM's memory, for the time-out.
        started_s: When this attempt was started.
        place: Where the VM stays if the move is given up, for the texts: ``on n7``.
    """
    if seen.total_bytes <= 0:  # the target prepares: the figures say nothing
        return before, None
    if seen.post_copy:  # it converges by its nature
        past = Watch(pause_ms=before.pause_ms, post_copy=True, given_up=before.given_up, seen_at_s=seen.at_s)
        return past, None
    watch = _weighed(before, seen)
    if not watch.not_converging:
        watch = replace(watch, next=None, next_at_s=None)
        step = _bound(before, policy)
        return (watch if step is None else replace(watch, pause_ms=step.pause_ms)), step
    if not before.not_converging:
        watch = _found(watch, policy, seen, started_s + time_out_s(policy, memory_mib))
    step = _due(watch, policy, seen, started_s=started_s, place=place)
    if step is not None:
        watch = replace(
            watch,
            pause_ms=step.pause_ms or watch.pause_ms,
            post_copy=step.post_copy,
            given_up=step.give_up,
            step_at_s=seen.at_s + _chance_s(seen),
            end_at_s=max(watch.end_at_s, seen.at_s + CHANCE_AT_LEAST_S),
        )
    reason, at_s = _announced(watch, policy, seen, place)
    return replace(watch, next=reason, next_at_s=at_s), step


def refused(
    before: Watch, *, pause_ms: int | None = None, instead_of: int | None = None, post_copy: bool = False
) -> Watch:
    """After a pause or the second half was refused or not delivered; nothing else is undone.

    A pause of the policy is tried again when its time comes. `instead_of`: the pause permitted before.
    """
    if post_copy:
        return replace(before, post_copy=False, post_copy_refused=True)
    if pause_ms is not None and pause_ms == before.pause_ms:  # else another one was permitted meanwhile
        return replace(before, pause_ms=instead_of)
    return before


def _weighed(before: Watch, seen: MigrationProgress) -> Watch:
    passed_s = 0.0
    if before.seen_at_s is not None:
        passed_s = min(max(seen.at_s - before.seen_at_s, 0.0), SAMPLE_COUNTS_S)
    if gains(seen):
        doubt_s = max(before.doubt_s - passed_s, 0.0)
        since_s = before.stuck_since_s if doubt_s else None
    else:
        doubt_s = min(before.doubt_s + passed_s, DOUBT_AT_MOST_S)
        since_s = seen.at_s if before.stuck_since_s is None else before.stuck_since_s
    return replace(
        before,
        seen_at_s=seen.at_s,
        doubt_s=doubt_s,
        stuck_since_s=since_s,
        not_converging=doubt_s > 0 if before.not_converging else doubt_s >= FOUND_AFTER_S,
    )


def _bound(before: Watch, policy: Convergence) -> Step | None:
    """The only thing that is done to a move that converges: it is held to a policy that permits less than the
    hypervisor does by itself, with its first figures.
    """
    shortest_ms = min(policy.pause_steps_ms, default=HYPERVISOR_PAUSE_MS)
    if before.seen_at_s is not None or before.pause_ms is not None or shortest_ms >= HYPERVISOR_PAUSE_MS:
        return None
    return Step(pause_ms=shortest_ms, reason=because(ReasonCode.PAUSE_BOUND, pause_ms=shortest_ms))


def _found(watch: Watch, policy: Convergence, seen: MigrationProgress, time_out_at_s: float) -> Watch:
    """Now it is known. One that was good for long still gets its chances, but not a whole second time-out."""
    chances_s = CHANCE_AT_MOST_S * (1 + len(_longer(watch, policy)))
    if policy.time_out_s:
        chances_s = max(CHANCE_AT_LEAST_S, min(chances_s, policy.time_out_s))
    return replace(
        watch,
        step_at_s=seen.at_s + _chance_s(seen),
        end_at_s=max(time_out_at_s, seen.at_s + chances_s),
    )


def _longer(watch: Watch, policy: Convergence) -> list[int]:
    """The pauses that may still be permitted, in ms."""
    now_ms = HYPERVISOR_PAUSE_MS if watch.pause_ms is None else watch.pause_ms
    return sorted(step for step in policy.pause_steps_ms if step > now_ms)


def _chance_s(seen: MigrationProgress) -> float:
    """How long to wait before the next measure: to the end of this pass, within limits."""
    rate = seen.rate_bytes_per_s
    rest_s = seen.remaining_bytes / rate if rate > 0 else CHANCE_AT_MOST_S
    return min(max(rest_s, CHANCE_AT_LEAST_S), CHANCE_AT_MOST_S)


def _plan(watch: Watch, policy: Convergence) -> tuple[int | None, bool, float]:
    """What comes next: a longer pause, or the second half, or (neither) the end; and when."""
    second_half = policy.post_copy and not watch.post_copy_refused
    longer = _longer(watch, policy)
    if longer and watch.step_at_s < watch.end_at_s:
        return longer[0], False, watch.step_at_s
    if second_half and not longer:
        return None, True, min(watch.step_at_s, watch.end_at_s)
    return None, second_half, watch.end_at_s


def _due(
    watch: Watch, policy: Convergence, seen: MigrationProgress, *, started_s: float, place: str
) -> Step | None:
    """What is to be done with this sample."""
    if watch.post_copy or watch.given_up:
        return None
    pause_ms, post_copy, at_s = _plan(watch, policy)
    if seen.at_s < at_s:
        return None
    dirty, rate = seen.dirty_bytes_per_s, seen.rate_bytes_per_s
    if pause_ms is not None:
        reason = because(ReasonCode.PAUSE_RAISED, pause_ms=pause_ms, dirty=dirty, rate=rate)
        return Step(pause_ms=pause_ms, reason=reason)
    if post_copy:
        return Step(post_copy=True, reason=because(ReasonCode.POST_COPY_BEGUN, dirty=dirty, rate=rate))
    span = seen.at_s - started_s
    stays = f"it stays {place}"
    reason = because(ReasonCode.NOT_CONVERGED, span=span, dirty=dirty, rate=rate, place=stays)
    return Step(give_up=True, reason=reason)


def _announced(
    watch: Watch, policy: Convergence, seen: MigrationProgress, place: str
) -> tuple[Reason, float | None]:
    """What will be done and when, in words."""
    if watch.given_up:
        return because(ReasonCode.STUCK_CANCELS, place=place), None
    if watch.post_copy:
        return because(ReasonCode.STUCK_SWITCHES), None
    throttle = seen.throttle_percent or (0 if policy.auto_converge else -1)
    pause_ms, post_copy, at_s = _plan(watch, policy)
    if post_copy:
        return because(ReasonCode.STUCK_SWITCHES_AT, throttle=throttle, at=at_s), at_s
    if pause_ms is None:
        return because(ReasonCode.STUCK_GIVES_UP, throttle=throttle, at=at_s, place=place), at_s
    if policy.post_copy and not watch.post_copy_refused:
        code = ReasonCode.STUCK_RAISES_THEN_SWITCHES
    else:
        code = ReasonCode.STUCK_RAISES
    reason = because(code, throttle=throttle, pause_ms=pause_ms, at=at_s, end=watch.end_at_s, place=place)
    return reason, at_s

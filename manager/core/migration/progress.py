"""What is shown of a move: a bar that never falls, 99 % until it is over; its figures, and their course."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from manager.core.events import MigrationProgress
from manager.core.migration.convergence import Watch, gains


class MovePhase(StrEnum):
    """What a running move is doing."""

    PREPARING = "Target prepares"
    COPYING = "Copying"
    NOT_CONVERGING = "Not converging"
    POST_COPY = "Second half"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveProgress:
    """A move's figures. Bytes and bytes per second; seconds."""

    phase: MovePhase = MovePhase.PREPARING
    percent: int = 0
    rate_bytes_per_s: int = 0
    dirty_bytes_per_s: int = 0
    remaining_bytes: int = 0
    total_bytes: int = 0
    iteration: int = 0
    downtime_ms: int | None = None
    elapsed_s: float = 0.0
    eta_s: float | None = None  # None: not to be told, or it does not converge
    throttle_percent: int | None = None  # how far the hypervisor slows the guest
    watch: Watch = field(default_factory=Watch)
    address: str = ""  # over which it goes; empty: as the target says itself
    encrypted: bool | None = None  # None: not known yet

    @property
    def left_percent(self) -> int:
        """How much of it remains now, as no bar shows that never falls."""
        return -(-100 * self.remaining_bytes // self.total_bytes) if self.total_bytes else 100


_NEWS = 0.25
"""How much a sample says about the time that is left: the transfer rate jumps by a tenth and more."""


def advanced(
    before: MoveProgress | None, seen: MigrationProgress, watch: Watch | None = None
) -> MoveProgress:
    """The next figures from the last ones, a job sample and what was judged of it (None: as before).

    In the first second of a move all totals are 0; they say nothing then.
    """
    before = before or MoveProgress()
    watch = watch or before.watch
    elapsed_s = seen.elapsed_ms / 1000
    if seen.total_bytes <= 0:
        return replace(before, elapsed_s=elapsed_s, watch=watch)
    done = 1 - seen.remaining_bytes / seen.total_bytes
    if seen.post_copy:
        phase = MovePhase.POST_COPY
    elif watch.not_converging:
        phase = MovePhase.NOT_CONVERGING
    else:
        phase = MovePhase.COPYING
    return replace(
        before,
        phase=phase,
        percent=min(99, max(before.percent, int(done * 100))),
        rate_bytes_per_s=seen.rate_bytes_per_s,
        dirty_bytes_per_s=seen.dirty_bytes_per_s,
        remaining_bytes=seen.remaining_bytes,
        total_bytes=seen.total_bytes,
        iteration=seen.iteration,
        downtime_ms=seen.downtime_ms,
        elapsed_s=elapsed_s,
        eta_s=_eta_s(before, seen, phase),
        throttle_percent=seen.throttle_percent,
        watch=watch,
    )


def _eta_s(before: MoveProgress, seen: MigrationProgress, phase: MovePhase) -> float | None:
    """Time that is left: all passes to come as one sum, each smaller than the last by the same share."""
    rate, dirty = seen.rate_bytes_per_s, seen.dirty_bytes_per_s
    if phase is MovePhase.POST_COPY:
        dirty = 0  # the target changes its own copy
    elif phase is MovePhase.NOT_CONVERGING or not gains(seen):
        return None
    if rate <= dirty:
        return None
    now_s = max(seen.remaining_bytes, 0) / (rate - dirty)
    if before.eta_s is None or before.phase is not phase:
        return now_s
    expected_s = max(before.eta_s - max(seen.elapsed_ms / 1000 - before.elapsed_s, 0.0), 0.0)
    return expected_s + _NEWS * (now_s - expected_s)


class MovePoint(NamedTuple):
    """A move's figures at one moment, for plots."""

    elapsed_s: float
    remaining_bytes: int
    rate_bytes_per_s: int
    dirty_bytes_per_s: int
    iteration: int
    pause_ms: int | None  # permitted; None: as the hypervisor does by itself
    throttle_percent: int | None


class MoveHistory:
    """The course of one attempt of a move, since somebody looks: at most `MOST` points, evenly thinned as it
    grows longer.
    """

    __slots__ = ("_points", "_spacing_s")

    MOST = 600

    def __init__(self) -> None:
        self._points: list[MovePoint] = []
        self._spacing_s = 0.0

    @property
    def points(self) -> tuple[MovePoint, ...]:
        """Oldest first; the last one is as new as what was added last."""
        return tuple(self._points)

    @property
    def marks(self) -> tuple[MovePoint, ...]:
        """The points at which a new pass over the memory was first seen."""
        return tuple(
            now
            for before, now in zip(self._points, self._points[1:], strict=False)
            if now.iteration > before.iteration
        )

    def add(self, figures: MoveProgress) -> None:
        """Take in the newest figures. Those of a later attempt begin anew."""
        if figures.total_bytes <= 0:
            return
        point = MovePoint(
            elapsed_s=figures.elapsed_s,
            remaining_bytes=figures.remaining_bytes,
            rate_bytes_per_s=figures.rate_bytes_per_s,
            dirty_bytes_per_s=figures.dirty_bytes_per_s,
            iteration=figures.iteration,
            pause_ms=figures.watch.pause_ms,
            throttle_percent=figures.throttle_percent,
        )
        kept = self._points
        if kept and point.elapsed_s < kept[-1].elapsed_s:
            kept.clear()
            self._spacing_s = 0.0
        if len(kept) > 1 and kept[-1].elapsed_s - kept[-2].elapsed_s < self._spacing_s:
            kept[-1] = point  # the last one was only the newest, not one to keep
        else:
            kept.append(point)
        self._thin()

    def _thin(self) -> None:
        if len(self._points) <= self.MOST:
            return
        first, *_, last = self._points
        self._spacing_s = 2 * (last.elapsed_s - first.elapsed_s) / self.MOST
        kept = [first]
        for point in self._points[1:-1]:
            if point.elapsed_s - kept[-1].elapsed_s >= self._spacing_s:
                kept.append(point)
        if len(kept) >= self.MOST:  # a host whose time stands still
            kept = kept[::2]
        self._points = [*kept, last]

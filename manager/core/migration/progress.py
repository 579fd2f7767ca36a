"""What a bar shows of a move: computed from what remains, never falling, 99 % until it is over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from manager.core.events import MigrationProgress


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
    eta_s: float | None = None


def advanced(before: MoveProgress | None, seen: MigrationProgress) -> MoveProgress:
    """The next figures from the last ones and a job sample.

    In the first second of a move all totals are 0; they say nothing then.
    """
    if seen.total_bytes <= 0:
        return replace(before or MoveProgress(), elapsed_s=seen.elapsed_ms / 1000)
    percent = before.percent if before else 0
    done = 1 - seen.remaining_bytes / max(seen.total_bytes, 1)
    percent = min(99, max(percent, int(done * 100)))
    net = seen.rate_bytes_per_s - seen.dirty_bytes_per_s
    if seen.post_copy:
        phase = MovePhase.POST_COPY
    elif seen.iteration > 1 and seen.rate_bytes_per_s and net <= 0:
        phase = MovePhase.NOT_CONVERGING
    else:
        phase = MovePhase.COPYING
    return MoveProgress(
        phase=phase,
        percent=percent,
        rate_bytes_per_s=seen.rate_bytes_per_s,
        dirty_bytes_per_s=seen.dirty_bytes_per_s,
        remaining_bytes=seen.remaining_bytes,
        total_bytes=seen.total_bytes,
        iteration=seen.iteration,
        downtime_ms=seen.downtime_ms,
        elapsed_s=seen.elapsed_ms / 1000,
        eta_s=seen.remaining_bytes / net if net > 0 else None,
    )

"""Figures as text: sizes, rates, durations, times. Nothing else formats them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

MIB = 1024 * 1024
GIB = 1024 * MIB


def size_text(size_bytes: float) -> str:
    """A size with a binary unit: ``512 MiB``, ``8 GiB``, ``1.5 TiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            digits = 0 if value >= 100 or value == int(value) else 1
            return f"{value:.{digits}f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def mib_text(size_mib: float) -> str:
    """A size in MiB as text."""
    return size_text(size_mib * MIB)


_MIB_PER = {"": 1, "m": 1, "mib": 1, "g": 1024, "gib": 1024, "t": 1024**2, "tib": 1024**2}
_MEANT = {"mb": "MiB", "gb": "GiB", "tb": "TiB"}


def mib_of(text: str) -> int:
    """A size as people write it, in whole MiB: ``512``, ``4GiB``, ``1.5 g``.

    Raises:
        ValueError: it is none, or its unit leaves open whether thousands are meant.
    """
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)", text.strip().lower())
    unit = found.group(2) if found else ""
    if found is None or unit not in _MIB_PER:
        near = f"; did you mean {_MEANT[unit]}?" if unit in _MEANT else ""
        raise ValueError(f"needs a size, for example 512MiB or 4GiB{near}")
    size = float(found.group(1)) * _MIB_PER[unit]
    if size != int(size):
        raise ValueError("needs whole MiB")
    return int(size)


def duration_text(seconds: float) -> str:
    """A span as its two largest units: ``41 d 3 h``, ``2 h 5 min``, ``12 s``."""
    total = max(0, int(seconds))
    days, rest = divmod(total, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {secs} s" if secs else f"{minutes} min"
    return f"{secs} s"


def pause_text(milliseconds: float) -> str:
    """A short span: ``300 ms``, ``1 s``, ``1.5 s``."""
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{round(milliseconds / 1000, 1):g} s"


def rate_text(bytes_per_s: float) -> str:
    """A rate with a binary unit: ``7.9 MiB/s``."""
    return f"{size_text(bytes_per_s)}/s"


def slowing_text(percent: int) -> str:
    """How far a hypervisor slows a guest, before what follows; negative if it does not."""
    if percent < 0:
        return ""
    return f"now: slows the guest by {percent} %; " if percent else "now: begins to slow the guest; "


def clock_text(seconds: float) -> str:
    """A span as a stop watch shows it: ``0:40``, ``12:05``, ``1:02:03``."""
    total = max(0, int(seconds))
    hours, rest = divmod(total, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def time_text(at_s: float) -> str:
    """A moment as local time of day, ``03:02:11``."""
    return datetime.fromtimestamp(at_s).strftime("%H:%M:%S")


def moment_text(at_s: float) -> str:
    """A moment as local date and time of day, ``2026-03-01 03:02:11``."""
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d %H:%M:%S")


def iso_text(at_s: float) -> str:
    """A moment as ISO 8601 in UTC, for JSON."""
    return datetime.fromtimestamp(at_s, tz=UTC).isoformat(timespec="milliseconds")


def count_text(count: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 VM``, ``1,000 VMs``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def and_text(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


LONG_LINE = 100
"""From here on a place in a queue is not counted."""


def line_text(ahead: int) -> str:
    """A place in a queue: ``next in line``, ``2nd in line``; `ahead` are before it."""
    if ahead <= 0:
        return "next in line"
    if ahead >= LONG_LINE:
        return f"over {LONG_LINE} before it in line"
    place = ahead + 1
    last = place % 10 if place % 100 not in (11, 12, 13) else 0
    return f"{place}{({1: 'st', 2: 'nd', 3: 'rd'}).get(last, 'th')} in line"

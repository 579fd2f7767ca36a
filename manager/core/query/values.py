"""What people type for figures and times: ``4GiB``, ``1h30min``, ``-2h``, ``2026-11-22``, ``14:00``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_SIZES = {"": 1, **{unit: 1024**power for power, unit in enumerate("BKMGTP")}}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP])i?B?|(B))(?:/s)?", re.IGNORECASE)
_SPANS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|sec|days?|hours?|weeks?|[smhdw])", re.IGNORECASE)
_LONG = {"day": "d", "days": "d", "hour": "h", "hours": "h", "week": "w", "weeks": "w"}

DAY_S = 86400.0
ENDLESS = float("inf")


def number(text: str) -> float | None:
    """A plain number, or None."""
    return float(text) if _NUMBER.fullmatch(text) else None


def size_bytes(text: str) -> float | None:
    """A size or rate with a unit, all binary (``4G`` is ``4GiB``), in bytes; None if it is none."""
    found = _SIZE.fullmatch(text)
    return float(found[1]) * _SIZES[(found[2] or "B").upper()] if found else None


def span_s(text: str) -> float | None:
    """A span such as ``90s``, ``1h30min``, ``2 days``, in seconds; None if it is none."""
    at, total = 0, 0.0
    text = text.strip()
    while found := _SPAN_PART.match(text, at):
        unit = found[2].lower()
        total += float(found[1]) * _SPANS[_LONG.get(unit, unit)]
        at = found.end()
        while text[at : at + 1] == " ":
            at += 1
    return total if text and at == len(text) else None


def moments(text: str, now_s: float) -> tuple[float, float] | None:
    """The time that a text means, as its first moment and the one after its last, both epoch seconds.

    ``now``, ``today``, ``yesterday``, ``-2h`` (a moment so long ago), ``14:00``, ``2026-11-22``,
    ``2026-11-22T14:00``, all in local time unless they have an offset. None if it is no time.
    """
    lower = text.lower()
    if lower == "now":
        return now_s, now_s
    if lower.startswith("-"):
        span = span_s(lower[1:])
        return None if span is None else (now_s - span, now_s - span)
    try:
        now = datetime.fromtimestamp(now_s)
        if lower in ("today", "yesterday"):
            day = now.replace(hour=0, minute=0, second=0, microsecond=0)
            day -= timedelta(days=lower == "yesterday")
            return day.timestamp(), (day + timedelta(days=1)).timestamp()
        if re.fullmatch(r"\d\d?:\d\d(:\d\d)?", text):
            hour, minute, *second = (int(part) for part in text.split(":"))
            at = now.replace(hour=hour, minute=minute, second=second[0] if second else 0, microsecond=0)
            return at.timestamp(), at.timestamp() + (1 if second else 60)
        at = datetime.fromisoformat(text)
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return at.timestamp(), (at + timedelta(days=1)).timestamp()
        exact = re.search(r"T\d\d:\d\d:\d\d", text)
        return at.timestamp(), at.timestamp() + (1 if exact else 60)
    except (ValueError, OverflowError, OSError):
        return None


def since(text: str, now_s: float) -> float | None:
    """From when on: how long ago (``2h``), a time of day that is past (``02:00``), or a date and time."""
    seconds = span_s(text)
    if seconds is not None:
        return now_s - seconds if seconds < now_s else None
    found = moments(text, now_s)
    if found is None:
        return None
    is_ahead = found[0] > now_s and re.fullmatch(r"\d\d?:\d\d(:\d\d)?", text.strip())
    return found[0] - DAY_S if is_ahead else found[0]

"""The nearest known words to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(wrong: str, known: Iterable[str]) -> list[str]:
    """Up to three known words like this one, the likest first; upper and lower case are one."""
    by_lower = {word.lower(): word for word in known}
    return [by_lower[w] for w in difflib.get_close_matches(wrong.lower(), list(by_lower), n=3, cutoff=0.6)]


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known words, or nothing; begins with a space."""
    near = nearest(wrong, known)
    return f" Did you mean {' or '.join(near)}?" if near else ""

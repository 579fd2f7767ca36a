"""Finding by some of the letters: `erp 7` and `lmb` find `erp-07` and `Live migrate: Best node`."""

from __future__ import annotations

import re
from collections.abc import Callable

Rank = Callable[[str, str], int | None]
"""How well a text and its kind, both in lower case, fit: less is better; None: not at all."""

_NEAR = 4
"""From here on the letters of a word do not stand together; the farther apart, the worse."""


def ranking(wanted: str) -> Rank:
    """Each word must stand in the text, together or its letters in order, or begin a word of the kind."""
    parts = [(word, re.compile(".*?".join(map(re.escape, word)))) for word in wanted.lower().split()]

    def rank(text: str, kind: str) -> int | None:
        total = 0
        for word, letters in parts:
            at = text.find(word)
            if at == 0:
                total += text[len(word) : len(word) + 1].isalnum()  # a whole word is better than a part
            elif at > 0:
                total += 2 if not text[at - 1].isalnum() else 3
            elif kind.startswith(word) or f" {word}" in kind:
                total += 3
            elif found := letters.search(text):
                total += _NEAR + found.end() - found.start() - len(word)
            else:
                return None
        return total

    return rank


def matched(wanted: str, text: str) -> frozenset[int]:
    """Places of the letters of a text by which it was found."""
    lower, places = text.lower(), set[int]()
    if len(lower) != len(text):
        return frozenset()  # a letter whose small form is two
    for word in wanted.lower().split():
        at = lower.find(word)
        if at >= 0:
            places.update(range(at, at + len(word)))
            continue
        found = re.search("(" + ").*?(".join(map(re.escape, word)) + ")", lower)
        if found is not None:
            places.update(found.start(group) for group in range(1, len(word) + 1))
    return frozenset(places)

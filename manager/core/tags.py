"""Tags: what may be one, and what a change makes of those that a VM has."""

from __future__ import annotations

from collections.abc import Iterable

from manager.core.reasons import Reason, ReasonCode, because

MAX_LENGTH = 64
"""Characters of one tag."""

MAX_TAGS = 64
"""Tags of one VM."""


def words_of(text: str) -> tuple[str, ...]:
    """Tags as people write them, separated by commas: each once, in order."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def trouble(tags: Iterable[str]) -> Reason | None:
    """Why one of these cannot be a tag: a VM's metadata and the lists must carry it as it is written."""
    for tag in tags:
        if not tag or tag != tag.strip() or not tag.isprintable() or "," in tag:
            return because(ReasonCode.TAG_CHARACTERS, tag=ascii(tag)[1:-1][:MAX_LENGTH])
        if len(tag) > MAX_LENGTH:
            return because(ReasonCode.TAG_LENGTH, tag=f"{tag[:16]}…", count=len(tag), most=MAX_LENGTH)
    return None


def changed(
    now: tuple[str, ...],
    *,
    tags: tuple[str, ...] | None = None,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
) -> tuple[str, ...]:
    """The tags afterwards: `tags` in place of those there were, then without some and with others."""
    gone = set(remove)
    kept = (tag for tag in (now if tags is None else tags) if tag not in gone)
    return tuple(dict.fromkeys((*kept, *add)))


def difference(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which came, and which went."""
    return tuple(t for t in after if t not in before), tuple(t for t in before if t not in after)

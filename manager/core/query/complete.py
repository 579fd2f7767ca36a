"""What may stand where the cursor is in a query: fields, their values, shorthands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from manager.core.cluster import ClusterView
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS, TERMS
from manager.core.query.filter import NOTHING, UNKNOWN
from manager.core.query.flags import FLAGS
from manager.core.query.query import FLAG, Operator, Term, Value, text_of
from manager.core.query.spec import FieldKind, FieldSpec, Unavailable, natural

MOST = 50
"""Candidates that are offered at once."""

_BEGUN_VALUE = re.compile(
    r"(?P<field>[^\s()\":<>=!,]+)(?::|[<>]=?|!?=)(?:(?:\"[^\"]*\"|[^\s()\",]*),)*(?P<begun>\"[^\"]*|[^\s()\",]*)$"
)
_BEGUN_WORD = re.compile(r"[^\s()\":<>=!]*$")

_EXAMPLES = {
    FieldKind.SIZE_MIB: ("4GiB", "2GiB..8GiB"),
    FieldKind.BYTES: ("4GiB", "2GiB..8GiB"),
    FieldKind.RATE: ("100MiB/s",),
    FieldKind.PERCENT: ("80%", "50..80"),
    FieldKind.SECONDS: ("..1h", "1d.."),
    FieldKind.TIME: ("today", "yesterday", "1h", "1d"),
    FieldKind.COUNT: ("0", "1.."),
    FieldKind.BOOL: ("yes", "no"),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that may be put in, and what it means."""

    text: str
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What may stand in the place of ``[start:end]`` of the text."""

    start: int
    end: int
    candidates: tuple[Candidate, ...] = ()


Known = Callable[[FieldSpec], Iterable[str]]
"""The values that objects have in a field now, as far as the asker knows any."""


def complete(text: str, cursor: int, kind: Kind, known: Known = lambda spec: ()) -> Completion:
    """What may stand at the cursor; the end of what is typed already is kept."""
    before = text[:cursor]
    value = _BEGUN_VALUE.search(before)
    if value is not None:
        begun = value["begun"].lstrip('"').lower()
        found = _values(value["field"].lower(), kind, known)
        fitting = [each for each in found if each.text.strip('"').lower().startswith(begun)]
        return Completion(cursor - len(value["begun"]), cursor, tuple(fitting[:MOST]))
    word = _BEGUN_WORD.search(before)
    assert word is not None
    begun = word[0].lower()
    fields = [
        Candidate(f"{spec.term}:", spec.doc)
        for spec in FIELDS[kind].values()
        if spec.term.startswith(begun) or spec.title.lower().startswith(begun)
    ]
    if FLAGS.get(kind) and FLAG.startswith(begun):
        fields.append(Candidate(f"{FLAG}:", "A shorthand"))
    if before[: word.start()].strip() and begun:
        fields += [Candidate(each) for each in ("and", "or", "not") if each.startswith(begun)]
    return Completion(word.start(), cursor, tuple(fields[:MOST]))


def values_in(view: ClusterView, rows: Iterable[Any], spec: FieldSpec) -> list[str]:
    """The different values that objects have in a field, in natural order; none for figures and sentences."""
    if spec.kind not in (FieldKind.TEXT, FieldKind.ENUM, FieldKind.LIST) or spec.prose:
        return []
    get = spec.get
    found: set[str] = set()
    for value in {get(view, row) for row in rows}:
        if value is None or isinstance(value, Unavailable):
            continue
        if spec.kind is FieldKind.LIST:
            found.update(str(each) for each in value)
        else:
            plain = spec.json(value)
            found.add(plain if isinstance(plain, str) else spec.text(value))
    return sorted(found, key=lambda text: natural(text.lower()))


def _values(word: str, kind: Kind, known: Known) -> list[Candidate]:
    if word == FLAG:
        return [Candidate(flag.word, flag.doc) for flag in FLAGS.get(kind, {}).values()]
    spec = TERMS[kind].get(word)
    if spec is None:
        return []
    texts = [word.lower() for word in spec.words] or list(known(spec))
    made = [Candidate(_as_value(text)) for text in texts if text]
    made += [Candidate(text) for text in _EXAMPLES.get(spec.kind, ()) if not texts]
    return [*made, Candidate(NOTHING, "It has none"), Candidate(UNKNOWN, "It is not known")]


def _as_value(text: str) -> str:
    return text_of(Term("", Operator.IS, (Value.of(text),)))[1:]

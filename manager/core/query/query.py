"""A query as a value, and its one text: what search boxes, saved views and ``--where`` all hold.

``and`` binds closer than ``or``; words side by side are joined by ``and``. `text_of` writes the shortest text
that `manager.core.query.parser.parse` reads back as an equal query.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from manager.core.errors import UserError

Span = tuple[int, int]
"""Where something stands in the text: its first character and the one after its last."""

KEYWORDS = frozenset({"and", "or", "not"})
FLAG = "is"
"""The word before the colon of a shorthand: ``is:running``."""

MAX_CHARS = 2000
MAX_DEPTH = 40


class QueryError(UserError):
    """A text that is no query, or asks for what there is not. Nothing was changed.

    `span` is the place in the text; `message` a sentence without it.
    """

    def __init__(self, message: str, span: Span) -> None:
        super().__init__(message)
        self.message = message
        self.span = span

    def pointing(self, text: str) -> str:
        """The message with the text and a mark below the place, for a terminal."""
        if "\n" in text or not text:
            return self.message
        start, end = self.span
        return f"{self.message}\n  {text}\n  {' ' * start}{'^' * max(1, end - start)}"


class Operator(StrEnum):
    """How a field is compared."""

    IS = ":"  # equal; a pattern; for sentences: occurs in it
    EQUAL = "="
    NOT = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="

    @property
    def orders(self) -> bool:
        """It needs values that are more or less than others."""
        return self in (Operator.LESS, Operator.AT_MOST, Operator.MORE, Operator.AT_LEAST)


@dataclass(frozen=True, slots=True)
class Value:
    """What a field is compared with, as typed. Quoted: stars are stars, and words are no keywords."""

    text: str
    quoted: bool = False
    span: Span = field(default=(0, 0), compare=False, repr=False)

    @classmethod
    def of(cls, text: str) -> Value:
        """This text, quoted if it must be."""
        return cls(text, quoted=not _BARE_VALUE.fullmatch(text))


@dataclass(frozen=True, slots=True)
class Words:
    """A text that occurs in what is shown, whatever the column."""

    text: str
    quoted: bool = False
    span: Span = field(default=(0, 0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Term:
    """A field compared with values; of several, one must fit (with ``!=``: none may)."""

    name: str  # of the field, as typed
    operator: Operator
    values: tuple[Value, ...]
    span: Span = field(default=(0, 0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Flag:
    """A shorthand: ``is:migrating``."""

    word: str
    span: Span = field(default=(0, 0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """What the part does not match."""

    part: Query


@dataclass(frozen=True, slots=True)
class AllOf:
    """What every part matches; without parts: everything."""

    parts: tuple[Query, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What at least one part matches."""

    parts: tuple[Query, ...]


Query = Words | Term | Flag | Not | AllOf | AnyOf

EVERYTHING = AllOf()
"""The empty query."""

UNIT = r"(?:[KMGT]i?B?(?:/s)?|%|ms|s|sec|min|h|d|w|days?|hours?)(?![^\s(),])"
"""What a figure takes as its unit though a space stands between."""

_UNIT_AFTER = re.compile(UNIT, re.IGNORECASE)
_FIGURE_AT_END = re.compile(r"[,:<>=]-?\d+(?:\.\d+)?$")
_BARE_VALUE = re.compile(r"[^\s()\",:<>=!][^\s()\",]*")
_BARE_WORD = re.compile(r"(?:[^\s()\":<>=!]|!(?!=))+")


def is_bare_word(text: str) -> bool:
    """Whether a free text stands for itself without quotes."""
    return bool(_BARE_WORD.fullmatch(text)) and text.lower() not in KEYWORDS


def text_of(query: Query) -> str:
    """The query as text; the empty one is the empty text."""
    return _text(query, 0)


def all_of(*parts: Query) -> Query:
    """Both and all; what is said by nothing is left out, and one alone stands for itself."""
    flat: list[Query] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, AllOf) else (part,))
    return flat[0] if len(flat) == 1 else AllOf(tuple(flat))


def any_of(*parts: Query) -> Query:
    """One of them; one alone stands for itself."""
    flat: list[Query] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, AnyOf) else (part,))
    return flat[0] if len(flat) == 1 else AnyOf(tuple(flat))


_OUTSIDE, _IN_ANY, _IN_ALL, _IN_NOT = range(4)


def _text(query: Query, place: int) -> str:
    match query:
        case Words(text, quoted):
            return _quoted(text) if quoted else text
        case Flag(word):
            return f"{FLAG}:{word}"
        case Term(name, operator, values):
            return f"{name}{operator.value}{','.join(_value(value) for value in values)}"
        case Not(part):
            return f"not {_text(part, _IN_NOT)}"
        case AllOf(parts):
            text = _joined([_text(part, _IN_ALL) for part in parts])
            return f"({text})" if place >= _IN_ALL or (place and not parts) else text
        case AnyOf(parts):
            text = " or ".join(_text(part, _IN_ANY) for part in parts)
            return f"({text})" if place >= _IN_ANY else text


def _joined(texts: list[str]) -> str:
    """Side by side; with ``and`` where a text would be read as the unit of the figure before it."""
    whole = texts[0] if texts else ""
    for text in texts[1:]:
        unit = _FIGURE_AT_END.search(whole) and _UNIT_AFTER.match(text)
        whole += f" and {text}" if unit else f" {text}"
    return whole


def _value(value: Value) -> str:
    return _quoted(value.text) if value.quoted else value.text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""A term as people choose it in rows: a comparison in words and the texts of its values, and back.

Which comparisons there are follows from the field's kind. `read` and `write` undo each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from manager.core.query import values
from manager.core.query.filter import NOTHING, UNKNOWN, is_pattern, is_special
from manager.core.query.query import Operator, QueryError, Term, Value, Words, is_bare_word, text_of
from manager.core.query.spec import FieldKind, FieldSpec


class Comparison(StrEnum):
    """How a criterion compares, in the words for most fields; `label` has those for all."""

    IS = "is"
    IS_NOT = "is not"
    EXACTLY = "is exactly"
    CONTAINS = "contains"
    CONTAINS_NOT = "does not contain"
    STARTS = "starts with"
    MATCHES = "matches"
    MATCHES_NOT = "does not match"
    MORE = "more than"
    AT_LEAST = "at least"
    LESS = "less than"
    AT_MOST = "at most"
    BETWEEN = "between"
    NOT_BETWEEN = "not between"
    WITHIN = "within the last"
    KNOWN = "is known"
    UNKNOWN = "is unknown"
    SOME = "is not none"
    NONE = "is none"

    @property
    def texts(self) -> int:
        """How many texts it takes."""
        return _TEXTS.get(self, 1)


_C = Comparison
_TEXTS = {_C.BETWEEN: 2, _C.NOT_BETWEEN: 2, _C.KNOWN: 0, _C.UNKNOWN: 0, _C.SOME: 0, _C.NONE: 0}
_SPECIAL = {_C.UNKNOWN: UNKNOWN, _C.KNOWN: UNKNOWN, _C.NONE: NOTHING, _C.SOME: NOTHING}
_DENIED = frozenset({_C.IS_NOT, _C.CONTAINS_NOT, _C.MATCHES_NOT, _C.NOT_BETWEEN, _C.KNOWN, _C.SOME})
_ORDERS = {
    _C.LESS: Operator.LESS,
    _C.AT_MOST: Operator.AT_MOST,
    _C.MORE: Operator.MORE,
    _C.AT_LEAST: Operator.AT_LEAST,
}
_BY_ORDER = {sign: comparison for comparison, sign in _ORDERS.items()}
_LITERAL = frozenset({_C.IS, _C.IS_NOT, _C.EXACTLY})
"""Comparisons in which a star is a star."""

_TIME_LABELS = {_C.MORE: "after", _C.AT_LEAST: "since", _C.LESS: "before", _C.AT_MOST: "until"}
_LIST_LABELS = {
    _C.IS: "includes",
    _C.IS_NOT: "does not include",
    _C.MATCHES: "includes one like",
    _C.MATCHES_NOT: "includes none like",
}

WORDS = (_C.CONTAINS, _C.MATCHES)
"""What free text can be compared by."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A comparison and its texts as typed; several values stand in one text, with commas."""

    comparison: Comparison
    texts: tuple[str, ...] = ()


def label(comparison: Comparison, spec: FieldSpec | None) -> str:
    """The comparison as people read it beside this field."""
    if spec is not None and spec.kind is FieldKind.TIME:
        return _TIME_LABELS.get(comparison, comparison.value)
    if spec is not None and spec.kind is FieldKind.LIST:
        return _LIST_LABELS.get(comparison, comparison.value)
    return comparison.value


def comparisons(spec: FieldSpec) -> tuple[Comparison, ...]:
    """What a field's values can be compared by."""
    orders = (_C.MORE, _C.AT_LEAST, _C.LESS, _C.AT_MOST)
    found: tuple[Comparison, ...]
    match spec.kind:
        case _ if spec.ranks is not None:
            found = (_C.IS, _C.IS_NOT, *orders)
        case FieldKind.BOOL:
            found = (_C.IS,)
        case FieldKind.TIME:
            found = (_C.WITHIN, _C.IS, _C.LESS, _C.MORE, _C.AT_LEAST, _C.AT_MOST, _C.BETWEEN)
        case FieldKind.SECONDS:
            found = (*orders, _C.BETWEEN)
        case _ if spec.kind.is_number:
            found = (_C.IS, _C.IS_NOT, *orders, _C.BETWEEN)
        case _ if spec.prose:
            found = (_C.CONTAINS, _C.CONTAINS_NOT, _C.EXACTLY, _C.MATCHES)
        case FieldKind.TEXT:
            found = (_C.CONTAINS, _C.IS, _C.IS_NOT, _C.STARTS, _C.MATCHES, _C.MATCHES_NOT)
        case _:
            found = (_C.IS, _C.IS_NOT, _C.MATCHES, _C.MATCHES_NOT)
    special = ((_C.KNOWN, _C.UNKNOWN), (_C.SOME, _C.NONE))
    return found + tuple(each for pair in special for each in pair if is_special(spec, Value(_SPECIAL[each])))


def read(term: Term, spec: FieldSpec | None) -> Criterion:
    """The term in the words that say it best. `spec` is None for a field that there is not."""
    for criterion in _readings(term, spec):
        try:
            if write(criterion, term.name, spec, term.operator) == term:
                return criterion
        except QueryError:
            continue  # it says less than the term
    plain = _plain(term.operator)
    return Criterion(plain, (_shown(term.values, plain, spec),))


def write(
    criterion: Criterion, name: str, spec: FieldSpec | None, sign: Operator | None = None
) -> Term | None:
    """The term; None while a text is missing. `sign` is kept where it says the same.

    Raises:
        QueryError: The texts cannot be compared so.
    """
    comparison, texts = criterion.comparison, tuple(text.strip() for text in criterion.texts)
    operator = _operator(comparison, spec)
    if (
        sign is not None
        and {sign, operator} == {Operator.IS, Operator.EQUAL}
        and comparison is not _C.EXACTLY
    ):
        # In prose they differ, but for patterns: those stand for all of it with either sign.
        differ = spec is not None and spec.prose and comparison is not _C.MATCHES
        operator = operator if differ else sign
    found: tuple[Value, ...]
    if comparison in _SPECIAL:
        found = (Value(_SPECIAL[comparison]),)
    elif not any(texts):
        return None
    elif comparison.texts == 2:
        low, high = (_compact(text, spec) for text in texts)
        found = (Value.of(f"{low}..{high}"),)
    elif comparison in (_C.CONTAINS, _C.STARTS) and not (spec is not None and spec.prose):
        found = (_around(texts[0], comparison),)
    else:
        found = _values(texts[0], comparison, spec)
        if comparison is _C.WITHIN and any(values.span_s(value.text) is None for value in found):
            title = spec.title if spec else name
            raise QueryError(f"{title} needs a span such as 2h, 1d or 1h30min, not {texts[0]}.", (0, 0))
    return Term(name, operator, found) if found else None


def read_words(words: Words) -> Criterion:
    """Free text as a criterion."""
    return Criterion(_C.MATCHES if is_pattern(words) else _C.CONTAINS, (words.text,))


def write_words(criterion: Criterion) -> Words | None:
    """A criterion as free text; None while there is none.

    Raises:
        QueryError: It is no pattern.
    """
    text = criterion.texts[0]
    if not text:
        return None
    if criterion.comparison is _C.MATCHES:
        if not is_bare_word(text):
            raise QueryError(_NO_PATTERN, (0, 0))
        return Words(text)
    return Words(text, quoted=not is_bare_word(text) or is_pattern(Words(text)))


# --- inside ----------------------------------------------------------------------------------------

_PIECE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,])+', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NO_PATTERN = "A pattern has no spaces, quotes, brackets, commas, colons or signs; put ? for each."


def _plain(operator: Operator) -> Comparison:
    if operator in _BY_ORDER:
        return _BY_ORDER[operator]
    return _C.IS_NOT if operator is Operator.NOT else _C.IS


def _operator(comparison: Comparison, spec: FieldSpec | None) -> Operator:
    if comparison in _ORDERS:
        return _ORDERS[comparison]
    if comparison in _DENIED:
        return Operator.NOT
    return Operator.EQUAL if comparison is _C.EXACTLY else Operator.IS


def _readings(term: Term, spec: FieldSpec | None) -> list[Criterion]:
    """What it may be, the best first; one that loses something is found by writing it."""
    operator, only = term.operator, term.values[0] if len(term.values) == 1 else None
    denied, found = operator is Operator.NOT, []
    if only is not None and not operator.orders:
        if spec is not None and is_special(spec, only):
            unknown = only.text.lower() == UNKNOWN
            pair = (_C.KNOWN, _C.UNKNOWN) if unknown else (_C.SOME, _C.NONE)
            found.append(Criterion(pair[not denied]))
        elif spec is not None and spec.kind.is_number and ".." in only.text:
            low, _, high = only.text.partition("..")
            found.append(Criterion(_C.NOT_BETWEEN if denied else _C.BETWEEN, (low, high)))
        elif spec is not None and spec.kind is FieldKind.TIME and not denied:
            found.append(Criterion(_C.WITHIN, (only.text,)))
        elif is_pattern(only) and not denied and spec is not None and spec.kind is FieldKind.TEXT:
            inner = only.text.strip("*")
            if not spec.prose:
                found += [Criterion(_C.CONTAINS, (inner,)), Criterion(_C.STARTS, (inner,))]
    if any(is_pattern(value) for value in term.values) and not operator.orders:
        tried = [_C.MATCHES_NOT if denied else _C.MATCHES]
    elif spec is not None and spec.prose and not operator.orders:
        tried = [_C.EXACTLY if operator is Operator.EQUAL else _C.CONTAINS_NOT if denied else _C.CONTAINS]
    else:
        tried = []
    return found + [
        Criterion(each, (_shown(term.values, each, spec),)) for each in [*tried, _plain(operator)]
    ]


def _around(text: str, comparison: Comparison) -> Value:
    """The pattern for what contains or starts with a text."""
    value = Value.of(f"*{text}*" if comparison is _C.CONTAINS else f"{text}*")
    if value.quoted or is_pattern(Value(text)):
        raise QueryError(_NO_PATTERN.replace("A pattern", f"What it {comparison.value}"), (0, 0))
    return value


def _compact(text: str, spec: FieldSpec | None) -> str:
    """``4 GiB`` as ``4GiB``."""
    if spec is not None and spec.kind.is_number and spec.kind is not FieldKind.TIME:
        return re.sub(r"\s+", "", text)
    return text


def _value(piece: str, comparison: Comparison, spec: FieldSpec | None) -> Value:
    if quoted := _QUOTED.fullmatch(piece):
        return Value(_ESCAPED.sub(r"\1", quoted[1]), quoted=True)
    value = Value.of(_compact(piece, spec))
    if is_pattern(value) and comparison in _LITERAL:
        return Value(value.text, quoted=True)
    if value.quoted and is_pattern(Value(value.text)) and comparison in (_C.MATCHES, _C.MATCHES_NOT):
        raise QueryError(_NO_PATTERN, (0, 0))
    return value


def _values(text: str, comparison: Comparison, spec: FieldSpec | None) -> tuple[Value, ...]:
    pieces = (piece.strip() for piece in _PIECE.findall(text))
    return tuple(_value(piece, comparison, spec) for piece in pieces if piece)


def _shown(found: tuple[Value, ...], comparison: Comparison, spec: FieldSpec | None) -> str:
    """Values as they are typed: quoted only where they must be."""
    texts = []
    for value in found:
        try:
            again = _values(value.text, comparison, spec)
        except QueryError:
            again = ()
        quoted = text_of(Words(value.text, quoted=True))
        is_plain = again == (value,) and '"' not in value.text  # which would go on into the next one
        texts.append(value.text if is_plain else quoted)
    return ", ".join(texts)

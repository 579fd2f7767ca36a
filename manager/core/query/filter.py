"""Does an object match a query? In three values: what is compared with the unknown is neither true nor false.

So neither ``memory>4GiB`` nor ``not memory>4GiB`` finds a VM whose node is silent; ``memory:unknown`` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from manager.core.cluster import ClusterView
from manager.core.ids import Kind
from manager.core.query import values
from manager.core.query.fields import FIELDS, TERMS
from manager.core.query.flags import FLAGS
from manager.core.query.parser import parse
from manager.core.query.query import (
    FLAG,
    AllOf,
    AnyOf,
    Flag,
    Not,
    Operator,
    Query,
    QueryError,
    Term,
    Value,
    Words,
)
from manager.core.query.spec import FieldKind, FieldSpec, Unavailable
from manager.core.query.suggest import did_you_mean

Answer = bool | None
Test = Callable[[ClusterView, Any, str], Answer]
"""(view, object, its search text) -> yes, no, or not known."""

Fits = Callable[[ClusterView, Any], bool]
"""(view, a known value) -> whether it fits one value of a term."""

_VALUES = 500
"""Of so many different values of a field a query keeps whether they fit."""

UNKNOWN, NOTHING = "unknown", "none"
"""Values, without quotes, of what is not known and of what is not there."""


class Matcher:
    """A query made ready for one kind of object.

    Raises:
        QueryError: It names what there is not; with the place and the nearest there is.
    """

    def __init__(self, query: Query, kind: Kind) -> None:
        self.query = query
        self.kind = kind
        self.samples = False  # load samples are needed
        self.reads = False  # the search text is looked at
        self.ages = False  # the answer may change though nothing of the object does
        found: set[str] = set()
        self._depends = found
        parts = query.parts if isinstance(query, AllOf) else (query,)
        compiled = [(part, self._compile(part)) for part in parts]
        self._test = _all([test for _, test in compiled])
        plain = [part for part in parts if isinstance(part, Words) and not is_pattern(part)]
        self.words = tuple(part.text.lower() for part in plain)
        """Texts that must all occur in the search text, in lower case."""
        self.tests = tuple(test for part, test in compiled if part not in plain)
        """What is to be asked besides; each must say yes."""
        self.is_plain = not self.tests
        """There is nothing else to it than `words`."""
        self._sought = [re.compile(_pattern(t) if p else re.escape(t)) for t, p in _sought(query)]
        self.depends = frozenset(found)
        """Attributes of the object whose change may change the answer; ``*``: any."""

    def test(self, view: ClusterView, item: Any, hay: str) -> bool:
        """Whether the object matches, `hay` being its `search_text`."""
        return self._test(view, item, hay) is True

    def select(self, view: ClusterView, items: Iterable[Any]) -> list[Any]:
        """Those that match, in their order."""
        return [item for item in items if self.test(view, item, search_text(view, self.kind, item))]

    @property
    def has_marks(self) -> bool:
        """Whether there are free words to be found in cells."""
        return bool(self._sought)

    def marks(self, text: str) -> list[tuple[int, int]]:
        """Where in a cell's text the free words stand: from, to, in order, none of them touching."""
        folded = text.lower()
        found = sorted(hit.span() for find in self._sought for hit in find.finditer(folded))
        merged: list[tuple[int, int]] = []
        for first, end in found:
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            elif end > first:
                merged.append((first, end))
        if merged and len(folded) != len(text):  # few letters become two in lower case
            places = [at for at, letter in enumerate(text) for _ in letter.lower()]
            return [(places[first], places[end - 1] + 1) for first, end in merged]
        return merged

    # --- from a query to a function -----------------------------------------------------------

    def _compile(self, query: Query) -> Test:
        match query:
            case Words():
                return self._words(query)
            case Term():
                return self._term(query)
            case Flag(word, span):
                known = FLAGS.get(self.kind, {})
                if word not in known:
                    near = did_you_mean(word, known) or f" There is: {', '.join(known) or 'nothing'}."
                    raise QueryError(f"There is no {FLAG}:{word} for {self.kind.plural}.{near}", span)
                return self._compile(known[word].query)
            case Not(part):
                return _not(self._compile(part))
            case AllOf(parts):
                return _all([self._compile(part) for part in parts])
            case AnyOf(parts):
                return _any([self._compile(part) for part in parts])

    def _words(self, part: Words) -> Test:
        self.reads = True
        for spec in FIELDS[self.kind].values():
            if spec.searchable:
                self._follow(spec)
        text = part.text.lower()
        if not is_pattern(part):
            return lambda view, item, hay: text in hay
        find = re.compile(_pattern(text, gap="[^\n]")).search
        return lambda view, item, hay: find(hay) is not None

    def _follow(self, spec: FieldSpec) -> None:
        self._depends.update(spec.depends)
        self.samples = self.samples or spec.sample
        self.ages = self.ages or spec.volatile

    def _term(self, term: Term) -> Test:
        spec = field_named(self.kind, term)
        self._follow(spec)
        if spec.kind in (FieldKind.SECONDS, FieldKind.TIME):
            self.ages = True
        operator = term.operator
        if operator.orders and len(term.values) > 1:
            raise QueryError(f"{operator.value} takes one value.", term.span)
        special = {v.text.lower() for v in term.values if is_special(spec, v)}
        if special and operator.orders:
            raise QueryError(f"Nothing is more or less than {special.pop()}; write {spec.term}:…", term.span)
        fits = [_fits(spec, operator, value) for value in term.values if not is_special(spec, value)]
        unknown, nothing = UNKNOWN in special, NOTHING in special
        denied = operator is Operator.NOT
        hidden: Answer = not denied if unknown else (None if fits or nothing else denied)

        def judge(view: ClusterView, value: Any) -> bool:
            if value is None or (not value and (value == () or value == "")):
                return nothing != denied
            return any(fit(view, value) for fit in fits) is not denied

        if not spec.kind.is_number:
            return _by_value(spec.get, hidden, judge)
        return _by_figure(spec.get, hidden, judge, fits[0] if len(fits) == 1 and not denied else judge)


def _sought(query: Query) -> list[tuple[str, bool]]:
    """The free words, in lower case, and whether each is a pattern; none of what is not to be there."""
    match query:
        case Words(text) if text.strip("*?") or not is_pattern(query):
            return [(text.lower(), is_pattern(query))]
        case AllOf(parts) | AnyOf(parts):
            return [word for part in parts for word in _sought(part)]
    return []


def matcher(text: str, kind: Kind) -> Matcher:
    """A query's text made ready.

    Raises:
        QueryError: It is no query, or names what there is not.
    """
    return Matcher(parse(text), kind)


def search_text(view: ClusterView, kind: Kind, item: Any) -> str:
    """What free text is looked for in: the texts of the searchable fields in lower case, a line each."""
    return "\n".join(spec.cell(view, item) for spec in _searchable(kind)).lower()


def field_named(kind: Kind, term: Term) -> FieldSpec:
    """The field a term is about.

    Raises:
        QueryError: There is none of that name.
    """
    spec = TERMS[kind].get(term.name.lower())
    if spec is None:
        near = did_you_mean(term.name, [*(spec.term for spec in FIELDS[kind].values()), FLAG])
        near = near or f' To find the text itself: "{term.name}{term.operator.value}…"'
        who = kind.plural[:1].upper() + kind.plural[1:]
        raise QueryError(
            f"{who} have no field {term.name}.{near}",
            (term.span[0], term.span[0] + len(term.name)),
        )
    return spec


def _searchable(kind: Kind) -> tuple[FieldSpec, ...]:
    return tuple(spec for spec in FIELDS[kind].values() if spec.searchable)


# --- joining ---------------------------------------------------------------------------------------


def _not(part: Test) -> Test:
    def test(view: ClusterView, item: Any, hay: str) -> Answer:
        answer = part(view, item, hay)
        return None if answer is None else not answer

    return test


def _all(parts: list[Test]) -> Test:
    def test(view: ClusterView, item: Any, hay: str) -> Answer:
        whole: Answer = True
        for part in parts:
            answer = part(view, item, hay)
            if answer is False:
                return False
            if answer is None:
                whole = None
        return whole

    return test


def _any(parts: list[Test]) -> Test:
    def test(view: ClusterView, item: Any, hay: str) -> Answer:
        whole: Answer = False
        for part in parts:
            answer = part(view, item, hay)
            if answer:
                return True
            if answer is None:
                whole = None
        return whole

    return test


# --- one field -------------------------------------------------------------------------------------


def _by_value(get: Callable[[ClusterView, Any], Any], hidden: Answer, judge: Fits) -> Test:
    """A field of words, of which many objects have the same: each is judged once."""
    known: dict[Any, bool] = {}

    def test(view: ClusterView, item: Any, hay: str) -> Answer:
        value = get(view, item)
        if value.__class__ is Unavailable:
            return hidden
        answer = known.get(value)
        if answer is None:
            if len(known) >= _VALUES:
                known.clear()
            answer = known[value] = judge(view, value)
        return answer

    return test


def _by_figure(get: Callable[[ClusterView, Any], Any], hidden: Answer, judge: Fits, fits: Fits) -> Test:
    """A field of figures, of which each object has its own; `fits`: for those that are known."""

    def test(view: ClusterView, item: Any, hay: str) -> Answer:
        value = get(view, item)
        if value.__class__ is Unavailable:
            return hidden
        return judge(view, value) if value is None else fits(view, value)

    return test


# --- one value -------------------------------------------------------------------------------------


def is_special(spec: FieldSpec, value: Value) -> bool:
    """Whether the value means what is not known, or not there."""
    if value.quoted or value.text.lower() not in (UNKNOWN, NOTHING):
        return False
    return value.text.lower() not in (word.lower() for word in spec.words)


def is_pattern(value: Value | Words) -> bool:
    """Whether its stars and question marks stand for other characters."""
    return not value.quoted and ("*" in value.text or "?" in value.text)


def _pattern(text: str, gap: str = ".") -> str:
    """A pattern with ``*`` and ``?`` as a regular expression that never goes back over a star."""
    literals = [re.escape(part).replace(r"\?", gap) for part in re.sub(r"\*+", "*", text).split("*")]
    first, *rest = literals
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>{gap}*?{part})" for part in middle) + f"{gap}*{last}"


def _fits(spec: FieldSpec, operator: Operator, value: Value) -> Fits:
    if spec.ranks is not None and (operator.orders or value.text.lower() in spec.ranks):
        return _ranked(spec, operator, value)
    if spec.kind is FieldKind.TIME:
        return _time(spec, operator, value)
    if spec.kind.is_number and spec.ranks is None:
        return _figure(spec, operator, value)
    if operator.orders:
        raise QueryError(f"{spec.title} has no order; write {spec.term}:{value.text}", value.span)
    if spec.kind is FieldKind.BOOL:
        wanted = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
        if value.text.lower() not in wanted:
            raise QueryError(f"{spec.title} is yes or no.", value.span)
        right = wanted[value.text.lower()]
        return lambda view, found: bool(found) is right
    return _text(spec, operator, value)


def _text(spec: FieldSpec, operator: Operator, value: Value) -> Fits:
    text = value.text.lower()
    pattern = is_pattern(value)
    known = {word.lower() for word in spec.words}
    if known and not pattern and not value.quoted and text not in known:
        near = did_you_mean(value.text, spec.words) or f" It is one of: {', '.join(spec.words)}."
        raise QueryError(f"{spec.title} is never {value.text}.{near}", value.span)
    if pattern:
        find = re.compile(_pattern(text), re.DOTALL).fullmatch
        fits: Callable[[str], bool] = lambda found: find(found) is not None  # noqa: E731
    elif spec.prose and operator is not Operator.EQUAL:
        fits = lambda found: text in found  # noqa: E731
    else:
        fits = lambda found: found == text  # noqa: E731
    if spec.kind is FieldKind.LIST:
        return lambda view, found: any(fits(str(each).lower()) for each in found)
    shown, as_json = spec.text, spec.json

    def both(view: ClusterView, found: Any) -> bool:
        if fits(shown(found).lower()):
            return True
        plain = as_json(found)
        return isinstance(plain, str) and fits(plain.lower())

    return both


def _ranked(spec: FieldSpec, operator: Operator, value: Value) -> Fits:
    assert spec.ranks is not None
    rank = spec.ranks.get(value.text.lower())
    if rank is None:
        exact = values.number(value.text)
        if exact is None:
            near = did_you_mean(value.text, spec.words) or f" It is one of: {', '.join(spec.words)}."
            raise QueryError(f"{spec.title} is never {value.text}.{near}", value.span)
        return _compare(operator, exact)
    return _compare(operator, rank)


_EXAMPLES = {
    FieldKind.SIZE_MIB: "4GiB",
    FieldKind.BYTES: "4GiB",
    FieldKind.RATE: "100MiB/s",
    FieldKind.PERCENT: "80%",
    FieldKind.SECONDS: "1h30min",
    FieldKind.TIME: "today",
}
_SHARED_UNITS = {"GiB": 2**30, "MiB": 2**20, "MiB/s": 2**20}


def _figure(spec: FieldSpec, operator: Operator, value: Value) -> Fits:
    low, dots, high = value.text.partition("..")
    if dots and operator.orders:
        raise QueryError("A range stands after a colon.", value.span)
    first = _parse_figure(spec, low, value) if low or not dots else -values.ENDLESS
    if not dots:
        # What is shown is rounded; so is what is typed.
        coarse = spec.kind is FieldKind.PERCENT and first == int(first)
        if coarse and operator in (Operator.IS, Operator.EQUAL, Operator.NOT):
            return lambda view, found: round(found) == first
        if spec.kind is FieldKind.SECONDS and not operator.orders:
            raise QueryError(
                f"A span is compared with < or >, or with a range: {spec.term}<{value.text}", value.span
            )
        return _compare(operator, first)
    last = _parse_figure(spec, high, value) if high else values.ENDLESS
    return lambda view, found: bool(first <= found <= last)


def _parse_figure(spec: FieldSpec, text: str, value: Value) -> float:
    """The typed figure in the unit of the field's values; a bare one is in the unit of its column."""
    plain, unit = values.number(text), spec.unit.lower()
    found: float | None
    match spec.kind:
        case FieldKind.SIZE_MIB | FieldKind.BYTES | FieldKind.RATE:
            found = values.size_bytes(text)
            if found is None and plain is not None:
                found = plain * _SHARED_UNITS.get(spec.unit, 1)
            if found is not None and spec.kind is FieldKind.SIZE_MIB:
                found /= 2**20
        case FieldKind.SECONDS:
            found = values.span_s(text) if plain is None else plain
        case _:
            bare = text[: -len(unit)].strip() if unit and text.lower().endswith(unit) else text
            found = values.number(bare)
    if found is None:
        example = _EXAMPLES.get(spec.kind, f"12{spec.unit}")
        raise QueryError(
            f"{spec.title} needs a figure such as {example}, not {text or 'nothing'}.", value.span
        )
    return found


_NOWS = 64
"""Of so many moments the bounds of a time are kept; clusters have their own, and all go on."""


def _time(spec: FieldSpec, operator: Operator, value: Value) -> Fits:
    text = value.text
    span = values.span_s(text)
    if span is not None:
        if operator.orders or operator is Operator.EQUAL:
            raise QueryError(
                f"{spec.term}>-{text} is after that moment, {spec.term}:{text} within the last {text}.",
                value.span,
            )
        return lambda view, found: bool(view.now_s - span <= found)
    low, dots, high = text.partition("..")
    if values.moments(low or "now", 0) is None or (dots and values.moments(high or "now", 0) is None):
        raise QueryError(
            f"{spec.title} needs a time: today, 14:00, 2026-11-22, -2h (two hours ago), not {text}.",
            value.span,
        )
    if dots and operator.orders:
        raise QueryError("A range stands after a colon.", value.span)
    kept: dict[float, tuple[float, float]] = {}  # of each cluster's now

    def bounds(now_s: float) -> tuple[float, float]:
        if now_s not in kept:
            first = values.moments(low, now_s) if low else (-values.ENDLESS, 0.0)
            last = first if not dots else values.moments(high, now_s) if high else (0.0, values.ENDLESS)
            assert first is not None and last is not None
            if len(kept) >= _NOWS:
                kept.clear()
            kept[now_s] = (first[0], last[1])
        return kept[now_s]

    match operator:
        case Operator.LESS:
            return lambda view, found: bool(found < bounds(view.now_s)[0])
        case Operator.AT_MOST:
            return lambda view, found: bool(found < bounds(view.now_s)[1])
        case Operator.MORE:
            return lambda view, found: bool(found >= bounds(view.now_s)[1])
        case Operator.AT_LEAST:
            return lambda view, found: bool(found >= bounds(view.now_s)[0])

    def within(view: ClusterView, found: Any) -> bool:
        first, last = bounds(view.now_s)
        return bool(first <= found < last or first == found)

    return within


def _compare(operator: Operator, figure: float) -> Fits:
    match operator:
        case Operator.LESS:
            return lambda view, found: bool(found < figure)
        case Operator.AT_MOST:
            return lambda view, found: bool(found <= figure)
        case Operator.MORE:
            return lambda view, found: bool(found > figure)
        case Operator.AT_LEAST:
            return lambda view, found: bool(found >= figure)
    return lambda view, found: bool(found == figure)

"""Terms as people choose them in rows: what is read is written back, in words that fit the field."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manager.core.ids import Kind
from manager.core.query.criteria import (
    Comparison,
    Criterion,
    comparisons,
    label,
    read,
    read_words,
    write,
    write_words,
)
from manager.core.query.fields import FIELDS, TERMS
from manager.core.query.filter import Matcher
from manager.core.query.parser import parse
from manager.core.query.query import Operator, QueryError, Term, Value, Words, text_of
from manager.core.query.spec import FieldKind, FieldSpec
from tests.support import queries

FIELD = st.sampled_from([spec for kind in Kind for spec in FIELDS[kind].values()])
VALUE = st.one_of(
    queries.VALUES,
    st.sampled_from(["unknown", "none", "1..2", "..", "5..", "2h", "4GiB", "*a*", "a*", "today", "yes"]).map(
        Value.of
    ),
)


@example(FIELDS[Kind.VM]["information"], Operator.EQUAL, (Value.of("*a*"),))
@given(FIELD, st.sampled_from(Operator), st.lists(VALUE, min_size=1, max_size=3).map(tuple))
def test_what_is_read_is_written_back(spec: FieldSpec, operator: Operator, values: tuple[Value, ...]) -> None:
    term = Term(spec.term, operator, values)
    assert write(read(term, spec), spec.term, spec, operator) == term


@given(queries.TERMS)
def test_terms_without_a_field_are_kept_too(term: Term) -> None:
    assert write(read(term, None), term.name, None, term.operator) == term


@given(queries.WORDS)
def test_free_text_finds_the_same(words: Words) -> None:
    again = write_words(read_words(words))
    assert again is None if not words.text else again is not None
    if again is not None:
        assert (again.text, read_words(again)) == (words.text, read_words(words))
        assert parse(text_of(again)) == again


@given(FIELD, st.text(min_size=1, max_size=10), st.data())
def test_whatever_is_typed_is_a_term_or_a_sentence(spec: FieldSpec, text: str, data: st.DataObject) -> None:
    comparison = data.draw(st.sampled_from(comparisons(spec)))
    term = None
    with suppress(QueryError):
        term = write(Criterion(comparison, (text, "1")[: comparison.texts]), spec.term, spec)
    if term is not None:
        assert parse(text_of(term)) == term


@pytest.mark.parametrize(
    ("text", "comparison", "texts"),
    [
        ("memory>4GiB", "more than", ("4GiB",)),
        ("memory:2GiB..8GiB", "between", ("2GiB", "8GiB")),
        ("memory!=2GiB..", "not between", ("2GiB", "")),
        ("memory:unknown", "is unknown", ()),
        ("memory!=unknown", "is known", ()),
        ("status:unknown", "is", ("unknown",)),
        ("activity:none", "is none", ()),
        ("tag!=none", "is not none", ()),
        ("tag:web,prod", "includes", ("web, prod",)),
        ("name:web*", "starts with", ("web",)),
        ("name:*web*", "contains", ("web",)),
        ("name:w?b", "matches", ("w?b",)),
        ('name:"w*b"', "is", ("w*b",)),
        ('name:"a, b",c', "is", ('"a, b", c',)),
        ("information:waits", "contains", ("waits",)),
        ("information!=waits", "does not contain", ("waits",)),
        ("information=waits", "is exactly", ("waits",)),
        ("changed:2h", "within the last", ("2h",)),
        ("changed:today", "is", ("today",)),
        ("changed>=-2h", "since", ("-2h",)),
        ("priority>=high", "at least", ("high",)),
        ("uptime:..1h", "between", ("", "1h")),
    ],
)
def test_in_words(text: str, comparison: str, texts: tuple[str, ...]) -> None:
    term = parse(text)
    assert isinstance(term, Term)
    spec = TERMS[Kind.VM][term.name]
    found = read(term, spec)
    assert (label(found.comparison, spec), found.texts) == (comparison, texts)


@pytest.mark.parametrize("kind", Kind)
def test_what_a_field_offers_it_understands(kind: Kind) -> None:
    for spec in FIELDS[kind].values():
        example = {
            FieldKind.BOOL: "yes",
            FieldKind.SECONDS: "2h",
            FieldKind.TIME: "today",
        }.get(spec.kind, spec.words[0] if spec.words else "1")
        for comparison in comparisons(spec):
            like = {Comparison.WITHIN: "2h", Comparison.MATCHES: "x?*", Comparison.MATCHES_NOT: "x?*"}
            text = like.get(comparison, example)
            term = write(Criterion(comparison, (text, text)[: comparison.texts]), spec.term, spec)
            assert term is not None
            Matcher(term, kind)
            assert read(term, spec).comparison is comparison


@pytest.mark.parametrize(
    ("comparison", "text", "says"),
    [
        (Comparison.CONTAINS, "a b", "What it contains has no spaces"),
        (Comparison.MATCHES, "a b*", "A pattern has no spaces"),
        (Comparison.WITHIN, "today", "Changed needs a span such as 2h, 1d or 1h30min, not today."),
    ],
)
def test_what_cannot_be_said_is_refused(comparison: Comparison, text: str, says: str) -> None:
    spec = TERMS[Kind.VM]["changed" if comparison is Comparison.WITHIN else "name"]
    with pytest.raises(QueryError) as caught:
        write(Criterion(comparison, (text,)), spec.term, spec)
    assert caught.value.message.startswith(says)


def test_without_a_value_it_is_no_term() -> None:
    spec = TERMS[Kind.VM]["memory"]
    for comparison in comparisons(spec):
        found = write(Criterion(comparison, (" ", "")[: comparison.texts]), "memory", spec)
        assert (found is None) == (comparison.texts > 0)

"""Queries of every shape, for properties of the language and of what shows it."""

from __future__ import annotations

from hypothesis import strategies as st

from manager.core.query.query import Flag, Not, Operator, Term, Value, Words, all_of, any_of, is_bare_word

NAMES = st.sampled_from(["status", "owner", "memory", "x-y", "Größe", "und"])
ANY_TEXT = st.text(min_size=0, max_size=12)
PLAIN = st.text("abcXYZ019.*?/→-_%", min_size=1, max_size=8)
VALUES = st.one_of(
    PLAIN.map(Value.of),
    ANY_TEXT.map(lambda text: Value(text, quoted=True)),
    st.just(Value.of("2026-11-22T14:00")),
)
WORDS = st.one_of(PLAIN.filter(is_bare_word).map(Words), ANY_TEXT.map(lambda text: Words(text, quoted=True)))
TERMS = st.builds(Term, NAMES, st.sampled_from(Operator), st.lists(VALUES, min_size=1, max_size=3).map(tuple))
FLAGS = st.sampled_from(["running", "stale", "x"]).map(Flag)
QUERIES = st.recursive(
    st.one_of(WORDS, TERMS, FLAGS),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: all_of(*parts)),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: any_of(*parts)),
    ),
    max_leaves=12,
)
"""Any query that a text can say."""

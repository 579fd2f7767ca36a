"""Text to `Query`. Knows the grammar and no fields: whether a field is there is `filter`'s matter.

::

    query := all ("or" all)*
    all   := not ("and"? not)*
    not   := "not" not | "(" query? ")" | "is:" word | field operator value ("," value)* | text
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manager.core.query.query import (
    EVERYTHING,
    FLAG,
    KEYWORDS,
    MAX_CHARS,
    MAX_DEPTH,
    UNIT,
    Flag,
    Not,
    Operator,
    Query,
    QueryError,
    Span,
    Term,
    Value,
    Words,
    all_of,
    any_of,
)

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"(?:[^\s()\":<>=!]|!(?!=))+")
_OPERATOR = re.compile(r"\s*(<=|>=|!=|[<>=])\s*|:(<=|>=|!=|[<>=])?")
_VALUE = re.compile(r"[^\s()\",:<>=!][^\s()\",]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_UNIT = re.compile(rf"\s+({UNIT})", re.IGNORECASE)
_FIGURE = re.compile(r"-?\d+(?:\.\d+)?")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def parse(text: str) -> Query:
    """Read a query.

    Raises:
        QueryError: It is none; with the place and what is missing.
    """
    if len(text) > MAX_CHARS:
        raise QueryError(f"A query has at most {MAX_CHARS:,} characters.", (MAX_CHARS, len(text)))
    if not text.strip():
        return EVERYTHING
    parser = _Parser(text)
    query = parser.any(0)
    if parser.at < len(text):
        raise QueryError("This ) closes nothing.", (parser.at, parser.at + 1))
    return query


def parts_of(query: Query) -> Iterator[Words | Term | Flag]:
    """All that is compared, in the order of the text."""
    match query:
        case Words() | Term() | Flag():
            yield query
        case Not(part):
            yield from parts_of(part)
        case _:
            for part in query.parts:
                yield from parts_of(part)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0
        self._skip()

    def any(self, depth: int) -> Query:
        parts = [self._all(depth)]
        while self._keyword("or"):
            parts.append(self._all(depth))
        return any_of(*parts)

    def _all(self, depth: int) -> Query:
        parts = [self._not(depth)]
        while self._keyword("and") or not (self._is_over or self._peek() == "or"):
            parts.append(self._not(depth))
        return all_of(*parts)

    def _not(self, depth: int) -> Query:
        if depth > MAX_DEPTH:
            raise QueryError(f"More than {MAX_DEPTH} levels of brackets and not.", self._here())
        if self._keyword("not"):
            return Not(self._not(depth + 1))
        if self._is_over or self._peek() in ("and", "or"):
            raise QueryError("A condition is missing here.", self._here())
        return self._one(depth)

    def _one(self, depth: int) -> Query:
        if self._text[self.at] == "(":
            opened = self.at
            self.at += 1
            self._skip()
            found = self.any(depth + 1)
            if self.at >= len(self._text):
                raise QueryError("This ( is never closed.", (opened, opened + 1))
            self.at += 1
            self._skip()
            return found
        if self._text[self.at] == '"':
            start = self.at
            text = self._quoted()
            span = (start, self.at)
            if self.at < len(self._text) and _OPERATOR.match(self._text, self.at):
                raise QueryError("A field's name stands without quotes.", span)
            self._skip()
            return Words(text, quoted=True, span=span)
        return self._word()

    def _word(self) -> Query:
        start = self.at
        word = _WORD.match(self._text, start)
        if word is None:
            raise QueryError('A field must stand before this, or quotes around it: "..."', (start, start + 1))
        self.at = word.end()
        operator = _OPERATOR.match(self._text, self.at)
        if operator is None:
            self._skip()
            return Words(word[0], span=(start, word.end()))
        self.at = operator.end()
        sign = Operator(operator[1] or operator[2] or ":")
        values = [self._value(word[0], (start, operator.end()))]
        while self._text[self.at : self.at + 1] == ",":
            self.at += 1
            self._skip()
            values.append(self._value(word[0], (start, self.at)))
        span = (start, self.at)
        self._skip()
        if word[0].lower() != FLAG:
            return Term(word[0], sign, tuple(values), span)
        if sign is not Operator.IS:
            raise QueryError("After is stands a colon: is:running.", (start, operator.end()))
        return any_of(*(Flag(value.text.lower(), value.span) for value in values))

    def _value(self, name: str, before: Span) -> Value:
        start = self.at
        if self._text[start : start + 1] == '"':
            text = self._quoted()
            return Value(text, quoted=True, span=(start, self.at))
        found = _VALUE.match(self._text, start)
        if found is None:
            raise QueryError(f"A value is missing after {self._text[before[0] : before[1]].strip()}", before)
        self.at = found.end()
        text = found[0]
        if _FIGURE.fullmatch(text) and (unit := _UNIT.match(self._text, self.at)):  # 4 GiB
            self.at = unit.end()
            text += unit[1]
        return Value(text, span=(start, self.at))

    def _quoted(self) -> str:
        found = _QUOTED.match(self._text, self.at)
        if found is None:
            raise QueryError("These quotes are never closed.", (self.at, len(self._text)))
        self.at = found.end()
        return _ESCAPED.sub(r"\1", found[1])

    def _peek(self) -> str | None:
        """The keyword here, if there is one."""
        word = _WORD.match(self._text, self.at)
        return word[0].lower() if word is not None and word[0].lower() in KEYWORDS else None

    def _keyword(self, wanted: str) -> bool:
        """Step over this keyword, if it stands here."""
        if self._peek() != wanted:
            return False
        self.at = self._here()[1]
        self._skip()
        return True

    @property
    def _is_over(self) -> bool:
        """The text or what is in brackets ends here."""
        return self.at >= len(self._text) or self._text[self.at] == ")"

    def _here(self) -> Span:
        word = _WORD.match(self._text, self.at)
        return (self.at, word.end() if word else self.at + 1)

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self.at)
        assert space is not None
        self.at = space.end()

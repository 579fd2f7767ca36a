"""Every code has its text, every text its fields, wherever a reason is made."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from manager.core import reasons
from manager.core.reasons import REMEDIES, TEXTS, Reason, ReasonCode, because

MANAGER = Path(reasons.__file__).parents[1]


def names(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def made() -> Iterator[tuple[str, ast.Call]]:
    """Every call of `because` in the program."""
    for path in sorted(MANAGER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "because":
                yield f"{path.relative_to(MANAGER)}:{node.lineno}", node


CALLS = list(made())


@pytest.mark.parametrize("code", ReasonCode)
def test_every_code_has_a_text(code: ReasonCode) -> None:
    assert TEXTS[code]
    assert code.value == code.value.lower().replace("_", "-")
    assert names(REMEDIES.get(code, "")) - names(TEXTS[code]) <= {"commands", "hint"}


def test_there_are_calls_to_look_at() -> None:
    assert len(CALLS) > 60


@pytest.mark.parametrize(("place", "call"), CALLS, ids=[place for place, _ in CALLS])
def test_every_reason_has_the_fields_of_its_text(place: str, call: ast.Call) -> None:
    code = call.args[0]
    if not (isinstance(code, ast.Attribute) and isinstance(code.value, ast.Name)):
        return  # chosen at run time: the tests of those rules read the text
    found = ReasonCode[code.attr]
    given = {keyword.arg for keyword in call.keywords}
    if None in given:
        return  # fields handed on
    needed = names(TEXTS[found]) | names(REMEDIES.get(found, ""))
    assert needed <= given, needed - given


def test_every_reason_is_used_somewhere() -> None:
    texts = "".join(path.read_text() for path in MANAGER.rglob("*.py") if path != Path(reasons.__file__))
    unused = {code.name for code in ReasonCode if f"ReasonCode.{code.name}" not in texts}
    assert unused == set(), "a reason nobody gives is a promise nobody keeps"


def test_fields_are_put_into_words() -> None:
    reason = because(ReasonCode.NO_MEMORY_ON_NODE, node="n1", need_mib=8192, free_mib=1536)
    assert reason.text == "n1: not enough memory (needs 8 GiB, free 1.5 GiB)"
    assert str(reason) == reason.text
    assert reason.field("need_mib") == 8192
    assert reason.field("x") is None
    assert reason.remedy == ""
    ignored = because(ReasonCode.SHUTDOWN_IGNORED, asked="shut down", span=180.0, place="it runs")
    assert ignored.text == "the guest did not shut down within 3 min; it runs"


def test_what_a_host_says_is_not_read_as_a_template() -> None:
    reason = because(ReasonCode.FAILED, text="{place} {0} {x!r:>{y}}", place="it is off on n1")
    assert reason.text == "{place} {0} {x!r:>{y}}; it is off on n1"


def test_equal_reasons_are_equal() -> None:
    assert because(ReasonCode.HELD_BY, who="a", why="b") == Reason(
        ReasonCode.HELD_BY, (("who", "a"), ("why", "b"))
    )


def test_a_text_is_made_once_for_all_that_it_is_said_of() -> None:
    one, other = (because(ReasonCode.ALREADY_RUNNING, node="n1") for _ in range(2))
    assert one.text is other.text
    assert because(ReasonCode.ALREADY_RUNNING, node="n2").text != one.text
    whole, part = (because(ReasonCode.ALREADY_RUNNING, node=n) for n in (1, 1.0))
    assert (whole.text, part.text) == ("already running on 1", "already running on 1.0")

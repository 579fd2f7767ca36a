"""``--where QUERY``: lists and actions take the rows that match."""

from __future__ import annotations

import pytest

from manager.cli.targets import EXAMPLES
from manager.core.ids import Kind
from manager.core.query.filter import matcher
from tests.cli.support import Cli


def names(muster: Cli, query: str, *more: str) -> list[str]:
    return [row["name"] for row in muster("vm", "list", "--where", query, "--json", *more).rows]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_example_in_the_help_is_a_query(kind: Kind) -> None:
    assert not matcher(EXAMPLES[kind], kind).is_plain


def test_a_list_shows_what_matches(muster: Cli) -> None:
    every = muster("vm", "list", "--json").rows
    off = [row for row in every if row["status"] == "Off"]
    assert off
    assert muster("vm", "list", "--where", "is:off", "--json").rows == off
    assert names(muster, "not (is:off)") == [row["name"] for row in every if row not in off]
    assert names(muster, "name:web-*", "--sort", "-name") == ["web-10", "web-2", "web-1"]
    large = [row["name"] for row in every if (row["memory_mib"] or 0) > 2048]
    assert names(muster, "memory>2GiB") == large
    assert [row["name"] for row in muster("node", "list", "--where", "vms:0", "--json").rows] == ["n3"]


def test_figures_are_measured_for_a_query(muster: Cli) -> None:
    assert names(muster, "cpu>=0") == names(muster, "is:running")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("ownr:n1", "VMs have no field ownr. Did you mean owner?"),
        ("status:running (", "A condition is missing here."),
        ("memory>much", "Memory needs a figure such as 4GiB, not much."),
    ],
)
def test_a_wrong_query_is_pointed_at_and_changes_nothing(muster: Cli, query: str, says: str) -> None:
    for words in (("vm", "list"), ("vm", "turn-off", "--yes"), ("vm", "tune", "--pause", "500")):
        ran = muster(*words, "--where", query)
        assert ran.code == 2
        assert says in ran.err
        assert f"  {query}\n" in ran.err
        assert "^" in ran.err
        assert ran.out == ""


def test_an_action_takes_what_matches_and_a_second_run_changes_nothing(muster: Cli) -> None:
    query = "status:running owner:n1 name:web-*"
    meant = names(muster, query)
    assert meant
    first = muster("vm", "shutdown", "--where", query, "--json")
    assert first.code == 0
    assert first.results() == dict.fromkeys(meant, "done")
    second = muster("vm", "shutdown", "--where", query, "--json")
    assert (second.code, second.rows) == (0, [])
    assert f"matches “{query}”. Nothing was done." in second.err


def test_names_and_a_query_take_both(muster: Cli) -> None:
    ran = muster("vm", "start", "web-1", "off-1", "--where", "is:off", "--what-if", "--json")
    assert ran.results() == {"off-1": "planned"}
    assert muster("vm", "start", "nothing", "--where", "is:off").code == 2


def test_neither_names_nor_a_query(muster: Cli) -> None:
    ran = muster("vm", "start")
    assert ran.code == 2
    assert "Give the VMs' names, or --where QUERY." in ran.err


def test_a_script_run_twice_changes_nothing_the_second_time(muster: Cli) -> None:
    query = "is:running owner:n1 name:web-*"
    script = (
        ("view", "save", "Web on n1", "--where", query),
        ("vm", "list", "--view", "Web on n1"),
        ("vm", "shutdown", "--where", f"{query} not name:web-1,web-10", "--yes"),
    )
    assert [muster(*line).code for line in script] == [0, 0, 0]
    state, views = muster.state(), muster("view", "list", "--json").rows
    assert [name for name, node, status in state if name.startswith("web-") and status == "Running"] == [
        "web-1",
        "web-10",
    ]
    kept = muster.vm("web-1").incarnation
    assert [muster(*line).code for line in script] == [0, 0, 0]
    assert muster.state() == state
    assert muster("view", "list", "--json").rows == views
    assert muster.vm("web-1").incarnation == kept

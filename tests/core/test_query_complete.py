"""What is offered while a query is typed."""

from __future__ import annotations

import pytest

from manager.core.ids import Kind
from manager.core.query.complete import complete, values_in
from manager.core.query.fields import FIELDS
from manager.core.query.filter import matcher
from tests.core.support import Cluster, R, definition


def offered(text: str, kind: Kind = Kind.VM) -> list[str]:
    found = complete(
        text, len(text), kind, lambda spec: {"owner": ["n1", "n 2"], "tags": ["web"]}.get(spec.name, [])
    )
    assert found.end == len(text)
    return [text[: found.start] + each.text for each in found.candidates]


@pytest.mark.parametrize(
    ("text", "some"),
    [
        ("", ["name:", "status:", "memory:", "is:"]),
        ("mem", ["memory:"]),
        ("(mem", ["(memory:"]),
        ("web a", ["web agent:", "web and"]),
        ("status:", ["status:running", "status:none", "status:unknown"]),
        ("status:r", ["status:running"]),
        ("status:off,r", ["status:off,running"]),
        ("priority>=h", ["priority>=high"]),
        ("owner:", ["owner:n1", 'owner:"n 2"']),
        ('owner:"n', ["owner:n1", 'owner:"n 2"']),
        ("tag:w", ["tag:web"]),
        ("is:st", ["is:stale"]),
        ("memory>", ["memory>4GiB"]),
        ("movable:", ["movable:yes", "movable:no"]),
        ("nothing:x", []),
    ],
)
def test_it_offers(text: str, some: list[str]) -> None:
    found = offered(text)
    assert set(some) <= set(found)
    if not some:
        assert found == []


def test_what_is_offered_is_a_query() -> None:
    for name in FIELDS[Kind.VM]:
        for text in offered(f"{FIELDS[Kind.VM][name].term}:"):
            if text.partition(":")[2] not in ("1h", "1d") or FIELDS[Kind.VM][name].kind.value == "time":
                assert matcher(text, Kind.VM)


def test_values_that_there_are() -> None:
    cluster = Cluster()
    cluster.add("n1", "web-2", R, config=definition(tags=("b", "a")))
    cluster.add("n2", "web-10", R, config=definition(tags=("a",)))
    view, fields = cluster.state, FIELDS[Kind.VM]

    def values(name: str) -> list[str]:
        return values_in(view, view.vms.values(), fields[name])

    assert values("name") == ["web-2", "web-10"]
    assert values("tags") == ["a", "b"]
    assert values("owner") == ["n1", "n2"]
    assert values("memory_mib") == values("information") == []

"""Views: what is a view, what differs from it, and a user's own ones in their order."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS
from manager.core.query.views import ALL, BUILT_IN, MAX_NAME, MAX_VIEWS, View, Views, check, differs

HIGH = View(id="", name="High on n1", kind=Kind.VM, query="owner:n1 priority>=high")


def own(*names: str) -> Views:
    views = Views()
    for name in names:
        views, _ = views.add(replace(HIGH, name=name))
    return views


def names(views: Views) -> list[str]:
    return [view.name for view in views.own]


@pytest.mark.parametrize("kind", list(Kind))
def test_what_comes_with_the_program_can_be_shown_and_is_found_by_name(kind: Kind) -> None:
    views = Views()
    assert views.of(kind)[0].id == ALL
    for view in BUILT_IN[kind]:
        check(view)
        assert view.kind is kind
        assert views.named(view.name.upper(), kind) == view
        assert views.get(kind, view.id) == view
    assert len({view.id for view in BUILT_IN[kind]}) == len(BUILT_IN[kind])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": ""}, "1 to 60 printable characters"),
        ({"name": "x" * (MAX_NAME + 1)}, "1 to 60"),
        ({"name": "a\x1b[31m"}, "printable"),
        ({"name": " a"}, "printable"),
        ({"query": "ownr:n1"}, "VMs have no field ownr. Did you mean owner?\n  ownr:n1\n  ^^^^"),
        ({"query": "status:running ("}, "High on n1”, query: "),
        ({"columns": (("name", 0), ("ownr", 0))}, "columns: VMs have no field ownr. Did you mean owner?"),
        ({"columns": (("name", 0), ("name", 0))}, "columns: name stands there twice."),
        ({"columns": (("name", -1),)}, "a width is 0 to 4000 pixels, not -1."),
        ({"sort": (("memry_mib", True),)}, "sort: VMs have no field memry_mib. Did you mean memory_mib"),
        ({"group": "nodes"}, "group: VMs have no field nodes."),
    ],
)
def test_what_is_no_view_says_where(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as refused:
        Views().add(replace(HIGH, **wrong))  # type: ignore[arg-type]
    assert says in str(refused.value)


def test_a_name_is_free_once_per_kind() -> None:
    views = own("a")
    for taken in ("A", "all", "needs attention"):
        with pytest.raises(UserError, match="already"):
            views.add(replace(HIGH, name=taken))
    views, nodes = views.add(View(id="", name="a", kind=Kind.NODE))
    with pytest.raises(UserError, match="VMs and nodes; say which with --kind"):
        views.named("a")
    assert views.named("a", Kind.NODE) == nodes
    with pytest.raises(UserError, match="Did you mean Running"):
        views.named("Runing")
    assert views.free_name(Kind.VM, "a") == "a 2"


def test_own_views_are_moved_renamed_copied_and_deleted() -> None:
    views = own("a", "b", "c")
    a, b, c = views.own
    assert names(views.move(a, 1)) == ["b", "a", "c"]
    assert names(views.move(c, -9)) == ["c", "a", "b"]
    with_node, _ = views.add(View(id="", name="n", kind=Kind.NODE), 1)
    assert names(with_node.move(a, 1)) == ["b", "n", "a", "c"]
    assert names(views.put(replace(b, name="B"))) == ["a", "B", "c"]
    copied, copy = views.duplicate(a)
    assert (names(copied), copy.query) == (["a", "a copy", "b", "c"], a.query)
    assert names(views.duplicate(BUILT_IN[Kind.VM][1])[0]) == ["a", "b", "c", "Running copy"]
    gone = views.begin_with(b).remove(b)
    assert (names(gone), gone.start) == (["a", "c"], None)
    assert gone.add(b, 1)[0] == views
    with pytest.raises(UserError, match="not there any more"):
        gone.put(b)
    for refuse in (views.remove, views.put):
        with pytest.raises(UserError, match="comes with Muster"):
            refuse(BUILT_IN[Kind.VM][0])


def test_views_from_elsewhere_come_in_whole_or_not_at_all() -> None:
    views, added = own("a").bring_in([replace(HIGH, name="a"), replace(HIGH, name="b", id="own-1")])
    assert names(views) == ["a", "a 2", "b"]
    assert len({view.id for view in views.own}) == 3
    assert [view.name for view in added] == ["a 2", "b"]
    with pytest.raises(UserError):
        views.bring_in([replace(HIGH, name="c"), replace(HIGH, query="(")])
    many = own(*(str(number) for number in range(MAX_VIEWS)))
    with pytest.raises(UserError, match="200 views"):
        many.add(HIGH)


def test_only_what_a_view_says_can_differ_from_it() -> None:
    now = replace(HIGH, columns=(("name", 100), ("owner", 80)), sort=(("name", True),), group="owner")
    assert not differs(HIGH, now)
    assert not differs(HIGH, replace(now, query="  owner:n1   priority>=high "))
    assert differs(HIGH, replace(now, query="owner:n1"))
    assert differs(replace(HIGH, group="status"), now)
    assert differs(replace(HIGH, sort=(("name", False),)), now)
    whole = replace(HIGH, columns=(("name", 0), ("owner", 80)), sort=(("name", True),), group="owner")
    assert not differs(whole, now)
    assert differs(whole, replace(now, columns=(("name", 100), ("owner", 90))))
    assert differs(whole, replace(now, columns=(("owner", 80), ("name", 100))))
    assert differs(whole, replace(now, group=""))
    assert differs(whole, replace(now, sort=()))


fields = st.sampled_from(sorted(FIELDS[Kind.VM]))
VIEWS = st.builds(
    View,
    id=st.just(""),
    name=st.text(string.ascii_letters + "äß→ ", min_size=1, max_size=60).filter(lambda t: t == t.strip()),
    kind=st.just(Kind.VM),
    query=st.sampled_from(["", "is:running", 'name:"a b" or not memory>4GiB']),
    columns=st.lists(st.tuples(fields, st.integers(0, 4000)), unique_by=lambda pair: pair[0]).map(tuple),
    sort=st.lists(st.tuples(fields, st.booleans()), max_size=8, unique_by=lambda pair: pair[0]).map(tuple),
    group=fields | st.just(""),
)


@given(st.lists(VIEWS, max_size=8), st.data())
def test_whatever_is_done_ids_and_names_stay_apart(views: list[View], data: st.DataObject) -> None:
    found, _ = Views().bring_in(views)
    for _ in range(8):
        if not found.own:
            break
        one = data.draw(st.sampled_from(found.own))
        match data.draw(st.integers(0, 3)):
            case 0:
                found = found.remove(one)
            case 1:
                found = found.move(one, data.draw(st.integers(-3, 3)))
            case 2:
                found, _ = found.duplicate(one)
            case _:
                found, _ = found.bring_in([one])
        assert len({view.id for view in found.own}) == len(found.own)
        assert len({view.name.lower() for view in found.of(Kind.VM)}) == len(found.of(Kind.VM))
        for view in found.own:
            check(view)

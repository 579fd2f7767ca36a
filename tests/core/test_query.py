"""The query language: text and value are one, no input breaks it, and it finds what it says."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core import events as ev
from manager.core.ids import Kind, NodeId
from manager.core.model import AgentState, NodeLoad, Priority, VmLoad
from manager.core.query.fields import FIELDS, TERMS
from manager.core.query.filter import Matcher, matcher, search_text
from manager.core.query.flags import FLAGS
from manager.core.query.parser import parse
from manager.core.query.query import (
    EVERYTHING,
    KEYWORDS,
    Not,
    Operator,
    Query,
    QueryError,
    Term,
    Value,
    Words,
    all_of,
    any_of,
    is_bare_word,
    text_of,
)
from manager.core.query.spec import FieldKind
from tests.core.support import OFF, Cluster, R, definition, uuid
from tests.support.queries import QUERIES

N1 = NodeId("n1")
SILENT = AgentState.DISCONNECTED

# --- text and value ------------------------------------------------------------------------------


@given(QUERIES)
def test_a_query_is_its_text(query: Query) -> None:
    assert parse(text_of(query)) == query
    assert text_of(parse(text_of(query))) == text_of(query)


@given(st.one_of(st.text(max_size=60), st.text('()"\\:<>=!, ornadtis*?.10GiB%', max_size=60)))
def test_no_text_breaks_it(text: str) -> None:
    for kind in Kind:
        try:
            matcher(text, kind)
        except QueryError as error:
            caught = error
        else:
            continue
        start, end = caught.span
        assert 0 <= start <= len(text)
        assert start <= end <= len(text) + 1
        assert caught.message
        assert caught.pointing(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500,
        "not " * 400,
        "(" * 500 + "a" + ")" * 500,
        "name:" + "*a" * 900,
        "a " * 999,
        '"' * 1999,
        "x" * 2001,
    ],
)
def test_large_queries_end_soon(text: str) -> None:
    try:
        found = matcher(text, Kind.VM)
    except QueryError:
        return
    cluster = Cluster()
    cluster.add("n1", "a" * 2000, R)
    found.select(cluster.state, cluster.state.vms.values())


def test_the_empty_query_is_everything() -> None:
    assert parse("") == parse("  ") == EVERYTHING
    assert text_of(EVERYTHING) == ""


def test_and_binds_closer_than_or() -> None:
    a, b, c = Words("a"), Words("b"), Words("c")
    assert parse("a b or c") == any_of(all_of(a, b), c) == parse("(a and b) OR c")
    assert parse("a and (b or c)") == all_of(a, any_of(b, c))
    assert parse("not a b") == all_of(Not(a), b)
    assert parse("not (a b)") == Not(all_of(a, b))


def test_figures_may_stand_apart() -> None:
    assert parse("memory > 4 GiB") == parse("memory>4GiB")
    assert parse("cpu >= 80 % web") == parse("cpu>=80% web")
    assert parse("uptime:<1h") == parse("uptime<1h")


@pytest.mark.parametrize("unit", ["d", "GiB", "%", "h"])
@pytest.mark.parametrize("before", ["vcpus>4", "vcpus:2,4", "not vcpus>-4.5"])
def test_a_text_after_a_figure_is_not_its_unit(before: str, unit: str) -> None:
    query = all_of(parse(before), Words(unit))
    assert parse(text_of(query)) == query
    assert parse(f"{before} {unit}") != query


@pytest.mark.parametrize("word", sorted(KEYWORDS))
def test_keywords_are_found_in_quotes(word: str) -> None:
    assert parse(f'"{word}"') == Words(word, quoted=True)
    assert not is_bare_word(word)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("ownr:n1", "ownr", "VMs have no field ownr. Did you mean owner?"),
        ("status:runing", "runing", "Status is never runing. Did you mean Running?"),
        ("a is:stal", "stal", "There is no is:stal for VMs. Did you mean stale?"),
        ("priority>=hihg", "hihg", "Priority is never hihg. Did you mean High?"),
        ("memory>lots", "lots", "Memory needs a figure such as 4GiB, not lots."),
        ("cpu>80% memory>1x", "1x", "Memory needs a figure such as 4GiB, not 1x."),
        ("owner<n1", "n1", "Owner node has no order; write owner:n1"),
        ("memory>1GiB,2GiB", "memory>1GiB,2GiB", "> takes one value."),
        ("uptime:1h", "1h", "A span is compared with < or >, or with a range: uptime<1h"),
        ("changed>2h", "2h", "changed>-2h is after that moment, changed:2h within the last 2h."),
        (
            "changed:noon",
            "noon",
            "Changed needs a time: today, 14:00, 2026-11-22, -2h (two hours ago), not noon.",
        ),
        ("memory>unknown", "memory>unknown", "Nothing is more or less than unknown; write memory:…"),
        ("movable:maybe", "maybe", "Movable is yes or no."),
        ("(a b", "(", "This ( is never closed."),
        ("a) b", ")", "This ) closes nothing."),
        ('a "b c', '"b c', "These quotes are never closed."),
        ("a or", "", "A condition is missing here."),
        ("status: off", "status:", "A value is missing after status:"),
        (":x", ":", 'A field must stand before this, or quotes around it: "..."'),
    ],
)
def test_errors_point_at_the_place_and_suggest(text: str, place: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        matcher(text, Kind.VM)
    start, end = caught.value.span
    assert (text[start:end], caught.value.message) == (place, says)
    assert caught.value.pointing(text).splitlines()[1] == f"  {text}"


# --- what it finds -------------------------------------------------------------------------------


def world() -> Cluster:
    """web-1 and web-10 run on n1, db-2 on n2, bare is off on n1; lost runs on n3, which is silent."""
    cluster = Cluster()
    high, none = Priority.HIGH, Priority.NO_AUTO_START
    for node, name, status, config in (
        ("n1", "web-1", R, replace(definition(2048, tags=("web",)), vcpus=2)),
        ("n1", "web-10", R, replace(definition(8192, high, ("web", "prod")), vcpus=4, agent=SILENT)),
        ("n2", "db-2", R, replace(definition(4096), vcpus=8, snapshots=2)),
        ("n1", "bare", OFF, replace(definition(512, none), vcpus=1)),
        ("n3", "lost", R, replace(definition(16384), vcpus=4)),
    ):
        cluster.add(node, name, status, config=config)
    cluster.lose("n3")
    loads = [VmLoad(at_s=cluster.now, cpu_percent=12.4), VmLoad(at_s=cluster.now, cpu_percent=93.0)]
    sampled = dict(zip((uuid("web-1"), uuid("web-10")), loads, strict=True))
    cluster.feed(ev.NodeSampled(at_s=cluster.later(), node=N1, load=NodeLoad(at_s=cluster.now), vms=sampled))
    return cluster


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """The world above; nothing here changes it."""
    return world()


def found(cluster: Cluster, text: str, kind: Kind = Kind.VM) -> list[str]:
    view = cluster.state
    rows = view.vms.values() if kind is Kind.VM else view.nodes.values()
    return sorted(str(getattr(row, "name", row.id)) for row in matcher(text, kind).select(view, rows))


ALL = ["bare", "db-2", "lost", "web-1", "web-10"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ALL),
        ("web", ["web-1", "web-10"]),
        ("WEB running", ["web-1", "web-10"]),
        ("name:web-1", ["web-1"]),
        ("name:web", []),
        ("name:web*", ["web-1", "web-10"]),
        ("name:*1", ["web-1"]),
        ("name:web-?", ["web-1"]),
        ('name:"web-*"', []),
        ("owner:n1", ["bare", "web-1", "web-10"]),
        ("owner:n1,n2 status:running", ["db-2", "web-1", "web-10"]),
        ("owner!=n1,n2", ["lost"]),
        ("node:N2", ["db-2"]),
        ("status:unknown", ["lost"]),
        ('status:"unknown (was running)"', ["lost"]),
        ("not status:running", ["bare", "lost"]),
        ("priority>=high", ["web-10"]),
        ("priority:high,no-auto-start", ["bare", "web-10"]),
        ("priority<2000", ["bare"]),
        ("memory>4GiB", ["web-10"]),
        ("memory>=4", ["db-2", "web-10"]),
        ("memory:4096MiB", ["db-2"]),
        ("memory:2GiB..4GiB", ["db-2", "web-1"]),
        ("memory:..2GiB", ["bare", "web-1"]),
        ("not memory>4GiB", ["bare", "db-2", "web-1"]),
        ("memory:unknown", ["lost"]),
        ("memory>4GiB or memory<=4GiB or memory:unknown", ALL),
        ("cpu>80%", ["web-10"]),
        ("cpu:12", ["web-1"]),
        ("cpu:unknown", ["db-2"]),
        ("cpu:none", ["bare", "lost"]),
        ("tag:web", ["web-1", "web-10"]),
        ("tag:web tag:prod", ["web-10"]),
        ("tag:p*", ["web-10"]),
        ("tag:none", ["bare", "db-2", "lost"]),
        ("tag!=web", ["bare", "db-2", "lost"]),
        ('agent:"not answering"', ["web-10"]),
        ("vcpus:4", ["web-10"]),
        ("snapshots>0", ["db-2"]),
        ("movable:no", ["db-2"]),
        ("is:unmovable", ["db-2"]),
        ("is:stale", ["lost"]),
        ("is:running,stale not web", ["db-2", "lost"]),
        ("attention:yes", ["lost"]),
        ("information:silent or information:heard", ["lost"]),
        ("web or db", ["db-2", "web-1", "web-10"]),
        ("(web or db) not n2", ["web-1", "web-10"]),
        ("w*10", ["web-10"]),
    ],
)
def test_it_finds(cluster: Cluster, text: str, names: list[str]) -> None:
    assert found(cluster, text) == names


def test_nodes_are_found_alike(cluster: Cluster) -> None:
    assert found(cluster, "status:up", Kind.NODE) == ["n1", "n2"]
    assert found(cluster, "is:stale or vms>=3", Kind.NODE) == ["n1", "n3"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("uptime<1h", ["young"]),
        ("uptime>1d", ["old"]),
        ("uptime:30min..2h", []),
        ("uptime:..90min", ["young"]),
        ("not uptime<1h", ["old"]),
        ("uptime:unknown", ["who"]),
        ("changed:1h", ["young"]),
        ("changed>-1h", ["young"]),
        ("changed<-1h", ["old"]),
        ("changed<=now", ["old", "young"]),
        ("changed:-2d..-1d", ["old"]),
        ("changed:-2d..", ["old", "young"]),
        ("changed<1970-01-03", []),
        ("changed>1970-01-03T12:00", ["old", "young"]),
        ("changed:none", ["who"]),
    ],
)
def test_times_and_spans(text: str, names: list[str]) -> None:
    cluster = Cluster()
    for name in ("young", "old", "who"):
        cluster.add("n1", name, R)
    view = cluster.state
    now = view.now_s
    at = {"young": now - 600, "old": now - 1.5 * 86400, "who": None}
    rows = [replace(vm, started_at_s=at[vm.name], changed_at_s=at[vm.name]) for vm in view.vms.values()]
    assert sorted(vm.name for vm in matcher(text, Kind.VM).select(view, rows)) == names


QUESTIONS = ["memory>4GiB", "name:web*", "tag:web", "status:running", "cpu>50", "web", "owner:n3", "vcpus:4"]


@pytest.mark.parametrize("a", QUESTIONS)
@pytest.mark.parametrize("b", QUESTIONS)
def test_logic_of_three_values(cluster: Cluster, a: str, b: str) -> None:
    assert found(cluster, f"not not ({a})") == found(cluster, a)
    assert found(cluster, f"not ({a} or {b})") == found(cluster, f"not ({a}) not ({b})")
    assert found(cluster, f"not ({a} {b})") == found(cluster, f"not ({a}) or not ({b})")
    assert not set(found(cluster, a)) & set(found(cluster, f"not ({a})"))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in Kind for name in FIELDS[kind]])
def test_every_field_is_a_term(cluster: Cluster, kind: Kind, name: str) -> None:
    spec = FIELDS[kind][name]
    assert TERMS[kind][spec.term] is spec
    assert matcher(f"{spec.term}:none or {spec.term}:unknown", kind).depends >= spec.depends
    example = {
        FieldKind.BOOL: "yes",
        FieldKind.SECONDS: "..1h",
        FieldKind.TIME: "today",
        FieldKind.TEXT: "x*",
        FieldKind.LIST: "x",
    }.get(spec.kind, spec.words[0] if spec.words else "1")
    value = text_of(Term(spec.term, Operator.IS, (Value.of(example),)))
    view = cluster.state
    rows = {Kind.VM: view.vms, Kind.NODE: view.nodes}.get(kind, {}).values()
    matcher(value, kind).select(view, rows)


@pytest.mark.parametrize(("kind", "word"), [(kind, word) for kind in FLAGS for word in FLAGS[kind]])
def test_every_shorthand_is_a_query(kind: Kind, word: str) -> None:
    flag = FLAGS[kind][word]
    assert Matcher(flag.query, kind)
    assert flag.doc.endswith(".")


def test_what_a_query_follows() -> None:
    plain = matcher('web "n 1"', Kind.VM)
    assert plain.is_plain
    assert plain.words == ("web", "n 1")
    mixed = matcher("web memory>1GiB", Kind.VM)
    assert (mixed.is_plain, mixed.words, mixed.ages, mixed.samples) == (False, ("web",), False, False)
    assert "config" in mixed.depends
    assert matcher("cpu>1", Kind.VM).samples
    assert matcher("uptime>1h", Kind.VM).ages
    assert not matcher("web or x", Kind.VM).words


def test_a_search_text_is_what_a_list_shows(cluster: Cluster) -> None:
    vm = cluster.vm("web-10")
    text = search_text(cluster.state, Kind.VM, vm)
    assert {"web-10", "running", "n1", "web, prod"} <= set(text.split("\n"))


@pytest.mark.parametrize(
    ("query", "text", "marked"),
    [
        ("web", "web-01, WEB-02", ["web", "WEB"]),
        ("we web eb-", "a web-1", ["web-"]),  # together, not three over each other
        ("web or db", "db-1", ["db"]),
        ("(web or (db status:running)) node:n1", "db on n1", ["db"]),
        ("not web db", "web db", ["db"]),  # what is found by its absence is not there to be seen
        ('"a*b"', "a*b axb", ["a*b"]),
        ("d?-*1", "x db-0001 y", ["db-0001"]),
        ("*", "anything", []),
        ("name:web status:running", "web running", []),
        ("straße", "Die STRASSE, die Straße", ["Straße"]),
        ("bul", "İstanbul, BUL", ["bul", "BUL"]),  # its first letter is two in lower case
        ("", "web", []),
    ],
)
def test_free_words_are_found_where_they_stand(query: str, text: str, marked: list[str]) -> None:
    found = matcher(query, Kind.VM)
    assert [text[first:end] for first, end in found.marks(text)] == marked
    assert found.has_marks or not marked


@given(st.text(min_size=1, max_size=3), st.text(max_size=30))
def test_a_cell_has_marks_exactly_if_the_word_is_in_it(word: str, text: str) -> None:
    marks = Matcher(Words(word, quoted=True), Kind.VM).marks(text)
    assert bool(marks) == (word.lower() in text.lower())
    assert all(0 <= first < end <= len(text) for first, end in marks)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(marks))


def test_a_silent_node_makes_figures_unknown_and_shows_the_last() -> None:
    cluster = world()
    vm, memory = cluster.vm("lost"), FIELDS[Kind.VM]["memory_mib"]
    assert memory.cell(cluster.state, vm) == "16"
    assert memory.as_json(cluster.state, vm) is None
    cluster.connect("n3")
    assert found(cluster, "memory>4GiB") == ["lost", "web-10"]
    assert memory.as_json(cluster.state, cluster.vm("lost")) == 16384

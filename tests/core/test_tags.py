"""Tags: what may be one, and that a change leaves alone what it does not name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core import effects as fx
from manager.core import tags
from manager.core.actions import ACTIONS, TAGS, Allowed, Denied, Plan, TagsParameters
from manager.core.execution import merged
from manager.core.model import VmSettings
from manager.core.operations import OperationState
from manager.core.reasons import ReasonCode
from tests.core.support import Cluster, definition, uuid

WORDS = st.lists(st.sampled_from("abcdef"), max_size=5, unique=True).map(tuple)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def tags_of(cluster: Cluster, name: str) -> tuple[str, ...]:
    config = cluster.vm(name).config
    assert config is not None
    return config.settings.tags


def test_many_get_and_lose_tags_and_keep_their_own(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=definition(tags=("web", "old")))
    cluster.add("n1", "b", config=definition(tags=("db",)))
    cluster.add("n1", "c", config=definition(tags=("prod", "web")))
    ids = [uuid(name) for name in "abc"]
    plan = TAGS.plan(cluster.state, ids, TagsParameters(add=("prod", "web"), remove=("old",)))
    assert [(s.name, s.note.text if s.note else "") for s in plan.steps] == [
        ("a", "adds prod; removes old"),
        ("b", "adds prod, web"),
    ]
    assert [(s.name, s.already) for s in plan.skipped] == [("c", True)]
    cluster.ask("vm.tags", "a", "b", add=("prod", "web"), remove=("old",))
    cluster.settle()
    assert tags_of(cluster, "a") == ("web", "prod")
    assert tags_of(cluster, "b") == ("db", "prod", "web")


@pytest.mark.parametrize(
    ("given_tags", "code"),
    [
        (("a,b",), ReasonCode.TAG_CHARACTERS),
        ((" a",), ReasonCode.TAG_CHARACTERS),
        (("",), ReasonCode.TAG_CHARACTERS),
        (("a\x1b",), ReasonCode.TAG_CHARACTERS),
        (("\udc80",), ReasonCode.TAG_CHARACTERS),
        (("x" * 65,), ReasonCode.TAG_LENGTH),
        (tuple(f"t{n}" for n in range(64)), ReasonCode.TOO_MANY_TAGS),
    ],
)
def test_limits_are_said(cluster: Cluster, given_tags: tuple[str, ...], code: ReasonCode) -> None:
    cluster.add("n1", "a", config=definition(tags=("own",)))
    found = TAGS.verdict(cluster.state, uuid("a"), TagsParameters(add=given_tags))
    assert isinstance(found, Denied)
    assert found.reason.code is code
    assert found.reason.text.isprintable()


def test_what_others_wrote_can_always_be_taken_away(cluster: Cluster) -> None:
    strange = ("a,b", "x" * 200, *(f"t{n}" for n in range(80)))
    cluster.add("n1", "a", config=definition(tags=strange))
    found = TAGS.verdict(cluster.state, uuid("a"), TagsParameters(remove=("x" * 200,)))
    assert isinstance(found, Allowed)


def test_undo_takes_back_only_what_was_changed(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=definition(tags=("web", "old")))
    cluster.ask("vm.tags", "a", add=("new",), remove=("old",))
    cluster.settle()
    first = cluster.operation("a")
    assert first.state is OperationState.DONE
    cluster.ask("vm.tags", "a", add=("others",))
    cluster.settle()
    plan = ACTIONS["vm.tags"].undo(first, cluster.state)
    assert isinstance(plan, Plan)
    cluster.ask("vm.tags", "a", add=plan.parameters.add, remove=plan.parameters.remove)
    cluster.settle()
    assert tags_of(cluster, "a") == ("web", "others", "old")


def test_two_who_change_tags_at_once_both_have_their_way(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=definition(tags=("web",)))
    cluster.ask("vm.tags", "a", add=("one",))
    first = cluster.take(fx.WriteVmSettings)
    cluster.ask("vm.tags", "a", add=("two",), remove=("web",))
    cluster.end(first)
    cluster.settle()
    assert tags_of(cluster, "a") == ("one", "two")


@given(before=WORDS, wanted=WORDS, now=WORDS)
def test_merging_changes_what_was_asked_for(
    before: tuple[str, ...], wanted: tuple[str, ...], now: tuple[str, ...]
) -> None:
    found = merged(VmSettings(tags=before), VmSettings(tags=wanted), VmSettings(tags=now)).tags
    came, went = tags.difference(before, wanted)
    if came or went:
        assert set(found) == (set(now) - set(went)) | set(came)
    assert len(set(found)) == len(found)


def test_words_are_read_as_people_write_them() -> None:
    assert tags.words_of(" a, b,,a ,c d ") == ("a", "b", "c d")

"""Our element in the metadata: what is ours changes, what is not stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from manager.backends.libvirt.metadata import NAMESPACE, merged, settings_of
from manager.core.ids import NodeId
from manager.core.model import PlacementRule, Priority, RuleKind, VmSettings

FOREIGN = (
    '<vm xmlns:x="urn:x" priority="low" owners="n1,n2" x:seal="7">'
    "<tag>old</tag><!-- kept --><monitor service='pg'><tag>inner</tag></monitor>"
    "<x:tag>theirs</x:tag><?pi kept?></vm>"
)


def test_a_new_element() -> None:
    settings = VmSettings(priority=Priority.HIGH, tags=("web", "a<b"), drained_from=NodeId("n1"))
    text = merged(None, settings)
    assert text == '<vm priority="high" drained-from="n1"><tag>web</tag><tag>a&lt;b</tag></vm>'
    assert settings_of(etree.fromstring(text)) == settings


def test_owners_and_rules() -> None:
    settings = VmSettings(
        possible_owners=(NodeId("n1"), NodeId("n2")),
        preferred_owners=(NodeId("n2"),),
        rules=(PlacementRule(RuleKind.APART, "db"), PlacementRule(RuleKind.RATHER_TOGETHER, "a & b")),
    )
    text = merged(None, settings)
    assert text == (
        '<vm priority="medium"><possible-owner>n1</possible-owner><possible-owner>n2</possible-owner>'
        '<preferred-owner>n2</preferred-owner><rule kind="apart">db</rule>'
        '<rule kind="rather-together">a &amp; b</rule></vm>'
    )
    assert settings_of(etree.fromstring(text)) == settings
    assert "owner" not in merged(text, VmSettings())


def test_what_a_host_says_of_owners_and_rules_is_bounded_and_looked_at() -> None:
    many = "".join(f"<possible-owner>n{n}</possible-owner>" for n in range(500))
    rules = "".join(f'<rule kind="apart">g{n}</rule>' for n in range(500))
    text = f'<vm>{many}{rules}<rule kind="nonsense">x</rule><rule>y</rule><rule kind="apart"/></vm>'
    found = settings_of(etree.fromstring(text))
    assert (len(found.possible_owners), len(found.rules)) == (64, 16)
    twice = '<vm><rule kind="apart">g</rule><rule kind="rather-apart">g</rule></vm>'
    assert settings_of(etree.fromstring(twice)).rules == (PlacementRule(RuleKind.APART, "g"),)


def test_rules_of_a_newer_muster_are_left_to_it() -> None:
    newer = '<vm><rule kind="together">a</rule><rule kind="apart">b</rule></vm>'
    text = merged(newer, VmSettings())
    assert '<rule kind="together">a</rule>' in text
    assert "apart" not in text


def test_unknown_content_is_kept() -> None:
    text = merged(FOREIGN, VmSettings(priority=Priority.MEDIUM, tags=("new", "er")))
    assert text == (
        '<vm xmlns:x="urn:x" priority="medium" owners="n1,n2" x:seal="7"><tag>new</tag><tag>er</tag>'
        '<!-- kept --><monitor service="pg"><tag>inner</tag></monitor><x:tag>theirs</x:tag><?pi kept?></vm>'
    )


def test_what_was_drained_is_forgotten_when_it_is_back() -> None:
    once = merged(None, VmSettings(drained_from=NodeId("n1")))
    assert "drained-from" not in merged(once, VmSettings())


def test_elements_with_our_namespace_are_ours_too() -> None:
    element = etree.fromstring(f'<m:vm xmlns:m="{NAMESPACE}" priority="high"><m:tag>a</m:tag></m:vm>')
    assert settings_of(element) == VmSettings(priority=Priority.HIGH, tags=("a",))
    again = merged(etree.tostring(element, encoding="unicode"), VmSettings(tags=("b",)))
    assert "a</" not in again
    assert settings_of(etree.fromstring(again)).tags == ("b",)


def test_what_is_no_xml_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="not well-formed"):
        merged("<vm", VmSettings())


def test_a_tag_that_xml_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="XML compatible"):
        merged(None, VmSettings(tags=("\x00",)))


@pytest.mark.parametrize("text", ["<vm/>", '<vm priority="urgent"/>', "<vm><tag/><tag> </tag></vm>"])
def test_what_is_not_understood_gives_the_defaults(text: str) -> None:
    assert settings_of(etree.fromstring(text)) == VmSettings()
    assert settings_of(None) == VmSettings()


SAFE = st.characters(min_codepoint=0x21, max_codepoint=0x2FF, exclude_characters="\x7f\x85\xa0")


@given(
    st.sampled_from(Priority),
    st.lists(st.text(SAFE, min_size=1, max_size=20), max_size=8, unique=True),
    st.lists(st.text(SAFE, min_size=1, max_size=20).map(NodeId), max_size=4, unique=True),
    st.dictionaries(st.text(SAFE, min_size=1, max_size=20), st.sampled_from(RuleKind), max_size=4),
    st.none() | st.text(SAFE, min_size=1, max_size=20),
    st.sampled_from([None, FOREIGN]),
)
def test_what_was_written_is_read(
    priority: Priority,
    tags: list[str],
    owners: list[NodeId],
    rules: dict[str, RuleKind],
    drained_from: str | None,
    existing: str | None,
) -> None:
    clean = tuple(tag for tag in tags if tag == tag.strip())
    settings = VmSettings(
        priority=priority,
        tags=clean,
        possible_owners=tuple(owner for owner in owners if owner == owner.strip()),
        preferred_owners=tuple(owner for owner in reversed(owners) if owner == owner.strip()),
        rules=tuple(PlacementRule(kind, group) for group, kind in rules.items() if group == group.strip()),
        drained_from=NodeId(drained_from) if drained_from else None,
    )
    assert settings_of(etree.fromstring(merged(existing, settings))) == settings
    assert merged(merged(existing, settings), settings) == merged(existing, settings)

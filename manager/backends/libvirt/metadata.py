"""Our element in a domain's metadata: reading it, and merging into it without losing what others put there.

<muster:vm xmlns:muster="urn:muster:vm:1" priority="high" drained-from="n1">
    <muster:tag>web</muster:tag>
    <muster:possible-owner>n1</muster:possible-owner>
    <muster:preferred-owner>n1</muster:preferred-owner>
    <muster:rule kind="apart">web</muster:rule>
</muster:vm>
"""

from __future__ import annotations

from lxml import etree

from manager.backends.libvirt.xml_text import root_of
from manager.core.ids import NodeId
from manager.core.model import PlacementRule, Priority, RuleKind, VmSettings

NAMESPACE = "urn:muster:vm:1"
PREFIX = "muster"
MAX_TAGS = 64
MAX_TAG_LENGTH = 200
MAX_OWNERS = 64
MAX_RULES = 16

_TAG, _POSSIBLE, _PREFERRED, _RULE = "tag", "possible-owner", "preferred-owner", "rule"
_PRIORITIES = {
    "high": Priority.HIGH,
    "medium": Priority.MEDIUM,
    "low": Priority.LOW,
    "no-auto-start": Priority.NO_AUTO_START,
}
_WORDS = {priority: word for word, priority in _PRIORITIES.items()}
_KINDS = {kind.value.replace(" ", "-"): kind for kind in RuleKind}


def settings_of(element: etree._Element | None) -> VmSettings:
    """Settings from our element; None, or a value that is not understood, gives the defaults."""
    if element is None:
        return VmSettings()
    rules: dict[str, PlacementRule] = {}
    for child in element:
        kind = _KINDS.get(child.get("kind") or "") if _is_ours(child, _RULE) else None
        group = _text(child)
        if kind is not None and group and len(rules) < MAX_RULES:
            rules.setdefault(group, PlacementRule(kind, group))
    drained_from = (element.get("drained-from") or "")[:MAX_TAG_LENGTH]
    return VmSettings(
        priority=_PRIORITIES.get(element.get("priority") or "", Priority.MEDIUM),
        tags=tuple(_texts(element, _TAG, MAX_TAGS)),
        possible_owners=tuple(map(NodeId, _texts(element, _POSSIBLE, MAX_OWNERS))),
        preferred_owners=tuple(map(NodeId, _texts(element, _PREFERRED, MAX_OWNERS))),
        rules=tuple(rules.values()),
        drained_from=NodeId(drained_from) if drained_from else None,
    )


def merged(existing: str | None, settings: VmSettings) -> str:
    """The element's new text for libvirt; attributes and children that are not ours are kept.

    libvirt takes and gives the element without our prefix and puts the namespace in itself.
    Source: libvirt virXMLInjectNamespace, virXMLExtractNamespaceXML.

    Raises:
        ValueError: if the existing text is not understood (it must not be overwritten then), or if a tag
            has a character that XML cannot carry.
    """
    element = root_of(existing, keep_all=True) if existing else etree.Element("vm")
    written: list[tuple[str, str, dict[str, str]]] = [
        *((_TAG, tag, {}) for tag in settings.tags),
        *((_POSSIBLE, owner, {}) for owner in settings.possible_owners),
        *((_PREFERRED, owner, {}) for owner in settings.preferred_owners),
        *((_RULE, rule.group, {"kind": rule.kind.value.replace(" ", "-")}) for rule in settings.rules),
    ]
    for child in list(element):
        is_list = any(_is_ours(child, name) for name in (_TAG, _POSSIBLE, _PREFERRED))
        # A rule of a kind that only a newer Muster knows is left to it.
        if is_list or (_is_ours(child, _RULE) and child.get("kind") in _KINDS):
            element.remove(child)
    for index, (name, text, attributes) in enumerate(written):
        child = etree.Element(name, attributes)
        child.text = text
        element.insert(index, child)
    element.set("priority", _WORDS[settings.priority])
    if settings.drained_from is not None:
        element.set("drained-from", settings.drained_from)
    elif "drained-from" in element.attrib:
        del element.attrib["drained-from"]
    return etree.tostring(element, encoding="unicode")


def _text(element: etree._Element) -> str:
    return (element.text or "").strip()[:MAX_TAG_LENGTH]


def _texts(element: etree._Element, name: str, most: int) -> list[str]:
    """What our children of a name say, each once, up to so many."""
    found = (_text(child) for child in element if _is_ours(child, name))
    return list(dict.fromkeys(text for text in found if text))[:most]


def _is_ours(element: etree._Element, name: str) -> bool:
    return element.tag in (name, f"{{{NAMESPACE}}}{name}")

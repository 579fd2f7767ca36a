"""Our element in a domain's metadata: reading it, and merging into it without losing what others put there.

<muster:vm xmlns:muster="urn:muster:vm:1" priority="high" drained-from="n1">
    <muster:tag>web</muster:tag>
</muster:vm>
"""

from __future__ import annotations

from lxml import etree

from manager.backends.libvirt.xml_text import root_of
from manager.core.ids import NodeId
from manager.core.model import Priority, VmSettings

NAMESPACE = "urn:muster:vm:1"
PREFIX = "muster"
MAX_TAGS = 64
MAX_TAG_LENGTH = 200

_PRIORITIES = {
    "high": Priority.HIGH,
    "medium": Priority.MEDIUM,
    "low": Priority.LOW,
    "no-auto-start": Priority.NO_AUTO_START,
}
_WORDS = {priority: word for word, priority in _PRIORITIES.items()}


def settings_of(element: etree._Element | None) -> VmSettings:
    """Settings from our element; None, or a value that is not understood, gives the defaults."""
    if element is None:
        return VmSettings()
    tags: list[str] = []
    for child in element:
        text = (child.text or "").strip()[:MAX_TAG_LENGTH] if _is_ours(child, "tag") else ""
        if text and text not in tags and len(tags) < MAX_TAGS:
            tags.append(text)
    drained_from = (element.get("drained-from") or "")[:MAX_TAG_LENGTH]
    return VmSettings(
        priority=_PRIORITIES.get(element.get("priority") or "", Priority.MEDIUM),
        tags=tuple(tags),
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
    for child in list(element):
        if _is_ours(child, "tag"):
            element.remove(child)
    for index, tag in enumerate(settings.tags):
        child = etree.Element("tag")
        child.text = tag
        element.insert(index, child)
    element.set("priority", _WORDS[settings.priority])
    if settings.drained_from is not None:
        element.set("drained-from", settings.drained_from)
    elif "drained-from" in element.attrib:
        del element.attrib["drained-from"]
    return etree.tostring(element, encoding="unicode")


def _is_ours(element: etree._Element, name: str) -> bool:
    return element.tag in (name, f"{{{NAMESPACE}}}{name}")

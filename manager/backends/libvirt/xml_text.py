"""XML from a host, read so that it can do no harm."""

from __future__ import annotations

from lxml import etree


def root_of(text: str, *, keep_all: bool = False) -> etree._Element:
    """The root element of a document: no entities, no network, no huge documents.

    `keep_all` keeps comments and processing instructions, for text that is written back.

    Raises:
        ValueError: if it is not well-formed, or has a document type, which libvirt never writes.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=not keep_all,
        remove_pis=not keep_all,
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"it is not well-formed XML: {error}") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise ValueError("it has a document type of its own")
    return root

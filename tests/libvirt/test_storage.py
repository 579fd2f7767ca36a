"""Images and files: the XML that is made, and libvirt's own pools of its test driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import libvirt
import pytest
from lxml import etree

from manager.backends.libvirt import event_loop, storage
from manager.backends.libvirt.storage import Copy, Image
from manager.core.errors import FailureCode, OperationError
from manager.core.ids import NodeId, VmId

N2 = NodeId("n2")
IMAGE = Image(
    disk="vdb", source="/old/web & db.qcow2", format="qcow2", capacity_bytes=5 << 30, allocated_bytes=1 << 20
)
COPY = Copy(image=IMAGE, pool="fast", path="/fast/web & db.qcow2")

DOMAIN = """
<domain type='kvm'>
  <!-- kept -->
  <metadata><x:y xmlns:x='urn:x'/></metadata>
  <devices>
    <disk type='file'><source file='/old/web.qcow2'/><target dev='vda'/></disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/old/web &amp; db.qcow2' index='2'/>
      <backingStore type='file'><source file='/old/base.qcow2'/></backingStore>
      <mirror type='file'/>
      <target dev='vdb' bus='virtio'/>
      <serial>1</serial>
    </disk>
  </devices>
</domain>"""


def test_a_volume_has_the_same_name_format_and_size() -> None:
    root = etree.fromstring(storage.volume_xml(IMAGE))
    assert root.findtext("name") == "web & db.qcow2"
    assert root.findtext("capacity") == str(5 << 30)
    assert root.findtext("allocation") == "0"
    assert root.find("target/format").get("type") == "qcow2"  # type: ignore[union-attr]


def test_where_a_disk_is_copied_to() -> None:
    root = etree.fromstring(storage.mirror_xml(COPY))
    assert root.get("type") == "file"
    assert root.find("source").get("file") == COPY.path  # type: ignore[union-attr]
    assert root.find("driver").get("type") == "qcow2"  # type: ignore[union-attr]


def test_a_pools_names_are_quoted() -> None:
    root = etree.fromstring(storage.folder_pool_xml("a<b", "/srv/<&>"))
    assert (root.get("type"), root.findtext("name"), root.findtext("target/path")) == (
        "dir",
        "a<b",
        "/srv/<&>",
    )


def test_a_definition_gets_its_copy_and_keeps_all_else() -> None:
    root = etree.fromstring(storage.relocated_xml(DOMAIN, [COPY]))
    first, second = root.findall("devices/disk")
    assert first.find("source").get("file") == "/old/web.qcow2"  # type: ignore[union-attr]
    assert second.find("source").get("file") == COPY.path  # type: ignore[union-attr]
    assert second.find("backingStore") is None
    assert second.find("mirror") is None
    assert second.findtext("serial") == "1"
    assert "kept" in etree.tostring(root, encoding="unicode")
    assert root.find("metadata/{urn:x}y") is not None


def test_a_stored_definition_with_another_image_keeps_it() -> None:
    other = DOMAIN.replace("/old/web &amp; db.qcow2", "/old/another.qcow2")
    root = etree.fromstring(storage.relocated_xml(other, [COPY]))
    assert root.findall("devices/disk")[1].find("source").get("file") == "/old/another.qcow2"  # type: ignore[union-attr]


def test_what_is_no_definition_is_refused() -> None:
    with pytest.raises(ValueError, match="well-formed"):
        storage.relocated_xml("<domain", [COPY])


# --- on libvirt's test driver, which has pools ---


@pytest.fixture
def host() -> Iterator[Any]:
    event_loop.start()
    connection = libvirt.open("test:///default")  # one world for the whole process
    yield connection
    for pool in connection.listAllStoragePools():
        if pool.name() == "default-pool":
            for volume in pool.listAllVolumes():
                volume.delete(0)
        elif pool.isActive():
            pool.destroy()
        else:
            pool.undefine()
    connection.close()


def refused(call: Any) -> FailureCode:
    with pytest.raises(OperationError) as caught:
        call()
    assert caught.value.failure.text
    return caught.value.failure.code


def names(host: Any) -> set[str]:
    return {volume.name() for volume in host.storagePoolLookupByName("default-pool").listAllVolumes()}


def test_an_image_is_made_once_and_never_written_over(host: Any) -> None:
    made = storage.make_images(host, "default-pool", [IMAGE], N2)
    assert made == (Copy(image=IMAGE, pool="default-pool", path="/default-pool/web & db.qcow2"),)
    assert names(host) == {"web & db.qcow2"}
    code = refused(lambda: storage.make_images(host, "default-pool", [IMAGE], N2))
    assert code is FailureCode.CONFLICT
    assert storage.remove_images(host, made) == ()
    assert names(host) == set()
    assert storage.remove_images(host, made) == ()  # once more does no harm


def test_of_several_images_all_are_made_or_none(host: Any) -> None:
    there = replace(IMAGE, disk="vdc", source="/old/there.raw")
    storage.make_images(host, "default-pool", [there], N2)
    code = refused(lambda: storage.make_images(host, "default-pool", [IMAGE, there], N2))
    assert code is FailureCode.CONFLICT
    assert names(host) == {"there.raw"}


def test_a_pool_without_room_is_left_alone(host: Any) -> None:
    huge = replace(IMAGE, allocated_bytes=1 << 60)
    assert refused(lambda: storage.make_images(host, "default-pool", [huge], N2)) is FailureCode.NO_RESOURCES
    assert names(host) == set()


def test_no_pool_an_inactive_one_and_one_of_another_kind(host: Any) -> None:
    assert refused(lambda: storage.make_images(host, "nowhere", [IMAGE], N2)) is FailureCode.STORAGE
    host.storagePoolDefineXML(storage.folder_pool_xml("off", "/off"))
    assert refused(lambda: storage.make_images(host, "off", [IMAGE], N2)) is FailureCode.STORAGE
    host.storagePoolCreateXML(
        "<pool type='logical'><name>lvm</name><source><name>lvm</name></source>"
        "<target><path>/dev/lvm</path></target></pool>"
    )
    assert refused(lambda: storage.make_images(host, "lvm", [IMAGE], N2)) is FailureCode.NOT_SUPPORTED


def test_a_vm_off_or_without_the_copy_uses_none(host: Any) -> None:
    vm = VmId(host.lookupByName("test").UUIDString())
    assert not storage.uses_any(host, vm, [COPY])
    assert not storage.uses_any(host, VmId("00000000-0000-4000-8000-00000000dead"), [COPY])

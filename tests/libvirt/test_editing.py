"""The XML of changed definitions: only what was asked for is another."""

from __future__ import annotations

import pytest
from lxml import etree

from manager.backends.libvirt import editing
from manager.backends.libvirt.domain_xml import parse
from manager.core.edits import SetInterface
from manager.core.errors import OperationError

DOMAIN = """<domain type='kvm'><name>a</name><memory unit='MiB'>512</memory><vcpu current='1'>2</vcpu>
<title>T</title><metadata><o:x xmlns:o='urn:o'>kept</o:x></metadata>
<os><type>hvm</type><boot dev='cdrom'/><boot dev='hd'/><boot dev='network'/></os><devices>
<disk type='file' device='disk'><source file='/a.qcow2'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/x &amp; y.iso' index='2'/>
<backingStore/><target dev='sda' bus='sata'/><readonly/><alias name='sata0-0-0'/></disk>
<interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan' portid='1'/>
<virtualport type='openvswitch'/><model type='virtio'/><link state='down'/></interface>
<hostdev mode='subsystem' type='pci'><boot order='1'/></hostdev>
<graphics type='vnc' passwd='secret'/></devices></domain>"""


def device(path: str) -> etree._Element:
    found = etree.fromstring(DOMAIN).find(path)
    assert found is not None
    return found


CD, NIC = "devices/disk[2]", "devices/interface"


def test_boot_kinds_are_read_as_devices() -> None:
    assert parse(DOMAIN).boot == ("sda", "vda", "52:54:00:00:00:01")


def test_a_drive_with_another_medium() -> None:
    changed = etree.fromstring(editing.medium_xml(device(CD), ("file", "/b <c>.iso")))
    assert [(e.tag, dict(e.attrib)) for e in changed if e.tag == "source"] == [
        ("source", {"file": "/b <c>.iso"})
    ]
    assert changed.find("backingStore") is None
    assert {e.tag for e in changed} == {"driver", "target", "readonly", "alias", "source"}
    changed = etree.fromstring(editing.medium_xml(device(CD), ("block", "/dev/sr0")))
    assert (changed.get("type"), changed.find("source").get("dev")) == ("block", "/dev/sr0")  # type: ignore[union-attr]


def test_an_empty_drive() -> None:
    changed = etree.fromstring(editing.medium_xml(device(CD), None))
    assert changed.find("source") is None
    assert changed.find("target") is not None


def test_an_interface_elsewhere() -> None:
    wanted = SetInterface(mac="52:54:00:00:00:01", kind="bridge", source="br1", link_up=True)
    changed = etree.fromstring(editing.interface_xml(device(NIC), wanted))
    assert changed.get("type") == "bridge"
    assert [dict(e.attrib) for e in changed.findall("source")] == [{"bridge": "br1"}]
    assert [dict(e.attrib) for e in changed.findall("link")] == [{"state": "up"}]
    assert changed.find("virtualport") is None
    assert changed.find("model") is not None


def test_only_the_link() -> None:
    changed = etree.fromstring(editing.interface_xml(device(NIC), SetInterface(link_up=True)))
    assert [dict(e.attrib) for e in changed.findall("source")] == [{"network": "lan", "portid": "1"}]
    assert [dict(e.attrib) for e in changed.findall("link")] == [{"state": "up"}]


def test_a_boot_order_keeps_everything_else_and_comes_before_others() -> None:
    text = editing.boot_xml(DOMAIN, ("vda", "52:54:00:00:00:01"))
    root = etree.fromstring(text)
    assert root.find("os/boot") is None
    orders = {e.getparent().tag: e.get("order") for e in root.findall("devices/*/boot")}  # type: ignore[union-attr]
    assert orders == {"disk": "1", "interface": "2", "hostdev": "3"}
    assert parse(text).boot == ("vda", "52:54:00:00:00:01")
    assert "secret" in text
    assert "urn:o" in text
    assert parse(editing.boot_xml(text, ("sda",))).boot == ("sda",)
    with pytest.raises(OperationError, match="no vdz"):
        editing.boot_xml(DOMAIN, ("vdz",))


def test_a_new_disk_has_a_name_of_its_own_and_can_be_moved() -> None:
    assert editing.free_target([DOMAIN]) == "vdb"
    full = "".join(f"<disk><target dev='vd{c}'/></disk>" for c in "abcdefghijklmnopqrstuvwxyz")
    assert editing.free_target([f"<domain><devices>{full}</devices></domain>"]) == "vdaa"
    disk = etree.fromstring(editing.disk_xml("vdb", "block", "/dev/vg/x", "raw"))
    driver, source = disk.find("driver"), disk.find("source")
    assert driver is not None
    assert source is not None
    assert (driver.get("cache"), source.get("dev"), disk.get("type")) == ("none", "/dev/vg/x", "block")


def test_a_definition_that_cannot_be_read_is_left_alone() -> None:
    with pytest.raises(OperationError, match="cannot be read"):
        editing.boot_xml("<!DOCTYPE x [<!ENTITY e 'y'>]><domain>&e;</domain>", ("vda",))

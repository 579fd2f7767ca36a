"""Definitions of pools, volumes, networks and interfaces as libvirt writes them, and as a stranger might."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from manager.backends.libvirt import resources
from manager.backends.libvirt.storage import is_own
from manager.backends.libvirt.translate import RESOURCES, RawEvent, event_of
from manager.core.events import NodeResourcesChanged
from manager.core.ids import NodeId
from manager.core.model import ClusterConfig
from manager.core.resource_facts import PoolState, SeenInterface, SeenNetwork, SeenPool, Volume
from tests.libvirt.support import domain, driver_host, real_there, vm_id

N1 = NodeId("n1")


def pool(xml: str) -> SeenPool:
    return resources.pool_of(xml, name="p", state=PoolState.ACTIVE)


@pytest.mark.parametrize(
    ("xml", "kind", "source", "target"),
    [
        (
            "<pool type='netfs'><source><host name='nas'/><dir path='/export/vms'/>"
            "<format type='nfs'/></source>"
            "<target><path>/srv/vms</path></target></pool>",
            "nfs",
            "nas:/export/vms",
            "/srv/vms",
        ),
        (
            "<pool type='netfs'><source><host name='g1'/><dir path='/'/><name>vol</name>"
            "<format type='glusterfs'/></source><target><path>/g</path></target></pool>",
            "glusterfs",
            "g1:vol",
            "/g",
        ),
        (
            "<pool type='rbd'><source><host name='mon-1' port='6789'/><host name='mon-2'/>"
            "<name>libvirt</name></source></pool>",
            "rbd",
            "mon-1:6789, mon-2:libvirt",
            "",
        ),
        (
            "<pool type='iscsi'><source><host name='san'/><device path='iqn.2026-01.example:x'/></source>"
            "<target><path>/dev/disk/by-path</path></target></pool>",
            "iscsi",
            "san:iqn.2026-01.example:x",
            "/dev/disk/by-path",
        ),
        (
            "<pool type='gluster'><source><host name='g1'/><dir path='/images'/>"
            "<name>vol</name></source></pool>",
            "gluster",
            "g1:vol/images",
            "",
        ),
        (
            "<pool type='logical'><source><device path='/dev/sdb'/><name>vg</name>"
            "<format type='lvm2'/></source>"
            "<target><path>/dev/vg</path></target></pool>",
            "logical",
            "vg",
            "/dev/vg",
        ),
        ("<pool type='dir'><source/><target><path>/x</path></target></pool>", "dir", "", "/x"),
    ],
)
def test_a_pools_source_is_read(xml: str, kind: str, source: str, target: str) -> None:
    found = pool(xml)
    assert (found.kind_text, found.source_text, found.target, found.trouble) == (kind, source, target, "")


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<pool",
        "<network/>",
        "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><pool type='dir'><name>&e;</name></pool>",
        f"<pool type='dir'><name>{'x' * 300_000}</name></pool>",
    ],
)
def test_what_is_not_understood_is_said_and_harms_nothing(xml: str) -> None:
    assert pool(xml).trouble
    assert resources.network_of(xml.replace("<network/>", "<pool/>"), name="n", is_active=True).trouble
    known = Volume(id="k", name="k")
    assert resources.volume_of(xml, known) == known
    seen = SeenInterface(name="eth0")
    assert resources.interface_of(xml, seen) == seen


def test_only_the_pools_that_muster_makes_for_a_moment_are_its_own() -> None:
    assert is_own("muster-0f8fad5b-d9cb-469f-a165-70867728950e")
    assert not is_own("muster-images")
    assert not is_own("0f8fad5b-d9cb-469f-a165-70867728950e")


def test_texts_of_a_host_are_one_line_of_bounded_length() -> None:
    xml = f"<pool type='dir'><target><path>/a\x9b\n{'b' * 5000}</path></target></pool>"
    found = pool(xml)
    assert found.target.isprintable()
    assert len(found.target) <= 1000


def test_a_volume_is_read() -> None:
    xml = """<volume type='file'><name>a</name><key>/p/a</key><capacity unit='bytes'>2048</capacity>
      <allocation unit='bytes'>1024</allocation><target><path>/p/a</path><format type='qcow2'/></target>
      <backingStore><path>/p/base</path><format type='raw'/></backingStore></volume>"""
    assert resources.volume_of(xml, Volume(id="/p/a", name="a")) == Volume(
        id="/p/a",
        name="a",
        path="/p/a",
        format="qcow2",
        capacity_bytes=2048,
        allocated_bytes=1024,
        backing="/p/base",
    )


@pytest.mark.parametrize(
    ("inner", "mode", "subnets"),
    [
        ("<forward mode='nat'/><ip address='10.1.2.1' netmask='255.255.255.0'/>", "nat", ("10.1.2.0/24",)),
        ("<forward/><ip family='ipv6' address='fd00::1' prefix='64'/>", "nat", ("fd00::/64",)),
        ("<ip address='10.1.2.1' prefix='24'/><ip address='lost'/>", "isolated", ("10.1.2.0/24",)),
        ("<forward mode='bridge'/>", "bridge", ()),
    ],
)
def test_a_network_is_read(inner: str, mode: str, subnets: tuple[str, ...]) -> None:
    found = resources.network_of(f"<network><bridge name='br1'/>{inner}</network>", name="n", is_active=True)
    assert found == SeenNetwork(name="n", is_active=True, mode=mode, bridge="br1", subnets=subnets)


def test_a_bridges_ports_are_the_hosts_own() -> None:
    xml = """<interface type='bridge' name='br0'><mtu size='9000'/><link speed='10000' state='up'/>
      <protocol family='ipv4'><ip address='10.0.0.5' prefix='24'/></protocol>
      <bridge><interface type='ethernet' name='eno1'/><interface name='vnet12'/></bridge></interface>"""
    assert resources.interface_of(xml, SeenInterface(name="br0", mac="aa")) == SeenInterface(
        name="br0",
        kind="bridge",
        mac="aa",
        addresses=("10.0.0.5/24",),
        ports=("eno1",),
        mtu=9000,
        speed_mbit=10_000,
    )


def test_any_event_of_a_pool_or_a_network_is_news() -> None:
    event = event_of(RawEvent(RESOURCES, "", ""), node=N1, at_s=1.0)
    assert event == NodeResourcesChanged(at_s=1.0, node=N1)


async def test_a_host_tells_when_a_pool_or_a_network_begins_or_ends(tmp_path: Path) -> None:
    node = driver_host(tmp_path, "n1", [domain("web")])
    async with real_there(ClusterConfig(name="test", nodes=(node,)), vm_id("web")) as there:
        link = there.hypervisor._links.of(N1)

        def told() -> int:
            return sum(isinstance(event, NodeResourcesChanged) for event in there.seen)

        def stop_pool(connection: libvirt.virConnect) -> None:
            connection.storagePoolLookupByName("default").destroy()

        def stop_network(connection: libvirt.virConnect) -> None:
            connection.networkLookupByName("inner").destroy()

        await link.call(link.work, stop_pool, 5, "stopping")
        await there.until(lambda: told() == 1)
        await link.call(link.work, stop_network, 5, "stopping")
        await there.until(lambda: told() == 2)
        read = await there.hypervisor.read_resources(N1)
        assert read.pools is not None
        assert read.networks is not None
        assert [(p.state, p.capacity_bytes) for p in read.pools] == [(PoolState.INACTIVE, None)]
        assert [n.is_active for n in read.networks] == [False]


async def test_what_the_test_driver_has_is_read_whole(tmp_path: Path) -> None:
    node = driver_host(tmp_path, "n1", [])
    async with real_there(ClusterConfig(name="test", nodes=(node,))) as there:
        read = await there.hypervisor.read_resources(N1)
        volumes = (await there.hypervisor.read_volumes(N1, "default")).volumes
    assert read.networks == (
        SeenNetwork(name="inner", is_active=True, mode="nat", bridge="virbr7", subnets=("192.168.7.0/24",)),
    )
    assert read.interfaces == (
        SeenInterface(name="eth7", mac="aa:bb:cc:dd:ee:ff", addresses=("192.0.2.5/24",)),
    )
    assert [(v.name, v.format, v.capacity_bytes, v.allocated_bytes) for v in volumes] == [
        ("old.img", "qcow2", 1_000_000, 50_000)
    ]

"""Settings of a real guest: its CD, memory, network and disks, seen by virsh and by the guest's own host."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from lxml import etree

from manager.core.edits import (
    AddDisk,
    GrowDisk,
    SetBootOrder,
    SetInterface,
    SetMedium,
    SetMemory,
    SetVcpus,
    pending,
)
from manager.core.effects import EditVm, VmChange
from manager.core.errors import FailureCode
from manager.core.model import VmConfig
from manager.lab.lab import Lab
from tests.lab.hosts import LabThere, add_guests, empty_pools, lab_there, make_pool, state
from tests.lab.support import run_apart

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

GUEST, POOL = "settings-a", "default"


@pytest.fixture
async def there(lab: Lab) -> AsyncIterator[LabThere]:
    """A guest with a CD drive, and an image for it; both are gone afterwards."""
    add_guests(lab, GUEST)
    run_apart(lambda: make_pool(lab, POOL, "/var/lib/libvirt/images"))
    vm = next(vm for vm in lab.vms if vm.name == GUEST)
    image = lab.shared / "settings.iso"
    image.write_bytes(bytes(1 << 20))
    root = etree.fromstring(lab.domain_xml(vm))
    drive = etree.SubElement(root.find("devices"), "disk", type="file", device="cdrom")
    etree.SubElement(drive, "target", dev="hda", bus="ide")
    etree.SubElement(drive, "readonly")
    file = lab.directory / f"{GUEST}-with-drive.xml"
    file.write_bytes(etree.tostring(root))
    if await state(lab, GUEST, "n1") == "running":
        await lab.virsh("n1", "destroy", GUEST)
    await lab.virsh("n1", "define", str(file))
    async with lab_there(lab, GUEST) as there:
        yield there
    await lab.virsh("n1", "destroy", GUEST)
    await lab.virsh("n1", "undefine", GUEST)
    await empty_pools(lab)
    image.unlink()
    file.unlink()


async def failure(there: LabThere, edit: object) -> FailureCode:
    effect = EditVm(**there.of(there.vms[0]), edit=edit)  # type: ignore[arg-type]
    return (await there.failure(there.hypervisor.edit_vm(effect))).code


def medium(config: VmConfig) -> str:
    return next(disk.source for disk in config.disks if disk.target == "hda")


async def test_settings_of_a_guest_that_runs(lab: Lab, there: LabThere) -> None:
    vm, image = there.vms[0], str(lab.shared / "settings.iso")
    await there.rest(vm)

    # the CD: what is not on the node is refused, by its path and by its pool
    assert await failure(there, SetMedium(disk="hda", source=f"{lab.shared}/none.iso")) is FailureCode.STORAGE
    assert await failure(there, SetMedium(disk="hda", source="/no/such/folder/x.iso")) is FailureCode.STORAGE
    assert await failure(there, SetMedium(disk="hda", source=f"{POOL}/none.iso")) is FailureCode.STORAGE
    config = await there.edit(vm, SetMedium(disk="hda", source=image))
    assert (medium(config), pending(config)) == (image, ())
    assert image in await lab.virsh("n1", "domblklist", GUEST)
    config = await there.edit(vm, SetMedium(disk="hda", force=True))  # nobody in the guest opens the tray
    assert (medium(config), pending(config)) == ("", ())
    assert image not in await lab.virsh("n1", "domblklist", GUEST)
    assert image not in await lab.virsh("n1", "domblklist", "--inactive", GUEST)
    assert not (await lab.virsh("n1", "pool-list", "--all", "--name")).count("muster-")

    # memory: less at once, by the balloon; more at the next start
    size = config.memory_mib
    config = await there.edit(vm, SetMemory(memory_mib=size - 8, maximum_mib=size))
    assert (config.memory_now_mib, pending(config)) == (size - 8, ())
    said = await lab.virsh("n1", "dommemstat", GUEST)
    assert f"actual {(size - 8) * 1024}" in said
    config = await there.edit(vm, SetMemory(memory_mib=size + 32, maximum_mib=size + 32, live=False))
    assert (config.memory_mib, pending(config)) == (size, ("memory",))

    # the network: link down, and another bridge that the host does not have
    (nic,) = config.interfaces
    config = await there.edit(vm, SetInterface(mac=nic.mac, link_up=False))
    assert "down" in await lab.virsh("n1", "domif-getlink", GUEST, nic.mac)
    assert not config.interfaces[0].link_up
    wrong = SetInterface(mac=nic.mac, kind="network", source="none")
    assert await failure(there, wrong) is FailureCode.NETWORK
    config = await there.edit(vm, SetInterface(mac=nic.mac, link_up=True))
    assert config.interfaces == (nic,)

    # disks: a new one, larger; the one of another VM is refused
    config = await there.edit(vm, AddDisk(pool=POOL, size_mib=8))
    disk = next(disk for disk in config.disks if disk.target == "vdb")
    assert (disk.format, disk.cache, "vdb" in await lab.virsh("n1", "domblklist", GUEST)) == (
        "qcow2",
        "none",
        True,
    )
    await there.edit(vm, GrowDisk(disk="vdb", size_mib=16))
    assert f"Capacity:       {16 << 20}" in await lab.virsh("n1", "domblkinfo", GUEST, "vdb")
    assert await failure(there, GrowDisk(disk="vdb", size_mib=8)) is FailureCode.CONFLICT
    name = disk.source.rpartition("/")[2]
    assert await failure(there, AddDisk(pool=POOL, volume=name)) is FailureCode.UNSAFE

    # what counts at the next start
    config = await there.edit(vm, SetBootOrder(devices=("vda", "hda")))
    await there.edit(vm, SetVcpus(vcpus=2, maximum=2, live=False))
    config = (await there.hypervisor.read_vm(there.home, vm)).config
    assert pending(config) == ("memory", "vCPUs", "boot order")
    await there.change(vm, VmChange.TURN_OFF)
    await there.edit(vm, GrowDisk(disk="vdb", size_mib=24))
    await there.change(vm, VmChange.START)
    config = (await there.hypervisor.read_vm(there.home, vm)).config
    assert (config.memory_mib, config.vcpus, config.boot) == (size + 32, 2, ("vda", "hda"))
    assert pending(config) == ()

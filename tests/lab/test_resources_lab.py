"""Storage and networks of real daemons: a pool that one node lacks, its coming and going, its volumes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from manager.backends.libvirt.backend import LibvirtHypervisor
from manager.core.ids import NetworkId, NodeId, PoolId
from manager.core.resource_facts import Pool, PoolStatus
from manager.lab.errors import LabError
from manager.lab.lab import Lab
from manager.services.clock import RealClock
from manager.services.memory_journal import MemoryJournal
from manager.services.runtime import Runtime
from tests.lab.hosts import cluster
from tests.lab.support import run_apart
from tests.libvirt.support import MemorySecrets

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

NAME = "muster-test-stores"  # of the pool on n1 and n2, and of the VM that has a disk in it
OTHER = "muster-test-other"  # what n3 calls it
PATIENCE_S = 20.0


async def quietly(lab: Lab, node: str, *argv: str) -> None:
    with suppress(LabError):
        await lab.virsh(node, *argv)


@pytest.fixture
def folder(lab: Lab) -> Iterator[Path]:
    """A shared folder with an image, as a pool of two of the three nodes; a VM that is off uses the image."""
    folder = lab.shared / "stores"

    async def make() -> None:
        folder.mkdir(exist_ok=True)
        for node in ("n1", "n2"):
            await lab.virsh(node, "pool-define-as", NAME, "dir", "--target", str(folder))
            await lab.virsh(node, "pool-start", NAME)
        for image in ("used.qcow2", "unused.qcow2"):
            await lab.virsh("n1", "vol-create-as", NAME, image, "16M", "--format", "qcow2")
        xml = lab.directory / "stores.xml"
        xml.write_text(
            f"<domain type='qemu'><name>{NAME}</name><memory unit='MiB'>32</memory><os><type>hvm</type></os>"
            f"<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='{folder}/used.qcow2'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
        )
        await lab.virsh("n1", "define", str(xml))
        net = lab.directory / "net.xml"
        net.write_text(f"<network><name>{NAME}</name><bridge name='musternet'/></network>")
        await lab.virsh("n2", "net-define", str(net))

    async def remove() -> None:
        await quietly(lab, "n1", "undefine", NAME)
        await quietly(lab, "n2", "net-undefine", NAME)
        for node, pool in (("n1", NAME), ("n2", NAME), ("n3", OTHER)):
            await quietly(lab, node, "pool-destroy", pool)
            await quietly(lab, node, "pool-undefine", pool)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    try:
        run_apart(make)
        yield folder
    finally:
        run_apart(remove)


@pytest.fixture
async def runtime(lab: Lab, folder: Path) -> AsyncIterator[Runtime]:
    config, clock = cluster(lab), RealClock()
    hypervisor = LibvirtHypervisor(config, clock=clock, secrets=MemorySecrets())
    runtime = Runtime(
        config=config, hypervisor=hypervisor, journal=MemoryJournal(), clock=clock, author="adm@test"
    )
    await runtime.start()
    try:
        assert await runtime.settled(PATIENCE_S)
        runtime.resources.follow()
        yield runtime
    finally:
        await runtime.close()


async def until(runtime: Runtime, condition: Callable[[], bool]) -> None:
    """Wait for a change after which it holds."""
    changed = asyncio.Event()
    unsubscribe = runtime.subscribe(lambda _: changed.set())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        unsubscribe()


async def test_a_shared_pool_that_one_node_lacks(lab: Lab, folder: Path, runtime: Runtime) -> None:
    resources, key = runtime.view.resources, PoolId(f"path:{folder}")
    n1, n3 = NodeId("n1"), NodeId("n3")

    def shown() -> Pool:
        return resources.pools[key]

    def text() -> str:
        return "; ".join(note.text for note in shown().notes)

    await until(runtime, lambda: all(resources.is_read(node) for node in runtime.view.nodes))
    assert (shown().name, shown().status, shown().missing) == (NAME, PoolStatus.PARTLY, (n3,))
    assert "missing on n3" in text()
    assert shown().capacity_bytes
    network = resources.networks[NetworkId(f"network:{NAME}")]
    assert (network.nodes, network.inactive) == (("n2",), ("n2",))
    assert (network.kind, network.bridge) == ("isolated", "musternet")

    # Who is in it: asked now, of a node that has it.
    node, found = await runtime.resources.volumes(key)
    assert node == n1
    assert [(v.name, v.format, v.users) for v in found] == [
        ("unused.qcow2", "qcow2", ()),
        ("used.qcow2", "qcow2", (NAME,)),
    ]

    # Its hosts tell what becomes of it.
    await lab.virsh("n3", "pool-define-as", OTHER, "dir", "--target", str(folder))
    await until(runtime, lambda: shown().inactive == (n3,))
    await lab.virsh("n3", "pool-start", OTHER)
    await until(runtime, lambda: shown().status is PoolStatus.ONLINE)
    assert f"named {OTHER} on n3" in text()
    await lab.virsh("n1", "pool-destroy", NAME)
    await until(runtime, lambda: shown().status is PoolStatus.PARTLY)
    assert "not active on n1" in text()
    assert (await runtime.resources.volumes(key))[0] == "n2"
    await lab.virsh("n2", "net-undefine", NAME)
    await until(runtime, lambda: NetworkId(f"network:{NAME}") not in resources.networks)


async def test_what_is_made_by_others_is_seen_when_the_pool_is_looked_into(
    lab: Lab, folder: Path, runtime: Runtime
) -> None:
    key = PoolId(f"path:{folder}")
    await runtime.resources.read_all()
    (folder / "copied.raw").write_bytes(bytes(1 << 20))
    _, found = await runtime.resources.volumes(key)
    assert "copied.raw" in [volume.name for volume in found]  # though no node was told of it

"""The lab's hosts as the libvirt backend sees them, and its guests put back where a test wants them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from manager.core.effects import VmChange
from manager.core.ids import NodeId, VmId
from manager.core.model import ClusterConfig, NodeConfig
from manager.lab.errors import LabError
from manager.lab.lab import Lab
from manager.lab.node import Node
from tests.lab.support import run_apart
from tests.libvirt.support import RealThere, real_there

NOBODYS_HOST = 9
"""The last part of an address in the lab's network that no node and no guest has."""


def cluster(lab: Lab, transport: str = "unix") -> ClusterConfig:
    """The lab's nodes, reached over unix sockets, ssh or tls."""
    return ClusterConfig(
        name="lab",
        shared_paths=(str(lab.shared),),
        nodes=tuple(
            NodeConfig(
                name=NodeId(node.name),
                uri={"unix": node.uri, "ssh": node.ssh_uri, "tls": node.tls_uri}[transport],
                peer_uri=node.peer_uri,
                addresses=(node.address,),
            )
            for node in lab.nodes
        ),
    )


def add_guests(lab: Lab, *names: str, node: str = "n1", dirty_mib: int = 0) -> None:
    """Make guests for a module's tests; those that are there already are kept."""
    there = {vm.name for vm in lab.vms}

    async def add() -> None:
        for name in names:
            if name not in there:
                await lab.add_vm(name, node, dirty_mib=dirty_mib, memory_mib=96 + dirty_mib)

    run_apart(add)


async def state(lab: Lab, name: str, node: str) -> str | None:
    """A guest's state on a node as virsh says it; None if it is not there."""
    try:
        return (await lab.virsh(node, "domstate", name)).strip()
    except LabError:
        return None


async def make_pool(lab: Lab, name: str, folder: str) -> None:
    """A pool of each node's own."""
    for node in lab.nodes:
        if name not in (await lab.virsh(node, "pool-list", "--all", "--name")).split():
            await lab.virsh(node, "pool-define-as", name, "dir", "--target", folder)
            await lab.virsh(node, "pool-build", name)
            await lab.virsh(node, "pool-start", name)


async def empty_pools(lab: Lab) -> None:
    """Delete what is in the nodes' own pools."""
    for node in lab.nodes:
        for pool in (await lab.virsh(node, "pool-list", "--name")).split():
            await lab.virsh(node, "pool-refresh", pool)
            for line in (await lab.virsh(node, "vol-list", pool)).splitlines():
                if words := line.split():
                    await lab.virsh(node, "vol-delete", words[0], pool)


async def has_own_disk(lab: Lab, name: str, node: Node) -> bool:
    """Whether a guest's disk is not the shared one that it was made with."""
    xml = await lab.virsh(node, "dumpxml", name)
    return xml.count("<source file='") != xml.count(f"<source file='{lab.shared}/")


async def until_dirty(lab: Lab, name: str, dirty_mib: int) -> None:
    """Wait until a guest on n1 has filled the memory that it is to change."""
    async with asyncio.timeout(60):
        while True:
            said = await lab.virsh("n1", "dommemstat", name)
            if int(re.search(r"rss (\d+)", said)[1]) > (dirty_mib + 100) << 10:  # type: ignore[index]
                return
            await asyncio.sleep(0.2)


async def put(lab: Lab, name: str, home: str) -> int:
    """Have a guest run on a node, whatever an earlier test left; by virsh, not by what is tested.

    Returns how much its console had printed before it was started, if it was.
    """
    for node in lab.nodes:
        now = await state(lab, name, node.name)
        if now is not None and await has_own_disk(lab, name, node):
            if now != "shut off":
                await lab.virsh(node, "destroy", name)
            await lab.virsh(node, "undefine", "--managed-save", name)
            await empty_pools(lab)
            now = None
        if now is None or node.name == home:
            continue
        if now == "running":
            target = lab.node(home).peer_uri
            how = ("--live", "--p2p", "--persistent", "--undefinesource", "--unsafe")
            await lab.virsh(node, "migrate", *how, name, target, timeout_s=60)
        else:
            if now != "shut off":
                await lab.virsh(node, "destroy", name)
            await lab.virsh(node, "undefine", "--managed-save", name)
    now = await state(lab, name, home)
    if now is None:
        vm = next(vm for vm in lab.vms if vm.name == name)
        file = lab.directory / f"{name}.xml"
        file.write_text(lab.domain_xml(vm))
        await lab.virsh(home, "define", str(file))
        now = "shut off"
    if now == "paused":
        await lab.virsh(home, "destroy", name)
        now = "shut off"
    if now == "running":
        return 0
    printed = lab.console_size(name)
    await lab.virsh(home, "start", "--force-boot", name, timeout_s=60)
    return printed


@dataclass(kw_only=True)
class LabThere(RealThere):
    """A `There` on the lab, which knows when a guest has booted."""

    lab: Lab
    names: dict[VmId, str]
    printed: dict[VmId, int] = field(default_factory=dict)  # console bytes before the last start

    async def change(self, vm: VmId, change: VmChange, node: NodeId | None = None) -> None:
        if change in (VmChange.START, VmChange.RESET, VmChange.RESTART):
            self.printed[vm] = self.lab.console_size(self.names[vm])
        await super().change(vm, change, node)

    async def rest(self, vm: VmId) -> None:
        await self.lab.wait_ready(self.names[vm], since=self.printed.get(vm, 0))

    def addresses(self) -> tuple[str, str]:
        good = self.lab.node(self.away).address
        return f"{good.rpartition('.')[0]}.{NOBODYS_HOST}", good


@asynccontextmanager
async def lab_there(lab: Lab, *names: str, transport: str = "unix") -> AsyncIterator[LabThere]:
    """A hypervisor connected to all the lab's nodes, with these guests running on the first one."""
    ids = [VmId(lab.vm_uuid(name)) for name in names]
    printed = {vm: await put(lab, name, "n1") for vm, name in zip(ids, names, strict=True)}
    async with real_there(cluster(lab, transport), *ids) as there:
        yield LabThere(
            hypervisor=there.hypervisor,
            config=there.config,
            facts=there.facts,
            vms=there.vms,
            seen=there.seen,
            changed=there.changed,
            lab=lab,
            names=dict(zip(ids, names, strict=True)),
            printed=printed,
        )

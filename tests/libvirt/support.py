"""Hosts of libvirt's test driver, and a real clock for the contract."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from manager.backends.libvirt.backend import LibvirtHypervisor
from manager.core.ids import NodeId, VmId
from manager.core.model import ClusterConfig, NodeConfig, NodeFacts
from manager.services.clock import RealClock
from manager.services.ports import AskSecret
from tests.contract.hypervisor_contract import There

PATIENCE_S = 30.0


def vm_id(name: str) -> VmId:
    """The UUID of a VM of these tests."""
    return VmId(str(uuid.uuid5(uuid.NAMESPACE_DNS, name)))


def domain(name: str, *, state: int = 1, inner: str = "", driver: str = "") -> str:
    """A domain of the test driver; `state` as libvirt numbers them (1 running, 3 paused, 5 off)."""
    return f"""
    <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
      <name>{name}</name><uuid>{vm_id(name)}</uuid>{inner}
      <memory unit='MiB'>512</memory><vcpu>2</vcpu>
      <os><type arch='x86_64'>hvm</type></os>
      <devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>
          <source file='/srv/vms/{name}.qcow2'/><target dev='vda' bus='virtio'/></disk>
      </devices>
      <test:runstate>{state}</test:runstate>{driver}
    </domain>"""


RESOURCES = """
    <pool type='dir'><name>default</name><uuid>dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566</uuid>
      <target><path>/var/lib/images</path></target>
      <volume type='file'><name>old.img</name><capacity>1000000</capacity><allocation>50000</allocation>
        <target><path>/var/lib/images/old.img</path><format type='qcow2'/></target></volume></pool>
    <network><name>inner</name><uuid>eeb4c1b2-2e0e-4e5d-9c8f-0a4b0ed6e1e2</uuid><forward mode='nat'/>
      <bridge name='virbr7'/><ip address='192.168.7.1' netmask='255.255.255.0'/></network>
    <interface type='ethernet' name='eth7'><start mode='onboot'/><mac address='aa:bb:cc:dd:ee:ff'/>
      <protocol family='ipv4'><ip address='192.0.2.5' prefix='24'/></protocol></interface>"""
"""What a host of the test driver has besides domains."""


def driver_host(folder: Path, name: str, domains: Sequence[str], *, auth: str = "") -> NodeConfig:
    """A node of the test driver with these domains. Every open of it is a world of its own."""
    file = folder / f"{name}.xml"
    cpu = "<cpu><mhz>2000</mhz><model>x86_64</model><active>8</active><nodes>1</nodes></cpu>"
    file.write_text(f"<node>{cpu}<memory>16777216</memory>{auth}{''.join(domains)}{RESOURCES}</node>")
    return NodeConfig(name=NodeId(name), uri=f"test://{file}")


@dataclass
class MemorySecrets:
    """A key ring in memory."""

    kept: dict[tuple[str, str], str] = field(default_factory=dict)
    is_persistent: bool = False

    def get(self, entry: str, user: str) -> str | None:
        return self.kept.get((entry, user))

    def set(self, entry: str, user: str, secret: str) -> None:
        self.kept[entry, user] = secret

    def delete(self, entry: str, user: str) -> None:
        self.kept.pop((entry, user), None)


@dataclass(kw_only=True)
class RealThere(There):
    """A `There` in real time."""

    hypervisor: LibvirtHypervisor
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def collect(self) -> None:
        """Keep every event."""
        async for event in self.hypervisor.events():
            self.seen.append(event)
            self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def real_there(
    config: ClusterConfig,
    *vms: VmId,
    secrets: MemorySecrets | None = None,
    ask: AskSecret | None = None,
    connect: bool = True,
) -> AsyncIterator[RealThere]:
    """A hypervisor connected to all nodes of a cluster, closed at the end."""
    hypervisor = LibvirtHypervisor(
        config, clock=RealClock(), secrets=secrets or MemorySecrets(), ask_secret=ask
    )
    facts: dict[NodeId, NodeFacts] = {}
    first, second = (*vms, VmId(""), VmId(""))[:2]
    there = RealThere(hypervisor=hypervisor, config=config, facts=facts, vms=(first, second))
    collecting = asyncio.get_running_loop().create_task(there.collect())
    try:
        if connect:
            for node in config.nodes:
                facts[node.name] = await hypervisor.connect(node)
        yield there
    finally:
        await hypervisor.close()
        async with asyncio.timeout(5):
            await collecting

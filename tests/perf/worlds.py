"""What is measured on: cluster files over libvirt's test driver, and a state of any size."""

from __future__ import annotations

from pathlib import Path

from manager.core.cluster import ClusterState
from manager.core.events import NodeConnected, NodeInventoryRead, SeenVm, VmConfigRead
from manager.core.ids import NodeId, VmId
from manager.core.model import (
    ClusterConfig,
    Disk,
    NodeConfig,
    NodeFacts,
    Priority,
    StatusCause,
    Tier,
    VmConfig,
    VmSettings,
    VmStatus,
)


def vm_id(number: int) -> VmId:
    """The UUID of the n-th VM."""
    return VmId(f"00000000-0000-4000-8000-{number:012d}")


def domain(number: int) -> str:
    """A definition of about the size that real ones have without their long tail."""
    return (
        f"<domain type='test'><name>vm-{number:05d}</name><uuid>{vm_id(number)}</uuid>"
        "<memory unit='MiB'>2048</memory><vcpu>2</vcpu><os><type arch='x86_64'>hvm</type></os>"
        "<devices>"
        f"<disk type='file' device='disk'><source file='/srv/vms/vm-{number:05d}.qcow2'/>"
        "<target dev='vda' bus='virtio'/></disk>"
        "<interface type='network'><source network='default'/></interface>"
        "</devices></domain>"
    )


def test_driver_host(path: Path, first: int, count: int) -> str:
    """Write a host of libvirt's test driver with that many running VMs; returns its URI."""
    domains = "".join(domain(n) for n in range(first, first + count))
    path.write_text(f"<node><cpu><mhz>2000</mhz></cpu><memory>1000000000</memory>{domains}</node>")
    return f"test://{path}"


def test_driver_cluster(folder: Path, nodes: int, vms: int) -> Path:
    """A cluster file whose nodes are hosts of libvirt's test driver."""
    share = vms // nodes
    lines = ['name = "bench"']
    for index in range(nodes):
        name = f"n{index + 1:02d}"
        uri = test_driver_host(folder / f"{name}.xml", index * share, share)
        lines += ["[[nodes]]", f'name = "{name}"', f'uri = "{uri}"']
    path = folder / "bench.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def config_of(nodes: int) -> ClusterConfig:
    """A cluster file of so many nodes."""
    return ClusterConfig(
        name="bench",
        tier=Tier.DEMO,
        nodes=tuple(NodeConfig(name=NodeId(f"n{i:02d}"), uri="x:///") for i in range(nodes)),
        shared_paths=("/srv/vms",),
    )


def filled_state(nodes: int, vms: int) -> ClusterState:
    """A state with every node up and every definition read."""
    state = ClusterState(config_of(nodes))
    share = vms // nodes
    for index, node in enumerate(state.config.nodes):
        facts = NodeFacts(
            hostname=node.name,
            host_uuid=node.name,
            cpus=64,
            memory_mib=1024 * 1024,
            features=frozenset({"live migration"}),
        )
        state.handle(NodeConnected(at_s=1.0, node=node.name, facts=facts))
        numbers = range(index * share, (index + 1) * share)
        state.handle(inventory(node.name, numbers, at_s=2.0))
        for number in numbers:
            state.handle(VmConfigRead(at_s=3.0, node=node.name, vm=vm_id(number), config=config(number)))
    return state


def inventory(node: NodeId, numbers: range, *, at_s: float) -> NodeInventoryRead:
    """All VMs of a node, running."""
    return NodeInventoryRead(
        at_s=at_s,
        started_s=at_s,
        node=node,
        vms=tuple(
            SeenVm(
                vm=vm_id(n),
                name=f"vm-{n:05d}",
                status=VmStatus.RUNNING,
                cause=StatusCause.BOOTED,
                incarnation=n,
            )
            for n in numbers
        ),
    )


def config(number: int) -> VmConfig:
    """The definition of the n-th VM."""
    return VmConfig(
        memory_mib=2048 << number % 3,
        vcpus=2,
        disks=(Disk(target="vda", source=f"/srv/vms/vm-{number:05d}.qcow2", cache="none"),),
        settings=VmSettings(
            priority=(Priority.HIGH, Priority.MEDIUM, Priority.LOW)[number % 3],
            tags=("web",) if number % 4 == 0 else (),
        ),
        digest=str(number),
    )

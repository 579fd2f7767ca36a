"""A dump of a cluster: what its nodes said, whole, so that it can be looked at and planned with elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from manager.core.cluster import ClusterView
from manager.core.ids import NodeId, VmId
from manager.core.model import ClusterConfig, Hold, NodeFacts, NodeLoad, Sighting, Tier, VmLoad
from manager.core.resource_facts import SeenInterface, SeenNetwork, SeenPool
from manager.core.vault import KeptDefinition

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpedNode:
    """What one node said. `why`: it was not up, and this is what was seen of it last; no facts: never."""

    name: NodeId
    facts: NodeFacts | None = None
    why: str = ""
    holds: tuple[Hold, ...] = ()
    vms: tuple[Sighting, ...] = ()
    pools: tuple[SeenPool, ...] | None = None
    networks: tuple[SeenNetwork, ...] | None = None
    interfaces: tuple[SeenInterface, ...] | None = None
    load: NodeLoad | None = None
    vm_loads: Mapping[VmId, VmLoad] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDump:
    """A whole cluster at one moment, without operations and without what happened."""

    format: int = FORMAT
    made_s: float  # wall clock
    config: ClusterConfig
    nodes: tuple[DumpedNode, ...]
    kept: tuple[KeptDefinition, ...] = ()  # what the vault had; without the texts

    @property
    def cluster(self) -> ClusterConfig:
        """The cluster as it is opened from the dump: nothing in it can be changed."""
        return replace(self.config, tier=Tier.DUMP, read_only=True, file="")


def dump_of(view: ClusterView, at_s: float) -> ClusterDump:
    """Everything that the nodes of a cluster have told."""
    seen: dict[NodeId, list[Sighting]] = {name: [] for name in view.nodes}
    for vm in view.vms:
        for node, sighting in view.sightings(vm).items():
            seen[node].append(sighting)
    return ClusterDump(
        made_s=at_s,
        config=view.config,
        nodes=tuple(_node(view, name, seen[name]) for name in view.nodes),
        kept=tuple(view.kept.values()),
    )


def _node(view: ClusterView, name: NodeId, vms: list[Sighting]) -> DumpedNode:
    node, resources = view.nodes[name], view.resources
    why = "" if node.is_up else node.information.text if node.information else node.status.value
    pools, networks = resources.pools_of(name), resources.networks_of(name)
    interfaces = resources.interfaces_of(name)
    return DumpedNode(
        name=name,
        facts=node.facts,
        why=why,
        holds=node.holds,
        vms=tuple(vms),
        pools=None if pools is None else tuple(pools.values()),
        networks=None if networks is None else tuple(networks.values()),
        interfaces=None if interfaces is None else tuple(interfaces.values()),
        load=view.node_loads.get(name),
        vm_loads={s.vm: view.vm_loads[s.vm] for s in vms if s.vm in view.vm_loads},
    )

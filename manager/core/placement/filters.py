"""Where a VM cannot go: each filter says of one node why not, or nothing. No plan breaks one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from manager.core.ids import NodeId, PoolId
from manager.core.model import RuleKind
from manager.core.placement.room import Equipment, Groups, PlacementView, Site, Wish
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.resource_facts import SeenPool


class Filter(Protocol):
    """One rule that a node must meet."""

    def concerns(self, wish: Wish) -> bool:
        """Whether it can refuse this VM anything."""
        ...

    def refusal(self, wish: Wish, site: Site) -> Reason | None:
        """Why the VM cannot go there, or None."""
        ...


class TakesWork:
    """The node is up, nobody holds it, and all that runs there is known."""

    def concerns(self, wish: Wish) -> bool:
        """Every VM."""
        return True

    def refusal(self, wish: Wish, site: Site) -> Reason | None:
        """What `node_takes_work` says."""
        return site.closed


class PossibleOwner:
    """It is one of the VM's possible owners, if it names any."""

    def concerns(self, wish: Wish) -> bool:
        """VMs that name some."""
        return bool(wish.possible)

    def refusal(self, wish: Wish, site: Site) -> Reason | None:
        """Any other node."""
        if site.node.id in wish.possible:
            return None
        owners = ", ".join(wish.possible[:6]) + (", …" if len(wish.possible) > 6 else "")
        return because(ReasonCode.NOT_POSSIBLE_OWNER, node=site.node.id, owners=owners)


class Apart:
    """No VM is there that it must be kept apart from; of two it is enough that one asks for it."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def concerns(self, wish: Wish) -> bool:
        """VMs of a group that is to be apart."""
        return any(rule.kind is not RuleKind.RATHER_TOGETHER for rule in wish.rules)

    def refusal(self, wish: Wish, site: Site) -> Reason | None:
        """The first such VM."""
        node = site.node.id
        for rule in wish.rules:
            if rule.kind is RuleKind.RATHER_TOGETHER:
                continue
            for other, kind in self._groups.others(wish, rule, node):
                if RuleKind.APART in (rule.kind, kind):
                    name = self._groups.name(other)
                    return because(ReasonCode.KEPT_APART, node=node, vm=name, group=rule.group)
        return None


class Equipped:
    """It has the machine type, networks and pools that the definition names, as far as the node told.

    A bridge counts as missing only where the VM's own node lists it: not every host can list its bridges.
    """

    def __init__(self, view: PlacementView) -> None:
        self._view = view
        self._known: dict[tuple[Equipment, NodeId | None, NodeId], Reason | None] = {}

    def concerns(self, wish: Wish) -> bool:
        """VMs that name something."""
        return any(wish.equipment)

    def refusal(self, wish: Wish, site: Site) -> Reason | None:
        """The first thing that it lacks."""
        key = (wish.equipment, wish.vm.owner, site.node.id)
        if key not in self._known:
            self._known[key] = self._lacks(wish.equipment, wish.vm.owner, site)
        return self._known[key]

    def _lacks(self, equipment: Equipment, owner: NodeId | None, site: Site) -> Reason | None:
        node, facts = site.node.id, site.node.facts
        machine = equipment.machine
        if machine and facts is not None and facts.machines and machine not in facts.machines:
            return because(ReasonCode.LACKS_ON_NODE, node=node, what="machine type", name=machine)
        for kind, name in equipment.networks:
            found = self._network(kind, name, owner, node)
            if found is not None:
                return found
        for name in equipment.pools:
            found = self._pool(name, owner, node)
            if found is not None:
                return found
        return None

    def _network(self, kind: str, name: str, owner: NodeId | None, node: NodeId) -> Reason | None:
        resources = self._view.resources
        if kind == "bridge":
            here = resources.interfaces_of(owner) if owner is not None else None
            there = resources.interfaces_of(node)
            # A bridge of libvirt's own network is listed with that network, not with the host's.
            own = {network.bridge for network in (resources.networks_of(node) or {}).values()}
            if there is None or name in there or name in own or here is None or name not in here:
                return None
            return because(ReasonCode.LACKS_ON_NODE, node=node, what="bridge", name=name)
        networks = resources.networks_of(node)
        if networks is None:
            return None
        if name not in networks:
            return because(ReasonCode.LACKS_ON_NODE, node=node, what="network", name=name)
        if not networks[name].is_active:
            return because(ReasonCode.INACTIVE_ON_NODE, node=node, what="network", name=name)
        return None

    def _pool(self, name: str, owner: NodeId | None, node: NodeId) -> Reason | None:
        there = self._view.resources.pools_of(node)
        if there is None:
            return None
        key, pool = _named(there, name)
        if pool is None:
            return because(ReasonCode.LACKS_ON_NODE, node=node, what="pool", name=name)
        if not pool.state.is_usable:
            return because(ReasonCode.INACTIVE_ON_NODE, node=node, what="pool", name=name)
        here = self._view.resources.pools_of(owner) if owner is not None else None
        at_home, seen = _named(here or {}, name)
        shared = seen is not None and bool(pool.source_text and seen.source_text)
        if shared and key != at_home:
            return because(ReasonCode.OTHER_ON_NODE, node=node, name=name, source=pool.source_text)
        return None


def _named(pools: Mapping[PoolId, SeenPool], name: str) -> tuple[PoolId | None, SeenPool | None]:
    return next(((key, pool) for key, pool in pools.items() if pool.name == name), (None, None))


class Memory:
    """It has the memory left, with the VM's overhead, the reserve and what moves there now."""

    def concerns(self, wish: Wish) -> bool:
        """Every VM."""
        return True

    def refusal(self, wish: Wish, site: Site) -> Reason | None:
        """Too little."""
        if wish.need_mib <= site.free_mib:
            return None
        return because(
            ReasonCode.NO_MEMORY_ON_NODE,
            node=site.node.id,
            need_mib=wish.need_mib,
            free_mib=max(site.free_mib, 0),
        )


class Vcpus:
    """The policy's overcommit leaves it enough vCPUs."""

    def concerns(self, wish: Wish) -> bool:
        """Every VM."""
        return True

    def refusal(self, wish: Wish, site: Site) -> Reason | None:
        """Too few."""
        if wish.vcpus <= site.free_vcpus:
            return None
        left = max(site.free_vcpus, 0)
        return because(ReasonCode.NO_CPUS_ON_NODE, node=site.node.id, need=wish.vcpus, left=left)


def particular(view: PlacementView, groups: Groups) -> tuple[Filter, ...]:
    """Those that refuse one VM what they do not refuse another of its size; they concern few."""
    return (PossibleOwner(), Apart(groups), Equipped(view))


OPEN: tuple[Filter, ...] = (TakesWork(),)
ROOM: tuple[Filter, ...] = (Memory(), Vcpus())
"""With the particular ones in between these are all; the first refusal is the one that is told."""

"""What placement works with: what a VM needs, and what each node has left while a plan is made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from manager.core.ids import NodeId, VmId
from manager.core.model import (
    ClusterConfig,
    Node,
    PlacementPolicy,
    PlacementRule,
    RuleKind,
    Vm,
    VmConfig,
    VmStatus,
)
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.resources import ResourcesView

COUNTED = frozenset({VmStatus.RUNNING, VmStatus.PAUSED, VmStatus.UNKNOWN})
"""States in which a VM takes its node's memory (Unknown: it may)."""

_ANY = 1_000_000
"""vCPUs that a node chosen by hand may take: its overcommit is the administrator's own business then."""


class PlacementView(Protocol):
    """What placement reads of the cluster."""

    @property
    def config(self) -> ClusterConfig:
        """The cluster's file."""
        ...

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        """The nodes by id."""
        ...

    @property
    def vms(self) -> Mapping[VmId, Vm]:
        """The VMs by id."""
        ...

    @property
    def resources(self) -> ResourcesView:
        """Storage and networks."""
        ...

    def committed_mib(self, node: NodeId) -> int:
        """Memory of the VMs that run on a node, their overhead, and what moves there now, in MiB."""
        ...

    def committed_vcpus(self, node: NodeId) -> int:
        """vCPUs of the VMs that run on a node and that move there now."""
        ...

    def group(self, name: str) -> Collection[VmId]:
        """The VMs with a rule of that group."""
        ...


def overhead_mib(memory_mib: int) -> int:
    """What a VM costs its node beyond its own memory: 256 MiB and 2 %."""
    return 256 + memory_mib // 50


def need_mib(memory_mib: int) -> int:
    """What a VM of this memory takes of a node in all."""
    return memory_mib + overhead_mib(memory_mib)


def reserve_mib(policy: PlacementPolicy, memory_mib: int) -> int:
    """Memory kept free on a node: the larger of the two bounds of the policy."""
    return max(policy.memory_reserve_mib, int(memory_mib * policy.memory_reserve_percent / 100))


def node_takes_work(node: Node) -> Reason | None:
    """Why a node can be asked for nothing new, or None."""
    if not node.is_up:
        return because(ReasonCode.NODE_UNREACHABLE, node=node.id)
    if node.holds:
        hold = node.holds[0]
        return because(ReasonCode.NODE_HELD, node=node.id, who=hold.who, why=hold.why)
    if node.vms_unread:
        return because(ReasonCode.NODE_BEING_READ, node=node.id, count=node.vms_unread)
    return None


class Equipment(NamedTuple):
    """What a VM's definition names that its node must have. Most VMs share theirs with many others."""

    machine: str = ""  # with its architecture
    networks: tuple[tuple[str, str], ...] = ()  # bridge or network, its name
    pools: tuple[str, ...] = ()


_NOTHING = Equipment()


def equipment_of(config: VmConfig) -> Equipment:
    """What a definition asks of a node."""
    machine = f"{config.arch} {config.machine}" if config.arch and config.machine else ""
    networks = [(i.kind, i.source) for i in config.interfaces if i.source and i.kind in ("bridge", "network")]
    pools = [disk.source.partition("/")[0] for disk in config.disks if disk.kind == "volume"]
    if not (machine or networks or pools):
        return _NOTHING
    return Equipment(machine, tuple(networks), tuple(pools))


@dataclass(slots=True)
class Wish:
    """One VM that is to be placed."""

    vm: Vm
    need_mib: int
    vcpus: int
    possible: tuple[NodeId, ...] = ()
    preferred: tuple[NodeId, ...] = ()
    rules: tuple[PlacementRule, ...] = ()
    equipment: Equipment = _NOTHING

    @property
    def is_plain(self) -> bool:
        """Whether only its size matters."""
        return not (self.possible or self.rules or self.preferred) and self.equipment is _NOTHING

    @classmethod
    def of(cls, vm: Vm) -> Wish:
        """What a VM asks for. One whose definition is unread asks for what every VM costs."""
        config = vm.config
        if config is None:
            return cls(vm, need_mib(0), 0)
        settings = config.settings
        return cls(
            vm,
            need_mib(config.memory_mib),
            config.vcpus,
            settings.possible_owners,
            settings.preferred_owners,
            settings.rules,
            equipment_of(config),
        )


@dataclass(slots=True)
class Site:
    """One node in a plan: what it has left."""

    node: Node
    closed: Reason | None  # why it takes nothing at all
    total_mib: int
    free_mib: int  # may be negative
    total_vcpus: int
    free_vcpus: int
    given: int = 0  # VMs that this plan put here
    share: float = field(init=False)  # that is free of its memory or vCPUs: of what is scarcer
    scarce_cpus: bool = field(init=False)
    key: tuple[float, int, NodeId] = field(init=False)  # the best first, if nothing is wished for

    def __post_init__(self) -> None:
        """The share follows from the rest."""
        self.take(0, 0, given=0)

    @classmethod
    def of(cls, view: PlacementView, node: Node, *, keep_reserve: bool) -> Site:
        """As it is now. One chosen by hand need keep neither its reserve nor its overcommit."""
        facts, policy = node.facts, view.config.placement
        memory = facts.memory_mib if facts else 0
        vcpus = int(facts.cpus * policy.cpu_overcommit) if facts else 0
        reserve = reserve_mib(policy, memory) if facts and keep_reserve else 0
        return cls(
            node,
            node_takes_work(node),
            memory,
            memory - reserve - view.committed_mib(node.id),
            vcpus if keep_reserve else _ANY,
            (vcpus if keep_reserve else _ANY) - view.committed_vcpus(node.id),
        )

    def has_room(self, wish: Wish) -> bool:
        """Whether the filters `Memory` and `Vcpus` let it pass; without a reason, which takes time."""
        return wish.need_mib <= self.free_mib and wish.vcpus <= self.free_vcpus

    def take(self, mib: int, vcpus: int, *, given: int = 1) -> None:
        """A VM is put here; negative: it is thought away."""
        self.free_mib -= mib
        self.free_vcpus -= vcpus
        self.given += given
        memory = self.free_mib / self.total_mib if self.total_mib else 0.0
        cpus = self.free_vcpus / self.total_vcpus if self.total_vcpus else 0.0
        self.scarce_cpus = cpus < memory
        self.share = cpus if self.scarce_cpus else memory
        self.key = (-self.share, self.given, self.node.id)


class Groups:
    """Which VMs of a group are on which node, with what this plan puts there."""

    def __init__(self, view: PlacementView) -> None:
        self._view = view
        self._found: dict[str, dict[NodeId, dict[VmId, RuleKind]]] = {}

    def at(self, group: str, node: NodeId) -> Mapping[VmId, RuleKind]:
        """The VMs of a group that run on a node or move there, with what each asks for."""
        found = self._found.get(group)
        if found is None:
            found = self._found[group] = {}
            vms = self._view.vms
            for key in self._view.group(group):
                vm = vms[key]
                kind = next((r.kind for r in rules_of(vm) if r.group == group), None)
                if kind is None:
                    continue
                for place in (vm.owner if vm.status in COUNTED else None, vm.moving_to):
                    if place is not None:
                        found.setdefault(place, {})[key] = kind
        return found.get(node, {})

    def nodes(self, group: str) -> Iterable[NodeId]:
        """Where any of a group are."""
        self.at(group, NodeId(""))
        return self._found[group]

    def add(self, wish: Wish, node: NodeId) -> None:
        """One is put on a node. It counts where it leaves too, until it has left."""
        for rule in wish.rules:
            self.at(rule.group, node)
            self._found[rule.group].setdefault(node, {})[wish.vm.id] = rule.kind

    def others(self, wish: Wish, rule: PlacementRule, node: NodeId) -> list[tuple[VmId, RuleKind]]:
        """Other VMs of its group there, in order, that a rule is about."""
        together = rule.kind is RuleKind.RATHER_TOGETHER
        return sorted(
            (vm, kind)
            for vm, kind in self.at(rule.group, node).items()
            if vm != wish.vm.id and (kind is RuleKind.RATHER_TOGETHER) == together
        )

    def name(self, vm: VmId) -> str:
        """For people."""
        found = self._view.vms.get(vm)
        return found.name if found else vm


def rules_of(vm: Vm) -> tuple[PlacementRule, ...]:
    """A VM's rules, as far as its definition was read."""
    return vm.config.settings.rules if vm.config else ()

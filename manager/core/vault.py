"""The definition vault: what is kept of every VM's stored definition, so that it can be started elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from manager.core.ids import NodeId, VmId
from manager.core.model import Authority, ClusterConfig, Node, Vm, VmConfig
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode, because

DAY_S = 86_400.0
"""A definition that may be this much out of date is no longer trusted to be the VM's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDefinition:
    """One version of a VM's stored definition in the vault; its text lies in the store."""

    vm: VmId
    name: str
    node: NodeId  # that had it
    number: int  # of the version, from 1
    digest: str  # of what the node told, when this was found to be its text
    kept_s: float  # when this text was first seen


class KeptView(Protocol):
    """What is read here of the cluster."""

    @property
    def config(self) -> ClusterConfig:
        """The cluster's file."""
        ...

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        """The nodes by id."""
        ...

    @property
    def kept(self) -> Mapping[VmId, KeptDefinition]:
        """The newest kept definition of each VM."""
        ...

    @property
    def now_s(self) -> float:
        """Wall clock."""
        ...


@dataclass(frozen=True, slots=True)
class Recovery:
    """Whether a VM can be started on another node when its own is dead; the reasons why not."""

    obstacles: tuple[Reason, ...] = ()

    @property
    def text(self) -> str:
        """As people read it: ``yes``, ``no: the state of its TPM lies on n1 only``."""
        return f"no: {'; '.join(reason.text for reason in self.obstacles)}" if self.obstacles else "yes"


def stored_digest(config: VmConfig) -> str:
    """Changes whenever the definition does by which the VM starts the next time."""
    return config.stored_digest or config.digest


def is_due(vm: Vm, kept: KeptDefinition | None) -> bool:
    """Whether the vault may not have what the VM's node has."""
    if vm.config is None or not vm.config.digest or not vm.config.persistent:
        return False
    now = (stored_digest(vm.config), vm.name, vm.owner)
    return kept is None or (kept.digest, kept.name, kept.node) != now


def recovery(view: KeptView, vm: Vm) -> Recovery | None:
    """Whether a VM can be started elsewhere without its node; None while that is not known.

    Where no shared path is declared its disks are taken as shared, as a move does.
    """
    if vm.config is None or vm.owner is None:
        return None
    found: list[Reason] = []
    if vm.authority is not Authority.MUSTER:
        found.append(because(ReasonCode.OTHER_AUTHORITY, authority=vm.authority.value))
    if not vm.config.persistent:
        found.append(because(ReasonCode.NOT_STORED))
    else:
        found += _age(view, vm)
    found += [because(ReasonCode.HOST_DEVICE, device=device) for device in vm.config.host_devices]
    found += [
        obstacle
        for disk in vm.config.disks
        if (obstacle := planner.disk_obstacle(view.config, disk, vm.owner)) is not None
        and obstacle.code is ReasonCode.LOCAL_DISK
    ]
    beside = planner.stays_behind(view.config, vm.config)
    if beside:
        found.append(because(ReasonCode.LIES_ON_NODE_ONLY, what=beside, node=vm.owner))
    return Recovery(tuple(found))


def _age(view: KeptView, vm: Vm) -> list[Reason]:
    kept, node = view.kept.get(vm.id), view.nodes.get(vm.owner) if vm.owner else None
    if kept is None:
        return [because(ReasonCode.NOT_KEPT)]
    assert vm.config is not None
    if (node is not None and node.is_up) or (vm.config.digest and not is_due(vm, kept)):
        return []  # it is being read, or is what was last seen
    is_old = view.now_s - kept.kept_s >= DAY_S
    return [because(ReasonCode.KEPT_LONG_AGO, since=kept.kept_s)] if is_old else []

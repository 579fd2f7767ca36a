"""Where a VM may go and where it goes best: filters with reasons, then one weigher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from manager.core.ids import NodeId, VmId
from manager.core.model import Authority, ClusterConfig, Disk, Node, PlacementPolicy, Vm, VmConfig, VmStatus
from manager.core.reasons import Reason, ReasonCode, because

_ANY_VCPUS = 1_000_000
"""What a node chosen by hand may take: its overcommit is the administrator's own business then."""

SAFE_CACHE_MODES = frozenset({"none", "directsync"})


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

    def committed_mib(self, node: NodeId) -> int:
        """Memory of the VMs that run on a node, their overhead, and what moves there now, in MiB."""
        ...

    def committed_vcpus(self, node: NodeId) -> int:
        """vCPUs of the VMs that run on a node and that move there now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVerdict:
    """Whether one node can take one VM. `reason` says why not, or why it ranks where it does."""

    node: NodeId
    fits: bool
    reason: Reason
    free_mib: int = 0


def overhead_mib(memory_mib: int) -> int:
    """What a VM costs its node beyond its own memory: 256 MiB and 2 %."""
    return 256 + memory_mib // 50


def need_mib(memory_mib: int) -> int:
    """What a VM of this memory takes of a node in all."""
    return memory_mib + overhead_mib(memory_mib)


def reserve_mib(policy: PlacementPolicy, memory_mib: int) -> int:
    """Memory kept free on a node: the larger of the two bounds of the policy."""
    return max(policy.memory_reserve_mib, int(memory_mib * policy.memory_reserve_percent / 100))


def free_mib(view: PlacementView, node: Node) -> int:
    """Memory that further VMs may take on a node, in MiB; may be negative."""
    if node.facts is None:
        return 0
    total = node.facts.memory_mib
    return total - reserve_mib(view.config.placement, total) - view.committed_mib(node.id)


def free_vcpus(view: PlacementView, node: Node) -> int:
    """vCPUs that further VMs may have on a node under the policy's overcommit; may be negative."""
    cpus = node.facts.cpus if node.facts else 0
    return int(cpus * view.config.placement.cpu_overcommit) - view.committed_vcpus(node.id)


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


def verdict(view: PlacementView, vm: Vm, node: Node, *, chosen: bool = False) -> NodeVerdict:
    """Whether a node can take a VM. One chosen by hand need keep neither its reserve nor its overcommit."""

    def no(reason: Reason) -> NodeVerdict:
        return NodeVerdict(node=node.id, fits=False, reason=reason)

    if node.id == vm.owner:
        return no(because(ReasonCode.ALREADY_THERE, node=node.id))
    trouble = node_takes_work(node)
    if trouble is not None:
        return no(trouble)
    memory = vm.config.memory_mib if vm.config else 0
    need = need_mib(memory)
    free = free_mib(view, node)
    if chosen and node.facts is not None:
        free += reserve_mib(view.config.placement, node.facts.memory_mib)
    if need > free:
        return no(no_memory(node.id, need, free))
    vcpus, left = _vcpus(vm), free_vcpus(view, node)
    if vcpus > left and not chosen:
        return no(no_cpus(node.id, vcpus, left))
    reason = (
        because(ReasonCode.CHOSEN_BY_USER) if chosen else because(ReasonCode.CHOSEN_MOST_FREE, free_mib=free)
    )
    return NodeVerdict(node=node.id, fits=True, reason=reason, free_mib=free)


def rank(view: PlacementView, vm: Vm) -> tuple[NodeVerdict, ...]:
    """Every node but the owner with its verdict, the best first."""
    verdicts = [verdict(view, vm, node) for node in view.nodes.values() if node.id != vm.owner]
    return tuple(sorted(verdicts, key=lambda v: (not v.fits, -v.free_mib, v.node)))


def none_fits(reasons: Sequence[Reason]) -> Reason:
    """Why no node can take a VM, from what is said of each."""
    if not reasons:
        return because(ReasonCode.ONLY_ONE_NODE)
    texts = "; ".join(r.text for r in reasons[:4])
    more = f"; and {len(reasons) - 4} more" if len(reasons) > 4 else ""
    return because(ReasonCode.NO_NODE_FITS, verdicts=texts + more)


class Room:
    """Free memory and vCPUs per node while a plan is made: each VM placed takes its share."""

    def __init__(self, view: PlacementView, *, keep_reserve: bool) -> None:
        self._free: dict[NodeId, int] = {}
        self._vcpus: dict[NodeId, int] = {}
        self._refused: dict[NodeId, Reason] = {}
        self._refusals: dict[tuple[NodeId | None, int, int], Reason] = {}
        for node in view.nodes.values():
            trouble = node_takes_work(node)
            if trouble is not None:
                self._refused[node.id] = trouble
                continue
            self._free[node.id] = free_mib(view, node)
            self._vcpus[node.id] = free_vcpus(view, node) if keep_reserve else _ANY_VCPUS
            if not keep_reserve and node.facts is not None:
                self._free[node.id] += reserve_mib(view.config.placement, node.facts.memory_mib)

    def take(self, vm: Vm, target: NodeId | None) -> NodeVerdict | Reason:
        """Place one VM on the node with most room, or on `target`; or say why it fits nowhere."""
        need = need_mib(vm.config.memory_mib if vm.config else 0)
        vcpus = _vcpus(vm)
        nodes = [n for n in self._free if n != vm.owner and target in (None, n) and vcpus <= self._vcpus[n]]
        best_node = max(nodes, key=lambda n: (self._free[n], n), default=None)
        if best_node is None or need > self._free[best_node]:
            return self._refusal(vm.owner, need, vcpus, target)
        free = self._free[best_node]
        self._free[best_node] -= need
        self._vcpus[best_node] -= vcpus
        self._refusals.clear()
        reason = (
            because(ReasonCode.CHOSEN_BY_USER)
            if target is not None
            else because(ReasonCode.CHOSEN_MOST_FREE, free_mib=free)
        )
        return NodeVerdict(node=best_node, fits=True, reason=reason, free_mib=free)

    def _refusal(self, owner: NodeId | None, need: int, vcpus: int, target: NodeId | None) -> Reason:
        key = (owner, need, vcpus)
        if key not in self._refusals:
            told = self._refused | {
                n: no_memory(n, need, free) if need > free else no_cpus(n, vcpus, self._vcpus[n])
                for n, free in self._free.items()
            }
            if target is not None:
                self._refusals[key] = told[target]
            else:
                others = sorted((n for n in told if n != owner), key=lambda n: (-self._free.get(n, 0), n))
                self._refusals[key] = none_fits([told[n] for n in others])
        return self._refusals[key]


def no_memory(node: NodeId, need: int, free: int) -> Reason:
    """Why a VM is too large for what a node has left. MiB."""
    return because(ReasonCode.NO_MEMORY_ON_NODE, node=node, need_mib=need, free_mib=max(free, 0))


def no_cpus(node: NodeId, need: int, left: int) -> Reason:
    """Why a VM has more vCPUs than a node's overcommit leaves."""
    return because(ReasonCode.NO_CPUS_ON_NODE, node=node, need=need, left=max(left, 0))


def _vcpus(vm: Vm) -> int:
    return vm.config.vcpus if vm.config else 0


def is_below(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a path lies in one of these folders. Paths with ``..`` never do."""
    if ".." in path and ".." in path.split("/"):
        return False
    for folder in folders:  # asked for every disk of every VM: any() over a generator is twice as dear
        if path.startswith(folder.rstrip("/") + "/"):
            return True
    return False


def is_movable(disk: Disk) -> bool:
    """Whether a disk's image can be copied to a pool: a file of its own, whose copy is as safe as itself."""
    return is_own_file(disk) and not disk.encrypted


def is_own_file(disk: Disk) -> bool:
    """Whether a disk's image is a file that only this VM writes to."""
    return disk.kind == "file" and disk.device == "disk" and bool(disk.source) and not disk.shareable


def why_not_copied(disk: Disk) -> Reason | None:
    """Why a disk's image is not copied: what is encrypted would be written out in plain text."""
    return because(ReasonCode.ENCRYPTED_DISK, target=disk.target) if disk.encrypted else None


def is_local(config: ClusterConfig, disk: Disk) -> bool:
    """Whether a disk's image lies on its node only, so that a move to another has to copy it."""
    return is_own_file(disk) and not is_below(disk.source, config.shared_paths)


def local_disks(config: ClusterConfig, vm: VmConfig) -> tuple[str, ...]:
    """The targets (vda) of disks that the nodes do not share and that a move has to copy."""
    return tuple(d.target for d in vm.disks if is_local(config, d) and is_movable(d))


def stays_behind(config: ClusterConfig, vm: VmConfig) -> str:
    """State beside its disks that only a live migration carries; empty if there is none.

    Source: libvirt migration.rst (offline migration copies no files).
    """
    if vm.nvram and not is_below(vm.nvram, config.shared_paths):
        return f"the file with its UEFI variables ({vm.nvram})"
    return "the state of its TPM" if vm.emulated_tpm else ""


def saved_path(config: ClusterConfig, vm: VmId) -> str:
    """Where a quick migration hands a VM's memory over: in the first shared path; empty without one."""
    return f"{config.shared_paths[0].rstrip('/')}/.muster/{vm}.save" if config.shared_paths else ""


def disk_obstacle(config: ClusterConfig, disk: Disk, node: NodeId | None) -> Reason | None:
    """Why this disk keeps its VM from being moved live, or None."""
    if disk.kind != "file" or not disk.source:
        return None
    if config.shared_paths and not is_below(disk.source, config.shared_paths):
        if disk.device in ("cdrom", "floppy"):
            return because(ReasonCode.LOCAL_CD, target=disk.target, source=disk.source, node=str(node or "?"))
        return because(ReasonCode.LOCAL_DISK, target=disk.target, source=disk.source)
    if config.shared_paths and not disk.read_only and disk.cache not in SAFE_CACHE_MODES:
        return because(ReasonCode.CACHE_MODE, target=disk.target, cache=disk.cache or "default")
    return None


def obstacles(
    config: ClusterConfig, vm: Vm, *, runs_on: bool = True, copies_disks: bool = False
) -> tuple[Reason, ...]:
    """All that keeps us from moving a VM, whatever the target.

    `runs_on` False: it is started afresh there, so that caches do not matter. `copies_disks`: those that the
    nodes do not share go with it.
    """
    if vm.config is None:
        return ()
    found: list[Reason] = []
    if vm.authority is not Authority.MUSTER:
        found.append(because(ReasonCode.OTHER_AUTHORITY, authority=vm.authority.value))
    if vm.config.snapshots:
        found.append(because(ReasonCode.HAS_SNAPSHOTS, count=vm.config.snapshots))
    if vm.config.checkpoints:
        found.append(because(ReasonCode.HAS_CHECKPOINTS, count=vm.config.checkpoints))
    found += [because(ReasonCode.HOST_DEVICE, device=device) for device in vm.config.host_devices]
    for disk in vm.config.disks:
        is_copied = copies_disks and is_local(config, disk)
        obstacle = why_not_copied(disk) if is_copied else disk_obstacle(config, disk, vm.owner)
        if obstacle is not None and (runs_on or obstacle.code is not ReasonCode.CACHE_MODE):
            found.append(obstacle)
    return tuple(found)


def unchecked_sharing(config: ClusterConfig, vms: Iterable[Vm]) -> Reason | None:
    """What is to be said of a move of these VMs where no shared path is declared; None if nothing is."""
    disks = (disk for vm in vms if vm.config for disk in vm.config.disks)
    if config.shared_paths or not any(d.kind == "file" and d.source and not d.read_only for d in disks):
        return None
    return because(ReasonCode.SHARING_UNDECLARED)


def may_pass_unsafe(config: ClusterConfig, vm: VmConfig) -> bool:
    """Whether libvirt's own check of shared storage may be overridden for this VM.

    Only if every writable disk lies on a path that the administrator declared as shared and
    its cache mode is safe.
    """
    writable = [d for d in vm.disks if d.source and not d.read_only]
    return bool(writable) and all(
        d.kind == "file" and is_below(d.source, config.shared_paths) and d.cache in SAFE_CACHE_MODES
        for d in writable
    )


COUNTED = frozenset({VmStatus.RUNNING, VmStatus.PAUSED, VmStatus.UNKNOWN})
"""States in which a VM takes its node's memory (Unknown: it may)."""

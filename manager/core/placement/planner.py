"""Where a VM may go and where it goes best; and what keeps one where it is, whatever the target."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from copy import copy
from dataclasses import dataclass

from manager.core.ids import NodeId, VmId
from manager.core.model import Authority, ClusterConfig, Disk, Node, Priority, Vm, VmConfig, VmStatus
from manager.core.placement import filters, weighers
from manager.core.placement.filters import Filter
from manager.core.placement.room import (
    COUNTED,
    Groups,
    PlacementView,
    Site,
    Wish,
    need_mib,
    node_takes_work,
    overhead_mib,
    reserve_mib,
)
from manager.core.placement.weighers import Weigher, Wished
from manager.core.reasons import Reason, ReasonCode, because

__all__ = [
    "COUNTED",
    "PlacementView",
    "need_mib",
    "node_takes_work",
    "overhead_mib",
    "reserve_mib",
]

SAFE_CACHE_MODES = frozenset({"none", "directsync"})

PARTICULAR = frozenset(
    {
        ReasonCode.NOT_POSSIBLE_OWNER,
        ReasonCode.KEPT_APART,
        ReasonCode.LACKS_ON_NODE,
        ReasonCode.INACTIVE_ON_NODE,
        ReasonCode.OTHER_ON_NODE,
    }
)
"""Refusals that one VM meets and another of its size does not."""


_TOLD = 4
"""Of so many nodes it is told why none of them takes a VM."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What one weigher makes of one node for one VM. The smaller, the better."""

    title: str
    rank: float
    reason: Reason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVerdict:
    """Whether one node can take one VM. `reason` says why not, or why it ranks where it does."""

    node: NodeId
    fits: bool
    reason: Reason
    free_mib: int = 0
    refusals: tuple[Reason, ...] = ()  # all that speaks against it; of none that fits, that of each node
    weights: tuple[Weight, ...] = ()  # only where they were asked for


def verdict(view: PlacementView, vm: Vm, node: Node, *, chosen: bool = False) -> NodeVerdict:
    """Whether a node can take a VM. One chosen by hand need keep neither its reserve nor its overcommit."""
    if node.id == vm.owner:
        reason = because(ReasonCode.ALREADY_THERE, node=node.id)
        return NodeVerdict(node=node.id, fits=False, reason=reason)
    return Room(view, keep_reserve=not chosen).verdict(vm, node.id)


def rank(view: PlacementView, vm: Vm) -> tuple[NodeVerdict, ...]:
    """Every node but the owner with its verdict, the best first."""
    return Room(view, keep_reserve=True).ranked(vm)


def explain(view: PlacementView, vm: Vm) -> tuple[NodeVerdict, ...]:
    """Why here, why not there: every node with all that speaks against it and what it weighs, the best first.

    Its own node is looked at as if it were to be placed there now.
    """
    return Room(view, keep_reserve=True).explained(vm)


def newcomers(memory_mib: int, vcpus: int, count: int) -> list[Vm]:
    """VMs that are not there yet, to ask where they would go."""
    config = VmConfig(memory_mib=memory_mib, vcpus=vcpus)
    names = [f"new-{number}" for number in range(1, count + 1)]
    return [Vm(id=VmId(name), name=name, status=VmStatus.OFF, config=config) for name in names]


def none_fits(reasons: Sequence[Reason], count: int = 0, *, bound: bool = False) -> Reason:
    """Why no node can take a VM, from what is said of each.

    `count`: how many nodes, if not all are told. `bound`: no room anywhere would change it.
    """
    if not reasons:
        return because(ReasonCode.ONLY_ONE_NODE)
    texts = "; ".join(r.text for r in reasons[:_TOLD])
    left = max(count, len(reasons)) - _TOLD
    more = f"; and {left} more" if left > 0 else ""
    return because(ReasonCode.NO_NODE_MAY if bound else ReasonCode.NO_NODE_FITS, verdicts=texts + more)


class Room:
    """What is left on each node while a plan is made: each VM placed takes its share.

    What leaves a node takes its share there too, until it has left: a plan need not be carried out in order.
    """

    def __init__(self, view: PlacementView, *, keep_reserve: bool) -> None:
        """`keep_reserve` False: for a node chosen by hand, which need keep no reserve and no overcommit."""
        self._view = view
        self._keep_reserve = keep_reserve
        self._sites: dict[NodeId, Site] = {}
        self._groups = Groups(view)
        self._particular = filters.particular(view, self._groups)
        self._wished = weighers.wished(self._groups)
        self._heap: list[tuple[tuple[float, int, NodeId], Site]] | None = None
        self._refused: dict[tuple[object, ...], Reason] = {}  # since a VM was placed last
        self._hopeless: dict[
            tuple[object, ...], list[tuple[int, int]]
        ] = {}  # need and vCPUs that fit nowhere

    # --- of one VM -------------------------------------------------------------------------

    def verdict(self, vm: Vm, node: NodeId) -> NodeVerdict:
        """Whether one node can take it."""
        wish, site = Wish.of(vm), self._site(node)
        refusal = _refusal(self._filters(wish), wish, site)
        return self._fits(wish, site) if refusal is None else _no(site, refusal)

    def ranked(self, vm: Vm) -> tuple[NodeVerdict, ...]:
        """Every node but its own, the best first; of those that cannot take it, the one with most room."""
        wish = Wish.of(vm)
        concerned, key = self._filters(wish), self._key(wish)
        fitting: list[Site] = []
        others: list[NodeVerdict] = []
        for site in self._others(wish):
            refusal = _refusal(concerned, wish, site)
            if refusal is None:
                fitting.append(site)
            else:
                others.append(_no(site, refusal))
        fitting.sort(key=key)
        others.sort(key=lambda v: (-v.free_mib, v.node))
        return (*(self._fits(wish, site) for site in fitting), *others)

    def explained(self, vm: Vm) -> tuple[NodeVerdict, ...]:
        """As `explain` has it."""
        wish = Wish.of(vm)
        concerned, weighing = self._filters(wish), self._weighers(wish)
        found: list[tuple[tuple[object, ...], NodeVerdict]] = []
        for node in self._view.nodes:
            site = self._site(node)
            if node == vm.owner and vm.status in COUNTED:
                site = copy(site)
                site.take(-wish.need_mib, -wish.vcpus, given=0)
            refusals = tuple(r for f in concerned if (r := f.refusal(wish, site)) is not None)
            weights = tuple(Weight(w.title, w.rank(wish, site), w.reason(wish, site)) for w in weighing)
            reason = refusals[0] if refusals else self._why(wish, site)
            shown = NodeVerdict(
                node=node,
                fits=not refusals,
                reason=reason,
                free_mib=max(site.free_mib, 0),
                refusals=refusals,
                weights=weights,
            )
            found.append(((bool(refusals), site.closed is not None, [w.rank for w in weights], node), shown))
        return tuple(shown for _, shown in sorted(found, key=lambda pair: pair[0]))

    def take(self, vm: Vm, target: NodeId | None) -> NodeVerdict | Reason:
        """Place one VM on the best node, or on `target`; or say why it fits nowhere."""
        return self._take(Wish.of(vm), target)

    # --- of many ---------------------------------------------------------------------------

    def place(self, vms: Iterable[Vm], target: NodeId | None = None) -> dict[VmId, NodeVerdict | Reason]:
        """Place many together: High and large ones choose first, so that the loads even out.

        If not all fit so, each is put where the least is left over, which is fitter and less even; that
        counts if more of a higher priority fit, or more memory.
        """
        wishes = sorted(map(Wish.of, vms), key=_order)
        found: dict[VmId, NodeVerdict | Reason] = {w.vm.id: self._take(w, target) for w in wishes}
        if target is not None or len(wishes) < 2 or not any(isinstance(v, Reason) for v in found.values()):
            return found
        tight = Room(self._view, keep_reserve=self._keep_reserve)
        packed = tight._pack(wishes)
        return packed if _worth(wishes, packed) > _worth(wishes, found) else found

    def _pack(self, wishes: Sequence[Wish]) -> dict[VmId, NodeVerdict | Reason]:
        """Best fit: each where the least is left over."""
        by_room = sorted((site.free_mib, site.node.id) for site in self._open())
        found: dict[VmId, NodeVerdict | Reason] = {}
        for wish in wishes:
            best = None if self._is_hopeless(wish) else self._tightest(wish, by_room)
            if best is None:
                found[wish.vm.id] = self._nowhere(wish)
                continue
            del by_room[bisect_left(by_room, (best.free_mib, best.node.id))]
            found[wish.vm.id] = self._put(wish, best)
            insort(by_room, (best.free_mib, best.node.id))
        return found

    def _tightest(self, wish: Wish, by_room: Sequence[tuple[int, NodeId]]) -> Site | None:
        owner, own, asked = wish.vm.owner, self._own(wish), self._asked(wish)
        best: Site | None = None
        best_rank: list[float] = []
        for at in range(bisect_left(by_room, (wish.need_mib, "")), len(by_room)):
            site = self._sites[by_room[at][1]]
            if site.node.id == owner or not site.has_room(wish) or _refusal(own, wish, site) is not None:
                continue
            if not asked:
                return site
            ranks = [w.rank(wish, site) for w in asked]
            if best is None or ranks < best_rank:
                best, best_rank = site, ranks
        return best

    # --- inside ----------------------------------------------------------------------------

    def _site(self, node: NodeId) -> Site:
        site = self._sites.get(node)
        if site is None:
            row = self._view.nodes[node]
            site = self._sites[node] = Site.of(self._view, row, keep_reserve=self._keep_reserve)
        return site

    def _others(self, wish: Wish) -> list[Site]:
        return [self._site(node) for node in self._view.nodes if node != wish.vm.owner]

    def _open(self) -> list[Site]:
        return [site for node in self._view.nodes if (site := self._site(node)).closed is None]

    def _own(self, wish: Wish) -> list[Filter]:
        """The particular filters that concern this VM; most VMs of a cluster have none, or the same."""
        return [] if wish.is_plain else [f for f in self._particular if f.concerns(wish)]

    def _filters(self, wish: Wish) -> list[Filter]:
        return [*filters.OPEN, *self._own(wish), *filters.ROOM]

    def _asked(self, wish: Wish) -> list[Wished]:
        """The weighers that this VM asks for."""
        return [w for w in self._wished if w.concerns(wish)] if wish.rules or wish.preferred else []

    def _weighers(self, wish: Wish) -> list[Weigher]:
        return [*self._asked(wish), *(w for w in weighers.GENERAL if w.concerns(wish))]

    def _key(self, wish: Wish) -> Callable[[Site], tuple[object, ...]]:
        """What nodes are sorted by for a VM, the best first."""
        weighing = self._weighers(wish)
        return lambda site: (*(w.rank(wish, site) for w in weighing), site.node.id)

    def _take(self, wish: Wish, target: NodeId | None) -> NodeVerdict | Reason:
        if target is not None:
            site = self._site(target)
            refusal = _refusal(self._filters(wish), wish, site)
            return refusal if refusal is not None else self._put(wish, site)
        found = None if self._is_hopeless(wish) else self._best(wish)
        return self._put(wish, found) if found is not None else self._nowhere(wish)

    def _best(self, wish: Wish) -> Site | None:
        """The best node: one of the few that the VM's wishes tell from the others, or the first of those."""
        own, asked = self._own(wish), self._asked(wish)
        if not asked:
            return self._first(wish, own, ())
        special = {node for weigher in asked for node in weigher.special(wish)} & self._view.nodes.keys()
        fitting = [
            site
            for node in special
            if node != wish.vm.owner
            and (site := self._site(node)).closed is None
            and site.has_room(wish)
            and _refusal(own, wish, site) is None
        ]
        first = self._first(wish, own, special)
        return min((*fitting, first) if first is not None else fitting, key=self._key(wish), default=None)

    def _first(self, wish: Wish, own: Sequence[Filter], but: Collection[NodeId]) -> Site | None:
        """The node with most room that takes the VM: the first of a heap that refuses nothing.

        A node's place in the heap is put right when it comes to the top: what it takes makes it only worse.
        """
        if self._heap is None:
            self._heap = [(site.key, site) for site in self._open()]
            heapq.heapify(self._heap)
        heap, owner = self._heap, wish.vm.owner
        passed: list[tuple[tuple[float, int, NodeId], Site]] = []
        found: Site | None = None
        while heap:
            key, site = heap[0]
            node = site.node.id
            if key != site.key:
                heapq.heapreplace(heap, (site.key, site))
            elif (
                node != owner
                and node not in but
                and site.has_room(wish)
                and _refusal(own, wish, site) is None
            ):
                found = site
                break
            else:
                passed.append(heapq.heappop(heap))
        for entry in passed:
            heapq.heappush(heap, entry)
        return found

    def _put(self, wish: Wish, site: Site) -> NodeVerdict:
        """It goes there: what it takes is gone for the others."""
        placed = self._fits(wish, site)
        site.take(wish.need_mib, wish.vcpus)
        if wish.rules:
            self._groups.add(wish, site.node.id)
        self._refused.clear()  # they tell how much is free
        return placed

    def _fits(self, wish: Wish, site: Site) -> NodeVerdict:
        return NodeVerdict(node=site.node.id, fits=True, reason=self._why(wish, site), free_mib=site.free_mib)

    def _why(self, wish: Wish, site: Site) -> Reason:
        """Why it goes there, in one line."""
        if not self._keep_reserve:
            return because(ReasonCode.CHOSEN_BY_USER)
        for weigher in self._asked(wish):
            said = weigher.reason(wish, site)
            if said is not None:
                return said
        if site.scarce_cpus:
            return because(ReasonCode.CHOSEN_MOST_CPUS, left=site.free_vcpus)
        return because(ReasonCode.CHOSEN_MOST_FREE, free_mib=site.free_mib)

    def _nowhere(self, wish: Wish) -> Reason:
        """Why no node can take it, the one with most room first; the same for all that are like it."""
        like = (_like(wish), wish.need_mib, wish.vcpus)
        if like not in self._refused:
            if not self._is_hopeless(wish):
                self._hopeless.setdefault(_like(wish), []).append((wish.need_mib, wish.vcpus))
            concerned = self._filters(wish)
            sites = sorted(self._others(wish), key=lambda s: (s.closed is not None, -s.free_mib, s.node.id))
            reasons = [_refusal(concerned, wish, site) for site in sites]
            open_ones = [r for r, site in zip(reasons, sites, strict=True) if site.closed is None]
            bound = bool(open_ones) and all(r is not None and r.code in PARTICULAR for r in open_ones)
            told = [r for r in reasons[:_TOLD] if r is not None]
            self._refused[like] = none_fits(told, len(sites), bound=bound)
        return self._refused[like]

    def _is_hopeless(self, wish: Wish) -> bool:
        """Whether one like it that needs no more was refused: what is left on the nodes only shrinks."""
        if not self._hopeless:
            return False
        known = self._hopeless.get(_like(wish), ())
        return any(mib <= wish.need_mib and vcpus <= wish.vcpus for mib, vcpus in known)


def _refusal(concerned: Iterable[Filter], wish: Wish, site: Site) -> Reason | None:
    for each in concerned:
        refusal = each.refusal(wish, site)
        if refusal is not None:
            return refusal
    return None


def _no(site: Site, refusal: Reason) -> NodeVerdict:
    free = 0 if site.closed is not None else max(site.free_mib, 0)
    return NodeVerdict(node=site.node.id, fits=False, reason=refusal, free_mib=free, refusals=(refusal,))


def _order(wish: Wish) -> tuple[int, int, str, VmId]:
    """Who chooses first."""
    config = wish.vm.config
    priority = config.settings.priority if config else Priority.MEDIUM
    return (-priority, -wish.need_mib, wish.vm.name, wish.vm.id)


def _worth(wishes: Iterable[Wish], found: dict[VmId, NodeVerdict | Reason]) -> list[tuple[int, int]]:
    """How many of each priority are placed, the highest first, and their memory."""
    number: Counter[int] = Counter()
    memory: Counter[int] = Counter()
    for wish in wishes:
        if isinstance(found[wish.vm.id], NodeVerdict):
            priority = -_order(wish)[0]
            number[priority] += 1
            memory[priority] += wish.need_mib
    return [(number[p], memory[p]) for p in sorted(Priority, reverse=True)]


def _like(wish: Wish) -> tuple[object, ...]:
    """Equal for VMs that differ only in their size, as far as filters go."""
    return (wish.vm.owner, wish.possible, wish.equipment, wish.vm.id if wish.rules else None)


def is_below(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a path lies in one of these folders. Paths with ``..`` never do."""
    if ".." in path and ".." in path.split("/"):
        return False
    for folder in folders:  # asked for every disk of every VM: any() over a generator is twice as dear  # noqa: SIM110
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

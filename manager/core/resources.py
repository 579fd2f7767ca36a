"""What the nodes say of storage and networks: sightings in, the cluster's pools and networks out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Protocol

from natsort import natsorted

from manager.core import units
from manager.core.changes import Story, Turn
from manager.core.effects import ReadResources
from manager.core.events import NodeResourcesChanged, NodeResourcesRead, PoolVolumesRead
from manager.core.ids import Kind, NetworkId, NodeId, PoolId, VmId
from manager.core.model import ClusterConfig, Disk, Node, Vm, VmConfig
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.resource_facts import (
    FULL_PERCENT,
    NEARLY_FULL_PERCENT,
    Network,
    NetworkStatus,
    Pool,
    PoolStatus,
    SeenInterface,
    SeenNetwork,
    SeenPool,
    Volume,
)

if TYPE_CHECKING:
    from manager.core.cluster import ClusterView

Use = tuple[NodeId, str, str]
"""What a VM needs of its node: in which way, and the name of it."""

BY_SOURCE = frozenset({"netfs", "iscsi", "iscsi-direct", "rbd", "gluster", "sheepdog", "vstorage"})
"""Types of pools that are the same wherever their source is the same. Source: libvirt storage.html."""

BY_PATH = frozenset({"dir", "fs"})
"""Types of pools that are shared if the cluster file says so of their folder."""

_SHARED = ("path:", *(f"{kind}:" for kind in sorted(BY_SOURCE)))
"""How the ids of pools begin that nodes share."""

_USED = frozenset({"config", "owner", "*"})
"""Attributes of a VM on which it depends what it needs of which node."""

_LISTED = 3
"""How many nodes are named before the rest is counted."""


class ResourcesView(Protocol):
    """What everything outside the core may read of storage and networks."""

    @property
    def pools(self) -> Mapping[PoolId, Pool]:
        """One row per pool that nodes share, one per node for each other."""
        ...

    @property
    def networks(self) -> Mapping[NetworkId, Network]:
        """One row per name of a network or of a bridge."""
        ...

    def is_read(self, node: NodeId) -> bool:
        """Whether a node has ever told."""
        ...

    def pool_at(self, pool: PoolId) -> Mapping[NodeId, SeenPool]:
        """What every node that has it says of a pool."""
        ...

    def network_at(self, network: NetworkId) -> Mapping[NodeId, SeenNetwork | SeenInterface]:
        """What every node that has it says of a network, or of a bridge."""
        ...

    def pools_of(self, node: NodeId) -> Mapping[PoolId, SeenPool] | None:
        """What a node says of its pools; None if it cannot tell, or has not yet."""
        ...

    def networks_of(self, node: NodeId) -> Mapping[str, SeenNetwork] | None:
        """What a node says of libvirt's networks; None if it cannot tell, or has not yet."""
        ...

    def interfaces_of(self, node: NodeId) -> Mapping[str, SeenInterface] | None:
        """What a node says of its own interfaces; None if it cannot tell, or has not yet."""
        ...

    def users(self, key: PoolId | NetworkId) -> frozenset[VmId]:
        """The VMs that have a disk in a pool, or an interface in a network."""
        ...

    def count_users(self, key: PoolId | NetworkId) -> int:
        """How many those are."""
        ...


class Problems(Protocol):
    """Where problems are kept."""

    def __call__(self, turn: Turn, key: str, reason: Reason, *, node: NodeId | None = None) -> None:
        """There is one, or it has changed."""
        ...


class Solved(Protocol):
    """How they go."""

    def __call__(self, turn: Turn, key: str) -> None:
        """It is gone, if it was there."""
        ...


@dataclass(slots=True)
class _Seen:
    """One node's answer. None: it cannot tell."""

    pools: dict[str, SeenPool] | None = None
    networks: dict[str, SeenNetwork] | None = None
    interfaces: dict[str, SeenInterface] | None = None


@dataclass(slots=True)
class Resources:
    """Pools, networks and interfaces. Only `ClusterState` calls the methods that change it."""

    config: ClusterConfig
    nodes: Mapping[NodeId, Node]
    story: Story
    problem: Problems
    solved: Solved
    pools: dict[PoolId, Pool] = field(default_factory=dict)
    networks: dict[NetworkId, Network] = field(default_factory=dict)
    _seen: dict[NodeId, _Seen] = field(default_factory=dict)
    _pools_at: dict[PoolId, dict[NodeId, SeenPool]] = field(default_factory=dict)
    _networks_at: dict[NetworkId, dict[NodeId, SeenNetwork | SeenInterface]] = field(default_factory=dict)
    _needs: dict[VmId, frozenset[Use]] = field(default_factory=dict)
    _same: dict[frozenset[Use], frozenset[Use]] = field(default_factory=dict)  # most VMs need the same
    _users: dict[Use, set[VmId]] = field(default_factory=dict)
    _uses_of: dict[str, tuple[Use, ...]] = field(default_factory=dict)  # pool or network -> what VMs call it
    _of_use: dict[Use, list[tuple[Kind, str]]] = field(default_factory=dict)

    # --- reading ---------------------------------------------------------------------------

    def is_read(self, node: NodeId) -> bool:
        """Whether a node was ever asked."""
        return node in self._seen

    def pool_at(self, pool: PoolId) -> Mapping[NodeId, SeenPool]:
        """What every node that has it says of a pool."""
        return self._pools_at.get(pool, {})

    def network_at(self, network: NetworkId) -> Mapping[NodeId, SeenNetwork | SeenInterface]:
        """What every node that has it says of a network, or of a bridge."""
        return self._networks_at.get(network, {})

    def pools_of(self, node: NodeId) -> Mapping[PoolId, SeenPool] | None:
        """What a node says of its pools; None if it cannot tell, or has not yet."""
        seen = self._seen.get(node)
        if seen is None or seen.pools is None:
            return None
        return {self._pool_id(node, pool): pool for pool in seen.pools.values()}

    def networks_of(self, node: NodeId) -> Mapping[str, SeenNetwork] | None:
        """What a node says of libvirt's networks; None if it cannot tell, or has not yet."""
        seen = self._seen.get(node)
        return seen.networks if seen is not None else None

    def interfaces_of(self, node: NodeId) -> Mapping[str, SeenInterface] | None:
        """What a node says of its own interfaces; None if it cannot tell, or has not yet."""
        seen = self._seen.get(node)
        return seen.interfaces if seen is not None else None

    def pool_of(self, node: NodeId, disk: Disk) -> Pool | None:
        """The pool of a node in which a disk lies, if one is known."""
        use = _use_of(node, disk)
        found = (self.pools.get(PoolId(key)) for _, key in self._of_use.get(use, ())) if use else ()
        return next((pool for pool in found if pool is not None), None)

    def users(self, key: PoolId | NetworkId) -> frozenset[VmId]:
        """The VMs that have a disk in a pool, or an interface in a network."""
        found = (self._users.get(use, ()) for use in self._uses_of.get(key, ()))
        return frozenset().union(*found)

    def count_users(self, key: PoolId | NetworkId) -> int:
        """How many VMs those are."""
        found = [users for use in self._uses_of.get(key, ()) if (users := self._users.get(use))]
        return len(found[0]) if len(found) == 1 else len(set().union(*found))

    # --- events ----------------------------------------------------------------------------

    def read(self, event: NodeResourcesRead, turn: Turn) -> None:
        """A node said what it has."""
        if event.node not in self.nodes:
            return
        seen = _Seen(_named(event.pools), _named(event.networks), _named(event.interfaces))
        if seen != self._seen.get(event.node):
            self._seen[event.node] = seen
            turn.changes[Kind.NODE].update(event.node, ("resources",))
            self._derive(turn)

    def changed(self, event: NodeResourcesChanged, turn: Turn) -> None:
        """A node said that it has something else now."""
        turn.effects.append(ReadResources(trace=turn.trace, node=event.node))

    def volumes_read(self, event: PoolVolumesRead, turn: Turn) -> None:
        """A pool was looked into: its own figures are fresh."""
        seen = self._seen.get(event.node)
        if seen is not None and seen.pools is not None and event.pool.name in seen.pools:
            seen.pools[event.pool.name] = event.pool
            self._derive(turn)

    def follow(self, turn: Turn, vms: Mapping[VmId, Vm]) -> None:
        """Nodes that came or went, VMs that are elsewhere or need something else now."""
        nodes = turn.changes[Kind.NODE].updated
        if self._seen and any("status" in names for names in nodes.values()):
            self._derive(turn)
        changed = turn.changes[Kind.VM]
        for key in changed.added:
            self._need(VmId(key), vms.get(VmId(key)), turn)
        for key in changed.removed:
            self._need(VmId(key), None, turn)
        for key, names in changed.updated.items():
            if names & _USED:
                self._need(VmId(key), vms.get(VmId(key)), turn)

    def _need(self, vm: VmId, row: Vm | None, turn: Turn) -> None:
        needs = _needs(row.owner, row.config) if row is not None and row.owner and row.config else frozenset()
        needs = self._same.setdefault(needs, needs)
        before = self._needs.get(vm, frozenset())
        if needs is before or needs == before:
            return
        for use in before - needs:
            self._users[use].discard(vm)
        for use in needs - before:
            self._users.setdefault(use, set()).add(vm)
        if needs:
            self._needs[vm] = needs
        else:
            del self._needs[vm]
        for use in before ^ needs:
            for kind, key in self._of_use.get(use, ()):
                turn.changes[kind].update(key, ("users",))

    # --- rows ------------------------------------------------------------------------------

    def _derive(self, turn: Turn) -> None:
        """All rows anew: they are few, and one node's answer concerns those that it shares with others."""
        pools: dict[PoolId, dict[NodeId, SeenPool]] = {}
        networks: dict[NetworkId, dict[NodeId, SeenNetwork | SeenInterface]] = {}
        for node, seen in self._seen.items():
            for pool in (seen.pools or {}).values():
                pools.setdefault(self._pool_id(node, pool), {}).setdefault(node, pool)
            own = {network.bridge for network in (seen.networks or {}).values() if network.mode != "bridge"}
            for network in (seen.networks or {}).values():
                networks.setdefault(NetworkId(f"network:{network.name}"), {})[node] = network
            for interface in (seen.interfaces or {}).values():
                if interface.kind == "bridge" and interface.name not in own:
                    networks.setdefault(NetworkId(f"bridge:{interface.name}"), {})[node] = interface
        self._pools_at, self._networks_at = pools, networks
        before_uses = self._uses_of
        self._uses_of, self._of_use = {}, {}
        for pool_id, at in pools.items():
            self._note_uses(
                Kind.POOL, pool_id, (use for node, s in at.items() for use in _pool_uses(node, s))
            )
        for network_id, there in networks.items():
            self._note_uses(
                Kind.NETWORK,
                network_id,
                (
                    (node, "bridge" if isinstance(s, SeenInterface) else "network", s.name)
                    for node, s in there.items()
                ),
            )
        self._show(Kind.POOL, self.pools, {key: self._pool(key, at) for key, at in pools.items()}, turn)
        rows = {key: self._network(key, at) for key, at in networks.items()}
        self._show(Kind.NETWORK, self.networks, rows, turn)
        for key, uses in self._uses_of.items():
            if before_uses.get(key) != uses:
                kind = Kind.NETWORK if key in networks else Kind.POOL
                turn.changes[kind].update(key, ("users",))
        self._judge(turn)

    def _note_uses(self, kind: Kind, key: str, uses: Iterable[Use]) -> None:
        self._uses_of[key] = tuple(dict.fromkeys(uses))
        for use in self._uses_of[key]:
            self._of_use.setdefault(use, []).append((kind, key))

    def _show(self, kind: Kind, rows: dict[Any, Any], new: Mapping[Any, Any], turn: Turn) -> None:
        """Put derived rows in the place of the old ones, and tell what changed."""
        changes = turn.changes[kind]
        for key in [key for key in rows if key not in new]:
            del rows[key]
            changes.remove(key)
            self.story.forget(key)
            self.solved(turn, f"pool:{key}")
        for key, row in new.items():
            before = rows.get(key)
            if row == before:
                continue
            rows[key] = row
            if before is None:
                changes.add(key)
                continue
            changes.update(
                key, [f.name for f in fields(row) if getattr(before, f.name) != getattr(row, f.name)]
            )
            if before.status is not row.status:
                said = f": {row.information.text}" if row.information else ""
                self.story.tell(key, turn.at_s, f"{row.status.value}{said}")

    def _judge(self, turn: Turn) -> None:
        for key, pool in self.pools.items():
            full = next((note for note in pool.notes if note.code is ReasonCode.POOL_FULL), None)
            if full is None:
                self.solved(turn, f"pool:{key}")
            else:
                node = None if pool.is_shared else pool.nodes[0]
                self.problem(turn, f"pool:{key}", full, node=node)

    def _pool_id(self, node: NodeId, pool: SeenPool) -> PoolId:
        """The same for all nodes on which it is the same storage."""
        if pool.kind in BY_SOURCE and pool.source_text:
            hosts = ",".join(sorted(host.lower() for host in pool.hosts))
            return PoolId(f"{pool.kind}:{hosts}:{_folder(pool.source)}")
        target = _folder(pool.target)
        if pool.kind in BY_PATH and any(
            target == shared or target.startswith(f"{shared}/")
            for shared in map(_folder, self.config.shared_paths)
        ):
            return PoolId(f"path:{target}")
        return PoolId(f"{node}/{pool.name}")

    def _where(
        self, at: Mapping[NodeId, Any], usable: Collection[NodeId], told: Collection[NodeId], *, shared: bool
    ) -> tuple[list[NodeId], tuple[NodeId, ...], tuple[NodeId, ...], list[Reason]]:
        """Nodes that answer and have it, those without, those that cannot use it, and what to say of it."""
        up = [node for node in at if self.nodes[node].is_up]
        missing = [n for n in told if n not in at and self.nodes[n].is_up] if shared else []
        inactive = [node for node in up if node not in usable]
        silent = [node for node in at if node not in up]
        notes = [
            because(code, nodes=names_text(nodes))
            for code, nodes in (
                (ReasonCode.RESOURCE_INACTIVE, inactive),
                (ReasonCode.RESOURCE_MISSING, missing),
                (ReasonCode.RESOURCE_UNHEARD, silent),
            )
            if nodes
        ]
        return up, tuple(natsorted(missing)), tuple(natsorted(inactive)), notes

    def _pool(self, key: PoolId, at: Mapping[NodeId, SeenPool]) -> Pool:
        is_shared = key.startswith(_SHARED)
        usable = [node for node, seen in at.items() if seen.state.is_usable]
        told = [node for node, seen in self._seen.items() if seen.pools is not None]
        up, missing, inactive, notes = self._where(at, usable, told, shared=is_shared)
        name = _most(seen.name for seen in at.values())
        # The same storage: one node's figures are all nodes', and the fullest picture is the safest.
        figures = [seen for node, seen in at.items() if node in usable and seen.capacity_bytes]
        shown = min(
            (seen for seen in figures if seen.free_bytes is not None),
            key=lambda seen: (seen.free_bytes or 0) / (seen.capacity_bytes or 1),
            default=None,
        )
        any_seen = next(iter(at.values()))
        for seen_name, nodes in _others(at, lambda seen: seen.name, name):
            notes.append(because(ReasonCode.RESOURCE_NAMED, name=seen_name, nodes=nodes))
        for text, nodes in _others(at, lambda seen: seen.trouble, ""):
            notes.append(because(ReasonCode.RESOURCE_TROUBLE, text=text, nodes=nodes))
        row = Pool(
            id=key,
            name=name,
            status=_status(PoolStatus, up, inactive, missing),
            kind=any_seen.kind_text,
            is_shared=is_shared,
            source=any_seen.source_text,
            target=_most(seen.target for seen in at.values()),
            nodes=tuple(natsorted(at)),
            missing=missing,
            inactive=inactive,
            capacity_bytes=shown.capacity_bytes if shown else None,
            free_bytes=shown.free_bytes if shown else None,
            autostart=all(seen.autostart for seen in at.values()),
        )
        percent = row.used_percent if up else None
        if percent is not None and percent >= NEARLY_FULL_PERCENT:
            is_full = percent >= FULL_PERCENT
            how_full = because(
                ReasonCode.POOL_FULL if is_full else ReasonCode.POOL_FILLS,
                percent=int(percent),  # 84.9 is not 85
                free=units.size_text(row.free_bytes or 0),
                size=units.size_text(row.capacity_bytes or 0),
            )
            notes.insert(0 if is_full else len(notes), how_full)
        return replace(row, information=notes[0] if notes else None, notes=tuple(notes))

    def _network(self, key: NetworkId, at: Mapping[NodeId, SeenNetwork | SeenInterface]) -> Network:
        usable = [node for node, seen in at.items() if seen.is_active]
        is_bridge = key.startswith("bridge:")
        told = [
            node
            for node, seen in self._seen.items()
            if (seen.interfaces if is_bridge else seen.networks) is not None
        ]
        up, missing, inactive, notes = self._where(at, usable, told, shared=True)
        networks = {node: seen for node, seen in at.items() if isinstance(seen, SeenNetwork)}
        kind = "bridge" if is_bridge else _most(seen.mode for seen in networks.values())
        for mode, nodes in _others(networks, lambda seen: seen.mode, kind) if networks else ():
            notes.append(because(ReasonCode.RESOURCE_DIFFERS, what=mode, nodes=nodes))
        for text, nodes in _others(networks, lambda seen: seen.trouble, "") if networks else ():
            notes.append(because(ReasonCode.RESOURCE_TROUBLE, text=text, nodes=nodes))
        subnets = dict.fromkeys(
            subnet
            for seen in at.values()
            for subnet in map(_subnet, seen.subnets if isinstance(seen, SeenNetwork) else seen.addresses)
            if subnet
        )
        some = next(iter(at.values()))
        return Network(
            id=key,
            name=some.name,
            status=_status(NetworkStatus, up, inactive, missing),
            kind=kind,
            is_bridge=is_bridge,
            use="Live migration" if self._carries_moves(subnets) else "",
            bridge=_most(seen.bridge for seen in networks.values()) if networks else some.name,
            subnets=tuple(subnets),
            nodes=tuple(natsorted(at)),
            missing=missing,
            inactive=inactive,
            autostart=all(seen.autostart for seen in networks.values()) if networks else None,
            information=notes[0] if notes else None,
            notes=tuple(notes),
        )

    def _carries_moves(self, subnets: Iterable[str]) -> bool:
        wanted = [ip_network(text, strict=False) for text in self.config.migration.networks]
        own = [ip_network(text) for text in subnets]
        return any(a.version == b.version and a.overlaps(b) for a in wanted for b in own)


def with_users(view: ClusterView, pool: PoolId, volumes: Iterable[Volume]) -> tuple[Volume, ...]:
    """Volumes of a pool with the names of the VMs that use them, as far as definitions were read."""
    by_path: dict[str, list[str]] = {}
    names = {seen.name for seen in view.resources.pool_at(pool).values()}
    for vm in (view.vms[key] for key in view.resources.users(pool) if key in view.vms):
        for disk in vm.config.disks if vm.config else ():
            by_path.setdefault(_place(disk, names), []).append(vm.name)
    found = tuple(volumes)
    builds_on = Counter(volume.backing for volume in found if volume.backing)
    return tuple(
        replace(
            volume,
            users=tuple(
                natsorted({n for key in {volume.path, f"volume:{volume.name}"} for n in by_path.get(key, ())})
            ),
            overlays=builds_on[volume.path],
        )
        for volume in found
    )


def _place(disk: Disk, pool_names: Collection[str]) -> str:
    """Which volume a disk is, by its path or its name in the pool."""
    if disk.kind == "volume":
        pool, _, name = disk.source.partition("/")
        return f"volume:{name}" if pool in pool_names else ""
    if disk.kind == "network":
        return f"volume:{disk.source.rpartition('/')[2]}"
    return disk.source


def _needs(owner: NodeId, config: VmConfig) -> frozenset[Use]:
    needs = {use for disk in config.disks if (use := _use_of(owner, disk))}
    for interface in config.interfaces:
        if interface.kind in ("bridge", "network") and interface.source:
            needs.add((owner, interface.kind, interface.source))
    return frozenset(needs)


def _use_of(owner: NodeId, disk: Disk) -> Use | None:
    """What a disk needs of its VM's node; None if it is empty."""
    if not disk.source:
        return None
    if disk.kind == "volume":
        return owner, "pool", disk.source.partition("/")[0]
    if disk.kind == "network":
        protocol, _, rest = disk.source.partition("://")
        return owner, "remote", f"{protocol}:{rest.partition('/')[2].partition('/')[0]}"
    return owner, "path", _folder(disk.source.rpartition("/")[0])


def _pool_uses(node: NodeId, pool: SeenPool) -> Iterable[Use]:
    """By what names VMs call a pool of their node."""
    yield node, "pool", pool.name
    if pool.target:
        yield node, "path", _folder(pool.target)
    elif pool.source:
        yield node, "remote", f"{pool.kind}:{pool.source.strip('/')}"


def names_text(nodes: Iterable[NodeId]) -> str:
    """Some names, and how many more: ``n1, n2, n3 and 5 more``."""
    names = natsorted(nodes)
    more = len(names) - _LISTED
    return f"{', '.join(names[:_LISTED])} and {more} more" if more > 1 else ", ".join(names)


def _named(seen: Iterable[Any] | None) -> dict[str, Any] | None:
    return None if seen is None else {each.name: each for each in seen}


def _folder(path: str) -> str:
    return path.rstrip("/") or path[:1]


def _subnet(address: str) -> str:
    try:
        return str(ip_interface(address).network)
    except ValueError:
        return ""


def _most(values: Iterable[str]) -> str:
    """The value that most have; of equals the first in the alphabet."""
    counted = Counter(values)
    return min(counted, key=lambda value: (-counted[value], value))


def _others(at: Mapping[NodeId, Any], pick: Any, usual: str) -> list[tuple[str, str]]:
    """What is not as usual, with the nodes on which that is so."""
    found: dict[str, list[NodeId]] = {}
    for node, seen in at.items():
        if pick(seen) != usual:
            found.setdefault(pick(seen), []).append(node)
    return [(value, names_text(nodes)) for value, nodes in sorted(found.items())]


def _status(
    kinds: type[PoolStatus] | type[NetworkStatus],
    up: Collection[NodeId],
    inactive: Collection[NodeId],
    missing: Collection[NodeId],
) -> Any:
    online, partly, offline, unknown = kinds
    if not up:
        return unknown
    if len(inactive) == len(up):
        return offline
    return partly if inactive or missing else online

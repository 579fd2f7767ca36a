"""How much may run at once and how fast: what the cluster file says, and what was changed while running."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from manager.core.model import ClusterConfig, MigrationLimits, WorkLimits
from manager.core.operations import StandingOrders

DEFAULT_CAP_MIB_S = 100
"""What one move may send where no migration network is named: it shares the network with all else."""

LIMITS: Mapping[str, tuple[int, int]] = {
    "outgoing_per_node": (1, 64),
    "incoming_per_node": (1, 64),
    "cluster_limit": (0, 4096),
    "bandwidth_mib_s": (0, 1_000_000),
    "node_bandwidth_mib_s": (0, 1_000_000),
    "starts_per_node": (1, 64),
    "starts_per_cluster": (1, 1024),
    "saves_per_node": (1, 64),
}
"""Limits that can be changed while the queue runs, with the least and the largest value of each."""

_OF_WORK = frozenset(WorkLimits.__dataclass_fields__)


def limit_of(config: ClusterConfig, name: str) -> int:
    """A limit by its name in the cluster file."""
    return int(getattr(config.work if name in _OF_WORK else config.migration, name))


def checked(limits: Mapping[str, int]) -> str:
    """What is wrong with limits that someone wants to set, or an empty string."""
    for name, value in limits.items():
        if name not in LIMITS:
            return f"{name}: there is no such limit; known: {', '.join(LIMITS)}"
        least, most = LIMITS[name]
        if not least <= value <= most:
            return f"{name} = {value}: needs a whole number from {least} to {most}"
    return ""


def changed(file: ClusterConfig, limits: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Of limits that were set while running, those that can be and differ from the cluster file's."""
    usable = {name: value for name, value in limits if not checked({name: value})}
    return tuple(pair for pair in usable.items() if pair[1] != limit_of(file, pair[0]))


def limited(file: ClusterConfig, orders: StandingOrders) -> ClusterConfig:
    """The cluster's settings with the limits that were changed while running."""
    values = dict(changed(file, orders.limits))
    work = {n: v for n, v in values.items() if n in _OF_WORK}
    moves = {n: v for n, v in values.items() if n not in _OF_WORK}
    migration: MigrationLimits = replace(file.migration, **moves)  # type: ignore[arg-type]
    return replace(file, migration=migration, work=replace(file.work, **work))


def cap_mib_s(limits: MigrationLimits) -> int:
    """What one more move between nodes may send, in MiB/s; 0: as much as it can."""
    budget = limits.node_bandwidth_mib_s
    if limits.bandwidth_mib_s:
        return min(limits.bandwidth_mib_s, budget or limits.bandwidth_mib_s)
    if budget:
        return max(1, budget // max(limits.outgoing_per_node, 1))
    return 0 if limits.networks else DEFAULT_CAP_MIB_S


def cap_text(limits: MigrationLimits) -> str:
    """What each move may send, and that nobody chose it if so; empty if there is no cap."""
    cap = cap_mib_s(limits)
    unchosen = not limits.bandwidth_mib_s and not limits.node_bandwidth_mib_s
    why = ", as no migration network is named" if unchosen else ""
    return f"{cap} MiB/s each{why}" if cap else ""

"""What is read from a host: inventory, definitions, loads. Lane threads only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import libvirt

from manager.backends.libvirt import domain_xml
from manager.backends.libvirt.translate import Told, told
from manager.core.edits import settled
from manager.core.events import SeenVm
from manager.core.ids import VmId
from manager.core.model import NodeLoad, VmConfig, VmLoad

_NO_SUPPORT = frozenset(
    {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED, libvirt.VIR_ERR_INVALID_ARG}
)


def lookup(connection: libvirt.virConnect, vm: VmId) -> libvirt.virDomain:
    """The domain of that UUID; libvirt's NO_DOMAIN if it is gone."""
    return connection.lookupByUUIDString(vm)


# --- inventory -------------------------------------------------------------------------------


def inventory(connection: libvirt.virConnect) -> tuple[SeenVm, ...]:
    """All VMs with their states, in two calls whatever their number.

    Source: libvirt virConnectGetAllDomainStats, virConnectListAllDomains.
    """
    saved = {d.UUIDString() for d in _with_saved_state(connection)}
    return tuple(
        _seen(domain, state, reason, saved)
        for domain, state, reason in _states(connection)
        if domain is not None
    )


def _with_saved_state(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
    try:
        return list(connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE))
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_SUPPORT:
            return []
        raise


def _states(connection: libvirt.virConnect) -> list[tuple[libvirt.virDomain, int, int]]:
    try:
        records = connection.getAllDomainStats(
            libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_SUPPORT:
            raise
        # Drivers without bulk statistics are asked one by one.
        records = [(domain, {}) for domain in connection.listAllDomains(0)]
    found = []
    for domain, stats in records:
        if "state.state" in stats:
            found.append((domain, stats["state.state"], stats.get("state.reason", 0)))
        elif (one := _state_or_gone(domain)) is not None:
            found.append((domain, *one))
    return found


def _state_or_gone(domain: libvirt.virDomain) -> tuple[int, int] | None:
    try:
        state, reason = domain.state()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    return state, reason


def _seen(domain: libvirt.virDomain, state: int, reason: int, saved: set[str]) -> SeenVm:
    uuid = domain.UUIDString()
    seen = told(state, reason, has_saved_state=uuid in saved)
    running_id = domain.ID()
    return SeenVm(
        vm=VmId(uuid),
        name=domain.name(),
        status=seen.status,
        cause=seen.cause,
        incarnation=running_id if running_id > 0 else None,
        shutting_down=seen.shutting_down,
    )


def after_stop(connection: libvirt.virConnect, vms: Sequence[VmId]) -> dict[VmId, tuple[str, Told] | None]:
    """Names and states of VMs that have just stopped; None for one that is gone.

    A transient VM, or one that moved away, goes without an event of its own; and a VM saved into a file of
    somebody's own stops with the same event as one with a managed save.
    """
    found: dict[VmId, tuple[str, Told] | None] = {}
    for vm in vms:
        try:
            domain = lookup(connection, vm)
            state, reason = domain.state()
            is_off = state == libvirt.VIR_DOMAIN_SHUTOFF
            has_saved = is_off and bool(_number(domain.hasManagedSaveImage))
            found[vm] = (domain.name(), told(state, reason, has_saved_state=has_saved))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            found[vm] = None
    return found


# --- one VM ----------------------------------------------------------------------------------


@dataclass(slots=True)
class ConfigCache:
    """The last definition read of each VM of a node, so that an unchanged one is not parsed again."""

    by_vm: dict[VmId, VmConfig] = field(default_factory=dict)

    def config(self, vm: VmId, xml: str, stored_xml: str = "") -> VmConfig:
        """The definition as a value; `stored_xml`: of a VM that runs, by which it starts the next time."""
        digest = domain_xml.digest_of(xml)
        stored = domain_xml.digest_of(stored_xml) if stored_xml else ""
        known = self.by_vm.get(vm)
        if known is None or (known.digest, known.stored_digest) != (digest, stored):
            config = replace(domain_xml.parse(xml, digest), stored_digest=stored)
            if stored_xml:
                config = settled(replace(config, stored=domain_xml.parse(stored_xml, stored)))
            known = self.by_vm[vm] = config
        return known

    def forget(self, vm: VmId) -> None:
        """It is gone."""
        self.by_vm.pop(vm, None)


def vm_config(connection: libvirt.virConnect, vm: VmId, cache: ConfigCache) -> VmConfig:
    """A VM's definition as it runs (or would start), with what libvirt keeps beside it."""
    try:
        domain = lookup(connection, vm)
        persistent = bool(domain.isPersistent())
        has_two = persistent and domain.isActive()
        stored = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if has_two else ""
        config = cache.config(vm, domain.XMLDesc(0), stored)
        return replace(
            config,
            autostart=bool(_number(domain.autostart)),
            persistent=persistent,
            snapshots=_number(domain.snapshotNum),
            checkpoints=checkpoints(domain),
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            cache.forget(vm)
        raise


def checkpoints(domain: libvirt.virDomain) -> int:
    """How many points in time incremental backups build on. Source: libvirt virDomainListAllCheckpoints."""
    return _number(lambda: len(domain.listAllCheckpoints(0)))


def _number(ask: Any) -> int:
    try:
        return int(ask())
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_SUPPORT:
            return 0
        raise


# --- loads -----------------------------------------------------------------------------------

MAX_DEVICES = 1024

_SAMPLED = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
_SAMPLE_FLAGS = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)


@dataclass(slots=True)
class Loads:
    """What the last sample counted; the next one takes the difference. One per node, one lane only."""

    node: tuple[float, int, int] | None = None  # monotonic s, busy ns, all ns
    vms: dict[VmId, tuple[float, int]] = field(default_factory=dict)  # monotonic s, CPU ns
    flows: dict[VmId, tuple[float, int | None, int | None]] = field(default_factory=dict)  # s, disk, network

    def sample(
        self,
        connection: libvirt.virConnect,
        at_s: float,
        configs: Mapping[VmId, VmConfig],
        *,
        disks: bool = False,
    ) -> tuple[NodeLoad, dict[VmId, VmLoad]]:
        """The node's load and those of its running VMs, in three calls; CPU from the second sample on.

        A VM's CPU figure needs the number of its vCPUs: until its definition was read there is none.

        Source: libvirt virConnectGetAllDomainStats, virNodeGetCPUStats, virNodeGetMemoryStats.
        """
        now_s = time.monotonic()
        groups = _SAMPLED | libvirt.VIR_DOMAIN_STATS_BLOCK if disks else _SAMPLED
        before, self.vms = self.vms, {}
        flowed, self.flows = self.flows, {}
        loads: dict[VmId, VmLoad] = {}
        for domain, stats in connection.getAllDomainStats(groups, _SAMPLE_FLAGS):
            vm = VmId(domain.UUIDString())
            cpu_ns = stats.get("cpu.time")
            vcpus = configs[vm].vcpus if vm in configs else 0
            if cpu_ns is None:  # busy with a job just now: keep what was counted
                if vm in before:
                    self.vms[vm] = before[vm]
            else:
                self.vms[vm] = (now_s, cpu_ns)
            disk = _total(stats, "block", ("rd.bytes", "wr.bytes"))
            net = _total(stats, "net", ("rx.bytes", "tx.bytes"))
            self.flows[vm] = (now_s, disk, net)
            then_s, disk_then, net_then = flowed.get(vm, (now_s, None, None))
            loads[vm] = VmLoad(
                cpu_percent=_percent(before.get(vm), now_s, cpu_ns, vcpus),
                memory_used_mib=_memory_used_mib(stats),
                disk_bytes_per_s=_rate(disk_then, disk, now_s - then_s),
                net_bytes_per_s=_rate(net_then, net, now_s - then_s),
                at_s=at_s,
            )
        return self._node(connection, now_s, at_s), loads

    def _node(self, connection: libvirt.virConnect, now_s: float, at_s: float) -> NodeLoad:
        counters = connection.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS)
        idle = counters.get("idle", 0) + counters.get("iowait", 0)
        whole = idle + counters.get("user", 0) + counters.get("kernel", 0) + counters.get("intr", 0)
        before, self.node = self.node, (now_s, whole - idle, whole)
        percent = None
        if before is not None and whole > before[2]:
            percent = min(100.0, max(0.0, 100.0 * (whole - idle - before[1]) / (whole - before[2])))
        memory = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        free_kib = memory.get("available")  # newer hosts say it themselves
        if free_kib is None:
            free_kib = memory.get("free", 0) + memory.get("buffers", 0) + memory.get("cached", 0)
        return NodeLoad(cpu_percent=percent, memory_free_mib=free_kib // 1024, at_s=at_s)


def _percent(before: tuple[float, int] | None, now_s: float, cpu_ns: int | None, vcpus: int) -> float | None:
    if before is None or cpu_ns is None or not vcpus or now_s <= before[0] or cpu_ns < before[1]:
        return None
    return min(100.0, (cpu_ns - before[1]) / (now_s - before[0]) / 1e7 / vcpus)


def _total(stats: Mapping[str, Any], group: str, names: Sequence[str]) -> int | None:
    """What all devices of a kind counted together; None where the host did not say, as during a job."""
    count = stats.get(f"{group}.count")
    if count is None:
        return None
    counted = [
        int(value)
        for at in range(min(count, MAX_DEVICES))
        for name in names
        if (value := stats.get(f"{group}.{at}.{name}")) is not None
    ]
    return sum(counted) if counted or not count else None


def _rate(before: int | None, now: int | None, seconds: float) -> float | None:
    """Per second; None without an earlier figure, or where counting began anew."""
    if before is None or now is None or seconds <= 0 or now < before:
        return None
    return (now - before) / seconds


def _memory_used_mib(stats: Mapping[str, Any]) -> int | None:
    """What the guest itself says it uses; None without its balloon driver."""
    available = stats.get("balloon.available")
    left = stats.get("balloon.usable", stats.get("balloon.unused"))
    if available is None or left is None:
        return None
    return int(max(0, available - left)) // 1024

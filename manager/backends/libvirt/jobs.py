"""Jobs of VMs: which one runs, whoever began it, and its figures. Lane threads only, but for `figures_of`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import libvirt
from lxml import etree

from manager.backends.libvirt.reading import lookup
from manager.backends.libvirt.xml_text import root_of
from manager.core.ids import VmId

MIGRATION = "migration"

JOB_NAMES: Mapping[int, str] = {
    libvirt.VIR_DOMAIN_JOB_OPERATION_START: "start",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE: "save",
    libvirt.VIR_DOMAIN_JOB_OPERATION_RESTORE: "restore",
    libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: MIGRATION,
    libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT: "snapshot",
    libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT: "return to a snapshot",
    libvirt.VIR_DOMAIN_JOB_OPERATION_DUMP: "memory dump",
    libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP: "backup",
    10: "deletion of a snapshot",  # VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE, newer than others here
}
"""Source: libvirt virDomainJobOperation. A move that comes in is its source's job."""

BLOCK_JOB_NAMES: Mapping[int, str] = {
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL: "block pull",
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY: "block copy",
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT: "block commit",
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT: "block commit",
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP: "backup",
}
"""Source: libvirt virDomainBlockJobType."""

_MIRROR_NAMES = {"copy": "block copy", "active-commit": "block commit"}
"""Source: libvirt formatdomain.html, <mirror>."""

_NO_JOB = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID})
"""What the question for a job is answered with where no VM runs that could have one."""

_IN_POST_COPY = frozenset({libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFigures:
    """A running job's figures. Bytes, ms, bytes/s."""

    elapsed_ms: int = 0
    total_bytes: int = 0
    remaining_bytes: int = 0
    rate_bytes_per_s: int = 0
    dirty_bytes_per_s: int = 0
    iteration: int = 0
    downtime_ms: int | None = None
    post_copy: bool = False
    throttle_percent: int | None = None


def job_figures(connection: libvirt.virConnect, vm: VmId) -> JobFigures | None:
    """The figures of a VM's job, or None when it has none or is gone. Totals are 0 while the target prepares.

    Disks that move along are copied first, and until they are the host counts nothing else: the memory that
    is still to come is added here. Source: libvirt virDomainGetJobStats, virDomainGetState.
    """
    try:
        domain = lookup(connection, vm)
        stats = domain.jobStats()
        figures = figures_of(stats)
        if figures is None or stats.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
            return figures
        state, reason = domain.state()
        if state == libvirt.VIR_DOMAIN_PAUSED and reason in _IN_POST_COPY:
            figures = replace(figures, post_copy=True)
        if stats.get("disk_total") and not stats.get("memory_total"):
            memory_bytes = domain.maxMemory() * 1024
            figures = replace(
                figures,
                total_bytes=figures.total_bytes + memory_bytes,
                remaining_bytes=figures.remaining_bytes + memory_bytes,
            )
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_JOB:
            return None
        raise
    return figures


def figures_of(stats: Mapping[str, Any]) -> JobFigures | None:
    """Job statistics as figures; any of them may be missing. None: there is no job."""
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) not in (
        libvirt.VIR_DOMAIN_JOB_BOUNDED,
        libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
    ):
        return None

    def figure(name: str) -> int:
        value = stats.get(name, 0)
        return int(value) if isinstance(value, (int, float)) else 0

    rate = figure("memory_bps") + figure("disk_bps")
    if not rate and figure("time_elapsed"):  # while disks are copied the host says none
        rate = figure("disk_processed") * 1000 // figure("time_elapsed")
    # A backup counts its disks only there.
    total = figure("data_total") or figure("disk_total")
    return JobFigures(
        elapsed_ms=figure("time_elapsed"),
        total_bytes=total,
        remaining_bytes=figure("data_remaining" if "data_total" in stats else "disk_remaining"),
        rate_bytes_per_s=rate,
        dirty_bytes_per_s=figure("memory_dirty_rate") * (figure("memory_page_size") or 4096),
        iteration=figure("memory_iteration"),
        downtime_ms=figure("downtime") if "downtime" in stats else None,
        post_copy=figure("memory_postcopy_requests") > 0,
        throttle_percent=figure("auto_converge_throttle") if "auto_converge_throttle" in stats else None,
    )


def has_job(connection: libvirt.virConnect, vm: VmId) -> bool:
    """Whether a job runs on a VM, of whatever kind."""
    try:
        domain = lookup(connection, vm)
        return figures_of(domain.jobStats()) is not None or _block_job(domain) is not None
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_JOB:
            return False
        raise


def job_name(connection: libvirt.virConnect, vm: VmId, *, thorough: bool = True) -> str | None:
    """What the job is that runs on a VM; None when there is none, or only one that comes in from elsewhere.

    `thorough` also finds block jobs that show in no definition, by a question to the hypervisor per disk.
    """
    try:
        domain = lookup(connection, vm)
        stats = domain.jobStats()
        if figures_of(stats) is not None:
            operation = stats.get("operation", libvirt.VIR_DOMAIN_JOB_OPERATION_UNKNOWN)
            if operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
                return None
            return JOB_NAMES.get(operation, "job")
        return _block_job(domain, thorough=thorough)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_JOB:
            return None
        raise


def job_names(connection: libvirt.virConnect, vms: Sequence[VmId], *, thorough: bool) -> dict[VmId, str]:
    """Those of some VMs that have a job, and what it is. Two quick calls per VM, unless `thorough`."""
    found = ((vm, job_name(connection, vm, thorough=thorough)) for vm in vms)
    return {vm: name for vm, name in found if name is not None}


def is_idle(connection: libvirt.virConnect, vm: VmId) -> bool:
    """Whether a VM runs here, and no job runs on it."""
    domain = lookup(connection, vm)
    return bool(domain.isActive()) and not has_job(connection, vm)


def _block_job(domain: libvirt.virDomain, *, thorough: bool = True) -> str | None:
    """What a block job on a VM's disks is, if there is one. Source: libvirt virDomainGetBlockJobInfo."""
    text = domain.XMLDesc(0)
    if not thorough and "<mirror " not in text:
        return None
    for disk in disks_of(text):
        mirror = disk.find("mirror")
        if mirror is not None:
            return _MIRROR_NAMES.get(mirror.get("job", "copy"), "block job")
        if thorough and (target := disk.find("target")) is not None and disk.find("source") is not None:
            kind = (domain.blockJobInfo(target.get("dev", "")) or {}).get("type")
            if kind is not None:
                return BLOCK_JOB_NAMES.get(kind, "block job")
    return None


def disks_of(xml: str) -> list[etree._Element]:
    """The disks of a definition; none of one that cannot be read."""
    try:
        return root_of(xml).findall("devices/disk")
    except ValueError:
        return []

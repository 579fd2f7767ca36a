"""Job statistics as figures."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from manager.backends.libvirt import jobs
from manager.backends.libvirt.jobs import JobFigures
from manager.core.ids import VmId

MIB = 1 << 20
VM = VmId("uuid")


class Domain:
    """As much of a domain as jobs are asked for."""

    def __init__(self, stats: dict[str, Any], *, xml: str = "<domain/>", **more: Any) -> None:
        self.stats, self.xml, self.more = stats, xml, more
        self.asked: list[str] = []

    def jobStats(self) -> dict[str, Any]:
        return self.stats

    def XMLDesc(self, _flags: int) -> str:
        return self.xml

    def state(self) -> list[int]:
        return list(self.more.get("state", (libvirt.VIR_DOMAIN_RUNNING, 1)))

    def maxMemory(self) -> int:
        return 512 * 1024

    def blockJobInfo(self, disk: str) -> dict[str, int]:
        self.asked.append(disk)
        found: dict[str, int] = self.more.get("blocks", {}).get(disk, {})
        return found


def host(domain: Domain) -> Any:
    class Host:
        def lookupByUUIDString(self, _vm: str) -> Domain:
            return domain

    return Host()


OUT = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
DISKS = {
    "type": 2,
    "operation": OUT,
    "time_elapsed": 2000,
    "data_total": 64 * MIB,
    "data_processed": 16 * MIB,
}
DISKS |= {"data_remaining": 48 * MIB, "disk_total": 64 * MIB, "disk_processed": 16 * MIB, "memory_total": 0}


def test_a_job_that_is_none_has_no_figures() -> None:
    for kind in (
        libvirt.VIR_DOMAIN_JOB_NONE,
        libvirt.VIR_DOMAIN_JOB_COMPLETED,
        libvirt.VIR_DOMAIN_JOB_FAILED,
    ):
        assert jobs.figures_of({"type": kind, "data_total": 5}) is None
    assert jobs.figures_of({}) is None


def test_any_figure_may_be_missing_or_be_none() -> None:
    assert jobs.figures_of({"type": 2}) == JobFigures()
    assert jobs.figures_of({"type": 2, "data_total": "x"}) == JobFigures()


def test_the_throttle_is_told() -> None:
    seen = jobs.figures_of({"type": 2, "auto_converge_throttle": 40})
    assert seen is not None
    assert seen.throttle_percent == 40


def test_memory_that_comes_after_the_disks_is_counted_from_the_beginning() -> None:
    seen = jobs.job_figures(host(Domain(DISKS)), VM)
    assert seen is not None
    assert seen.total_bytes == (64 + 512) * MIB
    assert seen.remaining_bytes == (48 + 512) * MIB
    assert seen.rate_bytes_per_s == 8 * MIB  # the host gives none meanwhile


def test_once_the_memory_moves_it_is_not_counted_twice() -> None:
    stats = DISKS | {"memory_total": 520 * MIB, "data_total": 584 * MIB, "memory_bps": 5}
    seen = jobs.job_figures(host(Domain(stats)), VM)
    assert seen is not None
    assert (seen.total_bytes, seen.rate_bytes_per_s) == (584 * MIB, 5)


def test_the_second_half_shows_by_the_state_of_the_source() -> None:
    for reason, expected in (
        (libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, True),
        (libvirt.VIR_DOMAIN_PAUSED_USER, False),
    ):
        domain = Domain({"type": 2, "operation": OUT}, state=(libvirt.VIR_DOMAIN_PAUSED, reason))
        seen = jobs.job_figures(host(domain), VM)
        assert seen is not None
        assert seen.post_copy is expected


def test_a_backups_disks_are_its_figures() -> None:
    stats = {
        "type": 2,
        "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP,
        "disk_total": 9,
        "disk_remaining": 4,
    }
    seen = jobs.job_figures(host(Domain(stats | {"disk_processed": 5})), VM)
    assert seen is not None
    assert (seen.total_bytes, seen.remaining_bytes) == (9, 4)


COPIED = (
    "<domain><devices><disk><source file='/a'/><mirror job='{}'/>"
    "<target dev='vda'/></disk></devices></domain>"
)
PLAIN = (
    "<domain><devices><disk><target dev='sda'/></disk>"
    "<disk><source file='/a'/><target dev='vda'/></disk></devices></domain>"
)


@pytest.mark.parametrize(
    ("stats", "xml", "name"),
    [
        ({"type": 0}, PLAIN, None),
        ({"type": 2, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP}, PLAIN, "backup"),
        ({"type": 2, "operation": OUT}, PLAIN, "migration"),
        ({"type": 2, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN}, PLAIN, None),
        ({"type": 2, "operation": 999}, PLAIN, "job"),
        ({"type": 0}, COPIED.format("copy"), "block copy"),
        ({"type": 0}, COPIED.format("active-commit"), "block commit"),
        ({"type": 0}, "<not xml <mirror ", None),
    ],
)
def test_what_a_job_is(stats: dict[str, Any], xml: str, name: str | None) -> None:
    domain = Domain(stats, xml=xml)
    assert jobs.job_names(host(domain), [VM], thorough=False) == ({VM: name} if name else {})
    assert not domain.asked  # no question to the hypervisor per disk


def test_a_block_job_that_shows_nowhere_is_found_by_asking() -> None:
    pull = {"vda": {"type": libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL, "cur": 0, "end": 0}}
    domain = Domain({"type": 0}, xml=PLAIN, blocks=pull)
    assert jobs.job_name(host(domain), VM, thorough=False) is None
    assert jobs.job_name(host(domain), VM) == "block pull"
    assert jobs.has_job(host(domain), VM)
    assert set(domain.asked) == {"vda"}  # a drive without a medium has none


def test_every_operation_that_this_libvirt_knows_has_a_name() -> None:
    known = {name for name in dir(libvirt) if name.startswith("VIR_DOMAIN_JOB_OPERATION_")}
    numbers = {getattr(libvirt, name) for name in known if not name.endswith(("_STR", "_LAST", "_UNKNOWN"))}
    unnamed = {libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN}
    assert {number for number in numbers if isinstance(number, int)} == set(jobs.JOB_NAMES) | unnamed

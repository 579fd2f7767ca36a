"""Copies of a running VM's disks to another pool of its host, and the switch to them. Lane threads only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import libvirt

from manager.backends.libvirt.errors import cleaned, failure_of
from manager.backends.libvirt.jobs import disks_of, job_figures
from manager.backends.libvirt.reading import lookup
from manager.backends.libvirt.storage import (
    Copy,
    copy_place,
    images_of,
    make_images,
    mirror_xml,
    remove_images,
    uses_any,
)
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import NodeId, VmId

_COPY_FLAGS = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
"""Into the volume that is there; and also for a VM with a stored definition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How copies stand."""

    done_bytes: int
    total_bytes: int
    ready: bool  # all of them: each write goes to both images
    gone: tuple[str, ...] = ()  # disks whose copy has ended without us


def begin(
    connection: libvirt.virConnect,
    vm: VmId,
    pool: str,
    disks: Sequence[str],
    bandwidth_mib_s: int,
    node: NodeId,
    is_cancelled: Callable[[], bool],
) -> tuple[Copy, ...]:
    """Start the copies of those disks that are not in the pool yet; ones that run already are taken over.

    Together they write at most `bandwidth_mib_s`, 0: no cap. Source: libvirt virDomainBlockCopy,
    virDomainBlockJobSetSpeed.

    A program that ended while its copies ran leaves them running: the same request finds them again.

    Raises:
        OperationError: ALREADY if all are there; WRONG_STATE for a VM that is off; BUSY if its disks have
            other work; and what `make_images` says. Nothing is left behind then.
    """
    domain = lookup(connection, vm)
    if not domain.isActive():
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text="it does not run"))
    if job_figures(connection, vm) is not None:
        raise OperationError(Failure(code=FailureCode.BUSY, text="another job runs on it"))
    images = images_of(connection, vm, disks)
    places = [copy_place(connection, pool, image, node) for image in images]
    places = [place for place in places if place.path != place.image.source]
    if not places:
        raise OperationError(Failure(code=FailureCode.ALREADY, text=f"its disks are in pool {pool}"))
    mirrors = _mirrors(domain)
    running = [place for place in places if mirrors.get(place.disk) == place.path]
    for place in places:
        if place not in running and place.disk in mirrors:
            text = f"its disk {place.disk} is being copied to another place"
            raise OperationError(Failure(code=FailureCode.BUSY, text=text))
    if is_cancelled():
        end(connection, vm, running)
        raise OperationError(Failure(code=FailureCode.CANCELLED, text="cancelled before it began"))
    made = make_images(connection, pool, [place.image for place in places if place not in running], node)
    share = (bandwidth_mib_s << 20) // len(places)  # bytes per second
    parameters = {libvirt.VIR_DOMAIN_BLOCK_COPY_BANDWIDTH: share} if share else {}
    try:
        for copy in made:
            domain.blockCopy(copy.disk, mirror_xml(copy), parameters, _COPY_FLAGS)
    except libvirt.libvirtError:
        end(connection, vm, made)
        raise
    for copy in running:
        with contextlib.suppress(libvirt.libvirtError):  # it has ended meanwhile, which is seen next
            domain.blockJobSetSpeed(copy.disk, share, libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES)
    return (*running, *made)


def _mirrors(domain: libvirt.virDomain) -> dict[str, str]:
    """Where disks are copied to now, by their targets. Source: libvirt formatdomain.html, <mirror>."""
    found: dict[str, str] = {}
    for disk in disks_of(domain.XMLDesc(0)):
        target, mirror = disk.find("target"), disk.find("mirror")
        if target is not None and mirror is not None:
            found[target.get("dev", "")] = mirror.get("file", "") if mirror.get("job") == "copy" else ""
    return found


def standing(connection: libvirt.virConnect, vm: VmId, copies: Sequence[Copy]) -> Standing:
    """How far they are. libvirt's figures reach their end a little before a copy is really ready.

    Source: libvirt virDomainGetBlockJobInfo, formatdomain.html <mirror ready>.
    """
    domain = lookup(connection, vm)
    ready = {
        target.get("dev", "")
        for disk in disks_of(domain.XMLDesc(0))
        if (target := disk.find("target")) is not None
        and (mirror := disk.find("mirror")) is not None
        and mirror.get("ready") == "yes"
    }
    done = total = 0
    gone: list[str] = []
    for copy in copies:
        job = domain.blockJobInfo(copy.disk) or {}
        if job.get("type") != libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY:
            gone.append(copy.disk)
        done += job.get("cur", 0)
        total += job.get("end", 0)
    return Standing(
        done_bytes=done, total_bytes=total, ready=ready >= {copy.disk for copy in copies}, gone=tuple(gone)
    )


def switch(connection: libvirt.virConnect, vm: VmId, copies: Sequence[Copy]) -> None:
    """Let the VM go on with the copies, one after the other; the old images stay as they are.

    Its stored definition follows. Source: libvirt virDomainBlockJobAbort with PIVOT.

    Raises:
        OperationError: it says which disks were switched before; the others are still where they were.
    """
    domain = lookup(connection, vm)
    switched: list[str] = []
    for copy in copies:
        try:
            domain.blockJobAbort(copy.disk, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        except libvirt.libvirtError as error:
            text = error.get_error_message() or str(error)
            if switched:
                text = f"{', '.join(switched)} switched, {copy.disk} not: {text}"
            failure = failure_of(error)
            raise OperationError(
                Failure(code=failure.code, text=cleaned(text), vm=vm, detail=failure.detail)
            ) from None
        switched.append(copy.disk)


def end(connection: libvirt.virConnect, vm: VmId, copies: Sequence[Copy]) -> tuple[str, ...]:
    """Give copies up and delete them; returns the paths of those that had to be left.

    One to which the VM was switched is its disk now and stays, as does one that is still being written.
    """
    written: set[str] = set()
    try:
        domain = lookup(connection, vm)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    else:
        for copy in copies:
            # An error: the copy has ended by itself, or the VM has. What is true now is seen below.
            with contextlib.suppress(libvirt.libvirtError):
                domain.blockJobAbort(copy.disk, 0)
        written = set(_mirrors(domain).values())
    left: list[str] = []
    for copy in copies:
        if copy.path in written or uses_any(connection, vm, [copy]):
            left.append(copy.path)
        else:
            left += remove_images(connection, [copy])
    return tuple(left)

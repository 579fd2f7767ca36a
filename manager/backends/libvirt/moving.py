"""Live migration: the move, tuning it, its abort, whether a node can log in to another. Lane threads only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import libvirt
from lxml import etree

from manager.backends.libvirt import uris
from manager.backends.libvirt.errors import (
    cleaned,
    failure_of,
    is_connection_trouble,
    numbers_of,
    refused_command,
)
from manager.backends.libvirt.jobs import figures_of, job_figures
from manager.backends.libvirt.lane import Opener, drop
from manager.backends.libvirt.offline import refuse_checkpoints
from manager.backends.libvirt.reading import lookup
from manager.backends.libvirt.storage import Copy, relocated_xml
from manager.backends.libvirt.xml_text import root_of
from manager.core.effects import StartMigration
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import NodeId, VmId

_NOT_TO_LOGIN = frozenset(
    {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE}
)

NO_CAP_MIB_S = (2**63 - 1) >> 20
"""The highest bandwidth, which a VM has that was never given one. Source: QEMU_DOMAIN_MIG_BANDWIDTH_MAX."""
_THROTTLE_STEP_PERCENT = 10
"""How much more auto-converge slows the guest each time. Source: QEMU, cpu-throttle-increment."""


class Contact(Enum):
    """Whether a move that failed had reached the target at the address that was tried."""

    MADE = "made"
    FAILED = "failed"  # nothing was sent
    UNTOLD = "untold"  # the error is the same for both


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One live migration as libvirt needs it."""

    vm: VmId
    source: NodeId
    target: NodeId
    flags: int
    parameters: Mapping[str, Any]
    is_cancelled: Callable[[], bool]  # asked once more just before it starts
    copies: tuple[Copy, ...] = ()  # of disks that go along

    @property
    def is_encrypted(self) -> bool:
        """Whether the memory goes through TLS."""
        return bool(self.flags & libvirt.VIR_MIGRATE_TLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveEnd:
    """How a move ended: well, without a failure."""

    failure: Failure | None = None
    contact: Contact = Contact.MADE


def refusal_of(effect: StartMigration) -> str:
    """Why a move must not be tried with these wishes together; empty if it may.

    With both, the guest dies when the second half begins, and libvirt reports success. Source: seen with
    QEMU 7.2 (an assertion in the target's process, yank_unregister_instance) and libvirt 9.0.
    """
    if effect.convergence.post_copy and effect.parallel_connections > 1:
        return "post-copy and several connections do not go together: the guest would be lost"
    return ""


def move_of(
    effect: StartMigration,
    *,
    peer: bool,
    address: str,
    post_copy: bool,
    copies: tuple[Copy, ...],
    is_cancelled: Callable[[], bool],
) -> Move:
    """Flags and parameters of a move to one address (empty: as the target says itself).

    ABORT_ON_ERROR: a guest that stops on a disk error during the move stays where its disk can be looked
    after. Source: libvirt virDomainMigrateFlags, VIR_MIGRATE_PARAM_*.
    """
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    parameters: dict[str, Any] = {}
    if peer:
        flags |= libvirt.VIR_MIGRATE_PEER2PEER
    if effect.unsafe:
        flags |= libvirt.VIR_MIGRATE_UNSAFE
    if effect.convergence.auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
        parameters[libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL] = (
            effect.convergence.auto_converge_initial_percent
        )
        parameters[libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT] = _THROTTLE_STEP_PERCENT
    if post_copy:
        flags |= libvirt.VIR_MIGRATE_POSTCOPY
    if effect.encrypt:
        flags |= libvirt.VIR_MIGRATE_TLS
    if effect.parallel_connections > 1:
        flags |= libvirt.VIR_MIGRATE_PARALLEL
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = effect.parallel_connections
    if effect.bandwidth_mib_s > 0:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = effect.bandwidth_mib_s
    if address:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = uris.migration_uri(address)
    if copies:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = [copy.disk for copy in copies]
    return Move(
        vm=effect.vm,
        source=effect.node,
        target=effect.target,
        flags=flags,
        parameters=parameters,
        is_cancelled=is_cancelled,
        copies=copies,
    )


def move_to_peer(connection: libvirt.virConnect, move: Move, peer_uri: str) -> MoveEnd:
    """The source's daemon moves the VM, even if this program ends. Source: virDomainMigrateToURI3."""

    def run(domain: libvirt.virDomain, parameters: Mapping[str, Any], flags: int) -> None:
        domain.migrateToURI3(peer_uri, dict(parameters), flags)

    return _move(connection, move, run, peer_uri)


def move_through_us(connection: libvirt.virConnect, move: Move, open_target: Opener) -> MoveEnd:
    """This program holds both connections; the memory goes from node to node. Source: virDomainMigrate3."""
    held: list[libvirt.virConnect] = []

    def run(domain: libvirt.virDomain, parameters: Mapping[str, Any], flags: int) -> None:
        domain.migrate3(held[0], dict(parameters), flags)

    try:
        try:
            held.append(open_target())
        except libvirt.libvirtError as error:
            raise OperationError(failure_of(error, node=move.target, vm=move.vm)) from None
        return _move(connection, move, run, None)
    finally:
        drop(held)


def _move(
    connection: libvirt.virConnect,
    move: Move,
    run: Callable[[libvirt.virDomain, Mapping[str, Any], int], None],
    peer_uri: str | None,
) -> MoveEnd:
    domain = lookup(connection, move.vm)
    refuse_checkpoints(domain)
    flags, parameters = move.flags, dict(move.parameters)
    if is_persistent := bool(domain.isPersistent()):
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    parameters |= _definitions(domain, move, is_persistent=is_persistent)
    if libvirt.VIR_MIGRATE_PARAM_BANDWIDTH not in parameters and _is_capped(domain):
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = NO_CAP_MIB_S
    if move.is_cancelled():
        raise OperationError(
            Failure(code=FailureCode.CANCELLED, text="cancelled before it began", vm=move.vm)
        )
    try:
        run(domain, parameters, flags)
    except libvirt.libvirtError as error:
        return _ended(error, connection, domain, move, peer_uri)
    return MoveEnd()


def _definitions(domain: libvirt.virDomain, move: Move, *, is_persistent: bool) -> dict[str, str]:
    """The VM's definitions for a target where a disk has another path; none if all have their own.

    Source: libvirt VIR_MIGRATE_PARAM_DEST_XML, VIR_MIGRATE_PARAM_PERSIST_XML.
    """
    moved = [copy for copy in move.copies if copy.path != copy.image.source]
    if not moved:
        return {}
    flags = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
    wanted = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: flags}
    if is_persistent:
        wanted[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = flags | libvirt.VIR_DOMAIN_XML_INACTIVE
    try:
        return {name: relocated_xml(domain.XMLDesc(flags), moved) for name, flags in wanted.items()}
    except ValueError as error:
        text = f"the VM's definition cannot be read: {error}"
        raise OperationError(Failure(code=FailureCode.OTHER, text=text, vm=move.vm)) from None


def _is_capped(domain: libvirt.virDomain) -> bool:
    """Whether somebody, or a move that ended while it copied disks, left the VM a cap: it would hold here."""
    try:
        return bool(domain.migrateGetMaxSpeed(0) < NO_CAP_MIB_S)
    except libvirt.libvirtError:
        return False  # a driver without caps


def _ended(
    error: libvirt.libvirtError,
    connection: libvirt.virConnect,
    domain: libvirt.virDomain,
    move: Move,
    peer_uri: str | None,
) -> MoveEnd:
    """Why a move failed. The same error can be the source's or the target's: who still answers tells."""
    code, error_domain, _ = numbers_of(error)
    at_target = functools.partial(failure_of, error, node=move.target, vm=move.vm)
    if is_connection_trouble(error):
        if not connection.isAlive():
            return MoveEnd(failure=failure_of(error, FailureCode.UNREACHABLE, node=move.source, vm=move.vm))
        # A target that was never reached is a system error; one that was lost on the way an internal one.
        if code != libvirt.VIR_ERR_SYSTEM_ERROR:
            return MoveEnd(failure=at_target(FailureCode.UNREACHABLE))
        if peer_uri is not None and not _can_log_in(connection, move, peer_uri):
            return MoveEnd(failure=at_target(FailureCode.PEER_LOGIN))
        return MoveEnd(failure=at_target(FailureCode.UNREACHABLE), contact=Contact.FAILED)
    if code in _NOT_TO_LOGIN:
        return MoveEnd(failure=at_target(FailureCode.PEER_LOGIN))
    if (code, error_domain) == (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_DOMAIN):
        # "is not running" and "already exists on the target" have the same numbers.
        if _is_active(domain):
            return MoveEnd(failure=at_target(FailureCode.CONFLICT))
        return MoveEnd(failure=failure_of(error, FailureCode.WRONG_STATE, node=move.source, vm=move.vm))
    if (code, error_domain) == (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_QEMU):
        failure = failure_of(error, node=move.source, vm=move.vm)
        return MoveEnd(failure=failure, contact=Contact.UNTOLD)
    refused = refused_command(error)
    if refused == "blockdev-add" and move.copies:  # the source's QEMU, to the target's disk server
        return MoveEnd(failure=at_target(FailureCode.UNREACHABLE), contact=Contact.FAILED)
    if refused == "object-add" and move.is_encrypted:
        text = cleaned(f"no certificates to encrypt the move with: {error.get_error_message()}")
        failure = failure_of(error, FailureCode.INCOMPATIBLE, node=move.source, vm=move.vm)
        return MoveEnd(failure=replace(failure, text=text))
    return MoveEnd(failure=failure_of(error, node=move.source, vm=move.vm))


def never_began(end: MoveEnd, move: Move) -> MoveEnd:
    """The end of a move of which no host has said that anything was sent."""
    if end.failure is None or end.contact is not Contact.UNTOLD:
        return end
    if (
        move.flags & libvirt.VIR_MIGRATE_PARALLEL
    ):  # QEMU itself connects, and says no more than that it failed
        failure = replace(end.failure, code=FailureCode.UNREACHABLE, node=move.target)
        return MoveEnd(failure=failure, contact=Contact.FAILED)
    if move.is_encrypted:  # connected, and then one did not accept the other's certificate
        return MoveEnd(failure=replace(end.failure, code=FailureCode.INCOMPATIBLE, node=move.target))
    return end


def _can_log_in(connection: libvirt.virConnect, move: Move, peer_uri: str) -> bool:
    """Whether it was the way for the memory that failed, and not the login, which has the same error."""
    try:
        check_peer(connection, move.vm, peer_uri, move.target)
    except (OperationError, libvirt.libvirtError):
        return False
    return True


def _is_active(domain: libvirt.virDomain) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError:
        return False


def tune(
    connection: libvirt.virConnect,
    vm: VmId,
    *,
    pause_ms: int | None,
    bandwidth_mib_s: int | None,
    post_copy: bool,
) -> bool:
    """Change a running move; False if the VM has none (any more, or not yet).

    Source: libvirt virDomainMigrateSetMaxDowntime, ...SetMaxSpeed, ...StartPostCopy.
    """
    domain = lookup(connection, vm)
    stats: dict[str, Any] = domain.jobStats() if domain.isActive() else {}
    if figures_of(stats) is None or stats.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
        return False
    if pause_ms is not None:
        domain.migrateSetMaxDowntime(pause_ms, 0)
    if bandwidth_mib_s is not None:
        domain.migrateSetMaxSpeed(bandwidth_mib_s or NO_CAP_MIB_S, 0)
    if post_copy:
        try:
            domain.migrateStartPostCopy(0)
        except libvirt.libvirtError as error:
            if refused_command(error) != "migrate-start-postcopy":
                raise
            raise OperationError(failure_of(error, FailureCode.WRONG_STATE)) from None  # too early
    return True


_NEVER_OURS = frozenset(
    {
        libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP,
        libvirt.VIR_DOMAIN_JOB_OPERATION_DUMP,
        libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT,
        libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT,
        libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN,  # the source's to end
    }
)
"""Jobs that a late cancel must not hit."""


def abort(connection: libvirt.virConnect, vm: VmId) -> bool:
    """Ask for the end of the VM's job; False if it has none of ours (any more, or not yet).

    Source: libvirt virDomainAbortJob.
    """
    for is_last in (False, True):
        try:
            domain = lookup(connection, vm)
            stats = domain.jobStats()
            if figures_of(stats) is not None and stats.get("operation") in _NEVER_OURS:
                return False
            domain.abortJob()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or is_last:
                raise  # among others: a job that cannot be cancelled any more
            if job_figures(connection, vm) is None:
                return False
        else:
            return True
    raise AssertionError("unreachable")


_NOBODY = ("muster-peer-check", "00000000-0000-4000-8000-000000000001")
_IMPOSSIBLE_URI = "muster-peer-check://none"


def _impossible_xml(domain: libvirt.virDomain) -> str:
    """A definition that no move of this VM accepts: same kind of machine, another name and UUID.

    The machine is said because a daemon that was restarted under a running VM no longer knows the default one
    (its status file keeps the emulator's features, not its machines).
    """
    theirs = root_of(domain.XMLDesc(0))
    nobody = etree.Element("domain", type=theirs.get("type", "kvm"))
    for tag, text in zip(("name", "uuid"), _NOBODY, strict=True):
        etree.SubElement(nobody, tag).text = text
    etree.SubElement(nobody, "memory").text = "1"
    kind = theirs.find("os/type")
    system = etree.SubElement(nobody, "os")
    element = etree.SubElement(system, "type")
    element.text = "hvm"
    for name, value in kind.items() if kind is not None else ():
        element.set(name, value)
    return etree.tostring(nobody, encoding="unicode")


def check_peer(connection: libvirt.virConnect, vm: VmId, peer_uri: str, target: NodeId) -> None:
    """Find out whether this host's daemon can log in to another's, with a move that cannot happen.

    libvirt opens the connection to the target first and only then compares the definition that the target is
    to use with the VM's own: ours has another name and UUID, and is refused before anything is touched. The
    migration URI, of which no host knows the scheme, is a second bolt on the same door. Measured: 7 ms, the
    guest untouched. Source: libvirt src/qemu/qemu_migration.c, qemuMigrationSrcPerformPeer2Peer,
    qemuMigrationSrcBeginPhase.

    Raises:
        OperationError: PEER_LOGIN with the daemon's own words; another code if the question could not be
        asked.
    """
    domain = lookup(connection, vm)
    flags = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNSAFE
    if domain.isActive():
        flags |= libvirt.VIR_MIGRATE_LIVE
    else:
        flags |= libvirt.VIR_MIGRATE_OFFLINE | libvirt.VIR_MIGRATE_PERSIST_DEST
    try:
        impossible_xml = _impossible_xml(domain)
    except ValueError as error:
        text = f"the VM's definition cannot be read: {error}"
        raise OperationError(Failure(code=FailureCode.OTHER, text=text, vm=vm)) from None
    parameters = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: impossible_xml,
        libvirt.VIR_MIGRATE_PARAM_URI: _IMPOSSIBLE_URI,
    }
    try:
        domain.migrateToURI3(peer_uri, parameters, flags)
    except libvirt.libvirtError as error:
        code, error_domain, _ = numbers_of(error)
        if (code, error_domain) == (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_FROM_DOMAIN):
            return  # refused by comparing: the connection stood
        refused = code in _NOT_TO_LOGIN or code == libvirt.VIR_ERR_NO_CONNECT
        if refused or (is_connection_trouble(error) and connection.isAlive()):
            raise OperationError(failure_of(error, FailureCode.PEER_LOGIN, node=target, vm=vm)) from None
        raise

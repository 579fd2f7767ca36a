"""Live migration: the move, its abort, and whether a node can log in to another. Lane threads only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import libvirt
from lxml import etree

from manager.backends.libvirt.errors import failure_of, is_connection_trouble, numbers_of
from manager.backends.libvirt.lane import Opener, drop
from manager.backends.libvirt.reading import job_figures, lookup
from manager.backends.libvirt.xml_text import root_of
from manager.core.effects import StartMigration
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import NodeId, VmId

_NOT_TO_LOGIN = frozenset(
    {libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One live migration as libvirt needs it."""

    vm: VmId
    source: NodeId
    target: NodeId
    flags: int
    parameters: dict[str, Any]
    is_cancelled: Callable[[], bool]  # asked once more just before it starts


def move_of(
    effect: StartMigration, *, peer: bool, migration_uri: str | None, is_cancelled: Callable[[], bool]
) -> Move:
    """Flags and parameters of a move.

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
    if effect.bandwidth_mib_s > 0:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = effect.bandwidth_mib_s
    if migration_uri is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = migration_uri
    return Move(
        vm=effect.vm,
        source=effect.node,
        target=effect.target,
        flags=flags,
        parameters=parameters,
        is_cancelled=is_cancelled,
    )


def move_to_peer(connection: libvirt.virConnect, move: Move, peer_uri: str) -> None:
    """The source's daemon moves the VM, even if this program ends. Source: virDomainMigrateToURI3."""

    def run(domain: libvirt.virDomain, flags: int) -> None:
        domain.migrateToURI3(peer_uri, move.parameters, flags)

    _move(connection, move, run)


def move_through_us(connection: libvirt.virConnect, move: Move, open_target: Opener) -> None:
    """This program holds both connections; the memory goes from node to node. Source: virDomainMigrate3."""
    held = []
    try:
        try:
            held.append(open_target())
        except libvirt.libvirtError as error:
            raise OperationError(failure_of(error, node=move.target, vm=move.vm)) from None
        _move(
            connection, move, lambda domain, flags: domain.migrate3(held[0], move.parameters, flags) and None
        )
    finally:
        drop(held)


def _move(connection: libvirt.virConnect, move: Move, run: Callable[[libvirt.virDomain, int], None]) -> None:
    domain = lookup(connection, move.vm)
    flags = move.flags
    if domain.isPersistent():
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    if move.is_cancelled():
        raise OperationError(
            Failure(code=FailureCode.CANCELLED, text="cancelled before it began", vm=move.vm)
        )
    try:
        run(domain, flags)
    except libvirt.libvirtError as error:
        raise OperationError(_failure(error, connection, domain, move)) from None


def _failure(
    error: libvirt.libvirtError, connection: libvirt.virConnect, domain: libvirt.virDomain, move: Move
) -> Failure:
    """Why a move failed. The same error can be the source's or the target's: who still answers tells."""
    code, error_domain, _ = numbers_of(error)
    if is_connection_trouble(error):
        if not connection.isAlive():
            return failure_of(error, FailureCode.UNREACHABLE, node=move.source, vm=move.vm)
        # A target that was never reached is a system error; one that was lost on the way an internal one.
        never = code == libvirt.VIR_ERR_SYSTEM_ERROR
        return failure_of(
            error, FailureCode.PEER_LOGIN if never else FailureCode.UNREACHABLE, node=move.target, vm=move.vm
        )
    if code in _NOT_TO_LOGIN:
        return failure_of(error, FailureCode.PEER_LOGIN, node=move.target, vm=move.vm)
    if (code, error_domain) == (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_DOMAIN):
        # "is not running" and "already exists on the target" have the same numbers.
        ours = FailureCode.CONFLICT if _is_active(domain) else FailureCode.WRONG_STATE
        node = move.target if ours is FailureCode.CONFLICT else move.source
        return failure_of(error, ours, node=node, vm=move.vm)
    return failure_of(error, node=move.source, vm=move.vm)


def _is_active(domain: libvirt.virDomain) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError:
        return False


def abort(connection: libvirt.virConnect, vm: VmId) -> bool:
    """Ask for the end of the VM's job; False if it has none (any more, or not yet).

    Source: libvirt virDomainAbortJob.
    """
    for is_last in (False, True):
        try:
            lookup(connection, vm).abortJob()
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
    etree.SubElement(system, "type", dict(kind.attrib) if kind is not None else {}).text = "hvm"
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
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_UNSAFE
    domain = lookup(connection, vm)
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

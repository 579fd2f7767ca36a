"""A VM that changes its node while it is off: its memory in a file, its definition. Lane threads only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import libvirt

from manager.backends.libvirt.errors import failure_of, is_connection_trouble, numbers_of
from manager.backends.libvirt.lane import Opener, drop
from manager.backends.libvirt.reading import checkpoints, lookup
from manager.backends.libvirt.storage import delete_file, find_file, in_folder
from manager.backends.libvirt.xml_text import root_of
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import NodeId, VmId
from manager.core.placement.planner import is_below

log = logging.getLogger(__name__)

_KEEPS = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM
"""The VM's files stay; with snapshots the host refuses."""


def stays_behind(xml: str, shared_paths: tuple[str, ...]) -> tuple[str, ...]:
    """State of a VM beside its disks that only a live migration carries, and that the nodes do not share.

    Source: libvirt migration.rst (offline migration copies no files), formatdomain.html <nvram>, <tpm>.
    """
    try:
        root = root_of(xml)
    except ValueError:
        return ()
    found: list[str] = []
    nvram = root.find("os/nvram")
    if nvram is not None:
        source = nvram.find("source")
        path = (nvram.text or "").strip() or ("" if source is None else source.get("file", ""))
        if path and not is_below(path, shared_paths):
            found.append(f"its UEFI variables in {path}")
    if any(backend.get("type") == "emulator" for backend in root.findall("devices/tpm/backend")):
        found.append("its TPM")
    return tuple(found)


def refuse_checkpoints(domain: libvirt.virDomain) -> None:
    """No kind of move carries checkpoints, and libvirt does not refuse any. Source: seen with libvirt 9.0.

    Raises:
        OperationError: UNSAFE if the VM has some. No event tells that: what was read of it may be older.
    """
    if count := checkpoints(domain):
        text = f"it has {count} checkpoint(s), which would be lost"
        raise OperationError(Failure(code=FailureCode.UNSAFE, text=text))


def _refuse_what_stays_behind(domain: libvirt.virDomain, shared_paths: tuple[str, ...]) -> None:
    refuse_checkpoints(domain)
    if lost := stays_behind(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), shared_paths):
        text = f"{' and '.join(lost)} would stay behind: only a live migration carries that"
        raise OperationError(Failure(code=FailureCode.UNSAFE, text=text))


# --- memory in a file ---


def save(
    connection: libvirt.virConnect,
    vm: VmId,
    path: str,
    shared_paths: tuple[str, ...],
    is_cancelled: Callable[[], bool],
) -> None:
    """Save a running VM's memory to a file on shared storage; it is off then. Source: virDomainSaveFlags.

    What an earlier attempt left in that file is written over; anybody else's file is not.

    Raises:
        OperationError: WRONG_STATE, UNSAFE, CONFLICT, and what libvirt says.
    """
    domain = lookup(connection, vm)
    if not domain.isActive():
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text="it does not run"))
    if not domain.isPersistent():
        text = "it has no stored definition: once it is off it is gone"
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text=text))
    _refuse_what_stays_behind(domain, shared_paths)

    def make_way(pool: libvirt.virStoragePool) -> None:
        old = find_file(pool, path)
        if old is None:
            return
        if not _is_of(connection, path, vm):
            text = f"the file {path} is there already, and is not this VM's"
            raise OperationError(Failure(code=FailureCode.CONFLICT, text=text))
        old.delete(0)

    in_folder(connection, str(PurePosixPath(path).parent), make_way)
    if is_cancelled():
        raise OperationError(Failure(code=FailureCode.CANCELLED, text="cancelled before it began"))
    domain.saveFlags(path, None, 0)


def _is_of(connection: libvirt.virConnect, path: str, vm: VmId) -> bool:
    """Whether a file is a VM's saved memory: by what it says, or by its name if it was never finished."""
    saved = _saved_vm(connection, path)
    return saved == vm if saved else vm in PurePosixPath(path).name


def _saved_vm(connection: libvirt.virConnect, path: str) -> str:
    """Whose memory is in a file; empty if it cannot be read. Source: libvirt virDomainSaveImageGetXMLDesc."""
    try:
        return root_of(connection.saveImageGetXMLDesc(path)).findtext("uuid") or ""
    except (libvirt.libvirtError, ValueError):
        return ""


def restore(connection: libvirt.virConnect, vm: VmId, path: str) -> None:
    """Let a VM that is defined here, and off, run on from a file; then the file is deleted.

    Source: libvirt virDomainRestoreFlags.

    Raises:
        OperationError: NOT_FOUND, WRONG_STATE if it runs, CONFLICT for another VM's file, and what libvirt
            says. The file is kept then.
    """
    domain = lookup(connection, vm)
    if domain.isActive():
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text="it runs already"))
    if (saved := _saved_vm(connection, path)) not in ("", vm):
        text = f"the file {path} has the memory of another VM, {saved}"
        raise OperationError(Failure(code=FailureCode.CONFLICT, text=text))
    connection.restoreFlags(path, None, 0)
    try:
        delete_file(connection, path)
    except libvirt.libvirtError as error:
        log.warning("VM %s runs again; the file %s could not be deleted: %s", vm, path, error)


# --- the definition ---


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionCopy:
    """What is to be defined where."""

    vm: VmId
    target: NodeId
    shared_paths: tuple[str, ...]


def copy_to_peer(connection: libvirt.virConnect, copy: DefinitionCopy, peer_uri: str) -> None:
    """The host's daemon defines it on another one. Source: libvirt virDomainMigrateToURI3."""
    flags = libvirt.VIR_MIGRATE_OFFLINE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_PEER2PEER
    _copy(connection, copy, lambda domain: domain.migrateToURI3(peer_uri, {}, flags) and None)


def copy_through_us(connection: libvirt.virConnect, copy: DefinitionCopy, open_target: Opener) -> None:
    """This program holds both connections. Source: libvirt virDomainMigrate3."""
    flags = libvirt.VIR_MIGRATE_OFFLINE | libvirt.VIR_MIGRATE_PERSIST_DEST
    held: list[libvirt.virConnect] = []
    try:
        try:
            held.append(open_target())
        except libvirt.libvirtError as error:
            raise OperationError(failure_of(error, node=copy.target)) from None
        _copy(connection, copy, lambda domain: domain.migrate3(held[0], {}, flags) and None)
    finally:
        drop(held)


def _copy(
    connection: libvirt.virConnect, copy: DefinitionCopy, run: Callable[[libvirt.virDomain], None]
) -> None:
    domain = lookup(connection, copy.vm)
    if domain.isActive():  # libvirt would define it there all the same
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text="it runs here"))
    if domain.hasManagedSaveImage(0):
        text = "it is saved here, and its memory would stay behind"
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text=text))
    _refuse_what_stays_behind(domain, copy.shared_paths)
    try:
        run(domain)
    except libvirt.libvirtError as error:
        code, error_domain, _ = numbers_of(error)
        if is_connection_trouble(error) and connection.isAlive():
            never = code == libvirt.VIR_ERR_SYSTEM_ERROR
            ours = FailureCode.PEER_LOGIN if never else FailureCode.UNREACHABLE
            raise OperationError(failure_of(error, ours, node=copy.target)) from None
        if error_domain == libvirt.VIR_FROM_DOMAIN and code in (
            libvirt.VIR_ERR_OPERATION_FAILED,  # its name or UUID is another VM's there
            libvirt.VIR_ERR_OPERATION_INVALID,  # it runs there
        ):
            raise OperationError(failure_of(error, FailureCode.CONFLICT, node=copy.target)) from None
        raise


def forget(connection: libvirt.virConnect, vm: VmId) -> None:
    """Undefine a VM that is off here; its disks and other files stay. Source: libvirt virDomainUndefineFlags.

    Raises:
        OperationError: WRONG_STATE if it runs or is saved here, UNSAFE if it has checkpoints: libvirt drops
            them with it, unasked. Source: seen with libvirt 9.0.
    """
    domain = lookup(connection, vm)
    if domain.isActive():
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text="it runs here"))
    if domain.hasManagedSaveImage(0):
        text = "it is saved here, and its memory would be lost"
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text=text))
    refuse_checkpoints(domain)
    domain.undefineFlags(_KEEPS)

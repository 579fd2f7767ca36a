"""libvirt's errors as ours: by code, domain and errno, never by the text, which is only shown."""

from __future__ import annotations

import errno
import re

import libvirt

from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, VmId

MAX_TEXT = 500
_RPC_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})
_CONNECTION_CODES = frozenset(
    {libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_RPC}
)
_HUNG_UP = frozenset({-1, errno.ECONNRESET, errno.EPIPE, errno.EIO})  # EIO: TLS, by a host that refuses us

_QEMU_COMMAND = re.compile(r"'([a-z]+(?:-[a-z]+)+)':")
"""Source: libvirt qemuMonitorJSONCheckErrorFull, QEMU's QMP reference."""

_C = FailureCode
BY_CODE: dict[int, FailureCode] = {
    libvirt.VIR_ERR_NO_MEMORY: _C.NO_RESOURCES,
    libvirt.VIR_ERR_NO_SUPPORT: _C.NOT_SUPPORTED,
    libvirt.VIR_ERR_UNKNOWN_HOST: _C.UNREACHABLE,
    libvirt.VIR_ERR_NO_CONNECT: _C.INCOMPATIBLE,
    libvirt.VIR_ERR_INVALID_CONN: _C.UNREACHABLE,
    libvirt.VIR_ERR_DOM_EXIST: _C.CONFLICT,
    libvirt.VIR_ERR_OPERATION_DENIED: _C.DENIED,
    libvirt.VIR_ERR_GNUTLS_ERROR: _C.LOGIN,
    libvirt.VIR_ERR_NO_DOMAIN: _C.NOT_FOUND,
    libvirt.VIR_ERR_NO_NETWORK: _C.NETWORK,
    libvirt.VIR_ERR_AUTH_FAILED: _C.LOGIN,
    libvirt.VIR_ERR_NO_STORAGE_POOL: _C.STORAGE,
    libvirt.VIR_ERR_NO_STORAGE_VOL: _C.STORAGE,
    libvirt.VIR_ERR_OPERATION_INVALID: _C.WRONG_STATE,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: _C.NOT_SUPPORTED,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: _C.BUSY,  # waited 30 s for the VM's state change lock
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: _C.NOT_SUPPORTED,
    libvirt.VIR_ERR_OPERATION_ABORTED: _C.CANCELLED,
    libvirt.VIR_ERR_AUTH_CANCELLED: _C.LOGIN,
    libvirt.VIR_ERR_MIGRATE_UNSAFE: _C.UNSAFE,
    libvirt.VIR_ERR_BLOCK_COPY_ACTIVE: _C.BUSY,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: _C.NOT_SUPPORTED,
    libvirt.VIR_ERR_SSH: _C.LOGIN,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: _C.NO_AGENT,
    libvirt.VIR_ERR_RESOURCE_BUSY: _C.BUSY,
    libvirt.VIR_ERR_ACCESS_DENIED: _C.DENIED,
    libvirt.VIR_ERR_CPU_INCOMPATIBLE: _C.INCOMPATIBLE,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: _C.LOGIN,
    libvirt.VIR_ERR_AGENT_UNSYNCED: _C.NO_AGENT,
    libvirt.VIR_ERR_LIBSSH: _C.LOGIN,
}
"""What a code means whoever raised it. Source: libvirt virErrorNumber."""

BY_ERRNO: dict[int, FailureCode] = {
    errno.ENOMEM: _C.NO_RESOURCES,
    errno.ENOSPC: _C.NO_RESOURCES,
    errno.EDQUOT: _C.NO_RESOURCES,
    errno.ENOENT: _C.STORAGE,
    errno.EIO: _C.STORAGE,
    errno.ENODEV: _C.NETWORK,  # a bridge that is not there
    errno.EACCES: _C.DENIED,
    errno.EPERM: _C.DENIED,
}
"""What a system error that the host itself met means, by its errno (`int1`)."""


def cleaned(text: str) -> str:
    """A host's words for people: no control characters, one line, of bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def numbers_of(error: libvirt.libvirtError) -> tuple[int, int, int]:
    """(code, domain, errno or -1) of an error."""
    details = error.err
    if details is None:
        return (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_NONE, -1)
    return (details[0], details[1], details[7] if len(details) > 7 else -1)


def is_connection_trouble(error: libvirt.libvirtError) -> bool:
    """Whether the error is of the connection itself: lost, refused, or never made."""
    code, domain, _ = numbers_of(error)
    return code == libvirt.VIR_ERR_INVALID_CONN or (domain in _RPC_DOMAINS and code in _CONNECTION_CODES)


def code_of(error: libvirt.libvirtError) -> FailureCode:
    """Our code for an error of a call on an open connection."""
    code, _, number = numbers_of(error)
    if is_connection_trouble(error):
        return FailureCode.UNREACHABLE
    if code == libvirt.VIR_ERR_SYSTEM_ERROR:
        return BY_ERRNO.get(number, FailureCode.OTHER)
    return BY_CODE.get(code, FailureCode.OTHER)


def connect_code_of(error: libvirt.libvirtError, *, over_tls: bool = False) -> FailureCode:
    """Our code for an error of opening a connection: LOGIN, UNREACHABLE or INCOMPATIBLE."""
    code, _, number = numbers_of(error)
    if is_connection_trouble(error):
        refused = number in (errno.EACCES, errno.EPERM)  # a unix socket that is not ours to open
        refused = refused or (over_tls and number == errno.ENOENT)  # a certificate of ours that is not there
        return FailureCode.LOGIN if refused else FailureCode.UNREACHABLE
    found = BY_CODE.get(code, FailureCode.INCOMPATIBLE)
    if found is FailureCode.DENIED:
        return FailureCode.LOGIN
    return found if found in (FailureCode.LOGIN, FailureCode.UNREACHABLE) else FailureCode.INCOMPATIBLE


def refused_command(error: libvirt.libvirtError) -> str:
    """The command of QEMU's that it refused, such as ``blockdev-add``; empty for any other error.

    The one thing taken from a text: libvirt gives such errors no number of their own. The command's name is
    the protocol's, in no language.
    """
    if numbers_of(error)[:2] != (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU):
        return ""
    found = _QEMU_COMMAND.search(error.get_error_message() or "")
    return found[1] if found else ""


def may_be_refusal(error: libvirt.libvirtError) -> bool:
    """Whether a failed connection may as well be a refused login, which only a look at the host's port tells.

    ssh reports both through a closed pipe, and a certificate that is not accepted has no code of its own.
    """
    return is_connection_trouble(error) and numbers_of(error)[2] in _HUNG_UP


def failure_of(
    error: libvirt.libvirtError,
    code: FailureCode | None = None,
    *,
    node: NodeId | None = None,
    vm: VmId | None = None,
) -> Failure:
    """An error as a value. `code` overrides the tables where the caller knows better."""
    number, domain, _ = numbers_of(error)
    return Failure(
        code=code or code_of(error),
        text=cleaned(error.get_error_message() or str(error)),
        node=node,
        vm=vm,
        detail=f"libvirt error {number}, domain {domain}",
    )

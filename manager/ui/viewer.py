"""The desktop's own viewer of a VM's screen: which program, with which arguments. Never through a shell."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from manager.core.ids import VmId
from manager.core.model import Display

PROGRAM = "virt-viewer"
"""It reaches every display: libvirt tells it where, and its connection carries the picture."""

SECOND = "remote-viewer"
"""It is given an address, and goes there by itself."""


def viewer_command(uri: str, vm: VmId, displays: Iterable[Display] = ()) -> list[str] | None:
    """The command that shows a VM's screen; None if there is no program here that can.

    On this computer's own daemon it is given the display's socket, and no network is needed.
    Source: virt-viewer(1), remote-viewer(1).
    """
    if program := shutil.which(PROGRAM):
        parts = urlsplit(uri)
        attach = ["--attach"] if _is_local(uri) and parts.scheme.partition("+")[2] in ("", "unix") else []
        return [program, f"--connect={uri}", *attach, "--wait", "--", str(vm)]
    if program := shutil.which(SECOND):
        found = next(filter(None, (_address(uri, display) for display in displays)), None)
        return [program, "--", found] if found else None
    return None


def trouble(uri: str, displays: Iterable[Display]) -> str:
    """Why there is no such command; empty if there is one."""
    if viewer_command(uri, VmId(""), displays) is not None:
        return ""
    if shutil.which(SECOND) is None:
        return f"Neither {PROGRAM} nor {SECOND} is installed on this computer."
    return (
        f"The display listens for its own node alone, where {SECOND} cannot reach it. "
        f"{PROGRAM} could: it is not installed on this computer."
    )


def _is_local(uri: str) -> bool:
    return not urlsplit(uri).hostname


def _address(uri: str, display: Display) -> str | None:
    """The address of a display as it is reached from here."""
    host = display.address
    try:
        ip = ip_address(host)
    except ValueError:
        ip = None  # a name
    if ip is not None and ip.is_unspecified:
        host = urlsplit(uri).hostname or "localhost"
    elif (host == "localhost" or (ip is not None and ip.is_loopback)) and not _is_local(uri):
        return None
    host = f"[{host}]" if ":" in host else host
    if not display.port:
        return f"{display.kind}://{host}?tls-port={display.tls_port}"
    tls = f"?tls-port={display.tls_port}" if display.tls_port else ""
    return f"{display.kind}://{host}:{display.port}{tls}"

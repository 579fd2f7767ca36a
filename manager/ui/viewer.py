"""The desktop's own viewer of a VM's screen: which program, with which arguments. Never through a shell."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

from manager.core.ids import VmId

PROGRAM = "virt-viewer"


def viewer_command(uri: str, vm: VmId) -> list[str] | None:
    """The command that shows a VM's screen; None if there is no such program here.

    On this computer's own daemon it is given the display's socket, and no network is needed.
    Source: virt-viewer(1).
    """
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    parts = urlsplit(uri)
    attach = ["--attach"] if not parts.hostname and parts.scheme.partition("+")[2] in ("", "unix") else []
    return [program, f"--connect={uri}", *attach, "--wait", "--", str(vm)]

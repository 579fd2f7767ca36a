"""Whether there is a display for a window. Asked before Qt is: where there is none, Qt aborts the process."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from collections.abc import Mapping

PATIENCE_S = 5.0
"""How long a display may take to answer."""

INSTEAD = (
    ", so no window can be opened.\n"
    "  A picture of it instead:   muster gui --screenshot FILE\n"
    "  The command line:          muster vm list\n"
    "                             muster --help"
)


def why_none(environment: Mapping[str, str] | None = None) -> str:
    """Why no window can be opened, with what can be done instead; empty if one can.

    Source: Qt tries Wayland and X as WAYLAND_DISPLAY and DISPLAY are set, or what QT_QPA_PLATFORM names.
    """
    if sys.platform != "linux":
        return ""
    env = os.environ if environment is None else environment
    platform = env.get("QT_QPA_PLATFORM", "")
    named = [name.partition(":")[0] for name in platform.split(";") if name] or ["wayland", "xcb"]
    if any(name != "xcb" and not name.startswith("wayland") for name in named):
        return ""  # offscreen, vnc and the like need no display
    silent = []
    if any(name.startswith("wayland") for name in named) and env.get("WAYLAND_DISPLAY"):
        if _wayland_answers(env):
            return ""
        silent.append(f"WAYLAND_DISPLAY={env['WAYLAND_DISPLAY']}")
    if "xcb" in named and env.get("DISPLAY"):
        if _x_answers(env["DISPLAY"]):
            return ""
        silent.append(f"DISPLAY={env['DISPLAY']}")
    if not silent:
        return f"there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set){INSTEAD}"
    verb = "does" if len(silent) == 1 else "do"
    return f"there is no display here ({' and '.join(silent)} {verb} not answer or let nobody in){INSTEAD}"


def _wayland_answers(env: Mapping[str, str]) -> bool:
    # Source: wl_display_connect: a name in the runtime folder, or a whole path.
    path = os.path.join(env.get("XDG_RUNTIME_DIR", ""), env["WAYLAND_DISPLAY"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE_S)
        try:
            connection.connect(path)
        except OSError:
            return False
    return True


def _x_answers(display: str) -> bool:
    """Connect and log in as Qt will, by the library that it uses; in a thread, for it knows no time-out."""
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return True  # Qt will say what it lacks
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connect.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    xcb.xcb_connection_has_error.argtypes = [ctypes.c_void_p]
    xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    answers: list[bool] = []

    def connect() -> None:
        connection = xcb.xcb_connect(os.fsencode(display), None)  # never null
        fails = xcb.xcb_connection_has_error(connection) != 0
        if fails:
            xcb.xcb_disconnect(connection)
        # Else it stays: a server starts afresh when its last client leaves, and takes nobody meanwhile.
        answers.append(not fails)

    thread = threading.Thread(target=connect, name="display", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return answers == [True]

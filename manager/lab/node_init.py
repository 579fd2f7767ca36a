"""PID 1 of a lab node, already in its own net, uts, mount, ipc and pid namespaces.

Run as ``python -I node_init.py`` with a plan (JSON) on its standard input. It waits for the end of that
input, so that the node's network can be plugged in first, and ends if nothing comes. Standard library only.

SIGUSR1 starts the libvirt daemon again. It reaps everything that ends, as PID 1 must.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

MS_BIND, MS_REC, MNT_DETACH = 0x1000, 0x4000, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Plan(TypedDict):
    """What the node is to become; written by `manager.lab.node`."""

    host_name: str
    keep: list[str]  # folders that must stay visible although /run becomes the node's own
    binds: list[tuple[str, str]]  # (source, target)
    network: str  # commands for `ip -batch -`
    daemon: list[str]
    services: list[list[str]]
    environment: dict[str, str]


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def make_mount_point(target: Path, scratch: Path) -> None:
    """Let a folder exist in this node only: nothing is made in the machine's own file system."""
    if target.exists():
        return
    parent = target.parent
    layers = scratch / str(parent).strip("/").replace("/", "-")
    for layer in ("upper", "work"):
        (layers / layer).mkdir(parents=True)
    mount(
        "overlay",
        str(parent),
        "overlay",
        0,
        f"lowerdir={parent},upperdir={layers}/upper,workdir={layers}/work",
    )
    target.mkdir()


def set_up(plan: Plan) -> None:
    """Name, file systems and network of the node."""
    socket.sethostname(plan["host_name"])
    # A fresh sysfs has no cgroup file systems below it: else the VMs of two nodes would meet in one cgroup.
    _libc.umount2(b"/sys", MNT_DETACH)
    mount("sysfs", "/sys", "sysfs")
    # An own /run: no systemd, no D-Bus, no sockets of the machine's own libvirt.
    kept = [(folder, os.open(folder, os.O_PATH)) for folder in plan["keep"]]
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755,size=64m")
    for folder, handle in kept:
        os.makedirs(folder, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", folder, flags=MS_BIND | MS_REC)
        os.close(handle)
    for folder in ("/run/lock", "/run/sshd", "/run/libvirt"):
        os.makedirs(folder)
    mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777,size=256m")
    # Pacemaker may take itself for a host that must reboot at once; it would reboot this machine.
    if os.path.exists("/proc/sysrq-trigger"):
        mount("/dev/null", "/proc/sysrq-trigger", flags=MS_BIND)
    scratch = Path("/run/mount-points")
    for source, target in plan["binds"]:
        if Path(source).is_dir():
            make_mount_point(Path(target), scratch)
        mount(source, target, flags=MS_BIND)
    subprocess.run(
        ["ip", "-batch", "-"],
        input=plan["network"],
        text=True,
        check=True,
        timeout=20,
        env=plan["environment"],
    )


def start(argv: list[str], environment: dict[str, str]) -> int:
    """Start a process with no blocked signals, in a session of its own; its pid."""
    return os.posix_spawn(argv[0], argv, environment, setsid=True, setsigmask=[])


def main() -> None:
    """Become the node; never returns while the node is on."""
    text = sys.stdin.read()
    if not text:
        return  # whoever made this node ended before it was plugged in
    plan: Plan = json.loads(text)
    set_up(plan)
    waited = {signal.SIGCHLD, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    for service in plan["services"]:
        start(service, plan["environment"])
    daemon = start(plan["daemon"], plan["environment"])
    wanted = False
    while True:
        got = signal.sigwait(waited)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == daemon:
                daemon = 0
        # Remembered: the daemon that was killed may still be ending, and can only be reaped a little later.
        wanted = wanted or got == signal.SIGUSR1
        if wanted and not daemon:
            wanted = False
            daemon = start(plan["daemon"], plan["environment"])


if __name__ == "__main__":
    main()

"""What the lab needs of this machine, which packages carry it, and the guest's kernel and agent.

The kernel and the guest agent are only unpacked into the cache folder, never installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import platform
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from manager.lab.errors import LabError
from manager.lab.processes import CLEAN_ENVIRONMENT, attempt, run

Progress = Callable[[str], None]
"""Called with one line of text for each step."""

INSTALL_DEADLINE_S = 600.0
VM_AGENT = "/usr/lib/ocf/resource.d/heartbeat/VirtualDomain"

# What must be there -> its package under (apt, dnf, zypper, pacman).
_COMMANDS: dict[str, tuple[str, str, str, str]] = {
    "libvirtd": ("libvirt-daemon", "libvirt-daemon", "libvirt-daemon", "libvirt"),
    "virsh": ("libvirt-clients", "libvirt-client", "libvirt-client", "libvirt"),
    "qemu-system-x86_64": ("qemu-system-x86", "qemu-system-x86-core", "qemu-x86", "qemu-system-x86"),
    "qemu-img": ("qemu-utils", "qemu-img", "qemu-tools", "qemu-img"),
    "busybox": ("busybox-static", "busybox", "busybox-static", "busybox"),
    "modprobe": ("kmod", "kmod", "kmod", "kmod"),
    "ip": ("iproute2", "iproute", "iproute2", "iproute2"),
    "mkfs.ext4": ("e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs"),
    "openssl": ("openssl", "openssl", "openssl", "openssl"),
    "ssh": ("openssh-client", "openssh-clients", "openssh-clients", "openssh"),
    "sshd": ("openssh-server", "openssh-server", "openssh-server", "openssh"),
    "unshare": ("util-linux", "util-linux", "util-linux", "util-linux"),
}
# For `Lab.start_pacemaker` only.
_PACEMAKER_COMMANDS: dict[str, tuple[str, str, str, str]] = {
    "corosync": ("corosync", "corosync", "corosync", "corosync"),
    "pacemakerd": ("pacemaker", "pacemaker", "pacemaker", "pacemaker"),
    "cibadmin": ("pacemaker-cli-utils", "pacemaker-cli", "pacemaker-cli", "pacemaker"),
    VM_AGENT: ("resource-agents", "resource-agents", "resource-agents", "resource-agents"),
}
_QEMU_DRIVER = (
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-driver-qemu",
    "libvirt",
)
_GUEST_AGENT = ("qemu-guest-agent", "qemu-guest-agent", "qemu-guest-agent", "qemu-guest-agent")
_MANAGERS = {
    "apt-get": ["apt-get", "install", "-y", "--no-install-recommends"],
    "dnf": ["dnf", "install", "-y"],
    "zypper": ["zypper", "install", "-y"],
    "pacman": ["pacman", "-S", "--needed"],
}
_APT = ["-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0"]
_KERNEL_META_PACKAGE = "linux-image-cloud-amd64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What this machine lacks for a lab."""

    things: tuple[str, ...]  # commands and files
    packages: tuple[str, ...]  # that carry them, as this machine's package manager names them
    command: str  # that installs them; empty if the package manager is unknown

    def __bool__(self) -> bool:
        return bool(self.things)

    @property
    def text(self) -> str:
        """The message for the user."""
        what = f"The lab lacks: {', '.join(self.things)}."
        how = (
            f"Install: {self.command}"
            if self.command
            else f"Install the packages: {', '.join(self.packages)}"
        )
        return f"{what}\n{how}"


def cache_folder() -> Path:
    """Where kernels, agents and guest images are kept between labs."""
    return platformdirs.user_cache_path("muster") / "lab"


def _manager() -> str:
    return next((name for name in _MANAGERS if _find(name)), "")


def _find(command: str) -> str | None:
    return shutil.which(command, path=CLEAN_ENVIRONMENT["PATH"])


def missing(*, pacemaker: bool = False) -> Missing:
    """What lacks on this machine now for a lab, or for one with Pacemaker; false if nothing does.

    Raises:
        LabError: The lab is not made for this machine's processor.
    """
    if platform.machine() != "x86_64":
        raise LabError(f"The lab needs an x86-64 machine; this one is {platform.machine()}.", exit_code=2)
    manager = _manager()
    column = list(_MANAGERS).index(manager) if manager else 0
    wanted = _COMMANDS | _PACEMAKER_COMMANDS if pacemaker else _COMMANDS
    lacking = [(name, names[column]) for name, names in wanted.items() if not _find(name)]
    if not any(Path("/usr").glob("lib*/**/libvirt/connection-driver/libvirt_driver_qemu.so")):
        lacking.append(("libvirt's QEMU driver", _QEMU_DRIVER[column]))
    if manager != "apt-get":
        if _machine_agent() is None:
            lacking.append(("qemu-ga", _GUEST_AGENT[column]))
    elif not _find("dpkg-deb"):
        lacking.append(("dpkg-deb", "dpkg"))
    packages = tuple(sorted({package for _, package in lacking}))
    command = " ".join([*_MANAGERS[manager], *packages]) if manager else ""
    return Missing(things=tuple(name for name, _ in lacking), packages=packages, command=command)


def _machine_agent() -> Path | None:
    found = _find("qemu-ga")
    return Path(found) if found else None


async def ensure_installed(progress: Progress = lambda _: None, *, pacemaker: bool = False) -> None:
    """Install what lacks with apt (needs root), and fetch the guest's kernel and agent into the cache.

    Pacemaker, wanted for the lab's nodes, does not stay on as a service of this machine.

    Raises:
        LabError: There is no apt, or it failed, or something lacks even afterwards.
    """
    lacking = missing(pacemaker=pacemaker)
    if lacking:
        if _manager() != "apt-get":
            raise LabError(f"{lacking.text}\nOnly apt is driven from here; run that yourself.", exit_code=2)
        progress(f"installing {', '.join(lacking.packages)}")
        await _apt_get("install", "-y", "--no-install-recommends", *lacking.packages)
        if "pacemaker" in lacking.packages and _find("systemctl"):
            for service in ("pacemaker", "corosync", "logd"):  # logd comes with the agents
                await attempt(["systemctl", "disable", "--now", service], timeout_s=60)
        if still := missing(pacemaker=pacemaker):
            raise LabError(still.text, exit_code=2)
    await guest_files(progress)


async def _apt_get(*words: str, cwd: Path | None = None) -> None:
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *_APT, *words]
    ran = await attempt(command, timeout_s=INSTALL_DEADLINE_S, cwd=cwd)
    if ran.code != 0:
        # Old package lists are by far the most common cause; once more with new ones.
        await run(["apt-get", *_APT, "update"], timeout_s=INSTALL_DEADLINE_S)
        await run(command, timeout_s=INSTALL_DEADLINE_S, cwd=cwd)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFiles:
    """What a guest is made of."""

    kernel: Path
    release: str  # as uname -r
    modules: Path  # the folder above lib/modules
    agent: Path | None


async def guest_files(progress: Progress = lambda _: None) -> GuestFiles:
    """The kernel, its modules and the guest agent: Debian's cloud kernel, or this machine's own without apt.

    Raises:
        LabError: None can be had.
    """
    if _manager() != "apt-get":
        return _machine_files()
    unpacked = cache_folder() / "unpacked"
    async with cache_lock():
        if not (unpacked / "complete").exists():
            progress("fetching the guest's kernel and agent (once)")
            await _fetch(unpacked)
    # Debian names it vmlinuz-RELEASE below /boot; there is exactly one.
    kernel = next((unpacked / "boot").glob("vmlinuz-*"))
    return GuestFiles(
        kernel=kernel,
        release=kernel.name.removeprefix("vmlinuz-"),
        modules=unpacked,
        agent=unpacked / "usr/sbin/qemu-ga",
    )


def _machine_files() -> GuestFiles:
    """The newest kernel in /boot that has modules."""
    for kernel in sorted(
        Path("/boot").glob("vmlinuz-*"), key=lambda file: file.stat().st_mtime, reverse=True
    ):
        release = kernel.name.removeprefix("vmlinuz-")
        if Path(f"/lib/modules/{release}").is_dir():
            return GuestFiles(kernel=kernel, release=release, modules=Path("/"), agent=_machine_agent())
    raise LabError(
        "No kernel for the guests: /boot has no vmlinuz-RELEASE with its /lib/modules/RELEASE.", exit_code=2
    )


async def _fetch(unpacked: Path) -> None:
    kernel = await _kernel_package()
    downloads = unpacked.parent / "download"
    for folder in (unpacked, downloads):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    await _apt_get("download", kernel, "qemu-guest-agent", cwd=downloads)
    for package in downloads.glob("*.deb"):
        await run(["dpkg-deb", "-x", str(package), str(unpacked)], timeout_s=120)
    release = next((unpacked / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    await run(["depmod", "-b", str(unpacked), release], timeout_s=120)
    shutil.rmtree(downloads)
    (unpacked / "complete").touch()


async def _kernel_package() -> str:
    """The package that Debian's meta package stands for now."""
    for fresh in (False, True):
        if fresh:
            await run(["apt-get", *_APT, "update"], timeout_s=INSTALL_DEADLINE_S)
        shown = await attempt(["apt-cache", "depends", _KERNEL_META_PACKAGE], timeout_s=60)
        for line in shown.out.splitlines():
            word = line.strip().removeprefix("Depends: ")
            if word.startswith("linux-image-") and word != _KERNEL_META_PACKAGE:
                return word
    raise LabError(f"apt knows no {_KERNEL_META_PACKAGE}; is this Debian with its main archive?", exit_code=2)


@contextlib.asynccontextmanager
async def cache_lock() -> AsyncIterator[None]:
    """Hold the cache alone: two labs may come up at once.

    Raises:
        LabError: Someone else holds it for ten minutes.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + INSTALL_DEADLINE_S
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LabError(f"Another program holds {folder}/lock for ten minutes.") from None
                await asyncio.sleep(0.05)
        yield
    finally:
        os.close(handle)

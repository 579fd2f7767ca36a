"""The lab's guests: a kernel and an initramfs made once, a small disk each, and their domain XML."""

# ruff: noqa: ASYNC240 - the files are few and small, and this loop serves nobody else

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import lzma
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from manager.lab.errors import LabError
from manager.lab.initramfs import Initramfs
from manager.lab.network import mac_address
from manager.lab.processes import attempt, executable, run
from manager.lab.requirements import GuestFiles, Progress, cache_folder, cache_lock, guest_files

RESOURCES = Path(__file__).resolve().parents[2] / "resources" / "lab"
KVM_DEADLINE_S = 10.0
READY = "READY "
MINIMUM_MEMORY_MIB = 80  # this kernel panics with 72
OWN_MEMORY_MIB = 70  # what a booted guest takes for itself
_MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_balloon",
    "button",
    "evdev",
    "ext4",
)
_SCRIPTS = {
    "guest-init.sh": "init",
    "guest-power-button.sh": "etc/acpi/PWRF/00000080",
    "guest-shutdown.sh": "sbin/shutdown",
}
_BASE_COMMAND_LINE = "console=ttyS0 quiet panic=-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """One guest of the lab."""

    name: str
    node: str  # where it is defined first
    memory_mib: int = 96
    vcpus: int = 1
    dirty_mib: int = 0  # rewritten for ever by the guest, so that migrations take long
    disk_mib: int = 64
    vga: bool = False
    ignores_acpi: bool = False  # nothing in it hears the power button; its agent does answer
    address: str = ""  # of its eth0, without the prefix length


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestImage:
    """Files that all guests share."""

    kernel: Path
    initramfs: Path
    disk: Path  # an empty ext4 file system as qcow2


async def build_image(progress: Progress = lambda _: None) -> GuestImage:
    """The guest's files, made once and kept in the cache folder.

    Raises:
        LabError: The kernel or the agent cannot be had, or a tool failed.
    """
    files = await guest_files(progress)
    scripts = {name: (RESOURCES / name).read_bytes() for name in _SCRIPTS}
    key = hashlib.sha256(
        repr((files.release, _MODULES, os.stat(executable("busybox")).st_size, scripts)).encode()
    )
    folder = cache_folder() / f"guest-{key.hexdigest()[:12]}"
    image = GuestImage(kernel=folder / "vmlinuz", initramfs=folder / "initrd.img", disk=folder / "base.qcow2")
    async with cache_lock():
        if folder.is_dir():
            return image
        progress("making the guest image (once)")
        half = folder.with_suffix(".new")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        shutil.copyfile(files.kernel, half / "vmlinuz")
        await _write_initramfs(files, scripts, half / "initrd.img")
        raw = half / "base.raw"
        with raw.open("wb") as file:
            file.truncate(VmSpec(name="", node="").disk_mib << 20)
        await run(["mkfs.ext4", "-q", "-F", str(raw)])
        await run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(half / "base.qcow2")])
        raw.unlink()
        for old in cache_folder().glob("guest-*"):
            if old != half and old.is_dir():
                shutil.rmtree(old)
        half.rename(folder)
    return image


async def _write_initramfs(files: GuestFiles, scripts: dict[str, bytes], target: Path) -> None:
    archive = Initramfs()
    for folder in ("proc", "sys", "dev", "run", "tmp", "data", "bin", "etc", "var/run"):
        archive.add_folder(folder)
    archive.add("bin/busybox", Path(executable("busybox")).read_bytes())
    for name, path in _SCRIPTS.items():
        archive.add(path, scripts[name])
    order: list[str] = []
    for module in _MODULES:
        shown = await run(
            ["modprobe", "-d", str(files.modules), "-S", files.release, "--show-depends", module]
        )
        for line in shown.splitlines():
            kind, _, rest = line.partition(" ")
            if (
                kind == "insmod"
                and (path := f"modules/{Path(rest.split()[0]).name.partition('.ko')[0]}.ko") not in order
            ):
                order.append(path)
                archive.add(path, await _module(Path(rest.split()[0])), mode=0o644)
    archive.add("etc/modules-in-order", "".join(f"/{path}\n" for path in order).encode(), mode=0o644)
    if files.agent is not None:
        archive.add("usr/sbin/qemu-ga", files.agent.read_bytes())
        for line in (await run(["ldd", str(files.agent)])).splitlines():
            words = line.split()
            if "not found" in line:
                raise LabError(
                    f"The guest agent needs a library that this machine lacks: {line.strip()}", exit_code=2
                )
            library = next((word for word in words if word.startswith("/")), None)
            if library:
                archive.add(library.lstrip("/"), Path(library).read_bytes())
    await asyncio.to_thread(archive.write, target)


async def _module(file: Path) -> bytes:
    """A kernel module, unpacked: busybox's insmod takes no compressed one."""
    match file.suffix:
        case ".xz":
            return lzma.decompress(file.read_bytes())
        case ".gz":
            return gzip.decompress(file.read_bytes())
        case ".zst":
            plain = cache_folder() / "module.ko"
            await run(["zstd", "-d", "-f", "-q", str(file), "-o", str(plain)])
            return plain.read_bytes()
        case _:
            return file.read_bytes()


async def accelerator(image: GuestImage, progress: Progress = lambda _: None) -> str:
    """``kvm`` if the guest really boots under KVM within 10 s, else ``qemu``.

    Tried once per boot of this machine. A /dev/kvm and libvirt's capabilities can both promise it in vain.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "qemu"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    verdict = cache_folder() / "accelerator.json"
    try:
        known = json.loads(verdict.read_text())
        if known["boot"] == boot:
            return str(known["type"])
    except (OSError, ValueError, KeyError):
        pass
    progress("trying whether a guest boots under KVM (once per boot of this machine)")
    kind = "kvm" if await _boots_under_kvm(image) else "qemu"
    verdict.write_text(json.dumps({"boot": boot, "type": kind}))
    return kind


async def _boots_under_kvm(image: GuestImage) -> bool:
    # `trial` powers the guest off once it is ready; -no-reboot with panic=-1 ends one that dies; setpriv ends
    # it with us.
    command = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        executable("qemu-system-x86_64"),
        "-accel",
        "kvm",
        "-cpu",
        "host",
    ]
    command += [
        "-m",
        "96",
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
        "-serial",
        "stdio",
        "-monitor",
        "none",
    ]
    command += ["-kernel", str(image.kernel), "-initrd", str(image.initramfs)]
    command += ["-append", f"{_BASE_COMMAND_LINE} name=kvm trial"]
    try:
        ran = await attempt(command, timeout_s=KVM_DEADLINE_S)
    except LabError:
        return False
    return READY in ran.out


def vm_uuid(lab_id: str, name: str) -> str:
    """A guest's UUID: the same for the same name in the same lab folder, different in every other lab."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"muster-lab:{lab_id}:{name}"))


def domain_xml(vm: VmSpec, *, lab_id: str, kind: str, shared: Path, console: Path) -> str:
    """The guest's libvirt domain XML.

    Args:
        vm: The guest.
        lab_id: See `vm_uuid`.
        kind: ``kvm`` or ``qemu``.
        shared: Folder with ``vmlinuz``, ``initrd.img`` and the disk, the same on every node.
        console: File that gets everything the guest prints.
    """
    ident = vm_uuid(lab_id, vm.name)
    words = [_BASE_COMMAND_LINE, f"name={vm.name}"]
    words += [f"address={vm.address}/24"] if vm.address else []
    words += [f"dirty={vm.dirty_mib}"] if vm.dirty_mib else []
    words += ["deaf"] if vm.ignores_acpi else []
    features = _xml("features", _xml("acpi"))
    if kind == "qemu":
        # Without it each QEMU may take hundreds of MiB for translated code.
        features.append(_xml("tcg", _xml("tb-cache", "32", unit="MiB")))
        cpu = _xml(
            "cpu", _xml("model", "qemu64", fallback="forbid"), mode="custom", match="exact", check="none"
        )
    else:
        cpu = _xml("cpu", mode="host-passthrough", check="none", migratable="on")
    serial_log = _xml("log", file=str(console), append="on")
    devices = _xml(
        "devices",
        _xml("emulator", executable("qemu-system-x86_64")),
        _xml(
            "disk",
            _xml("driver", name="qemu", type="qcow2", cache="none"),
            _xml("source", file=str(disk_path(shared, vm.name))),
            _xml("target", dev="vda", bus="virtio"),
            type="file",
            device="disk",
        ),
        _xml("controller", type="usb", model="none"),
        _xml(
            "interface",
            _xml("mac", address=mac_address(ident)),
            _xml("source", bridge="br0"),
            _xml("model", type="virtio"),
            _xml("rom", enabled="no"),  # never booted from, and slow to run without KVM
            type="bridge",
        ),
        _xml("serial", serial_log, _xml("target", port="0"), type="pty"),
        _xml("console", _xml("target", type="serial", port="0"), type="pty"),
        _xml("channel", _xml("target", type="virtio", name="org.qemu.guest_agent.0"), type="unix"),
        _xml("memballoon", _xml("stats", period="5"), model="virtio"),
    )
    if vm.vga:
        devices.append(_xml("graphics", type="vnc", autoport="yes", listen="127.0.0.1"))
        devices.append(_xml("video", _xml("model", type="vga", vram="16384", heads="1")))
    domain = _xml(
        "domain",
        _xml("name", vm.name),
        _xml("uuid", ident),
        _xml("memory", str(vm.memory_mib), unit="MiB"),
        _xml("vcpu", str(vm.vcpus)),
        _xml(
            "os",
            _xml("type", "hvm", arch="x86_64", machine="pc"),
            _xml("kernel", str(shared / "vmlinuz")),
            _xml("initrd", str(shared / "initrd.img")),
            _xml("cmdline", " ".join(words)),
        ),
        features,
        cpu,
        _xml("clock", offset="utc"),
        _xml("on_poweroff", "destroy"),
        _xml("on_reboot", "restart"),
        _xml("on_crash", "destroy"),
        devices,
        type=kind,
    )
    return etree.tostring(domain, pretty_print=True, encoding="unicode")


def _xml(tag: str, *content: etree._Element | str, **attributes: str) -> etree._Element:
    element = etree.Element(tag, attributes)
    for item in content:
        if isinstance(item, str):
            element.text = item
        else:
            element.append(item)
    return element


def disk_path(shared: Path, vm: str) -> Path:
    """The guest's disk image."""
    return shared / f"{vm}.qcow2"


async def make_disk(image: Path, target: Path, *, size_mib: int) -> None:
    """Give a guest a disk of its own with an empty ext4 file system."""
    await asyncio.to_thread(shutil.copyfile, image, target)
    if size_mib != VmSpec(name="", node="").disk_mib:
        await run(["qemu-img", "resize", "-q", "-f", "qcow2", str(target), f"{size_mib}M"])


def believable_names(count: int, taken: Sequence[str] = ()) -> list[str]:
    """Names such as ``web-01``, ``db-01``; those in `taken` are left out."""
    roles = ("web", "db", "app", "mail", "build")
    names: list[str] = []
    number = 0
    while len(names) < count:
        name = f"{roles[number % len(roles)]}-{number // len(roles) + 1:02}"
        number += 1
        if name not in taken:
            names.append(name)
    return names

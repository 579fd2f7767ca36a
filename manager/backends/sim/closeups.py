"""What a simulated VM shows when it is looked at closely: a screen, a console, a definition, snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from manager.backends.sim.hosts import NOT_RUNNING, Done, SimVm, refused
from manager.backends.sim.streams import Way
from manager.core.edits import at_next_start
from manager.core.effects import VmChange
from manager.core.errors import FailureCode, OperationError
from manager.core.model import Disk, Snapshot, SnapshotParameters, StatusCause, VmStatus
from manager.services.pictures import png

if TYPE_CHECKING:
    from manager.backends.sim.world import SimWorld

_QUICK_S = 0.2  # of a snapshot without memory
_WIDTH, _HEIGHT, _DOT = 640, 400, 2

# Each sign as five columns of seven dots, the lowest bit on top.
_SIGNS = "0123456789-.:/%ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COLUMNS = bytes.fromhex(
    "3e5149453e00427f400042615149462141454b311814127f1027454545393c4a494930017109050336494949360649"
    "49291e08080808080060600000003636000020100804022313086462"
    "7e1111117e7f494949363e414141227f4141221c7f494949417f090909013e4149497a7f0808087f00417f41002040"
    "413f017f081422417f404040407f020c027f7f0408107f3e4141413e7f090909063e4151215e7f0919294646494949"
    "3101017f01013f4040403f1f2040201f3f4038403f631408146307087008076151494543"
)
_FONT = {sign: _COLUMNS[at * 5 : at * 5 + 5] for at, sign in enumerate(_SIGNS)}


def _boot_lines(vm: SimVm) -> list[str]:
    config = vm.config
    disks = [disk.target for disk in config.disks if disk.device == "disk"]
    return [
        "DEMO: this guest is simulated; nothing behind this console is real.",
        "[    0.000000] Linux version 6.1.0-demo (muster)",
        f"[    0.004112] smpboot: Allowing {config.vcpus} CPUs, 0 hotplug CPUs",
        f"[    0.018734] Memory: {config.memory_mib * 1024 - 65536}K/{config.memory_mib * 1024}K available",
        *(f"[    0.61{at:04}] virtio_blk virtio{at}: [{disk}] ready" for at, disk in enumerate(disks)),
        *(f"[    0.70{at:04}] virtio_net: eth{at} {i.mac}" for at, i in enumerate(config.interfaces)),
        f"[    1.204518] systemd[1]: Hostname set to <{vm.name}>.",
    ]


def picture(vm: SimVm) -> bytes:
    """A text screen as a PNG, marked as the demo's. Raises `OperationError` if there is none."""
    _need_running(vm)
    if not vm.config.graphics:
        text = "it has no graphics device"
        raise refused(FailureCode.NOT_SUPPORTED, text, node=vm.node.id, vm=vm.id)
    rows = [bytearray(_WIDTH * 3) for _ in range(_HEIGHT)]
    lines = [*_boot_lines(vm), "", f"{vm.name} login:"]
    for line, text in enumerate(lines):
        for column, sign in enumerate(text.upper()):
            left, top = 8 + column * 6 * _DOT, 8 + line * 10 * _DOT
            if left + 6 * _DOT > _WIDTH or top + 8 * _DOT > _HEIGHT:
                break
            colour = b"\xe0\xa0\x30" if line == 0 else b"\xc8\xcc\xd0"
            for x, bits in enumerate(_FONT.get(sign, b"")):
                for y in range(7):
                    if bits >> y & 1:
                        for dy in range(_DOT):
                            at = (left + x * _DOT) * 3
                            rows[top + y * _DOT + dy][at : at + 3 * _DOT] = colour * _DOT
    return png(_WIDTH, _HEIGHT, b"".join(rows))


def definition(vm: SimVm, *, stored: bool = False) -> str:
    """A domain XML that says what the simulation knows: as it runs, or as it starts the next time."""
    config = at_next_start(vm.config) if stored else vm.config
    from lxml import etree  # only where a definition is asked for: commands start without it

    root = etree.Element("domain", type="kvm")
    root.append(etree.Comment(" DEMO: made up from what is simulated "))

    def add(parent: Any, tag: str, text: str = "", **attributes: str) -> Any:
        made = etree.SubElement(parent, tag, {k: v for k, v in attributes.items() if v})
        made.text = text or None
        return made

    add(root, "name", vm.name)
    add(root, "uuid", vm.id)
    if config.title:
        add(root, "title", config.title)
    add(root, "memory", str(config.memory_mib), unit="MiB")
    add(root, "vcpu", str(config.vcpus))
    system = add(root, "os")
    add(system, "type", "hvm", arch=config.arch, machine=config.machine)
    if config.cpu_mode:
        add(root, "cpu", mode=config.cpu_mode)
    devices = add(root, "devices")
    for disk in config.disks:
        element = add(devices, "disk", type=disk.kind, device=disk.device)
        add(element, "driver", name="qemu", type=disk.format, cache=disk.cache)
        if disk.source:
            add(element, "source", **{"dev" if disk.kind == "block" else "file": disk.source})
        add(element, "target", dev=disk.target)
        if disk.read_only:
            add(element, "readonly")
    for interface in config.interfaces:
        element = add(devices, "interface", type=interface.kind or "bridge")
        add(element, "mac", address=interface.mac)
        add(element, "source", bridge=interface.source)
        add(element, "model", type=interface.model)
    add(add(devices, "console", type="pty"), "target", type="serial", port="0")
    for kind in config.graphics:
        add(devices, "graphics", type=kind)
    etree.indent(root)
    return etree.tostring(root, encoding="unicode") + "\n"


def _need_running(vm: SimVm) -> None:
    if not vm.runs:
        raise refused(FailureCode.WRONG_STATE, NOT_RUNNING, node=vm.node.id, vm=vm.id)


class SimConsole:
    """A guest that has booted and repeats what it is told, but for ``poweroff``. See the port's `Console`."""

    def __init__(self, vm: SimVm, power_off: Callable[[], object]) -> None:
        _need_running(vm)
        self._power_off = power_off
        self._unread = bytearray("\r\n".join([*_boot_lines(vm), "", ""]).encode())
        self._news = asyncio.Event()
        self._line = bytearray()
        self._prompt = f"demo@{vm.name}:~$ ".encode()
        self._unread += self._prompt
        self.why_ended = ""

    async def read(self) -> bytes:
        """What came since; empty once it is over."""
        while not self._unread and not self.why_ended:
            self._news.clear()
            await self._news.wait()
        data = bytes(self._unread)
        self._unread.clear()
        return data

    def write(self, data: bytes) -> None:
        """Type: it is echoed, and a line is repeated when it ends."""
        if self.why_ended:
            return
        for byte in data:
            if byte in b"\r\n":
                said = bytes(self._line).strip()
                self._line.clear()
                self._say(b"\r\n" + (b"demo: " + said + b"\r\n" if said else b"") + self._prompt)
                if said == b"poweroff":
                    self._power_off()
                    return
            elif byte in b"\x7f\b":
                if self._line:
                    del self._line[-1]
                    self._say(b"\b \b")
            elif byte == 3:
                self._line.clear()
                self._say(b"^C\r\n" + self._prompt)
            elif byte >= 32 and len(self._line) < 1000:
                self._line.append(byte)
                self._say(bytes([byte]))

    def close(self) -> None:
        """Let go of it."""
        self.end("closed")

    def end(self, why: str) -> None:
        """It is over."""
        self.why_ended = self.why_ended or why
        self._news.set()

    def _say(self, data: bytes) -> None:
        self._unread += data
        self._news.set()


# --- snapshots -------------------------------------------------------------------------------


def change_snapshot(
    world: SimWorld, vm: SimVm, change: VmChange, wish: SnapshotParameters, done: Done
) -> None:
    """Begin to take, delete or revert to a snapshot; raises `OperationError` if it is refused."""
    named = next((s for s in vm.snapshots if s.name == wish.name), None)
    if change is VmChange.SNAPSHOT_CREATE:
        if named is not None:
            raise _refusal(vm, FailureCode.CONFLICT, f"it has a snapshot “{wish.name}” already")
        _take(world, vm, wish, done)
        return
    if named is None:
        raise _refusal(vm, FailureCode.NOT_FOUND, f"it has no snapshot “{wish.name}”")
    if named.external:
        what = "deletion of" if change is VmChange.SNAPSHOT_DELETE else "revert to"
        text = f"unsupported configuration: {what} external disk snapshots not supported yet"
        raise _refusal(vm, FailureCode.NOT_SUPPORTED, text)
    if change is VmChange.SNAPSHOT_DELETE:
        _delete(vm, named)
    else:
        _revert(world, vm, named)
    _number(world, vm)
    done(None)


def _take(world: SimWorld, vm: SimVm, wish: SnapshotParameters, done: Done) -> None:
    raw = next((d for d in vm.config.disks if _holds_data(d) and d.format != "qcow2"), None)
    if raw is not None and not wish.disk_only:
        text = f"internal snapshot for disk {raw.target} unsupported for storage type {raw.format or 'raw'}"
        raise _refusal(vm, FailureCode.NOT_SUPPORTED, f"unsupported configuration: {text}")
    memory = vm.runs and not wish.disk_only
    before = vm.status, vm.cause
    made = Snapshot(
        name=wish.name,
        description=wish.description,
        created_s=float(int(world.clock.now_s())),
        status=vm.status if not wish.disk_only else VmStatus.OFF,
        memory=memory,
        external=wish.disk_only,
        parent=next((s.name for s in vm.snapshots if s.is_current), ""),
        is_current=True,
    )

    def undo() -> None:
        if memory:
            vm.status, vm.cause = before

    def finish() -> None:
        vm.snapshots[:] = [*(replace(s, is_current=False) for s in vm.snapshots), made]
        if memory:
            world.set_state(vm, *before)
        _number(world, vm)
        world.tell_job(vm, job, active=False)
        world.end_job(vm, job)

    job = vm.job = world.job("remoteDispatchDomainSnapshotCreateXML", done, kind="snapshot", undo=undo)
    world.tell_job(vm, job, active=True)
    if memory:
        world.set_state(vm, VmStatus.PAUSED, StatusCause.SNAPSHOT)
        job.transfer = world.transfer(vm.memory_bytes, ((Way.DISK, vm.node),), finish)
    else:
        job.timer = world.after(_QUICK_S, finish)


def _delete(vm: SimVm, gone: Snapshot) -> None:
    left = [s for s in vm.snapshots if s is not gone]
    vm.snapshots[:] = [
        replace(
            s,
            parent=gone.parent if s.parent == gone.name else s.parent,
            is_current=s.is_current or (gone.is_current and s.name == gone.parent),
        )
        for s in left
    ]


def _revert(world: SimWorld, vm: SimVm, to: Snapshot) -> None:
    vm.snapshots[:] = [replace(s, is_current=s is to) for s in vm.snapshots]
    runs = to.memory and to.status in (VmStatus.RUNNING, VmStatus.PAUSED)
    if runs and not vm.runs:
        world.need_room(vm, vm.node)
        vm.incarnation = world.next_incarnation(vm.node)
        vm.started_s = world.clock.now_s()
        vm.here_since_s = world.time_s
    if runs:
        world.set_state(vm, to.status, StatusCause.SNAPSHOT)
    elif vm.runs:
        world.kill(vm, VmStatus.OFF, StatusCause.SNAPSHOT)
    elif vm.status is not VmStatus.OFF:
        world.set_state(vm, VmStatus.OFF, StatusCause.SNAPSHOT)


def _holds_data(disk: Disk) -> bool:
    return disk.device == "disk" and bool(disk.source) and not disk.read_only


def _number(world: SimWorld, vm: SimVm) -> None:
    world.redefine(vm, replace(vm.config, snapshots=len(vm.snapshots)))


def _refusal(vm: SimVm, code: FailureCode, text: str) -> OperationError:
    return refused(code, text, node=vm.node.id, vm=vm.id)

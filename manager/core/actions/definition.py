"""What is changed of a VM's definition: hardware, boot order, texts. One action per kind of `Edit`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from manager.core import edits, units
from manager.core.actions.spec import (
    ON,
    ActionSpec,
    Allowed,
    Denied,
    Group,
    PlanStep,
    Verdict,
    common,
    places,
)
from manager.core.cluster import ClusterView
from manager.core.edits import (
    AddDisk,
    Describe,
    Edit,
    GrowDisk,
    SetAutostart,
    SetBootOrder,
    SetInterface,
    SetMedium,
    SetMemory,
    SetVcpus,
)
from manager.core.model import Disk, Interface, Vm, VmConfig, VmStatus
from manager.core.operations import Operation, OperationKind
from manager.core.reasons import Reason, ReasonCode, because

E = TypeVar("E")
D = TypeVar("D", Disk, Interface)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A change for one VM, and what takes it back."""

    edit: Edit
    back: Edit | None = None
    why_later: str = ""  # why a VM that runs has it only at its next start


Prepare = Callable[[VmConfig, VmStatus, Any], _Prepared | Reason | None]
"""What a wish is for one VM; None if it is so already, or why it cannot be."""


def _wrong(text: str) -> Reason:
    return because(ReasonCode.EDIT_WRONG, text=text)


def _one_of(devices: Sequence[D], wanted: str, name: Callable[[D], str], none: Reason) -> D | Reason:
    if not devices:
        return none
    known = ", ".join(name(device) for device in devices)
    if not wanted:
        return devices[0] if len(devices) == 1 else because(ReasonCode.WHICH_DEVICE, known=known)
    found = next((device for device in devices if name(device) == wanted), None)
    return found or because(ReasonCode.NO_SUCH_DEVICE, device=wanted, known=known)


# --- one kind each -------------------------------------------------------------------------------


def _medium(config: VmConfig, _: VmStatus, wish: SetMedium) -> _Prepared | Reason | None:
    drives = [disk for disk in config.disks if disk.device == "cdrom"]
    drive = _one_of(drives, wish.disk, lambda d: d.target, because(ReasonCode.NO_CD_DRIVE))
    if isinstance(drive, Reason):
        return drive
    is_path = re.fullmatch(r"/.+|[^/]+/[^/]+", wish.source) is not None
    if wish.source and not (is_path and wish.source.isprintable() and len(wish.source) <= 1000):
        return _wrong("a medium is a path on the node or POOL/VOLUME, in printable text")
    stored = next((d for d in edits.at_next_start(config).disks if d.target == drive.target), drive)
    if wish.source == drive.source == stored.source:
        return None
    return _Prepared(
        edit=replace(wish, disk=drive.target),
        back=SetMedium(disk=drive.target, source=drive.source, force=wish.force),
    )


def _memory(config: VmConfig, _: VmStatus, wish: SetMemory) -> _Prepared | Reason | None:
    if not edits.LEAST_MEMORY_MIB <= wish.memory_mib <= edits.MAX_MEMORY_MIB:
        least, most = units.mib_text(edits.LEAST_MEMORY_MIB), units.mib_text(edits.MAX_MEMORY_MIB)
        return _wrong(f"memory is from {least} to {most}")
    if wish.maximum_mib and not wish.memory_mib <= wish.maximum_mib <= edits.MAX_MEMORY_MIB:
        return _wrong("the maximum of the memory is less than the memory, or too large")
    stored = edits.at_next_start(config)
    maximum = wish.maximum_mib or max(stored.memory_mib, wish.memory_mib)
    live = wish.memory_mib <= config.memory_mib
    same = (stored.memory_now_mib, stored.memory_mib) == (wish.memory_mib, maximum)
    if same and (config.memory_now_mib == wish.memory_mib or not live):
        return None
    why = ""
    if not live:
        why = f"as it runs it can have {units.mib_text(config.memory_mib)}"
    elif maximum != config.memory_mib:
        why = f"its maximum of {units.mib_text(maximum)}"
    return _Prepared(
        edit=SetMemory(memory_mib=wish.memory_mib, maximum_mib=maximum, live=live),
        back=SetMemory(memory_mib=stored.memory_now_mib, maximum_mib=stored.memory_mib),
        why_later=why,
    )


def _vcpus(config: VmConfig, status: VmStatus, wish: SetVcpus) -> _Prepared | Reason | None:
    if not 1 <= wish.vcpus <= edits.MAX_VCPUS:
        return _wrong(f"vCPUs are from 1 to {edits.MAX_VCPUS}")
    if wish.maximum and not wish.vcpus <= wish.maximum <= edits.MAX_VCPUS:
        return _wrong("the maximum of the vCPUs is less than the vCPUs, or too large")
    stored = edits.at_next_start(config)
    maximum = wish.maximum or max(stored.most_vcpus, wish.vcpus)
    live = config.vcpus <= wish.vcpus <= config.most_vcpus
    same = (stored.vcpus, stored.most_vcpus) == (wish.vcpus, maximum)
    if same and (config.vcpus == wish.vcpus or not live or status not in ON):
        return None
    why = ""
    if wish.vcpus > config.most_vcpus:
        why = f"as it runs it can have {config.most_vcpus}"
    elif wish.vcpus < config.vcpus:
        why = "a guest that runs gives no vCPUs back"
    elif maximum != config.most_vcpus:
        why = f"its maximum of {maximum}"
    return _Prepared(
        edit=SetVcpus(vcpus=wish.vcpus, maximum=maximum, live=live),
        back=SetVcpus(vcpus=stored.vcpus, maximum=stored.most_vcpus),
        why_later=why,
    )


def _description(config: VmConfig, _: VmStatus, wish: Describe) -> _Prepared | Reason | None:
    if wish.title is not None and (not wish.title.isprintable() or len(wish.title) > edits.MAX_TITLE):
        return _wrong(f"a title is one line of printable text with at most {edits.MAX_TITLE} characters")
    text = wish.description or ""
    if len(text) > edits.MAX_DESCRIPTION or not text.replace("\n", "").replace("\t", "").isprintable():
        return _wrong(f"a description is printable text with at most {edits.MAX_DESCRIPTION} characters")
    given = (wish.title, wish.description)
    had = (config.title, config.description)
    if all(wanted in (None, now) for wanted, now in zip(given, had, strict=True)):
        return None
    old = [now if wanted is not None else None for wanted, now in zip(given, had, strict=True)]
    return _Prepared(edit=wish, back=Describe(title=old[0], description=old[1]))


def _autostart(config: VmConfig, _: VmStatus, wish: SetAutostart) -> _Prepared | Reason | None:
    if wish.autostart is config.autostart:
        return None
    return _Prepared(edit=wish, back=SetAutostart(autostart=config.autostart))


def _interface(config: VmConfig, _: VmStatus, wish: SetInterface) -> _Prepared | Reason | None:
    nic = _one_of(config.interfaces, wish.mac, lambda i: i.mac, _wrong("has no network interface"))
    if isinstance(nic, Reason):
        return nic
    if bool(wish.kind) != bool(wish.source) or wish.kind not in ("", "bridge", "network"):
        return _wrong("an interface is connected to a bridge or to a network, by its name")
    if not wish.source.isprintable() or len(wish.source) > 200:
        return _wrong("the name of a bridge or network is printable text")
    if wish.kind and nic.kind not in ("bridge", "network"):
        return _wrong(f"interface {nic.mac} is of type {nic.kind}, which cannot be connected elsewhere")
    moved = bool(wish.kind) and (nic.kind, nic.source) != (wish.kind, wish.source)
    turned = wish.link_up is not None and wish.link_up is not nic.link_up
    stored = next((i for i in edits.at_next_start(config).interfaces if i.mac == nic.mac), nic)
    if not moved and not turned and stored == nic:
        return None
    return _Prepared(
        edit=replace(wish, mac=nic.mac),
        back=SetInterface(
            mac=nic.mac,
            kind=nic.kind if moved else "",
            source=nic.source if moved else "",
            link_up=nic.link_up if turned else None,
        ),
    )


def _boot(config: VmConfig, _: VmStatus, wish: SetBootOrder) -> _Prepared | Reason | None:
    config = edits.at_next_start(config)
    known = [*(disk.target for disk in config.disks), *(nic.mac for nic in config.interfaces)]
    unknown = next((name for name in wish.devices if name not in known), None)
    if unknown is not None:
        return because(ReasonCode.NO_SUCH_DEVICE, device=unknown, known=", ".join(known) or "none")
    if not wish.devices:
        return _wrong("no device is named to boot from")
    if len(set(wish.devices)) != len(wish.devices):
        return _wrong("a device is named twice")
    if wish.devices == config.boot:
        return None
    back = SetBootOrder(devices=config.boot) if config.boot else None
    return _Prepared(edit=wish, back=back, why_later="the order counts when it boots")


def _new_disk(config: VmConfig, _: VmStatus, wish: AddDisk) -> _Prepared | Reason | None:
    if not wish.pool.isprintable() or not wish.pool:
        return _wrong("no pool is named")
    if bool(wish.volume) == bool(wish.size_mib) and not wish.size_mib:
        return _wrong("neither a volume is named nor the size of a new one")
    if wish.volume and (not re.fullmatch(r"[^/\x00-\x1f\x7f]{1,200}", wish.volume)):
        return _wrong("the name of a volume is printable text without slashes")
    if wish.size_mib and not 1 <= wish.size_mib <= 1024**3:
        return _wrong("a disk is from 1 MiB to 1 PiB")
    return _Prepared(edit=wish)


def _larger_disk(config: VmConfig, _: VmStatus, wish: GrowDisk) -> _Prepared | Reason | None:
    disks = [disk for disk in config.disks if disk.device == "disk"]
    disk = _one_of(disks, wish.disk, lambda d: d.target, _wrong("has no disk"))
    if isinstance(disk, Reason):
        return disk
    if not 1 <= wish.size_mib <= 1024**3:
        return _wrong("a disk is from 1 MiB to 1 PiB")
    if disk.read_only:
        return _wrong(f"disk {disk.target} is read-only")
    if disk.capacity_bytes and disk.capacity_bytes >= wish.size_mib * units.MIB:
        size = units.size_text(disk.capacity_bytes)
        return _wrong(f"disk {disk.target} has {size} already, and is never made smaller")
    if config.snapshots:
        return because(ReasonCode.HAS_SNAPSHOTS, count=config.snapshots)
    return _Prepared(edit=replace(wish, disk=disk.target))


# --- what all of them share ----------------------------------------------------------------------


def _decide(prepare: Prepare) -> Callable[[ClusterView, Vm, Any], Verdict]:
    def decide(view: ClusterView, vm: Vm, wish: Any) -> Verdict:
        denied = common(view, vm, needs_free=False)  # it waits until other work on the VM has ended
        if denied is not None:
            return denied
        if vm.alarm:
            return Denied(reason=because(ReasonCode.RUNS_TWICE, nodes=places(vm)))
        if vm.config is None:
            return Denied(reason=because(ReasonCode.DEFINITION_UNREAD))
        found = prepare(vm.config, vm.status, wish)
        if isinstance(wish, AddDisk) and not wish.size_mib and (user := _user_of(view, wish.volume)):
            found = user
        if found is None:
            return Denied(reason=because(ReasonCode.ALREADY_SET), already=True)
        if isinstance(found, Reason):
            return Denied(reason=found)
        if not vm.config.persistent and (edits.is_later(found.edit) or isinstance(wish, SetAutostart)):
            return Denied(reason=because(ReasonCode.NOT_PERSISTENT))
        return Allowed(target=vm.owner, note=_note(found, vm.status))

    return decide


def _user_of(view: ClusterView, volume: str) -> Reason | None:
    """Who has a disk whose image has this name: two VMs that write to one image destroy what is in it."""
    for vm in view.vms.values():
        for disk in vm.config.disks if vm.config else ():
            if volume and disk.source.rpartition("/")[2] == volume:
                return _wrong(f"{vm.name} has {disk.source} as its disk {disk.target}")
    return None


def _note(found: _Prepared, status: VmStatus) -> Reason:
    what = edits.told(found.edit)
    if status is VmStatus.SAVED and not isinstance(found.edit, Describe | SetAutostart):
        why = "its saved state keeps what it had"
        return because(ReasonCode.EDIT_LATER, what=what, why=why)
    if status in ON and found.why_later:
        if edits.is_later(found.edit):
            return because(ReasonCode.EDIT_LATER, what=what, why=found.why_later)
        why = f"{found.why_later} counts from its next start"
        return because(ReasonCode.EDITED, what=f"{what} now; {why}")
    return because(ReasonCode.EDITED, what=what)


def _detail(prepare: Prepare) -> Callable[[Operation, PlanStep, VmConfig | None, Any], Operation]:
    def detail(operation: Operation, step: PlanStep, config: VmConfig | None, wish: Any) -> Operation:
        found = prepare(config, step.status, wish) if config is not None else None
        if not isinstance(found, _Prepared):  # the definition changed since the plan was made
            return replace(operation, edit=edits.journaled(wish))
        back = edits.journaled(found.back) if found.back is not None else None
        return replace(operation, edit=edits.journaled(found.edit), back=back)

    return detail


def _reverse(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    return (operation.action, operation.back.one) if operation.back is not None else None


def _spec(
    id: str, title: str, verb: str, command: str, doc: str, default: Any, prepare: Prepare, icon: str
) -> ActionSpec[Any]:
    return ActionSpec(
        id=id,
        title=title,
        verb=verb,
        command=command,
        group=Group.SETTINGS,
        doc=doc,
        default=default,
        decide=_decide(prepare),
        kind=OperationKind.SETTINGS,
        detail=_detail(prepare),
        reverse=_reverse,
        icon=icon,
    )


CD = _spec(
    "vm.cd",
    "CD…",
    "Change the CD of",
    "cd",
    "Insert a CD image into a VM's drive, or eject it.",
    SetMedium(),
    _medium,
    "cd",
)
MEMORY = _spec(
    "vm.memory",
    "Memory…",
    "Set the memory of",
    "memory",
    "Set how much memory VMs have: at once up to the maximum with which they run, else at their next start.",
    SetMemory(),
    _memory,
    "memory",
)
VCPUS = _spec(
    "vm.vcpus",
    "vCPUs…",
    "Set the vCPUs of",
    "vcpus",
    "Set how many virtual CPUs VMs have: more at once, up to the maximum with which they run; "
    "else at their next start.",
    SetVcpus(),
    _vcpus,
    "vcpus",
)
DESCRIPTION = _spec(
    "vm.description",
    "Title and description…",
    "Describe",
    "describe",
    "Set the title and the description of VMs.",
    Describe(),
    _description,
    "description",
)
AUTOSTART = _spec(
    "vm.autostart",
    "Start with the host…",
    "Set the autostart of",
    "autostart",
    "Set whether VMs are started when their host starts.",
    SetAutostart(),
    _autostart,
    "autostart",
)
NETWORK = _spec(
    "vm.network",
    "Network…",
    "Set the network of",
    "network",
    "Connect a VM's network interface to another bridge or network, or set its link up or down.",
    SetInterface(),
    _interface,
    "network",
)
BOOT_ORDER = _spec(
    "vm.boot_order",
    "Boot order…",
    "Set the boot order of",
    "boot-order",
    "Set from which devices VMs boot, in order. It counts from their next start.",
    SetBootOrder(),
    _boot,
    "boot_order",
)
ADD_DISK = _spec(
    "vm.add_disk",
    "Add a disk…",
    "Add a disk to",
    "add-disk",
    "Attach a volume of a pool of the VM's node as a disk, or a new one.",
    AddDisk(),
    _new_disk,
    "add_disk",
)
GROW_DISK = _spec(
    "vm.grow_disk",
    "Grow a disk…",
    "Grow a disk of",
    "grow-disk",
    "Make a disk larger. The guest's file systems stay as they are. It cannot be taken back.",
    GrowDisk(),
    _larger_disk,
    "grow_disk",
)

DEFINITION = (CD, MEMORY, VCPUS, DESCRIPTION, AUTOSTART, NETWORK, BOOT_ORDER, ADD_DISK, GROW_DISK)
"""In the order of menus."""

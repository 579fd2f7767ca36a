"""The actions on snapshots."""

from __future__ import annotations

from dataclasses import replace

from manager.core.actions.spec import ActionSpec, Allowed, Denied, Group, PlanStep, Verdict, common
from manager.core.cluster import ClusterView
from manager.core.effects import VmChange
from manager.core.model import SnapshotParameters, Vm, VmConfig, VmStatus
from manager.core.operations import Operation
from manager.core.reasons import Reason, ReasonCode, because

MAX_NAME = 100

_MAY_BE_TAKEN = frozenset({VmStatus.RUNNING, VmStatus.PAUSED, VmStatus.OFF, VmStatus.CRASHED})


def name_trouble(name: str) -> Reason | None:
    """Why libvirt takes no snapshot of this name, if so. Source: libvirt virDomainSnapshotDefParse."""
    if not name:
        return because(ReasonCode.NO_SNAPSHOT_NAMED)
    if "/" in name or name.startswith(".") or len(name) > MAX_NAME:
        return because(ReasonCode.SNAPSHOT_NAME, limit=MAX_NAME)
    return None


def _decide(view: ClusterView, vm: Vm, wish: SnapshotParameters) -> Denied | None:
    """What forbids anything with a VM's snapshots."""
    denied = common(view, vm)
    if denied is not None:
        return denied
    if vm.status not in _MAY_BE_TAKEN:
        return Denied(reason=because(ReasonCode.STATE_FORBIDS, status=vm.status.value))
    if vm.alarm:
        nodes = ", ".join(sorted({str(vm.owner), *vm.other_nodes}))
        return Denied(reason=because(ReasonCode.RUNS_TWICE, nodes=nodes))
    if vm.config is None:
        return Denied(reason=because(ReasonCode.DEFINITION_UNREAD))
    trouble = name_trouble(wish.name)
    return Denied(reason=trouble) if trouble is not None else None


def _decide_create(view: ClusterView, vm: Vm, wish: SnapshotParameters) -> Verdict:
    denied = _decide(view, vm, wish)
    if denied is not None:
        return denied
    disks = vm.config.disks if vm.config else ()
    written = [d for d in disks if d.device in ("disk", "lun") and d.source and not d.read_only]
    if not written:
        return Denied(reason=because(ReasonCode.NO_DISK_FOR_SNAPSHOT))
    for disk in written:
        if wish.disk_only and disk.kind == "network":
            return Denied(reason=because(ReasonCode.SNAPSHOT_DISK, target=disk.target, format="network"))
        if not wish.disk_only and disk.format != "qcow2":
            kind = disk.format or "raw"
            return Denied(reason=because(ReasonCode.SNAPSHOT_DISK, target=disk.target, format=kind))
    code = ReasonCode.SNAPSHOT_OF_DISKS if wish.disk_only else ReasonCode.SNAPSHOT_HOLDS
    return Allowed(target=vm.owner, note=because(code, name=wish.name))


def _decide_on_one(view: ClusterView, vm: Vm, wish: SnapshotParameters) -> Verdict:
    denied = _decide(view, vm, wish)
    if denied is not None:
        return denied
    if vm.config and not vm.config.snapshots:
        return Denied(reason=because(ReasonCode.NO_SNAPSHOTS))
    return Allowed(target=vm.owner, note=because(ReasonCode.SNAPSHOT_NAMED, name=wish.name))


def _which(operation: Operation, _: PlanStep, __: VmConfig | None, wish: SnapshotParameters) -> Operation:
    return replace(operation, snapshot=wish)


SNAPSHOT_CREATE: ActionSpec[SnapshotParameters] = ActionSpec(
    id="vm.snapshot_create",
    title="Take snapshot…",
    verb="Take a snapshot of",
    command="snapshot create",
    group=Group.SNAPSHOTS,
    doc="Keep VMs as they are now: their disks and, while they run, their memory."
    " They stand still while their memory is written.",
    default=SnapshotParameters(),
    decide=_decide_create,
    detail=_which,
    change=VmChange.SNAPSHOT_CREATE,
    icon="snapshot",
)

SNAPSHOT_DELETE: ActionSpec[SnapshotParameters] = ActionSpec(
    id="vm.snapshot_delete",
    title="Delete snapshot…",
    verb="Delete a snapshot of",
    command="snapshot delete",
    group=Group.SNAPSHOTS,
    doc="Forget a snapshot. The VMs go on as they are now.",
    default=SnapshotParameters(),
    decide=_decide_on_one,
    detail=_which,
    change=VmChange.SNAPSHOT_DELETE,
    destructive=True,
    consequence="What it kept of an earlier time is lost; the VMs go on as they are now.",
    icon="snapshot_delete",
)

SNAPSHOT_REVERT: ActionSpec[SnapshotParameters] = ActionSpec(
    id="vm.snapshot_revert",
    title="Revert to snapshot…",
    verb="Revert",
    command="snapshot revert",
    group=Group.SNAPSHOTS,
    doc="Make VMs what they were when a snapshot was taken. What was written since is lost.",
    default=SnapshotParameters(),
    decide=_decide_on_one,
    detail=_which,
    change=VmChange.SNAPSHOT_REVERT,
    destructive=True,
    consequence="Everything written to their disks since the snapshot was taken is lost, and what is in"
    " their memory now. A VM whose memory it kept runs on from there; any other is off afterwards.",
    icon="snapshot_revert",
)

SNAPSHOT_ACTIONS = (SNAPSHOT_CREATE, SNAPSHOT_DELETE, SNAPSHOT_REVERT)

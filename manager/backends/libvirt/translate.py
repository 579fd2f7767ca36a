"""libvirt's numbers as the core's words: states with their reasons, and events. Pure; tables only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import libvirt

from manager.backends.libvirt.errors import cleaned
from manager.core.events import (
    Event,
    NodeNotesChanged,
    NodeResourcesChanged,
    VmDefinitionChanged,
    VmDiskFailed,
    VmRebooted,
    VmStateChanged,
    VmUndefined,
)
from manager.core.ids import NodeId, VmId
from manager.core.model import StatusCause, VmStatus

_S = VmStatus
_C = StatusCause


@dataclass(frozen=True, slots=True)
class Told:
    """A state in the core's words."""

    status: VmStatus
    cause: StatusCause = StatusCause.NONE
    shutting_down: bool = False


RUNNING_CAUSES: Mapping[int, StatusCause] = {
    libvirt.VIR_DOMAIN_RUNNING_UNKNOWN: _C.NONE,
    libvirt.VIR_DOMAIN_RUNNING_BOOTED: _C.BOOTED,
    libvirt.VIR_DOMAIN_RUNNING_MIGRATED: _C.MIGRATED,
    libvirt.VIR_DOMAIN_RUNNING_RESTORED: _C.RESTORED,
    libvirt.VIR_DOMAIN_RUNNING_FROM_SNAPSHOT: _C.SNAPSHOT,
    libvirt.VIR_DOMAIN_RUNNING_UNPAUSED: _C.USER,
    libvirt.VIR_DOMAIN_RUNNING_MIGRATION_CANCELED: _C.MIGRATION_CANCELLED,
    libvirt.VIR_DOMAIN_RUNNING_SAVE_CANCELED: _C.NONE,
    libvirt.VIR_DOMAIN_RUNNING_WAKEUP: _C.NONE,
    libvirt.VIR_DOMAIN_RUNNING_CRASHED: _C.CRASHED,
    libvirt.VIR_DOMAIN_RUNNING_POSTCOPY: _C.POSTCOPY,
    libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED: _C.POSTCOPY_FAILED,
}
"""Source: libvirt virDomainRunningReason."""

PAUSED_CAUSES: Mapping[int, StatusCause] = {
    libvirt.VIR_DOMAIN_PAUSED_UNKNOWN: _C.OTHER,
    libvirt.VIR_DOMAIN_PAUSED_USER: _C.USER,
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: _C.MIGRATION,
    libvirt.VIR_DOMAIN_PAUSED_SAVE: _C.SAVING,
    libvirt.VIR_DOMAIN_PAUSED_DUMP: _C.DUMPING,
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: _C.IO_ERROR,
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: _C.WATCHDOG,
    libvirt.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT: _C.SNAPSHOT,
    libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN: _C.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT: _C.SNAPSHOT,
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: _C.PANICKED,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: _C.STARTING_UP,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: _C.POSTCOPY,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: _C.POSTCOPY_FAILED,
    14: _C.API_ERROR,  # VIR_DOMAIN_PAUSED_API_ERROR, newer than the oldest libvirt we build with
}
"""Source: libvirt virDomainPausedReason."""

OFF_CAUSES: Mapping[int, StatusCause] = {
    libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN: _C.NONE,
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: _C.SHUT_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: _C.TURNED_OFF,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: _C.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: _C.MIGRATED,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: _C.SAVED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: _C.FAILED,
    libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT: _C.SNAPSHOT,
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: _C.DAEMON,
}
"""Source: libvirt virDomainShutoffReason."""


def told(state: int, reason: int, *, has_saved_state: bool = False) -> Told:
    """A domain's state and reason. Numbers of a newer libvirt become "unknown", never an error.

    Source: libvirt virDomainGetState.
    """
    match state:
        case libvirt.VIR_DOMAIN_RUNNING | libvirt.VIR_DOMAIN_BLOCKED:
            return Told(_S.RUNNING, RUNNING_CAUSES.get(reason, _C.OTHER))
        case libvirt.VIR_DOMAIN_SHUTDOWN:
            return Told(_S.RUNNING, _C.SHUTTING_DOWN, shutting_down=True)
        case libvirt.VIR_DOMAIN_PAUSED:
            return Told(_S.PAUSED, PAUSED_CAUSES.get(reason, _C.OTHER))
        case libvirt.VIR_DOMAIN_PMSUSPENDED:
            return Told(_S.PAUSED, _C.SLEEPING)
        case libvirt.VIR_DOMAIN_CRASHED:
            panicked = reason == libvirt.VIR_DOMAIN_CRASHED_PANICKED
            return Told(_S.CRASHED, _C.PANICKED if panicked else _C.CRASHED)
        case libvirt.VIR_DOMAIN_SHUTOFF if has_saved_state:
            return Told(_S.SAVED, _C.SAVED)
        case libvirt.VIR_DOMAIN_SHUTOFF:
            cause = OFF_CAUSES.get(reason, _C.OTHER)
            return Told(_S.CRASHED if cause is _C.CRASHED else _S.OFF, cause)
        case _:
            return Told(_S.UNKNOWN, _C.OTHER)


RESOURCES = -1
"""In place of a domain event's number: of pools and networks it only counts that something changed."""

NOTES = -2
"""In the same place: a hold of the node was set, changed or removed."""


@dataclass(frozen=True, slots=True)
class RawEvent:
    """What a callback copied out of libvirt's objects: names and numbers."""

    kind: int  # VIR_DOMAIN_EVENT_ID_..., RESOURCES or NOTES
    uuid: str
    name: str
    event: int = 0
    detail: int = 0
    texts: tuple[str, str] = ("", "")  # of a disk's error: its source, and the reason

    @property
    def is_sign_of_job(self) -> bool:
        """Whether a job may have begun or, of several on a VM, one has ended. No event says more than that.

        Of a backup there is none before its end. Source: libvirt virConnectDomainEventID, and seen.
        """
        if self.kind == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE:  # a save, a dump, a snapshot pause it first
            paused = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)
            return (self.event, self.detail) == paused
        of_backup = (
            libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
            libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP,
        )
        return self.is_transfer and (self.kind, self.event) != of_backup

    @property
    def is_transfer(self) -> bool:
        """Whether a job has sent something, or copied."""
        return self.kind in (
            libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
            libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
        )

    @property
    def changed_disks(self) -> bool:
        """Whether a block job is done after which a disk may be another image: nothing else tells that."""
        is_done = (libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)
        is_backup = self.event == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP
        return (self.kind, self.detail) == is_done and not is_backup

    @property
    def is_end_of_job(self) -> bool:
        """Whether a VM's job is over."""
        return bool(self.kind == libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED)

    @property
    def is_stop(self) -> bool:
        """Whether a VM stopped."""
        return (self.kind, self.event) == (
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            libvirt.VIR_DOMAIN_EVENT_STOPPED,
        )


_LIFECYCLE: Mapping[int, Mapping[int, Told]] = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: {
        libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED: Told(_S.RUNNING, _C.BOOTED),
        # Sent when the target has prepared itself: the memory is still to come, RESUMED tells the end.
        libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED: Told(_S.PAUSED, _C.MIGRATION),
        libvirt.VIR_DOMAIN_EVENT_STARTED_RESTORED: Told(_S.RUNNING, _C.RESTORED),
        libvirt.VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT: Told(_S.RUNNING, _C.SNAPSHOT),
        libvirt.VIR_DOMAIN_EVENT_STARTED_WAKEUP: Told(_S.RUNNING),
    },
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: {
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED: Told(_S.PAUSED, _C.USER),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED: Told(_S.PAUSED, _C.MIGRATION),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR: Told(_S.PAUSED, _C.IO_ERROR),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG: Told(_S.PAUSED, _C.WATCHDOG),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_RESTORED: Told(_S.PAUSED, _C.RESTORED),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT: Told(_S.PAUSED, _C.SNAPSHOT),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_API_ERROR: Told(_S.PAUSED, _C.API_ERROR),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY: Told(_S.PAUSED, _C.POSTCOPY),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED: Told(_S.PAUSED, _C.POSTCOPY_FAILED),
    },
    libvirt.VIR_DOMAIN_EVENT_RESUMED: {
        libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED: Told(_S.RUNNING, _C.USER),
        libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED: Told(_S.RUNNING, _C.MIGRATED),
        # Also sent by a start from a saved state. Source: seen on libvirt 9.0's QEMU driver.
        libvirt.VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT: Told(_S.RUNNING, _C.RESTORED),
        libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY: Told(_S.RUNNING, _C.POSTCOPY),
        4: Told(_S.RUNNING, _C.POSTCOPY_FAILED),  # VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED
    },
    libvirt.VIR_DOMAIN_EVENT_STOPPED: {
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: Told(_S.OFF, _C.SHUT_DOWN),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: Told(_S.OFF, _C.TURNED_OFF),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: Told(_S.CRASHED, _C.CRASHED),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: Told(_S.OFF, _C.MIGRATED),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: Told(_S.SAVED, _C.SAVED),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: Told(_S.OFF, _C.FAILED),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT: Told(_S.OFF, _C.SNAPSHOT),
    },
    libvirt.VIR_DOMAIN_EVENT_CRASHED: {
        libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED: Told(_S.CRASHED, _C.PANICKED),
    },
}
"""Source: libvirt virDomainEventType and its detail types."""

_WHATEVER_THE_DETAIL: Mapping[int, Told] = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: Told(_S.RUNNING, _C.OTHER),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: Told(_S.PAUSED, _C.OTHER),
    libvirt.VIR_DOMAIN_EVENT_RESUMED: Told(_S.RUNNING, _C.OTHER),
    libvirt.VIR_DOMAIN_EVENT_STOPPED: Told(_S.OFF, _C.OTHER),
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: Told(_S.RUNNING, _C.SHUTTING_DOWN, shutting_down=True),
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: Told(_S.PAUSED, _C.SLEEPING),
    # Not CRASHED: a kernel that has loaded its crash dumper still runs.
}
"""What an event means whose detail is new to us, or does not matter."""

_DEFINITION_KINDS = frozenset(
    {
        libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    }
)


_AGENT = {
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED: True,
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED: False,
}


def event_of(raw: RawEvent, *, node: NodeId, at_s: float) -> Event | None:
    """The core's event for one of libvirt's, or None if it changes nothing that is shown."""
    if raw.kind == RESOURCES:
        return NodeResourcesChanged(at_s=at_s, node=node)
    if raw.kind == NOTES:
        return NodeNotesChanged(at_s=at_s, node=node)
    vm = VmId(raw.uuid)
    if raw.kind == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE:
        return _lifecycle(raw, vm, node, at_s)
    if raw.kind in _DEFINITION_KINDS:
        return VmDefinitionChanged(at_s=at_s, node=node, vm=vm, name=raw.name)
    if raw.kind == libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE:
        agent = _AGENT.get(raw.event)
        return VmDefinitionChanged(at_s=at_s, node=node, vm=vm, name=raw.name, agent=agent)
    if raw.kind == libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON:
        disk, text = (cleaned(each) for each in raw.texts)
        stopped = raw.event == libvirt.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE
        return VmDiskFailed(at_s=at_s, node=node, vm=vm, disk=disk, text=text, stopped=stopped)
    if raw.changed_disks:
        return VmDefinitionChanged(at_s=at_s, node=node, vm=vm, name=raw.name)
    if raw.kind == libvirt.VIR_DOMAIN_EVENT_ID_REBOOT:
        return VmRebooted(at_s=at_s, node=node, vm=vm)
    return None


def _lifecycle(raw: RawEvent, vm: VmId, node: NodeId, at_s: float) -> Event | None:
    if raw.event == libvirt.VIR_DOMAIN_EVENT_DEFINED:
        is_new = raw.detail == libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED
        return VmDefinitionChanged(at_s=at_s, node=node, vm=vm, name=raw.name, is_new=is_new)
    if raw.event == libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
        if raw.detail == libvirt.VIR_DOMAIN_EVENT_UNDEFINED_RENAMED:
            return None  # the same UUID is defined under its new name right after
        return VmUndefined(at_s=at_s, node=node, vm=vm)
    seen = _LIFECYCLE.get(raw.event, {}).get(raw.detail) or _WHATEVER_THE_DETAIL.get(raw.event)
    if seen is None:
        return None
    return VmStateChanged(
        at_s=at_s,
        node=node,
        vm=vm,
        name=raw.name,
        status=seen.status,
        cause=seen.cause,
        shutting_down=seen.shutting_down,
    )

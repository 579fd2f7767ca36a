"""Changes of one VM on its host: power, saved state, our metadata. Lane threads only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import libvirt

from manager.backends.libvirt import metadata
from manager.backends.libvirt.errors import cleaned, failure_of
from manager.backends.libvirt.reading import lookup
from manager.backends.libvirt.translate import told
from manager.backends.libvirt.xml_text import root_of
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import NodeId, VmId
from manager.core.model import VmSettings, VmStatus

CTRL_ALT_DEL = (29, 56, 111)
"""KEY_LEFTCTRL, KEY_LEFTALT, KEY_DELETE. Source: linux/input-event-codes.h."""

KEY_HELD_MS = 100

_ON = frozenset({VmStatus.RUNNING, VmStatus.PAUSED})

ALREADY: dict[VmChange, frozenset[VmStatus]] = {
    VmChange.START: _ON,
    VmChange.SHUT_DOWN: frozenset({VmStatus.OFF, VmStatus.SAVED}),
    VmChange.SHUT_DOWN_AGENT: frozenset({VmStatus.OFF, VmStatus.SAVED}),
    VmChange.TURN_OFF: frozenset({VmStatus.OFF, VmStatus.SAVED}),
    VmChange.SAVE: frozenset({VmStatus.SAVED}),
    VmChange.DELETE_SAVED_STATE: frozenset({VmStatus.OFF}) | _ON,
    VmChange.PAUSE: frozenset({VmStatus.PAUSED}),
    VmChange.RESUME: frozenset({VmStatus.RUNNING}),
}
"""States in which a change has nothing to do: some drivers would report success, others an error."""

NEEDS_RUNNING = frozenset(
    {
        VmChange.PAUSE,
        VmChange.RESUME,
        VmChange.RESTART,
        VmChange.RESET,
        VmChange.SAVE,
        VmChange.CTRL_ALT_DEL,
    }
)
"""Changes that a VM without a process cannot follow; drivers disagree on the error."""


def change(connection: libvirt.virConnect, vm: VmId, wanted: VmChange) -> str:
    """Make one change that is about no snapshot; returns the VM's name when libvirt's call does.

    Raises:
        OperationError: ALREADY, or WRONG_STATE and what else libvirt says.
    """
    domain = lookup(connection, vm)
    _refuse_by_state(domain, wanted)
    try:
        _CALLS[wanted](domain)
    except libvirt.libvirtError as error:
        # In the first moments after a daemon's restart a call may fail though it was obeyed: look again.
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
            _refuse_by_state(domain, wanted)
        raise
    return cleaned(domain.name())


def _status(domain: libvirt.virDomain) -> VmStatus:
    state, reason = domain.state()
    is_off = state == libvirt.VIR_DOMAIN_SHUTOFF
    return told(state, reason, has_saved_state=is_off and bool(domain.hasManagedSaveImage(0))).status


def _refuse_by_state(domain: libvirt.virDomain, wanted: VmChange) -> None:
    status, is_active = _status(domain), bool(domain.isActive())
    text = f"it is {status.value.lower()}"
    if wanted is VmChange.TURN_OFF and not is_active:  # crashed, and its process is gone
        raise OperationError(Failure(code=FailureCode.ALREADY, text=text))
    if status in ALREADY.get(wanted, ()):
        raise OperationError(Failure(code=FailureCode.ALREADY, text=text))
    if wanted in NEEDS_RUNNING and not is_active:
        raise OperationError(Failure(code=FailureCode.WRONG_STATE, text=text))


def _shut_down(domain: libvirt.virDomain) -> None:
    try:
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT):
            raise
        domain.shutdown()  # a driver that has one way only


def _shut_down_agent(domain: libvirt.virDomain) -> None:
    try:
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
        raise OperationError(failure_of(error, FailureCode.NOT_SUPPORTED)) from None


def _resume(domain: libvirt.virDomain) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_PMSUSPENDED:
        domain.pMWakeup(0)
    else:
        domain.resume()


_CALLS: dict[VmChange, Callable[[libvirt.virDomain], object]] = {
    VmChange.START: lambda domain: domain.createWithFlags(0),
    VmChange.SHUT_DOWN: _shut_down,
    VmChange.SHUT_DOWN_AGENT: _shut_down_agent,
    VmChange.TURN_OFF: lambda domain: domain.destroyFlags(0),
    VmChange.RESTART: lambda domain: domain.reboot(0),
    VmChange.SAVE: lambda domain: domain.managedSave(0),
    VmChange.DELETE_SAVED_STATE: lambda domain: domain.managedSaveRemove(0),
    VmChange.PAUSE: lambda domain: domain.suspend(),
    VmChange.RESUME: _resume,
    VmChange.RESET: lambda domain: domain.reset(0),
    VmChange.CTRL_ALT_DEL: lambda domain: domain.sendKey(
        libvirt.VIR_KEYCODE_SET_LINUX, KEY_HELD_MS, list(CTRL_ALT_DEL), len(CTRL_ALT_DEL), 0
    ),
}


def write_settings(connection: libvirt.virConnect, vm: VmId, settings: VmSettings) -> None:
    """Merge our settings into the VM's metadata, live and stored.

    Raises:
        OperationError: CONFLICT if what stands there is no XML: it is somebody's, and not ours to overwrite.
    """
    _rewrite(lookup(connection, vm), lambda existing: metadata.merged(existing, settings))


def note_drained(connection: libvirt.virConnect, vm: VmId, drained_from: NodeId | None) -> None:
    """Note in the VM's metadata from where it is drained; all else there stays. Raises as above."""

    def noted(existing: str | None) -> str:
        element = root_of(existing, keep_all=True) if existing else None
        settings = replace(metadata.settings_of(element), drained_from=drained_from)
        return metadata.merged(existing, settings)

    _rewrite(lookup(connection, vm), noted)


def _rewrite(domain: libvirt.virDomain, change: Callable[[str | None], str]) -> None:
    """Put our metadata element's new text in place of the old one."""
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    try:
        existing: str | None = domain.metadata(kind, metadata.NAMESPACE, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            raise
        existing = None
    try:
        text = change(existing)
    except ValueError as error:
        text = cleaned(f"its metadata cannot be changed: {error}")
        raise OperationError(Failure(code=FailureCode.CONFLICT, text=text)) from None
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
    flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
    domain.setMetadata(kind, text, metadata.PREFIX, metadata.NAMESPACE, flags)


def set_autostart(connection: libvirt.virConnect, vm: VmId) -> None:
    """Have the host start this VM when it boots."""
    lookup(connection, vm).setAutostart(1)

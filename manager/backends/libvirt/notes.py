"""Holds on a node, kept by the node itself: a libvirt secret for each holder, not private, readable by all.

The name of the secret's use says that it is ours and whose it is; the value is a small JSON object. No
secret of anybody else is read, changed or listed. Lane threads only.

Source: libvirt virConnectListAllSecrets, virSecretDefineXML, virSecretSetValue, virSecretUndefine.
"""

from __future__ import annotations

import contextlib
from typing import Annotated

import libvirt
import msgspec
from lxml import etree

from manager.backends.libvirt.errors import cleaned
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.model import DrainState, Hold

PREFIX = "muster:hold:"
_USAGE = libvirt.VIR_SECRET_USAGE_TYPE_CEPH  # a plain name; nothing looks for one of ours there
MOST_HOLDS = 32
MOST_BYTES = 4096
MOST_WHO, MOST_WHY = 200, 500

_Text = Annotated[str, msgspec.Meta(max_length=MOST_BYTES)]


class _Note(msgspec.Struct, frozen=True):
    """The value. What a newer Muster adds is ignored."""

    who: _Text
    why: _Text = ""
    since_s: float = 0.0
    drain: _Text = ""


def is_ours(usage: str) -> bool:
    """Whether a secret of this use is a hold."""
    return usage.startswith(PREFIX)


def read(connection: libvirt.virConnect) -> tuple[Hold, ...]:
    """All holds, the oldest first.

    Raises:
        OperationError: NOT_SUPPORTED if the host has no secrets.
    """
    try:
        secrets = connection.listAllSecrets(libvirt.VIR_CONNECT_LIST_SECRETS_NO_PRIVATE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            text = "this host keeps no notes: its libvirt has no secrets"
            raise OperationError(Failure(code=FailureCode.NOT_SUPPORTED, text=text)) from None
        raise
    found: list[Hold] = []
    for secret in secrets:
        if len(found) < MOST_HOLDS and secret.usageType() == _USAGE and is_ours(secret.usageID()):
            with contextlib.suppress(libvirt.libvirtError):  # removed meanwhile, or has no value yet
                hold = _hold_of(secret.value(0))
                if hold is not None:
                    found.append(hold)
    return tuple(sorted(found, key=lambda hold: (hold.since_s, hold.who)))


def write(connection: libvirt.virConnect, hold: Hold) -> None:
    """Keep a hold, in place of this holder's earlier one."""
    name = PREFIX + hold.who
    try:
        secret = connection.secretLookupByUsage(_USAGE, name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise
        secret = connection.secretDefineXML(_definition(name, hold))
    note = _Note(who=hold.who, why=hold.why, since_s=hold.since_s, drain=hold.drain.value)
    secret.setValue(msgspec.json.encode(note), 0)


def remove_all(connection: libvirt.virConnect) -> None:
    """Remove every hold; none may be left, or the node stays paused."""
    for secret in connection.listAllSecrets(0):
        if secret.usageType() == _USAGE and is_ours(secret.usageID()):
            try:
                secret.undefine()
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:  # somebody was quicker
                    raise


def _definition(name: str, hold: Hold) -> str:
    root = etree.Element("secret", ephemeral="no", private="no")
    etree.SubElement(root, "description").text = f"Muster: this node is paused by {hold.who}"
    usage = etree.SubElement(root, "usage", type="ceph")
    etree.SubElement(usage, "name").text = name
    return etree.tostring(root, encoding="unicode")


def _hold_of(value: bytes) -> Hold | None:
    """A hold from what the host keeps, which anybody there may have written; None if it is none."""
    if len(value) > MOST_BYTES:
        return None
    try:
        note = msgspec.json.decode(value, type=_Note)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    known = {state.value: state for state in DrainState}
    who, why = cleaned(note.who)[:MOST_WHO], cleaned(note.why)[:MOST_WHY]
    since_s = note.since_s if 0 <= note.since_s < 1e11 else 0.0
    drain = known.get(note.drain, DrainState.NONE)
    return Hold(who=who, why=why or "no reason given", since_s=since_s, drain=drain) if who else None

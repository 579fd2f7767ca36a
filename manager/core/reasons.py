"""Every reason the product gives, as a code with fields, and the one table of their texts."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from manager.core import units

FieldValue = str | int | float


class ReasonCode(StrEnum):
    """All reasons. The value is what ``--json`` and the journal carry."""

    # why an action does not apply
    ALREADY_RUNNING = "already-running"
    ALREADY_OFF = "already-off"
    ALREADY_SAVED = "already-saved"
    ALREADY_PAUSED = "already-paused"
    ALREADY_THERE = "already-there"
    ALREADY_SET = "already-set"
    NOT_RUNNING = "not-running"
    NOT_PAUSED = "not-paused"
    NO_SAVED_STATE = "no-saved-state"
    STATE_FORBIDS = "state-forbids"
    SAVED_NOT_MOVED = "saved-not-moved"
    NODE_UNREACHABLE = "node-unreachable"
    NODE_HELD = "node-held"
    NODE_BEING_READ = "node-being-read"
    READ_ONLY = "read-only"
    OTHER_AUTHORITY = "other-authority"
    RUNS_TWICE = "runs-twice"
    VM_BUSY = "vm-busy"
    VM_BUSY_ELSEWHERE = "vm-busy-elsewhere"
    NOTHING_TO_CANCEL = "nothing-to-cancel"
    NO_UNDO = "no-undo"
    NOT_SUPPORTED_HERE = "not-supported-here"
    DEFINITION_UNREAD = "definition-unread"
    NO_SUCH_NODE = "no-such-node"
    # why a VM cannot be moved
    HAS_SNAPSHOTS = "has-snapshots"
    HOST_DEVICE = "host-device"
    LOCAL_DISK = "local-disk"
    LOCAL_CD = "local-cd"
    CACHE_MODE = "cache-mode"
    ONLY_ONE_NODE = "only-one-node"
    NO_NODE_FITS = "no-node-fits"
    NO_MEMORY_ON_NODE = "no-memory-on-node"
    NO_CPUS_ON_NODE = "no-cpus-on-node"
    # why something waits
    WAITS_OUTGOING = "waits-outgoing"
    WAITS_INCOMING = "waits-incoming"
    WAITS_CLUSTER = "waits-cluster"
    WAITS_STARTS_NODE = "waits-starts-node"
    WAITS_STARTS_CLUSTER = "waits-starts-cluster"
    WAITS_SAVES = "waits-saves"
    WAITS_MOVE_ENDS = "waits-move-ends"
    WAITS_WORK_ENDS = "waits-work-ends"
    WAITS_INVENTORY = "waits-inventory"
    # why a node was chosen
    CHOSEN_MOST_FREE = "chosen-most-free"
    CHOSEN_BY_USER = "chosen-by-user"
    # how operations end
    DONE = "done"
    MOVED = "moved"
    CANCELLED_BY = "cancelled-by"
    STILL_RUNNING_WAIT_OVER = "still-running-wait-over"
    ACCEPTED = "accepted"
    SHUTDOWN_IGNORED = "shutdown-ignored"
    INTERRUPTED = "interrupted"
    INTERRUPTED_WAITING = "interrupted-waiting"
    JOURNAL_FAILED = "journal-failed"
    ENDED_ELSEWHERE = "ended-elsewhere"
    PEER_LOGIN_REFUSED = "peer-login-refused"
    FAILED = "failed"
    NOT_AS_WANTED = "not-as-wanted"
    # information on VMs and nodes
    MOVING = "moving"
    MOVING_STARTS = "moving-starts"
    NOT_HEARD = "not-heard"
    NEVER_SEEN = "never-seen"
    CONNECTING = "connecting"
    RETRYING = "retrying"
    LOGIN_FAILED = "login-failed"
    INCOMPATIBLE = "incompatible"
    RUNS_PACEMAKER = "runs-pacemaker"
    HELD_BY = "held-by"
    ALSO_DEFINED = "also-defined"
    ALSO_DEFINED_OLDER = "also-defined-older"
    RUNNING_ON_TWO = "running-on-two"
    SAME_HOST_TWICE = "same-host-twice"
    SHUTTING_DOWN = "shutting-down"
    PAUSED_BECAUSE = "paused-because"
    CRASHED_AT = "crashed-at"
    CRASHED_BEFORE = "crashed-before"
    OFF_BECAUSE = "off-because"
    AGENT_SILENT = "agent-silent"
    DEFINITION_TROUBLE = "definition-trouble"
    FOREIGN_JOB = "foreign-job"
    JOURNAL_NOTICE = "journal-notice"
    VM_VANISHED = "vm-vanished"
    BEING_READ = "being-read"
    NOT_SAMPLED = "not-sampled"
    NOT_KNOWN = "not-known"


@dataclass(frozen=True, slots=True)
class Reason:
    """A code with its fields; `text` is what people read."""

    code: ReasonCode
    fields: tuple[tuple[str, FieldValue], ...] = ()

    @property
    def text(self) -> str:
        """The sentence for people."""
        return _FORMAT.format(TEXTS[self.code], **dict(self.fields))

    @property
    def remedy(self) -> str:
        """What to try, or an empty string."""
        return _FORMAT.format(REMEDIES.get(self.code, ""), **dict(self.fields))

    def field(self, name: str) -> FieldValue | None:
        """One of its fields by name."""
        return dict(self.fields).get(name)

    def __str__(self) -> str:
        return self.text


def because(code: ReasonCode, **fields: FieldValue) -> Reason:
    """A reason with its fields."""
    return Reason(code, tuple(fields.items()))


class _Format(string.Formatter):
    """Adds `{x:time}`, `{x:duration}`, `{x:mib}`, `{x:line}`; everything else as usual."""

    _KINDS: ClassVar[dict[str, Callable[[Any], str]]] = {
        "time": units.time_text,
        "duration": units.duration_text,
        "mib": units.mib_text,
        "line": units.line_text,
    }

    def format_field(self, value: Any, format_spec: str) -> str:
        kind = self._KINDS.get(format_spec)
        return kind(value) if kind else str(super().format_field(value, format_spec))


_FORMAT = _Format()

TEXTS: dict[ReasonCode, str] = {
    ReasonCode.ALREADY_RUNNING: "already running on {node}",
    ReasonCode.ALREADY_OFF: "already off",
    ReasonCode.ALREADY_SAVED: "already saved",
    ReasonCode.ALREADY_PAUSED: "already paused",
    ReasonCode.ALREADY_THERE: "already on {node}",
    ReasonCode.ALREADY_SET: "already so",
    ReasonCode.NOT_RUNNING: "not running ({status})",
    ReasonCode.NOT_PAUSED: "not paused ({status})",
    ReasonCode.NO_SAVED_STATE: "has no saved state",
    ReasonCode.STATE_FORBIDS: "not possible while {status}",
    ReasonCode.SAVED_NOT_MOVED: "saved: its memory lies on {node}'s own disk and would be lost",
    ReasonCode.NODE_UNREACHABLE: "node {node} cannot be reached",
    ReasonCode.NODE_HELD: "node {node} is held by {who}: {why}",
    ReasonCode.NODE_BEING_READ: "what runs on {node} is still being read ({count} to go)",
    ReasonCode.READ_ONLY: "this connection is read-only",
    ReasonCode.OTHER_AUTHORITY: "managed by {authority}: read-only here",
    ReasonCode.RUNS_TWICE: "runs on two nodes at once ({nodes}); only turning one copy off by hand is safe",
    ReasonCode.VM_BUSY: "busy: {activity}",
    ReasonCode.VM_BUSY_ELSEWHERE: "busy with a job that is not Muster's on {node}",
    ReasonCode.NOTHING_TO_CANCEL: "nothing is under way",
    ReasonCode.NO_UNDO: "it cannot be taken back",
    ReasonCode.NOT_SUPPORTED_HERE: "the hypervisor on {node} cannot do this ({feature})",
    ReasonCode.DEFINITION_UNREAD: "its definition is still being read",
    ReasonCode.NO_SUCH_NODE: "there is no node {node} in this cluster",
    ReasonCode.HAS_SNAPSHOTS: "has {count} snapshot(s), which libvirt does not move",
    ReasonCode.HOST_DEVICE: "uses a device of its host: {device}",
    ReasonCode.LOCAL_DISK: "disk {target} ({source}) is not on storage shared by the nodes",
    ReasonCode.LOCAL_CD: "CD {target} ({source}) is on {node}'s own disk",
    ReasonCode.CACHE_MODE: "disk {target} has cache mode {cache}: not safe to move",
    ReasonCode.ONLY_ONE_NODE: "there is no other node that is up",
    ReasonCode.NO_NODE_FITS: "no node can take it: {verdicts}",
    ReasonCode.NO_CPUS_ON_NODE: "{node}: not enough CPUs (needs {need} vCPUs, {left} left by the overcommit)",
    ReasonCode.NO_MEMORY_ON_NODE: "{node}: not enough memory (needs {need_mib:mib}, free {free_mib:mib})",
    ReasonCode.WAITS_OUTGOING: "{node} gives {count} of {limit} outgoing moves; {ahead:line}",
    ReasonCode.WAITS_INCOMING: "{node} takes {count} of {limit} incoming moves; {ahead:line}",
    ReasonCode.WAITS_CLUSTER: "the cluster makes {count} of {limit} moves; {ahead:line}",
    ReasonCode.WAITS_STARTS_NODE: "{node} makes {count} of {limit} starts; {ahead:line}",
    ReasonCode.WAITS_STARTS_CLUSTER: "the cluster makes {count} of {limit} starts; {ahead:line}",
    ReasonCode.WAITS_SAVES: "{node} makes {count} of {limit} saves and restores; {ahead:line}",
    ReasonCode.WAITS_MOVE_ENDS: "waits for its move to {node} to end",
    ReasonCode.WAITS_WORK_ENDS: "waits until the work on this VM has ended: {work}",
    ReasonCode.WAITS_INVENTORY: "waits until {node} was read again",
    ReasonCode.CHOSEN_MOST_FREE: "most free memory ({free_mib:mib})",
    ReasonCode.CHOSEN_BY_USER: "chosen",
    ReasonCode.DONE: "done",
    ReasonCode.MOVED: "runs on {node}",
    ReasonCode.CANCELLED_BY: "cancelled by {who}; {place}",
    ReasonCode.STILL_RUNNING_WAIT_OVER: "still under way after {seconds} s; nothing was undone",
    ReasonCode.ACCEPTED: "accepted; not waited for",
    ReasonCode.SHUTDOWN_IGNORED: "the guest did not {asked} within {span:duration}; {place}",
    ReasonCode.INTERRUPTED: "the program ended in the middle; {place}",
    ReasonCode.INTERRUPTED_WAITING: "the program ended before this was started; nothing was done",
    ReasonCode.JOURNAL_FAILED: "not started: the journal cannot be written ({text})",
    ReasonCode.ENDED_ELSEWHERE: "ended by another administrator or the host; {place}",
    ReasonCode.PEER_LOGIN_REFUSED: "{source} cannot log in to {target}: {text}; {place}",
    ReasonCode.FAILED: "{text}; {place}",
    ReasonCode.NOT_AS_WANTED: "the host reported no error, but {place}",
    ReasonCode.MOVING: "moving to {node}, {percent} %",
    ReasonCode.MOVING_STARTS: "moving to {node}, the target prepares",
    ReasonCode.NOT_HEARD: "{node} not heard since {since:time}",
    ReasonCode.NEVER_SEEN: "{node} was never reached: {text}",
    ReasonCode.CONNECTING: "connecting to {node}",
    ReasonCode.RETRYING: "not heard since {since:time}; next try at {at:time}: {text}",
    ReasonCode.LOGIN_FAILED: "login failed: {text}",
    ReasonCode.INCOMPATIBLE: "{text}",
    ReasonCode.RUNS_PACEMAKER: "Pacemaker runs here: its VMs are read-only for now",
    ReasonCode.HELD_BY: "held by {who}: {why}",
    ReasonCode.ALSO_DEFINED: "also defined on {nodes}",
    ReasonCode.ALSO_DEFINED_OLDER: "also defined on {nodes}, older",
    ReasonCode.RUNNING_ON_TWO: "RUNS ON TWO NODES: {nodes}",
    ReasonCode.SAME_HOST_TWICE: "this is the same host as node {node}",
    ReasonCode.SHUTTING_DOWN: "the guest is shutting down",
    ReasonCode.PAUSED_BECAUSE: "paused: {cause}",
    ReasonCode.CRASHED_AT: "crashed {at:time}: {cause}",
    ReasonCode.CRASHED_BEFORE: "crashed before Muster looked",
    ReasonCode.OFF_BECAUSE: "{cause} {at:time}",
    ReasonCode.AGENT_SILENT: "the guest agent does not answer",
    ReasonCode.DEFINITION_TROUBLE: "its definition is not understood: {text}",
    ReasonCode.FOREIGN_JOB: "{what} by someone else",
    ReasonCode.JOURNAL_NOTICE: "{text}",
    ReasonCode.VM_VANISHED: "no node has a definition of it any more",
    ReasonCode.BEING_READ: "being read",
    ReasonCode.NOT_SAMPLED: "not measured yet",
    ReasonCode.NOT_KNOWN: "not known",
}

REMEDIES: dict[ReasonCode, str] = {
    ReasonCode.HAS_SNAPSHOTS: "Delete or merge its snapshots first.",
    ReasonCode.HOST_DEVICE: "Shut the VM down, or remove the device.",
    ReasonCode.LOCAL_DISK: "Put the disk on a shared path and name that path under [storage] shared_paths"
    " in the cluster file.",
    ReasonCode.LOCAL_CD: "Eject the CD.",
    ReasonCode.CACHE_MODE: "Set the disk's cache mode to none or directsync;"
    " it counts from the next start of the VM.",
    ReasonCode.NODE_UNREACHABLE: "See the node's Information;"
    " its rows come back by themselves when it answers.",
    ReasonCode.SHUTDOWN_IGNORED: "Wait longer, ask the guest agent, or turn it off.",
    ReasonCode.PEER_LOGIN_REFUSED: "Repair it with: {commands}. Or move through this computer.",
    ReasonCode.NO_NODE_FITS: "Free memory on a node, or choose a node.",
    ReasonCode.READ_ONLY: "Connect again without “read-only”.",
    ReasonCode.LOGIN_FAILED: "{hint}",
    ReasonCode.NEVER_SEEN: "{hint}",
    ReasonCode.SAVED_NOT_MOVED: "Start it, then move it.",
}

"""Every reason the product gives, as a code with fields, and the one table of their texts."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
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
    TAGS_CHANGE = "tags-change"
    EDITED = "edited"
    EDITED_LATER = "edited-later"
    EDIT_LATER = "edit-later"
    EDIT_WRONG = "edit-wrong"
    NO_CD_DRIVE = "no-cd-drive"
    WHICH_DEVICE = "which-device"
    NO_SUCH_DEVICE = "no-such-device"
    TAG_CHARACTERS = "tag-characters"
    TAG_LENGTH = "tag-length"
    TOO_MANY_TAGS = "too-many-tags"
    OWNERS_CHANGE = "owners-change"
    RULES_CHANGE = "rules-change"
    RULE_GROUP = "rule-group"
    TOO_MANY_RULES = "too-many-rules"
    NOT_RUNNING = "not-running"
    NOT_PAUSED = "not-paused"
    NO_SAVED_STATE = "no-saved-state"
    STATE_FORBIDS = "state-forbids"
    SAVED_NOT_MOVED = "saved-not-moved"
    NODE_UNREACHABLE = "node-unreachable"
    NODE_HELD = "node-held"
    NODE_BEING_READ = "node-being-read"
    NODE_BUSY = "node-busy"
    NODE_PAUSED_ALREADY = "node-paused-already"
    NODE_DRAINED_ALREADY = "node-drained-already"
    NODE_DRAINED_BY = "node-drained-by"
    NODE_NOT_PAUSED = "node-not-paused"
    NODE_KEEPS_NO_NOTES = "node-keeps-no-notes"
    DRAIN_NO_ROOM = "drain-no-room"
    TEXT_TOO_LONG = "text-too-long"
    READ_ONLY = "read-only"
    IS_A_DUMP = "is-a-dump"
    OTHER_AUTHORITY = "other-authority"
    RUNS_TWICE = "runs-twice"
    VM_BUSY = "vm-busy"
    VM_BUSY_ELSEWHERE = "vm-busy-elsewhere"
    NOTHING_TO_CANCEL = "nothing-to-cancel"
    NO_UNDO = "no-undo"
    NOT_SUPPORTED_HERE = "not-supported-here"
    DEFINITION_UNREAD = "definition-unread"
    NO_SUCH_NODE = "no-such-node"
    NO_SUCH_POLICY = "no-such-policy"
    POST_COPY_ALONE = "post-copy-alone"
    NO_POOL_NAMED = "no-pool-named"
    NO_SNAPSHOTS = "no-snapshots"
    NO_SNAPSHOT_NAMED = "no-snapshot-named"
    SNAPSHOT_NAME = "snapshot-name"
    SNAPSHOT_DISK = "snapshot-disk"
    NO_DISK_FOR_SNAPSHOT = "no-disk-for-snapshot"
    NO_DISK_TO_MOVE = "no-disk-to-move"
    NOT_PERSISTENT = "not-persistent"
    NO_SHARED_PATH = "no-shared-path"
    STATE_STAYS_BEHIND = "state-stays-behind"
    PAST_RETURN = "past-return"
    # why a VM cannot be moved
    HAS_SNAPSHOTS = "has-snapshots"
    HAS_CHECKPOINTS = "has-checkpoints"
    HOST_DEVICE = "host-device"
    LOCAL_DISK = "local-disk"
    LOCAL_CD = "local-cd"
    ENCRYPTED_DISK = "encrypted-disk"
    CACHE_MODE = "cache-mode"
    SHARING_UNDECLARED = "sharing-undeclared"
    NOT_STORED = "not-stored"
    NOT_KEPT = "not-kept"
    KEPT_LONG_AGO = "kept-long-ago"
    LIES_ON_NODE_ONLY = "lies-on-node-only"
    ONLY_ONE_NODE = "only-one-node"
    NO_NODE_FITS = "no-node-fits"
    NO_NODE_MAY = "no-node-may"
    NO_MEMORY_ON_NODE = "no-memory-on-node"
    NO_CPUS_ON_NODE = "no-cpus-on-node"
    NOT_POSSIBLE_OWNER = "not-possible-owner"
    KEPT_APART = "kept-apart"
    LACKS_ON_NODE = "lacks-on-node"
    INACTIVE_ON_NODE = "inactive-on-node"
    OTHER_ON_NODE = "other-on-node"
    # why something waits
    WAITS_OUTGOING = "waits-outgoing"
    WAITS_INCOMING = "waits-incoming"
    WAITS_CLUSTER = "waits-cluster"
    WAITS_STARTS_NODE = "waits-starts-node"
    WAITS_STARTS_CLUSTER = "waits-starts-cluster"
    WAITS_SAVES = "waits-saves"
    WAITS_BANDWIDTH = "waits-bandwidth"
    WAITS_MOVE_ENDS = "waits-move-ends"
    WAITS_WORK_ENDS = "waits-work-ends"
    WAITS_INVENTORY = "waits-inventory"
    GOES_ON = "goes-on"
    MAY_ACT_LATE = "may-act-late"
    QUEUE_PAUSED = "queue-paused"
    BATCH_PAUSED = "batch-paused"
    BATCH_PAUSED_BY = "batch-paused-by"
    BATCH_LEFT = "batch-left"
    TARGET_RESTS = "target-rests"
    RETRY = "retry"
    STEP = "step"
    WAITS_NODE = "waits-node"
    NODE_WORK = "node-work"
    DRAINING = "draining"
    FAILING_BACK = "failing-back"
    # what is done about a move that does not converge
    STUCK_RAISES = "stuck-raises"
    STUCK_RAISES_THEN_SWITCHES = "stuck-raises-then-switches"
    STUCK_SWITCHES_AT = "stuck-switches-at"
    STUCK_SWITCHES = "stuck-switches"
    STUCK_GIVES_UP = "stuck-gives-up"
    STUCK_CANCELS = "stuck-cancels"
    PAUSE_BOUND = "pause-bound"
    PAUSE_RAISED = "pause-raised"
    POST_COPY_BEGUN = "post-copy-begun"
    NOT_CONVERGED = "not-converged"
    # why a node was chosen
    CHOSEN_MOST_FREE = "chosen-most-free"
    CHOSEN_BY_USER = "chosen-by-user"
    CHOSEN_MOST_CPUS = "chosen-most-cpus"
    PREFERRED_OWNER = "preferred-owner"
    NOT_APART = "not-apart"
    TOGETHER = "together"
    IS_HERE = "is-here"
    MEMORY_LEFT = "memory-left"
    CPUS_LEFT = "cpus-left"
    GIVEN_ALREADY = "given-already"
    POOL_SEEN_LATER = "pool-seen-later"
    TO_BE_PAUSED = "to-be-paused"
    TO_BE_DRAINED = "to-be-drained"
    TO_BE_RESUMED = "to-be-resumed"
    FAILS_BACK = "fails-back"
    STAYS_WHERE_IT_IS = "stays-where-it-is"
    SNAPSHOT_HOLDS = "snapshot-holds"
    SNAPSHOT_OF_DISKS = "snapshot-of-disks"
    SNAPSHOT_NAMED = "snapshot-named"
    # how operations end
    DONE = "done"
    MOVED = "moved"
    CANCELLED_BY = "cancelled-by"
    STILL_RUNNING_WAIT_OVER = "still-running-wait-over"
    ACCEPTED = "accepted"
    SHUTDOWN_IGNORED = "shutdown-ignored"
    INTERRUPTED = "interrupted"
    INTERRUPTED_WAITING = "interrupted-waiting"
    RENAMED = "renamed"
    UNDEFINED = "undefined"
    STARTED_SINCE = "started-since"
    JOURNAL_FAILED = "journal-failed"
    ENDED_ELSEWHERE = "ended-elsewhere"
    MOVED_OFF = "moved-off"
    DISKS_MOVED = "disks-moved"
    STILL_DEFINED = "still-defined"
    STILL_NOTED = "still-noted"
    NODE_PAUSED = "node-paused"
    NODE_DRAINED = "node-drained"
    NODE_NOT_DRAINED = "node-not-drained"
    NODE_RESUMED = "node-resumed"
    NODE_WORK_FAILED = "node-work-failed"
    CANNOT_TELL = "cannot-tell"
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
    PACEMAKER_ASKED = "pacemaker-asked"
    PACEMAKER_UNTOLD = "pacemaker-untold"
    HELD_BY = "held-by"
    ALSO_DEFINED = "also-defined"
    ALSO_DEFINED_OLDER = "also-defined-older"
    RUNNING_ON_TWO = "running-on-two"
    SAME_HOST_TWICE = "same-host-twice"
    SHUTTING_DOWN = "shutting-down"
    PAUSED_BECAUSE = "paused-because"
    PAUSED_NO_ROOM = "paused-no-room"
    PAUSED_POOL_FULL = "paused-pool-full"
    CRASHED_AT = "crashed-at"
    CRASHED_BEFORE = "crashed-before"
    OFF_BECAUSE = "off-because"
    AGENT_SILENT = "agent-silent"
    DEFINITION_TROUBLE = "definition-trouble"
    FOREIGN_JOB = "foreign-job"
    JOURNAL_NOTICE = "journal-notice"
    # information on pools and networks
    POOL_FULL = "pool-full"
    POOL_FILLS = "pool-fills"
    RESOURCE_MISSING = "resource-missing"
    RESOURCE_INACTIVE = "resource-inactive"
    RESOURCE_UNHEARD = "resource-unheard"
    RESOURCE_NAMED = "resource-named"
    RESOURCE_DIFFERS = "resource-differs"
    RESOURCE_TROUBLE = "resource-trouble"
    VM_VANISHED = "vm-vanished"
    # what happened
    NODE_CONNECTED = "node-connected"
    NODE_UP = "node-up"
    NODE_LOST = "node-lost"
    NODE_FAILED = "node-failed"
    NODE_HOLD_SET = "node-hold-set"
    NODE_HOLD_ENDED = "node-hold-ended"
    VM_STARTED = "vm-started"
    VM_MOVED = "vm-moved"
    VM_RESUMED = "vm-resumed"
    VM_PAUSED = "vm-paused"
    VM_STOPPED = "vm-stopped"
    VM_SAVED = "vm-saved"
    VM_CRASHED = "vm-crashed"
    VM_RESTARTED = "vm-restarted"
    VM_RENAMED = "vm-renamed"
    VM_DEFINED = "vm-defined"
    VM_GONE = "vm-gone"
    VM_DISK_ERROR = "vm-disk-error"
    VM_AGENT_UP = "vm-agent-up"
    VM_AGENT_DOWN = "vm-agent-down"
    OPERATION_ASKED = "operation-asked"
    OPERATION_BEGUN = "operation-begun"
    OPERATION_ENDED = "operation-ended"
    OPERATION_CANCELLING = "operation-cancelling"
    QUEUE_STEERED = "queue-steered"
    PROBLEM_BEGAN = "problem-began"
    PROBLEM_ENDED = "problem-ended"
    PROBLEM_ACKNOWLEDGED = "problem-acknowledged"
    PROBLEM_REOPENED = "problem-reopened"
    PROBLEM_MUTED = "problem-muted"
    PROBLEM_UNMUTED = "problem-unmuted"
    BEING_READ = "being-read"
    NOT_SAMPLED = "not-sampled"
    NOT_KNOWN = "not-known"


TROUBLES = frozenset(
    {
        ReasonCode.FAILED,
        ReasonCode.NOT_AS_WANTED,
        ReasonCode.PEER_LOGIN_REFUSED,
        ReasonCode.SHUTDOWN_IGNORED,
        ReasonCode.JOURNAL_FAILED,
        ReasonCode.RUNNING_ON_TWO,
        ReasonCode.SAME_HOST_TWICE,
        ReasonCode.LOGIN_FAILED,
        ReasonCode.INCOMPATIBLE,
        ReasonCode.CRASHED_AT,
        ReasonCode.ENDED_ELSEWHERE,
        ReasonCode.INTERRUPTED,
        ReasonCode.NEVER_SEEN,
        ReasonCode.POOL_FULL,
    }
)
"""What someone should look at."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A code with its fields; `text` is what people read."""

    code: ReasonCode
    fields: tuple[tuple[str, FieldValue], ...] = ()

    @property
    def text(self) -> str:
        """The sentence for people."""
        for _, value in self.fields:
            if value.__class__ is float:  # a moment or a span, hardly ever said twice; and 1 is not 1.0
                return _text.__wrapped__(self.code, self.fields)
        return _text(self.code, self.fields)

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
    """Adds `{x:time}`, `{x:duration}` and the other kinds below; everything else as usual."""

    _KINDS: ClassVar[dict[str, Callable[[Any], str]]] = {
        "time": units.time_text,
        "duration": units.duration_text,
        "mib": units.mib_text,
        "line": units.line_text,
        "pause": units.pause_text,
        "rate": units.rate_text,
        "slowing": units.slowing_text,
    }

    def format_field(self, value: Any, format_spec: str) -> str:
        kind = self._KINDS.get(format_spec)
        return kind(value) if kind else str(super().format_field(value, format_spec))


_FORMAT = _Format()


@lru_cache(4096)
def _text(code: ReasonCode, fields: tuple[tuple[str, FieldValue], ...]) -> str:
    """The same few sentences are said of thousands of VMs: made once, and kept once in their stories."""
    return _FORMAT.format(TEXTS[code], **dict(fields))


TEXTS: dict[ReasonCode, str] = {
    ReasonCode.ALREADY_RUNNING: "already running on {node}",
    ReasonCode.ALREADY_OFF: "already off",
    ReasonCode.ALREADY_SAVED: "already saved",
    ReasonCode.ALREADY_PAUSED: "already paused",
    ReasonCode.ALREADY_THERE: "already on {node}",
    ReasonCode.ALREADY_SET: "already so",
    ReasonCode.TAGS_CHANGE: "{what}",
    ReasonCode.EDITED: "{what}",
    ReasonCode.EDITED_LATER: "{what}, at its next start",
    ReasonCode.EDIT_LATER: "{what}, at its next start: {why}",
    ReasonCode.EDIT_WRONG: "{text}",
    ReasonCode.NO_CD_DRIVE: "has no CD drive",
    ReasonCode.WHICH_DEVICE: "has several: {known}",
    ReasonCode.NO_SUCH_DEVICE: "has no {device}; it has {known}",
    ReasonCode.TAG_CHARACTERS: "“{tag}” cannot be a tag: it needs printable text without commas",
    ReasonCode.TAG_LENGTH: "the tag {tag} has {count} characters; {most} are the most",
    ReasonCode.TOO_MANY_TAGS: "it would have {count} tags; {most} are the most",
    ReasonCode.OWNERS_CHANGE: "{what}",
    ReasonCode.RULES_CHANGE: "{what}",
    ReasonCode.RULE_GROUP: "“{group}” cannot be a group: it needs 1 to {most} printable characters"
    " without commas",
    ReasonCode.TOO_MANY_RULES: "it would have {count} rules; {most} are the most",
    ReasonCode.NOT_RUNNING: "not running ({status})",
    ReasonCode.NOT_PAUSED: "not paused ({status})",
    ReasonCode.NO_SAVED_STATE: "has no saved state",
    ReasonCode.STATE_FORBIDS: "not possible while {status}",
    ReasonCode.SAVED_NOT_MOVED: "saved: its memory lies on {node}'s own disk and would be lost",
    ReasonCode.NODE_UNREACHABLE: "node {node} cannot be reached",
    ReasonCode.NODE_HELD: "node {node} is held by {who}: {why}",
    ReasonCode.NODE_BEING_READ: "what runs on {node} is still being read ({count} to go)",
    ReasonCode.NODE_BUSY: "{what}",
    ReasonCode.NODE_PAUSED_ALREADY: "already paused by {who} since {since:time}",
    ReasonCode.NODE_DRAINED_ALREADY: "already paused and drained",
    ReasonCode.NODE_DRAINED_BY: "being drained by {who} since {since:time}",
    ReasonCode.NODE_NOT_PAUSED: "not paused",
    ReasonCode.NODE_KEEPS_NO_NOTES: "{node} keeps no notes (its libvirt has no secrets):"
    " nobody else would know that it is paused",
    ReasonCode.DRAIN_NO_ROOM: "not drained: no room elsewhere for {count} of its VMs, which need"
    " {need_mib:mib}; {name}: {text}",
    ReasonCode.TEXT_TOO_LONG: "a reason is one line of printable text with at most {most} characters",
    ReasonCode.READ_ONLY: "this connection is read-only",
    ReasonCode.IS_A_DUMP: "this is a dump: there are no hosts that could do it",
    ReasonCode.OTHER_AUTHORITY: "managed by {authority}: read-only here",
    ReasonCode.RUNS_TWICE: "runs on two nodes at once ({nodes}); only turning one copy off by hand is safe",
    ReasonCode.VM_BUSY: "busy: {activity}",
    ReasonCode.VM_BUSY_ELSEWHERE: "busy with a job that is not Muster's on {node}",
    ReasonCode.NOTHING_TO_CANCEL: "nothing is under way",
    ReasonCode.NO_UNDO: "it cannot be taken back",
    ReasonCode.NOT_SUPPORTED_HERE: "the hypervisor on {node} cannot do this ({feature})",
    ReasonCode.DEFINITION_UNREAD: "its definition is still being read",
    ReasonCode.NO_SUCH_NODE: "there is no node {node} in this cluster",
    ReasonCode.NO_SUCH_POLICY: "there is no policy {policy}; known: {known}",
    ReasonCode.POST_COPY_ALONE: "post-copy and {count} connections do not go together:"
    " the guest would be lost",
    ReasonCode.NO_POOL_NAMED: "no pool is named to copy its disks to",
    ReasonCode.NO_SNAPSHOTS: "has no snapshot",
    ReasonCode.NO_SNAPSHOT_NAMED: "no snapshot is named",
    ReasonCode.SNAPSHOT_NAME: "the name of a snapshot has 1 to {limit} characters, no “/”, no “.” in front",
    ReasonCode.SNAPSHOT_DISK: "disk {target} ({format}) cannot keep such a snapshot",
    ReasonCode.NO_DISK_FOR_SNAPSHOT: "has no disk of which a snapshot could be taken",
    ReasonCode.NO_DISK_TO_MOVE: "has no disk whose image can be copied",
    ReasonCode.NOT_PERSISTENT: "is transient: its definition would be gone once it stops",
    ReasonCode.NO_SHARED_PATH: "no shared path is declared, so its memory cannot be handed over",
    ReasonCode.STATE_STAYS_BEHIND: "{what} would stay behind on {node}",
    ReasonCode.PAST_RETURN: "it runs on {node} already and fetches the last {left} % from {source};"
    " if that stops, the VM is lost",
    ReasonCode.HAS_SNAPSHOTS: "has {count} snapshot(s), which libvirt does not move",
    ReasonCode.HAS_CHECKPOINTS: "has {count} checkpoint(s) of its backups, which would be lost",
    ReasonCode.HOST_DEVICE: "uses a device of its host: {device}",
    ReasonCode.LOCAL_DISK: "disk {target} ({source}) is not on storage shared by the nodes",
    ReasonCode.LOCAL_CD: "CD {target} ({source}) is on {node}'s own disk",
    ReasonCode.ENCRYPTED_DISK: "disk {target} is encrypted: its copy would not be",
    ReasonCode.CACHE_MODE: "disk {target} has cache mode {cache}: not safe to move",
    ReasonCode.SHARING_UNDECLARED: "the cluster file declares no shared path, so nobody checked that"
    " the nodes share the storage of these disks; libvirt may refuse the move",
    ReasonCode.NOT_STORED: "its node stores no definition of it",
    ReasonCode.NOT_KEPT: "its definition was not kept yet",
    ReasonCode.KEPT_LONG_AGO: "its definition was kept {since:time}, and may have changed since",
    ReasonCode.LIES_ON_NODE_ONLY: "{what} is on {node} only",
    ReasonCode.ONLY_ONE_NODE: "there is no other node that is up",
    ReasonCode.NO_NODE_FITS: "no node can take it: {verdicts}",
    ReasonCode.NO_NODE_MAY: "no node may take it: {verdicts}",
    ReasonCode.NO_CPUS_ON_NODE: "{node}: not enough CPUs (needs {need} vCPUs, {left} left by the overcommit)",
    ReasonCode.NO_MEMORY_ON_NODE: "{node}: not enough memory (needs {need_mib:mib}, free {free_mib:mib})",
    ReasonCode.NOT_POSSIBLE_OWNER: "{node}: not among its possible owners ({owners})",
    ReasonCode.KEPT_APART: "{node}: has {vm}, from which it is kept apart ({group})",
    ReasonCode.LACKS_ON_NODE: "{node}: has no {what} {name}",
    ReasonCode.INACTIVE_ON_NODE: "{node}: {what} {name} is not active",
    ReasonCode.OTHER_ON_NODE: "{node}: pool {name} is other storage there ({source})",
    ReasonCode.WAITS_OUTGOING: "{node} gives {count} of {limit} outgoing moves; {ahead:line}",
    ReasonCode.WAITS_INCOMING: "{node} takes {count} of {limit} incoming moves; {ahead:line}",
    ReasonCode.WAITS_CLUSTER: "the cluster makes {count} of {limit} moves; {ahead:line}",
    ReasonCode.WAITS_STARTS_NODE: "{node} makes {count} of {limit} starts; {ahead:line}",
    ReasonCode.WAITS_STARTS_CLUSTER: "the cluster makes {count} of {limit} starts; {ahead:line}",
    ReasonCode.WAITS_SAVES: "{node} makes {count} of {limit} saves, restores and storage moves; {ahead:line}",
    ReasonCode.WAITS_BANDWIDTH: "{node} has {count} of {limit} MiB/s given to moves; {ahead:line}",
    ReasonCode.QUEUE_PAUSED: "the queue was paused by {who} {since:time}",
    ReasonCode.BATCH_PAUSED: "its batch is paused: {count} of {of} failed",
    ReasonCode.BATCH_PAUSED_BY: "its batch was paused by {who} {since:time}",
    ReasonCode.BATCH_LEFT: "left behind by a program that ended {since:time}",
    ReasonCode.TARGET_RESTS: "{node} is fed no more: the last {count} moves to it failed",
    ReasonCode.RETRY: "retry {count} of {limit} at {at:time}: {text}",
    ReasonCode.STEP: "{what} ({node})",
    ReasonCode.WAITS_NODE: "waits until {node} is ready: {what}",
    ReasonCode.NODE_WORK: "{what}",
    ReasonCode.DRAINING: "Draining: {left} of {of} left",
    ReasonCode.FAILING_BACK: "VMs come back: {left} of {of} left",
    ReasonCode.TO_BE_PAUSED: "is paused: it takes no new VMs",
    ReasonCode.TO_BE_DRAINED: "is paused and drained: {count} of its VMs move, {stay} stay",
    ReasonCode.TO_BE_RESUMED: "takes new VMs again",
    ReasonCode.FAILS_BACK: "goes back: it was drained from {node}",
    ReasonCode.STAYS_WHERE_IT_IS: "stays on {node}: it is forgotten that it was drained from {home}",
    ReasonCode.STILL_NOTED: "{place}; it still notes that it was drained: {text}",
    ReasonCode.NODE_PAUSED: "paused: takes no new VMs",
    ReasonCode.NODE_DRAINED: "paused and drained",
    ReasonCode.NODE_NOT_DRAINED: "paused; did not leave: {names}",
    ReasonCode.NODE_RESUMED: "takes new VMs again",
    ReasonCode.NODE_WORK_FAILED: "{text}",
    ReasonCode.MOVED_OFF: "is on {node} now, off as before",
    ReasonCode.DISKS_MOVED: "its disks are in pool {pool} on {node} now; the old images are kept",
    ReasonCode.STILL_DEFINED: "{place}; {node} still has its old definition: {text}",
    ReasonCode.CANNOT_TELL: "{text}; whether {node} runs it cannot be seen, so it was not started again",
    ReasonCode.WAITS_MOVE_ENDS: "waits for its move to {node} to end",
    ReasonCode.WAITS_WORK_ENDS: "waits until the work on this VM has ended: {work}",
    ReasonCode.WAITS_INVENTORY: "waits until {node} was read again",
    ReasonCode.GOES_ON: "its host carries it on",
    ReasonCode.MAY_ACT_LATE: "its call was lost, and may still act until {at:time}",
    ReasonCode.STUCK_RAISES: "{throttle:slowing}raises the permitted pause to {pause_ms:pause} at {at:time};"
    " gives up at {end:time}: the VM stays {place}",
    ReasonCode.STUCK_RAISES_THEN_SWITCHES: "{throttle:slowing}raises the permitted pause to {pause_ms:pause}"
    " at {at:time}; if nothing helps, switches to the second half (post-copy) by {end:time}",
    ReasonCode.STUCK_SWITCHES_AT: "{throttle:slowing}switches to the second half (post-copy) at {at:time}:"
    " from then on the VM runs on the target",
    ReasonCode.STUCK_SWITCHES: "switches to the second half (post-copy) now",
    ReasonCode.STUCK_GIVES_UP: "{throttle:slowing}gives up at {at:time}: the VM stays {place}",
    ReasonCode.STUCK_CANCELS: "gives up now: the VM stays {place}",
    ReasonCode.PAUSE_BOUND: "permitted pause set to {pause_ms:pause}, as the policy says",
    ReasonCode.PAUSE_RAISED: "permitted pause raised to {pause_ms:pause}: it does not converge"
    " ({dirty:rate} changed, {rate:rate} sent)",
    ReasonCode.POST_COPY_BEGUN: "switched to the second half (post-copy): it does not converge"
    " ({dirty:rate} changed, {rate:rate} sent)",
    ReasonCode.NOT_CONVERGED: "it did not converge within {span:duration}"
    " ({dirty:rate} changed, {rate:rate} sent); {place}",
    ReasonCode.CHOSEN_MOST_FREE: "most free memory ({free_mib:mib})",
    ReasonCode.CHOSEN_BY_USER: "chosen",
    ReasonCode.CHOSEN_MOST_CPUS: "most free vCPUs ({left})",
    ReasonCode.PREFERRED_OWNER: "preferred owner, {place} of {count}",
    ReasonCode.NOT_APART: "has {vm}, from which it should rather be apart ({group})",
    ReasonCode.TOGETHER: "has {vm}, with which it should rather be together ({group})",
    ReasonCode.IS_HERE: "it is here",
    ReasonCode.MEMORY_LEFT: "{percent} % of its memory free ({free_mib:mib})",
    ReasonCode.CPUS_LEFT: "{percent} % of its vCPUs free ({left})",
    ReasonCode.GIVEN_ALREADY: "takes {count} of this plan",
    ReasonCode.POOL_SEEN_LATER: "to pool {pool}; whether {node} has it, with room, is seen when it begins",
    ReasonCode.SNAPSHOT_HOLDS: "snapshot “{name}”; while it has snapshots it stays on its node",
    ReasonCode.SNAPSHOT_OF_DISKS: "snapshot “{name}” of its disks; new files take what it writes from then"
    " on, and it stays on its node",
    ReasonCode.SNAPSHOT_NAMED: "snapshot “{name}”",
    ReasonCode.DONE: "done",
    ReasonCode.MOVED: "runs on {node}",
    ReasonCode.CANCELLED_BY: "cancelled by {who}; {place}",
    ReasonCode.STILL_RUNNING_WAIT_OVER: "still under way after {seconds} s; nothing was undone",
    ReasonCode.ACCEPTED: "accepted; not waited for",
    ReasonCode.SHUTDOWN_IGNORED: "the guest did not {asked} within {span:duration}; {place}",
    ReasonCode.INTERRUPTED: "the program ended in the middle; {place}",
    ReasonCode.RENAMED: "it is named {name} since",
    ReasonCode.UNDEFINED: "its definition was removed while it waited",
    ReasonCode.STARTED_SINCE: "it was off when this was asked for, and is running now",
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
    ReasonCode.RUNS_PACEMAKER: "runs Pacemaker: the VMs it manages are read-only here",
    ReasonCode.PACEMAKER_ASKED: "asking whether Pacemaker manages its VMs: read-only until then",
    ReasonCode.PACEMAKER_UNTOLD: "Pacemaker does not say which VMs it manages: all are read-only here",
    ReasonCode.HELD_BY: "paused by {who} since {since:time}: {why}",
    ReasonCode.ALSO_DEFINED: "also defined on {nodes}",
    ReasonCode.ALSO_DEFINED_OLDER: "also defined on {nodes}, older",
    ReasonCode.RUNNING_ON_TWO: "RUNS ON TWO NODES: {nodes}",
    ReasonCode.SAME_HOST_TWICE: "this is the same host as node {node}",
    ReasonCode.SHUTTING_DOWN: "the guest is shutting down",
    ReasonCode.PAUSED_BECAUSE: "paused: {cause}",
    ReasonCode.PAUSED_NO_ROOM: "paused: {cause}, no room left for {disk}{where}",
    ReasonCode.PAUSED_POOL_FULL: "paused: {cause}, pool {pool} of {disk} is {percent} % full:"
    " {free} of {size} left",
    ReasonCode.CRASHED_AT: "crashed {at:time}: {cause}",
    ReasonCode.CRASHED_BEFORE: "crashed before Muster looked",
    ReasonCode.OFF_BECAUSE: "{cause} {at:time}",
    ReasonCode.AGENT_SILENT: "the guest agent does not answer",
    ReasonCode.DEFINITION_TROUBLE: "its definition is not understood: {text}",
    ReasonCode.FOREIGN_JOB: "{what} by someone else since {since:time}",
    ReasonCode.JOURNAL_NOTICE: "{text}",
    ReasonCode.POOL_FULL: "{percent} % full: {free} of {size} left",
    ReasonCode.POOL_FILLS: "{percent} % full: {free} of {size} left",
    ReasonCode.RESOURCE_MISSING: "missing on {nodes}",
    ReasonCode.RESOURCE_INACTIVE: "not active on {nodes}",
    ReasonCode.RESOURCE_UNHEARD: "{nodes} not heard",
    ReasonCode.RESOURCE_NAMED: "named {name} on {nodes}",
    ReasonCode.RESOURCE_DIFFERS: "{what} on {nodes}",
    ReasonCode.RESOURCE_TROUBLE: "{nodes}: {text}",
    ReasonCode.NODE_CONNECTED: "connected: {hostname}",
    ReasonCode.NODE_UP: "up: inventory read",
    ReasonCode.NODE_LOST: "lost: {text}",
    ReasonCode.NODE_FAILED: "{status}: {text}",
    ReasonCode.NODE_HOLD_SET: "takes no new VMs: {why}",
    ReasonCode.NODE_HOLD_ENDED: "takes new VMs again",
    ReasonCode.VM_STARTED: "Running on {node}{cause}",
    ReasonCode.VM_MOVED: "Moved from {source} to {node}",
    ReasonCode.VM_RESUMED: "Running on {node} again{cause}",
    ReasonCode.VM_PAUSED: "Paused on {node}{cause}",
    ReasonCode.VM_STOPPED: "Off on {node}{cause}",
    ReasonCode.VM_SAVED: "Saved on {node}{cause}",
    ReasonCode.VM_CRASHED: "Crashed on {node}{cause}",
    ReasonCode.VM_RESTARTED: "restarted on {node}",
    ReasonCode.VM_RENAMED: "renamed from {before} to {name}",
    ReasonCode.VM_DEFINED: "defined on {node}",
    ReasonCode.VM_GONE: "no longer on {node}",
    ReasonCode.VM_DISK_ERROR: "error on disk {disk} ({text}); {then}",
    ReasonCode.VM_AGENT_UP: "the guest agent answers",
    ReasonCode.VM_AGENT_DOWN: "the guest agent answers no more",
    ReasonCode.OPERATION_ASKED: "Asked: {what}",
    ReasonCode.OPERATION_BEGUN: "Begun: {what}",
    ReasonCode.OPERATION_ENDED: "{state}: {what}",
    ReasonCode.OPERATION_CANCELLING: "Being cancelled: {what}",
    ReasonCode.QUEUE_STEERED: "The queue: {what}",
    ReasonCode.PROBLEM_BEGAN: "Problem",
    ReasonCode.PROBLEM_ENDED: "Problem ended after {span:duration}",
    ReasonCode.PROBLEM_ACKNOWLEDGED: "Problem acknowledged{note}",
    ReasonCode.PROBLEM_REOPENED: "Problem acknowledged no more",
    ReasonCode.PROBLEM_MUTED: "Problem muted for {span:duration}",
    ReasonCode.PROBLEM_UNMUTED: "Problem muted no more",
    ReasonCode.VM_VANISHED: "no node has a definition of it any more",
    ReasonCode.BEING_READ: "being read",
    ReasonCode.NOT_SAMPLED: "not measured yet",
    ReasonCode.NOT_KNOWN: "not known",
}

_QUIETEN = "Permit a longer pause now, raise the cap on the rate, give the guest less to do, or cancel."

REMEDIES: dict[ReasonCode, str] = {
    ReasonCode.HAS_SNAPSHOTS: "Delete or merge its snapshots first.",
    ReasonCode.HAS_CHECKPOINTS: "Delete them with `virsh checkpoint-delete`, move it,"
    " and make the next backup a full one.",
    ReasonCode.HOST_DEVICE: "Shut the VM down, or remove the device.",
    ReasonCode.LOCAL_DISK: "Put the disk on a shared path and name that path under [storage] shared_paths"
    " in the cluster file.",
    ReasonCode.NO_SHARED_PATH: "Name a folder that all nodes share under [storage] shared_paths"
    " in the cluster file.",
    ReasonCode.STATE_STAYS_BEHIND: "Migrate it live: only that carries it.",
    ReasonCode.POST_COPY_ALONE: "Choose another policy, or set parallel_connections = 1 in the cluster file.",
    ReasonCode.SNAPSHOT_DISK: "With disk images of the format qcow2 it can; a snapshot of the disks only"
    " needs files or block devices.",
    ReasonCode.NO_SNAPSHOT_NAMED: "Name one with --name.",
    ReasonCode.NO_POOL_NAMED: "Name one with --pool.",
    ReasonCode.LOCAL_CD: "Eject the CD.",
    ReasonCode.WHICH_DEVICE: "Name one, with --drive, --disk or --mac.",
    ReasonCode.CACHE_MODE: "Set the disk's cache mode to none or directsync;"
    " it counts from the next start of the VM.",
    ReasonCode.NOT_STORED: "Define it: `virsh dumpxml` and `virsh define`.",
    ReasonCode.NOT_KEPT: "The window and `muster engine` keep definitions while they run.",
    ReasonCode.SHARING_UNDECLARED: "Name the shared folders under [storage] shared_paths"
    " in the cluster file.",
    ReasonCode.NODE_UNREACHABLE: "See the node's Information;"
    " its rows come back by themselves when it answers.",
    ReasonCode.QUEUE_PAUSED: "Continue with Ctrl+. or `muster queue resume`.",
    ReasonCode.BATCH_PAUSED: "See why they failed, then continue or cancel it in the queue,"
    " or with `muster queue resume` and its number.",
    ReasonCode.BATCH_PAUSED_BY: "Continue or cancel it in the queue,"
    " or with `muster queue resume` or `cancel` and its number.",
    ReasonCode.BATCH_LEFT: "Look whether it is still wanted, then continue or cancel it in the queue,"
    " or with `muster queue resume` or `cancel` and its number.",
    ReasonCode.TARGET_RESTS: "See why, then feed it again in the queue,"
    " or with `muster queue resume --node {node}`.",
    ReasonCode.VM_BUSY: "Wait until that has ended, or cancel it.",
    ReasonCode.STUCK_RAISES: _QUIETEN,
    ReasonCode.STUCK_RAISES_THEN_SWITCHES: _QUIETEN,
    ReasonCode.STUCK_GIVES_UP: _QUIETEN,
    ReasonCode.STUCK_SWITCHES_AT: "Cancel before then if the VM must not depend on two nodes at once.",
    ReasonCode.NOT_CONVERGED: "Move it when the guest is less busy, with a higher cap on the rate,"
    " or with the policy “insist” or “post-copy”.",
    ReasonCode.SHUTDOWN_IGNORED: "Wait longer, ask the guest agent, or turn it off.",
    ReasonCode.PEER_LOGIN_REFUSED: "Repair it with: {commands}. Or move through this computer.",
    ReasonCode.NO_NODE_FITS: "Free memory on a node, or choose a node.",
    ReasonCode.NO_NODE_MAY: "Change its owners or rules, or give a node what it needs.",
    ReasonCode.NODE_HELD: "Resume the node first.",
    ReasonCode.NODE_BUSY: "Wait until that has ended, or cancel it.",
    ReasonCode.NODE_DRAINED_BY: "Wait for its end, or resume the node.",
    ReasonCode.NODE_NOT_DRAINED: "See why each of them stays, then drain the node again.",
    ReasonCode.DRAIN_NO_ROOM: "Free memory on other nodes, or shut down or move some of its VMs by hand.",
    ReasonCode.NOT_POSSIBLE_OWNER: "Choose another node, or make it a possible owner"
    " with `muster vm owners`.",
    ReasonCode.KEPT_APART: "Choose another node, or change the rule with `muster vm rules`.",
    ReasonCode.LACKS_ON_NODE: "Choose another node, or set it up there.",
    ReasonCode.INACTIVE_ON_NODE: "Choose another node, or start it there.",
    ReasonCode.READ_ONLY: "Connect again without “read-only”.",
    ReasonCode.IS_A_DUMP: "Open the cluster itself; what was planned here can be copied as a command.",
    ReasonCode.LOGIN_FAILED: "{hint}",
    ReasonCode.NEVER_SEEN: "{hint}",
    ReasonCode.PACEMAKER_UNTOLD: "On the host, add the user of the login to the group haclient,"
    " or see why Pacemaker hangs; then read the node again.",
    ReasonCode.OTHER_AUTHORITY: "Use Pacemaker's own tools on one of its nodes: pcs, crm or crm_resource.",
    ReasonCode.SAVED_NOT_MOVED: "Start it, then move it.",
    ReasonCode.PAUSED_NO_ROOM: "Make room there, then resume it.",
    ReasonCode.PAUSED_POOL_FULL: "Delete volumes of that pool that nobody uses, or make it larger;"
    " then resume it.",
    ReasonCode.POOL_FULL: "Delete volumes that nobody uses, or make it larger:"
    " a VM that finds no room is paused.",
    ReasonCode.RESOURCE_MISSING: "Define it there too: a VM that needs it cannot be moved there.",
    ReasonCode.RESOURCE_INACTIVE: "Start it there, and let it start with the host.",
}

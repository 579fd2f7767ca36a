"""Everything the core can ask the world to do: frozen imperatives. The effect runner carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from manager.core.edits import Edit
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.model import Convergence, Hold, PeerRoute, SnapshotParameters, VmSettings


class VmChange(StrEnum):
    """The changes of state that a hypervisor makes to one VM on one node."""

    START = "start"  # from off or saved. virDomainCreateWithFlags
    SHUT_DOWN = "shut down"  # asks the guest (ACPI). virDomainShutdownFlags
    SHUT_DOWN_AGENT = "shut down through the agent"
    TURN_OFF = "turn off"  # power cut. virDomainDestroyFlags
    RESTART = "restart"  # asks the guest. virDomainReboot
    SAVE = "save"  # virDomainManagedSave
    DELETE_SAVED_STATE = "delete saved state"  # virDomainManagedSaveRemove
    PAUSE = "pause"  # virDomainSuspend
    RESUME = "resume"  # virDomainResume
    RESET = "reset"  # power cycle. virDomainReset
    CTRL_ALT_DEL = "send Ctrl+Alt+Del"  # to the guest's keyboard. virDomainSendKey
    SNAPSHOT_CREATE = "take a snapshot"  # virDomainSnapshotCreateXML
    SNAPSHOT_DELETE = "delete a snapshot"  # virDomainSnapshotDelete
    SNAPSHOT_REVERT = "revert to a snapshot"  # virDomainRevertToSnapshot


SNAPSHOT_CHANGES = frozenset({VmChange.SNAPSHOT_CREATE, VmChange.SNAPSHOT_DELETE, VmChange.SNAPSHOT_REVERT})
"""Changes that are about one snapshot: `ChangeVm.snapshot`."""

LONG_CHANGES = frozenset({VmChange.START, VmChange.SAVE}) | SNAPSHOT_CHANGES
"""Changes that may take minutes: they run on a connection of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Base of all effects. `trace` joins it with the request it came from."""

    trace: TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEffect(Effect):
    """What one attempt of an operation asks of a node; answered by `EffectEnded`."""

    operation: OperationId
    attempt: int
    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldNode(OperationEffect):
    """Keep a hold on the node, for everybody to see; an earlier one of the same holder is replaced."""

    hold: Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNode(OperationEffect):
    """Remove all holds from the node, whoever set them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmEffect(OperationEffect):
    """An effect on one VM."""

    vm: VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeVm(VmEffect):
    """Change a VM's state on the node that has it."""

    change: VmChange
    snapshot: SnapshotParameters | None = None  # of the changes that are about one


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMigration(VmEffect):
    """Live-migrate a running VM from `node` to `target`; ended when the move is over."""

    target: NodeId
    route: PeerRoute
    bandwidth_mib_s: int  # 0: no cap
    unsafe: bool  # every writable disk is on a declared shared path with a safe cache mode
    convergence: Convergence
    autostart: bool  # carried by us: libvirt does not
    addresses: tuple[str, ...] = ()  # of the target, tried in turn; empty: as the target says itself
    parallel_connections: int = 0  # 0 or 1: one
    encrypt: bool = False
    copy_disks: tuple[str, ...] = ()  # targets (vda) of disks that the nodes do not share
    pool: str = ""  # on the target, where those go


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortMigration(VmEffect):
    """Ask the source to cancel the running move. The move's own `EffectEnded` tells the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneMigration(VmEffect):
    """Change one thing of a running move. Answered by nothing when it worked, by `TuneFailed` when not.

    Source: virDomainMigrateSetMaxDowntime, virDomainMigrateSetMaxSpeed, virDomainMigrateStartPostCopy.
    """

    pause_ms: int | None = None  # the longest pause of the guest that is permitted from now on
    bandwidth_mib_s: int | None = None  # 0: no cap
    post_copy: bool = False  # start the second half: the VM runs on the target from now on
    instead_of: int | None = None  # the pause or the bandwidth until now, which goes on if this fails
    by_hand: bool = False  # not by the move's policy


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveToFile(VmEffect):
    """Save a running VM's memory to a file on shared storage and stop it. Source: virDomainSaveFlags."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreFromFile(VmEffect):
    """Let a VM that `node` defines run on from that file; then the file is deleted.

    Source: virDomainRestoreFlags, virStorageVolDelete.
    """

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyDefinition(VmEffect):
    """Define a VM that is off on `target` too; `node` keeps its definition.

    Source: virDomainMigrateToURI3 with VIR_MIGRATE_OFFLINE and VIR_MIGRATE_PERSIST_DEST.
    """

    target: NodeId
    route: PeerRoute
    autostart: bool  # carried by us


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetDefinition(VmEffect):
    """Undefine a VM on `node`, on which it does not run; it runs elsewhere. Its disks are not touched.

    Source: virDomainUndefineFlags with VIR_DOMAIN_UNDEFINE_KEEP_NVRAM.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyDisks(VmEffect):
    """Copy a running VM's disks to a pool of its own node and switch over; the old images are kept there.

    Ended when the last one was switched. Source: virDomainBlockCopy, virDomainBlockJobAbort with PIVOT.
    """

    pool: str
    disks: tuple[str, ...]  # vda, vdb
    bandwidth_mib_s: int = 0  # of all of them together; 0: no cap


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPeerLogin(VmEffect):
    """Find out, without moving anything, whether `node` can log in to `target`."""

    target: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteVmSettings(VmEffect):
    """Store settings in the domain's metadata; what else stands there is kept."""

    settings: VmSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteDrained(VmEffect):
    """Note in the domain's metadata from which node it is drained; all else there is kept."""

    drained_from: NodeId | None  # None: the note is removed


@dataclass(frozen=True, slots=True, kw_only=True)
class EditVm(VmEffect):
    """Change a VM's definition: as it is stored, and as it runs where that can be and is wanted."""

    edit: Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadNode(Effect):
    """Read a node's inventory again. Several requests become one read.

    `soon`: somebody waits for it. Otherwise it only confirms what events told, and is made seldom while they
    keep coming.
    """

    node: NodeId
    soon: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadVm(Effect):
    """Read one VM's definition again."""

    node: NodeId
    vm: VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadNotes(Effect):
    """Read again which holds a node keeps."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResources(Effect):
    """Read a node's pools, networks and interfaces again, soon, if anybody follows them."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimer(Effect):
    """Send `TimerFired(key)` at `at_s`; a later one with the same key replaces it."""

    key: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTimer(Effect):
    """Forget the timer of that key, if there is one."""

    key: str

"""Everything that can happen: frozen facts in the past tense, the core's only input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from manager.core.errors import Failure
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.model import (
    Hold,
    NodeFacts,
    NodeLoad,
    Pacemaker,
    ProblemLife,
    StatusCause,
    VmConfig,
    VmLoad,
    VmStatus,
)
from manager.core.reasons import Reason
from manager.core.resource_facts import SeenInterface, SeenNetwork, SeenPool, Volume

if TYPE_CHECKING:
    from manager.core.actions import Plan
    from manager.core.chronicle import ClusterEvent
    from manager.core.effects import TuneMigration
    from manager.core.migration.progress import MoveProgress
    from manager.core.operations import Operation
    from manager.core.vault import KeptDefinition


NO_TRACE = TraceId("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `at_s` is wall-clock seconds; the core has no clock of its own."""

    at_s: float
    trace: TraceId = NO_TRACE


# --- nodes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConnecting(Event):
    """A connection attempt began."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConnected(Event):
    """The host answered and its events are registered; the inventory comes next."""

    node: NodeId
    facts: NodeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConnectFailed(Event):
    """A connection attempt failed; the next one comes at `retry_at_s` (None: only when asked)."""

    node: NodeId
    failure: Failure
    hint: str = ""
    retry_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost(Event):
    """A connection that worked is gone: closed, timed out, or a call did not return."""

    node: NodeId
    failure: Failure
    retry_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenVm:
    """One line of an inventory."""

    vm: VmId
    name: str
    status: VmStatus
    cause: StatusCause = StatusCause.NONE
    incarnation: int | None = None
    shutting_down: bool = False
    started_s: float | None = None  # where the host can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInventoryRead(Event):
    """All VMs a node has. What changed after `started_s` is newer than this."""

    node: NodeId
    started_s: float
    vms: tuple[SeenVm, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSampled(Event):
    """Loads of a node and of some of its VMs."""

    node: NodeId
    load: NodeLoad
    vms: Mapping[VmId, VmLoad]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHeld(Event):
    """Someone asked that a node takes no new VMs."""

    node: NodeId
    hold: Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReleased(Event):
    """One holder gave a node free; others may still hold it."""

    node: NodeId
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNotesRead(Event):
    """The holds that a node itself keeps, whoever set them. What changed after `started_s` is newer."""

    node: NodeId
    started_s: float
    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNotesChanged(Event):
    """Somebody changed what a node keeps for all administrators: read it again.

    Source: libvirt VIR_SECRET_EVENT_ID_LIFECYCLE, VIR_SECRET_EVENT_ID_VALUE_CHANGED.
    """

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeGiven(Event):
    """Something about this computer's own part that the user should know: a damaged journal, no key ring."""

    key: str
    reason: Reason | None  # None: it is so no more


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResourcesRead(Event):
    """A node's storage pools, networks and interfaces. None: the host has no driver that could tell."""

    node: NodeId
    pools: tuple[SeenPool, ...] | None
    networks: tuple[SeenNetwork, ...] | None
    interfaces: tuple[SeenInterface, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResourcesChanged(Event):
    """A pool or a network of a node began, ended or changed: read them again.

    Source: libvirt VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, ..._REFRESH, VIR_NETWORK_EVENT_ID_LIFECYCLE.
    """

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolVolumesRead(Event):
    """What a pool holds on a node, asked for by somebody; the core keeps only the pool's own figures."""

    node: NodeId
    pool: SeenPool
    volumes: tuple[Volume, ...]


# --- VMs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class VmStateChanged(Event):
    """A lifecycle event said that a VM is now in this state on this node."""

    node: NodeId
    vm: VmId
    name: str
    status: VmStatus
    cause: StatusCause = StatusCause.NONE
    shutting_down: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRebooted(Event):
    """The guest restarted, or was reset.

    Source: libvirt VIR_DOMAIN_EVENT_ID_REBOOT.
    """

    node: NodeId
    vm: VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class VmUndefined(Event):
    """A node dropped a VM's definition; a running VM stays until it stops."""

    node: NodeId
    vm: VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDefinitionChanged(Event):
    """A VM's definition, devices or metadata changed on a node: read it again."""

    node: NodeId
    vm: VmId
    name: str = ""
    is_new: bool = False  # it was defined here just now
    agent: bool | None = None  # the guest agent began to answer, or ended


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDiskFailed(Event):
    """A disk of a VM could not be read or written; a change of its state is an event of its own.

    Source: libvirt VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON.
    """

    node: NodeId
    vm: VmId
    disk: str
    text: str = ""
    stopped: bool = False  # the VM was paused because of it


@dataclass(frozen=True, slots=True, kw_only=True)
class VmConfigRead(Event):
    """A VM's definition as read from a node, at `started_s`."""

    node: NodeId
    vm: VmId
    config: VmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionsKept(Event):
    """The vault has these as the newest of their VMs."""

    kept: tuple[KeptDefinition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmAuthoritySeen(Event):
    """What a node's Pacemaker said: the VMs of these names are its resources, all others there are not."""

    node: NodeId
    pacemaker: Pacemaker
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignJobSeen(Event):
    """A job that no operation of ours claims runs on a VM (or ended: `active` false)."""

    node: NodeId
    vm: VmId
    active: bool
    migration: bool = True
    what: str = "migration"


# --- effects' answers ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectEnded(Event):
    """An `OperationEffect` came back; `failure` None means the call reported success."""

    operation: OperationId
    attempt: int
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortFailed(Event):
    """An `AbortMigration` could not be delivered; the job goes on."""

    operation: OperationId
    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationProgress(Event):
    """A running move's job figures, as the source's hypervisor gives them. Bytes, ms, bytes/s.

    Source: libvirt virDomainGetJobStats.
    """

    operation: OperationId
    attempt: int
    elapsed_ms: int
    total_bytes: int  # 0 while the target prepares
    remaining_bytes: int
    rate_bytes_per_s: int
    dirty_bytes_per_s: int
    iteration: int
    downtime_ms: int | None = None
    post_copy: bool = False
    throttle_percent: int | None = None  # how far auto-converge slows the guest


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationRouted(Event):
    """Which way a move's memory goes, told when it is tried: once per address."""

    operation: OperationId
    attempt: int
    address: str = ""  # empty: as the target says itself
    encrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneFailed(Event):
    """A `TuneMigration` could not be delivered or was refused; the move goes on as before."""

    operation: OperationId
    attempt: int
    failure: Failure
    tune: TuneMigration


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(Event):
    """A timer set by `SetTimer` came due."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFailed(Event):
    """The journal could not be written: these operations, or their next steps, must not start."""

    operations: tuple[OperationId, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsRestored(Event):
    """The journal of an earlier run was read: what was not ended then. First event of all."""

    operations: tuple[Operation, ...]
    left_s: float | None = None  # until when that run surely lived; None: as far as the operations tell


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsReported(Event):
    """Another process, which owns the operations of this cluster, says how they stand."""

    operations: tuple[Operation, ...]
    progress: tuple[tuple[OperationId, MoveProgress], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipTaken(Event):
    """From now on this process owns the operations: it records what happens. With what the journal kept."""

    lives: tuple[ProblemLife, ...] = ()
    number: int = 0  # from which events are numbered: two runs at one moment must not give the same ids


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsTold(Event):
    """The journal, or the process that owns the operations, says what happened in the cluster."""

    events: tuple[ClusterEvent, ...] = ()
    lives: tuple[ProblemLife, ...] = ()


# --- requests --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequested(Event):
    """A confirmed plan is to be carried out, by this author."""

    plan: Plan[Any]
    author: str
    operation: OperationId  # the parent's id, chosen by whoever asks


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested(Event):
    """Cancel these operations and what hangs below them."""

    operations: tuple[OperationId, ...]
    author: str


class ProblemVerb(StrEnum):
    """What can be said of a problem."""

    ACKNOWLEDGE = "acknowledge"
    REOPEN = "reopen"  # acknowledged no more
    MUTE = "mute"
    UNMUTE = "unmute"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemsMarked(Event):
    """An administrator says something of problems."""

    verb: ProblemVerb
    keys: tuple[str, ...]
    author: str
    note: str = ""
    until_s: float | None = None  # MUTE


class QueueVerb(StrEnum):
    """What can be asked of the queue as a whole, and of a move under way."""

    PAUSE = "pause"
    RESUME = "resume"
    REORDER = "reorder"
    LIMITS = "limits"
    TUNE = "tune"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRequested(Event):
    """An administrator steers the queue.

    PAUSE and RESUME without anything named mean all of it: nothing new starts, what runs goes on.
    """

    verb: QueueVerb
    author: str
    operations: tuple[OperationId, ...] = ()  # batches to pause or resume; what to reorder; the move to tune
    node: NodeId | None = None  # RESUME: the target that is fed again
    before: OperationId | None = None  # REORDER: None means behind all that have a hand-made place
    limits: tuple[tuple[str, int], ...] = ()  # by their names in the cluster file
    pause_ms: int | None = None  # TUNE: permit the guest this pause
    bandwidth_mib_s: int | None = None  # TUNE: 0 means no cap
    post_copy: bool = False  # TUNE: start the second half

"""Facts about a cluster as frozen values: nodes, VMs, and what each node says of a VM."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum

from manager.core.ids import NodeId, OperationId, VmId
from manager.core.reasons import Reason


class Tier(StrEnum):
    """Who decides in this cluster; shown in the title."""

    DEMO = "demo"
    MANAGED = "managed"
    HIGH_AVAILABILITY = "high availability"
    DUMP = "dump"  # what hosts said at some time; there are none


class NodeStatus(StrEnum):
    """What the administrator reads in a node's Status cell."""

    UP = "Up"  # connected, inventory read
    CONNECTING = "Connecting"  # first connection under way, nothing known yet
    UNKNOWN = "Unknown"  # was up, not heard since
    LOGIN_FAILED = "Login failed"  # the host answered and refused us
    INCOMPATIBLE = "Incompatible"  # the host answered and cannot be driven


class DrainState(StrEnum):
    """How far a node's drain has come. The values stand on the hosts too."""

    NONE = "None"
    DRAINING = "Draining"
    DRAINED = "Drained"
    FAILED = "Drain failed"


class VmStatus(StrEnum):
    """A VM's stable state; what goes on with it is its `Activity`."""

    RUNNING = "Running"
    OFF = "Off"
    SAVED = "Saved"
    PAUSED = "Paused"
    CRASHED = "Crashed"
    UNKNOWN = "Unknown"


class StatusCause(Enum):
    """Why a VM is in its state, from libvirt's state reasons, one vocabulary for all states."""

    NONE = ""
    BOOTED = "booted"
    USER = "by an administrator"
    MIGRATED = "migrated"  # off here because it runs elsewhere now, or running after a move
    RESTORED = "restored"
    SNAPSHOT = "from a snapshot"
    SHUT_DOWN = "shut down"
    TURNED_OFF = "turned off"
    CRASHED = "crashed"
    SAVED = "saved"
    FAILED = "failed"
    DAEMON = "daemon restarted"
    MIGRATION = "being moved"
    MIGRATION_CANCELLED = "move cancelled"
    POSTCOPY = "being moved (post-copy)"
    POSTCOPY_FAILED = "post-copy failed"
    IO_ERROR = "disk error"
    WATCHDOG = "watchdog"
    PANICKED = "guest panicked"
    SHUTTING_DOWN = "shutting down"
    STARTING_UP = "starting up"
    SAVING = "being saved"
    DUMPING = "being dumped"
    SLEEPING = "guest sleeps"
    API_ERROR = "error in the host's API"
    OTHER = "unknown cause"


class Activity(StrEnum):
    """What is being done to a VM right now."""

    NONE = ""
    QUEUED = "Queued"
    STARTING = "Starting"
    SHUTTING_DOWN = "Shutting down"
    TURNING_OFF = "Turning off"
    RESTARTING = "Restarting"
    SAVING = "Saving"
    DELETING_SAVED = "Deleting saved state"
    PAUSING = "Pausing"
    RESUMING = "Resuming"
    RESETTING = "Resetting"
    MIGRATING = "Migrating"
    CANCELLING = "Cancelling"
    CHANGING_SETTINGS = "Changing settings"
    SNAPSHOT_CREATE = "Taking a snapshot"
    SNAPSHOT_DELETE = "Deleting a snapshot"
    SNAPSHOT_REVERT = "Reverting to a snapshot"
    SENDING_KEYS = "Sending keys"
    CHECKING = "Checking"
    FOREIGN_MIGRATION = "Migrating (not Muster's)"
    FOREIGN_JOB = "Busy (not Muster's)"


class Priority(IntEnum):
    """Start order and right of way; the original's four steps and numbers."""

    HIGH = 3000
    MEDIUM = 2000
    LOW = 1000
    NO_AUTO_START = 0

    @property
    def title(self) -> str:
        """As the window writes it: ``No Auto Start``."""
        return self.name.replace("_", " ").title()


class NodeStage(StrEnum):
    """What is under way of a pause, drain or resume of a node. The value is what its story says."""

    PAUSE = "writes the pause on the node"
    RESUME = "removes the pause from the node"
    MOVE = "moves VMs"
    REPORT = "writes on the node how the drain ended"
    OVER = "is over"


class AgentState(StrEnum):
    """The guest agent, as the node sees it."""

    UNKNOWN = "Unknown"
    CONNECTED = "Connected"
    DISCONNECTED = "Not answering"
    ABSENT = "No channel"


class Authority(StrEnum):
    """Who may start, stop and move a VM."""

    MUSTER = "Muster"
    PACEMAKER = "Pacemaker"
    UNTOLD = "Pacemaker, perhaps"  # the VM's node has not said whose it is


class Pacemaker(StrEnum):
    """What is known of Pacemaker on a node."""

    NONE = "none"  # it does not run there, or there is no way to ask
    ASKED = "asked"  # for the first time, and there is no answer yet
    RUNS = "runs"
    UNTOLD = "untold"  # it is there, and does not tell which VMs are its own: not to this login, or it hangs


class PeerRoute(StrEnum):
    """How a live migration's control connection goes."""

    NODE_TO_NODE = "node to node"
    THROUGH_THIS_COMPUTER = "through this computer"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """A node as the cluster file names it."""

    name: NodeId
    uri: str
    peer_uri: str | None = None
    addresses: tuple[str, ...] = ()
    ssh: str | None = None
    bmc: str | None = None
    credentials: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """What is done about a live migration that does not converge."""

    pause_steps_ms: tuple[int, ...] = (300, 500, 1000, 2000)
    auto_converge: bool = True
    auto_converge_initial_percent: int = 20
    auto_converge_max_percent: int = 80
    post_copy: bool = False
    time_out_s: int = 0  # 0: max(10 min, 60 s per GiB)


class MoveType(StrEnum):
    """How a VM goes to another node, or its disks to another pool."""

    LIVE = "live"  # it runs on; disks that the nodes do not share are copied where a pool is given
    QUICK = "quick"  # saved, restored there
    SHUT_DOWN = "shutdown"  # the guest is asked to shut down, started there
    TURN_OFF = "turn-off"  # power cut, started there
    STORAGE = "storage"  # its disks go to another pool; it runs on where it is


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What is tried again after a transient error: how often, after how long, and when it is enough."""

    times: int = 3
    first_s: float = 5.0  # each further pause is three times as long
    target_failures: int = 3  # in a row: that target is fed no more
    batch_failures: int = 3  # and `batch_percent` of a batch: it pauses and asks
    batch_percent: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationLimits:
    """How many live migrations may run at once, and how fast. 0 means no limit of its own."""

    outgoing_per_node: int = 2
    incoming_per_node: int = 2
    cluster_limit: int = 0
    bandwidth_mib_s: int = 0
    node_bandwidth_mib_s: int = 0
    networks: tuple[str, ...] = ()
    parallel_connections: int = 0  # 0: one, as the hypervisor does by itself
    encrypt: bool = False  # the memory goes through TLS; the hosts need certificates for it
    convergence: Convergence = Convergence()
    retry: RetryPolicy = RetryPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkLimits:
    """How many other heavy calls may run at once."""

    starts_per_node: int = 4
    starts_per_cluster: int = 16
    saves_per_node: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPolicy:
    """What best-node placement keeps free."""

    cpu_overcommit: float = 4.0
    memory_reserve_mib: int = 4096
    memory_reserve_percent: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """A cluster file, read and checked. Source: the format in ``docs/cluster-file.md``."""

    name: str
    colour: str = "#7a5cff"
    nodes: tuple[NodeConfig, ...] = ()
    migration: MigrationLimits = MigrationLimits()
    work: WorkLimits = WorkLimits()
    placement: PlacementPolicy = PlacementPolicy()
    shared_paths: tuple[str, ...] = ()
    read_only: bool = False
    tier: Tier = Tier.MANAGED
    file: str = field(default="", compare=False)  # it was read from; empty: none, as with --connect

    @property
    def is_real(self) -> bool:
        """Whether there are hosts that exist without this process."""
        return self.tier not in (Tier.DEMO, Tier.DUMP)

    def node(self, name: NodeId) -> NodeConfig:
        """The node of that name; `KeyError` if the file has none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaCell:
    """CPUs of a host with the memory that is near to them. Source: libvirt virConnectGetCapabilities."""

    id: int
    cpus: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a host says of itself when it is connected to."""

    hostname: str
    host_uuid: str
    cpus: int
    memory_mib: int
    cpu_model: str = ""
    cpu_mhz: int = 0
    libvirt_version: str = ""
    hypervisor: str = ""
    hypervisor_version: str = ""
    cells: tuple[NumaCell, ...] = ()  # empty: the host does not say
    machines: frozenset[str] = frozenset()  # "x86_64 pc-q35-9.2" and the like; empty: it does not say
    read_only: bool = False
    encrypted: bool = False
    features: frozenset[str] = frozenset()  # what this connection can do; see ports.Feature


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One reason why a node takes no new VMs. A node may have several."""

    who: str
    why: str
    since_s: float
    drain: DrainState = DrainState.NONE  # whether its VMs were to leave, and how far that has come


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoad:
    """A node's fast-changing figures; sampled on demand."""

    cpu_percent: float | None = None
    memory_free_mib: int | None = None
    at_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VmLoad:
    """A VM's fast-changing figures; sampled on demand."""

    cpu_percent: float | None = None  # of its vCPUs, 0 to 100
    memory_used_mib: int | None = None  # as the balloon driver in the guest reports
    disk_bytes_per_s: float | None = None  # read and written, all disks together
    net_bytes_per_s: float | None = None  # received and sent, all interfaces together
    at_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk or CD of a VM."""

    target: str  # vda, sda
    device: str = "disk"  # disk, cdrom, floppy, lun
    source: str = ""  # path, pool/volume or protocol://host/name; empty: no medium
    kind: str = "file"  # file, block, network, volume
    format: str = ""
    cache: str = ""  # empty: the hypervisor's default
    read_only: bool = False
    shareable: bool = False
    encrypted: bool = False  # the hypervisor holds the key: whatever reads it through that gets plain data
    capacity_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network interface of a VM."""

    mac: str
    kind: str = ""  # bridge, network, direct, user
    source: str = ""
    model: str = ""
    link_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A VM as it was at one time, as its node keeps it. Source: libvirt virDomainSnapshotGetXMLDesc."""

    name: str
    description: str = ""
    created_s: float | None = None
    status: VmStatus = VmStatus.UNKNOWN  # the VM's then; a revert brings it back
    memory: bool = False  # what was in its memory was kept too
    external: bool = False  # kept as files of its own, over which the VM writes on
    parent: str = ""  # the one it was made after
    is_current: bool = False  # the newest one that what the VM has now builds on


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotParameters:
    """Which snapshot is meant, and how one is to be made."""

    name: str = ""
    description: str = ""
    disk_only: bool = False  # the memory of a running VM is not kept; new files take what it writes


class RuleKind(StrEnum):
    """What a rule asks of the VMs of its group."""

    APART = "apart"  # never two of them on one node
    RATHER_APART = "rather apart"  # on one node only where there is no other
    RATHER_TOGETHER = "rather together"  # on one node where it takes them


@dataclass(frozen=True, slots=True)
class PlacementRule:
    """A VM's part in a group of VMs."""

    kind: RuleKind
    group: str

    @property
    def text(self) -> str:
        """As people read it: ``apart: web``."""
        return f"{self.kind.value}: {self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSettings:
    """What Muster keeps in the domain's metadata; the same for every administrator."""

    priority: Priority = Priority.MEDIUM
    tags: tuple[str, ...] = ()
    possible_owners: tuple[NodeId, ...] = ()  # it goes to no other node; empty: to any
    preferred_owners: tuple[NodeId, ...] = ()  # the first that can takes it
    rules: tuple[PlacementRule, ...] = ()  # one per group
    drained_from: NodeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """Where a graphics device of a running VM listens."""

    kind: str  # vnc or spice
    address: str
    port: int = 0  # 0: none without TLS
    tls_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VmConfig:
    """What a VM's definition says; read once per connection and again when it changes."""

    memory_mib: int  # the most it can have without a restart
    vcpus: int
    current_memory_mib: int = 0  # what it has of that; 0: all
    vcpus_most: int = 0  # without a restart; 0: those it has
    title: str = ""
    description: str = ""
    boot: tuple[str, ...] = ()  # targets of disks and MAC addresses, in order
    machine: str = ""
    arch: str = ""
    cpu_mode: str = ""
    disks: tuple[Disk, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    host_devices: tuple[str, ...] = ()  # anything that ties the VM to its host, as text
    nvram: str = ""  # the file with its UEFI variables; empty: it has none
    emulated_tpm: bool = False  # its state lies on its node
    agent_channel: bool = False
    agent: AgentState = AgentState.UNKNOWN
    autostart: bool = False
    persistent: bool = True
    snapshots: int = 0
    checkpoints: int = 0  # what incremental backups build on; no move carries them
    graphics: tuple[str, ...] = ()
    displays: tuple[Display, ...] = ()  # where they listen, while it runs
    settings: VmSettings = VmSettings()
    digest: str = ""  # of the definition; equal digests mean an equal definition
    stored_digest: str = ""  # of that by which it starts the next time; empty: it does not run
    trouble: str = ""  # why part of the definition could not be understood
    stored: VmConfig | None = None  # by which it starts the next time, where that differs from how it runs

    @property
    def memory_now_mib(self) -> int:
        """The memory that it has."""
        return self.current_memory_mib or self.memory_mib

    @property
    def most_vcpus(self) -> int:
        """The vCPUs that it can have without a restart."""
        return self.vcpus_most or self.vcpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one node says of one VM."""

    vm: VmId
    node: NodeId
    name: str
    status: VmStatus
    cause: StatusCause = StatusCause.NONE
    incarnation: int | None = None  # the hypervisor's running id; None when not running
    state_at_s: float = 0.0  # when an event told it last, or a read that found it changed
    changed_at_s: float | None = None  # when it changed while we watched; None: before our time
    started_at_s: float | None = None  # when it started, if known
    shutting_down: bool = False
    no_room_for: str = ""  # the disk, by its path, that found no room when it stopped; empty: none told so
    config: VmConfig | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the window shows it."""

    id: NodeId
    uri: str
    status: NodeStatus = NodeStatus.CONNECTING
    information: Reason | None = None
    facts: NodeFacts | None = None
    pacemaker: Pacemaker = Pacemaker.NONE
    holds: tuple[Hold, ...] = ()
    work: Reason | None = None  # a pause, drain or resume of ours that is under way: how far it has come
    last_seen_s: float | None = None
    retry_at_s: float | None = None
    last_read_s: float | None = None  # when the last whole inventory read was begun
    vms_running: int = 0
    vms_total: int = 0
    vms_unread: int = 0  # run here, and their definitions were never read: what they need is not known

    @property
    def is_up(self) -> bool:
        """Whether work can be asked of it now."""
        return self.status is NodeStatus.UP

    @property
    def drain(self) -> DrainState:
        """How far a drain of it has come, as its holds say."""
        return next((h.drain for h in self.holds if h.drain is not DrainState.NONE), DrainState.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A VM as the window shows it: one row per UUID, derived from its sightings."""

    id: VmId
    name: str
    status: VmStatus
    cause: StatusCause = StatusCause.NONE
    was: VmStatus | None = None  # the last known status while it is Unknown
    activity: Activity = Activity.NONE
    owner: NodeId | None = None
    moving_to: NodeId | None = None
    operation: OperationId | None = None
    information: Reason | None = None
    notes: tuple[Reason, ...] = ()  # all that is to be said, the first is `information`
    config: VmConfig | None = None
    other_nodes: tuple[NodeId, ...] = ()  # further definitions of the same UUID
    authority: Authority = Authority.MUSTER
    changed_at_s: float | None = None
    started_at_s: float | None = None
    alarm: bool = False  # runs on two nodes
    percent: int | None = None  # of the activity, where there is a figure


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemLife:
    """What is kept of a problem beyond the moment. Times are wall-clock seconds."""

    key: str
    cause: str  # what makes two of a key the same problem
    first_s: float
    since_s: float  # when it began, this time
    last_s: float  # when it was seen to begin or to end last
    times: int = 1
    ended: bool = False
    acknowledged_by: str = ""  # until it ends
    acknowledged_s: float | None = None
    note: str = ""
    muted_by: str = ""  # also if it ends and comes again
    muted_until_s: float | None = None

    def is_muted(self, now_s: float) -> bool:
        """Whether nobody wants to hear of it now."""
        return self.muted_until_s is not None and now_s < self.muted_until_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something an administrator should know of and may act on. One per cause."""

    key: str
    reason: Reason
    since_s: float
    severity: str = "error"  # error, warning
    node: NodeId | None = None
    vms: tuple[VmId, ...] = ()
    life: ProblemLife | None = None  # None: its owner has not told

    def is_new(self, now_s: float) -> bool:
        """Whether somebody should still look at it: neither acknowledged nor muted."""
        life = self.life
        return life is None or not (life.acknowledged_by or life.is_muted(now_s))

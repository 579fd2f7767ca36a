"""What the services need from the world, as protocols. Adapters implement them; bootstrap joins them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from manager.core.chronicle import ClusterEvent
from manager.core.effects import (
    AbortMigration,
    ChangeVm,
    CheckPeerLogin,
    CopyDefinition,
    CopyDisks,
    EditVm,
    ForgetDefinition,
    HoldNode,
    NoteDrained,
    ReleaseNode,
    RestoreFromFile,
    SaveToFile,
    StartMigration,
    TuneMigration,
    WriteVmSettings,
)
from manager.core.events import (
    Event,
    MigrationProgress,
    NodeInventoryRead,
    NodeNotesRead,
    NodeResourcesRead,
    NodeSampled,
    PoolVolumesRead,
    VmAuthoritySeen,
    VmConfigRead,
)
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import ClusterConfig, NodeConfig, NodeFacts, ProblemLife, Snapshot
from manager.core.operations import Operation
from manager.core.vault import KeptDefinition


class Feature(StrEnum):
    """What a connection may or may not be able to do (`NodeFacts.features`).

    Found out by trying or asking, never by a version number.
    """

    LIVE_MIGRATION = "live migration"
    POST_COPY = "post-copy"
    OTHER_MOVES = "quick and storage migration"
    PEER_TO_PEER = "node-to-node migration"
    JOB_FIGURES = "job figures"
    LOAD_FIGURES = "load figures"
    KEEP_ALIVE = "keep-alive"
    NOTES = "notes for all administrators"


class Clock(Protocol):
    """Time, so that tests and the simulator can own it."""

    def now_s(self) -> float:
        """Wall-clock seconds since the epoch."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        ...


class Console(Protocol):
    """A VM's serial console that is open: bytes both ways. Loop thread only."""

    @property
    def why_ended(self) -> str:
        """Why `read` came to its end; empty while it has not."""
        ...

    async def read(self) -> bytes:
        """What the guest wrote since; empty once it is over. One reader; of too much the oldest is lost."""
        ...

    def write(self, data: bytes) -> None:
        """Type. Nothing is written any more once it is over."""
        ...

    def close(self) -> None:
        """Let go of it, at once and without waiting. Harmless a second time."""
        ...


class NodeNotes(Protocol):
    """What every administrator must respect is kept on the hosts themselves: who holds a node, and why.

    Every method raises `OperationError`. Who changes something is told of it to everybody who is connected,
    as `NodeNotesChanged`.
    """

    async def read_notes(self, node: NodeId) -> NodeNotesRead:
        """The holds on a node; what is not understood is left out. NOT_SUPPORTED where none can be kept."""
        ...

    async def hold_node(self, effect: HoldNode) -> None:
        """Keep a hold; that holder's earlier one is replaced, others stay."""
        ...

    async def release_node(self, effect: ReleaseNode) -> None:
        """Remove all holds; harmless if there are none."""
        ...


class Hypervisor(NodeNotes, Protocol):
    """All hosts of one cluster. Loop thread only; nothing here blocks the loop.

    Every method raises `OperationError` with a `Failure`; nothing else for what a host can do. Every wait has
    a deadline of the adapter's; cancelling the awaiting task abandons the call without harm to others.
    """

    async def connect(self, node: NodeConfig) -> NodeFacts:
        """Open the connection, register for events (from now on in `events`), read the facts.

        Raises `OperationError` with LOGIN, UNREACHABLE, TIMEOUT or INCOMPATIBLE. Connecting a connected node
        replaces its connection.
        """
        ...

    async def disconnect(self, node: NodeId) -> None:
        """Drop a node's connections without waiting for a host that hangs."""
        ...

    async def read_inventory(self, node: NodeId) -> NodeInventoryRead:
        """All VMs of a node, by bulk calls only (three at most)."""
        ...

    async def read_vm(self, node: NodeId, vm: VmId) -> VmConfigRead:
        """One VM's definition, settings, autostart, snapshot count, agent state."""
        ...

    async def read_definition(self, node: NodeId, vm: VmId, *, stored: bool = False) -> str:
        """One VM's definition as it is now, as XML of limited size, without passwords.

        `stored`: that by which it starts the next time. Source: libvirt VIR_DOMAIN_XML_INACTIVE.
        """
        ...

    async def read_snapshots(self, node: NodeId, vm: VmId) -> tuple[Snapshot, ...]:
        """One VM's snapshots, the oldest first."""
        ...

    async def screenshot(self, node: NodeId, vm: VmId) -> bytes:
        """What a running VM's screen shows, as a PNG of limited size.

        WRONG_STATE if it does not run, NOT_SUPPORTED if it has no graphics device.
        """
        ...

    async def open_console(self, node: NodeId, vm: VmId, *, take_over: bool = False) -> Console:
        """The first serial console of a running VM, for this caller alone.

        WRONG_STATE if it does not run, NOT_SUPPORTED if it has none; a failure too if somebody has it open,
        unless it is taken over. It ends when the VM stops, leaves the node, or the connection is lost.
        """
        ...

    async def read_authority(self, node: NodeId) -> VmAuthoritySeen | None:
        """Which VMs of a node are Pacemaker's; None if there is no way to ask there.

        Raises `OperationError` if there was no answer: then nothing is known that was not known before.
        """
        ...

    async def read_resources(self, node: NodeId) -> NodeResourcesRead:
        """A node's pools, networks and interfaces; no volumes, and nothing is refreshed for it."""
        ...

    async def read_volumes(self, node: NodeId, pool: str) -> PoolVolumesRead:
        """Refresh a pool where that is permitted, and list what is in it. May take a minute.

        Raises `OperationError`: STORAGE if there is no such pool, or it is not active.
        """
        ...

    async def sample(self, node: NodeId, *, disks: bool = False) -> NodeSampled:
        """Loads of the node and of its VMs, one bulk call. CPU figures and rates need two samples.

        `disks`: with what their disks carry, for which a host asks each QEMU once more.
        """
        ...

    async def job_progress(
        self, node: NodeId, vm: VmId, operation: OperationId, attempt: int
    ) -> MigrationProgress | None:
        """A running move's figures from its source; None when no job runs."""
        ...

    async def have_jobs(self, node: NodeId, vms: Sequence[VmId]) -> frozenset[VmId]:
        """Those of these VMs of which the node itself says that a job runs on them, asked together."""
        ...

    async def change_vm(self, effect: ChangeVm) -> None:
        """Make the call; returns when libvirt's call does (a guest may still be shutting down).

        What is done to a snapshot is told as a `VmDefinitionChanged`: its number is part of that.
        """
        ...

    async def migrate(self, effect: StartMigration) -> None:
        """Move a VM; returns when the call is over. No deadline of its own: progress is watched."""
        ...

    async def abort(self, effect: AbortMigration) -> None:
        """Cancel the running move, over a connection that is not stuck in it."""
        ...

    async def tune(self, effect: TuneMigration) -> None:
        """Change a running move, over a connection that is not stuck in it."""
        ...

    async def save_to_file(self, effect: SaveToFile) -> None:
        """Save a VM to a file; returns when it is off. No deadline of its own."""
        ...

    async def restore_from_file(self, effect: RestoreFromFile) -> None:
        """Let it run on from the file and delete that. A failed restore keeps the file."""
        ...

    async def copy_definition(self, effect: CopyDefinition) -> None:
        """Define a VM that is off on another node too."""
        ...

    async def forget_definition(self, effect: ForgetDefinition) -> None:
        """Undefine a VM that is off here. `WRONG_STATE` if it runs here."""
        ...

    async def copy_disks(self, effect: CopyDisks) -> None:
        """Move a running VM's disks to another pool of its node; progress is its job's."""
        ...

    async def check_peer(self, effect: CheckPeerLogin) -> None:
        """Raises `OperationError(PEER_LOGIN)` if the source cannot log in to the target; moves nothing."""
        ...

    async def write_settings(self, effect: WriteVmSettings) -> None:
        """Write our metadata element; unknown content in it is kept."""
        ...

    async def note_drained(self, effect: NoteDrained) -> None:
        """Note in our metadata element from where a VM is drained; the rest of it is kept."""
        ...

    async def edit_vm(self, effect: EditVm) -> None:
        """Change a VM's definition; what is not named in it is kept. `ALREADY` is never raised."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Lifecycle, definition and job events of all connected nodes, and `NodeLost` when one closes.

        One consumer. Ends after `close`.
        """
        ...

    async def close(self) -> None:
        """Drop everything within a second, stuck calls included."""
        ...


class Journal(Protocol):
    """The write-ahead journal of one cluster's operations."""

    @property
    def notices(self) -> Sequence[str]:
        """What the user should know after `load`: damage found, records set aside."""
        ...

    async def load(self) -> tuple[Operation, ...]:
        """What had not ended, its parents, and all children of batches that had not; parents first.

        So a batch that is not over comes back whole: its end and its figures are those of all its children.
        """
        ...

    async def commit(self, operations: Sequence[Operation]) -> None:
        """Make these states durable. Raises `OSError` if that failed; then nothing was stored."""
        ...

    async def history(self, limit: int) -> tuple[Operation, ...]:
        """The newest ended operations, newest first."""
        ...

    async def record(self, events: Sequence[ClusterEvent], lives: Sequence[ProblemLife]) -> None:
        """Keep what happened, and the newest of problems, when nothing more urgent is to be written.

        Raises `OSError` if that failed; then nothing of it was stored.
        """
        ...

    async def happened(self, since_s: float, limit: int) -> tuple[ClusterEvent, ...]:
        """The newest so many events since a moment, oldest first."""
        ...

    async def lives(self) -> tuple[ProblemLife, ...]:
        """What is kept of all problems."""
        ...

    async def close(self) -> None:
        """Flush and close."""
        ...


class Vault(Protocol):
    """The stored definitions of one cluster's VMs, a few versions of each. Any number of processes read it.

    Every method raises `OSError` if the store cannot be used; nothing was changed then.
    """

    async def newest(self) -> tuple[KeptDefinition, ...]:
        """The newest version of every VM."""
        ...

    async def keep(self, found: Sequence[tuple[KeptDefinition, str]]) -> tuple[KeptDefinition, ...]:
        """Keep these texts, all or none; returns how they stand there.

        A text that is the newest already makes no version: only where it was seen is written anew. The
        `number` and `kept_s` that are given count for a new version only.
        """
        ...

    async def versions(self, vm: VmId) -> tuple[KeptDefinition, ...]:
        """All that is kept of one VM, the newest first."""
        ...

    async def text(self, vm: VmId, number: int) -> str | None:
        """A version as XML; None if there is none of that number."""
        ...

    async def close(self) -> None:
        """Finish and close."""
        ...


class SecretStore(Protocol):
    """Passwords: the key ring, or this process's memory where there is none."""

    @property
    def is_persistent(self) -> bool:
        """False: held in memory only, and the user is told."""
        ...

    def get(self, entry: str, user: str) -> str | None:
        """The secret, or None. May block: called from lane threads."""
        ...

    def set(self, entry: str, user: str, secret: str) -> None:
        """Keep a secret."""
        ...

    def delete(self, entry: str, user: str) -> None:
        """Forget a secret, for instance one that was refused."""
        ...


AskSecret = Callable[[str, str, str], Awaitable[str | None]]
"""(node name, user, prompt) -> the secret, or None if the user gave up. Called on the loop."""


class ViewStore(Protocol):
    """Per-user state of the window as JSON-like values, by name."""

    def read(self, name: str) -> bytes | None:
        """The stored bytes, or None."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Store; trouble is logged, never raised: losing a column width must not hurt."""
        ...


class UserUnits(Protocol):
    """The service of ``muster engine`` with the user's systemd: one unit per cluster. Blocks meanwhile."""

    @property
    def path(self) -> Path:
        """The file from which all of them are made."""
        ...

    def name(self, cluster: str) -> str:
        """The unit of a cluster, given by its name or file. Raises `UserError` if there can be none."""
        ...

    def install(self) -> bool:
        """Write the file; whether that changed anything. Raises `OSError`."""
        ...

    def enabled(self) -> tuple[str, ...]:
        """The units that start with the user's session."""
        ...

    def remove(self) -> bool:
        """Remove the file; whether there was one. Raises `OSError`."""
        ...

    def systemctl(self, *words: str) -> tuple[int, str] | None:
        """Ask systemd: exit code and what it said. None if there is no systemctl."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredCluster:
    """A file in the clusters folder. `trouble` says why it cannot be loaded; `name` is its stem then."""

    name: str
    path: Path
    trouble: str = ""


class ClusterFiles(Protocol):
    """The user's configured clusters, any other cluster file, and which were open last.

    Every method raises `UserError` with one clear message; nothing is changed then.
    """

    def configured(self) -> tuple[ConfiguredCluster, ...]:
        """All of them, by name; broken ones too, with what is wrong."""
        ...

    def find(self, name_or_file: str) -> Path:
        """The file of a configured cluster's name, or else of a path. It is not read."""
        ...

    def load(self, name_or_file: str) -> ClusterConfig:
        """The cluster of that name or file."""
        ...

    def only(self) -> Path | None:
        """The only configured cluster's file; None if there is none; `UserError` if several."""
        ...

    def add(self, config: ClusterConfig) -> Path:
        """Store a new cluster and return its file; refused if the name is taken."""
        ...

    def remove(self, name: str) -> Path:
        """Take a configured cluster out of the list; its file is kept beside."""
        ...

    def last_used(self) -> tuple[Path, ...]:
        """The cluster files that were open last and still exist."""
        ...

    def remember(self, paths: Sequence[Path]) -> None:
        """Keep which clusters are open."""
        ...

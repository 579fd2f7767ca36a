"""What a simulated cluster consists of: hosts, VMs, the guests in them, and what the hosts are busy with."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import Event
from manager.core.ids import NodeId, VmId
from manager.core.model import AgentState, Hold, Snapshot, StatusCause, VmConfig, VmStatus
from manager.core.resource_facts import SeenInterface
from manager.core.units import GIB, MIB

if TYPE_CHECKING:
    from manager.backends.sim.closeups import SimConsole
    from manager.backends.sim.moves import Move
    from manager.backends.sim.streams import Transfer

Done = Callable[[Failure | None], None]
"""Called once when what was begun is over; None means that it worked."""

HOST_MEMORY_MIB = 2048
"""What a host keeps for itself."""

RUNS = frozenset({VmStatus.RUNNING, VmStatus.PAUSED})
"""States in which a VM holds memory on its node."""

DISK_BYTES = 20 * GIB
"""The size of a disk whose definition does not say it."""

_MEDIA = ("debian-13.iso", "drivers.iso")

NOT_RUNNING = "Requested operation is not valid: domain is not running"
"""libvirt's words for a change that needs a running VM."""


class Reach(Enum):
    """How a host behaves towards whoever connects to it, administrators and other hosts alike."""

    ANSWERS = "answers"
    REFUSES = "refuses"  # up, but nobody listens: connections end at once
    SILENT = "silent"  # no power or no network: connections end by keep-alive
    FROZEN = "frozen"  # accepts and never answers


class Timer:
    """One entry of the agenda."""

    __slots__ = ("_action", "due_s")

    def __init__(self, due_s: float, action: Callable[[], None]) -> None:
        self.due_s = due_s
        self._action: Callable[[], None] | None = action

    @property
    def is_set(self) -> bool:
        """Whether it will still come."""
        return self._action is not None

    def cancel(self) -> None:
        """It will not come; harmless if it came already."""
        self._action = None

    def fire(self) -> None:
        """It comes."""
        action, self._action = self._action, None
        if action is not None:
            action()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """How the software inside a VM behaves."""

    boot_s: float = 3.0
    shutdown_s: float = 5.0
    obeys: bool = True  # shuts down and restarts when it is asked to
    agent: bool = True  # an agent runs in it, where the VM has a channel for one
    cpu_percent: float = 10.0  # of its vCPUs, on average
    phase: float = 0.0  # of its ups and downs, radians
    touched: float = 0.6  # share of its memory that it ever wrote: what a move copies
    dirty_mib_s: float = 20.0  # how fast it writes memory anew
    working_set: float = 0.05  # share of its memory that it writes over and over
    disk_full: bool = False  # stops with a disk error soon after it runs
    disk_filled: float = 0.4  # share of its disks that it ever wrote: what a copy of them copies


@dataclass(slots=True, eq=False, repr=False)
class Job:
    """What the hypervisor is busy with on a VM; others that want to change the VM wait for its end."""

    what: str  # as the message about the lock names it
    done: Done
    since_s: float
    kind: str = ""  # as `ForeignJobSeen` names it to whoever did not ask for it; empty: it is not told
    move: Move | None = None
    transfer: Transfer | None = None
    timer: Timer | None = None
    undo: Callable[[], None] | None = None  # what a job that is broken off leaves; tells nobody
    may_be_aborted: bool = False
    copies: tuple[str, tuple[str, ...]] = ("", ())  # of disks: the pool, the targets
    unattended: bool = False  # whoever began it is gone: a copy of disks is not switched over then
    waiting: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True, eq=False, repr=False)
class Intent:
    """A guest that is about to shut down or restart. It goes with the guest when that moves."""

    vm: SimVm
    act: Callable[[], None]
    timer: Timer


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class SimVm:
    """A VM as one node has it. During a move the target has one of its own."""

    id: VmId
    name: str
    node: SimNode
    config: VmConfig
    guest: Guest
    status: VmStatus = VmStatus.OFF
    cause: StatusCause = StatusCause.NONE
    incarnation: int | None = None
    started_s: float | None = None  # wall clock
    here_since_s: float = -math.inf  # monotonic: since when it runs on this node
    shutting_down: bool = False
    job: Job | None = None
    disk_job: Job | None = None  # block copies: they hold up moves and saves, and nothing else
    intent: Intent | None = None
    snapshots: list[Snapshot] = field(default_factory=list)
    console: SimConsole | None = None  # that is open
    revision: int = 0
    foreign_metadata: str = ""  # what others keep next to our settings; nobody here may lose it

    @property
    def runs(self) -> bool:
        """Whether it holds memory: running or paused."""
        return self.status in RUNS

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What goes on with it."""
        return tuple(job for job in (self.job, self.disk_job) if job is not None)

    @property
    def memory_bytes(self) -> float:
        """What a move or a save of it writes at least."""
        return self.config.memory_mib * MIB * self.guest.touched

    def disk_bytes(self, targets: Collection[str]) -> float:
        """What a copy of these disks writes."""
        return sum(
            (disk.capacity_bytes or DISK_BYTES) * self.guest.disk_filled
            for disk in self.config.disks
            if disk.target in targets
        )

    def cpu_percent(self, at_s: float) -> float:
        """Its CPU use at a moment, as a curve: a slow wave, a quick one, never quite nothing."""
        if self.status is not VmStatus.RUNNING:
            return 0.0
        guest = self.guest
        wave = 1 + 0.35 * math.sin(at_s / 97 + guest.phase) + 0.2 * math.sin(at_s / 11 + 7 * guest.phase)
        return min(100.0, max(0.2, guest.cpu_percent * wave))

    def end_console(self) -> None:
        """Its process is gone here."""
        if self.console is not None:
            self.console.end("the VM stopped or left its node")

    def read(self) -> VmConfig:
        """Its definition as a read gives it, with the agent's state."""
        if not self.config.agent_channel:
            agent = AgentState.ABSENT
        elif self.status is VmStatus.RUNNING and self.guest.agent:
            agent = AgentState.CONNECTED
        else:
            agent = AgentState.DISCONNECTED
        config = self.config if self.runs else afresh(self.config)
        return replace(config, agent=agent, digest=f"{self.id}:{self.name}:{self.revision}")


def afresh(config: VmConfig) -> VmConfig:
    """The definition by which a VM starts; what is no hardware is the same in both."""
    stored = config.stored
    if stored is None:
        return config
    return replace(
        config,
        memory_mib=stored.memory_mib,
        current_memory_mib=stored.current_memory_mib,
        vcpus=stored.vcpus,
        vcpus_most=stored.vcpus_most,
        boot=stored.boot,
        disks=stored.disks,
        interfaces=stored.interfaces,
        stored=None,
    )


@dataclass(slots=True, eq=False)
class Pool:
    """A storage pool of a host."""

    path: str
    free_bytes: float = math.inf
    kind: str = "dir"
    format: str = ""
    hosts: tuple[str, ...] = ()
    source: str = ""
    capacity_bytes: int = 16 * 1024 * GIB
    files: dict[str, int] = field(default_factory=dict)  # in it besides VMs' disks: name -> bytes


@dataclass(slots=True, eq=False)
class SimNetwork:
    """A network of a host's libvirt."""

    mode: str = "nat"
    bridge: str = "virbr0"
    subnets: tuple[str, ...] = ()


def _networks() -> dict[str, SimNetwork]:
    return {"default": SimNetwork(subnets=("192.168.122.0/24",))}


def _pools() -> dict[str, Pool]:
    return {"default": Pool("/var/lib/libvirt/images"), "vms": Pool("/srv/vms")}


def _media() -> set[str]:
    return {f"{folder}/{name}" for folder in ("/var/lib/libvirt/images", "/srv/vms") for name in _MEDIA}


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class SimNode:
    """A host."""

    id: NodeId
    host_uuid: str = ""
    cpus: int = 32
    memory_mib: int = 128 * 1024
    cpu_model: str = "EPYC-Rome"
    cpu_mhz: int = 2900
    numa_cells: int = 2
    libvirt_version: str = "11.3.0"
    hypervisor_version: str = "10.0.3"
    link_bytes_per_s: float = 1.25e9  # 10 Gbit/s, shared by the moves in each direction
    connection_bytes_per_s: float = 1.25e9  # what one connection of a move carries at most
    encrypted_bytes_per_s: float = 500e6  # and if it is encrypted
    disk_bytes_per_s: float = 800e6  # shared by what is read and written
    pools: dict[str, Pool] = field(default_factory=_pools)
    networks: dict[str, SimNetwork] = field(default_factory=_networks)
    inactive: set[str] = field(default_factory=set)  # names of pools and networks that are stopped
    nics: tuple[SeenInterface, ...] = ()
    post_copy: bool = True  # its kernel and QEMU can
    certificates: bool = True  # for encrypted moves
    dead_addresses: set[str] = field(default_factory=set)  # nobody reaches it there; "": at its own choice
    holds: dict[str, Hold] = field(default_factory=dict)  # by holder; they outlive a loss of power
    media: set[str] = field(default_factory=_media)  # images of CDs
    bridges: set[str] = field(default_factory=lambda: {"br0"})
    shared_paths: tuple[str, ...] = ("/srv/vms",)  # the same files on every node that has the path
    connect_s: float = 0.05
    reach: Reach = Reach.ANSWERS
    refuses_login: bool = False
    incompatible: str = ""  # why it cannot be driven
    delay_s: float = 0.0  # added to every call
    event_lag_s: float = 0.0  # added to every event
    events_to_lose: int = 0
    events_to_swap: int = 0  # pairs of events that come in the wrong order
    hangs: dict[str, list[bool]] = field(
        default_factory=dict
    )  # port method -> for each call, whether it acts
    vms: dict[VmId, SimVm] = field(default_factory=dict)
    last_incarnation: int = 0
    held_event: Event | None = None

    def shares(self, path: str) -> bool:
        """Whether a file is the same one on every node that has this path."""
        return any(path.startswith(shared.rstrip("/") + "/") for shared in self.shared_paths)

    def used_mib(self) -> int:
        """Memory held by its VMs: those that run, come in, or are being started."""
        return sum(vm.config.memory_mib for vm in self.vms.values() if vm.runs or vm.job is not None)

    def free_mib(self) -> int:
        """Memory that a VM could still get."""
        return self.memory_mib - HOST_MEMORY_MIB - self.used_mib()


def refused(
    code: FailureCode, text: str, *, node: NodeId | None = None, vm: VmId | None = None
) -> OperationError:
    """The error by which the world refuses."""
    return OperationError(Failure(code=code, text=text, node=node, vm=vm, detail="simulated"))

"""Clusters for the window's tests: a `ClusterState` fed with events, behind what the window calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from manager.core import events as ev
from manager.core.actions import Plan
from manager.core.changes import ChangeSet
from manager.core.chronicle import ClusterEvent
from manager.core.cluster import ClusterState
from manager.core.effects import Effect
from manager.core.errors import Failure, OperationError, UserError
from manager.core.ids import ClusterId, NodeId, OperationId, PoolId, TraceId, VmId
from manager.core.model import (
    AgentState,
    ClusterConfig,
    Disk,
    Interface,
    NodeConfig,
    NodeFacts,
    Priority,
    Snapshot,
    StatusCause,
    Tier,
    VmConfig,
    VmSettings,
    VmStatus,
)
from manager.core.operations import Operation
from manager.core.query.filter import matcher
from manager.services.closeup import Closeup
from manager.services.pictures import png
from manager.services.tasks import Tasks
from manager.services.workspace import Adapters, Workspace
from manager.ui.models.rows_model import RowsModel

NOW_S = 1_790_000_000.0
FEATURES = frozenset(
    {
        "live migration",
        "node-to-node migration",
        "job figures",
        "load figures",
        "notes for all administrators",
    }
)


def vm_id(number: int) -> VmId:
    """The id of the VM of that number."""
    return VmId(f"00000000-0000-4000-8000-{number:012}")


def vm_config(number: int, **changes: Any) -> VmConfig:
    """A definition that can be moved."""
    values: dict[str, Any] = {
        "memory_mib": 2048,
        "vcpus": 2,
        "disks": (Disk(target="vda", source=f"/srv/vms/{number}.qcow2", format="qcow2", cache="none"),),
        "interfaces": (Interface(mac=f"52:54:00:00:00:{number % 256:02x}", kind="bridge", source="br0"),),
        "agent": AgentState.CONNECTED,
        "settings": VmSettings(priority=(Priority.MEDIUM, Priority.HIGH, Priority.LOW)[number % 3]),
        "digest": "read",
    }
    return VmConfig(**(values | changes))


class FakeClock:
    """Time that the test sets."""

    def __init__(self) -> None:
        self.at_s = NOW_S

    def now_s(self) -> float:
        """Wall clock."""
        return self.at_s

    def monotonic_s(self) -> float:
        """The same."""
        return self.at_s


class FakeSampler:
    """Remembers who wants loads."""

    def __init__(self) -> None:
        self.wanted: set[str] = set()

    def want_loads(self, who: str, wanted: bool, disks_of: NodeId | None = None) -> None:
        """As the sampler's."""
        (self.wanted.add if wanted else self.wanted.discard)(who)


class FakeResources:
    """Remembers who wants storage and networks fresh; volumes are answered by the test."""

    def __init__(self) -> None:
        self.followed = False
        self.wanted: set[str] = set()
        self.asked: list[tuple[PoolId, Callable[..., None]]] = []

    def follow(self) -> None:
        """As the reader's."""
        self.followed = True

    def want(self, who: str, wanted: bool) -> None:
        """As the reader's."""
        (self.wanted.add if wanted else self.wanted.discard)(who)

    def ask_volumes(self, pool: PoolId, told: Callable[..., None]) -> None:
        """Keep the question."""
        self.asked.append((pool, told))


class FakeStories:
    """As in the process that owns the operations."""

    def __init__(self, view: ClusterState) -> None:
        self.of = view.story

    def then(self, keys: Sequence[str], act: Callable[[], object]) -> None:
        """At once."""
        act()


class FakeHost:
    """What a host says of a VM that is looked at closely."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Failure | None = None
        self.snapshots: tuple[Snapshot, ...] = ()
        self.xml = "<domain>\n  <name>web</name>\n</domain>\n"
        self.consoles: list[FakeConsole] = []

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.failure is not None:
            raise OperationError(self.failure)

    async def screenshot(self, node: NodeId, vm: VmId) -> bytes:
        """A red picture."""
        self._ask("screenshot")
        return png(32, 20, b"\xff\0\0" * 640)

    async def read_definition(self, node: NodeId, vm: VmId, *, stored: bool = False) -> str:
        """Some XML."""
        self._ask("definition")
        return self.xml

    async def read_snapshots(self, node: NodeId, vm: VmId) -> tuple[Snapshot, ...]:
        """As the test has set them."""
        self._ask("snapshots")
        return self.snapshots

    async def open_console(self, node: NodeId, vm: VmId, *, take_over: bool = False) -> FakeConsole:
        """One that the test writes to."""
        self._ask("take over" if take_over else "console")
        self.consoles.append(FakeConsole())
        return self.consoles[-1]


class FakeConsole:
    """A serial console in the test's hands."""

    def __init__(self) -> None:
        self.typed = b""
        self.why_ended = ""
        self._news: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, data: bytes) -> None:
        """The guest writes; nothing: it ends."""
        self._news.put_nowait(data)

    async def read(self) -> bytes:
        """As the port's."""
        data = await self._news.get()
        self.why_ended = self.why_ended or ("" if data else "the VM stopped")
        return data

    def write(self, data: bytes) -> None:
        """As the port's."""
        self.typed += data

    def close(self) -> None:
        """As the port's."""
        self.why_ended = self.why_ended or "closed"
        self._news.put_nowait(b"")


class FakeRuntime:
    """A real `ClusterState`; effects are kept for the test to answer, nothing reaches a host."""

    def __init__(self, config: ClusterConfig) -> None:
        self.state = ClusterState(config)
        self.clock = FakeClock()
        self.sampler = FakeSampler()
        self.resources = FakeResources()
        self.host = FakeHost()
        self.closeup = Closeup(self.host, self.state, Tasks(config.name))  # type: ignore[arg-type]
        self.definitions: Any = None
        self.author = "adm@here"
        self.effects: list[Effect] = []
        self.read: list[NodeId | None] = []
        self.closed = False
        self.past: tuple[Operation, ...] = ()
        self.past_events: tuple[ClusterEvent, ...] = ()
        self.engine = SimpleNamespace(is_owner=True, history=self._history)
        self.stories = FakeStories(self.state)
        self._listeners: list[Callable[[ChangeSet], None]] = []
        self._count = 0

    @property
    def id(self) -> ClusterId:
        """The cluster's name."""
        return self.state.id

    @property
    def view(self) -> ClusterState:
        """The state."""
        return self.state

    def dispatch(self, event: ev.Event) -> None:
        """One event, told to listeners."""
        outcome = self.state.handle(event)
        self.effects += outcome.effects
        if outcome.changes:
            for listener in tuple(self._listeners):
                listener(outcome.changes)

    def subscribe(self, listener: Callable[[ChangeSet], None]) -> Callable[[], None]:
        """As the runtime's."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def request(self, plan: Plan[Any]) -> tuple[OperationId, ...]:
        """As the runtime's."""
        self._refuse()
        self._count += 1
        batch = OperationId(f"batch-{self._count:03}")
        event = plan.spec.request(
            plan,
            author=self.author,
            at_s=self.clock.now_s(),
            trace=TraceId(batch),
            operation=batch,
            view=self.state,
        )
        self.dispatch(event)
        return event.operations if isinstance(event, ev.CancelRequested) else plan.parents(batch)

    def cancel(self, operations: tuple[OperationId, ...]) -> None:
        """As the runtime's."""
        self._refuse()
        self.dispatch(ev.CancelRequested(at_s=self.clock.now_s(), operations=operations, author=self.author))

    def steer(self, verb: ev.QueueVerb, **what: Any) -> None:
        """As the runtime's."""
        self._refuse()
        self.dispatch(ev.QueueRequested(at_s=self.clock.now_s(), verb=verb, author=self.author, **what))

    def _refuse(self) -> None:
        if self.view.config.read_only:
            raise UserError("this connection is read-only. Nothing was changed.")

    def mark(
        self, verb: ev.ProblemVerb, keys: tuple[str, ...], *, note: str = "", until_s: float | None = None
    ) -> None:
        """As the runtime's."""
        event = ev.ProblemsMarked(
            at_s=self.clock.now_s(),
            verb=verb,
            keys=keys,
            author=self.author,
            note=note,
            until_s=until_s,
        )
        self.dispatch(event)

    def recall(self) -> None:
        """What happened before is told once."""
        told, self.past_events = self.past_events, ()
        self.dispatch(ev.EventsTold(at_s=self.clock.now_s(), events=told))

    async def ended(self, operations: tuple[OperationId, ...]) -> tuple[Operation, ...]:
        """As the runtime's."""
        done = asyncio.Event()

        def look(_: ChangeSet | None = None) -> None:
            if all(self.state.operations[o].is_over for o in operations):
                done.set()

        stop = self.subscribe(look)
        try:
            look()
            await done.wait()
        finally:
            stop()
        return tuple(self.state.operations[o] for o in operations)

    async def _history(self, limit: int) -> tuple[Operation, ...]:
        return self.past[:limit]

    async def start(self) -> None:
        """Nothing to connect to."""

    async def settled(self, timeout_s: float | None = None) -> bool:
        """At once."""
        return True

    def read_again(self, node: NodeId | None = None) -> None:
        """Remember it."""
        self.read.append(node)

    async def close(self) -> None:
        """Nothing to close."""
        self.closed = True

    # --- what happens ------------------------------------------------------------------------

    def change(
        self, number: int, status: VmStatus, cause: StatusCause = StatusCause.NONE, node: str = ""
    ) -> None:
        """A lifecycle event of one VM."""
        vm = self.state.vms[vm_id(number)]
        self.clock.at_s += 0.01
        self.dispatch(
            ev.VmStateChanged(
                at_s=self.clock.at_s,
                node=NodeId(node) if node else vm.owner or NodeId("n1"),
                vm=vm.id,
                name=vm.name,
                status=status,
                cause=cause,
            )
        )

    def rename(self, number: int, name: str) -> None:
        """Its host gives a VM another name."""
        vm = self.state.vms[vm_id(number)]
        assert vm.owner is not None
        self.clock.at_s += 0.01
        self.dispatch(
            ev.VmStateChanged(
                at_s=self.clock.at_s,
                node=vm.owner,
                vm=vm.id,
                name=name,
                status=vm.status,
                cause=StatusCause.NONE,
            )
        )

    def answer(self, failure: Any = None) -> None:
        """Answer every effect on a VM that waits for its answer."""
        effects, self.effects = self.effects, []
        for effect in effects:
            operation = getattr(effect, "operation", None)
            if operation is not None:
                self.clock.at_s += 0.01
                self.dispatch(
                    ev.EffectEnded(
                        at_s=self.clock.at_s, operation=operation, attempt=effect.attempt, failure=failure
                    )
                )


def config_of(nodes: int, **changes: Any) -> ClusterConfig:
    """A cluster file with that many nodes."""
    values: dict[str, Any] = {
        "name": "prod-a",
        "colour": "#0072b2",
        "tier": Tier.MANAGED,
        "shared_paths": ("/srv/vms",),
        "nodes": tuple(NodeConfig(name=NodeId(f"n{i + 1}"), uri=f"test://n{i + 1}/") for i in range(nodes)),
    }
    return ClusterConfig(**(values | changes))


def runtime_of(
    nodes: int = 3,
    vms: int = 12,
    *,
    off: frozenset[int] = frozenset(),
    configs: dict[int, VmConfig] | None = None,
    names: Callable[[int], str] = lambda number: f"web-{number}",
    **changes: Any,
) -> FakeRuntime:
    """A cluster with VMs spread over its nodes, all read; VM `i` is on node ``n(i % nodes + 1)``."""
    runtime = FakeRuntime(config_of(nodes, **changes))
    at = runtime.clock.at_s
    for place in range(nodes):
        node = NodeId(f"n{place + 1}")
        runtime.dispatch(ev.NodeConnecting(at_s=at, node=node))
        facts = NodeFacts(
            hostname=node,
            host_uuid=f"host-{place}",
            cpus=32,
            memory_mib=max(65536, vms // max(nodes, 1) * 4096),
            features=FEATURES,
        )
        runtime.dispatch(ev.NodeConnected(at_s=at, node=node, facts=facts))
        mine = [n for n in range(vms) if n % nodes == place]
        seen = tuple(
            ev.SeenVm(
                vm=vm_id(n),
                name=names(n),
                status=VmStatus.OFF if n in off else VmStatus.RUNNING,
                incarnation=None if n in off else n + 1,
            )
            for n in mine
        )
        runtime.dispatch(ev.NodeInventoryRead(at_s=at, node=node, started_s=at, vms=seen))
        for n in mine:
            config = (configs or {}).get(n) or vm_config(n)
            runtime.dispatch(ev.VmConfigRead(at_s=at, node=node, vm=vm_id(n), config=config))
    runtime.effects.clear()
    return runtime


class MemoryViews:
    """`ViewStore` in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """The stored bytes."""
        return self.kept.get(name)

    def write(self, name: str, data: bytes) -> None:
        """Store."""
        self.kept[name] = data


class MemorySecrets:
    """`SecretStore` of a computer with a key ring."""

    is_persistent = True

    def get(self, entry: str, user: str) -> str | None:
        """None."""
        return None


class NoFiles:
    """`ClusterFiles` of a new user."""

    def __init__(self) -> None:
        self.added: list[ClusterConfig] = []

    def configured(self) -> tuple[Any, ...]:
        """None yet."""
        return ()

    def add(self, config: ClusterConfig) -> Path:
        """Keep it."""
        self.added.append(config)
        return Path(f"{config.name}.toml")

    def load(self, name: str) -> ClusterConfig:
        """The last one."""
        return self.added[-1]

    def find(self, name: str) -> Path:
        """Its file."""
        return Path(f"{name}.toml")

    def remember(self, paths: Any) -> None:
        """Not kept."""


def workspace_of(runtimes: list[FakeRuntime], views: MemoryViews | None = None) -> Workspace:
    """A workspace that opens these, by the name of their configuration."""
    by_name = {runtime.id: runtime for runtime in runtimes}
    adapters = Adapters(
        files=NoFiles(),  # type: ignore[arg-type]
        secrets=MemorySecrets(),  # type: ignore[arg-type]
        views=views or MemoryViews(),
        runtime=lambda config, ask: by_name[ClusterId(config.name)],  # type: ignore[arg-type,return-value]
        hypervisor=lambda config, ask: None,  # type: ignore[arg-type,return-value]
        demo=lambda size: config_of(0),
        dump=lambda path: config_of(0),
        adhoc=lambda uris: config_of(0),
    )
    return Workspace(adapters)


def search(model: RowsModel, text: str) -> None:
    """Show what a query finds, as the search box does."""
    model.set_filter(matcher(text, model.kind) if text.strip() else None, text)

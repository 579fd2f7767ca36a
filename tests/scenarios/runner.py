"""Plays a scenario: a simulated cluster, the real services on a virtual clock, and what happens to them.

A folder has `README.md` (what it is about), `cluster.toml` (the hosts and VMs), `script.toml` (what happens,
and what must be so at the end) and `expected.log` (what the program shows meanwhile).

`cluster.toml`: tables `nodes.NAME` and `vms.NAME`, with `defaults.node`, `defaults.vm` and `defaults.guest`
for all; `migration` and `work` as in a cluster file. `script.toml`: `[[steps]]`, each `at_s` with one of
`action` (an action's id, with `vms` or `nodes` and its parameters), `queue` (a `QueueVerb`, with its fields;
`vms` and `before` name VMs, `batch` true means the batches of those), `fault` (a method of `Faults`, with
`args` and keyword arguments) or `program` ("kill", "start"); and `[expect]`: what is so `at_s`: places and
states, how operations ended, which nodes are held and how their drains ended, which VMs note from where they
were drained, and what the hosts saw: moves begun, starts, stops.
"""

from __future__ import annotations

import asyncio
import random
import tomllib
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from manager.backends.sim.faults import Faults
from manager.backends.sim.hosts import Guest, SimNode
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.virtual_clock import EPOCH_S, VirtualClock
from manager.backends.sim.world import SimWorld
from manager.core import reasons
from manager.core.actions import (
    ACTIONS,
    Failback,
    MigrateParameters,
    PauseParameters,
    ResumeParameters,
    ShutDownHow,
    ShutDownParameters,
    StorageParameters,
)
from manager.core.changes import ChangeSet
from manager.core.errors import Failure, FailureCode
from manager.core.events import Event, QueueVerb, VmStateChanged
from manager.core.ids import Kind, NodeId
from manager.core.model import (
    ClusterConfig,
    Convergence,
    DrainState,
    MigrationLimits,
    NodeConfig,
    PeerRoute,
    Priority,
    RetryPolicy,
    StatusCause,
    Tier,
    VmSettings,
    VmStatus,
    WorkLimits,
)
from manager.core.operations import Operation
from manager.services.memory_journal import MemoryJournal
from manager.services.runtime import Runtime
from tests.support.sim import make_config, make_id, until

_MOVED = (StatusCause.MIGRATED, StatusCause.FAILED)  # ends of halves of moves, not of VMs


PLAIN = ("operations", "moves", "starts", "stops", "holds", "drained")
"""What is stated as empty where nothing is."""


class Witness:
    """Counts what the hosts did, from their own events and not from what the program thinks."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self.starts: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()
        self.moves: Counter[str] = Counter()
        self.most_outgoing = self.most_incoming = self.most_moves = 0
        self.overfull: set[str] = set()
        world.observe(self)

    def saw(self, node: NodeId, event: Event) -> None:
        """A host told something."""
        if isinstance(event, VmStateChanged):
            if event.status is VmStatus.PAUSED and event.cause is StatusCause.MIGRATION:
                running = self._world.moves.running
                if any(move.copy.id == event.vm and move.target.id == node for move in running):
                    self.moves[event.name] += 1
            elif event.cause in (StatusCause.BOOTED, StatusCause.RESTORED):
                self.starts[event.name] += 1
            elif event.status not in (VmStatus.RUNNING, VmStatus.PAUSED) and event.cause not in _MOVED:
                self.stops[event.name] += 1
        moves = self._world.moves.running
        self.most_moves = max(self.most_moves, len(moves))
        self.most_outgoing = max([self.most_outgoing, *Counter(m.source.node.id for m in moves).values()])
        self.most_incoming = max([self.most_incoming, *Counter(m.target.id for m in moves).values()])
        self.overfull |= {sim.id for sim in self._world.nodes.values() if sim.free_mib() < 0}

    def reach_changed(self, node: SimNode) -> None:
        """Nothing to count."""

    def connection_cut(self, node: SimNode) -> None:
        """Nothing to count."""

    def agenda_changed(self) -> None:
        """Nothing to count."""


class Log:
    """What a user sees change, as lines with the seconds since the beginning."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._shown: dict[tuple[Kind, str], str] = {}
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        """One line, now."""
        self.lines.append(f"{self._clock.monotonic_s():8.1f}  {text}")

    def changed(self, runtime: Runtime, changes: ChangeSet) -> None:
        """Write what looks different now."""
        view = runtime.view
        for kind in Kind:
            touched = changes[kind]
            for key in sorted(
                {*touched.added, *touched.updated, *touched.removed}, key=lambda k: _name(view, k)
            ):
                text = _text(view, kind, key)
                if text != self._shown.get((kind, key), ""):
                    self._shown[kind, key] = text
                    self.write(text or f"{kind.value} {_name(view, key)} is gone")

    def forget(self) -> None:
        """The next program shows everything anew."""
        self._shown.clear()


def _name(view: Any, key: str) -> str:
    """What a log may say for a key: names, no ids made up at run time."""
    if key in view.vms:
        return str(view.vms[key].name)
    if key in view.operations:
        operation = view.operations[key]
        return f"{operation.action} {operation.vm_name or operation.source or ''}".strip()
    for vm, row in view.vms.items():
        key = key.replace(vm, row.name)
    return key


def _text(view: Any, kind: Kind, key: str) -> str:
    if kind is Kind.NODE:
        node = view.nodes[key]
        held = f", {', '.join(f'paused by {h.who}' for h in node.holds)}" if node.holds else ""
        drain = f", {node.drain.value}" if node.drain is not DrainState.NONE else ""
        work = f": {node.work.text}" if node.work is not None else ""
        return f"node {key}: {node.status.value}{held}{drain}{work}"
    if kind is Kind.VM and key in view.vms:
        vm = view.vms[key]
        alarm = " ALARM" if vm.alarm else ""
        activity = f", {vm.activity.value}" if vm.activity.value else ""
        return f"vm {vm.name}: {vm.status.value} on {vm.owner}{activity}{alarm}"
    if kind is Kind.OPERATION and key in view.operations:
        operation = view.operations[key]
        target = f" to {operation.target}" if operation.target else ""
        reason = f": {operation.reason.text}" if operation.reason else ""
        return (
            f"{operation.action} {operation.vm_name or operation.source or ''}{target}".strip()
            + f": {operation.state.value}{reason}"
        )
    if kind is Kind.PROBLEM and key in view.problems:
        return f"problem {_name(view, key)}: {view.problems[key].reason.text}"
    return ""


class Scenario:
    """One folder, played once."""

    def __init__(self, folder: Path) -> None:
        self.cluster = tomllib.loads((folder / "cluster.toml").read_text())
        self.script = tomllib.loads((folder / "script.toml").read_text())
        self.clock = VirtualClock()
        self.world, self.config = _built(self.cluster, self.clock)
        self.faults = Faults(self.world)
        self.witness = Witness(self.world)
        self.log = Log(self.clock)
        self.journal = MemoryJournal()  # the next run of the program finds it
        self.runtime: Runtime | None = None

    async def play(self) -> None:
        """Run the script to its end."""
        await self._start()
        begun_s = self.clock.monotonic_s()
        for step in sorted(self.script["steps"], key=lambda step: step["at_s"]):
            await self.clock.advance(begun_s + step["at_s"] - self.clock.monotonic_s())
            await self._do(dict(step))
            await self.clock.settle()
        await self.clock.advance(begun_s + self.script["expect"]["at_s"] - self.clock.monotonic_s())

    async def close(self) -> None:
        """End the program, if it runs."""
        if self.runtime is not None:
            await self.runtime.close()
            self.runtime = None

    async def _start(self) -> None:
        runtime = self.runtime = Runtime(
            config=self.config,
            hypervisor=SimHypervisor(self.world),
            journal=self.journal,
            clock=self.clock,
            author="admin",
        )
        runtime.subscribe(lambda changes: self.log.changed(runtime, changes))
        await runtime.start()
        settled = asyncio.ensure_future(runtime.settled())
        await until(self.clock, settled.done)

    async def _do(self, step: dict[str, Any]) -> None:
        del step["at_s"]
        self.log.write("> " + " ".join(f"{key}={value}" for key, value in step.items()))
        if "program" in step:
            await self.close()
            self.log.forget()
            if step["program"] == "start":
                await self._start()
        elif "queue" in step:
            self._steer(QueueVerb(step.pop("queue")), step)
        elif "fault" in step:
            self._inject(step.pop("fault"), step.pop("args", []), step)
        else:
            self._request(step.pop("action"), step.pop("vms", []) or step.pop("nodes"), step)

    def _inject(self, fault: str, args: list[Any], fields: dict[str, Any]) -> None:
        if "says" in fields:
            fields["says"] = Failure(code=FailureCode(fields["says"]), text="as injected")
        if "code" in fields:
            fields["code"] = FailureCode(fields["code"])
        getattr(self.faults, fault)(*args, **fields)

    def _request(self, action: str, names: Sequence[str], fields: dict[str, Any]) -> None:
        assert self.runtime is not None
        parameters: Any = None
        if isinstance(ACTIONS[action].default, MigrateParameters):
            target = fields.pop("to", None)
            parameters = MigrateParameters(
                target=NodeId(target) if target else None,
                route=PeerRoute(fields.pop("route", PeerRoute.NODE_TO_NODE)),
                pool=fields.pop("pool", ""),
                policy=fields.pop("policy", ""),
            )
        elif action == "node.pause":
            parameters = PauseParameters(drain=fields.pop("drain", False), why=fields.pop("why", ""))
        elif action == "node.resume":
            parameters = ResumeParameters(failback=Failback(fields.pop("failback", Failback.NONE)))
        elif action == "vm.move_storage":
            parameters = StorageParameters(pool=fields.pop("pool"))
        elif action == "vm.shut_down":
            parameters = ShutDownParameters(how=ShutDownHow(fields.pop("how", ShutDownHow.ACPI)))
        assert not fields, f"nobody reads {fields}"
        keys = names if ACTIONS[action].target is Kind.NODE else [make_id(name) for name in names]
        plan = ACTIONS[action].plan(self.runtime.view, keys, parameters)
        for skipped in plan.skipped:
            self.log.write(f"skipped {skipped.name}: {skipped.reason.text}")
        if plan.steps:
            self.runtime.request(plan)

    def _steer(self, verb: QueueVerb, fields: dict[str, Any]) -> None:
        assert self.runtime is not None
        if "vms" in fields:
            found = [self._live(name) for name in fields.pop("vms")]
            batch = fields.pop("batch", False)
            fields["operations"] = tuple(o.parent if batch else o.id for o in found)
        if "before" in fields:
            fields["before"] = self._live(fields["before"]).id
        if "limits" in fields:
            fields["limits"] = tuple(fields["limits"].items())
        self.runtime.steer(verb, **fields)

    def _live(self, name: str) -> Operation:
        assert self.runtime is not None
        found = [o for o in self.runtime.view.operations.values() if o.vm_name == name and not o.is_over]
        assert len(found) == 1, f"{name} has {len(found)} operations under way"
        return found[0]

    # --- the end --------------------------------------------------------------------------

    def check(self) -> None:
        """What the script states, and what holds in every scenario.

        Raises:
            AssertionError: with everything that is not so.
        """
        assert self.runtime is not None
        view, expect, witness = self.runtime.view, self.script["expect"], self.witness
        ends: dict[str, list[str]] = {}
        attempts: dict[str, int] = {}  # of the last operation on each VM
        for operation in view.operations.values():
            if operation.vm is not None:
                attempts[operation.vm_name] = operation.attempt
                ends.setdefault(operation.vm_name, []).append(operation.state.value)
        found = {
            "owner": {vm.name: vm.owner for vm in view.vms.values()},
            "status": {vm.name: vm.status.value for vm in view.vms.values()},
            "operations": ends,
            "moves": dict(witness.moves),
            "starts": dict(witness.starts),
            "stops": dict(witness.stops),
            "problems": sorted(_name(view, key) for key in view.problems),
            "holds": {node.id: node.drain.value for node in view.nodes.values() if node.holds},
            "drained": {
                vm.name: vm.config.settings.drained_from
                for vm in view.vms.values()
                if vm.config and vm.config.settings.drained_from
            },
        }
        stated = {key: expect.get(key, {}) for key in PLAIN}
        stated |= {key: expect[key] for key in ("owner", "status")}
        stated["problems"] = sorted(expect.get("problems", []))
        if "attempts" in expect:
            found["attempts"], stated["attempts"] = attempts, expect["attempts"]
        assert found == stated, f"found {found}, stated {stated}"
        limits = self.config.migration
        assert witness.most_outgoing <= (limits.outgoing_per_node or 99)
        assert witness.most_incoming <= (limits.incoming_per_node or 99)
        assert witness.most_moves <= (limits.cluster_limit or 999)
        assert not witness.overfull, "more memory was promised than there is"
        twice = bool(self.world.twice)
        assert twice == expect.get("runs_twice", False), f"a VM ran twice: {self.world.twice}"
        if not expect.get("open"):
            assert not view.claims, "work is left that nobody ends"
            assert not self.world.moves.running


def _built(cluster: dict[str, Any], clock: VirtualClock) -> tuple[SimWorld, ClusterConfig]:
    world = SimWorld(clock)
    defaults = cluster.get("defaults", {})
    for name, own in cluster["nodes"].items():
        fields = {"memory_gib": 64, "connect_s": 0.1} | defaults.get("node", {}) | own
        memory_mib = int(fields.pop("memory_gib") * 1024)
        bridges = set(fields.pop("bridges", ["br0"]))
        world.add_node(
            SimNode(
                id=NodeId(name), host_uuid=f"host-{name}", memory_mib=memory_mib, bridges=bridges, **fields
            )
        )
    for name, own in cluster["vms"].items():
        fields = {"memory_gib": 4, "status": "Running", "priority": "Medium"} | defaults.get("vm", {}) | own
        guest = Guest(**(defaults.get("guest", {}) | fields.pop("guest", {})))
        priority = {p.title: p for p in Priority}[fields.pop("priority")]
        status = VmStatus(fields.pop("status"))
        world.add_vm(
            world.nodes[NodeId(fields.pop("node"))],
            make_id(name),
            name,
            make_config(
                name,
                memory_mib=int(fields.pop("memory_gib") * 1024),
                settings=VmSettings(priority=priority),
                **fields,
            ),
            guest,
            status=status,
            cause=StatusCause.BOOTED if status is VmStatus.RUNNING else StatusCause.SHUT_DOWN,
        )
    addresses = cluster.get("addresses", {})
    limits = {"bandwidth_mib_s": 200} | cluster.get("migration", {})
    for key, kind in (("convergence", Convergence), ("retry", RetryPolicy)):
        if key in limits:
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in limits[key].items()
            }
            limits[key] = kind(**values)
    limits["networks"] = tuple(limits.get("networks", ()))
    config = ClusterConfig(
        name="scenario",
        tier=Tier.DEMO,
        nodes=tuple(
            NodeConfig(name=name, uri=f"sim://{name}/", addresses=tuple(addresses.get(name, ())))
            for name in world.nodes
        ),
        migration=MigrationLimits(**limits),
        work=WorkLimits(**cluster.get("work", {})),
        shared_paths=("/srv/vms",),
    )
    return world, config


def without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make what the services draw by lot, and what they write as a time of day, the same in every run."""
    numbers = count(1)
    monkeypatch.setattr(
        "manager.services.runtime.secrets.token_hex", lambda size: f"{next(numbers):0{2 * size}x}"
    )
    monkeypatch.setattr("manager.services.node_session.random", random.Random(1))
    monkeypatch.setitem(reasons._Format._KINDS, "time", lambda at_s: f"{at_s - EPOCH_S:.0f} s")

"""A cluster state with a small world around it: hosts that answer effects as real ones do, when told to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from zlib import crc32

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.actions import ACTIONS, Plan
from manager.core.changes import ChangeSet, Outcome
from manager.core.cluster import ClusterState
from manager.core.edits import (
    Describe,
    Edit,
    SetAutostart,
    SetBootOrder,
    SetInterface,
    SetMedium,
    SetMemory,
    SetVcpus,
)
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.model import (
    ClusterConfig,
    MigrationLimits,
    Node,
    NodeConfig,
    NodeFacts,
    Priority,
    RetryPolicy,
    StatusCause,
    Vm,
    VmConfig,
    VmSettings,
    VmStatus,
)
from manager.core.operations import Operation
from manager.services.memory_journal import left_over

R, OFF, SAVED, PAUSED, CRASHED, UNKNOWN = (
    VmStatus.RUNNING,
    VmStatus.OFF,
    VmStatus.SAVED,
    VmStatus.PAUSED,
    VmStatus.CRASHED,
    VmStatus.UNKNOWN,
)
START_S = 1_000_000.0
UNREACHABLE = Failure(code=FailureCode.UNREACHABLE, text="connection reset")
REFUSED = Failure(code=FailureCode.OTHER, text="internal error: no")
CANCELLED = Failure(code=FailureCode.CANCELLED, text="operation aborted: canceled by client")

E = TypeVar("E", bound=fx.Effect)


def uuid(name: str) -> VmId:
    """The UUID of the VM of that name."""
    return VmId(f"{crc32(name.encode()):08x}-0000-4000-8000-000000000000")


def cluster_config(nodes: int = 3, **values: Any) -> ClusterConfig:
    """A cluster file with nodes n1, n2, ...; nothing is tried twice unless it says so."""
    once = MigrationLimits(retry=RetryPolicy(times=0, target_failures=1000, batch_failures=1000))
    values.setdefault("migration", once)
    names = [NodeId(f"n{i}") for i in range(1, nodes + 1)]
    return ClusterConfig(
        name="test",
        nodes=tuple(NodeConfig(name=n, uri=f"qemu+ssh://root@{n}/system") for n in names),
        **values,
    )


def host_facts(node: str, **values: Any) -> NodeFacts:
    """What a host of 64 GiB says of itself."""
    given: dict[str, Any] = {
        "hostname": node,
        "host_uuid": f"host-{node}",
        "cpus": 16,
        "memory_mib": 65536,
        "features": frozenset({"live migration", "quick and storage migration"}),
    }
    return NodeFacts(**given | values)


def definition(
    memory_mib: int = 1024, priority: Priority = Priority.MEDIUM, tags: tuple[str, ...] = (), **values: Any
) -> VmConfig:
    """A VM's definition."""
    settings = VmSettings(priority=priority, tags=tags)
    return VmConfig(memory_mib=memory_mib, vcpus=2, settings=settings, digest="read", **values)


def edited(config: VmConfig, edit: Edit) -> VmConfig:
    """A definition with a change, as of a VM that is off."""
    match edit:
        case SetMedium():
            disks = (replace(d, source=edit.source) if d.target == edit.disk else d for d in config.disks)
            return replace(config, disks=tuple(disks))
        case SetMemory():
            current = 0 if edit.memory_mib == edit.maximum_mib else edit.memory_mib
            return replace(config, memory_mib=edit.maximum_mib, current_memory_mib=current)
        case SetVcpus():
            return replace(config, vcpus=edit.vcpus, vcpus_most=edit.maximum)
        case Describe():
            given = {k: v for k in ("title", "description") if (v := getattr(edit, k)) is not None}
            return replace(config, **given)
        case SetAutostart():
            return replace(config, autostart=edit.autostart)
        case SetInterface():
            kept = {k: v for k in ("kind", "source") if (v := getattr(edit, k))}
            link = {} if edit.link_up is None else {"link_up": edit.link_up}
            nics = (replace(i, **kept, **link) if i.mac == edit.mac else i for i in config.interfaces)
            return replace(config, interfaces=tuple(nics))
        case SetBootOrder():
            return replace(config, boot=edit.devices)
        case _:
            raise AssertionError(edit)


@dataclass
class Guest:
    """One host's truth about one VM."""

    name: str
    status: VmStatus
    cause: StatusCause = StatusCause.NONE
    config: VmConfig = field(default_factory=definition)
    incarnation: int = 1

    def seen(self, vm: VmId) -> ev.SeenVm:
        """Its line in an inventory."""
        runs = self.status in (R, PAUSED)
        return ev.SeenVm(
            vm=vm,
            name=self.name,
            status=self.status,
            cause=self.cause,
            incarnation=self.incarnation if runs else None,
        )


@dataclass
class Move:
    """A migration that runs."""

    effect: fx.StartMigration
    guest: Guest
    half: Guest


class Cluster:
    """A `ClusterState` and its world. What the core asks for waits in `pending` until it is answered."""

    def __init__(self, config: ClusterConfig | None = None, *, nodes: int = 3, up: bool = True) -> None:
        self._config = config or cluster_config(nodes)
        self.state = ClusterState(self._config)
        self.now = START_S
        self.hosts: dict[NodeId, dict[VmId, Guest]] = {n.name: {} for n in self.state.config.nodes}
        self.facts = {n: host_facts(n) for n in self.hosts}
        self.pending: list[fx.Effect] = []
        self.timers: dict[str, float] = {}
        self.journal: dict[OperationId, Operation] = {}
        self.transitions: list[Operation] = []
        self.moves: dict[OperationId, Move] = {}
        self.files: dict[str, VmId] = {}  # saved memory on shared storage
        self.tuned: list[fx.TuneMigration] = []
        self.connected: set[NodeId] = set()
        self.changes = ChangeSet()
        self._batches = 0
        if up:
            for node in self.hosts:
                self.connect(node)

    # --- events ----------------------------------------------------------------------------

    def feed(self, event: ev.Event) -> Outcome:
        """Hand an event to the state and keep what it wants."""
        outcome = self.state.handle(event)
        for operation in outcome.transitions:
            self.journal[operation.id] = operation
        self.transitions += outcome.transitions
        self.changes |= outcome.changes
        for effect in outcome.effects:
            match effect:
                case fx.SetTimer(key=key, at_s=at_s):
                    self.timers[key] = at_s
                case fx.CancelTimer(key=key):
                    self.timers.pop(key, None)
                case _ if effect not in self.pending:
                    self.pending.append(effect)
        return outcome

    def later(self, seconds: float = 1.0) -> float:
        """Let time pass; timers are fired by `fire` and `wait` only."""
        self.now += seconds
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time pass, with the timers that come due."""
        end = self.now + seconds
        while due := [(at_s, key) for key, at_s in self.timers.items() if at_s <= end]:
            at_s, key = min(due)
            self.now = max(self.now, at_s)
            self.fire(key)
        self.now = end

    def fire(self, key: str) -> Outcome:
        """A timer came due."""
        self.timers.pop(key, None)
        return self.feed(ev.TimerFired(at_s=self.now, key=key))

    def connect(self, node: str) -> None:
        """The host answers, its inventory and definitions are read."""
        name = NodeId(node)
        self.feed(ev.NodeConnecting(at_s=self.later(), node=name))
        self.feed(ev.NodeConnected(at_s=self.later(0.1), node=name, facts=self.facts[name]))
        self.connected.add(name)
        self.read(node)
        self.sweep(node)

    def lose(self, node: str, *, retry: bool = True) -> None:
        """The connection to a host breaks."""
        name = NodeId(node)
        self.connected.discard(name)
        retry_at_s = self.now + 5 if retry else None
        self.feed(ev.NodeLost(at_s=self.later(0.1), node=name, failure=UNREACHABLE, retry_at_s=retry_at_s))

    def read(self, node: str, *, started_s: float | None = None) -> Outcome:
        """The inventory of a host is read, begun and ended now unless told otherwise."""
        name = NodeId(node)
        self.later(0.1)
        return self.feed(
            ev.NodeInventoryRead(
                at_s=self.now,
                node=name,
                started_s=self.now if started_s is None else started_s,
                vms=tuple(guest.seen(vm) for vm, guest in self.hosts[name].items()),
            )
        )

    def sweep(self, node: str) -> None:
        """All definitions of a host that were not read yet are read."""
        for vm in self.state.unread(NodeId(node)):
            self.define(node, vm)

    def define(self, node: str, vm: VmId) -> None:
        """One definition is read."""
        guest = self.hosts[NodeId(node)].get(vm)
        if guest is not None:
            self.feed(ev.VmConfigRead(at_s=self.later(0.01), node=NodeId(node), vm=vm, config=guest.config))

    def tell(self, node: str, name: str, *, shutting_down: bool = False) -> Outcome | None:
        """The host's event that says how a VM is now; lost if the host is."""
        if NodeId(node) not in self.connected:
            return None
        guest = self.hosts[NodeId(node)][uuid(name)]
        return self.feed(
            ev.VmStateChanged(
                at_s=self.later(0.01),
                node=NodeId(node),
                vm=uuid(name),
                name=name,
                status=guest.status,
                cause=guest.cause,
                shutting_down=shutting_down,
            )
        )

    # --- the world -------------------------------------------------------------------------

    def add(
        self,
        node: str,
        name: str,
        status: VmStatus = R,
        cause: StatusCause = StatusCause.NONE,
        *,
        config: VmConfig | None = None,
        known: bool = True,
    ) -> VmId:
        """Put a VM on a host; `known`: and let the state see it."""
        self.hosts[NodeId(node)][uuid(name)] = Guest(name, status, cause, config or definition())
        if known:
            self.read(node)
            self.sweep(node)
        return uuid(name)

    def become(
        self, node: str, name: str, status: VmStatus, cause: StatusCause = StatusCause.NONE
    ) -> Outcome | None:
        """A VM changes by itself, and its host says so."""
        guest = self.hosts[NodeId(node)][uuid(name)]
        if status is R and guest.status not in (R, PAUSED):
            guest.incarnation += 1
            others = [n for n, has in self.hosts.items() if n != node and uuid(name) in has]
            running = [n for n in others if self.hosts[n][uuid(name)].status in (R, PAUSED)]
            assert not running, f"{name} is started on {node} and runs on {running}"
        guest.status, guest.cause = status, cause
        return self.tell(node, name)

    def drop(self, node: str, name: str) -> None:
        """A definition is removed, and its host says so."""
        del self.hosts[NodeId(node)][uuid(name)]
        if NodeId(node) in self.connected:
            self.feed(ev.VmUndefined(at_s=self.later(0.01), node=NodeId(node), vm=uuid(name)))

    def answer(self, effect: fx.Effect, failure: Failure | None = None) -> None:
        """The world does what it is asked; with a failure, it says that it did not."""
        if effect in self.pending:
            self.pending.remove(effect)
        match effect:
            case fx.ReadNode(node=node):
                if node in self.connected:
                    self.read(node)
                    self.sweep(node)  # as a session does
            case fx.ReadVm(node=node, vm=vm):
                if node in self.connected:
                    self.define(node, vm)
            case fx.StartMigration():
                if self.begin_move(effect, failure):
                    self.finish_move(effect.operation)
            case fx.AbortMigration(operation=operation):
                if operation in self.moves:
                    self.finish_move(operation, CANCELLED)
                else:
                    self.feed(
                        ev.AbortFailed(
                            at_s=self.later(0.01),
                            operation=operation,
                            attempt=effect.attempt,
                            failure=Failure(code=FailureCode.WRONG_STATE, text="no job"),
                        )
                    )
            case fx.ChangeVm():
                if effect.node not in self.connected:
                    failure = UNREACHABLE
                if failure is None:
                    failure = self._change(effect)
                self.end(effect, failure)
            case fx.WriteVmSettings():
                guest = self.hosts[effect.node].get(effect.vm)
                if guest is not None and failure is None:
                    guest.config = replace(guest.config, settings=effect.settings)
                self.end(effect, failure)
            case fx.CheckPeerLogin():
                self.end(effect, failure)
            case fx.TuneMigration():
                if failure is None:
                    self.tuned.append(effect)
                else:
                    self.feed(
                        ev.TuneFailed(
                            at_s=self.later(),
                            operation=effect.operation,
                            attempt=effect.attempt,
                            failure=failure,
                            tune=effect,
                        )
                    )
            case fx.SaveToFile() | fx.RestoreFromFile() | fx.CopyDefinition() | fx.ForgetDefinition():
                self.end(effect, failure or self._hand_over(effect))
            case fx.CopyDisks():
                self.end(effect, failure)
            case fx.EditVm():
                if failure is None:
                    guest = self.hosts[effect.node][effect.vm]
                    guest.config = edited(guest.config, effect.edit)
                self.end(effect, failure)
            case _:
                raise AssertionError(effect)

    def _hand_over(self, effect: fx.VmEffect) -> Failure | None:
        """Steps of a move that does not go live, with what a host refuses."""
        if effect.node not in self.connected:
            return UNREACHABLE
        guest = self.hosts[effect.node].get(effect.vm)
        if guest is None:
            return Failure(code=FailureCode.NOT_FOUND, text="no such VM", node=effect.node)
        on = guest.status in (R, PAUSED)
        match effect:
            case fx.SaveToFile(path=path) if on:
                self.files[path] = effect.vm
                self.become(effect.node, guest.name, OFF, StatusCause.SAVED)
            case fx.RestoreFromFile(path=path) if not on and self.files.get(path) == effect.vm:
                self.become(effect.node, guest.name, R, StatusCause.RESTORED)
                del self.files[path]
            case fx.CopyDefinition(target=target) if not on:
                if target not in self.connected:
                    return Failure(code=FailureCode.UNREACHABLE, text="target lost", node=target)
                self.hosts[target][effect.vm] = replace(guest, status=OFF, cause=StatusCause.NONE)
            case fx.ForgetDefinition() if not on:
                self.drop(effect.node, guest.name)
            case _:
                return Failure(code=FailureCode.WRONG_STATE, text="wrong state", node=effect.node)
        return None

    def end(self, effect: fx.VmEffect, failure: Failure | None = None) -> Outcome:
        """A call comes back; what it did to the world is another matter."""
        if effect in self.pending:
            self.pending.remove(effect)
        return self.feed(
            ev.EffectEnded(
                at_s=self.later(0.1), operation=effect.operation, attempt=effect.attempt, failure=failure
            )
        )

    def _change(self, effect: fx.ChangeVm) -> Failure | None:
        guest = self.hosts[effect.node].get(effect.vm)
        if guest is None:
            return Failure(code=FailureCode.NOT_FOUND, text="no such VM")
        after: dict[VmChange, tuple[VmStatus, StatusCause]] = {
            VmChange.START: (R, StatusCause.BOOTED),
            VmChange.SHUT_DOWN: (OFF, StatusCause.SHUT_DOWN),
            VmChange.SHUT_DOWN_AGENT: (OFF, StatusCause.SHUT_DOWN),
            VmChange.TURN_OFF: (OFF, StatusCause.TURNED_OFF),
            VmChange.SAVE: (SAVED, StatusCause.SAVED),
            VmChange.DELETE_SAVED_STATE: (OFF, StatusCause.SAVED),
            VmChange.PAUSE: (PAUSED, StatusCause.USER),
            VmChange.RESUME: (R, StatusCause.USER),
        }
        runs = guest.status in (R, PAUSED)
        needs_running = effect.change not in (VmChange.START, VmChange.DELETE_SAVED_STATE)
        if needs_running is not runs:
            return Failure(code=FailureCode.WRONG_STATE, text="wrong state")
        if effect.change in after:
            self.become(effect.node, guest.name, *after[effect.change])
        elif effect.node in self.connected:
            self.feed(ev.VmRebooted(at_s=self.later(0.01), node=effect.node, vm=effect.vm))
        return None

    def begin_move(self, effect: fx.StartMigration, failure: Failure | None = None) -> bool:
        """The target prepares itself; False if the move ended before it began."""
        if effect in self.pending:
            self.pending.remove(effect)
        guest = self.hosts[effect.node].get(effect.vm)
        if failure is None and (guest is None or guest.status not in (R, PAUSED)):
            failure = Failure(code=FailureCode.WRONG_STATE, text="not running")
        if failure is not None or guest is None:
            self.end(effect, failure)
            return False
        half = replace(guest, status=PAUSED, cause=StatusCause.MIGRATION)
        self.moves[effect.operation] = Move(effect, guest, half)
        self.hosts[effect.target][effect.vm] = half
        self.tell(effect.target, guest.name)
        return True

    def finish_move(
        self,
        operation: OperationId,
        failure: Failure | None = None,
        *,
        arrives: bool | None = None,
        says: bool = True,
    ) -> None:
        """A move is over: it arrived, or not. `says` False: and the call never comes back."""
        move = self.moves.pop(operation)
        effect = move.effect
        if failure is None if arrives is None else arrives:
            move.half.status, move.half.cause = R, StatusCause.MIGRATED
            self.tell(effect.target, move.guest.name)  # the target first, as in real life
            move.guest.status, move.guest.cause = OFF, StatusCause.MIGRATED
            self.tell(effect.node, move.guest.name)
            self.drop(effect.node, move.guest.name)
        else:
            move.half.status, move.half.cause = OFF, StatusCause.FAILED
            self.tell(effect.target, move.guest.name)
            self.drop(effect.target, move.guest.name)
        if says:
            self.end(effect, failure)

    def settle(self) -> None:
        """Answer everything that is asked for, until nothing is."""
        for _ in range(10_000):
            if not self.pending:
                return
            self.answer(self.pending[0])
        raise AssertionError("the world is never done")

    def reads(self) -> None:
        """Answer reads only."""
        while effects := [e for e in self.pending if isinstance(e, fx.ReadNode | fx.ReadVm)]:
            self.answer(effects[0])

    def settle_moves(self) -> None:
        """As `settle`, but no further move is let go: checks of logins stay unanswered."""
        while effects := [e for e in self.pending if not isinstance(e, fx.CheckPeerLogin)]:
            self.answer(effects[0])

    def deaf(self, effect: fx.Effect) -> None:
        """The world does what it is asked, and nobody hears of it."""
        state, self.state = self.state, ClusterState(self.state.config)
        connected, self.connected = self.connected, set(self.hosts)
        pending, timers, journal = self.pending, dict(self.timers), dict(self.journal)
        seen = list(self.transitions)
        self.answer(effect)
        self.state, self.connected, self.pending = state, connected, pending
        self.timers, self.journal, self.transitions = timers, journal, seen

    def restart(self, after_s: float = 5.0) -> Cluster:
        """The program was killed; the next run, some time later, has the journal and the same hosts."""
        after = Cluster(self._config, up=False)
        after.hosts, after.facts, after.files, after.now = (
            self.hosts,
            self.facts,
            self.files,
            self.now + after_s,
        )
        after.journal = dict(self.journal)
        after._batches = self._batches
        left = left_over(self.journal.values())
        after.feed(ev.OperationsRestored(at_s=after.later(), operations=left, left_s=self.now))
        for node in after.hosts:
            after.connect(node)
        return after

    def steer(self, verb: ev.QueueVerb, **what: Any) -> None:
        """An administrator steers the queue."""
        self.feed(ev.QueueRequested(at_s=self.later(), verb=verb, author="adm", **what))

    def cancel(self, name: str) -> None:
        """An administrator cancels what goes on with a VM."""
        self.feed(ev.CancelRequested(at_s=self.later(), operations=(self.operation(name).id,), author="adm"))

    # --- requests and looks ----------------------------------------------------------------

    def plan(self, action: str, *names: str, **parameters: Any) -> Plan[Any]:
        """The plan of an action on VMs by name."""
        spec = ACTIONS[action]
        given = replace(spec.default, **parameters) if parameters else None
        return spec.plan(self.state, [uuid(n) for n in names], given)

    def ask(self, action: str, *names: str, **parameters: Any) -> OperationId:
        """Carry out an action; returns the batch's id (of a cancel: an empty one)."""
        plan = self.plan(action, *names, **parameters)
        self._batches += 1
        batch = OperationId(f"{self._batches:04}")
        self.feed(
            plan.spec.request(
                plan,
                author="adm",
                at_s=self.later(0.1),
                trace=TraceId(batch),
                operation=batch,
                view=self.state,
            )
        )
        return batch

    def take(self, kind: type[E], name: str | None = None) -> E:
        """The only pending effect of a kind (on a VM)."""
        found = self.wanted(kind, name)
        assert len(found) == 1, (found, self.pending)
        return found[0]

    def wanted(self, kind: type[E], name: str | None = None) -> list[E]:
        """The pending effects of a kind (on a VM)."""
        return [
            e
            for e in self.pending
            if isinstance(e, kind) and (name is None or getattr(e, "vm", None) == uuid(name))
        ]

    def vm(self, name: str) -> Vm:
        """A VM's row."""
        return self.state.vms[uuid(name)]

    def node(self, name: str) -> Node:
        """A node's row."""
        return self.state.nodes[NodeId(name)]

    def operation(self, name: str) -> Operation:
        """The newest operation on a VM."""
        found = [o for o in self.state.operations.values() if o.vm == uuid(name)]
        return found[-1]

    def operation_of(self, effect: fx.VmEffect) -> Operation:
        """The operation that an effect is of."""
        return self.state.operations[effect.operation]

    def children(self, batch: OperationId) -> list[Operation]:
        """The operations of a batch."""
        return [o for o in self.state.operations.values() if o.parent == batch]

    def live(self) -> Iterable[Operation]:
        """The operations on VMs that are not over."""
        return [o for o in self.state.operations.values() if o.vm is not None and not o.is_over]

    def story(self, name: str) -> list[str]:
        """The lines of a VM's story."""
        return [line.text for line in self.state.story(uuid(name))]

    def information(self, name: str) -> str:
        """A VM's Information cell."""
        found = self.vm(name).information
        return found.text if found else ""

"""The one state of a cluster: events in; effects, changes and transitions out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from manager.core import events as ev
from manager.core.changes import ChangeSet, LogEntry, Outcome, Story, Turn
from manager.core.chronicle import ClusterEvent, Source
from manager.core.ids import ClusterId, Kind, NodeId, OperationId, VmId
from manager.core.inventory import Inventory
from manager.core.migration.progress import MoveProgress
from manager.core.model import (
    ClusterConfig,
    Node,
    NodeLoad,
    Problem,
    ProblemLife,
    Sighting,
    Vm,
    VmLoad,
)
from manager.core.operations import Operation, OperationKind, StandingOrders, words_of
from manager.core.reasons import ReasonCode, because
from manager.core.resources import Resources, ResourcesView
from manager.core.tree import Tree
from manager.core.vault import KeptDefinition
from manager.core.work import Work

_ROOM = frozenset({"status", "holds", "vms_unread", "moves"})
"""Attributes of a node on which it depends whether work that waits can go there."""

_LOAD = frozenset({"load"})
"""What changes all the time, and on which nothing depends."""


class ClusterView(Protocol):
    """What everything outside the core may read. Live: it changes between turns, never within one."""

    @property
    def id(self) -> ClusterId:
        """The cluster's name."""
        ...

    @property
    def config(self) -> ClusterConfig:
        """The cluster's file."""
        ...

    @property
    def revision(self) -> int:
        """Grows with every turn that changed something."""
        ...

    @property
    def now_s(self) -> float:
        """Wall clock of the latest event; the core's only notion of now."""
        ...

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        """All nodes of the cluster file."""
        ...

    @property
    def vms(self) -> Mapping[VmId, Vm]:
        """One row per VM UUID."""
        ...

    @property
    def node_loads(self) -> Mapping[NodeId, NodeLoad]:
        """Latest load samples; absent if never sampled."""
        ...

    @property
    def vm_loads(self) -> Mapping[VmId, VmLoad]:
        """Latest load samples; absent if never sampled or not running."""
        ...

    @property
    def kept(self) -> Mapping[VmId, KeptDefinition]:
        """What the vault has, the newest of each VM; also of VMs that no node shows any more."""
        ...

    @property
    def operations(self) -> Mapping[OperationId, Operation]:
        """All operations of this run of the program and what the last one left."""
        ...

    @property
    def progress(self) -> Mapping[OperationId, MoveProgress]:
        """Figures of running moves."""
        ...

    @property
    def claims(self) -> Mapping[VmId, OperationId]:
        """Which operation holds a VM."""
        ...

    @property
    def orders(self) -> StandingOrders:
        """What holds for the whole queue: paused, limits, targets that rest."""
        ...

    @property
    def problems(self) -> Mapping[str, Problem]:
        """What an administrator should look at."""
        ...

    @property
    def resources(self) -> ResourcesView:
        """Storage and networks."""
        ...

    @property
    def events(self) -> Mapping[str, ClusterEvent]:
        """What happened, oldest first: since this program looks, and of the past what was asked for."""
        ...

    @property
    def lives(self) -> Mapping[str, ProblemLife]:
        """What is kept of problems, ended ones too, the latest change last."""
        ...

    def sightings(self, vm: VmId) -> Mapping[NodeId, Sighting]:
        """What every node says of a VM."""
        ...

    def committed_mib(self, node: NodeId) -> int:
        """Memory in use on a node by running VMs and reserved by moves to it, in MiB."""
        ...

    def committed_vcpus(self, node: NodeId) -> int:
        """vCPUs in use on a node."""
        ...

    def group(self, name: str) -> Collection[VmId]:
        """The VMs with a rule of that group."""
        ...

    def moving(self, node: NodeId) -> tuple[int, int]:
        """How many moves, of anyone, are under way out of a node and into it."""
        ...

    def story(self, key: str) -> tuple[LogEntry, ...]:
        """Why something is as it is, oldest line first."""
        ...


class ClusterState:
    """All mutable state of one cluster. `handle` is the only way in; reading is a `ClusterView`."""

    def __init__(self, config: ClusterConfig) -> None:
        self._story = Story()
        self._inventory = Inventory(
            config,
            self._story,
            lambda vm: self._tree.claim(vm),
            lambda node, disk: self._resources.pool_of(node, disk),
        )
        self._tree = Tree(self._inventory, self._story)
        inventory = self._inventory
        self._resources = Resources(
            config, inventory.nodes, self._story, inventory.problems.found, inventory.problems.solved
        )
        self._work = work = Work(inventory, self._tree, self._resources, self._story)
        self._revision = 0
        self._now_s = 0.0
        handlers: dict[type[ev.Event], Callable[[Any, Turn], None]] = {
            ev.NodeConnecting: inventory.node_connecting,
            ev.NodeConnected: inventory.node_connected,
            ev.NodeConnectFailed: inventory.node_failed,
            ev.NodeLost: inventory.node_failed,
            ev.NodeInventoryRead: self._inventory_read,
            ev.NodeSampled: inventory.sampled,
            ev.NoticeGiven: inventory.noticed,
            ev.NodeHeld: inventory.node_held,
            ev.NodeReleased: inventory.node_released,
            ev.NodeNotesRead: inventory.notes_read,
            ev.NodeNotesChanged: inventory.notes_changed,
            ev.NodeResourcesRead: self._resources.read,
            ev.NodeResourcesChanged: self._resources.changed,
            ev.PoolVolumesRead: self._resources.volumes_read,
            ev.VmStateChanged: inventory.state_changed,
            ev.VmRebooted: self._rebooted,
            ev.VmUndefined: self._undefined,
            ev.VmDefinitionChanged: inventory.definition_changed,
            ev.VmDiskFailed: inventory.disk_failed,
            ev.VmConfigRead: inventory.config_read,
            ev.DefinitionsKept: inventory.definitions_kept,
            ev.VmAuthoritySeen: inventory.authority_seen,
            ev.ForeignJobSeen: self._foreign_job,
            ev.EffectEnded: work.effect_ended,
            ev.AbortFailed: work.abort_failed,
            ev.MigrationProgress: work.progressed,
            ev.MigrationRouted: work.routed,
            ev.TuneFailed: work.tune_failed,
            ev.QueueRequested: work.control,
            ev.TimerFired: self._timer,
            ev.JournalFailed: work.journal_failed,
            ev.OperationsRestored: self._restored,
            ev.OperationsReported: self._reported,
            ev.ActionRequested: self._requested,
            ev.CancelRequested: self._cancelled,
            ev.OwnershipTaken: self._owned,
            ev.EventsTold: self._told,
            ev.ProblemsMarked: inventory.problems.mark,
        }
        self._handlers = handlers

    # --- the way in ------------------------------------------------------------------------

    def handle(self, event: ev.Event) -> Outcome:
        """Take in one event. Synchronous, pure but for this object; follow-ups run in the same turn."""
        self._now_s = max(self._now_s, event.at_s)
        # Stamped where it arose, an event may come in after a later one: a story must not run backwards.
        turn = Turn(at_s=self._now_s, trace=event.trace)
        handler = self._handlers.get(type(event))
        if handler is None:
            raise TypeError(f"nobody handles {type(event).__name__}")
        handler(event, turn)
        # Rows that changed may be what an operation waited for; ending one may let the next start.
        rows = turn.changes[Kind.VM]
        for key in [*(k for k, names in rows.updated.items() if names != _LOAD), *rows.removed]:
            self._work.vm_changed(VmId(key), turn)
        if any(names & _ROOM for names in turn.changes[Kind.NODE].updated.values()):
            self._work.look()
        self._work.admit(turn)
        self._resources.follow(turn, self._inventory.vms)
        pools = turn.changes[Kind.POOL]
        if pools.added or any("notes" in names for names in pools.updated.values()):
            self._inventory.pools_changed(turn)
        if turn.changes:
            self._revision += 1
        return Outcome(
            effects=tuple(dict.fromkeys(turn.effects)),
            changes=turn.changes,
            transitions=tuple(turn.transitions.values()),
            happened=tuple(turn.happened),
            lives=tuple(turn.lives.values()),
        )

    def _inventory_read(self, event: ev.NodeInventoryRead, turn: Turn) -> None:
        self._inventory.inventory_read(event, turn)
        self._work.node_read(event.node, turn)

    def _foreign_job(self, event: ev.ForeignJobSeen, turn: Turn) -> None:
        self._inventory.foreign_job(event, turn)
        self._work.look()

    def _undefined(self, event: ev.VmUndefined, turn: Turn) -> None:
        self._inventory.undefined(event, turn)
        self._work.undefined(event.vm, event.node, turn)

    def _rebooted(self, event: ev.VmRebooted, turn: Turn) -> None:
        self._inventory.rebooted(event, turn)
        self._work.rebooted(event.vm, turn)

    def _timer(self, event: ev.TimerFired, turn: Turn) -> None:
        kind, _, key = event.key.partition(":")
        if kind == "silent":
            self._inventory.node_silent(NodeId(key), event.at_s, turn)
        elif kind == "mute":
            self._inventory.problems.heard_again(key, turn)
        else:
            self._work.timer(kind, key, turn)

    def _restored(self, event: ev.OperationsRestored, turn: Turn) -> None:
        self._work.restore(event.operations, event.left_s, turn)

    def _reported(self, event: ev.OperationsReported, turn: Turn) -> None:
        self._work.mirror(event, turn)

    def _requested(self, event: ev.ActionRequested, turn: Turn) -> None:
        for batch, children in event.plan.operations(event, self):
            self._ask(event, batch, children, turn)

    def _ask(
        self, event: ev.ActionRequested, batch: Operation, children: list[Operation], turn: Turn
    ) -> None:
        self._story.tell(batch.id, event.at_s, f"asked by {event.author}")
        only = children[0] if len(children) == 1 and batch.kind is OperationKind.BATCH else None
        self._story.record(
            turn,
            because(
                ReasonCode.OPERATION_ASKED, what=words_of(only or replace(batch, children=len(children)))
            ),
            source=Source.REQUEST,
            node=batch.source,
            vm=only.vm if only else None,
            vm_name=only.vm_name if only else "",
            by=batch,
        )
        self._work.add(batch, children, turn)

    def _owned(self, event: ev.OwnershipTaken, turn: Turn) -> None:
        self._story.keep_from(event.number)
        self._inventory.problems.take_charge(event.lives, turn)

    def _told(self, event: ev.EventsTold, turn: Turn) -> None:
        self._story.hear(event.events, turn)
        self._inventory.problems.hear(event.lives, turn)

    def _cancelled(self, event: ev.CancelRequested, turn: Turn) -> None:
        self._work.cancel(event.operations, event.author, turn)

    # --- the view --------------------------------------------------------------------------

    @property
    def id(self) -> ClusterId:
        """The cluster's name."""
        return ClusterId(self.config.name)

    @property
    def config(self) -> ClusterConfig:
        """The cluster's file."""
        return self._inventory.config

    @property
    def revision(self) -> int:
        """Grows with every turn that changed something."""
        return self._revision

    @property
    def now_s(self) -> float:
        """Wall clock of the latest event."""
        return self._now_s

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        """All nodes of the cluster file."""
        return self._inventory.nodes

    @property
    def vms(self) -> Mapping[VmId, Vm]:
        """One row per VM UUID."""
        return self._inventory.vms

    @property
    def node_loads(self) -> Mapping[NodeId, NodeLoad]:
        """Latest load samples of nodes."""
        return self._inventory.node_loads

    @property
    def vm_loads(self) -> Mapping[VmId, VmLoad]:
        """Latest load samples of VMs."""
        return self._inventory.vm_loads

    @property
    def kept(self) -> Mapping[VmId, KeptDefinition]:
        """See `ClusterView`."""
        return self._inventory.kept

    @property
    def operations(self) -> Mapping[OperationId, Operation]:
        """All operations of this run and what the last one left."""
        return self._tree.operations

    @property
    def progress(self) -> Mapping[OperationId, MoveProgress]:
        """Figures of running moves."""
        return self._tree.progress

    @property
    def claims(self) -> Mapping[VmId, OperationId]:
        """Which operation holds a VM."""
        return self._tree.claims

    @property
    def orders(self) -> StandingOrders:
        """What holds for the whole queue."""
        return self._tree.orders

    @property
    def problems(self) -> Mapping[str, Problem]:
        """What an administrator should look at."""
        return self._inventory.problems.now

    @property
    def events(self) -> Mapping[str, ClusterEvent]:
        """What happened, oldest first."""
        return self._story.events

    @property
    def lives(self) -> Mapping[str, ProblemLife]:
        """What is kept of problems, the latest change last."""
        return self._inventory.problems.lives

    @property
    def resources(self) -> ResourcesView:
        """Storage and networks."""
        return self._resources

    def sightings(self, vm: VmId) -> Mapping[NodeId, Sighting]:
        """What every node says of a VM."""
        return self._inventory.sightings(vm)

    def unread(self, node: NodeId) -> tuple[VmId, ...]:
        """VMs of a node whose definition was not read on this connection."""
        return self._inventory.unread(node)

    def owned(self, node: NodeId) -> Iterable[VmId]:
        """VMs whose owner is this node."""
        return self._inventory.owned(node)

    def active_moves(self) -> tuple[Operation, ...]:
        """Moves whose job may run on a host now."""
        return self._tree.active_moves()

    def foreign_jobs(self) -> Mapping[VmId, tuple[NodeId, str, bool]]:
        """Jobs that are not ours: node, what, whether it is a migration."""
        return self._inventory.foreign_jobs

    def committed_mib(self, node: NodeId) -> int:
        """Memory in use on a node and reserved by moves to it, in MiB."""
        return self._tree.committed_mib(node)

    def committed_vcpus(self, node: NodeId) -> int:
        """vCPUs in use on a node."""
        return self._tree.committed_vcpus(node)

    def group(self, name: str) -> Collection[VmId]:
        """The VMs with a rule of that group."""
        return self._inventory.group(name)

    def moving(self, node: NodeId) -> tuple[int, int]:
        """How many moves, of anyone, are under way out of a node and into it."""
        return self._tree.moving(node)

    def story(self, key: str) -> tuple[LogEntry, ...]:
        """An object's story; a VM's has its operations' lines in it."""
        return self._story.of(key, *self._tree.about(key))


__all__ = ["ChangeSet", "ClusterState", "ClusterView"]

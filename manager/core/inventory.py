"""What the nodes say: sightings in, one row per VM and per node out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from manager.core import events as ev
from manager.core.changes import Story, Turn
from manager.core.chronicle import Level, Source
from manager.core.effects import (
    CancelTimer,
    ReadNode,
    ReadNotes,
    ReadResources,
    ReadVm,
    SetTimer,
    VmChange,
)
from manager.core.errors import Failure, FailureCode
from manager.core.ids import Kind, NodeId, VmId
from manager.core.migration.limits import changed, limited
from manager.core.migration.moves import MoveStep
from manager.core.model import (
    Activity,
    Authority,
    ClusterConfig,
    Disk,
    Hold,
    Node,
    NodeLoad,
    NodeStatus,
    Pacemaker,
    Sighting,
    StatusCause,
    Vm,
    VmLoad,
    VmSettings,
    VmStatus,
)
from manager.core.operations import Operation, OperationKind, OperationState, StandingOrders
from manager.core.placement import planner
from manager.core.placement.planner import COUNTED
from manager.core.problems import Problems
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.resource_facts import Pool
from manager.core.vault import KeptDefinition

SILENT_PROBLEM_S = 60.0
"""How long a node may be silent before it is a problem and not only grey."""

NOTICED_S = 15.0
"""How soon a connection that has gone silent is given up, at the latest."""

_COMMITTED = frozenset({"committed"})
_RANK = {
    VmStatus.RUNNING: 5,
    VmStatus.PAUSED: 4,  # 2: only prepared for a move
    VmStatus.SAVED: 3,
    VmStatus.CRASHED: 1,
    VmStatus.OFF: 1,
    VmStatus.UNKNOWN: 0,
}
_VM_FIELDS = tuple(f.name for f in fields(Vm))
_vm_values = attrgetter(*_VM_FIELDS)
_INCOMING = frozenset({StatusCause.MIGRATION, StatusCause.STARTING_UP})
_ARRIVING = _INCOMING | {StatusCause.MIGRATED, StatusCause.POSTCOPY}

Claim = Callable[[VmId], tuple[Operation, int | None] | None]
"""The operation that holds a VM and its percentage, or None."""

PoolOf = Callable[[NodeId, Disk], Pool | None]
"""The pool of a node in which a disk lies, if one is known."""

NO_SPACE = "enospc"
"""Source: libvirt virConnectDomainEventIOErrorReasonCallback, reason."""


def is_incoming(sighting: Sighting) -> bool:
    """Whether what a move's target says of a VM is that the move is still under way.

    In its last moment the source says the same, and so does a VM that just starts (`Inventory.incoming`).
    """
    if sighting.status is VmStatus.RUNNING:
        return sighting.cause is StatusCause.POSTCOPY
    return sighting.status is VmStatus.PAUSED and sighting.cause in _INCOMING


def _said_of(pacemaker: Pacemaker) -> Reason | None:
    """What a node that is up says of its Pacemaker."""
    code = {
        Pacemaker.NONE: None,
        Pacemaker.ASKED: ReasonCode.PACEMAKER_ASKED,
        Pacemaker.RUNS: ReasonCode.RUNS_PACEMAKER,
        Pacemaker.UNTOLD: ReasonCode.PACEMAKER_UNTOLD,
    }[pacemaker]
    return because(code) if code else None


class Inventory:
    """Nodes, VMs and loads. Only `ClusterState` calls the methods that change it."""

    def __init__(self, config: ClusterConfig, story: Story, claim: Claim, pool_of: PoolOf) -> None:
        self.config = self._file = config
        self.nodes: dict[NodeId, Node] = {n.name: Node(id=n.name, uri=n.uri) for n in config.nodes}
        self.vms: dict[VmId, Vm] = {}
        self.node_loads: dict[NodeId, NodeLoad] = {}
        self.vm_loads: dict[VmId, VmLoad] = {}
        self.kept: dict[VmId, KeptDefinition] = {}  # in the vault, the newest of each VM
        self.problems = Problems(story, lambda vm: self.vms[vm].name if vm in self.vms else "")
        self.foreign_jobs: dict[VmId, tuple[NodeId, str, bool]] = {}
        self._foreign_since_s: dict[VmId, float] = {}
        self.last_failures: dict[VmId, Reason] = {}
        self._sightings: dict[VmId, dict[NodeId, Sighting]] = {}
        self._on_node: dict[NodeId, set[VmId]] = {n: set() for n in self.nodes}
        self._owned: dict[NodeId, set[VmId]] = {n: set() for n in self.nodes}
        self._used_mib: dict[NodeId, int] = dict.fromkeys(self.nodes, 0)
        self._used_vcpus: dict[NodeId, int] = dict.fromkeys(self.nodes, 0)
        self._groups: dict[str, set[VmId]] = {}  # VMs by the groups of their rules
        self._incoming: dict[VmId, NodeId] = {}  # targets' halves of moves that are seen
        self._pacemaker: dict[NodeId, frozenset[str]] = dict.fromkeys(self.nodes, frozenset())
        self._last_event_s: dict[NodeId, float] = dict.fromkeys(self.nodes, 0.0)
        self._noted: dict[NodeId, tuple[Hold, ...]] = dict.fromkeys(self.nodes, ())  # holds, on the hosts
        self._noted_s: dict[NodeId, float] = dict.fromkeys(self.nodes, 0.0)  # when we changed them last
        self._pausing: dict[NodeId, Hold] = {}  # as they will be
        self._story = story
        self._claim = claim
        self._pool_of = pool_of

    # --- reading ---------------------------------------------------------------------------

    def limit(self, orders: StandingOrders) -> None:
        """Let the limits that were changed while running count from now on."""
        self.config = limited(self._file, orders)

    def changed_limits(self, limits: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
        """Of limits that were set while running, those that differ from the cluster file's."""
        return changed(self._file, limits)

    def sightings(self, vm: VmId) -> dict[NodeId, Sighting]:
        """What every node says of a VM. Not to be changed."""
        return self._sightings.get(vm, {})

    def sighting(self, vm: VmId, node: NodeId | None) -> Sighting | None:
        """What one node says of a VM."""
        return self._sightings.get(vm, {}).get(node) if node else None

    def has_foreign_work(self, vm: VmId) -> bool:
        """Whether a job that is not ours holds a VM."""
        return vm in self.foreign_jobs or self.incoming(vm) is not None

    def group(self, name: str) -> Collection[VmId]:
        """The VMs with a rule of that group. Not to be changed."""
        return self._groups.get(name, ())

    def incoming(self, vm: VmId) -> NodeId | None:
        """The node that says it has the target's half of a move of this VM."""
        node = self._incoming.get(vm)
        return node if node is not None and self.nodes[node].is_up else None

    def copies(self, vm: VmId) -> list[NodeId]:
        """The nodes that answer and say that a VM runs there."""
        return [
            s.node
            for s in self.sightings(vm).values()
            if s.status is VmStatus.RUNNING and self.nodes[s.node].is_up
        ]

    def unread(self, node: NodeId) -> tuple[VmId, ...]:
        """VMs of a node whose definition was not read on this connection, by name.

        A definition kept from an earlier connection has lost its digest.
        """
        found = [
            s
            for vm in self._on_node.get(node, ())
            if (s := self._sightings[vm][node]).config is None or not s.config.digest
        ]
        return tuple(s.vm for s in sorted(found, key=lambda s: s.name))

    def owned(self, node: NodeId) -> Iterable[VmId]:
        """VMs whose owner is this node."""
        return self._owned.get(node, ())

    def committed_mib(self, node: NodeId) -> int:
        """Memory of the VMs that run on a node, with their overhead, in MiB."""
        return self._used_mib[node]

    def committed_vcpus(self, node: NodeId) -> int:
        """vCPUs of the VMs that run on a node."""
        return self._used_vcpus[node]

    def _is_half(self, vm: VmId, node: NodeId) -> bool:
        """Whether what a node has of a VM is, as far as was seen, the target's half of a move."""
        before, held = self.sighting(vm, node), self._claim(vm)
        if before is not None:
            return is_incoming(before)
        return held is not None and _is_moving(held[0]) and held[0].target == node

    def foreign_moves(self) -> Iterable[tuple[NodeId | None, NodeId | None]]:
        """Source and target of the moves that others started, as far as they are seen."""
        jobs = {vm for vm, (_, _, migration) in self.foreign_jobs.items() if migration}
        for vm in jobs | self._incoming.keys():
            held = self._claim(vm)
            # A VM that starts looks like a move's target: one that we start is none.
            if held is None or not (_is_moving(held[0]) or held[0].change is VmChange.START):
                job, target = self.foreign_jobs.get(vm), self.incoming(vm)
                if job is None and target is None:
                    continue  # the node that had its half is lost
                owner = self.vms[vm].owner if vm in self.vms else None
                yield (job[0] if job else owner if owner != target else None), target

    # --- nodes -----------------------------------------------------------------------------

    def node_connecting(self, event: ev.NodeConnecting, turn: Turn) -> None:
        """A try that the user asked for shows; the quiet ones in between keep what is known."""
        node = self.nodes.get(event.node)
        if node is not None and node.status in (NodeStatus.LOGIN_FAILED, NodeStatus.INCOMPATIBLE):
            self._set_node(turn, node, status=NodeStatus.CONNECTING, information=None)

    def node_connected(self, event: ev.NodeConnected, turn: Turn) -> None:
        """Facts are known; the node is Up once its inventory was read."""
        node = self.nodes.get(event.node)
        if node is None:
            return
        twin = next(
            (
                other.id
                for other in self.nodes.values()
                if other.id != node.id
                and other.facts is not None
                and event.facts.host_uuid
                and other.facts.host_uuid == event.facts.host_uuid
            ),
            None,
        )
        if twin is not None:
            reason = because(ReasonCode.SAME_HOST_TWICE, node=twin)
            self._set_node(turn, node, status=NodeStatus.INCOMPATIBLE, information=reason)
            self.problems.found(turn, f"node:{node.id}", reason, node=node.id)
            return
        # A new connection: what was read on the old one may have changed unseen.
        for vm in self._on_node[node.id]:
            seen = self._sightings[vm][node.id]
            if seen.config is not None:
                self._sightings[vm][node.id] = replace(seen, config=replace(seen.config, digest=""))
        self._last_event_s[node.id] = event.at_s
        self._set_node(
            turn,
            node,
            facts=event.facts,
            last_seen_s=event.at_s,
            retry_at_s=None,
            information=_said_of(node.pacemaker),
        )
        what = because(ReasonCode.NODE_CONNECTED, hostname=event.facts.hostname)
        self._story.record(turn, what, node=node.id)

    def node_failed(self, event: ev.NodeConnectFailed | ev.NodeLost, turn: Turn) -> None:
        """A node could not be reached, or was lost: its rows turn Unknown, never Off."""
        node = self.nodes.get(event.node)
        if node is None:
            return
        if isinstance(event, ev.NodeLost) and node.status is NodeStatus.INCOMPATIBLE:
            return  # what is dropped is the connection to a host that has another name here
        if node.is_up:
            # It may have been quiet for long, but it was there: silence is noticed in that time.
            heard_s = max(self._last_event_s[node.id], event.at_s - NOTICED_S, node.last_seen_s or 0.0)
            node = replace(node, last_seen_s=heard_s)
        failure = event.failure
        hint = event.hint if isinstance(event, ev.NodeConnectFailed) else ""
        status, reason = self._failed_status(node, failure, hint, event.retry_at_s)
        changed = node.status is not status
        self._set_node(
            turn,
            node,
            status=status,
            information=reason,
            retry_at_s=event.retry_at_s,
            last_seen_s=node.last_seen_s,
        )
        if not changed:
            return
        lost, text = status is NodeStatus.UNKNOWN, failure.text or failure.code.value
        what = (
            because(ReasonCode.NODE_LOST, text=text)
            if lost
            else because(ReasonCode.NODE_FAILED, status=status.value, text=text)
        )
        self._story.record(turn, what, level=Level.ERROR, node=node.id)
        for vm in tuple(self._on_node[node.id]):
            self.refresh(vm, turn)
        if status in (NodeStatus.LOGIN_FAILED, NodeStatus.INCOMPATIBLE):
            vms = tuple(self._owned[node.id])
            self.problems.found(turn, f"node:{node.id}", reason, node=node.id, vms=vms)
        else:
            due_s = (node.last_seen_s or event.at_s) + SILENT_PROBLEM_S
            turn.effects.append(SetTimer(trace=turn.trace, key=f"silent:{node.id}", at_s=due_s))

    @staticmethod
    def _failed_status(
        node: Node, failure: Failure, hint: str, retry_at_s: float | None
    ) -> tuple[NodeStatus, Reason]:
        text = failure.text or failure.code.value
        if failure.code is FailureCode.LOGIN:
            return NodeStatus.LOGIN_FAILED, because(ReasonCode.LOGIN_FAILED, text=text, hint=hint)
        if failure.code is FailureCode.INCOMPATIBLE:
            return NodeStatus.INCOMPATIBLE, because(ReasonCode.INCOMPATIBLE, text=text)
        if node.last_seen_s is None:
            return NodeStatus.UNKNOWN, because(ReasonCode.NEVER_SEEN, node=node.id, text=text, hint=hint)
        if retry_at_s is None:
            return NodeStatus.UNKNOWN, because(ReasonCode.NOT_HEARD, node=node.id, since=node.last_seen_s)
        return NodeStatus.UNKNOWN, because(
            ReasonCode.RETRYING, since=node.last_seen_s, at=retry_at_s, text=text
        )

    def node_silent(self, node_id: NodeId, at_s: float, turn: Turn) -> None:
        """The timer of a silent node came due: one problem for all of its VMs."""
        node = self.nodes.get(node_id)
        if node is None or node.is_up:
            return
        reason = (
            because(ReasonCode.NOT_HEARD, node=node_id, since=node.last_seen_s)
            if node.last_seen_s is not None
            else node.information or because(ReasonCode.CONNECTING, node=node_id)
        )
        self.problems.found(turn, f"node:{node_id}", reason, node=node_id, vms=tuple(self._owned[node_id]))

    def inventory_read(self, event: ev.NodeInventoryRead, turn: Turn) -> None:
        """All VMs of a node at one moment; events since then are newer and win."""
        node = self.nodes.get(event.node)
        if node is None or node.status is NodeStatus.INCOMPATIBLE:
            return
        came_up = not node.is_up
        self._set_node(
            turn,
            node,
            status=NodeStatus.UP,
            last_seen_s=event.at_s,
            last_read_s=event.started_s,
            information=_said_of(node.pacemaker),
        )
        if came_up:
            self.problems.solved(turn, f"node:{node.id}")
            turn.effects.append(CancelTimer(trace=turn.trace, key=f"silent:{node.id}"))
            self._story.record(turn, because(ReasonCode.NODE_UP), node=node.id)
        read = {seen.vm for seen in event.vms}
        overtaken = False
        for seen in event.vms:
            before = self._sightings.get(seen.vm, {}).get(node.id)
            if before is not None and before.state_at_s > event.started_s:
                overtaken = True  # an event told more than this read knows
                continue
            if seen.shutting_down and self._is_half(seen.vm, node.id):
                continue  # of a move that failed: it must not be taken for one that arrived
            self._see(
                turn,
                seen.vm,
                node.id,
                seen.name,
                seen.status,
                seen.cause,
                seen.shutting_down,
                seen.incarnation,
                started_s=seen.started_s,
                force=came_up,
            )
        for vm in self._on_node[node.id] - read:
            if self._sightings[vm][node.id].state_at_s <= event.started_s:
                self._unsee(turn, vm, node.id)
            else:
                overtaken = True
        if overtaken:
            turn.effects.append(ReadNode(trace=turn.trace, node=node.id, soon=False))
        for vm in tuple(read):
            if len(self._sightings.get(vm, {})) > 1:
                self.refresh(vm, turn)  # the alarm rule waits for reads of both nodes

    def sampled(self, event: ev.NodeSampled, turn: Turn) -> None:
        """Loads live beside the rows: they change often and move nothing."""
        if event.node not in self.nodes:
            return
        self.node_loads[event.node] = event.load
        turn.changes[Kind.NODE].update(event.node, ("load",))
        changed = turn.changes[Kind.VM]
        for vm, load in event.vms.items():
            row = self.vms.get(vm)
            if row is not None and row.owner == event.node and self.vm_loads.get(vm) != load:
                self.vm_loads[vm] = load
                changed.update(vm, ("load",))

    def noticed(self, event: ev.NoticeGiven, turn: Turn) -> None:
        """A standing notice about this computer's own part."""
        key = f"notice:{event.key}"
        if event.reason is None:
            self.problems.solved(turn, key)
        else:
            self.problems.found(turn, key, event.reason)

    def node_held(self, event: ev.NodeHeld, turn: Turn) -> None:
        """One more reason to keep a node empty."""
        if event.node in self.nodes:
            kept = {h.who: h for h in self._noted[event.node]}
            self._note(event.node, {**kept, event.hold.who: event.hold}, turn)

    def node_released(self, event: ev.NodeReleased, turn: Turn) -> None:
        """One reason less; without a name, none is left."""
        if event.node in self.nodes:
            kept = {h.who: h for h in self._noted[event.node] if event.who not in ("", h.who)}
            self._note(event.node, kept, turn)

    def notes_read(self, event: ev.NodeNotesRead, turn: Turn) -> None:
        """What a node keeps, unless that was changed since by ourselves: then another read is on its way."""
        if event.node not in self.nodes:
            return
        if event.started_s < self._noted_s[event.node]:
            turn.effects.append(ReadNotes(trace=turn.trace, node=event.node))
        else:
            self._note(event.node, {h.who: h for h in event.holds}, turn, by_us=False)

    def notes_changed(self, event: ev.NodeNotesChanged, turn: Turn) -> None:
        """Read them again."""
        if event.node in self.nodes:
            turn.effects.append(ReadNotes(trace=turn.trace, node=event.node))

    def worked_on(self, operation: Operation, turn: Turn) -> None:
        """A pause, drain or resume of a node goes on. From its request on a node takes nothing new."""
        node = self.nodes.get(operation.source) if operation.source else None
        if node is None:
            return
        if operation.is_over:
            self._pausing.pop(node.id, None)
        elif operation.hold is not None:
            self._pausing[node.id] = operation.hold
        self._set_node(turn, node, work=None if operation.is_over else operation.reason)
        self._show_holds(node, turn)

    def _note(self, key: NodeId, holds: dict[str, Hold], turn: Turn, *, by_us: bool = True) -> None:
        """The holds that a node keeps are these now; what is new of that is told."""
        before = {h.who: h for h in self._noted[key]}
        self._noted[key] = tuple(holds.values())
        if by_us:
            self._noted_s[key] = turn.at_s
        for who, hold in holds.items():
            if who not in before:
                what = because(ReasonCode.NODE_HOLD_SET, why=hold.why)
                self._story.record(turn, what, source=Source.REQUEST, node=key, who=who)
        for who in before.keys() - holds.keys():
            what = because(ReasonCode.NODE_HOLD_ENDED)
            self._story.record(turn, what, source=Source.REQUEST, node=key, who=who)
        self._show_holds(self.nodes[key], turn)

    def _show_holds(self, node: Node, turn: Turn) -> None:
        mine = self._pausing.get(node.id)
        others = (h for h in self._noted[node.id] if mine is None or h.who != mine.who)
        self._set_node(turn, node, holds=(*others, *([mine] if mine else ())))

    # --- VMs -------------------------------------------------------------------------------

    def state_changed(self, event: ev.VmStateChanged, turn: Turn) -> None:
        """A lifecycle event: the cell changes now, a read of the node follows to be sure."""
        node = self.nodes.get(event.node)
        if node is None or node.status is NodeStatus.INCOMPATIBLE:
            return
        self._last_event_s[event.node] = event.at_s
        turn.effects.append(ReadNode(trace=turn.trace, node=event.node, soon=False))
        status, cause = event.status, event.cause
        if event.shutting_down:
            # It says nothing of the state that it shuts down from. One that is not here any more is the
            # target's half of a move that failed: it must not be taken for one that arrived.
            before = self.sighting(event.vm, event.node)
            if before is None:
                return
            status = before.status
            cause = before.cause if is_incoming(before) else cause
        self._see(turn, event.vm, event.node, event.name, status, cause, event.shutting_down, None, told=True)

    def undefined(self, event: ev.VmUndefined, turn: Turn) -> None:
        """A definition is gone; only a read tells whether the VM still runs without one."""
        self._last_event_s[event.node] = event.at_s
        seen = self.sighting(event.vm, event.node)
        if seen is not None and seen.status not in COUNTED:
            self._unsee(turn, event.vm, event.node)
        turn.effects.append(ReadNode(trace=turn.trace, node=event.node))

    def definition_changed(self, event: ev.VmDefinitionChanged, turn: Turn) -> None:
        """Read the definition again; of a VM not seen yet, the whole node."""
        self._last_event_s[event.node] = event.at_s
        if event.agent is not None:
            code = ReasonCode.VM_AGENT_UP if event.agent else ReasonCode.VM_AGENT_DOWN
            self._happened(turn, event.vm, event.node, because(code), name=event.name)
        elif event.is_new and not self.sightings(event.vm):
            what = because(ReasonCode.VM_DEFINED, node=event.node)
            self._happened(turn, event.vm, event.node, what, name=event.name)
        if self.sighting(event.vm, event.node) is None:
            turn.effects.append(ReadNode(trace=turn.trace, node=event.node))
        else:
            turn.effects.append(ReadVm(trace=turn.trace, node=event.node, vm=event.vm))

    def disk_failed(self, event: ev.VmDiskFailed, turn: Turn) -> None:
        """A disk had an error; what became of the VM its state tells."""
        then = "the VM was paused" if event.stopped else "the VM runs on"
        text = event.text or "no reason given"
        what = because(ReasonCode.VM_DISK_ERROR, disk=event.disk or "?", text=text, then=then)
        self._happened(turn, event.vm, event.node, what, level=Level.ERROR)
        seen = self.sighting(event.vm, event.node)
        if event.stopped:
            turn.effects.append(ReadResources(trace=turn.trace, node=event.node))
        if seen is not None and event.stopped and event.text == NO_SPACE:
            self._sightings[event.vm][event.node] = replace(seen, no_room_for=event.disk)
            self.refresh(event.vm, turn)

    def config_read(self, event: ev.VmConfigRead, turn: Turn) -> None:
        """A definition arrived."""
        seen = self.sighting(event.vm, event.node)
        if seen is not None and seen.config != event.config:
            self._sightings[event.vm][event.node] = replace(seen, config=event.config)
            self.refresh(event.vm, turn)

    def definitions_kept(self, event: ev.DefinitionsKept, turn: Turn) -> None:
        """The vault has them, also those of VMs that no node shows."""
        for each in event.kept:
            self.kept[each.vm] = each
            if each.vm in self.vms:
                turn.changes[Kind.VM].update(each.vm, ("kept",))

    def settings_written(self, vm: VmId, node: NodeId, settings: VmSettings, turn: Turn) -> None:
        """We wrote them: known before the definition is read again."""
        seen = self.sighting(vm, node)
        if seen is not None and seen.config is not None:
            config = replace(seen.config, settings=settings)
            self._sightings[vm][node] = replace(seen, config=config)
            self.refresh(vm, turn)

    def drain_noted(self, vm: VmId, node: NodeId, drained_from: NodeId | None, turn: Turn) -> None:
        """We noted, or removed, from where it is drained."""
        seen = self.sighting(vm, node)
        if seen is not None and seen.config is not None:
            settings = replace(seen.config.settings, drained_from=drained_from)
            self.settings_written(vm, node, settings, turn)

    def rebooted(self, event: ev.VmRebooted, turn: Turn) -> None:
        """The guest started anew: its uptime counts from here."""
        self._last_event_s[event.node] = event.at_s
        seen = self.sighting(event.vm, event.node)
        if seen is not None:
            self._sightings[event.vm][event.node] = replace(
                seen, started_at_s=event.at_s, shutting_down=False
            )
            what = because(ReasonCode.VM_RESTARTED, node=event.node)
            self._happened(turn, event.vm, event.node, what)
            self.refresh(event.vm, turn)

    def authority_seen(self, event: ev.VmAuthoritySeen, turn: Turn) -> None:
        """Which VMs of a node are Pacemaker's. Holds until the node says otherwise, also while it is lost."""
        node = self.nodes.get(event.node)
        if node is None or (node.pacemaker, self._pacemaker[node.id]) == (event.pacemaker, event.names):
            return
        if event.pacemaker is Pacemaker.UNTOLD and node.pacemaker is Pacemaker.RUNS:
            return  # it has told before
        if node.pacemaker is not event.pacemaker:
            self._story.tell(node.id, event.at_s, f"Pacemaker: {event.pacemaker.value}")
        self._pacemaker[node.id] = event.names
        self._set_node(turn, node, pacemaker=event.pacemaker)
        if node.is_up:
            self._set_node(turn, node, information=_said_of(event.pacemaker))
        for vm in tuple(self._on_node[node.id]):
            self.refresh(vm, turn)

    def foreign_job(self, event: ev.ForeignJobSeen, turn: Turn) -> None:
        """Someone works on a VM. What one of our operations holds tells of that one, and counts as it."""
        if event.active:
            if event.vm not in self.foreign_jobs:
                self._foreign_since_s[event.vm] = event.at_s
            self.foreign_jobs[event.vm] = (event.node, event.what, event.migration)
        else:
            self.foreign_jobs.pop(event.vm, None)
        turn.changes[Kind.NODE].update(event.node, ("moving",))
        self.refresh(event.vm, turn)

    def _see(
        self,
        turn: Turn,
        vm: VmId,
        node: NodeId,
        name: str,
        status: VmStatus,
        cause: StatusCause,
        shutting_down: bool,
        incarnation: int | None,
        *,
        told: bool = False,
        started_s: float | None = None,
        force: bool = False,
    ) -> None:
        before = self._sightings.get(vm, {}).get(node)
        if (
            before is not None
            and not force
            and before.name == name
            and before.status is status
            and (before.cause is cause or cause is StatusCause.NONE)
            and before.shutting_down == shutting_down
            and (before.incarnation == incarnation or told)
        ):
            if told:  # what a read found as it was, the node's `last_read_s` tells of all at once
                self._sightings[vm][node] = replace(before, state_at_s=turn.at_s)
            return
        changed_at = before.changed_at_s if before else None
        started_at = before.started_at_s if before else None
        if told or (before is not None and before.status is not status):
            changed_at = turn.at_s
        config = before.config if before else None
        if status in COUNTED and (before is None or before.status not in COUNTED):
            fresh = cause in (StatusCause.BOOTED, StatusCause.RESTORED) and (told or before is not None)
            started_at = turn.at_s if fresh else None
            left = self._left(vm, node) if cause in _ARRIVING else None
            if left is not None:  # it came from there: known before it is read here
                started_at = left.started_at_s
                config = config or (left.config and replace(left.config, digest=""))
        started_at = started_s or started_at
        if told and before is not None:
            incarnation = before.incarnation
        self._sightings.setdefault(vm, {})[node] = Sighting(
            vm=vm,
            node=node,
            name=name or (before.name if before else vm),
            status=status,
            cause=cause,
            incarnation=incarnation,
            state_at_s=turn.at_s,
            changed_at_s=changed_at,
            started_at_s=started_at,
            shutting_down=shutting_down,
            no_room_for=before.no_room_for if before and cause is StatusCause.IO_ERROR else "",
            config=config,
        )
        self._on_node[node].add(vm)
        self._note_incoming(vm, node, before, turn)
        if (before is not None and before.status is not status) or (before is None and told):
            self._status_changed(turn, before, self._sightings[vm][node])
        if before is not None and before.name != name and name:
            what = because(ReasonCode.VM_RENAMED, before=before.name, name=name)
            self._happened(turn, vm, node, what)
            turn.effects.append(ReadVm(trace=turn.trace, node=node, vm=vm))
        self.refresh(vm, turn)

    def _status_changed(self, turn: Turn, before: Sighting | None, seen: Sighting) -> None:
        """Tell of a VM's new state. What is only a moment of a move or of a start is a line of its story."""
        vm, node, status, cause = seen.vm, seen.node, seen.status, seen.cause
        suffix = f" ({cause.value})" if cause.value else ""
        left = self._left(vm, node)
        moved = status is VmStatus.RUNNING and cause in (StatusCause.MIGRATED, StatusCause.POSTCOPY)
        if moved and left is not None and (before is None or is_incoming(before)):
            self._happened(turn, vm, node, because(ReasonCode.VM_MOVED, source=left.node, node=node))
        elif _is_passing(before, seen):
            self._story.tell(vm, turn.at_s, f"{status.value} on {node}{suffix}")
        else:
            paused = before is not None and before.status is VmStatus.PAUSED
            code = ReasonCode.VM_RESUMED if paused and status is VmStatus.RUNNING else _BECAME[status]
            if cause is StatusCause.BOOTED or (
                before is not None and before.cause is StatusCause.STARTING_UP
            ):
                code = _BECAME[status]
            what = because(code, node=node, cause=suffix)
            self._happened(turn, vm, node, what, level=_level(status, cause))

    def _happened(
        self,
        turn: Turn,
        vm: VmId,
        node: NodeId,
        what: Reason,
        *,
        level: Level = Level.INFORMATION,
        name: str = "",
    ) -> None:
        """A host told something of a VM, perhaps because of what we do to it."""
        seen, held = self.sighting(vm, node), self._claim(vm)
        name = name or (seen.name if seen else "")
        by = held[0] if held and held[0].state is not OperationState.WAITING else None
        self._story.record(turn, what, level=level, node=node, vm=vm, vm_name=name, by=by)

    def _left(self, vm: VmId, node: NodeId) -> Sighting | None:
        """What the node says from which a VM came to this one."""
        others = (s for s in self.sightings(vm).values() if s.node != node)
        return max(others, key=lambda s: s.status in COUNTED, default=None)

    def _forget_incoming(self, vm: VmId, turn: Turn) -> None:
        turn.changes[Kind.NODE].update(self._incoming.pop(vm), ("moves",))

    def _note_incoming(self, vm: VmId, node: NodeId, before: Sighting | None, turn: Turn) -> None:
        """Keep which node has the target's half of a move: one where the VM did not run before."""
        seen = self._sightings[vm][node]
        if not (seen.status is VmStatus.PAUSED and is_incoming(seen)):
            if self._incoming.get(vm) == node:
                self._forget_incoming(vm, turn)
        elif before is None or before.status not in COUNTED:
            left = self._left(vm, node)
            if seen.cause is StatusCause.MIGRATION or (left is not None and left.status in COUNTED):
                self._incoming[vm] = node

    def _unsee(self, turn: Turn, vm: VmId, node: NodeId) -> None:
        if len(self._sightings[vm]) > 1:
            self._story.tell(vm, turn.at_s, f"no longer on {node}")
        else:
            self._happened(turn, vm, node, because(ReasonCode.VM_GONE, node=node))
        self._sightings[vm].pop(node, None)
        self._on_node[node].discard(vm)
        if self._incoming.get(vm) == node:
            self._forget_incoming(vm, turn)
        self.refresh(vm, turn)

    # --- rows ------------------------------------------------------------------------------

    def refresh(self, vm: VmId, turn: Turn) -> None:
        """Derive a VM's row anew from its sightings, its claim and its nodes."""
        sightings = self._sightings.get(vm, {})
        before = self.vms.get(vm)
        if not sightings:
            self._sightings.pop(vm, None)
            if before is not None:
                del self.vms[vm]
                self.vm_loads.pop(vm, None)
                if self.foreign_jobs.pop(vm, None) and before.owner is not None:
                    turn.changes[Kind.NODE].update(before.owner, ("moves",))
                self.last_failures.pop(vm, None)
                self._own(vm, before, None, turn)
                self._enrol(vm, before, None)
                turn.changes[Kind.VM].remove(vm)
                self.problems.solved(turn, f"vm:{vm}")
            return
        row = self._derive(vm, sightings, turn)
        if row == before:
            return
        if vm in self.last_failures and before is not None and _went_on(before, row):
            del self.last_failures[vm]  # it tells of a state that is no more
            row = self._derive(vm, sightings, turn)
        self.vms[vm] = row
        self._own(vm, before, row, turn)
        self._enrol(vm, before, row)
        if before is None:
            turn.changes[Kind.VM].add(vm)
        else:
            turn.changes[Kind.VM].update(vm, _differing(before, row))
        if row.status is not VmStatus.RUNNING:
            self.vm_loads.pop(vm, None)
        self._vm_problem(turn, row)

    def _derive(self, vm: VmId, sightings: dict[NodeId, Sighting], turn: Turn) -> Vm:
        nodes = self.nodes
        best = (
            next(iter(sightings.values()))
            if len(sightings) == 1
            else max(
                sightings.values(),
                key=lambda s: (
                    _RANK[s.status] - (2 if s.node == self._incoming.get(vm) else 0),
                    nodes[s.node].is_up,
                    s.cause is not StatusCause.MIGRATED,
                    s.changed_at_s or 0.0,
                    s.node,
                ),
            )
        )
        owner = nodes[best.node]
        known = owner.is_up
        status = best.status if known else VmStatus.UNKNOWN
        held = self._claim(vm)
        operation, percent = held if held else (None, None)
        notes: list[Reason] = []
        alarm = len(sightings) > 1 and self._runs_twice(vm, sightings, operation, turn, notes)
        if not known:
            notes.append(
                because(ReasonCode.NOT_HEARD, node=owner.id, since=owner.last_seen_s)
                if owner.last_seen_s is not None
                else because(ReasonCode.CONNECTING, node=owner.id)
            )
        activity = self._activity(vm, best, operation, known)
        notes += self._operation_notes(operation, percent)
        foreign = self.foreign_jobs.get(vm)
        if foreign and operation is None:
            since = self._foreign_since_s.get(vm, turn.at_s)
            notes.append(because(ReasonCode.FOREIGN_JOB, what=foreign[1], since=since))
        if vm in self.last_failures and operation is None:
            notes.append(self.last_failures[vm])
        if known:
            notes += self._state_notes(best)
        config = best.config or next((s.config for s in sightings.values() if s.config), None)
        if config is not None and config.trouble:
            notes.append(because(ReasonCode.DEFINITION_TROUBLE, text=config.trouble))
        others = tuple(sorted(n for n in sightings if n != best.node))
        if others and operation is None and not alarm:
            older = all(sightings[n].cause is StatusCause.MIGRATED for n in others)
            code = ReasonCode.ALSO_DEFINED_OLDER if older else ReasonCode.ALSO_DEFINED
            notes.append(because(code, nodes=", ".join(others)))
        authority = self._authority(best)
        if authority is not Authority.MUSTER:
            notes.append(because(ReasonCode.OTHER_AUTHORITY, authority=authority.value))
        return Vm(
            id=vm,
            name=best.name,
            status=status,
            cause=best.cause,
            was=None if known else best.status,
            activity=activity,
            owner=best.node,
            moving_to=operation.target if operation and _is_moving(operation) else None,
            operation=operation.id if operation else None,
            information=notes[0] if notes else None,
            notes=tuple(notes),
            config=config,
            other_nodes=others,
            authority=authority,
            changed_at_s=best.changed_at_s,
            started_at_s=best.started_at_s,
            alarm=alarm,
            percent=percent,
        )

    def _authority(self, seen: Sighting) -> Authority:
        """A VM that may be Pacemaker's is rather left alone than fought over."""
        if self.nodes[seen.node].pacemaker in (Pacemaker.ASKED, Pacemaker.UNTOLD):
            return Authority.UNTOLD
        return Authority.PACEMAKER if seen.name in self._pacemaker[seen.node] else Authority.MUSTER

    def _runs_twice(
        self,
        vm: VmId,
        sightings: dict[NodeId, Sighting],
        operation: Operation | None,
        turn: Turn,
        notes: list[Reason],
    ) -> bool:
        """Two running copies are an alarm only if both nodes, reread after the last event of either, say so.

        In a healthy migration the target's event may come before the source's.
        """
        running = self.copies(vm)
        moving = (operation is not None and _goes_live(operation)) or (
            vm in self.foreign_jobs and self.foreign_jobs[vm][2]
        )
        if len(running) < 2 or moving:
            return False
        last_event = max(self._last_event_s[node] for node in running)
        stale = [node for node in running if (self.nodes[node].last_read_s or 0.0) < last_event]
        known = vm in self.vms and self.vms[vm].alarm  # stays until a node says otherwise
        if stale and not known:
            turn.effects += [ReadNode(trace=turn.trace, node=node) for node in stale]
            return False
        notes.append(because(ReasonCode.RUNNING_ON_TWO, nodes=", ".join(sorted(running))))
        return True

    def _activity(self, vm: VmId, best: Sighting, operation: Operation | None, known: bool) -> Activity:
        if operation is not None:
            return activity_of(operation)
        foreign = self.foreign_jobs.get(vm)
        if foreign:
            return Activity.FOREIGN_MIGRATION if foreign[2] else Activity.FOREIGN_JOB
        if best.shutting_down and known:
            return Activity.SHUTTING_DOWN
        if self.incoming(vm) is not None:
            return Activity.FOREIGN_MIGRATION  # begun by someone else before we looked
        return Activity.NONE

    @staticmethod
    def _operation_notes(operation: Operation | None, percent: int | None) -> list[Reason]:
        if operation is None:
            return []
        if operation.reason is not None:
            return [operation.reason]
        if operation.kind is OperationKind.MIGRATE and operation.step not in (None, MoveStep.MOVE):
            what = operation.step.value if operation.step else ""
            at = f"{operation.source} → {operation.target}" if operation.target else str(operation.source)
            how_far = f"{what}, {percent} %" if percent is not None else what
            return [because(ReasonCode.STEP, what=how_far, node=at)]
        if operation.kind is OperationKind.MIGRATE and operation.target:
            if percent is None:
                return [because(ReasonCode.MOVING_STARTS, node=operation.target)]
            return [because(ReasonCode.MOVING, node=operation.target, percent=percent)]
        return []

    def _state_notes(self, best: Sighting) -> list[Reason]:
        if best.shutting_down:
            return [because(ReasonCode.SHUTTING_DOWN)]
        if best.status is VmStatus.PAUSED and best.cause is StatusCause.IO_ERROR:
            return [self._disk_trouble(best)]
        if best.status is VmStatus.PAUSED and best.cause.value:
            return [because(ReasonCode.PAUSED_BECAUSE, cause=best.cause.value)]
        if best.status is VmStatus.CRASHED and best.changed_at_s is None:
            return [because(ReasonCode.CRASHED_BEFORE)]
        if best.changed_at_s is None or not best.cause.value:
            return []
        if best.status is VmStatus.CRASHED:
            return [because(ReasonCode.CRASHED_AT, at=best.changed_at_s, cause=best.cause.value)]
        if best.status is VmStatus.OFF:
            return [because(ReasonCode.OFF_BECAUSE, at=best.changed_at_s, cause=best.cause.value)]
        return []

    def _disk_trouble(self, seen: Sighting) -> Reason:
        """Why a VM stands still with a disk error: which disk found no room, and how full its pool is.

        libvirt's figures of a pool may be old; that a disk found no room was told by the hypervisor itself.
        """
        cause = seen.cause.value
        disks = [disk for disk in seen.config.disks if not disk.read_only] if seen.config else []
        failed = [disk for disk in disks if seen.no_room_for in (disk.source, disk.target)]
        pools = [(disk, pool) for disk in failed or disks if (pool := self._pool_of(seen.node, disk))]
        for disk, pool in pools:
            full = next((note for note in pool.notes if note.code is ReasonCode.POOL_FULL), None)
            if full is not None:
                return because(
                    ReasonCode.PAUSED_POOL_FULL,
                    cause=cause,
                    disk=disk.target,
                    pool=pool.name,
                    **dict(full.fields),
                )
        if seen.no_room_for:
            name = failed[0].target if failed else seen.no_room_for
            where = f" in pool {pools[0][1].name}" if failed and pools else ""
            return because(ReasonCode.PAUSED_NO_ROOM, cause=cause, disk=name, where=where)
        return because(ReasonCode.PAUSED_BECAUSE, cause=cause)

    def pools_changed(self, turn: Turn) -> None:
        """What is said of VMs that stand still with a disk error may be another thing now."""
        for problem in list(self.problems.now.values()):
            for vm in problem.vms:
                row = self.vms.get(vm)
                if row is not None and row.cause is StatusCause.IO_ERROR:
                    self.refresh(vm, turn)

    def _own(self, vm: VmId, before: Vm | None, row: Vm | None, turn: Turn) -> None:
        """Keep what is counted per node in step with a row."""
        if (
            before is not None
            and row is not None
            and before.status is row.status
            and before.owner == row.owner
            and before.config is row.config
        ):
            return
        if before is not None and before.owner is not None and (row is None or row.owner != before.owner):
            self._owned[before.owner].discard(vm)
            self._count(before.owner, before, None, turn)
            before = None
        if row is not None and row.owner is not None:
            self._owned[row.owner].add(vm)
            self._count(row.owner, before, row, turn)

    def _enrol(self, vm: VmId, before: Vm | None, row: Vm | None) -> None:
        """Keep in which groups a VM is."""
        old = before.config.settings.rules if before is not None and before.config else ()
        new = row.config.settings.rules if row is not None and row.config else ()
        if old is new or old == new:
            return
        for rule in old:
            members = self._groups.get(rule.group, set())
            members.discard(vm)
            if not members:
                self._groups.pop(rule.group, None)
        for rule in new:
            self._groups.setdefault(rule.group, set()).add(vm)

    def _count(self, node_id: NodeId, before: Vm | None, row: Vm | None, turn: Turn) -> None:
        """Correct a node's sums by what became of one of its VMs."""
        old, new = _counts(before), _counts(row)
        if old == new:
            return
        total, running, unread, mib, vcpus = (n - o for o, n in zip(old, new, strict=True))
        if mib or vcpus:
            self._used_mib[node_id] += mib
            self._used_vcpus[node_id] += vcpus
            turn.changes[Kind.NODE].update(node_id, _COMMITTED)
        node = self.nodes[node_id]
        self._set_node(
            turn,
            node,
            vms_total=node.vms_total + total,
            vms_running=node.vms_running + running,
            vms_unread=node.vms_unread + unread,
        )

    def _set_node(self, turn: Turn, node: Node, **values: Any) -> None:
        """Give some of a node's attributes new values."""
        before = self.nodes[node.id]
        changed = {n: value for n, value in values.items() if getattr(before, n) != value}
        if changed:
            self.nodes[node.id] = replace(before, **changed)
            turn.changes[Kind.NODE].update(node.id, changed)

    # --- problems --------------------------------------------------------------------------

    def _vm_problem(self, turn: Turn, row: Vm) -> None:
        key = f"vm:{row.id}"
        if row.alarm and row.information:
            self.problems.found(turn, key, row.information, node=row.owner, vms=(row.id,))
        elif row.status is VmStatus.CRASHED:
            reason = (
                because(ReasonCode.CRASHED_BEFORE)
                if row.changed_at_s is None
                else because(ReasonCode.CRASHED_AT, at=row.changed_at_s, cause=row.cause.value)
            )
            self.problems.found(turn, key, reason, node=row.owner, vms=(row.id,))
        elif row.status is VmStatus.PAUSED and row.cause in (
            StatusCause.IO_ERROR,
            StatusCause.WATCHDOG,
            StatusCause.POSTCOPY_FAILED,
            StatusCause.PANICKED,
        ):
            reason = next(
                (note for note in row.notes if note.code in _PAUSED),
                because(ReasonCode.PAUSED_BECAUSE, cause=row.cause.value),
            )
            self.problems.found(turn, key, reason, node=row.owner, vms=(row.id,))
        elif row.status is VmStatus.UNKNOWN:
            self.problems.unseen(turn, key)
        elif self.problems.is_open(key):
            self.problems.solved(turn, key)


_PAUSED = frozenset({ReasonCode.PAUSED_BECAUSE, ReasonCode.PAUSED_NO_ROOM, ReasonCode.PAUSED_POOL_FULL})


def _goes_live(operation: Operation) -> bool:
    """Whether it is in order that two nodes say they run its VM."""
    return _is_moving(operation) and operation.step in (None, MoveStep.MOVE)


def _is_moving(operation: Operation) -> bool:
    return operation.kind is OperationKind.MIGRATE and operation.state is not OperationState.WAITING


_BECAME = {
    VmStatus.RUNNING: ReasonCode.VM_STARTED,
    VmStatus.PAUSED: ReasonCode.VM_PAUSED,
    VmStatus.OFF: ReasonCode.VM_STOPPED,
    VmStatus.SAVED: ReasonCode.VM_SAVED,
    VmStatus.CRASHED: ReasonCode.VM_CRASHED,
}
_TROUBLE = frozenset(
    {
        StatusCause.IO_ERROR,
        StatusCause.WATCHDOG,
        StatusCause.POSTCOPY_FAILED,
        StatusCause.PANICKED,
        StatusCause.CRASHED,
    }
)
_STRANGE = frozenset({StatusCause.FAILED, StatusCause.DAEMON, StatusCause.API_ERROR})


def _level(status: VmStatus, cause: StatusCause) -> Level:
    """How much it matters that a VM is in this state."""
    if status is VmStatus.CRASHED or cause in _TROUBLE:
        return Level.ERROR
    return Level.WARNING if cause in _STRANGE else Level.INFORMATION


_PASSING = _INCOMING | {StatusCause.POSTCOPY, StatusCause.SAVING, StatusCause.DUMPING}


def _is_passing(before: Sighting | None, seen: Sighting) -> bool:
    """Whether a state is only a moment of a move, a start or a save, or the VM just comes out of that."""
    if seen.status not in _BECAME or seen.cause in (StatusCause.MIGRATED, StatusCause.SHUTTING_DOWN):
        return True  # that it goes down is told by its end; libvirt says so of paused ones too
    if seen.status is VmStatus.PAUSED:
        return seen.cause in _PASSING
    came_out = (
        before is not None
        and before.status is VmStatus.PAUSED
        and before.cause in _PASSING
        and before.cause is not StatusCause.STARTING_UP  # from there it starts
    )
    return (
        came_out
        and seen.status is VmStatus.RUNNING
        and seen.cause
        not in (
            StatusCause.BOOTED,
            StatusCause.RESTORED,
        )
    )


def _counts(vm: Vm | None) -> tuple[int, int, int, int, int]:
    """What a row adds to its node: VMs, running ones, those not measured yet, MiB, vCPUs."""
    if vm is None:
        return (0, 0, 0, 0, 0)
    runs = vm.status is VmStatus.RUNNING or vm.status is VmStatus.PAUSED
    if vm.status not in COUNTED:
        return (1, runs, 0, 0, 0)
    if vm.config is None:
        return (1, runs, 1, 0, 0)
    return (1, runs, 0, planner.need_mib(vm.config.memory_mib), vm.config.vcpus)


def _went_on(before: Vm, row: Vm) -> bool:
    """Whether a VM is known to be in another state or place than it last was."""
    was = before.was if before.status is VmStatus.UNKNOWN else before.status
    return row.status is not VmStatus.UNKNOWN and (was, before.owner) != (row.status, row.owner)


def _differing(before: Vm, after: Vm) -> list[str]:
    """Names of the attributes that are not the same."""
    pairs = zip(_VM_FIELDS, _vm_values(before), _vm_values(after), strict=True)
    return [name for name, old, new in pairs if old is not new and old != new]


_CHANGE_ACTIVITY = {
    "start": Activity.STARTING,
    "shut down": Activity.SHUTTING_DOWN,
    "shut down through the agent": Activity.SHUTTING_DOWN,
    "turn off": Activity.TURNING_OFF,
    "restart": Activity.RESTARTING,
    "save": Activity.SAVING,
    "delete saved state": Activity.DELETING_SAVED,
    "pause": Activity.PAUSING,
    "resume": Activity.RESUMING,
    "reset": Activity.RESETTING,
    "send Ctrl+Alt+Del": Activity.SENDING_KEYS,
    "take a snapshot": Activity.SNAPSHOT_CREATE,
    "delete a snapshot": Activity.SNAPSHOT_DELETE,
    "revert to a snapshot": Activity.SNAPSHOT_REVERT,
}


def activity_of(operation: Operation) -> Activity:
    """What an operation does to its VM, in one word."""
    if operation.state is OperationState.WAITING:
        return Activity.QUEUED
    if operation.state is OperationState.CHECKING:
        return Activity.CHECKING
    if operation.state is OperationState.CANCELLING:
        return Activity.CANCELLING
    if operation.kind is OperationKind.MIGRATE:
        return Activity.MIGRATING
    if operation.change is not None:
        return _CHANGE_ACTIVITY[operation.change.value]
    return Activity.CHANGING_SETTINGS

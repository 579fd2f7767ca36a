"""Anything may happen to a cluster in any order; what must always hold, holds after each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.changes import Outcome
from manager.core.cluster import ClusterState
from manager.core.effects import VmChange
from manager.core.errors import Failure, FailureCode
from manager.core.events import QueueVerb
from manager.core.ids import NodeId, VmId
from manager.core.model import (
    Hold,
    MigrationLimits,
    MoveType,
    Priority,
    RetryPolicy,
    StatusCause,
    VmStatus,
    WorkLimits,
)
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.placement import planner
from manager.core.reasons import ReasonCode
from manager.services.memory_journal import left_over
from tests.core.support import (
    CRASHED,
    OFF,
    PAUSED,
    REFUSED,
    SAVED,
    UNREACHABLE,
    Cluster,
    R,
    cluster_config,
    definition,
    host_facts,
    uuid,
)

NAMES = ("a", "b", "c", "d", "e", "f")
PLACES = ("n1", "n2", "n3")
CHANGES = tuple(
    f"vm.{c}" for c in ("start", "shut_down", "restart", "save", "pause", "resume", "turn_off", "reset")
)
MOVES = (
    "vm.live_migrate",
    "vm.live_migrate",
    "vm.quick_migrate",
    "vm.shut_down_and_move",
    "vm.turn_off_and_move",
)
LIMITS = MigrationLimits(
    outgoing_per_node=1,
    incoming_per_node=2,
    cluster_limit=3,
    retry=RetryPolicy(times=2, target_failures=3, batch_failures=2),
)
WORK = WorkLimits(starts_per_node=1, starts_per_cluster=2, saves_per_node=1)
TIMED_OUT = Failure(code=FailureCode.TIMEOUT, text="no answer")

names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True)
places = st.sampled_from(PLACES)


class Checked(Cluster):
    """A cluster of which each turn is checked."""

    def feed(self, event: ev.Event) -> Outcome:
        before = dict(self.state.operations)
        outcome = super().feed(event)
        begun = [
            o
            for o in outcome.transitions
            if o.vm and not o.is_over and o.state is not OperationState.WAITING
            if o.id not in before or before[o.id].state is OperationState.WAITING
        ]
        for place, operation in enumerate(begun):
            if operation.kind is OperationKind.MIGRATE and not isinstance(event, ev.OperationsRestored):
                self._had_room(operation, begun[place + 1 :])
            self._passed_nobody(operation)
        for effect in outcome.effects:
            if isinstance(effect, fx.VmEffect):
                self._is_asked_for(effect)
        return outcome

    def _had_room(self, operation: Operation, later: list[Operation]) -> None:
        """When it was let go, before those that came after it in the same turn."""
        assert operation.target is not None
        node = self.state.nodes[operation.target]
        assert node.is_up
        assert node.facts is not None
        total = node.facts.memory_mib
        kept = 0 if operation.target_given else planner.reserve_mib(self.state.config.placement, total)
        after = sum(planner.need_mib(o.memory_mib) for o in later if o.target == operation.target)
        assert self.state.committed_mib(operation.target) - after <= total - kept

    def _passed_nobody(self, operation: Operation) -> None:
        """Nobody of a higher priority waits for what it took."""
        slots = {
            (ReasonCode.WAITS_CLUSTER, None),
            (ReasonCode.WAITS_STARTS_CLUSTER, None),
            (ReasonCode.WAITS_OUTGOING, operation.source),
            (ReasonCode.WAITS_INCOMING, operation.target),
            (ReasonCode.WAITS_STARTS_NODE, operation.source),
            (ReasonCode.WAITS_SAVES, operation.source),
        }
        for other in self.live():
            if other.state is OperationState.WAITING and other.reason and _uses(other) == _uses(operation):
                waits_for_it = (other.reason.code, other.reason.field("node")) in slots
                assert not waits_for_it or operation.priority >= other.priority, (operation, other)

    def _is_asked_for(self, effect: fx.VmEffect) -> None:
        operation = self.state.operations[effect.operation]
        assert self.state.claims.get(effect.vm) == operation.id
        assert effect.attempt == operation.attempt
        if isinstance(effect, fx.ChangeVm) and operation.kind is OperationKind.CHANGE:
            assert effect.change is operation.change


def _uses(operation: Operation) -> tuple[OperationKind, VmChange | None]:
    return operation.kind, operation.change


class ClusterMachine(RuleBasedStateMachine):
    """Three nodes of 16 GiB, six VMs of 1 to 6 GiB, limits of one or two."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.cluster = Checked(
            cluster_config(3, migration=LIMITS, work=WORK, shared_paths=("/srv",)), up=False
        )
        for node in self.cluster.hosts:
            self.cluster.facts[node] = host_facts(node, memory_mib=16384)
        for name in NAMES:
            self.cluster.add(
                data.draw(places, f"node of {name}"),
                name,
                data.draw(st.sampled_from((R, R, R, OFF, SAVED, PAUSED)), f"status of {name}"),
                StatusCause.USER,
                config=definition(
                    data.draw(st.sampled_from((1024, 4096, 6144)), "memory"),
                    data.draw(st.sampled_from(list(Priority)), "priority"),
                ),
                known=False,
            )
        for node in PLACES:
            self.cluster.connect(node)
        self.reads: list[ev.NodeInventoryRead] = []

    # --- what people ask for ---------------------------------------------------------------

    @rule(chosen=names, action=st.sampled_from(CHANGES))
    def change(self, chosen: Sequence[str], action: str) -> None:
        self.cluster.ask(action, *chosen)

    @rule(chosen=names, to=st.sampled_from((None, *PLACES)), action=st.sampled_from(MOVES))
    def migrate(self, chosen: Sequence[str], to: str | None, action: str) -> None:
        self.cluster.ask(action, *chosen, target=to)

    @rule(verb=st.sampled_from((QueueVerb.PAUSE, QueueVerb.RESUME)))
    def steer(self, verb: QueueVerb) -> None:
        self.cluster.steer(verb)

    @precondition(lambda self: self.cluster.state.operations)
    @rule(
        data=st.data(),
        verb=st.sampled_from((QueueVerb.PAUSE, QueueVerb.RESUME, QueueVerb.REORDER, QueueVerb.TUNE)),
    )
    def steer_operations(self, data: st.DataObject, verb: QueueVerb) -> None:
        known = st.sampled_from(sorted(self.cluster.state.operations))
        chosen = data.draw(st.lists(known, min_size=1, max_size=3, unique=True))
        before = data.draw(known) if verb is QueueVerb.REORDER else None
        pause_ms = 500 if verb is QueueVerb.TUNE else None
        self.cluster.steer(verb, operations=tuple(chosen), before=before, pause_ms=pause_ms)

    @rule(node=places)
    def feed_again(self, node: str) -> None:
        self.cluster.steer(QueueVerb.RESUME, node=NodeId(node))

    @rule(chosen=names, priority=st.sampled_from(list(Priority)))
    def set_priority(self, chosen: Sequence[str], priority: Priority) -> None:
        self.cluster.ask("vm.priority", *chosen, priority=priority)

    @rule(chosen=names)
    def cancel_vms(self, chosen: Sequence[str]) -> None:
        self.cluster.ask("vm.cancel", *chosen)

    @precondition(lambda self: self.cluster.state.operations)
    @rule(data=st.data())
    def cancel_operation(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.cluster.state.operations)))
        asked = ev.CancelRequested(at_s=self.cluster.now, operations=(key,), author="adm")
        self.cluster.feed(asked)
        again = self.cluster.feed(asked)
        assert not again.effects
        assert not again.transitions

    # --- what the world does ---------------------------------------------------------------

    @precondition(lambda self: self.cluster.pending)
    @rule(data=st.data(), failure=st.sampled_from((None, None, None, REFUSED, UNREACHABLE, TIMED_OUT)))
    def answer(self, data: st.DataObject, failure: Failure | None) -> None:
        place = data.draw(st.integers(0, len(self.cluster.pending) - 1))
        effect = self.cluster.pending[place]
        if isinstance(effect, fx.StartMigration):
            self.cluster.begin_move(effect, failure)
        else:
            self.cluster.answer(effect, failure)

    @precondition(lambda self: self.cluster.wanted(fx.ChangeVm))
    @rule(data=st.data(), failure=st.sampled_from((None, REFUSED)))
    def lie(self, data: st.DataObject, failure: Failure | None) -> None:
        """A call that says it failed and did it; or that it did, and did not."""
        effect = data.draw(st.sampled_from(self.cluster.wanted(fx.ChangeVm)))
        if failure is not None:
            self.cluster._change(effect)
        self.cluster.end(effect, failure)

    @precondition(lambda self: self.cluster.wanted(fx.VmEffect))
    @rule(data=st.data())
    def deaf(self, data: st.DataObject) -> None:
        """A step of a move that is done, and whose answer is lost with the connection."""
        kinds = fx.SaveToFile | fx.RestoreFromFile | fx.CopyDefinition | fx.ForgetDefinition
        steps = [e for e in self.cluster.wanted(fx.VmEffect) if isinstance(e, kinds)]
        if steps:
            effect = data.draw(st.sampled_from(steps))
            self.cluster._hand_over(effect)
            self.cluster.end(effect, UNREACHABLE)

    @precondition(lambda self: self.cluster.moves)
    @rule(
        data=st.data(),
        failure=st.sampled_from((None, None, REFUSED, UNREACHABLE)),
        lies=st.booleans(),
        says=st.booleans(),
    )
    def finish_move(self, data: st.DataObject, failure: Failure | None, lies: bool, says: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.cluster.moves)))
        arrives = (failure is None) is not lies
        # A call that never comes back is one whose connection broke, and that is said.
        self.cluster.finish_move(key, failure if says else UNREACHABLE, arrives=arrives)

    @rule(node=places)
    def begin_read(self, node: str) -> None:
        """A read begins; what happens until it is delivered is newer than it."""
        name = NodeId(node)
        if name in self.cluster.connected:
            vms = tuple(guest.seen(vm) for vm, guest in self.cluster.hosts[name].items())
            began_s = self.cluster.later(0.01)
            self.reads.append(ev.NodeInventoryRead(at_s=began_s, node=name, started_s=began_s, vms=vms))

    @precondition(lambda self: self.reads)
    @rule()
    def deliver_read(self) -> None:
        read = self.reads.pop(0)
        if read.node in self.cluster.connected:
            self.cluster.feed(replace(read, at_s=self.cluster.later(0.1)))

    @rule(node=places, retry=st.booleans())
    def lose(self, node: str, retry: bool) -> None:
        if NodeId(node) in self.cluster.connected:
            self.reads = [r for r in self.reads if r.node != node]
            self.cluster.lose(node, retry=retry)

    @rule(node=places)
    def connect(self, node: str) -> None:
        if NodeId(node) not in self.cluster.connected:
            self.cluster.connect(node)

    @rule(name=st.sampled_from(NAMES), status=st.sampled_from((R, OFF, PAUSED, CRASHED, SAVED)))
    def become(self, name: str, status: VmStatus) -> None:
        """Someone else, or the guest, changes a VM that no host is moving."""
        found = [n for n, guests in self.cluster.hosts.items() if uuid(name) in guests]
        if len(found) == 1:
            self.cluster.become(found[0], name, status, StatusCause.OTHER)

    @rule(name=st.sampled_from(NAMES), to=places)
    def moved_by_others(self, name: str, to: str) -> None:
        found = [n for n, guests in self.cluster.hosts.items() if uuid(name) in guests]
        if len(found) == 1 and found[0] != to:
            guest = self.cluster.hosts[found[0]][uuid(name)]
            if guest.status is R:
                self.cluster.hosts[NodeId(to)][uuid(name)] = replace(guest, cause=StatusCause.MIGRATED)
                self.cluster.tell(to, name)
                self.cluster.become(found[0], name, OFF, StatusCause.MIGRATED)
                self.cluster.drop(found[0], name)

    @rule(node=places, name=st.sampled_from(NAMES), active=st.booleans())
    def foreign_job(self, node: str, name: str, active: bool) -> None:
        self.cluster.feed(
            ev.ForeignJobSeen(at_s=self.cluster.later(0.01), node=NodeId(node), vm=uuid(name), active=active)
        )

    @rule(node=places, who=st.sampled_from(("x", "y")), held=st.booleans())
    def hold(self, node: str, who: str, held: bool) -> None:
        at_s = self.cluster.later(0.01)
        if held:
            since = Hold(who=who, why="work", since_s=at_s)
            self.cluster.feed(ev.NodeHeld(at_s=at_s, node=NodeId(node), hold=since))
        else:
            self.cluster.feed(ev.NodeReleased(at_s=at_s, node=NodeId(node), who=who))

    @rule(seconds=st.sampled_from((1.0, 60.0, 200.0, 2000.0)))
    def wait(self, seconds: float) -> None:
        self.cluster.wait(seconds)

    @rule()
    def late_answers(self) -> None:
        """Answers to attempts and operations that are no more change nothing."""
        for operation in list(self.cluster.state.operations.values()):
            late = ev.EffectEnded(
                at_s=self.cluster.now, operation=operation.id, attempt=operation.attempt + 1
            )
            outcome = self.cluster.feed(late)
            assert not outcome.transitions
            assert not outcome.changes

    @rule()
    def restart(self) -> None:
        """The program is killed; the next one finds its journal. Moves go on without it."""
        cluster = self.cluster
        cluster.state = ClusterState(cluster._config)
        cluster.pending.clear()
        cluster.timers.clear()
        cluster.connected.clear()
        self.reads.clear()
        left = left_over(o for _, o in sorted(cluster.journal.items()))
        if left:
            cluster.feed(ev.OperationsRestored(at_s=cluster.later(), operations=left))
        for node in PLACES:
            cluster.connect(node)

    # --- what holds ------------------------------------------------------------------------

    @invariant()
    def limits_hold(self) -> None:
        active = [o for o in self.cluster.live() if o.state is not OperationState.WAITING]
        moves = [o for o in active if o.kind is OperationKind.MIGRATE]
        starts = [o for o in active if o.change is VmChange.START and not o.restores]
        saves = [o for o in active if o.change is VmChange.SAVE or o.restores]
        assert _most(o.source for o in moves) <= LIMITS.outgoing_per_node
        assert _most(o.target for o in moves) <= LIMITS.incoming_per_node
        assert len(moves) <= LIMITS.cluster_limit
        assert _most(o.source for o in starts) <= WORK.starts_per_node
        assert len(starts) <= WORK.starts_per_cluster
        assert _most(o.source for o in saves) <= WORK.saves_per_node

    @invariant()
    def claims_are_held_by_what_lives(self) -> None:
        live = {o.id: o for o in self.cluster.live()}
        for vm, key in self.cluster.state.claims.items():
            assert live[key].vm == vm
        for operation in live.values():
            assert operation.vm is not None
            held = self.cluster.state.claims.get(operation.vm) == operation.id
            waits_for_others = (
                operation.kind is OperationKind.SETTINGS and operation.state is OperationState.WAITING
            )
            assert held or waits_for_others
        for row in self.cluster.state.vms.values():
            assert row.operation == self.cluster.state.claims.get(row.id)

    @invariant()
    def every_wait_has_a_reason(self) -> None:
        for operation in self.cluster.live():
            if operation.state is OperationState.WAITING:
                assert operation.reason is not None
                assert operation.reason.text

    @invariant()
    def parents_are_open_while_a_child_is(self) -> None:
        state = self.cluster.state
        open_parents = {o.parent for o in self.cluster.live() if o.parent}
        for operation in state.operations.values():
            if operation.kind is OperationKind.BATCH:
                assert operation.is_over is (operation.id not in open_parents)
                children = {o.state for o in self.cluster.children(operation.id)}
                if operation.is_over and children:
                    failed = OperationState.FAILED in children
                    assert (operation.state is OperationState.FAILED) is failed

    @invariant()
    def sums_equal_a_recount(self) -> None:
        state = self.cluster.state
        for node in state.nodes.values():
            rows = [v for v in state.vms.values() if v.owner == node.id]
            assert set(state.owned(node.id)) == {v.id for v in rows}
            assert node.vms_total == len(rows)
            assert node.vms_running == sum(v.status in (R, PAUSED) for v in rows)
            counted = [v.config for v in rows if v.status in planner.COUNTED and v.config]
            reserved = [
                (o.memory_mib, o.vcpus)
                for o in self.cluster.live()
                if o.kind is OperationKind.MIGRATE
                and o.target == node.id
                and o.state is not OperationState.WAITING
            ]
            need = sum(
                planner.need_mib(m) for m in [*(c.memory_mib for c in counted), *(m for m, _ in reserved)]
            )
            assert state.committed_mib(node.id) == need
            vcpus = [*(c.vcpus for c in counted), *(v for _, v in reserved)]
            assert state.committed_vcpus(node.id) == sum(vcpus)

    @invariant()
    def the_journal_has_it_all(self) -> None:
        for operation in self.cluster.state.operations.values():
            kept = self.cluster.journal[operation.id]
            assert replace(kept, reason=None) == replace(operation, reason=None)

    def teardown(self) -> None:
        """The world answers at last: then every operation ends, and the rows are the truth."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        running = {vm for guests in cluster.hosts.values() for vm, g in guests.items() if g.status is R}
        asked = {
            o.vm
            for o in cluster.state.operations.values()
            if not o.is_over and (o.change is not None or o.move is not MoveType.LIVE)
        }
        cluster.steer(QueueVerb.RESUME)
        for node in PLACES:
            cluster.steer(QueueVerb.RESUME, node=NodeId(node))
        paused = cluster.state.orders.paused_batches
        if paused:
            cluster.steer(QueueVerb.RESUME, operations=paused)
        for node in PLACES:
            if NodeId(node) not in cluster.connected:
                cluster.connect(node)
        for vm in map(uuid, NAMES):
            cluster.feed(ev.ForeignJobSeen(at_s=cluster.now, node=NodeId("n1"), vm=vm, active=False))
        for _ in range(60):
            cluster.settle()
            for key in list(cluster.moves):
                cluster.finish_move(key)
            cluster.settle()
            if not list(cluster.live()):
                break
            for batch in cluster.state.orders.paused_batches:
                cluster.steer(QueueVerb.RESUME, operations=(batch,))
            for node, _ in cluster.state.orders.resting:
                cluster.steer(QueueVerb.RESUME, node=node)
            cluster.wait(121)
        still = [f"{o.vm_name}: {o.state}, {o.step}: {o.reason}" for o in cluster.live()]
        assert not still, still
        assert not cluster.state.claims
        for node in PLACES:
            cluster.read(node)
        self.sums_equal_a_recount()
        truth: dict[VmId, list[tuple[NodeId | None, VmStatus]]] = {}
        for node, guests in cluster.hosts.items():
            for vm, guest in guests.items():
                truth.setdefault(vm, []).append((node, guest.status))
        assert set(truth) == set(cluster.state.vms)
        for row in cluster.state.vms.values():
            copies = truth[row.id]
            up = [c for c in copies if c[1] in (R, PAUSED)]
            assert len(up) <= 1, f"{row.name} runs twice"
            assert (row.owner, row.status) in (up or copies)
        stopped = running - {vm for vm, copies in truth.items() if any(s is R for _, s in copies)}
        assert stopped <= asked


def _most(found: object) -> int:
    return max(Counter(found).values(), default=0)  # type: ignore[call-overload]


TestCluster = ClusterMachine.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=40)

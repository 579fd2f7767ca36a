"""The shell around the core, on simulated hosts and virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from manager.backends.sim.faults import Faults
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.virtual_clock import VirtualClock
from manager.backends.sim.world import SimWorld
from manager.core import tree
from manager.core.actions import (
    ACTIONS,
    MigrateParameters,
    PriorityParameters,
    StorageParameters,
    TagsParameters,
)
from manager.core.chronicle import ClusterEvent
from manager.core.effects import CopyDefinition, TuneMigration
from manager.core.errors import Failure, FailureCode, OperationError, UserError
from manager.core.events import NodeInventoryRead, OperationsReported, QueueVerb, VmAuthoritySeen
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.migration.moves import MoveStep
from manager.core.model import (
    Activity,
    Authority,
    NodeStatus,
    Pacemaker,
    Priority,
    ProblemLife,
    StatusCause,
    VmSettings,
    VmStatus,
)
from manager.core.operations import Operation, OperationState
from manager.core.query.vm_fields import VM_FIELDS
from manager.core.reasons import ReasonCode
from manager.services import runtime as runtime_module
from manager.services.memory_journal import MemoryJournal
from manager.services.node_session import ASK_OFTEN_S, ASK_SELDOM_S, CONFIRM_S
from manager.services.runtime import Runtime
from tests.support.sim import config_of, make_id, make_world, until


class KeptJournal(MemoryJournal):
    """A journal on a disk that can be full."""

    full = False
    deaf = False

    async def commit(self, operations: Sequence[Operation]) -> None:
        is_full = self.full
        await asyncio.sleep(0)
        if is_full:
            raise OSError(28, "No space left on device")
        await super().commit(operations)

    async def record(self, events: Sequence[ClusterEvent], lives: Sequence[ProblemLife]) -> None:
        if self.deaf:
            raise OSError(28, "No space left on device")
        await super().record(events, lives)


@asynccontextmanager
async def muster(
    world: SimWorld,
    clock: VirtualClock,
    journal: MemoryJournal | None = None,
    hypervisor: SimHypervisor | None = None,
) -> AsyncIterator[Runtime]:
    """A run of the program on a world; at the end it is gone, the world is not."""
    runtime = Runtime(
        config=config_of(world),
        hypervisor=hypervisor or SimHypervisor(world),
        journal=journal or MemoryJournal(),
        clock=clock,
        author="tester",
    )
    await runtime.start()
    settled = asyncio.ensure_future(runtime.settled())
    await until(clock, settled.done)
    try:
        yield runtime
    finally:
        await runtime.close()


def migrate(runtime: Runtime, names: str, to: str | None = None) -> OperationId:
    plan = ACTIONS["vm.live_migrate"].plan(
        runtime.view,
        [make_id(n) for n in names],
        MigrateParameters(target=NodeId(to) if to else None),
    )
    assert not plan.skipped
    return runtime.request(plan)[0]


def children(runtime: Runtime, batch: OperationId) -> list[Operation]:
    return [o for o in runtime.view.operations.values() if o.parent == batch]


def is_over(runtime: Runtime, batch: OperationId) -> bool:
    return batch in runtime.view.operations and runtime.view.operations[batch].is_over


async def test_a_silent_node_turns_unknown_and_comes_back() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    faults = Faults(world)
    async with muster(world, clock) as runtime:
        node = runtime.view.nodes[NodeId("n1")]
        assert node.status is NodeStatus.UP
        started = clock.monotonic_s()
        faults.freeze("n1")
        await until(clock, lambda: not runtime.view.nodes[NodeId("n1")].is_up, 60)
        assert clock.monotonic_s() - started <= 15
        vm = runtime.view.vms[make_id("a")]
        assert vm.status is VmStatus.UNKNOWN
        assert vm.was is VmStatus.RUNNING
        status = next(f for f in VM_FIELDS if f.name == "status")
        assert status.cell(runtime.view, vm) == "Unknown (was Running)"
        assert runtime.view.nodes[NodeId("n2")].is_up
        await until(clock, lambda: bool(runtime.view.problems), 120)
        assert len(runtime.view.problems) == 1  # one problem for the node, none for each of its VMs

        faults.repair("n1")
        await until(clock, lambda: runtime.view.nodes[NodeId("n1")].is_up, 120)
        assert runtime.view.vms[make_id("a")].status is VmStatus.RUNNING
        assert not runtime.view.problems


async def test_three_moves_at_once_keep_the_limits_and_arrive() -> None:
    clock = VirtualClock()
    world = make_world(clock, vms={"n1": ("a", "b", "c")})
    async with muster(world, clock) as runtime:
        batch = migrate(runtime, "abc", "n2")
        await until(clock, lambda: bool(runtime.view.progress), 60)
        states = [o.state for o in children(runtime, batch)]
        assert states.count(OperationState.WAITING) == 1
        await until(clock, lambda: is_over(runtime, batch))
        assert {o.state for o in children(runtime, batch)} == {OperationState.DONE}
        assert {runtime.view.vms[make_id(n)].owner for n in "abc"} == {"n2"}
        assert not runtime.view.claims
        assert not runtime.view.progress


async def test_cancel_leaves_the_vm_running_on_its_source() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock) as runtime:
        batch = migrate(runtime, "a", "n2")
        await until(clock, lambda: bool(runtime.view.progress), 60)
        plan = ACTIONS["vm.cancel"].plan(runtime.view, [make_id("a")])
        runtime.request(plan)
        assert runtime.view.vms[make_id("a")].activity is Activity.CANCELLING
        await until(clock, lambda: is_over(runtime, batch))
        (move,) = children(runtime, batch)
        assert move.state is OperationState.CANCELLED
        assert runtime.view.vms[make_id("a")].owner == "n1"
        assert runtime.view.vms[make_id("a")].status is VmStatus.RUNNING


async def test_a_program_that_died_finds_its_move_done() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    journal = KeptJournal()
    async with muster(world, clock, journal) as runtime:
        batch = migrate(runtime, "a", "n2")
        await until(clock, lambda: bool(runtime.view.progress), 60)
    await clock.advance(120)  # the hosts finish it without us
    async with muster(world, clock, journal) as runtime:
        await until(clock, lambda: is_over(runtime, batch), 60)
        (move,) = children(runtime, batch)
        assert move.state is OperationState.DONE
        assert runtime.view.vms[make_id("a")].owner == "n2"


async def test_a_program_that_died_follows_its_move_to_the_end() -> None:
    clock = VirtualClock()
    world = make_world(clock, vm_memory_mib=32 * 1024)
    journal = KeptJournal()
    async with muster(world, clock, journal) as runtime:
        batch = migrate(runtime, "a", "n2")
        await until(clock, lambda: bool(runtime.view.progress), 60)
    async with muster(world, clock, journal) as runtime:
        assert not is_over(runtime, batch)
        await until(clock, lambda: bool(runtime.view.progress), 60)  # its figures are back
        await until(clock, lambda: is_over(runtime, batch))
        assert children(runtime, batch)[0].state is OperationState.DONE


async def test_waiting_work_of_a_program_that_died_goes_on_or_is_explained() -> None:
    clock = VirtualClock()
    world = make_world(clock, vms={"n1": ("a", "b", "c", "d")})
    journal = KeptJournal()
    async with muster(world, clock, journal) as runtime:
        batch = migrate(runtime, "abcd", "n2")
        await until(clock, lambda: bool(runtime.view.progress), 60)
    async with muster(world, clock, journal) as runtime:  # at once: it goes on
        await until(clock, lambda: is_over(runtime, batch))
        assert {o.state for o in children(runtime, batch)} == {OperationState.DONE}
        back = migrate(runtime, "abcd", "n1")
        await until(clock, lambda: bool(runtime.view.progress), 60)
    await clock.advance(3600)
    async with muster(world, clock, journal) as runtime:  # an hour later: it asks
        await until(clock, lambda: len(waiting(runtime, back)) == 2, 60)
        await clock.advance(60)
        left = waiting(runtime, back)
        assert {o.reason.code for o in left if o.reason} == {ReasonCode.BATCH_LEFT}
        runtime.steer(QueueVerb.RESUME, operations=(back,))
        await until(clock, lambda: is_over(runtime, back))
        assert {o.id for o in left} <= {
            o.id for o in children(runtime, back) if o.state is OperationState.DONE
        }


def waiting(runtime: Runtime, batch: OperationId) -> list[Operation]:
    return [o for o in children(runtime, batch) if o.state is OperationState.WAITING]


async def test_without_a_journal_nothing_starts(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    journal = KeptJournal()
    async with muster(world, clock, journal) as runtime:
        journal.full = True
        batch = runtime.request(ACTIONS["vm.turn_off"].plan(runtime.view, [make_id("a")]))[0]
        await until(clock, lambda: is_over(runtime, batch), 60)
        (end,) = children(runtime, batch)
        assert end.state is OperationState.FAILED
        assert end.reason is not None
        assert end.reason.code is ReasonCode.JOURNAL_FAILED
        assert runtime.view.vms[make_id("a")].status is VmStatus.RUNNING
    assert "No space left" in caplog.text


class Deaf(SimHypervisor):
    """Hosts that take no changes of a running move."""

    async def tune(self, effect: TuneMigration) -> None:
        raise OperationError(Failure(code=FailureCode.OTHER, text="not now", node=effect.node))


@pytest.mark.parametrize("hosts", [SimHypervisor, Deaf])
async def test_a_full_disk_harms_no_move_and_nothing_that_waits(
    hosts: type[SimHypervisor], caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()
    world = make_world(clock, vms={"n1": ("a", "b", "c", "d")}, vm_memory_mib=8 * 1024)
    journal = KeptJournal()
    async with muster(world, clock, journal, hosts(world)) as runtime:
        batch = migrate(runtime, "abcd", "n2")
        await until(clock, lambda: bool(runtime.view.progress), 60)
        first = next(iter(runtime.view.progress))
        waits = [o.id for o in waiting(runtime, batch)]
        assert len(waits) >= 2
        journal.full = True
        runtime.steer(QueueVerb.TUNE, operations=(first,), pause_ms=700)
        runtime.steer(QueueVerb.REORDER, operations=(waits[-1],), before=waits[0])
        await clock.advance(2)
        operations = runtime.view.operations
        assert operations[first].state is OperationState.RUNNING
        assert {operations[o].state for o in waits} == {OperationState.WAITING}
        permitted = 700 if hosts is SimHypervisor else None  # what the host does is what is shown
        assert runtime.view.progress[first].watch.pause_ms == permitted
        assert "No space left" in caplog.text
        journal.full = False
        await until(clock, lambda: is_over(runtime, batch))
        assert {o.state for o in children(runtime, batch)} == {OperationState.DONE}


class SlowDefine(SimHypervisor):
    """A call that takes a moment, as on real hosts."""

    async def copy_definition(self, effect: CopyDefinition) -> None:
        await self._clock.sleep(0.1)
        await super().copy_definition(effect)


async def test_a_move_that_left_its_source_finds_its_target_when_the_disk_has_room_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    journal = KeptJournal()
    async with muster(world, clock, journal, SlowDefine(world)) as runtime:
        (a,) = runtime.request(ACTIONS["vm.quick_migrate"].plan(runtime.view, [make_id("a")]))
        await until(clock, lambda: any(o.step is MoveStep.SAVE for o in children(runtime, a)))
        await clock.advance(0.1)
        journal.full = True
        await until(clock, lambda: runtime.view.vms[make_id("a")].status is VmStatus.OFF)
        await clock.advance(60)
        assert not is_over(runtime, a)
        assert caplog.text.count("No space left") < 30  # tried now and then
        journal.full = False
        await until(clock, lambda: is_over(runtime, a))
        (move,) = children(runtime, a)
        assert move.state is OperationState.DONE, move.reason
        assert runtime.view.vms[make_id("a")].owner == move.target


async def test_what_ends_as_not_stored_is_not_begun_by_a_later_commit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    journal = KeptJournal()
    async with muster(world, clock, journal) as runtime:
        runtime.steer(QueueVerb.PAUSE)
        await clock.advance(1)
        journal.full = True
        plan = ACTIONS["vm.save"].plan(runtime.view, [make_id("a")])
        batch = runtime.request(plan)[0]  # waits
        await asyncio.sleep(0)  # its commit is under way
        runtime.steer(QueueVerb.RESUME)  # and it begins with the next one
        journal.full = False
        await until(clock, lambda: is_over(runtime, batch))
        (save,) = children(runtime, batch)
        await clock.advance(60)
        assert "No space left" in caplog.text
        assert save.state is OperationState.FAILED
        assert runtime.view.vms[make_id("a")].status is VmStatus.RUNNING


async def test_what_cannot_be_stored_is_refused_and_nothing_stops() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock) as runtime:
        move = ACTIONS["vm.move_storage"]
        plan = move.plan(runtime.view, [make_id("a")], StorageParameters(pool="\udcff"))
        with pytest.raises(UserError, match=r"not printable: '\\udcff'. Nothing was done."):
            runtime.request(plan)
        assert not runtime.view.operations
        batch = migrate(runtime, "a", "n2")
        await until(clock, lambda: is_over(runtime, batch), 60)
        assert children(runtime, batch)[0].state is OperationState.DONE, children(runtime, batch)[0].reason


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"pause_ms": -5}, "pause_ms = -5: needs a whole number from 1 to 60000. Nothing was changed."),
        ({"pause_ms": 60_001}, "pause_ms = 60001: needs"),
        ({"bandwidth_mib_s": -1}, "bandwidth_mib_s = -1: needs a whole number from 0 to 1000000."),
    ],
)
async def test_a_move_is_tuned_only_within_what_a_host_takes(what: dict[str, int], said: str) -> None:
    clock = VirtualClock()
    world = make_world(clock, vm_memory_mib=32 * 1024)
    async with muster(world, clock) as runtime:
        batch = migrate(runtime, "a", "n2")
        await until(clock, lambda: bool(runtime.view.progress), 60)
        (moving,) = children(runtime, batch)
        with pytest.raises(UserError) as refused:
            runtime.steer(QueueVerb.TUNE, operations=(moving.id,), **what)
        assert str(refused.value).startswith(said)
        runtime.steer(QueueVerb.TUNE, operations=(moving.id,), pause_ms=60_000, bandwidth_mib_s=0)
        assert runtime.view.progress[moving.id].watch.pause_ms == 60_000


async def test_who_is_connected_to_look_only_asks_for_nothing() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock) as runtime:
        runtime.steer(QueueVerb.PAUSE)
        batch = migrate(runtime, "a", "n2")
        (waiting,) = children(runtime, batch)
        cancel = ACTIONS["vm.cancel"].plan(runtime.view, [waiting.vm])
        assert cancel.steps
        runtime._state._inventory.config = replace(runtime.view.config, read_only=True)
        for ask in (
            lambda: runtime.cancel((batch,)),
            lambda: runtime.steer(QueueVerb.RESUME),
            lambda: runtime.request(cancel),
        ):
            with pytest.raises(UserError, match=r"^this connection is read-only\. Nothing was changed\.$"):
                ask()
        assert runtime.view.orders.paused_by
        assert children(runtime, batch)[0].state is OperationState.WAITING


async def test_an_author_that_cannot_be_stored_is_shown_with_question_marks() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    runtime = Runtime(
        config=config_of(world),
        hypervisor=SimHypervisor(world),
        journal=MemoryJournal(),
        clock=clock,
        author="adm\udcff\n@here",
    )
    assert runtime.author == "adm??@here"


async def test_what_is_waited_for_may_be_forgotten_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "KEPT_ENDED", 2)
    monkeypatch.setattr(tree, "HEARD_AFTER_S", 0.0)
    clock = VirtualClock()
    world = make_world(clock, vms={"n1": ("a", "b")}, vm_memory_mib=32 * 1024)
    async with muster(world, clock) as runtime:

        def ask(action: str) -> OperationId:
            return runtime.request(ACTIONS[action].plan(runtime.view, [make_id("b")]))[0]

        await clock.advance(1)
        slow, quick = migrate(runtime, "a", "n2"), ask("vm.pause")
        waits = asyncio.ensure_future(runtime.ended((slow, quick)))
        for action in ("vm.resume", "vm.pause"):
            await until(clock, lambda: not runtime.view.vms[make_id("b")].operation, 60)
            await clock.advance(1)
            ask(action)
        await until(clock, lambda: quick not in runtime.view.operations, 60)
        assert not waits.done()
        await until(clock, waits.done)
        assert [(o.id, o.state) for o in waits.result()] == [
            (slow, OperationState.DONE),
            (quick, OperationState.DONE),
        ]


async def test_a_refused_login_between_nodes_moves_nothing_and_says_what_repairs_it() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock) as runtime:
        Faults(world).break_peer_login("n1", "n2")
        batch = migrate(runtime, "a", "n2")
        await until(clock, lambda: is_over(runtime, batch), 60)
        (move,) = children(runtime, batch)
        assert move.state is OperationState.FAILED
        assert move.reason is not None
        assert move.reason.code is ReasonCode.PEER_LOGIN_REFUSED
        assert "virsh -c" in move.reason.remedy
        assert runtime.view.vms[make_id("a")].owner == "n1"


async def test_a_call_that_fails_again_and_again_ends() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock) as runtime:
        Faults(world).fail_move(FailureCode.UNREACHABLE, times=4)
        batch = migrate(runtime, "a", "n2")
        await until(clock, lambda: is_over(runtime, batch))
        assert children(runtime, batch)[0].state is OperationState.FAILED
        assert runtime.view.vms[make_id("a")].owner == "n1"


async def test_settings_wait_for_a_move_and_say_so() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock) as runtime:
        view, a = runtime.view, make_id("a")
        move = migrate(runtime, "a", "n2")
        await until(clock, lambda: bool(view.progress), 60)
        high = PriorityParameters(priority=Priority.HIGH)
        first = runtime.request(ACTIONS["vm.priority"].plan(view, [a], high))[0]
        second = runtime.request(ACTIONS["vm.tags"].plan(view, [a], TagsParameters(tags=("web",))))[0]
        (write,) = children(runtime, first)
        assert write.state is OperationState.WAITING
        assert write.reason is not None
        assert write.reason.text == "waits for its move to n2 to end"
        assert view.claims[a] == children(runtime, move)[0].id

        await until(clock, lambda: is_over(runtime, first) and is_over(runtime, second))
        assert children(runtime, move)[0].state is OperationState.DONE
        assert write.id not in view.claims.values()

        def settings() -> VmSettings | None:
            config = view.vms[a].config
            return config.settings if config else None

        # Both writes hold: the second was asked for before the first was made.
        wanted = VmSettings(priority=Priority.HIGH, tags=("web",))
        await until(clock, lambda: settings() == wanted, 60)


async def test_a_shutdown_whose_event_is_lost_is_found_before_it_counts_as_ignored() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock) as runtime:
        Faults(world).lose_events("n1", 10)
        batch = runtime.request(ACTIONS["vm.shut_down"].plan(runtime.view, [make_id("a")]))[0]
        await until(clock, lambda: is_over(runtime, batch))
        assert children(runtime, batch)[0].state is OperationState.DONE
        assert runtime.view.vms[make_id("a")].status is VmStatus.OFF


class CountedJobs(SimHypervisor):
    """Hosts that count how often they are asked for jobs of others."""

    def __init__(self, world: SimWorld) -> None:
        super().__init__(world)
        self.asked: list[tuple[NodeId, tuple[VmId, ...]]] = []

    async def have_jobs(self, node: NodeId, vms: Sequence[VmId]) -> frozenset[VmId]:
        self.asked.append((node, tuple(vms)))
        return await super().have_jobs(node, vms)


async def test_jobs_of_others_are_asked_for_together_and_not_often() -> None:
    clock = VirtualClock()
    world = make_world(clock, vms={"n1": ("a", "b", "c"), "n2": ("d",)})
    faults, hosts = Faults(world), CountedJobs(world)
    async with muster(world, clock, hypervisor=hosts) as runtime:
        for name in "abcd":
            faults.backup_by_someone_else(name, 60.0 if name == "b" else None)
        await until(clock, lambda: len(runtime.view.foreign_jobs()) == 4, 60)
        hosts.asked.clear()
        await clock.advance(30)
        assert 5 <= sum(node == "n1" for node, _ in hosts.asked) <= 7
        assert all(set(vms) == {make_id(n) for n in "abc"} for node, vms in hosts.asked if node == "n1")
        faults.lose_events("n1", 100)
        await clock.advance(40)
        assert make_id("b") not in runtime.view.foreign_jobs()
        assert len(runtime.view.foreign_jobs()) == 3
        faults.kill_daemon("n1")
        await until(clock, lambda: not runtime.view.nodes[NodeId("n1")].is_up, 60)
        await clock.advance(6)
        assert set(runtime.view.foreign_jobs()) == {make_id("d")}


async def test_what_another_process_of_ours_works_on_is_left_to_it() -> None:
    clock = VirtualClock()
    world = make_world(clock, vm_memory_mib=32 * 1024)
    faults, hosts = Faults(world), CountedJobs(world)
    vm = make_id("a")
    async with muster(world, clock) as owner, muster(world, clock, hypervisor=hosts) as client:

        def report() -> None:
            told = tuple(owner.view.operations.values())
            client.dispatch(OperationsReported(at_s=clock.now_s(), operations=told))

        batch = migrate(owner, "a", "n2")
        await until(clock, lambda: vm in client.view.foreign_jobs(), 60)
        await clock.advance(1)
        report()
        await clock.advance(6)
        hosts.asked.clear()
        await clock.advance(30)
        assert vm in client.view.foreign_jobs()
        assert not is_over(owner, batch)
        assert hosts.asked == []
        faults.lose_events("n1", 1)  # the end of the job is not heard
        owner.cancel((batch,))
        await until(clock, lambda: is_over(owner, batch))
        report()
        await until(clock, lambda: vm not in client.view.foreign_jobs(), 60)


class WithPacemaker(SimHypervisor):
    """Hosts that answer whose the VMs are: at once, after a while, or not at all."""

    def __init__(self, world: SimWorld, clock: VirtualClock) -> None:
        super().__init__(world)
        self.clock = clock
        self.takes_s = 0.0
        self.names: frozenset[str] | None = frozenset()  # None: no Pacemaker
        self.asked = 0

    async def read_authority(self, node: NodeId) -> VmAuthoritySeen | None:
        if node != "n1":
            return None
        self.asked += 1
        await self.clock.sleep(min(self.takes_s, 6.0))
        if self.takes_s >= 6.0:
            raise OperationError(Failure(code=FailureCode.TIMEOUT, node=node))
        return VmAuthoritySeen(
            at_s=self.clock.now_s(),
            node=node,
            pacemaker=Pacemaker.NONE if self.names is None else Pacemaker.RUNS,
            names=self.names or frozenset(),
        )


async def test_no_vm_looks_like_ours_before_pacemaker_has_answered() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    hosts = WithPacemaker(world, clock)
    hosts.names, hosts.takes_s = frozenset({"a"}), 1.5
    seen: set[Authority] = set()
    async with muster(world, clock, hypervisor=hosts) as runtime:
        seen.add(runtime.view.vms[make_id("a")].authority)
        runtime.subscribe(lambda _: seen.add(runtime.view.vms[make_id("a")].authority))
        await clock.advance(5)
        assert 1.5 <= clock.monotonic_s() < 8
    assert seen == {Authority.PACEMAKER}


async def test_a_host_that_does_not_answer_holds_nothing_up_and_is_heard_later() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    hosts = WithPacemaker(world, clock)
    hosts.names, hosts.takes_s = frozenset({"a"}), 60.0
    begun_s = clock.now_s()
    async with muster(world, clock, hypervisor=hosts) as runtime:  # a command waits for the answer
        told = {line.text: line.at_s - begun_s for line in runtime.view.story(NodeId("n1"))}
        assert told["up: inventory read"] < 2.5  # and a window shows the VMs, which nobody touches yet
        assert told["Pacemaker: asked"] < 2.5
        assert 6.0 <= told["Pacemaker: none"] < 6.5
        assert runtime.view.vms[make_id("a")].authority is Authority.MUSTER
        assert runtime.view.nodes[NodeId("n1")].information is None
        await clock.advance(10)
        hosts.takes_s = 0.0
        runtime.read_again(NodeId("n1"))
        await clock.advance(1)
        assert runtime.view.vms[make_id("a")].authority is Authority.PACEMAKER
        hosts.takes_s = 60.0  # what it said holds while it does not answer
        runtime.read_again(NodeId("n1"))
        await clock.advance(10)
        assert runtime.view.vms[make_id("a")].authority is Authority.PACEMAKER


async def test_a_late_answer_is_waited_for_with_hands_off() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    hosts = WithPacemaker(world, clock)
    hosts.names, hosts.takes_s = frozenset(), 4.0
    async with muster(world, clock, hypervisor=hosts) as runtime:
        told = [line.text for line in runtime.view.story(NodeId("n1")) if "Pacemaker" in line.text]
        assert told == ["Pacemaker: asked", "Pacemaker: runs"]
        assert runtime.view.vms[make_id("a")].authority is Authority.MUSTER


async def test_a_connection_lost_while_it_is_asked_leaves_nobody_waiting() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    hosts = WithPacemaker(world, clock)
    hosts.takes_s = 5.0
    faults = Faults(world)
    runtime = Runtime(
        config=config_of(world), hypervisor=hosts, journal=MemoryJournal(), clock=clock, author="tester"
    )
    await runtime.start()
    try:
        await until(clock, lambda: runtime.view.nodes[NodeId("n1")].pacemaker is Pacemaker.ASKED, 10)
        listed = asyncio.ensure_future(runtime.listed())
        await clock.settle()
        assert not listed.done()
        hosts.names = None
        faults.kill_daemon("n1")
        await until(clock, listed.done, 2)
        faults.repair("n1")
        hosts.takes_s = 0.0
        await until(clock, lambda: runtime.view.nodes[NodeId("n1")].pacemaker is Pacemaker.NONE, 60)
        assert runtime.view.vms[make_id("a")].authority is Authority.MUSTER
    finally:
        await runtime.close()


async def test_a_burst_of_events_leaves_the_loop_to_others() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock) as runtime:
        vm = world.nodes[NodeId("n1")].vms[make_id("a")]
        seen: list[int] = []
        taken = 0

        def count(_: object) -> None:
            nonlocal taken
            taken += 1

        runtime.subscribe(count)
        for status in (VmStatus.PAUSED, VmStatus.RUNNING) * 100:
            world.set_state(vm, status, StatusCause.USER)
        while taken < 200:
            await asyncio.sleep(0)
            seen.append(taken)
        steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
        assert max(steps) <= runtime_module.EVENTS_AT_ONCE, steps


async def test_what_pacemaker_takes_and_gives_back_is_noticed_within_its_interval() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    hosts = WithPacemaker(world, clock)
    async with muster(world, clock, hypervisor=hosts) as runtime:

        def authority() -> Authority:
            return runtime.view.vms[make_id("a")].authority

        assert authority() is Authority.MUSTER
        hosts.names = frozenset({"a"})
        await clock.advance(ASK_OFTEN_S + 1)
        assert authority() is Authority.PACEMAKER
        hosts.names = frozenset()
        await clock.advance(ASK_OFTEN_S + 1)
        assert authority() is Authority.MUSTER
        assert hosts.asked == 3
        hosts.names = None
        await clock.advance(ASK_OFTEN_S + 1)
        assert runtime.view.nodes[NodeId("n1")].information is None
        await clock.advance(ASK_SELDOM_S - 10)
        assert hosts.asked == 4  # without Pacemaker it is asked less often
        hosts.names = frozenset({"a"})
        await clock.advance(10)
        assert authority() is Authority.PACEMAKER


# --- what happens --------------------------------------------------------------------------------


async def test_what_happened_is_written_down_soon_and_known_to_the_next_run() -> None:
    clock = VirtualClock()
    world = make_world(clock)
    journal = KeptJournal()
    async with muster(world, clock, journal) as runtime:
        told = tuple(runtime.view.events.values())
        assert told
        assert await runtime.stored()
        assert await journal.happened(0.0, 1000) == told
    passing = asyncio.ensure_future(clock.sleep(1.0))
    await until(clock, passing.done)
    async with muster(world, clock, journal) as again:
        mine = set(again.view.events)
        assert not mine & {event.id for event in told}
        again.recall()
        again.recall()
        await until(clock, lambda: set(again.view.events) > mine)
        assert tuple(again.view.events.values())[: len(told)] == told


async def test_what_a_full_journal_refuses_is_written_down_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime_module, "RECORD_AGAIN_S", 0.05)
    monkeypatch.setattr(runtime_module, "RECORD_INTERVAL_S", 0.01)
    clock = VirtualClock()
    journal = KeptJournal()
    journal.deaf = True
    async with muster(make_world(clock), clock, journal) as runtime:
        told = tuple(runtime.view.events.values())
        async with asyncio.timeout(10):
            while "cannot be written down" not in caplog.text:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert caplog.text.count("cannot be written down") == 1
        assert await runtime.stored()  # no operation waits for it
        journal.deaf = False
        async with asyncio.timeout(10):
            while await journal.happened(0.0, 1000) != told:
                await asyncio.sleep(0.01)


async def test_a_burst_of_events_neither_reads_the_node_nor_wakes_its_session_for_each() -> None:
    clock = VirtualClock()
    world = make_world(clock, ("n1",), {"n1": ("a",)})
    reads: list[float] = []

    class Counted(SimHypervisor):
        async def read_inventory(self, node: NodeId) -> NodeInventoryRead:
            reads.append(clock.monotonic_s())
            return await super().read_inventory(node)

    async with muster(world, clock, hypervisor=Counted(world)) as runtime:
        await clock.advance(10)
        reads.clear()
        session = runtime._sessions[NodeId("n1")]
        waits: list[float] = []
        wait = session._wait

        async def counted(wanted: asyncio.Event, seconds: float) -> None:
            waits.append(seconds)
            await wait(wanted, seconds)

        session._wait = counted  # type: ignore[method-assign]
        vm, states = world.nodes[NodeId("n1")].vms[make_id("a")], (VmStatus.PAUSED, VmStatus.RUNNING)
        for change in range(500):
            world.set_state(vm, states[change % 2], StatusCause.USER)
            await clock.advance(0.02)
        lasted_s = 500 * 0.02
        assert 2 <= len(reads) <= lasted_s / CONFIRM_S + 2
        assert len(waits) <= 2 * len(reads)
        last_s = clock.monotonic_s()
        world.set_state(vm, VmStatus.PAUSED, StatusCause.USER)
        await clock.advance(2 * CONFIRM_S)
        assert reads[-1] > last_s  # what was told last is confirmed too
        assert runtime.view.vms[vm.id].status is VmStatus.PAUSED
        reads.clear()
        await clock.advance(60)
        assert not reads

"""Whatever is asked of a simulated cluster and goes wrong in it: it stays possible, and comes to rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from manager.backends.sim.hosts import Guest, Pool
from manager.backends.sim.world import SimWorld
from manager.core.effects import VmChange
from manager.core.errors import FailureCode, OperationError
from manager.core.model import Convergence
from tests.support.sim import SmallCluster, make_id, small_cluster

NODES = ("n1", "n2", "n3")
NAMES = ("a", "b", "c")

TUNINGS: tuple[dict[str, Any], ...] = ({"pause_ms": 2000}, {"post_copy": True}, {"bandwidth_mib_s": 0})
CALLS = ("migrate", "save_to_file", "restore_from_file", "copy_disks", "change_vm")

TROUBLES = ("power", "freeze", "address")

names, nodes = st.sampled_from(NAMES), st.sampled_from(NODES)
after = st.one_of(st.none(), st.floats(0.1, 5))
turns = st.integers(1, 2)  # to the next node, or the one after
moves = st.tuples(st.just("move"), names, turns, st.booleans(), st.booleans())
quick = st.tuples(st.just("quick"), names, turns)
steps = st.lists(
    st.one_of(
        moves,
        quick,
        moves,
        quick,
        moves,
        st.tuples(st.just("wait"), st.floats(0.0, 10.0)),
        st.tuples(st.just("wait"), st.floats(20.0, 200.0)),
        st.tuples(st.just("tune"), st.sampled_from(TUNINGS)),
        st.tuples(st.just("tune"), st.sampled_from(TUNINGS)),
        st.tuples(st.just("abort"), names),
        st.tuples(st.just("change"), names, st.sampled_from(list(VmChange))),
        st.tuples(st.just("copy_disks"), names, st.sampled_from(("fast", "vms"))),
        st.tuples(st.just("backup"), names),
        st.tuples(st.just("trouble"), nodes, st.sampled_from(TROUBLES), st.floats(0.0, 12.0)),
        st.tuples(st.just("fail_call"), st.sampled_from(CALLS), after),
        st.tuples(st.just("fail_move"), names),
        st.tuples(st.just("crash"), names),
    ),
    min_size=5,
    max_size=25,
)


async def _outcome(call: Coroutine[Any, Any, Any]) -> OperationError | None:
    try:
        await call
    except OperationError as error:
        return error
    return None


class Played:
    """One history."""

    def __init__(self, sim: SmallCluster) -> None:
        self.sim = sim
        self.calls: list[asyncio.Task[OperationError | None]] = []

    def _where(self, name: str) -> str:
        copies = list(self.sim.world.copies(make_id(name)))
        return max(copies, key=lambda copy: copy.runs).node.id if copies else "n1"

    def _other(self, name: str, turn: int) -> str:
        return NODES[(NODES.index(self._where(name)) + turn) % len(NODES)]

    def _ask(self, call: Callable[[], Any]) -> None:
        self.calls.append(self.sim.begin(_outcome(call())))

    async def step(self, what: str, *args: Any) -> None:
        sim, port, faults = self.sim, self.sim.hypervisor, self.sim.faults
        match (what, *args):
            case ("wait", seconds):
                await sim.clock.advance(seconds)
            case ("trouble", node, kind, seconds):
                match kind:
                    case "power":
                        faults.power_off(node, told=True)
                    case "freeze":
                        faults.freeze(node)
                    case _:
                        faults.kill_address(node, "")
                await sim.clock.advance(seconds)
                await self._repair(node)
            case ("fail_call", call, after_s):
                faults.fail_call(call, FailureCode.STORAGE, after_s=after_s)
            case ("fail_move", name):
                faults.fail_move(nth=1)
            case ("tune", fields):
                for move in sim.world.moves.running:
                    self._ask(
                        partial(port.tune, sim.tune(move.source.name, node=move.source.node.id, **fields))
                    )
            case (_, name, *_) if not list(sim.world.copies(make_id(name))):
                return  # forgotten everywhere
            case ("move", name, turn, slow, disks):
                node = self._other(name, turn)
                fields: dict[str, Any] = {"bandwidth_mib_s": 50 if slow else 0}
                fields["convergence"] = Convergence(post_copy=True)
                if disks:
                    fields |= {"copy_disks": ("vda",), "pool": "fast"}
                effect = sim.move(name, to=node, **fields)
                self._ask(lambda: port.migrate(effect))
            case ("abort", name):
                self._ask(lambda: port.abort(sim.abort(name, node=self._where(name))))
            case ("change", name, change):
                self._ask(lambda: port.change_vm(sim.change(name, change)))
            case ("quick", name, turn):
                source, node = self._where(name), self._other(name, turn)
                self._ask(lambda: self._move_quickly(name, source, node))
            case ("copy_disks", name, pool):
                self._ask(lambda: port.copy_disks(sim.copy_disks(name, pool)))
            case ("backup", name):
                try:
                    faults.backup_by_someone_else(name, 15)
                except OperationError:
                    return
            case ("crash", name):
                if sim.vm(name).runs:
                    faults.crash(name)
        await sim.clock.advance(0.7)

    async def _move_quickly(self, name: str, source: str, target: str) -> None:
        """As the core does it, but for what it does when something goes wrong."""
        sim, port, path = self.sim, self.sim.hypervisor, f"/srv/vms/{name}.save"
        await port.save_to_file(sim.save(name, path))
        await port.copy_definition(sim.define(name, target, node=source))
        await port.restore_from_file(sim.restore(name, target, path))
        await port.forget_definition(sim.forget(name, source))

    async def _repair(self, node: str) -> None:
        self.sim.faults.repair_address(node, "")
        host = next(host for host in self.sim.world.nodes.values() if host.id == node)
        if host.reach.value == "refuses":
            self.sim.faults.power_on(node)
        else:
            self.sim.faults.repair(node)
        config = self.sim.config.node(host.id)
        await self.sim.run(self.sim.hypervisor.connect(config))


def _check(world: SimWorld) -> None:
    """What holds at every moment."""
    for node in world.nodes.values():
        assert node.free_mib() >= 0
        assert all(pool.free_bytes >= 0 for pool in node.pools.values())
        for vm in node.vms.values():
            assert vm.node is node
            assert (vm.incarnation is not None) == vm.runs
            assert vm.job is None or vm.job.move is not None or vm.runs
            assert vm.disk_job is None or vm.runs
    assert all(moment.prevented for moment in world.twice), world.twice
    for move in world.moves.running:
        assert 0 <= move.left <= move.total + 1
        assert move.throttle_percent <= 80


@settings(max_examples=300, deadline=None)
@given(steps)
async def test_it_stays_a_possible_world_and_comes_to_rest(history: list[tuple[Any, ...]]) -> None:
    guest = Guest(dirty_mib_s=200, working_set=0.2, disk_filled=0.05)
    async with small_cluster(vms={"n1": ("a", "b"), "n2": ("c",)}, guest=guest) as sim:
        for node in sim.world.nodes.values():
            node.pools["fast"] = Pool("/srv/fast", free_bytes=3e9)
        played = Played(sim)
        for step in history:
            await played.step(*step)
            _check(sim.world)
        sim.faults.unlock_images()  # nothing of what still comes may need the locks
        before = len(sim.world.twice)
        for name in NODES:
            await played._repair(name)
        for name in NAMES:
            if list(sim.world.copies(make_id(name))):
                await played.step("abort", name)
        await sim.clock.advance(4000)
        _check(sim.world)
        assert len(sim.world.twice) == before
        assert all(call.done() for call in played.calls)
        await asyncio.gather(*played.calls)
        assert not sim.world.moves.running
        left = [job for host in sim.world.nodes.values() for vm in host.vms.values() for job in vm.jobs]
        assert all(job.unattended for job in left), [job.kind for job in left]
        assert sim.world.streams.flowing == 0

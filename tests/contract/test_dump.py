"""A dump of a cluster, opened again: what is shown and planned is the same, and nothing can be done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.backends.dump.hypervisor import DumpHypervisor
from manager.backends.dump.vault import DumpVault
from manager.backends.sim.demo import demo_cluster
from manager.backends.sim.faults import Faults
from manager.backends.sim.hypervisor import SimHypervisor
from manager.core.actions import ACTIONS, MigrateParameters
from manager.core.dump import ClusterDump, dump_of
from manager.core.errors import UserError
from manager.core.ids import Kind, NodeId
from manager.core.model import ClusterConfig, NodeStatus, Tier, VmStatus
from manager.core.query.fields import FIELDS
from manager.services.clock import RealClock
from manager.services.memory_journal import MemoryJournal
from manager.services.ports import Hypervisor, Vault
from manager.services.runtime import Runtime
from manager.store.dumps import read_dump

PASSES = {"since", "uptime_s", "last_seen"}  # seconds pass between the two looks


@asynccontextmanager
async def opened(
    config: ClusterConfig, hypervisor: Hypervisor, now_s: float | None = None, vault: Vault | None = None
) -> AsyncIterator[Runtime]:
    runtime = Runtime(
        config=config,
        hypervisor=hypervisor,
        journal=MemoryJournal(),
        clock=RealClock(now_s),
        author="tester",
        vault=vault,
    )
    await runtime.start()
    try:
        async with asyncio.timeout(20):
            await runtime.settled()
            await runtime.resources.read_all()
            yield runtime
    finally:
        await runtime.close()


async def dumped(lost: str = "") -> tuple[Runtime, ClusterDump]:
    """The demo cluster, closed already, and its dump as a file has it. `lost`: a node that was gone then."""
    config, world = demo_cluster(4, 40, clock=RealClock())
    async with opened(config, SimHypervisor(world)) as runtime:
        for node in [n for n in runtime.view.nodes if n != lost]:
            runtime.dispatch(await runtime.hypervisor.sample(node))
        if lost:
            Faults(world).kill_daemon(lost)
            async with asyncio.timeout(20):
                while runtime.view.nodes[NodeId(lost)].is_up:
                    await asyncio.sleep(0.01)
        data = msgspec.json.encode(dump_of(runtime.view, runtime.clock.now_s()))
    return runtime, msgspec.json.decode(data, type=ClusterDump)


@asynccontextmanager
async def opened_again(dump: ClusterDump) -> AsyncIterator[Runtime]:
    hypervisor = DumpHypervisor(dump, RealClock(dump.made_s))
    async with opened(dump.cluster, hypervisor, dump.made_s, DumpVault(dump)) as runtime:
        yield runtime


def cells(runtime: Runtime, kind: Kind) -> dict[str, dict[str, str]]:
    """All fields of all rows that do not depend on the time of the look."""
    view = runtime.view
    rows = {Kind.VM: view.vms, Kind.NODE: view.nodes, Kind.POOL: view.resources.pools}[kind]
    return {
        str(key): {name: field.cell(view, row) for name, field in FIELDS[kind].items() if name not in PASSES}
        for key, row in rows.items()
    }


async def test_all_fields_of_all_rows_are_the_same() -> None:
    before, dump = await dumped()
    assert dump.config.tier is Tier.DEMO
    async with opened_again(dump) as after:
        assert after.view.config.tier is Tier.DUMP
        for node in after.view.nodes:
            after.dispatch(await after.hypervisor.sample(node))
        for kind in (Kind.VM, Kind.NODE, Kind.POOL):
            assert cells(after, kind) == cells(before, kind)


async def test_a_node_that_was_lost_is_lost_and_its_vms_are_unknown() -> None:
    before, dump = await dumped(lost="oslo-02")
    lost = NodeId("oslo-02")
    running = {vm.id for vm in before.view.vms.values() if vm.owner == lost and vm.was is VmStatus.RUNNING}
    assert running
    async with opened_again(dump) as after:
        while after.view.nodes[lost].is_up:
            await asyncio.sleep(0.01)
        assert after.view.nodes[lost].status is not NodeStatus.UP
        assert {
            vm.id for vm in after.view.vms.values() if vm.owner == lost and vm.was is VmStatus.RUNNING
        } == running
        assert all(after.view.vms[vm].config is not None for vm in running)
        assert cells(after, Kind.POOL).keys() == cells(before, Kind.POOL).keys()


async def test_plans_are_the_same_and_nothing_is_carried_out() -> None:
    before, dump = await dumped()
    async with opened_again(dump) as after:
        live = ACTIONS["vm.live_migrate"]
        ids = [vm.id for vm in before.view.vms.values() if vm.owner == NodeId("oslo-01")]
        plan = live.plan(after.view, ids, MigrateParameters())
        there = live.plan(before.view, ids, MigrateParameters())
        assert plan.steps
        assert [(s.vm, s.target) for s in plan.steps] == [(s.vm, s.target) for s in there.steps]
        with pytest.raises(UserError, match="this is a dump"):
            after.request(plan)
        assert not after.view.operations


def test_a_file_that_is_no_dump_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "dump.json"
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_dump(file)
    for text, said in (
        ("", "no dump of a cluster"),
        ("[]", "no dump of a cluster"),
        ('{"format": 1}', "missing required field"),
        ('{"format": 99, "made_s": "soon"}', "made by a newer Muster"),
        ('{"format":1,"made_s":1,"config":{"name":"a","nodes":7},"nodes":[]}', r"\$.config.nodes"),
        ("[" * 100_000, "no dump of a cluster"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            read_dump(file)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_file_makes_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("dump") / "file"
    file.write_bytes(data)
    with pytest.raises(UserError):
        read_dump(file)

"""The vault beside a running cluster: what is kept, when, and what is recoverable elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from manager.backends.sim.faults import Faults
from manager.backends.sim.hosts import Guest
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.virtual_clock import VirtualClock
from manager.backends.sim.world import SimWorld
from manager.core.actions import ACTIONS, MigrateParameters
from manager.core.ids import NodeId, VmId
from manager.core.model import VmStatus
from manager.core.query.vm_fields import VM_FIELDS
from manager.core.vault import DAY_S, KeptDefinition
from manager.services.memory_journal import MemoryJournal
from manager.services.runtime import Runtime
from manager.store.vault import SqliteVault
from tests.support.sim import config_of, make_config, make_id, make_world

A, B = make_id("a"), make_id("b")
RECOVERABLE = next(field for field in VM_FIELDS if field.name == "recoverable")


class Full(SqliteVault):
    """A vault on a disk that can be full."""

    full = False

    async def keep(self, found: Sequence[tuple[KeptDefinition, str]]) -> tuple[KeptDefinition, ...]:
        if self.full:
            raise OSError(28, "No space left on device")
        return await super().keep(found)


class Counting(SimHypervisor):
    """Counts what is read for the vault."""

    reads: list[VmId]

    async def read_definition(self, node: NodeId, vm: VmId, *, stored: bool = False) -> str:
        assert stored
        self.reads.append(vm)
        return await super().read_definition(node, vm, stored=stored)


@asynccontextmanager
async def muster(world: SimWorld, clock: VirtualClock, vault: SqliteVault) -> AsyncIterator[Runtime]:
    """A run of the program with a vault; both are gone at the end."""
    hypervisor = Counting(world)
    hypervisor.reads = []
    runtime = Runtime(
        config=config_of(world),
        hypervisor=hypervisor,
        journal=MemoryJournal(),
        clock=clock,
        author="tester",
        vault=vault,
    )
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.close()


async def pass_by(clock: VirtualClock, seconds: float) -> None:
    """Let virtual time pass, and the vault's thread answer meanwhile."""
    for _ in range(10):
        await clock.advance(seconds / 10)
        await asyncio.sleep(0.01)


def cell(runtime: Runtime, vm: VmId) -> str:
    return RECOVERABLE.cell(runtime.view, runtime.view.vms[vm])


def reads(runtime: Runtime) -> list[VmId]:
    assert isinstance(runtime.hypervisor, Counting)
    return runtime.hypervisor.reads


async def test_every_definition_is_kept_and_read_once(tmp_path: Path) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock, SqliteVault(tmp_path / "v")) as runtime:
        await pass_by(clock, 1)
        assert cell(runtime, A) == "no: its definition was not kept yet"
        await pass_by(clock, 20)
        assert sorted(reads(runtime)) == sorted([A, B])
        assert {vm: (k.number, k.node, k.name) for vm, k in runtime.view.kept.items()} == {
            A: (1, "n1", "a"),
            B: (1, "n1", "b"),
        }
        assert cell(runtime, A) == "yes"
        assert runtime.definitions is not None
        assert "<name>a</name>" in await runtime.definitions.text(A, 1)
    async with muster(world, clock, SqliteVault(tmp_path / "v")) as runtime:
        await pass_by(clock, 1)
        assert cell(runtime, A) == "yes"  # as the run before left it
        await pass_by(clock, 60)
        assert reads(runtime) == []


async def test_a_change_makes_a_version_and_a_move_none(tmp_path: Path) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    async with muster(world, clock, SqliteVault(tmp_path / "v")) as runtime:
        await pass_by(clock, 20)
        node = world.nodes[NodeId("n1")]
        world.redefine(node.vms[A], replace(node.vms[A].config, title="new"))
        await pass_by(clock, 20)
        assert [v.number for v in await runtime.definitions.versions(A)] == [2, 1]  # type: ignore[union-attr]
        plan = ACTIONS["vm.live_migrate"].plan(runtime.view, [B], MigrateParameters(target=NodeId("n2")))
        runtime.request(plan)
        await pass_by(clock, 200)
        assert runtime.view.vms[B].owner == "n2"
        assert runtime.view.kept[B].node == "n2"
        assert runtime.view.kept[B].number == 1


async def test_what_is_kept_outlives_its_node(tmp_path: Path) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    faults = Faults(world)
    async with muster(world, clock, SqliteVault(tmp_path / "v")) as runtime:
        await pass_by(clock, 20)
        faults.freeze("n1")
        await pass_by(clock, 60)
        assert not runtime.view.nodes[NodeId("n1")].is_up
        assert cell(runtime, A) == "yes"
        await pass_by(clock, 2 * DAY_S)
        assert cell(runtime, A) == "yes"  # nothing changed before it was lost
    async with muster(world, clock, SqliteVault(tmp_path / "v")) as runtime:
        await pass_by(clock, 30)
        assert A not in runtime.view.vms
        assert runtime.view.kept[A].name == "a"


async def test_what_ties_a_vm_to_its_node_is_said(tmp_path: Path) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    config = make_config("c", nvram="/var/lib/nvram/c.fd", host_devices=("PCI 0000:03:00.0",))
    local = replace(config.disks[0], source="/var/tmp/c.qcow2")
    world.add_vm(world.nodes[NodeId("n1")], make_id("c"), "c", replace(config, disks=(local,)), Guest())
    transient = replace(make_config("d"), persistent=False)
    world.add_vm(world.nodes[NodeId("n1")], make_id("d"), "d", transient, Guest(), status=VmStatus.RUNNING)
    async with muster(world, clock, SqliteVault(tmp_path / "v")) as runtime:
        await pass_by(clock, 20)
        assert cell(runtime, make_id("c")) == (
            "no: uses a device of its host: PCI 0000:03:00.0; disk vda (/var/tmp/c.qcow2) is not on storage "
            "shared by the nodes; the file with its UEFI variables (/var/lib/nvram/c.fd) is on n1 only"
        )
        assert cell(runtime, make_id("d")) == "no: its node stores no definition of it"
        assert make_id("d") not in reads(runtime)


async def test_a_full_disk_loses_nothing_for_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    vault = Full(tmp_path / "v")
    vault.full = True
    async with muster(world, clock, vault) as runtime:
        await pass_by(clock, 200)
        assert runtime.view.kept == {}
        assert caplog.text.count("definitions cannot be kept") == 1
        vault.full = False
        await pass_by(clock, 300)
        assert set(runtime.view.kept) == {A, B}


async def test_a_vault_that_cannot_be_read_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()
    world = make_world(clock)
    (tmp_path / "file").write_text("")
    async with muster(world, clock, SqliteVault(tmp_path / "file" / "v")) as runtime:
        await pass_by(clock, 20)
        assert runtime.view.vms[A].status is VmStatus.RUNNING
        assert "kept definitions cannot be read" in caplog.text
        assert cell(runtime, A) == "no: its definition was not kept yet"

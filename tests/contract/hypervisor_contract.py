"""What every Hypervisor must do, whichever world is behind it. Backends are tested by what they share here.

A module binds it by a fixture `there` that gives a connected `There`, and a class of its own:

    class TestSimulator(HypervisorContract): ...

What a connection cannot do (`NodeFacts.features`) must be refused with its reason; that too is tested here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from manager.core.edits import Describe, Edit, SetAutostart, SetBootOrder, SetMemory, SetVcpus, pending
from manager.core.effects import (
    AbortMigration,
    ChangeVm,
    CheckPeerLogin,
    CopyDefinition,
    CopyDisks,
    EditVm,
    ForgetDefinition,
    RestoreFromFile,
    SaveToFile,
    StartMigration,
    TuneMigration,
    VmChange,
    WriteVmSettings,
)
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    MigrationProgress,
    MigrationRouted,
    NodeLost,
    SeenVm,
    VmDefinitionChanged,
    VmStateChanged,
    VmUndefined,
)
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.model import (
    AgentState,
    ClusterConfig,
    Convergence,
    Disk,
    NodeFacts,
    PeerRoute,
    Priority,
    SnapshotParameters,
    StatusCause,
    VmConfig,
    VmSettings,
    VmStatus,
)
from manager.core.placement.planner import saved_path
from manager.core.resource_facts import PoolState
from manager.services.ports import Console, Feature, Hypervisor

T = TypeVar("T")

NOBODY = VmId("00000000-0000-4000-8000-00000000dead")
SLOW_MIB_S = 10
"""Slow enough that a move of a small guest is seen under way."""
OPERATION = OperationId("contract-1")
POOL = "default"
"""A pool of this name is on both nodes: a folder of each node's own, with no images of these VMs at first."""


@dataclass(kw_only=True)
class There:
    """A hypervisor connected to a world of its own: two nodes, and two running VMs on the first one."""

    hypervisor: Hypervisor
    config: ClusterConfig
    facts: dict[NodeId, NodeFacts]
    vms: tuple[VmId, VmId]
    seen: list[Event] = field(default_factory=list)  # every event since, kept by the fixture
    has_consoles: bool = True

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of a call, however time passes here."""
        return await call

    def begin(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A call that goes on while the test does something else."""
        return asyncio.get_running_loop().create_task(call)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until the condition holds; fails if that takes too long."""
        raise NotImplementedError

    async def rest(self, vm: VmId) -> None:
        """Let the guest of a running VM boot, where there is one: only then does it obey."""

    def addresses(self) -> tuple[str, str]:
        """Two addresses of the other node: one that nobody reaches, and one that carries a move."""
        raise NotImplementedError

    # --- what the tests share ---

    @property
    def home(self) -> NodeId:
        """The node that has the VMs."""
        return self.config.nodes[0].name

    @property
    def away(self) -> NodeId:
        """Another node."""
        return self.config.nodes[1].name

    def can(self, feature: Feature) -> bool:
        """Whether the first node has a feature."""
        return feature in self.facts[self.home].features

    async def failure(self, call: Coroutine[Any, Any, Any]) -> Failure:
        """The failure of a call that must fail."""
        with pytest.raises(OperationError) as caught:
            await self.run(call)
        return caught.value.failure

    async def change(self, vm: VmId, change: VmChange, node: NodeId | None = None) -> None:
        """Make a change."""
        await self.run(self.hypervisor.change_vm(self.changing(vm, change, node)))

    def changing(self, vm: VmId, change: VmChange, node: NodeId | None = None) -> ChangeVm:
        """The effect of a change."""
        return ChangeVm(
            trace=TraceId("t"),
            operation=OPERATION,
            attempt=1,
            vm=vm,
            node=node or self.home,
            change=change,
        )

    def move(self, vm: VmId, **fields: Any) -> StartMigration:
        """The effect of a move to the other node."""
        values: dict[str, Any] = {
            "trace": TraceId("t"),
            "operation": OPERATION,
            "attempt": 1,
            "vm": vm,
            "node": self.home,
            "target": self.away,
            "route": PeerRoute.NODE_TO_NODE,
            "bandwidth_mib_s": 0,
            "unsafe": True,
            "convergence": Convergence(),
            "autostart": False,
        }
        return StartMigration(**(values | fields))

    def aborting(self, vm: VmId) -> AbortMigration:
        """The effect of a cancel."""
        return AbortMigration(trace=TraceId("t"), operation=OPERATION, attempt=1, vm=vm, node=self.home)

    def checking(self, vm: VmId, target: NodeId) -> CheckPeerLogin:
        """The effect of a check of the login."""
        return CheckPeerLogin(
            trace=TraceId("t"), operation=OPERATION, attempt=1, vm=vm, node=self.home, target=target
        )

    def writing(self, vm: VmId, settings: VmSettings) -> WriteVmSettings:
        """The effect of a write of settings."""
        return WriteVmSettings(
            trace=TraceId("t"), operation=OPERATION, attempt=1, vm=vm, node=self.home, settings=settings
        )

    async def edit(self, vm: VmId, edit: Edit) -> VmConfig:
        """Change a definition of the first node; returns it as it is read then."""
        await self.run(self.hypervisor.edit_vm(EditVm(**self.of(vm), edit=edit)))
        return (await self.run(self.hypervisor.read_vm(self.home, vm))).config

    def of(self, vm: VmId, node: NodeId | None = None) -> dict[str, Any]:
        """The fields of an effect that say whose it is."""
        return {
            "trace": TraceId("t"),
            "operation": OPERATION,
            "attempt": 1,
            "vm": vm,
            "node": node or self.home,
        }

    def path(self, vm: VmId) -> str:
        """Where a VM's memory goes on shared storage."""
        return saved_path(self.config, vm)

    async def save(self, vm: VmId) -> None:
        """Save a VM of the first node to a file."""
        await self.run(self.hypervisor.save_to_file(SaveToFile(**self.of(vm), path=self.path(vm))))

    def restoring(self, vm: VmId, node: NodeId | None = None, path: str = "") -> RestoreFromFile:
        """The effect that lets it run on."""
        return RestoreFromFile(**self.of(vm, node), path=path or self.path(vm))

    def defining(self, vm: VmId, node: NodeId | None = None, **fields: Any) -> CopyDefinition:
        """The effect that defines a VM of one node on the other one too."""
        source = node or self.home
        values: dict[str, Any] = {
            "target": self.away if source == self.home else self.home,
            "route": PeerRoute.NODE_TO_NODE,
            "autostart": False,
        }
        return CopyDefinition(**self.of(vm, source), **(values | fields))

    def forgetting(self, vm: VmId, node: NodeId | None = None) -> ForgetDefinition:
        """The effect that undefines it."""
        return ForgetDefinition(**self.of(vm, node))

    def copying(self, vm: VmId, pool: str = POOL) -> CopyDisks:
        """The effect that moves its disk to a pool of the first node."""
        return CopyDisks(**self.of(vm), pool=pool, disks=("vda",))

    def tuning(self, vm: VmId, **fields: Any) -> TuneMigration:
        """The effect that changes a running move."""
        return TuneMigration(**self.of(vm), **fields)

    async def disk(self, vm: VmId, node: NodeId | None = None) -> Disk:
        """A VM's disk, as it runs."""
        read = await self.run(self.hypervisor.read_vm(node or self.home, vm))
        return next(disk for disk in read.config.disks if disk.target == "vda")

    def routes(self) -> list[tuple[str, bool]]:
        """The ways that moves were told to be tried by."""
        return [(e.address, e.encrypted) for e in self.seen if isinstance(e, MigrationRouted)]

    async def until_copying(self, vm: VmId) -> None:
        """Wait until a move has sent something."""
        while True:
            seen = await self.run(self.hypervisor.job_progress(self.home, vm, OPERATION, 1))
            if seen is not None and seen.total_bytes and seen.iteration:
                return

    async def on_snapshot(self, vm: VmId, change: VmChange, name: str, description: str = "") -> None:
        """Take, delete or revert to a snapshot; that is told as a change of the definition."""
        self.seen.clear()
        wish = SnapshotParameters(name=name, description=description)
        await self.run(self.hypervisor.change_vm(replace(self.changing(vm, change), snapshot=wish)))
        await self.until(lambda: any(isinstance(event, VmDefinitionChanged) for event in self.seen))

    async def look(self, vm: VmId, node: NodeId | None = None) -> SeenVm | None:
        """A VM in a node's inventory."""
        read = await self.run(self.hypervisor.read_inventory(node or self.home))
        return next((seen for seen in read.vms if seen.vm == vm), None)

    async def status(self, vm: VmId, node: NodeId | None = None) -> VmStatus | None:
        """A VM's state in a node's inventory."""
        seen = await self.look(vm, node)
        return seen.status if seen else None

    def last_state(self, vm: VmId, node: NodeId | None = None) -> tuple[VmStatus, StatusCause] | None:
        """What the newest event of a VM's state said."""
        states = [
            (event.status, event.cause)
            for event in self.seen
            if isinstance(event, VmStateChanged)
            and event.vm == vm
            and event.node == (node or self.home)
            and not event.shutting_down
        ]
        return states[-1] if states else None

    async def until_told(self, vm: VmId, status: VmStatus, *causes: StatusCause) -> None:
        """Wait for the event that says so."""

        def is_told() -> bool:
            told = self.last_state(vm)
            return told is not None and told[0] is status and (not causes or told[1] in causes)

        await self.until(is_told)


class HypervisorContract:
    """The tests."""

    # --- connecting and reading ---

    async def test_a_host_says_what_it_is(self, there: There) -> None:
        facts = there.facts[there.home]
        assert facts.hostname
        assert facts.cpus >= 1
        assert facts.memory_mib >= 1
        assert facts.libvirt_version
        assert not facts.read_only
        assert facts.features <= set(Feature)

    async def test_connecting_again_replaces_the_connection(self, there: There) -> None:
        facts = await there.run(there.hypervisor.connect(there.config.nodes[0]))
        assert facts.hostname == there.facts[there.home].hostname
        assert (await there.run(there.hypervisor.read_inventory(there.home))).vms
        assert not [event for event in there.seen if isinstance(event, NodeLost)]

    async def test_a_node_that_is_not_connected_is_unreachable(self, there: There) -> None:
        await there.run(there.hypervisor.disconnect(there.home))
        failure = await there.failure(there.hypervisor.read_inventory(there.home))
        assert failure.code is FailureCode.UNREACHABLE
        assert failure.node == there.home

    async def test_an_inventory_has_all_vms(self, there: There) -> None:
        read = await there.run(there.hypervisor.read_inventory(there.home))
        assert read.node == there.home
        assert read.started_s <= read.at_s
        found = {seen.vm: seen for seen in read.vms}
        assert len(found) == len(read.vms)
        for vm in there.vms:
            assert found[vm].status is VmStatus.RUNNING
            assert found[vm].name
            assert found[vm].incarnation is not None
        assert len({found[vm].incarnation for vm in there.vms}) == 2

    async def test_a_definition_is_read(self, there: There) -> None:
        read = await there.run(there.hypervisor.read_vm(there.home, there.vms[0]))
        assert (read.node, read.vm) == (there.home, there.vms[0])
        assert read.config.memory_mib > 0
        assert read.config.vcpus > 0
        assert read.config.digest
        assert read.config.persistent
        assert not read.config.trouble
        assert read.config.agent_channel == (read.config.agent is not AgentState.ABSENT)
        again = await there.run(there.hypervisor.read_vm(there.home, there.vms[0]))
        assert again.config == read.config

    async def test_pools_and_networks_are_told_with_their_figures(self, there: There) -> None:
        for node in there.config.nodes:
            read = await there.run(there.hypervisor.read_resources(node.name))
            assert read.node == node.name
            assert read.pools is not None
            pool = next(pool for pool in read.pools if pool.name == POOL)
            assert (pool.kind, pool.state, pool.trouble) == ("dir", PoolState.ACTIVE, "")
            assert pool.target.startswith("/")
            assert pool.capacity_bytes
            assert pool.free_bytes is not None
            assert 0 <= pool.free_bytes <= pool.capacity_bytes
            assert len({pool.name for pool in read.pools}) == len(read.pools)
            for network in read.networks or ():
                assert network.name
                assert network.mode
                assert not network.trouble
            for interface in read.interfaces or ():
                assert interface.name
                assert interface.kind

    async def test_volumes_are_listed_with_fresh_figures_of_their_pool(self, there: There) -> None:
        read = await there.run(there.hypervisor.read_volumes(there.home, POOL))
        assert (read.node, read.pool.name, read.pool.state) == (there.home, POOL, PoolState.ACTIVE)
        assert read.pool.capacity_bytes
        assert len({volume.id for volume in read.volumes}) == len(read.volumes)
        for volume in read.volumes:
            assert volume.path.startswith(read.pool.target)
            assert volume.capacity_bytes is not None

    async def test_an_unknown_pool_has_no_volumes(self, there: There) -> None:
        failure = await there.failure(there.hypervisor.read_volumes(there.home, "nowhere"))
        assert (failure.code, failure.node) == (FailureCode.STORAGE, there.home)

    async def test_loads_are_figures_or_absent(self, there: There) -> None:
        for vm in there.vms:
            await there.run(there.hypervisor.read_vm(there.home, vm))
        first = await there.run(there.hypervisor.sample(there.home))
        assert first.load.cpu_percent is None
        if not there.can(Feature.LOAD_FIGURES):
            assert first.load.memory_free_mib is None
            assert not first.vms
            return
        assert first.load.memory_free_mib
        assert set(there.vms) <= set(first.vms)
        second = await there.run(there.hypervisor.sample(there.home))
        for percent in (second.load.cpu_percent, second.vms[there.vms[0]].cpu_percent):
            assert percent is None or 0 <= percent <= 100
        await there.run(there.hypervisor.sample(there.home, disks=True))
        last = await there.run(there.hypervisor.sample(there.home, disks=True))
        assert second.vms[there.vms[0]].disk_bytes_per_s is None
        vm = last.vms[there.vms[0]]
        for rate in (vm.disk_bytes_per_s, vm.net_bytes_per_s):
            assert rate is not None
            assert rate >= 0

    async def test_an_unknown_vm_is_not_found(self, there: There) -> None:
        calls = (
            there.hypervisor.read_vm(there.home, NOBODY),
            there.hypervisor.change_vm(there.changing(NOBODY, VmChange.START)),
            there.hypervisor.write_settings(there.writing(NOBODY, VmSettings())),
            there.hypervisor.edit_vm(EditVm(**there.of(NOBODY), edit=SetAutostart())),
        )
        for call in calls:
            failure = await there.failure(call)
            assert (failure.code, failure.node, failure.vm) == (FailureCode.NOT_FOUND, there.home, NOBODY)

    # --- changes of state ---

    async def test_pause_and_resume(self, there: There) -> None:
        vm = there.vms[0]
        await there.change(vm, VmChange.PAUSE)
        await there.until_told(vm, VmStatus.PAUSED, StatusCause.USER)
        assert await there.status(vm) is VmStatus.PAUSED
        failure = await there.failure(there.hypervisor.change_vm(there.changing(vm, VmChange.PAUSE)))
        assert failure.code is FailureCode.ALREADY
        await there.change(vm, VmChange.RESUME)
        await there.until_told(vm, VmStatus.RUNNING)
        assert await there.status(vm) is VmStatus.RUNNING
        failure = await there.failure(there.hypervisor.change_vm(there.changing(vm, VmChange.RESUME)))
        assert failure.code is FailureCode.ALREADY
        assert await there.status(there.vms[1]) is VmStatus.RUNNING

    async def test_turn_off_and_start(self, there: There) -> None:
        vm = there.vms[0]
        before = await there.look(vm)
        failure = await there.failure(there.hypervisor.change_vm(there.changing(vm, VmChange.START)))
        assert failure.code is FailureCode.ALREADY
        await there.change(vm, VmChange.TURN_OFF)
        await there.until_told(vm, VmStatus.OFF, StatusCause.TURNED_OFF)
        off = await there.look(vm)
        assert off is not None
        assert (off.status, off.incarnation) == (VmStatus.OFF, None)
        failure = await there.failure(there.hypervisor.change_vm(there.changing(vm, VmChange.TURN_OFF)))
        assert (failure.code, failure.node, failure.vm) == (FailureCode.ALREADY, there.home, vm)
        await there.change(vm, VmChange.START)
        await there.until_told(vm, VmStatus.RUNNING, StatusCause.BOOTED)
        after = await there.look(vm)
        assert before is not None
        assert after is not None
        assert after.status is VmStatus.RUNNING
        assert after.incarnation not in (None, before.incarnation)

    @pytest.mark.parametrize(
        "change", [VmChange.PAUSE, VmChange.RESUME, VmChange.RESTART, VmChange.RESET, VmChange.SAVE]
    )
    async def test_what_needs_a_running_vm_is_refused_when_it_is_off(
        self, there: There, change: VmChange
    ) -> None:
        vm = there.vms[0]
        await there.change(vm, VmChange.TURN_OFF)
        failure = await there.failure(there.hypervisor.change_vm(there.changing(vm, change)))
        assert failure.code is FailureCode.WRONG_STATE
        assert failure.text
        assert await there.status(vm) is VmStatus.OFF

    async def test_shut_down(self, there: There) -> None:
        vm = there.vms[0]
        await there.rest(vm)
        await there.change(vm, VmChange.SHUT_DOWN)
        await there.until_told(vm, VmStatus.OFF, StatusCause.SHUT_DOWN)
        assert await there.status(vm) is VmStatus.OFF
        failure = await there.failure(there.hypervisor.change_vm(there.changing(vm, VmChange.SHUT_DOWN)))
        assert failure.code is FailureCode.ALREADY

    async def test_restart_and_reset_keep_it_running(self, there: There) -> None:
        vm = there.vms[0]
        await there.change(vm, VmChange.RESET)
        assert await there.status(vm) is VmStatus.RUNNING
        await there.rest(vm)  # only a guest that has booted follows
        await there.change(vm, VmChange.RESTART)
        await there.rest(vm)
        assert await there.status(vm) is VmStatus.RUNNING

    async def test_save_and_start_again(self, there: There) -> None:
        vm = there.vms[0]
        await there.change(vm, VmChange.SAVE)
        await there.until_told(vm, VmStatus.SAVED)
        assert await there.status(vm) is VmStatus.SAVED
        failure = await there.failure(there.hypervisor.change_vm(there.changing(vm, VmChange.SAVE)))
        assert failure.code is FailureCode.ALREADY
        await there.change(vm, VmChange.START)
        await there.until_told(vm, VmStatus.RUNNING)
        assert await there.status(vm) is VmStatus.RUNNING

    async def test_a_saved_state_can_be_deleted(self, there: There) -> None:
        vm = there.vms[0]
        failure = await there.failure(
            there.hypervisor.change_vm(there.changing(vm, VmChange.DELETE_SAVED_STATE))
        )
        assert failure.code is FailureCode.ALREADY
        await there.change(vm, VmChange.SAVE)
        await there.until_told(vm, VmStatus.SAVED)
        await there.change(vm, VmChange.DELETE_SAVED_STATE)
        await there.until_told(vm, VmStatus.OFF)
        assert await there.status(vm) is VmStatus.OFF

    # --- settings ---

    async def test_settings_are_kept_with_the_vm(self, there: There) -> None:
        vm = there.vms[0]
        before = (await there.run(there.hypervisor.read_vm(there.home, vm))).config
        for settings in (
            VmSettings(priority=Priority.HIGH, tags=("web", "a <b> & \"c\" 'ü'"), drained_from=there.home),
            VmSettings(priority=Priority.NO_AUTO_START, tags=("db",)),
            VmSettings(),
        ):
            there.seen.clear()
            await there.run(there.hypervisor.write_settings(there.writing(vm, settings)))
            await there.until(lambda: any(isinstance(event, VmDefinitionChanged) for event in there.seen))
            config = (await there.run(there.hypervisor.read_vm(there.home, vm))).config
            assert config.settings == settings
            assert config.digest != before.digest
            assert (config.disks, config.memory_mib) == (before.disks, before.memory_mib)
        await there.change(vm, VmChange.TURN_OFF)
        stored = VmSettings(priority=Priority.LOW)
        await there.run(there.hypervisor.write_settings(there.writing(vm, stored)))
        await there.change(vm, VmChange.START)
        assert (await there.run(there.hypervisor.read_vm(there.home, vm))).config.settings == stored

    # --- definitions ---

    async def test_a_definition_is_changed_at_once_and_at_the_next_start(self, there: There) -> None:
        vm = there.vms[0]
        before = (await there.run(there.hypervisor.read_vm(there.home, vm))).config
        assert pending(before) == ()
        await there.rest(vm)  # a guest gives back what it has only when it has booted
        size = before.memory_mib
        less = await there.edit(vm, SetMemory(memory_mib=size - 8, maximum_mib=size))
        for _ in range(80):  # a real guest gives it back in its own time
            if less.memory_now_mib == size - 8:
                break
            await asyncio.sleep(0.25)
            less = (await there.run(there.hypervisor.read_vm(there.home, vm))).config
        assert (less.memory_mib, less.memory_now_mib, pending(less)) == (size, size - 8, ())
        more = await there.edit(vm, SetMemory(memory_mib=size + 32, maximum_mib=size + 64, live=False))
        assert more.memory_mib == size
        assert pending(more) == ("memory",)
        both = before.vcpus + 1
        await there.edit(vm, SetVcpus(vcpus=both, maximum=both + 1, live=False))
        await there.edit(vm, Describe(title="Shop", description="a <b>\nü & c"))
        config = await there.edit(vm, SetAutostart(autostart=True))
        assert (config.title, config.description, config.autostart) == ("Shop", "a <b>\nü & c", True)
        assert (config.vcpus, config.disks, config.interfaces) == (
            before.vcpus,
            before.disks,
            before.interfaces,
        )
        assert pending(config) == ("memory", "vCPUs")

        await there.change(vm, VmChange.TURN_OFF)
        config = await there.edit(vm, SetBootOrder(devices=(config.disks[0].target,)))
        assert config.boot == (config.disks[0].target,)
        assert config.stored is None
        await there.change(vm, VmChange.START)
        config = (await there.run(there.hypervisor.read_vm(there.home, vm))).config
        assert config.memory_mib == size + 64
        assert size + 32 <= config.memory_now_mib <= size + 64  # a guest that boots has yet to give it back
        assert (config.vcpus, config.most_vcpus) == (both, both + 1)
        assert pending(config) == ()
        assert config.settings == before.settings

        await there.change(vm, VmChange.TURN_OFF)
        await there.edit(vm, SetMemory(memory_mib=before.memory_now_mib, maximum_mib=size))
        await there.edit(vm, SetVcpus(vcpus=before.vcpus, maximum=before.most_vcpus, live=False))
        config = await there.edit(vm, Describe(title="", description=""))
        assert (config.title, config.description) == ("", "")
        config = await there.edit(vm, SetAutostart(autostart=False))
        assert not config.autostart
        assert (config.memory_mib, config.vcpus) == (size, before.vcpus)

    # --- a close look ---

    async def test_a_definition_as_text_is_of_this_vm(self, there: There) -> None:
        text = await there.run(there.hypervisor.read_definition(there.home, there.vms[0]))
        assert text.lstrip().startswith("<domain ")
        assert f"<uuid>{there.vms[0]}</uuid>" in text

    async def test_a_screen_is_a_picture_or_refused_with_its_reason(self, there: There) -> None:
        vm = there.vms[0]
        config = (await there.run(there.hypervisor.read_vm(there.home, vm))).config
        if config.graphics:
            picture = await there.run(there.hypervisor.screenshot(there.home, vm))
            assert picture.startswith(b"\x89PNG")
        else:
            failure = await there.failure(there.hypervisor.screenshot(there.home, vm))
            assert (failure.code, failure.vm) == (FailureCode.NOT_SUPPORTED, vm)
            assert "graphics" in failure.text
        await there.change(vm, VmChange.TURN_OFF)
        failure = await there.failure(there.hypervisor.screenshot(there.home, vm))
        assert failure.code is FailureCode.WRONG_STATE

    async def test_a_console_is_one_callers_alone(self, there: There) -> None:
        vm = there.vms[0]
        if not there.has_consoles:
            failure = await there.failure(there.hypervisor.open_console(there.home, vm))
            assert (failure.code, failure.vm) == (FailureCode.NOT_SUPPORTED, vm)
            return
        console = await there.run(there.hypervisor.open_console(there.home, vm))
        failure = await there.failure(there.hypervisor.open_console(there.home, vm))
        assert failure.text
        other = await there.run(there.hypervisor.open_console(there.home, vm, take_over=True))
        await self._end_of(there, console)
        assert console.why_ended
        await there.rest(vm)
        other.write(b"hello there\r")
        come = b""
        while b"hello there" not in come:
            part = await there.run(other.read())
            assert part, other.why_ended
            come += part
        other.close()
        other.close()
        other.write(b"for nobody")
        await self._end_of(there, other)
        again = await there.run(there.hypervisor.open_console(there.home, vm))
        await there.change(vm, VmChange.TURN_OFF)
        await self._end_of(there, again)
        failure = await there.failure(there.hypervisor.open_console(there.home, vm))
        assert failure.code is FailureCode.WRONG_STATE

    async def _end_of(self, there: There, console: Console) -> None:
        while await there.run(console.read()):
            pass
        assert console.why_ended

    async def test_ctrl_alt_del_needs_a_running_vm(self, there: There) -> None:
        vm = there.vms[0]
        await there.change(vm, VmChange.TURN_OFF)
        failure = await there.failure(there.hypervisor.change_vm(there.changing(vm, VmChange.CTRL_ALT_DEL)))
        assert failure.code is FailureCode.WRONG_STATE

    async def test_snapshots_are_taken_reverted_to_and_deleted(self, there: There) -> None:
        vm = there.vms[0]
        assert await there.run(there.hypervisor.read_snapshots(there.home, vm)) == ()
        await there.on_snapshot(vm, VmChange.SNAPSHOT_CREATE, "first", "before <it> & all")
        (first,) = await there.run(there.hypervisor.read_snapshots(there.home, vm))
        assert (first.name, first.description, first.parent) == ("first", "before <it> & all", "")
        assert first.is_current
        assert first.memory
        assert first.status is VmStatus.RUNNING
        assert first.created_s
        assert (await there.run(there.hypervisor.read_vm(there.home, vm))).config.snapshots == 1
        for change, name, code in (
            (VmChange.SNAPSHOT_CREATE, "first", FailureCode.CONFLICT),
            (VmChange.SNAPSHOT_DELETE, "none", FailureCode.NOT_FOUND),
            (VmChange.SNAPSHOT_REVERT, "none", FailureCode.NOT_FOUND),
        ):
            effect = replace(there.changing(vm, change), snapshot=SnapshotParameters(name=name))
            assert (await there.failure(there.hypervisor.change_vm(effect))).code is code
        await there.change(vm, VmChange.TURN_OFF)
        await there.on_snapshot(vm, VmChange.SNAPSHOT_CREATE, "off")
        found = await there.run(there.hypervisor.read_snapshots(there.home, vm))
        assert {s.name: (s.parent, s.memory, s.status, s.is_current) for s in found} == {
            "first": ("", True, VmStatus.RUNNING, False),
            "off": ("first", False, VmStatus.OFF, True),
        }
        await there.on_snapshot(vm, VmChange.SNAPSHOT_REVERT, "first")
        assert await there.status(vm) is VmStatus.RUNNING
        await there.on_snapshot(vm, VmChange.SNAPSHOT_DELETE, "off")
        await there.on_snapshot(vm, VmChange.SNAPSHOT_DELETE, "first")
        assert await there.run(there.hypervisor.read_snapshots(there.home, vm)) == ()
        assert (await there.run(there.hypervisor.read_vm(there.home, vm))).config.snapshots == 0

    # --- moving ---

    async def test_nothing_is_under_way_at_first(self, there: There) -> None:
        vm = there.vms[0]
        assert not await there.run(there.hypervisor.have_jobs(there.home, (vm,)))
        assert await there.run(there.hypervisor.have_jobs(there.home, there.vms)) == frozenset()
        assert await there.run(there.hypervisor.job_progress(there.home, vm, OPERATION, 1)) is None

    async def test_a_host_without_live_migration_refuses_it(self, there: There) -> None:
        if there.can(Feature.LIVE_MIGRATION):
            return
        for call in (
            there.hypervisor.migrate(there.move(there.vms[0])),
            there.hypervisor.check_peer(there.checking(there.vms[0], there.away)),
        ):
            failure = await there.failure(call)
            assert failure.code is FailureCode.NOT_SUPPORTED
            assert failure.text
        assert await there.status(there.vms[0]) is VmStatus.RUNNING

    async def test_a_host_without_other_moves_refuses_them(self, there: There) -> None:
        if there.can(Feature.OTHER_MOVES):
            return
        vm, hypervisor = there.vms[0], there.hypervisor
        for call in (
            hypervisor.save_to_file(SaveToFile(**there.of(vm), path="/srv/vms/x.save")),
            hypervisor.restore_from_file(there.restoring(vm, path="/srv/vms/x.save")),
            hypervisor.copy_definition(there.defining(vm)),
            hypervisor.forget_definition(there.forgetting(vm)),
            hypervisor.copy_disks(there.copying(vm)),
            hypervisor.tune(there.tuning(vm, pause_ms=500)),
        ):
            failure = await there.failure(call)
            assert failure.code is FailureCode.NOT_SUPPORTED
            assert failure.text
        assert await there.status(vm) is VmStatus.RUNNING


class MovingContract:
    """The tests of live migration, for hosts that have it."""

    @pytest.mark.parametrize("route", list(PeerRoute))
    async def test_a_move_arrives_with_everything(self, there: There, route: PeerRoute) -> None:
        vm = there.vms[0]
        settings = VmSettings(priority=Priority.HIGH, tags=("moved",), drained_from=there.home)
        await there.run(there.hypervisor.write_settings(there.writing(vm, settings)))
        await there.run(there.hypervisor.migrate(there.move(vm, route=route, autostart=True)))
        assert await there.look(vm) is None
        assert await there.status(vm, there.away) is VmStatus.RUNNING
        config = (await there.run(there.hypervisor.read_vm(there.away, vm))).config
        assert (config.settings, config.autostart, config.persistent) == (settings, True, True)

    async def test_the_events_of_a_move(self, there: There) -> None:
        vm = there.vms[0]
        there.seen.clear()
        await there.run(there.hypervisor.migrate(there.move(vm)))
        arrived = (VmStatus.RUNNING, StatusCause.MIGRATED)
        await there.until(lambda: there.last_state(vm, there.away) == arrived)
        await there.until(
            lambda: any(
                isinstance(event, VmUndefined) and (event.vm, event.node) == (vm, there.home)
                for event in there.seen
            )
        )
        assert there.last_state(vm) == (VmStatus.OFF, StatusCause.MIGRATED)
        at_target = [e for e in there.seen if isinstance(e, VmStateChanged) and e.node == there.away]
        assert at_target[0].status is VmStatus.PAUSED
        assert [e for e in at_target if e.status is VmStatus.RUNNING] == at_target[-1:]

    async def test_a_move_shows_its_progress(self, there: There) -> None:
        vm = there.vms[0]
        task = there.begin(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=SLOW_MIB_S)))
        figures: list[MigrationProgress] = []
        while not task.done():
            seen = await there.run(there.hypervisor.job_progress(there.home, vm, OPERATION, 1))
            if seen is not None:
                figures.append(seen)
        await task
        copying = [seen for seen in figures if seen.total_bytes]
        assert len(copying) > 2
        assert copying[0].remaining_bytes > copying[-1].remaining_bytes
        assert all(0 <= seen.remaining_bytes <= seen.total_bytes for seen in copying)
        assert any(seen.rate_bytes_per_s > 0 for seen in copying)
        assert figures[-1].elapsed_ms > figures[0].elapsed_ms

    async def test_a_cancelled_move_leaves_it_where_it_was(self, there: There) -> None:
        vm = there.vms[0]
        task = there.begin(there.failure(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=1))))
        while not await there.run(there.hypervisor.have_jobs(there.home, (vm,))):
            assert not task.done()
        await there.run(there.hypervisor.abort(there.aborting(vm)))
        failure = await there.run(_awaited(task))
        assert failure.code is FailureCode.CANCELLED
        assert await there.status(vm) is VmStatus.RUNNING
        await there.run(there.hypervisor.abort(there.aborting(vm)))  # once more does no harm
        assert not await there.run(there.hypervisor.have_jobs(there.home, (vm,)))
        await there.run(there.hypervisor.migrate(there.move(vm)))

    async def test_a_cancel_that_overtakes_the_move_holds(self, there: There) -> None:
        vm = there.vms[0]
        task = there.begin(there.failure(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=1))))
        await asyncio.sleep(0)
        await there.run(there.hypervisor.abort(there.aborting(vm)))
        assert (await there.run(_awaited(task))).code is FailureCode.CANCELLED
        assert await there.status(vm) is VmStatus.RUNNING
        assert await there.look(vm, there.away) is None

    async def test_two_moves_at_once(self, there: There) -> None:
        moves = [
            there.begin(
                there.hypervisor.migrate(there.move(vm, operation=OperationId(vm), bandwidth_mib_s=20))
            )
            for vm in there.vms
        ]
        for task in moves:
            await there.run(_awaited(task))
        assert {await there.status(vm, there.away) for vm in there.vms} == {VmStatus.RUNNING}

    async def test_a_vm_that_is_off_is_not_moved(self, there: There) -> None:
        vm = there.vms[0]
        await there.change(vm, VmChange.TURN_OFF)
        failure = await there.failure(there.hypervisor.migrate(there.move(vm)))
        assert failure.code is FailureCode.WRONG_STATE
        assert await there.status(vm) is VmStatus.OFF

    @pytest.mark.parametrize("runs", [True, False])
    async def test_a_good_login_is_found_without_moving(self, there: There, runs: bool) -> None:
        vm = there.vms[0]
        if not runs:
            await there.change(vm, VmChange.TURN_OFF)
            await there.until_told(vm, VmStatus.OFF, StatusCause.TURNED_OFF)
        before = await there.look(vm)
        there.seen.clear()
        await there.run(there.hypervisor.check_peer(there.checking(vm, there.away)))
        assert await there.look(vm) == before
        assert await there.look(vm, there.away) is None
        assert not there.seen, there.seen
        assert not await there.run(there.hypervisor.have_jobs(there.home, (vm,)))

    # --- the way of a move ---

    @pytest.mark.parametrize("encrypt", [False, True])
    async def test_the_way_of_a_move_is_told(self, there: There, encrypt: bool) -> None:
        vm = there.vms[0]
        await there.run(there.hypervisor.migrate(there.move(vm, encrypt=encrypt)))
        assert await there.status(vm, there.away) is VmStatus.RUNNING
        await there.until(lambda: bool(there.routes()))
        assert there.routes() == [("", encrypt)]

    @pytest.mark.parametrize("fields", [{}, {"parallel_connections": 2}], ids=["one", "several"])
    async def test_a_dead_address_is_passed_over(self, there: There, fields: dict[str, int]) -> None:
        vm, (dead, good) = there.vms[0], there.addresses()
        await there.run(there.hypervisor.migrate(there.move(vm, addresses=(dead, good, dead), **fields)))
        assert await there.status(vm, there.away) is VmStatus.RUNNING
        await there.until(lambda: len(there.routes()) > 1)
        assert [address for address, _ in there.routes()] == [dead, good]

    @pytest.mark.parametrize("route", list(PeerRoute))
    async def test_without_an_address_that_answers_it_stays(self, there: There, route: PeerRoute) -> None:
        vm, (dead, _) = there.vms[0], there.addresses()
        failure = await there.failure(
            there.hypervisor.migrate(there.move(vm, addresses=(dead,), route=route))
        )
        assert (failure.code, failure.node) == (FailureCode.UNREACHABLE, there.away)
        assert failure.text
        assert await there.status(vm) is VmStatus.RUNNING
        assert await there.look(vm, there.away) is None

    async def test_several_connections_and_post_copy_exclude_each_other(self, there: There) -> None:
        vm = there.vms[0]
        move = there.move(vm, parallel_connections=2, convergence=Convergence(post_copy=True))
        failure = await there.failure(there.hypervisor.migrate(move))
        assert failure.code is FailureCode.NOT_SUPPORTED
        assert await there.status(vm) is VmStatus.RUNNING

    # --- changing a running move ---

    async def test_a_move_is_let_go_faster(self, there: There) -> None:
        vm = there.vms[0]
        task = there.begin(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=1)))
        await there.until_copying(vm)
        await there.run(there.hypervisor.tune(there.tuning(vm, pause_ms=500, bandwidth_mib_s=0)))
        await there.run(_awaited(task))
        assert await there.status(vm, there.away) is VmStatus.RUNNING

    async def test_a_vm_that_is_not_moved_is_not_tuned(self, there: There) -> None:
        failure = await there.failure(there.hypervisor.tune(there.tuning(there.vms[0], pause_ms=500)))
        assert failure.code is FailureCode.WRONG_STATE

    async def test_the_second_half_begins_when_asked(self, there: There) -> None:
        vm = there.vms[0]
        assert there.can(Feature.POST_COPY)
        move = there.move(vm, bandwidth_mib_s=2, convergence=Convergence(post_copy=True))
        task = there.begin(there.hypervisor.migrate(move))
        await there.until_copying(vm)
        await there.run(there.hypervisor.tune(there.tuning(vm, post_copy=True, bandwidth_mib_s=0)))
        await there.until(lambda: there.last_state(vm, there.away) is not None)
        await there.run(_awaited(task))
        assert await there.status(vm, there.away) is VmStatus.RUNNING
        assert await there.look(vm) is None

    async def test_the_second_half_must_have_been_permitted(self, there: There) -> None:
        vm = there.vms[0]
        task = there.begin(there.failure(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=1))))
        await there.until_copying(vm)
        failure = await there.failure(there.hypervisor.tune(there.tuning(vm, post_copy=True)))
        assert failure.code is FailureCode.WRONG_STATE
        await there.run(there.hypervisor.abort(there.aborting(vm)))
        assert (await there.run(_awaited(task))).code is FailureCode.CANCELLED

    # --- other moves, step by step ---

    async def test_a_quick_move(self, there: There) -> None:
        vm, hypervisor = there.vms[0], there.hypervisor
        await there.save(vm)
        await there.until_told(vm, VmStatus.OFF, StatusCause.SAVED)
        assert await there.status(vm) is VmStatus.OFF
        await there.run(hypervisor.copy_definition(there.defining(vm)))
        assert await there.status(vm, there.away) is VmStatus.OFF
        assert await there.status(vm) is VmStatus.OFF
        await there.run(hypervisor.restore_from_file(there.restoring(vm, there.away)))
        assert await there.status(vm, there.away) is VmStatus.RUNNING
        await there.until(
            lambda: there.last_state(vm, there.away) == (VmStatus.RUNNING, StatusCause.RESTORED)
        )
        await there.run(hypervisor.forget_definition(there.forgetting(vm)))
        assert await there.look(vm) is None
        await there.change(vm, VmChange.TURN_OFF, there.away)
        failure = await there.failure(hypervisor.restore_from_file(there.restoring(vm, there.away)))
        assert failure.code is FailureCode.STORAGE  # the file is gone

    async def test_a_paused_vm_arrives_paused(self, there: There) -> None:
        vm = there.vms[0]
        await there.change(vm, VmChange.PAUSE)
        await there.save(vm)
        await there.run(there.hypervisor.restore_from_file(there.restoring(vm)))
        assert await there.status(vm) is VmStatus.PAUSED

    async def test_a_restore_that_fails_keeps_the_file(self, there: There) -> None:
        vm, other = there.vms
        await there.save(vm)
        path = there.path(vm)
        failure = await there.failure(there.hypervisor.restore_from_file(there.restoring(other, path=path)))
        assert failure.code is FailureCode.WRONG_STATE
        await there.change(other, VmChange.TURN_OFF)
        failure = await there.failure(there.hypervisor.restore_from_file(there.restoring(other, path=path)))
        assert failure.code is FailureCode.CONFLICT
        await there.run(there.hypervisor.restore_from_file(there.restoring(vm)))
        assert await there.status(vm) is VmStatus.RUNNING

    async def test_what_is_off_is_not_saved(self, there: There) -> None:
        vm = there.vms[0]
        await there.change(vm, VmChange.TURN_OFF)
        effect = SaveToFile(**there.of(vm), path=there.path(vm))
        failure = await there.failure(there.hypervisor.save_to_file(effect))
        assert failure.code is FailureCode.WRONG_STATE

    @pytest.mark.parametrize("route", list(PeerRoute))
    async def test_a_definition_goes_and_comes_back(self, there: There, route: PeerRoute) -> None:
        vm, hypervisor = there.vms[0], there.hypervisor
        settings = VmSettings(priority=Priority.HIGH, tags=("kept",))
        await there.run(hypervisor.write_settings(there.writing(vm, settings)))
        await there.change(vm, VmChange.TURN_OFF)
        await there.run(hypervisor.copy_definition(there.defining(vm, route=route, autostart=True)))
        config = (await there.run(hypervisor.read_vm(there.away, vm))).config
        assert (config.settings, config.autostart, config.persistent) == (settings, True, True)
        await there.run(hypervisor.forget_definition(there.forgetting(vm)))
        await there.until(
            lambda: any(isinstance(e, VmUndefined) and (e.vm, e.node) == (vm, there.home) for e in there.seen)
        )
        assert await there.look(vm) is None
        await there.run(hypervisor.copy_definition(there.defining(vm, there.away, route=route)))
        await there.run(hypervisor.forget_definition(there.forgetting(vm, there.away)))
        assert await there.look(vm, there.away) is None
        await there.change(vm, VmChange.START)
        assert await there.status(vm) is VmStatus.RUNNING

    async def test_a_vm_that_runs_is_neither_copied_nor_forgotten(self, there: There) -> None:
        vm, hypervisor = there.vms[0], there.hypervisor
        for call in (
            hypervisor.copy_definition(there.defining(vm)),
            hypervisor.forget_definition(there.forgetting(vm)),
        ):
            assert (await there.failure(call)).code is FailureCode.WRONG_STATE
        assert await there.look(vm, there.away) is None
        assert await there.status(vm) is VmStatus.RUNNING

    async def test_a_definition_does_not_go_where_the_vm_runs(self, there: There) -> None:
        vm, hypervisor = there.vms[0], there.hypervisor
        await there.change(vm, VmChange.TURN_OFF)
        await there.run(hypervisor.copy_definition(there.defining(vm)))
        await there.change(vm, VmChange.START, there.away)
        failure = await there.failure(hypervisor.copy_definition(there.defining(vm)))
        assert (failure.code, failure.node) == (FailureCode.CONFLICT, there.away)
        assert await there.status(vm, there.away) is VmStatus.RUNNING
        await there.run(hypervisor.forget_definition(there.forgetting(vm)))

    # --- disks ---

    async def test_a_disk_goes_to_another_pool_and_then_to_another_node(self, there: There) -> None:
        vm, hypervisor = there.vms[0], there.hypervisor
        before = await there.disk(vm)
        await there.run(hypervisor.copy_disks(there.copying(vm)))
        after = await there.disk(vm)
        assert after.source.rpartition("/")[2] == before.source.rpartition("/")[2]
        assert after.source != before.source
        assert (after.format, after.cache) == (before.format, before.cache)
        assert await there.status(vm) is VmStatus.RUNNING
        failure = await there.failure(hypervisor.copy_disks(there.copying(vm)))
        assert failure.code is FailureCode.ALREADY
        move = there.move(vm, copy_disks=("vda",), pool=POOL, unsafe=False)
        await there.run(hypervisor.migrate(move))
        assert await there.status(vm, there.away) is VmStatus.RUNNING
        assert await there.disk(vm, there.away) == after

    async def test_a_move_with_its_disk_counts_both(self, there: There) -> None:
        vm = there.vms[0]
        await there.run(there.hypervisor.copy_disks(there.copying(vm)))
        config = (await there.run(there.hypervisor.read_vm(there.home, vm))).config
        move = there.move(vm, copy_disks=("vda",), pool=POOL, bandwidth_mib_s=60)
        task = there.begin(there.hypervisor.migrate(move))
        figures: list[MigrationProgress] = []
        while not task.done():
            seen = await there.run(there.hypervisor.job_progress(there.home, vm, OPERATION, 1))
            if seen is not None and seen.total_bytes:
                figures.append(seen)
        await there.run(_awaited(task))
        assert figures[0].total_bytes > config.memory_mib * 1024**2
        assert figures[0].remaining_bytes > figures[-1].remaining_bytes

    async def test_a_copy_that_is_cancelled_leaves_the_disk(self, there: There) -> None:
        vm = there.vms[0]
        before = await there.disk(vm)
        task = there.begin(there.failure(there.hypervisor.copy_disks(there.copying(vm))))
        await asyncio.sleep(0)
        await there.run(there.hypervisor.abort(there.aborting(vm)))
        assert (await there.run(_awaited(task))).code is FailureCode.CANCELLED
        assert await there.disk(vm) == before
        assert not await there.run(there.hypervisor.have_jobs(there.home, (vm,)))
        await there.run(there.hypervisor.copy_disks(there.copying(vm)))
        assert await there.disk(vm) != before

    async def test_without_such_a_pool_nothing_is_copied(self, there: There) -> None:
        vm = there.vms[0]
        failure = await there.failure(there.hypervisor.copy_disks(there.copying(vm, "no-such-pool")))
        assert failure.code is FailureCode.STORAGE
        move = there.move(vm, copy_disks=("vda",), pool="no-such-pool")
        failure = await there.failure(there.hypervisor.migrate(move))
        assert (failure.code, failure.node) == (FailureCode.STORAGE, there.away)
        assert await there.status(vm) is VmStatus.RUNNING


async def _awaited(task: asyncio.Task[T]) -> T:
    return await task

"""The product on real hosts: journal, queue, sessions and adapter together, as window and command use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from manager import bootstrap
from manager.core.actions import ACTIONS, MigrateParameters, PriorityParameters
from manager.core.ids import NodeId, OperationId
from manager.core.model import AgentState, NodeStatus, PeerRoute, Priority, Vm, VmStatus
from manager.core.operations import Operation, OperationState
from manager.core.reasons import ReasonCode
from manager.lab.lab import Lab
from manager.services.runtime import Runtime
from manager.services.workspace import Workspace

pytestmark = pytest.mark.lab

GUEST_S = 90.0
"""A guest boots in seconds; on a loaded machine under TCG it may take this long."""


@asynccontextmanager
async def muster(file: Path) -> AsyncIterator[Runtime]:
    """A run of the product on a cluster file."""
    adapters = bootstrap.adapters()
    workspace = Workspace(adapters)
    runtime = await workspace.open(adapters.files.load(str(file)))
    try:
        assert await runtime.settled(30)
        nodes = runtime.view.nodes.values()
        assert all(n.is_up for n in nodes), [f"{n.id}: {n.information}" for n in nodes]
        yield runtime
    finally:
        begun = time.monotonic()
        await workspace.shutdown()
        assert time.monotonic() - begun < 2.0


async def until(condition: Callable[[], Any], limit_s: float = 30.0) -> None:
    """Wait until something is seen; the state changes by events, so looking is cheap."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)


def vm_named(runtime: Runtime, name: str) -> Vm:
    return next(vm for vm in runtime.view.vms.values() if vm.name == name)


def ask(runtime: Runtime, action: str, *names: str, parameters: Any = None) -> OperationId:
    """Ask for an action on VMs, all of which must be able to."""
    ids = [vm_named(runtime, name).id for name in names]
    plan = ACTIONS[action].plan(runtime.view, ids, parameters)
    assert not plan.skipped, [str(s.reason) for s in plan.skipped]
    return runtime.request(plan)[0]


async def ended(runtime: Runtime, batch: OperationId, limit_s: float = GUEST_S) -> list[Operation]:
    """The batch's operations when all are over."""
    async with asyncio.timeout(limit_s):
        await runtime.ended((batch,))
    return [o for o in runtime.view.operations.values() if o.parent == batch]


async def do(runtime: Runtime, action: str, *names: str, parameters: Any = None) -> list[Operation]:
    """An action and its results."""
    return await ended(runtime, ask(runtime, action, *names, parameters=parameters))


def to(node: str, route: PeerRoute = PeerRoute.NODE_TO_NODE) -> MigrateParameters:
    return MigrateParameters(target=NodeId(node), route=route)


async def guest(lab: Lab, name: str, node: str, **fields: Any) -> str:
    """A booted guest of this test's own, with its agent connected."""
    await lab.add_vm(name, node, **fields)
    await lab.wait_ready(name, GUEST_S)
    return name


async def known(runtime: Runtime, name: str) -> Vm:
    """A VM whose definition was read."""
    await until(lambda: any(v.name == name and v.config for v in runtime.view.vms.values()))
    return vm_named(runtime, name)


async def test_every_change_of_a_guest_ends_as_the_host_sees_it(lab: Lab) -> None:
    async with muster(lab.cluster_file) as runtime:
        name = await guest(lab, "power-01", "n1")
        vm = await known(runtime, name)
        await until(lambda: vm_named(runtime, name).config.agent is AgentState.CONNECTED)  # type: ignore[union-attr]
        for action, status in (
            ("vm.pause", VmStatus.PAUSED),
            ("vm.resume", VmStatus.RUNNING),
            ("vm.save", VmStatus.SAVED),
            ("vm.start", VmStatus.RUNNING),
            ("vm.reset", VmStatus.RUNNING),
        ):
            (end,) = await do(runtime, action, name)
            assert end.state is OperationState.DONE, (action, end.reason)
            assert runtime.view.vms[vm.id].status is status
            shown = (await lab.virsh("n1", "domstate", name)).strip()
            expected = {"Running": "running", "Paused": "paused", "Saved": "shut off"}
            assert shown == expected[status.value]
        await lab.wait_ready(name, GUEST_S, since=lab.console_size(name))
        (end,) = await do(runtime, "vm.shut_down", name)  # ACPI: the guest does it itself
        assert end.state is OperationState.DONE
        assert (await lab.virsh("n1", "domstate", name)).strip() == "shut off"
        (end,) = await do(runtime, "vm.start", name)
        assert end.state is OperationState.DONE
        await do(runtime, "vm.save", name)
        (end,) = await do(runtime, "vm.delete_saved_state", name)
        assert end.state is OperationState.DONE
        assert runtime.view.vms[vm.id].status is VmStatus.OFF
        await do(runtime, "vm.start", name)
        (end,) = await do(runtime, "vm.turn_off", name)
        assert end.state is OperationState.DONE
        again = ACTIONS["vm.turn_off"].plan(runtime.view, [vm.id])
        assert [s.already for s in again.skipped] == [True]


async def test_a_guest_restarts_when_asked(lab: Lab) -> None:
    async with muster(lab.cluster_file) as runtime:
        name = await guest(lab, "restart-01", "n2")
        vm = await known(runtime, name)
        size = lab.console_size(name)
        (end,) = await do(runtime, "vm.restart", name)
        assert end.state is OperationState.DONE, end.reason
        await lab.wait_ready(name, GUEST_S, since=size)  # it booted anew
        assert runtime.view.vms[vm.id].status is VmStatus.RUNNING


async def test_three_guests_move_at_once_with_progress_and_their_settings(lab: Lab) -> None:
    names = [await guest(lab, f"move-0{i}", "n1") for i in (1, 2, 3)]
    async with muster(lab.cluster_file) as runtime:
        for name in names:
            await known(runtime, name)
        high = PriorityParameters(priority=Priority.HIGH)
        (end,) = await do(runtime, "vm.priority", names[0], parameters=high)
        assert end.state is OperationState.DONE
        moved: dict[OperationId, set[int]] = {}
        together = 0

        def watch(_: object) -> None:
            nonlocal together
            moving = [
                o
                for o in runtime.view.operations.values()
                if o.action == "vm.live_migrate" and o.state is OperationState.RUNNING and o.vm
            ]
            together = max(together, len(moving))
            for key, figures in runtime.view.progress.items():
                moved.setdefault(key, set()).add(figures.percent)

        unsubscribe = runtime.subscribe(watch)
        ends = await do(runtime, "vm.live_migrate", *names, parameters=to("n2"))
        unsubscribe()

        assert [e.state for e in ends] == [OperationState.DONE] * 3, [str(e.reason) for e in ends]
        assert together == 2  # the limit out of one node; the third waited
        running = (await lab.virsh("n2", "list", "--name")).split()
        assert set(names) <= set(running)
        assert not set(names) & set((await lab.virsh("n1", "list", "--all", "--name")).split())
        first = vm_named(runtime, names[0])
        await until(lambda: runtime.view.vms[first.id].config is not None)
        settings = runtime.view.vms[first.id].config
        assert settings is not None
        assert settings.settings.priority is Priority.HIGH
        assert "priority=" in await lab.virsh("n2", "dumpxml", names[0])


async def test_a_cancelled_move_stays_and_shows_cancelling(lab: Lab) -> None:
    name = await guest(lab, "cancel-01", "n1", dirty_mib=32, memory_mib=160)
    async with muster(await slow(lab)) as runtime:
        vm = await known(runtime, name)
        batch = ask(runtime, "vm.live_migrate", name, parameters=to("n3"))
        await until(lambda: any(p.total_bytes for p in runtime.view.progress.values()), GUEST_S)
        await until(lambda: runtime.view.vms[vm.id].percent is not None)
        runtime.request(ACTIONS["vm.cancel"].plan(runtime.view, [vm.id]))
        (end,) = await ended(runtime, batch)
        assert end.state is OperationState.CANCELLED
        assert runtime.view.vms[vm.id].owner == "n1"
        assert (await lab.virsh("n1", "domstate", name)).strip() == "running"
        assert name not in await lab.virsh("n3", "list", "--all", "--name")


async def slow(lab: Lab) -> Path:
    """The lab's cluster file with moves slow enough to be met half-way."""
    text = lab.cluster_file.read_text()
    assert "[migration]" not in text
    path = lab.cluster_file.with_name("cluster-slow.toml")
    path.write_text(text + "\n[migration]\nbandwidth_mib_s = 4\n")
    return path


async def test_the_daemon_of_the_source_dies_in_the_middle(lab: Lab) -> None:
    name = await guest(lab, "killed-01", "n1")
    async with muster(await slow(lab)) as runtime:
        vm = await known(runtime, name)
        batch = ask(runtime, "vm.live_migrate", name, parameters=to("n2"))
        await until(lambda: any(p.total_bytes for p in runtime.view.progress.values()), GUEST_S)
        assert not runtime.view.operations[batch].is_over
        await lab.kill_daemon("n1")
        await until(lambda: not runtime.view.nodes[NodeId("n1")].is_up, 15)
        await lab.start_daemon("n1")
        (end,) = await ended(runtime, batch)
        await until(lambda: runtime.view.nodes[NodeId("n1")].is_up)
        place = runtime.view.vms[vm.id].owner
        assert place is not None
        assert (await lab.virsh(place, "domstate", name)).strip() == "running"
        story = "\n".join(f"{line.at_s:.3f} {line.text}" for line in runtime.view.story(vm.id))
        assert end.state is (OperationState.DONE if place == "n2" else OperationState.FAILED), story
        assert str(place) in str(end.reason), story


async def test_a_stopped_daemon_costs_only_its_node(lab: Lab) -> None:
    await guest(lab, "daemon-01", "n3")
    async with muster(lab.cluster_file) as runtime:
        view = runtime.view
        ours = [vm.id for vm in view.vms.values() if vm.owner == "n3"]
        assert ours
        lab.stop_daemon("n3")
        try:
            begun = time.monotonic()
            await until(lambda: not view.nodes[NodeId("n3")].is_up, 20)
            assert time.monotonic() - begun < 16
            assert {view.vms[v].status for v in ours} == {VmStatus.UNKNOWN}
            assert view.nodes[NodeId("n1")].is_up
            running = next(v for v in view.vms.values() if v.owner == "n1" and v.status is VmStatus.RUNNING)
            for action in ("vm.pause", "vm.resume"):
                (end,) = await do(runtime, action, running.name)
                assert end.state is OperationState.DONE
            refused = ACTIONS["vm.start"].plan(view, ours[:1]).skipped[0]
            assert refused.unreachable
        finally:
            lab.continue_daemon("n3")
        await until(lambda: view.nodes[NodeId("n3")].is_up, 40)
        assert {view.vms[v].status for v in ours} <= {VmStatus.RUNNING, VmStatus.OFF}


async def test_closing_does_not_wait_for_a_host_that_hangs(lab: Lab) -> None:
    async with muster(lab.cluster_file) as runtime:
        lab.stop_daemon("n2")
        runtime.read_again()
        await asyncio.sleep(0.5)  # let the read hang; the assertion is in muster()'s own end
    lab.continue_daemon("n2")


async def test_a_node_that_cannot_log_in_to_the_target(lab: Lab) -> None:
    name = await guest(lab, "peer-01", "n1")
    async with muster(lab.cluster_file) as runtime:
        vm = await known(runtime, name)
        await lab.break_peer_login("n2")
        n2 = NodeId("n2")
        try:
            await until(lambda: (runtime.view.nodes[n2].retry_at_s or 0) > 0)  # its daemon was restarted
            await until(lambda: runtime.view.nodes[n2].is_up)
            (end,) = await do(runtime, "vm.live_migrate", name, parameters=to("n2"))
            assert end.state is OperationState.FAILED
            assert end.reason is not None
            assert end.reason.code is ReasonCode.PEER_LOGIN_REFUSED
            assert "virsh -c qemu+tcp://" in end.reason.remedy
            assert runtime.view.vms[vm.id].owner == "n1"
            through = to("n2", PeerRoute.THROUGH_THIS_COMPUTER)
            (end,) = await do(runtime, "vm.live_migrate", name, parameters=through)
            assert end.state is OperationState.DONE, end.reason
            assert (await lab.virsh("n2", "domstate", name)).strip() == "running"
        finally:
            await lab.restore_peer_login("n2")


@pytest.mark.parametrize("variant", ["cluster_file_ssh", "cluster_file_tls"])
async def test_nodes_are_reached_over_ssh_and_tls(lab: Lab, variant: str) -> None:
    async with muster(getattr(lab, variant)) as runtime:
        nodes = runtime.view.nodes.values()
        assert {n.status for n in nodes} == {NodeStatus.UP}, [str(n.information) for n in nodes]
        name = next(v.name for v in runtime.view.vms.values() if v.status is VmStatus.RUNNING)
        for action in ("vm.pause", "vm.resume"):
            (end,) = await do(runtime, action, name)
            assert end.state is OperationState.DONE, end.reason


async def test_what_happens_on_a_host_shows_within_a_second(lab: Lab) -> None:
    async with muster(lab.cluster_file) as runtime:
        vm = next(v for v in runtime.view.vms.values() if v.owner == "n1" and v.status is VmStatus.RUNNING)
        for command, status in (("suspend", VmStatus.PAUSED), ("resume", VmStatus.RUNNING)):
            await lab.virsh("n1", command, vm.name)
            begun = time.monotonic()
            await until(lambda status=status: runtime.view.vms[vm.id].status is status, 5)  # type: ignore[misc]
            assert time.monotonic() - begun < 1.0


async def test_someone_elses_move_is_seen(lab: Lab) -> None:
    name = await guest(lab, "foreign-01", "n1")
    async with muster(lab.cluster_file) as runtime:
        vm = await known(runtime, name)
        peer = lab.node("n2").peer_uri
        move = asyncio.ensure_future(
            lab.virsh(
                "n1", "migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--unsafe",
                "--bandwidth", "8", name, peer, timeout_s=GUEST_S,
            )
        )  # fmt: skip
        await until(lambda: "not Muster's" in runtime.view.vms[vm.id].activity.value)
        assert not ACTIONS["vm.shut_down"].is_enabled(runtime.view, [vm.id])
        await move
        await until(lambda: runtime.view.vms[vm.id].owner == "n2")
        await until(lambda: not runtime.view.vms[vm.id].activity.value)
        assert not runtime.view.vms[vm.id].alarm


async def test_a_definition_nobody_expected_is_shown_and_harms_nobody(lab: Lab) -> None:
    strange = "strange-<é>&;$(x)"
    xml = (
        "<domain type='qemu'><name>strange-&lt;é&gt;&amp;;$(x)</name><memory>65536</memory>"
        "<os><type arch='x86_64'>hvm</type></os><metadata><other xmlns='urn:other'><deep/></other></metadata>"
        "</domain>"
    )
    path = lab.shared / "strange.xml"
    path.write_text(xml)
    async with muster(lab.cluster_file) as runtime:
        await lab.virsh("n1", "define", str(path))
        try:
            vm = await known(runtime, strange)
            assert vm.status is VmStatus.OFF
            low = PriorityParameters(priority=Priority.LOW)
            (end,) = await do(runtime, "vm.priority", strange, parameters=low)
            assert end.state is OperationState.DONE, end.reason
            assert "<deep/>" in await lab.virsh("n1", "dumpxml", strange)
        finally:
            await lab.virsh("n1", "undefine", strange)
        await until(lambda: vm.id not in runtime.view.vms)

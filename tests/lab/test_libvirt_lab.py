"""The libvirt adapter on the lab: other ways in, daemons that hang or die, bad logins between nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from manager.core.effects import StartMigration, VmChange
from manager.core.errors import FailureCode, OperationError
from manager.core.events import Event, ForeignJobSeen, NodeLost, VmRebooted
from manager.core.ids import NodeId, VmId
from manager.core.model import (
    AgentState,
    ClusterConfig,
    NodeConfig,
    PeerRoute,
    StatusCause,
    VmSettings,
    VmStatus,
)
from manager.lab.lab import Lab
from manager.services.ports import Feature
from tests.lab.hosts import LabThere, add_guests, cluster, lab_there, put, state
from tests.libvirt.support import real_there

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

GUESTS = ("adapter-a", "adapter-b", "adapter-c")
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
LOST_WITHIN_S = 15.0


@pytest.fixture(scope="module")
def guests(lab: Lab) -> tuple[str, ...]:
    add_guests(lab, *GUESTS)
    return GUESTS


@pytest.fixture
async def there(lab: Lab, guests: tuple[str, ...]) -> AsyncIterator[LabThere]:
    async with lab_there(lab, *guests) as there:
        yield there


def vm_of(there: LabThere, name: str) -> VmId:
    return next(vm for vm, known in there.names.items() if known == name)


def lost(there: LabThere, node: NodeId) -> list[NodeLost]:
    return [event for event in there.seen if isinstance(event, NodeLost) and event.node == node]


async def failure_code(call: object) -> FailureCode:
    with pytest.raises(OperationError) as caught:
        await call  # type: ignore[misc]
    return caught.value.failure.code


async def virsh_says(lab: Lab, name: str, *nodes: str) -> dict[str, str | None]:
    return {node: await state(lab, name, node) for node in nodes}


# --- ways in ---


@pytest.mark.parametrize(("transport", "encrypted"), [("ssh", True), ("tls", True), ("unix", False)])
async def test_nodes_reached_in_each_way(
    lab: Lab, guests: tuple[str, ...], transport: str, encrypted: bool
) -> None:
    async with lab_there(lab, guests[0], transport=transport) as there:
        facts = there.facts[N1]
        assert (facts.hostname, facts.hypervisor) == ("n1", "QEMU")
        assert facts.features == frozenset(Feature)
        assert facts.encrypted == encrypted
        assert len({fact.host_uuid for fact in there.facts.values()}) == 3
        vm = there.vms[0]
        await there.change(vm, VmChange.PAUSE)
        await there.until_told(vm, VmStatus.PAUSED, StatusCause.USER)
        await there.change(vm, VmChange.RESUME)
        await there.hypervisor.check_peer(there.checking(vm, N2))
        await there.hypervisor.migrate(there.move(vm))
        assert await virsh_says(lab, guests[0], "n1", "n2") == {"n1": None, "n2": "running"}


async def test_the_agent_is_seen_as_it_comes(there: LabThere) -> None:
    vm = there.vms[0]
    await there.rest(vm)

    async def agent() -> AgentState:
        return (await there.hypervisor.read_vm(N1, vm)).config.agent

    async with asyncio.timeout(20):
        while await agent() is not AgentState.CONNECTED:
            there.changed.clear()
            await there.changed.wait()
    await there.change(vm, VmChange.SHUT_DOWN_AGENT)
    await there.until_told(vm, VmStatus.OFF, StatusCause.SHUT_DOWN)


async def test_loads(there: LabThere) -> None:
    for vm in there.names:
        await there.hypervisor.read_vm(N1, vm)
    await there.hypervisor.sample(N1)
    sampled = await there.hypervisor.sample(N1)
    assert sampled.load.cpu_percent is not None
    assert 0 <= sampled.load.cpu_percent <= 100
    assert sampled.load.memory_free_mib is not None
    assert 0 < sampled.load.memory_free_mib < there.facts[N1].memory_mib
    for vm in there.names:
        assert sampled.vms[vm].cpu_percent is not None


# --- moves ---


async def test_three_moves_at_once_with_progress(lab: Lab, there: LabThere) -> None:
    moves = {
        vm: there.begin(there.hypervisor.migrate(there.move(vm, operation=vm, bandwidth_mib_s=16)))
        for vm in there.names
    }
    remaining: dict[VmId, list[int]] = {vm: [] for vm in moves}
    longest_s = 0.0
    while not all(task.done() for task in moves.values()):
        for vm, task in moves.items():
            before = time.monotonic()
            figures = await there.hypervisor.job_progress(N1, vm, vm, 1)  # type: ignore[arg-type]
            longest_s = max(longest_s, time.monotonic() - before)
            if figures is not None and figures.total_bytes and not task.done():
                remaining[vm].append(figures.remaining_bytes)
    for task in moves.values():
        await task
    for seen in remaining.values():
        assert len(set(seen)) > 3
        assert seen[0] > seen[-1]
    assert longest_s < 1.5  # a call on a connection that a move is using would stall for 2 s
    for name in GUESTS:
        assert await virsh_says(lab, name, "n1", "n2") == {"n1": None, "n2": "running"}


async def test_a_move_by_someone_else_is_seen_to_begin_and_to_end(lab: Lab, there: LabThere) -> None:
    vm, name = there.vms[0], GUESTS[0]
    there.seen.clear()
    how = ("--live", "--p2p", "--persistent", "--undefinesource", "--unsafe", "--bandwidth", "20")
    await lab.virsh("n1", "migrate", *how, name, lab.node("n2").peer_uri, timeout_s=60)

    def told() -> list[tuple[bool, str]]:
        return [(e.active, e.what) for e in there.seen if isinstance(e, ForeignJobSeen) and e.vm == vm]

    await there.until(lambda: len(told()) == 2)
    assert told() == [(True, "migration"), (False, "migration")]


async def test_own_jobs_are_no_news(there: LabThere) -> None:
    vm = there.vms[0]
    there.seen.clear()
    await there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=40))
    await there.change(vm, VmChange.SAVE, N2)
    await there.until(lambda: there.last_state(vm, N2) == (VmStatus.SAVED, StatusCause.SAVED))
    await there.change(vm, VmChange.START, N2)
    assert not [event for event in there.seen if isinstance(event, ForeignJobSeen)]


async def test_a_change_during_a_move_is_busy_and_reading_goes_on(
    there: LabThere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.backends.libvirt.backend.CHANGE_S", 1.0)
    vm = there.vms[0]
    move = there.begin(failure_code(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=2))))
    while not await there.hypervisor.have_jobs(N1, (vm,)):
        assert not move.done()
    blocked = there.begin(failure_code(there.hypervisor.write_settings(there.writing(vm, VmSettings()))))
    while not blocked.done():
        before = time.monotonic()
        assert await there.status(vm) is VmStatus.RUNNING
        assert time.monotonic() - before < 1.0
        await asyncio.sleep(0.05)
    assert await blocked in (FailureCode.TIMEOUT, FailureCode.BUSY)
    await there.hypervisor.abort(there.aborting(vm))
    assert await move is FailureCode.CANCELLED
    assert not lost(there, N1)


async def test_a_reset_is_told(there: LabThere) -> None:
    vm = there.vms[0]
    await there.change(vm, VmChange.RESET)
    await there.until(lambda: any(isinstance(e, VmRebooted) and e.vm == vm for e in there.seen))


async def test_a_name_that_is_taken_on_the_target(lab: Lab, there: LabThere) -> None:
    vm, name = there.vms[0], GUESTS[0]
    other = f"<domain type='qemu'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
    file = lab.directory / "taken.xml"
    file.write_text(other)
    await lab.virsh("n2", "define", str(file))
    try:
        code = await failure_code(there.hypervisor.migrate(there.move(vm)))
        assert code is FailureCode.CONFLICT
        assert await there.status(vm) is VmStatus.RUNNING
    finally:
        await lab.virsh("n2", "undefine", name)


async def test_a_move_that_is_not_safe_is_refused_unless_told(there: LabThere) -> None:
    vm = there.vms[0]
    assert await failure_code(there.hypervisor.migrate(there.move(vm, unsafe=False))) is FailureCode.UNSAFE
    assert await there.status(vm) is VmStatus.RUNNING


# --- login between the nodes ---


async def test_a_daemon_restarted_under_its_guest_still_lets_it_go(lab: Lab, guests: tuple[str, ...]) -> None:
    """A daemon that finds a guest running has forgotten which machines its emulator knows."""
    await put(lab, guests[0], "n1")
    await lab.kill_daemon("n1")
    await lab.start_daemon("n1")
    async with lab_there(lab, guests[0]) as there:
        vm = there.vms[0]
        await there.hypervisor.check_peer(there.checking(vm, N2))
        await there.hypervisor.migrate(there.move(vm))
        assert await virsh_says(lab, guests[0], "n1", "n2") == {"n1": None, "n2": "running"}


async def check(lab: Lab, guest: str, peer_uri: str | None, uri: str) -> OperationError:
    """The failure of a login check against a second node with these URIs."""
    base = cluster(lab)
    nodes = (base.nodes[0], NodeConfig(name=N2, uri=uri, peer_uri=peer_uri))
    vm = VmId(lab.vm_uuid(guest))
    async with real_there(ClusterConfig(name="lab", nodes=nodes), vm) as there:
        with pytest.raises(OperationError) as caught:
            await there.hypervisor.check_peer(there.checking(vm, N2))
        assert await there.status(vm) is VmStatus.RUNNING
        assert not await there.hypervisor.have_jobs(N1, (vm,))
    return caught.value


@pytest.mark.parametrize(
    "peer_uri",
    [
        "qemu+tcp://{address}:1/system",
        "qemu+tcp://no-such-host.invalid/system",
        "qemu+ssh://root@{address}/system?no_tty=1",  # the nodes have no keys for each other
        "pigeon+tcp://{address}/system",
    ],
)
async def test_a_bad_login_is_found_before_anything_moves(
    lab: Lab, guests: tuple[str, ...], peer_uri: str
) -> None:
    await put(lab, guests[0], "n1")
    target = lab.node("n2")
    error = await check(lab, guests[0], peer_uri.format(address=target.address), target.uri)
    assert (error.failure.code, error.failure.node) == (FailureCode.PEER_LOGIN, N2)
    assert error.failure.text
    assert error.failure.detail.startswith("libvirt error")


async def test_a_target_that_refuses_the_nodes_can_be_reached_through_this_computer(
    lab: Lab, there: LabThere
) -> None:
    vm = there.vms[0]
    await lab.break_peer_login("n2")
    try:
        for node in there.config.nodes[:2]:
            await there.hypervisor.connect(node)
        assert (
            await failure_code(there.hypervisor.check_peer(there.checking(vm, N2))) is FailureCode.PEER_LOGIN
        )
        assert await failure_code(there.hypervisor.migrate(there.move(vm))) is FailureCode.PEER_LOGIN
        through = there.move(vm, route=PeerRoute.THROUGH_THIS_COMPUTER)
        await there.hypervisor.migrate(through)
        assert await there.status(vm, N2) is VmStatus.RUNNING
    finally:
        await lab.restore_peer_login("n2")


async def test_without_a_peer_uri_it_says_what_to_set(lab: Lab, guests: tuple[str, ...]) -> None:
    await put(lab, guests[0], "n1")
    error = await check(lab, guests[0], None, lab.node("n2").uri)
    assert error.failure.code is FailureCode.PEER_LOGIN
    assert "peer_uri" in error.failure.text


# --- hosts in trouble ---


async def until_lost(there: LabThere, node: NodeId) -> tuple[NodeLost, float]:
    """The loss of a node, and how long it took."""
    before = time.monotonic()
    await there.until(lambda: bool(lost(there, node)))
    return lost(there, node)[0], time.monotonic() - before


async def test_a_daemon_that_hangs_is_lost_in_time_and_costs_itself_only(lab: Lab, there: LabThere) -> None:
    lab.stop_daemon("n1")
    try:
        event, took_s = await until_lost(there, N1)
        assert took_s < LOST_WITHIN_S
        assert event.failure.code is FailureCode.UNREACHABLE
        before = time.monotonic()
        await there.hypervisor.read_inventory(N2)
        assert time.monotonic() - before < 1
        assert await failure_code(there.hypervisor.read_inventory(N1)) is FailureCode.UNREACHABLE
    finally:
        lab.continue_daemon("n1")
    await there.hypervisor.connect(there.config.nodes[0])
    assert await there.status(there.vms[0]) is VmStatus.RUNNING
    assert len(lost(there, N1)) == 1


async def test_a_call_to_a_daemon_that_hangs_ends_at_its_deadline(
    lab: Lab, there: LabThere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.backends.libvirt.backend.READ_S", 0.5)
    monkeypatch.setattr("manager.backends.libvirt.backend.CONNECT_S", 0.5)
    lab.stop_daemon("n1")
    try:
        assert await failure_code(there.hypervisor.read_inventory(N1)) is FailureCode.TIMEOUT
        event, _ = await until_lost(there, N1)
        assert event.failure.code is FailureCode.TIMEOUT
        node = there.config.nodes[0]
        assert await failure_code(there.hypervisor.connect(node)) is FailureCode.TIMEOUT
        before = time.monotonic()
        await there.hypervisor.close()
        assert time.monotonic() - before < 1
    finally:
        lab.continue_daemon("n1")


async def test_a_daemon_that_is_killed_is_lost_at_once_and_its_guests_go_on(
    lab: Lab, there: LabThere
) -> None:
    await lab.kill_daemon("n1")
    try:
        event, took_s = await until_lost(there, N1)
        assert took_s < 2
        assert event.failure.code is FailureCode.UNREACHABLE
        node = there.config.nodes[0]
        assert await failure_code(there.hypervisor.connect(node)) is FailureCode.UNREACHABLE
    finally:
        await lab.start_daemon("n1")
    await there.hypervisor.connect(there.config.nodes[0])
    assert await there.status(there.vms[0]) is VmStatus.RUNNING


def slow(there: LabThere, vm: VmId) -> StartMigration:
    return there.move(vm, bandwidth_mib_s=2)


async def under_way(there: LabThere, vm: VmId) -> None:
    """Wait until a move has copied something."""
    while True:
        figures = await there.hypervisor.job_progress(N1, vm, there.move(vm).operation, 1)
        if figures is not None and figures.total_bytes:
            return
        await asyncio.sleep(0.05)


async def test_the_targets_daemon_killed_in_the_middle(lab: Lab, there: LabThere) -> None:
    vm = there.vms[0]
    move = there.begin(failure_of_move(there, slow(there, vm)))
    await under_way(there, vm)
    await lab.kill_daemon("n2")
    try:
        code, node = await move
        assert (code, node) == (FailureCode.UNREACHABLE, N2)
        assert await there.status(vm) is VmStatus.RUNNING
        assert not lost(there, N1)
    finally:
        await lab.start_daemon("n2")
    assert await state(lab, GUESTS[0], "n2") in (None, "shut off")


async def test_the_sources_daemon_killed_in_the_middle(lab: Lab, there: LabThere) -> None:
    vm = there.vms[0]
    move = there.begin(failure_of_move(there, slow(there, vm)))
    await under_way(there, vm)
    await lab.kill_daemon("n1")
    try:
        assert await move == (FailureCode.UNREACHABLE, N1)
    finally:
        await lab.start_daemon("n1")
    await there.until(lambda: bool(lost(there, N1)))
    await there.hypervisor.connect(there.config.nodes[0])
    assert await there.status(vm) is VmStatus.RUNNING


async def failure_of_move(there: LabThere, effect: StartMigration) -> tuple[FailureCode, NodeId | None]:
    with pytest.raises(OperationError) as caught:
        await there.hypervisor.migrate(effect)
    return caught.value.failure.code, caught.value.failure.node


async def test_a_move_goes_on_when_its_program_does_not(lab: Lab, there: LabThere) -> None:
    vm = there.vms[0]
    task = there.begin(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=30)))
    await under_way(there, vm)
    await there.hypervisor.close()
    with pytest.raises(OperationError):
        await task
    async with real_there(there.config, vm) as again:
        seen: list[Event] = again.seen
        await again.until(lambda: again.last_state(vm, N2) == (VmStatus.RUNNING, StatusCause.MIGRATED))
        assert seen
    async with asyncio.timeout(10):  # the source drops its definition a moment later
        while await virsh_says(lab, GUESTS[0], "n1", "n2") != {"n1": None, "n2": "running"}:
            await asyncio.sleep(0.1)

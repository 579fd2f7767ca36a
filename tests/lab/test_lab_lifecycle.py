"""The lab itself: up, down without a trace, several at once, faults, and a killed or interrupted `up`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from manager.lab.errors import LabError
from manager.lab.lab import Lab, LabSpec
from manager.lab.processes import MARK, end, identify, inside, is_alive, marked, spawn, wait_until
from tests.lab.support import (
    lab_folder,
    lab_namespaces,
    muster_lab,
    qemu_pids,
    skip_without_lab,
    traces,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


@pytest.fixture
def folder() -> Iterator[Path]:
    skip_without_lab()
    with lab_folder() as made:
        yield made


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process that is no lab's, and must outlive them all."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    assert process.poll() is None, "the lab killed a process that is not its own"
    process.kill()
    process.wait()


async def test_up_status_down_leaves_nothing(folder: Path, bystander: int) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    lab = await Lab.up(LabSpec(directory=folder, nodes=2, vms=2))
    status = await lab.status()
    namespaces = lab_namespaces(lab)

    assert status.state == "up"
    assert [(node.name, node.power, node.daemon) for node in status.nodes] == [
        ("n1", "on", "running"),
        ("n2", "on", "running"),
    ]
    assert {(vm.node, vm.state) for vm in status.vms} == {("n1", "running"), ("n2", "running")}
    assert len(namespaces) == 3  # two nodes and the switch
    assert not traces(folder, link=status.link, namespaces=namespaces).nothing
    assert Path("/proc/self/mountinfo").read_text() == mounts

    await lab.down()
    assert traces(folder, link=status.link, namespaces=namespaces).nothing
    assert Path("/proc/self/mountinfo").read_text() == mounts


async def test_nodes_are_different_hosts(folder: Path) -> None:
    lab = await Lab.up(LabSpec(directory=folder, nodes=2, vms=0))
    try:
        cluster = tomllib.loads(lab.cluster_file.read_text())
        assert [node["name"] for node in cluster["nodes"]] == ["n1", "n2"]
        assert cluster["storage"]["shared_paths"] == [str(lab.shared)]
        capabilities = [await lab.virsh(node, "capabilities") for node in lab.nodes]
        first, second = (text[text.index("<uuid>") :][:50] for text in capabilities)
        assert first != second
        boots = {(await lab.run_on(node, "cat", "/proc/sys/kernel/random/boot_id")).out for node in lab.nodes}
        assert len(boots) == 2
        assert Path("/proc/sys/kernel/random/boot_id").read_text() not in boots
        assert [(await lab.run_on(node, "hostname")).out.strip() for node in lab.nodes] == ["n1", "n2"]
    finally:
        await lab.down()


async def test_ssh_tls_and_tcp_reach_the_node(folder: Path) -> None:
    lab = await Lab.up(LabSpec(directory=folder, nodes=1, vms=0))
    try:
        for uri in (lab.nodes[0].ssh_uri, lab.nodes[0].tls_uri, lab.nodes[0].peer_uri):
            answer = await asyncio.create_subprocess_exec(
                "virsh", "-q", "-c", uri, "hostname", stdout=asyncio.subprocess.PIPE
            )
            out, _ = await asyncio.wait_for(answer.communicate(), 20)
            assert (answer.returncode, out.decode().strip()) == (0, "n1"), uri
    finally:
        await lab.down()


async def test_two_labs_do_not_meet(folder: Path) -> None:
    with lab_folder() as other:
        first, second = await asyncio.gather(
            Lab.up(LabSpec(directory=folder, nodes=2, vms=1)),
            Lab.up(LabSpec(directory=other, nodes=2, vms=1)),
        )
        assert first.subnet != second.subnet
        assert first.vm_uuid("web-01") != second.vm_uuid("web-01")
        assert not lab_namespaces(first) & lab_namespaces(second)
        link, namespaces = (await first.status()).link, lab_namespaces(first)
        await first.down()
        seen = await second.status()
        assert [node.daemon for node in seen.nodes] == ["running", "running"]
        assert [vm.state for vm in seen.vms] == ["running"]
        # A stopped lab's namespaces must not live on in the nodes of another.
        assert traces(folder, link=link, namespaces=namespaces).nothing
        await second.down()


async def test_a_second_up_finds_the_first(folder: Path) -> None:
    lab = await Lab.up(LabSpec(directory=folder, nodes=1, vms=0))
    again = await Lab.up(LabSpec(directory=folder, nodes=3, vms=6))
    assert [node.pid for node in again.nodes] == [node.pid for node in lab.nodes]
    await again.down()
    assert await Lab.remove(folder) is False


async def test_power_off_kills_guests_and_power_on_forgets_them(folder: Path) -> None:
    lab = await Lab.up(LabSpec(directory=folder, nodes=2, vms=2))
    try:
        before = (await lab.run_on("n1", "cat", "/proc/sys/kernel/random/boot_id")).out
        await lab.power_off("n1")
        assert lab.node("n1").processes() == []
        seen = await lab.status()
        assert [(node.power, node.daemon) for node in seen.nodes] == [("off", "down"), ("on", "running")]
        await lab.power_on("n1")
        assert (await lab.run_on("n1", "cat", "/proc/sys/kernel/random/boot_id")).out != before
        states = {vm.name: vm.state for vm in (await lab.status()).vms}
        assert states == {"web-01": "shut off", "db-01": "running"}
        await lab.virsh("n1", "start", "web-01", timeout_s=60)
    finally:
        await lab.down()


async def test_guests_outlive_their_daemon(folder: Path) -> None:
    lab = await Lab.up(LabSpec(directory=folder, nodes=1, vms=2))
    try:
        before = await qemu_pids(lab)
        assert set(before) == {"web-01", "db-01"}
        await lab.kill_daemon("n1")
        assert lab.nodes[0].pid == 0
        assert await qemu_pids(lab) == before
        await lab.start_daemon("n1")
        assert await qemu_pids(lab) == before
        assert {vm.state for vm in (await lab.status()).vms} == {"running"}
    finally:
        await lab.down()


async def test_faults_show_and_heal(folder: Path) -> None:
    lab = await Lab.up(LabSpec(directory=folder, nodes=2, vms=0))
    try:
        first, second = lab.nodes
        lab.stop_daemon(first)
        assert [node.daemon for node in (await lab.status()).nodes] == ["stopped", "running"]
        lab.continue_daemon(first)

        await lab.cut_network(second)
        with pytest.raises(LabError, match="did not end"):
            await lab.run_on(first, "virsh", "-c", second.peer_uri, "hostname", timeout_s=1)
        await lab.join_network(second)
        assert (await lab.run_on(first, "virsh", "-q", "-c", second.peer_uri, "hostname")).out.strip() == "n2"

        await lab.break_peer_login(second)
        refused = await lab.run_on(first, "virsh", "-c", second.peer_uri, "hostname")
        assert "refused" in refused.err
        assert (await lab.virsh(second, "hostname")).strip() == "n2"
        await lab.restore_peer_login(second)
        assert (await lab.run_on(first, "virsh", "-q", "-c", second.peer_uri, "hostname")).out.strip() == "n2"
    finally:
        await lab.down()


async def test_a_guest_boots_migrates_and_takes_the_power_button(folder: Path) -> None:
    lab = await Lab.up(LabSpec(directory=folder, nodes=2, vms=0))
    try:
        await lab.add_vm("mail-09", "n1", dirty_mib=16)
        await lab.wait_ready("mail-09")
        flags = ["--live", "--p2p", "--persistent", "--undefinesource", "--unsafe"]
        await lab.virsh("n1", "migrate", *flags, "mail-09", lab.node("n2").peer_uri, timeout_s=60)
        assert [(vm.name, vm.node, vm.state) for vm in (await lab.status()).vms] == [
            ("mail-09", "n2", "running")
        ]
        [pid] = (await qemu_pids(lab)).values()
        guest = identify(pid)
        assert guest is not None
        await lab.virsh("n2", "shutdown", "mail-09", "--mode", "acpi")
        await wait_until(
            lambda: not is_alive(guest), timeout_s=20, story=lambda: "the guest did not power off"
        )
    finally:
        await lab.down()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_up_takes_away_what_it_made(folder: Path, number: signal.Signals) -> None:
    program = muster_lab("up", "--dir", str(folder), "--vms", "2", python=sys.executable)
    await wait_until(
        lambda: len(marked(folder)) > 3 or program.poll() is not None,
        timeout_s=30,
        story=lambda: "no process",
    )
    program.send_signal(number)
    _, err = await asyncio.to_thread(program.communicate, timeout=30)
    assert program.returncode == 1, err
    assert "Interrupted" in err
    assert traces(folder).nothing


async def test_down_after_a_killed_up(folder: Path, bystander: int) -> None:
    program = muster_lab("up", "--dir", str(folder), "--vms", "2", python=sys.executable)
    await wait_until(
        lambda: len(marked(folder)) > 3 or program.poll() is not None,
        timeout_s=30,
        story=lambda: "no process",
    )
    program.kill()
    await asyncio.to_thread(program.communicate, timeout=30)
    link = json.loads((folder / "lab.json").read_text())["link"]
    assert not traces(folder, link=link).nothing
    with pytest.raises(LabError, match="incomplete"):
        await Lab.up(LabSpec(directory=folder))
    assert await Lab.remove(folder)
    assert traces(folder, link=link).nothing


async def test_a_process_without_a_pid_namespace_of_its_own_has_nobody_inside(tmp_path: Path) -> None:
    """Once, `down` took the switch's inside for its own: every process of the machine was killed."""
    keeper = spawn(["sleep", "600"], mark=tmp_path, log=tmp_path / "log")
    try:
        assert inside(keeper) == []
    finally:
        await end([keeper])


async def test_what_has_only_just_begun_ends_too(tmp_path: Path) -> None:
    """About one in a hundred has no environment yet to be known by, and was waited for in vain."""
    for _ in range(300):
        await end([spawn(["sleep", "600"], mark=tmp_path, log=tmp_path / "log")], timeout_s=5)


async def test_ending_refuses_what_is_no_labs(bystander: int) -> None:
    stranger = identify(bystander)
    assert stranger is not None
    assert MARK not in os.environ
    with pytest.raises(LabError, match="Refused"):
        await end([stranger])

"""A real Pacemaker on the lab's hosts: it is seen, its VMs are left alone, and it holds nothing up."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from manager.backends.libvirt import pacemaker
from manager.core.actions import ACTIONS, Denied
from manager.core.ids import NodeId, VmId
from manager.core.model import Authority, Pacemaker, VmStatus
from manager.core.operations import OperationState
from manager.lab.errors import LabError
from manager.lab.lab import Lab, LabSpec
from manager.lab.processes import Process, send
from manager.lab.requirements import missing
from manager.services import node_session
from manager.services.runtime import Runtime
from tests.lab.support import lab_folder, lab_namespaces, run_apart, skip_without_lab, traces
from tests.lab.test_command_line_lab import muster as command
from tests.lab.test_product import do, muster, until, vm_named

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

N1, N2 = NodeId("n1"), NodeId("n2")
RUNS = "runs Pacemaker: the VMs it manages are read-only here"
LEFT_ALONE = "managed by Pacemaker: read-only here"
OWN, FREE = "web-01", "app-01"
"""Two guests of n1: one becomes the resource `RESOURCE`, whose name is another one."""
RESOURCE = "frontend"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts, of which n1 is a Pacemaker cluster of its own; n2 has the packages only."""
    skip_without_lab()
    if lacking := missing(pacemaker=True):
        pytest.skip(lacking.text)

    async def up(folder: Path) -> Lab:
        lab = await Lab.up(LabSpec(directory=folder, nodes=2, vms=4, wait_guests=True))
        await lab.start_pacemaker("n1")
        return lab

    with lab_folder() as folder:
        yield run_apart(lambda: up(folder))


@asynccontextmanager
async def resource(lab: Lab) -> AsyncIterator[None]:
    """While `OWN` is Pacemaker's. It runs before and after."""
    if (await lab.virsh("n1", "domstate", OWN)).strip() != "running":
        await lab.virsh("n1", "start", OWN)
    await lab.add_resource(RESOURCE, OWN, "n1")
    try:
        yield
    finally:
        await lab.remove_resource(RESOURCE, "n1")


def authorities(runtime: Runtime) -> dict[str, Authority]:
    return {vm.name: vm.authority for vm in runtime.view.vms.values()}


def own(runtime: Runtime) -> VmId:
    return vm_named(runtime, OWN).id


def refusals(runtime: Runtime, name: str) -> set[str]:
    """What is said of all actions on a VM, but for the one that stops what is under way."""
    vm = vm_named(runtime, name).id
    actions = [spec for key, spec in ACTIONS.items() if key.startswith("vm.") and key != "vm.cancel"]
    verdicts = (spec.verdict(runtime.view, vm) for spec in actions)
    return {verdict.reason.text if isinstance(verdict, Denied) else "allowed" for verdict in verdicts}


def json_of(ended: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(ended.stdout)


def daemon(lab: Lab, name: str) -> Process:
    return next(process for process in lab.node("n1").processes() if process.name.startswith(name))


async def test_a_command_says_it_and_refuses(lab: Lab, tmp_path: Path) -> None:
    async with resource(lab):
        file = ("--cluster", str(lab.cluster_file_ssh))

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return command(*file, *words)

        nodes = await asyncio.to_thread(run, "node", "list", "--json")
        told = {row["name"]: row["information"] for row in json_of(nodes)}
        assert told == {"n1": RUNS, "n2": None}

        # On the host itself, without ssh.
        local = (
            "env",
            f"MUSTER_HOME={tmp_path}",
            sys.executable,
            "-m",
            "manager",
            "--connect",
            "qemu:///system",
        )
        ran = await lab.run_on("n1", *local, "node", "list", "--json", timeout_s=60)
        assert [row["information"] for row in json.loads(ran.out)] == [RUNS], ran.err

        vms = {row["name"]: row for row in json_of(await asyncio.to_thread(run, "vm", "list", "--json"))}
        assert {name: row["information"] for name, row in vms.items() if row["information"]} == {
            OWN: LEFT_ALONE
        }
        (shown,) = json_of(await asyncio.to_thread(run, "vm", "show", OWN, "--json"))
        assert shown["cannot_be_moved_because"] == [LEFT_ALONE]
        assert shown["movable"] is False

        ended = await asyncio.to_thread(run, "vm", "pause", OWN, FREE, "--json")
        assert ended.returncode == 1
        results = {row["vm"]: (row["result"], row["reason"]) for row in json_of(ended)}
        assert results[OWN] == ("skipped", LEFT_ALONE)
        assert results[FREE][0] == "done"
        assert (await lab.virsh("n1", "domstate", OWN)).strip() == "running"
        assert (await lab.virsh("n1", "domstate", FREE)).strip() == "paused"
        assert (await asyncio.to_thread(run, "vm", "resume", FREE)).returncode == 0


async def test_its_vm_is_left_alone_until_it_gives_it_back(lab: Lab) -> None:
    async with muster(lab.cluster_file_ssh) as runtime:
        async with resource(lab):
            assert authorities(runtime)[OWN] is Authority.MUSTER  # not asked again yet
            runtime.read_again(N1)
            await until(lambda: authorities(runtime)[OWN] is Authority.PACEMAKER)
            assert runtime.view.nodes[N1].pacemaker is Pacemaker.RUNS
            assert str(runtime.view.nodes[N1].information) == RUNS
            assert runtime.view.nodes[N2].information is None
            others = {a for name, a in authorities(runtime).items() if name != OWN}
            assert others == {Authority.MUSTER}
            assert refusals(runtime, OWN) == {LEFT_ALONE}
            assert LEFT_ALONE not in refusals(runtime, FREE)
            (end,) = await do(runtime, "vm.pause", FREE)
            assert end.state is OperationState.DONE
            await do(runtime, "vm.resume", FREE)
        runtime.read_again(N1)
        await until(lambda: authorities(runtime)[OWN] is Authority.MUSTER)
        assert str(runtime.view.nodes[N1].information) == RUNS  # it has no VM, and still runs
        for action in ("vm.pause", "vm.resume"):
            (end,) = await do(runtime, action, OWN)
            assert end.state is OperationState.DONE, end.reason


async def test_a_vm_that_its_agent_stops_and_starts_stays_its_own(lab: Lab) -> None:
    async def role(wanted: str) -> None:
        ran = await lab.run_on(
            "n1", "crm_resource", "--meta", "--resource", RESOURCE,
            "--set-parameter", "target-role", "--parameter-value", wanted,
        )  # fmt: skip
        assert ran.code == 0, ran.err

    async with resource(lab), muster(lab.cluster_file_ssh) as runtime:
        vm = own(runtime)
        await role("Stopped")
        await until(lambda: runtime.view.vms[vm].status is VmStatus.OFF, 70)
        assert refusals(runtime, OWN) == {LEFT_ALONE}  # not to be started by us either
        await role("Started")
        await until(lambda: vm in runtime.view.vms and runtime.view.vms[vm].status is VmStatus.RUNNING, 70)
        assert runtime.view.vms[vm].authority is Authority.PACEMAKER
        # It was made anew by the agent, and has no lasting definition now.
        assert OWN not in await lab.virsh("n1", "list", "--all", "--persistent", "--name")
    await lab.virsh("n1", "define", str(lab.shared / f"resource-{RESOURCE}.xml"))


async def test_what_it_takes_is_noticed_without_anybody_asking(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_session, "ASK_OFTEN_S", 1.0)
    async with muster(lab.cluster_file_ssh) as runtime:
        assert authorities(runtime)[OWN] is Authority.MUSTER
        async with resource(lab):
            await until(lambda: authorities(runtime)[OWN] is Authority.PACEMAKER)
        await until(lambda: authorities(runtime)[OWN] is Authority.MUSTER)


async def test_a_pacemaker_that_hangs_holds_nothing_up(lab: Lab) -> None:
    def on_n1(runtime: Runtime) -> set[Authority]:
        return {vm.authority for vm in runtime.view.vms.values() if vm.owner == N1}

    async with resource(lab):
        based = daemon(lab, "pacemaker-base").id
        assert send(based, signal.SIGSTOP)
        try:
            async with muster(lab.cluster_file_ssh) as runtime:  # all are up, and the question is over
                told = {line.text: line.at_s for line in runtime.view.story(N1)}
                connected_s = next(at_s for text, at_s in told.items() if text.startswith("connected"))
                assert told["up: inventory read"] - connected_s < node_session.ANSWER_PATIENCE_S + 2.0
                assert on_n1(runtime) == {Authority.UNTOLD}
                assert refusals(runtime, FREE) == {"managed by Pacemaker, perhaps: read-only here"}
                assert {vm.authority for vm in runtime.view.vms.values() if vm.owner == N2} == {
                    Authority.MUSTER
                }
                questions = [p for p in lab.node("n1").processes() if p.name in ("cibadmin", "crmadmin")]
                assert questions == []
                send(based, signal.SIGCONT)
                runtime.read_again(N1)
                await until(lambda: authorities(runtime)[OWN] is Authority.PACEMAKER)
                assert authorities(runtime)[FREE] is Authority.MUSTER
                send(based, signal.SIGSTOP)
                runtime.read_again(N1)
                await asyncio.sleep(pacemaker.DEADLINE_S + 0.5)
                assert authorities(runtime)[OWN] is Authority.PACEMAKER  # what it said holds
                assert authorities(runtime)[FREE] is Authority.MUSTER
        finally:
            send(based, signal.SIGCONT)


async def test_what_a_host_answers(lab: Lab) -> None:
    async def code(node: str, *before: str) -> int:
        return (await lab.run_on(node, *before, "sh", "-c", pacemaker.QUESTION)).code

    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert await code("n1") == 0
    assert await code("n1", *nobody) == pacemaker.NOT_ALLOWED
    assert await code("n2") == pacemaker.NOT_RUNNING
    # On n2 alone, as if it were not installed.
    hide = (
        "mkdir -p /run/hide/upper /run/hide/work && mknod /run/hide/upper/cibadmin c 0 0 && "
        "mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/hide/upper,workdir=/run/hide/work"
        " /usr/sbin"
    )
    ran = await lab.run_on("n2", "sh", "-c", hide)
    assert ran.code == 0, ran.err
    try:
        assert await code("n2") == pacemaker.NOT_INSTALLED
        async with muster(lab.cluster_file_ssh) as runtime:
            assert runtime.view.nodes[N2].pacemaker is Pacemaker.NONE
    finally:
        await lab.run_on("n2", "umount", "/usr/sbin")


async def test_it_moves_its_vm_itself_in_a_cluster_of_two() -> None:
    with lab_folder() as folder:
        there = await Lab.up(LabSpec(directory=folder, nodes=2, vms=2, wait_guests=True))
        await there.start_pacemaker("n1", "n2")
        await there.add_resource(RESOURCE, OWN, "n1", can_migrate=True)
        async with muster(there.cluster_file_ssh) as runtime:
            vm = own(runtime)
            assert [n.pacemaker for n in runtime.view.nodes.values()] == [Pacemaker.RUNS, Pacemaker.RUNS]
            seen: set[Authority] = set()
            runtime.subscribe(lambda _: seen.add(runtime.view.vms[vm].authority))
            move = ("crm_resource", "--move", "--resource", RESOURCE, "--node", "n2")
            assert (await there.run_on("n1", *move)).code == 0
            await until(lambda: runtime.view.vms[vm].owner == "n2", 60)
            await until(lambda: not runtime.view.vms[vm].activity.value)
            assert runtime.view.vms[vm].status is VmStatus.RUNNING
            assert seen == {Authority.PACEMAKER}
            assert refusals(runtime, OWN) == {LEFT_ALONE}
        await there.down()


async def test_two_labs_have_clusters_that_do_not_meet_and_leave_nothing() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    with lab_folder() as folder, lab_folder() as other:
        first, second = await asyncio.gather(
            Lab.up(LabSpec(directory=folder, nodes=1, vms=1)),
            Lab.up(LabSpec(directory=other, nodes=1, vms=0)),
        )
        await asyncio.gather(first.start_pacemaker("n1"), second.start_pacemaker("n1"))
        await first.add_resource("mine", "web-01", "n1")
        query = ("cibadmin", "--query", "--scope", "resources")
        assert '"mine"' in (await first.run_on("n1", *query)).out
        assert "mine" not in (await second.run_on("n1", *query)).out

        link, namespaces = (await first.status()).link, lab_namespaces(first)
        await first.down()
        assert traces(folder, link=link, namespaces=namespaces).nothing
        assert (await second.run_on("n1", "crmadmin", "--dc_lookup", "--quiet")).out.strip() == "n1"

        # A node that loses power loses its cluster, and may be made a new one.
        await second.power_off("n1")
        assert second.node("n1").processes() == []
        await second.power_on("n1")
        assert (await second.run_on("n1", *query)).code == pacemaker.NOT_RUNNING
        await second.start_pacemaker("n1")
        with pytest.raises(LabError, match="already"):
            await second.start_pacemaker("n1")

        link, namespaces = (await second.status()).link, lab_namespaces(second)
        await second.down()
        assert traces(other, link=link, namespaces=namespaces).nothing
    assert Path("/proc/self/mountinfo").read_text() == mounts


async def test_an_interrupted_start_is_taken_away_by_whoever_comes_next() -> None:
    with lab_folder() as folder:
        there = await Lab.up(LabSpec(directory=folder, nodes=1, vms=0))
        link, namespaces = (await there.status()).link, lab_namespaces(there)
        starting = asyncio.ensure_future(there.start_pacemaker("n1"))
        await until(lambda: any(p.name.startswith("pacemaker-") for p in there.node("n1").processes()))
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not traces(folder, link=link, namespaces=namespaces).nothing
        assert await Lab.remove(folder)
        assert traces(folder, link=link, namespaces=namespaces).nothing

"""A real node is paused, drained and resumed: seen by another program, killed in the middle, taken back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manager.core.actions import ACTIONS, PauseParameters
from manager.core.ids import NodeId
from manager.core.model import DrainState
from manager.core.operations import OperationState
from manager.lab.lab import Lab
from tests.lab.hosts import add_guests, put
from tests.lab.support import run_apart
from tests.lab.test_faults_lab import command, moving, runs_only_on, slowed
from tests.lab.test_product import GUEST_S, known, muster, until
from tests.lab.witness import witnessed

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

NODE = "n3"
GUESTS = ("maintain-01", "maintain-02")
WHY = "new memory"


@pytest.fixture
def guests(lab: Lab) -> Iterator[tuple[str, ...]]:
    """Two guests on the node; no pause is left on it."""
    add_guests(lab, *GUESTS, node=NODE)
    for name in GUESTS:
        run_apart(lambda name=name: put(lab, name, NODE))  # type: ignore[misc]
    yield GUESTS

    async def forget() -> None:
        for line in (await lab.virsh(NODE, "secret-list")).splitlines()[2:]:
            if line.split():
                await lab.virsh(NODE, "secret-undefine", line.split()[0])

    run_apart(forget)


def other(file: Path, home: Path, *words: str) -> Any:
    """A command of another administrator, with a journal of their own; its answer."""
    argv = [sys.executable, "-m", "manager", "--cluster", str(file), "--json", *words]
    env = os.environ | {"MUSTER_HOME": str(home), "LOGNAME": "adm-b"}
    ran = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=200, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


async def running(lab: Lab, node: str) -> set[str]:
    return set((await lab.virsh(node, "list", "--name")).split())


async def elsewhere(lab: Lab, name: str) -> str:
    """The other node that it runs on."""
    found = [node for node in ("n1", "n2") if name in await running(lab, node)]
    assert len(found) == 1, found
    return found[0]


async def test_a_drain_is_seen_by_another_program_which_brings_the_vms_back(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(f"{lab.cluster_file.read_text()}\n[migration]\noutgoing_per_node = 1\n")
    there = await running(lab, NODE)
    assert set(guests) <= there
    with witnessed(lab, tmp_path) as witness:
        async with muster(file) as runtime:
            await runtime.settled(30)
            for name in there:
                await known(runtime, name)
            plan = ACTIONS["node.pause"].plan(runtime.view, [NODE], PauseParameters(drain=True, why=WHY))
            assert {step.name for step in plan.steps} >= {NODE, *there}
            (key,) = runtime.request(plan)
            await runtime.ended((key,))
            end = runtime.view.operations[key]
            assert end.state is OperationState.DONE, end.reason
            assert not await running(lab, NODE)
            for name in guests:
                target = await elsewhere(lab, name)
                assert f'drained-from="{NODE}"' in await lab.virsh(target, "dumpxml", name)
            assert witness.largest_overlap(tuple(there)) == 1

            (row,) = other(file, tmp_path / "b", "node", "list", "--where", f"name={NODE}")
            assert (row["status"], row["drain"]) == ("Paused", "Drained")
            assert WHY in row["information"]
            assert runtime.author in row["information"]

            rows = other(file, tmp_path / "b", "node", "resume", NODE, "--failback", "immediate")
            assert {row["result"] for row in rows} == {"done"}
            await until(lambda: not runtime.view.nodes[NodeId(NODE)].holds)  # this one is told
    for name in there:
        await runs_only_on(lab, name, NODE)
    for name in guests:
        assert "drained-from" not in await lab.virsh(NODE, "dumpxml", name)
    assert "muster" not in await lab.virsh(NODE, "secret-list")


async def test_a_drain_goes_on_after_its_program_was_killed(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    file, log = slowed(lab, tmp_path), tmp_path / "log.json"
    with command(file, "--log-json", str(log), "node", "pause", NODE, "--drain") as process:
        await moving(log, 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with muster(file) as runtime:
        node = NodeId(NODE)
        await until(lambda: runtime.view.nodes[node].drain is DrainState.DRAINED, 4 * GUEST_S)
        await until(lambda: runtime.view.nodes[node].work is None)
        assert not await running(lab, NODE)
        (key,) = runtime.request(ACTIONS["node.resume"].plan(runtime.view, [NODE]))
        await runtime.ended((key,))
        assert runtime.view.operations[key].state is OperationState.DONE
        assert not await running(lab, NODE)  # nothing comes back unasked
        for name in guests:
            target = await elsewhere(lab, name)
            assert "drained-from" not in await lab.virsh(target, "dumpxml", name)

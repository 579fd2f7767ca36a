"""The command line on real hosts: what a script does, and what it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manager.lab.lab import Lab
from tests.lab.support import run_apart

pytestmark = pytest.mark.lab

NAMES = ("script-01", "script-02", "script-03")


def muster(*words: str, limit_s: float = 120) -> subprocess.CompletedProcess[str]:
    """A command, as a script runs it."""
    return subprocess.run(
        [sys.executable, "-m", "manager", *words],
        capture_output=True,
        text=True,
        timeout=limit_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def virsh(lab: Lab, node: str, *words: str) -> str:
    return run_apart(lambda: lab.virsh(node, *words))


@pytest.fixture(scope="module")
def guests(lab: Lab) -> tuple[str, ...]:
    """Three booted guests on n1."""

    async def add() -> None:
        for name in NAMES:
            await lab.add_vm(name, "n1")
        for name in NAMES:
            await lab.wait_ready(name, 90)

    run_apart(add)
    return NAMES


@pytest.fixture
def cluster(lab: Lab) -> Callable[..., Any]:
    """A command on the lab's cluster: its exit code and its JSON."""

    def run(*words: str) -> tuple[int, list[dict[str, Any]]]:
        ended = muster("--cluster", str(lab.cluster_file), *words, "--json")
        return ended.returncode, json.loads(ended.stdout)

    return run


def test_three_guests_move_and_virsh_agrees(
    lab: Lab, guests: tuple[str, ...], cluster: Callable[..., Any]
) -> None:
    code, planned = cluster("vm", "migrate", *guests, "--to", "n2", "--what-if")
    assert code == 0
    assert {row["result"] for row in planned} == {"planned"}
    assert set(guests) <= set(virsh(lab, "n1", "list", "--name").split())  # nothing was done

    code, moved = cluster("vm", "migrate", *guests, "--to", "n2")
    assert code == 0
    assert [(row["vm"], row["result"]) for row in moved] == [(name, "done") for name in guests]
    assert set(guests) <= set(virsh(lab, "n2", "list", "--name").split())

    code, again = cluster("vm", "migrate", *guests, "--to", "n2")
    assert code == 0
    assert {row["result"] for row in again} == {"done"}
    assert {row["reason"] for row in again} == {"already on n2"}

    code, vms = cluster("vm", "list")
    assert code == 0
    owners = {row["name"]: row["owner"] for row in vms}
    assert {owners[name] for name in guests} == {"n2"}


def test_a_lost_node_is_exit_3_and_says_so(lab: Lab, guests: tuple[str, ...]) -> None:
    node = next(n for n in ("n1", "n2", "n3") if guests[0] in virsh(lab, n, "list", "--name").split())
    lab.stop_daemon(node)
    try:
        file = str(lab.cluster_file)
        ended = muster("--cluster", file, "vm", "pause", guests[0], "--timeout", "3")
        assert ended.returncode == 3
        assert node in ended.stderr
        assert not ended.stdout.strip() or guests[0] in ended.stdout
        listed = muster("--cluster", file, "node", "list", "--json", "--timeout", "3")
        states = {row["name"]: row["status"] for row in json.loads(listed.stdout)}
        assert states[node] != "Up"
        assert [s for n, s in states.items() if n != node] == ["Up", "Up"]
    finally:
        lab.continue_daemon(node)
    assert virsh(lab, node, "domstate", guests[0]).strip() == "running"


def test_a_silent_node_holds_up_only_what_needs_it(lab: Lab, guests: tuple[str, ...]) -> None:
    node = next(n for n in ("n1", "n2", "n3") if guests[0] in virsh(lab, n, "list", "--name").split())
    other = next(n for n in ("n1", "n2", "n3") if n != node)
    elsewhere = virsh(lab, other, "list", "--name").split()[0]
    file = str(lab.cluster_file)
    lab.stop_daemon(node)
    try:
        begun = time.monotonic()
        listed = muster("--cluster", file, "vm", "list", "--json")
        assert listed.returncode == 0
        names = {row["name"] for row in json.loads(listed.stdout)}
        assert elsewhere in names
        assert guests[0] not in names
        assert f"node {node} did not answer within" in listed.stderr
        for action in ("pause", "resume"):
            ended = muster("--cluster", file, "vm", action, elsewhere, "--json")
            assert json.loads(ended.stdout)[0]["result"] == "done", ended.stderr
        assert time.monotonic() - begun < 3 * 8  # one that waits for all nodes takes 12 s
        needs = muster("--cluster", file, "vm", "pause", guests[0])
        assert needs.returncode == 3
        assert node in needs.stderr
    finally:
        lab.continue_daemon(node)
    assert virsh(lab, node, "domstate", guests[0]).strip() == "running"


def test_what_a_killed_command_began_goes_on_and_is_explained(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    source = next(n for n in ("n1", "n2", "n3") if guests[0] in virsh(lab, n, "list", "--name").split())
    target = "n3" if source != "n3" else "n1"
    file = tmp_path / "slow.toml"
    file.write_text(lab.cluster_file.read_text() + "\n[migration]\nbandwidth_mib_s = 8\n")
    log = tmp_path / "log.json"
    begun = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "manager",
            "--cluster",
            str(file),
            "--log-json",
            str(log),
            "vm",
            "migrate",
            guests[0],
            "--to",
            target,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while "MigrationProgress" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        os.kill(begun.pid, signal.SIGKILL)
        begun.wait(10)
    # The next run follows the move to its end before the VM can be worked on again.
    end = time.monotonic() + 90
    while time.monotonic() < end:
        if guests[0] in virsh(lab, target, "list", "--state-running", "--name").split():
            break
        time.sleep(0.2)
    ended = muster("--cluster", str(file), "vm", "pause", guests[0], "--json")
    assert json.loads(ended.stdout)[0]["result"] == "done", ended.stderr
    assert virsh(lab, target, "domstate", guests[0]).strip() == "paused"
    assert muster("--cluster", str(file), "vm", "resume", guests[0]).returncode == 0

"""``muster engine`` on real hosts: commands beside it, killed in the middle, told to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manager.lab.lab import Lab
from tests.lab.support import run_apart

pytestmark = pytest.mark.lab

NAMES = ("engine-01", "engine-02", "engine-03")
LIMIT_S = 120.0


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


class Beside:
    """A process on the cluster, and what it writes. `user`: as whom it asks; whoever runs the tests."""

    def __init__(self, folder: Path, file: Path, *words: str, user: str | None = None) -> None:
        self.out, self.err = (folder / f"{kind}-{time.monotonic_ns()}" for kind in ("out", "err"))
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "manager", "--cluster", str(file), *words],
                env={**os.environ, **({"LOGNAME": user} if user else {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def says(self, text: str) -> None:
        """Return once this stands in what it told."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self.err.read_text():
            assert time.monotonic() < deadline, self.err.read_text()
            assert self.process.poll() is None, self.err.read_text()
            time.sleep(0.05)  # another process tells nobody what it wrote

    def results(self) -> dict[str, str]:
        """What became of its VMs, when it has ended."""
        assert self.process.wait(LIMIT_S) == 0, self.err.read_text()
        return {row["vm"]: row["result"] for row in json.loads(self.out.read_text())}


@pytest.fixture
def begin(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Beside]]:
    """``begin(*words)`` starts a command on a cluster whose moves take a while, one at a time."""
    file = tmp_path / "slow.toml"
    limits = "\n[migration]\nbandwidth_mib_s = 16\noutgoing_per_node = 1\n"
    file.write_text(lab.cluster_file.read_text() + limits)
    begun: list[Beside] = []

    def one(*words: str) -> Beside:
        begun.append(Beside(tmp_path, file, *words))
        return begun[-1]

    yield one
    for each in begun:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def places(lab: Lab, names: tuple[str, ...]) -> dict[str, list[str]]:
    """On which nodes each runs, as the nodes themselves say."""
    running = {
        node: run_apart(lambda n=node: lab.virsh(n, "list", "--name")).split() for node in ("n1", "n2", "n3")
    }
    return {name: [node for node, found in running.items() if name in found] for name in names}


def test_killed_in_the_middle_of_what_two_commands_asked_for(
    lab: Lab, guests: tuple[str, ...], begin: Callable[..., Beside]
) -> None:
    first, second, third = guests
    engine = begin("engine")
    engine.says("node n1 is Up")
    one = begin("vm", "migrate", first, second, "--to", "n2", "--json")
    engine.says(": Copying")
    two = begin("vm", "migrate", third, "--to", "n3", "--json")
    engine.says(f"Live migrate {third}, n1 → n3: Waiting")

    engine.process.kill()
    engine.process.wait()

    assert one.results() == {first: "done", second: "done"}
    assert two.results() == {third: "done"}
    assert places(lab, guests) == {first: ["n2"], second: ["n2"], third: ["n3"]}


def test_told_to_end_it_leaves_the_move_to_the_hosts_and_the_next_one_goes_on(
    lab: Lab, guests: tuple[str, ...], begin: Callable[..., Beside]
) -> None:
    first, second, _ = guests
    engine = begin("engine")
    engine.says("node n2 is Up")
    asked = begin("vm", "migrate", first, second, "--to", "n1", "--no-wait", "--json")
    assert set(asked.results().values()) == {"accepted"}
    engine.says(": Copying")
    began = time.monotonic()
    engine.process.terminate()
    assert engine.process.wait(LIMIT_S) == 0
    assert time.monotonic() - began < 5  # it gives itself 2 s; the rest is this machine's
    assert "1 under way: left to the hosts; 1 waiting: kept in the journal" in engine.err.read_text()

    engine = begin("engine")
    for name in (first, second):
        engine.says(f"Live migrate {name}, n2 → n1: Done; runs on n1")
    assert places(lab, (first, second)) == {first: ["n1"], second: ["n1"]}


def test_it_keeps_definitions_for_the_day_when_their_node_is_gone(
    lab: Lab, guests: tuple[str, ...], begin: Callable[..., Beside], tmp_path: Path
) -> None:
    name = guests[2]
    node = places(lab, guests)[name][0]

    def virsh(*words: str) -> str:
        return run_apart(lambda: lab.virsh(node, *words)).strip()

    def versions() -> list[int]:
        ran = begin("vm", "definitions", name, "--json")
        is_there = ran.process.wait(LIMIT_S) == 0
        return [row["version"] for row in json.loads(ran.out.read_text())] if is_there else []

    def kept() -> str:
        ran = begin("vm", "xml", name, "--kept", "newest")
        assert ran.process.wait(LIMIT_S) == 0, ran.err.read_text()
        return ran.out.read_text().strip()

    def wait_for(numbers: list[int]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while (there := versions()) != numbers:
            assert time.monotonic() < deadline, there
            time.sleep(1.0)  # another process tells nobody what it kept

    begin("engine").says(f"node {node} is Up")
    wait_for([1])
    before = virsh("dumpxml", "--inactive", name)
    assert kept() == before

    changed = tmp_path / "changed.xml"
    secret = "<graphics type='vnc' port='-1' listen='127.0.0.1' passwd='open'/>"
    changed.write_text(before.replace("<devices>", f"<devices>{secret}"))
    virsh("define", str(changed))
    wait_for([2, 1])
    assert "<graphics" in kept()
    assert "passwd" not in kept()
    assert "passwd='open'" in virsh("dumpxml", "--inactive", "--security-info", name)

    changed.write_text(before)
    virsh("define", str(changed))
    wait_for([3, 2, 1])
    assert kept() == before

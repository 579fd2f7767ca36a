"""``muster engine`` and commands beside it, as processes; their hosts are libvirt's test driver.

Each process has such hosts of its own: what is checked is who carries out what, and that nothing is lost.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 60.0
VMS = ("a", "b", "c", "d")

DOMAIN = """
  <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
    <name>{name}</name><uuid>00000000-0000-4000-8000-00000000000{name}</uuid>
    <memory>65536</memory><os><type>hvm</type></os>
    <test:runstate>5</test:runstate>
  </domain>"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A cluster file: one host, four VMs that are off."""
    node = tmp_path / "node.xml"
    node.write_text(f"<node>{''.join(DOMAIN.format(name=name) for name in VMS)}\n</node>\n")
    file = tmp_path / "lab.toml"
    file.write_text(f'name = "lab"\n[[nodes]]\nname = "n1"\nuri = "test://{node}"\n')
    return file


class Process:
    """A command that goes on, with what it writes in files."""

    def __init__(self, folder: Path, cluster: Path, *argv: str) -> None:
        self.out, self.err = (folder / f"{kind}-{time.monotonic_ns()}" for kind in ("out", "err"))
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "manager", "--cluster", str(cluster), *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=Path(__file__).parents[2],
            )

    def says(self, text: str) -> None:
        """Return once this stands in what it told."""
        until(lambda: text in self.err.read_text(), f"{text!r} in {self.err.read_text()!r}")

    def end(self) -> int:
        return self.process.wait(LIMIT_S)

    def results(self) -> dict[str, str]:
        return {row["vm"]: row["result"] for row in json.loads(self.out.read_text())}


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # another process tells nobody when it is so


@pytest.fixture
def start(tmp_path: Path, cluster: Path) -> Iterator[Callable[..., Process]]:
    """``start(*argv)`` begins a command on the cluster; all are ended at the end."""
    begun: list[Process] = []

    def one(*argv: str, file: Path = cluster) -> Process:
        begun.append(Process(tmp_path, file, *argv))
        return begun[-1]

    yield one
    for each in begun:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def muster(cluster: Path, *argv: str, code: int = 0) -> Any:
    """Run a command to its end; gives its JSON."""
    ran = subprocess.run(
        [sys.executable, "-m", "manager", "--cluster", str(cluster), *argv, "--json"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout) if ran.stdout else ran.stderr


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_it_carries_out_what_commands_ask_for_until_it_is_told_to_end(
    cluster: Path, start: Callable[..., Process], tmp_path: Path
) -> None:
    engine = start("engine", "--log-json", str(tmp_path / "log.json"))
    engine.says("node n1 is Up")
    (status,) = muster(cluster, "engine", "status")
    assert (status["owner"], status["engine"], status["file"]) == (engine.process.pid, True, str(cluster))

    both = [start("vm", "start", *names, "--json") for names in (("a", "b"), ("c", "d"))]
    assert [each.end() for each in both] == [0, 0]
    assert both[0].results() | both[1].results() == dict.fromkeys(VMS, "done")
    rows = muster(cluster, "queue", "list", "--history")
    assert sorted(row["vm"] for row in rows) == list(VMS)  # each once
    for name in VMS:
        engine.says(f"Start {name}, n1: Done")

    for sign in (signal.SIGTERM, signal.SIGINT):
        with within(5.0):  # most of which is this machine's: it gives itself 2 s
            engine.process.send_signal(sign)
            assert engine.end() == 0
        engine.says("lab: ends.")
        engine = start("engine")
        engine.says("works on it (process ")
    records = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    assert [r["event"] for r in records].count("ActionRequested") == 2
    (status,) = muster(cluster, "engine", "status")
    assert status["owner"] == engine.process.pid


def test_a_second_one_says_who_works_on_it_and_takes_over(
    cluster: Path, start: Callable[..., Process]
) -> None:
    first = start("engine")
    first.says("works on it")
    second = start("engine")
    second.says(f"process {first.process.pid} (muster engine) works on it; this one takes over")
    first.process.kill()
    second.says(f"works on it (process {second.process.pid}).")
    assert muster(cluster, "vm", "start", "a")[0]["result"] == "done"
    second.says("Start a, n1: Done")


def test_killed_while_two_commands_wait(cluster: Path, start: Callable[..., Process]) -> None:
    engine = start("engine")
    engine.says("node n1 is Up")
    muster(cluster, "queue", "pause")
    one = start("vm", "start", "a", "b", "--json")
    two = start("vm", "start", "c", "d", "--json")
    until(lambda: len(muster(cluster, "queue", "list")) == 4, "all are in the queue")
    of_two = next(row["batch"] for row in muster(cluster, "queue", "list") if row["vm"] == "c")
    one.says("queue resume")
    two.says("queue resume")

    engine.process.kill()  # -9, with four requests in its journal
    engine.process.wait()
    commands = {one.process.pid, two.process.pid}
    until(lambda: muster(cluster, "engine", "status")[0]["owner"] in commands, "one of them takes over")
    rows = muster(cluster, "queue", "list")
    assert sorted((row["vm"], row["state"]) for row in rows) == [(name, "Waiting") for name in VMS]

    # One after the other: the hosts of the test driver are each process's own.
    muster(cluster, "queue", "pause", of_two)
    muster(cluster, "queue", "resume")
    assert (one.end(), one.results()) == (0, {"a": "done", "b": "done"})
    assert two.process.poll() is None
    until(lambda: muster(cluster, "engine", "status")[0]["owner"] == two.process.pid, "the other one does")
    muster(cluster, "queue", "resume", of_two)
    assert (two.end(), two.results()) == (0, {"c": "done", "d": "done"})
    assert muster(cluster, "engine", "status")[0]["owner"] is None


def test_what_it_left_is_shown_and_the_next_one_goes_on(cluster: Path, start: Callable[..., Process]) -> None:
    engine = start("engine")
    engine.says("node n1 is Up")
    muster(cluster, "queue", "pause")
    (row,) = muster(cluster, "vm", "start", "a", "--no-wait")
    assert (row["result"], row["reason"][:15]) == ("accepted", "not started yet")
    engine.process.kill()
    engine.process.wait()
    rows = muster(cluster, "queue", "list")
    assert [(row["vm"], row["state"]) for row in rows] == [("a", "Waiting")]
    muster(cluster, "queue", "resume")
    start("engine").says("Start a, n1: Done")


def test_two_clusters_of_one_name(cluster: Path, start: Callable[..., Process], tmp_path: Path) -> None:
    engine = start("engine")
    engine.says("works on it")
    other = tmp_path / "other.toml"
    other.write_text('name = "lab"\n[[nodes]]\nname = "n9"\nuri = "test:///default"\n')
    said = muster(other, "vm", "pause", "test", code=2)
    assert (
        f"process {engine.process.pid} (muster engine) owns the operations of another cluster named lab"
        in said
    )
    assert f"It works by {cluster}, not by {other}: two clusters need two names." in said
    second = start("engine", file=other)
    assert second.end() == 2
    cluster.write_text(cluster.read_text() + '[[nodes]]\nname = "n2"\nuri = "test:///default"\n')
    said = muster(cluster, "vm", "start", "a", code=2)
    assert f"{cluster} was changed since it was started: end it, and start it again." in said
    rows = muster(cluster, "vm", "list")  # looking is not refused
    assert {row["name"] for row in rows} >= set(VMS)


def test_nobody_reads_what_it_tells(cluster: Path) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "manager", "--cluster", str(cluster), "engine"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writing,
        cwd=Path(__file__).parents[2],
    )
    os.close(writing)
    assert b"works on it" in os.read(reading, 1000)
    os.close(reading)
    try:
        assert muster(cluster, "vm", "start", "a")[0]["result"] == "done"
        assert process.poll() is None
        process.terminate()
        assert process.wait(LIMIT_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

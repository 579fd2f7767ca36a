"""Whole programs: start to window, to 8,000 rows, to a list; beside a bare Qt window and virsh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.perf import worlds
from tests.perf.measure import MUSTER, Row, median, pairs, process
from tests.perf.real_window import figures_of

PAIRS = 5
IDLE_S = 10.0


def rows(folder: Path) -> Iterator[Row]:
    """The figures of whole processes."""
    env = {"QT_QPA_PLATFORM": "offscreen", "MUSTER_HOME": str(folder / "home")}
    picture = str(folder / "picture.png")
    process([*MUSTER, "--demo", "4x40", "gui", "--screenshot", picture], env=env)  # warm the caches

    bare = [sys.executable, "-m", "tests.perf.bare_window"]
    ours, other, ratio = pairs(
        lambda: _record(folder, env, "WindowShown", "--demo", "4x40")["cpu_s"],
        lambda: process(bare, env=env).cpu_s,
        PAIRS,
    )
    yield Row(
        name="start to window, CPU; beside a bare QMainWindow",
        ours=f"{ours * 1000:.0f} ms",
        other=f"{other * 1000:.0f} ms",
        ratio=f"{ratio:.2f}",
        goal="≤ 1.5",
        met=ratio <= 1.5,
    )
    shown = [_record(folder, env, "RowsShown", "--demo", "64x8000") for _ in range(3)]
    yield Row(
        name="demo, start to 8,000 rows shown, CPU",
        ours=f"{median([r['cpu_s'] for r in shown]):.2f} s",
    )
    yield Row(
        name="demo, start to 8,000 rows shown, wall",
        ours=f"{median([r['wall_s'] for r in shown]):.2f} s",
    )
    yield from _test_driver(folder, env)
    yield from _idle(folder, env)
    yield from _queue_window()


def _queue_window() -> Iterator[Row]:
    """A thousand moves asked for in a window with 8,000 VMs; the simulated hosts cost their share in it."""
    figures = figures_of("tests.perf.queue_window")
    at_rest, idle = figures["rest"], figures["waits"]
    yield Row(
        name=f"queue pane, 64 x 8,000, {figures['waiting']:.0f} moves wait, share of a core; beside none",
        ours=f"{idle * 100:.1f} %",
        other=f"{at_rest * 100:.1f} %",
        ratio=f"{idle / at_rest:.2f}",
    )
    yield Row(
        name=f"queue pane, {figures['at_once']:.0f} of 1,000 move, share of a core",
        ours=f"{figures['moves'] * 100:.0f} %",
    )
    for what, said in (
        ("plan", "1,000 moves planned"),
        ("asked", "1,000 moves asked for"),
        ("waits", "they wait"),
        ("resumed", "the queue goes on"),
        ("moves", "they move"),
    ):
        gap_ms = figures[f"{what}_gap_ms"]
        yield Row(
            name=f"queue pane, {said}, longest gap of the window's thread, wall",
            ours=f"{gap_ms:.0f} ms",
            goal="≤ 100 ms",
            met=gap_ms <= 100,
        )


def _test_driver(folder: Path, env: dict[str, str]) -> Iterator[Row]:
    """8,000 domains of one host of libvirt's test driver; most of both is the driver reading its file."""
    uri = worlds.test_driver_host(folder / "one.xml", 0, 8000)
    ours, other, ratio = pairs(
        lambda: process([*MUSTER, "--connect", uri, "--timeout", "120", "vm", "list"], env=env).cpu_s,
        lambda: process(["virsh", "-c", uri, "list", "--all"]).cpu_s,
        3,
    )
    yield Row(
        name="test driver, one host, list of 8,000, CPU; beside virsh list --all",
        ours=f"{ours:.1f} s",
        other=f"{other:.1f} s",
        ratio=f"{ratio:.2f}",
        goal="≤ 1.25",
        met=ratio <= 1.25,
    )
    ours, other, ratio = pairs(
        lambda: _record(folder, env, "RowsShown", "--connect", uri)["cpu_s"],
        lambda: process(["virsh", "-c", uri, "list", "--all"]).cpu_s,
        3,
    )
    yield Row(
        name="test driver, one host, 8,000 rows in the window, CPU; beside virsh list --all",
        ours=f"{ours:.1f} s",
        other=f"{other:.1f} s",
        ratio=f"{ratio:.2f}",
        goal="≤ 1.25",
        met=ratio <= 1.25,
    )
    cluster = str(worlds.test_driver_cluster(folder, 64, 8000))
    record = _record(folder, env, "RowsShown", "--cluster", cluster)
    yield Row(
        name="test driver, 64 hosts of 125, 8,000 rows in the window, CPU",
        ours=f"{record['cpu_s']:.1f} s",
    )


def _idle(folder: Path, env: dict[str, str]) -> Iterator[Row]:
    """The window left alone with 8,000 VMs, no load column on a visible page."""
    for page, name in (("nodes", "nodes page"), ("roles", "roles page, loads shown")):
        with Gui(folder, env, "--demo", "64x8000", page=page) as gui:
            gui.wait("RowsShown")
            time.sleep(3.0)
            before = gui.cpu_s()
            time.sleep(IDLE_S)
            share = (gui.cpu_s() - before) / IDLE_S
            memory = gui.memory_mib()
        yield Row(
            name=f"window with 8,000 VMs left alone, {name}, share of a core",
            ours=f"{share * 100:.1f} %",
        )
        if page == "roles":
            yield Row(
                name="window with 8,000 VMs, resident memory (with the simulated hosts)",
                ours=f"{memory:.0f} MiB",
            )
    with Gui(folder, env, "--demo", "1x0", page="roles") as gui:
        gui.wait("RowsShown")
        time.sleep(1.0)
        memory = gui.memory_mib()
    yield Row(
        name="empty window, resident memory", ours=f"{memory:.0f} MiB", goal="≤ 100 MiB", met=memory <= 100
    )


def _record(folder: Path, env: dict[str, str], event: str, *words: str) -> dict[str, Any]:
    """The first record of that name of a new window, with the wall time since its start."""
    with Gui(folder, env, *words) as gui:
        return gui.wait(event)


class Gui:
    """A window that is ended as soon as it was measured."""

    def __init__(self, folder: Path, env: dict[str, str], *words: str, page: str = "roles") -> None:
        self._log = folder / f"log-{time.monotonic_ns()}.json"
        self._started_s = time.time()
        self._process = subprocess.Popen(
            [*MUSTER, *words, "--log-json", str(self._log), "gui", "--page", page],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Gui:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self, event: str, limit_s: float = 120.0) -> dict[str, Any]:
        """The first record of that name, with `wall_s` since the start."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            for record in self.records(event):
                return record | {"wall_s": record["at_s"] - self._started_s}
            if self._process.poll() is not None:
                raise RuntimeError(f"the window ended with {self._process.returncode}")
            time.sleep(0.05)
        raise TimeoutError(f"no {event} within {limit_s} s")

    def records(self, event: str) -> list[dict[str, Any]]:
        """All of that name so far."""
        lines = self._log.read_text().splitlines(keepends=True) if self._log.exists() else []
        return [json.loads(line) for line in lines if f'"event":"{event}"' in line and line.endswith("\n")]

    def cpu_s(self) -> float:
        """CPU seconds used so far. Source: proc(5), stat."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Resident memory now. Source: proc(5), statm."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024

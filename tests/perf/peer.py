"""Beside virt-manager, where it is installed: the same test-driver host, the same X screen, in one run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.screen import Screen
from tests.perf import worlds
from tests.perf.measure import Row, process
from tests.perf.programs import Gui
from tests.perf.real_window import Figures

IDLE_S = 10.0
SYSTEM_PYTHON = "/usr/bin/python3"
"""virt-manager's modules are the distribution's, and so is what they are written in."""

NEEDED = ("virt-manager", "Xvfb", "dbus-run-session", "virsh", SYSTEM_PYTHON)


def rows(folder: Path, count: int, limit_s: float) -> Iterator[Row]:
    """Ours and theirs; theirs is waited for so long."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        yield Row(name=f"beside virt-manager, {count} VMs", ours="not measured", other=f"no {missing[0]}")
        return
    uri = worlds.test_driver_host(folder / f"peer-{count}.xml", 0, count)
    driver_s = process(["virsh", "-c", uri, "uri"]).cpu_s
    with _screen() as screen:
        ours = _ours(folder, screen.env, uri)
        theirs = _theirs(folder, screen.env, uri, count, limit_s)
    name = f"test driver, {count} VMs; beside virt-manager"
    share_goal, said = (0.02, "≤ 0.02") if count >= 8000 else (0.15, "≤ 0.15")

    def line(
        what: str, key: str, unit: str, scale: float = 1, digits: int = 1, goal: float | None = None
    ) -> Row:
        other = theirs.get(key)
        ratio = ours[key] / other if other else None
        return Row(
            name=f"{name}: {what}",
            ours=f"{ours[key] * scale:.{digits}f} {unit}",
            other=f"{other * scale:.{digits}f} {unit}" if other else f"not after {limit_s:g} s",
            ratio=f"{ratio:.2f}" if ratio is not None else "",
            goal=f"≤ {goal:g}" if goal is not None else "",
            met=ratio <= goal if goal is not None and ratio is not None else None,
        )

    yield line("all rows in the list, wall", "wall_s", "s")
    yield line("all rows in the list, CPU", "cpu_s", "s")
    if theirs:
        own, other = ours["cpu_s"] - driver_s, theirs["cpu_s"] - driver_s
        yield Row(
            name=f"{name}: the same less the driver's reading ({driver_s:.1f} s)",
            ours=f"{own:.2f} s",
            other=f"{other:.2f} s",
            ratio=f"{own / other:.3f}",
            goal=said,
            met=own / other <= share_goal,
        )
    yield line("longest gap until then, wall", "gap_ms", "ms", digits=0)
    yield line("left alone, share of a core", "idle", "%", 100, goal=0.05 if count == 1000 else None)
    yield line("resident memory", "mib", "MiB", digits=0)


@contextmanager
def _screen() -> Iterator[Screen]:
    screen = Screen()
    try:
        yield screen
    finally:
        screen.close()


def _ours(folder: Path, env: dict[str, str], uri: str) -> Figures:
    home = {**env, "MUSTER_HOME": str(folder / "home")}
    with Gui(folder, home, "--connect", uri) as gui:
        shown = gui.wait("RowsShown", 600)
        gui.wait("Settled", 600)
        time.sleep(6.0)  # longest gaps are told every five seconds
        gap_ms = max(record["longest_gap_ms"] for record in gui.records("Heartbeat"))
        before = gui.cpu_s()
        time.sleep(IDLE_S)
        return {
            "wall_s": shown["wall_s"],
            "cpu_s": shown["cpu_s"],
            "gap_ms": gap_ms,
            "idle": (gui.cpu_s() - before) / IDLE_S,
            "mib": gui.memory_mib(),
        }


def _theirs(folder: Path, env: dict[str, str], uri: str, count: int, limit_s: float) -> Figures:
    """Nothing: its list was not complete within the limit."""
    home = folder / "peer-home"
    home.mkdir(mode=0o700, exist_ok=True)
    alone = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "GSETTINGS_BACKEND": "memory",
        "NO_AT_BRIDGE": "1",
    }
    watched = [SYSTEM_PYTHON, str(Path(__file__).with_name("peer_window.py")), str(count), str(IDLE_S), uri]
    clean = {key: value for key, value in env.items() if not key.startswith("PYTHON")}
    started_s = time.time()
    child = subprocess.Popen(
        ["dbus-run-session", "--", *watched],
        env={**clean, **alone},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        told, _ = child.communicate()  # what it said until then
    else:
        if not told.strip():
            raise RuntimeError(f"virt-manager ended with {child.returncode} before its list was complete")
    if not told.strip():
        return {}
    figures: Figures = json.loads(told.splitlines()[-1])
    return figures | {"wall_s": figures["at_s"] - started_s}

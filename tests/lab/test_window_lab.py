"""The window on real hosts: guests moved by keyboard, and a host that hangs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from manager.lab.lab import Lab
from tests.e2e.screen import Record, Window, window
from tests.lab.support import run_apart

pytestmark = pytest.mark.lab

NAMES = ("window-01", "window-02", "window-03")


@pytest.fixture
def slow_file(lab: Lab) -> Path:
    """The lab's cluster file, with moves slow enough for bars to be seen."""
    path = lab.cluster_file.with_name("cluster-window.toml")
    path.write_text(lab.cluster_file.read_text() + "\n[migration]\nbandwidth_mib_s = 16\n")
    return path


@pytest.fixture
def guests(lab: Lab) -> tuple[str, ...]:
    """Three booted guests of this test's own on one node."""

    async def add() -> None:
        for name in NAMES:
            await lab.add_vm(name, "n1")
        for name in NAMES:
            await lab.wait_ready(name, 90)

    run_apart(add)
    return NAMES


def percents(muster: Window) -> list[int]:
    """What the bars were painted from: done bytes of every sample that had a total."""
    figures = [r["data"] for r in muster.look() if r["event"] == "MigrationProgress"]
    return [round(100 * (1 - f["remaining_bytes"] / f["total_bytes"])) for f in figures if f["total_bytes"]]


def ended_well(record: Record) -> bool:
    return record["data"]["failure"] is None


def test_selected_guests_move_live_with_bars_that_move(
    lab: Lab, slow_file: Path, guests: tuple[str, ...], tmp_path: Path
) -> None:
    with window(tmp_path, "--cluster", str(slow_file)) as muster:
        muster.wait("Settled")
        muster.focus()
        muster.keys("ctrl+f")
        muster.type("window-")
        muster.keys("Return", "ctrl+a", "ctrl+m")
        time.sleep(1.0)  # the plan opens; nothing is logged until it is confirmed
        muster.keys("Return")
        asked = muster.wait("ActionRequested")
        steps = asked["data"]["plan"]["steps"]
        assert {step["name"] for step in steps} == set(guests)
        muster.wait("MigrationProgress", lambda r: r["data"]["total_bytes"] > 0)
        # Of every move the call ends twice: the login check, then the move itself.
        muster.wait("EffectEnded", ended_well)
        end = time.monotonic() + 90
        while sum(r["event"] == "EffectEnded" for r in muster.look()) < 6 and time.monotonic() < end:
            time.sleep(0.1)
        assert len(set(percents(muster))) > 3
        took = muster.quit()
        assert took < 3
        assert muster.process.returncode == 0
    for step in steps:
        running = run_apart(lambda node=step["target"]: lab.virsh(node, "list", "--name"))
        assert step["name"] in running.split()


def test_a_host_that_hangs_does_not_hold_the_window(lab: Lab, tmp_path: Path) -> None:
    with window(tmp_path, "--cluster", str(lab.cluster_file)) as muster:
        muster.wait("Settled")
        lab.stop_daemon("n3")
        try:
            begun = time.monotonic()
            lost = muster.wait("NodeLost", limit_s=20)
            assert lost["data"]["node"] == "n3"
            assert time.monotonic() - begun < 16
            assert muster.quit() < 2.0
        finally:
            lab.continue_daemon("n3")
        assert muster.process.returncode == 0
        beats = [r for r in muster.records if r["event"] == "Heartbeat" and r["final"]]
        assert beats[-1]["longest_gap_ms"] < 400  # of a shared machine; nothing waited for the host

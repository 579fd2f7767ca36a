"""The whole program on a screen, by keyboard, watched through its log."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.screen import window

TRIES = 3
"""The machine is shared: a gap that others made goes away when it is tried again, one of ours does not."""


def heaviest_use(folder: Path) -> float:
    """Open 64 nodes and 8,000 VMs, scroll, select all, search; the longest gap in ms."""
    with window(folder, "--demo", "64x8000") as muster:
        muster.wait("RowsShown", lambda r: r["vms"] == 8000)
        muster.focus()
        muster.click(600, 300)
        muster.keys(*["Next"] * 30, "End", "Home", "ctrl+a")
        muster.keys("ctrl+f")
        muster.type("web running")
        muster.keys("Escape", "Escape")
        muster.quit()
        assert muster.process.returncode == 0, muster.errors.read_text()
        final = [r for r in muster.records if r["event"] == "Heartbeat" and r["final"]]
        return float(final[-1]["longest_gap_ms"])


def test_8000_vms_open_scroll_and_select_without_a_gap(tmp_path: Path) -> None:
    gaps = []
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        gaps.append(heaviest_use(folder))
        if gaps[-1] <= 100:
            return
    pytest.fail(f"longest gaps of the window's thread: {gaps} ms")


def test_the_demo_moves_by_keyboard(tmp_path: Path) -> None:
    with window(tmp_path, "--demo", "4x40") as muster:
        muster.wait("RowsShown", lambda r: r["vms"] == 40)
        muster.focus()
        muster.keys("ctrl+f")
        muster.type("app-03")
        muster.keys("Return", "ctrl+a", "ctrl+shift+m")
        asked = muster.wait("ActionRequested")
        assert asked["data"]["plan"]["action"] == "vm.live_migrate"
        muster.wait("MigrationProgress", lambda r: r["data"]["total_bytes"] > 0)
        muster.keys("ctrl+q")
        time.sleep(1.0)
        assert muster.process.poll() is None  # work is left: it asks first

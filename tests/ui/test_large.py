"""64 nodes and 8,000 VMs: open, scroll, select all, search, sort, a burst of events, without a long gap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from PySide6.QtWidgets import QApplication

from manager.core.model import StatusCause, VmStatus
from tests.ui.cluster_of import runtime_of, search, vm_id
from tests.ui.conftest import OpenDesk, until

LONGEST_S = 0.4
"""Generous: the machine is shared. A proxy model, or a selection read through the headers, takes longer."""


async def test_nothing_takes_long_with_8000_vms(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(64, 8000))
    page, table = desk.page, desk.page.table
    assert len(page.model.rows) == 8000
    slow: dict[str, float] = {}

    def timed(name: str, act: Callable[[], object]) -> None:
        QApplication.processEvents()
        begun = time.thread_time()
        act()
        QApplication.processEvents()
        slow[name] = time.thread_time() - begun

    for step in range(10):
        timed(f"scroll {step}", lambda at=step: table.verticalScrollBar().setValue(at * 18_000))  # type: ignore[misc]
    timed("select all", table.selectAll)
    assert desk.window.center.counts["vm.start"].text == "… of 8,000"
    for text in ("w", "we", "web-1", "web-1 n7", ""):
        timed(f"search {text}", lambda words=text: search(page.model, words))  # type: ignore[misc]
    assert table.selected_count == 8000
    for column in ("owner", "priority", "name"):
        timed(f"sort {column}", lambda name=column: page.model.sort_by(name, True))  # type: ignore[misc]

    def burst() -> None:
        for number in range(0, 8000, 8):
            desk.runtime.change(number, VmStatus.CRASHED, StatusCause.CRASHED)

    burst()
    timed("burst", desk.window.clusters[desk.runtime.id].bridge.flush)
    tally = desk.window.clusters[desk.runtime.id].tally
    tally.work()
    assert len(tally.attention) == 1000
    assert max(slow.values()) < LONGEST_S, slow


async def test_counts_of_a_large_selection_come_in_slices(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(4, 1000, off=frozenset(range(100))))
    desk.page.table.selectAll()
    count = desk.window.center.counts
    assert count["vm.start"].text == "… of 1,000"
    assert desk.window.center.actions["vm.start"].isEnabled()  # until it is known, its plan tells
    desk.window.heartbeat.start()
    await until(lambda: all(c.is_complete for c in desk.window.center.counts.values()), "the counts")
    await asyncio.sleep(0)
    counts = desk.window.center.counts
    assert counts["vm.start"].text == "100 of 1,000"
    assert counts["vm.shut_down"].text == "900 of 1,000"
    assert desk.selected[0] == vm_id(0)

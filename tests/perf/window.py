"""What somebody does in the real window: from the key to the picture, and how long its thread is away."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from manager.core.events import NodeSampled
from manager.core.ids import Kind
from manager.core.model import NodeLoad, VmLoad
from manager.core.query.views import BUILT_IN
from manager.ui.heartbeat import Heartbeat
from manager.ui.views.list_page import ListPage
from tests.perf.measure import Row, resident_mib
from tests.perf.real_window import Figures, Opened, changing, figures_of, kept, opened, play, share

WATCHED_S = 8.0
QUERIES = ("web", "status:running owner:n0*", "memory>4GiB not priority:low")
ORDERS = (
    (("memory_mib", True),),
    (("name", False),),
    (("priority", True), ("owner", False), ("name", False)),
)
GROUPS = ("owner", "priority", "tags", "")


class Player:
    """Acts on the list of VMs, each with its picture: CPU of the window's thread, and the longest gap."""

    def __init__(self, shown: Opened) -> None:
        self.shown = shown
        self.figures: Figures = {}

    @property
    def page(self) -> ListPage:
        """The list."""
        page = self.shown.window.list_page
        assert page is not None
        return page

    async def act(self, name: str, acts: Sequence[Callable[[], object]], quantile: float = 0.5) -> None:
        """Do each, paint, and let the window rest until all that follows is done."""
        spent = []
        self.shown.heartbeat.start()
        for act in acts:
            begun = time.thread_time()
            act()
            self.page.table.viewport().repaint()
            spent.append((time.thread_time() - begun) * 1000)
            await asyncio.sleep(0.3)
        spent.sort()
        self.figures[f"{name}_ms"] = spent[min(len(spent) - 1, int(len(spent) * quantile))]
        self.figures[f"{name}_gap_ms"] = self.shown.heartbeat.longest_gap_ms

    async def keys(self) -> None:
        """Typed one by one, the list searched at each, as after the pause that the box waits."""
        search = self.page.search

        def type_one(char: str) -> None:
            QTest.keyClick(search, char)
            search.flush()

        for text in QUERIES:
            search.setFocus(Qt.FocusReason.ShortcutFocusReason)
            await self.act(f"key {text}", [lambda c=char: type_one(c) for char in text], 0.95)  # type: ignore[misc]
            await self.act("clear", [lambda: search.show_query("")])

    async def list_work(self) -> None:
        """Search, views, sort, groups, selection, scroll."""
        await self.keys()
        table, model = self.page.table, self.page.model
        views = [view for view in BUILT_IN[Kind.VM] if view.query or view.group]
        await self.act("view", [lambda v=view: self.shown.window.show_view(v) for view in views], 0.95)  # type: ignore[misc]
        self.shown.window.show_view(BUILT_IN[Kind.VM][0])
        await self.act("sort", [lambda o=order: model.set_order(o) for order in ORDERS * 2])  # type: ignore[misc]
        await self.act("group", [lambda f=field: table.group_by(f) for field in GROUPS * 2])  # type: ignore[misc]
        await self.act("select all", [table.selectAll, table.clearSelection, table.selectAll])
        table.clearSelection()
        bar = table.verticalScrollBar()
        await self.act("page", [lambda: bar.setValue(bar.value() + bar.pageStep())] * 10, 0.95)

    async def updates(self) -> None:
        """1,000 a second, of states told by the hosts, then of loads; the list sorted by what changes."""
        model, table, heartbeat = self.page.model, self.page.table, self.shown.heartbeat
        self.page.search.show_query("priority>=medium")
        model.set_order([("status", False), ("name", False)])
        self.figures["rest"] = await share(WATCHED_S)
        heartbeat.start()
        async with changing(self.shown.world, 1000):
            self.figures["states"] = await share(WATCHED_S)
        self.figures["states_gap_ms"] = heartbeat.longest_gap_ms
        await asyncio.sleep(3.0)
        model.set_order([("cpu", True)])
        await asyncio.sleep(1.0)
        heartbeat.start()
        self.figures["loads"] = await self._loads()
        self.figures["loads_gap_ms"] = heartbeat.longest_gap_ms
        for column, spec in enumerate(model.fields):
            if spec.sample:
                table.show_column(column, False)
        self.page.search.show_query("")
        model.set_order([("name", False)])
        await asyncio.sleep(5.0)
        heartbeat.stop()  # the bench's own, which beats faster than a window's
        usual = Heartbeat(None)
        usual.start()
        await kept(self.shown.runtime, 300.0)
        self.figures["no loads"] = await share(WATCHED_S)
        usual.stop()

    async def _loads(self) -> float:
        """100 figures at a time, ten times a second, beside those that are sampled anyway."""
        runtime = self.shown.runtime
        nodes = [node for node in runtime.view.nodes.values() if runtime.view.owned(node.id)]
        before, begun = time.process_time(), time.perf_counter()
        for tick in range(int(WATCHED_S * 10)):
            node = nodes[tick % len(nodes)]
            at_s = runtime.clock.now_s()
            loads = {
                vm: VmLoad(cpu_percent=float((tick * 37 + place * 11) % 100), at_s=at_s)
                for place, vm in enumerate(list(runtime.view.owned(node.id))[:100])
            }
            runtime.dispatch(
                NodeSampled(
                    at_s=at_s, node=node.id, load=runtime.view.node_loads.get(node.id, NodeLoad()), vms=loads
                )
            )
            await asyncio.sleep(max(0.0, begun + (tick + 1) * 0.1 - time.perf_counter()))
        return (time.process_time() - before) / (time.perf_counter() - begun)


async def measure(app: QApplication) -> Figures:
    """Open the size that was asked for, and play."""
    async with opened(app, sys.argv[1]) as shown:
        player = Player(shown)
        figures = player.figures
        figures["rows"] = len(player.page.model.rows)
        figures["listed_s"], figures["listed_gap_ms"] = shown.listed_s, shown.listed_gap_ms
        figures["mib"] = resident_mib()
        await player.list_work()
        await player.updates()
        figures["mib_after"] = resident_mib()
    return figures


def rows(size: str) -> Iterator[Row]:
    """The figures of one size, as after ``--demo``."""
    found = figures_of("tests.perf.window", size, timeout_s=1800)
    small = found["rows"] <= 8000
    name = f"window, {size.replace('x', ' x ')}"

    def line(what: str, value: float, unit: str, goal: float | None = None) -> Row:
        return Row(
            name=f"{name}: {what}",
            ours=f"{value:.{0 if value >= 100 else 1}f} {unit}",
            goal=f"≤ {goal:g} {unit}" if goal is not None else "",
            ratio=f"{value / goal:.2f}" if goal is not None else "",
            met=value <= goal if goal is not None else None,
        )

    yield line("all rows listed, wall", found["listed_s"], "s")
    yield line("longest gap until all is read, wall", found["listed_gap_ms"], "ms", 50)
    for text in QUERIES:
        yield line(
            f"key to picture, typing {text!r}, p95, CPU", found[f"key {text}_ms"], "ms", 16.7 if small else 25
        )
    yield line("saved view chosen, p95, CPU", found["view_ms"], "ms", 33)
    yield line("sort, one and three keys, CPU", found["sort_ms"], "ms", 25 if small else 100)
    yield line("group by a field, CPU", found["group_ms"], "ms", 25 if small else None)
    yield line("select all, CPU", found["select all_ms"], "ms", 16.7)
    yield line("scroll one page, p95, CPU", found["page_ms"], "ms", 8)
    gaps = {key: value for key, value in found.items() if key.endswith("_gap_ms")}
    work = [gaps[k] for k in gaps if k not in ("listed_gap_ms", "states_gap_ms", "loads_gap_ms")]
    yield line("longest gap meanwhile, wall", max(work), "ms", 100 if small else None)
    rest = found["rest"] * 100
    yield line("left alone, loads of all VMs shown, share of a core", rest, "%")
    yield line("1,000 states a second more, sorted by them, searched", found["states"] * 100 - rest, "%")
    yield line("longest gap meanwhile, wall ", found["states_gap_ms"], "ms", 100 if small else None)
    yield line(
        "1,000 loads a second more, sorted by them, searched",
        found["loads"] * 100 - rest,
        "%",
        10 if small else 25,
    )
    yield line("longest gap meanwhile, wall  ", found["loads_gap_ms"], "ms", 100 if small else None)
    yield line("left alone, no loads shown, share of a core", found["no loads"] * 100, "%", 0.5)
    yield line("resident memory, with the simulated hosts", found["mib"], "MiB", 160 if small else None)
    yield line("resident memory after all that", found["mib_after"], "MiB")


if __name__ == "__main__":
    play(measure)

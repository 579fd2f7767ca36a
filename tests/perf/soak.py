"""Somebody restless in the real window while hundreds of VMs change each second: does it leak, or stall?"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import linear_regression, median

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QApplication, QDialog, QTabBar

from manager.core.query.views import BUILT_IN
from manager.ui.main_window import MainWindow
from manager.ui.views.list_page import ListPage
from tests.perf.measure import Row, resident_mib
from tests.perf.real_window import Figures, changing, figures_of, opened, play

CHANGES = 300
"""VMs that change each second."""

PAGES = ("roles", "nodes", "storage", "networks", "events", "overview")
QUERIES = ("", "web", "status:paused", "memory>4GiB not priority:low", "owner:n0*", "changed<1m", "n1 or n2")
PANES = ("migrations", "operations", "problems")
COUNTED_EVERY_S = 10.0

LONG_MS = 300.0
"""Such a gap is told with what was done."""


class Restless:
    """Does one thing after the other, the same ones for the same seed."""

    def __init__(self, window: MainWindow, seed: int = 1) -> None:
        self.window = window
        self._chance = random.Random(seed)
        self._deeds: tuple[Callable[[ListPage], object], ...] = (
            self._search,
            self._sort,
            self._group,
            self._close_groups,
            self._select,
            self._scroll,
            self._criteria,
            self._details,
            self._view,
        )
        self.done: Counter[str] = Counter()

    def act(self) -> str:
        """One deed: mostly on the list that is shown, now and then another page, pane or dialog; its name."""
        away = self._chance.random()
        page = self.window.list_page
        deed: Callable[[], object]
        if away < 0.15 or page is None:
            name, deed = "go", self._go
        elif away < 0.2:
            name, deed = "pane", self._pane
        elif away < 0.25:
            name, deed = "palette", self._palette
        else:
            chosen = self._chance.choice(self._deeds)
            name, deed = chosen.__name__.strip("_"), partial(chosen, page)
        self.done[name] += 1
        deed()
        return name

    def calm(self) -> None:
        """Back to the list of all VMs, nothing searched for, grouped or selected."""
        self.window.go_page("roles")
        page = self.window.list_page
        assert page is not None
        self.window.show_view(BUILT_IN[page.kind][0])
        page.search.show_query("")
        page.table.group_by("")
        page.model.set_order([("name", False)])
        page.table.clearSelection()
        page.criteria_button.setChecked(False)

    def _go(self) -> None:
        self.window.go_page(self._chance.choice(PAGES))

    def _pane(self) -> None:
        self.window.show_pane(self._chance.choice(PANES))

    def _palette(self) -> None:
        self.window.open_palette()
        for dialog in self.window.findChildren(QDialog):
            dialog.close()

    def _search(self, page: ListPage) -> None:
        page.search.show_query(self._chance.choice(QUERIES))

    def _sort(self, page: ListPage) -> None:
        fields = self._chance.sample([spec.name for spec in page.model.fields], self._chance.randint(1, 3))
        page.model.set_order((field, self._chance.random() < 0.5) for field in fields)

    def _group(self, page: ListPage) -> None:
        page.table.group_by(self._chance.choice(["", "", *(spec.name for spec in page.model.fields)]))

    def _close_groups(self, page: ListPage) -> None:
        page.table.set_all_open(self._chance.random() < 0.6)

    def _select(self, page: ListPage) -> None:
        rows = page.model.rows
        some = [row.key for row in self._chance.sample(list(rows), min(5, len(rows)))]
        self._chance.choice(
            (
                page.table.selectAll,
                page.table.clearSelection,
                page.table.invert_selection,
                lambda: page.select(some),
            )
        )()

    def _scroll(self, page: ListPage) -> None:
        bar = page.table.verticalScrollBar()
        bar.setValue(self._chance.randint(0, bar.maximum()))

    def _criteria(self, page: ListPage) -> None:
        page.criteria_button.click()

    def _details(self, page: ListPage) -> None:
        tabs = getattr(page.details, "tabs", None)
        if isinstance(tabs, QTabBar) and tabs.count():
            tabs.setCurrentIndex(self._chance.randrange(tabs.count()))

    def _view(self, page: ListPage) -> None:
        self.window.show_view(self._chance.choice(BUILT_IN[page.kind]))


def objects_of(window: MainWindow) -> int:
    """How many Qt objects there are: below the window, and widgets of no parent."""
    gc.collect()
    return len(window.findChildren(QObject)) + len(QApplication.topLevelWidgets())


async def measure(app: QApplication) -> Figures:
    """So many seconds; what is counted is counted at rest on the same page, again and again."""
    size, seconds = sys.argv[1], float(sys.argv[2])
    counts: list[tuple[float, float, int]] = []
    gaps: list[float] = []
    async with opened(app, size) as shown:
        window, heartbeat = shown.window, shown.heartbeat
        restless = Restless(window)
        async with changing(shown.world, CHANGES):
            begun, counted = time.monotonic(), 0.0
            cpu = time.process_time()
            while (now := time.monotonic() - begun) < seconds:
                if now - counted >= COUNTED_EVERY_S or not counts:
                    restless.calm()
                    await asyncio.sleep(0.5)
                    counts.append((now, resident_mib(), objects_of(window)))
                    print(f"{now:.0f} s: {counts[-1][1]:.1f} MiB, {counts[-1][2]} objects", file=sys.stderr)
                    counted = now
                heartbeat.start()
                spent = time.thread_time()
                name = restless.act()
                spent = time.thread_time() - spent
                await asyncio.sleep(0.2)
                gaps.append(heartbeat.longest_gap_ms)
                if gaps[-1] > LONG_MS:
                    shown_page = window.here.page if window.here else ""
                    print(
                        f"{name} on {shown_page}: {gaps[-1]:.0f} ms, CPU of it {spent * 1000:.0f}",
                        file=sys.stderr,
                    )
            cpu = (time.process_time() - cpu) / (time.monotonic() - begun)
    late = counts[len(counts) // 3 :]
    gaps.sort()
    return {
        "seconds": seconds,
        "deeds": len(gaps),
        "cpu": cpu,
        "mib": late[0][1],
        "mib_end": late[-1][1],
        "mib_a_minute": _slope([(at / 60, mib) for at, mib, _ in late]),
        "objects": max(count for _, _, count in late[: len(late) // 2]),
        "objects_end": max(count for _, _, count in late[len(late) // 2 :]),
        "gap_ms": gaps[-1],
        "gap_p99_ms": gaps[int(len(gaps) * 0.99)],
        "gap_median_ms": median(gaps),
    }


def _slope(points: Sequence[tuple[float, float]]) -> float:
    return linear_regression(*zip(*points, strict=True)).slope if len(points) > 2 else 0.0


def rows(seconds: float) -> Iterator[Row]:
    """The figures of a soak."""
    found = figures_of("tests.perf.soak", "64x8000", str(seconds), timeout_s=seconds + 300)
    name = f"soak of {seconds / 60:g} min, 64 x 8000, {CHANGES} changes/s, {found['deeds']:.0f} deeds"
    growth, longest = found["mib_a_minute"], found["gap_ms"]
    yield Row(
        name=f"{name}: memory, after the first third; at the end",
        ours=f"{found['mib_end']:.0f} MiB",
        other=f"{found['mib']:.0f} MiB",
        ratio=f"{found['mib_end'] / found['mib']:.2f}",
    )
    yield Row(name=f"{name}: growth a minute", ours=f"{growth:.2f} MiB", goal="≤ 1 MiB", met=growth <= 1)
    yield Row(
        name=f"{name}: Qt objects, most in the last third; in the third before",
        ours=f"{found['objects_end']:.0f}",
        other=f"{found['objects']:.0f}",
        ratio=f"{found['objects_end'] / found['objects']:.2f}",
        goal="≤ 1.05",
        met=found["objects_end"] <= 1.05 * found["objects"],
    )
    yield Row(
        name=f"{name}: longest gap, wall; beside it the median of the deeds'",
        ours=f"{longest:.0f} ms",
        other=f"{found['gap_median_ms']:.0f} ms",
        goal="≤ 500 ms",
        met=longest <= 500,
    )
    yield Row(name=f"{name}: gap of 99 in 100 deeds, wall", ours=f"{found['gap_p99_ms']:.0f} ms")
    yield Row(name=f"{name}: share of a core", ours=f"{found['cpu'] * 100:.0f} %")


if __name__ == "__main__":
    play(measure)

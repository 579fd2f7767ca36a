"""The table's kernels on 8,000 and 64,000 rows: fill, search, sort, select all, a page, a tick."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterState
from manager.core.events import NodeSampled
from manager.core.ids import Kind, NodeId
from manager.core.model import NodeLoad, VmLoad
from manager.core.query.filter import matcher
from manager.ui.models.rows_model import RowsModel
from manager.ui.theme import Look
from manager.ui.views.table import RowsTable
from tests.perf import worlds
from tests.perf.measure import Row, cpu_s, median

TIMES = 7


def search(model: RowsModel, text: str) -> None:
    """As the search box does, with the text read as a query."""
    model.set_filter(matcher(text, model.kind) if text else None, text)


class NoViews:
    """Remembers nothing."""

    def read(self, name: str) -> bytes | None:
        """Nothing."""
        return None

    def write(self, name: str, data: bytes) -> None:
        """Nowhere."""


def rows() -> Iterator[Row]:
    """The figures of the table."""
    instance = QApplication.instance()
    app = instance if isinstance(instance, QApplication) else QApplication([])
    look = Look(app, "light")
    for count in (8000, 64000):
        state = worlds.filled_state(64, count)
        yield from _figures(app, look, state, count)


def _figures(app: QApplication, look: Look, state: ClusterState, count: int) -> Iterator[Row]:
    def show() -> RowsTable:
        table = RowsTable(RowsModel(Kind.VM, state), look, name="bench", views=NoViews(), title="bench")
        table.resize(1400, 850)
        table.show()
        app.processEvents()
        return table

    small = count == 8000
    table = show()
    model = table.rows_model

    def painted(do: Callable[[], object]) -> float:
        def both() -> None:
            do()
            table.viewport().repaint()

        return cpu_s(both)

    yield _row(f"table of {count}: filled and first page painted, CPU", [cpu_s(lambda: show().close())], None)
    keys = ["v", "vm", "vm-0", "vm-01", "vm-012", "vm-01", "vm-0", ""]
    strokes = [painted(lambda text=text: search(model, text)) for text in keys for _ in range(3)]
    strokes.sort()
    yield _row(
        f"table of {count}: search keystroke with repaint, p95, CPU",
        [strokes[int(len(strokes) * 0.95)]],
        16.7 if small else 25,
    )
    queries = ["status:running", "status:running owner:n0*", "memory>1 not vm-01", ""] * 3
    told = sorted(painted(lambda text=text: search(model, text)) for text in queries)
    yield _row(
        f"table of {count}: query of fields with repaint, p95, CPU", [told[int(len(told) * 0.95)]], None
    )
    sorts = [
        painted(lambda f=field, d=down: model.sort_by(f, d))
        for field in ("memory_mib", "name", "owner")
        for down in (True, False)
    ]
    yield _row(f"table of {count}: sort click with repaint, CPU", sorts, 25 if small else 100)
    model.sort_by("name", False)
    yield from _grouped(table, count, painted)
    yield _row(
        f"table of {count}: select all and count, CPU",
        [painted(lambda: (table.selectAll(), table.selected_count)) for _ in range(TIMES)],
        16.7,
    )
    table.clearSelection()
    bar = table.verticalScrollBar()
    pages = [painted(lambda: bar.setValue(bar.value() + bar.pageStep())) for _ in range(40)]
    pages.sort()
    yield _row(f"table of {count}: scroll one page, p95, CPU", [pages[int(len(pages) * 0.95)]], 8)
    model.sort_by("cpu", True)
    yield _row(
        f"table of {count}: tick of 100 changed rows, sorted by the changing column, CPU",
        [painted(lambda: model.take(_tick(state, count))) for _ in range(TIMES)],
        None,
    )
    table.close()


def _grouped(table: RowsTable, count: int, painted: Callable[[Callable[[], object]], float]) -> Iterator[Row]:
    model, small = table.rows_model, count == 8000
    made = [
        painted(lambda f=field: model.group_by(f))
        for _ in range(3)
        for field in ("owner", "priority", "memory_mib", "tags")
    ]
    yield _row(f"table of {count}: group by a field with repaint, CPU", made, 25 if small else None)
    model.group_by("owner")
    toggled = [
        painted(lambda: table.set_open(model.groups[:1], not model.groups[0].is_open)) for _ in range(8)
    ]
    yield _row(
        f"table of {count}: close or open one of 64 groups with repaint, CPU",
        toggled,
        16.7 if small else None,
    )
    turned = [painted(lambda down=down: model.sort_by("name", down)) for down in (True, False) * 3]
    yield _row(f"table of {count}: sort click in 64 groups with repaint, CPU", turned, 25 if small else 100)
    keys = ["v", "vm", "vm-0", "vm-01", "vm-012", "vm-01", "vm-0", ""]
    strokes = sorted(painted(lambda text=text: search(model, text)) for text in keys for _ in range(3))
    yield _row(
        f"table of {count}: search keystroke in 64 groups with repaint, p95, CPU",
        [strokes[int(len(strokes) * 0.95)]],
        16.7 if small else None,
    )
    yield _row(
        f"table of {count}: select all in 64 groups and count, CPU",
        [painted(lambda: (table.selectAll(), table.selected_count)) for _ in range(TIMES)],
        16.7,
    )
    table.clearSelection()
    model.group_by("name")
    one = painted(lambda: table.set_all_open(False))
    yield _row(
        f"table of {count}: close all of {count} groups with repaint, CPU", [one], 100 if small else None
    )
    model.group_by("")


def _tick(state: ClusterState, count: int) -> ChangeSet:
    chance = random.Random(1)
    share = count // 64
    vms = {
        worlds.vm_id(n): VmLoad(cpu_percent=chance.random() * 100, at_s=1.0)
        for n in chance.sample(range(share), 100)
    }
    return state.handle(NodeSampled(at_s=50.0, node=NodeId("n00"), load=NodeLoad(), vms=vms)).changes


def _row(name: str, seconds: list[float], goal_ms: float | None) -> Row:
    middle_ms = median(seconds) * 1000
    return Row(
        name=name,
        ours=f"{middle_ms:.1f} ms",
        goal=f"≤ {goal_ms:g} ms" if goal_ms else "",
        met=middle_ms <= goal_ms if goal_ms else None,
    )

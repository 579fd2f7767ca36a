"""Bars on a terminal while an action runs; nothing where nobody looks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from manager.cli.output import as_said, printable, say
from manager.core.ids import OperationId
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.units import duration_text, size_text
from manager.services.runtime import Runtime
from manager.services.tasks import Tasks

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

REDRAW_S = 0.2
MOST_BARS = 8


@contextmanager
def shown(
    runtime: Runtime, title: str, operations: Callable[[], Mapping[str, Operation]], total: int
) -> Iterator[Callable[[str], None]]:
    """Show how far the operations are, on standard error, as long as the block runs. Loop thread only.

    Gives the function that says something meanwhile.
    """
    if not sys.stderr.isatty():
        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    bars = Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=24),
        TaskProgressColumn(markup=False),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        console=Console(stderr=True, highlight=False, markup=False, emoji=False),
        auto_refresh=False,  # redrawn from the loop: no thread of its own
        transient=True,
        redirect_stdout=False,
    )
    drawing = _Drawing(runtime, bars, title, operations, total)
    with bars:
        redraw = Tasks("progress").spawn(drawing.run(), "bars")
        try:
            yield lambda text: bars.console.print(as_said(text), soft_wrap=True)
        finally:
            redraw.cancel()


class _Drawing:
    def __init__(
        self,
        runtime: Runtime,
        bars: Progress,
        title: str,
        operations: Callable[[], Mapping[str, Operation]],
        total: int,
    ) -> None:
        self._runtime = runtime
        self._bars = bars
        self._operations = operations
        self._total = total
        self._all = bars.add_task(title, total=total, note="")
        self._lines: dict[OperationId, TaskID] = {}

    async def run(self) -> None:
        """Redraw a few times a second, until cancelled."""
        while True:
            self.draw()
            await asyncio.sleep(REDRAW_S)

    def draw(self) -> None:
        """Redraw once."""
        operations = list(self._operations().values())
        over = [o for o in operations if o.is_over]
        waiting = [o for o in operations if o.state is OperationState.WAITING]
        busy = [o for o in operations if not o.is_over and o.state is not OperationState.WAITING]
        failed = sum(o.state is not OperationState.DONE for o in over)
        note = f"{len(over)} of {self._total}"
        note += f", {len(waiting)} waiting" if waiting else ""
        note += f", {failed} failed" if failed else ""
        self._bars.update(self._all, completed=len(over), note=note)
        shown = {o.id: o for o in busy[:MOST_BARS]}
        for key in [key for key in self._lines if key not in shown]:
            self._bars.remove_task(self._lines.pop(key))
        for key, operation in shown.items():
            if key not in self._lines:
                name = printable(operation.vm_name)
                total = 100 if operation.kind is OperationKind.MIGRATE else None
                self._lines[key] = self._bars.add_task(f"  {name}", total=total, note="")
            percent, line_note = self._figures(operation)
            self._bars.update(self._lines[key], completed=percent, note=line_note)
        self._bars.refresh()

    def _figures(self, operation: Operation) -> tuple[int, str]:
        figures = self._runtime.view.progress.get(operation.id)
        way = f"{operation.source} → {operation.target}" if operation.target else f"{operation.source}"
        if figures is None:
            return 0, printable(f"{way}  {operation.state.value}")
        note = f"{way}  {figures.phase.value}"
        if figures.rate_bytes_per_s:
            note += f"  {size_text(figures.rate_bytes_per_s)}/s, {size_text(figures.remaining_bytes)} left"
        if figures.eta_s is not None:
            note += f", {duration_text(figures.eta_s)}"
        return figures.percent, printable(note)

"""``--follow``: rows of the queue as they change, one line each."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TextIO

from manager.cli.output import json_line, printable
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, OperationId, VmId
from manager.core.migration.summary import is_others, others_id, others_job, queue_order
from manager.core.operations import Operation, OperationState
from manager.core.query.fields import FIELDS
from manager.core.query.operation_fields import operation_title
from manager.core.units import time_text
from manager.services.runtime import Runtime

LOOK_S = 0.2

ENDS_S = 5.0
"""How long who reads may take over the last lines, once all is done."""


def row_json(view: ClusterView, operation: Operation) -> dict[str, Any]:
    """An operation as JSON has it: by the names of its fields."""
    return {f.name: f.as_json(view, operation) for f in FIELDS[Kind.OPERATION].values()}


def row_line(view: ClusterView, operation: Operation) -> str:
    """An operation on one line: what, where, how it stands and why."""
    fields = FIELDS[Kind.OPERATION]

    def cell(name: str) -> str:
        return fields[name].cell(view, operation)

    way = cell("way")
    parts = [f"{operation_title(operation)}{f', {way}' if way else ''}: {cell('phase')}"]
    if operation.is_over or operation.reason is not None or cell("next"):
        parts.append(cell("reason"))
    return "; ".join(part for part in parts if part)


class Lines:
    """Writes lines from a thread of its own: who reads them slowly must not hold up the work."""

    def __init__(self, into: TextIO) -> None:
        self.is_broken = False
        self._into = into
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="lines", daemon=True)
        self._thread.start()

    async def broken(self) -> None:
        """Return once nobody reads the lines any more."""
        while not self.is_broken:  # noqa: ASYNC110 - another thread finds it out
            await asyncio.sleep(LOOK_S)

    def put(self, line: str) -> None:
        """Write one line, soon."""
        self._lines.put(line)

    def close(self) -> None:
        """Wait until all is written, not for ever."""
        self._lines.put(None)
        self._thread.join(ENDS_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self.is_broken:
                continue
            try:
                self._into.write(line + "\n")
                self._into.flush()
            except (OSError, ValueError):  # a pipe that nobody reads any more
                self.is_broken = True


@contextmanager
def lines() -> Iterator[Lines]:
    """A writer to standard output that has written all at the end."""
    writer = Lines(sys.stdout)
    try:
        yield writer
    finally:
        writer.close()


class Follower:
    """Tells each change of some operations, and of jobs that are not Muster's. Loop thread only."""

    def __init__(
        self,
        runtime: Runtime,
        is_meant: Callable[[Operation], bool],
        tell: Callable[[str], None],
        *,
        as_json: bool,
        others: bool = False,
    ) -> None:
        self._runtime = runtime
        self._is_meant = is_meant
        self._tell = tell
        self._as_json = as_json
        self._with_others = others
        self._told: dict[OperationId, str] = {}
        self._others: dict[OperationId, Operation] = {}
        self._unsubscribe: Callable[[], None] = lambda: None

    def begin(self, *, also_ended: bool = False) -> None:
        """Tell how they stand, and from now on each change.

        Args:
            also_ended: Also of what is over already.
        """
        view = self._runtime.view
        self._unsubscribe = self._runtime.subscribe(self._changed)
        now = [o for o in view.operations.values() if (also_ended or not o.is_over) and self._is_meant(o)]
        for operation in sorted(now, key=queue_order):
            self._tell_one(operation)
        for vm in view.vms:
            self._look_at_others(vm)

    def end(self) -> None:
        """Tell nothing more."""
        self._unsubscribe()

    def _changed(self, changes: ChangeSet) -> None:
        operations, vms = changes[Kind.OPERATION], changes[Kind.VM]
        for key in sorted((*operations.added, *operations.updated)):
            operation = self._runtime.view.operations.get(OperationId(key))
            if operation is not None and self._is_meant(operation):
                self._tell_one(operation)
        for key in sorted((*vms.added, *vms.updated, *vms.removed)):
            self._look_at_others(VmId(key))

    def _look_at_others(self, vm: VmId) -> None:
        """A job that is not Muster's began, changed or ended."""
        view, key = self._runtime.view, others_id(vm)
        row = view.vms.get(vm)
        if not self._with_others:
            return
        if row is not None and is_others(row):
            job = self._others[key] = others_job(view, row)
            self._tell_one(job)
        elif key in self._others:
            over = replace(self._others.pop(key), state=OperationState.DONE, ended_s=view.now_s)
            self._tell_one(over)
            self._told.pop(key)

    def _tell_one(self, operation: Operation) -> None:
        view = self._runtime.view
        if self._as_json:
            said = line = json_line(row_json(view, operation))
        else:
            said = row_line(view, operation)
            line = f"{time_text(view.now_s)}  {printable(said)}"
        if self._told.get(operation.id) != said:
            self._told[operation.id] = said
            self._tell(line)

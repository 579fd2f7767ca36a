"""What ``muster engine`` tells on standard error: one plain line per thing that happens."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from manager.cli.following import Lines, row_line
from manager.cli.output import printable
from manager.core.changes import ChangeSet
from manager.core.ids import Kind, NodeId, OperationId
from manager.core.migration import moves
from manager.core.operations import OperationKind, OperationState, StandingOrders
from manager.core.units import count_text, duration_text, time_text
from manager.core.work import CONTINUE_AFTER_S
from manager.services.runtime import Runtime


class EngineLog:
    """Listens to one cluster. Loop thread only; lines are written by a thread that may be held up."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._lines = Lines(sys.stderr)
        self._runtime: Runtime | None = None
        self._said: dict[str, str] = {}
        self._orders = StandingOrders()
        self._owner = ""

    def __enter__(self) -> EngineLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()

    def begin(self, runtime: Runtime) -> None:
        """Tell how things stand, and from now on what changes."""
        self._runtime = runtime
        runtime.subscribe(self._changed)
        runtime.engine.on_owner = self._owns
        self._owns()
        self._look_at_orders()

    def end(self) -> None:
        """Tell what is left, before it ends."""
        runtime = self._runtime
        if runtime is None:
            return
        self._runtime = None
        runtime.engine.on_owner = lambda: None
        left = [o for o in runtime.view.operations.values() if not o.is_over and o.vm is not None]
        waiting = [o for o in left if o.state in (OperationState.WAITING, OperationState.CHECKING)]
        between = [o for o in left if o not in waiting and o.move in moves.BACK]
        running = len(left) - len(waiting) - len(between)
        told = []
        if not runtime.engine.is_owner:
            left = []
        if left and running:
            told.append(f"{running} under way: left to the hosts")
        if left and waiting:
            told.append(
                f"{len(waiting)} waiting: kept in the journal; the next Muster within "
                f"{duration_text(CONTINUE_AFTER_S)} goes on with them"
            )
        if left and between:
            names = ", ".join(o.vm_name for o in between)
            told.append(
                f"{count_text(len(between), 'VM')} between two nodes ({names}): the next Muster goes on"
            )
        self._tell("; ".join(["ends", *told]) + ".")

    def _tell(self, text: str) -> None:
        self._lines.put(printable(f"{time_text(time.time())}  {self._cluster}: {text}"))

    def _owns(self) -> None:
        runtime = self._runtime
        if runtime is None:
            return
        owner = runtime.engine.owner
        if runtime.engine.is_owner:
            text = f"works on it (process {owner.pid if owner else '?'})."
        elif owner is not None:
            text = f"{owner} works on it; this one takes over when that one ends."
        else:
            return
        if text != self._owner:
            self._owner = text
            self._tell(text)

    def _changed(self, changes: ChangeSet) -> None:
        runtime = self._runtime
        if runtime is None:
            return
        view = runtime.view
        for key in sorted((*changes[Kind.NODE].added, *changes[Kind.NODE].updated)):
            node = view.nodes.get(NodeId(key))
            if node is not None:
                why = f": {node.information.text}" if node.information is not None and not node.is_up else ""
                self._once(f"node {key}", f"node {key} is {node.status.value}{why}")
        for key in sorted((*changes[Kind.OPERATION].added, *changes[Kind.OPERATION].updated)):
            operation = view.operations.get(OperationId(key))
            if operation is None:
                continue
            if operation.kind is OperationKind.CONTROL:
                self._look_at_orders()
            elif operation.vm is None:
                self._once(key, f"{operation.author}: {row_line(view, operation)} [{key}]")
            elif operation.state is OperationState.WAITING and self._said.get(f"{key} waits") is not None:
                continue  # only its place in the line changed
            else:
                if operation.state is OperationState.WAITING:
                    self._said[f"{key} waits"] = ""
                else:
                    self._said.pop(f"{key} waits", None)
                self._once(key, row_line(view, operation))
                if operation.is_over:
                    self._said.pop(key, None)

    def _once(self, key: str, text: str) -> None:
        if self._said.get(key) != text:
            self._said[key] = text
            self._tell(text)

    def _look_at_orders(self) -> None:
        runtime = self._runtime
        if runtime is None:
            return
        now, before, self._orders = runtime.view.orders, self._orders, runtime.view.orders
        if now.paused_by != before.paused_by:
            self._tell(f"paused by {now.paused_by}." if now.paused_by else "goes on.")
        for batch in now.paused_batches:
            if batch not in before.paused_batches:
                self._tell(f"batch {batch} is paused.")
        for batch in before.paused_batches:
            if batch not in now.paused_batches:
                self._tell(f"batch {batch} is not paused any more.")
        for node, count in now.resting:
            if node not in dict(before.resting):
                self._tell(f"{node} is fed no more: the last {count} moves to it failed.")
        for node, _ in before.resting:
            if node not in dict(now.resting):
                self._tell(f"{node} is fed again.")
        if now.limits != before.limits:
            self._tell(f"limits by hand: {', '.join(f'{name} = {value}' for name, value in now.limits)}.")

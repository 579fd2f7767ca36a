"""Orders for work that is there already: cancel, reorder, tune, pause; and what is asked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from manager.core import units
from manager.core.actions import LIVE_MIGRATE, MigrateParameters
from manager.core.errors import UserError
from manager.core.events import QueueVerb
from manager.core.explanations import past_return
from manager.core.ids import ClusterId, OperationId
from manager.core.model import PeerRoute
from manager.core.operations import Operation
from manager.services.runtime import Runtime
from manager.services.tasks import Tasks
from manager.ui.cluster_pages import ClusterPages
from manager.ui.dialogs.base import Asking
from manager.ui.runner import Note, Runner
from manager.ui.views.parts import text_label
from manager.ui.wording import sentence

PAST = 2000
"""How many moves of earlier runs the history shows."""


class Steering(QObject):
    """What was asked for is the core's to carry out; here it is only asked for."""

    paused = Signal()  # or let go on

    def __init__(
        self,
        parent: QWidget,
        clusters: Mapping[ClusterId, ClusterPages],
        tasks: Tasks,
        note: Note,
        runner: Runner,
    ) -> None:
        super().__init__(parent)
        self._parent, self._clusters, self._tasks = parent, clusters, tasks
        self._note, self._runner = note, runner

    def cancel(self, runtime: Runtime, ids: Sequence[OperationId]) -> None:
        """Ask, and cancel what can be cancelled."""
        self._tasks.spawn(self._ask_cancel(runtime, tuple(ids)), "cancel")

    def cancel_all(self, runtime: Runtime) -> None:
        """All moves of a cluster, asked too."""
        pages = self._clusters.get(runtime.id)
        if pages is not None:
            self.cancel(runtime, tuple(pages.queue.watch.live))

    async def _ask_cancel(self, runtime: Runtime, ids: tuple[OperationId, ...]) -> None:
        view = runtime.view
        known = [view.operations[key] for key in ids if key in view.operations]
        past = {o.id: reason for o in known if (reason := past_return(o, view.progress.get(o.id)))}
        told = [f"{view.operations[key].vm_name}: {reason.text}." for key, reason in past.items()][:3]
        if len(past) > len(told):
            told.append(f"{len(past) - len(told)} more are in their second half too.")
        ids = tuple(key for key in ids if key not in past)
        if not ids:
            if past:
                self._note(f"Cannot cancel {' '.join(told)}", (), "")
            return
        count = sum(1 for key in ids if (o := view.operations.get(key)) and o.vm)
        dialog = Asking(
            self._parent, f"Cancel {units.count_text(count, 'operation')} in {runtime.id}?", view.config
        )
        dialog.setMinimumWidth(420)
        text = "What waits is dropped. A VM that is being moved stays where it is and goes on running."
        if past:
            text += f"\nNot {' '.join(told)}"
        dialog.body.addWidget(text_label(text, wrap=True))
        dialog.add_buttons()
        dialog.button("Keep going", dialog.reject, default=True)
        dialog.button(f"Cancel {count}", dialog.accept, style="danger")
        if await dialog.answer():
            self._runner.cancel(runtime, ids)

    def move_through(self, runtime: Runtime, operations: Sequence[Operation]) -> None:
        """Move them again, with the data through this computer."""
        for target in {o.target if o.target_given else None for o in operations}:
            ids = [o.vm for o in operations if o.vm and (o.target if o.target_given else None) == target]
            route = PeerRoute.THROUGH_THIS_COMPUTER
            self._runner.run(
                runtime, LIVE_MIGRATE, ids, MigrateParameters(target=target, route=route), unasked=True
            )

    def steer(self, runtime: Runtime, verb: QueueVerb, what: Mapping[str, Any]) -> None:
        """Give the queue an order; trouble is said."""
        try:
            runtime.steer(verb, **what)
        except (OSError, UserError) as error:
            self._note(sentence(str(error)), (), "error")

    def post_copy(self, runtime: Runtime, operation: Operation) -> None:
        """Ask, and begin the second half of a move."""
        self._tasks.spawn(self._ask_post_copy(runtime, operation), "post-copy")

    async def _ask_post_copy(self, runtime: Runtime, operation: Operation) -> None:
        name, source, target = operation.vm_name, operation.source, operation.target
        dialog = Asking(
            self._parent, f"Let {name} run on {target} now, in {runtime.id}?", runtime.view.config
        )
        dialog.setMinimumWidth(460)
        text = (
            f"{name} runs on {target} from then on and fetches the rest of its memory from {source}. "
            "This cannot be cancelled any more. If either node or the network between them fails before "
            "all of it is there, the VM is lost."
        )
        dialog.body.addWidget(text_label(text, wrap=True))
        dialog.add_buttons()
        dialog.button("Keep copying", dialog.reject, default=True)
        dialog.button("Start the second half", dialog.accept, style="danger")
        if await dialog.answer():
            self.steer(runtime, QueueVerb.TUNE, {"operations": (operation.id,), "post_copy": True})

    def read_past(self, runtime: Runtime) -> None:
        """Have the queue's history show the moves of earlier runs."""
        self._tasks.spawn(self._show_past(runtime), "history")

    async def _show_past(self, runtime: Runtime) -> None:
        past: tuple[Operation, ...] | None = None
        try:
            past = await runtime.engine.history(PAST)
        except OSError as error:
            self._note(f"The history of {runtime.id} cannot be read: {error}.", (), "error")
        pages = self._clusters.get(runtime.id)
        if pages is not None and past is not None:
            pages.queue.show_past(past)
        elif pages is not None:
            pages.queue.past_failed()

    @property
    def all_paused(self) -> bool:
        """Whether no open cluster starts anything."""
        return bool(self._clusters) and all(
            pages.runtime.view.orders.paused_by or pages.runtime.view.config.read_only
            for pages in self._clusters.values()
        )

    def pause_all(self) -> None:
        """Let nothing new start in any open cluster; if that is so already, continue in all."""
        resume = self.all_paused
        for pages in self._clusters.values():
            view = pages.runtime.view
            if not view.config.read_only and bool(view.orders.paused_by) is resume:
                self.steer(pages.runtime, QueueVerb.RESUME if resume else QueueVerb.PAUSE, {})
        self.paused.emit()

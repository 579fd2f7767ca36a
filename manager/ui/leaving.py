"""Closing the window with work left: keep it open, finish, or hand the work over to an engine."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Mapping

from PySide6.QtWidgets import QWidget

from manager.core.ids import ClusterId, OperationId
from manager.core.model import PeerRoute, Tier
from manager.core.operations import OperationState
from manager.services.runtime import Runtime
from manager.ui.background import start_engine
from manager.ui.cluster_pages import ClusterPages
from manager.ui.dialogs.small import WorkLeftDialog
from manager.ui.runner import Note

ENGINE_LOOKS = 15
"""How often, every tenth of a second, it is looked whether an engine stays alive that was started."""


class Leaving:
    """Only the work that this process carries out is asked about."""

    def __init__(
        self,
        parent: QWidget,
        clusters: Mapping[ClusterId, ClusterPages],
        note: Note,
        cancel: Callable[[Runtime, tuple[OperationId, ...]], bool],
        cluster_option: Callable[[Runtime], str],
    ) -> None:
        self._parent, self._clusters, self._note = parent, clusters, note
        self._cancel, self._cluster_option = cancel, cluster_option

    def _work_left(self) -> tuple[int, int, int, bool]:
        """Of the clusters whose work this process carries out: another one goes on without this window."""
        running = waiting = through = 0
        demo = True
        for pages in self._owned():
            view = pages.runtime.view
            for key in view.claims.values():
                operation = view.operations[key]
                if operation.state is OperationState.WAITING:
                    waiting += 1
                else:
                    running += 1
                    through += operation.route is PeerRoute.THROUGH_THIS_COMPUTER
                demo = demo and view.config.tier is Tier.DEMO
        return running, waiting, through, demo

    def _owned(self) -> list[ClusterPages]:
        return [pages for pages in self._clusters.values() if pages.runtime.engine.is_owner]

    @property
    def has_work(self) -> bool:
        """Whether there is something to ask about."""
        running, waiting, _, _ = self._work_left()
        return bool(running or waiting)

    async def ask(self) -> bool:
        """Ask, and see to what was chosen; False: the window stays."""
        running, waiting, through, demo = self._work_left()
        dialog = WorkLeftDialog(self._parent, running, waiting, through, demo=demo)
        if not await dialog.answer():
            return False
        if dialog.choice == WorkLeftDialog.FINISH:
            self._note("Closing when what runs has ended.", (), "")
            return await self._finish_work()
        return dialog.choice != WorkLeftDialog.BACKGROUND or await self._hand_over()

    async def _hand_over(self) -> bool:
        """Start an engine for each cluster with work left; False if one does not run: nothing closes then."""
        for pages in self._owned():
            view = pages.runtime.view
            if not view.claims or view.config.tier is Tier.DEMO:
                continue
            try:
                process = start_engine(shlex.split(self._cluster_option(pages.runtime)))
            except OSError as error:
                self._note(f"The engine did not start: {error.strerror or error}.", (), "error")
                return False
            for _ in range(ENGINE_LOOKS):
                await asyncio.sleep(0.1)
                code = process.poll()
                if code is not None:
                    command = f"muster {self._cluster_option(pages.runtime)} engine"
                    self._note(
                        f"The engine of {pages.runtime.id} ended at once (exit code {code}), so this window "
                        f"stays. Why: {command}",
                        (),
                        "error",
                    )
                    return False
        return True

    async def _finish_work(self) -> bool:
        """Cancel what waits and see the rest end; False if that could not be asked for."""
        for pages in self._owned():
            view = pages.runtime.view
            claimed = [view.operations[key] for key in view.claims.values()]
            waiting = tuple(o.id for o in claimed if o.state is OperationState.WAITING)
            if waiting and not self._cancel(pages.runtime, waiting):
                return False
            left = tuple(view.claims.values())
            if left:
                await pages.runtime.ended(left)
        return True

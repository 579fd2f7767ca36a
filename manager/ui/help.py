"""What helps: keys, why something is grey, a file for somebody who helps, what this program is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

from manager import __version__
from manager.core import units
from manager.core.errors import UserError
from manager.services.runtime import Runtime
from manager.services.support_bundle import make_bundle, write
from manager.services.tasks import Tasks
from manager.ui.actions import ActionCenter
from manager.ui.dialogs.small import AboutDialog, KeysDialog, WhyGreyDialog
from manager.ui.dialogs.support_bundle import SupportBundleDialog
from manager.ui.runner import Note
from manager.ui.steering import PAST
from manager.ui.theme import Look
from manager.ui.travel import Travel


class Help:
    """`log_lines`: what this program told of itself lately, for the support bundle."""

    def __init__(
        self,
        parent: QWidget,
        look: Look,
        tasks: Tasks,
        travel: Travel,
        center: ActionCenter,
        note: Note,
        log_lines: Iterable[str],
    ) -> None:
        self._parent, self._look, self._tasks = parent, look, tasks
        self._travel, self._center, self._note = travel, center, note
        self._log_lines = log_lines

    def show_keys(self) -> None:
        """All keys."""
        KeysDialog(self._parent, self._look).present()

    def show_about(self) -> None:
        """Version and licence."""
        AboutDialog(self._parent).present()

    def explain_grey(self) -> None:
        """Why actions do not apply to what is selected."""
        WhyGreyDialog(self._parent, self._look, self._center.why_not()).present()

    def write_bundle(self) -> None:
        """Write what is known of this cluster to a file for somebody who helps."""
        if self._travel.current is not None:
            self._tasks.spawn(self._write_bundle(self._travel.current.runtime), "support bundle")

    async def _write_bundle(self, runtime: Runtime) -> None:
        view, now_s = runtime.view, runtime.clock.now_s()
        dialog = SupportBundleDialog(self._parent, view.config, now_s)
        if not await dialog.answer():
            return
        since_s, path = dialog.since_s, dialog.path
        try:
            await runtime.remember(since_s)
            past = await runtime.engine.history(PAST)
            bundle = await make_bundle(
                view, __version__, past, list(self._log_lines), since_s=since_s, now_s=now_s
            )
            size = await write(bundle, path)
        except (OSError, UserError) as error:
            self._note(f"The support bundle was not written: {error}", (), "error")
            return
        copy = ("Copy its name", partial(QGuiApplication.clipboard().setText, str(path)))
        text = (
            f"Support bundle written: {path} ({units.size_text(size)}), since {units.moment_text(since_s)}."
        )
        self._note(f"{text} Look before you give it away.", (copy,), "")

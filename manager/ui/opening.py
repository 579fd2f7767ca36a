"""Which clusters are open: connecting, opening, closing, and the passwords asked for on the way."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from manager.core.errors import UserError
from manager.core.ids import ClusterId
from manager.core.model import ClusterConfig
from manager.services.tasks import Tasks
from manager.services.workspace import Workspace
from manager.ui.dialogs.connect import ConnectDialog
from manager.ui.dialogs.small import MessageDialog, SecretDialog
from manager.ui.theme import Look
from manager.ui.travel import Travel
from manager.ui.views.navigation import Place
from manager.ui.views.parts import tip


class Opening:
    """Trouble is said in one message; the window goes to what was opened."""

    def __init__(
        self, parent: QWidget, look: Look, workspace: Workspace, tasks: Tasks, travel: Travel
    ) -> None:
        self._parent, self._look, self._workspace = parent, look, workspace
        self._tasks, self._travel = tasks, travel

    def connect_cluster(self) -> None:
        """Ask for a new cluster."""
        self._tasks.spawn(self._connect(), "connect")

    async def _connect(self) -> None:
        dialog = ConnectDialog(self._parent, self._look, self._workspace, self._tasks)
        if await dialog.answer() and dialog.config is not None:
            await self.open_cluster(dialog.config, self._workspace.adapters.files.find(dialog.config.name))

    async def open_cluster(self, config: ClusterConfig, source: Path | None) -> None:
        """Open a cluster and go to it; trouble is said in one message."""
        try:
            runtime = await self._workspace.open(config, source)
        except UserError as error:
            MessageDialog(self._parent, "Not opened", str(error)).present()
            return
        self._travel.to(Place(runtime.id, "roles"))

    def open_file(self) -> None:
        """Open any cluster file."""
        dialog = QFileDialog(self._parent, "Open a cluster file")
        dialog.setNameFilters(["Cluster files (*.toml)", "All files (*)"])
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.open_named)
        dialog.open()

    def open_named(self, name_or_file: str) -> None:
        """Open a cluster by its name or file."""
        try:
            path = self._workspace.adapters.files.find(name_or_file)
            config = self._workspace.adapters.files.load(name_or_file)
        except UserError as error:
            MessageDialog(self._parent, "Not opened", str(error)).present()
            return
        self._tasks.spawn(self.open_cluster(config, path), "open")

    def open_demo(self) -> None:
        """Open the simulated cluster."""
        try:
            config = self._workspace.adapters.demo("4x40")
        except UserError as error:
            MessageDialog(self._parent, "Not opened", str(error)).present()
            return
        if ClusterId(config.name) in self._workspace.runtimes:
            self._travel.to(Place(ClusterId(config.name), "roles"))
            return
        self._tasks.spawn(self.open_cluster(config, None), "open the demo")

    def fill_configured(self, menu: QMenu) -> None:
        """The cluster files of this user."""
        menu.clear()
        try:
            found = self._workspace.adapters.files.configured()
        except UserError as error:
            found = ()
            menu.addAction(str(error)).setEnabled(False)
        for cluster in found:
            action = menu.addAction(cluster.name, partial(self.open_named, str(cluster.path)))
            action.setToolTip(tip(cluster.trouble))
            action.setEnabled(ClusterId(cluster.name) not in self._workspace.runtimes)
        if not found and not menu.actions():
            menu.addAction("None is configured yet").setEnabled(False)

    def close_cluster(self) -> None:
        """Close the cluster that is shown; its hosts go on with what they do."""
        if self._travel.here is not None:
            self._tasks.spawn(self._workspace.close(self._travel.here.cluster), "close a cluster")

    async def ask_secret(self, node: str, user: str, prompt: str) -> str | None:
        """Ask for a password; None if it was given up."""
        kept = self._workspace.adapters.secrets.is_persistent
        dialog = SecretDialog(self._parent, node, user, prompt, kept=kept)
        try:
            return dialog.field.text() if await dialog.answer() else None
        finally:
            dialog.field.clear()

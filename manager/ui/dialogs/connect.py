"""A new cluster: its name, its nodes, and a try at each of them with libvirt's own words and a hint."""

from __future__ import annotations

import asyncio
import re

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QWidget,
)

from manager.core.errors import OperationError, UserError
from manager.core.ids import NodeId
from manager.core.model import ClusterConfig, NodeConfig, NodeFacts
from manager.services.node_session import HINTS
from manager.services.tasks import Tasks
from manager.services.workspace import Workspace
from manager.ui.dialogs.base import Asking
from manager.ui.theme import Look, fixed_font, repolish
from manager.ui.views.parts import PlainTable, text_label, tip

COLOURS = ("#7a5cff", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#e69f00")
"""Bands that hold apart for people who see colours differently."""

SHARED_HINT = "Folders that hold the same files on every node, separated by commas."

SHARED_DOC = (
    "Folders that hold the same files on every node, for instance one NFS share mounted everywhere. "
    "A VM with a disk elsewhere then counts as not movable. Without any, whether storage is shared is not "
    "checked before a live migration: only libvirt looks, once it has begun.\n"
    "They can be changed later in the cluster file, under [storage] shared_paths."
)

_TEST_PATIENCE_S = 25.0


def node_name(uri: str, taken: set[str]) -> str:
    """A node's name from its URI: the host's first label, or its address, made unique."""
    found = re.match(r"[a-z0-9+]+://(?:[^@/]*@)?(?:\[([^\]]*)\]|([^/:?]*))", uri)
    host = (found.group(1) or found.group(2) or "") if found else ""
    if not re.fullmatch(r"[0-9.]+|.*:.*", host):
        host = host.split(".")[0]
    host = host or "node"
    name, count = host, 2
    while name in taken:
        name, count = f"{host}-{count}", count + 1
    return name


class ConnectDialog(Asking):
    """Makes a cluster file and opens it. Nothing is stored before *Connect*."""

    def __init__(self, parent: QWidget | None, look: Look, workspace: Workspace, tasks: Tasks) -> None:
        super().__init__(parent, "Connect to a cluster")
        self.resize(780, 600)
        self._workspace, self._tasks = workspace, tasks
        self._testing = False
        self._answers: list[tuple[str, str, str]] = []
        self.config: ClusterConfig | None = None
        form = QFormLayout()
        form.setHorizontalSpacing(12)
        form.setVerticalSpacing(8)
        self.name = QLineEdit()
        self.name.setMaxLength(60)
        self.name.setPlaceholderText("prod-a")
        self.uris = QPlainTextEdit()
        self.uris.setObjectName("field")
        self.uris.setFont(fixed_font())
        self.uris.setPlaceholderText(
            "qemu+ssh://root@n1.example.org/system\nqemu+ssh://root@n2.example.org/system"
        )
        self.uris.setTabChangesFocus(True)
        self.uris.setMaximumHeight(130)
        self.shared = QLineEdit()
        self.shared.setMaxLength(4000)
        self.shared.setPlaceholderText("may be left empty; for example /srv/vms, /srv/images")
        self.shared.setToolTip(tip(SHARED_DOC))
        self.read_only = QCheckBox("Read-only: look, change nothing")
        form.addRow("Name", self.name)
        form.addRow("Nodes, one\nURI per line", self.uris)
        form.addRow("Shared paths", self.shared)
        form.addRow("", text_label(SHARED_HINT, "dim", wrap=True))
        form.addRow("", self.read_only)
        self.body.addLayout(form)
        self.results = PlainTable(
            ("Node", "Connection", "Answer"),
            look,
            name="Results of the test",
            empty="Each node's answer stands here, once the connections are tested.",
        )
        self.body.addWidget(self.results, 1)
        self.trouble = text_label(style="error", wrap=True, copyable=True)
        self.trouble.hide()
        self.body.addWidget(self.trouble)
        self.add_buttons()
        self.test_button: QPushButton = self.button("Test the connections", self.test)
        self.button("Cancel", self.reject)
        self.go = self.button("Connect", self._connect, style="primary", default=True)
        self.name.setFocus()

    def nodes(self) -> list[NodeConfig]:
        """What was entered, one node per line."""
        found: list[NodeConfig] = []
        for line in self.uris.toPlainText().splitlines():
            uri = line.strip()
            if uri:
                name = node_name(uri, {n.name for n in found})
                found.append(NodeConfig(name=NodeId(name), uri=uri))
        return found

    def test(self) -> None:
        """Try every node, all at the same time; each answer shows as it comes."""
        nodes = self.nodes()
        if self._testing:
            return  # not greyed: the focus would fall on Cancel
        if not nodes:
            self._say("Nodes: at least one URI is needed, such as qemu+ssh://root@n1/system.")
            return
        self._say("")
        self._testing = True
        self._answers = [(str(n.name), n.uri, "connecting …") for n in nodes]
        self.results.show_rows(self._answers)
        test = self._tasks.spawn(self._test(nodes), "connection test")
        self.finished.connect(lambda *_: test.cancel())  # nobody reads the answers any more

    async def _test(self, nodes: list[NodeConfig]) -> None:
        try:
            await asyncio.gather(*(self._test_one(row, node) for row, node in enumerate(nodes)))
        finally:
            self._testing = False

    async def _test_one(self, row: int, node: NodeConfig) -> None:
        try:
            async with asyncio.timeout(_TEST_PATIENCE_S):
                facts = await self._workspace.test_connection(node.uri, read_only=self.read_only.isChecked())
            self._answer(row, answer_text(facts))
        except OperationError as error:
            self._answer(row, trouble_text(error))
        except UserError as error:
            self._answer(row, str(error))
        except TimeoutError:
            self._answer(row, f"No answer within {_TEST_PATIENCE_S:.0f} s.")

    def _answer(self, row: int, text: str) -> None:
        name, uri, _ = self._answers[row]
        self._answers[row] = (name, uri, text)
        self.results.show_rows(self._answers)

    def _connect(self) -> None:
        name = self.name.text().strip()
        nodes = self.nodes()
        if not name:
            self._say("Name: a cluster needs a name, shown everywhere.")
            self.name.setFocus(Qt.FocusReason.OtherFocusReason)
            return
        if not nodes:
            self._say("Nodes: at least one URI is needed, such as qemu+ssh://root@n1/system.")
            self.uris.setFocus(Qt.FocusReason.OtherFocusReason)
            return
        colour = COLOURS[len(self._workspace.runtimes) % len(COLOURS)]
        config = ClusterConfig(
            name=name,
            colour=colour,
            nodes=tuple(nodes),
            read_only=self.read_only.isChecked(),
            shared_paths=tuple(dict.fromkeys(p.strip() for p in self.shared.text().split(",") if p.strip())),
        )
        try:
            path = self._workspace.adapters.files.add(config)
            self.config = self._workspace.adapters.files.load(str(path))
        except UserError as error:
            self._say(str(error))
            return
        self.accept()

    def _say(self, text: str) -> None:
        self.trouble.setText(text)
        self.trouble.setVisible(bool(text))
        repolish(self.trouble)


def answer_text(facts: NodeFacts) -> str:
    """What a host said that answered."""
    parts = [f"Answers: {facts.hostname}", f"{facts.cpus} CPUs", f"{facts.memory_mib / 1024:.0f} GiB"]
    if facts.libvirt_version:
        parts.append(f"libvirt {facts.libvirt_version}")
    if facts.read_only:
        parts.append("read-only")
    return ", ".join(parts)


def trouble_text(error: OperationError) -> str:
    """libvirt's own words, what kind of trouble it is, and what to try."""
    failure = error.failure
    text = f"{failure.code.value.capitalize()}: {failure.text or failure.code.value}"
    hint = HINTS.get(failure.code, "")
    return f"{text}  → {hint}" if hint else text

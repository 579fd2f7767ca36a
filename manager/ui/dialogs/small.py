"""The small dialogs: password, a login between nodes, why an action is grey, keys, about, closing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QLineEdit, QPlainTextEdit, QPushButton, QWidget

from manager import __version__
from manager.core import units
from manager.core.model import ClusterConfig
from manager.core.reasons import Reason
from manager.core.work import CONTINUE_AFTER_S
from manager.ui.dialogs.base import Asking
from manager.ui.theme import Look, fixed_font
from manager.ui.views.parts import PlainTable, text_label
from manager.ui.wording import repair_commands, sentence, why_text


class SecretDialog(Asking):
    """A password that a host asks for; never stored in a file."""

    def __init__(self, parent: QWidget | None, node: str, user: str, prompt: str, *, kept: bool) -> None:
        super().__init__(parent, f"Password for {user or 'this user'} on {node}")
        self.setMinimumWidth(420)
        self.body.addWidget(text_label(sentence(prompt) or f"{node} asks for a password.", wrap=True))
        self.field = QLineEdit()
        self.field.setEchoMode(QLineEdit.EchoMode.Password)
        self.field.setAccessibleName("Password")
        self.body.addWidget(self.field)
        where = (
            "It is kept in this computer's key ring."
            if kept
            else "There is no key ring on this computer: it is held in memory until Muster ends."
        )
        self.body.addWidget(text_label(where, "dim", wrap=True))
        self.add_buttons()
        self.button("Cancel", self.reject)
        self.button("Log in", self.accept, style="primary", default=True)
        self.field.setFocus()


class PeerLoginDialog(Asking):
    """A node cannot log in to another: the commands that repair it, and the way around."""

    def __init__(
        self, parent: QWidget | None, cluster: ClusterConfig, reasons: Sequence[Reason], count: int
    ) -> None:
        first = reasons[0]
        title = f"{first.field('source')} cannot log in to {first.field('target')}"
        super().__init__(parent, title, cluster)
        self.resize(680, 360)
        stayed = f"{units.count_text(count, 'VM')} stayed where {'it was' if count == 1 else 'they were'}."
        self.body.addWidget(text_label(f"{stayed} {sentence(why_text(first))}", wrap=True, copyable=True))
        self.body.addWidget(text_label("Repair it with these commands, then move again:", wrap=True))
        commands = list(dict.fromkeys(line for reason in reasons for line in repair_commands(reason)))
        self.commands = QPlainTextEdit("\n".join(commands))
        self.commands.setObjectName("field")
        self.commands.setReadOnly(True)
        self.commands.setFont(fixed_font())
        self.commands.setAccessibleName("Commands")
        self.commands.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.body.addWidget(self.commands, 1)
        self.add_buttons()
        self.button(
            "Copy the commands", lambda: QApplication.clipboard().setText(self.commands.toPlainText())
        )
        self.button("Close", self.reject, default=True)
        self.button("Move through this computer", self.accept, style="primary")


class WhyGreyDialog(Asking):
    """Why actions do not apply to what is selected."""

    def __init__(
        self, parent: QWidget | None, look: Look, lines: Iterable[tuple[str, str, list[str]]]
    ) -> None:
        super().__init__(parent, "Why is this grey?")
        self.resize(820, 420)
        self.table = PlainTable(("Action", "Applies to", "Why not to the others"), look, name="Why not")
        self.table.show_rows((title, count, "; ".join(reasons)) for title, count, reasons in lines)
        self.body.addWidget(self.table, 1)
        self.add_buttons()
        self.button("Close", self.reject, default=True)


KEYS: tuple[tuple[str, str], ...] = (
    ("Ctrl+K", "Everything by name: actions, pages, VMs, nodes"),
    ("Ctrl+F or /", "Search"),
    ("Ctrl+Shift+F", "Criteria: the search as rows; Alt+↑, Alt+↓ move a row, Esc closes them"),
    ("Esc", "Close, clear; never cancels work"),
    ("F5", "Read again"),
    ("F6, Shift+F6", "Next pane, previous pane"),
    ("Ctrl+1 … 3", "Overview, Roles, Nodes"),
    ("Alt+←, Alt+→", "Back, forward"),
    ("Ctrl+Tab", "Next cluster"),
    ("Ctrl+A, Ctrl+I", "Select all, invert the selection"),
    ("Shift and a click on a title", "Sort by this column too"),
    ("←, →, Ctrl+←, Ctrl+→", "In a list with groups: close, open; all of them"),
    ("Ctrl and a click, Ctrl+Space", "On a group: select its rows, or give them back"),
    ("Ctrl+C, Ctrl+Shift+C", "Copy cells, copy as a muster command"),
    ("Ctrl+S", "Save what the list shows as a view"),
    ("Ctrl+E", "Export what is shown"),
    ("Enter", "Details"),
    ("Space", "Press the button that has the keyboard; in a dialog Enter does so too"),
    ("Alt+Enter", "Settings of the selected VM"),
    ("Menu or Shift+F10", "Actions"),
    ("Shift+F1", "Why is this grey?"),
    ("Ctrl+M, Ctrl+Shift+M", "Live migrate: with the plan, to the best node"),
    ("Ctrl+Shift+S, Ctrl+Shift+D", "Start, shut down"),
    ("Ctrl+Alt+1, 2, 3, 0", "Priority High, Medium, Low, No Auto Start"),
    ("Ctrl+J, Ctrl+Shift+J", "Live migrations; lower pane large or as before"),
    ("Alt+↑, Alt+↓", "In Live migrations: up or down in the queue, inside a priority"),
    ("Enter, Esc", "In Live migrations: to what can be done with a move; back to the list"),
    ("Delete", "In Live migrations: cancel (asks). In Roles: nothing"),
    ("Ctrl+.", "Pause all work, or continue it"),
    ("← → ↑ ↓, + −, F", "In the timeline: from bar to bar, zoom, fit all"),
)
"""The keys, as the help shows them."""


class KeysDialog(Asking):
    """All keys."""

    def __init__(self, parent: QWidget | None, look: Look) -> None:
        super().__init__(parent, "Keys")
        self.resize(520, 520)
        table = PlainTable(("Key", "What it does"), look, name="Keys")
        table.show_rows(KEYS)
        self.body.addWidget(table, 1)
        self.body.addWidget(text_label("Turn off, reset and delete have no key.", "dim"))
        self.add_buttons()
        self.button("Close", self.reject, default=True)


class AboutDialog(Asking):
    """What this is."""

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(parent, "Muster")
        self.setMinimumWidth(380)
        self.body.addWidget(text_label(f"Version {__version__}", copyable=True))
        self.body.addWidget(text_label("For clusters of libvirt/KVM hosts. MIT licence.", "dim", wrap=True))
        self.add_buttons()
        self.button("Close", self.reject, default=True)


class WorkLeftDialog(Asking):
    """The window is to be closed while work is under way."""

    BACKGROUND, FINISH, CLOSE = "background", "finish", "close"

    def __init__(
        self, parent: QWidget | None, running: int, waiting: int, through: int, *, demo: bool
    ) -> None:
        total = running + waiting
        super().__init__(parent, f"Close with {units.count_text(total, 'operation')} left?")
        self.setMinimumWidth(520)
        self.choice = ""
        text = f"{running} under way, {waiting} waiting."
        if demo:
            text += " The demo cluster ends with this window."
        else:
            text += (
                " In the background, “muster engine” goes on with all of it, until it is ended; it can ask"
                " for no password. Without it, what the hosts have begun goes on there, and the next Muster"
                f" goes on with what waits; after more than {units.duration_text(CONTINUE_AFTER_S)} away it"
                " asks first."
            )
            if through:
                text += (
                    f" {units.count_text(through, 'VM')} moving through this computer: given up if it closes,"
                    " and the VM stays where it is."
                )
        self.body.addWidget(text_label(text, wrap=True))
        if not demo:
            self._offer("Keep running in the background", self.BACKGROUND)
        if waiting:
            title = "Cancel what waits, finish the rest" if running else "Cancel what waits"
        else:
            title = "Finish what runs"
        self._offer(f"{title}, then close", self.FINISH)
        self._offer("Close now", self.CLOSE, style="danger")
        self.add_buttons()
        self.button("Stay", self.reject, default=True)

    def _offer(self, title: str, choice: str, *, style: str = "") -> None:
        button = QPushButton(title)
        button.setObjectName(style)
        button.clicked.connect(lambda *_: self._choose(choice))
        self.body.addWidget(button)

    def _choose(self, choice: str) -> None:
        self.choice = choice
        self.accept()


class MessageDialog(Asking):
    """One message that is to be read, copyable."""

    def __init__(self, parent: QWidget | None, title: str, text: str) -> None:
        super().__init__(parent, title)
        self.setMinimumWidth(440)
        label = text_label(text, wrap=True, copyable=True)
        label.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.body.addWidget(label, 1)
        self.add_buttons()
        self.button("Close", self.reject, default=True)

"""Ctrl+K: every action, page, VM and node by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QDialog, QLabel, QLineEdit, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from manager.ui.views.parts import text_label

_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that can be chosen."""

    title: str
    kind: str
    act: Callable[[], object]
    enabled: bool = True


class CommandPalette(QDialog):
    """A search box over a list; Enter does it."""

    def __init__(self, parent: QWidget, entries: Sequence[Found]) -> None:
        super().__init__(parent, Qt.WindowType.Popup | Qt.WindowType.FramelessWindowHint)
        self.setObjectName("panel")
        self.resize(540, 380)
        self._entries = [(f"{e.title} {e.kind}".lower(), e) for e in entries]
        self._shown: list[Found] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 10, 10, 8)
        layout.setSpacing(6)
        self.field = QLineEdit()
        self.field.setPlaceholderText("An action, a page, a VM or a node")
        self.field.setAccessibleName("Command")
        self.list = QListWidget()
        self.list.setAccessibleName("Found")
        self.list.setUniformItemSizes(True)
        self.count: QLabel = text_label(style="dim")
        layout.addWidget(self.field)
        layout.addWidget(self.list, 1)
        layout.addWidget(self.count)
        self.field.textChanged.connect(self._find)
        self.field.installEventFilter(self)
        self.list.itemActivated.connect(lambda *_: self._do())
        self.list.itemClicked.connect(lambda *_: self._do())
        self._find("")
        self.field.setFocus()

    def _find(self, text: str) -> None:
        words = text.lower().split()
        hits = [e for hay, e in self._entries if all(word in hay for word in words)]
        if words:
            first = words[0]
            hits.sort(key=lambda e: (not e.title.lower().startswith(first), not e.enabled))
        self._shown = hits[:_SHOWN]
        self.list.clear()
        for entry in self._shown:
            item = QListWidgetItem(f"{entry.title}    {entry.kind}")
            if not entry.enabled:
                item.setFlags(Qt.ItemFlag.NoItemFlags)
            self.list.addItem(item)
        if self._shown:
            self.list.setCurrentRow(0)
        more = len(hits) - len(self._shown)
        self.count.setText(f"{more:,} more; type to narrow" if more > 0 else f"{len(hits)} found")

    def _do(self) -> None:
        row = self.list.currentRow()
        if 0 <= row < len(self._shown) and self._shown[row].enabled:
            act = self._shown[row].act
            self.accept()
            act()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Arrows move in the list while typing; Enter does it."""
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            if event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Up):
                step = 1 if event.key() == Qt.Key.Key_Down else -1
                self.list.setCurrentRow(max(0, min(self.list.count() - 1, self.list.currentRow() + step)))
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._do()
                return True
        return False

"""The pane on the right: what is selected, and every action with to how many of them it applies."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QRect, QSize, Qt
from PySide6.QtGui import QAction, QEnterEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QScrollArea, QVBoxLayout, QWidget

from manager.ui.actions import ActionCenter, Entry, grouped
from manager.ui.theme import Look
from manager.ui.views.parts import ElidedLabel, hairline, text_label

_EDGE_PX, _GAP_PX = 12, 8


class ActionLine(QAbstractButton):
    """An action's title and its count; grey, never hidden, when it applies to none."""

    def __init__(self, action: QAction, look: Look, *, indent: bool = False) -> None:
        super().__init__()
        self.action = action
        self._look = look
        self._indent = 14 if indent else 0
        self._count = ""
        self._hover = False
        self.setText(action.text())
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.clicked.connect(lambda *_: action.trigger())
        action.changed.connect(self.sync)
        look.changed.connect(self.update)
        self.sync()

    def sync(self) -> None:
        """Follow the QAction."""
        if self.isEnabled() != self.action.isEnabled():
            self.setEnabled(self.action.isEnabled())
        if self.toolTip() != self.action.toolTip():
            self.setToolTip(self.action.toolTip())

    def set_count(self, text: str) -> None:
        """Show to how many it applies."""
        if text != self._count:
            self._count = text
            self.setAccessibleName(f"{self.text()}, {text}" if text else self.text())
            self.update()

    @property
    def count_text(self) -> str:
        """What it shows beside its title."""
        return self._count

    @property
    def is_cut(self) -> bool:
        """Whether its title has too little room."""
        return self._cut()[0] != self.text()

    def _room(self) -> QRect:
        return self.rect().adjusted(_EDGE_PX + self._indent, 0, -_EDGE_PX, 0)

    def _cut(self) -> tuple[str, str]:
        """Title and count as they are drawn: where there is no room for ``35 of 37``, it is ``35``."""
        metrics, room = self.fontMetrics(), self._room().width()
        count = self._count
        if metrics.horizontalAdvance(self.text()) + _GAP_PX + metrics.horizontalAdvance(count) > room:
            count = count.partition(" ")[0]
        left = room - (metrics.horizontalAdvance(count) + _GAP_PX if count else 0)
        return metrics.elidedText(self.text(), Qt.TextElideMode.ElideRight, left), count

    def width_with(self, count: str) -> int:
        """How wide it must be for its title and such a count."""
        metrics = self.fontMetrics()
        texts = metrics.horizontalAdvance(self.text()) + metrics.horizontalAdvance(count)
        return 2 * _EDGE_PX + self._indent + _GAP_PX + texts + 3

    def sizeHint(self) -> QSize:
        """A line of the list, with room for its title alone."""
        return QSize(self.width_with("00"), self._look.sizes.row_px - 1)

    def enterEvent(self, event: QEnterEvent) -> None:
        """Mark it under the pointer."""
        self._hover = True
        self.update()

    def leaveEvent(self, event: QEvent) -> None:
        """No mark any more."""
        self._hover = False
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Title at the left, count at the right."""
        painter = QPainter(self)
        t = self._look.tokens
        enabled = self.isEnabled()
        if self.hasFocus() or (self._hover and enabled):
            painter.fillRect(self.rect(), t.selection if self.hasFocus() else t.hover)
        area = self._room()
        title, count = self._cut()
        painter.setPen(t.text if enabled else t.faint)
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(area, int(Qt.AlignmentFlag.AlignLeft | middle), title)
        painter.setPen(t.dim if enabled else t.faint)
        painter.drawText(QRect(area), int(Qt.AlignmentFlag.AlignRight | middle), count)
        painter.end()


class ActionsPane(QScrollArea):
    """The same QActions as in the menus, as a list."""

    def __init__(self, center: ActionCenter, look: Look) -> None:
        super().__init__()
        self._center = center
        self.setAccessibleName("Actions")
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(170)
        body = QWidget()
        body.setObjectName("panel")
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 10, 0, 10)
        layout.setSpacing(0)
        head = QVBoxLayout()
        head.setContentsMargins(12, 0, 12, 6)
        head.setSpacing(1)
        self.title = ElidedLabel(style="title")
        self.subtitle = ElidedLabel(style="dim")
        head.addWidget(self.title)
        head.addWidget(self.subtitle)
        layout.addLayout(head)
        self.lines: dict[str, ActionLine] = {}
        for _, entries in grouped():
            layout.addSpacing(3)
            layout.addWidget(_inset_line())
            layout.addSpacing(3)
            self._add(layout, entries, look)
        layout.addSpacing(3)
        layout.addWidget(_inset_line())
        layout.addSpacing(3)
        self._extra = layout
        layout.addStretch(1)
        self.setWidget(body)
        center.counted.connect(self.sync)
        self.say("Nothing selected", "Select VMs to act on them")
        self.sync()

    def _add(self, layout: QVBoxLayout, entries: list[Entry], look: Look) -> None:
        submenu = ""
        for entry in entries:
            if entry.submenu != submenu and entry.submenu:
                heading = text_label(entry.submenu)
                heading.setContentsMargins(12, 4, 12, 2)
                layout.addWidget(heading)
            submenu = entry.submenu
            line = ActionLine(self._center.actions[entry.id], look, indent=bool(entry.submenu))
            self.lines[entry.id] = line
            layout.addWidget(line)

    def width_with(self, count: str) -> int:
        """How wide it must be for its titles and such counts, within reason."""
        widest = max(line.width_with(count) for line in self.lines.values())
        return max(170, min(widest + self.verticalScrollBar().sizeHint().width(), 280))

    def add_action(self, action: QAction, look: Look) -> None:
        """A line for an action of the window itself, below the others."""
        self._extra.insertWidget(self._extra.count() - 1, ActionLine(action, look))

    def say(self, title: str, subtitle: str) -> None:
        """What the actions are about."""
        self.title.set_text(title)
        self.subtitle.set_text(subtitle)

    def sync(self) -> None:
        """Show the counts."""
        for key, line in self.lines.items():
            line.set_count(self._center.counts[key].text)
            line.sync()


def _inset_line() -> QWidget:
    holder = QWidget()
    layout = QVBoxLayout(holder)
    layout.setContentsMargins(12, 0, 12, 0)
    layout.addWidget(hairline())
    return holder

"""Ctrl+K: every action, page, view, node and VM by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import nsmallest

import msgspec
from PySide6.QtCore import QEvent, QModelIndex, QObject, QPersistentModelIndex, QRect, Qt
from PySide6.QtGui import QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QDialog,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from manager.services.ports import ViewStore
from manager.ui.models.fuzzy import matched, ranking
from manager.ui.models.groups import plain
from manager.ui.theme import Look
from manager.ui.views.parts import LineDelegate, text_label, tip

_SHOWN = 40
_REMEMBERED = 40
_FOUND = int(Qt.ItemDataRole.UserRole)
_MARKED = _FOUND + 1


@dataclass(slots=True)
class Found:
    """One thing that can be chosen."""

    id: str  # the same the next time; by it is remembered what was used
    title: str
    kind: str
    act: Callable[[], object]
    key: str = ""
    why_not: str = ""  # cannot be done now, and why


class Recent:
    """What was chosen, the last first, kept over runs."""

    def __init__(self, views: ViewStore) -> None:
        self._views = views
        self.ids: list[str] = []
        data = views.read("palette")
        with suppress(msgspec.MsgspecError):
            self.ids = msgspec.json.decode(data, type=list[str])[:_REMEMBERED] if data else []

    def use(self, key: str) -> None:
        """It was chosen now."""
        self.ids = [key, *(each for each in self.ids if each != key)][:_REMEMBERED]
        self._views.write("palette", msgspec.json.encode(self.ids))


class FoundDelegate(LineDelegate):
    """A title with the letters that were typed; what it is and its key on the right, quieter."""

    def paint(
        self,
        painter: QPainter,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> None:
        """Title, why not, kind, key."""
        t, found = self._look.tokens, index.data(_FOUND)
        area = QRect(option.rect)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(area, t.selection)
        painter.save()
        area.adjust(8, 0, -8, 0)
        right = int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight)
        metrics = painter.fontMetrics()
        painter.setPen(t.dim)
        for text, least in ((found.key, 0), (found.kind, 110)):
            if text:
                width = max(least, metrics.horizontalAdvance(text))
                painter.drawText(area, right, text)
                area.setRight(area.right() - width - 14)
        title = metrics.elidedText(plain(found.title), Qt.TextElideMode.ElideMiddle, area.width())
        marked = index.data(_MARKED) if title == found.title else frozenset()
        plain_colour = t.faint if found.why_not else t.text
        for text, is_marked in _runs(title, marked):
            painter.setFont(self._bold if is_marked else option.font)
            painter.setPen(t.accent if is_marked and not found.why_not else plain_colour)
            self._draw(painter, area, text)
        if found.why_not:
            painter.setFont(option.font)
            painter.setPen(t.dim)
            area.setLeft(area.left() + 12)
            cut = painter.fontMetrics().elidedText(found.why_not, Qt.TextElideMode.ElideRight, area.width())
            self._draw(painter, area, cut)
        painter.restore()

    @staticmethod
    def _draw(painter: QPainter, area: QRect, text: str) -> None:
        painter.drawText(area, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), text)
        area.setLeft(area.left() + painter.fontMetrics().horizontalAdvance(text))


def _runs(text: str, marked: frozenset[int]) -> list[tuple[str, bool]]:
    runs: list[tuple[str, bool]] = []
    for place, letter in enumerate(text):
        is_marked = place in marked
        if runs and runs[-1][1] is is_marked:
            runs[-1] = (runs[-1][0] + letter, is_marked)
        else:
            runs.append((letter, is_marked))
    return runs


class CommandPalette(QDialog):
    """A search box over a list; Enter does it."""

    def __init__(self, parent: QWidget, look: Look, entries: Sequence[Found], recent: Recent) -> None:
        super().__init__(parent, Qt.WindowType.Popup | Qt.WindowType.FramelessWindowHint)
        self.setObjectName("panel")
        self.resize(640, 420)
        self._recent = recent
        ranks = {key: place for place, key in enumerate(recent.ids)}
        never = len(ranks)
        # Among those that fit equally well: what was used lately, what can be done, the shorter one.
        self._entries = [
            (e.title.lower(), e.kind.lower(), (ranks.get(e.id, never), bool(e.why_not), len(e.title), at), e)
            for at, e in enumerate(entries)
        ]
        # What can be done now first, unless it was used of late.
        self._usual = sorted(self._entries, key=lambda e: (e[2][0], bool(e[3].why_not), e[2][3]))
        self._hits = self._entries
        self._wanted = ""
        self.shown: list[Found] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 10, 10, 8)
        layout.setSpacing(6)
        self.field = QLineEdit()
        self.field.setPlaceholderText(
            "An action, a page, a view, a VM or a node; some of its letters will do"
        )
        self.field.setAccessibleName("Command")
        self.list = QListWidget()
        self.list.setAccessibleName("Found")
        self.list.setUniformItemSizes(True)
        self.list.setItemDelegate(FoundDelegate(look, self.list))
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
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
        wanted = " ".join(text.split())
        if not wanted:
            self._hits, count = self._entries, len(self._entries)
            best = [entry[3] for entry in self._usual[:_SHOWN]]
        else:
            rank = ranking(wanted)
            # One more letter finds less of what was found; anything else begins anew.
            narrower = bool(self._wanted) and wanted.startswith(self._wanted)
            ranked, hits = [], []
            for entry in self._hits if narrower else self._entries:
                found = rank(entry[0], entry[1])
                if found is not None:
                    ranked.append((found, entry[2], entry[3]))
                    hits.append(entry)
            self._hits, count = hits, len(hits)
            best = [entry for _, _, entry in nsmallest(_SHOWN, ranked, key=lambda each: each[:2])]
        self._wanted = wanted
        self._show(best, count)

    def _show(self, best: list[Found], count: int) -> None:
        self.shown = best
        self.list.clear()
        for found in best:
            item = QListWidgetItem()
            item.setData(_FOUND, found)
            item.setData(_MARKED, matched(self._wanted, found.title))
            said = ", ".join(part for part in (found.title, found.kind, found.key, found.why_not) if part)
            item.setData(Qt.ItemDataRole.AccessibleTextRole, plain(said))
            item.setToolTip(tip(found.why_not))
            self.list.addItem(item)
        if best:
            self.list.setCurrentRow(0)
        more = count - len(best)
        self.count.setText(f"{more:,} more; type to narrow" if more > 0 else f"{count} found")

    def _do(self) -> None:
        row = self.list.currentRow()
        if not 0 <= row < len(self.shown):
            return
        found = self.shown[row]
        if found.why_not:
            self.count.setText(f"{found.title}: {found.why_not}")
            return
        self._recent.use(found.id)
        self.accept()
        found.act()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Arrows move in the list while typing; Enter does it."""
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            steps = {
                Qt.Key.Key_Down: 1,
                Qt.Key.Key_Up: -1,
                Qt.Key.Key_PageDown: 10,
                Qt.Key.Key_PageUp: -10,
            }
            step = steps.get(Qt.Key(event.key()))
            if step is not None:
                self.list.setCurrentRow(max(0, min(self.list.count() - 1, self.list.currentRow() + step)))
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._do()
                return True
        return False

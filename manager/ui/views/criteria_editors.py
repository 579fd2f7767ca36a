"""What the rows of the criteria builder are edited with: choices, words that exist, figures with units."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from PySide6.QtCore import (
    QEvent,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QSize,
    QStringListModel,
    Qt,
    Signal,
)
from PySide6.QtGui import QFocusEvent, QKeyEvent, QPainter, QWheelEvent
from PySide6.QtWidgets import (
    QComboBox,
    QCompleter,
    QHBoxLayout,
    QLineEdit,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from manager.core.query.spec import FieldKind, FieldSpec
from manager.ui.models.rows_model import plain
from manager.ui.views.parts import name_for_ears, text_label, tip

_UNITS = {
    FieldKind.SIZE_MIB: ("MiB", "GiB", "TiB"),
    FieldKind.BYTES: ("B", "KiB", "MiB", "GiB", "TiB"),
    FieldKind.RATE: ("B/s", "KiB/s", "MiB/s", "GiB/s"),
    FieldKind.SECONDS: ("s", "min", "h", "d"),
}
"""Units that are offered; a field of another kind has its own or none."""

_AIR_PX = 4
DOC = Qt.ItemDataRole.UserRole + 1

Seen = Callable[[QWidget], object]
"""Scrolls a widget into sight."""


class Combo(QComboBox):
    """Stands still when the wheel turns over it, and leaves Alt with arrows to its row."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)

    def add(self, text: str, data: object, doc: str = "") -> None:
        """One more to choose."""
        self.addItem(text, data)
        if doc:
            self.setItemData(self.count() - 1, doc, DOC)
            self.setItemData(self.count() - 1, tip(doc), Qt.ItemDataRole.ToolTipRole)

    def choose(self, data: object) -> None:
        """Show this one; one that there is not is added as it is."""
        for at in range(self.count()):
            if self.itemData(at) == data:
                self.setCurrentIndex(at)
                return
        self.add(plain(str(data)), data)
        self.setCurrentIndex(self.count() - 1)

    def showPopup(self) -> None:
        """What each means stands beside it."""
        if any(self.itemData(at, DOC) for at in range(self.count())):
            self._show_docs()
        super().showPopup()

    def _show_docs(self) -> None:
        view = self.view()
        names = (
            max(self.fontMetrics().horizontalAdvance(self.itemText(at)) for at in range(self.count())) + 24
        )
        docs = (str(self.itemData(at, DOC) or "") for at in range(self.count()))
        view.setItemDelegate(_WithDoc(names, view))
        widest = max(self.fontMetrics().horizontalAdvance(doc) for doc in docs)
        view.setMinimumWidth(names + min(widest, 420) + 40)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll the rows."""
        event.ignore()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """See above."""
        if event.modifiers() & Qt.KeyboardModifier.AltModifier:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Be seen."""
        super().focusInEvent(event)
        self._seen(self)


class _WithDoc(QStyledItemDelegate):
    """An item with what it means, dim, in a second column."""

    def __init__(self, names_px: int, parent: QWidget) -> None:
        super().__init__(parent)
        self._names_px = names_px

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        """With some air."""
        return super().sizeHint(option, index) + QSize(0, _AIR_PX)

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Name, then doc."""
        super().paint(painter, option, index)
        doc = index.data(DOC)
        if not doc:
            return
        rect = option.rect.adjusted(self._names_px, 0, -8, 0)
        palette = option.palette
        painter.save()
        painter.setPen(palette.color(palette.ColorRole.PlaceholderText))
        cut = painter.fontMetrics().elidedText(str(doc), Qt.TextElideMode.ElideRight, rect.width())
        painter.drawText(rect, int(Qt.AlignmentFlag.AlignVCenter), cut)
        painter.restore()


class _Line(QLineEdit):
    """A field that scrolls into sight."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen
        self.setObjectName("criterion")
        self.setMaxLength(500)

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Be seen."""
        super().focusInEvent(event)
        self._seen(self)


class Editor(QWidget):
    """Edits one text."""

    edited = Signal()

    def __init__(self, seen: Seen, name: str) -> None:
        super().__init__()
        self._layout = QHBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self._title = name
        self._seen = seen

    def set_name(self, place: str) -> None:
        """Which of two it is."""
        if place == "To":
            self._layout.insertWidget(0, text_label("and", "dim"))
        for stop in self.stops():
            name_for_ears(stop, f"{stop.accessibleName()}: {place.lower()}")

    def mark(self, error: str) -> None:
        """Say what is wrong, to who cannot see it below."""
        for stop in self.stops():
            name_for_ears(stop, stop.accessibleName(), error)

    def stops(self) -> Iterable[QWidget]:
        """What the keyboard reaches."""
        raise NotImplementedError

    def text(self) -> str:
        """As typed."""
        raise NotImplementedError

    def set_text(self, text: str) -> None:
        """Show; nothing is emitted."""
        raise NotImplementedError


class Choice(Editor):
    """One of a few words."""

    def __init__(self, seen: Seen, name: str, words: Iterable[tuple[str, str]]) -> None:
        super().__init__(seen, name)
        self.combo = Combo(seen)
        name_for_ears(self.combo, f"Value of {name}" if name != "Shorthand" else name)
        self.combo.setPlaceholderText("choose")
        for word, doc in words:
            self.combo.add(word, word, doc)
        self.combo.setCurrentIndex(-1)
        self.combo.activated.connect(lambda *_: self.edited.emit())
        self._layout.addWidget(self.combo)

    def stops(self) -> Iterable[QWidget]:
        """The choice."""
        return (self.combo,)

    def text(self) -> str:
        """The word, or nothing."""
        return str(self.combo.currentData() or "")

    def set_text(self, text: str) -> None:
        """Show this word."""
        if text:
            self.combo.choose(text)
        else:
            self.combo.setCurrentIndex(-1)


class TextEditor(Editor):
    """Words, several with commas; those that exist are offered."""

    def __init__(self, seen: Seen, name: str, hint: str, words: Callable[[], Iterable[str]]) -> None:
        super().__init__(seen, name)
        self.line = _Line(seen)
        self.line.setAccessibleName(f"Value of {name}" if name != "Text" else name)
        self.line.setPlaceholderText(hint)
        self.line.setMinimumWidth(160)
        self.line.textEdited.connect(lambda *_: self.edited.emit())
        self.completer = _Offers(self.line, words)
        self._layout.addWidget(self.line)

    def stops(self) -> Iterable[QWidget]:
        """The field."""
        return (self.line,)

    def text(self) -> str:
        """As typed."""
        return self.line.text()

    def set_text(self, text: str) -> None:
        """Show; the cursor stays where the text is the same."""
        if text != self.line.text():
            self.line.setText(text)


class Figure(Editor):
    """A figure and its unit; what is no plain figure (``1h30min``) is typed with its own."""

    def __init__(self, seen: Seen, spec: FieldSpec) -> None:
        super().__init__(seen, spec.title)
        self._units = _UNITS.get(spec.kind, (spec.unit,) if spec.unit else ())
        sized = spec.kind in (FieldKind.SIZE_MIB, FieldKind.BYTES, FieldKind.RATE)
        bare = spec.unit or (self._units[0] if spec.kind in _UNITS else "")
        self._bare = bare if bare in self._units else ""
        usual = {FieldKind.SECONDS: "h", FieldKind.RATE: "MiB/s"}.get(spec.kind, "GiB" if sized else "")
        self._usual = spec.unit if spec.unit in self._units else usual
        self.line = _Line(seen)
        self.line.setAccessibleName(f"Value of {spec.title}")
        self.line.setPlaceholderText("figure")
        self.line.setFixedWidth(76)
        self.line.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.line.textEdited.connect(self._typed)
        self._layout.addWidget(self.line)
        self.unit = Combo(seen)
        name_for_ears(self.unit, f"Unit of {spec.title}")
        for unit in self._units:
            self.unit.add(unit, unit)
        self.unit.setCurrentIndex(self.unit.findData(self._usual))
        self.unit.activated.connect(lambda *_: self.edited.emit())
        if len(self._units) > 1:
            self._layout.addWidget(self.unit)
        elif self._units:
            self._layout.addWidget(text_label(self._units[0], "dim"))

    def stops(self) -> Iterable[QWidget]:
        """Figure, then unit."""
        return (self.line, self.unit) if len(self._units) > 1 else (self.line,)

    def text(self) -> str:
        """``4GiB``."""
        text = self.line.text().strip()
        return text + str(self.unit.currentData() or "") if _is_figure(text) else text

    def set_text(self, text: str) -> None:
        """A figure and a unit that is offered are shown apart."""
        if text == self.text():
            return
        unit = next((each for each in reversed(self._units) if text.endswith(each)), "")
        figure = text.removesuffix(unit).strip()
        if unit and _is_figure(figure):
            self.line.setText(figure)
        else:
            unit = self._bare if _is_figure(text) else "" if text else self._usual
            self.line.setText(text)
        self.unit.setCurrentIndex(self.unit.findData(unit) if unit else -1)

    def _typed(self, text: str) -> None:
        text = text.strip()
        if not text or _is_figure(text):
            if self.unit.currentIndex() < 0:
                self.unit.setCurrentIndex(self.unit.findData(self._usual))
        elif text.rstrip(".-+"):
            self.unit.setCurrentIndex(-1)
        self.edited.emit()


def _is_figure(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("+-").isdigit() and text.isascii()


class _Offers(QCompleter):
    """Values that exist, for the last of those that are typed; Down opens all."""

    def __init__(self, line: QLineEdit, words: Callable[[], Iterable[str]]) -> None:
        super().__init__([], line)
        self._line = line
        self._words = words
        self.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setFilterMode(Qt.MatchFlag.MatchContains)
        self.setMaxVisibleItems(12)
        line.setCompleter(self)
        line.installEventFilter(self)
        self.activated.connect(lambda *_: line.textEdited.emit(line.text()))

    def splitPath(self, path: str) -> list[str]:
        """What is completed: after the last comma."""
        return [path.rpartition(",")[2].strip()]

    def pathFromIndex(self, index: QModelIndex | QPersistentModelIndex) -> str:
        """The values before, and this one."""
        before, comma, _ = self._line.text().rpartition(",")
        chosen = super().pathFromIndex(index)
        shown = f'"{chosen}"' if "," in chosen and '"' not in chosen else chosen
        return f"{before}{comma} {shown}" if comma else shown

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask for the values when the field is entered; open them on Down."""
        if watched is self._line:
            if event.type() == QEvent.Type.FocusIn:
                self.refresh()
            elif isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
                down = event.key() == Qt.Key.Key_Down and not event.modifiers()
                if down and not self._is_open:
                    self.refresh()
                    self.setCompletionPrefix(self.splitPath(self._line.text())[0])
                    self.complete()
                    return True
        return super().eventFilter(watched, event)

    @property
    def _is_open(self) -> bool:
        popup = self.popup()
        return popup is not None and popup.isVisible()

    def refresh(self) -> None:
        """Ask for the values that there are now."""
        model = self.model()
        assert isinstance(model, QStringListModel)
        model.setStringList([plain(word) for word in self._words()])

"""Small pieces that the views are built of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from PySide6.QtCore import QEvent, QModelIndex, QObject, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QAction, QKeyEvent, QKeySequence, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from manager.ui.models.rows_model import plain
from manager.ui.theme import Look, font


def hairline(*, vertical: bool = False) -> QFrame:
    """A separator of one pixel."""
    line = QFrame()
    line.setObjectName("hairline")
    if vertical:
        line.setFixedWidth(1)
    else:
        line.setFixedHeight(1)
    return line


def tip(text: str) -> str:
    """A text for a tooltip: wrapped when it is long, and never read as markup, whatever a host put in it."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<p style='white-space:pre-wrap'>{escaped}</p>" if text else ""


def text_label(text: str = "", style: str = "", *, wrap: bool = False, copyable: bool = False) -> QLabel:
    """A label that never reads its text as markup."""
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    if style:
        label.setObjectName(style)
    label.setWordWrap(wrap)
    if copyable:
        label.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        label.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return label


def flat_button(
    text: str, *, menu: QMenu | None = None, on_click: Callable[[], object] | None = None
) -> QToolButton:
    """A button without a box, as in the strips above lists."""
    button = QToolButton()
    button.setObjectName("flat")
    button.setText(text)
    button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    if menu is not None:
        button.setMenu(menu)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    if on_click is not None:
        button.clicked.connect(lambda *_: on_click())
    return button


def link_button(text: str, on_click: Callable[[], object] | None = None) -> QPushButton:
    """A button that looks like a link."""
    button = QPushButton(text)
    button.setObjectName("link")
    button.setCursor(Qt.CursorShape.PointingHandCursor)
    button.setAutoDefault(False)
    if on_click is not None:
        button.clicked.connect(lambda *_: on_click())
    return button


def name_for_ears(widget: QWidget, name: str, more: str = "") -> None:
    """What a screen reader says. On Linux the value of a choice is its name: what it is of is described."""
    widget.setAccessibleName(name)
    if isinstance(widget, QComboBox):
        more = f"{name}: {more}" if more else name
    widget.setAccessibleDescription(more)


class ElidedLabel(QLabel):
    """A label that cuts its text in the middle and shows it whole in its tooltip."""

    def __init__(self, text: str = "", style: str = "") -> None:
        super().__init__(text)
        self.setTextFormat(Qt.TextFormat.PlainText)
        if style:
            self.setObjectName(style)
        self.setMinimumWidth(24)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    def set_text(self, text: str) -> None:
        """Show another text."""
        if text != self.text():
            self.setText(text)
            self.setToolTip(tip(text))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw what fits."""
        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        cut = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideMiddle, self.width())
        painter.drawText(self.rect(), int(self.alignment() | Qt.AlignmentFlag.AlignVCenter), cut)
        painter.end()


class ElidedLink(QPushButton):
    """A link that cuts its text at the end where there is no room, and shows it whole in its tooltip."""

    def __init__(self, on_click: Callable[[], object]) -> None:
        super().__init__()
        self.setObjectName("link")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAutoDefault(False)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(40)
        self.clicked.connect(lambda *_: on_click())
        self._whole = ""

    @property
    def whole(self) -> str:
        """The text as it was given."""
        return self._whole

    def set_text(self, text: str, more: str = "") -> None:
        """Show this; `more` stands in the tooltip only."""
        self._whole = plain(text)
        self.setAccessibleName(self._whole)
        self.setToolTip(tip("\n".join(part for part in (text, more) if part)))
        self.updateGeometry()
        self._cut()

    def sizeHint(self) -> QSize:
        """Room for all of it."""
        return QSize(self.fontMetrics().horizontalAdvance(self._whole) + 4, super().sizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Cut anew."""
        super().resizeEvent(event)
        self._cut()

    def _cut(self) -> None:
        mode = Qt.TextElideMode.ElideRight
        self.setText(self.fontMetrics().elidedText(self._whole, mode, max(40, self.width() - 2)))


class FactsGrid(QWidget):
    """Names and values in columns; labels are kept and only their texts change."""

    def __init__(self, columns: int = 2) -> None:
        super().__init__()
        self._columns = columns
        self._labels: list[tuple[QLabel, ElidedLabel]] = []
        self._deep = 0
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setHorizontalSpacing(12)
        self._layout.setVerticalSpacing(3)
        for column in range(columns):
            self._layout.setColumnStretch(column * 2 + 1, 1)
            self._layout.setColumnMinimumWidth(column * 2, 92)

    def show_facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Show these pairs, downwards in each column."""
        while len(self._labels) < len(facts):
            self._labels.append((text_label(style="dim"), ElidedLabel()))
        deep = max(1, -(-len(facts) // self._columns))
        if deep != self._deep:
            self._deep = deep
            for place, (name, value) in enumerate(self._labels):
                column, row = divmod(place, deep)
                for widget, at in ((name, column * 2), (value, column * 2 + 1)):
                    self._layout.removeWidget(widget)
                    self._layout.addWidget(widget, row, at)
        for place, (name, value) in enumerate(self._labels):
            shown = place < len(facts)
            name.setVisible(shown)
            value.setVisible(shown)
            if not shown:
                continue
            title, text = facts[place]
            if name.text() != title:
                name.setText(title)
            text = plain(text)
            if value.text() != text:
                value.setText(text)
                value.setToolTip(tip(text))
                value.setAccessibleName(f"{title}: {text}")


_CELL_PX = 22
"""What a cell takes beside its text."""


def shares(needs: Sequence[int], room: int) -> list[int]:
    """Widths for columns that need so much: all of it, or, where there is less, as much as is fair.

    The narrow ones get what they need, and those that need more than their share divide the rest.
    """
    given = [0] * len(needs)
    left = room
    by_need = sorted(range(len(needs)), key=lambda column: needs[column])
    for place, column in enumerate(by_need):
        given[column] = min(needs[column], max(60, left // (len(needs) - place)))
        left -= given[column]
    return given


class LineDelegate(QStyledItemDelegate):
    """Draws the lines of a tree or list, as high as rows are; a bold font is at hand."""

    def __init__(self, look: Look, parent: QWidget) -> None:
        super().__init__(parent)
        self._look = look
        self._bold = font(bold=True)

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        """A line."""
        return QSize(120, self._look.sizes.row_px)


class PlainTable(QTableWidget):
    """A small list of texts for details: read only, copyable; columns share the room, long texts wrap."""

    def __init__(self, titles: Sequence[str], look: Look, *, name: str, empty: str = "") -> None:
        """`empty`: what it says while there is no row."""
        super().__init__(0, len(titles))
        self._nothing = EmptyState(self.viewport()) if empty else None
        if self._nothing is not None:
            self._nothing.say("", empty)
        self.setAccessibleName(name)
        self.setHorizontalHeaderLabels(list(titles))
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setWordWrap(True)
        self.setTabKeyNavigation(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # a path without a place to wrap
        self.setCornerButtonEnabled(False)
        self._row_px = look.sizes.row_px - 2
        rows = self.verticalHeader()
        rows.hide()
        rows.setDefaultSectionSize(self._row_px)
        rows.setMinimumSectionSize(16)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setStretchLastSection(True)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        copy = QAction("Copy", self)
        copy.setShortcut(QKeySequence(QKeySequence.StandardKey.Copy))
        copy.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        copy.triggered.connect(lambda *_: QApplication.clipboard().setText(self.selected_text()))
        self.addAction(copy)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self._rows: list[tuple[str, ...]] = []
        self._fitting = False
        self._chosen = False  # the user chose widths
        header.sectionResized.connect(self._resized)
        self._fit()

    def show_rows(self, rows: Iterable[Sequence[str]], *, follow: bool = False) -> None:
        """Show these rows; what is equal is left alone. `follow`: keep the end in sight."""
        wanted = [tuple(plain(text) for text in row) for row in rows]
        if wanted == self._rows:
            return
        self.setRowCount(len(wanted))
        for at, row in enumerate(wanted):
            if at < len(self._rows) and self._rows[at] == row:
                continue
            for column, text in enumerate(row):
                item = QTableWidgetItem(text)
                item.setToolTip(tip(text))
                self.setItem(at, column, item)
        self._rows = wanted
        if self._nothing is not None:
            self._nothing.setVisible(not wanted)
        self._fit()
        if follow:
            self.scrollToBottom()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the new room."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._fit()

    def _resized(self, column: int, _: int, __: int) -> None:
        if not self._fitting and column != self.columnCount() - 1:
            self._chosen = True
            self._fit_heights()

    def _fit(self) -> None:
        """Columns as wide as their texts; where that is too much, the widest give way and are wrapped."""
        if self._chosen:
            self._fit_heights()
            return
        metrics, header = self.fontMetrics(), self.horizontalHeader()
        needs = []
        for column in range(self.columnCount()):
            texts = {row[column] for row in self._rows}
            widest = max((metrics.horizontalAdvance(text) for text in texts), default=0)
            needs.append(max(header.sectionSizeHint(column), widest + _CELL_PX))
        self._fitting = True
        for column, width in enumerate(shares(needs, self.viewport().width())):
            self.setColumnWidth(column, width)
        self._fitting = False
        self._fit_heights()

    def _fit_heights(self) -> None:
        """Rows as high as what is wrapped in them."""
        metrics, wrapped = self.fontMetrics(), int(Qt.TextFlag.TextWordWrap)
        rooms = [max(20, self.columnWidth(column) - _CELL_PX) for column in range(self.columnCount())]
        for at, row in enumerate(self._rows):
            height = self._row_px
            for text, room in zip(row, rooms, strict=True):
                if metrics.horizontalAdvance(text) > room:
                    box = metrics.boundingRect(QRect(0, 0, room, 10_000), wrapped, text)
                    height = max(height, box.height() + 8)
            if self.rowHeight(at) != height:
                self.setRowHeight(at, height)

    def selected_text(self) -> str:
        """The selected rows, tab-separated."""
        chosen = sorted({index.row() for index in self.selectedIndexes()})
        return "\n".join("\t".join(self._rows[row]) for row in chosen if row < len(self._rows))


class EmptyState(QWidget):
    """What an empty list says: what belongs there, and the button that makes it."""

    def __init__(self, over: QWidget) -> None:
        super().__init__(over)
        self._over = over
        over.installEventFilter(self)
        self.title = text_label(style="title")
        self.body = text_label(style="dim", wrap=True)
        self.button = QPushButton()
        self.title.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.body.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        layout = QVBoxLayout(self)
        layout.setSpacing(8)
        layout.addStretch(2)
        layout.addWidget(self.title)
        layout.addWidget(self.body)
        layout.addWidget(self.button, alignment=Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch(3)
        self._act: Callable[[], object] | None = None
        self.button.clicked.connect(self._clicked)
        self.hide()

    def say(self, title: str, body: str, button: str = "", act: Callable[[], object] | None = None) -> None:
        """Show this."""
        self.title.setText(title)
        self.title.setVisible(bool(title))
        self.body.setText(body)
        self.button.setText(button)
        self.button.setVisible(bool(button))
        self._act = act
        self.setGeometry(self._over.rect())
        self.show()
        self.raise_()

    def say_none_matches(self, text: str, total: int, clear: Callable[[], object]) -> None:
        """Show that a search found nothing."""
        self.say(
            f"None of {total:,} matches “{text.strip()}”",
            "Each word must occur in a column that holds text, and each condition hold.",
            "Clear the search",
            clear,
        )

    def _clicked(self) -> None:
        if self._act is not None:
            self._act()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Cover the list as it is resized."""
        if event.type() == QEvent.Type.Resize:
            self.setGeometry(self._over.rect())
        return False


class NoteBar(QFrame):
    """A line above the list: what just happened or needs an answer, with its buttons."""

    def __init__(
        self, text: str, buttons: Sequence[tuple[str, Callable[[], object]]], *, severity: str = ""
    ) -> None:
        super().__init__()
        self.setObjectName(f"note_{severity}" if severity else "note")
        self.setAccessibleName(text)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(12, 5, 6, 5)
        layout.setSpacing(8)
        self.label = text_label(text, wrap=True, copyable=True)
        layout.addWidget(self.label, 1)
        self.buttons: list[QPushButton] = []
        for title, act in buttons:
            button = QPushButton(title)
            button.setAutoDefault(False)
            button.clicked.connect(_press(self, act))
            layout.addWidget(button, alignment=Qt.AlignmentFlag.AlignVCenter)
            self.buttons.append(button)
        close = flat_button("×", on_click=self.dismiss)
        close.setToolTip("Hide this note")
        close.setAccessibleName("Hide this note")
        layout.addWidget(close, alignment=Qt.AlignmentFlag.AlignVCenter)

    def dismiss(self) -> None:
        """Take it away; nothing else happens."""
        self.hide()
        self.deleteLater()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Esc hides it."""
        if event.key() == Qt.Key.Key_Escape:
            self.dismiss()
        else:
            super().keyPressEvent(event)


def _press(note: NoteBar, act: Callable[[], object]) -> Callable[[], None]:
    def pressed() -> None:
        note.dismiss()
        act()

    return pressed


class FlatBar(QWidget):
    """A bar of six pixels."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look
        self._share = 0.0
        self._token = "accent"
        self._marks: tuple[float, ...] = ()
        self.setMinimumWidth(40)
        look.changed.connect(self.update)

    def show_share(self, share: float, token: str = "accent", marks: tuple[float, ...] = ()) -> None:
        """How far it goes, 0 to 1, in which colour, and where it has marks."""
        share, self._marks = max(0.0, min(1.0, share)), marks
        if (share, token) != (self._share, self._token):
            self._share, self._token = share, token
            self.update()

    def sizeHint(self) -> QSize:
        """As wide as there is room."""
        return QSize(90, 14)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Track and bar."""
        painter = QPainter(self)
        t, px = self._look.tokens, self._look.sizes.bar_px
        top = (self.height() - px) // 2
        painter.fillRect(QRect(0, top, self.width(), px), t.track)
        painter.fillRect(QRect(0, top, round(self.width() * self._share), px), t.colour(self._token))
        for mark in self._marks:
            painter.fillRect(round(self.width() * mark), top - 2, 1, px + 4, t.dim)
        painter.end()

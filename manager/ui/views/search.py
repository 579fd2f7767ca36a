"""The search box of a list: reads what is typed as a query, offers what may follow, says what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from PySide6.QtCore import QCoreApplication, QEvent, QModelIndex, QPoint, QRect, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFocusEvent,
    QFont,
    QInputMethodEvent,
    QKeyEvent,
    QStandardItem,
    QStandardItemModel,
    QTextCharFormat,
)
from PySide6.QtWidgets import QCompleter, QLabel, QLineEdit, QTreeView

from manager.core.ids import Kind
from manager.core.query.complete import Candidate, Known, complete
from manager.core.query.filter import Matcher
from manager.core.query.parser import parse, parts_of
from manager.core.query.query import MAX_CHARS, Flag, QueryError, Term, Words
from manager.services.ports import ViewStore
from manager.ui.theme import Look, repolish

_PAUSE_MS = 30
"""How long nothing is typed before it is searched."""

_OFFER_MS = 60
"""How long nothing is typed before candidates are offered: who types on does not wait for them."""

_PATIENCE_MS = 700
"""How long something unfinished may stand before it is called wrong: nobody likes to be interrupted."""

_OFFERED = 12
"""Candidates that are visible at once."""

_REMEMBERED = 30
"""Queries that the history keeps."""

_NARROWEST_PX = 420


class SearchBox(QLineEdit):
    """Esc clears, then leaves; Down and Enter go to the list; Up shows what was searched for before.

    A text that is no query leaves the list as it is, and says what is wrong after a moment.
    """

    wanted = Signal(object, str)  # the `Matcher`, None for the empty text; and the text
    refused = Signal(object)  # the `QueryError` of a text that is no query
    left = Signal()
    entered = Signal()

    def __init__(
        self,
        name: str,
        hint: str,
        kind: Kind,
        look: Look,
        *,
        views: ViewStore | None = None,
        known: Known = lambda spec: (),
    ) -> None:
        """`views`: where the history is kept; `known`: the values that a field has now."""
        super().__init__()
        self._kind = kind
        self._look = look
        self._known = known
        self._history = _History(kind, views)
        self._offers: list[Candidate] = []
        self._place = (0, 0)  # of what is offered, in the text
        self.error: QueryError | None = None
        self.setClearButtonEnabled(True)
        self.setMaxLength(MAX_CHARS)
        self.setAccessibleName(name)
        self.setPlaceholderText(hint)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE_MS)
        self._timer.timeout.connect(self._read)
        self._offering = QTimer(self)
        self._offering.setSingleShot(True)
        self._offering.setInterval(_OFFER_MS)
        self._offering.timeout.connect(lambda: self._offer(asked=False))
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(_PATIENCE_MS)
        self._patience.timeout.connect(self._say_error)
        self._note = QLabel()
        self._note.setObjectName("queryNote")
        self._note.setTextFormat(Qt.TextFormat.PlainText)
        self._note.hide()
        self.destroyed.connect(self._note.deleteLater)
        self._popup = QTreeView()
        self._popup.setObjectName("offers")
        self._popup.setHeaderHidden(True)
        self._popup.setRootIsDecorated(False)
        self._popup.setUniformRowHeights(True)
        self._popup.setAccessibleName(f"{name}: what may follow")
        self._model = QStandardItemModel(self)
        self._completer = QCompleter(self._model, self)
        self._completer.setPopup(self._popup)
        self._completer.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        self._completer.setMaxVisibleItems(_OFFERED)
        self._completer.setWidget(self)
        self._completer.activated[QModelIndex].connect(  # type: ignore[index]
            lambda index: self._take(index.row())
        )
        self.textChanged.connect(lambda *_: self._timer.start())
        self.textEdited.connect(lambda *_: self._offering.start())

    # --- what others ask -------------------------------------------------------------------------

    def flush(self) -> None:
        """Search now."""
        self._timer.stop()
        self._read()
        if self.error is not None:
            self._say_error()

    def take_focus(self) -> None:
        """Go here; typing replaces what is here."""
        self.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.selectAll()

    def show_query(self, text: str) -> None:
        """Another view of the same query changed it."""
        if text != self.text():
            self.setText(text)
        self.flush()

    # --- reading ---------------------------------------------------------------------------------

    def _read(self) -> None:
        text = self.text()
        self._patience.stop()
        try:
            query = parse(text)
            found = Matcher(query, self._kind)
        except QueryError as error:
            self.error = error
            self._colour([])
            self._patience.start()
            self.refused.emit(error)
            self._want_before(text[: error.span[0]])
            return
        self.error = None
        self._hide_note()
        self._colour(list(parts_of(query)))
        self.wanted.emit(found if text.strip() else None, text)

    def _want_before(self, text: str) -> None:
        """What stands before something unfinished or wrong is searched for meanwhile."""
        try:
            query = parse(text)
            self.wanted.emit(Matcher(query, self._kind) if text.strip() else None, text.strip())
        except QueryError:
            pass  # the list stays as it is

    def _colour(self, parts: Sequence[Words | Term | Flag]) -> None:
        """Fields stand out from their values; the place of an error is underlined."""
        tokens = self._look.tokens
        marks: list[tuple[int, int, QTextCharFormat]] = []
        for part in parts:
            if isinstance(part, Term):
                name = QTextCharFormat()
                name.setForeground(tokens.colour("accent"))
                marks.append((part.span[0], len(part.name) + len(part.operator.value), name))
            elif isinstance(part, Flag):
                flag = QTextCharFormat()
                flag.setForeground(tokens.colour("accent"))
                flag.setFontWeight(QFont.Weight.DemiBold)
                marks.append((part.span[0], part.span[1] - part.span[0], flag))
        if self.error is not None:
            wrong = QTextCharFormat()
            wrong.setUnderlineStyle(QTextCharFormat.UnderlineStyle.WaveUnderline)
            wrong.setUnderlineColor(QColor(tokens.colour("crashed")))
            start, end = self.error.span
            marks.append((start, max(1, end - start), wrong))
        # A line edit has no other way to paint parts of its text in formats of their own.
        kind = QInputMethodEvent.AttributeType.TextFormat
        cursor = self.cursorPosition()
        attributes = [QInputMethodEvent.Attribute(kind, at - cursor, size, form) for at, size, form in marks]
        QCoreApplication.sendEvent(self, QInputMethodEvent("", attributes))

    # --- what is wrong -----------------------------------------------------------------------------

    def _say_error(self) -> None:
        if self.error is None:
            return
        self.setAccessibleDescription(self.error.message)
        self._mark(True)
        if not self.isVisible() or self._popup.isVisible():
            return
        note = self._note
        note.setParent(self.window())
        note.setText(self.error.message)
        note.setMaximumWidth(max(200, self.window().width() - 24))
        note.adjustSize()
        at = self.mapTo(self.window(), QPoint(0, self.height() + 2))
        note.move(max(0, min(at.x(), self.window().width() - note.width() - 8)), at.y())
        note.show()
        note.raise_()

    def _hide_note(self) -> None:
        self._note.hide()
        self._mark(False)
        self.setAccessibleDescription("")

    def _mark(self, wrong: bool) -> None:
        if self.property("wrong") != wrong:
            self.setProperty("wrong", wrong)
            repolish(self)

    # --- what may follow ---------------------------------------------------------------------------

    def _offer(self, *, asked: bool) -> None:
        """Show what may stand here; unasked only where something was begun."""
        self._offering.stop()
        found = complete(self.text(), self.cursorPosition(), self._kind, self._known)
        begun = self.text()[found.start : found.end]
        after_sign = found.start > 0 and self.text()[found.start - 1] in ":,=<>"
        useful = [each for each in found.candidates if each.text.lower() != begun.lower()]
        if not useful or not (asked or begun or after_sign):
            self._popup.hide()
            return
        self._place = (found.start, found.end)
        self._show(useful)

    def _offer_history(self) -> None:
        texts = [text for text in self._history.texts if text != self.text()]
        if texts:
            self._place = (0, len(self.text()))
            self._show([Candidate(text) for text in texts])

    def _show(self, offers: list[Candidate]) -> None:
        self._offers = offers
        self._model.clear()
        dim = self._look.tokens.colour("dim")
        for each in offers:
            doc = QStandardItem(each.doc)
            doc.setForeground(dim)
            self._model.appendRow([QStandardItem(each.text), doc])
        self._note.hide()
        width = max(_NARROWEST_PX, self.width())
        self._completer.complete(QRect(0, 0, width, self.height()))
        widest = max(self.fontMetrics().horizontalAdvance(each.text) for each in offers)
        self._popup.setColumnWidth(0, min(widest + 24, width * 2 // 3))
        self._popup.setCurrentIndex(QModelIndex())

    def _take(self, row: int) -> None:
        if not 0 <= row < len(self._offers):
            return
        self._offering.stop()
        start, end = self._place
        text, chosen = self.text(), self._offers[row].text
        self._popup.hide()
        self.setText(text[:start] + chosen + text[end:])
        self.setCursorPosition(start + len(chosen))
        if chosen.endswith(":"):
            self._offer(asked=True)

    # --- Qt ------------------------------------------------------------------------------------------

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """See above."""
        key, offering = event.key(), self._popup.isVisible()
        if offering and (
            key == Qt.Key.Key_Escape
            or (key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self._popup.currentIndex().isValid())
        ):
            event.ignore()  # the list of candidates takes it
        elif key == Qt.Key.Key_Escape:
            if self.text():
                self.clear()
            else:
                self.left.emit()
        elif key in (Qt.Key.Key_Down, Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._offering.stop()
            self._popup.hide()
            self.flush()
            if self.error is None:
                self._history.keep(self.text())
                self.entered.emit()
        elif key == Qt.Key.Key_Up:
            self._offer_history()
        elif key == Qt.Key.Key_Space and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._offer(asked=True)
        else:
            super().keyPressEvent(event)

    def focusNextPrevChild(self, next: bool) -> bool:
        """Tab takes the first candidate, or the chosen one, while some are shown."""
        if next and self._offering.isActive():
            self._offer(asked=False)
        if next and self._popup.isVisible() and self._offers:
            self._take(max(0, self._popup.currentIndex().row()))
            return True
        return super().focusNextPrevChild(next)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """What was searched for is remembered; what is wrong stays marked, not in the way."""
        super().focusOutEvent(event)
        self._note.hide()
        if event.reason() != Qt.FocusReason.PopupFocusReason:
            self._offering.stop()
        if self.error is None and event.reason() != Qt.FocusReason.PopupFocusReason:
            self._history.keep(self.text())

    def changeEvent(self, event: QEvent) -> None:
        """Colours are the theme's."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "_timer"):
            self._timer.start()


class _History:
    """What was searched for, the newest first."""

    def __init__(self, kind: Kind, views: ViewStore | None) -> None:
        self._views = views
        self._name = f"searches-{kind.value}"
        self._texts: list[str] | None = None

    @property
    def texts(self) -> Sequence[str]:
        """Read when they are first needed."""
        if self._texts is None:
            data = self._views.read(self._name) if self._views else None
            try:
                self._texts = msgspec.json.decode(data, type=list[str])[:_REMEMBERED] if data else []
            except msgspec.MsgspecError:
                self._texts = []
        return self._texts

    def keep(self, text: str) -> None:
        """Put it first."""
        text = text.strip()
        if text and list(self.texts[:1]) != [text]:
            rest: Iterable[str] = (each for each in self.texts if each != text)
            self._texts = [text, *rest][:_REMEMBERED]
            if self._views is not None:
                self._views.write(self._name, msgspec.json.encode(self._texts))

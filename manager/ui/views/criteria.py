"""The criteria builder: a query as rows of field, comparison and value, in groups.

It and the text of the search box are two views of one query. What was not touched here is read back as it was
given; what was is read from its row.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from manager.core.ids import Kind
from manager.core.query import criteria
from manager.core.query.complete import Known
from manager.core.query.criteria import Comparison, Criterion
from manager.core.query.fields import FIELDS, TERMS
from manager.core.query.filter import Matcher
from manager.core.query.flags import FLAGS
from manager.core.query.parser import parts_of
from manager.core.query.query import (
    EVERYTHING,
    FLAG,
    AllOf,
    AnyOf,
    Flag,
    Not,
    Operator,
    Query,
    QueryError,
    Term,
    Words,
    all_of,
    any_of,
    text_of,
)
from manager.core.query.spec import FieldKind, FieldSpec
from manager.ui.icons import icon
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look
from manager.ui.views.criteria_editors import Choice, Combo, Editor, Figure, TextEditor
from manager.ui.views.parts import flat_button, hairline, name_for_ears, text_label, tip

MOST = 60
"""Criteria that are shown as rows; a longer query is edited as text."""

_FREE_TEXT, _SHORTHAND = "", FLAG
_INDENT_PX = 16
_COMPARISON_PX = 128
_LINES_PX = 2  # the hairlines above and below
_UNFINISHED = "unfinished"
_TIMES = ("today", "yesterday", "now", "-1h", "-1d", "14:00", "2026-11-22")
_SPANS = ("10min", "1h", "1d", "1w")


class CriteriaPanel(QWidget):
    """A query in rows. At most a third as high as what holds it; scrolls inside beyond."""

    changed = Signal(object)  # the Query, after each edit that changes it
    left = Signal()  # Esc

    def __init__(self, kind: Kind, known: Known, look: Look) -> None:
        super().__init__()
        self.setObjectName("strip")
        self.setAccessibleName("Criteria")
        self.kind, self.known, self.look = kind, known, look
        self._query: Query = EVERYTHING
        self._too_long = text_label(style="dim", wrap=True)
        self._too_long.setContentsMargins(12, 4, 12, 4)
        self._too_long.hide()
        self.root = _Group(self, None)
        inside = QWidget()
        inside.setObjectName("strip")
        column = QVBoxLayout(inside)
        column.setContentsMargins(12, 4, 8, 8)
        column.setSpacing(0)
        column.addWidget(self.root)
        column.addStretch(1)
        self.area = QScrollArea()
        self.area.setObjectName("strip")
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.area.setWidgetResizable(True)
        self.area.setWidget(inside)
        self._inside = inside
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(hairline())
        layout.addWidget(self._too_long)
        layout.addWidget(self.area)
        layout.addWidget(hairline())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        inside.installEventFilter(self)
        self._fit_soon = QTimer(self)
        self._fit_soon.setSingleShot(True)
        self._fit_soon.setInterval(0)
        self._fit_soon.timeout.connect(self._fit)
        look.changed.connect(self.root.repaint_icons)

    @property
    def query(self) -> Query:
        """What is shown, without what is unfinished or wrong."""
        if not self.root.isVisibleTo(self):
            return self._query
        found = self.root.read()
        return EVERYTHING if found is None else found

    def set_query(self, query: Query) -> None:
        """Show this query; nothing is emitted. If it is the one shown, unfinished rows stay."""
        if query == self._query:
            return
        self._query = query
        count = sum(1 for _ in parts_of(query))
        self._too_long.setVisible(count > MOST)
        self.area.setVisible(count <= MOST)
        if count > MOST:
            self._too_long.setText(f"{count:,} criteria: more than {MOST} are edited as text.")
        else:
            _, body = _bare(query)
            self.root.show_query(query if isinstance(body, AllOf | AnyOf) else AllOf((query,)))
            self.root.origin = query
        self.retab()
        self._fit_soon.start()

    def take_focus(self) -> None:
        """Go to the first criterion, or where one is added."""
        first = next(iter(self.root.rows()), None)
        (first.subject if first else self.root.add_row_button).setFocus(Qt.FocusReason.ShortcutFocusReason)

    # --- for its rows ----------------------------------------------------------------------------

    def edited(self) -> None:
        """Something was edited: tell if the query is another one now."""
        query = self.query
        if query != self._query:
            self._query = query
            self.changed.emit(query)

    def restructured(self) -> None:
        """Rows came, went or moved."""
        self.retab()
        self._fit_soon.start()
        self.edited()

    def retab(self) -> None:
        """Tab goes through the rows in the order in which they are seen."""
        order = list(self.root.stops())
        for before, after in pairwise(order):
            QWidget.setTabOrder(before, after)

    def show_focused(self, widget: QWidget) -> None:
        """Scroll to what has the keyboard."""
        self.area.ensureWidgetVisible(widget, 8, 8)

    # --- inside ----------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the height of the rows and of the page."""
        if event.type() == (QEvent.Type.LayoutRequest if watched is self._inside else QEvent.Type.Resize):
            self._fit_soon.start()
        return False

    def changeEvent(self, event: QEvent) -> None:
        """Follow the page that it is put on."""
        super().changeEvent(event)
        page = self.parentWidget()
        if event.type() == QEvent.Type.ParentChange and page is not None:
            page.installEventFilter(self)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Esc leaves."""
        if event.key() == Qt.Key.Key_Escape:
            self.left.emit()
        else:
            super().keyPressEvent(event)

    def _fit(self) -> None:
        if self._too_long.isVisibleTo(self):
            self.setFixedHeight(self._too_long.sizeHint().height() + _LINES_PX)
            return
        needs = self._inside.sizeHint()
        bar = self.area.horizontalScrollBar()
        high = needs.height() + _LINES_PX + (bar.sizeHint().height() if needs.width() > self.width() else 0)
        page = self.parentWidget()
        most = max(96, page.height() // 3) if page is not None else high
        self.setFixedHeight(min(high, most))


class _Part(QWidget):
    """A row or a group: can be denied, removed and moved with Alt and arrows."""

    def __init__(self, panel: CriteriaPanel, parent: _Group | None) -> None:
        super().__init__()
        self.panel = panel
        self.group = parent
        self.origin: Query | None = None  # as given, while nothing in it was touched
        self._nots = 0
        self.not_button = flat_button("not")
        self.not_button.setObjectName("denies")
        self.not_button.setCheckable(True)
        self.not_button.setToolTip("Turn it round: what does not fit")
        self.not_button.clicked.connect(self._deny)
        self.remove_button = flat_button("", on_click=self.remove)
        self.remove_button.setToolTip("Remove")
        _Part.repaint_icons(self)

    def repaint_icons(self) -> None:
        """In the colours of the theme."""
        tokens = self.panel.look.tokens
        self.remove_button.setIcon(icon("close", tokens.dim, tokens.faint))

    def touched(self) -> None:
        """It and all around it are read anew from now on."""
        self.origin = None
        if self.group is not None:
            self.group.touched()

    def remove(self) -> None:
        """Take it away; the keyboard goes to its neighbour."""
        group = self.group
        assert group is not None
        at = group.parts.index(self)
        group.take(self)
        self.hide()
        self.deleteLater()
        neighbours = group.parts[at:] or group.parts[-1:]
        (neighbours[0].first_stop if neighbours else group.add_row_button).setFocus()
        group.touched()
        self.panel.restructured()

    def move_by(self, step: int) -> None:
        """One place up or down: into a group, and out of it at its ends."""
        group = self.group
        if group is None:
            return
        at = group.parts.index(self)
        beyond = at + step
        target, place = group, beyond
        if not 0 <= beyond < len(group.parts):
            if group.group is None:
                return
            target = group.group
            place = target.parts.index(group) + (step > 0)
        elif isinstance(group.parts[beyond], _Group):
            inner = group.parts[beyond]
            assert isinstance(inner, _Group)
            target, place = inner, 0 if step > 0 else len(inner.parts)
        focused = QApplication.focusWidget()
        group.take(self)
        group.touched()
        target.put(self, place)
        target.touched()
        self.panel.restructured()
        if focused is not None:
            focused.setFocus(Qt.FocusReason.OtherFocusReason)
            self.panel.show_focused(self)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Alt and an arrow move it."""
        steps = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}
        if event.modifiers() & Qt.KeyboardModifier.AltModifier and event.key() in steps and self.group:
            self.move_by(steps[Qt.Key(event.key())])
        else:
            super().keyPressEvent(event)

    @property
    def first_stop(self) -> QWidget:
        """Where the keyboard goes when it comes here."""
        raise NotImplementedError

    def stops(self) -> Iterator[QWidget]:
        """What the keyboard reaches, in order."""
        raise NotImplementedError

    def read(self) -> Query | None:
        """The query of this part; None while there is none."""
        raise NotImplementedError

    def _show_nots(self, nots: int) -> None:
        self._nots = nots
        self.not_button.setChecked(nots % 2 == 1)

    def _denied(self, query: Query) -> Query:
        for _ in range(self._nots):
            query = Not(query)
        return query

    def _deny(self, on: bool) -> None:
        self._nots = int(on)
        self.touched()
        self.panel.edited()


class _Group(_Part):
    """All or any of its parts."""

    def __init__(self, panel: CriteriaPanel, parent: _Group | None) -> None:
        super().__init__(panel, parent)
        self.parts: list[_Part] = []
        self.choice = Combo(panel.show_focused)
        self.choice.addItems(["All of these", "Any of these"])
        name_for_ears(self.choice, "Group: all or any of its criteria")
        self.choice.activated.connect(self._chosen)
        self.not_button.setAccessibleName("Not this group")
        self.add_row_button = flat_button("Add criterion", on_click=self._add_row)
        self.add_group_button = flat_button("Add group", on_click=self._add_group)
        self.remove_button.setAccessibleName("Remove group")
        if parent is None:
            self.remove_button.hide()
        head = QHBoxLayout()
        head.setContentsMargins(0, 2, 0, 2)
        head.setSpacing(4)
        for widget in (self.not_button, self.choice, self.add_row_button, self.add_group_button):
            head.addWidget(widget)
        head.addStretch(1)
        head.addWidget(self.remove_button)
        self._body = QVBoxLayout()
        self._body.setContentsMargins(0, 0, 0, 0)
        self._body.setSpacing(0)
        column = QVBoxLayout()
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addLayout(self._body)
        whole = QHBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(_INDENT_PX - 1)
        if parent is not None:
            whole.setContentsMargins(_INDENT_PX, 2, 0, 2)
            whole.addWidget(hairline(vertical=True))
        whole.addLayout(column, 1)

    def repaint_icons(self) -> None:
        """In the colours of the theme."""
        super().repaint_icons()
        for part in self.parts:
            part.repaint_icons()

    @property
    def first_stop(self) -> QWidget:
        """All or any."""
        return self.choice

    def stops(self) -> Iterator[QWidget]:
        """Its own line, then its parts."""
        yield from (self.not_button, self.choice, self.add_row_button, self.add_group_button)
        if self.group is not None:
            yield self.remove_button
        for part in self.parts:
            yield from part.stops()

    def rows(self) -> Iterator[_Row]:
        """All criteria below, in order."""
        for part in self.parts:
            if isinstance(part, _Row):
                yield part
            elif isinstance(part, _Group):
                yield from part.rows()

    def show_query(self, query: Query) -> None:
        """Show all or any of its parts; rows that fit are kept and changed."""
        nots, body = _bare(query)
        assert isinstance(body, AllOf | AnyOf)
        self._show_nots(nots)
        self.choice.setCurrentIndex(isinstance(body, AnyOf))
        for at, part in enumerate(body.parts):
            kind = _Group if isinstance(_bare(part)[1], AllOf | AnyOf) else _Row
            if at >= len(self.parts) or type(self.parts[at]) is not kind:
                if at < len(self.parts):
                    self._drop(self.parts[at])
                self.put(kind(self.panel, self), at)
            shown = self.parts[at]
            assert isinstance(shown, _Group | _Row)
            shown.show_query(part)
        for left in self.parts[len(body.parts) :]:
            self._drop(left)
        self.origin = query

    def read(self) -> Query | None:
        """Its finished parts, joined."""
        if self.origin is not None:
            return self.origin
        found = [query for query in (part.read() for part in self.parts) if query is not None]
        if not found:
            return None
        return self._denied((any_of if self.choice.currentIndex() else all_of)(*found))

    def put(self, part: _Part, at: int) -> None:
        """Take a part in at this place."""
        part.group = self
        self.parts.insert(at, part)
        self._body.insertWidget(at, part)
        part.show()

    def take(self, part: _Part) -> None:
        """Give a part away."""
        self.parts.remove(part)
        self._body.removeWidget(part)

    def _drop(self, part: _Part) -> None:
        self.take(part)
        part.hide()
        part.deleteLater()

    def _chosen(self) -> None:
        self.touched()
        self.panel.edited()

    def _add_row(self) -> None:
        row = _Row(self.panel, self)
        self.put(row, len(self.parts))
        row.begin()
        self._added(row)

    def _add_group(self) -> None:
        group = _Group(self.panel, self)
        group.choice.setCurrentIndex(1 - self.choice.currentIndex())
        self.put(group, len(self.parts))
        row = _Row(self.panel, group)
        group.put(row, 0)
        row.begin()
        self._added(row)

    def _added(self, row: _Row) -> None:
        self.touched()
        self.panel.restructured()
        row.first_stop.setFocus(Qt.FocusReason.OtherFocusReason)
        QTimer.singleShot(0, row, lambda: self.panel.show_focused(row))


class _Row(_Part):
    """One criterion: field, comparison, value."""

    def __init__(self, panel: CriteriaPanel, parent: _Group) -> None:
        super().__init__(panel, parent)
        self._part: Words | Term | Flag = Words("")
        self._made: Query | None = None
        self._shape: object = None
        self.editors: list[Editor] = []
        self.subject = Combo(panel.show_focused)
        name_for_ears(self.subject, "Field")
        self.subject.setMaxVisibleItems(20)
        self._fill_subjects()
        self.subject.activated.connect(self._subject_chosen)
        self.comparison = Combo(panel.show_focused)
        name_for_ears(self.comparison, "Comparison")
        self.comparison.setMinimumWidth(_COMPARISON_PX)
        self.comparison.activated.connect(self._comparison_chosen)
        self.not_button.setAccessibleName("Not this criterion")
        self.note = text_label(style="dim")
        self.error = text_label(style="error", wrap=True)
        self.error.hide()
        line = QHBoxLayout()
        line.setContentsMargins(0, 2, 0, 2)
        line.setSpacing(4)
        self._values = QHBoxLayout()
        self._values.setContentsMargins(0, 0, 0, 0)
        self._values.setSpacing(4)
        for widget in (self.not_button, self.subject, self.comparison):
            line.addWidget(widget)
        line.addLayout(self._values)
        line.addSpacing(4)
        line.addWidget(self.note)
        line.addStretch(1)
        line.addWidget(self.remove_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(line)
        column.addWidget(self.error)

    @property
    def first_stop(self) -> QWidget:
        """The field."""
        return self.subject

    def stops(self) -> Iterator[QWidget]:
        """From left to right."""
        yield from (self.not_button, self.subject)
        if not self.comparison.isHidden():
            yield self.comparison
        for editor in self.editors:
            yield from editor.stops()
        yield self.remove_button

    def begin(self) -> None:
        """A new criterion: the first field, still without a value."""
        spec = next(iter(FIELDS[self.panel.kind].values()))
        self._part = Term(spec.term, Operator.IS, ())
        self._show(Criterion(criteria.comparisons(spec)[0], ("",)))
        self._say(None)

    def show_query(self, query: Query) -> None:
        """Show this criterion."""
        if query == self.origin:
            return
        nots, body = _bare(query)
        assert isinstance(body, Words | Term | Flag)
        self._show_nots(nots)
        self._part, self.origin = body, query
        match body:
            case Words():
                self._show(criteria.read_words(body))
            case Flag(word):
                self._show(Criterion(Comparison.IS, (word,)))
            case Term():
                self._show(criteria.read(body, self.spec))
        self._say(body)

    def read(self) -> Query | None:
        """As it was given; once touched as it is now, if it is a condition."""
        if self.origin is not None:
            return self.origin
        return None if self._made is None else self._denied(self._made)

    @property
    def spec(self) -> FieldSpec | None:
        """The field, where there is one."""
        return TERMS[self.panel.kind].get(self._part.name.lower()) if isinstance(self._part, Term) else None

    # --- showing ---------------------------------------------------------------------------------

    def _fill_subjects(self) -> None:
        kind = self.panel.kind
        self.subject.add("Any text", _FREE_TEXT, "Text that occurs in what is shown, whatever the column")
        if FLAGS.get(kind):
            self.subject.add("Shorthand", _SHORTHAND, "A word for a common question, such as is:running")
        for spec in FIELDS[kind].values():
            self.subject.add(spec.title, spec.name, spec.doc)

    def _show(self, criterion: Criterion) -> None:
        spec = self.spec
        permitted: tuple[Comparison, ...]
        match self._part:
            case Words():
                subject, permitted = _FREE_TEXT, criteria.WORDS
            case Flag():
                subject, permitted = _SHORTHAND, (Comparison.IS,)
            case Term(name):
                subject = spec.name if spec else name
                permitted = criteria.comparisons(spec) if spec else (Comparison.IS, Comparison.IS_NOT)
        self.subject.choose(subject)
        offered = permitted if criterion.comparison in permitted else (*permitted, criterion.comparison)
        if [self.comparison.itemData(at) for at in range(self.comparison.count())] != [*offered] or (
            self.comparison.itemText(0) != criteria.label(offered[0], spec)
        ):
            self.comparison.clear()
            for each in offered:
                self.comparison.add(criteria.label(each, spec), each)
        self.comparison.choose(criterion.comparison)
        self.comparison.setVisible(not isinstance(self._part, Flag))
        self._show_editors(criterion)

    def _show_editors(self, criterion: Criterion) -> None:
        spec, comparison = self.spec, criterion.comparison
        shape = (subject_shape(self._part, spec), comparison is Comparison.WITHIN, comparison.texts)
        if shape != self._shape:
            self._shape = shape
            for editor in self.editors:
                self._values.removeWidget(editor)
                editor.hide()
                editor.deleteLater()
            self.editors = [self._editor(comparison) for _ in range(comparison.texts)]
            for place, editor in enumerate(self.editors):
                self._values.addWidget(editor)
                editor.edited.connect(self._edited)
                if len(self.editors) > 1:
                    editor.set_name(("From", "To")[place])
        for editor, text in zip(self.editors, criterion.texts, strict=False):
            editor.set_text(text)

    def _editor(self, comparison: Comparison) -> Editor:
        spec, known, seen = self.spec, self.panel.known, self.panel.show_focused
        if isinstance(self._part, Flag):
            flags = FLAGS.get(self.panel.kind, {}).values()
            return Choice(seen, "Shorthand", [(flag.word, flag.doc) for flag in flags])
        if isinstance(self._part, Words):
            return TextEditor(seen, "Text", "text", lambda: ())
        if spec is None:
            return TextEditor(seen, "Value", "value", lambda: ())
        if spec.kind is FieldKind.BOOL:
            return Choice(seen, spec.title, [("yes", ""), ("no", "")])
        if spec.kind is FieldKind.TIME:
            within = comparison is Comparison.WITHIN
            texts = _SPANS if within else _TIMES
            return TextEditor(seen, spec.title, "1h30min" if within else "today, 14:00, -2h", lambda: texts)
        if spec.kind.is_number and spec.ranks is None:
            return Figure(seen, spec)
        return TextEditor(seen, spec.title, "value", lambda: dict.fromkeys([*spec.words, *known(spec)]))

    def _say(self, part: Query | None, error: str = "") -> None:
        if part is not None and not error:
            try:
                Matcher(part, self.panel.kind)
            except QueryError as caught:
                error = caught.message
        self.note.setText("" if part is not None or error else _UNFINISHED)
        self.error.setText(plain(error))
        self.error.setVisible(bool(error))
        self.error.setContentsMargins(self.not_button.sizeHint().width() + 4, 0, 0, 4)
        self._made = None if error else part
        what = plain(text_of(part)) if part is not None else _UNFINISHED
        self.setAccessibleName(f"Criterion: {what}")
        self.setAccessibleDescription(plain(error))
        self.subject.setAccessibleDescription(plain(error) or what)
        self.remove_button.setAccessibleName(f"Remove criterion: {what}")
        spec = self.spec
        self.subject.setToolTip(tip(spec.doc) if spec else "")
        for editor in self.editors:
            editor.mark(plain(error))

    @property
    def _compared(self) -> Comparison:
        return Comparison(self.comparison.currentData())

    # --- editing ---------------------------------------------------------------------------------

    def _subject_chosen(self) -> None:
        name, before = self.subject.currentData(), self.spec
        texts = tuple(editor.text() for editor in self.editors)
        match name:
            case str() if name == _FREE_TEXT:
                self._part = Words("")
                criterion = Criterion(Comparison.CONTAINS, texts[:1] or ("",))
            case str() if name == _SHORTHAND:
                self._part = Flag("")
                criterion = Criterion(Comparison.IS, ("",))
            case _:
                spec = TERMS[self.panel.kind].get(name)
                self._part = Term(spec.term if spec else name, Operator.IS, ())
                permitted = criteria.comparisons(spec) if spec else (Comparison.IS, Comparison.IS_NOT)
                now = self._compared
                comparison = now if now in permitted else permitted[0]
                alike = (
                    spec is not None and before is not None and before.kind is spec.kind and not spec.words
                )
                kept = texts if alike else ()
                criterion = Criterion(comparison, (*kept, "", "")[: comparison.texts])
        self._show(criterion)
        self.panel.retab()
        self._edited()

    def _comparison_chosen(self) -> None:
        comparison = self._compared
        texts = tuple(editor.text() for editor in self.editors)
        self._show_editors(Criterion(comparison, (*texts, "", "")[: comparison.texts]))
        self.panel.retab()
        self._edited()

    def _edited(self) -> None:
        criterion = Criterion(self._compared, tuple(editor.text() for editor in self.editors))
        part: Query | None = None
        error = ""
        try:
            match self._part:
                case Words():
                    part = criteria.write_words(criterion)
                case Flag():
                    part = Flag(criterion.texts[0]) if criterion.texts[0] else None
                case Term(name, operator):
                    part = criteria.write(criterion, name, self.spec, operator)
        except QueryError as caught:
            error = caught.message
        self._say(part, error)
        self.touched()
        self.panel.edited()


def subject_shape(part: Words | Term | Flag, spec: FieldSpec | None) -> object:
    """Criteria that are alike in this have the same editors."""
    return (type(part), spec.name if spec else None)


def _bare(query: Query) -> tuple[int, Query]:
    """How often it is denied, and what."""
    nots = 0
    while isinstance(query, Not):
        nots, query = nots + 1, query.part
    return nots, query

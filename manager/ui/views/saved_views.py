"""Saved views in the window: which one a list shows, what was changed since, what can be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QFileDialog, QLineEdit, QMenu, QWidget

from manager.core import units
from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query.views import ALL, BUILT_IN, MAX_NAME, View, Views, differs, is_name
from manager.services.ports import ViewStore
from manager.services.saved_views import SavedViews, read_file, write_file
from manager.services.tasks import Tasks
from manager.ui.dialogs.base import Asking
from manager.ui.models.groups import plain
from manager.ui.runner import Note
from manager.ui.views.parts import flat_button, link_button, text_label
from manager.ui.views.search import SearchBox
from manager.ui.views.table import RowsTable, SavedColumn, SavedTable

_FILES = ["Views (*.json)", "All files (*)"]


class NameDialog(Asking):
    """What a view is called; it closes only with a name that can be used."""

    def __init__(
        self, parent: QWidget, title: str, verb: str, name: str, trouble: Callable[[str], str]
    ) -> None:
        """`trouble`: why a name cannot be used; nothing if it can."""
        super().__init__(parent, title)
        self.setMinimumWidth(380)
        self._trouble = trouble
        self.field = QLineEdit(name)
        self.field.setMaxLength(MAX_NAME)
        self.field.setAccessibleName("Name of the view")
        self.field.selectAll()
        self.body.addWidget(self.field)
        self.note = text_label("", "warning", wrap=True)
        self.note.hide()
        self.body.addWidget(self.note)
        self.add_buttons()
        self.button("Cancel", self.reject)
        self.button(verb, self._try, style="primary", default=True)
        self.field.setFocus()

    @property
    def name(self) -> str:
        """What was entered."""
        return self.field.text().strip()

    def _try(self) -> None:
        why = self._trouble(self.name)
        self.note.setText(why)
        self.note.setVisible(bool(why))
        if not why:
            self.accept()


class ViewKeeper(QObject):
    """The user's views, for every list of the window."""

    changed = Signal()
    chosen = Signal(object)  # the `View` to go to

    def __init__(self, store: ViewStore, window: QWidget, tasks: Tasks, note: Note) -> None:
        super().__init__(window)
        self._window, self._tasks, self._note = window, tasks, note
        self._saved = SavedViews(store)
        self.views = Views()
        self.trouble = ""
        self.reload()

    def reload(self) -> None:
        """Read them anew: a command or another window may have changed them."""
        try:
            views, self.trouble = self._saved.read(), ""
        except UserError as error:
            views, self.trouble = Views(), str(error)
        if views != self.views:
            self.views = views
            self.changed.emit()

    def change(self, make: Callable[[Views], Views]) -> bool:
        """Change and store them; trouble is said, and changes nothing."""
        try:
            self.views = self._saved.change(make)
        except UserError as error:
            self._note(str(error), (), "error")
            return False
        self.changed.emit()
        return True

    def add(self, view: View, at: int | None = None) -> View | None:
        """Store a further own view."""
        made: list[View] = []

        def make(views: Views) -> Views:
            views, new = views.add(view, at)
            made.append(new)
            return views

        return made[-1] if self.change(make) else None

    def save_as(self, view: View) -> None:
        """Ask for a name, store it as an own view, and go there."""
        name = self.views.free_name(view.kind, "My view" if view.id == ALL else view.name)
        self._tasks.spawn(self._save_as(view, name), "save a view")

    async def _save_as(self, view: View, name: str) -> None:
        title = f"Save what {'Roles' if view.kind is Kind.VM else 'the list'} shows as a view"
        dialog = NameDialog(self._window, title, "Save view", name, partial(self._trouble, view.kind, ""))
        if await dialog.answer():
            made = self.add(replace(view, id="", name=dialog.name))
            if made is not None:
                self.chosen.emit(made)

    def rename(self, view: View) -> None:
        """Ask for another name."""
        self._tasks.spawn(self._rename(view), "rename a view")

    async def _rename(self, view: View) -> None:
        title = f"Rename the view {plain(view.name)}"
        trouble = partial(self._trouble, view.kind, view.id)
        dialog = NameDialog(self._window, title, "Rename", view.name, trouble)
        if await dialog.answer():
            self.change(lambda views: views.put(replace(view, name=dialog.name)))

    def _trouble(self, kind: Kind, but: str, name: str) -> str:
        if not is_name(name):
            return f"A name has 1 to {MAX_NAME} printable characters."
        taken = any(v.name.lower() == name.lower() and v.id != but for v in self.views.of(kind))
        return f"There is a view {name} already." if taken else ""

    def duplicate(self, view: View) -> None:
        """A copy, and go there."""
        made: list[View] = []

        def make(views: Views) -> Views:
            views, new = views.duplicate(view)
            made.append(new)
            return views

        if self.change(make):
            self.chosen.emit(made[-1])

    def delete(self, view: View) -> None:
        """Delete it at once; the note above the list brings it back."""
        at = next((place for place, each in enumerate(self.views.own) if each.id == view.id), None)
        started = self.views.start == (view.kind, view.id)

        def undo() -> None:
            back = self.add(view, at)
            if back is not None and started:
                self.change(lambda views: views.begin_with(back))
            if back is not None:
                self.chosen.emit(back)

        if self.change(lambda views: views.remove(view)):
            self._note(f"The view {plain(view.name)} was deleted.", (("Undo", undo),), "")

    def use_at_start(self, view: View, on: bool) -> None:
        """Whether the window begins with it."""
        self.change(lambda views: views.begin_with(view if on else None))

    def export(self, view: View) -> None:
        """Ask for a file, and write the view to it."""
        dialog = QFileDialog(self._window, f"Export the view {plain(view.name)}")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilters(_FILES)
        dialog.setDefaultSuffix("json")
        dialog.selectFile("".join(c if c.isalnum() else "-" for c in view.name.lower()) + ".json")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self.export_to(Path(path), view))
        dialog.open()

    def export_to(self, path: Path, view: View) -> None:
        """Write a view to a file."""
        try:
            write_file(path, [view])
        except UserError as error:
            self._note(str(error), (), "error")
            return
        self._note(f"The view {plain(view.name)} was written to {path}", (), "")

    def ask_import(self) -> None:
        """Ask for a file, and add its views."""
        dialog = QFileDialog(self._window, "Import views")
        dialog.setNameFilters(_FILES)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self.import_from(Path(path)))
        dialog.open()

    def import_from(self, path: Path) -> None:
        """Add the views of a file, all or none, and go to the first."""
        added: list[View] = []

        def make(views: Views) -> Views:
            try:
                views, new = views.bring_in(found)
            except UserError as error:
                raise UserError(f"{path}: {error} Nothing was imported.") from None
            added.extend(new)
            return views

        try:
            found = read_file(path)
        except UserError as error:
            self._note(str(error), (), "error")
            return
        if self.change(make):
            names = ", ".join(plain(view.name) for view in added[:3]) + (" …" if len(added) > 3 else "")
            self._note(f"{units.count_text(len(added), 'view')} imported: {names}", (), "")
            first = next(iter(added), None)
            if first is not None:
                self.chosen.emit(first)


class ShownView(QObject):
    """Which view a list shows. What the view leaves open is as the list has it in *All*."""

    changed = Signal()

    def __init__(self, kind: Kind, table: RowsTable, search: SearchBox, keeper: ViewKeeper) -> None:
        super().__init__(table)
        self._table, self._search, self.keeper = table, search, keeper
        self.view = BUILT_IN[kind][0]
        self._usual = table.layout_now()
        table.to_keep = self._usual_of
        self._menu = QMenu(table)
        self._menu.aboutToShow.connect(lambda: self.fill(self._menu))
        self.button = flat_button("Views", menu=self._menu)
        self.button.setToolTip("Choose what the list shows; save it as a view (Ctrl+S)")
        self.revert_button = link_button("Revert", self.revert)
        self.revert_button.setToolTip("Show the list as it was saved in the view")
        self.revert_button.hide()
        search.wanted.connect(lambda *_: self._look())
        search.refused.connect(lambda *_: self._look())
        table.layout_changed.connect(self._look)
        keeper.changed.connect(self._follow)

    @property
    def is_changed(self) -> bool:
        """Whether the list is not as the view says; *All* says nothing."""
        return self.view.id != ALL and differs(self.view, self.now())

    @property
    def title(self) -> str:
        """Which view is shown, and whether it was changed since; of *All* nothing."""
        if self.view.id == ALL:
            return ""
        return plain(self.view.name) + (" (changed)" if self.is_changed else "")

    def now(self) -> View:
        """The view with all that the list shows now."""
        layout = self._table.layout_now()
        shown = [column for column in layout.columns if column.shown]
        widths = [0 if layout.fitted else column.width for column in shown]
        widths[-1:] = [0]  # the last one has what is left
        return replace(
            self.view,
            query=self._search.text().strip(),
            columns=tuple((column.name, width) for column, width in zip(shown, widths, strict=True)),
            sort=tuple(layout.sort),
            group=layout.group,
        )

    def show(self, view: View) -> None:
        """Show a view; one that is shown already stays with what was changed in it."""
        if view == self.view:
            return
        self._usual = self._usual_of(self._table.layout_now())
        self.view = view
        self._apply()
        if not self._table.selected_count:
            self._table.scrollToTop()

    def revert(self) -> None:
        """As the view says."""
        self._apply()
        self._table.setFocus(Qt.FocusReason.OtherFocusReason)

    def save(self) -> None:
        """Keep what is shown in the view; what is no own one is saved under a new name."""
        if self.view.is_built_in:
            self.save_as()
        elif self.is_changed:
            self._search.flush()
            now = self.now()
            self.keeper.change(lambda views: views.put(now))

    def save_as(self) -> None:
        """Keep what is shown as a further view."""
        self._search.flush()
        self.keeper.save_as(self.now())

    def fill(self, menu: QMenu) -> None:
        """Put in a menu which views there are, and what can be done with the one that is shown."""
        menu.clear()
        keeper, view = self.keeper, self.view
        keeper.reload()
        for each in keeper.views.of(view.kind):
            if not each.is_built_in and each == next(v for v in keeper.views.own if v.kind is view.kind):
                menu.addSeparator()
            action = menu.addAction(_title(each.name), partial(keeper.chosen.emit, each))
            action.setCheckable(True)
            action.setChecked(each.id == view.id)
        menu.addSeparator()
        own, place = not view.is_built_in, self._place()
        last = sum(1 for each in keeper.views.own if each.kind is view.kind) - 1

        def offer(title: str, act: Callable[[], object], possible: bool = True) -> None:
            menu.addAction(title, act).setEnabled(possible)

        offer(f"Save {_title(view.name)}" if own else "Save", self.save, own and self.is_changed)
        offer("Save as…", self.save_as)
        offer("Revert", self.revert, self.is_changed)
        menu.addSeparator()
        offer("Rename…", partial(keeper.rename, view), own)
        offer("Duplicate", partial(keeper.duplicate, view))
        offer("Move up", partial(self._move, -1), own and place > 0)
        offer("Move down", partial(self._move, 1), own and place < last)
        offer("Delete", partial(keeper.delete, view), own)
        menu.addSeparator()
        start = menu.addAction("Use at start")
        start.setCheckable(True)
        start.setChecked(keeper.views.start == (view.kind, view.id))
        start.triggered.connect(lambda on: keeper.use_at_start(view, on))
        offer("Export…", partial(keeper.export, view))
        offer("Import…", keeper.ask_import)
        if keeper.trouble:
            menu.addSeparator()
            offer(keeper.trouble, lambda: None, False)

    def _move(self, step: int) -> None:
        view = self.view
        self.keeper.change(lambda views: views.move(view, step))

    def _place(self) -> int:
        mine = [each.id for each in self.keeper.views.own if each.kind is self.view.kind]
        return mine.index(self.view.id) if self.view.id in mine else -1

    # --- inside ------------------------------------------------------------------------------------

    def _usual_of(self, now: SavedTable) -> SavedTable:
        """The layout of *All*: as it is now, but for what the view says."""
        view, usual = self.view, self._usual
        if view.columns:
            return usual
        if view.sort:
            now = msgspec.structs.replace(now, sort=usual.sort)
        if view.group:
            now = msgspec.structs.replace(now, group=usual.group, closed=usual.closed)
        return now

    def _layout(self) -> SavedTable:
        view, usual = self.view, self._usual
        if not view.columns:
            group = view.group or usual.group
            closed = usual.closed if group == usual.group else []
            sort = list(view.sort) or usual.sort
            return msgspec.structs.replace(usual, sort=sort, group=group, closed=closed)
        model = self._table.rows_model
        said = {name: width for name, width in view.columns if name in model.columns}
        wide = {spec.name: spec.width for spec in model.fields}
        columns = [SavedColumn(name, width or wide[name]) for name, width in said.items()]
        columns += [SavedColumn(c.name, c.width, False) for c in usual.columns if c.name not in said]
        fitted = not any(width for _, width in view.columns)
        return SavedTable(columns, list(view.sort), fitted, view.group)

    def _apply(self) -> None:
        layout = self._layout()
        with self._table.rows_model.together():
            if layout != self._table.layout_now():
                self._table.apply_layout(layout)
            self._search.show_query(self.view.query)
        self._table.refit_soon()  # to the rows of this view
        self._look()

    def _follow(self) -> None:
        """The views were changed: this one may be, or be gone."""
        found = self.keeper.views.get(self.view.kind, self.view.id)
        if found is None:
            self.show(BUILT_IN[self.view.kind][0])
            return
        if self.is_changed:
            self.view = found  # what was changed here stays
            self._look()
        elif found != self.view:
            self.show(found)

    def _look(self) -> None:
        self.revert_button.setVisible(self.is_changed)
        self.changed.emit()


def _title(name: str) -> str:
    return plain(name).replace("&", "&&")

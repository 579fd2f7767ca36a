"""The columns of a list, chosen and put in order by keyboard or pointer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QDialog, QHBoxLayout, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout

from manager.ui.views.parts import text_label

if TYPE_CHECKING:
    from manager.ui.views.table import RowsTable

_COLUMN = int(Qt.ItemDataRole.UserRole)


class ColumnsDialog(QDialog):
    """A list of all columns in their order; what is changed shows in the table at once."""

    def __init__(self, table: RowsTable) -> None:
        super().__init__(table)
        self._table = table
        self.setWindowTitle("Columns")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 14, 16, 14)
        layout.setSpacing(10)
        layout.addWidget(text_label(f"Columns of {table.accessibleName()}", "heading"))
        layout.addWidget(
            text_label("Space shows or hides a column, Alt+↑ and Alt+↓ move it.", "dim", wrap=True)
        )
        self.list = QListWidget()
        self.list.setAccessibleName("Columns")
        self.list.setMinimumSize(280, 320)
        layout.addWidget(self.list, 1)
        row = QHBoxLayout()
        self.up = self._button("Move up", -1, "Alt+Up")
        self.down = self._button("Move down", 1, "Alt+Down")
        row.addWidget(self.up)
        row.addWidget(self.down)
        row.addStretch(1)
        self.reset = QPushButton("As at first")
        self.reset.setAutoDefault(False)
        self.reset.clicked.connect(self._reset)
        row.addWidget(self.reset)
        self.close_button = QPushButton("Close")
        self.close_button.setDefault(True)
        self.close_button.clicked.connect(self.accept)
        row.addWidget(self.close_button)
        layout.addLayout(row)
        self._fill()
        self.list.setCurrentRow(0)
        self.list.setFocus()
        self.list.itemChanged.connect(self._checked)
        self.list.currentRowChanged.connect(self._enable)
        self._enable(0)

    def _button(self, title: str, step: int, keys: str) -> QPushButton:
        made = QPushButton(title)
        made.setAutoDefault(False)
        made.setToolTip(keys)
        made.clicked.connect(lambda *_: self.move_current(step))
        QShortcut(QKeySequence(keys), self).activated.connect(lambda: self.move_current(step))
        return made

    def _fill(self) -> None:
        table = self._table
        header = table.horizontalHeader()
        self.list.blockSignals(True)
        self.list.clear()
        for place in range(header.count()):
            column = header.logicalIndex(place)
            spec = table.rows_model.fields[column]
            item = QListWidgetItem(spec.title)
            item.setToolTip(spec.doc)
            item.setData(_COLUMN, column)
            flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
            if column != 0:  # the name stays: a row without one says nothing
                flags |= Qt.ItemFlag.ItemIsUserCheckable
            item.setFlags(flags)
            shown = not table.isColumnHidden(column)
            item.setCheckState(Qt.CheckState.Checked if shown else Qt.CheckState.Unchecked)
            self.list.addItem(item)
        self.list.blockSignals(False)

    def _checked(self, item: QListWidgetItem) -> None:
        self._table.show_column(item.data(_COLUMN), item.checkState() == Qt.CheckState.Checked)

    def move_current(self, step: int) -> None:
        """Move the current column by a place, -1 to the left, 1 to the right."""
        row = self.list.currentRow()
        to = row + step
        if row < 0 or not 0 <= to < self.list.count():
            return
        self._table.move_column(self.list.item(row).data(_COLUMN), to)
        self._fill()
        self.list.setCurrentRow(to)

    def _enable(self, row: int) -> None:
        self.up.setEnabled(row > 0)
        self.down.setEnabled(0 <= row < self.list.count() - 1)

    def _reset(self) -> None:
        self._table.reset_layout()
        self._fill()
        self.list.setCurrentRow(0)

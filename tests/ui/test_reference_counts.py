"""PySide6 6.12.0 drops a reference to None and True per call and aborts CPython 3.11: this watches for it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QTimer, Signal
from PySide6.QtGui import QAction, QPainter, QPixmap
from PySide6.QtWidgets import QApplication, QLabel, QTableView, QWidget

from manager.core.ids import Kind
from manager.ui.models.rows_model import RowsModel
from tests.ui.cluster_of import runtime_of

CALLS = 500
SLACK = 60
"""What the interpreter itself may take or give in between; the fault costs one per call."""


class Nothing(QAbstractTableModel):
    """A model whose data() returns None, True and False."""

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 1

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 1

    def data(self, index: QModelIndex, role: int = 0) -> object:
        return None


class Sender(QObject):
    """Has a signal."""

    said = Signal(object)
    plain = Signal()


def _calls(qapp: QApplication) -> dict[str, Callable[[], object]]:
    label, timer, sender, widget = QLabel(), QTimer(), Sender(), QWidget()
    action, pixmap, view, model = QAction(), QPixmap(8, 8), QTableView(), Nothing()
    rows = RowsModel(Kind.VM, runtime_of(1, 3).view)
    view.setModel(model)
    sender.said.connect(lambda value: None)
    sender.plain.connect(lambda: None)
    timer.setSingleShot(True)
    pixmap.fill()

    def paint() -> None:
        painter = QPainter(pixmap)
        painter.fillRect(0, 0, 4, 4, 1)
        painter.setPen(1)
        painter.drawText(0, 8, "x")
        painter.end()

    return {
        "setText": lambda: label.setText("text"),
        "timer start and stop": lambda: (timer.start(1000), timer.stop()),
        "emit None": lambda: sender.said.emit(None),
        "emit True": lambda: sender.said.emit(True),
        "emit": lambda: sender.plain.emit(),
        "setEnabled": lambda: (action.setEnabled(True), action.setEnabled(False)),
        "setVisible": lambda: (widget.setVisible(False), widget.update()),
        "data of nothing": lambda: view.model().data(model.index(0, 0), 0),
        "data by the view": lambda: (view.update(), view.sizeHintForIndex(model.index(0, 0))),
        "reset": lambda: (rows.beginResetModel(), rows.endResetModel()),
        "dataChanged": lambda: rows.dataChanged.emit(rows.index(0, 0), rows.index(1, 1)),
        "data of rows": lambda: rows.data(rows.index(0, 0), 3),
        "paint": paint,
        "processEvents": lambda: qapp.processEvents(),
        "singleShot": lambda: QTimer.singleShot(0, sender, sender.plain.emit),
    }


@pytest.mark.parametrize("value", [None, True, False])
def test_no_call_takes_references_of_the_constants(qapp: QApplication, value: object) -> None:
    for name, call in _calls(qapp).items():
        call()
        qapp.processEvents()
        gc.collect()  # what earlier tests left would go in the middle, and take its references along
        before = sys.getrefcount(value)
        for _ in range(CALLS):
            call()
        qapp.processEvents()
        assert abs(sys.getrefcount(value) - before) < SLACK, name

"""Below the list of all clusters: details of what is selected in one, or how it is spread over several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QLabel, QStackedWidget, QTabBar, QVBoxLayout, QWidget

from manager.core.changes import ChangeSet
from manager.core.ids import ClusterId, Kind
from manager.services.runtime import Runtime
from manager.ui.theme import Look
from manager.ui.views.details.page import Details
from manager.ui.views.events_page import EventDetails
from manager.ui.views.parts import PlainTable, text_label
from manager.ui.views.resource_details import ResourceDetails

_LATER_MS = 30
"""Until what is told of a selection is summed up: of many it is not while one still selects."""

Part = tuple[Runtime, Sequence[str]]
Made = Details | ResourceDetails | EventDetails

_WHAT = {
    Kind.VM: "VMs",
    Kind.NODE: "a node",
    Kind.POOL: "a pool",
    Kind.NETWORK: "a network",
    Kind.EVENT: "an event",
}


class DetailsAcross(QStackedWidget):
    """The details of each cluster, made when something of it is selected; only one of them works."""

    def __init__(self, kind: Kind, look: Look, make: Callable[[Runtime], Made]) -> None:
        super().__init__()
        self._make = make
        self._made: dict[ClusterId, Made] = {}
        self.setMinimumHeight(84)
        what = _WHAT[kind]
        self._nothing = text_label(f"Select {what} to see the details here", "dim")
        self._nothing.setContentsMargins(12, 6, 12, 6)
        self._several = QWidget()
        self._several.setObjectName("panel")
        layout = QVBoxLayout(self._several)
        layout.setContentsMargins(12, 6, 12, 8)
        self._title: QLabel = text_label("", "title")
        self._spread = PlainTable(("Cluster", "Selected"), look, name="Selected in each cluster")
        layout.addWidget(self._title)
        layout.addWidget(self._spread, 1)
        self._empty = QWidget()
        self._empty.setObjectName("panel")
        empty = QVBoxLayout(self._empty)
        empty.setContentsMargins(0, 0, 0, 0)
        empty.addWidget(self._nothing)
        empty.addStretch(1)
        self.addWidget(self._empty)
        self.addWidget(self._several)
        self._sums: Callable[[], list[tuple[str, str]]] = list
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_LATER_MS)
        self._later.timeout.connect(lambda: self._spread.show_rows(self._sums()))

    @property
    def tabs(self) -> QTabBar | QWidget:
        """What takes the keyboard."""
        shown = self.currentWidget()
        return shown.tabs if isinstance(shown, Made) else self._spread

    def show_parts(
        self, parts: Sequence[Part], spread: Callable[[], list[tuple[str, str]]], hidden: int = 0
    ) -> None:
        """Show what is selected; `spread`: of each cluster its name, and what is told of its part."""
        before = self.currentWidget()
        self._later.stop()
        if len(parts) == 1:
            runtime, ids = parts[0]
            shown = self._made.get(runtime.id)
            if shown is None:
                shown = self._made[runtime.id] = self._make(runtime)
                self.addWidget(shown)
            self.setCurrentWidget(shown)
            shown.show_ids(ids, hidden)
        elif parts:
            self._title.setText(f"Selected in {len(parts)} clusters")
            self._sums = spread
            self._later.start()
            self.setCurrentWidget(self._several)
        else:
            self.setCurrentWidget(self._empty)
        if isinstance(before, Details) and before is not self.currentWidget():
            before.wants_samples.emit(False, None)

    def take_of(self, cluster: ClusterId | None, changes: ChangeSet) -> None:
        """Follow what changed in one of the clusters."""
        made = self._made.get(cluster) if cluster is not None else None
        if made is not None:
            made.take(changes)

    def forget(self, cluster: ClusterId) -> None:
        """A cluster was closed."""
        made = self._made.pop(cluster, None)
        if made is not None:
            self.removeWidget(made)
            made.hide()
            made.deleteLater()

"""The page Cluster events, and the tab Events of a VM's or node's details: what happened, newest first."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from manager.core import units
from manager.core.changes import ChangeSet
from manager.core.chronicle import ClusterEvent, about_node, about_vm
from manager.core.cluster import ClusterView
from manager.core.ids import Kind, NodeId, VmId
from manager.core.query.fields import FIELDS
from manager.services.runtime import Runtime
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look, repolish
from manager.ui.views.parts import FactsGrid, PlainTable, text_label

NOTHING = (
    "No event is recorded yet",
    "What the hosts tell, what is asked for, and problems appear here, for as long as a window or "
    "“muster engine” works on this cluster.",
)

_SHOWN = 500
"""Lines of a VM's or node's tab; the page and ``muster what-happened`` have all."""


def newest_first(_: ClusterView, event: ClusterEvent) -> int:
    """The order of the page."""
    return -int(event.id, 16)


class EventDetails(QWidget):
    """Below the list: the chosen event, whole and copyable."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.setObjectName("panel")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setMinimumHeight(84)
        self._runtime = runtime
        self._ids: tuple[str, ...] = ()
        self._title = text_label(style="title", wrap=True)
        self.tabs: QLabel = text_label(wrap=True, copyable=True)
        self.tabs.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.tabs.setAccessibleName("Event")
        self._facts = FactsGrid(3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 6, 12, 8)
        layout.setSpacing(6)
        for widget in (self._title, self.tabs, self._facts):
            layout.addWidget(widget)
        layout.addStretch(1)
        self.show_ids(())

    def take(self, changes: ChangeSet) -> None:
        """An event does not change."""

    def show_ids(self, ids: Sequence[str], hidden: int = 0) -> None:
        """Show this event; of several only how many."""
        self._ids = tuple(ids)
        view, fields = self._runtime.view, FIELDS[Kind.EVENT]
        event = view.events.get(ids[0]) if len(ids) == 1 else None
        style = "title" if ids else "dim"
        if self._title.objectName() != style:
            self._title.setObjectName(style)
            repolish(self._title)
        if event is None:
            count = units.count_text(len(ids), "event")
            self._title.setText(f"{count} selected" if ids else "Select an event to see all of it here")
        else:
            self._title.setText(plain(fields["subject"].cell(view, event)))
            remedy = event.why.remedy if event.why is not None else ""
            self.tabs.setText(plain(f"{event.text}. {remedy}" if remedy else event.text))
            shown = ("time", "level", "node", "who", "source", "operation", "code")
            facts = [(fields[name].title, plain(fields[name].cell(view, event)) or "–") for name in shown]
            self._facts.show_facts(facts)
        self.tabs.setVisible(event is not None)
        self._facts.setVisible(event is not None)


class EventsTab(PlainTable):
    """What happened to one VM or node."""

    def __init__(self, runtime: Runtime, kind: Kind, look: Look) -> None:
        super().__init__(("Time", "Level", "What", "Event", "By"), look, name="Events")
        self._runtime = runtime
        self._kind = kind
        self._key = ""

    def show_of(self, key: str) -> None:
        """Show what happened to this object."""
        self._key = key
        view, fields = self._runtime.view, FIELDS[Kind.EVENT]
        if self._kind is Kind.VM:
            vm = view.vms.get(VmId(key))
            found = about_vm(view.events.values(), VmId(key), vm.owner if vm else None)
        else:
            found = about_node(view.events.values(), NodeId(key))
        columns = [fields[name] for name in ("time", "level", "subject", "text", "who")]
        self.show_rows([f.cell(view, event) for f in columns] for event in reversed(found[-_SHOWN:]))

    def take(self, changes: ChangeSet) -> None:
        """Follow what happens, while it is shown."""
        if self._key and changes[Kind.EVENT] and self.isVisible():
            self.show_of(self._key)

    def showEvent(self, event: QShowEvent) -> None:
        """Ask for the past, too."""
        super().showEvent(event)
        self._runtime.recall()

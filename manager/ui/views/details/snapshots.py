"""The Snapshots tab: a VM's snapshots, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout

from manager.core import units
from manager.core.actions import ActionSpec
from manager.core.actions.snapshots import SNAPSHOT_CREATE, SNAPSHOT_DELETE, SNAPSHOT_REVERT
from manager.core.errors import Failure
from manager.core.ids import VmId
from manager.core.model import Snapshot, SnapshotParameters
from manager.services.runtime import Runtime
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look
from manager.ui.views.details.closeup import CloseupTab, sentence_of
from manager.ui.views.parts import ElidedLabel, PlainTable, flat_button

Act = Callable[[ActionSpec[SnapshotParameters], VmId, SnapshotParameters], object]
"""Begin an action on a VM's snapshot; with no name it asks which."""


class SnapshotsTab(CloseupTab):
    """The list is asked for when it is seen, and when the VM's definition changed."""

    def __init__(self, runtime: Runtime, look: Look, act: Act) -> None:
        super().__init__(runtime)
        self.setObjectName("panel")
        self._act = act
        self.found: tuple[Snapshot, ...] = ()
        titles = ("Name", "Taken", "The VM then", "Keeps", "After", "Description")
        self.table = PlainTable(titles, look, name="Snapshots")
        self.table.itemSelectionChanged.connect(self._enable)
        self.said = ElidedLabel(style="dim")
        self.take = flat_button("Take snapshot…", on_click=self._take_one)
        self.revert = flat_button("Revert…", on_click=lambda: self._on_chosen(SNAPSHOT_REVERT))
        self.delete = flat_button("Delete…", on_click=lambda: self._on_chosen(SNAPSHOT_DELETE))
        strip = QHBoxLayout()
        strip.setContentsMargins(12, 4, 8, 4)
        strip.addWidget(self.said, 1)
        for button in (self.take, self.revert, self.delete):
            strip.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(strip)
        layout.addWidget(self.table, 1)
        self._enable()

    @property
    def chosen(self) -> Snapshot | None:
        """The snapshot of the selected row."""
        rows = {index.row() for index in self.table.selectedIndexes()}
        return self.found[min(rows)] if len(rows) == 1 and min(rows) < len(self.found) else None

    def vm_changed(self) -> None:
        """Another VM's snapshots are not this one's."""
        self._show((), "")

    def look_again(self) -> None:
        """Read them."""
        if self.vm is not None:
            if not self.found:
                self.said.set_text("reading…")
            self.ask(partial(self._runtime.closeup.snapshots, self.vm), self._take_list, self._failed)

    def _take_list(self, found: tuple[Snapshot, ...]) -> None:
        outside = sum(snapshot.external for snapshot in found)
        text = units.count_text(len(found), "snapshot") if found else "No snapshot."
        if found:
            text += ": while there is one, the VM stays on its node"
        if outside:
            text += f"; {outside} as files of their own: older libvirt can neither delete nor revert to them"
        self._show(found, text)

    def _failed(self, failure: Failure) -> None:
        self._show((), f"cannot be read: {plain(sentence_of(failure))}")

    def _show(self, found: tuple[Snapshot, ...], text: str) -> None:
        self.found = found
        self.said.set_text(text)
        self.table.show_rows(
            (
                s.name + (" (current)" if s.is_current else ""),
                units.time_text(s.created_s) if s.created_s is not None else "",
                s.status.value,
                ("memory and disks" if s.memory else "disks")
                + (", as files of their own" if s.external else ""),
                s.parent,
                s.description,
            )
            for s in found
        )
        self._enable()

    def _enable(self) -> None:
        has_one = self.chosen is not None
        self.revert.setEnabled(has_one)
        self.delete.setEnabled(has_one)

    def _take_one(self) -> None:
        if self.vm is not None:
            self._act(SNAPSHOT_CREATE, self.vm, SnapshotParameters())

    def _on_chosen(self, spec: ActionSpec[SnapshotParameters]) -> None:
        if self.vm is not None and self.chosen is not None:
            self._act(spec, self.vm, SnapshotParameters(name=self.chosen.name))

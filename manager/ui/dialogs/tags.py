"""The tags of what is selected, edited together: boxes of three states, new words, and what that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, Qt, QTimer
from PySide6.QtWidgets import QCompleter, QLineEdit, QListWidget, QListWidgetItem, QWidget

from manager.core import tags, units
from manager.core.actions import TAGS, Plan, TagsParameters
from manager.core.cluster import ClusterView
from manager.core.ids import VmId
from manager.ui.dialogs.plan import PlanDialog
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look
from manager.ui.views.parts import text_label

_TAG = Qt.ItemDataRole.UserRole
_AT_FIRST = Qt.ItemDataRole.UserRole + 1
_SHOWN = 200
"""VMs of which the preview tells what changes; of more it tells how many."""
_PAUSE_MS = 150
"""How long typing rests before a preview of many VMs is made."""


class TagsDialog(PlanDialog):
    """A box per tag that any of the VMs has: all have it, none, or each as before."""

    def __init__(
        self,
        parent: QWidget | None,
        look: Look,
        view: ClusterView,
        ids: Sequence[VmId],
        given: TagsParameters = TAGS.default,
        *,
        cluster_option: str,
    ) -> None:
        """`given`: what is asked for at first."""
        super().__init__(
            parent,
            look,
            view,
            ids,
            verb="Tags of",
            consequence="",
            changed="",
            cluster_option=cluster_option,
            titles=("VM", "What changes", "Tags afterwards"),
        )
        self.resize(720, 520)
        self.stays.setHorizontalHeaderLabels(["Not changed", "Why not", "What to do"])
        had = Counter(tag for key in ids for tag in _tags_of(view, key))
        self.boxes = QListWidget()
        self.boxes.setAccessibleName("Tags that the VMs have")
        self.boxes.ensurePolished()  # before the lines are measured
        for tag, count in sorted(had.items()):
            self._add_box(tag, count, len(ids), removed=tag in given.remove)
        self.new = QLineEdit(", ".join(given.add))
        self.new.setMaxLength(1000)
        self.new.setAccessibleName("New tags, separated by commas")
        self.new.setPlaceholderText("new tags, separated by commas")
        known = sorted({tag for vm in view.vms.values() for tag in _tags_of(view, vm.id)})
        self.new.setCompleter(_Words(known, self.new))
        self.trouble = text_label("", "warning", wrap=True)
        self.trouble.hide()
        if had:
            half = any(count < len(ids) for count in had.values())
            text = "A full tick: all have it; a half one: those that have it keep it; none: it is removed."
            self.body.addWidget(text_label(text if half else "Without its tick a tag is removed.", "dim"))
            self.body.addWidget(self.boxes, 1)
        self.body.addWidget(self.new)
        self.body.addWidget(self.trouble)
        self.body.addWidget(self.steps, 2)
        self.body.addWidget(self.stays, 1)
        self.add_command()
        self.add_buttons()
        self.button("Cancel", self.reject)
        self.go = self.button(f"Change the tags of {len(ids)}", self.accept, style="primary", default=True)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._show_plan)
        self.boxes.itemChanged.connect(lambda *_: self._changed())
        self.new.textChanged.connect(lambda *_: self._changed())
        self._show_plan()
        self.new.setFocus()

    @property
    def parameters(self) -> TagsParameters:
        """What the boxes and the new words ask for; one left as it was asks for nothing."""
        add: list[str] = []
        remove: list[str] = []
        for row in range(self.boxes.count()):
            item = self.boxes.item(row)
            if item.checkState() == item.data(_AT_FIRST):
                continue
            if item.checkState() is Qt.CheckState.Checked:
                add.append(item.data(_TAG))
            elif item.checkState() is Qt.CheckState.Unchecked:
                remove.append(item.data(_TAG))
        typed = tags.words_of(self.new.text())
        return TagsParameters(
            add=tuple(dict.fromkeys((*add, *typed))), remove=tuple(t for t in remove if t not in typed)
        )

    @property
    def plan(self) -> Plan[TagsParameters]:
        """What would be done now."""
        return TAGS.plan(self._view, self._ids, self.parameters)

    def _add_box(self, tag: str, count: int, total: int, *, removed: bool) -> None:
        item = QListWidgetItem(plain(tag) if total == 1 else f"{plain(tag)}   ({count:,} of {total:,})")
        item.setData(_TAG, tag)
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsUserCheckable
        if count < total:
            flags |= Qt.ItemFlag.ItemIsUserTristate
        item.setFlags(flags)
        state = Qt.CheckState.Checked if count == total else Qt.CheckState.PartiallyChecked
        item.setData(_AT_FIRST, state)
        item.setCheckState(Qt.CheckState.Unchecked if removed else state)
        self.boxes.addItem(item)

    def _changed(self) -> None:
        if len(self._ids) <= _SHOWN:
            self._show_plan()
        else:
            self._soon.start(_PAUSE_MS)

    def _show_plan(self) -> None:
        given, plan = self.parameters, self.plan
        why = tags.trouble(tags.words_of(self.new.text()))
        self.trouble.setText(f"{why.text[0].upper()}{why.text[1:]}." if why else "")
        self.trouble.setVisible(why is not None)
        rows = [
            (
                step.name,
                step.note.text if step.note else "",
                ", ".join(tags.changed(_tags_of(self._view, step.vm), add=given.add, remove=given.remove)),
            )
            for step in islice(plan.steps, _SHOWN)
        ]
        left = len(plan.steps) - len(rows)
        if left:
            rows.append((f"and {units.count_text(left, 'more VM')}", "", ""))
        self.show_rows(plan, rows)
        refused = [s for s in plan.skipped if not s.already]
        self.stays.show_rows((s.name, s.reason.text, s.reason.remedy) for s in islice(refused, _SHOWN))
        self.stays.setVisible(bool(refused) and why is None)
        self.go.setText(f"Change the tags of {len(plan.steps)}")
        self.go.setEnabled(bool(plan.steps))

    def accept(self) -> None:
        """Not before the last word was looked at."""
        self._soon.stop()
        self._show_plan()
        if self.go.isEnabled():
            super().accept()


def _tags_of(view: ClusterView, key: VmId) -> tuple[str, ...]:
    vm = view.vms.get(key)
    return vm.config.settings.tags if vm is not None and vm.config is not None else ()


class _Words(QCompleter):
    """Completes the word behind the last comma."""

    def __init__(self, words: Sequence[str], field: QLineEdit) -> None:
        super().__init__(list(words), field)
        self.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self._field = field

    def splitPath(self, path: str) -> list[str]:
        """What is looked for."""
        return [path.rpartition(",")[2].strip()]

    def pathFromIndex(self, index: QModelIndex | QPersistentModelIndex) -> str:
        """The whole text with the chosen word at its end."""
        before, comma, _ = self._field.text().rpartition(",")
        return f"{before}{comma}{' ' if comma else ''}{super().pathFromIndex(index)}"

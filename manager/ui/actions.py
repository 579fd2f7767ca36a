"""The window's actions: one QAction each, made from `ActionSpec`, counted over the selection."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMenu, QWidget

from manager.core.actions import (
    CD,
    DEFINITION,
    DESCRIPTION,
    LIVE_MIGRATE,
    MOVE_STORAGE,
    OWNERS,
    PRIORITY,
    RULES,
    TAGS,
    VM_ACTIONS,
    ActionSpec,
    Allowed,
    Group,
    MigrateParameters,
    PriorityParameters,
    StorageParameters,
    TagsParameters,
)
from manager.core.actions.snapshots import SNAPSHOT_ACTIONS
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.edits import Describe
from manager.core.ids import ClusterId, Kind, VmId
from manager.core.model import Priority, SnapshotParameters
from manager.core.reasons import Reason
from manager.ui.icons import icon
from manager.ui.theme import Look
from manager.ui.views.parts import tip

_SLICE_S = 0.006
"""How long one turn of counting may take."""

_AT_ONCE = 60
"""Selections up to this size are counted at once, larger ones between other work."""

_RECOUNT_LARGE_MS = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the menus: an action with its parameters."""

    id: str
    spec: ActionSpec[Any]
    parameters: Any
    title: str
    shortcut: str = ""
    submenu: str = ""  # title of the submenu it stands in
    asks_target: bool = False  # opens the plan with the choice of a node
    doc: str = ""  # instead of the action's


UNNAMED = "\0"
"""A pool that nobody has: which one is meant is asked for when the action is chosen."""

SETTINGS = "vm.settings"
"""The entry that opens the settings of one VM."""

_SETTINGS = "See and change a VM's memory, vCPUs, CD, networks, boot order, disks and texts."
_EJECT = "Take the CD out of the VMs' drive."

_PRIORITY_KEYS = {Priority.HIGH: "1", Priority.MEDIUM: "2", Priority.LOW: "3", Priority.NO_AUTO_START: "0"}


def _entries() -> tuple[Entry, ...]:
    made: list[Entry] = []
    for spec in VM_ACTIONS:
        if spec is LIVE_MIGRATE:
            best = MigrateParameters()
            made.append(
                Entry("vm.live_migrate.best", spec, best, "Best node", "Ctrl+Shift+M", "Live migrate")
            )
            made.append(
                Entry(
                    "vm.live_migrate.select",
                    spec,
                    best,
                    "Select node…",
                    spec.shortcut,
                    "Live migrate",
                    asks_target=True,
                )
            )
        elif spec is PRIORITY:
            for priority, key in _PRIORITY_KEYS.items():
                made.append(
                    Entry(
                        f"vm.priority.{priority.name.lower()}",
                        spec,
                        PriorityParameters(priority=priority),
                        priority.title,
                        f"Ctrl+Alt+{key}",
                        spec.title,
                    )
                )
        elif spec is MOVE_STORAGE:
            # Counted with a pool: which one it is is asked for when it is chosen.
            made.append(Entry(spec.id, spec, StorageParameters(pool=UNNAMED), spec.title))
        elif spec is TAGS:
            # Counted with a tag that nobody has: the default, no change, would be "already so" for all.
            made.append(Entry(spec.id, spec, TagsParameters(tags=("·" * 64,)), spec.title))
        elif spec is CD:
            made.append(Entry("vm.cd.eject", spec, spec.default, "Eject CD", doc=_EJECT))
        elif spec in SNAPSHOT_ACTIONS:
            # Counted with a name: which one it is is asked for when it is chosen.
            named = SnapshotParameters(name=UNNAMED)
            made.append(Entry(spec.id, spec, named, spec.title, submenu=spec.group.value))
        elif spec not in (*DEFINITION, OWNERS, RULES):  # settings of one VM, or of the command line
            made.append(Entry(spec.id, spec, spec.default, spec.title, spec.shortcut))
    # Counted with a title that nobody has: whether it can be described tells whether it can be changed.
    wish = Describe(title="·" * 64)
    made.append(Entry(SETTINGS, DESCRIPTION, wish, "Settings…", "Alt+Return", doc=_SETTINGS))
    return tuple(made)


ENTRIES = _entries()
"""All lines of the menus, in their order."""

Question = tuple[ActionSpec[Any], Any]
"""An action with its parameters: what is counted. Several entries may ask the same."""


def _questions() -> list[Question]:
    found: list[Question] = []
    for entry in ENTRIES:
        if (entry.spec, entry.parameters) not in found:
            found.append((entry.spec, entry.parameters))
    return found


_QUESTIONS = _questions()


@dataclass(slots=True)
class Count:
    """To how many of the selected an action applies, and why not to the others."""

    allowed: int = 0
    total: int = 0
    looked: int = 0
    denied: Counter[Reason] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """Whether all were looked at."""
        return self.looked == self.total

    @property
    def is_enabled(self) -> bool:
        """Whether it applies to any, as far as known."""
        return self.allowed > 0

    @property
    def text(self) -> str:
        """``35 of 37``; with an ellipsis while it is still being counted."""
        if not self.total:
            return ""
        return f"{self.allowed:,} of {self.total:,}" if self.is_complete else f"… of {self.total:,}"

    def reasons(self, most: int = 4) -> list[str]:
        """Why it does not apply, the most frequent first, each with its number if there are several."""
        texts: Counter[str] = Counter()
        for reason, number in self.denied.items():
            texts[reason.text] += number  # reasons may differ in what their text leaves out
        found = texts.most_common(most)
        lines = [text if self.total == 1 else f"{n} × {text}" for text, n in found]
        left = sum(texts.values()) - sum(n for _, n in found)
        return [*lines, f"{left} × other reasons"] if left else lines


class ActionCenter(QObject):
    """Owns the QActions. Counts verdicts lazily and off the fast path."""

    wanted = Signal(object)  # Entry, on what is selected
    asked = Signal(object, object, object, object)  # runtime, action, VMs, parameters: whatever is selected
    counted = Signal()

    def __init__(self, look: Look, parent: QWidget) -> None:
        super().__init__(parent)
        self._look = look
        self._aims: dict[ClusterId, frozenset[VmId]] = {}
        self._targets: tuple[tuple[ClusterView, VmId], ...] = ()
        self._work: list[Question] = []
        self._count = Count()
        self.counts: dict[str, Count] = {entry.id: Count() for entry in ENTRIES}
        self.actions: dict[str, QAction] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._slice)
        self._again = QTimer(self)
        self._again.setSingleShot(True)
        self._again.timeout.connect(self.recount)
        for entry in ENTRIES:
            action = QAction(entry.title, self)
            if entry.shortcut:
                action.setShortcut(QKeySequence(entry.shortcut))
            action.setEnabled(False)
            action.triggered.connect(_emit(self.wanted, entry))
            parent.addAction(action)
            self.actions[entry.id] = action

    @property
    def ids(self) -> tuple[VmId, ...]:
        """The VMs that the actions are about."""
        return tuple(vm for _, vm in self._targets)

    def dress(self) -> None:
        """Give the actions their icons in the theme's colours."""
        t = self._look.tokens
        for entry in ENTRIES:
            if entry.spec.icon:
                self.actions[entry.id].setIcon(icon(entry.spec.icon, t.dim, t.faint))

    def aim(self, chosen: Iterable[tuple[ClusterView, Sequence[VmId]]]) -> None:
        """Say what is selected, in each cluster."""
        parts = list(chosen)
        self._targets = tuple(
            chain.from_iterable(zip(repeat(view), ids, strict=False) for view, ids in parts)
        )
        self._aims = {view.id: frozenset(ids) for view, ids in parts}
        self.recount()

    def take(self, view: ClusterView, changes: ChangeSet) -> None:
        """Count anew if the change may have another verdict for what is selected."""
        aimed = self._aims.get(view.id)
        if not aimed:
            return
        vms = changes[Kind.VM]
        nodes = changes[Kind.NODE]
        hit = any(n - _LOAD for k, n in vms.updated.items() if k in aimed) or bool(vms.removed & aimed)
        if not hit:
            hit = any(names & _NODE_MATTERS for names in nodes.updated.values())
        if not hit:
            return
        if len(self._targets) <= _AT_ONCE:
            self.recount()
        elif not self._again.isActive():
            self._again.start(_RECOUNT_LARGE_MS)

    def recount(self) -> None:
        """Ask every action about every selected VM: at once if few, in slices if many."""
        self._again.stop()
        self._timer.stop()
        total = len(self._targets)
        if not total:
            for question in _QUESTIONS:
                self._tell(question, Count(total=total))
            self.counted.emit()
            return
        # What is quick to ask comes first; where a VM may move costs a look at every node.
        self._work = sorted(_QUESTIONS, key=lambda q: q[0] is not LIVE_MIGRATE)
        self._count = Count(total=total)
        if total <= _AT_ONCE:
            self._count_until(None)
            return
        if any(count.total != total for count in self.counts.values()):
            for question in _QUESTIONS:  # another selection: say at once that nothing is known yet
                self._tell(question, Count(total=total))
            self.counted.emit()
        self._timer.start(0)

    def _slice(self) -> None:
        self._count_until(time.monotonic() + _SLICE_S)

    def _count_until(self, end: float | None) -> None:
        while self._work:
            self._count_some(self._work[-1], end)
            if not self._count.is_complete:
                self._timer.start(4)  # others have their turn
                return
            self._tell(self._work.pop(), self._count)
            self._count = Count(total=len(self._targets))
            if end is not None:
                self.counted.emit()
        self.counted.emit()

    def _count_some(self, question: Question, end: float | None) -> None:
        count, (spec, parameters) = self._count, question
        while count.looked < count.total:
            view, vm = self._targets[count.looked]
            found = spec.verdict(view, vm, parameters)
            count.looked += 1
            if isinstance(found, Allowed):
                count.allowed += 1
            else:
                count.denied[found.reason] += 1
            if end is not None and count.looked % 8 == 0 and time.monotonic() > end:
                return

    def _tell(self, question: Question, count: Count) -> None:
        for entry in ENTRIES:
            if (entry.spec, entry.parameters) == question:
                self.counts[entry.id] = count
                action = self.actions[entry.id]
                # Until it is known the action can be asked for: its plan tells.
                action.setEnabled(count.is_enabled or not count.is_complete)
                action.setToolTip(tip(self.explain(entry)))

    def explain(self, entry: Entry) -> str:
        """What it does, its key, and why it does not apply where it does not."""
        count = self.counts[entry.id]
        lines = [entry.doc or entry.spec.doc]
        if not count.total:
            lines.append("No VM is selected.")
        else:
            if count.total > 1:
                lines.append(f"Applies to {count.text}.")
            lines += [f"Not: {text}" if count.total == 1 else text for text in count.reasons()]
        return "\n".join(lines)

    def why_grey(self, entry: Entry) -> str:
        """Why it cannot be done to anything that is selected, in one line."""
        count = self.counts[entry.id]
        return next(iter(count.reasons(1)), "no VM is selected")

    def why_not(self) -> list[tuple[str, str, list[str]]]:
        """Title, count and reasons of every action that does not apply to all that is selected."""
        found = []
        for entry in ENTRIES:
            count = self.counts[entry.id]
            reasons = count.reasons(8)
            if not count.total:
                reasons = ["no VM is selected"]
            if reasons:
                title = f"{entry.submenu} › {entry.title}" if entry.submenu else entry.title
                found.append((title, count.text, reasons))
        return found

    def fill(self, menu: QMenu) -> None:
        """Put all actions in a menu, in their groups."""
        menu.setToolTipsVisible(True)
        last: Group | None = None
        submenus: dict[str, QMenu] = {}
        for entry in ENTRIES:
            if last is not None and entry.spec.group is not last:
                menu.addSeparator()
            last = entry.spec.group
            if entry.submenu:
                if entry.submenu not in submenus:
                    sub = submenus[entry.submenu] = menu.addMenu(entry.submenu)
                    sub.setToolTipsVisible(True)
                submenus[entry.submenu].addAction(self.actions[entry.id])
            else:
                menu.addAction(self.actions[entry.id])


_LOAD = frozenset({"load"})
_NODE_MATTERS = frozenset({"status", "holds", "facts", "*"})


def _emit(signal: Any, entry: Entry) -> Any:
    return lambda *_: signal.emit(entry)


def grouped(entries: Sequence[Entry] = ENTRIES) -> list[tuple[Group, list[Entry]]]:
    """The entries by group, in order."""
    found: dict[Group, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.spec.group, []).append(entry)
    return list(found.items())

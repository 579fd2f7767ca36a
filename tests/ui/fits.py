"""Looks for texts that are cut off: every page and dialog, with longer texts, at the scale of the process.

``QT_SCALE_FACTOR=1.5 python -m tests.ui.fits LONGER [FOLDER]`` prints one line per text that does not fit,
and keeps pictures in FOLDER. A program of its own: a process has one scale.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QCheckBox,
    QFormLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QMenu,
    QMenuBar,
    QPushButton,
    QTabBar,
    QTableWidget,
    QTabWidget,
    QToolButton,
    QWidget,
)

from manager.core.actions import (
    ACTIONS,
    LIVE_MIGRATE,
    QUICK_MIGRATE,
    MigrateParameters,
    PauseParameters,
    StorageParameters,
)
from manager.core.actions.snapshots import SNAPSHOT_REVERT
from manager.core.errors import Failure, FailureCode
from manager.core.events import QueueVerb
from manager.core.ids import Kind
from manager.core.model import StatusCause, VmStatus
from manager.core.operations import OperationState
from manager.core.query.views import View
from manager.core.reasons import ReasonCode, because
from manager.services.tasks import Tasks
from manager.ui.dialogs.confirm import ConfirmDialog
from manager.ui.dialogs.connect import ConnectDialog
from manager.ui.dialogs.migrate import MigrateDialog
from manager.ui.dialogs.node_plan import NodePlanDialog
from manager.ui.dialogs.palette import CommandPalette, Recent
from manager.ui.dialogs.settings import SettingsDialog
from manager.ui.dialogs.small import (
    AboutDialog,
    KeysDialog,
    MessageDialog,
    PeerLoginDialog,
    SecretDialog,
    WhyGreyDialog,
    WorkLeftDialog,
)
from manager.ui.dialogs.snapshot import ChooseSnapshotDialog, TakeSnapshotDialog
from manager.ui.dialogs.storage import StorageDialog
from manager.ui.dialogs.support_bundle import SupportBundleDialog
from manager.ui.dialogs.tags import TagsDialog
from manager.ui.heartbeat import Heartbeat
from manager.ui.main_window import MainWindow
from manager.ui.models.rows_model import RowsModel
from manager.ui.runner import Hidden
from manager.ui.theme import Look
from manager.ui.views.actions_pane import ActionLine
from manager.ui.views.columns import ColumnsDialog
from manager.ui.views.limits_popup import LimitsPopup
from manager.ui.views.navigation import SCOPES, Navigation
from manager.ui.views.parts import ElidedLabel, ElidedLink
from manager.ui.views.problems_pane import NoteDialog
from manager.ui.views.saved_views import NameDialog
from tests.ui.cluster_of import FakeRuntime, MemoryViews, runtime_of, vm_config, vm_id, workspace_of
from tests.ui.moves_of import check, fail, move, stick

REFUSED = (
    "Cannot recv data: Host key verification failed.: Connection reset by peer  → Check the user, the key, "
    "the certificate or the password; the libvirt group or polkit may have to allow it."
)

SIZES = ((1024, 700), (1400, 860))


# --- longer texts ----------------------------------------------------------------------------------

_longer: set[str] = set()
"""Texts made so; one that is handed on from widget to widget grows only once."""


def longer(text: str, factor: float) -> str:
    """The text with so many more letters, in words that can be wrapped, as a translation would have them."""
    if factor <= 1 or text in _longer or not any(c.isalpha() for c in text):
        return text
    more = max(1, round(len(text) * (factor - 1)))
    filler = ("lorem ipsum dolor sit amet consetetur sadipscing elitr sed diam " * (more // 60 + 1))[
        : more - 1
    ]
    head, dots, _ = text.partition("…") if text.endswith("…") else (text, "", "")
    made = f"{head} {filler}".rstrip() + dots if filler else text
    _longer.add(made)
    return made


def lengthen(factor: float) -> None:
    """From now on every text that the product gives to a widget is longer."""

    def patch(owner: type, name: str, *, at: int = 0) -> None:
        real = getattr(owner, name)

        @wraps(real)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self, ElidedLabel | ElidedLink):  # cut by themselves; the whole is in the tooltip
                return real(self, *args, **kwargs)
            given = list(args)
            for place, value in enumerate(given):
                if place >= at and isinstance(value, str):
                    given[place] = longer(value, factor)
                    break
            return real(self, *given, **kwargs)

        setattr(owner, name, call)

    for owner in (QLabel, QPushButton, QCheckBox, QAction, QMenu):
        patch(owner, "__init__")
    for owner in (QLabel, QPushButton, QToolButton, QCheckBox, QAbstractButton, QAction):
        patch(owner, "setText")
    patch(QMenuBar, "addMenu")
    patch(QMenu, "addMenu")
    patch(QMenu, "addAction")
    patch(QTabBar, "addTab")
    patch(QTabWidget, "addTab", at=1)
    patch(QTabWidget, "setTabText", at=1)
    patch(QLineEdit, "setPlaceholderText")
    patch(QFormLayout, "addRow")
    titles = QTableWidget.setHorizontalHeaderLabels
    QTableWidget.setHorizontalHeaderLabels = lambda self, texts: titles(  # type: ignore[method-assign]
        self, [longer(text, factor) for text in texts]
    )
    item = Navigation._item
    Navigation._item = lambda self, parent, title, *args, **kwargs: item(  # type: ignore[method-assign]
        self, parent, longer(title, factor), *args, **kwargs
    )
    for scope, title in SCOPES.items():
        SCOPES[scope] = longer(title, factor)
    header = RowsModel.headerData

    def header_data(self: RowsModel, section: int, *args: Any) -> Any:
        found = header(self, section, *args)
        return longer(found, factor) if isinstance(found, str) else found

    RowsModel.headerData = header_data  # type: ignore[method-assign]


# --- what does not fit -----------------------------------------------------------------------------


def cut_off(root: QWidget) -> Iterator[str]:
    """Every visible text below this widget for which there is too little room."""
    for widget in [root, *root.findChildren(QWidget)]:
        if not widget.isVisibleTo(root) or not widget.isVisible():
            continue
        found = ""
        if isinstance(widget, ElidedLabel | ElidedLink):
            continue
        if isinstance(widget, QLabel) and widget.text():
            found = _label(widget)
        elif isinstance(widget, ActionLine):
            found = _action_line(widget)
        elif isinstance(widget, QAbstractButton) and widget.text():
            found = _button(widget)
        elif isinstance(widget, QTabBar):
            found = _tabs(widget)
        elif isinstance(widget, QHeaderView) and widget.orientation() is Qt.Orientation.Horizontal:
            found = _header(widget)
        elif isinstance(widget, QLineEdit) and not widget.isReadOnly() and not widget.text():
            found = _placeholder(widget)
        if found:
            yield f"{type(widget).__name__} {found}"
        if widget.parentWidget() is not None and _sticks_out(widget):
            yield f"{type(widget).__name__} {_text(widget)!r} sticks out of what holds it"


def _text(widget: QWidget) -> str:
    text = widget.text() if isinstance(widget, QLabel | QAbstractButton) else widget.accessibleName()
    return str(text)


def _sticks_out(widget: QWidget) -> bool:
    if not isinstance(widget, QLabel | QAbstractButton):
        return False
    return not widget.parentWidget().rect().adjusted(-1, -1, 1, 1).contains(widget.geometry())


def _label(label: QLabel) -> str:
    metrics, room = label.fontMetrics(), label.contentsRect()
    if label.wordWrap():
        needs = label.heightForWidth(label.width())
        return (
            f"{label.text()!r} needs {needs} of {label.height()} high" if needs > label.height() + 1 else ""
        )
    needs = max(metrics.horizontalAdvance(line) for line in label.text().split("\n"))
    if needs > room.width() + 1:
        return f"{label.text()!r} needs {needs} of {room.width()}"
    high = metrics.height() * (label.text().count("\n") + 1)
    return f"{label.text()!r} needs {high} of {label.height()} high" if high > label.height() + 2 else ""


def _button(button: QAbstractButton) -> str:
    needs = button.sizeHint()
    if needs.width() > button.width() + 1 or needs.height() > button.height() + 4:
        return f"{button.text()!r} needs {needs.toTuple()} of {button.size().toTuple()}"
    return ""


def _action_line(line: ActionLine) -> str:
    return f"{line.text()!r} is cut" if line.is_cut else ""


def _tabs(bar: QTabBar) -> str:
    for place in filter(
        bar.isTabVisible, range(bar.count())
    ):  # those beyond the edge are reached by the bar's own arrows
        needs = bar.fontMetrics().horizontalAdvance(bar.tabText(place))
        if needs > bar.tabRect(place).width():
            return f"tab {bar.tabText(place)!r} needs {needs} of {bar.tabRect(place).width()}"
    return ""


def _header(header: QHeaderView) -> str:
    model = header.model()
    for section in range(header.count()):
        if header.isSectionHidden(section):
            continue
        title = str(model.headerData(section, Qt.Orientation.Horizontal))
        needs = header.fontMetrics().horizontalAdvance(title) + 8
        if needs > header.sectionSize(section) + 1:
            return f"column {title!r} needs {needs} of {header.sectionSize(section)}"
    return ""


def _placeholder(field: QLineEdit) -> str:
    needs = field.fontMetrics().horizontalAdvance(field.placeholderText())
    room = field.contentsRect().width() - 18
    return f"placeholder {field.placeholderText()!r} needs {needs} of {room}" if needs > room else ""


# --- everything that can be seen -------------------------------------------------------------------


async def settle(window: MainWindow) -> None:
    for pages in window.clusters.values():
        pages.bridge.flush()
    for _ in range(12):
        QApplication.processEvents()
        await asyncio.sleep(0.01)


def cluster() -> FakeRuntime:
    """VMs in every state, some that cannot be moved, a long queue of moves, a failure."""
    stuck = {
        2: vm_config(2, host_devices=("PCI 0000:3b:00.0",)),
        5: vm_config(5, snapshots=2),
    }
    runtime = runtime_of(
        3, 24, off=frozenset({4, 7}), configs=stuck, names=lambda n: f"app-{n:02}", tier=_demo()
    )
    runtime.change(3, VmStatus.CRASHED, StatusCause.CRASHED)
    runtime.change(6, VmStatus.PAUSED, StatusCause.IO_ERROR)
    view = runtime.view
    runtime.request(ACTIONS["vm.pause"].plan(view, [vm_id(8)]))
    runtime.answer(Failure(code=FailureCode.UNREACHABLE, text="Connection reset"))
    runtime.request(LIVE_MIGRATE.plan(view, [vm_id(n) for n in (9, 10, 11, 12, 13)]))
    check(runtime)
    running = [n for n in (9, 10, 11, 12, 13) if move(runtime, n).state is OperationState.RUNNING]
    fail(runtime, running[1])
    check(runtime)
    stick(runtime, running[0])
    runtime.steer(QueueVerb.PAUSE)
    return runtime


def _demo() -> Any:
    from manager.core.model import Tier

    return Tier.DEMO


Show = Callable[[MainWindow], Any]


def scenes() -> dict[str, Show]:
    """What can be seen in the window, by name."""

    def roles(window: MainWindow, *numbers: int, pane: str = "migrations") -> None:
        window.go_page("roles")
        page = window.list_page
        assert page is not None
        page.select([vm_id(n) for n in numbers])
        window.show_pane(pane)

    def nodes(window: MainWindow) -> None:
        window.go_page("nodes")
        page = window.list_page
        assert page is not None
        page.select(["n1"])

    def search(window: MainWindow) -> None:
        roles(window)
        page = window.list_page
        assert page is not None
        page.search.setText("nothing is called so")
        page.search.flush()

    def criteria(window: MainWindow) -> None:
        roles(window)
        page = window.list_page
        assert page is not None
        page.criteria_button.setChecked(True)
        page.search.setText("ownr:n1 (memory:2GiB..8GiB or not status!=off) tag!=none")
        page.search.flush()

    def queue(window: MainWindow, tab: str, *, large: bool) -> None:
        roles(window)
        pages = window.current
        assert pages is not None
        pages.queue.show_tab(tab)
        sizes = window._down.sizes()
        if large is not (sizes[1] > sum(sizes) * 6 // 10):
            window.panes.toggle_large()
        rows = pages.queue.table.rows_model.rows
        if rows and tab != "timeline":
            pages.queue.table.select_ids([rows[0].key])

    def viewed(window: MainWindow, pane: str) -> None:
        """A view with a long name that was changed, in the smallest pane."""
        queue(window, "history", large=False)
        kind = Kind.OPERATION if pane == "migrations" else Kind.PROBLEM
        name = "What did not come to an end on the nodes of the first row"
        window.show_view(View(id="own-1", name=name, kind=kind, query="n1"))
        window.show_pane(pane)
        pages = window.current
        assert pages is not None
        for search in (pages.queue.search, pages.problems.search):
            search.setText("n2")
            search.flush()

    def noted(window: MainWindow) -> None:
        roles(window, 1)
        buttons = (
            ("Wait on", window.lists.refresh),
            ("Ask the agent", window.lists.refresh),
            ("Turn off 12…", window.lists.refresh),
        )
        window.note("25 off, 12 still running: the guest did not answer within 3 min.", buttons, "warning")

    return {
        "overview": lambda window: window.go_page("overview"),
        "roles": roles,
        "roles-one": lambda window: roles(window, 1, pane="operations"),
        "roles-many": lambda window: roles(window, 1, 2, 4, 5, pane="problems"),
        "roles-none": search,
        "criteria": criteria,
        "nodes": nodes,
        "queue": lambda window: queue(window, "queue", large=False),
        "queue-large": lambda window: queue(window, "queue", large=True),
        "failed": lambda window: queue(window, "failed", large=False),
        "history": lambda window: queue(window, "history", large=False),
        "timeline": lambda window: queue(window, "timeline", large=False),
        "history-view": lambda window: viewed(window, "migrations"),
        "problems-view": lambda window: viewed(window, "problems"),
        "note": noted,
    }


def dialogs(window: MainWindow, look: Look, runtime: FakeRuntime) -> dict[str, QWidget]:
    """Every dialog, by name."""
    view = runtime.view
    ids = [vm_id(n) for n in (1, 2, 4, 14, 15, 16)]
    connect = ConnectDialog(window, look, window.workspace, Tasks("fits"))
    connect.results.show_rows(
        [("n1", "qemu+ssh://root@n1.example.org/system", REFUSED), ("n2", "qemu:///system", "Answers: n2")]
    )
    connect._say("Nodes: at least one URI is needed, such as qemu+ssh://root@n1/system.")
    login = because(
        ReasonCode.PEER_LOGIN_REFUSED,
        source="n1",
        target="n2",
        text=REFUSED,
        place="it is running on n1",
        commands="ssh-copy-id root@n2; virsh -c qemu+ssh://root@n2/system uri",
    )
    undeclared = runtime_of(3, 9, shared_paths=()).view
    hidden = ConfirmDialog(window, look, [(view.config, ACTIONS["vm.turn_off"].plan(view, ids))])
    told = Hidden((), "1,214 more hidden by the filter, 3,100 in closed groups").told
    hidden.offer(told, "Act on all 4,317…", hidden.reject)
    bundle = SupportBundleDialog(window, view.config, 1_800_000_000.0)
    bundle.since.setText("some time ago")
    bundle.accept()
    assert bundle.said.text()
    name = NameDialog(
        window, "Save a view of Roles", "Save", "", lambda _: "There is a view of that name already."
    )
    name._try()
    page = window.list_page
    assert page is not None
    return {
        "migrate": MigrateDialog(window, look, view, ids, MigrateParameters(), cluster_option="--demo 3x24"),
        "migrate-undeclared": MigrateDialog(
            window, look, undeclared, [vm_id(0)], MigrateParameters(), cluster_option="--demo 3x24"
        ),
        "confirm": ConfirmDialog(window, look, [(view.config, ACTIONS["vm.turn_off"].plan(view, ids))]),
        "confirm-one": ConfirmDialog(
            window, look, [(view.config, ACTIONS["vm.shut_down"].plan(view, ids[:1]))]
        ),
        "confirm-hidden": hidden,
        "connect": connect,
        "login": PeerLoginDialog(window, view.config, [login], 2),
        "why": WhyGreyDialog(window, look, window.center.why_not()),
        "keys": KeysDialog(window, look),
        "about": AboutDialog(window),
        "secret": SecretDialog(window, "n1", "adm", "Password", kept=False),
        "tags": TagsDialog(window, look, view, [vm_id(n) for n in range(3)], cluster_option=""),
        "settings": SettingsDialog(window, look, view, vm_id(0), cluster_option=""),
        "left": WorkLeftDialog(window, 3, 12, 1, demo=False),
        "quick": MigrateDialog(
            window, look, view, ids, MigrateParameters(), cluster_option="--demo 3x24", spec=QUICK_MIGRATE
        ),
        "storage": StorageDialog(
            window, look, view, ids, StorageParameters(pool="fast"), cluster_option="--demo 3x24"
        ),
        "message": MessageDialog(
            window, "Not opened", "prod.toml, line 14: needs a whole number from 1 to 64."
        ),
        "bundle": bundle,
        "snapshot": TakeSnapshotDialog(window, view, ids),
        "snapshot-choose": ChooseSnapshotDialog(window, view, SNAPSHOT_REVERT, ids[:1], ["before", "after"]),
        "snapshot-none": ChooseSnapshotDialog(window, view, SNAPSHOT_REVERT, ids[:1], []),
        "name": name,
        "acknowledge": NoteDialog(window, view.config, 3),
        "columns": ColumnsDialog(page.table),
        "palette": CommandPalette(window, look, window.palette_entries(), Recent(MemoryViews())),
        "limits": LimitsPopup(window, look, view),
        "drain": NodePlanDialog(
            window,
            look,
            view.config,
            ACTIONS["node.pause"].plan(view, ["n1"], PauseParameters(drain=True)),
            "The cluster changed since this was shown: look again.",
        ),
        "resume": NodePlanDialog(
            window, look, view.config, ACTIONS["node.pause"].plan(view, ["n1", "n2"], PauseParameters())
        ),
    }


async def look_at_all(folder: Path | None) -> list[str]:
    """Everything at every size; what does not fit."""
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    look = Look(app, "light")
    tasks = Tasks("fits")
    runtime = cluster()
    workspace = workspace_of([runtime])
    window = MainWindow(workspace, look, Heartbeat(None), tasks)
    complaints: list[str] = []

    def keep(name: str, shown: QWidget) -> None:
        complaints.extend(f"{name}: {line}" for line in cut_off(shown))
        if folder is not None:
            shown.grab().save(str(folder / f"{name}.png"))

    window.show()
    window.start()
    await workspace.open(runtime.view.config)
    for size in SIZES:
        for name, show in scenes().items():
            window.resize(QSize(*size))
            await settle(window)
            show(window)
            await settle(window)
            keep(f"{name}-{size[0]}", window)
            for note in window.notes:
                note.dismiss()
            if window.list_page is not None:
                window.list_page.search.clear()
                window.list_page.criteria_button.setChecked(False)
    for name, dialog in dialogs(window, look, runtime).items():
        dialog.show()
        await settle(window)
        keep(f"dialog-{name}", dialog)
        dialog.hide()
        dialog.deleteLater()
    window._closing = True
    window.close()
    await tasks.close(0.2)
    await workspace.shutdown()
    window.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    return complaints


def main() -> int:
    """Print what does not fit; 1 if there is anything."""
    app = QApplication(["muster"])
    app.setQuitOnLastWindowClosed(False)
    lengthen(float(sys.argv[1]))
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    complaints = asyncio.run(look_at_all(folder))
    print("\n".join(dict.fromkeys(complaints)) or "everything fits")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())

"""The window: tree, pages, actions, panes; menus and keys; what it remembers."""

from __future__ import annotations

import asyncio
import base64
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from PySide6.QtCore import QByteArray, QPoint, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QActionGroup, QCloseEvent, QGuiApplication, QKeySequence, QResizeEvent
from PySide6.QtWidgets import (
    QApplication,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMenu,
    QMenuBar,
    QPushButton,
    QSizePolicy,
    QSplitter,
    QStackedWidget,
    QTabWidget,
    QToolBar,
    QVBoxLayout,
    QWidget,
)

from manager import __version__
from manager.core import units
from manager.core.actions import LIVE_MIGRATE, MigrateParameters
from manager.core.changes import ChangeSet
from manager.core.errors import UserError
from manager.core.events import QueueVerb
from manager.core.explanations import past_return
from manager.core.ids import ClusterId, Kind, NodeId, OperationId
from manager.core.model import ClusterConfig, PeerRoute, Tier
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.operation_fields import operation_title
from manager.core.query.views import View
from manager.services.event_log import EventLog
from manager.services.runtime import Runtime
from manager.services.support_bundle import make_bundle, write
from manager.services.tasks import Tasks
from manager.services.workspace import Workspace
from manager.ui.actions import ENTRIES, ActionCenter, Entry
from manager.ui.all_clusters import WITH_LISTS, AllPages
from manager.ui.background import start_engine
from manager.ui.cluster_pages import ClusterPages
from manager.ui.dialogs.base import Asking, Band, demo_badge
from manager.ui.dialogs.connect import ConnectDialog
from manager.ui.dialogs.palette import CommandPalette, Found, Recent
from manager.ui.dialogs.small import (
    AboutDialog,
    KeysDialog,
    MessageDialog,
    SecretDialog,
    WhyGreyDialog,
    WorkLeftDialog,
)
from manager.ui.dialogs.support_bundle import SupportBundleDialog
from manager.ui.focus import go_on
from manager.ui.heartbeat import Heartbeat
from manager.ui.icons import icon
from manager.ui.notify import Notifier
from manager.ui.runner import Buttons, Hidden, Runner
from manager.ui.theme import Look, repolish
from manager.ui.views.actions_pane import ActionsPane
from manager.ui.views.details import Details
from manager.ui.views.events_page import NOTHING
from manager.ui.views.list_page import ListPage
from manager.ui.views.navigation import (
    EVERY,
    PAGE_OF,
    TITLES,
    Navigation,
    Place,
    node_of,
    page_place,
    place_of,
    tier_text,
)
from manager.ui.views.overview import Overview
from manager.ui.views.parts import ElidedLabel, NoteBar, link_button, text_label, tip
from manager.ui.views.queue_pane import PAST_TABS, QueuePane
from manager.ui.views.resource_details import RESOURCES
from manager.ui.views.saved_views import ShownView, ViewKeeper
from manager.ui.views.table import RowsTable
from manager.ui.wording import cluster_option, result_text, sentence, show_commands

PANES = ("migrations", "operations", "problems")
DENSITIES = ("compact", "usual", "roomy")

_VIEWED = {kind: TITLES[page] for kind, page in PAGE_OF.items()} | {
    Kind.OPERATION: "the history of moves",
    Kind.PROBLEM: "the problems",
}
"""What has views: lists of pages, and of panes."""

PAST = 2000
"""How many moves of earlier runs the history shows."""

_NO_CLUSTER = "no cluster is open"

_SUMMED_AT_ONCE = 500
"""Of more selected rows the totals are told a moment later, and not with every change."""

ENGINE_LOOKS = 15
"""How often, every tenth of a second, it is looked whether an engine stays alive that was started."""

PAUSE_TIP = "Nothing new starts in any open cluster; what runs goes on (Ctrl+.)"

_LIST_PX = 680
"""Below this width the list takes room from the counts of the Actions pane."""

_COUNTS_PX = 12
"""What the tree takes more where there is room: so counts of two digits stand whole beside its scroll bar."""

_NOTES = 3
"""Lines above the list at once; older ones make room."""


class SavedWindow(msgspec.Struct, frozen=True):
    """The window's layout as it is remembered."""

    geometry: str = ""
    across: list[int] = []
    down: list[int] = []
    details: list[int] = []
    theme: str = "system"
    density: str = "usual"
    tree: bool = True
    actions: bool = True
    panes: bool = True
    page: str = "roles"


class MainWindow(QMainWindow):
    """Everything the administrator sees. Loop thread only."""

    closed = Signal()

    def __init__(
        self,
        workspace: Workspace,
        look: Look,
        heartbeat: Heartbeat,
        tasks: Tasks,
        event_log: EventLog | None = None,
        log_lines: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self._log_lines = log_lines
        self.workspace = workspace
        self.look = look
        self.heartbeat = heartbeat
        self._event_log = event_log
        self._tasks = tasks
        self._views = workspace.adapters.views
        self.clusters: dict[ClusterId, ClusterPages] = {}
        self._here: Place | None = None
        self._past: list[Place] = []
        self._future: list[Place] = []
        self._travelling = False
        self._closing = False
        self._notes: list[NoteBar] = []
        self.saved = self._read_layout()
        self.setMinimumSize(720, 460)
        self.setAccessibleName("Muster")

        self.center = ActionCenter(look, self)
        self.runner = Runner(self, look, tasks, self.note, self.show_operation, self._cluster_option)
        self.notifier = Notifier(self)
        self.saved_views = ViewKeeper(self._views, self, tasks, self.note)
        self.every = AllPages(look, self._views, self.center, self.saved_views)
        self.every.made = self._page_made
        self.navigation = Navigation(look)
        self.pages = QStackedWidget()
        self.actions_pane = ActionsPane(self.center, look)
        self.panes = QTabWidget()
        self.panes.setDocumentMode(True)
        self.panes.tabBar().setExpanding(False)
        self._stacks: dict[str, QStackedWidget] = {}
        self._strips = QStackedWidget()
        self._build_actions()
        self._build_frame()
        self._build_menus()
        self._build_toolbar()
        self._build_status()
        for name, pane in zip(PANES, self.every.panes, strict=True):
            self._stacks[name].addWidget(pane)
            pane.wanted.connect(partial(self._pane_of, name))

        self.navigation.went.connect(self.go)
        self.saved_views.changed.connect(self._show_views)
        self.saved_views.chosen.connect(self.show_view)
        self.center.wanted.connect(self._act)
        self.center.asked.connect(self.runner.run)
        self.center.counted.connect(self._selection_changed)
        look.changed.connect(self._dress)
        self._tree_timer = QTimer(self)
        self._tree_timer.setSingleShot(True)
        self._tree_timer.setInterval(250)
        self._tree_timer.timeout.connect(self._show_counts)
        self._summing = QTimer(self, singleShot=True, interval=120)
        self._summing.timeout.connect(self._tell_selection)
        self._clock = QTimer(self)
        self._clock.setInterval(1000)
        self._clock.timeout.connect(self._tick)
        self._unsubscribe = workspace.subscribe(self.sync_clusters)
        self._restore_layout()
        self.sync_clusters()

    # --- building -------------------------------------------------------------------------------------

    def _action(
        self, title: str, act: Callable[[], object], *keys: str, tip: str = "", glyph: str = ""
    ) -> QAction:
        action = QAction(title, self)
        action.setShortcuts([QKeySequence(key) for key in keys])
        action.setToolTip(tip or title.replace("…", ""))
        action.triggered.connect(lambda *_: act())
        action.setData(glyph)
        self.addAction(action)
        return action

    def _build_actions(self) -> None:
        a = self._action
        self.back_action = a("Back", self.go_back, "Alt+Left", glyph="back")
        self.forward_action = a("Forward", self.go_forward, "Alt+Right", glyph="forward")
        self.refresh_action = a(
            "Read again",
            self.refresh,
            "F5",
            tip="Read the hosts again, and try lost ones now",
            glyph="refresh",
        )
        self.connect_action = a("Connect to a cluster…", self.connect_cluster, "Ctrl+N", glyph="connect")
        self.open_file_action = a("Open a cluster file…", self.open_file, "Ctrl+O")
        self.demo_action = a("Open the demo cluster", self.open_demo)
        self.close_cluster_action = a("Close this cluster", self.close_cluster, "Ctrl+W")
        self.quit_action = a("Quit", self.close, "Ctrl+Q")
        self.search_action = a("Search", self.focus_search, "Ctrl+F", "/", glyph="search")
        self.criteria_action = a("Criteria", self.toggle_criteria, "Ctrl+Shift+F")
        self.save_view_action = a("Save view", self.save_view, "Ctrl+S")
        self.export_action = a("Export…", self.export, "Ctrl+E", glyph="export")
        self.copy_action = a("Copy", self.copy_cells, "Ctrl+C", glyph="copy")
        self.copy_as_actions = [
            a(f"Copy {title}", partial(self.copy_cells, form))
            for form, title in (("titles", "with titles"), ("csv", "as CSV"), ("json", "as JSON"))
        ]
        self.copy_command_action = a("Copy as muster command", self.copy_command, "Ctrl+Shift+C")
        self.select_all_action = a("Select all", self.select_all, "Ctrl+A")
        self.invert_action = a("Invert the selection", self.invert_selection, "Ctrl+I")
        self.columns_action = a("Arrange columns…", self.arrange_columns)
        self.palette_action = a("Go to anything…", self.open_palette, "Ctrl+K")
        self.next_pane_action = a("Next pane", partial(self._next_pane, 1), "F6")
        self.previous_pane_action = a("Previous pane", partial(self._next_pane, -1), "Shift+F6")
        self.next_cluster_action = a("Next cluster", self.next_cluster, "Ctrl+Tab")
        self.queue_action = a("Live migrations", partial(self.show_pane, "migrations"), "Ctrl+J")
        self.large_action = a("Large lower pane", self.toggle_large_pane, "Ctrl+Shift+J")
        self.pause_all_action = a("Pause all work", self.pause_all, "Ctrl+.", tip=PAUSE_TIP)
        self.why_action = a("Why is this grey?…", self.explain_grey, "Shift+F1")
        self.properties_action = a("Details", self.show_details, glyph="details")
        self.happened_action = a(
            "What happened",
            self.show_what_happened,
            "Ctrl+H",
            tip="What happened to what is selected, newest first; of nothing selected, to the cluster",
        )
        self.bundle_action = a(
            "Support bundle…",
            self.write_bundle,
            tip="Write one file for somebody who helps: what is and what happened, without secrets",
        )
        self.keys_action = a("Keys", lambda: self._open(KeysDialog(self, self.look)), "F1")
        self.about_action = a("About Muster", lambda: self._open(AboutDialog(self)))
        self.page_actions = [
            a(title, partial(self.go_page, page), f"Ctrl+{place + 1}")
            for place, (page, title) in enumerate(TITLES.items())
        ]
        self.tree_action = self._toggle("Navigation tree", self.navigation)
        self.actions_action = self._toggle("Actions pane", self.actions_pane)
        self.panes_action = self._toggle("Work and problems", self.panes)
        self.window_actions = [self.copy_action, self.copy_command_action]

    def _toggle(self, title: str, widget: QWidget) -> QAction:
        action = QAction(title, self)
        action.setCheckable(True)
        action.setChecked(True)
        action.toggled.connect(widget.setVisible)
        return action

    def _build_frame(self) -> None:
        self._band = Band(self.look.sizes.band_px)
        top = QWidget()
        column = QVBoxLayout(top)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._band)
        self._menu_bar = QMenuBar()
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 8, 0)
        line.setSpacing(14)
        line.addWidget(self._menu_bar, 1)
        # Not in the toolbar: that one hides what it has no room for.
        self._problems_link = link_button("", partial(self.show_pane, "problems"))
        self._moves_link = link_button("", partial(self.show_pane, "migrations"))
        self._read_only_badge = text_label("READ-ONLY", "demo")
        self._demo_badge = demo_badge()
        self._pause_link = link_button("", self.pause_all)
        for mark in (
            self._pause_link,
            self._problems_link,
            self._moves_link,
            self._read_only_badge,
            self._demo_badge,
        ):
            line.addWidget(mark, alignment=Qt.AlignmentFlag.AlignVCenter)
        column.addLayout(line)
        self.setMenuWidget(top)
        middle = QWidget()
        self._middle = QVBoxLayout(middle)
        self._middle.setContentsMargins(0, 0, 0, 0)
        self._middle.setSpacing(0)
        self._middle.addWidget(self.pages, 1)
        self._across = QSplitter(Qt.Orientation.Horizontal)
        self._across.setChildrenCollapsible(False)
        for widget in (self.navigation, middle, self.actions_pane):
            self._across.addWidget(widget)
        self._across.setStretchFactor(1, 1)
        self._across_chosen = False
        self._across.splitterMoved.connect(lambda *_: setattr(self, "_across_chosen", True))
        for place, name in enumerate(PANES):
            stack = QStackedWidget()
            self._stacks[name] = stack
            self.panes.addTab(stack, ("Live migrations", "Operations", "Problems")[place])
        self.panes.setCornerWidget(self._strips, Qt.Corner.TopRightCorner)
        self.panes.currentChanged.connect(lambda *_: self._show_strip())
        self.panes.setAccessibleName("Work and problems")
        self._down = QSplitter(Qt.Orientation.Vertical)
        self._down.setChildrenCollapsible(False)
        self._down.addWidget(self._across)
        self._down.addWidget(self.panes)
        self._down.setStretchFactor(0, 1)
        self._usual_down = [560, 264]
        self._down.setSizes(self._usual_down)
        self._welcome = self._build_welcome()
        self._center = QStackedWidget()  # without a cluster there is nothing that the panes could show
        self._center.addWidget(self._welcome)
        self._center.addWidget(self._down)
        self.setCentralWidget(self._center)

    def _usual_across(self) -> list[int]:
        """The panes beside the list as wide as their texts, the list with the rest; it must have some."""
        tree = self.navigation.sizeHint().width()
        least, whole = (self.actions_pane.width_with(count) for count in ("00", "00 of 00"))
        actions = max(least, min(whole, self.width() - tree - _LIST_PX))
        tree += max(0, min(_COUNTS_PX, self.width() - tree - actions - _LIST_PX))
        return [tree, max(300, self.width() - tree - actions), actions]

    def _build_menus(self) -> None:
        bar = self._menu_bar
        file_menu = bar.addMenu("&File")
        file_menu.addAction(self.connect_action)
        file_menu.addAction(self.open_file_action)
        self._configured_menu = file_menu.addMenu("Open a cluster")
        self._configured_menu.aboutToShow.connect(self._fill_configured)
        file_menu.addAction(self.demo_action)
        file_menu.addSeparator()
        file_menu.addAction(self.export_action)
        file_menu.addSeparator()
        file_menu.addAction(self.close_cluster_action)
        file_menu.addAction(self.quit_action)
        action_menu = bar.addMenu("&Action")
        self.center.fill(action_menu)
        action_menu.addSeparator()
        for action in (
            self.copy_action,
            *self.copy_as_actions,
            self.copy_command_action,
            self.select_all_action,
            self.invert_action,
        ):
            action_menu.addAction(action)
        action_menu.addSeparator()
        action_menu.addAction(self.pause_all_action)
        action_menu.addSeparator()
        action_menu.addAction(self.properties_action)
        action_menu.addAction(self.happened_action)
        action_menu.addAction(self.why_action)
        view_menu = bar.addMenu("&View")
        for action in (*self.page_actions, self.queue_action):
            view_menu.addAction(action)
        view_menu.addSeparator()
        for action in (self.back_action, self.forward_action, self.refresh_action, self.search_action):
            view_menu.addAction(action)
        view_menu.addAction(self.criteria_action)
        view_menu.addSeparator()
        for action in (self.tree_action, self.actions_action, self.panes_action, self.large_action):
            view_menu.addAction(action)
        self._views_menu = view_menu.addMenu("Views")
        self._views_menu.aboutToShow.connect(self._fill_views)
        view_menu.addAction(self.save_view_action)
        self._groups_menu = view_menu.addMenu("Group by")
        self._groups_menu.aboutToShow.connect(self._fill_groups)
        view_menu.addAction(self.columns_action)
        view_menu.addSeparator()
        self._theme_group = self._choices(
            view_menu,
            "Theme",
            (("system", "As the system"), ("light", "Light"), ("dark", "Dark")),
            self.choose_theme,
        )
        self._density_group = self._choices(
            view_menu, "Rows", tuple((d, d.title()) for d in DENSITIES), self.choose_density
        )
        window_menu = bar.addMenu("&Window")
        for action in (
            self.palette_action,
            self.next_pane_action,
            self.previous_pane_action,
            self.next_cluster_action,
        ):
            window_menu.addAction(action)
        help_menu = bar.addMenu("&Help")
        for action in (self.keys_action, self.why_action, self.bundle_action, self.about_action):
            help_menu.addAction(action)

    def _choices(
        self,
        menu: QMenu,
        title: str,
        choices: Sequence[tuple[str, str]],
        choose: Callable[[str], object],
    ) -> QActionGroup:
        sub = menu.addMenu(title)
        group = QActionGroup(self)
        for key, name in choices:
            action = QAction(name, self)
            action.setCheckable(True)
            action.setData(key)
            action.triggered.connect(lambda *_, k=key: choose(k))
            group.addAction(action)
            sub.addAction(action)
        return group

    def _build_toolbar(self) -> None:
        bar = QToolBar("Main")
        bar.setObjectName("main")
        bar.setMovable(False)
        bar.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        bar.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        bar.addAction(self.back_action)
        bar.addAction(self.forward_action)
        bar.addAction(self.refresh_action)
        for action in (self.back_action, self.forward_action, self.refresh_action):
            action.setPriority(QAction.Priority.LowPriority)  # an icon alone
        bar.addSeparator()
        for key in ("vm.start", "vm.shut_down", "vm.turn_off"):
            bar.addAction(self.center.actions[key])
        bar.addSeparator()
        # The toolbar has no room for the submenu's title: an action of its own that follows the other.
        source = self.center.actions["vm.live_migrate.select"]
        self._migrate_action = QAction("Live migrate…", self)
        self._migrate_action.triggered.connect(lambda *_: source.trigger())

        def follow() -> None:
            self._migrate_action.setEnabled(source.isEnabled())
            self._migrate_action.setToolTip(source.toolTip())
            self._migrate_action.setIcon(source.icon())

        source.changed.connect(follow)
        follow()
        bar.addAction(self._migrate_action)
        bar.addAction(self.center.actions["vm.cancel"])
        bar.setIconSize(QSize(17, 17))
        self.addToolBar(bar)
        self._toolbar = bar

    def _build_status(self) -> None:
        bar = self.statusBar()
        bar.setSizeGripEnabled(False)
        self._tier: QLabel = text_label(style="dim")
        self._selection = ElidedLabel(style="dim")
        self._live: QLabel = text_label(style="dim")
        bar.setContentsMargins(8, 0, 8, 0)
        self._tier.setContentsMargins(0, 0, 18, 0)
        bar.addWidget(self._tier)
        bar.addWidget(self._selection, 1)
        bar.addPermanentWidget(self._live)

    def _build_welcome(self) -> QWidget:
        page = QFrame()
        page.setObjectName("panel")
        layout = QVBoxLayout(page)
        layout.setSpacing(8)
        layout.addStretch(2)
        for text, style in (
            ("No cluster is open", "heading"),
            (
                "A cluster is a set of libvirt hosts. Connect to yours, or try a simulated one.",
                "dim",
            ),
        ):
            label = text_label(text, style)
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            layout.addWidget(label)
        for title, act in (
            ("Connect to a cluster…", self.connect_cluster),
            ("Open the demo cluster", self.open_demo),
        ):
            button = link_button(title, act)
            layout.addWidget(button, alignment=Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch(3)
        return page

    def _dress(self) -> None:
        t = self.look.tokens
        self.center.dress()
        for action in self.actions():
            glyph = action.data()
            if isinstance(glyph, str) and glyph:
                action.setIcon(icon(glyph, t.dim, t.faint))

    # --- clusters -------------------------------------------------------------------------------------

    def sync_clusters(self) -> None:
        """Follow which clusters are open."""
        runtimes = self.workspace.runtimes
        for cluster in [c for c in self.clusters if c not in runtimes]:
            self._remove_cluster(cluster)
        for cluster, runtime in runtimes.items():
            if cluster not in self.clusters:
                self._add_cluster(runtime)
        self._sync_every()
        self._show_here()

    def _sync_every(self) -> None:
        """What is over all clusters is there while there are several."""
        runtimes = [pages.runtime for pages in self.clusters.values()]
        shown, several = self.navigation.has(Place(EVERY, "roles")), len(runtimes) > 1
        if several and not shown:
            self.navigation.add_every()
            self.navigation.show_views(EVERY, self.saved_views.views)
        elif shown and not several:
            self._remove_places(EVERY)
            self._leave(EVERY)
        self.every.read_from(runtimes)

    def _remove_places(self, cluster: ClusterId) -> None:
        """They are in the tree no more, nor to come back to."""
        if self._here is not None and self._here.cluster == cluster:
            self.center.aim(())
        self.navigation.remove_cluster(cluster)
        self._past = [p for p in self._past if p.cluster != cluster]
        self._future = [p for p in self._future if p.cluster != cluster]

    def _leave(self, cluster: ClusterId) -> None:
        """Be where the tree is, if the window was at a place that is no more."""
        if self._here is not None and self._here.cluster == cluster:
            self._here = None
            place = self.navigation.place
            if place is not None and place.cluster in self.clusters:
                self.go(place)
            elif self.clusters:
                self.navigation.go(Place(next(iter(self.clusters)), "roles"))

    def _add_cluster(self, runtime: Runtime) -> None:
        pages = ClusterPages(runtime, self.look, self._views, self.center, self.saved_views)
        pages.setParent(self)  # and its timers end with the window
        pages.made = self._page_made
        self.clusters[runtime.id] = pages
        for name, pane, strip in zip(PANES, pages.panes, pages.strips, strict=True):
            self._stacks[name].addWidget(pane)
            self._strips.addWidget(strip)
        for table in pages.tables:
            table.set_row_height(self._row_px())
        pages.changed.connect(partial(self._changed, runtime.id))
        pages.batch_ended.connect(partial(self._batch_ended, runtime))
        self._connect_queue(runtime, pages.queue)
        pages.operations.cancel_wanted.connect(partial(self._cancel_operations, runtime))
        pages.operations.undo_wanted.connect(partial(self.runner.undo, runtime))
        pages.operations.through_wanted.connect(partial(self._move_through, runtime))
        for table in (pages.operations.table, pages.operations.children_table):
            table.opened.connect(partial(self._operation_opened, runtime))
        pages.problems.table.opened.connect(partial(self._problem_opened, runtime))
        pages.problems.export_wanted.connect(lambda: self._export(pages.problems.table))
        pages.problems.said.connect(lambda text: self.note(text, (), "error"))
        self.navigation.add_cluster(runtime)
        self.navigation.show_views(runtime.id, self.saved_views.views)
        self.navigation.show_counts(runtime, pages.tally)
        if self._here is None:
            page = self.saved.page if self.saved.page in TITLES else "roles"
            self.navigation.go(page_place(runtime.id, page))
            views = self.saved_views.views
            if views.start is not None and (view := views.get(*views.start)) is not None:
                self.show_view(view)
            if self.isVisible():
                self._focus_list()

    def _connect_queue(self, runtime: Runtime, queue: QueuePane) -> None:
        queue.cancel_wanted.connect(partial(self._cancel_operations, runtime))
        queue.cancel_all_wanted.connect(partial(self._cancel_all, runtime))
        queue.back_wanted.connect(partial(self.runner.undo, runtime))
        queue.retry_wanted.connect(partial(self.runner.retry_elsewhere, runtime))
        queue.steer_wanted.connect(partial(self._steer, runtime))
        queue.post_copy_wanted.connect(partial(self._post_copy, runtime))
        queue.vm_wanted.connect(partial(self.show_vm, runtime.id))
        queue.roles_wanted.connect(partial(self.show_list, "roles"))
        queue.batch_wanted.connect(partial(self.show_operation, runtime))
        queue.past_wanted.connect(partial(self._read_past, runtime))
        queue.export_wanted.connect(lambda: self._export(queue.table))
        queue.room_wanted.connect(self._give_room)
        queue.said.connect(lambda text: self.note(text, (), ""))

    def _remove_cluster(self, cluster: ClusterId) -> None:
        pages = self.clusters.pop(cluster)
        self._remove_places(cluster)
        for strip in pages.strips:
            self._strips.removeWidget(strip)
            strip.deleteLater()
        pages.close()
        self._leave(cluster)

    @property
    def here(self) -> Place | None:
        """Where the window is."""
        return self._here

    @property
    def current(self) -> ClusterPages | None:
        """The cluster that is shown; none: no cluster is, or all are."""
        return self.clusters.get(self._here.cluster) if self._here is not None else None

    @property
    def shown(self) -> list[ClusterPages]:
        """The clusters that are shown: one, or all."""
        if self._here is not None and self._here.cluster == EVERY:
            return list(self.clusters.values())
        return [self.current] if self.current is not None else []

    @property
    def list_page(self) -> ListPage | None:
        """The list that is shown, if the page is one."""
        page = self.pages.currentWidget()
        return page if isinstance(page, ListPage) else None

    @property
    def shows_loads(self) -> bool:
        """Whether what is shown has figures of CPU or memory use."""
        page = self.pages.currentWidget()
        return page.table.needs_samples if isinstance(page, ListPage) else isinstance(page, Overview)

    @property
    def shows_resources(self) -> bool:
        """Whether what is shown comes from reading pools and networks."""
        page = self.list_page
        return page is not None and page.kind in RESOURCES

    def _page_made(self, page: QWidget) -> None:
        self.pages.addWidget(page)
        if isinstance(page, ListPage):
            page.table.set_row_height(self._row_px())
            if len(self.saved.details) == 2:
                page.splitter.setSizes(self.saved.details)
            page.selection_settled.connect(self._aim)
            page.model.totals_changed.connect(self._selection_changed)
            page.menu_wanted.connect(self._context_menu)
            page.export_wanted.connect(self.export)
            page.empty_text = partial(self._empty_text, page)
        elif isinstance(page, Overview):
            page.list_wanted.connect(self.show_list)
            page.row_wanted.connect(self._show_row)
            page.pane_wanted.connect(self.show_pane)
            page.batch_wanted.connect(partial(self.show_operation, page.runtime))
            page.problem_wanted.connect(partial(self._problem_opened, page.runtime))
            page.pause_wanted.connect(self.pause_all)
            self._show_paused()

    def _empty_text(self, page: ListPage) -> tuple[str, str, str, Callable[[], object] | None]:
        nodes = [node for runtime in page.runtimes.values() for node in runtime.view.nodes.values()]
        if page.kind is Kind.EVENT:
            return *NOTHING, "", None
        if page.kind is Kind.NODE and page.scope_title and nodes:
            return (f"No node: {page.scope_title}", "", "Show all nodes", partial(self.go_page, "nodes"))
        if page.kind is Kind.NODE:
            return (
                "This cluster has no nodes",
                "Nodes are the libvirt hosts that its cluster file names.",
                "Connect to a cluster…",
                self.connect_cluster,
            )
        if page.kind in RESOURCES:
            what = "storage pool" if page.kind is Kind.POOL else "network"
            return (
                f"No {what} is known",
                f"The nodes are asked for their {what}s a moment after they are connected to.",
                "Read again",
                self.refresh,
            )
        if page.scope_title and any(runtime.view.vms for runtime in page.runtimes.values()):
            right = page.shown.view.id in ("attention", "unmovable")
            return (
                f"No VM: {page.scope_title}",
                "That is as it should be." if right else page.shown.view.query,
                "Show all roles",
                self._all_roles,
            )
        if any(not node.is_up for node in nodes):
            waiting = sum(1 for node in nodes if not node.is_up)
            return (
                "No VM is known yet",
                f"{waiting} of {units.count_text(len(nodes), 'node')} cannot be read: "
                "the reasons are under Nodes.",
                "Show the nodes",
                partial(self.go_page, "nodes"),
            )
        return (
            "No VM is defined on these nodes",
            "Every VM of the hosts is a role here. Define one on a host, for instance with virt-install, "
            "and it shows up at once.",
            "Read again",
            self.refresh,
        )

    def _all_roles(self) -> None:
        if self._here is not None:
            self.navigation.go(Place(self._here.cluster, "roles"))

    # --- going about ----------------------------------------------------------------------------------

    def go(self, place: Place) -> None:
        """Show a place."""
        pages = self.every if place.cluster == EVERY else self.clusters.get(place.cluster)
        if pages is None:
            return
        if self._here is not None and self._here != place and not self._travelling:
            self._past.append(self._here)
            del self._past[:-50]
            self._future.clear()
        self._here = place
        focus = QApplication.focusWidget()
        follows = focus is None or self.pages.isAncestorOf(focus)
        self.pages.setCurrentWidget(pages.page(place))
        for name, pane in zip(PANES, pages.panes, strict=True):
            self._stacks[name].setCurrentWidget(pane)
        self._show_strip()
        self._show_here()
        self._aim()
        if follows:  # else Qt hands it to the search box, and keys for the list are typed there
            self._focus_list()

    def go_back(self) -> None:
        """Where the window was before."""
        self._travel(self._past, self._future)

    def go_forward(self) -> None:
        """Where Back came from."""
        self._travel(self._future, self._past)

    def _travel(self, source: list[Place], other: list[Place]) -> None:
        if not source:
            return
        place = source.pop()
        if self._here is not None:
            other.append(self._here)
        self._travelling = True
        self.navigation.go(place)
        self._travelling = False
        self._show_here()

    def go_page(self, page: str) -> None:
        """A page of this cluster; keys act on its list."""
        if self._here is not None:
            self._go_here(page_place(self._here.cluster, page))
            self._focus_list()

    def show_view(self, view: View) -> None:
        """A view of the cluster that is shown, or of all."""
        if self._here is not None:
            self._show_view_of(self._here.cluster, view)

    def _show_view_of(self, cluster: ClusterId, view: View) -> None:
        if view.kind in PAGE_OF:
            self._go_here(place_of(cluster, view))
            return
        if cluster == EVERY:
            self._say_one_at_a_time()
            return
        if self._here is None or self._here.cluster != cluster:
            self.navigation.go(Place(cluster, "roles"))
        pages = self.clusters[cluster]
        if view.kind is Kind.OPERATION:
            pages.queue.show_view(view)
            self.show_pane("migrations")
        elif view.kind is Kind.PROBLEM:
            pages.problems.shown.show(view)
            self.show_pane("problems")

    def _go_here(self, place: Place) -> None:
        if not self.navigation.go(place) and place.cluster == EVERY:
            self._say_one_at_a_time()

    def _say_one_at_a_time(self) -> None:
        self.note("That is shown of one cluster at a time: choose one in the tree.", (), "")

    def _shown_view(self) -> ShownView | None:
        """Of the list that is worked in: a pane's, or that of the page."""
        pages, focus = self.current, QApplication.focusWidget()
        if pages is not None and focus is not None:
            if pages.problems.isAncestorOf(focus):
                return pages.problems.shown
            if pages.queue.isAncestorOf(focus) and pages.queue.tab in PAST_TABS:
                return pages.queue.shown
        return self.list_page.shown if self.list_page is not None else None

    def save_view(self) -> None:
        """Keep what the list shows as a view."""
        shown = self._shown_view()
        if shown is not None:
            shown.save()

    def _fill_views(self) -> None:
        self._views_menu.clear()
        shown = self._shown_view()
        if shown is not None:
            shown.fill(self._views_menu)

    def _show_views(self) -> None:
        views = self.saved_views.views
        for cluster, pages in self.clusters.items():
            pages.tally.follow(views)
            pages.count()
            self.navigation.show_views(cluster, views)
        self.navigation.show_views(EVERY, views)
        self._show_counts()

    def next_cluster(self) -> None:
        """The same page of the next cluster."""
        names = list(self.clusters)
        if self._here is not None and len(names) > 1:
            at = names.index(self._here.cluster) if self._here.cluster in self.clusters else -1
            following = names[(at + 1) % len(names)]
            self.navigation.go(
                Place(following, self._here.page, self._here.scope if not node_of(self._here.scope) else "")
            )

    def show_pane(self, name: str) -> None:
        """Open the lower pane at a tab."""
        self.panes_action.setChecked(True)
        self.panes.setCurrentIndex(PANES.index(name))
        stack = self._stacks[name]
        pane = stack.currentWidget()
        if pane is not None:
            pane.setFocus()

    def toggle_large_pane(self) -> None:
        """Give the lower pane most of the window, or as much as it had."""
        self.panes_action.setChecked(True)
        sizes = self._down.sizes()
        if sizes[1] > sum(sizes) * 6 // 10:
            self._down.setSizes(self._usual_down)
        else:
            self._usual_down = sizes
            self._down.setSizes([sum(sizes) * 15 // 100, sum(sizes) * 85 // 100])

    def _give_room(self, height: int) -> None:
        """Let the lower pane be at least that high, as far as there is room."""
        sizes = self._down.sizes()
        wanted = min(height, sum(sizes) * 6 // 10)
        if sizes[1] < wanted:
            self._down.setSizes([sum(sizes) - wanted, wanted])

    def show_operation(self, runtime: Runtime, operation: OperationId | str) -> None:
        """Show a batch and its results."""
        pages = self.clusters.get(runtime.id)
        if pages is not None:
            self._go_cluster(runtime.id)
            self.show_pane("operations")
            pages.operations.choose(operation)

    def show_vm(self, cluster: ClusterId, vm: str) -> None:
        """Show a VM in Roles, selected."""
        self._go_cluster(cluster)
        self._show_row("roles", vm)

    def _pane_of(self, name: str, cluster: str) -> None:
        """A pane of one cluster, from where all are shown."""
        self._go_cluster(ClusterId(cluster))
        self.show_pane(name)

    def _go_cluster(self, cluster: ClusterId) -> None:
        if self._here is None or self._here.cluster != cluster:
            self.navigation.go(Place(cluster, "roles"))

    def show_list(self, name: str, scope: str = "", search: str = "") -> None:
        """A page with a list: at a view, or searched for something."""
        if self._here is None:
            return
        self.navigation.go(Place(self._here.cluster, name, scope))
        page = self.list_page
        if page is not None and not scope:  # a view has its own query
            page.search.setText(search)
        self._focus_list()

    def _show_row(self, name: str, key: str) -> None:
        """An object in its list, selected."""
        if self._here is None:
            return
        self.navigation.go(Place(self._here.cluster, name))
        if self.list_page is not None:
            self.list_page.select([key])
        self._focus_list()

    def _operation_opened(self, runtime: Runtime, key: str) -> None:
        operation = runtime.view.operations.get(OperationId(key))
        if operation is None:
            return
        if operation.kind is OperationKind.BATCH or operation.parent is None:
            self.show_operation(runtime, operation.id)
        elif operation.vm is not None and operation.vm in runtime.view.vms:
            self.show_vm(runtime.id, operation.vm)

    def _problem_opened(self, runtime: Runtime, key: str) -> None:
        problem = runtime.view.problems.get(key)
        if problem is None:
            return
        self._go_cluster(runtime.id)
        if problem.key.startswith("vm:") and problem.vms:
            self.show_vm(runtime.id, problem.vms[0])
        elif problem.key.startswith("pool:"):
            self._show_row("storage", problem.key.removeprefix("pool:"))
        elif problem.node is not None:
            self._show_row("nodes", problem.node)

    def _show_here(self) -> None:
        shown = self.shown
        configs = [pages.runtime.view.config for pages in shown]
        is_demo = any(config.tier is Tier.DEMO for config in configs)
        read_only = bool(configs) and all(config.read_only for config in configs)
        marks = (" — DEMO" if is_demo else "") + (" — read-only" if read_only else "")
        is_open = self._here is not None and bool(shown)
        self._center.setCurrentWidget(self._down if is_open else self._welcome)
        if not is_open:
            self.setWindowTitle("Muster")
            self._band.show_colour("transparent")
            self._tier.setText("")
        elif self.current is None:
            self.setWindowTitle(f"All clusters{marks} — Muster")
            self._band.show_colour("transparent")
            self._tier.setText(units.and_text([config.name for config in configs]))
        else:
            self.setWindowTitle(f"{configs[0].name}{marks} — Muster")
            self._band.show_colour(configs[0].colour)
            tier = tier_text(self.current.runtime)
            self._tier.setText(f"DEMO: {tier.removeprefix('a demo: ')}" if is_demo else tier)
        self._demo_badge.setVisible(is_demo)
        self._read_only_badge.setVisible(read_only)
        self.back_action.setEnabled(bool(self._past))
        self.forward_action.setEnabled(bool(self._future))
        for action in (self.close_cluster_action, self.happened_action, self.bundle_action):
            action.setEnabled(self.current is not None)
        self.refresh_action.setEnabled(bool(shown))
        self._show_counts()
        self._tick()

    def _show_strip(self) -> None:
        pages = self.current
        if pages is not None:
            shown = pages.strips[max(0, self.panes.currentIndex())]
            for place in range(self._strips.count()):
                strip = self._strips.widget(place)  # as wide as the one that is shown, not as the widest
                assert strip is not None
                wide = QSizePolicy.Policy.Preferred if strip is shown else QSizePolicy.Policy.Ignored
                strip.setSizePolicy(wide, QSizePolicy.Policy.Preferred)
            self._strips.setCurrentWidget(shown)
        self._strips.setVisible(pages is not None)

    # --- what changes ---------------------------------------------------------------------------------

    def _changed(self, cluster: ClusterId, changes: ChangeSet) -> None:
        self.every.take(cluster, changes)
        if not self._tree_timer.isActive():
            self._tree_timer.start()

    def _show_counts(self) -> None:
        for pages in self.clusters.values():
            self.navigation.show_counts(pages.runtime, pages.tally)
        self.navigation.show_sums([(pages.runtime, pages.tally) for pages in self.clusters.values()])
        shown = self.shown
        moving, waiting = (
            sum(figures) for figures in zip((0, 0), *(p.tally.moves for p in shown), strict=True)
        )
        failed = sum(pages.tally.failed for pages in shown)
        problems, known = (sum(n) for n in zip((0, 0), *(_problems(p.runtime) for p in shown), strict=True))
        self._tab(0, "Live migrations", f"{moving:,} + {waiting:,}" if moving or waiting else "")
        self._tab(1, "Operations", f"{failed} failed" if failed else "")
        self._tab(2, "Problems", f"{problems} + {known} known" if known else str(problems or ""))
        self._link(self._problems_link, units.count_text(problems, "problem") if problems else "")
        self._link(self._moves_link, f"{moving:,} moving, {waiting:,} waiting" if moving or waiting else "")
        if self.current is None:
            self._show_each()
        self._show_paused()
        self._tick()

    def _show_each(self) -> None:
        """What there is of work and problems in each of the clusters, where none alone is shown."""
        lines: tuple[list[tuple[Runtime, str]], ...] = ([], [], [])
        for pages in self.shown:
            runtime, (moving, waiting) = pages.runtime, pages.tally.moves
            problems, known = _problems(runtime)
            texts = (
                f"{moving:,} moving, {waiting:,} waiting" if moving or waiting else "nothing moves",
                f"{pages.tally.failed:,} failed" if pages.tally.failed else "none failed",
                units.count_text(problems, "problem") + (f", {known} known" if known else "")
                if problems or known
                else "no problems",
            )
            for of, text in zip(lines, texts, strict=True):
                of.append((runtime, text))
        for pane, of in zip(self.every.panes, lines, strict=True):
            pane.show_lines(of)

    def _link(self, link: QPushButton, text: str) -> None:
        link.setText(text)
        link.setVisible(bool(text))

    def _tab(self, place: int, title: str, count: str) -> None:
        text = f"{title}  {count}" if count else title
        if self.panes.tabText(place) != text:
            self.panes.setTabText(place, text)

    def _tick(self) -> None:
        shown = self.shown
        if not shown:
            self._live.setText("")
            return
        for open_one in self.clusters.values():
            open_one.tally.ask_some()
            open_one.count()
        nodes = [node for pages in shown for node in pages.runtime.view.nodes.values()]
        up = sum(1 for node in nodes if node.is_up)
        state = "live" if up == len(nodes) else f"{up} of {len(nodes)} nodes live"
        text = f"{'●' if up else '○'} {state}, {units.time_text(shown[0].runtime.clock.now_s())}"
        if self._live.text() != text:
            self._live.setText(text)
        gap = f"The window's longest pause since it opened: {self.heartbeat.longest_gap_ms:.0f} ms"
        if self._live.toolTip() != gap:
            self._live.setToolTip(gap)

    # --- actions --------------------------------------------------------------------------------------

    def _aim(self) -> None:
        page = self.list_page
        parts = page.parts if page is not None and page.kind is Kind.VM else []
        self.center.aim((runtime.view, ids) for runtime, ids in parts)
        self._selection_changed()

    def _selection_changed(self) -> None:
        page = self.list_page
        if page is not None and page.table.selected_count > _SUMMED_AT_ONCE:
            if not self._summing.isActive():
                self._summing.start()  # of thousands the sums come a moment later
        else:
            self._summing.stop()
            self._tell_selection()

    def _tell_selection(self) -> None:
        page = self.list_page
        if not self.shown or page is None:
            self.actions_pane.say("Nothing selected", "Select VMs in Roles")
            self._selection.set_text("")
            return
        count, told, hidden = page.table.selected_count, page.table.selected_text, page.table.hidden_text
        self._selection.set_text("; ".join(s for s in (told, hidden) if s))
        if count and page.kind is Kind.VM:
            title, _, sizes = told.partition(", ")
            self.actions_pane.say(title if count > 1 else page.table.selected_rows[0].item.name, sizes)
        elif hidden and not count and page.kind is Kind.VM:
            self.actions_pane.say("Nothing selected is shown", f"{hidden}: left alone")
        elif count:
            nouns = {Kind.POOL: "pools", Kind.NETWORK: "networks", Kind.EVENT: "events"}
            noun = nouns.get(page.kind, "nodes")
            title = page.model.text(page.model.rows[page.model.position(page.selected_ids[0])], 0)
            self.actions_pane.say(title if count == 1 else f"{count} {noun} selected", "Actions are on VMs")
        else:
            self.actions_pane.say("Nothing selected", "Select VMs in Roles")

    def _act(self, entry: Entry) -> None:
        page = self.list_page
        if page is not None and self.center.ids:
            hidden = Hidden(tuple(page.hidden_parts), page.table.hidden_text)
            self.runner.start(page.parts, entry, hidden if hidden.parts else None)

    def _context_menu(self, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        page = self.list_page
        if page is not None and page.kind is Kind.VM:
            self.center.fill(menu)
        elif page is not None:
            menu.addAction(self.refresh_action)
            parts = page.parts
            if len(parts) == 1 and len(parts[0][1]) == 1 and page.kind is Kind.NODE:
                place = Place(parts[0][0].id, "roles", f"node:{parts[0][1][0]}")
                menu.addAction("Show its VMs", lambda: self.navigation.go(place))
        menu.addSeparator()
        menu.addAction(self.copy_action)
        copy_as = menu.addMenu("Copy as")
        copy_as.addActions([*self.copy_as_actions, self.copy_command_action])
        menu.addSeparator()
        menu.addAction(self.properties_action)
        menu.addAction(self.happened_action)
        menu.addAction(self.why_action)
        menu.popup(at)

    def _cancel_operations(self, runtime: Runtime, ids: Sequence[OperationId]) -> None:
        self._tasks.spawn(self._ask_cancel(runtime, tuple(ids)), "cancel")

    def _cancel_all(self, runtime: Runtime) -> None:
        pages = self.clusters.get(runtime.id)
        if pages is not None:
            self._cancel_operations(runtime, tuple(pages.queue.watch.live))

    async def _ask_cancel(self, runtime: Runtime, ids: tuple[OperationId, ...]) -> None:
        view = runtime.view
        known = [view.operations[key] for key in ids if key in view.operations]
        past = {o.id: reason for o in known if (reason := past_return(o, view.progress.get(o.id)))}
        told = [f"{view.operations[key].vm_name}: {reason.text}." for key, reason in past.items()][:3]
        if len(past) > len(told):
            told.append(f"{len(past) - len(told)} more are in their second half too.")
        ids = tuple(key for key in ids if key not in past)
        if not ids:
            if past:
                self.note(f"Cannot cancel {' '.join(told)}", (), "")
            return
        count = sum(1 for key in ids if (o := view.operations.get(key)) and o.vm)
        dialog = Asking(self, f"Cancel {units.count_text(count, 'operation')} in {runtime.id}?", view.config)
        dialog.setMinimumWidth(420)
        text = "What waits is dropped. A VM that is being moved stays where it is and goes on running."
        if past:
            text += f"\nNot {' '.join(told)}"
        dialog.body.addWidget(text_label(text, wrap=True))
        dialog.add_buttons()
        dialog.button("Keep going", dialog.reject, default=True)
        dialog.button(f"Cancel {count}", dialog.accept, style="danger")
        if await dialog.answer():
            self.runner.cancel(runtime, ids)

    def _move_through(self, runtime: Runtime, operations: Sequence[Operation]) -> None:
        for target in {o.target if o.target_given else None for o in operations}:
            ids = [o.vm for o in operations if o.vm and (o.target if o.target_given else None) == target]
            route = PeerRoute.THROUGH_THIS_COMPUTER
            self.runner.run(
                runtime, LIVE_MIGRATE, ids, MigrateParameters(target=target, route=route), unasked=True
            )

    def _steer(self, runtime: Runtime, verb: QueueVerb, what: Mapping[str, Any]) -> None:
        try:
            runtime.steer(verb, **what)
        except (OSError, UserError) as error:
            self.note(sentence(str(error)), (), "error")

    @property
    def _all_paused(self) -> bool:
        """Whether no open cluster starts anything."""
        return bool(self.clusters) and all(
            pages.runtime.view.orders.paused_by or pages.runtime.view.config.read_only
            for pages in self.clusters.values()
        )

    def pause_all(self) -> None:
        """Let nothing new start in any open cluster; if that is so already, continue in all."""
        resume = self._all_paused
        for pages in self.clusters.values():
            view = pages.runtime.view
            if not view.config.read_only and bool(view.orders.paused_by) is resume:
                self._steer(pages.runtime, QueueVerb.RESUME if resume else QueueVerb.PAUSE, {})
        self._show_counts()

    def _show_paused(self) -> None:
        paused = self._all_paused
        some = [p for p in self.clusters.values() if p.runtime.view.orders.paused_by]
        text = "Continue all work" if paused else "Pause all work"
        if some and not paused:
            text = f"Pause all work ({len(some)} of {len(self.clusters)} paused)"
        tip_text = "Let what waits start again (Ctrl+.)" if paused else PAUSE_TIP
        writable = any(not p.runtime.view.config.read_only for p in self.clusters.values())
        self.pause_all_action.setText("Continue all work" if paused else "Pause all work")
        self.pause_all_action.setToolTip(tip_text)
        self.pause_all_action.setEnabled(writable)
        self._pause_link.setText(text)
        self._pause_link.setToolTip(tip_text)
        self._pause_link.setVisible(writable)
        for pages in self.clusters.values():
            for page in pages.pages:
                if isinstance(page, Overview):
                    page.show_pause(text, tip_text, possible=writable)
        style = "link_warning" if paused else "link"
        if self._pause_link.objectName() != style:
            self._pause_link.setObjectName(style)
            repolish(self._pause_link)

    def _post_copy(self, runtime: Runtime, operation: Operation) -> None:
        self._tasks.spawn(self._ask_post_copy(runtime, operation), "post-copy")

    async def _ask_post_copy(self, runtime: Runtime, operation: Operation) -> None:
        name, source, target = operation.vm_name, operation.source, operation.target
        dialog = Asking(self, f"Let {name} run on {target} now, in {runtime.id}?", runtime.view.config)
        dialog.setMinimumWidth(460)
        text = (
            f"{name} runs on {target} from then on and fetches the rest of its memory from {source}. "
            "This cannot be cancelled any more. If either node or the network between them fails before "
            "all of it is there, the VM is lost."
        )
        dialog.body.addWidget(text_label(text, wrap=True))
        dialog.add_buttons()
        dialog.button("Keep copying", dialog.reject, default=True)
        dialog.button("Start the second half", dialog.accept, style="danger")
        if await dialog.answer():
            self._steer(runtime, QueueVerb.TUNE, {"operations": (operation.id,), "post_copy": True})

    def _read_past(self, runtime: Runtime) -> None:
        self._tasks.spawn(self._show_past(runtime), "history")

    async def _show_past(self, runtime: Runtime) -> None:
        past: tuple[Operation, ...] | None = None
        try:
            past = await runtime.engine.history(PAST)
        except OSError as error:
            self.note(f"The history of {runtime.id} cannot be read: {error}.", (), "error")
        pages = self.clusters.get(runtime.id)
        if pages is not None and past is not None:
            pages.queue.show_past(past)
        elif pages is not None:
            pages.queue.past_failed()

    def _batch_ended(self, runtime: Runtime, batch: str) -> None:
        """Tell it on the desktop, if the administrator looks elsewhere."""
        pages = self.clusters.get(runtime.id)
        operation = runtime.view.operations.get(OperationId(batch))
        if pages is None or operation is None or self.isActiveWindow():
            return
        children = pages.queue.watch.children(operation.id)
        failed = any(child.state is OperationState.FAILED for child in children)
        title = f"{runtime.id}: {operation_title(operation)}"
        glyph = icon("live_migrate", self.look.tokens.accent, self.look.tokens.accent)
        self.notifier.tell(title, f"{result_text(children)}.", glyph, failed=failed)

    def explain_grey(self) -> None:
        """Why actions do not apply to what is selected."""
        self._open(WhyGreyDialog(self, self.look, self.center.why_not()))

    # --- window actions -------------------------------------------------------------------------------

    def note(self, text: str, buttons: Buttons, severity: str) -> NoteBar:
        """Say something in a line above the list; it blocks nothing."""
        bar = NoteBar(text, buttons, severity=severity)
        bar.destroyed.connect(lambda *_: self._forget_note(bar))
        self._notes.append(bar)
        self._middle.insertWidget(0, bar)
        while len(self._notes) > _NOTES:
            self._notes.pop(0).dismiss()
        if not severity:
            QTimer.singleShot(12_000, bar, bar.dismiss)
        if self._event_log is not None:
            self._event_log.record("Note", text=text, severity=severity)
        return bar

    def _forget_note(self, bar: NoteBar) -> None:
        if bar in self._notes:
            self._notes.remove(bar)

    @property
    def notes(self) -> list[NoteBar]:
        """The lines that are shown."""
        return list(self._notes)

    def refresh(self) -> None:
        """Read the hosts again; of selected nodes only those."""
        page = self.list_page
        if page is not None and page.kind is Kind.NODE and page.parts:
            for runtime, ids in page.parts:
                for node in ids:
                    runtime.read_again(NodeId(node))
        else:
            for pages in self.shown:
                pages.runtime.read_again()

    def toggle_criteria(self) -> None:
        """Open or close the criteria of the list that is shown."""
        if self.list_page is not None:
            self.list_page.criteria_button.toggle()

    def focus_search(self) -> None:
        """Go to the search box of the pane if one is in it, else to that of this page."""
        pages, focus = self.current, QApplication.focusWidget()
        if pages is not None and focus is not None and pages.queue.isAncestorOf(focus):
            pages.queue.focus_search()
        elif pages is not None and focus is not None and pages.problems.isAncestorOf(focus):
            pages.problems.search.take_focus()
        elif self.list_page is not None:
            self.list_page.focus_search()

    def _table(self) -> RowsTable | None:
        focus = QApplication.focusWidget()
        if isinstance(focus, RowsTable):
            return focus
        return self.list_page.table if self.list_page is not None else None

    def copy_cells(self, form: str = "text") -> None:
        """The selected rows as shown: ``text``, with ``titles``, as ``csv`` or ``json``."""
        table = self._table()
        if table is not None and table.selected_count:
            table.copy_cells(form)

    def copy_command(self) -> None:
        """The selected VMs as commands."""
        page = self.list_page
        if page is not None and page.parts:
            lines = [self._commands(page.kind, runtime, ids) for runtime, ids in page.parts]
            QGuiApplication.clipboard().setText("\n".join(lines))

    def _commands(self, kind: Kind, runtime: Runtime, ids: Sequence[str]) -> str:
        option = self._cluster_option(runtime)
        if kind is Kind.VM:
            return show_commands(runtime.view, ids, option)
        nouns = {Kind.POOL: "storage", Kind.NETWORK: "network"}
        if kind in nouns:
            return "\n".join(f"muster {option} {nouns[kind]} show {shlex.quote(key)}" for key in ids)
        return f"muster {option} {'events' if kind is Kind.EVENT else 'node list'}"

    def _cluster_option(self, runtime: Runtime) -> str:
        files = self.workspace.adapters.files
        return cluster_option(runtime.view, files, self.workspace.source(runtime.id))

    def select_all(self) -> None:
        """Select all that is shown."""
        table = self._table()
        if table is not None:
            table.selectAll()

    def invert_selection(self) -> None:
        """Select what is not selected."""
        table = self._table()
        if table is not None:
            table.invert_selection()

    def arrange_columns(self) -> None:
        """Which columns the list shows, and in what order."""
        table = self._table()
        if table is not None:
            table.arrange_columns()

    def _fill_groups(self) -> None:
        self._groups_menu.clear()
        table = self._table()
        if table is not None and table.can_group:
            table.fill_groups(self._groups_menu)

    def show_details(self) -> None:
        """Go to the details of the current row."""
        page = self.list_page
        if page is not None and page.table.current_id is not None:
            page.table.opened.emit(page.table.current_id)

    def show_what_happened(self) -> None:
        """Go to the events of the current row's VM or node; where there is none, to those of the cluster."""
        page = self.list_page
        if page is None or not isinstance(page.details, Details) or page.table.current_id is None:
            self.go_page("events")
            return
        page.table.opened.emit(page.table.current_id)
        page.details.show_events()

    def write_bundle(self) -> None:
        """Write what is known of this cluster to a file for somebody who helps."""
        if self.current is not None:
            self._tasks.spawn(self._write_bundle(self.current.runtime), "support bundle")

    async def _write_bundle(self, runtime: Runtime) -> None:
        view, now_s = runtime.view, runtime.clock.now_s()
        dialog = SupportBundleDialog(self, view.config, now_s)
        if not await dialog.answer():
            return
        since_s, path = dialog.since_s, dialog.path
        try:
            await runtime.remember(since_s)
            past = await runtime.engine.history(PAST)
            bundle = await make_bundle(
                view, __version__, past, list(self._log_lines), since_s=since_s, now_s=now_s
            )
            size = await write(bundle, path)
        except (OSError, UserError) as error:
            self.note(f"The support bundle was not written: {error}", (), "error")
            return
        copy = ("Copy its name", partial(QGuiApplication.clipboard().setText, str(path)))
        text = (
            f"Support bundle written: {path} ({units.size_text(size)}), since {units.moment_text(since_s)}."
        )
        self.note(f"{text} Look before you give it away.", (copy,), "")

    def export(self) -> None:
        """Store exactly what is shown as CSV or JSON: the list in which one is, else this page's."""
        self._export(self._table())

    def _export(self, table: RowsTable | None) -> None:
        if table is None or self._here is None:
            return
        dialog = QFileDialog(self, "Export what is shown")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilters(["CSV (*.csv)", "JSON (*.json)"])
        dialog.setDefaultSuffix("csv")
        dialog.selectFile(f"{self._here.cluster or 'all-clusters'}-{table.accessibleName().lower()}.csv")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self.export_to(Path(path), table))
        dialog.open()

    def export_to(self, path: Path, table: RowsTable | None = None) -> None:
        """Write what is shown to a file; JSON if it is called so."""
        table = table or (self.list_page.table if self.list_page is not None else None)
        if table is None:
            return
        text = table.as_json() if path.suffix.lower() == ".json" else table.as_csv()
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            self.note(f"{path} was not written: {error.strerror or error}.", (), "error")
            return
        rows = units.count_text(len(table.rows_model.rows), "row")
        closed = sum(1 for group in table.rows_model.groups if not group.is_open)
        also = f" and {units.count_text(closed, 'closed group')}" if closed else ""
        self.note(f"{rows}{also} written to {path}", (), "")

    def open_palette(self) -> None:
        """Everything by name."""
        palette = CommandPalette(self, self.look, self._palette_entries(), Recent(self._views))
        palette.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        palette.move(self.mapToGlobal(QPoint((self.width() - palette.width()) // 2, 80)))
        palette.show()

    def _palette_entries(self) -> list[Found]:
        found: list[Found] = []
        for entry in ENTRIES:
            action = self.center.actions[entry.id]
            title = f"{entry.submenu}: {entry.title}" if entry.submenu else entry.title
            why_grey = self.center.why_grey(entry) if self.clusters else _NO_CLUSTER
            why_not = "" if action.isEnabled() else why_grey
            found.append(Found(entry.id, title, "action", action.trigger, _key_of(action), why_not))
        for action in self.actions():
            if action.text() and action not in self.center.actions.values():
                title = action.text()
                why_not = "" if action.isEnabled() else self._why_grey(action)
                found.append(
                    Found(f"window {title}", title, "window", action.trigger, _key_of(action), why_not)
                )
        for page in WITH_LISTS:
            if self.navigation.has(Place(EVERY, page)):
                found.append(self._place_entry(Place(EVERY, page), TITLES[page], "page of all clusters"))
        for cluster, pages in self.clusters.items():
            for page, title in TITLES.items():
                found.append(self._place_entry(page_place(cluster, page), title, f"page of {cluster}"))
            for kind, what in _VIEWED.items():
                for view in self.saved_views.views.of(kind)[1:]:
                    go = partial(self._show_view_of, cluster, view)
                    key = f"{cluster} {kind.value} {view.id}"
                    found.append(Found(key, view.name, f"view of {what} of {cluster}", go))
            node_text, vm_text = f"node of {cluster}", f"VM of {cluster}"
            for name in pages.runtime.view.nodes:
                found.append(self._place_entry(Place(cluster, "roles", f"node:{name}"), name, node_text))
            for vm in pages.runtime.view.vms.values():
                go = partial(self.show_vm, cluster, vm.id)
                found.append(Found(f"{cluster} {vm.id}", vm.name, vm_text, go))
        return found

    def _place_entry(self, place: Place, title: str, kind: str) -> Found:
        go = partial(self._go_and_focus, place)
        return Found(f"{place.cluster} {place.page} {place.scope}", title, kind, go)

    def _go_and_focus(self, place: Place) -> None:
        self.navigation.go(place)
        self._focus_list()

    def _why_grey(self, action: QAction) -> str:
        if not self.clusters:
            return _NO_CLUSTER
        if self.current is None:
            return "all clusters are shown: choose one in the tree"
        travels = {
            self.back_action: "nothing was shown before",
            self.forward_action: "nothing was gone back from",
        }
        return travels.get(action, "this connection is read-only")

    def choose_theme(self, choice: str) -> None:
        """Light, dark, or as the system."""
        self.look.choose(choice)
        self._mark_choices()

    def choose_density(self, density: str) -> None:
        """Compact, usual or roomy rows."""
        self.saved = msgspec.structs.replace(self.saved, density=density)
        for pages in self.clusters.values():
            lists = [page.table for page in pages.pages if isinstance(page, ListPage)]
            for table in (*lists, *pages.tables):
                table.set_row_height(self._row_px())
        for page in self.every.pages:
            page.table.set_row_height(self._row_px())
        self._mark_choices()

    def _row_px(self) -> int:
        s = self.look.sizes
        return {"compact": s.row_compact_px, "roomy": s.row_roomy_px}.get(self.saved.density, s.row_px)

    def _mark_choices(self) -> None:
        for group, value in (
            (self._theme_group, self.look.choice),
            (self._density_group, self.saved.density),
        ):
            for action in group.actions():
                action.setChecked(action.data() == value)

    def _next_pane(self, step: int) -> None:
        page = self.list_page
        stops: list[QWidget] = [self.navigation]
        if page is not None:
            stops += [page.table, page.details.tabs]
        elif (other := self.pages.currentWidget()) is not None:
            stops.append(other)
        lines = [line for line in self.actions_pane.lines.values() if line.isEnabled()]
        if self.actions_pane.isVisible() and lines:
            stops.append(lines[0])
        if self.panes.isVisible():
            pane = self._stacks[PANES[self.panes.currentIndex()]].currentWidget()
            table = getattr(pane, "table", None)
            stops.append(table if isinstance(table, QWidget) else self.panes)
        stops = [stop for stop in stops if stop.isVisible()]
        focus = QApplication.focusWidget()
        at = -1
        for place, stop in enumerate(stops):
            inside = focus is not None and (stop is focus or stop.isAncestorOf(focus))
            same_pane = focus is not None and stop in lines and self.actions_pane.isAncestorOf(focus)
            if inside or same_pane:
                at = place
        stops[(at + step) % len(stops)].setFocus(Qt.FocusReason.TabFocusReason)

    # --- clusters: opening and closing ----------------------------------------------------------------

    def connect_cluster(self) -> None:
        """Ask for a new cluster."""
        self._tasks.spawn(self._connect(), "connect")

    async def _connect(self) -> None:
        dialog = ConnectDialog(self, self.look, self.workspace, self._tasks)
        if await dialog.answer() and dialog.config is not None:
            await self.open_cluster(dialog.config, self.workspace.adapters.files.find(dialog.config.name))

    async def open_cluster(self, config: ClusterConfig, source: Path | None) -> None:
        """Open a cluster and go to it; trouble is said in one message."""
        try:
            runtime = await self.workspace.open(config, source)
        except UserError as error:
            self._open(MessageDialog(self, "Not opened", str(error)))
            return
        self.navigation.go(Place(runtime.id, "roles"))

    def open_file(self) -> None:
        """Open any cluster file."""
        dialog = QFileDialog(self, "Open a cluster file")
        dialog.setNameFilters(["Cluster files (*.toml)", "All files (*)"])
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.open_named)
        dialog.open()

    def open_named(self, name_or_file: str) -> None:
        """Open a cluster by its name or file."""
        try:
            path = self.workspace.adapters.files.find(name_or_file)
            config = self.workspace.adapters.files.load(name_or_file)
        except UserError as error:
            self._open(MessageDialog(self, "Not opened", str(error)))
            return
        self._tasks.spawn(self.open_cluster(config, path), "open")

    def open_demo(self) -> None:
        """Open the simulated cluster."""
        try:
            config = self.workspace.adapters.demo("4x40")
        except UserError as error:
            self._open(MessageDialog(self, "Not opened", str(error)))
            return
        if ClusterId(config.name) in self.clusters:
            self.navigation.go(Place(ClusterId(config.name), "roles"))
            return
        self._tasks.spawn(self.open_cluster(config, None), "open the demo")

    def _fill_configured(self) -> None:
        menu = self._configured_menu
        menu.clear()
        try:
            found = self.workspace.adapters.files.configured()
        except UserError as error:
            found = ()
            menu.addAction(str(error)).setEnabled(False)
        for cluster in found:
            action = menu.addAction(cluster.name, partial(self.open_named, str(cluster.path)))
            action.setToolTip(tip(cluster.trouble))
            action.setEnabled(ClusterId(cluster.name) not in self.clusters)
        if not found and not menu.actions():
            menu.addAction("None is configured yet").setEnabled(False)

    def close_cluster(self) -> None:
        """Close the cluster that is shown; its hosts go on with what they do."""
        if self._here is not None:
            self._tasks.spawn(self.workspace.close(self._here.cluster), "close a cluster")

    async def ask_secret(self, node: str, user: str, prompt: str) -> str | None:
        """Ask for a password; None if it was given up."""
        kept = self.workspace.adapters.secrets.is_persistent
        dialog = SecretDialog(self, node, user, prompt, kept=kept)
        try:
            return dialog.field.text() if await dialog.answer() else None
        finally:
            dialog.field.clear()

    def _open(self, dialog: Asking) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def focusNextPrevChild(self, forward: bool) -> bool:
        """As the window is read."""
        return go_on(self, forward=forward)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The panes at the sides keep the width that their texts need; the list has the rest."""
        super().resizeEvent(event)
        if not self._across_chosen:
            self._across.setSizes(self._usual_across())

    # --- closing --------------------------------------------------------------------------------------

    def closeEvent(self, event: QCloseEvent) -> None:
        """Close at once, or ask first if work is left."""
        if not self._closing:
            running, waiting, through, demo = self._work_left()
            if running or waiting:
                event.ignore()
                self._tasks.spawn(self._ask_close(running, waiting, through, demo), "ask before closing")
                return
        self._closing = True
        self.save_layout()
        self.shut()
        event.accept()
        self.closed.emit()

    def shut(self) -> None:
        """Listen to nothing any more: what still happens is shown nowhere."""
        self._clock.stop()
        self._tree_timer.stop()
        self._unsubscribe()
        self._unsubscribe = lambda: None
        for pages in self.clusters.values():
            pages.bridge.close()

    def _work_left(self) -> tuple[int, int, int, bool]:
        """Of the clusters whose work this process carries out: another one goes on without this window."""
        running = waiting = through = 0
        demo = True
        for pages in self._owned():
            view = pages.runtime.view
            for key in view.claims.values():
                operation = view.operations[key]
                if operation.state is OperationState.WAITING:
                    waiting += 1
                else:
                    running += 1
                    through += operation.route is PeerRoute.THROUGH_THIS_COMPUTER
                demo = demo and view.config.tier is Tier.DEMO
        return running, waiting, through, demo

    def _owned(self) -> list[ClusterPages]:
        return [pages for pages in self.clusters.values() if pages.runtime.engine.is_owner]

    async def _ask_close(self, running: int, waiting: int, through: int, demo: bool) -> None:
        dialog = WorkLeftDialog(self, running, waiting, through, demo=demo)
        if not await dialog.answer():
            return
        if dialog.choice == WorkLeftDialog.FINISH:
            self.note("Closing when what runs has ended.", (), "")
            if not await self._finish_work():
                return
        elif dialog.choice == WorkLeftDialog.BACKGROUND and not await self._hand_over():
            return
        self._closing = True
        self.close()

    async def _hand_over(self) -> bool:
        """Start an engine for each cluster with work left; False if one does not run: nothing closes then."""
        for pages in self._owned():
            view = pages.runtime.view
            if not view.claims or view.config.tier is Tier.DEMO:
                continue
            try:
                process = start_engine(shlex.split(self._cluster_option(pages.runtime)))
            except OSError as error:
                self.note(f"The engine did not start: {error.strerror or error}.", (), "error")
                return False
            for _ in range(ENGINE_LOOKS):
                await asyncio.sleep(0.1)
                code = process.poll()
                if code is not None:
                    command = f"muster {self._cluster_option(pages.runtime)} engine"
                    self.note(
                        f"The engine of {pages.runtime.id} ended at once (exit code {code}), so this window "
                        f"stays. Why: {command}",
                        (),
                        "error",
                    )
                    return False
        return True

    async def _finish_work(self) -> bool:
        """Cancel what waits and see the rest end; False if that could not be asked for."""
        for pages in self._owned():
            view = pages.runtime.view
            claimed = [view.operations[key] for key in view.claims.values()]
            waiting = tuple(o.id for o in claimed if o.state is OperationState.WAITING)
            if waiting and not self.runner.cancel(pages.runtime, waiting):
                return False
            left = tuple(view.claims.values())
            if left:
                await pages.runtime.ended(left)
        return True

    # --- layout ---------------------------------------------------------------------------------------

    def _read_layout(self) -> SavedWindow:
        data = self._views.read("window")
        if data is None:
            return SavedWindow()
        try:
            return msgspec.json.decode(data, type=SavedWindow)
        except msgspec.MsgspecError:
            return SavedWindow()

    def _restore_layout(self) -> None:
        saved = self.saved
        self.resize(1400, 860)
        if saved.geometry:
            self.restoreGeometry(QByteArray.fromBase64(saved.geometry.encode()))
        self._across_chosen = len(saved.across) == 3
        self._across.setSizes(saved.across if self._across_chosen else self._usual_across())
        if len(saved.down) == 2:
            self._down.setSizes(saved.down)
        self.tree_action.setChecked(saved.tree)
        self.actions_action.setChecked(saved.actions)
        self.panes_action.setChecked(saved.panes)
        self._mark_choices()

    def save_layout(self) -> None:
        """Keep the window's layout for the next time."""
        page = next((p for c in self.clusters.values() for p in c.pages if isinstance(p, ListPage)), None)
        details = page.splitter.sizes() if page is not None else self.saved.details
        self.saved = SavedWindow(
            geometry=base64.b64encode(bytes(self.saveGeometry().data())).decode(),
            across=self._across.sizes() if self._across_chosen else [],
            down=self._down.sizes(),
            details=details,
            theme=self.look.choice,
            density=self.saved.density,
            tree=self.tree_action.isChecked(),
            actions=self.actions_action.isChecked(),
            panes=self.panes_action.isChecked(),
            page=self._here.page if self._here is not None else self.saved.page,
        )
        self._views.write("window", msgspec.json.encode(self.saved))

    def _focus_list(self) -> None:
        """Keys act on the list at once."""
        if self.list_page is not None:
            self.list_page.table.setFocus(Qt.FocusReason.OtherFocusReason)

    def start(self) -> None:
        """After the first picture: what need not be in it."""
        self._focus_list()
        self._dress()
        self._clock.start()
        self._tick()


def _problems(runtime: Runtime) -> tuple[int, int]:
    """How many problems are new, and how many are known."""
    view = runtime.view
    new = sum(problem.is_new(view.now_s) for problem in view.problems.values())
    return new, len(view.problems) - new


def _key_of(action: QAction) -> str:
    return action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)

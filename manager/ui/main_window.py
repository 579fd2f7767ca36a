"""The window: the parts joined, and what goes on in the clusters shown in them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import partial

import msgspec
from PySide6.QtCore import QByteArray, QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QLabel,
    QMainWindow,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from manager.core import units
from manager.core.changes import ChangeSet
from manager.core.ids import ClusterId, Kind, OperationId
from manager.core.model import Tier
from manager.core.operations import OperationState
from manager.core.query.operation_fields import operation_title
from manager.core.query.views import View
from manager.services.event_log import EventLog
from manager.services.runtime import Runtime
from manager.services.tasks import Tasks
from manager.services.workspace import Workspace
from manager.ui import saved_window
from manager.ui.actions import ActionCenter, Entry
from manager.ui.all_clusters import AllPages
from manager.ui.cluster_pages import ClusterPages
from manager.ui.commands import PAUSE_TIP, Commands
from manager.ui.dialogs.palette import CommandPalette, Found, Recent
from manager.ui.empty_lists import empty_text
from manager.ui.focus import go_on, step
from manager.ui.heartbeat import Heartbeat
from manager.ui.help import Help
from manager.ui.icons import icon
from manager.ui.leaving import Leaving
from manager.ui.list_commands import ListCommands
from manager.ui.lower_panes import PANES, LowerPanes
from manager.ui.node_actions import NodeActions
from manager.ui.notes import Notes
from manager.ui.notify import Notifier
from manager.ui.opening import Opening
from manager.ui.palette_entries import palette_entries
from manager.ui.runner import Hidden, Runner
from manager.ui.saved_window import SavedWindow
from manager.ui.steering import Steering
from manager.ui.theme import Look
from manager.ui.top_line import TopLine
from manager.ui.travel import Travel
from manager.ui.views.actions_pane import ActionsPane
from manager.ui.views.list_page import ListPage
from manager.ui.views.navigation import EVERY, TITLES, Navigation, Place, page_place, tier_text
from manager.ui.views.overview import Overview
from manager.ui.views.parts import ElidedLabel, NoteBar, link_button, text_label
from manager.ui.views.queue_pane import QueuePane
from manager.ui.views.resource_details import RESOURCES
from manager.ui.views.saved_views import ViewKeeper
from manager.ui.wording import cluster_option, result_text

_SUMMED_AT_ONCE = 500
"""Of more selected rows the totals are told a moment later, and not with every change."""

_LIST_PX = 680
"""Below this width the list takes room from the counts of the Actions pane."""

_COUNTS_PX = 12
"""What the tree takes more where there is room: so counts of two digits stand whole beside its scroll bar."""


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
        self.workspace = workspace
        self.look = look
        self.heartbeat = heartbeat
        self._tasks = tasks
        self._views = workspace.adapters.views
        self.clusters: dict[ClusterId, ClusterPages] = {}
        self._closing = False
        self.saved = saved_window.read(self._views)
        self.setMinimumSize(720, 460)
        self.setAccessibleName("Muster")

        self.center = ActionCenter(look, self)
        self.notifier = Notifier(self)
        self.navigation = Navigation(look)
        self.pages = QStackedWidget()
        middle = QWidget()
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.pages, 1)
        self._notes = Notes(column, event_log)
        self.note = note = self._notes.say
        self.actions_pane = ActionsPane(self.center, look)
        self._across = QSplitter(Qt.Orientation.Horizontal)
        self._down = QSplitter(Qt.Orientation.Vertical)
        self._build_splitters(middle)
        self.panes = LowerPanes(self._down)
        self.saved_views = ViewKeeper(self._views, self, tasks, note)
        self.every = AllPages(look, self._views, self.center, self.saved_views)
        self.travel = Travel(self.navigation, self.pages, self.panes, self.clusters, self.every, note)
        self.runner = Runner(self, look, tasks, note, self.travel.show_operation, self._cluster_option)
        self.steering = Steering(self, self.clusters, tasks, note, self.runner)
        self.lists = ListCommands(self, self.travel, note, self._cluster_option)
        self.opening = Opening(self, look, workspace, tasks, self.travel)
        self.leaving = Leaving(self, self.clusters, note, self.runner.cancel, self._cluster_option)
        self.help = Help(self, look, tasks, self.travel, self.center, note, log_lines)
        self.commands = Commands(
            self,
            self.center,
            self.travel,
            self.panes,
            self.lists,
            self.opening,
            self.steering,
            self.help,
            NodeActions(self, look, tasks, note, self.travel.show_operation),
            open_palette=self.open_palette,
            next_pane=self._next_pane,
            choose_theme=self.choose_theme,
            choose_density=self.choose_density,
        )
        self.top = TopLine(look, self.panes.show_pane, self.steering.pause_all)
        self._build_frame()
        self._connect()
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

    def _build_splitters(self, middle: QWidget) -> None:
        self._across.setChildrenCollapsible(False)
        for widget in (self.navigation, middle, self.actions_pane):
            self._across.addWidget(widget)
        self._across.setStretchFactor(1, 1)
        self._across_chosen = False
        self._across.splitterMoved.connect(lambda *_: setattr(self, "_across_chosen", True))
        self._down.setChildrenCollapsible(False)
        self._down.addWidget(self._across)
        self._down.setStretchFactor(0, 1)

    def _build_frame(self) -> None:
        self.commands.fill_menus(self.top.menus)
        self.setMenuWidget(self.top)
        self._welcome = self._build_welcome()
        self._center = QStackedWidget()  # without a cluster there is nothing that the panes could show
        self._center.addWidget(self._welcome)
        self._center.addWidget(self._down)
        self.setCentralWidget(self._center)
        self.addToolBar(self.commands.toolbar())
        self._build_status()

    def _connect(self) -> None:
        self.panes.add(self.every.panes)
        for name, pane in zip(PANES, self.every.panes, strict=True):
            pane.wanted.connect(partial(self.travel.show_pane_of, name))
        self.every.made = self._page_made
        for shown, widget in (
            (self.commands.tree, self.navigation),
            (self.commands.actions, self.actions_pane),
            (self.commands.panes, self.panes),
        ):
            shown.toggled.connect(widget.setVisible)
        self.travel.arrived.connect(self._arrived)
        self.steering.paused.connect(self._show_counts)
        self.saved_views.changed.connect(self._show_views)
        self.saved_views.chosen.connect(self.travel.show_view)
        self.center.wanted.connect(self._act)
        self.center.asked.connect(self.runner.run)
        self.center.counted.connect(self._selection_changed)
        self.look.changed.connect(self._dress)

    def _usual_across(self) -> list[int]:
        """The panes beside the list as wide as their texts, the list with the rest; it must have some."""
        tree = self.navigation.sizeHint().width()
        least, whole = (self.actions_pane.width_with(count) for count in ("00", "00 of 00"))
        actions = max(least, min(whole, self.width() - tree - _LIST_PX))
        tree += max(0, min(_COUNTS_PX, self.width() - tree - actions - _LIST_PX))
        return [tree, max(300, self.width() - tree - actions), actions]

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
            ("Connect to a cluster…", self.opening.connect_cluster),
            ("Open the demo cluster", self.opening.open_demo),
        ):
            button = link_button(title, act)
            layout.addWidget(button, alignment=Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch(3)
        return page

    def _dress(self) -> None:
        self.center.dress()
        self.commands.dress(self.look)

    # --- where it is ----------------------------------------------------------------------------------

    @property
    def here(self) -> Place | None:
        """Where the window is."""
        return self.travel.here

    @property
    def current(self) -> ClusterPages | None:
        """The cluster that is shown; none: no cluster is, or all are."""
        return self.travel.current

    @property
    def list_page(self) -> ListPage | None:
        """The list that is shown, if the page is one."""
        return self.travel.list_page

    @property
    def notes(self) -> list[NoteBar]:
        """The lines above the list, from the oldest."""
        return self._notes.shown

    def go_page(self, page: str) -> None:
        """A page of this cluster; keys act on its list."""
        self.travel.go_page(page)

    def show_view(self, view: View) -> None:
        """A view of the cluster that is shown, or of all."""
        self.travel.show_view(view)

    def show_pane(self, name: str) -> None:
        """Open the lower pane at a tab."""
        self.panes.show_pane(name)

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

    def _arrived(self) -> None:
        self._show_here()
        self._aim()

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
            self._forget(EVERY)
            self.travel.leave(EVERY)
        self.every.read_from(runtimes)

    def _add_cluster(self, runtime: Runtime) -> None:
        pages = ClusterPages(runtime, self.look, self._views, self.center, self.saved_views)
        pages.setParent(self)  # and its timers end with the window
        pages.made = self._page_made
        self.clusters[runtime.id] = pages
        self.panes.add(pages.panes, pages.strips)
        for table in pages.tables:
            table.set_row_height(self._row_px())
        pages.changed.connect(partial(self._changed, runtime.id))
        pages.batch_ended.connect(partial(self._batch_ended, runtime))
        self._connect_queue(runtime, pages.queue)
        pages.operations.cancel_wanted.connect(partial(self.steering.cancel, runtime))
        pages.operations.undo_wanted.connect(partial(self.runner.undo, runtime))
        pages.operations.through_wanted.connect(partial(self.steering.move_through, runtime))
        for table in (pages.operations.table, pages.operations.children_table):
            table.opened.connect(partial(self.travel.open_operation, runtime))
        pages.problems.table.opened.connect(partial(self.travel.open_problem, runtime))
        pages.problems.export_wanted.connect(lambda: self.lists.export_of(pages.problems.table))
        pages.problems.said.connect(lambda text: self.note(text, (), "error"))
        self.navigation.add_cluster(runtime)
        self.navigation.show_views(runtime.id, self.saved_views.views)
        self.navigation.show_counts(runtime, pages.tally)
        if self.here is None:
            page = self.saved.page if self.saved.page in TITLES else "roles"
            self.travel.to(page_place(runtime.id, page))
            views = self.saved_views.views
            if views.start is not None and (view := views.get(*views.start)) is not None:
                self.show_view(view)
            if self.isVisible():
                self.travel.focus_list()

    def _connect_queue(self, runtime: Runtime, queue: QueuePane) -> None:
        queue.cancel_wanted.connect(partial(self.steering.cancel, runtime))
        queue.cancel_all_wanted.connect(partial(self.steering.cancel_all, runtime))
        queue.back_wanted.connect(partial(self.runner.undo, runtime))
        queue.retry_wanted.connect(partial(self.runner.retry_elsewhere, runtime))
        queue.steer_wanted.connect(partial(self.steering.steer, runtime))
        queue.post_copy_wanted.connect(partial(self.steering.post_copy, runtime))
        queue.vm_wanted.connect(partial(self.travel.show_vm, runtime.id))
        queue.roles_wanted.connect(partial(self.travel.show_list, "roles"))
        queue.batch_wanted.connect(partial(self.travel.show_operation, runtime))
        queue.past_wanted.connect(partial(self.steering.read_past, runtime))
        queue.export_wanted.connect(lambda: self.lists.export_of(queue.table))
        queue.room_wanted.connect(self.panes.give_room)
        queue.said.connect(lambda text: self.note(text, (), ""))

    def _remove_cluster(self, cluster: ClusterId) -> None:
        pages = self.clusters.pop(cluster)
        self._forget(cluster)
        self.panes.remove(pages.strips)
        pages.close()
        self.travel.leave(cluster)

    def _forget(self, cluster: ClusterId) -> None:
        if self.here is not None and self.here.cluster == cluster:
            self.center.aim(())
        self.travel.forget(cluster)

    def _page_made(self, page: QWidget) -> None:
        self.pages.addWidget(page)
        if isinstance(page, ListPage):
            page.table.set_row_height(self._row_px())
            if len(self.saved.details) == 2:
                page.splitter.setSizes(self.saved.details)
            page.selection_settled.connect(self._aim)
            page.model.totals_changed.connect(self._selection_changed)
            page.menu_wanted.connect(self.commands.open_context_menu)
            page.export_wanted.connect(self.lists.export)
            page.empty_text = partial(empty_text, page, self.travel, self.opening, self.lists)
        elif isinstance(page, Overview):
            page.list_wanted.connect(self.travel.show_list)
            page.row_wanted.connect(self.travel.show_row)
            page.pane_wanted.connect(self.show_pane)
            page.batch_wanted.connect(partial(self.travel.show_operation, page.runtime))
            page.problem_wanted.connect(partial(self.travel.open_problem, page.runtime))
            page.pause_wanted.connect(self.steering.pause_all)
            self._show_paused()

    def _show_views(self) -> None:
        views = self.saved_views.views
        for cluster, pages in self.clusters.items():
            pages.tally.follow(views)
            pages.count()
            self.navigation.show_views(cluster, views)
        self.navigation.show_views(EVERY, views)
        self._show_counts()

    # --- what changes ---------------------------------------------------------------------------------

    def _show_here(self) -> None:
        shown = self.travel.shown
        configs = [pages.runtime.view.config for pages in shown]
        is_demo = any(config.tier is Tier.DEMO for config in configs)
        read_only = bool(configs) and all(config.read_only for config in configs)
        marks = (" — DEMO" if is_demo else "") + (" — read-only" if read_only else "")
        colour = "transparent"
        is_open = self.here is not None and bool(shown)
        self._center.setCurrentWidget(self._down if is_open else self._welcome)
        if not is_open:
            self.setWindowTitle("Muster")
            self._tier.setText("")
        elif self.current is None:
            self.setWindowTitle(f"All clusters{marks} — Muster")
            self._tier.setText(units.and_text([config.name for config in configs]))
        else:
            self.setWindowTitle(f"{configs[0].name}{marks} — Muster")
            colour = configs[0].colour
            tier = tier_text(self.current.runtime)
            self._tier.setText(f"DEMO: {tier.removeprefix('a demo: ')}" if is_demo else tier)
        self.top.show_cluster(colour, is_demo=is_demo, read_only=read_only)
        self.commands.show_possible()
        self._show_counts()

    def _changed(self, cluster: ClusterId, changes: ChangeSet) -> None:
        self.every.take(cluster, changes)
        if not self._tree_timer.isActive():
            self._tree_timer.start()

    def _show_counts(self) -> None:
        for pages in self.clusters.values():
            self.navigation.show_counts(pages.runtime, pages.tally)
        self.navigation.show_sums([(pages.runtime, pages.tally) for pages in self.clusters.values()])
        shown = self.travel.shown
        moving, waiting = (
            sum(figures) for figures in zip((0, 0), *(p.tally.moves for p in shown), strict=True)
        )
        failed = sum(pages.tally.failed for pages in shown)
        problems, known = (sum(n) for n in zip((0, 0), *(_problems(p.runtime) for p in shown), strict=True))
        self.panes.show_counts(moving, waiting, failed, problems, known)
        self.top.show_counts(problems, moving, waiting)
        if self.current is None:
            self._show_each()
        self._show_paused()
        self._show_live()

    def _show_each(self) -> None:
        """What there is of work and problems in each of the clusters, where none alone is shown."""
        lines: tuple[list[tuple[Runtime, str]], ...] = ([], [], [])
        for pages in self.travel.shown:
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

    def _show_paused(self) -> None:
        paused = self.steering.all_paused
        some = [p for p in self.clusters.values() if p.runtime.view.orders.paused_by]
        title = text = "Continue all work" if paused else "Pause all work"
        if some and not paused:
            text = f"{title} ({len(some)} of {len(self.clusters)} paused)"
        tip = "Let what waits start again (Ctrl+.)" if paused else PAUSE_TIP
        writable = any(not p.runtime.view.config.read_only for p in self.clusters.values())
        action = self.commands.pause_all
        action.setText(title)
        action.setToolTip(tip)
        action.setEnabled(writable)
        self.top.show_pause(text, tip, possible=writable, paused=paused)
        for pages in self.clusters.values():
            for page in pages.pages:
                if isinstance(page, Overview):
                    page.show_pause(text, tip, possible=writable)

    def _tick(self) -> None:
        for open_one in self.clusters.values():
            open_one.tally.ask_some()
            open_one.count()
        self._show_live()

    def _show_live(self) -> None:
        shown = self.travel.shown
        if not shown:
            self._live.setText("")
            return
        nodes = [node for pages in shown for node in pages.runtime.view.nodes.values()]
        up = sum(1 for node in nodes if node.is_up)
        state = "live" if up == len(nodes) else f"{up} of {len(nodes)} nodes live"
        text = f"{'●' if up else '○'} {state}, {units.time_text(shown[0].runtime.clock.now_s())}"
        if self._live.text() != text:
            self._live.setText(text)
        gap = f"The window's longest pause since it opened: at most {self.heartbeat.longest_gap_ms:.0f} ms"
        if self._live.toolTip() != gap:
            self._live.setToolTip(gap)

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
        if not self.travel.shown or page is None:
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

    def _cluster_option(self, runtime: Runtime) -> str:
        files = self.workspace.adapters.files
        return cluster_option(runtime.view, files, self.workspace.source(runtime.id))

    def open_palette(self) -> None:
        """Everything by name."""
        palette = CommandPalette(self, self.look, self.palette_entries(), Recent(self._views))
        palette.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        palette.move(self.mapToGlobal(QPoint((self.width() - palette.width()) // 2, 80)))
        palette.show()

    def palette_entries(self) -> list[Found]:
        """What it finds."""
        views = self.saved_views.views
        return palette_entries(self.center, self.commands, self.travel, self.clusters, views)

    # --- look and keys --------------------------------------------------------------------------------

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
            (self.commands.themes, self.look.choice),
            (self.commands.densities, self.saved.density),
        ):
            for action in group.actions():
                action.setChecked(action.data() == value)

    def _next_pane(self, by: int) -> None:
        """Go on by one pane, in the order in which they are read."""
        page = self.list_page
        stops: list[tuple[QWidget, QWidget]] = [(self.navigation, self.navigation)]
        if page is not None:
            stops += [(page.table, page.table), (page.details.tabs, page.details.tabs)]
        elif (other := self.pages.currentWidget()) is not None:
            stops.append((other, other))
        stops += [(self.actions_pane, line) for line in self.actions_pane.lines.values() if line.isEnabled()][
            :1
        ]
        lower = self.panes.focus_stop
        stops.append((lower, lower))
        step([stop for stop in stops if stop[1].isVisible()], by)

    def focusNextPrevChild(self, forward: bool) -> bool:
        """As the window is read."""
        return go_on(self, forward=forward)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The panes at the sides keep the width that their texts need; the list has the rest."""
        super().resizeEvent(event)
        if not self._across_chosen:
            self._across.setSizes(self._usual_across())

    # --- closing and layout ---------------------------------------------------------------------------

    def closeEvent(self, event: QCloseEvent) -> None:
        """Close at once, or ask first if work is left."""
        if not self._closing and self.leaving.has_work:
            event.ignore()
            self._tasks.spawn(self._leave(), "ask before closing")
            return
        self._closing = True
        self.save_layout()
        self.shut()
        event.accept()
        self.closed.emit()

    async def _leave(self) -> None:
        if await self.leaving.ask():
            self._closing = True
            self.close()

    def shut(self) -> None:
        """Listen to nothing any more: what still happens is shown nowhere."""
        self._clock.stop()
        self._tree_timer.stop()
        self._unsubscribe()
        self._unsubscribe = lambda: None
        for pages in self.clusters.values():
            pages.bridge.close()

    def _restore_layout(self) -> None:
        saved = self.saved
        self.resize(1400, 860)
        if saved.geometry:
            self.restoreGeometry(QByteArray.fromBase64(saved.geometry.encode()))
        self._across_chosen = len(saved.across) == 3
        self._across.setSizes(saved.across if self._across_chosen else self._usual_across())
        if len(saved.down) == 2:
            self._down.setSizes(saved.down)
        self.commands.tree.setChecked(saved.tree)
        self.commands.actions.setChecked(saved.actions)
        self.commands.panes.setChecked(saved.panes)
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
            tree=self.commands.tree.isChecked(),
            actions=self.commands.actions.isChecked(),
            panes=self.commands.panes.isChecked(),
            page=self.here.page if self.here is not None else self.saved.page,
        )
        saved_window.write(self._views, self.saved)

    def start(self) -> None:
        """After the first picture: what need not be in it."""
        self.travel.focus_list()
        self._dress()
        self._clock.start()
        self._tick()


def _problems(runtime: Runtime) -> tuple[int, int]:
    """How many problems are new, and how many are known."""
    view = runtime.view
    new = sum(problem.is_new(view.now_s) for problem in view.problems.values())
    return new, len(view.problems) - new

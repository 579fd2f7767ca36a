"""The window's commands that are no actions on objects: names, keys, icons, and where menus have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from PySide6.QtCore import QPoint, QSize, Qt
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMainWindow, QMenu, QMenuBar, QToolBar

from manager.core.ids import Kind
from manager.ui.actions import ActionCenter
from manager.ui.help import Help
from manager.ui.icons import icon
from manager.ui.list_commands import ListCommands
from manager.ui.lower_panes import LowerPanes
from manager.ui.node_actions import NodeActions
from manager.ui.opening import Opening
from manager.ui.steering import Steering
from manager.ui.theme import Look
from manager.ui.travel import Travel
from manager.ui.views.navigation import TITLES, Place

NO_CLUSTER = "no cluster is open"
DENSITIES = ("compact", "usual", "roomy")
PAUSE_TIP = "Nothing new starts in any open cluster; what runs goes on (Ctrl+.)"


class Commands:
    """Each is a QAction of the window; the parts that carry them out are given."""

    def __init__(
        self,
        window: QMainWindow,
        center: ActionCenter,
        travel: Travel,
        panes: LowerPanes,
        lists: ListCommands,
        opening: Opening,
        steering: Steering,
        help_: Help,
        node_actions: NodeActions,
        *,
        open_palette: Callable[[], object],
        next_pane: Callable[[int], object],
        choose_theme: Callable[[str], object],
        choose_density: Callable[[str], object],
    ) -> None:
        self._window, self._center, self._travel = window, center, travel
        self._lists, self._opening, self._node_actions = lists, opening, node_actions
        self.all: list[QAction] = []
        a = self._add
        self.back = a("Back", travel.go_back, "Alt+Left", glyph="back")
        self.forward = a("Forward", travel.go_forward, "Alt+Right", glyph="forward")
        self.refresh = a(
            "Read again",
            lists.refresh,
            "F5",
            tip="Read the hosts again, and try lost ones now",
            glyph="refresh",
        )
        self.connect_cluster = a("Connect to a cluster…", opening.connect_cluster, "Ctrl+N", glyph="connect")
        self.open_file = a("Open a cluster file…", opening.open_file, "Ctrl+O")
        self.open_demo = a("Open the demo cluster", opening.open_demo)
        self.close_cluster = a("Close this cluster", opening.close_cluster, "Ctrl+W")
        self.quit = a("Quit", window.close, "Ctrl+Q")
        self.search = a("Search", lists.focus_search, "Ctrl+F", "/", glyph="search")
        self.criteria = a("Criteria", lists.toggle_criteria, "Ctrl+Shift+F")
        self.save_view = a("Save view", lists.save_view, "Ctrl+S")
        self.export = a("Export…", lists.export, "Ctrl+E", glyph="export")
        self.copy = a("Copy", lists.copy_cells, "Ctrl+C", glyph="copy")
        self.copy_as = [
            a(f"Copy {title}", partial(lists.copy_cells, form))
            for form, title in (("titles", "with titles"), ("csv", "as CSV"), ("json", "as JSON"))
        ]
        self.copy_command = a("Copy as muster command", lists.copy_command, "Ctrl+Shift+C")
        self.select_all = a("Select all", lists.select_all, "Ctrl+A")
        self.invert = a("Invert the selection", lists.invert_selection, "Ctrl+I")
        self.columns = a("Arrange columns…", lists.arrange_columns)
        self.palette = a("Go to anything…", open_palette, "Ctrl+K")
        self.next_pane = a("Next pane", partial(next_pane, 1), "F6")
        self.previous_pane = a("Previous pane", partial(next_pane, -1), "Shift+F6")
        self.next_cluster = a("Next cluster", travel.next_cluster, "Ctrl+Tab")
        self.queue = a("Live migrations", partial(panes.show_pane, "migrations"), "Ctrl+J")
        self.large = a("Large lower pane", panes.toggle_large, "Ctrl+Shift+J")
        self.pause_all = a("Pause all work", steering.pause_all, "Ctrl+.", tip=PAUSE_TIP)
        self.why = a("Why is this grey?…", help_.explain_grey, "Shift+F1")
        self.details = a("Details", lists.show_details, glyph="details")
        self.happened = a(
            "What happened",
            lists.show_what_happened,
            "Ctrl+H",
            tip="What happened to what is selected, newest first; of nothing selected, to the cluster",
        )
        self.bundle = a(
            "Support bundle…",
            help_.write_bundle,
            tip="Write one file for somebody who helps: what is and what happened, without secrets",
        )
        self.keys = a("Keys", help_.show_keys, "F1")
        self.about = a("About Muster", help_.show_about)
        self.pages = [
            a(title, partial(travel.go_page, page), f"Ctrl+{place + 1}")
            for place, (page, title) in enumerate(TITLES.items())
        ]
        self.tree = self._toggle("Navigation tree")
        self.actions = self._toggle("Actions pane")
        self.panes = self._toggle("Work and problems")
        panes.wanted.connect(lambda: self.panes.setChecked(True))
        self.themes = self._choices(
            (("system", "As the system"), ("light", "Light"), ("dark", "Dark")), choose_theme
        )
        self.densities = self._choices(tuple((d, d.title()) for d in DENSITIES), choose_density)

    def _add(
        self, title: str, act: Callable[[], object], *keys: str, tip: str = "", glyph: str = ""
    ) -> QAction:
        action = QAction(title, self._window)
        action.setShortcuts([QKeySequence(key) for key in keys])
        action.setToolTip(tip or title.replace("…", ""))
        action.triggered.connect(lambda *_: act())
        action.setData(glyph)
        self._window.addAction(action)
        self.all.append(action)
        return action

    def _toggle(self, title: str) -> QAction:
        action = QAction(title, self._window)
        action.setCheckable(True)
        action.setChecked(True)
        return action

    def _choices(self, choices: Sequence[tuple[str, str]], choose: Callable[[str], object]) -> QActionGroup:
        group = QActionGroup(self._window)
        for key, name in choices:
            action = QAction(name, self._window)
            action.setCheckable(True)
            action.setData(key)
            action.triggered.connect(lambda *_, k=key: choose(k))
            group.addAction(action)
        return group

    def show_possible(self) -> None:
        """Grey what cannot be done where the window is."""
        self.back.setEnabled(self._travel.can_go_back)
        self.forward.setEnabled(self._travel.can_go_forward)
        for action in (self.close_cluster, self.happened, self.bundle):
            action.setEnabled(self._travel.current is not None)
        self.refresh.setEnabled(bool(self._travel.shown))

    def why_grey(self, action: QAction) -> str:
        """Why a command that is grey is so."""
        if self._travel.here is None:
            return NO_CLUSTER
        if self._travel.current is None:
            return "all clusters are shown: choose one in the tree"
        travels = {
            self.back: "nothing was shown before",
            self.forward: "nothing was gone back from",
        }
        return travels.get(action, "this connection is read-only")

    def dress(self, look: Look) -> None:
        """Icons in the colours of the look."""
        for action in self.all:
            if action.data():
                action.setIcon(icon(action.data(), look.tokens.dim, look.tokens.faint))

    # --- menus ----------------------------------------------------------------------------------------

    def fill_menus(self, bar: QMenuBar) -> None:
        """The menu bar."""
        file_menu = bar.addMenu("&File")
        file_menu.addActions([self.connect_cluster, self.open_file])
        self._submenu(file_menu, "Open a cluster", self._opening.fill_configured)
        file_menu.addAction(self.open_demo)
        file_menu.addSeparator()
        file_menu.addAction(self.export)
        file_menu.addSeparator()
        file_menu.addActions([self.close_cluster, self.quit])
        action_menu = bar.addMenu("&Action")
        self._center.fill(action_menu)
        action_menu.addSeparator()
        self.node_menu = self._submenu(action_menu, "Node", self._fill_node)
        action_menu.addSeparator()
        action_menu.addActions([self.copy, *self.copy_as, self.copy_command, self.select_all, self.invert])
        action_menu.addSeparator()
        action_menu.addAction(self.pause_all)
        action_menu.addSeparator()
        action_menu.addActions([self.details, self.happened, self.why])
        view_menu = bar.addMenu("&View")
        view_menu.addActions([*self.pages, self.queue])
        view_menu.addSeparator()
        view_menu.addActions([self.back, self.forward, self.refresh, self.search, self.criteria])
        view_menu.addSeparator()
        view_menu.addActions([self.tree, self.actions, self.panes, self.large])
        self.views_menu = self._submenu(view_menu, "Views", self._lists.fill_views)
        view_menu.addAction(self.save_view)
        self.groups_menu = self._submenu(view_menu, "Group by", self._lists.fill_groups)
        view_menu.addAction(self.columns)
        view_menu.addSeparator()
        view_menu.addMenu("Theme").addActions(self.themes.actions())
        view_menu.addMenu("Rows").addActions(self.densities.actions())
        window_menu = bar.addMenu("&Window")
        window_menu.addActions([self.palette, self.next_pane, self.previous_pane, self.next_cluster])
        bar.addMenu("&Help").addActions([self.keys, self.why, self.bundle, self.about])

    def _submenu(self, menu: QMenu, title: str, fill: Callable[[QMenu], object]) -> QMenu:
        """Filled when it is opened."""
        sub = menu.addMenu(title)
        sub.aboutToShow.connect(partial(fill, sub))
        return sub

    def toolbar(self) -> QToolBar:
        """The bar below the menus."""
        bar = QToolBar("Main")
        bar.setObjectName("main")
        bar.setMovable(False)
        bar.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        bar.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        for action in (self.back, self.forward, self.refresh):
            action.setPriority(QAction.Priority.LowPriority)  # an icon alone
            bar.addAction(action)
        bar.addSeparator()
        for key in ("vm.start", "vm.shut_down", "vm.turn_off"):
            bar.addAction(self._center.actions[key])
        bar.addSeparator()
        # The toolbar has no room for the submenu's title: an action of its own that follows the other.
        source = self._center.actions["vm.live_migrate.select"]
        migrate = QAction("Live migrate…", bar)
        migrate.triggered.connect(lambda *_: source.trigger())

        def follow() -> None:
            migrate.setEnabled(source.isEnabled())
            migrate.setToolTip(source.toolTip())
            migrate.setIcon(source.icon())

        source.changed.connect(follow)
        follow()
        bar.addAction(migrate)
        bar.addAction(self._center.actions["vm.cancel"])
        bar.setIconSize(QSize(17, 17))
        return bar

    def _fill_node(self, menu: QMenu) -> None:
        """What can be done to the nodes that are selected."""
        menu.clear()
        page = self._travel.list_page
        self._node_actions.fill(menu, page.parts if page is not None and page.kind is Kind.NODE else ())

    def open_context_menu(self, at: QPoint) -> None:
        """That of what is selected in the page's list."""
        menu = QMenu(self._window)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        page = self._travel.list_page
        if page is not None and page.kind is Kind.VM:
            self._center.fill(menu)
        elif page is not None:
            parts = page.parts
            if page.kind is Kind.NODE and parts:
                self._node_actions.fill(menu, parts)
                menu.addSeparator()
            menu.addAction(self.refresh)
            if len(parts) == 1 and len(parts[0][1]) == 1 and page.kind is Kind.NODE:
                place = Place(parts[0][0].id, "roles", f"node:{parts[0][1][0]}")
                menu.addAction("Show its VMs", lambda: self._travel.to(place))
        menu.addSeparator()
        menu.addAction(self.copy)
        menu.addMenu("Copy as").addActions([*self.copy_as, self.copy_command])
        menu.addSeparator()
        menu.addActions([self.details, self.happened, self.why])
        menu.popup(at)


def key_of(action: QAction) -> str:
    """As it is written on this system."""
    return action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)

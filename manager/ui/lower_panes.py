"""The panes of work and problems below the page: which is shown, of which cluster, and how high."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QSizePolicy, QSplitter, QStackedWidget, QTabWidget, QWidget

PANES = ("migrations", "operations", "problems")
_TITLES = ("Live migrations", "Operations", "Problems")


class LowerPanes(QTabWidget):
    """Each cluster has its own; beside the tabs stands a strip of the one that is shown."""

    wanted = Signal()  # to be visible

    def __init__(self, splitter: QSplitter) -> None:
        super().__init__()
        self._splitter = splitter
        self._usual = [560, 264]
        self._stacks = {name: QStackedWidget() for name in PANES}
        self._strips = QStackedWidget()
        self._strips_here: Sequence[QWidget] = ()
        self.setDocumentMode(True)
        self.tabBar().setExpanding(False)
        for stack, title in zip(self._stacks.values(), _TITLES, strict=True):
            self.addTab(stack, title)
        self.setCornerWidget(self._strips, Qt.Corner.TopRightCorner)
        self.setAccessibleName("Work and problems")
        self.currentChanged.connect(lambda *_: self._show_strip())
        splitter.addWidget(self)
        splitter.setSizes(self._usual)

    def add(self, panes: Sequence[QWidget], strips: Sequence[QWidget] = ()) -> None:
        """Those of a cluster, or of all."""
        for stack, pane in zip(self._stacks.values(), panes, strict=True):
            stack.addWidget(pane)
        for strip in strips:
            self._strips.addWidget(strip)

    def remove(self, strips: Sequence[QWidget]) -> None:
        """Of a cluster that is closed; its panes end with it."""
        if self._strips_here == strips:
            self._strips_here = ()
        for strip in strips:
            self._strips.removeWidget(strip)
            strip.deleteLater()

    def show_those(self, panes: Sequence[QWidget], strips: Sequence[QWidget]) -> None:
        """Of the place that is shown."""
        for stack, pane in zip(self._stacks.values(), panes, strict=True):
            stack.setCurrentWidget(pane)
        self._strips_here = strips
        self._show_strip()

    def _show_strip(self) -> None:
        if self._strips_here:
            shown = self._strips_here[max(0, self.currentIndex())]
            for place in range(self._strips.count()):
                strip = self._strips.widget(place)  # as wide as the one that is shown, not as the widest
                assert strip is not None
                wide = QSizePolicy.Policy.Preferred if strip is shown else QSizePolicy.Policy.Ignored
                strip.setSizePolicy(wide, QSizePolicy.Policy.Preferred)
            self._strips.setCurrentWidget(shown)
        self._strips.setVisible(bool(self._strips_here))

    @property
    def focus_stop(self) -> QWidget:
        """What has the keys when one comes here by F6: the table, where there is one."""
        table = getattr(self._stacks[PANES[self.currentIndex()]].currentWidget(), "table", None)
        return table if isinstance(table, QWidget) else self

    def show_pane(self, name: str) -> None:
        """Open at a tab."""
        self.wanted.emit()
        self.setCurrentIndex(PANES.index(name))
        pane = self._stacks[name].currentWidget()
        if pane is not None:
            pane.setFocus()

    def show_counts(self, moving: int, waiting: int, failed: int, problems: int, known: int) -> None:
        """On the tabs."""
        counts = (
            f"{moving:,} + {waiting:,}" if moving or waiting else "",
            f"{failed} failed" if failed else "",
            f"{problems} + {known} known" if known else str(problems or ""),
        )
        for place, (title, count) in enumerate(zip(_TITLES, counts, strict=True)):
            text = f"{title}  {count}" if count else title
            if self.tabText(place) != text:
                self.setTabText(place, text)

    # --- height ---------------------------------------------------------------------------------------

    def toggle_large(self) -> None:
        """Have most of the window, or as much as before."""
        self.wanted.emit()
        sizes = self._splitter.sizes()
        if sizes[1] > sum(sizes) * 6 // 10:
            self._splitter.setSizes(self._usual)
        else:
            self._usual = sizes
            self._splitter.setSizes([sum(sizes) * 15 // 100, sum(sizes) * 85 // 100])

    def give_room(self, height: int) -> None:
        """Be at least that high, as far as there is room."""
        sizes = self._splitter.sizes()
        wanted = min(height, sum(sizes) * 6 // 10)
        if sizes[1] < wanted:
            self._splitter.setSizes([sum(sizes) - wanted, wanted])

"""The line of the menus: the cluster's band, and marks of what must not be overlooked."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QMenuBar, QPushButton, QVBoxLayout, QWidget

from manager.core import units
from manager.ui.dialogs.base import Band, demo_badge
from manager.ui.theme import Look, repolish
from manager.ui.views.parts import link_button, text_label


class TopLine(QWidget):
    """Not in the toolbar: that one hides what it has no room for."""

    def __init__(
        self, look: Look, show_pane: Callable[[str], object], pause_all: Callable[[], object]
    ) -> None:
        super().__init__()
        self.menus = QMenuBar()
        self._band = Band(look.sizes.band_px)
        self.pause_link = link_button("", pause_all)
        self.problems_link = link_button("", lambda: show_pane("problems"))
        self.moves_link = link_button("", lambda: show_pane("migrations"))
        self._read_only_badge = text_label("READ-ONLY", "demo")
        self._demo_badge = demo_badge()
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 8, 0)
        line.setSpacing(14)
        line.addWidget(self.menus, 1)
        for mark in (
            self.pause_link,
            self.problems_link,
            self.moves_link,
            self._read_only_badge,
            self._demo_badge,
        ):
            line.addWidget(mark, alignment=Qt.AlignmentFlag.AlignVCenter)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._band)
        column.addLayout(line)

    def show_cluster(self, colour: str, *, is_demo: bool, read_only: bool) -> None:
        """Whose colour, and what kind of cluster."""
        self._band.show_colour(colour)
        self._demo_badge.setVisible(is_demo)
        self._read_only_badge.setVisible(read_only)

    def show_counts(self, problems: int, moving: int, waiting: int) -> None:
        """What is none is not there."""
        _link(self.problems_link, units.count_text(problems, "problem") if problems else "")
        _link(self.moves_link, f"{moving:,} moving, {waiting:,} waiting" if moving or waiting else "")

    def show_pause(self, text: str, tip: str, *, possible: bool, paused: bool) -> None:
        """Whether new work starts."""
        link = self.pause_link
        link.setText(text)
        link.setToolTip(tip)
        link.setVisible(possible)
        style = "link_warning" if paused else "link"
        if link.objectName() != style:
            link.setObjectName(style)
            repolish(link)


def _link(link: QPushButton, text: str) -> None:
    link.setText(text)
    link.setVisible(bool(text))

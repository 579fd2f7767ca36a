"""What all dialogs share: the cluster's band, and an answer to be awaited. Never `exec()`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QDialog, QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from manager.core import units
from manager.core.model import ClusterConfig, Tier
from manager.ui.focus import go_on
from manager.ui.views.parts import text_label


class Band(QFrame):
    """The stripe in the cluster's colour."""

    def __init__(self, height: int) -> None:
        super().__init__()
        self._colour = QColor("transparent")
        self.setFixedHeight(height)

    def show_colour(self, colour: str) -> None:
        """Another cluster's colour."""
        self._colour = QColor(colour)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Fill."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), self._colour)
        painter.end()


class Asking(QDialog):
    """A window-modal dialog whose answer is awaited; everything behind it goes on."""

    def __init__(self, parent: QWidget | None, title: str, *clusters: ClusterConfig) -> None:
        """`clusters`: those that it is about."""
        super().__init__(parent)
        names = units.and_text([cluster.name for cluster in clusters])
        self.setWindowTitle(f"{names} — Muster" if clusters else title)
        self.setModal(True)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        bands = QHBoxLayout()
        for cluster in clusters:
            band = Band(3)
            band.show_colour(cluster.colour)
            bands.addWidget(band)
        outer.addLayout(bands)
        self.body = QVBoxLayout()
        self.body.setContentsMargins(20, 16, 20, 16)
        self.body.setSpacing(10)
        outer.addLayout(self.body, 1)
        head = QHBoxLayout()
        self.heading = text_label(title, "heading", wrap=True)
        head.addWidget(self.heading, 1)
        if any(cluster.tier is Tier.DEMO for cluster in clusters):
            head.addWidget(demo_badge(), alignment=Qt.AlignmentFlag.AlignTop)
        self.body.addLayout(head)
        self.other: QPushButton | None = None  # see `offer`
        self._buttons = QHBoxLayout()
        self._buttons.setSpacing(8)

    def event(self, event: QEvent) -> bool:
        """Grow with what is in it: a text that is wrapped needs its height, and may come later."""
        grows = event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Show)
        done = super().event(event)
        # Other events may have been its end: then there is no dialog any more that could be asked.
        if grows and (layout := self.layout()) is not None:
            screen = self.screen().availableSize()
            width = min(max(self.width(), layout.minimumSize().width()), screen.width())
            height = min(max(self.height(), layout.totalMinimumHeightForWidth(width)), screen.height())
            if (width, height) != (self.width(), self.height()):
                self.resize(width, height)
        return done

    def focusNextPrevChild(self, forward: bool) -> bool:
        """As the dialog is read."""
        return go_on(self, forward=forward)

    def add_buttons(self) -> None:
        """Put the row of buttons below what was added so far."""
        self.body.addSpacing(4)
        self.body.addLayout(self._buttons)
        self._buttons.insertStretch(0, 1)

    def button(
        self, text: str, act: Callable[[], object], *, style: str = "", default: bool = False
    ) -> QPushButton:
        """A button in the row. `default`: it has the focus, and Enter presses it unless another one has."""
        made = QPushButton(text)
        made.setDefault(default)
        if style:
            made.setObjectName(style)
        made.clicked.connect(lambda *_: act())
        self._buttons.addWidget(made)
        if default:
            made.setFocus()
        return made

    def offer(self, text: str, title: str, act: Callable[[], object]) -> None:
        """Say something beside the question, and offer to do something else instead of answering it."""
        self.beside = text_label(text, "warning", wrap=True)
        self.body.insertWidget(1, self.beside)
        self.other = QPushButton(title)
        self.other.clicked.connect(self.reject)
        self.other.clicked.connect(lambda *_: act())
        self._buttons.insertWidget(0, self.other)

    def present(self) -> None:
        """Open it; nobody waits for an answer."""
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.open()

    async def answer(self) -> bool:
        """Open it, and wait until it was answered; False: it was given up."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def finished(code: int) -> None:
            if not done.done():
                done.set_result(code)

        self.finished.connect(finished)
        self.open()
        try:
            return await done == int(QDialog.DialogCode.Accepted)
        finally:
            self.hide()
            self.deleteLater()


def demo_badge() -> QLabel:
    """The mark of everything that is simulated."""
    badge = text_label("DEMO", "demo")
    badge.setToolTip("A simulated cluster inside this program: nothing real is touched.")
    badge.setAccessibleName("Demo: simulated cluster")
    return badge

"""The live picture of a VM's screen."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QRect, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QHideEvent, QImage, QPainter, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QSizePolicy

from manager.core.errors import Failure
from manager.core.model import Vm, VmStatus
from manager.services.runtime import Runtime
from manager.ui.models.rows_model import plain
from manager.ui.theme import Look
from manager.ui.views.details.closeup import CloseupTab, sentence_of
from manager.ui.views.parts import tip

AGAIN_MS = 5000
_UP = (VmStatus.RUNNING, VmStatus.PAUSED)


class ScreenPicture(CloseupTab):
    """What the screen shows now, every 5 s while it is seen; else a word why there is nothing."""

    def __init__(self, runtime: Runtime, look: Look) -> None:
        super().__init__(runtime)
        self._look = look
        self._picture: QImage | None = None
        self.said = ""
        self._may_ask = False
        self._timer = QTimer(self)
        self._timer.setInterval(AGAIN_MS)
        self._timer.timeout.connect(self.look_again)
        self.setFixedSize(160, 100)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        look.changed.connect(self.update)

    def follow(self, vm: Vm) -> None:
        """Follow the state of this VM."""
        why = ""
        if vm.status not in _UP:
            why = f"no picture: {vm.status.value.lower()}"
        elif vm.config is not None and not vm.config.graphics:
            why = "no graphics device"
        could, self._may_ask = self._may_ask, not why
        if why:
            self.forget()
            self._say(why)
        is_other = vm.id != self.vm
        self.show_vm(vm.id)
        if self._may_ask and not could and not is_other and self.isVisible():
            self.look_again()

    @property
    def has_picture(self) -> bool:
        """Whether a picture is shown."""
        return self._picture is not None

    def vm_changed(self) -> None:
        """Another VM's screen is not this one's."""
        if self._may_ask:
            self._say("looking…")

    def look_again(self) -> None:
        """Ask for a picture, unless one is on its way."""
        if self.vm is not None and self._may_ask and not self.is_asking:
            self.ask(partial(self._runtime.closeup.screenshot, self.vm), self._take, self._failed)

    def _take(self, png: bytes) -> None:
        picture = QImage.fromData(png)
        if picture.isNull() or not self._may_ask:
            self._say("the picture cannot be read")
            return
        ratio = self.devicePixelRatioF()
        inside = self.size() * ratio
        self._picture = picture.scaled(
            inside, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
        )
        self._picture.setDevicePixelRatio(ratio)
        self.said = ""
        self.setAccessibleName(f"Screen, {picture.width()} x {picture.height()}")
        self.setToolTip(tip(f"The VM's screen ({picture.width()} x {picture.height()}), every 5 s."))
        self.update()

    def _failed(self, failure: Failure) -> None:
        self._say(sentence_of(failure))

    def _say(self, why: str) -> None:
        if why == self.said and self._picture is None:
            return
        self._picture = None
        self.said = plain(why)
        self.setAccessibleName(f"Screen: {self.said}")
        self.setToolTip(tip(self.said))
        self.update()

    def sizeHint(self) -> QSize:
        """Fixed."""
        return self.size()

    def showEvent(self, event: QShowEvent) -> None:
        """Look now, and again."""
        super().showEvent(event)
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        """Look no more."""
        super().hideEvent(event)
        self._timer.stop()

    def paintEvent(self, event: QPaintEvent) -> None:
        """The picture in the middle, or the word."""
        t = self._look.tokens
        painter = QPainter(self)
        if self._picture is not None:
            painter.fillRect(self.rect(), QColor(0, 0, 0))
            size = self._picture.deviceIndependentSize().toSize()
            place = QRect(0, 0, size.width(), size.height())
            place.moveCenter(self.rect().center())
            painter.drawImage(place.topLeft(), self._picture)
        else:
            painter.fillRect(self.rect(), t.window)
            painter.setPen(t.dim)
            inside = self.rect().adjusted(8, 4, -8, -4)
            flags = int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap)
            painter.drawText(inside, flags, self.said)
        painter.setPen(t.line)
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.end()

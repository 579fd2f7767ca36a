"""Icons: the state shapes, painted here, and one line family (Phosphor, through qtawesome)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QIcon, QPainter, QPen, QPixmap, QPolygonF

from manager.core.model import NodeStatus, VmStatus

VM_TOKENS = {
    VmStatus.RUNNING: "running",
    VmStatus.OFF: "off",
    VmStatus.SAVED: "saved",
    VmStatus.PAUSED: "paused",
    VmStatus.CRASHED: "crashed",
    VmStatus.UNKNOWN: "unknown",
}
"""The colour token of a VM's status; also the name of its shape."""

NODE_TOKENS = {
    NodeStatus.UP: "running",
    NodeStatus.CONNECTING: "saved",
    NodeStatus.UNKNOWN: "unknown",
    NodeStatus.LOGIN_FAILED: "crashed",
    NodeStatus.INCOMPATIBLE: "crashed",
}

_SIDE = 10.0
"""Side of the square in which the shapes are drawn, device-independent pixels."""

FAMILY = {
    "start": "ph.play",
    "shut_down": "ph.power",
    "restart": "ph.arrows-clockwise",
    "save": "ph.download-simple",
    "pause": "ph.pause",
    "resume": "ph.play-circle",
    "turn_off": "ph.lightning-slash",
    "reset": "ph.arrow-counter-clockwise",
    "delete_saved_state": "ph.trash",
    "live_migrate": "ph.arrows-left-right",
    "quick_migrate": "ph.fast-forward",
    "shut_down_and_move": "ph.sign-out",
    "turn_off_and_move": "ph.lightning",
    "move_storage": "ph.hard-drives",
    "cancel": "ph.x-circle",
    "priority": "ph.flag",
    "tags": "ph.tag",
    "cd": "ph.disc",
    "description": "ph.sliders-horizontal",
    "keys": "ph.keyboard",
    "snapshot": "ph.camera",
    "snapshot_delete": "ph.trash-simple",
    "snapshot_revert": "ph.clock-counter-clockwise",
    "back": "ph.arrow-left",
    "forward": "ph.arrow-right",
    "refresh": "ph.arrow-clockwise",
    "connect": "ph.link",
    "search": "ph.magnifying-glass",
    "close": "ph.x",
    "undo": "ph.arrow-u-up-left",
    "export": "ph.export",
    "columns": "ph.columns",
    "copy": "ph.copy",
    "details": "ph.info",
    "acknowledge": "ph.check",
    "mute": "ph.bell-slash",
}
"""Our names for the family's icons: one family, one weight."""


def _triangle(p: QPainter, c: QColor) -> None:
    p.setBrush(c)
    p.drawPolygon(QPolygonF([QPointF(1.6, 1), QPointF(9.2, 5), QPointF(1.6, 9)]))


def _square(p: QPainter, c: QColor) -> None:
    p.setBrush(c)
    p.drawRect(QRectF(1.8, 1.8, 6.4, 6.4))


def _tray(p: QPainter, c: QColor) -> None:
    p.setBrush(c)
    p.drawPolygon(QPolygonF([QPointF(1.6, 1.2), QPointF(8.4, 1.2), QPointF(5, 6.2)]))
    p.drawRect(QRectF(1.2, 7.6, 7.6, 1.5))


def _bars(p: QPainter, c: QColor) -> None:
    p.setBrush(c)
    p.drawRect(QRectF(1.8, 1.2, 2.4, 7.6))
    p.drawRect(QRectF(5.8, 1.2, 2.4, 7.6))


def _cross(p: QPainter, c: QColor) -> None:
    p.setPen(QPen(c, 1.9, Qt.PenStyle.SolidLine, Qt.PenCapStyle.FlatCap))
    p.drawLine(QPointF(1.4, 1.4), QPointF(8.6, 8.6))
    p.drawLine(QPointF(8.6, 1.4), QPointF(1.4, 8.6))


def _tick(p: QPainter, c: QColor) -> None:
    p.setPen(QPen(c, 1.7, Qt.PenStyle.SolidLine, Qt.PenCapStyle.FlatCap))
    p.drawPolyline(QPolygonF([QPointF(1.0, 5.4), QPointF(3.9, 8.2), QPointF(9.0, 1.8)]))


def _question(p: QPainter, c: QColor) -> None:
    font = QFont(p.font())
    font.setPixelSize(11)
    font.setWeight(QFont.Weight.Bold)
    p.setFont(font)
    p.setPen(c)
    p.drawText(QRectF(0, -1.5, 10, 13), Qt.AlignmentFlag.AlignCenter, "?")


def _ring(p: QPainter, c: QColor) -> None:
    p.setBrush(Qt.BrushStyle.NoBrush)
    p.setPen(QPen(c, 1.6))
    p.drawEllipse(QRectF(1.6, 1.6, 6.8, 6.8))


def _alarm(p: QPainter, c: QColor) -> None:
    p.setBrush(c)
    p.drawPolygon(QPolygonF([QPointF(5, 0.6), QPointF(9.8, 9.2), QPointF(0.2, 9.2)]))


_SHAPES: dict[str, Callable[[QPainter, QColor], None]] = {
    "running": _triangle,
    "off": _square,
    "saved": _tray,
    "paused": _bars,
    "crashed": _cross,
    "done": _tick,
    "unknown": _question,
    "connecting": _ring,
    "alarm": _alarm,
}


@lru_cache(maxsize=128)
def _shape(shape: str, colour: str, ratio: float) -> QPixmap:
    side = round(_SIDE * ratio)
    pixmap = QPixmap(side, side)
    pixmap.setDevicePixelRatio(ratio)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    _SHAPES[shape](painter, QColor(colour))
    painter.end()
    return pixmap


def state_pixmap(shape: str, colour: QColor, ratio: float) -> QPixmap:
    """A state's shape in a colour, for screens with that pixel ratio."""
    return _shape(shape, colour.name(), ratio)


def state_icon(shape: str, colour: QColor) -> QIcon:
    """A state's shape as an icon."""
    icon = QIcon()
    for ratio in (1.0, 1.5, 2.0):
        icon.addPixmap(_shape(shape, colour.name(), ratio))
    return icon


@cache
def _family() -> Any:
    """The one font of the family: `qtawesome.icon` would read all of its dozen, a quarter of a second."""
    import qtawesome
    from qtawesome.iconic_font import IconicFont

    fonts = getattr(qtawesome, "_BUNDLED_FONTS", ())
    return next((IconicFont(font) for font in fonts if font[0] == "ph"), qtawesome)


@lru_cache(maxsize=256)
def _family_icon(name: str, colour: str, disabled: str) -> QIcon:
    icon: QIcon = _family().icon(FAMILY[name], color=colour, color_disabled=disabled)
    return icon


def icon(name: str, colour: QColor, disabled: QColor) -> QIcon:
    """An icon of the family in the theme's colours."""
    return _family_icon(name, colour.name(), disabled.name())

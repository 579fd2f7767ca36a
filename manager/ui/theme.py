"""The window's look: tokens from ``resources/tokens.toml``, the palette and style sheet made of them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication, QWidget

RESOURCES = Path(__file__).resolve().parents[2] / "resources"
FAMILIES = ("Inter", "Noto Sans", "DejaVu Sans")
"""Fonts in the order of preference; never "the first family", which may be a serif."""

MONOSPACE = ("JetBrains Mono", "Noto Sans Mono", "DejaVu Sans Mono", "monospace")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The colours of one theme, by the role they play."""

    window: QColor
    panel: QColor
    line: QColor
    text: QColor
    dim: QColor
    faint: QColor
    accent: QColor
    on_accent: QColor
    selection: QColor
    hover: QColor
    mark: QColor
    field: QColor
    field_line: QColor
    track: QColor
    running: QColor
    off: QColor
    saved: QColor
    paused: QColor
    crashed: QColor
    unknown: QColor
    note: QColor
    note_warning: QColor
    note_error: QColor

    def colour(self, name: str) -> QColor:
        """A colour by its token's name."""
        found = getattr(self, name)
        assert isinstance(found, QColor)
        return found


@dataclass(frozen=True, slots=True)
class Sizes:
    """Measures in device-independent pixels."""

    font_px: int
    row_px: int
    row_compact_px: int
    row_roomy_px: int
    grid_px: int
    bar_px: int
    band_px: int


@cache
def _file() -> dict[str, dict[str, Any]]:
    with (RESOURCES / "tokens.toml").open("rb") as file:
        return tomllib.load(file)


def tokens(theme: str) -> Tokens:
    """The tokens of ``light`` or ``dark``. `KeyError` if the file lacks one."""
    table = _file()[theme]
    return Tokens(*(QColor(table[f.name]) for f in fields(Tokens)))


def sizes() -> Sizes:
    """The measures."""
    table = _file()["size"]
    return Sizes(*(int(table[f.name]) for f in fields(Sizes)))


def terminal_colours() -> dict[str, str]:
    """The colours of consoles: ground, ink, chosen, and those that guests name."""
    return _file()["terminal"]


def family() -> str:
    """The first of our fonts that this computer has; else what it uses for sans serif."""
    present = set(QFontDatabase.families())
    for name in FAMILIES:
        if name in present:
            return name
    return QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont).family()


def font(pixels: int | None = None, *, bold: bool = False) -> QFont:
    """The window's font with figures of equal width."""
    made = QFont(family())
    made.setFamilies([family(), *FAMILIES])
    made.setPixelSize(pixels or sizes().font_px)
    made.setFeature(QFont.Tag("tnum"), 1)
    if bold:
        made.setWeight(QFont.Weight.DemiBold)
    return made


def fixed_font() -> QFont:
    """For commands and messages that are copied."""
    made = QFont()
    made.setFamilies(list(MONOSPACE))
    made.setStyleHint(QFont.StyleHint.Monospace)
    made.setPixelSize(sizes().font_px - 1)
    return made


class Look(QObject):
    """The theme in use. Whoever paints asks `tokens` while painting and repaints on `changed`."""

    changed = Signal()

    def __init__(self, app: QApplication, choice: str = "system") -> None:
        super().__init__()
        self._app = app
        self.sizes = sizes()
        self._choice = choice
        self._name = ""
        self.tokens = tokens("light")
        app.setStyle("Fusion")
        app.setFont(font())
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._system_changed)
        self.choose(choice)

    @property
    def choice(self) -> str:
        """What was chosen: system, light or dark."""
        return self._choice

    @property
    def is_dark(self) -> bool:
        """Which one that is now."""
        return self._name == "dark"

    def choose(self, choice: str) -> None:
        """Switch, at once and everywhere."""
        self._choice = choice
        name = choice
        if choice not in ("light", "dark"):
            scheme = QGuiApplication.styleHints().colorScheme()
            name = "dark" if scheme == Qt.ColorScheme.Dark else "light"
        if name == self._name:
            return
        self._name = name
        self.tokens = tokens(name)
        self._app.setPalette(palette(self.tokens))
        self._app.setStyleSheet(style_sheet(self.tokens))
        self.changed.emit()

    def _system_changed(self) -> None:
        if self._choice == "system":
            self.choose("system")


def palette(t: Tokens) -> QPalette:
    """Qt's palette roles from our tokens."""
    made = QPalette()
    role, group = QPalette.ColorRole, QPalette.ColorGroup
    for which, colour in (
        (role.Window, t.window),
        (role.WindowText, t.text),
        (role.Base, t.panel),
        (role.AlternateBase, t.window),
        (role.Text, t.text),
        (role.Button, t.window),
        (role.ButtonText, t.text),
        (role.BrightText, t.crashed),
        (role.ToolTipBase, t.panel),
        (role.ToolTipText, t.text),
        (role.PlaceholderText, t.dim),
        (role.Highlight, t.selection),
        (role.HighlightedText, t.text),
        (role.Link, t.accent),
        (role.LinkVisited, t.accent),
        (role.Accent, t.accent),
        (role.Light, t.panel),
        (role.Midlight, t.line),
        (role.Mid, t.line),
        (role.Dark, t.line),
        (role.Shadow, t.line),
    ):
        made.setColor(which, colour)
    for which in (role.WindowText, role.Text, role.ButtonText):
        made.setColor(group.Disabled, which, t.faint)
    return made


def style_sheet(t: Tokens) -> str:
    """``resources/window.qss`` with its tokens filled in."""
    colours = {f.name: getattr(t, f.name).name() for f in fields(Tokens)}
    return Template(_sheet()).substitute(colours)


@cache
def _sheet() -> str:
    return (RESOURCES / "window.qss").read_text(encoding="utf-8")


def repolish(widget: QWidget) -> None:
    """Apply the style sheet again after a widget's object name changed."""
    widget.style().unpolish(widget)
    widget.style().polish(widget)

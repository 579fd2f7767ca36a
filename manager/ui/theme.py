"""The window's look: tokens from ``resources/tokens.toml``, and the palette and style sheet made from them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
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
        self._app.setStyleSheet(style_sheet(self.tokens, self.sizes))
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


def style_sheet(t: Tokens, s: Sizes) -> str:
    """What Fusion and the palette do not give: flat headers, tabs, fields, hairlines."""
    c = {f.name: getattr(t, f.name).name() for f in fields(Tokens)}
    return f"""
QMainWindow, QDialog {{ background: {c["window"]}; }}
QToolTip {{ color: {c["text"]}; background: {c["panel"]}; border: 1px solid {c["line"]}; padding: 4px 6px; }}
QMenuBar {{ background: {c["window"]}; padding: 1px 4px; }}
QMenuBar::item {{ padding: 4px 9px; background: transparent; border-radius: 4px; }}
QMenuBar::item:selected {{ background: {c["selection"]}; }}
QMenu {{ background: {c["panel"]}; border: 1px solid {c["line"]}; padding: 4px 0; }}
QMenu::item {{ padding: 5px 28px 5px 12px; }}
QMenu::icon {{ padding-left: 10px; }}
QMenu::item:selected {{ background: {c["selection"]}; color: {c["text"]}; }}
QMenu::item:disabled {{ color: {c["faint"]}; }}
QMenu::separator {{ height: 1px; background: {c["line"]}; margin: 4px 0; }}
QToolBar {{ background: {c["window"]}; border: none; border-bottom: 1px solid {c["line"]}; padding: 2px 6px; spacing: 2px; }}
QToolBar::separator {{ width: 1px; background: {c["line"]}; margin: 5px 5px; }}
QToolBar QToolButton {{ border: none; border-radius: 4px; padding: 4px 7px; }}
QToolButton#flat {{ border: none; border-radius: 4px; padding: 4px 8px; }}
QToolBar QToolButton:hover, QToolButton#flat:hover {{ background: {c["selection"]}; }}
QToolBar QToolButton:disabled, QToolButton#flat:disabled {{ color: {c["faint"]}; }}
QToolButton#flat::menu-indicator {{ image: none; width: 0; }}
QToolButton#flat:focus {{ background: {c["selection"]}; }}
QStatusBar {{ background: {c["window"]}; border-top: 1px solid {c["line"]}; color: {c["dim"]}; }}
QStatusBar::item {{ border: none; }}
QSplitter::handle {{ background: {c["line"]}; }}
QSplitter::handle:horizontal {{ width: 1px; }}
QSplitter::handle:vertical {{ height: 1px; }}
QHeaderView {{ background: {c["window"]}; border: none; }}
QHeaderView::section {{ background: {c["window"]}; color: {c["dim"]}; border: none;
  border-bottom: 1px solid {c["line"]}; padding: 0 8px; height: {s.row_px + 4}px; }}
QHeaderView::section:hover {{ color: {c["text"]}; }}
QTableView, QTreeView, QListView {{ border: none; outline: none; background: {c["panel"]}; }}
QTableWidget::item {{ padding: 0 5px; }}
QTableWidget::item:selected {{ background: {c["selection"]}; color: {c["text"]}; }}
QTabWidget::pane {{ border: none; }}
QTabBar {{ background: {c["window"]}; qproperty-drawBase: 0; }}
QTabBar::tab {{ background: transparent; color: {c["dim"]}; padding: 6px 12px 5px 12px; border: none;
  border-bottom: 2px solid transparent; }}
QTabBar::tab:selected {{ color: {c["text"]}; border-bottom: 2px solid {c["accent"]}; }}
QTabBar::tab:hover {{ color: {c["text"]}; }}
QTabBar::tab:focus {{ background: {c["selection"]}; }}
QLineEdit, QPlainTextEdit#field, QComboBox {{ background: {c["field"]}; border: 1px solid {c["field_line"]};
  border-radius: 4px; padding: 4px 8px; selection-background-color: {c["selection"]}; selection-color: {c["text"]}; }}
QLineEdit:focus, QPlainTextEdit#field:focus, QComboBox:focus {{ border-color: {c["accent"]}; }}
QComboBox::drop-down {{ border: none; width: 18px; }}
QPushButton {{ background: {c["panel"]}; border: 1px solid {c["field_line"]}; border-radius: 4px; padding: 5px 14px; }}
QPushButton:hover {{ background: {c["hover"]}; }}
QPushButton:focus {{ border: 1px solid {c["accent"]}; }}
QPushButton:disabled {{ color: {c["faint"]}; border-color: {c["line"]}; }}
QPushButton#primary {{ background: {c["accent"]}; color: {c["on_accent"]}; border-color: {c["accent"]}; }}
QPushButton#primary:disabled {{ background: {c["track"]}; color: {c["faint"]}; border-color: {c["track"]}; }}
QPushButton#danger {{ color: {c["crashed"]}; border-color: {c["crashed"]}; }}
QPushButton#primary:focus, QPushButton#danger:focus {{ border: 2px solid {c["text"]}; padding: 4px 13px; }}
QPushButton#link {{ border: none; background: transparent; color: {c["accent"]}; padding: 2px 0; text-align: left; }}
QPushButton#link:disabled {{ color: {c["faint"]}; }}
QPushButton#link_title {{ border: none; background: transparent; color: {c["text"]}; padding: 0; text-align: left; font-weight: 600; }}
QPushButton#link_title:hover, QPushButton#link_title:focus {{ color: {c["accent"]}; }}
QPushButton#link:hover, QPushButton#link:focus {{ text-decoration: underline; }}
QScrollArea {{ border: none; background: {c["panel"]}; }}
QScrollBar:vertical {{ background: transparent; width: 11px; margin: 0; }}
QScrollBar:horizontal {{ background: transparent; height: 11px; margin: 0; }}
QScrollBar::handle {{ background: {c["field_line"]}; border-radius: 3px; margin: 2px; }}
QScrollBar::handle:vertical {{ min-height: 28px; }}
QScrollBar::handle:horizontal {{ min-width: 28px; }}
QScrollBar::handle:hover {{ background: {c["faint"]}; }}
QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
QPlainTextEdit, QTextBrowser {{ border: none; background: {c["panel"]}; }}
QFrame#panel, QWidget#panel {{ background: {c["panel"]}; }}
QWidget#strip {{ background: {c["window"]}; }}
QLabel#dim {{ color: {c["dim"]}; }}
QLabel#title {{ font-weight: 600; }}
QLabel#heading {{ font-size: 17px; font-weight: 600; }}
QLabel#error {{ color: {c["crashed"]}; }}
QLabel#warning {{ color: {c["paused"]}; }}
QLabel#good {{ color: {c["running"]}; }}
QLabel#demo {{ color: {c["on_accent"]}; background: {c["paused"]}; border-radius: 3px; padding: 1px 6px; font-weight: 600; }}
QFrame#hairline {{ background: {c["line"]}; border: none; }}
QFrame#note {{ background: {c["note"]}; border: none; border-bottom: 1px solid {c["line"]}; }}
QFrame#note_warning {{ background: {c["note_warning"]}; border: none; border-bottom: 1px solid {c["line"]}; }}
QFrame#note_error {{ background: {c["note_error"]}; border: none; border-bottom: 1px solid {c["line"]}; }}
"""


def repolish(widget: QWidget) -> None:
    """Apply the style sheet again after a widget's object name changed."""
    widget.style().unpolish(widget)
    widget.style().polish(widget)

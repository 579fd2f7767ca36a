"""Tab through a window as it is read: part by part, line by line, whatever was made or shown when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QRadioButton, QWidget


def go_on(window: QWidget, *, forward: bool) -> bool:
    """Hand the focus on; for `QWidget.focusNextPrevChild` of a window, to which every widget in it leads."""
    here = QApplication.focusWidget()
    order = list(_read(window, here))
    if not order:
        return False
    step = 1 if forward else -1
    at = order.index(here) + step if here in order else (0 if forward else -1)
    reason = Qt.FocusReason.TabFocusReason if forward else Qt.FocusReason.BacktabFocusReason
    order[at % len(order)].setFocus(reason)
    return True


def step(stops: Sequence[tuple[QWidget, QWidget]], by: int) -> None:
    """Go on by so many panes. `stops`: each pane that is shown, and what has the keys in it."""
    here = QApplication.focusWidget()
    at = -1
    for place, (pane, _) in enumerate(stops):
        if here is not None and (pane is here or pane.isAncestorOf(here)):
            at = place
    stops[(at + by) % len(stops)][1].setFocus(Qt.FocusReason.TabFocusReason)


def _read(part: QWidget, here: QWidget | None) -> Iterator[QWidget]:
    if part is here or _stops(part):
        yield part
    for line in _lines([c for c in part.children() if isinstance(c, QWidget)]):
        for each in line:
            yield from _read(each, here)


def _lines(parts: list[QWidget]) -> list[list[QWidget]]:
    """Those that stand side by side, from the left; the upper ones first."""
    lines: list[list[QWidget]] = []
    bottom = 0
    seen = [p for p in parts if p.isVisible() and not p.isWindow() and not p.geometry().isEmpty()]
    for part in sorted(seen, key=lambda p: (p.y(), p.x())):
        box = part.geometry()
        if not lines or box.center().y() >= bottom:
            lines.append([])
            bottom = box.bottom()
        lines[-1].append(part)
        bottom = min(bottom, box.bottom())  # a high one beside many low ones does not make them one line
    return [sorted(line, key=lambda p: p.x()) for line in lines]


def _stops(widget: QWidget) -> bool:
    if not widget.isEnabled() or widget.focusProxy() is not None:
        return False
    if isinstance(widget, QRadioButton) and not widget.isChecked() and _has_choice(widget):
        return False  # the arrow keys go about in the group
    return bool(widget.focusPolicy() & Qt.FocusPolicy.TabFocus)


def _has_choice(button: QRadioButton) -> bool:
    parent = button.parentWidget()
    return parent is not None and any(
        each.isChecked() for each in parent.findChildren(QRadioButton) if each.parentWidget() is parent
    )

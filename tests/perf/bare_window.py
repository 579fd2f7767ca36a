"""The least that Qt can show, to measure against: an empty main window, painted once."""

from __future__ import annotations

import sys

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication, QMainWindow

app = QApplication(sys.argv)
window = QMainWindow()
window.resize(1400, 860)
window.show()
QTimer.singleShot(0, app.quit)
sys.exit(app.exec())

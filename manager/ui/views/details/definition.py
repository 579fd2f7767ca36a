"""The XML tab: a VM's definition as it is now, or as it was kept, to be read, searched and copied."""

from __future__ import annotations

import contextlib
from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtGui import QTextCursor, QTextDocument
from PySide6.QtWidgets import (
    QApplication,
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QVBoxLayout,
)

from manager.core.errors import Failure, FailureCode, OperationError, UserError
from manager.core.ids import VmId
from manager.core.units import time_text
from manager.core.vault import KeptDefinition
from manager.services.runtime import Runtime
from manager.ui.models.rows_model import plain
from manager.ui.theme import fixed_font
from manager.ui.views.details.closeup import CloseupTab, sentence_of
from manager.ui.views.parts import ElidedLabel, flat_button


class DefinitionTab(CloseupTab):
    """Asked for when it is seen, and with *Read again*. What was kept is there when no node answers, too."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._is = ""  # what the text is
        self.version = QComboBox()
        self.version.setAccessibleName("Version of the definition")
        self.version.setToolTip(
            "As the VM's node has it now, or one of the versions that Muster kept,"
            " so that the VM can be started elsewhere."
        )
        self.version.addItem("Now", 0)
        self.version.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.version.activated.connect(self.look_again)
        self.setObjectName("panel")
        self.text = QPlainTextEdit()
        self.text.setObjectName("field")
        self.text.setReadOnly(True)
        self.text.setFont(fixed_font())
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setTabChangesFocus(True)
        self.text.setAccessibleName("Definition as XML")
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search")
        self.search.setAccessibleName("Search the definition")
        self.search.setMaximumWidth(240)
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._search_anew)
        self.search.returnPressed.connect(self._search_on)
        self.said = ElidedLabel(style="dim")
        strip = QHBoxLayout()
        strip.setContentsMargins(12, 4, 8, 4)
        strip.addWidget(self.version)
        strip.addWidget(self.search, 2)
        strip.addWidget(self.said, 3)
        strip.addWidget(flat_button("Read again", on_click=self.look_again))
        strip.addWidget(flat_button("Copy", on_click=self._copy))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(strip)
        layout.addWidget(self.text, 1)

    def vm_changed(self) -> None:
        """Another VM's definition is not this one's."""
        self.text.clear()
        self.said.set_text("")
        self._offer(())

    def look_again(self) -> None:
        """Read it."""
        if self.vm is not None:
            self.said.set_text("reading…")
            read = partial(self._read, self.vm, self.version.currentData())
            self.ask(read, self._take, self._failed)

    async def _read(self, vm: VmId, number: int) -> str:
        """A version as XML; 0: as it is now."""
        kept = self._runtime.definitions
        if kept is None:
            return await self._runtime.closeup.definition(vm)
        with contextlib.suppress(OSError):  # then only that of now is offered
            versions = await kept.versions(vm)
            if vm == self.vm:
                self._offer(versions)
        if not number:
            return await self._runtime.closeup.definition(vm)
        try:
            return await kept.text(vm, number)
        except (OSError, UserError) as error:
            raise OperationError(Failure(code=FailureCode.OTHER, text=str(error), vm=vm)) from error

    def _offer(self, versions: tuple[KeptDefinition, ...]) -> None:
        """The versions to choose from; the chosen one stays where it is still there."""
        chosen = self.version.currentData()
        self.version.clear()
        self.version.addItem("Now", 0)
        for each in versions:
            told = f"Version {each.number}, {each.node}, {time_text(each.kept_s)}"
            self.version.addItem(plain(told), each.number)
        self.version.setCurrentIndex(max(0, self.version.findData(chosen)))

    def _take(self, xml: str) -> None:
        shown = "\n".join(plain(line) for line in xml.expandtabs(4).rstrip("\n").split("\n"))
        if shown != self.text.toPlainText():
            self.text.setPlainText(shown)
        number = self.version.currentData()
        self._is = f"version {number} as it was kept" if number else "as it is now"
        self.said.set_text(f"{self._is}, without passwords")
        if self.search.text():
            self._search_anew(self.search.text())

    def _failed(self, failure: Failure) -> None:
        self.said.set_text(f"cannot be read: {plain(sentence_of(failure))}")

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.text.toPlainText())

    def _search_anew(self, words: str) -> None:
        self.text.moveCursor(QTextCursor.MoveOperation.Start)
        if words:
            self._search_on()

    def _search_on(self) -> None:
        words = self.search.text()
        if not words:
            return
        back = QApplication.keyboardModifiers() & Qt.KeyboardModifier.ShiftModifier
        how = QTextDocument.FindFlag.FindBackward if back else QTextDocument.FindFlag(0)
        if not self.text.find(words, how):
            ends = QTextCursor.MoveOperation
            self.text.moveCursor(ends.End if back else ends.Start)
            found = self.text.find(words, how)
            self.said.set_text("" if found else f"“{words}” does not occur")
            return
        self.said.set_text(f"{self._is}, without passwords")

"""The Console tab: a VM's serial console, and the ways to its screen and keyboard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QProcess, Qt
from PySide6.QtGui import QCloseEvent, QHideEvent
from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from manager.core.actions import CTRL_ALT_DEL
from manager.core.errors import Failure, FailureCode
from manager.core.model import Vm, VmStatus
from manager.services.ports import Console
from manager.services.runtime import Runtime
from manager.ui.models.rows_model import plain
from manager.ui.terminal import LEAVE, Terminal
from manager.ui.theme import Look
from manager.ui.viewer import trouble, viewer_command
from manager.ui.views.details.closeup import CloseupTab, sentence_of
from manager.ui.views.parts import ElidedLabel, flat_button, text_label, tip

_UP = (VmStatus.RUNNING, VmStatus.PAUSED)


class ConsoleTab(CloseupTab):
    """One serial console. It is opened when asked for, and let go when it is not seen any more."""

    def __init__(
        self, runtime: Runtime, look: Look, act: Callable[..., object], *, own_window: bool = False
    ) -> None:
        super().__init__(runtime)
        self.setObjectName("panel")
        self._look = look
        self._act = act
        self._console: Console | None = None
        self.terminal = Terminal(look)
        self.terminal.typed.connect(self._typed)
        self.said = ElidedLabel(style="dim")
        self.connect_button = flat_button("Connect", on_click=self.connect_now)
        self.take_over_button = flat_button("Take over", on_click=lambda: self.connect_now(take_over=True))
        self.take_over_button.setToolTip(tip("Take the console from whoever has it open."))
        self.keys_button = flat_button("Ctrl+Alt+Del…", on_click=self._send_keys)
        self.viewer_button = flat_button("Viewer", on_click=self._open_viewer)
        self.window_button = flat_button("Own window", on_click=self._open_window)
        self.terminal.left.connect(lambda: self.keys_button.setFocus(Qt.FocusReason.OtherFocusReason))
        self._cover = text_label(style="dim", wrap=True)
        self._cover.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._cover)
        self._stack.addWidget(self.terminal)
        strip = QHBoxLayout()
        strip.setContentsMargins(12, 4, 8, 4)
        strip.addWidget(self.said, 1)
        for button in (
            self.connect_button,
            self.take_over_button,
            self.keys_button,
            self.viewer_button,
            self.window_button,
        ):
            strip.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(strip)
        layout.addWidget(self._stack, 1)
        self.window_button.setVisible(not own_window)  # in its place: else it would be a window for a moment
        self._idle("")

    @property
    def is_connected(self) -> bool:
        """Whether a console is open."""
        return self._console is not None

    def follow(self, vm: Vm) -> None:
        """Follow the state of this VM."""
        self.show_vm(vm.id)
        runs = vm.status in _UP
        self.keys_button.setEnabled(vm.status is VmStatus.RUNNING)
        why_not = self._no_viewer(vm)
        self.viewer_button.setEnabled(not why_not)
        self.viewer_button.setToolTip(tip(why_not or "Open its screen in a viewer of this desktop."))
        if self._console is None and not self.is_asking and not self.said.text():
            self._idle("" if runs else f"The VM is {vm.status.value.lower()}: it has no console now.")
        self.connect_button.setEnabled(runs and not self.is_asking)

    def vm_changed(self) -> None:
        """Another VM's console is not this one's."""
        self._let_go()
        self.terminal.clear()
        self._idle("")

    def connect_now(self, *_: object, take_over: bool = False) -> None:
        """Open the console."""
        if self.vm is None or self._console is not None or self.is_asking:
            return
        self.said.set_text("connecting…")
        self.connect_button.setEnabled(False)
        call = partial(self._runtime.closeup.open_console, self.vm, take_over=take_over)
        self.ask(call, self._opened, self._failed)

    def hideEvent(self, event: QHideEvent) -> None:
        """Let go of it: nobody reads it."""
        super().hideEvent(event)
        if self._console is not None:
            self._let_go()
            self._idle("Left.")

    # --- inside ------------------------------------------------------------------------------------

    def _opened(self, console: Console) -> None:
        if not self.isVisible():
            console.close()
            return
        self._console = console
        self._stack.setCurrentWidget(self.terminal)
        self.terminal.setFocus(Qt.FocusReason.OtherFocusReason)
        self.said.set_text(f"Serial console. All keys go to the guest; {LEAVE} leaves it.")
        self.connect_button.hide()
        self.take_over_button.hide()

        async def read() -> None:
            while data := await console.read():
                self.terminal.feed(data)
            if self._console is console:
                self._console = None
                self._ended(console.why_ended)

        self._asking = self._runtime.closeup.spawn(read(), "console")

    def _typed(self, data: bytes) -> None:
        if self._console is not None:
            self._console.write(data)

    def _failed(self, failure: Failure) -> None:
        self._idle(f"No console: {plain(sentence_of(failure))}")
        self.take_over_button.setVisible(failure.code in (FailureCode.OTHER, FailureCode.BUSY))

    def _ended(self, why: str) -> None:
        self.said.set_text(f"The console ended: {plain(why)}.")
        self.connect_button.show()
        self.connect_button.setEnabled(True)

    def _idle(self, text: str) -> None:
        """Nothing is open."""
        self.said.set_text(text)
        self._cover.setText("The guest's serial console. It is one reader's alone while it is open.")
        self._stack.setCurrentWidget(self._cover)
        self.connect_button.show()
        self.connect_button.setEnabled(True)
        self.take_over_button.hide()

    def _let_go(self) -> None:
        self.forget()
        if self._console is not None:
            self._console.close()
            self._console = None

    def _send_keys(self) -> None:
        if self.vm is not None:
            self._act(CTRL_ALT_DEL, self.vm, None)

    def _no_viewer(self, vm: Vm) -> str:
        """Why no viewer can be opened; empty if one can."""
        if not self._runtime.view.config.is_real:
            return "These VMs are simulated, or a dump's: there is no screen to open."
        if vm.status not in _UP:
            return "The VM does not run."
        if vm.config is not None and not vm.config.graphics:
            return "The VM has no graphics device."
        node = self._runtime.view.nodes.get(vm.owner) if vm.owner else None
        return trouble(node.uri if node else "", vm.config.displays if vm.config else ())

    def _open_viewer(self) -> None:
        row = self._runtime.view.vms.get(self.vm) if self.vm is not None else None
        node = self._runtime.view.nodes.get(row.owner) if row is not None and row.owner else None
        if row is None or node is None:
            return
        command = viewer_command(node.uri, row.id, row.config.displays if row.config else ())
        if command is None or not QProcess.startDetached(command[0], command[1:])[0]:
            self.said.set_text("The viewer could not be started.")

    def _open_window(self) -> None:
        row = self._runtime.view.vms.get(self.vm) if self.vm is not None else None
        if row is None:
            return
        was_open = self.is_connected
        self._let_go()
        self._idle("Its console is open in a window of its own." if was_open else "")
        ConsoleWindow(self._runtime, self._look, self._act, row, self.window()).show()


class ConsoleWindow(QWidget):
    """A console in a window of its own, which stays with its VM whatever is selected."""

    def __init__(
        self, runtime: Runtime, look: Look, act: Callable[..., object], vm: Vm, parent: QWidget
    ) -> None:
        super().__init__(parent, Qt.WindowType.Window)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(plain(f"{vm.name}: console — {runtime.view.config.name} — Muster"))
        self.tab = ConsoleTab(runtime, look, act, own_window=True)
        self.tab.follow(vm)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tab)
        self.resize(740, 470)

    def showEvent(self, event: object) -> None:
        """Connect: it was opened for that."""
        super().showEvent(event)  # type: ignore[arg-type]
        self.tab.connect_now()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Let go of the console with it."""
        self.tab.hide()
        super().closeEvent(event)

"""What tabs share that ask a VM's node: only while they are seen, and only the newest answer counts."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QWidget

from manager.core.errors import Failure, OperationError
from manager.core.ids import VmId
from manager.services.runtime import Runtime

T = TypeVar("T")


class CloseupTab(QWidget):
    """A tab about one VM. `look_again` is called when it is to be asked for; override it."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime
        self._asking: Any = None
        self.vm: VmId | None = None

    def show_vm(self, vm: VmId) -> None:
        """Be about this VM from now on."""
        if vm != self.vm:
            self.vm = vm
            self.vm_changed()
            if self.isVisible():
                self.look_again()

    def vm_changed(self) -> None:
        """It is about another VM: what is shown is not true any more."""

    def look_again(self) -> None:
        """Ask its node."""

    def ask(
        self,
        call: Callable[[], Coroutine[Any, Any, T]],
        take: Callable[[T], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """Make a call and wait for its answer; what was asked before is forgotten."""
        self.forget()

        async def wait() -> None:
            vm = self.vm
            try:
                answer = await call()
            except OperationError as error:
                if vm == self.vm:
                    failed(error.failure)
            else:
                if vm == self.vm:
                    take(answer)

        self._asking = self._runtime.closeup.spawn(wait(), type(self).__name__)

    def forget(self) -> None:
        """No answer is waited for any more."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    @property
    def is_asking(self) -> bool:
        """Whether an answer is to come."""
        return self._asking is not None and not self._asking.done()

    def showEvent(self, event: QShowEvent) -> None:
        """It is seen."""
        super().showEvent(event)
        if self.vm is not None:
            self.look_again()

    def hideEvent(self, event: QHideEvent) -> None:
        """It is not."""
        super().hideEvent(event)
        self.forget()


def sentence_of(failure: Failure) -> str:
    """A failure's words."""
    return failure.text or failure.code.value

"""A real guest that ignores its power button: what is said of it, what is offered, and what is left alone."""

from __future__ import annotations

import pytest

from manager.core import settling
from manager.core.actions import SHUT_DOWN
from manager.core.model import AgentState, VmStatus
from manager.core.operations import OperationState
from manager.core.reasons import ReasonCode
from manager.lab.lab import Lab
from manager.services.tasks import Tasks
from manager.ui.runner import Buttons, Runner
from tests.lab.support import qemu_pids
from tests.lab.test_product import GUEST_S, ended, known, muster, until, vm_named

pytestmark = pytest.mark.lab

PATIENCE_S = 15.0
"""Instead of three minutes; a guest that does answer is off in a second or two."""


async def test_a_guest_that_ignores_its_power_button_runs_on_and_is_asked_about(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SHUTDOWN_PATIENCE_S", PATIENCE_S)
    deaf, hears = "deaf-01", "hears-01"
    await lab.add_vm(deaf, "n1", ignores_acpi=True)
    await lab.add_vm(hears, "n1")
    for name in (deaf, hears):
        await lab.wait_ready(name, GUEST_S)
    notes: list[tuple[str, Buttons, str]] = []

    def note(text: str, buttons: Buttons, severity: str) -> None:
        notes.append((text, buttons, severity))

    tasks = Tasks("test")
    async with muster(lab.cluster_file) as runtime:
        # What the window does with the results, without a window: only dialogs need one.
        runner = Runner(None, None, tasks, note, lambda *_: None, lambda _: "")  # type: ignore[arg-type]
        ids = [(await known(runtime, name)).id for name in (deaf, hears)]
        await until(lambda: vm_named(runtime, deaf).config.agent is AgentState.CONNECTED)  # type: ignore[union-attr]
        before = await qemu_pids(lab)
        earlier = set(runtime.view.operations)
        begun_s = runtime.clock.now_s()

        runner.run(runtime, SHUT_DOWN, ids, unasked=True)
        await until(lambda: notes, PATIENCE_S + GUEST_S)

        assert runtime.clock.now_s() - begun_s >= PATIENCE_S
        asked = [o for o in runtime.view.operations.values() if o.id not in earlier]
        ends = {o.vm_name: o for o in asked if o.parent is not None}
        assert len(asked) == 3  # the batch and one for each of the two; nothing was added by itself
        assert ends[hears].state is OperationState.DONE
        assert ends[deaf].state is OperationState.FAILED
        reason = ends[deaf].reason
        assert reason is not None
        assert reason.code is ReasonCode.SHUTDOWN_IGNORED
        assert reason.text == "the guest did not shut down within 15 s; it is running on n1"
        assert reason.remedy == "Wait longer, ask the guest agent, or turn it off."

        assert vm_named(runtime, deaf).status is VmStatus.RUNNING
        assert (await lab.virsh("n1", "domstate", deaf)).strip() == "running"
        now = await qemu_pids(lab)
        assert now == {name: pid for name, pid in before.items() if name != hears}

        ((text, buttons, severity),) = notes
        assert text == f"1 off, {deaf} still running: the guest did not answer within 15 s."
        assert severity == "warning"
        assert [title for title, _ in buttons] == ["Wait on", "Ask the agent", "Turn off 1…"]

        earlier = set(runtime.view.operations)
        dict(buttons)["Ask the agent"]()
        await until(lambda: len(set(runtime.view.operations) - earlier) == 2)
        batch = next(o for o in runtime.view.operations.values() if o.id not in earlier and not o.parent)
        (end,) = await ended(runtime, batch.id)
        assert end.state is OperationState.DONE, end.reason
        assert (await lab.virsh("n1", "domstate", deaf)).strip() == "shut off"
    await tasks.close(0.2)

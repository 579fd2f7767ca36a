"""What happened on real hosts: a move's events in their order, also told in a later run."""

from __future__ import annotations

import pytest

from manager.core.chronicle import about_vm
from manager.core.model import VmStatus
from manager.core.operations import OperationState
from manager.core.reasons import ReasonCode
from manager.lab.lab import Lab
from manager.services.runtime import Runtime
from tests.lab.test_product import do, guest, known, muster, to, until, vm_named

pytestmark = pytest.mark.lab


def codes(runtime: Runtime, name: str) -> list[ReasonCode]:
    return [e.what.code for e in runtime.view.events.values() if e.vm_name == name]


async def test_the_events_of_a_real_migration_are_in_order_and_outlive_the_program(lab: Lab) -> None:
    async with muster(lab.cluster_file) as runtime:
        begun_s = runtime.clock.now_s()
        name = await guest(lab, "events-01", "n1")
        vm = await known(runtime, name)
        await until(lambda: ReasonCode.VM_AGENT_UP in codes(runtime, name))
        (end,) = await do(runtime, "vm.live_migrate", name, parameters=to("n2"))
        assert end.state is OperationState.DONE, end.reason
        await lab.virsh("n2", "suspend", name)  # by somebody else
        await until(lambda: vm_named(runtime, name).status is VmStatus.PAUSED)
        await lab.virsh("n2", "destroy", name)
        await until(lambda: vm_named(runtime, name).status is VmStatus.OFF)
        seen = codes(runtime, name)
        hosts = (ReasonCode.VM_AGENT_UP, ReasonCode.VM_AGENT_DOWN)  # come when they like
        assert [code for code in seen if code not in hosts] == [
            ReasonCode.VM_DEFINED,
            ReasonCode.VM_STARTED,
            ReasonCode.OPERATION_ASKED,
            ReasonCode.OPERATION_BEGUN,
            ReasonCode.VM_MOVED,
            ReasonCode.OPERATION_ENDED,
            ReasonCode.VM_PAUSED,
            ReasonCode.VM_STOPPED,
        ]
        events = about_vm(runtime.view.events.values(), vm.id, None)
        moved = next(e for e in events if e.what.code is ReasonCode.VM_MOVED)
        assert moved.text == "Moved from n1 to n2"
        assert moved.who == runtime.author
        assert next(e for e in events if e.what.code is ReasonCode.VM_PAUSED).who == ""
    async with muster(lab.cluster_file) as again:
        assert codes(again, name) == []
        await again.remember(begun_s)
        assert codes(again, name) == seen

"""Real hosts finish what a killed program asked for; the next one sees it through to its true end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manager.core.ids import VmId
from manager.core.migration.moves import MoveStep
from manager.core.model import VmStatus
from manager.core.operations import Operation, OperationState
from manager.lab.lab import Lab
from manager.services.runtime import Runtime
from tests.lab.hosts import add_guests, put, until_dirty
from tests.lab.test_faults_lab import command, runs_only_on
from tests.lab.test_product import known, muster, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

LARGE = "lost-large"
DIRTY_MIB = 400


@pytest.fixture
async def large(lab: Lab) -> AsyncIterator[str]:
    """A guest whose memory takes a while to save: all of it is in use and changes."""
    add_guests(lab, LARGE, dirty_mib=DIRTY_MIB)
    await put(lab, LARGE, "n1")
    await until_dirty(lab, LARGE, DIRTY_MIB)
    yield LARGE
    await put(lab, LARGE, "n1")
    await lab.virsh("n1", "destroy", LARGE)  # it would keep a processor busy


def newest(runtime: Runtime, vm: VmId) -> Operation:
    return [o for o in runtime.view.operations.values() if o.vm == vm][-1]


@pytest.mark.parametrize("action", ["quick", "save"])
async def test_killed_while_a_host_saves(lab: Lab, large: str, tmp_path: Path, action: str) -> None:
    """The host saves on; who follows takes over at once and finds it being saved."""
    words = ("vm", "migrate", large, "--type", "quick", "--to", "n2") if action == "quick" else ()
    words = words or ("vm", "save", large)
    with command(lab.cluster_file, "engine") as engine:
        assert engine.stderr is not None
        await asyncio.to_thread(engine.stderr.readline)  # it owns the queue now
        async with muster(lab.cluster_file) as runtime:
            assert not runtime.engine.is_owner
            vm = (await known(runtime, large)).id
            with command(lab.cluster_file, *words, "--no-wait") as asking:
                await asyncio.to_thread(asking.communicate, timeout=60)
            await until(lambda: runtime.view.vms[vm].status is VmStatus.PAUSED)  # no event says why
            engine.send_signal(signal.SIGKILL)
            engine.wait()
            await until(lambda: runtime.engine.is_owner)
            operation = newest(runtime, vm)
            assert not operation.is_over
            assert action == "save" or operation.step is MoveStep.SAVE
            await until(lambda: newest(runtime, vm).is_over, 90)
            assert newest(runtime, vm).state is OperationState.DONE, newest(runtime, vm).reason
            if action == "save":
                assert runtime.view.vms[vm].status is VmStatus.SAVED
                return
            assert runtime.view.vms[vm].owner == "n2"
    await runs_only_on(lab, large, "n2")
    assert not list(Path(lab.shared).glob(".muster/*.save"))

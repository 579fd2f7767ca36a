"""Change, search, sort, groups, pages, dialogs in turn: nothing stays. Longer: `packaging/bench soak`."""

from __future__ import annotations

import random

from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication

from manager.core.model import StatusCause, VmStatus
from tests.perf.soak import Restless, objects_of
from tests.ui.cluster_of import runtime_of
from tests.ui.conftest import Desk, OpenDesk

DEEDS = 60
STATES = (
    (VmStatus.RUNNING, StatusCause.USER),
    (VmStatus.PAUSED, StatusCause.USER),
    (VmStatus.CRASHED, StatusCause.CRASHED),
)


async def _restless_hours(desk: Desk, restless: Restless, chance: random.Random) -> int:
    """The same deeds each time; how many Qt objects there are afterwards."""
    for _ in range(DEEDS):
        for number in chance.sample(range(200), 10):
            desk.runtime.change(number, *chance.choice(STATES))
        restless.act()
        await desk.settle()
    restless.calm()
    await desk.settle()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    return objects_of(desk.window)


async def test_restless_work_leaves_no_objects_behind(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of(4, 200))
    first = Restless(desk.window)
    counts = [await _restless_hours(desk, first, random.Random(1))]
    assert len(first.done) == 12, "each deed at least once"
    for _ in range(3):
        counts.append(await _restless_hours(desk, Restless(desk.window), random.Random(1)))
    assert counts[3] <= counts[1] * 1.02, counts

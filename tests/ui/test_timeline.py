"""The timeline: a row per node, bars that grow, zoom, tooltips, keys; the moves that it shows."""

from __future__ import annotations

import itertools
import time

import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QHelpEvent, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QToolTip

from manager.core import units
from manager.core.ids import NodeId
from manager.core.model import MigrationLimits, RetryPolicy
from manager.ui.theme import Look
from manager.ui.views.queue_timeline import bars_of
from manager.ui.views.timeline import AXIS_PX, Bar, Timeline
from tests.ui.cluster_of import runtime_of
from tests.ui.conftest import OpenDesk
from tests.ui.moves_of import arrive, ask, check, fail, figures, move, others
from tests.ui.test_queue_pane import queue_of, settle

T = 1_790_000_000.0


def bar(key: str, row: str, start: float, end: float | None, **values: object) -> Bar:
    """A bar at seconds after T."""
    given: dict[str, object] = {
        "token": "running",
        "text": f"{key} → n2",
        "tip": f"{key}: {row} → n2",
        "group": "batch",
    }
    return Bar(
        key=key,
        row=row,
        start_s=T + start,
        end_s=None if end is None else T + end,
        **(given | values),  # type: ignore[arg-type]
    )


@pytest.fixture
def timeline(look: Look) -> Timeline:
    """Two nodes, four bars, one of which goes on."""
    made = Timeline(look, name="Moves")
    made.resize(900, 300)
    made.show()
    bars = [
        bar("a", "n1", 0, 60),
        bar("b", "n1", 30, 90),  # beside a: another lane
        bar("c", "n1", 100, None, token="accent", group="other"),
        bar("a", "n2", 0, 60, light=True),
    ]
    made.show_bars(("n1", "n2", "n3"), bars, T + 120)
    QApplication.processEvents()
    yield made  # type: ignore[misc]
    made.hide()
    made.deleteLater()


def middle(timeline: Timeline, key: str, *, light: bool = False) -> QPoint:
    found = timeline.point_of(key, light=light)
    assert found is not None
    return found.toPoint()


def test_every_node_has_a_row_and_no_bar_covers_another(timeline: Timeline) -> None:
    assert [row.name for row in timeline._rows] == ["n1", "n2", "n3"]
    areas = [timeline._area(timeline._rows[0], at) for at in range(3)]
    assert not areas[0].intersects(areas[1])
    assert areas[0].top() == areas[2].top()  # a has ended when c begins
    assert timeline._rows[0].height > timeline._rows[2].height
    light = timeline._area(timeline._rows[1], 0)
    assert light.top() > areas[1].bottom()


def test_all_of_it_fits_and_what_goes_on_grows(timeline: Timeline) -> None:
    start, end = timeline.span
    assert start <= T
    assert end >= T + 120
    before = timeline._area(timeline._rows[0], 2)
    timeline.show_now(T + 240)
    after = timeline._area(timeline._rows[0], 2)
    assert after.right() > before.right() - 1
    assert after.width() > before.width()
    assert timeline.span[1] >= T + 240  # it follows
    done = timeline._area(timeline._rows[0], 0)
    assert done.width() < before.width() * 4


def test_colours_are_those_of_the_result_in_light_and_dark(timeline: Timeline, look: Look) -> None:
    for theme in ("light", "dark"):
        look.choose(theme)
        picture = timeline.viewport().grab().toImage()
        for key, token in (("b", "running"), ("c", "accent")):
            at = timeline._area(timeline._rows[0], 1 if key == "b" else 2)
            colour = picture.pixelColor(int(at.right()) - 3, int(at.top()) + 2)
            assert colour.name() == look.tokens.colour(token).name(), (theme, key)
        empty = picture.pixelColor(timeline._names_px + 4, AXIS_PX + timeline._rows[2].top + 4)
        assert empty.name() == look.tokens.panel.name()


def test_a_tooltip_tells_what_a_bar_is_of(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(QToolTip, "showText", lambda at, text, widget: shown.append(text))
    at = middle(timeline, "b")
    timeline.viewportEvent(QHelpEvent(QEvent.Type.ToolTip, at, timeline.mapToGlobal(at)))
    assert "b: n1 → n2" in shown[0]
    assert timeline.bar_at(QPoint(at.x(), 5)) is None


def test_what_a_host_calls_its_vms_is_not_read_as_markup(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(QToolTip, "showText", lambda at, text, widget: shown.append(text))
    timeline.show_bars(("n1",), [bar("x", "n1", 0, 60, tip="<img src=x>")], T + 60)
    at = middle(timeline, "x")
    timeline.viewportEvent(QHelpEvent(QEvent.Type.ToolTip, at, timeline.mapToGlobal(at)))
    assert "<img" not in shown[0]
    assert "&lt;img" in shown[0]


def test_keys_go_from_bar_to_bar_zoom_and_open(timeline: Timeline) -> None:
    chosen: list[str] = []
    opened: list[str] = []
    timeline.chosen.connect(chosen.append)
    timeline.opened.connect(opened.append)
    timeline.setFocus()
    QTest.keyClick(timeline, Qt.Key.Key_Right)
    QTest.keyClick(timeline, Qt.Key.Key_Right)
    assert chosen == ["a", "b"]
    assert timeline.accessibleName() == "Moves: b: n1 → n2"
    QTest.keyClick(timeline, Qt.Key.Key_Down)
    assert timeline.current is not None
    assert (timeline.current.key, timeline.current.row) == ("a", "n2")
    QTest.keyClick(timeline, Qt.Key.Key_Down)  # n3 has none
    assert timeline.current.row == "n2"
    QTest.keyClick(timeline, Qt.Key.Key_Up)
    QTest.keyClick(timeline, Qt.Key.Key_Return)
    assert opened == ["a"]
    start, end = timeline.span
    QTest.keyClick(timeline, Qt.Key.Key_Plus)
    assert timeline.span[1] - timeline.span[0] < end - start
    QTest.keyClick(timeline, Qt.Key.Key_Minus)
    assert timeline.span[1] - timeline.span[0] == pytest.approx(end - start)
    QTest.keyClick(timeline, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    assert timeline.span[0] > start + 1
    QTest.keyClick(timeline, Qt.Key.Key_F)
    assert timeline.span == pytest.approx((start, end))


def test_the_wheel_zooms_where_the_pointer_is(timeline: Timeline) -> None:
    at = QPointF(500, 60)
    under = timeline._time(at.x())
    before = timeline.span

    def turn(delta: int, modifier: Qt.KeyboardModifier) -> None:
        event = QWheelEvent(
            at,
            timeline.viewport().mapToGlobal(at),
            QPoint(),
            QPoint(0, delta),
            Qt.MouseButton.NoButton,
            modifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        timeline.wheelEvent(event)

    turn(120, Qt.KeyboardModifier.ControlModifier)
    assert timeline.span[1] - timeline.span[0] < before[1] - before[0]
    assert timeline._time(at.x()) == pytest.approx(under, abs=0.01)
    now = timeline.span
    turn(120, Qt.KeyboardModifier.ShiftModifier)
    assert timeline.span[0] < now[0]


def test_the_time_is_pulled_with_the_mouse(timeline: Timeline) -> None:
    port = timeline.viewport()
    start = timeline.span[0]
    held = timeline._time(600)
    QTest.mousePress(port, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(600, 150))
    QTest.mouseMove(port, QPoint(700, 150))
    QTest.mouseRelease(port, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(700, 150))
    assert timeline.span[0] < start
    assert timeline._time(700) == pytest.approx(held, abs=0.5)


def test_a_batch_is_zoomed_to_and_the_others_are_faint(timeline: Timeline, look: Look) -> None:
    timeline.show_group("other")
    start, end = timeline.span
    assert T + 95 < start <= T + 100
    assert end < T + 125
    timeline.zoom_to(T, T + 120)
    picture = timeline.viewport().grab().toImage()
    at = timeline._area(timeline._rows[0], 1)
    colour = picture.pixelColor(int(at.right()) - 3, int(at.top()) + 2)
    assert colour.name() != look.tokens.running.name()
    timeline.show_group("")
    assert timeline.span[0] <= T


def test_rounds_of_the_axis_are_round_and_apart(timeline: Timeline) -> None:
    for length in (10, 120, 3600, 86400, 30 * 86400):
        timeline.zoom_to(T, T + length)
        ticks, step = timeline._ticks()
        assert 2 <= len(ticks) <= 14, length
        assert all(round(b - a) == step for a, b in itertools.pairwise(ticks))
        assert timeline._x(ticks[1]) - timeline._x(ticks[0]) >= 78


def test_a_thousand_bars_are_fluid(look: Look) -> None:
    made = Timeline(look, name="Moves")
    made.resize(1400, 800)
    made.show()
    bars = [
        bar(f"vm-{n}", f"n{n % 16}", n * 3.0, n * 3.0 + 40, light=bool(light))
        for n in range(1000)
        for light in (0, 1)
    ]
    nodes = tuple(f"n{n}" for n in range(16))
    begun = time.thread_time()
    made.show_bars(nodes, bars, T + 4000)
    packed_s = time.thread_time() - begun
    spent = []
    for _ in range(5):
        begun = time.thread_time()
        made.viewport().grab()
        spent.append(time.thread_time() - begun)
        made._pan(0.01)
    made.hide()
    made.deleteLater()
    assert packed_s < 0.05, packed_s
    assert min(spent) < 0.05, spent


# --- of moves ----------------------------------------------------------------------------------


async def test_moves_are_bars_out_of_their_source_and_into_their_target(open_desk: OpenDesk) -> None:
    limits = MigrationLimits(retry=RetryPolicy(times=0))
    desk = await open_desk(runtime_of(3, 9, migration=limits))
    runtime = desk.runtime
    pane = queue_of(desk)
    batch = ask(runtime, 0, 3, 6, target=NodeId("n2"))
    check(runtime)
    figures(runtime, 0, 0.5)
    running = [n for n in (0, 3, 6) if move(runtime, n).started_s is not None]
    waiting = next(n for n in (0, 3, 6) if n not in running)
    assert bars_of(runtime.view, move(runtime, waiting)) == []  # nothing of it has begun
    arrive(runtime, running[0])
    fail(runtime, running[1])
    await settle(desk)
    pane.show_tab("timeline")
    await desk.settle()
    shown = {(b.key, b.row, b.light): b for b in pane.timeline.timeline.bars}
    done, failed = move(runtime, running[0]), move(runtime, running[1])
    assert shown[done.id, "n1", False].token == "running"
    assert shown[done.id, "n1", False].text == f"{done.vm_name} → n2"
    assert shown[done.id, "n2", True].text == f"{done.vm_name} ← n1"
    assert shown[done.id, "n1", False].end_s == done.ended_s
    assert shown[failed.id, "n1", False].token == "crashed"
    assert "Cannot get interface MTU" in shown[failed.id, "n1", False].tip
    tip = shown[done.id, "n1", False].tip
    assert done.started_s is not None
    assert units.time_text(done.started_s) in tip
    assert "asked by adm@here" in tip
    assert [row.name for row in pane.timeline.timeline._rows] == ["n1", "n2", "n3"]
    assert pane.timeline.batch.count() == 2
    pane.show_batch(str(batch))
    assert pane.timeline.batch.currentData() == str(batch)
    start, end = pane.timeline.timeline.span
    assert start < done.started_s < end


async def test_a_bar_opens_the_details_of_its_move(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    ask(desk.runtime, 0, target=NodeId("n2"))
    check(desk.runtime)
    await settle(desk)
    pane.show_tab("timeline")
    await desk.settle()
    pane.timeline.timeline.opened.emit(move(desk.runtime, 0).id)
    await desk.settle()
    assert pane.tab == "queue"
    assert pane.detail.key == move(desk.runtime, 0).id
    assert pane.detail.isVisible()


async def test_moves_of_others_are_there_too(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    others(desk.runtime, 4, "migration")
    others(desk.runtime, 5, "backup")
    await settle(desk)
    pane.show_tab("timeline")
    await desk.settle()
    assert [(b.row, b.token, b.end_s) for b in pane.timeline.timeline.bars] == [("n2", "dim", None)]


async def test_a_hidden_timeline_does_no_work(open_desk: OpenDesk) -> None:
    desk = await open_desk()
    pane = queue_of(desk)
    pane.show_tab("timeline")
    await desk.settle()
    assert pane.timeline._grow.isActive()
    pane.show_tab("queue")
    await desk.settle()
    assert not pane.timeline._grow.isActive()
    ask(desk.runtime, 0)
    check(desk.runtime)
    await desk.settle()
    assert not pane.timeline._later.isActive()
    assert pane.timeline.timeline.bars == []

"""Bridge, heartbeat, theme, tally: the parts that everything in the window stands on."""

from __future__ import annotations

import json
import time
import tomllib
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from manager.core.changes import ChangeSet
from manager.core.ids import Kind
from manager.core.model import StatusCause, VmStatus
from manager.services.event_log import EventLog
from manager.ui import theme
from manager.ui.bridge import INTERVAL_MS, Bridge
from manager.ui.dialogs.connect import node_name
from manager.ui.heartbeat import Heartbeat
from manager.ui.tally import Tally
from manager.ui.theme import Look, Sizes, Tokens
from manager.ui.wording import sentence
from tests.ui.cluster_of import runtime_of, vm_config, vm_id


def test_changes_go_out_together_at_most_ten_times_a_second(qtbot: QtBot) -> None:
    runtime = runtime_of(2, 8)
    bridge = Bridge(runtime)  # type: ignore[arg-type]
    seen: list[tuple[float, ChangeSet]] = []
    bridge.changed.connect(lambda changes: seen.append((time.monotonic(), changes)))
    end = time.monotonic() + 0.55
    count = 0
    while time.monotonic() < end:
        runtime.change(count % 8, VmStatus.PAUSED if count // 8 % 2 else VmStatus.RUNNING, StatusCause.USER)
        count += 1
        QApplication.processEvents()
    qtbot.waitUntil(lambda: not bridge._timer.isActive())
    gaps = [b[0] - a[0] for a, b in pairwise(seen)]
    assert count > 50
    assert 3 <= len(seen) <= 8
    assert min(gaps) > INTERVAL_MS / 1000 * 0.8
    assert set().union(*(c[Kind.VM].updated for _, c in seen)) == {vm_id(n) for n in range(8)}
    bridge.close()
    runtime.change(0, VmStatus.CRASHED)
    assert not bridge._timer.isActive()


def test_the_heartbeat_measures_a_real_block_and_writes_it_down(qtbot: QtBot, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.json")
    heartbeat = Heartbeat(log)
    heartbeat.start()
    qtbot.wait(100)
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        pass  # what the window must never do
    qtbot.wait(60)
    heartbeat.stop()
    log.close()
    records = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    assert records[-1]["event"] == "Heartbeat"
    assert records[-1]["final"] is True
    assert 200 <= records[-1]["longest_gap_ms"] < 2000


@pytest.mark.parametrize("name", ["light", "dark"])
def test_every_token_is_there_in_both_themes(name: str) -> None:
    found = theme.tokens(name)
    assert all(found.colour(f.name).isValid() for f in fields(Tokens))
    assert all(getattr(theme.sizes(), f.name) > 0 for f in fields(Sizes))
    with (theme.RESOURCES / "tokens.toml").open("rb") as file:
        assert set(tomllib.load(file)[name]) == {f.name for f in fields(Tokens)}


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_can_be_read_on_every_ground(name: str) -> None:
    """WCAG's contrast: 4.5 for text, 3 for what is large, dim or a shape."""
    t = theme.tokens(name)

    def luminance(token: str) -> float:
        def part(value: float) -> float:
            return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4

        c = t.colour(token)
        return 0.2126 * part(c.redF()) + 0.7152 * part(c.greenF()) + 0.0722 * part(c.blueF())

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for ground in ("panel", "window", "selection", "hover", "mark"):
        assert contrast("text", ground) >= 7
        assert contrast("dim", ground) >= 4
    for state in ("running", "off", "saved", "paused", "crashed", "unknown"):
        assert contrast(state, "panel") >= 3


def test_the_font_is_one_of_ours_with_figures_of_equal_width(qapp: QApplication) -> None:
    assert theme.family() in theme.FAMILIES
    from PySide6.QtGui import QFontMetricsF

    metrics = QFontMetricsF(theme.font())
    assert len({round(metrics.horizontalAdvance(d * 4), 2) for d in "0123456789"}) == 1


def test_no_colour_stands_in_code() -> None:
    import re

    allowed = {"connect.py"}  # the bands' colours are a cluster's data
    for path in Path(theme.__file__).parent.rglob("*.py"):
        if path.name not in allowed:
            assert not re.search(r"#[0-9a-fA-F]{6}\b", path.read_text(encoding="utf-8")), path.name


def test_the_theme_switches_at_once(qapp: QApplication) -> None:
    look = Look(qapp, "light")
    changed: list[int] = []
    look.changed.connect(lambda: changed.append(1))
    look.choose("dark")
    assert changed == [1]
    assert look.is_dark
    assert qapp.palette().window().color() == look.tokens.window
    look.choose("light")
    assert qapp.palette().window().color() == look.tokens.window


def test_the_tally_follows_changes_as_if_counted_anew() -> None:
    bad = vm_config(3, host_devices=("PCI 0000:3b:00.0",))
    runtime = runtime_of(3, 12, off=frozenset({5}), configs={3: bad})
    tally = Tally(runtime.view)
    runtime.subscribe(tally.take)
    runtime.change(0, VmStatus.CRASHED, StatusCause.CRASHED)
    runtime.change(1, VmStatus.PAUSED, StatusCause.IO_ERROR)
    runtime.change(2, VmStatus.OFF, StatusCause.SHUT_DOWN)
    fresh = Tally(runtime.view)
    for counts in (tally, fresh):
        counts.work()
    assert +tally.statuses == +fresh.statuses
    assert tally.statuses[VmStatus.OFF] == 2
    assert tally.attention == fresh.attention == {vm_id(0), vm_id(1)}
    assert tally.unmovable == fresh.unmovable == {vm_id(3)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("already off", "Already off."),
        ("n1 cannot log in to n2", "n1 cannot log in to n2."),
        ("web-01 is Running on n1", "web-01 is Running on n1."),
        ("done!", "Done!"),
        ("  ", ""),
    ],
)
def test_a_sentence_changes_no_name(text: str, said: str) -> None:
    assert sentence(text) == said


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("qemu+ssh://root@n1.example.org/system", "n1"),
        ("qemu+ssh://root@n1:22/system?keyfile=/k", "n1"),
        ("qemu+ssh://root@10.20.0.7/system", "10.20.0.7"),
        ("qemu+tls://[fd00::7]/system", "fd00::7"),
        ("test:///default", "node"),
    ],
)
def test_a_node_is_called_after_its_host_or_its_address(uri: str, name: str) -> None:
    assert node_name(uri, set()) == name
    assert node_name(uri, {name}) == f"{name}-2"

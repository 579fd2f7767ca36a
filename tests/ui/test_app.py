"""The whole window as a program: a picture of it, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PySide6.QtGui import QImage

from manager.ui import display
from tests.e2e.screen import Screen

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def environment(tmp_path: Path) -> dict[str, str]:
    """No display, and folders of its own."""
    made = dict(os.environ, QT_QPA_PLATFORM="offscreen", MUSTER_HOME=str(tmp_path / "home"))
    made.pop("DISPLAY", None)
    return made


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """The program, as a user would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "manager", *arguments],
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_of_the_demo(tmp_path: Path, theme: str) -> None:
    path = tmp_path / "window.png"
    program = start(
        tmp_path, "--demo", "2x6", "gui", "--theme", theme, "--size", "1024x700", "--screenshot", str(path)
    )
    _, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 0, errors
    assert errors == ""
    image = QImage(str(path))
    assert (image.width(), image.height()) == (1024, 700)
    colours = {image.pixel(x, y) for x in range(0, 1024, 8) for y in range(0, 700, 8)}
    assert len(colours) > 20
    middle = image.pixelColor(500, 500).lightness()
    assert middle > 200 if theme == "light" else middle < 60


def test_a_picture_has_loads(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    program = start(
        tmp_path, "--demo", "2x6", "--log-json", str(log), "gui", "--page", "roles",
        "--screenshot", str(tmp_path / "window.png"),
    )  # fmt: skip
    _, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 0, errors
    samples = [
        r["data"] for r in map(json.loads, log.read_text().splitlines()) if r["event"] == "NodeSampled"
    ]
    told = {s["node"] for s in samples if s["load"]["cpu_percent"] is not None}
    assert len(told) == 2, samples  # CPU use is the difference of two


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "window.png"
    program = start(tmp_path, "--demo", "1x1", "gui", "--screenshot", str(path))
    _, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 1
    assert errors == f"{path}: the picture cannot be written.\n"


def test_without_a_display_it_says_so_instead_of_aborting(tmp_path: Path) -> None:
    told = without_display(tmp_path)
    assert told.returncode == 2
    assert "there is no display here (neither" in told.stderr
    assert "muster gui --screenshot FILE" in told.stderr


def without_display(tmp_path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A run where these variables are all that tells of a display."""
    bare = environment(tmp_path)
    for name in ("QT_QPA_PLATFORM", "WAYLAND_DISPLAY"):
        bare.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "manager", *words],
        cwd=ROOT,
        env=bare | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize(
    "variables",
    [
        {"DISPLAY": ":4711"},
        {"DISPLAY": "127.0.0.1:4711"},
        {"DISPLAY": "no display"},
        {"WAYLAND_DISPLAY": "wayland-4711", "XDG_RUNTIME_DIR": "/nowhere"},
        {"WAYLAND_DISPLAY": "/nowhere/wayland", "DISPLAY": ":4711"},
        {"DISPLAY": ":4711", "QT_QPA_PLATFORM": "xcb"},
    ],
    ids=["x", "tcp", "nonsense", "wayland", "both", "asked for"],
)
def test_a_dead_display_is_told_as_none_is(tmp_path: Path, variables: dict[str, str]) -> None:
    told = without_display(tmp_path, **variables)
    assert told.returncode == 2
    assert "there is no display here" in told.stderr
    assert "not answer" in told.stderr
    assert variables.get("DISPLAY", "wayland-4711") in told.stderr
    assert "muster gui --screenshot FILE" in told.stderr
    assert "Aborted" not in told.stderr
    assert "qt." not in told.stderr


def test_a_display_that_hangs_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with socket.socket() as hangs:
        hangs.bind(("127.0.0.1", 0))
        number = hangs.getsockname()[1] - 6000
        hangs.listen()
        begun = time.monotonic()
        told = without_display(tmp_path, DISPLAY=f"127.0.0.1:{number}")
        assert time.monotonic() - begun < PATIENCE_S / 4
    assert told.returncode == 2
    assert "not answer" in told.stderr


def test_a_picture_needs_no_display_that_answers(tmp_path: Path) -> None:
    path = tmp_path / "window.png"
    told = without_display(tmp_path, "--demo", "1x1", "gui", "--screenshot", str(path), DISPLAY=":4711")
    assert told.returncode == 0, told.stderr
    assert path.stat().st_size > 1000


def test_a_display_that_answers_is_taken() -> None:
    screen = Screen()
    try:
        assert display.why_none({"DISPLAY": screen.display}) == ""
        assert display.why_none({"DISPLAY": screen.display, "WAYLAND_DISPLAY": "/nowhere"}) == ""
    finally:
        screen.close()
    assert display.why_none({"QT_QPA_PLATFORM": "offscreen"}) == ""


def test_it_ends_in_time_and_tells_its_longest_gap(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    program = start(tmp_path, "--log-json", str(log), "--demo", "2x6", "gui")
    end = time.monotonic() + PATIENCE_S
    while not (log.exists() and '"RowsShown"' in log.read_text()):
        assert program.poll() is None, program.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)  # another process: there is no signal to wait for
    begun = time.monotonic()
    program.send_signal(signal.SIGTERM)
    _, errors = program.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - begun < 2
    assert program.returncode == 0
    assert errors == ""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    beats = [record for record in records if record["event"] == "Heartbeat"]
    assert beats[-1]["final"] is True
    assert beats[-1]["longest_gap_ms"] < 1000

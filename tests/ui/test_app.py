"""The whole window as a program: a picture of it, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PySide6.QtGui import QImage

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


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "window.png"
    program = start(tmp_path, "--demo", "1x1", "gui", "--screenshot", str(path))
    _, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 1
    assert errors == f"{path}: the picture cannot be written.\n"


def test_without_a_display_it_says_so_instead_of_aborting(tmp_path: Path) -> None:
    bare = environment(tmp_path)
    for name in ("QT_QPA_PLATFORM", "WAYLAND_DISPLAY"):
        bare.pop(name, None)
    told = subprocess.run(
        [sys.executable, "-m", "manager"],
        cwd=ROOT,
        env=bare,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert told.returncode == 2
    assert "there is no display here" in told.stderr
    assert "muster gui --screenshot FILE" in told.stderr


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

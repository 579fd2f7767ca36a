"""No text is cut off: at the usual scale and at 150 %, and with translations that are 40 % longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.screen import Screen

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("longer", ["1.0", "1.4"])
@pytest.mark.parametrize("scale", ["1", "1.5"])
def test_every_text_of_the_window_and_its_dialogs_fits(scale: str, longer: str) -> None:
    screen = Screen("2160x1440x24")  # 1440 x 960 at 150 %
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "tests.ui.fits", longer],
            cwd=ROOT,
            env={**screen.env, "QT_SCALE_FACTOR": scale},
            capture_output=True,
            text=True,
            timeout=100,
        )
    finally:
        screen.close()
    assert ran.stdout.split("\n") == ["everything fits", ""], ran.stderr
    assert ran.returncode == 0

"""The guards of ``tests/conftest.py`` seen failing: what is left out, logged or left behind is no pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PASSES = "def test_it(): pass\n"


def run(tmp_path: Path, test: str, *options: str, least: int = 1) -> tuple[int, list[str]]:
    """Run one lab test under our conftest; the exit code, and what was printed from the summary on."""
    lab = tmp_path / "tests" / "lab"
    lab.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "tests" / "conftest.py", lab.parent)
    (lab / "MINIMUM").write_text(f"{least}\n")
    (lab / "test_it.py").write_text(test)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=tmp_path,
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.returncode, ran.stdout.splitlines()


def test_the_last_lines_are_the_count_of_lab_tests_and_the_closing_line(tmp_path: Path) -> None:
    code, lines = run(tmp_path, PASSES, "--complete")
    assert code == 0
    assert lines[-2] == "lab tests run: 1"
    assert lines[-1].startswith("1 passed in ")


@pytest.mark.parametrize(
    ("test", "options", "least", "complaint"),
    [
        (
            "import pytest\ndef test_it(): pytest.skip('no KVM')\n" + PASSES.replace("it", "b"),
            [],
            1,
            "no KVM",
        ),
        ("import pytest\npytest.skip('no lab', allow_module_level=True)", [], 0, "no lab"),
        (
            "import pytest\n@pytest.mark.xfail\ndef test_it(): assert 0\ndef test_b(): pass",
            [],
            1,
            "expected to",
        ),
        (PASSES + "def test_b(): pass", ["-k", "not test_b"], 1, "deselected: tests/lab/test_it.py::test_b"),
        (PASSES, [], 2, "only 1 lab tests ran; there are at least 2"),
    ],
)
def test_what_is_left_out_is_a_failure(
    tmp_path: Path, test: str, options: list[str], least: int, complaint: str
) -> None:
    code, lines = run(tmp_path, test, "--complete", *options, least=least)
    assert code != 0
    assert any(line.startswith("NOT COMPLETE: ") and complaint in line for line in lines)


@pytest.mark.parametrize(
    ("test", "complaint"),
    [
        ("import logging\ndef test_it(): logging.getLogger('x').warning('oh')", "WARNING x: oh"),
        ("import warnings\ndef test_it(): warnings.warn('old')", "UserWarning: old"),
        (
            "import threading\nhold = threading.Event()\ndef test_it():\n"
            "    threading.Thread(target=hold.wait, args=(20,), name='stray', daemon=True).start()",
            "stray",
        ),
    ],
)
def test_warnings_log_records_and_threads_fail_a_test(tmp_path: Path, test: str, complaint: str) -> None:
    code, lines = run(tmp_path, test)
    assert code == 1
    assert any(complaint in line for line in lines)

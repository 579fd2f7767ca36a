"""The scripts of ``packaging/``, run in a copy of the checkout with stand-ins for what they call."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = [
    "awk",
    "bash",
    "cat",
    "dirname",
    "env",
    "flock",
    "python3",
    "readlink",
    "rm",
    "sed",
    "sha256sum",
    "tr",
]

RECORDER = """#!/bin/bash
printf '%s' "$(basename "$0")" >>"$LOG"
printf ' %q' "$@" >>"$LOG"
printf ' platform=%s\\n' "$QT_QPA_PLATFORM" >>"$LOG"
case "$*" in
    *"lab up"*) printf '{"cluster_file": "/lab/a b.toml"}' ;;
    *" gui"*) [[ -z $HANG ]] || exec sleep 60 ;;
esac
exit "${CODE:-0}"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose `muster` only writes down how it was called, and that says it is set up."""
    here = tmp_path / "checkout"
    shutil.copytree(ROOT / "packaging", here / "packaging")
    shutil.copy(ROOT / "pyproject.toml", here)
    (here / ".venv" / "bin").mkdir(parents=True)
    (here / ".venv" / "bin" / "python").symlink_to(shutil.which("python3") or "")
    for recorder in (here / "packaging" / "setup", here / ".venv" / "bin" / "muster"):
        recorder.write_text(RECORDER)
        recorder.chmod(0o755)
    return here


def environment(checkout: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LOG": str(checkout / "log"), "HOME": str(checkout), **more}


def run(checkout: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "packaging" / "run", *words],
        env=environment(checkout, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def log(checkout: Path) -> list[str]:
    path = checkout / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_arguments_and_the_exit_code_go_through(checkout: Path) -> None:
    ran = run(checkout, "vm", "start", "a b", "--json", CODE="0")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert log(checkout) == ["setup --no-window platform=", "muster vm start a\\ b --json platform="]
    (checkout / "packaging" / "setup").write_text("#!/bin/bash\n")
    assert run(checkout, "vm", "list", CODE="3").returncode == 3


def test_the_window_needs_a_display_and_says_what_works_without(checkout: Path) -> None:
    ran = run(checkout, "--demo", "4x40")
    assert ran.returncode == 2
    assert "no display" in ran.stderr
    assert "--screenshot FILE" in ran.stderr
    assert "vm list" in ran.stderr
    assert log(checkout) == []  # nothing is installed for a window that cannot be
    assert run(checkout, "--demo", "4x40", DISPLAY=":7").returncode == 0
    assert log(checkout) == ["setup '' platform=", "muster --demo 4x40 platform="]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--screenshot x.png", "gui --screenshot x.png"),
        ("gui --theme dark --screenshot=x.png", "gui --theme dark --screenshot=x.png"),
        ("--demo 4x40 --theme dark --screenshot x.png", "--demo 4x40 gui --theme dark --screenshot x.png"),
    ],
)
def test_a_picture_needs_none(checkout: Path, words: str, said: str) -> None:
    assert run(checkout, *words.split()).returncode == 0
    assert log(checkout)[-1] == f"muster {said} platform=offscreen"


def test_a_failed_set_up_ends_it(checkout: Path) -> None:
    assert run(checkout, "vm", "list", CODE="1").returncode == 1
    assert len(log(checkout)) == 1


def lab_calls(checkout: Path) -> list[str]:
    folders = {word for line in log(checkout) for word in line.split() if word.startswith("/tmp/muster-lab-")}
    (folder,) = folders
    assert not Path(folder).exists()
    return [line.replace(folder, "LAB") for line in log(checkout)[1:]]


def test_the_lab_is_there_for_the_window_and_gone_afterwards(checkout: Path) -> None:
    assert run(checkout, "lab", "--nodes", "2", "--theme", "dark", DISPLAY=":7").returncode == 0
    assert lab_calls(checkout) == [
        "muster lab up --install --dir LAB --json --nodes 2 platform=",
        "muster --cluster /lab/a\\ b.toml gui --theme dark platform=",
        "muster lab down --dir LAB platform=",
    ]
    (checkout / "log").unlink()
    assert run(checkout, "lab", "status").returncode == 0  # the lab's own commands go through
    assert log(checkout)[1:] == ["muster lab status platform="]


def test_a_lab_that_does_not_come_up_opens_no_window_and_leaves_nothing(checkout: Path) -> None:
    (checkout / "packaging" / "setup").write_text('#!/bin/bash\necho setup >>"$LOG"\n')
    assert run(checkout, "lab", DISPLAY=":7", CODE="2").returncode == 2
    assert [line.split(" --")[0] for line in lab_calls(checkout)] == ["muster lab up", "muster lab down"]


def test_the_lab_goes_even_if_the_script_is_told_to_end(checkout: Path) -> None:
    with subprocess.Popen(
        [checkout / "packaging" / "run", "lab"],
        env=environment(checkout, DISPLAY=":7", HANG="1"),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as script:
        deadline = time.monotonic() + 20
        while not (seen := log(checkout)) or " gui" not in seen[-1]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(script.pid, signal.SIGTERM)
        assert script.wait(20) == 130
    assert lab_calls(checkout)[-1] == "muster lab down --dir LAB platform="


# --- setup -----------------------------------------------------------------------------------


def packages(*purposes: str) -> dict[str, list[str]]:
    """The list, by package manager."""
    table = [
        line.split()
        for line in (ROOT / "packaging" / "os-packages.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert {len(row) for row in table} == {5}
    assert {row[0] for row in table} == {"python", "window", "build", "test"}
    wanted = [row for purpose in purposes for row in table if row[0] == purpose]
    managers = ("apt-get", "dnf", "zypper", "pacman")
    return {name: list(dict.fromkeys(row[1 + i] for row in wanted)) for i, name in enumerate(managers)}


def bare_machine(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A checkout on a machine that has a package manager which says that nothing is there."""
    checkout = tmp_path / "bare"
    shutil.copytree(ROOT / "packaging", checkout / "packaging")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool) or "")
    (tools / "pacman").write_text("#!/bin/bash\nexit 127\n")
    (tools / "pacman").chmod(0o755)
    return checkout, {"PATH": str(tools)}


def test_what_is_missing_is_said_for_each_package_manager_at_once(tmp_path: Path) -> None:
    checkout, env = bare_machine(tmp_path)
    ran = subprocess.run(
        [checkout / "packaging" / "setup", "--test"],
        env=env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stdout == ""
    said = {}
    for line in ran.stderr.splitlines():
        if command := re.fullmatch(r"  \S.*? {2,}(\S+) (?:install|-S)(?: --\S+)* (.*)", line):
            said[command[1]] = command[2].split()
    least, most = packages("window", "test", "build"), packages("window", "test", "python", "build")
    assert said.keys() == least.keys()
    for manager, words in said.items():
        # Whether an interpreter is missing as well depends on the machine under this test.
        assert sorted(words) in (sorted(least[manager]), sorted(most[manager]))
    assert not (checkout / ".venv").exists()


def test_a_wrong_argument_is_refused_with_the_usage(tmp_path: Path) -> None:
    checkout, env = bare_machine(tmp_path)
    ran = subprocess.run(
        [checkout / "packaging" / "setup", "--everything"],
        env=env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "packaging/setup --no-window" in ran.stderr


def test_where_all_is_there_setup_says_and_changes_nothing() -> None:
    def state() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (ROOT / ".venv").iterdir()}

    command = [ROOT / "packaging" / "setup", "--test"]
    subprocess.run(command, capture_output=True, timeout=300, check=True)
    before = state()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert state() == before


def test_the_pictures_of_the_manual_can_be_made(tmp_path: Path) -> None:
    ran = subprocess.run(
        [ROOT / "packaging" / "screenshots", tmp_path, "empty-overview", "palette"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    wanted = {
        f"{scene}-{theme}.png" for scene in ("empty-overview", "palette") for theme in ("light", "dark")
    }
    assert made.keys() == wanted
    assert len(set(made.values())) == len(made), "each shows something else"

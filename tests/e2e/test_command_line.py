"""``muster`` as a process: questions, bars, Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.terminal import in_background, on_terminal, wait_for_record

DEMO = ("--demo", "2x24")


def running() -> str:
    """A VM of the demo that runs and can be moved, in a few seconds."""
    argv = [sys.executable, "-m", "manager", *DEMO, "vm", "list", "--json"]
    rows = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout)
    able = [r for r in rows if r["status"] == "Running" and r["movable"] and r["owner"] == "oslo-01"]
    return str(min(able, key=lambda row: abs(row["memory_mib"] - 4096))["name"])


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("\x04", 1), ("y\n", 0)])
def test_what_destroys_asks_once_on_a_terminal(answer: str, code: int) -> None:
    with on_terminal(*DEMO, "vm", "turn-off", running(), "--json") as terminal:
        terminal.until("[y/N]")
        terminal.type(answer)
        assert terminal.end() == code
    assert "Turn off " in terminal.shown
    assert "This is a power cut: unsaved data in the guests is lost." in terminal.shown
    assert terminal.shown.count("[y/N]") == 1
    if code:
        assert terminal.out == b""
        assert "Nothing was done." in terminal.shown
    else:
        assert json.loads(terminal.out)[0]["result"] == "done"


def test_yes_does_not_ask_and_neither_does_what_is_harmless() -> None:
    name = running()
    for argv in (("turn-off", name, "--yes"), ("pause", name), ("turn-off", name, "--what-if")):
        with on_terminal(*DEMO, "vm", *argv) as terminal:
            assert terminal.end() == 0
        assert "[y/N]" not in terminal.shown


def test_without_a_terminal_nothing_is_asked() -> None:
    with in_background(*DEMO, "vm", "turn-off", running()) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "done" in out


def test_ctrl_c_at_the_question_does_nothing() -> None:
    with on_terminal(*DEMO, "vm", "turn-off", running(), "--json") as terminal:
        terminal.until("[y/N]")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    assert terminal.out == b""


def test_bars_move_while_a_vm_does() -> None:
    with on_terminal(*DEMO, "vm", "migrate", running(), "--to", "oslo-02", "--json") as terminal:
        assert terminal.end() == 0
    seen = {int(percent) for percent in re.findall(r"(\d+)%", terminal.shown)}
    assert len(seen) > 3
    assert "oslo-01 → oslo-02" in terminal.shown
    assert json.loads(terminal.out)[0]["result"] == "done"


def test_a_table_on_a_terminal_is_coloured_and_fits() -> None:
    with on_terminal(*DEMO, "vm", "list", whole=True) as terminal:
        assert terminal.end() == 0
    assert "\x1b[32mRunning" in terminal.shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.shown)
    assert max(len(line) for line in plain.splitlines()) <= 120


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, sent: signal.Signals) -> None:
    log = tmp_path / "log.json"
    with in_background(*DEMO, "vm", "migrate", running(), "--json", "--log-json", str(log)) as process:
        wait_for_record(log, ["MigrationProgress"])
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "muster: interrupted.\n  1 move: ended with this command, as its simulated hosts do.\n"


def test_interrupted_while_a_host_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        uri = f"test+tcp://127.0.0.1:{silent.getsockname()[1]}/default"
        with in_background("--connect", uri, "vm", "list", "--json") as process:
            connection, _ = silent.accept()
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            connection.close()
    assert time.monotonic() - began < 5
    assert (process.returncode, out, err) == (130, "", "")


def test_a_host_that_does_not_answer_costs_the_timeout_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"test+tcp://127.0.0.1:{silent.getsockname()[1]}/default"
        began = time.monotonic()
        argv = ("--connect", uri, "test:///default", "vm", "list", "--json", "--timeout", "1")
        with in_background(*argv) as process:
            out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 8
    assert process.returncode == 0
    assert [row["name"] for row in json.loads(out)] == ["test"]
    assert "node 127.0.0.1 did not answer within 1 s." in err


def test_a_pipe_that_closes_early() -> None:
    argv = f"{sys.executable} -m manager --demo 4x400 vm list | head -n 1"
    ran = subprocess.run(["bash", "-c", argv], capture_output=True, text=True, timeout=60)
    assert ran.stdout.startswith("Name ")
    assert "Traceback" not in ran.stderr

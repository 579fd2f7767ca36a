"""``muster vm console`` on a terminal of its own: typing, the ways out, and the terminal as it was before."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.terminal import Terminal, on_terminal

DEMO = ("--demo", "2x24")
LEAVE = "\x1d"


def a_vm() -> str:
    """A VM of the demo that runs."""
    argv = [sys.executable, "-m", "manager", *DEMO, "vm", "list", "--where", "status:running", "--json"]
    rows = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout)
    return str(rows[0]["name"])


@contextmanager
def console(*before: str) -> Iterator[tuple[Terminal, str, list[Any]]]:
    """A console whose guest has greeted; with the VM's name, and how the terminal was before."""
    name = a_vm()
    with on_terminal(*before, "vm", "console", name, whole=True) as terminal:
        usual = termios.tcgetattr(terminal.master)
        terminal.until(f"connected with {name}; Ctrl+] leaves")
        terminal.until(f"demo@{name}:~$ ")
        assert not _echoes(terminal.master)
        yield terminal, name, usual


def _echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & (termios.ECHO | termios.ICANON))


def test_what_is_typed_reaches_the_guest_and_escape_leaves() -> None:
    with console(*DEMO) as (terminal, _, usual):
        terminal.type("uname -a\r")
        terminal.until("demo: uname -a\r\n")
        terminal.type("sec\x7f\x7f\x7fönd\r")  # as bytes, in pieces or not
        terminal.until("demo: önd\r\n")
        terminal.type("half" + LEAVE + "rest")
        assert terminal.end() == 0
        assert "half" in terminal.shown
        assert "left the console" in terminal.shown
        assert "rest" not in terminal.shown.partition("left the console")[0]
        assert termios.tcgetattr(terminal.master) == usual


def test_ctrl_c_is_the_guests() -> None:
    with console(*DEMO) as (terminal, name, usual):
        terminal.type("sleep 100\x03")
        terminal.until(f"^C\r\ndemo@{name}:~$ ")
        assert terminal.process.poll() is None
        terminal.type("\x1a\x1c\x04echo still here\r")  # Ctrl+Z, Ctrl+\ and Ctrl+D are the guest's as well
        terminal.until("demo: echo still here")
        terminal.type(LEAVE)
        assert terminal.end() == 0
        assert termios.tcgetattr(terminal.master) == usual


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_ended_program_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    with console(*DEMO) as (terminal, _, usual):
        terminal.process.send_signal(number)
        assert terminal.end() == 130
        assert termios.tcgetattr(terminal.master) == usual


def test_the_end_of_the_vm_is_the_consoles() -> None:
    with console(*DEMO) as (terminal, _, usual):
        terminal.type("poweroff\r")
        assert terminal.end() == 0
        assert "the console ended: the VM stopped or left its node" in terminal.shown
        assert termios.tcgetattr(terminal.master) == usual

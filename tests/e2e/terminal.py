"""``muster`` as a process of its own on a terminal of its own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 60.0


@dataclass(slots=True)
class Terminal:
    """A running command, and what it showed."""

    process: subprocess.Popen[bytes]
    master: int
    shown: str = ""
    out: bytes = field(default=b"")

    def until(self, text: str) -> None:
        """Read what is shown until this text is in it."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} was not shown in {self.shown!r}"
            ready, _, _ = select.select([self.master], [], [], 1.0)
            if ready and not self._take():
                raise AssertionError(f"it ended; {text!r} was not shown in {self.shown!r}")

    def type(self, text: str) -> None:
        """Type it."""
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        deadline = time.monotonic() + LIMIT_S
        while self.process.poll() is None:  # who does not read what it shows would stop it
            assert time.monotonic() < deadline, f"it does not end; {self.shown!r} was shown"
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                self._take()
        while self._take():
            pass
        if self.process.stdout is not None:
            self.out = self.process.stdout.read()
        return self.process.returncode

    def _take(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def on_terminal(*argv: str, whole: bool = False) -> Iterator[Terminal]:
    """A command whose standard input and error are a terminal; with `whole` its output too."""
    master, slave = pty.openpty()
    out: Any = slave if whole else subprocess.PIPE
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "manager", *argv],
        stdin=slave,
        stderr=slave,
        stdout=out,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    os.close(slave)
    terminal = Terminal(process, master)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        os.close(master)


@contextmanager
def in_background(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A command that nobody looks at; ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "manager", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_record(log: Path, kinds: Sequence[str]) -> None:
    """Return once the JSON log has a record of one of these kinds."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if log.exists() and any(f'"event":"{kind}"' in log.read_text() for kind in kinds):
            return
        time.sleep(0.02)  # a file tells nobody when it grows
    raise AssertionError(f"none of {kinds} in {log}")

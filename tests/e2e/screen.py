"""A screen of its own and a window on it, driven by keys and watched through the JSON log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Screen:
    """An X server on a free display number."""

    def __init__(self, size: str = "1500x950x24") -> None:
        reading, writing = os.pipe()
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp"],
            pass_fds=[writing],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        with os.fdopen(reading) as answer:
            self.display = f":{answer.readline().strip()}"  # told once it takes connections

    @property
    def env(self) -> dict[str, str]:
        """The environment of programs on this screen."""
        return {**os.environ, "DISPLAY": self.display, "QT_QPA_PLATFORM": "xcb"}

    def tool(self, *words: str) -> str:
        """Run xdotool on this screen; what it printed."""
        return subprocess.run(
            ["xdotool", *words], env=self.env, check=True, capture_output=True, text=True, timeout=20
        ).stdout

    def close(self) -> None:
        """Switch the screen off."""
        self._server.terminate()
        self._server.wait(10)


class Window:
    """A running ``muster gui``, or another program that shows one."""

    def __init__(
        self,
        screen: Screen,
        log: Path,
        *words: str,
        env: dict[str, str] | None = None,
        program: str = "manager",
        answers: bool = False,
    ) -> None:
        self._screen = screen
        self._log = log
        self._read = 0
        self.records: list[Record] = []
        self.errors = log.with_suffix(".stderr")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", program, *words],
                env={**screen.env, **(env or {})},
                stdin=subprocess.PIPE if answers else subprocess.DEVNULL,
                stdout=subprocess.PIPE if answers else errors,
                stderr=errors,
            )

    def look(self) -> list[Record]:
        """Read what the log has new; all records so far."""
        if self._log.exists():
            with self._log.open() as file:
                file.seek(self._read)
                for line in iter(file.readline, ""):
                    if not line.endswith("\n"):
                        break
                    self._read += len(line.encode())
                    self.records.append(json.loads(line))
        return self.records

    def wait(
        self, event: str, matches: Callable[[Record], bool] = lambda _: True, limit_s: float = 30.0
    ) -> Record:
        """Wait for a record; the first that matches.

        Raises:
            AssertionError: It did not come in time, or the program ended.
        """
        end = time.monotonic() + limit_s
        seen = 0
        while time.monotonic() < end:
            records = self.look()
            for record in records[seen:]:
                if record["event"] == event and matches(record):
                    return record
            seen = len(records)
            assert self.process.poll() is None, f"it ended: {self.errors.read_text()}"
            time.sleep(0.02)
        raise AssertionError(f"no {event} within {limit_s} s: {self.errors.read_text()}")

    def ask(self, line: str) -> Any:
        """What a program that answers says to a line, see `tests.e2e.stage`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        told = self.process.stdout.readline()
        assert told, f"it ended: {self.errors.read_text()}"
        return json.loads(told)

    def focus(self) -> None:
        """Give it the keyboard; there is no window manager that would."""
        found = self._screen.tool("search", "--onlyvisible", "--sync", "--pid", str(self.process.pid))
        self._screen.tool("windowfocus", "--sync", found.split()[-1])

    def keys(self, *keys: str) -> None:
        """Press keys one after the other."""
        self._screen.tool("key", "--delay", "30", *keys)

    def type(self, text: str) -> None:
        """Type text."""
        self._screen.tool("type", "--delay", "30", text)

    def click(self, x: int, y: int, *, button: int = 1) -> None:
        """Click at a place of the screen."""
        self._screen.tool("mousemove", str(x), str(y), "click", str(button))

    def picture(self, path: Path) -> None:
        """A picture of the whole screen, for people."""
        subprocess.run(["import", "-window", "root", str(path)], env=self._screen.env, check=True, timeout=20)

    def quit(self, limit_s: float = 10.0) -> float:
        """Ctrl+Q; the seconds until the process was gone."""
        self.focus()
        begun = time.monotonic()
        self.keys("ctrl+q")
        self.process.wait(limit_s)
        self.look()
        return time.monotonic() - begun

    def end(self) -> None:
        """Whatever happened: it is gone afterwards."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def window(folder: Path, *words: str) -> Iterator[Window]:
    """``muster WORDS --log-json … gui`` on a screen of its own; both are gone afterwards."""
    screen = Screen()
    shown: Window | None = None
    try:
        shown = Window(screen, folder / "log.json", *words, "--log-json", str(folder / "log.json"), "gui")
        yield shown
    finally:
        if shown is not None:
            shown.end()
        screen.close()

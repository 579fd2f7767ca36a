"""Completion in the shells themselves: a line is typed, Tab pressed, and the line read back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manager.cli.completion import SHELLS

LIMIT_S = 30.0

# In each, Ctrl-T prints the line as it stands, and the prompt tells that the shell listens.
START = {
    "bash": (
        ["bash", "--noprofile", "--norc", "-i"],
        "PS1='ready> '; source {script}; bind -x '\"\\C-t\": echo \"<$READLINE_LINE>\"'",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "fpath=({folder} $fpath); autoload -U compinit; compinit -u -D; bindkey -e; PS1='ready> ';"
        ' show() {{ print -r -- "<$BUFFER>" }}; zle -N show; bindkey ^T show',
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "source {script}; function fish_prompt; echo 'ready> '; end;"
        ' bind \\ct \'echo "<"(commandline)">"\'',
    ),
}

HERE = [shell for shell in SHELLS if shutil.which(shell)]
"""Those of this machine; bash is on all that run the tests."""

CASES = (
    ("muster vm migr", "muster vm migrate "),
    ("muster vm priority --set h", "muster vm priority --set high "),
    ("muster vm priority --set=h", "muster vm priority --set=high "),
    ("muster vm list --columns name,ow", "muster vm list --columns name,owner "),
    ("muster --cluster al", "muster --cluster alpha "),
    ("muster --cluster=al", "muster --cluster=alpha "),
    ("muster --cluster {folder}/oth", "muster --cluster {folder}/other.toml "),
    ("muster --cluster alpha vm show te", "muster --cluster alpha vm show test "),
    (
        "muster --cluster=alpha vm migrate test --to nod",
        "muster --cluster=alpha vm migrate test --to node-1 ",
    ),
    ("muster vm migrate --to=x --what", "muster vm migrate --to=x --what-if "),
)


def muster(*words: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "manager", *words], capture_output=True, text=True, check=True, timeout=60
    ).stdout


class Shell:
    """A shell on a terminal of its own."""

    def __init__(self, argv: list[str], env: dict[str, str], folder: Path) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 300, 0, 0))  # no line wraps
        self.process = subprocess.Popen(  # its jobs need a terminal that is really theirs
            ["setsid", "--ctty", *argv], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=folder
        )
        os.close(slave)
        self.shown = ""

    def until(self, text: str) -> str:
        """What was shown up to this text; it is taken away."""
        end = time.monotonic() + LIMIT_S
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} was not shown in {self.shown!r}"
            if select.select([self.master], [], [], 0.5)[0]:
                self.shown += os.read(self.master, 65536).decode(errors="replace")
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def completed(self, line: str) -> str:
        """The line after Tab; it is thrown away in the shell."""
        self.type(f"{line}\t\x14")
        self.until("<")
        found = self.until(">")
        self.type("\x15")
        return found


@contextmanager
def running(shell: str, folder: Path) -> Iterator[Shell]:
    script = folder / "_muster"
    script.write_text(muster("completion", shell))
    argv, first = START[shell]
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TERM": "dumb" if shell != "fish" else "xterm",
    }
    made = Shell(argv, env, folder)
    try:
        made.type(first.format(script=script, folder=folder) + "; echo begun''-now\n")
        made.until("begun-now")
        made.until("ready>")
        yield made
    finally:
        made.process.kill()
        made.process.wait(10)
        os.close(made.master)


@pytest.mark.parametrize("shell", HERE)
def test_tab_in_the_shell(shell: str, tmp_path: Path) -> None:
    clusters = Path(os.environ["MUSTER_HOME"]) / "config" / "clusters"
    clusters.mkdir(parents=True)
    (clusters / "alpha.toml").write_text(
        'name = "alpha"\n[[nodes]]\nname = "node-1"\nuri = "test:///default"\n'
    )
    (tmp_path / "other.toml").touch()
    assert "test" in muster("--cluster", "alpha", "vm", "list")  # names are those of the last list
    with running(shell, tmp_path) as typed:
        found = [typed.completed(line.format(folder=tmp_path)) for line, _ in CASES]
    assert found == [wanted.format(folder=tmp_path) for _, wanted in CASES]

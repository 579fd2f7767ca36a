"""``muster engine`` as a service of the user's systemd: one template unit, an instance per cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from manager.core.errors import UserError
from manager.store.paths import write_atomically

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "resources" / "systemd" / "muster-engine@.service"
UNIT = TEMPLATE.name
HANDED_DOWN = ("MUSTER_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
"""Variables that say where files live: the service must find the same ones."""

SYSTEMCTL_S = 30.0
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")


class SystemdUnits:
    """The user's units. Blocks while systemd works, half a minute at most."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        config = environ.get("XDG_CONFIG_HOME") or str(
            Path(environ.get("HOME", "~")).expanduser() / ".config"
        )
        self._folder = Path(config) / "systemd" / "user"

    @property
    def path(self) -> Path:
        """The template's file."""
        return self._folder / UNIT

    def name(self, cluster: str) -> str:
        """The unit of a cluster, given by its name or file.

        Raises:
            UserError: It would be too long.
        """
        name = UNIT.replace("@.", f"@{escaped(cluster)}.")
        if len(name) > 255:
            raise UserError(f"{cluster}: too long for the name of a service. Nothing was installed.")
        return name

    def install(self) -> bool:
        """Write the template; whether that changed anything. Raises `OSError` if it cannot be written."""
        text = unit_text(self._environ).encode()
        if self.path.exists() and self.path.read_bytes() == text:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, text)
        return True

    def enabled(self) -> tuple[str, ...]:
        """The instances that start with the user's session."""
        wanted = self._folder / "default.target.wants"
        return tuple(sorted(path.name for path in wanted.glob(UNIT.replace("@.", "@?*."))))

    def remove(self) -> bool:
        """Take the template away; whether there was one. Raises `OSError` if it cannot be removed."""
        if not self.path.exists():
            return False
        self.path.unlink()
        return True

    def systemctl(self, *words: str) -> tuple[int, str] | None:
        """Ask the user's systemd: exit code and what it said. None if there is no systemctl."""
        command = shutil.which("systemctl", path=self._environ.get("PATH"))
        if command is None:
            return None
        try:
            ran = subprocess.run(
                [command, "--user", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SYSTEMCTL_S,
                env=dict(self._environ),
            )
        except subprocess.TimeoutExpired:
            return 1, f"no answer within {SYSTEMCTL_S:g} s"
        except OSError as error:
            return 1, str(error)
        return ran.returncode, (ran.stdout + ran.stderr).strip()


def unit_text(environ: Mapping[str, str] = os.environ, command: Sequence[str] = ()) -> str:
    """The template, filled in for this installation."""
    words = command or (sys.executable, "-m", "manager")
    given = [f"{name}={environ[name]}" for name in HANDED_DOWN if environ.get(name)]
    text = TEMPLATE.read_text(encoding="utf-8")
    for mark, value in (
        ("@FOLDER@", str(ROOT).replace("%", "%%")),
        ("@ENVIRONMENT@\n", "".join(f"Environment={quoted(each)}\n" for each in given)),
        ("@COMMAND@", " ".join(quoted(word) for word in words)),
    ):
        text = text.replace(mark, value)
    return text


def quoted(word: str) -> str:
    """One word of a unit file. Source: systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers"."""
    safe = "".join(
        {"\\": "\\\\", '"': '\\"', "%": "%%"}.get(char, char if char.isprintable() else _bytes_of(char))
        for char in word
    )
    return f'"{safe}"'


def escaped(text: str) -> str:
    r"""A text as a unit's instance: ``prod-a`` becomes ``prod\x2da``. Source: systemd-escape(1)."""
    found = []
    for place, char in enumerate(text):
        if char == "/":
            found.append("-")
        elif char in _PLAIN and not (char == "." and place == 0):
            found.append(char)
        else:
            found.append(_bytes_of(char))
    return "".join(found)


def _bytes_of(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode())

"""The service of ``muster engine``: its file, and the names of its instances."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from manager.core.errors import UserError
from manager.store.user_units import HANDED_DOWN, SystemdUnits, escaped, quoted, unit_text

ODD = {"MUSTER_HOME": '/srv/a b%h"$HOME\\x', "XDG_STATE_HOME": "/srv/ü"}


def lines(text: str, key: str) -> list[str]:
    """The values of a key."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def test_no_placeholder_is_left_and_nothing_is_for_a_shell() -> None:
    text = unit_text(ODD, ("/opt/a b/python", "-m", "manager"))
    assert "@" not in text.replace("muster-engine@", "")
    assert lines(text, "ExecStart") == [':"/opt/a b/python" "-m" "manager" --cluster=%I engine']
    assert lines(text, "Environment") == [
        '"MUSTER_HOME=/srv/a b%%h\\"$HOME\\\\x"',
        '"XDG_STATE_HOME=/srv/ü"',
    ]
    assert set(ODD) <= set(HANDED_DOWN)


def test_without_variables_there_is_no_line_for_them() -> None:
    assert lines(unit_text({}), "Environment") == []
    assert lines(unit_text({}), "WorkingDirectory") == [str(Path(__file__).parents[2])]


def test_words_that_systemd_would_read_otherwise() -> None:
    assert quoted('a"b\\c%d\n') == '"a\\"b\\\\c%%d\\x0a"'


@pytest.mark.parametrize(
    ("name", "instance"),
    [
        ("lab", "lab"),
        ("prod-a", r"prod\x2da"),
        ("/srv/x y.toml", r"-srv-x\x20y.toml"),
        (".hidden", r"\x2ehidden"),
        ("ü", r"\xc3\xbc"),
        ("a@b:c_d.e", r"a\x40b:c_d.e"),
        ("$HOME;%h", r"\x24HOME\x3b\x25h"),
    ],
)
def test_instances(name: str, instance: str) -> None:
    assert escaped(name) == instance
    if shutil.which("systemd-escape"):  # where it is, it says the same
        ran = subprocess.run(["systemd-escape", "--", name], capture_output=True, text=True, check=True)
        assert ran.stdout.rstrip("\n") == instance


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too long"):
        SystemdUnits({"HOME": str(tmp_path)}).name("/" + "x" * 250)


def test_install_and_remove(tmp_path: Path) -> None:
    units = SystemdUnits({"HOME": str(tmp_path)})
    assert units.path == tmp_path / ".config/systemd/user/muster-engine@.service"
    assert units.install()
    assert not units.install()
    units.path.write_text("changed")
    assert units.install()
    assert units.path.read_text() == unit_text({"HOME": str(tmp_path)})
    assert units.remove()
    assert not units.remove()
    elsewhere = SystemdUnits({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "c")})
    assert elsewhere.path.parent == tmp_path / "c" / "systemd" / "user"


KNOWN = {
    "Unit": {"Description", "Documentation"},
    "Service": {
        *("Type", "WorkingDirectory", "Environment", "ExecStart", "Restart", "RestartSec"),
        *("RestartPreventExitStatus", "KillMode", "TimeoutStopSec"),
    },
    "Install": {"WantedBy"},
}
"""Keys that systemd-analyze was seen to accept."""


def verified(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What systemd says of a unit file of that text."""
    path = folder / "muster-engine@lab.service"
    path.write_text(text)
    runtime = folder / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    return subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
    )


def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        parsed = configparser.ConfigParser(interpolation=None, strict=False)
        parsed.optionxform = str  # type: ignore[assignment]
        parsed.read_string(unit_text(ODD))
        assert {name: set(parsed[name]) for name in parsed.sections()} == KNOWN
        return
    ran = verified(tmp_path, unit_text(ODD))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    ran = verified(tmp_path, unit_text(ODD, ("/nowhere/python",)))
    assert ran.returncode != 0
    assert "/nowhere/python is not executable" in ran.stderr

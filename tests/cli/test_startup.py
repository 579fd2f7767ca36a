"""The command line starts without what it does not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
from manager.bootstrap import main
code = main(sys.argv[1:])
print()
print(json.dumps([code, sorted(name.partition(".")[0] for name in sys.modules)]))
"""

HEAVY = {
    "PySide6",
    "shiboken6",
    "libvirt",
    "lxml",
    "asyncssh",
    "rich",
    "keyring",
    "qasync",
    "pyqtgraph",
    "tomlkit",
}
"""What takes long to load."""


@pytest.mark.parametrize("argv", [("--version",), ("--help",), ("vm", "migrate", "--help"), ("vm", "start")])
def test_nothing_heavy(argv: tuple[str, ...]) -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *argv], capture_output=True, text=True, timeout=60)
    code, modules = json.loads(ran.stdout.splitlines()[-1])
    assert code == (2 if argv == ("vm", "start") else 0)
    assert HEAVY & set(modules) == set()


def test_a_list_of_the_demo_needs_neither_the_window_nor_libvirt() -> None:
    argv = ("--demo", "2x4", "vm", "list", "--json")
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *argv], capture_output=True, text=True, timeout=60)
    code, modules = json.loads(ran.stdout.splitlines()[-1])
    assert code == 0
    assert {"PySide6", "libvirt", "lxml", "asyncssh"} & set(modules) == set()

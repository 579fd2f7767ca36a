"""Each import contract of ``pyproject.toml`` is broken once on purpose: that one, and no other, must fail.

A contract that misses its target looks exactly like one that holds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS: dict[str, str] = {
    each["id"]: each["name"]
    for each in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

# (the contract, the module that breaks it, how)
VIOLATIONS = [
    ("layers", "core/ids.py", "import manager.services.ports"),
    ("layers", "services/ports.py", "import manager.store.paths"),
    ("layers", "store/paths.py", "import manager.lab.errors"),
    ("layers", "backends/sim/__init__.py", "import manager.store.paths"),
    ("layers", "backends/libvirt/__init__.py", "import manager.cli"),
    ("layers", "cli/__init__.py", "import manager.ui"),
    ("layers", "ui/__init__.py", "import manager.bootstrap"),
    ("pure-core", "core/ids.py", "from time import time"),
    ("pure-core", "core/query/__init__.py", "import asyncio.events"),
    ("pure-core", "core/migration/__init__.py", "def f() -> None:\n    import os.path"),
    ("front-ends", "cli/__init__.py", "import manager.store.paths"),
    ("front-ends", "ui/__init__.py", "from manager.backends import sim"),
    ("backends", "backends/sim/__init__.py", "import manager.backends.libvirt"),
    ("backends", "backends/libvirt/__init__.py", "import manager.backends.sim"),
    ("qt", "services/ports.py", "from PySide6.QtCore import QObject"),
    ("qt", "bootstrap.py", "import qasync"),
    ("libvirt", "services/ports.py", "import libvirt"),
    ("libvirt", "backends/sim/__init__.py", "import libvirt_qemu"),
    ("libvirt", "bootstrap.py", "import libvirt"),
    ("lxml", "services/ports.py", "from lxml import etree"),
    ("lxml", "cli/__init__.py", "import xml.etree.ElementTree"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "manager", folder / "manager", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def broken_in(folder: Path) -> set[str]:
    """The ids of the contracts that do not hold there."""
    ran = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        cwd=folder,
        # The copy comes before the checkout that this environment has installed.
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = dict(re.findall(r"^(.*) (KEPT|BROKEN)", ran.stdout, re.MULTILINE))
    assert set(said) == set(CONTRACTS.values()), ran.stdout + ran.stderr
    broken = {key for key, name in CONTRACTS.items() if said[name] == "BROKEN"}
    assert ran.returncode == bool(broken)
    return broken


def test_the_house_as_it_is_keeps_them_all(copy: Path) -> None:
    assert broken_in(copy) == set()


def test_each_contract_is_seen_biting() -> None:
    assert {contract for contract, _, _ in VIOLATIONS} == set(CONTRACTS)


@pytest.mark.parametrize(
    ("contract", "module", "line"), VIOLATIONS, ids=[f"{module}: {line}" for _, module, line in VIOLATIONS]
)
def test_a_violation_breaks_that_contract_alone(copy: Path, contract: str, module: str, line: str) -> None:
    file = copy / "manager" / module
    before = file.read_text()
    file.write_text(f"{before}\n{line}\n")
    try:
        assert broken_in(copy) == {contract}
    finally:
        file.write_text(before)

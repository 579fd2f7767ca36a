"""The command line on a simulated cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.support import Cli, small


@pytest.fixture
def muster(capsys: pytest.CaptureFixture[str]) -> Cli:
    """``muster(*argv)`` runs a command on a small cluster."""
    return small(capsys)


@pytest.fixture
def home() -> Path:
    """Where this test's configuration and state are."""
    return Path(os.environ["MUSTER_HOME"])

"""The command line on a simulated cluster."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.support import Cli, small
from tests.cli.together import Together, together


@pytest.fixture
def muster(capsys: pytest.CaptureFixture[str]) -> Cli:
    """``muster(*argv)`` runs a command on a small cluster."""
    return small(capsys)


@pytest.fixture
async def beside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Together]:
    """``await beside(*argv)`` runs a command beside an owner of the operations, in the test's own loop."""
    async with together(small(capsys), monkeypatch) as made:
        yield made


@pytest.fixture
def home() -> Path:
    """Where this test's configuration and state are."""
    return Path(os.environ["MUSTER_HOME"])

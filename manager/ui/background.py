"""A `muster engine` that goes on with a cluster's work when the window is closed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

_started: list[subprocess.Popen[bytes]] = []  # kept: one that is forgotten warns that it still runs


def start_engine(options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start one apart from this program: it outlives the window and the terminal.

    It waits while this program works on the cluster, and takes over when that ends.

    Args:
        options: How the command line names the cluster: ``--cluster prod``.

    Raises:
        OSError: It cannot be started.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "manager", *options, "engine"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _started.append(process)
    return process

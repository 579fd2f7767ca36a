"""``packaging/bench``: runs the benchmarks and prints one table with ratios."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.perf.measure import Row, table

USUAL = ("core", "queue", "table", "window", "programs", "peer")
LONG = ("large", "peers", "soak")


def main() -> int:
    """Run the parts that were asked for, all by default."""
    parser = argparse.ArgumentParser(prog="packaging/bench", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        help=f"{', '.join(USUAL)}, which are all if none is named; large: 64,000 VMs; soak: ten minutes of "
        "change and work; peers: also 8,000 VMs beside virt-manager; long: the last three",
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long the soak is")
    options = parser.parse_args()
    wanted: list[str] = [each for part in options.parts for each in (LONG if part == "long" else (part,))]
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as name:
        folder = Path(name)
        os.environ["MUSTER_HOME"] = str(folder / "home")
        parts: dict[str, Callable[[], Iterator[Row]]] = {
            "core": _core,
            "queue": _queue,
            "table": _table,
            "window": lambda: _window("64x8000"),
            "programs": lambda: _programs(folder),
            "peer": lambda: _peer(folder, 1000, 120),
            "large": lambda: _window("64x64000"),
            "soak": lambda: _soak(options.minutes * 60),
            "peers": lambda: _peers(folder),
        }
        unknown = [part for part in wanted if part not in parts]
        if unknown:
            parser.error(f"there is no part {unknown[0]!r}: {', '.join(parts)}")
        rows: list[Row] = []
        for part in wanted or USUAL:
            for row in parts[part]():
                print(f"  {row.name}: {row.ours}", file=sys.stderr, flush=True)
                rows.append(row)
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    print(table(rows))
    return 0


def _core() -> Iterator[Row]:
    from tests.perf import core

    yield from core.rows()


def _queue() -> Iterator[Row]:
    from tests.perf import queue

    yield from queue.rows()


def _table() -> Iterator[Row]:
    from tests.perf import table as table_part

    yield from table_part.rows()


def _programs(folder: Path) -> Iterator[Row]:
    from tests.perf import programs

    yield from programs.rows(folder)


def _window(size: str) -> Iterator[Row]:
    from tests.perf import window

    yield from window.rows(size)


def _soak(seconds: float) -> Iterator[Row]:
    from tests.perf import soak

    yield from soak.rows(seconds)


def _peer(folder: Path, count: int, limit_s: float) -> Iterator[Row]:
    from tests.perf import peer

    yield from peer.rows(folder, count, limit_s)


def _peers(folder: Path) -> Iterator[Row]:
    yield from _peer(folder, 1000, 120)
    yield from _peer(folder, 8000, 600)


sys.exit(main())

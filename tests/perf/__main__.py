"""``packaging/bench``: runs the benchmarks and prints one table with ratios."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.perf.measure import Row, table


def main() -> int:
    """Run the parts that were asked for, all by default."""
    parser = argparse.ArgumentParser(prog="packaging/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help="core, queue, table, programs; all if none is named")
    wanted = parser.parse_args().parts
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as name:
        folder = Path(name)
        os.environ["MUSTER_HOME"] = str(folder / "home")
        parts: dict[str, Callable[[], Iterator[Row]]] = {
            "core": _core,
            "queue": _queue,
            "table": _table,
            "programs": lambda: _programs(folder),
        }
        unknown = [part for part in wanted if part not in parts]
        if unknown:
            parser.error(f"there is no part {unknown[0]!r}: {', '.join(parts)}")
        rows: list[Row] = []
        for part in wanted or parts:
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


sys.exit(main())

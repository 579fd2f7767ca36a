"""How figures are taken: pairs run in turn, whole processes by the kernel's own account, medians."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `ratio` is ours / other, the median of the pairs."""

    name: str
    ours: str
    other: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One finished process: seconds and MiB."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    code: int


def process(argv: Sequence[str], *, timeout_s: float = 300, env: dict[str, str] | None = None) -> Process:
    """Run a command to its end and return what the kernel accounts for it and its children."""
    started = time.monotonic()
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )
    deadline = started + timeout_s
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            child.kill()
            os.wait4(child.pid, 0)
            raise TimeoutError(f"{argv[0]} took longer than {timeout_s:g} s")
        time.sleep(0.002)
    child.returncode = os.waitstatus_to_exitcode(status)
    return Process(
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=time.monotonic() - started,
        peak_mib=usage.ru_maxrss / 1024,
        code=child.returncode,
    )


def cpu_s(call: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    before = time.process_time()
    call()
    return time.process_time() - before


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def pairs(ours: Callable[[], float], other: Callable[[], float], count: int) -> tuple[float, float, float]:
    """Both in turn, A B A B: medians of ours and the other, and the median of the ratios."""
    first, second = [], []
    for _ in range(count):
        first.append(ours())
        second.append(other())
    ratio = median([a / max(b, 1e-9) for a, b in zip(first, second, strict=True)])
    return median(first), median(second), ratio


def resident_mib() -> float:
    """This process's memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024 / 1024


def table(rows: Sequence[Row]) -> str:
    """The rows as text, columns aligned."""
    head = Row(name="what", ours="Muster", other="beside it", ratio="ratio", goal="goal")
    lines = [(r.name, r.ours, r.other, r.ratio, r.goal, _mark(r)) for r in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(line[i].rjust(widths[i]) for i in range(1, 5)), line[5]])
        for line in lines
    )


def _mark(row: Row) -> str:
    return "" if row.met is None else "met" if row.met else "NOT MET"


MUSTER = (sys.executable, "-m", "manager")

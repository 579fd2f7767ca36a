"""Labs for tests, and what must be gone after one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from manager.lab.lab import Lab
from manager.lab.processes import marked, namespace
from manager.lab.requirements import missing

T = TypeVar("T")


def skip_without_lab() -> None:
    """Skip the test, and say what the machine lacks for a lab."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    if lacking := missing():
        pytest.skip(lacking.text)


@contextmanager
def lab_folder() -> Iterator[Path]:
    """A new folder for a lab, short because of unix sockets; whatever lab is left in it is ended."""
    folder = Path(tempfile.mkdtemp(prefix="mlab-", dir="/tmp"))
    try:
        yield folder
    finally:
        run_apart(lambda: Lab.remove(folder))
        if folder.exists():
            folder.rmdir()


def run_apart(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in a thread and loop of its own: a sync fixture leaves the test's loop alone."""

    async def main() -> T:
        return await work()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: asyncio.run(main())).result()


@dataclass(frozen=True, slots=True)
class Traces:
    """What a lab has on this machine now."""

    processes: frozenset[int]
    namespaces: frozenset[int]  # network namespaces in which some process is
    links: frozenset[str]
    mounts: frozenset[str]
    folder: bool

    @property
    def nothing(self) -> bool:
        """Whether there is none."""
        return not (self.processes or self.namespaces or self.links or self.mounts or self.folder)


def network_namespaces() -> frozenset[int]:
    """The inodes of all network namespaces in use on this machine."""
    found = (namespace(int(entry), "net") for entry in os.listdir("/proc") if entry.isdigit())
    return frozenset(inode for inode in found if inode)


def lab_namespaces(lab: Lab) -> frozenset[int]:
    """The network namespaces of a living lab's processes."""
    return frozenset(namespace(process.pid, "net") for process in marked(lab.directory)) - {
        namespace(os.getpid(), "net")
    }


def traces(folder: Path, *, link: str = "", namespaces: frozenset[int] = frozenset()) -> Traces:
    """What there still is of a lab that was in `folder` with this link and these namespaces."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return Traces(
        processes=frozenset(process.pid for process in marked(folder)),
        namespaces=namespaces & network_namespaces(),
        links=frozenset(name for name in os.listdir("/sys/class/net") if name == link),
        mounts=frozenset(line for line in mounts if str(folder) in line),
        folder=folder.exists(),
    )


async def qemu_pids(lab: Lab) -> dict[str, int]:
    """The QEMU process of each running guest, by the guest's name."""
    found: dict[str, int] = {}
    for node in lab.nodes:
        for process in node.processes():
            words = Path(f"/proc/{process.id.pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"qemu-system-x86_64") and b"-name" in words:
                name = words[words.index(b"-name") + 1].decode()
                found[name.removeprefix("guest=").partition(",")[0]] = process.id.pid
    return found


def muster_lab(*words: str, python: str) -> subprocess.Popen[str]:
    """Start the lab's command line as a program of its own."""
    return subprocess.Popen(
        [python, "-m", "manager.lab", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

"""Processes by id and start time: short commands with a deadline, and the ones that stay.

A lab outlives the program that made it, so its processes are known by (pid, start time), never by a name, and
carry a mark in their environment: by it `down` finds them even if `up` was killed before it wrote them down.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from manager.lab.errors import LabError

MARK = "MUSTER_LAB"
"""Environment variable of every long-lived process of a lab; its value is the lab's folder."""

CLEAN_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/root",
}
"""What commands get: no proxy, no locale, no libvirt default URI of the user's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process for good: a pid is used again, a pid with its start time is not (until the next boot)."""

    pid: int
    started: int  # clock ticks since boot; field 22 of /proc/PID/stat


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process as /proc shows it now."""

    id: ProcessId
    parent: int
    name: str


def _stat(pid: int) -> tuple[str, str, int, int] | None:
    """Name, state, parent and start time of a pid, or None if there is none.

    Source: proc_pid_stat(5), fields 2, 3, 4 and 22.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name may hold spaces and parentheses: everything up to the last ")".
    name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    # A first thread that ended while others still do is shown as a zombie, and is none yet.
    state = "R" if rest[0] == "Z" and int(rest[17]) > 1 else rest[0]
    return name, state, int(rest[1]), int(rest[19])


def identify(pid: int) -> ProcessId | None:
    """The lasting identity of a living pid, or None if it is gone."""
    stat = _stat(pid)
    return ProcessId(pid=pid, started=stat[3]) if stat else None


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs. Reaps it if it was our child."""
    stat = _stat(process.pid)
    if stat is None or stat[3] != process.started:
        return False
    if stat[1] not in "ZX":
        return True
    if stat[2] == os.getpid():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
    return False


def state_letter(process: ProcessId) -> str:
    """The process state as /proc gives it (``R``, ``S``, ``T`` for stopped...), empty if it is gone."""
    stat = _stat(process.pid)
    return stat[1] if stat and stat[3] == process.started else ""


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal exactly this process, never another that was given its pid. False if it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # Checked after the handle is held: from here on it cannot come to mean another process.
        if identify(process.pid) != process:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def marked(directory: Path) -> list[ProcessId]:
    """Every process that was started for the lab in this folder, whoever started it."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for pid in _pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if mark in environment.split(b"\0") and (process := identify(pid)) and is_alive(process):
            found.append(process)
    return found


def namespace(pid: int, kind: str) -> int:
    """The inode of a process's namespace (`kind` as under /proc/PID/ns), 0 if it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return 0


def _own_pid_namespaces() -> tuple[int, ...]:
    """Of this program and of PID 1: what is in these is never the lab's alone."""
    return namespace(os.getpid(), "pid"), namespace(1, "pid")


def inside(keeper: ProcessId) -> list[Process]:
    """All processes in the pid namespace that `keeper` made, with this machine's pids."""
    wanted = namespace(keeper.pid, "pid_for_children")
    if not is_alive(keeper) or wanted in (0, *_own_pid_namespaces()):
        # It made none, and shares this machine's: every process there is would be "inside".
        return []
    found = []
    for pid in _pids():
        if namespace(pid, "pid") == wanted and (stat := _stat(pid)) and stat[1] not in "ZX":
            found.append(Process(id=ProcessId(pid=pid, started=stat[3]), parent=stat[2], name=stat[0]))
    return found


def spawn(argv: Sequence[str], *, mark: Path, log: Path, stdin: int | None = None) -> ProcessId:
    """Start a process that outlives this program, in a session of its own.

    Args:
        argv: The command; the first item is looked for in the usual system folders.
        mark: The lab's folder, see `MARK`.
        log: File that gets its output.
        stdin: Descriptor it reads from; without it, nothing.
    """
    environment = {**CLEAN_ENVIRONMENT, MARK: str(mark)}
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        if stdin is None
        else (os.POSIX_SPAWN_DUP2, stdin, 0),
    ]
    # Not asyncio's or subprocess's: their objects kill or complain when they go while the process stays.
    pid = os.posix_spawn(executable(argv[0]), list(argv), environment, file_actions=actions, setsid=True)
    process = identify(pid)
    if process is None:
        raise LabError(f"{argv[0]} ended at once; see {log}")
    return process


def executable(name: str) -> str:
    """Full path of a command, looked for in the system folders whatever the user's PATH is.

    Raises:
        LabError: It is not installed.
    """
    if "/" in name:
        return name
    for folder in CLEAN_ENVIRONMENT["PATH"].split(":"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    raise LabError(f"The command {name} is not installed on this machine.", exit_code=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


async def attempt(
    argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "", cwd: Path | None = None
) -> Ran:
    """Run a command to its end.

    Raises:
        LabError: It is not installed, or did not end within `timeout_s` (it is killed then).
    """
    process = await asyncio.create_subprocess_exec(
        executable(argv[0]),
        *argv[1:],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(CLEAN_ENVIRONMENT),
        cwd=cwd,
        start_new_session=True,  # Ctrl-C is for us alone: we undo what was made, in order
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), timeout_s)
    except TimeoutError as error:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout_s:g} s and was stopped.") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(code=process.returncode, out=out.decode(errors="replace"), err=err.decode(errors="replace"))


async def run(
    argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "", cwd: Path | None = None
) -> str:
    """Run a command that must succeed; what it printed.

    Raises:
        LabError: It failed (with its last words), is not installed, or took longer than `timeout_s`.
    """
    ran = await attempt(argv, timeout_s=timeout_s, stdin=stdin, cwd=cwd)
    if ran.code != 0:
        words = "\n".join((ran.err.strip() or ran.out.strip()).splitlines()[-6:])
        raise LabError(f"`{' '.join(argv)}` failed with code {ran.code}:\n{words}")
    return ran.out


async def wait_until(done: Callable[[], bool], *, timeout_s: float, story: Callable[[], str]) -> None:
    """Look every few milliseconds until `done`.

    Raises:
        LabError: With `story()`, after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.002
    while not done():
        if time.monotonic() > deadline:
            raise LabError(story())
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)


def _ownership(process: ProcessId) -> bool | None:
    """Whether it is a lab's: has the mark, or a pid namespace of another than this machine. None: ending."""
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        environment = b""
    there = namespace(process.pid, "pid")
    if not is_alive(process) or there == 0:
        return None
    if any(word.startswith(f"{MARK}=".encode()) for word in environment.split(b"\0")):
        return True
    if there not in _own_pid_namespaces():
        return True
    return False if environment else None  # the kernel takes the memory of a process before the process


async def end(processes: Sequence[ProcessId], *, timeout_s: float = 10.0) -> None:
    """Kill processes of a lab and wait until each is gone.

    Raises:
        LabError: One of them is still there after `timeout_s`, or is not a lab's (nothing is killed then).
    """
    # Asked again here, whatever the caller believes: the price of a mistake is every process of the machine.
    ownership = [(process, _ownership(process)) for process in processes]
    strangers = [
        process.pid for process, ours in ownership if ours is False or process.pid in (1, os.getpid())
    ]
    if strangers:
        raise LabError(f"Refused to end processes that are no lab's: {strangers}. This is a bug of the lab.")
    for process, ours in ownership:
        if ours:
            send(process, signal.SIGKILL)
    unsure = {process for process, ours in ownership if ours is None}
    left = list(processes)

    def gone() -> bool:
        left[:] = [process for process in left if is_alive(process)]
        for process in unsure.intersection(left):
            if _ownership(process):  # it was no end but a beginning: without an environment yet
                send(process, signal.SIGKILL)
        return not left

    await wait_until(
        gone,
        timeout_s=timeout_s,
        story=lambda: f"Processes {[p.pid for p in left]} did not end {timeout_s:g} s after SIGKILL.",
    )


def tail(file: Path, lines: int = 8) -> str:
    """The last lines of a log file, for an error message; empty if there is none."""
    try:
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""

"""Lanes: daemon threads with a libvirt connection each, so that a host that hangs costs a thread and nothing else.

No call of libvirt has a time limit, and a connection that is inside a long call stalls every other call on it. So
each kind of work has a lane; libvirt's objects live and die in their lane's thread, and only values leave it. A call
that outlives its deadline loses its thread: the lane goes on with a new one, and the old one drops its own things if
it ever comes back. Threads are daemons and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import libvirt

from manager.backends.libvirt.errors import cleaned, failure_of
from manager.core.errors import Failure, FailureCode, OperationError

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[libvirt.virConnect], T]
Opener = Callable[[], libvirt.virConnect]

MAX_STUCK = 3
"""Calls of one lane that may hang at once. Then further ones are refused: a hung host must not eat threads."""
IDLE_S = 60.0
"""A lane without work gives its connection back after this long."""


def drop(held: list[libvirt.virConnect]) -> None:
    """Empty a list of connections, in the thread that opened them; may hang as long as the host does.

    The event thread must never hold the last reference to a connection: closing it there could hang the events of
    all hosts. So callbacks go first, then we wait until the reference is ours alone; if that takes too long the
    connection is never freed.
    """
    while held:
        connection = held.pop()
        for callback in list(getattr(connection, "domainEventCallbackID", ())):
            with contextlib.suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(callback)
        with contextlib.suppress(libvirt.libvirtError):
            connection.unregisterCloseCallback()
        for _ in range(100):
            if sys.getrefcount(connection) <= 2:  # our name and the argument
                break
            time.sleep(0.02)
        else:
            gc.collect()
            if sys.getrefcount(connection) > 2:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        del connection


@dataclass(slots=True)
class _Job(Generic[T]):
    """One call that waits or runs in a lane."""

    work: Work[T]
    future: asyncio.Future[T]
    deadline_s: float | None
    what: str


class _Worker:
    """One thread with at most one connection. Everything here but `__init__`, `give`, `end` runs in it."""

    def __init__(
        self, name: str, opener: Opener, done: Callable[[_Worker, Any, Failure | None], None]
    ) -> None:
        self._opener = opener
        self._done = done
        self._jobs: queue.SimpleQueue[Work[Any] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def give(self, work: Work[Any]) -> None:
        """Have something done; the answer comes to `done` on the loop."""
        self._jobs.put(work)

    def end(self) -> None:
        """End after what runs now; does not wait."""
        self._jobs.put(None)

    def _run(self) -> None:
        held: list[libvirt.virConnect] = []
        while (work := self._jobs.get()) is not None:
            result, failure = self._do(work, held)
            del work  # nothing of a job may wait here for the next one
            if not self._answer(result, failure):
                break
            del result
        drop(held)

    def _do(self, work: Work[Any], held: list[libvirt.virConnect]) -> tuple[Any, Failure | None]:
        """The result or a failure. No exception leaves: its traceback would carry libvirt's objects along."""
        try:
            if held and not held[0].isAlive():
                drop(held)
            if not held:
                held.append(self._opener())
            return work(held[0]), None
        except OperationError as error:
            return None, error.failure
        except libvirt.libvirtError as error:
            return None, failure_of(error)
        except Exception as error:
            log.error("a libvirt call failed in our own code\n%s", traceback.format_exc())
            return None, Failure(code=FailureCode.OTHER, text=cleaned(repr(error)), detail="internal error")

    def _answer(self, result: Any, failure: Failure | None) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._done, self, result, failure)
        except RuntimeError:  # the loop is closed: the program ends
            return False
        return True


class Lane:
    """Calls one after the other on one connection, each with a deadline of its own. Loop thread only."""

    def __init__(self, name: str, opener: Opener, *, idle_s: float | None = IDLE_S) -> None:
        self._name = name
        self._opener = opener
        self._idle_s = idle_s
        self._waiting: deque[_Job[Any]] = deque()
        self._running: _Job[Any] | None = None
        self._worker: _Worker | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: set[_Worker] = set()
        self._ended: set[_Worker] = set()
        self._closed: Failure | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a call runs or waits."""
        return self._running is not None

    @property
    def stuck(self) -> int:
        """How many calls are past their deadline and have not come back."""
        return len(self._stuck)

    @property
    def has_threads(self) -> bool:
        """Whether a thread of this lane is still there that is not stuck."""
        workers = (self._ended | {self._worker}) - self._stuck
        return any(worker is not None and worker.thread.is_alive() for worker in workers)

    async def call(self, work: Work[T], deadline_s: float | None, what: str) -> T:
        """Have `work(connection)` done in the lane's thread; `deadline_s` counts from its start.

        The result must not contain an object of libvirt's. Cancelling the awaiting task forgets the call; one that
        already runs goes on to its end.

        Raises:
            OperationError: what libvirt said, or TIMEOUT.
        """
        if self._closed is not None:
            raise OperationError(self._closed)
        if len(self._stuck) >= MAX_STUCK:
            raise OperationError(
                Failure(
                    code=FailureCode.TIMEOUT,
                    text=f"{what}: not tried, {len(self._stuck)} earlier calls have not come back",
                )
            )
        job = _Job(work, asyncio.get_running_loop().create_future(), deadline_s, what)
        self._waiting.append(job)
        self._next()
        try:
            return await job.future
        finally:
            with contextlib.suppress(ValueError):  # cancelled before it began
                self._waiting.remove(job)

    def close(self, failure: Failure) -> None:
        """Fail what waits and runs, end the thread when it comes back. Does not wait."""
        if self._closed is not None:
            return
        self._closed = failure
        self._stop_timer()
        jobs = ([self._running] if self._running else []) + list(self._waiting)
        self._running = None
        self._waiting.clear()
        for job in jobs:
            _fail(job, failure)
        self._end_worker()

    # --- inside, on the loop ---

    def _next(self) -> None:
        if self._running is not None or not self._waiting or self._closed is not None:
            return
        self._stop_timer()
        if self._worker is None:
            self._worker = _Worker(self._name, self._opener, self._done)
        job = self._running = self._waiting.popleft()
        self._worker.give(job.work)
        if job.deadline_s is not None:
            self._timer = asyncio.get_running_loop().call_later(job.deadline_s, self._overdue)

    def _done(self, worker: _Worker, result: Any, failure: Failure | None) -> None:
        if worker in self._stuck:
            self._stuck.discard(worker)
            worker.end()
            return
        job = self._running
        if worker is not self._worker or job is None:
            return
        self._stop_timer()
        self._running = None
        if failure is not None:
            _fail(job, failure)
        elif not job.future.done():
            job.future.set_result(result)
        self._next()
        if self._running is None and self._idle_s is not None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._end_worker)

    def _overdue(self) -> None:
        job, worker = self._running, self._worker
        assert job is not None and worker is not None
        self._timer = self._running = self._worker = None
        self._stuck.add(worker)
        text = f"{job.what}: no answer within {job.deadline_s:g} s"
        _fail(job, Failure(code=FailureCode.TIMEOUT, text=text))
        self._next()

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._ended = {worker for worker in self._ended if worker.thread.is_alive()} | {self._worker}
            self._worker = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _fail(job: _Job[Any], failure: Failure) -> None:
    if not job.future.done():
        job.future.set_exception(OperationError(failure))


class LanePool:
    """A lane for each call that runs at the same time; idle ones are used again. Loop thread only."""

    def __init__(self, name: str, opener: Opener) -> None:
        self._name = name
        self._opener = opener
        self._lanes: list[Lane] = []
        self._closed: Failure | None = None

    async def call(self, work: Work[T], deadline_s: float | None, what: str) -> T:
        """As `Lane.call`, on a connection that nothing else uses meanwhile."""
        if self._closed is not None:
            raise OperationError(self._closed)
        lane = next((lane for lane in self._lanes if not lane.is_busy and not lane.stuck), None)
        if lane is None:
            lane = Lane(f"{self._name} {len(self._lanes) + 1}", self._opener)
            self._lanes.append(lane)
        try:
            return await lane.call(work, deadline_s, what)
        finally:
            if lane.stuck and lane in self._lanes:
                self._lanes.remove(lane)

    @property
    def has_threads(self) -> bool:
        """Whether a thread is still there that is not stuck."""
        return any(lane.has_threads for lane in self._lanes)

    def close(self, failure: Failure) -> None:
        """Close all lanes. Does not wait."""
        self._closed = failure
        for lane in self._lanes:
            lane.close(failure)

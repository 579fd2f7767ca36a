"""Lanes: daemon threads with a libvirt connection each, so that a host that hangs costs a thread, no more.

No call of libvirt has a time limit, and a connection inside a long call stalls every other call on it. So
each kind of work has a lane; libvirt's objects live and die in their lane's thread, and only values leave it.
A call that outlives its deadline loses its thread: the lane goes on with a new one, and the old one drops its
own things if it ever comes back. Threads are daemons and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
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
"""Calls of one lane that may hang at once; then further ones are refused: they would only eat threads."""
MAX_STUCK_IN_POOL = 8
"""The same for all lanes of a pool together."""
IDLE_S = 60.0
"""A lane without work gives its connection back after this long."""


def drop(held: list[libvirt.virConnect]) -> None:
    """Empty a list of connections, in the thread that opened them; may hang as long as the host does.

    The event thread must never hold the last reference to a connection: closing it there could hang the
    events of all hosts. So the callbacks go first, then we wait until the reference is ours alone; a
    connection of which it never becomes so is not freed.
    """
    while held:
        connection = held.pop()
        for of in ("domain", "network", "storagePool", "secret"):
            for callback in list(getattr(connection, f"{of}EventCallbackID", ())):
                with contextlib.suppress(libvirt.libvirtError):
                    getattr(connection, f"{of}EventDeregisterAny")(callback)
        with contextlib.suppress(libvirt.libvirtError):
            connection.unregisterCloseCallback()
        for _ in range(100):
            if sys.getrefcount(connection) <= 2:  # our name, and the argument of the question
                break
            time.sleep(0.02)
        else:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        del connection


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    """One call that waits or runs in a lane."""

    work: Work[T]
    future: asyncio.Future[T]
    deadline_s: float | None
    what: str

    def fail(self, failure: Failure) -> None:
        """Tell whoever waits, if anyone still does."""
        if not self.future.done():
            self.future.set_exception(OperationError(failure))


class _Worker:
    """One thread with at most one connection. `give` and `end` are for the loop, the rest is the thread's."""

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
            try:
                self._loop.call_soon_threadsafe(self._done, self, result, failure)
            except RuntimeError:  # the loop is closed: the program ends
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


class Lane:
    """Calls one after the other on one connection, each with a deadline of its own. Loop thread only."""

    def __init__(self, name: str, opener: Opener, *, idle_s: float | None = IDLE_S) -> None:
        self._name = name
        self._opener = opener
        self._idle_s = idle_s
        self._waiting: deque[_Job[Any]] = deque()
        self._running: _Job[Any] | None = None
        self._worker: _Worker | None = None
        self._timer: asyncio.TimerHandle | None = None  # of the running call, or of idleness
        self._stuck: set[_Worker] = set()
        self._ending: set[_Worker] = set()
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
        """Whether a thread of this lane is on its way to its end. Stuck ones are not counted."""
        return any(worker.thread.is_alive() for worker in self._ending)

    def start(self, work: Work[T], deadline_s: float | None, what: str) -> asyncio.Future[T]:
        """Have `work(connection)` done in the lane's thread; `deadline_s` counts from its start.

        The result must not contain an object of libvirt's. The future fails with an `OperationError`: what
        libvirt said, or TIMEOUT. Cancelling it forgets the call; one that already runs goes on to its end.
        """
        job: _Job[T] = _Job(work, asyncio.get_running_loop().create_future(), deadline_s, what)
        if self._closed is not None:
            job.fail(self._closed)
        elif len(self._stuck) >= MAX_STUCK:
            job.fail(_too_many(what, len(self._stuck)))
        else:
            self._waiting.append(job)
            self._next()
        return job.future

    async def call(self, work: Work[T], deadline_s: float | None, what: str) -> T:
        """As `start`, and wait for it."""
        return await self.start(work, deadline_s, what)

    def close(self, failure: Failure, *, let_finish: bool = False) -> None:
        """Fail what waits, and end the thread when it comes back. Does not wait.

        What runs fails too, unless it is let finish.
        """
        self._closed = self._closed or failure
        for job in self._waiting:
            job.fail(failure)
        self._waiting.clear()
        if self._running is not None and not let_finish:
            self._running.fail(failure)
            self._running = None
        if self._running is None:
            self._stop_timer()
            self._end_worker()

    # --- inside, on the loop ---

    def _next(self) -> None:
        while self._waiting and self._waiting[0].future.done():  # cancelled before it began
            self._waiting.popleft()
        if self._running is not None or not self._waiting:
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
            return
        job = self._running
        if worker is not self._worker or job is None:
            return  # closed meanwhile
        self._stop_timer()
        self._running = None
        if failure is not None:
            job.fail(failure)
        elif not job.future.done():
            job.future.set_result(result)
        self._next()
        if self._closed is not None:
            self._end_worker()
        elif self._running is None and self._idle_s is not None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._end_worker)

    def _overdue(self) -> None:
        job, worker = self._running, self._worker
        self._timer = self._running = self._worker = None
        if job is None or worker is None:
            return
        self._stuck.add(worker)
        worker.end()  # as soon as it comes back
        text = f"{job.what}: no answer within {job.deadline_s:g} s"
        job.fail(Failure(code=FailureCode.TIMEOUT, text=text))
        self._next()

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._ending = {worker for worker in self._ending if worker.thread.is_alive()}
            self._ending.add(self._worker)
            self._worker = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
        stuck = sum(lane.stuck for lane in self._lanes)
        if stuck >= MAX_STUCK_IN_POOL:
            raise OperationError(_too_many(what, stuck))
        lane = next((lane for lane in self._lanes if not lane.is_busy and not lane.stuck), None)
        if lane is None:
            lane = Lane(f"{self._name} {len(self._lanes) + 1}", self._opener)
            self._lanes.append(lane)
        return await lane.call(work, deadline_s, what)

    @property
    def has_threads(self) -> bool:
        """Whether a thread is on its way to its end. Stuck ones are not counted."""
        return any(lane.has_threads for lane in self._lanes)

    def close(self, failure: Failure, *, let_finish: bool = False) -> None:
        """Close all lanes, as `Lane.close`."""
        self._closed = failure
        for lane in self._lanes:
            lane.close(failure, let_finish=let_finish)


def _too_many(what: str, stuck: int) -> Failure:
    text = f"{what}: not tried, {stuck} earlier calls have not come back"
    return Failure(code=FailureCode.TIMEOUT, text=text)

"""libvirt's event loop: one thread for the whole process, on epoll, so that events and keep-alives flow.

libvirt's default implementation is not used: since 6.x it iterates glib's *default main context*, and so does
Qt's event dispatcher in the window's thread. With both in one process, whoever owns the context starves the
other: not one Qt timer fired in three seconds. Source: libvirt src/util/vireventglib.c, virEventGLibRunOnce;
Qt src/corelib/kernel/qeventdispatcher_glib.cpp.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import libvirt

_READ, _WRITE = libvirt.VIR_EVENT_HANDLE_READABLE, libvirt.VIR_EVENT_HANDLE_WRITABLE
_ERROR, _HANG_UP = libvirt.VIR_EVENT_HANDLE_ERROR, libvirt.VIR_EVENT_HANDLE_HANGUP


@dataclass(slots=True)
class _Watch:
    """A file descriptor that libvirt wants to hear of."""

    id: int
    fd: int
    events: int
    callback: Callable[[int, int, int, Any], None]
    opaque: Any


@dataclass(slots=True)
class _Timer:
    """A repeating timer of libvirt's; `interval_s` below 0 means off."""

    id: int
    interval_s: float
    due_s: float
    callback: Callable[[int, Any], None]
    opaque: Any


class EventLoop:
    """The six calls of libvirt's event interface, and the thread that serves them.

    The calls come from any thread, often with locks of libvirt's held: they only change tables and never
    call libvirt. Freeing what libvirt handed over is left to the loop's own thread, as its interface demands.
    Source: libvirt virEventRegisterImpl.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._watches: dict[int, _Watch] = {}
        self._by_fd: dict[int, list[_Watch]] = {}
        self._timers: dict[int, _Timer] = {}
        self._last_id = 0
        self._to_free: list[Any] = []
        self._sleeps_until_s = 0.0

    # --- called by libvirt, from any thread ---

    def add_watch(self, fd: int, events: int, callback: Callable[..., None], opaque: Any) -> int:
        """Begin to watch a descriptor; returns the watch's number."""
        with self._lock:
            self._last_id += 1
            watch = _Watch(self._last_id, fd, events, callback, opaque)
            self._watches[watch.id] = watch
            self._by_fd.setdefault(fd, []).append(watch)
            self._arm(fd)
            return watch.id

    def update_watch(self, watch_id: int, events: int) -> None:
        """Change what is waited for; 0 means nothing."""
        with self._lock:
            watch = self._watches.get(watch_id)
            if watch is not None:
                watch.events = events
                self._arm(watch.fd)

    def remove_watch(self, watch_id: int) -> int:
        """Stop watching; what it held is freed later by the loop's thread."""
        with self._lock:
            watch = self._watches.pop(watch_id, None)
            if watch is None:
                return -1
            others = self._by_fd[watch.fd]
            others.remove(watch)
            self._arm(watch.fd)
            if not others:
                del self._by_fd[watch.fd]
            self._to_free.append(watch.opaque)
            self._wake_up()
            return 0

    def add_timer(self, interval_ms: int, callback: Callable[..., None], opaque: Any) -> int:
        """A repeating timer; returns its number."""
        with self._lock:
            self._last_id += 1
            timer = _Timer(self._last_id, -1.0, 0.0, callback, opaque)
            self._timers[timer.id] = timer
            self._set(timer, interval_ms)
            return timer.id

    def update_timer(self, timer_id: int, interval_ms: int) -> None:
        """Change a timer's interval; below 0 turns it off, 0 means at once."""
        with self._lock:
            timer = self._timers.get(timer_id)
            if timer is not None:
                self._set(timer, interval_ms)

    def remove_timer(self, timer_id: int) -> int:
        """Forget a timer; what it held is freed later by the loop's thread."""
        with self._lock:
            timer = self._timers.pop(timer_id, None)
            if timer is None:
                return -1
            self._to_free.append(timer.opaque)
            self._wake_up()
            return 0

    # --- with the lock held ---

    def _arm(self, fd: int) -> None:
        """Tell epoll what the watches of a descriptor want.

        A descriptor of which nothing is wanted is taken out: epoll reports a hang-up even then, for ever.
        """
        wanted = 0
        for watch in self._by_fd[fd]:
            wanted |= watch.events
        mask = (select.EPOLLIN if wanted & _READ else 0) | (select.EPOLLOUT if wanted & _WRITE else 0)
        # A descriptor that libvirt has closed already is gone from epoll; a later one may have its number.
        with contextlib.suppress(OSError):
            if not wanted:
                self._epoll.unregister(fd)
                return
            try:
                self._epoll.modify(fd, mask)
            except FileNotFoundError:
                self._epoll.register(fd, mask)

    def _set(self, timer: _Timer, interval_ms: int) -> None:
        timer.interval_s = interval_ms / 1000
        timer.due_s = time.monotonic() + timer.interval_s
        if interval_ms >= 0 and timer.due_s < self._sleeps_until_s:
            self._wake_up()

    def _wake_up(self) -> None:
        os.eventfd_write(self._wake, 1)

    # --- the thread ---

    def run(self) -> None:
        """Serve for ever."""
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Free, wait, call back."""
        with self._lock:
            to_free, self._to_free = self._to_free, []
            dues = [timer.due_s for timer in self._timers.values() if timer.interval_s >= 0]
            self._sleeps_until_s = min(dues, default=float("inf"))
        for opaque in to_free:
            libvirt.virEventInvokeFreeCallback(opaque)
        del to_free
        wait_s = None if not dues else max(0.0, self._sleeps_until_s - time.monotonic())
        for fd, mask in self._epoll.poll(wait_s):
            if fd == self._wake:
                os.eventfd_read(self._wake)
            else:
                self._tell_watches(fd, mask)
        self._tell_timers()

    def _tell_watches(self, fd: int, mask: int) -> None:
        events = (_READ if mask & select.EPOLLIN else 0) | (_WRITE if mask & select.EPOLLOUT else 0)
        events |= (_ERROR if mask & select.EPOLLERR else 0) | (_HANG_UP if mask & select.EPOLLHUP else 0)
        with self._lock:
            watches = [w for w in self._by_fd.get(fd, ()) if events & (w.events | _ERROR | _HANG_UP)]
        for watch in watches:
            if watch.id in self._watches:
                watch.callback(watch.id, fd, events, watch.opaque)

    def _tell_timers(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            due = [t for t in self._timers.values() if t.interval_s >= 0 and t.due_s <= now_s]
            for timer in due:
                timer.due_s = now_s + timer.interval_s
        for timer in due:
            if timer.id in self._timers:
                timer.callback(timer.id, timer.opaque)


_started = threading.Lock()


def start() -> None:
    """Give libvirt its event loop, once per process, before the first connection is opened.

    Also ends libvirt's habit of writing every error to stderr. Any thread.
    """
    if not _started.acquire(blocking=False):
        return
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    loop = EventLoop()
    libvirt.virEventRegisterImpl(
        loop.add_watch,
        loop.update_watch,
        loop.remove_watch,
        loop.add_timer,
        loop.update_timer,
        loop.remove_timer,
    )
    threading.Thread(target=loop.run, name="libvirt events", daemon=True).start()

"""libvirt's event loop beside Qt's: neither may starve the other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from manager.backends.libvirt.event_loop import EventLoop

TOGETHER = """
import sys, threading
from pathlib import Path
from manager.backends.libvirt import event_loop
import libvirt
from PySide6.QtCore import QCoreApplication, QObject, QTimer

event_loop.start()
app = QCoreApplication([])
connection = libvirt.open("test:///default")
seen, ticks, threads = [], [], set()

def told(_connection, domain, event, detail, _opaque):
    seen.append(event)

connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, told, None)
domain = connection.lookupByName("test")

def tick():
    ticks.append(1)
    threads.add(threading.current_thread() is threading.main_thread())
    (domain.suspend if len(ticks) % 2 else domain.resume)()
    if len(ticks) >= 50 and len(seen) >= 50:
        app.quit()

timer = QTimer()
timer.timeout.connect(tick)
timer.start(5)
app.exec()
print(len(seen) >= 50, threads, app.eventDispatcher().metaObject().className())
for callback in list(connection.domainEventCallbackID):
    connection.domainEventDeregisterAny(callback)
"""


def test_qt_and_libvirt_share_a_process() -> None:
    """With libvirt's default loop this hangs: it iterates the same glib context as Qt's main thread."""
    environment = {name: value for name, value in os.environ.items() if name != "QT_NO_GLIB"}
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True {True} QEventDispatcherGlib")


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def test_watches_are_told_until_they_are_removed(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    loop = EventLoop()
    seen: list[tuple[int, int, int]] = []

    def heard(watch: int, fd: int, events: int, _opaque: object) -> None:
        seen.append((watch, fd, events))

    watch = loop.add_watch(reader, 1, heard, None)
    os.write(writer, b"x")
    loop.run_once()
    assert seen == [(watch, reader, 1)]
    loop.update_watch(watch, 0)
    timer = loop.add_timer(0, lambda *_: seen.append((0, 0, 0)), None)
    loop.run_once()
    assert seen[1:] == [(0, 0, 0)]  # nothing of the pipe, though it can still be read
    os.close(writer)
    loop.run_once()
    assert seen[2:] == [(0, 0, 0)]  # and its hang-up does not spin
    loop.update_watch(watch, 1)
    loop.update_timer(timer, -1)
    loop.run_once()
    assert seen[-1][:2] == (watch, reader)
    os.close(reader)


def test_a_new_timer_wakes_a_sleeping_loop() -> None:
    loop = EventLoop()
    told = threading.Event()
    thread = threading.Thread(target=lambda: [loop.run_once() for _ in range(2)], daemon=True)
    thread.start()
    loop.add_timer(1, lambda *_: told.set(), None)
    assert told.wait(5)
    loop.add_timer(0, lambda *_: None, None)
    thread.join(5)
    assert not thread.is_alive()

"""What flows through libvirt's streams: pictures of screens, and serial consoles."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import Callable

import libvirt

from manager.backends.libvirt.domain_xml import MAX_XML_BYTES
from manager.backends.libvirt.errors import cleaned
from manager.backends.libvirt.lane import Lane
from manager.backends.libvirt.reading import lookup
from manager.backends.libvirt.xml_text import root_of
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.ids import VmId
from manager.services.pictures import MAX_PICTURE_BYTES, as_png

OPEN_S = 10.0
CHUNK = 64 << 10
MAX_UNREAD = 1 << 20
"""Bytes of a console that wait to be read; then the oldest are dropped: a guest may write without end."""

BUSY_S, QUIET_S = 0.005, 0.03
BUSY_FOR_S = 0.5
"""How often a console is looked at: soon after something came or was typed, and else."""


def definition(connection: libvirt.virConnect, vm: VmId, *, stored: bool = False) -> str:
    """A VM's definition as it is now, or as it starts the next time. Lane threads only.

    Without VIR_DOMAIN_XML_SECURE it has no passwords. Source: libvirt virDomainGetXMLDesc.
    """
    xml = str(lookup(connection, vm).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if stored else 0))
    if len(xml) > MAX_XML_BYTES:
        raise OperationError(_failure(FailureCode.OTHER, f"it is larger than {MAX_XML_BYTES >> 20} MiB"))
    return xml


def screenshot(connection: libvirt.virConnect, vm: VmId) -> bytes:
    """What a VM's screen shows, as a PNG. Lane threads only.

    Source: libvirt virDomainScreenshot, whose pictures from QEMU are PPM.
    """
    domain = _running(connection, vm)
    _need_device(domain, "video", "graphics device")
    stream = connection.newStream(0)
    domain.screenshot(stream, 0, 0)
    parts: list[bytes] = []
    size = 0
    try:
        while part := stream.recv(CHUNK):
            parts.append(part)
            size += len(part)
            if size > MAX_PICTURE_BYTES:
                text = f"its picture is larger than {MAX_PICTURE_BYTES >> 20} MiB"
                raise OperationError(_failure(FailureCode.OTHER, text))
        stream.finish()
    except BaseException:
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()
        raise
    try:
        return as_png(b"".join(parts))
    except ValueError as error:
        raise OperationError(_failure(FailureCode.OTHER, cleaned(str(error)))) from None


def _running(connection: libvirt.virConnect, vm: VmId) -> libvirt.virDomain:
    domain = lookup(connection, vm)
    if not domain.isActive():
        raise OperationError(_failure(FailureCode.WRONG_STATE, "it is not running"))
    return domain


def _need_device(domain: libvirt.virDomain, tag: str, what: str) -> None:
    """libvirt's own errors for a missing device have no number of their own."""
    try:
        found = root_of(domain.XMLDesc(0)).find(f"devices/{tag}")
    except ValueError:
        return  # whatever it is, libvirt itself will say
    model = found.find("model") if found is not None else None
    if found is None or (model is not None and model.get("type") == "none"):
        raise OperationError(_failure(FailureCode.NOT_SUPPORTED, f"it has no {what}"))


def _failure(code: FailureCode, text: str) -> Failure:
    return Failure(code=code, text=text)


class SerialConsole:
    """One open console, on a lane of its own. See `manager.services.ports.Console`; loop thread only.

    The stream is not blocking and is looked at by the lane's thread: callbacks of libvirt's would hold the
    stream in the thread that brings the events of all hosts.
    """

    def __init__(self, lane: Lane, vm: VmId, *, take_over: bool) -> None:
        self.lane = lane
        self.why_ended = ""
        self._vm = vm
        self._flags = libvirt.VIR_DOMAIN_CONSOLE_FORCE if take_over else 0
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._unread = bytearray()
        self._news = asyncio.Event()
        self._typed: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # None: close

    async def open(self) -> None:
        """Open it. Raises `OperationError`."""
        carried = self.lane.start(self._carry, None, "console")
        carried.add_done_callback(self._over)
        try:
            async with asyncio.timeout(OPEN_S):
                await self._opened
        except TimeoutError:
            text = f"opening the console: no answer within {OPEN_S:g} s"
            raise OperationError(_failure(FailureCode.TIMEOUT, text)) from None
        finally:
            if not self._opened.done() or self._opened.cancelled():
                self.close()

    async def read(self) -> bytes:
        """What came since; empty once it is over."""
        while not self._unread and not self.why_ended:
            self._news.clear()
            await self._news.wait()
        data = bytes(self._unread)
        self._unread.clear()
        return data

    def write(self, data: bytes) -> None:
        """Type."""
        if data and not self.why_ended:
            self._typed.put(data)

    def close(self) -> None:
        """Let go of it."""
        self._end("closed")
        self._typed.put(None)
        self.lane.close(_failure(FailureCode.CANCELLED, "closed"), let_finish=True)

    # --- on the loop ---

    def _take(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > MAX_UNREAD:
            del self._unread[: len(self._unread) - MAX_UNREAD]
        self._news.set()

    def _is_open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _over(self, carried: asyncio.Future[None]) -> None:
        error = None if carried.cancelled() else carried.exception()
        if not self._opened.done():
            self._opened.set_exception(error or OperationError(_failure(FailureCode.OTHER, "it ended")))
        self._end(
            str(error) if error is not None else "the VM stopped, left its node, or another took it over"
        )
        self.lane.close(_failure(FailureCode.CANCELLED, "closed"), let_finish=True)

    def _end(self, why: str) -> None:
        self.why_ended = self.why_ended or why
        self._news.set()

    # --- in the lane's thread ---

    def _tell(self, call: Callable[..., None], *words: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the program ends
            self._loop.call_soon_threadsafe(call, *words)

    def _carry(self, connection: libvirt.virConnect) -> None:
        domain = _running(connection, self._vm)
        _need_device(domain, "console", "serial console")
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, stream, self._flags)
        try:
            self._tell(self._is_open)
            self._pass_on(stream)
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                stream.abort()

    def _pass_on(self, stream: libvirt.virStream) -> None:
        unsent = b""
        busy_until = 0.0
        while True:
            got = stream.recv(CHUNK)
            if isinstance(got, bytes):
                if not got:
                    return
                self._tell(self._take, got)
            if unsent:
                sent = stream.send(unsent)  # -2: not now
                unsent = unsent[sent:] if sent > 0 else unsent
            now = time.monotonic()
            if isinstance(got, bytes):
                busy_until = now + BUSY_FOR_S
            try:
                typed = self._typed.get(timeout=BUSY_S if now < busy_until or unsent else QUIET_S)
            except queue.Empty:
                continue
            if typed is None:
                return
            unsent += typed
            busy_until = now + BUSY_FOR_S

"""One owner of operations per cluster and user: a lock, a socket, and clients that mirror the owner.

The process that holds the lock runs the operations and their journal. Others send it their requests
and show its operations as their own. When an owner ends, a client takes the lock and the journal over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from manager.core.actions import ACTIONS, Plan, PlanStep
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.events import (
    ActionRequested,
    CancelRequested,
    Event,
    OperationsReported,
)
from manager.core.ids import ClusterId, Kind, OperationId, TraceId
from manager.core.migration.progress import MoveProgress
from manager.core.operations import Operation
from manager.services.ports import Clock
from manager.services.tasks import Tasks

log = logging.getLogger(__name__)

MAX_FRAME = 64 * 1024 * 1024
REPORT_INTERVAL_S = 0.2
RETRY_S = 0.5
UNKNOWN_OWNER_S = 5.0
"""How long a client waits for the first word of an owner that holds the lock."""


class Lock(Protocol):
    """Held by at most one process per cluster and user; dropped by the kernel when it dies."""

    def try_take(self) -> bool:
        """Take it if it is free; never waits. Raises `OSError` if it cannot be used at all."""
        ...

    def owner_pid(self) -> int | None:
        """After a refusal: who holds it, if that can be told."""
        ...

    def release(self) -> None:
        """Give it up."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Where the owner of a cluster's operations is found."""

    lock: Lock
    socket: Path


class _Request(msgspec.Struct, tag="request", frozen=True):
    action: str
    cluster: ClusterId
    parameters: msgspec.Raw
    steps: tuple[PlanStep, ...]
    author: str
    operation: OperationId


class _Cancel(msgspec.Struct, tag="cancel", frozen=True):
    operations: tuple[OperationId, ...]
    author: str


class _Report(msgspec.Struct, tag="report", frozen=True):
    operations: tuple[Operation, ...]
    progress: tuple[tuple[OperationId, MoveProgress], ...]


_encoder = msgspec.msgpack.Encoder()
_from_client = msgspec.msgpack.Decoder(_Request | _Cancel)
_from_owner = msgspec.msgpack.Decoder(_Report)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    return await reader.readexactly(size)


def _frame(message: msgspec.Struct) -> bytes:
    data = _encoder.encode(message)
    return len(data).to_bytes(4, "big") + data


class Engine:
    """This process's part: owner or client. Loop thread only."""

    def __init__(
        self,
        *,
        ownership: Ownership | None,
        view: ClusterView,
        clock: Clock,
        dispatch: Callable[[Event], None],
        take_over: Callable[[], Awaitable[None]],
        tasks: Tasks,
    ) -> None:
        self._ownership = ownership
        self._view = view
        self._clock = clock
        self._dispatch = dispatch
        self._take_over = take_over
        self._tasks = tasks
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._owner: asyncio.StreamWriter | None = None
        self._asked: dict[OperationId, ActionRequested] = {}  # of the owner, and not reported yet
        self._changed: set[OperationId] = set()
        self._reporting = False
        self._heard = asyncio.Event()
        self.is_owner = False

    async def start(self) -> None:
        """Become the owner, or a client of the one there is.

        Raises:
            OSError: The lock or the journal cannot be used, or the owner does not answer.
        """
        if self._ownership is None or self._ownership.lock.try_take():
            await self._own()
            return
        self._tasks.spawn(self._follow(self._ownership), "owner of operations")
        try:
            await asyncio.wait_for(self._heard.wait(), UNKNOWN_OWNER_S)
        except TimeoutError:
            pid = self._ownership.lock.owner_pid()
            who = f"process {pid}" if pid else "another process"
            raise OSError(f"{who} owns the operations of {self._view.id} and does not answer") from None

    async def close(self) -> None:
        """Give the ownership up; a client takes over."""
        if self._server is not None:
            self._server.close()
        if self.is_owner:
            self._tell_clients()  # what ended just now is not in the journal that one of them reads next
        for writer in (*self._clients, *([self._owner] if self._owner else ())):
            writer.close()
        self._clients.clear()
        if self._ownership is not None:
            if self.is_owner:
                with contextlib.suppress(OSError):
                    self._ownership.socket.unlink()
            self._ownership.lock.release()  # does nothing if it is not ours

    # --- requests --------------------------------------------------------------------------

    def send(self, event: Event) -> None:
        """Carry a request out here, or have the owner do it.

        Raises:
            OSError: The owner was just lost; in a moment this process or another is the owner.
        """
        if self.is_owner:
            self._dispatch(event)
            return
        if self._owner is None:
            raise OSError("the owner of this cluster's operations was lost; try again in a moment")
        if isinstance(event, ActionRequested):
            plan = event.plan
            self._asked[event.operation] = event
            self._owner.write(
                _frame(
                    _Request(
                        action=plan.action,
                        cluster=plan.cluster,
                        parameters=msgspec.Raw(_encoder.encode(plan.parameters)),
                        steps=plan.steps,
                        author=event.author,
                        operation=event.operation,
                    )
                )
            )
        elif isinstance(event, CancelRequested):
            self._owner.write(_frame(_Cancel(operations=event.operations, author=event.author)))
        else:
            raise TypeError(f"{type(event).__name__} is not a request")

    # --- the owner's side ------------------------------------------------------------------

    async def _own(self) -> None:
        await self._take_over()
        self.is_owner = True
        self._heard.set()
        # What the last owner never wrote down it never started: asked again, of ourselves.
        asked, self._asked = self._asked, {}
        for key, event in asked.items():
            if key not in self._view.operations:
                self._dispatch(event)
        if self._ownership is None:
            return
        path = self._ownership.socket
        with contextlib.suppress(OSError):
            path.unlink()  # left by an owner that died; nobody else may listen: we hold the lock
        try:
            self._server = await asyncio.start_unix_server(self._serve, path)
            path.chmod(0o600)
        except OSError as error:
            log.warning("other windows and commands cannot reach this one: %s", error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(writer)
        try:
            writer.write(_frame(self._report(self._view.operations)))
            while True:
                self._take(_from_client.decode(await _read_frame(reader)))
        except (OSError, EOFError, ValueError, msgspec.DecodeError, asyncio.IncompleteReadError) as e:
            if not isinstance(e, (asyncio.IncompleteReadError, ConnectionError)):
                log.warning("a client was hung up on: %s", e)
        finally:
            self._clients.discard(writer)
            writer.close()

    def _take(self, message: _Request | _Cancel) -> None:
        now_s = self._clock.now_s()
        if isinstance(message, _Cancel):
            self._dispatch(CancelRequested(at_s=now_s, operations=message.operations, author=message.author))
            return
        spec = ACTIONS.get(message.action)
        if spec is None or message.cluster != self._view.id:
            raise ValueError(f"unknown action {message.action!r}")
        plan: Plan[Any] = Plan(
            action=spec.id,
            cluster=message.cluster,
            parameters=msgspec.msgpack.decode(message.parameters, type=type(spec.default)),
            steps=message.steps,
            skipped=(),
            revision=self._view.revision,
        )
        self._dispatch(
            ActionRequested(
                at_s=now_s,
                trace=TraceId(message.operation),
                plan=plan,
                author=message.author,
                operation=message.operation,
            )
        )

    def changed(self, changes: ChangeSet) -> None:
        """Tell clients what changed in the operations, a few times a second at most."""
        if not self.is_owner or not self._clients:
            return
        operations = changes[Kind.OPERATION]
        self._changed |= {OperationId(k) for k in (*operations.added, *operations.updated)}
        if self._changed and not self._reporting:
            self._reporting = True
            self._tasks.spawn(self._report_soon(), "report")

    async def _report_soon(self) -> None:
        await asyncio.sleep(REPORT_INTERVAL_S)
        self._reporting = False
        self._tell_clients()

    def _tell_clients(self) -> None:
        keys, self._changed = self._changed, set()
        data = _frame(self._report(keys))
        for writer in tuple(self._clients):
            if writer.transport.get_write_buffer_size() > MAX_FRAME:
                writer.close()  # a client that does not read must not fill our memory
            else:
                writer.write(data)

    def _report(self, keys: Iterable[OperationId]) -> _Report:
        operations, progress = self._view.operations, self._view.progress
        keys = [k for k in keys if k in operations]
        return _Report(
            operations=tuple(operations[k] for k in keys),
            progress=tuple((k, progress[k]) for k in keys if k in progress),
        )

    # --- a client's side -------------------------------------------------------------------

    async def _follow(self, ownership: Ownership) -> None:
        """Mirror the owner; when it is gone, become the owner or follow the next one."""
        while not self.is_owner:
            try:
                reader, writer = await asyncio.open_unix_connection(ownership.socket)
            except OSError:
                if ownership.lock.try_take():
                    await self._own()
                    return
                await asyncio.sleep(RETRY_S)
                continue
            self._owner = writer
            try:
                while True:
                    report = _from_owner.decode(await _read_frame(reader))
                    self._dispatch(
                        OperationsReported(
                            at_s=self._clock.now_s(),
                            operations=report.operations,
                            progress=report.progress,
                        )
                    )
                    for operation in report.operations:
                        self._asked.pop(operation.id, None)
                    self._heard.set()
            except (OSError, ValueError, msgspec.DecodeError, asyncio.IncompleteReadError) as error:
                log.info("the owner of operations is gone: %s", error)
            finally:
                self._owner = None
                writer.close()

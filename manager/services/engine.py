"""One owner of operations per cluster and user: a lock, a socket, and clients that mirror the owner.

The process that holds the lock runs the operations and their journal. Others send it their requests
and show its operations as their own. When an owner ends, a client takes the lock and the journal over.

Lock, journal and socket go by the cluster's name. Both sides begin with a hello that says which nodes they
mean by it: two clusters of one name never see each other's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from manager.core.actions import ACTIONS, Plan, PlanStep
from manager.core.changes import ChangeSet, LogEntry
from manager.core.chronicle import ClusterEvent
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.events import (
    ActionRequested,
    CancelRequested,
    Event,
    EventsTold,
    NoticeGiven,
    OperationsReported,
    ProblemsMarked,
    QueueRequested,
)
from manager.core.ids import ClusterId, Kind, OperationId, TraceId
from manager.core.migration.progress import MoveProgress
from manager.core.model import ClusterConfig, ProblemLife
from manager.core.operations import Operation
from manager.core.reasons import ReasonCode, because
from manager.services.ports import Clock
from manager.services.tasks import Tasks

log = logging.getLogger(__name__)

MAX_FRAME = 64 * 1024 * 1024
REPORT_INTERVAL_S = 0.2
RETRY_S = 0.5
UNKNOWN_OWNER_S = 5.0
"""How long a client waits for the first word of an owner that holds the lock."""

ANSWER_S = 10.0
"""How long an owner may take to answer a question."""

SIGN_OF_LIFE_S = 30.0

JUST_ENDED = 2_000
"""In so many of the newest ended operations is whatever an owner ended without telling it."""

PROTOCOL = 2
"""Raised when a message changes its shape or meaning: an owner may run for months."""


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

    def live(self, at_s: float) -> None:
        """Leave a sign of life, wall-clock seconds, for whoever holds it next."""
        ...

    @property
    def left_s(self) -> float | None:
        """Once taken: the last sign of life of who held it before; None if there never was one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Where the owner of a cluster's operations is found. `only_looks`: follow one, never become it."""

    lock: Lock
    socket: Path
    only_looks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that owns a cluster's operations, as it says itself."""

    pid: int
    file: str  # the cluster file it works by; empty: none
    stays: bool  # until it is told to end: ``muster engine``
    since_s: float  # wall clock

    def __str__(self) -> str:
        return f"process {self.pid} (muster engine)" if self.stays else f"process {self.pid}"


class _Hello(msgspec.Struct, tag="hello", frozen=True):
    protocol: int
    pid: int
    nodes: tuple[tuple[str, str], ...]  # names and URIs, sorted
    file: str
    stays: bool
    since_s: float


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


class _Steer(msgspec.Struct, tag="steer", frozen=True):
    event: QueueRequested


class _Mark(msgspec.Struct, tag="mark", frozen=True):
    event: ProblemsMarked


class _Ask(msgspec.Struct, tag="ask", frozen=True):
    number: int
    history: int = 0  # the newest so many that ended
    story: str = ""  # of an object, by its key
    events: int = 0  # the newest so many, since a moment
    since_s: float = 0.0


class _Report(msgspec.Struct, tag="report", frozen=True):
    operations: tuple[Operation, ...]
    progress: tuple[tuple[OperationId, MoveProgress], ...]
    events: tuple[ClusterEvent, ...] = ()  # the new ones
    lives: tuple[ProblemLife, ...] = ()


class _Answer(msgspec.Struct, tag="answer", frozen=True):
    number: int
    operations: tuple[Operation, ...] = ()
    story: tuple[LogEntry, ...] = ()
    events: tuple[ClusterEvent, ...] = ()
    trouble: str = ""


_encoder = msgspec.msgpack.Encoder()
_hello = msgspec.msgpack.Decoder(_Hello)
_from_client = msgspec.msgpack.Decoder(_Request | _Cancel | _Steer | _Mark | _Ask)
_from_owner = msgspec.msgpack.Decoder(_Report | _Answer)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    return await reader.readexactly(size)


def _frame(message: msgspec.Struct) -> bytes:
    data = _encoder.encode(message)
    return len(data).to_bytes(4, "big") + data


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A socket's path for binding and connecting: a long one is given by its folder's handle.

    Source: unix(7), sun_path holds 108 bytes.
    """
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _nodes(config: ClusterConfig) -> tuple[tuple[str, str], ...]:
    """What makes a cluster this one and no other."""
    return tuple(sorted((str(node.name), node.uri) for node in config.nodes))


def _difference(theirs: tuple[tuple[str, str], ...], ours: tuple[tuple[str, str], ...]) -> str:
    """How the nodes of an owner differ from those we know, in words; the first few."""
    lines = []
    for where, found, other in (("there", theirs, ours), ("here", ours, theirs)):
        only = [f"{name} ({uri})" for name, uri in found if (name, uri) not in other]
        more = f" and {len(only) - 3} more" if len(only) > 3 else ""
        if only:
            lines.append(f"only {where}: {', '.join(only[:3])}{more}")
    return "; ".join(lines)


class Engine:
    """This process's part: owner or client. Loop thread only."""

    def __init__(
        self,
        *,
        ownership: Ownership | None,
        view: ClusterView,
        clock: Clock,
        dispatch: Callable[[Event], None],
        take_over: Callable[[float | None], Awaitable[None]],
        history: Callable[[int], Awaitable[tuple[Operation, ...]]],
        happened: Callable[[float, int], Awaitable[tuple[ClusterEvent, ...]]],
        tasks: Tasks,
    ) -> None:
        self.stays = False
        """Whether this process stays until it is told to end, so that others may leave their work to it."""
        self.on_owner: Callable[[], None] = lambda: None
        """Called when this process or another one became the owner."""
        self._history = history
        self._happened = happened
        self._ownership = ownership
        self._view = view
        self._clock = clock
        self._dispatch = dispatch
        self._take_over = take_over
        self._tasks = tasks
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._owner: asyncio.StreamWriter | None = None
        self._followed: Owner | None = None
        self._refused = ""  # why the owner that there is cannot be ours
        self._questions: dict[int, asyncio.Future[_Answer]] = {}
        self._numbers = itertools.count(1)  # none twice: a late answer belongs to nobody
        self._since_s = 0.0
        self._started = False
        self._asked: dict[OperationId, ActionRequested] = {}  # of this owner or the last, not reported yet
        self._changed: set[OperationId] = set()
        self._new_events: list[ClusterEvent] = []
        self._new_lives: dict[str, ProblemLife] = {}
        self._reporting = False
        self._heard = asyncio.Event()
        self.is_owner = False

    @property
    def owner(self) -> Owner | None:
        """Who owns the operations now; None if nobody that we know of."""
        if not self.is_owner:
            return self._followed
        return Owner(pid=os.getpid(), file=self._view.config.file, stays=self.stays, since_s=self._since_s)

    async def start(self) -> None:
        """Become the owner, or a client of the one there is.

        Raises:
            OSError: The lock or the journal cannot be used, or the owner does not answer.
            UserError: The owner works on another cluster of this name, or is another version of Muster. Who
                only looks is not stopped by that: it shows no operations, and that is logged.
        """
        ownership = self._ownership
        if ownership is None or (not ownership.only_looks and ownership.lock.try_take()):
            await self._own()
            return
        nobody = ownership.only_looks and ownership.lock.try_take()
        if nobody:
            ownership.lock.release()
        self._tasks.spawn(self._follow(ownership), "owner of operations")
        if nobody:
            return
        try:
            await asyncio.wait_for(self._heard.wait(), UNKNOWN_OWNER_S)
        except TimeoutError:
            pid = ownership.lock.owner_pid()
            who = f"process {pid}" if pid else "another process"
            raise OSError(f"{who} owns the operations of {self._view.id} and does not answer") from None
        if self._refused and not ownership.only_looks:
            raise UserError(f"{self._refused} Nothing was done.")
        self._started = True
        if self._refused:
            self._tell_refusal()

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
                self._ownership.lock.live(self._clock.now_s())
                with contextlib.suppress(OSError):
                    self._ownership.socket.unlink()
            self._ownership.lock.release()  # does nothing if it is not ours

    # --- requests --------------------------------------------------------------------------

    def send(self, event: Event) -> None:
        """Carry a request out here, or have the owner do it; the next one, if the last was just lost.

        Raises:
            OSError: The owner cannot be ours; or it was just lost, and this steers what it no longer holds.
        """
        if self.is_owner:
            self._dispatch(event)
            return
        if self._owner is None:
            if isinstance(event, ActionRequested) and not self._refused:
                self._asked[event.operation] = event  # `_own` and `_ask_again` hand it on in a moment
                return
            raise OSError(
                self._refused or "the owner of this cluster's operations was lost; try again in a moment"
            )
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
        elif isinstance(event, QueueRequested):
            self._owner.write(_frame(_Steer(event=event)))
        elif isinstance(event, ProblemsMarked):
            self._owner.write(_frame(_Mark(event=event)))
        else:
            raise TypeError(f"{type(event).__name__} is not a request")

    async def history(self, limit: int) -> tuple[Operation, ...]:
        """The newest ended operations, newest first, from whoever owns the journal.

        Raises:
            OSError: Nobody that we know of does, there was no answer, or the journal cannot be read.
        """
        if self.is_owner:
            return await self._history(limit)
        return (await self._ask(history=limit)).operations

    async def story(self, key: str) -> tuple[LogEntry, ...]:
        """An object's story, from whoever carries out the operations on it. Raises `OSError` as `history`."""
        if self.is_owner:
            return self._view.story(key)
        return (await self._ask(story=key)).story

    async def events(self, since_s: float, limit: int) -> tuple[ClusterEvent, ...]:
        """The newest so many events since a moment, oldest first. Raises `OSError` as `history`."""
        if self.is_owner:
            return await self._happened(since_s, limit)
        return (await self._ask(events=limit, since_s=since_s)).events

    async def _ask(
        self, *, history: int = 0, story: str = "", events: int = 0, since_s: float = 0.0
    ) -> _Answer:
        if self._owner is None:
            raise OSError(self._refused or "nobody owns the operations of this cluster now")
        number = next(self._numbers)
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._questions[number] = future
        try:
            question = _Ask(number=number, history=history, story=story, events=events, since_s=since_s)
            self._owner.write(_frame(question))
            answer = await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise OSError(f"{self._followed} does not answer") from None
        finally:
            del self._questions[number]
        if answer.trouble:
            raise OSError(answer.trouble)
        return answer

    # --- the owner's side ------------------------------------------------------------------

    async def _own(self) -> None:
        lock = self._ownership.lock if self._ownership else None
        await self._take_over(lock.left_s if lock else None)
        if lock is not None:
            self._tasks.spawn(self._live(lock), "signs of life")
        self.is_owner = True
        self._since_s = self._clock.now_s()
        self._refuse("")
        self._heard.set()
        self.on_owner()
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
            with _address(path) as address:
                self._server = await asyncio.start_unix_server(self._serve, address)
            path.chmod(0o600)
        except OSError as error:
            log.warning("other windows and commands cannot reach this one: %s", error)

    async def _live(self, lock: Lock) -> None:
        """Let whoever owns the operations next know until when they had an owner."""
        while True:
            lock.live(self._clock.now_s())
            await self._clock.sleep(SIGN_OF_LIFE_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            writer.write(_frame(self._greeting()))
            hello = _hello.decode(await _read_frame(reader))
            if hello.protocol != PROTOCOL or hello.nodes != _nodes(self._view.config):
                log.info("process %s was refused: it knows another %s", hello.pid, self._view.id)
                return
            self._clients.add(writer)
            lives = tuple(self._view.lives.values())
            writer.write(_frame(self._report(self._view.operations, lives=lives)))
            while True:
                message = _from_client.decode(await _read_frame(reader))
                if isinstance(message, _Ask):
                    self._tasks.spawn(self._reply(message, writer), "answer")
                else:
                    self._take(message)
        except (OSError, EOFError, ValueError, msgspec.DecodeError, asyncio.IncompleteReadError) as e:
            if not isinstance(e, (asyncio.IncompleteReadError, ConnectionError)):
                log.warning("a client was hung up on: %s", e)
        finally:
            self._clients.discard(writer)
            writer.close()

    def _greeting(self) -> _Hello:
        return _Hello(
            protocol=PROTOCOL,
            pid=os.getpid(),
            nodes=_nodes(self._view.config),
            file=self._view.config.file,
            stays=self.stays,
            since_s=self._since_s,
        )

    async def _reply(self, question: _Ask, writer: asyncio.StreamWriter) -> None:
        answer = _Answer(number=question.number)
        if question.story:
            answer = msgspec.structs.replace(answer, story=self._view.story(question.story))
        try:
            if question.history:
                operations = await self._history(question.history)
                answer = msgspec.structs.replace(answer, operations=operations)
            if question.events:
                events = await self._happened(question.since_s, question.events)
                answer = msgspec.structs.replace(answer, events=events)
        except OSError as error:
            answer = msgspec.structs.replace(answer, trouble=str(error))
        if not writer.is_closing():
            writer.write(_frame(answer))

    def _take(self, message: _Request | _Cancel | _Steer | _Mark) -> None:
        now_s = self._clock.now_s()
        if isinstance(message, _Steer | _Mark):
            self._dispatch(replace(message.event, at_s=now_s))
            return
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
        if self._changed:
            self._report_later()

    def happened(self, events: tuple[ClusterEvent, ...], lives: tuple[ProblemLife, ...]) -> None:
        """Tell clients what happened, together with what changes."""
        if not self.is_owner or not self._clients:
            return
        self._new_events += events
        self._new_lives.update((life.key, life) for life in lives)
        self._report_later()

    def _report_later(self) -> None:
        if not self._reporting:
            self._reporting = True
            self._tasks.spawn(self._report_soon(), "report")

    async def _report_soon(self) -> None:
        await asyncio.sleep(REPORT_INTERVAL_S)
        self._reporting = False
        self._tell_clients()

    def _tell_clients(self) -> None:
        keys, self._changed = self._changed, set()
        events, self._new_events = tuple(self._new_events), []
        lives, self._new_lives = tuple(self._new_lives.values()), {}
        data = _frame(self._report(keys, events, lives))
        for writer in tuple(self._clients):
            if writer.transport.get_write_buffer_size() > MAX_FRAME:
                writer.close()  # a client that does not read must not fill our memory
            else:
                writer.write(data)

    def _report(
        self,
        keys: Iterable[OperationId],
        events: tuple[ClusterEvent, ...] = (),
        lives: tuple[ProblemLife, ...] = (),
    ) -> _Report:
        operations, progress = self._view.operations, self._view.progress
        keys = [k for k in keys if k in operations]
        return _Report(
            operations=tuple(operations[k] for k in keys),
            progress=tuple((k, progress[k]) for k in keys if k in progress),
            events=events,
            lives=lives,
        )

    # --- a client's side -------------------------------------------------------------------

    async def _follow(self, ownership: Ownership) -> None:
        """Mirror the owner; when it is gone, become the owner or follow the next one."""
        while not self.is_owner:
            try:
                with _address(ownership.socket) as address:
                    reader, writer = await asyncio.open_unix_connection(address)
            except OSError:
                if not ownership.only_looks and ownership.lock.try_take():
                    try:
                        await self._own()
                        return
                    except (OSError, UserError) as error:
                        ownership.lock.release()
                        self._refuse(f"The work of the last owner cannot be taken over: {error}")
                        self._heard.set()
                        await asyncio.sleep(RETRY_S * 3)  # another one may be able to
                await asyncio.sleep(RETRY_S)
                continue
            began_s = asyncio.get_running_loop().time()
            try:
                if await self._is_ours(reader, writer):
                    await self._mirror(reader)
            except (OSError, ValueError, msgspec.DecodeError, asyncio.IncompleteReadError) as error:
                log.info("the owner of operations is gone: %s", error)
            finally:
                self._owner = self._followed = None
                for future in self._questions.values():
                    if not future.done():
                        future.set_exception(OSError("the owner of this cluster's operations was lost"))
                writer.close()
            if asyncio.get_running_loop().time() - began_s < RETRY_S:
                await asyncio.sleep(RETRY_S)  # it hung up on us, or is not ours: not asked again at once

    async def _is_ours(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the owner that answers means the same cluster; begins to follow it then."""
        hello = _hello.decode(await _read_frame(reader))
        owner = Owner(pid=hello.pid, file=hello.file, stays=hello.stays, since_s=hello.since_s)
        self._refuse(self._why_not(hello, owner))
        if self._refused:
            self._heard.set()
            return False
        writer.write(_frame(self._greeting()))
        self._owner, self._followed = writer, owner
        self.on_owner()
        return True

    def _refuse(self, why: str) -> None:
        """From now on this is why there is no owner for us; an empty text: nothing."""
        changed, self._refused = why != self._refused, why
        if why:
            self._asked.clear()  # nothing may begin when somebody ends that owner in some hours
        if changed and self._started:  # before that, `start` raises it
            self._tell_refusal()

    def _tell_refusal(self) -> None:
        notice = None
        if self._refused:
            log.warning("%s", self._refused)
            notice = because(ReasonCode.JOURNAL_NOTICE, text=self._refused)
        self._dispatch(NoticeGiven(at_s=self._clock.now_s(), key="owner", reason=notice))

    def _why_not(self, hello: _Hello, owner: Owner) -> str:
        """Why an owner's work must not be taken for ours; an empty text if it may."""
        name, ours = self._view.id, _nodes(self._view.config)
        if hello.protocol != PROTOCOL:
            return (
                f"{owner} owns the operations of {name} and is another version of Muster: "
                "end it, or use the same version."
            )
        if hello.nodes == ours:
            return ""
        file = self._view.config.file
        if file and file == hello.file:
            remedy = f"{file} was changed since it was started: end it, and start it again"
        else:
            remedy = (
                f"It works by {hello.file or 'the hosts it was given'}, not by {file or 'these hosts'}: "
                "two clusters need two names"
            )
        differs = _difference(hello.nodes, ours)
        return f"{owner} owns the operations of another cluster named {name} ({differs}). {remedy}."

    async def _mirror(self, reader: asyncio.StreamReader) -> None:
        """Show what the owner says, until it hangs up."""
        untold = frozenset(self._asked)  # asked of the owner before this one
        while True:
            message = _from_owner.decode(await _read_frame(reader))
            if isinstance(message, _Answer):
                asked = self._questions.get(message.number)
                if asked is not None and not asked.done():
                    asked.set_result(message)
                continue
            self._dispatch(
                OperationsReported(
                    at_s=self._clock.now_s(), operations=message.operations, progress=message.progress
                )
            )
            if message.events or message.lives:
                told = EventsTold(at_s=self._clock.now_s(), events=message.events, lives=message.lives)
                self._dispatch(told)
            for operation in message.operations:
                self._asked.pop(operation.id, None)
            if untold:  # this was all that it knows
                self._tasks.spawn(self._ask_again(untold), "ask again")
                untold = frozenset()
            self._heard.set()

    async def _ask_again(self, untold: frozenset[OperationId]) -> None:
        """What the last owner never told of: it ended just before, as the journal says, or was not begun."""
        if untold.isdisjoint(self._asked):
            return
        try:
            answer = await self._ask(history=JUST_ENDED)
            told = tuple(o for o in answer.operations if o.id in untold or o.parent in untold)
            if told:
                self._dispatch(OperationsReported(at_s=self._clock.now_s(), operations=told))
            for operation in told:
                self._asked.pop(operation.id, None)
            for key in untold & self._asked.keys():
                self.send(self._asked[key])
        except OSError as error:
            log.info("what was asked of the last owner is asked of the next one: %s", error)

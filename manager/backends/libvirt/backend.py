"""The Hypervisor port on libvirt: which call goes to which lane, with which deadline; and the events."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import libvirt

from manager.backends.libvirt import changing, event_loop, moving, pacemaker, reading, uris
from manager.backends.libvirt.connection import Login, Watcher, facts_of, open_connection, watch
from manager.backends.libvirt.errors import connect_code_of, failure_of, may_be_refusal
from manager.backends.libvirt.lane import Lane, LanePool, Opener, Work
from manager.backends.libvirt.translate import RawEvent, Told, event_of
from manager.core.effects import (
    LONG_CHANGES,
    AbortMigration,
    ChangeVm,
    CheckPeerLogin,
    StartMigration,
    VmChange,
    VmEffect,
    WriteVmSettings,
)
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    ForeignJobSeen,
    MigrationProgress,
    NodeInventoryRead,
    NodeLost,
    NodeSampled,
    VmAuthoritySeen,
    VmConfigRead,
    VmStateChanged,
    VmUndefined,
)
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import (
    ClusterConfig,
    NodeConfig,
    NodeFacts,
    NodeLoad,
    PeerRoute,
    StatusCause,
    VmStatus,
)
from manager.services.ports import AskSecret, Clock, Feature, SecretStore

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S = 12.0  # a host that accepts and never answers is Unknown within 15 s
READ_S = 10.0
SAMPLE_S = 10.0
JOB_S = 5.0
CHANGE_S = 60.0  # libvirt itself waits up to 30 s for a VM that is busy
LONG_CHANGE_S = 3600.0  # a restore of much memory from a slow disk
PEER_CHECK_S = 15.0
PROBE_S = 2.0
ABORT_PATIENCE_S = 10.0  # an abort that comes before the job does is tried again that long
ABORT_RETRY_S = 0.2
CLOSE_S = 0.6
CLOSE_STEP_S = 0.01
LOOK_AGAIN_S = 1.0
LOGIN_TRIES = 3  # what is known, then a user name, then a secret
CHANGES_AT_ONCE = 6  # per node: each has a connection of its own, and an ssh server admits only some at once
EVENTS_AT_ONCE = 500  # of a burst, before the loop may do something else


@dataclass(slots=True, eq=False)
class _Link:
    """All that belongs to one connection of one node. A lost link is never used again."""

    node: NodeConfig
    login: Login
    open: Opener
    watch: Lane
    figures: Lane
    jobs: Lane
    work: Lane | LanePool
    facts: NodeFacts | None = None  # None until connected
    changes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CHANGES_AT_ONCE))
    configs: reading.ConfigCache = field(default_factory=reading.ConfigCache)
    loads: reading.Loads = field(default_factory=reading.Loads)
    stopped: dict[VmId, bool] = field(default_factory=dict)  # VMs to look at; whether again if need be
    is_looking: bool = False
    foreign: set[VmId] = field(default_factory=set)  # VMs of which a job was told that is not ours

    @property
    def lanes(self) -> tuple[Lane | LanePool, ...]:
        """All lanes; of the test driver they are one and the same."""
        return (self.watch, self.figures, self.jobs, self.work)

    @property
    def is_in_process(self) -> bool:
        """Whether this is the test driver: one lane for everything."""
        return self.work is self.watch

    def can(self, feature: Feature) -> bool:
        """Whether this connection has a feature."""
        return self.facts is not None and feature in self.facts.features

    def close(self, failure: Failure, *, let_finish: bool) -> None:
        """Drop everything without waiting. Running changes and moves may be let finish: each has its own."""
        for lane in (self.watch, self.figures, self.jobs):
            lane.close(failure)
        self.work.close(failure, let_finish=let_finish)


class LibvirtHypervisor:
    """The hosts of one cluster through libvirt. Loop thread only; see `manager.services.ports.Hypervisor`.

    Of each host one lane watches (connection, events, inventory, definitions), one samples loads, one asks
    for job figures and aborts, and each change of a VM has a connection of its own while it runs. A call in
    the first one that does not return means that the host is lost; in the others it costs that call only.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        clock: Clock,
        secrets: SecretStore,
        ask_secret: AskSecret | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._secrets = secrets
        self._ask_secret = ask_secret
        self._links: dict[NodeId, _Link] = {}
        self._own_jobs: dict[VmId, OperationId] = {}  # moves and saves that run through us
        self._aborted: set[OperationId] = set()
        self._news: deque[tuple[_Link, RawEvent | int]] = deque()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        # The test driver works in this process: dozens at once would leave the loop no processor.
        self._in_process = asyncio.Semaphore(2)

    # --- connections -------------------------------------------------------------------------

    async def connect(self, node: NodeConfig) -> NodeFacts:
        """See `Hypervisor.connect`. A secret that is missing or was refused is asked for, once."""
        event_loop.start()
        self._drop(node.name, "connecting again")
        parts = uris.parsed(node.uri)
        entry = node.credentials or f"muster {parts.driver}+{parts.transport}://{parts.host}"
        login = Login(entry=entry, secrets=self._secrets, user=parts.user)
        for tries_left in reversed(range(LOGIN_TRIES)):
            try:
                return await self._connect_once(node, login)
            except OperationError as error:
                if error.failure.code is not FailureCode.LOGIN or not tries_left:
                    raise
                if not await self._ask(node, login):
                    raise
        raise AssertionError("unreachable")

    async def _connect_once(self, node: NodeConfig, login: Login) -> NodeFacts:
        link = self._links[node.name] = self._make_link(node, login)
        read_only, through_ssh = self._config.read_only, uris.parsed(node.uri).is_ssh

        def first_call(connection: libvirt.virConnect) -> NodeFacts:
            login.accepted()
            return facts_of(connection, read_only=read_only, through_ssh=through_ssh)

        turn = self._in_process if link.is_in_process else contextlib.nullcontext()
        try:
            async with turn:
                facts = link.facts = await link.watch.call(first_call, CONNECT_S, "connecting")
        except BaseException as error:
            if self._is_current(link):
                self._drop(node.name, "it was not connected")
            if isinstance(error, OperationError):
                raise await self._connect_error(node, login, error.failure) from None
            raise
        return await self._with_pacemaker(link, facts)

    async def _with_pacemaker(self, link: _Link, facts: NodeFacts) -> NodeFacts:
        """Ask for Pacemaker, and tell which VMs are its own."""
        names = await pacemaker.resources_on(link.node)
        if not self._is_current(link):
            raise OperationError(_not_connected(link.node.name, "the connection was lost again"))
        if names is None:
            return facts
        self._tell(VmAuthoritySeen(at_s=self._clock.now_s(), node=link.node.name, names=names))
        link.facts = replace(facts, pacemaker=True)
        return link.facts

    def _make_link(self, node: NodeConfig, login: Login) -> _Link:
        uri, read_only = uris.as_opened(node.uri), self._config.read_only
        is_test = uris.parsed(node.uri).is_test
        loop = asyncio.get_running_loop()
        was_opened = False

        def open_plain() -> libvirt.virConnect:
            return open_connection(uri, login, read_only=read_only)

        def open_watched() -> libvirt.virConnect:
            nonlocal was_opened
            if was_opened:  # events were missed: only a new connect, with a new inventory, may go on
                raise OperationError(_not_connected(node.name, "the connection was lost"))
            was_opened = True
            try:
                connection = open_plain()
            except libvirt.libvirtError as error:
                code = connect_code_of(error, over_tls=uris.parsed(node.uri).transport == "tls")
                if code is FailureCode.LOGIN:
                    login.refused()
                login.maybe_refused = may_be_refusal(error)
                raise OperationError(failure_of(error, code)) from None
            watch(connection, Watcher(event=heard, closed=None if is_test else heard))
            return connection

        def heard(news: RawEvent | int) -> None:
            """In libvirt's event thread: pass it on, one wake-up of the loop for a whole burst."""
            self._news.append((link, news))
            if len(self._news) == 1:
                with contextlib.suppress(RuntimeError):  # the loop is closed: the program ends
                    loop.call_soon_threadsafe(self._take_news)

        name = f"libvirt {node.name}"
        watcher = Lane(f"{name} watch", open_watched, idle_s=None)
        if is_test:
            link = _Link(node, login, open_plain, watcher, watcher, watcher, watcher)
        else:
            figures, jobs = Lane(f"{name} figures", open_plain), Lane(f"{name} jobs", open_plain)
            work = LanePool(f"{name} work", open_plain)
            link = _Link(node, login, open_plain, watcher, figures, jobs, work)
        return link

    async def _ask(self, node: NodeConfig, login: Login) -> bool:
        """Ask a person for what is missing. False if there is nothing to ask, nobody, or no answer."""
        if self._ask_secret is None:
            return False
        if login.user_prompt:
            login.user = await self._ask_secret(node.name, "", login.user_prompt) or ""
            return bool(login.user)
        if not login.secret_prompt or login.is_fresh:
            return False
        login.secret = await self._ask_secret(node.name, login.user, login.secret_prompt)
        login.is_fresh = True
        return login.secret is not None

    async def _connect_error(self, node: NodeConfig, login: Login, failure: Failure) -> OperationError:
        """The failure of an open. Where libvirt's error says too little, the port tells refused from dead."""
        parts = uris.parsed(node.uri)
        code = failure.code
        if code is FailureCode.UNREACHABLE and login.maybe_refused and parts.host and parts.port:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(PROBE_S):
                    _, writer = await asyncio.open_connection(parts.host, parts.port)
                writer.close()
                code = FailureCode.LOGIN
        return OperationError(replace(failure, code=code, node=node.name))

    async def disconnect(self, node: NodeId) -> None:
        """See `Hypervisor.disconnect`."""
        self._drop(node, "it was disconnected")

    def _drop(self, node: NodeId, why: str) -> None:
        link = self._links.pop(node, None)
        if link is not None:
            link.close(_not_connected(node, why), let_finish=True)

    def _lose(self, link: _Link, failure: Failure) -> None:
        """A connection that worked is gone."""
        name = link.node.name
        if not self._is_current(link) or link.facts is None:
            return
        del self._links[name]
        failure = replace(failure, node=name, vm=None)
        link.close(failure, let_finish=True)
        self._tell(NodeLost(at_s=self._clock.now_s(), node=name, failure=failure))

    async def close(self) -> None:
        """See `Hypervisor.close`."""
        links, self._links = list(self._links.values()), {}
        for link in links:
            link.close(_not_connected(link.node.name, "closed"), let_finish=False)
        self._events.put_nowait(None)
        # A moment for a proper goodbye to the hosts that answer; nobody waits for the others.
        lanes = [lane for link in links for lane in link.lanes]
        for _ in range(int(CLOSE_S / CLOSE_STEP_S)):
            if not any(lane.has_threads for lane in lanes):
                break
            await asyncio.sleep(CLOSE_STEP_S)

    # --- reading -----------------------------------------------------------------------------

    async def read_inventory(self, node: NodeId) -> NodeInventoryRead:
        """See `Hypervisor.read_inventory`."""
        started_s = self._clock.now_s()
        link = self._link(node)
        vms = await self._watched(link, reading.inventory, "reading the inventory")
        return NodeInventoryRead(at_s=self._clock.now_s(), node=node, started_s=started_s, vms=vms)

    async def read_vm(self, node: NodeId, vm: VmId) -> VmConfigRead:
        """See `Hypervisor.read_vm`."""
        link = self._link(node)
        read = functools.partial(reading.vm_config, vm=vm, cache=link.configs)
        config = await self._watched(link, read, "reading the definition", vm)
        return VmConfigRead(at_s=self._clock.now_s(), node=node, vm=vm, config=config)

    async def sample(self, node: NodeId) -> NodeSampled:
        """See `Hypervisor.sample`. A host that has no figures gets none."""
        link = self._link(node)
        now_s = self._clock.now_s()
        if not link.can(Feature.LOAD_FIGURES):
            return NodeSampled(at_s=now_s, node=node, load=NodeLoad(at_s=now_s), vms={})
        take = functools.partial(link.loads.sample, at_s=now_s, configs=link.configs.by_vm)
        try:
            load, vms = await self._call(link, link.figures, take, SAMPLE_S, "sampling")
        except OperationError:
            link.loads = reading.Loads()  # a thread that comes back late may still write into the old one
            raise
        return NodeSampled(at_s=now_s, node=node, load=load, vms=vms)

    async def job_progress(
        self, node: NodeId, vm: VmId, operation: OperationId, attempt: int
    ) -> MigrationProgress | None:
        """See `Hypervisor.job_progress`."""
        figures = await self._job(node, vm)
        if figures is None:
            return None
        return MigrationProgress(
            at_s=self._clock.now_s(),
            operation=operation,
            attempt=attempt,
            elapsed_ms=figures.elapsed_ms,
            total_bytes=figures.total_bytes,
            processed_bytes=figures.processed_bytes,
            remaining_bytes=figures.remaining_bytes,
            rate_bytes_per_s=figures.rate_bytes_per_s,
            dirty_bytes_per_s=figures.dirty_bytes_per_s,
            iteration=figures.iteration,
            downtime_ms=figures.downtime_ms,
            post_copy=figures.post_copy,
        )

    async def has_job(self, node: NodeId, vm: VmId) -> bool:
        """See `Hypervisor.has_job`."""
        return await self._job(node, vm) is not None

    async def _job(self, node: NodeId, vm: VmId) -> reading.JobFigures | None:
        link = self._link(node)
        if not link.can(Feature.JOB_FIGURES):
            return None
        read = functools.partial(reading.job_figures, vm=vm)
        return await self._call(link, link.jobs, read, JOB_S, "reading job figures", vm)

    # --- changing ----------------------------------------------------------------------------

    async def change_vm(self, effect: ChangeVm) -> None:
        """See `Hypervisor.change_vm`."""
        link = self._link(effect.node)
        make = functools.partial(changing.change, vm=effect.vm, wanted=effect.change)
        if effect.change in LONG_CHANGES:
            with self._own_job(effect):
                name = await self._call(link, link.work, make, LONG_CHANGE_S, effect.change.value, effect.vm)
        else:
            async with link.changes:
                name = await self._call(link, link.work, make, CHANGE_S, effect.change.value, effect.vm)
        if effect.change is VmChange.DELETE_SAVED_STATE:  # libvirt has no event for it
            self._tell_state(link, effect.vm, name, Told(VmStatus.OFF))

    async def write_settings(self, effect: WriteVmSettings) -> None:
        """See `Hypervisor.write_settings`."""
        link = self._link(effect.node)
        write = functools.partial(changing.write_settings, vm=effect.vm, settings=effect.settings)
        async with link.changes:
            await self._call(link, link.work, write, CHANGE_S, "writing the settings", effect.vm)

    @contextlib.contextmanager
    def _own_job(self, effect: VmEffect) -> Iterator[None]:
        """While a job of ours runs on a VM, its events are not news."""
        self._own_jobs[effect.vm] = effect.operation
        try:
            yield
        finally:
            if self._own_jobs.get(effect.vm) == effect.operation:
                del self._own_jobs[effect.vm]

    # --- moving ------------------------------------------------------------------------------

    async def migrate(self, effect: StartMigration) -> None:
        """See `Hypervisor.migrate`."""
        link, target = self._link(effect.node), self._link(effect.target)
        self._require_migration(link, effect.vm)
        is_peer = effect.route is PeerRoute.NODE_TO_NODE
        move = moving.move_of(
            effect,
            peer=is_peer,
            migration_uri=uris.migration_uri_of(target.node),
            is_cancelled=lambda: effect.operation in self._aborted,
        )
        run: Work[None]
        if is_peer:
            run = functools.partial(
                moving.move_to_peer, move=move, peer_uri=_peer_uri(target.node, effect.vm)
            )
        else:
            run = functools.partial(moving.move_through_us, move=move, open_target=target.open)
        try:
            with self._own_job(effect):
                await self._call(link, link.work, run, None, "live migration", effect.vm)
        finally:
            self._aborted.discard(effect.operation)
            self._look(link, effect.vm, once_more=False)
        if effect.autostart:
            await self._carry_autostart(target, effect.vm)

    async def _carry_autostart(self, target: _Link, vm: VmId) -> None:
        """libvirt leaves the mark behind on the source. The move is done: trouble here is only logged."""
        mark = functools.partial(changing.set_autostart, vm=vm)
        try:
            await self._call(target, target.work, mark, CHANGE_S, "marking for autostart", vm)
        except OperationError as error:
            log.warning("autostart of VM %s not set on %s: %s", vm, target.node.name, error)

    async def abort(self, effect: AbortMigration) -> None:
        """See `Hypervisor.abort`. No job is success; one of ours that is about to begin is waited for."""
        link = self._link(effect.node)
        if self._own_jobs.get(effect.vm) == effect.operation:
            self._aborted.add(effect.operation)
        ask = functools.partial(moving.abort, vm=effect.vm)
        until_s = self._clock.monotonic_s() + ABORT_PATIENCE_S
        while not await self._call(link, link.jobs, ask, JOB_S, "cancelling", effect.vm):
            if self._own_jobs.get(effect.vm) != effect.operation:
                return
            if self._clock.monotonic_s() > until_s:
                text = "the host has no job yet that could be cancelled"
                raise OperationError(
                    Failure(code=FailureCode.TIMEOUT, text=text, node=effect.node, vm=effect.vm)
                )
            await self._clock.sleep(ABORT_RETRY_S)

    async def check_peer(self, effect: CheckPeerLogin) -> None:
        """See `Hypervisor.check_peer`."""
        link, target = self._link(effect.node), self._link(effect.target)
        self._require_migration(link, effect.vm)
        check = functools.partial(
            moving.check_peer,
            vm=effect.vm,
            peer_uri=_peer_uri(target.node, effect.vm),
            target=effect.target,
        )
        await self._call(link, link.work, check, PEER_CHECK_S, "checking the login", effect.vm)

    def _require_migration(self, link: _Link, vm: VmId) -> None:
        if not link.can(Feature.LIVE_MIGRATION):
            driver = link.facts.hypervisor if link.facts else ""
            text = f"libvirt's {driver} driver has no live migration"
            raise OperationError(
                Failure(code=FailureCode.NOT_SUPPORTED, text=text, node=link.node.name, vm=vm)
            )

    # --- events ------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Event]:
        """See `Hypervisor.events`."""
        while (event := await self._events.get()) is not None:
            yield event

    def _tell(self, event: Event) -> None:
        self._events.put_nowait(event)

    def _take_news(self) -> None:
        at_s = self._clock.now_s()
        for _ in range(EVENTS_AT_ONCE):
            if not self._news:
                return
            link, news = self._news.popleft()
            if not self._is_current(link):
                continue
            if isinstance(news, RawEvent):
                self._take_event(link, news, at_s)
            elif news != libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT:
                self._lose(
                    link,
                    _not_connected(link.node.name, _CLOSE_REASONS.get(news, "the connection was closed")),
                )
        if self._news:
            asyncio.get_running_loop().call_soon(self._take_news)

    def _take_event(self, link: _Link, raw: RawEvent, at_s: float) -> None:
        event = event_of(raw, node=link.node.name, at_s=at_s)
        if isinstance(event, ForeignJobSeen):
            self._take_job(link, event)
            return
        if event is not None:
            self._tell(event)
        if raw.is_stop:
            self._look(link, VmId(raw.uuid), once_more=True)

    def _take_job(self, link: _Link, event: ForeignJobSeen) -> None:
        """Tell the first sign of a job that is not ours, and its end. The event does not say what it is."""
        vm = event.vm
        if not event.active:
            if vm in link.foreign:
                link.foreign.discard(vm)
                self._tell(event)
            return
        if vm in self._own_jobs or vm in link.foreign:
            return
        link.foreign.add(vm)

        def answered(future: asyncio.Future[str | None]) -> None:
            if future.cancelled() or future.exception() is not None or vm not in link.foreign:
                return
            what = future.result()
            if what is None:
                link.foreign.discard(vm)
            elif self._is_current(link):
                self._tell(replace(event, what=what, migration=what == "migration"))

        ask = functools.partial(reading.job_name, vm=vm)
        link.jobs.start(ask, JOB_S, "asking for a job").add_done_callback(answered)

    def _look(self, link: _Link, vm: VmId, *, once_more: bool) -> None:
        """Look at a VM that has stopped: its event does not say whether it is still there, or saved.

        All that stop meanwhile are asked for together.
        """
        link.stopped[vm] = link.stopped.get(vm, False) or once_more
        self._look_at_stopped(link)

    def _look_at_stopped(self, link: _Link) -> None:
        if link.is_looking or not link.stopped or not self._is_current(link):
            return
        looked_at, link.stopped, link.is_looking = link.stopped, {}, True

        def answered(future: asyncio.Future[dict[VmId, tuple[str, Told] | None]]) -> None:
            link.is_looking = False
            if future.cancelled() or future.exception() is not None:
                return  # the connection is gone; an inventory comes with the next one
            for vm, now in future.result().items():
                if vm not in link.stopped:  # it has not stopped again meanwhile
                    self._take_look(link, vm, now, once_more=looked_at[vm])
            self._look_at_stopped(link)

        look = functools.partial(reading.after_stop, vms=tuple(looked_at))
        link.watch.start(look, READ_S, "looking at stopped VMs").add_done_callback(answered)

    def _take_look(self, link: _Link, vm: VmId, now: tuple[str, Told] | None, *, once_more: bool) -> None:
        if not self._is_current(link):
            return
        if now is None:
            self._tell(VmUndefined(at_s=self._clock.now_s(), node=link.node.name, vm=vm))
            return
        name, state = now
        if state == Told(VmStatus.OFF, StatusCause.SAVED):  # into somebody's own file, not as its saved state
            self._tell_state(link, vm, name, state)
        elif state == Told(VmStatus.OFF, StatusCause.MIGRATED) and once_more:
            # Its host tells the stop before it drops the definition of a VM that has moved away.
            look = functools.partial(self._look, link, vm, once_more=False)
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, look)

    def _tell_state(self, link: _Link, vm: VmId, name: str, now: Told) -> None:
        self._tell(
            VmStateChanged(
                at_s=self._clock.now_s(),
                node=link.node.name,
                vm=vm,
                name=name,
                status=now.status,
                cause=now.cause,
                shutting_down=now.shutting_down,
            )
        )

    # --- calls -------------------------------------------------------------------------------

    def _is_current(self, link: _Link) -> bool:
        return self._links.get(link.node.name) is link

    def _link(self, node: NodeId) -> _Link:
        link = self._links.get(node)
        if link is None or link.facts is None:
            raise OperationError(_not_connected(node, "not connected"))
        return link

    async def _call(
        self,
        link: _Link,
        lane: Lane | LanePool,
        work: Work[T],
        deadline_s: float | None,
        what: str,
        vm: VmId | None = None,
    ) -> T:
        """A call in a lane; its failure says of which node and VM it is."""
        try:
            return await lane.call(work, deadline_s, what)
        except OperationError as error:
            failure = error.failure
            node = failure.node or link.node.name
            raise OperationError(replace(failure, node=node, vm=failure.vm or vm)) from None

    async def _watched(self, link: _Link, work: Work[T], what: str, vm: VmId | None = None) -> T:
        """A call in the watching lane: if that does not answer, the host is lost."""
        try:
            return await self._call(link, link.watch, work, READ_S, what, vm)
        except OperationError as error:
            if error.failure.code in (FailureCode.TIMEOUT, FailureCode.UNREACHABLE):
                self._lose(link, error.failure)
            raise


_CLOSE_REASONS = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "the connection broke",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "the host closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "the host does not answer any more",
}


def _not_connected(node: NodeId, why: str) -> Failure:
    return Failure(code=FailureCode.UNREACHABLE, text=why, node=node)


def _peer_uri(target: NodeConfig, vm: VmId) -> str:
    uri = uris.peer_uri_of(target)
    if uri is None:
        text = f"how the other nodes reach {target.name} is not known: set its peer_uri in the cluster file"
        raise OperationError(Failure(code=FailureCode.PEER_LOGIN, text=text, node=target.name, vm=vm))
    return uri

"""The Hypervisor port on libvirt: which call goes to which lane, with which deadline; and the events."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

import libvirt

from manager.backends.libvirt import (
    changing,
    editing,
    event_loop,
    jobs,
    notes,
    pacemaker,
    reading,
    resources,
    snapshots,
    streams,
    uris,
)
from manager.backends.libvirt.connection import Login, Watcher, facts_of, open_connection, watch
from manager.backends.libvirt.errors import connect_code_of, failure_of, may_be_refusal
from manager.backends.libvirt.foreign import Jobs
from manager.backends.libvirt.lane import Lane, LanePool, Work
from manager.backends.libvirt.link import CHANGE_S, LONG_CHANGE_S, Link, Links, not_connected
from manager.backends.libvirt.moves import Moves
from manager.backends.libvirt.translate import NOTES, RESOURCES, RawEvent, Told, event_of
from manager.core.effects import (
    LONG_CHANGES,
    SNAPSHOT_CHANGES,
    AbortMigration,
    ChangeVm,
    CheckPeerLogin,
    CopyDefinition,
    CopyDisks,
    EditVm,
    ForgetDefinition,
    HoldNode,
    NoteDrained,
    ReleaseNode,
    RestoreFromFile,
    SaveToFile,
    StartMigration,
    TuneMigration,
    VmChange,
    WriteVmSettings,
)
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import (
    Event,
    MigrationProgress,
    NodeInventoryRead,
    NodeLost,
    NodeNotesRead,
    NodeResourcesRead,
    NodeSampled,
    PoolVolumesRead,
    VmAuthoritySeen,
    VmConfigRead,
    VmDefinitionChanged,
    VmStateChanged,
    VmUndefined,
)
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import (
    ClusterConfig,
    NodeConfig,
    NodeFacts,
    NodeLoad,
    Snapshot,
    SnapshotParameters,
    StatusCause,
    VmStatus,
)
from manager.services.ports import AskSecret, Clock, Console, Feature, SecretStore

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S = 12.0  # a host that accepts and never answers is Unknown within 15 s
READ_S = 10.0
VOLUMES_S = 60.0  # a refresh looks into every image
SAMPLE_S = 10.0
STREAM_S = 10.0
MAX_CONSOLES = 16  # of one node: each has a connection and a thread of its own
PROBE_S = 2.0
CLOSE_S = 0.6
CLOSE_STEP_S = 0.01
LOOK_AGAIN_S = 1.0
LOGIN_TRIES = 3  # what is known, then a user name, then a secret
EVENTS_AT_ONCE = 500  # of a burst, before the loop may do something else


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
        self._links = Links(clock)
        self._jobs = Jobs(self._links)
        self._moves = Moves(
            self._links,
            self._jobs,
            shared_paths=config.shared_paths,
            look=functools.partial(self._look, once_more=False),
        )
        self._news: deque[tuple[Link, RawEvent | int]] = deque()
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
        link = self._links.current[node.name] = self._make_link(node, login)
        read_only, through_ssh = self._config.read_only, uris.parsed(node.uri).is_ssh

        def first_call(connection: libvirt.virConnect) -> NodeFacts:
            login.accepted()
            return facts_of(connection, read_only=read_only, through_ssh=through_ssh)

        turn = self._in_process if link.is_in_process else contextlib.nullcontext()
        try:
            async with turn:
                facts = link.facts = await link.watch.call(first_call, CONNECT_S, "connecting")
        except BaseException as error:
            if self._links.is_current(link):
                self._drop(node.name, "it was not connected")
            if isinstance(error, OperationError):
                raise await self._connect_error(node, login, error.failure) from None
            raise
        return facts

    def _make_link(self, node: NodeConfig, login: Login) -> Link:
        uri, read_only = uris.as_opened(node.uri), self._config.read_only
        is_test = uris.parsed(node.uri).is_test
        loop = asyncio.get_running_loop()
        was_opened = False

        def open_plain() -> libvirt.virConnect:
            return open_connection(uri, login, read_only=read_only)

        def open_watched() -> libvirt.virConnect:
            nonlocal was_opened
            if was_opened:  # events were missed: only a new connect, with a new inventory, may go on
                raise OperationError(not_connected(node.name, "the connection was lost"))
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
            link = Link(node, login, open_plain, watcher, watcher, watcher, watcher, watcher)
        else:
            figures, jobs = Lane(f"{name} figures", open_plain), Lane(f"{name} jobs", open_plain)
            work = LanePool(f"{name} work", open_plain)
            streams = Lane(f"{name} streams", open_plain)
            link = Link(node, login, open_plain, watcher, figures, jobs, streams, work)
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
        link = self._links.current.pop(node, None)
        if link is not None:
            link.close(not_connected(node, why), let_finish=True)

    def _lose(self, link: Link, failure: Failure) -> None:
        """A connection that worked is gone."""
        name = link.node.name
        if not self._links.is_current(link) or link.facts is None:
            return
        del self._links.current[name]
        failure = replace(failure, node=name, vm=None)
        link.close(failure, let_finish=True)
        self._links.tell(NodeLost(at_s=self._clock.now_s(), node=name, failure=failure))

    async def close(self) -> None:
        """See `Hypervisor.close`."""
        links = list(self._links.current.values())
        self._links.current.clear()
        for link in links:
            link.close(not_connected(link.node.name, "closed"), let_finish=False)
        self._links.events.put_nowait(None)
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
        link = self._links.of(node)
        vms = await self._watched(link, reading.inventory, "reading the inventory")
        self._jobs.inventory_read(link, [seen.vm for seen in vms if seen.incarnation is not None])
        return NodeInventoryRead(at_s=self._clock.now_s(), node=node, started_s=started_s, vms=vms)

    async def read_vm(self, node: NodeId, vm: VmId) -> VmConfigRead:
        """See `Hypervisor.read_vm`."""
        link = self._links.of(node)
        read = functools.partial(reading.vm_config, vm=vm, cache=link.configs)
        config = await self._watched(link, read, "reading the definition", vm)
        return VmConfigRead(at_s=self._clock.now_s(), node=node, vm=vm, config=config)

    async def read_definition(self, node: NodeId, vm: VmId, *, stored: bool = False) -> str:
        """See `Hypervisor.read_definition`."""
        link = self._links.of(node)
        read = functools.partial(streams.definition, vm=vm, stored=stored)
        return await link.call(link.figures, read, READ_S, "reading the definition", vm)

    async def read_snapshots(self, node: NodeId, vm: VmId) -> tuple[Snapshot, ...]:
        """See `Hypervisor.read_snapshots`."""
        link = self._links.of(node)
        read = functools.partial(snapshots.read, vm=vm)
        return await link.call(link.figures, read, READ_S, "reading the snapshots", vm)

    async def screenshot(self, node: NodeId, vm: VmId) -> bytes:
        """See `Hypervisor.screenshot`."""
        link = self._links.of(node)
        take = functools.partial(streams.screenshot, vm=vm)
        return await link.call(link.streams, take, STREAM_S, "taking a picture of the screen", vm)

    async def open_console(self, node: NodeId, vm: VmId, *, take_over: bool = False) -> Console:
        """See `Hypervisor.open_console`."""
        link = self._links.of(node)
        link.consoles[:] = [c for c in link.consoles if not c.why_ended or c.lane.has_threads]
        failure = None
        if link.is_in_process:
            text = "libvirt's test driver has no consoles"
            failure = Failure(code=FailureCode.NOT_SUPPORTED, text=text)
        elif sum(not console.why_ended for console in link.consoles) >= MAX_CONSOLES:
            text = f"{MAX_CONSOLES} consoles of {node} are open already: close some"
            failure = Failure(code=FailureCode.NO_RESOURCES, text=text)
        if failure is not None:
            raise OperationError(replace(failure, node=node, vm=vm))
        lane = Lane(f"libvirt {node} console", link.open)
        console = streams.SerialConsole(lane, vm, take_over=take_over)
        link.consoles.append(console)
        try:
            await console.open()
        except OperationError as error:
            raise OperationError(replace(error.failure, node=node, vm=vm)) from None
        return console

    async def read_authority(self, node: NodeId) -> VmAuthoritySeen | None:
        """See `Hypervisor.read_authority`."""
        answer = await pacemaker.ask(self._links.of(node).node)
        if answer is None:
            return None
        return VmAuthoritySeen(
            at_s=self._clock.now_s(), node=node, pacemaker=answer.pacemaker, names=answer.names
        )

    async def read_resources(self, node: NodeId) -> NodeResourcesRead:
        """See `Hypervisor.read_resources`. Beside the watching lane: a pool that hangs loses no host."""
        link = self._links.of(node)
        what = "reading pools and networks"
        found = await link.call(link.figures, resources.resources, READ_S, what)
        return NodeResourcesRead(
            at_s=self._clock.now_s(),
            node=node,
            pools=found.pools,
            networks=found.networks,
            interfaces=found.interfaces,
        )

    async def read_volumes(self, node: NodeId, pool: str) -> PoolVolumesRead:
        """See `Hypervisor.read_volumes`."""
        link = self._links.of(node)
        read = functools.partial(resources.volumes, name=pool, node=node, refresh=not self._config.read_only)
        seen, found = await link.call(link.work, read, VOLUMES_S, f"reading the volumes of pool {pool}")
        return PoolVolumesRead(at_s=self._clock.now_s(), node=node, pool=seen, volumes=found)

    async def sample(self, node: NodeId, *, disks: bool = False) -> NodeSampled:
        """See `Hypervisor.sample`. A host that has no figures gets none."""
        link = self._links.of(node)
        now_s = self._clock.now_s()
        if not link.can(Feature.LOAD_FIGURES):
            return NodeSampled(at_s=now_s, node=node, load=NodeLoad(at_s=now_s), vms={})
        take = functools.partial(link.loads.sample, at_s=now_s, configs=link.configs.by_vm, disks=disks)
        try:
            load, vms = await link.call(link.figures, take, SAMPLE_S, "sampling")
        except OperationError:
            link.loads = reading.Loads()  # a thread that comes back late may still write into the old one
            raise
        self._jobs.sampled(link)
        return NodeSampled(at_s=now_s, node=node, load=load, vms=vms)

    async def job_progress(
        self, node: NodeId, vm: VmId, operation: OperationId, attempt: int
    ) -> MigrationProgress | None:
        """See `Hypervisor.job_progress`."""
        own = self._links.own_jobs.get(vm)
        figures = own.figures if own is not None else None
        if figures is None:
            figures = await self._jobs.ask(node, vm, jobs.job_figures, None)
        if figures is None:
            return None
        return MigrationProgress(
            at_s=self._clock.now_s(),
            operation=operation,
            attempt=attempt,
            **asdict(figures),
        )

    async def have_jobs(self, node: NodeId, vms: Sequence[VmId]) -> frozenset[VmId]:
        """See `Hypervisor.have_jobs`."""
        return await self._jobs.have_jobs(node, vms)

    # --- changing ----------------------------------------------------------------------------

    async def change_vm(self, effect: ChangeVm) -> None:
        """See `Hypervisor.change_vm`."""
        link = self._links.of(effect.node)
        make = functools.partial(changing.change, vm=effect.vm, wanted=effect.change)
        if effect.change in SNAPSHOT_CHANGES:
            wish = effect.snapshot or SnapshotParameters()
            make = functools.partial(snapshots.change, vm=effect.vm, wanted=effect.change, wish=wish)
        if effect.change in LONG_CHANGES:
            with self._links.own_job(effect):
                name = await link.call(link.work, make, LONG_CHANGE_S, effect.change.value, effect.vm)
        else:
            name = await link.change(make, CHANGE_S, effect.change.value, effect.vm)
        if effect.change is VmChange.DELETE_SAVED_STATE:  # libvirt has no event for it
            self._tell_state(link, effect.vm, name, Told(VmStatus.OFF))
        elif effect.change in SNAPSHOT_CHANGES:  # nor for these
            now_s = self._clock.now_s()
            self._links.tell(VmDefinitionChanged(at_s=now_s, node=effect.node, vm=effect.vm, name=name))

    async def write_settings(self, effect: WriteVmSettings) -> None:
        """See `Hypervisor.write_settings`."""
        link = self._links.of(effect.node)
        write = functools.partial(changing.write_settings, vm=effect.vm, settings=effect.settings)
        await link.change(write, CHANGE_S, "writing the settings", effect.vm)

    async def note_drained(self, effect: NoteDrained) -> None:
        """See `Hypervisor.note_drained`."""
        link = self._links.of(effect.node)
        write = functools.partial(changing.note_drained, vm=effect.vm, drained_from=effect.drained_from)
        await link.change(write, CHANGE_S, "noting from where it is drained", effect.vm)

    # --- notes -------------------------------------------------------------------------------

    async def read_notes(self, node: NodeId) -> NodeNotesRead:
        """See `NodeNotes.read_notes`."""
        started_s = self._clock.now_s()
        link = self._links.of(node)
        holds = await link.call(link.figures, notes.read, READ_S, "reading who holds the node")
        return NodeNotesRead(at_s=self._clock.now_s(), node=node, started_s=started_s, holds=holds)

    async def hold_node(self, effect: HoldNode) -> None:
        """See `NodeNotes.hold_node`."""
        link = self._links.of(effect.node)
        write = functools.partial(notes.write, hold=effect.hold)
        await link.call(link.work, write, CHANGE_S, "writing the pause on the node")

    async def release_node(self, effect: ReleaseNode) -> None:
        """See `NodeNotes.release_node`."""
        link = self._links.of(effect.node)
        await link.call(link.work, notes.remove_all, CHANGE_S, "removing the pause from the node")

    async def edit_vm(self, effect: EditVm) -> None:
        """See `Hypervisor.edit_vm`."""
        link = self._links.of(effect.node)
        make = functools.partial(editing.edit, vm=effect.vm, wanted=effect.edit, node=effect.node)
        await link.change(make, CHANGE_S, "changing the definition", effect.vm)

    # --- moving ------------------------------------------------------------------------------

    async def migrate(self, effect: StartMigration) -> None:
        """See `Hypervisor.migrate`."""
        await self._moves.migrate(effect)

    async def abort(self, effect: AbortMigration) -> None:
        """See `Hypervisor.abort`."""
        await self._moves.abort(effect)

    async def tune(self, effect: TuneMigration) -> None:
        """See `Hypervisor.tune`."""
        await self._moves.tune(effect)

    async def save_to_file(self, effect: SaveToFile) -> None:
        """See `Hypervisor.save_to_file`."""
        await self._moves.save_to_file(effect)

    async def restore_from_file(self, effect: RestoreFromFile) -> None:
        """See `Hypervisor.restore_from_file`."""
        await self._moves.restore_from_file(effect)

    async def copy_definition(self, effect: CopyDefinition) -> None:
        """See `Hypervisor.copy_definition`."""
        await self._moves.copy_definition(effect)

    async def forget_definition(self, effect: ForgetDefinition) -> None:
        """See `Hypervisor.forget_definition`."""
        await self._moves.forget_definition(effect)

    async def copy_disks(self, effect: CopyDisks) -> None:
        """See `Hypervisor.copy_disks`."""
        await self._moves.copy_disks(effect)

    async def check_peer(self, effect: CheckPeerLogin) -> None:
        """See `Hypervisor.check_peer`."""
        await self._moves.check_peer(effect)

    # --- events ------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Event]:
        """See `Hypervisor.events`."""
        while (event := await self._links.events.get()) is not None:
            yield event

    def _take_news(self) -> None:
        at_s = self._clock.now_s()
        for _ in range(EVENTS_AT_ONCE):
            if not self._news:
                return
            link, news = self._news.popleft()
            if not self._links.is_current(link):
                continue
            if isinstance(news, RawEvent):
                self._take_event(link, news, at_s)
            elif news != libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT:
                self._lose(
                    link,
                    not_connected(link.node.name, _CLOSE_REASONS.get(news, "the connection was closed")),
                )
        if self._news:
            asyncio.get_running_loop().call_soon(self._take_news)

    def _take_event(self, link: Link, raw: RawEvent, at_s: float) -> None:
        event = event_of(raw, node=link.node.name, at_s=at_s)
        if event is not None:
            self._links.tell(event)
        if raw.kind in (RESOURCES, NOTES):
            return
        vm = VmId(raw.uuid)
        if raw.is_stop:
            link.running.pop(vm, None)
            self._look(link, vm, once_more=True)
        elif isinstance(event, VmStateChanged):
            link.running.setdefault(vm)
        self._jobs.heard(link, raw)

    # --- VMs that stopped --------------------------------------------------------------------

    def _look(self, link: Link, vm: VmId, *, once_more: bool) -> None:
        """Look at a VM that has stopped: its event does not say whether it is still there, or saved.

        All that stop meanwhile are asked for together.
        """
        link.stopped[vm] = link.stopped.get(vm, False) or once_more
        self._look_at_stopped(link)

    def _look_at_stopped(self, link: Link) -> None:
        if link.is_looking or not link.stopped or not self._links.is_current(link):
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

    def _take_look(self, link: Link, vm: VmId, now: tuple[str, Told] | None, *, once_more: bool) -> None:
        if not self._links.is_current(link):
            return
        if now is None:
            self._links.tell(VmUndefined(at_s=self._clock.now_s(), node=link.node.name, vm=vm))
            return
        name, state = now
        if state == Told(VmStatus.OFF, StatusCause.SAVED):  # into somebody's own file, not as its saved state
            self._tell_state(link, vm, name, state)
        elif state == Told(VmStatus.OFF, StatusCause.MIGRATED) and once_more:
            # Its host tells the stop before it drops the definition of a VM that has moved away.
            look = functools.partial(self._look, link, vm, once_more=False)
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, look)

    def _tell_state(self, link: Link, vm: VmId, name: str, now: Told) -> None:
        self._links.tell(
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

    async def _watched(self, link: Link, work: Work[T], what: str, vm: VmId | None = None) -> T:
        """A call in the watching lane: if that does not answer, the host is lost."""
        try:
            return await link.call(link.watch, work, READ_S, what, vm)
        except OperationError as error:
            if error.failure.code in (FailureCode.TIMEOUT, FailureCode.UNREACHABLE):
                self._lose(link, error.failure)
            raise


_CLOSE_REASONS = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "the connection broke",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "the host closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "the host does not answer any more",
}

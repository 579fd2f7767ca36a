"""A cluster, opened for one command: chosen, connected to, read; and the names a user gives, found in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from manager.cli.app import App
from manager.cli.options import DEFAULT_TIMEOUT_S, GRACE_S, Settings
from manager.cli.output import printable, say
from manager.cli.terminal import Terminal
from manager.core.cluster import ClusterView
from manager.core.errors import OperationError, UserError
from manager.core.ids import NodeId, VmId
from manager.core.model import ClusterConfig, Node, NodeStatus, StatusCause, Vm, VmStatus
from manager.core.query.spec import natural
from manager.core.query.suggest import did_you_mean
from manager.services.event_log import EventLog
from manager.services.runtime import Runtime
from manager.services.workspace import Adapters, Workspace

DEFAULT_DEMO = "4x40"
NOT_REACHED = 3
"""Exit code: a needed node, or the whole cluster, cannot be reached."""

GRACE_TIMES = 3
"""A silent node is waited for three times as long as all others took together, if that is more."""

LOOK_S = 0.1

SAMPLE_GAP_S = 1.0
"""Between the two samples that make one figure of CPU use."""

MOST_REMEMBERED = 10_000


Chosen = tuple[ClusterConfig, Path | None]
"""A cluster, with its file if it has one."""


class Known(msgspec.Struct):
    """Names seen last in a cluster, for completion."""

    vms: list[str] = []
    nodes: list[str] = []


def completion_key(cluster: str) -> str:
    """Where a cluster's names are kept between two commands."""
    return f"completion of {cluster}"


def choose(adapters: Adapters, settings: Settings) -> tuple[ClusterConfig, Path | None]:
    """The cluster that is meant, with its file if it has one; says so if it is the demo unasked.

    Raises:
        UserError: Several may be meant, or its file is not usable.
        click.UsageError: Options contradict each other.
    """
    _one_of_them(settings)
    if settings.all_clusters:
        raise one_cluster_only()
    files = adapters.files
    if settings.demo:
        return adapters.demo(settings.demo), None
    if settings.from_dump:
        return adapters.dump(Path(settings.from_dump)), None
    if settings.connect:
        return adapters.adhoc(settings.connect), None
    if settings.cluster:
        return files.load(settings.cluster), files.find(settings.cluster)
    named = os.environ.get("MUSTER_CLUSTER")
    if named:
        try:
            return files.load(named), files.find(named)
        except UserError as error:
            raise UserError(f"MUSTER_CLUSTER: {error}", exit_code=error.exit_code) from error
    only = files.only()
    if only is not None:
        return files.load(str(only)), only
    say("no cluster is configured: this is the demo, a simulated cluster. Nothing real is touched.")
    return adapters.demo(DEFAULT_DEMO), None


LISTS_ACROSS = "vm list, node list, storage list, network list and events"
"""What can be of all clusters."""


def one_cluster_only() -> click.UsageError:
    """What is said where ``--all-clusters`` is for nothing that a command could do."""
    return click.UsageError(f"--all-clusters is for {LISTS_ACROSS}; name one cluster with --cluster.")


def _one_of_them(settings: Settings) -> None:
    given = [
        bool(settings.cluster),
        bool(settings.demo),
        bool(settings.connect),
        bool(settings.from_dump),
        settings.all_clusters,
    ]
    if sum(given) > 1:
        raise click.UsageError(
            "Only one of --cluster, --demo, --connect, --from-dump and --all-clusters can be given."
        )


def choose_all(adapters: Adapters, settings: Settings) -> list[Chosen]:
    """The clusters that a list is of: with ``--all-clusters`` those that are configured, else one.

    Raises:
        UserError: As `choose` does, or there is none to list.
    """
    if not settings.all_clusters:
        return [choose(adapters, settings)]
    _one_of_them(settings)
    paths = [each.path for each in adapters.files.configured()]
    if not paths:
        raise UserError("No cluster is configured: --all-clusters has nothing to list.")
    return [(adapters.files.load(str(path)), path) for path in paths]


def command_line(settings: Settings, *words: str) -> str:
    """A command on the same cluster, as it is typed."""
    meant: list[str] = []
    if settings.cluster:
        meant = ["--cluster", settings.cluster]
    elif settings.demo:
        meant = ["--demo", settings.demo]
    elif settings.from_dump:
        meant = ["--from-dump", settings.from_dump]
    elif settings.connect:
        meant = ["--connect", *settings.connect]
    return shlex.join(["muster", *meant, *words])


def choose_quietly(adapters: Adapters, settings: Settings) -> str:
    """The name of the cluster that `choose` would choose; opens and says nothing.

    Raises:
        UserError: As `choose` does.
    """
    named = settings.cluster or os.environ.get("MUSTER_CLUSTER")
    if settings.names_cluster and not settings.cluster:
        return choose(adapters, settings)[0].name
    path = adapters.files.find(named) if named else adapters.files.only()
    return adapters.files.load(str(path)).name if path else adapters.demo(DEFAULT_DEMO).name


def choose_for_window(adapters: Adapters, settings: Settings) -> list[Chosen]:
    """What the window opens: the cluster that is meant; unasked, those used last, else all there are.

    Raises:
        UserError: As `choose` does. Clusters used last whose file is broken are told of and left out.
    """
    if settings.all_clusters:
        return choose_all(adapters, settings)
    if settings.names_cluster or os.environ.get("MUSTER_CLUSTER"):
        return [choose(adapters, settings)]
    files = adapters.files
    paths = files.last_used() or tuple(each.path for each in files.configured())
    found: list[tuple[ClusterConfig, Path | None]] = []
    for path in paths:
        try:
            found.append((files.load(str(path)), path))
        except UserError as error:
            say(str(error))
    return found or [(adapters.demo(DEFAULT_DEMO), None)]


@dataclass(slots=True, kw_only=True)
class Session:
    """One open cluster. Loop thread only."""

    runtime: Runtime
    config: ClusterConfig
    source: Path | None
    adapters: Adapters
    terminal: Terminal
    begun_s: float  # on the loop's clock
    timeout_s: float  # of connecting and reading
    may_hurry: bool  # leave out silent nodes that are not needed; not if a time was asked for
    waited_s: float = 0.0  # for the nodes that are missing
    _others_s: float | None = None  # after which all but silent nodes were read

    @property
    def view(self) -> ClusterView:
        """The live state."""
        return self.runtime.view

    @property
    def outlives_us(self) -> bool:
        """Whether its hosts exist without this process: not the demo's, not libvirt's test driver's."""
        return self.config.is_real and not any(node.uri.startswith("test:") for node in self.config.nodes)

    @property
    def is_shared(self) -> bool:
        """Whether other processes can work on it too: demo and dump exist in this one alone."""
        return self.config.is_real

    def unreachable(self) -> list[Node]:
        """The nodes of which nothing is known now."""
        return [node for node in self.view.nodes.values() if not node.is_up]

    def why_unreachable(self, node: Node) -> str:
        """One node's trouble and what to try."""
        information = node.information
        if information is None:
            hint = "" if self.waited_s >= self.timeout_s else " --timeout SECONDS waits longer."
            return f"node {node.id} did not answer within {min(self.waited_s, self.timeout_s):.2g} s.{hint}"
        text = information.text
        if not re.search(rf"(?<!\w){re.escape(node.id)}(?!\w)", text):  # a node may be named “h”
            text = f"node {node.id}: {text}"
        return f"{text}. {information.remedy}".rstrip(" .") + "."

    def warn_of_unreachable(self) -> int:
        """Tell of every node that is missing; returns how many of them there are."""
        missing = self.unreachable()
        for node in missing:
            say(self.why_unreachable(node))
        return len(missing)

    def need_any(self) -> None:
        """Raises `UserError` if no node at all is there."""
        missing = self.unreachable()
        if missing and len(missing) == len(self.view.nodes):
            lines = "\n".join(printable(self.why_unreachable(node)) for node in missing)
            raise UserError(
                f"No node of cluster {self.config.name} can be reached.\n{lines}", exit_code=NOT_REACHED
            )

    @property
    def left_s(self) -> float:
        """Time left for connecting and reading. That in which a password is typed does not count."""
        return self.timeout_s - self._elapsed_s()

    def _elapsed_s(self) -> float:
        return asyncio.get_running_loop().time() - self.begun_s - self.terminal.asked_s()

    async def read(self, *, definitions: bool, enough: Callable[[Session], bool]) -> None:
        """Wait until every node was read or failed, at most until the deadline.

        Args:
            definitions: And with it each VM's definition, which takes far longer than the rest.
            enough: Whether the command can do without the nodes that are silent so far.
        """
        reading = self.runtime.settled() if definitions else self.runtime.listed()
        settled = asyncio.ensure_future(reading)
        try:
            while not settled.done():
                if not self.terminal.is_asking:
                    if self.left_s <= 0:
                        break
                    if self.may_hurry and self._only_silent_ones_left(definitions) and enough(self):
                        break
                await asyncio.wait({settled}, timeout=max(min(self.left_s, LOOK_S), 0.01))
        finally:
            settled.cancel()
            self.waited_s = self._elapsed_s()
        if not settled.done() and not self.unreachable():
            say(f"not everything was read within {self.timeout_s:g} s; what is missing is shown as …")

    def _only_silent_ones_left(self, definitions: bool) -> bool:
        """Whether all nodes were read but some that did not answer yet, and those had their time.

        Their time grows with that of the others: a whole cluster may be far away.
        """
        left = [self.view.nodes[node] for node in self.runtime.unread(definitions=definitions)]
        someone = any(node.is_up for node in self.view.nodes.values())
        if not someone or any(node.status is not NodeStatus.CONNECTING for node in left):
            self._others_s = None
            return False
        elapsed_s = self._elapsed_s()
        if self._others_s is None:
            self._others_s = elapsed_s
        return elapsed_s >= max(GRACE_S, GRACE_TIMES * self._others_s)

    def is_certain_of(self, names: Sequence[str], target: NodeId | None = None) -> bool:
        """Whether these VMs are seen running, and the target answers: no silent node can change that.

        One that is off here may run there.
        """
        running = [vm for vm in self.view.vms.values() if vm.status in (VmStatus.RUNNING, VmStatus.PAUSED)]
        seen = {name for vm in running for name in (vm.name, str(vm.id))}
        there = target is None or (target in self.view.nodes and self.view.nodes[target].is_up)
        return there and all(name in seen or name.lower() in seen for name in names)

    async def read_room(self) -> None:
        """Read the pools if a VM stands still with a disk error: its reason names the one that is full."""
        if any(vm.cause is StatusCause.IO_ERROR for vm in self.view.vms.values()):
            await self.runtime.resources.read_all()

    async def sample(self) -> None:
        """Measure loads: two samples of every node, a second apart. A node that fails is left out."""

        async def one(node: Node) -> None:
            try:
                self.runtime.dispatch(await self.runtime.hypervisor.sample(node.id))
            except OperationError as error:
                say(f"the load of {node.id} cannot be read: {error}")

        for gap_s in (SAMPLE_GAP_S, 0.0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self.left_s, SAMPLE_GAP_S)):
                    await asyncio.gather(*(one(n) for n in self.view.nodes.values() if n.is_up))
            await asyncio.sleep(gap_s)

    def remember_names(self) -> None:
        """Keep the names for completion, which must not connect to anything."""
        views, key = self.adapters.views, completion_key(self.config.name)
        vms = {vm.name for vm in self.view.vms.values()}
        if self.unreachable() and (data := views.read(key)):
            with contextlib.suppress(msgspec.MsgspecError):
                vms.update(
                    msgspec.json.decode(data, type=Known).vms
                )  # those of missing nodes are still there
        known = Known(vms=sorted(vms)[:MOST_REMEMBERED], nodes=[str(node) for node in self.view.nodes])
        views.write(key, msgspec.json.encode(known))

    def remembered_vms(self) -> list[str]:
        """The VMs that were seen last, for a command that connects to nothing."""
        data = self.adapters.views.read(completion_key(self.config.name))
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(data or b"{}", type=Known).vms
        return []

    # --- names -----------------------------------------------------------------------------

    def by_name(self) -> list[VmId]:
        """All VMs, in the natural order of their names."""
        return sorted(self.view.vms, key=lambda key: (natural(self.view.vms[key].name.lower()), key))

    def find(self, names: Sequence[str]) -> list[VmId]:
        """The VMs of these names or UUIDs, each once, in the order given.

        Raises:
            UserError: One is unknown or ambiguous; all such are named. With exit code 3 if it may only be
                unknown because a node is missing.
        """
        by_name: dict[str, list[Vm]] = {}
        for vm in self.view.vms.values():
            by_name.setdefault(vm.name, []).append(vm)
        found: dict[VmId, None] = {}
        ambiguous: list[str] = []
        unknown: list[str] = []
        for name in dict.fromkeys(names):
            meant = {vm.id: vm for vm in by_name.get(name, [])}
            same_uuid = self.view.vms.get(VmId(name.lower()))
            if same_uuid is not None:
                meant[same_uuid.id] = same_uuid
            if len(meant) == 1:
                found.update(dict.fromkeys(meant))
            elif meant:
                where = ", ".join(f"{vm.id} on {vm.owner}" for vm in sorted(meant.values(), key=_by_owner))
                ambiguous.append(f"{name} is ambiguous: {where}. Give the UUID.")
            else:
                unknown.append(f"There is no VM {name} in {self.config.name}." + did_you_mean(name, by_name))
        if not ambiguous and not unknown:
            return list(found)
        missing = self.unreachable()
        exit_code = 2
        lines = ambiguous + unknown
        if unknown and missing:
            lines += [self.why_unreachable(node) for node in missing]
            lines.append("A VM that only such a node knows cannot be found now.")
            exit_code = 2 if ambiguous else NOT_REACHED
        lines.append("Nothing was done.")
        raise UserError("\n".join(printable(line) for line in lines), exit_code=exit_code)


def _by_owner(vm: Vm) -> Any:
    return natural(str(vm.owner))


@asynccontextmanager
async def opened(
    app: App,
    settings: Settings,
    *,
    reading: bool,
    nodes: bool = True,
    at_once: bool = False,
    definitions: bool = True,
    enough: Callable[[Session], bool] = lambda _: False,
    check: Callable[[ClusterConfig], None] | None = None,
) -> AsyncIterator[Session]:
    """A session with everything read; closed at the end, whatever hangs.

    Args:
        app: Where the adapters come from.
        settings: Which cluster, how long.
        reading: The command only looks; see `BuildAdapters`.
        nodes: Connect to them and read them; else only what their owner or the journal says is known.
        at_once: Begin before anything of the nodes was read.
        definitions: It needs more of the VMs than their names and states.
        enough: Whether it can do without the nodes that are silent so far.
        check: What can be refused before anything is connected to.
    """

    def chosen(adapters: Adapters) -> list[Chosen]:
        config, source = choose(adapters, settings)
        if check is not None:
            check(config)
        return [(config, source)]

    async with _sessions(app, settings, chosen, reading=reading, nodes=nodes) as (session,):
        if nodes and not at_once:
            await session.read(definitions=definitions, enough=enough)
            session.remember_names()
        yield session


@asynccontextmanager
async def opened_all(
    app: App,
    settings: Settings,
    *,
    nodes: bool = True,
    at_once: bool = False,
    definitions: bool = True,
    enough: Callable[[Session], bool] = lambda _: False,
    check: Callable[[Sequence[ClusterConfig]], None] | None = None,
) -> AsyncIterator[list[Session]]:
    """A session for each cluster that a list is of, all read at the same time; see `opened`."""

    def chosen(adapters: Adapters) -> list[Chosen]:
        found = choose_all(adapters, settings)
        if check is not None:
            check([config for config, _ in found])
        return found

    async def read(session: Session) -> None:
        await session.read(definitions=definitions, enough=enough)
        session.remember_names()

    async with _sessions(app, settings, chosen, reading=True, nodes=nodes) as sessions:
        if nodes and not at_once:
            await asyncio.gather(*(read(session) for session in sessions))
        yield sessions


@asynccontextmanager
async def _sessions(
    app: App,
    settings: Settings,
    choose_from: Callable[[Adapters], list[Chosen]],
    *,
    reading: bool,
    nodes: bool,
) -> AsyncIterator[list[Session]]:
    event_log = EventLog(settings.log_json) if settings.log_json else None
    adapters = app.adapters(event_log, reading=reading)
    try:
        chosen = choose_from(adapters)
        terminal = Terminal()
        workspace = Workspace(adapters, terminal.ask_secret)
        try:
            begun_s = asyncio.get_running_loop().time()
            yield [
                Session(
                    runtime=await workspace.open(config, nodes=nodes),
                    config=config,
                    source=source,
                    adapters=adapters,
                    terminal=terminal,
                    begun_s=begun_s,
                    timeout_s=settings.timeout_s or DEFAULT_TIMEOUT_S,
                    may_hurry=settings.timeout_s is None,
                )
                for config, source in chosen
            ]
        finally:
            await workspace.shutdown()
    finally:
        if event_log is not None:
            event_log.close()


def run_async(work: Coroutine[Any, Any, int]) -> int:
    """Run a command to its exit code. Ctrl-C and SIGTERM cancel it; it then says what goes on.

    Raises:
        click.Abort: It was interrupted.
    """

    async def main() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise click.Abort from None

"""A cluster, opened for one command: chosen, connected to, read; and the names a user gives, found in it."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from manager.cli.app import App
from manager.cli.options import Settings
from manager.cli.output import printable, say
from manager.cli.terminal import Terminal
from manager.core.cluster import ClusterView
from manager.core.errors import OperationError, UserError
from manager.core.ids import VmId
from manager.core.model import ClusterConfig, Node, Tier, Vm
from manager.core.query.fields import natural
from manager.services.event_log import EventLog
from manager.services.runtime import Runtime
from manager.services.workspace import Adapters, Workspace

DEFAULT_DEMO = "4x40"
NOT_REACHED = 3
"""Exit code: a needed node, or the whole cluster, cannot be reached."""

SAMPLE_GAP_S = 1.0
"""Between the two samples that make one figure of CPU use."""

MOST_REMEMBERED = 10_000


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
    given = [bool(settings.cluster), bool(settings.demo), bool(settings.connect)]
    if sum(given) > 1:
        raise click.UsageError("Only one of --cluster, --demo and --connect can be given.")
    files = adapters.files
    if settings.demo:
        return adapters.demo(settings.demo), None
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


def choose_for_window(adapters: Adapters, settings: Settings) -> list[tuple[ClusterConfig, Path | None]]:
    """What the window opens: the cluster that is meant; unasked, those used last, else all there are.

    Raises:
        UserError: As `choose` does. Clusters used last whose file is broken are told of and left out.
    """
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
    deadline_s: float  # of connecting and reading, on the loop's clock
    timeout_s: float

    @property
    def view(self) -> ClusterView:
        """The live state."""
        return self.runtime.view

    @property
    def outlives_us(self) -> bool:
        """Whether its hosts exist without this process: not the demo's, not libvirt's test driver's."""
        return self.config.tier is not Tier.DEMO and not any(
            node.uri.startswith("test:") for node in self.config.nodes
        )

    def unreachable(self) -> list[Node]:
        """The nodes of which nothing is known now."""
        return [node for node in self.view.nodes.values() if not node.is_up]

    def why_unreachable(self, node: Node) -> str:
        """One node's trouble and what to try."""
        information = node.information
        if information is None:
            return f"node {node.id} did not answer within {self.timeout_s:g} s."
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

    async def read(self, *, definitions: bool) -> None:
        """Wait until every node was read or failed, at most until the deadline.

        `definitions`: and with it each VM's definition, which takes far longer than the rest.
        """
        reading = self.runtime.settled() if definitions else self.runtime.listed()
        settled = asyncio.ensure_future(reading)
        loop = asyncio.get_running_loop()
        try:
            while not settled.done():
                # Time in which a password is typed does not count.
                left_s = self.deadline_s + self.terminal.asked_s() - loop.time()
                if left_s <= 0 and not self.terminal.is_asking:
                    break
                await asyncio.wait({settled}, timeout=max(left_s, 0.2))
        finally:
            settled.cancel()
        if not settled.done() and not self.unreachable():
            say(f"not everything was read within {self.timeout_s:g} s; what is missing is shown as …")

    async def sample(self) -> None:
        """Measure loads: two samples of every node, a second apart. A node that fails is left out."""
        loop = asyncio.get_running_loop()

        async def one(node: Node) -> None:
            try:
                self.runtime.dispatch(await self.runtime.hypervisor.sample(node.id))
            except OperationError as error:
                say(f"the load of {node.id} cannot be read: {error}")

        for gap_s in (SAMPLE_GAP_S, 0.0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self.deadline_s - loop.time(), SAMPLE_GAP_S)):
                    await asyncio.gather(*(one(n) for n in self.view.nodes.values() if n.is_up))
            await asyncio.sleep(gap_s)

    def remember_names(self) -> None:
        """Keep the names for completion, which must not connect to anything."""
        vms = sorted(vm.name for vm in self.view.vms.values())[:MOST_REMEMBERED]
        known = Known(vms=vms, nodes=[str(node) for node in self.view.nodes])
        self.adapters.views.write(completion_key(self.config.name), msgspec.json.encode(known))

    # --- names -----------------------------------------------------------------------------

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


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known words, or nothing; begins with a space."""
    near = difflib.get_close_matches(wrong, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""


@asynccontextmanager
async def opened(
    app: App,
    settings: Settings,
    *,
    reading: bool,
    definitions: bool = True,
    check: Callable[[ClusterConfig], None] | None = None,
) -> AsyncIterator[Session]:
    """A session with everything read; closed at the end, whatever hangs.

    Args:
        app: Where the adapters come from.
        settings: Which cluster, how long.
        reading: The command only looks; see `BuildAdapters`.
        definitions: It needs more of the VMs than their names and states.
        check: What can be refused before anything is connected to.
    """
    event_log = EventLog(settings.log_json) if settings.log_json else None
    adapters = app.adapters(event_log, reading=reading)
    try:
        config, source = choose(adapters, settings)
        if check is not None:
            check(config)
        terminal = Terminal()
        workspace = Workspace(adapters, terminal.ask_secret)
        try:
            deadline_s = asyncio.get_running_loop().time() + settings.timeout_s
            session = Session(
                runtime=await workspace.open(config),
                config=config,
                source=source,
                adapters=adapters,
                terminal=terminal,
                deadline_s=deadline_s,
                timeout_s=settings.timeout_s,
            )
            await session.read(definitions=definitions)
            session.remember_names()
            yield session
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

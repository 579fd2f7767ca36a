"""The clusters that are open in this process, each with a runtime of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from manager.core.chronicle import ClusterEvent
from manager.core.errors import OperationError, UserError
from manager.core.ids import ClusterId, NodeId
from manager.core.model import ClusterConfig, NodeConfig, NodeFacts, ProblemLife
from manager.core.operations import Operation
from manager.services.event_log import EventLog
from manager.services.ports import AskSecret, ClusterFiles, Hypervisor, SecretStore, ViewStore
from manager.services.runtime import Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the journal of a cluster says while nobody works on it."""

    left: tuple[Operation, ...] = ()  # what had not ended, parents first
    ended: tuple[Operation, ...] = ()  # newest first
    events: tuple[ClusterEvent, ...] = ()  # since a moment, oldest first
    lives: tuple[ProblemLife, ...] = ()  # of problems


async def _no_past(config: ClusterConfig, limit: int, since_s: float | None = None) -> Past | None:
    return None


class ReadPast(Protocol):
    """Reads a journal that nobody works on; None if somebody does, or there is none. Raises `OSError`."""

    def __call__(
        self, config: ClusterConfig, limit: int, since_s: float | None = None
    ) -> Awaitable[Past | None]:
        """So many ended operations, and what happened since a moment."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """What bootstrap builds: the world behind the ports."""

    files: ClusterFiles
    secrets: SecretStore
    views: ViewStore
    runtime: Callable[[ClusterConfig, AskSecret | None], Runtime]
    hypervisor: Callable[[ClusterConfig, AskSecret | None], Hypervisor]
    demo: Callable[[str], ClusterConfig]  # "4x40" -> the demo cluster
    dump: Callable[[Path], ClusterConfig]  # the cluster of a dump's file; raises `UserError`
    adhoc: Callable[[tuple[str, ...]], ClusterConfig]  # URIs -> a cluster without a file
    event_log: EventLog | None = None
    past: ReadPast = _no_past
    """The journal of a cluster, with at most so many ended operations; None if somebody works on it.

    Raises `OSError` if it cannot be read.
    """


class Workspace:
    """Opens and closes clusters. Loop thread only."""

    def __init__(self, adapters: Adapters, ask_secret: AskSecret | None = None) -> None:
        self.adapters = adapters
        self.ask_secret = ask_secret
        self._runtimes: dict[ClusterId, Runtime] = {}
        self._sources: dict[ClusterId, Path] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def runtimes(self) -> Mapping[ClusterId, Runtime]:
        """The open clusters, in the order they were opened."""
        return self._runtimes

    def source(self, cluster: ClusterId) -> Path | None:
        """The file that an open cluster came from, if there is one."""
        return self._sources.get(cluster)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever a cluster was opened or closed, until the result is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def open(
        self, config: ClusterConfig, source: Path | None = None, *, nodes: bool = True, stays: bool = False
    ) -> Runtime:
        """Open a cluster; returns at once with a runtime that is connecting.

        Args:
            config: The cluster, from a file, from URIs, or the demo.
            source: The file to remember for the next start, if there is one.
            nodes: False: connect to none of them.
            stays: This process stays until it is told to end: others may leave their work to it.

        Raises:
            UserError: A cluster of that name is open, its journal cannot be used, or belongs to another
                cluster of that name.
        """
        cluster = ClusterId(config.name)
        if cluster in self._runtimes:
            raise UserError(f"A cluster named {config.name} is open already.")
        runtime = self.adapters.runtime(config, self.ask_secret)
        if stays:
            runtime.engine.stays = True
        try:
            await (runtime.start() if nodes else runtime.start(nodes=False))
        except UserError:
            await runtime.close()
            raise
        except OSError as error:
            await runtime.close()
            raise UserError(
                f"The journal of cluster {config.name} cannot be used: {error}. Nothing was opened.",
                exit_code=1,
            ) from error
        self._runtimes[cluster] = runtime
        if source is not None:
            self._sources[cluster] = source
        self._changed()
        return runtime

    async def close(self, cluster: ClusterId) -> None:
        """Close one cluster; its hosts go on with what they do."""
        runtime = self._runtimes.pop(cluster, None)
        self._sources.pop(cluster, None)
        if runtime is not None:
            self._changed()
            await runtime.close()

    async def shutdown(self) -> None:
        """Close all at the same time, within two seconds."""
        runtimes = list(self._runtimes.values())
        self._runtimes.clear()
        await asyncio.gather(*(runtime.close() for runtime in runtimes))

    async def test_connection(self, uri: str, *, read_only: bool = False) -> NodeFacts:
        """Connect to one URI and hang up again.

        Raises:
            OperationError: With libvirt's own words and the kind of failure.
        """
        node = NodeConfig(name=NodeId("test"), uri=uri)
        config = ClusterConfig(name="connection test", nodes=(node,), read_only=read_only)
        hypervisor = self.adapters.hypervisor(config, self.ask_secret)
        try:
            return await hypervisor.connect(node)
        finally:
            try:
                await asyncio.wait_for(hypervisor.close(), 1.0)
            except (TimeoutError, OperationError) as error:
                log.info("closing the test connection: %s", error)

    def _changed(self) -> None:
        if self._sources:
            self.adapters.files.remember(tuple(self._sources.values()))
        for listener in tuple(self._listeners):
            listener()

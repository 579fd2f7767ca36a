"""Builds the adapters and wires them to the ports; the only module that knows them all.

Everything heavy is imported inside the function that needs it, so that ``muster --version`` starts
without Qt, libvirt or a key ring.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from manager import __version__
from manager.core.chronicle import KEPT_EVENTS
from manager.core.ids import ClusterId
from manager.core.model import ClusterConfig, Tier
from manager.services.event_log import EventLog
from manager.services.ports import AskSecret, Hypervisor, UserUnits, Vault
from manager.services.runtime import Runtime
from manager.services.workspace import Adapters, Past, Workspace

if TYPE_CHECKING:
    import click

    from manager.backends.sim.world import SimWorld
    from manager.cli.app import WindowOptions
    from manager.core.dump import ClusterDump
    from manager.services.clock import RealClock
    from manager.store.paths import Paths


def adapters(event_log: EventLog | None = None, *, reading: bool = False) -> Adapters:
    """The world behind the ports, for this user.

    Args:
        event_log: Where every event is recorded.
        reading: For a command that only looks: it may follow the owner of a cluster's operations, but
            never becomes the owner, so that looking starts nothing that is left in the journal.

    Raises:
        UserError: A folder of the user's cannot be used.
    """
    from manager.store.cluster_files import ClusterFiles, config_from_uris
    from manager.store.paths import Paths
    from manager.store.secrets import KeyringSecretStore
    from manager.store.views import FileViewStore

    paths = Paths.of_user()
    paths.prepare()
    secrets = KeyringSecretStore()

    def hypervisor(config: ClusterConfig, ask_secret: AskSecret | None) -> Hypervisor:
        if config.tier is Tier.DEMO:
            return _demo_hypervisor(config)
        if config.tier is Tier.DUMP:
            from manager.backends.dump.hypervisor import DumpHypervisor

            return DumpHypervisor(_dumps[config.name], _clock(config))
        from manager.backends.libvirt.backend import LibvirtHypervisor
        from manager.services.clock import RealClock

        return LibvirtHypervisor(config=config, clock=RealClock(), secrets=secrets, ask_secret=ask_secret)

    def runtime(config: ClusterConfig, ask_secret: AskSecret | None) -> Runtime:
        return _runtime(config, hypervisor(config, ask_secret), paths, event_log, reading=reading)

    return Adapters(
        files=ClusterFiles(paths.clusters, paths.last_used),
        secrets=secrets,
        views=FileViewStore(paths.views),
        runtime=runtime,
        hypervisor=hypervisor,
        demo=_demo_config,
        dump=_dump_config,
        adhoc=lambda uris: config_from_uris(list(uris)),
        event_log=event_log,
        past=lambda config, limit, since_s=None: _past(config, paths, limit, since_s),
    )


async def _past(config: ClusterConfig, paths: Paths, limit: int, since_s: float | None) -> Past | None:
    """What a journal says that nobody works on. The lock is held meanwhile, so that nobody begins to."""
    from manager.store.journal import SqliteJournal
    from manager.store.lock import OwnershipLock

    key = _state_key(config)
    lock = OwnershipLock(paths.lock(key))
    if not config.is_real or not paths.journal(key).exists() or not lock.try_take():
        return None
    journal = SqliteJournal(paths.journal(key))
    try:
        return Past(
            left=await journal.load(),
            ended=await journal.history(limit) if limit else (),
            events=() if since_s is None else await journal.happened(since_s, KEPT_EVENTS),
            lives=await journal.lives(),
        )
    finally:
        await journal.close()
        lock.release()


def _state_key(config: ClusterConfig) -> ClusterId:
    """By what a cluster's journal, lock and socket go: its name, if it has a file.

    Clusters of ``--connect`` have no names of their own; their hosts tell them apart.
    """
    if config.file:
        return ClusterId(config.name)
    return ClusterId(" ".join([config.name, *sorted(node.uri for node in config.nodes)]))


_demo_worlds: dict[str, SimWorld] = {}
"""The simulated hosts of this process: a cluster that is opened again finds them as it left them."""


def _demo_config(size: str) -> ClusterConfig:
    """The demo cluster of a size like ``4x40``; its simulated hosts start to exist with it."""
    from manager.backends.sim.demo import demo_cluster, parse_size
    from manager.services.clock import RealClock

    nodes, vms = parse_size(size)
    config, world = demo_cluster(nodes, vms, clock=RealClock(), lively=True)
    _demo_worlds[config.name] = world
    return config


_dumps: dict[str, ClusterDump] = {}
"""The dumps that are open in this process."""


def _dump_config(path: Path) -> ClusterConfig:
    """The cluster of a dump's file."""
    from manager.store.dumps import read_dump

    dump = read_dump(path)
    config = replace(dump.cluster, file=str(path.absolute()))
    _dumps[config.name] = dump
    return config


def _dump_vault(config: ClusterConfig) -> Vault:
    from manager.backends.dump.vault import DumpVault

    return DumpVault(_dumps[config.name])


def _clock(config: ClusterConfig) -> RealClock:
    """The machine's; of a dump, one that goes on from when it was made: ages are as they were."""
    from manager.services.clock import RealClock

    return RealClock(_dumps[config.name].made_s if config.tier is Tier.DUMP else None)


def _demo_hypervisor(config: ClusterConfig) -> Hypervisor:
    from manager.backends.sim.hypervisor import SimHypervisor

    return SimHypervisor(_demo_worlds[config.name], read_only=config.read_only)


def _runtime(
    config: ClusterConfig,
    hypervisor: Hypervisor,
    paths: Paths,
    event_log: EventLog | None,
    *,
    reading: bool,
) -> Runtime:
    from manager.services.engine import Ownership
    from manager.services.memory_journal import MemoryJournal
    from manager.services.ports import Journal
    from manager.store.journal import SqliteJournal
    from manager.store.lock import OwnershipLock
    from manager.store.vault import SqliteVault

    journal: Journal = MemoryJournal()
    vault: Vault = _dump_vault(config) if config.tier is Tier.DUMP else SqliteVault(None)
    ownership = None
    if config.is_real:
        key = _state_key(config)
        if not reading:
            journal = SqliteJournal(paths.journal(key))
        vault = SqliteVault(paths.vault(key))
        lock = OwnershipLock(paths.lock(key))
        ownership = Ownership(lock=lock, socket=paths.socket(key), only_looks=reading)
    return Runtime(
        config=config,
        hypervisor=hypervisor,
        journal=journal,
        clock=_clock(config),
        author=f"{getpass.getuser()}@{socket.gethostname()}",
        ownership=ownership,
        event_log=event_log,
        vault=vault,
    )


def _load_adapters(configs: Iterable[ClusterConfig]) -> None:
    """Import what opening these clusters needs while there is no window that would stand still for it."""
    for tier in {config.tier for config in configs}:
        if tier in (Tier.DEMO, Tier.DUMP):
            import manager.backends.sim.hypervisor
            import manager.services.memory_journal
        else:
            import manager.backends.libvirt.backend
    import manager.store.journal
    import manager.store.lock
    import manager.store.vault  # noqa: F401


def run_window(
    built: Adapters,
    clusters: Sequence[tuple[ClusterConfig, Path | None]],
    options: WindowOptions,
) -> int:
    """Open the window on these clusters and return the process's exit code."""
    from manager.ui.app import run
    from manager.ui.options import GuiOptions

    _load_adapters(config for config, _ in clusters)
    chosen = GuiOptions(
        page=options.page, theme=options.theme, size=options.size, screenshot=options.screenshot
    )
    return run(Workspace(built), list(clusters), chosen, built.event_log)


def lab_group() -> click.Group:
    """The commands of ``muster lab``."""
    from manager.lab.cli import lab

    return lab


def user_units() -> UserUnits:
    """The service of ``muster engine``."""
    from manager.store.user_units import SystemdUnits

    return SystemdUnits()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from manager.cli.app import App
    from manager.cli.main import run

    logging.getLogger().setLevel(os.environ.get("MUSTER_LOG", "WARNING").upper())
    app = App(
        adapters=adapters,
        run_window=run_window,
        lab_group=lab_group,
        units=user_units,
        version=__version__,
    )
    return run(app, list(sys.argv[1:] if argv is None else argv))


def leave(code: int) -> NoReturn:
    """End the process with this exit code, also while threads are stuck in calls to hosts that hang.

    The interpreter's own way out crashes under threads that sit in libvirt's code (a daemon thread that
    comes back from a call while the interpreter is torn down), so it is taken only where there are none.
    """
    if all(thread is threading.current_thread() or not thread.daemon for thread in threading.enumerate()):
        sys.exit(code)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a pipe whose reader is gone
            stream.flush()
    os._exit(code)

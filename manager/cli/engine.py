"""``muster engine``: the owner of a cluster's operations without a window, and its service."""

from __future__ import annotations

import asyncio
import getpass
import os
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click

from manager.cli.app import App
from manager.cli.options import Command, Group, Settings, settings_of
from manager.core.errors import UserError

DOC = """Work on a cluster without a window, until told to end.

It carries out what windows and commands ask for, and goes on with what they leave: what waits for its
turn, the next steps of moves, retries. Where another process works on the cluster already, it says which,
and takes over when that one ends. Ctrl-C or SIGTERM ends it within 2 s: live moves go on on the hosts, what
waits is kept in the journal. What happens is told on standard error."""


def engine_group(app: App) -> Group:
    """The command, and those about its service."""

    @click.pass_context
    def callback(ctx: click.Context) -> int | None:
        if ctx.invoked_subcommand is not None:
            return None
        return _run(run_engine(app, settings_of(ctx)))

    return Group(
        "engine",
        help=DOC,
        short_help="Work on a cluster without a window.",
        invoke_without_command=True,
        callback=callback,
        commands=[
            _service(
                app,
                "install",
                install,
                "Install the engine of a cluster as a service of your systemd, and start it.",
            ),
            _service(app, "remove", remove, "Stop that service and remove it."),
            _service(app, "status", status, "Show who works on the cluster, and how its service stands."),
        ],
    )


def _run(work: Coroutine[Any, Any, int]) -> int:
    from manager.cli.session import run_async

    return run_async(work)


def _service(app: App, name: str, work: Callable[[App, Settings], int], doc: str) -> Command:
    @click.pass_context
    def callback(ctx: click.Context) -> int:
        return work(app, settings_of(ctx))

    return Command(name, help=doc, callback=callback)


# --- the engine ------------------------------------------------------------------------------------


async def run_engine(app: App, settings: Settings) -> int:
    """``muster engine``: returns when it was told to end."""
    from manager.cli.engine_log import EngineLog
    from manager.cli.session import choose
    from manager.cli.terminal import Terminal
    from manager.services.event_log import EventLog
    from manager.services.workspace import Workspace

    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    event_log = EventLog(settings.log_json) if settings.log_json else None
    workspace: Workspace | None = None
    try:
        adapters = app.adapters(event_log)
        config, _ = choose(adapters, settings)
        if not config.is_real:
            raise click.UsageError(
                "An engine needs real hosts; those of demo and dump exist only inside each command. "
                "Configure a cluster, or give --cluster or --connect."
            )
        workspace = Workspace(adapters, Terminal().ask_secret)
        with EngineLog(config.name) as log:
            opening = asyncio.ensure_future(workspace.open(config, stays=True))
            stopping = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if opening.done():
                    log.begin(opening.result())
                    await stopping
            finally:
                stopping.cancel()
                opening.cancel()
                log.end()
                await workspace.shutdown()
    finally:
        if event_log is not None:
            event_log.close()
    return 0


# --- its service -----------------------------------------------------------------------------------


def install(app: App, settings: Settings) -> int:
    """``muster engine install``."""
    from manager.cli.output import say

    units = app.units()
    cluster, meant = _cluster(app, settings)
    unit = units.name(meant)
    try:
        units.install()
    except OSError as error:
        raise UserError(
            f"{units.path}: {error.strerror or error}. Nothing was installed.", exit_code=1
        ) from error
    told = [f"{units.path} is written."]
    code = 0
    for words in (("daemon-reload",), ("enable", "--now", unit)):
        ran = units.systemctl(*words)
        if ran is None:
            told.append("There is no systemctl here. Where there is, run:")
        elif ran[0] != 0:
            code = 1
            told.append(
                f"systemctl --user {words[0]}: {ran[1] or f'exit code {ran[0]}'}. Once that works, run:"
            )
        else:
            continue
        told += [
            "  systemctl --user daemon-reload",
            f"  {shlex.join(['systemctl', '--user', 'enable', '--now', unit])}",
        ]
        break
    else:
        told.append(f"{unit} runs, and starts with each of your sessions.")
    told.append(
        f"So that it also runs while you are not logged in: loginctl enable-linger {getpass.getuser()}"
    )
    if "SSH_AUTH_SOCK" in os.environ:
        told.append("It does not see your SSH agent: give it a key in ~/.ssh that needs no passphrase.")
    say("\n".join(told))
    _print_state(app, settings, cluster, meant)
    return code


def remove(app: App, settings: Settings) -> int:
    """``muster engine remove``."""
    from manager.cli.output import say

    units = app.units()
    cluster, meant = _cluster(app, settings)
    unit, told, code = units.name(meant), [], 0
    if not units.path.exists():
        say(f"{units.path} is not there: no engine is installed.")
        _print_state(app, settings, cluster, meant)
        return 0
    ran = units.systemctl("disable", "--now", unit)
    if ran is None:
        told.append(f"There is no systemctl here. Where there is, run: systemctl --user disable --now {unit}")
    elif ran[0] != 0:
        code = 1
        told.append(f"systemctl --user disable: {ran[1] or f'exit code {ran[0]}'}.")
    else:
        told.append(f"{unit} is stopped, and starts no more.")
    others = [each for each in units.enabled() if each != unit]
    if others:
        told.append(f"{units.path} stays: it is also that of {', '.join(others)}.")
    elif code == 0:
        try:
            units.remove()
        except OSError as error:
            raise UserError(f"{units.path}: {error.strerror or error}.", exit_code=1) from error
        units.systemctl("daemon-reload")
        told.append(f"{units.path} is removed.")
    say("\n".join(told))
    _print_state(app, settings, cluster, meant)
    return code


def status(app: App, settings: Settings) -> int:
    """``muster engine status``."""
    cluster, meant = _cluster(app, settings)
    _print_state(app, settings, cluster, meant)
    return 0


def _cluster(app: App, settings: Settings) -> tuple[str, str]:
    """The cluster's name, and how its service names it: by its name if that leads to its file, else by that.

    Raises:
        click.UsageError: It has no file.
    """
    from manager.cli.session import choose

    adapters = app.adapters(reading=True)
    config, source = choose(adapters, settings)
    if source is None:
        raise click.UsageError("A service needs a cluster file: give --cluster FILE|NAME.")
    try:
        named = adapters.files.find(config.name) == source
    except UserError:
        named = False
    return config.name, config.name if named else str(source.absolute())


def _print_state(app: App, settings: Settings, cluster: str, meant: str) -> None:
    from manager.cli.output import print_json, print_pairs
    from manager.core.units import duration_text, iso_text

    units = app.units()
    unit = units.name(meant)
    owner, now_s = _run_owner(app, settings)
    installed = units.path.exists()
    ran = units.systemctl("is-active", unit) if installed else None
    shown: dict[str, Any] = {
        "cluster": cluster,
        "owner": owner and owner.pid,
        "engine": owner is not None and owner.stays,
        "file": owner.file or None if owner else None,
        "since": iso_text(owner.since_s) if owner else None,
        "unit": unit,
        "unit_file": str(units.path) if installed else None,
        "enabled": unit in units.enabled(),
        "active": ran[1].splitlines()[0] if ran and ran[1] else None,
    }
    if settings.as_json:
        print_json([shown])
        return
    works = f"{owner}, for {duration_text(now_s - owner.since_s)}" if owner else "nobody"
    service = "not installed"
    if installed:
        enabled = "starts with your sessions" if shown["enabled"] else "not enabled"
        service = f"{unit}: {shown['active'] or 'state unknown'}, {enabled}"
    pairs = [("Cluster", cluster), ("Works on it", works), ("Service", service)]
    if owner is not None and owner.file:
        pairs.insert(2, ("By the file", owner.file))
    print_pairs(pairs)
    sys.stdout.flush()


def _run_owner(app: App, settings: Settings) -> tuple[Any, float]:
    """Who works on the cluster now, and what time it is."""
    from manager.cli.session import opened, run_async

    found: list[tuple[Any, float]] = []

    async def ask() -> int:
        async with opened(app, settings, reading=True, nodes=False) as session:
            found.append((session.runtime.engine.owner, session.runtime.clock.now_s()))
        return 0

    run_async(ask())
    return found[0]

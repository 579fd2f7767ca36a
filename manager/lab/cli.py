"""``muster lab up|status|down``. Results on standard output, everything else on standard error."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from manager.core.units import count_text
from manager.lab import requirements
from manager.lab.errors import LabError
from manager.lab.lab import Lab, LabSpec, LabStatus, default_directory

T = TypeVar("T")

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of the lab; another folder is another lab.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(help="Real libvirt hosts with real guests on this one machine, to try things out. Needs root.")
def lab() -> None:
    """The group that `muster` attaches."""


@lab.command(help="Bring a lab up. A living one is left as it is and shown.")
@click.option("--nodes", type=click.IntRange(1, 64), default=3, show_default=True, help="Hosts.")
@click.option("--vms", type=click.IntRange(0, 200), default=6, show_default=True, help="Guests in all.")
@click.option(
    "--memory", "memory_mib", type=click.IntRange(80), default=96, show_default=True, help="MiB per guest."
)
@_directory
@click.option("--wait-guests", is_flag=True, help="Return only when every guest has booted.")
@click.option("--no-remote", is_flag=True, help="Without ssh and TLS.")
@click.option("--install", is_flag=True, help="Install missing packages with apt first.")
@_as_json
def up(
    nodes: int,
    vms: int,
    memory_mib: int,
    directory: Path | None,
    wait_guests: bool,
    no_remote: bool,
    install: bool,
    as_json: bool,
) -> None:
    """Bring a lab up."""
    spec = LabSpec(
        directory=directory or default_directory(),
        nodes=nodes,
        vms=vms,
        memory_mib=memory_mib,
        remote=not no_remote,
        wait_guests=wait_guests,
    )

    async def work() -> LabStatus:
        if install:
            await requirements.ensure_installed(_say)
        return await (await Lab.up(spec, _say)).status()

    _show(_run(work()), as_json=as_json)


@lab.command(help="Show a lab's nodes and VMs. Exit code 1 if there is none or it is broken.")
@_directory
@_as_json
def status(directory: Path | None, as_json: bool) -> None:
    """Show a lab."""
    where = directory or default_directory()

    async def work() -> LabStatus | None:
        found = Lab.attach(where)
        return await found.status() if found else None

    seen = _run(work())
    if seen is None:
        if as_json:
            _print_json({"directory": str(where), "state": "down"})
        _fail(LabError(f"There is no lab in {where}. Try: muster lab up"))
    _show(seen, as_json=as_json)
    if seen.state != "up":
        _fail(LabError(f"The lab in {where} is broken. Try: muster lab down"))


@lab.command(help="End a lab; nothing of it is left. No lab is no error.")
@_directory
@click.option("--keep", is_flag=True, help="Leave its files where they are.")
@_as_json
def down(directory: Path | None, keep: bool, as_json: bool) -> None:
    """End a lab."""
    where = directory or default_directory()
    ended = _run(Lab.remove(where, keep=keep))
    if not ended:
        _say(f"there is no lab in {where}")
    if as_json:
        _print_json({"directory": str(where), "state": "down", "ended": ended})


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C and SIGTERM cancel, so that a half-made lab is taken away."""

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(main())
    except LabError as error:
        _fail(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _fail(LabError("Interrupted."))


def _fail(error: LabError) -> NoReturn:
    click.echo(f"muster lab: {error}", err=True)
    raise SystemExit(error.exit_code)


def _say(text: str) -> None:
    click.echo(f"muster lab: {text}", err=True)


def _print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _show(seen: LabStatus, *, as_json: bool) -> None:
    if as_json:
        _print_json(seen)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("Node", "Address", "Power", "Daemon", "Network", "VMs"):
        table.add_column(title)
    for node in seen.nodes:
        vms = ", ".join(
            vm.name if vm.state == "running" else f"{vm.name} ({vm.state})"
            for vm in seen.vms
            if vm.node == node.name
        )
        table.add_row(node.name, node.address, node.power, node.daemon, node.network, escape(vms))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    how = "KVM" if seen.accelerator == "kvm" else "TCG"
    counts = f"{count_text(len(seen.nodes), 'node')}, {count_text(len(seen.vms), 'VM')}"
    console.print(f"\n{counts} under {how}, {seen.state}. Cluster file: {escape(seen.cluster_file)}")

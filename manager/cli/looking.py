"""What the commands that look at one VM closely do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import click

from manager.cli.app import App
from manager.cli.options import Settings
from manager.cli.output import Column, print_json, print_table, printable, say
from manager.cli.session import NOT_REACHED, Session, opened
from manager.core.errors import FailureCode, OperationError, UserError
from manager.core.ids import VmId
from manager.core.query.spec import natural
from manager.core.query.suggest import did_you_mean
from manager.core.units import iso_text, time_text
from manager.services.ports import Console
from manager.services.vault import DefinitionKeeper

LEAVE = 0x1D
"""Ctrl+], as `virsh console` has it."""


@contextlib.asynccontextmanager
async def _at(app: App, settings: Settings, name: str) -> AsyncIterator[tuple[Session, VmId]]:
    """One VM of an open cluster. What its host refuses ends the command with that."""

    def enough(session: Session) -> bool:
        return session.is_certain_of([name])

    async with opened(app, settings, reading=True, definitions=False, enough=enough) as session:
        session.need_any()
        found = session.find([name])[0]
        try:
            yield session, found
        except OperationError as error:
            lost = error.failure.code in (FailureCode.UNREACHABLE, FailureCode.TIMEOUT)
            text = f"{name}: {error.failure.text or error.failure.code.value}."
            raise UserError(printable(text), exit_code=NOT_REACHED if lost else 1) from None


@contextlib.asynccontextmanager
async def _vault(app: App, settings: Settings) -> AsyncIterator[DefinitionKeeper]:
    """What is kept of a cluster's definitions; no node is connected to."""
    async with opened(app, settings, reading=True, nodes=False) as session:
        kept = session.runtime.definitions
        if kept is None:
            raise UserError("No definitions are kept of this cluster.", exit_code=1)
        try:
            yield kept
        except OSError as error:
            raise UserError(f"Kept definitions cannot be read: {error}.", exit_code=1) from error


async def _find_kept(vault: DefinitionKeeper, name: str) -> VmId:
    newest = await vault.newest()
    found = [each for each in newest if name in (each.name, each.vm)]
    if not found:
        near = did_you_mean(name, {each.name for each in newest})
        raise UserError(f"No definition of a VM {name} is kept.{near}")
    if len(found) > 1:
        where = ", ".join(f"{each.vm} on {each.node}" for each in found)
        raise UserError(f"{name} is ambiguous: {where}. Give the UUID.")
    return found[0].vm


async def list_definitions(app: App, settings: Settings, name: str | None) -> int:
    """``vm definitions``."""
    async with _vault(app, settings) as vault:
        if name is None:
            found = tuple(sorted(await vault.newest(), key=lambda each: natural(each.name.lower())))
        else:
            found = await vault.versions(await _find_kept(vault, name))
    if settings.as_json:
        print_json(
            [
                {
                    "uuid": each.vm,
                    "vm": each.name,
                    "version": each.number,
                    "node": each.node,
                    "kept": iso_text(each.kept_s),
                }
                for each in found
            ]
        )
        return 0
    columns = [
        Column(title="VM", shrinks=True),
        Column(title="Version", right=True),
        Column(title="Node"),
        Column(title="Since"),
    ]
    print_table(columns, [[each.name, str(each.number), each.node, time_text(each.kept_s)] for each in found])
    if not found:
        say("no definition is kept yet: the window and muster engine keep them while they run.")
    return 0


async def _show_kept(app: App, settings: Settings, name: str, number: int) -> int:
    async with _vault(app, settings) as vault:
        versions = await vault.versions(await _find_kept(vault, name))
        kept = next((each for each in versions if number in (0, each.number)), None)
        if kept is None:
            there = ", ".join(str(each.number) for each in reversed(versions))
            raise UserError(f"{name}: version {number} is not kept; there are: {there}.")
        xml = await vault.text(kept.vm, kept.number)
    if settings.as_json:
        print_json([{"uuid": kept.vm, "vm": kept.name, "version": kept.number, "xml": xml}])
    else:
        click.echo("\n".join(printable(line) for line in xml.rstrip("\n").split("\n")))
    return 0


async def show_xml(app: App, settings: Settings, name: str, kept: int | None = None) -> int:
    """``vm xml``."""
    if kept is not None:
        return await _show_kept(app, settings, name, kept)
    async with _at(app, settings, name) as (session, vm):
        xml = await session.runtime.closeup.definition(vm)
        if settings.as_json:
            print_json([{"uuid": vm, "vm": session.view.vms[vm].name, "xml": xml}])
        else:
            click.echo("\n".join(printable(line) for line in xml.rstrip("\n").split("\n")))
    return 0


async def save_screenshot(app: App, settings: Settings, name: str, output: Path) -> int:
    """``vm screenshot``."""
    async with _at(app, settings, name) as (session, vm):
        picture = await session.runtime.closeup.screenshot(vm)
        try:
            if str(output) == "-":
                sys.stdout.buffer.write(picture)
            else:
                output.write_bytes(picture)  # noqa: ASYNC240 - nothing else goes on here
        except OSError as error:
            raise UserError(f"{output}: cannot be written: {error.strerror}", exit_code=1) from error
        if settings.as_json and str(output) != "-":
            row = {"uuid": vm, "vm": session.view.vms[vm].name, "file": str(output), "bytes": len(picture)}
            print_json([row])
    return 0


async def list_snapshots(app: App, settings: Settings, name: str) -> int:
    """``vm snapshot list``."""
    async with _at(app, settings, name) as (session, vm):
        found = await session.runtime.closeup.snapshots(vm)
        if settings.as_json:
            rows = []
            for each in found:
                row = asdict(each)
                row["status"] = each.status.value
                row["created"] = iso_text(row.pop("created_s")) if each.created_s is not None else None
                rows.append(row)
            print_json(rows)
            return 0
        titles = ("Name", "Taken", "Then", "Keeps", "After", "Description")
        print_table(
            [Column(title=title, shrinks=title == "Description") for title in titles],
            [
                [
                    each.name + (" (current)" if each.is_current else ""),
                    time_text(each.created_s) if each.created_s is not None else "",
                    each.status.value,
                    ("memory and disks" if each.memory else "disks") + (", outside" if each.external else ""),
                    each.parent,
                    each.description,
                ]
                for each in found
            ],
        )
        if not found:
            say(f"{name} has no snapshot.")
    return 0


async def run_console(app: App, settings: Settings, name: str, take_over: bool) -> int:
    """``vm console``: bytes as they are, both ways, until Ctrl+] or its end."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("A console needs a terminal on standard input and output. Nothing was done.")
    async with _at(app, settings, name) as (session, vm):
        console = await session.runtime.closeup.open_console(vm, take_over=take_over)
        try:
            say(f"connected with {session.view.vms[vm].name}; Ctrl+] leaves")
            left = await _joined(console)
        finally:
            console.close()
        say("left the console" if left else f"the console ended: {console.why_ended}")
    return 0


async def _joined(console: Console) -> bool:
    """Pass on what is typed and what comes; whether the user left."""
    import termios
    import tty

    loop = asyncio.get_running_loop()
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    left = asyncio.Event()

    def typed() -> None:
        data = os.read(stdin, 4096)
        before, leave, _ = data.partition(bytes([LEAVE]))
        console.write(before)
        if leave or not data:
            left.set()

    async def shown() -> None:
        while data := await console.read():
            while data:
                data = data[os.write(stdout, data) :]

    before = termios.tcgetattr(stdin)
    tty.setraw(stdin)
    loop.add_reader(stdin, typed)
    showing, leaving = asyncio.ensure_future(shown()), asyncio.ensure_future(left.wait())
    try:
        await asyncio.wait({showing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return left.is_set()
    finally:
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        for task in (showing, leaving):
            task.cancel()
        os.write(stdout, b"\x1b[0m\r\n")  # whatever colours the guest has left

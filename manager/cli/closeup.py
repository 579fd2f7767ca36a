"""The commands that look at one VM closely: definition, screen, console, snapshots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from manager.cli import completion
from manager.cli.actions import acting
from manager.cli.app import App
from manager.cli.options import Command, Group, settings_of
from manager.core.actions.snapshots import SNAPSHOT_ACTIONS, SNAPSHOT_CREATE, name_trouble
from manager.core.model import SnapshotParameters


def closeup_commands(app: App, words: completion.Words) -> list[click.Command]:
    """``vm xml``, ``vm definitions``, ``vm screenshot``, ``vm console``, ``vm snapshot``."""
    return [
        _looking(
            app,
            words,
            "xml",
            "show_xml",
            "Print the definition of a VM as it is now, as XML, without passwords.",
            click.Option(
                ["--kept"],
                type=_Version(),
                metavar="VERSION",
                help="Print what was kept instead, without asking a node: a number, or newest.",
            ),
        ),
        _definitions(app, words),
        _looking(
            app,
            words,
            "screenshot",
            "save_screenshot",
            "Write what a running VM's screen shows to a PNG file.",
            click.Option(
                ["-o", "--output", "output"],
                type=click.Path(dir_okay=False, path_type=Path),
                required=True,
                metavar="FILE",
                help="The file; - for standard output.",
            ),
        ),
        _looking(
            app,
            words,
            "console",
            "run_console",
            "Connect this terminal with the serial console of a running VM. Ctrl+] leaves it.",
            click.Option(["--take-over"], is_flag=True, help="Take it from whoever has it open."),
        ),
        Group(
            "snapshot",
            help="Snapshots of VMs.",
            commands=[
                _looking(
                    app, words, "list", "list_snapshots", "List the snapshots of a VM, the oldest first."
                ),
                *_changes(app, words),
            ],
        ),
    ]


class _Version(click.ParamType[int]):
    """The number of a kept definition; 0 stands for the newest."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Refuse what is no version."""
        if value == "newest":
            return 0
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r}: needs a version's number from 1, or newest", param, ctx)
        return int(value)


def _definitions(app: App, words: completion.Words) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, name: str | None) -> int:
        from manager.cli import looking
        from manager.cli.session import run_async

        return run_async(looking.list_definitions(app, settings_of(ctx), name))

    return Command(
        "definitions",
        help=(
            "List the definitions kept of a VM, the newest first; without NAME the newest of every VM."
            "\n\nThe window and muster engine keep them while they run, so that a dead node's VMs can be "
            "started elsewhere. No node is asked."
        ),
        short_help="List the kept definitions.",
        callback=callback,
        params=[click.Argument(["name"], metavar="[NAME]", required=False, shell_complete=words.vms)],
    )


def _looking(
    app: App, words: completion.Words, name: str, function: str, doc: str, *options: click.Parameter
) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, /, name: str, **given: Any) -> int:
        from manager.cli import looking
        from manager.cli.session import run_async

        return run_async(getattr(looking, function)(app, settings_of(ctx), name, **given))

    argument = click.Argument(["name"], metavar="NAME", shell_complete=words.vms)
    return Command(name, help=doc, callback=callback, params=[argument, *options])


def _changes(app: App, words: completion.Words) -> list[click.Command]:
    made: list[click.Command] = []
    for spec in SNAPSHOT_ACTIONS:
        options: list[click.Parameter] = [
            click.Option(
                ["--name", "snapshot"], metavar="SNAPSHOT", required=True, help="The snapshot's name."
            )
        ]
        if spec is SNAPSHOT_CREATE:
            options += [
                click.Option(["--description"], metavar="TEXT", default="", help="What it is kept for."),
                click.Option(
                    ["--disk-only"],
                    is_flag=True,
                    help="Keep the disks only: what is written from then on goes to new files.",
                ),
            ]
        made.append(
            acting(
                app,
                spec.command.removeprefix("snapshot "),
                spec.doc,
                f"{spec.doc}\n\n{spec.consequence}",
                words,
                options,
                _chosen(spec),
            )
        )
    return made


def _chosen(spec: Any) -> Callable[..., Any]:
    def choose(snapshot: str, description: str = "", disk_only: bool = False) -> Any:
        trouble = name_trouble(snapshot)
        if trouble is not None:
            raise click.UsageError(f"--name {snapshot!r}: {trouble.text}.")
        for option, text in (("--name", snapshot), ("--description", description)):
            if not text.isprintable() or len(text) > 1000:
                raise click.UsageError(f"{option} {text!r}: needs printable text of at most 1000 characters.")
        return spec, SnapshotParameters(name=snapshot, description=description, disk_only=disk_only)

    return choose

"""The commands of ``muster``: those on VMs are made from the actions' declarations."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import click

from manager.cli import completion
from manager.cli.actions import MOVES, action, migrate, tune
from manager.cli.app import PAGES, THEMES, App, WindowOptions
from manager.cli.closeup import closeup_commands
from manager.cli.definition import Size
from manager.cli.engine import engine_group
from manager.cli.events import events_commands
from manager.cli.lists import Wish, list_options
from manager.cli.options import (
    Command,
    Group,
    Settings,
    add_everywhere,
    output_options,
    settings_of,
)
from manager.cli.output import StderrHandler, say
from manager.cli.queue import queue_group
from manager.cli.resources import interfaces, show_network, show_pool, volumes
from manager.cli.views import view_group
from manager.core.actions import NODE_ACTIONS, VM_ACTIONS
from manager.core.actions.snapshots import SNAPSHOT_ACTIONS
from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the signal's number, as shells have it."""

DOC = """Many libvirt hosts as one cluster: see, start, stop and move their VMs.

Without a command, the window opens. Results go to standard output, everything else to standard error.

\b
Exit codes: 0 all done or accepted
            1 something failed, was refused or still runs
            2 wrong usage, a file that cannot be used, an unknown or
              ambiguous name; then nothing was done
            3 a needed node, or the whole cluster, cannot be reached
          130 interrupted
"""


def run(app: App, argv: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    settings = Settings()
    try:
        code = build(app).main(
            args=list(argv),
            prog_name="muster",
            complete_var=completion.VARIABLE,
            standalone_mode=False,
            obj=settings,
        )
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UserError as error:
        say(str(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        say(
            f"internal error: {type(error).__name__}: {error}\n"
            "This is a fault of Muster. Please report it with what --debug prints in addition."
        )
        if settings.debug:
            traceback.print_exc()
        return 1


def build(app: App) -> Group:
    """The whole command line."""
    words = completion.Words(app)
    root = Group(
        "muster",
        help=DOC,
        callback=_root(app),
        invoke_without_command=True,
        params=[*_window_options(), _version_option(app.version)],
        commands=[
            Command("gui", callback=_gui(app), params=_window_options(), help="Open the window."),
            Group(
                "cluster",
                help="The cluster as a whole.",
                commands=[
                    _simple(app, "show", "Show where the cluster stands.", "show_cluster"),
                    _dump(app),
                ],
            ),
            Group(
                "node",
                help="The hosts of the cluster.",
                commands=[
                    _list(app, Kind.NODE, "nodes"),
                    *(action(app, spec, words) for spec in NODE_ACTIONS),
                ],
            ),
            Group(
                "storage",
                help="The storage pools. NAME is a pool's name, or NODE/NAME of one that is a node's own.",
                commands=[_list(app, Kind.POOL, "storage pools"), show_pool(app), volumes(app)],
            ),
            Group(
                "network",
                help="The networks that VMs are connected to, and the hosts' interfaces.",
                commands=[_list(app, Kind.NETWORK, "networks"), show_network(app), interfaces(app, words)],
            ),
            Group(
                "vm",
                help="The virtual machines. NAME is a VM's name or its UUID.",
                commands=[
                    _list(app, Kind.VM, "VMs"),
                    _show_vm(app, words),
                    _why(app, words),
                    *_actions(app, words),
                    *closeup_commands(app, words),
                ],
            ),
            _place(app),
            queue_group(app),
            *events_commands(app, words),
            view_group(app),
            engine_group(app),
            _completion(),
            _manual(),
        ],
    )
    add_everywhere(root, words.clusters)
    root.add_command(_Lab(app))
    return root


def _root(app: App) -> Callable[..., Any]:
    @click.pass_context
    def callback(ctx: click.Context, /, **window: Any) -> int | None:
        _log_to_stderr(settings_of(ctx))
        given = [name for name, value in window.items() if value is not None]
        if ctx.invoked_subcommand is None:
            return _open_window(app, settings_of(ctx), WindowOptions(**window))
        if given:
            raise click.UsageError(f"--{given[0]} is for the window: muster gui --{given[0]} ...", ctx)
        return None

    return callback


def _log_to_stderr(settings: Settings) -> None:
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, StderrHandler)]:
        root.removeHandler(handler)
    root.addHandler(StderrHandler())
    logging.getLogger("manager").setLevel(logging.DEBUG if settings.debug else logging.NOTSET)


def _version_option(version: str) -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"muster {version}")
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Print the version and end.",
    )


# --- the window ----------------------------------------------------------------------------------


class _Size(click.ParamType[tuple[int, int]]):
    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        width, _, height = str(value).lower().partition("x")
        if not (width.isdecimal() and height.isdecimal()) or not (
            200 <= int(width) <= 16384 and 200 <= int(height) <= 16384
        ):
            self.fail(
                f"{value!r}: needs WIDTHxHEIGHT from 200x200 to 16384x16384, for example 1366x768", param, ctx
            )
        return int(width), int(height)


def _window_options() -> list[click.Parameter]:
    return [
        click.Option(["--page"], type=click.Choice(PAGES), help="The page to open."),
        click.Option(["--theme"], type=click.Choice(THEMES), help="Colours."),
        click.Option(
            ["--size"], type=_Size(), metavar="WxH", help="Size of the window, for example 1366x768."
        ),
        click.Option(
            ["--screenshot"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Make a picture (PNG) of the window and end.",
        ),
    ]


def _gui(app: App) -> Callable[..., Any]:
    @click.pass_context
    def callback(ctx: click.Context, /, **window: Any) -> int:
        return _open_window(app, settings_of(ctx), WindowOptions(**window))

    return callback


def _open_window(app: App, settings: Settings, options: WindowOptions) -> int:
    """The window on the cluster that is meant; unasked, on those used last."""
    from manager.cli.session import choose_for_window
    from manager.services.event_log import EventLog

    event_log = EventLog(settings.log_json) if settings.log_json else None
    try:
        adapters = app.adapters(event_log)
        return app.run_window(adapters, choose_for_window(adapters, settings), options)
    finally:
        if event_log is not None:
            event_log.close()


# --- looking -------------------------------------------------------------------------------------


def _simple(app: App, name: str, doc: str, function: str) -> Command:
    @click.pass_context
    def callback(ctx: click.Context) -> int:
        from manager.cli import listing
        from manager.cli.session import run_async

        return run_async(getattr(listing, function)(app, settings_of(ctx)))

    return Command(name, help=doc, callback=callback)


def _dump(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, output: Path | None) -> int:
        from manager.cli import listing
        from manager.cli.session import run_async

        return run_async(listing.dump_cluster(app, settings_of(ctx), output))

    return Command(
        "dump",
        help="Write down everything that the nodes say, as JSON: for --from-dump, where it can be looked at, "
        "and plans can be made, without touching a host.\n\nNames and paths are in it; passwords are not.",
        short_help="Write down what all nodes say, for --from-dump.",
        callback=callback,
        params=[
            click.Option(
                ["-o", "--output", "output"],
                type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
                metavar="FILE",
                help="The file. Default: standard output.",
            )
        ],
    )


def _list(app: App, kind: Kind, noun: str) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, /, **given: str | None) -> int:
        from manager.cli import listing
        from manager.cli.session import run_async

        settings = settings_of(ctx)
        shape = Wish(**given).shape(
            app, kind, as_json=settings.as_json, across=settings.all_clusters, sort="name"
        )
        return run_async(listing.show_list(app, settings, kind, shape))

    return Command(
        "list",
        help=f"List the {noun}.\n\nFields: {', '.join(FIELDS[kind])}.",
        short_help=f"List the {noun}.",
        callback=callback,
        params=list_options(app, kind, order="by name"),
    )


def _show_vm(app: App, words: completion.Words) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, name: str) -> int:
        from manager.cli import listing
        from manager.cli.session import run_async

        return run_async(listing.show_vm(app, settings_of(ctx), name))

    return Command(
        "show",
        help="Show everything that is known of one VM: state, definition, where it was seen, its story.",
        short_help="Show everything that is known of one VM.",
        callback=callback,
        params=[click.Argument(["name"], metavar="NAME", shell_complete=words.vms)],
    )


def _why(app: App, words: completion.Words) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, name: str) -> int:
        from manager.cli import placing
        from manager.cli.session import run_async

        return run_async(placing.why(app, settings_of(ctx), name))

    return Command(
        "why",
        help="Why is the VM here, why not there? Each node, the best first, with what speaks against it "
        "or what it weighs: rules, preferred owners, room.",
        short_help="Say of each node why a VM is there or not.",
        callback=callback,
        params=[click.Argument(["name"], metavar="NAME", shell_complete=words.vms)],
    )


def _place(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, memory_mib: int, vcpus: int, count: int) -> int:
        from manager.cli import placing
        from manager.cli.session import run_async

        return run_async(placing.place(app, settings_of(ctx), memory_mib, vcpus, count))

    return Command(
        "place",
        help="Say where new VMs of a size would find their place. Nothing is done.",
        callback=callback,
        params=[
            click.Option(
                ["--memory", "memory_mib"],
                type=Size(),
                metavar="SIZE",
                required=True,
                help="The memory of each, for example 64GiB.",
            ),
            click.Option(
                ["--vcpus"], type=click.IntRange(1, 4096), default=1, show_default=True, help="Of each."
            ),
            click.Option(
                ["--count"], type=click.IntRange(1, 10000), default=1, show_default=True, help="How many VMs."
            ),
        ],
    )


# --- acting --------------------------------------------------------------------------------------


def _actions(app: App, words: completion.Words) -> list[Command]:
    """A command for each action, in the order of the menus; one for all types of moves."""
    made: list[Command] = []
    for spec in VM_ACTIONS:
        if spec in SNAPSHOT_ACTIONS:
            continue  # a group of their own
        if spec not in MOVES.values():
            made.append(action(app, spec, words))
        elif spec is next(iter(MOVES.values())):
            made += [migrate(app, words), tune(app, words)]
    return made


# --- the rest ------------------------------------------------------------------------------------


def _completion() -> Command:
    @click.pass_context
    def callback(ctx: click.Context, shell: str) -> None:
        click.echo(completion.script(ctx.find_root().command, shell))

    how = "\n".join(completion.HOW_TO.values())
    return Command(
        "completion",
        help=f"Print the script that teaches a shell to complete muster's commands.\n\n\b\n{how}",
        short_help="Print the script that completes commands in a shell.",
        callback=callback,
        params=[click.Argument(["shell"], type=click.Choice(completion.SHELLS))],
    )


def _manual() -> Command:
    @click.pass_context
    def callback(ctx: click.Context, folder: Path) -> None:
        from manager.cli.manual import pages

        root = ctx.find_root().command
        assert isinstance(root, click.Group)
        for name, text in pages(root).items():
            path = folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise UserError(f"{path}: cannot be written: {error.strerror}", exit_code=1) from error

    return Command(
        "manual",
        help="Write the manual's pages and the man page into FOLDER, usually docs.",
        hidden=True,
        callback=callback,
        params=[click.Argument(["folder"], type=click.Path(file_okay=False, path_type=Path))],
    )


class _Lab(Group):
    """``muster lab``: its commands are loaded when they are needed."""

    def __init__(self, app: App) -> None:
        super().__init__(
            "lab",
            help="Real libvirt hosts with real guests on this one machine, to try things out. Needs root.",
            short_help="Real hosts and guests on this machine, to try out.",
            params=[*output_options()],
        )
        self._app = app

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The lab's."""
        return self._app.lab_group().list_commands(ctx)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """One of the lab's, with what every command has. Its own ``--json`` may be given before it too."""
        found = self._app.lab_group().get_command(ctx, name)
        if found is None:
            return None
        own = [_given(p) if settings_of(ctx).as_json and "--json" in p.opts else p for p in found.params]
        taken = {option for param in own for option in param.opts}
        return Command(
            found.name,
            help=found.help,
            callback=found.callback,
            params=[*own, *(o for o in output_options() if not taken & set(o.opts))],
        )


def _given(flag: click.Parameter) -> click.Parameter:
    """The same flag, as if it had been given."""
    given = copy(flag)
    given.default = True
    return given

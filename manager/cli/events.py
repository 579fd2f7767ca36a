"""``muster events``, ``what-happened``, ``problems`` and ``support-bundle``: their options."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from manager.cli import completion
from manager.cli.app import App
from manager.cli.lists import Wish, list_options
from manager.cli.options import Command, Group, Since, Span, settings_of
from manager.cli.output import say
from manager.core.chronicle import Level
from manager.core.errors import UserError
from manager.core.events import ProblemVerb
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS

LEVELS = tuple(level.word for level in reversed(Level))
USUAL = "2h"


def events_commands(app: App, words: completion.Words) -> list[Command]:
    """The commands about what happened and what is wrong."""
    return [_events(app, words), _what_happened(app, words), _problems(app), _bundle(app)]


def _run(work: Coroutine[Any, Any, int]) -> int:
    from manager.cli.session import run_async

    return run_async(work)


def _since(default: str) -> click.Option:
    return click.Option(
        ["--since"],
        type=Since(),
        metavar="TIME",
        default=default,
        show_default=True,
        help="From when on: how long ago (90s, 30min, 2h, 1d), a time of day (02:00), or a date and time.",
    )


# --- events ----------------------------------------------------------------------------------------


def _events(app: App, words: completion.Words) -> Command:
    @click.pass_context
    def callback(
        ctx: click.Context,
        /,
        since: datetime,
        level: str,
        vm: str | None,
        node: str | None,
        follow: bool,
        **given: str | None,
    ) -> int:
        from manager.cli import events_views

        settings = settings_of(ctx)
        if vm is not None and node is not None:
            raise click.UsageError("Only one of --vm and --node can be given.", ctx)
        wish = Wish(**given)
        if follow and settings.as_json and wish.columns is not None:
            raise click.UsageError("--follow --json tells all fields: not with --columns.", ctx)
        if follow and (wish.sort is not None or wish.group_by is not None):
            raise click.UsageError(
                "--follow tells events as they happen: not with --sort or --group-by.", ctx
            )
        shape = wish.shape(app, Kind.EVENT, as_json=settings.as_json, across=settings.all_clusters)
        wanted = events_views.Wanted(
            since_s=since.timestamp(), level=Level[level.upper()], vm=vm, node=node, follow=follow
        )
        return _run(events_views.show_events(app, settings, shape, wanted))

    return Command(
        "events",
        help="List what happened in the cluster, oldest first: what the hosts told, what was asked for, by "
        "whom and from where, how it ended, and problems. Events are recorded for as long as a window, a "
        f"command that acts or “muster engine” works on the cluster.\n\n"
        f"Fields: {', '.join(FIELDS[Kind.EVENT])}.",
        short_help="List what happened in the cluster.",
        callback=callback,
        params=[
            _since(USUAL),
            click.Option(
                ["--level"],
                type=click.Choice(LEVELS),
                default=LEVELS[-1],
                show_default=True,
                help="Only what matters at least so much.",
            ),
            click.Option(["--vm"], metavar="NAME", shell_complete=words.vms, help="Only of this VM."),
            click.Option(["--node"], metavar="NODE", shell_complete=words.nodes, help="Only of this node."),
            *list_options(app, Kind.EVENT, order="by time, oldest first"),
            click.Option(
                ["--follow"],
                is_flag=True,
                help="Go on until interrupted: each event is a line, with --json an object.",
            ),
        ],
    )


def _what_happened(app: App, words: completion.Words) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, name: str | None, since: datetime) -> int:
        from manager.cli import events_views

        return _run(events_views.what_happened(app, settings_of(ctx), name, since.timestamp()))

    return Command(
        "what-happened",
        help="Tell what happened to the cluster, to a node or to a VM, as one timeline: of a VM also the "
        "requests that it was part of and what became of its nodes, of a node also what ran on it and left "
        "it. NAME is a node's or a VM's.",
        short_help="Tell what happened to the cluster, a node or a VM.",
        callback=callback,
        params=[
            click.Argument(["name"], metavar="[NAME]", required=False, shell_complete=words.vms),
            _since(USUAL),
        ],
    )


# --- problems --------------------------------------------------------------------------------------


def _problems(app: App) -> Group:
    @click.pass_context
    def callback(ctx: click.Context, /, plugin: bool, **given: str | None) -> int | None:
        from manager.cli import events_views

        if ctx.invoked_subcommand is not None:
            return None
        settings = settings_of(ctx)
        usual = ",".join(events_views.PROBLEM_COLUMNS)
        try:
            shape = Wish(**given).shape(app, Kind.PROBLEM, as_json=settings.as_json, usual=usual)
            return _run(events_views.show_problems(app, settings, shape, plugin=plugin))
        except (UserError, OSError) as error:
            if plugin:
                click.echo(events_views.plugin_line(events_views.UNKNOWN, str(error).splitlines()[0]))
            else:
                say(str(error))
            return events_views.UNKNOWN

    return Group(
        "problems",
        help="List what somebody should look at, one line per cause. Acknowledged and muted problems are "
        "listed and not counted, nor is what --where or a view leaves out.\n\n\b\n"
        "Exit codes, as monitoring plug-ins have them:\n"
        "            0 nothing new\n            1 a new warning\n            2 a new error\n"
        "            3 no node can be asked\n\n"
        f"Fields: {', '.join(FIELDS[Kind.PROBLEM])}.",
        short_help="List what somebody should look at; acknowledge and mute.",
        callback=callback,
        invoke_without_command=True,
        params=[
            click.Option(
                ["--plugin"],
                is_flag=True,
                help="Print one line with figures first, as monitoring plug-ins do, then a line per problem.",
            ),
            *list_options(app, Kind.PROBLEM, order="new ones first"),
        ],
        commands=[
            _mark(
                app,
                ProblemVerb.ACKNOWLEDGE,
                "Say that somebody has seen to it: it is counted no more until it ends.",
                click.Option(["--note"], metavar="TEXT", default="", help="What is done about it."),
            ),
            _mark(app, ProblemVerb.REOPEN, "Take an acknowledgement back."),
            _mark(
                app,
                ProblemVerb.MUTE,
                "Do not count it for a time, also if it ends and comes again.",
                click.Option(
                    ["--for", "span_s"], type=Span(), metavar="TIME", help="For so long: 30min, 2h, 1d."
                ),
                click.Option(
                    ["--until"], type=click.DateTime(), metavar="DATE", help="Until then, local time."
                ),
            ),
            _mark(app, ProblemVerb.UNMUTE, "Count it again."),
        ],
    )


def _mark(app: App, verb: ProblemVerb, doc: str, *options: click.Option) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, /, keys: tuple[str, ...], **given: Any) -> int:
        from manager.cli import events_views

        span_s, until, until_s = given.get("span_s"), given.get("until"), None
        if verb is ProblemVerb.MUTE:
            if (span_s is None) == (until is None):
                raise click.UsageError("Say for how long: either --for TIME or --until DATE.", ctx)
            now_s = datetime.now().timestamp()
            until_s = until.timestamp() if until is not None else now_s + (span_s or 0.0)
            if until_s <= now_s:
                raise click.UsageError(f"--until {until}: that is past.", ctx)
        note = given.get("note", "")
        return _run(events_views.mark(app, settings_of(ctx), verb, keys, note=note, until_s=until_s))

    return Command(
        verb.value,
        help=f"{doc}\n\nKEY is a problem's key, or simply the name of the node or VM it is about.",
        short_help=doc,
        callback=callback,
        params=[click.Argument(["keys"], nargs=-1, required=True, metavar="KEY..."), *options],
    )


# --- support ---------------------------------------------------------------------------------------


def _bundle(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, since: datetime, output: Path | None) -> int:
        from manager.cli.support_bundle import write_bundle

        return _run(write_bundle(app, settings_of(ctx), since.timestamp(), output))

    return Command(
        "support-bundle",
        help="Write one .tar.gz with what somebody who helps needs: versions, the cluster file without "
        "credentials, all nodes and VMs as JSON, operations, events, problems and the log of reading "
        "them. It holds no passwords, no users of URIs, and no definitions as the hosts have them. What it "
        "holds is listed.",
        short_help="Write a file for somebody who helps, without secrets.",
        callback=callback,
        params=[
            _since(USUAL),
            click.Option(
                ["--output"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="Where to; default: a new file here, named by cluster and time. None is overwritten.",
            ),
        ],
    )

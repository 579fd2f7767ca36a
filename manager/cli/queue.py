"""``muster queue``: what waits and runs, why, and ways to steer it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import click

from manager.cli.actions import waiting_options, yes_option
from manager.cli.app import App
from manager.cli.lists import Wish, list_options
from manager.cli.options import Command, Group, settings_of
from manager.core.ids import Kind
from manager.core.migration.limits import DEFAULT_CAP_MIB_S, LIMITS
from manager.core.query.fields import FIELDS

HISTORY = 50
"""How many ended operations ``--history`` shows if no number is given."""


def queue_group(app: App) -> Group:
    """The group of these commands."""
    return Group(
        "queue",
        help="What waits and what runs: moves, starts, saves. ID is the id of an operation or of its batch "
        "(“queue list --columns vm,id,batch”), or simply the name of a VM to which something is done.",
        short_help="The queue of moves and other heavy work.",
        commands=[
            _list(app),
            _show(app),
            _cancel(app),
            _pause(app),
            _resume(app),
            _limits(app),
            _move(app),
        ],
    )


def _run(work: Coroutine[Any, Any, int]) -> int:
    from manager.cli.session import run_async

    return run_async(work)


def _ids(**attributes: Any) -> click.Argument:
    return click.Argument(["ids"], nargs=-1, metavar="ID...", **attributes)


def _list(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, /, history: int | None, follow: bool, **given: str | None) -> int:
        from manager.cli import queue_views

        settings, wish = settings_of(ctx), Wish(**given)
        if follow and history is not None:
            raise click.UsageError("--follow is for what goes on now: not with --history.", ctx)
        if follow and wish != Wish(columns=wish.columns):
            raise click.UsageError(
                "--follow tells all that goes on: not with --where, --view, --sort or --group-by.", ctx
            )
        if follow and settings.as_json and wish.columns is not None:
            raise click.UsageError("--follow --json tells all fields: not with --columns.", ctx)
        usual = ",".join(queue_views.HISTORY_COLUMNS if history is not None else queue_views.COLUMNS)
        shape = wish.shape(app, Kind.OPERATION, as_json=settings.as_json, usual=usual)
        if follow:
            return _run(queue_views.follow(app, settings, shape.fields))
        return _run(queue_views.show_list(app, settings, shape, history=history))

    return Command(
        "list",
        help="List what waits and runs, of every batch, with the reason of each wait; and jobs on VMs that "
        "are not Muster's. How the queue as a whole stands is told on standard error.\n\n"
        f"Fields: {', '.join(FIELDS[Kind.OPERATION])}.",
        short_help="List what waits and runs, and why.",
        callback=callback,
        params=[
            click.Option(
                ["--history"],
                is_flag=False,
                flag_value=HISTORY,
                type=click.IntRange(1, 20_000),
                metavar="[N]",
                help=f"List the newest N that ended instead; without a number, {HISTORY}.",
            ),
            *list_options(app, Kind.OPERATION, order="in their turn, or the newest that ended first"),
            click.Option(
                ["--follow"],
                is_flag=True,
                help="Go on until interrupted: the list stays up to date on a terminal; else each change is "
                "a line, with --json an object.",
            ),
        ],
    )


def _show(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, key: str | None) -> int:
        from manager.cli import queue_views

        settings = settings_of(ctx)
        return _run(
            queue_views.show_one(app, settings, key) if key else queue_views.show_state(app, settings)
        )

    return Command(
        "show",
        help="Show one operation: its figures, the way it goes, what will be done about it, its story. Of a "
        "batch, how far it is. Without ID: how the queue as a whole stands, and who works on it.",
        short_help="Show one operation and its story.",
        callback=callback,
        params=[click.Argument(["key"], required=False, metavar="[ID]")],
    )


def _cancel(app: App) -> Command:
    @click.pass_context
    def callback(
        ctx: click.Context,
        /,
        ids: tuple[str, ...],
        everything: bool,
        batch: str | None,
        wait_s: float | None,
        no_wait: bool,
        yes: bool,
    ) -> int:
        from manager.cli import steering

        if [bool(ids), everything, bool(batch)].count(True) != 1:
            raise click.UsageError("Say what to cancel: IDs, --batch ID or --all.", ctx)
        if no_wait and wait_s is not None:
            raise click.UsageError("Only one of --wait and --no-wait can be given.", ctx)
        chosen = steering.Chosen(ids=ids, batch=batch, everything=everything)
        work = steering.cancel(app, settings_of(ctx), chosen, wait_s=wait_s, no_wait=no_wait, yes=yes)
        return _run(work)

    return Command(
        "cancel",
        help="Cancel work that waits or runs. A VM that was being moved goes on where it was; one result per "
        "VM, as of “vm cancel”. --all asks first on a terminal.",
        short_help="Cancel work that waits or runs.",
        callback=callback,
        params=[
            _ids(),
            click.Option(
                ["--all", "everything"], is_flag=True, help="All that waits and runs, whoever asked."
            ),
            click.Option(["--batch"], metavar="ID", help="All that is left of one request."),
            *waiting_options("End as soon as it is asked for; what runs may need a while to stop."),
            yes_option(),
        ],
    )


def _pause(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, batch: str | None) -> int:
        from manager.cli import steering

        return _run(steering.pause(app, settings_of(ctx), batch))

    return Command(
        "pause",
        help="Start nothing new; what runs goes on. It holds until “queue resume”, for every window and "
        "command, also after all of them ended. With BATCH, the id of a batch or of one of its operations, "
        "only for that one. Prints how the queue stands then.",
        short_help="Start nothing new; what runs goes on.",
        callback=callback,
        params=[click.Argument(["batch"], required=False, metavar="[BATCH]")],
    )


def _resume(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, batch: str | None, node: str | None) -> int:
        from manager.cli import steering

        if batch and node:
            raise click.UsageError("Only one of BATCH and --node can be given.", ctx)
        return _run(steering.resume(app, settings_of(ctx), batch, node))

    return Command(
        "resume",
        help="Let the queue go on; with BATCH one that was paused or paused itself after failures, with "
        "--node a node that is fed no more because moves to it failed. Prints how the queue stands then.",
        short_help="Let the queue, a batch or a node go on.",
        callback=callback,
        params=[
            click.Argument(["batch"], required=False, metavar="[BATCH]"),
            click.Option(["--node"], metavar="NODE", help="Let moves go to this node again."),
        ],
    )


def _limits(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, limits: tuple[str, ...]) -> int:
        from manager.cli import steering

        return _run(steering.limits(app, settings_of(ctx), _pairs(limits)))

    known = "; ".join(f"{name} from {least} to {most}" for name, (least, most) in LIMITS.items())
    return Command(
        "limits",
        help="Show what the queue may do at once; or change it, at once and until it is changed again. The "
        f"cluster file is not touched.\n\nLimits: {known}. 0 means no limit; as bandwidth_mib_s: an equal "
        "part of node_bandwidth_mib_s; without that, no cap on networks that the cluster file names, and "
        f"{DEFAULT_CAP_MIB_S} MiB/s where it names none. saves_per_node counts saves, restores and moves of "
        "storage.",
        short_help="Show or change what may run at once.",
        callback=callback,
        params=[click.Argument(["limits"], nargs=-1, metavar="[NAME=VALUE...]")],
    )


def _pairs(given: tuple[str, ...]) -> dict[str, int]:
    values: dict[str, int] = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not sign or not value.strip().isdecimal() or len(value) > 9:
            raise click.UsageError(
                f"{each!r}: needs NAME=VALUE with a whole number, for example outgoing_per_node=3."
            )
        values[name.strip().replace("-", "_")] = int(value)
    return values


def _move(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, ids: tuple[str, ...], before: str | None, first: bool) -> int:
        from manager.cli import steering

        if first == (before is not None):
            raise click.UsageError("Say where to: --before ID or --first.", ctx)
        return _run(steering.move(app, settings_of(ctx), ids, before))

    return Command(
        "move",
        help="Give work that waits another place in the queue. Priority is strict: a place is one among "
        "those of the same priority. Prints the places that the moved ones have then.",
        short_help="Give work that waits another place.",
        callback=callback,
        params=[
            _ids(required=True),
            click.Option(["--before"], metavar="ID", help="Before this one."),
            click.Option(["--first"], is_flag=True, help="Before all others of the same priority."),
        ],
    )

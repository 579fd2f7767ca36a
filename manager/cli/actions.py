"""The commands that act on VMs, made from the actions' declarations, with the forms of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from manager.cli import completion, definition
from manager.cli.app import App
from manager.cli.options import Command, Seconds, settings_of
from manager.cli.targets import Targets
from manager.core.actions import (
    ACTIONS,
    ActionSpec,
    Failback,
    MigrateParameters,
    NoParameters,
    OwnersParameters,
    PauseParameters,
    PriorityParameters,
    ResumeParameters,
    RulesParameters,
    ShutDownHow,
    ShutDownParameters,
    StorageParameters,
    TagsParameters,
)
from manager.core.actions.nodes import LONGEST_WHY
from manager.core.ids import Kind, NodeId
from manager.core.migration.convergence import POLICIES, TUNABLE
from manager.core.model import MoveType, PeerRoute, PlacementRule, Priority, RuleKind
from manager.core.operations import OperationKind
from manager.core.reasons import Reason
from manager.core.rules import trouble as group_trouble
from manager.core.tags import trouble, words_of

Chosen = tuple[ActionSpec[Any], Any]
"""An action with its parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How an action's parameters are given on the command line."""

    options: Callable[[completion.Words], list[click.Parameter]]
    parameters: Callable[..., Any]  # of the options' values


def _priority_word(priority: Priority) -> str:
    return priority.title.lower().replace(" ", "-")


_PRIORITIES = {_priority_word(priority): priority for priority in sorted(Priority, reverse=True)}


def _tags(tags: str | None, add: tuple[str, ...], remove: tuple[str, ...]) -> TagsParameters:
    if tags is None and not add and not remove:
        raise click.UsageError("Say what to change: --add, --remove or --set.")
    if tags is not None and (add or remove):
        raise click.UsageError("--set gives all tags: --add and --remove cannot be given with it.")
    came, went = words_of(",".join(add)), words_of(",".join(remove))
    whole = None if tags is None else words_of(tags)
    both = next((tag for tag in came if tag in went), None)
    if both is not None:
        raise click.UsageError(f"The tag {both} cannot be added and removed at once.")
    _refuse(trouble((*came, *(whole or ()))))
    return TagsParameters(tags=whole, add=came, remove=went)


def _refuse(wrong: Reason | None) -> None:
    if wrong is not None:
        raise click.UsageError(f"{wrong.text[0].upper()}{wrong.text[1:]}.")


def _owners(possible: str | None, preferred: str | None) -> OwnersParameters:
    if possible is None and preferred is None:
        raise click.UsageError("Say what to change: --possible or --preferred.")

    def nodes(text: str | None) -> tuple[NodeId, ...] | None:
        return None if text is None else tuple(map(NodeId, words_of(text)))

    return OwnersParameters(possible=nodes(possible), preferred=nodes(preferred))


def _rules(remove: tuple[str, ...], **given: tuple[str, ...]) -> RulesParameters:
    came = [
        PlacementRule(kind, group)
        for kind in RuleKind
        for group in words_of(",".join(given[kind.name.lower()]))
    ]
    went = words_of(",".join(remove))
    groups = [rule.group for rule in came]
    if not came and not went:
        options = ", ".join(f"--{rule_word(kind)}" for kind in RuleKind)
        raise click.UsageError(f"Say what to change: {options} or --remove.")
    twice = next((group for group in groups if groups.count(group) > 1 or group in went), None)
    if twice is not None:
        raise click.UsageError(f"Only one thing can be asked of the group {twice}.")
    _refuse(group_trouble(groups))
    return RulesParameters(add=tuple(came), remove=went)


def rule_word(kind: RuleKind) -> str:
    """A rule as an option: ``rather-apart``."""
    return kind.value.replace(" ", "-")


_RULE_HELP = {
    RuleKind.APART: "Never two VMs of the group on one node.",
    RuleKind.RATHER_APART: "Two VMs of the group on one node only where there is no other.",
    RuleKind.RATHER_TOGETHER: "The VMs of the group on one node where it takes them.",
}


def _pause(drain: bool, why: str) -> PauseParameters:
    if len(why) > LONGEST_WHY or not why.isprintable():
        raise click.UsageError(f"--why: needs one line of printable text, at most {LONGEST_WHY} characters.")
    return PauseParameters(drain=drain, why=why)


def _edit_form(options: Callable[[], list[click.Parameter]], parameters: Callable[..., Any]) -> _Form:
    return _Form(options=lambda words: options(), parameters=parameters)


FORMS: dict[type, _Form] = {
    NoParameters: _Form(options=lambda words: [], parameters=NoParameters),
    ShutDownParameters: _Form(
        options=lambda words: [
            click.Option(
                ["--agent"], is_flag=True, help="Ask the guest agent instead of pressing the power button."
            )
        ],
        parameters=lambda agent: ShutDownParameters(how=ShutDownHow.AGENT if agent else ShutDownHow.ACPI),
    ),
    PriorityParameters: _Form(
        options=lambda words: [
            click.Option(
                ["--set", "priority"],
                type=click.Choice(list(_PRIORITIES), case_sensitive=False),
                required=True,
                help="The new priority.",
            )
        ],
        parameters=lambda priority: PriorityParameters(priority=_PRIORITIES[priority]),
    ),
    TagsParameters: _Form(
        options=lambda words: [
            click.Option(
                ["--add"], metavar="TAG,...", multiple=True, help="Tags that the VMs get; others stay."
            ),
            click.Option(
                ["--remove"], metavar="TAG,...", multiple=True, help="Tags that the VMs lose; others stay."
            ),
            click.Option(
                ["--set", "tags"],
                metavar="TAG,...",
                help="The tags that the VMs have afterwards, and no others; an empty text takes all away.",
            ),
        ],
        parameters=_tags,
    ),
    OwnersParameters: _Form(
        options=lambda words: [
            click.Option(
                ["--possible"],
                metavar="NODE,...",
                shell_complete=words.nodes,
                help="The nodes that the VMs may move to, and no others; an empty text: to all.",
            ),
            click.Option(
                ["--preferred"],
                metavar="NODE,...",
                shell_complete=words.nodes,
                help="The nodes that are tried first, in this order; an empty text: none.",
            ),
        ],
        parameters=_owners,
    ),
    RulesParameters: _Form(
        options=lambda words: [
            *(
                click.Option([f"--{rule_word(kind)}"], metavar="GROUP,...", multiple=True, help=text)
                for kind, text in _RULE_HELP.items()
            ),
            click.Option(["--remove"], metavar="GROUP,...", multiple=True, help="Groups that the VMs leave."),
        ],
        parameters=_rules,
    ),
    **{kind: _edit_form(*form) for kind, form in definition.FORMS.items()},
    PauseParameters: _Form(
        options=lambda words: [
            click.Option(
                ["--drain/--no-drain"],
                default=False,
                help="Move the nodes' VMs to other nodes, High first; none is stopped. Default: they stay.",
            ),
            click.Option(
                ["--why"],
                metavar="TEXT",
                default="",
                help="Why, for other administrators: it is kept on the node.",
            ),
        ],
        parameters=_pause,
    ),
    ResumeParameters: _Form(
        options=lambda words: [
            click.Option(
                ["--failback"],
                type=click.Choice([each.value for each in Failback]),
                default=Failback.NONE.value,
                show_default=True,
                help="What becomes of the VMs that were drained from the nodes: they stay where they are, "
                "or go back.",
            )
        ],
        parameters=lambda failback: ResumeParameters(failback=Failback(failback)),
    ),
}
"""By the type of an action's parameters; those of moves are the options of ``vm migrate``."""


def action(app: App, spec: ActionSpec[Any], words: completion.Words) -> Command:
    """The command of an action that is no move."""
    form = FORMS[type(spec.default)]
    return acting(
        app,
        spec.command,
        spec.doc,
        f"{spec.doc}\n\n{spec.consequence}" if spec.consequence not in spec.doc else spec.doc,
        words,
        form.options(words),
        lambda **given: (spec, form.parameters(**given)),
        spec.target,
    )


def acting(
    app: App,
    name: str,
    short: str,
    doc: str,
    words: completion.Words,
    options: list[click.Parameter],
    choose: Callable[..., Chosen],
    kind: Kind = Kind.VM,
) -> Command:
    @click.pass_context
    def callback(
        ctx: click.Context,
        /,
        names: tuple[str, ...],
        where: str | None,
        wait_s: float | None,
        no_wait: bool,
        what_if: bool,
        yes: bool,
        follow: bool,
        **given: Any,
    ) -> int:
        from manager.cli import acting
        from manager.cli.session import run_async

        if no_wait and wait_s is not None:
            raise click.UsageError("Only one of --wait and --no-wait can be given.", ctx)
        if follow and (no_wait or what_if):
            raise click.UsageError("--follow waits: --no-wait and --what-if cannot be given with it.", ctx)
        spec, parameters = choose(**given)
        through_us = isinstance(parameters, MigrateParameters) and (
            parameters.route is PeerRoute.THROUGH_THIS_COMPUTER
        )
        if through_us and (no_wait or wait_s is not None):
            raise click.UsageError(
                "A move through this computer ends if this command does: "
                "--wait and --no-wait cannot be given with it.",
                ctx,
            )
        request = acting.Request(
            spec=spec,
            targets=Targets.given(ctx, names, where, kind),
            parameters=parameters,
            wait_s=wait_s,
            no_wait=no_wait,
            what_if=what_if,
            yes=yes,
            follow=follow,
        )
        return run_async(acting.carry_out(app, settings_of(ctx), request))

    return Command(
        name,
        help=doc,
        short_help=short,
        callback=callback,
        params=[
            *Targets.params(words, kind),
            *options,
            *waiting_options(),
            click.Option(["--what-if"], is_flag=True, help="Show what would be done, and do nothing."),
            yes_option(),
            click.Option(
                ["--follow"],
                is_flag=True,
                help="Tell each change while it goes on; with --json one object per line, "
                "the results at the end.",
            ),
        ],
    )


_NO_WAIT = (
    "End as soon as the hosts have begun everything; VMs that must wait for their turn keep the command "
    "until they were begun, unless a “muster engine” works on the cluster."
)


def waiting_options(no_wait: str = _NO_WAIT) -> list[click.Parameter]:
    """``--wait`` and ``--no-wait``."""
    return [
        click.Option(
            ["--wait", "wait_s"],
            type=Seconds(above_zero=False),
            metavar="SECONDS",
            help="Wait at most so long; what is still under way then is reported as running, "
            "and nothing is undone. Default: to the end.",
        ),
        click.Option(["--no-wait"], is_flag=True, help=no_wait),
    ]


def yes_option() -> click.Option:
    """``--yes``."""
    return click.Option(["--yes"], is_flag=True, help="Do not ask.")


# --- moves ---------------------------------------------------------------------------------------

MOVES: Mapping[str, ActionSpec[Any]] = {
    spec.move.value: spec for spec in ACTIONS.values() if spec.kind is OperationKind.MIGRATE
}
"""What ``vm migrate --type`` can be, by the word for it."""

_FOR_LIVE = {"--to", "--best", "--pool", "--policy", "--through-this-computer"}
_FOR_OTHERS = {"--to", "--best", "--through-this-computer"}
_TAKES: Mapping[MoveType, set[str]] = {
    MoveType.LIVE: _FOR_LIVE,
    MoveType.QUICK: _FOR_OTHERS,
    MoveType.SHUT_DOWN: _FOR_OTHERS,
    MoveType.TURN_OFF: _FOR_OTHERS,
    MoveType.STORAGE: {"--pool"},
}


def _move(
    *, kind: str, to: str | None, best: bool, pool: str, policy: str | None, through_this_computer: bool
) -> Chosen:
    spec = MOVES[kind]
    given = {
        "--to": bool(to),
        "--best": best,
        "--pool": bool(pool),
        "--policy": bool(policy),
        "--through-this-computer": through_this_computer,
    }
    if to and best:
        raise click.UsageError("Only one of --to and --best can be given.")
    if not pool.isprintable():
        raise click.UsageError(f"--pool {pool!r}: needs printable text.")
    for option, is_given in given.items():
        if is_given and option not in _TAKES[spec.move]:
            others = [word for word, each in MOVES.items() if option in _TAKES[each.move]]
            raise click.UsageError(f"{option} is for --type {' and '.join(others)}, not for {kind}.")
    if isinstance(spec.default, StorageParameters):
        if not pool:
            raise click.UsageError(f"--type {kind} needs --pool POOL: where the disks go.")
        return spec, StorageParameters(pool=pool)
    route = PeerRoute.THROUGH_THIS_COMPUTER if through_this_computer else PeerRoute.NODE_TO_NODE
    target = NodeId(to) if to else None
    return spec, MigrateParameters(target=target, route=route, pool=pool, policy=policy or "")


def migrate(app: App, words: completion.Words) -> Command:
    """The command of all moves."""
    short = "Move VMs to another node, or their disks to another pool."
    asking = ", ".join(word for word, spec in MOVES.items() if spec.destructive)
    paragraphs = [
        short,
        *(f"--type {word}: {spec.doc}" for word, spec in MOVES.items()),
        f"On a terminal, {asking} ask first. A VM that cannot run on the other node runs on its own again.",
        "What is done about a live move that does not converge:",
        *(f"--policy {policy.name}: {policy.doc}" for policy in POLICIES.values()),
    ]
    return acting(
        app,
        next(iter(MOVES.values())).command,
        short,
        "\n\n".join(paragraphs),
        words,
        [
            click.Option(
                ["--type", "kind"],
                type=click.Choice(list(MOVES)),
                default=next(iter(MOVES)),
                show_default=True,
                help="How they move.",
            ),
            click.Option(
                ["--to"],
                metavar="NODE",
                shell_complete=words.nodes,
                help="The node to move to. Default: the best one for each VM.",
            ),
            click.Option(
                ["--best"],
                is_flag=True,
                help="Say that the best node is meant; another one is taken if it falls out.",
            ),
            click.Option(
                ["--pool"],
                metavar="POOL",
                default="",
                help="The storage pool that disks are copied to: with --type storage on the VM's own node, "
                "with --type live on the target, for disks that the nodes do not share.",
            ),
            click.Option(
                ["--policy"],
                type=click.Choice(list(POLICIES)),
                help="What is done if a live move does not converge. Default: as the cluster file says.",
            ),
            click.Option(
                ["--through-this-computer"],
                is_flag=True,
                help="Move through this computer, where the nodes cannot log in to each other. "
                "The moves end if this command does.",
            ),
        ],
        _move,
    )


def tune(app: App, words: completion.Words) -> Command:
    """``vm tune``: change a live move that is under way."""

    @click.pass_context
    def callback(
        ctx: click.Context,
        /,
        names: tuple[str, ...],
        where: str | None,
        pause_ms: int | None,
        cap_mib_s: int | None,
        post_copy: bool,
        yes: bool,
    ) -> int:
        from manager.cli import steering
        from manager.cli.session import run_async

        if pause_ms is None and cap_mib_s is None and not post_copy:
            raise click.UsageError("Say what to change: --pause, --cap or --post-copy.", ctx)
        tuning = steering.Tuning(pause_ms=pause_ms, cap_mib_s=cap_mib_s, post_copy=post_copy)
        return run_async(
            steering.tune(app, settings_of(ctx), Targets.given(ctx, names, where), tuning, yes=yes)
        )

    return Command(
        "tune",
        help="Change live moves that are under way: how long the guest may be paused, how much may be sent. "
        "--post-copy starts the second half: from then on the VM runs on the target and fetches the rest of "
        "its memory; if a node or the network fails then, the VM is lost. On a terminal it asks first.",
        short_help="Change live moves that are under way.",
        callback=callback,
        params=[
            *Targets.params(words),
            click.Option(
                ["--pause", "pause_ms"],
                type=click.IntRange(*TUNABLE["pause_ms"]),
                metavar="MS",
                help="Permit the guest a pause of so many milliseconds at the end, from 1 to 60000.",
            ),
            click.Option(
                ["--cap", "cap_mib_s"],
                type=click.IntRange(*TUNABLE["bandwidth_mib_s"]),
                metavar="MIB_S",
                help="Send at most so many MiB/s; 0: as much as it can.",
            ),
            click.Option(
                ["--post-copy"],
                is_flag=True,
                help="Start the second half (post-copy). It must have been permitted when the move began: "
                "by --policy post-copy or in the cluster file.",
            ),
            yes_option(),
        ],
    )

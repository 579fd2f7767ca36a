"""The manual's pages and the man page, made from the commands, the actions and the fields themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator

import click

from manager.cli.acting import PAUSE_PATIENCE_S
from manager.cli.actions import MOVES
from manager.cli.completion import HOW_TO
from manager.cli.options import DEFAULT_TIMEOUT_S, GRACE_S, Everywhere
from manager.core.actions import ACTIONS
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS
from manager.core.query.flags import FLAGS
from manager.core.query.spec import FieldKind

GENERATED = "<!-- Made by “muster manual”; do not edit. -->"

_RESULTS = (
    ("done", "it is as wanted; also when it already was so, which the reason then says"),
    ("skipped", "refused: the action does not apply to this VM, or its node cannot be reached"),
    ("failed", "it was tried and did not succeed; the reason says where the VM is and in what state"),
    ("running", "the time of `--wait` ran out, or its batch is paused; nothing is undone"),
    ("accepted", "not waited for: with `--no-wait`, and what `vm tune` asked of a host"),
    ("planned", "with `--what-if`: this is what would be done"),
)

_EXIT_CODES = (
    (0, "all done or accepted"),
    (1, "something failed, was refused or still runs"),
    (2, "wrong usage, a file that cannot be used, an unknown or ambiguous name; then nothing was done"),
    (3, "a needed node, or the whole cluster, cannot be reached"),
    (130, "interrupted with Ctrl-C: what waited was dropped, what ran goes on, and both were said"),
)

_ON_ACTIONS = """\
Names are looked up first, all of them: if one is unknown or ambiguous, nothing is done. `--where QUERY`
takes all VMs that match a [query](queries.md), or those of the names that do; if none does, nothing is
done and the exit code is 0, so that a script may run twice. Then the plan is made; VMs to which the
action does not apply are skipped with a reason. On a terminal, an action that
takes something away from the guests asks once, with counts, unless `--yes` is given; without a terminal
it does not ask. Then it is done, on many VMs at once within the cluster's limits, High first.

A command waits to the end. `--wait SECONDS` bounds that: what is still under way then is reported as
`running`, goes on on its host, and nothing is undone. VMs that had not got their turn by then remain in
the journal; the next Muster that works on the cluster within 10 min goes on with them, and `muster vm
cancel` drops them. `--no-wait` ends as soon as the hosts have begun everything: VMs that have to wait for
their turn keep the command until they were begun, for nobody else would begin them, and it says so. If a
window or another command of the same user works on the cluster, it carries the request out and shows it
too. Where `muster engine` works on the cluster, everything can be left to it: then `--no-wait` ends at
once.

A quick move, and one that shuts down or turns off, goes in steps that the hosts do not take by
themselves. A VM that is between two nodes keeps the command, whatever `--wait` and `--no-wait` say, until
it runs again, unless an engine works on the cluster. Ctrl-C too is followed only when it has arrived; a
second Ctrl-C leaves it as it is, and the next Muster that works on the cluster goes on with it.

After too many failures (by default 3, and 20 % of it) a batch pauses itself: what runs goes on, the rest
waits for a word. The command says so once, with the command that continues and the one that drops the
rest. On a terminal it goes on waiting. Without one nobody may ever give that word: {patience} s after the
last of its VMs ended it ends with exit code 1 and reports the rest as `running`, with that reason; they
stay in the queue, paused. A queue that somebody paused as a whole is waited for; `--wait` bounds that
too.

`--follow` tells each change while it goes on: in words on standard error, with `--json` as one object per
line on standard output, with the keys of the [work in the queue](fields.md#work-in-the-queue); the last
lines are the results, one object per VM.

`--what-if` shows the plan and does nothing.
""".replace("{patience}", f"{PAUSE_PATIENCE_S:g}")

_ENGINE = """\
Per cluster and user one process carries out what is asked for: the one that holds the lock beside the
journal. It goes by the cluster's name. Windows and commands beside it send it their requests. A command
is that process only until its own work is over. `muster engine` is it until it is told to end: it goes on
with what waits while no window is open, so that a command may leave its work to it. `muster engine
install` makes it a service of your systemd; no shell is involved in it. It logs in to the hosts as you
do, with keys that need no passphrase: it has no agent to ask.

If that process works on another cluster that has the same name, or on the same file as it was before it
was changed, commands that act are refused with exit code 2; the message says which process it is, by
which file it works, and which nodes differ. Commands that only look go on without it and say so.
"""


def pages(root: click.Group) -> dict[str, str]:
    """All pages by file name, below the documentation's folder."""
    ctx = click.Context(root, info_name="muster")
    made = {
        "manual/README.md": _front(root, ctx),
        "manual/fields.md": _fields(),
        "manual/queries.md": _queries(),
        "muster.1": _man(root, ctx),
    }
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        if command is not None and not command.hidden:
            made[f"manual/{name}.md"] = _page(command, click.Context(command, parent=ctx, info_name=name))
    return made


# --- reading the commands --------------------------------------------------------------------------


def _doc(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "")


def _children(command: click.Command, ctx: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None and not below.hidden:
                yield below, click.Context(below, parent=ctx, info_name=name)


def _leaves(command: click.Command, ctx: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """The commands of a group and of the groups in it; what does something itself, itself too."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield command, ctx
    for below, below_ctx in _children(command, ctx):
        yield from _leaves(below, below_ctx)


def _usage(command: click.Command, ctx: click.Context) -> str:
    return " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])


def _options(command: click.Command, ctx: click.Context, *, shared: bool) -> list[tuple[str, str]]:
    found = []
    for param in command.get_params(ctx):
        if isinstance(param, Everywhere) is shared and not isinstance(param, click.Argument):
            record = param.get_help_record(ctx)
            if record is not None and "--help" not in param.opts:
                found.append(record)
    return found


# --- Markdown --------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _code(words: str) -> str:
    return f"`{words}`"


def _options_table(records: Iterable[tuple[str, str]]) -> str:
    return _table(("Option", "Meaning"), ((_code(names), text) for names, text in records))


def _front(root: click.Group, ctx: click.Context) -> str:
    commands = [
        (f"[{name}]({name}.md)", command.get_short_help_str(200))
        for name in root.list_commands(ctx)
        if (command := root.get_command(ctx, name)) is not None and not command.hidden
    ]
    how_to = "\n".join(HOW_TO.values())
    parts = [
        GENERATED,
        "# The command line",
        "```\nmuster [--cluster FILE|NAME | --demo NODESxVMS | --connect URI...] COMMAND\n```",
        "Without a command, the window opens, on the clusters used last. Results go to standard output, "
        "everything else to standard error.",
        _table(("Command", ""), commands),
        "What the window shows of the queue, its columns, reasons and keys: [the queue](../queue.md). Which "
        "pools are the same, and how fresh their figures are: [storage and networks](../storage.md).",
        "## Options that may stand anywhere",
        _options_table(_options(root, ctx, shared=True)),
        "Without a cluster option, `MUSTER_CLUSTER` names the cluster; without that, it is the only "
        "configured one. If several are configured, the command ends with exit code 2 and their names; if "
        "none is, it is the demo, and standard error says so.",
        f"`--timeout` bounds connecting and reading only, {DEFAULT_TIMEOUT_S:g} s by default. A node that "
        "does not answer by then is told of and left out; time in which a password is typed does not "
        "count. "
        f"Unless `--timeout` is given, a node that stays silent is waited for only {GRACE_S:g} s, or three "
        "times as long as all others took, if the command can do without it: lists can; an action can, if "
        "all its VMs are seen running on other nodes and `--to` names another node. What is not seen "
        "running may run on the silent node, so then the whole time is waited.",
        "## JSON",
        "With `--json`, the result is one array of objects, and nothing else stands on standard output. In "
        "lists the keys are the names of the [fields](fields.md): all of them, or those of `--columns`. "
        "What is not known, or was not measured, is `null`. With `--group-by`, it is an object per group "
        "with its `count` and `totals`, and its `rows` in it. An action gives one object per VM with `uuid`, "
        "`vm`, `result` and `reason`; with `--what-if` also `from` and `to`. With `--follow`, it is one "
        "object per line instead.",
        _table(("Result", "Meaning"), ((_code(word), text) for word, text in _RESULTS)),
        "## Exit codes",
        _table(("Code", "Meaning"), ((str(code), text) for code, text in _EXIT_CODES)),
        "## Acting on VMs",
        _ON_ACTIONS,
        "## Who works on a cluster",
        _ENGINE,
        "## Completion",
        f"```\n{how_to}\n```",
        "VM and node names are completed from what was last read of the cluster: completion connects to "
        "nothing.",
        "## Where files live",
        "Cluster files and the window's layout in the user's configuration folder (`~/.config/muster`), "
        "journals in the state folder (`~/.local/state/muster`). `MUSTER_HOME` names one folder for all of "
        "it.",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _page(command: click.Command, ctx: click.Context) -> str:
    parts = [GENERATED, f"# {ctx.command_path}", _doc(command)]
    below = list(_children(command, ctx))
    if below:
        if own := _options(command, ctx, shared=False):
            parts.append(_options_table(own))
        rows = [
            (
                f"[{child.info_name}](#{next(_leaves(each, child))[1].command_path.replace(' ', '-')})",
                each.get_short_help_str(200),
            )
            for each, child in below
        ]
        parts.append(_table(("Command", ""), rows))
        if ctx.info_name == "vm":
            parts.append("How actions plan, ask, wait and report: [Acting on VMs](README.md#acting-on-vms).")
        for each, child in below:
            for leaf, leaf_ctx in _leaves(each, child):
                parts += [f"## {leaf_ctx.command_path}", *_body(leaf, leaf_ctx)]
    else:
        parts = [*parts[:2], *_body(command, ctx)]
    parts.append("Every command also takes the [options that may stand anywhere](README.md).")
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _body(command: click.Command, ctx: click.Context) -> list[str]:
    parts = [f"```\n{_usage(command, ctx)}\n```", _doc(command)]
    moves = ctx.command_path == f"muster vm {next(iter(MOVES.values())).command}"
    spec = next((s for s in ACTIONS.values() if ctx.command_path == f"muster vm {s.command}"), None)
    if spec is not None and spec.destructive:
        parts.append("Asks on a terminal, unless `--yes` is given.")
    if moves:
        parts.append(
            "Before the first move between two nodes Muster finds out whether the source can log in to the "
            "target. If not, nothing is moved, and the commands that repair it are shown."
        )
    records = _options(command, ctx, shared=False)
    return [*parts, _options_table(records)] if records else parts


def _fields() -> str:
    parts = [
        GENERATED,
        "# Fields",
        "The words for `--columns` and `--sort`, and the keys of JSON. Sizes are MiB in JSON, or bytes where "
        "the name says so, and sorted as such; tables show the unit in the header. Fields marked with * are "
        "measured when they are asked for, which takes a second.",
    ]
    for kind, title in (
        (Kind.VM, "VMs"),
        (Kind.NODE, "Nodes"),
        (Kind.OPERATION, "Work in the queue"),
        (Kind.POOL, "Storage pools"),
        (Kind.VOLUME, "Volumes"),
        (Kind.NETWORK, "Networks"),
        (Kind.PROBLEM, "Problems"),
        (Kind.EVENT, "Events"),
    ):
        rows = [
            (
                _code(field.name) + ("*" if field.sample else ""),
                field.title + (f" ({field.unit})" if field.unit else ""),
                field.doc,
            )
            for field in FIELDS[kind].values()
        ]
        parts += [f"## {title}", _table(("Field", "Column", "Meaning"), rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_LANGUAGE = """
A query says which rows are meant: in the window's search box, in saved views, and after `--where`.

| Write | Meaning |
|---|---|
| `web prod` | both texts occur in what the list shows, in any column that holds text |
| `"disk error"` | this text, with its space; in quotes nothing has a special meaning |
| `status:running` | the field has this value; upper and lower case are one |
| `owner:n1,n2` | it has one of these values |
| `name:db*`, `name:web-?` | it fits the pattern: `*` is any text, `?` any one character |
| `information:waits` | sentences and paths: the text occurs in it; `=` asks for the whole of it |
| `owner!=n1,n2` | it is known, and none of these |
| `memory>4GiB`, `cpu>=80%`, `uptime<1h30min` | more or less; a bare figure is in the column's unit |
| `memory:2GiB..8GiB`, `vcpus:4..` | a range, its ends included; an end may be left out |
| `priority>=high` | words with an order have one |
| `changed:today`, `changed:2h`, `changed>-2h`, `changed<2026-11-22` | times: of that day; within the last \
two hours; after the moment two hours ago; before that day |
| `is:stale` | a shorthand, see below |
| `tag:none`, `memory:unknown` | there is none; it is not known |
| `a b or c`, `a and (b or not c)` | `and`, which may be left out, binds closer than `or` |

What is not known is neither more nor less than anything: `memory>4GiB` and `not memory>4GiB` both leave
out a VM whose node is silent; `memory:unknown` finds it.
"""


def _queries() -> str:
    parts = [GENERATED, "# Queries", _LANGUAGE, "## Shorthands"]
    for kind, flags in FLAGS.items():
        rows = [(_code(f"is:{flag.word}"), flag.doc, _code(flag.text)) for flag in flags.values()]
        parts += [f"For {kind.plural}:", _table(("Shorthand", "Meaning", "The same as"), rows)]
    for kind, fields in FIELDS.items():
        rows = []
        for spec in fields.values():
            words = [_code(word) for word in dict.fromkeys((spec.term, *spec.aliases))]
            takes = ", ".join(spec.words) if spec.words else _TAKES.get(spec.kind, spec.kind.value)
            rows.append((", ".join(words), spec.doc, "a text that occurs in it" if spec.prose else takes))
        parts += [f"## Fields of {kind.plural}", _table(("Field", "Meaning", "Value"), rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_TAKES = {
    FieldKind.TEXT: "text",
    FieldKind.ENUM: "text",
    FieldKind.COUNT: "figure",
    FieldKind.SIZE_MIB: "size",
    FieldKind.BYTES: "size",
    FieldKind.RATE: "size per second",
    FieldKind.PERCENT: "percent",
    FieldKind.SECONDS: "span",
    FieldKind.TIME: "time",
    FieldKind.LIST: "text of one of them",
    FieldKind.BOOL: "yes, no",
}


# --- roff ------------------------------------------------------------------------------------------


def _roff(text: str) -> str:
    """A text as a man page has it: `code` in bold, no line that begins like a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in escaped.splitlines())


def _roff_paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        preformatted = any(line.startswith("  ") for line in paragraph.splitlines())
        body = paragraph if preformatted else " ".join(paragraph.split())
        lines += [".PP", *([".nf", _roff(body), ".fi"] if preformatted else [_roff(body)])]
    return lines


def _roff_terms(records: Iterable[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    for names, text in records:
        lines += [".TP", f".B {_roff(names)}", _roff(" ".join(text.split()))]
    return lines


def _man(root: click.Group, ctx: click.Context) -> str:
    lines = [
        '.\\" Made by "muster manual"; do not edit.',
        '.TH MUSTER 1 "" "Muster" "User Commands"',
        ".SH NAME",
        "muster \\- many libvirt hosts as one cluster",
        ".SH SYNOPSIS",
        _roff("`muster` [`--cluster` FILE|NAME | `--demo` NODESxVMS | `--connect` URI...] COMMAND"),
        ".SH DESCRIPTION",
        *_roff_paragraphs(_doc(root).partition("Exit codes")[0]),
        ".SH OPTIONS THAT MAY STAND ANYWHERE",
        *_roff_terms(_options(root, ctx, shared=True)),
        ".SH COMMANDS",
    ]
    for command, below in _children(root, ctx):
        for leaf, leaf_ctx in _leaves(command, below):
            lines += [f".SS {_roff(_usage(leaf, leaf_ctx))}", *_roff_paragraphs(_doc(leaf))]
            lines += _roff_terms(_options(leaf, leaf_ctx, shared=False))
    lines += [".SH ACTIONS", *_roff_paragraphs(_ON_ACTIONS)]
    lines += [".SH WHO WORKS ON A CLUSTER", *_roff_paragraphs(_ENGINE)]
    lines += [".SH RESULTS", *_roff_terms(_RESULTS)]
    lines += [".SH EXIT STATUS", *_roff_terms((str(code), text) for code, text in _EXIT_CODES)]
    lines += [
        ".SH ENVIRONMENT",
        *_roff_terms(
            [
                ("MUSTER_CLUSTER", "The cluster's name or file, where no option says it."),
                ("MUSTER_HOME", "One folder for configuration, state and cache."),
            ]
        ),
    ]
    return "\n".join(lines) + "\n"

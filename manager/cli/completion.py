"""Completion: the shells' scripts, and words that are known without connecting to anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import click
import msgspec
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

from manager.cli.app import App
from manager.cli.options import settings_of
from manager.cli.session import Known, choose_quietly, completion_key
from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query import complete as in_query
from manager.core.query.fields import FIELDS

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_MUSTER_COMPLETE"

HOW_TO = {
    "bash": "muster completion bash > ~/.local/share/bash-completion/completions/muster",
    "zsh": "muster completion zsh > ~/.zfunc/_muster   (with ~/.zfunc in fpath)",
    "fish": "muster completion fish > ~/.config/fish/completions/muster.fish",
}

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@add_completion_class
class Bash(BashComplete):
    """Click's, and ``--to=n``: bash cuts it at the sign."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is begun, and that one."""
        args, begun = super().get_completion_args()
        return [
            word for place, word in enumerate(args) if word != "=" or not _is_option(args, place - 1)
        ], begun


@add_completion_class
class Zsh(ZshComplete):
    """Click's puts the value in the place of all of ``--to=n``, and from ``fpath`` its second call fails."""

    source_template = """\
#compdef %(prog_name)s

_%(prog_name)s() {
    local -a bare described response
    local type word help
    (( ! $+commands[%(prog_name)s] )) && return 1

    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
%(complete_var)s=zsh_complete %(prog_name)s)}")
    [[ $words[CURRENT] == --*=* ]] && compset -P '*='

    for type word help in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain)
                if [[ $help == "_" ]]; then
                    bare+=("$word")
                else
                    described+=("${word//:/\\:}:$help")
                fi
                ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described
    (( $#bare )) && compadd -V unsorted -a bare
}

if [[ $funcstack[1] == _%(prog_name)s ]]; then
    _%(prog_name)s "$@"  # from fpath, for the first time: the function has just taken this file's place
else
    compdef _%(prog_name)s %(prog_name)s
fi
"""

    def format_completion(self, item: CompletionItem) -> str:
        """Three lines."""
        return f"{item.type}\n{item.value}\n{_one_line(item.help) or '_'}"


@add_completion_class
class Fish(FishComplete):
    """Click's cuts words and helps at their commas, and knows no ``--to=n``."""

    source_template = """\
function %(complete_func)s
    set -l option (string match -r -- '^--[^=]+=' (commandline -t))
    for line in (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \
COMP_CWORD=(commandline -t) %(prog_name)s)
        set -l part (string split \\t -- $line)
        switch $part[1]
            case dir
                __fish_complete_directories $part[2] | string replace -r -- '^' "$option"
            case file
                __fish_complete_path $part[2] | string replace -r -- '^' "$option"
            case plain
                printf '%%s%%s\\t%%s\\n' "$option" $part[2] "$part[3]"
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""

    def format_completion(self, item: CompletionItem) -> str:
        """One line, its parts divided by tabs."""
        return f"{item.type}\t{item.value}\t{_one_line(item.help)}"


def _is_option(words: list[str], place: int) -> bool:
    return place >= 0 and words[place].startswith("--")


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def script(root: click.Command, shell: str) -> str:
    """What a shell must be told so that it asks `root` for completions."""
    made = get_completion_class(shell)
    assert made is not None
    return made(root, {}, "muster", VARIABLE).source()


class Words:
    """The words that complete arguments and options. Trouble of any kind means none."""

    def __init__(self, app: App) -> None:
        self._app = app

    def clusters(self, ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        """Configured clusters, and files."""
        try:
            names = [each.name for each in self._app.adapters(reading=True).files.configured()]
        except UserError:
            names = []
        # Files first: bash offers them only where no word follows.
        return [CompletionItem(begun, type="file"), *_starting(names, begun)]

    def vms(self, ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        """VM names as they were last read."""
        given = ctx.params.get("names") or ()
        return _starting([name for name in self._known(ctx).vms if name not in given], begun)

    def nodes(self, ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        """Node names as they were last read."""
        return _starting(self._known(ctx).nodes, begun)

    def _known(self, ctx: click.Context) -> Known:
        try:
            adapters = self._app.adapters(reading=True)
            data = adapters.views.read(completion_key(choose_quietly(adapters, settings_of(ctx))))
            return msgspec.json.decode(data, type=Known) if data else Known()
        except (UserError, click.UsageError, msgspec.MsgspecError):
            return Known()


def columns(kind: Kind) -> Complete:
    """Completes a list of fields, ``name,sta`` to ``name,status``."""

    def complete(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        before, comma, last = begun.rpartition(",")
        chosen = before.split(",")
        return [
            CompletionItem(before + comma + spec.name, help=spec.title)
            for spec in FIELDS[kind].values()
            if spec.name.startswith(last) and spec.name not in chosen
        ]

    return complete


def query(kind: Kind) -> Complete:
    """Completes a query's fields, and the values that a field can have at all."""

    def complete(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        found = in_query.complete(begun, len(begun), kind)
        before = begun[: found.start]
        return [CompletionItem(before + each.text, help=each.doc) for each in found.candidates]

    return complete


_HARMLESS = re.compile(r"[\w.@+%/][\w.@+%/:=,-]*")
"""Words that every shell takes as they are. Hosts choose the names, and bash does not quote what it inserts:
``$(...)`` in one would be run."""


def harmless(word: str) -> bool:
    """Whether a word can stand on a command line unquoted."""
    return _HARMLESS.fullmatch(word) is not None


def _starting(words: Iterable[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(begun) and harmless(word)]

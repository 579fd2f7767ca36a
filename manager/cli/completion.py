"""Completion: the shells' scripts, and words that are known without connecting to anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
import msgspec
from click.shell_completion import CompletionItem, get_completion_class

from manager.cli.app import App
from manager.cli.options import settings_of
from manager.cli.session import Known, choose_quietly, completion_key
from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_MUSTER_COMPLETE"

HOW_TO = {
    "bash": "muster completion bash > ~/.local/share/bash-completion/completions/muster",
    "zsh": "muster completion zsh > ~/.zfunc/_muster   (with ~/.zfunc in fpath)",
    "fish": "muster completion fish > ~/.config/fish/completions/muster.fish",
}

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


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
        return [*_starting(names, begun), CompletionItem(begun, type="file")]

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


def _starting(words: Iterable[str], begun: str) -> list[CompletionItem]:
    """Only words that a shell can take as they are: no spaces, no control characters."""
    return [
        CompletionItem(word)
        for word in words
        if word.startswith(begun) and word.isprintable() and not any(c.isspace() for c in word)
    ]

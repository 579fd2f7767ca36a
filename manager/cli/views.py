"""``muster view``: saved views, which no host is asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from manager.cli import completion
from manager.cli.app import App
from manager.cli.options import Command, Group, settings_of
from manager.cli.output import Column, print_json, print_pairs, print_table, printable, say
from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query.suggest import did_you_mean
from manager.core.query.views import View, Views, check
from manager.services.saved_views import SavedViews, file_of, read_file, write_file

KINDS = {kind.value: kind for kind in Kind}


def view_group(app: App) -> Group:
    """The group of these commands."""
    return Group(
        "view",
        help="Saved views: a query under a name, with the columns, order and groups in which a list "
        "shows it. They are yours, not a cluster's: the window and “muster vm list --view NAME” have them "
        "for every cluster.",
        short_help="Saved views: queries with columns, order and groups.",
        commands=[
            _list(app),
            _show(app),
            _save(app),
            _rename(app),
            _duplicate(app),
            _delete(app),
            _move(app),
            _export(app),
            _import(app),
        ],
    )


def view_named(app: App, kind: Kind, name: str) -> View:
    """The view of ``--view NAME``.

    Raises:
        UserError: There is none, or it cannot be shown any more.
    """
    view = _saved(app).read().named(name, kind)
    check(view)
    return view


def names(app: App, kind: Kind | None = None) -> completion.Complete:
    """Completes the name of a view."""

    def complete(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        try:
            views = _saved(app).read()
        except UserError:
            views = Views()
        every = [view for each in ([kind] if kind is not None else Kind) for view in views.of(each)]
        found = dict.fromkeys(view.name for view in every if view.name.lower().startswith(begun.lower()))
        return [CompletionItem(name) for name in found]

    return complete


def view_option(app: App, kind: Kind) -> click.Option:
    """``--view NAME``."""
    return click.Option(
        ["--view"],
        metavar="NAME",
        shell_complete=names(app, kind),
        help="Show this saved view: its query, columns, order and groups. Other options win over it; "
        "--where narrows it further.",
    )


def _saved(app: App) -> SavedViews:
    return SavedViews(app.adapters(reading=True).views)


def _kind() -> click.Option:
    return click.Option(
        ["--kind"], type=click.Choice(list(KINDS)), help="Of what it is a view; needed where names are alike."
    )


def _name(app: App) -> click.Argument:
    return click.Argument(["name"], metavar="NAME", shell_complete=names(app))


def _row(views: Views, view: View) -> dict[str, Any]:
    return {
        "name": view.name,
        "kind": view.kind.value,
        "built_in": view.is_built_in,
        "start": views.start == (view.kind, view.id),
        "query": view.query,
        "columns": [{"field": name, "width": width} for name, width in view.columns],
        "sort": [f"-{name}" if down else name for name, down in view.sort],
        "group_by": view.group or None,
    }


def _list(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, kind: str | None) -> int:
        views = _saved(app).read()
        shown = [view for each in ([KINDS[kind]] if kind else Kind) for view in views.of(each)]
        if settings_of(ctx).as_json:
            print_json([_row(views, view) for view in shown])
            return 0
        titles = ("Kind", "Name", "Whose", "Query", "Sort", "Group by")
        print_table(
            [Column(title=title, shrinks=title == "Query") for title in titles],
            [
                [
                    view.kind.value,
                    view.name,
                    "Muster's" if view.is_built_in else "yours",
                    view.query,
                    ",".join(_row(views, view)["sort"]),
                    view.group,
                ]
                for view in shown
            ],
        )
        return 0

    return Command(
        "list",
        help="List the views: those that come with Muster, then your own, in their order.",
        callback=callback,
        params=[_kind()],
    )


def _show(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, name: str, kind: str | None) -> int:
        views = _saved(app).read()
        view = views.named(name, KINDS[kind] if kind else None)
        row = _row(views, view)
        if settings_of(ctx).as_json:
            print_json([row])
            return 0
        pairs = [
            ("Name", view.name),
            ("Of", view.kind.plural),
            ("Whose", "Muster's" if view.is_built_in else "yours"),
            ("Query", view.query or "everything"),
            ("Columns", ", ".join(name for name, _ in view.columns) or "as the list has them"),
            ("Sort", ", ".join(row["sort"]) or ("by name" if view.columns else "as the list has it")),
            ("Group by", view.group or ("nothing" if view.columns else "as the list has it")),
            ("Start", "the window begins with it" if row["start"] else ""),
        ]
        print_pairs(pair for pair in pairs if pair[1])
        return 0

    return Command("show", help="Show one view.", callback=callback, params=[_name(app), _kind()])


def _save(app: App) -> Command:
    @click.pass_context
    def callback(
        ctx: click.Context,
        name: str,
        kind: str,
        where: str | None,
        columns: str | None,
        sort: str | None,
        group_by: str | None,
    ) -> int:
        given = View(
            id="",
            name=name,
            kind=KINDS[kind],
            query=where or "",
            columns=tuple((word, 0) for word in _words(columns)),
            sort=tuple((word.removeprefix("-"), word.startswith("-")) for word in _words(sort)),
            group=group_by or "",
        )

        def make(views: Views) -> Views:
            mine = [view for view in views.own if view.kind is given.kind]
            before = next((view for view in mine if view.name.lower() == name.lower()), None)
            return views.put(replace(given, id=before.id)) if before else views.add(given)[0]

        return _changed(ctx, app, make, KINDS[kind], name)

    return Command(
        "save",
        help="Save a view; one of your own of this name is replaced. What is not given is left open: the "
        "list has it as it was. With --columns, all of it is said.",
        short_help="Save a view.",
        callback=callback,
        params=[
            click.Argument(["name"], metavar="NAME"),
            click.Option(
                ["--kind"],
                type=click.Choice(list(KINDS)),
                default=Kind.VM.value,
                show_default=True,
                help="Of what it is a view.",
            ),
            click.Option(
                ["--where"],
                metavar="QUERY",
                shell_complete=completion.query(Kind.VM),
                help="What it shows; by default everything. See the page on queries.",
            ),
            click.Option(
                ["--columns"],
                metavar="FIELD,...",
                shell_complete=completion.columns(Kind.VM),
                help="The fields to show, in this order.",
            ),
            click.Option(
                ["--sort"],
                metavar="[-]FIELD,...",
                shell_complete=completion.columns(Kind.VM),
                help="Sort by these fields, the first counts most; with a minus, downwards.",
            ),
            click.Option(
                ["--group-by"],
                metavar="FIELD",
                shell_complete=completion.columns(Kind.VM),
                help="Put the rows of each value of this field together.",
            ),
        ],
    )


def _words(text: str | None) -> list[str]:
    return list(dict.fromkeys(word for part in (text or "").split(",") if (word := part.strip())))


def _changed(ctx: click.Context, app: App, make: Callable[[Views], Views], kind: Kind, name: str) -> int:
    """Change the views, and tell how the one of this name is now."""
    views = _saved(app).change(make)
    if settings_of(ctx).as_json:
        print_json([_row(views, views.named(name, kind))])
    return 0


def _one(
    app: App,
    name: str,
    doc: str,
    act: Callable[[Views, View, Any], tuple[Views, View]],
    *more: click.Parameter,
) -> Command:
    """A command that changes one view that is given by its name."""

    @click.pass_context
    def callback(ctx: click.Context, /, name: str, kind: str | None, **given: Any) -> int:
        told: list[View] = []

        def make(views: Views) -> Views:
            made, view = act(views, views.named(name, KINDS[kind] if kind else None), given)
            told.append(view)
            return made

        views = _saved(app).change(make)
        if settings_of(ctx).as_json:
            print_json([_row(views, told[-1])])
        return 0

    return Command(name, help=doc, callback=callback, params=[_name(app), *more, _kind()])


def _rename(app: App) -> Command:
    def act(views: Views, view: View, given: Any) -> tuple[Views, View]:
        renamed = replace(view, name=given["new_name"])
        return views.put(renamed), renamed

    new = click.Argument(["new_name"], metavar="NEW_NAME")
    return _one(app, "rename", "Give one of your views another name.", act, new)


def _duplicate(app: App) -> Command:
    def act(views: Views, view: View, given: Any) -> tuple[Views, View]:
        return views.duplicate(view, given["new_name"])

    new = click.Argument(["new_name"], metavar="[NEW_NAME]", required=False)
    return _one(app, "duplicate", "Make a view of your own from any view.", act, new)


def _delete(app: App) -> Command:
    def act(views: Views, view: View, given: Any) -> tuple[Views, View]:
        return views.remove(view), view

    return _one(app, "delete", "Delete one of your views; with --json it is printed a last time.", act)


def _move(app: App) -> Command:
    def act(views: Views, view: View, given: Any) -> tuple[Views, View]:
        other = given["before"] or given["after"]
        if (given["before"] is None) == (given["after"] is None):
            raise click.UsageError("Give either --before NAME or --after NAME.")
        mine = [each for each in views.own if each.kind is view.kind]
        at = {each.name.lower(): place for place, each in enumerate(mine)}
        if other.lower() not in at or view not in mine:
            missing = other if view in mine else view.name
            near = did_you_mean(missing, [each.name for each in mine])
            raise UserError(f"{missing!r} is no view of your own of {view.kind.plural}.{near}")
        place, mine_at = at[other.lower()], mine.index(view)
        if place != mine_at:
            place += (given["after"] is not None) - (place > mine_at)
        return views.move(view, place - mine_at), view

    return _one(
        app,
        "move",
        "Give one of your views another place among them.",
        act,
        click.Option(["--before"], metavar="NAME", shell_complete=names(app), help="Before this one."),
        click.Option(["--after"], metavar="NAME", shell_complete=names(app), help="Behind this one."),
    )


def _export(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, name: str, file: Path | None, kind: str | None) -> int:
        view = _saved(app).read().named(name, KINDS[kind] if kind else None)
        if file is None:
            click.echo(file_of([view]), nl=False)
        else:
            write_file(file, [view])
        return 0

    return Command(
        "export",
        help="Write a view to a file, or to standard output, for somebody else to import.",
        callback=callback,
        params=[_name(app), _file(required=False), _kind()],
    )


def _import(app: App) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, file: Path) -> int:
        found = read_file(file)
        added: list[View] = []

        def make(views: Views) -> Views:
            try:
                made, new = views.bring_in(found)
            except UserError as error:
                raise UserError(f"{file}: {error} Nothing was imported.") from None
            added.extend(new)
            return made

        views = _saved(app).change(make)
        if settings_of(ctx).as_json:
            print_json([_row(views, view) for view in added])
        for view in added:
            say(printable(f"imported: {view.name} (of {view.kind.plural})"))
        return 0

    return Command(
        "import",
        help="Add the views of a file to your own, all or none. A name that is taken gets a number.",
        callback=callback,
        params=[_file(required=True)],
    )


def _file(*, required: bool) -> click.Argument:
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.Argument(["file"], metavar="FILE" if required else "[FILE]", required=required, type=kind)

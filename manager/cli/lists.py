"""What every list takes: ``--columns``, ``--sort``, ``--group-by``, ``--where`` and ``--view``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from manager.cli import completion
from manager.cli.app import App
from manager.cli.targets import read_query, where_option
from manager.cli.views import view_named, view_option
from manager.core.ids import Kind
from manager.core.query.filter import Matcher
from manager.core.query.parser import parse
from manager.core.query.query import all_of

if TYPE_CHECKING:
    from manager.core.query.spec import FieldSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a list shows, and how."""

    fields: list[FieldSpec]
    order: list[tuple[FieldSpec, bool]]  # what counts most first, and whether downwards
    group: FieldSpec | None
    where: Matcher | None
    is_chosen: bool  # somebody said which columns

    @property
    def samples(self) -> bool:
        """Whether figures must be measured first: those that somebody asked for by name, or by a query."""
        named = [*(field for field, _ in self.order), *((self.group,) if self.group else ())]
        named += self.fields if self.is_chosen else []
        return any(field.sample for field in named) or (self.where is not None and self.where.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The options as they were given."""

    columns: str | None = None
    sort: str | None = None
    group_by: str | None = None
    where: str | None = None
    view: str | None = None

    def shape(
        self,
        app: App,
        kind: Kind,
        *,
        as_json: bool,
        across: bool = False,
        usual: str | None = None,
        sort: str = "",
    ) -> Shape:
        """What they ask for; options win over the view, and ``--where`` narrows it.

        Args:
            app: Who has the views.
            kind: Of what the list is.
            as_json: All fields are shown unasked.
            across: The list is of several clusters.
            usual: The fields that are shown unasked otherwise; None: as the fields say.
            sort: The order unasked; empty: as the list has it.

        Raises:
            UserError: There is no such view, or the query is none.
            click.UsageError: There is no such field.
        """
        from manager.cli import listing

        view = view_named(app, kind, self.view) if self.view is not None else None
        columns, order, group = self.columns, self.sort, self.group_by
        where = read_query(self.where, kind)
        if view is not None:
            columns = columns or ",".join(name for name, _ in view.columns) or None
            order = order or ",".join(f"-{name}" if down else name for name, down in view.sort) or None
            group = group or view.group or None
            if view.query:
                query = parse(view.query)
                where = Matcher(all_of(query, where.query) if where is not None else query, kind)
        order = sort if order is None else order
        words = columns if columns is not None or as_json else usual
        return Shape(
            fields=listing.fields_of(kind, words, as_json=as_json, across=across),
            order=listing.sort_of(kind, order) if order or self.sort is not None else [],
            group=listing.field_of(kind, group) if group is not None else None,
            where=where,
            is_chosen=columns is not None,
        )


def list_options(app: App, kind: Kind, *, order: str) -> list[click.Parameter]:
    """The options of a list, which are the fields of `Wish`. `order`: how it is sorted unasked."""
    return [
        click.Option(
            ["--columns"],
            metavar="FIELD,...",
            shell_complete=completion.columns(kind),
            help="The fields to show, in this order.",
        ),
        click.Option(
            ["--sort"],
            metavar="[-]FIELD,...",
            shell_complete=completion.columns(kind),
            help=f"Sort by these fields, the first counts most; with a minus, downwards. By default {order}.",
        ),
        click.Option(
            ["--group-by"],
            metavar="FIELD",
            shell_complete=completion.columns(kind),
            help="A heading with count and totals over the rows of each value of this field.",
        ),
        where_option(kind),
        view_option(app, kind),
    ]

"""Which VMs or nodes a command is about: names, a query, or those of the names that match it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from manager.cli import completion
from manager.cli.output import say
from manager.cli.session import Session
from manager.core.errors import UserError
from manager.core.ids import Kind, NodeId, VmId
from manager.core.query.filter import Matcher, matcher
from manager.core.query.query import QueryError, text_of
from manager.core.query.spec import natural
from manager.core.query.suggest import did_you_mean


def where_option(kind: Kind) -> click.Option:
    """``--where QUERY``."""
    return click.Option(
        ["--where"],
        metavar="QUERY",
        shell_complete=completion.query(kind),
        help=f"Only {kind.plural} that match, for example “{EXAMPLES[kind]}”; see the page on queries.",
    )


EXAMPLES = {
    Kind.VM: "status:running owner:n1,n2 tag:web",
    Kind.NODE: "status:up cpu>80%",
    Kind.OPERATION: "state:failed",
    Kind.PROBLEM: "is:new subject:n1",
    Kind.POOL: "is:shared free<100GiB",
    Kind.VOLUME: "users:none capacity>10GiB",
    Kind.NETWORK: "is:missing",
    Kind.EVENT: "level>=warning node:n1",
}
"""A query of each kind, for the help."""


def read_query(text: str | None, kind: Kind) -> Matcher | None:
    """The query of ``--where``; None where none was given.

    Raises:
        UserError: It is none; with the place and the nearest words. Nothing was done.
    """
    if text is None:
        return None
    try:
        return matcher(text, kind)
    except QueryError as error:
        raise UserError(f"--where: {error.pointing(text)}") from None


@dataclass(frozen=True, slots=True)
class Targets:
    """The VMs, or nodes, of a command, as they were asked for."""

    names: tuple[str, ...] = ()
    where: Matcher | None = None
    kind: Kind = Kind.VM

    @classmethod
    def params(cls, words: completion.Words, kind: Kind = Kind.VM) -> list[click.Parameter]:
        """``NAME...`` and ``--where``."""
        complete = words.vms if kind is Kind.VM else words.nodes
        return [
            click.Argument(["names"], nargs=-1, metavar="[NAME...]", shell_complete=complete),
            where_option(kind),
        ]

    @classmethod
    def given(
        cls, ctx: click.Context, names: tuple[str, ...], where: str | None, kind: Kind = Kind.VM
    ) -> Targets:
        """From what the command line has.

        Raises:
            UserError: Neither names nor a query, or the query is none.
        """
        if not names and where is None:
            raise click.UsageError(f"Give the {kind.plural}' names, or --where QUERY.", ctx)
        return cls(names, read_query(where, kind), kind)

    @property
    def definitions(self) -> bool:
        """Whether more of the VMs must be known than their names and states."""
        return self.where is not None and "config" in self.where.depends

    def is_certain(self, session: Session, target: NodeId | None = None) -> bool:
        """Whether no silent node can change which VMs are meant."""
        if self.kind is Kind.NODE:  # where its VMs can go is known when all are heard
            return False
        return self.where is None and session.is_certain_of(self.names, target)

    async def find(self, session: Session) -> list[VmId]:
        """The VMs that are meant: named ones in the order given, else by name.

        Raises:
            UserError: A name is unknown or ambiguous.
        """
        if self.where is None:
            return session.find(self.names)
        if self.where.samples:
            await session.sample()
        view = session.view
        named: Sequence[VmId] = session.find(self.names) if self.names else session.by_name()
        found = [vm.id for vm in self.where.select(view, (view.vms[key] for key in named))]
        session.warn_of_unreachable()
        if not found:
            of = f"None of the {len(named):,} VMs" if named else "No VM"
            say(f"{of} matches “{text_of(self.where.query)}”. Nothing was done.")
        return found

    async def find_nodes(self, session: Session) -> list[NodeId]:
        """The nodes that are meant, in the same way. Raises as `find`."""
        known = session.view.nodes
        for name in self.names:
            if name not in known:
                near = did_you_mean(name, map(str, known))
                raise UserError(f"There is no node {name} in {session.config.name}.{near} Nothing was done.")
        names = [NodeId(n) for n in dict.fromkeys(self.names)] or sorted(known, key=natural)
        if self.where is None:
            return names
        if self.where.samples:
            await session.sample()
        found = [node.id for node in self.where.select(session.view, [known[n] for n in names])]
        if not found:
            say(f"No node matches “{text_of(self.where.query)}”. Nothing was done.")
        return found

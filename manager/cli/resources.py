"""``muster storage`` and ``muster network``: one pool or network, a pool's volumes, hosts' interfaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import click
from natsort import natsorted

from manager.cli import completion
from manager.cli.app import App
from manager.cli.options import Command, Settings, settings_of
from manager.cli.output import Column, print_heading, print_json, print_pairs, print_table
from manager.cli.targets import read_query, where_option
from manager.core.errors import OperationError, UserError
from manager.core.ids import Kind, NetworkId, NodeId, PoolId, VmId
from manager.core.query.fields import FIELDS
from manager.core.query.spec import FieldKind
from manager.core.query.suggest import did_you_mean
from manager.core.resource_facts import Network, Pool, SeenInterface
from manager.core.units import size_text

NAME = "NAME"


def show_pool(app: App) -> Command:
    """``storage show``."""
    return _command(
        "show",
        "Show one pool: where it is, how full, which VMs use it.",
        lambda settings, name: _show_pool(app, settings, name),
        click.Argument(["name"], metavar=NAME),
    )


def volumes(app: App) -> Command:
    """``storage volumes``."""
    return _command(
        "volumes",
        "List what is in a pool, and who uses it. The host looks into the pool first (unless the cluster is "
        f"read-only), which takes long if there is much in it.\n\nFields: {', '.join(FIELDS[Kind.VOLUME])}.",
        lambda settings, name, **how: _volumes(app, settings, name, **how),
        click.Argument(["name"], metavar=NAME),
        click.Option(["--node"], metavar="NODE", help="Ask this node; else the first that can use the pool."),
        click.Option(
            ["--columns"],
            metavar="FIELD,...",
            shell_complete=completion.columns(Kind.VOLUME),
            help="The fields to show, in this order.",
        ),
        click.Option(
            ["--sort"],
            metavar="[-]FIELD,...",
            default="name",
            show_default=True,
            shell_complete=completion.columns(Kind.VOLUME),
            help="Sort by these fields, the first counts most; with a minus, downwards.",
        ),
        where_option(Kind.VOLUME),
        short_help="List what is in a pool, and who uses it.",
    )


def show_network(app: App) -> Command:
    """``network show``."""
    return _command(
        "show",
        "Show one network: how each node has it, which VMs are in it.",
        lambda settings, name: _show_network(app, settings, name),
        click.Argument(["name"], metavar=NAME),
    )


def interfaces(app: App, words: completion.Words) -> Command:
    """``network interfaces``."""
    return _command(
        "interfaces",
        "List the hosts' own network interfaces, as far as the hosts tell.",
        lambda settings, nodes: _interfaces(app, settings, nodes),
        click.Argument(["nodes"], metavar="[NODE]...", nargs=-1, shell_complete=words.nodes),
    )


def _command(
    name: str,
    doc: str,
    work: Callable[..., Coroutine[Any, Any, int]],
    *params: click.Parameter,
    short_help: str | None = None,
) -> Command:
    @click.pass_context
    def callback(ctx: click.Context, /, **given: Any) -> int:
        from manager.cli.session import run_async

        return run_async(work(settings_of(ctx), **given))

    return Command(name, help=doc, short_help=short_help or doc, callback=callback, params=list(params))


# --- reading ---------------------------------------------------------------------------------------


@asynccontextmanager
async def _read(app: App, settings: Settings) -> AsyncIterator[Any]:
    """A session in which storage and networks were read."""
    from manager.cli.session import opened

    async with opened(app, settings, reading=True, enough=lambda _: True) as session:
        session.need_any()
        session.warn_of_unreachable()
        await session.runtime.resources.read_all()
        yield session


def _find(session: Any, rows: Mapping[Any, Any], name: str, noun: str) -> Any:
    """The pool or network that is meant, by its name or its id.

    Raises:
        UserError: There is none, or there are several; then the words that tell them apart.
    """
    from manager.cli.session import NOT_REACHED

    if name in rows:
        return rows[name]
    found = [row for row in rows.values() if row.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(natsorted(str(row.id) for row in found))
        raise UserError(f"There are several of the name {name}: {ids}. Give one of these.")
    known = [str(word) for row in rows.values() for word in {row.id, row.name}]
    text = f"There is no {noun} {name} in {session.config.name}.{did_you_mean(name, known)}"
    raise UserError(text, exit_code=NOT_REACHED if session.unreachable() else 2)


def _users(session: Any, key: PoolId | NetworkId) -> list[str]:
    view = session.view
    return natsorted(view.vms[VmId(vm)].name for vm in view.resources.users(key))


def _node(session: Any, name: str) -> NodeId:
    if name not in session.view.nodes:
        near = did_you_mean(name, session.view.nodes)
        raise UserError(f"There is no node {name} in {session.config.name}.{near}")
    return NodeId(name)


# --- the commands ----------------------------------------------------------------------------------


async def _show_pool(app: App, settings: Settings, name: str) -> int:
    async with _read(app, settings) as session:
        pool: Pool = _find(session, session.view.resources.pools, name, "pool")
        at = session.view.resources.pool_at(pool.id)
        if settings.as_json:
            shown = {f.name: f.as_json(session.view, pool) for f in FIELDS[Kind.POOL].values()}
            shown["id"] = pool.id
            shown["seen"] = [{"node": node, **asdict(at[node])} for node in pool.nodes]
            shown["users"] = _users(session, pool.id)
            print_json([shown])
            return 0
        _print_row(session, Kind.POOL, pool)
        rows = [
            (
                str(node),
                seen.name,
                seen.state.value,
                seen.target,
                "–" if seen.free_bytes is None else size_text(seen.free_bytes),
                "yes" if seen.autostart else "no",
            )
            for node, seen in ((node, at[node]) for node in pool.nodes)
        ]
        _print_table("On the nodes", ("Node", "Name", "Status", "Path", "Free", "Autostart"), rows, {"Free"})
        _print_users(_users(session, pool.id))
        return 0


async def _volumes(
    app: App,
    settings: Settings,
    name: str,
    *,
    node: str | None,
    columns: str | None,
    sort: str,
    where: str | None,
) -> int:
    from manager.cli.listing import fields_of, in_order, objects_of, print_rows, sort_of

    fields = fields_of(Kind.VOLUME, columns, as_json=settings.as_json)
    matching = read_query(where, Kind.VOLUME)
    order = sort_of(Kind.VOLUME, sort)
    async with _read(app, settings) as session:
        pool: Pool = _find(session, session.view.resources.pools, name, "pool")
        asked = _node(session, node) if node is not None else None
        try:
            _, found = await session.runtime.resources.volumes(pool.id, asked)
        except OperationError as error:
            raise UserError(f"The volumes of {name} cannot be read: {error}", exit_code=1) from None
        chosen = matching.select(session.view, found) if matching else found
        rows = in_order([(session.view, volume) for volume in chosen], Kind.VOLUME, order)
        if settings.as_json:
            print_json(objects_of(rows, fields))
        else:
            print_rows(rows, fields)
        return 0


async def _show_network(app: App, settings: Settings, name: str) -> int:
    async with _read(app, settings) as session:
        network: Network = _find(session, session.view.resources.networks, name, "network")
        at = session.view.resources.network_at(network.id)
        if settings.as_json:
            shown = {f.name: f.as_json(session.view, network) for f in FIELDS[Kind.NETWORK].values()}
            shown["id"] = network.id
            shown["seen"] = [{"node": node, **asdict(at[node])} for node in network.nodes]
            shown["users"] = _users(session, network.id)
            print_json([shown])
            return 0
        _print_row(session, Kind.NETWORK, network)
        rows = []
        for node in network.nodes:
            seen = at[node]
            state = "Up" if seen.is_active else "Down"
            if isinstance(seen, SeenInterface):
                rows.append((str(node), state, seen.name, ", ".join(seen.ports), ", ".join(seen.addresses)))
            else:
                rows.append((str(node), state, seen.bridge, "", ", ".join(seen.subnets)))
        _print_table("On the nodes", ("Node", "Status", "Bridge", "Ports", "Addresses"), rows)
        _print_users(_users(session, network.id))
        return 0


async def _interfaces(app: App, settings: Settings, nodes: tuple[str, ...]) -> int:
    async with _read(app, settings) as session:
        view = session.view
        wanted = [_node(session, name) for name in dict.fromkeys(nodes)] or list(view.nodes)
        found = [(node, view.resources.interfaces_of(node)) for node in wanted if view.nodes[node].is_up]
        if settings.as_json:
            print_json(
                [{"node": node, **asdict(each)} for node, seen in found for each in (seen or {}).values()]
            )
            return 0
        rows = [
            (str(node), *interface_cells(each))
            for node, seen in found
            for each in natsorted((seen or {}).values(), key=lambda each: each.name)
        ]
        titles = ("Node", *INTERFACE_TITLES)
        print_table([Column(title=title, right=title == "MTU") for title in titles], rows)
        return 0


INTERFACE_TITLES = ("Name", "Kind", "Status", "MAC address", "Addresses", "Ports", "MTU")


def interface_cells(each: SeenInterface) -> tuple[str, ...]:
    """An interface as a line."""
    return (
        each.name,
        each.kind,
        "Up" if each.is_active else "Down",
        each.mac,
        ", ".join(each.addresses),
        ", ".join(each.ports),
        "" if each.mtu is None else str(each.mtu),
    )


# --- printing --------------------------------------------------------------------------------------


def _print_row(session: Any, kind: Kind, row: Any) -> None:
    pairs = []
    for spec in FIELDS[kind].values():
        cell = spec.cell(session.view, row)
        unit = f" {spec.unit}" if spec.unit and spec.kind is FieldKind.PERCENT and cell[:1].isdigit() else ""
        if spec.name != "information":
            pairs.append((spec.title, f"{cell}{unit}"))
    print_pairs(pair for pair in pairs if pair[1])
    if row.notes:
        print_heading("Information")
        print_pairs((f"{note.text}. {note.remedy}".rstrip(". ") + ".", "") for note in row.notes)


def _print_table(
    heading: str, titles: Iterable[str], rows: Iterable[tuple[str, ...]], right: Iterable[str] = ()
) -> None:
    print_heading(heading)
    print_table([Column(title=title, right=title in right) for title in titles], rows)


def _print_users(users: list[str]) -> None:
    if users:
        print_heading("Used by")
        print_pairs((name, "") for name in users)

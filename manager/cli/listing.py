"""What there is to see: ``cluster show``, ``node list``, ``vm list``, ``vm show``."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from manager.cli.app import App
from manager.cli.lists import Shape
from manager.cli.options import Settings
from manager.cli.output import Column, print_heading, print_json, print_pairs, print_table, printable, say
from manager.cli.session import NOT_REACHED, Session, opened, opened_all
from manager.core.changes import LogEntry
from manager.core.cluster import ClusterView
from manager.core.dump import dump_of
from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.model import NodeStatus, Vm, VmStatus
from manager.core.placement import planner
from manager.core.query.fields import FIELDS
from manager.core.query.grouping import (
    GroupKey,
    Seen,
    figures_of,
    group_json,
    group_title,
    in_groups,
    known_values,
    told,
)
from manager.core.query.spec import CLUSTER, FieldKind, FieldSpec, Unavailable
from manager.core.query.suggest import did_you_mean
from manager.core.units import count_text, iso_text, mib_text, size_text, time_text

SHRINKS = frozenset({"information", "tags", "text"})
"""Columns that give way on a narrow terminal."""


def fields_of(kind: Kind, words: str | None, *, as_json: bool, across: bool = False) -> list[FieldSpec]:
    """The fields asked for with ``--columns a,b``; by default all for JSON, else those shown unasked.

    `across`: the list is of several clusters.

    Raises:
        click.UsageError: A word is no field; with the nearest ones.
    """
    known = FIELDS[kind]
    if words is None:
        # Figures that must be measured first are shown when they are asked for.
        shown = [f for f in known.values() if as_json or (f.shown and not f.sample)]
        return [shown[0], CLUSTER, *shown[1:]] if across and not as_json else shown
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise click.UsageError(f"--columns needs field names, for example {','.join(list(known)[:3])}.")
    return [field_of(kind, name) for name in dict.fromkeys(names)]


def sort_of(kind: Kind, words: str) -> list[tuple[FieldSpec, bool]]:
    """The fields asked for with ``--sort a,-b``, and whether downwards.

    Raises:
        click.UsageError: A word is no field; with the nearest ones.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise click.UsageError("--sort needs field names, for example owner,-memory_mib.")
    return [(field_of(kind, name.removeprefix("-")), name.startswith("-")) for name in names]


def field_of(kind: Kind, name: str) -> FieldSpec:
    """One field by its name.

    Raises:
        click.UsageError: There is none; with the nearest ones.
    """
    spec = FIELDS[kind].get(name)
    if spec is None:
        near = did_you_mean(name, FIELDS[kind])
        raise click.UsageError(f"There is no field {name}.{near} Fields: {', '.join(FIELDS[kind])}.")
    return spec


def _always(_: Session) -> bool:
    """A list is of what is there; who is missing is told beside it."""
    return True


async def show_list(app: App, settings: Settings, kind: Kind, shape: Shape) -> int:
    """``node list``, ``vm list``, ``storage list`` and ``network list``."""
    followed = [field.depends for field in (*shape.fields, *(field for field, _ in shape.order))]
    followed.append(shape.where.depends if shape.where else frozenset())
    definitions = (
        kind is Kind.NODE or shape.group is not None or any(names & {"config", "users"} for names in followed)
    )
    async with opened_all(app, settings, definitions=definitions, enough=_always) as sessions:
        reached = [session for session in sessions if _is_reached(session, kind, alone=len(sessions) == 1)]
        if shape.samples:
            await asyncio.gather(*(session.sample() for session in reached))
        if kind in (Kind.POOL, Kind.NETWORK):
            await asyncio.gather(*(session.runtime.resources.read_all() for session in reached))
        elif kind is Kind.VM:
            await asyncio.gather(*(session.read_room() for session in reached))
        found: list[Seen] = []
        for session in sessions if kind is Kind.NODE else reached:
            view = session.view
            source: dict[Kind, Mapping[Any, Any]] = {
                Kind.VM: view.vms,
                Kind.NODE: view.nodes,
                Kind.POOL: view.resources.pools,
                Kind.NETWORK: view.resources.networks,
            }
            found += seen(view, source[kind].values(), shape)
        code = 0 if len(reached) == len(sessions) else NOT_REACHED
        if not reached and kind is not Kind.NODE:
            return code
        print_list(kind, found, shape, settings)
        return code


def _is_reached(session: Session, kind: Kind, *, alone: bool) -> bool:
    """Whether any node of a cluster is there; tells of those that are not.

    Raises:
        UserError: None is, and without it there is nothing to list.
    """
    if kind is not Kind.NODE:
        try:
            session.need_any()
        except UserError as error:
            if alone:
                raise
            say(str(error))
            return False
    return session.warn_of_unreachable() < len(session.view.nodes)


def seen(view: ClusterView, items: Iterable[Any], shape: Shape) -> list[Seen]:
    """Those of a cluster's objects that are wanted."""
    return [(view, item) for item in (shape.where.select(view, items) if shape.where else items)]


def print_list(kind: Kind, found: Iterable[Seen], shape: Shape, settings: Settings) -> None:
    """Rows in their order and groups. Where no order is given, in this one."""
    rows = in_order(found, kind, shape.order)
    if shape.group is not None:
        down = next((down for field, down in shape.order if field is shape.group), False)
        _print_groups(kind, in_groups(shape.group, rows, down=down), shape.fields, shape.group, settings)
    elif settings.as_json:
        print_json(objects_of(rows, shape.fields))
    else:
        print_rows(rows, shape.fields)


def column_of(spec: FieldSpec) -> Column:
    """A field as a column of a table."""
    title = f"{spec.title} ({spec.unit})" if spec.unit else spec.title
    return Column(title=title, right=spec.kind.is_number, shrinks=spec.name in SHRINKS)


def objects_of(rows: Iterable[Seen], columns: Sequence[FieldSpec]) -> list[dict[str, Any]]:
    """A list as JSON has it."""
    return [{field.name: field.as_json(*row) for field in columns} for row in rows]


def print_rows(rows: Iterable[Seen], columns: Sequence[FieldSpec]) -> None:
    """A list as a table."""
    print_table([column_of(f) for f in columns], [[f.cell(*row) for f in columns] for row in rows])


def _print_groups(
    kind: Kind,
    groups: Sequence[tuple[GroupKey, list[Seen]]],
    columns: Sequence[FieldSpec],
    group: FieldSpec,
    settings: Settings,
) -> None:
    """A heading with totals and a table for each group; as JSON their rows inside of them."""
    found: list[dict[str, Any]] = []
    for key, rows in groups:
        figures = figures_of(kind, partial(_known, kind, rows))
        if settings.as_json:
            head = group_json(group, key, len(rows), figures)
            found.append({**head, "rows": objects_of(rows, columns)})
            continue
        print_heading(printable(f"{group_title(group, key)} ({told(kind, len(rows), figures)})"))
        print_rows(rows, columns)
    if settings.as_json:
        print_json(found)


def _known(kind: Kind, rows: list[Seen], name: str) -> list[float]:
    return known_values(FIELDS[kind][name], rows)


def in_order(rows: Iterable[Seen], kind: Kind, sort: Sequence[tuple[FieldSpec, bool]]) -> list[Seen]:
    """By the fields, then by name or, without names, as they come; what is not known is last either way."""
    name = FIELDS[kind].get("name")
    found = sorted(rows, key=lambda row: (name.sort_key(*row), row[1].id)) if name else list(rows)
    for spec, down in reversed(sort):
        known: list[Seen] = []
        unknown: list[Seen] = []
        for row in found:
            value = spec.value(*row)
            (unknown if value is None or isinstance(value, Unavailable) else known).append(row)
        known.sort(key=lambda row, spec=spec: spec.sort_key(*row), reverse=down)  # type: ignore[misc]
        found = known + unknown
    return found


# --- one cluster -----------------------------------------------------------------------------------


async def show_cluster(app: App, settings: Settings) -> int:
    """``cluster show``: where it stands, in one look."""
    async with opened(app, settings, reading=True, enough=_always) as session:
        view, config = session.view, session.config
        missing = session.warn_of_unreachable()
        await session.runtime.resources.read_all()  # a full pool is a problem
        by_status = Counter(vm.status for vm in view.vms.values())
        problems = sorted(view.problems.values(), key=lambda problem: (problem.since_s, problem.key))
        fields = FIELDS[Kind.PROBLEM]
        up = [node for node in view.nodes.values() if node.is_up]
        counts = {status.value: by_status[status] for status in VmStatus if by_status[status]}
        memory_mib = sum(node.facts.memory_mib for node in up if node.facts)
        if settings.as_json:
            print_json(
                [
                    {
                        "name": config.name,
                        "tier": config.tier.value,
                        "read_only": config.read_only,
                        "file": str(session.source) if session.source else None,
                        "nodes": len(view.nodes),
                        "nodes_up": len(up),
                        "cpus": sum(node.facts.cpus for node in up if node.facts),
                        "memory_mib": memory_mib,
                        "vms": len(view.vms),
                        "vms_by_status": counts,
                        "problems": [
                            {f.name: f.as_json(view, problem) for f in fields.values()}
                            for problem in problems
                        ],
                    }
                ]
            )
        else:
            statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
            states = Counter(node.status for node in view.nodes.values())
            nodes = ", ".join(f"{states[status]} {status.value}" for status in NodeStatus if states[status])
            pairs = [
                ("Name", config.name),
                ("Tier", _TIERS.get(config.tier.value, config.tier.value)),
                ("Nodes", f"{len(view.nodes)}: {nodes}"),
                ("VMs", f"{len(view.vms)}: {statuses}" if statuses else "0"),
                ("Memory", f"{mib_text(memory_mib)} on the nodes that are up"),
            ]
            if session.source:
                pairs.append(("File", str(session.source)))
            if config.read_only:
                pairs.append(("Access", "read-only"))
            print_pairs(pairs)
            if problems:
                print_heading(f"{count_text(len(problems), 'problem')}")
                wanted = [fields[name] for name in ("since", "subject", "reason", "remedy")]
                print_table(
                    [column_of(f) for f in wanted],
                    [[f.cell(view, problem) for f in wanted] for problem in problems],
                )
        return NOT_REACHED if missing == len(view.nodes) else 0


async def dump_cluster(app: App, settings: Settings, output: Path | None) -> int:
    """``cluster dump``."""
    async with opened(app, settings, reading=True) as session:
        missing = session.warn_of_unreachable()
        session.need_any()
        await session.runtime.resources.read_all()
        await session.sample()
        data = msgspec.json.encode(dump_of(session.view, session.runtime.clock.now_s())) + b"\n"
    if output is None or str(output) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        try:
            output.write_bytes(data)  # noqa: ASYNC240 - nothing else goes on here
        except OSError as error:
            raise UserError(f"{output}: cannot be written: {error.strerror}", exit_code=1) from error
    return NOT_REACHED if missing else 0


_TIERS = {
    "demo": "demo: simulated, nothing real is touched",
    "managed": "managed: no automatic failover",
    "high availability": "high availability: Pacemaker restarts VMs of a lost node",
    "dump": "a dump: what the hosts said when it was made",
}


# --- one VM ----------------------------------------------------------------------------------------


async def show_vm(app: App, settings: Settings, name: str) -> int:
    """``vm show``: everything that is known of one VM."""
    async with opened(app, settings, reading=True, enough=lambda s: s.is_certain_of([name])) as session:
        session.need_any()
        session.warn_of_unreachable()
        await session.read_room()
        vm = session.view.vms[session.find([name])[0]]
        story = await _story(session, vm)
        if settings.as_json:
            print_json([_vm_json(session, vm, story)])
        else:
            _print_vm(session, vm, story)
        return 0


async def _story(session: Session, vm: Vm) -> tuple[LogEntry, ...]:
    """As who works on it tells it; else what was seen here."""
    try:
        return await session.runtime.engine.story(vm.id)
    except OSError:
        return session.view.story(vm.id)


def _vm_json(session: Session, vm: Vm, story: Sequence[LogEntry]) -> dict[str, Any]:
    view, config = session.view, vm.config
    shown: dict[str, Any] = {f.name: f.as_json(view, vm) for f in FIELDS[Kind.VM].values()}
    shown["notes"] = [note.text for note in vm.notes]
    shown["cannot_be_moved_because"] = [reason.text for reason in planner.obstacles(view.config, vm)]
    shown["sightings"] = [
        {"node": s.node, "name": s.name, "status": s.status.value, "cause": s.cause.value}
        for s in sorted(view.sightings(vm.id).values(), key=lambda s: s.node)
    ]
    shown["definition"] = config and {
        "title": config.title,
        "machine": config.machine,
        "arch": config.arch,
        "cpu_mode": config.cpu_mode,
        "autostart": config.autostart,
        "persistent": config.persistent,
        "snapshots": config.snapshots,
        "graphics": list(config.graphics),
        "host_devices": list(config.host_devices),
        "disks": [asdict(disk) for disk in config.disks],
        "interfaces": [asdict(interface) for interface in config.interfaces],
    }
    shown["story"] = [{"at": iso_text(line.at_s), "text": line.text} for line in story]
    return shown


def _print_vm(session: Session, vm: Vm, story: Sequence[LogEntry]) -> None:
    view, config = session.view, vm.config
    own_parts = ("information", "disks", "networks")
    pairs = []
    for spec in FIELDS[Kind.VM].values():
        if spec.sample or spec is CLUSTER or spec.name in own_parts:
            continue
        unit = f" {spec.unit}" if spec.unit and spec.kind is not FieldKind.TEXT else ""
        cell = spec.cell(view, vm)
        pairs.append((spec.title, f"{cell}{unit}" if cell and cell[0].isdigit() else cell))
    print_pairs(pair for pair in pairs if pair[1])
    _print_part("Information", [note.text for note in vm.notes])
    _print_part("Cannot be moved live", [r.text for r in planner.obstacles(view.config, vm)])
    if config is not None and config.disks:
        print_heading("Disks")
        titles = ("Target", "Device", "Source", "Kind", "Format", "Cache", "Size")
        print_table(
            [Column(title=title, right=title == "Size") for title in titles],
            [
                [
                    disk.target,
                    disk.device + (", read-only" if disk.read_only else ""),
                    disk.source or "empty",
                    disk.kind,
                    disk.format,
                    disk.cache or "default",
                    "" if disk.capacity_bytes is None else size_text(disk.capacity_bytes),
                ]
                for disk in config.disks
            ],
        )
    if config is not None and config.interfaces:
        print_heading("Networks")
        print_table(
            [Column(title=title) for title in ("MAC", "Kind", "Source", "Model")],
            [[each.mac, each.kind, each.source, each.model] for each in config.interfaces],
        )
    sightings = sorted(view.sightings(vm.id).values(), key=lambda s: s.node)
    if len(sightings) > 1:
        print_heading("Defined on")
        print_table(
            [Column(title=title) for title in ("Node", "Name", "Status", "Cause")],
            [[s.node, s.name, s.status.value, s.cause.value] for s in sightings],
        )
    _print_part("Story", [f"{time_text(line.at_s)}  {line.text}" for line in story])


def _print_part(title: str, lines: Sequence[str]) -> None:
    if lines:
        print_heading(title)
        print_pairs((line, "") for line in lines)

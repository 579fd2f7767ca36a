"""What ``queue list`` and ``queue show`` print: the work that waits and runs, and how the queue stands."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import click

from manager.cli.app import App
from manager.cli.following import Follower, lines, row_json
from manager.cli.listing import column_of, print_list, seen
from manager.cli.lists import Shape
from manager.cli.options import Settings
from manager.cli.output import (
    pairs_of_fields,
    print_heading,
    print_json,
    print_pairs,
    print_table,
    printable,
    say,
    table,
)
from manager.cli.progress import REDRAW_S
from manager.cli.session import NOT_REACHED, Session, command_line, opened
from manager.core.changes import LogEntry
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.events import OperationsReported
from manager.core.ids import Kind, OperationId
from manager.core.migration.limits import LIMITS, cap_text, limit_of
from manager.core.migration.queue import is_heavy
from manager.core.migration.summary import others_jobs, queue_order, summary
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.fields import FIELDS
from manager.core.query.operation_fields import operation_title
from manager.core.query.spec import FieldSpec
from manager.core.reasons import ReasonCode, because
from manager.core.units import count_text, duration_text, iso_text, time_text
from manager.core.work import CONTINUE_AFTER_S

COLUMNS = ("title", "way", "phase", "percent", "rate", "remaining", "eta", "reason")
"""What ``queue list`` shows unasked; JSON has all fields."""

HISTORY_COLUMNS = ("title", "way", "state", "elapsed", "ended", "author", "reason")

KEPT = 20_000
"""As many ended operations as a journal keeps."""

_LIVE = "\x1b[H\x1b[J"  # to the upper left corner, and clear below


# --- what there is ---------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Queue:
    """The work of one cluster as this process knows it: live, or as the last owner left it."""

    session: Session
    left: Mapping[OperationId, Operation] = field(default_factory=dict)  # in a journal that nobody works on
    ended: tuple[Operation, ...] = ()  # of that journal, newest first

    @property
    def view(self) -> ClusterView:
        """The live state."""
        return self.session.view

    def rows(self) -> list[Operation]:
        """What waits and runs, and what others do, in the order of the queue."""
        known = self.left or self.view.operations
        ours = [o for o in known.values() if not o.is_over and is_heavy(o)]
        held = {o.vm for o in ours}  # of what was left, the move that goes on by itself is ours
        others = [o for o in others_jobs(self.view).values() if o.vm not in held or not self.left]
        return sorted([*ours, *others], key=queue_order)

    def find(self, key: str) -> list[Operation]:
        """What is meant by an id, or by the name or UUID of a VM that something is done to.

        Several only where one name is that of several VMs.
        """
        known = {**self.left, **self.view.operations}
        exact = known.get(OperationId(key)) or next((o for o in self.ended if o.id == key), None)
        if exact is not None and exact.kind is not OperationKind.CONTROL:
            return [exact]
        under_way = [o for o in known.values() if not o.is_over and o.vm is not None]
        return [o for o in under_way if key in (o.vm_name, o.vm) or key.lower() == o.vm]

    def children(self, batch: OperationId) -> list[Operation]:
        """The operations of one request, in their order."""
        known = {o.id: o for o in self.ended} | {**self.left, **self.view.operations}
        return sorted((o for o in known.values() if o.parent == batch), key=lambda o: o.order)

    async def story(self, key: OperationId) -> tuple[LogEntry, ...]:
        """The story of an operation; nothing if nobody can tell it any more."""
        try:
            return await self.session.runtime.engine.story(key)
        except OSError:
            return ()


async def read_queue(session: Session, *, ended: int = 0) -> Queue:
    """The queue of a cluster that is open only to be looked at.

    Args:
        session: The cluster.
        ended: How many ended operations are wanted too.

    Raises:
        UserError: A journal that nobody works on cannot be read.
    """
    engine = session.runtime.engine
    if engine.is_owner or engine.owner is not None:
        try:
            history = await engine.history(ended) if ended else ()
        except OSError as error:
            raise UserError(f"The history cannot be read: {error}.", exit_code=1) from error
        return Queue(session=session, ended=history)
    try:
        past = await session.adapters.past(session.config, ended)
    except OSError as error:
        text = f"The journal of cluster {session.config.name} cannot be read: {error}."
        raise UserError(text, exit_code=1) from error
    if past is None:
        return Queue(session=session)
    orders = tuple(o for o in past.left if o.kind is OperationKind.CONTROL)
    if orders:  # they hold, whoever works on it next
        session.runtime.dispatch(OperationsReported(at_s=session.runtime.clock.now_s(), operations=orders))
    left = {o.id: o for o in past.left if o not in orders}
    return Queue(session=session, left=left, ended=past.ended)


def must_find(queue: Queue, key: str, settings: Settings) -> Operation:
    """The one operation or batch that is meant.

    Raises:
        UserError: None is, or several are.
    """
    found = queue.find(key)
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(o.id for o in found)
        raise UserError(f"{key} is ambiguous: {ids}. Give the ID. Nothing was done.")
    shows = command_line(settings, "queue", "list")
    raise UserError(
        f"There is nothing {key} in the queue of {queue.view.id}; see: {shows}. Nothing was done."
    )


# --- how it stands ---------------------------------------------------------------------------------


def state_json(queue: Queue) -> dict[str, Any]:
    """The queue as a whole, for JSON."""
    view, engine = queue.view, queue.session.runtime.engine
    orders, owner = view.orders, None if engine.is_owner else engine.owner
    states = _counts(queue)
    return {
        "cluster": view.id,
        "paused_by": orders.paused_by or None,
        "paused_since": iso_text(orders.paused_since_s) if orders.paused_since_s else None,
        "paused_batches": list(orders.paused_batches),
        "resting": [{"node": node, "failures": count} for node, count in orders.resting],
        "limits": {name: limit_of(view.config, name) for name in LIMITS},
        "running": states[True],
        "waiting": states[False],
        "owner": {"pid": owner.pid, "engine": owner.stays, "file": owner.file or None} if owner else None,
    }


def _counts(queue: Queue) -> Counter[bool]:
    """How much runs (True) and waits (False) of our own."""
    known = queue.left or queue.view.operations
    return Counter(
        o.state is not OperationState.WAITING for o in known.values() if not o.is_over and is_heavy(o)
    )


def notable(queue: Queue, settings: Settings) -> list[str]:
    """What keeps the queue from going on, with the command that ends it."""
    view = queue.view
    orders, now_s = view.orders, queue.session.runtime.clock.now_s()
    told = []
    if orders.paused_by:
        since_s = orders.paused_since_s or now_s
        told.append(
            f"Paused by {orders.paused_by} at {time_text(since_s)} ({duration_text(now_s - since_s)} ago): "
            f"nothing new starts. {command_line(settings, 'queue', 'resume')}"
        )
    for batch, reason in orders.paused_batches.items():
        operation = view.operations.get(batch)
        title = f" ({operation_title(operation)})" if operation else ""
        why = reason.text.removeprefix("its batch ")
        told.append(f"Batch {batch}{title}: {why}. {command_line(settings, 'queue', 'resume', str(batch))}")
    for node, count in orders.resting:
        reason = because(ReasonCode.TARGET_RESTS, node=node, count=count)
        told.append(f"{reason.text}. {command_line(settings, 'queue', 'resume', '--node', str(node))}")
    if any(not o.is_over for o in queue.left.values()):
        told.append(
            f"Nobody works on it: this was left by a program that ended. The next one within "
            f"{duration_text(CONTINUE_AFTER_S)} goes on with what waits; any later one asks first. "
            f"{command_line(settings, 'engine')}"
        )
    return told


def heading(queue: Queue) -> str:
    """Counts, limits and who works on it, in one line."""
    view, states = queue.view, _counts(queue)
    limits = view.config.migration
    owner = queue.session.runtime.engine.owner
    parts = [
        f"{states[True]} running, {states[False]} waiting",
        f"at once per node {limits.outgoing_per_node} out, {limits.incoming_per_node} in"
        + (f", {limits.cluster_limit} in the cluster" if limits.cluster_limit else "")
        + (f", {cap}" if (cap := cap_text(limits)) else ""),
    ]
    if view.orders.limits:
        parts.append(
            "changed by hand: " + ", ".join(f"{name} = {value}" for name, value in view.orders.limits)
        )
    if owner is not None and not queue.session.runtime.engine.is_owner:
        parts.append(f"{owner} works on it")
    return f"queue of {view.id}: {'; '.join(parts)}."


# --- queue list ------------------------------------------------------------------------------------


async def show_list(app: App, settings: Settings, shape: Shape, *, history: int | None) -> int:
    """``queue list``.

    Args:
        app: Where the adapters come from.
        settings: Which cluster, how long, as what.
        shape: What is shown, and how.
        history: None: what waits and runs; else the newest so many that ended.
    """
    async with opened(app, settings, reading=True, definitions=False) as session:
        missing = session.warn_of_unreachable()
        queue = await read_queue(session, ended=_enough(history))
        rows = queue.rows() if history is None else [o for o in queue.ended if not o.is_parent][:history]
        told = notable(queue, settings) if history is None else []
        if not settings.as_json and history is None:
            told = [heading(queue), *told]
        if told:
            say("\n".join(told))
        print_list(Kind.OPERATION, seen(session.view, rows, shape), shape, settings)
        return NOT_REACHED if missing == len(session.view.nodes) else 0


def _enough(history: int | None) -> int:
    """Batches end too: so many must be asked for that `history` others are among them."""
    return 0 if history is None else min(2 * history + 1, KEPT)


async def follow(app: App, settings: Settings, columns: Sequence[FieldSpec]) -> int:
    """``queue list --follow``: until interrupted, or until nobody reads it any more."""
    async with opened(app, settings, reading=True, definitions=False) as session:
        session.warn_of_unreachable()
        queue = await read_queue(session)
        told = notable(queue, settings)
        if told:
            say("\n".join(told))
        if not settings.as_json and sys.stdout.isatty():
            await _redraw(queue, settings, columns)
        with lines() as writer:
            follower = Follower(
                session.runtime,
                lambda o: is_heavy(o),
                writer.put,
                as_json=settings.as_json,
                others=True,
            )
            follower.begin()
            try:
                await writer.broken()
            finally:
                follower.end()
        return 0


async def _redraw(queue: Queue, settings: Settings, columns: Sequence[FieldSpec]) -> None:
    """Show the list in place, a few times a second, until cancelled."""
    before = ""
    with _whole_screen() as (width, height):
        while True:
            now = replace(queue, left={} if queue.session.runtime.engine.owner else queue.left)
            rows = now.rows()
            shown = [[f.cell(now.view, row) for f in columns] for row in rows]
            titles = [replace(column_of(f), shrinks=f.name == "reason") for f in columns]
            text = table(titles, shown, width=width())
            told = [heading(now), *notable(now, settings)]
            body = text.splitlines()[: max(2, height() - len(told) - 2)]
            more = len(rows) + 1 - len(body)
            if more > 0:
                body = [*body[:-1], f"and {count_text(more + 1, 'row')} more"]
            screen = "\n".join([*(printable(line) for line in told), "", *body])
            if screen != before:
                before = screen
                click.echo(_LIVE + screen, nl=False)
            await asyncio.sleep(REDRAW_S)


@contextmanager
def _whole_screen() -> Iterator[tuple[Any, Any]]:
    """The terminal's other screen; what stood there before comes back."""
    from shutil import get_terminal_size

    click.echo("\x1b[?1049h\x1b[?25l", nl=False)
    try:
        yield lambda: get_terminal_size().columns, lambda: get_terminal_size().lines
    finally:
        click.echo("\x1b[?25h\x1b[?1049l", nl=False)


# --- queue show ------------------------------------------------------------------------------------


async def show_state(app: App, settings: Settings) -> int:
    """``queue show`` without an id."""
    async with opened(app, settings, reading=True, nodes=False) as session:
        print_state(await read_queue(session), settings)
        return 0


def print_state(queue: Queue, settings: Settings) -> None:
    """The queue as a whole."""
    shown = state_json(queue)
    if settings.as_json:
        print_json([shown])
        return
    owner = queue.session.runtime.engine.owner
    works = str(owner) if owner is not None and not queue.session.runtime.engine.is_owner else "nobody"
    print_pairs(
        [
            ("Cluster", queue.view.id),
            ("Running", str(shown["running"])),
            ("Waiting", str(shown["waiting"])),
            ("Limits", ", ".join(f"{name} = {value}" for name, value in shown["limits"].items())),
            ("Works on it", works),
        ]
    )
    told = notable(queue, settings)
    if told:
        click.echo()
        print_pairs((line, "") for line in told)


async def show_one(app: App, settings: Settings, key: str) -> int:
    """``queue show ID``."""
    async with opened(app, settings, reading=True, definitions=False, enough=lambda _: True) as session:
        queue = await read_queue(session)
        if not queue.find(key):
            queue = await read_queue(session, ended=KEPT)
        operation = must_find(queue, key, settings)
        story = await queue.story(operation.id)
        children = queue.children(operation.id) if operation.is_parent else []
        if settings.as_json:
            shown = row_json(session.view, operation)
            if children:
                shown["operations"] = [row_json(session.view, child) for child in children]
            shown["remedy"] = _remedy(session.view, operation) or None
            shown["story"] = [{"at": iso_text(line.at_s), "text": line.text} for line in story]
            print_json([shown])
        else:
            _print_one(queue, operation, children, story)
        return 0


def _remedy(view: ClusterView, operation: Operation) -> str:
    """What an administrator can do about it now."""
    figures = view.progress.get(operation.id)
    reason = operation.reason or (figures.watch.next if figures else None)
    return reason.remedy if reason else ""


def _print_one(
    queue: Queue, operation: Operation, children: Sequence[Operation], story: Iterable[LogEntry]
) -> None:
    view = queue.view
    fields = FIELDS[Kind.OPERATION]
    left_out = {"place", "vm", "from", "to"} if not children else {*fields} - {"id", "title", "author"}
    print_pairs(
        pairs_of_fields(
            (f.title, f.unit, f.cell(view, operation)) for f in fields.values() if f.name not in left_out
        )
    )
    remedy = _remedy(view, operation)
    if remedy and not operation.state.is_over:
        print_heading("What you can do")
        print_pairs([(remedy, "")])
    if children:
        print_heading(summary(view, children).text)
        wanted = [fields[name] for name in ("id", "vm", "way", "phase", "percent", "reason")]
        print_table(
            [column_of(f) for f in wanted], [[f.cell(view, child) for f in wanted] for child in children]
        )
    told = [f"{time_text(line.at_s)}  {line.text}" for line in story]
    if told:
        print_heading("Story")
        print_pairs((line, "") for line in told)

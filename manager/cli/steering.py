"""Commands that steer the queue and moves under way. What they ask for is done by the owner of operations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manager.cli import acting
from manager.cli.acting import Outcome, Result, show
from manager.cli.app import App
from manager.cli.following import row_json
from manager.cli.listing import column_of
from manager.cli.options import Settings
from manager.cli.output import Column, print_json, print_table, say
from manager.cli.queue_views import Queue, must_find, print_state, read_queue
from manager.cli.session import Session, command_line, opened
from manager.cli.targets import Targets
from manager.cli.terminal import is_terminal
from manager.core.actions import CANCEL, Denied
from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.events import QueueVerb
from manager.core.ids import Kind, NodeId, OperationId, VmId
from manager.core.migration import convergence
from manager.core.migration.limits import LIMITS, limit_of
from manager.core.migration.moves import MoveStep
from manager.core.migration.progress import MovePhase
from manager.core.migration.queue import is_heavy, order
from manager.core.model import ClusterConfig
from manager.core.operations import Operation, OperationState
from manager.core.query.fields import FIELDS
from manager.core.query.suggest import did_you_mean
from manager.core.reasons import ReasonCode, because
from manager.core.units import count_text, duration_text, pause_text
from manager.core.work import CONTINUE_AFTER_S

DONE_S = 5.0
"""How long an owner may take to say that it did what it was asked."""

REFUSAL_S = 2.0
"""How long a host may take to refuse a change of a running move; it answers nothing if it makes it."""

KEPT = 20_000
_WAITS = frozenset({OperationState.WAITING, OperationState.CHECKING})


async def _steer(session: Session, verb: QueueVerb, is_done: Callable[[], bool], **what: Any) -> None:
    """Ask for it and see it done.

    Raises:
        UserError: It was not done, or nobody said so; or it was not stored, so that it will not last.
    """
    runtime, done = session.runtime, asyncio.Event()

    def look(_: ChangeSet | None = None) -> None:
        if is_done():
            done.set()

    unsubscribe = runtime.subscribe(look)
    try:
        runtime.steer(verb, **what)
        look()
        await asyncio.wait_for(done.wait(), DONE_S)
    except TimeoutError as error:
        text = f"{runtime.engine.owner} did not say within {DONE_S:g} s that it did it"
        raise UserError(f"{text}. See how it stands with “queue show”.", exit_code=1) from error
    except OSError as error:
        raise UserError(f"{error}. Nothing was done.", exit_code=1) from error
    finally:
        unsubscribe()
    if not await runtime.stored():
        raise UserError("It was not written to the journal, so it does not last.", exit_code=1)


# --- pause, resume, limits, move -------------------------------------------------------------------


async def pause(app: App, settings: Settings, key: str | None) -> int:
    """``queue pause [BATCH]``."""
    async with opened(app, settings, reading=False, nodes=False) as session:
        queue = Queue(session=session)
        if key is None:
            await _steer(session, QueueVerb.PAUSE, lambda: bool(session.view.orders.paused_by))
        else:
            batch = _batch_of(must_find(queue, key, settings))

            def is_over() -> bool:
                found = session.view.operations.get(batch)
                return found is None or found.is_over

            if not is_over():
                await _steer(
                    session,
                    QueueVerb.PAUSE,
                    lambda: batch in session.view.orders.paused_batches or is_over(),
                    operations=(batch,),
                )
            if is_over():
                say(f"Batch {batch} is over; nothing was changed.")
        print_state(queue, settings)
        return 0


async def resume(app: App, settings: Settings, key: str | None, node: str | None) -> int:
    """``queue resume [BATCH | --node NODE]``."""

    def check(config: ClusterConfig) -> None:
        _check_node(config, node)

    async with opened(app, settings, reading=False, nodes=False, check=check) as session:
        queue, orders = Queue(session=session), session.view.orders
        if node is not None:
            if NodeId(node) not in dict(orders.resting):
                say(f"{node} was not kept from moves; nothing was changed.")
            await _steer(
                session,
                QueueVerb.RESUME,
                lambda: NodeId(node) not in dict(session.view.orders.resting),
                node=NodeId(node),
            )
        elif key is not None:
            batch = OperationId(key)
            if batch not in orders.paused_batches:  # of what nobody knows any more an order may be left
                batch = _batch_of(must_find(queue, key, settings))
            if batch not in orders.paused_batches:
                say(f"Batch {batch} was not paused; nothing was changed.")
            await _steer(
                session,
                QueueVerb.RESUME,
                lambda: batch not in session.view.orders.paused_batches,
                operations=(batch,),
            )
            if session.view.orders.paused_by:
                say(f"The whole queue is paused too: {command_line(settings, 'queue', 'resume')}")
        else:
            await _steer(session, QueueVerb.RESUME, lambda: not session.view.orders.paused_by)
        _say_who_goes_on(session, settings)
        print_state(queue, settings)
        return 0


def _batch_of(operation: Operation) -> OperationId:
    return operation.parent or operation.id


def _check_node(config: ClusterConfig, node: str | None) -> None:
    names = [str(each.name) for each in config.nodes]
    if node is not None and node not in names:
        raise UserError(
            f"There is no node {node} in {config.name}.{did_you_mean(node, names)} Nothing was done."
        )


def _say_who_goes_on(session: Session, settings: Settings) -> None:
    """What waits, if nobody is there to begin it when we are gone."""
    waiting = [o for o in session.view.operations.values() if o.state in _WAITS and is_heavy(o)]
    if waiting and session.runtime.engine.is_owner and session.outlives_us:
        say(
            f"{count_text(len(waiting), 'VM')} wait, and nobody works on them now. The next Muster within "
            f"{duration_text(CONTINUE_AFTER_S)} goes on with them: {command_line(settings, 'engine')}"
        )


async def limits(app: App, settings: Settings, values: Mapping[str, int]) -> int:
    """``queue limits [NAME=VALUE...]``."""
    async with opened(app, settings, reading=not values, nodes=False) as session:
        if values:
            await _steer(
                session,
                QueueVerb.LIMITS,
                lambda: all(limit_of(session.view.config, name) == value for name, value in values.items()),
                limits=tuple(values.items()),
            )
        else:
            await read_queue(session)
        rows = [
            {
                "name": name,
                "value": limit_of(session.view.config, name),
                "file": limit_of(session.config, name),
                "least": least,
                "most": most,
            }
            for name, (least, most) in LIMITS.items()
        ]
        if settings.as_json:
            print_json(rows)
        else:
            columns = [
                Column(title="Limit"),
                *(Column(title=title, right=True) for title in ("Now", "Cluster file", "Least", "Most")),
            ]
            print_table(columns, [[str(cell) for cell in row.values()] for row in rows])
        return 0


async def move(app: App, settings: Settings, keys: Sequence[str], before: str | None) -> int:
    """``queue move ID... --before ID``; `before` None: ``--first``."""
    async with opened(app, settings, reading=False, nodes=False) as session:
        queue, view = Queue(session=session), session.view
        moved = list(dict.fromkeys(must_find(queue, key, settings).id for key in keys))
        for key in moved:
            _check_waits(view.operations[key])
        by_priority: dict[int, list[OperationId]] = {}
        for key in moved:
            by_priority.setdefault(view.operations[key].priority, []).append(key)
        place = must_find(queue, before, settings) if before is not None else None
        if place is not None:
            _check_waits(place)
            if set(by_priority) != {place.priority} or place.id in moved:
                raise UserError(
                    f"{place.vm_name} has another priority, or is one of those to be moved: a place is one "
                    "among others of the same priority. Nothing was done."
                )
        for priority, ids in by_priority.items():
            first = place.id if place is not None else _first_of(view, priority, ids)
            if first is None:
                continue  # it has no others

            def in_place(first: OperationId = first, ids: Sequence[OperationId] = ids) -> bool:
                known = view.operations
                return all(order(known[o]) < order(known[first]) for o in ids)

            await _steer(session, QueueVerb.REORDER, in_place, operations=tuple(ids), before=first)
        rows = sorted((view.operations[o] for o in moved), key=order)
        if settings.as_json:
            print_json([row_json(view, row) for row in rows])
        else:
            fields = [FIELDS[Kind.OPERATION][name] for name in ("place", "title", "way", "reason")]
            print_table([column_of(f) for f in fields], [[f.cell(view, row) for f in fields] for row in rows])
        return 0


def _check_waits(operation: Operation) -> None:
    if operation.is_parent or not is_heavy(operation):
        raise UserError(f"{operation.id} has no place in the queue. Nothing was done.")
    if operation.state is not OperationState.WAITING:
        state = operation.state.value.lower()
        raise UserError(f"{operation.vm_name} does not wait ({state}). Nothing was done.")


def _first_of(view: ClusterView, priority: int, but: Sequence[OperationId]) -> OperationId | None:
    waiting = [
        o
        for o in view.operations.values()
        if o.state is OperationState.WAITING and is_heavy(o) and o.priority == priority and o.id not in but
    ]
    return min(waiting, key=order).id if waiting else None


# --- cancel ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is to be cancelled: some, one request, or everything."""

    ids: tuple[str, ...] = ()
    batch: str | None = None
    everything: bool = False


async def cancel(
    app: App, settings: Settings, chosen: Chosen, *, wait_s: float | None, no_wait: bool, yes: bool
) -> int:
    """``queue cancel``: what waits at once, what runs as soon as its node was read; one result per VM."""
    async with opened(app, settings, reading=False, at_once=True, definitions=False) as session:
        view, runtime = session.view, session.runtime
        wanted = await _chosen(session, settings, chosen)
        under_way = [o for o in wanted if not o.is_over]
        title = f"Cancel the work on {count_text(len(under_way), 'VM')} in {view.id}?"
        if chosen.everything and under_way and not yes and is_terminal():
            say(f"{title} What waits is dropped; a VM that is being moved goes on where it was.")
            if not await session.terminal.confirm(title):
                say("Nothing was done.")
                return 1
        results = {o.id: _nothing(o) for o in wanted if o.is_over}
        _send_cancel(session, [o.id for o in under_way if view.operations[o.id].state in _WAITS])
        running = [o for o in under_way if not view.operations[o.id].is_over]
        if running:
            await session.read(definitions=False, enough=lambda _: True)
        for operation in running:
            refused = _refused(view, view.operations[operation.id])
            if refused is not None:
                results[operation.id] = refused
        asked = [o.id for o in running if o.id not in results]
        _send_cancel(session, [o for o in asked if not view.operations[o].is_over])
        patience_s = acting.GRACE_S if no_wait else wait_s
        try:
            async with asyncio.timeout(patience_s):
                await runtime.ended(tuple(o.id for o in under_way if o.id not in results))
        except TimeoutError:
            pass
        for operation in under_way:
            if operation.id not in results:
                now = view.operations.get(operation.id, operation)
                results[operation.id] = _cancelled(now, wait_s, no_wait=no_wait)
        return show([results[o.id] for o in wanted], settings)


async def _chosen(session: Session, settings: Settings, chosen: Chosen) -> list[Operation]:
    queue, known = Queue(session=session), session.view.operations
    if chosen.everything:
        return sorted((o for o in known.values() if not o.is_over and is_heavy(o)), key=order)
    if chosen.batch is not None:
        batch = _batch_of(must_find(queue, chosen.batch, settings))
        return [o for o in queue.children(batch) if not o.is_over]
    if any(not queue.find(key) for key in chosen.ids):  # perhaps it is over
        try:
            queue.ended = await session.runtime.engine.history(KEPT)
        except OSError as error:
            raise UserError(f"The history cannot be read: {error}. Nothing was done.", exit_code=1) from error
    found: dict[OperationId, Operation] = {}
    for key in chosen.ids:
        operation = must_find(queue, key, settings)
        if operation.is_parent:
            found |= {o.id: o for o in queue.children(operation.id)}
        else:
            found[operation.id] = operation
    return list(found.values())


def _send_cancel(session: Session, ids: Sequence[OperationId]) -> None:
    if not ids:
        return
    try:
        session.runtime.cancel(tuple(ids))
    except OSError as error:
        raise UserError(f"{error}. Nothing was done.", exit_code=1) from error


def _result(operation: Operation, outcome: Outcome, reason: str) -> Result:
    return Result(vm=operation.vm or VmId(""), name=operation.vm_name, outcome=outcome, reason=reason)


def _nothing(operation: Operation) -> Result:
    return _result(operation, Outcome.DONE, because(ReasonCode.NOTHING_TO_CANCEL).text)


def _refused(view: ClusterView, operation: Operation) -> Result | None:
    """Why something that runs cannot be cancelled now."""
    if operation.is_over or operation.vm is None or view.claims.get(operation.vm) != operation.id:
        return None
    verdict = CANCEL.verdict(view, operation.vm)
    if isinstance(verdict, Denied) and operation.state is not OperationState.CANCELLING:
        return _result(operation, Outcome.SKIPPED, verdict.reason.text)
    return None


def _cancelled(operation: Operation, wait_s: float | None, *, no_wait: bool) -> Result:
    if operation.state is OperationState.CANCELLED:
        return _result(operation, Outcome.DONE, operation.reason.text if operation.reason else "")
    if operation.is_over:
        how = operation.reason.text if operation.reason else operation.state.value.lower()
        return _result(operation, Outcome.FAILED, f"it ended first: {how}")
    if no_wait:
        return _result(operation, Outcome.ACCEPTED, because(ReasonCode.ACCEPTED).text)
    reason = because(ReasonCode.STILL_RUNNING_WAIT_OVER, seconds=f"{wait_s or 0.0:g}")
    return _result(operation, Outcome.RUNNING, reason.text)


# --- tune ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How running moves are to be changed."""

    pause_ms: int | None = None
    cap_mib_s: int | None = None
    post_copy: bool = False

    @property
    def text(self) -> str:
        """What was asked of the host."""
        parts = []
        if self.pause_ms is not None:
            parts.append(f"a pause of {pause_text(self.pause_ms)} is permitted")
        if self.cap_mib_s is not None:
            parts.append(f"capped at {self.cap_mib_s} MiB/s" if self.cap_mib_s else "no cap")
        if self.post_copy:
            parts.append("starts the second half")
        return ", ".join(parts)


async def tune(app: App, settings: Settings, targets: Targets, tuning: Tuning, *, yes: bool) -> int:
    """``vm tune``: one result per VM."""
    async with opened(
        app, settings, reading=True, definitions=targets.definitions, enough=targets.is_certain
    ) as session:
        session.need_any()
        found = await targets.find(session)
        results: dict[VmId, Result] = {}
        moving: dict[VmId, Operation] = {}
        for vm in found:
            operation = session.view.operations.get(session.view.claims.get(vm, OperationId("")))
            why = _cannot_be_tuned(session.view, operation, tuning)
            if why or operation is None:
                name = session.view.vms[vm].name
                results[vm] = Result(vm=vm, name=name, outcome=Outcome.SKIPPED, reason=why)
            else:
                moving[vm] = operation
        if tuning.post_copy and moving and not yes and is_terminal():
            title = f"Start the second half of {count_text(len(moving), 'move')} in {session.view.id}?"
            say(
                f"{title} The VM then runs on the target and fetches the rest of its memory. It cannot be "
                "cancelled any more; if a node or the network fails before the end, the VM is lost."
            )
            if not await session.terminal.confirm(title):
                say("Nothing was done.")
                return 1
        if moving:
            results |= await _tuned(session, moving, tuning)
        return show([results[vm] for vm in found], settings)


def _cannot_be_tuned(view: ClusterView, operation: Operation | None, tuning: Tuning) -> str:
    if view.config.read_only:
        return because(ReasonCode.READ_ONLY).text
    if (
        operation is None
        or operation.step is not MoveStep.MOVE
        or operation.state is not OperationState.RUNNING
    ):
        return "it is not being moved live now"
    figures = view.progress.get(operation.id)
    if figures is not None and figures.phase is MovePhase.POST_COPY:
        return f"it runs on {operation.target} already, in its second half"
    policy = convergence.policy(
        operation.policy, view.config.migration.convergence, memory_mib=operation.memory_mib
    )
    if tuning.post_copy and not policy.post_copy:
        return "post-copy was not permitted when this move began (--policy post-copy)"
    return ""


async def _tuned(session: Session, moving: Mapping[VmId, Operation], tuning: Tuning) -> dict[VmId, Result]:
    """Ask, and watch whether a host refuses."""
    runtime, known = session.runtime, session.view.operations
    tuned = {o.id: known.get(o.id, o).tuned for o in moving.values()}
    try:
        runtime.steer(
            QueueVerb.TUNE,
            operations=tuple(o.id for o in moving.values()),
            pause_ms=tuning.pause_ms,
            bandwidth_mib_s=tuning.cap_mib_s,
            post_copy=tuning.post_copy,
        )
        await asyncio.sleep(REFUSAL_S)
    except OSError as error:
        raise UserError(f"{error}.", exit_code=1) from error
    results = {}
    for vm, before in moving.items():
        now = known.get(before.id, before)
        if now.tuned == tuned[now.id]:
            results[vm] = _result(now, Outcome.SKIPPED, "it is not being moved live any more")
        elif now.refusals:
            results[vm] = _result(now, Outcome.FAILED, f"the host refused: {now.refusals[-1]}")
        else:
            results[vm] = _result(now, Outcome.ACCEPTED, tuning.text)
    return results

"""One cluster, alive: owns its state and its tasks; the one way in for events and requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from typing import Any, TypeGuard

from manager.core.actions import Plan
from manager.core.changes import ChangeSet, Outcome
from manager.core.chronicle import KEPT_EVENTS, ClusterEvent
from manager.core.cluster import ClusterState, ClusterView
from manager.core.effects import AbortMigration, Effect, OperationEffect, TuneMigration
from manager.core.errors import UserError
from manager.core.events import (
    ActionRequested,
    CancelRequested,
    Event,
    EventsTold,
    JournalFailed,
    NodeLost,
    NoticeGiven,
    OperationsReported,
    OperationsRestored,
    OwnershipTaken,
    ProblemsMarked,
    ProblemVerb,
    QueueRequested,
    QueueVerb,
)
from manager.core.ids import ClusterId, Kind, NodeId, OperationId, TraceId
from manager.core.migration import convergence
from manager.core.migration.limits import checked
from manager.core.model import ClusterConfig, ProblemLife, Tier
from manager.core.operations import Operation, OperationState
from manager.core.reasons import ReasonCode, because
from manager.services.closeup import Closeup
from manager.services.effect_runner import EffectRunner
from manager.services.engine import Engine, Ownership
from manager.services.event_log import EventLog
from manager.services.node_session import NodeSession
from manager.services.ports import Clock, Hypervisor, Journal, Vault
from manager.services.resource_reader import ResourceReader
from manager.services.sampler import Sampler
from manager.services.stories import Stories
from manager.services.tasks import Tasks
from manager.services.vault import DefinitionKeeper

log = logging.getLogger(__name__)

RECORD_INTERVAL_S = 0.5
"""How long what happened is gathered before it is written down together."""

RECORD_AGAIN_S = 10.0
"""How long it is waited after a journal did not take it."""

EVENTS_AT_ONCE = 32
"""How many events that wait are taken in before the loop does other things."""

LONGEST_NOTE = 500

MOST_UNRECORDED = 20_000
"""So much waits at most for a journal that does not come to write it down; what is older is dropped."""

Listener = Callable[[ChangeSet], None]


class Runtime:
    """The asyncio shell around one `ClusterState`. Loop thread only."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        hypervisor: Hypervisor,
        journal: Journal,
        clock: Clock,
        author: str,
        ownership: Ownership | None = None,
        event_log: EventLog | None = None,
        vault: Vault | None = None,
    ) -> None:
        self.author = "".join(char if char.isprintable() else "?" for char in author)
        self.clock = clock
        self.hypervisor = hypervisor
        self.journal = journal
        self._state = ClusterState(config)
        self._event_log = event_log
        self._tasks = Tasks(config.name)
        self._listeners: list[Listener] = []
        self._commits: asyncio.Queue[tuple[Event, Outcome]] = asyncio.Queue()
        self._uncommitted = 0
        self._unstored = False
        self._unrecorded: deque[ClusterEvent] = deque(maxlen=MOST_UNRECORDED)
        self._unrecorded_lives: dict[str, ProblemLife] = {}
        self._recording = asyncio.Lock()
        self._recalls = False
        self._records_soon = False
        self._is_deaf = False  # the journal did not take what happened the last time
        self._turnstile = asyncio.Lock()
        self._sessions = {
            node.name: NodeSession(
                config=node,
                hypervisor=hypervisor,
                clock=clock,
                dispatch=self.dispatch,
                dispatch_in_turn=self._dispatch_in_turn,
                unread=self._state.unread,
                tasks=self._tasks,
            )
            for node in config.nodes
        }
        self.resources = ResourceReader(
            hypervisor=hypervisor,
            clock=clock,
            state=self._state,
            dispatch_in_turn=self._dispatch_in_turn,
            tasks=self._tasks,
        )
        self._runner = EffectRunner(
            hypervisor=hypervisor,
            clock=clock,
            dispatch=self.dispatch,
            sessions=self._sessions,
            resources=self.resources,
            tasks=self._tasks,
        )
        self.engine = Engine(
            ownership=ownership,
            view=self._state,
            clock=clock,
            dispatch=self.dispatch,
            take_over=self._take_over,
            history=self.journal.history,
            happened=self._kept,
            tasks=self._tasks,
        )
        self.stories = Stories(
            engine=self.engine, view=self._state, clock=clock, tell=self._tell, tasks=self._tasks
        )
        self._vault = vault
        self.definitions: DefinitionKeeper | None = None
        """What is kept of definitions; None: this process has no vault."""
        if vault is not None:
            self.definitions = DefinitionKeeper(
                vault=vault,
                hypervisor=hypervisor,
                view=self._state,
                clock=clock,
                dispatch=self.dispatch,
                may_write=lambda: self.engine.is_owner,
                tasks=self._tasks,
            )
        self.closeup = Closeup(hypervisor, self._state, self._tasks)
        self.sampler = Sampler(
            hypervisor=hypervisor,
            clock=clock,
            state=self._state,
            dispatch=self.dispatch,
            dispatch_in_turn=self._dispatch_in_turn,
            tasks=self._tasks,
        )

    @property
    def id(self) -> ClusterId:
        """The cluster's name."""
        return self._state.id

    @property
    def view(self) -> ClusterView:
        """The live state, to be read only."""
        return self._state

    # --- life ------------------------------------------------------------------------------

    async def start(self, *, nodes: bool = True) -> None:
        """Become the owner of operations or its client, then connect to all nodes at once.

        Returns before any node answered.

        Args:
            nodes: False: connect to none. What waits goes on waiting; for who only steers the queue.

        Raises:
            OSError: The journal cannot be used, or its owner does not answer.
            UserError: The journal is another cluster's of this name, or a newer Muster's.
        """
        await self.engine.start()
        if not nodes:
            return
        if self.definitions is not None:
            await self.definitions.start()
        self._tasks.spawn(self._pump(), "events")
        self._tasks.spawn(self.sampler.run(), "sampler")
        for session in self._sessions.values():
            self._tasks.spawn(session.run(), f"session {session.node}")

    async def _take_over(self, left_s: float | None) -> None:
        """This process owns the operations from now on: read what the last owner left, and when.

        Of an owner that was followed until it died the last words may be missing: its journal has them.
        """
        left = await self.journal.load()
        journaled = {operation.id for operation in left}
        untold = [o for o in self._state.operations.values() if not o.is_over and o.id not in journaled]
        if untold:
            past = {operation.id: operation for operation in await self.journal.history(10_000)}
            now_s = self.clock.now_s()
            never_started = because(ReasonCode.INTERRUPTED_WAITING)
            told = [
                past.get(o.id)
                or replace(o, state=OperationState.CANCELLED, reason=never_started, ended_s=now_s)
                for o in untold
            ]
            self.dispatch(OperationsReported(at_s=now_s, operations=tuple(told)))
        self._tasks.spawn(self._commit_loop(), "journal")
        lives, number = await self.journal.lives(), secrets.randbelow(1 << 23)
        self.dispatch(OwnershipTaken(at_s=self.clock.now_s(), lives=lives, number=number))
        for number, text in enumerate(self.journal.notices):
            reason = because(ReasonCode.JOURNAL_NOTICE, text=text)
            self.dispatch(NoticeGiven(at_s=self.clock.now_s(), key=f"journal-{number}", reason=reason))
        if left:
            self.dispatch(OperationsRestored(at_s=self.clock.now_s(), operations=left, left_s=left_s))

    async def listed(self, timeout_s: float | None = None) -> bool:
        """Wait until every node's VMs are known or it failed once; False if the time ran out first."""
        return await self._all([s.listed() for s in self._sessions.values()], timeout_s)

    async def settled(self, timeout_s: float | None = None) -> bool:
        """As `listed`, and every definition was read."""
        return await self._all([s.settled() for s in self._sessions.values()], timeout_s)

    def unread(self, *, definitions: bool) -> tuple[NodeId, ...]:
        """The nodes that `settled` (else `listed`) still waits for."""
        return tuple(n for n, s in self._sessions.items() if not s.is_read(definitions=definitions))

    @staticmethod
    async def _all(waiting: list[Coroutine[Any, Any, None]], timeout_s: float | None) -> bool:
        waits = [asyncio.ensure_future(each) for each in waiting]
        if not waits:
            return True
        _, late = await asyncio.wait(waits, timeout=timeout_s)
        for wait in late:
            wait.cancel()
        return not late

    async def close(self) -> None:
        """End within two seconds, whatever hangs. Work that hosts do on their own goes on there."""
        await self._flush()
        await self._record_now()
        await self.engine.close()
        await self._tasks.close(0.5)
        parts: list[Hypervisor | Journal | Vault] = [self.hypervisor, self.journal]
        for part in parts + ([self._vault] if self._vault else []):
            try:
                await asyncio.wait_for(part.close(), 1.0)
            except TimeoutError:
                log.warning("%s: %s did not close in time", self.id, type(part).__name__)
            except Exception:
                log.exception("%s: %s did not close", self.id, type(part).__name__)

    async def stored(self) -> bool:
        """Wait until everything so far is in the journal, a second at most; whether all of it is."""
        await self._flush()
        await self._record_now()
        return not self._unrecorded_lives and not self._uncommitted and not self._unstored

    async def _flush(self) -> None:
        for _ in range(50):
            if not self._uncommitted:
                return
            await asyncio.sleep(0.01)

    # --- the way in ------------------------------------------------------------------------

    def dispatch(self, event: Event) -> None:
        """Take in one event; its effects start once its operations are in the journal."""
        if self._event_log is not None:
            self._event_log.event(self.id, event)
        outcome = self._state.handle(event)
        if outcome.transitions:
            self._uncommitted += 1
            self._commits.put_nowait((event, outcome))
        elif outcome.effects:
            self._begin(outcome.effects)
        if outcome.happened or outcome.lives:
            self._happened(outcome)
        if outcome.changes:
            if outcome.changes[Kind.OPERATION] or outcome.changes[Kind.VM]:
                self.sampler.look()
            self.resources.look(outcome.changes)
            if self.definitions is not None:
                self.definitions.look(outcome.changes)
            self.engine.changed(outcome.changes)
            self._tell(outcome.changes)

    def _happened(self, outcome: Outcome) -> None:
        """What happened is told to other processes, and written down soon."""
        self.engine.happened(outcome.happened, outcome.lives)
        self._unrecorded += outcome.happened
        self._unrecorded_lives.update((life.key, life) for life in outcome.lives)
        if not self._records_soon:
            self._records_soon = True
            self._tasks.spawn(self._record_soon(), "record")

    async def _record_soon(self) -> None:
        """Write down what comes together, until nothing is left; a journal that refuses is asked again."""
        try:
            while self._unrecorded or self._unrecorded_lives:
                await asyncio.sleep(RECORD_AGAIN_S if self._is_deaf else RECORD_INTERVAL_S)
                await self._record()
        finally:
            self._records_soon = False

    async def _record(self) -> None:
        async with self._recording:
            events, lives = tuple(self._unrecorded), self._unrecorded_lives
            if not events and not lives:
                return
            self._unrecorded.clear()
            self._unrecorded_lives = {}
            try:
                await self.journal.record(events, tuple(lives.values()))
            except BaseException as error:
                self._unrecorded.extendleft(reversed(events))  # with what comes next; twice does not matter
                self._unrecorded_lives = lives | self._unrecorded_lives
                if not isinstance(error, OSError):
                    raise
                if not self._is_deaf:
                    log.warning("%s: what happens cannot be written down: %s", self.id, error)
                self._is_deaf = True
            else:
                self._is_deaf = False

    async def _record_now(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._record(), 0.5)

    async def _kept(self, since_s: float, limit: int) -> tuple[ClusterEvent, ...]:
        """What the journal says has happened, with what is still to be written."""
        await self._record()
        return await self.journal.happened(since_s, limit)

    async def remember(self, since_s: float) -> None:
        """Let the view have the events since a moment, as far as they are kept.

        Raises:
            OSError: Nobody that we know of keeps them, or they cannot be read.
        """
        events = await self.engine.events(since_s, KEPT_EVENTS)
        self.dispatch(EventsTold(at_s=self.clock.now_s(), events=events))

    def recall(self) -> None:
        """Let the view have the newest events of the past, soon. New ones come by themselves."""
        if not self._recalls:
            self._recalls = True
            self._tasks.spawn(self._recall(), "recall")

    async def _recall(self) -> None:
        try:
            await self.remember(0.0)
        except OSError as error:
            self._recalls = False
            log.info("%s: what happened before cannot be read: %s", self.id, error)

    def mark(
        self, verb: ProblemVerb, keys: tuple[str, ...], *, note: str = "", until_s: float | None = None
    ) -> None:
        """Acknowledge or mute problems.

        Raises:
            OSError: The owner of operations was just lost; nothing was asked for.
            UserError: The note is not printable, or too long.
        """
        if not note.isprintable() or len(note) > LONGEST_NOTE:
            raise UserError(f"A note is one line of at most {LONGEST_NOTE} characters. Nothing was changed.")
        self.engine.send(
            ProblemsMarked(
                at_s=self.clock.now_s(),
                trace=TraceId(self._new_id()),
                verb=verb,
                keys=keys,
                author=self.author,
                note=note,
                until_s=until_s,
            )
        )

    def _tell(self, changes: ChangeSet) -> None:
        for listener in tuple(self._listeners):
            listener(changes)

    async def _dispatch_in_turn(self, event: Event) -> None:
        """Take in an event about a whole node; between two of them the loop does other things.

        All nodes may answer at the same moment: one after the other they would be one long gap for a window.
        """
        async with self._turnstile:
            self.dispatch(event)
            await asyncio.sleep(0)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every change set, until the returned function is called."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def request(self, plan: Plan[Any]) -> tuple[OperationId, ...]:
        """Carry out a confirmed plan.

        Returns the operations to watch: the new batch, one for each node, or what is being cancelled.

        Raises:
            OSError: The owner of operations cannot be ours, or was just lost and this cancels; nothing was
                asked for.
            UserError: A text in it is not printable: no journal and no other process could take it.
                Or as for `cancel`.
        """
        for name in fields(plan.parameters):
            text = getattr(plan.parameters, name.name)
            if isinstance(text, str) and not text.isprintable():
                raise UserError(f"not printable: {text!r}. Nothing was done.")
        batch = self._new_id()
        event = plan.spec.request(
            plan,
            author=self.author,
            at_s=self.clock.now_s(),
            trace=TraceId(batch),
            operation=batch,
            view=self._state,
        )
        self._ask(event)
        return event.operations if isinstance(event, CancelRequested) else plan.parents(batch)

    def cancel(self, operations: tuple[OperationId, ...]) -> None:
        """Cancel operations and what hangs below them.

        Raises:
            OSError: The owner of operations was just lost; nothing was asked for.
            UserError: This connection is read-only.
        """
        self._ask(
            CancelRequested(
                at_s=self.clock.now_s(),
                trace=TraceId(self._new_id()),
                operations=operations,
                author=self.author,
            )
        )

    def steer(self, verb: QueueVerb, **what: Any) -> None:
        """Steer the queue: pause, resume, reorder, limits, tune. `what`: the fields of `QueueRequested`.

        Raises:
            OSError: The owner of operations was just lost; nothing was asked for.
            UserError: There is no such limit, a value is out of range, or this connection is read-only.
        """
        trouble = checked(dict(what.get("limits", ()))) or convergence.checked(what)
        if trouble:
            raise UserError(f"{trouble}. Nothing was changed.")
        self._ask(
            QueueRequested(
                at_s=self.clock.now_s(),
                trace=TraceId(self._new_id()),
                verb=verb,
                author=self.author,
                **what,
            )
        )

    def _ask(self, event: Event) -> None:
        """Hand a request on to the owner of operations; who is here to look only asks for nothing."""
        config = self._state.config
        if config.read_only:
            code = ReasonCode.IS_A_DUMP if config.tier is Tier.DUMP else ReasonCode.READ_ONLY
            raise UserError(f"{because(code).text}. Nothing was changed.")
        self.engine.send(event)

    async def ended(self, operations: tuple[OperationId, ...]) -> tuple[Operation, ...]:
        """Wait until all of these are over. No deadline of its own: use `asyncio.timeout`."""
        done = asyncio.Event()
        left, over = set(operations), dict[OperationId, Operation]()  # kept: one may be forgotten meanwhile

        def look(changes: ChangeSet | None = None) -> None:
            mine = changes[Kind.OPERATION] if changes is not None else None
            for key in left if mine is None else left & (mine.added | mine.updated.keys()):
                found = self._state.operations.get(key)
                if found is not None and found.is_over:
                    over[key] = found
            left.difference_update(over)
            if not left:
                done.set()

        unsubscribe = self.subscribe(look)
        try:
            look()
            await done.wait()
        finally:
            unsubscribe()
        return tuple(over[o] for o in operations)

    def read_again(self, node: NodeId | None = None) -> None:
        """F5: read one node or all again; nodes that wait for their next try are tried now."""
        for name, session in self._sessions.items():
            if node in (None, name):
                session.try_now()
        self.resources.read_soon(node)

    def _new_id(self) -> OperationId:
        return OperationId(f"{int(self.clock.now_s() * 1000):012x}{secrets.token_hex(3)}")

    # --- the loops -------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Events of the hypervisor, in their order; a burst of them leaves the loop to others in between."""
        taken = 0
        async for event in self.hypervisor.events():
            if isinstance(event, NodeLost):
                self._sessions[event.node].lost(event.failure)
            else:
                self.dispatch(event)
            taken += 1
            if taken % EVENTS_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _commit_loop(self) -> None:
        """Write-ahead: transitions become durable, then their effects start. Batched, in order."""
        while True:
            batch = [await self._commits.get()]
            while not self._commits.empty():
                batch.append(self._commits.get_nowait())
            latest: dict[OperationId, Operation] = {}
            for _, outcome in batch:
                latest |= {operation.id: operation for operation in outcome.transitions}
            try:
                await self.journal.commit(tuple(latest.values()))
            except OSError as error:
                log.error("%s: the journal cannot be written: %s", self.id, error)
                self._uncommitted -= len(batch)
                self._unstored = True
                self._do_without_journal(batch, str(error))
                continue
            self._uncommitted -= len(batch)
            for _, outcome in batch:
                self._begin(tuple(e for e in outcome.effects if not (_is_step(e) and self._is_over(e))))

    def _is_over(self, step: OperationEffect) -> bool:
        """Whether its operation ended before it was begun: an earlier commit failed."""
        operation = self._state.operations.get(step.operation)
        return operation is None or operation.is_over

    def _do_without_journal(self, batch: list[tuple[Event, Outcome]], text: str) -> None:
        """What is not stored begins nothing; what runs is watched, tuned and cancelled all the same."""
        dropped: dict[OperationId, None] = {}
        for event, outcome in batch:
            if isinstance(event, ActionRequested):  # the next run would not know of it
                dropped |= dict.fromkeys(map(OperationId, outcome.changes[Kind.OPERATION].added))
            dropped |= dict.fromkeys(e.operation for e in outcome.effects if _is_step(e))
            self._begin(tuple(e for e in outcome.effects if not _is_step(e)))
        if dropped:
            self.dispatch(JournalFailed(at_s=self.clock.now_s(), operations=tuple(dropped), text=text))

    def _begin(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            self._runner.start(effect)


def _is_step(effect: Effect) -> TypeGuard[OperationEffect]:
    """Whether it is what an operation is for, and no call beside one that runs."""
    return isinstance(effect, OperationEffect) and not isinstance(effect, AbortMigration | TuneMigration)

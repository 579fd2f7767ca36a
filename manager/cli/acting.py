"""One command per action: names to VMs, plan, confirmation, request, waiting, one result per VM."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import click

from manager.cli import progress
from manager.cli.app import App
from manager.cli.following import Follower, Lines, lines
from manager.cli.options import Settings
from manager.cli.output import Column, json_line, print_json, print_table, say
from manager.cli.session import NOT_REACHED, Session, command_line, opened
from manager.cli.targets import Targets
from manager.cli.terminal import is_terminal
from manager.core.actions import CANCEL, ActionSpec, MigrateParameters, Plan, PlanStep, Skipped
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.ids import NO_VM, Kind, OperationId, VmId
from manager.core.migration import moves
from manager.core.model import ClusterConfig, PeerRoute
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.placement import planner
from manager.core.query.suggest import did_you_mean
from manager.core.reasons import Reason, ReasonCode, because
from manager.core.units import count_text, duration_text
from manager.core.work import CONTINUE_AFTER_S

HAND_OVER_S = 2.0
"""A call that was begun this long ago has reached its host: from then on it goes on without us."""

GRACE_S = 6.0
"""The longest time for handing over what was begun when the wait ran out."""

PAUSE_PATIENCE_S = 60.0
"""Where nobody sits at a terminal, what a paused batch keeps waiting is waited for so long and no longer."""

LOOK_S = 0.1

_BATCH_PAUSES = frozenset({ReasonCode.BATCH_PAUSED, ReasonCode.BATCH_PAUSED_BY, ReasonCode.BATCH_LEFT})
_PAUSES = _BATCH_PAUSES | {ReasonCode.QUEUE_PAUSED}
_NOT_STARTED = frozenset({OperationState.WAITING, OperationState.CHECKING})


class Outcome(StrEnum):
    """What became of one VM. The values are part of the command line's contract."""

    DONE = "done"  # also when it already was so
    SKIPPED = "skipped"  # refused
    FAILED = "failed"
    RUNNING = "running"  # the wait ran out; nothing is undone
    ACCEPTED = "accepted"  # not waited for
    PLANNED = "planned"  # only with --what-if


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The line of one VM, or of a node, in the answer."""

    vm: VmId
    name: str
    outcome: Outcome
    reason: str
    remedy: str = ""
    unreachable: bool = False

    @property
    def key(self) -> str:
        """A VM's id or a node's name."""
        return self.vm or self.name

    def as_json(self) -> dict[str, Any]:
        """The contract's object."""
        if self.vm == NO_VM:
            return {"node": self.name, "result": self.outcome.value, "reason": self.reason}
        return {
            "uuid": self.vm,
            "vm": self.name,
            "result": self.outcome.value,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for."""

    spec: ActionSpec[Any]
    targets: Targets
    parameters: Any
    wait_s: float | None = None  # None: to the end
    no_wait: bool = False
    what_if: bool = False
    yes: bool = False
    follow: bool = False


async def carry_out(app: App, settings: Settings, request: Request) -> int:
    """Run one action; returns the exit code.

    Raises:
        UserError: A name is unknown or ambiguous, or nothing can be reached. Nothing was done then.
    """

    def check(config: ClusterConfig) -> None:
        target = getattr(request.parameters, "target", None)
        names = [str(node.name) for node in config.nodes]
        if target is not None and target not in names:
            near = did_you_mean(target, names)
            raise UserError(f"There is no node {target} in {config.name}.{near} Nothing was done.")

    def enough(session: Session) -> bool:
        return request.targets.is_certain(session, getattr(request.parameters, "target", None))

    async with opened(app, settings, reading=request.what_if, enough=enough, check=check) as session:
        session.need_any()
        targets = request.targets
        of_nodes = targets.kind is Kind.NODE
        found = await (targets.find_nodes(session) if of_nodes else targets.find(session))
        if not found:
            if settings.as_json:
                print_json([])
            return 0
        plan = request.spec.plan(session.view, found, request.parameters)
        if request.what_if:
            return _show_plan(session.view, plan, found, settings)
        if request.spec.destructive and plan.steps and not request.yes and is_terminal():
            confirmed = await _confirm(session, plan)
            if confirmed is None:
                say("Nothing was done.")
                return 1
            plan = confirmed
        results = [_skipped(skipped) for skipped in plan.skipped]
        if any(result.unreachable for result in results):
            session.warn_of_unreachable()
        with lines() if request.follow and settings.as_json else nullcontext() as writer:
            if plan.steps:
                work = Work(session, settings, request, plan, lines=writer)
                results += await work.results()
            place = _places(plan, found)
            results.sort(key=lambda result: place[result.key])
            return show(results, settings, writer)


def _places(plan: Plan[Any], found: Sequence[str]) -> dict[str, int]:
    """The order of the answer: as asked for; of a node's VMs, after it."""
    after = [*(step.key for step in plan.steps), *(skipped.key for skipped in plan.skipped)]
    keys = found if plan.spec.target is Kind.VM else dict.fromkeys(after)
    return {key: index for index, key in enumerate(keys)}


# --- before --------------------------------------------------------------------------------------


def _skipped(skipped: Skipped) -> Result:
    return Result(
        vm=skipped.vm,
        name=skipped.name,
        outcome=Outcome.DONE if skipped.already else Outcome.SKIPPED,
        reason=skipped.reason.text,
        remedy="" if skipped.already or skipped.unreachable else skipped.reason.remedy,
        unreachable=skipped.unreachable,
    )


def _show_plan(view: ClusterView, plan: Plan[Any], found: Sequence[str], settings: Settings) -> int:
    """``--what-if``: the plan, in the order of the names, and nothing else."""
    of_nodes = plan.spec.target is Kind.NODE
    moves = of_nodes or plan.spec.kind is OperationKind.MIGRATE
    moved = (view.vms[step.vm] for step in plan.steps if step.vm in view.vms)
    unchecked = planner.unchecked_sharing(view.config, moved) if moves else None
    rows = [
        {
            **Result(
                vm=step.vm,
                name=step.name,
                outcome=Outcome.PLANNED,
                reason=step.note.text if step.note else plan.spec.consequence or plan.spec.doc,
            ).as_json(),
            "from": step.node,
            "to": step.target if moves else None,
        }
        for step in plan.steps
    ]
    rows += [{**_skipped(s).as_json(), "from": None, "to": None} for s in plan.skipped]
    place = _places(plan, found)
    rows.sort(key=lambda row: place[row.get("uuid") or row["node"]])
    if settings.as_json:
        print_json(rows)
    else:
        keys = [*(["node"] if of_nodes else []), "vm", "result", "from", *(["to"] if moves else []), "reason"]
        titles = {"vm": "VM", "from": "Node"} if not moves else {"vm": "VM"}
        columns = [Column(title=titles.get(key, key.title()), shrinks=key == "reason") for key in keys]
        print_table(columns, [[str(row.get(key) or "") for key in keys] for row in rows])
        say(f"{_title(plan)}: this is what would be done. Nothing was done.")
    if unchecked is not None:
        say(f"{unchecked.text}. {unchecked.remedy}")
    return NOT_REACHED if any(skipped.unreachable for skipped in plan.skipped) else 0


def _title(plan: Plan[Any]) -> str:
    named = [s for s in plan.steps if s.key in plan.targets]
    noun = "VM" if plan.spec.target is Kind.VM else "node"
    what = named[0].name if len(named) == 1 else count_text(len(named), noun)
    return f"{plan.spec.verb} {what} in {plan.cluster}"


async def _confirm(session: Session, plan: Plan[Any]) -> Plan[Any] | None:
    """Ask once, with counts; again if the world changed while the question stood there."""
    while True:
        say(f"{_title(plan)}? {plan.spec.consequence}\n{_exceptions(plan)}".rstrip())
        if not await session.terminal.confirm(f"{_title(plan)}?"):
            return None
        ids = [*plan.targets, *(skipped.key for skipped in plan.skipped)]
        now = plan.spec.plan(session.view, ids, plan.parameters)
        if _essence(now) == _essence(plan) or not now.steps:
            return now
        say("The cluster changed while you were asked. This is what would be done now:")
        plan = now


def _essence(plan: Plan[Any]) -> tuple[Any, ...]:
    return tuple((s.key, s.node, s.target) for s in plan.steps), plan.skipped


def _exceptions(plan: Plan[Any]) -> str:
    reasons = Counter(skipped.reason.text for skipped in plan.skipped)
    lines = [f"{count} skipped: {reason}" for reason, count in reasons.most_common(6)]
    if len(reasons) > len(lines):
        lines.append(f"and {count_text(len(reasons) - len(lines), 'more reason')}")
    return "\n".join(lines)


# --- while ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Work:
    """A confirmed plan, from its request to its results. Loop thread only."""

    session: Session
    settings: Settings
    request: Request
    plan: Plan[Any]
    lines: Lines | None = None  # with --follow --json
    _watched: tuple[OperationId, ...] = ()
    _begun_s: dict[OperationId, float] = field(default_factory=dict)  # when each was first seen running
    _pause: ReasonCode | None = None  # the one that was said
    _idle_since_s: float | None = None  # nothing goes on because of it

    async def results(self) -> list[Result]:
        """Ask for it, wait as told, and say what became of every VM."""
        try:
            self._watched = self.session.runtime.request(self.plan)
        except OSError as error:
            raise UserError(f"{error}. Nothing was done.", exit_code=1) from error
        try:
            operations, title = self._operations, self.plan.spec.verb
            with (
                progress.shown(self.session.runtime, title, operations, len(self.plan.steps)) as tell,
                self._following(tell),
            ):
                if self.request.no_wait:
                    await self._hand_over(tell, waiting=True)
                else:
                    await self._wait(tell)
            self._say_what_is_left()
        except asyncio.CancelledError:
            await self._interrupted()
            raise
        ended = self._operations()
        return [self._result(step, ended.get(step.key)) for step in self.plan.steps]

    @contextmanager
    def _following(self, tell: Callable[[str], None]) -> Iterator[None]:
        """``--follow``: every change of ours, as long as the block runs."""
        if not self.request.follow:
            yield
            return
        follower = Follower(
            self.session.runtime,
            lambda o: o.vm is not None and (o.id in self._watched or o.parent in self._watched),
            self.lines.put if self.lines is not None else tell,
            as_json=self.lines is not None,
        )
        follower.begin(also_ended=True)
        try:
            yield
        finally:
            follower.end()

    async def _wait(self, tell: Callable[[str], None]) -> None:
        ended = asyncio.ensure_future(self.session.runtime.ended(self._watched))
        try:
            async with asyncio.timeout(self.request.wait_s):
                while not ended.done() and not self._is_held_up(tell):
                    await asyncio.wait({ended}, timeout=LOOK_S)
        except TimeoutError:
            await self._hand_over(tell, waiting=False)
        finally:
            ended.cancel()

    def _is_held_up(self, tell: Callable[[str], None]) -> bool:
        """Whether what is left waits for somebody's word that nobody here can give. Says of a pause, once."""
        left = [o for o in self._work() if not o.is_over]
        held = [o for o in left if (reason := _pause_of(o)) is not None]
        if not held:
            self._pause = self._idle_since_s = None
            return False
        reason = _pause_of(held[0])
        assert reason is not None
        if self._pause is not reason.code:
            self._pause = reason.code
            tell(self._about_pause(reason, len(held)))
        somebody = is_terminal() and self.session.is_shared and not self.request.no_wait
        asks_to_wait = reason.code is ReasonCode.QUEUE_PAUSED and not self.request.no_wait
        if len(held) < len(left) or somebody or asks_to_wait:
            self._idle_since_s = None
            return False
        now_s = asyncio.get_running_loop().time()
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        return now_s - self._idle_since_s >= PAUSE_PATIENCE_S

    def _about_pause(self, reason: Reason, waiting: int) -> str:
        """What was paused and why, how many of ours wait, and the commands that go on."""
        if reason.code is ReasonCode.QUEUE_PAUSED:
            lines, resume = [f"{reason.text}: {count_text(waiting, 'VM')} of these wait."], ["resume"]
        else:
            count, batch = reason.field("count"), self._watched[0]
            failed = f": {count} of {reason.field('of')} failed" if count else ""
            lines = [f"this batch is paused{failed}; {count_text(waiting, 'VM')} of it wait."]
            resume = ["resume", batch]
        if self.session.is_shared:
            lines.append(f"Continue with: {command_line(self.settings, 'queue', *resume)}")
            if reason.code in _BATCH_PAUSES:
                drop = command_line(self.settings, "queue", "cancel", "--batch", batch)
                lines.append(f"Or drop what waits with: {drop}")
        return "\n".join(lines)

    def _say_what_is_left(self) -> None:
        """What of ours is not over now, and who goes on with it."""
        left = [o for o in self._work() if not o.is_over]
        waiting = [o for o in left if o.state in _NOT_STARTED]
        if not self.session.outlives_us and self.session.runtime.engine.is_owner:
            if left:
                say("the simulated hosts end with this command, and with them what is still under way.")
        elif waiting and self.session.runtime.engine.is_owner:
            say(
                f"{count_text(len(waiting), 'VM')} of these still wait for their turn. The next Muster that "
                f"works on {self.plan.cluster} within {duration_text(CONTINUE_AFTER_S)} goes on with them; "
                "“muster vm cancel” drops them."
            )

    def _operations(self) -> dict[str, Operation]:
        """The watched operations by VM, and those on nodes by their names, as they stand now."""
        known = self.session.view.operations
        mine = [known[key] for key in self._watched if key in known]
        found = {str(o.source): o for o in mine if o.kind is OperationKind.NODE}
        children = mine
        if self.plan.action != CANCEL.id:
            children = [o for o in known.values() if o.parent in self._watched]
        return found | {str(o.vm): o for o in children if o.vm is not None}

    def _work(self) -> list[Operation]:
        """What is done to VMs: what is done to a node is over when that is."""
        return [o for o in self._operations().values() if not o.is_parent]

    @property
    def _is_left_to_others(self) -> bool:
        """Whether a process carries this out that stays when we are gone."""
        engine = self.session.runtime.engine
        return not engine.is_owner and engine.owner is not None and engine.owner.stays

    async def _hand_over(self, tell: Callable[[str], None], *, waiting: bool) -> None:
        """Stay until the hosts have what was begun, so that it goes on when this process is gone.

        A VM between two nodes is never left there: the hosts do not go on with it by themselves.

        `waiting`: also until everything that waits for its turn was begun; nobody else may be there for it.
        """
        if not (self.session.outlives_us or self._is_left_to_others):
            return
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + GRACE_S
        told: set[str] = set()

        def tell_once(text: str) -> None:
            if text.partition(" ")[2] not in told:
                told.add(text.partition(" ")[2])
                tell(text)

        while True:
            operations = list(self._operations().values())
            between = [o for o in operations if _is_between(o)]
            if operations and self._is_left_to_others:
                return
            # None of them: another process owns the operations, and has not yet said that it has these.
            begun = bool(operations) and all(self._is_handed_over(o, waiting=waiting) for o in operations)
            if begun or (not waiting and loop.time() > deadline_s and not between):
                return
            if waiting and self._is_held_up(tell):
                return
            queued = sum(o.state is OperationState.WAITING for o in operations)
            if between and (not waiting or not queued):
                tell_once(
                    f"{count_text(len(between), 'VM')} of these are between two nodes; "
                    "this command stays until they run again."
                )
            elif queued and waiting and self._pause is None:
                tell_once(
                    f"{count_text(queued, 'VM')} of these wait for their turn; "
                    "this command stays until they were started. Ctrl-C drops them."
                )
            await asyncio.sleep(LOOK_S)

    def _is_handed_over(self, operation: Operation, *, waiting: bool) -> bool:
        if operation.state is OperationState.WAITING:
            return not waiting
        if operation.state is OperationState.CHECKING or _is_between(operation):
            return False
        if operation.state is not OperationState.RUNNING or operation.id in self.session.view.progress:
            return True
        now_s = asyncio.get_running_loop().time()
        return now_s - self._begun_s.setdefault(operation.id, now_s) >= HAND_OVER_S

    async def _interrupted(self) -> None:
        """Ctrl-C: what waits is dropped, what runs goes on; both are said. A second one leaves it all."""
        left = [o for o in self._work() if not o.is_over]
        waiting = [o for o in left if o.state in _NOT_STARTED]
        if is_terminal():
            click.echo(err=True)  # below the ^C
        told = ["interrupted."]
        if waiting:
            try:
                self.session.runtime.cancel(tuple(o.id for o in waiting))
                told.append(f"{count_text(len(waiting), 'VM')}: not started; nothing was done.")
            except OSError as error:
                told.append(f"{count_text(len(waiting), 'VM')}: {error}")
        between = [o for o in left if self.session.outlives_us and _is_between(o)]
        if self._is_left_to_others:
            between = []
        running = len(left) - len(waiting) - len(between)
        if running:
            noun = "move" if self.plan.spec.kind is OperationKind.MIGRATE else "operation"
            what = count_text(running, noun)
            if not self.session.outlives_us:
                told.append(f"{what}: ended with this command, as its simulated hosts do.")
            elif self._through_us:
                told.append(f"{what} through this computer: given up; the VMs stay where they were.")
            else:
                told.append(f"{what} {'goes' if running == 1 else 'go'} on on the hosts.")
        if between:
            told.append(
                f"{count_text(len(between), 'VM')} between two nodes: this command stays until they run "
                "again; a second Ctrl-C leaves them as they are."
            )
        say("\n".join(told))
        if between:
            await self._see_arrive(between)

    async def _see_arrive(self, between: Collection[Operation]) -> None:
        try:
            await self.session.runtime.ended(tuple(o.id for o in between))
        except asyncio.CancelledError:
            known = self.session.view.operations
            lost = [known[o.id] for o in between if not known[o.id].is_over]
            names = ", ".join(f"{o.vm_name} ({o.step.value if o.step else o.state.value})" for o in lost)
            if lost:
                say(
                    f"left between two nodes: {names}. The next Muster that works on {self.plan.cluster} "
                    "goes on with them: “muster engine”, a window, or any command that acts."
                )
            raise
        results = [self._result_of(o) for o in between]
        say("\n".join(f"{r.name}: {r.outcome.value}: {r.reason}" for r in results))

    # --- after ---------------------------------------------------------------------------------

    @property
    def _through_us(self) -> bool:
        parameters = self.request.parameters
        return (
            isinstance(parameters, MigrateParameters) and parameters.route is PeerRoute.THROUGH_THIS_COMPUTER
        )

    def _result_of(self, operation: Operation) -> Result:
        """How an operation of ours stands now."""
        step = next(s for s in self.plan.steps if s.key == (operation.vm or operation.source))
        return self._result(step, self.session.view.operations.get(operation.id))

    def _result(self, step: PlanStep, operation: Operation | None) -> Result:
        view = self.session.view
        result = Result(vm=step.vm, name=step.name, outcome=Outcome.RUNNING, reason="")
        if operation is None or not operation.is_over:
            pause = _pause_of(operation) if operation is not None else None
            if pause is not None and (self._idle_since_s is not None or self.request.no_wait):
                if self.request.no_wait and self._is_left_to_others:
                    return replace(result, outcome=Outcome.ACCEPTED, reason=f"not started yet: {pause.text}")
                return replace(result, reason=f"not started: {pause.text}")
            if self.request.no_wait:
                return replace(result, outcome=Outcome.ACCEPTED, reason=because(ReasonCode.ACCEPTED).text)
            seconds = f"{self.request.wait_s or 0.0:g}"
            reason = because(ReasonCode.STILL_RUNNING_WAIT_OVER, seconds=seconds).text
            if operation is not None and operation.state is OperationState.WAITING and operation.reason:
                reason = f"{reason}; not started: {operation.reason.text}"
            return replace(result, reason=reason)
        done = operation.state is OperationState.DONE
        if self.plan.action == CANCEL.id:
            done = not done
        if operation.reason is not None:
            reason, remedy = operation.reason.text, operation.reason.remedy
        else:
            reason, remedy = _now(view, operation), ""
        return replace(
            result,
            outcome=Outcome.DONE if done else Outcome.FAILED,
            reason=f"it ended first: {reason}" if self.plan.action == CANCEL.id and not done else reason,
            remedy="" if done else remedy,
        )


def _pause_of(operation: Operation) -> Reason | None:
    """That it waits because it, or all, was paused."""
    waits = operation.state is OperationState.WAITING and operation.reason is not None
    return operation.reason if waits and operation.reason and operation.reason.code in _PAUSES else None


def _is_between(operation: Operation) -> bool:
    """Whether a VM has begun to leave its node by a way on which the hosts do not go on by themselves."""
    return operation.move in moves.BACK and not operation.is_over and operation.state not in _NOT_STARTED


def _now(view: ClusterView, operation: Operation) -> str:
    """How things are now, as the reason of what simply worked: ``running on n1``, ``Low``."""
    if operation.settings is not None:
        settings = operation.settings
        by_action = {
            "vm.priority": settings.priority.title,
            "vm.tags": ", ".join(settings.tags) or "none",
            "vm.owners": f"possible: {', '.join(settings.possible_owners) or 'all nodes'}; "
            f"preferred: {', '.join(settings.preferred_owners) or 'none'}",
            "vm.rules": ", ".join(rule.text for rule in settings.rules) or "none",
        }
        return by_action[operation.action]
    vm = view.vms.get(operation.vm) if operation.vm else None
    return f"{vm.status.value.lower()} on {vm.owner}" if vm else because(ReasonCode.DONE).text


def show(results: Sequence[Result], settings: Settings, writer: Lines | None = None) -> int:
    """Print the results; returns the exit code. With a writer, one object per line."""
    if writer is not None:
        for result in results:
            writer.put(json_line(result.as_json()))
    elif settings.as_json:
        print_json([result.as_json() for result in results])
    else:
        nodes = any(r.vm == NO_VM for r in results)
        titles = ("Node, VM" if nodes else "VM", "Result", "Reason")
        columns = [Column(title=title, shrinks=title != "Reason") for title in titles]
        print_table(columns, [[r.name, r.outcome.value, r.reason] for r in results])
    remedies = dict.fromkeys(r.remedy for r in results if r.remedy)
    for remedy in list(remedies)[:5]:
        say(remedy.replace("Or move through this computer.", "Or use --through-this-computer."))
    if is_terminal() and len(results) > 1:
        counts = Counter(r.outcome.value for r in results)
        say(", ".join(f"{count} {word}" for word, count in counts.items()) + ".")
    return exit_code(results)


def exit_code(results: Sequence[Result]) -> int:
    """0 all done or accepted; 3 a VM's node cannot be reached; 1 anything else."""
    results = [r for r in results if r.vm == NO_VM] or results  # a node's VMs count with it
    if any(result.unreachable for result in results):
        return NOT_REACHED
    good = (Outcome.DONE, Outcome.ACCEPTED)
    return 0 if all(result.outcome in good for result in results) else 1

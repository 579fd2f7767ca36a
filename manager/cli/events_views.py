"""What happened and what is wrong, printed: ``muster events``, ``what-happened``, ``problems``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import click

from manager.cli.app import App
from manager.cli.following import lines
from manager.cli.listing import objects_of, print_list, seen
from manager.cli.lists import Shape
from manager.cli.options import Settings
from manager.cli.output import json_line, print_json, printable, say
from manager.cli.session import Session, opened, opened_all
from manager.core.changes import ChangeSet
from manager.core.chronicle import KEPT_EVENTS, ClusterEvent, Level, about_node, about_vm
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.events import EventsTold, ProblemVerb, TimerFired
from manager.core.ids import Kind, NodeId, VmId
from manager.core.model import ClusterConfig, Problem
from manager.core.query.fields import FIELDS
from manager.core.query.filter import search_text
from manager.core.query.grouping import Seen
from manager.core.query.suggest import did_you_mean
from manager.core.units import and_text, count_text, moment_text

OK, WARNING, CRITICAL, UNKNOWN = range(4)
"""Exit codes. Source: Monitoring Plugins Development Guidelines, plug-in return codes."""

_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

PROBLEM_COLUMNS = ("since", "subject", "state", "reason", "affected", "note", "key")
EVENT_COLUMNS = ("time", "level", "subject", "text", "who", "source")

SAID_S = 10.0
"""How long the owner of operations may take to do what was said of a problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events."""

    since_s: float
    level: Level = Level.INFORMATION
    vm: str | None = None
    node: str | None = None
    follow: bool = False

    def is_met_by(self, event: ClusterEvent) -> bool:
        """Whether this is one of them."""
        if event.at_s < self.since_s or event.level < self.level:
            return False
        if self.vm is not None:
            return self.vm == event.vm_name or self.vm.lower() == event.vm
        return self.node is None or self.node in (event.node, event.what.field("source"))


async def remember(session: Session, since_s: float) -> None:
    """Read what happened from whoever keeps it: the owner of operations, or the journal that nobody uses.

    Raises:
        UserError: It cannot be read.
    """
    runtime = session.runtime
    try:
        if runtime.engine.is_owner or runtime.engine.owner is not None:
            await runtime.remember(since_s)
            return
        past = await session.adapters.past(session.config, 0, since_s)
    except OSError as error:
        raise UserError(f"What happened cannot be read: {error}.", exit_code=1) from error
    if past is not None:
        told = EventsTold(at_s=runtime.clock.now_s(), events=past.events, lives=past.lives)
        runtime.dispatch(told)


def _check_node(configs: Sequence[ClusterConfig], node: str | None) -> None:
    known = [str(each.name) for config in configs for each in config.nodes]
    if node is not None and node not in known:
        near = did_you_mean(node, known)
        raise UserError(f"There is no node {node} in {and_text([c.name for c in configs])}.{near}")


def _names(events: Iterable[ClusterEvent]) -> dict[str, VmId]:
    """The VMs that events tell of, by name; of several of one name the one that was heard of last."""
    return {event.vm_name: event.vm for event in events if event.vm is not None and event.vm_name}


# --- events ----------------------------------------------------------------------------------------


async def show_events(app: App, settings: Settings, shape: Shape, wanted: Wanted) -> int:
    """``muster events``; of all clusters in one order of time."""
    where, code = shape.where, 0

    def check(configs: Sequence[ClusterConfig]) -> None:
        _check_node(configs, wanted.node)

    # Of a simulated cluster nobody else could tell.
    nodes = wanted.follow and settings.demo is not None
    async with opened_all(app, settings, nodes=nodes, at_once=True, check=check) as sessions:
        for session in sessions:
            try:
                await remember(session, wanted.since_s)
            except UserError as error:
                if len(sessions) == 1:
                    raise
                say(f"{session.config.name}: {error}")
                code = error.exit_code
        every = [event for session in sessions for event in session.view.events.values()]
        if wanted.vm is not None and not any(wanted.vm in (e.vm_name, e.vm) for e in every):
            say(f"Nothing is recorded of a VM {wanted.vm}.{did_you_mean(wanted.vm, _names(every))}")
        for session in sessions:
            if len(session.view.events) >= KEPT_EVENTS:
                of = f" of {session.config.name}" if settings.all_clusters else ""
                say(f"only the newest {KEPT_EVENTS:,} events{of} are shown.")
        shown: list[Seen] = []
        for session in sessions:
            met = [event for event in session.view.events.values() if wanted.is_met_by(event)]
            shown += seen(session.view, met, shape)
        shown.sort(key=lambda row: row[1].id)
        if not wanted.follow:
            print_list(Kind.EVENT, shown, shape, settings)
            return code
        with lines() as out:

            def tell(view: ClusterView, event: ClusterEvent) -> None:
                if settings.as_json:
                    fields = FIELDS[Kind.EVENT].values()
                    out.put(json_line({f.name: f.as_json(view, event) for f in fields}))
                else:
                    whose = f"{view.id}  " if settings.all_clusters else ""
                    out.put(printable(whose + _line(view, event)))

            def follow(session: Session) -> Callable[[], None]:
                view, runtime = session.view, session.runtime
                if not runtime.engine.is_owner and runtime.engine.owner is None:
                    of = f" in {session.config.name}" if settings.all_clusters else ""
                    say(f"nobody records what happens now{of}: open the window, or start “muster engine”.")
                told = set(view.events)

                def look(changes: ChangeSet) -> None:
                    for key in sorted(changes[Kind.EVENT].added - told):
                        told.add(key)
                        event = view.events[key]
                        hay = search_text(view, Kind.EVENT, event)
                        if wanted.is_met_by(event) and (where is None or where.test(view, event, hay)):
                            tell(view, event)

                return runtime.subscribe(look)

            for row in shown:
                tell(*row)
            unsubscribes = [follow(session) for session in sessions]
            try:
                await out.broken()
            finally:
                for unsubscribe in unsubscribes:
                    unsubscribe()
        return code


def _line(view: ClusterView, event: ClusterEvent) -> str:
    """One event on one line."""
    fields = FIELDS[Kind.EVENT]
    mark = "" if event.level is Level.INFORMATION else f"{event.level.word.upper()}  "
    who = f"  (by {event.who})" if event.who else ""
    return f"{moment_text(event.at_s)}  {mark}{fields['subject'].cell(view, event)}: {event.text}{who}"


async def what_happened(app: App, settings: Settings, name: str | None, since_s: float) -> int:
    """``muster what-happened``."""
    async with opened(app, settings, reading=True, nodes=False) as session:
        await remember(session, since_s)
        events = [event for event in session.view.events.values() if event.at_s >= since_s]
        if name is not None:
            nodes, vms = set(session.view.nodes), _names(events)
            vm = vms.get(name) or next((e.vm for e in events if e.vm == name.lower()), None)
            if name in nodes:
                events = about_node(events, NodeId(name))
            elif vm is not None:
                events = about_vm(events, vm, None)
            elif name in session.remembered_vms():
                events = []
            else:
                near = did_you_mean(name, [*nodes, *vms, *session.remembered_vms()])
                raise UserError(
                    f"{name} is no node of {session.config.name}, and nothing is recorded of a VM of that "
                    f"name since {moment_text(since_s)}.{near}"
                )
        if settings.as_json:
            rows = [(session.view, event) for event in events]
            print_json(objects_of(rows, list(FIELDS[Kind.EVENT].values())))
        else:
            for event in events:
                click.echo(printable(_line(session.view, event)))
            if not events:
                say(f"nothing is recorded since {moment_text(since_s)}.")
        return 0


# --- problems --------------------------------------------------------------------------------------


async def find_problems(session: Session) -> None:
    """Have all problems found: a command does not wait a minute whether a silent node comes back."""
    runtime = session.runtime
    for node in session.unreachable():
        runtime.dispatch(TimerFired(at_s=runtime.clock.now_s(), key=f"silent:{node.id}"))
    if not runtime.engine.is_owner and runtime.engine.owner is None:
        await remember(session, runtime.clock.now_s())


def plugin_line(code: int, text: str) -> str:
    """The first line of a monitoring plug-in; what stands behind a bar there are figures."""
    return printable(f"MUSTER {_WORDS[code]} - {text}")


async def show_problems(app: App, settings: Settings, shape: Shape, *, plugin: bool) -> int:
    """``muster problems``; the exit code says how bad it is what is listed."""
    async with opened(app, settings, reading=True, definitions=False) as session:
        session.need_any()
        await session.read_room()
        await find_problems(session)
        view = session.view
        problems = _sorted(session)
        if shape.where is not None:
            problems = shape.where.select(view, problems)
        new = [problem for problem in problems if problem.is_new(view.now_s)]
        code = OK if not new else CRITICAL if any(p.severity == "error" for p in new) else WARNING
        if plugin:
            fields = FIELDS[Kind.PROBLEM]
            shown = [
                f"{fields['subject'].cell(view, p)}: {p.reason.text}".replace("|", "/") for p in problems
            ]
            told = len(problems) - len(new)
            known = f", {told} acknowledged or muted" if told else ""
            text = f"{count_text(len(new), 'new problem')}{known}"
            affected = len({vm for problem in new for vm in problem.vms})
            figures = f"new={len(new)} known={told} affected_vms={affected}"
            click.echo(plugin_line(code, text).replace("|", "/") + f" | {figures}")
            for problem, line in zip(problems, shown, strict=True):
                click.echo(printable(f"[{fields['state'].cell(view, problem)}] {line}"))
        elif problems or settings.as_json:
            print_list(Kind.PROBLEM, seen(view, problems, shape), shape, settings)
        else:
            say("no problems." if shape.where is None else "no such problems.")
        return code


def _sorted(session: Session) -> list[Problem]:
    now_s = session.view.now_s
    return sorted(
        session.view.problems.values(), key=lambda p: (not p.is_new(now_s), p.severity, p.since_s, p.key)
    )


async def mark(
    app: App,
    settings: Settings,
    verb: ProblemVerb,
    wanted: Sequence[str],
    *,
    note: str,
    until_s: float | None,
) -> int:
    """``muster problems acknowledge`` and its siblings."""
    async with opened(app, settings, reading=False, definitions=False) as session:
        session.need_any()
        await find_problems(session)
        runtime, view = session.runtime, session.view
        keys = tuple(dict.fromkeys(_key(session, each) for each in wanted))
        done = asyncio.Event()

        def is_done(key: str) -> bool:
            life = view.lives.get(key)
            if life is None:
                return False
            return {
                ProblemVerb.ACKNOWLEDGE: (life.acknowledged_by, life.note) == (runtime.author, note),
                ProblemVerb.REOPEN: not life.acknowledged_by,
                ProblemVerb.MUTE: life.muted_until_s == until_s,
                ProblemVerb.UNMUTE: life.muted_until_s is None,
            }[verb]

        def look(_: ChangeSet | None = None) -> None:
            if all(is_done(key) for key in keys):
                done.set()

        unsubscribe = runtime.subscribe(look)
        try:
            runtime.mark(verb, keys, note=note, until_s=until_s)
            look()
            await asyncio.wait_for(done.wait(), SAID_S)
        except TimeoutError as error:
            text = f"{runtime.engine.owner} did not say within {SAID_S:g} s that it did it"
            raise UserError(f"{text}: perhaps it does not see this problem.", exit_code=1) from error
        except OSError as error:
            raise UserError(f"{error}. Nothing was done.", exit_code=1) from error
        finally:
            unsubscribe()
        if not await runtime.stored():
            raise UserError("It was not written to the journal, so it does not last.", exit_code=1)
        fields = FIELDS[Kind.PROBLEM]
        rows = [view.problems[key] for key in keys if key in view.problems]
        if settings.as_json:
            print_json([{f.name: f.as_json(view, row) for f in fields.values()} for row in rows])
        else:
            for row in rows:
                said = " ".join(fields[name].cell(view, row) for name in ("state", "note")).strip()
                click.echo(printable(f"{fields['subject'].cell(view, row)}: {said}"))
        return 0


def _key(session: Session, wanted: str) -> str:
    """The key of the problem that is meant, by itself or by the name of what it is about.

    Raises:
        UserError: There is none.
    """
    view = session.view
    if wanted in view.problems:
        return wanted
    names = {key: key for key in view.problems}
    for key, problem in view.problems.items():
        if key.startswith("node:") and problem.node is not None:
            names[str(problem.node)] = key
        elif problem.vms and problem.vms[0] in view.vms:
            names[view.vms[problem.vms[0]].name] = key
    if wanted not in names:
        near = did_you_mean(wanted, names)
        raise UserError(f"There is no problem {wanted} in {session.config.name}.{near} Nothing was changed.")
    return names[wanted]

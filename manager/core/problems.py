"""Problems: what an administrator should look at, one per cause, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from manager.core import events as ev
from manager.core.changes import Story, Turn
from manager.core.chronicle import Level, Source
from manager.core.effects import SetTimer
from manager.core.ids import Kind, NodeId, VmId
from manager.core.model import Problem, ProblemLife
from manager.core.reasons import Reason, ReasonCode, because

FORGOTTEN_S = 30 * 86_400.0
"""A problem that comes again after so long is another one."""

MOST_LIVES = 20_000

_SAME = {
    ReasonCode.NEVER_SEEN: ReasonCode.NOT_HEARD,
    ReasonCode.RETRYING: ReasonCode.NOT_HEARD,
    ReasonCode.CONNECTING: ReasonCode.NOT_HEARD,
    ReasonCode.CRASHED_BEFORE: ReasonCode.CRASHED_AT,
    ReasonCode.PAUSED_NO_ROOM: ReasonCode.PAUSED_BECAUSE,
    ReasonCode.PAUSED_POOL_FULL: ReasonCode.PAUSED_BECAUSE,
}
"""What is said differently at another time, and is the same cause."""

_WARNINGS = frozenset({ReasonCode.JOURNAL_NOTICE})


class Problems:
    """All problems there are, and what is kept of those there were. Only the core calls what changes it.

    Every process finds the problems itself; only the owner of operations counts their lives, others are told.
    """

    def __init__(self, story: Story, name_of: Callable[[VmId], str]) -> None:
        self.now: dict[str, Problem] = {}
        self.lives: dict[str, ProblemLife] = {}
        self._story = story
        self._name_of = name_of

    # --- what is seen ----------------------------------------------------------------------

    def found(
        self, turn: Turn, key: str, reason: Reason, *, node: NodeId | None = None, vms: tuple[VmId, ...] = ()
    ) -> None:
        """There is this problem, perhaps since long."""
        before = self.now.get(key)
        if self._story.keeps:
            self._live_on(turn, key, reason, node)
        life = self._life_of(key, reason)
        since_s = life.since_s if life else before.since_s if before else turn.at_s
        severity = "warning" if reason.code in _WARNINGS else "error"
        problem = Problem(
            key=key, reason=reason, since_s=since_s, severity=severity, node=node, vms=vms, life=life
        )
        if problem == before:
            return
        self.now[key] = problem
        if before is None:
            turn.changes[Kind.PROBLEM].add(key)
        else:
            turn.changes[Kind.PROBLEM].update(key, ("reason", "vms", "life"))

    def solved(self, turn: Turn, key: str) -> None:
        """It is seen not to be so, or not any more."""
        life = self.lives.get(key)
        if self._story.keeps and life is not None and not life.ended:
            problem = self.now.get(key)
            span = max(0.0, turn.at_s - life.since_s)
            self._keep(
                turn,
                replace(life, ended=True, last_s=turn.at_s, acknowledged_by="", acknowledged_s=None, note=""),
            )
            what = because(ReasonCode.PROBLEM_ENDED, span=span)
            self._tell(turn, key, what, why=problem.reason if problem else None, node=_node_of(key, problem))
        self.unseen(turn, key)

    def unseen(self, turn: Turn, key: str) -> None:
        """Whether it still is so cannot be seen now: it is not shown, and has not ended."""
        if self.now.pop(key, None) is not None:
            turn.changes[Kind.PROBLEM].remove(key)

    def is_open(self, key: str) -> bool:
        """Whether it is there, or was when it was seen last."""
        return key in self.now or (key in self.lives and not self.lives[key].ended)

    # --- what is said ----------------------------------------------------------------------

    def mark(self, event: ev.ProblemsMarked, turn: Turn) -> None:
        """An administrator acknowledges or mutes. What is no problem is left alone."""
        for key in event.keys:
            life = self.lives.get(key)
            if life is None or not self.is_open(key):
                continue
            match event.verb:
                case ev.ProblemVerb.ACKNOWLEDGE:
                    note = f" ({event.note})" if event.note else ""
                    what = because(ReasonCode.PROBLEM_ACKNOWLEDGED, note=note)
                    life = replace(
                        life, acknowledged_by=event.author, acknowledged_s=turn.at_s, note=event.note
                    )
                case ev.ProblemVerb.REOPEN:
                    what = because(ReasonCode.PROBLEM_REOPENED)
                    life = replace(life, acknowledged_by="", acknowledged_s=None, note="")
                case ev.ProblemVerb.MUTE:
                    span = max(0.0, (event.until_s or turn.at_s) - turn.at_s)
                    what = because(ReasonCode.PROBLEM_MUTED, span=span)
                    life = replace(life, muted_by=event.author, muted_until_s=event.until_s)
                case ev.ProblemVerb.UNMUTE:
                    what = because(ReasonCode.PROBLEM_UNMUTED)
                    life = replace(life, muted_by="", muted_until_s=None)
            if life == self.lives[key]:
                continue
            self._keep(turn, life)
            problem = self.now.get(key)
            why, node = problem.reason if problem else None, _node_of(key, problem)
            self._tell(turn, key, what, why=why, node=node, who=event.author)

    def hear(self, lives: Iterable[ProblemLife], turn: Turn) -> None:
        """Take over what the journal, or the owner of operations, keeps of problems."""
        for life in lives:
            self.lives[life.key] = life
            self._show(life, turn)

    def take_charge(self, lives: Iterable[ProblemLife], turn: Turn) -> None:
        """From now on this process keeps them. A notice of an earlier run ended with it."""
        forgotten_s = turn.at_s - FORGOTTEN_S
        self.hear((each for each in lives if not each.ended or each.last_s > forgotten_s), turn)
        for key in [k for k in self.lives if k.startswith("notice:") and k not in self.now]:
            life = self.lives[key]
            if not life.ended:
                self._keep(turn, replace(life, ended=True))
        for problem in list(self.now.values()):
            self.found(turn, problem.key, problem.reason, node=problem.node, vms=problem.vms)

    def heard_again(self, key: str, turn: Turn) -> None:
        """The time for which it was muted is over."""
        if key in self.now:
            turn.changes[Kind.PROBLEM].update(key, ("life",))

    # --- inside ----------------------------------------------------------------------------

    def _life_of(self, key: str, reason: Reason) -> ProblemLife | None:
        life = self.lives.get(key)
        return life if life is not None and not life.ended and life.cause == _cause(reason) else None

    def _live_on(self, turn: Turn, key: str, reason: Reason, node: NodeId | None) -> None:
        """It goes on, comes again, or is a new one."""
        life, at_s = self.lives.get(key), turn.at_s
        if self._life_of(key, reason) is not None:
            return
        if life is not None and life.cause == _cause(reason) and at_s - life.last_s < FORGOTTEN_S:
            life = replace(life, ended=False, since_s=at_s, last_s=at_s, times=life.times + 1)
        else:
            life = ProblemLife(key=key, cause=_cause(reason), first_s=at_s, since_s=at_s, last_s=at_s)
        self._keep(turn, life)
        self._tell(turn, key, because(ReasonCode.PROBLEM_BEGAN), why=reason, level=_level(reason), node=node)

    def _tell(
        self,
        turn: Turn,
        key: str,
        what: Reason,
        *,
        why: Reason | None,
        node: NodeId | None,
        who: str = "",
        level: Level = Level.INFORMATION,
    ) -> None:
        vm = VmId(key.removeprefix("vm:")) if key.startswith("vm:") else None
        self._story.record(
            turn,
            what,
            why=why,
            level=level,
            source=Source.REQUEST if who else Source.MUSTER,
            node=node,
            vm=vm,
            vm_name=self._name_of(vm) if vm else "",
            who=who,
            problem=key,
        )

    def _keep(self, turn: Turn, life: ProblemLife) -> None:
        self.lives.pop(life.key, None)  # the latest change stands last
        self.lives[life.key] = turn.lives[life.key] = life
        while len(self.lives) > MOST_LIVES:
            del self.lives[next(iter(self.lives))]
        self._show(life, turn)

    def _show(self, life: ProblemLife, turn: Turn) -> None:
        problem = self.now.get(life.key)
        if problem is not None:
            life_now = self._life_of(life.key, problem.reason)
            self.now[life.key] = replace(problem, life=life_now)
            turn.changes[Kind.PROBLEM].update(life.key, ("life",))
        if life.is_muted(turn.at_s) and life.muted_until_s is not None:
            timer = SetTimer(trace=turn.trace, key=f"mute:{life.key}", at_s=life.muted_until_s)
            turn.effects.append(timer)


def _node_of(key: str, problem: Problem | None) -> NodeId | None:
    if problem is not None:
        return problem.node
    return NodeId(key.removeprefix("node:")) if key.startswith("node:") else None


def _cause(reason: Reason) -> str:
    code = _SAME.get(reason.code, reason.code)
    return f"{code.value}:{reason.field('cause') or ''}" if code is ReasonCode.PAUSED_BECAUSE else code.value


def _level(reason: Reason) -> Level:
    return Level.WARNING if reason.code in _WARNINGS else Level.ERROR

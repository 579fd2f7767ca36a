"""Pausing and resuming nodes, with and without their VMs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

from manager.core import events as ev
from manager.core.actions.moves import LIVE_MIGRATE, QUICK_MIGRATE, MigrateParameters
from manager.core.actions.spec import (
    ON,
    ActionSpec,
    Allowed,
    Denied,
    Group,
    Plan,
    PlanStep,
    Skipped,
    Verdict,
    common,
    looks_only,
)
from manager.core.cluster import ClusterView
from manager.core.ids import NO_VM, Kind, NodeId, OperationId, VmId
from manager.core.model import DrainState, Hold, Node, NodeStage, Vm, VmStatus
from manager.core.operations import Operation, OperationKind
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode, because

LONGEST_WHY = 200
"""Characters of the reason that is given for a pause."""

NO_WHY = "no reason given"

NOTES = "notes for all administrators"
"""The feature of a connection by which a hold can be kept on the host (`ports.Feature.NOTES`)."""

_NO_ROOM = frozenset(
    {
        ReasonCode.ONLY_ONE_NODE,
        ReasonCode.NO_NODE_FITS,
        ReasonCode.NO_MEMORY_ON_NODE,
        ReasonCode.NO_CPUS_ON_NODE,
    }
)
_LIES = frozenset({VmStatus.OFF, VmStatus.CRASHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseParameters:
    """Whether the node's VMs are to leave it, and why, for other administrators."""

    drain: bool = False
    why: str = ""


class Failback(StrEnum):
    """What becomes of the VMs that were drained from a node when it is resumed."""

    NONE = "none"  # they stay where they are
    IMMEDIATE = "immediate"  # they go back


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeParameters:
    """What becomes of the VMs that were drained."""

    failback: Failback = Failback.NONE


# --- verdicts ------------------------------------------------------------------------------------


def _common(view: ClusterView, node: Node) -> Denied | None:
    """What forbids any action on a node."""
    if looks_only(view, node):
        return Denied(reason=because(ReasonCode.READ_ONLY))
    if not node.is_up:
        return Denied(reason=because(ReasonCode.NODE_UNREACHABLE, node=node.id), unreachable=True)
    if node.work is not None:
        return Denied(reason=because(ReasonCode.NODE_BUSY, what=node.work.text))
    if node.facts is None or NOTES not in node.facts.features:
        return Denied(reason=because(ReasonCode.NODE_KEEPS_NO_NOTES, node=node.id))
    return None


def _decide_pause(view: ClusterView, node: Node, parameters: PauseParameters) -> Verdict:
    denied = _common(view, node)
    if denied is not None:
        return denied
    if len(parameters.why) > LONGEST_WHY or not parameters.why.isprintable():
        return Denied(reason=because(ReasonCode.TEXT_TOO_LONG, most=LONGEST_WHY))
    drains = next((h for h in node.holds if h.drain is DrainState.DRAINING), None)
    if drains is not None:  # somewhere else: here it would be our work
        by = because(ReasonCode.NODE_DRAINED_BY, who=drains.who, since=drains.since_s)
        return Denied(reason=by, already=parameters.drain)
    if node.holds and not parameters.drain:
        hold = node.holds[0]
        already = because(ReasonCode.NODE_PAUSED_ALREADY, who=hold.who, since=hold.since_s)
        return Denied(reason=already, already=True)
    if parameters.drain and node.drain is DrainState.DRAINED and not node.vms_running:
        return Denied(reason=because(ReasonCode.NODE_DRAINED_ALREADY), already=True)
    return Allowed()


def _decide_resume(view: ClusterView, node: Node, parameters: ResumeParameters) -> Verdict:
    denied = _common(view, node)
    if denied is not None:
        return denied
    if not node.holds:
        return Denied(reason=because(ReasonCode.NODE_NOT_PAUSED), already=True)
    return Allowed()


# --- what would be done --------------------------------------------------------------------------


class _AsIf:
    """The cluster with other holds on some of its nodes."""

    def __init__(self, view: ClusterView, holds: Mapping[NodeId, tuple[Hold, ...]]) -> None:
        self._view = view
        self.nodes = {**view.nodes, **{n: replace(view.nodes[n], holds=h) for n, h in holds.items()}}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def _as_if(view: ClusterView, nodes: Iterable[Node], *, held: bool) -> ClusterView:
    hold = (Hold(who="", why=NO_WHY, since_s=0.0),) if held else ()
    return cast(ClusterView, _AsIf(view, {node.id: hold for node in nodes}))


def _step(node: Node, note: Reason) -> PlanStep:
    # The state of a node is no VM's; what a step says of it nobody shows.
    return PlanStep(vm=NO_VM, name=node.id, node=node.id, status=VmStatus.UNKNOWN, note=note)


def _of_node(view: ClusterView, node: Node) -> list[Vm]:
    return sorted((vm for vm in view.vms.values() if vm.owner == node.id), key=_first)


def _first(vm: Vm) -> tuple[int, str]:
    """High first, then by name."""
    return (-vm.config.settings.priority if vm.config else 0, vm.name)


def _moves(
    view: ClusterView, vms: Iterable[Vm], parameters: MigrateParameters
) -> tuple[dict[VmId, PlanStep], dict[VmId, Skipped]]:
    """How VMs leave or come: live if they run, as they are if they are off; the others stay, and why."""
    vms = list(vms)
    lies = [vm.id for vm in vms if vm.status in _LIES]
    runs = [vm.id for vm in vms if vm.status not in _LIES]
    steps: dict[VmId, PlanStep] = {}
    stays: dict[VmId, Skipped] = {}
    for spec, ids in ((LIVE_MIGRATE, runs), (QUICK_MIGRATE, lies)):
        plan = spec.plan(view, ids, parameters)
        steps |= {step.vm: replace(step, action=spec.id) for step in plan.steps}
        stays |= {each.vm: each for each in plan.skipped}
    return steps, stays


def _draft_pause(
    view: ClusterView, nodes: list[Node], parameters: PauseParameters
) -> tuple[list[PlanStep], list[Skipped]]:
    if not parameters.drain:
        return [_step(node, because(ReasonCode.TO_BE_PAUSED)) for node in nodes], []
    refused: list[Skipped] = []
    while True:  # one node less leaves more room: at most one round for each
        of = {node.id: _of_node(view, node) for node in nodes}
        without = _as_if(view, nodes, held=True)
        steps, stays = _moves(without, [vm for node in nodes for vm in of[node.id]], MigrateParameters())
        found = [r for node in nodes if (r := _no_room(node, of[node.id], stays)) is not None]
        if not found:
            break
        refused += found
        nodes = [node for node in nodes if all(r.name != node.id for r in found)]
    made: list[PlanStep] = []
    left: list[Skipped] = []
    for node in nodes:
        moving = [steps[vm.id] for vm in of[node.id] if vm.id in steps]
        staying = [stays[vm.id] for vm in of[node.id] if vm.id in stays]
        note = because(ReasonCode.TO_BE_DRAINED, count=len(moving), stay=len(staying))
        made += [_step(node, note), *moving]
        left += staying
    return made, refused + left


def _no_room(node: Node, vms: list[Vm], stays: Mapping[VmId, Skipped]) -> Skipped | None:
    """Why a node cannot be drained: some of what runs on it fits nowhere else."""
    lacking = [
        vm for vm in vms if vm.id in stays and stays[vm.id].reason.code in _NO_ROOM and vm.status in ON
    ]
    if not lacking:
        return None
    need_mib = sum(planner.need_mib(vm.config.memory_mib) for vm in lacking if vm.config)
    reason = because(
        ReasonCode.DRAIN_NO_ROOM,
        count=len(lacking),
        need_mib=need_mib,
        name=lacking[0].name,
        text=stays[lacking[0].id].reason.text,
    )
    return Skipped(vm=NO_VM, name=node.id, reason=reason)


def _draft_resume(
    view: ClusterView, nodes: list[Node], parameters: ResumeParameters
) -> tuple[list[PlanStep], list[Skipped]]:
    made: list[PlanStep] = []
    left: list[Skipped] = []
    free = _as_if(view, nodes, held=False)
    for node in nodes:
        noted = sorted((vm for vm in view.vms.values() if _home(vm) == node.id), key=_first)
        back = parameters.failback is Failback.IMMEDIATE
        away = [vm for vm in noted if back and vm.owner != node.id]
        steps, stays = _moves(free, away, MigrateParameters(target=node.id))
        note = because(ReasonCode.FAILS_BACK, node=node.id)
        made.append(_step(node, because(ReasonCode.TO_BE_RESUMED)))
        for vm in noted:
            if vm.id in steps:
                made.append(replace(steps[vm.id], note=note))
            elif vm.id in stays:
                left.append(stays[vm.id])
            elif denied := common(view, vm, needs_free=False):
                left.append(Skipped(vm=vm.id, name=vm.name, reason=denied.reason))
            else:
                stay = because(ReasonCode.STAYS_WHERE_IT_IS, node=str(vm.owner), home=node.id)
                made.append(
                    PlanStep(
                        vm=vm.id, name=vm.name, node=vm.owner, status=vm.status, note=stay, action=RESUME_ID
                    )
                )
    return made, left


def _home(vm: Vm) -> NodeId | None:
    return vm.config.settings.drained_from if vm.config else None


# --- as operations -------------------------------------------------------------------------------


def _begin(
    plan: Plan[Any], event: ev.ActionRequested, view: ClusterView
) -> list[tuple[Operation, list[Operation]]]:
    """An operation for each node, with what is done to VMs for it below."""
    found: list[tuple[Operation, list[Operation]]] = []
    ids = iter(plan.parents(event.operation))
    for step in plan.steps:
        if step.vm == NO_VM:
            found.append((_node_operation(plan, event, view, step, next(ids)), []))
        else:
            parent, children = found[-1]
            children.append(_child(view, step, parent, len(children)))
    return found


def _node_operation(
    plan: Plan[Any], event: ev.ActionRequested, view: ClusterView, step: PlanStep, key: OperationId
) -> Operation:
    parameters = plan.parameters
    pauses = isinstance(parameters, PauseParameters)
    node = view.nodes.get(step.node) if step.node else None
    mine = next((h for h in node.holds if h.who == event.author), None) if node else None
    hold = None
    if isinstance(parameters, PauseParameters):
        hold = Hold(
            who=event.author,
            why=parameters.why or (mine.why if mine else NO_WHY),
            since_s=mine.since_s if mine else event.at_s,
            drain=DrainState.DRAINING if parameters.drain else DrainState.NONE,
        )
    return Operation(
        id=key,
        kind=OperationKind.NODE,
        action=plan.action,
        author=event.author,
        trace=event.trace,
        created_s=event.at_s,
        source=step.node,
        stage=NodeStage.PAUSE if pauses else NodeStage.RESUME,
        hold=hold,
    )


def _child(view: ClusterView, step: PlanStep, parent: Operation, place: int) -> Operation:
    """A move out of a node or back to it, or that it is forgotten that there was one."""
    if step.action == RESUME_ID:
        made = RESUME_NODE.operation(view, RESUME_NODE.default, step, parent, place)
        config = view.vms[step.vm].config if step.vm in view.vms else None
        before = config.settings if config else None
        after = replace(before, drained_from=None) if before else None
        return replace(made, kind=OperationKind.SETTINGS, before=before, settings=after)
    back = parent.hold is None
    parameters = MigrateParameters(target=step.target if back else None)
    spec = LIVE_MIGRATE if step.action == LIVE_MIGRATE.id else QUICK_MIGRATE
    made = spec.operation(view, parameters, step, parent, place)
    if back:
        return replace(made, returns=True)
    return replace(made, drained_from=_home_to_note(view, step))


def _home_to_note(view: ClusterView, step: PlanStep) -> NodeId | None:
    """Where a VM belongs: of one that is drained a second time, the first node, while that is paused."""
    vm = view.vms.get(step.vm)
    home = _home(vm) if vm else None
    node = view.nodes.get(home) if home else None
    return home if node is not None and node.holds else step.node


PAUSE_ID, RESUME_ID = "node.pause", "node.resume"

PAUSE_NODE: ActionSpec[Any] = ActionSpec(
    id=PAUSE_ID,
    title="Pause…",
    verb="Pause",
    command="pause",
    group=Group.NODE,
    doc="Let nodes take no new VMs; with a drain, their VMs move to other nodes first. None is stopped.",
    default=PauseParameters(),
    decide=_decide_pause,
    target=Kind.NODE,
    kind=OperationKind.NODE,
    draft=_draft_pause,
    begin=_begin,
    icon="pause",
)

RESUME_NODE: ActionSpec[Any] = ActionSpec(
    id=RESUME_ID,
    title="Resume…",
    verb="Resume",
    command="resume",
    group=Group.NODE,
    doc="Let paused nodes take VMs again; with failback, those come back that were drained from them.",
    default=ResumeParameters(),
    decide=_decide_resume,
    target=Kind.NODE,
    kind=OperationKind.NODE,
    draft=_draft_resume,
    begin=_begin,
    icon="resume",
)

NODE_ACTIONS = (PAUSE_NODE, RESUME_NODE)

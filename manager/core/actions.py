"""One declaration per action. Menus, panes, keys, the command line and the manual are made from these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Generic, TypeVar

from manager.core import events as ev
from manager.core.cluster import ClusterView
from manager.core.effects import VmChange
from manager.core.explanations import busy, past_return
from manager.core.ids import ClusterId, NodeId, OperationId, TraceId, VmId
from manager.core.inventory import is_incoming
from manager.core.migration import convergence
from manager.core.migration.moves import MoveStep
from manager.core.model import (
    Authority,
    MoveType,
    NodeStatus,
    PeerRoute,
    Priority,
    SnapshotParameters,
    StatusCause,
    Vm,
    VmSettings,
    VmStatus,
)
from manager.core.operations import (
    Operation,
    OperationKind,
    OperationState,
    asks_guest,
    can_abort,
    can_turn_back,
)
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode, because

# --- parameters ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParameters:
    """For actions that need to know nothing but their targets."""


class ShutDownHow(StrEnum):
    """Who asks the guest."""

    ACPI = "acpi"  # the power button
    AGENT = "agent"  # the guest agent


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutDownParameters:
    """How a guest is asked to shut down."""

    how: ShutDownHow = ShutDownHow.ACPI


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateParameters:
    """Where to move. `target` None: the best possible node for each VM."""

    target: NodeId | None = None
    route: PeerRoute = PeerRoute.NODE_TO_NODE
    pool: str = ""  # on the target: disks that the nodes do not share are copied there
    policy: str = ""  # of convergence, by name; empty: the cluster's


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageParameters:
    """Where the disks go: a pool of the VM's own node."""

    pool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityParameters:
    """The startup priority to set."""

    priority: Priority = Priority.MEDIUM


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsParameters:
    """The tags a VM has afterwards."""

    tags: tuple[str, ...] = ()


P = TypeVar("P")

# --- verdicts and plans ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The action applies. `note` says what is chosen and why, where there was a choice."""

    target: NodeId | None = None
    note: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The action does not apply. `already`: because it is so; `unreachable`: because a node is."""

    reason: Reason
    already: bool = False
    unreachable: bool = False


Verdict = Allowed | Denied


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """What will be done to one VM."""

    vm: VmId
    name: str
    node: NodeId | None
    status: VmStatus
    target: NodeId | None = None
    note: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A VM that the action leaves alone, and why."""

    vm: VmId
    name: str
    reason: Reason
    already: bool = False
    unreachable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[P]):
    """What an action will do: one value for the preview, the confirmation, ``--what-if`` and the request."""

    action: str
    cluster: ClusterId
    parameters: P
    steps: tuple[PlanStep, ...]
    skipped: tuple[Skipped, ...]
    revision: int  # of the view it was made from

    @property
    def spec(self) -> ActionSpec[P]:
        """The action's declaration."""
        return ACTIONS[self.action]

    def operations(self, event: ev.ActionRequested, view: ClusterView) -> tuple[Operation, list[Operation]]:
        """The batch and one operation per step, as the journal will have them."""
        batch = Operation(
            id=event.operation,
            kind=OperationKind.BATCH,
            action=self.action,
            author=event.author,
            trace=event.trace,
            created_s=event.at_s,
        )
        children = [
            self.spec.operation(view, self.parameters, step, batch, place)
            for place, step in enumerate(self.steps)
        ]
        return batch, children


def _step(vm: Vm, verdict: Allowed) -> PlanStep:
    return PlanStep(
        vm=vm.id, name=vm.name, node=vm.owner, status=vm.status, target=verdict.target, note=verdict.note
    )


class Group(StrEnum):
    """Sections of menus and of the Actions pane, in order."""

    POWER = "Power"
    MOVE = "Move"
    SNAPSHOTS = "Snapshots"
    SETTINGS = "Settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec(Generic[P]):
    """An action on VMs.

    `verdict` is asked per target; the whole set of targets makes a `Plan`; a confirmed plan makes the
    request event. Nothing is done before that event.
    """

    id: str  # "vm.start"
    title: str  # "Start", with an ellipsis if it asks something
    verb: str  # "Start" in "Start 12 VMs"
    command: str  # the command line's words
    group: Group
    doc: str  # one sentence: tooltip, command help and manual
    default: P
    decide: Callable[[ClusterView, Vm, P], Verdict]
    change: VmChange | None = None
    kind: OperationKind = OperationKind.CHANGE
    destructive: bool = False  # asks once, with counts
    consequence: str = ""  # the confirmation's body
    shortcut: str = ""
    icon: str = ""
    move: MoveType = MoveType.LIVE  # of a move
    reverse: Callable[[Operation, ClusterView], tuple[str, Any] | None] | None = None
    arrange: Callable[[ClusterView, list[PlanStep], P], tuple[list[PlanStep], list[Skipped]]] | None = (
        None  # looks at all steps together
    )

    def verdict(self, view: ClusterView, vm_id: VmId, parameters: P | None = None) -> Verdict:
        """Whether the action applies to one VM, and if not, why."""
        given = self.default if parameters is None else parameters
        vm = view.vms.get(vm_id)
        found = self._alone(view, vm, given)
        if vm is None or self.arrange is None or isinstance(found, Denied):
            return found
        placed, left_out = self.arrange(view, [_step(vm, found)], given)
        if left_out:
            return Denied(reason=left_out[0].reason)
        return Allowed(target=placed[0].target, note=placed[0].note)

    def _alone(self, view: ClusterView, vm: Vm | None, parameters: P) -> Verdict:
        """What is to be said of one VM before all of a plan are looked at together."""
        return self.decide(view, vm, parameters) if vm else Denied(reason=because(ReasonCode.VM_VANISHED))

    def is_enabled(self, view: ClusterView, ids: Iterable[VmId]) -> bool:
        """Whether it applies to any of these; stops at the first that it does."""
        return any(isinstance(self.verdict(view, vm), Allowed) for vm in ids)

    def plan(self, view: ClusterView, ids: Iterable[VmId], parameters: P | None = None) -> Plan[P]:
        """What it would do to these VMs. Nothing is changed."""
        given = self.default if parameters is None else parameters
        steps: list[PlanStep] = []
        skipped: list[Skipped] = []
        for vm_id in dict.fromkeys(ids):
            vm = view.vms.get(vm_id)
            found = self._alone(view, vm, given)
            name = vm.name if vm else vm_id
            if isinstance(found, Allowed) and vm is not None:
                steps.append(_step(vm, found))
            elif isinstance(found, Denied):
                skipped.append(
                    Skipped(
                        vm=vm_id,
                        name=name,
                        reason=found.reason,
                        already=found.already,
                        unreachable=found.unreachable,
                    )
                )
        if self.arrange is not None:
            steps, left_out = self.arrange(view, steps, given)
            skipped += left_out
        return Plan(
            action=self.id,
            cluster=view.id,
            parameters=given,
            steps=tuple(steps),
            skipped=tuple(skipped),
            revision=view.revision,
        )

    def request(
        self,
        plan: Plan[P],
        *,
        author: str,
        at_s: float,
        trace: TraceId,
        operation: OperationId,
        view: ClusterView,
    ) -> ev.Event:
        """The event that carries a plan out. `operation` is the new batch's id."""
        if self.id == CANCEL.id:
            held = [view.claims[s.vm] for s in plan.steps if s.vm in view.claims]
            return ev.CancelRequested(at_s=at_s, trace=trace, operations=tuple(held), author=author)
        return ev.ActionRequested(at_s=at_s, trace=trace, plan=plan, author=author, operation=operation)

    def undo(self, operation: Operation, view: ClusterView) -> Plan[Any] | Reason:
        """The plan that takes one ended operation back, or why there is none."""
        pair = self.reverse(operation, view) if self.reverse and operation.vm else None
        if pair is None or operation.vm is None or operation.state is not OperationState.DONE:
            return because(ReasonCode.NO_UNDO)
        action, parameters = pair
        return ACTIONS[action].plan(view, [operation.vm], parameters)

    def operation(
        self, view: ClusterView, parameters: P, step: PlanStep, batch: Operation, place: int
    ) -> Operation:
        """The journal's record of one step."""
        vm = view.vms.get(step.vm)
        config = vm.config if vm else None
        change = self.change
        if isinstance(parameters, ShutDownParameters) and parameters.how is ShutDownHow.AGENT:
            change = VmChange.SHUT_DOWN_AGENT
        settings = config.settings if config else VmSettings()
        priority = settings.priority
        if isinstance(parameters, PriorityParameters):
            settings = replace(settings, priority=parameters.priority)
        elif isinstance(parameters, TagsParameters):
            settings = replace(settings, tags=parameters.tags)
        where = parameters if isinstance(parameters, MigrateParameters) else MigrateParameters()
        target = where.target
        if isinstance(parameters, StorageParameters):
            where = replace(where, pool=parameters.pool)
        return Operation(
            id=OperationId(f"{batch.id}.{place:05}"),
            parent=batch.id,
            kind=self.kind,
            action=self.id,
            author=batch.author,
            trace=batch.trace,
            created_s=batch.created_s,
            vm=step.vm,
            vm_name=step.name,
            source=step.node,
            target=target or step.target if self.kind is OperationKind.MIGRATE else None,
            target_given=target is not None,
            route=where.route,
            move=self.move,
            pool=where.pool,
            policy=where.policy,
            was_off=self.kind is OperationKind.MIGRATE and step.status in (VmStatus.OFF, VmStatus.CRASHED),
            change=change if self.kind is OperationKind.CHANGE else None,
            snapshot=parameters if isinstance(parameters, SnapshotParameters) else None,
            restores=change is VmChange.START and step.status is VmStatus.SAVED,
            settings=settings if self.kind is OperationKind.SETTINGS else None,
            before=config.settings if config and self.kind is OperationKind.SETTINGS else None,
            priority=int(priority),
            memory_mib=config.memory_mib if config else 0,
            vcpus=config.vcpus if config else 0,
            order=place,
        )


# --- rules -----------------------------------------------------------------------------------


def common(view: ClusterView, vm: Vm, *, needs_free: bool = True) -> Denied | None:
    """What forbids any action on a VM."""
    node = view.nodes.get(vm.owner) if vm.owner else None
    if view.config.read_only or (node and node.facts and node.facts.read_only):
        return Denied(reason=because(ReasonCode.READ_ONLY))
    if node is None or node.status is not NodeStatus.UP:
        return Denied(
            reason=because(ReasonCode.NODE_UNREACHABLE, node=str(vm.owner or "?")), unreachable=True
        )
    if vm.authority is not Authority.MUSTER:
        return Denied(reason=because(ReasonCode.OTHER_AUTHORITY, authority=vm.authority.value))
    if needs_free and vm.operation is not None:
        held = view.operations.get(vm.operation)
        said = because(ReasonCode.VM_BUSY, activity=vm.activity.value.lower())
        return Denied(reason=busy(held, vm.activity) if held else said)
    if needs_free and vm.activity.value.endswith("(not Muster's)"):
        return Denied(reason=because(ReasonCode.VM_BUSY_ELSEWHERE, node=str(vm.owner)))
    return None


def _power(
    allowed: frozenset[VmStatus],
    already: Mapping[VmStatus, ReasonCode] | None = None,
    *,
    other: ReasonCode = ReasonCode.STATE_FORBIDS,
    of_two: bool = False,
) -> Callable[[ClusterView, Vm, Any], Verdict]:
    """The rule of an action that applies in some states, is already so in others, and else is denied.

    `of_two`: also to one copy of a VM that runs on two nodes.
    """

    def decide(view: ClusterView, vm: Vm, _: Any) -> Verdict:
        denied = common(view, vm)
        if denied is not None:
            return denied
        if vm.alarm and not of_two:
            return Denied(reason=because(ReasonCode.RUNS_TWICE, nodes=_places(vm)))
        if vm.status in allowed:
            return Allowed(target=vm.owner)
        if already and vm.status in already:
            return Denied(
                reason=because(already[vm.status], node=str(vm.owner), status=vm.status.value),
                already=True,
            )
        return Denied(reason=because(other, status=vm.status.value))

    return decide


def _places(vm: Vm) -> str:
    return ", ".join(sorted({str(vm.owner), *vm.other_nodes}))


_ON = frozenset({VmStatus.RUNNING, VmStatus.PAUSED})
_RUNS = frozenset({VmStatus.RUNNING})
_LIES = frozenset({VmStatus.OFF, VmStatus.CRASHED, VmStatus.SAVED})


def _decide_restart(view: ClusterView, vm: Vm, parameters: Any) -> Verdict:
    return _power(_RUNS, other=ReasonCode.NOT_RUNNING)(view, vm, parameters)


def _decide_resume(view: ClusterView, vm: Vm, parameters: Any) -> Verdict:
    found = _power(
        frozenset({VmStatus.PAUSED}),
        {VmStatus.RUNNING: ReasonCode.ALREADY_RUNNING},
        other=ReasonCode.NOT_PAUSED,
    )(view, vm, parameters)
    moving = (StatusCause.MIGRATION, StatusCause.POSTCOPY, StatusCause.POSTCOPY_FAILED)
    if isinstance(found, Allowed) and vm.cause in moving:
        return Denied(reason=because(ReasonCode.STATE_FORBIDS, status=vm.cause.value))
    return found


def _decide_migrate(view: ClusterView, vm: Vm, parameters: MigrateParameters) -> Verdict:
    if vm.status not in _ON and vm.status is not VmStatus.SAVED:
        return _may_move(view, vm, parameters) or Denied(
            reason=because(ReasonCode.NOT_RUNNING, status=vm.status.value)
        )
    denied = _may_move(view, vm, parameters, feature="live migration")
    if denied is not None:
        return denied
    if parameters.policy and parameters.policy not in convergence.POLICIES:
        known = ", ".join(convergence.POLICIES)
        return Denied(reason=because(ReasonCode.NO_SUCH_POLICY, policy=parameters.policy, known=known))
    limits = view.config.migration
    memory_mib = vm.config.memory_mib if vm.config else 0
    policy = convergence.policy(parameters.policy, limits.convergence, memory_mib=memory_mib)
    if policy.post_copy and limits.parallel_connections > 1:
        return Denied(reason=because(ReasonCode.POST_COPY_ALONE, count=limits.parallel_connections))
    found = planner.obstacles(view.config, vm, copies_disks=bool(parameters.pool))
    return Denied(reason=found[0]) if found else Allowed(target=parameters.target)


def _decide_other_move(move: MoveType) -> Callable[[ClusterView, Vm, Any], Verdict]:
    """The rule of a move that stops the VM on one node and starts it on another."""

    def decide(view: ClusterView, vm: Vm, parameters: MigrateParameters) -> Verdict:
        denied = _may_move(view, vm, parameters, feature="quick and storage migration")
        if denied is not None:
            return denied
        if move is MoveType.SHUT_DOWN and vm.status is VmStatus.PAUSED:
            return Denied(
                reason=because(ReasonCode.STATE_FORBIDS, status="Paused: its guest cannot be asked")
            )
        found = planner.obstacles(view.config, vm, runs_on=move is MoveType.QUICK and vm.status in _ON)
        if found:
            return Denied(reason=found[0])
        if vm.config and not vm.config.persistent:
            return Denied(reason=because(ReasonCode.NOT_PERSISTENT))
        left = planner.stays_behind(view.config, vm.config) if vm.config else ""
        if left:
            return Denied(reason=because(ReasonCode.STATE_STAYS_BEHIND, what=left, node=str(vm.owner)))
        if move is MoveType.QUICK and vm.status in _ON and not planner.saved_path(view.config, vm.id):
            return Denied(reason=because(ReasonCode.NO_SHARED_PATH))
        return Allowed(target=parameters.target)

    return decide


def _may_move(
    view: ClusterView, vm: Vm, parameters: MigrateParameters, *, feature: str = ""
) -> Denied | None:
    """What forbids any move of a VM to another node."""
    target = parameters.target
    if target is not None and target not in view.nodes:
        return Denied(reason=because(ReasonCode.NO_SUCH_NODE, node=target))
    denied = common(view, vm)
    if denied is not None:
        return denied
    if vm.alarm:
        return Denied(reason=because(ReasonCode.RUNS_TWICE, nodes=_places(vm)))
    if target is not None and target == vm.owner and vm.status is not VmStatus.SAVED:
        return Denied(reason=because(ReasonCode.ALREADY_THERE, node=target), already=True)
    if vm.status is VmStatus.SAVED:
        return Denied(reason=because(ReasonCode.SAVED_NOT_MOVED, node=str(vm.owner)))
    facts = view.nodes[vm.owner].facts if vm.owner else None
    if feature and facts is not None and feature not in facts.features:
        return Denied(reason=because(ReasonCode.NOT_SUPPORTED_HERE, node=str(vm.owner), feature=feature))
    if vm.config is None:
        return Denied(reason=because(ReasonCode.DEFINITION_UNREAD))
    trouble = planner.node_takes_work(view.nodes[target]) if target is not None else None
    if trouble is not None:
        return Denied(reason=trouble, unreachable=trouble.code is ReasonCode.NODE_UNREACHABLE)
    return None


def _decide_storage(view: ClusterView, vm: Vm, parameters: StorageParameters) -> Verdict:
    denied = common(view, vm)
    if denied is not None:
        return denied
    if vm.alarm:
        return Denied(reason=because(ReasonCode.RUNS_TWICE, nodes=_places(vm)))
    if vm.status not in _ON:
        return Denied(reason=because(ReasonCode.NOT_RUNNING, status=vm.status.value))
    facts = view.nodes[vm.owner].facts if vm.owner else None
    feature = "quick and storage migration"
    if facts is not None and feature not in facts.features:
        return Denied(reason=because(ReasonCode.NOT_SUPPORTED_HERE, node=str(vm.owner), feature=feature))
    if vm.config is None:
        return Denied(reason=because(ReasonCode.DEFINITION_UNREAD))
    if not parameters.pool:
        return Denied(reason=because(ReasonCode.NO_POOL_NAMED))
    own = [disk for disk in vm.config.disks if planner.is_own_file(disk)]
    if not own:
        return Denied(reason=because(ReasonCode.NO_DISK_TO_MOVE))
    for disk in own:
        if (reason := planner.why_not_copied(disk)) is not None:
            return Denied(reason=reason)
    return Allowed(note=because(ReasonCode.POOL_SEEN_LATER, pool=parameters.pool, node=str(vm.owner)))


def _spread(
    view: ClusterView, steps: list[PlanStep], parameters: MigrateParameters
) -> tuple[list[PlanStep], list[Skipped]]:
    """Give each VM its node with the others of the plan counted; High and large ones choose first."""
    room = planner.Room(view, keep_reserve=parameters.target is None)
    placed: dict[VmId, PlanStep] = {}
    left_out: list[Skipped] = []

    def weight(step: PlanStep) -> tuple[int, int, str]:
        config = view.vms[step.vm].config
        return (-config.settings.priority, -config.memory_mib, step.name) if config else (0, 0, step.name)

    for step in sorted(steps, key=weight):
        found = room.take(view.vms[step.vm], parameters.target)
        if isinstance(found, Reason):
            left_out.append(Skipped(vm=step.vm, name=step.name, reason=found))
        else:
            placed[step.vm] = replace(step, target=found.node, note=found.reason)
    return [placed[s.vm] for s in steps if s.vm in placed], left_out


def _decide_cancel(view: ClusterView, vm: Vm, _: NoParameters) -> Verdict:
    if view.config.read_only:
        return Denied(reason=because(ReasonCode.READ_ONLY))
    held = view.operations.get(vm.operation) if vm.operation else None
    if held is None:
        if vm.activity.value.endswith("(not Muster's)"):
            return Denied(reason=because(ReasonCode.VM_BUSY_ELSEWHERE, node=str(vm.owner)))
        return Denied(reason=because(ReasonCode.NOTHING_TO_CANCEL), already=True)
    waits = held.state in (OperationState.WAITING, OperationState.CHECKING)
    settles = held.state is OperationState.SETTLING
    incoming = view.sightings(vm.id).get(held.target) if held.target else None
    alone = settles and held.step is MoveStep.MOVE and incoming is not None and is_incoming(incoming)
    runs = held.state is OperationState.RUNNING
    past = past_return(held, view.progress.get(held.id))
    if past is not None:
        return Denied(reason=past)
    if (
        waits
        or (settles and asks_guest(held))
        or ((alone or runs) and can_abort(held))
        or ((runs or settles) and can_turn_back(held))
    ):
        return Allowed(target=vm.owner)
    return Denied(reason=because(ReasonCode.STATE_FORBIDS, status=vm.activity.value.lower()))


def _decide_settings(view: ClusterView, vm: Vm, parameters: Any) -> Verdict:
    denied = common(view, vm, needs_free=False)  # it waits until other work on the VM has ended
    if denied is not None:
        return denied
    if vm.config is None:
        return Denied(reason=because(ReasonCode.DEFINITION_UNREAD))
    settings = vm.config.settings
    if isinstance(parameters, PriorityParameters):
        same = settings.priority is parameters.priority
    else:
        same = settings.tags == parameters.tags
    if same:
        return Denied(reason=because(ReasonCode.ALREADY_SET), already=True)
    return Allowed(target=vm.owner)


def _back(operation: Operation, view: ClusterView) -> tuple[str, Any] | None:
    if operation.source is None:
        return None
    return operation.action, MigrateParameters(target=operation.source, route=operation.route)


def _old_priority(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    before = operation.before
    return ("vm.priority", PriorityParameters(priority=before.priority)) if before else None


def _old_tags(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    before = operation.before
    return ("vm.tags", TagsParameters(tags=before.tags)) if before else None


# --- the registry ----------------------------------------------------------------------------

START = ActionSpec(
    id="vm.start",
    title="Start",
    verb="Start",
    command="start",
    group=Group.POWER,
    doc="Start VMs that are off, or restore them from their saved state.",
    default=NoParameters(),
    decide=_power(_LIES, {VmStatus.RUNNING: ReasonCode.ALREADY_RUNNING}),
    change=VmChange.START,
    shortcut="Ctrl+Shift+S",
    icon="start",
)

SHUT_DOWN = ActionSpec(
    id="vm.shut_down",
    title="Shut down…",
    verb="Shut down",
    command="shutdown",
    group=Group.POWER,
    doc="Ask the guests to shut down. A guest that does not answer within 3 min stays running.",
    default=ShutDownParameters(),
    decide=_power(_RUNS, {s: ReasonCode.ALREADY_OFF for s in (VmStatus.OFF, VmStatus.CRASHED)}),
    change=VmChange.SHUT_DOWN,
    destructive=True,
    consequence="The guests are asked to shut down. A guest that does not answer within 3 min stays running.",
    shortcut="Ctrl+Shift+D",
    icon="shut_down",
)

RESTART = ActionSpec(
    id="vm.restart",
    title="Restart…",
    verb="Restart",
    command="restart",
    group=Group.POWER,
    doc="Ask the guests to restart.",
    default=NoParameters(),
    decide=_decide_restart,
    change=VmChange.RESTART,
    destructive=True,
    consequence="The guests are asked to restart. A guest that does not answer within 3 min goes on running.",
    icon="restart",
)

SAVE = ActionSpec(
    id="vm.save",
    title="Save…",
    verb="Save",
    command="save",
    group=Group.POWER,
    doc="Write the VMs' memory to their node's disk and stop them; Start continues where they were.",
    default=NoParameters(),
    decide=_power(
        _ON,
        {VmStatus.SAVED: ReasonCode.ALREADY_SAVED},
        other=ReasonCode.NOT_RUNNING,
    ),
    change=VmChange.SAVE,
    destructive=True,
    consequence="Their memory is written to their node's disk and they stop."
    " Start continues where they were.",
    icon="save",
)

PAUSE = ActionSpec(
    id="vm.pause",
    title="Pause",
    verb="Pause",
    command="pause",
    group=Group.POWER,
    doc="Freeze the VMs; their memory stays on the node.",
    default=NoParameters(),
    decide=_power(_RUNS, {VmStatus.PAUSED: ReasonCode.ALREADY_PAUSED}, other=ReasonCode.NOT_RUNNING),
    change=VmChange.PAUSE,
    icon="pause",
    reverse=lambda operation, _: ("vm.resume", NoParameters()),
)

RESUME = ActionSpec(
    id="vm.resume",
    title="Resume",
    verb="Resume",
    command="resume",
    group=Group.POWER,
    doc="Let paused VMs run on.",
    default=NoParameters(),
    decide=_decide_resume,
    change=VmChange.RESUME,
    icon="resume",
    reverse=lambda operation, _: ("vm.pause", NoParameters()),
)

TURN_OFF = ActionSpec(
    id="vm.turn_off",
    title="Turn off…",
    verb="Turn off",
    command="turn-off",
    group=Group.POWER,
    doc="Cut the VMs' power. Unsaved data in the guests is lost.",
    default=NoParameters(),
    decide=_power(_ON, {s: ReasonCode.ALREADY_OFF for s in (VmStatus.OFF, VmStatus.CRASHED)}, of_two=True),
    change=VmChange.TURN_OFF,
    destructive=True,
    consequence="This is a power cut: unsaved data in the guests is lost.",
    icon="turn_off",
)

RESET = ActionSpec(
    id="vm.reset",
    title="Reset…",
    verb="Reset",
    command="reset",
    group=Group.POWER,
    doc="Press the VMs' reset button. Unsaved data in the guests is lost.",
    default=NoParameters(),
    decide=_power(_ON, other=ReasonCode.NOT_RUNNING),
    change=VmChange.RESET,
    destructive=True,
    consequence="This is a reset button: unsaved data in the guests is lost.",
    icon="reset",
)

CTRL_ALT_DEL = ActionSpec(
    id="vm.ctrl_alt_del",
    title="Send Ctrl+Alt+Del…",
    verb="Send Ctrl+Alt+Del to",
    command="ctrl-alt-del",
    group=Group.POWER,
    doc="Press Ctrl+Alt+Del on the guests' keyboards.",
    default=NoParameters(),
    decide=_power(_RUNS, other=ReasonCode.NOT_RUNNING),
    change=VmChange.CTRL_ALT_DEL,
    destructive=True,
    consequence="Many guests restart at once when they get it; others ask for a login.",
    icon="keys",
)

DELETE_SAVED_STATE = ActionSpec(
    id="vm.delete_saved_state",
    title="Delete saved state…",
    verb="Delete the saved state of",
    command="delete-saved-state",
    group=Group.POWER,
    doc="Throw away the saved memory of VMs; they are off afterwards and start afresh.",
    default=NoParameters(),
    decide=_power(frozenset({VmStatus.SAVED}), other=ReasonCode.NO_SAVED_STATE),
    change=VmChange.DELETE_SAVED_STATE,
    destructive=True,
    consequence="What was in their memory is lost; they start afresh.",
    icon="delete_saved_state",
)

LIVE_MIGRATE: ActionSpec[Any] = ActionSpec(
    id="vm.live_migrate",
    title="Live migrate…",
    verb="Live migrate",
    command="migrate",
    group=Group.MOVE,
    doc="Move running VMs to another node without stopping them.",
    default=MigrateParameters(),
    decide=_decide_migrate,
    kind=OperationKind.MIGRATE,
    shortcut="Ctrl+M",
    icon="live_migrate",
    reverse=_back,
    arrange=_spread,
)

QUICK_MIGRATE: ActionSpec[Any] = ActionSpec(
    id="vm.quick_migrate",
    title="Quick migrate…",
    verb="Quick migrate",
    command="migrate --type quick",
    group=Group.MOVE,
    doc="Save VMs, move them to another node and let them run on there. Those that are off move as they are.",
    default=MigrateParameters(),
    decide=_decide_other_move(MoveType.QUICK),
    kind=OperationKind.MIGRATE,
    move=MoveType.QUICK,
    destructive=True,
    consequence="They stand still while their memory is written to shared storage and read on the other node."
    " If they cannot run on there, they run on where they were.",
    icon="quick_migrate",
    reverse=_back,
    arrange=_spread,
)

SHUT_DOWN_AND_MOVE: ActionSpec[Any] = ActionSpec(
    id="vm.shut_down_and_move",
    title="Shut down and move…",
    verb="Shut down and move",
    command="migrate --type shutdown",
    group=Group.MOVE,
    doc="Ask the guests to shut down, move the VMs to another node and start them there.",
    default=MigrateParameters(),
    decide=_decide_other_move(MoveType.SHUT_DOWN),
    kind=OperationKind.MIGRATE,
    move=MoveType.SHUT_DOWN,
    destructive=True,
    consequence="The guests are asked to shut down; one that does not within 3 min stays where it is,"
    " running. A VM that cannot be started on the other node is started on its own again.",
    icon="shut_down_and_move",
    reverse=_back,
    arrange=_spread,
)

TURN_OFF_AND_MOVE: ActionSpec[Any] = ActionSpec(
    id="vm.turn_off_and_move",
    title="Turn off and move…",
    verb="Turn off and move",
    command="migrate --type turn-off",
    group=Group.MOVE,
    doc="Cut the VMs' power, move them to another node and start them there. Unsaved data is lost.",
    default=MigrateParameters(),
    decide=_decide_other_move(MoveType.TURN_OFF),
    kind=OperationKind.MIGRATE,
    move=MoveType.TURN_OFF,
    destructive=True,
    consequence="This is a power cut: unsaved data in the guests is lost."
    " A VM that cannot be started on the other node is started on its own again.",
    icon="turn_off_and_move",
    reverse=_back,
    arrange=_spread,
)

MOVE_STORAGE: ActionSpec[Any] = ActionSpec(
    id="vm.move_storage",
    title="Move storage…",
    verb="Move the storage of",
    command="migrate --type storage",
    group=Group.MOVE,
    doc="Copy the disks of running VMs to another pool of their node and use those; the old images are kept.",
    default=StorageParameters(),
    decide=_decide_storage,
    kind=OperationKind.MIGRATE,
    move=MoveType.STORAGE,
    icon="move_storage",
)

CANCEL = ActionSpec(
    id="vm.cancel",
    title="Cancel move",
    verb="Cancel the work on",
    command="cancel",
    group=Group.MOVE,
    doc="Cancel what is waiting or moving; a VM that was being moved goes on where it was.",
    default=NoParameters(),
    decide=_decide_cancel,
    icon="cancel",
)

PRIORITY: ActionSpec[Any] = ActionSpec(
    id="vm.priority",
    title="Startup priority",
    verb="Set the startup priority of",
    command="priority",
    group=Group.SETTINGS,
    doc="Set in which order VMs are started and moved: High, Medium, Low, No Auto Start.",
    default=PriorityParameters(),
    decide=_decide_settings,
    kind=OperationKind.SETTINGS,
    icon="priority",
    reverse=_old_priority,
)

TAGS: ActionSpec[Any] = ActionSpec(
    id="vm.tags",
    title="Tags…",
    verb="Set the tags of",
    command="tags",
    group=Group.SETTINGS,
    doc="Set the VMs' tags, words to find and group them by.",
    default=TagsParameters(),
    decide=_decide_settings,
    kind=OperationKind.SETTINGS,
    icon="tags",
    reverse=_old_tags,
)

ACTIONS: dict[str, ActionSpec[Any]] = {
    spec.id: spec
    for spec in (
        START,
        SHUT_DOWN,
        RESTART,
        SAVE,
        PAUSE,
        RESUME,
        TURN_OFF,
        RESET,
        CTRL_ALT_DEL,
        DELETE_SAVED_STATE,
        LIVE_MIGRATE,
        QUICK_MIGRATE,
        SHUT_DOWN_AND_MOVE,
        TURN_OFF_AND_MOVE,
        MOVE_STORAGE,
        CANCEL,
        PRIORITY,
        TAGS,
    )
}
"""All actions on VMs, in the order of menus."""

import manager.core.snapshots  # noqa: E402, F401 - registers its actions among these

"""Moves to other nodes and pools, and their cancelling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from manager.core.actions.spec import (
    ON,
    ActionSpec,
    Allowed,
    Denied,
    Group,
    NoParameters,
    PlanStep,
    Skipped,
    Verdict,
    common,
    places,
)
from manager.core.cluster import ClusterView
from manager.core.explanations import past_return
from manager.core.ids import NodeId
from manager.core.inventory import is_incoming
from manager.core.migration import convergence
from manager.core.migration.moves import MoveStep
from manager.core.model import MoveType, PeerRoute, Vm, VmConfig, VmStatus
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


def _decide_migrate(view: ClusterView, vm: Vm, parameters: MigrateParameters) -> Verdict:
    if vm.status not in ON and vm.status is not VmStatus.SAVED:
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
        found = planner.obstacles(view.config, vm, runs_on=move is MoveType.QUICK and vm.status in ON)
        if found:
            return Denied(reason=found[0])
        if vm.config and not vm.config.persistent:
            return Denied(reason=because(ReasonCode.NOT_PERSISTENT))
        left = planner.stays_behind(view.config, vm.config) if vm.config else ""
        if left:
            return Denied(reason=because(ReasonCode.STATE_STAYS_BEHIND, what=left, node=str(vm.owner)))
        if move is MoveType.QUICK and vm.status in ON and not planner.saved_path(view.config, vm.id):
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
        return Denied(reason=because(ReasonCode.RUNS_TWICE, nodes=places(vm)))
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
        return Denied(reason=because(ReasonCode.RUNS_TWICE, nodes=places(vm)))
    if vm.status not in ON:
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
    found = room.place((view.vms[step.vm] for step in steps), parameters.target)
    placed: list[PlanStep] = []
    left_out: list[Skipped] = []
    for step in steps:
        place = found[step.vm]
        if isinstance(place, Reason):
            left_out.append(Skipped(vm=step.vm, name=step.name, reason=place))
        else:
            placed.append(replace(step, target=place.node, note=place.reason))
    return placed, left_out


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


def _back(operation: Operation, view: ClusterView) -> tuple[str, Any] | None:
    if operation.source is None:
        return None
    return operation.action, MigrateParameters(target=operation.source, route=operation.route)


def _where(
    operation: Operation, step: PlanStep, _: VmConfig | None, parameters: MigrateParameters
) -> Operation:
    return replace(
        operation,
        target=parameters.target or step.target,
        target_given=parameters.target is not None,
        route=parameters.route,
        pool=parameters.pool,
        policy=parameters.policy,
        was_off=step.status in (VmStatus.OFF, VmStatus.CRASHED),
    )


def _which_pool(
    operation: Operation, step: PlanStep, _: VmConfig | None, parameters: StorageParameters
) -> Operation:
    return replace(operation, target=step.target, pool=parameters.pool)


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
    detail=_where,
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
    detail=_where,
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
    detail=_where,
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
    detail=_where,
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
    detail=_which_pool,
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
    cancels=True,
    icon="cancel",
)

MOVES = (LIVE_MIGRATE, QUICK_MIGRATE, SHUT_DOWN_AND_MOVE, TURN_OFF_AND_MOVE, MOVE_STORAGE, CANCEL)

"""What an action is: its declaration, its verdicts and its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from manager.core import events as ev
from manager.core.cluster import ClusterView
from manager.core.effects import VmChange
from manager.core.explanations import busy
from manager.core.ids import NO_VM, ClusterId, Kind, NodeId, OperationId, TraceId, VmId
from manager.core.model import (
    Authority,
    MoveType,
    Node,
    NodeStatus,
    Tier,
    Vm,
    VmConfig,
    VmSettings,
    VmStatus,
)
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.reasons import Reason, ReasonCode, because


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParameters:
    """For actions that need to know nothing but their targets."""


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
    """What will be done to one VM; or to a node, followed by what is done to VMs for it."""

    vm: VmId  # NO_VM: the node itself
    name: str
    node: NodeId | None
    status: VmStatus
    target: NodeId | None = None
    note: Reason | None = None
    action: str = ""  # by which it is done, if that is not the plan's own

    @property
    def key(self) -> str:
        """Whose step it is: a VM's id or a node's name."""
        return self.vm or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A VM, or a node, that the action leaves alone, and why."""

    vm: VmId
    name: str
    reason: Reason
    already: bool = False
    unreachable: bool = False

    @property
    def key(self) -> str:
        """Who is left alone: a VM's id or a node's name."""
        return self.vm or self.name


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

    @property
    def targets(self) -> tuple[str, ...]:
        """What it was made for, as far as something is done: VMs' ids or nodes' names."""
        return tuple(s.key for s in self.steps if s.vm == NO_VM or self.spec.target is Kind.VM)

    def parents(self, first: OperationId) -> tuple[OperationId, ...]:
        """The ids of what it is carried out as: one batch, or an operation for each node."""
        more = len(self.targets) - 1 if self.spec.target is Kind.NODE else 0
        return (first, *(OperationId(f"{first}-{number}") for number in range(1, more + 1)))

    def operations(
        self, event: ev.ActionRequested, view: ClusterView
    ) -> list[tuple[Operation, list[Operation]]]:
        """What it is carried out as, each with one operation per step, as the journal will have them."""
        if self.spec.begin is not None:
            return self.spec.begin(self, event, view)
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
        return [(batch, children)]


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
    NODE = "Node"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec(Generic[P]):
    """An action on VMs, or on nodes.

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
    decide: Callable[[ClusterView, Any, P], Verdict]  # of a Vm, or of a Node
    target: Kind = Kind.VM  # or NODE
    change: VmChange | None = None
    kind: OperationKind = OperationKind.CHANGE
    destructive: bool = False  # asks once, with counts
    consequence: str = ""  # the confirmation's body
    shortcut: str = ""
    icon: str = ""
    move: MoveType = MoveType.LIVE  # of a move
    reverse: Callable[[Operation, ClusterView], tuple[str, Any] | None] | None = None
    cancels: bool = False  # it ends the work on its targets, and is no work of its own
    detail: Callable[[Operation, PlanStep, VmConfig | None, P], Operation] | None = (
        None  # puts the parameters into the journal's record of one step
    )
    arrange: Callable[[ClusterView, list[PlanStep], P], tuple[list[PlanStep], list[Skipped]]] | None = (
        None  # looks at all steps together
    )
    draft: Callable[[ClusterView, list[Node], P], tuple[list[PlanStep], list[Skipped]]] | None = (
        None  # of an action on nodes: what is done to them, and to VMs for it
    )
    begin: (
        Callable[[Plan[P], ev.ActionRequested, ClusterView], list[tuple[Operation, list[Operation]]]] | None
    ) = None  # of an action on nodes: what it is carried out as

    def verdict(self, view: ClusterView, key: str, parameters: P | None = None) -> Verdict:
        """Whether the action applies to one VM, or node, and if not, why."""
        given = self.default if parameters is None else parameters
        if self.target is Kind.NODE:
            return self._of_node(view, key, given)
        vm = view.vms.get(VmId(key))
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

    def _of_node(self, view: ClusterView, key: str, parameters: P) -> Verdict:
        node = view.nodes.get(NodeId(key))
        missing = Denied(reason=because(ReasonCode.NO_SUCH_NODE, node=key))
        return self.decide(view, node, parameters) if node is not None else missing

    def is_enabled(self, view: ClusterView, ids: Iterable[str]) -> bool:
        """Whether it applies to any of these; stops at the first that it does."""
        return any(isinstance(self.verdict(view, key), Allowed) for key in ids)

    def plan(self, view: ClusterView, ids: Iterable[str], parameters: P | None = None) -> Plan[P]:
        """What it would do to these VMs, or nodes. Nothing is changed."""
        given = self.default if parameters is None else parameters
        steps: list[PlanStep] = []
        skipped: list[Skipped] = []
        nodes: list[Node] = []
        for key in dict.fromkeys(ids):
            if self.draft is not None:
                vm_id, name, found = NO_VM, key, self._of_node(view, key, given)
                if isinstance(found, Allowed):
                    nodes.append(view.nodes[NodeId(key)])
            else:
                vm_id = VmId(key)
                vm = view.vms.get(vm_id)
                name, found = vm.name if vm else key, self._alone(view, vm, given)
                if isinstance(found, Allowed) and vm is not None:
                    steps.append(_step(vm, found))
            if isinstance(found, Denied):
                skipped.append(
                    Skipped(
                        vm=vm_id,
                        name=name,
                        reason=found.reason,
                        already=found.already,
                        unreachable=found.unreachable,
                    )
                )
        arranged = None
        if self.draft is not None:
            arranged = self.draft(view, nodes, given)
        elif self.arrange is not None:
            arranged = self.arrange(view, steps, given)
        if arranged is not None:
            steps = arranged[0]
            skipped += arranged[1]
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
        if self.cancels:
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
        plain = Operation(
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
            move=self.move,
            change=self.change,
            priority=int((config.settings if config else VmSettings()).priority),
            memory_mib=config.memory_mib if config else 0,
            vcpus=config.vcpus if config else 0,
            order=place,
        )
        return self.detail(plain, step, config, parameters) if self.detail else plain


ACTIONS: dict[str, ActionSpec[Any]] = {}
"""All actions by their ids, in the order of menus; filled by the package."""


# --- rules of more than one family ------------------------------------------------------------

ON = frozenset({VmStatus.RUNNING, VmStatus.PAUSED})
"""A VM in one of these has a process on its node."""


def looks_only(view: ClusterView, node: Node | None) -> bool:
    """Whether nothing can be changed there. In a dump neither, but plans are what it is for."""
    if view.config.tier is Tier.DUMP:
        return False
    return view.config.read_only or bool(node and node.facts and node.facts.read_only)


def common(view: ClusterView, vm: Vm, *, needs_free: bool = True) -> Denied | None:
    """What forbids any action on a VM."""
    node = view.nodes.get(vm.owner) if vm.owner else None
    if looks_only(view, node):
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


def places(vm: Vm) -> str:
    """The nodes that have a VM, for people."""
    return ", ".join(sorted({str(vm.owner), *vm.other_nodes}))

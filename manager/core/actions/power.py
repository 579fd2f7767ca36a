"""Starting, stopping and pausing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from manager.core.actions.spec import (
    ON,
    ActionSpec,
    Allowed,
    Denied,
    Group,
    NoParameters,
    PlanStep,
    Verdict,
    common,
    places,
)
from manager.core.cluster import ClusterView
from manager.core.effects import VmChange
from manager.core.model import StatusCause, Vm, VmConfig, VmStatus
from manager.core.operations import Operation
from manager.core.reasons import ReasonCode, because


class ShutDownHow(StrEnum):
    """Who asks the guest."""

    ACPI = "acpi"  # the power button
    AGENT = "agent"  # the guest agent


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutDownParameters:
    """How a guest is asked to shut down."""

    how: ShutDownHow = ShutDownHow.ACPI


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
            return Denied(reason=because(ReasonCode.RUNS_TWICE, nodes=places(vm)))
        if vm.status in allowed:
            return Allowed(target=vm.owner)
        if already and vm.status in already:
            return Denied(
                reason=because(already[vm.status], node=str(vm.owner), status=vm.status.value), already=True
            )
        return Denied(reason=because(other, status=vm.status.value))

    return decide


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


def _how(operation: Operation, _: PlanStep, __: VmConfig | None, parameters: ShutDownParameters) -> Operation:
    through_agent = parameters.how is ShutDownHow.AGENT
    return replace(operation, change=VmChange.SHUT_DOWN_AGENT) if through_agent else operation


def _whence(operation: Operation, step: PlanStep, _: VmConfig | None, __: NoParameters) -> Operation:
    return replace(operation, restores=step.status is VmStatus.SAVED)


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
    detail=_whence,
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
    detail=_how,
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
    decide=_power(ON, {VmStatus.SAVED: ReasonCode.ALREADY_SAVED}, other=ReasonCode.NOT_RUNNING),
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
    decide=_power(ON, {s: ReasonCode.ALREADY_OFF for s in (VmStatus.OFF, VmStatus.CRASHED)}, of_two=True),
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
    decide=_power(ON, other=ReasonCode.NOT_RUNNING),
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

POWER = (
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
)

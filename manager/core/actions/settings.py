"""What is set of a VM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from manager.core.actions.spec import ActionSpec, Allowed, Denied, Group, PlanStep, Verdict, common
from manager.core.cluster import ClusterView
from manager.core.model import Priority, Vm, VmConfig, VmSettings
from manager.core.operations import Operation, OperationKind
from manager.core.reasons import ReasonCode, because


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityParameters:
    """The startup priority to set."""

    priority: Priority = Priority.MEDIUM


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsParameters:
    """The tags a VM has afterwards."""

    tags: tuple[str, ...] = ()


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


def _written(operation: Operation, _: PlanStep, config: VmConfig | None, parameters: Any) -> Operation:
    before = config.settings if config else VmSettings()
    if isinstance(parameters, PriorityParameters):
        after = replace(before, priority=parameters.priority)
    else:
        after = replace(before, tags=parameters.tags)
    return replace(operation, settings=after, before=before, priority=int(after.priority))


def _old_priority(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    before = operation.before
    return ("vm.priority", PriorityParameters(priority=before.priority)) if before else None


def _old_tags(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    before = operation.before
    return ("vm.tags", TagsParameters(tags=before.tags)) if before else None


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
    detail=_written,
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
    detail=_written,
    icon="tags",
    reverse=_old_tags,
)

SETTINGS = (PRIORITY, TAGS)

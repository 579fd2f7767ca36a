"""What is set of a VM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from manager.core import tags
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
    """Which tags go and which come; `tags`: in place of all that a VM has."""

    tags: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


def _decide_settings(view: ClusterView, vm: Vm, parameters: Any) -> Verdict:
    denied = common(view, vm, needs_free=False)  # it waits until other work on the VM has ended
    if denied is not None:
        return denied
    if vm.config is None:
        return Denied(reason=because(ReasonCode.DEFINITION_UNREAD))
    before = vm.config.settings
    after = _after(before, parameters)
    if after == before:
        return Denied(reason=because(ReasonCode.ALREADY_SET), already=True)
    if isinstance(parameters, PriorityParameters):
        return Allowed(target=vm.owner)
    came, went = tags.difference(before.tags, after.tags)
    # What somebody else wrote there may break our rules; only what comes is held to them.
    trouble = tags.trouble(came)
    if trouble is None and came and len(after.tags) > tags.MAX_TAGS:
        trouble = because(ReasonCode.TOO_MANY_TAGS, count=len(after.tags), most=tags.MAX_TAGS)
    if trouble is not None:
        return Denied(reason=trouble)
    said = [f"adds {', '.join(came)}"] if came else []
    said += [f"removes {', '.join(went)}"] if went else []
    note = because(ReasonCode.TAGS_CHANGE, what="; ".join(said) or "changes their order")
    return Allowed(target=vm.owner, note=note)


def _after(before: VmSettings, parameters: Any) -> VmSettings:
    if isinstance(parameters, PriorityParameters):
        return replace(before, priority=parameters.priority)
    return replace(
        before,
        tags=tags.changed(before.tags, tags=parameters.tags, add=parameters.add, remove=parameters.remove),
    )


def _written(operation: Operation, _: PlanStep, config: VmConfig | None, parameters: Any) -> Operation:
    before = config.settings if config else VmSettings()
    after = _after(before, parameters)
    return replace(operation, settings=after, before=before, priority=int(after.priority))


def _old_priority(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    before = operation.before
    return ("vm.priority", PriorityParameters(priority=before.priority)) if before else None


def _old_tags(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    before, after = operation.before, operation.settings
    if before is None or after is None:
        return None
    came, went = tags.difference(before.tags, after.tags)
    return "vm.tags", TagsParameters(add=went, remove=came)  # what others changed since stays


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
    verb="Change the tags of",
    command="tag",
    group=Group.SETTINGS,
    doc="Add and remove tags, words to find and group VMs by.",
    default=TagsParameters(),
    decide=_decide_settings,
    kind=OperationKind.SETTINGS,
    detail=_written,
    icon="tags",
    reverse=_old_tags,
)

SETTINGS = (PRIORITY, TAGS)

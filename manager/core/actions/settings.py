"""What is set of a VM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from manager.core import rules, tags
from manager.core.actions.spec import ActionSpec, Allowed, Denied, Group, PlanStep, Verdict, common
from manager.core.cluster import ClusterView
from manager.core.ids import NodeId
from manager.core.model import PlacementRule, Priority, Vm, VmConfig, VmSettings
from manager.core.operations import Operation, OperationKind
from manager.core.reasons import Reason, ReasonCode, because


class _Change(Protocol):
    """What is to become of a VM's settings."""

    def after(self, before: VmSettings) -> VmSettings:
        """The settings then."""
        ...

    def trouble(self, view: ClusterView, before: VmSettings, after: VmSettings) -> Reason | None:
        """Why that cannot be. Only what comes is held to it: others may have written what breaks it."""
        ...

    def said(self, before: VmSettings, after: VmSettings) -> Reason | None:
        """What changes, where the parameters alone do not tell."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityParameters:
    """The startup priority to set."""

    priority: Priority = Priority.MEDIUM

    def after(self, before: VmSettings) -> VmSettings:
        """With that priority."""
        return replace(before, priority=self.priority)

    def trouble(self, view: ClusterView, before: VmSettings, after: VmSettings) -> Reason | None:
        """There is none."""
        return None

    def said(self, before: VmSettings, after: VmSettings) -> Reason | None:
        """The parameters tell all."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsParameters:
    """Which tags go and which come; `tags`: in place of all that a VM has."""

    tags: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    def after(self, before: VmSettings) -> VmSettings:
        """With those tags."""
        now = tags.changed(before.tags, tags=self.tags, add=self.add, remove=self.remove)
        return replace(before, tags=now)

    def trouble(self, view: ClusterView, before: VmSettings, after: VmSettings) -> Reason | None:
        """A tag that is none, or too many."""
        came, _ = tags.difference(before.tags, after.tags)
        trouble = tags.trouble(came)
        if trouble is None and came and len(after.tags) > tags.MAX_TAGS:
            return because(ReasonCode.TOO_MANY_TAGS, count=len(after.tags), most=tags.MAX_TAGS)
        return trouble

    def said(self, before: VmSettings, after: VmSettings) -> Reason | None:
        """Which come and which go."""
        came, went = tags.difference(before.tags, after.tags)
        return because(ReasonCode.TAGS_CHANGE, what=_came_and_went(came, went) or "changes their order")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnersParameters:
    """On which nodes VMs may run, and where they should rather. None: as it is; empty: any, and none."""

    possible: tuple[NodeId, ...] | None = None
    preferred: tuple[NodeId, ...] | None = None

    def after(self, before: VmSettings) -> VmSettings:
        """With those owners."""
        return replace(
            before,
            possible_owners=before.possible_owners if self.possible is None else self.possible,
            preferred_owners=before.preferred_owners if self.preferred is None else self.preferred,
        )

    def trouble(self, view: ClusterView, before: VmSettings, after: VmSettings) -> Reason | None:
        """A node that the cluster does not have."""
        known = {*view.nodes, *before.possible_owners, *before.preferred_owners}
        named = (*after.possible_owners, *after.preferred_owners)
        unknown = next((node for node in named if node not in known), None)
        return because(ReasonCode.NO_SUCH_NODE, node=unknown) if unknown is not None else None

    def said(self, before: VmSettings, after: VmSettings) -> Reason | None:
        """The owners then, of those that change."""
        parts = []
        if after.possible_owners != before.possible_owners:
            parts.append(f"possible owners: {', '.join(after.possible_owners) or 'all nodes'}")
        if after.preferred_owners != before.preferred_owners:
            parts.append(f"preferred owners: {', '.join(after.preferred_owners) or 'none'}")
        return because(ReasonCode.OWNERS_CHANGE, what="; ".join(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesParameters:
    """Which rules come, each in place of its group's, and of which groups there is none any more."""

    add: tuple[PlacementRule, ...] = ()
    remove: tuple[str, ...] = ()

    def after(self, before: VmSettings) -> VmSettings:
        """With those rules."""
        return replace(before, rules=rules.changed(before.rules, add=self.add, remove=self.remove))

    def trouble(self, view: ClusterView, before: VmSettings, after: VmSettings) -> Reason | None:
        """A group that can be none, or too many."""
        came, _ = rules.difference(before.rules, after.rules)
        trouble = rules.trouble(rule.group for rule in came)
        if trouble is None and came and len(after.rules) > rules.MAX_RULES:
            return because(ReasonCode.TOO_MANY_RULES, count=len(after.rules), most=rules.MAX_RULES)
        return trouble

    def said(self, before: VmSettings, after: VmSettings) -> Reason | None:
        """Which come and which go."""
        came, went = rules.difference(before.rules, after.rules)
        return because(ReasonCode.RULES_CHANGE, what=_came_and_went([rule.text for rule in came], went))


def _came_and_went(came: tuple[str, ...] | list[str], went: tuple[str, ...]) -> str:
    said = [f"adds {', '.join(came)}"] if came else []
    said += [f"removes {', '.join(went)}"] if went else []
    return "; ".join(said)


def _decide_settings(view: ClusterView, vm: Vm, parameters: _Change) -> Verdict:
    denied = common(view, vm, needs_free=False)  # it waits until other work on the VM has ended
    if denied is not None:
        return denied
    if vm.config is None:
        return Denied(reason=because(ReasonCode.DEFINITION_UNREAD))
    before = vm.config.settings
    after = parameters.after(before)
    if after == before:
        return Denied(reason=because(ReasonCode.ALREADY_SET), already=True)
    trouble = parameters.trouble(view, before, after)
    if trouble is not None:
        return Denied(reason=trouble)
    return Allowed(target=vm.owner, note=parameters.said(before, after))


def _written(operation: Operation, _: PlanStep, config: VmConfig | None, parameters: _Change) -> Operation:
    before = config.settings if config else VmSettings()
    after = parameters.after(before)
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


def _old_owners(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    before, after = operation.before, operation.settings
    if before is None or after is None:
        return None
    possible = before.possible_owners if before.possible_owners != after.possible_owners else None
    preferred = before.preferred_owners if before.preferred_owners != after.preferred_owners else None
    return "vm.owners", OwnersParameters(possible=possible, preferred=preferred)


def _old_rules(operation: Operation, _: ClusterView) -> tuple[str, Any] | None:
    before, after = operation.before, operation.settings
    if before is None or after is None:
        return None
    back, without = rules.difference(after.rules, before.rules)
    return "vm.rules", RulesParameters(add=back, remove=without)


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

OWNERS: ActionSpec[Any] = ActionSpec(
    id="vm.owners",
    title="Owners",
    verb="Change the owners of",
    command="owners",
    group=Group.SETTINGS,
    doc="Say on which nodes VMs may run, and on which they should rather run.",
    default=OwnersParameters(),
    decide=_decide_settings,
    kind=OperationKind.SETTINGS,
    detail=_written,
    reverse=_old_owners,
)

RULES: ActionSpec[Any] = ActionSpec(
    id="vm.rules",
    title="Rules",
    verb="Change the rules of",
    command="rules",
    group=Group.SETTINGS,
    doc="Keep VMs of a group apart from each other, or together.",
    default=RulesParameters(),
    decide=_decide_settings,
    kind=OperationKind.SETTINGS,
    detail=_written,
    reverse=_old_rules,
)

SETTINGS = (PRIORITY, TAGS, OWNERS, RULES)

"""Rules that keep VMs apart or together: what may be one, and what a change makes of those that a VM has."""

from __future__ import annotations

from collections.abc import Iterable

from manager.core.model import PlacementRule
from manager.core.reasons import Reason, ReasonCode, because

MAX_LENGTH = 64
"""Characters of the name of a group."""

MAX_RULES = 16
"""Rules of one VM."""


def trouble(names: Iterable[str]) -> Reason | None:
    """Why one of these cannot be the name of a group: metadata, lists and the command line must carry it."""
    for name in names:
        sound = name and name == name.strip() and name.isprintable() and "," not in name
        if not sound or len(name) > MAX_LENGTH:
            shown = ascii(name)[1:-1][:MAX_LENGTH]
            return because(ReasonCode.RULE_GROUP, group=shown, most=MAX_LENGTH)
    return None


def changed(
    now: tuple[PlacementRule, ...], *, add: Iterable[PlacementRule] = (), remove: Iterable[str] = ()
) -> tuple[PlacementRule, ...]:
    """The rules afterwards: without those of some groups; a new one takes the place of its group's."""
    came = {rule.group: rule for rule in add}
    gone = {*remove} - came.keys()
    kept = (came.pop(rule.group, rule) for rule in now if rule.group not in gone)
    return (*kept, *came.values())


def difference(
    before: tuple[PlacementRule, ...], after: tuple[PlacementRule, ...]
) -> tuple[tuple[PlacementRule, ...], tuple[str, ...]]:
    """Which rules came, and the groups of which none is left."""
    left = {rule.group for rule in after}
    return tuple(r for r in after if r not in before), tuple(r.group for r in before if r.group not in left)

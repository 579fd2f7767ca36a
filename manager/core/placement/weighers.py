"""Where a VM goes best: each weigher ranks nodes; of two the first that tells them apart decides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from manager.core.ids import NodeId
from manager.core.model import PlacementRule, RuleKind
from manager.core.placement.room import Groups, Site, Wish
from manager.core.reasons import Reason, ReasonCode, because


class Weigher(Protocol):
    """One thing that makes a node better or worse."""

    title: str

    def concerns(self, wish: Wish) -> bool:
        """Whether it can tell nodes apart for this VM."""
        ...

    def rank(self, wish: Wish, site: Site) -> float:
        """How far it is from the best there can be; smaller is better."""
        ...

    def reason(self, wish: Wish, site: Site) -> Reason | None:
        """What is to be said of this node, or None if there is nothing special."""
        ...


class Wished(Weigher, Protocol):
    """One that only some VMs ask for, and that tells only few nodes from all others."""

    def special(self, wish: Wish) -> Iterable[NodeId]:
        """Those nodes."""
        ...


class RatherApart:
    """Fewer VMs that it should rather be apart from."""

    title = "Apart"

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def concerns(self, wish: Wish) -> bool:
        """VMs of such a group."""
        return any(rule.kind is not RuleKind.RATHER_TOGETHER for rule in wish.rules)

    def rank(self, wish: Wish, site: Site) -> float:
        """Their number."""
        return sum(len(self._groups.others(wish, rule, site.node.id)) for rule in self._rules(wish))

    def reason(self, wish: Wish, site: Site) -> Reason | None:
        """One of them."""
        return _met(self._groups, wish, self._rules(wish), site, ReasonCode.NOT_APART)

    def special(self, wish: Wish) -> Iterable[NodeId]:
        """Where such VMs are."""
        return (node for rule in self._rules(wish) for node in self._groups.nodes(rule.group))

    @staticmethod
    def _rules(wish: Wish) -> list[PlacementRule]:
        return [rule for rule in wish.rules if rule.kind is not RuleKind.RATHER_TOGETHER]


class PreferredOwners:
    """The first of the VM's preferred owners, then the second, then any."""

    title = "Preferred owner"

    def concerns(self, wish: Wish) -> bool:
        """VMs that name some."""
        return bool(wish.preferred)

    def rank(self, wish: Wish, site: Site) -> float:
        """Its place among them."""
        node = site.node.id
        return wish.preferred.index(node) if node in wish.preferred else len(wish.preferred)

    def reason(self, wish: Wish, site: Site) -> Reason | None:
        """Its place among them, if it has one."""
        place = int(self.rank(wish, site)) + 1
        count = len(wish.preferred)
        return because(ReasonCode.PREFERRED_OWNER, place=place, count=count) if place <= count else None

    def special(self, wish: Wish) -> Iterable[NodeId]:
        """Those that it names."""
        return wish.preferred


class RatherTogether:
    """More VMs that it should rather be together with."""

    title = "Together"

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def concerns(self, wish: Wish) -> bool:
        """VMs of such a group."""
        return bool(self._rules(wish))

    def rank(self, wish: Wish, site: Site) -> float:
        """Less than nothing for each."""
        return -sum(len(self._groups.others(wish, rule, site.node.id)) for rule in self._rules(wish))

    def reason(self, wish: Wish, site: Site) -> Reason | None:
        """One of them."""
        return _met(self._groups, wish, self._rules(wish), site, ReasonCode.TOGETHER)

    def special(self, wish: Wish) -> Iterable[NodeId]:
        """Where such VMs are."""
        return (node for rule in self._rules(wish) for node in self._groups.nodes(rule.group))

    @staticmethod
    def _rules(wish: Wish) -> list[PlacementRule]:
        return [rule for rule in wish.rules if rule.kind is RuleKind.RATHER_TOGETHER]


class StayingPut:
    """Where it is: no move costs nothing."""

    title = "Stays"

    def concerns(self, wish: Wish) -> bool:
        """VMs that are somewhere."""
        return wish.vm.owner is not None

    def rank(self, wish: Wish, site: Site) -> float:
        """Its own node before all others."""
        return 0 if site.node.id == wish.vm.owner else 1

    def reason(self, wish: Wish, site: Site) -> Reason | None:
        """That it is there."""
        return because(ReasonCode.IS_HERE) if site.node.id == wish.vm.owner else None


class Balance:
    """More room: the free share of its memory or vCPUs, whichever is scarcer, so that both even out."""

    title = "Room"

    def concerns(self, wish: Wish) -> bool:
        """Every VM."""
        return True

    def rank(self, wish: Wish, site: Site) -> float:
        """What is not free."""
        return 1.0 - site.share

    def reason(self, wish: Wish, site: Site) -> Reason | None:
        """The share that is free of what is scarcer."""
        percent = max(0, int(100 * site.share))
        if site.scarce_cpus:
            return because(ReasonCode.CPUS_LEFT, percent=percent, left=max(site.free_vcpus, 0))
        return because(ReasonCode.MEMORY_LEFT, percent=percent, free_mib=max(site.free_mib, 0))


class Spread:
    """Fewer VMs of the same plan: they are moved side by side."""

    title = "Plan"

    def concerns(self, wish: Wish) -> bool:
        """Every VM."""
        return True

    def rank(self, wish: Wish, site: Site) -> float:
        """Their number."""
        return site.given

    def reason(self, wish: Wish, site: Site) -> Reason | None:
        """Their number, if there are any."""
        return because(ReasonCode.GIVEN_ALREADY, count=site.given) if site.given else None


def _met(
    groups: Groups, wish: Wish, rules: list[PlacementRule], site: Site, code: ReasonCode
) -> Reason | None:
    """That another VM of one of these groups is there."""
    for rule in rules:
        for other, _ in groups.others(wish, rule, site.node.id):
            return because(code, vm=groups.name(other), group=rule.group)
    return None


def wished(groups: Groups) -> tuple[Wished, ...]:
    """The weightiest: safety first, then what is asked for."""
    return (RatherApart(groups), PreferredOwners(), RatherTogether(groups))


GENERAL: tuple[Weigher, ...] = (StayingPut(), Balance(), Spread())
"""What counts for every VM, after those."""

"""Owners and rules of VMs: what they permit, what they prefer, how they are changed and taken back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.actions import (
    ACTIONS,
    OWNERS,
    RULES,
    Allowed,
    Denied,
    OwnersParameters,
    Plan,
    RulesParameters,
)
from manager.core.execution import merged
from manager.core.ids import NodeId
from manager.core.model import Disk, Interface, PlacementRule, RuleKind, VmConfig, VmSettings, VmStatus
from manager.core.operations import OperationState
from manager.core.placement import planner
from manager.core.reasons import ReasonCode
from manager.core.resource_facts import PoolState, SeenInterface, SeenNetwork, SeenPool
from tests.core.support import Cluster, definition, host_facts, uuid

N1, N2, N3, N4 = (NodeId(f"n{n}") for n in range(1, 5))
APART, RATHER_APART, TOGETHER = RuleKind.APART, RuleKind.RATHER_APART, RuleKind.RATHER_TOGETHER


def nic(kind: str, source: str) -> Interface:
    return Interface(mac="52:54:00:00:00:01", kind=kind, source=source)


def volume(source: str) -> Disk:
    return Disk(target="vda", kind="volume", source=source, cache="none")


def vm_with(memory_mib: int = 1024, rules: tuple[PlacementRule, ...] = (), **settings: object) -> VmConfig:
    config = definition(memory_mib)
    return replace(config, settings=replace(config.settings, rules=rules, **settings))  # type: ignore[arg-type]


def rule(kind: RuleKind, group: str = "db") -> tuple[PlacementRule, ...]:
    return (PlacementRule(kind, group),)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(nodes=4)


def target(cluster: Cluster, name: str) -> tuple[str, str]:
    """The best node for a VM and why; or nothing, and why not."""
    found = ACTIONS["vm.live_migrate"].verdict(cluster.state, uuid(name))
    if isinstance(found, Denied):
        return "", found.reason.text
    assert found.note is not None
    return str(found.target), found.note.text


def settings(cluster: Cluster, name: str) -> VmSettings:
    config = cluster.vm(name).config
    assert config is not None
    return config.settings


# --- owners --------------------------------------------------------------------------------------


def test_a_vm_goes_to_a_possible_owner_only(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(possible_owners=(N1, N4)))
    cluster.add("n4", "much", config=definition(30_000))
    assert target(cluster, "a")[0] == "n4"
    cluster.lose("n4")
    place, why = target(cluster, "a")
    assert not place
    assert "n2: not among its possible owners (n1, n4)" in why
    assert "node n4 cannot be reached" in why


def test_nobody_can_choose_another_node_either(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(possible_owners=(N1, N4)))
    plan = cluster.plan("vm.live_migrate", "a", target=N2)
    assert [s.reason.code for s in plan.skipped] == [ReasonCode.NOT_POSSIBLE_OWNER]
    assert "muster vm owners" in plan.skipped[0].reason.remedy
    assert cluster.plan("vm.live_migrate", "a", target=N4).steps


def test_preferred_owners_are_tried_in_order_then_all_others(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(preferred_owners=(N3, N1, N4)))
    for node in ("n3", "n4"):
        cluster.add(node, f"much on {node}", config=definition(30_000))
    assert target(cluster, "a") == ("n3", "preferred owner, 1 of 3")
    cluster.lose("n3")
    assert target(cluster, "a") == ("n4", "preferred owner, 3 of 3")
    cluster.lose("n4")
    assert target(cluster, "a")[0] == "n2"
    ranked = planner.rank(cluster.state, cluster.vm("a"))
    assert [v.node for v in ranked if v.fits] == ["n2"]


# --- rules ---------------------------------------------------------------------------------------


def test_vms_that_must_be_apart_never_meet(cluster: Cluster) -> None:
    for node, name in (("n1", "db-1"), ("n2", "db-2"), ("n3", "db-3")):
        cluster.add(node, name, config=vm_with(rules=rule(APART)))
    cluster.add("n4", "much", config=definition(40_000))
    assert target(cluster, "db-1")[0] == "n4"
    plan = cluster.plan("vm.live_migrate", "db-1", target=N2)
    assert plan.skipped[0].reason.text == "n2: has db-2, from which it is kept apart (db)"
    both = cluster.plan("vm.live_migrate", "db-1", "db-2")
    assert [s.target for s in both.steps] == [N4]  # the other one has nowhere to go
    assert both.skipped[0].reason.code is ReasonCode.NO_NODE_MAY


def test_it_is_enough_that_one_of_two_asks_for_it_and_those_that_are_off_do_not_count(
    cluster: Cluster,
) -> None:
    cluster.add("n1", "a", config=vm_with(rules=rule(RATHER_APART)))
    cluster.add("n2", "b", config=vm_with(rules=rule(APART)))
    cluster.add("n3", "c", VmStatus.OFF, config=vm_with(rules=rule(APART)))
    cluster.add("n4", "d", config=vm_with(rules=rule(APART, "another")))
    said = {v.node: v.fits for v in planner.rank(cluster.state, cluster.vm("a"))}
    assert said == {"n2": False, "n3": True, "n4": True}


def test_rather_apart_gives_way_before_nothing_is_done(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(rules=rule(RATHER_APART), preferred_owners=(N2,)))
    cluster.add("n2", "b", config=vm_with(rules=rule(RATHER_APART)))
    assert target(cluster, "a")[0] == "n3"  # weightier than a preferred owner
    cluster.lose("n3")
    cluster.lose("n4")
    assert target(cluster, "a") == ("n2", "has b, from which it should rather be apart (db)")


def test_rather_together_follows_the_others_where_they_are_taken(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(rules=rule(TOGETHER)))
    cluster.add("n3", "b", config=vm_with(50_000, rules=rule(TOGETHER)))
    assert target(cluster, "a") == ("n3", "has b, with which it should rather be together (db)")
    cluster.add("n3", "more", config=definition(9_000))
    assert target(cluster, "a")[0] == "n2"


def test_a_move_that_is_under_way_counts_where_it_goes(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(rules=rule(APART)))
    cluster.add("n2", "b", config=vm_with(rules=rule(APART)))
    cluster.ask("vm.live_migrate", "a", target=N3)
    cluster.end(cluster.take(fx.CheckPeerLogin))
    said = {v.node: v.reason.code for v in planner.rank(cluster.state, cluster.vm("b"))}
    assert said[N3] is said[N1] is ReasonCode.KEPT_APART
    assert said[N4] is ReasonCode.CHOSEN_MOST_FREE


def test_of_two_asked_for_at_once_the_second_finds_the_rule_kept(cluster: Cluster) -> None:
    """Each plan was good when it was made; what is let go is looked at again."""
    for node, name in (("n1", "a"), ("n2", "b")):
        cluster.add(node, name, config=vm_with(rules=rule(APART)))
    view = cluster.state
    plans = [cluster.plan("vm.live_migrate", name, target=N3) for name in ("a", "b")]
    assert all(plan.steps for plan in plans)
    cluster.ask("vm.live_migrate", "a", target=N3)
    cluster.ask("vm.live_migrate", "b", target=N3)
    cluster.settle()
    assert (view.vms[uuid("a")].owner, view.vms[uuid("b")].owner) == (N3, N2)


def test_groups_are_forgotten_with_their_last_vm(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(rules=rule(APART)))
    assert set(cluster.state.group("db")) == {uuid("a")}
    cluster.ask("vm.rules", "a", remove=("db",))
    cluster.settle()
    assert not cluster.state.group("db")


# --- changing them -------------------------------------------------------------------------------


def test_owners_of_many_are_set_and_taken_back(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(possible_owners=(N1,), preferred_owners=(N1,)))
    cluster.add("n1", "b")
    plan = OWNERS.plan(
        cluster.state, [uuid("a"), uuid("b")], OwnersParameters(possible=(), preferred=(N2, N1))
    )
    assert [s.note.text if s.note else "" for s in plan.steps] == [
        "possible owners: all nodes; preferred owners: n2, n1",
        "preferred owners: n2, n1",
    ]
    cluster.ask("vm.owners", "a", "b", possible=(), preferred=(N2, N1))
    cluster.settle()
    for name in "ab":
        assert settings(cluster, name).possible_owners == ()
        assert settings(cluster, name).preferred_owners == (N2, N1)
    undo = OWNERS.undo(cluster.operation("b"), cluster.state)
    assert isinstance(undo, Plan)
    assert undo.parameters == OwnersParameters(possible=None, preferred=())
    undo = OWNERS.undo(cluster.operation("a"), cluster.state)
    assert isinstance(undo, Plan)
    assert undo.parameters == OwnersParameters(possible=(N1,), preferred=(N1,))


def test_a_node_that_is_none_is_no_owner_and_what_was_there_stays_possible(cluster: Cluster) -> None:
    old = NodeId("gone")
    cluster.add("n1", "a", config=vm_with(possible_owners=(N1, old)))
    found = OWNERS.verdict(cluster.state, uuid("a"), OwnersParameters(possible=(NodeId("n9"),)))
    assert isinstance(found, Denied)
    assert found.reason.text == "there is no node n9 in this cluster"
    kept = OWNERS.verdict(cluster.state, uuid("a"), OwnersParameters(possible=(N1, N2, old)))
    assert isinstance(kept, Allowed)


def test_rules_come_in_place_of_their_groups_and_are_taken_back(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(rules=(*rule(APART, "web"), *rule(APART, "old"))))
    cluster.ask("vm.rules", "a", add=(*rule(RATHER_APART, "web"), *rule(TOGETHER, "app")), remove=("old",))
    cluster.settle()
    now = ("rather apart: web", "rather together: app")
    assert tuple(r.text for r in settings(cluster, "a").rules) == now
    operation = cluster.operation("a")
    assert operation.state is OperationState.DONE
    cluster.ask("vm.rules", "a", add=rule(APART, "others"))
    cluster.settle()
    undo = RULES.undo(operation, cluster.state)
    assert isinstance(undo, Plan)
    assert undo.steps[0].note is not None
    assert undo.steps[0].note.text == "adds apart: web, apart: old; removes app"
    cluster.ask("vm.rules", "a", add=undo.parameters.add, remove=undo.parameters.remove)
    cluster.settle()
    assert {r.text for r in settings(cluster, "a").rules} == {"apart: web", "apart: others", "apart: old"}


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        (("",), ReasonCode.RULE_GROUP),
        ((" a",), ReasonCode.RULE_GROUP),
        (("a,b",), ReasonCode.RULE_GROUP),
        (("a\x1b",), ReasonCode.RULE_GROUP),
        (("x" * 65,), ReasonCode.RULE_GROUP),
        (tuple(f"g{n}" for n in range(17)), ReasonCode.TOO_MANY_RULES),
    ],
)
def test_limits_of_rules_are_said(cluster: Cluster, groups: tuple[str, ...], code: ReasonCode) -> None:
    cluster.add("n1", "a")
    add = tuple(PlacementRule(APART, group) for group in groups)
    found = RULES.verdict(cluster.state, uuid("a"), RulesParameters(add=add))
    assert isinstance(found, Denied)
    assert found.reason.code is code
    assert found.reason.text.isprintable()


def test_two_who_change_rules_at_once_both_have_their_way() -> None:
    before = VmSettings(rules=(*rule(APART, "a"), *rule(APART, "b")))
    wanted = replace(before, rules=(*rule(RATHER_APART, "a"), *rule(APART, "new")))
    now = replace(before, rules=(*before.rules, *rule(TOGETHER, "c")))
    found = merged(before, wanted, now)
    assert {r.text for r in found.rules} == {"rather apart: a", "apart: new", "rather together: c"}


# --- why here, why not there -----------------------------------------------------------------------


def test_every_node_says_all_that_speaks_against_it_and_what_it_weighs(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(possible_owners=(N1, N2, N3), preferred_owners=(N3,)))
    cluster.add("n4", "full", config=definition(60_000))
    found = {v.node: v for v in planner.explain(cluster.state, cluster.vm("a"))}
    assert list(found) == ["n3", "n1", "n2", "n4"]
    assert [r.code for r in found[N4].refusals] == [
        ReasonCode.NOT_POSSIBLE_OWNER,
        ReasonCode.NO_MEMORY_ON_NODE,
    ]
    assert found[N1].fits
    weights = {w.title: w.reason.text if w.reason else "" for w in found[N1].weights}
    assert weights["Stays"] == "it is here"
    assert weights["Room"].endswith("% of its memory free (60 GiB)")  # without its own share
    assert found[N3].weights[0].reason is not None
    assert found[N3].weights[0].reason.text == "preferred owner, 1 of 1"


def test_its_own_node_may_be_the_wrong_one(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm_with(possible_owners=(N2,)))
    found = {v.node: v for v in planner.explain(cluster.state, cluster.vm("a"))}
    assert not found[N1].fits
    assert found[N1].reason.code is ReasonCode.NOT_POSSIBLE_OWNER
    assert found[N2].fits


def test_what_is_not_there_yet_can_be_placed(cluster: Cluster) -> None:
    room = planner.Room(cluster.state, keep_reserve=True)
    found = room.place(planner.newcomers(20_000, 4, 13))
    placed = Counter(v.node for v in found.values() if isinstance(v, planner.NodeVerdict))
    assert placed == {N1: 2, N2: 2, N3: 2, N4: 2}  # 20.3 GiB each, of 60 on each node
    reasons = [v for v in found.values() if not isinstance(v, planner.NodeVerdict)]
    assert {r.code for r in reasons} == {ReasonCode.NO_NODE_FITS}


# --- what a node must have ---------------------------------------------------------------------------


def told(
    cluster: Cluster, node: str, pools: tuple[SeenPool, ...], nets: tuple[str, ...], bridges: tuple[str, ...]
) -> None:
    """A node says what it has."""
    cluster.feed(
        ev.NodeResourcesRead(
            at_s=cluster.later(),
            node=NodeId(node),
            pools=pools,
            networks=tuple(SeenNetwork(name=name, is_active=name != "asleep") for name in nets),
            interfaces=tuple(SeenInterface(name=name, kind="bridge") for name in bridges),
        )
    )


def nfs(source: str, state: PoolState = PoolState.ACTIVE) -> SeenPool:
    return SeenPool(name="vms", kind="netfs", state=state, hosts=("nas",), source=source)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (definition(arch="x86_64", machine="pc-q35-9.2"), "n2: has no machine type x86_64 pc-q35-9.2"),
        (definition(interfaces=(nic("bridge", "br20"),)), "n2: has no bridge br20"),
        (definition(interfaces=(nic("network", "lab"),)), "n2: has no network lab"),
        (definition(interfaces=(nic("network", "asleep"),)), "n2: network asleep is not active"),
        (definition(disks=(volume("iso/a"),)), "n2: has no pool iso"),
        (definition(disks=(volume("vms/a"),)), "n2: pool vms is other storage there (nas:/other)"),
    ],
)
def test_a_node_must_have_what_the_definition_names(config: VmConfig, text: str) -> None:
    cluster = Cluster(nodes=2)
    cluster.facts[N2] = host_facts("n2", machines=frozenset({"x86_64 pc-q35-8.0"}))
    cluster.connect("n2")
    cluster.add("n1", "a", config=config)
    if not config.machine:
        assert planner.rank(cluster.state, cluster.vm("a"))[0].fits  # nobody told yet
    told(cluster, "n1", (nfs("/vms"),), ("lab", "asleep"), ("br0", "br20"))
    told(cluster, "n2", (nfs("/other"),), ("default", "asleep"), ("br0",))
    assert [v.reason.text for v in planner.rank(cluster.state, cluster.vm("a"))] == [text]
    assert cluster.plan("vm.live_migrate", "a", target=N2).skipped[0].reason.text == text


def test_a_bridge_that_the_vms_own_node_does_not_list_is_not_missed() -> None:
    cluster = Cluster(nodes=2)
    cluster.add("n1", "a", config=definition(interfaces=(nic("bridge", "ovs0"),)))
    told(cluster, "n1", (), (), ("br0",))
    told(cluster, "n2", (nfs("/vms", PoolState.INACTIVE),), (), ("br0",))
    assert planner.rank(cluster.state, cluster.vm("a"))[0].fits
    cluster.add("n1", "b", config=definition(disks=(volume("vms/b"),)))
    assert planner.rank(cluster.state, cluster.vm("b"))[0].reason.text == "n2: pool vms is not active"

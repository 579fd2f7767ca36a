"""Plans over random clusters: none over-commits, breaks a rule or goes where it must not; all repeat."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from manager.core import events as ev
from manager.core.actions import ACTIONS, MigrateParameters, Plan
from manager.core.ids import NodeId, VmId
from manager.core.model import Hold, PlacementRule, Priority, RuleKind, VmSettings, VmStatus
from manager.core.placement import planner
from tests.core.support import Cluster, cluster_config, definition, host_facts, uuid

NODES = [NodeId(f"n{n}") for n in range(1, 6)]
GROUPS = ("db", "web")

_owners = st.lists(st.sampled_from(NODES), max_size=3, unique=True).map(tuple)
_settings = st.builds(
    VmSettings,
    priority=st.sampled_from(Priority),
    possible_owners=st.just(()) | _owners,
    preferred_owners=st.just(()) | _owners,
    rules=st.dictionaries(st.sampled_from(GROUPS), st.sampled_from(RuleKind), max_size=2).map(
        lambda found: tuple(PlacementRule(kind, group) for group, kind in found.items())
    ),
)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Cluster, list[VmId]]:
    """Up to 5 nodes of different size, some held or lost, and up to 14 VMs."""
    count = draw(st.integers(2, 5))
    cluster = Cluster(cluster_config(count), up=False)
    nodes = NODES[:count]
    for node in nodes:
        memory = draw(st.sampled_from([16_384, 32_768]))
        cluster.facts[node] = host_facts(node, memory_mib=memory, cpus=draw(st.sampled_from([2, 8])))
    for number in range(draw(st.integers(1, 14))):
        config = replace(
            definition(draw(st.sampled_from([512, 2048, 4096, 9000]))),
            vcpus=draw(st.integers(1, 6)),
            settings=draw(_settings),
        )
        status = draw(st.sampled_from([VmStatus.RUNNING, VmStatus.RUNNING, VmStatus.OFF]))
        cluster.add(draw(st.sampled_from(nodes)), f"v{number}", status, config=config, known=False)
    for node in nodes:
        cluster.connect(node)
        cluster.sweep(node)
    for node in nodes[1:]:
        fate = draw(st.sampled_from(["", "", "", "held", "lost"]))
        if fate == "held":
            hold = Hold(who="adm", why="repair", since_s=1.0)
            cluster.feed(ev.NodeHeld(at_s=cluster.later(), node=node, hold=hold))
        elif fate == "lost":
            cluster.lose(node)
    wanted = draw(st.lists(st.sampled_from(sorted(cluster.state.vms)), min_size=1, unique=True))
    return cluster, wanted


def plan_of(cluster: Cluster, wanted: list[VmId], target: NodeId | None = None) -> Plan[MigrateParameters]:
    return ACTIONS["vm.live_migrate"].plan(cluster.state, wanted, MigrateParameters(target=target))


def check(cluster: Cluster, plan: Plan[MigrateParameters], *, chosen: bool) -> None:
    state = cluster.state
    policy = state.config.placement
    mib: Counter[NodeId] = Counter()
    vcpus: Counter[NodeId] = Counter()
    for step in plan.steps:
        assert step.target is not None
        vm, node = state.vms[step.vm], state.nodes[step.target]
        assert vm.config is not None
        assert step.target != vm.owner
        assert planner.node_takes_work(node) is None
        assert step.target in (vm.config.settings.possible_owners or state.nodes)
        mib[step.target] += planner.need_mib(vm.config.memory_mib)
        vcpus[step.target] += vm.config.vcpus
    for node_id in mib:
        facts = state.nodes[node_id].facts
        assert facts is not None
        kept = 0 if chosen else planner.reserve_mib(policy, facts.memory_mib)
        assert state.committed_mib(node_id) + mib[node_id] <= facts.memory_mib - kept
        if not chosen:
            most = int(facts.cpus * policy.cpu_overcommit)
            assert state.committed_vcpus(node_id) + vcpus[node_id] <= most
    # Before, while and after the moves: where a VM was, and where it goes.
    places = {vm.id: {vm.owner} for vm in state.vms.values() if vm.status in planner.COUNTED}
    for step in plan.steps:
        places.setdefault(step.vm, set()).add(step.target)
    for step in plan.steps:
        for rule in _rules(cluster, step.vm):
            for other in places.keys() - {step.vm}:
                theirs = [r for r in _rules(cluster, other) if r.group == rule.group]
                kinds = {rule.kind, *(r.kind for r in theirs)}
                if theirs and RuleKind.APART in kinds and RuleKind.RATHER_TOGETHER not in kinds:
                    assert step.target not in places[other], (step.name, other)


def _rules(cluster: Cluster, vm: VmId) -> tuple[PlacementRule, ...]:
    config = cluster.state.vms[vm].config
    return config.settings.rules if config else ()


@given(clusters())
def test_no_plan_over_commits_or_breaks_a_rule(made: tuple[Cluster, list[VmId]]) -> None:
    cluster, wanted = made
    plan = plan_of(cluster, wanted)
    assert {s.vm for s in plan.steps} | {s.vm for s in plan.skipped} == set(wanted)
    check(cluster, plan, chosen=False)
    again = plan_of(cluster, wanted[::-1])  # whatever the order in which they are asked for
    assert {(s.vm, s.target) for s in plan.steps} == {(s.vm, s.target) for s in again.steps}


@given(clusters(), st.sampled_from(NODES))
def test_nor_does_one_to_a_chosen_node(made: tuple[Cluster, list[VmId]], target: NodeId) -> None:
    cluster, wanted = made
    if target in cluster.state.nodes:
        check(cluster, plan_of(cluster, wanted, target), chosen=True)


@given(clusters())
def test_what_is_left_out_would_fit_nowhere_after_the_plan(made: tuple[Cluster, list[VmId]]) -> None:
    """Nobody is left out for whom there is still a place; each filter says so by itself."""
    cluster, wanted = made
    running = [vm for vm in wanted if cluster.state.vms[vm].status is VmStatus.RUNNING]
    room = planner.Room(cluster.state, keep_reserve=True)
    found = room.place(cluster.state.vms[vm] for vm in running)
    after = planner.Room(cluster.state, keep_reserve=True)
    for vm, place in found.items():
        if isinstance(place, planner.NodeVerdict):
            assert isinstance(after.take(cluster.state.vms[vm], place.node), planner.NodeVerdict)
    for vm, place in found.items():
        if not isinstance(place, planner.NodeVerdict):
            assert not any(verdict.fits for verdict in after.ranked(cluster.state.vms[vm]))


@given(clusters())
def test_one_alone_goes_to_the_first_of_the_ranked(made: tuple[Cluster, list[VmId]]) -> None:
    """The heap, the ranking of all nodes and the explanation agree."""
    cluster, wanted = made
    for vm in (cluster.state.vms[key] for key in wanted):
        taken = planner.Room(cluster.state, keep_reserve=True).take(vm, None)
        ranked = planner.rank(cluster.state, vm)
        told = [v for v in planner.explain(cluster.state, vm) if v.node != vm.owner]
        assert [v.node for v in told if v.fits] == [v.node for v in ranked if v.fits]
        if isinstance(taken, planner.NodeVerdict):
            assert taken == ranked[0]
        else:
            assert not any(v.fits for v in ranked)


def test_what_does_not_fit_evenly_is_packed() -> None:
    """Two of 9 GiB spread over two nodes leave no room for one of 20; packed, all three fit."""
    cluster = Cluster(nodes=3)
    for node in ("n2", "n3"):
        cluster.facts[NodeId(node)] = host_facts(node, memory_mib=30_000)
        cluster.connect(node)
    high = VmSettings(priority=Priority.HIGH)
    for name in ("a", "b"):
        cluster.add("n1", name, config=replace(definition(9_000), settings=high))
    cluster.add("n1", "large", config=definition(20_000))
    plan = plan_of(cluster, [uuid(name) for name in ("a", "b", "large")])
    placed = {step.name: step.target for step in plan.steps}
    assert placed["a"] == placed["b"] != placed["large"]

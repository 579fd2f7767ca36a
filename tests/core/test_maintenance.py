"""What a drain would do, before it does it: who moves where, who stays and why, and when it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager.core.actions import ACTIONS, Plan
from manager.core.actions.nodes import NOTES, PauseParameters
from manager.core.ids import NO_VM, NodeId
from manager.core.model import VmStatus
from manager.core.reasons import ReasonCode
from tests.core.support import Cluster, definition, host_facts, uuid

N1, N2, N3 = (NodeId(f"n{n}") for n in range(1, 4))
DRAIN = PauseParameters(drain=True, why="new memory")


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(nodes=3)
    for node in (N1, N2, N3):
        made.facts[node] = replace(host_facts(node), features=host_facts(node).features | {NOTES})
        made.connect(node)
    return made


def drain(cluster: Cluster, *nodes: NodeId) -> Plan[PauseParameters]:
    return ACTIONS["node.pause"].plan(cluster.state, nodes, DRAIN)


def moves(plan: Plan[PauseParameters]) -> dict[str, NodeId | None]:
    return {step.name: step.target for step in plan.steps if step.vm != NO_VM}


def stays(plan: Plan[PauseParameters]) -> dict[str, ReasonCode]:
    return {skipped.name: skipped.reason.code for skipped in plan.skipped}


def test_nodes_drained_together_are_nobodys_targets(cluster: Cluster) -> None:
    for node in ("n1", "n2"):
        for number in range(3):
            cluster.add(node, f"{node}-{number}")
    plan = drain(cluster, N1, N2)
    assert set(moves(plan).values()) == {N3}
    assert len(moves(plan)) == 6
    assert not plan.skipped


def test_without_room_it_is_refused_with_what_is_missing(cluster: Cluster) -> None:
    total = cluster.state.nodes[N1].facts.memory_mib  # type: ignore[union-attr]
    cluster.add("n1", "large", config=definition(total // 2))
    for node in ("n2", "n3"):
        cluster.add(node, f"there-{node}", config=definition(total // 2))
    plan = drain(cluster, N1)
    assert not plan.steps
    assert stays(plan) == {"n1": ReasonCode.DRAIN_NO_ROOM}
    assert "large" in plan.skipped[0].reason.text


def test_a_vm_that_may_run_nowhere_else_stays_and_the_others_go(cluster: Cluster) -> None:
    config = definition(1024)
    bound = replace(config, settings=replace(config.settings, possible_owners=(N1,)))
    cluster.add("n1", "bound", config=bound)
    cluster.add("n1", "free")
    plan = drain(cluster, N1)
    assert set(moves(plan)) == {"free"}
    assert stays(plan) == {"bound": ReasonCode.NO_NODE_MAY}


def test_what_cannot_move_stays_and_nothing_is_stopped(cluster: Cluster) -> None:
    cluster.add("n1", "tied", config=definition(1024, host_devices=("PCI 0000:03:00.0",)))
    cluster.add("n1", "saved", VmStatus.SAVED)
    cluster.add("n1", "free")
    plan = drain(cluster, N1)
    assert set(moves(plan)) == {"free"}
    assert stays(plan)["tied"] is ReasonCode.HOST_DEVICE
    assert "saved" in stays(plan)
    assert uuid("tied") in cluster.state.vms

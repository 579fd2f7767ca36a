"""Every field: text, JSON, sort key; what is not known comes last and is not 0."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.ids import Kind, NodeId
from manager.core.model import (
    Disk,
    Hold,
    Interface,
    NodeLoad,
    Priority,
    StatusCause,
    VmLoad,
)
from manager.core.query.fields import FIELDS
from manager.core.query.operation_fields import operation_title
from manager.core.query.spec import FieldSpec, Unavailable
from manager.core.resource_facts import PoolState, SeenInterface, SeenNetwork, SeenPool, Volume
from tests.core.support import OFF, PAUSED, Cluster, R, definition, uuid

N1 = NodeId("n1")
ALL = [(kind, spec) for kind, specs in FIELDS.items() for spec in specs.values()]
IDS = [f"{kind}.{spec.name}" for kind, spec in ALL]


@pytest.fixture
def cluster() -> Cluster:
    """A bit of everything: known, unknown, moving, waiting, failed, problems."""
    cluster = Cluster()
    cluster.feed(ev.OwnershipTaken(at_s=cluster.later()))
    config = definition(
        1536,
        Priority.HIGH,
        ("web", "prod"),
        disks=(Disk(target="vda", source="/srv/a.img"), Disk(target="sda", device="cdrom")),
        interfaces=(Interface(mac="1", source="br0"), Interface(mac="2", source="br0")),
    )
    cluster.add("n1", "web-2", OFF, config=config)
    cluster.become("n1", "web-2", R, StatusCause.BOOTED)
    cluster.add("n1", "web-10", config=definition(priority=Priority.LOW))
    cluster.add("n2", "db", PAUSED, StatusCause.IO_ERROR)
    cluster.add("n3", "lost")
    cluster.lose("n3")
    cluster.ask("vm.live_migrate", "web-2", target=NodeId("n2"))
    cluster.feed(
        ev.NodeSampled(
            at_s=cluster.later(),
            node=N1,
            load=NodeLoad(cpu_percent=12.3, memory_free_mib=1000),
            vms={uuid("web-2"): VmLoad(cpu_percent=50.4)},
        )
    )
    cluster.ask("vm.live_migrate", "web-10", target=NodeId("n2"))
    cluster.answer(cluster.take(fx.CheckPeerLogin, "web-10"))
    cluster.feed(
        ev.MigrationProgress(
            at_s=cluster.later(65),
            operation=cluster.operation("web-10").id,
            attempt=1,
            elapsed_ms=65_000,
            total_bytes=1 << 30,
            remaining_bytes=1 << 28,
            rate_bytes_per_s=200 << 20,
            dirty_bytes_per_s=72 << 20,
            iteration=3,
        )
    )
    cluster.add("n2", "new", known=False)
    cluster.read("n2")
    pool = SeenPool(name="vms", kind="dir", state=PoolState.ACTIVE, target="/srv")
    network = SeenNetwork(name="default", is_active=True, subnets=("10.0.0.0/8",))
    for node, used in ((N1, 99), (NodeId("n2"), None)):
        size = None if used is None else 100
        cluster.feed(
            ev.NodeResourcesRead(
                at_s=cluster.now,
                node=node,
                pools=(replace(pool, capacity_bytes=size, free_bytes=size and size - used),),
                networks=(network,) * (node == N1),
                interfaces=(SeenInterface(name="br0", kind="bridge"),),
            )
        )
    return cluster


def rows(cluster: Cluster, kind: Kind) -> list[object]:
    state = cluster.state
    return list(
        {
            Kind.VM: state.vms,
            Kind.NODE: state.nodes,
            Kind.OPERATION: state.operations,
            Kind.PROBLEM: state.problems,
            Kind.POOL: state.resources.pools,
            Kind.NETWORK: state.resources.networks,
            Kind.VOLUME: {
                "known": Volume(
                    id="a", name="a", path="/srv/a", capacity_bytes=9, users=("web-2",), overlays=1
                ),
                "not asked": Volume(id="b", name="b"),
            },
            Kind.EVENT: state.events,
        }[kind].values()
    )


@pytest.mark.parametrize(("kind", "spec"), ALL, ids=IDS)
def test_every_field_has_text_json_and_order_for_every_row(
    cluster: Cluster, kind: Kind, spec: FieldSpec
) -> None:
    found = rows(cluster, kind)
    assert found
    known = []
    for row in found:
        cell = spec.cell(cluster.state, row)
        assert isinstance(cell, str)
        assert "StatusCause" not in cell
        assert "None" not in cell or kind is Kind.NODE  # a drain's state has that name
        json.dumps(spec.as_json(cluster.state, row))
        value = spec.value(cluster.state, row)
        if isinstance(value, Unavailable):
            assert cell in ("…", "–") if value.last is None else cell == spec.text(value.last)
            assert spec.as_json(cluster.state, row) is None
            assert value.reason.text
        elif value is not None:
            known.append(row)
    order = sorted(found, key=lambda row: spec.sort_key(cluster.state, row))
    random.Random(1).shuffle(found)
    again = sorted(found, key=lambda row: spec.sort_key(cluster.state, row))
    keys = [spec.sort_key(cluster.state, row) for row in order]
    assert keys == [spec.sort_key(cluster.state, row) for row in again]
    assert all(row in known for row in order[: len(known)])  # what is not known comes last
    assert spec.title
    assert spec.doc.endswith(".")


@pytest.mark.parametrize(("kind", "spec"), ALL, ids=IDS)
def test_a_field_depends_on_attributes_there_are(kind: Kind, spec: FieldSpec, cluster: Cluster) -> None:
    beside = {"*", "load", "progress", "committed", "moving", "moves", "kept"}
    beside |= {"users"} if kind in (Kind.POOL, Kind.NETWORK) else set()
    for row in rows(cluster, kind):
        assert not [name for name in spec.depends - beside if not hasattr(row, name)]


def vm(cluster: Cluster, name: str, field: str) -> tuple[str, object]:
    spec, row = FIELDS[Kind.VM][field], cluster.vm(name)
    return spec.cell(cluster.state, row), spec.as_json(cluster.state, row)


def test_a_vms_cells(cluster: Cluster) -> None:
    assert vm(cluster, "web-2", "name") == ("web-2", "web-2")
    assert vm(cluster, "web-2", "status") == ("Running", "Running")
    assert vm(cluster, "web-2", "activity") == ("Checking", "Checking")
    assert vm(cluster, "web-2", "owner") == ("n1 → n2", "n1")
    assert vm(cluster, "web-2", "priority") == ("High", "High")
    assert vm(cluster, "web-2", "memory_mib") == ("1.5", 1536)
    assert vm(cluster, "web-2", "vcpus") == ("2", 2)
    assert vm(cluster, "web-2", "cpu") == ("50", 50.4)
    assert vm(cluster, "web-2", "tags") == ("web, prod", ["web", "prod"])
    assert vm(cluster, "web-2", "disks")[1] == ["vda: /srv/a.img", "sda: empty"]
    assert vm(cluster, "web-2", "networks") == ("br0", ["br0"])
    assert vm(cluster, "web-2", "uptime_s")[0].startswith("1 min")
    assert vm(cluster, "web-2", "movable") == ("yes", True)
    assert vm(cluster, "web-2", "uuid") == (uuid("web-2"), uuid("web-2"))
    assert vm(cluster, "db", "status") == ("Paused: disk error", "Paused")
    assert vm(cluster, "lost", "status") == ("Unknown (was Running)", "Unknown")
    assert vm(cluster, "new", "memory_mib") == ("…", None)
    assert vm(cluster, "web-10", "uptime_s") == ("–", None)
    assert vm(cluster, "db", "uptime_s") == ("", None)


def test_a_nodes_cells(cluster: Cluster) -> None:
    def node(name: str, field: str) -> tuple[str, object]:
        spec, row = FIELDS[Kind.NODE][field], cluster.node(name)
        return spec.cell(cluster.state, row), spec.as_json(cluster.state, row)

    assert node("n1", "status") == ("Up", "Up")
    assert node("n1", "vms") == ("2", 2)
    assert node("n1", "running") == ("2", 2)
    assert node("n1", "cpus") == ("16", 16)
    assert node("n1", "cpu") == ("12", 12.3)
    assert node("n1", "memory_mib") == ("64", 65536)
    assert node("n1", "memory_free_mib")[1] == 1000  # as the host says
    free = 65536 - cluster.state.committed_mib(NodeId("n2"))
    assert node("n2", "memory_free_mib")[1] == free  # what its VMs and moves leave
    assert node("n3", "status") == ("Unknown", "Unknown")
    assert node("n3", "memory_free_mib") == ("–", None)
    assert node("n1", "uri")[0] == "qemu+ssh://root@n1/system"
    hold = Hold(who="x", why="y", since_s=1.0)
    cluster.feed(ev.NodeHeld(at_s=cluster.now, node=N1, hold=hold))
    assert node("n1", "status")[0] == "Paused"
    assert node("n1", "information")[0] == "paused by x since 00:00:01: y"


def test_an_operations_cells(cluster: Cluster) -> None:
    def cell(field: str) -> str:
        return FIELDS[Kind.OPERATION][field].cell(cluster.state, cluster.operation("web-10"))

    assert cell("title") == "Live migrate web-10"
    assert (cell("from"), cell("to"), cell("priority")) == ("n1", "n2", "Low")
    assert cell("phase") == "Copying"
    assert cell("percent") == "75 %"
    assert (cell("rate"), cell("dirty"), cell("remaining")) == ("200", "72", "256 MiB")
    assert (cell("iteration"), cell("eta"), cell("attempt")) == ("3", "0:02", "1")
    assert cell("elapsed") == "1:05"
    assert cell("author") == "adm"
    batch = cluster.state.operations[cluster.operation("web-10").parent]  # type: ignore[index]
    assert operation_title(batch) == "Live migrate 1 VM"


def test_a_problems_cells(cluster: Cluster) -> None:
    found = cluster.state.problems[f"vm:{uuid('db')}"]

    def cell(field: str) -> str:
        return FIELDS[Kind.PROBLEM][field].cell(cluster.state, found)

    assert (cell("subject"), cell("reason"), cell("affected")) == (
        "VM db",
        "paused: disk error",
        "1 VM",
    )


def sorted_names(cluster: Cluster, field: str) -> list[str]:
    spec = FIELDS[Kind.VM][field]
    order = sorted(cluster.state.vms.values(), key=lambda v: spec.sort_key(cluster.state, v))
    return [v.name for v in order]


def test_names_sort_as_people_count(cluster: Cluster) -> None:
    names = sorted_names(cluster, "name")
    assert names.index("web-2") < names.index("web-10")


def test_priorities_sort_by_rank_not_by_letter(cluster: Cluster) -> None:
    names = sorted_names(cluster, "priority")
    assert names.index("web-10") < names.index("db") < names.index("web-2")
    assert names[-1] == "new"  # not read yet


@pytest.mark.parametrize("kind", Kind)
def test_names_and_titles_are_unique(kind: Kind) -> None:
    titles = [spec.title for spec in FIELDS[kind].values()]
    assert len(set(titles)) == len(titles)
    assert all(name == spec.name for name, spec in FIELDS[kind].items())


def test_the_contract_of_the_command_line_is_kept() -> None:
    vms = ["uuid", "name", "status", "activity", "owner", "priority", "information", "vcpus", "memory_mib"]
    nodes = ["name", "status", "uri", "vms", "cpus", "memory_mib", "memory_free_mib"]
    assert set(vms) <= FIELDS[Kind.VM].keys()
    assert set(nodes) <= FIELDS[Kind.NODE].keys()

"""Pools and networks of the cluster from what each node says: matched, missing, full, used."""

from __future__ import annotations

from typing import Any

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.ids import Kind, NetworkId, NodeId, PoolId
from manager.core.model import Disk, Interface, MigrationLimits, StatusCause, VmStatus
from manager.core.query.fields import FIELDS
from manager.core.resource_facts import (
    Network,
    NetworkStatus,
    Pool,
    PoolState,
    PoolStatus,
    SeenInterface,
    SeenNetwork,
    SeenPool,
    Volume,
)
from manager.core.resources import names_text, with_users
from tests.core.support import Cluster, cluster_config, definition, uuid

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
GIB = 1 << 30


def pool(name: str = "vms", used: float = 50, **fields: Any) -> SeenPool:
    values: dict[str, Any] = {
        "kind": "dir",
        "state": PoolState.ACTIVE,
        "target": f"/srv/{name}",
        "capacity_bytes": 100 * GIB,
        "free_bytes": int((100 - used) * GIB),
    }
    return SeenPool(name=name, **(values | fields))


def nfs(name: str = "vms", host: str = "nas", path: str = "/export/vms", **fields: Any) -> SeenPool:
    return pool(name, kind="netfs", format="nfs", hosts=(host,), source=path, **fields)


def tell(
    cluster: Cluster,
    node: str,
    *pools: SeenPool,
    networks: tuple[SeenNetwork, ...] | None = (),
    interfaces: tuple[SeenInterface, ...] | None = None,
) -> None:
    cluster.feed(
        ev.NodeResourcesRead(
            at_s=cluster.later(), node=NodeId(node), pools=pools, networks=networks, interfaces=interfaces
        )
    )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(cluster_config(shared_paths=("/srv/vms/",)))


def row(cluster: Cluster, name: str = "vms") -> Pool:
    (found,) = [pool for pool in cluster.state.resources.pools.values() if pool.name == name]
    return found


def network(cluster: Cluster, key: str) -> Network:
    return cluster.state.resources.networks[NetworkId(key)]


def said(cluster: Cluster, of: Pool | Network) -> str:
    kind = Kind.POOL if isinstance(of, Pool) else Kind.NETWORK
    return FIELDS[kind]["information"].cell(cluster.state, of)


# --- which pools are the same ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (nfs(), nfs()),
        (nfs(), nfs(name="other", host="NAS", path="/export/vms/")),  # whatever it is called, or mounted at
        (pool(), pool(name="other", target="/srv/vms")),  # the cluster file says that this path is shared
        (pool("deep", target="/srv/vms/a"), pool("deep", target="/srv/vms/a/")),
        (
            pool(kind="rbd", hosts=("mon-b", "mon-a"), source="libvirt", target=""),
            pool(kind="rbd", hosts=("mon-a", "mon-b"), source="libvirt", target=""),
        ),
        (
            pool(kind="iscsi", hosts=("san",), source="iqn.2026-01.example:x", target="/dev/disk/by-path"),
            pool(kind="iscsi", hosts=("san",), source="iqn.2026-01.example:x", target="/dev/disk/by-id"),
        ),
    ],
)
def test_the_same_source_is_one_pool(cluster: Cluster, here: SeenPool, there: SeenPool) -> None:
    tell(cluster, "n1", here)
    tell(cluster, "n2", there)
    (found,) = cluster.state.resources.pools.values()
    assert found.is_shared
    assert found.nodes == (N1, N2)


@pytest.mark.parametrize(
    ("here", "there", "shared"),
    [
        (nfs(), nfs(host="nas-2"), True),
        (nfs(), nfs(path="/export/iso"), True),
        (pool(target="/var/lib/libvirt/images"), pool(target="/var/lib/libvirt/images"), False),
        (pool(target="/srv/vms-2"), pool(target="/srv/vms-2"), False),  # only looks like the shared path
        (
            pool(kind="logical", source="vg", target="/dev/vg"),
            pool(kind="logical", source="vg", target="/dev/vg"),
            False,
        ),
        (pool(kind="netfs"), pool(kind="netfs"), False),  # without a source nothing can be said
    ],
)
def test_what_only_has_the_same_name_are_two(
    cluster: Cluster, here: SeenPool, there: SeenPool, shared: bool
) -> None:
    tell(cluster, "n1", here)
    tell(cluster, "n2", there)
    assert [p.is_shared for p in cluster.state.resources.pools.values()] == [shared] * 2
    assert sorted(p.nodes for p in cluster.state.resources.pools.values()) == [(N1,), (N2,)]


def test_a_local_pool_is_called_by_its_node_and_is_missing_nowhere(cluster: Cluster) -> None:
    for node in ("n1", "n2", "n3"):
        tell(cluster, node, *[pool("default", target="/var/images")] * (node != "n3"))
    assert list(cluster.state.resources.pools) == ["n1/default", "n2/default"]
    assert all(p.status is PoolStatus.ONLINE for p in cluster.state.resources.pools.values())


# --- missing, inactive, unknown -------------------------------------------------------------------


def test_a_shared_pool_is_missing_where_a_node_that_told_has_none(cluster: Cluster) -> None:
    tell(cluster, "n1", nfs())
    assert row(cluster).status is PoolStatus.ONLINE  # nobody else has told yet
    tell(cluster, "n2", nfs())
    tell(cluster, "n3")
    found = row(cluster)
    assert (found.status, found.missing) == (PoolStatus.PARTLY, (N3,))
    assert said(cluster, found) == "missing on n3"
    tell(cluster, "n3", nfs())
    assert row(cluster).status is PoolStatus.ONLINE
    assert said(cluster, row(cluster)) == ""
    texts = [line.text for line in cluster.state.story(found.id)]
    assert texts == ["Partly online: missing on n3", "Online"]


def test_a_host_without_a_storage_driver_lacks_nothing(cluster: Cluster) -> None:
    tell(cluster, "n1", nfs())
    cluster.feed(
        ev.NodeResourcesRead(at_s=cluster.later(), node=N2, pools=None, networks=None, interfaces=None)
    )
    assert row(cluster).missing == ()


def test_inactive_on_one_is_partly_and_on_all_is_offline(cluster: Cluster) -> None:
    stopped = nfs(state=PoolState.INACTIVE, capacity_bytes=None, free_bytes=None)
    tell(cluster, "n1", nfs())
    tell(cluster, "n2", stopped)
    found = row(cluster)
    assert (found.status, found.inactive) == (PoolStatus.PARTLY, (N2,))
    assert said(cluster, found) == "not active on n2"
    assert found.used_percent == 50  # as the other one says
    tell(cluster, "n1", stopped)
    assert row(cluster).status is PoolStatus.OFFLINE
    assert row(cluster).used_percent is None


def test_of_a_lost_node_nothing_is_said_but_that(cluster: Cluster) -> None:
    tell(cluster, "n1", nfs(used=97), pool("own", used=97, target="/own"))
    tell(cluster, "n2", nfs(used=97))
    tell(cluster, "n3")
    assert set(cluster.state.problems) == {"pool:netfs:nas:/export/vms", "pool:n1/own"}
    cluster.lose("n3")
    assert row(cluster).missing == ()
    cluster.lose("n1")
    own = row(cluster, "own")
    assert (own.status, said(cluster, own)) == (PoolStatus.UNKNOWN, "n1 not heard")
    assert own.used_percent == 97  # the last that is known
    assert row(cluster).status is PoolStatus.ONLINE
    assert set(cluster.state.problems) == {"pool:netfs:nas:/export/vms"}  # the lost node is one of its own
    cluster.connect("n1")
    assert row(cluster, "own").status is PoolStatus.ONLINE


def test_another_name_on_another_node_is_said(cluster: Cluster) -> None:
    for node, name in (("n1", "vms"), ("n2", "vms"), ("n3", "data")):
        tell(cluster, node, nfs(name))
    assert row(cluster).name == "vms"
    assert said(cluster, row(cluster)) == "named data on n3"


# --- full -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "text", "problem"),
    [
        (84.9, "", False),
        (85, "85 % full: 15 GiB of 100 GiB left", False),
        (94.9, "94 % full: 5.1 GiB of 100 GiB left", False),
        (95, "95 % full: 5 GiB of 100 GiB left", True),
        (100, "100 % full: 0 B of 100 GiB left", True),
    ],
)
def test_how_full_it_is(cluster: Cluster, used: float, text: str, problem: bool) -> None:
    tell(cluster, "n1", pool(used=used))
    assert said(cluster, row(cluster)) == text
    assert bool(cluster.state.problems) is problem
    assert bool(cluster.changes[Kind.PROBLEM].added) is problem
    tell(cluster, "n1", pool(used=10))
    assert not cluster.state.problems


def test_a_full_pool_is_named_in_the_problem(cluster: Cluster) -> None:
    tell(cluster, "n1", pool(used=99), pool("own", used=99, target="/own"))
    subject = FIELDS[Kind.PROBLEM]["subject"]
    texts = {subject.cell(cluster.state, problem) for problem in cluster.state.problems.values()}
    assert texts == {"Pool vms", "Pool own on n1"}


def test_a_full_pool_that_is_gone_is_no_problem(cluster: Cluster) -> None:
    tell(cluster, "n1", pool(used=99))
    tell(cluster, "n1")
    assert not cluster.state.problems
    assert not cluster.state.resources.pools
    assert not cluster.changes[Kind.POOL]  # it came and went


def test_the_fullest_answer_counts(cluster: Cluster) -> None:
    tell(cluster, "n1", nfs(used=40))
    tell(cluster, "n2", nfs(used=60))
    assert row(cluster).used_percent == 60


# --- networks -------------------------------------------------------------------------------------


def test_networks_and_bridges_are_matched_by_name(cluster: Cluster) -> None:
    nat = SeenNetwork(name="default", is_active=True, mode="nat", bridge="virbr0", subnets=("10.9.0.0/24",))
    br0, eth = SeenInterface(name="br0", kind="bridge"), SeenInterface(name="eno1")
    own = SeenInterface(name="virbr0", kind="bridge")  # libvirt's own, of the network
    tell(cluster, "n1", networks=(nat,), interfaces=(br0, eth, own))
    tell(cluster, "n2", networks=(), interfaces=(br0,))
    tell(cluster, "n3", networks=(), interfaces=None)  # it has no driver for interfaces
    assert sorted(cluster.state.resources.networks) == ["bridge:br0", "network:default"]
    assert network(cluster, "bridge:br0").status is NetworkStatus.UP
    found = network(cluster, "network:default")
    assert (found.status, said(cluster, found)) == (NetworkStatus.PARTLY, "missing on n2, n3")
    assert found.subnets == ("10.9.0.0/24",)
    assert list(cluster.state.resources.interfaces_of(N1) or ()) == ["br0", "eno1", "virbr0"]
    assert cluster.state.resources.interfaces_of(N3) is None


def test_a_network_of_another_kind_is_said(cluster: Cluster) -> None:
    for node, mode in (("n1", "nat"), ("n2", "nat"), ("n3", "isolated")):
        tell(cluster, node, networks=(SeenNetwork(name="x", is_active=node != "n2", mode=mode),))
    found = network(cluster, "network:x")
    assert said(cluster, found) == "not active on n2; isolated on n3"


def test_what_carries_live_migrations_is_told_by_its_subnet() -> None:
    cluster = Cluster(cluster_config(migration=MigrationLimits(networks=("10.20.0.0/16", "fd00::/64"))))
    bridge = SeenInterface(name="br0", kind="bridge", addresses=("10.20.1.7/24", "no address"))
    tell(
        cluster,
        "n1",
        networks=(SeenNetwork(name="x", is_active=True, subnets=("10.9.0.0/24",)),),
        interfaces=(bridge,),
    )
    assert network(cluster, "bridge:br0").use == "Live migration"
    assert network(cluster, "bridge:br0").subnets == ("10.20.1.0/24",)
    assert network(cluster, "network:x").use == ""


# --- who uses them --------------------------------------------------------------------------------


def vm(cluster: Cluster, node: str, name: str, source: str, kind: str = "file", **fields: Any) -> None:
    fields.setdefault("interfaces", (Interface(mac="1", kind="bridge", source="br0"),))
    config = definition(disks=(Disk(target="vda", source=source, kind=kind),), **fields)
    cluster.add(node, name, config=config)


def users(cluster: Cluster, key: str) -> set[str]:
    found = cluster.state.resources.users(PoolId(key))
    assert len(found) == cluster.state.resources.count_users(PoolId(key))
    return {cluster.state.vms[each].name for each in found}


def test_vms_are_users_by_the_folder_the_pool_or_the_remote_name_of_their_disks(cluster: Cluster) -> None:
    vm(cluster, "n1", "by-path", "/srv/vms/a.qcow2")
    vm(cluster, "n2", "by-volume", "vms/b.qcow2", kind="volume")
    vm(cluster, "n2", "elsewhere", "/srv/vms/sub/c.qcow2")
    vm(cluster, "n1", "local", "/own/d.qcow2")
    vm(cluster, "n2", "other-local", "/own/d.qcow2")
    vm(cluster, "n3", "remote", "rbd://mon/libvirt/image", kind="network")
    rbd = pool("ceph", kind="rbd", hosts=("mon",), source="libvirt", target="")
    for node in ("n1", "n2", "n3"):
        tell(cluster, node, pool(), pool("own", target="/own"), rbd)
    assert users(cluster, "path:/srv/vms") == {"by-path", "by-volume"}
    assert users(cluster, "n1/own") == {"local"}
    assert users(cluster, "n2/own") == {"other-local"}
    assert users(cluster, "rbd:mon:libvirt") == {"remote"}


def test_users_follow_vms_that_move_change_and_go(cluster: Cluster) -> None:
    vm(cluster, "n1", "a", "/own/a.qcow2")
    for node in ("n1", "n2"):
        tell(
            cluster, node, pool("own", target="/own"), interfaces=(SeenInterface(name="br0", kind="bridge"),)
        )
    assert users(cluster, "n1/own") == {"a"}
    assert users(cluster, "bridge:br0") == {"a"}
    cluster.changes = type(cluster.changes)()
    guest = cluster.hosts[N1].pop(uuid("a"))
    cluster.hosts[N2][uuid("a")] = guest
    cluster.read("n2")
    cluster.sweep("n2")
    cluster.read("n1")
    assert users(cluster, "n1/own") == set()
    assert users(cluster, "n2/own") == {"a"}
    told = cluster.changes[Kind.POOL].updated
    assert all("users" in told[key] for key in ("n1/own", "n2/own"))
    guest.config = definition(disks=(), interfaces=())
    cluster.define("n2", uuid("a"))
    assert users(cluster, "n2/own") == set()
    assert users(cluster, "bridge:br0") == set()
    cluster.drop("n2", "a")
    assert users(cluster, "n2/own") == set()


def test_a_volume_names_who_uses_it_and_what_builds_on_it(cluster: Cluster) -> None:
    vm(cluster, "n1", "a", "/srv/vms/a.qcow2")
    vm(cluster, "n2", "twin", "/srv/vms/a.qcow2")
    vm(cluster, "n2", "b", "vms/b.qcow2", kind="volume")
    for node in ("n1", "n2"):
        tell(cluster, node, pool())
    volumes = [
        Volume(id=f"/srv/vms/{name}", name=name, path=f"/srv/vms/{name}", backing=backing)
        for name, backing in (
            ("a.qcow2", "/srv/vms/base.img"),
            ("b.qcow2", "/srv/vms/base.img"),
            ("base.img", ""),
            ("left.img", ""),
        )
    ]
    found = with_users(cluster.state, PoolId("path:/srv/vms"), volumes)
    assert [(v.users, v.overlays) for v in found] == [(("a", "twin"), 0), (("b",), 0), ((), 2), ((), 0)]
    field = FIELDS[Kind.VOLUME]["users"]
    assert [field.cell(cluster.state, v) for v in found] == ["a, twin", "b", "base of 2 volumes", ""]


# --- events ---------------------------------------------------------------------------------------


def test_news_of_a_pool_ask_for_a_read(cluster: Cluster) -> None:
    cluster.feed(ev.NodeResourcesChanged(at_s=cluster.later(), node=N1))
    assert any(isinstance(effect, fx.ReadResources) and effect.node == N1 for effect in cluster.pending)


def test_looking_into_a_pool_freshens_its_figures(cluster: Cluster) -> None:
    tell(cluster, "n1", pool(used=10))
    cluster.feed(ev.PoolVolumesRead(at_s=cluster.later(), node=N1, pool=pool(used=96), volumes=()))
    assert row(cluster).used_percent == 96
    assert cluster.state.problems
    cluster.feed(ev.PoolVolumesRead(at_s=cluster.later(), node=N2, pool=pool(used=96), volumes=()))
    assert row(cluster).nodes == (N1,)  # it was never listed there


def test_the_same_answer_again_changes_nothing(cluster: Cluster) -> None:
    tell(cluster, "n1", pool())
    revision = cluster.state.revision
    tell(cluster, "n1", pool())
    assert cluster.state.revision == revision


def test_a_node_that_is_none_of_ours_is_not_listened_to(cluster: Cluster) -> None:
    tell(cluster, "n9", pool())
    assert not cluster.state.resources.pools


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "n1"), (4, "n1, n2, n3, n4"), (5, "n1, n2, n3 and 2 more"), (12, "n1, n2, n3 and 9 more")],
)
def test_many_nodes_are_counted(count: int, text: str) -> None:
    assert names_text([NodeId(f"n{i + 1}") for i in reversed(range(count))]) == text


# --- VMs that stand still for want of room ------------------------------------------------------


def stopped(cluster: Cluster, *, told: str = "enospc", disk: str = "/srv/vms/a.qcow2") -> None:
    """The hypervisor told why first, as libvirt does; then the state."""
    failed = ev.VmDiskFailed(at_s=cluster.later(), node=N1, vm=uuid("a"), disk=disk, text=told, stopped=True)
    cluster.feed(failed)
    cluster.become("n1", "a", VmStatus.PAUSED, StatusCause.IO_ERROR)


def reason(cluster: Cluster) -> tuple[str, str]:
    """What is said of the VM, and what to do; the problem says the same."""
    found = cluster.vm("a").information
    assert found is not None
    assert cluster.state.problems[f"vm:{uuid('a')}"].reason == found
    return found.text, found.remedy


def test_a_vm_that_found_no_room_names_the_full_pool_and_what_to_do(cluster: Cluster) -> None:
    vm(cluster, "n1", "a", "/srv/vms/a.qcow2")
    tell(cluster, "n1", pool(used=60))
    cluster.pending.clear()
    stopped(cluster)
    assert any(isinstance(each, fx.ReadResources) and each.node == N1 for each in cluster.pending)
    assert reason(cluster) == (
        "paused: disk error, no room left for vda in pool vms",  # what the pool said was older
        "Make room there, then resume it.",
    )
    began = cluster.state.lives
    tell(cluster, "n1", pool(used=100))
    text, remedy = reason(cluster)
    assert text == "paused: disk error, pool vms of vda is 100 % full: 0 B of 100 GiB left"
    assert remedy.startswith("Delete volumes of that pool")
    assert cluster.state.lives == began  # it is the same problem
    tell(cluster, "n1", pool(used=40))
    assert reason(cluster)[0] == "paused: disk error, no room left for vda in pool vms"
    cluster.become("n1", "a", VmStatus.RUNNING, StatusCause.USER)
    assert cluster.information("a") == ""
    cluster.become("n1", "a", VmStatus.PAUSED, StatusCause.IO_ERROR)  # and this time nobody told why
    assert reason(cluster) == ("paused: disk error", "")


def test_a_full_pool_is_named_also_if_nobody_heard_why_the_vm_stopped(cluster: Cluster) -> None:
    vm(cluster, "n1", "a", "/srv/vms/a.qcow2")
    cluster.become("n1", "a", VmStatus.PAUSED, StatusCause.IO_ERROR)
    assert reason(cluster) == ("paused: disk error", "")
    tell(cluster, "n2", pool(used=100, target="/elsewhere"))  # another node's own
    tell(cluster, "n1", pool(used=100), pool("iso", used=100))
    assert "pool vms of vda is 100 % full" in reason(cluster)[0]


@pytest.mark.parametrize(
    ("told", "disk", "text"),
    [
        ("eio", "/srv/vms/a.qcow2", "paused: disk error"),
        ("enospc", "/mnt/other.img", "paused: disk error, no room left for /mnt/other.img"),
        ("enospc", "vda", "paused: disk error, no room left for vda in pool vms"),
    ],
)
def test_other_errors_and_disks_that_are_in_no_pool(
    cluster: Cluster, told: str, disk: str, text: str
) -> None:
    vm(cluster, "n1", "a", "/srv/vms/a.qcow2")
    tell(cluster, "n1", pool(used=60))
    stopped(cluster, told=told, disk=disk)
    assert reason(cluster)[0] == text


def test_an_error_that_did_not_stop_it_is_no_reason_later(cluster: Cluster) -> None:
    vm(cluster, "n1", "a", "/srv/vms/a.qcow2")
    base = {"at_s": cluster.later(), "node": N1, "vm": uuid("a"), "disk": "/srv/vms/a.qcow2"}
    cluster.feed(ev.VmDiskFailed(**base, text="enospc", stopped=False))  # type: ignore[arg-type]
    cluster.become("n1", "a", VmStatus.PAUSED, StatusCause.IO_ERROR)
    assert reason(cluster)[0] == "paused: disk error"

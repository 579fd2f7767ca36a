"""Where a VM may go and where it goes best: filters with reasons, reservations, obstacles, unsafe flag."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from manager.core import events as ev
from manager.core.ids import NodeId
from manager.core.model import Disk, Hold, PlacementPolicy, VmConfig
from manager.core.placement import planner
from manager.core.reasons import Reason, ReasonCode
from tests.core.support import Cluster, cluster_config, definition, host_facts, uuid

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
SHARED = ("/srv/vms",)
DISK = Disk(target="vda", source="/srv/vms/a.qcow2", cache="none")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def verdicts(cluster: Cluster, name: str) -> dict[str, str]:
    """Node -> what is said of it, the best first."""
    ranked = planner.rank(cluster.state, cluster.vm(name))
    return {v.node: "fits" if v.fits else v.reason.text for v in ranked}


@pytest.mark.parametrize(("memory", "overhead"), [(0, 256), (1024, 276), (50_000, 1256)])
def test_a_vm_costs_256_mib_and_2_percent_more(memory: int, overhead: int) -> None:
    assert planner.overhead_mib(memory) == overhead
    assert planner.need_mib(memory) == memory + overhead


@pytest.mark.parametrize(("memory", "kept"), [(16_384, 4096), (81_920, 4096), (200_000, 10_000)])
def test_the_larger_of_two_bounds_is_kept_free(memory: int, kept: int) -> None:
    assert planner.reserve_mib(PlacementPolicy(), memory) == kept


def test_every_other_node_has_a_verdict_with_its_reason_best_first() -> None:
    cluster = Cluster(nodes=6)
    cluster.facts[N2] = host_facts("n2", memory_mib=8192)
    cluster.connect("n2")
    cluster.add("n3", "busy", config=definition(8192))
    cluster.add("n1", "a", config=definition(6000))
    cluster.lose("n4")
    hold = Hold(who="adm", why="repair", since_s=1.0)
    cluster.feed(ev.NodeHeld(at_s=cluster.later(), node=NodeId("n5"), hold=hold))
    assert verdicts(cluster, "a") == {
        "n6": "fits",
        "n3": "fits",
        "n2": "n2: not enough memory (needs 6.2 GiB, free 4 GiB)",
        "n4": "node n4 cannot be reached",
        "n5": "node n5 is held by adm: repair",
    }
    assert list(verdicts(cluster, "a"))[:2] == ["n6", "n3"]


def test_memory_is_that_of_what_runs_or_may_run(cluster: Cluster) -> None:
    need = planner.need_mib(1024)
    cluster.add("n1", "on")
    assert cluster.state.committed_mib(N1) == need
    assert cluster.state.committed_vcpus(N1) == 2
    cluster.add("n1", "off", planner.VmStatus.OFF)
    assert cluster.state.committed_mib(N1) == need
    cluster.lose("n1")  # Unknown: it may
    assert cluster.state.committed_mib(N1) >= need
    cluster.connect("n1")
    assert cluster.state.committed_mib(N1) == need


def test_a_chosen_node_need_not_keep_its_reserve(cluster: Cluster) -> None:
    cluster.facts[N2] = host_facts("n2", memory_mib=8192)
    cluster.connect("n2")
    cluster.add("n1", "a", config=definition(7000))
    row, node = cluster.vm("a"), cluster.node("n2")
    assert not planner.verdict(cluster.state, row, node).fits
    assert planner.verdict(cluster.state, row, node, chosen=True).fits
    assert cluster.plan("vm.live_migrate", "a", target=N2).steps
    cluster.add("n1", "b", config=definition(9000))
    assert not planner.verdict(cluster.state, cluster.vm("b"), node, chosen=True).fits


def test_a_node_of_which_not_all_is_known_takes_nothing(cluster: Cluster) -> None:
    cluster.add("n1", "a")
    cluster.add("n2", "b", known=False)
    cluster.read("n2")
    assert verdicts(cluster, "a")["n2"] == "what runs on n2 is still being read (1 to go)"
    plan = cluster.plan("vm.live_migrate", "a", target=N2)
    assert plan.skipped[0].reason.code is ReasonCode.NODE_BEING_READ
    cluster.sweep("n2")
    assert verdicts(cluster, "a")["n2"] == "fits"


def test_a_plan_of_40_counts_its_own_moves(cluster: Cluster) -> None:
    names = [f"v{i:02}" for i in range(40)]
    for name in names:
        cluster.add("n1", name, config=definition(2048), known=False)
    cluster.facts[N3] = host_facts("n3", memory_mib=32768)
    cluster.connect("n3")
    cluster.read("n1")
    cluster.sweep("n1")
    plan = cluster.plan("vm.live_migrate", *names)
    targets = Counter(step.target for step in plan.steps)
    need = planner.need_mib(2048)
    assert targets == {N2: (65536 - 4096) // need, N3: (32768 - 4096) // need} == {N2: 26, N3: 12}
    assert len(plan.skipped) == 2
    assert plan.skipped[0].reason.text.startswith("no node can take it: n3: not enough memory")
    given = cluster.plan("vm.live_migrate", *names, target=N3)
    assert len(given.steps) == 13  # the reserve too
    assert given.skipped[0].reason.text == "n3: not enough memory (needs 2.3 GiB, free 2.2 GiB)"


def test_the_large_and_the_high_choose_first(cluster: Cluster) -> None:
    for node in (N2, N3):
        cluster.facts[node] = host_facts(node, memory_mib=16384)
        cluster.connect(node)
    for name, memory in (("small", 4000), ("tiny", 500), ("large", 11_000)):
        cluster.add("n1", name, config=definition(memory))
    plan = cluster.plan("vm.live_migrate", "small", "tiny", "large")
    assert [step.name for step in plan.steps] == ["small", "tiny", "large"]  # as they were given
    placed = {step.name: step.target for step in plan.steps}
    assert placed["large"] != placed["small"]


def test_there_is_no_other_node() -> None:
    cluster = Cluster(nodes=1)
    cluster.add("n1", "a")
    assert cluster.plan("vm.live_migrate", "a").skipped[0].reason.text == "there is no other node that is up"


def test_reasons_of_many_nodes_are_cut_short() -> None:
    cluster = Cluster(nodes=8)
    cluster.add("n1", "a", config=definition(100_000))
    found = cluster.plan("vm.live_migrate", "a").skipped[0].reason
    assert found.text.count("not enough memory") == 4
    assert found.text.endswith("; and 3 more")


# --- what keeps a VM where it is -------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "text", "remedy"),
    [
        (definition(snapshots=2), "has 2 snapshot(s), which libvirt does not move", "Delete"),
        (definition(checkpoints=3), "has 3 checkpoint(s) of its backups, which would be lost", "Delete"),
        (definition(host_devices=("PCI 3b:00.0",)), "uses a device of its host: PCI 3b:00.0", "Shut"),
        (
            definition(disks=(replace(DISK, source="/root/a.img"),)),
            "disk vda (/root/a.img) is not on storage shared by the nodes",
            "Put the disk",
        ),
        (
            definition(disks=(replace(DISK, device="cdrom", source="/tmp/x.iso", read_only=True),)),
            "CD vda (/tmp/x.iso) is on n1's own disk",
            "Eject the CD.",
        ),
        (
            definition(disks=(replace(DISK, cache="writeback"),)),
            "disk vda has cache mode writeback: not safe to move",
            "Set the disk's cache mode",
        ),
        (
            definition(disks=(replace(DISK, cache=""),)),
            "disk vda has cache mode default: not safe to move",
            "Set the disk's cache mode",
        ),
    ],
    ids=["snapshots", "checkpoints", "device", "local disk", "local cd", "cache", "default cache"],
)
def test_an_obstacle_says_what_and_what_to_do(config: VmConfig, text: str, remedy: str) -> None:
    cluster = Cluster(cluster_config(2, shared_paths=SHARED))
    cluster.add("n1", "a", config=config)
    plan = cluster.plan("vm.live_migrate", "a")
    assert not plan.steps
    assert plan.skipped[0].reason.text == text
    assert plan.skipped[0].reason.remedy.startswith(remedy)


@pytest.mark.parametrize("action", ["vm.quick_migrate", "vm.shut_down_and_move", "vm.turn_off_and_move"])
def test_checkpoints_are_lost_by_moves_of_every_kind(action: str) -> None:
    cluster = Cluster(cluster_config(2, shared_paths=SHARED))
    cluster.add("n1", "a", config=definition(checkpoints=1))
    plan = cluster.plan(action, "a")
    assert [s.reason.code for s in plan.skipped] == [ReasonCode.HAS_CHECKPOINTS]


SECRET = replace(DISK, target="vdb", encrypted=True)


@pytest.mark.parametrize(
    ("disks", "shared", "said"),
    [
        ((DISK, SECRET), SHARED, ""),  # it is not copied
        (
            (DISK, replace(SECRET, source="/var/x.img")),
            SHARED,
            "disk vdb is encrypted: its copy would not be",
        ),
        ((SECRET,), (), "disk vdb is encrypted: its copy would not be"),
        ((replace(DISK, source="/var/x.img"),), SHARED, ""),
        ((replace(DISK, cache="writeback"),), SHARED, "disk vda has cache mode writeback: not safe to move"),
    ],
    ids=["shared", "local", "undeclared", "plain", "cache"],
)
def test_what_a_live_move_copies_to_a_pool(
    disks: tuple[Disk, ...], shared: tuple[str, ...], said: str
) -> None:
    cluster = Cluster(cluster_config(2, shared_paths=shared))
    cluster.add("n1", "a", config=definition(disks=disks))
    plan = cluster.plan("vm.live_migrate", "a", pool="fast")
    assert "".join(s.reason.text for s in plan.skipped) == said
    assert len(plan.steps) == (not said)


@pytest.mark.parametrize("disks", [(SECRET,), (DISK, SECRET)])
def test_an_encrypted_disk_is_not_written_to_another_pool_in_plain_text(disks: tuple[Disk, ...]) -> None:
    cluster = Cluster(cluster_config(2, shared_paths=SHARED))
    cluster.add("n1", "a", config=definition(disks=disks))
    plan = cluster.plan("vm.move_storage", "a", pool="fast")
    assert [s.reason.text for s in plan.skipped] == ["disk vdb is encrypted: its copy would not be"]
    assert planner.local_disks(cluster_config(2), definition(disks=disks)) == (
        ("vda",) if DISK in disks else ()
    )


@pytest.mark.parametrize(
    "disk",
    [
        DISK,
        replace(DISK, cache="directsync"),
        replace(DISK, device="cdrom", source="/srv/vms/x.iso", read_only=True, cache=""),
        replace(DISK, device="cdrom", source=""),
        replace(DISK, kind="network", source="rbd://ceph/a"),
    ],
    ids=["none", "directsync", "shared cd", "no cd", "network"],
)
def test_no_obstacle(disk: Disk) -> None:
    config = cluster_config(2, shared_paths=SHARED)
    assert planner.disk_obstacle(config, disk, N1) is None


def test_without_declared_paths_libvirt_judges() -> None:
    config = cluster_config(2)
    assert planner.disk_obstacle(config, replace(DISK, source="/root/a.img", cache=""), N1) is None
    assert not planner.may_pass_unsafe(config, definition(disks=(DISK,)))


@pytest.mark.parametrize(
    ("disk", "paths", "said"),
    [
        (DISK, SHARED, False),
        (DISK, (), True),
        (replace(DISK, kind="network", source="rbd://ceph/a"), (), False),
        (replace(DISK, device="cdrom", read_only=True), (), False),
    ],
)
def test_a_move_without_declared_paths_is_said_to_be_unchecked(
    disk: Disk, paths: tuple[str, ...], said: bool
) -> None:
    cluster = Cluster(cluster_config(2, shared_paths=paths))
    cluster.add("n1", "a", config=definition(disks=(disk,)))
    found = planner.unchecked_sharing(cluster.state.config, [cluster.vm("a")])
    assert (found is not None) is said
    assert len(cluster.plan("vm.live_migrate", "a").steps) == 1


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/srv/vms/a.img", True),
        ("/srv/vms/x/a.img", True),
        ("/srv/vms", False),
        ("/srv/vms2/a.img", False),
        ("/srv/vms/../../root/a.img", False),
        ("srv/vms/a.img", False),
    ],
)
def test_what_lies_below_a_path(path: str, below: bool) -> None:
    assert planner.is_below(path, SHARED) is below
    assert planner.is_below(path, ("/srv/vms/",)) is below


@pytest.mark.parametrize(
    ("disks", "unsafe"),
    [
        ((DISK,), True),
        ((DISK, replace(DISK, target="vdb", source="/srv/vms/b.img", cache="directsync")), True),
        ((DISK, replace(DISK, target="vdb", source="/root/b.img")), False),
        ((DISK, replace(DISK, target="vdb", cache="writeback")), False),
        ((DISK, replace(DISK, target="vdb", cache="")), False),
        ((DISK, replace(DISK, target="vdb", kind="block", source="/dev/sdb")), False),
        ((DISK, replace(DISK, target="vdb", kind="network", source="rbd://x")), False),
        ((DISK, replace(DISK, target="sda", device="cdrom", source="/iso/x.iso", read_only=True)), True),
        ((DISK, replace(DISK, target="sda", source="")), True),
        ((), False),
    ],
)
def test_unsafe_only_if_every_writable_disk_is_known_to_be_safe(
    disks: tuple[Disk, ...], unsafe: bool
) -> None:
    config = cluster_config(2, shared_paths=SHARED)
    assert planner.may_pass_unsafe(config, definition(disks=disks)) is unsafe


def test_a_room_never_gives_what_it_has_not(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=definition(30_000))
    room = planner.Room(cluster.state, keep_reserve=True)
    row = cluster.vm("a")
    first, second, third, fourth, fifth = (room.take(row, None) for _ in range(5))
    targets = [v.node for v in (first, second, third) if isinstance(v, planner.NodeVerdict)]
    assert sorted(targets) == ["n2", "n3"]
    assert isinstance(third, Reason)
    assert fourth == fifth
    assert uuid("a") in cluster.state.vms


def test_the_overcommit_of_cpus_is_kept_by_best_and_may_be_broken_by_hand(cluster: Cluster) -> None:
    names = [f"v{i:02}" for i in range(3)]
    for name in names:
        cluster.add("n1", name, config=replace(definition(1024), vcpus=12))
    for node in (N2, N3):
        cluster.facts[node] = replace(host_facts(node), cpus=4)  # 16 vCPUs at the default of 4.0
        cluster.connect(node)
    cluster.sweep("n1")
    plan = cluster.plan("vm.live_migrate", *names)
    assert {step.target for step in plan.steps} == {N2, N3}
    (left_out,) = plan.skipped
    assert "n2: not enough CPUs (needs 12 vCPUs, 4 left by the overcommit)" in left_out.reason.text
    by_hand = cluster.plan("vm.live_migrate", *names, target=N2)
    assert len(by_hand.steps) == 3

"""Snapshots as operations: verdicts, one at a time per VM, and the end of their call as their result."""

from __future__ import annotations

import pytest

from manager.core import effects as fx
from manager.core.actions import ACTIONS, Allowed
from manager.core.effects import VmChange
from manager.core.model import Disk, SnapshotParameters
from manager.core.operations import OperationState
from tests.core.support import REFUSED, Cluster, definition, uuid

NOW = SnapshotParameters(name="now", description="why")


def disk(target: str = "vda", **values: object) -> Disk:
    given = {"source": f"/srv/vms/{target}.qcow2", "format": "qcow2", "cache": "none"}
    return Disk(target=target, **(given | values))  # type: ignore[arg-type]


def said(cluster: Cluster, action: str, wish: SnapshotParameters = NOW) -> str:
    found = ACTIONS[action].verdict(cluster.state, uuid("a"), wish)
    return found.note.text if isinstance(found, Allowed) and found.note else found.reason.text  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("disks", "wish", "text"),
    [
        ((disk(),), NOW, "snapshot “now”; while it has snapshots it stays on its node"),
        ((disk(), disk("vdb", format="raw")), NOW, "disk vdb (raw) cannot keep such a snapshot"),
        ((disk(), disk("sda", device="cdrom", format="raw")), NOW, "snapshot “now”; while"),
        ((disk(), disk("vdb", format="raw", read_only=True)), NOW, "snapshot “now”; while"),
        (
            (disk("vda", format="raw"),),
            SnapshotParameters(name="n", disk_only=True),
            "snapshot “n” of its disks",
        ),
        ((disk(kind="network"),), SnapshotParameters(name="n", disk_only=True), "disk vda (network) cannot"),
        ((), NOW, "has no disk of which"),
        ((disk(),), SnapshotParameters(name=".x"), "the name of a snapshot has 1 to 100"),
    ],
)
def test_whether_one_can_be_taken(disks: tuple[Disk, ...], wish: SnapshotParameters, text: str) -> None:
    cluster = Cluster()
    cluster.add("n1", "a", config=definition(disks=disks))
    assert said(cluster, "vm.snapshot_create", wish).startswith(text)


def test_only_what_has_snapshots_loses_one() -> None:
    cluster = Cluster()
    cluster.add("n1", "a", config=definition(disks=(disk(),)))
    for action in ("vm.snapshot_delete", "vm.snapshot_revert"):
        assert said(cluster, action) == "has no snapshot"
    cluster.add("n1", "b", config=definition(disks=(disk(),), snapshots=1))
    plan = ACTIONS["vm.snapshot_revert"].plan(cluster.state, [uuid("a"), uuid("b")], NOW)
    assert [step.name for step in plan.steps] == ["b"]
    assert plan.steps[0].note is not None
    assert plan.steps[0].note.text == "snapshot “now”"


@pytest.mark.parametrize("failure", [None, REFUSED])
def test_the_end_of_the_call_is_its_result(failure: object) -> None:
    cluster = Cluster()
    cluster.add("n1", "a", config=definition(disks=(disk(),)))
    cluster.ask("vm.snapshot_create", "a", name=NOW.name, description=NOW.description)
    effect = cluster.take(fx.ChangeVm)
    assert (effect.change, effect.snapshot) == (VmChange.SNAPSHOT_CREATE, NOW)
    operation = cluster.operation("a")
    assert operation.snapshot == NOW
    assert cluster.vm("a").activity.value == "Taking a snapshot"
    assert "Taking a snapshot".lower() in said(cluster, "vm.snapshot_delete").lower()  # one at a time
    cluster.end(effect, failure)
    cluster.reads()
    ended = cluster.operation("a")
    assert ended.state is (OperationState.DONE if failure is None else OperationState.FAILED)

"""Changes of definitions: what applies when, what is said of it, and what takes it back."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args

import msgspec
import pytest

from manager.core import edits
from manager.core import effects as fx
from manager.core.actions import (
    ACTIONS,
    ADD_DISK,
    CD,
    DEFINITION,
    MEMORY,
    NETWORK,
    VCPUS,
    Allowed,
    Denied,
    Plan,
)
from manager.core.edits import (
    AddDisk,
    Edit,
    SetAutostart,
    SetBootOrder,
    SetInterface,
    SetMedium,
    SetMemory,
    SetVcpus,
    VmEdit,
    journaled,
    pending,
    settled,
)
from manager.core.effects import VmChange
from manager.core.model import Disk, Interface, StatusCause, VmConfig
from manager.core.operations import Operation, OperationState
from manager.core.query.vm_fields import VM_FIELDS
from tests.core.support import OFF, PAUSED, REFUSED, SAVED, Cluster, R, definition, uuid

MAC = "52:54:00:00:00:01"
DISK = Disk(target="vda", source="/srv/vms/a.qcow2", capacity_bytes=20 << 30)
DRIVE = Disk(target="sda", device="cdrom", source="/srv/vms/x.iso")
NIC = Interface(mac=MAC, kind="bridge", source="br0")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def vm(**values: Any) -> VmConfig:
    given = {"disks": (DISK, DRIVE), "interfaces": (NIC,), "boot": ("vda",)}
    return replace(definition(2048), vcpus=2, vcpus_most=4, **(given | values))


def said(cluster: Cluster, action: Any, wish: Any) -> str:
    found = action.verdict(cluster.state, uuid("a"), wish)
    if isinstance(found, Denied):
        return f"{'= ' if found.already else 'no: '}{found.reason.text}"
    assert found.note is not None
    return str(found.note.text)


@pytest.mark.parametrize(
    ("action", "wish", "running", "off"),
    [
        (MEMORY, SetMemory(memory_mib=1024), "memory 1 GiB of at most 2 GiB", None),
        (MEMORY, SetMemory(memory_mib=2048), "= already so", None),
        (
            MEMORY,
            SetMemory(memory_mib=4096),
            "memory 4 GiB, at its next start: as it runs it can have 2 GiB",
            "memory 4 GiB",
        ),
        (
            MEMORY,
            SetMemory(memory_mib=1024, maximum_mib=4096),
            "memory 1 GiB of at most 4 GiB now; its maximum of 4 GiB counts from its next start",
            "memory 1 GiB of at most 4 GiB",
        ),
        (VCPUS, SetVcpus(vcpus=3), "3 vCPUs of at most 4", None),
        (
            VCPUS,
            SetVcpus(vcpus=1),
            "1 vCPU of at most 4, at its next start: a guest that runs gives no vCPUs back",
            "1 vCPU of at most 4",
        ),
        (VCPUS, SetVcpus(vcpus=8), "8 vCPUs, at its next start: as it runs it can have 4", "8 vCPUs"),
        (CD, SetMedium(), "no CD in sda", None),
        (CD, SetMedium(source="/srv/vms/x.iso"), "= already so", None),
        (
            CD,
            SetMedium(source="x.iso"),
            "no: a medium is a path on the node or POOL/VOLUME, in printable text",
            None,
        ),
        (CD, SetMedium(disk="vda"), "no: has no vda; it has sda", None),
        (NETWORK, SetInterface(kind="bridge", source="br1"), f"{MAC} on bridge br1", None),
        (NETWORK, SetInterface(link_up=True), "= already so", None),
        (NETWORK, SetInterface(link_up=False), f"link of {MAC} down", None),
        (ADD_DISK, AddDisk(pool="p", volume="a.qcow2"), "no: a has /srv/vms/a.qcow2 as its disk vda", None),
    ],
)
def test_what_is_said_beforehand(
    cluster: Cluster, action: Any, wish: Any, running: str, off: str | None
) -> None:
    cluster.add("n1", "a", config=vm())
    assert said(cluster, action, wish) == running
    cluster.become("n1", "a", PAUSED, StatusCause.USER)
    assert said(cluster, action, wish) == running
    other = Cluster()
    other.add("n1", "a", OFF, config=vm())
    assert said(other, action, wish) == (running if off is None else off)


def test_a_saved_vm_has_it_after_what_was_saved(cluster: Cluster) -> None:
    cluster.add("n1", "a", SAVED, config=vm())
    expected = "no CD in sda, at its next start: its saved state keeps what it had"
    assert said(cluster, CD, SetMedium()) == expected
    assert said(cluster, ACTIONS["vm.autostart"], SetAutostart()) == "starts with its host"


def test_a_transient_vm_has_no_next_start(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm(persistent=False))
    refused = "no: is transient: its definition would be gone once it stops"
    assert said(cluster, MEMORY, SetMemory(memory_mib=4096)) == refused
    assert said(cluster, ACTIONS["vm.autostart"], SetAutostart()) == refused
    assert said(cluster, MEMORY, SetMemory(memory_mib=1024)) == "memory 1 GiB of at most 2 GiB"


@pytest.mark.parametrize(
    ("action", "wish"),
    [
        ("vm.cd", SetMedium(source="/srv/vms/y.iso")),
        ("vm.cd", SetMedium()),
        ("vm.memory", SetMemory(memory_mib=1024)),
        ("vm.memory", SetMemory(memory_mib=4096, maximum_mib=8192)),
        ("vm.vcpus", SetVcpus(vcpus=8)),
        ("vm.description", edits.Describe(title="Shop", description="a\nb")),
        ("vm.autostart", SetAutostart()),
        ("vm.network", SetInterface(kind="network", source="lan", link_up=False)),
        ("vm.boot_order", SetBootOrder(devices=("sda", "vda"))),
    ],
)
def test_undo(cluster: Cluster, action: str, wish: Any) -> None:
    cluster.add("n1", "a", OFF, config=vm())
    before = cluster.vm("a").config
    given = {f.name: getattr(wish, f.name) for f in fields(wish)}
    cluster.ask(action, "a", **given)
    cluster.settle()
    first = cluster.operation("a")
    assert first.state is OperationState.DONE
    assert cluster.vm("a").config != before
    plan = ACTIONS[action].undo(first, cluster.state)
    assert isinstance(plan, Plan)
    cluster.ask(action, "a", **{f.name: getattr(plan.parameters, f.name) for f in fields(wish)})
    cluster.settle()
    assert cluster.vm("a").config == before


def test_what_cannot_be_taken_back_says_so(cluster: Cluster) -> None:
    for spec in DEFINITION:
        operation = Operation(id="1", kind="settings", action=spec.id, author="", trace="", created_s=0)  # type: ignore[arg-type]
        assert not isinstance(spec.undo(operation, cluster.state), Plan)


def test_it_is_asked_of_the_host_as_it_was_told(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm())
    cluster.ask("vm.memory", "a", memory_mib=4096)
    effect = cluster.take(fx.EditVm)
    assert effect.edit == SetMemory(memory_mib=4096, maximum_mib=4096, live=False)
    cluster.end(effect)
    ended = cluster.operation("a")
    assert (ended.state, str(ended.reason)) == (OperationState.DONE, "memory 4 GiB, at its next start")
    assert cluster.take(fx.ReadVm).vm == uuid("a")


def test_a_refusal_says_where_the_vm_is(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm())
    cluster.ask("vm.cd", "a")
    cluster.answer(cluster.take(fx.EditVm), REFUSED)
    ended = cluster.operation("a")
    assert (ended.state, str(ended.reason)) == (
        OperationState.FAILED,
        "internal error: no; it is running on n1",
    )


def test_it_waits_for_other_work_on_the_vm(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm())
    cluster.ask("vm.save", "a")
    saving = cluster.take(fx.ChangeVm)
    assert saving.change is VmChange.SAVE
    cluster.ask("vm.cd", "a")
    assert not [effect for effect in cluster.pending if isinstance(effect, fx.EditVm)]
    cluster.answer(saving)
    cluster.settle()
    (drive,) = [d for d in cluster.vm("a").config.disks if d.target == "sda"]  # type: ignore[union-attr]
    assert drive.source == ""


def test_a_vm_that_runs_twice_is_left_alone(cluster: Cluster) -> None:
    cluster.add("n1", "a", config=vm())
    cluster.add("n2", "a", config=vm())
    cluster.read("n1")
    assert said(cluster, CD, SetMedium()).startswith("no: runs on two nodes at once")


def test_the_journal_keeps_every_kind() -> None:
    assert {type(getattr(journaled(kind()), f.name)) for kind in get_args(Edit) for f in fields(VmEdit)} == {
        type(None),
        *get_args(Edit),
    }
    for kind in get_args(Edit):
        stored = journaled(kind())
        assert stored.one == kind()
        assert msgspec.json.decode(msgspec.json.encode(stored), type=VmEdit) == stored


def test_what_needs_a_restart_is_what_differs() -> None:
    live = vm()
    assert pending(live) == ()
    assert settled(replace(live, stored=live)).stored is None
    other = replace(
        live,
        memory_mib=4096,
        vcpus=1,
        boot=("sda",),
        disks=(DISK, replace(DRIVE, source=""), Disk(target="vdb")),
        interfaces=(replace(NIC, link_up=False),),
        title="not of the hardware",
    )
    found = settled(replace(live, stored=other))
    expected = ("memory", "vCPUs", "boot order", "CD sda", "disk vdb", f"network {MAC}")
    assert pending(found) == expected
    cluster = Cluster()
    cluster.add("n1", "a", config=found)
    field = next(f for f in VM_FIELDS if f.name == "needs_restart")
    assert field.cell(cluster.state, cluster.vm("a")) == ", ".join(expected)
    assert R is cluster.vm("a").status
    assert isinstance(MEMORY.verdict(cluster.state, uuid("a"), SetMemory(memory_mib=2048)), Allowed)

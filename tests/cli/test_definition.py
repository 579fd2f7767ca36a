"""The settings of VMs on the command line: what is done at once, what waits for a start, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager.core.model import Disk
from tests.cli.support import Cli


def with_drive(muster: Cli, name: str, source: str = "") -> None:
    """The VM gets a CD drive."""
    vm = muster.vm(name)
    drive = Disk(target="sda", device="cdrom", source=source, read_only=True)
    vm.config = replace(vm.config, disks=(*vm.config.disks, drive))


def test_a_cd_goes_in_and_out(muster: Cli) -> None:
    with_drive(muster, "web-1")
    ran = muster("vm", "cd", "web-1", "--insert", "/srv/vms/debian-13.iso", "--json")
    assert ran.rows[0]["reason"] == "CD /srv/vms/debian-13.iso in sda"
    assert muster.vm("web-1").config.disks[-1].source == "/srv/vms/debian-13.iso"
    ran = muster("vm", "cd", "web-1", "web-2", "--eject", "--json")
    assert ran.results() == {"web-1": "done", "web-2": "skipped"}
    assert ran.rows[1]["reason"] == "has no CD drive"
    assert muster.vm("web-1").config.disks[-1].source == ""
    assert muster("vm", "cd", "web-1", "--eject", "--json").rows[0]["reason"] == "already so"


def test_a_medium_must_be_on_the_node(muster: Cli) -> None:
    with_drive(muster, "web-1")
    ran = muster("vm", "cd", "web-1", "--insert", "/srv/vms/none.iso", "--json")
    assert ran.results() == {"web-1": "failed"}
    assert ran.rows[0]["reason"].startswith("n1 has no file /srv/vms/none.iso; it is running on n1")
    ran = muster("vm", "cd", "web-1", "--insert", "nowhere/x.iso", "--json")
    assert "no storage pool with matching name 'nowhere'" in ran.rows[0]["reason"]
    ran = muster("vm", "cd", "web-1", "--insert", "x.iso", "--json")
    assert ran.rows[0]["reason"] == "a medium is a path on the node or POOL/VOLUME, in printable text"


def test_it_is_said_beforehand_what_waits_for_the_next_start(muster: Cli) -> None:
    most = muster.vm("web-1").config.memory_mib
    ran = muster("vm", "memory", "web-1", "off-1", "--set", f"{2 * most}MiB", "--what-if", "--json")
    assert [row["reason"] for row in ran.rows] == [
        "memory 2 GiB, at its next start: as it runs it can have 1 GiB",
        "memory 2 GiB",
    ]
    assert muster("vm", "memory", "web-1", "--set", f"{2 * most}").code == 0
    vm = muster.vm("web-1")
    assert vm.config.memory_mib == most
    ran = muster("vm", "list", "--columns", "name,memory_mib,needs_restart", "--json")
    assert [row for row in ran.rows if row["name"] == "web-1"] == [
        {"name": "web-1", "memory_mib": most, "needs_restart": ["memory"]}
    ]
    assert muster("vm", "turn-off", "web-1").code == 0
    assert muster("vm", "start", "web-1").code == 0
    ran = muster("vm", "list", "--columns", "name,memory_mib,needs_restart", "--json")
    assert [row for row in ran.rows if row["name"] == "web-1"] == [
        {"name": "web-1", "memory_mib": 2 * most, "needs_restart": []}
    ]


def test_less_memory_is_there_at_once(muster: Cli) -> None:
    assert muster("vm", "memory", "web-1", "--set", "0.5GiB").code == 0
    config = muster.vm("web-1").config
    assert (config.memory_mib, config.memory_now_mib, config.stored) == (1024, 512, None)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("memory", "web-1", "--set", "4GB"), "did you mean GiB?"),
        (("memory", "web-1", "--set", "lots"), "needs a size, for example 512MiB or 4GiB"),
        (("memory", "web-1", "--set", "0.3MiB"), "needs whole MiB"),
        (("cd", "web-1"), "Say what to do: --insert IMAGE or --eject."),
        (("cd", "web-1", "--eject", "--insert", "/x"), "Say what to do: --insert IMAGE or --eject."),
        (("network", "web-1"), "Say what to change: --bridge, --network or --link."),
        (("network", "web-1", "--bridge", "a", "--network", "b"), "Only one of --bridge and --network"),
        (("describe", "web-1"), "Say what to set: --title or --description."),
        (("add-disk", "web-1", "--pool", "vms"), "Say which: --volume, or --size of a new one."),
    ],
)
def test_wrong_usage_is_explained_and_nothing_is_done(muster: Cli, argv: tuple[str, ...], said: str) -> None:
    before = muster.vm("web-1").config
    ran = muster("vm", *argv)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())
    assert muster.vm("web-1").config == before


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("memory", "--set", "1"), "memory is from 16 MiB to 64 TiB"),
        (("vcpus", "--set", "0"), "vCPUs are from 1 to 4096"),
        (("vcpus", "--set", "4", "--maximum", "2"), "the maximum of the vCPUs is less than the vCPUs"),
        (("describe", "--title", "a\nb"), "a title is one line of printable text"),
        (("network", "--mac", "52:54:00:00:00:99", "--link", "up"), "has no 52:54:00:00:00:99; it has 52:54"),
        (("boot-order", "--set", "vdz"), "has no vdz; it has vda"),
        (("boot-order", "--set", "vda,vda"), "a device is named twice"),
        (("grow-disk", "--to", "1MiB", "--disk", "vdx"), "has no vdx; it has vda"),
        (
            ("add-disk", "--pool", "vms", "--volume", "web-2.qcow2"),
            "web-2 has /srv/vms/web-2.qcow2 as its disk vda",
        ),
    ],
)
def test_what_cannot_be_is_refused_beforehand(muster: Cli, argv: tuple[str, ...], said: str) -> None:
    ran = muster("vm", argv[0], "web-1", *argv[1:], "--json")
    assert ran.results() == {"web-1": "skipped"}
    assert ran.rows[0]["reason"].startswith(said)


def test_a_network_interface_goes_elsewhere(muster: Cli) -> None:
    muster.vm("web-1").node.bridges.add("br1")
    assert muster("vm", "network", "web-1", "--bridge", "br1", "--link", "down").code == 0
    (nic,) = muster.vm("web-1").config.interfaces
    assert (nic.kind, nic.source, nic.link_up) == ("bridge", "br1", False)
    ran = muster("vm", "network", "web-1", "--bridge", "br9", "--json")
    assert ran.results() == {"web-1": "failed"}
    assert "No such device" in ran.rows[0]["reason"]


def test_disks_are_added_and_grow(muster: Cli) -> None:
    assert muster("vm", "add-disk", "web-1", "--pool", "vms", "--size", "2GiB").code == 0
    disk = muster.vm("web-1").config.disks[-1]
    assert (disk.target, disk.source, disk.cache) == ("vdb", "/srv/vms/web-1-vdb.qcow2", "none")
    assert muster("vm", "grow-disk", "web-1", "--disk", "vdb", "--to", "3GiB").code == 0
    assert muster.vm("web-1").config.disks[-1].capacity_bytes == 3 * 1024**3
    ran = muster("vm", "grow-disk", "web-1", "--disk", "vdb", "--to", "1GiB", "--json")
    assert ran.rows[0]["reason"] == "disk vdb has 3 GiB already, and is never made smaller"

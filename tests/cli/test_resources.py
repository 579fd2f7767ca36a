"""``muster storage`` and ``muster network``: what they print, as JSON too, and what they refuse."""

from __future__ import annotations

import textwrap

import pytest

from manager.backends.sim.hosts import Pool
from manager.core.errors import FailureCode
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS
from tests.cli.support import Cli, small

GIB = 1 << 30


@pytest.fixture
def muster(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Three nodes; the third lacks the pool ``vms``, and its own one is full."""
    cli = small(capsys)
    n1, n2, n3 = cli.world.nodes.values()
    shared = Pool("/srv/vms", 40 * GIB, "netfs", "nfs", ("nas",), "/vms", capacity_bytes=100 * GIB)
    for node in (n1, n2):
        node.pools["vms"] = shared
    del n3.pools["vms"]
    n3.pools["default"] = Pool("/var/lib/libvirt/images", GIB, capacity_bytes=100 * GIB, files={"x.iso": GIB})
    n3.bridges.discard("br0")
    return cli


def golden(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def test_storage_list(muster: Cli) -> None:
    ran = muster("storage", "list", "--columns", "name,status,reach,nodes,type,used,free_bytes,vms,missing")
    assert ran.out == golden("""
        Name     Status         Assigned to  Nodes   Type  Used (%)    Free  VMs  Missing on
        default  Online         Local        n1      dir          0  16 TiB    0
        default  Online         Local        n2      dir          0  16 TiB    0
        default  Online         Local        n3      dir         99   1 GiB    0
        vms      Partly online  Shared       2 of 3  nfs         60  40 GiB   11  n3
        """)
    assert (ran.code, ran.err) == (0, "")
    information = muster("storage", "list", "--columns", "information").out.splitlines()
    assert information[3:] == ["99 % full: 1 GiB of 100 GiB left", "missing on n3"]


def test_lists_sort_by_any_field_and_give_every_field_as_json(muster: Cli) -> None:
    rows = muster("storage", "list", "--json", "--sort", "-used").rows
    assert [row["used"] for row in rows] == [99, 60, 0, 0]
    assert set(rows[0]) == set(FIELDS[Kind.POOL])
    vms = rows[1]
    assert (vms["nodes"], vms["missing"], vms["source"]) == (["n1", "n2"], ["n3"], "nas:/vms")
    assert (vms["free_bytes"], vms["capacity_bytes"]) == (40 * GIB, 100 * GIB)
    assert set(muster("network", "list", "--json").rows[0]) == set(FIELDS[Kind.NETWORK])


def test_network_list(muster: Cli) -> None:
    ran = muster("network", "list")
    assert ran.out == golden("""
        Name     Status     Cluster use  Type          Nodes   Bridge  Subnets           VMs  Information
        br0      Partly up               Bridge        2 of 3  br0                        11  missing on n3
        default  Up                      libvirt, NAT  all 3   virbr0  192.168.122.0/24    0
        """)


def test_one_pool(muster: Cli) -> None:
    out = muster("storage", "show", "vms").out
    assert "Used         60 %\n" in out
    assert "missing on n3. Define it there too: a VM that needs it cannot be moved there.\n" in out
    assert "n2    vms   Active  /srv/vms  40 GiB  yes\n" in out
    (shown,) = muster("storage", "show", "vms", "--json").rows
    assert [each["node"] for each in shown["seen"]] == ["n1", "n2"]
    assert "web-10" in shown["users"]


def test_one_network(muster: Cli) -> None:
    assert "n1    Up      br0" in muster("network", "show", "br0").out
    (shown,) = muster("network", "show", "default", "--json").rows
    assert shown["seen"][2]["subnets"] == ["192.168.122.0/24"]
    assert shown["users"] == []


def test_volumes_and_who_uses_them(muster: Cli) -> None:
    ran = muster("storage", "volumes", "vms", "--columns", "name,users,capacity_bytes", "--sort", "-name")
    assert [line.split() for line in ran.out.splitlines()[:3]] == [
        ["Name", "Used", "by", "Capacity"],
        ["web-10.qcow2", "web-10", "20", "GiB"],
        ["web-2.qcow2", "web-2", "20", "GiB"],
    ]
    rows = muster("storage", "volumes", "vms", "--json").rows
    assert set(rows[0]) == set(FIELDS[Kind.VOLUME])
    used = {row["name"]: row["users"] for row in rows}
    assert used["web-10.qcow2"] == ["web-10"]
    assert used["twin.qcow2"] == ["twin"]
    assert muster("storage", "volumes", "n3/default", "--json").rows[0]["name"] == "x.iso"
    assert muster("storage", "volumes", "vms", "--node", "n2", "--json").rows == rows


@pytest.mark.parametrize(
    ("noun", "query", "names"),
    [
        ("storage", "is:missing", ["vms"]),
        ("storage", "is:local free<10GiB", ["default"]),
        ("storage", "is:full or status:online node:n2", ["default", "default"]),
        ("storage", "used:50%..70% source:/vms", ["vms"]),
        ("storage", "nas", ["vms"]),  # by its source, which is searched though it is not shown
        ("network", "node:n3", ["default"]),
        ("network", "is:missing vms>5", ["br0"]),
    ],
)
def test_queries_choose_among_them(muster: Cli, noun: str, query: str, names: list[str]) -> None:
    assert [row["name"] for row in muster(noun, "list", "--where", query, "--json").rows] == names


def test_queries_choose_among_volumes(muster: Cli) -> None:
    rows = muster("storage", "volumes", "vms", "--where", "name:web-* not users:web-2", "--json").rows
    assert [row["name"] for row in rows] == ["web-1.qcow2", "web-10.qcow2"]


def test_interfaces_of_the_hosts(muster: Cli) -> None:
    rows = muster("network", "interfaces", "n1", "--json").rows
    assert [(row["node"], row["name"], row["kind"]) for row in rows] == [("n1", "br0", "bridge")]
    assert muster("network", "interfaces").out.count("bridge") == 2


def test_the_overview_tells_of_a_full_pool(muster: Cli) -> None:
    assert "Pool default on n3" in muster("cluster", "show").out


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("storage", "show", "vmz"), 2, "There is no pool vmz in small. Did you mean vms?"),
        (
            ("storage", "show", "default"),
            2,
            "several of the name default: n1/default, n2/default, n3/default",
        ),
        (("network", "show", "br1"), 2, "There is no network br1 in small. Did you mean br0"),
        (("network", "interfaces", "n4"), 2, "There is no node n4 in small."),
        (("storage", "volumes", "vms", "--node", "n3"), 2, "No node that is up has this pool active."),
        (("storage", "volumes", "vms", "--columns", "size"), 2, "size"),
        (("storage", "list", "--sort", "fre_bytes"), 2, "free_bytes"),
    ],
)
def test_what_is_wrong_is_said(muster: Cli, argv: tuple[str, ...], code: int, said: str) -> None:
    ran = muster(*argv)
    assert said in ran.err
    assert (ran.code, ran.out) == (code, "")


def test_a_lost_node_is_said_and_what_it_alone_has_may_be_there(muster: Cli) -> None:
    muster.faults.power_off("n3")
    ran = muster("--timeout", "3", "storage", "show", "only-there")
    assert ran.code == 3
    ran = muster("--timeout", "3", "storage", "list", "--columns", "name,information")
    assert "n3" in ran.err
    assert ran.out.splitlines()[-1].split() == ["vms"]


def test_a_host_that_refuses_is_quoted(muster: Cli) -> None:
    text = "internal error: pool 'vms' has asynchronous jobs running."
    muster.faults.fail_call("read_volumes", code=FailureCode.BUSY, text=text)
    ran = muster("storage", "volumes", "vms")
    assert ran.code == 1
    assert f"The volumes of vms cannot be read: {text}" in ran.err

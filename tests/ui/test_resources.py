"""Storage and Networks in the window: rows, bars with marks, details, volumes when they are opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel

from manager.core import events as ev
from manager.core.ids import Kind, NodeId, PoolId
from manager.core.resource_facts import PoolState, SeenInterface, SeenNetwork, SeenPool, Volume
from manager.ui.models import tones
from manager.ui.views.navigation import COUNT, Place
from manager.ui.views.resource_details import ResourceDetails, Volumes
from tests.ui.cluster_of import FakeRuntime, runtime_of, vm_config, vm_id
from tests.ui.conftest import Desk, OpenDesk, until

GIB = 1 << 30
VMS = "path:/srv/vms"
POOL = SeenPool(
    name="vms",
    kind="dir",
    state=PoolState.ACTIVE,
    target="/srv/vms",
    capacity_bytes=100 * GIB,
    free_bytes=40 * GIB,
    autostart=True,
)
OWN = replace(POOL, name="default", target="/var/images", free_bytes=10 * GIB)
BRIDGE = SeenInterface(name="br0", kind="bridge", ports=("eno1",))
NETWORK = SeenNetwork(name="default", is_active=True, mode="nat", bridge="virbr0")


def tell(runtime: FakeRuntime, node: str, *pools: SeenPool, **fields: Any) -> None:
    values: dict[str, Any] = {"networks": (NETWORK,), "interfaces": (BRIDGE, SeenInterface(name="eno1"))}
    runtime.clock.at_s += 1
    runtime.dispatch(
        ev.NodeResourcesRead(at_s=runtime.clock.at_s, node=NodeId(node), pools=pools, **(values | fields))
    )


def told() -> FakeRuntime:
    """Three nodes; the third lacks the shared pool and the network."""
    runtime = runtime_of()
    tell(runtime, "n1", POOL, OWN)
    tell(runtime, "n2", POOL, OWN)
    tell(runtime, "n3", networks=())
    return runtime


def details(desk: Desk) -> ResourceDetails:
    found = desk.page.details
    assert isinstance(found, ResourceDetails)
    return found


async def turn(desk: Desk, title: str) -> None:
    tabs = desk.page.details.tabs
    tabs.setCurrentIndex(next(at for at in range(tabs.count()) if tabs.tabText(at) == title))
    await desk.settle()


async def choose(desk: Desk, *keys: str) -> None:
    desk.page.select(keys)
    shown = details(desk)
    await until(lambda: not shown._later.isActive())


def texts(table: Any) -> list[tuple[str, ...]]:
    return list(table._rows)


async def test_the_page_lists_shared_pools_once_and_others_per_node(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    assert desk.runtime.resources.followed
    assert not desk.runtime.resources.wanted
    desk.window.go_page("storage")
    assert desk.runtime.resources.wanted == {"page pool"}
    model = desk.page.model
    cells = {
        row.key: [model.text(row, model.columns[n]) for n in ("name", "nodes", "used", "vms")]
        for row in model.rows
    }
    assert cells == {
        VMS: ["vms", "2 of 3", "60", "8"],  # the VMs of n3 cannot be in it
        "n1/default": ["default", "n1", "90", "0"],
        "n2/default": ["default", "n2", "90", "0"],
    }
    vms = model.rows[model.position(VMS)].item
    assert model.text(model.rows[model.position(VMS)], model.columns["information"]) == "missing on n3"
    assert tones.shape(Kind.POOL, "status", vms) == ("alarm", "paused")
    assert tones.bar_token(Kind.POOL, vms, "") == "accent"
    assert tones.bar_token(Kind.POOL, model.rows[model.position("n1/default")].item, "") == "paused"
    assert tones.MARKS[Kind.POOL, "used"] == (0.85, 0.95)
    desk.window.go_page("networks")
    assert desk.runtime.resources.wanted == {"page network"}
    assert [row.key for row in desk.page.model.rows] == ["bridge:br0", "network:default"]
    desk.window.go_page("roles")
    assert not desk.runtime.resources.wanted


async def test_marks_are_painted_over_the_bar(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("storage")
    await desk.settle()
    table = desk.page.table
    at = table.visualRect(
        desk.page.model.index(desk.page.model.position(VMS), desk.page.model.columns["used"])
    )
    picture = table.viewport().grab().toImage()
    tall = (
        at.top() + at.height() // 2 - desk.look.sizes.bar_px // 2 - 2
    )  # above the bar: only marks are there
    found = [
        x for x in range(at.left(), at.right() - 40) if picture.pixelColor(x, tall) == desk.look.tokens.dim
    ]
    left, width = at.left() + 8, at.width() - 16 - 30
    assert found == [left + round(width * 0.85), left + round(width * 0.95)]


async def test_pools_of_one_name_stand_in_the_order_of_their_nodes(open_desk: OpenDesk) -> None:
    runtime = runtime_of(11)
    for number in (10, 2, 11, 1):
        tell(runtime, f"n{number}", OWN)
    desk = await open_desk(runtime)
    desk.window.go_page("storage")
    await desk.settle()
    assert [row.key for row in desk.page.model.rows] == [f"n{n}/default" for n in (1, 2, 10, 11)]


async def test_rows_follow_what_nodes_tell(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("storage")
    tell(desk.runtime, "n3", replace(POOL, name="vms"), networks=())
    tell(desk.runtime, "n2", POOL)
    await desk.settle()
    model = desk.page.model
    assert [row.key for row in model.rows] == ["n1/default", VMS]
    assert model.text(model.rows[1], model.columns["status"]) == "Online"
    item = desk.window.navigation._items[Place(desk.runtime.id, "storage")]
    await until(lambda: item.data(0, COUNT) == "2")


async def test_summary_nodes_and_vms_of_a_pool(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("storage")
    await choose(desk, VMS)
    shown = details(desk)
    labels = [label.text() for label in shown.findChildren(QLabel) if label.isVisible()]
    assert "missing on n3. Define it there too: a VM that needs it cannot be moved there." in labels
    assert "60 %: 60 GiB of 100 GiB used, 40 GiB free" in labels
    await turn(desk, "Nodes")
    assert [(row[0], row[2]) for row in texts(shown._nodes)] == [
        ("n1", "Active"),
        ("n2", "Active"),
        ("n3", "Missing"),
    ]
    await turn(desk, "VMs")
    assert len(texts(shown._vms)) == 8
    assert texts(shown._vms)[0] == ("web-0", "Running", "n1", "vda: /srv/vms/0.qcow2")
    await turn(desk, "Story")
    assert "missing on n3" in texts(shown._story)[0][1]
    await choose(desk, VMS, "n1/default")
    assert shown.title.text() == "2 pools selected: 50 GiB of 200 GiB free"
    await choose(desk)
    assert shown.title.text() == "Select a pool to see the details here"


def volumes_of(desk: Desk) -> Volumes:
    found = details(desk).volumes
    assert found is not None
    return found


def volume(number: int) -> Volume:
    path = f"/srv/vms/{number}.qcow2"
    return Volume(
        id=path,
        name=f"{number}.qcow2",
        path=path,
        capacity_bytes=GIB,
        allocated_bytes=GIB,
        users=(f"web-{number}",),
    )


async def test_volumes_are_read_when_they_are_opened_and_not_before(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    asked = desk.runtime.resources.asked
    desk.window.go_page("storage")
    await choose(desk, VMS)
    assert not asked
    await turn(desk, "Volumes")
    (pool, answer), volumes = asked[0], volumes_of(desk)
    assert (pool, volumes.said) == (VMS, "Being read…")
    answer(NodeId("n1"), (volume(0), volume(1)), "")
    assert volumes.said.startswith("2 volumes, 2 GiB allocated, as n1 said ")
    model = volumes.model
    assert [model.text(row, model.columns["users"]) for row in model.rows] == ["web-0", "web-1"]
    await turn(desk, "Nodes")
    await turn(desk, "Volumes")
    assert len(asked) == 1  # they are here
    volumes._again.click()
    assert len(asked) == 2
    assert not model.rows


async def test_who_uses_a_volume_follows_the_vms(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("storage")
    await choose(desk, VMS)
    await turn(desk, "Volumes")
    desk.runtime.resources.asked[0][1](NodeId("n1"), (volume(0), volume(1)), "")
    runtime, model = desk.runtime, volumes_of(desk).model
    config = replace(vm_config(0), disks=())
    runtime.dispatch(ev.VmConfigRead(at_s=runtime.clock.at_s, node=NodeId("n1"), vm=vm_id(0), config=config))
    await desk.settle()
    assert [model.text(row, model.columns["users"]) for row in model.rows] == ["", "web-1"]


async def test_an_answer_about_another_pool_is_not_shown(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("storage")
    await choose(desk, VMS)
    await turn(desk, "Volumes")
    await choose(desk, "n1/default")
    asked = desk.runtime.resources.asked
    assert [pool for pool, _ in asked] == [VMS, "n1/default"]
    asked[0][1](NodeId("n1"), (volume(0),), "")
    assert volumes_of(desk).said == "Being read…"
    asked[1][1](None, (), "no answer within 60 s")
    assert volumes_of(desk).said == "no answer within 60 s"
    assert volumes_of(desk).empty.title.text() == "Not read"
    asked[1][1](NodeId("n1"), (), "")
    assert volumes_of(desk).empty.title.text() == "No volumes"


async def test_an_answer_after_the_cluster_was_closed_harms_nothing(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("storage")
    await choose(desk, VMS)
    await turn(desk, "Volumes")
    await desk.window.workspace.close(desk.runtime.id)
    await until(lambda: not desk.window.clusters)
    await desk.settle()
    desk.runtime.resources.asked[0][1](NodeId("n1"), (volume(0),), "")


async def test_networks_show_each_nodes_connection(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("networks")
    await choose(desk, "network:default")
    await turn(desk, "Network connections")
    assert [row[:3] for row in texts(details(desk)._nodes)] == [
        ("n1", "Up", "virbr0"),
        ("n2", "Up", "virbr0"),
        ("n3", "Missing", ""),
    ]
    await choose(desk, "bridge:br0")
    assert texts(details(desk)._nodes)[2] == ("n3", "Up", "br0", "eno1", "", "")
    await turn(desk, "VMs")
    assert len(texts(details(desk)._vms)) == 12


async def test_a_node_shows_its_own_pools_and_interfaces(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("nodes")
    desk.page.select(["n1"])
    await until(lambda: desk.page.details.tabs.isVisible())
    await turn(desk, "Storage")
    assert [row[0] for row in texts(desk.page.details._pools)] == ["default", "vms"]  # type: ignore[union-attr]
    await turn(desk, "Network connections")
    rows = texts(desk.page.details._connections)  # type: ignore[union-attr]
    assert [row[:2] for row in rows] == [("br0", "bridge"), ("eno1", "ethernet"), ("default", "libvirt, nat")]


async def test_a_full_pool_is_a_problem_that_leads_to_it(open_desk: OpenDesk) -> None:
    runtime = told()
    tell(runtime, "n1", replace(POOL, free_bytes=GIB))
    desk = await open_desk(runtime)
    (key,) = runtime.state.problems
    assert key == f"pool:{VMS}"
    desk.window.travel.open_problem(runtime, key)  # type: ignore[arg-type]
    assert desk.page.kind is Kind.POOL
    assert desk.page.selected_ids == [VMS]


async def test_copied_as_commands_and_named_in_the_pane(open_desk: OpenDesk) -> None:
    desk = await open_desk(told())
    desk.window.go_page("storage")
    await choose(desk, VMS)
    desk.window.lists.copy_command()
    assert QGuiApplication.clipboard().text() == f"muster --cluster prod-a storage show {VMS}"
    desk.window.go_page("networks")
    await choose(desk, "network:default", "bridge:br0")
    desk.window.lists.copy_command()
    assert QGuiApplication.clipboard().text().splitlines()[1].endswith(" network show network:default")


async def test_pages_that_know_nothing_yet_say_so(open_desk: OpenDesk) -> None:
    desk = await open_desk(runtime_of())
    desk.window.go_page("storage")
    assert desk.page.empty.title.text() == "No storage pool is known"
    item = desk.window.navigation._items[Place(desk.runtime.id, "networks")]
    assert not item.data(0, COUNT)  # none is known, which is not none


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_names_of_hosts_are_shown_as_text(open_desk: OpenDesk, theme: str) -> None:
    runtime = runtime_of()
    evil = "<b>x</b>\x1b\u202e" + "y" * 300
    tell(runtime, "n1", replace(OWN, name=evil), networks=(replace(NETWORK, name=evil),))
    desk = await open_desk(runtime, theme=theme)
    for page in ("storage", "networks"):
        desk.window.go_page(page)
        (row,) = [row for row in desk.page.model.rows if "<b>" in row.key]
        await choose(desk, row.key)
        assert desk.page.model.text(row, 0).startswith("<b>x</b>  y")
        await turn(desk, "Nodes" if page == "storage" else "Network connections")
    assert PoolId(f"n1/{evil}") in runtime.state.resources.pools

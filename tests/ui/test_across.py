"""All open clusters in one list: twins told apart, one plan for each cluster, clusters that come and go."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QAbstractItemModelTester
from pytestqt.qtbot import QtBot

from manager.core.chronicle import id_at
from manager.core.events import OwnershipTaken, VmStateChanged, VmUndefined
from manager.core.ids import ClusterId, Kind, NodeId
from manager.core.model import StatusCause, VmStatus
from manager.core.query.grouping import GroupKey
from manager.core.query.views import View
from manager.services.saved_views import SavedViews
from manager.ui.dialogs.base import Asking
from manager.ui.dialogs.confirm import ConfirmDialog
from manager.ui.dialogs.migrate import MigrateDialog
from manager.ui.models.rows_model import RowsModel
from manager.ui.models.sources import AllClusters, key_of
from manager.ui.theme import Look
from manager.ui.views.details import Details
from manager.ui.views.details.across import DetailsAcross
from manager.ui.views.events_page import EventDetails
from manager.ui.views.navigation import ALERT, COUNT, EVERY, Place
from manager.ui.views.resource_details import ResourceDetails
from manager.ui.views.table import RowsTable
from tests.ui.cluster_of import FakeRuntime, MemoryViews, runtime_of, search, vm_id
from tests.ui.conftest import Desk, OpenDesk, until
from tests.ui.test_moves_dialogs import able
from tests.ui.test_resources import OWN, POOL, tell

A, B = ClusterId("prod-a"), ClusterId("lab-b")
ROLES = Place(EVERY, "roles")


def two(vms: int = 4, **changes: object) -> tuple[FakeRuntime, FakeRuntime]:
    """Two clusters with nodes and VMs of the same names and even the same UUIDs."""
    return runtime_of(2, vms), runtime_of(2, vms, name=B, colour="#d55e00", **changes)  # type: ignore[arg-type]


async def everywhere(open_desk: OpenDesk, *runtimes: FakeRuntime, views: MemoryViews | None = None) -> Desk:
    desk = await open_desk(*(runtimes or two()), views=views)
    assert desk.window.navigation.go(ROLES)
    await desk.settle()
    return desk


def twin(number: int, *clusters: ClusterId) -> list[str]:
    return [key_of(cluster, vm_id(number)) for cluster in clusters]


def shown(model: RowsModel) -> list[tuple[str, str, str]]:
    return [(row.view.id, row.item.name, row.item.status.value) for row in model.rows]


def runtime(desk: Desk, cluster: ClusterId) -> FakeRuntime:
    found = desk.window.clusters[cluster].runtime
    assert isinstance(found, FakeRuntime)
    return found


def asked(desk: Desk, cluster: ClusterId) -> list[str]:
    """The VMs of one cluster that something was asked for."""
    return [o.vm_name for o in runtime(desk, cluster).view.operations.values() if o.vm is not None]


async def question(desk: Desk, kind: type[Asking], but: Asking | None = None) -> Asking:
    def find() -> Asking | None:
        return next((d for d in desk.window.findChildren(kind) if d.isVisible() and d is not but), None)

    await until(find, kind.__name__)
    found = find()
    assert found is not None
    return found


# --- the place ---------------------------------------------------------------------------------------


async def test_it_is_at_the_top_while_several_clusters_are_open(open_desk: OpenDesk) -> None:
    a, b = two()
    desk = await open_desk(a, b)
    window, tree = desk.window, desk.window.navigation
    top = tree.topLevelItem(0)
    assert top is not None
    assert top.text(0) == "All clusters"
    assert window.here == Place(A, "roles")  # nobody is taken there unasked
    for place in (Place(EVERY, "overview"), Place(EVERY, "nodes"), ROLES):
        tree.go(place)
    assert window.windowTitle() == "All clusters — Muster"
    await window.workspace.close(B)
    assert not tree.has(ROLES)
    assert window.here is not None
    assert window.here.cluster == A
    assert window.list_page is not None
    assert window.list_page.runtime is a  # type: ignore[comparison-overlap]
    assert window.center.ids == ()
    window.travel.go_back()
    assert window.here.cluster == A  # what was left behind is no place any more
    await window.workspace.open(b.view.config)
    assert tree.has(ROLES)
    tree.go(ROLES)
    await desk.settle()
    assert len(desk.page.model.rows) == 8


async def test_the_tree_has_the_views_with_their_sums(open_desk: OpenDesk) -> None:
    mine = MemoryViews()
    view = View(id="", name="There", kind=Kind.VM, query="cluster:lab-b", group="cluster")
    SavedViews(mine).change(lambda views: views.add(view)[0])
    a, b = two()
    desk = await everywhere(open_desk, a, b, views=mine)
    tree = desk.window.navigation

    def count(scope: str, page: str = "roles") -> str:
        desk.window._show_counts()
        return str(tree._items[Place(EVERY, page, scope)].data(0, COUNT))

    assert (count(""), count("", "nodes")) == ("8", "4")
    await until(lambda: count("running") == "8", "the count")
    b.change(1, VmStatus.CRASHED, StatusCause.CRASHED)
    await desk.settle()
    await until(lambda: (count("running"), count("attention")) == ("7", "1"), "the counts")
    desk.window.show_view(next(v for v in desk.window.saved_views.views.own))
    assert desk.window.here == Place(EVERY, "roles", "own-1")
    assert {row.view.id for row in desk.page.model.rows} == {B}
    assert [group.title for group in desk.page.model.groups] == [B]
    assert count("own-1") == "4"
    desk.window.go_page("overview")
    assert desk.window.here == Place(EVERY, "roles", "own-1")
    assert "one cluster at a time" in desk.window.notes[-1].label.text()


# --- the list ----------------------------------------------------------------------------------------


async def test_twins_are_two_rows_and_each_follows_its_own_cluster(open_desk: OpenDesk) -> None:
    a, b = two(2)
    desk = await everywhere(open_desk, a, b)
    model = desk.page.model
    running = VmStatus.RUNNING.value
    assert shown(model) == [(c, n, running) for n in ("web-0", "web-1") for c in (A, B)]
    b.change(0, VmStatus.OFF, StatusCause.SHUT_DOWN)
    await desk.settle()
    assert shown(model)[:2] == [(A, "web-0", running), (B, "web-0", "Off")]
    column = model.columns["cluster"]
    assert not desk.page.table.isColumnHidden(column)
    assert [model.text(row, column) for row in model.rows] == [A, B, A, B]
    search(model, "cluster:lab-b status:off")
    assert shown(model) == [(B, "web-0", "Off")]
    search(model, "")
    desk.page.table.group_by("cluster")
    assert [(g.title, len(g.rows)) for g in model.groups] == [(B, 2), (A, 2)]
    assert desk.page._values(model.fields[column]) == [B, A]
    b.dispatch(VmUndefined(at_s=b.clock.at_s + 1, node=NodeId("n1"), vm=vm_id(0)))
    await desk.settle()
    assert vm_id(0) not in b.view.vms
    assert sorted(shown(model)) == [(B, "web-1", running), (A, "web-0", running), (A, "web-1", running)]


async def test_what_is_copied_and_exported_says_the_cluster(open_desk: OpenDesk) -> None:
    desk = await everywhere(open_desk, *two(2))
    table = desk.page.table
    rows = json.loads(table.as_json())
    assert [(row["name"], row["cluster"]) for row in rows] == [
        *(("web-0", A), ("web-0", B), ("web-1", A), ("web-1", B))
    ]
    assert table.as_csv().splitlines()[0].startswith("Name,Cluster,Status")
    desk.page.select(twin(1, A, B))
    desk.window.lists.copy_command()
    assert QGuiApplication.clipboard().text().splitlines() == [
        "muster --cluster prod-a vm show web-1",
        "muster --cluster lab-b vm show web-1",
    ]


async def test_clusters_come_and_go_while_it_is_shown(open_desk: OpenDesk) -> None:
    a, b = two(3)
    third = runtime_of(1, 3, name="c", names=lambda number: f"web-{number}")
    desk = await everywhere(open_desk, a, b, third)
    model, table = desk.page.model, desk.page.table
    assert len(model.rows) == 9
    desk.page.select([*twin(1, A, B), *twin(2, ClusterId("c"))])
    await desk.window.workspace.close(ClusterId("c"))
    assert len(model.rows) == 6
    assert set(table.selected_ids) == set(twin(1, A, B))
    assert len(desk.selected) == 2
    kept = model.row(twin(0, A)[0])
    a.change(0, VmStatus.PAUSED, StatusCause.USER)  # told only after the next cluster is there
    await desk.window.workspace.open(third.view.config)
    await desk.settle()
    assert model.row(twin(0, A)[0]) is kept
    assert len(model.rows) == 9
    assert (A, "web-0", "Paused") in shown(model)
    assert set(table.selected_ids) == set(twin(1, A, B))
    third.change(0, VmStatus.CRASHED, StatusCause.CRASHED)
    await desk.settle()
    assert ("c", "web-0", "Crashed") in shown(model)


async def test_only_what_is_shown_is_measured_in_every_cluster(open_desk: OpenDesk) -> None:
    a, b = two()
    desk = await everywhere(open_desk, a, b)
    assert "page vm across" in a.sampler.wanted & b.sampler.wanted
    desk.page.select(twin(1, B))
    await until(lambda: "page vm across chart" in b.sampler.wanted, "the charts")
    assert "page vm across chart" not in a.sampler.wanted
    desk.page.select(twin(1, A))
    await until(lambda: "page vm across chart" in a.sampler.wanted, "the charts of the other")
    assert "page vm across chart" not in b.sampler.wanted
    desk.window.navigation.go(Place(A, "roles"))
    for each in (a, b):
        assert not any("across" in who for who in each.sampler.wanted)
    b.change(3, VmStatus.OFF)  # seen when it is shown again
    await desk.settle()
    desk.window.navigation.go(ROLES)
    assert (B, "web-3", "Off") in shown(desk.page.model)


async def test_details_are_those_of_the_cluster_or_tell_how_many_are_where(open_desk: OpenDesk) -> None:
    a, b = two()
    desk = await everywhere(open_desk, a, b)
    details = desk.page.details
    assert isinstance(details, DetailsAcross)
    b.change(1, VmStatus.PAUSED, StatusCause.USER)
    await desk.settle()
    desk.page.select(twin(1, B))
    one = details.currentWidget()
    assert isinstance(one, Details)
    await until(lambda: "Paused" in one.title.text(), "the VM of that cluster")
    desk.page.select([*twin(1, A, B), *twin(2, A)])
    assert details._title.text() == "Selected in 2 clusters"

    def told() -> list[list[str]]:
        items = [[details._spread.item(row, column) for column in (0, 1)] for row in (0, 1)]
        return [[item.text() if item is not None else "" for item in line] for line in items]

    await until(lambda: told() == [[A, "2 VMs, 4 GiB, 4 vCPUs"], [B, "1 VM, 2 GiB, 2 vCPUs"]], "the sums")


@pytest.mark.parametrize(("page", "column"), [("storage", "name"), ("networks", "name"), ("events", "text")])
async def test_pools_networks_and_events_of_all_are_one_list(
    open_desk: OpenDesk, page: str, column: str
) -> None:
    a, b = two()
    for each in (a, b):
        tell(each, "n1", POOL, OWN)
        tell(each, "n2", POOL)
        each.dispatch(OwnershipTaken(at_s=each.clock.now_s()))
    a.change(0, VmStatus.OFF, StatusCause.SHUT_DOWN)
    b.clock.at_s += 60
    b.change(0, VmStatus.OFF, StatusCause.SHUT_DOWN)
    (event,) = b.view.events.values()
    b.past_events = (replace(event, id=id_at(1_000.0), at_s=1_000.0),)
    third = runtime_of(1, 1, name="c")
    desk = await everywhere(open_desk, a, b, third)
    await desk.window.workspace.close(ClusterId("c"))
    desk.window.go_page(page)
    assert desk.window.here == Place(EVERY, page)
    await desk.settle()
    model, kind = desk.page.model, desk.page.kind
    rows = [(row.view.id, model.text(row, model.columns[column])) for row in model.rows]
    assert (
        rows
        == {
            Kind.POOL: [(A, "default"), (B, "default"), (A, "vms"), (B, "vms")],
            Kind.NETWORK: [(A, "br0"), (B, "br0"), (A, "default"), (B, "default")],
            Kind.EVENT: [(c, "Off on n1 (shut down)") for c in (B, A, B)],  # the newest first
        }[kind]
    )
    assert not desk.page.table.isColumnHidden(model.columns["cluster"])
    if kind is Kind.EVENT:
        assert not b.past_events  # both were asked for what happened before
    else:
        assert all(f"page {kind.value} across" in each.resources.wanted for each in (a, b))
        desk.window._show_counts()
        item = desk.window.navigation._items[Place(EVERY, page)]
        assert (item.data(0, COUNT), item.data(0, ALERT)) == ("4", "")
    desk.page.select([model.rows[1].key])  # its details are its own cluster's
    details = desk.page.details
    assert isinstance(details, DetailsAcross)
    shown = details.currentWidget()
    assert isinstance(shown, ResourceDetails | EventDetails)
    assert shown._runtime is (a if kind is Kind.EVENT else b)
    desk.page.select([row.key for row in model.rows])
    assert details._title.text() == "Selected in 2 clusters"
    if kind is Kind.EVENT:
        search(model, "cluster:lab-b")
        assert [row.view.id for row in model.rows] == [B, B]
        return
    tell(b, "n2")  # a change of one cluster is one of its rows
    await desk.settle()
    if kind is Kind.POOL:
        search(model, "is:missing")
        assert [row.view.id for row in model.rows] == [B]
        desk.window._show_counts()
        assert item.data(0, ALERT) == "paused"
    await desk.window.workspace.open(third.view.config)
    assert f"page {kind.value} across" in third.resources.wanted
    desk.window.navigation.go(ROLES)
    assert not a.resources.wanted | b.resources.wanted | third.resources.wanted


# --- actions -----------------------------------------------------------------------------------------


async def test_one_question_then_one_request_in_each_cluster(open_desk: OpenDesk) -> None:
    desk = await everywhere(open_desk, *two(off=frozenset({2})))
    desk.page.select([*twin(1, A, B), *twin(2, A, B)])
    assert desk.window.center.counts["vm.turn_off"].text == "3 of 4"
    desk.press("vm.turn_off")
    dialog = await question(desk, ConfirmDialog)
    assert isinstance(dialog, ConfirmDialog)
    assert dialog.heading.text() == "Turn off 2 VMs in prod-a and web-1 in lab-b?"
    assert "In lab-b 1 of 2; 1 skipped: already off." in dialog.text
    assert dialog.go.text() == "Turn off 3"
    dialog.cancel.click()
    await desk.settle()
    assert asked(desk, A) == asked(desk, B) == []
    desk.press("vm.turn_off")
    again = await question(desk, ConfirmDialog, but=dialog)
    assert isinstance(again, ConfirmDialog)
    again.go.click()
    await until(lambda: asked(desk, B), "the requests")
    assert (sorted(asked(desk, A)), asked(desk, B)) == (["web-1", "web-2"], ["web-1"])


async def test_what_changed_meanwhile_in_one_cluster_is_asked_again(open_desk: OpenDesk) -> None:
    a, b = two()
    desk = await everywhere(open_desk, a, b)
    desk.page.select(twin(1, A, B))
    desk.press("vm.turn_off")
    first = await question(desk, ConfirmDialog)
    b.change(1, VmStatus.OFF, StatusCause.SHUT_DOWN)
    first.accept()
    second = await question(desk, ConfirmDialog, but=first)
    assert second.heading.text() == "Turn off web-1 in prod-a?"
    second.accept()
    await until(lambda: asked(desk, A), "the request")
    assert asked(desk, B) == []


async def test_who_gives_up_in_one_cluster_gives_up_in_all(open_desk: OpenDesk) -> None:
    desk = await everywhere(open_desk, *two())
    desk.page.select([*twin(1, A, B), *twin(3, A, B)])
    desk.press("vm.live_migrate.select")
    first = await question(desk, MigrateDialog)
    assert "in prod-a" in first.heading.text()
    first.accept()
    second = await question(desk, MigrateDialog, but=first)
    assert "in lab-b" in second.heading.text()
    assert asked(desk, A) == []  # nothing is done before all was asked
    second.reject()
    await desk.settle()
    assert asked(desk, A) == asked(desk, B) == []


async def test_a_cluster_with_nothing_to_move_is_not_asked_about(open_desk: OpenDesk) -> None:
    desk = await everywhere(open_desk, *two(off=frozenset({1, 3})))
    desk.page.select([*twin(1, A, B), *twin(3, A, B)])
    desk.press("vm.live_migrate.select")
    dialog = await question(desk, MigrateDialog)
    assert "in prod-a" in dialog.heading.text()
    dialog.accept()
    await until(lambda: asked(desk, A), "the request")
    assert sorted(asked(desk, A)) == ["web-1", "web-3"]
    assert asked(desk, B) == []
    assert not any(each.isVisible() for each in desk.window.findChildren(MigrateDialog) if each is not dialog)


async def test_a_move_that_asked_where_to_is_confirmed_by_that(open_desk: OpenDesk) -> None:
    desk = await everywhere(open_desk, *(able(each) for each in two()))
    desk.page.select(twin(1, A, B))
    desk.press("vm.turn_off_and_move")
    first = await question(desk, MigrateDialog)
    assert isinstance(first, MigrateDialog)
    first.accept()
    second = await question(desk, MigrateDialog, but=first)
    assert asked(desk, A) == []
    second.accept()
    await until(lambda: asked(desk, B), "the requests")
    assert asked(desk, A) == asked(desk, B) == ["web-1"]


async def test_a_cluster_that_refuses_does_not_keep_the_others(open_desk: OpenDesk) -> None:
    a, b = two(off=frozenset({0}))
    a.change(0, VmStatus.OFF, StatusCause.SHUT_DOWN)
    desk = await everywhere(open_desk, a, b)

    def refuse(*_: object) -> None:
        raise OSError("its owner does not answer")

    a.request = refuse  # type: ignore[method-assign, assignment]
    desk.page.select(twin(0, A, B))
    desk.press("vm.start")
    await until(lambda: asked(desk, B), "the request")
    assert asked(desk, A) == []
    assert desk.window.notes[-1].label.text() == "Start in prod-a: its owner does not answer"


# --- the model ---------------------------------------------------------------------------------------


class Everywhere:
    """The merged model with a view, fed by two clusters."""

    def __init__(self, look: Look, qtbot: QtBot, vms: int = 12) -> None:
        self.runtimes = two(vms)
        self.source = AllClusters(Kind.VM, [each.view for each in self.runtimes])
        self.model = RowsModel(Kind.VM, self.source)
        self.table = RowsTable(self.model, look, name="table-test", views=MemoryViews(), title="Roles")
        qtbot.addWidget(self.table)
        self.table.resize(900, 300)
        self.table.show()
        for each in self.runtimes:
            each.subscribe(lambda changes, c=each.id: self.model.take(self.source.changes(c, changes)))  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(4))
def test_the_merged_list_is_what_it_says_after_anything(look: Look, qtbot: QtBot, seed: int) -> None:
    every = Everywhere(look, qtbot)
    model, chance = every.model, random.Random(seed)
    tester = QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal, every.table)
    assert tester.model() is model
    states = [VmStatus.RUNNING, VmStatus.OFF, VmStatus.PAUSED, VmStatus.CRASHED]
    chosen = set(twin(3, A, B))
    every.table.select_ids(chosen)
    for step in range(120):
        of = chance.choice(every.runtimes)
        match chance.randrange(7):
            case 0:
                of.rename(chance.randrange(12), f"web-{chance.randrange(30)}")
            case 1:
                model.set_order([(chance.choice(("name", "cluster", "status")), chance.random() < 0.5)])
            case 2:
                search(model, chance.choice(("", "web-1", "cluster:lab-b", "not cluster:lab-b is:running")))
            case 3:
                model.group_by(chance.choice(("", "cluster", "status")), [GroupKey(0, "Off")])
            case 4:
                number = chance.randrange(100, 104)
                of.dispatch(
                    VmStateChanged(
                        at_s=of.clock.at_s + step,
                        node=NodeId("n1"),
                        vm=vm_id(number),
                        name=f"new-{number}",
                        status=VmStatus.RUNNING,
                        cause=StatusCause.NONE,
                    )
                )
            case 5:
                views = [each.view for each in every.runtimes]
                every.source = AllClusters(Kind.VM, views[: chance.choice((1, 2, 2))])
                model.read_from(every.source)
            case _:
                of.change(chance.randrange(12), chance.choice(states))
        every.table.select_ids(chosen, reveal=False)
        assert len({row.key for row in model.rows}) == len(model.rows) == len({id(row) for row in model.rows})
        assert [line.pos for line in model.lines] == list(range(len(model.lines)))
    every.source = AllClusters(Kind.VM, [each.view for each in every.runtimes])
    model.read_from(every.source)
    fresh = RowsModel(Kind.VM, every.source)
    fresh.set_order(model.order)
    fresh.set_filter(model._filter)
    fresh.group_by(model.group_field, model.closed_groups)
    assert [line.key for line in fresh.lines] == [line.key for line in model.lines]
    assert {key: row.item for key, row in fresh._rows.items()} == {k: r.item for k, r in model._rows.items()}

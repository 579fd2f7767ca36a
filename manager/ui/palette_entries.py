"""What the palette finds: every action, command, page, view, node and VM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from manager.core.ids import ClusterId, Kind
from manager.core.query.views import Views
from manager.ui.actions import ENTRIES, ActionCenter
from manager.ui.all_clusters import WITH_LISTS
from manager.ui.cluster_pages import ClusterPages
from manager.ui.commands import NO_CLUSTER, Commands, key_of
from manager.ui.dialogs.palette import Found
from manager.ui.travel import Travel
from manager.ui.views.navigation import EVERY, PAGE_OF, TITLES, Place, page_place

_VIEWED = {kind: TITLES[page] for kind, page in PAGE_OF.items()} | {
    Kind.OPERATION: "the history of moves",
    Kind.PROBLEM: "the problems",
}
"""What has views: lists of pages, and of panes."""


def palette_entries(
    center: ActionCenter,
    commands: Commands,
    travel: Travel,
    clusters: Mapping[ClusterId, ClusterPages],
    views: Views,
) -> list[Found]:
    """All of them, actions first; what cannot be done now says why."""
    found: list[Found] = []
    for entry in ENTRIES:
        action = center.actions[entry.id]
        title = f"{entry.submenu}: {entry.title}" if entry.submenu else entry.title
        why_grey = center.why_grey(entry) if clusters else NO_CLUSTER
        why_not = "" if action.isEnabled() else why_grey
        found.append(Found(entry.id, title, "action", action.trigger, key_of(action), why_not))
    for action in commands.all:
        why_not = "" if action.isEnabled() else commands.why_grey(action)
        title = action.text()
        found.append(Found(f"window {title}", title, "window", action.trigger, key_of(action), why_not))
    for page in WITH_LISTS:
        if travel.has(Place(EVERY, page)):
            found.append(_place(travel, Place(EVERY, page), TITLES[page], "page of all clusters"))
    for pages in clusters.values():
        found += _of_cluster(travel, pages, views)
    return found


def _of_cluster(travel: Travel, pages: ClusterPages, views: Views) -> Iterator[Found]:
    cluster = pages.runtime.id
    for page, title in TITLES.items():
        yield _place(travel, page_place(cluster, page), title, f"page of {cluster}")
    for kind, what in _VIEWED.items():
        for view in views.of(kind)[1:]:
            go = partial(travel.show_view_of, cluster, view)
            yield Found(f"{cluster} {kind.value} {view.id}", view.name, f"view of {what} of {cluster}", go)
    node_text, vm_text = f"node of {cluster}", f"VM of {cluster}"
    for name in pages.runtime.view.nodes:
        yield _place(travel, Place(cluster, "roles", f"node:{name}"), name, node_text)
    for vm in pages.runtime.view.vms.values():
        show = partial(travel.show_vm, cluster, vm.id)
        yield Found(f"{cluster} {vm.id}", vm.name, vm_text, show)


def _place(travel: Travel, place: Place, title: str, kind: str) -> Found:
    go = partial(travel.go_and_focus, place)
    return Found(f"{place.cluster} {place.page} {place.scope}", title, kind, go)

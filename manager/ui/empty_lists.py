"""What an empty list says: what belongs there, and the button that makes or shows it."""

from __future__ import annotations

from collections.abc import Callable

from manager.core import units
from manager.core.ids import Kind
from manager.ui.list_commands import ListCommands
from manager.ui.opening import Opening
from manager.ui.travel import Travel
from manager.ui.views.events_page import NOTHING
from manager.ui.views.list_page import ListPage
from manager.ui.views.resource_details import RESOURCES

Empty = tuple[str, str, str, Callable[[], object] | None]
"""(title, text, button, what it does)."""


def empty_text(page: ListPage, travel: Travel, opening: Opening, lists: ListCommands) -> Empty:
    """Why there is nothing, as far as it is known, and what to do about it."""
    nodes = [node for runtime in page.runtimes.values() for node in runtime.view.nodes.values()]
    if page.kind is Kind.EVENT:
        return *NOTHING, "", None
    if page.kind is Kind.NODE and page.scope_title and nodes:
        return f"No node: {page.scope_title}", "", "Show all nodes", lambda: travel.go_page("nodes")
    if page.kind is Kind.NODE:
        return (
            "This cluster has no nodes",
            "Nodes are the libvirt hosts that its cluster file names.",
            "Connect to a cluster…",
            opening.connect_cluster,
        )
    if page.kind in RESOURCES:
        what = "storage pool" if page.kind is Kind.POOL else "network"
        return (
            f"No {what} is known",
            f"The nodes are asked for their {what}s a moment after they are connected to.",
            "Read again",
            lists.refresh,
        )
    if page.scope_title and any(runtime.view.vms for runtime in page.runtimes.values()):
        right = page.shown.view.id in ("attention", "unmovable")
        return (
            f"No VM: {page.scope_title}",
            "That is as it should be." if right else page.shown.view.query,
            "Show all roles",
            travel.go_all_roles,
        )
    if any(not node.is_up for node in nodes):
        waiting = sum(1 for node in nodes if not node.is_up)
        return (
            "No VM is known yet",
            f"{waiting} of {units.count_text(len(nodes), 'node')} cannot be read: "
            "the reasons are under Nodes.",
            "Show the nodes",
            lambda: travel.go_page("nodes"),
        )
    return (
        "No VM is defined on these nodes",
        "Every VM of the hosts is a role here. Define one on a host, for instance with virt-install, "
        "and it shows up at once.",
        "Read again",
        lists.refresh,
    )

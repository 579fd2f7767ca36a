"""``vm why`` and ``place``: where a VM may run and where it goes best, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manager.cli.app import App
from manager.cli.options import Settings
from manager.cli.output import Column, print_heading, print_json, print_pairs, print_table
from manager.cli.session import opened
from manager.core.placement import planner
from manager.core.placement.planner import NodeVerdict
from manager.core.reasons import Reason


async def why(app: App, settings: Settings, name: str) -> int:
    """Each node with its verdict, all that speaks against it, and what it weighs."""
    async with opened(app, settings, reading=True) as session:
        session.need_any()
        session.warn_of_unreachable()
        view = session.view
        vm = view.vms[session.find([name])[0]]
        verdicts = planner.explain(view, vm)
        obstacles = planner.obstacles(view.config, vm)
        if settings.as_json:
            same = {"vm": vm.name, "cannot_be_moved_because": [reason.text for reason in obstacles]}
            print_json([{**same, **_json(each), "is_here": each.node == vm.owner} for each in verdicts])
            return 0
        rows = []
        for each in verdicts:
            takes = "yes" if each.fits else "no"
            here = f"{takes}, is here" if each.node == vm.owner else takes
            said = each.refusals or tuple(w.reason for w in each.weights if w.reason is not None)
            rows.append([each.node, here, "; ".join(reason.text for reason in said)])
        print_table([Column(title="Node"), Column(title="Takes it"), Column(title="Why")], rows)
        if obstacles:
            print_heading("Cannot be moved live")
            print_pairs((reason.text, "") for reason in obstacles)
        return 0


async def place(app: App, settings: Settings, memory_mib: int, vcpus: int, count: int) -> int:
    """Where VMs of a size would go, with each other counted; 1 if not all have a place."""
    async with opened(app, settings, reading=True) as session:
        session.need_any()
        session.warn_of_unreachable()
        room = planner.Room(session.view, keep_reserve=True)
        found = list(room.place(planner.newcomers(memory_mib, vcpus, count)).values())
        if settings.as_json:
            print_json([{"number": n, **_place_json(each)} for n, each in enumerate(found, 1)])
        else:
            columns = [Column(title="VM", right=True), Column(title="Node"), Column(title="Why")]
            print_table(columns, _place_rows(found))
        return 0 if all(isinstance(each, NodeVerdict) for each in found) else 1


def _place_rows(found: Sequence[NodeVerdict | Reason]) -> list[list[str]]:
    rows = []
    for number, each in enumerate(found, 1):
        node, why = (each.node, each.reason) if isinstance(each, NodeVerdict) else ("none", each)
        rows.append([str(number), node, why.text])
    return rows


def _place_json(found: NodeVerdict | Reason) -> dict[str, Any]:
    if isinstance(found, Reason):
        return {"node": None, "reason": found.text, "code": found.code.value}
    return {"node": found.node, "reason": found.reason.text, "code": found.reason.code.value}


def _json(verdict: NodeVerdict) -> dict[str, Any]:
    return {
        "node": verdict.node,
        "takes_it": verdict.fits,
        "refusals": [{"code": reason.code.value, "text": reason.text} for reason in verdict.refusals],
        "weights": [
            {"weigher": w.title, "rank": round(w.rank, 4), "text": w.reason.text if w.reason else None}
            for w in verdict.weights
        ],
    }

"""The fields of problems."""

from __future__ import annotations

from manager.core import units
from manager.core.cluster import ClusterView
from manager.core.ids import PoolId
from manager.core.model import Problem
from manager.core.query.spec import FieldKind, FieldSpec, attribute, on, plain


def _problem_subject(view: ClusterView, problem: Problem) -> str:
    if problem.key.startswith("vm:") and problem.vms:
        vm = view.vms.get(problem.vms[0])
        return f"VM {vm.name}" if vm else problem.vms[0]
    if problem.key.startswith("pool:"):
        pool = view.resources.pools.get(PoolId(problem.key.removeprefix("pool:")))
        where = f" on {problem.node}" if problem.node else ""
        return f"Pool {pool.name}{where}" if pool else "Pool"
    return f"Node {problem.node}" if problem.node else "Cluster"


PROBLEM_FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        name="since",
        title="Since",
        kind=FieldKind.TIME,
        doc="When it began.",
        get=attribute("since_s"),
        text=units.time_text,
        json=units.iso_text,
        depends=frozenset(),
        width=80,
    ),
    FieldSpec(
        name="subject",
        title="What",
        kind=FieldKind.TEXT,
        doc="The node or VM.",
        get=_problem_subject,
        text=plain,
        prose=True,
        depends=on("vms"),
        width=160,
        searchable=True,
    ),
    FieldSpec(
        name="reason",
        title="Problem",
        kind=FieldKind.TEXT,
        doc="What is wrong.",
        get=lambda view, p: p.reason.text,
        text=plain,
        prose=True,
        depends=on("reason"),
        width=460,
        searchable=True,
    ),
    FieldSpec(
        name="affected",
        title="Affected",
        kind=FieldKind.TEXT,
        doc="How many VMs it concerns.",
        get=lambda view, p: units.count_text(len(p.vms), "VM") if p.vms else None,
        text=plain,
        prose=True,
        depends=on("vms"),
        width=90,
    ),
    FieldSpec(
        name="remedy",
        title="What to do",
        kind=FieldKind.TEXT,
        doc="What to try.",
        get=lambda view, p: p.reason.remedy or None,
        text=plain,
        prose=True,
        depends=on("reason"),
        width=420,
    ),
)

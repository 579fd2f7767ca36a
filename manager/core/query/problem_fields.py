"""The fields of problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manager.core import units
from manager.core.cluster import ClusterView
from manager.core.ids import PoolId
from manager.core.model import Problem
from manager.core.query.spec import FieldKind, FieldSpec, attribute, on, plain


def subject_of(view: ClusterView, problem: Problem) -> str:
    """What a problem is about: ``VM web-01``, ``Node n3``, ``Pool vms``, ``Cluster``."""
    if problem.key.startswith("vm:") and problem.vms:
        vm = view.vms.get(problem.vms[0])
        return f"VM {vm.name}" if vm else problem.vms[0]
    if problem.key.startswith("pool:"):
        pool = view.resources.pools.get(PoolId(problem.key.removeprefix("pool:")))
        where = f" on {problem.node}" if problem.node else ""
        return f"Pool {pool.name}{where}" if pool else "Pool"
    return f"Node {problem.node}" if problem.node else "Cluster"


def _of_life(name: str) -> Callable[[ClusterView, Problem], Any]:
    """A getter of what is kept of a problem; None where that is not known, or there is nothing."""
    return lambda view, problem: (getattr(problem.life, name) or None) if problem.life else None


def _state(view: ClusterView, problem: Problem) -> str:
    life = problem.life
    if life is None or problem.is_new(view.now_s):
        return "new"
    return "acknowledged" if life.acknowledged_by else "muted"


def _said(view: ClusterView, problem: Problem) -> str | None:
    """Who said what of it."""
    life = problem.life
    if life is None:
        return None
    said = []
    if life.acknowledged_by:
        said.append(f"{life.acknowledged_by}: {life.note}" if life.note else life.acknowledged_by)
    if life.is_muted(view.now_s) and life.muted_until_s is not None:
        said.append(f"muted until {units.time_text(life.muted_until_s)} by {life.muted_by}")
    return "; ".join(said) or None


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
        get=subject_of,
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
        name="state",
        title="State",
        kind=FieldKind.TEXT,
        doc="new, acknowledged or muted. Only new ones are counted, and told of to monitoring.",
        get=_state,
        text=plain,
        words=("new", "acknowledged", "muted"),
        depends=on("life"),
        width=100,
        searchable=True,
        volatile=True,
    ),
    FieldSpec(
        name="note",
        title="Note",
        kind=FieldKind.TEXT,
        doc="Who acknowledged it with which note; until when it is muted, and by whom.",
        get=_said,
        text=plain,
        prose=True,
        depends=on("life"),
        width=220,
        volatile=True,
    ),
    FieldSpec(
        name="first_seen",
        title="First seen",
        kind=FieldKind.TIME,
        doc="When this problem was seen for the first time.",
        get=_of_life("first_s"),
        text=units.moment_text,
        json=units.iso_text,
        depends=on("life"),
        width=140,
        shown=False,
    ),
    FieldSpec(
        name="last_seen",
        title="Last seen",
        kind=FieldKind.TIME,
        doc="When it was seen last: now, for as long as it goes on.",
        get=lambda view, p: max(view.now_s, p.since_s),
        text=units.moment_text,
        json=units.iso_text,
        depends=on("life"),
        width=140,
        shown=False,
        volatile=True,
    ),
    FieldSpec(
        name="times",
        title="Times",
        kind=FieldKind.COUNT,
        doc="How often it began since it was first seen.",
        get=_of_life("times"),
        text=str,
        depends=on("life"),
        width=60,
        shown=False,
    ),
    FieldSpec(
        name="key",
        title="Key",
        kind=FieldKind.TEXT,
        doc="By what it is named in commands.",
        get=attribute("key"),
        text=plain,
        depends=frozenset(),
        width=160,
        shown=False,
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

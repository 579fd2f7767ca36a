"""Groups of a list: to which a row belongs, in what order they stand, what is said of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from manager.core import units
from manager.core.cluster import ClusterView
from manager.core.ids import Kind
from manager.core.query.spec import FieldKind, FieldSpec, Unavailable, natural

KNOWN, NOTHING, UNKNOWN = range(3)
"""Where groups stand, whichever way a list is sorted; nothing: what has no value, such as VMs without tags.

Plain numbers: a key is hashed for every row of a list, and an enum's hash is several times slower.
"""


class GroupKey(NamedTuple):
    """What tells groups of one field apart."""

    standing: int
    value: str


_NOTHING = GroupKey(NOTHING, "")
_UNKNOWN = GroupKey(UNKNOWN, "")


def group_key(spec: FieldSpec, value: Any) -> GroupKey:
    """The group of a value. Words group by their JSON value: a VM that moves is in its owner's group."""
    if isinstance(value, Unavailable):
        return _UNKNOWN
    if value is None:
        return _NOTHING
    said = spec.json(value) if spec.kind in (FieldKind.TEXT, FieldKind.ENUM) else None
    text = said if isinstance(said, str) else spec.text(value)
    return GroupKey(KNOWN, text) if text else _NOTHING


def group_order(spec: FieldSpec, view: ClusterView, row: Any, key: GroupKey) -> Any:
    """A key that orders the groups of a field; of those that are known, as the field is sorted."""
    if key.standing != KNOWN:
        return ()
    value = spec.sort_key(view, row)[1]
    # Words are ordered by the group's own, which is not always all that the cell says.
    return natural(key.value.lower()) if isinstance(value, tuple) else value


Seen = tuple[ClusterView, Any]
"""An object, and the cluster through which its fields are read."""


def in_groups(
    spec: FieldSpec, rows: Iterable[Seen], *, down: bool = False
) -> list[tuple[GroupKey, list[Seen]]]:
    """Rows by group, each in the order they came in; `down`: the groups' order is turned round."""
    found: dict[GroupKey, list[Seen]] = {}
    for view, row in rows:
        found.setdefault(group_key(spec, spec.value(view, row)), []).append((view, row))
    known = [key for key in found if key.standing == KNOWN]
    known.sort(key=lambda key: (group_order(spec, *found[key][0], key), key.value), reverse=down)
    rest = sorted(key for key in found if key.standing != KNOWN)
    return [(key, found[key]) for key in (*known, *rest)]


def group_title(spec: FieldSpec, key: GroupKey) -> str:
    """What a group is called: its value, with the field where the value alone would say too little."""
    if key.standing == UNKNOWN:
        return f"{spec.title}: not known"
    if key.standing == NOTHING:
        return f"{spec.title}: none"
    if spec.kind in (FieldKind.TEXT, FieldKind.ENUM, FieldKind.LIST):
        return key.value
    return f"{spec.title}: {key.value}{f' {spec.unit}' if spec.unit else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A figure of several rows: the sum of a field's known values, or their mean."""

    field: str
    text: Callable[[float], str]
    mean: bool = False

    def of(self, values: Iterable[float]) -> float | None:
        """The figure; None if no value is known."""
        known = list(values)
        if not known:
            return None
        return sum(known) / len(known) if self.mean else sum(known)


def _share(percent: float) -> str:
    return f"{percent:.0f} % CPU"


TOTALS: dict[Kind, tuple[Total, ...]] = {
    Kind.VM: (
        Total(field="memory_mib", text=units.mib_text),
        Total(field="vcpus", text=lambda count: units.count_text(int(count), "vCPU")),
        Total(field="cpu", text=_share, mean=True),
    ),
    Kind.NODE: (
        Total(field="memory_mib", text=units.mib_text),
        Total(field="cpus", text=lambda count: units.count_text(int(count), "CPU")),
        Total(field="cpu", text=_share, mean=True),
    ),
    Kind.POOL: (
        Total(field="capacity_bytes", text=units.size_text),
        Total(field="free_bytes", text=lambda size: f"{units.size_text(size)} free"),
    ),
    Kind.VOLUME: (Total(field="allocated_bytes", text=lambda size: f"{units.size_text(size)} allocated"),),
}
"""What is told of several objects of a kind besides how many they are."""

Figures = tuple[tuple[str, float], ...]
"""Totals with the names of their fields."""


def figures_of(
    kind: Kind, known: Callable[[str], Iterable[float]], wanted: Callable[[str], bool] = lambda name: True
) -> Figures:
    """Sums and means of what is known; `known`: the known values of a field, by its name."""
    totals = (total for total in TOTALS.get(kind, ()) if wanted(total.field))
    found = ((total.field, total.of(known(total.field))) for total in totals)
    return tuple((name, figure) for name, figure in found if figure is not None)


def known_values(spec: FieldSpec, rows: Iterable[Seen]) -> list[float]:
    """A field's values, without those that are not known."""
    values = (spec.value(view, row) for view, row in rows)
    return [value for value in values if value is not None and not isinstance(value, Unavailable)]


def told(kind: Kind, count: int, figures: Figures, chosen: str = "") -> str:
    """``22 VMs, 71 GiB, 44 vCPUs, 34 % CPU``; `chosen`: a word after their number."""
    texts = {total.field: total.text for total in TOTALS.get(kind, ())}
    number = units.count_text(count, "VM" if kind is Kind.VM else kind.value) + chosen
    return ", ".join([number, *(texts[name](figure) for name, figure in figures)])


def group_json(spec: FieldSpec, key: GroupKey, count: int, figures: Figures) -> dict[str, Any]:
    """A group as JSON; its rows are for the caller to add. A group of what is not known has no value."""
    return {
        "field": spec.name,
        "group": key.value if key.standing == KNOWN else None,
        "title": group_title(spec, key),
        "count": count,
        "totals": {name: round(figure, 1) for name, figure in figures},
    }

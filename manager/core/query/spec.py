"""What a field is: its kind, how it is read, what stands where nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from natsort import natsort_keygen

from manager.core.cluster import ClusterView
from manager.core.reasons import Reason, ReasonCode, because


@dataclass(frozen=True, slots=True)
class Unavailable:
    """In place of a value: it is not known, and why. Neither more nor less than any value.

    `last` is what it was when it was last known: shown, and compared with nothing.
    """

    reason: Reason
    last: Any = None


class FieldKind(StrEnum):
    """What a field's values are; decides alignment, sorting and JSON."""

    TEXT = "text"
    ENUM = "enum"
    COUNT = "count"
    SIZE_MIB = "MiB"
    PERCENT = "percent"
    SECONDS = "seconds"  # a span
    TIME = "time"  # a moment, epoch seconds
    RATE = "bytes/s"
    BYTES = "bytes"
    LIST = "list"
    BOOL = "yes/no"

    @property
    def is_number(self) -> bool:
        """Right-aligned, tabular figures."""
        return self not in (FieldKind.TEXT, FieldKind.ENUM, FieldKind.LIST, FieldKind.BOOL)


BEING_READ = Unavailable(because(ReasonCode.BEING_READ))
NOT_SAMPLED = Unavailable(because(ReasonCode.NOT_SAMPLED))
NOT_KNOWN = Unavailable(because(ReasonCode.NOT_KNOWN))

_natural = natsort_keygen()


@lru_cache(maxsize=2048)
def natural(text: str) -> tuple[Any, ...]:
    """Key that sorts ``web-2`` before ``web-10``. What many rows say has one key: 64 owners, not 8,000."""
    key: tuple[Any, ...] = _natural(text)
    return key


_UNITS = ("_mib_s", "_mib", "_bytes", "_ms", "_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """A field of one kind of object. `get` returns a plain value, None (nothing to say) or `Unavailable`."""

    name: str  # JSON key, query term, --columns word
    title: str  # column header
    kind: FieldKind
    doc: str
    get: Callable[[ClusterView, Any], Any]
    text: Callable[[Any], str]
    depends: frozenset[str]  # attributes of the row whose change changes this field
    width: int = 100  # default column width in pixels
    shown: bool = True  # a column unless chosen otherwise
    unit: str = ""  # in the header where all rows share one
    json: Callable[[Any], Any] = lambda value: value
    searchable: bool = False  # part of what the search box looks at
    sample: bool = False  # needs load samples: shown columns ask for them
    volatile: bool = False  # follows from other rows too: its text is never kept
    prose: bool = False  # sentences or paths: a query's value occurs in them, it is not all of them
    words: tuple[str, ...] = ()  # all there can be, where they are few; as people read them
    ranks: Mapping[str, int] | None = None  # words in lower case that stand for values with an order
    aliases: tuple[str, ...] = ()  # further query terms for it

    @property
    def term(self) -> str:
        """Its word in a query: the name without its unit."""
        for unit in _UNITS:
            if self.name.endswith(unit):
                return self.name.removesuffix(unit)
        return self.name

    def value(self, view: ClusterView, row: Any) -> Any:
        """The value for one row (a `Vm`, `Node`, `Operation` or `Problem`)."""
        return self.get(view, row)

    def cell(self, view: ClusterView, row: Any) -> str:
        """The text people read; nothing else formats it."""
        value = self.get(view, row)
        if value is None:
            return ""
        if isinstance(value, Unavailable):
            if value.last is not None:
                return self.text(value.last)
            return "…" if value is BEING_READ else "–"
        return self.text(value)

    def as_json(self, view: ClusterView, row: Any) -> Any:
        """The value for JSON; unknown and nothing are null."""
        value = self.get(view, row)
        return None if value is None or isinstance(value, Unavailable) else self.json(value)

    def sort_key(self, view: ClusterView, row: Any) -> Any:
        """A key that orders rows; what is not known comes last."""
        value = self.get(view, row)
        if value is None or isinstance(value, Unavailable):
            return (1, 0) if self.kind.is_number else (1, ())
        if self.kind.is_number or isinstance(value, int):  # a yes or no, or steps with an order of their own
            return (0, value)
        if self.kind is FieldKind.LIST:
            return (0, natural(", ".join(value).lower()))
        return (0, natural(self.text(value).lower()))


def attribute(name: str) -> Callable[[ClusterView, Any], Any]:
    """A getter of an attribute of the row."""
    return lambda view, row: getattr(row, name)


plain = str
"""A value as it is."""


def yes_no(value: bool) -> str:
    """As people read it."""
    return "yes" if value else "no"


def percent(value: float) -> str:
    """Without decimals; the header has the unit."""
    return f"{value:.0f}"


def gib(value_mib: float) -> str:
    """MiB as GiB, with as many decimals as say something."""
    gib = value_mib / 1024
    return f"{gib:.0f}" if gib == int(gib) else f"{gib:.1f}" if gib >= 0.95 else f"{gib:.2f}"


def join(values: tuple[str, ...]) -> str:
    """Words, in order."""
    return ", ".join(values)


def on(*names: str) -> frozenset[str]:
    """Attributes that a field follows."""
    return frozenset(names)


CLUSTER = FieldSpec(
    name="cluster",
    title="Cluster",
    kind=FieldKind.TEXT,
    doc="The cluster that it is in: tells rows apart in a list of all clusters.",
    get=lambda view, row: view.id,
    text=plain,
    depends=frozenset(),
    width=110,
    shown=False,
)
"""The same for every kind that is listed across clusters."""

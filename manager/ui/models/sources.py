"""Where the rows of a list come from: one cluster, or all that are open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.ids import ClusterId, Kind
from manager.ui.models.groups import Row

_BETWEEN = "\n"
"""Between a cluster's name, which has no line breaks, and the id of an object in it."""


def objects(view: ClusterView, kind: Kind) -> Mapping[Any, Any]:
    """All objects of a kind by id."""
    if kind is Kind.VM:
        return view.vms
    if kind is Kind.NODE:
        return view.nodes
    if kind is Kind.POOL:
        return view.resources.pools
    if kind is Kind.NETWORK:
        return view.resources.networks
    if kind is Kind.VOLUME:
        return {}  # nobody keeps them: see `extra`
    if kind is Kind.EVENT:
        return view.events
    return view.operations if kind is Kind.OPERATION else view.problems


class OneCluster:
    """The objects of one cluster. A row's key is its object's id."""

    def __init__(self, kind: Kind, view: ClusterView, extra: Mapping[str, Any] | None = None) -> None:
        """`extra`: rows that are no objects of the core's, live."""
        self._kind = kind
        self._view = view
        self._extra: Mapping[str, Any] = {} if extra is None else extra

    def rows(self) -> Iterator[Row]:
        """A row for each object."""
        for key, item in {**objects(self._view, self._kind), **self._extra}.items():
            yield Row(str(key), item, self._view, str(key))

    def row(self, key: str) -> Row | None:
        """A row for the object of that key; None if there is none."""
        row = Row(key, None, self._view, key)
        row.item = self.item(row)
        return row if row.item is not None else None

    def item(self, row: Row) -> Any:
        """What a row's object is now; None if it is gone."""
        return objects(self._view, self._kind).get(row.id) or self._extra.get(row.id)


class AllClusters:
    """The objects of several clusters. A row is known by cluster and id: either alone may be twice."""

    def __init__(self, kind: Kind, views: Iterable[ClusterView]) -> None:
        self.kind = kind
        self._views = {view.id: view for view in views}

    def rows(self) -> Iterator[Row]:
        """A row for each object of each cluster."""
        for view in self._views.values():
            head = view.id + _BETWEEN
            for key, item in objects(view, self.kind).items():
                yield Row(head + key, item, view, str(key))

    def row(self, key: str) -> Row | None:
        """A row for the object of that key; None if there is none, or its cluster was closed."""
        cluster, _, own = key.partition(_BETWEEN)
        view = self._views.get(ClusterId(cluster))
        item = objects(view, self.kind).get(own) if view is not None else None
        return Row(key, item, view, own) if view is not None and item is not None else None

    def item(self, row: Row) -> Any:
        """What a row's object is now; None if it is gone."""
        return objects(row.view, self.kind).get(row.id)

    def changes(self, cluster: ClusterId, changes: ChangeSet) -> ChangeSet:
        """What changed in one of the clusters, by the keys of the rows here."""
        mine, found = changes[self.kind], ChangeSet()
        here = found[self.kind]
        here.added = {key_of(cluster, key) for key in mine.added}
        here.removed = {key_of(cluster, key) for key in mine.removed}
        here.updated = {key_of(cluster, key): names for key, names in mine.updated.items()}
        return found


Source = OneCluster | AllClusters


def key_of(cluster: ClusterId, key: str) -> str:
    """The key of an object's row in the list of all clusters."""
    return f"{cluster}{_BETWEEN}{key}"

"""News of different nodes may come in any order: once all is in, the rows are the same."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from manager.core.model import StatusCause, Vm, VmStatus
from tests.core.support import CRASHED, OFF, PAUSED, SAVED, Cluster, R, uuid

NAMES = ("a", "b", "c")
PLACES = ("n1", "n2", "n3")
CAUSES = (StatusCause.USER, StatusCause.MIGRATED, StatusCause.MIGRATION, StatusCause.IO_ERROR)

states = st.tuples(st.sampled_from((R, OFF, PAUSED, CRASHED, SAVED)), st.sampled_from(CAUSES))
news = st.dictionaries(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(NAMES)), states, min_size=1, max_size=9
)


def timeless(row: Vm) -> Vm:
    """A row without what depends on the moment it was told."""
    return replace(row, changed_at_s=None, started_at_s=None, information=None, notes=())


@given(before=news, after=news, data=st.data())
def test_independent_events_commute(
    before: dict[tuple[str, str], tuple[VmStatus, StatusCause]],
    after: dict[tuple[str, str], tuple[VmStatus, StatusCause]],
    data: st.DataObject,
) -> None:
    """Events about different VMs, each VM's in their own order."""
    given_order = list(after.items())
    by_vm = {name: [each for each in given_order if each[0][1] == name] for name in NAMES}
    order = data.draw(st.permutations([name for (_, name), _ in given_order]))
    queues = {name: iter(events) for name, events in by_vm.items()}
    other_order = [next(queues[name]) for name in order]
    found = []
    for events in (given_order, other_order):
        cluster = Cluster()
        for (node, name), state in before.items():
            cluster.add(node, name, *state, known=False)
        for node in PLACES:
            cluster.read(node)
        for (node, name), state in events:
            cluster.add(node, name, *state, known=False)
            cluster.tell(node, name)
        for node in PLACES * 2:
            cluster.read(node)
        found.append(cluster)
    one, other = found
    assert one.state.vms.keys() == other.state.vms.keys()
    for vm in one.state.vms:
        assert timeless(one.state.vms[vm]) == timeless(other.state.vms[vm])
    assert one.state.problems.keys() == other.state.problems.keys()
    counts = [
        [(n.vms_running, n.vms_total, n.vms_unread) for n in each.state.nodes.values()] for each in found
    ]
    assert counts[0] == counts[1]


@given(before=news, lost=st.sampled_from(PLACES))
def test_a_node_lost_and_back_changes_nothing(
    before: dict[tuple[str, str], tuple[VmStatus, StatusCause]], lost: str
) -> None:
    cluster = Cluster()
    for (node, name), state in before.items():
        cluster.add(node, name, *state)
    for node in PLACES:
        cluster.read(node)
    rows = {vm: timeless(row) for vm, row in cluster.state.vms.items()}
    cluster.lose(lost)
    for row in cluster.state.vms.values():
        known = cluster.state.nodes[row.owner].is_up if row.owner else False
        assert (row.status is VmStatus.UNKNOWN) is not known
        assert (row.was is not None) is not known
    cluster.connect(lost)
    for node in PLACES:
        cluster.read(node)
    assert {vm: timeless(row) for vm, row in cluster.state.vms.items()} == rows
    assert set(rows) == {uuid(name) for _, name in before}

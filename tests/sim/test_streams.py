"""Links and disks that several streams share: max-min fair, within every cap, and cheap."""

from __future__ import annotations

import math
import resource

from hypothesis import given
from hypothesis import strategies as st

from manager.backends.sim.hosts import Guest, SimNode
from manager.backends.sim.moves import Wishes
from manager.backends.sim.streams import Link, Way, fair_rates
from manager.backends.sim.virtual_clock import VirtualClock
from manager.core.errors import Failure
from manager.core.ids import NodeId
from manager.core.model import StatusCause, VmStatus
from manager.core.units import MIB
from tests.support.sim import make_config, make_id, make_world

NODES = [SimNode(id=NodeId(f"n{index}")) for index in range(4)]
links = st.tuples(st.sampled_from(list(Way)), st.sampled_from(NODES))
streams = st.lists(
    st.tuples(
        st.lists(links, min_size=1, max_size=4).map(tuple),
        st.one_of(st.just(math.inf), st.floats(0, 2000)),
    ),
    max_size=12,
)
capacities = st.dictionaries(links, st.floats(0, 1000))


def _used(wanted: list[tuple[tuple[Link, ...], float]], rates: list[float], link: Link) -> float:
    return sum(rate * own.count(link) for (own, _), rate in zip(wanted, rates, strict=True))


@given(streams, capacities)
def test_no_stream_could_be_faster_without_slowing_one_that_is_not_faster(
    wanted: list[tuple[tuple[Link, ...], float]], sizes: dict[Link, float]
) -> None:
    rates = fair_rates(wanted, lambda link: sizes.get(link, 500.0))
    assert len(rates) == len(wanted)
    for (own, cap), rate in zip(wanted, rates, strict=True):
        assert 0 <= rate <= cap
        held = rate >= cap * (1 - 1e-9)
        for link in own:
            size = sizes.get(link, 500.0)
            used = _used(wanted, rates, link)
            assert used <= size * (1 + 1e-9) + 1e-9
            fastest = max(r for (theirs, _), r in zip(wanted, rates, strict=True) if link in theirs)
            held = held or (used >= size * (1 - 1e-9) - 1e-9 and rate >= fastest * (1 - 1e-9) - 1e-9)
        assert held, (own, cap, rate)


def test_what_one_cannot_use_the_others_get() -> None:
    out = (Way.OUT, NODES[0])
    rates = fair_rates(
        [
            ((out, (Way.IN, NODES[1])), math.inf),
            ((out, (Way.IN, NODES[2])), math.inf),
            ((out, (Way.IN, NODES[2])), 100.0),
        ],
        lambda link: 300.0 if link == (Way.IN, NODES[1]) else 1000.0,
    )
    assert rates == [300.0, 600.0, 100.0]


class _HandClock(VirtualClock):
    """Moved by whoever plays the world without a program."""

    time_s = 0.0

    def monotonic_s(self) -> float:
        """As set."""
        return self.time_s


def _drained(
    nodes: int, moves: list[tuple[int, int]], *, slots: int, link_bytes_per_s: float
) -> tuple[float, float]:
    """Makespan and CPU of moves (source, target), each begun as soon as both have a slot."""
    clock = _HandClock()
    names = [f"n{index:02}" for index in range(nodes)]
    world = make_world(clock, names, {names[0]: ()}, memory_mib=10_000_000)
    hosts = list(world.nodes.values())
    for host in hosts:
        host.link_bytes_per_s = link_bytes_per_s
    waiting = []
    for index, (source, target) in enumerate(moves):
        name = f"{index:04}"
        vm = world.add_vm(
            hosts[source], make_id(name), name, make_config(name, memory_mib=1024 * (1 + index % 8)),
            Guest(dirty_mib_s=0, touched=1.0), status=VmStatus.RUNNING, cause=StatusCause.BOOTED,
        )  # fmt: skip
        waiting.append((vm, hosts[target]))
    began_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    busy = dict.fromkeys(world.nodes, 0)
    failures: list[Failure] = []

    def over(source: SimNode, target: SimNode, failure: Failure | None) -> None:
        for node in (source, target):
            busy[node.id] -= 1
        if failure is not None:
            failures.append(failure)
        world.after(0.0, admit)

    def admit() -> None:
        for entry in tuple(waiting):
            vm, target = entry
            source = vm.node
            if max(busy[source.id], busy[target.id]) < slots:
                waiting.remove(entry)
                busy[source.id] += 1
                busy[target.id] += 1
                world.moves.begin(vm, target, lambda f, s=source, t=target: over(s, t, f), Wishes())

    admit()
    while world.next_due_s < math.inf:
        clock.time_s = world.next_due_s
        world.catch_up()
    assert not waiting
    assert not failures
    assert not world.twice
    return clock.monotonic_s(), resource.getrusage(resource.RUSAGE_SELF).ru_utime - began_s


def test_a_drained_host_uses_its_whole_link() -> None:
    """125 VMs of 562 GiB in all; generous: it takes a fifth of this on a slow machine."""
    took_s, cpu_s = _drained(8, [(0, 1 + n % 7) for n in range(125)], slots=4, link_bytes_per_s=1.25e9)
    least_s = sum(1024 * (1 + n % 8) for n in range(125)) * MIB / 1.25e9
    assert least_s < took_s < 1.05 * least_s
    assert cpu_s < 2.0


def test_moves_all_over_a_big_cluster_cost_little() -> None:
    """1,500 moves between 64 hosts; generous: it takes a third of this on a slow machine."""
    moves = [((7 * n) % 64, (7 * n + 1 + (11 * n) % 63) % 64) for n in range(1500)]
    took_s, cpu_s = _drained(64, moves, slots=4, link_bytes_per_s=1.25e9)
    sent = [0.0] * 64
    for n, (source, _) in enumerate(moves):
        sent[source] += 1024 * (1 + n % 8) * MIB
    assert took_s > max(sent) / 1.25e9
    assert cpu_s < 12.0

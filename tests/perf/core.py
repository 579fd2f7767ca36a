"""The pure core: taking in 8,000 VMs, a burst of events, a plan, a long queue."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from manager.core.actions import ACTIONS, MigrateParameters
from manager.core.cluster import ClusterState
from manager.core.events import ActionRequested, VmStateChanged
from manager.core.ids import NodeId, OperationId, TraceId
from manager.core.model import StatusCause, VmStatus
from tests.perf import worlds
from tests.perf.measure import Row, cpu_s, median

NODES, VMS = 64, 8000


def rows() -> Iterator[Row]:
    """The figures of the core."""
    yield Row(
        name=f"core: {NODES} nodes, {VMS} VMs and definitions taken in, CPU",
        ours=_ms([cpu_s(lambda: worlds.filled_state(NODES, VMS)) for _ in range(3)]),
    )
    state = worlds.filled_state(NODES, VMS)
    yield Row(name="core: whole inventory read again, nothing changed, CPU", ours=_refresh(state))
    burst = [cpu_s(lambda seed=s: _burst(worlds.filled_state(NODES, VMS), seed)) for s in range(3)]
    fill = median([cpu_s(lambda: worlds.filled_state(NODES, VMS)) for _ in range(3)])
    spent = max(0.0, median(burst) - fill)
    yield Row(
        name="core: burst of 8,000 state changes, CPU",
        ours=f"{spent * 1000:.0f} ms",
        goal="≤ 200 ms",
        met=spent <= 0.2,
    )
    ids = list(state.owned(NodeId("n00")))
    spec = ACTIONS["vm.live_migrate"]
    plans = [cpu_s(lambda: spec.plan(state, ids, MigrateParameters())) for _ in range(5)]
    yield Row(
        name=f"core: plan to empty one node ({len(ids)} VMs), CPU",
        ours=_ms(plans),
        goal="≤ 50 ms",
        met=median(plans) <= 0.05,
    )
    yield Row(name="core: shut down all 8,000 asked for and admitted, CPU", ours=_ms([_ask_all()]))
    tracemalloc.start()
    kept = worlds.filled_state(NODES, VMS)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    each = size / len(kept.vms) / 1024
    yield Row(name="core: memory for each VM, with its definition", ours=f"{each:.1f} KiB")


def _ms(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.0f} ms"


def _refresh(state: ClusterState) -> str:
    share = VMS // NODES
    reads = [
        worlds.inventory(node.name, range(i * share, (i + 1) * share), at_s=10.0)
        for i, node in enumerate(state.config.nodes)
    ]

    def read_all() -> None:
        for read in reads:
            state.handle(read)

    return _ms([cpu_s(read_all) for _ in range(5)])


def _burst(state: ClusterState, seed: int) -> None:
    for number in range(VMS):
        vm = worlds.vm_id(number)
        owner = state.vms[vm].owner
        assert owner is not None
        state.handle(
            VmStateChanged(
                at_s=20.0 + seed,
                node=owner,
                vm=vm,
                name=f"vm-{number:05d}",
                status=VmStatus.OFF,
                cause=StatusCause.CRASHED,
            )
        )


def _ask_all() -> float:
    state = worlds.filled_state(NODES, VMS)
    plan = ACTIONS["vm.shut_down"].plan(state, list(state.vms))
    return cpu_s(
        lambda: state.handle(
            ActionRequested(
                at_s=30.0, trace=TraceId("t"), plan=plan, author="bench", operation=OperationId("b")
            )
        )
    )

"""The contract, live migration included, on the simulator: so that the fake cannot lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from manager.core.ids import VmId
from tests.contract.hypervisor_contract import HypervisorContract, MovingContract, There
from tests.support.sim import SmallCluster, small_cluster

T = TypeVar("T")

CALL_S = 0.1
"""What a call takes here, so that a test that only looks does see time go by."""


@dataclass(kw_only=True)
class Simulated(There):
    """A small simulated cluster on a virtual clock."""

    sim: SmallCluster

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of a call."""
        result = await self.sim.run(call)
        await self.sim.clock.advance(CALL_S)
        return result

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until the condition holds."""
        await self.sim.until(condition, 60)

    async def rest(self, vm: VmId) -> None:
        """Let the guest boot, or restart."""
        await self.sim.clock.advance(30)

    def addresses(self) -> tuple[str, str]:
        """One that a fault has killed, and another one."""
        self.sim.faults.kill_address("n2", "10.1.0.2")
        return "10.1.0.2", "10.2.0.2"


@pytest.fixture
async def there() -> AsyncIterator[There]:
    async with small_cluster(("n1", "n2"), {"n1": ("a", "b")}, vm_memory_mib=256) as sim:
        facts = {node.name: await sim.run(sim.hypervisor.connect(node)) for node in sim.config.nodes}
        yield Simulated(
            hypervisor=sim.hypervisor,
            config=sim.config,
            facts=facts,
            vms=(sim.id("a"), sim.id("b")),
            seen=sim.seen,
            sim=sim,
        )


class TestSimulator(HypervisorContract, MovingContract):
    """All of it."""

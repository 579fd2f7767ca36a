"""The contract, live migration included, on real libvirt daemons and real guests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from manager.lab.lab import Lab
from tests.contract.hypervisor_contract import POOL, HypervisorContract, MovingContract, There
from tests.lab.hosts import add_guests, lab_there, make_pool
from tests.lab.support import run_apart

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

GUESTS = ("contract-a", "contract-b")


@pytest.fixture(scope="module")
def guests(lab: Lab) -> tuple[str, str]:
    add_guests(lab, *GUESTS)
    run_apart(lambda: make_pool(lab, POOL, "/var/lib/libvirt/images"))
    return GUESTS


@pytest.fixture
async def there(lab: Lab, guests: tuple[str, str]) -> AsyncIterator[There]:
    async with lab_there(lab, *guests) as there:
        yield there


class TestLibvirt(HypervisorContract, MovingContract):
    """All of it."""

"""The contract, live migration included, on real libvirt daemons and real guests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from manager.lab.lab import Lab
from tests.contract.hypervisor_contract import HypervisorContract, MovingContract, There
from tests.lab.hosts import add_guests, lab_there

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

GUESTS = ("contract-a", "contract-b")


@pytest.fixture(scope="module")
def guests(lab: Lab) -> tuple[str, str]:
    add_guests(lab, *GUESTS)
    return GUESTS


@pytest.fixture
async def there(lab: Lab, guests: tuple[str, str]) -> AsyncIterator[There]:
    async with lab_there(lab, *guests) as there:
        yield there


class TestLibvirt(HypervisorContract, MovingContract):
    """All of it."""

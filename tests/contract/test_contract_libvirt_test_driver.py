"""The contract on libvirt's own test driver, which has no live migration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manager.core.model import ClusterConfig
from tests.contract.hypervisor_contract import HypervisorContract, There
from tests.libvirt.support import domain, driver_host, real_there, vm_id


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[There]:
    nodes = (
        driver_host(tmp_path, "n1", [domain("web"), domain("db"), domain("old", state=5)]),
        driver_host(tmp_path, "n2", [domain("mail")]),
    )
    config = ClusterConfig(name="test", nodes=nodes)
    async with real_there(config, vm_id("web"), vm_id("db")) as there:
        there.has_consoles = False
        yield there


class TestLibvirtTestDriver(HypervisorContract):
    """All of it."""

"""One lab for all tests of a session."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from manager.lab.lab import Lab, LabSpec
from tests.lab.support import lab_folder, run_apart, skip_without_lab

_up: dict[Lab, frozenset[str]] = {}
"""The lab, if it is up, with the UUIDs of the guests that it came with."""


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """It is brought up once, and taken away at the end.

    Tests must leave the nodes on, connected and answering; they make their own VMs with `Lab.add_vm`.
    """
    skip_without_lab()
    with lab_folder() as folder:
        lab = run_apart(lambda: Lab.up(LabSpec(directory=folder, nodes=3, vms=6, wait_guests=False)))
        _up[lab] = frozenset(lab.vm_uuid(vm.name) for vm in lab.vms)
        yield lab
        del _up[lab]


@pytest.fixture(scope="module", autouse=True)
def _guests_end_with_their_module() -> Iterator[None]:
    """A guest that writes for ever, or hangs since it moved while it booted, slows all that comes after."""
    yield

    async def turn_off(lab: Lab, kept: frozenset[str]) -> None:
        for node in lab.nodes:
            for uuid in (await lab.virsh(node, "list", "--uuid")).split():
                if uuid not in kept:
                    await lab.virsh(node, "destroy", uuid)

    for lab, kept in _up.items():
        run_apart(functools.partial(turn_off, lab, kept))

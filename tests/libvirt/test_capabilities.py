"""What is picked from a host's capabilities."""

from __future__ import annotations

from manager.backends.libvirt.connection import _capabilities_of
from manager.core.model import NumaCell

REAL = """<capabilities><host><uuid>u</uuid><cpu><model>EPYC</model></cpu><migration_features><live/>
</migration_features><topology><cells num='2'>
  <cell id='0'><memory unit='KiB'>65536000</memory><cpus num='16'><cpu id='0'/></cpus></cell>
  <cell id='1'><memory unit='KiB'>x</memory></cell>
</cells></topology></host></capabilities>"""


def test_cells_with_their_cpus_and_memory() -> None:
    found = _capabilities_of(REAL)
    assert found.cells == (
        NumaCell(id=0, cpus=16, memory_mib=64000),
        NumaCell(id=1, cpus=0, memory_mib=0),
    )
    assert found.live_migration


def test_a_host_without_any() -> None:
    assert _capabilities_of("").cells == ()
    assert _capabilities_of("<capabilities/>").cells == ()

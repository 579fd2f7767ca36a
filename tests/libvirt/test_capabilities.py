"""What is picked from a host's capabilities."""

from __future__ import annotations

from manager.backends.libvirt.connection import _capabilities_of
from manager.core.model import NumaCell

REAL = """<capabilities><host><uuid>u</uuid><cpu><model>EPYC</model></cpu><migration_features><live/>
</migration_features><topology><cells num='2'>
  <cell id='0'><memory unit='KiB'>65536000</memory><cpus num='16'><cpu id='0'/></cpus></cell>
  <cell id='1'><memory unit='KiB'>x</memory></cell>
</cells></topology></host>
<guest><arch name='x86_64'><machine canonical='pc-q35-9.2'>q35</machine><machine>pc-i440fx-9.2</machine>
<domain type='kvm'><machine>pc-q35-8.0</machine></domain></arch></guest>
<guest><arch name='aarch64'><machine>virt</machine></arch></guest></capabilities>"""


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


def test_machine_types_by_all_their_names() -> None:
    assert _capabilities_of(REAL).machines == {
        "x86_64 q35",
        "x86_64 pc-q35-9.2",
        "x86_64 pc-i440fx-9.2",
        "x86_64 pc-q35-8.0",
        "aarch64 virt",
    }

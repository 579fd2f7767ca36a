"""`Vault` of a dump: what was kept, without the texts."""

from __future__ import annotations

from collections.abc import Sequence

from manager.core.dump import ClusterDump
from manager.core.ids import VmId
from manager.core.vault import KeptDefinition


class DumpVault:
    """Says what the vault said; keeps nothing."""

    def __init__(self, dump: ClusterDump) -> None:
        self._kept = dump.kept

    async def newest(self) -> tuple[KeptDefinition, ...]:
        """As it was when the dump was made."""
        return self._kept

    async def keep(self, found: Sequence[tuple[KeptDefinition, str]]) -> tuple[KeptDefinition, ...]:
        """Never called: a dump's definitions cannot be read."""
        raise OSError("a dump keeps nothing")

    async def versions(self, vm: VmId) -> tuple[KeptDefinition, ...]:
        """The newest alone is in a dump."""
        return tuple(each for each in self._kept if each.vm == vm)

    async def text(self, vm: VmId, number: int) -> str | None:
        """Not in a dump."""
        return None

    async def close(self) -> None:
        """Nothing to close."""

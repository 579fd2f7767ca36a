"""Keeps the stored definition of every VM in the vault: slowly, and when it changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from manager.core.changes import ChangeSet
from manager.core.cluster import ClusterView
from manager.core.errors import OperationError, UserError
from manager.core.events import DefinitionsKept, Event
from manager.core.ids import Kind, VmId
from manager.core.vault import KeptDefinition, is_due, stored_digest
from manager.services.ports import Clock, Hypervisor, Vault
from manager.services.tasks import Tasks

log = logging.getLogger(__name__)

QUIET_S = 5.0
"""How long changes are gathered. A command that is over sooner keeps nothing: a window or engine does."""

PACE_S = 0.05
"""Between two reads: thousands of definitions on the first day must not be felt."""

BATCH = 50
AGAIN_S = 60.0
"""After how long others' work is looked for, and a store that refused is tried again."""

PATIENCE_S = 2.0
"""How long a start waits for what is kept."""

_TOLD_BY = frozenset({"config", "owner", "name"})


class DefinitionKeeper:
    """One cluster's vault. The owner of operations writes, others read what it wrote. Loop thread only."""

    def __init__(
        self,
        *,
        vault: Vault,
        hypervisor: Hypervisor,
        view: ClusterView,
        clock: Clock,
        dispatch: Callable[[Event], None],
        may_write: Callable[[], bool],
        tasks: Tasks,
    ) -> None:
        self._vault = vault
        self._hypervisor = hypervisor
        self._view = view
        self._clock = clock
        self._dispatch = dispatch
        self._may_write = may_write
        self._tasks = tasks
        self._due: dict[VmId, None] = {}
        self._wake = asyncio.Event()
        self._is_told = False
        self._is_deaf = False  # the store did not take or give them the last time

    async def start(self) -> None:
        """Tell what is kept, in a moment at most, and keep it current from now on."""
        try:
            await asyncio.wait_for(self._tell_news(), PATIENCE_S)
        except (OSError, TimeoutError) as error:
            log.warning("%s: kept definitions cannot be read: %s", self._view.id, error)
        self._tasks.spawn(self._run(), "definitions")

    def look(self, changes: ChangeSet) -> None:
        """Definitions may have changed: called after every change."""
        rows = changes[Kind.VM]
        found = [*rows.added, *(key for key, names in rows.updated.items() if names & _TOLD_BY)]
        if found:
            self._due.update((VmId(key), None) for key in found)
            self._wake.set()

    async def newest(self) -> tuple[KeptDefinition, ...]:
        """The newest version of every VM. Raises `OSError`."""
        return await self._vault.newest()

    async def versions(self, vm: VmId) -> tuple[KeptDefinition, ...]:
        """All that is kept of one VM, the newest first. Raises `OSError`."""
        return await self._vault.versions(vm)

    async def text(self, vm: VmId, number: int) -> str:
        """A version as XML.

        Raises:
            OSError: The store cannot be read.
            UserError: It is not there any more.
        """
        text = await self._vault.text(vm, number)
        if text is None:
            raise UserError(f"Version {number} is not kept any more.")
        return text

    async def _run(self) -> None:
        while True:
            await self._gather()
            try:
                await self._tell_news()
                while self._may_write() and self._due:
                    await self._keep_some()
                self._is_deaf = False
            except OSError as error:
                if not self._is_deaf:
                    log.warning("%s: definitions cannot be kept: %s", self._view.id, error)
                self._is_deaf = True
                await self._clock.sleep(AGAIN_S)
                self._wake.set()

    async def _tell_news(self) -> None:
        """What was there, and what another process wrote meanwhile."""
        if self._is_told and self._may_write():
            return
        known = self._view.kept
        news = tuple(each for each in await self._vault.newest() if known.get(each.vm) != each)
        if news:
            self._dispatch(DefinitionsKept(at_s=self._clock.now_s(), kept=news))
        self._is_told = True

    async def _gather(self) -> None:
        """Wait for something to do: a change, or time to look for what others wrote."""
        again = asyncio.ensure_future(self._clock.sleep(AGAIN_S))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({again, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            again.cancel()
            woken.cancel()
        self._wake.clear()
        await self._clock.sleep(QUIET_S)

    async def _keep_some(self) -> None:
        """Read a few that are due, and keep them."""
        read: list[tuple[KeptDefinition, str]] = []
        while self._due and len(read) < BATCH:
            vm = next(iter(self._due))
            del self._due[vm]
            found = await self._read(vm)
            if found is not None:
                read.append(found)
                await self._clock.sleep(PACE_S)
        if read:
            try:
                kept = await self._vault.keep(read)
            except OSError:
                self._due.update((each.vm, None) for each, _ in read)
                raise
            self._dispatch(DefinitionsKept(at_s=self._clock.now_s(), kept=kept))

    async def _read(self, vm: VmId) -> tuple[KeptDefinition, str] | None:
        row = self._view.vms.get(vm)
        if row is None or row.owner is None or not is_due(row, self._view.kept.get(vm)):
            return None
        node = self._view.nodes.get(row.owner)
        if node is None or not node.is_up:
            return None
        assert row.config is not None
        digest = stored_digest(row.config)  # of before the read: a change meanwhile makes it due again
        try:
            text = await self._hypervisor.read_definition(row.owner, vm, stored=True)
        except OperationError as error:
            log.info("%s: its definition is not kept: %s", row.name, error)
            return None
        kept_s = self._clock.now_s()
        kept = KeptDefinition(vm=vm, name=row.name, node=row.owner, number=1, digest=digest, kept_s=kept_s)
        return kept, text

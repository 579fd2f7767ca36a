"""Several processes' worth of Muster on one small cluster: an owner of its operations, commands beside it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import click
import pytest

from manager.backends.sim.hypervisor import SimHypervisor
from manager.bootstrap import _state_key
from manager.cli import session
from manager.cli.main import build
from manager.cli.options import Settings
from manager.cli.output import say
from manager.core.actions import ACTIONS
from manager.core.errors import UserError
from manager.core.ids import OperationId
from manager.core.model import ClusterConfig
from manager.core.operations import Operation
from manager.services.engine import Ownership
from manager.services.runtime import Runtime
from manager.store.journal import SqliteJournal
from manager.store.lock import OwnershipLock
from manager.store.paths import Paths
from tests.cli.support import Cli, Ran

LIMIT_S = 30.0


@dataclass(slots=True)
class Together:
    """Commands run in the test's own loop, each with lock, socket and journal as a process has them."""

    cli: Cli
    opened: list[Runtime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cli.journal = lambda: SqliteJournal(self.paths.journal(self.key))
        self.cli.ownership = self.ownership

    @property
    def paths(self) -> Paths:
        paths = Paths.of_user()
        paths.prepare()
        return paths

    @property
    def key(self) -> Any:
        return _state_key(self.cli.config)

    def ownership(self, only_looks: bool = False) -> Ownership:
        lock = OwnershipLock(self.paths.lock(self.key))
        return Ownership(lock=lock, socket=self.paths.socket(self.key), only_looks=only_looks)

    async def owner(self, *, stays: bool = True, config: ClusterConfig | None = None) -> Runtime:
        """A process that owns the operations, as ``muster engine`` does."""
        runtime = Runtime(
            config=config or self.cli.config,
            hypervisor=SimHypervisor(self.cli.world),
            journal=self.cli.journal(),
            clock=self.cli.clock,
            author="eng@test",
            ownership=self.ownership(),
        )
        self.opened.append(runtime)
        runtime.engine.stays = stays
        await runtime.start()
        assert await runtime.settled(10)
        return runtime

    def start(self, *argv: str) -> tuple[asyncio.Task[Ran], io.StringIO, io.StringIO]:
        """Begin a command; what it writes so far is in the two files."""
        out, err = io.StringIO(), io.StringIO()
        return asyncio.ensure_future(self._run(argv, out, err)), out, err

    async def __call__(self, *argv: str) -> Ran:
        """Run a command to its end."""
        task, _, _ = self.start(*argv)
        async with asyncio.timeout(LIMIT_S):
            return await task

    async def _run(self, argv: tuple[str, ...], out: io.StringIO, err: io.StringIO) -> Ran:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main: Any = build(self.cli.app).main
                work: Any = main(
                    args=["--connect", "sim://n1/", *argv],
                    prog_name="muster",
                    standalone_mode=False,
                    obj=Settings(),
                )
                code = await work if asyncio.iscoroutine(work) else work or 0
            except click.ClickException as error:
                error.show()
                code = error.exit_code
            except UserError as error:
                say(str(error))
                code = error.exit_code
        return Ran(code=code, out=out.getvalue(), err=err.getvalue())

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def together(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Together]:
    """The test's loop runs the commands."""

    def as_it_is(work: Coroutine[Any, Any, int]) -> Any:
        return work

    monkeypatch.setattr(session, "run_async", as_it_is)
    made = Together(cli)
    try:
        yield made
    finally:
        for runtime in made.opened:
            await runtime.close()


def request(owner: Runtime, action: str, *names: str, **parameters: Any) -> OperationId:
    """Ask an owner for something, as its window would; gives the batch."""
    spec = ACTIONS[action]
    given = type(spec.default)(**parameters)
    ids = [vm.id for name in names for vm in owner.view.vms.values() if vm.name == name]
    (batch,) = owner.request(spec.plan(owner.view, ids, given))
    return batch


def of(owner: Runtime, name: str) -> Operation:
    """The newest operation on a VM."""
    return max((o for o in owner.view.operations.values() if o.vm_name == name), key=lambda o: o.id)

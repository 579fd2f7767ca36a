"""The command line on a small simulated cluster that outlives each command, at many times the speed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pytest

from manager import bootstrap
from manager.backends.sim.faults import Faults
from manager.backends.sim.hosts import Guest, SimVm
from manager.backends.sim.hypervisor import SimHypervisor
from manager.backends.sim.world import SimWorld
from manager.cli.app import App, WindowOptions
from manager.cli.main import run
from manager.core.ids import NodeId, VmId
from manager.core.model import (
    ClusterConfig,
    NodeConfig,
    Priority,
    StatusCause,
    Tier,
    VmSettings,
    VmStatus,
)
from manager.services.engine import Ownership
from manager.services.event_log import EventLog
from manager.services.memory_journal import MemoryJournal
from manager.services.ports import AskSecret, Journal, Vault
from manager.services.runtime import Runtime
from manager.services.workspace import Adapters
from manager.store.user_units import SystemdUnits
from tests.support.sim import make_config, make_world

TWINS = ("00000000-0000-4000-8000-0000000000a1", "00000000-0000-4000-8000-0000000000a2")
EVIL = "evil\x1b[31m\u202e|\u0085"


class FastClock:
    """The machine's time, but faster; the same for the world and for the program."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began_s = time.monotonic()

    def now_s(self) -> float:
        return 1_767_261_600.0 + self.monotonic_s()

    def monotonic_s(self) -> float:
        return (time.monotonic() - self._began_s) * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / self._speed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its JSON."""
        rows: list[dict[str, Any]] = json.loads(self.out)
        return rows

    def results(self) -> dict[str, str]:
        """VM to result."""
        return {row["vm"]: row["result"] for row in self.rows}


@dataclass(slots=True, kw_only=True)
class Cli:
    """Calls the command line; the world and the files stay between two calls."""

    capsys: pytest.CaptureFixture[str]
    world: SimWorld
    config: ClusterConfig
    clock: FastClock
    faults: Faults
    journal: Callable[[], Journal] = MemoryJournal
    vault: Callable[[], Vault | None] = lambda: None
    ownership: Callable[[bool], Ownership | None] = lambda reading: None  # given: only to look
    windows: list[tuple[list[str], WindowOptions]] = field(default_factory=list)
    readings: list[bool] = field(default_factory=list)
    built: list[Adapters] = field(default_factory=list)

    def __call__(self, *argv: str) -> Ran:
        """Run a command on the small cluster."""
        return self.bare("--connect", "sim://n1/", *argv)

    @property
    def app(self) -> App:
        """What the command line is given."""
        return App(
            adapters=self._adapters,
            run_window=self._window,
            lab_group=self._lab,
            units=self._units,
            version="1.2.3",
        )

    def bare(self, *argv: str) -> Ran:
        """Run a command that says itself which cluster is meant."""
        self.capsys.readouterr()
        code = run(self.app, argv)
        out, err = self.capsys.readouterr()
        return Ran(code=code, out=out, err=err)

    def _adapters(self, event_log: EventLog | None = None, *, reading: bool = False) -> Adapters:
        self.readings.append(reading)

        def runtime(config: ClusterConfig, ask_secret: AskSecret | None) -> Runtime:
            if config != self.config:
                return real.runtime(config, ask_secret)
            return Runtime(
                config=self.config,
                hypervisor=SimHypervisor(self.world),
                journal=self.journal(),
                clock=self.clock,
                author="adm@test",
                ownership=self.ownership(reading),
                event_log=event_log,
                vault=self.vault(),
            )

        def adhoc(uris: tuple[str, ...]) -> ClusterConfig:
            return self.config if uris == ("sim://n1/",) else real.adhoc(uris)

        real = bootstrap.adapters(event_log, reading=reading)
        self.built.append(real)
        return replace(real, runtime=runtime, adhoc=adhoc)

    def _window(self, adapters: Adapters, clusters: Any, options: WindowOptions) -> int:
        self.windows.append(([config.name for config, _ in clusters], options))
        return 0

    def _units(self) -> SystemdUnits:
        return SystemdUnits()

    def _lab(self) -> click.Group:
        @click.command(help="Say it.")
        @click.option("--json", "as_json", is_flag=True)
        def up(as_json: bool) -> None:
            click.echo(f"json={as_json}")

        return click.Group("lab", commands=[up])

    def vm(self, name: str) -> SimVm:
        """A VM where it runs, or where it is defined."""
        found = [vm for node in self.world.nodes.values() for vm in node.vms.values() if vm.name == name]
        return max(found, key=lambda vm: vm.runs)

    def state(self) -> list[tuple[str, str, str]]:
        """All there is: name, node, status."""
        return sorted(
            (vm.name, vm.node.id, vm.status.value)
            for node in self.world.nodes.values()
            for vm in node.vms.values()
        )


def small(capsys: pytest.CaptureFixture[str], speed: float = 40.0) -> Cli:
    """Three hosts with a few VMs in every state."""
    clock = FastClock(speed)
    world = make_world(
        clock,  # type: ignore[arg-type]
        vms={"n1": ("web-1", "web-2", "web-10"), "n2": ("db-1",)},
        vm_memory_mib=1024,
        guest=Guest(boot_s=1, shutdown_s=1),
    )
    n1, n2 = world.nodes[NodeId("n1")], world.nodes[NodeId("n2")]

    def add(name: str, uuid: str, node: Any, **state: Any) -> None:
        settings = VmSettings(priority=Priority.HIGH, tags=("prod",))
        config = make_config(name, memory_mib=512, settings=settings)
        world.add_vm(node, VmId(uuid), name, config, Guest(obeys=name != "deaf"), **state)

    number = "00000000-0000-4000-8000-0000000000"
    add("off-1", number + "b1", n1)
    add("saved-1", number + "b2", n2, status=VmStatus.SAVED, cause=StatusCause.SAVED)
    add("paused-1", number + "b3", n2, status=VmStatus.PAUSED, cause=StatusCause.USER)
    add("deaf", number + "b4", n2, status=VmStatus.RUNNING, cause=StatusCause.BOOTED)
    add(EVIL, number + "b5", n2)
    add("twin", TWINS[0], n1, status=VmStatus.RUNNING, cause=StatusCause.BOOTED)
    add("twin", TWINS[1], n2)
    config = ClusterConfig(
        name="small",
        tier=Tier.MANAGED,
        nodes=tuple(NodeConfig(name=name, uri=f"sim://{name}/") for name in world.nodes),
        shared_paths=("/srv/vms",),
    )
    return Cli(capsys=capsys, world=world, config=config, clock=clock, faults=Faults(world))


def write_cluster(name: str, home: Path, text: str = "") -> Path:
    """A configured cluster."""
    folder = home / "config" / "clusters"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text or f'name = "{name}"\n[[nodes]]\nname = "n1"\nuri = "test:///default"\n')
    return path

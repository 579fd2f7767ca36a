"""The whole program on a simulated cluster of four nodes; on request it says what can be read in its window.

``python -m tests.e2e.stage WORDS...`` is ``muster WORDS...`` but for the demo cluster: twelve VMs run on n1;
those named in ``STAGE_BUSY`` write their memory faster than it can be sent; those in ``STAGE_LARGE`` have
8 GiB and priority High; that named in ``STAGE_FULL`` stands still, as the pool of all is full;
``STAGE_POST_COPY`` permits the second half; ``STAGE_CAP`` is what a move may send, in MiB/s. ``STAGE_SIZE``
is the seeded demo of that size instead. Each line of its input is answered with a line of JSON:

``look``            of the window that has the keyboard: its title, texts and where each is painted; the focus
``move NAME...``    nothing; somebody has asked for these VMs to move to the best nodes
``room NAME``       nothing; whoever looks after the storage has made room in the pool for this VM
``picture FILE``    nothing; a picture of the window was written
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any
from xml.etree import ElementTree

from PySide6.QtCore import QBuffer, QIODevice, QSocketNotifier
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QApplication, QWidget

from manager import bootstrap
from manager.backends.sim.demo import demo_cluster, parse_size
from manager.backends.sim.faults import Faults
from manager.backends.sim.hosts import Guest, Pool, SimNode
from manager.backends.sim.world import SimWorld
from manager.core.actions import LIVE_MIGRATE
from manager.core.ids import NodeId
from manager.core.model import (
    ClusterConfig,
    Convergence,
    Disk,
    MigrationLimits,
    NodeConfig,
    Priority,
    Tier,
    VmConfig,
    VmSettings,
    VmStatus,
)
from manager.core.units import GIB
from manager.services.clock import RealClock
from manager.ui.main_window import MainWindow
from tests.support.sim import make_id

VMS = {
    "n1": ["db-01", *(f"web-{n:02}" for n in range(1, 7)), *(f"app-{n:02}" for n in range(1, 5)), "mail-02"],
    "n2": ["ci-01", "ci-02", "erp-01"],
    "n3": ["ci-03", "erp-02"],
    "n4": ["erp-03"],
}
SIZE, FULL = os.environ.get("STAGE_SIZE", ""), os.environ.get("STAGE_FULL", "")
POOL = Pool(
    "/srv/vms",
    0 if FULL else 400 * GIB,
    "netfs",
    "nfs",
    ("nas-1.example",),
    "/export/vms",
    capacity_bytes=1000 * GIB,
)
"""The one pool, that all nodes share."""

CAP_MIB_S = int(os.environ.get("STAGE_CAP", "400"))
_SVG = "{http://www.w3.org/2000/svg}"
BUSY = Guest(touched=0.9, dirty_mib_s=20_000, working_set=0.6)
"""At the cap, its move needs a pause of more than the 2 s of the standard policy, however it is slowed."""


def cluster() -> tuple[ClusterConfig, SimWorld]:
    """The cluster file and the hosts."""
    if SIZE:
        nodes, vms = parse_size(SIZE)
        return demo_cluster(nodes, vms, clock=RealClock())
    world = SimWorld(RealClock())
    busy, large = (os.environ.get(name, "").split() for name in ("STAGE_BUSY", "STAGE_LARGE"))
    for number, (node, names) in enumerate(VMS.items()):
        host = world.add_node(
            SimNode(id=NodeId(node), host_uuid=f"host-{number}", memory_mib=96 * 1024, pools={"vms": POOL})
        )
        for name in names:
            world.add_vm(
                host,
                make_id(name),
                name,
                VmConfig(
                    memory_mib=8192 if name in large else 4096 if name.startswith("db") else 2048,
                    vcpus=2,
                    disks=(
                        Disk(target="vda", source=f"/srv/vms/{name}.qcow2", format="qcow2", cache="none"),
                    ),
                    settings=VmSettings(
                        priority=Priority.HIGH if name in large or name.startswith("db") else Priority.MEDIUM
                    ),
                ),
                BUSY if name in busy else Guest(touched=0.9),
                status=VmStatus.RUNNING,
            )
    if FULL:
        Faults(world).fill_disk(FULL)
    config = ClusterConfig(
        name="demo",
        tier=Tier.DEMO,
        nodes=tuple(NodeConfig(name=name, uri=f"sim://{name}/") for name in world.nodes),
        shared_paths=("/srv/vms",),
        migration=MigrationLimits(
            bandwidth_mib_s=CAP_MIB_S,
            convergence=Convergence(post_copy=bool(os.environ.get("STAGE_POST_COPY"))),
        ),
    )
    return config, world


def painted(window: QWidget) -> list[tuple[float, float, str]]:
    """The texts that a window paints, cut where it cuts them: left end, height of the line, text."""
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    drawing = QSvgGenerator()
    drawing.setOutputDevice(buffer)
    drawing.setSize(window.size())
    drawing.setViewBox(window.rect())
    window.render(drawing)
    found: list[tuple[float, float, str]] = []
    for group in ElementTree.fromstring(buffer.data().data()).iter(f"{_SVG}g"):
        moved = re.fullmatch(r"matrix\(1,0,0,1,(\S+),(\S+)\)", group.get("transform", ""))
        x, y = (float(each) for each in moved.groups()) if moved else (0.0, 0.0)
        for text in group.findall(f"{_SVG}text"):
            found.append((x + float(text.get("x", 0)), y + float(text.get("y", 0)), text.text or ""))
    return found


def answer(line: str) -> Any:
    """Do what a line of the input says."""
    word, *rest = line.split()
    window: QWidget | None = (
        QApplication.activePopupWidget() or QApplication.activeModalWidget() or QApplication.activeWindow()
    )
    if word == "look":
        focus = QApplication.focusWidget()
        return {
            "title": window.windowTitle() if window is not None else "",
            "focus": (focus.accessibleName() or getattr(focus, "text", str)()) if focus is not None else "",
            "texts": painted(window) if window is not None else [],
        }
    if word == "picture" and window is not None:
        window.grab().save(rest[0])
    if word == "room":
        (world,) = bootstrap._demo_worlds.values()
        Faults(world).free_disk(rest[0])
        POOL.free_bytes = 400 * GIB
    if word == "move":
        (main,) = (each for each in QApplication.topLevelWidgets() if isinstance(each, MainWindow))
        assert main.current is not None
        runtime = main.current.runtime
        runtime.request(LIVE_MIGRATE.plan(runtime.view, [make_id(name) for name in rest]))
    return None


def main() -> int:
    """The program."""
    config, world = cluster()
    bootstrap._demo_worlds[config.name] = world
    bootstrap._demo_config = lambda _: config
    app = QApplication(sys.argv[:1])
    notifier = QSocketNotifier(sys.stdin.fileno(), QSocketNotifier.Type.Read, app)

    def told() -> None:
        line = sys.stdin.readline()
        if line:
            print(json.dumps(answer(line)), flush=True)
        else:
            notifier.setEnabled(False)

    notifier.activated.connect(told)
    return bootstrap.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

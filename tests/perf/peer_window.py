"""virt-manager itself, watched from its own main loop; run by the Python that has its modules.

Arguments: how many VMs there are, seconds to leave it alone afterwards, URI. Prints a JSON
object when the list is complete, and another one with what it costs to leave it alone.
"""

import json
import os
import sys
import time

HOME = "/usr/share/virt-manager"
BEAT_MS = 20
sys.path[0] = HOME  # in place of this folder, whose names are not for it

from gi.repository import GLib  # type: ignore[import-not-found]  # noqa: E402
from virtManager import virtmanager  # type: ignore[import-not-found]  # noqa: E402


class Watch:
    """Beats every 20 ms as our own heartbeat does, and looks whether the list is complete."""

    def __init__(self, wanted: int, idle_s: float) -> None:
        self.wanted, self.idle_s = wanted, idle_s
        self.last = time.perf_counter()
        self.gap_s = 0.0
        self.figures: dict[str, float] = {}
        self.quiet_from = 0.0

    def beat(self) -> bool:
        """Source: virtManager/manager.py, the model below the first connection."""
        now = time.perf_counter()
        self.gap_s = max(self.gap_s, now - self.last)
        self.last = now
        if not self.figures:
            if rows() == self.wanted:
                self.figures = {
                    "at_s": time.time(),
                    "cpu_s": time.process_time(),
                    "gap_ms": self.gap_s * 1000,
                }
                self.tell()
                GLib.timeout_add(5000, self.rest)
        elif self.quiet_from and now - self.quiet_from >= self.idle_s:
            spent = time.process_time() - self.figures.pop("quiet_cpu_s")
            self.figures["idle"] = spent / (now - self.quiet_from)
            self.tell()
            os._exit(0)
        return True

    def tell(self) -> None:
        """What is known so far."""
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        self.figures["mib"] = pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024
        print(json.dumps(self.figures), flush=True)

    def rest(self) -> bool:
        """What it does when nothing is asked of it."""
        self.quiet_from = time.perf_counter()
        self.figures["quiet_cpu_s"] = time.process_time()
        return False


def rows() -> int:
    """How many VMs its list has now."""
    manager = sys.modules.get("virtManager.manager")
    window = manager and manager.vmmManager._instance
    if not window:
        return 0
    model = window.model
    first = model.get_iter_first()
    return model.iter_n_children(first) if first else 0


watch = Watch(int(sys.argv[1]), float(sys.argv[2]))
GLib.timeout_add(BEAT_MS, watch.beat)
sys.argv = ["virt-manager", "--no-fork", "--connect", sys.argv[3]]
virtmanager.runcli()

"""What libvirt's own events say of moves, however Muster sees them: an observer that shares nothing with it.

As a program it holds a connection of its own to each node, in one thread of a process of its own, and writes
one JSON record per event: so all nodes are heard by one clock. A daemon that was killed is connected to
again, and what was missed meanwhile shows in what it has then. `Witness` reads the records.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import libvirt

from manager.lab.lab import Lab

READY_S = 30.0
AGAIN_S = 0.1
"""Pause between tries to connect to a daemon that is gone."""

_STARTED, _STOPPED = libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STOPPED
_SUSPENDED, _RESUMED = libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_RESUMED
_INCOMING = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One move: from the target's first event of it to the source's last, or to the end of its half."""

    vm: str
    source: str
    target: str
    begun_s: float
    ended_s: float | None = None  # None: not yet
    arrived: bool = False


class Witness:
    """The moves so far, as the records tell them."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def records(self) -> list[dict[str, Any]]:
        """All that was written, in its order."""
        text = self._log.read_text() if self._log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def moves(self) -> list[Seen]:
        """Every move, in the order of their beginnings.

        Raises:
            AssertionError: A VM had two moves at once, ran on two nodes, or began to run in another way.
        """
        place: dict[str, str] = {}
        under_way: dict[str, Seen] = {}
        over: list[Seen] = []
        lost: set[str] = set()  # nodes that cannot be heard
        stands: set[str] = set()  # VMs whose source has stopped them

        def end(vm: str, at_s: float, *, arrived: bool) -> None:
            seen = under_way.pop(vm)
            over.append(replace(seen, ended_s=at_s, arrived=arrived))
            place[vm] = seen.target if arrived else seen.source

        def begin(vm: str, node: str, at_s: float) -> None:
            assert vm not in under_way, f"{vm} has two jobs at once: {under_way[vm]} and one to {node}"
            assert place[vm] != node, f"{vm} moves to {node}, where it is"
            stands.discard(vm)
            under_way[vm] = Seen(vm=vm, source=place[vm], target=node, begun_s=at_s)

        for record in self.records():
            at_s, node, what, vm = record["at"], record["node"], record["what"], record.get("vm", "")
            mine = under_way.get(vm)
            if what == "event" and mine is not None and node == mine.source:
                if record["event"] == _SUSPENDED:
                    stands.add(vm)
                elif record["event"] == _RESUMED:
                    stands.discard(vm)
            if what == "event" and record["event"] == _STARTED:
                migrated = record["detail"] == libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED
                assert migrated, f"{vm} was started on {node}, not moved there"
                begin(vm, node, at_s)
            elif what == "event" and record["event"] == _STOPPED and mine is not None:
                if node == mine.source:
                    assert vm in stands, f"{vm} ran on {node} to its end there, and on {mine.target}"
                    end(vm, at_s, arrived=True)
                elif node == mine.target:
                    end(vm, at_s, arrived=False)
            elif what == "lost":  # its peers were cut off at the same moment: what came in ended with that
                lost.add(node)
                for each in [seen for seen in under_way.values() if seen.target == node]:
                    end(each.vm, at_s, arrived=False)
            elif what == "has":
                if node in lost:  # a daemon that begins anew carries on no move
                    lost.remove(node)
                    for each in [seen for seen in under_way.values() if seen.source == node]:
                        end(each.vm, at_s, arrived=each.vm not in record["vms"])
                for name, state in record["vms"].items():
                    if tuple(state) != _INCOMING and name not in under_way:
                        place[name] = node
        return sorted([*over, *under_way.values()], key=lambda seen: seen.begun_s)

    def under_way(self) -> list[Seen]:
        """The moves that have not ended."""
        return [seen for seen in self.moves() if seen.ended_s is None]

    def largest_overlap(
        self, names: Sequence[str], of: Callable[[Seen], bool] = lambda _: True, *, since_s: float = 0.0
    ) -> int:
        """How many moves of these VMs were under way at once, of those that are meant."""
        marks: list[tuple[float, int]] = []
        for seen in self.moves():
            if seen.vm in names and seen.begun_s >= since_s and of(seen):
                marks.append((seen.begun_s, 1))
                if seen.ended_s is not None:
                    marks.append((seen.ended_s, -1))
        now = most = 0
        for _, step in sorted(marks):
            now += step
            most = max(most, now)
        return most


@contextmanager
def witnessed(lab: Lab, folder: Path) -> Iterator[Witness]:
    """Libvirt's events of all nodes while this lasts."""
    log = folder / "witness.jsonl"
    witness = Witness(log)
    nodes = [f"{node.name}={node.uri}" for node in lab.nodes]
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, __file__, *nodes], stdin=subprocess.PIPE, stdout=out)
    try:
        end = time.monotonic() + READY_S
        while {r["node"] for r in witness.records()} != {node.name for node in lab.nodes}:
            assert time.monotonic() < end, "the witness cannot connect"
            time.sleep(0.02)
        yield witness
    finally:
        process.communicate(timeout=READY_S)  # the end of its input is the word to end


class Node:
    """One node's connection, of the observer's process."""

    def __init__(self, name: str, uri: str, out: TextIO) -> None:
        self._name, self._uri, self._out = name, uri, out
        self._connection: libvirt.virConnect | None = None

    def write(self, what: str, **fields: Any) -> None:
        """One record, at once."""
        self._out.write(json.dumps({"at": time.time(), "node": self._name, "what": what, **fields}) + "\n")
        self._out.flush()

    def look(self) -> None:
        """Connect if need be, and say what the node has then."""
        connection = self._connection
        if connection is not None and not connection.isAlive():
            self._connection = None
            self.write("lost")
        if self._connection is None:
            try:
                connection = libvirt.open(self._uri)
                connection.setKeepAlive(5, 3)
                connection.domainEventRegisterAny(
                    None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._event, None
                )
                self._connection = connection
                self.has()
            except libvirt.libvirtError:
                self._connection = None

    def has(self) -> None:
        """What runs there now."""
        if self._connection is not None:
            running = self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            states = {}
            for domain in running:
                try:
                    states[domain.name()] = domain.state()
                except libvirt.libvirtError:
                    continue  # it just left
            self.write("has", vms=states)

    def _event(self, _: Any, domain: libvirt.virDomain, event: int, detail: int, __: Any) -> None:
        self.write("event", vm=domain.name(), event=event, detail=detail)


def main(words: Sequence[str]) -> None:
    """Write what happens on these nodes (``NAME=URI``) until the input ends."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    nodes = [Node(*word.split("=", 1), sys.stdout) for word in words]
    ended: list[int] = []
    libvirt.virEventAddHandle(
        sys.stdin.fileno(),
        libvirt.VIR_EVENT_HANDLE_READABLE | libvirt.VIR_EVENT_HANDLE_HANGUP,
        lambda *_: ended.append(1),
        None,
    )
    libvirt.virEventAddTimeout(round(AGAIN_S * 1000), lambda *_: None, None)
    while not ended:
        for node in nodes:
            node.look()
        libvirt.virEventRunDefaultImpl()
    for node in nodes:
        node.has()  # the answer comes after all events so far
    libvirt.virEventRunDefaultImpl()


if __name__ == "__main__":
    main(sys.argv[1:])

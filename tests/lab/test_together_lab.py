"""Window, commands and engine on one cluster at once: one owns the work; if it is killed, another does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from manager.lab.lab import Lab
from tests.e2e.screen import Screen, Window
from tests.lab.hosts import add_guests, put
from tests.lab.support import run_apart
from tests.lab.test_engine_lab import Beside, places
from tests.lab.test_queue_lab import MANY
from tests.lab.witness import Witness, witnessed

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

GUESTS = MANY[2:]
NODES = ("n1", "n2", "n3")
ROUNDS = 4
IN_WINDOW = GUESTS[7:]
"""What the window asks for, by the text that finds them there."""

ASKED = {"waits": GUESTS[:4], "leaves": GUESTS[3:7], "late": (GUESTS[0], IN_WINDOW[0])}
"""What three commands ask for at the same time: two VMs are asked for twice, one in the window too."""

PER_NODE, IN_CLUSTER = 2, 3
ROUND_S = 90.0

Row = dict[str, Any]


@pytest.fixture
def guests(lab: Lab) -> tuple[str, ...]:
    """Ten guests, spread over the nodes."""
    for place, name in enumerate(GUESTS):
        add_guests(lab, name, node=NODES[place % 3])
        run_apart(lambda name=name, place=place: put(lab, name, NODES[place % 3]))  # type: ignore[misc]
    return GUESTS


def wait_for(condition: Callable[[], Any], limit_s: float, what: str) -> None:
    """Other processes tell nobody what they did: look until it is seen."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


class Onlooker:
    """``queue list --follow``: what everyone who looks is told of every operation, whoever owns it."""

    def __init__(self, process: Beside) -> None:
        self._process = process

    def rows(self) -> dict[str, Row]:
        """Each operation as it was told last."""
        lines = self._process.out.read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        return {row["id"]: row for row in told}

    def open(self) -> list[Row]:
        """What waits and runs."""
        return [row for row in self.rows().values() if row["ended"] is None]

    def of(self, user: str) -> list[Row]:
        """What this user asked for, first to last."""
        found = [row for row in self.rows().values() if row["author"].startswith(f"{user}@")]
        return sorted(found, key=lambda row: row["created"])


class Desk:
    """All the processes of one test."""

    def __init__(self, folder: Path, file: Path) -> None:
        self._folder, self._file = folder, file
        self._begun: list[Beside] = []
        self._windows: list[tuple[Screen, Window]] = []

    def begin(self, *words: str, user: str | None = None) -> Beside:
        """A command."""
        self._begun.append(Beside(self._folder, self._file, *words, user=user))
        return self._begun[-1]

    def run(self, *words: str) -> None:
        """A command that must succeed."""
        begun = self.begin(*words)
        assert begun.process.wait(30) == 0, begun.err.read_text()

    def open_window(self) -> Window:
        """A window that has read everything."""
        screen = Screen()
        log = self._folder / f"window-{len(self._windows)}.json"
        words = ("--cluster", str(self._file), "--log-json", str(log), "gui")
        window = Window(screen, log, *words, env={"LOGNAME": "window"})
        self._windows.append((screen, window))
        window.wait("Settled", limit_s=60)
        return window

    def end(self) -> None:
        """Whatever happened: they are gone afterwards."""
        for each in self._begun:
            if each.process.poll() is None:
                each.process.kill()
                each.process.wait()
        for screen, window in self._windows:
            window.end()
            screen.close()


@contextmanager
def desk(folder: Path, file: Path) -> Iterator[Desk]:
    """Processes on a cluster; they are gone afterwards."""
    made = Desk(folder, file)
    try:
        yield made
    finally:
        made.end()


def play(
    at: Desk,
    window: Window,
    onlooker: Onlooker,
    witness: Witness,
    killed: subprocess.Popen[bytes] | None = None,
) -> list[Row]:
    """All ask at once, and the owner is killed in the middle. What the commands were answered, in the end."""
    before = len(onlooker.of("window"))
    window.focus()
    window.keys("ctrl+f", "ctrl+a")
    window.type("queue-1")
    window.keys("Return", "ctrl+a", "ctrl+shift+m")
    time.sleep(1.0)  # the plan opens; nothing tells that until it is confirmed
    asked = [
        at.begin("vm", "migrate", *names, "--json", *(["--no-wait"] if user == "leaves" else []), user=user)
        for user, names in ASKED.items()
    ]
    for _ in range(10):  # before the plan is there, Return asks for nothing
        window.keys("Return")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: len(onlooker.of("window")) > before, 4, "what the window asked for")
            break
    else:
        raise AssertionError("the window asked for nothing")
    if killed is not None:
        wait_for(lambda: len(witness.under_way()) >= 2, 60, "two moves under way")
        killed.kill()
        killed.wait()
    answers: list[Row] = []
    for each in asked:
        assert each.process.wait(ROUND_S) in (0, 1), each.err.read_text()
        answers += json.loads(each.out.read_text())
    wait_for(lambda: not onlooker.open(), ROUND_S, "the end of a round")
    return answers


def test_forty_moves_asked_for_by_window_commands_and_engine_at_once(
    lab: Lab, guests: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "together.toml"
    limits = f"outgoing_per_node = {PER_NODE}\nincoming_per_node = {PER_NODE}"
    file.write_text(f"{lab.cluster_file.read_text()}\n[migration]\nbandwidth_mib_s = 48\n{limits}\n")
    with witnessed(lab, tmp_path) as witness, desk(tmp_path, file) as at:
        engine = at.begin("engine", user="engine")
        engine.says("works on it")
        at.run("queue", "limits", f"cluster_limit={IN_CLUSTER}")  # holds whoever owns the queue later
        onlooker = Onlooker(at.begin("queue", "list", "--follow", "--json"))
        window = at.open_window()

        answers = play(at, window, onlooker, witness)
        answers += play(at, window, onlooker, witness, engine.process)
        engine = at.begin("engine", user="engine")
        engine.says(f"process {window.process.pid} works on it")  # the commands that may have done it ended
        answers += play(at, window, onlooker, witness, window.process)
        engine.says(f"works on it (process {engine.process.pid})")
        answers += play(at, at.open_window(), onlooker, witness)

        history = at.begin("queue", "list", "--history", "500", "--json")
        assert history.process.wait(30) == 0, history.err.read_text()
        rows: list[Row] = [row for row in json.loads(history.out.read_text()) if row["vm"] in guests]
        told = onlooker.rows()
        where = places(lab, guests)

    # Each request came to a true end: it was done, or another one held the VM.
    done = [row for row in rows if row["state"] == "Done"]
    refused = [row["reason"] for row in rows if row not in done]
    refused += [row["reason"] for row in answers if row["result"] not in ("done", "accepted")]
    assert refused
    assert all(reason.startswith("busy: ") for reason in refused), refused
    assert len(answers) == ROUNDS * sum(map(len, ASKED.values()))
    by_user = Counter(row["author"].partition("@")[0] for row in done)
    assert by_user["window"] + sum(row["result"] in ("done", "accepted") for row in answers) == len(done)
    assert all(by_user[user] for user in ("window", "waits", "leaves")), by_user
    assert all(told[row["id"]]["state"] == row["state"] for row in rows if row["id"] in told)

    # The hosts saw these moves, no others, and never more at once than was permitted.
    seen = witness.moves()
    assert len(seen) >= ROUNDS * len(guests)
    assert Counter((m.vm, m.source, m.target) for m in seen) == Counter(
        (row["vm"], row["from"], row["to"]) for row in done
    )
    assert all(m.arrived for m in seen)
    assert where == {m.vm: [m.target] for m in seen}  # the last of each
    assert witness.largest_overlap(guests) == IN_CLUSTER
    for node in NODES:
        assert witness.largest_overlap(guests, lambda m, node=node: m.source == node) <= PER_NODE
        assert witness.largest_overlap(guests, lambda m, node=node: m.target == node) <= PER_NODE

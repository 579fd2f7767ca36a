"""Tasks of an administrator, walked by keys alone on the whole program; answers are read off the window.

Every key press is counted. A task may cost more keys than it does today only if somebody says so here.
"""

from __future__ import annotations

import json
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tests.e2e.screen import Screen, Window

LIMIT_S = 40.0
AT = r"\d\d:\d\d:\d\d"

Text = tuple[float, float, str]


def rows(texts: list[Text]) -> list[str]:
    """What stands at one height, from left to right."""
    lines = groupby(sorted(texts, key=lambda t: (round(t[1]), t[0])), key=lambda t: round(t[1]))
    return ["  ".join(text for _, _, text in line) for _, line in lines]


def columns(texts: list[Text]) -> list[str]:
    """What begins at one place, downwards: texts that were wrapped are whole here."""
    below = groupby(sorted(texts, key=lambda t: (round(t[0]), t[1])), key=lambda t: round(t[0]))
    return [" ".join(text for _, _, text in column) for _, column in below]


class User:
    """Sits before a window: presses keys, which are counted, and reads what is painted."""

    def __init__(self, window: Window, folder: Path) -> None:
        self.window = window
        self.keys = 0
        self._folder = folder

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            self.window.focus()
            self.window.keys(key)
            self.keys += 1

    def type(self, text: str) -> None:
        """Type a text; each letter is a key."""
        self.window.focus()
        self.window.type(text)
        self.keys += len(text)

    def reads(self, pattern: str, *, focus: str = "", limit_s: float = LIMIT_S) -> re.Match[str]:
        """Look until this stands in a row or a column of the window that has the keyboard.

        Args:
            pattern: A regular expression.
            focus: Matches the name of what has the focus.
            limit_s: How long to look.
        """
        end = time.monotonic() + limit_s
        while True:
            seen = self.window.ask("look")
            if not seen["texts"]:
                self.window.focus()  # a dialog has closed, and there is no window manager
            texts = [(x, y, text) for x, y, text in seen["texts"]]
            lines = [seen["title"], *rows(texts), *columns(texts)]
            found = next(filter(None, (re.search(pattern, line) for line in lines)), None)
            if found and re.search(focus, seen["focus"]):
                return found
            if time.monotonic() > end:
                picture = self._folder / "window.png"
                self.window.ask(f"picture {picture}")
                shown = "\n".join(rows(texts))
                raise AssertionError(
                    f"{pattern} is not shown, {seen['focus']!r} has the focus:\n{shown}\n{picture}"
                )
            time.sleep(0.1)  # a window tells nobody what it paints

    def focused(self, name: str) -> None:
        """Look until this has the focus."""
        self.reads("", focus=name)


Sit = Callable[..., User]


@pytest.fixture
def sit(tmp_path: Path) -> Iterator[Sit]:
    """``sit(page, BUSY=...)``: the window on a page of a cluster of four nodes, twelve VMs on n1."""
    screen = Screen()
    opened: list[Window] = []

    def one(page: str = "roles", **stage: str) -> User:
        log = tmp_path / "log.json"
        words = ("--demo", "4x18", "--log-json", str(log), "gui", "--page", page)
        env = {f"STAGE_{name}": value for name, value in stage.items()} | {"HOME": str(tmp_path)}
        window = Window(screen, log, *words, env=env, program="tests.e2e.stage", answers=True)
        opened.append(window)
        window.wait("Settled")
        user = User(window, tmp_path)
        window.focus()
        user.reads("Pause all work")
        return user

    yield one
    for window in opened:
        window.end()
    screen.close()


def test_say_which_vms_need_attention_and_why_among_8000(sit: Sit) -> None:
    user = sit(SIZE="64x8000")
    user.press("ctrl+k")
    user.focused("Command")
    user.type("need")
    user.reads("Need.*s attention +view of Roles of demo")
    user.press("Return")
    user.reads(r"Roles  36 of 8,000  Needs attention", focus="Roles")
    user.reads(r"\S+-\d+  Paused: disk error  oslo-\d\d  .*paused: disk error")
    user.reads(r"\S+-\d+  Crashed  oslo-\d\d  .*crashed before Muster looked")
    print(f"task 2: {user.keys} keys")
    assert user.keys <= 6


def test_say_from_the_overview_what_needs_attention_among_8000(sit: Sit) -> None:
    user = sit("overview", SIZE="64x8000")
    user.reads("8,000 roles on 64 nodes")
    user.reads(r"Needs attention  36")
    user.reads(r"\S+-\d+: paused: disk error")
    user.reads(r"36 need attention  72 cannot be moved")
    assert user.keys == 0


def test_find_running_vms_save_them_as_a_view_and_shut_down_all_but_two(sit: Sit) -> None:
    user = sit(LARGE="web-01 web-02 ci-01 ci-02 erp-01 ci-03")
    query = "is:running owner:n1,n2 priority:high memory>4GiB"
    user.press("slash")
    user.focused("Search Roles")
    user.type(query)
    user.reads(r"Roles  5 of 18")
    user.press("Return")
    user.focused("Roles")
    user.press("ctrl+s")
    user.reads("Save what Roles shows as a view", focus="Name of the view")
    user.type("Large")
    user.press("Return")
    user.reads(r"Roles  5 of 18  Large", focus="Roles")
    user.reads(r"Large  5")
    user.press("shift+Down", "shift+Down")
    user.reads("3 VMs selected")
    user.press("ctrl+shift+d")
    user.reads("Shut down 3", focus="Cancel")
    user.press("shift+Tab")
    user.focused("Shut down 3")
    user.press("space")
    asked = user.window.wait("ActionRequested")["data"]["plan"]["steps"]
    assert [step["name"] for step in asked] == ["ci-01", "ci-02", "erp-01"]
    user.reads(r"Roles  2 of 18  Large")
    print(f"task 3: {user.keys} keys, {len(query)} of them the query")
    assert user.keys <= len(query) + 14


def test_move_12_vms_off_a_node_and_say_before_where_one_goes_and_why(sit: Sit) -> None:
    user = sit()
    user.press("ctrl+k")
    user.focused("Command")
    user.type("n1")
    user.reads(r"n1 +node of demo")
    user.press("Return")
    user.reads(r"Roles  12  on n1")
    user.press("ctrl+a")
    user.reads("12 VMs selected")
    user.press("ctrl+m")
    user.reads(r"Best node for each  12 of 12", focus="Move 12 VMs")
    where = user.reads(r"db-01  n1 → (n\d)  4 GiB  most free memory \(([\d.]+) GiB\)")[1]
    assert where == "n4"  # the emptiest node, and db-01 comes first: it is the one of priority High
    user.press("Return")
    user.reads("2 moving, 10 waiting")
    asked = user.window.wait("ActionRequested")["data"]["plan"]["steps"]
    assert len(asked) == 12
    assert next(step["target"] for step in asked if step["name"] == "db-01") == where
    print(f"task 4: {user.keys} keys")
    assert user.keys <= 7


def test_say_why_a_vm_does_not_start_moving(sit: Sit) -> None:
    user = sit()
    user.window.ask("move " + " ".join(f"web-{n:02} app-{n:02}" for n in range(1, 5)))
    user.press("ctrl+j")
    user.focused("Queue")
    user.type("web-03")
    user.reads(
        r"web-03  n1 → n\d  Medium  Waiting  n1 gives 2 of 2 outgoing moves; (next|\d(nd|rd|th)) in line"
    )
    print(f"task 5: {user.keys} keys")
    assert user.keys <= 7


def stuck(user: User) -> None:
    """Go to the move of web-03; say what will be done about it, and when."""
    user.window.ask("move web-03 web-04")
    user.press("ctrl+j")
    user.focused("Queue")
    user.type("web-03")
    user.reads(r"web-03  n1 → n\d  Medium  Not converging  ")
    user.press("Return")


def test_a_move_that_does_not_converge_is_let_end_by_a_longer_pause(sit: Sit) -> None:
    user = sit(BUSY="web-03")
    stuck(user)
    user.reads(
        rf"Policy: now: slows the guest by \d\d %; raises the permitted pause to \S+ m?s at {AT};"
        rf" gives up at {AT}: the VM stays on n1",
        focus="Raise pause to 5 s",
    )
    user.reads(r"Pause  expected 3[.\d]* s, permitted")
    user.press("space")
    user.reads(r"web-03  n1 → (n\d)  Medium  Done  runs on \1")
    print(f"task 6, by a longer pause: {user.keys} keys")
    assert user.keys <= 9
    user.focused("Queue")


def test_a_move_that_does_not_converge_is_let_end_by_post_copy(sit: Sit) -> None:
    user = sit(BUSY="web-03", POST_COPY="yes")
    stuck(user)
    user.reads(
        rf"Policy: now: slows the guest by \d\d %; raises the permitted pause to \S+ m?s at {AT};"
        rf" if nothing helps, switches to the second half \(post-copy\) by {AT}",
        focus="Raise pause",
    )
    user.press("Tab", "Tab")
    user.focused("Post-copy…")
    user.press("space")
    user.reads("If either node or the network between them fails before", focus="Keep copying")
    user.press("Tab", "space")
    user.reads(r"web-03  n1 → (n\d)  Medium  Done  runs on \1")
    print(f"task 6, by post-copy: {user.keys} keys")
    assert user.keys <= 13


@pytest.mark.parametrize("page", ["overview", "roles", "nodes"])
def test_stop_everything_see_what_still_goes_on_and_continue(sit: Sit, page: str) -> None:
    user = sit(page, CAP="120")  # 16 s for a move: none ends while this is read
    user.window.ask("move web-01 web-02 web-03 web-04 app-01 app-02")
    user.reads("2 moving, 4 waiting")
    user.press("ctrl+period")
    user.reads("Continue all work  2 moving, 4 waiting")
    user.press("ctrl+j")
    user.reads(rf"Paused by \S+ since {AT}: nothing new starts; 2 run on")
    user.reads(r"web-01  n1 → n\d  Medium  Copying")
    user.reads(r"web-03  n1 → n\d  Medium  Waiting  the queue was paused by")
    user.press("ctrl+period")
    user.reads("Pause all work  2 moving, 4 waiting")
    print(f"task 7, from {page}: {user.keys} keys")
    assert user.keys <= 3


def test_while_everything_is_stopped_what_runs_ends_and_nothing_starts(sit: Sit) -> None:
    user = sit(CAP="200")
    user.window.ask("move web-01 web-02 web-03 web-04 app-01 app-02")
    user.reads("2 moving, 4 waiting")
    user.press("ctrl+period")
    user.reads("Continue all work  0 moving, 4 waiting")
    user.press("ctrl+period")
    user.reads("Pause all work  2 moving, 2 waiting")


def test_a_vm_that_stands_still_for_want_of_room_is_resumed(sit: Sit) -> None:
    user = sit("overview", FULL="web-04")
    user.reads(r"web-04: paused: disk error")
    user.press("ctrl+k")
    user.focused("Command")
    user.type("web-04")
    user.reads(r"web-04  VM of demo")
    user.press("Return")
    user.reads(r"web-04  Paused: disk error  n1  .*paused: disk error, pool vms", focus="Roles")
    user.press("ctrl+4")
    user.reads(r"vms  Online  .*  100 % full: 0 B of 1000 GiB left")
    user.window.ask("room web-04")
    user.press("F5")
    user.reads(r"vms  Online  .*  60  400 GiB  1000 GiB")
    user.press("alt+Left")
    user.reads(r"web-04  Paused: disk error", focus="")
    user.press("ctrl+k")
    user.focused("Command")
    user.type("resume")
    user.reads(r"Resume  action")
    user.press("Return")
    user.reads(r"web-04  Running  n1")
    print(f"task 11: {user.keys} keys")
    assert user.keys <= 19


def test_say_what_happened_to_a_vm_who_did_it_and_write_a_bundle(sit: Sit, tmp_path: Path) -> None:
    user = sit("overview")
    user.window.ask("move mail-02")
    user.reads("0 moving, 0 waiting")
    user.press("ctrl+k")
    user.focused("Command")
    user.type("mail")
    user.reads(r"mail  -02|mail-02  VM of demo")
    user.press("Return")
    user.focused("Roles")
    user.press("ctrl+h")
    user.focused("Events")
    user.reads(r"VM mail-02  Moved from n1 to n\d  \S+@\S+")
    user.reads(r"VM mail-02  Asked: live migrate mail-02  \S+@\S+")
    user.press("ctrl+k")
    user.focused("Command")
    user.type("bundle")
    user.press("Return")
    user.focused("Since")
    user.type("02:00")
    user.press("Return")
    user.reads(r"Support bundle written: (\S+) ")
    print(f"task 14: {user.keys} keys")
    assert user.keys <= 21
    (path,) = tmp_path.glob("muster-demo-*.tar.gz")
    with tarfile.open(path) as tar:
        names = {Path(name).name: name for name in tar.getnames()}
        held = tar.extractfile(names["events.json"])
        assert held is not None
        events = json.load(held)
    mine = [event for event in events if event["vm"] == "mail-02"]
    assert any(event["code"] == "vm-moved" and event["who"] for event in mine)

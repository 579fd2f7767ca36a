"""Every rule of the contract about actions: results, exit codes, and that nothing else is touched."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from manager.cli.actions import FORMS, MOVES
from manager.core.actions import ACTIONS, VM_ACTIONS
from manager.core.actions.snapshots import SNAPSHOT_ACTIONS
from manager.core.model import Disk, Priority, Snapshot, VmStatus
from manager.core.operations import Operation
from manager.services.memory_journal import MemoryJournal
from tests.cli.support import TWINS, Cli, small

EXTRA = {
    "priority": ("--set", "low"),
    "tag": ("--set", "a,b"),
    "owners": ("--possible", "n1,n2", "--preferred", "n2"),
    "rules": ("--apart", "web"),
    "cd": ("--insert", "default/debian-13.iso"),
    "memory": ("--set", "512MiB"),
    "vcpus": ("--set", "1"),
    "describe": ("--title", "Shop"),
    "autostart": ("--set", "on"),
    "network": ("--link", "down"),
    "boot-order": ("--set", "vda"),
    "add-disk": ("--pool", "vms", "--size", "1GiB"),
    "grow-disk": ("--to", "100GiB"),
    "snapshot create": ("--name", "now"),
    "snapshot delete": ("--name", "kept"),
    "snapshot revert": ("--name", "kept"),
    "migrate --type storage": ("--pool", "default"),
}
"""What some actions cannot do without."""

FITS = {
    "start": "off-1",
    "resume": "paused-1",
    "delete-saved-state": "saved-1",
}
"""A VM to which an action applies; else web-1."""

AFTER = {
    "start": "running on n1",
    "shutdown": "off on n1",
    "restart": "running on n1",
    "save": "saved on n1",
    "pause": "paused on n1",
    "resume": "running on n2",
    "turn-off": "off on n1",
    "reset": "running on n1",
    "ctrl-alt-del": "running on n1",
    "snapshot create": "running on n1",
    "snapshot delete": "running on n1",
    "snapshot revert": "running on n1",
    "delete-saved-state": "off on n2",
    "migrate": "runs on n3",
    "migrate --type quick": "runs on n3",
    "migrate --type shutdown": "runs on n3",
    "migrate --type turn-off": "runs on n3",
    "migrate --type storage": "its disks are in pool default on n1 now; the old images are kept",
    "cancel": "nothing is under way",
    "priority": "Low",
    "tag": "a, b",
    "owners": "possible: n1, n2; preferred: n2",
    "rules": "apart: web",
    "cd": "CD default/debian-13.iso in sda",
    "memory": "memory 512 MiB of at most 1 GiB",
    "vcpus": "1 vCPU of at most 2, at its next start",
    "describe": "title “Shop”",
    "autostart": "starts with its host",
    "network": "link of 52:54:00:00:00:01 down",
    "boot-order": "boots from vda, at its next start",
    "add-disk": "a new disk of 1 GiB in pool vms",
    "grow-disk": "disk vda of 100 GiB",
}


@pytest.mark.parametrize("command", [spec.command for spec in VM_ACTIONS])
def test_every_action_has_a_command_that_does_it(muster: Cli, command: str) -> None:
    name = FITS.get(command, "web-1")
    config = muster.vm(name).config
    drive = Disk(target="sda", device="cdrom", read_only=True)
    muster.vm(name).config = replace(
        config, disks=(*config.disks, drive) if command == "cd" else config.disks
    )
    if command in ("snapshot delete", "snapshot revert"):
        vm = muster.vm(name)
        vm.snapshots.append(Snapshot(name="kept", memory=True, status=VmStatus.RUNNING))
        vm.config = replace(vm.config, snapshots=1)
    ran = muster("vm", *command.split(), name, *EXTRA.get(command, ()), "--json")
    assert ran.rows == [
        {"uuid": muster.vm(name).id, "vm": name, "result": "done", "reason": AFTER[command]}
    ], ran.err
    assert ran.code == 0


def test_every_kind_of_parameters_has_a_form() -> None:
    by_hand = {type(spec.default) for spec in MOVES.values()}
    by_hand |= {type(spec.default) for spec in SNAPSHOT_ACTIONS}
    assert {type(spec.default) for spec in ACTIONS.values()} == set(FORMS) | by_hand


def test_several_at_once_by_name_and_uuid(muster: Cli) -> None:
    uuid = muster.vm("web-2").id
    ran = muster("vm", "migrate", "web-10", uuid.upper(), "web-1", "web-1", "--to", "n2", "--json")
    assert [row["vm"] for row in ran.rows] == ["web-10", "web-2", "web-1"]
    assert set(ran.results().values()) == {"done"}
    assert [muster.vm(name).node.id for name in ("web-1", "web-2", "web-10")] == ["n2"] * 3


def test_the_table_says_the_same(muster: Cli) -> None:
    ran = muster("vm", "pause", "web-1", "paused-1", "off-1")
    assert ran.out == (
        "VM        Result   Reason\n"
        "web-1     done     paused on n1\n"
        "paused-1  done     already paused\n"
        "off-1     skipped  not running (Off)\n"
    )
    assert ran.code == 1


def test_what_is_so_already_is_done(muster: Cli) -> None:
    ran = muster("vm", "start", "web-1", "--json")
    assert ran.rows == [
        {
            "uuid": muster.vm("web-1").id,
            "vm": "web-1",
            "result": "done",
            "reason": "already running on n1",
        }
    ]
    assert ran.code == 0
    assert muster("vm", "migrate", "web-1", "--to", "n1").code == 0


def test_a_refused_vm_is_skipped_and_the_others_are_done(muster: Cli) -> None:
    ran = muster("vm", "save", "web-1", "off-1", "--json")
    assert ran.results() == {"web-1": "done", "off-1": "skipped"}
    assert ran.code == 1
    assert muster.vm("web-1").status is VmStatus.SAVED


def test_a_failure_says_where_the_vm_is(muster: Cli) -> None:
    muster.faults.fail_move(text="unable to connect to server at 'n2:49152'")
    ran = muster("vm", "migrate", "web-1", "--to", "n2", "--json")
    assert ran.results() == {"web-1": "failed"}
    assert ran.rows[0]["reason"] == "unable to connect to server at 'n2:49152'; it is running on n1"
    assert ran.code == 1


def test_no_login_between_the_nodes_says_what_repairs_it(muster: Cli) -> None:
    muster.faults.break_peer_login("n1", "n2")
    ran = muster("vm", "migrate", "web-1", "--to", "n2", "--json")
    assert ran.results() == {"web-1": "failed"}
    assert "n1 cannot log in to n2" in ran.rows[0]["reason"]
    assert "Repair it with: " in ran.err
    assert "--through-this-computer" in ran.err
    assert muster("vm", "migrate", "web-1", "--to", "n2", "--through-this-computer").code == 0
    assert muster.vm("web-1").node.id == "n2"


# --- what-if -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [spec.command for spec in VM_ACTIONS])
def test_what_if_changes_nothing(muster: Cli, command: str) -> None:
    before = muster.state()
    names = ["web-1", "off-1", "saved-1", "paused-1"]
    ran = muster("vm", *command.split(), *names, *EXTRA.get(command, ()), "--what-if", "--json")
    assert [row["vm"] for row in ran.rows] == names
    assert {row["result"] for row in ran.rows} <= {"planned", "done", "skipped"}
    assert ran.code == 0
    assert muster.state() == before
    assert muster.vm("web-1").config.settings.priority is Priority.MEDIUM


@pytest.mark.parametrize("declared", [("/srv/vms",), ()])
def test_what_if_of_a_move_says_where_sharing_is_unchecked(muster: Cli, declared: tuple[str, ...]) -> None:
    muster.config = replace(muster.config, shared_paths=declared)
    ran = muster("vm", "migrate", "web-1", "--what-if", "--json")
    assert ran.results() == {"web-1": "planned"}
    assert ("declares no shared path" in ran.err) is not bool(declared)
    assert "shared path" not in muster("vm", "pause", "web-1", "--what-if").err


def test_what_if_of_a_move_says_where_to_and_why(muster: Cli) -> None:
    ran = muster("vm", "migrate", "web-1", "off-1", "--what-if")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["VM", "Result", "From", "To", "Reason"]
    assert lines[1].split()[:4] == ["web-1", "planned", "n1", "n3"]
    assert "most free memory" in lines[1]
    assert lines[2].split() == ["off-1", "skipped", "not", "running", "(Off)"]
    assert "Nothing was done." in ran.err


# --- names ---------------------------------------------------------------------------------------


def test_an_unknown_name_and_nothing_is_done(muster: Cli) -> None:
    before = muster.state()
    ran = muster("vm", "turn-off", "db-1", "web1", "--yes", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "There is no VM web1 in small. Did you mean web-1" in ran.err
    assert "Nothing was done." in ran.err
    assert muster.state() == before


def test_an_ambiguous_name_and_nothing_is_done(muster: Cli) -> None:
    before = muster.state()
    ran = muster("vm", "turn-off", "db-1", "twin", "--yes", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert f"twin is ambiguous: {TWINS[0]} on n1, {TWINS[1]} on n2. Give the UUID." in ran.err
    assert muster.state() == before
    assert muster("vm", "turn-off", TWINS[0]).code == 0


def test_an_unknown_target_node(muster: Cli) -> None:
    ran = muster("vm", "migrate", "web-1", "--to", "n22", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "There is no node n22 in small. Did you mean n2" in ran.err


def test_a_name_that_only_a_missing_node_may_know(muster: Cli) -> None:
    muster.faults.kill_daemon("n2")
    before = muster.state()
    ran = muster("vm", "turn-off", "web-1", "db-1", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "There is no VM db-1" in ran.err
    assert "Connection refused" in ran.err
    assert muster.state() == before


def test_a_target_that_cannot_be_reached(muster: Cli) -> None:
    muster.faults.kill_daemon("n2")
    ran = muster("vm", "migrate", "web-1", "--to", "n2", "--json")
    assert ran.results() == {"web-1": "skipped"}
    assert ran.rows[0]["reason"] == "node n2 cannot be reached"
    assert ran.code == 3
    assert "n2 was never reached: unable to connect to 'n2': Connection refused." in ran.err


def test_a_missing_node_that_is_not_needed_is_no_error(muster: Cli) -> None:
    muster.faults.kill_daemon("n2")
    ran = muster("vm", "pause", "web-1")
    assert (ran.code, ran.err) == (0, "")


# --- waiting -------------------------------------------------------------------------------------


def test_the_wait_runs_out_and_nothing_is_undone(capsys: pytest.CaptureFixture[str]) -> None:
    muster = small(capsys, speed=4.0)
    ran = muster("vm", "shutdown", "deaf", "web-1", "--wait", "1", "--json")
    assert ran.results() == {"deaf": "running", "web-1": "done"}
    deaf = next(row for row in ran.rows if row["vm"] == "deaf")
    assert deaf["reason"] == "still under way after 1 s; nothing was undone"
    assert ran.code == 1


def test_a_guest_that_ignores_it_is_a_failure_in_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    muster = small(capsys, speed=400.0)
    ran = muster("vm", "shutdown", "deaf", "--json")
    assert ran.results() == {"deaf": "failed"}
    assert "did not shut down within 3 min; it is running on n2" in ran.rows[0]["reason"]
    assert "turn it off" in ran.err
    assert ran.code == 1


def test_what_waited_for_its_turn_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    muster = small(capsys, speed=2.0)
    ran = muster("vm", "migrate", "web-1", "web-2", "web-10", "--to", "n2", "--wait", "0", "--json")
    assert set(ran.results().values()) == {"running"}
    waiting = [row for row in ran.rows if "not started" in row["reason"]]
    assert len(waiting) == 1
    assert "1 VM of these still wait" in ran.err
    assert ran.code == 1


def test_no_wait_leaves_it_to_the_hosts(muster: Cli) -> None:
    began = time.monotonic()
    ran = muster("vm", "migrate", "web-1", "web-2", "web-10", "--to", "n2", "--no-wait", "--json")
    assert time.monotonic() - began < 15
    assert set(ran.results().values()) <= {"accepted", "done"}
    assert ran.code == 0
    assert "1 VM of these wait for their turn; this command stays" in ran.err
    for _ in range(100):  # each look takes a tenth of a second and lets the world go on
        rows = muster("vm", "list", "--columns", "name,owner", "--json").rows
        if {row["owner"] for row in rows if row["name"].startswith("web-")} == {"n2"}:
            break
    else:
        pytest.fail("what was accepted did not happen")


def test_options_that_contradict_each_other(muster: Cli) -> None:
    for given in (
        ("--wait", "1", "--no-wait"),
        ("--wait", "-1"),
        ("--through-this-computer", "--no-wait"),
        ("--through-this-computer", "--wait", "1"),
    ):
        ran = muster("vm", "migrate", "web-1", *given)
        assert (ran.code, ran.out) == (2, ""), given
    assert muster.vm("web-1").node.id == "n1"


# --- the journal and the log ---------------------------------------------------------------------


class FullJournal(MemoryJournal):
    async def commit(self, operations: Sequence[Operation]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class UnusableJournal(MemoryJournal):
    async def load(self) -> tuple[Operation, ...]:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_state_folder(muster: Cli, caplog: pytest.LogCaptureFixture) -> None:
    muster.journal = FullJournal
    before = muster.state()
    ran = muster("vm", "turn-off", "web-1", "--json")
    assert ran.results() == {"web-1": "failed"}
    assert "not started: the journal cannot be written" in ran.rows[0]["reason"]
    assert ran.code == 1
    assert muster.state() == before
    assert ran.err == "muster: small: the journal cannot be written: [Errno 28] No space left on device\n"
    assert {record.levelname for record in caplog.records} <= {"ERROR", "INFO"}


def test_a_journal_that_cannot_be_used(muster: Cli) -> None:
    muster.journal = UnusableJournal
    ran = muster("vm", "turn-off", "web-1", "--json")
    assert (ran.code, ran.out) == (1, "")
    assert "The journal of cluster small cannot be used" in ran.err
    assert "Nothing was opened." in ran.err


def test_log_json(muster: Cli, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    muster("vm", "pause", "web-1", "--log-json", str(log))
    records = [json.loads(line) for line in log.read_text().strip().split("\n")]
    kinds = [record["event"] for record in records]
    assert kinds.count("ActionRequested") == 1
    assert {"NodeConnected", "NodeInventoryRead", "EffectEnded"} <= set(kinds)
    ran = muster("vm", "pause", "web-2", "--log-json", str(tmp_path / "none" / "log.json"))
    assert (ran.code, ran.out) == (2, "")
    assert "cannot be written" in ran.err
    assert muster.vm("web-2").status is VmStatus.RUNNING


def test_tags(muster: Cli) -> None:
    assert muster("vm", "tag", "web-1", "--set", " a, b,,a").code == 0
    assert muster.vm("web-1").config.settings.tags == ("a", "b")
    assert muster("vm", "tag", "web-1", "--set", "").code == 0
    assert muster.vm("web-1").config.settings.tags == ()
    assert muster("vm", "tag", "web-1", "--set", "a\x1b").code == 2
    assert muster("vm", "priority", "web-1", "--set", "urgent").code == 2
    assert muster("vm", "priority", "web-1", "--set", "no-auto-start").code == 0
    assert muster.vm("web-1").config.settings.priority is Priority.NO_AUTO_START


def test_owners_and_rules(muster: Cli) -> None:
    assert muster("vm", "owners", "web-1", "--possible", "n1, n2", "--preferred", "n2").code == 0
    settings = muster.vm("web-1").config.settings
    assert (settings.possible_owners, settings.preferred_owners) == (("n1", "n2"), ("n2",))
    assert muster("vm", "owners", "web-1", "--possible", "").code == 0
    assert muster.vm("web-1").config.settings.possible_owners == ()
    ran = muster("vm", "owners", "web-1", "--possible", "n9", "--json")
    assert ran.code == 1
    assert ran.rows[0]["reason"] == "there is no node n9 in this cluster"
    assert muster("vm", "rules", "web-1", "web-2", "--apart", "web", "--rather-together", "a").code == 0
    assert [r.text for r in muster.vm("web-2").config.settings.rules] == ["apart: web", "rather together: a"]
    assert muster("vm", "list", "--where", "rules:apart", "--json").code == 0
    for wrong in ((), ("--apart", "a", "--rather-apart", "a"), ("--apart", "a", "--remove", "a")):
        assert muster("vm", "rules", "web-1", *wrong).code == 2
    assert muster("vm", "owners", "web-1").code == 2


def test_why_here_and_why_not_there(muster: Cli) -> None:
    assert muster("vm", "owners", "web-1", "--possible", "n1,n3", "--preferred", "n3").code == 0
    rows = {row["node"]: row for row in muster("vm", "why", "web-1", "--json").rows}
    assert rows["n1"]["is_here"]
    assert next(iter(rows)) == "n3"
    assert rows["n3"]["weights"][0] == {
        "weigher": "Preferred owner",
        "rank": 0,
        "text": "preferred owner, 1 of 1",
    }
    assert rows["n2"]["refusals"][0]["code"] == "not-possible-owner"
    lines = muster("vm", "why", "web-1").out.splitlines()
    assert lines[0].split() == ["Node", "Takes", "it", "Why"]
    assert any("n2: not among its possible owners (n1, n3)" in line for line in lines)


def test_place_says_where_what_is_not_there_yet_would_go(muster: Cli) -> None:
    before = muster.state()
    ran = muster("place", "--memory", "1GiB", "--vcpus", "2", "--count", "3", "--json")
    assert (ran.code, [row["number"] for row in ran.rows]) == (0, [1, 2, 3])
    assert {row["node"] for row in ran.rows} <= {"n1", "n2", "n3"}
    ran = muster("place", "--memory", "9000GiB")
    assert ran.code == 1
    assert "not enough memory" in ran.out
    assert muster.state() == before


def test_tags_are_added_and_removed_without_touching_others(muster: Cli) -> None:
    assert muster("vm", "tag", "web-1", "--set", "own").code == 0
    ran = muster("vm", "tag", "web-1", "web-2", "--add", "a", "--add", "b,c", "--remove", "own", "--what-if")
    assert "adds a, b, c; removes own" in ran.out
    assert muster.vm("web-1").config.settings.tags == ("own",)
    assert muster("vm", "tag", "web-1", "web-2", "--add", "a", "--json").results() == {
        "web-1": "done",
        "web-2": "done",
    }
    assert muster.vm("web-1").config.settings.tags == ("own", "a")
    assert muster("vm", "tag", "web-1", "--remove", "own,nobody").code == 0
    assert muster.vm("web-1").config.settings.tags == ("a",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Say what to change: --add, --remove or --set."),
        (("--set", "a", "--add", "b"), "--set gives all tags"),
        (("--add", "a", "--remove", "b,a"), "The tag a cannot be added and removed at once."),
        (("--add", "x" * 65), "has 65 characters; 64 are the most"),
    ],
)
def test_wrong_tags_are_explained(muster: Cli, given: tuple[str, ...], said: str) -> None:
    ran = muster("vm", "tag", "web-1", *given)
    assert ran.code == 2
    assert said in ran.err

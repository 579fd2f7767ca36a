"""Bad files, URIs, names and definitions, full disks: one clear message, the right exit code, no more."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PLAIN = "00000000-0000-4000-8000-000000000009"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    def refused(self, code: int) -> str:
        """Its one message, after it was seen to print nothing else and no traceback."""
        assert (self.code, self.out) == (code, ""), self
        assert self.err.startswith("muster: "), self.err
        assert "Traceback" not in self.err
        assert self.err.count("muster: ") == 1
        return self.err.removeprefix("muster: ").rstrip("\n")


def muster(*argv: str | bytes) -> Ran:
    """Run the command line."""
    words: Sequence[str | bytes] = [sys.executable, "-m", "manager", *argv]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def domain(name: str, number: int, *, inside: str = "", state: int = 1) -> str:
    """A domain of libvirt's test driver; state 1 runs, 5 is off."""
    return (
        "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>"
        f"<name>{name}</name><uuid>00000000-0000-4000-8000-{number:012d}</uuid><memory>65536</memory>"
        f"<vcpu>1</vcpu><os><type>hvm</type></os>{inside}<test:runstate>{state}</test:runstate></domain>"
    )


def host(path: Path, *domains: str) -> str:
    """A host of the test driver; returns its URI."""
    path.write_text(f"<node>{''.join(domains)}<memory>8000000</memory></node>", encoding="utf-8")
    return f"test://{path}"


def two_hosts(folder: Path) -> Path:
    """A cluster in which one VM runs on two nodes, one name is there twice, and one VM is as it should be."""
    a = host(folder / "a.xml", domain("twice", 1), domain("same", 2), domain("plain", 9))
    b = host(folder / "b.xml", domain("twice", 1), domain("same", 3))
    path = folder / "two.toml"
    nodes = "".join(f'[[nodes]]\nname = "{name}"\nuri = "{uri}"\n' for name, uri in (("a", a), ("b", b)))
    path.write_text(f'name = "two"\n{nodes}')
    return path


# --- files and URIs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'name = "x"\n[[nodes]\n', "bad.toml, line 2, column 8: not valid TOML"),
        (b"\xff\xfe\x00", "bad.toml, line 1: not UTF-8 text"),
        (b"", "bad.toml: no nodes"),
        (b'nmae = 1\n[[nodes]]\nuri = "test:///default"\n', "bad.toml, line 1: nmae: there is no such key"),
        (b'[[nodes]]\nuri = "qemu+ssh://root:secret@n1/system"\n', "passwords belong in the key ring"),
    ],
)
def test_a_bad_cluster_file(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    text = muster("--cluster", str(path), "vm", "list").refused(2)
    assert says in text
    assert text.endswith("Nothing was loaded.")
    assert "secret" not in text
    assert path.read_bytes() == content


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    assert "not a file" in muster("--cluster", str(tmp_path / "pipe.toml"), "vm", "list").refused(2)


@pytest.mark.parametrize(
    ("uri", "code", "says"),
    [
        ("qemu+ssh://", 2, "needs a libvirt URI such as"),
        ("qemu+ssh://root:secret@n1/system", 2, "passwords belong in the key ring"),
        ("qemu+bogus://h/system", 3, "\n  node h: "),
        ("qemu+tcp://127.0.0.1:1/system", 3, "Connection refused. Check that the host is on"),
        ("qemu+tls://127.0.0.1:1/system?pkipath=/nowhere", 3, "login failed: Cannot read CA certificate"),
        ("qemu+unix:///system?socket=/nowhere", 3, "was never reached: Failed to connect socket"),
    ],
)
def test_a_wrong_uri(uri: str, code: int, says: str) -> None:
    text = muster("--connect", uri, "vm", "start", "x").refused(code)
    assert says in text
    assert "secret" not in text


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("same", "plain"), "same is ambiguous: 00000000-0000-4000-8000-000000000002 on a, "),
        (("plian", "plain"), "There is no VM plian in two. Did you mean plain?"),
        (("\x1b[31mred", "plain"), "There is no VM \\x1b[31mred in two."),
        ((b"\xff\xfe", "plain"), "There is no VM \\udcff\\udcfe in two."),
        (("",), "There is no VM  in two."),
        (("plain", "--to", "zz"), "There is no node zz in two."),
    ],
)
def test_nothing_is_done_if_one_name_is_wrong(
    tmp_path: Path, names: tuple[str | bytes, ...], says: str
) -> None:
    file = two_hosts(tmp_path)
    log = tmp_path / "log.json"
    action = "migrate" if "--to" in names else "pause"
    argv = ("--cluster", str(file), "--log-json", str(log), "vm", action, *names)
    text = muster(*argv).refused(2)
    assert text.startswith(says)
    assert text.endswith("Nothing was done.")
    assert "ActionRequested" not in log.read_text()


def test_a_name_that_a_silent_host_may_know_is_not_unknown(tmp_path: Path) -> None:
    uri = host(tmp_path / "a.xml", domain("plain", 9))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = f"qemu+tcp://127.0.0.1:{silent.getsockname()[1]}/system"
        argv = ("--connect", dead, uri, "--timeout", "1", "vm", "pause")
        text = muster(*argv, "nobody").refused(3)
        assert "A VM that only such a node knows cannot be found now." in text
        ran = muster(*argv, "plain")  # and who is known is not held up
        assert (ran.code, ran.err) == (0, "")


STRANGE = {
    "[bold red]x[bold]": "[bold red]x[bold]",
    "\ttab": "\\x09tab",
    "a\u202egnp.exe": "a\\u202egnp.exe",
    "$(reboot)`id`": "$(reboot)`id`",
    "--yes": "--yes",
    "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)>",
    "%s%n{0}": "%s%n{0}",
    "é中文": "é中文",
    "x" * 5000: "x" * 5000,
    PLAIN: PLAIN,  # a name that looks like a UUID
}
"""Names that libvirt lets through, and how they are shown."""


def strange_host(folder: Path) -> str:
    def xml(text: str) -> str:
        return text.replace("<", "&lt;").replace(">", "&gt;").replace("\t", "&#9;")

    return host(folder / "w.xml", *(domain(xml(name), 100 + i) for i, name in enumerate(STRANGE)))


def test_strange_names_are_listed_found_and_harmless(tmp_path: Path) -> None:
    uri = strange_host(tmp_path)
    ran = muster("--connect", uri, "vm", "list", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert {row["name"] for row in json.loads(ran.out)} == set(STRANGE)
    assert not {"\t", "\u202e", "\x1b"} & set(ran.out)
    table = muster("--connect", uri, "vm", "list", "--columns", "name").out.splitlines()[1:]
    assert set(table) == set(STRANGE.values())
    ran = muster("--connect", uri, "vm", "pause", "--json", "--", *STRANGE)
    assert ran.code == 0, ran.err
    assert [row["vm"] for row in json.loads(ran.out)] == list(STRANGE)
    assert {row["result"] for row in json.loads(ran.out)} == {"done"}


def test_the_window_shows_strange_names_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    picture = tmp_path / "w.png"
    ran = muster("--connect", strange_host(tmp_path), "gui", "--screenshot", str(picture))
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert picture.stat().st_size > 10_000


# --- definitions -----------------------------------------------------------------------------


def test_a_definition_too_large_costs_only_itself(tmp_path: Path) -> None:
    much = "<o:y a='1'>z</o:y>" * 120_000
    huge = domain("huge", 1, inside=f"<metadata><o:x xmlns:o='urn:o'>{much}</o:x></metadata>")
    ran = muster("--connect", host(tmp_path / "h.xml", huge, domain("ok", 2)), "vm", "list", "--json")
    assert (ran.code, ran.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(ran.out)}
    assert rows["huge"]["information"] == "its definition is not understood: it is larger than 2 MiB"
    assert (rows["ok"]["memory_mib"], rows["ok"]["information"]) == (64, None)


def test_running_on_two_nodes_is_an_alarm_and_cannot_be_moved(tmp_path: Path) -> None:
    file = str(two_hosts(tmp_path))
    rows = json.loads(muster("--cluster", file, "vm", "list", "--json").out)
    (twice,) = [row for row in rows if row["name"] == "twice"]
    assert twice["information"] == "RUNS ON TWO NODES: a, b"
    ran = muster("--cluster", file, "vm", "migrate", "twice", "--to", "b", "--json")
    assert ran.code == 1
    (row,) = json.loads(ran.out)
    assert row["result"] == "skipped"
    assert row["reason"].startswith("runs on two nodes at once (a, b)")


# --- folders ---------------------------------------------------------------------------------


def test_a_full_disk_under_the_log_costs_only_the_log(tmp_path: Path) -> None:
    uri = host(tmp_path / "a.xml", domain("plain", 9))
    ran = muster("--connect", uri, "--log-json", "/dev/full", "vm", "pause", "plain", "--json")
    assert (ran.code, json.loads(ran.out)[0]["result"]) == (0, "done")
    assert ran.err == "muster: the log cannot be written any more: [Errno 28] No space left on device\n"


def test_a_state_folder_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "h"
    home.mkdir()
    (home / "state").write_text("mine")
    monkeypatch.setenv("MUSTER_HOME", str(home))
    text = muster("--connect", "test:///default", "vm", "pause", "test").refused(2)
    assert text.startswith(f"The state folder {home / 'state'} cannot be used: ")
    assert (home / "state").read_text() == "mine"


def test_a_journal_of_a_newer_muster_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "h"))
    uri = host(tmp_path / "a.xml", domain("plain", 9))
    assert muster("--connect", uri, "vm", "pause", "plain").code == 0
    (journal,) = (tmp_path / "h" / "state").glob("*.journal")
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA user_version = 99")
    before = journal.read_bytes()
    text = muster("--connect", uri, "vm", "pause", "plain").refused(2)
    assert "was written by a newer Muster" in text
    assert journal.read_bytes() == before


def test_a_damaged_journal_is_kept_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "h"))
    uri = host(tmp_path / "a.xml", domain("plain", 9))
    assert muster("--connect", uri, "vm", "pause", "plain").code == 0
    (journal,) = (tmp_path / "h" / "state").glob("*.journal")
    journal.write_bytes(b"not a database" * 1000)
    ran = muster("--connect", uri, "vm", "pause", "plain", "--json")
    assert (ran.code, json.loads(ran.out)[0]["result"]) == (0, "done")
    assert "was damaged" in ran.err
    (kept,) = journal.parent.glob("*.journal.damaged-*")
    assert kept.read_bytes() == b"not a database" * 1000

"""Completion: scripts for three shells, and words that need no connection."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from manager.cli.completion import SHELLS, VARIABLE, harmless
from manager.cli.main import build
from tests.cli.support import EVIL, Cli, write_cluster


def complete(muster: Cli, *words: str) -> list[str]:
    """What a shell would offer for the last word."""
    found = ShellComplete(build(muster.app), {}, "muster", VARIABLE).get_completions(
        list(words[:-1]), words[-1]
    )
    return [item.value for item in found]


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(muster: Cli, shell: str, tmp_path: Path) -> None:
    ran = muster.bare("completion", shell)
    assert f"{VARIABLE}={shell}_complete" in ran.out
    assert ran.code == 0
    found = shutil.which(shell)
    if found is not None:  # where the shell is there, it understands its script
        script = tmp_path / "script"
        script.write_text(ran.out)
        subprocess.run([found, "-n", str(script)], check=True)


def test_commands_and_options(muster: Cli) -> None:
    assert complete(muster, "vm", "re") == ["restart", "resume", "reset"]
    assert complete(muster, "lab", "u") == ["up"]
    assert "--what-if" in complete(muster, "vm", "start", "--wh")
    assert complete(muster, "vm", "priority", "--set", "h") == ["high"]


def test_names_are_those_of_the_last_list(muster: Cli) -> None:
    here = ("--connect", "sim://n1/")
    assert complete(muster, *here, "vm", "start", "") == []
    muster("vm", "list")
    assert complete(muster, *here, "vm", "start", "web") == ["web-1", "web-10", "web-2"]
    assert complete(muster, *here, "vm", "start", "web-1", "web") == ["web-10", "web-2"]
    assert complete(muster, *here, "vm", "migrate", "--to", "") == ["n1", "n2", "n3"]
    assert EVIL not in complete(muster, *here, "vm", "show", "")


def test_only_words_that_no_shell_reads_as_more_than_a_word() -> None:
    evil = [
        "$(reboot)",
        "`reboot`",
        "a;reboot",
        "a b",
        "*",
        "-rf",
        "~root",
        "a'b",
        'a"b',
        "a\\b",
        "a&b",
        "#a",
        "",
    ]
    good = ["web-01", "Ünïcode_1", "fd00::7", "a.b@c", "10.0.0.1"]
    assert [word for word in [*good, *evil] if harmless(word)] == good


def test_columns(muster: Cli) -> None:
    assert complete(muster, "vm", "list", "--columns", "name,ow") == ["name,owner"]
    assert "name" not in complete(muster, "vm", "list", "--columns", "name,")


def test_clusters(muster: Cli, home: Path) -> None:
    write_cluster("alpha", home)
    assert "alpha" in complete(muster, "--cluster", "")
    assert complete(muster, "--cluster", "broken-name", "vm", "start", "") == []

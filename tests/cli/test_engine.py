"""``muster engine install|remove|status``, and what an engine refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.support import Cli, write_cluster

SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> "$FAKE/asked"
[ -e "$FAKE/broken" ] && { echo "Failed to connect to bus: No medium found" >&2; exit 1; }
wants="$XDG_CONFIG_HOME/systemd/user/default.target.wants"
case "$2" in
    enable) mkdir -p "$wants"; ln -s ../muster-engine@.service "$wants/$4" ;;
    disable) rm -f "$wants/$4" ;;
    is-active) if [ -e "$wants/$3" ]; then echo active; else echo inactive; exit 3; fi ;;
esac
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's units are; there is no systemctl."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("FAKE", str(tmp_path))
    (tmp_path / "bin").mkdir()
    return tmp_path / "config" / "systemd" / "user"


@pytest.fixture
def systemctl(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that does what is asked; gives the file in which that stands."""
    script = tmp_path / "bin" / "systemctl"
    script.write_text(SYSTEMCTL)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path / "asked"


def test_install_where_systemd_is(muster: Cli, home: Path, config: Path, systemctl: Path) -> None:
    write_cluster("lab-1", home)
    ran = muster.bare("--cluster", "lab-1", "engine", "install", "--json")
    unit = "muster-engine@lab\\x2d1.service"
    assert ran.code == 0
    assert ran.rows == [
        {
            "cluster": "lab-1",
            "owner": None,
            "engine": False,
            "file": None,
            "since": None,
            "unit": unit,
            "unit_file": str(config / "muster-engine@.service"),
            "enabled": True,
            "active": "active",
        }
    ]
    assert systemctl.read_text().splitlines() == [
        "--user daemon-reload",
        f"--user enable --now {unit}",
        f"--user is-active {unit}",
    ]
    assert f'Environment="MUSTER_HOME={home}"' in (config / "muster-engine@.service").read_text()
    assert "loginctl enable-linger " in ran.err
    ran = muster.bare("--cluster", "lab-1", "engine", "status")
    assert f"Service      {unit}: active, starts with your sessions" in ran.out


def test_a_file_that_is_not_configured_is_named_by_its_path(
    muster: Cli, tmp_path: Path, config: Path, systemctl: Path
) -> None:
    file = tmp_path / "my lab.toml"
    file.write_text('[[nodes]]\nname = "n1"\nuri = "test:///default"\n')
    ran = muster.bare("--cluster", str(file), "engine", "install", "--json")
    assert ran.rows[0]["unit"].endswith(r"my\x20lab.toml.service")


def test_install_without_systemd_says_what_to_run(muster: Cli, home: Path, config: Path) -> None:
    write_cluster("lab", home)
    ran = muster.bare("--cluster", "lab", "engine", "install", "--json")
    assert ran.code == 0
    assert (ran.rows[0]["enabled"], ran.rows[0]["active"]) == (False, None)
    assert (config / "muster-engine@.service").exists()
    assert "There is no systemctl here. Where there is, run:" in ran.err
    assert "systemctl --user enable --now muster-engine@lab.service" in ran.err


def test_a_systemd_that_does_not_answer(muster: Cli, home: Path, systemctl: Path, tmp_path: Path) -> None:
    write_cluster("lab", home)
    (tmp_path / "broken").touch()
    ran = muster.bare("--cluster", "lab", "engine", "install", "--json")
    assert ran.code == 1
    assert "systemctl --user daemon-reload: Failed to connect to bus: No medium found." in ran.err
    assert "Once that works, run:" in ran.err
    ran = muster.bare("--cluster", "lab", "engine", "remove", "--json")
    assert ran.code == 1
    assert ran.rows[0]["unit_file"] is not None  # else nobody could stop it any more


def test_remove_leaves_the_file_while_another_cluster_needs_it(
    muster: Cli, home: Path, config: Path, systemctl: Path
) -> None:
    for name in ("a", "b"):
        write_cluster(name, home)
        assert muster.bare("--cluster", name, "engine", "install").code == 0
    ran = muster.bare("--cluster", "a", "engine", "remove", "--json")
    assert (ran.code, ran.rows[0]["enabled"]) == (0, False)
    assert "stays: it is also that of muster-engine@b.service." in ran.err
    ran = muster.bare("--cluster", "b", "engine", "remove", "--json")
    assert (ran.code, ran.rows[0]["unit_file"]) == (0, None)
    assert not (config / "muster-engine@.service").exists()
    ran = muster.bare("--cluster", "b", "engine", "remove")
    assert ran.code == 0
    assert "no engine is installed" in ran.err
    assert "Service      not installed" in ran.out


def test_a_folder_that_cannot_be_written(
    muster: Cli, home: Path, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cluster("lab", home)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    ran = muster.bare("--cluster", "lab", "engine", "install", "--json")
    assert (ran.code, ran.out) == (1, "")
    assert "Nothing was installed." in ran.err


@pytest.mark.parametrize("words", [("--demo", "2x4"), ()])
def test_the_demo_has_no_engine(muster: Cli, words: tuple[str, ...]) -> None:
    ran = muster.bare(*words, "engine")
    assert (ran.code, ran.out) == (2, "")
    assert "An engine needs real hosts" in ran.err
    ran = muster.bare(*words, "engine", "install")
    assert (ran.code, ran.out) == (2, "")
    assert "A service needs a cluster file" in ran.err


def test_hosts_without_a_file_have_no_service(muster: Cli) -> None:
    ran = muster("engine", "install")
    assert (ran.code, ran.out) == (2, "")
    assert "A service needs a cluster file: give --cluster FILE|NAME." in ran.err


def test_several_clusters_and_none_is_named(muster: Cli, home: Path) -> None:
    for name in ("a", "b"):
        write_cluster(name, home)
    ran = muster.bare("engine", "status")
    assert ran.code == 2
    assert "Configured: a, b" in ran.err
    assert os.environ.get("MUSTER_CLUSTER") is None

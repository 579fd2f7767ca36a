"""Folders of one's own, and files that are whole."""

from __future__ import annotations

import os
import stat
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.errors import UserError
from manager.core.ids import ClusterId
from manager.store.paths import Paths, file_stem, private_folder, write_atomically


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_one_variable_moves_everything(tmp_path: Path) -> None:
    paths = Paths.of_user({"MUSTER_HOME": str(tmp_path / "m")})
    paths.prepare()
    paths.prepare()
    for folder in (paths.config, paths.state, paths.runtime, paths.cache):
        assert folder.parent == tmp_path / "m"
        assert mode(folder) == 0o700
    assert paths.clusters.parent == paths.config
    files = [paths.journal(ClusterId("a")), paths.lock(ClusterId("a")), paths.socket(ClusterId("a"))]
    assert [file.parent for file in files] == [paths.state, paths.state, paths.runtime]
    assert len({file.stem for file in files}) == 1


def test_without_it_the_platform_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, f"/h/{name}")
    paths = Paths.of_user({})
    assert paths.config == Path("/h/XDG_CONFIG_HOME/muster")
    assert paths.state == Path("/h/XDG_STATE_HOME/muster")
    assert paths.cache == Path("/h/XDG_CACHE_HOME/muster")


def test_the_runtime_folder_is_the_sessions_or_below_the_state(tmp_path: Path) -> None:
    assert Paths.of_user({"XDG_RUNTIME_DIR": str(tmp_path)}).runtime == tmp_path / "muster"
    without = Paths.of_user({"XDG_RUNTIME_DIR": str(tmp_path / "gone")})
    assert without.runtime == without.state / "run"


def test_a_folder_that_cannot_be_used_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"The state folder .*/x cannot be used: (Not a directory|File exists)"
    ):
        private_folder(tmp_path / "file" / "x", "state")
    with pytest.raises(UserError, match=r"The state folder .*file cannot be used: File exists"):
        private_folder(tmp_path / "file", "state")


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere: a read-only disk says this
    with pytest.raises(UserError, match=r"The cache folder .* it is not writable"):
        private_folder(tmp_path / "x", "cache")


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UserError, match="belongs to another user"):
        private_folder(tmp_path, "runtime")


def test_others_may_not_write_into_a_folder_that_was_open(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    private_folder(tmp_path, "state")
    assert mode(tmp_path) == 0o700


@given(st.text(), st.text())
def test_file_names_are_plain_short_and_never_meet(one: str, two: str) -> None:
    stem = file_stem(one)
    assert set(stem) <= set(string.ascii_letters + string.digits + "-_")
    assert 9 < len(stem) < 60
    assert (stem == file_stem(two)) == (one == two)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"old")
    assert mode(path) == 0o600

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"

"""One owner per journal, known by its pid, and gone with its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manager.store.lock import OwnershipLock

HOLDER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from manager.store.lock import OwnershipLock
print(OwnershipLock(Path(sys.argv[1])).try_take(), flush=True)
sys.stdin.read()
"""


def test_one_takes_it_and_another_is_told_who(tmp_path: Path) -> None:
    first, second = OwnershipLock(tmp_path / "x.lock"), OwnershipLock(tmp_path / "x.lock")
    assert second.owner_pid() is None
    assert first.try_take()
    assert first.try_take()  # it is ours already
    assert not second.try_take()
    assert second.owner_pid() == os.getpid()
    second.release()  # not held: changes nothing
    assert not second.try_take()
    first.release()
    assert not first.is_held
    assert second.owner_pid() is None
    assert second.try_take()
    second.release()


def test_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    lock = OwnershipLock(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(Path(__file__).parents[2])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not lock.try_take()
        assert lock.owner_pid() == holder.pid
        holder.kill()
    assert lock.try_take()
    assert lock.owner_pid() == os.getpid()
    lock.release()


def test_a_child_process_does_not_keep_it(tmp_path: Path) -> None:
    lock = OwnershipLock(tmp_path / "x.lock")
    assert lock.try_take()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        assert OwnershipLock(tmp_path / "x.lock").try_take()
        child.kill()


def test_what_stands_in_the_file_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("no pid\n" * 100)
    lock = OwnershipLock(tmp_path / "x.lock")
    assert lock.owner_pid() is None
    assert lock.try_take()
    assert lock.owner_pid() == os.getpid()
    lock.release()


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        OwnershipLock(tmp_path / "x.lock").try_take()
    assert not (tmp_path / "victim").exists()


def test_the_last_sign_of_life_outlives_the_one_that_showed_it_and_who_only_looks(tmp_path: Path) -> None:
    first, looking, last = (OwnershipLock(tmp_path / "x.lock") for _ in range(3))
    assert first.try_take()
    assert first.left_s is None
    first.live(1_000.5)
    first.live(2_000.5)
    first.release()
    assert looking.try_take()
    looking.release()
    assert last.try_take()
    assert last.left_s == 2_000.5
    last.release()
    last.live(3_000.0)  # not held: changes nothing
    assert first.try_take()
    assert first.left_s == 2_000.5
    first.release()

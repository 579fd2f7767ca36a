"""The window's state: small, whole, and never in the way."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.store.views import MAX_BYTES, FileViewStore

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(name=st.text(st.characters(codec="utf-8"), max_size=20), value=_json)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, name: str, value: object) -> None:
    folder = tmp_path_factory.mktemp("views") / "views"
    store = FileViewStore(folder)
    assert store.read(name) is None
    data = json.dumps(value).encode()
    store.write(name, data)
    assert store.read(name) == data
    (file,) = folder.iterdir()  # in the folder, whatever the name
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "data", [b"{", b"", b"\xff", b"[" * 100_000, b'"' + b"x" * MAX_BYTES + b'"'], ids=len
)
def test_a_broken_file_is_none_and_kept(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileViewStore(tmp_path)
    (tmp_path / "layout.json").write_bytes(data)
    assert store.read("layout") is None
    (kept,) = tmp_path.glob("layout.json.broken-*")
    assert kept.read_bytes() == data
    assert "layout.json" in caplog.text
    caplog.clear()
    assert store.read("layout") is None
    assert caplog.text == ""


def test_trouble_is_logged_not_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store = FileViewStore(tmp_path / "file")  # a file where the folder should be
    store.write("layout", b"{}")
    assert "cannot be written" in caplog.text
    assert store.read("layout") is None
    assert "cannot be read" in caplog.text

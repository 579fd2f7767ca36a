"""A user's views as they are stored, and as files for others."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.query.views import View, Views
from manager.services.saved_views import NAME, SavedViews, decode, encode, file_of, from_file, read_file
from manager.store.views import FileViewStore

MINE = View(
    id="own-1",
    name="Mine",
    kind=Kind.VM,
    query="is:running",
    columns=(("name", 120), ("owner", 0)),
    sort=(("owner", False), ("memory_mib", True)),
    group="owner",
)
VIEWS = st.builds(
    View,
    id=st.just(""),
    name=st.text(max_size=70),
    kind=st.sampled_from(Kind),
    query=st.text(max_size=40),
    columns=st.lists(st.tuples(st.text(max_size=9), st.integers(-5, 9999))).map(tuple),
    sort=st.lists(st.tuples(st.text(max_size=9), st.booleans())).map(tuple),
    group=st.text(max_size=9),
)


@pytest.fixture
def saved(tmp_path: Path) -> SavedViews:
    return SavedViews(FileViewStore(tmp_path))


@given(st.lists(VIEWS, max_size=5), st.none() | st.tuples(st.sampled_from(Kind), st.text(max_size=9)))
def test_what_is_written_is_read_whatever_is_in_it(views: list[View], start: tuple[Kind, str] | None) -> None:
    mine = Views.restored(views, start)
    assert decode(encode(mine)) == mine
    assert [replace(view, id="") for view in mine.own] == list(from_file(file_of(mine.own), "file"))


def test_two_programs_lose_nothing_of_each_other(tmp_path: Path) -> None:
    one, other = (SavedViews(FileViewStore(tmp_path)) for _ in range(2))
    one.change(lambda views: views.add(MINE)[0])
    other.change(lambda views: views.add(replace(MINE, name="Theirs"))[0])
    assert [view.name for view in one.read().own] == ["Mine", "Theirs"]


@pytest.mark.parametrize(
    "data",
    [b'{"muster_views": 1}', b"[]", b'{"muster_views": 1, "views": [{"name": 3}]}', b'{"muster_views": "x"}'],
)
def test_what_cannot_be_read_is_kept(
    saved: SavedViews, tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    FileViewStore(tmp_path).write(NAME, data)
    with caplog.at_level(logging.WARNING):
        saved.change(lambda views: views.add(MINE)[0])
    assert [view.name for view in saved.read().own] == ["Mine"]
    assert [path.read_bytes() for path in tmp_path.glob("*broken*")] == [data]
    assert "A copy is kept" in caplog.text


def test_what_is_no_json_is_kept_too(
    saved: SavedViews, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"{NAME}.json").write_bytes(b"{half")
    saved.change(lambda views: views.add(MINE)[0])
    assert [path.read_bytes() for path in tmp_path.iterdir() if "broken" in path.name] == [b"{half"]
    assert "kept as" in caplog.text


def test_what_a_newer_muster_wrote_is_left_as_it_is(saved: SavedViews, tmp_path: Path) -> None:
    data = msgspec.json.encode({"muster_views": 2, "views": [], "colour": "red"})
    store = FileViewStore(tmp_path)
    store.write(NAME, data)
    with pytest.raises(UserError, match=r"newer Muster \(version 2; this one reads up to 1\)"):
        saved.change(lambda views: views)
    assert store.read(NAME) == data
    with pytest.raises(UserError, match=r"v\.json: written by a newer"):
        from_file(data, "v.json")


def test_what_cannot_be_stored_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not saved"):
        SavedViews(FileViewStore(tmp_path / "file")).change(lambda views: views.add(MINE)[0])
    assert "cannot be written" in caplog.text


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_file(tmp_path / "none.json")
    (tmp_path / "large.json").write_bytes(b" " * (1 << 21))
    with pytest.raises(UserError, match="larger than 1 MiB"):
        read_file(tmp_path / "large.json")

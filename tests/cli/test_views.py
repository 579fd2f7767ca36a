"""``muster view``, and ``--view NAME`` on lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.support import Cli

ON_N1 = (
    "view",
    "save",
    "On n1",
    "--where",
    "owner:n1",
    "--columns",
    "name,status",
    "--sort",
    "-name",
    "--group-by",
    "status",
)


def own(muster: Cli, *more: str) -> list[str]:
    return [row["name"] for row in muster("view", "list", *more, "--json").rows if not row["built_in"]]


def test_a_view_is_what_the_list_shows(muster: Cli) -> None:
    assert muster(*ON_N1).code == 0
    as_view = muster("vm", "list", "--view", "on n1")
    by_hand = muster("vm", "list", *ON_N1[3:])
    assert as_view.code == 0
    assert (as_view.out, as_view.out == by_hand.out) == (by_hand.out, True)
    assert "web-10" in as_view.out
    narrowed = muster(
        "vm", "list", "--view", "On n1", "--where", "name:web-*", "--group-by", "owner", "--json"
    )
    assert [[row["name"] for row in group["rows"]] for group in narrowed.rows] == [
        ["web-10", "web-2", "web-1"]
    ]
    assert set(narrowed.rows[0]["rows"][0]) == {"name", "status"}
    sorted_up = muster("vm", "list", "--view", "On n1", "--sort", "name", "--columns", "name", "--json").rows
    names = [row["name"] for group in sorted_up for row in group["rows"]]
    assert sorted(names) == sorted(
        row["name"] for row in muster("vm", "list", "--where", "owner:n1", "--json").rows
    )


def test_what_comes_with_muster_needs_no_saving(muster: Cli) -> None:
    off = [row["name"] for row in muster("vm", "list", "--where", "not is:running", "--json").rows]
    running = [row["name"] for row in muster("vm", "list", "--view", "Running", "--json").rows]
    every = [row["name"] for row in muster("vm", "list", "--json").rows]
    assert running
    assert sorted(running + off) == sorted(every)
    assert [row["name"] for row in muster("node", "list", "--view", "Least memory free", "--json").rows]
    wrong = muster("vm", "list", "--view", "Runing")
    assert wrong.code == 2
    assert "There is no view 'Runing' of VMs. Did you mean Running?" in wrong.err


def test_views_are_shown_renamed_copied_moved_and_deleted(muster: Cli) -> None:
    for name in ("a", "b", "c"):
        assert muster("view", "save", name, "--where", "is:off").code == 0
    shown = muster("view", "show", "b", "--json").rows
    assert shown == [
        {
            "name": "b",
            "kind": "vm",
            "built_in": False,
            "start": False,
            "query": "is:off",
            "columns": [],
            "sort": [],
            "group_by": None,
        }
    ]
    assert muster("view", "rename", "b", "B 2").code == 0
    assert muster("view", "duplicate", "a").code == 0
    assert own(muster) == ["a", "a copy", "B 2", "c"]
    assert muster("view", "move", "c", "--before", "a copy").code == 0
    assert muster("view", "move", "a", "--after", "B 2").code == 0
    assert own(muster) == ["c", "a copy", "B 2", "a"]
    assert muster("view", "delete", "a copy", "--json").rows[0]["query"] == "is:off"
    assert muster("view", "save", "B 2", "--where", "is:paused").code == 0
    assert own(muster, "--kind", "vm") == ["c", "B 2", "a"]
    assert "is:paused" in muster("view", "show", "B 2").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("save", "x", "--where", "ownr:n1"), "VMs have no field ownr. Did you mean owner?\n"),
        (("save", "x", "--columns", "nam"), "columns: VMs have no field nam. Did you mean name"),
        (("save", "x", "--kind", "node", "--sort", "-cpuz"), "sort: nodes have no field cpuz. Did you mean"),
        (("save", "Running"), "There is a view 'Running' of VMs already."),
        (("save", "a\x1b[2J"), "printable characters, not 'a\\x1b[2J'"),
        (("delete", "Running"), "comes with Muster"),
        (("show", "All"), "say which with --kind"),
        (("move", "mine"), "Give either --before NAME or --after NAME."),
        (("move", "mine", "--after", "min"), "Did you mean mine?"),
        (("export", "none"), "There is no view 'none'."),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(muster: Cli, words: tuple[str, ...], says: str) -> None:
    muster("view", "save", "mine")
    before = muster("view", "list", "--json").out
    ran = muster("view", *words)
    assert ran.code == 2
    assert says in ran.err
    assert muster("view", "list", "--json").out == before


def test_a_view_goes_to_somebody_else_as_a_file(muster: Cli, tmp_path: Path) -> None:
    muster(*ON_N1)
    file = tmp_path / "on-n1.json"
    assert muster("view", "export", "On n1", str(file)).code == 0
    assert muster("view", "export", "On n1").out == file.read_text()
    assert muster("view", "import", str(file), "--json").rows[0]["name"] == "On n1 2"
    first, second = (muster("view", "show", name, "--json").rows[0] for name in ("On n1", "On n1 2"))
    assert {**first, "name": ""} == {**second, "name": ""}
    content = json.loads(file.read_text())
    for wrong, says in (
        ({**content, "muster_views": 9}, "newer Muster"),
        ({"views": []}, "not views that Muster can read"),
        (
            {**content, "views": [*content["views"], {**content["views"][0], "query": "("}]},
            "Nothing was imported.",
        ),
    ):
        file.write_text(json.dumps(wrong))
        ran = muster("view", "import", str(file))
        assert ran.code == 2
        assert f"{file}: " in ran.err
        assert says in ran.err
    assert own(muster) == ["On n1", "On n1 2"]

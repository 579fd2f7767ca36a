"""What the pages say is what the program does; nothing in them leads nowhere."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from manager.core.model import (
    ClusterConfig,
    Convergence,
    MigrationLimits,
    NodeConfig,
    PlacementPolicy,
    WorkLimits,
)
from manager.store import cluster_files
from manager.store.cluster_files import read_cluster_file
from tests.architecture.states import DIAGRAMS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CLUSTER_FILE = ROOT / "docs" / "cluster-file.md"


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decision_is_in_the_index_and_says_what_it_must() -> None:
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"\| \[(\d{4})\]\((\S+)\) \| (.*) \|", (folder / "README.md").read_text())
    pages = sorted(folder.glob("0*.md"))
    assert [file for _, file, _ in listed] == [page.name for page in pages]
    for (number, _, title), page in zip(listed, pages, strict=True):
        text = page.read_text()
        assert text.startswith(f"# {number} {title}\n")
        parts = re.findall(r"^\*\*(.*?)\.\*\*", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "What would change our mind"]


def tables() -> dict[str, dict[str, tuple[str, str]]]:
    """Section -> key -> (allowed, default), as the page about cluster files has them."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for section in re.split(r"^##+ ", CLUSTER_FILE.read_text(), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", section, re.MULTILINE)
        if rows:
            name = re.search(r"\[([\w.]+)\]", section.splitlines()[0])
            found[name[1] if name else ""] = {key: (allowed, default) for key, allowed, default in rows}
    return found


SECTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "": (cluster_files._ROOT, ClusterConfig(name="")),
    "nodes": (cluster_files._NODE, NodeConfig(name="", uri="")),  # type: ignore[arg-type]
    "migration": (cluster_files._MIGRATION, MigrationLimits()),
    "migration.convergence": (cluster_files._CONVERGENCE, Convergence()),
    "work": (cluster_files._WORK, WorkLimits()),
    "storage": (cluster_files._STORAGE, ClusterConfig(name="")),
    "placement": (cluster_files._PLACEMENT, PlacementPolicy()),
}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_about_cluster_files_has_every_key_range_and_default(section: str) -> None:
    checks, defaults = SECTIONS[section]
    rows = tables()[section]
    assert sorted(rows) == sorted(checks)
    for key, (allowed, default) in rows.items():
        limits = re.match(r"(\d[\d.]*) to (\d+)", allowed)
        if limits and not allowed.startswith(("1 to 64 print", "1 to 128", "1 to 16")):
            low, high = (float(each) if "." in each else int(each) for each in limits.groups())
            checks[key](low)
            checks[key](high)
            for outside in (low - 1, high + 1):
                with pytest.raises(cluster_files._Refused):
                    checks[key](outside)
        if key in {field.name for field in dataclasses.fields(defaults)}:
            value = getattr(defaults, key)
            if literal := re.fullmatch(r"`(.*)`|([\d.]+|true|false)", default):
                assert json.loads(literal[1] or literal[2]) == (
                    list(value) if isinstance(value, tuple) else value
                )
            else:
                assert not value, key


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", CLUSTER_FILE], ids=ids([ROOT / "README.md", CLUSTER_FILE])
)
def test_the_examples_are_cluster_files(page: Path, tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    assert examples
    for example in examples:
        (tmp_path / "example.toml").write_text(example)
        assert len(read_cluster_file(tmp_path / "example.toml").nodes) == 2


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_diagrams_of_states_are_drawn_from_the_tables(name: str) -> None:
    page = ROOT / "docs" / "states" / name
    assert page.read_text() == DIAGRAMS[name](), "run: .venv/bin/python -m tests.architecture.states"


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    pinned = (ROOT / "packaging" / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)
    assert {plain(each) for each in wanted} <= {plain(line) for line in pinned}


def plain(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


FILES = [
    path
    for folder in ("manager", "packaging", "docs", "resources", ".ci")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
] + [ROOT / "README.md", ROOT / "pyproject.toml", ROOT / ".pre-commit-config.yaml"]


def test_no_file_names_a_registry_or_somebodys_folder() -> None:
    forbidden = re.compile(rb"pypi\.|index-url|/wo" + rb"rk/|/home/(?!adm/|a/)")
    assert [str(path) for path in FILES if forbidden.search(path.read_bytes())] == []

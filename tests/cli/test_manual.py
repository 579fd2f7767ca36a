"""The manual is what ``muster manual docs`` writes today."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from manager import bootstrap
from manager.cli.main import build
from manager.cli.manual import pages
from manager.core.actions import ACTIONS
from manager.core.ids import Kind
from manager.core.query.fields import FIELDS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def root() -> click.Group:
    from manager.cli.app import App

    return build(
        App(
            adapters=bootstrap.adapters,
            run_window=bootstrap.run_window,
            lab_group=bootstrap.lab_group,
            units=bootstrap.user_units,
            version="",
        )
    )


def test_no_page_is_stale(root: click.Group) -> None:
    wanted = pages(root)
    found = {name: (DOCS / name).read_text() for name in wanted if (DOCS / name).exists()}
    assert found == wanted, "run: muster manual docs"
    assert {path.name for path in (DOCS / "manual").iterdir()} == {
        Path(name).name for name in wanted if name.startswith("manual/")
    }


def test_every_action_and_field_is_in_it(root: click.Group) -> None:
    made = pages(root)
    for spec in ACTIONS.values():
        page = made[f"manual/{spec.target.value}.md"]
        assert f"## muster {spec.target.value} {spec.command.partition(' --')[0]}\n" in page
        assert spec.doc in page
    for kind in (Kind.VM, Kind.NODE, Kind.OPERATION):
        for field in FIELDS[kind].values():
            assert f"| `{field.name}`" in made["manual/fields.md"]


def test_every_option_is_explained(root: click.Group) -> None:
    def walk(command: click.Command, path: str) -> list[str]:
        missing = [
            f"{path} {param.opts[0]}"
            for param in command.params
            if isinstance(param, click.Option) and not param.help
        ]
        if isinstance(command, click.Group):
            ctx = click.Context(command)
            for name in command.list_commands(ctx):
                below = command.get_command(ctx, name)
                assert below is not None
                missing += walk(below, f"{path} {name}")
        return missing

    assert walk(root, "muster") == []

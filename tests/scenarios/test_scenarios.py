"""Every scenario folder, played: what it states must be so, and its log must be the expected one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.runner import Scenario, without_chance

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/script.toml"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
async def test_scenario(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    without_chance(monkeypatch)
    scenario = Scenario(folder)
    try:
        await scenario.play()
        scenario.check()
    finally:
        await scenario.close()
    log = "\n".join(scenario.log.lines) + "\n"
    expected = folder / "expected.log"
    if request.config.getoption("--update-logs", default=False):
        expected.write_text(log)
    assert log == expected.read_text()


def test_every_folder_says_what_it_is_about() -> None:
    assert FOLDERS
    for folder in FOLDERS:
        assert (folder / "README.md").read_text().startswith("# "), folder.name

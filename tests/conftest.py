"""What holds for all tests: fixed samples, nobody's own folders, and a count that cannot be talked down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same sample on every run: a failure that nobody can repeat helps nobody. New ones are looked for with
# `--hypothesis-profile search`.
settings.register_profile(
    "fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("fixed")

LAB = "tests/lab/"
FOR_GOOD = {"libvirt events"}
"""Threads that there are once per process, from their first use to its end."""
MINIMUM = Path(__file__).parent / "lab" / "MINIMUM"
"""How many lab tests there are at least: fewer means that some were lost, not that all passed."""


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or touches the folders and clusters of whoever runs it."""
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MUSTER_CLUSTER", raising=False)


@pytest.fixture(autouse=True)
def _nothing_unexpected_in_the_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """A record of WARNING or above fails the test, unless the test looks at the log itself (`caplog`)."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    listener = Listener(logging.WARNING)
    logging.getLogger().addHandler(listener)
    yield
    logging.getLogger().removeHandler(listener)
    if "caplog" not in request.fixturenames:
        assert heard == [], "unexpected log records"


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    """Threads that a test began end with it, or a moment later."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    left = [each for each in threading.enumerate() if each not in before and each.name not in FOR_GOOD]
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert [thread.name for thread in left if thread.is_alive()] == [], "threads left behind"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of ``packaging/test``."""
    parser.addoption(
        "--complete",
        action="store_true",
        help="fail if a test is skipped, deselected or expected to fail, or if too few lab tests run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Count."""
    complete, least = config.getoption("complete"), int(MINIMUM.read_text())
    asked = config.args_source is not pytest.Config.ArgsSource.ARGS  # not for some folders only
    config.pluginmanager.register(Count(complete=complete, least=least if asked else 0), "count")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The lab comes last: its guests cost time for as long as it is up."""
    items.sort(key=lambda item: item.nodeid.startswith(LAB))


class Count:
    """Counts lab tests that really ran, and says what was left out."""

    def __init__(self, *, complete: bool, least: int) -> None:
        self._complete = complete
        self._least = least
        self._lab: set[str] = set()
        self._left_out: list[str] = []
        self._collected_all = False

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._left_out += [f"deselected: {item.nodeid}" for item in items]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._left_out.append(f"skipped: {report.nodeid}: {_why(report)}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "wasxfail"):
            self._left_out.append(f"expected to fail: {report.nodeid}")
        elif report.skipped:
            self._left_out.append(f"skipped: {report.nodeid}: {_why(report)}")
        elif report.when == "call" and report.nodeid.startswith(LAB):
            self._lab.add(report.nodeid)

    def _complaints(self) -> list[str]:
        found = list(self._left_out)
        if len(self._lab) < self._least:
            found.append(f"only {len(self._lab)} lab tests ran; there are at least {self._least}")
        return found

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Runs before the terminal's own, which closes with the exit status."""
        if self._complete and session.exitstatus == pytest.ExitCode.OK and self._complaints():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> Generator[None, None, None]:
        """As the last thing above the closing line."""
        yield
        if self._complete:
            for complaint in self._complaints():
                terminalreporter.write_line(f"NOT COMPLETE: {complaint}", red=True)
        terminalreporter.write_line(f"lab tests run: {len(self._lab)}")


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)

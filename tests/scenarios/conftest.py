"""The option that rewrites the scenarios' logs; the difference is to be read before it is kept."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/scenarios --update-logs`."""
    parser.addoption("--update-logs", action="store_true", help="write expected.log of every scenario anew")

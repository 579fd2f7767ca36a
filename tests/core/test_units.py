"""Figures as people read them."""

from __future__ import annotations

import pytest

from manager.core import units


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (512 * units.MIB, "512 MiB"),
        (8 * units.GIB, "8 GiB"),
        (8.25 * units.GIB, "8.2 GiB"),
        (1024 * units.GIB, "1 TiB"),
        (5000 * 1024 * units.GIB, "5000 TiB"),
    ],
)
def test_sizes(size: float, text: str) -> None:
    assert units.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (41 * 86400 + 3 * 3600, "41 d 3 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert units.duration_text(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (40, "0:40"), (725, "12:05"), (3723, "1:02:03")])
def test_stop_watch(seconds: float, text: str) -> None:
    assert units.clock_text(seconds) == text


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (0, "next in line"),
        (1, "2nd in line"),
        (2, "3rd in line"),
        (3, "4th in line"),
        (10, "11th in line"),
        (11, "12th in line"),
        (12, "13th in line"),
        (20, "21st in line"),
        (99, "100th in line"),
        (100, "over 100 before it in line"),
    ],
)
def test_places_in_line(ahead: int, text: str) -> None:
    assert units.line_text(ahead) == text


def test_moments() -> None:
    assert units.iso_text(0.5) == "1970-01-01T00:00:00.500+00:00"
    assert len(units.time_text(1_700_000_000.0)) == len("03:02:11")


def test_counts() -> None:
    assert units.count_text(1, "VM") == "1 VM"
    assert units.count_text(0, "VM") == "0 VMs"
    assert units.count_text(2, "copy", "copies") == "2 copies"


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(50, "50 ms"), (999, "999 ms"), (1000, "1 s"), (1500, "1.5 s"), (5000, "5 s")]
)
def test_pauses(milliseconds: float, text: str) -> None:
    assert units.pause_text(milliseconds) == text


def test_rates_and_how_far_a_guest_is_slowed() -> None:
    assert units.rate_text(310 * units.MIB) == "310 MiB/s"
    assert units.slowing_text(-1) == ""
    assert units.slowing_text(0) == "now: begins to slow the guest; "
    assert units.slowing_text(30) == "now: slows the guest by 30 %; "

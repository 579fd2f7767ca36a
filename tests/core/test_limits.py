"""Limits that are changed while the queue runs, and what a move may send by them."""

from __future__ import annotations

from typing import Any

import pytest

from manager.core import events as ev
from manager.core.migration.limits import LIMITS, cap_text, changed, limit_of
from manager.core.model import ClusterConfig, MigrationLimits, WorkLimits
from tests.core.support import Cluster, cluster_config

FILE = ClusterConfig(
    name="x", migration=MigrationLimits(outgoing_per_node=3), work=WorkLimits(saves_per_node=5)
)


def test_each_limit_is_found_by_its_name() -> None:
    assert {name: limit_of(FILE, name) for name in LIMITS} == {
        "outgoing_per_node": 3,
        "incoming_per_node": 2,
        "cluster_limit": 0,
        "bandwidth_mib_s": 0,
        "node_bandwidth_mib_s": 0,
        "starts_per_node": 4,
        "starts_per_cluster": 16,
        "saves_per_node": 5,
    }


def test_what_is_as_in_the_file_is_not_changed() -> None:
    limits = (("saves_per_node", 1), ("outgoing_per_node", 4), ("saves_per_node", 5))
    assert changed(FILE, limits) == (("outgoing_per_node", 4),)


def test_what_a_newer_program_set_is_left_out() -> None:
    assert changed(FILE, (("colour", 3), ("outgoing_per_node", 0), ("saves_per_node", 6))) == (
        ("saves_per_node", 6),
    )


def test_a_limit_that_is_set_back_is_the_files_again() -> None:
    cluster = Cluster(cluster_config(2))
    cluster.steer(ev.QueueVerb.LIMITS, limits=(("outgoing_per_node", 4), ("saves_per_node", 1)))
    assert dict(cluster.state.orders.limits) == {"outgoing_per_node": 4, "saves_per_node": 1}
    assert cluster.state.config.migration.outgoing_per_node == 4
    cluster.steer(ev.QueueVerb.LIMITS, limits=(("outgoing_per_node", 2),))
    assert dict(cluster.state.orders.limits) == {"saves_per_node": 1}
    assert cluster.state.config.migration.outgoing_per_node == 2


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({}, "100 MiB/s each, as no migration network is named"),
        ({"networks": ("10.0.0.0/8",)}, ""),
        ({"bandwidth_mib_s": 50}, "50 MiB/s each"),
        ({"node_bandwidth_mib_s": 50}, "25 MiB/s each"),
    ],
)
def test_a_cap_that_nobody_chose_says_so(limits: dict[str, Any], text: str) -> None:
    assert cap_text(MigrationLimits(**limits)) == text

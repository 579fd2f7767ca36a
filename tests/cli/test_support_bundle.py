"""``muster support-bundle``: what it holds, what it must not hold, and that it overwrites nothing."""

from __future__ import annotations

import json
import stat
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manager.core.model import Disk, NodeConfig, StatusCause, VmStatus
from manager.services.support_bundle import without_secrets
from tests.cli.support import Cli
from tests.cli.together import Together

SECRETS = ("hunter2", "carol", "ipmi", "keyring-entry")


def read(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as tar:
        found = {}
        for member in tar.getmembers():
            assert (member.uname, member.uid) == ("", 0)
            file = tar.extractfile(member)
            assert file is not None
            text = file.read().decode()
            name = member.name.rpartition("/")[2]
            found[name] = json.loads(text) if name.endswith(".json") else text
        return found


def test_it_holds_what_is_needed_and_lists_it(muster: Cli, tmp_path: Path) -> None:
    muster.world.kill(muster.vm("db-1"), VmStatus.CRASHED, StatusCause.CRASHED)
    path = tmp_path / "b.tar.gz"
    ran = muster("support-bundle", "--output", str(path))
    assert ran.code == 0, ran.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    held = read(path)
    assert set(held) == {
        "README.txt",
        "versions.json",
        "cluster.json",
        "inventory.json",
        "operations.json",
        "events.json",
        "problems.json",
        "log.txt",
    }
    for name in held:
        assert name in ran.out
    assert held["versions.json"]["muster"] == "1.2.3"
    assert {node["name"] for node in held["inventory.json"]["nodes"]} == {"n1", "n2", "n3"}
    vm = next(vm for vm in held["inventory.json"]["vms"] if vm["name"] == "web-1")
    assert vm["definition"]["memory_mib"] == 1024
    assert held["problems.json"][0]["subject"] == "VM db-1"
    before = path.read_bytes()
    again = muster("support-bundle", "--output", str(path))
    assert again.code == 2
    assert "exists already" in again.err
    assert path.read_bytes() == before


async def test_events_and_operations_of_the_owner_since_then(beside: Together, tmp_path: Path) -> None:
    owner = await beside.owner()
    from tests.cli.test_events import LONG, start_off

    await start_off(owner)
    path = tmp_path / "b.tar.gz"
    ran = await beside("support-bundle", *LONG, "--output", str(path), "--json")
    assert ran.code == 0, ran.err
    assert ran.rows[0]["bundle"] == str(path)
    held = read(path)
    assert "Done: start web-1" in [row["text"] for row in held["events.json"]]
    assert {o["action"] for o in held["operations.json"]} >= {"vm.start", "vm.turn_off"}


def test_no_secret_is_in_it(muster: Cli, tmp_path: Path) -> None:
    nodes = tuple(
        NodeConfig(
            name=node.name,
            uri=f"sim://carol:hunter2@{node.name}/",
            peer_uri=f"qemu+ssh://carol@{node.name}/system",
            ssh="carol@n1",
            bmc="ipmi://carol:hunter2@10.0.0.1",
            credentials="keyring-entry",
        )
        for node in muster.config.nodes
    )
    muster.config = replace(muster.config, nodes=nodes)
    vm = muster.vm("web-1")
    disk = Disk(target="vdb", source="nbd://carol:hunter2@host/export", kind="network")
    vm.config = replace(vm.config, disks=(disk,), trouble="password='hunter2' is not known")
    path = tmp_path / "b.tar.gz"
    assert muster("support-bundle", "--output", str(path)).code == 0
    held = json.dumps(read(path))
    assert "nbd://host/export" in held
    for secret in SECRETS:
        assert secret not in held, secret


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("qemu+ssh://root@n1/system", "qemu+ssh://n1/system"),
        ("tcp://a:b@[::1]:5/x and ssh://c@d", "tcp://[::1]:5/x and ssh://d"),
        ("adm@pc asked", "adm@pc asked"),
        ("password: x1 next", "password: *** next"),
        ("passwd='x 1', n", "passwd=***, n"),
        ('{"token": "abc", "n": 1}', '{"token": ***, "n": 1}'),
        ("the secret of it", "the secret of it"),
    ],
)
def test_what_is_taken_out_of_a_text(text: str, clean: str) -> None:
    assert without_secrets(text) == clean

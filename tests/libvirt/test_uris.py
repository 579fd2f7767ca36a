"""What URIs say."""

from __future__ import annotations

import pytest

from manager.backends.libvirt.uris import as_opened, migration_uri, parsed, peer_uri_of
from manager.core.ids import NodeId
from manager.core.model import NodeConfig


def node(uri: str, peer_uri: str | None = None, *addresses: str) -> NodeConfig:
    return NodeConfig(name=NodeId("n1"), uri=uri, peer_uri=peer_uri, addresses=addresses)


@pytest.mark.parametrize(
    ("uri", "transport", "user", "host", "port"),
    [
        ("qemu:///system", "", "", "", None),
        ("qemu+ssh://root@n1/system", "ssh", "root", "n1", 22),
        ("qemu+ssh://n1:2222/system", "ssh", "", "n1", 2222),
        ("qemu://n1/system", "tls", "", "n1", 16514),
        ("qemu+tcp://[fe80::1]/system", "tcp", "", "fe80::1", 16509),
        ("qemu+unix:///system?socket=/x", "unix", "", "", None),
        ("::bad[", "", "", "", None),
        ("qemu://n1:port/system", "", "", "", None),
    ],
)
def test_parts(uri: str, transport: str, user: str, host: str, port: int | None) -> None:
    parts = parsed(uri)
    assert (parts.transport, parts.user, parts.host, parts.port) == (transport, user, host, port)


def test_only_the_local_test_driver_is_a_world_of_its_own() -> None:
    assert parsed("test:///default").is_test
    assert parsed("test:///srv/n1.xml").is_test
    assert not parsed("test+ssh://n1/default").is_test
    assert not parsed("qemu:///system").is_test


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("qemu+ssh://n1/system", "qemu+ssh://n1/system?no_tty=1"),
        ("qemu+ssh://n1/system?keyfile=/k", "qemu+ssh://n1/system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://n1/system?no_tty=0", "qemu+ssh://n1/system?no_tty=0"),
        ("qemu+tls://n1/system", "qemu+tls://n1/system"),
        ("test:///default", "test:///default"),
    ],
)
def test_ssh_never_asks_on_a_terminal(uri: str, opened: str) -> None:
    assert as_opened(uri) == opened


@pytest.mark.parametrize(
    ("config", "peer"),
    [
        (node("qemu+ssh://root@n1/system"), "qemu+ssh://root@n1/system"),
        (node("qemu+tls://n1/system?no_verify=1"), "qemu+tls://n1/system?no_verify=1"),
        (node("qemu+ssh://n1/system?keyfile=/home/me/k"), None),
        (node("qemu+tls://n1/system?pkipath=/home/me/pki"), None),
        (node("qemu:///system"), None),
        (node("qemu+unix:///system?socket=/x"), None),
        (node("qemu+tcp://localhost/system"), None),
        (node("test:///default"), None),
        (node("qemu:///system", "qemu+tls://n1/system"), "qemu+tls://n1/system"),
    ],
)
def test_how_other_nodes_reach_it(config: NodeConfig, peer: str | None) -> None:
    assert peer_uri_of(config) == peer


def test_where_the_memory_goes() -> None:
    assert migration_uri("10.0.0.1") == "tcp://10.0.0.1"
    assert migration_uri("fd00::7") == "tcp://[fd00::7]"

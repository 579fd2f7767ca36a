"""What a libvirt URI says: how the host is reached, and whether other hosts could use it too."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from manager.core.model import NodeConfig

DEFAULT_PORTS = {"ssh": 22, "libssh": 22, "libssh2": 22, "tls": 16514, "tcp": 16509}
SSH_TRANSPORTS = frozenset({"ssh", "libssh", "libssh2"})
_LOCAL_PARAMETERS = frozenset(
    {"socket", "keyfile", "pkipath", "command", "netcat", "known_hosts", "sshauth", "tls_priority", "mode"}
)
"""Parameters that name a file of this computer, or speak of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUri:
    """The parts of a URI that we need. Source: libvirt uri.html."""

    driver: str
    transport: str  # "" for a local connection
    user: str
    host: str
    port: int | None
    parameters: tuple[tuple[str, str], ...]

    @property
    def is_ssh(self) -> bool:
        """Whether ssh carries the connection."""
        return self.transport in SSH_TRANSPORTS

    @property
    def is_test(self) -> bool:
        """libvirt's test driver: every open of one is a world of its own."""
        return self.driver == "test" and not self.host


def parsed(uri: str) -> HostUri:
    """A URI's parts; one that cannot be parsed gives empty ones and libvirt will say what is wrong."""
    try:
        parts = urlsplit(uri)
        driver, _, transport = parts.scheme.partition("+")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return HostUri(driver="", transport="", user="", host="", port=None, parameters=())
    if host and not transport:
        transport = "tls"  # libvirt's default for a remote host
    return HostUri(
        driver=driver,
        transport=transport,
        user=parts.username or "",
        host=host,
        port=port or DEFAULT_PORTS.get(transport),
        parameters=tuple(parse_qsl(parts.query, keep_blank_values=True)),
    )


def as_opened(uri: str) -> str:
    """The URI as we open it: ssh must not ask for a password on a terminal that may not be there."""
    parts = parsed(uri)
    if parts.transport != "ssh" or any(name == "no_tty" for name, _ in parts.parameters):
        return uri
    return f"{uri}{'&' if parts.parameters else '?'}no_tty=1"


def peer_uri_of(node: NodeConfig) -> str | None:
    """How the other nodes reach a node, or None if that has to be configured.

    The node's own URI serves if it names a host and no file or socket of this computer.
    """
    if node.peer_uri:
        return node.peer_uri
    parts = parsed(node.uri)
    if not parts.host or parts.transport in ("unix", "ext"):
        return None
    if parts.host in ("localhost", "127.0.0.1", "::1"):
        return None
    if any(name in _LOCAL_PARAMETERS for name, _ in parts.parameters):
        return None
    return node.uri


def migration_uri(address: str) -> str:
    """Where the memory goes. Source: libvirt VIR_MIGRATE_PARAM_URI."""
    return f"tcp://[{address}]" if ":" in address else f"tcp://{address}"

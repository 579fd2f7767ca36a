"""Cluster files: read, checked to the last key, and written back without touching the user's comments.

The format is described in ``docs/cluster-file.md``. Everything wrong with a file is one `UserError` that
names file, line, key, value and what is allowed.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import logging
import re
import time
import tomllib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import tomlkit
from tomlkit.items import AoT

from manager.core.errors import UserError
from manager.core.ids import NodeId
from manager.core.model import (
    ClusterConfig,
    Convergence,
    MigrationLimits,
    NodeConfig,
    PlacementPolicy,
    RetryPolicy,
    Tier,
    WorkLimits,
)
from manager.services.ports import ConfiguredCluster
from manager.store.paths import file_stem, private_folder, set_aside, write_atomically

_log = logging.getLogger(__name__)

FORMAT = 1
MAX_BYTES = 1 << 20
MAX_NODES = 64

_LOCAL_PARAMETERS = frozenset(
    {"socket", "keyfile", "pkipath", "command", "netcat", "known_hosts", "sshauth", "tls_priority", "mode"}
)
"""URI parameters that name a file of this computer, or speak of it."""

_Path = tuple[str | int, ...]


class _Refused(Exception):
    """What one value needs instead."""


class _Trouble(Exception):
    """What is wrong, and at which key."""

    def __init__(self, path: _Path, text: str) -> None:
        super().__init__(text)
        self.path = path


# --- what each key may be --------------------------------------------------------------------

_Check = Callable[[Any], Any]


def _whole(low: int, high: int) -> _Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Refused(f"a whole number from {low} to {high}")
        return value

    return check


def _number(low: float, high: float) -> _Check:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _Refused(f"a number from {low:g} to {high:g}")
        return float(value)

    return check


def _yes_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Refused("true or false")
    return value


def _text(needs: str, pattern: str) -> _Check:
    expression = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str) or not expression.fullmatch(value) or not value.isprintable():
            raise _Refused(needs)
        return value

    return check


def _list(of: _Check, needs: str, most: int) -> _Check:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Refused(f"a list of {needs}")
        if len(value) > most:
            raise _Refused(f"a list of at most {most} {needs}")
        found = tuple(of(each) for each in value)
        if len(set(found)) < len(found):
            raise _Refused(f"a list of {needs}, each only once")
        return found

    return check


def _network(value: Any) -> str:
    needs = 'a network such as "10.20.0.0/24"'
    if not isinstance(value, str) or "/" not in value:
        raise _Refused(needs)
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        pass
    try:
        wide = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise _Refused(needs) from None
    raise _Refused(f'{needs}; did you mean "{wide}"')


def _address(value: Any) -> str:
    try:
        if isinstance(value, str):
            return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    raise _Refused('an IP address such as "10.20.0.7"')


def _shared_path(value: Any) -> str:
    if (
        not isinstance(value, str)
        or not value.isprintable()
        or not value.startswith("/")
        or ".." in PurePosixPath(value).parts
        or not value.strip("/")  # the whole host is never shared
    ):
        raise _Refused('an absolute path below / such as "/srv/vms"')
    return "/" + str(PurePosixPath(value)).lstrip("/")


def _pause_steps(value: Any) -> tuple[int, ...]:
    steps: tuple[int, ...] = _list(_whole(1, 60_000), "whole numbers from 1 to 60000 (ms)", 16)(value)
    if not steps or list(steps) != sorted(steps):
        raise _Refused("a list of 1 to 16 rising whole numbers from 1 to 60000 (ms)")
    return steps


def _uri(value: Any) -> str:
    needs = 'a libvirt URI such as "qemu+ssh://root@n1/system"'
    if not isinstance(value, str) or not value.isprintable() or re.search(r"\s", value) or len(value) > 1024:
        raise _Refused(needs)
    try:
        parts = urlsplit(value)
        host, _port, password = parts.hostname, parts.port, parts.password
    except ValueError as error:
        raise _Refused(f"{needs} ({error})") from None
    if password is not None:
        raise _Refused("a URI without a password: passwords belong in the key ring")
    # Any driver and transport: a newer libvirt may know more of them than we do.
    if not re.match(r"[a-z][a-z0-9.-]*(\+[a-z0-9]+)?://", value) or not (host or parts.path):
        raise _Refused(needs)
    return value


def _without_password(value: Any) -> str:
    text: str = _text("one line of text", r".{1,1024}")(value)
    if re.search(r"://[^/@]*:[^/@]*@", text):
        raise _Refused("an address without a password: passwords belong in the key ring")
    return text


_name = _text("a name of 1 to 64 printable characters", r"\S(.{0,62}\S)?")
_node_name = _text("a name of 1 to 128 characters without spaces, commas and quotes", r"[^\s,\"'*]{1,128}")

_ROOT: dict[str, _Check] = {
    "format": _whole(1, 1_000_000),
    "name": _name,
    "colour": _text('a colour such as "#7a5cff"', r"#[0-9A-Fa-f]{6}"),
    "read_only": _yes_no,
}
_NODE: dict[str, _Check] = {
    "name": _node_name,
    "uri": _uri,
    "peer_uri": _uri,
    "addresses": _list(_address, "IP addresses", 16),
    "ssh": _text('a login such as "root@n1"', r"([^\s@:/-][^\s@:/]*@)?[^\s@/-][^\s@/]*"),
    "bmc": _without_password,
    "credentials": _text("the name of an entry in the key ring", r".{1,128}"),
}
_MIGRATION: dict[str, _Check] = {
    "outgoing_per_node": _whole(1, 64),
    "incoming_per_node": _whole(1, 64),
    "cluster_limit": _whole(0, 4096),
    "bandwidth_mib_s": _whole(0, 1_000_000),
    "node_bandwidth_mib_s": _whole(0, 1_000_000),
    "networks": _list(_network, "networks", 16),
    "parallel_connections": _whole(0, 64),
    "encrypt": _yes_no,
}
_CONVERGENCE: dict[str, _Check] = {
    "pause_steps_ms": _pause_steps,
    "auto_converge": _yes_no,
    "auto_converge_initial_percent": _whole(1, 99),
    "auto_converge_max_percent": _whole(1, 99),
    "post_copy": _yes_no,
    "time_out_s": _whole(0, 604_800),
}
_RETRY: dict[str, _Check] = {
    "times": _whole(0, 20),
    "first_s": _number(0.1, 3600),
    "target_failures": _whole(1, 1000),
    "batch_failures": _whole(1, 1000),
    "batch_percent": _whole(1, 100),
}
_WORK: dict[str, _Check] = {
    "starts_per_node": _whole(1, 64),
    "starts_per_cluster": _whole(1, 1024),
    "saves_per_node": _whole(1, 64),
}
_STORAGE: dict[str, _Check] = {"shared_paths": _list(_shared_path, "absolute paths", 64)}
_PLACEMENT: dict[str, _Check] = {
    "cpu_overcommit": _number(0.1, 100),
    "memory_reserve_mib": _whole(0, 16_777_216),
    "memory_reserve_percent": _number(0, 90),
}


# --- reading ---------------------------------------------------------------------------------


def read_cluster_file(path: Path) -> ClusterConfig:
    """A cluster file as a value, with every default filled in.

    Raises:
        UserError: one message that says what is wrong and where.
    """
    source = _source(path)
    try:
        config = _cluster(_parsed(source), default_name=path.stem)
        return replace(config, file=str(path.absolute()))
    except tomllib.TOMLDecodeError as error:
        what, row, column = _syntax(error, source)
        raise UserError(
            f"{path.name}, line {row}, column {column}: not valid TOML: {what}. Nothing was loaded."
        ) from error
    except _Trouble as trouble:
        line = _line_of(trouble.path, source)
        place = f", line {line}" if line else ""
        raise UserError(f"{path.name}{place}: {trouble}. Nothing was loaded.") from trouble


def config_from_uris(uris: Sequence[str], *, name: str = "", read_only: bool = False) -> ClusterConfig:
    """A cluster made of libvirt URIs alone, as ``--connect`` gives them.

    Raises:
        UserError: if one of them is not a URI, or is given twice.
    """
    raw: dict[str, Any] = {"nodes": [{"uri": uri} for uri in uris], "read_only": read_only}
    names = [_default_node_name(uri, index) for index, uri in enumerate(uris)]
    for index, node in enumerate(raw["nodes"]):
        if names.count(names[index]) > 1:  # qemu:///system and test:///default have no host in them
            node["name"] = f"{names[index]}-{index + 1}"
    try:
        return _cluster(raw, default_name=name or (names[0] if len(names) == 1 else "connected hosts"))
    except _Trouble as trouble:
        raise UserError(f"--connect: {trouble}. Nothing was connected.") from trouble


def _source(path: Path) -> str:
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for without end
        raise UserError(f"{path}: not a file. Nothing was loaded.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}. Nothing was loaded.") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path.name}: larger than 1 MiB, so not a cluster file. Nothing was loaded.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path.name}, line {line}: not UTF-8 text. Nothing was loaded.") from error


def _parsed(source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError:
        raise
    except (RecursionError, ValueError) as error:  # nested a thousand deep; a number of 5,000 digits
        raise _Trouble((), "not a cluster file: it nests too deeply or has too long a number") from error


def _syntax(error: tomllib.TOMLDecodeError, source: str) -> tuple[str, int, int]:
    text = str(error)
    found = re.fullmatch(r"(?s)(.*) \(at line (\d+), column (\d+)\)", text)
    if found:
        return found[1][0].lower() + found[1][1:], int(found[2]), int(found[3])
    lines = source.splitlines() or [""]  # "at end of document"
    return re.sub(r" \(at end of document\)", " at the end of the file", text), len(lines), len(lines[-1]) + 1


def _cluster(raw: Mapping[str, Any], *, default_name: str) -> ClusterConfig:
    if isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
        raise _Trouble(("format",), f"format = {raw['format']}: this Muster reads format {FORMAT}")
    tables = ("nodes", "migration", "work", "storage", "placement")
    root = _section(raw, (), _ROOT, tables)
    root.pop("format", None)
    nodes = _nodes(raw.get("nodes", []))
    limits = _table(raw, "migration")
    migration = _section(limits, ("migration",), _MIGRATION, ("convergence", "retry"))
    convergence = Convergence(
        **_section(_table(limits, "convergence", ("migration",)), ("migration", "convergence"), _CONVERGENCE)
    )
    if convergence.auto_converge_max_percent < convergence.auto_converge_initial_percent:
        key = "auto_converge_max_percent"
        raise _Trouble(
            ("migration", "convergence", key),
            f"migration.convergence.{key} = {convergence.auto_converge_max_percent}: needs at least "
            f"auto_converge_initial_percent, which is {convergence.auto_converge_initial_percent}",
        )
    connections = migration.get("parallel_connections", 0)
    if convergence.post_copy and connections > 1:
        raise _Trouble(
            ("migration", "convergence", "post_copy"),
            "migration.convergence.post_copy = true: does not go together with "
            f"parallel_connections = {connections}: the guests would be lost",
        )
    retry = RetryPolicy(**_section(_table(limits, "retry", ("migration",)), ("migration", "retry"), _RETRY))
    storage = _section(_table(raw, "storage"), ("storage",), _STORAGE)
    if "name" not in root:
        try:
            root["name"] = _name(default_name)
        except _Refused as refused:
            raise _Trouble((), f"name: missing; needs {refused}") from None
    return ClusterConfig(
        **root,
        nodes=nodes,
        migration=MigrationLimits(**migration, convergence=convergence, retry=retry),
        work=WorkLimits(**_section(_table(raw, "work"), ("work",), _WORK)),
        placement=PlacementPolicy(**_section(_table(raw, "placement"), ("placement",), _PLACEMENT)),
        **storage,
    )


def _nodes(raw: Any) -> tuple[NodeConfig, ...]:
    if not isinstance(raw, list) or not all(isinstance(each, dict) for each in raw):
        raise _Trouble(("nodes",), "nodes: needs one [[nodes]] table per node")
    if not raw:
        raise _Trouble((), "no nodes: needs at least one [[nodes]] table with a uri")
    if len(raw) > MAX_NODES:
        raise _Trouble(("nodes", MAX_NODES), f"{len(raw)} nodes: needs from 1 to {MAX_NODES}")
    nodes: list[NodeConfig] = []
    for index, table in enumerate(raw):
        place = ("nodes", index)
        values = _section(table, place, _NODE)
        if "uri" not in values:
            raise _Trouble(
                place,
                f'{_key(place, "uri")}: missing; needs a libvirt URI such as "qemu+ssh://root@n1/system"',
            )
        values.setdefault("name", _default_node_name(values["uri"], index))
        values.setdefault("peer_uri", default_peer_uri(values["uri"]))
        for before, other in enumerate(nodes, 1):
            for key, same in (
                ("name", other.name.casefold() == values["name"].casefold()),
                ("uri", _is_same_host(other.uri, values["uri"])),
            ):
                if same:
                    shown = f"{_key(place, key)} = {_shown(values[key])}"
                    raise _Trouble((*place, key), f"{shown}: node {before} has the same {key}")
        nodes.append(NodeConfig(**(values | {"name": NodeId(values["name"])})))
    return tuple(nodes)


def _is_same_host(uri: str, other: str) -> bool:
    one, two = (urlsplit(each) for each in (uri, other))
    if one.scheme == "test":
        return False  # every connection to libvirt's test driver is a world of its own
    return one._replace(netloc=one.netloc.lower()) == two._replace(netloc=two.netloc.lower())


def _table(raw: Mapping[str, Any], key: str, above: _Path = ()) -> Mapping[str, Any]:
    table = raw.get(key, {})
    if not isinstance(table, dict):
        raise _Trouble(
            (*above, key), f"{_key(above, key)} = {_shown(table)}: needs a table [{_key(above, key)}]"
        )
    return table


def _section(
    raw: Mapping[str, Any], path: _Path, checks: Mapping[str, _Check], tables: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of one table, checked; unknown keys are refused."""
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key in tables:
            continue
        if key not in checks:
            raise _Trouble((*path, key), f"{_key(path, key)}: {_unknown(key, [*checks, *tables])}")
        try:
            values[key] = checks[key](value)
        except _Refused as refused:
            shown = "" if "password" in str(refused) else f" = {_shown(value)}"
            raise _Trouble((*path, key), f"{_key(path, key)}{shown}: needs {refused}") from None
    return values


def _unknown(key: str, known: Sequence[str]) -> str:
    if re.search(r"pass(word|phrase|wd)?$|secret|token", key, re.IGNORECASE):
        return "secrets are not kept in cluster files; the key ring asks for them"
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"there is no such key ({hint})"


def _key(path: _Path, key: str) -> str:
    """A key as people read it: ``migration.networks``, ``node 2: uri``."""
    if path and path[0] == "nodes" and len(path) > 1:
        return f"node {int(path[1]) + 1}: {key}"
    return ".".join([*(str(each) for each in path), key])


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "..."
    return text if len(text) <= 80 else text[:77] + "..."


def _default_node_name(uri: str, index: int) -> str:
    try:
        name: str = _node_name(urlsplit(uri).hostname)
    except (ValueError, _Refused):
        return f"n{index + 1}"
    return name


def default_peer_uri(uri: str) -> str | None:
    """The node's URI as other nodes may use it too, or None if it only works from this computer."""
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    here = parts.hostname or "localhost"
    with_local_parameter = any(key.lower() in _LOCAL_PARAMETERS for key, _ in parse_qsl(parts.query, True))
    if driver == "test" or transport in ("unix", "ext") or with_local_parameter or _is_this_computer(here):
        return None
    return uri


def _is_this_computer(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


# --- where a key stands ----------------------------------------------------------------------


def _line_of(path: _Path, source: str) -> int | None:
    """The line of a key, or of the nearest table around it, in a text that is valid TOML."""
    lines = _lines(source) if path else {}
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _lines(source: str) -> dict[_Path, int]:
    """The line of every key and table header, found by letting the parser read statement by statement."""
    found: dict[_Path, int] = {}
    entries: dict[_Path, int] = {}  # how many [[tables]] of one name there were
    table: _Path = ()
    rows = source.split("\n")
    row = 0
    while row < len(rows):
        first = row
        statement = rows[row]
        is_header = statement.lstrip().startswith("[")
        row += 1
        while True:  # a value may go over many lines: until the parser is content
            try:
                parsed = tomllib.loads(statement)
                break
            except tomllib.TOMLDecodeError:
                if row == len(rows) or row - first > 500:
                    return found
                statement += "\n" + rows[row]
                row += 1
        for path in _leaves(parsed):
            if is_header:
                if path[-1:] == (0,):
                    plain = path[:-1]
                    entries[plain] = entries.get(plain, -1) + 1
                    path = (*plain, entries[plain])
                table = path
            found.setdefault(path if is_header else (*table, *path), first + 1)
    return found


def _leaves(parsed: Mapping[str, Any]) -> list[_Path]:
    """The path of the one key of a statement, through dotted keys and inline tables."""
    paths: list[_Path] = []
    for key, value in parsed.items():
        if value == [{}]:
            paths.append((key, 0))
        elif isinstance(value, dict) and value:
            paths += [(key, *rest) for rest in _leaves(value)]
        else:
            paths.append((key,))
    return paths


# --- writing ---------------------------------------------------------------------------------


def write_cluster_file(path: Path, config: ClusterConfig) -> None:
    """Store a cluster as a file; whatever else an existing file says (comments, order) stays.

    Only keys whose values change are touched, and a key with its default is not written anew. Known nodes
    stay in their order, new ones follow. A node without `peer_uri` gets the default one. The result is read
    back before it replaces anything.

    Raises:
        UserError: if the existing file is not usable, a value is not allowed, or it cannot be written.
    """
    config = replace(config, tier=Tier.MANAGED, nodes=tuple(_with_peer_uri(node) for node in config.nodes))
    if path.exists():
        before = read_cluster_file(path)
        document = tomlkit.parse(_source(path))
    else:
        before = ClusterConfig(name="")
        document = tomlkit.document()
    _merge_nodes(document, config.nodes, before.nodes)
    _merge(document, _plain(config), _plain(before))
    text = tomlkit.dumps(document)
    try:
        again = _cluster(tomllib.loads(text), default_name=path.stem)
    except (_Trouble, tomllib.TOMLDecodeError) as trouble:
        raise UserError(f"{path.name}: {trouble}. Nothing was written.") from trouble
    if _by_name(again) != _by_name(config):
        raise UserError(f"{path.name}: its layout cannot be edited safely; change it by hand.")
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}. Nothing was written.") from error


def _plain(config: ClusterConfig) -> dict[str, Any]:
    """Everything but the nodes, as the file's keys and values."""
    return {
        "name": config.name,
        "colour": config.colour,
        "read_only": config.read_only,
        "migration": asdict(config.migration),
        "work": asdict(config.work),
        "storage": {"shared_paths": config.shared_paths},
        "placement": asdict(config.placement),
    }


def _plain_node(node: NodeConfig) -> dict[str, Any]:
    values = {key: value for key, value in asdict(node).items() if value}
    if values.get("peer_uri") == default_peer_uri(node.uri):
        values.pop("peer_uri", None)
    return values


def _by_name(config: ClusterConfig) -> ClusterConfig:
    return replace(config, nodes=tuple(sorted(config.nodes, key=lambda node: node.name)))


def _with_peer_uri(node: NodeConfig) -> NodeConfig:
    return replace(node, peer_uri=node.peer_uri or default_peer_uri(node.uri))


def _merge(table: MutableMapping[str, Any], wanted: Mapping[str, Any], was: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        if value == was.get(key):
            continue
        if isinstance(value, dict):
            if key not in table:
                table[key] = tomlkit.table()
            _merge(table[key], value, was[key])
        else:
            table[key] = list(value) if isinstance(value, tuple) else value
    for key in was.keys() - wanted.keys():
        table.pop(key, None)


def _merge_nodes(
    document: tomlkit.TOMLDocument, wanted: Sequence[NodeConfig], was: Sequence[NodeConfig]
) -> None:
    entries: Any = document.get("nodes")
    if entries is None:
        entries = document["nodes"] = tomlkit.aot()
    keep = {node.name for node in wanted}
    for index in reversed(range(len(was))):
        if was[index].name not in keep:
            del entries[index]
    kept = [node for node in was if node.name in keep]
    for node in wanted:
        old = next((each for each in kept if each.name == node.name), None)
        if old is not None:
            _merge(entries[kept.index(old)], _plain_node(node), _plain_node(old))
        else:
            table = tomlkit.table() if isinstance(entries, AoT) else tomlkit.inline_table()
            _merge(table, _plain_node(node), {})
            entries.append(table)


# --- the configured clusters -----------------------------------------------------------------


class ClusterFiles:
    """The user's configured clusters, and which were open last."""

    def __init__(self, folder: Path, last_used: Path) -> None:
        self._folder = folder
        self._last_used = last_used

    def configured(self) -> tuple[ConfiguredCluster, ...]:
        """All of them, by name; broken ones too, with what is wrong."""
        found = []
        for path in sorted(self._folder.glob("*.toml")):
            try:
                found.append(ConfiguredCluster(name=read_cluster_file(path).name, path=path))
            except UserError as error:
                found.append(ConfiguredCluster(name=path.stem, path=path, trouble=str(error)))
        return tuple(sorted(found, key=lambda each: (each.name.casefold(), each.path)))

    def find(self, name_or_file: str) -> Path:
        """The file of a configured cluster's name, or else of a path. It is not read.

        Raises:
            UserError: if nothing or more than one thing is meant; with the names there are.
        """
        configured = self.configured()
        for meant in (
            [each for each in configured if each.name == name_or_file],
            [each for each in configured if each.name.casefold() == name_or_file.casefold()],
        ):
            if len(meant) == 1:
                return meant[0].path
            if meant:
                files = ", ".join(str(each.path) for each in meant)
                raise UserError(
                    f'The cluster name "{name_or_file}" is ambiguous. Name one of its files: {files}'
                )
        path = Path(name_or_file).expanduser()
        if path.exists():
            return path
        raise UserError(f'There is no cluster or cluster file "{name_or_file}". {_names(configured)}')

    def load(self, name_or_file: str) -> ClusterConfig:
        """The cluster of that name or file.

        Raises:
            UserError: as `find` and `read_cluster_file` do.
        """
        return read_cluster_file(self.find(name_or_file))

    def only(self) -> Path | None:
        """The only configured cluster's file; None if there is none.

        Raises:
            UserError: if there are several; with their names.
        """
        configured = self.configured()
        if len(configured) > 1:
            raise UserError(
                f"Several clusters are configured: choose one with --cluster. {_names(configured)}\n"
                "Lists can be of all: --all-clusters."
            )
        return configured[0].path if configured else None

    def add(self, config: ClusterConfig) -> Path:
        """Store a new cluster and return its file.

        Raises:
            UserError: if a cluster of that name exists, or it cannot be stored.
        """
        if any(each.name.casefold() == config.name.casefold() for each in self.configured()):
            raise UserError(f'There is a cluster named "{config.name}" already. Choose another name.')
        private_folder(self._folder, "configuration")
        path = self._folder / f"{file_stem(config.name)}.toml"
        write_cluster_file(path, config)
        return path

    def remove(self, name: str) -> Path:
        """Take a configured cluster out of the list. Its file is kept beside, as ``.removed-<time>``.

        Raises:
            UserError: if there is none of that name, or it cannot be moved.
        """
        path = self.find(name)
        if path.parent != self._folder:
            raise UserError(f"{path} is not among the configured clusters. {_names(self.configured())}")
        try:
            return set_aside(path, "removed", time.strftime("%Y%m%d-%H%M%S"))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}. Nothing was removed.") from error

    def last_used(self) -> tuple[Path, ...]:
        """The cluster files that were open last and still exist."""
        try:
            names = msgspec.json.decode(self._last_used.read_bytes(), type=list[str])
        except (OSError, ValueError):
            return ()
        return tuple(path for path in map(Path, names) if path.is_file())

    def remember(self, paths: Sequence[Path]) -> None:
        """Keep which clusters are open. Trouble is logged: it is only a convenience."""
        try:
            write_atomically(self._last_used, msgspec.json.encode([str(path.absolute()) for path in paths]))
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._last_used, error)


def _names(configured: Sequence[ConfiguredCluster]) -> str:
    if not configured:
        return "No cluster is configured."
    return "Configured: " + ", ".join(each.name for each in configured)

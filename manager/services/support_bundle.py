"""The support bundle: what somebody who helps needs to see, in one file, without secrets.

VMs are written as Muster understood their definitions, never as their hosts' XML: a password in there is not
read in the first place. What remains of texts is searched for users and passwords before it is written.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import platform
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from manager.core.chronicle import KEPT_EVENTS
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.model import ClusterConfig, Node, Vm
from manager.core.operations import Operation
from manager.core.query.fields import FIELDS
from manager.core.units import iso_text, size_text

_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s\"'@]*@")
_SECRET = re.compile(
    r"(?i)((?:pass(?:word|phrase|wd)|secret|token|credentials?)[\"']?\s*[:=]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&]+)"
)

_AT_ONCE = 16
"""Rows that are written without a pause."""

_CHUNK = 128 * 1024
"""Bytes that are packed without a pause."""

_PACKAGES = ("libvirt-python", "PySide6-Essentials", "msgspec", "click", "lxml")

LEFT_OUT = """\
Left out: passwords and key files' contents (Muster keeps none in its files), the names of users in URIs, what
a cluster file says of credentials and of management controllers, and the definitions of VMs as their hosts
have them. Names of VMs, nodes, networks, images and administrators are in it: look before you give it away.
"""


def without_secrets(text: str) -> str:
    """A text without the user part of URIs, and without what follows a word for a secret."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1", text))


class KeptLog(logging.Handler):
    """The newest records of the log, as lines."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: deque[str] = deque(maxlen=10_000)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(self.format(record))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file for somebody who helps, before it is written."""

    name: str  # of the folder in it, and of the file without what follows the first dot
    at_s: float
    texts: dict[str, str]

    @property
    def file_name(self) -> str:
        """What it is called if nobody says otherwise."""
        return f"{self.name}.tar.gz"


def bundle_name(cluster: str, at_s: float) -> str:
    """What a bundle of that moment is called."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", cluster).strip("-.") or "cluster"
    return f"muster-{name}-{datetime.fromtimestamp(at_s):%Y%m%d-%H%M%S}"


async def make_bundle(
    view: ClusterView,
    version: str,
    operations: Iterable[Operation],
    log: Iterable[str],
    *,
    since_s: float,
    now_s: float,
) -> Bundle:
    """What is known of a cluster, without secrets.

    Args:
        view: The cluster, with what happened since then.
        version: Muster's.
        operations: Those that ended, too.
        log: Lines of the log.
        since_s: From when on events and operations are told.
        now_s: The moment that the bundle is of.
    """
    known = {o.id: o for o in (*operations, *view.operations.values())}
    wanted = [o for o in known.values() if not o.is_over or (o.ended_s or o.created_s) >= since_s]
    wanted.sort(key=lambda o: (o.created_s, o.id))
    events = [e for e in list(view.events.values())[-KEPT_EVENTS:] if e.at_s >= since_s]
    nodes = await _list(view.nodes.values(), lambda node: _node(view, node))
    vms = await _list(view.vms.values(), lambda vm: _vm(view, vm))
    texts = {
        "versions.json": _json(_versions(version, view)) + "\n",
        "cluster.json": _json(_cluster(view.config)) + "\n",
        "inventory.json": f'{{\n"nodes": {nodes},\n"vms": {vms}}}\n',
        "operations.json": await _list(wanted, _plain),
        "events.json": await _list(events, lambda event: _row(view, Kind.EVENT, event)),
        "problems.json": await _list(
            view.problems.values(), lambda problem: _row(view, Kind.PROBLEM, problem)
        ),
    }
    texts["log.txt"] = "".join(f"{without_secrets(line)}\n" for line in log)
    about = f"Muster {version}: {view.config.name} from {iso_text(since_s)} to {iso_text(now_s)}\n\n"
    about += "".join(f"{each:<18}{size_text(len(text.encode()))}\n" for each, text in texts.items())
    return Bundle(
        bundle_name(view.config.name, now_s), now_s, {"README.txt": f"{about}\n{LEFT_OUT}", **texts}
    )


def refuse_existing(path: Path | None) -> None:
    """Nothing is overwritten.

    Raises:
        UserError: The file is there already.
    """
    if path is not None and path.exists():
        raise UserError(f"{path} exists already. Nothing was written.")


async def write(bundle: Bundle, path: Path) -> int:
    """Write the archive; its size in bytes.

    Raises:
        UserError: The file is there already, or cannot be written.
    """
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, text in bundle.texts.items():
            content = text.encode("utf-8", "replace")
            info = tarfile.TarInfo(f"{bundle.name}/{name}")
            info.size, info.mtime, info.mode = len(content), int(bundle.at_s), 0o600
            tar.addfile(info, io.BytesIO(content))
            await asyncio.sleep(0)
    packed, view = io.BytesIO(), whole.getbuffer()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=int(bundle.at_s)) as gz:
        for at in range(0, len(view), _CHUNK):
            gz.write(view[at : at + _CHUNK])
            await asyncio.sleep(0)
    _store(path, packed.getvalue())
    return len(packed.getvalue())


def _store(path: Path, data: bytes) -> None:
    try:
        path.touch(mode=0o600, exist_ok=False)  # also if somebody made it meanwhile
        path.write_bytes(data)
    except FileExistsError as error:
        raise UserError(f"{path} exists already. Nothing was written.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}", exit_code=1) from error


async def _list(items: Iterable[Any], row: Callable[[Any], Any]) -> str:
    """Rows as a JSON list without secrets, some at a time: in a window others have their turn between."""
    texts: list[str] = []
    for item in list(items):
        texts.append(_json(row(item)))
        if len(texts) % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return "[" + ",\n".join(texts) + "]\n"


def _cleaned(value: Any) -> Any:
    """A JSON value with every text in it without secrets."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    if isinstance(value, dict):
        return {name: _cleaned(each) for name, each in value.items()}
    return value


def _json(value: Any) -> str:
    return json.dumps(_cleaned(value), indent=1, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """A value of the core as JSON has it."""
    return json.loads(msgspec.json.encode(value, enc_hook=sorted))


def _versions(version: str, view: ClusterView) -> dict[str, Any]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    nodes = view.nodes.values()
    return {
        "muster": version,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": found,
        "nodes": {
            str(node.id): node.facts
            and {"libvirt": node.facts.libvirt_version, "hypervisor": node.facts.hypervisor_version}
            for node in nodes
        },
    }


def _cluster(config: ClusterConfig) -> Any:
    shown = _plain(config)
    for node in shown["nodes"]:
        for secret in ("credentials", "bmc"):
            node[secret] = "left out" if node[secret] else None
        node["ssh"] = node["ssh"] and node["ssh"].rpartition("@")[2]
    return shown


def _row(view: ClusterView, kind: Kind, item: Any) -> dict[str, Any]:
    return {f.name: f.as_json(view, item) for f in FIELDS[kind].values()}


def _node(view: ClusterView, node: Node) -> dict[str, Any]:
    return _row(view, Kind.NODE, node) | {"facts": _plain(node.facts)}


def _vm(view: ClusterView, vm: Vm) -> dict[str, Any]:
    sightings = view.sightings(vm.id).items()
    return _row(view, Kind.VM, vm) | {
        "notes": [note.text for note in vm.notes],
        "definition": _plain(vm.config),
        "sightings": {str(node): f"{seen.status.value} ({seen.cause.value})" for node, seen in sightings},
    }

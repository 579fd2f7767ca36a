"""``muster support-bundle``: what somebody who helps needs to see, in one file, without secrets.

VMs are written as Muster understood their definitions, never as their hosts' XML: a password in there is not
read in the first place. What remains of texts is searched for users and passwords before it is written.
"""

from __future__ import annotations

import io
import json
import logging
import platform
import re
import tarfile
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import msgspec

from manager.cli.app import App
from manager.cli.events_views import find_problems, remember
from manager.cli.options import Settings
from manager.cli.output import print_json, printable
from manager.cli.queue_views import KEPT, read_queue
from manager.cli.session import Session, opened
from manager.core.chronicle import KEPT_EVENTS
from manager.core.errors import UserError
from manager.core.ids import Kind
from manager.core.model import ClusterConfig
from manager.core.operations import Operation
from manager.core.query.fields import FIELDS
from manager.core.units import iso_text, size_text

_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s\"'@]*@")
_SECRET = re.compile(
    r"(?i)((?:pass(?:word|phrase|wd)|secret|token|credentials?)[\"']?\s*[:=]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&]+)"
)

_PACKAGES = ("libvirt-python", "PySide6-Essentials", "msgspec", "click", "lxml")

_LEFT_OUT = """\
Left out: passwords and key files' contents (Muster keeps none in its files), the names of users in URIs, what
a cluster file says of credentials and of management controllers, and the definitions of VMs as their hosts
have them. Names of VMs, nodes, networks, images and administrators are in it: look before you give it away.
"""


def without_secrets(text: str) -> str:
    """A text without the user part of URIs, and without what follows a word for a secret."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1", text))


class _Kept(logging.Handler):
    """The newest records of the log, as lines."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: deque[str] = deque(maxlen=10_000)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(self.format(record))


async def write_bundle(app: App, settings: Settings, since_s: float, output: Path | None) -> int:
    """``muster support-bundle``.

    Raises:
        UserError: The file is there already, or cannot be written; or nothing of the cluster can be read.
    """
    _refuse_existing(output)
    kept, ours = _Kept(), logging.getLogger("manager")
    ours.addHandler(kept)
    try:
        async with opened(app, settings, reading=True, enough=lambda _: True) as session:
            await find_problems(session)
            await remember(session, since_s)
            queue = await read_queue(session, ended=KEPT)
            live = session.view.operations.values()
            operations = {o.id: o for o in (*queue.ended, *queue.left.values(), *live)}
            now_s = session.runtime.clock.now_s()
            files = {
                "versions.json": _versions(app, session),
                "cluster.json": _cluster(session.config),
                "inventory.json": _inventory(session),
                "operations.json": _operations(operations.values(), since_s),
                "events.json": _rows(session, Kind.EVENT, since_s),
                "problems.json": _rows(session, Kind.PROBLEM),
            }
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", session.config.name).strip("-.") or "cluster"
    finally:
        ours.removeHandler(kept)
    texts = {each: _json(_cleaned(value)) for each, value in files.items()}
    texts["log.txt"] = "".join(f"{without_secrets(line)}\n" for line in kept.lines)
    about = f"Muster {app.version}: {session.config.name} from {iso_text(since_s)} to {iso_text(now_s)}\n\n"
    about += "".join(f"{each:<18}{size_text(len(text.encode()))}\n" for each, text in texts.items())
    texts = {"README.txt": f"{about}\n{_LEFT_OUT}", **texts}
    stamp = datetime.fromtimestamp(now_s).strftime("%Y%m%d-%H%M%S")
    path = output or Path(f"muster-{name}-{stamp}.tar.gz")
    size = _write(path, f"muster-{name}-{stamp}", texts, now_s)
    if settings.as_json:
        rows = [{"file": each, "bytes": len(text.encode())} for each, text in texts.items()]
        print_json([{"bundle": str(path), "contents": rows}])
    else:
        click.echo(printable(f"{path} ({size_text(size)}) holds:"))
        for each, text in texts.items():
            click.echo(f"  {each:<18}{size_text(len(text.encode()))}")
        click.echo(_LEFT_OUT.rstrip())
    return 0


def _refuse_existing(output: Path | None) -> None:
    if output is not None and output.exists():
        raise UserError(f"{output} exists already. Nothing was written.")


def _write(path: Path, folder: str, texts: dict[str, str], at_s: float) -> int:
    """Write the archive; its size in bytes."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in texts.items():
            content = text.encode("utf-8", "replace")
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size, info.mtime, info.mode = len(content), int(at_s), 0o600
            tar.addfile(info, io.BytesIO(content))
    try:
        path.touch(mode=0o600, exist_ok=False)  # also if somebody made it meanwhile
        path.write_bytes(data.getvalue())
    except FileExistsError as error:
        raise UserError(f"{path} exists already. Nothing was written.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}", exit_code=1) from error
    return len(data.getvalue())


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
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """A value of the core as JSON has it."""
    return json.loads(msgspec.json.encode(value, enc_hook=sorted))


def _versions(app: App, session: Session) -> dict[str, Any]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    nodes = session.view.nodes.values()
    return {
        "muster": app.version,
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


def _inventory(session: Session) -> dict[str, Any]:
    view = session.view
    return {
        "nodes": [
            {f.name: f.as_json(view, node) for f in FIELDS[Kind.NODE].values()}
            | {"facts": _plain(node.facts)}
            for node in view.nodes.values()
        ],
        "vms": [
            {f.name: f.as_json(view, vm) for f in FIELDS[Kind.VM].values()}
            | {
                "notes": [note.text for note in vm.notes],
                "definition": _plain(vm.config),
                "sightings": {
                    str(node): f"{seen.status.value} ({seen.cause.value})"
                    for node, seen in view.sightings(vm.id).items()
                },
            }
            for vm in view.vms.values()
        ],
    }


def _operations(operations: Iterable[Operation], since_s: float) -> list[Any]:
    wanted = [o for o in operations if not o.is_over or (o.ended_s or o.created_s) >= since_s]
    return [_plain(o) for o in sorted(wanted, key=lambda o: (o.created_s, o.id))]


def _rows(session: Session, kind: Kind, since_s: float = 0.0) -> list[Any]:
    view = session.view
    rows: Iterable[Any] = view.problems.values()
    if kind is Kind.EVENT:
        rows = [e for e in list(view.events.values())[-KEPT_EVENTS:] if e.at_s >= since_s]
    return [{f.name: f.as_json(view, row) for f in FIELDS[kind].values()} for row in rows]

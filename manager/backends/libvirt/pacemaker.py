"""Whether Pacemaker runs on a host, and which VMs are its resources: bounded questions, asked read-only.

libvirt knows nothing of Pacemaker, so the host itself is asked, in the way libvirt is reached: over ssh where
the URI or the cluster file's `ssh` names it, and on this computer for its own daemon. Where there is neither,
nothing is known and nothing is claimed.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import re
import shlex
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from lxml import etree

from manager.backends.libvirt import uris
from manager.backends.libvirt.errors import cleaned
from manager.backends.libvirt.xml_text import root_of
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.model import NodeConfig, Pacemaker

NOT_ALLOWED, NOT_RUNNING = 4, 102
"""Exit codes. Source: Pacemaker 2 and 3, CRM_EX_INSUFFICIENT_PRIV and CRM_EX_DISCONNECT."""
TIMED_OUT, NOT_INSTALLED = 124, 127
"""Exit codes. Source: coreutils timeout(1)."""
SOME_UNREAD = 123
"""Exit code. Source: findutils xargs(1), grep(1)."""

QUESTION = (
    # cibadmin's own --timeout does not bound its connecting: 30 s to a Pacemaker that hangs.
    "PATH=$PATH:/usr/sbin:/sbin; timeout 3 cibadmin --query --scope resources; code=$?; "
    # To a login that may not ask, cibadmin says that nothing runs there; crmadmin says why.
    f"[ $code -ne {NOT_RUNNING} ] || {{ timeout 2 crmadmin --dc_lookup >/dev/null; "
    f"[ $? -ne {NOT_ALLOWED} ] || code={NOT_ALLOWED}; }}; exit $code"
)
"""For a shell; a constant. Source: Pacemaker cibadmin(8), crmadmin(8)."""
NAMES_IN_FILES = ("xargs", "-0", "-r", "grep", "-asHZ", "-d", "skip", "-D", "skip", "<name>.*</name>", "--")
"""What the agent itself does to find a VM's name; file names come from standard input."""

DEADLINE_S = 10.0
REST_S = 0.5
MAX_ANSWER_BYTES = 4 * 1024 * 1024
AGENT = "VirtualDomain"

_SSH_TARGET = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d+))?")
_NAME = re.compile(r"<name>(.*)</name>\s*")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host says."""

    pacemaker: Pacemaker
    names: frozenset[str] = frozenset()  # of VMs that are its resources


@dataclass(frozen=True, slots=True)
class Resource:
    """A VM in Pacemaker's configuration."""

    id: str
    file: str = ""  # its definition, on the host


def command_for(node: NodeConfig, *argv: str) -> tuple[str, ...] | None:
    """What runs `argv` on a node, or None where there is no way to."""
    parts = uris.parsed(node.uri)
    if node.ssh is not None:
        return _over_ssh(node.ssh, {}, argv)
    if parts.is_ssh:
        target = f"{parts.user}@{parts.host}" if parts.user else parts.host
        port = f":{parts.port}" if parts.port != 22 else ""
        return _over_ssh(target + port, dict(parts.parameters), argv)
    if parts.driver == "qemu" and not parts.transport and not parts.host:
        return argv
    return None


def _over_ssh(target: str, parameters: dict[str, str], argv: Iterable[str]) -> tuple[str, ...] | None:
    """Through ssh, with the keys that libvirt's own ssh uses. Source: libvirt uri.html."""
    matched = _SSH_TARGET.fullmatch(target)
    if matched is None:
        return None
    options = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    if matched["port"]:
        options += ["-p", matched["port"]]
    if matched["user"]:
        options += ["-l", matched["user"]]
    if keyfile := parameters.get("keyfile"):
        options += ["-i", keyfile]
    if known_hosts := parameters.get("known_hosts"):
        options += ["-o", f"UserKnownHostsFile={known_hosts}"]
    if parameters.get("no_verify", "0") not in ("", "0"):
        options += ["-o", "StrictHostKeyChecking=no"]
    host = matched["host"].strip("[]")
    return (parameters.get("command", "ssh"), *options, "--", host, shlex.join(argv))


async def ask(node: NodeConfig) -> Answer | None:
    """What a host says of Pacemaker; None where there is no way to ask.

    Raises:
        OperationError: It does not answer within `DEADLINE_S`, or not in a way that says anything.
    """
    command = command_for(node, "sh", "-c", QUESTION)
    if command is None:
        return None
    try:
        code, answer = await _run(command, deadline_s=DEADLINE_S)
    except TimeoutError:
        raise _no_answer(node, FailureCode.TIMEOUT, f"no answer within {DEADLINE_S:g} s") from None
    except OSError as error:
        raise _no_answer(node, FailureCode.OTHER, f"{command[0]}: {error.strerror}") from None
    if code in (NOT_RUNNING, NOT_INSTALLED):
        return Answer(Pacemaker.NONE)
    if code in (NOT_ALLOWED, TIMED_OUT):
        return Answer(Pacemaker.UNTOLD)
    resources = vms_among(answer) if code == 0 else None
    if resources is None:
        raise _no_answer(node, FailureCode.OTHER, f"an answer that is none, with exit code {code}")
    names = await _names_of(node, resources)
    return Answer(Pacemaker.UNTOLD) if names is None else Answer(Pacemaker.RUNS, names)


def _no_answer(node: NodeConfig, code: FailureCode, text: str) -> OperationError:
    return OperationError(Failure(code=code, text=f"asking for Pacemaker: {text}", node=node.name))


def vms_among(cib: str) -> tuple[Resource, ...] | None:
    """The VMs among the resources of a CIB; None if it is no CIB.

    Source: Pacemaker's resources-3.9.rng, resource-agents heartbeat/VirtualDomain.
    """
    try:
        root = root_of(cib)
    except ValueError:
        return None
    if root.tag != "resources":
        return None
    templates = {e.get("id"): e.get("type") for e in root.iter("template")}
    return tuple(
        Resource(element.get("id") or "", _definition_of(element))
        for element in root.iter("primitive")
        if (element.get("type") or templates.get(element.get("template"))) == AGENT
    )


def _definition_of(primitive: etree._Element) -> str:
    values = (
        pair.get("value") or ""
        for pair in primitive.iterfind("instance_attributes/nvpair")
        if pair.get("name") == "config"
    )
    return next(values, "")


async def _names_of(node: NodeConfig, resources: Iterable[Resource]) -> frozenset[str] | None:
    """Under which names libvirt knows them: what their definitions say; None if the host does not answer.

    For one that cannot be read, its resource's and its file's names stand: a VM is rather left alone than
    fought over.
    """
    files = sorted({resource.file for resource in resources if resource.file.startswith("/")})
    inside = await _names_inside(node, files) if files else {}
    if inside is None:
        return None
    found: set[str] = set()
    for resource in resources:
        found |= inside.get(resource.file) or {resource.id, PurePosixPath(resource.file).stem}
    return frozenset(cleaned(name) for name in found) - {""}


async def _names_inside(node: NodeConfig, files: Iterable[str]) -> dict[str, set[str]] | None:
    command = command_for(node, *NAMES_IN_FILES)
    assert command is not None
    try:
        code, answer = await _run(
            command, deadline_s=DEADLINE_S, stdin="".join(f"{file}\0" for file in files)
        )
    except (TimeoutError, OSError):
        return None
    if code not in (0, SOME_UNREAD, NOT_INSTALLED):
        return None
    found: dict[str, set[str]] = {}
    for line in answer.splitlines():
        file, _, text = line.partition("\0")
        if matched := _NAME.search(text):
            found.setdefault(file, set()).add(html.unescape(matched[1]))
    return found


async def _run(command: Iterable[str], *, deadline_s: float, stdin: str = "") -> tuple[int, str]:
    """Exit code and output of a command; of an endless output the beginning, as if it had failed.

    Raises:
        OSError: There is no such program.
        TimeoutError: It did not end in time.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # a group of its own, to be ended as a whole
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answer = bytearray()
    try:
        async with asyncio.timeout(deadline_s):
            with contextlib.suppress(ConnectionError):
                process.stdin.write(stdin.encode(errors="surrogateescape"))
                process.stdin.close()
            while len(answer) <= MAX_ANSWER_BYTES and (piece := await process.stdout.read(65536)):
                answer += piece
            code = -1 if len(answer) > MAX_ANSWER_BYTES else await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):  # a pipe that is read to its end is closed
                async with asyncio.timeout(REST_S):
                    while await process.stdout.read(65536):
                        pass
            await process.wait()
    return code, answer.decode(errors="replace")

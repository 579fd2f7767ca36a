"""Whether Pacemaker runs on a host, and which VMs are its resources: one bounded question, asked read-only.

libvirt knows nothing of Pacemaker, so the host itself is asked, in the way libvirt is reached: over ssh where
the URI or the cluster file's `ssh` names it, and on this computer for its own daemon. Where there is neither,
nothing is known and nothing is claimed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import PurePosixPath

from lxml import etree

from manager.backends.libvirt import uris
from manager.backends.libvirt.errors import cleaned
from manager.backends.libvirt.xml_text import root_of
from manager.core.model import NodeConfig

QUESTION = ("cibadmin", "--query", "--scope", "resources")
"""Answered by a running Pacemaker only. Source: Pacemaker cibadmin(8)."""
DEADLINE_S = 6.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
AGENT = "VirtualDomain"

_SSH_TARGET = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d+))?")


def question_for(node: NodeConfig) -> tuple[str, ...] | None:
    """The command that asks a node, or None where there is no way to ask."""
    parts = uris.parsed(node.uri)
    if node.ssh is not None:
        return _over_ssh(node.ssh, {})
    if parts.is_ssh:
        target = f"{parts.user}@{parts.host}" if parts.user else parts.host
        return _over_ssh(f"{target}:{parts.port}" if parts.port != 22 else target, dict(parts.parameters))
    if parts.driver == "qemu" and not parts.transport and not parts.host:
        return QUESTION
    return None


def _over_ssh(target: str, parameters: dict[str, str]) -> tuple[str, ...] | None:
    """The question through ssh, with the keys that libvirt's own ssh uses. Source: libvirt uri.html."""
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
    return (parameters.get("command", "ssh"), *options, "--", host, " ".join(QUESTION))


async def resources_on(node: NodeConfig) -> frozenset[str] | None:
    """Names that VMs which Pacemaker owns may have; None if it does not run there, or cannot be asked.

    Trouble is no error: a host without Pacemaker is the usual case.
    """
    question = question_for(node)
    if question is None:
        return None
    try:
        process = await asyncio.create_subprocess_exec(
            *question,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    answer = b""
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while len(answer) <= MAX_ANSWER_BYTES and (piece := await process.stdout.read(65536)):
                answer += piece
            if len(answer) <= MAX_ANSWER_BYTES and await process.wait() == 0:
                return vm_names(answer.decode(errors="replace"))
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return None


def vm_names(cib: str) -> frozenset[str] | None:
    """The names under which the resources of a CIB can be known to libvirt; None if it is no CIB.

    The agent takes the name from inside a definition file on the host, which is not read here: the resource's
    own id and the file's name stand for it. Both are taken: a VM is rather left alone than fought over.
    Source: resource-agents heartbeat/VirtualDomain.
    """
    try:
        root = root_of(cib)
    except ValueError:
        return None
    if root.tag != "resources":
        return None
    templates = {e.get("id"): e.get("type") for e in root.iter("template")}
    found: set[str] = set()
    for element in root.iter("primitive"):
        if (element.get("type") or templates.get(element.get("template"))) == AGENT:
            found |= _names_of(element)
    return frozenset(found)


def _names_of(primitive: etree._Element) -> set[str]:
    names = {cleaned(primitive.get("id") or "")}
    for pair in primitive.iterfind("instance_attributes/nvpair"):
        if pair.get("name") == "config":
            names.add(cleaned(PurePosixPath(pair.get("value") or "").stem))
    return names - {""}

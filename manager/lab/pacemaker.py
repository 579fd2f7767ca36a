"""A real Corosync and Pacemaker on nodes of the lab, with guests as their resources.

Nothing fences: the nodes share one machine, and a guest can be started twice only by who tries to.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from lxml import etree

from manager.lab.errors import LabError
from manager.lab.node import Node
from manager.lab.processes import Ran, attempt

START_DEADLINE_S = 120.0
PATIENCE_S = 60.0  # of what Pacemaker is asked to do

_OPTIONS = {
    "stonith-enabled": "false",
    "no-quorum-policy": "ignore",
    "dc-deadtime": "1s",  # instead of 20 s, which a first start would wait for nodes that there are not
    "load-threshold": "0%",  # a loaded machine is no reason to wait
    "stop-orphan-resources": "false",  # a guest that is taken out of the configuration runs on
}
_TIMEOUTS = {"start": "90s", "stop": "60s", "migrate_to": "90s", "migrate_from": "60s"}

# Not -f alone: pacemakerd never leaves the foreground.
_START = "corosync && exec setsid --fork pacemakerd -f </dev/null >/var/log/pacemaker/start.log 2>&1"


async def start(nodes: Sequence[Node]) -> None:
    """Make one cluster of these nodes; returns when it has elected its controller.

    A cluster that was there before is forgotten, with its resources.

    Raises:
        LabError: A node is off, or came up before Pacemaker was installed; a step failed or took too long.
    """
    for node in nodes:
        private = await _on(node, "mountpoint", "--quiet", "/var/lib/pacemaker")
        if private.code != 0:
            raise LabError(f"Node {node.name} came up before Pacemaker was installed; power it off and on.")
        if any(process.name == "corosync" for process in node.processes()):
            raise LabError(f"Corosync runs on node {node.name} already.")
    configuration = _corosync_conf(nodes)
    for node in nodes:
        folder = node.folder / "pacemaker"
        for state in ("lib", "corosync"):
            _empty(folder / state)
        (folder / "etc-corosync" / "uidgid.d").mkdir(exist_ok=True)
        (folder / "etc-corosync" / "corosync.conf").write_text(configuration)
        await _make_state(node, folder)
    await asyncio.gather(*(_start(node) for node in nodes))


async def _make_state(node: Node, folder: Path) -> None:
    for state in ("cib", "pengine", "cores", "blackbox"):
        (folder / "lib" / state).mkdir()
    (folder / "lib" / "cib" / "cib.xml").write_text(_first_cib())
    ran = await _on(node, "chown", "-R", "hacluster:haclient", "/var/lib/pacemaker", "/var/log/pacemaker")
    if ran.code != 0:
        raise LabError(f"Pacemaker's account on node {node.name}: {ran.err.strip()}")


async def _start(node: Node) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    ran = await _on(node, "sh", "-c", _START)
    if ran.code != 0:
        raise LabError(f"Corosync did not start on node {node.name}: {(ran.err or ran.out).strip()}")
    while True:
        ready = await _on(node, "timeout", "3", "crmadmin", "--dc_lookup", "--quiet")
        if ready.code == 0 and ready.out.strip():
            return
        if time.monotonic() > deadline:
            raise LabError(f"Pacemaker does not come up on node {node.name}: {ready.err.strip()}")
        await asyncio.sleep(0.2)


async def add(node: Node, ident: str, definition: Path, *, can_migrate: bool) -> None:
    """Make a guest a resource; returns when Pacemaker says that it runs.

    Args:
        node: Any node of the cluster.
        ident: The resource's own name.
        definition: The guest's domain XML, at the same path on every node.
        can_migrate: Whether it may be moved live instead of stopped and started.

    Raises:
        LabError: It was refused, or does not run in time.
    """
    text = etree.tostring(_resource(ident, definition, can_migrate=can_migrate), encoding="unicode")
    await _must(node, "cibadmin", "--create", "--scope", "resources", "--xml-text", text)
    await wait_running(node, ident)


async def remove(node: Node, ident: str) -> None:
    """Take a resource out of the configuration; its guest runs on, and is nobody's.

    Raises:
        LabError: There is no such resource.
    """
    await _must(node, "cibadmin", "--delete", "--xml-text", f'<primitive id="{ident}"/>')
    await _must(node, "crm_resource", "--cleanup", "--resource", ident)


async def wait_running(node: Node, ident: str, *, on: str = "") -> None:
    """Wait until Pacemaker has nothing left to do, and runs a resource, `on` this node if one is named.

    Raises:
        LabError: It does not within `PATIENCE_S`.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        # What was just asked for may not be under way yet, and then there is nothing to wait for.
        await _on(node, "crm_resource", "--wait", f"--timeout={PATIENCE_S:g}s", timeout_s=PATIENCE_S + 5)
        places = (await _on(node, "crm_resource", "--locate", "--resource", ident, "--quiet")).out.split()
        if places and (not on or places == [on]):
            return
        if time.monotonic() > deadline:
            state = await _on(node, "crm_mon", "--one-shot", "--inactive")
            raise LabError(f"Pacemaker does not run {ident}:\n{state.out.strip()}")
        await asyncio.sleep(0.2)


async def _on(node: Node, *argv: str, timeout_s: float = 20.0) -> Ran:
    return await attempt(node.enter(*argv), timeout_s=timeout_s)


async def _must(node: Node, *argv: str) -> None:
    ran = await _on(node, *argv)
    if ran.code != 0:
        raise LabError(f"`{' '.join(argv[:4])}` on node {node.name}: {(ran.err or ran.out).strip()}")


def _empty(folder: Path) -> None:
    """Empty a folder that is bound into a node, and so must stay."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _corosync_conf(nodes: Sequence[Node]) -> str:
    """Source: corosync.conf(5), votequorum(5)."""
    lines = [
        "totem {",
        "  version: 2",
        "  cluster_name: lab",
        "  transport: knet",
        "  token: 3000",
        "}",
        "quorum {",
        "  provider: corosync_votequorum",
        "}",
        "logging {",
        "  to_syslog: no",
        "  to_stderr: no",
        "  to_logfile: yes",
        "  logfile: /var/log/corosync/corosync.log",
        "}",
        "system {",
        "  sched_rr: no",  # not before everything else on this machine
        "}",
        "nodelist {",
    ]
    for node in nodes:
        lines += [
            "  node {",
            f"    ring0_addr: {node.address}",
            f"    name: {node.name}",
            f"    nodeid: {node.state.number}",
            "  }",
        ]
    return "\n".join([*lines, "}", ""])


def _first_cib() -> str:
    """An empty configuration with the lab's options. Source: Pacemaker Explained, cluster options."""
    options = _pairs("cluster_property_set", "options", _OPTIONS)
    configuration = _tag("configuration", _tag("crm_config", options))
    configuration.extend(_tag(name) for name in ("nodes", "resources", "constraints"))
    cib = _tag("cib", configuration, _tag("status"), admin_epoch="0", epoch="1", num_updates="0")
    cib.set("validate-with", "pacemaker-3.0")
    cib.set("crm_feature_set", "3.0.14")
    return etree.tostring(cib, pretty_print=True, encoding="unicode")


def _resource(ident: str, definition: Path, *, can_migrate: bool) -> etree._Element:
    """Source: resource-agents heartbeat/VirtualDomain."""
    attributes = {
        "config": str(definition),
        "hypervisor": "qemu:///system",
        "remoteuri": "qemu+tcp://%n/system",
        "migrate_options": "--unsafe",
    }
    attributes |= {f"autoset_utilization_{name}": "false" for name in ("cpu", "host_memory", "hv_memory")}
    operations = _tag("operations")
    operations.append(_tag("op", id=f"{ident}-monitor", name="monitor", interval="5s", timeout="30s"))
    operations.extend(
        _tag("op", id=f"{ident}-{name}", name=name, interval="0", timeout=timeout)
        for name, timeout in _TIMEOUTS.items()
    )
    resource = _tag("primitive", id=ident, provider="heartbeat", type="VirtualDomain")
    resource.set("class", "ocf")
    resource.append(_pairs("instance_attributes", f"{ident}-attributes", attributes))
    migrates = {"allow-migrate": str(can_migrate).lower(), "resource-stickiness": "100"}
    resource.append(_pairs("meta_attributes", f"{ident}-meta", migrates))
    resource.append(operations)
    return resource


def _pairs(tag: str, ident: str, values: dict[str, str]) -> etree._Element:
    pairs = (_tag("nvpair", id=f"{ident}-{name}", name=name, value=value) for name, value in values.items())
    return _tag(tag, *pairs, id=ident)


def _tag(tag: str, *content: etree._Element, **attributes: str) -> etree._Element:
    element = etree.Element(tag, attributes)
    element.extend(content)
    return element

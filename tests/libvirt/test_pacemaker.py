"""Whether a host runs Pacemaker, and which VMs are its resources. A real one is asked in tests/lab."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest

from manager.backends.libvirt import pacemaker
from manager.backends.libvirt.pacemaker import Answer, Resource, ask, command_for, vms_among
from manager.core.errors import FailureCode, OperationError
from manager.core.ids import NodeId
from manager.core.model import ClusterConfig, NodeConfig, Pacemaker
from tests.libvirt.support import domain, driver_host, real_there

CIB = """<resources>
  <template id="vm-template" class="ocf" provider="heartbeat" type="VirtualDomain"/>
  <primitive id="web" class="ocf" provider="heartbeat" type="VirtualDomain">
    <instance_attributes id="web-attributes">
      <nvpair id="web-config" name="config" value="/srv/xml/web-01.xml"/>
      <nvpair id="web-uri" name="hypervisor" value="qemu:///system"/>
    </instance_attributes>
    <meta_attributes id="m"><nvpair id="c" name="config" value="/not/this.xml"/></meta_attributes>
  </primitive>
  <group id="g"><primitive id="db" template="vm-template"/></group>
  <clone id="c"><primitive id="fs" class="ocf" provider="heartbeat" type="Filesystem"/></clone>
  <primitive id="ip" class="ocf" provider="heartbeat" type="IPaddr2"/>
</resources>"""
NONE = Answer(Pacemaker.NONE)


def node(uri: str, ssh: str | None = None) -> NodeConfig:
    return NodeConfig(name=NodeId("n1"), uri=uri, ssh=ssh)


def program(folder: Path, name: str, body: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def through(command: Path) -> NodeConfig:
    """A node whose ssh is this program."""
    return node(f"qemu+ssh://n1/system?command={command}")


@pytest.fixture
def host(tmp_path: Path) -> NodeConfig:
    """A node whose ssh runs what it is told here, with the tools of `tool`."""
    (tmp_path / "tools").mkdir()
    # As sshd does: the last word, to a shell.
    body = f'export PATH="{tmp_path}/tools:/usr/bin:/bin"\nfor word; do :; done\nexec sh -c "$word"'
    return through(program(tmp_path, "ssh", body))


def tool(folder: Path, name: str, body: str) -> None:
    program(folder / "tools", name, body)


def living_of(group: int) -> list[str]:
    """The processes of a group that are no zombies. Source: proc_pid_stat(5)."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group, *_ = file.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state not in "ZX":
                found.append(file.parent.name)
    return found


async def failure(config: NodeConfig) -> FailureCode:
    with pytest.raises(OperationError) as caught:
        await ask(config)
    assert caught.value.failure.node == "n1"
    return caught.value.failure.code


def test_vms_among_the_resources() -> None:
    assert vms_among(CIB) == (Resource("web", "/srv/xml/web-01.xml"), Resource("db"))
    assert vms_among("<resources/>") == ()


@pytest.mark.parametrize("text", ["", "no XML", "<cib/>", "<!DOCTYPE r [<!ENTITY a 'b'>]><resources/>"])
def test_what_is_no_answer(text: str) -> None:
    assert vms_among(text) is None


def test_a_question_goes_the_way_libvirt_goes() -> None:
    start = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5")
    asked = ("echo", "a; b")
    over = "echo 'a; b'"
    assert command_for(node("qemu:///system"), *asked) == asked
    assert command_for(node("qemu+ssh://root@n1/system"), *asked) == (*start, "-l", "root", "--", "n1", over)
    assert command_for(node("qemu+ssh://n1:2222/system?keyfile=/k&known_hosts=/h&no_verify=1"), *asked) == (
        *(*start, "-p", "2222", "-i", "/k", "-o", "UserKnownHostsFile=/h"),
        *("-o", "StrictHostKeyChecking=no", "--", "n1", over),
    )
    assert command_for(node("qemu+tls://n1/system", "admin@n1:22"), *asked) == (
        *(*start, "-p", "22", "-l", "admin", "--", "n1", over),
    )


@pytest.mark.parametrize(
    "config",
    [
        node("qemu+tls://n1/system"),
        node("qemu+unix:///system?socket=/x"),  # may be any host's
        node("test:///default"),
        node("qemu:///system", "-oProxyCommand=evil"),
        node("qemu:///system", "n1 evil"),
    ],
)
async def test_where_there_is_no_way_to_ask(config: NodeConfig) -> None:
    assert command_for(config, "echo") is None
    assert await ask(config) is None


async def test_names_come_from_the_definitions_and_else_from_the_resource(
    tmp_path: Path, host: NodeConfig
) -> None:
    there = tmp_path / "a b; touch evil.xml"
    there.write_text("<domain type='kvm'>\n  <name>R&amp;D</name>\n  <uuid>u</uuid>\n</domain>\n")
    cib = CIB.replace("</resources>", "") + (
        '<primitive id="rd" type="VirtualDomain"><instance_attributes id="i">'
        f'<nvpair id="n" name="config" value="{there}"/></instance_attributes></primitive>'
        '<primitive id="zero" type="VirtualDomain"><instance_attributes id="j">'
        '<nvpair id="o" name="config" value="/dev/zero"/></instance_attributes></primitive></resources>'
    )
    (tmp_path / "cib").write_text(cib)
    tool(tmp_path, "cibadmin", f'[ "$*" = "--query --scope resources" ] && cat {tmp_path}/cib')
    names = frozenset({"web", "web-01", "db", "R&D", "zero"})
    assert await ask(host) == Answer(Pacemaker.RUNS, names)
    assert not list(tmp_path.glob("evil*"))


async def test_no_pacemaker(tmp_path: Path, host: NodeConfig) -> None:
    assert await ask(host) == NONE  # no such tool
    tool(tmp_path, "cibadmin", "exit 102")
    tool(tmp_path, "crmadmin", "exit 102")
    assert await ask(host) == NONE


@pytest.mark.parametrize(("cibadmin", "crmadmin"), [(102, 4), (4, 0)])
async def test_a_login_that_may_not_ask(
    tmp_path: Path, host: NodeConfig, cibadmin: int, crmadmin: int
) -> None:
    tool(tmp_path, "cibadmin", f"exit {cibadmin}")
    tool(tmp_path, "crmadmin", f"exit {crmadmin}")
    assert await ask(host) == Answer(Pacemaker.UNTOLD)


@pytest.mark.parametrize("body", ["exit 255", "echo '<resources/>'; exit 1", "echo nonsense"])
async def test_what_says_nothing(tmp_path: Path, body: str) -> None:
    assert await failure(through(program(tmp_path, "ssh", body))) is FailureCode.OTHER
    assert await failure(through(tmp_path / "none")) is FailureCode.OTHER


@pytest.mark.parametrize(
    ("body", "code"), [("sleep 60", FailureCode.TIMEOUT), ("exec yes", FailureCode.OTHER)]
)
async def test_a_host_that_hangs_or_floods_is_given_up_with_all_that_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, code: FailureCode
) -> None:
    if code is FailureCode.TIMEOUT:
        monkeypatch.setattr(pacemaker, "DEADLINE_S", 0.5)
    pid = tmp_path / "pid"
    begun = time.monotonic()
    assert await failure(through(program(tmp_path, "ssh", f"echo $$ >{pid}\n{body}"))) is code
    assert time.monotonic() - begun < 8
    async with asyncio.timeout(5):
        while living_of(int(pid.read_text())):
            await asyncio.sleep(0.01)


async def test_a_pacemaker_that_hangs_leaves_no_question_behind(
    tmp_path: Path, host: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = pacemaker.QUESTION.replace("timeout 3", "timeout 0.2")
    assert quick != pacemaker.QUESTION
    monkeypatch.setattr(pacemaker, "QUESTION", quick)
    tool(tmp_path, "cibadmin", f"echo $$ >{tmp_path}/pid\nexec sleep 60")
    assert await ask(host) == Answer(Pacemaker.UNTOLD)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("body", ["exec sleep 60", "exit 255"])
async def test_where_no_definition_comes_no_name_is_believed(
    tmp_path: Path, host: NodeConfig, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(pacemaker, "DEADLINE_S", 1.0)
    (tmp_path / "cib").write_text(CIB)
    tool(tmp_path, "cibadmin", f"cat {tmp_path}/cib")
    tool(tmp_path, "xargs", body)
    assert await ask(host) == Answer(Pacemaker.UNTOLD)


async def test_a_connected_host_says_whose_its_vms_are(tmp_path: Path, host: NodeConfig) -> None:
    (tmp_path / "cib").write_text("<resources/>")
    tool(tmp_path, "cibadmin", f"cat {tmp_path}/cib")
    quiet = driver_host(tmp_path, "n1", [domain("web")])
    async with real_there(ClusterConfig(name="c", nodes=(quiet,))) as there:
        assert await there.hypervisor.read_authority(NodeId("n1")) is None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pacemaker, "command_for", lambda _node, *argv: command_for(host, *argv))
            seen = await there.hypervisor.read_authority(NodeId("n1"))
        assert seen is not None
        assert (seen.node, seen.pacemaker, seen.names) == ("n1", Pacemaker.RUNS, frozenset())
        await there.hypervisor.disconnect(NodeId("n1"))
        with pytest.raises(OperationError, match="not connected"):
            await there.hypervisor.read_authority(NodeId("n1"))

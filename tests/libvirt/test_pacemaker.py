"""Whether a host runs Pacemaker, and which VMs are its resources."""

from __future__ import annotations

from pathlib import Path

import pytest

from manager.backends.libvirt import pacemaker
from manager.backends.libvirt.pacemaker import question_for, resources_on, vm_names
from manager.core.events import VmAuthoritySeen
from manager.core.ids import NodeId
from manager.core.model import ClusterConfig, NodeConfig
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


def node(uri: str, ssh: str | None = None) -> NodeConfig:
    return NodeConfig(name=NodeId("n1"), uri=uri, ssh=ssh)


def program(folder: Path, body: str) -> str:
    file = folder / "ssh"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return str(file)


def test_vms_among_the_resources() -> None:
    assert vm_names(CIB) == {"web", "web-01", "db"}
    assert vm_names("<resources/>") == frozenset()


@pytest.mark.parametrize("text", ["", "no XML", "<cib/>", "<!DOCTYPE r [<!ENTITY a 'b'>]><resources/>"])
def test_what_is_no_answer(text: str) -> None:
    assert vm_names(text) is None


def test_the_question_goes_the_way_libvirt_goes() -> None:
    start = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5")
    asked = "cibadmin --query --scope resources"
    assert question_for(node("qemu:///system")) == ("cibadmin", "--query", "--scope", "resources")
    assert question_for(node("qemu+ssh://root@n1/system")) == (*start, "-l", "root", "--", "n1", asked)
    assert question_for(node("qemu+ssh://n1:2222/system?keyfile=/k&known_hosts=/h&no_verify=1")) == (
        *(*start, "-p", "2222", "-i", "/k", "-o", "UserKnownHostsFile=/h"),
        *("-o", "StrictHostKeyChecking=no", "--", "n1", asked),
    )
    assert question_for(node("qemu+tls://n1/system", "admin@n1:22")) == (
        *(*start, "-p", "22", "-l", "admin", "--", "n1", asked),
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
def test_where_there_is_no_way_to_ask(config: NodeConfig) -> None:
    assert question_for(config) is None


async def test_an_answer_is_read(tmp_path: Path) -> None:
    (tmp_path / "cib").write_text(CIB)
    command = program(tmp_path, f"cat {tmp_path}/cib")
    found = await resources_on(node(f"qemu+ssh://n1/system?command={command}"))
    assert found == {"web", "web-01", "db"}


@pytest.mark.parametrize("body", ["exit 127", "echo '<resources/>'; exit 102", "echo nonsense"])
async def test_no_pacemaker(tmp_path: Path, body: str) -> None:
    assert await resources_on(node(f"qemu+ssh://n1/system?command={program(tmp_path, body)}")) is None


async def test_no_program(tmp_path: Path) -> None:
    assert await resources_on(node(f"qemu+ssh://n1/system?command={tmp_path}/none")) is None


@pytest.mark.parametrize("body", ["exec sleep 60", "exec yes"])
async def test_a_host_that_hangs_or_floods_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(pacemaker, "DEADLINE_S", 0.3)
    assert await resources_on(node(f"qemu+ssh://n1/system?command={program(tmp_path, body)}")) is None


async def test_a_host_with_pacemaker_says_so_and_whose_its_vms_are(tmp_path: Path) -> None:
    (tmp_path / "cib").write_text(CIB)
    host = driver_host(tmp_path, "n1", [domain("web"), domain("own")])
    command = program(tmp_path, f"cat {tmp_path}/cib")
    config = ClusterConfig(name="c", nodes=(host,))
    async with real_there(config, connect=False) as there:
        asked = pacemaker.resources_on

        async def with_ssh(_node: NodeConfig) -> frozenset[str] | None:
            return await asked(node(f"qemu+ssh://n1/system?command={command}"))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pacemaker, "resources_on", with_ssh)
            facts = await there.hypervisor.connect(host)
        assert facts.pacemaker
        await there.until(lambda: bool(there.seen))
        told = there.seen[0]
        assert isinstance(told, VmAuthoritySeen)
        assert (told.node, told.names) == ("n1", {"web", "web-01", "db"})
        assert not (await there.hypervisor.connect(host)).pacemaker

"""Domain XML: realistic, strange and hostile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.backends.libvirt.domain_xml import MAX_DEVICES, MAX_XML_BYTES, digest_of, parse
from manager.core.ids import NodeId
from manager.core.model import AgentState, Disk, Display, Interface, Priority, VmConfig, VmSettings

DATA = Path(__file__).parent / "data"


def read(name: str) -> str:
    return (DATA / f"{name}.xml").read_text()


def test_a_server() -> None:
    text = read("server")
    assert parse(text) == VmConfig(
        memory_mib=16384,
        vcpus=4,
        current_memory_mib=8192,
        vcpus_most=8,
        title="Orders database (production)",
        description="Owner: J. Müller",
        machine="pc-q35-7.2",
        arch="x86_64",
        cpu_mode="host-model",
        nvram="/srv/vms/db-01_VARS.fd",
        emulated_tpm=True,
        disks=(
            Disk(target="vda", source="/srv/vms/db-01.qcow2", format="qcow2", cache="none"),
            Disk(
                target="vdb",
                source="/dev/mapper/data-db01",
                kind="block",
                format="raw",
                cache="directsync",
                shareable=True,
            ),
            Disk(
                target="vdc",
                source="rbd://ceph1/vms/db-01-log",
                kind="network",
                format="raw",
                cache="writeback",
            ),
            Disk(target="vdd", source="fast/scratch", kind="volume", format="raw"),
            Disk(target="sda", device="cdrom", read_only=True),
        ),
        interfaces=(
            Interface(mac="52:54:00:aa:bb:01", kind="bridge", source="br0", model="virtio"),
            Interface(mac="52:54:00:aa:bb:02", kind="network", source="storage", model="e1000e"),
        ),
        agent_channel=True,
        agent=AgentState.DISCONNECTED,
        graphics=("spice", "vnc"),
        displays=(Display(kind="spice", address="127.0.0.1", port=5900),),
        settings=VmSettings(priority=Priority.HIGH, tags=("db", "production"), drained_from=NodeId("n3")),
        digest=digest_of(text),
    )


@pytest.mark.parametrize(
    ("device", "display"),
    [
        (
            "<graphics type='vnc' port='5903' autoport='yes' listen='0.0.0.0'>"
            "<listen type='address' address='0.0.0.0'/></graphics>",
            Display(kind="vnc", address="0.0.0.0", port=5903),
        ),
        (
            "<graphics type='spice' tlsPort='5904'><listen type='network' address='fd00::7'/></graphics>",
            Display(kind="spice", address="fd00::7", tls_port=5904),
        ),
        ("<graphics type='vnc' port='-1' autoport='yes' listen='0.0.0.0'/>", None),  # it does not run
        ("<graphics type='vnc'><listen type='socket' socket='/run/a.sock'/></graphics>", None),
        ("<graphics type='sdl' port='5900' listen='0.0.0.0'/>", None),
        ("<graphics type='vnc' port='99999' listen='0.0.0.0'/>", None),
        ("<graphics type='vnc' port='5900' listen='--help'/>", None),
        ("<graphics type='vnc' port='5900' listen='n1/evil'/>", None),
        ("<graphics type='vnc' port='5900' listen='a@b'/>", None),
    ],
)
def test_where_a_display_listens(device: str, display: Display | None) -> None:
    config = parse(f"<domain><name>a</name><memory>1</memory><devices>{device}</devices></domain>")
    assert config.displays == ((display,) if display else ())
    assert len(config.graphics) == 1


def test_a_running_guest_of_the_lab() -> None:
    config = parse(read("lab-running"))
    assert (config.memory_mib, config.vcpus, config.arch) == (96, 1, "x86_64")
    assert (config.agent, config.trouble, config.host_devices) == (AgentState.CONNECTED, "", ())
    assert [disk.cache for disk in config.disks] == ["none"]
    assert config.settings.tags == ("a", "b")


def test_what_ties_a_vm_to_its_host() -> None:
    config = parse(read("passthrough"))
    assert config.host_devices == (
        "PCI 0000:65:00.1",
        "USB 1050:0407",
        "USB bus 1 device 4",
        "mediated device c2177883-f1bb-47f0-914d-32a22e3a8804",
        "SCSI scsi_host2",
        "misc capabilities",
        "network interface 52:54:00:00:00:09 (hostdev)",
        "disk vda (nvme)",
        "smartcard (host)",
        "tpm (passthrough)",
    )
    assert (config.vcpus, config.cpu_mode, config.agent) == (1, "host-passthrough", AgentState.ABSENT)


def test_a_document_type_is_refused_with_all_its_tricks() -> None:
    config = parse(read("entities"))
    assert config == VmConfig(
        memory_mib=0, vcpus=0, digest=config.digest, trouble="it has a document type of its own"
    )


def test_hostile_values_are_read_without_their_tricks() -> None:
    config = parse(read("hostile"))
    assert config.settings == VmSettings()
    assert config.trouble == "its memory size is missing or not understood"
    assert (config.memory_mib, config.vcpus) == (0, 0)
    assert config.title == "red [31m alert"
    assert config.disks[0].source == "/srv/../etc/ shadow"
    assert len(config.host_devices) == 3


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("", "it is not well-formed XML"),
        ("<domain>", "it is not well-formed XML"),
        ("not XML", "it is not well-formed XML"),
        ("<?xml version='1.0' encoding='utf-16'?><domain/>", "it is not well-formed XML"),
        (
            "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><domain a='&x;'/>",
            "it is not well-formed XML",
        ),
        ("<network/>", "it is not a domain but <network>"),
        ("<domain/>", "its memory size is missing"),
        ("<domain><memory unit='MiB'>x</memory></domain>", "its memory size is missing"),
        ("<domain><memory>1024</memory><vcpu>²</vcpu></domain>", "its number of vCPUs"),
        ("<domain>" + " " * MAX_XML_BYTES + "</domain>", "it is larger than 2 MiB"),
    ],
)
def test_what_is_no_definition_says_so(text: str, trouble: str) -> None:
    assert parse(text).trouble.startswith(trouble)


def test_too_many_devices_are_cut_and_said() -> None:
    disks = "<disk/>" * (MAX_DEVICES + 1)
    config = parse(f"<domain><memory>1024</memory><devices>{disks}</devices></domain>")
    assert len(config.disks) == MAX_DEVICES
    assert "more than 1024 devices <disk>" in config.trouble


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory>1048576</memory>", 1024),
        ("<memory unit='KiB'>1048576</memory>", 1024),
        ("<memory unit='b'>1073741824</memory>", 1024),
        ("<memory unit='MB'>1000</memory>", 953),
        ("<memory unit='GiB'>3</memory>", 3072),
        ("<memory unit='TiB'>1</memory>", 1024 * 1024),
    ],
)
def test_units_of_memory(memory: str, mib: int) -> None:
    assert parse(f"<domain>{memory}<vcpu>1</vcpu></domain>").memory_mib == mib


@given(st.text())
def test_any_text_gives_a_config(text: str) -> None:
    assert parse(text).trouble


@given(st.binary(max_size=300))
def test_a_definition_that_was_damaged_gives_a_config(noise: bytes) -> None:
    text = read("server")
    middle = len(text) // 2
    damaged = text[:middle] + noise.decode("latin-1") + text[middle + len(noise) :]
    assert isinstance(parse(damaged), VmConfig)


def test_equal_texts_have_equal_digests() -> None:
    text = read("server")
    assert parse(text).digest == parse(str(text)).digest
    assert parse(text) == replace(parse(text + "\n"), digest=parse(text).digest)
    assert parse(text).digest != parse(text + "\n").digest


@pytest.mark.parametrize(
    "inner",
    [
        "<encryption format='luks'><secret type='passphrase' uuid='u'/></encryption>",
        "<source file='/a'><encryption format='luks'/></source>",
        "<backingStore type='file'><source file='/b'><encryption format='luks'/></source></backingStore>",
    ],
    ids=["disk", "source", "base"],
)
def test_an_encrypted_disk(inner: str) -> None:
    disks = f"<disk type='file'><target dev='vda'/>{inner}</disk><disk type='file'><target dev='vdb'/></disk>"
    config = parse(f"<domain><memory>1024</memory><devices>{disks}</devices></domain>")
    assert [disk.encrypted for disk in config.disks] == [True, False]

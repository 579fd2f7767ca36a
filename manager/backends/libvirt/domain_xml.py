"""Domain XML, which is a stranger's text, as a `VmConfig`. Never raises: what is not understood is said."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from lxml import etree

from manager.backends.libvirt.errors import cleaned
from manager.backends.libvirt.metadata import NAMESPACE, settings_of
from manager.backends.libvirt.xml_text import root_of
from manager.core.model import AgentState, Disk, Display, Interface, VmConfig

MAX_XML_BYTES = 2 * 1024 * 1024
MAX_DEVICES = 1024
MAX_VALUE = 1000
MAX_TEXT = 8000
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f:.]+")
AGENT_CHANNEL = "org.qemu.guest_agent.0"

_UNIT_BYTES = {
    "b": 1,
    "bytes": 1,
    "kb": 1000,
    "k": 1024,
    "kib": 1024,
    "mb": 1000**2,
    "m": 1024**2,
    "mib": 1024**2,
    "gb": 1000**3,
    "g": 1024**3,
    "gib": 1024**3,
    "tb": 1000**4,
    "t": 1024**4,
    "tib": 1024**4,
}


def digest_of(xml: str) -> str:
    """A short name for a definition; equal digests mean an equal text."""
    return hashlib.blake2b(xml.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def parse(xml: str, digest: str = "") -> VmConfig:
    """What a definition says; `trouble` names what could not be understood. Any thread.

    Source: libvirt's domain XML format, formatdomain.html.
    """
    config = VmConfig(memory_mib=0, vcpus=0, digest=digest or digest_of(xml))
    if len(xml) > MAX_XML_BYTES:
        return replace(config, trouble=f"it is larger than {MAX_XML_BYTES // 1024**2} MiB")
    try:
        root = root_of(xml)
    except ValueError as error:
        return replace(config, trouble=cleaned(str(error)))
    if root.tag != "domain":
        return replace(config, trouble=cleaned(f"it is not a domain but <{root.tag}>"))
    return _Reader(root).config(config)


@dataclass(slots=True)
class _Reader:
    """One definition being read; notes the first thing it does not understand."""

    root: etree._Element
    trouble: str = ""

    def config(self, base: VmConfig) -> VmConfig:
        os_type = self.root.find("os/type")
        cpu = self.root.find("cpu")
        has_agent, agent = self._agent()
        config = replace(
            base,
            memory_mib=self._memory_mib(),
            current_memory_mib=self._current_memory_mib(),
            vcpus=self._vcpus(),
            vcpus_most=self._most_vcpus(),
            title=_line(self.root.findtext("title")),
            description=_text(self.root.findtext("description")),
            boot=self._boot(),
            machine=_value(os_type, "machine"),
            arch=_value(os_type, "arch"),
            cpu_mode=_value(cpu, "mode") or ("custom" if cpu is not None else ""),
            disks=tuple(_disk(e) for e in self._devices("disk")),
            interfaces=tuple(_interface(e) for e in self._devices("interface")),
            host_devices=tuple(self._host_devices()),
            nvram=self._nvram(),
            emulated_tpm=any(_value(e.find("backend"), "type") == "emulator" for e in self._devices("tpm")),
            agent_channel=has_agent,
            agent=agent,
            graphics=tuple(_value(e, "type") for e in self._devices("graphics")),
            displays=tuple(_displays(self._devices("graphics"))),
            settings=settings_of(self.root.find(f"metadata/{{{NAMESPACE}}}vm")),
        )
        return replace(config, trouble=self.trouble)

    def _say(self, trouble: str) -> None:
        self.trouble = self.trouble or cleaned(trouble)

    def _devices(self, name: str) -> list[etree._Element]:
        found = self.root.findall(f"devices/{name}")
        if len(found) > MAX_DEVICES:
            self._say(f"it has more than {MAX_DEVICES} devices <{name}>; the rest is not shown")
        return found[:MAX_DEVICES]

    def _memory_mib(self) -> int:
        found = self._size_mib("memory")
        if found is None:
            self._say("its memory size is missing or not understood")
        return found or 0

    def _current_memory_mib(self) -> int:
        """What it has of its memory; 0 is all of it, as libvirt assumes."""
        current = self._size_mib("currentMemory")
        return 0 if current is None or current == self._size_mib("memory") else current

    def _size_mib(self, name: str) -> int | None:
        element = self.root.find(name)
        unit = None if element is None else _UNIT_BYTES.get((element.get("unit") or "KiB").lower())
        number = None if element is None else _number(element.text)
        return None if unit is None or number is None else number * unit // 1024**2

    def _boot(self) -> tuple[str, ...]:
        """Names of devices: by their own orders, or by the kinds that the definition lists instead."""
        devices = [*self._devices("disk"), *self._devices("interface")]
        own = [(_number(_value(e.find("boot"), "order")) or 0, _name(e)) for e in devices]
        if any(order for order, _ in own):
            return tuple(name for order, name in sorted(own) if order and name)
        first: dict[str, str] = {}
        for element in devices:
            kind = _BOOT_KINDS.get(_value(element, "device") or "disk", "")
            first.setdefault("network" if element.tag == "interface" else kind, _name(element))
        kinds = [_value(e, "dev") for e in self.root.findall("os/boot")[:MAX_DEVICES]]
        return tuple(dict.fromkeys(first[kind] for kind in kinds if first.get(kind)))

    def _vcpus(self) -> int:
        element = self.root.find("vcpu")
        if element is None:
            return 1  # what libvirt assumes
        number = _number(element.get("current") or element.text)
        if number is None:
            self._say("its number of vCPUs is not understood")
            return 0
        return number

    def _most_vcpus(self) -> int:
        """Without a restart; 0 are those that it has."""
        most = _number(self.root.findtext("vcpu")) or 0
        return 0 if most == self._vcpus() else most

    def _nvram(self) -> str:
        element = self.root.find("os/nvram")
        if element is None:
            return ""
        return _line(element.text) or _value(element.find("source"), "file")

    def _agent(self) -> tuple[bool, AgentState]:
        for channel in self._devices("channel"):
            target = channel.find("target")
            if _value(target, "name") == AGENT_CHANNEL:
                states = {"connected": AgentState.CONNECTED, "disconnected": AgentState.DISCONNECTED}
                return True, states.get(_value(target, "state"), AgentState.UNKNOWN)
        return False, AgentState.ABSENT

    def _host_devices(self) -> Iterator[str]:
        """What ties the VM to its host. File and block disks are judged elsewhere, by the cluster file."""
        for device in self._devices("hostdev"):
            yield _host_device(device)
        for interface in self._devices("interface"):
            kind = _value(interface, "type")
            if kind in ("hostdev", "vdpa"):
                yield f"network interface {_value(interface.find('mac'), 'address') or '?'} ({kind})"
        for disk in self._devices("disk"):
            kind = _value(disk, "type")
            if kind in ("nvme", "vhostvdpa"):
                yield f"disk {_value(disk.find('target'), 'dev') or '?'} ({kind})"
        for name in ("smartcard", "tpm"):
            for device in self._devices(name):
                kind = _value(device, "mode") or _value(device.find("backend"), "type")
                if kind in ("host", "host-certificates", "passthrough"):
                    yield f"{name} ({kind})"


def _host_device(device: etree._Element) -> str:
    kind = _value(device, "type") or "device"
    source = device.find("source")
    address = device.find("source/address")
    if kind == "pci" and address is not None:
        domain, bus, slot, function = (
            _value(address, name).removeprefix("0x") for name in ("domain", "bus", "slot", "function")
        )
        return f"PCI {domain or '0000'}:{bus}:{slot}.{function}"
    if kind == "usb":
        vendor, product = device.find("source/vendor"), device.find("source/product")
        if vendor is not None and product is not None:
            ids = [_value(e, "id").removeprefix("0x") for e in (vendor, product)]
            return f"USB {ids[0]}:{ids[1]}"
        return f"USB bus {_value(address, 'bus')} device {_value(address, 'device')}"
    if kind == "mdev":
        return f"mediated device {_value(address, 'uuid')}"
    if kind in ("scsi", "scsi_host"):
        name = (
            _value(device.find("source/adapter"), "name") or _value(source, "name") or _value(source, "wwpn")
        )
        return f"SCSI {name or 'device'}"
    return _line(f"{kind} {_value(device, 'mode')}")


_BOOT_KINDS = {"disk": "hd", "lun": "hd", "cdrom": "cdrom", "floppy": "fd"}


def _name(device: etree._Element) -> str:
    """How a disk or an interface is named: by its target, or its MAC address."""
    if device.tag == "interface":
        return _value(device.find("mac"), "address")
    return _value(device.find("target"), "dev")


def _disk(element: etree._Element) -> Disk:
    driver = element.find("driver")
    kind = _value(element, "type") or "file"
    return Disk(
        target=_value(element.find("target"), "dev"),
        device=_value(element, "device") or "disk",
        source=_source(kind, element.find("source")),
        kind=kind,
        format=_value(driver, "type"),
        cache=_value(driver, "cache"),
        read_only=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        encrypted=is_encrypted(element),
    )


def is_encrypted(disk: etree._Element) -> bool:
    """Whether a disk's image, or one that it builds on, is encrypted. Source: formatdomain.html <encryption>.

    The element stands in the disk or in a source.
    """
    return disk.find(".//encryption") is not None


def _source(kind: str, source: etree._Element | None) -> str:
    if source is None:
        return ""
    if kind == "volume":
        return f"{_value(source, 'pool')}/{_value(source, 'volume')}"
    if kind == "network":
        host = _value(source.find("host"), "name")
        return f"{_value(source, 'protocol')}://{host}/{_value(source, 'name')}"
    return _value(source, "file") or _value(source, "dev") or _value(source, "dir")


def _displays(devices: Iterable[etree._Element]) -> Iterator[Display]:
    """Those that listen on a network: a VM that runs has their addresses and ports in its definition."""
    for element in devices:
        kind, listen = _value(element, "type"), element.find("listen")
        address = _value(listen, "address") or _value(element, "listen")
        port, tls_port = (_port(_value(element, name)) for name in ("port", "tlsPort"))
        if kind in ("vnc", "spice") and _ADDRESS.fullmatch(address) and (port or tls_port):
            yield Display(kind=kind, address=address, port=port, tls_port=tls_port)


def _port(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536 else 0


def _interface(element: etree._Element) -> Interface:
    source, kind = element.find("source"), _value(element, "type")
    # A running VM's network names its bridge as well: what was configured comes first.
    found = (_value(source, name) for name in (kind or "bridge", "bridge", "network", "dev", "path"))
    return Interface(
        mac=_value(element.find("mac"), "address"),
        kind=kind,
        source=next((value for value in found if value), ""),
        model=_value(element.find("model"), "type"),
        link_up=_value(element.find("link"), "state") != "down",
    )


def _value(element: etree._Element | None, attribute: str) -> str:
    return "" if element is None else _line(element.get(attribute))


def _line(text: str | None) -> str:
    return cleaned(text[:MAX_VALUE]) if text else ""


def _text(text: str | None) -> str:
    """Several lines without control characters; nothing else is changed, for it may be written back."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in (text or "")[:MAX_TEXT])


def _number(text: str | None) -> int | None:
    digits = (text or "").strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None

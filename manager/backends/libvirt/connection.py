"""Opening a connection in its lane's thread: login, keep-alive, events, and what the host says of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt
from lxml import etree

from manager.backends.libvirt import notes
from manager.backends.libvirt.errors import cleaned
from manager.backends.libvirt.translate import NOTES, RESOURCES, RawEvent
from manager.backends.libvirt.xml_text import root_of
from manager.core.model import NodeFacts, NumaCell
from manager.services.ports import Feature, SecretStore

T = TypeVar("T")

KEEP_ALIVE_INTERVAL_S = 3
KEEP_ALIVE_COUNT = 3
"""A silent host is given up after interval * (count + 1) = 12 s. Source: libvirt virConnectSetKeepAlive."""

_USER_PROMPTS = frozenset({libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_USERNAME})
_SECRET_PROMPTS = frozenset({libvirt.VIR_CRED_PASSPHRASE, libvirt.VIR_CRED_NOECHOPROMPT})
_PROMPTS = [
    *sorted(_USER_PROMPTS),
    *sorted(_SECRET_PROMPTS),
    libvirt.VIR_CRED_ECHOPROMPT,
    libvirt.VIR_CRED_REALM,
]


@dataclass(slots=True)
class Login:
    """Answers for libvirt's authentication callback, from the key ring or as given by a person.

    Nobody is asked from inside the callback: it would hold a lane's thread for as long as a person thinks.
    What is missing is noted, the open fails, the person is asked on the loop, and it is opened again. The key
    ring may block: it is only touched here, in lane threads.
    """

    entry: str  # in the key ring
    secrets: SecretStore
    user: str = ""
    secret: str | None = None
    user_prompt: str = ""  # what was asked for and is not known
    secret_prompt: str = ""
    is_fresh: bool = False  # told by a person, not yet proved
    maybe_refused: bool = False  # the error could be a refused login as well as a host that is not there

    def answer(self, wanted: list[list[Any]], _opaque: object) -> int:
        """Fill in what is known; -1 if something is missing. Source: libvirt virConnectAuthCallbackPtr."""
        complete = True
        for item in wanted:
            kind, prompt, default = item[0], cleaned(str(item[1] or "")), item[3]
            if kind in _USER_PROMPTS:
                self.user = self.user or self.secrets.get(self.entry, "") or default or ""
                item[4] = self.user
                self.user_prompt = "" if self.user else prompt or "User name"
                complete = complete and bool(self.user)
            elif kind in _SECRET_PROMPTS:
                if self.secret is None:
                    self.secret = self.secrets.get(self.entry, self.user)
                item[4] = self.secret
                self.secret_prompt = prompt or "Password"
                complete = complete and self.secret is not None
            elif default is not None:
                item[4] = default
            else:
                complete = False
        return 0 if complete else -1

    def accepted(self) -> None:
        """Keep what a person told, now that it worked."""
        if self.is_fresh and self.secret is not None:
            self.secrets.set(self.entry, self.user, self.secret)
            self.secrets.set(self.entry, "", self.user)
        self.is_fresh = False
        self.user_prompt = self.secret_prompt = ""

    def refused(self) -> None:
        """Forget a secret that the host did not take."""
        if self.secret is not None and not self.is_fresh:
            self.secrets.delete(self.entry, self.user)
        self.secret = None


def open_connection(uri: str, login: Login, *, read_only: bool) -> libvirt.virConnect:
    """Open and switch the keep-alive on. Lane thread only; has no time limit of its own."""
    flags = libvirt.VIR_CONNECT_RO if read_only else 0
    connection = libvirt.openAuth(uri, [_PROMPTS, login.answer, None], flags)
    with contextlib.suppress(libvirt.libvirtError):  # in-process drivers have none
        connection.setKeepAlive(KEEP_ALIVE_INTERVAL_S, KEEP_ALIVE_COUNT)
    return connection


@dataclass(slots=True)
class Watcher:
    """Where a connection's news goes. Both are called in libvirt's event thread and must only pass it on."""

    event: Callable[[RawEvent], None]
    closed: Callable[[int], None] | None  # None for a driver inside this process: nothing can close it


def watch(connection: libvirt.virConnect, watcher: Watcher) -> None:
    """Register for the close of the connection and for the events that we translate.

    A host that does not know one of the events goes without it; lifecycle events it must have.
    """

    def lifecycle(_c: object, domain: libvirt.virDomain, event: int, detail: int, _o: object) -> None:
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        watcher.event(RawEvent(kind, domain.UUIDString(), domain.name(), event, detail))

    def other(_c: object, domain: libvirt.virDomain, *details: Any) -> None:
        watcher.event(RawEvent(details[-1], domain.UUIDString(), domain.name()))

    def iteration(_c: object, domain: libvirt.virDomain, number: int, kind: int) -> None:
        watcher.event(RawEvent(kind, domain.UUIDString(), domain.name(), number))

    def block_job(
        _c: object, domain: libvirt.virDomain, _disk: str, job: int, status: int, kind: int
    ) -> None:
        watcher.event(RawEvent(kind, domain.UUIDString(), domain.name(), job, status))

    def resources(*_: Any) -> None:
        watcher.event(RawEvent(RESOURCES, "", ""))

    def note(_: Any, secret: libvirt.virSecret, *__: Any) -> None:
        if notes.is_ours(secret.usageID()):
            watcher.event(RawEvent(NOTES, "", ""))

    def agent(_c: object, domain: libvirt.virDomain, state: int, _reason: int, kind: int) -> None:
        watcher.event(RawEvent(kind, domain.UUIDString(), domain.name(), state))

    def io_error(
        _c: object, domain: libvirt.virDomain, path: str, alias: str, action: int, reason: str, kind: int
    ) -> None:
        texts = (path or alias or "", reason or "")
        watcher.event(RawEvent(kind, domain.UUIDString(), domain.name(), action, texts=texts))

    if (tell_closed := watcher.closed) is not None:
        connection.registerCloseCallback(lambda _c, reason, _o: tell_closed(reason), None)
    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
    for kind in (
        libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
        libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
        libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
    ):
        with contextlib.suppress(libvirt.libvirtError):
            connection.domainEventRegisterAny(None, kind, other, kind)
    for kind, heard in (
        (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, iteration),
        (libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, block_job),
        (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, agent),
        (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, io_error),
    ):
        with contextlib.suppress(libvirt.libvirtError):
            connection.domainEventRegisterAny(None, kind, heard, kind)
    for kind in (libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, libvirt.VIR_STORAGE_POOL_EVENT_ID_REFRESH):
        with contextlib.suppress(libvirt.libvirtError):
            connection.storagePoolEventRegisterAny(None, kind, resources, None)
    with contextlib.suppress(libvirt.libvirtError):
        connection.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, resources, None)
    for kind in (libvirt.VIR_SECRET_EVENT_ID_LIFECYCLE, libvirt.VIR_SECRET_EVENT_ID_VALUE_CHANGED):
        with contextlib.suppress(libvirt.libvirtError):
            connection.secretEventRegisterAny(None, kind, note, None)


MAX_CELLS = 256
MAX_MACHINES = 2000


@dataclass(slots=True)
class _Capabilities:
    """What we pick from the capabilities document."""

    host_uuid: str = ""
    cpu_model: str = ""
    cells: tuple[NumaCell, ...] = ()
    machines: frozenset[str] = frozenset()
    live_migration: bool = False


def facts_of(connection: libvirt.virConnect, *, read_only: bool, through_ssh: bool) -> NodeFacts:
    """What the host says of itself; what it cannot say is left out. Lane thread only.

    Source: libvirt virNodeGetInfo, virNodeGetMemoryStats, virConnectGetCapabilities.
    """
    model, memory_mib, cpus, mhz, *_ = connection.getInfo()
    capabilities = _capabilities_of(_or(connection.getCapabilities, ""))
    features: set[str] = set()
    all_cells = libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS
    memory_kib: int = _or(lambda: connection.getMemoryStats(all_cells).get("total", 0), 0)
    if memory_kib:
        features.add(Feature.LOAD_FIGURES)
    driver = _or(connection.getType, "")
    if capabilities.live_migration:
        features |= {Feature.LIVE_MIGRATION, Feature.JOB_FIGURES}
        # By driver: libvirt's own question for what one can do is private.
        if driver in ("QEMU", "Xen"):
            features.add(Feature.PEER_TO_PEER)
        if driver == "QEMU":
            # Whether the kernel lets this host's QEMU is only told to a move that permits it.
            features.add(Feature.POST_COPY)
            if _or(connection.numOfStoragePools, None) is not None:
                features.add(Feature.OTHER_MOVES)
    with contextlib.suppress(libvirt.libvirtError):  # there may be no such daemon, or no right to ask it
        connection.numOfSecrets()
        features.add(Feature.NOTES)
    with contextlib.suppress(libvirt.libvirtError):
        if connection.setKeepAlive(KEEP_ALIVE_INTERVAL_S, KEEP_ALIVE_COUNT) == 0:
            features.add(Feature.KEEP_ALIVE)
    return NodeFacts(
        hostname=cleaned(_or(connection.getHostname, "")),
        host_uuid=capabilities.host_uuid,
        cpus=cpus,
        memory_mib=memory_kib // 1024
        or memory_mib,  # the node info counts only the first memory block of some hosts
        cpu_model=capabilities.cpu_model or cleaned(model),
        cpu_mhz=mhz,
        libvirt_version=_version(_or(connection.getLibVersion, 0)),
        hypervisor=cleaned(driver),
        hypervisor_version=_version(_or(connection.getVersion, 0)),
        cells=capabilities.cells,
        machines=capabilities.machines,
        read_only=read_only,
        encrypted=through_ssh or bool(_or(connection.isEncrypted, 0)),  # libvirt does not count ssh
        features=frozenset(features),
    )


def _or(ask: Callable[[], T], otherwise: T) -> T:
    try:
        return ask()
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_INVALID_ARG):
            return otherwise
        raise


def _capabilities_of(xml: str) -> _Capabilities:
    found = _Capabilities()
    try:
        root = root_of(xml)
    except ValueError:
        return found
    found.host_uuid = cleaned(root.findtext("host/uuid") or "")
    found.cpu_model = cleaned(root.findtext("host/cpu/model") or "")
    found.cells = tuple(_cell(e) for e in root.findall("host/topology/cells/cell")[:MAX_CELLS])
    found.machines = frozenset(_machines(root)[:MAX_MACHINES])
    found.live_migration = root.find("host/migration_features/live") is not None
    return found


def _machines(root: etree._Element) -> list[str]:
    """Each architecture with each machine type that its guests can have, by all its names."""
    return [
        f"{cleaned(arch.get('name') or '')} {cleaned(name)}"
        for arch in root.findall("guest/arch")
        for machine in arch.iter("machine")
        for name in {machine.text or "", machine.get("canonical") or ""}
        if name
    ]


def _cell(element: etree._Element) -> NumaCell:
    def number(text: str | None) -> int:
        return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else 0

    cpus = element.find("cpus")
    return NumaCell(
        id=number(element.get("id")),
        cpus=number(cpus.get("num")) if cpus is not None else 0,
        memory_mib=number(element.findtext("memory")) // 1024,  # KiB
    )


def _version(number: int) -> str:
    """``9.0.0`` from libvirt's 9000000."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}" if number else ""

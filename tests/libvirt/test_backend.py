"""The adapter on hosts of libvirt's test driver, beyond the contract."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from manager.backends.libvirt import backend, reading
from manager.backends.libvirt.backend import LibvirtHypervisor
from manager.backends.libvirt.translate import RawEvent
from manager.core.effects import VmChange
from manager.core.errors import FailureCode, OperationError
from manager.core.events import Event, NodeLost, VmDefinitionChanged, VmStateChanged, VmUndefined
from manager.core.ids import NodeId
from manager.core.model import ClusterConfig, NodeConfig, Priority, StatusCause, VmSettings, VmStatus
from manager.services.ports import Feature, Hypervisor
from tests.libvirt.support import MemorySecrets, RealThere, domain, driver_host, real_there, vm_id

N1 = NodeId("n1")


def test_it_is_the_port() -> None:
    port: type[Hypervisor] = LibvirtHypervisor
    assert port is LibvirtHypervisor


def one_host(folder: Path, *domains: str, auth: str = "", read_only: bool = False) -> ClusterConfig:
    return ClusterConfig(
        name="test", nodes=(driver_host(folder, "n1", domains, auth=auth),), read_only=read_only
    )


async def on_host(there: RealThere, work: Callable[[Any], Any]) -> Any:
    """Do something behind the adapter's back, in the one connection that this world has."""
    return await there.hypervisor._links.of(N1).watch.call(work, 5, "by hand")


async def failure_of(call: Any) -> Any:
    with pytest.raises(OperationError) as caught:
        await call
    return caught.value.failure


async def test_all_states_of_an_inventory(tmp_path: Path) -> None:
    saved = "<test:hasmanagedsave/>"
    config = one_host(
        tmp_path,
        domain("running"),
        domain("paused", state=3),
        domain("off", state=5),
        domain("saved", state=5, driver=saved),
        domain("crashed", state=6),
    )
    async with real_there(config) as there:
        read = await there.hypervisor.read_inventory(N1)
    assert {seen.name: seen.status for seen in read.vms} == {
        "running": VmStatus.RUNNING,
        "paused": VmStatus.PAUSED,
        "off": VmStatus.OFF,
        "saved": VmStatus.SAVED,
        "crashed": VmStatus.CRASHED,
    }
    assert {seen.name for seen in read.vms if seen.incarnation is None} == {"off", "saved"}


class Counted:
    """A connection that counts the calls made through it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._connection, name)


async def test_an_inventory_is_two_bulk_calls(tmp_path: Path) -> None:
    config = one_host(tmp_path, *(domain(f"vm{number}") for number in range(20)))
    async with real_there(config) as there:

        def count(connection: Any) -> tuple[list[str], int]:
            counted = Counted(connection)
            seen: Any = reading.inventory(counted)
            return counted.calls, len(seen)

        calls, found = await on_host(there, count)
    assert calls == ["listAllDomains", "getAllDomainStats"]
    assert found == 20


def no_support() -> libvirt.libvirtError:
    error = libvirt.libvirtError("x")
    error.err = (libvirt.VIR_ERR_NO_SUPPORT, 0, "no", 2)
    return error


async def test_a_driver_without_bulk_statistics_is_asked_one_by_one(tmp_path: Path) -> None:
    class Without(Counted):
        def getAllDomainStats(self, *_: int) -> Any:
            raise no_support()

    async with real_there(one_host(tmp_path, domain("a"), domain("b", state=5))) as there:

        def read(connection: Any) -> Any:
            without: Any = Without(connection)
            return reading.inventory(without)

        seen = await on_host(there, read)
    assert {vm.name: vm.status for vm in seen} == {"a": VmStatus.RUNNING, "b": VmStatus.OFF}


async def test_what_other_tools_do_is_told(tmp_path: Path) -> None:
    async with real_there(one_host(tmp_path, domain("a"))) as there:
        other = domain("other", state=1)

        def by_hand(connection: Any) -> None:
            made = connection.createXML(other, 0)
            made.suspend()
            connection.lookupByName("a").setMetadata(
                libvirt.VIR_DOMAIN_METADATA_TITLE, "A", None, None, libvirt.VIR_DOMAIN_AFFECT_CONFIG
            )

        await on_host(there, by_hand)
        await there.until(lambda: any(isinstance(event, VmDefinitionChanged) for event in there.seen))
        told = [e for e in there.seen if isinstance(e, VmStateChanged)]
        assert [(e.name, e.status, e.cause) for e in told] == [
            ("other", VmStatus.RUNNING, StatusCause.BOOTED),
            ("other", VmStatus.PAUSED, StatusCause.USER),
        ]
        assert all(event.at_s > 0 for event in there.seen)


async def test_a_transient_vm_that_stops_is_gone(tmp_path: Path) -> None:
    async with real_there(one_host(tmp_path, domain("a"))) as there:
        await on_host(there, lambda connection: connection.createXML(domain("brief"), 0) and None)
        await on_host(there, lambda connection: connection.lookupByName("brief").destroy())
        gone = VmUndefined(at_s=0, node=N1, vm=vm_id("brief"))
        await there.until(lambda: any(_same(event, gone) for event in there.seen))
        await there.hypervisor.change_vm(there.changing(vm_id("a"), VmChange.TURN_OFF))
        await there.until_told(vm_id("a"), VmStatus.OFF)
        assert (await there.hypervisor.read_inventory(N1)).vms[0].status is VmStatus.OFF
        assert not any(_same(event, VmUndefined(at_s=0, node=N1, vm=vm_id("a"))) for event in there.seen)


def _same(event: Event, other: VmUndefined) -> bool:
    return isinstance(event, VmUndefined) and (event.node, event.vm) == (other.node, other.vm)


async def test_a_vm_saved_into_somebodys_own_file_is_off(tmp_path: Path) -> None:
    vm = vm_id("a")
    async with real_there(one_host(tmp_path, domain("a"))) as there:
        file = str(tmp_path / "a.save")
        await on_host(there, lambda connection: connection.lookupByName("a").save(file))
        await there.until_told(vm, VmStatus.OFF, StatusCause.SAVED)
        assert await there.status(vm) is VmStatus.OFF


async def test_a_vm_that_disappears_is_undefined(tmp_path: Path) -> None:
    vm = vm_id("a")
    async with real_there(one_host(tmp_path, domain("a", state=5))) as there:
        await there.hypervisor.read_vm(N1, vm)
        await on_host(there, lambda connection: connection.lookupByName("a").undefine())
        await there.until(lambda: any(isinstance(event, VmUndefined) for event in there.seen))
        assert (await failure_of(there.hypervisor.read_vm(N1, vm))).code is FailureCode.NOT_FOUND


async def test_a_crashed_vm_can_be_started_and_turned_off(tmp_path: Path) -> None:
    vm = vm_id("a")
    async with real_there(one_host(tmp_path, domain("a", state=5))) as there:
        await there.change(vm, VmChange.START)
        await there.until_told(vm, VmStatus.RUNNING)
        await there.change(vm, VmChange.TURN_OFF)
        assert await there.status(vm) is VmStatus.OFF


async def test_what_this_driver_cannot_do_is_refused_with_its_reason(tmp_path: Path) -> None:
    vm = vm_id("a")
    async with real_there(one_host(tmp_path, domain("a"))) as there:
        assert there.facts[N1].features == frozenset()
        failure = await failure_of(there.hypervisor.change_vm(there.changing(vm, VmChange.SHUT_DOWN_AGENT)))
        assert failure.code is FailureCode.NOT_SUPPORTED
        assert failure.text
        assert not there.can(Feature.LOAD_FIGURES)


async def test_foreign_metadata_is_kept_and_bad_metadata_is_not_overwritten(tmp_path: Path) -> None:
    vm = vm_id("a")
    theirs = (
        "<metadata><o:thing xmlns:o='urn:other'>1</o:thing>"
        "<m:vm xmlns:m='urn:muster:vm:1' owners='n1' priority='low'><m:monitor service='pg'/></m:vm>"
        "</metadata>"
    )
    async with real_there(one_host(tmp_path, domain("a", inner=theirs))) as there:
        settings = VmSettings(priority=Priority.HIGH, tags=("x",))
        await there.hypervisor.write_settings(there.writing(vm, settings))
        text = await on_host(there, lambda connection: connection.lookupByName("a").XMLDesc(0))
        assert (await there.hypervisor.read_vm(N1, vm)).config.settings == settings
    assert '<o:thing xmlns:o="urn:other">1</o:thing>' in text
    assert 'owners="n1"' in text
    assert 'monitor service="pg"' in text


async def test_an_unchanged_definition_is_not_parsed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = reading.domain_xml.parse

    def counting(xml: str, digest: str = "") -> Any:
        parsed.append(digest)
        return parse(xml, digest)

    monkeypatch.setattr(reading.domain_xml, "parse", counting)
    vm = vm_id("a")
    async with real_there(one_host(tmp_path, domain("a"))) as there:
        for _ in range(3):
            await there.hypervisor.read_vm(N1, vm)
        assert len(parsed) == 2  # as it runs, and as it is stored
        await there.hypervisor.write_settings(there.writing(vm, VmSettings(tags=("x",))))
        await there.hypervisor.read_vm(N1, vm)
        assert len(parsed) == 4


async def test_a_read_only_connection_changes_nothing(tmp_path: Path) -> None:
    vm = vm_id("a")
    async with real_there(one_host(tmp_path, domain("a"), read_only=True)) as there:
        assert there.facts[N1].read_only
        failure = await failure_of(there.hypervisor.change_vm(there.changing(vm, VmChange.TURN_OFF)))
        assert failure.code is FailureCode.DENIED
        assert await there.status(vm) is VmStatus.RUNNING


async def test_many_events_wake_the_loop_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"vm{number}" for number in range(200)]
    async with real_there(one_host(tmp_path, *map(domain, names))) as there:
        wakes = 0
        take = there.hypervisor._take_news

        def counting() -> None:
            nonlocal wakes
            wakes += 1
            take()

        monkeypatch.setattr(there.hypervisor, "_take_news", counting)

        def burst(connection: Any) -> None:
            for found in connection.listAllDomains():
                found.suspend()

        def paused() -> int:
            return sum(isinstance(e, VmStateChanged) and e.status is VmStatus.PAUSED for e in there.seen)

        await on_host(there, burst)
        await there.until(lambda: paused() == len(names))
        assert wakes < len(names)


async def test_events_of_a_replaced_connection_are_not_told(tmp_path: Path) -> None:
    vm = vm_id("a")
    config = one_host(tmp_path, domain("a"))
    async with real_there(config) as there:
        old = there.hypervisor._links.of(N1)
        await there.hypervisor.connect(config.nodes[0])
        late = RawEvent(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, vm, "a", libvirt.VIR_DOMAIN_EVENT_SUSPENDED)
        there.hypervisor._news.append((old, late))
        there.hypervisor._news.append((old, libvirt.VIR_CONNECT_CLOSE_REASON_ERROR))
        there.hypervisor._take_news()
        await there.change(vm, VmChange.TURN_OFF)
        await there.until_told(vm, VmStatus.OFF)
        assert len(there.seen) == 1


# --- what does not connect ---


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("qemu+pigeon://n1/system", FailureCode.INCOMPATIBLE),
        ("::bad", FailureCode.INCOMPATIBLE),
        ("test:///no/such/file.xml", FailureCode.INCOMPATIBLE),
        ("qemu+unix:///system?socket=/no/such/socket", FailureCode.UNREACHABLE),
        ("qemu+tcp://127.0.0.1:1/system", FailureCode.UNREACHABLE),
        ("qemu+tcp://no-such-host.invalid/system", FailureCode.UNREACHABLE),
    ],
)
async def test_a_wrong_uri_says_why(uri: str, code: FailureCode, capfd: pytest.CaptureFixture[str]) -> None:
    node = NodeConfig(name=N1, uri=uri)
    async with real_there(ClusterConfig(name="c", nodes=(node,)), connect=False) as there:
        failure = await failure_of(there.hypervisor.connect(node))
        assert (failure.code, failure.node) == (code, N1)
        assert failure.text
        assert failure.detail.startswith("libvirt error")
        assert (await failure_of(there.hypervisor.read_inventory(N1))).code is FailureCode.UNREACHABLE
        assert not there.seen
    assert "error" not in capfd.readouterr().err  # libvirt's own habit of printing them is off


@pytest.mark.parametrize(("listens", "code"), [(True, FailureCode.LOGIN), (False, FailureCode.UNREACHABLE)])
async def test_the_port_tells_a_refused_login_from_a_dead_host(
    tmp_path: Path, listens: bool, code: FailureCode
) -> None:
    """ssh ends in the same way after both: a closed pipe, and words that are for people."""
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho 'jane@n1: Permission denied (publickey).' >&2\nexit 255\n")
    ssh.chmod(0o755)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if not listens:
        server.close()
        await server.wait_closed()
    node = NodeConfig(name=N1, uri=f"qemu+ssh://jane@127.0.0.1:{port}/system?command={ssh}")
    async with real_there(ClusterConfig(name="c", nodes=(node,)), connect=False) as there:
        failure = await failure_of(there.hypervisor.connect(node))
    server.close()
    assert (failure.code, failure.node) == (code, N1)
    assert "Permission denied (publickey)" in failure.text


async def test_a_host_that_accepts_and_never_answers_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "CONNECT_S", 0.3)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        good = driver_host(tmp_path, "n1", [domain("a")])
        bad = NodeConfig(name=NodeId("n2"), uri=f"qemu+unix:///system?socket={path}")
        config = ClusterConfig(name="c", nodes=(good, bad))
        async with real_there(config, connect=False) as there:
            hanging = asyncio.ensure_future(failure_of(there.hypervisor.connect(bad)))
            await there.hypervisor.connect(good)
            assert len((await there.hypervisor.read_inventory(N1)).vms) == 1
            failure = await hanging
            assert (failure.code, failure.node) == (FailureCode.TIMEOUT, "n2")
            before = time.monotonic()
        assert time.monotonic() - before < 1


async def test_a_watching_call_that_does_not_return_loses_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(backend, "READ_S", 0.1)
    async with real_there(one_host(tmp_path, domain("a"))) as there:
        monkeypatch.setattr(reading, "inventory", lambda _connection: gate.wait())
        failure = await failure_of(there.hypervisor.read_inventory(N1))
        assert failure.code is FailureCode.TIMEOUT
        await there.until(lambda: bool(there.seen))
        lost = there.seen[0]
        assert isinstance(lost, NodeLost)
        assert (lost.node, lost.failure.code) == (N1, FailureCode.TIMEOUT)
        assert (await failure_of(there.hypervisor.read_inventory(N1))).code is FailureCode.UNREACHABLE
        monkeypatch.undo()
        await there.hypervisor.connect(there.config.nodes[0])
        assert await there.status(vm_id("a")) is VmStatus.RUNNING
        gate.set()
        assert len([event for event in there.seen if isinstance(event, NodeLost)]) == 1


# --- logging in ---

AUTH = "<auth><user password='s3cret'>jane</user></auth>"


class Person:
    """Somebody who is asked."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, _node: str, user: str, prompt: str) -> str | None:
        self.asked.append((user, prompt))
        return self.answers.pop(0)


def locked(folder: Path) -> tuple[ClusterConfig, NodeConfig]:
    config = one_host(folder, domain("a"), auth=AUTH)
    node = NodeConfig(name=N1, uri=config.nodes[0].uri, credentials="entry")
    return ClusterConfig(name="c", nodes=(node,)), node


async def test_a_password_is_asked_for_once_and_kept(tmp_path: Path) -> None:
    config, node = locked(tmp_path)
    secrets, person = MemorySecrets(), Person("jane", "s3cret")
    async with real_there(config, secrets=secrets, ask=person, connect=False) as there:
        await there.hypervisor.connect(node)
        assert [user for user, _ in person.asked] == ["", "jane"]
        assert all(prompt for _, prompt in person.asked)
        assert secrets.kept == {("entry", "jane"): "s3cret", ("entry", ""): "jane"}
        await there.hypervisor.connect(node)
        assert len(person.asked) == 2


async def test_a_refused_password_is_forgotten_and_asked_for_again(tmp_path: Path) -> None:
    config, node = locked(tmp_path)
    secrets = MemorySecrets({("entry", ""): "jane", ("entry", "jane"): "old"})
    person = Person("s3cret")
    async with real_there(config, secrets=secrets, ask=person, connect=False) as there:
        await there.hypervisor.connect(node)
        assert len(person.asked) == 1
        assert secrets.kept[("entry", "jane")] == "s3cret"


async def test_a_wrong_answer_is_a_refused_login_and_not_kept(tmp_path: Path) -> None:
    config, node = locked(tmp_path)
    secrets, person = MemorySecrets(), Person("jane", "guess")
    async with real_there(config, secrets=secrets, ask=person, connect=False) as there:
        failure = await failure_of(there.hypervisor.connect(node))
    assert (failure.code, failure.node) == (FailureCode.LOGIN, N1)
    assert secrets.kept == {}
    assert "guess" not in repr(failure)


@pytest.mark.parametrize("person", [None, Person(None)])
async def test_without_an_answer_the_login_fails(tmp_path: Path, person: Person | None) -> None:
    config, node = locked(tmp_path)
    async with real_there(config, ask=person, connect=False) as there:
        assert (await failure_of(there.hypervisor.connect(node))).code is FailureCode.LOGIN

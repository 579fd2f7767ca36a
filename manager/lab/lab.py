"""A lab: real libvirt daemons with real guests on this one machine, for trying and testing.

Nodes are namespaces (`manager.lab.node`) around one switch (`manager.lab.network`). A lab outlives the
program that made it: everything needed to use and end it stands in ``lab.json`` in its folder.
"""

# ruff: noqa: ASYNC240 - the files are few and small, and this loop serves nobody else

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import time
import uuid
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from manager.lab import guest, network, pacemaker, pki, requirements, ssh
from manager.lab.errors import LabError
from manager.lab.guest import VmSpec
from manager.lab.node import UNIX_SOCKET_LIMIT, Layout, Node, NodeState
from manager.lab.processes import ProcessId, Ran, attempt, end, inside, is_alive, marked, send, tail
from manager.lab.requirements import Progress

STATE_FORMAT = 1
START_DEADLINE_S = 120.0  # of one guest, on a machine that boots many


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSpec:
    """What kind of lab is wanted."""

    directory: Path
    nodes: int = 3
    vms: int = 6
    memory_mib: int = 96  # per guest
    remote: bool = True  # ssh and tls as well
    wait_guests: bool = False  # until every guest has booted


@dataclass(slots=True, kw_only=True)
class LabState:
    """What is written down about a lab (``lab.json``). Changed only by `Lab`, which saves it."""

    format: int = STATE_FORMAT
    id: str
    boot_id: str  # of this machine: process ids mean nothing after its next start
    data: str
    complete: bool = False
    remote: bool = True
    accelerator: str = "qemu"
    subnet: str = ""
    link: str = ""
    switch: ProcessId | None = None
    nodes: list[NodeState] = field(default_factory=list)
    vms: list[VmSpec] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node now."""

    name: str
    address: str
    power: str  # on, off
    daemon: str  # running, down, stopped (SIGSTOP), hung
    network: str  # connected, cut
    pid: int  # of the daemon, 0 without one
    uri: str
    peer_uri: str
    ssh_uri: str
    tls_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VmStatus:
    """One VM on one node now."""

    name: str
    uuid: str
    node: str
    state: str  # as virsh names it: running, paused, shut off...


@dataclass(frozen=True, slots=True, kw_only=True)
class LabStatus:
    """A lab now: what ``muster lab up|status --json`` prints."""

    directory: str
    state: str  # up, broken
    cluster_file: str
    cluster_file_ssh: str
    cluster_file_tls: str
    shared: str
    accelerator: str  # kvm, qemu (that is: TCG)
    subnet: str
    link: str
    nodes: tuple[NodeStatus, ...]
    vms: tuple[VmStatus, ...]


def default_directory() -> Path:
    """Where a lab goes without ``--dir``: short, for unix sockets have room for 107 bytes."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "muster-lab" if runtime else Path("/run/muster-lab/default")


class Lab:
    """One living lab. Made by `up`, found again by `attach`, ended by `down`.

    All its coroutines belong to one event loop; no two programs should change one lab at the same time.
    """

    def __init__(self, layout: Layout, state: LabState) -> None:
        self._layout = layout
        self._state = state
        self._nodes = [Node(layout, node, remote=state.remote) for node in state.nodes]

    # ---------------------------------------------------------------- making, finding, ending

    @classmethod
    async def up(cls, spec: LabSpec, progress: Progress = lambda _: None) -> Lab:
        """Bring a lab up; returns when all daemons answer and all guests run.

        A living one is returned as it is. Interrupted or failing, it takes away what it made.

        Raises:
            LabError: Not root, packages missing (exit code 2), or a step failed or took too long.
        """
        _check_machine(spec)
        directory = _checked_directory(spec)
        with _lock(directory):
            if (known := cls._read(directory)) is not None:
                lab = cls(*known)
                if lab._state.complete and lab.is_alive:
                    progress(f"the lab in {directory} is up already")
                    return lab
                raise LabError(
                    f"The lab in {directory} is incomplete. End it first: muster lab down --dir {directory}"
                )
            if marked(directory):
                raise LabError(f"Processes of an old lab still run. Try: muster lab down --dir {directory}")
            image = await guest.build_image(progress)
            kind = await guest.accelerator(image, progress)
            layout = Layout(directory=directory, data=_data_directory(directory))
            state = LabState(
                id=_lab_id(directory),
                boot_id=_boot_id(),
                data=str(layout.data),
                remote=spec.remote,
                accelerator=kind,
            )
            lab = cls(layout, state)
            try:
                await lab._build(spec, image, progress)
            except BaseException:
                progress("taking away what was made")
                await asyncio.shield(lab._tear_down())
                raise
            return lab

    @classmethod
    def attach(cls, directory: Path) -> Lab | None:
        """The lab in a folder, whoever made it, or None if there is none.

        Raises:
            LabError: Not root, or its ``lab.json`` cannot be read.
        """
        _check_root()
        known = cls._read(Path(os.path.realpath(directory)))
        return cls(*known) if known else None

    @classmethod
    async def remove(cls, directory: Path, *, keep: bool = False) -> bool:
        """End whatever lab is or was in a folder, also one that was never finished. False if there is none.

        Args:
            directory: The lab's folder.
            keep: Leave its files (logs, disks) where they are.

        Raises:
            LabError: Not root, an `up` is at work there, or something does not end.
        """
        _check_root()
        directory = Path(os.path.realpath(directory))
        if not directory.is_dir() and not marked(directory):
            return False
        with _lock(directory):
            known = cls._read(directory)
            if known is None and not marked(directory):
                _remove_if_empty(directory)
                return False
            layout, state = known or (
                Layout(directory=directory, data=directory / "data"),
                LabState(id=_lab_id(directory), boot_id=_boot_id(), data=str(directory / "data")),
            )
            await cls(layout, state)._tear_down(keep=keep)
            return True

    async def down(self, *, keep: bool = False) -> None:
        """End the lab: no process, namespace, link, mount or (unless `keep`) file of it is left.

        Raises:
            LabError: Something does not end in time.
        """
        with _lock(self.directory):
            await self._tear_down(keep=keep)

    @staticmethod
    def _read(directory: Path) -> tuple[Layout, LabState] | None:
        file = directory / "lab.json"
        try:
            state = msgspec.json.decode(file.read_bytes(), type=LabState)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise LabError(f"{file} cannot be read: {error}") from error
        if state.boot_id != _boot_id():
            state.switch = None
            for node in state.nodes:
                node.keeper = None
        return Layout(directory=directory, data=Path(state.data)), state

    def _save(self) -> None:
        half = self._layout.state_file.with_suffix(".new")
        half.write_bytes(msgspec.json.format(msgspec.json.encode(self._state)))
        half.replace(self._layout.state_file)

    async def _build(self, spec: LabSpec, image: guest.GuestImage, progress: Progress) -> None:
        self._save()  # first of all: from here on `down` knows what to look for
        for folder in (self._layout.shared, self._layout.consoles, self.directory / "nodes"):
            folder.mkdir(parents=True, exist_ok=True)
        self._state.switch = await network.start_switch(self.directory)
        self._save()
        self._state.subnet, self._state.link = await network.plug_machine(self.directory, self._state.switch)
        self._plan_nodes(spec)
        self._plan_vms(spec)
        self._save()
        await self._write_files(image)

        progress(f"starting {spec.nodes} nodes in {self._state.subnet}")
        await _all(self._power_on(node) for node in self._nodes)
        self._write_cluster_files()

        if self._state.vms:
            kind = "KVM" if self.accelerator == "kvm" else "TCG"
            progress(f"starting {len(self._state.vms)} guests under {kind}")
        bound = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        await _all(self._define_and_start(vm, bound) for vm in self._state.vms)
        if spec.wait_guests:
            progress("waiting until the guests have booted")
            await _all(self.wait_ready(vm.name, timeout_s=START_DEADLINE_S) for vm in self._state.vms)
        self._state.complete = True
        self._save()

    def _plan_nodes(self, spec: LabSpec) -> None:
        for number in range(1, spec.nodes + 1):
            self._state.nodes.append(
                NodeState(
                    name=f"n{number}",
                    number=number,
                    address=network.address(self._state.subnet, network.FIRST_NODE_HOST + number),
                    host_uuid=str(
                        uuid.uuid5(uuid.NAMESPACE_URL, f"muster-lab:{self._state.id}:node:{number}")
                    ),
                ),
            )
        self._nodes = [Node(self._layout, node, remote=self._state.remote) for node in self._state.nodes]

    def _plan_vms(self, spec: LabSpec) -> None:
        for index, name in enumerate(guest.believable_names(spec.vms)):
            node = self._state.nodes[index % len(self._state.nodes)].name
            self._state.vms.append(
                VmSpec(
                    name=name,
                    node=node,
                    memory_mib=spec.memory_mib,
                    vga=index == 0,
                    address=self._guest_address(index),
                ),
            )

    def _guest_address(self, index: int) -> str:
        if index >= network.MAXIMUM_GUEST_ADDRESSES:
            return ""
        return network.address(self._state.subnet, network.FIRST_GUEST_HOST + 1 + index)

    async def _write_files(self, image: guest.GuestImage) -> None:
        nodes = [(node.name, node.address) for node in self._nodes]
        hosts = "127.0.0.1 localhost\n" + "".join(f"{address} {name} {name}.lab\n" for name, address in nodes)
        for node in self._nodes:
            node.write_files(hosts)
        copies = [(image.kernel, "vmlinuz"), (image.initramfs, "initrd.img"), (image.disk, "base.qcow2")]
        work: list[Awaitable[object]] = [
            asyncio.to_thread(shutil.copyfile, source, self._layout.shared / name) for source, name in copies
        ]
        if self._state.remote:
            names = ["localhost", *(name for name, _ in nodes), *(f"{name}.lab" for name, _ in nodes)]
            work.append(pki.make(self._layout.pki, names, ["127.0.0.1", *(address for _, address in nodes)]))
            work.append(ssh.make(self._layout.ssh, nodes))
        await _all(work)

    def _write_cluster_files(self) -> None:
        _write_cluster_file(self.cluster_file, self._nodes, "uri", self._layout.shared)
        if self._state.remote:
            _write_cluster_file(self.cluster_file_ssh, self._nodes, "ssh_uri", self._layout.shared)
            _write_cluster_file(self.cluster_file_tls, self._nodes, "tls_uri", self._layout.shared)

    async def _tear_down(self, *, keep: bool = False) -> None:
        marks = marked(self.directory)
        # PID 1 takes the rest of its node with it; those are waited for too, as they hold disks.
        rest = [process.id for keeper in marks for process in inside(keeper)]
        await end(marks, timeout_s=20)
        await end(rest, timeout_s=20)
        if left := marked(self.directory):  # started by an `up` that was itself just ending
            await end(left)
        if self._state.link:
            await network.wait_link_gone(self._state.link)
        for node in self._state.nodes:
            node.keeper = None
        self._state.switch = None
        if keep:
            # The files stay to be looked at; without its lab.json the folder is a lab no more.
            self._layout.state_file.unlink(missing_ok=True)
            return
        await asyncio.to_thread(self._remove_files)

    def _remove_files(self) -> None:
        # Not what lab.json says: a damaged one must not name what is removed.
        for folder in (_own_data(self.directory), self.directory):
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                shutil.rmtree(folder)  # a second time, for the error
        if self.directory.parent == Path("/run/muster-lab"):
            _remove_if_empty(self.directory.parent)

    # ---------------------------------------------------------------- what is there

    @property
    def directory(self) -> Path:
        """The lab's folder."""
        return self._layout.directory

    @property
    def shared(self) -> Path:
        """The storage that all nodes share, at the same path on each and on this machine."""
        return self._layout.shared

    @property
    def cluster_file(self) -> Path:
        """Muster's cluster file with unix socket URIs."""
        return self.directory / "cluster.toml"

    @property
    def cluster_file_ssh(self) -> Path:
        """The same with ssh URIs."""
        return self.directory / "cluster-ssh.toml"

    @property
    def cluster_file_tls(self) -> Path:
        """The same with TLS URIs."""
        return self.directory / "cluster-tls.toml"

    @property
    def accelerator(self) -> str:
        """``kvm`` or ``qemu`` (TCG): the guests' domain type."""
        return self._state.accelerator

    @property
    def subnet(self) -> str:
        """The lab's network, such as ``10.77.4.0/24``; this machine has its first address."""
        return self._state.subnet

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in order of their names."""
        return tuple(self._nodes)

    @property
    def vms(self) -> tuple[VmSpec, ...]:
        """All guests as they were made; they may have moved since."""
        return tuple(self._state.vms)

    def node(self, name: str) -> Node:
        """A node by its name.

        Raises:
            LabError: There is none of that name.
        """
        for node in self._nodes:
            if node.name == name:
                return node
        raise LabError(f"The lab has no node {name}; it has {', '.join(node.name for node in self._nodes)}.")

    def vm_uuid(self, name: str) -> str:
        """A guest's UUID by its name."""
        return guest.vm_uuid(self._state.id, name)

    def console(self, vm: str) -> Path:
        """File with everything a guest has printed on its console, on whatever node it was."""
        return self._layout.consoles / f"{vm}.log"

    @property
    def is_alive(self) -> bool:
        """Whether its switch runs; nodes may be off."""
        return self._state.switch is not None and is_alive(self._state.switch)

    async def status(self) -> LabStatus:
        """Every node and VM now; a daemon that does not answer within 5 s counts as hung."""
        answers = await asyncio.gather(*(self._node_status(node) for node in self._nodes))
        return LabStatus(
            directory=str(self.directory),
            state="up" if self._state.complete and self.is_alive else "broken",
            cluster_file=str(self.cluster_file),
            cluster_file_ssh=str(self.cluster_file_ssh) if self._state.remote else "",
            cluster_file_tls=str(self.cluster_file_tls) if self._state.remote else "",
            shared=str(self.shared),
            accelerator=self.accelerator,
            subnet=self.subnet,
            link=self._state.link,
            nodes=tuple(node for node, _ in answers),
            vms=tuple(vm for _, vms in answers for vm in vms),
        )

    async def _node_status(self, node: Node) -> tuple[NodeStatus, list[VmStatus]]:
        vms: list[VmStatus] = []
        if node.pid == 0:
            daemon = "down"
        elif node.daemon_is_stopped:
            daemon = "stopped"
        else:
            try:
                vms = await self._node_vms(node)
                daemon = "running"
            except LabError:
                daemon = "hung"
        status = NodeStatus(
            name=node.name,
            address=node.address,
            power="on" if node.is_on else "off",
            daemon=daemon,
            network="connected" if node.state.connected else "cut",
            pid=node.pid,
            uri=node.uri,
            peer_uri=node.peer_uri,
            ssh_uri=node.ssh_uri if self._state.remote else "",
            tls_uri=node.tls_uri if self._state.remote else "",
        )
        return status, vms

    async def _node_vms(self, node: Node) -> list[VmStatus]:
        states = await self.virsh(node, "list", "--all", timeout_s=5)
        idents = await self.virsh(node, "list", "--all", "--uuid", "--name", timeout_s=5)
        uuids = {
            name: ident for ident, name in (line.split() for line in idents.splitlines() if line.strip())
        }
        vms = []
        for line in filter(str.strip, states.splitlines()):
            _, name, state = line.split(maxsplit=2)
            # One that came between the two questions will be seen the next time.
            if name in uuids:
                vms.append(VmStatus(name=name, uuid=uuids[name], node=node.name, state=state.strip()))
        return vms

    async def virsh(self, node: Node | str, *argv: str, timeout_s: float = 30.0) -> str:
        """Run virsh on a node; what it printed.

        Raises:
            LabError: It failed, with its message, or did not end within `timeout_s`.
        """
        there = self._resolve(node)
        ran = await there.virsh(*argv, timeout_s=timeout_s)
        if ran.code != 0:
            raise LabError(f"virsh {' '.join(argv)} on {there.name}: {ran.err.strip() or ran.out.strip()}")
        return ran.out

    async def run_on(self, node: Node | str, *argv: str, timeout_s: float = 30.0) -> Ran:
        """Run a command on a node, in all its namespaces, with any outcome.

        Raises:
            LabError: The node is off, or the command did not end within `timeout_s`.
        """

        return await attempt(self._resolve(node).enter(*argv), timeout_s=timeout_s)

    def _resolve(self, node: Node | str) -> Node:
        return self.node(node) if isinstance(node, str) else node

    # ---------------------------------------------------------------- guests

    async def add_vm(
        self,
        name: str,
        node: Node | str,
        *,
        dirty_mib: int = 0,
        memory_mib: int = 96,
        vcpus: int = 1,
        vga: bool = False,
        ignores_acpi: bool = False,
        start: bool = True,
    ) -> VmSpec:
        """Define one more guest on a node, and start it.

        Args:
            name: Its name, new in the lab.
            node: Where.
            dirty_mib: MiB of memory that it rewrites for ever; `memory_mib` must be 70 MiB more.
            memory_mib: Its memory.
            vcpus: Its virtual CPUs.
            vga: Whether it has a screen.
            ignores_acpi: Whether it ignores its power button; its guest agent answers all the same.
            start: Whether it is started.

        Raises:
            LabError: The name is taken, the memory too small, or libvirt refused.
        """
        if any(vm.name == name for vm in self._state.vms):
            raise LabError(f"The lab has a VM {name} already.")
        if memory_mib < guest.MINIMUM_MEMORY_MIB:
            raise LabError(f"A guest needs {guest.MINIMUM_MEMORY_MIB} MiB or more.")
        if dirty_mib and memory_mib < dirty_mib + guest.OWN_MEMORY_MIB:
            raise LabError(
                f"To rewrite {dirty_mib} MiB it needs {dirty_mib + guest.OWN_MEMORY_MIB} MiB of memory."
            )
        vm = VmSpec(
            name=name,
            node=self._resolve(node).name,
            memory_mib=memory_mib,
            vcpus=vcpus,
            dirty_mib=dirty_mib,
            vga=vga,
            ignores_acpi=ignores_acpi,
            address=self._guest_address(len(self._state.vms)),
        )
        self._state.vms.append(vm)
        self._save()
        await self._define(vm)
        if start:
            await self.virsh(vm.node, "start", vm.name, timeout_s=START_DEADLINE_S)
        return vm

    def domain_xml(self, vm: VmSpec) -> str:
        """A guest's domain XML, as it was first defined."""
        return guest.domain_xml(
            vm,
            lab_id=self._state.id,
            kind=self.accelerator,
            shared=self.shared,
            console=self.console(vm.name),
        )

    async def _define(self, vm: VmSpec) -> None:
        await guest.make_disk(
            self.shared / "base.qcow2", guest.disk_path(self.shared, vm.name), size_mib=vm.disk_mib
        )
        file = self._layout.node(vm.node) / f"{vm.name}.xml"
        file.write_text(self.domain_xml(vm))
        await self.virsh(vm.node, "define", str(file))

    async def _define_and_start(self, vm: VmSpec, bound: asyncio.Semaphore) -> None:
        async with bound:
            await self._define(vm)
            await self.virsh(vm.node, "start", vm.name, timeout_s=START_DEADLINE_S)

    def console_size(self, vm: str) -> int:
        """How much a guest has printed so far, in bytes: the `since` of a later `wait_ready`."""
        try:
            return self.console(vm).stat().st_size
        except OSError:
            return 0

    async def wait_ready(self, vm: str, timeout_s: float = 60.0, *, since: int = 0) -> None:
        """Wait until a guest has booted: its console says READY after the first `since` bytes.

        Raises:
            LabError: It does not within `timeout_s`; its last words are in the message.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError), self.console(vm).open("rb") as file:
                file.seek(since)
                if guest.READY.encode() in file.read():
                    return
            if time.monotonic() > deadline:
                words = tail(self.console(vm)) or "nothing"
                raise LabError(
                    f"The guest {vm} had not booted after {timeout_s:g} s. Its console says:\n{words}"
                )
            await asyncio.sleep(0.1)

    # ---------------------------------------------------------------- Pacemaker

    async def start_pacemaker(self, *nodes: Node | str) -> None:
        """Make a Corosync and Pacemaker cluster of these nodes; returns when it answers. It fences nobody.

        It ends with its nodes, and does not come back with them.

        Raises:
            LabError: Packages missing (exit code 2), or a step failed or took too long.
        """
        if lacking := requirements.missing(pacemaker=True):
            raise LabError(lacking.text, exit_code=2)
        await pacemaker.start([self._resolve(node) for node in nodes])

    async def add_resource(self, ident: str, vm: str, node: Node | str, *, can_migrate: bool = False) -> None:
        """Have the Pacemaker of a node own a guest; returns when it says that the guest runs.

        Args:
            ident: The resource's own name.
            vm: The guest. Once Pacemaker has started it, it is transient, and gone when stopped.
            node: A node of the cluster.
            can_migrate: Whether Pacemaker may move it live instead of stopping and starting it.

        Raises:
            LabError: There is no such guest, or Pacemaker does not run it in time.
        """
        spec = next((known for known in self._state.vms if known.name == vm), None)
        if spec is None:
            raise LabError(f"The lab has no VM {vm}.")
        definition = self.shared / f"resource-{ident}.xml"
        definition.write_text(self.domain_xml(spec))
        await pacemaker.add(self._resolve(node), ident, definition, can_migrate=can_migrate)

    async def remove_resource(self, ident: str, node: Node | str) -> None:
        """Have Pacemaker forget a guest, which runs on.

        Raises:
            LabError: Pacemaker knows no such resource.
        """
        await pacemaker.remove(self._resolve(node), ident)

    # ---------------------------------------------------------------- faults

    def stop_daemon(self, node: Node | str) -> None:
        """SIGSTOP the libvirt daemon; returns when it accepts connections and answers nothing."""
        self._signal_daemon(node, signal.SIGSTOP)
        there, deadline = self._resolve(node), time.monotonic() + 2.0
        while not there.daemon_is_stopped and time.monotonic() < deadline:
            time.sleep(0.001)  # each of its threads has to notice

    def continue_daemon(self, node: Node | str) -> None:
        """Let a stopped daemon go on."""
        self._signal_daemon(node, signal.SIGCONT)

    def _signal_daemon(self, node: Node | str, number: signal.Signals) -> None:

        there = self._resolve(node)
        daemon = there.daemon
        if daemon is None or not send(daemon, number):
            raise LabError(f"No libvirt daemon runs on node {there.name}.")

    async def kill_daemon(self, node: Node | str) -> None:
        """SIGKILL the libvirt daemon; guests go on. Returns when it is gone."""
        await self._resolve(node).kill_daemon(signal.SIGKILL)

    async def start_daemon(self, node: Node | str) -> None:
        """Start the libvirt daemon again; returns when it answers."""
        await self._resolve(node).start_daemon()

    async def power_off(self, node: Node | str) -> None:
        """Pull the plug of a node: daemon and guests are gone at once. Its files stay."""
        there = self._resolve(node)
        await there.power_off()
        self._save()
        with contextlib.suppress(LabError):  # the kernel may have taken the port away already
            await network.ip_batch(self._switch(), [f"link delete {there.name}"])

    async def power_on(self, node: Node | str) -> None:
        """Start a node again, with a new boot id; returns when its daemon answers. Its guests stay off."""
        there = self._resolve(node)
        if there.is_on:
            return
        await self._power_on(there)

    async def _power_on(self, node: Node) -> None:
        try:
            await node.power_on(self._switch())
            if self._state.remote and node.state.connected:
                await node.wait_ssh()
        finally:
            self._save()

    async def cut_network(self, node: Node | str) -> None:
        """Pull a node's network cable. Its unix socket still answers on this machine."""
        await self._set_port(node, connected=False)

    async def join_network(self, node: Node | str) -> None:
        """Put a node's network cable back."""
        await self._set_port(node, connected=True)

    async def _set_port(self, node: Node | str, *, connected: bool) -> None:
        there = self._resolve(node)
        there.state.connected = connected
        self._save()
        if there.is_on:
            await network.set_port(self._switch(), there.name, connected=connected)

    async def break_peer_login(self, node: Node | str) -> None:
        """Have a node's daemon refuse tcp and tls; guests go on, and its unix socket answers."""
        await self._set_peer_login(node, accepts=False)

    async def restore_peer_login(self, node: Node | str) -> None:
        """Undo `break_peer_login`."""
        await self._set_peer_login(node, accepts=True)

    async def _set_peer_login(self, node: Node | str, *, accepts: bool) -> None:
        there = self._resolve(node)
        there.state.accepts_peers = accepts
        self._save()
        there.write_daemon_conf()
        await there.kill_daemon(signal.SIGTERM)
        await there.start_daemon()

    def _switch(self) -> ProcessId:
        if self._state.switch is None or not is_alive(self._state.switch):
            raise LabError(f"The lab in {self.directory} is not up.")
        return self._state.switch


async def _all(work: Iterable[Awaitable[object]]) -> None:
    """Do all at once; the first error cancels the rest and waits for it: nothing runs on behind our back."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _write_cluster_file(file: Path, nodes: Iterable[Node], uri: str, shared: Path) -> None:
    lines = ["format = 1", 'name = "lab"']
    for node in nodes:
        lines += [
            "",
            "[[nodes]]",
            f"name = {json.dumps(node.name)}",
            f"uri = {json.dumps(getattr(node, uri))}",
            f"peer_uri = {json.dumps(node.peer_uri)}",
            f"addresses = [{json.dumps(node.address)}]",
        ]
    lines += ["", "[storage]", f"shared_paths = [{json.dumps(str(shared))}]"]
    # All nodes share this machine's few CPUs, and their guests idle.
    lines += ["", "[placement]", "cpu_overcommit = 100.0", ""]
    file.write_text("\n".join(lines))


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _lab_id(directory: Path) -> str:
    return hashlib.sha256(str(directory).encode()).hexdigest()[:12]


def _check_root() -> None:
    if os.geteuid() != 0:
        raise LabError(
            "The lab makes namespaces and a network link, and so needs root. Try: sudo muster lab ...",
            exit_code=2,
        )


def _checked_directory(spec: LabSpec) -> Path:
    """The lab's folder without links, or why it cannot be one."""
    directory = Path(os.path.realpath(spec.directory))
    longest = directory / "nodes" / f"n{spec.nodes}" / "run" / "libvirt-admin-sock"
    if len(os.fsencode(longest)) > UNIX_SOCKET_LIMIT:
        raise LabError(
            f"The folder {directory} is too long for unix sockets; choose a shorter one.", exit_code=2
        )
    if directory.is_dir() and not (directory / "lab.json").exists():
        if any(entry.name != "lock" for entry in directory.iterdir()):
            raise LabError(
                f"The folder {directory} holds something that is no lab; choose another.", exit_code=2
            )
    elif directory.exists() and not directory.is_dir():
        raise LabError(f"{directory} is not a folder.", exit_code=2)
    return directory


def _check_machine(spec: LabSpec) -> None:
    _check_root()
    if not 1 <= spec.nodes <= network.MAXIMUM_NODES:
        raise LabError(f"A lab has 1 to {network.MAXIMUM_NODES} nodes.", exit_code=2)
    if spec.vms < 0 or spec.memory_mib < guest.MINIMUM_MEMORY_MIB:
        raise LabError(f"A lab has 0 or more VMs of {guest.MINIMUM_MEMORY_MIB} MiB or more.", exit_code=2)
    if lacking := requirements.missing():
        raise LabError(lacking.text, exit_code=2)


def _data_directory(directory: Path) -> Path:
    """Where disks go: the lab's folder, unless its file system (an older tmpfs) cannot do direct I/O."""
    probe = directory / "probe"
    try:
        handle = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    except OSError:
        return _own_data(directory)
    else:
        os.close(handle)
    finally:
        probe.unlink(missing_ok=True)
    return directory / "data"


def _own_data(directory: Path) -> Path:
    """Where the disks of the lab in this folder are if they are not inside it."""
    return Path("/var/tmp") / f"muster-lab-{_lab_id(directory)}"


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold a lab's folder alone, made if need be.

    Raises:
        LabError: Another program is bringing this lab up or down.
    """
    while True:
        made = not directory.is_dir()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = directory / "lock"
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise LabError(f"Another program is bringing the lab in {directory} up or down.") from None
        # The one before us may have removed the folder while we waited for nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(file).st_ino == os.fstat(handle).st_ino:
                break
        os.close(handle)
    try:
        yield
    finally:
        if not (directory / "lab.json").exists():
            file.unlink(missing_ok=True)
            if made:
                _remove_if_empty(directory)
        os.close(handle)

"""One node of the lab: its folders and configuration, its namespaces, its libvirt daemon.

A node is a tree of processes below one `unshare`: killing that is pulling the plug.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from manager.lab import node_init, ssh
from manager.lab.errors import LabError
from manager.lab.network import mac_address, node_commands, plug_node, wait_for_namespace
from manager.lab.processes import (
    CLEAN_ENVIRONMENT,
    Process,
    ProcessId,
    Ran,
    attempt,
    end,
    executable,
    inside,
    is_alive,
    send,
    spawn,
    state_letter,
    tail,
    wait_until,
)

DAEMONS = frozenset({"libvirtd", "virtqemud"})
DAEMON_DEADLINE_S = 30.0
UNIX_SOCKET_LIMIT = 107  # bytes of a path in struct sockaddr_un, without the final zero
_FOLDERS = {
    "etc": "/etc/libvirt",
    "var": "/var/lib/libvirt",
    "run": "/run/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}

# Of Corosync and Pacemaker. Bound wherever they are installed, used or not: no node meets the machine's.
_PACEMAKER_FOLDERS = {
    "pacemaker/etc-corosync": "/etc/corosync",
    "pacemaker/etc-pacemaker": "/etc/pacemaker",
    "pacemaker/lib": "/var/lib/pacemaker",
    "pacemaker/corosync": "/var/lib/corosync",
    "pacemaker/log": "/var/log/pacemaker",
    "pacemaker/log-corosync": "/var/log/corosync",
}

# Debian's libvirtd looks this account up before it reads qemu.conf, and only a package that the lab does not
# need makes it. The nodes have it; the machine is not changed.
_ACCOUNTS = {
    "passwd": "libvirt-qemu:x:64055:64055:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin",
    "group": "libvirt-qemu:x:64055:",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a lab's files are."""

    directory: Path  # sockets, configuration, keys
    data: Path  # disks and consoles: a file system that can do direct I/O

    @property
    def state_file(self) -> Path:
        """What the lab consists of, see `manager.lab.lab`."""
        return self.directory / "lab.json"

    @property
    def shared(self) -> Path:
        """The storage that all nodes share, at the same path on each."""
        return self.data / "shared"

    @property
    def consoles(self) -> Path:
        """A log of each guest's console."""
        return self.data / "console"

    @property
    def pki(self) -> Path:
        """CA, certificates and keys; fit for libvirt's ``pkipath``."""
        return self.directory / "pki"

    @property
    def ssh(self) -> Path:
        """See `manager.lab.ssh`."""
        return self.directory / "ssh"

    def node(self, name: str) -> Path:
        """A node's own folder."""
        return self.directory / "nodes" / name


@dataclass(slots=True, kw_only=True)
class NodeState:
    """What is written down about a node. Changed only by `Lab`, which saves it."""

    name: str
    number: int
    address: str
    host_uuid: str
    keeper: ProcessId | None = None  # the `unshare`; None while the node is off
    connected: bool = True  # its cable to the switch
    accepts_peers: bool = True  # whether its daemon listens on the network


class Node:
    """One node, as tests and the command line see it."""

    def __init__(self, layout: Layout, state: NodeState, *, remote: bool) -> None:
        self.layout = layout
        self.state = state
        self._remote = remote

    @property
    def name(self) -> str:
        """Name in the cluster, and host name."""
        return self.state.name

    @property
    def address(self) -> str:
        """Its address in the lab's network."""
        return self.state.address

    @property
    def folder(self) -> Path:
        """Its files: ``etc``, ``var``, ``run``, ``log``, ``cache`` are libvirt's folders on this node."""
        return self.layout.node(self.name)

    @property
    def log(self) -> Path:
        """The libvirt daemon's log."""
        return self.folder / "log" / "libvirtd.log"

    @property
    def socket(self) -> Path:
        """The libvirt daemon's unix socket; works from outside the node's network."""
        return self.folder / "run" / "libvirt-sock"

    @property
    def uri(self) -> str:
        """libvirt URI over the unix socket: not harmed when the node's network is cut."""
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def peer_uri(self) -> str:
        """libvirt URI for the other nodes, and for this machine too."""
        return f"qemu+tcp://{self.address}/system"

    @property
    def ssh_uri(self) -> str:
        """libvirt URI over ssh with the lab's key."""
        return ssh.uri(self.layout.ssh, self.address)

    @property
    def tls_uri(self) -> str:
        """libvirt URI over TLS with the lab's certificate."""
        return f"qemu+tls://{self.address}/system?pkipath={self.layout.pki}"

    @property
    def is_on(self) -> bool:
        """Whether the node has power."""
        return self.state.keeper is not None and is_alive(self.state.keeper)

    def processes(self) -> list[Process]:
        """Everything that runs on the node, with pids as this machine sees them."""
        return inside(self.state.keeper) if self.state.keeper else []

    @property
    def init(self) -> ProcessId | None:
        """The node's PID 1, or None while it is off."""
        keeper = self.state.keeper
        return next(
            (process.id for process in self.processes() if keeper and process.parent == keeper.pid), None
        )

    @property
    def daemon(self) -> ProcessId | None:
        """The libvirt daemon, or None if it does not run."""
        init = self.init
        return next(
            (p.id for p in self.processes() if p.name in DAEMONS and init and p.parent == init.pid),
            None,
        )

    @property
    def pid(self) -> int:
        """The libvirt daemon's pid on this machine, 0 if it does not run."""
        daemon = self.daemon
        return daemon.pid if daemon else 0

    @property
    def daemon_is_stopped(self) -> bool:
        """Whether the daemon was stopped with SIGSTOP: it accepts connections and answers nothing."""
        daemon = self.daemon
        return daemon is not None and state_letter(daemon) in ("T", "t")

    def enter(self, *argv: str) -> list[str]:
        """The command that runs `argv` on the node.

        Raises:
            LabError: The node is off.
        """
        init = self.init
        if init is None:
            raise LabError(f"Node {self.name} is off.")
        flags = ["--mount", "--net", "--uts", "--ipc", "--pid"]
        return ["nsenter", f"--target={init.pid}", *flags, "--", *argv]

    async def virsh(self, *argv: str, timeout_s: float = 30.0) -> Ran:
        """Run virsh on the node's unix socket, with any outcome.

        Raises:
            LabError: It did not end in time.
        """
        return await attempt(["virsh", "--quiet", "--connect", self.uri, *argv], timeout_s=timeout_s)

    def write_files(self, hosts: str) -> None:
        """Make the node's folders and write all its configuration."""
        for name in (*_FOLDERS, *_PACEMAKER_FOLDERS):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "etc" / "qemu").mkdir(exist_ok=True)
        (self.folder / "hosts").write_text(hosts)
        for file, line in _ACCOUNTS.items():
            (self.folder / file).write_text(_with_account(Path("/etc") / file, line))
        (self.folder / "etc" / "qemu.conf").write_text(self._qemu_conf())
        self.write_daemon_conf()

    def write_daemon_conf(self) -> None:
        """Write libvirtd.conf; the daemon reads it when it starts."""
        (self.folder / "etc" / "libvirtd.conf").write_text(self._libvirtd_conf())

    def _libvirtd_conf(self) -> str:
        listens = self.state.accepts_peers
        values: dict[str, str | int] = {
            "listen_tcp": int(listens),
            "listen_tls": int(listens and self._remote),
            "listen_addr": self.address,
            "auth_tcp": "none",
            "auth_tls": "none",
            "auth_unix_rw": "none",
            "auth_unix_ro": "none",
            "host_uuid": self.state.host_uuid,
            "max_clients": 500,
            "max_anonymous_clients": 500,
            "min_workers": 5,
            "max_workers": 40,
            "max_client_requests": 50,
            "prio_workers": 5,
            "keepalive_interval": 2,
            "keepalive_count": 3,
            "log_outputs": "3:file:/var/log/libvirt/libvirtd.log",
        }
        if self._remote:
            values |= {
                "ca_file": str(self.layout.pki / "cacert.pem"),
                "cert_file": str(self.layout.pki / "servercert.pem"),
                "key_file": str(self.layout.pki / "serverkey.pem"),
            }
        return _conf(values)

    def _qemu_conf(self) -> str:
        values: dict[str, str | int] = {
            "user": "root",
            "group": "root",
            "dynamic_ownership": 0,
            "remember_owner": 0,
            "security_driver": "none",
            "stdio_handler": "file",  # there is no virtlogd
            "migration_address": self.address,
            "migration_host": self.address,
            "keepalive_interval": 2,
            "keepalive_count": 3,
            "max_queued": 0,
        }
        if self._remote:
            values["migrate_tls_x509_cert_dir"] = str(self.layout.pki)
            values["migrate_tls_x509_verify"] = 1
        return _conf(values) + "cgroup_controllers = [ ]\nnamespaces = [ ]\n"

    async def power_on(self, switch: ProcessId) -> None:
        """Make the namespaces, plug in the cable and start the daemon; returns when it answers.

        Raises:
            LabError: A step failed or took too long; the daemon's last log lines are in it.
        """
        shutil.rmtree(self.folder / "run", ignore_errors=True)  # what a real node forgets as well
        (self.folder / "run").mkdir()
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        log = self.folder / "log" / "init.log"
        reader, writer = os.pipe()
        try:
            namespaces = [
                "--net",
                "--uts",
                "--mount",
                "--ipc",
                "--pid",
                "--mount-proc",
                "--propagation",
                "private",
            ]
            self.state.keeper = keeper = spawn(
                ["unshare", *namespaces, "--fork", "--kill-child=SIGKILL", "--", *_init_command()],
                mark=self.layout.directory,
                log=log,
                stdin=reader,
            )
            os.close(reader)
            reader = -1
            await wait_for_namespace(keeper, "net", log)
            await plug_node(switch, self.name, keeper, connected=self.state.connected)
            os.write(writer, json.dumps(self._plan()).encode())
        finally:
            for descriptor in (reader, writer):
                if descriptor >= 0:
                    os.close(descriptor)
        await self.wait_answers()

    def _plan(self) -> node_init.Plan:
        directories = dict.fromkeys((self.layout.directory, self.layout.data))
        binds = [(str(self.folder / source), target) for source, target in _FOLDERS.items()]
        binds += [(str(self.folder / file), f"/etc/{file}") for file in ("hosts", *_ACCOUNTS)]
        binds += [
            (str(self.folder / source), target)
            for source, target in _PACEMAKER_FOLDERS.items()
            if Path(target).is_dir()
        ]
        binds.append((str(self.folder / "boot_id"), "/proc/sys/kernel/random/boot_id"))
        daemon = ["libvirtd", "--listen", "--pid-file", "/run/libvirt/libvirtd.pid"]
        return {
            "host_name": self.name,
            "keep": [str(folder) for folder in directories if folder.is_relative_to("/run")],
            "binds": binds,
            "network": node_commands(self.address, mac_address(self.state.host_uuid)),
            "daemon": [executable(daemon[0]), *daemon[1:], "--config", "/etc/libvirt/libvirtd.conf"],
            "services": [ssh.server_command(self.layout.ssh, self.name)] if self._remote else [],
            "environment": dict(CLEAN_ENVIRONMENT),
        }

    async def wait_answers(self, *, timeout_s: float = DAEMON_DEADLINE_S) -> None:
        """Wait until the daemon answers on its socket under the node's own name.

        Raises:
            LabError: It does not within `timeout_s`, or the node ended.
        """
        deadline = time.monotonic() + timeout_s
        last = "its socket did not appear"
        seen = False
        while time.monotonic() < deadline:
            running = self.daemon is not None
            if not self.is_on or (seen and not running):
                last = "it ended" if self.is_on else "the node ended at once"
                break
            seen = seen or running
            if await _accepts(self.socket):
                answer = await self.virsh("hostname", timeout_s=max(1.0, deadline - time.monotonic()))
                if answer.code == 0 and answer.out.strip().partition(".")[0] == self.name:
                    return
                last = answer.err.strip() or f"it calls itself {answer.out.strip()!r}"
            await asyncio.sleep(0.02)
        raise LabError(
            f"The libvirt daemon of node {self.name} did not answer (it has {timeout_s:g} s): {last}.\n"
            f"{self.last_words()}",
        )

    async def wait_ssh(self, *, timeout_s: float = 10.0) -> None:
        """Wait until the node's sshd takes connections.

        Raises:
            LabError: It does not within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(self.address, 22), 1.0)
            except (OSError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"sshd of node {self.name} does not answer: {error}\n{self.last_words()}"
                    ) from error
                await asyncio.sleep(0.05)
            else:
                await _close(writer)
                return

    def last_words(self) -> str:
        """The ends of the node's logs, for an error message."""
        words = "\n".join(filter(None, (tail(self.folder / "log" / "init.log"), tail(self.log))))
        return f"Last lines of its logs:\n{words}" if words else "Its logs are empty."

    async def power_off(self) -> None:
        """Pull the plug: every process of the node is killed at once; returns when all are gone."""
        keeper = self.state.keeper
        if keeper is None:
            return
        everything = [process.id for process in self.processes()]
        init = self.init
        await end([process for process in (init, keeper) if process])
        # The kernel ends the rest with PID 1; nothing may still hold a disk when we return.
        await end(everything)
        self.state.keeper = None

    async def kill_daemon(self, number: signal.Signals) -> None:
        """Signal the daemon and wait until it is gone; guests go on.

        Raises:
            LabError: It does not end within 20 s.
        """
        daemon = self.daemon
        if daemon is None:
            return
        send(daemon, number)
        await wait_until(
            lambda: not is_alive(daemon),
            timeout_s=20,
            story=lambda: f"The libvirt daemon of node {self.name} did not end.\n{self.last_words()}",
        )

    async def start_daemon(self) -> None:
        """Start the daemon if it does not run; returns when it answers.

        Raises:
            LabError: The node is off, or the daemon does not answer in time.
        """
        init = self.init
        if init is None:
            raise LabError(f"Node {self.name} is off; power it on first.")
        if self.daemon is None:
            send(init, signal.SIGUSR1)
        await self.wait_answers()


def _init_command() -> list[str]:
    return [sys.executable, "-I", str(Path(node_init.__file__).resolve())]


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _with_account(file: Path, line: str) -> str:
    text = file.read_text()
    name = line.partition(":")[0]
    return (
        text
        if any(known.startswith(f"{name}:") for known in text.splitlines())
        else f"{text.rstrip()}\n{line}\n"
    )


def _conf(values: dict[str, str | int]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


async def _accepts(socket: Path) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_unix_connection(socket), 1.0)
    except (OSError, TimeoutError):
        return False
    await _close(writer)
    return True

"""Keys and configuration so that the lab's nodes answer ssh, without a trace in the user's own ~/.ssh."""

# ruff: noqa: ASYNC240 - the files are few and small, and this loop serves nobody else

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from manager.lab.processes import executable, run


async def make(folder: Path, nodes: Sequence[tuple[str, str]]) -> None:
    """Write the client's key, every node's host key and sshd configuration, and the client's known hosts.

    Args:
        folder: Made here; holds ``id`` (the client's key), ``known_hosts`` and ``client`` (a wrapper of ssh).
        nodes: Name and address of each node.
    """
    folder.mkdir(mode=0o700)
    keys = ["id", *(f"{name}.key" for name, _ in nodes)]
    await asyncio.gather(
        *(
            run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"muster lab {key}", "-f", key],
                cwd=folder,
            )
            for key in keys
        ),
    )
    (folder / "authorized_keys").write_text((folder / "id.pub").read_text())
    known = []
    for name, address in nodes:
        known.append(f"{name},{address} {(folder / f'{name}.key.pub').read_text()}")
        (folder / f"{name}.conf").write_text(_server_configuration(folder, name, address))
    (folder / "known_hosts").write_text("".join(known))
    (folder / "config").write_text(
        f"Host *\n  User root\n  IdentityFile {folder}/id\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 10\n",
    )
    # libvirt's ssh transport has no parameter for a known_hosts file, but one for the command.
    client = folder / "client"
    client.write_text(f'#!/bin/sh\nexec {executable("ssh")} -F {folder}/config "$@"\n')
    client.chmod(0o700)


def _server_configuration(folder: Path, name: str, address: str) -> str:
    return "\n".join(
        (
            f"ListenAddress {address}",
            f"HostKey {folder}/{name}.key",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "PrintMotd no",
            "PrintLastLog no",
            "MaxStartups 100",
            "SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "Subsystem sftp internal-sftp",
            "LogLevel INFO",
            "",
        ),
    )


def server_command(folder: Path, name: str) -> list[str]:
    """The node's sshd, in the foreground, logging to its standard error."""
    return [executable("sshd"), "-D", "-e", "-f", str(folder / f"{name}.conf")]


def uri(folder: Path, address: str) -> str:
    """A libvirt URI over ssh; `keyfile` and `known_hosts` also serve those who speak ssh themselves."""
    return (
        f"qemu+ssh://root@{address}/system?keyfile={folder}/id&known_hosts={folder}/known_hosts"
        f"&no_tty=1&command={folder}/client"
    )

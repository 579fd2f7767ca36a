"""The lab's network: a switch in a namespace of its own, one cable to each node, one to this machine.

The namespaces are held by processes, not by names or mounts: when the process ends, nothing is left.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from collections.abc import Iterator
from pathlib import Path

from manager.lab.errors import LabError
from manager.lab.processes import ProcessId, attempt, is_alive, namespace, run, spawn, tail, wait_until

SECOND_OCTETS = (77, 78, 79)
FIRST_NODE_HOST = 10  # node i has host number 10 + i
FIRST_GUEST_HOST = 99  # guest i has host number 99 + i
MAXIMUM_NODES = 64
MAXIMUM_GUEST_ADDRESSES = 155


def candidates(directory: Path) -> Iterator[ipaddress.IPv4Network]:
    """Subnets to try, in an order that the lab's folder decides: 10.77.0.0/24 to 10.79.255.0/24."""
    every = [
        ipaddress.IPv4Network(f"10.{second}.{third}.0/24") for second in SECOND_OCTETS for third in range(256)
    ]
    first = int.from_bytes(hashlib.sha256(str(directory).encode()).digest()[:4]) % len(every)
    yield from every[first:]
    yield from every[:first]


def address(subnet: str, host: int) -> str:
    """An address in a subnet by its host number."""
    return str(ipaddress.IPv4Network(subnet)[host])


def link_name(subnet: ipaddress.IPv4Network) -> str:
    """Name of this machine's end of the cable; as it names the subnet, making it also claims the subnet."""
    _, second, third, _ = str(subnet.network_address).split(".")
    return f"mlab-{second}-{third}"


async def networks_in_use() -> list[ipaddress.IPv4Network]:
    """Every IPv4 network that this machine has an address in or a route to, the default route left out."""
    addresses = json.loads(await run(["ip", "-json", "-4", "address"]))
    routes = json.loads(await run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    texts = [
        f"{item['local']}/{item['prefixlen']}" for link in addresses for item in link.get("addr_info", [])
    ]
    texts += [route["dst"] for route in routes]
    found = []
    for text in texts:
        try:
            network = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            continue  # "default", and the names of special routes
        if network.prefixlen >= 7:  # two halves of everything (a VPN's default route) are no neighbours
            found.append(network)
    return found


async def ip_batch(keeper: ProcessId, commands: list[str]) -> None:
    """Run `ip` commands, one a line, in the network namespace of a process."""
    await run(
        ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", "ip", "-batch", "-"], stdin="\n".join(commands) + "\n"
    )


async def wait_for_namespace(keeper: ProcessId, kind: str, log: Path) -> None:
    """Wait until a process that was just started has left this machine's namespace."""
    ours = namespace(os.getpid(), kind)
    await wait_until(
        lambda: not is_alive(keeper) or namespace(keeper.pid, kind) not in (0, ours),
        timeout_s=10,
        story=lambda: f"unshare made no {kind} namespace within 10 s:\n{tail(log)}",
    )
    if not is_alive(keeper):
        raise LabError(
            f"This machine permits no {kind} namespace:\n{tail(log)}\nA container must be a privileged one.",
        )


async def start_switch(directory: Path) -> ProcessId:
    """Make the switch; returns the process that holds its namespace."""
    log = directory / "switch.log"
    keeper = spawn(["unshare", "--net", "sleep", "infinity"], mark=directory, log=log)
    await wait_for_namespace(keeper, "net", log)
    await ip_batch(keeper, ["link set lo up", "link add switch type bridge", "link set switch up"])
    return keeper


async def plug_machine(directory: Path, switch: ProcessId) -> tuple[str, str]:
    """Connect this machine to the switch with the first free subnet.

    Returns:
        The subnet and the name of this machine's link. The link goes with the switch's namespace.

    Raises:
        LabError: No candidate is free.
    """
    used = await networks_in_use()
    for subnet in candidates(directory):
        if any(subnet.overlaps(other) for other in used):
            continue
        link = link_name(subnet)
        made = await attempt(
            ["ip", "link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", str(switch.pid)]
        )
        if made.code != 0:
            if "exists" in made.err:
                continue  # another lab is faster
            raise LabError(f"This machine cannot make a veth link:\n{made.err.strip()}")
        await ip_batch(switch, ["link set uplink master switch up"])
        await run(
            ["ip", "-batch", "-"],
            stdin="\n".join(
                (
                    f"link set {link} addrgenmode none",
                    f"link set {link} up",
                    f"address add {subnet[1]}/24 dev {link}",
                )
            ),
        )
        return str(subnet), link
    raise LabError(
        "No subnet from 10.77.0.0/24 to 10.79.255.0/24 is free on this machine. End some labs first."
    )


async def plug_node(switch: ProcessId, node: str, keeper: ProcessId, *, connected: bool) -> None:
    """Connect a node's namespace (its `eth0`) to the switch's port of the node's name."""
    state = "up" if connected else "down"
    await ip_batch(
        switch,
        [
            f"link add {node} type veth peer name eth0 netns {keeper.pid}",
            f"link set {node} master switch {state}",
        ],
    )


async def set_port(switch: ProcessId, node: str, *, connected: bool) -> None:
    """Pull a node's cable out of the switch, or put it back."""
    await ip_batch(switch, [f"link set {node} {'up' if connected else 'down'}"])


def mac_address(uuid: str) -> str:
    """A MAC address in QEMU's range for a host or VM with this UUID."""
    digest = hashlib.sha256(uuid.encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def node_commands(node_address: str, mac: str) -> str:
    """The `ip` commands inside a node: a bridge br0 for guests, with the node's address on it.

    The MAC address is set, for it must be the same after a power cycle and whatever guests are plugged in:
    others remember it for minutes.
    """
    return "\n".join(
        (
            "link set lo up",
            "link add br0 type bridge",
            f"link set br0 address {mac}",
            "link set eth0 master br0 up",
            "link set br0 up",
            f"address add {node_address}/24 dev br0",
            "",
        ),
    )


async def wait_link_gone(link: str, *, timeout_s: float = 15.0) -> None:
    """Wait until the kernel has taken a link away together with the switch's namespace."""
    await wait_until(
        lambda: not os.path.exists(f"/sys/class/net/{link}"),
        timeout_s=timeout_s,
        story=lambda: f"The link {link} outlived its switch by {timeout_s:g} s. Try: ip link delete {link}",
    )

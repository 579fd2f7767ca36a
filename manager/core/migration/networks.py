"""Which addresses of a target carry a move: the cluster's migration networks, in their order."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from manager.core.model import NodeConfig


def addresses(networks: tuple[str, ...], source: NodeConfig, target: NodeConfig) -> tuple[str, ...]:
    """The target's addresses in networks in which the source has one too, best network first.

    Empty if no network is named, or none joins the two: then the hosts choose themselves.
    """
    found: list[str] = []
    for text in networks:
        network = ip_network(text, strict=False)
        here = any(ip_address(a) in network for a in source.addresses)
        if here or not source.addresses:
            found += [a for a in target.addresses if ip_address(a) in network and a not in found]
    return tuple(found)

"""How changes of a VM's definition are given on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from manager.core.edits import (
    AddDisk,
    Describe,
    GrowDisk,
    SetAutostart,
    SetBootOrder,
    SetInterface,
    SetMedium,
    SetMemory,
    SetVcpus,
)
from manager.core.units import mib_of


class Size(click.ParamType[int]):
    """A size in whole MiB: ``512``, ``4GiB``, ``1.5 GiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Refuse what is no size."""
        try:
            return mib_of(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def _switch(words: tuple[str, str]) -> click.Choice[str]:
    return click.Choice(list(words), case_sensitive=False)


def _medium(drive: str, insert: str | None, eject: bool, force: bool) -> SetMedium:
    if bool(insert) == eject:
        raise click.UsageError("Say what to do: --insert IMAGE or --eject.")
    return SetMedium(disk=drive, source=insert or "", force=force)


def _description(title: str | None, description: str | None) -> Describe:
    if title is None and description is None:
        raise click.UsageError("Say what to set: --title or --description.")
    return Describe(title=title, description=description)


def _interface(mac: str, bridge: str, network: str, link: str | None) -> SetInterface:
    if bridge and network:
        raise click.UsageError("Only one of --bridge and --network can be given.")
    if not (bridge or network or link):
        raise click.UsageError("Say what to change: --bridge, --network or --link.")
    kind = "bridge" if bridge else "network" if network else ""
    up = None if link is None else link == "up"
    return SetInterface(mac=mac.lower(), kind=kind, source=bridge or network, link_up=up)


def _new_disk(pool: str, volume: str, size_mib: int | None) -> AddDisk:
    if not volume and size_mib is None:
        raise click.UsageError("Say which: --volume, or --size of a new one.")
    return AddDisk(pool=pool, volume=volume, size_mib=size_mib or 0)


def _order(devices: str) -> SetBootOrder:
    return SetBootOrder(devices=tuple(word.strip().lower() for word in devices.split(",") if word.strip()))


FORMS: Mapping[type, tuple[Callable[[], list[click.Parameter]], Callable[..., Any]]] = {
    SetMedium: (
        lambda: [
            click.Option(
                ["--insert"],
                metavar="IMAGE",
                help="The image: its path on the VM's node, or POOL/VOLUME. It must be there.",
            ),
            click.Option(["--eject"], is_flag=True, help="Take the medium out."),
            click.Option(
                ["--drive"],
                metavar="TARGET",
                default="",
                help="The drive, for example sda. Default: the only one.",
            ),
            click.Option(["--force"], is_flag=True, help="Even if the guest has locked the drive."),
        ],
        _medium,
    ),
    SetMemory: (
        lambda: [
            click.Option(
                ["--set", "memory_mib"], type=Size(), metavar="SIZE", required=True, help="The memory."
            ),
            click.Option(
                ["--maximum", "maximum_mib"],
                type=Size(),
                metavar="SIZE",
                default="0",
                help="Up to which it can be changed while the VM runs, from its next start. "
                "Default: as it is, or as much as is needed.",
            ),
        ],
        SetMemory,
    ),
    SetVcpus: (
        lambda: [
            click.Option(["--set", "vcpus"], type=int, metavar="COUNT", required=True, help="The vCPUs."),
            click.Option(
                ["--maximum"],
                type=int,
                metavar="COUNT",
                default=0,
                help="Up to which they can be changed while the VM runs, from its next start. "
                "Default: as it is, or as many as are needed.",
            ),
        ],
        SetVcpus,
    ),
    Describe: (
        lambda: [
            click.Option(["--title"], metavar="TEXT", help="One line; an empty text takes it away."),
            click.Option(["--description"], metavar="TEXT", help="Any text; an empty one takes it away."),
        ],
        _description,
    ),
    SetAutostart: (
        lambda: [
            click.Option(
                ["--set", "autostart"],
                type=_switch(("on", "off")),
                required=True,
                help="Whether they start with their host.",
            )
        ],
        lambda autostart: SetAutostart(autostart=autostart == "on"),
    ),
    SetInterface: (
        lambda: [
            click.Option(["--mac"], metavar="MAC", default="", help="The interface. Default: the only one."),
            click.Option(["--bridge"], metavar="NAME", default="", help="Connect it to this bridge."),
            click.Option(
                ["--network"], metavar="NAME", default="", help="Connect it to this libvirt network."
            ),
            click.Option(["--link"], type=_switch(("up", "down")), help="Set its link."),
        ],
        _interface,
    ),
    SetBootOrder: (
        lambda: [
            click.Option(
                ["--set", "devices"],
                metavar="DEVICE,...",
                required=True,
                help="Targets of disks and CD drives, and MAC addresses, in order: sda,vda.",
            )
        ],
        _order,
    ),
    AddDisk: (
        lambda: [
            click.Option(
                ["--pool"], metavar="POOL", required=True, help="The storage pool of the VM's node."
            ),
            click.Option(
                ["--volume"],
                metavar="NAME",
                default="",
                help="A volume that is there and that no VM uses; with --size the name of a new one.",
            ),
            click.Option(
                ["--size", "size_mib"], type=Size(), metavar="SIZE", help="Make a new one of this size."
            ),
        ],
        _new_disk,
    ),
    GrowDisk: (
        lambda: [
            click.Option(
                ["--disk"],
                metavar="TARGET",
                default="",
                help="The disk, for example vda. Default: the only one.",
            ),
            click.Option(
                ["--to", "size_mib"],
                type=Size(),
                metavar="SIZE",
                required=True,
                help="Its new size; never a smaller one.",
            ),
        ],
        GrowDisk,
    ),
}
"""Options and how their values become a change, by the kind of change."""

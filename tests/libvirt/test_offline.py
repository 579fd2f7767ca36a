"""What a VM that changes its node while it is off leaves behind."""

from __future__ import annotations

import pytest

from manager.backends.libvirt.offline import stays_behind

SHARED = ("/srv/vms",)


def domain(inner: str) -> str:
    return f"<domain type='kvm'><os><type>hvm</type>{inner}</os></domain>"


@pytest.mark.parametrize(
    ("xml", "left"),
    [
        (domain(""), ()),
        (domain("<nvram>/srv/vms/web_VARS.fd</nvram>"), ()),
        (domain("<nvram template='/usr/t.fd'/>"), ()),  # made when it starts
        (
            domain("<nvram>/var/lib/libvirt/web.fd</nvram>"),
            ("its UEFI variables in /var/lib/libvirt/web.fd",),
        ),
        (
            domain("<nvram type='file'><source file='/var/x.fd'/></nvram>"),
            ("its UEFI variables in /var/x.fd",),
        ),
        (domain("<nvram>/srv/vms/../x.fd</nvram>"), ("its UEFI variables in /srv/vms/../x.fd",)),
        ("<domain><devices><tpm><backend type='emulator'/></tpm></devices></domain>", ("its TPM",)),
        ("<domain><devices><tpm><backend type='passthrough'/></tpm></devices></domain>", ()),
        ("<not xml", ()),
    ],
)
def test_what_stays_behind(xml: str, left: tuple[str, ...]) -> None:
    assert stays_behind(xml, SHARED) == left

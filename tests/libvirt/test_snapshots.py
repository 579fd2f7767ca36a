"""Snapshot XML, which is a stranger's text."""

from __future__ import annotations

from manager.backends.libvirt.snapshots import parsed
from manager.core.model import Snapshot, VmStatus

REAL = """<domainsnapshot>
  <name>before</name><description>the &lt;update&gt;</description><state>running</state>
  <parent><name>first</name></parent><creationTime>1795401480</creationTime>
  <memory snapshot='internal'/>
  <disks><disk name='vda' snapshot='internal'/></disks>
  <domain type='kvm'><name>web</name></domain>
</domainsnapshot>"""


def test_a_real_one() -> None:
    assert parsed(REAL, is_current=True) == Snapshot(
        name="before",
        description="the <update>",
        created_s=1795401480.0,
        status=VmStatus.RUNNING,
        memory=True,
        parent="first",
        is_current=True,
    )


def test_one_of_the_disks_only() -> None:
    found = parsed(
        "<domainsnapshot><name>d</name><state>disk-snapshot</state><memory snapshot='no'/>"
        "<disks><disk name='vda' snapshot='external'/></disks></domainsnapshot>"
    )
    assert (found.external, found.memory, found.status, found.created_s) == (True, False, VmStatus.OFF, None)


def test_what_is_not_understood_does_no_harm() -> None:
    assert parsed("<domainsnapshot>").name == "?"
    assert parsed("<domainsnapshot/>") == Snapshot(name="")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><domainsnapshot><name>&a;</name></domainsnapshot>'
    assert parsed(bomb).name == "?"
    evil = parsed("<domainsnapshot><name>a\n\tb</name><creationTime>9e99</creationTime></domainsnapshot>")
    assert (evil.name, evil.created_s) == ("a b", None)
    assert parsed("x" * (3 << 20)).name == "?"

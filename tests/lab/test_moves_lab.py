"""All kinds of moves on the lab beyond the contract: disks, files, certificates, and other people's jobs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from manager.core.effects import CopyDisks, SaveToFile, VmChange
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import ForeignJobSeen, MigrationProgress, VmDefinitionChanged, VmStateChanged
from manager.core.ids import NodeId, OperationId, VmId
from manager.core.model import Convergence, PeerRoute, StatusCause, VmStatus
from manager.lab.errors import LabError
from manager.lab.lab import Lab
from tests.contract.hypervisor_contract import OPERATION, POOL
from tests.lab.hosts import LabThere, add_guests, empty_pools, lab_there, make_pool, state, until_dirty
from tests.lab.support import run_apart

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

GUESTS = ("moves-a", "moves-b")
BUSY_GUEST = "moves-busy"
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
FAST_POOL, FAST_FOLDER = "fast", "/var/lib/libvirt/fast"
DATA_MIB = 128


@pytest.fixture(scope="module")
def guests(lab: Lab) -> tuple[str, ...]:
    add_guests(lab, *GUESTS)

    async def pools() -> None:
        await make_pool(lab, POOL, "/var/lib/libvirt/images")
        await make_pool(lab, FAST_POOL, FAST_FOLDER)

    run_apart(pools)
    return GUESTS


@pytest.fixture
async def there(lab: Lab, guests: tuple[str, ...]) -> AsyncIterator[LabThere]:
    async with lab_there(lab, *guests) as there:
        yield there


@pytest.fixture
async def with_data(lab: Lab, there: LabThere) -> AsyncIterator[LabThere]:
    """The first guest has a second disk, full of data, that is only on its node."""
    path = own_file(lab, "n1", f"/var/lib/libvirt/images/{GUESTS[0]}-data.raw")
    path.write_bytes(os.urandom(1 << 20) * DATA_MIB)
    await lab.virsh("n1", "pool-refresh", POOL)
    words = (GUESTS[0], f"/var/lib/libvirt/images/{path.name}", "vdb", "--persistent", "--cache", "none")
    await lab.virsh("n1", "attach-disk", *words, "--driver", "qemu", "--subdriver", "raw")
    yield there
    for node in lab.nodes:
        if await state(lab, GUESTS[0], node.name) is not None:
            with contextlib.suppress(Exception):
                await lab.virsh(node, "destroy", GUESTS[0])
            await lab.virsh(node, "undefine", GUESTS[0])
    await empty_pools(lab)


def own_file(lab: Lab, node: str, path: str) -> Path:
    """A file of a node's own, as this machine sees it."""
    return lab.node(node).folder / "var" / Path(path).relative_to("/var/lib/libvirt")


async def failure_of(call: Any) -> Failure:
    with pytest.raises(OperationError) as caught:
        await call
    return caught.value.failure


async def sources(lab: Lab, name: str, node: str) -> tuple[dict[str, str], dict[str, str]]:
    """The images of a guest's disks, as it runs and as it is stored."""
    found = []
    for how in ((), ("--inactive",)):
        xml = await lab.virsh(node, "dumpxml", *how, name)
        disks = re.findall(r"<source file='([^']*)'.*?<target dev='(\w+)'", xml, re.DOTALL)
        found.append({target: path for path, target in disks})
    return found[0], found[1]


async def until_job(there: LabThere, vm: VmId, *, node: NodeId = N1) -> None:
    while not await there.hypervisor.have_jobs(node, (vm,)):
        await asyncio.sleep(0.02)


def jobs_told(there: LabThere, vm: VmId) -> list[tuple[bool, str, bool]]:
    seen = [event for event in there.seen if isinstance(event, ForeignJobSeen) and event.vm == vm]
    return [(event.active, event.what, event.migration) for event in seen]


# --- the way of a move ---


async def test_without_certificates_it_says_so(lab: Lab, there: LabThere) -> None:
    vm, conf = there.vms[0], lab.node("n3").folder / "etc" / "qemu.conf"
    good = conf.read_text()
    conf.write_text(re.sub(r"migrate_tls_x509_cert_dir.*\n", "", good))
    await lab.kill_daemon("n3")
    await lab.start_daemon("n3")
    try:
        await there.hypervisor.connect(there.config.nodes[2])
        for more in ({}, {"parallel_connections": 2}):
            failure = await failure_of(
                there.hypervisor.migrate(there.move(vm, target=N3, encrypt=True, **more))
            )
            assert failure.code is FailureCode.INCOMPATIBLE
            assert failure.text.startswith("no certificates to encrypt the move with")
            assert not failure.is_retryable
        assert await there.status(vm) is VmStatus.RUNNING
        assert await there.look(vm, N3) is None
        await there.hypervisor.migrate(there.move(vm, target=N3))
    finally:
        conf.write_text(good)
        await lab.kill_daemon("n3")
        await lab.start_daemon("n3")


async def test_certificates_of_somebody_else_are_refused(lab: Lab, there: LabThere) -> None:
    vm, node = there.vms[0], lab.node("n3")
    conf, pki = node.folder / "etc" / "qemu.conf", node.folder / "etc" / "other-pki"
    await make_other_pki(lab, pki)
    good = conf.read_text()
    other = 'migrate_tls_x509_cert_dir = "/etc/libvirt/other-pki"\n'
    conf.write_text(re.sub(r"migrate_tls_x509_cert_dir.*\n", other, good))
    await lab.kill_daemon("n3")
    await lab.start_daemon("n3")
    try:
        await there.hypervisor.connect(there.config.nodes[2])
        failure = await failure_of(there.hypervisor.migrate(there.move(vm, target=N3, encrypt=True)))
        assert failure.code is FailureCode.INCOMPATIBLE
        assert await there.status(vm) is VmStatus.RUNNING
    finally:
        conf.write_text(good)
        await lab.kill_daemon("n3")
        await lab.start_daemon("n3")


async def make_other_pki(lab: Lab, folder: Path) -> None:
    from manager.lab import pki

    if not folder.exists():
        await pki.make(folder, [node.name for node in lab.nodes], [node.address for node in lab.nodes])


async def test_a_cap_that_was_left_behind_does_not_hold(lab: Lab, there: LabThere) -> None:
    vm = there.vms[0]
    await there.rest(vm)  # it has 80 MiB to send then
    move = there.begin(failure_of(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=2))))
    await there.until_copying(vm)
    await there.hypervisor.tune(there.tuning(vm, pause_ms=700, bandwidth_mib_s=1))
    assert (await lab.virsh("n1", "migrate-getspeed", GUESTS[0])).strip() == "1"
    assert (await lab.virsh("n1", "migrate-getmaxdowntime", GUESTS[0])).strip() == "700"
    await there.hypervisor.abort(there.aborting(vm))
    assert (await move).code is FailureCode.CANCELLED
    await lab.virsh("n1", "migrate-setspeed", GUESTS[0], "1")
    before = time.monotonic()
    await there.hypervisor.migrate(there.move(vm))
    assert time.monotonic() - before < 40  # at 1 MiB/s it takes twice as long


async def test_a_move_that_waits_for_a_dead_address_is_cancelled(there: LabThere) -> None:
    vm, (dead, good) = there.vms[0], there.addresses()
    move = there.begin(failure_of(there.hypervisor.migrate(there.move(vm, addresses=(dead, good)))))
    await until_job(there, vm)
    await there.hypervisor.abort(there.aborting(vm))
    assert (await move).code is FailureCode.CANCELLED
    assert await there.status(vm) is VmStatus.RUNNING
    assert await there.look(vm, N2) is None


async def test_the_second_half_shows_and_cannot_be_cancelled(lab: Lab, there: LabThere) -> None:
    vm = there.vms[0]
    wishes = {"bandwidth_mib_s": 4, "convergence": Convergence(post_copy=True), "encrypt": True}
    move = there.begin(there.hypervisor.migrate(there.move(vm, **wishes)))
    await there.until_copying(vm)
    figures: list[MigrationProgress] = []

    async def watch() -> None:
        while not move.done():
            seen = await there.hypervisor.job_progress(N1, vm, OPERATION, 1)
            figures.extend([seen] if seen else [])

    watching = there.begin(watch())
    await there.hypervisor.tune(there.tuning(vm, post_copy=True))
    await there.until(lambda: (there.last_state(vm) or ("", ""))[1] is StatusCause.POSTCOPY)
    with contextlib.suppress(OperationError):  # it may be over already
        await there.hypervisor.abort(there.aborting(vm))
    await move
    await watching
    assert any(seen.post_copy for seen in figures)
    causes = {event.cause for event in there.seen if isinstance(event, VmStateChanged) and event.vm == vm}
    assert StatusCause.POSTCOPY in causes
    assert await there.status(vm, N2) is VmStatus.RUNNING


# --- disks ---


@pytest.mark.parametrize("route", list(PeerRoute))
async def test_disks_of_a_node_go_along_into_another_folder(
    lab: Lab, with_data: LabThere, route: PeerRoute
) -> None:
    there, vm = with_data, with_data.vms[0]
    before = own_file(lab, "n1", f"/var/lib/libvirt/images/{GUESTS[0]}-data.raw").read_bytes()
    move = there.begin(
        there.hypervisor.migrate(
            there.move(vm, copy_disks=("vdb",), pool=FAST_POOL, bandwidth_mib_s=64, encrypt=True, route=route)
        )
    )
    totals: list[int] = []
    while not move.done():
        seen = await there.hypervisor.job_progress(N1, vm, OPERATION, 1)
        if seen is not None and seen.total_bytes:
            totals.append(seen.total_bytes)
    await move
    assert min(totals) > (DATA_MIB + 80) << 20
    running, stored = await sources(lab, GUESTS[0], "n2")
    assert running == stored
    assert running["vdb"] == f"{FAST_FOLDER}/{GUESTS[0]}-data.raw"
    assert running["vda"] == str(lab.shared / f"{GUESTS[0]}.qcow2")
    assert own_file(lab, "n2", running["vdb"]).read_bytes() == before
    assert own_file(lab, "n1", f"/var/lib/libvirt/images/{GUESTS[0]}-data.raw").exists()


async def test_a_move_that_fails_takes_its_images_away_and_no_others(lab: Lab, with_data: LabThere) -> None:
    there, vm = with_data, with_data.vms[0]
    dead, _ = there.addresses()
    image = own_file(lab, "n2", f"{FAST_FOLDER}/{GUESTS[0]}-data.raw")
    wishes: dict[str, Any] = {"copy_disks": ("vdb",), "pool": FAST_POOL}
    failure = await failure_of(there.hypervisor.migrate(there.move(vm, addresses=(dead,), **wishes)))
    assert (failure.code, failure.node) == (FailureCode.UNREACHABLE, N2)
    assert not image.exists()
    move = there.begin(failure_of(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=4, **wishes))))
    while not image.exists():
        await asyncio.sleep(0.02)
    await until_job(there, vm)
    await there.hypervisor.abort(there.aborting(vm))
    assert (await move).code is FailureCode.CANCELLED
    assert not image.exists()
    image.write_text("somebody's")
    failure = await failure_of(there.hypervisor.migrate(there.move(vm, **wishes)))
    assert (failure.code, failure.node) == (FailureCode.CONFLICT, N2)
    assert image.read_text() == "somebody's"
    assert await there.status(vm) is VmStatus.RUNNING
    image.unlink()
    await there.hypervisor.migrate(there.move(vm, addresses=there.addresses(), **wishes))
    assert await there.status(vm, N2) is VmStatus.RUNNING


def slow_down(uri: str, name: str) -> None:
    """See to it that copying the data disk takes a while, from its first moment on. Blocks: in a thread."""
    connection = libvirt.open(uri)
    try:
        domain = connection.lookupByName(name)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                domain.blockJobSetSpeed("vdb", 8)
            except libvirt.libvirtError:
                time.sleep(0.002)  # no job yet
            else:
                return
    finally:
        connection.close()
    raise AssertionError("no copy of the data disk began")


async def copy_slowly(lab: Lab, there: LabThere, vm: VmId) -> asyncio.Task[None]:
    """Begin to copy both disks; returns when it is under way, and far from its end."""
    slowing = there.begin(asyncio.to_thread(slow_down, lab.node("n1").uri, GUESTS[0]))
    effect = CopyDisks(**there.of(vm), pool=FAST_POOL, disks=("vda", "vdb"))
    task = there.begin(there.hypervisor.copy_disks(effect))
    await slowing
    return task


async def test_disks_go_to_another_pool_and_a_cancel_leaves_them(lab: Lab, with_data: LabThere) -> None:
    there, vm = with_data, with_data.vms[0]
    before = await sources(lab, GUESTS[0], "n1")
    folder = own_file(lab, "n1", FAST_FOLDER)
    task = await copy_slowly(lab, there, vm)
    figures: list[MigrationProgress] = []
    while len({seen.remaining_bytes for seen in figures}) < 3:
        seen = await there.hypervisor.job_progress(N1, vm, OPERATION, 1)
        figures.extend([seen] if seen else [])
        await asyncio.sleep(0.1)
        assert not task.done()
    assert figures[-1].total_bytes >= DATA_MIB << 20
    assert figures[-1].remaining_bytes < figures[0].remaining_bytes
    assert figures[-1].rate_bytes_per_s > 0
    assert not jobs_told(there, vm)
    await there.hypervisor.abort(there.aborting(vm))
    assert (await failure_of(task)).code is FailureCode.CANCELLED
    assert await sources(lab, GUESTS[0], "n1") == before
    assert not list(folder.iterdir())
    assert not await there.hypervisor.have_jobs(N1, (vm,))


async def test_copies_share_their_cap(lab: Lab, with_data: LabThere) -> None:
    there, vm = with_data, with_data.vms[0]
    effect = CopyDisks(**there.of(vm), pool=FAST_POOL, disks=("vda", "vdb"), bandwidth_mib_s=16)
    task = there.begin(failure_of(there.hypervisor.copy_disks(effect)))
    while "8.000 MiB/s" not in (said := await lab.virsh("n1", "blockjob", GUESTS[0], "vdb", "--info")):
        assert not task.done(), said
    await there.hypervisor.abort(there.aborting(vm))
    assert (await task).code is FailureCode.CANCELLED


async def test_what_is_encrypted_is_not_copied_in_plain_text(lab: Lab, there: LabThere) -> None:
    vm, path = there.vms[0], "/var/lib/libvirt/images/secret.img"
    async with luks_disk(lab, GUESTS[0], path):
        disks = (await there.hypervisor.read_vm(N1, vm)).config.disks
        assert [disk.encrypted for disk in disks] == [False, True]
        for call in (
            there.hypervisor.copy_disks(CopyDisks(**there.of(vm), pool=FAST_POOL, disks=("vdb",))),
            there.hypervisor.migrate(there.move(vm, copy_disks=("vdb",), pool=FAST_POOL)),
        ):
            failure = await failure_of(call)
            assert failure.code is FailureCode.NOT_SUPPORTED
            assert failure.text == "its disk vdb is encrypted, and its copy would not be"
        for node in ("n1", "n2"):
            assert not list(own_file(lab, node, FAST_FOLDER).iterdir())


@contextlib.asynccontextmanager
async def luks_disk(lab: Lab, name: str, path: str) -> AsyncIterator[None]:
    """The guest has a small disk vdb on its node whose contents are encrypted."""
    file, secret = lab.directory / "luks.xml", str(uuid.uuid4())
    await make_luks(own_file(lab, "n1", path), "secret")
    await lab.virsh("n1", "pool-refresh", POOL)
    file.write_text(f"<secret ephemeral='yes' private='no'><uuid>{secret}</uuid></secret>")
    await lab.virsh("n1", "secret-define", str(file))
    await lab.virsh("n1", "secret-set-value", secret, base64.b64encode(b"secret").decode())
    file.write_text(
        "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source file='{path}'><encryption format='luks'><secret type='passphrase' uuid='{secret}'/>"
        "</encryption></source><target dev='vdb' bus='virtio'/></disk>"
    )
    try:
        await lab.virsh("n1", "attach-device", name, str(file), "--live")
        yield
    finally:
        with contextlib.suppress(LabError):
            await lab.virsh("n1", "destroy", name)  # a guest that has not booted yet lets no disk go
        await lab.virsh("n1", "vol-delete", Path(path).name, POOL)
        await lab.virsh("n1", "secret-undefine", secret)


async def make_luks(file: Path, key: str) -> None:
    words = ("--object", f"secret,id=key,data={key}", "-o", "key-secret=key,iter-time=10")
    for _ in range(20):  # it measures its own CPU time, which not every machine tells each time
        program = ("qemu-img", "create", "-q", "-f", "luks", *words, str(file), "4M")
        made = await asyncio.create_subprocess_exec(*program, stderr=asyncio.subprocess.PIPE)
        _, said = await made.communicate()
        if not made.returncode:
            return
        assert b"accurate CPU usage" in said, said
    raise AssertionError(said)


async def test_checkpoints_are_lost_by_no_move(lab: Lab, there: LabThere) -> None:
    vm = there.vms[0]
    await lab.virsh("n1", "checkpoint-create-as", GUESTS[0], "first")
    try:
        assert (await there.hypervisor.read_vm(N1, vm)).config.checkpoints == 1
        for call in (there.hypervisor.migrate(there.move(vm)), there.save(vm)):
            failure = await failure_of(call)
            assert failure.code is FailureCode.UNSAFE
            assert failure.text == "it has 1 checkpoint(s), which would be lost"
        assert await there.status(vm) is VmStatus.RUNNING
        await there.change(vm, VmChange.TURN_OFF)
        failure = await failure_of(there.hypervisor.copy_definition(there.defining(vm)))
        assert failure.code is FailureCode.UNSAFE
        failure = await failure_of(there.hypervisor.forget_definition(there.forgetting(vm)))
        assert failure.code is FailureCode.UNSAFE
    finally:
        if await state(lab, GUESTS[0], "n1") != "running":
            await lab.virsh("n1", "start", GUESTS[0])
        await lab.virsh("n1", "checkpoint-delete", GUESTS[0], "first")


async def test_copies_whose_program_went_are_taken_over(lab: Lab, with_data: LabThere) -> None:
    there, vm = with_data, with_data.vms[0]
    before, _ = await sources(lab, GUESTS[0], "n1")
    data = own_file(lab, "n1", before["vdb"]).read_bytes()
    task = await copy_slowly(lab, there, vm)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await there.hypervisor.have_jobs(N1, (vm,))
    there.seen.clear()
    effect = CopyDisks(**there.of(vm), pool=FAST_POOL, disks=("vda", "vdb"))
    await there.hypervisor.copy_disks(effect)
    running, stored = await sources(lab, GUESTS[0], "n1")
    assert running == stored
    assert set(running.values()) == {f"{FAST_FOLDER}/{Path(path).name}" for path in before.values()}
    assert own_file(lab, "n1", running["vdb"]).read_bytes() == data
    assert own_file(lab, "n1", before["vdb"]).exists()
    assert Path(before["vda"]).exists()
    assert not await there.hypervisor.have_jobs(N1, (vm,))
    await there.until(lambda: any(isinstance(e, VmDefinitionChanged) and e.vm == vm for e in there.seen))


async def test_a_vm_that_goes_off_keeps_its_disks(lab: Lab, with_data: LabThere) -> None:
    there, vm = with_data, with_data.vms[0]
    _, before = await sources(lab, GUESTS[0], "n1")
    task = await copy_slowly(lab, there, vm)
    await lab.virsh("n1", "destroy", GUESTS[0])
    assert (await failure_of(task)).code in (FailureCode.WRONG_STATE, FailureCode.STORAGE)
    _, after = await sources(lab, GUESTS[0], "n1")
    assert after == before
    assert not list(own_file(lab, "n1", FAST_FOLDER).iterdir())


# --- memory in a file ---


async def test_a_guest_lives_through_a_quick_move(lab: Lab, there: LabThere) -> None:
    vm = there.vms[0]
    await there.rest(vm)
    printed = lab.console_size(GUESTS[0])
    await there.save(vm)
    await there.hypervisor.copy_definition(there.defining(vm))
    await there.hypervisor.restore_from_file(there.restoring(vm, N2))
    await there.hypervisor.forget_definition(there.forgetting(vm))
    assert not list((lab.shared / ".muster").iterdir())
    await lab.virsh("n2", "qemu-agent-command", GUESTS[0], '{"execute":"guest-ping"}')
    assert b"READY" not in lab.console(GUESTS[0]).read_bytes()[printed:]
    pools = await lab.virsh("n1", "pool-list", "--all", "--name")
    assert "muster-" not in pools


async def test_two_are_saved_into_one_folder_at_once(lab: Lab, there: LabThere) -> None:
    await asyncio.gather(*(there.save(vm) for vm in there.vms))
    assert [await there.status(vm) for vm in there.vms] == [VmStatus.OFF] * 2
    await asyncio.gather(*(there.hypervisor.restore_from_file(there.restoring(vm)) for vm in there.vms))
    assert [await there.status(vm) for vm in there.vms] == [VmStatus.RUNNING] * 2
    assert not list((lab.shared / ".muster").iterdir())
    assert not jobs_told(there, there.vms[0])


async def test_files_of_others_stay(lab: Lab, there: LabThere) -> None:
    vm = there.vms[0]
    theirs = lab.shared / ".muster" / "notes.txt"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("somebody's")
    try:
        for path, code in (
            (str(theirs), FailureCode.CONFLICT),
            ("/var/lib/libvirt/images/x.save", FailureCode.UNSAFE),
            (f"{lab.shared}/../x.save", FailureCode.UNSAFE),
        ):
            effect = SaveToFile(**there.of(vm), path=path)
            assert (await failure_of(there.hypervisor.save_to_file(effect))).code is code
        assert theirs.read_text() == "somebody's"
        half = Path(there.path(vm))
        half.write_text("an attempt that was cut off")
        await there.save(vm)
        await there.hypervisor.restore_from_file(there.restoring(vm))
        assert not half.exists()
    finally:
        theirs.unlink()


@pytest.fixture
async def busy(lab: Lab, guests: tuple[str, ...]) -> AsyncIterator[LabThere]:
    """A guest whose memory is full, so that writing it takes a moment."""
    add_guests(lab, BUSY_GUEST, dirty_mib=200)
    async with lab_there(lab, BUSY_GUEST) as there:
        await there.rest(there.vms[0])
        await until_dirty(lab, BUSY_GUEST, 200)
        yield there
        if await there.status(there.vms[0]) is VmStatus.RUNNING:
            await there.change(there.vms[0], VmChange.TURN_OFF)


async def test_a_save_shows_its_progress_and_can_be_cancelled(lab: Lab, busy: LabThere) -> None:
    there, vm = busy, busy.vms[0]
    task = there.begin(failure_of(there.save(vm)))
    figures: list[MigrationProgress] = []
    while not figures:
        seen = await there.hypervisor.job_progress(N1, vm, OPERATION, 1)
        figures.extend([seen] if seen and seen.total_bytes else [])
        assert not task.done()
    await there.hypervisor.abort(there.aborting(vm))
    assert (await task).code is FailureCode.CANCELLED
    assert await there.status(vm) is VmStatus.RUNNING
    assert not Path(there.path(vm)).exists()
    assert figures[0].total_bytes > 200 << 20


# --- jobs of others ---


async def backup(lab: Lab, mode: str) -> None:
    """Begin a backup of the first guest's disk, as other programs do."""
    target = f"<scratch file='{lab.shared}/scratch.qcow2'/>"
    if mode == "push":
        target = f"<target file='{lab.shared}/pushed.qcow2'/><driver type='qcow2'/>"
    server = "<server transport='unix' socket='/var/lib/libvirt/backup.sock'/>" if mode == "pull" else ""
    file = lab.directory / "backup.xml"
    file.write_text(
        f"<domainbackup mode='{mode}'>{server}"
        f"<disks><disk name='vda' backup='yes' type='file'>{target}</disk></disks></domainbackup>"
    )
    for name in ("scratch.qcow2", "pushed.qcow2"):
        (lab.shared / name).unlink(missing_ok=True)
    await lab.virsh("n1", "backup-begin", GUESTS[0], str(file))


@pytest.mark.parametrize("way", ["inventory", "sample", "move"])
async def test_a_pull_mode_backup_by_someone_else_is_seen(lab: Lab, there: LabThere, way: str) -> None:
    """libvirt has no event for its begin: it is found by whatever looks next."""
    vm = there.vms[0]
    await there.hypervisor.read_inventory(N1)
    there.seen.clear()
    await backup(lab, "pull")
    try:
        before = time.monotonic()
        if way == "inventory":
            await there.hypervisor.read_inventory(N1)
            await there.hypervisor.abort(there.aborting(vm))  # of a move of ours: not this job
        elif way == "sample":
            async with asyncio.timeout(30):
                while not jobs_told(there, vm):  # some guests with each: its turn may come later
                    await there.hypervisor.sample(N1)
                    await asyncio.sleep(0.1)
        else:
            failure = await failure_of(there.hypervisor.migrate(there.move(vm)))
            assert (failure.code, failure.text) == (FailureCode.BUSY, "a job runs on it already: backup")
            check = there.hypervisor.check_peer(there.checking(vm, N2))
            assert (await failure_of(check)).code is FailureCode.BUSY
            assert time.monotonic() - before < 10  # libvirt itself waits for 30 s
        await there.until(lambda: jobs_told(there, vm) == [(True, "backup", False)])
        assert await there.hypervisor.have_jobs(N1, (vm,))
    finally:
        await lab.virsh("n1", "domjobabort", GUESTS[0])
    await there.until(lambda: jobs_told(there, vm)[1:] == [(False, "backup", False)])
    assert not await there.hypervisor.have_jobs(N1, (vm,))


async def test_a_block_copy_by_someone_else_is_seen(lab: Lab, there: LabThere) -> None:
    vm, name = there.vms[0], GUESTS[0]
    there.seen.clear()
    copy = ("--dest", f"{FAST_FOLDER}/copy.qcow2", "--transient-job", "--format", "qcow2")
    await lab.virsh("n1", "blockcopy", name, "vda", *copy)
    await there.until(lambda: jobs_told(there, vm) == [(True, "block copy", False)])
    failure = await failure_of(there.hypervisor.migrate(there.move(vm)))
    assert (failure.code, failure.text) == (FailureCode.BUSY, "a job runs on it already: block copy")
    await lab.virsh("n1", "blockjob", name, "vda", "--abort")
    await there.until(lambda: jobs_told(there, vm)[1:] == [(False, "block copy", False)])
    await lab.virsh("n1", "pool-refresh", FAST_POOL)
    await lab.virsh("n1", "vol-delete", "copy.qcow2", FAST_POOL)


async def test_a_dump_and_a_save_by_someone_else_are_seen(lab: Lab, busy: LabThere) -> None:
    there, vm = busy, busy.vms[0]
    file = lab.shared / "by-hand"
    for command, what in (("dump", "memory dump"), ("save", "save")):
        there.seen.clear()
        await lab.virsh("n1", command, BUSY_GUEST, str(file))
        file.unlink()
        await there.until(lambda: len(jobs_told(there, vm)) == 2)
        assert jobs_told(there, vm) == [(True, what, False), (False, what, False)]


async def test_a_new_operation_of_ours_is_not_taken_for_somebody_elses(there: LabThere) -> None:
    vm = there.vms[0]
    there.seen.clear()
    move = there.begin(there.hypervisor.migrate(there.move(vm, bandwidth_mib_s=40)))
    while not move.done():
        await there.hypervisor.read_inventory(N1)
        await there.hypervisor.sample(N1)
    await move
    again = there.move(vm, node=N2, target=N1, operation=OperationId("contract-2"))
    await there.hypervisor.migrate(again)
    assert not jobs_told(there, vm)

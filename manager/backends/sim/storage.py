"""What is written and read on disks: saved memory, files of it, copies of disks from pool to pool."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manager.backends.sim.hosts import Done, Job, Pool, SimNode, SimVm, refused
from manager.backends.sim.moves import located, relocated
from manager.backends.sim.streams import Way
from manager.core.errors import FailureCode
from manager.core.ids import NodeId, VmId
from manager.core.model import Disk, StatusCause, VmStatus

if TYPE_CHECKING:
    from manager.backends.sim.world import SimWorld

Place = tuple[NodeId | None, str]
"""Whose file it is (nobody's own on shared storage), and its path."""

_INVALID = "Requested operation is not valid: "


@dataclass(slots=True, eq=False, kw_only=True)
class SavedMemory:
    """A file with a VM's memory."""

    vm: VmId
    was_paused: bool
    started_s: float | None
    whole: bool = False  # false while it is written, and for ever if nobody came to the end


class Storage:
    """The files of a world, and the jobs that write them."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self.saved: dict[Place, SavedMemory] = {}
        self.left_behind: list[Place] = []  # images that were copied, and that nobody uses

    @staticmethod
    def place(node: SimNode, path: str) -> Place:
        """Which file a node means by a path."""
        return (None if node.shares(path) else node.id, path)

    def leave(self, node: SimNode, path: str) -> None:
        """An image is not used any more, and is kept."""
        self.left_behind.append(self.place(node, path))

    def need_name(self, place: Place, own: Place, node: SimNode, vm: SimVm) -> None:
        """Raises `OperationError(CONFLICT)` if a copy of a VM's image would be written over another image."""
        if place == own or place in self.left_behind:
            text = f"storage volume '{place[1].rpartition('/')[2]}' exists already"
            raise refused(FailureCode.CONFLICT, text, node=node.id, vm=vm.id)

    @staticmethod
    def need_plain(disk: Disk, node: SimNode, vm: SimVm) -> None:
        """Raises `OperationError(NOT_SUPPORTED)` for an encrypted disk: its copy would not be."""
        if disk.encrypted:
            text = f"its disk {disk.target} is encrypted, and its copy would not be"
            raise refused(FailureCode.NOT_SUPPORTED, text, node=node.id, vm=vm.id)

    # --- memory ---------------------------------------------------------------------------

    def save(self, vm: SimVm, done: Done, path: str = "") -> None:
        """Write a VM's memory to a file and end it: Saved without a path of its own, else Off.

        Raises `OperationError` if it is refused at once.
        """
        world, node = self._world, vm.node
        world.need_running(vm)
        self._need_free_disks(vm)
        if vm.config.host_devices:
            text = f"{_INVALID}domain has assigned non-USB host devices"
            raise refused(FailureCode.WRONG_STATE, text, node=node.id, vm=vm.id)
        place, written = self.place(node, path), None
        if path:
            self._check_file(vm, path)
            was_paused = vm.status is VmStatus.PAUSED
            written = SavedMemory(vm=vm.id, was_paused=was_paused, started_s=vm.started_s)
            self.saved[place] = written
        before = (vm.status, vm.cause if vm.status is VmStatus.PAUSED else StatusCause.NONE)

        def undo() -> None:
            vm.status, vm.cause = before
            if self.saved.get(place) is written:
                self.saved.pop(place, None)

        def finish() -> None:
            if written is not None:
                written.whole = True
            world.stop(vm, VmStatus.OFF if path else VmStatus.SAVED, StatusCause.SAVED)
            world.tell_job(vm, job, active=False)
            world.end_job(vm, job)

        call = "remoteDispatchDomainSaveFlags" if path else "remoteDispatchDomainManagedSave"
        job = vm.job = world.job(call, done, kind="save", undo=undo, may_be_aborted=True)
        world.set_state(vm, VmStatus.PAUSED, StatusCause.SAVING)
        world.tell_job(vm, job, active=True)
        job.transfer = world.transfer(vm.memory_bytes, ((Way.DISK, node),), finish)

    def _check_file(self, vm: SimVm, path: str) -> None:
        node = vm.node
        self._world.need_no_checkpoints(vm)
        if not vm.config.persistent:
            text = "it has no stored definition: once it is off it is gone"
            raise refused(FailureCode.WRONG_STATE, text, node=node.id, vm=vm.id)
        old = self.saved.get(self.place(node, path))
        if old is not None and old.vm != vm.id:
            text = f"the file {path} is there already, and is not this VM's"
            raise refused(FailureCode.CONFLICT, text, node=node.id, vm=vm.id)
        pool = next((p for p in node.pools.values() if path.startswith(p.path + "/")), None)
        if pool is not None and pool.free_bytes < vm.memory_bytes:
            text = f"Unable to write to '{path}': No space left on device"
            raise refused(FailureCode.NO_RESOURCES, text, node=node.id, vm=vm.id)

    def restore(self, vm: SimVm, path: str, done: Done) -> None:
        """Let a VM run on from a file, and delete that then. Raises `OperationError` if it is refused."""
        node, place = vm.node, self.place(vm.node, path)
        if vm.runs:
            text = f"{_INVALID}domain '{vm.name}' is already active"
            raise refused(FailureCode.WRONG_STATE, text, node=node.id, vm=vm.id)
        found = self.saved.get(place)
        if found is None:
            text = f"Failed to open file '{path}': No such file or directory"
            raise refused(FailureCode.STORAGE, text, node=node.id, vm=vm.id)
        if found.vm != vm.id:
            text = f"operation failed: the file '{path}' is of another domain"
            raise refused(FailureCode.CONFLICT, text, node=node.id, vm=vm.id)
        if not found.whole:
            text = f"operation failed: save image '{path}' is incomplete"
            raise refused(FailureCode.OTHER, text, node=node.id, vm=vm.id)

        def arrived() -> None:
            vm.started_s = found.started_s
            if self.saved.get(place) is found:
                del self.saved[place]

        self._world.start(
            vm,
            done,
            restored=True,
            arrived=arrived,
            paused=found.was_paused,
            call="remoteDispatchDomainRestoreFlags",
        )

    # --- disks ----------------------------------------------------------------------------

    def copy_disks(
        self,
        vm: SimVm,
        pool_name: str,
        targets: tuple[str, ...],
        done: Done,
        cap_bytes_per_s: float = math.inf,
    ) -> Job:
        """Copy a running VM's disks to a pool of its node and switch over when all are there.

        Whoever asks for it also does the switching: see `Job.unattended`. Raises `OperationError` if it is
        refused at once.
        """
        world, node = self._world, vm.node
        world.need_running(vm)
        pool = node.pools.get(pool_name)
        if pool is None:
            text = f"Storage pool not found: no storage pool with matching name '{pool_name}'"
            raise refused(FailureCode.STORAGE, text, node=node.id, vm=vm.id)
        known = {disk.target: disk for disk in vm.config.disks}
        for target in targets:
            if target not in known:
                raise refused(FailureCode.NOT_FOUND, f"it has no disk {target}", node=node.id, vm=vm.id)
            self.need_plain(known[target], node, vm)
        targets = tuple(t for t in targets if located(known[t], pool) != known[t])
        if not targets:
            raise refused(FailureCode.ALREADY, f"its disks are in {pool.path}", node=node.id, vm=vm.id)
        if vm.disk_job is not None:
            return self._taken_over(vm, vm.disk_job, (pool_name, targets), done, cap_bytes_per_s)
        for target in targets:
            source = known[target].source
            there = self.place(node, located(known[target], pool).source)
            self.need_name(there, self.place(node, source), node, vm)
        self.need_space(pool, vm, node, targets)
        needed = vm.disk_bytes(targets)
        pool.free_bytes -= needed

        def undo() -> None:
            pool.free_bytes += needed

        def finish() -> None:
            if job.unattended:
                return  # stays a mirror until somebody ends it
            for target in targets:
                self.leave(node, known[target].source)
            vm.config = relocated(vm.config, targets, pool)
            vm.revision += 1
            world.tell_job(vm, job, active=False)
            world.end_job(vm, job)

        job = vm.disk_job = world.job(
            "remoteDispatchDomainBlockCopy", done, kind="block copy", undo=undo, may_be_aborted=True
        )
        job.copies = (pool_name, targets)
        world.tell_job(vm, job, active=True)
        job.transfer = world.transfer(
            needed, ((Way.DISK, node), (Way.DISK, node)), finish, cap_bytes_per_s=cap_bytes_per_s
        )
        return job

    def _taken_over(
        self, vm: SimVm, job: Job, copies: tuple[str, tuple[str, ...]], done: Done, cap_bytes_per_s: float
    ) -> Job:
        """Copies that a program left when it ended are attended to again."""
        if not job.unattended or job.copies != copies or job.transfer is None:
            text = "its disks are being copied to another place"
            raise refused(FailureCode.BUSY, text, node=vm.node.id, vm=vm.id)
        job.done, job.unattended = done, False
        job.transfer.stream.cap_bytes_per_s = cap_bytes_per_s
        self._world.streams.changed()
        if not job.transfer.left:
            job.timer = self._world.after(0.0, job.transfer.done)
        return job

    def need_space(self, pool: Pool, vm: SimVm, node: SimNode, targets: tuple[str, ...]) -> None:
        """Raises `OperationError(NO_RESOURCES)` if a pool has no room for copies of these disks."""
        if vm.disk_bytes(targets) > pool.free_bytes:
            text = f"cannot allocate space in '{pool.path}': No space left on device"
            raise refused(FailureCode.NO_RESOURCES, text, node=node.id, vm=vm.id)

    def _need_free_disks(self, vm: SimVm) -> None:
        if vm.disk_job is not None:
            text = f"{_INVALID}domain has an active block job"
            raise refused(FailureCode.WRONG_STATE, text, node=vm.node.id, vm=vm.id)

"""Moves of VMs and of disks: which call goes to which lane, and what is cleared up when one fails."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from manager.backends.libvirt import changing, copying, jobs, moving, offline, storage, uris
from manager.backends.libvirt.foreign import JOB_S, Jobs
from manager.backends.libvirt.lane import Work
from manager.backends.libvirt.link import CHANGE_S, LONG_CHANGE_S, Link, Links, OwnJob
from manager.core.effects import (
    AbortMigration,
    CheckPeerLogin,
    CopyDefinition,
    CopyDisks,
    ForgetDefinition,
    RestoreFromFile,
    SaveToFile,
    StartMigration,
    TuneMigration,
    VmEffect,
)
from manager.core.errors import Failure, FailureCode, OperationError
from manager.core.events import MigrationRouted
from manager.core.ids import VmId
from manager.core.model import NodeConfig, PeerRoute
from manager.core.placement.planner import is_below
from manager.services.ports import Feature

log = logging.getLogger(__name__)

PEER_CHECK_S = 15.0
JOB_PATIENCE_S = 10.0  # what comes before the job does that it is for is tried again that long
JOB_RETRY_S = 0.2
EVENT_GRACE_S = 0.3  # an event may come a little after the end of the call that it is about
COPY_LOOK_S = 0.5
COPY_STALLED_S = 300.0  # a copy that does not get on for that long has failed


class Moves:
    """The part of the Hypervisor port that moves VMs; see there what each call does. Loop thread only."""

    def __init__(
        self,
        links: Links,
        host_jobs: Jobs,
        *,
        shared_paths: tuple[str, ...],
        look: Callable[[Link, VmId], None],
    ) -> None:
        self._links = links
        self._jobs = host_jobs
        self._shared_paths = shared_paths
        self._look = look  # at a VM that may have left its node

    # --- live --------------------------------------------------------------------------------

    async def migrate(self, effect: StartMigration) -> None:
        """Cancelled or cut off, it leaves a node-to-node move running."""
        link, target = self._links.of(effect.node), self._links.of(effect.target)
        _require(Feature.LIVE_MIGRATION, link, effect)
        if text := moving.refusal_of(effect):
            raise _refused(FailureCode.NOT_SUPPORTED, text, effect)
        with self._links.own_job(effect) as job:
            await self._jobs.refuse_busy(link, effect.vm)
            copies = await self._make_copies(link, target, effect) if effect.copy_disks else ()
            try:
                await self._try_addresses(link, target, effect, copies, job)
            except OperationError:
                if copies:
                    await self._remove_copies(link, target, effect.vm, copies)
                raise
            finally:
                self._look(link, effect.vm)
        if effect.autostart:
            await _carry_autostart(target, effect.vm)

    async def _try_addresses(
        self,
        link: Link,
        target: Link,
        effect: StartMigration,
        copies: tuple[storage.Copy, ...],
        job: OwnJob,
    ) -> None:
        """Move by the first address that answers; the next one only if nothing was sent by the last."""
        is_peer = effect.route is PeerRoute.NODE_TO_NODE
        can_post_copy = link.can(Feature.POST_COPY) and target.can(Feature.POST_COPY)
        end = moving.MoveEnd()
        for address in effect.addresses or ("",):
            move = moving.move_of(
                effect,
                peer=is_peer,
                address=address,
                post_copy=effect.convergence.post_copy and can_post_copy,
                copies=copies,
                is_cancelled=lambda: job.is_aborted,
            )
            run: Work[moving.MoveEnd]
            if is_peer:
                peer_uri = _peer_uri(target.node, effect.vm)
                run = functools.partial(moving.move_to_peer, move=move, peer_uri=peer_uri)
            else:
                run = functools.partial(moving.move_through_us, move=move, open_target=target.open)
            self._links.tell(
                MigrationRouted(
                    at_s=self._links.clock.now_s(),
                    trace=effect.trace,
                    operation=effect.operation,
                    attempt=effect.attempt,
                    address=address,
                    encrypted=move.is_encrypted,
                )
            )
            end = await link.call(link.work, run, None, "live migration", effect.vm)
            if end.failure is None:
                return
            if end.contact is moving.Contact.UNTOLD:
                await self._links.clock.sleep(EVENT_GRACE_S)
                if not job.has_sent:
                    end = moving.never_began(end, move)
            if end.contact is not moving.Contact.FAILED:
                break
            if job.is_aborted:  # while the source waited for an answer, which it cannot be called away from
                raise _refused(FailureCode.CANCELLED, "cancelled before it reached the target", effect)
        assert end.failure is not None
        raise OperationError(end.failure)

    async def _make_copies(
        self, link: Link, target: Link, effect: StartMigration
    ) -> tuple[storage.Copy, ...]:
        """The images on the target that the disks are copied into: libvirt writes into what is there only."""
        find = functools.partial(storage.images_of, vm=effect.vm, disks=effect.copy_disks)
        images = await link.change(find, CHANGE_S, "reading disk sizes", effect.vm)
        make = functools.partial(storage.make_images, pool=effect.pool, images=images, node=target.node.name)
        return await target.change(make, CHANGE_S, "making images", effect.vm)

    async def _remove_copies(
        self, link: Link, target: Link, vm: VmId, copies: tuple[storage.Copy, ...]
    ) -> None:
        """After a move that failed, unless it may still go on, or went on: then they could be in use."""
        left = tuple(copy.path for copy in copies)
        idle = functools.partial(jobs.is_idle, vm=vm)
        remove = functools.partial(storage.remove_unused, vm=vm, copies=copies)
        try:
            if (
                self._links.is_current(link)
                and self._links.is_current(target)
                and await link.call(link.jobs, idle, JOB_S, "looking for the job", vm)
            ):
                left = await target.change(remove, CHANGE_S, "deleting images", vm)
        except OperationError as error:
            log.info("VM %s: images of a failed move: %s", vm, error)
        if left:
            there = target.node.name
            log.warning("VM %s: images of a failed move stay on %s: %s", vm, there, ", ".join(left))

    async def abort(self, effect: AbortMigration) -> None:
        """No job is success; one of ours that is about to begin is waited for."""
        link, job = self._links.of(effect.node), self._links.own(effect)
        if job is not None:
            job.is_aborted = True
            if job.looks_itself:
                return
        ask = functools.partial(moving.abort, vm=effect.vm)
        text = "the host has no job yet that could be cancelled"
        await self._until_job(link, effect, ask, "cancelling", FailureCode.TIMEOUT, text)

    async def tune(self, effect: TuneMigration) -> None:
        """A move of ours that is about to begin is waited for."""
        link = self._links.of(effect.node)
        _require(Feature.LIVE_MIGRATION, link, effect)
        change = functools.partial(
            moving.tune,
            vm=effect.vm,
            pause_ms=effect.pause_ms,
            bandwidth_mib_s=effect.bandwidth_mib_s,
            post_copy=effect.post_copy,
        )
        text = "it is not being moved"
        if not await self._until_job(link, effect, change, "tuning", FailureCode.WRONG_STATE, text):
            raise _refused(FailureCode.WRONG_STATE, text, effect)

    async def _until_job(
        self, link: Link, effect: VmEffect, act: Work[bool], what: str, code: FailureCode, text: str
    ) -> bool:
        """Act on a VM's job, also on one of ours that has not begun yet; False if there is none to come.

        Raises:
            OperationError: `code`, if one of ours does not begin in time.
        """
        until_s = self._links.clock.monotonic_s() + JOB_PATIENCE_S
        while not await link.call(link.jobs, act, JOB_S, what, effect.vm):
            if self._links.own(effect) is None:
                return False
            if self._links.clock.monotonic_s() > until_s:
                raise _refused(code, text, effect)
            await self._links.clock.sleep(JOB_RETRY_S)
        return True

    async def check_peer(self, effect: CheckPeerLogin) -> None:
        """For libvirt it is a job like any other, for a moment."""
        link, target = self._links.of(effect.node), self._links.of(effect.target)
        _require(Feature.LIVE_MIGRATION, link, effect)
        check = functools.partial(
            moving.check_peer,
            vm=effect.vm,
            peer_uri=_peer_uri(target.node, effect.vm),
            target=effect.target,
        )
        with self._links.own_job(effect):
            await self._jobs.refuse_busy(link, effect.vm)
            await link.call(link.work, check, PEER_CHECK_S, "checking the login", effect.vm)

    # --- while the VM is off -----------------------------------------------------------------

    async def save_to_file(self, effect: SaveToFile) -> None:
        """Only below a shared path: what is there already is only written over if it is this VM's."""
        link = self._links.of(effect.node)
        _require(Feature.OTHER_MOVES, link, effect)
        self._require_shared(effect.path, effect)
        with self._links.own_job(effect) as job:
            await self._jobs.refuse_busy(link, effect.vm)
            save = functools.partial(
                offline.save,
                vm=effect.vm,
                path=effect.path,
                shared_paths=self._shared_paths,
                is_cancelled=lambda: job.is_aborted,
            )
            await link.call(link.work, save, None, "saving to a file", effect.vm)

    async def restore_from_file(self, effect: RestoreFromFile) -> None:
        """Only from below a shared path."""
        link = self._links.of(effect.node)
        _require(Feature.OTHER_MOVES, link, effect)
        self._require_shared(effect.path, effect)
        restore = functools.partial(offline.restore, vm=effect.vm, path=effect.path)
        with self._links.own_job(effect):
            await link.call(link.work, restore, LONG_CHANGE_S, "restoring from a file", effect.vm)

    async def copy_definition(self, effect: CopyDefinition) -> None:
        """By the nodes themselves, or through this computer."""
        link, target = self._links.of(effect.node), self._links.of(effect.target)
        _require(Feature.OTHER_MOVES, link, effect)
        copy = offline.DefinitionCopy(vm=effect.vm, target=effect.target, shared_paths=self._shared_paths)
        run: Work[None]
        if effect.route is PeerRoute.NODE_TO_NODE:
            peer_uri = _peer_uri(target.node, effect.vm)
            run = functools.partial(offline.copy_to_peer, copy=copy, peer_uri=peer_uri)
        else:
            run = functools.partial(offline.copy_through_us, copy=copy, open_target=target.open)
        await link.change(run, CHANGE_S, "copying the definition", effect.vm)
        if effect.autostart:
            await _carry_autostart(target, effect.vm)

    async def forget_definition(self, effect: ForgetDefinition) -> None:
        """The VM's files stay."""
        link = self._links.of(effect.node)
        _require(Feature.OTHER_MOVES, link, effect)
        forget = functools.partial(offline.forget, vm=effect.vm)
        await link.change(forget, CHANGE_S, "undefining", effect.vm)

    def _require_shared(self, path: str, effect: VmEffect) -> None:
        """A file with a VM's memory goes where the administrator said, and nowhere else."""
        if not is_below(path, self._shared_paths):
            text = f"{path} is not below a shared path of the cluster file"
            raise _refused(FailureCode.UNSAFE, text, effect)

    # --- disks -------------------------------------------------------------------------------

    async def copy_disks(self, effect: CopyDisks) -> None:
        """Cancelled or cut off, it leaves the copies running and the VM on its old disks.

        The same request then takes the copies over.
        """
        link = self._links.of(effect.node)
        _require(Feature.OTHER_MOVES, link, effect)
        with self._links.own_job(effect) as job:
            job.looks_itself = True
            begin = functools.partial(
                copying.begin,
                vm=effect.vm,
                pool=effect.pool,
                disks=effect.disks,
                bandwidth_mib_s=effect.bandwidth_mib_s,
                node=effect.node,
                is_cancelled=lambda: job.is_aborted,
            )
            copies = await link.change(begin, CHANGE_S, "beginning to copy disks", effect.vm)
            try:
                await self._until_copied(link, effect, copies, job)
                switch = functools.partial(copying.switch, vm=effect.vm, copies=copies)
                await link.change(switch, CHANGE_S, "switching disks", effect.vm)
            except OperationError:
                if self._links.is_current(link):
                    await _give_up(link, effect.vm, copies)
                raise

    async def _until_copied(
        self, link: Link, effect: CopyDisks, copies: tuple[storage.Copy, ...], job: OwnJob
    ) -> None:
        """Wait until all copies are whole. The host tells it by an event; its figures are wanted anyway."""
        clock = self._links.clock
        look = functools.partial(copying.standing, vm=effect.vm, copies=copies)
        began_s = moved_s = clock.monotonic_s()
        done = -1
        while not job.is_aborted:
            now_s = clock.monotonic_s()
            try:
                seen = await link.call(link.jobs, look, JOB_S, "looking at the copies", effect.vm)
            except OperationError as error:
                if error.failure.code is not FailureCode.TIMEOUT:
                    raise
            else:
                if seen.gone:
                    text = f"the copy of {', '.join(seen.gone)} was ended by the host"
                    raise _refused(FailureCode.STORAGE, text, effect)
                job.figures = _figures(seen, now_s - began_s)
                if seen.ready:
                    return
                if seen.done_bytes != done:
                    done, moved_s = seen.done_bytes, now_s
            if now_s - moved_s > COPY_STALLED_S:
                text = f"the copies have not got on for {COPY_STALLED_S:g} s"
                raise _refused(FailureCode.TIMEOUT, text, effect)
            await clock.sleep(COPY_LOOK_S)
        raise _refused(FailureCode.CANCELLED, "cancelled", effect)


async def _give_up(link: Link, vm: VmId, copies: tuple[storage.Copy, ...]) -> None:
    left = tuple(copy.path for copy in copies)
    try:
        end = functools.partial(copying.end, vm=vm, copies=copies)
        left = await link.change(end, CHANGE_S, "giving copies up", vm)
    except OperationError as error:
        log.info("VM %s: copies of disks: %s", vm, error)
    if left:
        log.warning("VM %s: copies of disks stay on %s: %s", vm, link.node.name, ", ".join(left))


def _figures(seen: copying.Standing, elapsed_s: float) -> jobs.JobFigures:
    """A copy's figures as a job's; the rate is the mean since it began."""
    return jobs.JobFigures(
        elapsed_ms=int(elapsed_s * 1000),
        total_bytes=seen.total_bytes,
        remaining_bytes=seen.total_bytes - seen.done_bytes,
        rate_bytes_per_s=int(seen.done_bytes / elapsed_s) if elapsed_s else 0,
    )


async def _carry_autostart(target: Link, vm: VmId) -> None:
    """libvirt leaves the mark behind on the source. The move is done: trouble here is only logged."""
    mark = functools.partial(changing.set_autostart, vm=vm)
    try:
        await target.call(target.work, mark, CHANGE_S, "marking for autostart", vm)
    except OperationError as error:
        log.warning("autostart of VM %s not set on %s: %s", vm, target.node.name, error)


def _refused(code: FailureCode, text: str, effect: VmEffect) -> OperationError:
    return OperationError(Failure(code=code, text=text, node=effect.node, vm=effect.vm))


_MISSING = {
    Feature.LIVE_MIGRATION: "no live migration",
    Feature.OTHER_MOVES: "no quick and no storage migration",
}


def _require(feature: Feature, link: Link, effect: VmEffect) -> None:
    if not link.can(feature):
        driver = link.facts.hypervisor if link.facts else ""
        text = f"libvirt's {driver} driver has {_MISSING[feature]}"
        raise _refused(FailureCode.NOT_SUPPORTED, text, effect)


def _peer_uri(target: NodeConfig, vm: VmId) -> str:
    uri = uris.peer_uri_of(target)
    if uri is None:
        text = f"how the other nodes reach {target.name} is not known: set its peer_uri in the cluster file"
        raise OperationError(Failure(code=FailureCode.PEER_LOGIN, text=text, node=target.name, vm=vm))
    return uri

"""Everything that can be made to go wrong in a simulated cluster, in one place and by name.

What is wrong with a program, not with a host, is done to the program: closing its `SimHypervisor` is
`kill -9`, a second one on the same world is a second administrator, `VirtualClock.jump` sets the clock.
"""

from __future__ import annotations

import math
from dataclasses import replace

from manager.backends.sim.hosts import Job, Reach, SimNode, SimVm
from manager.backends.sim.moves import Move, MoveFault, Wishes
from manager.backends.sim.world import CallFault, SimWorld
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId
from manager.core.model import StatusCause, VmStatus


def _nobody_asked(_failure: Failure | None) -> None:
    """The `Done` of what others do."""


class Faults:
    """Injects faults into a world. All act at once, or on the next call or move that fits."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def _node(self, node: str) -> SimNode:
        self._world.catch_up()
        return self._world.nodes[NodeId(node)]

    def _vm(self, vm: str) -> SimVm:
        """The copy that runs, of a VM given by UUID or name; else any. `LookupError` if there is none."""
        self._world.catch_up()
        found = [
            copy
            for node in self._world.nodes.values()
            for copy in node.vms.values()
            if vm in (copy.id, copy.name)
        ]
        if not found:
            raise LookupError(f"no node has a VM {vm!r}")
        incoming = {move.copy for move in self._world.moves.running}
        return max(found, key=lambda copy: (copy not in incoming, copy.runs))

    # --- hosts ----------------------------------------------------------------------------

    def delay(self, node: str, seconds: float) -> None:
        """Every call to the host takes that much longer."""
        self._node(node).delay_s = seconds

    def hang_call(self, node: str, call: str, *, times: int = 1, acts: bool = False) -> None:
        """The next calls of this port method are accepted and never answered; `acts`: but carried out."""
        self._node(node).hangs.setdefault(call, []).extend([acts] * times)

    def freeze(self, node: str) -> None:
        """The host accepts connections and never answers (its daemon is stopped); its VMs go on."""
        self._world.set_reach(self._node(node), Reach.FROZEN)

    def cut_network(self, node: str) -> None:
        """Nothing comes from the host any more, and nobody is told; its VMs go on."""
        self._world.set_reach(self._node(node), Reach.SILENT)

    def kill_daemon(self, node: str) -> None:
        """The host's daemon is gone: connections end at once, new ones are refused; its VMs go on."""
        self._world.set_reach(self._node(node), Reach.REFUSES)

    def repair(self, node: str) -> None:
        """The host answers again, after `freeze`, `cut_network` or `kill_daemon`."""
        self._world.set_reach(self._node(node), Reach.ANSWERS)

    def drop_connections(self, node: str) -> None:
        """The host ends all connections and takes new ones; moves between hosts go on."""
        self._world.cut_connections(self._node(node))

    def power_off(self, node: str, *, told: bool = False) -> None:
        """The host dies with its VMs; `told`: connections end at once, else only by keep-alive."""
        self._world.power_off(self._node(node), told=told)

    def power_on(self, node: str) -> None:
        """The host comes back with its VMs off."""
        self._world.power_on(self._node(node))

    def refuse_login(self, node: str, *, refuse: bool = True) -> None:
        """The host lets nobody in, administrators and other hosts."""
        self._node(node).refuses_login = refuse

    def make_incompatible(self, node: str, why: str) -> None:
        """The host cannot be driven; an empty text repairs it."""
        self._node(node).incompatible = why

    def break_peer_login(self, source: str, target: str) -> None:
        """One host cannot log in to the other."""
        self._world.broken_logins.add((NodeId(source), NodeId(target)))

    def repair_peer_login(self, source: str, target: str) -> None:
        """It can again."""
        self._world.broken_logins.discard((NodeId(source), NodeId(target)))

    # --- events ---------------------------------------------------------------------------

    def lag_events(self, node: str, seconds: float) -> None:
        """The host's events come late, so that they come after those of other hosts and after reads."""
        self._node(node).event_lag_s = seconds

    def swap_events(self, node: str, pairs: int = 1) -> None:
        """The host's next events come in the wrong order, pair by pair."""
        self._node(node).events_to_swap += pairs

    def lose_events(self, node: str, count: int) -> None:
        """The host's next events never come."""
        self._node(node).events_to_lose += count

    # --- calls ----------------------------------------------------------------------------

    def fail_call(
        self,
        call: str,
        code: FailureCode = FailureCode.OTHER,
        text: str = "internal error: injected",
        *,
        node: str | None = None,
        vm: str | None = None,
        nth: int = 1,
        times: int = 1,
        after_s: float | None = None,
    ) -> None:
        """Calls of a port method fail.

        Args:
            call: the method of `Hypervisor`.
            code: what the failure says.
            text: what the failure says.
            node: only calls to this host.
            vm: only calls for this VM.
            nth: the first one that fails, of those it could be: 1 is the next.
            times: how many fail; those after them work again.
            after_s: the call begins its job, which breaks off after that long; refused at once if None.
        """
        self._world.call_faults.append(
            CallFault(
                failure=Failure(code=code, text=text),
                call=call,
                node=self._node(node).id if node is not None else None,
                vm=self._vm(vm).id if vm is not None else None,
                nth=nth,
                times=times,
                after_s=after_s,
            )
        )

    def lose_connection(self, call: str, *, times: int = 1, node: str | None = None) -> None:
        """The connection is lost in the next calls of a port method, and is back right after each."""
        text = "internal error: client socket is closed"
        self.fail_call(call, FailureCode.UNREACHABLE, text, times=times, node=node)

    def make_busy(self, seconds: float, *, vm: str | None = None, node: str | None = None) -> None:
        """For that long, whatever would change a VM is refused: the host is busy with it."""
        text = "Timed out during operation: cannot acquire state change lock"
        self._world.call_faults.append(
            CallFault(
                failure=Failure(code=FailureCode.BUSY, text=text),
                call=None,
                node=self._node(node).id if node is not None else None,
                vm=self._vm(vm).id if vm is not None else None,
                times=math.inf,
                until_s=self._world.time_s + seconds,
            )
        )

    # --- networks and storage -------------------------------------------------------------

    def kill_address(self, node: str, address: str) -> None:
        """Nobody reaches a host at this address any more; moves that go there stand still."""
        found = self._node(node)
        found.dead_addresses.add(address)
        self._world.moves.addresses_changed(found)

    def repair_address(self, node: str, address: str) -> None:
        """It is reached there again."""
        found = self._node(node)
        found.dead_addresses.discard(address)
        self._world.moves.addresses_changed(found)

    def lose_certificates(self, node: str) -> None:
        """The host has none for encrypted moves."""
        self._node(node).certificates = False

    def forbid_post_copy(self, node: str) -> None:
        """The host's kernel does not permit it; known to whoever connects from now on."""
        self._node(node).post_copy = False

    def fill_pool(self, node: str, pool: str, free_bytes: float = 0.0) -> None:
        """A host's storage pool has only so much room left."""
        self._node(node).pools[pool].free_bytes = free_bytes

    def lose_file(self, node: str, path: str) -> None:
        """A file with saved memory is gone."""
        storage = self._world.storage
        storage.saved.pop(storage.place(self._node(node), path), None)

    def unlock_images(self) -> None:
        """Nothing keeps a second QEMU from the images of a running one."""
        self._world.locks_images = False

    # --- moves ----------------------------------------------------------------------------

    def fail_move(
        self,
        code: FailureCode = FailureCode.OTHER,
        text: str = "internal error: injected",
        *,
        nth: int = 1,
        times: int = 1,
        vm: str | None = None,
        after_s: float = 1.0,
    ) -> None:
        """Moves fail and say so: the n-th from now on, of this VM or of any, and those after it."""
        for _ in range(times):
            self._plan(nth, vm, after_s, told=Failure(code=code, text=text))

    def end_move_wrongly(
        self,
        *,
        arrives: bool,
        says: Failure | None = None,
        silent: bool = False,
        nth: int = 1,
        vm: str | None = None,
        after_s: float = 1.0,
    ) -> None:
        """A move ends one way and its call says another.

        Args:
            arrives: what really happens to the VM.
            says: what the call says; None is success.
            silent: the job is over (libvirt's type NONE) and the call never returns.
            nth, vm, after_s: as in `fail_move`.
        """
        self._plan(nth, vm, after_s, arrives=arrives, told=says, silent=silent)

    def _plan(
        self,
        nth: int,
        vm: str | None,
        after_s: float,
        *,
        arrives: bool = False,
        told: Failure | None = None,
        silent: bool = False,
    ) -> None:
        only = self._vm(vm).id if vm is not None else None
        self._world.moves.faults.append(
            MoveFault(nth=nth, vm=only, after_s=after_s, arrives=arrives, told=told, silent=silent)
        )

    def dirty_memory(self, vm: str, mib_per_s: float, working_set: float = 0.9) -> None:
        """The guest writes that fast, over that share of its memory: no link that is slower carries it."""
        found = self._vm(vm)
        found.guest = replace(found.guest, dirty_mib_s=mib_per_s, working_set=working_set)

    # --- other administrators -------------------------------------------------------------

    def move_by_someone_else(self, vm: str, target: str, *, bandwidth_mib_s: int = 0) -> Move:
        """Another administrator moves a VM, without any of our programs."""
        wishes = Wishes(bandwidth_mib_s=bandwidth_mib_s)
        return self._world.moves.begin(self._vm(vm), self._node(target), _nobody_asked, wishes)

    def backup_by_someone_else(self, vm: str, seconds: float | None = None) -> Job:
        """Someone's backup of a VM runs for that long; a pull-mode one, without a time, until it is ended."""
        return self._world.occupy(self._vm(vm), "backup", seconds)

    def save_by_someone_else(self, vm: str, path: str = "") -> Job | None:
        """Someone saves a VM, to a file of their own if a path is given."""
        found = self._vm(vm)
        self._world.storage.save(found, _nobody_asked, path)
        return found.job

    def copy_disks_by_someone_else(self, vm: str, pool: str, *disks: str) -> Job:
        """Someone moves a VM's disks (vda if none is named) to another pool of its node."""
        return self._world.storage.copy_disks(self._vm(vm), pool, disks or ("vda",), _nobody_asked)

    def cancel_by_someone_else(self, vm: str) -> None:
        """Another administrator ends the VM's job: a move, a save, a backup, a copy of disks."""
        self._world.abort_job(self._vm(vm))

    # --- VMs ------------------------------------------------------------------------------

    def run_twice(self, vm: str, node: str) -> SimVm:
        """A second running copy of a VM, which nothing prevented."""
        found, other = self._vm(vm), self._node(node)
        twin = replace(
            found,
            node=other,
            status=VmStatus.RUNNING,
            cause=StatusCause.BOOTED,
            incarnation=self._world.next_incarnation(other),
            job=None,
            disk_job=None,
            intent=None,
        )
        other.vms[twin.id] = twin
        self._world.tell_state(twin)
        return twin

    def define_twice(self, vm: str, node: str) -> SimVm:
        """A second definition of a VM, off, as an old move may leave it."""
        found, other = self._vm(vm), self._node(node)
        return self._world.add_vm(
            other, found.id, found.name, found.config, found.guest, cause=StatusCause.MIGRATED
        )

    def vanish(self, vm: str) -> None:
        """A VM is gone, process and definition, and nobody is told."""
        self._world.remove(self._vm(vm))

    def undefine(self, vm: str) -> None:
        """Someone undefines a VM; one that runs goes on until it stops."""
        self._world.undefine(self._vm(vm))

    def rename(self, vm: str, name: str) -> None:
        """Someone renames a VM."""
        self._world.redefine(self._vm(vm), name=name)

    def crash(self, vm: str) -> None:
        """A VM's process dies."""
        self._world.kill(self._vm(vm), VmStatus.CRASHED, StatusCause.CRASHED)

    def fill_disk(self, vm: str) -> None:
        """The VM's storage is full: it stands still with a disk error, again and again, until `free_disk`."""
        found = self._vm(vm)
        found.guest = replace(found.guest, disk_full=True)
        self._world.find_no_room(found)

    def free_disk(self, vm: str) -> None:
        """There is room again; a person has to resume the VM."""
        found = self._vm(vm)
        found.guest = replace(found.guest, disk_full=False)

    def ignore_shutdown(self, vm: str) -> None:
        """The guest does not react when it is asked to shut down or restart."""
        found = self._vm(vm)
        found.guest = replace(found.guest, obeys=False)

    def silence_agent(self, vm: str) -> None:
        """The guest agent stops."""
        found = self._vm(vm)
        found.guest = replace(found.guest, agent=False)
        self._world.tell_definition(found)

    def spoil_definition(self, vm: str, trouble: str) -> None:
        """The definition has something that nobody expected."""
        found = self._vm(vm)
        self._world.redefine(found, replace(found.config, trouble=trouble))

"""What the hosts are asked to do for an operation, as effects. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manager.core.effects import (
    AbortMigration,
    ChangeVm,
    CheckPeerLogin,
    CopyDefinition,
    CopyDisks,
    EditVm,
    Effect,
    ForgetDefinition,
    NoteDrained,
    ReadNode,
    RestoreFromFile,
    SaveToFile,
    StartMigration,
    TuneMigration,
    VmChange,
    WriteVmSettings,
)
from manager.core.ids import NodeId, TraceId
from manager.core.inventory import Inventory
from manager.core.migration import convergence, moves, networks
from manager.core.migration.moves import MoveStep
from manager.core.model import Convergence, VmConfig
from manager.core.operations import Operation, OperationKind, nodes_of
from manager.core.placement import planner

_CHANGES: Mapping[MoveStep, VmChange] = {
    MoveStep.SHUT_DOWN: VmChange.SHUT_DOWN,
    MoveStep.TURN_OFF: VmChange.TURN_OFF,
    MoveStep.START: VmChange.START,
    MoveStep.START_BACK: VmChange.START,
}
"""Steps of a move that are a change of state like any other."""


class Instructions:
    """Effects of operations, with what the cluster file and the definitions say."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def check(self, operation: Operation) -> Effect:
        """Try the source's login at the target."""
        assert operation.target
        return CheckPeerLogin(**_about(operation), target=operation.target)

    def change(self, operation: Operation) -> Effect:
        """The one call of what is no move."""
        if operation.edit is not None:
            return EditVm(**_about(operation), edit=operation.edit.one)
        if operation.kind is OperationKind.SETTINGS:
            assert operation.settings is not None
            return WriteVmSettings(**_about(operation), settings=operation.settings)
        assert operation.change is not None
        return ChangeVm(**_about(operation), change=operation.change, snapshot=operation.snapshot)

    def step(self, operation: Operation, step: MoveStep) -> Effect:
        """One step of a move."""
        source, target = operation.source, operation.target
        assert operation.vm and source
        row = self._inventory.vms.get(operation.vm)
        config = row.config if row else None
        about = _about(operation, target if target and step in moves.ON_TARGET else source)
        autostart = config is not None and config.autostart
        match step:
            case MoveStep.MOVE:
                return self._live_move(operation, config, about)
            case MoveStep.COPY_DISKS:
                disks = tuple(d.target for d in config.disks if planner.is_movable(d)) if config else ()
                cap = operation.cap_mib_s
                return CopyDisks(**about, pool=operation.pool, disks=disks, bandwidth_mib_s=cap)
            case MoveStep.SAVE:
                return SaveToFile(**about, path=planner.saved_path(self._inventory.config, operation.vm))
            case MoveStep.RESTORE | MoveStep.RESTORE_BACK:
                return RestoreFromFile(**about, path=planner.saved_path(self._inventory.config, operation.vm))
            case MoveStep.DEFINE:
                assert target
                return CopyDefinition(**about, target=target, route=operation.route, autostart=autostart)
            case MoveStep.NOTE | MoveStep.UNNOTE:
                noted = operation.drained_from if step is MoveStep.NOTE else None
                return NoteDrained(**about, drained_from=noted)
            case MoveStep.FORGET | MoveStep.FORGET_TARGET:
                return ForgetDefinition(**about)
            case _:
                return ChangeVm(**about, change=_CHANGES[step])

    def abort(self, operation: Operation) -> Effect:
        """Call it off."""
        return AbortMigration(**_about(operation))

    def tune(
        self,
        operation: Operation,
        *,
        pause_ms: int | None = None,
        bandwidth_mib_s: int | None = None,
        post_copy: bool = False,
        instead_of: int | None = None,
        by_hand: bool = False,
    ) -> Effect:
        """Change one thing of how a live move goes on."""
        return TuneMigration(
            **_about(operation),
            pause_ms=pause_ms,
            bandwidth_mib_s=bandwidth_mib_s,
            post_copy=post_copy,
            instead_of=instead_of,
            by_hand=by_hand,
        )

    def reads(self, operation: Operation, trace: TraceId) -> list[Effect]:
        """Look at the nodes it is about."""
        return [
            ReadNode(trace=trace, node=node) for node in nodes_of(operation) if node in self._inventory.nodes
        ]

    def convergence(self, operation: Operation) -> Convergence:
        """By which policy a live move is brought to its end."""
        name = operation.policy if operation.policy in convergence.POLICIES else convergence.STANDARD
        standard = self._inventory.config.migration.convergence
        return convergence.policy(name, standard, memory_mib=operation.memory_mib)

    def _live_move(
        self, operation: Operation, definition: VmConfig | None, about: Mapping[str, Any]
    ) -> Effect:
        assert operation.source and operation.target
        config = self._inventory.config
        limits = config.migration
        local = planner.local_disks(config, definition) if definition and operation.pool else ()
        return StartMigration(
            **about,
            target=operation.target,
            route=operation.route,
            bandwidth_mib_s=operation.cap_mib_s,
            unsafe=definition is not None and planner.may_pass_unsafe(config, definition),
            convergence=self.convergence(operation),
            autostart=definition is not None and definition.autostart,
            addresses=networks.addresses(
                limits.networks, config.node(operation.source), config.node(operation.target)
            ),
            parallel_connections=limits.parallel_connections,
            encrypt=limits.encrypt,
            copy_disks=local,
            pool=operation.pool if local else "",
        )


def _about(operation: Operation, node: NodeId | None = None) -> Mapping[str, Any]:
    """What every effect on a VM says: whose it is, of which attempt, and on which node (else the source)."""
    assert operation.vm and operation.source
    return {
        "trace": operation.trace,
        "operation": operation.id,
        "attempt": operation.attempt,
        "vm": operation.vm,
        "node": node or operation.source,
    }

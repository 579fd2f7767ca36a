"""The steps of a move: how each type leaves the source, arrives on the target, and finds its way back.

At most one copy runs at any time: a VM is started on a node only after it was seen to be off on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from manager.core.model import MoveType


class MoveStep(StrEnum):
    """One call of a move. The value is what its story says."""

    MOVE = "moves live"
    COPY_DISKS = "copies disks"
    SAVE = "saves"
    SHUT_DOWN = "asks the guest to shut down"
    TURN_OFF = "turns off"
    DEFINE = "defines it on the target"
    RESTORE = "restores on the target"
    START = "starts on the target"
    FORGET = "removes the definition from the source"
    RESTORE_BACK = "restores on the source again"
    START_BACK = "starts on the source again"
    FORGET_TARGET = "removes the definition from the target"
    NOTE = "notes from where it is drained"
    UNNOTE = "forgets from where it was drained"


_S = MoveStep

PATHS: Mapping[MoveType, tuple[MoveStep, ...]] = {
    MoveType.LIVE: (_S.MOVE,),
    MoveType.STORAGE: (_S.COPY_DISKS,),
    MoveType.QUICK: (_S.SAVE, _S.DEFINE, _S.RESTORE, _S.FORGET),
    MoveType.SHUT_DOWN: (_S.SHUT_DOWN, _S.DEFINE, _S.START, _S.FORGET),
    MoveType.TURN_OFF: (_S.TURN_OFF, _S.DEFINE, _S.START, _S.FORGET),
}
"""The steps of a VM that runs."""

PATH_OF_OFF = (_S.DEFINE, _S.FORGET)
"""The steps of a VM that is off: it stays off."""

BACK: Mapping[MoveType, tuple[MoveStep, ...]] = {
    MoveType.QUICK: (_S.RESTORE_BACK, _S.FORGET_TARGET),
    MoveType.SHUT_DOWN: (_S.START_BACK, _S.FORGET_TARGET),
    MoveType.TURN_OFF: (_S.START_BACK, _S.FORGET_TARGET),
}
"""The way back once it left its source and could not arrive."""

LEAVING = frozenset({_S.SAVE, _S.SHUT_DOWN, _S.TURN_OFF})
"""Steps before whose end the VM runs on its source."""

ON_TARGET = frozenset({_S.RESTORE, _S.START, _S.FORGET_TARGET, _S.UNNOTE})
"""Steps whose call is made to the target."""

BEGINS_ON_SOURCE = frozenset({_S.RESTORE_BACK, _S.START_BACK})
"""Steps that bring the VM up on its source again."""

ARRIVING = frozenset({_S.RESTORE, _S.START})
"""Steps that bring the VM up on its target."""

CLEARING_UP = frozenset({_S.FORGET, _S.FORGET_TARGET, _S.UNNOTE})
"""Steps after the VM has its place: their failure is said and changes nothing."""

NOTES = frozenset({_S.NOTE, _S.UNNOTE})
"""Steps that write the VM's metadata: of them the end of the call is what is to be seen."""

WITH_JOB = frozenset({_S.MOVE, _S.COPY_DISKS, _S.SAVE})
"""Steps that are a job of the hypervisor: with figures, and to be aborted."""


def path(
    move: MoveType, *, was_off: bool, drains: bool = False, returns: bool = False
) -> tuple[MoveStep, ...]:
    """The steps in their order.

    `drains`: before them it is noted from where it leaves; `returns`: after them that is forgotten.
    """
    steps = PATH_OF_OFF if was_off else PATHS[move]
    return (*([_S.NOTE] if drains else []), *steps, *([_S.UNNOTE] if returns else []))


def after(steps: tuple[MoveStep, ...], step: MoveStep) -> MoveStep | None:
    """The step that follows in a path; None if it was the last, or is in another path."""
    place = steps.index(step) + 1 if step in steps else len(steps)
    return steps[place] if place < len(steps) else None

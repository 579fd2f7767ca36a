"""One declaration per action. Menus, panes, keys, the command line and the manual are made from these."""

from manager.core.actions.definition import (
    ADD_DISK,
    AUTOSTART,
    BOOT_ORDER,
    CD,
    DEFINITION,
    DESCRIPTION,
    GROW_DISK,
    MEMORY,
    NETWORK,
    VCPUS,
)
from manager.core.actions.moves import (
    CANCEL,
    LIVE_MIGRATE,
    MOVE_STORAGE,
    MOVES,
    QUICK_MIGRATE,
    MigrateParameters,
    StorageParameters,
)
from manager.core.actions.power import (
    CTRL_ALT_DEL,
    POWER,
    SHUT_DOWN,
    TURN_OFF,
    ShutDownHow,
    ShutDownParameters,
)
from manager.core.actions.settings import PRIORITY, SETTINGS, TAGS, PriorityParameters, TagsParameters
from manager.core.actions.snapshots import SNAPSHOT_ACTIONS
from manager.core.actions.spec import (
    ACTIONS,
    ActionSpec,
    Allowed,
    Denied,
    Group,
    NoParameters,
    Plan,
    PlanStep,
    Skipped,
)

ACTIONS.update({spec.id: spec for spec in (*POWER, *MOVES, *SETTINGS, *DEFINITION, *SNAPSHOT_ACTIONS)})

__all__ = [
    "ACTIONS",
    "ADD_DISK",
    "AUTOSTART",
    "BOOT_ORDER",
    "CANCEL",
    "CD",
    "CTRL_ALT_DEL",
    "DEFINITION",
    "DESCRIPTION",
    "GROW_DISK",
    "LIVE_MIGRATE",
    "MEMORY",
    "MOVE_STORAGE",
    "NETWORK",
    "PRIORITY",
    "QUICK_MIGRATE",
    "SHUT_DOWN",
    "TAGS",
    "TURN_OFF",
    "VCPUS",
    "ActionSpec",
    "Allowed",
    "Denied",
    "Group",
    "MigrateParameters",
    "NoParameters",
    "Plan",
    "PlanStep",
    "PriorityParameters",
    "ShutDownHow",
    "ShutDownParameters",
    "Skipped",
    "StorageParameters",
    "TagsParameters",
]

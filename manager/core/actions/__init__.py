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
from manager.core.actions.nodes import (
    NODE_ACTIONS,
    PAUSE_NODE,
    RESUME_NODE,
    Failback,
    PauseParameters,
    ResumeParameters,
)
from manager.core.actions.power import (
    CTRL_ALT_DEL,
    POWER,
    SHUT_DOWN,
    TURN_OFF,
    ShutDownHow,
    ShutDownParameters,
)
from manager.core.actions.settings import (
    OWNERS,
    PRIORITY,
    RULES,
    SETTINGS,
    TAGS,
    OwnersParameters,
    PriorityParameters,
    RulesParameters,
    TagsParameters,
)
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

VM_ACTIONS = (*POWER, *MOVES, *SETTINGS, *DEFINITION, *SNAPSHOT_ACTIONS)
"""Those on VMs, in the order of menus."""

ACTIONS.update({spec.id: spec for spec in (*VM_ACTIONS, *NODE_ACTIONS)})

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
    "NODE_ACTIONS",
    "OWNERS",
    "PAUSE_NODE",
    "PRIORITY",
    "QUICK_MIGRATE",
    "RESUME_NODE",
    "RULES",
    "SHUT_DOWN",
    "TAGS",
    "TURN_OFF",
    "VCPUS",
    "VM_ACTIONS",
    "ActionSpec",
    "Allowed",
    "Denied",
    "Failback",
    "Group",
    "MigrateParameters",
    "NoParameters",
    "OwnersParameters",
    "PauseParameters",
    "Plan",
    "PlanStep",
    "PriorityParameters",
    "ResumeParameters",
    "RulesParameters",
    "ShutDownHow",
    "ShutDownParameters",
    "Skipped",
    "StorageParameters",
    "TagsParameters",
]

"""Diagrams drawn from transition tables: ``python -m tests.architecture.states`` writes them."""

from __future__ import annotations

from pathlib import Path

from manager.core.maintenance import STAGES
from manager.core.operations import TRANSITIONS, OperationState


def operation_states() -> str:
    """The page about an operation's states."""
    lines = [
        "# The states of an operation",
        "",
        "Drawn from `TRANSITIONS` in `manager/core/operations.py`; a test compares.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> Waiting",
    ]
    for state in OperationState:
        lines += [f"    {state} --> {after}" for after in OperationState if after in TRANSITIONS[state]]
        if state.is_over:
            lines.append(f"    {state} --> [*]")
    return "\n".join([*lines, "```", ""])


def maintenance_stages() -> str:
    """The page about the stages of a pause, drain or resume of a node."""
    begins = [stage for stage in STAGES if not any(stage in after for after in STAGES.values())]
    lines = [
        "# The stages of a pause, drain or resume of a node",
        "",
        "Drawn from `STAGES` in `manager/core/maintenance.py`; a test compares.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        *(f"    [*] --> {stage.name.title()}" for stage in begins),
    ]
    for stage, after in STAGES.items():
        lines += [f"    {stage.name.title()} --> {each.name.title()}" for each in STAGES if each in after]
        lines.append(f"    {stage.name.title()}: {stage.value}")
    return "\n".join([*lines, "    Over --> [*]", "```", ""])


DIAGRAMS = {"operation.md": operation_states, "maintenance.md": maintenance_stages}

if __name__ == "__main__":
    for name, made in DIAGRAMS.items():
        (Path(__file__).parents[2] / "docs" / "states" / name).write_text(made())

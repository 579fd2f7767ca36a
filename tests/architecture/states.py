"""Diagrams drawn from transition tables: ``python -m tests.architecture.states`` writes them."""

from __future__ import annotations

from pathlib import Path

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


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "states" / "operation.md"
    page.write_text(operation_states())

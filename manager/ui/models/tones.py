"""How cells look beyond their text: the token of their colour, a state's shape, a bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manager.core.chronicle import ClusterEvent, Level
from manager.core.ids import Kind
from manager.core.migration.progress import MovePhase
from manager.core.migration.summary import OTHERS
from manager.core.model import Node, NodeStatus, Priority, Problem, StatusCause, Vm, VmStatus
from manager.core.operations import Operation, OperationState
from manager.core.reasons import TROUBLES, Reason, ReasonCode
from manager.core.resource_facts import (
    FULL_PERCENT,
    NEARLY_FULL_PERCENT,
    Network,
    NetworkStatus,
    Pool,
    PoolStatus,
)
from manager.ui.icons import NODE_TOKENS, VM_TOKENS

Shape = tuple[str, str]
"""A shape's name and its colour's token."""

BARS = frozenset({(Kind.OPERATION, "percent"), (Kind.NODE, "cpu"), (Kind.POOL, "used")})
"""Cells that are drawn as a bar with its number."""

MARKS = {(Kind.POOL, "used"): (NEARLY_FULL_PERCENT / 100, FULL_PERCENT / 100)}
"""Where a bar has marks, as shares of its length."""

_POOL_SHAPES = {
    PoolStatus.ONLINE: ("running", "running"),
    PoolStatus.PARTLY: ("alarm", "paused"),
    PoolStatus.OFFLINE: ("off", "crashed"),
    PoolStatus.UNKNOWN: ("unknown", "unknown"),
}
_NETWORK_SHAPES = {
    NetworkStatus.UP: ("running", "running"),
    NetworkStatus.PARTLY: ("alarm", "paused"),
    NetworkStatus.DOWN: ("off", "crashed"),
    NetworkStatus.UNKNOWN: ("unknown", "unknown"),
}

WORDS = frozenset({(Kind.OPERATION, "priority"), *BARS})
"""Numbers that are shown as words or bars: not right-aligned."""

TROUBLE_CAUSES = frozenset(
    {
        StatusCause.IO_ERROR,
        StatusCause.WATCHDOG,
        StatusCause.POSTCOPY_FAILED,
        StatusCause.PANICKED,
    }
)
"""Pauses that nobody asked for."""

_WARNINGS = frozenset(
    {
        ReasonCode.DEFINITION_TROUBLE,
        ReasonCode.AGENT_SILENT,
        ReasonCode.NO_NODE_FITS,
        ReasonCode.NO_NODE_MAY,
        ReasonCode.POOL_FILLS,
        ReasonCode.RESOURCE_MISSING,
        ReasonCode.RESOURCE_INACTIVE,
        ReasonCode.RESOURCE_DIFFERS,
        ReasonCode.RESOURCE_TROUBLE,
    }
)

_OPERATION_TOKENS = {
    OperationState.DONE: "running",
    OperationState.FAILED: "crashed",
    OperationState.CANCELLED: "off",
    OperationState.WAITING: "dim",
}
_OPERATION_SHAPES = {
    OperationState.DONE: ("done", "running"),
    OperationState.FAILED: ("crashed", "crashed"),
    OperationState.CANCELLED: ("off", "off"),
    OperationState.WAITING: ("paused", "off"),
}


_EVENT_SHAPES = {Level.ERROR: ("alarm", "crashed"), Level.WARNING: ("alarm", "paused")}


def reason_token(reason: Reason | None) -> str:
    """The colour of a reason's text: error, warning, or the quiet of mere information."""
    if reason is None:
        return "dim"
    if reason.code in TROUBLES:
        return "crashed"
    return "paused" if reason.code in _WARNINGS else "dim"


def vm_shape(vm: Vm) -> Shape:
    """The shape and colour of a VM's status."""
    if vm.alarm:
        return "alarm", "crashed"
    token = VM_TOKENS[vm.status]
    return token, token


def node_shape(node: Node) -> Shape:
    """The shape and colour of a node's status."""
    token = NODE_TOKENS[node.status]
    if node.is_up and node.holds:
        return "paused", "paused"
    if node.status is NodeStatus.CONNECTING:
        return "connecting", token
    return {"running": "running", "unknown": "unknown"}.get(token, "crashed"), token


def pool_shape(pool: Pool) -> Shape:
    """The shape and colour of a pool's status."""
    return _POOL_SHAPES[pool.status]


def network_shape(network: Network) -> Shape:
    """The shape and colour of a network's status."""
    return _NETWORK_SHAPES[network.status]


def fill_token(percent: float) -> str:
    """The colour of a bar that says how full something is."""
    if percent >= FULL_PERCENT:
        return "crashed"
    return "paused" if percent >= NEARLY_FULL_PERCENT else "accent"


def shape(kind: Kind, field: str, item: Any) -> Shape | None:
    """The shape before a cell's text, if it has one."""
    if field == "status":
        of = _SHAPES.get(kind)
        return of(item) if of is not None else None
    if kind is Kind.OPERATION and field == "state":
        assert isinstance(item, Operation)
        return _OPERATION_SHAPES.get(item.state, ("connecting", "accent"))
    if kind is Kind.EVENT and field == "level":
        return _EVENT_SHAPES.get(item.level)
    if kind is Kind.PROBLEM and field == "subject":
        assert isinstance(item, Problem)
        return "alarm", "crashed" if item.severity == "error" else "paused"
    return None


_SHAPES: dict[Kind, Callable[[Any], Shape]] = {
    Kind.VM: vm_shape,
    Kind.NODE: node_shape,
    Kind.POOL: pool_shape,
    Kind.NETWORK: network_shape,
}


def token(kind: Kind, field: str, item: Any, text: str) -> str:
    """The colour token of a cell's text; empty: the usual one."""
    if kind is Kind.VM:
        return _vm_token(field, item)
    if kind is Kind.NODE:
        if field == "information":
            return reason_token(item.information)
        return "" if item.status is NodeStatus.UP or field in ("name", "status") else "dim"
    if kind in (Kind.POOL, Kind.NETWORK):
        return reason_token(item.information) if field == "information" else ""
    if kind is Kind.OPERATION:
        if item.action == OTHERS:
            return "faint" if field == "place" else "dim"
        if field == "reason":
            return reason_token(item.reason)
        if field == "phase" and text == MovePhase.NOT_CONVERGING.value:
            return "paused"
        if field == "place":
            return "dim"
        if field in ("phase", "state"):
            return _OPERATION_TOKENS.get(item.state, "")
        return ""
    if kind is Kind.EVENT:
        return _event_token(field, item)
    known = kind is Kind.PROBLEM and item.life is not None and item.life.acknowledged_by
    return "dim" if field in ("remedy", "note") or known else ""


def _event_token(field: str, event: ClusterEvent) -> str:
    if field in ("level", "text") and event.level is not Level.INFORMATION:
        return _EVENT_SHAPES[event.level][1]
    return "" if field in ("subject", "text") else "dim"


def _vm_token(field: str, vm: Vm) -> str:
    if field == "information":
        if vm.status is VmStatus.PAUSED and vm.cause in TROUBLE_CAUSES:
            return "paused"
        return "crashed" if vm.alarm else reason_token(vm.information)
    if vm.status is VmStatus.UNKNOWN and field not in ("name", "status"):
        return "dim"
    if field == "priority":
        medium = vm.config is None or vm.config.settings.priority is Priority.MEDIUM
        return "dim" if medium else ""
    return "dim" if field in ("activity", "tags", "type", "uuid", "other_nodes") else ""


def bar_token(kind: Kind, item: Any, phase: str) -> str:
    """The colour token of a cell's bar."""
    if kind is Kind.OPERATION:
        if item.state in (OperationState.FAILED, OperationState.CANCELLED):
            return "off"
        if item.state is OperationState.DONE:
            return "running"
        return "paused" if phase == MovePhase.NOT_CONVERGING.value else "accent"
    return fill_token(item.used_percent or 0) if kind is Kind.POOL else "accent"

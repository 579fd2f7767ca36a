"""Pausing, draining and resuming the nodes that are selected: menus, the question, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QWidget

from manager.core import units
from manager.core.actions import (
    PAUSE_NODE,
    RESUME_NODE,
    ActionSpec,
    Allowed,
    Failback,
    PauseParameters,
    Plan,
    ResumeParameters,
)
from manager.core.errors import UserError
from manager.core.ids import OperationId
from manager.core.operations import Operation, OperationState
from manager.services.runtime import Runtime
from manager.services.tasks import Tasks
from manager.ui.dialogs.node_plan import NodePlanDialog, verb_of
from manager.ui.theme import Look
from manager.ui.views.parts import tip
from manager.ui.wording import sentence

Nodes = Sequence[tuple[Runtime, Sequence[str]]]
"""Nodes of one or more clusters, by their names."""

LINES: tuple[tuple[str, str, ActionSpec[Any], Any], ...] = (
    ("Pause", "Drain roles…", PAUSE_NODE, PauseParameters(drain=True)),
    ("Pause", "Do not drain roles…", PAUSE_NODE, PauseParameters()),
    ("Resume", "Fail roles back…", RESUME_NODE, ResumeParameters(failback=Failback.IMMEDIATE)),
    ("Resume", "Do not fail roles back…", RESUME_NODE, ResumeParameters()),
)
"""Submenu, title, action, parameters; in the order and the words of the original."""

NOTHING = "Select nodes on the page Nodes"


class NodeActions:
    """Nothing is done before the plan was seen, and seen again if the cluster changed meanwhile."""

    def __init__(
        self,
        parent: QWidget,
        look: Look,
        tasks: Tasks,
        note: Callable[..., object],
        show_operation: Callable[[Runtime, OperationId], object],
    ) -> None:
        self._parent, self._look, self._tasks = parent, look, tasks
        self._note, self._show_operation = note, show_operation

    def fill(self, menu: QMenu, nodes: Nodes) -> None:
        """Put the lines for these nodes in a menu; grey, with the reason, where they apply to none."""
        menu.setToolTipsVisible(True)
        if not any(names for _, names in nodes):
            menu.addAction(NOTHING).setEnabled(False)
            return
        submenus: dict[str, QMenu] = {}
        for title, line, spec, parameters in LINES:
            if title not in submenus:
                submenus[title] = menu.addMenu(title)
                submenus[title].setToolTipsVisible(True)
            self._add(submenus[title], line, spec, parameters, nodes)

    def _add(self, menu: QMenu, line: str, spec: ActionSpec[Any], parameters: Any, nodes: Nodes) -> QAction:
        verdicts = [spec.verdict(rt.view, name, parameters) for rt, names in nodes for name in names]
        reasons = {v.reason.text: None for v in verdicts if not isinstance(v, Allowed)}
        action = menu.addAction(line)
        action.setEnabled(any(isinstance(verdict, Allowed) for verdict in verdicts))
        action.setToolTip(tip("\n".join([spec.doc, *(f"Not: {text}" for text in reasons)])))
        action.triggered.connect(lambda *_: self.start(nodes, spec, parameters))
        return action

    def start(self, nodes: Nodes, spec: ActionSpec[Any], parameters: Any) -> None:
        """Ask, then do it; one cluster after the other."""
        self._tasks.spawn(self._run(nodes, spec, parameters), f"{spec.id} of the window")

    async def _run(self, nodes: Nodes, spec: ActionSpec[Any], parameters: Any) -> None:
        for runtime, names in nodes:
            plan = await self._ask(runtime, spec, tuple(names), parameters)
            if plan is None:
                return
            if plan.steps:
                self._request(runtime, plan)

    async def _ask(
        self, runtime: Runtime, spec: ActionSpec[Any], names: tuple[str, ...], parameters: Any
    ) -> Plan[Any] | None:
        """The plan as it was confirmed; None: it was given up."""
        changed = ""
        plan = spec.plan(runtime.view, names, parameters)
        while plan.steps:
            dialog = NodePlanDialog(self._parent, self._look, runtime.view.config, plan, changed)
            if not await dialog.answer():
                return None
            fresh = spec.plan(runtime.view, names, dialog.parameters)
            if _essence(fresh) == _essence(plan):
                return fresh
            plan, changed = fresh, "The cluster changed since this was shown: look again."
        why = " ".join(sentence(f"{s.name}: {s.reason.text}") for s in plan.skipped[:3])
        self._note(f"{spec.verb}: nothing to do. {why}".rstrip(), (), "warning" if changed else "")
        return plan

    def _request(self, runtime: Runtime, plan: Plan[Any]) -> None:
        try:
            asked = runtime.request(plan)
        except (OSError, UserError) as error:
            self._note(f"{plan.spec.verb}: {error}", (), "error")
            return
        self._tasks.spawn(self._watch(runtime, plan, asked), f"end of {plan.action}")

    async def _watch(self, runtime: Runtime, plan: Plan[Any], asked: tuple[OperationId, ...]) -> None:
        """Tell what did not come to its end; what did stands in the list of nodes."""
        ended = await runtime.ended(asked)
        failed = [o for o in ended if o.state is OperationState.FAILED]
        if failed:
            told = "; ".join(_told(operation) for operation in failed[:3])
            more = f"; and {units.count_text(len(failed) - 3, 'more node')}" if len(failed) > 3 else ""
            show = ("Show", lambda: self._show_operation(runtime, failed[0].id))
            self._note(f"{verb_of(plan)}: {told}{more}.", (show,), "error")


def _told(operation: Operation) -> str:
    why = operation.reason.text if operation.reason else operation.state.value.lower()
    return f"{operation.source} {why}"


def _essence(plan: Plan[Any]) -> tuple[Any, ...]:
    """What must be as it was shown."""
    steps = tuple((step.key, step.node, step.target) for step in plan.steps)
    return steps, tuple((skipped.key, skipped.reason) for skipped in plan.skipped)

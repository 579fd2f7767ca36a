"""From a chosen action to its results: plan, question, request, and what is said when it is over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PySide6.QtWidgets import QWidget

from manager.core import units
from manager.core.actions import (
    ACTIONS,
    CANCEL,
    LIVE_MIGRATE,
    MOVE_STORAGE,
    SHUT_DOWN,
    TAGS,
    TURN_OFF,
    ActionSpec,
    Allowed,
    MigrateParameters,
    Plan,
    ShutDownHow,
    ShutDownParameters,
    StorageParameters,
    TagsParameters,
)
from manager.core.actions.snapshots import SNAPSHOT_CREATE
from manager.core.errors import OperationError, UserError
from manager.core.ids import ClusterId, OperationId, VmId
from manager.core.model import MoveType, PeerRoute, SnapshotParameters
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.placement import planner
from manager.core.reasons import ReasonCode
from manager.services.runtime import Runtime
from manager.services.tasks import Tasks
from manager.ui.actions import SETTINGS, UNNAMED, Entry
from manager.ui.dialogs.base import Asking
from manager.ui.dialogs.confirm import ConfirmDialog
from manager.ui.dialogs.migrate import MigrateDialog
from manager.ui.dialogs.settings import SettingsDialog
from manager.ui.dialogs.small import PeerLoginDialog
from manager.ui.dialogs.snapshot import ChooseSnapshotDialog, TakeSnapshotDialog
from manager.ui.dialogs.storage import StorageDialog
from manager.ui.dialogs.tags import TagsDialog
from manager.ui.theme import Look
from manager.ui.wording import result_text, sentence, skipped_text, why_text

SNAPSHOTS_READ = 20
"""Of so many of the selected VMs the snapshots are read, to choose from."""

Buttons = Sequence[tuple[str, Callable[[], object]]]
Note = Callable[[str, Buttons, str], object]
"""(text, buttons, severity) -> a line above the list."""


Part = tuple[Runtime, Sequence[VmId]]
"""The VMs of one cluster that an action is about."""

Planned = tuple[Runtime, Plan[Any]]


@dataclass(frozen=True, slots=True)
class Hidden:
    """What is selected too and not shown: an action leaves it alone, says so, and offers to take it along."""

    parts: tuple[Part, ...]
    text: str  # how many, and why they are not shown

    @property
    def told(self) -> str:
        """As a sentence."""
        return f"Selected too, and left alone: {self.text}."


class _Rest:
    """Tells of what is hidden once for each action: in its question, or after what asks nothing."""

    def __init__(
        self, hidden: Hidden | None, parts: Sequence[Part], run: Callable[[Sequence[Part], Any], None]
    ) -> None:
        self._hidden, self._parts, self._run = hidden, parts, run
        self._is_told = False

    def offer(self, dialog: Asking, parameters: Callable[[], Any]) -> None:
        """The second button of a question: the same is asked about all, with what was entered so far."""
        if self._hidden is not None:
            self._is_told = True
            every = _joined((*self._parts, *self._hidden.parts))
            dialog.offer(
                self._hidden.told, f"Act on all {_number(every):,}…", lambda: self._run(every, parameters())
            )

    def say(self, note: Note, text: str, parameters: Any) -> None:
        """After an action that asked nothing: the same for what is hidden, if one wants."""
        if self._hidden is not None and not self._is_told:
            others = self._hidden.parts
            button = (f"Act on the {_number(others):,} too", lambda: self._run(others, parameters))
            note(f"{text} {self._hidden.told}", (button,), "")


class Runner:
    """Carries out what the user chose. Nothing is done before the plan was seen where it asks."""

    def __init__(
        self,
        parent: QWidget,
        look: Look,
        tasks: Tasks,
        note: Note,
        show_operation: Callable[[Runtime, OperationId], object],
        cluster_option: Callable[[Runtime], str],
    ) -> None:
        self._parent = parent
        self._look = look
        self._tasks = tasks
        self._note = note
        self._show_operation = show_operation
        self._cluster_option = cluster_option

    def start(self, parts: Sequence[Part], entry: Entry, hidden: Hidden | None = None) -> None:
        """Begin an action on VMs of one or more clusters. `hidden`: others, selected but not shown."""
        if entry.id == SETTINGS:
            self._tasks.spawn(self._ask_settings(parts), "settings")
            return
        self._begin(parts, entry.spec, entry.parameters, entry.asks_target, hidden=hidden)

    def run(
        self,
        runtime: Runtime,
        spec: ActionSpec[Any],
        ids: Sequence[VmId],
        parameters: Any = None,
        *,
        asks_target: bool = False,
        unasked: bool = False,
    ) -> None:
        """Begin an action with its parameters. `unasked`: the question was asked already."""
        given = spec.default if parameters is None else parameters
        self._begin(((runtime, tuple(ids)),), spec, given, asks_target, unasked=unasked)

    def _begin(
        self,
        parts: Sequence[Part],
        spec: ActionSpec[Any],
        parameters: Any,
        asks_target: bool,
        *,
        unasked: bool = False,
        hidden: Hidden | None = None,
    ) -> None:
        self._tasks.spawn(
            self._run(parts, spec, parameters, asks_target, unasked, hidden), f"{spec.id} of the window"
        )

    def cancel(self, runtime: Runtime, ids: tuple[OperationId, ...]) -> bool:
        """Cancel operations; False if that could not be asked for, and it is said why."""
        try:
            runtime.cancel(ids)
        except (OSError, UserError) as error:
            self._note(sentence(str(error)), (), "error")
            return False
        return True

    def undo(self, runtime: Runtime, operations: Sequence[Operation]) -> None:
        """Take ended operations back, as far as each can be."""
        plans: dict[tuple[str, Any], list[VmId]] = {}
        for operation in operations:
            spec = ACTIONS.get(operation.action)
            plan = spec.undo(operation, runtime.view) if spec is not None else None
            if isinstance(plan, Plan):
                plans.setdefault((plan.action, plan.parameters), []).extend(s.vm for s in plan.steps)
        if not any(plans.values()):
            self._note("Nothing here can be taken back.", (), "")
        self._tasks.spawn(self._run_each(runtime, plans), "way back")

    def retry_elsewhere(self, runtime: Runtime, operations: Sequence[Operation]) -> None:
        """Ask anew for failed moves, with another node proposed than the one where each failed."""
        asked: dict[tuple[str, Any], list[VmId]] = {}
        for operation in operations:
            vm = runtime.view.vms.get(operation.vm) if operation.vm is not None else None
            if vm is None or operation.action not in ACTIONS:
                self._note(f"{operation.vm_name}: no node has it any more.", (), "warning")
                continue
            parameters: Any = StorageParameters(pool=operation.pool)
            if operation.move is not MoveType.STORAGE:
                others = [v for v in planner.rank(runtime.view, vm) if v.fits and v.node != operation.target]
                parameters = MigrateParameters(
                    target=others[0].node if others else None,
                    route=operation.route,
                    pool=operation.pool,
                    policy=operation.policy,
                )
            asked.setdefault((operation.action, parameters), []).append(vm.id)
        self._tasks.spawn(self._run_each(runtime, asked, asks_target=True), "retry elsewhere")

    async def _run_each(
        self, runtime: Runtime, plans: Mapping[tuple[str, Any], Sequence[VmId]], *, asks_target: bool = False
    ) -> None:
        """Begin each in turn, so that never two of them ask at once."""
        for (action, parameters), ids in plans.items():
            spec = ACTIONS[action]
            if ids:
                unasked = not (asks_target or spec.destructive)
                await self._run(((runtime, tuple(ids)),), spec, parameters, asks_target, unasked)

    # --- one action --------------------------------------------------------------------------------

    async def _run(
        self,
        parts: Sequence[Part],
        spec: ActionSpec[Any],
        parameters: Any,
        asks_target: bool,
        unasked: bool,
        hidden: Hidden | None = None,
    ) -> None:
        """One plan for each cluster. All is asked before anything is done; who gives up one, gives up all."""
        rest = _Rest(hidden, parts, lambda others, given: self._begin(others, spec, given, asks_target))
        if len(parts) > 1:  # where it applies to none there is nothing to ask
            parts = [part for part in parts if _applies(spec, *part, parameters)] or parts
        found: list[Planned] = []
        many = _number(parts) > 1
        moves = spec.kind is OperationKind.MIGRATE
        asks_move = moves and not unasked and (asks_target or many or spec is not LIVE_MIGRATE)
        for runtime, ids in parts:
            plan = await self._plan(runtime, spec, tuple(ids), parameters, asks_move, unasked, rest)
            if plan is None:
                return
            found.append((runtime, plan))
        plans = [(runtime, plan) for runtime, plan in found if plan.steps]
        if not plans:
            texts = [sentence(skipped_text(plan)) for _, plan in found if plan.skipped]
            self._note(f"{spec.verb}: nothing to do. {' '.join(texts)}".rstrip(), (), "")
            return
        if spec.destructive and not unasked and not asks_move:
            plans = await self._confirm(plans, rest)
        elif len(plans) > 1 and (changed := _differences(plans)):
            self._note(f"{spec.verb}: nothing was done. {changed}", (), "warning")
            return
        for runtime, plan in plans:
            where = f" in {runtime.id}" if len(plans) > 1 else ""
            self._request(runtime, plan, where, tell=not asks_target)
        if plans:
            number = units.count_text(sum(len(plan.steps) for _, plan in plans), "VM")
            rest.say(self._note, f"{spec.verb} {number}: asked for.", parameters)

    async def _plan(
        self,
        runtime: Runtime,
        spec: ActionSpec[Any],
        ids: tuple[VmId, ...],
        parameters: Any,
        asks_move: bool,
        unasked: bool,
        rest: _Rest,
    ) -> Plan[Any] | None:
        """What would be done in one cluster, with what must be asked for it; None: it was given up."""
        if spec is TAGS and not unasked:
            parameters = await self._ask_tags(runtime, ids, parameters, rest)
            if parameters is None:
                return None
        if isinstance(parameters, SnapshotParameters) and parameters.name in ("", UNNAMED):
            parameters = await self._ask_snapshot(runtime, spec, ids, parameters, rest)
            if parameters is None:
                return None
        if asks_move:
            plan = await self._ask_move(runtime, spec, ids, parameters, rest)
            return plan if plan is not None and plan.steps else None
        return spec.plan(runtime.view, ids, parameters)

    def _request(self, runtime: Runtime, plan: Plan[Any], where: str, *, tell: bool) -> None:
        """Ask one cluster for it; trouble there is said, and is no other one's."""
        spec = plan.spec
        try:
            asked = runtime.request(plan)
        except (OSError, UserError) as error:
            self._note(f"{spec.verb}{where}: {error}", (), "error")
            return
        if not asked:
            return
        if spec is LIVE_MIGRATE and len(plan.steps) == 1 and tell:
            self._tell_target(runtime, plan, asked)
        if spec is not CANCEL:
            self._tasks.spawn(self._watch(runtime, plan, asked), f"end of {spec.id}")

    async def _confirm(self, plans: list[Planned], rest: _Rest) -> list[Planned]:
        """Ask once for all; and ask again with what changed, if the world moved on in between."""
        changed, given = "", plans[0][1].parameters
        while True:
            shown = [(runtime.view.config, plan) for runtime, plan in plans]
            dialog = ConfirmDialog(self._parent, self._look, shown, changed)
            rest.offer(dialog, lambda: given)
            if not await dialog.answer():
                return []
            changed = _differences(plans)
            if not changed:
                return plans
            verb = plans[0][1].spec.verb
            plans = [(runtime, plan) for runtime, old in plans if (plan := _anew(runtime, old)).steps]
            if not plans:
                self._note(f"{verb}: nothing was done. {changed}", (), "warning")
                return []

    async def _ask_move(
        self,
        runtime: Runtime,
        spec: ActionSpec[Any],
        ids: tuple[VmId, ...],
        parameters: Any,
        rest: _Rest,
    ) -> Plan[Any] | None:
        """Ask where to; and ask again with what changed, if the world moved on in between."""
        changed = ""
        option = self._cluster_option(runtime)
        dialog: MigrateDialog | StorageDialog
        while True:
            if spec is MOVE_STORAGE:
                named = parameters if parameters.pool != UNNAMED else StorageParameters()
                dialog = StorageDialog(
                    self._parent, self._look, runtime.view, ids, named, changed, cluster_option=option
                )
            else:
                dialog = MigrateDialog(
                    self._parent,
                    self._look,
                    runtime.view,
                    ids,
                    parameters,
                    changed,
                    cluster_option=option,
                    spec=spec,
                )
            rest.offer(dialog, partial(_entered, dialog))
            answered = await dialog.answer()
            plan = dialog.plan
            if not answered:
                return None
            fresh = plan.spec.plan(runtime.view, [s.vm for s in plan.steps], plan.parameters)
            changed = difference(plan, fresh)
            if not changed:
                return plan  # the targets that were shown are kept
            parameters = plan.parameters

    async def _ask_tags(
        self, runtime: Runtime, ids: tuple[VmId, ...], given: TagsParameters, rest: _Rest
    ) -> TagsParameters | None:
        option = self._cluster_option(runtime)
        dialog = TagsDialog(self._parent, self._look, runtime.view, ids, given, cluster_option=option)
        rest.offer(dialog, lambda: dialog.parameters)
        return dialog.parameters if await dialog.answer() else None

    async def _ask_settings(self, parts: Sequence[Part]) -> None:
        runtime, ids = parts[0]
        if len(parts) > 1 or len(ids) != 1 or ids[0] not in runtime.view.vms:
            self._note("Settings are those of one VM: select one.", (), "")
            return
        option = self._cluster_option(runtime)
        dialog = SettingsDialog(self._parent, self._look, runtime.view, ids[0], cluster_option=option)
        if await dialog.answer():
            for plan in dialog.plans:
                self.run(runtime, plan.spec, ids, plan.parameters, unasked=True)

    async def _ask_snapshot(
        self,
        runtime: Runtime,
        spec: ActionSpec[Any],
        ids: tuple[VmId, ...],
        given: SnapshotParameters,
        rest: _Rest,
    ) -> SnapshotParameters | None:
        dialog: TakeSnapshotDialog | ChooseSnapshotDialog
        if spec is SNAPSHOT_CREATE:
            dialog = TakeSnapshotDialog(self._parent, runtime.view, ids)
        else:
            names: dict[str, None] = {}
            for vm in ids[:SNAPSHOTS_READ]:
                with contextlib.suppress(OperationError):  # what it cannot be asked for is said by the plan
                    names |= dict.fromkeys(s.name for s in await runtime.closeup.snapshots(vm))
            dialog = ChooseSnapshotDialog(self._parent, runtime.view, spec, ids, list(names))
        rest.offer(dialog, lambda: given)  # asked anew: others may have other snapshots
        return dialog.wish if await dialog.answer() else None

    def _tell_target(self, runtime: Runtime, plan: Plan[Any], asked: tuple[OperationId, ...]) -> None:
        step = plan.steps[0]
        why = f": {step.note.text}" if step.note else ""

        def change() -> None:
            if self.cancel(runtime, asked):
                self.run(runtime, LIVE_MIGRATE, [step.vm], plan.parameters, asks_target=True)

        self._note(
            f"{step.name} moves to {step.target}{why}",
            (("Change…", change), ("Cancel", lambda: self.cancel(runtime, asked))),
            "",
        )

    # --- when it is over -----------------------------------------------------------------------------

    async def _watch(self, runtime: Runtime, plan: Plan[Any], asked: tuple[OperationId, ...]) -> None:
        await runtime.ended(asked)
        children = [o for o in runtime.view.operations.values() if o.parent in asked]
        failed = [o for o in children if o.state is OperationState.FAILED]
        if not failed:
            return
        ignored = [o for o in failed if o.reason and o.reason.code is ReasonCode.SHUTDOWN_IGNORED]
        refused = [o for o in failed if o.reason and o.reason.code is ReasonCode.PEER_LOGIN_REFUSED]
        others = [o for o in failed if o not in ignored and o not in refused]
        if ignored:
            self._shut_down_ignored(runtime, plan, children, ignored)
        if refused:
            self._login_refused(runtime, plan, refused)
        if others:
            first = others[0]
            why = sentence(why_text(first.reason)) if first.reason else ""
            what = f"{plan.spec.verb} {units.count_text(len(children), 'VM')}: {result_text(children)}."
            if len(children) == 1:
                what = f"{plan.spec.verb} {first.vm_name}: failed."
            self._note(
                f"{what} {first.vm_name}: {why}" if len(children) > 1 else f"{what} {why}",
                (("Show", lambda: self._show_operation(runtime, asked[0])),),
                "error",
            )

    def _shut_down_ignored(
        self,
        runtime: Runtime,
        plan: Plan[Any],
        children: Sequence[Operation],
        ignored: Sequence[Operation],
    ) -> None:
        ids = [o.vm for o in ignored if o.vm is not None]
        done = sum(1 for o in children if o.state is OperationState.DONE)
        names = ids and runtime.view.vms.get(ids[0])
        who = names.name if len(ids) == 1 and names else f"{len(ids)}"
        span_s = max(float(o.reason.field("span") or 0.0) for o in ignored if o.reason)
        within = f"the guest did not answer within {units.duration_text(span_s)}."
        if plan.spec is SHUT_DOWN:
            text = f"{done} off, {who} still running: {within}"
        else:
            text = f"{done} restarted, {who} still running as before: {within}"

        def again(parameters: Any) -> Callable[[], None]:
            return lambda: self.run(runtime, plan.spec, ids, parameters, unasked=True)

        buttons: list[tuple[str, Callable[[], object]]] = [("Wait on", again(plan.parameters))]
        if plan.spec is SHUT_DOWN:
            buttons.append(("Ask the agent", again(ShutDownParameters(how=ShutDownHow.AGENT))))
        buttons.append((f"Turn off {len(ids)}…", lambda: self.run(runtime, TURN_OFF, ids)))
        self._note(text, buttons, "warning")

    def _login_refused(self, runtime: Runtime, plan: Plan[Any], refused: Sequence[Operation]) -> None:
        reasons = [o.reason for o in refused if o.reason is not None]
        ids = [o.vm for o in refused if o.vm is not None]
        target = plan.parameters.target if isinstance(plan.parameters, MigrateParameters) else None
        first = reasons[0]

        def through() -> None:
            route = PeerRoute.THROUGH_THIS_COMPUTER
            self.run(
                runtime,
                LIVE_MIGRATE,
                ids,
                MigrateParameters(target=target, route=route),
                unasked=True,
            )

        async def repair() -> None:
            dialog = PeerLoginDialog(self._parent, runtime.view.config, reasons, len(ids))
            if await dialog.answer():
                through()

        self._note(
            f"{units.count_text(len(ids), 'VM')} not moved: "
            f"{first.field('source')} cannot log in to {first.field('target')}.",
            (
                ("How to repair it…", lambda: self._tasks.spawn(repair(), "login help")),
                ("Move through this computer", through),
            ),
            "error",
        )


def _entered(dialog: MigrateDialog | StorageDialog) -> Any:
    return dialog.plan.parameters


def _number(parts: Iterable[Part]) -> int:
    return sum(len(ids) for _, ids in parts)


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Each cluster once, with all that is asked of it."""
    found: dict[ClusterId, tuple[Runtime, list[VmId]]] = {}
    for runtime, ids in parts:
        found.setdefault(runtime.id, (runtime, []))[1].extend(ids)
    return list(found.values())


def _applies(spec: ActionSpec[Any], runtime: Runtime, ids: Sequence[VmId], parameters: Any) -> bool:
    return any(isinstance(spec.verdict(runtime.view, vm, parameters), Allowed) for vm in ids)


def _anew(runtime: Runtime, plan: Plan[Any]) -> Plan[Any]:
    return plan.spec.plan(runtime.view, [step.vm for step in plan.steps], plan.parameters)


def _differences(plans: Sequence[Planned]) -> str:
    """What changed in any of the clusters since their plans were made."""
    found = [(plan.cluster, difference(plan, _anew(runtime, plan))) for runtime, plan in plans]
    several = len(plans) > 1
    return " ".join(f"{cluster}: {text}" if several else text for cluster, text in found if text)


def difference(shown: Plan[Any], fresh: Plan[Any]) -> str:
    """What changed between the plan that was shown and the one made now; empty if nothing that matters."""
    now = {step.vm: step for step in fresh.steps}
    gone = [step.name for step in shown.steps if step.vm not in now]
    moved = [
        step.name
        for step in shown.steps
        if step.vm in now and (now[step.vm].node, now[step.vm].status) != (step.node, step.status)
    ]
    parts = []
    if gone:
        reasons = {s.vm: s.reason.text for s in fresh.skipped}
        why = next((reasons[s.vm] for s in shown.steps if s.vm not in now and s.vm in reasons), "")
        parts.append(f"{_names(gone)} no longer: {why}" if why else f"{_names(gone)} no longer")
    if moved:
        parts.append(f"{_names(moved)} changed")
    return f"The cluster changed since this was shown: {'; '.join(parts)}." if parts else ""


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def asks_back(operations: Iterable[Operation]) -> bool:
    """Whether the way back of some of these is asked about first."""
    return any(ACTIONS[o.action].destructive for o in operations if o.action in ACTIONS)


def undoable(runtime: Runtime, operations: Sequence[Operation]) -> list[Operation]:
    """Those of the operations for which there is a way back that has something to do."""
    found = []
    for operation in operations:
        spec = ACTIONS.get(operation.action)
        if spec is None or operation.is_parent:
            continue
        plan = spec.undo(operation, runtime.view)
        if isinstance(plan, Plan) and plan.steps:
            found.append(operation)
    return found

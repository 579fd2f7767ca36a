"""Where to move VMs: every node with its verdict, the plan row by row, and what stays with the reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLineEdit, QSplitter, QWidget

from manager.core import units
from manager.core.actions import LIVE_MIGRATE, ActionSpec, MigrateParameters, Plan
from manager.core.cluster import ClusterView
from manager.core.ids import NodeId, VmId
from manager.core.migration.convergence import POLICIES, STANDARD
from manager.core.model import MoveType, PeerRoute
from manager.core.placement.planner import local_disks, node_takes_work, overhead_mib, unchecked_sharing
from manager.ui.dialogs.plan import PlanDialog
from manager.ui.theme import Look
from manager.ui.views.parts import ElidedLabel, PlainTable, name_for_ears, text_label
from manager.ui.wording import sentence

_TRIED = 100
"""Up to this many VMs each node's verdict is worked out in advance."""


class MigrateDialog(PlanDialog):
    """Choose a node, or the best one for each VM; the plan is shown before anything starts.

    For every way to move to another node. What stops the guest says so, and its button is no default.
    """

    def __init__(
        self,
        parent: QWidget | None,
        look: Look,
        view: ClusterView,
        ids: Sequence[VmId],
        parameters: MigrateParameters,
        changed: str = "",
        *,
        cluster_option: str,
        spec: ActionSpec[Any] = LIVE_MIGRATE,
    ) -> None:
        super().__init__(
            parent,
            look,
            view,
            ids,
            verb=spec.verb,
            consequence=sentence(spec.consequence),
            changed=changed,
            cluster_option=cluster_option,
            titles=("VM", "From → to", "Memory", "Why there"),
        )
        self.resize(900, 640)
        self._spec = spec
        self._plans: dict[NodeId | None, Plan[Any]] = {}
        self._targets: list[NodeId | None] = [None, *view.nodes]
        self.nodes = PlainTable(("To", "Takes", "Memory now → then", "CPU now", "Why"), look, name="Nodes")
        self.nodes.setSelectionMode(PlainTable.SelectionMode.SingleSelection)
        lists = QSplitter(Qt.Orientation.Vertical)
        lists.addWidget(self.steps)
        lists.addWidget(self.stays)
        lists.setChildrenCollapsible(False)
        both = QSplitter(Qt.Orientation.Vertical)
        both.setChildrenCollapsible(False)
        both.addWidget(self.nodes)
        both.addWidget(lists)
        both.setSizes([190, 340])
        self.body.addWidget(both, 1)
        self.unchecked = text_label(wrap=True)
        self.body.addWidget(self.unchecked)
        self.through = QCheckBox("Move through this computer (the nodes need no login at each other; slower)")
        self.through.setChecked(parameters.route is PeerRoute.THROUGH_THIS_COMPUTER)
        self.through.toggled.connect(lambda *_: self._replan())
        self.body.addWidget(self.through)
        self._build_live(parameters)
        self.add_command()
        self.add_buttons()
        asks = spec.destructive
        self.cancel = self.button("Cancel", self.reject, default=asks)
        self.go = self.button("Move", self.accept, style="danger" if asks else "primary", default=not asks)
        self.nodes.itemSelectionChanged.connect(self._show_plan)
        self._replan_soon = QTimer(self)
        self._replan_soon.setSingleShot(True)
        self._replan_soon.setInterval(250)
        self._replan_soon.timeout.connect(self._replan)
        self._trying = QTimer(self)
        self._trying.timeout.connect(self._try_next)
        self._show_nodes()
        start = self._targets.index(parameters.target) if parameters.target in self._targets else 0
        self.nodes.selectRow(start)
        if len(self._ids) <= _TRIED:
            self._trying.start(0)

    @property
    def target(self) -> NodeId | None:
        """The chosen node; None: the best for each VM."""
        row = self.nodes.currentRow()
        return self._targets[row] if 0 <= row < len(self._targets) else None

    @property
    def plan(self) -> Plan[Any]:
        """The plan that is shown."""
        return self._plan_for(self.target)

    def accept(self) -> None:
        """Not before the plan was shown for what was typed last."""
        if self._replan_soon.isActive():
            self._replan_soon.stop()
            self._replan()
        else:
            super().accept()

    def _plan_for(self, target: NodeId | None) -> Plan[Any]:
        found = self._plans.get(target)
        if found is None:
            route = PeerRoute.THROUGH_THIS_COMPUTER if self.through.isChecked() else PeerRoute.NODE_TO_NODE
            parameters = MigrateParameters(
                target=target,
                route=route,
                pool=self.pool.text().strip() if self.pool is not None else "",
                policy=str(self.policy.currentData() or "") if self.policy is not None else "",
            )
            found = self._plans[target] = self._spec.plan(self._view, self._ids, parameters)
        return found

    def _build_live(self, parameters: MigrateParameters) -> None:
        """What only a live move can be told: a policy, and where disks go that the nodes do not share."""
        self.policy: QComboBox | None = None
        self.pool: QLineEdit | None = None
        if self._spec.move is not MoveType.LIVE:
            return
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(text_label("If it does not converge", "dim"))
        self.policy = QComboBox()
        name_for_ears(self.policy, "Policy: what is done if it does not converge")
        for name in POLICIES:
            self.policy.addItem(name.capitalize(), "" if name == STANDARD else name)
        self.policy.setCurrentIndex(max(0, self.policy.findData(parameters.policy)))
        self.policy.currentIndexChanged.connect(lambda *_: self._replan())
        row.addWidget(self.policy)
        self._policy_doc = ElidedLabel(style="dim")
        row.addWidget(self._policy_doc, 1)
        self.body.addLayout(row)
        configs = (vm.config for key in self._ids if (vm := self._view.vms.get(key)))
        local = sum(1 for config in configs if config and local_disks(self._view.config, config))
        if not local or not self._view.config.shared_paths:
            return
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(text_label(f"Copy the local disks of {units.count_text(local, 'VM')} to pool", "dim"))
        self.pool = QLineEdit(parameters.pool)
        self.pool.setMaxLength(200)
        self.pool.setAccessibleName("Pool for local disks")
        self.pool.setPlaceholderText("a pool of the target; empty: they are not moved")
        self.pool.textChanged.connect(lambda *_: self._replan_soon.start())
        row.addWidget(self.pool, 1)
        self.body.addLayout(row)

    def _replan(self) -> None:
        self._plans.clear()
        self._show_plan()
        self._show_nodes()
        if len(self._ids) <= _TRIED:
            self._trying.start(0)

    def _try_next(self) -> None:
        for target in self._targets:
            if target not in self._plans:
                self._plan_for(target)
                self._show_nodes()
                return
        self._trying.stop()

    def _show_nodes(self) -> None:
        view = self._view
        rows: list[tuple[str, ...]] = []
        for target in self._targets:
            plan = self._plans.get(target)
            takes = f"{len(plan.steps)} of {len(self._ids)}" if plan is not None else "…"
            if target is None:
                spread = Counter(s.target for s in plan.steps) if plan is not None else Counter[Any]()
                why = ", ".join(f"{node} {n}" for node, n in spread.most_common(8))
                rows.append(("Best node for each", takes, "", "", why))
                continue
            node = view.nodes[target]
            trouble = node_takes_work(node)
            load = view.node_loads.get(target)
            cpu = f"{load.cpu_percent:.0f} %" if load and load.cpu_percent is not None else "–"
            memory = ""
            if node.facts is not None and node.is_up:
                now = view.committed_mib(target)
                then = now + _added_mib(view, plan)
                memory = f"{now / 1024:.0f} → {then / 1024:.0f} of {node.facts.memory_mib / 1024:.0f} GiB"
            why = trouble.text if trouble is not None else ""
            if not why and plan is not None and plan.skipped and len(plan.skipped) > len(plan.steps):
                why = plan.skipped[0].reason.text
            rows.append((target, takes, memory, cpu, why))
        self.nodes.show_rows(rows)

    def _show_plan(self) -> None:
        plan = self.plan
        view = self._view
        steps = (
            (
                s.name,
                f"{s.node} → {s.target}",
                units.mib_text(config.memory_mib) if (config := view.vms[s.vm].config) else "",
                s.note.text if s.note else "",
            )
            for s in plan.steps
            if s.vm in view.vms
        )
        self.show_rows(plan, steps)
        unchecked = unchecked_sharing(view.config, (view.vms[s.vm] for s in plan.steps if s.vm in view.vms))
        self.unchecked.setText(f"{sentence(unchecked.text)} {unchecked.remedy}" if unchecked else "")
        self.unchecked.setVisible(unchecked is not None)
        if self.policy is not None:
            name = str(self.policy.currentData() or STANDARD)
            self._policy_doc.set_text(POLICIES[name].doc)
        verb = "Move" if self._spec is LIVE_MIGRATE else self._spec.verb
        self.go.setText(f"{verb} {units.count_text(len(plan.steps), 'VM')}")
        self.go.setEnabled(bool(plan.steps))


def _added_mib(view: ClusterView, plan: Plan[Any] | None) -> int:
    if plan is None:
        return 0
    sizes = [c.memory_mib for s in plan.steps if s.vm in view.vms and (c := view.vms[s.vm].config)]
    return sum(size + overhead_mib(size) for size in sizes)

"""To which pool disks go: the plan row by row, before anything is copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QWidget

from manager.core import units
from manager.core.actions import MOVE_STORAGE, Plan, StorageParameters
from manager.core.cluster import ClusterView
from manager.core.ids import VmId
from manager.core.placement.planner import is_movable
from manager.ui.dialogs.plan import PlanDialog
from manager.ui.theme import Look
from manager.ui.views.parts import text_label


class StorageDialog(PlanDialog):
    """Asks for the name of a pool. What the pools of each node are is known to that node only."""

    def __init__(
        self,
        parent: QWidget | None,
        look: Look,
        view: ClusterView,
        ids: Sequence[VmId],
        parameters: StorageParameters,
        changed: str = "",
        *,
        cluster_option: str,
    ) -> None:
        super().__init__(
            parent,
            look,
            view,
            ids,
            verb="Move the storage of",
            consequence="The disks are copied to a pool of the node on which the VM runs, and used there from"
            " then on. The VM goes on running. The old images are kept.",
            changed=changed,
            cluster_option=cluster_option,
            titles=("VM", "Node", "Disks"),
        )
        self.resize(760, 440)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(text_label("To pool", "dim"))
        self.pool = QLineEdit(parameters.pool)
        self.pool.setMaxLength(200)
        self.pool.setAccessibleName("Pool")
        self.pool.setPlaceholderText("the name of a storage pool, as virsh pool-list shows it")
        row.addWidget(self.pool, 1)
        self.body.addLayout(row)
        self.body.addWidget(self.steps, 2)
        self.body.addWidget(self.stays, 1)
        self.add_command()
        self.add_buttons()
        self.button("Cancel", self.reject)
        self.go = self.button("Move", self.accept, style="primary", default=True)
        self.pool.textChanged.connect(lambda *_: self._show_plan())
        self._show_plan()
        self.pool.setFocus()

    @property
    def plan(self) -> Plan[Any]:
        """The plan for the pool that was entered."""
        return MOVE_STORAGE.plan(self._view, self._ids, StorageParameters(pool=self.pool.text().strip()))

    def _show_plan(self) -> None:
        named = bool(self.pool.text().strip())
        # Until one is named, the plan is that of any: what can be moved does not depend on it.
        plan = self.plan if named else MOVE_STORAGE.plan(self._view, self._ids, StorageParameters(pool="?"))
        self.show_rows(plan, ((s.name, s.node or "", self._disks(s.vm)) for s in plan.steps), complete=named)
        self.go.setText(f"Move the storage of {len(plan.steps)}")
        self.go.setEnabled(named and bool(plan.steps))

    def _disks(self, key: VmId) -> str:
        vm = self._view.vms.get(key)
        disks = [d for d in vm.config.disks if is_movable(d)] if vm and vm.config else []
        known = [d.capacity_bytes for d in disks if d.capacity_bytes]
        size = f" ({units.size_text(sum(known))})" if known else ""
        return ", ".join(f"{d.target}: {d.source}" for d in disks) + size

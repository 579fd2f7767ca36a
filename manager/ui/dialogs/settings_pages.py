"""The pages of the settings of a VM: each shows what is so, and says what was changed in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPlainTextEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from manager.core import edits, units
from manager.core.actions import (
    ADD_DISK,
    AUTOSTART,
    BOOT_ORDER,
    CD,
    DESCRIPTION,
    GROW_DISK,
    MEMORY,
    NETWORK,
    VCPUS,
    ActionSpec,
)
from manager.core.edits import (
    AddDisk,
    Describe,
    GrowDisk,
    SetAutostart,
    SetBootOrder,
    SetInterface,
    SetMedium,
    SetMemory,
    SetVcpus,
)
from manager.core.model import Disk, Interface, VmConfig
from manager.ui.models.rows_model import plain
from manager.ui.views.parts import ElidedLabel, name_for_ears, text_label

Wish = tuple[ActionSpec[Any], Any]
"""An action with its parameters."""

_DEVICE = Qt.ItemDataRole.UserRole


class Page(QWidget):
    """One page. `changed` is emitted at every key."""

    changed = Signal()
    title = ""

    def __init__(self) -> None:
        super().__init__()
        self.form = QFormLayout(self)
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.setHorizontalSpacing(12)
        self.form.setVerticalSpacing(8)
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)

    def wishes(self) -> Iterator[Wish]:
        """What was changed.

        Raises:
            ValueError: something that was entered is not understood; its text is for people.
        """
        raise NotImplementedError

    def line(self, text: str, name: str, hint: str = "", most: int = 1000) -> QLineEdit:
        """A field of one line."""
        field = QLineEdit(text)
        field.setMaxLength(most)
        field.setAccessibleName(name)
        field.setPlaceholderText(hint)
        field.setCursorPosition(0)
        field.textChanged.connect(lambda *_: self.changed.emit())
        return field

    def number(self, value: int, name: str, most: int) -> QSpinBox:
        """A field for a whole number from 1."""
        field = QSpinBox()
        field.setRange(1, most)
        field.setValue(value)
        field.setAccessibleName(name)
        field.valueChanged.connect(lambda *_: self.changed.emit())
        return field

    def hint(self, text: str) -> None:
        """A sentence across the page."""
        self.form.addRow(text_label(text, "dim", wrap=True))


def _row(*widgets: QWidget) -> QWidget:
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(8)
    for widget in widgets:
        layout.addWidget(widget, 1 if isinstance(widget, QLineEdit | ElidedLabel) else 0)
    return holder


def _size(field: QLineEdit, name: str) -> int:
    try:
        return units.mib_of(field.text())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


class GeneralPage(Page):
    """Title, description, start with the host."""

    title = "General"

    def __init__(self, config: VmConfig) -> None:
        super().__init__()
        self._config = config
        self.name = self.line(config.title, "Title", most=edits.MAX_TITLE)
        self.text = QPlainTextEdit(config.description)
        self.text.setObjectName("field")
        self.text.setAccessibleName("Description")
        self.text.setTabChangesFocus(True)
        self.text.textChanged.connect(self.changed)
        self.autostart = QCheckBox("Start it when its host starts")
        self.autostart.setChecked(config.autostart)
        self.autostart.toggled.connect(lambda *_: self.changed.emit())
        self.form.addRow("Title", self.name)
        self.form.addRow("Description", self.text)
        self.form.addRow("", self.autostart)

    def wishes(self) -> Iterator[Wish]:
        """Title and description are one change."""
        title, text = self.name.text(), self.text.toPlainText()
        given = Describe(
            title=title if title != self._config.title else None,
            description=text if text != self._config.description else None,
        )
        if given != Describe():
            yield DESCRIPTION, given
        if self.autostart.isChecked() is not self._config.autostart:
            yield AUTOSTART, SetAutostart(autostart=self.autostart.isChecked())


class SizePage(Page):
    """Memory and vCPUs."""

    title = "Memory and CPU"

    def __init__(self, config: VmConfig, runs: bool) -> None:
        super().__init__()
        stored = edits.at_next_start(config)
        self.memory = self.line(units.mib_text(stored.memory_now_mib), "Memory", "4 GiB", 30)
        self.memory_most = self.line(units.mib_text(stored.memory_mib), "Largest memory", "8 GiB", 30)
        self.vcpus = self.number(stored.vcpus, "vCPUs", edits.MAX_VCPUS)
        self.vcpus_most = self.number(stored.most_vcpus, "Most vCPUs", edits.MAX_VCPUS)
        self._at_first = self._values()
        self.form.addRow("Memory", self.memory)
        self.form.addRow("at most", self.memory_most)
        self.form.addRow("vCPUs", self.vcpus)
        self.form.addRow("at most", self.vcpus_most)
        if runs:
            self.hint(
                f"It runs with {units.mib_text(config.memory_now_mib)} of at most"
                f" {units.mib_text(config.memory_mib)}, and {config.vcpus} of at most"
                f" {units.count_text(config.most_vcpus, 'vCPU')}. Up to that it is changed at once,"
                " except for fewer vCPUs; a larger maximum counts from its next start."
            )

    def _values(self) -> tuple[str, str, int, int]:
        return (self.memory.text(), self.memory_most.text(), self.vcpus.value(), self.vcpus_most.value())

    def wishes(self) -> Iterator[Wish]:
        """A maximum that was left alone grows with what needs it."""
        now, was = self._values(), self._at_first
        if now[:2] != was[:2]:
            memory_mib = _size(self.memory, "Memory")
            most = _size(self.memory_most, "At most") if now[1] != was[1] else 0
            yield MEMORY, SetMemory(memory_mib=memory_mib, maximum_mib=most)
        if now[2:] != was[2:]:
            yield VCPUS, SetVcpus(vcpus=now[2], maximum=now[3] if now[3] != was[3] else 0)


class MediumPage(Page):
    """The CD drives."""

    title = "CD"

    def __init__(self, config: VmConfig) -> None:
        super().__init__()
        self.drives: list[tuple[Disk, QLineEdit]] = []
        self.force = QCheckBox("Even if the guest has locked the drive")
        self.force.toggled.connect(lambda *_: self.changed.emit())
        for drive in (disk for disk in config.disks if disk.device == "cdrom"):
            field = self.line(drive.source, f"Medium in {drive.target}", "empty")
            eject = QPushButton("Eject")
            eject.setAutoDefault(False)
            eject.setAccessibleName(f"Eject the medium from {plain(drive.target)}")
            eject.clicked.connect(field.clear)
            self.form.addRow(plain(drive.target), _row(field, eject))
            self.drives.append((drive, field))
        if self.drives:
            self.form.addRow("", self.force)
            self.hint("A path on the VM's node, or POOL/VOLUME. The node is asked whether it is there.")
        else:
            self.hint("This VM has no CD drive.")

    def wishes(self) -> Iterator[Wish]:
        """One per drive."""
        for drive, field in self.drives:
            source = field.text().strip()
            if source != drive.source:
                yield CD, SetMedium(disk=drive.target, source=source, force=self.force.isChecked())


class NetworkPage(Page):
    """The network interfaces."""

    title = "Network"

    def __init__(self, config: VmConfig, known: Sequence[str]) -> None:
        super().__init__()
        self.interfaces: list[tuple[Interface, QComboBox, QLineEdit, QCheckBox]] = []
        for nic in config.interfaces:
            kind = QComboBox()
            kind.addItems(["bridge", "network"])
            name_for_ears(kind, f"What {nic.mac} is connected to")
            movable = nic.kind in ("bridge", "network")
            if movable:
                kind.setCurrentText(nic.kind)
            source = self.line(nic.source, f"Bridge or network of {nic.mac}", most=200)
            link = QCheckBox("Link up")
            link.setAccessibleName(f"Link of {nic.mac} up")
            link.setChecked(nic.link_up)
            link.toggled.connect(lambda *_: self.changed.emit())
            kind.currentTextChanged.connect(lambda *_: self.changed.emit())
            for widget in (kind, source):
                widget.setEnabled(movable)
            self.form.addRow(plain(nic.mac), _row(kind, source, link))
            self.interfaces.append((nic, kind, source, link))
        if not self.interfaces:
            self.hint("This VM has no network interface.")
        elif known:
            self.hint(f"Used in this cluster: {', '.join(known)}.")

    def wishes(self) -> Iterator[Wish]:
        """One per interface."""
        for nic, kind, source, link in self.interfaces:
            place = (kind.currentText(), source.text().strip())
            moved = source.isEnabled() and place != (nic.kind, nic.source)
            up = link.isChecked()
            if moved and not place[1]:
                raise ValueError(f"{nic.mac}: needs the name of a {place[0]}")
            if moved or up is not nic.link_up:
                yield (
                    NETWORK,
                    SetInterface(
                        mac=nic.mac,
                        kind=place[0] if moved else "",
                        source=place[1] if moved else "",
                        link_up=up if up is not nic.link_up else None,
                    ),
                )


class BootPage(Page):
    """The boot order: ticked devices, from top to bottom."""

    title = "Boot order"

    def __init__(self, config: VmConfig) -> None:
        super().__init__()
        config = edits.at_next_start(config)
        names = {
            **{d.target: f"{d.target}: {d.device} {d.source or '(empty)'}" for d in config.disks},
            **{i.mac: f"{i.mac}: network {i.source}" for i in config.interfaces},
        }
        self.devices = QListWidget()
        self.devices.setAccessibleName("Boot order")
        self.devices.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        for name in [*(n for n in config.boot if n in names), *(n for n in names if n not in config.boot)]:
            item = QListWidgetItem(plain(names[name]))
            item.setData(_DEVICE, name)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if name in config.boot else Qt.CheckState.Unchecked)
            self.devices.addItem(item)
        self._at_first = self.order()
        up, down = QPushButton("Up"), QPushButton("Down")
        for button, step in ((up, -1), (down, 1)):
            button.setAutoDefault(False)
            button.clicked.connect(self._mover(step))
        side = QVBoxLayout()
        side.addWidget(up)
        side.addWidget(down)
        side.addStretch(1)
        both = QHBoxLayout()
        both.addWidget(self.devices, 1)
        both.addLayout(side)
        self.form.addRow(both)
        self.hint("It boots from those that are ticked, from top to bottom. It counts from its next start.")
        self.devices.itemChanged.connect(lambda *_: self.changed.emit())
        self.devices.model().rowsMoved.connect(lambda *_: self.changed.emit())

    def order(self) -> tuple[str, ...]:
        """The ticked devices."""
        items = [self.devices.item(row) for row in range(self.devices.count())]
        return tuple(i.data(_DEVICE) for i in items if i.checkState() is Qt.CheckState.Checked)

    def _mover(self, step: int) -> Callable[[], None]:
        def move() -> None:
            row = self.devices.currentRow()
            if row >= 0 and 0 <= row + step < self.devices.count():
                self.devices.insertItem(row + step, self.devices.takeItem(row))
                self.devices.setCurrentRow(row + step)
                self.changed.emit()

        return move

    def wishes(self) -> Iterator[Wish]:
        """The whole order."""
        if (order := self.order()) != self._at_first:
            yield BOOT_ORDER, SetBootOrder(devices=order)


class DiskPage(Page):
    """Disks that grow, and a new one."""

    title = "Disks"

    def __init__(self, config: VmConfig) -> None:
        super().__init__()
        self.disks: list[tuple[Disk, QLineEdit]] = []
        for disk in (d for d in config.disks if d.device == "disk"):
            size = units.size_text(disk.capacity_bytes) if disk.capacity_bytes else "as it is"
            field = self.line("", f"New size of {disk.target}", size, 30)
            field.setMaximumWidth(130)
            source = ElidedLabel(style="dim")
            source.set_text(plain(disk.source))
            self.form.addRow(plain(disk.target), _row(source, text_label("grow to"), field))
            self.disks.append((disk, field))
        self.pool = self.line("", "Pool of a new disk", "pool", 200)
        self.volume = self.line("", "Volume of a new disk", "volume that is there", 200)
        self.capacity = self.line("", "Size of a new disk", "or a size: 20 GiB", 30)
        self.form.addRow("Add a disk", _row(self.pool, self.volume, self.capacity))
        self.hint(
            "A new disk is a volume of a pool of the VM's node that no VM uses, or with a size a new one,"
            " which needs no name. Disks are never made smaller; the guest's file systems stay as they are."
        )

    def wishes(self) -> Iterator[Wish]:
        """One per disk, and the new one."""
        for disk, field in self.disks:
            if field.text().strip():
                yield GROW_DISK, GrowDisk(disk=disk.target, size_mib=_size(field, disk.target))
        pool, volume = self.pool.text().strip(), self.volume.text().strip()
        size = _size(self.capacity, "Size") if self.capacity.text().strip() else 0
        if pool or volume or size:
            yield ADD_DISK, AddDisk(pool=pool, volume=volume, size_mib=size)

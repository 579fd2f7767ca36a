"""Sentences of the window that need more than one field: failures, confirmations, equivalent commands."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from manager.core import edits, units
from manager.core.actions import (
    LIVE_MIGRATE,
    MigrateParameters,
    Plan,
    PriorityParameters,
    StorageParameters,
    TagsParameters,
)
from manager.core.cluster import ClusterView
from manager.core.errors import UserError
from manager.core.model import PeerRoute, Tier
from manager.core.operations import Operation, OperationKind, OperationState
from manager.core.query.operation_fields import operation_title
from manager.core.query.vm_fields import status_text
from manager.core.reasons import Reason, ReasonCode
from manager.services.ports import ClusterFiles


@dataclass(frozen=True, slots=True)
class FailureText:
    """A failure in the order in which people need it."""

    what: str  # what did not happen
    where: str  # where the VM is and in what state now
    why: str
    remedy: str  # what to do
    detail: str  # code and the hypervisor's own words

    @property
    def text(self) -> str:
        """All of it, to be copied."""
        parts = [self.what, self.where, self.why]
        if self.remedy:
            parts.append(self.remedy)
        if self.detail:
            parts.append(f"Detail: {self.detail}")
        return "\n".join(part for part in parts if part)


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop; a name such as n1 at its beginning stays as it is."""
    text = text.strip()
    if not text:
        return ""
    if text.split()[0].rstrip(":,;.!?").isalpha():
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?”" else f"{text}."


def why_text(reason: Reason) -> str:
    """A reason without the place of the VM, which stands in a sentence of its own."""
    if reason.code is ReasonCode.FAILED:
        return str(reason.field("text") or "")
    if reason.code is ReasonCode.PEER_LOGIN_REFUSED:
        return f"{reason.field('source')} cannot log in to {reason.field('target')}: {reason.field('text')}"
    return reason.text


def failure_text(view: ClusterView, operation: Operation) -> FailureText:
    """How an ended operation failed. The VM's place is that of now, not of then."""
    vm = view.vms.get(operation.vm) if operation.vm else None
    to = f" to {operation.target}" if operation.kind is OperationKind.MIGRATE and operation.target else ""
    done = "cancelled" if operation.state is OperationState.CANCELLED else "not done"
    where = "no node has it any more"
    if vm is not None:
        where = f"{vm.name} is {status_text(vm)}" + (f" on {vm.owner}" if vm.owner else "")
    reason = operation.reason
    detail = ""
    if reason is not None:
        detail = ", ".join(str(f) for name in ("kind", "detail") if (f := reason.field(name)))
    return FailureText(
        what=sentence(f"{operation_title(operation)}{to}: {done}"),
        where=sentence(where),
        why=sentence(why_text(reason)) if reason else "",
        remedy=sentence(reason.remedy) if reason else "",
        detail=detail,
    )


def repair_commands(reason: Reason) -> list[str]:
    """The commands that give the source its login at the target, one per line."""
    text = str(reason.field("commands") or "")
    return [part.strip() for part in text.split("; ") if part.strip()]


def skipped_text(plan: Plan[Any], most: int = 3) -> str:
    """``2 skipped: already off``; several reasons with their counts."""
    if not plan.skipped:
        return ""
    reasons = Counter(s.reason.text for s in plan.skipped)
    count = len(plan.skipped)
    if len(reasons) == 1:
        return f"{count} skipped: {next(iter(reasons))}"
    shown = ", ".join(f"{n} {text}" for text, n in reasons.most_common(most))
    more = len(reasons) - most
    return f"{count} skipped: {shown}" + (f", and {more} more reasons" if more > 0 else "")


def plan_title(*plans: Plan[Any]) -> str:
    """``Turn off 12 VMs in PROD-A and web-1 in PROD-B?``; of one VM, its name."""
    parts = []
    for plan in plans:
        names = plan.steps[0].name if len(plan.steps) == 1 else units.count_text(len(plan.steps), "VM")
        parts.append(f"{names} in {plan.cluster}")
    return f"{plans[0].spec.verb} {units.and_text(parts)}?"


def plan_button(*plans: Plan[Any]) -> str:
    """The verb with the count: ``Turn off 12``."""
    spec = plans[0].spec
    verb = "Move" if spec is LIVE_MIGRATE else spec.verb
    if verb.endswith(" of"):
        verb = {"Delete the saved state of": "Delete saved states:"}.get(verb, verb)
    return f"{verb} {sum(len(plan.steps) for plan in plans)}"


def cluster_option(view: ClusterView, files: ClusterFiles, source: Path | None) -> str:
    """How the command line names this cluster.

    By its name only if that leads to the file it was opened from (`source`): a name may belong to a file
    outside the configured ones, or to another cluster.
    """
    config = view.config
    if config.tier is Tier.DEMO:
        return f"--demo {len(view.nodes)}x{len(view.vms)}"
    if config.tier is Tier.DUMP:
        return f"--from-dump {shlex.quote(config.file)}"
    if source is None:
        return " ".join(["--connect", *(shlex.quote(node.uri) for node in config.nodes)])
    try:
        named = files.find(config.name) == source
    except UserError:
        named = False
    return f"--cluster {shlex.quote(config.name if named else str(source.absolute()))}"


def names_of(view: ClusterView, ids: Iterable[str]) -> list[str]:
    """Names as the command line takes them: the UUID where a name is not unique or looks like an option."""
    counts = Counter(vm.name for vm in view.vms.values())
    found = []
    for key in ids:
        vm = view.vms.get(key)  # type: ignore[call-overload]
        clear = vm is not None and counts[vm.name] == 1 and not vm.name.startswith("-")
        found.append(shlex.quote(vm.name) if clear and vm is not None else key)
    return found


def plan_command(view: ClusterView, plan: Plan[Any], option: str) -> str:
    """The plan as one line of the command line; `option` names the cluster."""
    moves = plan.spec.kind is OperationKind.MIGRATE
    words = ["muster", option, "vm", LIVE_MIGRATE.command if moves else plan.spec.command]
    words += names_of(view, (step.vm for step in plan.steps))
    parameters = plan.parameters
    if moves and plan.spec is not LIVE_MIGRATE:
        words += ["--type", plan.spec.move.value]
    if isinstance(parameters, MigrateParameters | StorageParameters) and parameters.pool:
        words += ["--pool", shlex.quote(parameters.pool)]
    if isinstance(parameters, MigrateParameters):
        if parameters.policy:
            words += ["--policy", shlex.quote(parameters.policy)]
        if parameters.target is not None:
            words += ["--to", shlex.quote(parameters.target)]
        if parameters.route is PeerRoute.THROUGH_THIS_COMPUTER:
            words += ["--through-this-computer"]
    elif isinstance(parameters, PriorityParameters):
        words += ["--set", parameters.priority.name.lower().replace("_", "-")]
    elif isinstance(parameters, TagsParameters):
        for option, given in (("--add", parameters.add), ("--remove", parameters.remove)):
            words += [option, shlex.quote(",".join(given))] if given else []
        if parameters.tags is not None:
            words += ["--set", shlex.quote(",".join(parameters.tags))]
    elif isinstance(parameters, get_args(edits.Edit)):
        words += [shlex.quote(word) for word in _edit_words(parameters)]
    return " ".join(words)


def _edit_words(edit: edits.Edit) -> Iterator[str]:
    """The options of the command that makes a change of a definition."""
    match edit:
        case edits.SetMedium(disk=disk, source=source, force=force):
            yield from ("--insert", source) if source else ("--eject",)
            yield from ("--drive", disk) if disk else ()
            yield from ("--force",) if force else ()
        case edits.SetMemory(memory_mib=memory_mib, maximum_mib=maximum_mib):
            yield from ("--set", f"{memory_mib}MiB")
            yield from ("--maximum", f"{maximum_mib}MiB") if maximum_mib else ()
        case edits.SetVcpus(vcpus=vcpus, maximum=maximum):
            yield from ("--set", str(vcpus))
            yield from ("--maximum", str(maximum)) if maximum else ()
        case edits.Describe(title=title, description=description):
            yield from ("--title", title) if title is not None else ()
            yield from ("--description", description) if description is not None else ()
        case edits.SetAutostart(autostart=autostart):
            yield from ("--set", "on" if autostart else "off")
        case edits.SetInterface(mac=mac, kind=kind, source=source, link_up=link_up):
            yield from ("--mac", mac) if mac else ()
            yield from (f"--{kind}", source) if kind else ()
            yield from ("--link", "up" if link_up else "down") if link_up is not None else ()
        case edits.SetBootOrder(devices=devices):
            yield from ("--set", ",".join(devices))
        case edits.AddDisk(pool=pool, volume=volume, size_mib=size_mib):
            yield from ("--pool", pool)
            yield from ("--volume", volume) if volume else ()
            yield from ("--size", f"{size_mib}MiB") if size_mib else ()
        case edits.GrowDisk(disk=disk, size_mib=size_mib):
            yield from ("--disk", disk) if disk else ()
            yield from ("--to", f"{size_mib}MiB")


def show_commands(view: ClusterView, ids: Sequence[str], option: str) -> str:
    """The commands that show these VMs, one a line; `option` names the cluster."""
    return "\n".join(f"muster {option} vm show {name}" for name in names_of(view, ids))


def result_text(children: Sequence[Operation]) -> str:
    """How a batch ended: ``37 of 40 done, 2 failed, 1 cancelled``."""
    states = Counter(child.state for child in children)
    parts = [f"{states[OperationState.DONE]} of {len(children)} done"]
    for state in (OperationState.FAILED, OperationState.CANCELLED):
        if states[state]:
            parts.append(f"{states[state]} {state.value.lower()}")
    left = sum(1 for child in children if not child.is_over)
    if left:
        parts.append(f"{left} under way")
    return ", ".join(parts)

"""Why a VM is busy and why an operation ended as it did, in words. Reads only."""

from __future__ import annotations

from manager.core import edits
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, VmId
from manager.core.inventory import Inventory
from manager.core.migration.progress import MovePhase, MoveProgress
from manager.core.model import Activity, VmStatus
from manager.core.operations import Operation, OperationKind
from manager.core.reasons import Reason, ReasonCode, because


def work_text(operation: Operation) -> str:
    """An operation's kind of work as people say it: ``live migrate``."""
    words = operation.action.partition(".")[2].replace("_", " ")
    is_set = operation.kind is OperationKind.SETTINGS and not words.endswith(" disk")
    return f"set the {words}" if is_set else words


def busy(operation: Operation, activity: Activity) -> Reason:
    """Why a VM takes no other work while this operation holds it: ``busy: about to live migrate``."""
    said = {
        Activity.QUEUED: f"waits for its turn to {work_text(operation)}",
        Activity.CHECKING: f"about to {work_text(operation)}",
        Activity.NONE: work_text(operation),
    }
    return because(ReasonCode.VM_BUSY, activity=said.get(activity, activity.value.lower()))


def past_return(operation: Operation, figures: MoveProgress | None) -> Reason | None:
    """Why a move cannot be cancelled any more; None before its second half."""
    if figures is None or figures.phase is not MovePhase.POST_COPY:
        return None
    return because(
        ReasonCode.PAST_RETURN,
        node=str(operation.target),
        source=str(operation.source),
        left=figures.left_percent,
    )


class Explanations:
    """Reasons of ends, with the place in which each leaves its VM."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def edited(self, operation: Operation) -> Reason | None:
        """What a VM's definition says now; None if it was not that which was changed."""
        if operation.edit is None:
            return None
        edit, vm = operation.edit.one, self._inventory.vms.get(operation.vm) if operation.vm else None
        runs = vm is not None and vm.status in (VmStatus.RUNNING, VmStatus.PAUSED)
        code = ReasonCode.EDITED_LATER if runs and edits.is_later(edit) else ReasonCode.EDITED
        return because(code, what=edits.told(edit))

    def place(self, vm_id: VmId | None) -> str:
        """Where a VM is and in what state, for the end of a sentence."""
        vm = self._inventory.vms.get(vm_id) if vm_id else None
        if vm is None:
            return "no node has it any more"
        if vm.status is VmStatus.UNKNOWN:
            was = f" (was {vm.was.value})" if vm.was else ""
            return f"its state on {vm.owner} is unknown{was}"
        return f"it is {vm.status.value.lower()} on {vm.owner}"

    def failed(self, operation: Operation, failure: Failure) -> Reason:
        """A call of it failed."""
        return because(
            ReasonCode.FAILED,
            text=failure.text or failure.code.value,
            place=self.place(operation.vm),
            kind=failure.code.value,
            detail=failure.detail,
        )

    def peer_refused(self, operation: Operation, failure: Failure) -> Reason:
        """The source could not log in to the target, or could not try."""
        if failure.code is not FailureCode.PEER_LOGIN:
            return self.failed(operation, failure)
        assert operation.source and operation.target
        return because(
            ReasonCode.PEER_LOGIN_REFUSED,
            source=operation.source,
            target=operation.target,
            text=failure.text,
            place=self.place(operation.vm),
            commands=self._repair_commands(operation.source, operation.target),
            detail=failure.detail,
        )

    def cancelled(self, operation: Operation) -> Reason:
        """Someone called it off."""
        return because(ReasonCode.CANCELLED_BY, who=operation.cancelled_by, place=self.place(operation.vm))

    def missed(self, operation: Operation, failure: Failure | None) -> Reason:
        """Its call is over, the world was seen, and it is not as wanted."""
        place = self.place(operation.vm)
        if failure is None:
            return because(ReasonCode.NOT_AS_WANTED, place=place)
        if failure.code is FailureCode.CANCELLED:
            return because(ReasonCode.ENDED_ELSEWHERE, place=place)
        if failure.code is FailureCode.INTERRUPTED:
            return because(ReasonCode.INTERRUPTED, place=place)
        return self.failed(operation, failure)

    def _repair_commands(self, source: NodeId, target: NodeId) -> str:
        """What to run so that the source can log in to the target; shown, never run by us."""
        config = self._inventory.config.node(target)
        if config.peer_uri is None and "?" in config.uri:
            # What stands in its URI is of this computer: a key, a socket, a folder of certificates.
            return f"in the cluster file, set peer_uri of {target} to how the other nodes reach it"
        uri = config.peer_uri or config.uri
        if "+ssh://" in uri:
            host = uri.split("://", 1)[1].split("/", 1)[0]
            return (
                f"on {source}, as root: ssh-keygen -t ed25519 (if it has no key); "
                f"ssh-copy-id {host}; virsh -c {uri} uri"
            )
        if "+tls://" in uri:
            return (
                f"on {source}, as root: check /etc/pki/CA/cacert.pem, /etc/pki/libvirt/clientcert.pem and "
                f"/etc/pki/libvirt/private/clientkey.pem; virsh -c {uri} uri"
            )
        return f"on {source}, as root: virsh -c {uri} uri (set peer_uri of {target} in the cluster file)"

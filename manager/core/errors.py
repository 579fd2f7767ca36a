"""The few classes of error. Expected trouble is a `Failure` value; these carry one across a call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from manager.core.ids import NodeId, VmId


class FailureCode(Enum):
    """What kind of thing went wrong, whichever backend said it."""

    TIMEOUT = "timeout"  # no answer in time; the call may still act
    UNREACHABLE = "unreachable"  # no connection, or it was lost
    LOGIN = "login"  # reached, and refused
    INCOMPATIBLE = "incompatible"  # reached, and cannot do what we need at all
    NOT_FOUND = "not found"  # the VM is not there (any more)
    BUSY = "busy"  # another job holds it
    ALREADY = "already"  # it is in the wanted state
    WRONG_STATE = "wrong state"  # its state does not permit this
    NOT_SUPPORTED = "not supported"  # the hypervisor cannot do this
    NO_RESOURCES = "no resources"  # memory, disk space, ports
    CONFLICT = "conflict"  # a name, UUID or definition stands in the way
    STORAGE = "storage"  # a disk or image is missing, locked or unreadable
    NETWORK = "network"  # a bridge or network is missing
    UNSAFE = "unsafe"  # refused for the safety of the data
    CANCELLED = "cancelled"
    DENIED = "denied"  # permission, read-only connection
    NO_AGENT = "no agent"  # the guest agent does not answer
    PEER_LOGIN = "peer login"  # the source node cannot reach or log in to the target
    INTERRUPTED = "interrupted"  # this program ended in between
    OTHER = "other"


RETRYABLE = frozenset({FailureCode.TIMEOUT, FailureCode.UNREACHABLE, FailureCode.BUSY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something did not happen. `text` is the hypervisor's own words (untrusted)."""

    code: FailureCode
    text: str = ""
    node: NodeId | None = None
    vm: VmId | None = None
    detail: str = ""  # error numbers, copyable

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may well work a little later."""
        return self.code in RETRYABLE


class UserError(Exception):
    """Shown to the user as it is; nothing was changed. `exit_code` is the command line's."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OperationError(Exception):
    """A port call that failed, with the reason as a value."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text or failure.code.value)
        self.failure = failure


class ImpossibleTransition(AssertionError):
    """A state machine was asked for a move that its table does not have: a bug of ours."""

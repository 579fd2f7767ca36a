"""libvirt's errors by their numbers."""

from __future__ import annotations

import errno

import libvirt
import pytest

from manager.backends.libvirt.errors import (
    MAX_TEXT,
    cleaned,
    code_of,
    connect_code_of,
    failure_of,
    may_be_refusal,
    refused_command,
)
from manager.core.errors import FailureCode
from manager.core.ids import NodeId, VmId

C = FailureCode
RPC, QEMU, DOMAIN, NONE = 7, 10, 20, 0


def error(code: int, domain: int, number: int = -1, text: str = "words") -> libvirt.libvirtError:
    made = libvirt.libvirtError("x")
    made.err = (code, domain, text, 2, "%s", text, None, number, -1)
    return made


@pytest.mark.parametrize(
    ("code", "domain", "number", "ours"),
    [
        (1, RPC, -1, C.UNREACHABLE),  # client socket is closed
        (38, RPC, errno.ECONNREFUSED, C.UNREACHABLE),
        (6, DOMAIN, -1, C.UNREACHABLE),
        (1, QEMU, -1, C.OTHER),
        (9, DOMAIN, -1, C.OTHER),
        (3, DOMAIN, -1, C.NOT_SUPPORTED),
        (42, QEMU, -1, C.NOT_FOUND),
        (55, QEMU, -1, C.WRONG_STATE),
        (68, QEMU, -1, C.BUSY),
        (74, QEMU, -1, C.NOT_SUPPORTED),
        (78, QEMU, -1, C.CANCELLED),
        (81, QEMU, -1, C.UNSAFE),
        (84, QEMU, -1, C.NOT_SUPPORTED),
        (86, QEMU, -1, C.NO_AGENT),
        (87, 42, -1, C.BUSY),
        (88, 55, -1, C.DENIED),
        (29, 0, -1, C.DENIED),
        (43, 19, -1, C.NETWORK),
        (49, 18, -1, C.STORAGE),
        (38, NONE, errno.ENODEV, C.NETWORK),  # Cannot get interface MTU on 'brx'
        (38, 18, errno.ENOENT, C.STORAGE),
        (38, 18, errno.ENOSPC, C.NO_RESOURCES),
        (38, 18, errno.EXDEV, C.OTHER),
        (2, NONE, -1, C.NO_RESOURCES),
        (12345, 99, -1, C.OTHER),
    ],
)
def test_errors_of_calls(code: int, domain: int, number: int, ours: FailureCode) -> None:
    assert code_of(error(code, domain, number)) is ours


@pytest.mark.parametrize(
    ("code", "domain", "number", "ours"),
    [
        (38, RPC, errno.ECONNREFUSED, C.UNREACHABLE),
        (38, RPC, errno.ENOENT, C.UNREACHABLE),
        (38, RPC, errno.EACCES, C.LOGIN),  # a socket that is not ours to open
        (38, RPC, -1, C.UNREACHABLE),
        (45, RPC, -1, C.LOGIN),
        (79, RPC, -1, C.LOGIN),
        (29, 0, -1, C.LOGIN),
        (88, 55, -1, C.LOGIN),
        (5, 0, -1, C.INCOMPATIBLE),
        (1, 45, -1, C.INCOMPATIBLE),  # Unable to parse URI
        (27, 12, -1, C.INCOMPATIBLE),
        (12345, 99, -1, C.INCOMPATIBLE),
    ],
)
def test_errors_of_opening(code: int, domain: int, number: int, ours: FailureCode) -> None:
    assert connect_code_of(error(code, domain, number)) is ours


def test_a_missing_file_is_a_certificate_only_over_tls() -> None:
    missing = error(38, RPC, errno.ENOENT)
    assert connect_code_of(missing) is C.UNREACHABLE
    assert connect_code_of(missing, over_tls=True) is C.LOGIN


def test_a_closed_pipe_may_be_a_refused_login() -> None:
    assert may_be_refusal(error(38, RPC, errno.ECONNRESET))
    assert may_be_refusal(error(38, RPC, -1))
    assert may_be_refusal(error(38, RPC, errno.EIO))  # a TLS server that does not take our certificate
    assert not may_be_refusal(error(38, RPC, errno.ECONNREFUSED))
    assert not may_be_refusal(error(45, RPC))


def test_an_error_as_a_value() -> None:
    failure = failure_of(error(42, QEMU, text="no domain"), node=NodeId("n1"), vm=VmId("x"))
    assert (failure.code, failure.text, failure.node, failure.vm) == (C.NOT_FOUND, "no domain", "n1", "x")
    assert failure.detail == "libvirt error 42, domain 10"
    assert failure_of(error(42, QEMU), C.BUSY).code is C.BUSY
    assert failure_of(libvirt.libvirtError("x")).code is C.OTHER


def test_texts_are_one_clean_line_of_bounded_length() -> None:
    assert cleaned("a\nb\tc\x1b[31m\x00\u202ed  e ") == "a b c [31m d e"
    assert len(cleaned("x" * 10_000)) == MAX_TEXT
    assert cleaned("é – ü") == "é – ü"


def test_which_command_qemu_refused() -> None:
    text = "internal error: unable to execute QEMU command 'object-add': Unable to access credentials /x"
    assert refused_command(error(1, QEMU, text=text)) == "object-add"
    assert refused_command(error(1, DOMAIN, text=text)) == ""
    assert refused_command(error(9, QEMU, text=text)) == ""
    assert refused_command(error(1, QEMU, text="internal error: no such thing")) == ""

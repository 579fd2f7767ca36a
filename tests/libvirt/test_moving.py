"""A move's flags and parameters, and what its errors mean."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from manager.backends.libvirt import moving
from manager.backends.libvirt.moving import Contact, Move, MoveEnd
from manager.backends.libvirt.storage import Copy, Image
from manager.core.effects import StartMigration
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, OperationId, TraceId, VmId
from manager.core.model import Convergence, PeerRoute

IMAGE = Image(disk="vdb", source="/local/web-data.qcow2", format="qcow2", capacity_bytes=1 << 30)


def effect(**fields: Any) -> StartMigration:
    values: dict[str, Any] = {
        "trace": TraceId("t"),
        "operation": OperationId("o"),
        "attempt": 1,
        "vm": VmId("uuid"),
        "node": NodeId("n1"),
        "target": NodeId("n2"),
        "route": PeerRoute.NODE_TO_NODE,
        "bandwidth_mib_s": 0,
        "unsafe": False,
        "convergence": Convergence(auto_converge=False),
        "autostart": False,
    }
    return StartMigration(**(values | fields))


def move(wishes: StartMigration | None = None, **fields: Any) -> Move:
    values: dict[str, Any] = {
        "peer": True,
        "address": "",
        "post_copy": False,
        "copies": (),
        "is_cancelled": lambda: False,
    }
    return moving.move_of(wishes or effect(), **(values | fields))


LEAST = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_ABORT_ON_ERROR


def test_the_least_that_is_asked() -> None:
    plain = move(peer=False)
    assert (plain.flags, dict(plain.parameters)) == (LEAST, {})
    assert move().flags == LEAST | libvirt.VIR_MIGRATE_PEER2PEER


@pytest.mark.parametrize(
    ("wishes", "flag", "parameters"),
    [
        ({"unsafe": True}, libvirt.VIR_MIGRATE_UNSAFE, {}),
        ({"encrypt": True}, libvirt.VIR_MIGRATE_TLS, {}),
        ({"parallel_connections": 1}, 0, {}),
        ({"parallel_connections": 4}, libvirt.VIR_MIGRATE_PARALLEL, {"parallel.connections": 4}),
        ({"bandwidth_mib_s": 100}, 0, {"bandwidth": 100}),
        (
            {"convergence": Convergence(auto_converge_initial_percent=30)},
            libvirt.VIR_MIGRATE_AUTO_CONVERGE,
            {"auto_converge.initial": 30, "auto_converge.increment": 10},
        ),
        ({"convergence": Convergence(auto_converge=False, post_copy=True)}, 0, {}),  # see below
    ],
)
def test_each_wish_is_one_flag(wishes: dict[str, Any], flag: int, parameters: dict[str, Any]) -> None:
    asked = move(effect(**wishes), peer=False)
    assert (asked.flags, dict(asked.parameters)) == (LEAST | flag, parameters)


def test_post_copy_is_permitted_where_both_hosts_have_it() -> None:
    assert move(post_copy=True).flags & libvirt.VIR_MIGRATE_POSTCOPY


@pytest.mark.parametrize(("address", "uri"), [("10.0.0.7", "tcp://10.0.0.7"), ("fd00::7", "tcp://[fd00::7]")])
def test_the_address_is_where_the_memory_goes(address: str, uri: str) -> None:
    assert dict(move(address=address).parameters) == {"migrate_uri": uri}


def test_only_the_disks_that_were_named_go_along() -> None:
    asked = move(copies=(Copy(image=IMAGE, pool="fast", path="/fast/web-data.qcow2"),))
    assert asked.flags & libvirt.VIR_MIGRATE_NON_SHARED_DISK
    assert dict(asked.parameters) == {"migrate_disks": ["vdb"]}


def test_what_kills_the_guest_is_refused() -> None:
    both = effect(parallel_connections=2, convergence=Convergence(post_copy=True))
    assert "guest would be lost" in moving.refusal_of(both)
    assert not moving.refusal_of(effect(parallel_connections=2))
    assert not moving.refusal_of(effect(parallel_connections=1, convergence=Convergence(post_copy=True)))


def failed(contact: Contact) -> MoveEnd:
    failure = Failure(code=FailureCode.OTHER, text="operation failed: ...", node=NodeId("n1"))
    return MoveEnd(failure=failure, contact=contact)


def test_a_move_by_several_connections_that_sent_nothing_did_not_reach_its_target() -> None:
    end = moving.never_began(failed(Contact.UNTOLD), move(effect(parallel_connections=2, encrypt=True)))
    assert end.failure is not None
    assert end.contact is Contact.FAILED
    assert (end.failure.code, end.failure.node) == (FailureCode.UNREACHABLE, NodeId("n2"))


def test_an_encrypted_move_that_sent_nothing_was_not_accepted() -> None:
    end = moving.never_began(failed(Contact.UNTOLD), move(effect(encrypt=True)))
    assert end.failure is not None
    assert (end.failure.code, end.failure.is_retryable) == (FailureCode.INCOMPATIBLE, False)
    assert end.contact is Contact.MADE


def test_nothing_else_is_guessed() -> None:
    for contact, asked in (
        (Contact.UNTOLD, move()),
        (Contact.MADE, move(effect(parallel_connections=2))),
    ):
        end = failed(contact)
        assert moving.never_began(end, asked) is end
    assert moving.never_began(MoveEnd(), move()) == MoveEnd()

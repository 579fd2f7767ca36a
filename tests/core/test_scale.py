"""What is done for a VM does not grow with how many there are: counted in calls, not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from manager.core import effects as fx
from manager.core import events as ev
from manager.core.admission import Admission
from manager.core.errors import Failure, FailureCode
from manager.core.ids import NodeId, OperationId
from manager.core.model import StatusCause
from tests.core.support import OFF, Cluster, Guest, R, definition, host_facts, uuid

N1, N2 = NodeId("n1"), NodeId("n2")
SMALL, LARGE = 150, 600


def filled(count: int) -> Cluster:
    """Three large nodes, all VMs on n1."""
    cluster = Cluster(up=False)
    for node in cluster.hosts:
        cluster.facts[node] = host_facts(node, memory_mib=1 << 22)
    for number in range(count):
        name = f"v{number:04}"
        cluster.hosts[N1][uuid(name)] = Guest(name, R, config=definition(512))
    return cluster


def taken_in(count: int) -> Cluster:
    cluster = filled(count)
    for node in cluster.hosts:
        cluster.connect(node)
    return cluster


def moving(count: int) -> Cluster:
    cluster = taken_in(count)
    cluster.ask("vm.live_migrate", *(g.name for g in cluster.hosts[N1].values()))
    return cluster


def calls(run: Callable[[], object]) -> int:
    """How many calls of the core's functions something takes."""
    found = 0

    def count(frame: FrameType, what: str, _: object) -> None:
        nonlocal found
        if what == "call" and "/manager/core/" in frame.f_code.co_filename:
            found += 1

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def take_in(cluster: Cluster) -> None:
    for node in cluster.hosts:
        cluster.connect(node)


def read_again(cluster: Cluster) -> None:
    cluster.read("n1")


def burst(cluster: Cluster) -> None:
    for guest in list(cluster.hosts[N1].values()):
        guest.status, guest.cause = OFF, StatusCause.CRASHED
        cluster.state.handle(
            ev.VmStateChanged(at_s=cluster.now, node=N1, vm=uuid(guest.name), name=guest.name, status=OFF)
        )


def lose(cluster: Cluster) -> None:
    cluster.feed(ev.NodeLost(at_s=cluster.now, node=N1, failure=Failure(code=FailureCode.UNREACHABLE)))


def ask_all(action: str) -> Callable[[Cluster], None]:
    def ask(cluster: Cluster) -> None:
        names = [g.name for g in cluster.hosts[N1].values()]
        cluster.ask(action, *names)

    return ask


def cancel_all(cluster: Cluster) -> None:
    cluster.feed(ev.CancelRequested(at_s=cluster.now, operations=(OperationId("0001"),), author="adm"))


@pytest.mark.parametrize(
    ("make", "run"),
    [
        (filled, take_in),
        (taken_in, read_again),
        (taken_in, burst),
        (taken_in, lose),
        (taken_in, ask_all("vm.shut_down")),
        (taken_in, ask_all("vm.live_migrate")),
        (moving, cancel_all),
        (moving, burst),
    ],
    ids=["intake", "read", "burst", "lost", "shut down", "migrate", "cancel", "burst on a queue"],
)
def test_four_times_the_vms_are_about_four_times_the_work(
    make: Callable[[int], Cluster], run: Callable[[Cluster], None]
) -> None:
    small, large = make(SMALL), make(LARGE)
    ratio = calls(lambda: run(large)) / calls(lambda: run(small))
    assert ratio < 1.25 * LARGE / SMALL


def test_an_end_looks_closely_only_at_what_may_start(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = moving(LARGE)
    looked: list[str] = []
    verdict = Admission._verdict

    def counted(self: Admission, operation: object, *rest: object) -> object:
        looked.append(operation.vm_name)  # type: ignore[attr-defined]
        return verdict(self, operation, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Admission, "_verdict", counted)
    cluster.answer(cluster.wanted(fx.CheckPeerLogin)[0], Failure(code=FailureCode.PEER_LOGIN, text="no"))
    assert 1 <= len(looked) <= 3

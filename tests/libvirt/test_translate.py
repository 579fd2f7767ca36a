"""libvirt's numbers in the core's words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import libvirt
import pytest

from manager.backends.libvirt.translate import RawEvent, Told, event_of, told
from manager.core.events import VmDefinitionChanged, VmDiskFailed, VmRebooted, VmStateChanged, VmUndefined
from manager.core.ids import NodeId, VmId
from manager.core.model import StatusCause, VmStatus

S, C = VmStatus, StatusCause
N1 = NodeId("n1")


@pytest.mark.parametrize(
    ("state", "reason", "status", "cause"),
    [
        (1, 1, S.RUNNING, C.BOOTED),
        (1, 2, S.RUNNING, C.MIGRATED),
        (1, 3, S.RUNNING, C.RESTORED),
        (1, 6, S.RUNNING, C.MIGRATION_CANCELLED),
        (1, 10, S.RUNNING, C.POSTCOPY),
        (1, 99, S.RUNNING, C.OTHER),
        (2, 0, S.RUNNING, C.NONE),
        (3, 1, S.PAUSED, C.USER),
        (3, 2, S.PAUSED, C.MIGRATION),
        (3, 5, S.PAUSED, C.IO_ERROR),
        (3, 11, S.PAUSED, C.STARTING_UP),
        (3, 13, S.PAUSED, C.POSTCOPY_FAILED),
        (3, 14, S.PAUSED, C.API_ERROR),
        (3, 99, S.PAUSED, C.OTHER),
        (5, 1, S.OFF, C.SHUT_DOWN),
        (5, 2, S.OFF, C.TURNED_OFF),
        (5, 3, S.CRASHED, C.CRASHED),
        (5, 4, S.OFF, C.MIGRATED),
        (5, 5, S.OFF, C.SAVED),
        (5, 6, S.OFF, C.FAILED),
        (5, 8, S.OFF, C.DAEMON),
        (6, 0, S.CRASHED, C.CRASHED),
        (6, 1, S.CRASHED, C.PANICKED),
        (7, 0, S.PAUSED, C.SLEEPING),
        (0, 0, S.UNKNOWN, C.OTHER),
        (42, 7, S.UNKNOWN, C.OTHER),
    ],
)
def test_states(state: int, reason: int, status: VmStatus, cause: StatusCause) -> None:
    assert told(state, reason) == Told(status, cause)


def test_a_guest_that_shuts_down_still_runs() -> None:
    assert told(4, 1) == Told(S.RUNNING, C.SHUTTING_DOWN, shutting_down=True)


def test_off_with_a_saved_state_is_saved_whatever_the_reason() -> None:
    assert {told(5, reason, has_saved_state=True) for reason in range(9)} == {Told(S.SAVED, C.SAVED)}
    assert told(1, 1, has_saved_state=True) == Told(S.RUNNING, C.BOOTED)


def lifecycle(event: int, detail: int) -> RawEvent:
    return RawEvent(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, "uuid", "web", event, detail)


@pytest.mark.parametrize(
    ("event", "detail", "status", "cause"),
    [
        (2, 0, S.RUNNING, C.BOOTED),
        (2, 1, S.PAUSED, C.MIGRATION),  # the target prepares; it does not run there yet
        (2, 2, S.RUNNING, C.RESTORED),
        (3, 0, S.PAUSED, C.USER),
        (3, 1, S.PAUSED, C.MIGRATION),
        (3, 2, S.PAUSED, C.IO_ERROR),
        (3, 7, S.PAUSED, C.POSTCOPY),
        (3, 8, S.PAUSED, C.POSTCOPY_FAILED),
        (4, 0, S.RUNNING, C.USER),
        (4, 1, S.RUNNING, C.MIGRATED),
        (5, 0, S.OFF, C.SHUT_DOWN),
        (5, 1, S.OFF, C.TURNED_OFF),
        (5, 2, S.CRASHED, C.CRASHED),
        (5, 3, S.OFF, C.MIGRATED),
        (5, 4, S.SAVED, C.SAVED),
        (5, 5, S.OFF, C.FAILED),
        (7, 0, S.PAUSED, C.SLEEPING),
        (8, 0, S.CRASHED, C.PANICKED),
        (5, 77, S.OFF, C.OTHER),
        (3, 77, S.PAUSED, C.OTHER),
    ],
)
def test_lifecycle_events(event: int, detail: int, status: VmStatus, cause: StatusCause) -> None:
    seen = event_of(lifecycle(event, detail), node=N1, at_s=5.0)
    assert seen == VmStateChanged(
        at_s=5.0, node=N1, vm=VmId("uuid"), name="web", status=status, cause=cause, shutting_down=False
    )


def test_a_guest_that_was_told_to_shut_down_still_runs() -> None:
    seen = event_of(lifecycle(6, 1), node=N1, at_s=5.0)
    assert isinstance(seen, VmStateChanged)
    assert (seen.status, seen.shutting_down) == (S.RUNNING, True)


def test_definitions() -> None:
    changed = VmDefinitionChanged(at_s=5.0, node=N1, vm=VmId("uuid"), name="web")
    assert event_of(lifecycle(0, 0), node=N1, at_s=5.0) == replace(changed, is_new=True)
    assert event_of(lifecycle(0, 1), node=N1, at_s=5.0) == changed  # another definition of the same VM
    assert event_of(lifecycle(1, 0), node=N1, at_s=5.0) == VmUndefined(at_s=5.0, node=N1, vm=VmId("uuid"))
    assert event_of(lifecycle(1, libvirt.VIR_DOMAIN_EVENT_UNDEFINED_RENAMED), node=N1, at_s=5.0) is None
    for kind in ("METADATA_CHANGE", "DEVICE_ADDED", "DEVICE_REMOVED"):
        raw = RawEvent(getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{kind}"), "uuid", "web")
        assert event_of(raw, node=N1, at_s=5.0) == changed


@pytest.mark.parametrize(("state", "agent"), [(1, True), (2, False), (99, None)])
def test_the_guest_agent_begins_and_ends(state: int, agent: bool | None) -> None:
    raw = RawEvent(libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, "uuid", "web", state)
    assert event_of(raw, node=N1, at_s=5.0) == VmDefinitionChanged(
        at_s=5.0, node=N1, vm=VmId("uuid"), name="web", agent=agent
    )


@pytest.mark.parametrize(("action", "stopped"), [(0, False), (1, True), (2, False)])
def test_an_error_of_a_disk_with_a_hosts_words_made_fit(action: int, stopped: bool) -> None:
    kind = libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON
    raw = RawEvent(kind, "uuid", "web", action, texts=("/srv/a\x1b.img", "enospc\n" + "x" * 10_000))
    seen = event_of(raw, node=N1, at_s=5.0)
    assert isinstance(seen, VmDiskFailed)
    assert (seen.disk, seen.stopped) == ("/srv/a .img", stopped)
    assert seen.text.startswith("enospc x")
    assert len(seen.text) < 2_000


def test_a_reboot() -> None:
    raw = RawEvent(libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, "uuid", "web", 1)
    assert event_of(raw, node=N1, at_s=5.0) == VmRebooted(at_s=5.0, node=N1, vm=VmId("uuid"))


def test_which_events_are_signs_of_a_job() -> None:
    iteration, block, completed = (
        RawEvent(getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{kind}"), "uuid", "web", 1, 3)
        for kind in ("MIGRATION_ITERATION", "BLOCK_JOB_2", "JOB_COMPLETED")
    )
    assert [raw.is_sign_of_job for raw in (iteration, block, completed)] == [True, True, False]
    assert [raw.is_end_of_job for raw in (iteration, block, completed)] == [False, False, True]
    assert [event_of(raw, node=N1, at_s=5.0) for raw in (iteration, block, completed)] == [None] * 3
    whole = RawEvent(block.kind, "uuid", "web", libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY, 0)
    changed = VmDefinitionChanged(at_s=5.0, node=N1, vm=VmId("uuid"), name="web")
    assert event_of(whole, node=N1, at_s=5.0) == changed
    by_somebody = libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED
    assert lifecycle(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, by_somebody).is_sign_of_job
    assert not lifecycle(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, by_somebody).is_transfer
    by_disk_error = libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR
    assert not lifecycle(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, by_disk_error).is_sign_of_job


def test_a_loaded_crash_dumper_and_events_of_the_future_change_nothing() -> None:
    assert event_of(lifecycle(8, 1), node=N1, at_s=5.0) is None
    assert event_of(lifecycle(55, 0), node=N1, at_s=5.0) is None
    assert event_of(RawEvent(999, "uuid", "web"), node=N1, at_s=5.0) is None


def test_no_number_is_refused() -> None:
    for state, reason in itertools.product(range(-1, 12), range(-1, 20)):
        assert isinstance(told(state, reason), Told)
    for event, detail in itertools.product(range(-1, 12), range(-1, 20)):
        event_of(lifecycle(event, detail), node=N1, at_s=0.0)


def test_every_reason_that_this_libvirt_knows_is_in_the_tables() -> None:
    known = {
        1: "VIR_DOMAIN_RUNNING_",
        3: "VIR_DOMAIN_PAUSED_",
        5: "VIR_DOMAIN_SHUTOFF_",
    }
    for state, prefix in known.items():
        names = [name for name in dir(libvirt) if name.startswith(prefix)]
        assert names
        for name in names:
            unknown = told(state, getattr(libvirt, name)).cause is C.OTHER
            assert unknown == (name == "VIR_DOMAIN_PAUSED_UNKNOWN"), name

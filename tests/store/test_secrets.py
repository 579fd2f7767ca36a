"""Secrets stay in the key ring, or in memory where it is missing, broken or silent; never in a log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null
from keyring.errors import KeyringLocked, PasswordDeleteError

from manager.store.secrets import SERVICE, KeyringSecretStore, MemorySecretStore, find_key_ring


class Ring(KeyringBackend):
    """A key ring that works, until told otherwise."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def _check(self) -> None:
        if self.locked:
            raise KeyringLocked("locked")

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError("none")


@pytest.fixture
def restored_backend() -> Iterator[None]:
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)


def test_secrets_live_in_the_key_ring() -> None:
    ring = Ring()
    store = KeyringSecretStore(lambda: ring)
    assert store.get("n1", "root") is None
    store.set("n1", "root", "hunter2")
    assert store.is_persistent
    assert list(ring.kept.values()) == ["hunter2"]
    assert {service for service, _ in ring.kept} == {SERVICE}
    assert KeyringSecretStore(lambda: ring).get("n1", "root") == "hunter2"
    store.delete("n1", "root")
    store.delete("n1", "root")  # there is none: no trouble
    assert ring.kept == {}
    assert store.is_persistent


def test_no_two_accounts_meet() -> None:
    store = KeyringSecretStore(Ring)
    store.set("c", "a@b", "one")
    store.set("b@c", "a", "two")
    assert (store.get("c", "a@b"), store.get("b@c", "a")) == ("one", "two")


@pytest.mark.parametrize("backend", [fail.Keyring, null.Keyring, chainer.ChainerBackend])
@pytest.mark.usefixtures("restored_backend")
def test_a_backend_that_keeps_nothing_is_none(backend: type[KeyringBackend]) -> None:
    keyring.set_keyring(backend())
    assert find_key_ring() is None
    store = KeyringSecretStore()
    store.set("n1", "root", "hunter2")
    assert store.get("n1", "root") == "hunter2"
    assert not store.is_persistent
    store.delete("n1", "root")
    assert store.get("n1", "root") is None


@pytest.mark.usefixtures("restored_backend")
def test_the_backend_that_keyring_chose_is_used() -> None:
    ring = Ring()
    keyring.set_keyring(ring)
    assert find_key_ring() is ring


def test_a_search_that_hangs_costs_its_deadline_once() -> None:
    answer = threading.Event()
    ring = Ring()

    def slow() -> Ring:
        answer.wait(30)
        return ring

    store = KeyringSecretStore(slow, probe_s=0.1)
    begun = time.monotonic()
    assert not store.is_persistent  # does not wait
    store.set("n1", "root", "hunter2")
    for _ in range(20):
        assert store.get("n1", "root") == "hunter2"
    assert time.monotonic() - begun < 1.5
    answer.set()
    store._found.wait(10)
    assert store.is_persistent  # it answered after all
    assert store.get("n1", "root") == "hunter2"


def test_a_search_that_fails_means_memory() -> None:
    def broken() -> Ring:
        raise RuntimeError("no bus")

    store = KeyringSecretStore(broken)
    store.set("n1", "root", "hunter2")
    assert store.get("n1", "root") == "hunter2"
    assert not store.is_persistent


def test_a_key_ring_that_is_locked_later_means_memory_and_nothing_is_logged_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    ring = Ring()
    store = KeyringSecretStore(lambda: ring)
    store.set("n1", "root", "old")
    ring.locked = True
    store.set("n1", "root", "hunter2")
    assert not store.is_persistent
    assert store.get("n1", "root") == "hunter2"
    locked = KeyringSecretStore(lambda: ring)
    assert locked.get("n1", "root") is None
    assert not locked.is_persistent
    assert "hunter2" not in caplog.text


def test_memory_forgets() -> None:
    store = MemorySecretStore()
    store.set("n1", "root", "x")
    assert (store.get("n1", "root"), store.get("n1", "other"), store.is_persistent) == ("x", None, False)
    store.delete("n1", "root")
    store.delete("n1", "root")
    assert store.get("n1", "root") is None

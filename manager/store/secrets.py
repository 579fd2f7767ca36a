"""Passwords: in the computer's key ring, or in this process's memory where there is none."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

_log = logging.getLogger(__name__)

SERVICE = "muster"
PROBE_S = 3.0
"""How long a key ring may take to show that it is there; D-Bus can block for much longer."""


class KeyRing(Protocol):
    """The part of a `keyring` backend that is used."""

    def get_password(self, service: str, username: str) -> str | None:
        """The secret, or None."""
        ...

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep it."""
        ...

    def delete_password(self, service: str, username: str) -> None:
        """Forget it."""
        ...


class MemorySecretStore:
    """`SecretStore` in this process alone. Any thread."""

    is_persistent = False

    def __init__(self) -> None:
        self._secrets: dict[tuple[str, str], str] = {}

    def get(self, entry: str, user: str) -> str | None:
        """The secret, or None."""
        return self._secrets.get((entry, user))

    def set(self, entry: str, user: str, secret: str) -> None:
        """Keep a secret until the process ends."""
        self._secrets[entry, user] = secret

    def delete(self, entry: str, user: str) -> None:
        """Forget a secret."""
        self._secrets.pop((entry, user), None)


class KeyringSecretStore:
    """`SecretStore` on the key ring of this computer, with memory for what it will not take.

    The key ring is looked for in a thread when a secret is first needed: most logins need none, and finding
    it costs a quarter of a second. `get`, `set` and `delete` wait for the outcome and may block (never on the
    loop thread); `is_persistent` does not wait.
    """

    def __init__(self, find: Callable[[], KeyRing | None] | None = None, *, probe_s: float = PROBE_S) -> None:
        self._memory = MemorySecretStore()
        self._ring: KeyRing | None = None
        self._found = threading.Event()
        self._probe_s = probe_s
        self._find = find or find_key_ring
        self._probing: threading.Thread | None = None

    @property
    def is_persistent(self) -> bool:
        """Whether secrets outlive this process. False until the key ring was found."""
        return self._ring is not None

    def get(self, entry: str, user: str) -> str | None:
        """The secret, or None. A locked key ring may ask its owner to unlock it first."""
        secret = self._memory.get(entry, user)
        ring = self._wait()
        if secret is not None or ring is None:
            return secret
        try:
            return ring.get_password(SERVICE, _account(entry, user))
        except Exception as error:
            self._give_up("read", error)
            return None

    def set(self, entry: str, user: str, secret: str) -> None:
        """Keep a secret; in memory only if the key ring refuses it."""
        ring = self._wait()
        if ring is not None:
            try:
                ring.set_password(SERVICE, _account(entry, user), secret)
            except Exception as error:
                self._give_up("written", error)
            else:
                self._memory.delete(entry, user)
                return
        self._memory.set(entry, user, secret)

    def delete(self, entry: str, user: str) -> None:
        """Forget a secret."""
        self._memory.delete(entry, user)
        ring = self._wait()
        if ring is not None:
            try:
                ring.delete_password(SERVICE, _account(entry, user))
            except Exception as error:  # most often: there is none
                _log.debug("nothing deleted from the key ring: %s", type(error).__name__)

    def _probe(self) -> None:
        try:
            self._ring = self._find()
        except Exception as error:
            _log.info("no key ring: %s", type(error).__name__)
        finally:
            self._found.set()

    def _wait(self) -> KeyRing | None:
        if self._probing is None:
            self._probing = threading.Thread(target=self._probe, name="key ring probe", daemon=True)
            self._probing.start()
        if not self._found.wait(self._probe_s):
            # Waited for once. If it answers later after all, it is used from then on.
            self._probe_s = 0.0
            _log.info("the key ring does not answer: secrets are held in memory")
        return self._ring

    def _give_up(self, what: str, error: Exception) -> None:
        # A key ring that is locked or broken now would fail or ask again at every login.
        _log.info("the key ring cannot be %s (%s): memory from now on", what, type(error).__name__)
        self._ring = None


def find_key_ring() -> KeyRing | None:
    """The backend that `keyring` chooses on this computer, or None. Blocks while D-Bus does.

    Backends below priority 1 are none: failing, null, empty, or plain files.
    """
    import keyring  # a tenth of a second, and not needed where no password is
    from keyring.core import recommended

    backend = keyring.get_keyring()
    return backend if recommended(backend) else None


def _account(entry: str, user: str) -> str:
    return f"{quote(user, safe='')}@{entry}"

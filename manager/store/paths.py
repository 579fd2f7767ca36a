"""Where Muster keeps its files, and how a file gets there whole."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from manager.core.errors import UserError
from manager.core.ids import ClusterId

APP = "muster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The user's folders. Nothing is created before `prepare`."""

    config: Path
    state: Path
    runtime: Path
    cache: Path

    @classmethod
    def of_user(cls, environ: Mapping[str, str] = os.environ) -> Paths:
        """The platform's folders for this user, or four folders below ``MUSTER_HOME``."""
        home = environ.get("MUSTER_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            return cls(
                config=root / "config", state=root / "state", runtime=root / "run", cache=root / "cache"
            )
        state = Path(platformdirs.user_state_dir(APP, appauthor=False))
        session = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
        # Without a session there is none; never one in /tmp, where another user may have laid a trap.
        runtime = session / APP if os.access(session, os.W_OK | os.X_OK) else state / "run"
        return cls(
            config=Path(platformdirs.user_config_dir(APP, appauthor=False)),
            state=state,
            runtime=runtime,
            cache=Path(platformdirs.user_cache_dir(APP, appauthor=False)),
        )

    def prepare(self) -> None:
        """Create what is missing, for this user's eyes only.

        Raises:
            UserError: naming the first folder that cannot be made or written to.
        """
        for what, folder in (
            ("configuration", self.config),
            ("state", self.state),
            ("runtime", self.runtime),
            ("cache", self.cache),
        ):
            private_folder(folder, what)

    @property
    def clusters(self) -> Path:
        """The folder of the configured cluster files."""
        return self.config / "clusters"

    @property
    def views(self) -> Path:
        """The folder of the window's layouts, views and columns."""
        return self.config / "views"

    @property
    def last_used(self) -> Path:
        """The list of clusters that were open last."""
        return self.state / "last-used.json"

    def vault(self, cluster: ClusterId) -> Path:
        """The definitions that are kept of a cluster's VMs."""
        return self.state / f"{file_stem(cluster)}.definitions"

    def journal(self, cluster: ClusterId) -> Path:
        """The journal of one cluster's operations."""
        return self.state / f"{file_stem(cluster)}.journal"

    def lock(self, cluster: ClusterId) -> Path:
        """The lock that the owner of that journal holds."""
        return self.state / f"{file_stem(cluster)}.lock"

    def socket(self, cluster: ClusterId) -> Path:
        """The socket on which the owner of that journal listens."""
        return self.runtime / f"{file_stem(cluster)}.socket"


def file_stem(name: str) -> str:
    """A file name for any text: a readable part and a short hash, so that no two names meet."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "cluster"
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def private_folder(folder: Path, what: str) -> None:
    """Create a folder with mode 0700, or see that the existing one is ours to write to.

    Raises:
        UserError: if it is not; nothing was changed then.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.geteuid():
            raise PermissionError(f"it belongs to another user (uid {found.st_uid})")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            folder.chmod(stat.S_IMODE(found.st_mode) & 0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("it is not writable")
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(
            f"The {what} folder {folder} cannot be used: {why}. "
            "Repair it, or set MUSTER_HOME to another folder."
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file there whole or not at all, durable, mode 0600.

    A symbolic link is followed, so that a file kept elsewhere stays there.

    Raises:
        OSError: if it could not be written; the old content stands.
    """
    path = path.resolve()
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def set_aside(path: Path, mark: str, stamp: str) -> Path:
    """Rename a file that cannot be used, so that it is neither lost nor read again."""
    target = path.with_name(f"{path.name}.{mark}-{stamp}")
    os.replace(path, target)
    return target

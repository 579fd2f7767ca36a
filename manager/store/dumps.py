"""Dumps of clusters as files: JSON, checked when they are read."""

from __future__ import annotations

from pathlib import Path

import msgspec

from manager.core.dump import FORMAT, ClusterDump
from manager.core.errors import UserError

MAX_BYTES = 512 << 20

_decode = msgspec.json.Decoder(ClusterDump).decode


class _Format(msgspec.Struct):
    format: int


def read_dump(path: Path) -> ClusterDump:
    """The dump in a file.

    Raises:
        UserError: It cannot be read, is too large, or is no dump; with what is wrong where.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB: no dump of a cluster.")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        if msgspec.json.decode(data, type=_Format).format > FORMAT:
            raise UserError(f"{path}: made by a newer Muster.")
        return _decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UserError(f"{path}: no dump of a cluster: {error}.") from error

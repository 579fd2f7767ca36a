"""Pictures of consoles as PNG, whatever a hypervisor gives. Pure; any thread."""

from __future__ import annotations

import re
import struct
import zlib

MAX_PICTURE_BYTES = 64 << 20
"""More than any screen of a VM has; a host that sends more is not believed."""

MAX_SIDE_PX = 16_384

_PNG = b"\x89PNG\r\n\x1a\n"
_PPM = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d{1,6})\s+(\d{1,6})\s+255\s", re.DOTALL)


def png(width: int, height: int, rgb: bytes) -> bytes:
    """A PNG of 8-bit red, green, blue, row by row."""
    row = width * 3
    body = b"".join(b"\0" + rgb[at : at + row] for at in range(0, row * height, row))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(body, 1)), (b"IEND", b""))
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def as_png(picture: bytes) -> bytes:
    """A picture that a hypervisor made: QEMU's PPM becomes a PNG, a PNG stays one.

    Raises:
        ValueError: It is neither, or not whole, or larger than a screen can be.
    """
    if picture.startswith(_PNG):
        if len(picture) < 33:
            raise ValueError("the picture is not whole")
        width, height = struct.unpack(">II", picture[16:24])
        if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
            raise ValueError(f"the picture is {width} x {height}")
        return picture
    found = _PPM.match(picture)
    if found is None:
        raise ValueError("the picture is neither a PPM nor a PNG")
    width, height = int(found[1]), int(found[2])
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise ValueError(f"the picture is {width} x {height}")
    rgb = picture[found.end() :]
    if len(rgb) < width * height * 3:
        raise ValueError("the picture is not whole")
    return png(width, height, rgb[: width * height * 3])

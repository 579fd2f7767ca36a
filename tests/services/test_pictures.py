"""A hypervisor's picture becomes a PNG, and one that lies is refused."""

from __future__ import annotations

import struct
import zlib

import pytest

from manager.services.pictures import as_png, png

RED_BLUE = b"\xff\0\0\0\0\xff"


def pixels(made: bytes) -> tuple[int, int, bytes]:
    """Width, height and rows of a PNG of ours."""
    assert made[:8] == b"\x89PNG\r\n\x1a\n"
    at, body, size = 8, b"", (0, 0)
    while at < len(made):
        length, kind = struct.unpack(">I4s", made[at : at + 8])
        data = made[at + 8 : at + 8 + length]
        assert struct.unpack(">I", made[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + data)
        if kind == b"IHDR":
            size = struct.unpack(">II", data[:8])
        elif kind == b"IDAT":
            body += data
        at += 12 + length
    return *size, zlib.decompress(body)


def test_a_ppm_becomes_a_png() -> None:
    assert pixels(as_png(b"P6\n# by QEMU\n2 1\n255\n" + RED_BLUE)) == (2, 1, b"\0" + RED_BLUE)
    assert pixels(png(1, 2, RED_BLUE)) == (1, 2, b"\0" + RED_BLUE[:3] + b"\0" + RED_BLUE[3:])


def test_a_png_stays_one() -> None:
    made = png(2, 1, RED_BLUE)
    assert as_png(made) == made


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (b"", "neither"),
        (b"GIF89a", "neither"),
        (b"P6 2 1 255\n" + RED_BLUE[:5], "not whole"),
        (b"P6 999999 999999 255\n", "999999 x 999999"),
        (b"P6 0 1 255\n", "0 x 1"),
        (b"\x89PNG\r\n\x1a\n", "not whole"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1 << 20, 1) + b"\0" * 16, "1048576 x 1"),
    ],
)
def test_one_that_lies_is_refused(picture: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        as_png(picture)
